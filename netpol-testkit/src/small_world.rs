//! A world so small that every packet of it can be tried: few addresses, few ports, and everything else alike.
//!
//! Pods, blocks and named ports lie within it, so that all addresses outside are alike, as are all ports above. A proof about
//! all packets and a trial of each must come to the same end ([`SmallWorld::values`], [`crate::enumeration`]).

use crate::enumeration::Values;
use crate::strategies::{labels, pod_selections, protocols, selectors};
use ipnet::IpNet;
use netpol_core::{
    Cluster, ContainerPort, IpBlock, Labels, Match, Namespace, Peer, Phase, Pod, PodId,
    PodSelection, Policy, PolicyRule, PortEntry, TrafficMatch, Verdict,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The ports from 0 on that are told apart; all others are alike.
const PORTS: u16 = 8;
const NAMESPACES: [&str; 2] = ["x", "y"];
const NAMES: [&str; 3] = ["a", "b", "c"];

/// Two to the power of some bits addresses of each family.
#[derive(Clone, Copy, Debug)]
pub struct SmallWorld {
    bits: u8,
}

impl SmallWorld {
    /// A world whose addresses differ in so many bits, 1 to 8.
    #[must_use]
    pub fn new(bits: u8) -> Self {
        Self { bits: bits.clamp(1, 8) }
    }

    /// An address; numbers beyond the last begin again.
    #[must_use]
    pub fn address(self, v6: bool, number: u8) -> IpAddr {
        let number = if self.bits < 8 { number % (1 << self.bits) } else { number };
        if v6 {
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()).into()
        } else {
            Ipv4Addr::new(10, 0, 0, number).into()
        }
    }

    /// Every address of this world and some outside, every port that is told apart and some others.
    #[must_use]
    pub fn values(self) -> Values {
        let last = u8::try_from((1u32 << self.bits) - 1).unwrap_or(u8::MAX);
        let inside = [false, true]
            .into_iter()
            .flat_map(|v6| (0..=last).map(move |number| self.address(v6, number)));
        let outside: [IpAddr; 4] = [
            Ipv4Addr::new(9, 255, 255, 255).into(),
            Ipv4Addr::new(203, 0, 113, 9).into(),
            Ipv6Addr::LOCALHOST.into(),
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, 0).into(),
        ];
        Values {
            addresses: inside.chain(outside).collect(),
            ports: (0..=PORTS).chain([u16::MAX]).collect(),
            thin: false,
        }
    }

    fn addresses(self, v6: bool) -> impl Strategy<Value = IpAddr> {
        any::<u8>().prop_map(move |number| self.address(v6, number))
    }

    fn pods(self) -> impl Strategy<Value = Pod> {
        let addresses =
            (option::weighted(0.9, self.addresses(false)), option::of(self.addresses(true)));
        let port = (protocols(), 0..PORTS).prop_map(|(protocol, port)| ContainerPort {
            name: "web".into(),
            protocol,
            port,
        });
        let identity = (select(&NAMESPACES[..]), select(&NAMES[..]));
        let place = prop_oneof![3 => Just("node-1"), 1 => Just("node-2")];
        (identity, labels(), addresses, vec(port, 0..=2), place).prop_map(
            |((namespace, name), labels, (v4, v6), ports, node)| {
                Pod::new(PodId::new(namespace, name), labels)
                    .with_addresses(v4.into_iter().chain(v6))
                    .with_ports(ports)
                    .with_phase(Phase::Running)
                    .with_node(node)
            },
        )
    }

    /// A network within the world, or all addresses.
    fn networks(self) -> impl Strategy<Value = IpNet> {
        let lengths = (any::<bool>(), any::<u8>(), 0..=self.bits, prop::bool::weighted(0.2));
        lengths.prop_map(move |(v6, number, free, all)| {
            let address = self.address(v6, number);
            let length = if v6 { 128 } else { 32 } - free;
            IpNet::new(address, if all { 0 } else { length }).unwrap_or_else(|_| address.into())
        })
    }

    fn rules(self) -> impl Strategy<Value = Vec<TrafficMatch>> {
        let block = (self.networks(), vec(self.networks(), 0..=2))
            .prop_map(|(cidr, except)| Peer::Network(IpBlock { cidr, except }));
        let peer = prop_oneof![pod_selections().prop_map(Peer::Pods), block];
        let peers = prop_oneof![
            1 => Just(Match::Any),
            3 => vec(peer, 1..=2).prop_map(Match::OneOf),
        ];
        let entry = prop_oneof![
            1 => protocols().prop_map(PortEntry::Protocol),
            3 => (protocols(), 0..PORTS, 0..PORTS)
                .prop_map(|(protocol, first, last)| PortEntry::Range { protocol, first, last }),
            1 => protocols().prop_map(|protocol| PortEntry::Named { protocol, name: "web".into() }),
        ];
        let ports = prop_oneof![
            1 => Just(Match::Any),
            2 => vec(entry, 1..=2).prop_map(Match::OneOf),
        ];
        vec((peers, ports).prop_map(|(peers, ports)| TrafficMatch::new(peers, ports)), 0..=2)
    }

    fn policies(self) -> impl Strategy<Value = Policy> {
        let rules = || option::weighted(0.6, self.rules());
        let network = (select(&NAMESPACES[..]), select(&NAMES[..]), selectors(), rules(), rules())
            .prop_map(|(namespace, name, pods, ingress, egress)| {
                Policy::network_policy(namespace, name, pods, ingress, egress)
            });
        let verdicts = select(&[Verdict::Allow, Verdict::Deny, Verdict::Pass][..]);
        let judged = || {
            (self.rules(), verdicts.clone()).prop_map(|(rules, verdict)| {
                let judge = |matches| PolicyRule { matches, verdict };
                rules.into_iter().map(judge).collect::<Vec<_>>()
            })
        };
        let subject = prop_oneof![Just(PodSelection::everything()), pod_selections()];
        let wide = (any::<bool>(), select(&NAMES[..]), 0..2i32, subject, judged(), judged());
        let wide = wide.prop_map(|(baseline, name, priority, subject, ingress, egress)| {
            let new = if baseline { Policy::baseline } else { Policy::admin };
            new(name, priority, subject, ingress, egress)
        });
        prop_oneof![2 => network, 1 => wide]
    }

    /// Clusters within this world: pods on two nodes, policies of all tiers.
    pub fn clusters(self) -> impl Strategy<Value = Cluster> {
        let drawn = (vec(self.pods(), 1..=4), vec(self.policies(), 0..=4));
        drawn.prop_map(|(pods, policies)| {
            let mut cluster = Cluster::new();
            for name in NAMESPACES {
                cluster.insert_namespace(Namespace::new(name, Labels::new()));
            }
            for pod in pods {
                cluster.insert_pod(pod);
            }
            for policy in policies {
                cluster.insert_policy(policy);
            }
            cluster
        })
    }
}
