//! Kubernetes network policy, evaluated into a rule IR.
mod address_set;
mod backend;
mod cluster;
mod compile;
mod content;
mod delta;
mod interval;
mod label;
mod name;
mod options;
mod policy;
mod port_set;
mod ruleset;

pub use address_set::{AddressSet, Family};
pub use backend::{Backend, Inventory};
pub use cluster::{Cluster, ContainerPort, Namespace, Node, Phase, Pod};
pub use compile::{CompileError, Scope, compile};
pub use content::{NamedPortSetId, NetSetId, PodSetId, ProgramId};
pub use delta::{Change, Delta, SetChange};
pub use interval::{IntervalSet, Number};
pub use label::{Labels, NAMESPACE_NAME_LABEL, Operator, Requirement, Selector};
pub use name::{InterfaceName, NamespaceName, NodeName, PodId, PodName, PolicyName, PortName};
pub use options::{Established, Options, OtherProtocols, OwnNodeEgress};
pub use policy::{
    Direction, IpBlock, Match, NamespaceSelection, Peer, PodSelection, Policy, PolicyId,
    PolicyKind, PolicyRule, PortEntry, SourcePosition, Tier, TrafficMatch, Verdict,
};
pub use port_set::{PortSet, Protocol};
pub use ruleset::{
    Endpoint, NamedPortSet, Origin, PeerMatch, PodSet, PortMatch, Program, Rule, Ruleset,
    TierBlock, TierEnd,
};
