//! The rule machine as a certificate has it.

use crate::machine::{self, ElementMap, ElementSet, Machine, Own, Range, TableKind};
use netpol_checker::{Chain, Field, Hook, Interval, List, Map, Program, Rule, Set, Step, Verdict};
use std::collections::HashMap;
use std::sync::Arc;

/// An interval as certificates have it.
pub(crate) fn interval(range: &Range) -> Interval {
    Interval::new(range.first, range.last)
}

fn list<'r>(ranges: impl IntoIterator<Item = &'r Range>) -> List {
    List(ranges.into_iter().map(interval).collect())
}

/// Each set and each map once, by where it is in memory.
#[derive(Default)]
struct Tables {
    sets: Vec<Set>,
    maps: Vec<Map>,
    known: HashMap<usize, usize>,
}

impl Tables {
    fn set(&mut self, set: &Arc<ElementSet>) -> usize {
        let sets = &mut self.sets;
        *self.known.entry(Arc::as_ptr(set).addr()).or_insert_with(|| {
            sets.push(Set {
                name: set.name().map(str::to_owned),
                width: set.width(),
                values: list(set.intervals()),
                boxes: set.boxes().iter().map(|one| list(&**one)).collect(),
            });
            sets.len() - 1
        })
    }

    fn map(&mut self, map: &Arc<ElementMap<machine::Verdict>>) -> usize {
        let maps = &mut self.maps;
        *self.known.entry(Arc::as_ptr(map).addr()).or_insert_with(|| {
            let entries = map.entries().map(|(key, verdict)| (list(key), written(*verdict)));
            maps.push(Map { name: map.name().map(str::to_owned), entries: entries.collect() });
            maps.len() - 1
        })
    }

    fn step(&mut self, step: &machine::Step) -> Step {
        match step {
            machine::Step::Match(condition) => Step::Match {
                key: condition.key.iter().map(|field| of(*field)).collect(),
                mask: condition.mask(),
                negated: condition.negated,
                set: self.set(&condition.set),
            },
            machine::Step::Free(what) => Step::Choice(what.clone()),
            machine::Step::UnknownMatch(what) => Step::Choice(what.to_string()),
            machine::Step::Opaque(what) => Step::Opaque(what.to_string()),
            machine::Step::Mark { and, xor } => Step::Mark(Some((*and, *xor))),
            machine::Step::UnknownMark(_) => Step::Mark(None),
            machine::Step::Verdict(verdict) => Step::Verdict(written(*verdict)),
            machine::Step::Dispatch { key, map } => Step::Dispatch {
                key: key.iter().map(|field| of(*field)).collect(),
                map: self.map(map),
            },
        }
    }
}

/// The rules as a certificate has them; some of them are netpol's own.
pub(crate) fn rules(machine: &Machine, own: &Own) -> netpol_checker::Machine {
    let mut tables = Tables::default();
    let mut chains = Vec::new();
    for chain in &machine.chains {
        let table = machine.tables.get(chain.table);
        let rules = chain.rules.iter().map(|rule| Rule {
            place: rule.place.clone(),
            comment: rule.comment.clone(),
            own: !own.is_everything()
                && machine.is_base_of_iptables(chain)
                && machine.leads_to_own(rule, own),
            steps: rule.steps.iter().map(|step| tables.step(step)).collect(),
        });
        let hook = chain.hook.as_ref().map(|hook| Hook {
            point: hook.point.as_str().to_owned(),
            priority: hook.priority,
            drops: hook.drops,
            devices: hook.devices.clone(),
        });
        chains.push(Chain {
            family: table.map(|table| table.family.as_str().to_owned()).unwrap_or_default(),
            table: table.map(|table| table.name.clone()).unwrap_or_default(),
            name: chain.name.clone(),
            own: is_own(machine, chain, own),
            program: match table.map(|table| table.kind) {
                Some(TableKind::IptablesLegacy) => Program::IptablesLegacy,
                Some(TableKind::IptablesNft) => Program::IptablesNft,
                Some(TableKind::Nft) | None => Program::Nft,
            },
            rules: rules.collect(),
            hook,
        });
    }
    netpol_checker::Machine {
        not_understood: machine.not_understood.iter().map(ToString::to_string).collect(),
        sets: tables.sets,
        maps: tables.maps,
        chains,
    }
}

/// Is all of a chain netpol's own? Built-in chains of iptables are everybody's.
fn is_own(machine: &Machine, chain: &machine::Chain, own: &Own) -> bool {
    let named = || machine.tables.get(chain.table).is_some_and(|table| own.has(table, &chain.name));
    own.is_everything() || !machine.is_base_of_iptables(chain) && named()
}

fn written(verdict: machine::Verdict) -> Verdict {
    match verdict {
        machine::Verdict::Accept => Verdict::Accept,
        machine::Verdict::Drop => Verdict::Drop,
        machine::Verdict::Return => Verdict::Return,
        machine::Verdict::Continue => Verdict::Continue,
        machine::Verdict::Jump(chain) => Verdict::Jump(chain),
        machine::Verdict::Goto(chain) => Verdict::Goto(chain),
    }
}

fn of(field: machine::Field) -> Field {
    match field {
        machine::Field::Version => Field::Version,
        machine::Field::Source => Field::Source,
        machine::Field::Destination => Field::Destination,
        machine::Field::Protocol => Field::Protocol,
        machine::Field::First => Field::First,
        machine::Field::Second => Field::Second,
        machine::Field::InDevice => Field::InDevice,
        machine::Field::OutDevice => Field::OutDevice,
        machine::Field::State => Field::State,
        machine::Field::Direction => Field::Direction,
        machine::Field::Mark => Field::Mark,
    }
}
