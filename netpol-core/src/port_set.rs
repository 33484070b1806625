//! Sets of destination ports per protocol (NP-40, NP-41, NP-50, NP-51).

use crate::interval::IntervalSet;
use std::fmt;

/// A protocol that a policy can name (VAL-05).
///
/// Exhaustive: adding a protocol to Kubernetes is an API change that every back end must answer.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the protocols of the NetworkPolicy API")]
pub enum Protocol {
    /// TCP, the default of a port entry (NP-04).
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All protocols, in the order of the API.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its number in the IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with this number in the IP header, if a policy can name it.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.number() == number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A set of what a connection may be made to: destination ports of each protocol, and as a whole every other IP
/// protocol (ICMP, GRE, ...), which has no ports and is allowed by portless rules only (NP-51).
///
/// Canonical: equal sets are equal values.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PortSet {
    tcp: IntervalSet<u16>,
    udp: IntervalSet<u16>,
    sctp: IntervalSet<u16>,
    other: bool,
}

impl PortSet {
    /// Nothing.
    pub const EMPTY: Self = Self {
        tcp: IntervalSet::EMPTY,
        udp: IntervalSet::EMPTY,
        sctp: IntervalSet::EMPTY,
        other: false,
    };

    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::EMPTY
    }

    /// Every port of every protocol, and every protocol without ports.
    #[must_use]
    pub fn full() -> Self {
        let all = IntervalSet::full;
        Self { tcp: all(), udp: all(), sctp: all(), other: true }
    }

    /// All ports of one protocol.
    #[must_use]
    pub fn protocol(protocol: Protocol) -> Self {
        Self::range(protocol, u16::MIN, u16::MAX)
    }

    /// The ports `first` to `last` of one protocol; nothing if `last` is less than `first`.
    #[must_use]
    pub fn range(protocol: Protocol, first: u16, last: u16) -> Self {
        let mut set = Self::empty();
        *set.ports_mut(protocol) = IntervalSet::interval(first, last);
        set
    }

    /// The same set with or without the protocols that have no ports.
    #[must_use]
    pub fn with_other(mut self, other: bool) -> Self {
        self.other = other;
        self
    }

    /// The ports of one protocol.
    #[must_use]
    pub fn ports(&self, protocol: Protocol) -> &IntervalSet<u16> {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
            Protocol::Sctp => &self.sctp,
        }
    }

    /// Are the protocols other than TCP, UDP and SCTP in the set?
    #[must_use]
    pub fn other(&self) -> bool {
        self.other
    }

    /// Has the set no member?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// Is everything in the set?
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.other && Protocol::ALL.into_iter().all(|p| self.ports(p).is_full())
    }

    /// Is this port of this protocol in the set?
    #[must_use]
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        self.ports(protocol).contains(port)
    }

    /// Is every member of `self` in `other`?
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.subtraction(other).is_empty()
    }

    /// The members of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, IntervalSet::union, |a, b| a || b)
    }

    /// The members of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, IntervalSet::intersection, |a, b| a && b)
    }

    /// The members of `self` that are not in `other`.
    #[must_use]
    pub fn subtraction(&self, other: &Self) -> Self {
        self.combine(other, IntervalSet::subtraction, |a, b| a && !b)
    }

    fn combine(
        &self,
        other: &Self,
        ports: fn(&IntervalSet<u16>, &IntervalSet<u16>) -> IntervalSet<u16>,
        flag: fn(bool, bool) -> bool,
    ) -> Self {
        Self {
            tcp: ports(&self.tcp, &other.tcp),
            udp: ports(&self.udp, &other.udp),
            sctp: ports(&self.sctp, &other.sctp),
            other: flag(self.other, other.other),
        }
    }

    fn ports_mut(&mut self, protocol: Protocol) -> &mut IntervalSet<u16> {
        match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
            Protocol::Sctp => &mut self.sctp,
        }
    }
}

impl fmt::Display for PortSet {
    /// Short text for people: `TCP 80,443; UDP 53`, `all`, `none`. Port 0 is left out: nobody can listen on it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_full() {
            return f.write_str("all");
        }
        let mut parts = Vec::new();
        for protocol in Protocol::ALL {
            let ports = self.ports(protocol);
            if ports.is_full() {
                parts.push(protocol.to_string());
            } else if !ports.is_empty() {
                let ranges: Vec<String> = ports
                    .intervals()
                    .map(|r| match (*r.start(), *r.end()) {
                        (first, last) if first == last => first.to_string(),
                        (first, last) => format!("{}-{last}", first.max(1)),
                    })
                    .collect();
                parts.push(format!("{protocol} {}", ranges.join(",")));
            }
        }
        if self.other {
            parts.push("other protocols".to_owned());
        }
        f.write_str(&if parts.is_empty() { "none".to_owned() } else { parts.join("; ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_kept_apart() {
        let tcp = PortSet::range(Protocol::Tcp, 80, 80);
        assert!(tcp.contains(Protocol::Tcp, 80));
        assert!(!tcp.contains(Protocol::Sctp, 80), "SCTP is never TCP (NP-50)");
        assert!(!PortSet::protocol(Protocol::Tcp).other());
        assert!(PortSet::range(Protocol::Udp, 9, 8).is_empty());
    }

    #[test]
    fn full_minus_one_protocol() {
        let rest = PortSet::full().subtraction(&PortSet::protocol(Protocol::Udp));
        assert_eq!(rest.to_string(), "TCP; SCTP; other protocols");
        assert_eq!(rest.union(&PortSet::protocol(Protocol::Udp)), PortSet::full());
        assert_eq!(PortSet::full().to_string(), "all");
    }

    #[test]
    fn adjacent_ranges_merge() {
        let a = PortSet::range(Protocol::Tcp, 80, 81).union(&PortSet::range(Protocol::Tcp, 82, 90));
        assert_eq!(a, PortSet::range(Protocol::Tcp, 80, 90));
        assert_eq!(a.to_string(), "TCP 80-90");
        assert_eq!(Protocol::from_number(132), Some(Protocol::Sctp));
        assert_eq!(Protocol::from_number(1), None);
    }
}
