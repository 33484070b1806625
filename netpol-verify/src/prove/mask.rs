//! Sets of lanes, as bits.

use smallvec::{SmallVec, smallvec};

/// A set of small numbers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Mask(SmallVec<[u64; 4]>);

impl Mask {
    pub(super) fn none(count: usize) -> Self {
        Self(smallvec![0; count.div_ceil(64)])
    }

    pub(super) fn all(count: usize) -> Self {
        let mut mask = Self(smallvec![u64::MAX; count.div_ceil(64)]);
        if let (Some(last), rest @ 1..) = (mask.0.last_mut(), count % 64) {
            *last = (1 << rest) - 1;
        }
        mask
    }

    pub(super) fn of(count: usize, test: impl Fn(usize) -> bool) -> Self {
        let mut mask = Self::none(count);
        for at in (0..count).filter(|at| test(*at)) {
            mask.set(at);
        }
        mask
    }

    pub(super) fn set(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect())
    }

    pub(super) fn without(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a & !b).collect())
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// Takes out what is in the other.
    pub(super) fn remove(&mut self, other: &Self) {
        for (word, less) in self.0.iter_mut().zip(&other.0) {
            *word &= !less;
        }
    }

    /// Are some in both?
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    /// Are all in the other, too?
    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a & !b == 0)
    }

    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros();
                word &= word.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit as usize)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_sets() {
        let even = Mask::of(70, |at| at % 2 == 0);
        assert_eq!(even.count(), 35);
        assert_eq!(even.iter().last(), Some(68));
        assert_eq!(Mask::all(70).without(&even).count(), 35);
        assert_eq!(Mask::all(64).count(), 64);
        assert_eq!(Mask::all(0).iter().count(), 0);
        let mut both = even.clone();
        both.add(&Mask::of(70, |at| at % 2 == 1));
        assert_eq!(both, Mask::all(70));
        both.remove(&even);
        assert!(both.and(&even).is_empty());
        assert!(!both.meets(&even) && both.meets(&Mask::all(70)) && both.is_within(&Mask::all(70)));
        assert!(!both.is_within(&even) && Mask::none(70).is_within(&even));
    }
}
