//! Addresses and ports at which an answer may change in a cluster.

use super::vocabulary::external_addresses;
use ipnet::IpNet;
use netpol_core::{Cluster, Family, Match, Peer, PortEntry, TrafficMatch};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of one family at which some answer may change, from both sides. Never none.
#[must_use]
pub fn interesting_addresses(cluster: &Cluster, family: Family) -> Vec<IpAddr> {
    let of_nodes = cluster.nodes().flat_map(|node| node.addresses().iter().copied());
    let mut addresses: Vec<IpAddr> =
        external_addresses(family).into_iter().chain(of_nodes).collect();
    for rule in rules(cluster) {
        let Match::OneOf(peers) = &rule.peers else { continue };
        for peer in peers {
            let Peer::Network(block) = peer else { continue };
            for net in std::iter::once(&block.cidr).chain(&block.except) {
                addresses.extend(edges(net));
            }
        }
    }
    addresses.retain(|&address| Family::of(address) == family);
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The first and the last address of a network and their outer neighbors.
fn edges(net: &IpNet) -> Vec<IpAddr> {
    match net {
        IpNet::V4(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            let bits = [first.saturating_sub(1), first, last, last.saturating_add(1)];
            bits.into_iter().map(|b| Ipv4Addr::from_bits(b).into()).collect()
        }
        IpNet::V6(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            let bits = [first.saturating_sub(1), first, last, last.saturating_add(1)];
            bits.into_iter().map(|b| Ipv6Addr::from_bits(b).into()).collect()
        }
    }
}

/// The ports at which some answer may change, from both sides. Never none.
#[must_use]
pub fn interesting_ports(cluster: &Cluster) -> Vec<u16> {
    let mut ports = vec![80, 53, 0, u16::MAX];
    ports.extend(cluster.pods().flat_map(|pod| pod.ports().iter().map(|p| p.port)));
    for rule in rules(cluster) {
        let Match::OneOf(entries) = &rule.ports else { continue };
        for entry in entries {
            if let PortEntry::Range { first, last, .. } = entry {
                ports.extend([first.saturating_sub(1), *first, *last, last.saturating_add(1)]);
            }
        }
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn rules(cluster: &Cluster) -> impl Iterator<Item = &TrafficMatch> {
    cluster.policies().flat_map(|policy| {
        netpol_core::Direction::ALL
            .into_iter()
            .filter_map(|direction| policy.rules(direction))
            .flatten()
            .map(|rule| &rule.matches)
    })
}
