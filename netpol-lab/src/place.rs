//! Where in the lab something is or happens.

use netpol_core::PodId;
use std::fmt;

/// A place in the lab: a network namespace.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a node, its pods and the rest of the world")]
pub enum Place {
    /// The node on which policy is enforced. All packets from or to its pods pass here.
    Node,
    /// A pod, on the node or elsewhere.
    Pod(PodId),
    /// Behind the node's uplink: every external address, and the way to the pods of other nodes.
    World,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("the node"),
            Self::Pod(pod) => write!(f, "pod `{pod}`"),
            Self::World => f.write_str("the world outside"),
        }
    }
}
