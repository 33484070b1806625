//! From the rule IR to tables, sets and chains (dataplane.md C.1). Pure: equal input gives an equal model.
//!
//! ```text
//! base chains   forward   ct state established,related accept; egress by source, then ingress by destination
//!               input     the egress of a pod towards its own node (NP-71)
//!               output    what the node sends to its own pods: only where Admin or Baseline could deny it (NP-70, CNP-38)
//!               guard     before conntrack: what comes from a pod's device must come from its address; a chain for each device
//!                         in the family netdev, or one in prerouting
//! maps          e, i      address of a local pod -> chain of its program; oe, oi the same for traffic with the own node;
//!               e_dev, i_dev, oe_dev, oi_dev the same from its device (dispatch by interface)
//!               g         device of a local pod -> chain of its source guard
//! chains        e_P_H     program P, egress; i_P_H ingress; t_H a later tier; x_H a denial; H is a digest of the rules
//! sets          p_S pods, n_S named ports, c_S_L networks of prefix length L, self pairs of addresses of one pod,
//!               de, di local pods that are policed, which count what is denied them
//! ```
//!
//! INVARIANT: in a chain that is reached by `goto`, `return` allows the direction. INVARIANT: the name of a chain changes
//! with its rules, so that a change is a new chain beside the old one (finding 11). INVARIANT: every denial goes through
//! an `x_` chain, which lets pass what no policy may deny: a pod's traffic with itself (NP-73, NP-74), neighbor
//! discovery (NP-52) and, by option, other protocols (NP-51). Packets that are allowed never pay for these exceptions.

mod base;
mod dispatch;
mod guard;
mod program;
mod set;

pub(crate) use dispatch::{Traffic, address_map, counting_set_name, device_map};

use crate::model::{
    Chain, Element, Field, Hook, IpVersion, KeyType, Match, Model, Name, Rule, Set, Table,
    TableFamily, Test, Value,
};
use crate::options::{Dispatch, Guard, NftOptions};
use crate::text;
use guard::netdev_table;
use netpol_core::{PodId, Ruleset};
use netpol_host::{Comment, DeviceDefect, DeviceName, LocalDevice, LocalDevices, short_digest};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What a table of ours contains whatever the policies are. A table without it is somebody else's. The number is the
/// version of this layout.
pub(crate) const MARKER: &str = "made_by_netpol_1";

/// A ruleset as nftables, and what could not be laid out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Layout {
    /// The tables.
    pub model: Model,
    /// What is not as it should be. Nothing is open because of it.
    pub defects: Vec<Defect>,
}

/// Something that could not be expressed or enforced as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Defect {
    /// A pod whose device cannot be held to that pod's addresses.
    Device(DeviceDefect),
    /// The device was not there when the rules were applied, so the source addresses of its pod are not checked.
    MissingDevice {
        /// The device.
        device: String,
    },
    /// The kernel refused the rules of this chain; the pods whose rules they are are closed.
    Refused {
        /// The chain.
        chain: String,
        /// What it is for: the policies.
        policies: String,
        /// What nft said.
        message: String,
    },
}

impl std::fmt::Display for Defect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device(defect) => defect.fmt(f),
            Self::MissingDevice { device } => {
                write!(
                    f,
                    "device `{device}` does not exist: source addresses from it are not checked"
                )
            }
            Self::Refused { chain, policies, message } => {
                write!(
                    f,
                    "the kernel refuses the rules of {policies} (chain {chain}), their pods are closed: {message}"
                )
            }
        }
    }
}

/// Lays out a ruleset in nftables.
///
/// ```
/// use netpol_core::{Cluster, Labels, Pod, PodId, Policy, Scope, Selector, compile};
/// use netpol_nft::{NftOptions, layout, script};
///
/// let mut cluster = Cluster::new();
/// let web = Pod::new(PodId::new("shop", "web"), Labels::new());
/// cluster.insert_pod(web.with_addresses(["10.0.0.7".parse().unwrap()]));
/// cluster.insert_policy(Policy::network_policy("shop", "deny", Selector::everything(), Some(vec![]), None));
///
/// let layout = layout(&compile(&cluster, Scope::Cluster)?, &NftOptions::default());
/// let script = script(&layout.model); // for `nft -f -`
/// assert!(script.contains("drop comment \"isolated, ingress: NetworkPolicy shop/deny\""));
/// # Ok::<(), netpol_core::CompileError>(())
/// ```
#[must_use]
pub fn layout(ruleset: &Ruleset, options: &NftOptions) -> Layout {
    let mut layout = Layout::default();
    layout.model.name = options.table().clone();
    let needless = options.guard() == Guard::Off && options.dispatch() == Dispatch::Address;
    let LocalDevices { devices, defects, .. } =
        if needless { LocalDevices::default() } else { LocalDevices::of(ruleset, options.host()) };
    layout.defects.extend(defects.into_iter().map(Defect::Device));
    let telling_devices = devices
        .iter()
        .filter(|(_, device)| options.dispatch() == Dispatch::Interface && !device.shared)
        .map(|(name, device)| (&device.pod, name))
        .collect();
    for version in [IpVersion::V4, IpVersion::V6] {
        let (devices, telling_devices, table) = (&devices, &telling_devices, Table::default());
        let builder = Builder { ruleset, options, devices, telling_devices, version, table };
        let family = match version {
            IpVersion::V4 => TableFamily::Ip,
            IpVersion::V6 => TableFamily::Ip6,
        };
        layout.model.tables.insert(family, builder.table());
    }
    if options.guard() == Guard::Ingress && !devices.is_empty() {
        let table = netdev_table(&devices);
        layout.model.tables.insert(TableFamily::Netdev, table);
    }
    layout
}

/// By name, what may come from it.
type Devices = BTreeMap<DeviceName, LocalDevice>;

/// The layout of one family.
struct Builder<'a> {
    ruleset: &'a Ruleset,
    options: &'a NftOptions,
    devices: &'a Devices,
    /// The devices that tell which pod it is: if pods are told by devices, and no other pod is behind it.
    telling_devices: &'a BTreeMap<&'a PodId, &'a DeviceName>,
    version: IpVersion,
    table: Table,
}

impl Builder<'_> {
    fn table(mut self) -> Table {
        let marker = Chain { title: Comment::new("whose table this is"), ..Chain::default() };
        self.table.chains.insert(Name::made(MARKER), marker);
        self.sets();
        self.programs();
        self.base_chains();
        if self.options.guard() == Guard::Prerouting && !self.devices.is_empty() {
            self.guard();
        }
        self.table
    }

    fn is_of(&self, address: IpAddr) -> bool {
        address.is_ipv4() == (self.version == IpVersion::V4)
    }

    fn key_type(&self) -> KeyType {
        match self.version {
            IpVersion::V4 => KeyType::Ipv4,
            IpVersion::V6 => KeyType::Ipv6,
        }
    }

    /// The addresses that a pod owns in this family.
    fn addresses(&self, pod: &PodId) -> impl Iterator<Item = IpAddr> {
        self.ruleset.addresses(pod).iter().copied().filter(|address| self.is_of(*address))
    }

    fn add_set(
        &mut self,
        name: Name,
        key: Vec<KeyType>,
        elements: BTreeSet<Element>,
        comment: &str,
    ) {
        let comment = Comment::new(comment);
        let interval = elements.iter().flatten().any(|value| matches!(value, Value::Addresses(..)));
        self.table.sets.insert(name, Set { key, interval, counters: false, elements, comment });
    }

    /// A chain that is named by its rules.
    fn add_chain(
        &mut self,
        prefix: &str,
        hook: Option<Hook>,
        rules: Vec<Rule>,
        title: &str,
    ) -> Name {
        let name = chain_name(prefix, hook.as_ref(), &rules);
        let title = Comment::new(title);
        self.table.chains.insert(name.clone(), Chain { hook, rules, title });
        name
    }
}

/// The name of a chain with these rules.
pub(crate) fn chain_name(prefix: &str, hook: Option<&Hook>, rules: &[Rule]) -> Name {
    let hook = hook.map(|hook| format!("{hook:?}")).unwrap_or_default();
    let rules: Vec<String> = rules.iter().map(text::rule).collect();
    let parts = std::iter::once(hook.as_bytes()).chain(rules.iter().map(String::as_bytes));
    Name::made(format_args!("{prefix}_{}", short_digest(parts)))
}

fn condition(field: Field, test: Test) -> Match {
    Match { fields: vec![field], mask: None, test }
}
