//! What an operator may choose about the rules in the kernel, each with its default and why.

use crate::model::{DeviceName, Name};
use netpol_core::{Options, PodId};
use std::collections::BTreeMap;

/// How a ruleset is laid out in nftables.
///
/// ```
/// use netpol_nft::{Denial, NftOptions};
/// let options = NftOptions::default().with_denial(Denial::Reject).with_log(Some(10));
/// assert_eq!(options.denial(), Denial::Reject);
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NftOptions {
    policy: Options,
    table: Name,
    priority: i32,
    denial: Denial,
    log_group: Option<u16>,
    counters: bool,
    guard: Guard,
    interfaces: BTreeMap<PodId, DeviceName>,
}

impl Default for NftOptions {
    fn default() -> Self {
        Self {
            policy: Options::default(),
            table: Name::default(),
            priority: -5,
            denial: Denial::default(),
            log_group: None,
            counters: true,
            guard: Guard::default(),
            interfaces: BTreeMap::new(),
        }
    }
}

impl NftOptions {
    /// With these answers to what Kubernetes leaves open.
    #[must_use]
    pub fn with_policy(mut self, policy: Options) -> Self {
        self.policy = policy;
        self
    }

    /// With this name for all tables. Default: `netpol`. Two names are two independent rulesets.
    #[must_use]
    pub fn with_table(mut self, table: Name) -> Self {
        self.table = table;
        self
    }

    /// With this priority in the hooks. Default: -5, after the destination address is translated (-100, NP-76) and just
    /// before the filters of others (0).
    #[must_use]
    pub fn with_priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// With this answer to an isolated pod's unwanted packets. Default: none, [`Denial::Drop`].
    #[must_use]
    pub fn with_denial(mut self, denial: Denial) -> Self {
        self.denial = denial;
        self
    }

    /// With denied packets sent to this nfnetlink_log group, at most ten a second per rule that denies, with the
    /// direction and the policy as prefix. Default: no log, which costs nothing.
    #[must_use]
    pub fn with_log(mut self, group: Option<u16>) -> Self {
        self.log_group = group;
        self
    }

    /// With or without counters on denials. Default: with; only denied packets pay for them.
    #[must_use]
    pub fn with_counters(mut self, counters: bool) -> Self {
        self.counters = counters;
        self
    }

    /// With this check of the source addresses of local pods. Default: [`Guard::Ingress`].
    #[must_use]
    pub fn with_guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// With the node's devices of pods for which the ruleset names none. They must come from the kernel or from who
    /// attached the pods, never from what a tenant can write.
    #[must_use]
    pub fn with_interfaces(mut self, interfaces: BTreeMap<PodId, DeviceName>) -> Self {
        self.interfaces = interfaces;
        self
    }

    /// What Kubernetes leaves open.
    #[must_use]
    pub fn policy(&self) -> Options {
        self.policy
    }

    /// The name of the tables.
    #[must_use]
    pub fn table(&self) -> &Name {
        &self.table
    }

    /// The priority in the hooks.
    #[must_use]
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// How denial looks.
    #[must_use]
    pub fn denial(&self) -> Denial {
        self.denial
    }

    /// The group to which denied packets are logged.
    #[must_use]
    pub fn log_group(&self) -> Option<u16> {
        self.log_group
    }

    /// Are denied packets counted?
    #[must_use]
    pub fn counters(&self) -> bool {
        self.counters
    }

    /// Where source addresses are checked.
    #[must_use]
    pub fn guard(&self) -> Guard {
        self.guard
    }

    /// The devices of pods for which the ruleset names none.
    #[must_use]
    pub fn interfaces(&self) -> &BTreeMap<PodId, DeviceName> {
        &self.interfaces
    }
}

/// How a denied packet ends (NP-64).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the layout handles each")]
pub enum Denial {
    /// It is gone: what the conformance tests expect, and what tells a scanner least.
    #[default]
    Drop,
    /// Whoever an isolated pod refuses is told: TCP by a reset (an ICMPv6 error leaves `connect` waiting), the rest by an
    /// ICMP error. A rule of the Admin or Baseline tier that denies always drops (CNP-37).
    Reject,
}

/// Where it is checked that a pod sends from its own addresses only. Without the check a pod can forge a connection
/// from another pod and then use it in reverse (lab result L2, F15, F83).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Guard {
    /// Nowhere: only where somebody else checks.
    Off,
    /// In prerouting, before conntrack. It does not depend on the devices being there, but packets from everywhere pay.
    Prerouting,
    /// At the devices themselves (family netdev): cheapest, packets from elsewhere pay nothing. Before Linux 6.16 a device
    /// must be there: the back end leaves out what is not and reports it, but a script that names it does not load. A
    /// back end whose kernel has no such hook takes [`Guard::Prerouting`] instead.
    #[default]
    Ingress,
}
