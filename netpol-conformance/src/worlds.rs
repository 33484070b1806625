//! Clusters with a lab to them.

use netpol_core::{Cluster, IpBlock, Labels, Namespace, Peer, Phase, Pod, PodId, Policy, Protocol};
use netpol_lab::{Plan, Traffic};
use netpol_testkit::samples::is;
use std::net::IpAddr;

pub(crate) const WEB: Traffic = Traffic::Port(Protocol::Tcp, 80);
pub(crate) const DNS: Traffic = Traffic::Port(Protocol::Udp, 53);

/// Pod a, pod b and an external address, for each family.
pub(crate) const PAIRS: [(&str, &str, &str); 2] =
    [("10.0.0.1", "10.0.0.2", "203.0.113.9"), ("fd00::1", "fd00::2", "2001:db8::9")];

pub(crate) fn pairs() -> [(IpAddr, IpAddr, IpAddr); 2] {
    PAIRS.map(|(a, b, world)| (ip(a), ip(b), ip(world)))
}

pub(crate) fn pod(name: &str) -> PodId {
    PodId::new("shop", name)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn network(cidr: &str) -> Peer {
    Peer::Network(IpBlock { cidr: cidr.parse().expect("a CIDR"), except: vec![] })
}

/// Pods a and b on the node, dual-stack, a with a second address, and one external address of each family.
pub(crate) fn two_pods() -> (Plan, Cluster) {
    let mut cluster = Cluster::new();
    cluster.insert_namespace(Namespace::new("shop", Labels::new()));
    for (name, addresses) in
        [("a", &["10.0.0.1", "10.0.1.1", "fd00::1"][..]), ("b", &["10.0.0.2", "fd00::2"])]
    {
        cluster.insert_pod(
            Pod::new(pod(name), Labels::from_iter([("app", name)]))
                .with_addresses(addresses.iter().map(|a| ip(a)))
                .with_phase(Phase::Running),
        );
    }
    let plan = Plan::of(&cluster, None).with_external([ip("203.0.113.9"), ip("2001:db8::9")]);
    let plan = plan.with_node_addresses([ip("192.168.0.1"), ip("fd00:9::1")]);
    let cluster = plan.complete(&cluster);
    (plan, cluster)
}

pub(crate) fn deny_all(subject: &str) -> Policy {
    let name = format!("deny-{subject}");
    Policy::network_policy("shop", name, is(subject), Some(vec![]), Some(vec![]))
}

pub(crate) fn deny_ingress(subject: &str) -> Policy {
    Policy::network_policy("shop", format!("in-{subject}"), is(subject), Some(vec![]), None)
}

pub(crate) fn deny_egress(subject: &str) -> Policy {
    Policy::network_policy("shop", format!("out-{subject}"), is(subject), None, Some(vec![]))
}

/// The pods, behind devices that nobody knows, or all behind this one.
pub(crate) fn behind(cluster: &Cluster, device: Option<&str>) -> Cluster {
    let mut moved = cluster.clone();
    for pod in cluster.pods() {
        let mut bare = Pod::new(pod.id().clone(), pod.labels().clone())
            .with_addresses(pod.addresses().to_vec())
            .with_ports(pod.ports().to_vec())
            .with_phase(pod.phase())
            .with_host_network(pod.host_network());
        if let Some(node) = pod.node() {
            bare = bare.with_node(node.as_str());
        }
        if let Some(created) = pod.created() {
            bare = bare.with_created(created);
        }
        if let Some(device) = device {
            bare = bare.with_interface(device);
        }
        moved.insert_pod(bare);
    }
    moved
}
