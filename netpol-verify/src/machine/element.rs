//! Sets and verdict maps: lists of boxes, one interval for each part of the key.

use super::field::Range;
use std::collections::HashMap;
use std::sync::OnceLock;

/// A set of tuples of values, as a union of boxes.
///
/// Canonical where the key has one part: intervals are ordered and neither overlap nor touch.
#[derive(Clone, Debug, Default)]
pub struct ElementSet {
    name: Option<String>,
    width: usize,
    intervals: Vec<Range>,
    boxes: Vec<Box<[Range]>>,
    /// The boxes that are single points, by their values.
    points: HashMap<Box<[u128]>, ()>,
    /// The boxes that are not.
    wide: Vec<Box<[Range]>>,
    /// For each part of the key the values that some box has there, made when first asked for.
    parts: OnceLock<Vec<Self>>,
}

impl ElementSet {
    /// The set of these intervals of one field.
    #[must_use]
    pub fn of(mut intervals: Vec<Range>) -> Self {
        intervals.retain(|range| range.first <= range.last);
        intervals.sort_unstable();
        let mut merged: Vec<Range> = Vec::with_capacity(intervals.len());
        for range in intervals {
            match merged.last_mut() {
                Some(last) if last.last >= range.first || last.last + 1 == range.first => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self { width: 1, intervals: merged, ..Self::default() }
    }

    /// The set of these boxes; each has an interval for each part of the key. Boxes of another width are left out.
    #[must_use]
    pub fn of_boxes(width: usize, boxes: Vec<Box<[Range]>>) -> Self {
        if width == 1 {
            return Self::of(boxes.iter().filter_map(|b| b.first().copied()).collect());
        }
        let mut set = Self { width, ..Self::default() };
        for one in boxes.into_iter().filter(|one| one.len() == width) {
            if one.iter().all(|range| range.first == range.last) {
                let point = one.iter().map(|range| range.first).collect();
                if set.points.insert(point, ()).is_some() {
                    continue;
                }
            } else {
                set.wide.push(one.clone());
            }
            set.boxes.push(one);
        }
        set
    }

    /// The same set, with the name that the ruleset gives it.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Of how many parts its key is.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The intervals of a set with a key of one part, ordered, disjoint, not touching.
    #[must_use]
    pub fn intervals(&self) -> &[Range] {
        &self.intervals
    }

    /// The boxes of a set with a key of several parts.
    #[must_use]
    pub fn boxes(&self) -> &[Box<[Range]>] {
        &self.boxes
    }

    /// Is the tuple in it?
    #[must_use]
    pub fn contains(&self, values: &[u128]) -> bool {
        if let (1, [value]) = (self.width, values) {
            return self.contains_value(*value);
        }
        self.points.contains_key(values) || self.wide.iter().any(|one| in_box(one, values))
    }

    /// Has some box this value in that part of the key?
    #[must_use]
    pub fn has_in_part(&self, part: usize, value: u128) -> bool {
        if self.width == 1 {
            return part == 0 && self.contains_value(value);
        }
        let parts = self.parts.get_or_init(|| {
            let part = |at| self.boxes.iter().filter_map(|one| one.get(at).copied()).collect();
            (0..self.width).map(|at| Self::of(part(at))).collect()
        });
        parts.get(part).is_some_and(|values| values.contains_value(value))
    }

    /// Is the value in a set with a key of one part?
    #[must_use]
    pub fn contains_value(&self, value: u128) -> bool {
        let after = self.intervals.partition_point(|range| range.first <= value);
        let before = after.checked_sub(1).and_then(|at| self.intervals.get(at));
        before.is_some_and(|range| value <= range.last)
    }
}

fn in_box(one: &[Range], values: &[u128]) -> bool {
    one.len() == values.len() && one.iter().zip(values).all(|(range, v)| range.contains(*v))
}

/// A map from boxes to what `T` is.
#[derive(Clone, Debug)]
pub struct ElementMap<T> {
    name: Option<String>,
    width: usize,
    /// In the order in which they are tried; ordered by the first interval where the key has one part.
    entries: Vec<(Box<[Range]>, T)>,
    points: HashMap<Box<[u128]>, usize>,
    wide: Vec<usize>,
}

impl<T> ElementMap<T> {
    /// The map of these entries; of two that overlap, an exact one and then the first wins.
    #[must_use]
    pub fn new(name: Option<String>, width: usize, mut entries: Vec<(Box<[Range]>, T)>) -> Self {
        entries.retain(|(key, _)| key.len() == width);
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let (mut points, mut wide) = (HashMap::new(), Vec::new());
        for (at, (key, _)) in entries.iter().enumerate() {
            if key.iter().all(|range| range.first == range.last) {
                points.entry(key.iter().map(|range| range.first).collect()).or_insert(at);
            } else {
                wide.push(at);
            }
        }
        Self { name, width, entries, points, wide }
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Of how many parts its key is.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// All entries.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&[Range], &T)> {
        self.entries.iter().map(|(key, value)| (&**key, value))
    }

    /// Where the entry stands that the tuple falls into.
    #[must_use]
    pub fn position(&self, values: &[u128]) -> Option<usize> {
        self.points.get(values).copied().or_else(|| {
            self.wide
                .iter()
                .copied()
                .find(|at| self.entries.get(*at).is_some_and(|(key, _)| in_box(key, values)))
        })
    }

    /// The entry at a position.
    #[must_use]
    pub fn at(&self, position: usize) -> Option<&T> {
        self.entries.get(position).map(|(_, value)| value)
    }

    /// What the tuple is mapped to.
    #[must_use]
    pub fn value(&self, values: &[u128]) -> Option<&T> {
        self.position(values).and_then(|at| self.at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_canonical() {
        let r = |first: u8, last: u8| Range::new(first, last);
        let set = ElementSet::of(vec![r(5, 7), r(1, 2), r(3, 3), r(6, 9), r(12, 11)]);
        assert_eq!(set.intervals(), [r(1, 3), r(5, 9)]);
        let inside: Vec<u128> = (0..12).filter(|v| set.contains_value(*v)).collect();
        assert_eq!(inside, [1, 2, 3, 5, 6, 7, 8, 9]);
        assert!(ElementSet::of(vec![Range::ALL, r(1, 1)]).contains_value(u128::MAX));
    }

    #[test]
    fn boxes_are_products() {
        let point = |a: u8, b: u8| Box::from([Range::one(a), Range::one(b)]);
        let wide: Box<[Range]> = Box::from([Range::new(4u8, 6u8), Range::one(1u8)]);
        let set = ElementSet::of_boxes(2, vec![point(1, 2), wide.clone(), point(1, 2)]);
        assert_eq!(set.boxes().len(), 2, "no box twice");
        for (values, inside) in [([1, 2], true), ([2, 1], false), ([5, 1], true), ([5, 2], false)] {
            assert_eq!(set.contains(&values), inside, "{values:?}");
            assert!(!inside || (set.has_in_part(0, values[0]) && set.has_in_part(1, values[1])));
        }
        assert!(!set.has_in_part(0, 2) && !set.has_in_part(1, 5) && !set.has_in_part(2, 1));
        let map = ElementMap::new(None, 2, vec![(wide, 'w'), (point(1, 2), 'p')]);
        assert_eq!(map.value(&[1, 2]), Some(&'p'));
        assert_eq!(map.value(&[6, 1]), Some(&'w'));
        assert_eq!(map.value(&[6, 2]), None);
    }
}
