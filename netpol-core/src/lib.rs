//! Kubernetes network policy, evaluated into a rule IR.
mod address_set;
mod cluster;
mod interval;
mod label;
mod name;
mod options;
mod policy;
mod port_set;

pub use address_set::{AddressSet, Family};
pub use cluster::{Cluster, ContainerPort, Namespace, Node, Phase, Pod};
pub use interval::{IntervalSet, Number};
pub use label::{Labels, NAMESPACE_NAME_LABEL, Operator, Requirement, Selector};
pub use name::{InterfaceName, NamespaceName, NodeName, PodId, PodName, PolicyName, PortName};
pub use options::{Established, Options, OtherProtocols, OwnNodeEgress};
pub use policy::{
    Direction, IpBlock, Match, NamespaceSelection, Peer, PodSelection, Policy, PolicyId,
    PolicyKind, PolicyRule, PortEntry, SourcePosition, Tier, TrafficMatch, Verdict,
};
pub use port_set::{PortSet, Protocol};
