//! The in-memory back end of netpol, the naive reference specification, and symbolic connectivity.
mod connection;
mod connectivity;
mod decision;
pub mod reference;
mod simulator;

pub use connection::{Connection, End, Traffic};
pub use connectivity::{Connectivity, ExternalRange, PortSetId, Row};
pub use decision::{Decision, Mismatch, Miss, Outcome, SideDecision};
pub use simulator::Simulator;
