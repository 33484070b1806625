//! Members of sets: `10.0.0.0/8`, `10.0.0.1,tcp:80`, `10.0.0.0/24,eth0`.

use super::Part;
use crate::iptables::value;
use crate::machine::{Range, device_prefix, device_value};
use crate::nft::protocol_number;

/// A member of a set.
#[derive(Clone, Debug)]
pub(super) struct Element {
    /// For each part of the set's type an interval; of a port its protocol, and then its number.
    pub(super) ranges: Vec<Range>,
    /// How many bits of each address count: the more of the first, then of the second, the sooner it is found.
    pub(super) specific: Vec<u32>,
    /// Is what falls into it not in the set (`nomatch`)?
    pub(super) excludes: bool,
    /// Does it stand for all devices that begin with its name?
    pub(super) wildcard: bool,
}

impl Element {
    /// A member of a set with these parts; none if it is not understood.
    pub(super) fn parse(
        text: &str,
        parts: &[Part],
        netmask: Option<u32>,
        v6: bool,
        wildcard: bool,
    ) -> Option<Self> {
        let mut words = text.split(',');
        let mut element =
            Self { ranges: Vec::new(), specific: Vec::new(), excludes: false, wildcard };
        for part in parts {
            let word = words.next()?;
            match part {
                Part::Address => {
                    let range = match netmask {
                        Some(length) => value::prefix(value::address(word, v6)?, length, v6)?,
                        None if word.contains('-') => value::addresses(word, v6)?,
                        None => value::network(word, v6)?,
                    };
                    let length = word.split_once('/').map(|(_, length)| length.parse());
                    let length = length.transpose().ok()?.unwrap_or(value::bits(v6));
                    element.specific.push(length);
                    element.ranges.push(range);
                }
                Part::Port => element.ranges.extend(port(word)?),
                Part::BarePort => element.ranges.push(value::ports(word, '-')?),
                Part::Device if wildcard => element.ranges.push(device_prefix(word)?),
                // `physdev:eth0` has a colon, which no name of a device has.
                Part::Device if word.contains(':') => return None,
                Part::Device => element.ranges.push(Range::one(device_value(word)?)),
            }
        }
        words.next().is_none().then_some(element)
    }
}

/// `tcp:80`, `tcp:80-90`, `80`, `icmp:echo-request`, `icmp:8/0`, `gre:0`: the protocol and the port. What has neither ports
/// nor ICMP types has the port 0.
fn port(word: &str) -> Option<[Range; 2]> {
    let (protocol, port) = word.split_once(':').unwrap_or(("tcp", word));
    let number = protocol.parse::<u8>().ok().or_else(|| protocol_number(protocol))?;
    let port = match number {
        1 | 58 => match code(number, port) {
            Some((kind, code)) => Range::one(u16::from(kind) << 8 | u16::from(code)),
            None => {
                let (kind, code) = port.split_once('/').unwrap_or((port, "0"));
                Range::one(
                    kind.parse::<u8>().ok().map(u16::from)? << 8
                        | code.parse::<u8>().ok().map(u16::from)?,
                )
            }
        },
        _ => value::ports(port, '-')?,
    };
    Some([Range::one(number), port])
}

/// The words of ipset for types and codes of ICMP and ICMPv6.
fn code(protocol: u8, word: &str) -> Option<(u8, u8)> {
    Some(match (protocol, word) {
        (1, "echo-reply" | "pong") => (0, 0),
        (1, "network-unreachable") => (3, 0),
        (1, "host-unreachable") => (3, 1),
        (1, "protocol-unreachable") => (3, 2),
        (1, "port-unreachable") => (3, 3),
        (1, "fragmentation-needed") => (3, 4),
        (1, "source-route-failed") => (3, 5),
        (1, "network-unknown") => (3, 6),
        (1, "host-unknown") => (3, 7),
        (1, "network-prohibited") => (3, 9),
        (1, "host-prohibited") => (3, 10),
        (1, "TOS-network-unreachable") => (3, 11),
        (1, "TOS-host-unreachable") => (3, 12),
        (1, "communication-prohibited") => (3, 13),
        (1, "host-precedence-violation") => (3, 14),
        (1, "precedence-cutoff") => (3, 15),
        (1, "source-quench") => (4, 0),
        (1, "network-redirect") => (5, 0),
        (1, "host-redirect") => (5, 1),
        (1, "TOS-network-redirect") => (5, 2),
        (1, "TOS-host-redirect") => (5, 3),
        (1, "echo-request" | "ping") => (8, 0),
        (1, "router-advertisement") => (9, 0),
        (1, "router-solicitation") => (10, 0),
        (1, "ttl-zero-during-transit") => (11, 0),
        (1, "ttl-zero-during-reassembly") => (11, 1),
        (1, "ip-header-bad") => (12, 0),
        (1, "required-option-missing") => (12, 1),
        (1, "timestamp-request") => (13, 0),
        (1, "timestamp-reply") => (14, 0),
        (1, "address-mask-request") => (17, 0),
        (1, "address-mask-reply") => (18, 0),
        (58, "no-route") => (1, 0),
        (58, "communication-prohibited") => (1, 1),
        (58, "address-unreachable") => (1, 3),
        (58, "port-unreachable") => (1, 4),
        (58, "packet-too-big") => (2, 0),
        (58, "ttl-zero-during-transit") => (3, 0),
        (58, "ttl-zero-during-reassembly") => (3, 1),
        (58, "bad-header") => (4, 0),
        (58, "unknown-header-type") => (4, 1),
        (58, "unknown-option") => (4, 2),
        (58, "echo-request" | "ping") => (128, 0),
        (58, "echo-reply" | "pong") => (129, 0),
        (58, "router-solicitation") => (133, 0),
        (58, "router-advertisement") => (134, 0),
        (58, "neighbour-solicitation") => (135, 0),
        (58, "neighbour-advertisement") => (136, 0),
        (58, "redirect") => (137, 0),
        _ => return None,
    })
}
