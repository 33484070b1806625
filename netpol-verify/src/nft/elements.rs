//! Values and elements of sets as nft writes them in JSON, as intervals.

use super::words;
use crate::machine::{ConnState, Range, address_value, device_prefix, device_value};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of value a field or a part of a set's key has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Ipv4,
    Ipv6,
    Protocol,
    Port,
    /// As the first 16 bits behind the IP header: the type and any code.
    IcmpType,
    Icmpv6Type,
    Device,
    Mark,
    State,
    Direction,
    Version,
    EtherType,
}

impl Kind {
    /// The kind of this data type of nft.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ipv4_addr" => Self::Ipv4,
            "ipv6_addr" => Self::Ipv6,
            "inet_proto" => Self::Protocol,
            "inet_service" => Self::Port,
            "icmp_type" => Self::IcmpType,
            "icmpv6_type" => Self::Icmpv6Type,
            "ifname" => Self::Device,
            "mark" => Self::Mark,
            "ct_state" => Self::State,
            "ct_dir" => Self::Direction,
            "nf_proto" => Self::Version,
            "ether_type" => Self::EtherType,
            _ => return None,
        })
    }

    /// The greatest value.
    pub(super) fn last(self) -> u128 {
        match self {
            Self::Ipv4 | Self::Mark => u32::MAX.into(),
            Self::Ipv6 | Self::Device => u128::MAX,
            Self::Protocol | Self::Version | Self::State | Self::Direction => u8::MAX.into(),
            Self::Port | Self::IcmpType | Self::Icmpv6Type | Self::EtherType => u16::MAX.into(),
        }
    }

    /// Does a single value of this kind stand for an interval of the field?
    fn interval(self, value: u128) -> Range {
        match self {
            Self::IcmpType | Self::Icmpv6Type => Range::new(value << 8, value << 8 | 0xff),
            _ => Range::one(value),
        }
    }

    /// The number of a word.
    fn word(self, text: &str) -> Option<u128> {
        match self {
            Self::Ipv4 => text.parse::<Ipv4Addr>().ok().map(|a| address_value(IpAddr::V4(a))),
            Self::Ipv6 => text.parse::<Ipv6Addr>().ok().map(|a| address_value(IpAddr::V6(a))),
            Self::Protocol => words::protocol(text).map(u128::from),
            Self::IcmpType => words::icmp_type(text).map(u128::from),
            Self::Icmpv6Type => words::icmpv6_type(text).map(u128::from),
            Self::Device => device_value(text),
            Self::State => ConnState::parse(text).map(ConnState::bit),
            Self::Direction => match text {
                "original" => Some(0),
                "reply" => Some(1),
                _ => None,
            },
            Self::Version => match text {
                "ipv4" => Some(4),
                "ipv6" => Some(6),
                _ => None,
            },
            // As the version of IP; other protocols are no packets of the model.
            Self::EtherType => match text {
                "ip" => Some(4),
                "ip6" => Some(6),
                _ => Some(0),
            },
            Self::Port | Self::Mark => None,
        }
        .or_else(|| {
            let number = matches!(
                self,
                Self::Protocol | Self::Port | Self::IcmpType | Self::Icmpv6Type | Self::Mark
            );
            text.parse::<u32>().ok().filter(|_| number).map(u128::from)
        })
    }

    fn text(self, text: &str) -> Option<Range> {
        if self == Self::Device {
            // `\*` is a name that ends with an asterisk.
            if let Some(literal) = text.strip_suffix("\\*") {
                return device_value(&format!("{literal}*")).map(Range::one);
            }
            // An asterisk alone is what a map does with the rest, which is not understood.
            if let Some(prefix) = text.strip_suffix('*').filter(|prefix| !prefix.is_empty()) {
                return device_prefix(prefix);
            }
        }
        self.checked(self.word(text)?)
    }

    fn number(self, number: u64) -> Option<Range> {
        match self {
            // The index of a device means nothing elsewhere; numbers are no addresses.
            Self::Device | Self::Ipv4 | Self::Ipv6 => None,
            Self::EtherType => Some(Range::one(match number {
                0x0800 => 4u8,
                0x86dd => 6,
                _ => 0,
            })),
            Self::Version => Some(Range::one(match number {
                2 => 4u8,
                10 => 6,
                _ => 0,
            })),
            _ => self.checked(number.into()),
        }
    }

    fn checked(self, value: u128) -> Option<Range> {
        let range = self.interval(value);
        (range.last <= self.last()).then_some(range)
    }

    /// A value, a prefix or a range.
    pub(super) fn value(self, value: &Value) -> Option<Range> {
        match value {
            Value::String(text) => self.text(text),
            Value::Number(number) => self.number(number.as_u64()?),
            Value::Object(object) => {
                let (word, inner) = object.iter().next()?;
                match word.as_str() {
                    "elem" => self.value(inner.get("val")?),
                    "prefix" => {
                        let first = self.value(inner.get("addr")?)?.first;
                        let bits: u32 = match self {
                            Self::Ipv4 => 32,
                            Self::Ipv6 => 128,
                            _ => return None,
                        };
                        let length = u32::try_from(inner.get("len")?.as_u64()?).ok()?;
                        let free = mask_of(bits.checked_sub(length)?);
                        Some(Range::new(first & !free, first | free))
                    }
                    "range" => match inner.as_array()?.as_slice() {
                        [first, last] => {
                            let (first, last) = (self.value(first)?, self.value(last)?);
                            Some(Range::new(first.first, last.last))
                        }
                        _ => None,
                    },
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// So many low bits.
fn mask_of(bits: u32) -> u128 {
    1u128.checked_shl(bits).map_or(u128::MAX, |value| value - 1)
}

/// An element of a named set. Texts and numbers, which are most, are not copied.
pub(super) enum Element<'a> {
    Text(Cow<'a, str>),
    Number(u64),
    Other(Value),
}

impl fmt::Debug for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
            Self::Other(value) => value.fmt(f),
        }
    }
}

impl Element<'_> {
    /// The interval of an element of a key of one part.
    pub(super) fn range(&self, kind: Kind) -> Option<Range> {
        match self {
            Self::Text(text) => kind.text(text),
            Self::Number(number) => kind.number(*number),
            Self::Other(value) => kind.value(value),
        }
    }

    /// The intervals of an element.
    pub(super) fn ranges(&self, kinds: &[Kind]) -> Option<Box<[Range]>> {
        match (self, kinds) {
            (_, [kind]) => Some(Box::from([self.range(*kind)?])),
            (Self::Other(value), _) => ranges(value, kinds),
            _ => None,
        }
    }

    /// Key and value of an element of a map.
    pub(super) fn pair(&self) -> Option<(Element<'static>, &Value)> {
        let Self::Other(Value::Array(pair)) = self else { return None };
        match pair.as_slice() {
            [key, value] => Some((Element::Other(key.clone()), value)),
            _ => None,
        }
    }
}

/// The intervals of an element: `{"concat": [...]}` for a key of several parts.
pub(super) fn ranges(value: &Value, kinds: &[Kind]) -> Option<Box<[Range]>> {
    if let [kind] = kinds {
        return Some(Box::from([kind.value(value)?]));
    }
    let inner = value.pointer("/elem/val").unwrap_or(value);
    let parts = inner.get("concat")?.as_array()?;
    if parts.len() != kinds.len() {
        return None;
    }
    parts.iter().zip(kinds).map(|(part, kind)| kind.value(part)).collect()
}

impl<'de: 'a, 'a> Deserialize<'de> for Element<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Element<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an element of a set")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Element<'de>, E> {
                Ok(Element::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Element<'de>, E> {
                Ok(Element::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Element<'de>, E> {
                Ok(Element::Number(number))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Element<'de>, E> {
                Ok(Element::Other(number.into()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Element<'de>, E> {
                Ok(Element::Other(value.into()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Element<'de>, A::Error> {
                Value::deserialize(SeqAccessDeserializer::new(list)).map(Element::Other)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Element<'de>, A::Error> {
                Value::deserialize(MapAccessDeserializer::new(map)).map(Element::Other)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_intervals() {
        let r = |first: u128, last: u128| Some(Range { first, last });
        for (kind, value, expected) in [
            (Kind::Ipv4, json!("10.0.0.1"), r(0x0a00_0001, 0x0a00_0001)),
            (Kind::Ipv4, json!("fe80::1"), None),
            (Kind::Ipv4, json!(5), None),
            (
                Kind::Ipv4,
                json!({"prefix": {"addr": "10.0.0.0", "len": 8}}),
                r(0x0a00_0000, 0x0aff_ffff),
            ),
            (Kind::Ipv4, json!({"prefix": {"addr": "0.0.0.0", "len": 0}}), r(0, 0xffff_ffff)),
            (Kind::Ipv4, json!({"prefix": {"addr": "10.0.0.0", "len": 33}}), None),
            (Kind::Ipv6, json!({"prefix": {"addr": "::", "len": 0}}), r(0, u128::MAX)),
            (Kind::Ipv4, json!({"range": ["10.0.0.1", "10.0.0.7"]}), r(0x0a00_0001, 0x0a00_0007)),
            (Kind::Port, json!(80), r(80, 80)),
            (Kind::Port, json!("ssh"), None),
            (Kind::Port, json!(65536), None),
            (Kind::Protocol, json!("gre"), r(47, 47)),
            (Kind::Protocol, json!(200), r(200, 200)),
            (Kind::Protocol, json!(256), None),
            (
                Kind::Icmpv6Type,
                json!({"range": ["nd-router-solicit", "nd-redirect"]}),
                r(133 << 8, 137 << 8 | 255),
            ),
            (Kind::IcmpType, json!("echo-request"), r(0x800, 0x8ff)),
            (Kind::Device, json!("veth\\*"), device_value("veth*").map(Range::one)),
            (Kind::Device, json!("veth*"), device_prefix("veth")),
            (Kind::Device, json!(3), None),
            (Kind::State, json!("untracked"), r(64, 64)),
            (Kind::Port, json!({"elem": {"val": 1, "counter": null}}), r(1, 1)),
            (Kind::Port, json!("*"), None),
            (Kind::Device, json!("\\*"), device_value("*").map(Range::one)),
        ] {
            assert_eq!(kind.value(&value), expected, "{value}");
            let element: Element<'_> =
                serde_json::from_value::<Value>(value.clone()).map(Element::Other).unwrap();
            assert_eq!(element.range(kind), expected, "{value}");
            let text = value.to_string();
            let element: Element<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!(element.range(kind), expected, "{value}");
        }
    }
}
