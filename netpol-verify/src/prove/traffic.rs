//! Classes of what a packet carries: protocol and the first two 16-bit words behind the IP header.

use super::gather::PortTest;
use crate::machine::{Field, Range};
use rustc_hash::FxHashSet;
use std::collections::{BTreeMap, BTreeSet};

/// What stands for a class.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Traffic {
    pub(super) protocol: u8,
    pub(super) first: u16,
    pub(super) second: u16,
}

/// The classes that these tests tell apart.
pub(super) fn classes(protocols: &FxHashSet<Range>, ports: &FxHashSet<PortTest>) -> Vec<Traffic> {
    let of_ports: BTreeSet<Range> = ports.iter().map(|(protocol, ..)| *protocol).collect();
    let tests: BTreeSet<Range> = protocols.iter().copied().chain(of_ports).collect();
    let mut classes = Vec::new();
    for protocol in representatives(&tests, u8::MAX.into(), &COMMON_PROTOCOLS) {
        let words = |field: Field| {
            let applicable =
                ports.iter().filter(|(of, at, _)| *at == field && of.contains(protocol));
            let ranges = applicable.map(|(_, _, range)| *range).collect();
            let common = if field == Field::First { &COMMON_WORDS[..] } else { &COMMON_WORDS[..1] };
            representatives(&ranges, u16::MAX.into(), common)
        };
        let (firsts, seconds) = (words(Field::First), words(Field::Second));
        for &first in &firsts {
            for &second in &seconds {
                classes.push(Traffic {
                    protocol: u8::try_from(protocol).unwrap_or(u8::MAX),
                    first: u16::try_from(first).unwrap_or(u16::MAX),
                    second: u16::try_from(second).unwrap_or(u16::MAX),
                });
            }
        }
    }
    classes
}

/// Values that a real packet has more often than others, the best last: they stand for their classes.
const COMMON_PROTOCOLS: [u128; 5] = [47, 1, 132, 17, 6];
const COMMON_WORDS: [u128; 3] = [1, 2048, 40_000];

/// A value of each class of the values up to `last`: two are in one class if the same ranges contain them. It is the
/// last of the common ones in its class, or else its least.
fn representatives(ranges: &BTreeSet<Range>, last: u128, common: &[u128]) -> Vec<u128> {
    let mut cuts: Vec<u128> = vec![0];
    for range in ranges {
        cuts.extend([range.first, range.last.saturating_add(1)]);
    }
    cuts.sort_unstable();
    cuts.dedup();
    let least = cuts.len();
    cuts.extend(common);
    let mut by_key: BTreeMap<Vec<u64>, u128> = BTreeMap::new();
    for (number, cut) in cuts.into_iter().enumerate().filter(|(_, cut)| *cut <= last) {
        let mut key = vec![0u64; ranges.len().div_ceil(64)];
        for (at, range) in ranges.iter().enumerate() {
            if let (true, Some(word)) = (range.contains(cut), key.get_mut(at / 64)) {
                *word |= 1 << (at % 64);
            }
        }
        if number < least {
            by_key.entry(key).or_insert(cut);
        } else {
            by_key.insert(key, cut);
        }
    }
    let mut least: Vec<u128> = by_key.into_values().collect();
    least.sort_unstable();
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_classes() {
        let ranges = BTreeSet::from([Range::one(80u8), Range::new(70u8, 90u8), Range::one(200u8)]);
        assert_eq!(representatives(&ranges, 255, &[75, 76]), [0, 76, 80, 200]);
        assert_eq!(representatives(&BTreeSet::new(), 255, &[]), [0]);
        let tcp = Range::one(6u8);
        let ports = FxHashSet::from_iter([(tcp, Field::Second, Range::one(80u8))]);
        let classes = classes(&FxHashSet::default(), &ports);
        let classes: Vec<(u8, u16)> = classes.iter().map(|t| (t.protocol, t.second)).collect();
        assert_eq!(classes, [(6, 1), (6, 80), (17, 1)]);
    }
}
