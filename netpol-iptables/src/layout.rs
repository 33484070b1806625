//! From the rule IR to chains and sets (dataplane.md C.2). Pure: equal input gives an equal model.
//!
//! ```text
//! entries       NP-FORWARD  by jump from FORWARD, for what no connection carries: egress by source, then ingress by destination
//!               NP-INPUT    the egress of a pod towards its own node (NP-71)
//!               NP-OUTPUT   what the node sends to its own pods: only where Admin or Baseline could deny it (NP-70, CNP-38)
//!               NP-GUARD    table raw, before conntrack: what comes from a pod's device must come from its address
//! chains        d.. a tree of local addresses whose leaves go to the chain of a program; e.. a program, egress; i.. ingress;
//!               f.., j.. the same for traffic with the own node; t.. a later tier; x.. a denial; g.. the source guard
//! sets          p.. pods, n.. named ports, c.. networks; NP-guard, NP-own (address, device); NP-denied-.. which count
//! ```
//!
//! NP-FORWARD jumps (`-j`) into the tree of egress and goes (`-g`) into that of ingress; everything behind goes. So `RETURN` in
//! a chain of a program means "allowed in this direction": from egress it leads back to NP-FORWARD and to ingress, from
//! ingress to FORWARD. No verdict is ACCEPT: others' rules follow.
//!
//! INVARIANT: the name of a chain other than an entry changes with its rules, so that a change is a new chain beside the
//! old one. INVARIANT: every denial goes through an `x` chain, which lets pass what no policy may deny: a pod's traffic
//! with itself (NP-73, NP-74), neighbor discovery (NP-52) and, by option, other protocols (NP-51). Packets that are
//! allowed never pay for these exceptions.
//!
//! iptables cannot compare a packet's source with its destination. A pod that is alone behind a known device is found by
//! that: both addresses belong to the device that the packet came in from. For the others, and only for them, the leaf of
//! the tree has a rule for each pair of addresses.

mod guard;
mod program;
mod rules;

use crate::model::{
    Chain, ChainName, Element, IpProtocol, Match, Model, Rule, Set, SetName, SetType, Table,
    TableName, Target,
};
use crate::name::{ChainKind, SetKind};
use crate::options::{Guard, IptablesOptions};
use crate::text;
use ipnet::IpNet;
use netpol_core::{AddressSet, Family, NetSetId, PodId, ProgramId, Ruleset};
use netpol_host::{Comment, DeviceDefect, DeviceName, LocalDevice, LocalDevices, digest};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Up to this many networks are compared one by one; more become a set (dataplane.md B.1b: one lookup costs as much as
/// about fifteen compares).
const MOST_INLINE_NETWORKS: usize = 8;

/// A ruleset as iptables and ipset, and what could not be laid out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Layout {
    /// The sets and chains.
    pub model: Model,
    /// What is not as it should be. Nothing is open because of it but the check of source addresses, where it says so.
    pub defects: Vec<Defect>,
    /// Which program begins in which chain.
    pub(crate) programs: BTreeMap<(Family, ChainName), ProgramId>,
}

/// Something that could not be expressed or enforced as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Defect {
    /// A pod whose device cannot be held to that pod's addresses.
    Device(DeviceDefect),
    /// Both implementations of iptables have rules on this host. A packet passes both.
    BothFlavors {
        /// How many rules iptables-legacy has.
        legacy: usize,
        /// How many rules iptables-nft has.
        nft: usize,
    },
    /// The kernel refused the rules of this chain or set; the pods whose rules they are are closed.
    Refused {
        /// The chain or the set.
        name: String,
        /// What it is for: the policies.
        policies: String,
        /// What the kernel said.
        message: String,
    },
}

impl std::fmt::Display for Defect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device(defect) => defect.fmt(f),
            Self::BothFlavors { legacy, nft } => write!(
                f,
                "both iptables-legacy ({legacy} rules) and iptables-nft ({nft} rules) are in use on this host"
            ),
            Self::Refused { name, policies, message } => write!(
                f,
                "the kernel refuses the rules of {policies} ({name}), their pods are closed: {message}"
            ),
        }
    }
}

/// What a layout depends on besides the ruleset and the options.
#[derive(Clone, Debug, Default)]
pub(crate) struct Adjustments {
    /// In which version each set is, by its name in version 0. What is not in it is in version 0.
    pub(crate) versions: BTreeMap<SetName, u8>,
    /// Programs that the kernel refused: their pods are closed.
    pub(crate) closed: BTreeSet<(Family, ProgramId)>,
}

/// Lays out a ruleset in iptables and ipset.
///
/// ```
/// use netpol_core::{Cluster, Family, Labels, Pod, PodId, Policy, Scope, Selector, compile};
/// use netpol_iptables::{IptablesOptions, layout, text};
///
/// let mut cluster = Cluster::new();
/// let web = Pod::new(PodId::new("shop", "web"), Labels::new());
/// cluster.insert_pod(web.with_addresses(["10.0.0.7".parse().unwrap()]));
/// cluster.insert_policy(Policy::network_policy("shop", "deny", Selector::everything(), Some(vec![]), None));
///
/// let layout = layout(&compile(&cluster, Scope::Cluster)?, &IptablesOptions::default());
/// let rules = text::iptables(&layout.model, Family::V4); // for `iptables-restore --noflush`
/// assert!(rules.contains("--comment \"isolated, ingress: NetworkPolicy shop/deny\" -j DROP"));
/// # Ok::<(), netpol_core::CompileError>(())
/// ```
#[must_use]
pub fn layout(ruleset: &Ruleset, options: &IptablesOptions) -> Layout {
    layout_with(ruleset, options, &Adjustments::default())
}

/// The layout with these adjustments.
pub(crate) fn layout_with(
    ruleset: &Ruleset,
    options: &IptablesOptions,
    adjustments: &Adjustments,
) -> Layout {
    let mut layout = Layout::default();
    layout.model.prefix = options.prefix().clone();
    let LocalDevices { devices, defects, .. } = LocalDevices::of(ruleset, options.host());
    if options.guard() != Guard::Off {
        layout.defects.extend(defects.iter().cloned().map(Defect::Device));
    }
    let shared: BTreeSet<&str> = defects.iter().filter_map(shared_device).collect();
    let alone = |(device, _): &(&DeviceName, &LocalDevice)| !shared.contains(device.as_str());
    let alone: Devices =
        devices.iter().filter(alone).map(|(device, of)| (device.clone(), of.clone())).collect();
    let known: BTreeSet<PodId> = alone.values().map(|of| of.pod.clone()).collect();
    for family in Family::ALL {
        let builder = Builder {
            ruleset,
            options,
            adjustments,
            family,
            alone: &alone,
            known: &known,
            layout: &mut layout,
            filter: Table::default(),
            raw: Table::default(),
        };
        builder.build(&devices);
    }
    if !adjustments.closed.is_empty() {
        layout.drop_unused_sets();
    }
    layout
}

impl Layout {
    /// A set that the kernel refuses must not be made for nobody.
    fn drop_unused_sets(&mut self) {
        let chains = self.model.tables.values().flat_map(|table| table.chains.values());
        let conditions = chains.flat_map(|chain| &chain.rules).flat_map(|rule| &rule.matches);
        let used: BTreeSet<&SetName> = conditions
            .filter_map(|condition| match condition {
                Match::Set(name, _) => Some(name),
                _ => None,
            })
            .collect();
        self.model.sets.retain(|name, _| name.is_single() || used.contains(name));
    }

    /// The programs, of which family, whose rules lead to this chain or look up this set.
    pub(crate) fn programs_with(&self, name: &str) -> BTreeSet<(Family, ProgramId)> {
        let leads = |family: Family, first: &ChainName| {
            let Some(table) = self.model.tables.get(&(family, TableName::Filter)) else {
                return false;
            };
            let mut next = vec![first];
            let mut seen: BTreeSet<&ChainName> = BTreeSet::new();
            while let Some(chain) = next.pop() {
                if chain.as_str() == name {
                    return true;
                }
                if !seen.insert(chain) {
                    continue;
                }
                for rule in table.chains.get(chain).into_iter().flat_map(|chain| &chain.rules) {
                    let looks_up = |condition: &Match| {
                        matches!(condition, Match::Set(set, _)
                            if set.as_str() == name || set.spare().as_str() == name)
                    };
                    if rule.matches.iter().any(looks_up) {
                        return true;
                    }
                    if let Some(Target::Goto(chain) | Target::Jump(chain)) = &rule.target {
                        next.push(chain);
                    }
                }
            }
            false
        };
        let programs = self.programs.iter().filter(|((family, chain), _)| leads(*family, chain));
        programs.map(|((family, _), id)| (*family, *id)).collect()
    }
}

fn shared_device(defect: &DeviceDefect) -> Option<&str> {
    match defect {
        DeviceDefect::Shared { device, .. } => Some(device),
        _ => None,
    }
}

/// By name, what may come from it.
type Devices = BTreeMap<DeviceName, LocalDevice>;

/// The layout of one family.
struct Builder<'a> {
    ruleset: &'a Ruleset,
    options: &'a IptablesOptions,
    adjustments: &'a Adjustments,
    family: Family,
    /// The devices with one pod behind them.
    alone: &'a Devices,
    /// The pods behind them.
    known: &'a BTreeSet<PodId>,
    layout: &'a mut Layout,
    filter: Table,
    raw: Table,
}

impl Builder<'_> {
    fn build(mut self, devices: &Devices) {
        self.pod_sets();
        self.device_sets(devices);
        self.programs();
        if self.options.guard() != Guard::Off && !devices.is_empty() {
            self.guard(devices);
        }
        let marker = ChainName::marker(self.options.prefix());
        let title = Comment::new("whose chains these are");
        for (name, mut table) in [(TableName::Raw, self.raw), (TableName::Filter, self.filter)] {
            if !table.chains.is_empty() {
                table
                    .chains
                    .insert(marker.clone(), Chain { rules: Vec::new(), title: title.clone() });
            }
            self.layout.model.tables.insert((self.family, name), table);
        }
    }

    fn is_of(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family
    }

    /// The addresses that a pod owns in this family.
    fn addresses(&self, pod: &PodId) -> impl Iterator<Item = IpAddr> {
        self.ruleset.addresses(pod).iter().copied().filter(|address| self.is_of(*address))
    }

    fn add_set(&mut self, name: SetName, kind: SetType, elements: BTreeSet<Element>, title: &str) {
        let title = Comment::new(title);
        let set = Set { kind, family: self.family, counters: false, elements, title };
        self.layout.model.sets.insert(name, set);
    }

    /// A chain of the table `filter` that is named by its rules.
    fn add_chain(
        &mut self,
        kind: ChainKind,
        of: &[u8],
        rules: Vec<Rule>,
        title: &str,
    ) -> ChainName {
        add_chain(self.options, &mut self.filter, kind, of, rules, title)
    }

    /// The name of a set in its present version.
    fn set_name(&self, kind: SetKind, id: &[u8; 16]) -> SetName {
        let name = SetName::of(self.options.prefix(), kind, self.family, id);
        match self.adjustments.versions.get(&name) {
            Some(version) => name.with_version(*version),
            None => name,
        }
    }

    fn pod_sets(&mut self) {
        for (id, set) in self.ruleset.pod_sets() {
            let elements = set.members.iter().flat_map(|pod| self.addresses(pod));
            let elements = elements.map(Element::Address).collect();
            let name = self.set_name(SetKind::Pods, id.as_bytes());
            self.add_set(name, SetType::Address, elements, &set.selection.to_string());
        }
        for (id, set) in self.ruleset.named_port_sets() {
            let elements = set.members.iter().flat_map(|(pod, port)| {
                self.addresses(pod).map(|address| Element::Port(address, set.protocol, *port))
            });
            let elements = elements.collect();
            let of = match &set.selection {
                Some(selection) => selection.to_string(),
                None => "all pods".to_owned(),
            };
            let title = format!("{} port {} of {of}", set.protocol, set.name);
            let name = self.set_name(SetKind::NamedPorts, id.as_bytes());
            self.add_set(name, SetType::AddressPort, elements, &title);
        }
        for (id, addresses) in self.ruleset.net_sets() {
            let networks = self.networks(addresses);
            if networks.len() > MOST_INLINE_NETWORKS {
                let elements = networks.into_iter().map(Element::Network).collect();
                let name = self.net_set_name(*id);
                self.add_set(name, SetType::Network, elements, "networks");
            }
        }
    }

    fn net_set_name(&self, id: NetSetId) -> SetName {
        SetName::of(self.options.prefix(), SetKind::Networks, self.family, id.as_bytes())
    }

    fn device_sets(&mut self, devices: &Devices) {
        let prefix = self.options.prefix();
        let elements = |devices: &Devices| -> BTreeSet<Element> {
            let pairs = devices.iter().flat_map(|(device, of)| {
                let own = of.addresses.iter().filter(|address| self.is_of(**address));
                own.map(|address| Element::Device(*address, device.clone()))
            });
            pairs.collect()
        };
        let (own, all) = (elements(self.alone), elements(devices));
        let name = SetName::own(prefix, self.family);
        self.add_set(name, SetType::AddressDevice, own, "pods that are alone behind a device");
        if self.options.guard() != Guard::Off && !devices.is_empty() {
            let name = SetName::guard(self.options.prefix(), self.family);
            self.add_set(name, SetType::AddressDevice, all, "what may come from where");
        }
    }

    fn networks(&self, addresses: &AddressSet) -> Vec<IpNet> {
        addresses.cidrs().filter(|net| self.is_of(net.addr())).collect()
    }
}

fn add_chain(
    options: &IptablesOptions,
    table: &mut Table,
    kind: ChainKind,
    of: &[u8],
    rules: Vec<Rule>,
    title: &str,
) -> ChainName {
    let texts: Vec<String> = rules.iter().map(text::rule).collect();
    let parts = std::iter::once(of).chain(texts.iter().map(String::as_bytes));
    let name = ChainName::of(options.prefix(), kind, digest(parts));
    table.chains.insert(name.clone(), Chain { rules, title: Comment::new(title) });
    name
}

fn neighbor_discovery(kind: u8) -> Rule {
    Rule {
        protocol: Some(IpProtocol::Icmpv6),
        matches: vec![Match::Icmpv6Type(kind)],
        target: Some(Target::Return),
        comment: Comment::new("neighbor discovery"),
        ..Rule::default()
    }
}
