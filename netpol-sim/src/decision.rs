//! A verdict with its reasons.

use netpol_core::{Direction, Origin, PolicyId, Verdict};

/// What becomes of a connection, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "made one at a time, never stored in bulk")]
pub enum Decision {
    /// It was let through before, and still is (NP-60, NP-62).
    Established,
    /// Neighbor discovery is never policed (NP-52).
    NeighborDiscovery,
    /// A pod always reaches itself (NP-73).
    SamePod,
    /// Both ends were asked; it is allowed if both allow it (NP-14).
    Judged {
        /// What the source's policies say.
        egress: SideDecision,
        /// What the destination's policies say.
        ingress: SideDecision,
    },
}

impl Decision {
    /// Is the connection allowed?
    #[must_use]
    pub fn allowed(&self) -> bool {
        match self {
            Self::Established | Self::NeighborDiscovery | Self::SamePod => true,
            Self::Judged { egress, ingress } => egress.allowed() && ingress.allowed(),
        }
    }

    /// What one direction said, if it was asked.
    #[must_use]
    pub fn side(&self, direction: Direction) -> Option<&SideDecision> {
        match (self, direction) {
            (Self::Judged { egress, .. }, Direction::Egress) => Some(egress),
            (Self::Judged { ingress, .. }, Direction::Ingress) => Some(ingress),
            _ => None,
        }
    }
}

/// What the policies of one end say.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SideDecision {
    /// What decided.
    pub outcome: Outcome,
    /// The rules that passed the connection on to the next tier, in order.
    pub passed: Vec<Origin>,
    /// The rules that were asked and did not match, in order.
    pub misses: Vec<Miss>,
}

impl SideDecision {
    /// Does this end allow the connection?
    #[must_use]
    pub fn allowed(&self) -> bool {
        !matches!(self.outcome, Outcome::DeniedBy(_) | Outcome::Isolated(_))
    }
}

/// What decided for one end.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// Allowed: the end is no pod that policy applies to (NP-14, NP-80).
    NoPod,
    /// Allowed: no policy speaks about the pod in this direction (NP-11).
    Open,
    /// Allowed: the remote end is the pod's own node (NP-70, NP-71).
    OwnNode,
    /// Allowed: other protocols are not policed (an option, NP-51).
    OtherProtocol,
    /// Allowed by this rule.
    AllowedBy(Origin),
    /// Allowed: the pod's tiers all ended without a rule that decides (CNP-30).
    AllowedAtEnd,
    /// Denied by this rule.
    DeniedBy(Origin),
    /// Denied: these policies isolate the pod, and no rule of theirs matches (NP-11, NP-12).
    Isolated(Vec<PolicyId>),
}

/// A rule that did not match.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Miss {
    /// The rule.
    pub origin: Origin,
    /// What it would have decided.
    pub verdict: Verdict,
    /// What in it did not match.
    pub mismatch: Mismatch,
}

/// What in a rule did not match.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a rule has peers and ports (NP-13)")]
pub enum Mismatch {
    /// The remote end; the port would have matched.
    Peers,
    /// The protocol or port; the remote end would have matched.
    Ports,
    /// Both.
    PeersAndPorts,
}
