//! The rule machine, with all packets of a question at once: what is walked through the rules is a set of packets.

use super::diagram::{Diagram, Diagrams};
use super::packets::{Packets, Value, has_direction};
use super::sets::Sets;
use crate::machine::device_value;
use crate::machine::{ChainIndex, Field, HookPoint, Machine, Range, Stage, Step, Verdict};

/// As deep as the kernel lets chains call each other.
const DEEPEST: usize = 16;
/// After so many rules of one question nothing is known of the packets that are left.
const MOST_RULES: usize = 4_000_000;

/// Packets that came to the same place with the same mark.
#[derive(Clone)]
struct Flow {
    packets: Diagram,
    /// None after it was set to what nobody knows.
    mark: Option<u32>,
    /// Did they come here by a choice that was not understood?
    doubtful: bool,
}

/// Flows that wait at one place.
#[derive(Default)]
struct Flows(Vec<Flow>);

impl Flows {
    fn add(&mut self, diagrams: &Diagrams, flow: Flow) {
        if diagrams.is_none(&flow.packets) {
            return;
        }
        let same = |other: &&mut Flow| (other.mark, other.doubtful) == (flow.mark, flow.doubtful);
        match self.0.iter_mut().find(same) {
            Some(other) => other.packets = diagrams.or(&other.packets, &flow.packets),
            None => self.0.push(flow),
        }
    }
}

/// What can become of packets. A packet can be in several of these, where there are choices.
pub(super) struct Fates {
    /// They pass by choices that are understood.
    pub(super) pass: Diagram,
    /// They pass if what was not understood turns out one way.
    pub(super) may_pass: Diagram,
    /// They are dropped by choices that are understood.
    pub(super) drop: Diagram,
    /// They are dropped if what was not understood turns out one way.
    pub(super) may_drop: Diagram,
    /// They come to something after which anything may happen.
    pub(super) unknown: Diagram,
}

/// A walk of all packets of a question.
pub(super) struct Execution<'e> {
    machine: &'e Machine,
    diagrams: &'e Diagrams,
    sets: &'e Sets,
    packets: Packets,
    with_direction: Diagram,
    fates: Fates,
    rules: usize,
}

/// Where packets go that leave a rule.
struct Exits<'x> {
    next: &'x mut Flows,
    returned: &'x mut Flows,
    accepted: &'x mut Flows,
}

impl<'e> Execution<'e> {
    /// What can become of packets in these stages.
    pub(super) fn run(
        machine: &'e Machine,
        diagrams: &'e Diagrams,
        sets: &'e Sets,
        packets: Packets,
        stages: &[Stage],
    ) -> Fates {
        let none = || diagrams.none();
        let fates = Fates {
            pass: none(),
            may_pass: none(),
            drop: none(),
            may_drop: none(),
            unknown: none(),
        };
        let with_direction = has_direction(diagrams);
        let mut execution =
            Self { machine, diagrams, sets, packets, with_direction, fates, rules: 0 };
        let start = Flow { packets: diagrams.all(), mark: Some(0), doubtful: false };
        let mut flows = vec![start];
        for stage in stages {
            let mut after = Flows::default();
            for flow in flows {
                execution.stage(stage, flow, &mut after);
            }
            flows = after.0;
        }
        for flow in flows {
            let fates = &mut execution.fates;
            let end = match (machine.not_understood.is_empty(), flow.doubtful) {
                // It may drop anything.
                (false, _) => &mut fates.unknown,
                (true, true) => &mut fates.may_pass,
                (true, false) => &mut fates.pass,
            };
            *end = diagrams.or(end, &flow.packets);
        }
        execution.fates
    }

    fn stage(&mut self, stage: &Stage, flow: Flow, after: &mut Flows) {
        let (machine, diagrams) = (self.machine, self.diagrams);
        let Some(hook) = machine.chain(stage.chain).and_then(|chain| chain.hook.as_ref()) else {
            after.add(diagrams, flow);
            return;
        };
        let device = match hook.point {
            HookPoint::Ingress => Some(self.packets.in_device),
            HookPoint::Egress => Some(self.packets.out_device),
            _ => None,
        };
        let mut here = flow.clone();
        match (&hook.devices, device) {
            (Some(names), device) => {
                let names: Vec<u128> = names.iter().filter_map(|name| device_value(name)).collect();
                let here_device = device.unwrap_or(self.packets.in_device);
                let bound = match here_device {
                    Value::Is(device) => diagrams.constant(names.contains(&device)),
                    Value::In(block) => {
                        let points: Vec<Range> = names.into_iter().map(Range::one).collect();
                        self.sets.within(diagrams, block, &points)
                    }
                    Value::Missing => diagrams.none(),
                };
                here.packets = diagrams.and(&flow.packets, &bound);
                let packets = diagrams.minus(&flow.packets, &bound);
                after.add(diagrams, Flow { packets, ..flow });
            }
            (None, Some(_)) => {
                // The listing does not say where the chain is bound: they may meet it or not.
                here.doubtful = true;
                after.add(diagrams, here.clone());
            }
            (None, None) => {}
        }
        let returned = self.chain(stage.chain, stage, here, 0, after);
        for flow in returned.0 {
            if hook.drops { self.drop(&flow) } else { after.add(diagrams, flow) }
        }
    }

    fn drop(&mut self, flow: &Flow) {
        let fates = &mut self.fates;
        let end = if flow.doubtful { &mut fates.may_drop } else { &mut fates.drop };
        *end = self.diagrams.or(end, &flow.packets);
    }

    fn lose(&mut self, flow: &Flow) {
        self.fates.unknown = self.diagrams.or(&self.fates.unknown, &flow.packets);
    }

    /// Those that come to the end of a chain, or return from it.
    fn chain(
        &mut self,
        index: ChainIndex,
        stage: &Stage,
        flow: Flow,
        depth: usize,
        accepted: &mut Flows,
    ) -> Flows {
        let mut returned = Flows::default();
        if self.diagrams.is_none(&flow.packets) {
            return returned;
        }
        let Some(chain) = self.machine.chain(index).filter(|_| depth <= DEEPEST) else {
            self.lose(&flow);
            return returned;
        };
        let mut live = vec![flow];
        for rule in &chain.rules {
            let mut next = Flows::default();
            for flow in live {
                let exits =
                    Exits { next: &mut next, returned: &mut returned, accepted: &mut *accepted };
                self.rule(&rule.steps, stage, flow, depth, exits);
            }
            live = next.0;
            if live.is_empty() {
                return returned;
            }
        }
        live.into_iter().for_each(|flow| returned.add(self.diagrams, flow));
        returned
    }

    fn rule(
        &mut self,
        steps: &[Step],
        stage: &Stage,
        mut flow: Flow,
        depth: usize,
        mut exits: Exits<'_>,
    ) {
        let diagrams = self.diagrams;
        self.rules += 1;
        if self.rules > MOST_RULES || diagrams.is_full() {
            self.lose(&flow);
            return;
        }
        // What the conditions so far say; it is not applied before something else follows.
        let mut held = diagrams.all();
        for step in steps {
            if let Step::Match(condition) = step
                && (flow.mark.is_some() || !condition.key.contains(&Field::Mark))
            {
                let fulfills = self.values(&condition.key, stage, flow.mark.unwrap_or(0));
                let fulfills = self.sets.condition(diagrams, condition, &fulfills);
                held = diagrams.and(&held, &self.present(&condition.key, stage, fulfills));
                if diagrams.is_none(&held) {
                    exits.next.add(diagrams, flow);
                    return;
                }
                continue;
            }
            split(diagrams, &mut flow, &mut held, exits.next);
            if diagrams.is_none(&flow.packets) {
                return;
            }
            match step {
                // Here the mark is not known.
                Step::Match(_) | Step::UnknownMatch(_) => {
                    flow.doubtful = true;
                    exits.next.add(diagrams, flow.clone());
                }
                Step::Free(_) => exits.next.add(diagrams, flow.clone()),
                Step::Opaque(_) => {
                    self.lose(&flow);
                    return;
                }
                Step::Mark { and: 0, xor } => flow.mark = Some(*xor),
                Step::Mark { and, xor } => flow.mark = flow.mark.map(|mark| (mark & and) ^ xor),
                Step::UnknownMark(_) => flow.mark = None,
                Step::Verdict(verdict) => {
                    self.verdict(*verdict, stage, flow, depth, &mut exits);
                    return;
                }
                Step::Dispatch { key, .. } if flow.mark.is_none() && key.contains(&Field::Mark) => {
                    self.lose(&flow);
                    return;
                }
                Step::Dispatch { key, map } => {
                    let values = self.values(key, stage, flow.mark.unwrap_or(0));
                    for (verdict, region) in self.sets.map(diagrams, map, &values).iter() {
                        let region = self.present(key, stage, region.clone());
                        let packets = diagrams.and(&flow.packets, &region);
                        if diagrams.is_none(&packets) {
                            continue;
                        }
                        flow.packets = diagrams.minus(&flow.packets, &region);
                        let part = Flow { packets, ..flow.clone() };
                        self.verdict(*verdict, stage, part, depth, &mut exits);
                    }
                }
            }
        }
        split(diagrams, &mut flow, &mut held, exits.next);
        exits.next.add(diagrams, flow);
    }

    fn verdict(
        &mut self,
        verdict: Verdict,
        stage: &Stage,
        flow: Flow,
        depth: usize,
        exits: &mut Exits<'_>,
    ) {
        let diagrams = self.diagrams;
        match verdict {
            Verdict::Accept => exits.accepted.add(diagrams, flow),
            Verdict::Drop => self.drop(&flow),
            Verdict::Return => exits.returned.add(diagrams, flow),
            Verdict::Continue => exits.next.add(diagrams, flow),
            Verdict::Jump(chain) | Verdict::Goto(chain) => {
                let back = self.chain(chain, stage, flow, depth + 1, exits.accepted);
                let to = match verdict {
                    Verdict::Jump(_) => &mut *exits.next,
                    _ => &mut *exits.returned,
                };
                back.0.into_iter().for_each(|flow| to.add(diagrams, flow));
            }
        }
    }

    fn values(&self, key: &[Field], stage: &Stage, mark: u32) -> Vec<Value> {
        key.iter().map(|field| self.packets.seen(*field, stage, mark)).collect()
    }

    /// Of some packets those that have all fields of a key.
    fn present(&self, key: &[Field], stage: &Stage, packets: Diagram) -> Diagram {
        if key.contains(&Field::Direction) && !stage.before_conntrack {
            return self.diagrams.and(&packets, &self.with_direction);
        }
        packets
    }
}

/// Lets those go on that fulfill what was asked; the others go to the next rule.
fn split(diagrams: &Diagrams, flow: &mut Flow, held: &mut Diagram, next: &mut Flows) {
    let held = std::mem::replace(held, diagrams.all());
    let others = diagrams.minus(&flow.packets, &held);
    next.add(diagrams, Flow { packets: others, ..flow.clone() });
    flow.packets = diagrams.and(&flow.packets, &held);
}
