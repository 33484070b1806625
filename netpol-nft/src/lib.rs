//! Network policy in the kernel, with nftables.
//!
//! Two layers. The first is pure: [`layout`](layout()) turns a [`Ruleset`](netpol_core::Ruleset) into a [`model`] of tables, sets and chains, and
//! [`script`] and [`objects`](objects()) write that model down: for `nft -f -`, for `nft -j -f -`, and for those who already use the
//! `nftables` crate. The second, [`Nftables`], makes the kernel equal to it, behind [`Backend`](netpol_core::Backend).

mod apply;
mod command;
mod error;
mod installed;
mod inventory;
mod layout;
pub mod model;
mod objects;
mod options;
mod plan;
mod refusal;
mod snapshot;
mod text;

pub use apply::{Nftables, Report};
pub use command::Command;
pub use error::Error;
pub use layout::{Defect, Layout, layout};
pub use objects::objects;
pub use options::{Dispatch, Guard, NftOptions};
pub use plan::Plan;
pub use snapshot::Snapshot;
pub use text::{command, script};
