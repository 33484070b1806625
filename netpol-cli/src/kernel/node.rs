//! Which pods are enforced here.

use crate::Failure;
use netpol_core::{NodeName, Pod};
use netpol_k8s::Manifests;
use std::collections::BTreeSet;

/// The pods that rules are for.
pub(crate) enum Choice {
    /// No pod says which node it is on, or the user wants them all.
    AllPods,
    /// Those of one node.
    Node(NodeName),
}

/// The node with this name.
pub(crate) fn named(name: &str, manifests: &Manifests) -> Result<Choice, Failure> {
    let known = nodes(manifests);
    let name = NodeName::from(name);
    if known.contains(&name) { Ok(Choice::Node(name)) } else { Err(unknown(&name, &known)) }
}

/// The node that this machine is: the one called like it, all pods if none names a node.
pub(crate) fn of_this_machine(manifests: &Manifests) -> Result<Choice, Failure> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = NodeName::from(host.trim());
    let known = nodes(manifests);
    if known.contains(&host) {
        return Ok(Choice::Node(host));
    }
    if manifests.cluster().pods().all(|pod| pod.node().is_none()) {
        return Ok(Choice::AllPods);
    }
    Err(unknown(&host, &known))
}

fn nodes(manifests: &Manifests) -> BTreeSet<NodeName> {
    let cluster = manifests.cluster();
    let of_pods = cluster.pods().filter_map(Pod::node);
    of_pods.chain(cluster.nodes().map(netpol_core::Node::name)).cloned().collect()
}

fn unknown(name: &NodeName, known: &BTreeSet<NodeName>) -> Failure {
    let shown: Vec<_> = known.iter().take(10).map(ToString::to_string).collect();
    let more = known.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let there = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
    Failure::Message(format!(
        "no node is called `{name}`; name one with --node: there are {there}{more}"
    ))
}
