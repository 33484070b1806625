//! What was found, put into words.

use super::question::{Expected, Finding, Question};
use super::{Conclusion, Prover, Refutation, Report};
use crate::machine::{ConnState, Fate, NotUnderstood, Packet, Path};
use std::collections::{BTreeMap, BTreeSet};

/// After how many runs of packets no more is said of what is not understood.
const MOST_RUNS_SHOWN: usize = 4_000;

/// How many packets a refutation shows.
const MOST_SHOWN: usize = 8;

/// What is most telling comes first: a new connection, forwarded, to a port, the least packet.
pub(super) type Rank = (usize, Path, usize, Packet);

/// Of a packet that is treated wrongly, or may be.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) allowed: bool,
    pub(super) expected: Expected,
    /// Was it run through netpol's own rules alone?
    pub(super) own: bool,
}

impl Prover<'_, '_> {
    /// Notes a packet for which the sides differ.
    pub(super) fn found(
        &mut self,
        question: &Question,
        packet: Packet,
        allowed: bool,
        finding: &Finding,
    ) {
        let state = match packet.state {
            ConnState::New => 0,
            ConnState::Established => 1,
            ConnState::Untracked => 3,
            _ => 2,
        };
        let found = Found { allowed, expected: question.expected, own: question.rules.is_own() };
        let list = match finding {
            Finding::Refuted => &mut self.refuted,
            Finding::Unknown => &mut self.unknown,
        };
        let traffic = match packet.protocol {
            6 => 0,
            17 | 132 => 1,
            1 | 58 => 2,
            _ => 3,
        };
        list.insert((state, question.path, traffic, packet), found);
        if list.len() > 1000 {
            list.pop_last();
        }
    }

    fn refutation(&self, rank: &Rank, found: &Found) -> Refutation {
        let (_, path, _, packet) = rank;
        let wrong = if found.allowed { Fate::Dropped } else { Fate::Accepted };
        let machine = if found.own { self.own } else { self.machine };
        let runs = machine.run(packet, *path);
        let with = |fate| runs.iter().find(move |run| run.fate == fate);
        let run = with(wrong).or_else(|| with(Fate::Unknown)).or_else(|| runs.first());
        let reasons = match found.expected {
            Expected::Policies => {
                let mut reasons = self.specification.judge(packet, *path);
                if found.allowed && !reasons.allowed {
                    let open = "it belongs to a connection that was let through (NP-60, NP-62)";
                    reasons.reasons = vec![open.to_owned()];
                }
                reasons.reasons
            }
            Expected::Accepted => vec!["no pod of this node is an end of it".to_owned()],
            Expected::Guard(pod) => {
                let name = self.specification.pod(pod).map(|pod| pod.id().to_string());
                let name = name.unwrap_or_default();
                vec![if found.allowed {
                    format!("from the device of {name} with an address that belongs there")
                } else {
                    format!("from the device of {name} with an address that is not one of its own")
                }]
            }
        };
        let mut refutation = Refutation {
            packet: packet.clone(),
            path: *path,
            kernel: run.map_or(Fate::Unknown, |run| run.fate),
            allowed: found.allowed,
            reasons,
            trace: run.map(|run| run.trace.clone()).unwrap_or_default(),
            dropped_by_others: false,
            cause: String::new(),
        };
        let last = refutation.trace.last();
        let is_dropped = run.is_some_and(|run| run.fate == Fate::Dropped);
        refutation.dropped_by_others = is_dropped && last.is_some_and(|s| !self.is_own(&s.chain));
        let depends = runs.iter().any(|other| run.is_some_and(|run| run.fate != other.fate));
        refutation.cause = self.cause(&refutation, found, run, depends);
        refutation
    }

    pub(super) fn report(self) -> Report {
        let statistics = self.statistics.clone();
        let shown = |list: &BTreeMap<Rank, Found>| -> Vec<Refutation> {
            list.iter().take(MOST_SHOWN).map(|(rank, found)| self.refutation(rank, found)).collect()
        };
        let refuted = shown(&self.refuted);
        let conclusion = if !refuted.is_empty() {
            Conclusion::Refuted(refuted)
        } else if self.local_addresses() == 0 {
            // Nothing would be proved of nothing.
            let what =
                "no pod of this node has an address in the manifests, so no packet is theirs";
            let not_understood = BTreeSet::from([NotUnderstood::new("manifests", what)]);
            Conclusion::NotProved { not_understood, example: None }
        } else if !self.unknown.is_empty() {
            let mut not_understood = BTreeSet::new();
            // A packet can have very many runs; some say enough of what is not understood.
            let mut left = MOST_RUNS_SHOWN;
            for (rank, found) in self.unknown.iter().take(200) {
                if left == 0 {
                    break;
                }
                let (_, path, _, packet) = rank;
                let machine = if found.own { self.own } else { self.machine };
                let runs = machine.run(packet, *path);
                left = left.saturating_sub(runs.len());
                not_understood.extend(runs.into_iter().flat_map(|run| run.not_understood));
            }
            let example = shown(&self.unknown).into_iter().next().map(Box::new);
            Conclusion::NotProved { not_understood, example }
        } else if !self.machine.not_understood.is_empty() {
            let not_understood = self.machine.not_understood.iter().cloned().collect();
            Conclusion::NotProved { not_understood, example: None }
        } else {
            Conclusion::Proved
        };
        Report { conclusion, theorem: self.theorem(), assumptions: self.assumptions(), statistics }
    }
}
