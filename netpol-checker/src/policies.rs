//! What the policies say of whole classes of packets, straight from the model of the cluster.
//!
//! As in docs/semantics.md: a side says the same of all packets of a class, or it is an error.

use crate::Setting;
use crate::class::{Class, SetId, Tests, any, both};
use crate::format::Choices;
use crate::list::{Interval, address, device, normal, without};
use netpol_core::{
    Cluster, Direction, IpBlock, Labels, Match, NamespaceSelection, Operator, Peer, Phase, Pod,
    PodSelection, Policy, PortEntry, Protocol, Selector, Tier, TrafficMatch, Verdict,
};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// A pod that policies apply to: where it stands.
pub(crate) type PodIndex = usize;

/// The cluster, as far as packets of a node are concerned.
pub(crate) struct World<'a> {
    cluster: &'a Cluster,
    pub(crate) choices: Choices,
    /// Neither on the host network (NP-80) nor finished (NP-91).
    pods: Vec<&'a Pod>,
    local: Vec<bool>,
    /// Who owns an address, by family.
    owners: [BTreeMap<u128, PodIndex>; 2],
    /// The devices of local pods, as far as they were given.
    pub(crate) given: BTreeMap<PodIndex, u128>,
    selections: HashMap<(&'a PodSelection, bool), SetId>,
    sides: HashMap<(PodIndex, Direction, bool), Rc<Side>>,
}

/// What applies to a pod in one direction and family.
pub(crate) struct Side {
    own: SetId,
    admin: Vec<Rule>,
    isolated: bool,
    allowing: Vec<Rule>,
    baseline: Vec<Rule>,
}

struct Rule {
    name: String,
    /// The addresses of each peer, and whether names of ports hold for it.
    peers: Option<Vec<(SetId, bool)>>,
    ports: Option<Vec<Port>>,
    verdict: Verdict,
}

enum Port {
    Range(u128, u128, u128),
    /// A named port: of a protocol, the numbers that stand for it, and for which destinations.
    Named(u128, Vec<(u16, Option<SetId>)>),
}

/// One direction of a class of packets.
#[derive(Clone, Copy)]
pub(crate) struct Remote {
    pub(crate) address: Class,
    pub(crate) protocol: Class,
    pub(crate) first: Class,
    pub(crate) second: Class,
    /// Is the other end the pod's own node, and exempt from NetworkPolicies (NP-70, NP-71)?
    pub(crate) exempt: bool,
}

impl<'a> World<'a> {
    pub(crate) fn new(setting: &Setting<'a>) -> Self {
        let managed = |pod: &&Pod| !pod.host_network() && pod.phase() != Phase::Finished;
        let pods: Vec<&Pod> = setting.cluster.pods().filter(managed).collect();
        let is_local = |pod: &&Pod| setting.node.is_none() || pod.node() == setting.node;
        let local: Vec<bool> = pods.iter().map(is_local).collect();
        let mut owners: [BTreeMap<u128, PodIndex>; 2] = Default::default();
        // NP-93: of several that report an address the running one has it, then the younger, then any fixed one.
        let claim = |pod: &Pod| {
            let id = (pod.uid().map(str::to_owned), pod.id().clone());
            (pod.phase() == Phase::Running, pod.created(), id)
        };
        for (index, pod) in pods.iter().enumerate() {
            for reported in pod.addresses() {
                let [v4, v6] = &mut owners;
                let family = if reported.is_ipv6() { v6 } else { v4 };
                let owner = family.entry(address(*reported)).or_insert(index);
                if pods.get(*owner).is_some_and(|other| claim(other) < claim(pod)) {
                    *owner = index;
                }
            }
        }
        let given = pods.iter().enumerate().filter(|(index, _)| local.get(*index) == Some(&true));
        let given = given.filter_map(|(index, pod)| {
            let name = setting.interfaces.get(pod.id()).map(String::as_str);
            Some((index, device(name.or_else(|| Some(pod.interface()?.as_str()))?)?))
        });
        let given = given.collect();
        let choices = setting.options.into();
        let (selections, sides) = (HashMap::new(), HashMap::new());
        Self { cluster: setting.cluster, choices, pods, local, owners, given, selections, sides }
    }

    pub(crate) fn name(&self, pod: PodIndex) -> String {
        self.pods.get(pod).map(|pod| pod.id().to_string()).unwrap_or_default()
    }

    pub(crate) fn is_local(&self, pod: PodIndex) -> bool {
        self.local.get(pod) == Some(&true)
    }

    pub(crate) fn local_pods(&self) -> impl Iterator<Item = PodIndex> {
        (0..self.pods.len()).filter(|pod| self.is_local(*pod))
    }

    pub(crate) fn owners(&self, v6: bool) -> &BTreeMap<u128, PodIndex> {
        let [of_v4, of_v6] = &self.owners;
        if v6 { of_v6 } else { of_v4 }
    }

    /// The addresses whose owner is so.
    pub(crate) fn owned(&self, v6: bool, by: impl Fn(PodIndex) -> bool) -> Vec<Interval> {
        let owned = self.owners(v6).iter().filter(|(_, pod)| by(**pod));
        normal(owned.map(|(address, _)| Interval::one(*address)).collect())
    }

    /// What applies to a pod.
    pub(crate) fn side(
        &mut self,
        tests: &mut Tests,
        pod: PodIndex,
        direction: Direction,
        v6: bool,
    ) -> Rc<Side> {
        if let Some(side) = self.sides.get(&(pod, direction, v6)) {
            return Rc::clone(side);
        }
        let own = tests.set(self.owned(v6, |other| other == pod));
        let mut side = Side {
            own,
            admin: Vec::new(),
            isolated: false,
            allowing: Vec::new(),
            baseline: Vec::new(),
        };
        let applies = |policy: &&Policy| {
            policy.rules(direction).is_some()
                && self
                    .pods
                    .get(pod)
                    .is_some_and(|pod| selects(self.cluster, policy.subject(), pod))
        };
        let mut policies: Vec<&'a Policy> = self.cluster.policies().filter(applies).collect();
        // CNP-31, CNP-32.
        policies.sort_by_key(|policy| (policy.priority(), policy.id().name.clone()));
        for policy in policies {
            for (number, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
                // CNP-16: in the cluster-wide tiers names of ports are for pods alone, in egress.
                let names = policy.tier() == Tier::NetworkPolicy || direction == Direction::Ingress;
                let rule = Rule {
                    name: format!("{} {direction}[{number}]", policy.id()),
                    peers: self.peers(tests, &rule.matches, names, v6),
                    ports: self.ports(tests, &rule.matches, (pod, direction, v6)),
                    verdict: rule.verdict,
                };
                match policy.tier() {
                    Tier::Admin => side.admin.push(rule),
                    Tier::NetworkPolicy => side.allowing.push(rule),
                    Tier::Baseline => side.baseline.push(rule),
                }
            }
            side.isolated |= policy.tier() == Tier::NetworkPolicy;
        }
        let side = Rc::new(side);
        self.sides.insert((pod, direction, v6), Rc::clone(&side));
        side
    }

    fn peers(
        &mut self,
        tests: &mut Tests,
        matches: &'a TrafficMatch,
        names: bool,
        v6: bool,
    ) -> Option<Vec<(SetId, bool)>> {
        let Match::OneOf(peers) = &matches.peers else { return None };
        let mut sets = Vec::new();
        for peer in peers {
            sets.push(match peer {
                Peer::Pods(selection) => (self.selected(tests, selection, v6), true),
                Peer::Network(block) => (tests.set(addresses(block, v6)), names),
                // CNP-18: the addresses of nodes, whoever has them.
                Peer::Nodes(selector) => {
                    let nodes =
                        self.cluster.nodes().filter(|node| fulfills(selector, node.labels()));
                    let all = nodes.flat_map(|node| node.addresses()).filter(|a| a.is_ipv6() == v6);
                    (tests.set(all.map(|a| Interval::one(address(*a))).collect()), names)
                }
                // What this version does not know matches nothing.
                _ => continue,
            });
        }
        Some(sets)
    }

    /// The addresses that selected pods own.
    fn selected(&mut self, tests: &mut Tests, selection: &'a PodSelection, v6: bool) -> SetId {
        if let Some(set) = self.selections.get(&(selection, v6)) {
            return *set;
        }
        let is_selected = |pod: PodIndex| {
            self.pods.get(pod).is_some_and(|pod| selects(self.cluster, selection, pod))
        };
        let set = tests.set(self.owned(v6, is_selected));
        self.selections.insert((selection, v6), set);
        set
    }

    fn ports(
        &self,
        tests: &mut Tests,
        matches: &TrafficMatch,
        side: (PodIndex, Direction, bool),
    ) -> Option<Vec<Port>> {
        let Match::OneOf(entries) = &matches.ports else { return None };
        let mut ports = Vec::new();
        for entry in entries {
            ports.push(match entry {
                PortEntry::Protocol(protocol) => Port::Range(number(*protocol), 0, 0xffff),
                PortEntry::Range { protocol, first, last } => {
                    Port::Range(number(*protocol), (*first).into(), (*last).into())
                }
                PortEntry::Named { protocol, name } => {
                    let (subject, direction, v6) = side;
                    let called = |pod: PodIndex| {
                        let ports = self.pods.get(pod).into_iter().flat_map(|pod| pod.ports());
                        ports.filter(|p| p.name == *name && p.protocol == *protocol).map(|p| p.port)
                    };
                    // The destination says what the name means (NP-42): the pod itself, or the remote end.
                    let numbers = if direction == Direction::Ingress {
                        called(subject).map(|port| (port, None)).collect()
                    } else {
                        let mut by_number: BTreeMap<u16, Vec<Interval>> = BTreeMap::new();
                        for (address, owner) in self.owners(v6) {
                            for port in called(*owner) {
                                by_number.entry(port).or_default().push(Interval::one(*address));
                            }
                        }
                        by_number
                            .into_iter()
                            .map(|(port, at)| (port, Some(tests.set(at))))
                            .collect()
                    };
                    Port::Named(number(*protocol), numbers)
                }
                _ => continue,
            });
        }
        Some(ports)
    }

    /// May these packets pass, as far as one side is concerned?
    pub(crate) fn allows(
        &self,
        tests: &mut Tests,
        side: &Side,
        v6: bool,
        remote: &Remote,
    ) -> Result<bool, String> {
        let mixed = |what: &str| format!("{what} for some of them only");
        // NP-73: a pod reaches itself.
        if tests
            .ask(&[remote.address], side.own)
            .ok_or_else(|| mixed("the remote end is the pod itself"))?
        {
            return Ok(true);
        }
        // NP-52: neighbor discovery.
        let icmpv6 = tests.between(remote.protocol, 58, 58);
        let discovery = both(icmpv6, || tests.between(remote.first, 133 << 8, 137 << 8 | 0xff));
        if v6 && discovery.ok_or_else(|| mixed("it is neighbor discovery"))? {
            return Ok(true);
        }
        // NP-51: other protocols.
        if self.choices.other_protocols_pass {
            let known = tests.set(Protocol::ALL.map(|p| Interval::one(number(p))).to_vec());
            if !tests
                .ask(&[remote.protocol], known)
                .ok_or_else(|| mixed("the protocol has ports"))?
            {
                return Ok(true);
            }
        }
        // CNP-30: Admin, NetworkPolicy, Baseline.
        match first_match(tests, &side.admin, remote)? {
            Some(Verdict::Allow) => return Ok(true),
            Some(Verdict::Deny) => return Ok(false),
            Some(Verdict::Pass) | None => {}
        }
        if side.isolated {
            return Ok(remote.exempt || first_match(tests, &side.allowing, remote)?.is_some());
        }
        Ok(first_match(tests, &side.baseline, remote)? != Some(Verdict::Deny))
    }
}

fn first_match(
    tests: &mut Tests,
    rules: &[Rule],
    remote: &Remote,
) -> Result<Option<Verdict>, String> {
    for rule in rules {
        let matches = match &rule.peers {
            None => ports_match(tests, rule, true, remote),
            Some(peers) => any(peers.iter().map(|(set, names)| {
                let is_peer = tests.ask(&[remote.address], *set);
                both(is_peer, || ports_match(tests, rule, *names, remote))
            })),
        };
        if matches.ok_or_else(|| format!("{} matches some of them only", rule.name))? {
            return Ok(Some(rule.verdict));
        }
    }
    Ok(None)
}

fn ports_match(tests: &mut Tests, rule: &Rule, names: bool, remote: &Remote) -> Option<bool> {
    let Some(ports) = &rule.ports else { return Some(true) };
    any(ports.iter().map(|port| match port {
        Port::Range(_, first, last) if first > last => Some(false),
        Port::Range(protocol, first, last) => {
            let protocol = tests.between(remote.protocol, *protocol, *protocol);
            both(protocol, || tests.between(remote.second, *first, *last))
        }
        Port::Named(..) if !names => Some(false),
        Port::Named(protocol, numbers) => {
            let protocol = tests.between(remote.protocol, *protocol, *protocol);
            both(protocol, || {
                any(numbers.iter().map(|(port, at)| {
                    let here = at.map_or(Some(true), |set| tests.ask(&[remote.address], set));
                    both(here, || tests.between(remote.second, (*port).into(), (*port).into()))
                }))
            })
        }
    }))
}

fn number(protocol: Protocol) -> u128 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// The addresses of a block without its holes; host bits mean nothing (NP-36).
fn addresses(block: &IpBlock, v6: bool) -> Vec<Interval> {
    let ends = |at: std::net::IpAddr, length: u8| {
        let width = if at.is_ipv6() { 128u32 } else { 32 };
        let free = width.saturating_sub(length.into());
        let hosts = 1u128.checked_shl(free).map_or(u128::MAX, |count| count - 1);
        Interval::new(address(at) & !hosts, address(at) | hosts)
    };
    if block.cidr.addr().is_ipv6() != v6 {
        return Vec::new();
    }
    let holes = block.except.iter().filter(|hole| hole.addr().is_ipv6() == v6);
    let holes = holes.map(|hole| ends(hole.addr(), hole.prefix_len())).collect();
    without(ends(block.cidr.addr(), block.cidr.prefix_len()), &normal(holes))
}

fn selects(cluster: &Cluster, selection: &PodSelection, pod: &Pod) -> bool {
    let in_namespace = match &selection.namespaces {
        NamespaceSelection::Named(name) => pod.id().namespace() == name,
        // NP-26: a namespace that is not known is not selected by labels.
        NamespaceSelection::Matching(selector) => {
            let namespace = cluster.namespace(pod.id().namespace());
            namespace.is_some_and(|namespace| fulfills(selector, namespace.labels()))
        }
    };
    in_namespace && fulfills(&selection.pods, pod.labels())
}

/// NP-20, NP-21: every requirement holds.
fn fulfills(selector: &Selector, labels: &Labels) -> bool {
    selector.requirements().iter().all(|requirement| {
        match (requirement.operator(), labels.value(requirement.key())) {
            (Operator::In(values), value) => value.is_some_and(|value| values.contains(value)),
            (Operator::NotIn(values), value) => !value.is_some_and(|value| values.contains(value)),
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
        }
    })
}
