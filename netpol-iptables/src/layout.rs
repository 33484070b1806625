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

use crate::model::{
    Builtin, Chain, ChainName, Dimension, Element, IpProtocol, Match, Model, Rule, Set, SetName,
    SetType, Table, TableName, Target,
};
use crate::name::{ChainKind, SetKind};
use crate::options::{Guard, IptablesOptions};
use crate::text;
use crate::tree::{self, Side};
use ipnet::IpNet;
use netpol_core::{
    AddressSet, Direction, Established, Family, NetSetId, Origin, OtherProtocols, OwnNodeEgress,
    PeerMatch, PodId, PortMatch, PortSet, Program, ProgramId, Protocol, Rule as PolicyRule,
    Ruleset, Tier, TierEnd, Verdict,
};
use netpol_host::{Comment, Denial, DeviceDefect, DeviceName, LocalDevice, LocalDevices, digest};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// Up to this many networks are compared one by one; more become a set (dataplane.md B.1b: one lookup costs as much as
/// about fifteen compares).
const MOST_INLINE_NETWORKS: usize = 8;
/// How many numbers multiport takes; a range of several ports is two.
const MOST_PORTS: usize = 15;

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

/// One way in which ports can match: a protocol and ranges, or every protocol without ports.
enum Ports {
    Any,
    Some(IpProtocol, Vec<Match>),
    Named(SetName),
    OtherProtocols,
}

/// A rule, or what needs a chain of its own because iptables cannot say it in one rule.
enum Step {
    Rule(Rule),
    /// These rules, for protocols other than TCP, UDP and SCTP.
    OtherProtocols(Vec<Rule>),
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

    fn programs(&mut self) {
        let police_egress = self.options.host().policy().own_node_egress() == OwnNodeEgress::Police;
        let mut chains: BTreeMap<ProgramId, ChainName> = BTreeMap::new();
        let mut own_node: BTreeMap<ProgramId, ChainName> = BTreeMap::new();
        for (&id, program) in self.ruleset.programs() {
            let exempt = program.direction == Direction::Ingress || !police_egress;
            let own = exempt && denies_before_network_policies(program);
            if self.adjustments.closed.contains(&(self.family, id)) {
                let chain = self.closed();
                chains.insert(id, chain.clone());
                own_node.extend(own.then_some((id, chain)));
                continue;
            }
            let kind = ChainKind::Program(program.direction);
            let chain = self.program(kind, id, program, false);
            self.layout.programs.insert((self.family, chain.clone()), id);
            chains.insert(id, chain);
            if own {
                let kind = ChainKind::OwnNode(program.direction);
                own_node.insert(id, self.program(kind, id, program, true));
            }
        }
        let egress = self.dispatch(Direction::Egress, &chains, true);
        let ingress = self.dispatch(Direction::Ingress, &chains, true);
        let own_egress = if police_egress {
            egress.clone()
        } else {
            self.dispatch(Direction::Egress, &own_node, false)
        };
        let own_ingress = self.dispatch(Direction::Ingress, &own_node, false);
        let as_jump = |rule: &Rule| {
            let target = match &rule.target {
                Some(Target::Goto(chain)) => Some(Target::Jump(chain.clone())),
                other => other.clone(),
            };
            Rule { target, ..rule.clone() }
        };
        let forward = egress.iter().map(as_jump).chain(ingress).collect();
        self.entry(Builtin::Forward, forward, "between pods, and between pods and the world");
        if let Some(rule) = own_egress {
            self.entry(Builtin::Input, vec![rule], "from pods to this node");
        }
        if let Some(rule) = own_ingress {
            self.entry(Builtin::Output, vec![rule], "from this node to pods");
        }
    }

    /// The chain that denies everything but neighbor discovery.
    fn closed(&mut self) -> ChainName {
        let mut rules: Vec<Rule> = match self.family {
            Family::V4 => Vec::new(),
            Family::V6 => (133..=137).map(neighbor_discovery).collect(),
        };
        let why = "closed: the kernel refused the rules";
        let (target, comment) = (Some(Target::Drop), Comment::new(why));
        rules.push(Rule { target, comment, ..Rule::default() });
        self.add_chain(ChainKind::Closed, &[], rules, why)
    }

    /// An entry chain with these rules, and the jump to it.
    fn entry(&mut self, builtin: Builtin, mut rules: Vec<Rule>, title: &str) {
        let comment = Comment::new("netpol");
        // What belongs to a connection that was let through does not even enter (NP-60, NP-62).
        let established = match self.options.host().policy().established() {
            Established::Keep => true,
            Established::ReEvaluate => {
                // The other direction is judged again by each packet (reliability.md L3, case e). The jump cannot say this:
                // iptables-nft lets no packet match a direction that has no connection.
                rules.insert(
                    0,
                    Rule {
                        matches: vec![Match::Reply],
                        target: Some(Target::Return),
                        comment: Comment::new("replies"),
                        ..Rule::default()
                    },
                );
                false
            }
        };
        let name = ChainName::entry(self.options.prefix(), builtin);
        let jump = Rule {
            matches: vec![Match::State { negated: true, established, related: true }],
            target: Some(Target::Jump(name.clone())),
            comment,
            ..Rule::default()
        };
        self.filter.jumps.insert(builtin, jump);
        self.filter.chains.insert(name, Chain { rules, title: Comment::new(title) });
    }

    /// The rule that leads to the tree of local pods in a direction; none if no pod has a program.
    fn dispatch(
        &mut self,
        direction: Direction,
        chains: &BTreeMap<ProgramId, ChainName>,
        counts: bool,
    ) -> Option<Rule> {
        let side = match direction {
            Direction::Egress => Side::Source,
            Direction::Ingress => Side::Destination,
        };
        let mut leaves: BTreeMap<IpAddr, Vec<Rule>> = BTreeMap::new();
        for (pod, endpoint) in self.ruleset.endpoints() {
            let chain = endpoint.program(direction).and_then(|program| chains.get(&program));
            let Some(chain) = chain else { continue };
            let note = Comment::new(&pod.to_string());
            for address in self.addresses(pod) {
                let mut rules = self.pairs(side, pod, address);
                rules.push(tree::leaf(side, address, Target::Goto(chain.clone()), note.clone()));
                leaves.insert(address, rules);
            }
        }
        if counts && self.options.host().counters() {
            let name = SetName::denied(self.options.prefix(), self.family, direction);
            let elements = leaves.keys().copied().map(Element::Address).collect();
            self.add_set(name.clone(), SetType::Address, elements, "denied by pod");
            if let Some(set) = self.layout.model.sets.get_mut(&name) {
                set.counters = true;
            }
        }
        let leaves: Vec<(IpAddr, Vec<Rule>)> = leaves.into_iter().collect();
        let (first, last) = (leaves.first()?.0, leaves.last()?.0);
        let (options, filter) = (self.options, &mut self.filter);
        let mut add =
            |rules, title: &str| add_chain(options, filter, ChainKind::Dispatch, &[], rules, title);
        let root = tree::addresses(side, &leaves, &mut add);
        let title = format!("{direction} of local pods");
        let root = add(root, &title);
        let net = tree::common(first, last);
        let gate =
            if net.prefix_len() == 0 { Rule::default() } else { tree::of_network(side, net) };
        Some(Rule { target: Some(Target::Goto(root)), comment: Comment::new(&title), ..gate })
    }

    /// The rules by which a pod that no device tells apart reaches itself.
    fn pairs(&self, side: Side, pod: &PodId, address: IpAddr) -> Vec<Rule> {
        if self.known.contains(pod) {
            return Vec::new();
        }
        let pair = |other: IpAddr| {
            let comment = Comment::new("a pod and itself");
            let rule = tree::leaf(side, address, Target::Return, comment);
            match side {
                Side::Source => Rule { destination: Some(other.into()), ..rule },
                Side::Destination => Rule { source: Some(other.into()), ..rule },
            }
        };
        self.addresses(pod).map(pair).collect()
    }

    /// The chains of a program; the first one's name. For traffic with the own node the NetworkPolicy tier allows
    /// everything (NP-70), and the Baseline tier behind it is not asked (CNP-35).
    fn program(
        &mut self,
        kind: ChainKind,
        id: ProgramId,
        program: &Program,
        own_node: bool,
    ) -> ChainName {
        let blocks = program.blocks.iter();
        let blocks: Vec<_> =
            blocks.take_while(|block| !own_node || block.tier != Tier::NetworkPolicy).collect();
        let mut next: Option<ChainName> = None;
        for (at, block) in blocks.iter().enumerate().rev() {
            let policies: Vec<String> = block.policies.iter().map(ToString::to_string).collect();
            let end = match block.end {
                TierEnd::Allow => Target::Return,
                TierEnd::NextTier => next.take().map_or(Target::Return, Target::Goto),
                TierEnd::Deny => {
                    let why = format!("isolated, {}: {}", program.direction, policies.join(", "));
                    Target::Goto(self.denial(program.direction, &why, &policies.join(","), true))
                }
            };
            let mut steps = Vec::new();
            for rule in &block.rules {
                let verdict = match rule.verdict {
                    Verdict::Allow => Target::Return,
                    Verdict::Pass => end.clone(),
                    Verdict::Deny => {
                        let why = self.describe(&rule.origin);
                        Target::Goto(self.denial(program.direction, &why, &why, false))
                    }
                };
                self.rule(program.direction, rule, &verdict, &mut steps);
            }
            if block.tier == Tier::NetworkPolicy {
                // All of them allow, so the order is free: what costs least comes first.
                steps.sort_by_key(cost);
            }
            let title = format!("{} {}: {}", block.tier, program.direction, policies.join(", "));
            let rules = self.assemble(steps, end, &title);
            let (kind, of) =
                if at == 0 { (kind, &id.as_bytes()[..]) } else { (ChainKind::Rest, &[][..]) };
            next = Some(self.add_chain(kind, of, rules, &title));
        }
        // A program has at least one block; for the own node, one that denies before the NetworkPolicy tier.
        next.unwrap_or_else(|| {
            self.add_chain(kind, id.as_bytes(), Vec::new(), "everything is allowed")
        })
    }

    /// The rules of a chain with these steps and this end.
    fn assemble(&mut self, steps: Vec<Step>, end: Target, title: &str) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        if end != Target::Return {
            rules.push(Rule { target: Some(end), ..Rule::default() });
        }
        // From the end: what follows a condition that iptables cannot say is a chain of its own.
        for step in steps.into_iter().rev() {
            match step {
                Step::Rule(rule) => rules.insert(0, rule),
                Step::OtherProtocols(others) => {
                    let rest = std::mem::take(&mut rules);
                    let rest = Target::Goto(self.add_chain(ChainKind::Rest, &[], rest, title));
                    rules = protocols_go_to(&rest);
                    rules.extend(others);
                    rules.push(Rule { target: Some(rest), ..Rule::default() });
                }
            }
        }
        rules
    }

    /// `NetworkPolicy shop/web ingress[0] shop.yaml:12`.
    fn describe(&self, origin: &Origin) -> String {
        match self.ruleset.source(origin) {
            Some(source) => format!("{origin} {source}"),
            None => origin.to_string(),
        }
    }

    /// Everything that the peers and the ports of a rule can be, one rule for each.
    fn rule(
        &self,
        direction: Direction,
        rule: &PolicyRule,
        verdict: &Target,
        steps: &mut Vec<Step>,
    ) {
        let comment = Comment::new(&self.describe(&rule.origin));
        let peers = self.peers(direction, &rule.peers);
        let finish = |peer: &Rule| Rule {
            target: Some(verdict.clone()),
            comment: comment.clone(),
            ..peer.clone()
        };
        for ports in self.ports(&rule.ports) {
            if matches!(ports, Ports::OtherProtocols) {
                steps.push(Step::OtherProtocols(peers.iter().map(finish).collect()));
                continue;
            }
            for peer in &peers {
                let mut rule = finish(peer);
                // Compares before lookups, ports before peers (dataplane.md finding 6).
                match &ports {
                    Ports::Any | Ports::OtherProtocols => {}
                    Ports::Some(protocol, matches) => {
                        rule.protocol = Some(*protocol);
                        rule.matches.splice(0..0, matches.iter().cloned());
                    }
                    Ports::Named(set) => {
                        let lookup = Match::Set(set.clone(), vec![Dimension::Destination; 2]);
                        rule.matches.push(lookup);
                    }
                }
                steps.push(Step::Rule(rule));
            }
        }
    }

    /// A rule for each kind of peer, with nothing but the condition on the peer.
    fn peers(&self, direction: Direction, peers: &PeerMatch) -> Vec<Rule> {
        let (side, dimension) = match direction {
            Direction::Ingress => (Side::Source, Dimension::Source),
            Direction::Egress => (Side::Destination, Dimension::Destination),
        };
        let PeerMatch::OneOf { pods, networks } = peers else { return vec![Rule::default()] };
        let lookup =
            |name| Rule { matches: vec![Match::Set(name, vec![dimension])], ..Rule::default() };
        let mut rules = Vec::new();
        if let Some((id, addresses)) =
            networks.and_then(|id| Some((id, self.ruleset.net_sets().get(&id)?)))
        {
            let networks = self.networks(addresses);
            if networks.len() > MOST_INLINE_NETWORKS {
                rules.push(lookup(self.net_set_name(id)));
            } else {
                rules.extend(networks.into_iter().map(|net| match net.prefix_len() {
                    0 => Rule::default(),
                    _ => tree::of_network(side, net),
                }));
            }
        }
        let pods = pods.iter().map(|id| self.set_name(SetKind::Pods, id.as_bytes()));
        rules.extend(pods.map(lookup));
        rules
    }

    /// The kinds of ports; no entry is no port.
    fn ports(&self, ports: &PortMatch) -> Vec<Ports> {
        let mut all = numbers(&ports.numbers);
        let named = ports.named.iter().filter(|id| self.ruleset.named_port_sets().contains_key(id));
        all.extend(named.map(|id| Ports::Named(self.set_name(SetKind::NamedPorts, id.as_bytes()))));
        all
    }

    /// The chain in which a denied packet ends, unless no policy may deny it.
    fn denial(
        &mut self,
        direction: Direction,
        why: &str,
        policies: &str,
        isolated: bool,
    ) -> ChainName {
        let own = SetName::own(self.options.prefix(), self.family);
        // Both ends belong to the device that it came in from.
        let lookup = |end| Match::Set(own.clone(), vec![end, Dimension::Source]);
        let itself = Rule {
            matches: vec![lookup(Dimension::Destination), lookup(Dimension::Source)],
            target: Some(Target::Return),
            comment: Comment::new("a pod and itself"),
            ..Rule::default()
        };
        let mut rules = self.refusal(direction, why, policies, isolated);
        if self.options.host().policy().other_protocols() == OtherProtocols::Allow {
            let refusal = self.add_chain(ChainKind::Denial, &[], rules, why);
            // Other protocols fall off the chain, which allows them.
            rules = protocols_go_to(&Target::Goto(refusal));
        } else if self.family == Family::V6 {
            rules.splice(0..0, (133..=137).map(neighbor_discovery));
        }
        rules.insert(0, itself);
        self.add_chain(ChainKind::Denial, &[], rules, why)
    }

    /// The end of a packet: logged, counted and gone.
    fn refusal(
        &self,
        direction: Direction,
        why: &str,
        policies: &str,
        isolated: bool,
    ) -> Vec<Rule> {
        let mut rules = Vec::new();
        if let Some(group) = self.options.host().log_group() {
            let prefix = Comment::cut(&format!("netpol deny {direction} {policies}"), 63);
            rules.push(Rule {
                matches: vec![Match::Limit { per_second: 10, burst: 20 }],
                target: Some(Target::Log { group, prefix }),
                ..Rule::default()
            });
        }
        if self.options.host().counters() {
            let pod = match direction {
                Direction::Ingress => Dimension::Destination,
                Direction::Egress => Dimension::Source,
            };
            let name = SetName::denied(self.options.prefix(), self.family, direction);
            rules.push(Rule {
                matches: vec![Match::Set(name, vec![pod])],
                comment: Comment::new("counts by pod"),
                ..Rule::default()
            });
        }
        let end = |protocol, target| Rule {
            protocol,
            target: Some(target),
            comment: Comment::new(why),
            ..Rule::default()
        };
        if isolated && self.options.host().denial() == Denial::Reject {
            let tcp = Some(IpProtocol::WithPorts(Protocol::Tcp));
            rules.push(end(tcp, Target::RejectWithReset));
            rules.push(end(None, Target::RejectAsProhibited(self.family)));
        } else {
            rules.push(end(None, Target::Drop));
        }
        rules
    }

    /// A packet with a right source passes after one lookup. Only what is left is held against the devices one by one:
    /// what comes from none of them is not judged.
    fn guard(&mut self, devices: &Devices) {
        let leaves: BTreeMap<DeviceName, Rule> = devices
            .iter()
            .map(|(device, of)| {
                let comment = Comment::new(&format!("not an address of pod {}", of.pod));
                let rule = Rule { target: Some(Target::Drop), comment, ..Rule::default() };
                (device.clone(), rule)
            })
            .collect();
        let (options, raw) = (self.options, &mut self.raw);
        let mut add =
            |rules, title: &str| add_chain(options, raw, ChainKind::Guard, &[], rules, title);
        let root = tree::devices(&leaves, &mut add);
        let root = Target::Goto(add(root, "source guard: devices of pods"));
        let set = SetName::guard(options.prefix(), self.family);
        let mut rules = vec![Rule {
            matches: vec![Match::Set(set, vec![Dimension::Source; 2])],
            target: Some(Target::Return),
            comment: Comment::new("an address of the pod"),
            ..Rule::default()
        }];
        if self.family == Family::V6 {
            // What a pod without an address must send: neighbor discovery, duplicate address detection and multicast
            // listener reports. Router advertisements and redirects are not among it (F08).
            let mut types: Vec<Rule> =
                [130, 131, 132, 133, 135, 136, 143].map(neighbor_discovery).into();
            types.push(Rule { target: Some(root.clone()), ..Rule::default() });
            let types = Target::Goto(add(types, "source guard: neighbor discovery"));
            let link_local =
                ipnet::Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
            for source in [link_local.into(), IpNet::from(IpAddr::from(Ipv6Addr::UNSPECIFIED))] {
                let protocol = Some(IpProtocol::Icmpv6);
                let target = Some(types.clone());
                rules.push(Rule { protocol, target, ..tree::of_network(Side::Source, source) });
            }
        }
        rules.push(Rule { target: Some(root), ..Rule::default() });
        let name = ChainName::entry(self.options.prefix(), Builtin::Prerouting);
        let title = Comment::new("source guard");
        let jump = Rule {
            device: tree::pattern(devices.keys()),
            target: Some(Target::Jump(name.clone())),
            comment: Comment::new("netpol"),
            ..Rule::default()
        };
        self.raw.chains.insert(name, Chain { rules, title });
        self.raw.jumps.insert(Builtin::Prerouting, jump);
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

/// Rules that only protocols with ports match.
fn protocols_go_to(target: &Target) -> Vec<Rule> {
    let rule = |protocol| Rule {
        protocol: Some(IpProtocol::WithPorts(protocol)),
        target: Some(target.clone()),
        ..Rule::default()
    };
    Protocol::ALL.map(rule).into()
}

/// How many sets are looked up before the rule is known to match. What needs a chain of its own comes last.
fn cost(step: &Step) -> usize {
    let is_lookup = |condition: &&Match| matches!(condition, Match::Set(..));
    match step {
        Step::Rule(rule) => rule.matches.iter().filter(is_lookup).count(),
        Step::OtherProtocols(_) => usize::MAX,
    }
}

/// Could a rule of a tier before the NetworkPolicy tier, or of Baseline without one, deny?
fn denies_before_network_policies(program: &Program) -> bool {
    let mut blocks = program.blocks.iter().take_while(|block| block.tier != Tier::NetworkPolicy);
    blocks.any(|block| block.rules.iter().any(|rule| rule.verdict == Verdict::Deny))
}

/// The conditions for ports by number.
fn numbers(ports: &PortSet) -> Vec<Ports> {
    if ports.is_full() {
        return vec![Ports::Any];
    }
    let mut all = Vec::new();
    for protocol in Protocol::ALL {
        let of_protocol = |matches| Ports::Some(IpProtocol::WithPorts(protocol), matches);
        if ports.ports(protocol).is_full() {
            all.push(of_protocol(Vec::new()));
            continue;
        }
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        let slots = |(first, last): &(u16, u16)| if first == last { 1 } else { 2 };
        for range in ports.ports(protocol).intervals().map(|r| (*r.start(), *r.end())) {
            if ranges.iter().chain([&range]).map(slots).sum::<usize>() > MOST_PORTS {
                all.push(of_protocol(vec![Match::Ports(protocol, std::mem::take(&mut ranges))]));
            }
            ranges.push(range);
        }
        if !ranges.is_empty() {
            all.push(of_protocol(vec![Match::Ports(protocol, ranges)]));
        }
    }
    if ports.other() {
        all.push(Ports::OtherProtocols);
    }
    all
}
