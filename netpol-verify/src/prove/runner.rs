//! Many packets through the machine at once.
//!
//! What a condition says about all lanes is asked once. This is another engine than [`Machine::run`], which takes one packet:
//! tests hold them equal, and what the prover refutes is run there again.

use super::lanes::{Group, Groups, Lanes, Outcome, push};
use super::mask::Mask;
use super::reads::Way;
use crate::machine::{
    ChainIndex, ConnState, Field, HookPoint, MOST_JUMPS, Machine, Packet, Stage, Step, Verdict,
    device_value,
};
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};
use std::rc::Rc;

/// A run of more steps is not understood: chains can be written that call each other without end.
const MOST_STEPS: usize = 1_000_000;

/// Lanes by the verdict of a map.
pub(super) type Split = Rc<Vec<(Verdict, Mask)>>;

/// The machine with the lanes of one question.
pub(super) struct Runner<'m> {
    pub(super) machine: &'m Machine,
    pub(super) way: &'m Way,
    pub(super) lanes: &'m Lanes,
    /// What the lanes have in common in all runs; their own fields are not read from here.
    pub(super) packet: Packet,
    pub(super) outcome: Outcome,
    pub(super) steps: usize,
    /// Conditions that depend on the lane alone, by where they stand in memory: the lanes that were asked, and those of them
    /// for which it holds. A chain of one pod is met by few lanes.
    pub(super) conditions: FxHashMap<(usize, bool, bool), (Mask, Mask)>,
    pub(super) dispatches: FxHashMap<(usize, bool, bool), Split>,
    /// The rules of chains without those that no packet of these runs fulfills, by protocol.
    pub(super) rules: FxHashMap<(ChainIndex, bool, bool, u8), Rules<'m>>,
    /// What became of all lanes in a stage, by what the stage looks at.
    pub(super) passed: FxHashMap<(usize, [u32; 5]), (Outcome, Groups)>,
}

/// The values of a key.
pub(super) type Values = SmallVec<[u128; 6]>;

/// Rules, each a list of steps.
pub(super) type Rules<'m> = Rc<Vec<SmallVec<[&'m Step; 6]>>>;

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

    pub(super) fn device(&self, field: Field, lane: usize) -> Option<u128> {
        if self.lanes.device == field {
            return self.lanes.lanes.get(lane).and_then(|lane| lane.device);
        }
        match field {
            Field::InDevice => self.packet.in_device,
            _ => self.packet.out_device,
        }
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
