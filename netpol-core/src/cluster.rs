//! What is known of a cluster: pods, namespaces, nodes and policies. The input of the compiler.

use crate::address_set::Family;
use crate::label::{Labels, NAMESPACE_NAME_LABEL};
use crate::name::{InterfaceName, NamespaceName, NodeName, PodId, PortName};
use crate::policy::{NamespaceSelection, PodSelection, Policy, PolicyId};
use crate::port_set::Protocol;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A named port of a container (NP-42). Numeric rules need none (NP-49).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "what a rule can ask of a container port")]
pub struct ContainerPort {
    /// Its name.
    pub name: PortName,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// Where a pod is in its life, as far as policy cares.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "alive or not, and since when it may own its address")]
pub enum Phase {
    /// Accepted but not running, or not known.
    #[default]
    Pending,
    /// Running, also while it is being terminated (NP-92).
    Running,
    /// Succeeded or failed: it owns no address any more, whatever its status says (NP-91).
    Finished,
}

/// A pod.
///
/// ```
/// use netpol_core::{Labels, Pod, PodId};
/// let pod = Pod::new(PodId::new("shop", "web-0"), Labels::from_iter([("app", "web")]))
///     .with_addresses(["10.0.0.7".parse().unwrap()]);
/// assert!(pod.is_managed());
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pod {
    id: PodId,
    uid: Option<Arc<str>>,
    labels: Labels,
    addresses: Vec<IpAddr>,
    ports: Vec<ContainerPort>,
    node: Option<NodeName>,
    interface: Option<InterfaceName>,
    phase: Phase,
    host_network: bool,
    created: Option<i64>,
}

impl Pod {
    /// A pod with these labels and nothing else.
    #[must_use]
    pub fn new(id: PodId, labels: Labels) -> Self {
        Self {
            id,
            uid: None,
            labels,
            addresses: Vec::new(),
            ports: Vec::new(),
            node: None,
            interface: None,
            phase: Phase::default(),
            host_network: false,
            created: None,
        }
    }

    /// With the identity that tells it from an earlier pod of the same name.
    #[must_use]
    pub fn with_uid(mut self, uid: impl Into<Arc<str>>) -> Self {
        self.uid = Some(uid.into());
        self
    }

    /// With these addresses of either family; an IPv4-mapped one means the IPv4 address (NP-101).
    #[must_use]
    pub fn with_addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.addresses = addresses.into_iter().map(|a| a.to_canonical()).collect();
        self.addresses.sort_unstable();
        self.addresses.dedup();
        self
    }

    /// With these named container ports.
    #[must_use]
    pub fn with_ports(mut self, ports: impl IntoIterator<Item = ContainerPort>) -> Self {
        self.ports = ports.into_iter().collect();
        self.ports.sort_unstable();
        self.ports.dedup();
        self
    }

    /// On this node.
    #[must_use]
    pub fn with_node(mut self, node: impl Into<NodeName>) -> Self {
        self.node = Some(node.into());
        self
    }

    /// Behind this interface of its node. It must come from the embedder or the kernel, never from what a tenant can
    /// write.
    #[must_use]
    pub fn with_interface(mut self, interface: impl Into<InterfaceName>) -> Self {
        self.interface = Some(interface.into());
        self
    }

    /// In this phase of its life.
    #[must_use]
    pub fn with_phase(mut self, phase: Phase) -> Self {
        self.phase = phase;
        self
    }

    /// On the network of its node or not.
    #[must_use]
    pub fn with_host_network(mut self, host_network: bool) -> Self {
        self.host_network = host_network;
        self
    }

    /// Created at this time, in seconds since 1970.
    #[must_use]
    pub fn with_created(mut self, seconds: i64) -> Self {
        self.created = Some(seconds);
        self
    }

    /// With other labels.
    #[must_use]
    pub fn with_labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// Which pod it is.
    #[must_use]
    pub fn id(&self) -> &PodId {
        &self.id
    }

    /// Its unique identity, if known.
    #[must_use]
    pub fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }

    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The addresses that its status reports, ordered and unique. Whether it owns them is for
    /// [`Cluster::address_owners`] to say.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its named ports, ordered and unique.
    #[must_use]
    pub fn ports(&self) -> &[ContainerPort] {
        &self.ports
    }

    /// The node that it is on, if it is scheduled.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        self.node.as_ref()
    }

    /// Its host-side interface, if known.
    #[must_use]
    pub fn interface(&self) -> Option<&InterfaceName> {
        self.interface.as_ref()
    }

    /// Where it is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Is it on its node's network?
    #[must_use]
    pub fn host_network(&self) -> bool {
        self.host_network
    }

    /// When it was created, in seconds since 1970, if known.
    #[must_use]
    pub fn created(&self) -> Option<i64> {
        self.created
    }

    /// Does policy apply to it at all, as a subject or as a peer? Not on the host network (NP-80), not once finished
    /// (NP-91). A managed pod may not have an address yet (NP-94).
    #[must_use]
    pub fn is_managed(&self) -> bool {
        !self.host_network && self.phase != Phase::Finished
    }

    /// The families of its addresses; both if it has none yet.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        let has = |family| self.addresses.iter().any(|&a| Family::of(a) == family);
        Family::ALL.into_iter().filter(move |&family| self.addresses.is_empty() || has(family))
    }
}

impl PodSelection {
    /// Does it select `pod`, whose namespace's object is `namespace` if it is known?
    ///
    /// For questions about one pod; the compiler asks for all pods at once.
    #[must_use]
    pub fn matches(&self, pod: &Pod, namespace: Option<&Namespace>) -> bool {
        let namespace_matches = match &self.namespaces {
            NamespaceSelection::Named(name) => pod.id().namespace() == name,
            NamespaceSelection::Matching(selector) => {
                namespace.is_some_and(|namespace| selector.matches(namespace.labels()))
            }
        };
        namespace_matches && pod.is_managed() && self.pods.matches(pod.labels())
    }
}

/// A namespace and its labels.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Namespace {
    name: NamespaceName,
    labels: Labels,
}

impl Namespace {
    /// A namespace; `kubernetes.io/metadata.name` is filled in if it is missing (NP-25).
    pub fn new(name: impl Into<NamespaceName>, mut labels: Labels) -> Self {
        let name = name.into();
        if labels.value(NAMESPACE_NAME_LABEL).is_none() {
            labels.insert(NAMESPACE_NAME_LABEL, name.as_str());
        }
        Self { name, labels }
    }

    /// A namespace with exactly these labels, as an API server before 1.21 stored it.
    pub fn without_name_label(name: impl Into<NamespaceName>, labels: Labels) -> Self {
        Self { name: name.into(), labels }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &NamespaceName {
        &self.name
    }

    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }
}

/// A node, its labels and its addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    name: NodeName,
    labels: Labels,
    addresses: Vec<IpAddr>,
}

impl Node {
    /// A node.
    pub fn new(
        name: impl Into<NodeName>,
        labels: Labels,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Self {
        let mut addresses: Vec<_> = addresses.into_iter().map(|a| a.to_canonical()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Self { name: name.into(), labels, addresses }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Its addresses, ordered and unique.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }
}

/// Everything that is known of a cluster. An object replaces an earlier one of the same name, so the order in which
/// objects arrive never matters for what is known in the end.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cluster {
    pods: BTreeMap<PodId, Pod>,
    namespaces: BTreeMap<NamespaceName, Namespace>,
    nodes: BTreeMap<NodeName, Node>,
    policies: BTreeMap<PolicyId, Policy>,
}

impl Cluster {
    /// An empty cluster.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pod, in place of one with the same name, which is returned.
    pub fn insert_pod(&mut self, pod: Pod) -> Option<Pod> {
        self.pods.insert(pod.id.clone(), pod)
    }

    /// Adds a namespace, in place of one with the same name, which is returned.
    pub fn insert_namespace(&mut self, namespace: Namespace) -> Option<Namespace> {
        self.namespaces.insert(namespace.name.clone(), namespace)
    }

    /// Adds a node, in place of one with the same name, which is returned.
    pub fn insert_node(&mut self, node: Node) -> Option<Node> {
        self.nodes.insert(node.name.clone(), node)
    }

    /// Adds a policy, in place of one with the same name, which is returned.
    pub fn insert_policy(&mut self, policy: Policy) -> Option<Policy> {
        self.policies.insert(policy.id().clone(), policy)
    }

    /// Forgets a pod.
    pub fn remove_pod(&mut self, id: &PodId) -> Option<Pod> {
        self.pods.remove(id)
    }

    /// Forgets a namespace object. Its pods and policies stay.
    pub fn remove_namespace(&mut self, name: &NamespaceName) -> Option<Namespace> {
        self.namespaces.remove(name)
    }

    /// Forgets a node.
    pub fn remove_node(&mut self, name: &NodeName) -> Option<Node> {
        self.nodes.remove(name)
    }

    /// Forgets a policy.
    pub fn remove_policy(&mut self, id: &PolicyId) -> Option<Policy> {
        self.policies.remove(id)
    }

    /// The pod with this name.
    #[must_use]
    pub fn pod(&self, id: &PodId) -> Option<&Pod> {
        self.pods.get(id)
    }

    /// The namespace with this name, if its object is known.
    #[must_use]
    pub fn namespace(&self, name: &NamespaceName) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// The node with this name.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The policy with this name.
    #[must_use]
    pub fn policy(&self, id: &PolicyId) -> Option<&Policy> {
        self.policies.get(id)
    }

    /// All pods, by namespace and name.
    pub fn pods(&self) -> impl ExactSizeIterator<Item = &Pod> {
        self.pods.values()
    }

    /// All namespaces whose objects are known, by name.
    pub fn namespaces(&self) -> impl ExactSizeIterator<Item = &Namespace> {
        self.namespaces.values()
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.values()
    }

    /// All policies, by kind, namespace and name.
    pub fn policies(&self) -> impl ExactSizeIterator<Item = &Policy> {
        self.policies.values()
    }

    /// The one managed pod that owns each address (NP-91..NP-95, F24, F25).
    ///
    /// Of several live pods that report the same address a running one owns it before one that is not, then the
    /// younger, then, so that there is always an answer, the one that comes later by uid and by name.
    #[must_use]
    pub fn address_owners(&self) -> BTreeMap<IpAddr, &PodId> {
        let claim = |pod: &Pod| (pod.phase == Phase::Running, pod.created);
        let mut owners: BTreeMap<IpAddr, &Pod> = BTreeMap::new();
        for pod in self.pods.values().filter(|pod| pod.is_managed()) {
            for &address in &pod.addresses {
                owners
                    .entry(address)
                    .and_modify(|owner| {
                        let (new, old) = (claim(pod), claim(owner));
                        if (new, &pod.uid, &pod.id) > (old, &owner.uid, &owner.id) {
                            *owner = pod;
                        }
                    })
                    .or_insert(pod);
            }
        }
        owners.into_iter().map(|(address, pod)| (address, &pod.id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, address: &str) -> Pod {
        Pod::new(PodId::new("n", name), Labels::new()).with_addresses([address.parse().unwrap()])
    }

    fn owner(pods: &[Pod]) -> Option<String> {
        let mut owners = Vec::new();
        // Every order of arrival gives the same owner (F25).
        for start in 0..pods.len() {
            let mut cluster = Cluster::new();
            for i in 0..pods.len() {
                cluster.insert_pod(pods[(start + i) % pods.len()].clone());
            }
            owners.push(cluster.address_owners().values().next().map(|id| id.name().to_string()));
        }
        owners.dedup();
        assert_eq!(owners.len(), 1, "{owners:?}");
        owners.remove(0)
    }

    #[test]
    fn one_owner_per_address() {
        let a = || pod("a", "10.0.0.1");
        let b = || pod("b", "10.0.0.1");
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(owner(&[a().with_created(2), b().with_created(1)]), named("a"), "younger");
        let running = b().with_created(1).with_phase(Phase::Running);
        assert_eq!(owner(&[a().with_created(2), running]), named("b"), "running");
        assert_eq!(owner(&[a(), b().with_phase(Phase::Finished)]), named("a"), "NP-91");
        assert_eq!(owner(&[a().with_host_network(true)]), None, "NP-80");
        assert_eq!(owner(&[a(), b()]), named("b"), "always an answer");
    }

    #[test]
    fn addresses_are_canonical() {
        let p = pod("a", "::ffff:10.0.0.1");
        assert_eq!(p.addresses(), ["10.0.0.1".parse::<IpAddr>().unwrap()], "NP-101");
    }

    #[test]
    fn namespaces_know_their_names() {
        let label = |n: &Namespace| n.labels().value(NAMESPACE_NAME_LABEL).map(str::to_owned);
        assert_eq!(label(&Namespace::new("x", Labels::new())), Some("x".to_owned()));
        assert_eq!(label(&Namespace::without_name_label("x", Labels::new())), None);
    }
}
