//! Spellings of addresses and CIDRs (NP-100): what kube-apiserver accepts, now and before 1.36, into `ipnet` values.
//!
//! Rust's own parsers refuse leading zeros and other tools read them as octal, so the text is parsed here, once, and
//! never used again. INVARIANT: every network that leaves this module is truncated to its prefix, and an IPv4-mapped one
//! is IPv4.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a text that is no CIDR by the rules of kube-apiserver 1.36 has wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CidrError {
    /// No CIDR in any version of Kubernetes.
    #[error("must be a CIDR such as `10.9.8.0/24` or `2001:db8::/64`")]
    NoCidr,
    /// A zero in front of a number. Kubernetes reads it as decimal, other tools as octal.
    #[error("must have no leading zeros in the address or the prefix length")]
    LeadingZeros,
    /// An IPv4 address in the form of an IPv6 address.
    #[error("must not be an IPv4-mapped IPv6 address")]
    Mapped,
    /// An address that is not the first of its network.
    #[error("must have no bits set beyond the prefix length")]
    HostBits,
}

/// A CIDR that at least some version of kube-apiserver has accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cidr {
    net: IpNet,
    objection: Option<CidrError>,
    canonical: bool,
    // As written: VAL-16 compares these, not those of `net`.
    prefix: u8,
    base: IpAddr,
}

impl Cidr {
    /// Reads a CIDR the way servers before 1.36 did: leading zeros are decimal, host bits are dropped.
    ///
    /// ```
    /// use netpol_k8s::{Cidr, CidrError};
    /// let cidr = Cidr::parse("010.0.0.0/8").unwrap();
    /// assert_eq!(cidr.net().to_string(), "10.0.0.0/8");
    /// assert_eq!(cidr.objection(), Some(CidrError::LeadingZeros), "since 1.36");
    /// ```
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let (address, length) = text.split_once('/').ok_or(CidrError::NoCidr)?;
        let prefix = decimal(length).and_then(|n| u8::try_from(n).ok()).ok_or(CidrError::NoCidr)?;
        let address = match sloppy_v4(address) {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(sloppy_v6(address).ok_or(CidrError::NoCidr)?),
        };
        let written = IpNet::new(address, prefix).map_err(|_| CidrError::NoCidr)?;
        let truncated = written.trunc();
        let strict = strict_net(text);
        let objection = match strict {
            None => Some(CidrError::LeadingZeros),
            Some(IpNet::V6(net)) if net.addr().to_ipv4_mapped().is_some() => {
                Some(CidrError::Mapped)
            }
            Some(net) if net != net.trunc() => Some(CidrError::HostBits),
            Some(_) => None,
        };
        Ok(Self {
            net: unmapped(truncated),
            objection,
            canonical: strict.is_some_and(|net| net.to_string() == text),
            prefix,
            base: truncated.network().to_canonical(),
        })
    }

    /// The network that it means.
    #[must_use]
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// Why a server of 1.36 or later refuses this spelling in a new object.
    #[must_use]
    pub fn objection(&self) -> Option<CidrError> {
        self.objection
    }

    /// Is it the one spelling that Kubernetes recommends (RFC 5952)?
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        self.canonical
    }

    /// May it be an `except` of `cidr` (VAL-16)? The base must lie inside, and the prefix, as written, be longer.
    pub(crate) fn is_except_of(&self, cidr: &Self) -> bool {
        cidr.net.contains(&self.base) && self.prefix > cidr.prefix
    }
}

/// Reads an address as leniently as [`Cidr::parse`]; an IPv4-mapped one is IPv4 (NP-101).
pub(crate) fn parse_address(text: &str) -> Option<IpAddr> {
    sloppy_v4(text)
        .map(IpAddr::V4)
        .or_else(|| sloppy_v6(text).map(IpAddr::V6))
        .map(|address| address.to_canonical())
}

/// IPv4 for an IPv4-mapped network of at least 96 bits; a shorter one has become an ordinary IPv6 network.
fn unmapped(net: IpNet) -> IpNet {
    let mapped = |net: Ipv6Net| {
        let v4 = net.addr().to_ipv4_mapped()?;
        Ipv4Net::new(v4, net.prefix_len().checked_sub(96)?).ok().map(IpNet::V4)
    };
    match net {
        IpNet::V6(v6) => mapped(v6).unwrap_or(net),
        IpNet::V4(_) => net,
    }
}

/// The CIDR as 1.36 parses it: no number has leading zeros in IPv4 and prefix length, IPv6 groups have at most four digits.
fn strict_net(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    if length.len() > 1 && length.starts_with('0') {
        return None;
    }
    let prefix = decimal(length).and_then(|n| u8::try_from(n).ok())?;
    IpNet::new(address.parse().ok()?, prefix).ok()
}

/// Digits only, at least one, of a value that fits.
fn decimal(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = text.trim_start_matches('0');
    if digits.is_empty() { Some(0) } else { digits.parse().ok() }
}

fn sloppy_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(decimal(parts.next()?)?).ok()?;
    }
    parts.next().is_none().then_some(Ipv4Addr::from(octets))
}

/// IPv6 with any number of leading zeros in a group, and leading zeros in an IPv4 tail.
fn sloppy_v6(text: &str) -> Option<Ipv6Addr> {
    let groups = |part: &str, tail_allowed: bool| -> Option<Vec<u16>> {
        let mut groups = Vec::new();
        if part.is_empty() {
            return Some(groups);
        }
        let mut pieces = part.split(':').peekable();
        while let Some(piece) = pieces.next() {
            if tail_allowed && pieces.peek().is_none() && piece.contains('.') {
                let bits = sloppy_v4(piece)?.to_bits();
                groups
                    .extend([u16::try_from(bits >> 16).ok()?, u16::try_from(bits & 0xffff).ok()?]);
            } else {
                groups.push(hex_group(piece)?);
            }
            if groups.len() > 8 {
                return None;
            }
        }
        Some(groups)
    };
    let all = match text.split_once("::") {
        Some((left, right)) => {
            let (left, right) = (groups(left, false)?, groups(right, true)?);
            // The gap stands for at least one group.
            let gap = 8_usize.checked_sub(left.len() + right.len()).filter(|&gap| gap > 0)?;
            [left, vec![0; gap], right].concat()
        }
        None => groups(text, true)?,
    };
    <[u16; 8]>::try_from(all).ok().map(Ipv6Addr::from)
}

fn hex_group(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let digits = text.trim_start_matches('0');
    if digits.is_empty() { Some(0) } else { u16::from_str_radix(digits, 16).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings() {
        use CidrError::{HostBits, LeadingZeros, Mapped};
        for (text, net, objection) in [
            ("10.0.0.0/8", "10.0.0.0/8", None),
            ("0.0.0.0/0", "0.0.0.0/0", None),
            ("010.0.0.0/8", "10.0.0.0/8", Some(LeadingZeros)),
            ("1.1.01.0/24", "1.1.1.0/24", Some(LeadingZeros)),
            ("000000000010.0.0.0/8", "10.0.0.0/8", Some(LeadingZeros)),
            ("10.0.0.0/016", "10.0.0.0/16", Some(LeadingZeros)),
            ("10.0.0.0/00", "0.0.0.0/0", Some(LeadingZeros)),
            ("1.2.3.4/24", "1.2.3.0/24", Some(HostBits)),
            ("::ffff:1.1.1.0/120", "1.1.1.0/24", Some(Mapped)),
            ("::ffff:0:0/96", "0.0.0.0/0", Some(Mapped)),
            ("::FFFF:0101:0100/120", "1.1.1.0/24", Some(Mapped)),
            ("::ffff:1.1.1.0/24", "::/24", Some(Mapped)),
            ("::ffff:1.1.1.0/95", "::fffe:0:0/95", Some(Mapped)),
            ("::ffff:01.1.1.0/120", "1.1.1.0/24", Some(LeadingZeros)),
            ("FD00::/8", "fd00::/8", None),
            ("fd00:0:0::/8", "fd00::/8", None),
            ("::1.2.3.4/128", "::102:304/128", None),
            ("fd00:00001::/32", "fd00:1::/32", Some(LeadingZeros)),
            ("2001:db8::1/64", "2001:db8::/64", Some(HostBits)),
        ] {
            let cidr = Cidr::parse(text).unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(
                (cidr.net().to_string().as_str(), cidr.objection()),
                (net, objection),
                "{text}"
            );
        }
    }

    #[test]
    fn never_accepted() {
        for text in [
            "",
            "/",
            " ",
            "1.2.3.4",
            "10.0.0.0/",
            "/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.0//8",
            "10.0.0/8",
            "10/8",
            "10.0.0.0.0/8",
            "10..0.0/8",
            "256.0.0.0/8",
            "0x0a.0.0.0/8",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "10.0.0.0/8\n",
            "fe80::1%eth0/64",
            "fe80::%/64",
            "[::]/0",
            "::1::2/64",
            ":::/0",
            "1:2:3:4:5:6:7/64",
            "1:2:3:4:5:6:7:8:9/64",
            ":1:2:3:4:5:6:7/64",
            "1:2:3:4::5:6:7:8/64",
            "12345::/16",
            "g::/16",
            "1.2.3.4::/64",
            "::1.2.3/64",
            "::1.2.3.4:5/64",
            "10.0.0.0/8,11.0.0.0/8",
            "10.0.0.0-10.0.0.9",
            "*",
            "\u{661}0.0.0.0/8",
            "10.0.0.0/99999999999999999999",
        ] {
            assert_eq!(Cidr::parse(text), Err(CidrError::NoCidr), "{text}");
        }
    }

    #[test]
    fn excepts_compare_what_was_written() {
        let except = |cidr: &str, except: &str| {
            Cidr::parse(except).unwrap().is_except_of(&Cidr::parse(cidr).unwrap())
        };
        assert!(except("10.0.0.0/8", "10.1.0.0/16"));
        assert!(!except("10.0.0.0/8", "10.0.0.0/8"));
        assert!(!except("10.0.0.0/8", "11.0.0.0/16"));
        assert!(!except("0.0.0.0/0", "::/1"));
        assert!(
            except("0.0.0.0/0", "::ffff:0:0/96"),
            "stored before 1.36 although it covers everything"
        );
    }

    proptest! {
        #[test]
        fn canonical_text_means_itself(v4: bool, low: u32, bits: u128, prefix in 0_u8..=128) {
            let net = if v4 {
                IpNet::new(IpAddr::V4(Ipv4Addr::from_bits(low)), prefix % 33).unwrap()
            } else {
                IpNet::new(IpAddr::V6(Ipv6Addr::from_bits(bits | 1 << 127)), prefix.max(1)).unwrap()
            }
            .trunc();
            let cidr = Cidr::parse(&net.to_string()).unwrap();
            prop_assert_eq!((cidr.net(), cidr.objection(), cidr.is_canonical()), (net, None, true));
        }

        #[test]
        fn any_text_is_answered(text in "[0-9a-f:./% ]{0,40}") {
            if let Ok(cidr) = Cidr::parse(&text) {
                prop_assert_eq!(cidr.net(), cidr.net().trunc());
            }
        }
    }
}
