//! From the rule IR to tables, sets and chains (dataplane.md C.1). Pure: equal input gives an equal model.
//!
//! ```text
//! base chains   forward   ct state established,related accept; egress by source, then ingress by destination
//!               input     the egress of a pod towards its own node (NP-71)
//!               output    what the node sends to its own pods: only where Admin or Baseline could deny it (NP-70, CNP-38)
//!               guard     before conntrack: what comes from a pod's device must come from its address; a chain for each device
//!                         in the family netdev, or one in prerouting
//! maps          e, i      address of a local pod -> chain of its program; oe, oi the same for traffic with the own node
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

use crate::model::{
    Action, Chain, Element, Field, Hook, HookPoint, IpVersion, KeyType, Match, Model, Name, Rule,
    Set, State, Table, TableFamily, Test, Value, VerdictMap,
};
use crate::options::{Guard, NftOptions};
use crate::text;
use ipnet::IpNet;
use netpol_core::{
    AddressSet, Direction, Established, NetSetId, Origin, OtherProtocols, OwnNodeEgress, PeerMatch,
    PodId, PortMatch, PortSet, Program, ProgramId, Protocol, Rule as PolicyRule, Ruleset, Tier,
    TierEnd, Verdict,
};
use netpol_host::{
    Comment, Denial, DeviceDefect, DeviceName, LocalDevice, LocalDevices, short_digest,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Up to this many networks are compared one by one; more become sets (dataplane.md finding 8).
const MOST_INLINE_NETWORKS: usize = 8;
/// Networks of up to this many prefix lengths become a hash set for each; more become an interval set.
const MOST_PREFIX_LENGTHS: usize = 4;
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
    let LocalDevices { devices, defects, .. } = match options.guard() {
        Guard::Off => LocalDevices::default(),
        _ => LocalDevices::of(ruleset, options.host()),
    };
    layout.defects.extend(defects.into_iter().map(Defect::Device));
    for version in [IpVersion::V4, IpVersion::V6] {
        let builder = Builder { ruleset, options, version, table: Table::default() };
        let family = match version {
            IpVersion::V4 => TableFamily::Ip,
            IpVersion::V6 => TableFamily::Ip6,
        };
        layout.model.tables.insert(family, builder.table(&devices));
    }
    if options.guard() == Guard::Ingress && !devices.is_empty() {
        let table = netdev_table(&devices);
        layout.model.tables.insert(TableFamily::Netdev, table);
    }
    layout
}

/// By name, what may come from it.
type Devices = BTreeMap<DeviceName, LocalDevice>;

fn owner(device: &LocalDevice) -> Comment {
    Comment::new(&format!("pod {}", device.pod))
}

/// The layout of one family.
struct Builder<'a> {
    ruleset: &'a Ruleset,
    options: &'a NftOptions,
    version: IpVersion,
    table: Table,
}

impl Builder<'_> {
    fn table(mut self, devices: &Devices) -> Table {
        let marker = Chain { title: Comment::new("whose table this is"), ..Chain::default() };
        self.table.chains.insert(Name::made(MARKER), marker);
        self.sets();
        self.programs();
        self.base_chains();
        if self.options.guard() == Guard::Prerouting && !devices.is_empty() {
            self.guard(devices);
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

    fn sets(&mut self) {
        for (id, set) in self.ruleset.pod_sets() {
            let elements = set.members.iter().flat_map(|pod| self.addresses(pod));
            let elements = elements.map(|address| vec![Value::Address(address)]).collect();
            let comment = set.selection.to_string();
            self.add_set(
                Name::made(format_args!("p_{id}")),
                vec![self.key_type()],
                elements,
                &comment,
            );
        }
        for (id, set) in self.ruleset.named_port_sets() {
            let elements = set.members.iter().flat_map(|(pod, port)| {
                self.addresses(pod)
                    .map(|address| vec![Value::Address(address), Value::Ports(*port, *port)])
            });
            let elements = elements.collect();
            let of = match &set.selection {
                Some(selection) => selection.to_string(),
                None => "all pods".to_owned(),
            };
            let comment = format!("{} port {} of {of}", set.protocol, set.name);
            let key = vec![self.key_type(), KeyType::Service];
            self.add_set(Name::made(format_args!("n_{id}")), key, elements, &comment);
        }
        for (id, addresses) in self.ruleset.net_sets() {
            for (name, elements) in self.net_sets(*id, addresses) {
                self.add_set(name, vec![self.key_type()], elements, "networks");
            }
        }
        let pairs = self.ruleset.endpoints().keys().flat_map(|pod| {
            self.addresses(pod).flat_map(|source| {
                self.addresses(pod).map(move |to| vec![Value::Address(source), Value::Address(to)])
            })
        });
        let pairs = pairs.collect();
        let key = vec![self.key_type(); 2];
        self.add_set(
            Name::made("self"),
            key,
            pairs,
            "addresses of one pod: its traffic with itself",
        );
    }

    fn networks(&self, addresses: &AddressSet) -> Vec<IpNet> {
        addresses.cidrs().filter(|net| self.is_of(net.addr())).collect()
    }

    /// The sets of a list of networks that is too long to be written out in each rule.
    fn net_sets(&self, id: NetSetId, addresses: &AddressSet) -> Vec<(Name, BTreeSet<Element>)> {
        let networks = self.networks(addresses);
        if networks.len() <= MOST_INLINE_NETWORKS {
            return Vec::new();
        }
        let lengths: BTreeSet<u8> = networks.iter().map(IpNet::prefix_len).collect();
        if lengths.len() > MOST_PREFIX_LENGTHS {
            let ranges = addresses.ranges().filter(|(first, _)| self.is_of(*first));
            let ranges = ranges.map(|(first, last)| vec![Value::Addresses(first, last)]).collect();
            return vec![(Name::made(format_args!("c_{id}")), ranges)];
        }
        let of_length = |length: u8| {
            let networks = networks.iter().filter(|net| net.prefix_len() == length);
            networks.map(|net| vec![Value::Address(net.network())]).collect()
        };
        let name = |length| Name::made(format_args!("c_{id}_{length}"));
        lengths.into_iter().map(|length| (name(length), of_length(length))).collect()
    }

    fn programs(&mut self) {
        let exempt_egress = self.options.host().policy().own_node_egress() == OwnNodeEgress::Allow;
        let mut chains: BTreeMap<ProgramId, Name> = BTreeMap::new();
        let mut own_node: BTreeMap<ProgramId, Name> = BTreeMap::new();
        for (&id, program) in self.ruleset.programs() {
            let letter = match program.direction {
                Direction::Ingress => "i",
                Direction::Egress => "e",
            };
            chains.insert(id, self.program(&format!("{letter}_{id}"), program, false));
            let exempt = program.direction == Direction::Ingress || exempt_egress;
            if exempt && denies_before_network_policies(program) {
                own_node.insert(id, self.program(&format!("o{letter}_{id}"), program, true));
            }
        }
        for direction in Direction::ALL {
            let (all, own) = match direction {
                Direction::Ingress => ("i", "oi"),
                Direction::Egress => ("e", "oe"),
            };
            self.dispatch(Name::made(all), direction, &chains);
            if self.options.host().counters() {
                let map = self.table.maps.get(&Name::made(all));
                let pods = map.map(|map| map.elements.keys().cloned().collect());
                self.counting_set(direction, pods.unwrap_or_default());
            }
            if direction == Direction::Ingress || exempt_egress {
                self.dispatch(Name::made(own), direction, &own_node);
            }
        }
    }

    /// The set that counts, by local pod, what is denied in a direction.
    fn counting_set(&mut self, direction: Direction, elements: BTreeSet<Element>) {
        let name = Name::made(counting_set_name(direction));
        let comment = Comment::new(&format!("denied by pod, {direction}"));
        let (key, interval, counters) = (vec![self.key_type()], false, true);
        self.table.sets.insert(name, Set { key, interval, counters, elements, comment });
    }

    fn dispatch(&mut self, name: Name, direction: Direction, chains: &BTreeMap<ProgramId, Name>) {
        let mut map =
            VerdictMap { key: self.key_type(), elements: BTreeMap::new(), notes: BTreeMap::new() };
        for (pod, endpoint) in self.ruleset.endpoints() {
            let chain = endpoint.program(direction).and_then(|program| chains.get(&program));
            let Some(chain) = chain else { continue };
            let note = Comment::new(&pod.to_string());
            for address in self.addresses(pod) {
                let key = vec![Value::Address(address)];
                map.notes.insert(key.clone(), note.clone());
                map.elements.insert(key, chain.clone());
            }
        }
        self.table.maps.insert(name, map);
    }

    /// The chains of a program; the first one's name. For traffic with the own node the NetworkPolicy tier allows
    /// everything (NP-70), and the Baseline tier behind it is not asked (CNP-35).
    fn program(&mut self, prefix: &str, program: &Program, own_node: bool) -> Name {
        let blocks = program.blocks.iter();
        let blocks: Vec<_> =
            blocks.take_while(|block| !own_node || block.tier != Tier::NetworkPolicy).collect();
        let mut next: Option<Name> = None;
        for (at, block) in blocks.iter().enumerate().rev() {
            let end = match block.end {
                TierEnd::Allow => Action::Return,
                TierEnd::NextTier => next.take().map_or(Action::Return, Action::Goto),
                TierEnd::Deny => {
                    let policies: Vec<String> =
                        block.policies.iter().map(ToString::to_string).collect();
                    let why = format!("isolated, {}: {}", program.direction, policies.join(", "));
                    Action::Goto(self.denial(program.direction, &why, &policies.join(","), true))
                }
            };
            let mut rules = Vec::new();
            for rule in &block.rules {
                let verdict = match rule.verdict {
                    Verdict::Allow => Action::Return,
                    Verdict::Pass => end.clone(),
                    Verdict::Deny => {
                        let why = self.describe(&rule.origin);
                        Action::Goto(self.denial(program.direction, &why, &why, false))
                    }
                };
                self.rule(program.direction, rule, &verdict, &mut rules);
            }
            if block.tier == Tier::NetworkPolicy {
                // All of them allow, so the order is free: what costs least comes first.
                rules.sort_by_key(cost);
            }
            if end != Action::Return {
                rules.push(Rule { actions: vec![end], ..Rule::default() });
            }
            let policies: Vec<String> = block.policies.iter().map(ToString::to_string).collect();
            let title = format!("{} {}: {}", block.tier, program.direction, policies.join(", "));
            let prefix = if at == 0 { prefix } else { "t" };
            next = Some(self.add_chain(prefix, None, rules, &title));
        }
        // A program has at least one block; for the own node, one that denies before the NetworkPolicy tier.
        next.unwrap_or_else(|| self.add_chain(prefix, None, Vec::new(), "everything is allowed"))
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
        verdict: &Action,
        rules: &mut Vec<Rule>,
    ) {
        let comment = Comment::new(&self.describe(&rule.origin));
        let peers = self.peers(direction, &rule.peers);
        for ports in self.ports(&rule.ports) {
            for peer in &peers {
                // Compares before lookups, ports before peers (dataplane.md finding 6).
                let mut matches: Vec<Match> = ports.iter().chain(peer).cloned().collect();
                matches.sort_by_key(|condition| matches!(condition.test, Test::In(_)));
                let (actions, comment) = (vec![verdict.clone()], comment.clone());
                rules.push(Rule { matches, actions, comment });
            }
        }
    }

    /// The conditions of each kind of peer; none is no condition, no entry is no peer.
    fn peers(&self, direction: Direction, peers: &PeerMatch) -> Vec<Option<Match>> {
        let field = match direction {
            Direction::Ingress => Field::Source(self.version),
            Direction::Egress => Field::Destination(self.version),
        };
        let test = |test, mask| Some(Match { fields: vec![field], mask, test });
        let PeerMatch::OneOf { pods, networks } = peers else { return vec![None] };
        let mut matches = Vec::new();
        if let Some((id, addresses)) =
            networks.and_then(|id| Some((id, self.ruleset.net_sets().get(&id)?)))
        {
            let sets = self.net_sets(id, addresses);
            if sets.is_empty() {
                matches.extend(self.networks(addresses).into_iter().map(
                    |net| match net.prefix_len() {
                        0 => None,
                        length if length == net.max_prefix_len() => {
                            test(Test::Is(Value::Address(net.addr())), None)
                        }
                        _ => test(Test::Is(Value::Network(net)), None),
                    },
                ));
            }
            for (name, elements) in sets {
                let length = self.prefix_length(&name, addresses, &elements);
                matches.push(test(Test::In(name), length.and_then(|length| self.mask(length))));
            }
        }
        matches
            .extend(pods.iter().map(|id| test(Test::In(Name::made(format_args!("p_{id}"))), None)));
        matches
    }

    /// The prefix length of a set of networks of one length; none for an interval set.
    fn prefix_length(
        &self,
        name: &Name,
        addresses: &AddressSet,
        elements: &BTreeSet<Element>,
    ) -> Option<u8> {
        let interval = elements.iter().flatten().any(|v| matches!(v, Value::Addresses(..)));
        if interval {
            return None;
        }
        let lengths = self.networks(addresses).into_iter().map(|net| net.prefix_len());
        lengths.into_iter().find(|length| name.as_str().ends_with(&format!("_{length}")))
    }

    /// The mask of a prefix length; none if it is the whole address.
    fn mask(&self, length: u8) -> Option<IpAddr> {
        let host: IpAddr = match self.version {
            IpVersion::V4 => Ipv4Addr::UNSPECIFIED.into(),
            IpVersion::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let net = IpNet::new(host, length).ok()?;
        (length < net.max_prefix_len()).then(|| net.netmask())
    }

    /// The conditions of each kind of port; an empty list is no condition, no entry is no port.
    fn ports(&self, ports: &PortMatch) -> Vec<Vec<Match>> {
        let mut matches = number_matches(&ports.numbers);
        for id in &ports.named {
            let Some(set) = self.ruleset.named_port_sets().get(id) else { continue };
            matches.push(vec![Match {
                fields: vec![Field::Destination(self.version), Field::Port(set.protocol)],
                mask: None,
                test: Test::In(Name::made(format_args!("n_{id}"))),
            }]);
        }
        matches
    }

    /// The chain in which a denied packet ends, unless no policy may deny it.
    fn denial(&mut self, direction: Direction, why: &str, policies: &str, isolated: bool) -> Name {
        let mut rules = vec![Rule {
            matches: vec![Match {
                fields: vec![Field::Source(self.version), Field::Destination(self.version)],
                mask: None,
                test: Test::In(Name::made("self")),
            }],
            actions: vec![Action::Return],
            comment: Comment::new("a pod and itself"),
        }];
        let passes = |condition: Match, comment: &str| Rule {
            matches: vec![condition],
            actions: vec![Action::Return],
            comment: Comment::new(comment),
        };
        if self.options.host().policy().other_protocols() == OtherProtocols::Allow {
            let protocols = Protocol::ALL.map(|protocol| vec![Value::Protocol(protocol)]).into();
            let other = condition(Field::Protocol, Test::NoneOf(protocols));
            rules.push(passes(other, "other protocols"));
        } else if self.version == IpVersion::V6 {
            let types = Test::Is(Value::Icmpv6Types(133, 137));
            rules.push(passes(condition(Field::Icmpv6Type, types), "neighbor discovery"));
        }
        if let Some(group) = self.options.host().log_group() {
            // nfnetlink_log takes 127 bytes; the last is a space before the packet.
            let text = format!("netpol deny {direction} {policies}");
            let prefix = Comment::cut(&text, 120);
            let limit = Action::Limit { per_second: 10, burst: 20 };
            let actions = vec![limit, Action::Log { group, prefix }];
            rules.push(Rule { actions, ..Rule::default() });
        }
        let counter = self.options.host().counters().then_some(Action::Counter);
        if self.options.host().counters() {
            let pod = match direction {
                Direction::Ingress => Field::Destination(self.version),
                Direction::Egress => Field::Source(self.version),
            };
            let counts = Test::In(Name::made(counting_set_name(direction)));
            let (matches, actions) = (vec![condition(pod, counts)], Vec::new());
            rules.push(Rule { matches, actions, comment: Comment::new("counts by pod") });
        }
        let comment = Comment::new(why);
        let mut end = |matches, action| {
            let actions = counter.iter().cloned().chain([action]).collect();
            rules.push(Rule { matches, actions, comment: comment.clone() });
        };
        if isolated && self.options.host().denial() == Denial::Reject {
            let tcp = condition(Field::Protocol, Test::Is(Value::Protocol(Protocol::Tcp)));
            end(vec![tcp], Action::RejectWithReset);
            end(Vec::new(), Action::RejectAsProhibited(self.version));
        } else {
            end(Vec::new(), Action::Drop);
        }
        self.add_chain("x", None, rules, why)
    }

    fn base_chains(&mut self) {
        let (source, destination) = (Field::Source(self.version), Field::Destination(self.version));
        let dispatch = |field, map| Rule {
            actions: vec![Action::Dispatch(field, Name::made(map))],
            ..Rule::default()
        };
        let hook = |point| {
            let priority = self.options.priority();
            Some(Hook { point, priority, device: None })
        };
        let (forward, input, output) =
            (hook(HookPoint::Forward), hook(HookPoint::Input), hook(HookPoint::Output));
        let egress =
            self.add_chain("egress", None, vec![dispatch(source, "e")], "egress of local pods");
        let established = self.established();
        let with = |rules: Vec<Rule>| established.iter().cloned().chain(rules).collect();
        let jump = Rule { actions: vec![Action::Jump(egress)], ..Rule::default() };
        let rules = with(vec![jump, dispatch(destination, "i")]);
        self.add_chain("forward", forward, rules, "between pods, and between pods and the world");
        let is_used = |table: &Table, map: &str| {
            table.maps.get(&Name::made(map)).is_some_and(|map| !map.elements.is_empty())
        };
        if self.options.host().policy().own_node_egress() == OwnNodeEgress::Police {
            self.add_chain(
                "input",
                input,
                with(vec![dispatch(source, "e")]),
                "from pods to this node",
            );
        } else if is_used(&self.table, "oe") {
            self.add_chain(
                "input",
                input,
                with(vec![dispatch(source, "oe")]),
                "from pods to this node",
            );
        }
        if is_used(&self.table, "oi") {
            let rules = with(vec![dispatch(destination, "oi")]);
            self.add_chain("output", output, rules, "from this node to pods");
        }
    }

    /// What passes before any policy: packets of connections that were let through (NP-60, NP-62).
    fn established(&self) -> Vec<Rule> {
        let state = |states: &[State]| {
            let states = states.iter().map(|&state| vec![Value::State(state)]).collect();
            condition(Field::State, Test::OneOf(states))
        };
        let accept = |matches, comment: &str| Rule {
            matches,
            actions: vec![Action::Accept],
            comment: Comment::new(comment),
        };
        match self.options.host().policy().established() {
            Established::Keep => vec![accept(
                vec![state(&[State::Established, State::Related])],
                "what belongs to a connection that was let through",
            )],
            Established::ReEvaluate => vec![
                accept(vec![state(&[State::Related])], "what belongs to a connection"),
                // The other direction is judged again by each packet (reliability.md L3, case e).
                accept(
                    vec![
                        state(&[State::Established]),
                        condition(Field::Direction, Test::Is(Value::Reply)),
                    ],
                    "replies",
                ),
            ],
        }
    }

    fn guard(&mut self, devices: &Devices) {
        let mut map =
            VerdictMap { key: KeyType::Device, elements: BTreeMap::new(), notes: BTreeMap::new() };
        for (device, of) in devices {
            let pod = owner(of);
            let mut rules = Vec::new();
            let own = of.addresses.iter().copied().filter(|address| self.is_of(*address)).collect();
            own_sources(self.version, own, &Action::Return, &mut rules);
            rules.push(Rule {
                matches: Vec::new(),
                actions: vec![Action::Counter, Action::Drop],
                comment: Comment::new(&format!("not an address of {pod}")),
            });
            let chain = self.add_chain("g", None, rules, &format!("source guard of {pod}"));
            let key = vec![Value::Device(device.clone())];
            map.notes.insert(key.clone(), pod);
            map.elements.insert(key, chain);
        }
        let name = Name::made("g");
        self.table.maps.insert(name.clone(), map);
        // Before conntrack, which is at -200: a forged packet must not make an entry.
        let hook = Hook { point: HookPoint::Prerouting, priority: -300, device: None };
        let actions = vec![Action::Dispatch(Field::InDevice, name)];
        let rules = vec![Rule { actions, ..Rule::default() }];
        self.add_chain("guard", Some(hook), rules, "source guard");
    }
}

/// The rules that let a pod's own source addresses pass, and what a pod without an address must send: neighbor
/// discovery, duplicate address detection and multicast listener reports, from `fe80::/10` and `::`. Router
/// advertisements and redirects are not among it (F08).
fn own_sources(version: IpVersion, own: Vec<IpAddr>, pass: &Action, rules: &mut Vec<Rule>) {
    let mut rule = |matches: Vec<Match>, comment: &str| {
        let (actions, comment) = (vec![pass.clone()], Comment::new(comment));
        rules.push(Rule { matches, actions, comment });
    };
    let source = Field::Source(version);
    let mut own: Vec<Value> = own.into_iter().map(Value::Address).collect();
    match (own.pop(), own.is_empty()) {
        (None, _) => {}
        (Some(one), true) => rule(vec![condition(source, Test::Is(one))], ""),
        (Some(last), false) => {
            let all = own.into_iter().chain([last]).map(|address| vec![address]).collect();
            rule(vec![condition(source, Test::OneOf(all))], "");
        }
    }
    if version == IpVersion::V6 {
        let types = [(130, 133), (135, 136), (143, 143)];
        let types = types.map(|(first, last)| vec![Value::Icmpv6Types(first, last)]).to_vec();
        let link_local: ipnet::Ipv6Net =
            ipnet::Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
        for from in
            [Value::Network(link_local.into()), Value::Address(Ipv6Addr::UNSPECIFIED.into())]
        {
            let types = condition(Field::Icmpv6Type, Test::OneOf(types.clone()));
            rule(vec![condition(source, Test::Is(from)), types], "neighbor discovery");
        }
    }
}

/// The source guard at the devices.
fn netdev_table(devices: &Devices) -> Table {
    let mut table = Table::default();
    let marker = Chain { title: Comment::new("whose table this is"), ..Chain::default() };
    table.chains.insert(Name::made(MARKER), marker);
    for (device, of) in devices {
        let pod = owner(of);
        let mut rules = Vec::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            let of_version = |address: &IpAddr| address.is_ipv4() == (version == IpVersion::V4);
            let own = of.addresses.iter().copied().filter(of_version).collect();
            own_sources(version, own, &Action::Accept, &mut rules);
        }
        // Frames of other kinds, ARP among them, are not judged.
        for version in [IpVersion::V4, IpVersion::V6] {
            let any = match version {
                IpVersion::V4 => IpNet::from(ipnet::Ipv4Net::default()),
                IpVersion::V6 => IpNet::from(ipnet::Ipv6Net::default()),
            };
            rules.push(Rule {
                matches: vec![condition(Field::Source(version), Test::Is(Value::Network(any)))],
                actions: vec![Action::Counter, Action::Drop],
                comment: Comment::new(&format!("not an address of {pod}")),
            });
        }
        let hook = Hook { point: HookPoint::Ingress, priority: -500, device: Some(device.clone()) };
        let hook = Some(hook);
        let name = chain_name("g", hook.as_ref(), &rules);
        let title = Comment::new(&format!("source guard of {pod}"));
        table.chains.insert(name, Chain { hook, rules, title });
    }
    table
}

/// The name of the set that counts what is denied in a direction.
pub(crate) fn counting_set_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "di",
        Direction::Egress => "de",
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

/// How many sets are looked up before the rule is known to match.
fn cost(rule: &Rule) -> usize {
    let lookup = |condition: &&Match| matches!(condition.test, Test::In(_));
    rule.matches.iter().filter(lookup).count()
}

/// Could a rule of a tier before the NetworkPolicy tier, or of Baseline without one, deny?
fn denies_before_network_policies(program: &Program) -> bool {
    let mut blocks = program.blocks.iter().take_while(|block| block.tier != Tier::NetworkPolicy);
    blocks.any(|block| block.rules.iter().any(|rule| rule.verdict == Verdict::Deny))
}

/// The conditions for ports by number: at most two alternatives, each at most one condition.
fn number_matches(ports: &PortSet) -> Vec<Vec<Match>> {
    if ports.is_full() {
        return vec![Vec::new()];
    }
    let mut matches = Vec::new();
    if ports.other() {
        let protocols = Protocol::ALL.map(|protocol| vec![Value::Protocol(protocol)]).into();
        matches.push(vec![condition(Field::Protocol, Test::NoneOf(protocols))]);
    }
    let used: Vec<Protocol> =
        Protocol::ALL.into_iter().filter(|p| !ports.ports(*p).is_empty()).collect();
    let ranges = |protocol| ports.ports(protocol).intervals();
    let port = |protocol| {
        ranges(protocol).map(|range| Value::Ports(*range.start(), *range.end())).collect::<Vec<_>>()
    };
    let whole = |protocol: &Protocol| ports.ports(*protocol).is_full();
    let number = match used.as_slice() {
        [] => return matches,
        [one] if whole(one) => condition(Field::Protocol, Test::Is(Value::Protocol(*one))),
        [one] => {
            let mut values = port(*one);
            let test = match (values.pop(), values.is_empty()) {
                (Some(single), true) => Test::Is(single),
                (last, _) => Test::OneOf(values.into_iter().chain(last).map(|v| vec![v]).collect()),
            };
            condition(Field::Port(*one), test)
        }
        several if several.iter().all(whole) => {
            let protocols = several.iter().map(|p| vec![Value::Protocol(*p)]).collect();
            condition(Field::Protocol, Test::OneOf(protocols))
        }
        several => {
            let pairs = several.iter().flat_map(|&protocol| {
                port(protocol).into_iter().map(move |port| vec![Value::Protocol(protocol), port])
            });
            let fields = vec![Field::Protocol, Field::AnyPort];
            Match { fields, mask: None, test: Test::OneOf(pairs.collect()) }
        }
    };
    matches.push(vec![number]);
    matches
}
