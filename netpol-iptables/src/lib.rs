//! Network policy in the kernel, with iptables and ipset.
//!
//! Two layers. The first is pure: [`layout`](layout()) turns a [`Ruleset`](netpol_core::Ruleset) into a [`model`] of sets, chains and
//! jumps, and [`text`] writes that model down for `ipset restore` and `iptables-restore --noflush`. The second,
//! [`Iptables`], makes the kernel equal to it, behind [`Backend`](netpol_core::Backend), on iptables-legacy and on
//! iptables-nft.

mod apply;
mod error;
mod installed;
#[cfg(test)]
mod interleaving;
mod inventory;
mod layout;
pub mod model;
mod name;
mod options;
mod plan;
mod snapshot;
pub mod text;
mod tools;
mod tree;

pub use apply::{Iptables, Report};
pub use error::Error;
pub use layout::{Defect, Layout, layout};
pub use name::Prefix;
pub use options::{Flavor, Guard, IptablesOptions};
pub use plan::{Phase, Plan, Program, Step};
pub use snapshot::Snapshot;
