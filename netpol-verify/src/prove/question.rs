//! One question: the packets of a way that have one address in common.

use super::Prover;
use super::gather::{Gathered, Walk};
use super::lanes::{Lane, Lanes, Outcome};
use super::mask::Mask;
use super::runner::Runner;
use super::space::Classes;
use super::traffic;
use super::wanted::Sides;
use crate::machine::{ConnState, Field, Packet, Path};
use crate::specification::{PodIndex, Question as Asked, Side};
use netpol_core::Established;

/// What the lanes' address can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Domain {
    /// Any address.
    Everything,
    /// Any address but those of this node's pods.
    NotLocal,
    /// Any address but those of managed pods.
    NoPod,
}

/// What is expected of the packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Expected {
    /// What the policies say.
    Policies,
    /// They pass: they are no local pod's.
    Accepted,
    /// From the device of this pod: they pass if they have an address that belongs there.
    Guard(PodIndex),
}

/// Which rules the packets meet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rules {
    /// All, and they do what is expected.
    All,
    /// Netpol's own alone, and they do what is expected.
    Own,
    /// All, and what is to be dropped is dropped; the node's own firewall may drop more.
    Together,
}

impl Rules {
    pub(super) fn is_own(self) -> bool {
        self == Self::Own
    }
}

/// The packets of a way that have one address in common.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) path: Path,
    pub(super) v6: bool,
    /// The address that varies.
    pub(super) lane: Field,
    pub(super) domain: Domain,
    /// The address that does not, with its owner; if none, it varies over the same domain, class by class.
    pub(super) fixed: Option<(u128, PodIndex)>,
    pub(super) expected: Expected,
    pub(super) rules: Rules,
}

/// States of connections with a direction, and what is expected there.
const STATES: [(ConnState, bool, Kind); 7] = [
    (ConnState::New, false, Kind::Judged),
    (ConnState::Established, false, Kind::Opened),
    (ConnState::Established, true, Kind::Passes),
    (ConnState::Related, false, Kind::Passes),
    (ConnState::Related, true, Kind::Passes),
    (ConnState::Invalid, false, Kind::MayBeDropped),
    (ConnState::Untracked, false, Kind::Judged),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Policy decides.
    Judged,
    /// By option it was decided before, or is decided again.
    Opened,
    /// It passes.
    Passes,
    /// What policy denies must not pass; the rest may be dropped.
    MayBeDropped,
}

/// What a cell came to.
pub(super) enum Finding {
    Refuted,
    Unknown,
}

impl<'a> Prover<'_, 'a> {
    /// Answers a question; what differs goes to the findings.
    pub(super) fn ask(&mut self, question: &Question) {
        let machine = if question.rules.is_own() { self.own } else { self.machine };
        let way = self.way(question);
        let (other, device, other_device) = match question.lane {
            Field::Source => (Field::Destination, Field::InDevice, Field::OutDevice),
            _ => (Field::Source, Field::OutDevice, Field::InDevice),
        };
        let in_out = |field: Field| {
            !matches!(
                (question.path, field),
                (Path::FromNode, Field::InDevice)
                    | (Path::ToNode | Path::Arrival, Field::OutDevice)
            )
        };
        let fixed_devices: Vec<Option<u128>> = if in_out(other_device) {
            let own = match question.expected {
                Expected::Guard(_) => &[],
                _ => self.devices.of(question.fixed.map(|(_, pod)| pod), other_device),
            };
            own.iter().copied().map(Some).collect()
        } else {
            vec![None]
        };
        let guard_device = match question.expected {
            Expected::Guard(pod) => self.given.get(&pod).copied(),
            _ => None,
        };
        self.statistics.questions += 1;
        for fixed_device in fixed_devices {
            let mut packet = Packet {
                v6: question.v6,
                source: 0,
                destination: 0,
                protocol: 0,
                first: 0,
                second: 0,
                in_device: None,
                out_device: None,
                state: ConnState::New,
                reply: false,
                mark: 0,
            };
            set_device(&mut packet, other_device, fixed_device);
            let mut fields = vec![Field::Version, other_device];
            if let Some((address, _)) = question.fixed {
                set_address(&mut packet, other, address);
                fields.push(other);
            }
            if guard_device.is_some() {
                set_device(&mut packet, Field::InDevice, guard_device);
                fields.push(Field::InDevice);
            }
            let space = if question.v6 { &self.v6 } else { &self.v4 };
            let owners = self.specification.owners(question.v6);
            let excludes = |address: u128| {
                let owner = owners.get(&address);
                match question.domain {
                    Domain::Everything => false,
                    Domain::NotLocal => owner.is_some_and(|o| self.specification.is_local(*o)),
                    Domain::NoPod => owner.is_some(),
                }
            };
            let walk = Walk {
                machine,
                space: &space.0,
                cache: &space.1,
                fixed: Walk::fix(&packet, &fields),
                lane: question.lane,
                cuts_everything: self.record.is_some(),
                excludes: &excludes,
            };
            let mut gathered = walk.gather(&way.stages);
            let mut sides = self.wanted(question, &mut gathered);
            // The address that is not fixed varies class by class.
            let others: Vec<u128> = match question.fixed {
                Some((address, _)) => vec![address],
                None => self.other_addresses(question, &gathered),
            };
            let lanes = self.lanes(question, &gathered, device, in_out(device), guard_device);
            if lanes.lanes.is_empty() {
                continue;
            }
            let of_lane = lanes.lanes.iter().map(|lane| {
                let owner = owners.get(&lane.address).copied();
                (owner, owner.and_then(|owner| sides.far.get(&owner)).cloned())
            });
            sides.of_lane = of_lane.collect();
            let traffic = traffic::classes(&gathered.protocols, &gathered.ports);
            let alike = alike(&gathered);
            self.statistics.address_classes += lanes.lanes.len() * others.len();
            self.statistics.traffic_classes += traffic.len();
            if self.record.is_some() {
                self.record_question(question, &gathered, &lanes, &others, &traffic, fixed_device);
            }
            for address in others {
                set_address(&mut packet, other, address);
                let mut runner = Runner::new(machine, &way, &lanes, packet.clone());
                for traffic in &traffic {
                    runner.set_traffic(traffic.protocol, traffic.first, traffic.second);
                    self.compare(question, &sides, alike, &lanes, &mut runner);
                }
            }
        }
    }

    /// Compares all lanes for one kind of traffic, in every state of a connection.
    fn compare(
        &mut self,
        question: &Question,
        sides: &Sides<'a>,
        alike: [usize; STATES.len()],
        lanes: &Lanes,
        runner: &mut Runner<'_>,
    ) {
        let allowed = self.allowed(question, sides, lanes, &runner.packet(0));
        let count = lanes.lanes.len();
        let everything = Mask::all(count);
        let mut done: [Option<Outcome>; STATES.len()] = std::array::from_fn(|_| None);
        for ((state, reply, kind), first) in STATES.into_iter().zip(alike) {
            // Before conntrack there are no states, and the guard wants each packet checked.
            if question.path == Path::Arrival && state != ConnState::New {
                continue;
            }
            let Some(known) = done.get_mut(first) else { continue };
            let outcome = known.get_or_insert_with(|| {
                runner.set_state(state, reply);
                runner.run()
            });
            let re_evaluates =
                self.specification.options().established() == Established::ReEvaluate;
            let judged = match kind {
                _ if question.expected != Expected::Policies => true,
                Kind::Judged | Kind::MayBeDropped => true,
                Kind::Opened => re_evaluates,
                Kind::Passes => false,
            };
            let must_pass = if judged { &allowed } else { &everything };
            let loose = kind == Kind::MayBeDropped && question.expected == Expected::Policies
                || question.rules == Rules::Together;
            if let Some(record) = &mut self.record {
                record.cells(count, must_pass, loose, outcome);
            }
            self.statistics.cells += count;
            let [dropped, dropped_unsure] = &outcome.dropped;
            let [accepted, accepted_unsure] = &outcome.accepted;
            let right = accepted.is_within(must_pass) && (loose || !dropped.meets(must_pass));
            if right && outcome.is_sure() {
                continue;
            }
            let must_drop = everything.without(must_pass);
            let mut may_pass = accepted.clone();
            may_pass.add(accepted_unsure);
            let mut may_drop = dropped.clone();
            may_drop.add(dropped_unsure);
            let mut wrong = Mask::none(count);
            let mut unsure = Mask::none(count);
            if !loose {
                // Dropped for sure, or whatever was not understood.
                let mut sure = may_drop.without(&may_pass).without(&outcome.unknown);
                sure.add(dropped);
                wrong.add(&must_pass.and(&sure));
                may_drop.add(&outcome.unknown);
                unsure.add(&must_pass.and(&may_drop));
            }
            let mut sure = may_pass.without(&outcome.dropped[1]).without(&outcome.unknown);
            sure = sure.without(&outcome.dropped[0]);
            sure.add(accepted);
            wrong.add(&must_drop.and(&sure));
            may_pass.add(&outcome.unknown);
            unsure.add(&must_drop.and(&may_pass));
            unsure.remove(&wrong);
            if wrong.is_empty() && unsure.is_empty() {
                continue;
            }
            runner.set_state(state, reply);
            self.statistics.refuted_cells += wrong.count();
            self.statistics.unknown_cells += unsure.count();
            for (mask, finding) in [(wrong, Finding::Refuted), (unsure, Finding::Unknown)] {
                // A packet that can be sent, if there is one.
                let space = if question.v6 { &self.v6.0 } else { &self.v4.0 };
                let usual = |lane: &usize| {
                    lanes.lanes.get(*lane).is_some_and(|lane| space.is_usual(lane.address))
                };
                if let Some(lane) = mask.iter().find(usual).or_else(|| mask.iter().next()) {
                    let expected = must_pass.and(&Mask::of(count, |l| l == lane));
                    let packet = runner.packet(lane);
                    self.found(question, packet, !expected.is_empty(), &finding);
                }
            }
        }
    }

    /// The lanes that may pass.
    fn allowed(
        &self,
        question: &Question,
        sides: &Sides<'a>,
        lanes: &Lanes,
        packet: &Packet,
    ) -> Mask {
        let count = lanes.lanes.len();
        match question.expected {
            Expected::Accepted => return Mask::all(count),
            Expected::Guard(pod) => {
                return Mask::of(count, |lane| {
                    let address = lanes.lanes.get(lane).map_or(0, |lane| lane.address);
                    self.belongs(pod, question.v6, address, packet)
                });
            }
            Expected::Policies => {}
        }
        let fixed = question.fixed.map(|(_, pod)| pod);
        let fixed_address = question.fixed.map_or(0, |(address, _)| address);
        let decide = |side: &Side<'a>, remote, remote_address, destination| {
            let asked = Asked {
                v6: question.v6,
                remote,
                remote_address,
                destination,
                protocol: packet.protocol,
                first: packet.first,
                second: packet.second,
                own_node: question.path != Path::Forward,
            };
            self.specification.decide(side, &asked).allowed()
        };
        Mask::of(count, |lane| {
            let (Some(lane), Some((owner, far))) = (lanes.lanes.get(lane), sides.of_lane.get(lane))
            else {
                return true;
            };
            let owner = *owner;
            let destination = if question.lane == Field::Source { fixed } else { owner };
            let near = sides
                .near
                .as_ref()
                .is_none_or(|side| decide(side, owner, lane.address, destination));
            near && far.as_ref().is_none_or(|side| decide(side, fixed, fixed_address, destination))
        })
    }

    /// May a packet come from the device of a pod? It must have one of the addresses there. From `fe80::/10` and `::`
    /// neighbor discovery, duplicate address detection and multicast listener reports may come (types 130 to 133, 135,
    /// 136 and 143), but no router advertisements and no redirects.
    pub(super) fn belongs(&self, pod: PodIndex, v6: bool, address: u128, packet: &Packet) -> bool {
        let device = self.given.get(&pod);
        let there = |owner: &PodIndex| self.given.get(owner) == device;
        if self.specification.owners(v6).get(&address).is_some_and(there) {
            return true;
        }
        let local = address == 0 || address >> 118 == 0xfe80 >> 6;
        let kind = packet.first >> 8;
        v6 && local && packet.protocol == 58 && matches!(kind, 130..=133 | 135 | 136 | 143)
    }

    /// The classes of the address that varies, each with the devices that it can have.
    fn lanes(
        &self,
        question: &Question,
        gathered: &Gathered<'_>,
        device: Field,
        has_device: bool,
        guard_device: Option<u128>,
    ) -> Lanes {
        let space = if question.v6 { &self.v6 } else { &self.v4 };
        let owners = self.specification.owners(question.v6);
        let mut classes = Classes::new(&space.0);
        for predicate in &gathered.lanes {
            classes.refine(predicate);
        }
        let mut lanes = Vec::new();
        for interval in classes.representatives(&space.0) {
            let address = space.0.representative(interval);
            let owner = owners.get(&address).copied();
            let local = owner.filter(|owner| self.specification.is_local(*owner));
            let inside = match question.domain {
                Domain::Everything => true,
                Domain::NotLocal => local.is_none(),
                Domain::NoPod => owner.is_none(),
            };
            if !inside {
                continue;
            }
            let devices: Vec<Option<u128>> = match guard_device {
                Some(device) => vec![Some(device)],
                None if !has_device => vec![None],
                None => self.devices.of(local, device).iter().copied().map(Some).collect(),
            };
            lanes.extend(devices.into_iter().map(|device| Lane { address, device }));
        }
        Lanes { lanes, address: question.lane, device }
    }

    fn other_addresses(&self, question: &Question, gathered: &Gathered<'_>) -> Vec<u128> {
        let space = if question.v6 { &self.v6 } else { &self.v4 };
        let owners = self.specification.owners(question.v6);
        let mut classes = Classes::new(&space.0);
        for predicate in &gathered.others {
            classes.refine(predicate);
        }
        let firsts = classes
            .representatives(&space.0)
            .into_iter()
            .map(|interval| space.0.representative(interval));
        firsts
            .filter(|address| {
                let owner = owners.get(address);
                match question.domain {
                    Domain::Everything => true,
                    Domain::NotLocal => !owner.is_some_and(|o| self.specification.is_local(*o)),
                    Domain::NoPod => owner.is_none(),
                }
            })
            .collect()
    }
}

/// For each state of a connection the first that no test of the rules tells from it.
fn alike(gathered: &Gathered<'_>) -> [usize; STATES.len()] {
    let keys = STATES.map(|(state, reply, _)| -> Vec<bool> {
        if gathered.every_state {
            return STATES.iter().map(|(s, r, _)| (*s, *r) == (state, reply)).collect();
        }
        gathered.states.iter().map(|condition| tested(condition, state, reply)).collect()
    });
    std::array::from_fn(|at| {
        keys.get(at).and_then(|key| keys.iter().position(|other| other == key)).unwrap_or(at)
    })
}

fn tested(condition: &crate::machine::Condition, state: ConnState, reply: bool) -> bool {
    let untracked = matches!(state, ConnState::Invalid | ConnState::Untracked);
    let values: Option<Vec<u128>> = condition
        .key
        .iter()
        .map(|field| match field {
            Field::State => Some(state.bit()),
            _ if untracked => None,
            _ => Some(u128::from(reply)),
        })
        .collect();
    values.is_some_and(|values| condition.holds(&values))
}

fn set_address(packet: &mut Packet, field: Field, value: u128) {
    match field {
        Field::Source => packet.source = value,
        _ => packet.destination = value,
    }
}

fn set_device(packet: &mut Packet, field: Field, value: Option<u128>) {
    match field {
        Field::InDevice => packet.in_device = value,
        _ => packet.out_device = value,
    }
}
