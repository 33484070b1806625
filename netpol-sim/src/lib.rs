//! The in-memory back end of netpol, the naive reference specification, and symbolic connectivity.
mod connection;
pub mod reference;

pub use connection::{Connection, End, Traffic};
