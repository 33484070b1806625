//! Sets of IP addresses of both families, closed under the set operations.

use crate::interval::IntervalSet;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// An IP family. An IPv4 block never matches IPv6 traffic and the other way round (NP-31).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "there are two IP families; back ends render both")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A set of IPv4 and IPv6 addresses. Canonical: equal sets are equal values, however they came about.
///
/// ```
/// use netpol_core::AddressSet;
/// let block: AddressSet = "10.0.0.0/8".parse::<ipnet::IpNet>().unwrap().into();
/// let hole: AddressSet = "10.1.0.0/16".parse::<ipnet::IpNet>().unwrap().into();
/// let rest = block.subtraction(&hole);
/// assert!(rest.contains("10.2.0.1".parse().unwrap()));
/// assert!(!rest.contains("10.1.0.1".parse().unwrap()));
/// assert_eq!(rest.union(&hole), block);
/// ```
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AddressSet {
    v4: IntervalSet<u32>,
    v6: IntervalSet<u128>,
}

impl AddressSet {
    /// No address.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Every address of both families.
    #[must_use]
    pub fn full() -> Self {
        Self { v4: IntervalSet::full(), v6: IntervalSet::full() }
    }

    /// Every address of one family.
    #[must_use]
    pub fn family(family: Family) -> Self {
        match family {
            Family::V4 => Self { v4: IntervalSet::full(), v6: IntervalSet::empty() },
            Family::V6 => Self { v4: IntervalSet::empty(), v6: IntervalSet::full() },
        }
    }

    /// The addresses from `first` to `last`: none if the range is reversed or its ends are of two families.
    #[must_use]
    pub fn range(first: IpAddr, last: IpAddr) -> Self {
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => Self {
                v4: IntervalSet::interval(first.to_bits(), last.to_bits()),
                v6: IntervalSet::EMPTY,
            },
            (IpAddr::V6(first), IpAddr::V6(last)) => Self {
                v4: IntervalSet::EMPTY,
                v6: IntervalSet::interval(first.to_bits(), last.to_bits()),
            },
            _ => Self::empty(),
        }
    }

    /// The addresses of this set that belong to `family`.
    #[must_use]
    pub fn restricted_to(&self, family: Family) -> Self {
        match family {
            Family::V4 => Self { v4: self.v4.clone(), v6: IntervalSet::empty() },
            Family::V6 => Self { v4: IntervalSet::empty(), v6: self.v6.clone() },
        }
    }

    /// Has the set no member?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Is `address` a member?
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => self.v4.contains(a.to_bits()),
            IpAddr::V6(a) => self.v6.contains(a.to_bits()),
        }
    }

    /// Is every member of `self` in `other`?
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.v4.is_subset(&other.v4) && self.v6.is_subset(&other.v6)
    }

    /// Have the two sets an address in common?
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        self.v4.intersects(&other.v4) || self.v6.intersects(&other.v6)
    }

    /// The members of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self { v4: self.v4.union(&other.v4), v6: self.v6.union(&other.v6) }
    }

    /// The members of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self { v4: self.v4.intersection(&other.v4), v6: self.v6.intersection(&other.v6) }
    }

    /// The members of `self` that are not in `other`.
    #[must_use]
    pub fn subtraction(&self, other: &Self) -> Self {
        Self { v4: self.v4.subtraction(&other.v4), v6: self.v6.subtraction(&other.v6) }
    }

    /// The IPv4 members as ascending, disjoint, non-adjacent ranges.
    pub fn v4_ranges(&self) -> impl Iterator<Item = RangeInclusive<Ipv4Addr>> {
        self.v4.intervals().map(|i| Ipv4Addr::from_bits(*i.start())..=Ipv4Addr::from_bits(*i.end()))
    }

    /// The IPv6 members as ascending, disjoint, non-adjacent ranges.
    pub fn v6_ranges(&self) -> impl Iterator<Item = RangeInclusive<Ipv6Addr>> {
        self.v6.intervals().map(|i| Ipv6Addr::from_bits(*i.start())..=Ipv6Addr::from_bits(*i.end()))
    }

    /// All members as ranges, IPv4 before IPv6.
    pub fn ranges(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let v4 = self.v4_ranges().map(|r| ((*r.start()).into(), (*r.end()).into()));
        v4.chain(self.v6_ranges().map(|r| ((*r.start()).into(), (*r.end()).into())))
    }

    /// The fewest disjoint CIDRs that cover exactly this set, IPv4 before IPv6, ascending.
    ///
    /// Prefix length 0 can occur; what cannot say it (ipset's `hash:net`) must split it (NP-35).
    pub fn cidrs(&self) -> impl Iterator<Item = IpNet> {
        let v4 = self.v4.intervals().flat_map(|i| {
            ipnet::Ipv4Subnets::new((*i.start()).into(), (*i.end()).into(), 0).map(IpNet::V4)
        });
        v4.chain(self.v6.intervals().flat_map(|i| {
            ipnet::Ipv6Subnets::new((*i.start()).into(), (*i.end()).into(), 0).map(IpNet::V6)
        }))
    }
}

impl From<IpAddr> for AddressSet {
    fn from(address: IpAddr) -> Self {
        IpNet::from(address).into()
    }
}

impl From<IpNet> for AddressSet {
    /// The whole network; host bits mean nothing (NP-36).
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => net.into(),
            IpNet::V6(net) => net.into(),
        }
    }
}

impl From<Ipv4Net> for AddressSet {
    fn from(net: Ipv4Net) -> Self {
        let v4 = IntervalSet::interval(net.network().to_bits(), net.broadcast().to_bits());
        Self { v4, v6: IntervalSet::empty() }
    }
}

impl From<Ipv6Net> for AddressSet {
    fn from(net: Ipv6Net) -> Self {
        let v6 = IntervalSet::interval(net.network().to_bits(), net.broadcast().to_bits());
        Self { v4: IntervalSet::empty(), v6 }
    }
}

impl FromIterator<IpNet> for AddressSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match net {
                IpNet::V4(n) => v4.push(n.network().to_bits()..=n.broadcast().to_bits()),
                IpNet::V6(n) => v6.push(n.network().to_bits()..=n.broadcast().to_bits()),
            }
        }
        Self { v4: v4.into_iter().collect(), v6: v6.into_iter().collect() }
    }
}

impl FromIterator<IpAddr> for AddressSet {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        addresses.into_iter().map(IpNet::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(cidrs: &[&str]) -> AddressSet {
        cidrs.iter().map(|c| c.parse::<IpNet>().unwrap()).collect()
    }

    #[test]
    fn host_bits_mean_the_network() {
        assert_eq!(set(&["10.1.2.3/24"]), set(&["10.1.2.0/24"]));
    }

    #[test]
    fn families_stay_apart() {
        let v4 = set(&["0.0.0.0/0"]);
        assert!(!v4.contains("::1".parse().unwrap()));
        assert!(!v4.contains("::ffff:1.2.3.4".parse().unwrap()));
        assert_eq!(v4, AddressSet::family(Family::V4));
        assert_eq!(v4.union(&set(&["::/0"])), AddressSet::full());
        assert_eq!(AddressSet::full().restricted_to(Family::V4), v4);
    }

    #[test]
    fn cidrs_are_the_fewest() {
        let holes = set(&["10.0.0.0/8"]).subtraction(&set(&["10.0.0.0/9", "10.255.255.255/32"]));
        let cidrs: Vec<String> = holes.cidrs().map(|c| c.to_string()).collect();
        assert_eq!(cidrs.len(), 23);
        assert_eq!(cidrs[0], "10.128.0.0/10");
        assert_eq!(set(&["0.0.0.0/1", "128.0.0.0/1"]).cidrs().count(), 1);
        assert_eq!(AddressSet::full().cidrs().count(), 2);
    }

    proptest! {
        #[test]
        fn cidrs_cover_exactly(nets in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..6), probe: u32) {
            let all: AddressSet =
                nets.iter().map(|&(a, l)| IpNet::V4(Ipv4Net::new(a.into(), l).unwrap())).collect();
            prop_assert_eq!(all.cidrs().collect::<AddressSet>(), all.clone());
            let address = IpAddr::V4(probe.into());
            let expected = nets.iter().any(|&(a, l)| l == 0 || (a ^ probe) >> (32 - u32::from(l)) == 0);
            prop_assert_eq!(all.contains(address), expected);
        }
    }
}
