//! Lints.
use crate::{Diagnostic, Manifests};
/// Lints.
#[must_use]
pub fn lint(_manifests: &Manifests) -> Vec<Diagnostic> {
    Vec::new()
}
