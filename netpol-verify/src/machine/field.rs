//! What of a packet the rules can look at, and how its values are numbers.
//!
//! Every value is a `u128`, so that a prefix, a range of ports, a wildcard of device names and a set of connection states
//! are all intervals, and one partition works for all.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A part of a packet, or of what the kernel knows about it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the model of a packet: nothing else is understood")]
pub enum Field {
    /// The IP version: 4 or 6.
    Version,
    /// The source address.
    Source,
    /// The destination address.
    Destination,
    /// The protocol behind all extension headers.
    Protocol,
    /// The first 16 bits after the IP header: the source port; of ICMP the type and the code.
    First,
    /// The second 16 bits after the IP header: the destination port.
    Second,
    /// The device that it came in by.
    InDevice,
    /// The device that it leaves by.
    OutDevice,
    /// The state of its connection, one of [`ConnState`].
    State,
    /// The direction in its connection: 0 the original, 1 the reply.
    Direction,
    /// The packet mark.
    Mark,
}

/// An interval of values, both ends included.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "an interval has two ends")]
pub struct Range {
    /// The least value.
    pub first: u128,
    /// The greatest value; less than `first` in an empty interval.
    pub last: u128,
}

impl Range {
    /// Every value.
    pub const ALL: Self = Self { first: 0, last: u128::MAX };

    /// One value.
    #[must_use]
    pub fn one(value: impl Into<u128>) -> Self {
        let value = value.into();
        Self { first: value, last: value }
    }

    /// From one value to another.
    #[must_use]
    pub fn new(first: impl Into<u128>, last: impl Into<u128>) -> Self {
        Self { first: first.into(), last: last.into() }
    }

    /// Is the value in it?
    #[must_use]
    pub fn contains(&self, value: u128) -> bool {
        self.first <= value && value <= self.last
    }

    /// Do they have a value in common?
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The states of a connection, with the bit by which nf_tables knows each.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the states of nf_conntrack")]
pub enum ConnState {
    /// No connection that conntrack understands, or not yet tracked.
    Invalid = 1,
    /// Packets were seen in both directions.
    Established = 2,
    /// Expected by another connection, or an error about one.
    Related = 4,
    /// The first packet.
    New = 8,
    /// Conntrack was told to leave it alone, or does so by itself, as with neighbor discovery.
    Untracked = 64,
}

impl ConnState {
    /// All states.
    pub const ALL: [Self; 5] =
        [Self::Invalid, Self::Established, Self::Related, Self::New, Self::Untracked];

    /// The bit of this state.
    #[must_use]
    pub fn bit(self) -> u128 {
        match self {
            Self::Invalid => 1,
            Self::Established => 2,
            Self::Related => 4,
            Self::New => 8,
            Self::Untracked => 64,
        }
    }

    /// As nftables and iptables write it, in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Established => "established",
            Self::Related => "related",
            Self::New => "new",
            Self::Untracked => "untracked",
        }
    }

    /// The state of this name, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str().eq_ignore_ascii_case(text))
    }
}

/// The number of an address.
#[must_use]
pub fn address_value(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address with a number; an IPv4 address out of range is the greatest.
#[must_use]
pub fn value_address(value: u128, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::from_bits(value).into()
    } else {
        Ipv4Addr::from_bits(u32::try_from(value).unwrap_or(u32::MAX)).into()
    }
}

/// The length of a device name in the kernel, its end included.
const DEVICE_NAME_BYTES: usize = 16;

/// The number of a device name: its bytes, as nf_tables compares them. None for a name that no device can have.
#[must_use]
pub fn device_value(name: &str) -> Option<u128> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() >= DEVICE_NAME_BYTES || bytes.contains(&0) {
        return None;
    }
    let padded = bytes.iter().copied().chain(std::iter::repeat(0)).take(DEVICE_NAME_BYTES);
    Some(padded.fold(0, |value, byte| value << 8 | u128::from(byte)))
}

/// The names that begin with `prefix`.
#[must_use]
pub fn device_prefix(prefix: &str) -> Option<Range> {
    if prefix.is_empty() {
        return Some(Range::ALL);
    }
    let first = device_value(prefix)?;
    let rest = 8 * (DEVICE_NAME_BYTES - prefix.len());
    let free = u32::try_from(rest).ok().and_then(|rest| 1u128.checked_shl(rest));
    Some(Range { first, last: free.map_or(u128::MAX, |free| first | (free - 1)) })
}

/// The device name with a number, without the bytes that no name has.
#[must_use]
pub fn value_device(value: u128) -> String {
    let bytes: Vec<u8> = value.to_be_bytes().into_iter().take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A value of a field, for people.
pub(crate) struct Shown {
    pub(crate) field: Field,
    pub(crate) v6: bool,
    pub(crate) value: u128,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, v6, value } = *self;
        match field {
            Field::Source | Field::Destination => value_address(value, v6).fmt(f),
            Field::InDevice | Field::OutDevice => write!(f, "\"{}\"", value_device(value)),
            Field::State => match ConnState::ALL.into_iter().find(|s| s.bit() == value) {
                Some(state) => f.write_str(state.as_str()),
                None => write!(f, "{value}"),
            },
            Field::Direction => f.write_str(if value == 0 { "original" } else { "reply" }),
            Field::Protocol => match value {
                1 => f.write_str("icmp"),
                6 => f.write_str("tcp"),
                17 => f.write_str("udp"),
                58 => f.write_str("ipv6-icmp"),
                132 => f.write_str("sctp"),
                _ => write!(f, "{value}"),
            },
            Field::Mark => write!(f, "{value:#x}"),
            Field::Version | Field::First | Field::Second => value.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_intervals() {
        let veth = device_prefix("veth").unwrap();
        for (name, inside) in [("veth", true), ("veth0", true), ("vetg", false), ("vetz", false)] {
            assert_eq!(veth.contains(device_value(name).unwrap()), inside, "{name}");
        }
        assert_eq!(device_value(""), None);
        assert_eq!(device_value("0123456789abcdef"), None);
        assert_eq!(value_device(device_value("cali0").unwrap()), "cali0");
        assert!(device_prefix("").unwrap().contains(device_value("lo").unwrap()));
    }
}
