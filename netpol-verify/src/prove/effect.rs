//! Which addresses rules have an effect on. Where a chain does nothing to an address but let it come back, it makes no difference
//! whether packets with it are led there; and where a base chain lets all of them pass, it makes none by which of its rules. What
//! leads there cuts nothing then: a tree of prefixes tells apart no addresses but its leaves, a table of services those that it
//! marks.

use super::gather::Walk;
use super::space::{Predicate, Space};
use crate::machine::{
    ChainIndex, ElementMap, Field, MOST_JUMPS, Machine, Rule, Stage, Step, Verdict,
};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::rc::Rc;

/// In a chain of more rules a `goto` is taken to matter: what it skips would have to be put together for each rule.
const MOST_RULES: usize = 64;

/// Some addresses.
#[derive(Clone, Debug, Default)]
pub(super) enum Addresses {
    #[default]
    All,
    These(Rc<Predicate>),
}

impl Addresses {
    fn none() -> Self {
        Self::These(Rc::default())
    }

    fn is_none(&self) -> bool {
        matches!(self, Self::These(these) if these.is_empty())
    }

    /// Those of these that are in a predicate.
    pub(super) fn of(&self, predicate: &Rc<Predicate>) -> Rc<Predicate> {
        match self {
            Self::All => Rc::clone(predicate),
            Self::These(these) => Rc::new(intersection(these, predicate)),
        }
    }

    fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, both) | (both, Self::All) => both.clone(),
            (Self::These(one), Self::These(other)) => {
                Self::These(Rc::new(intersection(one, other)))
            }
        }
    }
}

/// Addresses that are put together.
#[derive(Default)]
struct Union {
    all: bool,
    parts: Predicate,
}

impl Union {
    fn add(&mut self, some: &Addresses) {
        match some {
            Addresses::All => self.all = true,
            Addresses::These(these) => self.parts.extend(these.iter()),
        }
    }

    fn done(mut self, space: &Space) -> Addresses {
        self.parts.sort_unstable();
        let mut merged = Predicate::new();
        for (first, last) in self.parts {
            match merged.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        let all = matches!(merged.as_slice(), [(0, last)] if *last + 1 >= space.len());
        if self.all || all { Addresses::All } else { Addresses::These(Rc::new(merged)) }
    }
}

/// A chain, the field that the addresses are in, and whether it is no effect that a packet passes.
type Key = (ChainIndex, Field, bool);

type Rests = Rc<[Addresses]>;

/// What the rules of a base chain, and of those that it leads to, do to addresses in packets of a question.
pub(super) struct Effects<'w, 'm, 'c> {
    walk: &'w Walk<'m, 'c>,
    pub(super) stage: &'w Stage,
    /// Is it looked at at all?
    used: bool,
    of_chains: RefCell<FxHashMap<Key, Addresses>>,
    /// Of each rule of a chain, the addresses that those behind it do something to.
    of_rests: RefCell<FxHashMap<(ChainIndex, Field), Rests>>,
}

impl<'w, 'm, 'c> Effects<'w, 'm, 'c> {
    pub(super) fn new(walk: &'w Walk<'m, 'c>, stage: &'w Stage) -> Self {
        let used = !walk.cuts_everything && walk.cache.is_shallow(walk.machine);
        let (of_chains, of_rests) = Default::default();
        Self { walk, stage, used, of_chains, of_rests }
    }

    /// The addresses that the base chain may do anything to but let them pass.
    pub(super) fn of_base(&self, field: Field) -> Addresses {
        let hook = self.walk.machine.chain(self.stage.chain).and_then(|chain| chain.hook.as_ref());
        if !self.used || hook.is_none_or(|hook| hook.drops) {
            return Addresses::All;
        }
        self.of_chain(self.stage.chain, field, true)
    }

    /// The addresses for which it can make a difference whether they take this rule to another chain: all, if it is no such rule.
    pub(super) fn of_jump(&self, (chain, at): (ChainIndex, usize), field: Field) -> Addresses {
        let rules = self.walk.machine.chain(chain).map_or(&[][..], |chain| &chain.rules);
        let Some((last, before)) = rules.get(at).and_then(|rule| rule.steps.split_last()) else {
            return Addresses::All;
        };
        if !self.used || !before.iter().all(is_harmless) {
            return Addresses::All;
        }
        match last {
            Step::Verdict(Verdict::Jump(target)) => self.of_chain(*target, field, false),
            // Who comes back from there does not meet the rest of this chain.
            Step::Verdict(Verdict::Goto(target)) if rules.len() <= MOST_RULES => {
                let mut union = Union::default();
                union.add(&self.of_chain(*target, field, false));
                union.add(self.of_rest(chain, field).get(at).unwrap_or(&Addresses::All));
                union.done(self.walk.space)
            }
            _ => Addresses::All,
        }
    }

    fn of_rest(&self, chain: ChainIndex, field: Field) -> Rests {
        let key = (chain, field);
        if let Some(known) = self.of_rests.borrow().get(&key) {
            return Rc::clone(known);
        }
        let rules = self.walk.machine.chain(chain).map_or(&[][..], |chain| &chain.rules);
        let mut rests = Vec::with_capacity(rules.len());
        let mut rest = Addresses::none();
        for rule in rules.iter().rev() {
            rests.push(rest.clone());
            let mut union = Union::default();
            union.add(&rest);
            union.add(&self.of_rule(rule, field, false));
            rest = union.done(self.walk.space);
        }
        rests.reverse();
        let rests: Rests = rests.into();
        self.of_rests.borrow_mut().insert(key, Rc::clone(&rests));
        rests
    }

    fn of_chain(&self, index: ChainIndex, field: Field, passing: bool) -> Addresses {
        let key = (index, field, passing);
        if let Some(known) = self.of_chains.borrow().get(&key) {
            return known.clone();
        }
        let rules = self.walk.machine.chain(index).map_or(&[][..], |chain| &chain.rules);
        let mut union = Union::default();
        // The last rule often drops all that is left.
        for rule in rules.iter().rev() {
            union.add(&self.of_rule(rule, field, passing));
            if union.all {
                break;
            }
        }
        let all = union.done(self.walk.space);
        self.of_chains.borrow_mut().insert(key, all.clone());
        all
    }

    fn of_rule(&self, rule: &Rule, field: Field, passing: bool) -> Addresses {
        let walk = self.walk;
        let mut here = Addresses::All;
        let mut union = Union::default();
        for step in &rule.steps {
            match step {
                Step::Match(condition) => {
                    if walk.decided(&condition.key, condition, self.stage) == Some(false)
                        || walk.is_outside(condition)
                    {
                        return union.done(walk.space);
                    }
                    if condition.key == [field] && !condition.negated {
                        here = Addresses::These(here.of(&walk.single(&condition.set)));
                    }
                }
                Step::Dispatch { key, map } => {
                    union.add(&here.and(&self.of_map(key, map, field, passing)));
                }
                Step::Verdict(verdict) => {
                    union.add(&here.and(&self.of_verdict(*verdict, field, passing)));
                    return union.done(walk.space);
                }
                step if is_harmless(step) => {}
                _ => {
                    union.add(&here);
                    return union.done(walk.space);
                }
            }
        }
        union.done(walk.space)
    }

    /// A `return` only skips what comes after it, which counts by itself.
    fn of_verdict(&self, verdict: Verdict, field: Field, passing: bool) -> Addresses {
        match verdict {
            Verdict::Drop => Addresses::All,
            Verdict::Accept if !passing => Addresses::All,
            Verdict::Accept | Verdict::Return | Verdict::Continue => Addresses::none(),
            Verdict::Jump(target) | Verdict::Goto(target) => self.of_chain(target, field, passing),
        }
    }

    fn of_map(
        &self,
        key: &[Field],
        map: &ElementMap<Verdict>,
        field: Field,
        passing: bool,
    ) -> Addresses {
        let walk = self.walk;
        let fixed = walk.fixed_parts(key, self.stage);
        if let Some(values) = fixed.iter().copied().collect::<Option<Vec<u128>>>() {
            let verdict = map.value(&values).copied();
            return verdict
                .map_or_else(Addresses::none, |verdict| self.of_verdict(verdict, field, passing));
        }
        let part = key.iter().zip(&fixed).position(|(of, value)| *of == field && value.is_none());
        let mut union = Union::default();
        for (entry, verdict) in map.entries().filter(|(entry, _)| walk.is_met(key, &fixed, entry)) {
            let effect = self.of_verdict(*verdict, field, passing);
            match part.and_then(|part| entry.get(part)) {
                _ if effect.is_none() => {}
                Some(range) => {
                    let range = Rc::new(walk.space.predicate([range]));
                    union.add(&Addresses::These(effect.of(&range)));
                }
                None => union.add(&effect),
            }
            if union.all {
                break;
            }
        }
        union.done(walk.space)
    }
}

/// Does it do nothing to a packet but let it go on or not? Whatever was not understood of that makes no difference where what
/// comes behind it does not.
fn is_harmless(step: &Step) -> bool {
    matches!(step, Step::Match(_) | Step::Free(_) | Step::UnknownMatch(_))
}

/// Can no packet be led through more chains than the kernel follows? What is behind that is a matter of how it came there.
pub(super) fn is_shallow(machine: &Machine) -> bool {
    let mut depths = vec![None; machine.chains.len()];
    (0..depths.len())
        .all(|chain| depth(machine, chain, &mut depths, 0).is_some_and(|depth| depth < MOST_JUMPS))
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
