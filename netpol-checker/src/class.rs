//! Classes of values and sets, and the one question that everything rests on: is a class in a set, as a whole or not at all?

use crate::format::Index;
use crate::list::{Interval, normal, within, within_boxes};
use rustc_hash::FxHashMap;

/// A class of values: where its list stands.
pub(crate) type Class = u32;

/// A set: where it stands.
pub(crate) type SetId = usize;

/// No key has more parts.
pub(crate) const MOST_PARTS: usize = 6;

/// The classes of a key, one for each part, and then [`NO_CLASS`].
pub(crate) type Key = [Class; MOST_PARTS];

const NO_CLASS: Class = Class::MAX;

/// A key without parts.
pub(crate) const NO_CLASSES: Key = [NO_CLASS; MOST_PARTS];

/// A key as a [`Key`]; none if it has too many parts.
pub(crate) fn key(classes: &[Class]) -> Option<Key> {
    let mut key = NO_CLASSES;
    key.get_mut(..classes.len())?.copy_from_slice(classes);
    Some(key)
}

/// All classes and sets, with what is known of them.
#[derive(Debug, Default)]
pub(crate) struct Tests {
    lists: Vec<Vec<Interval>>,
    points: FxHashMap<u128, Class>,
    sets: Vec<Vec<Vec<Interval>>>,
    values: FxHashMap<Vec<Interval>, SetId>,
    known: FxHashMap<(Key, SetId), Option<bool>>,
}

impl Tests {
    /// The classes of a certificate, which keep their indices.
    pub(crate) fn new<'l>(lists: impl Iterator<Item = &'l Vec<Interval>>) -> Self {
        Self { lists: lists.map(|list| normal(list.clone())).collect(), ..Self::default() }
    }

    /// The class of a certificate at an index.
    pub(crate) fn class(&self, index: Index) -> Option<Class> {
        Class::try_from(index).ok().filter(|_| index < self.lists.len())
    }

    /// The class of one value.
    pub(crate) fn point(&mut self, value: u128) -> Class {
        let Self { points, lists, .. } = self;
        *points.entry(value).or_insert_with(|| {
            lists.push(vec![Interval::one(value)]);
            Class::try_from(lists.len() - 1).unwrap_or(NO_CLASS)
        })
    }

    /// The values of a class.
    pub(crate) fn list(&self, class: Class) -> &[Interval] {
        self.lists.get(class as usize).map_or(&[], Vec::as_slice)
    }

    /// A set of values.
    pub(crate) fn set(&mut self, values: Vec<Interval>) -> SetId {
        let Self { sets, values: known, .. } = self;
        *known.entry(normal(values)).or_insert_with_key(|values| {
            sets.push(vec![values.clone()]);
            sets.len() - 1
        })
    }

    /// A set of tuples, as boxes.
    pub(crate) fn set_of_boxes(&mut self, boxes: Vec<Vec<Interval>>) -> SetId {
        self.sets.push(boxes);
        self.sets.len() - 1
    }

    /// Are all tuples of these classes in the set, or none? None if some are and some are not, or the key is too long.
    pub(crate) fn ask(&mut self, classes: &[Class], set: SetId) -> Option<bool> {
        let Self { lists, sets, known, .. } = self;
        *known.entry((key(classes)?, set)).or_insert_with(|| {
            let list = |class: &Class| lists.get(*class as usize).map(Vec::as_slice);
            let lists: Vec<&[Interval]> = classes.iter().map(list).collect::<Option<_>>()?;
            match (lists.as_slice(), sets.get(set)?.as_slice()) {
                // A set of values is one list, not boxes of one side.
                ([list], [values]) => within(list, values),
                ([_], _) => None,
                (lists, boxes) => {
                    within_boxes(lists, &boxes.iter().map(Vec::as_slice).collect::<Vec<_>>())
                }
            }
        })
    }

    /// Is a class of values in an interval, as a whole or not at all?
    pub(crate) fn between(&mut self, class: Class, first: u128, last: u128) -> Option<bool> {
        let set = self.set(vec![Interval::new(first, last)]);
        self.ask(&[class], set)
    }
}

/// One of them holds; none if that cannot be said of the whole class.
pub(crate) fn any(answers: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut all_known = true;
    for answer in answers {
        match answer {
            Some(true) => return Some(true),
            Some(false) => {}
            None => all_known = false,
        }
    }
    all_known.then_some(false)
}

/// Both hold; none if that cannot be said of the whole class.
pub(crate) fn both(one: Option<bool>, other: impl FnOnce() -> Option<bool>) -> Option<bool> {
    match one {
        Some(false) => Some(false),
        Some(true) => other(),
        None => other().filter(|other| !other),
    }
}
