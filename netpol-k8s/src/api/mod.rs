//! Policy APIs that `k8s-openapi` does not have, as typed objects.
//!
//! | module | API |
//! |---|---|
//! | [`alpha`] | `net.alpha.kubernetes.io/v1alpha1`, the alpha of 2016 |
//! | [`v1beta1`] | `extensions/v1beta1`, Kubernetes 1.3 to 1.15 |

pub mod alpha;
pub mod v1beta1;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::ser::{Serialize, SerializeStruct, Serializer};

/// Writes an object as every API does: what it is, its metadata, its spec.
fn serialize_object<S: Serializer>(
    serializer: S,
    api_version: &'static str,
    kind: &'static str,
    metadata: &ObjectMeta,
    spec: Option<&impl Serialize>,
) -> Result<S::Ok, S::Error> {
    let fields = 3 + usize::from(spec.is_some());
    let mut object = serializer.serialize_struct(kind, fields)?;
    object.serialize_field("apiVersion", api_version)?;
    object.serialize_field("kind", kind)?;
    object.serialize_field("metadata", metadata)?;
    if let Some(spec) = spec {
        object.serialize_field("spec", spec)?;
    }
    object.end()
}
