//! Typed objects into the model. Nothing here refuses an object: what is broken fails closed (NP-97, NP-122, NP-123).
//!
//! | broken | meaning |
//! |---|---|
//! | subject selector | all pods of the namespace are isolated, nothing is allowed |
//! | unknown policy type | both directions are isolated |
//! | peer: no field, `ipBlock` beside a selector, bad selector, bad CIDR, an except that is no strict part of it | matches nothing |
//! | port entry: unknown protocol, bad number, bad name, bad `endPort` | matches nothing |
//!
//! A selector is bad if its operator is unknown, if its operator and values do not go together, or if its key is no label
//! key. A value that is no label value is just one that no object has (VAL-31). A list that loses all its entries matches
//! nothing; only one that was written empty means everything (NP-08).

use crate::admin::{self, Channel, Kind};
use crate::api::v1alpha1::{AdminNetworkPolicy, BaselineAdminNetworkPolicy};
use crate::api::v1alpha2::ClusterNetworkPolicy;
use crate::cidr::{Cidr, parse_address};
use crate::diagnostic::{Diagnostic, quoted};
use crate::json::JsonParser;
use crate::syntax::{label_key_defect, port_name_defect};
use crate::validate::{CidrRules, Defect, label_defects, validate};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use netpol_core::{
    ContainerPort, Direction, IpBlock, Labels, Match, Namespace, NamespaceName, NamespaceSelection,
    Node, Operator, Peer, Phase, Pod, PodId, PodSelection, Policy, PolicyName, PortEntry, Protocol,
    Requirement, Selector, SourcePosition, TrafficMatch,
};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Label texts that many objects share, kept once.
#[derive(Debug, Default)]
pub(crate) struct Interner(HashSet<Arc<str>>);

impl Interner {
    pub(crate) fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.0.insert(Arc::clone(&text));
        text
    }

    fn labels(&mut self, labels: Option<&BTreeMap<String, String>>) -> Labels {
        labels.into_iter().flatten().map(|(k, v)| (self.share(k), self.share(v))).collect()
    }
}

/// Converts objects of `k8s-openapi` that an embedder already holds, without any text.
///
/// ```
/// use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
/// use netpol_k8s::Converter;
///
/// let mut object = NetworkPolicy { spec: Some(NetworkPolicySpec::default()), ..Default::default() };
/// object.metadata.name = Some("deny".into());
/// object.metadata.namespace = Some("shop".into());
/// let (policy, diagnostics) = Converter::new().network_policy(&object);
/// assert_eq!(policy.id().to_string(), "NetworkPolicy shop/deny");
/// assert!(diagnostics.is_empty());
/// ```
#[derive(Debug)]
pub struct Converter {
    default_namespace: NamespaceName,
    cidrs: CidrRules,
    interner: Interner,
}

impl Default for Converter {
    fn default() -> Self {
        Self::new()
    }
}

impl Converter {
    /// A converter for which an object without a namespace is in `default`, and whose diagnostics are those of a server
    /// of 1.36.
    #[must_use]
    pub fn new() -> Self {
        Self {
            default_namespace: NamespaceName::from("default"),
            cidrs: CidrRules::Strict,
            interner: Interner::default(),
        }
    }

    /// With another namespace for objects that name none.
    #[must_use]
    pub fn with_default_namespace(mut self, namespace: impl Into<NamespaceName>) -> Self {
        self.default_namespace = namespace.into();
        self
    }

    /// With these rules for CIDRs. They decide how bad a spelling is, never what it means.
    #[must_use]
    pub fn with_cidr_rules(mut self, cidrs: CidrRules) -> Self {
        self.cidrs = cidrs;
        self
    }

    /// A text that many objects share.
    pub(crate) fn share(&mut self, text: &str) -> Arc<str> {
        self.interner.share(text)
    }

    pub(crate) fn default_namespace(&self) -> &str {
        self.default_namespace.as_str()
    }

    /// A NetworkPolicy and everything that is wrong with it. There is always a policy: what is broken fails closed.
    pub fn network_policy(&mut self, policy: &NetworkPolicy) -> (Policy, Vec<Diagnostic>) {
        let converted = self.policy(policy, &|_| None);
        let object = converted.id().to_string();
        let defects = validate(policy, self.cidrs);
        let diagnostics = defects.iter().map(|d| defect_diagnostic(d).about(&object)).collect();
        (converted, diagnostics)
    }

    /// A ClusterNetworkPolicy and everything that is wrong with it, as servers with the definitions of `channel` see it. There
    /// is no policy if its tier does not exist; anything else that is broken fails closed (CNP-40).
    pub fn cluster_network_policy(
        &mut self,
        policy: &ClusterNetworkPolicy,
        channel: Channel,
    ) -> (Option<Policy>, Vec<Diagnostic>) {
        self.typed(policy, Kind::Cluster, channel)
    }

    /// An AdminNetworkPolicy, as [`Self::cluster_network_policy`].
    pub fn admin_network_policy(
        &mut self,
        policy: &AdminNetworkPolicy,
        channel: Channel,
    ) -> (Option<Policy>, Vec<Diagnostic>) {
        self.typed(policy, Kind::Admin, channel)
    }

    /// A BaselineAdminNetworkPolicy, as [`Self::cluster_network_policy`].
    pub fn baseline_admin_network_policy(
        &mut self,
        policy: &BaselineAdminNetworkPolicy,
        channel: Channel,
    ) -> (Option<Policy>, Vec<Diagnostic>) {
        self.typed(policy, Kind::Baseline, channel)
    }

    fn typed(
        &mut self,
        object: &impl Serialize,
        kind: Kind,
        channel: Channel,
    ) -> (Option<Policy>, Vec<Diagnostic>) {
        let unreadable =
            |message: String| (None, vec![Diagnostic::error("VAL-28", message).about(kind.name())]);
        let text = match serde_json::to_string(object) {
            Ok(text) => text,
            Err(error) => return unreadable(error.to_string()),
        };
        let node = match JsonParser::new(&text, 1).next_value() {
            Ok(Some(node)) => node,
            _ => return unreadable("this object cannot be read back".to_owned()),
        };
        let (policy, diagnostics) = admin::read(&node, kind, channel, None, self);
        let name = node.field("metadata").and_then(|metadata| metadata.field("name"));
        let name = name.and_then(|name| name.as_str()).unwrap_or_default();
        let object = format!("{} {name}", kind.name());
        let object = object.trim_end();
        (policy, diagnostics.into_iter().map(|d| d.about(object)).collect())
    }

    /// A pod. None if it has no name.
    pub fn pod(&mut self, pod: &api::Pod) -> (Option<Pod>, Vec<Diagnostic>) {
        let (name, namespace) = self.identity(&pod.metadata);
        let Some(name) = name else { return (None, vec![nameless("Pod")]) };
        let id = PodId::new(namespace, name);
        let object = format!("Pod {id}");
        let mut diagnostics = labels_diagnostics(&pod.metadata, &object);
        let mut converted = self.pod_from_parts(id, &pod.metadata, pod.spec.as_ref());
        if let Some(status) = &pod.status {
            converted = converted.with_phase(match status.phase.as_deref() {
                Some("Running") => Phase::Running,
                Some("Succeeded" | "Failed") => Phase::Finished,
                _ => Phase::Pending,
            });
            let mut addresses = Vec::new();
            for (field, text) in status_addresses(status) {
                match parse_address(text) {
                    Some(address) => addresses.push(address),
                    None => diagnostics.push(
                        Diagnostic::warning("NP-95", format!("{} is no address", quoted(text)))
                            .about(&object)
                            .in_field(field),
                    ),
                }
            }
            converted = converted.with_addresses(addresses);
        }
        (Some(converted), diagnostics)
    }

    /// The pod that stands for the replicas of a workload, named `name[Kind]`, as no real pod can be.
    pub fn template_pod(
        &mut self,
        namespace: impl Into<NamespaceName>,
        name: &str,
        kind: &str,
        template: &api::PodTemplateSpec,
    ) -> Pod {
        let id = PodId::new(namespace, format!("{name}[{kind}]"));
        let empty = ObjectMeta::default();
        let metadata = template.metadata.as_ref().unwrap_or(&empty);
        // Neither the identity nor the age of a template is that of a pod.
        let metadata = ObjectMeta { labels: metadata.labels.clone(), ..ObjectMeta::default() };
        self.pod_from_parts(id, &metadata, template.spec.as_ref())
    }

    /// A namespace, with its name as a label (NP-25). None if it has no name.
    pub fn namespace(
        &mut self,
        namespace: &api::Namespace,
    ) -> (Option<Namespace>, Vec<Diagnostic>) {
        let Some(name) = self.identity(&namespace.metadata).0 else {
            return (None, vec![nameless("Namespace")]);
        };
        let diagnostics = labels_diagnostics(&namespace.metadata, &format!("Namespace {name}"));
        let labels = self.interner.labels(namespace.metadata.labels.as_ref());
        (Some(Namespace::new(name, labels)), diagnostics)
    }

    /// A node with its internal and external addresses. None if it has no name.
    pub fn node(&mut self, node: &api::Node) -> (Option<Node>, Vec<Diagnostic>) {
        let Some(name) = self.identity(&node.metadata).0 else {
            return (None, vec![nameless("Node")]);
        };
        let object = format!("Node {name}");
        let mut diagnostics = labels_diagnostics(&node.metadata, &object);
        let mut addresses = Vec::new();
        let listed = node.status.iter().flat_map(|s| s.addresses.iter().flatten()).enumerate();
        for (i, entry) in listed.filter(|(_, a)| matches!(&*a.type_, "InternalIP" | "ExternalIP")) {
            match parse_address(&entry.address) {
                Some(address) => addresses.push(address),
                None => diagnostics.push(
                    Diagnostic::warning(
                        "CNP-18",
                        format!("{} is no address", quoted(&entry.address)),
                    )
                    .about(&object)
                    .in_field(format!("status.addresses[{i}].address")),
                ),
            }
        }
        let labels = self.interner.labels(node.metadata.labels.as_ref());
        (Some(Node::new(name, labels, addresses)), diagnostics)
    }

    /// Name and namespace of an object. A name that the server would make up is its prefix.
    pub(crate) fn identity(&mut self, metadata: &ObjectMeta) -> (Option<Arc<str>>, NamespaceName) {
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let name = some(&metadata.name).or_else(|| some(&metadata.generate_name));
        let namespace = match some(&metadata.namespace) {
            Some(namespace) => self.interner.share(&namespace).into(),
            None => self.default_namespace.clone(),
        };
        (name.map(Arc::from), namespace)
    }

    fn pod_from_parts(
        &mut self,
        id: PodId,
        metadata: &ObjectMeta,
        spec: Option<&api::PodSpec>,
    ) -> Pod {
        let mut pod = Pod::new(id, self.interner.labels(metadata.labels.as_ref()));
        if let Some(uid) = metadata.uid.as_deref().filter(|uid| !uid.is_empty()) {
            pod = pod.with_uid(uid);
        }
        if let Some(created) = &metadata.creation_timestamp {
            pod = pod.with_created(created.0.as_second());
        }
        let Some(spec) = spec else { return pod };
        if let Some(node) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
            pod = pod.with_node(self.interner.share(node));
        }
        pod.with_host_network(spec.host_network == Some(true)).with_ports(self.named_ports(spec))
    }

    /// Named ports of regular containers and sidecars (NP-46, NP-47).
    fn named_ports(&mut self, spec: &api::PodSpec) -> Vec<ContainerPort> {
        let sidecar = |c: &&api::Container| c.restart_policy.as_deref() == Some("Always");
        let containers =
            spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar));
        let mut ports = Vec::new();
        for port in containers.flat_map(|c| c.ports.iter().flatten()) {
            let name = port.name.as_deref().filter(|name| !name.is_empty());
            let number = u16::try_from(port.container_port).ok().filter(|&number| number > 0);
            if let (Some(name), Some(port), Some(protocol)) =
                (name, number, protocol(port.protocol.as_deref()))
            {
                ports.push(ContainerPort {
                    name: self.interner.share(name).into(),
                    protocol,
                    port,
                });
            }
        }
        ports
    }

    /// The policy; `position` says where a part of it was written.
    pub(crate) fn policy(
        &mut self,
        policy: &NetworkPolicy,
        position: &dyn Fn(Option<(Direction, usize)>) -> Option<SourcePosition>,
    ) -> Policy {
        let (name, namespace) = self.identity(&policy.metadata);
        let source = position(None);
        let name = name.map_or_else(
            || match &source {
                // Two policies without a name must not replace one another.
                Some(at) => PolicyName::from(format!("<unnamed, {at}>")),
                None => PolicyName::from("<unnamed>"),
            },
            PolicyName::from,
        );
        let empty = NetworkPolicySpec::default();
        let spec = Option::<&NetworkPolicySpec>::from(&policy.spec).unwrap_or(&empty);
        let everything = LabelSelector::default();
        let selector = Option::<&LabelSelector>::from(&spec.pod_selector).unwrap_or(&everything);
        let (isolates_ingress, isolates_egress) = isolated_directions(spec);

        let (pods, ingress, egress);
        match self.selector(selector) {
            Some(selector) => {
                pods = selector;
                let rules = spec.ingress.iter().flatten().enumerate();
                ingress = rules
                    .map(|(i, rule)| {
                        let peers = self.peers(rule.from.as_deref(), &namespace);
                        let ports = self.ports(rule.ports.as_deref());
                        let source = position(Some((Direction::Ingress, i)));
                        TrafficMatch { peers, ports, source }
                    })
                    .collect();
                let rules = spec.egress.iter().flatten().enumerate();
                egress = rules
                    .map(|(i, rule)| {
                        let peers = self.peers(rule.to.as_deref(), &namespace);
                        let ports = self.ports(rule.ports.as_deref());
                        let source = position(Some((Direction::Egress, i)));
                        TrafficMatch { peers, ports, source }
                    })
                    .collect();
            }
            // Nobody can say whom it means: it means everybody, and allows nothing.
            None => (pods, ingress, egress) = (Selector::everything(), Vec::new(), Vec::new()),
        }
        let converted = Policy::network_policy(
            namespace,
            name,
            pods,
            isolates_ingress.then_some(ingress),
            isolates_egress.then_some(egress),
        );
        match source {
            Some(source) => converted.with_source(source),
            None => converted,
        }
    }

    fn peers(
        &mut self,
        peers: Option<&[NetworkPolicyPeer]>,
        namespace: &NamespaceName,
    ) -> Match<Peer> {
        match peers {
            None | Some([]) => Match::Any,
            Some(peers) => {
                Match::OneOf(peers.iter().filter_map(|peer| self.peer(peer, namespace)).collect())
            }
        }
    }

    /// What a peer matches (NP-24); nothing if it is broken.
    pub(crate) fn peer(
        &mut self,
        peer: &NetworkPolicyPeer,
        namespace: &NamespaceName,
    ) -> Option<Peer> {
        match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
            (Some(block), None, None) => ip_block(block).map(Peer::Network),
            (Some(_), _, _) | (None, None, None) => None,
            (None, namespaces, pods) => {
                let pods = match pods {
                    Some(pods) => self.selector(pods)?,
                    None => Selector::everything(),
                };
                let namespaces = match namespaces {
                    Some(namespaces) => NamespaceSelection::Matching(self.selector(namespaces)?),
                    None => NamespaceSelection::Named(namespace.clone()),
                };
                Some(Peer::Pods(PodSelection { namespaces, pods }))
            }
        }
    }

    fn ports(&mut self, ports: Option<&[NetworkPolicyPort]>) -> Match<PortEntry> {
        match ports {
            None | Some([]) => Match::Any,
            Some(ports) => Match::OneOf(ports.iter().filter_map(|port| self.port(port)).collect()),
        }
    }

    pub(crate) fn port(&mut self, entry: &NetworkPolicyPort) -> Option<PortEntry> {
        let protocol = protocol(entry.protocol.as_deref())?;
        let number = |n: i32| u16::try_from(n).ok().filter(|&n| n > 0);
        match (&entry.port, entry.end_port) {
            (None, None) => Some(PortEntry::Protocol(protocol)),
            (None, Some(_)) | (Some(IntOrString::String(_)), Some(_)) => None,
            (Some(IntOrString::Int(port)), end) => {
                let first = number(*port)?;
                let last = match end {
                    Some(end) => number(end)?,
                    None => first,
                };
                (first <= last).then_some(PortEntry::Range { protocol, first, last })
            }
            (Some(IntOrString::String(name)), None) => {
                if port_name_defect(name).is_some() {
                    return None;
                }
                Some(PortEntry::Named { protocol, name: self.interner.share(name).into() })
            }
        }
    }

    /// The selector, or nothing if it is broken.
    pub(crate) fn selector(&mut self, selector: &LabelSelector) -> Option<Selector> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            if label_key_defect(key).is_some() {
                return None;
            }
            let value = self.interner.share(value);
            requirements
                .push(Requirement::new(self.interner.share(key), Operator::In([value].into())));
        }
        for requirement in selector.match_expressions.iter().flatten() {
            if label_key_defect(&requirement.key).is_some() {
                return None;
            }
            let listed = requirement.values.as_deref().unwrap_or_default();
            let mut values = || listed.iter().map(|value| self.interner.share(value)).collect();
            let operator = match (requirement.operator.as_str(), listed.is_empty()) {
                ("In", false) => Operator::In(values()),
                ("NotIn", false) => Operator::NotIn(values()),
                ("Exists", true) => Operator::Exists,
                ("DoesNotExist", true) => Operator::DoesNotExist,
                _ => return None,
            };
            requirements.push(Requirement::new(self.interner.share(&requirement.key), operator));
        }
        Some(Selector::new(requirements))
    }
}

/// A label selector as the model knows it. None if it is broken, and so matches nothing.
///
/// ```
/// use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
/// assert!(netpol_k8s::label_selector(&LabelSelector::default()).unwrap().is_everything());
/// ```
#[must_use]
pub fn label_selector(selector: &LabelSelector) -> Option<Selector> {
    Converter::new().selector(selector)
}

/// Which directions a policy isolates: those of `policyTypes`, or by default ingress, and egress if it has egress rules
/// (NP-05). A type that does not exist could have meant either.
pub(crate) fn isolated_directions(spec: &NetworkPolicySpec) -> (bool, bool) {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return (true, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()));
    }
    let has = |wanted: &str, other: &str| types.iter().any(|name| name == wanted || name != other);
    (has("Ingress", "Egress"), has("Egress", "Ingress"))
}

/// The protocol of an entry, TCP if it names none (NP-04); nothing if it is not one of the three (VAL-05).
fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// The block without its holes; nothing if any of its CIDRs cannot be read, or if a hole is no strict part of the block:
/// nobody can say what was meant then (VAL-16, NP-97).
fn ip_block(block: &IPBlock) -> Option<IpBlock> {
    let cidr = Cidr::parse(&block.cidr).ok()?;
    let hole = |text: &String| {
        let hole = Cidr::parse(text).ok()?;
        hole.is_except_of(&cidr).then(|| hole.net())
    };
    let except = block.except.iter().flatten().map(hole).collect::<Option<_>>()?;
    Some(IpBlock { cidr: cidr.net(), except })
}

/// All addresses that a status lists, or the one that old servers write (NP-95).
fn status_addresses(status: &api::PodStatus) -> Vec<(String, &str)> {
    let listed: Vec<_> = status
        .pod_ips
        .iter()
        .flatten()
        .enumerate()
        .filter_map(|(i, entry)| {
            let ip = Option::<&String>::from(&entry.ip)?.as_str();
            (!ip.is_empty()).then(|| (format!("status.podIPs[{i}].ip"), ip))
        })
        .collect();
    if !listed.is_empty() {
        return listed;
    }
    let single = status.pod_ip.as_deref().filter(|ip| !ip.is_empty());
    single.map(|ip| ("status.podIP".to_owned(), ip)).into_iter().collect()
}

fn nameless(kind: &str) -> Diagnostic {
    Diagnostic::error("VAL-01", "needs a name").about(kind).in_field("metadata.name")
}

fn labels_diagnostics(metadata: &ObjectMeta, object: &str) -> Vec<Diagnostic> {
    let defects = label_defects(metadata.labels.as_ref());
    defects.iter().map(|defect| defect_diagnostic(defect).about(object)).collect()
}

pub(crate) fn defect_diagnostic(defect: &Defect) -> Diagnostic {
    Diagnostic::new(defect.severity(), defect.code(), defect.message())
        .in_field(defect.field())
        .with_key(defect.key())
        .because(defect.reason())
        .with_hint_if(defect.hint().map(str::to_owned))
}

/// Reads an address as leniently as stored objects need it (NP-100); an IPv4-mapped one is IPv4 (NP-101).
#[must_use]
pub fn address(text: &str) -> Option<IpAddr> {
    parse_address(text)
}
