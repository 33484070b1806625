//! Network policy in memory: what happens to a connection, why, and what all connections are.
//!
//! Three evaluations that share no code, so that each can check the others:
//!
//! * [`Simulator`] walks one [`Connection`] through the rules of a [`Ruleset`](netpol_core::Ruleset), keeps track of connections, and
//!   gives a [`Decision`] with its reasons. It is a [`Backend`](netpol_core::Backend), the one that needs no kernel.
//! * [`Connectivity`] computes all allowed connections between groups of pods, and between them and the rest of the address space,
//!   as sets of ports and ranges of addresses.
//! * [`mod@reference`] is the specification: straight from the [`Cluster`](netpol_core::Cluster), without the rule IR, plain and slow.

mod connection;
mod connectivity;
mod decision;
pub mod reference;
mod simulator;

pub use connection::{Connection, End, Traffic};
pub use connectivity::{Connectivity, ExternalRange, PortSetId, Row};
pub use decision::{Decision, Mismatch, Miss, Outcome, SideDecision};
pub use simulator::Simulator;
