//! The addresses of a family, cut into the intervals that no predicate of either side tells apart, and classes of these.
//!
//! Cut once for the whole ruleset, then, for each question, sorted into classes by the predicates that the question can
//! meet. Both steps are exact: every predicate is a union of intervals, every class a set of intervals that each of the
//! question's predicates holds for or does not.

use crate::machine::Range;

/// The addresses of one family, cut.
#[derive(Debug)]
pub(super) struct Space {
    /// The first address of each interval, ordered; the first is 0.
    starts: Vec<u128>,
    last: u128,
}

/// A predicate on addresses: the intervals, as pairs of first and last index, ordered and disjoint.
pub(super) type Predicate = Vec<(usize, usize)>;

impl Space {
    pub(super) fn new(last: u128, ranges: impl IntoIterator<Item = Range>) -> Self {
        let mut starts = vec![0];
        for range in ranges {
            starts.extend((range.first <= last).then_some(range.first));
            starts.extend(range.last.checked_add(1).filter(|next| *next <= last));
        }
        // Sets come in order, so that the stable sort has little to do.
        starts.sort();
        starts.dedup();
        Self { starts, last }
    }

    /// How many intervals there are.
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The smallest address of an interval.
    pub(super) fn first(&self, interval: usize) -> u128 {
        self.starts.get(interval).copied().unwrap_or(self.last)
    }

    /// An interval.
    pub(super) fn range(&self, interval: usize) -> Range {
        let last = self.starts.get(interval + 1).map_or(self.last, |next| next - 1);
        Range { first: self.first(interval), last }
    }

    /// Can a host have this address, and others send to it? Then a packet with it can be sent to see what becomes of it.
    pub(super) fn is_usual(&self, address: u128) -> bool {
        if self.last == u32::MAX.into() {
            let first = address >> 24;
            (1..224).contains(&first) && first != 127 && address >> 16 != 0xa9fe
        } else {
            // 2000::/3 and fc00::/7
            address >> 125 == 1 || address >> 121 == 0x7e
        }
    }

    /// The address that stands for an interval: the smallest that a host can have, or else the smallest.
    pub(super) fn representative(&self, interval: usize) -> u128 {
        let Range { first, last: end } = self.range(interval);
        // 1.0.0.0 and 2000:: are the least that are routed.
        let routed = if self.last == u32::MAX.into() { 1 << 24 } else { 1 << 125 };
        if first < routed && routed <= end { routed } else { first }
    }

    /// The interval that an address is in.
    pub(super) fn interval(&self, address: u128) -> usize {
        self.starts.partition_point(|start| *start <= address).saturating_sub(1)
    }

    /// A union of ranges as a predicate. Each range must be one that the space was cut by, or a union of such.
    pub(super) fn predicate<'r>(&self, ranges: impl IntoIterator<Item = &'r Range>) -> Predicate {
        let ranges = ranges.into_iter().filter(|range| range.first <= self.last);
        let mut predicate: Predicate = ranges
            .map(|range| (self.interval(range.first), self.interval(range.last.min(self.last))))
            .collect();
        predicate.sort_unstable();
        let mut merged: Predicate = Vec::with_capacity(predicate.len());
        for (first, last) in predicate {
            match merged.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        merged
    }
}

/// Classes of intervals, refined by one predicate after the other.
#[derive(Debug)]
pub(super) struct Classes {
    /// The class of each interval.
    of: Vec<usize>,
    /// Where the members of a class go that the current predicate holds for, and which predicate that was.
    split: Vec<(usize, usize)>,
    round: usize,
}

impl Classes {
    /// One class of everything.
    pub(super) fn new(space: &Space) -> Self {
        Self { of: vec![0; space.len()], split: vec![(0, 0)], round: 0 }
    }

    /// Tells apart what the predicate holds for from what it does not.
    pub(super) fn refine(&mut self, predicate: &[(usize, usize)]) {
        self.round += 1;
        for &(first, last) in predicate {
            for class in self.of.get_mut(first..=last).unwrap_or_default() {
                let fresh = self.split.len();
                let Some(split) = self.split.get_mut(*class) else { continue };
                if split.1 != self.round {
                    *split = (fresh, self.round);
                }
                let target = split.0;
                if target == fresh {
                    self.split.push((0, 0));
                }
                *class = target;
            }
        }
    }

    /// An interval of each class that is not empty, ordered: the first with an address that a host can have, or else the first.
    pub(super) fn representatives(&self, space: &Space) -> Vec<usize> {
        // Of each class, what stands for it so far, and whether that stays.
        let mut found: Vec<Option<(usize, bool)>> = vec![None; self.split.len()];
        for (interval, class) in self.of.iter().enumerate() {
            let Some(found) = found.get_mut(*class) else { continue };
            if matches!(found, Some((_, true))) {
                continue;
            }
            let usual = space.is_usual(space.representative(interval));
            if usual || found.is_none() {
                *found = Some((interval, usual));
            }
        }
        let mut all: Vec<usize> =
            found.into_iter().flatten().map(|(interval, _)| interval).collect();
        all.sort_unstable();
        all
    }

    /// The class of an interval.
    pub(super) fn class(&self, interval: usize) -> Option<usize> {
        self.of.get(interval).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn all_members_of_a_class_were_split_from_it() {
        let space = Space::new(255, [Range::new(10u8, 19u8), Range::new(15u8, 30u8)]);
        assert_eq!(space.len(), 5);
        let mut classes = Classes::new(&space);
        classes.refine(&space.predicate(&[Range::new(10u8, 19u8)]));
        classes.refine(&space.predicate(&[Range::new(15u8, 30u8)]));
        let first: Vec<u128> =
            classes.representatives(&space).into_iter().map(|i| space.first(i)).collect();
        assert_eq!(first, [0, 10, 15, 20]);
        // 0.0.0.0/8, loopback and everything else are one class; a host can have an address of the last.
        let [zero, loopback] =
            [0u32, 127].map(|first| Range::new(first << 24, (first << 24) + 0xff_ffff));
        let space = Space::new(u32::MAX.into(), [zero, loopback]);
        let stands = Classes::new(&space).representatives(&space);
        assert_eq!(stands.into_iter().map(|i| space.first(i)).collect::<Vec<_>>(), [1 << 24]);
    }

    proptest! {
        /// Two addresses are in one class if and only if no predicate tells them apart.
        #[test]
        fn classes_are_what_predicates_say(
            sets in vec(vec((0u8..64, 0u8..64), 0..6), 0..6)
        ) {
            let sets: Vec<Vec<Range>> = sets
                .into_iter()
                .map(|set| set.into_iter().map(|(a, b)| Range::new(a.min(b), a.max(b))).collect())
                .collect();
            let space = Space::new(63, sets.iter().flatten().copied());
            let mut classes = Classes::new(&space);
            for set in &sets {
                classes.refine(&space.predicate(set));
            }
            let mut by_key: BTreeMap<Vec<bool>, BTreeSet<usize>> = BTreeMap::new();
            for address in 0..64u128 {
                let key = sets.iter().map(|s| s.iter().any(|r| r.contains(address))).collect();
                let class = classes.class(space.interval(address)).unwrap();
                by_key.entry(key).or_default().insert(class);
            }
            let all: BTreeSet<usize> = by_key.values().flatten().copied().collect();
            prop_assert!(by_key.values().all(|classes| classes.len() == 1));
            prop_assert_eq!(all.len(), by_key.len());
            prop_assert_eq!(classes.representatives(&space).len(), by_key.len());
        }
    }
}
