//! What applies to a pod: its rules with their peers, and which pods a selection selects.

use super::{PodIndex, Specification};
use crate::machine::address_value;
use ipnet::IpNet;
use netpol_core::{
    Direction, IpBlock, Labels, Match, NamespaceName, NamespaceSelection, Operator, Peer, Pod,
    PodSelection, Policy, PortEntry, Selector, SourcePosition, Tier, TrafficMatch, Verdict,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;

/// The pods that a selection selects.
#[derive(Debug, Default)]
pub(crate) struct Selected {
    pub(crate) members: BTreeSet<PodIndex>,
    bits: Vec<u64>,
}

impl Selected {
    pub(super) fn contains(&self, pod: PodIndex) -> bool {
        self.bits.get(pod / 64).is_some_and(|word| word >> (pod % 64) & 1 == 1)
    }
}

/// What applies to one pod in one direction.
#[derive(Debug)]
pub(crate) struct Side<'a> {
    pub(super) subject: PodIndex,
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
    pub(super) policy: &'a Policy,
    pub(super) number: usize,
    pub(super) source: Option<&'a SourcePosition>,
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

    pub(super) fn contains(&self, v6: bool, address: u128) -> bool {
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

impl<'a> Side<'a> {
    pub(crate) fn subject(&self) -> PodIndex {
        self.subject
    }

    /// All rules that could speak about a packet of this pod.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &SpecRule<'a>> {
        self.admin.iter().chain(&self.allowing).chain(&self.baseline)
    }
}

impl<'a> Specification<'a> {
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
