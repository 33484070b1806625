//! Which addresses a chain has an effect on. All others leave it as they came, so that it makes no difference whether they are
//! led there: a tree of prefixes tells apart no addresses but its leaves, and the ranges on the way to them cut nothing.

use super::gather::Walk;
use super::space::Predicate;
use crate::machine::{ChainIndex, ElementSet, Field, MOST_JUMPS, Machine, Rule, Step, Verdict};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// In a chain of more rules a `goto` is taken to matter: what it skips would have to be put together for each rule.
const MOST_RULES: usize = 64;

/// A chain of a machine (by where that is in memory), and the field that the addresses are in.
type Key = (usize, ChainIndex, Field);

/// What was found out of chains.
#[derive(Debug, Default)]
pub(super) struct Effects {
    known: RefCell<FxHashMap<Key, Rc<Predicate>>>,
    /// What is left of a set that a rule looks up.
    narrowed: RefCell<FxHashMap<(Key, usize, usize), Rc<Predicate>>>,
    shallow: RefCell<FxHashMap<usize, bool>>,
}

impl Walk<'_, '_> {
    /// What is left of the addresses in a set if only those count for which it can make a difference that a rule of a chain
    /// looks them up there.
    pub(super) fn narrowed(
        &self,
        (chain, rule): (ChainIndex, usize),
        field: Field,
        set: &Arc<ElementSet>,
    ) -> Rc<Predicate> {
        let chain_key = (std::ptr::from_ref(self.machine).addr(), chain, field);
        let key = (chain_key, rule, Arc::as_ptr(set).addr());
        let narrowed = &self.cache.effects().narrowed;
        if let Some(known) = narrowed.borrow().get(&key) {
            return Rc::clone(known);
        }
        let all = self.single(set);
        let made = match self.effect(chain, rule, field) {
            Some(effect) => Rc::new(intersection(&all, &effect)),
            None => all,
        };
        narrowed.borrow_mut().insert(key, Rc::clone(&made));
        made
    }

    /// The addresses for which it can make a difference whether they take this rule of a chain to another chain; none if it is
    /// no such rule, or if that is not known.
    fn effect(&self, chain: ChainIndex, at: usize, field: Field) -> Option<Predicate> {
        if !self.is_shallow() {
            return None;
        }
        let rules = &self.machine.chain(chain)?.rules;
        let (last, conditions) = rules.get(at)?.steps.split_last()?;
        if !conditions.iter().all(|step| matches!(step, Step::Match(_))) {
            return None;
        }
        match last {
            Step::Verdict(Verdict::Jump(target)) => Some((*self.of_chain(*target, field)).clone()),
            // Who comes back from there does not meet the rest of this chain.
            Step::Verdict(Verdict::Goto(target)) if rules.len() <= MOST_RULES => {
                let rest = rules.get(at + 1..)?.iter();
                let rest = rest
                    .fold(Predicate::new(), |all, rule| union(&all, &self.of_rule(rule, field)));
                Some(union(&rest, &self.of_chain(*target, field)))
            }
            _ => None,
        }
    }

    /// The addresses that a chain does anything to but let them come back.
    fn of_chain(&self, index: ChainIndex, field: Field) -> Rc<Predicate> {
        let key = (std::ptr::from_ref(self.machine).addr(), index, field);
        let effects = self.cache.effects();
        if let Some(known) = effects.known.borrow().get(&key) {
            return Rc::clone(known);
        }
        let everything = self.space.everything();
        let mut all = Predicate::new();
        for rule in self.machine.chain(index).into_iter().flat_map(|chain| &chain.rules) {
            all = union(&all, &self.of_rule(rule, field));
            if all == everything {
                break;
            }
        }
        let all = Rc::new(all);
        effects.known.borrow_mut().insert(key, Rc::clone(&all));
        all
    }

    /// The same of a rule. A `return` only skips what comes after it, which counts by itself.
    fn of_rule(&self, rule: &Rule, field: Field) -> Predicate {
        let mut here = self.space.everything();
        for step in &rule.steps {
            match step {
                Step::Match(condition) => {
                    if condition.key == [field] && !condition.negated {
                        here = intersection(&here, &self.single(&condition.set));
                    }
                }
                Step::Verdict(Verdict::Jump(target) | Verdict::Goto(target)) => {
                    return intersection(&here, &self.of_chain(*target, field));
                }
                Step::Verdict(Verdict::Return | Verdict::Continue) => return Predicate::new(),
                _ => return here,
            }
        }
        Predicate::new()
    }

    /// Can no packet be led through more chains than the kernel follows? What is behind that is a matter of how it came there.
    fn is_shallow(&self) -> bool {
        let key = std::ptr::from_ref(self.machine).addr();
        *self.cache.effects().shallow.borrow_mut().entry(key).or_insert_with(|| {
            let mut depths = vec![None; self.machine.chains.len()];
            (0..depths.len()).all(|chain| {
                depth(self.machine, chain, &mut depths, 0).is_some_and(|depth| depth < MOST_JUMPS)
            })
        })
    }
}

/// How many chains a packet can be led through from this one; none if there is no end, or nearly none.
fn depth(
    machine: &Machine,
    index: ChainIndex,
    depths: &mut Vec<Option<usize>>,
    above: usize,
) -> Option<usize> {
    if above > MOST_JUMPS {
        return None;
    }
    if let Some(known) = depths.get(index).copied().flatten() {
        return Some(known);
    }
    let mut deepest = 0;
    for step in machine.chain(index)?.rules.iter().flat_map(|rule| &rule.steps) {
        let mut follow = |verdict: &Verdict| {
            let (Verdict::Jump(next) | Verdict::Goto(next)) = verdict else { return Some(()) };
            deepest = deepest.max(1 + depth(machine, *next, depths, above + 1)?);
            Some(())
        };
        match step {
            Step::Verdict(verdict) => follow(verdict)?,
            Step::Dispatch { map, .. } => map.entries().try_for_each(|(_, to)| follow(to))?,
            _ => {}
        }
    }
    *depths.get_mut(index)? = Some(deepest);
    Some(deepest)
}

/// The intervals of either.
fn union(a: &[(usize, usize)], b: &[(usize, usize)]) -> Predicate {
    let mut sorted: Vec<(usize, usize)> = a.iter().chain(b).copied().collect();
    sorted.sort_unstable();
    let mut all = Predicate::with_capacity(sorted.len());
    for (first, last) in sorted {
        match all.last_mut() {
            Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
            _ => all.push((first, last)),
        }
    }
    all
}

/// The intervals of both.
fn intersection(a: &[(usize, usize)], b: &[(usize, usize)]) -> Predicate {
    let (mut a, mut b) = (a.iter().copied().peekable(), b.iter().copied().peekable());
    let mut all = Predicate::new();
    while let (Some(one), Some(other)) = (a.peek().copied(), b.peek().copied()) {
        let (first, last) = (one.0.max(other.0), one.1.min(other.1));
        if first <= last {
            all.push((first, last));
        }
        if one.1 < other.1 {
            a.next()
        } else {
            b.next()
        };
    }
    all
}
