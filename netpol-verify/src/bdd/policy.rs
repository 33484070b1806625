//! The policies' side: the packets that one side of a connection allows.
//!
//! Which pods a selector selects and which addresses a block has is the specification's; what follows from tiers, peers and
//! ports is put together here once more, as sets.

use super::diagram::{Diagram, Diagrams};
use super::packets::{FIRST, PROTOCOL, SECOND, Value};
use crate::machine::Range;
use crate::specification::{Block, PodIndex, Selected, Side, SpecPeer, SpecRule, Specification};
use netpol_core::{
    Direction, OtherProtocols, OwnNodeEgress, PortEntry, PortName, Protocol, Verdict,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// What the policies say, of one family.
pub(super) struct Policies<'p, 'a> {
    specification: &'p Specification<'a>,
    diagrams: &'p Diagrams,
    v6: bool,
    /// The addresses that each pod owns.
    addresses: HashMap<PodIndex, Vec<Range>>,
    /// The addresses of selected pods, by where the selection is in memory, and the variables.
    selected: RefCell<HashMap<(usize, Value), Diagram>>,
    /// Destinations with a port of a name, and its number.
    named: RefCell<HashMap<(Protocol, PortName, Value), Diagram>>,
}

/// The other end of a packet, as one side sees it.
#[derive(Clone, Copy)]
pub(super) struct Remote {
    pub(super) address: Value,
    /// Is it, or one like it, the pod's own node (NP-70, NP-71)?
    pub(super) own_node: bool,
}

impl<'p, 'a> Policies<'p, 'a> {
    pub(super) fn new(
        specification: &'p Specification<'a>,
        diagrams: &'p Diagrams,
        v6: bool,
    ) -> Self {
        let mut addresses: HashMap<PodIndex, Vec<Range>> = HashMap::new();
        for (address, pod) in specification.owners(v6) {
            addresses.entry(*pod).or_default().push(Range::one(*address));
        }
        Self {
            specification,
            diagrams,
            v6,
            addresses,
            selected: RefCell::default(),
            named: RefCell::default(),
        }
    }

    /// The packets that the policies of a pod allow in a direction.
    pub(super) fn allowed(&self, side: &Side<'a>, remote: Remote) -> Diagram {
        let diagrams = self.diagrams;
        let options = self.specification.options();
        let own = self.addresses_of(std::iter::once(side.subject()));
        let mut always = self.remote_in(remote, &own);
        if self.v6 {
            let kinds = Range::new(133u16 << 8, 137u16 << 8 | 0xff);
            let discovery = diagrams.within(FIRST, &[kinds]);
            let discovery = diagrams.and(&diagrams.point(PROTOCOL, 58u8), &discovery);
            always = diagrams.or(&always, &discovery);
        }
        if options.other_protocols() == OtherProtocols::Allow {
            let numbers = Protocol::ALL.map(|protocol| Range::one(protocol.number()));
            let others = diagrams.not(&diagrams.within(PROTOCOL, &numbers));
            always = diagrams.or(&always, &others);
        }
        let [allows, denies] = self.first_matches(side, &side.admin, remote);
        // What Admin passes on is judged like what it does not match.
        let rest = if !side.isolating.is_empty() {
            let [allowed, _] = self.first_matches(side, &side.allowing, remote);
            let exempt = remote.own_node
                && (side.direction == Direction::Ingress
                    || options.own_node_egress() == OwnNodeEgress::Allow);
            let exempt = match (exempt, remote.address) {
                (false, _) => diagrams.none(),
                (true, Value::Is(address)) => {
                    let owned = self.specification.owners(self.v6).contains_key(&address);
                    diagrams.constant(!owned)
                }
                (true, _) => {
                    let pods = self.specification.owners(self.v6).keys();
                    let pods: Vec<Range> = pods.map(|address| Range::one(*address)).collect();
                    diagrams.not(&self.remote_in(remote, &pods))
                }
            };
            diagrams.or(&exempt, &allowed)
        } else {
            let [_, denied] = self.first_matches(side, &side.baseline, remote);
            diagrams.not(&denied)
        };
        let judged = diagrams.or(&allows, &diagrams.minus(&rest, &denies));
        diagrams.or(&always, &judged)
    }

    fn addresses_of(&self, pods: impl Iterator<Item = PodIndex>) -> Vec<Range> {
        pods.filter_map(|pod| self.addresses.get(&pod)).flatten().copied().collect()
    }

    fn remote_in(&self, remote: Remote, ranges: &[Range]) -> Diagram {
        match remote.address {
            Value::Is(address) => {
                self.diagrams.constant(ranges.iter().any(|range| range.contains(address)))
            }
            Value::In(block) => self.diagrams.within(block, ranges),
            Value::Missing => self.diagrams.none(),
        }
    }

    /// The packets whose first matching rule allows, and those whose denies; others are passed on, or match none.
    fn first_matches(
        &self,
        side: &Side<'a>,
        rules: &[SpecRule<'a>],
        remote: Remote,
    ) -> [Diagram; 2] {
        let diagrams = self.diagrams;
        let (mut allowed, mut denied) = (diagrams.none(), diagrams.none());
        let mut before = diagrams.none();
        for rule in rules {
            let matched = self.matched(side, rule, remote);
            let first = diagrams.minus(&matched, &before);
            before = diagrams.or(&before, &matched);
            match rule.verdict {
                Verdict::Allow => allowed = diagrams.or(&allowed, &first),
                Verdict::Deny => denied = diagrams.or(&denied, &first),
                Verdict::Pass => {}
            }
        }
        [allowed, denied]
    }

    fn matched(&self, side: &Side<'a>, rule: &SpecRule<'a>, remote: Remote) -> Diagram {
        let diagrams = self.diagrams;
        let Some(peers) = &rule.peers else { return self.ports(side, rule, true, remote) };
        // Pods and networks differ in what names of ports mean.
        let (mut pods, mut networks) = (diagrams.none(), diagrams.none());
        for peer in peers {
            match peer {
                SpecPeer::Pods(selected) => {
                    pods = diagrams.or(&pods, &self.selected(selected, remote));
                }
                SpecPeer::Network(block) if block.v6 == self.v6 => {
                    networks = diagrams.or(&networks, &self.network(block, remote));
                }
                SpecPeer::Network(_) => {}
            }
        }
        let mut matched = diagrams.none();
        for (peers, by_name) in [(pods, true), (networks, rule.names_for_all)] {
            if !diagrams.is_none(&peers) {
                let ports = self.ports(side, rule, by_name, remote);
                matched = diagrams.or(&matched, &diagrams.and(&peers, &ports));
            }
        }
        matched
    }

    fn selected(&self, selected: &Rc<Selected>, remote: Remote) -> Diagram {
        if let Value::Is(address) = remote.address {
            let owner = self.specification.owners(self.v6).get(&address);
            return self.diagrams.constant(owner.is_some_and(|p| selected.members.contains(p)));
        }
        let key = (Rc::as_ptr(selected).addr(), remote.address);
        if let Some(known) = self.selected.borrow().get(&key) {
            return known.clone();
        }
        let addresses = self.addresses_of(selected.members.iter().copied());
        let made = self.remote_in(remote, &addresses);
        self.selected.borrow_mut().insert(key, made.clone());
        made
    }

    fn network(&self, block: &Block, remote: Remote) -> Diagram {
        let range = |&(first, last): &(u128, u128)| Range { first, last };
        let within = self.remote_in(remote, &[range(&block.block)]);
        let holes: Vec<Range> = block.holes.iter().map(range).collect();
        self.diagrams.minus(&within, &self.remote_in(remote, &holes))
    }

    /// The packets with the protocols and ports of a rule.
    fn ports(
        &self,
        side: &Side<'a>,
        rule: &SpecRule<'a>,
        by_name: bool,
        remote: Remote,
    ) -> Diagram {
        let diagrams = self.diagrams;
        let Some(entries) = rule.ports else { return diagrams.all() };
        let mut found = diagrams.none();
        for entry in entries {
            let (protocol, ports) = match entry {
                PortEntry::Protocol(protocol) => (*protocol, diagrams.all()),
                PortEntry::Range { protocol, first, last } => {
                    (*protocol, diagrams.within(SECOND, &[Range::new(*first, *last)]))
                }
                PortEntry::Named { protocol, name } if by_name => {
                    (*protocol, self.named(side, *protocol, name, remote))
                }
                _ => continue,
            };
            let number = diagrams.point(PROTOCOL, protocol.number());
            found = diagrams.or(&found, &diagrams.and(&number, &ports));
        }
        found
    }

    /// The packets to a port that has this name at their destination.
    fn named(
        &self,
        side: &Side<'a>,
        protocol: Protocol,
        name: &PortName,
        remote: Remote,
    ) -> Diagram {
        let diagrams = self.diagrams;
        let numbers = |pod: PodIndex| {
            let pod = self.specification.pod(pod);
            let ports = pod.into_iter().flat_map(netpol_core::Pod::ports);
            let ports = ports.filter(|port| port.protocol == protocol && port.name == *name);
            ports.map(|port| Range::one(port.port)).collect::<Vec<_>>()
        };
        let owners = self.specification.owners(self.v6);
        match (side.direction, remote.address) {
            (Direction::Ingress, _) => diagrams.within(SECOND, &numbers(side.subject())),
            (Direction::Egress, Value::Is(address)) => match owners.get(&address) {
                Some(pod) => diagrams.within(SECOND, &numbers(*pod)),
                None => diagrams.none(),
            },
            (Direction::Egress, Value::In(block)) => {
                let key = (protocol, name.clone(), remote.address);
                if let Some(known) = self.named.borrow().get(&key) {
                    return known.clone();
                }
                let mut by_numbers: BTreeMap<Vec<Range>, Diagram> = BTreeMap::new();
                let pieces: Vec<(Range, Diagram)> = owners
                    .iter()
                    .filter_map(|(address, pod)| {
                        let numbers = numbers(*pod);
                        let ports = by_numbers
                            .entry(numbers)
                            .or_insert_with_key(|numbers| diagrams.within(SECOND, numbers));
                        let is_there = !diagrams.is_none(ports);
                        is_there.then(|| (Range::one(*address), ports.clone()))
                    })
                    .collect();
                let made = diagrams.pieces(block, &pieces);
                self.named.borrow_mut().insert(key, made.clone());
                made
            }
            (Direction::Egress, Value::Missing) => diagrams.none(),
        }
    }
}
