//! What back ends on a Linux host share, whatever they render to.
//!
//! | module | what |
//! |---|---|
//! | options | [`HostOptions`]: what an operator may choose, and every back end must know |
//! | program | [`Host`]: other programs, run in the caller's network namespace or in another |
//! | device | [`DeviceName`], and which addresses may come from which device ([`LocalDevices`]) |
//! | route | which device a local pod is behind, as the kernel's host routes say ([`Host::devices`]) |
//! | comment | [`Comment`]: text of tenants that cannot become syntax (F98) |
//! | denied | [`Denied`]: what was denied |

mod comment;
mod denied;
mod device;
mod options;
mod program;
mod route;

pub use comment::{Comment, digest, short_digest};
pub use denied::Denied;
pub use device::{DeviceDefect, DeviceName, LocalDevice, LocalDevices};
pub use options::{Denial, HostOptions};
pub use program::{Host, Output, ProgramError};
pub use route::RouteError;
