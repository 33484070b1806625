//! Values as iptables-save writes them, as intervals.

use crate::machine::{Range, address_value, device_prefix, device_value};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of a family as a number.
pub(crate) fn address(text: &str, v6: bool) -> Option<u128> {
    let address: IpAddr = if v6 {
        text.parse::<Ipv6Addr>().ok()?.into()
    } else {
        text.parse::<Ipv4Addr>().ok()?.into()
    };
    Some(address_value(address))
}

/// How many bits an address has.
pub(crate) fn bits(v6: bool) -> u32 {
    if v6 { 128 } else { 32 }
}

/// The greatest address.
pub(crate) fn last_address(v6: bool) -> u128 {
    if v6 { u128::MAX } else { u32::MAX.into() }
}

/// The addresses with the first `length` bits of an address.
pub(crate) fn prefix(address: u128, length: u32, v6: bool) -> Option<Range> {
    let free = bits(v6).checked_sub(length)?;
    let free = 1u128.checked_shl(free).map_or(u128::MAX, |value| value - 1);
    Some(Range { first: address & !free, last: address | free })
}

/// `10.0.0.1`, `10.0.0.0/8`, `10.0.0.0/255.0.0.0`; not a mask with holes.
pub(crate) fn network(text: &str, v6: bool) -> Option<Range> {
    let Some((base, mask)) = text.split_once('/') else {
        return address(text, v6).map(Range::one);
    };
    let base = address(base, v6)?;
    if let Ok(length) = mask.parse() {
        return prefix(base, length, v6);
    }
    let free = last_address(v6) & !address(mask, v6)?;
    // The bits that do not count are the last ones.
    (free & free.wrapping_add(1) == 0).then_some(Range { first: base & !free, last: base | free })
}

/// `10.0.0.1-10.0.0.9`, or one address.
pub(crate) fn addresses(text: &str, v6: bool) -> Option<Range> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(Range { first: address(first, v6)?, last: address(last, v6)? })
}

/// `80`, `80:90`, `:90`, `80:`.
pub(crate) fn ports(text: &str, separator: char) -> Option<Range> {
    let (first, last) = text.split_once(separator).unwrap_or((text, text));
    let port = |text: &str, open: u16| {
        if text.is_empty() { Some(open) } else { text.parse::<u16>().ok() }
    };
    if text.is_empty() {
        return None;
    }
    let (first, last) = (port(first, 0)?, port(last, u16::MAX)?);
    (first <= last).then(|| Range::new(first, last))
}

/// `0x1` or `1`.
pub(crate) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `0x1/0xff`: a value and the bits that count, all where none are given.
pub(crate) fn masked(text: &str) -> Option<(u32, u32)> {
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, u32::MAX)),
    }
}

/// `eth0`, or `veth+` for all that begin so.
pub(crate) fn device(text: &str) -> Option<Range> {
    match text.strip_suffix('+') {
        Some(prefix) => device_prefix(prefix),
        None => device_value(text).map(Range::one),
    }
}

/// `8`, `3/1`, `any` of ICMP: type and code as the first 16 bits behind the IP header.
pub(crate) fn icmp(text: &str, word: impl Fn(&str) -> Option<u8>) -> Option<Range> {
    let (kind, code) = text.split_once('/').map_or((text, None), |(kind, code)| (kind, Some(code)));
    let kind: u16 = kind.parse::<u8>().ok().or_else(|| word(kind))?.into();
    Some(match code {
        Some(code) => Range::one(kind << 8 | u16::from(code.parse::<u8>().ok()?)),
        None => Range::new(kind << 8, kind << 8 | 0xff),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_intervals() {
        let r = |first: u128, last: u128| Some(Range { first, last });
        let ten = 0x0a00_0000;
        for (text, expected) in [
            ("10.0.0.1", r(ten + 1, ten + 1)),
            ("10.1.2.3/8", r(ten, ten + 0xff_ffff)),
            ("10.0.0.0/255.0.0.0", r(ten, ten + 0xff_ffff)),
            ("0.0.0.0/0", r(0, 0xffff_ffff)),
            ("10.0.0.0/33", None),
            ("10.0.0.0/255.0.0.255", None),
            ("fd00::1", None),
        ] {
            assert_eq!(network(text, false), expected, "{text}");
        }
        assert_eq!(network("::/0", true), r(0, u128::MAX));
        assert_eq!(network("fd00::/ffff::", true), r(0xfd00 << 112, (0xfd01 << 112) - 1));
        assert_eq!(addresses("0.0.0.5-0.0.1.0", false), r(5, 256));
        for (text, expected) in [
            ("80", r(80, 80)),
            ("80:90", r(80, 90)),
            (":90", r(0, 90)),
            ("80:", r(80, 65535)),
            ("90:80", None),
            ("", None),
            ("http", None),
        ] {
            assert_eq!(ports(text, ':'), expected, "{text}");
        }
        assert_eq!(masked("0x10/0xff"), Some((16, 255)));
        assert_eq!(masked("7"), Some((7, u32::MAX)));
        assert_eq!(masked("x"), None);
        assert_eq!(device("+"), Some(Range::ALL));
        assert_eq!(device("veth+"), device_prefix("veth"));
        assert_eq!(icmp("3/1", |_| None), r(0x301, 0x301));
        assert_eq!(icmp("8", |_| None), r(0x800, 0x8ff));
        assert_eq!(icmp("256", |_| None), None);
    }
}
