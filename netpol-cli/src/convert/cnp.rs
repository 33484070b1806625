//! AdminNetworkPolicies and BaselineAdminNetworkPolicies to ClusterNetworkPolicy.

use super::{Converted, objects};
use crate::Failure;
use netpol_k8s::{Manifests, Upgrade, upgrade_manifests};

pub(super) fn convert(manifests: &Manifests) -> Result<Converted, Failure> {
    let Upgrade { policies, diagnostics: notes, .. } = upgrade_manifests(manifests);
    Ok(Converted { objects: objects(&policies)?, notes })
}
