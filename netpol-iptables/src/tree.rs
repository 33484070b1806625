//! Dispatch without maps: iptables finds the rule for an address, or for a device, by a tree of prefixes (dataplane.md C.2).
//!
//! A node is a chain. Up to sixteen addresses are compared one by one; more are split by the next four bits behind what
//! they have in common. A packet that no leaf matches falls off the node and returns to where the tree was entered.

use crate::model::{ChainName, DevicePattern, Rule, Target};
use ipnet::IpNet;
use netpol_host::{Comment, DeviceName};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How many leaves are compared one by one.
const MOST_LEAVES: usize = 16;
/// How many bits a node decides.
const BITS: u8 = 4;

/// Which address a tree looks at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// A rule for all packets of a network.
pub(crate) fn of_network(side: Side, net: IpNet) -> Rule {
    match side {
        Side::Source => Rule { source: Some(net), ..Rule::default() },
        Side::Destination => Rule { destination: Some(net), ..Rule::default() },
    }
}

/// What all these addresses have in common.
pub(crate) fn common(first: IpAddr, last: IpAddr) -> IpNet {
    let (a, b) = (bits(first), bits(last));
    let width = IpNet::from(first).max_prefix_len();
    let length = u8::try_from((a ^ b).leading_zeros()).unwrap_or(width).min(width);
    network(first, length)
}

/// An address as a number whose first bit is the first of the address.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn network(address: IpAddr, length: u8) -> IpNet {
    // A length that an address of this family has.
    IpNet::new(address, length).map_or_else(|_| address.into(), |net| net.trunc())
}

/// The rules of the root of a tree in whose leaves these rules are. `add` makes a chain of rules.
pub(crate) fn addresses(
    side: Side,
    leaves: &[(IpAddr, Vec<Rule>)],
    add: &mut dyn FnMut(Vec<Rule>, &str) -> ChainName,
) -> Vec<Rule> {
    let (Some((first, _)), Some((last, _))) = (leaves.first(), leaves.last()) else {
        return Vec::new();
    };
    if leaves.len() <= MOST_LEAVES {
        return leaves.iter().flat_map(|(_, rules)| rules.clone()).collect();
    }
    let shared = common(*first, *last).prefix_len();
    let length = (shared / BITS + 1) * BITS;
    let group_of = |(address, _): &(IpAddr, Vec<Rule>)| network(*address, length);
    let mut rules = Vec::new();
    for group in leaves.chunk_by(|a, b| group_of(a) == group_of(b)) {
        let (Some(first), Some((last, _))) = (group.first(), group.last()) else { continue };
        if group.len() == 1 {
            rules.extend(first.1.iter().cloned());
            continue;
        }
        let child = addresses(side, group, add);
        let net = common(first.0, *last);
        let child = add(child, &format!("local pods in {net}"));
        rules.push(Rule { target: Some(Target::Goto(child)), ..of_network(side, net) });
    }
    rules
}

/// The same for devices, by the characters of their names. Leaves need no condition on the device yet.
pub(crate) fn devices(
    leaves: &BTreeMap<DeviceName, Rule>,
    add: &mut dyn FnMut(Vec<Rule>, &str) -> ChainName,
) -> Vec<Rule> {
    let leaves: Vec<_> = leaves.iter().collect();
    devices_from(&leaves, add)
}

fn devices_from(
    leaves: &[(&DeviceName, &Rule)],
    add: &mut dyn FnMut(Vec<Rule>, &str) -> ChainName,
) -> Vec<Rule> {
    let leaf = |(device, rule): &(&DeviceName, &Rule)| {
        let device = Some(DevicePattern::Is((*device).clone()));
        Rule { device, ..(*rule).clone() }
    };
    if leaves.len() <= MOST_LEAVES {
        return leaves.iter().map(leaf).collect();
    }
    let shared = common_prefix(leaves.iter().map(|(device, _)| *device)).len();
    let key = |(device, _): &(&DeviceName, &Rule)| device.as_str().as_bytes().get(shared).copied();
    let mut rules = Vec::new();
    for group in leaves.chunk_by(|a, b| key(a) == key(b)) {
        let prefix = common_prefix(group.iter().map(|(device, _)| *device));
        match (group, DeviceName::new(prefix)) {
            ([_, _, ..], Some(prefix)) => {
                let child = devices_from(group, add);
                let child = add(child, &format!("devices {prefix}*"));
                let device = Some(DevicePattern::StartsWith(prefix));
                rules.push(Rule { device, target: Some(Target::Goto(child)), ..Rule::default() });
            }
            _ => rules.extend(group.iter().map(leaf)),
        }
    }
    rules
}

/// The devices whose names begin as all of these do; none if that is nothing.
pub(crate) fn pattern<'a>(
    devices: impl ExactSizeIterator<Item = &'a DeviceName> + Clone,
) -> Option<DevicePattern> {
    let one = devices.len() == 1;
    let name = DeviceName::new(common_prefix(devices))?;
    Some(if one { DevicePattern::Is(name) } else { DevicePattern::StartsWith(name) })
}

fn common_prefix<'a>(mut devices: impl Iterator<Item = &'a DeviceName>) -> &'a str {
    let first = devices.next().map_or("", DeviceName::as_str);
    devices.fold(first, |prefix, device| {
        let same = prefix.bytes().zip(device.as_str().bytes()).take_while(|(a, b)| a == b).count();
        prefix.get(..same).unwrap_or_default() // the names are ASCII
    })
}

/// The rule in a leaf.
pub(crate) fn leaf(side: Side, address: IpAddr, target: Target, note: Comment) -> Rule {
    Rule { target: Some(target), note, ..of_network(side, address.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{ChainKind, Prefix};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    type Chains = BTreeMap<ChainName, Vec<Rule>>;

    fn build(
        make: impl FnOnce(&mut dyn FnMut(Vec<Rule>, &str) -> ChainName) -> Vec<Rule>,
    ) -> (Vec<Rule>, Chains) {
        let mut chains = Chains::new();
        let root = make(&mut |rules, _| {
            let number = u128::try_from(chains.len()).unwrap().to_be_bytes();
            let name = ChainName::of(&Prefix::default(), ChainKind::Dispatch, number);
            chains.insert(name.clone(), rules);
            name
        });
        (root, chains)
    }

    /// The note of the rule that a packet ends at, and how many rules it met.
    fn walk(
        root: &[Rule],
        chains: &Chains,
        matches: impl Fn(&Rule) -> bool,
    ) -> (Option<Comment>, usize) {
        let (mut rules, mut met) = (root, 0);
        'chain: loop {
            for rule in rules {
                met += 1;
                match &rule.target {
                    Some(Target::Goto(chain)) if matches(rule) => {
                        rules = &chains[chain];
                        continue 'chain;
                    }
                    _ if matches(rule) => return (Some(rule.note.clone()), met),
                    _ => {}
                }
            }
            return (None, met);
        }
    }

    fn tree_of(addresses: &BTreeSet<IpAddr>) -> (Vec<Rule>, Chains) {
        let leaves: Vec<_> = addresses
            .iter()
            .map(|&address| {
                let comment = Comment::new(&address.to_string());
                (address, vec![leaf(Side::Source, address, Target::Drop, comment)])
            })
            .collect();
        build(|add| super::addresses(Side::Source, &leaves, add))
    }

    proptest! {
        #[test]
        fn every_address_finds_its_leaf_and_no_other(
            v4 in proptest::collection::btree_set((0u32..4096, 0u32..3), 0..200),
            v6 in any::<bool>(),
            probe in (0u32..4096, 0u32..3),
        ) {
            let address = |(low, high): (u32, u32)| -> IpAddr {
                if v6 {
                    let high = u128::from(high) << 70;
                    std::net::Ipv6Addr::from_bits((0xfd_u128 << 120) | high | u128::from(low)).into()
                } else {
                    std::net::Ipv4Addr::from_bits((10 << 24) | (high << 20) | low).into()
                }
            };
            let addresses: BTreeSet<IpAddr> = v4.into_iter().map(address).collect();
            let (root, chains) = tree_of(&addresses);
            for probe in addresses.iter().copied().chain([address(probe)]) {
                let (found, met) = walk(&root, &chains, |rule| rule.source.unwrap().contains(&probe));
                let expected = addresses.contains(&probe).then(|| Comment::new(&probe.to_string()));
                prop_assert_eq!(found, expected);
                prop_assert!(met <= 16 * 9, "{} rules", met);
            }
        }

        #[test]
        fn every_device_finds_its_leaf(
            names in proptest::collection::btree_set("(cali|veth)[0-3]{0,4}[a-c]{1,3}", 1..80),
            probe in "(cali|veth|eth)[0-3]{0,4}[a-c]{1,3}",
        ) {
            let leaves: BTreeMap<DeviceName, Rule> = names
                .iter()
                .map(|name| {
                    let rule = Rule { note: Comment::new(name), ..Rule::default() };
                    (DeviceName::new(name).unwrap(), rule)
                })
                .collect();
            let (root, chains) = build(|add| devices(&leaves, add));
            let all = pattern(leaves.keys());
            for probe in names.iter().chain([&probe]) {
                let matches = |pattern: &DevicePattern| match pattern {
                    DevicePattern::Is(device) => device.as_str() == probe,
                    DevicePattern::StartsWith(prefix) => probe.starts_with(prefix.as_str()),
                };
                let (found, _) = walk(&root, &chains, |rule| matches(rule.device.as_ref().unwrap()));
                prop_assert_eq!(found, names.contains(probe).then(|| Comment::new(probe)));
                if names.contains(probe) {
                    prop_assert!(all.as_ref().is_none_or(matches));
                }
            }
        }
    }

    #[test]
    fn a_node_of_pods_in_a_row_costs_little() {
        let addresses: BTreeSet<IpAddr> = (1..=110u8).map(|n| [10, 1, 0, n].into()).collect();
        let (root, chains) = tree_of(&addresses);
        let met: usize = addresses
            .iter()
            .map(|probe| walk(&root, &chains, |rule| rule.source.unwrap().contains(probe)).1)
            .sum();
        assert_eq!((root.len(), chains.len(), met / 110), (7, 7, 12));
    }
}
