//! Names as types: a pod name can never be passed where a namespace name belongs.
//!
//! A name is opaque text that is cheap to clone. Whether Kubernetes would accept it is the business of the reader
//! (`netpol-k8s`); nothing here may end up in the syntax of another tool unescaped (F98).

use std::fmt;
use std::sync::Arc;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<T: Into<Arc<str>>> From<T> for $name {
            fn from(text: T) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}

names! {
    /// The name of a namespace.
    NamespaceName;
    /// The name of a pod within its namespace.
    PodName;
    /// The name of a node.
    NodeName;
    /// The name of a policy within its namespace, or within the cluster.
    PolicyName;
    /// The name of a container port, such as `http` (NP-42).
    PortName;
    /// The host-side network interface of a pod.
    InterfaceName;
}

/// Which pod: its namespace and its name. Cheap to clone; ordered by namespace, then name.
///
/// ```
/// use netpol_core::PodId;
/// assert_eq!(PodId::new("shop", "web-0").to_string(), "shop/web-0");
/// ```
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PodId(Arc<(NamespaceName, PodName)>);

impl PodId {
    /// The pod `name` of `namespace`.
    pub fn new(namespace: impl Into<NamespaceName>, name: impl Into<PodName>) -> Self {
        Self(Arc::new((namespace.into(), name.into())))
    }

    /// The pod's namespace.
    #[must_use]
    pub fn namespace(&self) -> &NamespaceName {
        &self.0.0
    }

    /// The pod's name within its namespace.
    #[must_use]
    pub fn name(&self) -> &PodName {
        &self.0.1
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace(), self.name())
    }
}

impl fmt::Debug for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
