//! Intervals of values, lists of them, and how they are written.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The values from `first` to `last`, both among them. Addresses, protocols, ports, connection states and the bytes of device
/// names, padded with zeros to 16, are all numbers.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "an interval has two ends")]
pub struct Interval {
    /// The least value.
    pub first: u128,
    /// The greatest value.
    pub last: u128,
}

impl Interval {
    /// From one value to another.
    #[must_use]
    pub fn new(first: u128, last: u128) -> Self {
        Self { first, last }
    }

    /// One value.
    #[must_use]
    pub fn one(value: u128) -> Self {
        Self::new(value, value)
    }

    pub(crate) fn contains(&self, value: u128) -> bool {
        self.first <= value && value <= self.last
    }

    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Intervals, written as one string: `10.0.0.1 10.0.0.5-10.0.0.9`, `80 443-445`, `=veth0`.
///
/// The spelling is for people; each number has one that fits its size, whatever it stands for.
///
/// ```
/// use netpol_checker::{Interval, List};
/// let list: List = "80 10.0.0.5-10.0.0.9 =eth0".parse().unwrap();
/// assert_eq!(list.0[0], Interval::one(80));
/// assert_eq!(list.to_string(), "80 10.0.0.5-10.0.0.9 =eth0");
/// assert!("10.0.0.9-".parse::<List>().is_err());
/// ```
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
#[expect(clippy::exhaustive_structs, reason = "a list is a list")]
pub struct List(pub Vec<Interval>);

impl From<List> for String {
    fn from(list: List) -> Self {
        list.to_string()
    }
}

impl TryFrom<String> for List {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for List {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let interval = |word: &str| {
            let (first, last) = match word.split_once('-') {
                _ if word.starts_with('=') => (word, word),
                Some(ends) => ends,
                None => (word, word),
            };
            let (first, last) = (value(first)?, value(last)?);
            (first <= last).then_some(Interval { first, last })
        };
        let words = text.split(' ').filter(|word| !word.is_empty());
        words
            .map(|word| interval(word).ok_or_else(|| format!("`{word}` is no interval")))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Interval { first, last }) in self.0.iter().enumerate() {
            let space = if number > 0 { " " } else { "" };
            let show = |value: u128| match (*last, u32::try_from(value)) {
                (..=0xffff, _) => value.to_string(),
                (..=0xffff_ffff, Ok(value)) => Ipv4Addr::from_bits(value).to_string(),
                _ => Ipv6Addr::from_bits(value).to_string(),
            };
            if first != last {
                write!(f, "{space}{}-{}", show(*first), show(*last))?;
            } else if let Some(name) = device_name(*first) {
                write!(f, "{space}={name}")?;
            } else {
                write!(f, "{space}{}", show(*first))?;
            }
        }
        Ok(())
    }
}

fn value(text: &str) -> Option<u128> {
    match text.strip_prefix('=') {
        Some(name) => device(name),
        None if text.contains([':', '.']) => text.parse().ok().map(address),
        None => text.parse().ok(),
    }
}

/// The number of an address.
pub(crate) fn address(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The number of a device name: its bytes, with zeros up to 16. None for what the kernel takes for no name.
pub(crate) fn device(name: &str) -> Option<u128> {
    let mut bytes = [0; 16];
    let fits = !name.is_empty() && name.len() < bytes.len() && !name.bytes().any(|byte| byte == 0);
    bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    fits.then(|| u128::from_be_bytes(bytes))
}

/// The name with this number, if it is one that can be written down.
fn device_name(value: u128) -> Option<String> {
    let bytes = value.to_be_bytes();
    let name: String =
        bytes.iter().take_while(|b| b.is_ascii_graphic()).map(|b| char::from(*b)).collect();
    (device(&name) == Some(value)).then_some(name)
}

/// Ordered, and without overlaps or neighbors.
pub(crate) fn normal(mut list: Vec<Interval>) -> Vec<Interval> {
    list.retain(|interval| interval.first <= interval.last);
    list.sort_unstable();
    let mut merged: Vec<Interval> = Vec::with_capacity(list.len());
    for interval in list {
        match merged.last_mut() {
            Some(before) if interval.first <= before.last.saturating_add(1) => {
                before.last = before.last.max(interval.last);
            }
            _ => merged.push(interval),
        }
    }
    merged
}

/// The values of `domain` that are not in `holes`; both are normal.
pub(crate) fn without(domain: Interval, holes: &[Interval]) -> Vec<Interval> {
    let (mut rest, mut next) = (Vec::new(), Some(domain.first));
    for hole in holes.iter().filter(|hole| domain.meets(hole)) {
        if let Some(first) = next.filter(|first| *first < hole.first) {
            rest.push(Interval::new(first, hole.first - 1));
        }
        next = hole.last.checked_add(1);
    }
    rest.extend(
        next.filter(|first| *first <= domain.last).map(|first| Interval::new(first, domain.last)),
    );
    rest
}

/// The first interval of `set`, which is normal, that has a value of `interval`.
fn first_met<'s>(interval: &Interval, set: &'s [Interval]) -> Option<&'s Interval> {
    let at = set.partition_point(|other| other.last < interval.first);
    set.get(at).filter(|other| other.meets(interval))
}

/// Are all values of `list` in `set`, or none? None if some are and some are not. Both are normal.
pub(crate) fn within(list: &[Interval], set: &[Interval]) -> Option<bool> {
    let (mut some_in, mut some_out) = (false, false);
    for interval in list {
        match first_met(interval, set) {
            None => some_out = true,
            Some(met) if met.first <= interval.first && interval.last <= met.last => some_in = true,
            Some(_) => return None,
        }
        if some_in && some_out {
            return None;
        }
    }
    Some(some_in)
}

/// Are all tuples of `parts`, one value of each list, in one of the `boxes`, or none? None if some are and some are not.
pub(crate) fn within_boxes(parts: &[&[Interval]], boxes: &[&[Interval]]) -> Option<bool> {
    let Some((last, rest)) = parts.split_last() else { return Some(!boxes.is_empty()) };
    let met = |one: &&&[Interval]| {
        one.iter().zip(parts).all(|(side, list)| first_met(side, list).is_some())
    };
    let boxes: Vec<&[Interval]> = boxes.iter().filter(met).copied().collect();
    if boxes.is_empty() {
        return Some(false);
    }
    // From one cut to the next every value is in the same boxes.
    let sides = boxes.iter().filter_map(|one| one.get(rest.len()));
    let mut cuts: Vec<u128> =
        sides.flat_map(|side| [Some(side.first), side.last.checked_add(1)]).flatten().collect();
    cuts.retain(|cut| first_met(&Interval::one(*cut), last).is_some());
    cuts.extend(last.iter().map(|interval| interval.first));
    cuts.sort_unstable();
    cuts.dedup();
    let mut answer = None;
    for cut in cuts {
        let here = |one: &&&[Interval]| one.get(rest.len()).is_some_and(|side| side.contains(cut));
        let here: Vec<&[Interval]> = boxes.iter().filter(here).copied().collect();
        let inside = within_boxes(rest, &here)?;
        if answer.is_some_and(|answer| answer != inside) {
            return None;
        }
        answer = Some(inside);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn lists() -> impl Strategy<Value = Vec<Interval>> {
        let interval =
            (0u128..12, 0u128..4).prop_map(|(first, more)| Interval::new(first, first + more));
        vec(interval, 0..5).prop_map(normal)
    }

    fn has(list: &[Interval], value: u128) -> bool {
        list.iter().any(|interval| interval.contains(value))
    }

    fn all_or_none(answers: &[bool]) -> Option<bool> {
        let first = answers.first().copied().unwrap_or(false);
        answers.iter().all(|answer| *answer == first).then_some(first)
    }

    proptest! {
        #[test]
        fn within_is_what_each_value_says(list in lists(), set in lists()) {
            let values = (0..20).filter(|value| has(&list, *value));
            let inside: Vec<bool> = values.map(|value| has(&set, value)).collect();
            prop_assert_eq!(within(&list, &set), all_or_none(&inside));
        }

        #[test]
        fn within_boxes_is_what_each_tuple_says(one in lists(), two in lists(), boxes in vec((lists(), lists()), 0..4)) {
            let sides = |(a, b): &(Vec<Interval>, Vec<Interval>)| Some(vec![*a.first()?, *b.first()?]);
            let boxes: Vec<Vec<Interval>> = boxes.iter().filter_map(sides).collect();
            let boxes: Vec<&[Interval]> = boxes.iter().map(Vec::as_slice).collect();
            let mut inside = Vec::new();
            for a in (0..20).filter(|value| has(&one, *value)) {
                for b in (0..20).filter(|value| has(&two, *value)) {
                    inside.push(boxes.iter().any(|sides| sides[0].contains(a) && sides[1].contains(b)));
                }
            }
            prop_assert_eq!(within_boxes(&[&one, &two], &boxes), all_or_none(&inside));
        }

        #[test]
        fn what_is_left_and_the_holes_are_the_domain(first in 0u128..10, more in 0u128..10, holes in lists()) {
            let domain = Interval::new(first, first + more);
            let rest = without(domain, &holes);
            for value in 0..30 {
                prop_assert_eq!(has(&rest, value), domain.contains(value) && !has(&holes, value));
            }
        }

        #[test]
        fn what_is_written_is_read(first: u128, last: u128, low: u16) {
            let (first, last) = (first.min(last), first.max(last));
            let list = List(vec![Interval::new(first, last), Interval::one(last), Interval::one(low.into())]);
            prop_assert_eq!(list.to_string().parse::<List>(), Ok(list));
        }
    }
}
