//! What an operator may choose about iptables, each with its default and why.

use crate::name::Prefix;
use netpol_host::HostOptions;
use std::fmt;
use std::time::Duration;

/// How a ruleset is laid out in iptables and ipset.
///
/// ```
/// use netpol_host::{Denial, HostOptions};
/// use netpol_iptables::{Flavor, IptablesOptions};
/// let host = HostOptions::default().with_denial(Denial::Reject);
/// let options = IptablesOptions::from(host).with_flavor(Some(Flavor::Legacy));
/// assert_eq!(options.host().denial(), Denial::Reject);
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IptablesOptions {
    host: HostOptions,
    prefix: Prefix,
    flavor: Option<Flavor>,
    guard: Guard,
    lock_wait: Duration,
}

impl Default for IptablesOptions {
    fn default() -> Self {
        HostOptions::default().into()
    }
}

impl From<HostOptions> for IptablesOptions {
    fn from(host: HostOptions) -> Self {
        Self {
            host,
            prefix: Prefix::default(),
            flavor: None,
            guard: Guard::default(),
            lock_wait: Duration::from_secs(5),
        }
    }
}

impl IptablesOptions {
    /// With these choices of every back end.
    #[must_use]
    pub fn with_host(mut self, host: HostOptions) -> Self {
        self.host = host;
        self
    }

    /// With this beginning of the names of all chains and sets. Default: `NP`. Two prefixes are two independent rulesets.
    #[must_use]
    pub fn with_prefix(mut self, prefix: Prefix) -> Self {
        self.prefix = prefix;
        self
    }

    /// With this one of the two implementations of iptables. Default: none, the one in which a ruleset of this prefix is,
    /// else the one that the host already uses, else what the command `iptables` is.
    #[must_use]
    pub fn with_flavor(mut self, flavor: Option<Flavor>) -> Self {
        self.flavor = flavor;
        self
    }

    /// With this check of the source addresses of local pods. Default: [`Guard::Prerouting`].
    #[must_use]
    pub fn with_guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// With so much time for others to give back the lock of iptables-legacy, in whole seconds, at least one. Default: five
    /// seconds.
    #[must_use]
    pub fn with_lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// The choices of every back end.
    #[must_use]
    pub fn host(&self) -> &HostOptions {
        &self.host
    }

    /// The beginning of the names.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The implementation, if it is chosen.
    #[must_use]
    pub fn flavor(&self) -> Option<Flavor> {
        self.flavor
    }

    /// Where source addresses are checked.
    #[must_use]
    pub fn guard(&self) -> Guard {
        self.guard
    }

    /// How long the lock is waited for.
    #[must_use]
    pub fn lock_wait(&self) -> Duration {
        self.lock_wait
    }
}

/// One of the two implementations of iptables: two universes of rules, both of which a packet passes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "there are two")]
pub enum Flavor {
    /// `iptables-legacy`: the kernel's ip_tables. A table is replaced as a whole.
    Legacy,
    /// `iptables-nft`: nftables behind the same commands.
    Nft,
}

impl Flavor {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Legacy, Self::Nft];

    /// The word in the names of its commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Nft => "nft",
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Legacy => Self::Nft,
            Self::Nft => Self::Legacy,
        }
    }
}

impl fmt::Display for Flavor {
    /// `iptables-legacy`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Legacy => "iptables-legacy",
            Self::Nft => "iptables-nft",
        })
    }
}

/// Where it is checked that a pod sends from its own addresses only. Without the check a pod can forge a connection
/// from another pod and then use it in reverse (lab result L2, F15, F83).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Guard {
    /// Nowhere: only where somebody else checks.
    Off,
    /// In the table `raw`, before conntrack. iptables has no hook at a device.
    #[default]
    Prerouting,
}
