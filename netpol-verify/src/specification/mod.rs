//! The other side of every proof: what the policies say about a packet, straight from the model.
//!
//! Nothing here is shared with the compiler, the rule IR or a renderer, nor with `netpol_sim::reference`, to which a
//! property test holds it equal. It differs from the reference in being fast enough for every packet class of a node:
//! selections are evaluated once, and what applies to a pod is collected once.
//!
//! ```text
//! a packet passes    if the source's egress and the destination's ingress allow it, each if its pod is on this node (NP-14)
//! a pod and itself   pass (NP-73); so does neighbor discovery (NP-52)
//! else               Admin -> NetworkPolicy -> Baseline -> allowed (CNP-30)
//! ```

mod decision;
mod side;

pub use decision::Judgement;
pub(crate) use decision::Question;
pub(crate) use side::{Block, Selected, Side, SpecPeer, SpecRule};

use crate::machine::{Range, address_value};
use netpol_core::{
    Cluster, Direction, NamespaceName, NamespaceSelection, NodeName, Options, Phase, Pod,
    PodSelection, Policy,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;

/// Where a managed pod stands in the specification.
pub(crate) type PodIndex = usize;

/// What the policies of a cluster say about packets on one node.
pub struct Specification<'a> {
    cluster: &'a Cluster,
    node: Option<NodeName>,
    options: Options,
    pods: Vec<&'a Pod>,
    local: Vec<bool>,
    local_pods: Vec<PodIndex>,
    /// The addresses of this node's pods with their owners, IPv4 and IPv6, ordered.
    local_owners: [Vec<(u128, PodIndex)>; 2],
    v4: BTreeMap<u128, PodIndex>,
    v6: BTreeMap<u128, PodIndex>,
    by_label: HashMap<(&'a str, &'a str), Vec<PodIndex>>,
    by_namespace: HashMap<&'a NamespaceName, Vec<PodIndex>>,
    /// The policies for pods of one namespace, by that.
    policies_in: HashMap<&'a NamespaceName, Vec<&'a Policy>>,
    /// Those for pods of any.
    policies_anywhere: Vec<&'a Policy>,
    selections: RefCell<HashMap<&'a PodSelection, Rc<Selected>>>,
    sides: RefCell<HashMap<(PodIndex, Direction), Rc<Side<'a>>>>,
}

impl fmt::Debug for Specification<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Specification").field("pods", &self.pods.len()).finish_non_exhaustive()
    }
}
impl<'a> Specification<'a> {
    /// What the policies of a cluster say for the pods of a node, or for all.
    #[must_use]
    pub fn new(cluster: &'a Cluster, node: Option<&NodeName>, options: Options) -> Self {
        let managed = |pod: &&Pod| {
            !pod.host_network() && matches!(pod.phase(), Phase::Pending | Phase::Running)
        };
        let pods: Vec<&Pod> = cluster.pods().filter(managed).collect();
        let local: Vec<bool> =
            pods.iter().map(|pod| node.is_none() || pod.node() == node).collect();
        let is_local = |pod: &PodIndex| local.get(*pod).copied().unwrap_or(false);
        let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
        let mut by_label: HashMap<_, Vec<PodIndex>> = HashMap::new();
        let mut by_namespace: HashMap<_, Vec<PodIndex>> = HashMap::new();
        // Of several that report an address: the running, the younger, then any fixed order (NP-93).
        let loses = |pod: &Pod, to: &Pod| {
            let claim = |pod: &Pod| (pod.phase() == Phase::Running, pod.created());
            (claim(pod), pod.uid(), pod.id()) < (claim(to), to.uid(), to.id())
        };
        for (index, pod) in pods.iter().enumerate() {
            by_namespace.entry(pod.id().namespace()).or_default().push(index);
            for label in pod.labels().iter() {
                by_label.entry(label).or_default().push(index);
            }
            for address in pod.addresses() {
                let owners = if address.is_ipv6() { &mut v6 } else { &mut v4 };
                let owner = owners.entry(address_value(*address)).or_insert(index);
                if pods.get(*owner).is_some_and(|other| loses(other, pod)) {
                    *owner = index;
                }
            }
        }
        let (mut policies_in, mut policies_anywhere) = (HashMap::<_, Vec<_>>::new(), Vec::new());
        for policy in cluster.policies() {
            match &policy.subject().namespaces {
                NamespaceSelection::Named(name) => {
                    policies_in.entry(name).or_default().push(policy);
                }
                NamespaceSelection::Matching(_) => policies_anywhere.push(policy),
            }
        }
        let local_owners = [&v4, &v6].map(|owners| {
            let owners = owners.iter().filter(|(_, pod)| is_local(pod));
            owners.map(|(address, pod)| (*address, *pod)).collect()
        });
        Self {
            cluster,
            node: node.cloned(),
            options,
            local_pods: (0..pods.len()).filter(is_local).collect(),
            pods,
            local,
            local_owners,
            v4,
            v6,
            by_label,
            by_namespace,
            policies_in,
            policies_anywhere,
            selections: RefCell::default(),
            sides: RefCell::default(),
        }
    }

    /// The node whose pods it is about; none: all.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        self.node.as_ref()
    }

    /// The options that it follows.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// All addresses of managed pods, with their owners.
    pub(crate) fn owners(&self, v6: bool) -> &BTreeMap<u128, PodIndex> {
        if v6 { &self.v6 } else { &self.v4 }
    }

    /// The addresses of this node's pods, with their owners, ordered.
    pub(crate) fn local_owners(&self, v6: bool) -> &[(u128, PodIndex)] {
        let [owners_v4, owners_v6] = &self.local_owners;
        if v6 { owners_v6 } else { owners_v4 }
    }

    /// The addresses that a pod owns.
    pub(crate) fn addresses(&self, pod: PodIndex, v6: bool) -> impl Iterator<Item = u128> {
        let all = self.pod(pod).into_iter().flat_map(Pod::addresses);
        let all = all.filter(move |address| address.is_ipv6() == v6);
        let owned = move |address: &u128| self.owners(v6).get(address) == Some(&pod);
        all.map(|address| address_value(*address)).filter(owned)
    }

    /// Where pods and the policies of these pods cut the addresses of a family.
    pub(crate) fn cuts(&self, pods: &[PodIndex], v6: bool) -> Vec<Range> {
        let mut cuts: Vec<Range> = self.owners(v6).keys().map(|a| Range::one(*a)).collect();
        for &pod in pods {
            for direction in Direction::ALL {
                let side = self.side(pod, direction);
                let peers = side.rules().flat_map(|rule| rule.peers.iter().flatten());
                for peer in peers {
                    if let SpecPeer::Network(block) = peer
                        && block.v6 == v6
                    {
                        let ends = std::iter::once(&block.block).chain(&block.holes);
                        cuts.extend(ends.map(|&(first, last)| Range { first, last }));
                    }
                }
            }
        }
        cuts
    }

    pub(crate) fn is_local(&self, pod: PodIndex) -> bool {
        self.local.get(pod).copied().unwrap_or(false)
    }

    pub(crate) fn pod(&self, index: PodIndex) -> Option<&'a Pod> {
        self.pods.get(index).copied()
    }

    /// The pods of this node.
    pub(crate) fn local_pods(&self) -> impl Iterator<Item = PodIndex> {
        self.local_pods.iter().copied()
    }
}
