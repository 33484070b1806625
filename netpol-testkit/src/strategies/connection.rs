//! Connections, and clusters that they fit.

use super::cluster::clusters;
use super::interesting::{interesting_addresses, interesting_ports};
use super::policy::protocols;
use super::vocabulary::{ICMPV6_TYPES, NAMESPACES, OTHER_PROTOCOLS};
use netpol_core::{Cluster, Family, Pod, PodId, Protocol};
use netpol_sim::{Connection, End, Traffic};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A connection that is still to be made to fit a cluster.
///
/// It can be resolved against several states of the same cluster, for instance after every edit.
#[derive(Clone, Debug)]
pub struct ConnectionSeed {
    family: Family,
    source: EndSeed,
    destination: EndSeed,
    traffic: TrafficSeed,
    own_node: Option<OwnNodeSeed>,
}

#[derive(Clone, Debug)]
enum EndSeed {
    /// An address that some pod reports, if there is one.
    PodAddress(Index),
    /// A pod by identity, if there is one.
    Pod(Index),
    /// A pod that does not exist.
    UnknownPod,
    /// An address at the edge of a block, or of nobody.
    Address(Index),
}

#[derive(Clone, Debug)]
enum TrafficSeed {
    /// A port at the edge of what a rule names.
    Port(Protocol, Index),
    /// A port that the destination pod, if it is one, has a name for.
    Named(Index),
    Icmp,
    Icmpv6(u8),
    Other(u8),
}

#[derive(Clone, Copy, Debug)]
enum OwnNodeSeed {
    Source,
    Destination,
}

impl ConnectionSeed {
    /// The connection that this is in `cluster`.
    #[must_use]
    pub fn resolve(&self, cluster: &Cluster) -> Connection {
        let mut source = self.source.resolve(cluster, self.family);
        let mut destination = self.destination.resolve(cluster, self.family);
        let traffic = self.traffic.resolve(cluster, self.family, &destination);
        let (node_end, pod_end) = match self.own_node {
            None => return Connection::new(source, destination, traffic),
            Some(OwnNodeSeed::Source) => (&mut source, &destination),
            Some(OwnNodeSeed::Destination) => (&mut destination, &source),
        };
        let owners = cluster.address_owners();
        let pod = match pod_end {
            End::Address(address) => owners.get(address).copied(),
            End::Pod(id) => Some(id),
        };
        let Some(pod) = pod.and_then(|id| cluster.pod(id)).filter(|pod| pod.is_managed()) else {
            return Connection::new(source, destination, traffic);
        };
        let node = pod.node().and_then(|name| cluster.node(name));
        let of_node = node.and_then(|node| {
            node.addresses().iter().copied().find(|&a| Family::of(a) == self.family)
        });
        *node_end = End::Address(of_node.unwrap_or(match self.family {
            Family::V4 => Ipv4Addr::new(192, 168, 0, 99).into(),
            Family::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99).into(),
        }));
        Connection::new(source, destination, traffic).with_own_node()
    }
}

impl EndSeed {
    fn resolve(&self, cluster: &Cluster, family: Family) -> End {
        match self {
            Self::PodAddress(index) => {
                let addresses: Vec<IpAddr> = cluster
                    .pods()
                    .flat_map(|pod| pod.addresses().iter().copied())
                    .filter(|&address| Family::of(address) == family)
                    .collect();
                if addresses.is_empty() {
                    Self::Address(*index).resolve(cluster, family)
                } else {
                    End::Address(*index.get(&addresses))
                }
            }
            Self::Pod(index) => {
                let pods: Vec<&PodId> = cluster.pods().map(Pod::id).collect();
                if pods.is_empty() {
                    Self::UnknownPod.resolve(cluster, family)
                } else {
                    End::Pod((*index.get(&pods)).clone())
                }
            }
            Self::UnknownPod => End::Pod(PodId::new(NAMESPACES[0], "unknown")),
            Self::Address(index) => {
                End::Address(*index.get(&interesting_addresses(cluster, family)))
            }
        }
    }
}

impl TrafficSeed {
    fn resolve(&self, cluster: &Cluster, family: Family, destination: &End) -> Traffic {
        match self {
            Self::Port(protocol, index) => {
                Traffic::Port(*protocol, *index.get(&interesting_ports(cluster)))
            }
            Self::Named(index) => {
                let here = |pod: &&Pod| match destination {
                    End::Address(address) => pod.addresses().contains(address),
                    End::Pod(id) => pod.id() == id,
                };
                let named: Vec<_> = cluster.pods().filter(here).flat_map(Pod::ports).collect();
                if named.is_empty() {
                    Self::Port(Protocol::Tcp, *index).resolve(cluster, family, destination)
                } else {
                    let port = index.get(&named);
                    Traffic::Port(port.protocol, port.port)
                }
            }
            // Each family has its own.
            Self::Icmp | Self::Icmpv6(_) if family == Family::V4 => Traffic::Other(1),
            Self::Icmp => Traffic::Icmpv6(ICMPV6_TYPES[0]),
            Self::Icmpv6(kind) => Traffic::Icmpv6(*kind),
            Self::Other(number) => Traffic::Other(*number),
        }
    }
}

/// Connections that are still to be made to fit a cluster.
pub fn connection_seeds() -> impl Strategy<Value = ConnectionSeed> {
    let end = || {
        prop_oneof![
            16 => any::<Index>().prop_map(EndSeed::PodAddress),
            5 => any::<Index>().prop_map(EndSeed::Pod),
            7 => any::<Index>().prop_map(EndSeed::Address),
            1 => Just(EndSeed::UnknownPod),
        ]
    };
    let traffic = prop_oneof![
        8 => (protocols(), any::<Index>()).prop_map(|(p, i)| TrafficSeed::Port(p, i)),
        6 => any::<Index>().prop_map(TrafficSeed::Named),
        1 => Just(TrafficSeed::Icmp),
        1 => select(&ICMPV6_TYPES[..]).prop_map(TrafficSeed::Icmpv6),
        1 => select(&OTHER_PROTOCOLS[..]).prop_map(TrafficSeed::Other),
    ];
    let own_node = prop_oneof![
        8 => Just(None),
        1 => Just(Some(OwnNodeSeed::Source)),
        1 => Just(Some(OwnNodeSeed::Destination)),
    ];
    let family = prop_oneof![3 => Just(Family::V4), 2 => Just(Family::V6)];
    (family, end(), end(), traffic, own_node).prop_map(
        |(family, source, destination, traffic, own_node)| ConnectionSeed {
            family,
            source,
            destination,
            traffic,
            own_node,
        },
    )
}

/// A cluster and connections that fit it.
pub fn clusters_with_connections() -> impl Strategy<Value = (Cluster, Vec<Connection>)> {
    (clusters(), vec(connection_seeds(), 1..=24)).prop_map(|(cluster, seeds)| {
        let connections = seeds.iter().map(|seed| seed.resolve(&cluster)).collect();
        (cluster, connections)
    })
}
