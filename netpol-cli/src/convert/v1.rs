//! Legacy policies to `networking.k8s.io/v1`.

use super::{Converted, objects};
use crate::Failure;
use netpol_k8s::{Manifests, legacy};

pub(super) fn convert(manifests: &Manifests) -> Result<Converted, Failure> {
    let legacy::Conversion { policies, notes, .. } = legacy::to_v1(manifests);
    Ok(Converted { objects: objects(&policies)?, notes })
}
