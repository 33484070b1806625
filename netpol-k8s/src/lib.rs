//! Kubernetes objects, typed or as YAML and JSON text, into the model of `netpol-core`, with every defect reported.
//!
//! * [`Reader`] reads files, directories and texts into [`Manifests`]: a cluster, the workload of each pod, and diagnostics.
//! * [`Converter`] converts objects of `k8s-openapi` that an embedder already holds.
//! * [`validate`] gives the verdict of kube-apiserver on a NetworkPolicy, defect by defect.
//! * [`api`] has the policy APIs that `k8s-openapi` does not have. [`legacy`] says what the old ones mean, and converts them;
//!   [`upgrade`] converts those of `policy.networking.k8s.io/v1alpha1` to v1alpha2.
//! * [`lint`] finds what is accepted but surely not meant.
//!
//! What it promises:
//!
//! * A defect in one object never hides another, and never opens anything: what is broken matches nothing, and whom it was for
//!   stays isolated. All defects are reported, each with file, line, column, object, field and hint.
//! * Input is hostile: nesting, aliases and documents are bounded in proportion to the text, and nothing panics.
//! * No version feature of `k8s-openapi` is turned on; any that your program chooses will do.

mod admin;
pub mod api;
mod cidr;
mod convert;
mod decode;
mod diagnostic;
mod document;
mod json;
pub mod legacy;
mod lint;
mod lint_tiers;
mod object;
mod reader;
mod recover;
mod syntax;
mod tree;
mod validate;
mod workload;
mod yaml;

pub use admin::{Channel, Upgrade, upgrade, upgrade_manifests};
pub use cidr::{Cidr, CidrError};
pub use convert::{Converter, address, label_selector};
pub use diagnostic::{Diagnostic, Location, Severity};
pub use lint::lint;
pub use reader::{Manifests, ReadError, Reader};
pub use syntax::{is_label_key, is_label_value, is_port_name};
pub use validate::{CidrRules, Defect, Reason, validate};
pub use workload::Workload;
