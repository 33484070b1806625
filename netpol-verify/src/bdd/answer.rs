//! What was found, as the result of a proof.

use super::question::{About, Question};
use crate::machine::{ConnState, Fate, Machine, NotUnderstood, Packet, Path, Run};
use crate::specification::Specification;
use crate::{Conclusion, Refutation};
use netpol_core::Established;
use std::collections::BTreeSet;

/// How many packets a refutation shows.
const MOST_SHOWN: usize = 8;

/// A packet of a question with which something is wrong, or may be.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    pub(super) packet: Packet,
    pub(super) question: Question,
    /// Must it pass?
    pub(super) allowed: bool,
}

/// All that was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    wrong: Vec<Wrong>,
    unsure: Vec<Wrong>,
}

impl Findings {
    pub(super) fn add(&mut self, wrong: Wrong, is_sure: bool) {
        if is_sure { &mut self.wrong } else { &mut self.unsure }.push(wrong);
    }

    pub(super) fn conclusion(
        mut self,
        machine: &Machine,
        own: &Machine,
        specification: &Specification<'_>,
    ) -> Conclusion {
        let telling = |wrong: &Wrong| {
            let state = match wrong.packet.state {
                ConnState::New => 0,
                ConnState::Established => 1,
                _ => 2,
            };
            (state, wrong.question.path(), wrong.packet.clone())
        };
        self.wrong.sort_by_key(telling);
        self.unsure.sort_by_key(telling);
        let (mut refutations, mut doubts) = (Vec::new(), BTreeSet::new());
        for wrong in self.wrong.iter().take(MOST_SHOWN) {
            match wrong.confirm(machine, own, specification) {
                Ok(mut refutation) => {
                    let passes = |run: &Run| run.fate == Fate::Accepted;
                    let mut alone = own.run(&wrong.packet, wrong.question.path()).into_iter();
                    refutation.dropped_by_others = wrong.allowed && alone.all(|run| passes(&run));
                    refutations.push(refutation);
                }
                Err(doubt) => {
                    doubts.insert(doubt);
                }
            }
        }
        if !refutations.is_empty() {
            return Conclusion::Refuted(refutations);
        }
        if !doubts.is_empty() {
            return Conclusion::NotProved { not_understood: doubts, example: None };
        }
        let mut addresses = [false, true].into_iter().flat_map(|v6| specification.owners(v6));
        if !addresses.any(|(_, pod)| specification.is_local(*pod)) {
            let what = "no pod of this node has an address in the manifests: there are no packets to speak of";
            let not_understood = BTreeSet::from([NotUnderstood::new("manifests", what)]);
            return Conclusion::NotProved { not_understood, example: None };
        }
        let mut not_understood: BTreeSet<NotUnderstood> =
            machine.not_understood.iter().cloned().collect();
        for unsure in &self.unsure {
            let runs = machine.run(&unsure.packet, unsure.question.path());
            not_understood.extend(runs.into_iter().flat_map(|run| run.not_understood));
        }
        match self.unsure.first() {
            Some(unsure) => {
                let runs = unsure.runs(machine, own);
                let example = unsure.refutation(specification, runs.first());
                Conclusion::NotProved { not_understood, example: Some(Box::new(example)) }
            }
            None if !not_understood.is_empty() => {
                Conclusion::NotProved { not_understood, example: None }
            }
            None => Conclusion::Proved,
        }
    }
}

impl Wrong {
    /// Its runs, one packet after the other: through netpol's own rules, if these must do what is expected and do not.
    fn runs(&self, machine: &Machine, own: &Machine) -> Vec<Run> {
        let path = self.question.path();
        if self.question.by_own {
            let right = if self.allowed { Fate::Accepted } else { Fate::Dropped };
            let runs = own.run(&self.packet, path);
            if self.allowed || runs.iter().any(|run| run.fate != right) {
                return runs;
            }
        }
        machine.run(&self.packet, path)
    }

    /// The refutation, if machine and specification say the same of this packet alone.
    fn confirm(
        &self,
        machine: &Machine,
        own: &Machine,
        specification: &Specification<'_>,
    ) -> Result<Refutation, NotUnderstood> {
        let runs = self.runs(machine, own);
        let wrong = if self.allowed { Fate::Dropped } else { Fate::Accepted };
        let run = runs.iter().find(|run| run.fate == wrong);
        let refutation = self.refutation(specification, run);
        let packet = &self.packet;
        let re_evaluates = specification.options().established() == Established::ReEvaluate;
        let judged = match packet.state {
            ConnState::New | ConnState::Untracked | ConnState::Invalid => true,
            ConnState::Established => re_evaluates && !packet.reply,
            ConnState::Related => false,
        };
        let policies = !matches!(self.question.about, About::PastPods | About::Guard(..));
        let says = !policies
            || if judged {
                specification.judge(packet, self.question.path()).allowed == self.allowed
            } else {
                self.allowed
            };
        if run.is_some() && says {
            return Ok(refutation);
        }
        let what = format!("the two ways to judge {packet} differ: this is an error of the engine");
        Err(NotUnderstood::new("decision diagrams", what))
    }

    fn refutation(&self, specification: &Specification<'_>, run: Option<&Run>) -> Refutation {
        let path = self.question.path();
        let open = !matches!(
            self.packet.state,
            ConnState::New | ConnState::Untracked | ConnState::Invalid
        );
        let pod = |index| specification.pod(index).map(|pod| pod.id().to_string());
        let reasons = match self.question.about {
            About::PastPods => vec!["no pod of this node is an end of it".to_owned()],
            About::Guard(index, _) => {
                let word = if self.allowed { "that belongs" } else { "that does not belong" };
                let pod = pod(index).unwrap_or_default();
                vec![format!("from the device of {pod} with an address {word} there")]
            }
            _ => {
                let judgement = specification.judge(&self.packet, path);
                if self.allowed && open && !judgement.allowed {
                    vec![
                        "it belongs to a connection that was let through (NP-60, NP-62)".to_owned(),
                    ]
                } else {
                    judgement.reasons
                }
            }
        };
        let trace = run.map(|run| run.trace.clone()).unwrap_or_default();
        let cause = match (run, trace.last()) {
            (Some(run), _) if !run.not_understood.is_empty() => {
                let all: Vec<String> = run.not_understood.iter().map(ToString::to_string).collect();
                format!("{} was not understood", all.join("; "))
            }
            (_, Some(step)) if path != Path::Arrival || self.allowed => {
                format!("{} {} decides", step.chain, step.place)
            }
            _ => "no rule denies it".to_owned(),
        };
        Refutation {
            packet: self.packet.clone(),
            path,
            kernel: run.map_or(Fate::Unknown, |run| run.fate),
            allowed: self.allowed,
            reasons,
            trace,
            dropped_by_others: false,
            cause,
        }
    }
}
