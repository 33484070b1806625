//! Edits: what happens to a cluster, one thing after the other.

use super::cluster::{clusters, container_ports, namespaces, nodes, phases, pod_addresses, pods};
use super::label::labels;
use super::policy::policies;
use netpol_core::{
    Cluster, ContainerPort, Labels, Namespace, NamespaceName, Node, NodeName, Phase, Pod, PodId,
    Policy, PolicyId,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::net::IpAddr;

/// One thing that happens to a cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "what can be done to a cluster")]
pub enum Edit {
    /// A pod appears, or an existing one becomes this.
    InsertPod(Pod),
    /// A pod goes.
    RemovePod(PodId),
    /// A namespace appears, or an existing one becomes this.
    InsertNamespace(Namespace),
    /// A namespace object goes; its pods and policies stay.
    RemoveNamespace(NamespaceName),
    /// A node appears, or an existing one becomes this.
    InsertNode(Node),
    /// A node goes.
    RemoveNode(NodeName),
    /// A policy appears, or an existing one becomes this.
    InsertPolicy(Policy),
    /// A policy goes.
    RemovePolicy(PolicyId),
}

impl Edit {
    /// Makes it happen.
    pub fn apply(&self, cluster: &mut Cluster) {
        match self {
            Self::InsertPod(pod) => drop(cluster.insert_pod(pod.clone())),
            Self::RemovePod(id) => drop(cluster.remove_pod(id)),
            Self::InsertNamespace(namespace) => {
                drop(cluster.insert_namespace(namespace.clone()));
            }
            Self::RemoveNamespace(name) => drop(cluster.remove_namespace(name)),
            Self::InsertNode(node) => drop(cluster.insert_node(node.clone())),
            Self::RemoveNode(name) => drop(cluster.remove_node(name)),
            Self::InsertPolicy(policy) => drop(cluster.insert_policy(policy.clone())),
            Self::RemovePolicy(id) => drop(cluster.remove_policy(id)),
        }
    }
}

/// An edit that is still to be made to fit a cluster.
#[derive(Clone, Debug)]
pub struct EditSeed(EditKind);

#[derive(Clone, Debug)]
enum EditKind {
    Insert(Edit),
    RemovePod(Index),
    RelabelPod(Index, Labels),
    MovePod(Index, Vec<IpAddr>),
    AgePod(Index, Phase),
    RenamePorts(Index, Vec<ContainerPort>),
    RelabelNamespace(Index, Labels),
    RemoveNamespace(Index),
    RemoveNode(Index),
    RemovePolicy(Index),
}

impl EditSeed {
    /// The edit that this is in `cluster`; none if there is nothing of the kind to edit.
    #[must_use]
    pub fn resolve(&self, cluster: &Cluster) -> Option<Edit> {
        fn pick<'a, T>(index: Index, of: impl ExactSizeIterator<Item = &'a T>) -> Option<&'a T> {
            let all: Vec<&T> = of.collect();
            (!all.is_empty()).then(|| *index.get(&all))
        }
        let pod = |index: &Index| pick(*index, cluster.pods()).cloned();
        let namespace = |index: &Index| pick(*index, cluster.namespaces());
        Some(match &self.0 {
            EditKind::Insert(edit) => edit.clone(),
            EditKind::RemovePod(i) => Edit::RemovePod(pod(i)?.id().clone()),
            EditKind::RelabelPod(i, to) => Edit::InsertPod(pod(i)?.with_labels(to.clone())),
            EditKind::MovePod(i, to) => Edit::InsertPod(pod(i)?.with_addresses(to.iter().copied())),
            EditKind::AgePod(i, phase) => Edit::InsertPod(pod(i)?.with_phase(*phase)),
            EditKind::RenamePorts(i, to) => Edit::InsertPod(pod(i)?.with_ports(to.iter().cloned())),
            EditKind::RelabelNamespace(i, to) => {
                let name = namespace(i)?.name().clone();
                Edit::InsertNamespace(Namespace::new(name.as_str(), to.clone()))
            }
            EditKind::RemoveNamespace(i) => Edit::RemoveNamespace(namespace(i)?.name().clone()),
            EditKind::RemoveNode(i) => Edit::RemoveNode(pick(*i, cluster.nodes())?.name().clone()),
            EditKind::RemovePolicy(i) => {
                Edit::RemovePolicy(pick(*i, cluster.policies())?.id().clone())
            }
        })
    }
}

/// Edits that are still to be made to fit a cluster.
pub fn edit_seeds() -> impl Strategy<Value = EditSeed> {
    let index = any::<Index>;
    prop_oneof![
        3 => pods().prop_map(|pod| EditKind::Insert(Edit::InsertPod(pod))),
        2 => index().prop_map(EditKind::RemovePod),
        3 => (index(), labels()).prop_map(|(i, to)| EditKind::RelabelPod(i, to)),
        2 => (index(), pod_addresses()).prop_map(|(i, to)| EditKind::MovePod(i, to)),
        2 => (index(), phases()).prop_map(|(i, to)| EditKind::AgePod(i, to)),
        1 => (index(), container_ports()).prop_map(|(i, to)| EditKind::RenamePorts(i, to)),
        1 => namespaces().prop_map(|n| EditKind::Insert(Edit::InsertNamespace(n))),
        2 => (index(), labels()).prop_map(|(i, to)| EditKind::RelabelNamespace(i, to)),
        1 => index().prop_map(EditKind::RemoveNamespace),
        1 => nodes().prop_map(|node| EditKind::Insert(Edit::InsertNode(node))),
        1 => index().prop_map(EditKind::RemoveNode),
        3 => policies().prop_map(|policy| EditKind::Insert(Edit::InsertPolicy(policy))),
        2 => index().prop_map(EditKind::RemovePolicy),
    ]
    .prop_map(EditSeed)
}

/// A cluster and edits that are to be made one after the other.
pub fn clusters_with_edits() -> impl Strategy<Value = (Cluster, Vec<Edit>)> {
    (clusters(), vec(edit_seeds(), 1..=8)).prop_map(|(cluster, seeds)| {
        let mut state = cluster.clone();
        let edits = seeds
            .iter()
            .filter_map(|seed| {
                let edit = seed.resolve(&state)?;
                edit.apply(&mut state);
                Some(edit)
            })
            .collect();
        (cluster, edits)
    })
}
