//! Every packet of a small world, one by one: what the prover says by classes must be what comes out here.
//!
//! Neither the prover's classes nor its specification side is used: packets run through the machine one at a time, and
//! `netpol_sim::reference` says what they should meet.
#![allow(dead_code, reason = "each test file uses a part")]
#![expect(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

use netpol_core::{Cluster, Direction, Match, NodeName, Options, Peer, PodId, PortEntry};
use netpol_testkit::enumeration::{Enumeration, Trial, Values};
use netpol_verify::machine::{Machine, Own, Packet, address_value, value_address};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The packets between all addresses that count, with what policy says of each.
pub(crate) struct Universe(Enumeration);

/// Every address that a listing of nft names.
pub(crate) fn addresses_in(value: &Value, found: &mut BTreeSet<IpAddr>) {
    match value {
        Value::String(text) => found.extend(text.parse::<IpAddr>().ok()),
        Value::Array(list) => list.iter().for_each(|value| addresses_in(value, found)),
        Value::Object(object) => {
            if let Some(prefix) = object.get("prefix") {
                let text = format!("{}/{}", prefix["addr"].as_str().unwrap(), prefix["len"]);
                let net: ipnet::IpNet = text.parse().unwrap();
                found.extend([net.network(), net.broadcast()]);
            }
            object.values().for_each(|value| addresses_in(value, found));
        }
        _ => {}
    }
}

/// Every address that a listing of iptables or ipset names.
pub(crate) fn addresses_in_text(text: &str, found: &mut BTreeSet<IpAddr>) {
    for word in text.split([' ', ',', '\n', '"']) {
        if let Ok(net) = word.parse::<ipnet::IpNet>() {
            found.extend([net.network(), net.broadcast()]);
        }
        found.extend(word.parse::<IpAddr>().ok());
    }
}

fn near(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let value = address_value(address);
    let v6 = address.is_ipv6();
    let last = if v6 { u128::MAX } else { u32::MAX.into() };
    let values = [value.checked_sub(1), Some(value), value.checked_add(1)];
    values.into_iter().flatten().filter(move |v| *v <= last).map(move |v| value_address(v, v6))
}

fn ports(cluster: &Cluster) -> BTreeSet<u16> {
    let mut ports: BTreeSet<u16> = [0, 65535].into();
    let mut add = |port: u16| {
        ports.extend([port.saturating_sub(1), port, port.saturating_add(1)]);
    };
    cluster.pods().flat_map(|pod| pod.ports()).for_each(|port| add(port.port));
    for policy in cluster.policies() {
        for rule in Direction::ALL.into_iter().filter_map(|d| policy.rules(d)).flatten() {
            if let Match::OneOf(entries) = &rule.matches.ports {
                for entry in entries {
                    if let PortEntry::Range { first, last, .. } = entry {
                        add(*first);
                        add(*last);
                    }
                }
            }
        }
    }
    ports
}

impl Universe {
    /// All packets between the addresses that count for a cluster and a ruleset.
    pub(crate) fn new(
        cluster: &Cluster,
        node: Option<&NodeName>,
        listed: BTreeSet<IpAddr>,
        options: Options,
        interfaces: &BTreeMap<PodId, String>,
    ) -> Self {
        let nobody: [IpAddr; 2] =
            ["203.0.113.9", "2001:db8::9"].map(|address| address.parse().unwrap());
        let mut named = listed;
        named.extend(nobody);
        named.extend(cluster.pods().flat_map(|pod| pod.addresses().iter().copied()));
        named.extend(cluster.nodes().flat_map(|node| node.addresses().iter().copied()));
        for policy in cluster.policies() {
            for rule in Direction::ALL.into_iter().filter_map(|d| policy.rules(d)).flatten() {
                let Match::OneOf(peers) = &rule.matches.peers else { continue };
                for peer in peers {
                    if let Peer::Network(block) = peer {
                        let nets = std::iter::once(&block.cidr).chain(&block.except);
                        named.extend(nets.flat_map(|net| [net.network(), net.broadcast()]));
                    }
                }
            }
        }
        let addresses = named.into_iter().flat_map(near).collect();
        let values = Values { addresses, ports: ports(cluster), thin: true };
        Self(Enumeration::new(cluster, node, &values, options, interfaces))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The packets that a machine treats otherwise than it should, in any state of a connection; the first one.
    /// What is netpol's own is judged by its own rules alone; what it denies must be dropped by all together.
    pub(crate) fn difference(&self, machine: &Machine) -> Option<Packet> {
        match self.0.trial(machine, &Own::default().with_table("netpol").with_chains("NP"), false) {
            Trial::Right => None,
            Trial::Wrong(packet) | Trial::Unknown(packet) => Some(packet),
        }
    }
}
