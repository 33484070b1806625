//! Every packet of a small world, one by one: what the prover says by classes must be what comes out here.
//!
//! Neither the prover's classes nor its specification side is used: packets run through the machine one at a time, and
//! `netpol_sim::reference` says what they should meet.
#![allow(dead_code, reason = "each test file uses a part")]
#![expect(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

use netpol_core::{
    Cluster, Direction, Established, Match, NodeName, Options, Peer, PodId, PortEntry,
};
use netpol_sim::{Connection, End, Traffic, reference};
use netpol_verify::machine::{
    ConnState, Fate, Machine, Own, Packet, Path, address_value, device_value, value_address,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The packets of a small world, with what policy says of each.
pub(crate) struct Universe {
    /// The way, the packet, is it judged by netpol's tables alone, may it pass?
    packets: Vec<(Path, Packet, bool, bool)>,
    established: Established,
}

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
        let all: BTreeSet<IpAddr> = named.into_iter().flat_map(near).collect();
        let owners = cluster.address_owners();
        let local = |address: &IpAddr| {
            let pod = owners.get(address).and_then(|id| cluster.pod(id));
            pod.filter(|pod| node.is_none() || pod.node() == node)
        };
        let ports = ports(cluster);
        let mut packets = Vec::new();
        for &source in &all {
            for &destination in all.iter().filter(|d| d.is_ipv6() == source.is_ipv6()) {
                let ends = (local(&source), local(&destination));
                let pods = (owners.contains_key(&source), owners.contains_key(&destination));
                let mut paths = Vec::new();
                paths.push(Path::Forward);
                if ends.0.is_some() && !pods.1 {
                    paths.push(Path::ToNode);
                }
                if ends.1.is_some() && !pods.0 {
                    paths.push(Path::FromNode);
                }
                // One of them is called as pods' are.
                let outside = if interfaces.is_empty() { 1 } else { 2 };
                let outside = &["uplink0", "podx"][..outside];
                let ways = outside.iter().flat_map(|o| paths.iter().map(move |path| (*o, *path)));
                for (outside, path) in ways {
                    let device = |pod: Option<&netpol_core::Pod>| {
                        let name = pod.and_then(|pod| interfaces.get(pod.id()));
                        device_value(name.map_or(outside, String::as_str))
                    };
                    let mut packet = Packet {
                        v6: source.is_ipv6(),
                        source: address_value(source),
                        destination: address_value(destination),
                        protocol: 0,
                        first: 0,
                        second: 0,
                        in_device: device(ends.0).filter(|_| path != Path::FromNode),
                        out_device: device(ends.1).filter(|_| path != Path::ToNode),
                        state: ConnState::New,
                        reply: false,
                        mark: 0,
                    };
                    let nobody = ends.0.is_none() && ends.1.is_none();
                    for (number, traffic) in
                        traffics(source.is_ipv6(), &ports).into_iter().enumerate()
                    {
                        // Nothing may be denied here, so that some of each kind are enough.
                        if nobody && number % 7 != 0 {
                            continue;
                        }
                        (packet.protocol, packet.first, packet.second) = match traffic {
                            Traffic::Port(protocol, port) => (protocol.number(), 40000, port),
                            Traffic::Icmpv6(kind) => (58, u16::from(kind) << 8, 0),
                            Traffic::Other(number) => (number, 0, 0),
                        };
                        let ends = (End::Address(source), End::Address(destination));
                        let mut connection = Connection::new(ends.0, ends.1, traffic);
                        if path != Path::Forward {
                            connection = connection.with_own_node();
                        }
                        let allowed = [
                            (Direction::Egress, local(&source).is_some(), path != Path::FromNode),
                            (
                                Direction::Ingress,
                                local(&destination).is_some(),
                                path != Path::ToNode,
                            ),
                        ];
                        let allowed = allowed.into_iter().all(|(direction, here, asked)| {
                            !(here && asked)
                                || reference::direction_allowed(
                                    cluster,
                                    &connection,
                                    direction,
                                    &options,
                                )
                        });
                        packets.push((
                            path,
                            packet.clone(),
                            nobody || path != Path::Forward,
                            allowed,
                        ));
                    }
                }
            }
        }
        Self { packets, established: options.established() }
    }

    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    /// The packets that a machine treats otherwise than it should, in any state of a connection; the first one.
    /// What is netpol's own is judged by its own rules alone; what it denies must be dropped by all together.
    pub(crate) fn difference(&self, machine: &Machine) -> Option<Packet> {
        let own = Own::default().with_table("netpol").with_chains("NP");
        let only = machine.only(&own);
        for (path, packet, own, allowed) in &self.packets {
            let at_node = *path != Path::Forward;
            let wrong = |packet: &Packet, pass: bool| {
                let expected = BTreeSet::from([if pass { Fate::Accepted } else { Fate::Dropped }]);
                let machines =
                    [(if *own { &only } else { machine }, true), (machine, !pass && at_node)];
                let mut asked = machines.into_iter().filter(|(_, asked)| *asked);
                asked.any(|(machine, _)| machine.fates(packet, *path, None) != expected)
            };
            if wrong(packet, *allowed) {
                return Some(packet.clone());
            }
            // The other states, for some ports.
            if packet.second > 81 && packet.second != 65535 {
                continue;
            }
            for (state, reply) in [
                (ConnState::Established, false),
                (ConnState::Established, true),
                (ConnState::Related, false),
                (ConnState::Related, true),
                (ConnState::Untracked, false),
                (ConnState::Invalid, false),
            ] {
                let packet = Packet { state, reply, ..packet.clone() };
                let expected = match (state, reply) {
                    (ConnState::Established, false) => {
                        self.established == Established::Keep || *allowed
                    }
                    (ConnState::Untracked, _) => *allowed,
                    (ConnState::Invalid, _) if *allowed => continue,
                    (ConnState::Invalid, _) => false,
                    _ => true,
                };
                if wrong(&packet, expected) {
                    return Some(packet);
                }
            }
        }
        None
    }
}

fn traffics(v6: bool, ports: &BTreeSet<u16>) -> Vec<Traffic> {
    let mut all: Vec<Traffic> = netpol_core::Protocol::ALL
        .into_iter()
        .flat_map(|protocol| ports.iter().map(move |port| Traffic::Port(protocol, *port)))
        .collect();
    all.extend([0, 1, 2, 5, 7, 47, 255].map(Traffic::Other));
    if v6 {
        all.extend([0, 128, 132, 133, 135, 137, 138, 255].map(Traffic::Icmpv6));
    }
    all
}
