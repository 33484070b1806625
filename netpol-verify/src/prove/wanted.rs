//! What the specification tells apart: the predicates of the policies that packets of a question can meet.

use super::Prover;
use super::gather::{Gathered, PortTest};
use super::question::{Domain, Expected, Question};
use super::space::Predicate;
use crate::machine::{Field, Path, Range};
use crate::specification::{PodIndex, Side, SpecPeer};
use netpol_core::{Direction, PortEntry, PortName, Protocol};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What applies at the two ends.
pub(super) struct Sides<'a> {
    /// At the fixed address.
    pub(super) near: Option<Rc<Side<'a>>>,
    /// At the other, by its owner.
    pub(super) far: BTreeMap<PodIndex, Rc<Side<'a>>>,
    /// The owner of each lane's address, and what applies there.
    pub(super) of_lane: Vec<(Option<PodIndex>, Option<Rc<Side<'a>>>)>,
}

impl<'a> Prover<'_, 'a> {
    /// What the specification tells apart, added to what the rules do.
    pub(super) fn wanted(&self, question: &Question, gathered: &mut Gathered<'_>) -> Sides<'a> {
        let space = if question.v6 { &self.v6 } else { &self.v4 };
        let specification = self.specification;
        let owners = specification.owners(question.v6);
        let one = |address: u128| Rc::new(space.0.predicate([&Range::one(address)]));
        let mut sides = Sides { near: None, far: BTreeMap::new(), of_lane: Vec::new() };
        if question.domain != Domain::Everything {
            let mut known = self.excluded.borrow_mut();
            let key = (question.domain == Domain::NoPod, question.v6);
            let excluded = known.entry(key).or_insert_with(|| {
                let excluded = owners
                    .iter()
                    .filter(|(_, pod)| key.0 || specification.is_local(**pod))
                    .map(|(address, _)| Range::one(*address));
                Rc::new(space.0.predicate(&excluded.collect::<Vec<_>>()))
            });
            let excluded = Rc::clone(excluded);
            gathered.lanes.push(Rc::clone(&excluded));
            gathered.others.push(excluded);
        }
        match question.expected {
            Expected::Accepted => return sides,
            Expected::Guard(pod) => {
                let device = self.given.get(&pod);
                for (address, owner) in specification.local_owners(question.v6) {
                    if self.given.get(owner) == device {
                        gathered.lanes.push(one(*address));
                    }
                }
                if question.v6 {
                    let local = Range { first: 0xfe80 << 112, last: (0xfec0 << 112) - 1 };
                    gathered.lanes.push(Rc::new(space.0.predicate([&local])));
                    gathered.lanes.push(one(0));
                    let icmpv6 = Range::one(58u8);
                    gathered.protocols.insert(icmpv6);
                    for kind in [130u16, 131, 132, 133, 135, 136, 143] {
                        let range = Range::new(kind << 8, kind << 8 | 0xff);
                        gathered.ports.insert((icmpv6, Field::First, range));
                    }
                }
                return sides;
            }
            Expected::Policies => {}
        }
        for number in [6u8, 17, 132] {
            gathered.protocols.insert(Range::one(number));
        }
        if question.v6 {
            gathered.protocols.insert(Range::one(58u8));
            let discovery = Range::new(133u16 << 8, 137u16 << 8 | 0xff);
            gathered.ports.insert((Range::one(58u8), Field::First, discovery));
        }
        let (near, far) = match question.lane {
            Field::Source => (Direction::Ingress, Direction::Egress),
            _ => (Direction::Egress, Direction::Ingress),
        };
        if let Some((_, pod)) = question.fixed {
            let side = specification.side(pod, near);
            self.near(&side, question, gathered);
            sides.near = Some(side);
            if let (Path::Forward, Some((fixed, _))) = (question.path, question.fixed) {
                let local = specification.local_owners(question.v6);
                for (address, owner) in
                    local.iter().filter(|_| question.domain == Domain::Everything)
                {
                    gathered.lanes.push(one(*address));
                    let side =
                        sides.far.entry(*owner).or_insert_with(|| specification.side(*owner, far));
                    self.far(side, question, (fixed, pod), gathered);
                }
            }
        }
        sides
    }

    /// What the side of the fixed address tells apart.
    fn near(&self, side: &Rc<Side<'a>>, question: &Question, gathered: &mut Gathered<'_>) {
        let space = if question.v6 { &self.v6 } else { &self.v4 };
        // An address that another pod owns is not this one's.
        let addresses = |pod: PodIndex| {
            let addresses = self.specification.addresses(pod, question.v6);
            addresses.map(Range::one).collect::<Vec<_>>()
        };
        gathered.lanes.push(Rc::new(space.0.predicate(&addresses(side.subject()))));
        for rule in side.rules() {
            for peer in rule.peers.iter().flatten() {
                match peer {
                    SpecPeer::Pods(pods) => {
                        let key = (Rc::as_ptr(pods).addr(), question.v6);
                        let mut known = self.selections.borrow_mut();
                        let predicate = known.entry(key).or_insert_with(|| {
                            let all: Vec<Range> =
                                pods.members.iter().flat_map(|pod| addresses(*pod)).collect();
                            Rc::new(space.0.predicate(&all))
                        });
                        gathered.lanes.push(Rc::clone(predicate));
                    }
                    SpecPeer::Network(block) if block.v6 == question.v6 => {
                        let ranges = std::iter::once(&block.block).chain(&block.holes);
                        for &(first, last) in ranges {
                            let range = Range { first, last };
                            gathered.lanes.push(Rc::new(space.0.predicate([&range])));
                        }
                    }
                    _ => {}
                }
            }
            for entry in rule.ports.into_iter().flatten() {
                if let PortEntry::Named { protocol, name } = entry
                    && question.lane == Field::Destination
                {
                    for (number, predicate) in self.named(question.v6, *protocol, name).iter() {
                        gathered.lanes.push(Rc::clone(predicate));
                        gathered.ports.insert(port_test(*protocol, *number, *number));
                    }
                }
            }
            let destination = question.fixed.map(|(_, pod)| pod);
            let destination = destination.filter(|_| question.lane == Field::Source);
            self.ports(rule.ports, destination, gathered);
        }
    }

    /// The numbers that a port's name has, each with the destinations where it has it.
    fn named(
        &self,
        v6: bool,
        protocol: Protocol,
        name: &'a PortName,
    ) -> Rc<Vec<(u16, Rc<Predicate>)>> {
        let mut known = self.named.borrow_mut();
        let numbers = known.entry((v6, protocol, name)).or_insert_with(|| {
            let space = if v6 { &self.v6 } else { &self.v4 };
            let mut by_number: BTreeMap<u16, Vec<Range>> = BTreeMap::new();
            for (address, owner) in self.specification.owners(v6) {
                let pod = self.specification.pod(*owner);
                let ports = pod.into_iter().flat_map(netpol_core::Pod::ports);
                for port in ports.filter(|p| p.name == *name && p.protocol == protocol) {
                    by_number.entry(port.port).or_default().push(Range::one(*address));
                }
            }
            let numbers = by_number.into_iter();
            Rc::new(numbers.map(|(n, all)| (n, Rc::new(space.0.predicate(&all)))).collect())
        });
        Rc::clone(numbers)
    }

    /// What the sides of the other ends tell apart; the near end is one address of one pod.
    fn far(
        &self,
        side: &Rc<Side<'a>>,
        question: &Question,
        near: (u128, PodIndex),
        gathered: &mut Gathered<'_>,
    ) {
        for rule in side.rules() {
            let reaches = rule.peers.as_ref().is_none_or(|peers| {
                peers.iter().any(|peer| match peer {
                    SpecPeer::Pods(pods) => pods.members.contains(&near.1),
                    SpecPeer::Network(block) => {
                        let (first, last) = block.block;
                        block.v6 == question.v6 && first <= near.0 && near.0 <= last
                    }
                })
            });
            if reaches {
                let destination = match question.lane {
                    Field::Source => Some(near.1),
                    _ => Some(side.subject()),
                };
                self.ports(rule.ports, destination, gathered);
            }
        }
    }

    fn ports(
        &self,
        ports: Option<&[PortEntry]>,
        destination: Option<PodIndex>,
        gathered: &mut Gathered<'_>,
    ) {
        for entry in ports.into_iter().flatten() {
            match entry {
                PortEntry::Range { protocol, first, last } if first <= last => {
                    gathered.ports.insert(port_test(*protocol, *first, *last));
                }
                PortEntry::Named { protocol, name } => {
                    let pod = destination.and_then(|pod| self.specification.pod(pod));
                    let ports = pod.into_iter().flat_map(netpol_core::Pod::ports);
                    for port in ports.filter(|p| p.name == *name && p.protocol == *protocol) {
                        gathered.ports.insert(port_test(*protocol, port.port, port.port));
                    }
                }
                _ => {}
            }
        }
    }
}

fn port_test(protocol: Protocol, first: u16, last: u16) -> PortTest {
    (Range::one(protocol.number()), Field::Second, Range::new(first, last))
}
