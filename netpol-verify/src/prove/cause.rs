//! What may have gone wrong, in words.

use super::findings::Found;
use super::question::Expected;
use super::{Prover, Refutation};
use crate::machine::{ConnState, Fate, Path, Run};

impl Prover<'_, '_> {
    /// Is the chain that a trace names netpol's own?
    pub(super) fn is_own(&self, name: &str) -> bool {
        let named = (0..self.machine.chains.len()).find(|at| self.machine.chain_name(*at) == name);
        let chain = named.and_then(|at| self.machine.chain(at));
        let table = chain.and_then(|chain| self.machine.tables.get(chain.table));
        chain.zip(table).is_none_or(|(chain, table)| self.options.own.has(table, &chain.name))
    }

    /// What it may be, for one of the packet's runs; `depends` says that another one ends otherwise.
    pub(super) fn cause(
        &self,
        refutation: &Refutation,
        found: &Found,
        run: Option<&Run>,
        depends: bool,
    ) -> String {
        let packet = &refutation.packet;
        let last = refutation.trace.last();
        let foreign = last.filter(|_| refutation.dropped_by_others);
        if let Some(run) = run
            && let (Fate::Unknown, Some(what)) = (run.fate, run.not_understood.first())
        {
            return format!("{what} was not understood");
        }
        if depends && run.is_some_and(|run| run.free && run.not_understood.is_empty()) {
            let what = "whether it passes depends on a choice of the kernel, as of a rate limit";
            return what.to_owned();
        }
        if found.allowed {
            return match (foreign, last) {
                (Some(step), _) => format!(
                    "{} {} is not netpol's, and drops it: {}",
                    step.chain, step.place, step.rule
                ),
                _ if packet.state != ConnState::New && packet.state != ConnState::Untracked => {
                    "the rule that lets packets of open connections pass does not".to_owned()
                }
                (None, Some(step)) => match found.expected {
                    Expected::Guard(_) => format!(
                        "the source guard of this device ({} {}) does not know this address",
                        step.chain, step.place
                    ),
                    _ => format!(
                        "no rule before {} {} lets it pass: a rule, or an element of a set, is missing there or too narrow",
                        step.chain, step.place
                    ),
                },
                (None, None) => "nothing is known".to_owned(),
            };
        }
        if let Expected::Guard(_) = found.expected {
            let hooks = self.machine.stages(Path::Arrival, packet.v6);
            return if hooks.is_empty() {
                "there is no source guard".to_owned()
            } else {
                "the source guard does not look at this device, or lets this address pass"
                    .to_owned()
            };
        }
        let hooks = self.machine.stages(refutation.path, packet.v6);
        if hooks.is_empty() {
            let family = if packet.v6 { "IPv6" } else { "IPv4" };
            return format!("no chain sees {family} packets that are {}", refutation.path);
        }
        let decided = refutation.trace.iter().rev().find(|step| {
            matches!(step.action.as_str(), "return" | "accept") && step.place != "policy"
        });
        match decided {
            Some(step) => format!(
                "{} {} lets it pass: it should not be there, or it, or its set, is too wide",
                step.chain, step.place
            ),
            None => {
                "no rule polices it: the address of the pod is not dispatched to its rules, or they are not reached or do not deny"
                    .to_owned()
            }
        }
    }
}
