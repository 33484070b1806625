//! Two pods and a node, policies and questions in few words, for the tests.

use super::allowed;
use crate::connection::{Connection, End, Traffic};
use netpol_core::{
    Cluster, IpBlock, Labels, Match, Namespace, Node, Options, Peer, Phase, Pod, PodId, Policy,
    PolicyRule, PortEntry, Protocol, Selector, TrafficMatch, Verdict,
};
use std::net::IpAddr;

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn address(text: &str) -> End {
    End::Address(ip(text))
}

pub(super) fn tcp(port: u16) -> Traffic {
    Traffic::Port(Protocol::Tcp, port)
}

pub(super) fn pod(name: &str, addresses: &[&str]) -> Pod {
    Pod::new(PodId::new("n", name), Labels::from_iter([("pod", name)]))
        .with_addresses(addresses.iter().map(|a| ip(a)))
        .with_phase(Phase::Running)
}

/// Namespace n with pods a and b, both dual-stack.
pub(super) fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.insert_namespace(Namespace::new("n", Labels::from_iter([("team", "")])));
    cluster.insert_pod(pod("a", &["10.0.0.1", "fd00::1"]));
    cluster.insert_pod(pod("b", &["10.0.0.2", "fd00::2"]));
    cluster.insert_node(Node::new("node", Labels::new(), [ip("192.168.0.1")]));
    cluster
}

pub(super) fn is(name: &str) -> Selector {
    Selector::match_labels([("pod", name)])
}

pub(super) fn block(cidr: &str, except: &[&str]) -> Peer {
    let except = except.iter().map(|e| e.parse().unwrap()).collect();
    Peer::Network(IpBlock { cidr: cidr.parse().unwrap(), except })
}

pub(super) fn peers(peers: impl IntoIterator<Item = Peer>) -> TrafficMatch {
    TrafficMatch::new(Match::OneOf(peers.into_iter().collect()), Match::Any)
}

pub(super) fn ports(ports: impl IntoIterator<Item = PortEntry>) -> TrafficMatch {
    TrafficMatch::new(Match::Any, Match::OneOf(ports.into_iter().collect()))
}

pub(super) fn rule(verdict: Verdict, matches: TrafficMatch) -> PolicyRule {
    PolicyRule { matches, verdict }
}

pub(super) fn ingress(subject: Selector, rules: Vec<TrafficMatch>) -> Policy {
    Policy::network_policy("n", "ingress", subject, Some(rules), None)
}

pub(super) fn egress(subject: Selector, rules: Vec<TrafficMatch>) -> Policy {
    Policy::network_policy("n", "egress", subject, None, Some(rules))
}

pub(super) fn with(policies: impl IntoIterator<Item = Policy>) -> Cluster {
    let mut cluster = cluster();
    for policy in policies {
        cluster.insert_policy(policy);
    }
    cluster
}

pub(super) fn ask(cluster: &Cluster, source: &str, destination: &str, traffic: Traffic) -> bool {
    let end = |text: &str| match text.split_once('/') {
        Some((namespace, name)) => End::Pod(PodId::new(namespace, name)),
        None => address(text),
    };
    let connection = Connection::new(end(source), end(destination), traffic);
    allowed(cluster, &connection, &Options::default())
}

#[track_caller]
pub(super) fn check(cluster: &Cluster, cases: &[(&str, &str, Traffic, bool)]) {
    for (source, destination, traffic, expected) in cases {
        let got = ask(cluster, source, destination, *traffic);
        assert_eq!(got, *expected, "{source} -> {destination} {traffic}");
    }
}
