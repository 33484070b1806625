//! One packet, one step after the other, with a trace.
//!
//! Where the ruleset leaves the kernel a choice (a rate limit), or the machine does not understand it, every choice is
//! tried: a packet has one [`Run`] for each.

use super::field::{ConnState, Field, device_value};
use super::packet::{Packet, Path};
use super::{ChainIndex, Machine, NotUnderstood, Stage, Step, Verdict};
use std::collections::BTreeSet;

/// How deep chains may call each other; the kernel allows 16.
pub(crate) const MOST_JUMPS: usize = 16;
/// A run of more steps is not understood.
const MOST_STEPS: usize = 200_000;
/// How many runs of one packet are tried.
const MOST_RUNS: usize = 1024;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "it passes, it is gone, or nobody knows")]
pub enum Fate {
    /// Every base chain let it pass.
    Accepted,
    /// A chain dropped or rejected it.
    Dropped,
    /// It came to something that was not understood.
    Unknown,
}

/// A run of a packet through the machine.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Run {
    /// What became of it.
    pub fate: Fate,
    /// The rules that it met and that did something, in order.
    pub trace: Vec<TraceStep>,
    /// What it met that was not understood.
    pub not_understood: Vec<NotUnderstood>,
    /// Did the kernel have a choice?
    pub free: bool,
}

/// A rule that did something to a packet, or the end of a chain.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TraceStep {
    /// Family, table and chain.
    pub chain: String,
    /// The rule's handle or line; `policy` for the end of a base chain.
    pub place: String,
    /// The rule as text.
    pub rule: String,
    /// What it did.
    pub action: String,
    /// Its comment, which names the policy behind it.
    pub comment: Option<String>,
}

impl std::fmt::Display for TraceStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.chain, self.place, self.rule)?;
        if self.rule != self.action && !self.rule.ends_with(&self.action) {
            write!(f, " => {}", self.action)?;
        }
        if let Some(comment) = &self.comment {
            write!(f, "  # {comment}")?;
        }
        Ok(())
    }
}

impl Machine {
    /// Every run of a packet on a way. There is one unless the kernel has a choice or something is not understood.
    #[must_use]
    pub fn run(&self, packet: &Packet, path: Path) -> Vec<Run> {
        self.walk(packet, path, true)
    }

    /// Everything that can become of a packet: as [`Machine::run`], without the traces.
    #[must_use]
    pub fn fates(&self, packet: &Packet, path: Path) -> BTreeSet<Fate> {
        self.walk(packet, path, false).into_iter().map(|run| run.fate).collect()
    }

    fn walk(&self, packet: &Packet, path: Path, traces: bool) -> Vec<Run> {
        let stages = self.stages(path, packet.v6);
        let mut runs = Vec::new();
        let mut choices: Vec<bool> = Vec::new();
        loop {
            let mut walk = Walk {
                machine: self,
                packet: packet.clone(),
                mark_known: true,
                choices: &choices,
                chosen: Vec::new(),
                traces,
                steps: 0,
                run: Run {
                    fate: Fate::Accepted,
                    trace: Vec::new(),
                    not_understood: self.not_understood.clone(),
                    free: false,
                },
            };
            walk.run.fate = match walk.stages(&stages) {
                // What could not be tied to a rule may drop anything.
                Fate::Accepted if !self.not_understood.is_empty() => Fate::Unknown,
                fate => fate,
            };
            let mut chosen = walk.chosen;
            runs.push(walk.run);
            // The next combination of choices: the last one that was `false` becomes `true`.
            while chosen.pop_if(|choice| *choice).is_some() {}
            match chosen.last_mut() {
                Some(choice) if runs.len() < MOST_RUNS => *choice = true,
                Some(_) => {
                    let mut last = Run {
                        fate: Fate::Unknown,
                        trace: Vec::new(),
                        not_understood: Vec::new(),
                        free: false,
                    };
                    last.not_understood.push(NotUnderstood::new("ruleset", "too many choices"));
                    runs.push(last);
                    return runs;
                }
                None => return runs,
            }
            choices = chosen;
        }
    }
}

/// How a chain ended.
enum End {
    Fate(Fate),
    Return,
}

struct Walk<'a> {
    machine: &'a Machine,
    packet: Packet,
    mark_known: bool,
    choices: &'a [bool],
    chosen: Vec<bool>,
    traces: bool,
    steps: usize,
    run: Run,
}

impl Walk<'_> {
    fn stages(&mut self, stages: &[Stage]) -> Fate {
        for stage in stages {
            let chain = self.machine.chain(stage.chain);
            let Some(hook) = chain.and_then(|chain| chain.hook.as_ref()) else { continue };
            let device = match hook.point {
                super::HookPoint::Egress => self.packet.out_device,
                _ => self.packet.in_device,
            };
            let bound = matches!(hook.point, super::HookPoint::Ingress | super::HookPoint::Egress);
            match &hook.devices {
                Some(devices) => {
                    let here = |name: &String| device.is_some() && device_value(name) == device;
                    if !devices.iter().any(here) {
                        continue;
                    }
                }
                None if bound => {
                    let name = self.machine.chain_name(stage.chain);
                    if !self.unknown(&NotUnderstood::new(name, UNKNOWN_DEVICE)) {
                        continue;
                    }
                }
                None => {}
            }
            match self.chain(stage.chain, stage, 0) {
                End::Fate(Fate::Accepted) => {}
                End::Fate(other) => return other,
                End::Return => {
                    let action = if hook.drops { "drop" } else { "accept" };
                    self.note(stage.chain, "policy", "end of the chain", action, None);
                    if hook.drops {
                        return Fate::Dropped;
                    }
                }
            }
        }
        Fate::Accepted
    }

    fn choose(&mut self) -> bool {
        let choice = self.choices.get(self.chosen.len()).copied().unwrap_or(false);
        self.chosen.push(choice);
        choice
    }

    fn unknown(&mut self, what: &NotUnderstood) -> bool {
        self.run.not_understood.push(what.clone());
        self.choose()
    }

    fn note(
        &mut self,
        chain: ChainIndex,
        place: &str,
        rule: &str,
        action: &str,
        comment: Option<&String>,
    ) {
        if !self.traces {
            return;
        }
        self.run.trace.push(TraceStep {
            chain: self.machine.chain_name(chain),
            place: place.to_owned(),
            rule: rule.to_owned(),
            action: action.to_owned(),
            comment: comment.cloned(),
        });
    }

    fn value(&self, field: Field, stage: &Stage) -> Option<u128> {
        match field {
            // A missing device has the empty name, so that `!=` holds for it.
            Field::InDevice => {
                Some(self.packet.in_device.filter(|_| stage.knows_in_device).unwrap_or(0))
            }
            Field::OutDevice => {
                Some(self.packet.out_device.filter(|_| stage.knows_out_device).unwrap_or(0))
            }
            Field::State if stage.before_conntrack => Some(ConnState::Invalid.bit()),
            Field::Direction if stage.before_conntrack => None,
            // Packets that conntrack knows nothing of have no direction.
            Field::Direction
                if matches!(self.packet.state, ConnState::Untracked | ConnState::Invalid) =>
            {
                None
            }
            field => self.packet.value(field),
        }
    }

    fn values(&self, key: &[Field], stage: &Stage) -> Option<Vec<u128>> {
        key.iter().map(|field| self.value(*field, stage)).collect()
    }

    fn chain(&mut self, index: ChainIndex, stage: &Stage, depth: usize) -> End {
        let machine = self.machine;
        let Some(chain) = machine.chain(index) else { return End::Fate(Fate::Unknown) };
        if depth > MOST_JUMPS {
            self.run.not_understood.push(NotUnderstood::new(
                machine.chain_name(index),
                "chains that call each other without end",
            ));
            return End::Fate(Fate::Unknown);
        }
        for rule in &chain.rules {
            self.steps += 1 + rule.steps.len();
            if self.steps > MOST_STEPS {
                let name = machine.chain_name(index);
                self.run.not_understood.push(NotUnderstood::new(name, "too many rules to follow"));
                return End::Fate(Fate::Unknown);
            }
            let mut verdict = None;
            let mut changes = false;
            for step in &rule.steps {
                let goes_on = match step {
                    Step::Match(condition) => {
                        let mark = condition.key.contains(&Field::Mark) && !self.mark_known;
                        if mark {
                            self.unknown(&NotUnderstood::new(
                                rule.place.clone(),
                                "a mark from elsewhere",
                            ))
                        } else {
                            self.values(&condition.key, stage)
                                .is_some_and(|values| condition.holds(&values))
                        }
                    }
                    Step::Free(_) => {
                        self.run.free = true;
                        self.choose()
                    }
                    Step::UnknownMatch(what) => self.unknown(what),
                    Step::Opaque(what) => {
                        self.run.not_understood.push(what.clone());
                        let text = machine.rule_text(index, rule);
                        self.note(index, &rule.place, &text, "unknown", rule.comment.as_ref());
                        return End::Fate(Fate::Unknown);
                    }
                    Step::Mark { and, xor } => {
                        self.packet.mark = (self.packet.mark & and) ^ xor;
                        self.mark_known |= *and == 0;
                        changes = true;
                        true
                    }
                    Step::UnknownMark(_) => {
                        self.mark_known = false;
                        changes = true;
                        true
                    }
                    Step::Verdict(ends) => {
                        verdict = Some(*ends);
                        false
                    }
                    Step::Dispatch { key, .. }
                        if key.contains(&Field::Mark) && !self.mark_known =>
                    {
                        let what = NotUnderstood::new(rule.place.clone(), "a mark from elsewhere");
                        self.run.not_understood.push(what);
                        return End::Fate(Fate::Unknown);
                    }
                    Step::Dispatch { key, map } => {
                        let values = self.values(key, stage);
                        verdict = values.and_then(|values| map.value(&values).copied());
                        verdict.is_none()
                    }
                };
                if !goes_on {
                    break;
                }
            }
            let acts = verdict.is_some_and(|v| v != Verdict::Continue) || changes;
            if acts && self.traces {
                let text = machine.rule_text(index, rule);
                let action = verdict.map_or_else(|| text.clone(), |v| machine.verdict_text(v));
                self.note(index, &rule.place, &text, &action, rule.comment.as_ref());
            }
            match verdict {
                None | Some(Verdict::Continue) => {}
                Some(Verdict::Accept) => return End::Fate(Fate::Accepted),
                Some(Verdict::Drop) => return End::Fate(Fate::Dropped),
                Some(Verdict::Return) => return End::Return,
                Some(Verdict::Goto(next)) => return self.chain(next, stage, depth + 1),
                Some(Verdict::Jump(next)) => match self.chain(next, stage, depth + 1) {
                    End::Return => {}
                    fate @ End::Fate(_) => return fate,
                },
            }
        }
        End::Return
    }
}

/// What is said of a chain of the netdev family in a listing without devices.
pub(crate) const UNKNOWN_DEVICE: &str =
    "the listing does not say which device this chain is bound to; `nft list chains` does";
