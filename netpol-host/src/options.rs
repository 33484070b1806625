//! What an operator may choose whatever the back end, each with its default and why.

use netpol_core::{InterfaceName, Options, PodId};
use std::collections::BTreeMap;

/// Choices that every back end on a host understands.
///
/// ```
/// use netpol_host::{Denial, HostOptions};
/// let options = HostOptions::default().with_denial(Denial::Reject).with_log(Some(10));
/// assert_eq!(options.denial(), Denial::Reject);
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostOptions {
    policy: Options,
    denial: Denial,
    log_group: Option<u16>,
    counters: bool,
    interfaces: BTreeMap<PodId, InterfaceName>,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            policy: Options::default(),
            denial: Denial::default(),
            log_group: None,
            counters: true,
            interfaces: BTreeMap::new(),
        }
    }
}

impl HostOptions {
    /// With these answers to what Kubernetes leaves open.
    #[must_use]
    pub fn with_policy(mut self, policy: Options) -> Self {
        self.policy = policy;
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

    /// With the node's devices of pods for which the ruleset names none. They must come from the kernel or from who
    /// attached the pods, never from what a tenant can write.
    #[must_use]
    pub fn with_interfaces(mut self, interfaces: BTreeMap<PodId, InterfaceName>) -> Self {
        self.interfaces = interfaces;
        self
    }

    /// What Kubernetes leaves open.
    #[must_use]
    pub fn policy(&self) -> Options {
        self.policy
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

    /// The devices of pods for which the ruleset names none.
    #[must_use]
    pub fn interfaces(&self) -> &BTreeMap<PodId, InterfaceName> {
        &self.interfaces
    }
}

/// How a denied packet ends (NP-64).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "back ends must handle each")]
pub enum Denial {
    /// It is gone: what the conformance tests expect, and what tells a scanner least.
    #[default]
    Drop,
    /// Whoever an isolated pod refuses is told: TCP by a reset (an ICMPv6 error leaves `connect` waiting), the rest by an
    /// ICMP error. A rule of the Admin or Baseline tier that denies always drops (CNP-37).
    Reject,
}
