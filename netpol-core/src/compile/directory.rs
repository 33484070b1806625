//! The pods of a cluster, indexed so that a selection costs about what it selects.

use crate::address_set::AddressSet;
use crate::cluster::{Cluster, Pod};
use crate::label::{Operator, Selector};
use crate::name::NamespaceName;
use crate::policy::{NamespaceSelection, PodSelection};
use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

/// A managed pod by its position in the directory. Positions follow the order of [`PodId`](crate::PodId)s.
pub(super) type PodIndex = u32;

/// The managed pods in order, the addresses that each owns, and an index over their labels.
pub(super) struct Directory<'a> {
    cluster: &'a Cluster,
    pods: Vec<(&'a Pod, Vec<IpAddr>)>,
    /// Pods are ordered by namespace, so each namespace is one range of positions.
    namespaces: HashMap<&'a NamespaceName, Range<PodIndex>>,
    labels: OnceCell<LabelIndex<'a>>,
}

type LabelIndex<'a> = HashMap<&'a str, KeyIndex<'a>>;

/// The pods with one label key, and with each of its values; ordered.
#[derive(Default)]
struct KeyIndex<'a> {
    present: Vec<PodIndex>,
    values: HashMap<&'a str, Vec<PodIndex>>,
}

impl<'a> Directory<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let owners = cluster.address_owners();
        let owned = |pod: &'a Pod| -> Vec<IpAddr> {
            let addresses = pod.addresses().iter().copied();
            addresses
                .filter(|address| owners.get(address).is_some_and(|&id| id == pod.id()))
                .collect()
        };
        let managed = cluster.pods().filter(|pod| pod.is_managed());
        let pods: Vec<_> = managed.map(|pod| (pod, owned(pod))).collect();
        let mut namespaces: HashMap<_, Range<PodIndex>> = HashMap::new();
        for (index, (pod, _)) in (0..).zip(&pods) {
            let range = namespaces.entry(pod.id().namespace()).or_insert(index..index);
            range.end = index + 1;
        }
        Self { cluster, pods, namespaces, labels: OnceCell::new() }
    }

    /// The pod at a position, and the addresses that it owns.
    pub(super) fn pod(&self, index: PodIndex) -> Option<&(&'a Pod, Vec<IpAddr>)> {
        self.pods.get(index as usize)
    }

    /// All positions, in order.
    pub(super) fn positions(&self) -> Range<PodIndex> {
        0..PodIndex::try_from(self.pods.len()).unwrap_or(PodIndex::MAX)
    }

    /// The positions of the pods that `selection` selects, in order.
    pub(super) fn select(&self, selection: &PodSelection) -> Vec<PodIndex> {
        let mut selected = Vec::new();
        for range in self.ranges(&selection.namespaces) {
            self.select_in(range, &selection.pods, &mut selected);
        }
        selected
    }

    /// The addresses of the nodes that `selector` selects (CNP-18).
    pub(super) fn node_addresses(&self, selector: &Selector) -> AddressSet {
        let selected = self.cluster.nodes().filter(|node| selector.matches(node.labels()));
        selected.flat_map(|node| node.addresses().iter().copied()).collect()
    }

    /// The positions of each namespace that is selected, in order. A selector looks at namespaces whose labels are
    /// known; the policy's own namespace needs none (NP-26).
    fn ranges(&self, namespaces: &NamespaceSelection) -> Vec<Range<PodIndex>> {
        match namespaces {
            NamespaceSelection::Named(name) => {
                self.namespaces.get(name).cloned().into_iter().collect()
            }
            NamespaceSelection::Matching(selector) => self
                .cluster
                .namespaces()
                .filter(|namespace| selector.matches(namespace.labels()))
                .filter_map(|namespace| self.namespaces.get(namespace.name()).cloned())
                .collect(),
        }
    }

    fn select_in(&self, range: Range<PodIndex>, pods: &Selector, selected: &mut Vec<PodIndex>) {
        if pods.is_everything() {
            return selected.extend(range);
        }
        let matches =
            |index: &PodIndex| self.pod(*index).is_some_and(|(pod, _)| pods.matches(pod.labels()));
        match self.fewest_candidates(&range, pods) {
            Some(candidates) if candidates.len() < range.len() => {
                selected.extend(candidates.iter().copied().filter(matches));
            }
            _ => selected.extend(range.filter(matches)),
        }
    }

    /// The shortest list of pods of the range that holds all that can match: those with one required key or pair.
    fn fewest_candidates<'s>(
        &'s self,
        range: &Range<PodIndex>,
        pods: &Selector,
    ) -> Option<&'s [PodIndex]> {
        let labels = self.labels.get_or_init(|| index_labels(&self.pods));
        let lists = pods.requirements().iter().filter_map(|requirement| {
            let key = labels.get(requirement.key());
            let list = match requirement.operator() {
                Operator::In(values) if values.len() == 1 => {
                    values.first().and_then(|value| key.and_then(|key| key.values.get(&**value)))
                }
                Operator::In(_) | Operator::Exists => key.map(|key| &key.present),
                Operator::NotIn(_) | Operator::DoesNotExist => return None,
            };
            let list = list.map_or(&[][..], Vec::as_slice);
            let first = list.partition_point(|index| *index < range.start);
            let last = list.partition_point(|index| *index < range.end);
            list.get(first..last)
        });
        lists.min_by_key(|list| list.len())
    }
}

fn index_labels<'a>(pods: &[(&'a Pod, Vec<IpAddr>)]) -> LabelIndex<'a> {
    let mut index = LabelIndex::new();
    for (position, (pod, _)) in (0..).zip(pods) {
        for (key, value) in pod.labels().iter() {
            let key = index.entry(key).or_default();
            key.present.push(position);
            key.values.entry(value).or_default().push(position);
        }
    }
    index
}
