//! Many packets through the machine at once.
//!
//! The packets of a run differ in one address, and in the device that goes with it; each is a *lane*, a bit of a
//! [`Mask`]. What a condition says about all lanes is asked once. This is another engine than [`Machine::run`], which
//! takes one packet: tests hold them equal, and what the prover refutes is run there again.

use super::mask::Mask;
use super::reads::Way;
use crate::machine::{
    ChainIndex, Condition, ConnState, Field, HookPoint, MOST_JUMPS, Machine, Packet, Stage, Step,
    Verdict, device_value,
};
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};
use std::rc::Rc;

/// A run of more steps is not understood: chains can be written that call each other without end.
const MOST_STEPS: usize = 4_000_000;

/// One packet of a run, where it differs from the others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Lane {
    pub(super) address: u128,
    pub(super) device: Option<u128>,
}

/// The lanes of a run, and which fields they are.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) lanes: Vec<Lane>,
    /// `Source` or `Destination`.
    pub(super) address: Field,
    /// `InDevice` or `OutDevice`, the one that belongs to the address.
    pub(super) device: Field,
}

/// Which lanes passed, which were dropped, and of which nobody knows.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Passed; if something was not understood on the way, in the second.
    pub(super) accepted: [Mask; 2],
    /// Dropped; if something was not understood on the way, in the second.
    pub(super) dropped: [Mask; 2],
    /// Came to something after which anything may happen.
    pub(super) unknown: Mask,
}

impl Outcome {
    fn of_nothing(count: usize) -> Self {
        let none = Mask::none(count);
        Self {
            accepted: [none.clone(), none.clone()],
            dropped: [none.clone(), none.clone()],
            unknown: none,
        }
    }

    /// Was everything on the way understood?
    pub(super) fn is_sure(&self) -> bool {
        let unsure = [&self.accepted[1], &self.dropped[1], &self.unknown];
        unsure.into_iter().all(Mask::is_empty)
    }

    /// Nothing happened to any lane yet.
    fn is_empty(&self) -> bool {
        let all = self.accepted.iter().chain(&self.dropped).chain([&self.unknown]);
        all.into_iter().all(Mask::is_empty)
    }
}

/// Lanes with what the kernel knows of them.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Group {
    mask: Mask,
    /// None if it was set to something unknown.
    mark: Option<u32>,
    /// Was something not understood on the way here?
    tainted: bool,
}

impl Group {
    fn with(&self, mask: Mask) -> Self {
        Self { mask, mark: self.mark, tainted: self.tainted }
    }
}

/// Lanes that differ in what the kernel knows of them.
type Groups = SmallVec<[Group; 2]>;

fn push(groups: &mut Groups, group: Group) {
    if group.mask.is_empty() {
        return;
    }
    let same = |other: &&mut Group| other.mark == group.mark && other.tainted == group.tainted;
    match groups.iter_mut().find(same) {
        Some(other) => other.mask.add(&group.mask),
        None => groups.push(group),
    }
}

/// Lanes by the verdict of a map.
type Split = Rc<Vec<(Verdict, Mask)>>;

/// The machine with the lanes of one question.
pub(super) struct Runner<'m> {
    machine: &'m Machine,
    way: &'m Way,
    lanes: &'m Lanes,
    /// What the lanes have in common in all runs; their own fields are not read from here.
    packet: Packet,
    outcome: Outcome,
    steps: usize,
    /// Conditions that depend on the lane alone, by where they stand in memory: the lanes that were asked, and those of them
    /// for which it holds. A chain of one pod is met by few lanes.
    conditions: FxHashMap<(usize, bool, bool), (Mask, Mask)>,
    dispatches: FxHashMap<(usize, bool, bool), Split>,
    /// The rules of chains without those that no packet of these runs fulfills, by protocol.
    rules: FxHashMap<(ChainIndex, bool, bool, u8), Rules<'m>>,
    /// What became of all lanes in a stage, by what the stage looks at.
    passed: FxHashMap<(usize, [u32; 5]), (Outcome, Groups)>,
}

/// The values of a key.
type Values = SmallVec<[u128; 6]>;

/// Rules, each a list of steps.
type Rules<'m> = Rc<Vec<SmallVec<[&'m Step; 6]>>>;

impl<'m> Runner<'m> {
    /// A runner for these lanes; the packet says what is the same in all runs.
    pub(super) fn new(
        machine: &'m Machine,
        way: &'m Way,
        lanes: &'m Lanes,
        packet: Packet,
    ) -> Self {
        Self {
            machine,
            way,
            lanes,
            packet,
            outcome: Outcome::of_nothing(lanes.lanes.len()),
            steps: 0,
            conditions: FxHashMap::default(),
            dispatches: FxHashMap::default(),
            rules: FxHashMap::default(),
            passed: FxHashMap::default(),
        }
    }

    /// The packet that a lane stands for.
    pub(super) fn packet(&self, lane: usize) -> Packet {
        let mut packet = self.packet.clone();
        if let Some(lane) = self.lanes.lanes.get(lane) {
            match self.lanes.address {
                Field::Source => packet.source = lane.address,
                _ => packet.destination = lane.address,
            }
            match self.lanes.device {
                Field::InDevice => packet.in_device = lane.device,
                _ => packet.out_device = lane.device,
            }
        }
        packet
    }

    /// Changes what the lanes have in common: all but their address and device, and the other address and device.
    pub(super) fn set_traffic(&mut self, protocol: u8, first: u16, second: u16) {
        (self.packet.protocol, self.packet.first, self.packet.second) = (protocol, first, second);
    }

    pub(super) fn set_state(&mut self, state: ConnState, reply: bool) {
        (self.packet.state, self.packet.reply) = (state, reply);
    }

    /// Runs all lanes.
    pub(super) fn run(&mut self) -> Outcome {
        let count = self.lanes.lanes.len();
        self.steps = 0;
        self.outcome = Outcome::of_nothing(count);
        let everything =
            Group { mask: Mask::all(count), mark: Some(self.packet.mark), tainted: false };
        let mut groups: Groups = smallvec![everything.clone()];
        for (number, stage) in self.way.stages.iter().enumerate() {
            // As long as nothing happened to any lane, what happens next depends on the traffic alone.
            let fresh = matches!(groups.as_slice(), [group] if *group == everything)
                && self.outcome.is_empty();
            let key = self.way.reads.get(number).map(|reads| (number, reads.key(&self.packet)));
            let key = key.filter(|_| fresh);
            if let Some((outcome, after)) = key.and_then(|key| self.passed.get(&key)) {
                self.outcome = outcome.clone();
                groups.clone_from(after);
                continue;
            }
            groups = self.stage(stage, groups);
            if let Some(key) = key {
                self.passed.insert(key, (self.outcome.clone(), groups.clone()));
            }
        }
        // What could not be tied to a rule may still drop what is left.
        let sure = self.machine.not_understood.is_empty();
        for group in groups {
            let [clean, tainted] = &mut self.outcome.accepted;
            match (sure, group.tainted) {
                (false, _) => &mut self.outcome.unknown,
                (true, false) => clean,
                (true, true) => tainted,
            }
            .add(&group.mask);
        }
        std::mem::replace(&mut self.outcome, Outcome::of_nothing(0))
    }

    /// Runs lanes through a base chain; what is left of them.
    fn stage(&mut self, stage: &Stage, groups: Groups) -> Groups {
        let Some(hook) = self.machine.chain(stage.chain).and_then(|c| c.hook.as_ref()) else {
            return groups;
        };
        let mut after = Groups::new();
        for group in groups {
            let (mut here, past) = self.bound(hook.point, hook.devices.as_deref(), group);
            past.into_iter().for_each(|group| push(&mut after, group));
            if here.mask.is_empty() {
                continue;
            }
            let mut returned = Groups::new();
            here.tainted |= hook.devices.is_none() && is_at_device(hook.point);
            self.chain(stage.chain, stage, here, 0, &mut returned, &mut after);
            for group in returned {
                if hook.drops {
                    self.drop(&group);
                } else {
                    push(&mut after, group);
                }
            }
        }
        after
    }

    fn drop(&mut self, group: &Group) {
        let [clean, tainted] = &mut self.outcome.dropped;
        if group.tainted { tainted } else { clean }.add(&group.mask);
    }

    /// Which lanes meet a chain that is bound to devices, and which pass by.
    fn bound(
        &self,
        point: HookPoint,
        devices: Option<&[String]>,
        group: Group,
    ) -> (Group, Option<Group>) {
        if !is_at_device(point) {
            return (group, None);
        }
        let Some(devices) = devices else {
            // Either may be.
            let past = Group { tainted: true, ..group.clone() };
            return (group, Some(past));
        };
        let devices: Vec<u128> = devices.iter().filter_map(|name| device_value(name)).collect();
        let field = match point {
            HookPoint::Egress => Field::OutDevice,
            _ => Field::InDevice,
        };
        let here = Mask::of(self.lanes.lanes.len(), |lane| {
            self.device(field, lane).is_some_and(|device| devices.contains(&device))
        });
        let past = group.with(group.mask.without(&here));
        (group.with(group.mask.and(&here)), Some(past))
    }

    fn device(&self, field: Field, lane: usize) -> Option<u128> {
        if self.lanes.device == field {
            return self.lanes.lanes.get(lane).and_then(|lane| lane.device);
        }
        match field {
            Field::InDevice => self.packet.in_device,
            _ => self.packet.out_device,
        }
    }

    fn is_lane_field(&self, field: Field) -> bool {
        field == self.lanes.address || field == self.lanes.device
    }

    /// Is it the same of all lanes, in every run with this protocol?
    fn is_decided(&self, field: Field) -> bool {
        field == Field::Protocol || self.is_constant(field) && !self.is_lane_field(field)
    }

    /// Is it the same in every run?
    fn is_constant(&self, field: Field) -> bool {
        self.is_lane_field(field)
            || matches!(
                field,
                Field::Version
                    | Field::Source
                    | Field::Destination
                    | Field::InDevice
                    | Field::OutDevice
            )
    }

    fn value(&self, field: Field, lane: usize, mark: u32, stage: &Stage) -> Option<u128> {
        Some(match field {
            Field::InDevice if !stage.knows_in_device => 0,
            Field::OutDevice if !stage.knows_out_device => 0,
            Field::InDevice | Field::OutDevice => self.device(field, lane).unwrap_or(0),
            Field::Source | Field::Destination if field == self.lanes.address => {
                self.lanes.lanes.get(lane)?.address
            }
            Field::State if stage.before_conntrack => ConnState::Invalid.bit(),
            Field::Direction
                if stage.before_conntrack
                    || matches!(self.packet.state, ConnState::Invalid | ConnState::Untracked) =>
            {
                return None;
            }
            Field::Mark => mark.into(),
            field => self.packet.value(field)?,
        })
    }

    fn values(&self, key: &[Field], lane: usize, mark: u32, stage: &Stage) -> Option<Values> {
        key.iter().map(|field| self.value(*field, lane, mark, stage)).collect()
    }

    fn holds(&self, condition: &Condition, lane: usize, mark: u32, stage: &Stage) -> bool {
        if let [field] = condition.key.as_slice() {
            return self.value(*field, lane, mark, stage).is_some_and(|v| condition.holds(&[v]));
        }
        self.values(&condition.key, lane, mark, stage).is_some_and(|v| condition.holds(&v))
    }

    /// What a condition says, if it says the same of all lanes.
    fn test_all(&self, condition: &Condition, mark: u32, stage: &Stage) -> Option<bool> {
        let differs = condition.key.iter().any(|field| self.is_lane_field(*field));
        (!differs).then(|| self.holds(condition, 0, mark, stage))
    }

    /// The lanes of a group for which a condition holds.
    fn test(&mut self, condition: &Condition, group: &Group, mark: u32, stage: &Stage) -> Mask {
        if condition.key.iter().all(|field| self.is_constant(*field)) {
            let key = (
                std::ptr::from_ref(condition).addr(),
                stage.knows_in_device,
                stage.knows_out_device,
            );
            if let Some((asked, met)) = self.conditions.get(&key)
                && group.mask.is_within(asked)
            {
                return group.mask.and(met);
            }
            let count = self.lanes.lanes.len();
            let none = || (Mask::none(count), Mask::none(count));
            let (mut asked, mut met) = self.conditions.remove(&key).unwrap_or_else(none);
            for lane in group.mask.without(&asked).iter() {
                if self.holds(condition, lane, mark, stage) {
                    met.set(lane);
                }
            }
            asked.add(&group.mask);
            let here = group.mask.and(&met);
            self.conditions.insert(key, (asked, met));
            return here;
        }
        let mut met = Mask::none(self.lanes.lanes.len());
        if self.is_for_other_traffic(condition, mark, stage) {
            return met;
        }
        for lane in group.mask.iter() {
            if self.holds(condition, lane, mark, stage) {
                met.set(lane);
            }
        }
        met
    }

    /// Does what all lanes have in common keep a condition from holding, whatever their addresses are?
    fn is_for_other_traffic(&self, condition: &Condition, mark: u32, stage: &Stage) -> bool {
        let others = condition.key.iter().enumerate();
        let mut others = others.filter(|(_, field)| !self.is_lane_field(**field));
        let is_plain = !condition.negated && condition.mask().is_none();
        is_plain
            && others.any(|(part, field)| {
                let value = self.value(*field, 0, mark, stage);
                value.is_none_or(|value| !condition.set.has_in_part(part, value))
            })
    }

    /// The lanes of a group by the verdict of a map; those without one are in none.
    fn split(&mut self, step: &Step, group: &Group, mark: u32, stage: &Stage) -> Split {
        let Step::Dispatch { key, map } = step else { return Split::default() };
        let at = std::ptr::from_ref(step).addr();
        let at = (at, stage.knows_in_device, stage.knows_out_device);
        let constant = key.iter().all(|field| self.is_constant(*field));
        if constant && let Some(split) = self.dispatches.get(&at) {
            return Rc::clone(split);
        }
        let count = self.lanes.lanes.len();
        let everything = Mask::all(count);
        let asked = if constant { &everything } else { &group.mask };
        let mut split: Vec<(Verdict, Mask)> = Vec::new();
        for lane in asked.iter() {
            let values = self.values(key, lane, mark, stage);
            let Some(verdict) = values.and_then(|v| map.value(&v).copied()) else { continue };
            match split.iter_mut().find(|(other, _)| *other == verdict) {
                Some((_, mask)) => mask.set(lane),
                None => {
                    let mut mask = Mask::none(count);
                    mask.set(lane);
                    split.push((verdict, mask));
                }
            }
        }
        let split = Rc::new(split);
        if constant {
            self.dispatches.insert(at, Rc::clone(&split));
        }
        split
    }

    /// Runs a chain. Lanes that come to its end or return are in `returned`, those that are let through in `accepted`.
    fn chain(
        &mut self,
        index: ChainIndex,
        stage: &Stage,
        group: Group,
        depth: usize,
        returned: &mut Groups,
        accepted: &mut Groups,
    ) {
        let Some(rules) = self.rules_of(index, stage).filter(|_| depth <= MOST_JUMPS) else {
            self.outcome.unknown.add(&group.mask);
            return;
        };
        let (mut live, mut next): (Groups, Groups) = (smallvec![group], Groups::new());
        for rule in rules.iter() {
            for group in live.drain(..) {
                self.rule(rule, stage, group, depth, &mut next, returned, accepted);
            }
            if next.is_empty() {
                return;
            }
            std::mem::swap(&mut live, &mut next);
        }
        live.into_iter().for_each(|group| push(returned, group));
    }

    /// What is left of the rules of a chain when what all runs with this protocol have in common is decided.
    fn rules_of(&mut self, index: ChainIndex, stage: &Stage) -> Option<Rules<'m>> {
        let protocol = self.packet.protocol;
        let key = (index, stage.knows_in_device, stage.knows_out_device, protocol);
        if let Some(rules) = self.rules.get(&key) {
            return Some(Rc::clone(rules));
        }
        let chain = self.machine.chain(index)?;
        let mut rules = Vec::new();
        'rules: for rule in &chain.rules {
            let mut steps: SmallVec<[&Step; 6]> = SmallVec::new();
            for step in &rule.steps {
                if let Step::Match(condition) = step
                    && condition.key.iter().all(|field| self.is_decided(*field))
                {
                    if self.holds(condition, 0, 0, stage) {
                        continue;
                    }
                    // What comes before it in the rule may change the mark, or be a question of its own.
                    if steps.iter().all(|step| matches!(step, Step::Match(_))) {
                        continue 'rules;
                    }
                }
                steps.push(step);
            }
            rules.push(steps);
        }
        let rules = Rc::new(rules);
        self.rules.insert(key, Rc::clone(&rules));
        Some(rules)
    }

    #[expect(clippy::too_many_arguments, reason = "where lanes can go to")]
    fn rule(
        &mut self,
        steps: &[&'m Step],
        stage: &Stage,
        mut group: Group,
        depth: usize,
        next: &mut Groups,
        returned: &mut Groups,
        accepted: &mut Groups,
    ) {
        for step in steps {
            if group.mask.is_empty() {
                return;
            }
            self.steps += 1;
            if self.steps > MOST_STEPS {
                self.outcome.unknown.add(&group.mask);
                return;
            }
            match step {
                Step::Match(condition) => {
                    let reads_mark = condition.key.contains(&Field::Mark);
                    match group.mark {
                        None if reads_mark => {
                            group.tainted = true;
                            push(next, group.clone());
                        }
                        mark => match self.test_all(condition, mark.unwrap_or(0), stage) {
                            Some(true) => {}
                            Some(false) => {
                                push(next, group);
                                return;
                            }
                            None => {
                                let met = self.test(condition, &group, mark.unwrap_or(0), stage);
                                group.mask.remove(&met);
                                let rest = std::mem::replace(&mut group.mask, met);
                                push(next, group.with(rest));
                            }
                        },
                    }
                }
                Step::Free(_) => push(next, group.clone()),
                Step::UnknownMatch(_) => {
                    group.tainted = true;
                    push(next, group.clone());
                }
                Step::Opaque(_) => {
                    self.outcome.unknown.add(&group.mask);
                    return;
                }
                Step::Mark { and, xor } => {
                    let known = if *and == 0 { Some(0) } else { group.mark };
                    group.mark = known.map(|mark| (mark & and) ^ xor);
                }
                Step::UnknownMark(_) => group.mark = None,
                Step::Verdict(verdict) => {
                    self.verdict(*verdict, stage, group, depth, next, returned, accepted);
                    return;
                }
                Step::Dispatch { key, .. }
                    if key.contains(&Field::Mark) && group.mark.is_none() =>
                {
                    self.outcome.unknown.add(&group.mask);
                    return;
                }
                Step::Dispatch { .. } => {
                    let split = self.split(step, &group, group.mark.unwrap_or(0), stage);
                    for (verdict, mask) in split.iter() {
                        let part = group.with(group.mask.and(mask));
                        group.mask.remove(mask);
                        if !part.mask.is_empty() {
                            self.verdict(*verdict, stage, part, depth, next, returned, accepted);
                        }
                    }
                }
            }
        }
        push(next, group);
    }

    #[expect(clippy::too_many_arguments, reason = "where lanes can go to")]
    fn verdict(
        &mut self,
        verdict: Verdict,
        stage: &Stage,
        group: Group,
        depth: usize,
        next: &mut Groups,
        returned: &mut Groups,
        accepted: &mut Groups,
    ) {
        match verdict {
            Verdict::Accept => push(accepted, group),
            Verdict::Drop => self.drop(&group),
            Verdict::Return => push(returned, group),
            Verdict::Continue => push(next, group),
            Verdict::Jump(chain) => self.chain(chain, stage, group, depth + 1, next, accepted),
            Verdict::Goto(chain) => self.chain(chain, stage, group, depth + 1, returned, accepted),
        }
    }
}

fn is_at_device(point: HookPoint) -> bool {
    matches!(point, HookPoint::Ingress | HookPoint::Egress)
}
