//! The one normal form of every policy API.
//!
//! A reader of an API (netpol-k8s) turns objects into these values; the compiler and the reference evaluator know
//! nothing of API versions. What the API leaves to defaulting or to nil-versus-empty is decided before a value exists:
//! [`Match::Any`] and an empty [`Match::OneOf`] are different things, and a list that *became* empty stays a
//! `OneOf` that matches nothing (NP-08, NP-123, F01).

use crate::label::Selector;
use crate::name::{NamespaceName, PolicyName, PortName};
use crate::port_set::Protocol;
use ipnet::IpNet;
use std::fmt;
use std::sync::Arc;

/// The direction of a connection, seen from the pod that a policy protects.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a connection enters or leaves a pod")]
pub enum Direction {
    /// Towards the pod; the remote end is the source.
    Ingress,
    /// From the pod; the remote end is the destination.
    Egress,
}

impl Direction {
    /// Both directions.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// No constraint, or one of a list. An empty list matches nothing.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(
    clippy::exhaustive_enums,
    reason = "closed: the two meanings that must never be mixed up (F01)"
)]
pub enum Match<T> {
    /// Everything matches.
    Any,
    /// What one of the entries matches; nothing if there is none.
    OneOf(Vec<T>),
}

/// Pods by the labels of their namespace and their own.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "a pair of selectors, as in the API")]
pub struct PodSelection {
    /// Which namespaces.
    pub namespaces: NamespaceSelection,
    /// Which pods in them. Pods on the host network are never selected (NP-80).
    pub pods: Selector,
}

impl PodSelection {
    /// The pods of one namespace that `pods` selects.
    pub fn within(namespace: impl Into<NamespaceName>, pods: Selector) -> Self {
        Self { namespaces: NamespaceSelection::Named(namespace.into()), pods }
    }

    /// All pods of all namespaces.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            namespaces: NamespaceSelection::Matching(Selector::everything()),
            pods: Selector::everything(),
        }
    }
}

impl fmt::Display for PodSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespaces {
            NamespaceSelection::Named(namespace) => write!(f, "pods {} of {namespace}", self.pods),
            NamespaceSelection::Matching(namespaces) => {
                write!(f, "pods {} of namespaces {namespaces}", self.pods)
            }
        }
    }
}

/// Which namespaces a selection of pods looks at (NP-24).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(
    clippy::exhaustive_enums,
    reason = "own namespace or a selector: there is no third in any API"
)]
pub enum NamespaceSelection {
    /// The one with this name: a policy's own.
    Named(NamespaceName),
    /// Those whose labels match. A namespace whose object is unknown is never among them (NP-26).
    Matching(Selector),
}

/// A block of addresses without some holes (NP-30). The holes are no denial: another peer may still match them.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "as in the API")]
pub struct IpBlock {
    /// The block; host bits mean nothing (NP-36).
    pub cidr: IpNet,
    /// The holes. One of another family, or outside the block, takes nothing away.
    pub except: Vec<IpNet>,
}

/// The remote end of a connection, as a rule describes it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Peer {
    /// Pods by label. Never an address that is no pod's (NP-27).
    Pods(PodSelection),
    /// Addresses, whoever has them, pods included (NP-32).
    Network(IpBlock),
    /// The addresses of the nodes that a selector selects by their labels (CNP-18), as they are when the rules are
    /// compiled. What pods on the host network send and receive is traffic of their node (CNP-39).
    Nodes(Selector),
}

/// One entry of a rule's port list.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum PortEntry {
    /// Every port of a protocol (NP-08: `ports: [{}]` is all of TCP).
    Protocol(Protocol),
    /// The destination ports `first` to `last` (NP-40, NP-41).
    Range {
        /// The protocol.
        protocol: Protocol,
        /// The least port.
        first: u16,
        /// The greatest port; nothing matches if it is less than `first`.
        last: u16,
    },
    /// The number that the destination pod gives to this name for this protocol (NP-42..NP-45). In an egress rule of the
    /// Admin and Baseline tiers only [`Peer::Pods`] have names: networks and nodes never match one (CNP-16).
    Named {
        /// The protocol, which must be the container port's.
        protocol: Protocol,
        /// The container port's name.
        name: PortName,
    },
}

/// Where a thing stands in the files that were read. Lines and columns count from 1.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "a place in a file has no more parts")]
pub struct SourcePosition {
    /// The file as the user named it; `-` is standard input.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for SourcePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What a rule matches: the remote end *and* the port (NP-13).
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "peers and ports are all that a rule can constrain")]
pub struct TrafficMatch {
    /// The remote ends.
    pub peers: Match<Peer>,
    /// The protocols and destination ports.
    pub ports: Match<PortEntry>,
    /// Where the rule was written, if it came from a file.
    pub source: Option<SourcePosition>,
}

impl TrafficMatch {
    /// All traffic: the rule `{}` of the API.
    #[must_use]
    pub fn everything() -> Self {
        Self { peers: Match::Any, ports: Match::Any, source: None }
    }

    /// These peers on these ports.
    #[must_use]
    pub fn new(peers: Match<Peer>, ports: Match<PortEntry>) -> Self {
        Self { peers, ports, source: None }
    }
}

/// What a matching rule decides for one direction (CNP-30).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a new verdict must be answered by every back end")]
pub enum Verdict {
    /// This direction is allowed; later rules and tiers are not asked.
    Allow,
    /// This direction is denied.
    Deny,
    /// The rest of this tier is skipped; the next tier decides.
    Pass,
}

/// One rule of an Admin or Baseline policy.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a match and its verdict")]
pub struct PolicyRule {
    /// What it matches.
    pub matches: TrafficMatch,
    /// What it decides.
    pub verdict: Verdict,
}

/// The tiers in the order in which they are asked (CNP-30).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a new tier changes the pipeline of every back end")]
pub enum Tier {
    /// Cluster-wide rules before every NetworkPolicy.
    Admin,
    /// NetworkPolicies: allow what some rule allows, deny the rest for a pod that is isolated.
    NetworkPolicy,
    /// Cluster-wide rules for what no NetworkPolicy isolates.
    Baseline,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Admin => "Admin",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Baseline => "Baseline",
        })
    }
}

/// The API kind that a policy was written in. Only people need it; no rule depends on it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum PolicyKind {
    /// `AdminNetworkPolicy` of policy.networking.k8s.io/v1alpha1, in the Admin tier.
    AdminNetworkPolicy,
    /// `BaselineAdminNetworkPolicy` of policy.networking.k8s.io/v1alpha1, in the Baseline tier.
    BaselineAdminNetworkPolicy,
    /// `ClusterNetworkPolicy` of policy.networking.k8s.io.
    ClusterNetworkPolicy,
    /// `NetworkPolicy` of networking.k8s.io, and of extensions, which is another way to the same objects (LEG-24).
    NetworkPolicy,
    /// `NetworkPolicy` of net.alpha.kubernetes.io, the alpha of 2016 (LEG-01).
    AlphaNetworkPolicy,
    /// An annotation that isolates all pods of its namespace (LEG-03, LEG-20). The policy is called as the annotation is.
    NamespaceAnnotation,
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::NetworkPolicy => "NetworkPolicy",
            // As kubectl tells a kind from another of the same name.
            Self::AlphaNetworkPolicy => "NetworkPolicy.net.alpha.kubernetes.io",
            Self::NamespaceAnnotation => "annotation",
        })
    }
}

/// Which policy: kind, namespace (none for cluster-wide kinds) and name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "how Kubernetes identifies an object")]
pub struct PolicyId {
    /// The API kind.
    pub kind: PolicyKind,
    /// The namespace, or none for a cluster-wide policy.
    pub namespace: Option<NamespaceName>,
    /// The name.
    pub name: PolicyName,
}

impl fmt::Display for PolicyId {
    /// `NetworkPolicy shop/web`, `ClusterNetworkPolicy guard` or `annotation example.org/isolated of Namespace shop`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) if self.kind == PolicyKind::NamespaceAnnotation => {
                write!(f, "{} {} of Namespace {namespace}", self.kind, self.name)
            }
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// A policy in normal form.
///
/// The constructors keep the tiers' promises: a NetworkPolicy only allows and isolates, and never has a priority.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    id: PolicyId,
    tier: Tier,
    priority: i32,
    subject: PodSelection,
    ingress: Option<Vec<PolicyRule>>,
    egress: Option<Vec<PolicyRule>>,
    source: Option<SourcePosition>,
}

impl Policy {
    /// A NetworkPolicy for the pods of `namespace` that `pods` selects.
    ///
    /// `None` for a direction leaves the subject alone there; `Some` isolates it and allows what the rules match, so
    /// `Some(vec![])` denies everything (NP-11, NP-12).
    pub fn network_policy(
        namespace: impl Into<NamespaceName>,
        name: impl Into<PolicyName>,
        pods: Selector,
        ingress: Option<Vec<TrafficMatch>>,
        egress: Option<Vec<TrafficMatch>>,
    ) -> Self {
        let namespace = namespace.into();
        let allow = |rules: Vec<TrafficMatch>| {
            let allow = |matches| PolicyRule { matches, verdict: Verdict::Allow };
            rules.into_iter().map(allow).collect()
        };
        Self {
            id: PolicyId {
                kind: PolicyKind::NetworkPolicy,
                namespace: Some(namespace.clone()),
                name: name.into(),
            },
            tier: Tier::NetworkPolicy,
            priority: 0,
            subject: PodSelection::within(namespace, pods),
            ingress: ingress.map(allow),
            egress: egress.map(allow),
            source: None,
        }
    }

    /// A cluster-wide policy of the Admin tier. A lower priority is asked first; equal ones by name (CNP-31, CNP-32).
    pub fn admin(
        name: impl Into<PolicyName>,
        priority: i32,
        subject: PodSelection,
        ingress: Vec<PolicyRule>,
        egress: Vec<PolicyRule>,
    ) -> Self {
        Self::cluster_wide(Tier::Admin, name.into(), priority, subject, ingress, egress)
    }

    /// A cluster-wide policy of the Baseline tier, ordered as in [`Policy::admin`].
    pub fn baseline(
        name: impl Into<PolicyName>,
        priority: i32,
        subject: PodSelection,
        ingress: Vec<PolicyRule>,
        egress: Vec<PolicyRule>,
    ) -> Self {
        Self::cluster_wide(Tier::Baseline, name.into(), priority, subject, ingress, egress)
    }

    fn cluster_wide(
        tier: Tier,
        name: PolicyName,
        priority: i32,
        subject: PodSelection,
        ingress: Vec<PolicyRule>,
        egress: Vec<PolicyRule>,
    ) -> Self {
        // Without rules there is no effect (CNP-33).
        let some = |rules: Vec<PolicyRule>| (!rules.is_empty()).then_some(rules);
        Self {
            id: PolicyId { kind: PolicyKind::ClusterNetworkPolicy, namespace: None, name },
            tier,
            priority,
            subject,
            ingress: some(ingress),
            egress: some(egress),
            source: None,
        }
    }

    /// The same policy, known to come from an object of this kind. No verdict depends on it.
    #[must_use]
    pub fn with_kind(mut self, kind: PolicyKind) -> Self {
        self.id.kind = kind;
        self
    }

    /// The same policy, known to be written at `source`.
    #[must_use]
    pub fn with_source(mut self, source: SourcePosition) -> Self {
        self.source = Some(source);
        self
    }

    /// Which policy it is.
    #[must_use]
    pub fn id(&self) -> &PolicyId {
        &self.id
    }

    /// Its tier.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Its priority within its tier; always 0 for a NetworkPolicy.
    #[must_use]
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// The pods that it applies to.
    #[must_use]
    pub fn subject(&self) -> &PodSelection {
        &self.subject
    }

    /// Its rules for one direction, in order; none if it has no effect there.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[PolicyRule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Where it was written, if it came from a file.
    #[must_use]
    pub fn source(&self) -> Option<&SourcePosition> {
        self.source.as_ref()
    }
}
