//! Changes of a ruleset in the rule machine, to see whether a prover tells those that matter from those that do not.
//!
//! Every change stays within what a [`SmallWorld`] tells apart, so that a trial of all its packets decides what it does.

use crate::small_world::SmallWorld;
use netpol_verify::machine::{
    Condition, ConnState, ElementMap, ElementSet, Field, Machine, NotUnderstood, Range, Rule, Step,
    Verdict, address_value,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::sync::Arc;

/// One change. What it is about is drawn as a place among those that the ruleset has.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Mutation {
    /// A rule is gone.
    Drop(Index),
    /// A rule is there twice.
    Double(Index),
    /// A rule comes after its successor.
    Swap(Index),
    /// A rule lets pass what it dropped, and the other way round.
    Flip(Index),
    /// A condition is turned around.
    Negate(Index, Index),
    /// A condition on an address has it in addition, or no more.
    Address(Index, Index, u8),
    /// A condition on other fields begins or ends one earlier or later.
    Shift(Index, Index, bool),
    /// An entry of a verdict map is gone, or leads where another one leads.
    Entry(Index, Index, Option<Index>),
    /// A base chain drops at its end, or does so no more.
    Policy(Index),
    /// The kernel does not call a base chain.
    Hook(Index),
    /// Another rule, with these conditions, in a base chain or in any chain, at some place.
    Rule(bool, [Index; 2], Vec<Foreign>, ForeignVerdict),
}

/// A condition, or what is as good as one, of a foreign rule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Foreign {
    /// On an address: is it the source, and is it IPv6?
    Address(bool, bool, u8),
    /// On the protocol.
    Protocol(u8),
    /// On the destination port.
    Port(u16),
    /// On the state of the connection.
    State(ConnState),
    /// On the direction in the connection.
    Reply,
    /// On the mark.
    Mark(u32, u32),
    /// The mark is set.
    Set(u32),
    /// The kernel may go on or not.
    Free,
    /// Nobody knows what it is.
    Unknown,
}

/// How a foreign rule ends.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ForeignVerdict {
    /// With this verdict.
    Verdict(Verdict),
    /// It does not.
    None,
    /// With a jump, or a goto, to one of the chains that come later.
    Call(bool, u8),
}

fn foreign() -> impl Strategy<Value = Foreign> {
    prop_oneof![
        4 => any::<(bool, bool, u8)>().prop_map(|(s, v6, n)| Foreign::Address(s, v6, n)),
        2 => select(&[6u8, 17, 1, 47][..]).prop_map(Foreign::Protocol),
        2 => (0u16..8).prop_map(Foreign::Port),
        1 => select(&ConnState::ALL[..]).prop_map(Foreign::State),
        1 => Just(Foreign::Reply),
        1 => (0u32..4, 0u32..4).prop_map(|(mask, mark)| Foreign::Mark(mask, mark)),
        1 => (0u32..4).prop_map(Foreign::Set),
        1 => Just(Foreign::Free),
        3 => Just(Foreign::Unknown),
    ]
}

/// Changes of every kind.
pub fn mutations() -> impl Strategy<Value = Mutation> {
    let index = || any::<Index>();
    let verdict = prop_oneof![
        4 => select(&[Verdict::Accept, Verdict::Drop, Verdict::Return, Verdict::Continue][..])
            .prop_map(ForeignVerdict::Verdict),
        1 => Just(ForeignVerdict::None),
        1 => any::<(bool, u8)>().prop_map(|(jump, chain)| ForeignVerdict::Call(jump, chain)),
    ];
    prop_oneof![
        2 => index().prop_map(Mutation::Drop),
        1 => index().prop_map(Mutation::Double),
        2 => index().prop_map(Mutation::Swap),
        2 => index().prop_map(Mutation::Flip),
        2 => (index(), index()).prop_map(|(rule, at)| Mutation::Negate(rule, at)),
        4 => (index(), index(), any::<u8>()).prop_map(|(r, at, n)| Mutation::Address(r, at, n)),
        2 => (index(), index(), any::<bool>()).prop_map(|(r, at, up)| Mutation::Shift(r, at, up)),
        2 => (index(), index(), prop::option::of(index()))
            .prop_map(|(rule, entry, other)| Mutation::Entry(rule, entry, other)),
        1 => index().prop_map(Mutation::Policy),
        1 => index().prop_map(Mutation::Hook),
        9 => (any::<bool>(), [index(), index()], vec(foreign(), 0..=2), verdict).prop_map(
            |(base, at, conditions, verdict)| Mutation::Rule(base, at, conditions, verdict)
        ),
    ]
}

impl Mutation {
    /// Changes a ruleset; one without rules stays as it is.
    pub fn apply(&self, machine: &mut Machine, world: SmallWorld) {
        match self {
            Self::Drop(index) => with_rule(machine, *index, |rules, at| {
                rules.remove(at);
            }),
            Self::Double(index) => with_rule(machine, *index, |rules, at| {
                if let Some(rule) = rules.get(at).cloned() {
                    rules.insert(at, rule);
                }
            }),
            Self::Swap(index) => with_rule(machine, *index, |rules, at| {
                if at + 1 < rules.len() {
                    rules.swap(at, at + 1);
                }
            }),
            Self::Flip(index) => with_steps(machine, *index, |steps| {
                for step in steps {
                    match step {
                        Step::Verdict(verdict @ Verdict::Drop) => *verdict = Verdict::Accept,
                        Step::Verdict(verdict @ (Verdict::Accept | Verdict::Return)) => {
                            *verdict = Verdict::Drop;
                        }
                        _ => {}
                    }
                }
            }),
            Self::Negate(index, at) => with_condition(machine, *index, *at, |condition| {
                condition.negated = !condition.negated;
            }),
            Self::Address(index, at, number) => with_condition(machine, *index, *at, |condition| {
                toggle(condition, world, *number);
            }),
            Self::Shift(index, at, up) => with_condition(machine, *index, *at, |condition| {
                shift(condition, *up);
            }),
            Self::Entry(index, at, other) => with_steps(machine, *index, |steps| {
                entry(steps, *at, *other);
            }),
            Self::Policy(index) => with_hook(machine, *index, |machine, chain| {
                let hook = machine.chains.get_mut(chain).and_then(|chain| chain.hook.as_mut());
                if let Some(hook) = hook {
                    hook.drops = !hook.drops;
                }
            }),
            Self::Hook(index) => with_hook(machine, *index, |machine, chain| {
                if let Some(chain) = machine.chains.get_mut(chain) {
                    chain.hook = None;
                }
            }),
            Self::Rule(base, [chain, place], conditions, verdict) => {
                let chains = machine.chains.iter().enumerate();
                let chains = chains.filter(|(_, chain)| !base || chain.hook.is_some());
                let chains: Vec<usize> = chains.map(|(at, _)| at).collect();
                if !chains.is_empty() {
                    let rule =
                        foreign_rule(machine, world, *chain.get(&chains), conditions, *verdict);
                    insert(machine, *chain.get(&chains), *place, rule);
                }
            }
        }
    }
}

/// Calls with the rules of the chain that the index falls into, and where in it.
fn with_rule(machine: &mut Machine, index: Index, change: impl FnOnce(&mut Vec<Rule>, usize)) {
    let count: usize = machine.chains.iter().map(|chain| chain.rules.len()).sum();
    if count == 0 {
        return;
    }
    let mut at = index.index(count);
    for chain in &mut machine.chains {
        if at < chain.rules.len() {
            return change(&mut chain.rules, at);
        }
        at -= chain.rules.len();
    }
}

fn with_steps(machine: &mut Machine, index: Index, change: impl FnOnce(&mut Vec<Step>)) {
    with_rule(machine, index, |rules, at| {
        if let Some(rule) = rules.get_mut(at) {
            change(&mut rule.steps);
        }
    });
}

fn with_condition(
    machine: &mut Machine,
    index: Index,
    at: Index,
    change: impl FnOnce(&mut Condition),
) {
    with_steps(machine, index, |steps| {
        let conditions = steps.iter_mut().filter_map(|step| match step {
            Step::Match(condition) => Some(condition),
            _ => None,
        });
        let mut conditions: Vec<&mut Condition> = conditions.collect();
        if !conditions.is_empty() {
            let at = at.index(conditions.len());
            change(conditions.swap_remove(at));
        }
    });
}

fn with_hook(machine: &mut Machine, index: Index, change: impl FnOnce(&mut Machine, usize)) {
    let chains = machine.chains.iter().enumerate();
    let hooked: Vec<usize> =
        chains.filter(|(_, chain)| chain.hook.is_some()).map(|(at, _)| at).collect();
    if !hooked.is_empty() {
        change(machine, *index.get(&hooked));
    }
}

fn is_address(field: Field) -> bool {
    matches!(field, Field::Source | Field::Destination)
}

/// Puts an address into a condition's set or takes it out.
fn toggle(condition: &mut Condition, world: SmallWorld, number: u8) {
    let set = &condition.set;
    match condition.key.as_slice() {
        // Of an empty set nobody knows the family.
        [field] if is_address(*field) && !set.intervals().is_empty() => {
            let v6 = set.intervals().iter().any(|range| range.last > u32::MAX.into());
            let address = address_value(world.address(v6, number));
            let mut ranges = Vec::new();
            if set.contains_value(address) {
                for range in set.intervals() {
                    if range.contains(address) {
                        let before = address.checked_sub(1).map(|last| Range { last, ..*range });
                        let after = address.checked_add(1).map(|first| Range { first, ..*range });
                        ranges.extend(before.into_iter().chain(after));
                    } else {
                        ranges.push(*range);
                    }
                }
            } else {
                ranges.extend(set.intervals());
                ranges.push(Range::one(address));
            }
            condition.set = Arc::new(ElementSet::of(ranges));
        }
        key if key.len() > 1 => {
            // One tuple less, or one with the next address.
            let mut boxes = set.boxes().to_vec();
            if boxes.is_empty() {
                return;
            }
            let at = usize::from(number) % boxes.len();
            let one = boxes.swap_remove(at);
            if number.is_multiple_of(2) {
                let moved = key.iter().zip(&*one).map(|(field, range)| match field {
                    field if is_address(*field) && range.first == range.last => {
                        Range::one(range.first ^ 1)
                    }
                    _ => *range,
                });
                boxes.push(moved.collect());
            }
            condition.set = Arc::new(ElementSet::of_boxes(key.len(), boxes));
        }
        _ => {}
    }
}

/// Moves an end of an interval of ports by one, or exchanges a protocol or state for another.
fn shift(condition: &mut Condition, up: bool) {
    let [field] = *condition.key.as_slice() else { return };
    let mut ranges = condition.set.intervals().to_vec();
    let Some(range) = ranges.first_mut() else { return };
    match field {
        Field::Second if up && range.last < 7 => range.last += 1,
        Field::Second if !up && range.first > 0 && range.first < 8 => range.first -= 1,
        Field::Protocol => *range = Range::one(if range.first == 6 { 17u8 } else { 6u8 }),
        Field::State => *range = Range::one(if up { 8u8 } else { 2u8 }),
        Field::Direction => *range = Range::one(range.first ^ 1),
        _ => return,
    }
    condition.set = Arc::new(ElementSet::of(ranges));
}

fn entry(steps: &mut [Step], at: Index, other: Option<Index>) {
    for step in steps {
        let Step::Dispatch { key, map } = step else { continue };
        let mut entries: Vec<(Box<[Range]>, Verdict)> =
            map.entries().map(|(key, verdict)| (Box::from(key), *verdict)).collect();
        if entries.is_empty() {
            continue;
        }
        let verdicts: Vec<Verdict> = entries.iter().map(|(_, verdict)| *verdict).collect();
        let at = at.index(entries.len());
        match (other, entries.get_mut(at)) {
            (Some(other), Some(entry)) => entry.1 = *other.get(&verdicts),
            _ => drop(entries.remove(at)),
        }
        let name = map.name().map(str::to_owned);
        *map = Arc::new(ElementMap::new(name, key.len(), entries));
    }
}

/// A rule for a chain.
fn foreign_rule(
    machine: &Machine,
    world: SmallWorld,
    chain: usize,
    conditions: &[Foreign],
    verdict: ForeignVerdict,
) -> Rule {
    let mut rule = Rule::at("foreign");
    for condition in conditions {
        let within = |field, value: u128| {
            Step::Match(Condition::within(field, Range { first: value, last: value }))
        };
        match condition {
            Foreign::Address(source, v6, number) => {
                let field = if *source { Field::Source } else { Field::Destination };
                // As every parser does: addresses are of a version.
                rule.steps.push(within(Field::Version, if *v6 { 6 } else { 4 }));
                rule.steps.push(within(field, address_value(world.address(*v6, *number))));
            }
            Foreign::Protocol(number) => {
                rule.steps.push(within(Field::Protocol, (*number).into()));
            }
            Foreign::Port(port) => {
                rule.steps.push(within(Field::Protocol, 6));
                rule.steps.push(within(Field::Second, (*port).into()));
            }
            Foreign::State(state) => rule.steps.push(within(Field::State, state.bit())),
            Foreign::Reply => rule.steps.push(within(Field::Direction, 1)),
            Foreign::Mark(mask, mark) => {
                let marks = Arc::new(ElementSet::of(vec![Range::one(*mark & *mask)]));
                rule.steps.push(Step::Match(Condition::of_mark(*mask, marks)));
            }
            Foreign::Set(mark) => rule.steps.push(Step::Mark { and: 0, xor: *mark }),
            Foreign::Free => rule.steps.push(Step::Free("limit".to_owned())),
            Foreign::Unknown => {
                rule.steps.push(Step::UnknownMatch(NotUnderstood::new("foreign", "something")));
            }
        }
    }
    let verdict = match verdict {
        ForeignVerdict::Verdict(verdict) => Some(verdict),
        ForeignVerdict::None => None,
        ForeignVerdict::Call(jump, number) => {
            // A chain without a hook that comes later: so no chain calls itself.
            let later = machine.chains.iter().enumerate().skip(chain + 1);
            let later: Vec<usize> =
                later.filter(|(_, chain)| chain.hook.is_none()).map(|(at, _)| at).collect();
            let target = later.get(usize::from(number) % later.len().max(1)).copied();
            target.map(if jump { Verdict::Jump } else { Verdict::Goto })
        }
    };
    rule.steps.extend(verdict.map(Step::Verdict));
    rule
}

fn insert(machine: &mut Machine, chain: usize, place: Index, rule: Rule) {
    if let Some(chain) = machine.chains.get_mut(chain) {
        let at = place.index(chain.rules.len() + 1);
        chain.rules.insert(at, rule);
    }
}
