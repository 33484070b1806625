//! The other side of every proof: what the policies say about a packet, straight from the model.
//!
//! Nothing here is shared with the compiler, the rule IR or a renderer, nor with `netpol_sim::reference`, to which a
//! property test holds it equal. It differs from the reference in being fast enough for every packet class of a node:
//! selections are evaluated once, and what applies to a pod is collected once.
//!
//! ```text
//! a packet passes    if the source's egress and the destination's ingress allow it, each if its pod is on this node (NP-14)
//! a pod and itself   pass (NP-73); so does neighbor discovery (NP-52)
//! else               Admin -> NetworkPolicy -> Baseline -> allowed (CNP-30)
//! ```

use crate::machine::{Packet, Path, Range, address_value};
use ipnet::IpNet;
use netpol_core::{
    Cluster, Direction, IpBlock, Labels, Match, NamespaceName, NamespaceSelection, NodeName,
    Operator, Options, OtherProtocols, OwnNodeEgress, Peer, Phase, Pod, PodSelection, Policy,
    PortEntry, Protocol, Selector, SourcePosition, Tier, TrafficMatch, Verdict,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

/// Where a managed pod stands in the specification.
pub(crate) type PodIndex = usize;

/// What the policies of a cluster say about packets on one node.
pub struct Specification<'a> {
    cluster: &'a Cluster,
    node: Option<NodeName>,
    options: Options,
    pods: Vec<&'a Pod>,
    local: Vec<bool>,
    local_pods: Vec<PodIndex>,
    /// The addresses of this node's pods with their owners, IPv4 and IPv6, ordered.
    local_owners: [Vec<(u128, PodIndex)>; 2],
    v4: BTreeMap<u128, PodIndex>,
    v6: BTreeMap<u128, PodIndex>,
    by_label: HashMap<(&'a str, &'a str), Vec<PodIndex>>,
    by_namespace: HashMap<&'a NamespaceName, Vec<PodIndex>>,
    /// The policies for pods of one namespace, by that.
    policies_in: HashMap<&'a NamespaceName, Vec<&'a Policy>>,
    /// Those for pods of any.
    policies_anywhere: Vec<&'a Policy>,
    selections: RefCell<HashMap<&'a PodSelection, Rc<Selected>>>,
    sides: RefCell<HashMap<(PodIndex, Direction), Rc<Side<'a>>>>,
}

impl fmt::Debug for Specification<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Specification").field("pods", &self.pods.len()).finish_non_exhaustive()
    }
}

/// The pods that a selection selects.
#[derive(Debug, Default)]
pub(crate) struct Selected {
    pub(crate) members: BTreeSet<PodIndex>,
    bits: Vec<u64>,
}

impl Selected {
    fn contains(&self, pod: PodIndex) -> bool {
        self.bits.get(pod / 64).is_some_and(|word| word >> (pod % 64) & 1 == 1)
    }
}

/// What applies to one pod in one direction.
#[derive(Debug)]
pub(crate) struct Side<'a> {
    subject: PodIndex,
    pub(crate) direction: Direction,
    pub(crate) admin: Vec<SpecRule<'a>>,
    /// The policies that isolate the pod, and their rules.
    pub(crate) isolating: Vec<&'a Policy>,
    pub(crate) allowing: Vec<SpecRule<'a>>,
    pub(crate) baseline: Vec<SpecRule<'a>>,
}

#[derive(Debug)]
pub(crate) struct SpecRule<'a> {
    pub(crate) peers: Option<Vec<SpecPeer>>,
    pub(crate) ports: Option<&'a [PortEntry]>,
    /// Do names of ports hold for peers that are no pods (NP-48), or not (CNP-16)?
    pub(crate) names_for_all: bool,
    pub(crate) verdict: Verdict,
    policy: &'a Policy,
    number: usize,
    source: Option<&'a SourcePosition>,
}

#[derive(Debug)]
pub(crate) enum SpecPeer {
    Pods(Rc<Selected>),
    Network(Block),
}

/// Addresses in a block and in none of its holes.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) v6: bool,
    pub(crate) block: (u128, u128),
    pub(crate) holes: Vec<(u128, u128)>,
}

impl Block {
    fn new(block: &IpBlock) -> Self {
        let v6 = matches!(block.cidr, IpNet::V6(_));
        let same = |hole: &&IpNet| matches!(hole, IpNet::V6(_)) == v6;
        Self {
            v6,
            block: ends(&block.cidr),
            holes: block.except.iter().filter(same).map(ends).collect(),
        }
    }

    /// One address.
    fn host(address: IpAddr) -> Self {
        let value = address_value(address);
        Self { v6: address.is_ipv6(), block: (value, value), holes: Vec::new() }
    }

    fn contains(&self, v6: bool, address: u128) -> bool {
        let within = |(first, last): (u128, u128)| first <= address && address <= last;
        self.v6 == v6 && within(self.block) && !self.holes.iter().any(|hole| within(*hole))
    }
}

/// The first and the last address of a network; host bits mean nothing (NP-36).
fn ends(net: &IpNet) -> (u128, u128) {
    let width: u32 = match net {
        IpNet::V4(_) => 32,
        IpNet::V6(_) => 128,
    };
    let free = width.saturating_sub(net.prefix_len().into());
    let hosts = 1u128.checked_shl(free).map_or(u128::MAX, |count| count - 1);
    let address = address_value(net.addr());
    (address & !hosts, address | hosts)
}

/// One direction of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) v6: bool,
    pub(crate) remote: Option<PodIndex>,
    pub(crate) remote_address: u128,
    pub(crate) destination: Option<PodIndex>,
    pub(crate) protocol: u8,
    pub(crate) first: u16,
    pub(crate) second: u16,
    pub(crate) own_node: bool,
}

/// What one side says, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decision<'s, 'a> {
    SamePod,
    NeighborDiscovery,
    OtherProtocol,
    OwnNode,
    Rule(&'s SpecRule<'a>, Direction),
    Isolated(&'s Side<'a>),
    NothingDenies,
}

impl Decision<'_, '_> {
    pub(crate) fn allowed(&self) -> bool {
        match self {
            Self::Rule(rule, _) => rule.verdict == Verdict::Allow,
            Self::Isolated(_) => false,
            _ => true,
        }
    }
}

impl fmt::Display for Decision<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SamePod => f.write_str("a pod always reaches itself (NP-73)"),
            Self::NeighborDiscovery => f.write_str("neighbor discovery is never policed (NP-52)"),
            Self::OtherProtocol => f.write_str("other protocols are not policed (option)"),
            Self::OwnNode => f.write_str("the other end is the pod's own node (NP-70)"),
            Self::NothingDenies => f.write_str("no policy denies it"),
            Self::Rule(rule, direction) => {
                let word = if self.allowed() { "allowed" } else { "denied" };
                write!(f, "{word} by {} {direction}[{}]", rule.policy.id(), rule.number)?;
                match rule.source {
                    Some(source) => write!(f, " ({source})"),
                    None => Ok(()),
                }
            }
            Self::Isolated(side) => {
                let names: Vec<String> =
                    side.isolating.iter().map(|policy| policy.id().to_string()).collect();
                write!(
                    f,
                    "isolated for {} by {}, and no rule of them matches",
                    side.direction,
                    names.join(", ")
                )
            }
        }
    }
}

/// What the policies say about a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Judgement {
    /// May it pass?
    pub allowed: bool,
    /// What each side that is on this node says, in words.
    pub reasons: Vec<String>,
}

impl<'a> Specification<'a> {
    /// What the policies of a cluster say for the pods of a node, or for all.
    #[must_use]
    pub fn new(cluster: &'a Cluster, node: Option<&NodeName>, options: Options) -> Self {
        let managed = |pod: &&Pod| {
            !pod.host_network() && matches!(pod.phase(), Phase::Pending | Phase::Running)
        };
        let pods: Vec<&Pod> = cluster.pods().filter(managed).collect();
        let local: Vec<bool> =
            pods.iter().map(|pod| node.is_none() || pod.node() == node).collect();
        let is_local = |pod: &PodIndex| local.get(*pod).copied().unwrap_or(false);
        let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
        let mut by_label: HashMap<_, Vec<PodIndex>> = HashMap::new();
        let mut by_namespace: HashMap<_, Vec<PodIndex>> = HashMap::new();
        // Of several that report an address: the running, the younger, then any fixed order (NP-93).
        let loses = |pod: &Pod, to: &Pod| {
            let claim = |pod: &Pod| (pod.phase() == Phase::Running, pod.created());
            (claim(pod), pod.uid(), pod.id()) < (claim(to), to.uid(), to.id())
        };
        for (index, pod) in pods.iter().enumerate() {
            by_namespace.entry(pod.id().namespace()).or_default().push(index);
            for label in pod.labels().iter() {
                by_label.entry(label).or_default().push(index);
            }
            for address in pod.addresses() {
                let owners = if address.is_ipv6() { &mut v6 } else { &mut v4 };
                let owner = owners.entry(address_value(*address)).or_insert(index);
                if pods.get(*owner).is_some_and(|other| loses(other, pod)) {
                    *owner = index;
                }
            }
        }
        let (mut policies_in, mut policies_anywhere) = (HashMap::<_, Vec<_>>::new(), Vec::new());
        for policy in cluster.policies() {
            match &policy.subject().namespaces {
                NamespaceSelection::Named(name) => {
                    policies_in.entry(name).or_default().push(policy);
                }
                NamespaceSelection::Matching(_) => policies_anywhere.push(policy),
            }
        }
        let local_owners = [&v4, &v6].map(|owners| {
            let owners = owners.iter().filter(|(_, pod)| is_local(pod));
            owners.map(|(address, pod)| (*address, *pod)).collect()
        });
        Self {
            cluster,
            node: node.cloned(),
            options,
            local_pods: (0..pods.len()).filter(is_local).collect(),
            pods,
            local,
            local_owners,
            v4,
            v6,
            by_label,
            by_namespace,
            policies_in,
            policies_anywhere,
            selections: RefCell::default(),
            sides: RefCell::default(),
        }
    }

    /// The node whose pods it is about; none: all.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        self.node.as_ref()
    }

    /// The options that it follows.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// All addresses of managed pods, with their owners.
    pub(crate) fn owners(&self, v6: bool) -> &BTreeMap<u128, PodIndex> {
        if v6 { &self.v6 } else { &self.v4 }
    }

    /// The addresses of this node's pods, with their owners, ordered.
    pub(crate) fn local_owners(&self, v6: bool) -> &[(u128, PodIndex)] {
        let [owners_v4, owners_v6] = &self.local_owners;
        if v6 { owners_v6 } else { owners_v4 }
    }

    /// The addresses that a pod owns.
    pub(crate) fn addresses(&self, pod: PodIndex, v6: bool) -> impl Iterator<Item = u128> {
        let all = self.pod(pod).into_iter().flat_map(Pod::addresses);
        let all = all.filter(move |address| address.is_ipv6() == v6);
        let owned = move |address: &u128| self.owners(v6).get(address) == Some(&pod);
        all.map(|address| address_value(*address)).filter(owned)
    }

    /// Where pods and the policies of these pods cut the addresses of a family.
    pub(crate) fn cuts(&self, pods: &[PodIndex], v6: bool) -> Vec<Range> {
        let mut cuts: Vec<Range> = self.owners(v6).keys().map(|a| Range::one(*a)).collect();
        for &pod in pods {
            for direction in Direction::ALL {
                let side = self.side(pod, direction);
                let peers = side.rules().flat_map(|rule| rule.peers.iter().flatten());
                for peer in peers {
                    if let SpecPeer::Network(block) = peer
                        && block.v6 == v6
                    {
                        let ends = std::iter::once(&block.block).chain(&block.holes);
                        cuts.extend(ends.map(|&(first, last)| Range { first, last }));
                    }
                }
            }
        }
        cuts
    }

    pub(crate) fn is_local(&self, pod: PodIndex) -> bool {
        self.local.get(pod).copied().unwrap_or(false)
    }

    pub(crate) fn pod(&self, index: PodIndex) -> Option<&'a Pod> {
        self.pods.get(index).copied()
    }

    /// The pods of this node.
    pub(crate) fn local_pods(&self) -> impl Iterator<Item = PodIndex> {
        self.local_pods.iter().copied()
    }

    /// May a packet pass that takes this way, and why?
    #[must_use]
    pub fn judge(&self, packet: &Packet, path: Path) -> Judgement {
        let owners = self.owners(packet.v6);
        let source = owners.get(&packet.source).copied();
        let destination = owners.get(&packet.destination).copied();
        let mut judgement = Judgement { allowed: true, reasons: Vec::new() };
        let local = |pod: &PodIndex| self.is_local(*pod);
        let sides = [
            (Direction::Egress, source.filter(local), destination, packet.destination),
            (Direction::Ingress, destination.filter(local), source, packet.source),
        ];
        for (direction, subject, remote, remote_address) in sides {
            let asked = match path {
                Path::Forward => true,
                Path::ToNode => direction == Direction::Egress,
                Path::FromNode => direction == Direction::Ingress,
                Path::Arrival => false,
            };
            let Some(subject) = subject.filter(|_| asked) else { continue };
            let side = self.side(subject, direction);
            let decision = self.decide(
                &side,
                &Question {
                    v6: packet.v6,
                    remote,
                    remote_address,
                    destination,
                    protocol: packet.protocol,
                    first: packet.first,
                    second: packet.second,
                    own_node: path != Path::Forward,
                },
            );
            judgement.allowed &= decision.allowed();
            let name = self.pod(subject).map(|pod| pod.id().to_string()).unwrap_or_default();
            judgement.reasons.push(format!("{direction} of {name}: {decision}"));
        }
        if judgement.reasons.is_empty() {
            judgement.reasons.push("no pod of this node is an end of it".to_owned());
        }
        judgement
    }

    /// What one side says.
    pub(crate) fn decide<'s>(&self, side: &'s Side<'a>, question: &Question) -> Decision<'s, 'a> {
        if question.remote == Some(side.subject) {
            return Decision::SamePod;
        }
        let icmpv6 = question.v6 && question.protocol == 58;
        if icmpv6 && matches!(question.first >> 8, 133..=137) {
            return Decision::NeighborDiscovery;
        }
        let other = port_protocol(question.protocol).is_none();
        if other && self.options.other_protocols() == OtherProtocols::Allow {
            return Decision::OtherProtocol;
        }
        match self.first_match(&side.admin, question) {
            Some(rule) if rule.verdict == Verdict::Pass => {}
            Some(rule) => return Decision::Rule(rule, side.direction),
            None => {}
        }
        if !side.isolating.is_empty() {
            let exempt = question.own_node
                && question.remote.is_none()
                && (side.direction == Direction::Ingress
                    || self.options.own_node_egress() == OwnNodeEgress::Allow);
            if exempt {
                return Decision::OwnNode;
            }
            return match self.first_match(&side.allowing, question) {
                Some(rule) => Decision::Rule(rule, side.direction),
                None => Decision::Isolated(side),
            };
        }
        match self.first_match(&side.baseline, question) {
            Some(rule) if rule.verdict != Verdict::Pass => Decision::Rule(rule, side.direction),
            _ => Decision::NothingDenies,
        }
    }

    fn first_match<'s>(
        &self,
        rules: &'s [SpecRule<'a>],
        question: &Question,
    ) -> Option<&'s SpecRule<'a>> {
        rules.iter().find(|rule| self.matches(rule, question))
    }

    fn matches(&self, rule: &SpecRule<'a>, question: &Question) -> bool {
        let Some(peers) = &rule.peers else { return self.port_matches(rule, true, question) };
        peers.iter().any(|peer| {
            let (remote, is_pods) = match peer {
                SpecPeer::Pods(pods) => {
                    (question.remote.is_some_and(|pod| pods.contains(pod)), true)
                }
                SpecPeer::Network(block) => {
                    (block.contains(question.v6, question.remote_address), false)
                }
            };
            remote && self.port_matches(rule, is_pods || rule.names_for_all, question)
        })
    }

    fn port_matches(&self, rule: &SpecRule<'a>, by_name: bool, question: &Question) -> bool {
        let Some(ports) = rule.ports else { return true };
        let Some(protocol) = port_protocol(question.protocol) else { return false };
        ports.iter().any(|entry| match entry {
            PortEntry::Protocol(wanted) => *wanted == protocol,
            PortEntry::Range { protocol: wanted, first, last } => {
                *wanted == protocol && *first <= question.second && question.second <= *last
            }
            PortEntry::Named { protocol: wanted, name } => {
                let pod = question.destination.and_then(|pod| self.pod(pod));
                by_name
                    && *wanted == protocol
                    && pod.is_some_and(|pod| {
                        pod.ports().iter().any(|port| {
                            port.name == *name
                                && port.protocol == protocol
                                && port.port == question.second
                        })
                    })
            }
            _ => false,
        })
    }

    /// What applies to a pod in a direction.
    pub(crate) fn side(&self, subject: PodIndex, direction: Direction) -> Rc<Side<'a>> {
        if let Some(side) = self.sides.borrow().get(&(subject, direction)) {
            return Rc::clone(side);
        }
        let mut side = Side {
            subject,
            direction,
            admin: Vec::new(),
            isolating: Vec::new(),
            allowing: Vec::new(),
            baseline: Vec::new(),
        };
        if let Some(pod) = self.pod(subject) {
            let here = self.policies_in.get(pod.id().namespace()).into_iter().flatten();
            let mut policies: Vec<&'a Policy> = here
                .chain(&self.policies_anywhere)
                .copied()
                .filter(|policy| policy.rules(direction).is_some())
                .filter(|policy| self.selects(policy.subject(), pod))
                .collect();
            // CNP-31, CNP-32.
            policies.sort_by_key(|policy| (policy.priority(), &policy.id().name));
            for policy in policies {
                let rules = policy.rules(direction).unwrap_or_default().iter().enumerate();
                let rules = rules.map(|(number, rule)| {
                    let rule = self.rule(policy, number, &rule.matches, rule.verdict);
                    let names_for_all =
                        policy.tier() == Tier::NetworkPolicy || direction == Direction::Ingress;
                    SpecRule { names_for_all, ..rule }
                });
                match policy.tier() {
                    Tier::Admin => side.admin.extend(rules),
                    Tier::Baseline => side.baseline.extend(rules),
                    Tier::NetworkPolicy => {
                        side.allowing.extend(rules);
                        side.isolating.push(policy);
                    }
                }
            }
        }
        let side = Rc::new(side);
        self.sides.borrow_mut().insert((subject, direction), Rc::clone(&side));
        side
    }

    fn rule(
        &self,
        policy: &'a Policy,
        number: usize,
        matches: &'a TrafficMatch,
        verdict: Verdict,
    ) -> SpecRule<'a> {
        let peers = match &matches.peers {
            Match::Any => None,
            Match::OneOf(peers) => Some(
                peers
                    .iter()
                    .flat_map(|peer| match peer {
                        Peer::Pods(selection) => vec![SpecPeer::Pods(self.selected(selection))],
                        Peer::Network(block) => vec![SpecPeer::Network(Block::new(block))],
                        // CNP-18: the addresses of nodes, whoever has them.
                        Peer::Nodes(selector) => {
                            let nodes = self.cluster.nodes();
                            let nodes = nodes.filter(|node| fulfills(selector, node.labels()));
                            let addresses = nodes.flat_map(|node| node.addresses());
                            addresses.map(|a| SpecPeer::Network(Block::host(*a))).collect()
                        }
                        // A kind of peer that this version does not know matches nothing.
                        _ => Vec::new(),
                    })
                    .collect(),
            ),
        };
        let ports = match &matches.ports {
            Match::Any => None,
            Match::OneOf(ports) => Some(ports.as_slice()),
        };
        let source = matches.source.as_ref();
        SpecRule { peers, ports, names_for_all: true, verdict, policy, number, source }
    }

    fn selected(&self, selection: &'a PodSelection) -> Rc<Selected> {
        if let Some(selected) = self.selections.borrow().get(selection) {
            return Rc::clone(selected);
        }
        // Few pods carry a value that is asked for; only those are looked at.
        let asked = selection.pods.requirements().iter().find_map(|requirement| {
            let Operator::In(values) = requirement.operator() else { return None };
            Some(values.iter().map(move |value| (requirement.key(), &**value)))
        });
        let carrying: Option<Vec<&Vec<PodIndex>>> =
            asked.map(|labels| labels.filter_map(|label| self.by_label.get(&label)).collect());
        // Or few pods are in the namespaces that are asked for.
        let within: Vec<&Vec<PodIndex>> = match &selection.namespaces {
            NamespaceSelection::Named(name) => self.by_namespace.get(name).into_iter().collect(),
            namespaces @ NamespaceSelection::Matching(_) => {
                let all = self.by_namespace.iter();
                all.filter(|(name, _)| self.selects_namespace(namespaces, name))
                    .map(|(_, pods)| pods)
                    .collect()
            }
        };
        let count =
            |lists: &Vec<&Vec<PodIndex>>| lists.iter().map(|list| list.len()).sum::<usize>();
        let fewer = carrying.filter(|lists| count(lists) < count(&within));
        let candidates = fewer.unwrap_or(within).into_iter().flatten().copied();
        let is_member = |pod: &PodIndex| self.pod(*pod).is_some_and(|p| self.selects(selection, p));
        let members: BTreeSet<PodIndex> = candidates.filter(is_member).collect();
        let mut bits = vec![0u64; self.pods.len().div_ceil(64)];
        for pod in &members {
            if let Some(word) = bits.get_mut(pod / 64) {
                *word |= 1 << (pod % 64);
            }
        }
        let selected = Rc::new(Selected { members, bits });
        self.selections.borrow_mut().insert(selection, Rc::clone(&selected));
        selected
    }

    fn selects(&self, selection: &PodSelection, pod: &Pod) -> bool {
        self.selects_namespace(&selection.namespaces, pod.id().namespace())
            && fulfills(&selection.pods, pod.labels())
    }

    fn selects_namespace(&self, selection: &NamespaceSelection, name: &NamespaceName) -> bool {
        match selection {
            NamespaceSelection::Named(asked) => name == asked,
            // NP-26: a namespace whose object is not known is never selected by label.
            NamespaceSelection::Matching(selector) => self
                .cluster
                .namespace(name)
                .is_some_and(|namespace| fulfills(selector, namespace.labels())),
        }
    }
}

/// TCP, UDP and SCTP, by number.
pub(crate) fn port_protocol(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        132 => Some(Protocol::Sctp),
        _ => None,
    }
}

/// Do labels fulfill all requirements (NP-20, NP-21)?
fn fulfills(selector: &Selector, labels: &Labels) -> bool {
    selector.requirements().iter().all(|requirement| {
        let value = labels.value(requirement.key());
        match (requirement.operator(), value) {
            (Operator::In(values), Some(value)) => values.contains(value),
            (Operator::NotIn(values), Some(value)) => !values.contains(value),
            (Operator::Exists, Some(_)) => true,
            (Operator::NotIn(_) | Operator::DoesNotExist, None) => true,
            (Operator::In(_) | Operator::Exists, None) => false,
            (Operator::DoesNotExist, Some(_)) => false,
        }
    })
}

impl<'a> Side<'a> {
    pub(crate) fn subject(&self) -> PodIndex {
        self.subject
    }

    /// All rules that could speak about a packet of this pod.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &SpecRule<'a>> {
        self.admin.iter().chain(&self.allowing).chain(&self.baseline)
    }
}
