//! Device names as small numbers: between two names that rules or pods mention, all names are one to the rules.
//!
//! A name is 128 bits, and the hundred devices of a node would repeat themselves below every address. Numbered in the order
//! of their values, what a rule says of names is still an interval.

use crate::machine::{Condition, Field, Machine, Range, Step, device_value, value_device};
use std::collections::BTreeSet;

/// The longest name, in bytes.
const LONGEST: usize = 15;

/// The intervals into which all mentioned names cut the space of values.
#[derive(Debug)]
pub(super) struct Names {
    /// Where each begins; the first is 0.
    starts: Vec<u128>,
    /// A name in each, if there is one.
    names: Vec<Option<u128>>,
}

impl Names {
    /// Those that a ruleset mentions, and these.
    pub(super) fn new(machine: &Machine, given: impl Iterator<Item = u128>) -> Self {
        let mut cuts = BTreeSet::from([0]);
        let mut mention = |range: &Range| {
            cuts.insert(range.first);
            cuts.extend(range.last.checked_add(1));
        };
        given.for_each(|device| mention(&Range::one(device)));
        for chain in &machine.chains {
            let bound = chain.hook.iter().filter_map(|hook| hook.devices.as_ref()).flatten();
            bound.filter_map(|name| device_value(name)).for_each(|d| mention(&Range::one(d)));
            for step in chain.rules.iter().flat_map(|rule| &rule.steps) {
                let (Step::Match(Condition { key, .. }) | Step::Dispatch { key, .. }) = step else {
                    continue;
                };
                for (part, _) in key.iter().enumerate().filter(|(_, field)| is_device(**field)) {
                    match step {
                        Step::Match(condition) => {
                            condition.set.intervals().iter().for_each(&mut mention);
                            let boxes = condition.set.boxes().iter();
                            boxes.filter_map(|one| one.get(part)).for_each(&mut mention);
                        }
                        Step::Dispatch { map, .. } => {
                            let entries = map.entries();
                            entries.filter_map(|(one, _)| one.get(part)).for_each(&mut mention);
                        }
                        _ => {}
                    }
                }
            }
        }
        let starts: Vec<u128> = cuts.into_iter().collect();
        let ends = starts.iter().skip(1).map(|next| next - 1).chain([u128::MAX]);
        let names = starts.iter().zip(ends).map(|(first, last)| name_in(*first, last)).collect();
        Self { starts, names }
    }

    /// How many numbers there are.
    pub(super) fn count(&self) -> usize {
        self.starts.len()
    }

    /// The number of a name.
    pub(super) fn number(&self, name: u128) -> u128 {
        let after = self.starts.partition_point(|start| *start <= name);
        u128::try_from(after.saturating_sub(1)).unwrap_or(0)
    }

    /// The numbers of a mentioned interval of names.
    pub(super) fn numbers(&self, range: &Range) -> Range {
        if range.first > range.last {
            return *range;
        }
        Range { first: self.number(range.first), last: self.number(range.last) }
    }

    /// A name with a number.
    pub(super) fn name(&self, number: u128) -> Option<u128> {
        usize::try_from(number).ok().and_then(|at| self.names.get(at).copied().flatten())
    }

    /// The numbers that stand for names of devices.
    pub(super) fn real(&self) -> Vec<Range> {
        let numbered = (0u128..).zip(&self.names);
        numbered.filter(|(_, name)| name.is_some()).map(|(at, _)| Range::one(at)).collect()
    }
}

fn is_device(field: Field) -> bool {
    matches!(field, Field::InDevice | Field::OutDevice)
}

/// A name in an interval of values: one that people would choose, if there is one, else the first.
fn name_in(first: u128, last: u128) -> Option<u128> {
    let within = Range { first, last };
    let prefix = value_device(first);
    let nice = ["", "0", "a", "net0"].map(|tail| format!("{prefix}{tail}"));
    let common = ["uplink0", "eth0"].map(str::to_owned);
    let mut known = common.iter().chain(&nice).filter_map(|name| device_value(name));
    known.find(|name| within.contains(*name)).or_else(|| {
        let mut bytes = first.to_be_bytes();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        if end > LONGEST {
            // Too long: the next name differs before its end.
            let raised = (0..LONGEST).rev().find(|at| bytes.get(*at).is_some_and(|b| *b < 255))?;
            bytes.iter_mut().skip(raised + 1).for_each(|byte| *byte = 0);
            bytes.get_mut(raised).into_iter().for_each(|byte| *byte += 1);
        } else if end == 0 || bytes.iter().skip(end).any(|byte| *byte != 0) {
            bytes.iter_mut().skip(end).for_each(|byte| *byte = 0);
            bytes.get_mut(end).into_iter().for_each(|byte| *byte = 1);
        }
        Some(u128::from_be_bytes(bytes)).filter(|name| within.contains(*name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Rule, TableFamily, device_prefix};

    #[test]
    fn names_between_names() {
        let mut machine = Machine::new();
        let table = machine.table(TableFamily::Inet, "t");
        let chain = machine.add_chain(table, "c", None);
        let mut rule = Rule::at("");
        let pods = device_prefix("pod").unwrap();
        rule.steps.push(Step::Match(Condition::within(Field::InDevice, pods)));
        machine.add_rule(chain, rule);
        let device = |name: &str| device_value(name).unwrap();
        let names = Names::new(&machine, ["pod0", "pod1"].into_iter().map(device));
        let numbers = ["lo", "pod", "pod0", "pod00", "pod1", "pod9", "uplink0"];
        let numbers = numbers.map(|name| names.number(device(name)));
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(names.numbers(&pods), Range::new(1u8, 5u8));
        for number in 0..7u8 {
            let name = names.name(number.into()).unwrap();
            assert_eq!(names.number(name), number.into(), "{}", value_device(name));
        }
        // No name is between a name and the same with a zero byte.
        assert_eq!(name_in(device("pod0") + 1, device("pod0") + 7), None);
        assert_eq!(name_in(1, 255), None);
        assert_eq!(name_in(0, u128::MAX), Some(device("uplink0")));
    }
}
