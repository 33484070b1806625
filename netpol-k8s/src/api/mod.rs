//! Policy kinds that are custom resources, as typed objects: what the network-policy-api project defines, in its two versions.
//!
//! `k8s-openapi` has no types for them. These are plain structs that serde reads and writes; a field that is a closed set of
//! words in the API (a tier, an action) is text here, since a server of another version may hold words that are not known
//! yet. What such an object means is said by [`Converter`](crate::Converter), fail closed (CNP-40).
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

pub mod v1alpha1;
pub mod v1alpha2;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::{Deserialize, Serialize};

/// The API group of all kinds of this module.
pub const GROUP: &str = "policy.networking.k8s.io";

/// What a controller reports about a policy. Nothing here depends on it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "as the API has it")]
pub struct PolicyStatus {
    /// Conditions of any types; none is defined.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// A resource with `apiVersion` and `kind`, which its serialized form begins with.
macro_rules! resource {
    ($(#[$doc:meta])* $kind:ident, $spec:ident, $version:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, serde::Deserialize, PartialEq)]
        #[expect(clippy::exhaustive_structs, reason = "as the API has it")]
        pub struct $kind {
            /// Name, labels and the like. These objects are in no namespace.
            #[serde(default)]
            pub metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            /// What is wanted.
            #[serde(default)]
            pub spec: $spec,
            /// What a controller says about it.
            #[serde(default)]
            pub status: Option<crate::api::PolicyStatus>,
        }

        impl $kind {
            /// Group and version.
            pub const API_VERSION: &'static str = concat!("policy.networking.k8s.io/", $version);
            /// The kind.
            pub const KIND: &'static str = stringify!($kind);
        }

        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct;
                let fields = 4 + usize::from(self.status.is_some());
                let mut out = serializer.serialize_struct(Self::KIND, fields)?;
                out.serialize_field("apiVersion", Self::API_VERSION)?;
                out.serialize_field("kind", Self::KIND)?;
                out.serialize_field("metadata", &self.metadata)?;
                out.serialize_field("spec", &self.spec)?;
                match &self.status {
                    Some(status) => out.serialize_field("status", status)?,
                    None => out.skip_field("status")?,
                }
                out.end()
            }
        }
    };
}
pub(crate) use resource;

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
