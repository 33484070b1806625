//! Every packet of a small world, one by one: what a prover says by classes must be what comes out here.
//!
//! Packets run through the rule machine one at a time, and [`netpol_sim::reference`] says what they should meet.

use netpol_core::{Cluster, Direction, Established, NodeName, Options, Pod, PodId, Protocol};
use netpol_sim::{Connection, End, Traffic, reference};
use netpol_verify::machine::{
    ConnState, Fate, Machine, Own, Packet, Path, Run, address_value, device_value,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What is combined to packets.
#[derive(Clone, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "the parts of a packet that vary")]
pub struct Values {
    /// The addresses of both families.
    pub addresses: BTreeSet<IpAddr>,
    /// The destination ports.
    pub ports: BTreeSet<u16>,
    /// Try only some of the traffic where nothing may be denied, and only some ports in other states than new.
    pub thin: bool,
}

/// Packets, with what the policies say of each.
#[derive(Clone, Debug)]
pub struct Enumeration {
    packets: Vec<Enumerated>,
    established: Established,
    thin: bool,
}

#[derive(Clone, Debug)]
struct Enumerated {
    path: Path,
    packet: Packet,
    /// Is no end of it a pod of this node?
    nobody: bool,
    allowed: bool,
}

/// Devices of nobody's pod.
const OUTSIDE: [&str; 2] = ["uplink0", "podx"];

const STATES: [(ConnState, bool); 6] = [
    (ConnState::Established, false),
    (ConnState::Established, true),
    (ConnState::Related, false),
    (ConnState::Related, true),
    (ConnState::Untracked, false),
    (ConnState::Invalid, false),
];

impl Enumeration {
    /// All packets that these values make, with what the policies of a node say of them. Pods without an interface, and
    /// everybody else, are behind devices of their own.
    #[must_use]
    pub fn new(
        cluster: &Cluster,
        node: Option<&NodeName>,
        values: &Values,
        options: Options,
        interfaces: &BTreeMap<PodId, String>,
    ) -> Self {
        let owners = cluster.address_owners();
        let local = |address: &IpAddr| {
            let pod = owners.get(address).and_then(|id| cluster.pod(id));
            pod.filter(|pod| node.is_none() || pod.node() == node)
        };
        let device = |pod: Option<&Pod>, outside: &str| {
            let name = pod.and_then(|pod| interfaces.get(pod.id()));
            device_value(name.map_or(outside, String::as_str))
        };
        // One of them is called as pods' are.
        let outside = if interfaces.is_empty() { &OUTSIDE[..1] } else { &OUTSIDE };
        let mut packets = Vec::new();
        for &source in &values.addresses {
            let same = |address: &&IpAddr| address.is_ipv6() == source.is_ipv6();
            for &destination in values.addresses.iter().filter(same) {
                let ends = (local(&source), local(&destination));
                let pods = (owners.contains_key(&source), owners.contains_key(&destination));
                let nobody = ends.0.is_none() && ends.1.is_none();
                let ways = [
                    (Path::Forward, true),
                    (Path::ToNode, ends.0.is_some() && !pods.1),
                    (Path::FromNode, ends.1.is_some() && !pods.0),
                ];
                let ways = ways.into_iter().filter(|(_, exists)| *exists);
                for (path, outside) in
                    ways.flat_map(|(path, _)| outside.iter().map(move |name| (path, *name)))
                {
                    let mut packet = Packet {
                        v6: source.is_ipv6(),
                        source: address_value(source),
                        destination: address_value(destination),
                        protocol: 0,
                        first: 0,
                        second: 0,
                        in_device: device(ends.0, outside).filter(|_| path != Path::FromNode),
                        out_device: device(ends.1, outside).filter(|_| path != Path::ToNode),
                        state: ConnState::New,
                        reply: false,
                        mark: 0,
                    };
                    let traffics = traffics(source.is_ipv6(), values);
                    for (number, (traffic, first, second)) in traffics.into_iter().enumerate() {
                        if values.thin && nobody && number % 7 != 0 {
                            continue;
                        }
                        packet.protocol = match traffic {
                            Traffic::Port(protocol, _) => protocol.number(),
                            Traffic::Icmpv6(_) => 58,
                            Traffic::Other(number) => number,
                        };
                        (packet.first, packet.second) = (first, second);
                        let (from, to) = (End::Address(source), End::Address(destination));
                        let mut connection = Connection::new(from, to, traffic);
                        if path != Path::Forward {
                            connection = connection.with_own_node();
                        }
                        let asked = [
                            (Direction::Egress, ends.0.is_some() && path != Path::FromNode),
                            (Direction::Ingress, ends.1.is_some() && path != Path::ToNode),
                        ];
                        let allowed =
                            asked.into_iter().filter(|(_, asked)| *asked).all(|(direction, _)| {
                                reference::direction_allowed(
                                    cluster,
                                    &connection,
                                    direction,
                                    &options,
                                )
                            });
                        packets.push(Enumerated { path, packet: packet.clone(), nobody, allowed });
                    }
                }
            }
        }
        Self { packets, established: options.established(), thin: values.thin }
    }

    /// How many packets there are, not counting states of connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Is there no packet?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// What becomes of the packets, in every state of a connection, in a machine of which these rules are netpol's. What the
    /// node itself sends and receives is judged by netpol's rules alone, but what they deny must be dropped by all together;
    /// if others may drop more, so are all packets.
    #[must_use]
    pub fn trial(&self, machine: &Machine, own: &Own, others_may_drop: bool) -> Trial {
        let only = machine.only(own);
        let mut trial = Trial::Right;
        for Enumerated { path, packet, nobody, allowed } in &self.packets {
            let shared = *path != Path::Forward || others_may_drop && !nobody;
            let own = shared || *nobody;
            let mut check = |packet: &Packet, pass: bool| {
                let right = if pass { Fate::Accepted } else { Fate::Dropped };
                let machines =
                    [(if own { &only } else { machine }, true), (machine, !pass && shared)];
                for (machine, _) in machines.into_iter().filter(|(_, asked)| *asked) {
                    if machine.fates(packet, *path) == BTreeSet::from([right]) {
                        continue;
                    }
                    let runs = machine.run(packet, *path);
                    // Whatever it is that was not understood, or by a way on which all was.
                    let wrong = |run: &Run| run.fate != right && run.fate != Fate::Unknown;
                    let sure = |run: &Run| wrong(run) && run.not_understood.is_empty();
                    if runs.iter().all(wrong) || runs.iter().any(sure) {
                        trial = Trial::Wrong(packet.clone());
                        return true;
                    }
                    if trial == Trial::Right {
                        trial = Trial::Unknown(packet.clone());
                    }
                }
                false
            };
            if check(packet, *allowed) {
                return trial;
            }
            if self.thin && packet.second > 81 && packet.second != u16::MAX {
                continue;
            }
            for (state, reply) in STATES {
                let packet = Packet { state, reply, ..packet.clone() };
                let expected = match (state, reply) {
                    (ConnState::Established, false) => {
                        self.established == Established::Keep || *allowed
                    }
                    (ConnState::Untracked, _) => *allowed,
                    // It may be dropped anywhere, but not by netpol where no pod is an end of it.
                    (ConnState::Invalid, _) if *nobody => true,
                    (ConnState::Invalid, _) if *allowed => continue,
                    (ConnState::Invalid, _) => false,
                    _ => true,
                };
                if check(&packet, expected) {
                    return trial;
                }
            }
        }
        trial
    }
}

/// What came out of trying all packets.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "all is right, something is wrong, or nobody knows")]
pub enum Trial {
    /// Each of them is treated as it should be, whatever the kernel chooses.
    Right,
    /// This one is not, the first of those.
    Wrong(Packet),
    /// None is surely wrong, but with this one it depends on what was not understood.
    Unknown(Packet),
}

/// A source port that nobody asks for, and one that is what neighbor discovery has in its place.
const FIRST: [u16; 2] = [40000, 135 << 8];

/// What packets carry, with the two words behind the IP header.
fn traffics(v6: bool, values: &Values) -> Vec<(Traffic, u16, u16)> {
    let firsts = if values.thin { &FIRST[..1] } else { &FIRST };
    let words = firsts.iter().flat_map(|first| values.ports.iter().map(|second| (*first, *second)));
    let words: Vec<(u16, u16)> = words.collect();
    let of = |protocol| words.iter().map(move |&(a, b)| (Traffic::Port(protocol, b), a, b));
    let mut all: Vec<(Traffic, u16, u16)> = Protocol::ALL.into_iter().flat_map(of).collect();
    let mut add = |traffic, first| {
        if values.thin {
            all.push((traffic, first, 0));
        } else {
            all.extend(values.ports.iter().map(|second| (traffic, first, *second)));
        }
    };
    for number in [0, 1, 2, 5, 7, 47, 255] {
        firsts.iter().for_each(|first| add(Traffic::Other(number), *first));
    }
    for kind in [0, 128, 132, 133, 134, 135, 136, 137, 138, 255].into_iter().filter(|_| v6) {
        add(Traffic::Icmpv6(kind), u16::from(kind) << 8);
    }
    all
}
