//! Sets of numbers as sorted, disjoint, non-adjacent closed intervals: the arithmetic under address and port sets.

use std::fmt;
use std::ops::RangeInclusive;

/// A number that intervals can be made of.
pub trait Number: Copy + Ord + fmt::Debug {
    /// The least number.
    const MIN: Self;
    /// The greatest number.
    const MAX: Self;
    /// The next number, or none after the greatest.
    fn successor(self) -> Option<Self>;
    /// The number before, or none before the least.
    fn predecessor(self) -> Option<Self>;
}

macro_rules! numbers {
    ($($t:ty)*) => {$(
        impl Number for $t {
            const MIN: Self = <$t>::MIN;
            const MAX: Self = <$t>::MAX;
            fn successor(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn predecessor(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }
    )*};
}
numbers!(u16 u32 u128);

/// A set of numbers, stored as the fewest closed intervals. Canonical: equal sets are equal values.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct IntervalSet<T>(Vec<(T, T)>);

impl<T> IntervalSet<T> {
    /// The set without a member.
    pub const EMPTY: Self = Self(Vec::new());
}

impl<T: Number> IntervalSet<T> {
    /// The set without a member.
    #[must_use]
    pub fn empty() -> Self {
        Self::EMPTY
    }

    /// The set of all numbers of the type.
    #[must_use]
    pub fn full() -> Self {
        Self(vec![(T::MIN, T::MAX)])
    }

    /// The members of one closed interval; empty if it ends before it starts.
    #[must_use]
    pub fn interval(first: T, last: T) -> Self {
        if first <= last { Self(vec![(first, last)]) } else { Self::empty() }
    }

    /// Has the set no member?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Are all numbers of the type members?
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0 == [(T::MIN, T::MAX)]
    }

    /// Is `number` a member? Costs the logarithm of the number of intervals.
    #[must_use]
    pub fn contains(&self, number: T) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= number);
        after.checked_sub(1).and_then(|i| self.0.get(i)).is_some_and(|&(_, last)| number <= last)
    }

    /// Is every member of `self` in `other`?
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.subtraction(other).is_empty()
    }

    /// Have the two sets a member in common?
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// The intervals in ascending order.
    pub fn intervals(&self) -> impl ExactSizeIterator<Item = RangeInclusive<T>> {
        self.0.iter().map(|&(first, last)| first..=last)
    }

    /// The members of either set. Linear in the number of intervals.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => return other.clone(),
            (_, true) => return self.clone(),
            _ => {}
        }
        self.0.iter().chain(&other.0).map(|&(first, last)| first..=last).collect()
    }

    /// The members of both sets. Linear in the number of intervals.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut common = Vec::new();
        while let (Some(&&(a, b)), Some(&&(c, d))) = (left.peek(), right.peek()) {
            let (first, last) = (a.max(c), b.min(d));
            if first <= last {
                common.push((first, last));
            }
            if b < d {
                left.next()
            } else {
                right.next()
            };
        }
        Self(common)
    }

    /// The numbers that are no members.
    #[must_use]
    pub fn complement(&self) -> Self {
        let mut gaps = Vec::new();
        let mut next = Some(T::MIN);
        for &(first, last) in &self.0 {
            if let (Some(start), Some(end)) = (next, first.predecessor())
                && start <= end
            {
                gaps.push((start, end));
            }
            next = last.successor();
        }
        if let Some(start) = next {
            gaps.push((start, T::MAX));
        }
        Self(gaps)
    }

    /// The members of `self` that are not in `other`. Linear in the number of intervals.
    #[must_use]
    pub fn subtraction(&self, other: &Self) -> Self {
        self.intersection(&other.complement())
    }
}

impl<T: Number> Default for IntervalSet<T> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<T: Number> FromIterator<RangeInclusive<T>> for IntervalSet<T> {
    /// The union of the intervals, in any order, overlapping or not. Reversed ones are empty.
    fn from_iter<I: IntoIterator<Item = RangeInclusive<T>>>(intervals: I) -> Self {
        let mut sorted: Vec<(T, T)> = intervals
            .into_iter()
            .map(|i| (*i.start(), *i.end()))
            .filter(|(first, last)| first <= last)
            .collect();
        sorted.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match merged.last_mut() {
                Some((_, end)) if end.successor().is_none_or(|next| first <= next) => {
                    *end = (*end).max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }
}

impl<T: Number> fmt::Debug for IntervalSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.intervals()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn arbitrary() -> impl Strategy<Value = IntervalSet<u16>> {
        // Both ends of the type and a crowded middle.
        let bound = prop_oneof![Just(0), Just(1), 20u16..60, Just(u16::MAX - 1), Just(u16::MAX)];
        proptest::collection::vec((bound.clone(), bound), 0..6)
            .prop_map(|pairs| pairs.into_iter().map(|(a, b)| a.min(b)..=a.max(b)).collect())
    }

    fn members(set: &IntervalSet<u16>) -> BTreeSet<u16> {
        set.intervals().flatten().collect()
    }

    fn canonical(set: &IntervalSet<u16>) -> bool {
        set.0.iter().all(|(a, b)| a <= b)
            && set.0.windows(2).all(|w| u32::from(w[0].1) + 1 < u32::from(w[1].0))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn algebra_is_that_of_sets(a in arbitrary(), b in arbitrary()) {
            let (x, y) = (members(&a), members(&b));
            for (ours, theirs) in [
                (a.union(&b), x.union(&y).copied().collect::<BTreeSet<_>>()),
                (a.intersection(&b), x.intersection(&y).copied().collect()),
                (a.subtraction(&b), x.difference(&y).copied().collect()),
                (a.complement(), (0..=u16::MAX).filter(|n| !x.contains(n)).collect()),
            ] {
                prop_assert!(canonical(&ours), "{ours:?}");
                prop_assert_eq!(members(&ours), theirs);
            }
            prop_assert_eq!(a.is_subset(&b), x.is_subset(&y));
            prop_assert_eq!(a.intersects(&b), !x.is_disjoint(&y));
            for n in [0, 1, 19, 20, 40, 60, u16::MAX] {
                prop_assert_eq!(a.contains(n), x.contains(&n));
            }
        }
    }

    #[test]
    fn adjacent_intervals_merge() {
        let set: IntervalSet<u16> = [3..=4, 1..=2, 65535..=65535].into_iter().collect();
        assert_eq!(set.intervals().collect::<Vec<_>>(), [1..=4, 65535..=65535]);
        assert!(IntervalSet::interval(9u16, 5).is_empty(), "a reversed interval has no member");
        assert!(IntervalSet::<u128>::full().complement().is_empty());
        assert!(IntervalSet::<u32>::empty().complement().is_full());
    }
}
