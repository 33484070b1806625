//! The questions of the theorem, each answered at once for all its packets.

use super::Engine;
use super::answer::{Findings, Wrong};
use super::devices::Devices;
use super::diagram::{Diagram, Diagrams};
use super::execute::{Execution, Fates};
use super::packets::{
    ADDRESS, DEVICE, FIRST, OTHER, OTHER_DEVICE, PROTOCOL, Packets, SECOND, Value, address,
    in_state,
};
use super::policy::{Policies, Remote};
use crate::machine::{ConnState, Machine, Path, Range, Stage, device_value};
use crate::specification::PodIndex;
use netpol_core::{Direction, Established};
use std::cell::OnceCell;

/// What a question is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum About {
    /// Forwarded packets from anywhere to an address of a local pod.
    ToPod(u128, PodIndex),
    /// Forwarded packets of a local pod to what is no local pod.
    FromPod(u128, PodIndex),
    /// Packets of a local pod to this node.
    PodToNode(u128, PodIndex),
    /// Packets of this node to a local pod.
    NodeToPod(u128, PodIndex),
    /// Forwarded packets between others.
    PastPods,
    /// Packets that come in by the device of a local pod.
    Guard(PodIndex, u128),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) v6: bool,
    pub(super) about: About,
    /// Must netpol's own rules alone do what is expected, and all rules together no more than drop what is denied?
    pub(super) by_own: bool,
}

impl Question {
    pub(super) fn path(&self) -> Path {
        match self.about {
            About::ToPod(..) | About::FromPod(..) | About::PastPods => Path::Forward,
            About::PodToNode(..) => Path::ToNode,
            About::NodeToPod(..) => Path::FromNode,
            About::Guard(..) => Path::Arrival,
        }
    }

    /// What is fixed of its packets.
    fn packets(&self) -> Packets {
        let varies = Value::In(address(ADDRESS, self.v6));
        let (device, other_device) = (Value::In(DEVICE), Value::In(OTHER_DEVICE));
        let (source, destination, in_device, out_device) = match self.about {
            About::ToPod(to, _) => (varies, Value::Is(to), device, other_device),
            About::FromPod(from, _) => (Value::Is(from), varies, other_device, device),
            About::PodToNode(from, _) => (Value::Is(from), varies, other_device, Value::Missing),
            About::NodeToPod(to, _) => (varies, Value::Is(to), Value::Missing, other_device),
            About::PastPods => (varies, Value::In(address(OTHER, self.v6)), device, other_device),
            About::Guard(_, device) => {
                let other = Value::In(address(OTHER, self.v6));
                (varies, other, Value::Is(device), Value::Missing)
            }
        };
        Packets { v6: self.v6, source, destination, in_device, out_device }
    }
}

impl Engine<'_, '_> {
    pub(super) fn questions(&self, v6: bool) -> Vec<Question> {
        let mut all = Vec::new();
        for (&address, &pod) in self.specification.owners(v6) {
            if self.specification.is_local(pod) && self.is_asked(pod) {
                all.extend([
                    About::ToPod(address, pod),
                    About::FromPod(address, pod),
                    About::PodToNode(address, pod),
                    About::NodeToPod(address, pod),
                ]);
            }
        }
        if self.options.only.is_none() {
            all.push(About::PastPods);
        }
        let guarded = self.given.iter().filter(|(pod, _)| self.is_asked(**pod));
        let guarded = guarded.filter(|_| !self.options.unguarded);
        all.extend(guarded.map(|(pod, device)| About::Guard(*pod, *device)));
        let with_judge = |about| {
            // The node's own firewall has a say in what the node sends and receives, and in what is no pod's.
            let of_the_node =
                matches!(about, About::PodToNode(..) | About::NodeToPod(..) | About::PastPods);
            Question { v6, about, by_own: of_the_node || self.options.others_may_drop }
        };
        all.into_iter().map(with_judge).collect()
    }
}

/// Rules that decide a question: a ruleset, and its base chains on the way.
pub(super) struct Judge<'p> {
    pub(super) machine: &'p Machine,
    pub(super) stages: Vec<Stage>,
}

/// Which rules decide a question.
pub(super) struct Judges<'p> {
    /// These do all that is expected.
    pub(super) all_of_it: Judge<'p>,
    /// What is denied must be dropped by these, too.
    pub(super) denials: Option<Judge<'p>>,
}

/// What all questions of a family have in common.
pub(super) struct World<'w, 'p, 'a> {
    engine: &'w Engine<'p, 'a>,
    v6: bool,
    devices: &'w Devices,
    other_devices: &'w Devices,
    policies: &'w Policies<'w, 'a>,
    /// Addresses that are no local pod's, and that are no managed pod's; the same of the other address.
    not_local: [Diagram; 2],
    no_pod: Diagram,
    states: Diagram,
    /// The devices of each address.
    by_address: OnceCell<Diagram>,
}

impl<'w, 'p, 'a> World<'w, 'p, 'a> {
    pub(super) fn new(
        engine: &'w Engine<'p, 'a>,
        v6: bool,
        devices: &'w Devices,
        other_devices: &'w Devices,
        policies: &'w Policies<'w, 'a>,
    ) -> Self {
        let diagrams = &engine.diagrams;
        let owners = || engine.specification.owners(v6).iter();
        let local = owners().filter(|(_, pod)| engine.specification.is_local(**pod));
        let local: Vec<Range> = local.map(|(address, _)| Range::one(*address)).collect();
        let pods: Vec<Range> = owners().map(|(address, _)| Range::one(*address)).collect();
        let except =
            |block, some: &[Range]| diagrams.not(&diagrams.within(address(block, v6), some));
        let states = [
            (ConnState::New, false),
            (ConnState::Established, false),
            (ConnState::Established, true),
            (ConnState::Related, false),
            (ConnState::Related, true),
            (ConnState::Invalid, false),
            (ConnState::Untracked, false),
        ];
        let states = states.map(|(state, reply)| in_state(diagrams, state, reply));
        Self {
            engine,
            v6,
            devices,
            other_devices,
            policies,
            not_local: [except(ADDRESS, &local), except(OTHER, &local)],
            no_pod: except(ADDRESS, &pods),
            states: diagrams.union(&states),
            by_address: OnceCell::new(),
        }
    }

    /// Answers a question; what is wrong goes to the findings.
    pub(super) fn ask(&self, question: &Question, findings: &mut Findings) {
        let diagrams = &self.engine.diagrams;
        let judges = self.engine.judges(question);
        let packets = question.packets();
        let run = |judge: &Judge<'_>| {
            Execution::run(judge.machine, diagrams, &self.engine.sets, packets, &judge.stages)
        };
        let all_of_it = run(&judges.all_of_it);
        let denials = judges.denials.as_ref().map(run);
        let domain = self.domain(question);
        let must_pass = self.must_pass(question);
        let must_drop = diagrams.minus(&domain, &must_pass);
        let mut strict = diagrams.and(&domain, &must_pass);
        if !matches!(question.about, About::PastPods | About::Guard(..)) {
            // What conntrack calls invalid may be dropped.
            let invalid = in_state(diagrams, ConnState::Invalid, false);
            strict = diagrams.minus(&strict, &invalid);
        }
        let dropped = outcome(diagrams, &all_of_it, false);
        let mut passed = outcome(diagrams, &all_of_it, true);
        if let Some(denials) = denials {
            let [sure, possible] = outcome(diagrams, &denials, true);
            passed = [diagrams.or(&passed[0], &sure), diagrams.or(&passed[1], &possible)];
        }
        for (allowed, expected, [sure, possible]) in
            [(true, &strict, dropped), (false, &must_drop, passed)]
        {
            let wrong = diagrams.and(expected, &sure);
            let unsure = diagrams.and(expected, &diagrams.minus(&possible, &sure));
            for (packets_of, is_sure) in [(wrong, true), (unsure, false)] {
                if diagrams.is_none(&packets_of) {
                    continue;
                }
                let with_devices = diagrams.and(&packets_of, &self.with_devices(question));
                if let Some(packet) = self.telling(&packets, &with_devices) {
                    findings.add(Wrong { packet, question: *question, allowed }, is_sure);
                }
            }
        }
    }

    /// The packets that a question is about; of devices nothing is said yet.
    fn domain(&self, question: &Question) -> Diagram {
        let diagrams = &self.engine.diagrams;
        let [not_local, other_not_local] = &self.not_local;
        match question.about {
            About::ToPod(..) => self.states.clone(),
            About::FromPod(..) => diagrams.and(&self.states, not_local),
            About::PodToNode(..) | About::NodeToPod(..) => diagrams.and(&self.states, &self.no_pod),
            About::PastPods => {
                diagrams.and(&diagrams.and(&self.states, not_local), other_not_local)
            }
            About::Guard(..) => in_state(diagrams, ConnState::New, false),
        }
    }

    /// The packets whose devices are those of their addresses.
    fn with_devices(&self, question: &Question) -> Diagram {
        let (engine, diagrams) = (self.engine, &self.engine.diagrams);
        let by_address = || {
            let block = address(ADDRESS, self.v6);
            let made =
                self.by_address.get_or_init(|| self.devices.by_address(engine, block, self.v6));
            made.clone()
        };
        match question.about {
            About::ToPod(_, pod) | About::FromPod(_, pod) => {
                diagrams.and(&by_address(), &self.other_devices.of(engine, Some(pod)))
            }
            About::PodToNode(_, pod) | About::NodeToPod(_, pod) => {
                self.other_devices.of(engine, Some(pod))
            }
            About::PastPods => {
                diagrams.and(&self.devices.of(engine, None), &self.other_devices.of(engine, None))
            }
            About::Guard(..) => diagrams.all(),
        }
    }

    /// The packets that must pass, or may if they are invalid.
    fn must_pass(&self, question: &Question) -> Diagram {
        let diagrams = &self.engine.diagrams;
        let specification = self.engine.specification;
        let block = address(ADDRESS, self.v6);
        let side = |pod, direction, own_node| {
            let side = specification.side(pod, direction);
            self.policies.allowed(&side, Remote { address: Value::In(block), own_node })
        };
        let allowed = match question.about {
            About::PastPods => return diagrams.all(),
            About::Guard(pod, _) => return self.belongs(pod),
            About::ToPod(to, pod) => {
                let near = side(pod, Direction::Ingress, false);
                diagrams.and(&near, &self.local_sources(to))
            }
            About::FromPod(_, pod) => side(pod, Direction::Egress, false),
            About::PodToNode(_, pod) => side(pod, Direction::Egress, true),
            About::NodeToPod(_, pod) => side(pod, Direction::Ingress, true),
        };
        let mut open = vec![
            in_state(diagrams, ConnState::Established, true),
            in_state(diagrams, ConnState::Related, false),
            in_state(diagrams, ConnState::Related, true),
        ];
        if specification.options().established() == Established::Keep {
            open.push(in_state(diagrams, ConnState::Established, false));
        }
        diagrams.or(&allowed, &diagrams.union(&open))
    }

    /// What the egress of this node's pods allows to an address; of other sources everything.
    fn local_sources(&self, to: u128) -> Diagram {
        let diagrams = &self.engine.diagrams;
        let specification = self.engine.specification;
        let remote = Remote { address: Value::Is(to), own_node: false };
        let local = specification.owners(self.v6).iter();
        let pieces: Vec<(Range, Diagram)> = local
            .filter(|(_, pod)| specification.is_local(**pod))
            .map(|(from, pod)| {
                let side = specification.side(*pod, Direction::Egress);
                (Range::one(*from), self.policies.allowed(&side, remote))
            })
            .collect();
        diagrams.pieces_or(address(ADDRESS, self.v6), &pieces, &diagrams.all())
    }

    /// The packets that may come in by the device of a pod: those of its addresses, and of those on the same device; from
    /// link-local addresses and none at all what a host needs to find itself and its neighbors.
    fn belongs(&self, pod: PodIndex) -> Diagram {
        let (diagrams, given) = (&self.engine.diagrams, &self.engine.given);
        let source = address(ADDRESS, self.v6);
        let there = self.engine.specification.owners(self.v6).iter();
        let there: Vec<Range> = there
            .filter(|(_, owner)| given.get(owner) == given.get(&pod))
            .map(|(address, _)| Range::one(*address))
            .collect();
        let own = diagrams.within(source, &there);
        if !self.v6 {
            return own;
        }
        let link_local = Range { first: 0xfe80 << 112, last: (0xfec0 << 112) - 1 };
        let from = diagrams.within(source, &[Range::one(0u8), link_local]);
        let types = |first: u16, last: u16| Range::new(first << 8, last << 8 | 0xff);
        let types = [types(130, 133), types(135, 136), types(143, 143)];
        let icmpv6 = diagrams.and(&diagrams.point(PROTOCOL, 58u8), &diagrams.within(FIRST, &types));
        diagrams.or(&own, &diagrams.and(&from, &icmpv6))
    }

    /// Of some packets one that tells most: of a new TCP connection, if there is one.
    fn telling(&self, packets: &Packets, some: &Diagram) -> Option<crate::machine::Packet> {
        let diagrams = &self.engine.diagrams;
        let mut wishes = vec![
            in_state(diagrams, ConnState::New, false),
            in_state(diagrams, ConnState::Established, false),
            diagrams.point(PROTOCOL, 6u8),
            diagrams.point(PROTOCOL, 17u8),
            diagrams.point(FIRST, 40_000u16),
            diagrams.point(SECOND, 80u8),
        ];
        for block in [DEVICE, OTHER_DEVICE] {
            let uplink =
                device_value("uplink0").map_or(0, |name| self.engine.sets.names().number(name));
            wishes.push(diagrams.point(block, uplink));
        }
        let packet = wishes.into_iter().fold(some.clone(), |some, wish| {
            let better = diagrams.and(&some, &wish);
            if diagrams.is_none(&better) { some } else { better }
        });
        Some(packets.packet(&diagrams.least(&packet)?, self.engine.sets.names()))
    }
}

/// The packets that pass, or else are dropped, for sure; and those of which that is possible.
fn outcome(diagrams: &Diagrams, fates: &Fates, passes: bool) -> [Diagram; 2] {
    let pass = [&fates.pass, &fates.may_pass];
    let drop = [&fates.drop, &fates.may_drop];
    let ([sure, maybe], others) = if passes { (pass, drop) } else { (drop, pass) };
    let possible = diagrams.or(sure, maybe);
    // Whatever the choices that were not understood come to, nothing else can happen to them.
    let others = diagrams.or(&diagrams.union(others), &fates.unknown);
    let always = diagrams.minus(&possible, &others);
    [diagrams.or(sure, &always), diagrams.or(&possible, &fates.unknown)]
}
