//! What else a proof needs to know.

use crate::machine::Own;
use netpol_core::PodId;
use std::collections::{BTreeMap, BTreeSet};

/// What else a proof needs to know.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ProofOptions {
    /// The devices of pods. With them the source guard is part of what is proved.
    pub interfaces: BTreeMap<PodId, String>,
    /// Which rules are netpol's own. What the node itself sends or receives is judged by these alone, since the rest is the
    /// node's own firewall, which may drop more. In iptables, where both stand in one table, what policy denies must be
    /// dropped by all rules together as well: a foreign rule may come first and accept.
    pub own: Own,
    /// Are source addresses taken as honest although interfaces are given? Then these only say where packets come and go.
    pub unguarded: bool,
    /// May rules that are not netpol's own drop more than policies do, wherever they stand, as those of services without an
    /// endpoint or of a firewall do? Then netpol's own rules alone must do what is expected, and what is to be dropped must be
    /// dropped by all rules together.
    pub others_may_drop: bool,
    /// Only these pods, for a proof after a change; none: all pods of the node.
    pub only: Option<BTreeSet<PodId>>,
}

impl ProofOptions {
    /// With these devices.
    #[must_use]
    pub fn with_interfaces(mut self, interfaces: BTreeMap<PodId, String>) -> Self {
        self.interfaces = interfaces;
        self
    }

    /// With netpol's tables in nft called this.
    #[must_use]
    pub fn with_own_table(mut self, name: impl Into<String>) -> Self {
        self.own = self.own.with_table(name);
        self
    }

    /// With the names of netpol's chains in iptables beginning with this and a `-`.
    #[must_use]
    pub fn with_own_chains(mut self, prefix: impl Into<String>) -> Self {
        self.own = self.own.with_chains(prefix);
        self
    }

    /// Without the source guard, although interfaces are given: somebody else checks addresses, or nobody.
    #[must_use]
    pub fn without_guard(mut self) -> Self {
        self.unguarded = true;
        self
    }

    /// With rules of others that may drop more than policies do.
    #[must_use]
    pub fn with_others_dropping(mut self) -> Self {
        self.others_may_drop = true;
        self
    }

    /// For these pods alone.
    #[must_use]
    pub fn with_only(mut self, pods: BTreeSet<PodId>) -> Self {
        self.only = Some(pods);
        self
    }
}
