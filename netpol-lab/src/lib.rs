//! The pods of a cluster as network namespaces on one machine, probed with real packets.
//!
//! A [`Plan`] says which pods there are; a [`Lab`] builds them. Each pod is a network namespace with its addresses, a veth
//! pair to the namespace of a node, and routes as a CNI plugin makes them. Pods of other nodes and external addresses are
//! behind the node's uplink. Whatever enforces policy is run on the node ([`Lab::run`]); then [`Lab::probe`] sends real
//! TCP, UDP, SCTP and ICMP packets, thousands at once, and tells which arrived and which were answered. [`Lab::connect`]
//! opens connections that stay, and [`Lab::flood`] counts what is lost or let through while rules change.
//!
//! What it promises:
//!
//! - Nothing outside is touched. All devices are created inside the namespaces, which have no names and no mounts.
//! - Nothing is left behind, also if the process is killed: the kernel removes a namespace when nobody holds it.
//! - What it reports was seen: a packet counts as delivered when it came out at the other end, not when somebody said so.
//!
//! It needs root or equal capabilities, and `ip` (iproute2). It knows nothing of rules, and shares no code with what renders
//! or judges them.
mod connection;
mod conntrack;
mod error;
mod flood;
mod lab;
mod netns;
mod packet;
mod place;
mod plan;
mod probe;
mod prober;
mod wiring;

pub use connection::{TcpConnection, Toward};
pub use error::Error;
pub use flood::{Flood, FloodCount};
pub use lab::{Lab, command};
pub use place::Place;
pub use plan::{Plan, ReversePath, is_routable};
pub use probe::{Fate, Probe, Refusal, Traffic};
