//! Before connection tracking a packet has the state INVALID, unless a rule there said that it is not to be tracked: then it is
//! UNTRACKED from that rule on. The machine knows the former alone, so where there is such a rule, states that are asked for
//! before connection tracking are not understood.

use crate::dump::Dump;
use crate::machine::{ChainIndex, Field, Machine, NotUnderstood, Step, Verdict};

/// Could a rule of these keep packets from being tracked?
pub(crate) fn is_asked_for(dumps: &[Dump]) -> bool {
    dumps.iter().any(|dump| ["notrack", "NOTRACK"].iter().any(|word| dump.text.contains(word)))
}

/// Takes conditions on states before connection tracking as not understood.
pub(crate) fn doubt_states(machine: &mut Machine) {
    let mut open: Vec<ChainIndex> =
        (0..machine.chains.len()).filter(|at| machine.is_before_conntrack(*at)).collect();
    let mut seen = vec![false; machine.chains.len()];
    while let Some(index) = open.pop() {
        match seen.get_mut(index) {
            Some(seen) if !*seen => *seen = true,
            _ => continue,
        }
        let place = machine.chain_name(index);
        let rules = machine.chains.get_mut(index).into_iter().flat_map(|chain| &mut chain.rules);
        for rule in rules {
            let place = format!("{place} {}", rule.place);
            let doubt = || {
                let what = "a state before connection tracking, where packets may be untracked";
                NotUnderstood::new(place.clone(), what)
            };
            let is_state = |key: &[Field]| key.contains(&Field::State);
            for step in &mut rule.steps {
                match step {
                    Step::Match(condition) if is_state(&condition.key) => {
                        *step = Step::UnknownMatch(doubt());
                    }
                    Step::Dispatch { key, .. } if is_state(key) => *step = Step::Opaque(doubt()),
                    Step::Dispatch { map, .. } => {
                        open.extend(map.entries().filter_map(|(_, verdict)| target(*verdict)));
                    }
                    Step::Verdict(verdict) => open.extend(target(*verdict)),
                    _ => {}
                }
            }
        }
    }
}

fn target(verdict: Verdict) -> Option<ChainIndex> {
    match verdict {
        Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
        _ => None,
    }
}
