//! Conditions and verdict maps as sets of packets.

use super::diagram::{Block, Diagram, Diagrams};
use super::names::Names;
use super::packets::{Value, is_device};
use crate::machine::{Condition, ElementMap, ElementSet, Range, Verdict};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

/// The packets of each verdict of a map; no packet is in two.
pub(super) type Regions = Rc<Vec<(Verdict, Diagram)>>;

/// A set or a map, by where it is in memory, and what its key is.
type Key = (usize, Vec<Value>);

/// What was made of the sets of a ruleset; each that is looked up by the same fields is made once.
pub(super) struct Sets {
    names: Names,
    sets: RefCell<HashMap<Key, Diagram>>,
    maps: RefCell<HashMap<Key, Regions>>,
}

impl Sets {
    /// Nothing yet; the names are those that the ruleset mentions.
    pub(super) fn new(names: Names) -> Self {
        Self { names, sets: RefCell::default(), maps: RefCell::default() }
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// The packets with one of these values.
    pub(super) fn within(&self, diagrams: &Diagrams, block: Block, ranges: &[Range]) -> Diagram {
        if !is_device(block) {
            return diagrams.within(block, ranges);
        }
        let numbers: Vec<Range> = ranges.iter().map(|range| self.names.numbers(range)).collect();
        diagrams.within(block, &numbers)
    }

    /// Forgets what was made for the fixed fields of one question.
    pub(super) fn forget_fixed(&self) {
        let lasts = |(_, key): &Key| key.iter().all(|value| matches!(value, Value::In(_)));
        self.sets.borrow_mut().retain(|key, _| lasts(key));
        self.maps.borrow_mut().retain(|key, _| lasts(key));
    }

    /// The packets that fulfill a condition; the key is what is known of its fields. That a packet has no direction is not
    /// looked at.
    pub(super) fn condition(
        &self,
        diagrams: &Diagrams,
        condition: &Condition,
        key: &[Value],
    ) -> Diagram {
        if key.contains(&Value::Missing) {
            return diagrams.none();
        }
        let set = &condition.set;
        let found = match (key, condition.mask()) {
            (&[Value::Is(value)], mask) if set.width() == 1 => {
                // The mark, which alone has a mask, is always known.
                let value = mask.map_or(value, |mask| value & u128::from(mask));
                diagrams.constant(within(set.intervals(), value))
            }
            _ => {
                let at = (Arc::as_ptr(set).addr(), key.to_vec());
                let known = self.sets.borrow().get(&at).cloned();
                known.unwrap_or_else(|| {
                    let made = self.of_set(diagrams, set, key);
                    self.sets.borrow_mut().insert(at, made.clone());
                    made
                })
            }
        };
        if condition.negated { diagrams.not(&found) } else { found }
    }

    /// The packets of each verdict of a map.
    pub(super) fn map(
        &self,
        diagrams: &Diagrams,
        map: &Arc<ElementMap<Verdict>>,
        key: &[Value],
    ) -> Regions {
        let at = (Arc::as_ptr(map).addr(), key.to_vec());
        if let Some(known) = self.maps.borrow().get(&at) {
            return Rc::clone(known);
        }
        let made = Rc::new(self.of_map(diagrams, map, key));
        self.maps.borrow_mut().insert(at, Rc::clone(&made));
        made
    }

    fn of_set(&self, diagrams: &Diagrams, set: &ElementSet, key: &[Value]) -> Diagram {
        match key {
            _ if set.width() != key.len() => diagrams.none(),
            &[Value::In(block)] => self.within(diagrams, block, set.intervals()),
            key => {
                Parts::new(key, &self.names).union(diagrams, set.boxes().iter().map(|one| &**one))
            }
        }
    }

    fn of_map(
        &self,
        diagrams: &Diagrams,
        map: &ElementMap<Verdict>,
        key: &[Value],
    ) -> Vec<(Verdict, Diagram)> {
        if key.contains(&Value::Missing) || map.width() != key.len() {
            return Vec::new();
        }
        let parts = Parts::new(key, &self.names);
        let possible = map.entries().filter(|(entry, _)| parts.fits(entry));
        let (points, wide): (Vec<_>, Vec<_>) =
            possible.partition(|(entry, _)| entry.iter().all(|range| range.first == range.last));
        // Exact entries come before all others; of two that are the same, the first counts.
        let mut by_verdict: Vec<(Verdict, Vec<&[Range]>)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut seen: HashSet<&[Range]> = HashSet::new();
        for (entry, verdict) in points {
            if !seen.insert(entry) {
                continue;
            }
            let place = places.entry(format!("{verdict:?}")).or_insert(by_verdict.len());
            match by_verdict.get_mut(*place) {
                Some((_, entries)) => entries.push(entry),
                None => by_verdict.push((*verdict, vec![entry])),
            }
        }
        let mut regions: Vec<(Verdict, Diagram)> = by_verdict
            .into_iter()
            .map(|(verdict, entries)| (verdict, parts.union(diagrams, entries.into_iter())))
            .collect();
        let mut taken = if wide.is_empty() {
            diagrams.none()
        } else {
            diagrams.union(regions.iter().map(|(_, region)| region))
        };
        for (entry, verdict) in wide {
            let whole = parts.union(diagrams, std::iter::once(entry));
            let region = diagrams.minus(&whole, &taken);
            taken = diagrams.or(&taken, &whole);
            match regions.iter_mut().find(|(other, _)| other == verdict) {
                Some((_, other)) => *other = diagrams.or(other, &region),
                None => regions.push((*verdict, region)),
            }
        }
        regions
    }
}

fn within(intervals: &[Range], value: u128) -> bool {
    intervals.iter().any(|range| range.contains(value))
}

/// The parts of a key: those that are fixed, and those that variables hold, in the order of the variables.
struct Parts<'n> {
    names: &'n Names,
    fixed: Vec<(usize, u128)>,
    blocks: Vec<(Block, usize)>,
}

impl<'n> Parts<'n> {
    fn new(key: &[Value], names: &'n Names) -> Self {
        let mut parts = Self { names, fixed: Vec::new(), blocks: Vec::new() };
        for (at, value) in key.iter().enumerate() {
            match value {
                Value::Is(value) => parts.fixed.push((at, *value)),
                Value::In(block) => parts.blocks.push((*block, at)),
                Value::Missing => {}
            }
        }
        parts.blocks.sort_unstable();
        parts
    }

    fn fits(&self, one: &[Range]) -> bool {
        self.fixed.iter().all(|(at, value)| one.get(*at).is_some_and(|r| r.contains(*value)))
    }

    /// The packets whose key is in one of these boxes.
    fn union<'b>(&self, diagrams: &Diagrams, boxes: impl Iterator<Item = &'b [Range]>) -> Diagram {
        let mut blocks: Vec<Block> = self.blocks.iter().map(|(block, _)| *block).collect();
        blocks.dedup();
        let ranges: Vec<Vec<Range>> = boxes
            .filter(|one| self.fits(one))
            .map(|one| {
                let of = |block: &Block| {
                    // A field may stand in a key twice.
                    let same = self.blocks.iter().filter(|(other, _)| other == block);
                    let same = same.filter_map(|(_, at)| one.get(*at)).fold(Range::ALL, |a, b| {
                        Range { first: a.first.max(b.first), last: a.last.min(b.last) }
                    });
                    if is_device(*block) { self.names.numbers(&same) } else { same }
                };
                blocks.iter().map(of).collect()
            })
            .collect();
        let ranges: Vec<&[Range]> = ranges
            .iter()
            .map(Vec::as_slice)
            .filter(|one| one.iter().all(|range| range.first <= range.last))
            .collect();
        diagrams.boxes(&blocks, &ranges)
    }
}
