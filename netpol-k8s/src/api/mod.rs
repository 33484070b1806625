//! Policy APIs that `k8s-openapi` does not have, as typed objects.
//!
//! | module | API |
//! |---|---|
//! | [`alpha`] | `net.alpha.kubernetes.io/v1alpha1`, the alpha of 2016 |
//! | [`v1beta1`] | `extensions/v1beta1`, Kubernetes 1.3 to 1.15 |
//! | [`v1alpha1`] | `policy.networking.k8s.io/v1alpha1`: AdminNetworkPolicy, BaselineAdminNetworkPolicy |
//! | [`v1alpha2`] | `policy.networking.k8s.io/v1alpha2`: ClusterNetworkPolicy |
//!
//! A field that is a closed set of words in the API (a tier, an action) is text here, since a server of another version may
//! hold words that are not known yet. What an object means is said by [`Converter`](crate::Converter).
//!
//! ```
//! use netpol_k8s::api::v1alpha2::ClusterNetworkPolicy;
//! let json = serde_json::json!({
//!     "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "guard"},
//!     "spec": {"tier": "Admin", "priority": 10, "subject": {"namespaces": {}}},
//! });
//! let policy: ClusterNetworkPolicy = serde_json::from_value(json.clone())?;
//! assert_eq!(serde_json::to_value(&policy)?, json);
//! # Ok::<(), serde_json::Error>(())
//! ```

pub mod alpha;
pub mod v1alpha1;
pub mod v1alpha2;
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

/// The API group of cluster-wide policies.
pub const POLICY_GROUP: &str = "policy.networking.k8s.io";

/// Structs of the API: camel case, absent fields are left out.
macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, serde::Deserialize, PartialEq, serde::Serialize)]
        #[serde(rename_all = "camelCase", default)]
        #[expect(clippy::exhaustive_structs, reason = "as the API has it")]
        pub struct $name {
            $($(#[$about])* pub $field: $type,)*
        }
    )*};
}
pub(crate) use fields;
