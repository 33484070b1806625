//! What an operator may choose about nftables, each with its default and why.

use crate::model::Name;
use netpol_host::HostOptions;

/// How a ruleset is laid out in nftables.
///
/// ```
/// use netpol_host::{Denial, HostOptions};
/// use netpol_nft::{Guard, NftOptions};
/// let host = HostOptions::default().with_denial(Denial::Reject);
/// let options = NftOptions::from(host).with_guard(Guard::Prerouting);
/// assert_eq!(options.host().denial(), Denial::Reject);
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NftOptions {
    host: HostOptions,
    table: Name,
    priority: i32,
    guard: Guard,
    dispatch: Dispatch,
}

impl Default for NftOptions {
    fn default() -> Self {
        HostOptions::default().into()
    }
}

impl From<HostOptions> for NftOptions {
    fn from(host: HostOptions) -> Self {
        let (guard, dispatch) = (Guard::default(), Dispatch::default());
        Self { host, table: Name::default(), priority: -5, guard, dispatch }
    }
}

impl NftOptions {
    /// With these choices of every back end.
    #[must_use]
    pub fn with_host(mut self, host: HostOptions) -> Self {
        self.host = host;
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

    /// With this check of the source addresses of local pods. Default: [`Guard::Ingress`].
    #[must_use]
    pub fn with_guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// With pods told apart by this. Default: [`Dispatch::Address`].
    #[must_use]
    pub fn with_dispatch(mut self, dispatch: Dispatch) -> Self {
        self.dispatch = dispatch;
        self
    }

    /// The choices of every back end.
    #[must_use]
    pub fn host(&self) -> &HostOptions {
        &self.host
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

    /// Where source addresses are checked.
    #[must_use]
    pub fn guard(&self) -> Guard {
        self.guard
    }

    /// How the rules tell whose packet it is.
    #[must_use]
    pub fn dispatch(&self) -> Dispatch {
        self.dispatch
    }
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

/// How the rules tell which local pod a packet is from or for.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the layout handles each")]
pub enum Dispatch {
    /// By its address: it needs to know no device, and costs least.
    #[default]
    Address,
    /// By the device that it comes in from or goes out to, which no tenant can forge: a pod is policed whatever address it
    /// sends from. A pod whose device is unknown, or that shares it, is told by its address.
    Interface,
}
