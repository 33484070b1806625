//! The few names, labels, ports and addresses of which everything is made.

use netpol_core::Family;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const NAMESPACES: [&str; 4] = ["x", "y", "z", "w"];
pub(super) const PODS: [&str; 4] = ["a", "b", "c", "d"];
pub(super) const NODES: [&str; 2] = ["node-1", "node-2"];
pub(super) const LABEL_KEYS: [&str; 3] = ["app", "env", "tier"];
pub(super) const LABEL_VALUES: [&str; 3] = ["", "a", "b"];
pub(super) const PORT_NAMES: [&str; 3] = ["web", "dns", "none"];
pub(super) const PORTS: [u16; 7] = [80, 81, 53, 8080, 1, 65534, 65535];
pub(super) const POLICY_NAMES: [&str; 4] = ["p", "q", "r", "s"];
/// Protocols other than those that a policy can name, and ICMPv6: GRE, IPv4 in IPv6, IGMP, ESP, the least, the greatest.
pub(super) const OTHER_PROTOCOLS: [u8; 6] = [47, 4, 2, 50, 0, 255];
/// Echo, an error, and neighbor discovery with what surrounds it.
pub(super) const ICMPV6_TYPES: [u8; 8] = [128, 129, 2, 132, 133, 135, 137, 138];

/// The address of a pod: the low byte says which of few.
pub(super) fn pod_address(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, number / 8, number % 8).into(),
        Family::V6 => {
            let (high, low) = (u16::from(number / 8), u16::from(number % 8));
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, high, low).into()
        }
    }
}

pub(super) fn node_addresses(name: &str) -> [IpAddr; 2] {
    let number = if name == NODES[0] { 1 } else { 2 };
    [
        Ipv4Addr::new(192, 168, 0, number).into(),
        Ipv6Addr::new(0xfd00, 0x192, 0, 0, 0, 0, 0, u16::from(number)).into(),
    ]
}

/// Addresses of nobody, the first and the last of each family among them.
pub(super) fn external_addresses(family: Family) -> [IpAddr; 5] {
    match family {
        Family::V4 => [
            Ipv4Addr::new(203, 0, 113, 9).into(),
            Ipv4Addr::new(10, 0, 9, 9).into(),
            Ipv4Addr::new(127, 255, 255, 255).into(),
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::BROADCAST.into(),
        ],
        Family::V6 => [
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).into(),
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 9, 9).into(),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::from_bits(u128::MAX).into(),
        ],
    }
}

/// A namespace: mostly one of the first, so that pods and policies meet.
pub(super) fn namespace_names() -> impl Strategy<Value = &'static str> {
    let [x, y, z, w] = NAMESPACES;
    prop_oneof![4 => Just(x), 3 => Just(y), 1 => Just(z), 1 => Just(w)]
}

pub(super) fn names(from: &'static [&'static str]) -> impl Strategy<Value = &'static str> + Clone {
    select(from)
}
