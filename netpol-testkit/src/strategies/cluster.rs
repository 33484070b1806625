//! Namespaces, nodes and pods, and the clusters that they and policies make.

use super::label::labels;
use super::policy::{cluster_policies, network_policies, protocols};
use super::vocabulary::{
    NAMESPACES, NODES, PODS, PORT_NAMES, PORTS, names, namespace_names, node_addresses, pod_address,
};
use netpol_core::{Cluster, ContainerPort, Family, Namespace, Node, Phase, Pod, PodId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::IpAddr;

/// A namespace of this name: with its name as a label, or as old API servers stored it, without.
fn namespace(name: &'static str) -> impl Strategy<Value = Namespace> {
    (labels(), prop::bool::weighted(0.9)).prop_map(move |(labels, name_label)| {
        if name_label {
            Namespace::new(name, labels)
        } else {
            Namespace::without_name_label(name, labels)
        }
    })
}

/// Namespaces.
pub fn namespaces() -> impl Strategy<Value = Namespace> {
    prop_oneof![
        namespace(NAMESPACES[0]),
        namespace(NAMESPACES[1]),
        namespace(NAMESPACES[2]),
        namespace(NAMESPACES[3]),
    ]
}

/// Nodes: of one family or of both.
pub fn nodes() -> impl Strategy<Value = Node> {
    let families =
        prop_oneof![3 => Just((true, true)), 1 => Just((true, false)), 1 => Just((false, true))];
    (names(&NODES), labels(), families).prop_map(|(name, labels, (v4, v6))| {
        let [a4, a6] = node_addresses(name);
        Node::new(name, labels, v4.then_some(a4).into_iter().chain(v6.then_some(a6)))
    })
}

/// Addresses of a pod: of both families, of one, several of one, or none yet. Different pods may draw the same.
pub(super) fn pod_addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    let number = || 0u8..12;
    let of = |family| move |number| pod_address(family, number);
    prop_oneof![
        6 => (number(), number()).prop_map(move |(a, b)| vec![of(Family::V4)(a), of(Family::V6)(b)]),
        3 => number().prop_map(move |a| vec![of(Family::V4)(a)]),
        2 => number().prop_map(move |a| vec![of(Family::V6)(a)]),
        1 => vec(number().prop_map(of(Family::V4)), 2..=3),
        2 => Just(vec![]),
    ]
}

pub(super) fn container_ports() -> impl Strategy<Value = Vec<ContainerPort>> {
    let port = (names(&PORT_NAMES[..2]), protocols(), select(&PORTS[..4]))
        .prop_map(|(name, protocol, port)| ContainerPort { name: name.into(), protocol, port });
    vec(port, 0..=4)
}

pub(super) fn phases() -> impl Strategy<Value = Phase> {
    prop_oneof![12 => Just(Phase::Running), 3 => Just(Phase::Pending), 1 => Just(Phase::Finished)]
}

/// Pods in every state: running, pending, finished, on the host network, with and without addresses, node, named ports.
pub fn pods() -> impl Strategy<Value = Pod> {
    let identity = (namespace_names(), names(&PODS), option::of(0u8..3), option::of(0i64..3));
    // A pod on the host network usually reports its node's addresses.
    let place = (
        option::weighted(0.8, names(&NODES)),
        prop::bool::weighted(0.06),
        prop::bool::weighted(0.7),
    );
    (identity, labels(), pod_addresses(), container_ports(), place, phases()).prop_map(
        |(identity, labels, mut addresses, ports, place, phase)| {
            let (namespace, name, uid, created) = identity;
            let (node, host_network, reports_node) = place;
            if let (Some(node), true, true) = (node, host_network, reports_node) {
                addresses = node_addresses(node).into();
            }
            let mut pod = Pod::new(PodId::new(namespace, name), labels)
                .with_addresses(addresses)
                .with_ports(ports)
                .with_phase(phase)
                .with_host_network(host_network);
            if let Some(node) = node {
                pod = pod.with_node(node);
            }
            if let Some(uid) = uid {
                pod = pod.with_uid(uid.to_string());
            }
            if let Some(created) = created {
                pod = pod.with_created(created);
            }
            pod
        },
    )
}

/// Clusters: up to four namespaces, some of them without an object, eight pods and ten policies.
pub fn clusters() -> impl Strategy<Value = Cluster> {
    let known = |name| option::weighted(0.85, namespace(name));
    let namespaces = NAMESPACES.map(known);
    let policies = (vec(network_policies(), 0..=6), vec(cluster_policies(), 0..=4));
    (namespaces, vec(nodes(), 0..=2), vec(pods(), 1..=8), policies).prop_map(
        |(namespaces, nodes, pods, (network, cluster_wide))| {
            let mut cluster = Cluster::new();
            for namespace in namespaces.into_iter().flatten() {
                cluster.insert_namespace(namespace);
            }
            for node in nodes {
                cluster.insert_node(node);
            }
            for pod in pods {
                cluster.insert_pod(pod);
            }
            for policy in network.into_iter().chain(cluster_wide) {
                cluster.insert_policy(policy);
            }
            cluster
        },
    )
}
