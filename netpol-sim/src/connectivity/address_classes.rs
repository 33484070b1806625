//! The address space cut where a set of networks begins or ends, and no finer.

use netpol_core::{AddressSet, Family};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses that every set of networks treats alike: they are in the same sets.
pub(super) type AddressClass = u32;

/// Which sets of networks hold which addresses.
pub(super) struct AddressClasses {
    /// First addresses of the pieces, ascending, each with its class; the first of a family is its least address.
    pieces: Vec<(IpAddr, AddressClass)>,
    /// The sets that hold each class, as ascending positions, and its family.
    classes: Vec<(Family, Box<[u32]>)>,
}

impl AddressClasses {
    pub(super) fn new<'a>(sets: impl Iterator<Item = &'a AddressSet>) -> Self {
        // A set begins at the first address of a range and ends after the last one.
        let mut edges: Vec<(IpAddr, bool, u32)> = Vec::new();
        for (position, set) in (0u32..).zip(sets) {
            for (first, last) in set.ranges() {
                edges.push((first, true, position));
                if let Some(after) = successor(last) {
                    edges.push((after, false, position));
                }
            }
        }
        edges.sort_unstable();
        let mut classes = Self { pieces: Vec::new(), classes: Vec::new() };
        let mut known: HashMap<(Family, Box<[u32]>), AddressClass> = HashMap::new();
        let mut edges = edges.into_iter().peekable();
        for family in Family::ALL {
            let mut holding = BTreeSet::new();
            let mut start = match family {
                Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            loop {
                while let Some(&(address, begins, set)) = edges.peek()
                    && address == start
                {
                    if begins {
                        holding.insert(set)
                    } else {
                        holding.remove(&set)
                    };
                    edges.next();
                }
                let key = (family, holding.iter().copied().collect::<Box<[u32]>>());
                let class = *known.entry(key.clone()).or_insert_with(|| {
                    classes.classes.push(key);
                    u32::try_from(classes.classes.len() - 1).unwrap_or(u32::MAX)
                });
                classes.pieces.push((start, class));
                match edges.peek() {
                    Some(&(next, ..)) if Family::of(next) == family => start = next,
                    _ => break,
                }
            }
        }
        classes
    }

    /// The number of classes.
    pub(super) fn len(&self) -> usize {
        self.classes.len()
    }

    /// The family of a class.
    pub(super) fn family(&self, class: AddressClass) -> Option<Family> {
        self.classes.get(class as usize).map(|(family, _)| *family)
    }

    /// Is a class inside the set at this position?
    pub(super) fn is_in(&self, class: AddressClass, set: u32) -> bool {
        self.classes.get(class as usize).is_some_and(|(_, sets)| sets.binary_search(&set).is_ok())
    }

    /// The class of an address.
    pub(super) fn class(&self, address: IpAddr) -> AddressClass {
        let after = self.pieces.partition_point(|&(first, _)| first <= address);
        after.checked_sub(1).and_then(|i| self.pieces.get(i)).map_or(0, |&(_, class)| class)
    }

    /// All addresses as closed ranges of one class each, ascending.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (IpAddr, IpAddr, AddressClass)> {
        let ends = self.pieces.iter().skip(1).map(|&(next, _)| Some(next)).chain([None]);
        self.pieces.iter().zip(ends).map(|(&(first, class), next)| {
            let last = next.and_then(|next| predecessor(next, Family::of(first)));
            let greatest = match first {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::BROADCAST),
                IpAddr::V6(_) => IpAddr::V6(u128::MAX.into()),
            };
            (first, last.unwrap_or(greatest), class)
        })
    }
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(a) => a.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(a) => a.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

/// The address before `address`, if that is of the same family.
fn predecessor(address: IpAddr, family: Family) -> Option<IpAddr> {
    match (address, family) {
        (IpAddr::V4(a), Family::V4) => a.to_bits().checked_sub(1).map(|b| IpAddr::V4(b.into())),
        (IpAddr::V6(a), Family::V6) => a.to_bits().checked_sub(1).map(|b| IpAddr::V6(b.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cidrs: &[&str]) -> AddressSet {
        cidrs.iter().map(|c| c.parse::<ipnet::IpNet>().unwrap()).collect()
    }

    #[test]
    fn space_is_cut_where_a_set_cuts_it() {
        let sets = [set(&["10.0.0.0/8"]), set(&["10.1.0.0/16", "fd00::/8"])];
        let classes = AddressClasses::new(sets.iter());
        let ranges: Vec<String> = classes
            .ranges()
            .map(|(first, last, class)| format!("{first}-{last} {class}"))
            .collect();
        assert_eq!(
            ranges,
            [
                "0.0.0.0-9.255.255.255 0",
                "10.0.0.0-10.0.255.255 1",
                "10.1.0.0-10.1.255.255 2",
                "10.2.0.0-10.255.255.255 1",
                "11.0.0.0-255.255.255.255 0",
                "::-fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 3",
                "fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 4",
                "fe00::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 3",
            ]
        );
        let class = classes.class("10.1.2.3".parse().unwrap());
        assert!(classes.is_in(class, 0) && classes.is_in(class, 1));
        assert_eq!(classes.family(4), Some(Family::V6));
    }

    #[test]
    fn whole_families() {
        let sets = [set(&["0.0.0.0/0"]), set(&["::/0"])];
        let classes = AddressClasses::new(sets.iter());
        assert_eq!(classes.ranges().count(), 2);
        assert_eq!(AddressClasses::new([].into_iter()).len(), 2);
    }
}
