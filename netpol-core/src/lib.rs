//! Kubernetes network policy, evaluated into a rule IR.
//!
//! The core is a pure function. It turns a [`Cluster`] (pods, namespaces, nodes, and policies in one normal form for every
//! policy API) into a [`Ruleset`]: sets of pods, networks and named ports, programs of rules over them, and which program polices
//! which pod. Back ends render a ruleset to a kernel, a simulator runs it, a prover compares it with what a kernel does.
//!
//! | to | use |
//! |---|---|
//! | describe a cluster | [`Cluster`], [`Pod`], [`Namespace`], [`Node`], [`Policy`], [`Selector`] |
//! | evaluate it | [`compile`] for a [`Scope`] |
//! | read the result | [`Ruleset`], [`Program`], [`Rule`], [`Origin`] |
//! | follow changes | [`Delta::between`], [`Ruleset::apply`] |
//! | enforce it | [`Backend`], [`Inventory`] |
//! | compute with sets | [`AddressSet`], [`PortSet`], [`IntervalSet`] |
//!
//! What it promises:
//!
//! * No I/O, clock, environment or randomness. Equal clusters give equal rulesets, in whatever order objects arrived.
//! * A list that became empty matches nothing; only [`Match::Any`] matches everything.
//! * Ids are digests of content ([`ProgramId`], [`PodSetId`], ...): they survive restarts, and what is equal is shared.
//! * Every rule leads back to the policy, the rule number and the line that it came from.
//!
//! ```
//! use netpol_core::{
//!     Cluster, Direction, Labels, Match, Peer, Pod, PodId, PodSelection, Policy, PortEntry, Protocol, Scope, Selector,
//!     TrafficMatch, compile,
//! };
//!
//! let mut cluster = Cluster::new();
//! for (name, address) in [("web", "10.0.0.1"), ("db", "10.0.0.2")] {
//!     let labels = Labels::from_iter([("app", name)]);
//!     cluster.insert_pod(Pod::new(PodId::new("shop", name), labels).with_addresses([address.parse()?]));
//! }
//! let web = Peer::Pods(PodSelection::within("shop", Selector::match_labels([("app", "web")])));
//! let postgres = PortEntry::Range { protocol: Protocol::Tcp, first: 5432, last: 5432 };
//! let rule = TrafficMatch::new(Match::OneOf(vec![web]), Match::OneOf(vec![postgres]));
//! let db = Selector::match_labels([("app", "db")]);
//! cluster.insert_policy(Policy::network_policy("shop", "db", db, Some(vec![rule]), None));
//!
//! let ruleset = compile(&cluster, Scope::Cluster)?;
//! let program = ruleset.program(&PodId::new("shop", "db"), Direction::Ingress).unwrap();
//! assert_eq!(program.blocks[0].rules[0].origin.to_string(), "NetworkPolicy shop/db ingress[0]");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
pub use content::{InvalidId, NamedPortSetId, NetSetId, PodSetId, ProgramId};
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
