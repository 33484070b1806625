//! Policy APIs that `k8s-openapi` does not have, as typed objects.
//!
//! | module | API |
//! |---|---|
//! | [`alpha`] | `net.alpha.kubernetes.io/v1alpha1`, the alpha of 2016 |
//! | [`v1beta1`] | `extensions/v1beta1`, Kubernetes 1.3 to 1.15 |

pub mod alpha;
pub mod v1beta1;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

/// What an object of a kind asks for, and what the kind is called.
pub trait Spec {
    /// The group and version.
    const API_VERSION: &'static str;
    /// The kind.
    const KIND: &'static str;
}

/// An object: metadata and a spec, written with its `apiVersion` and `kind`. Reading it looks at neither.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "what every object has")]
pub struct Object<S> {
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it asks for.
    pub spec: Option<S>,
}

impl<S: Spec + Serialize> Serialize for Object<S> {
    fn serialize<W: Serializer>(&self, serializer: W) -> Result<W::Ok, W::Error> {
        let fields = 3 + usize::from(self.spec.is_some());
        let mut object = serializer.serialize_struct(S::KIND, fields)?;
        object.serialize_field("apiVersion", S::API_VERSION)?;
        object.serialize_field("kind", S::KIND)?;
        object.serialize_field("metadata", &self.metadata)?;
        if let Some(spec) = &self.spec {
            object.serialize_field("spec", spec)?;
        }
        object.end()
    }
}
