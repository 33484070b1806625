//! Clusters, connections and edits for property tests with proptest.
//!
//! Every vocabulary is small, so that what is drawn meets: labels are selected, addresses collide, blocks end between
//! pods, names of ports mean several numbers. What depends on another draw (a connection on the cluster, an edit on
//! what is there to edit) is drawn as a *seed* and resolved afterwards, so that both parts shrink on their own.
//!
//! Two things are never drawn, because no packet has them: addresses of different families at the two ends, and
//! TCP, UDP, SCTP or ICMPv6 as [`Traffic::Other`].

pub mod admin;
pub mod legacy;

use ipnet::IpNet;
use netpol_core::{
    Cluster, ContainerPort, Established, Family, IpBlock, Labels, Match, NAMESPACE_NAME_LABEL,
    Namespace, NamespaceName, NamespaceSelection, Node, NodeName, Operator, Options,
    OtherProtocols, OwnNodeEgress, Peer, Phase, Pod, PodId, PodSelection, Policy, PolicyId,
    PolicyRule, PortEntry, Protocol, Requirement, Selector, TrafficMatch, Verdict,
};
use netpol_sim::{Connection, End, Traffic};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const NAMESPACES: [&str; 4] = ["x", "y", "z", "w"];
const PODS: [&str; 4] = ["a", "b", "c", "d"];
const NODES: [&str; 2] = ["node-1", "node-2"];
const LABEL_KEYS: [&str; 3] = ["app", "env", "tier"];
const LABEL_VALUES: [&str; 3] = ["", "a", "b"];
const PORT_NAMES: [&str; 3] = ["web", "dns", "none"];
const PORTS: [u16; 7] = [80, 81, 53, 8080, 1, 65534, 65535];
const POLICY_NAMES: [&str; 4] = ["p", "q", "r", "s"];
/// Protocols other than those that a policy can name, and ICMPv6: GRE, IPv4 in IPv6, IGMP, ESP, the least, the greatest.
const OTHER_PROTOCOLS: [u8; 6] = [47, 4, 2, 50, 0, 255];
/// Echo, an error, and neighbor discovery with what surrounds it.
const ICMPV6_TYPES: [u8; 8] = [128, 129, 2, 132, 133, 135, 137, 138];

/// The address of a pod: the low byte says which of few.
fn pod_address(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, number / 8, number % 8).into(),
        Family::V6 => {
            let (high, low) = (u16::from(number / 8), u16::from(number % 8));
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, high, low).into()
        }
    }
}

fn node_addresses(name: &str) -> [IpAddr; 2] {
    let number = if name == NODES[0] { 1 } else { 2 };
    [
        Ipv4Addr::new(192, 168, 0, number).into(),
        Ipv6Addr::new(0xfd00, 0x192, 0, 0, 0, 0, 0, u16::from(number)).into(),
    ]
}

/// Addresses of nobody, the first and the last of each family among them.
fn external_addresses(family: Family) -> [IpAddr; 5] {
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
fn namespace_names() -> impl Strategy<Value = &'static str> {
    let [x, y, z, w] = NAMESPACES;
    prop_oneof![4 => Just(x), 3 => Just(y), 1 => Just(z), 1 => Just(w)]
}

fn names(from: &'static [&'static str]) -> impl Strategy<Value = &'static str> + Clone {
    select(from)
}

/// Labels of an object: few keys, some of them absent, some with an empty value.
pub fn labels() -> impl Strategy<Value = Labels> {
    let value = || option::weighted(0.6, names(&LABEL_VALUES));
    [value(), value(), value()].prop_map(|values| {
        LABEL_KEYS.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect()
    })
}

fn requirements(
    keys: &'static [&'static str],
    values: &'static [&'static str],
) -> impl Strategy<Value = Requirement> {
    let some = move || {
        let sizes = prop_oneof![
            7 => subsequence(values, 1),
            4 => subsequence(values, 2),
            1 => subsequence(values, 0),
        ];
        sizes.prop_map(|values| values.into_iter().map(Arc::from).collect())
    };
    let operator = prop_oneof![
        4 => some().prop_map(Operator::In),
        2 => some().prop_map(Operator::NotIn),
        1 => Just(Operator::Exists),
        1 => Just(Operator::DoesNotExist),
    ];
    (names(keys), operator).prop_map(|(key, operator)| Requirement::new(key, operator))
}

/// Selectors of [`labels`], often the empty one; with no, one or two requirements.
pub fn selectors() -> impl Strategy<Value = Selector> {
    let requirements = |n| vec(requirements(&LABEL_KEYS, &LABEL_VALUES), n).prop_map(Selector::new);
    prop_oneof![5 => requirements(0), 4 => requirements(1), 1 => requirements(2)]
}

/// Selectors of the labels of [`namespaces`]: those of [`selectors`], and by name.
pub fn namespace_selectors() -> impl Strategy<Value = Selector> {
    prop_oneof![
        3 => selectors(),
        1 => requirements(&[NAMESPACE_NAME_LABEL], &NAMESPACES).prop_map(|r| Selector::new([r])),
    ]
}

/// Pods of one namespace, or of those that a selector selects.
pub fn pod_selections() -> impl Strategy<Value = PodSelection> {
    let namespaces = prop_oneof![
        2 => namespace_selectors().prop_map(NamespaceSelection::Matching),
        1 => namespace_names().prop_map(|name| NamespaceSelection::Named(name.into())),
    ];
    (namespaces, selectors()).prop_map(|(namespaces, pods)| PodSelection { namespaces, pods })
}

/// A namespace of this name: with its name as a label, or as old API servers stored it, without.
fn namespace(name: &'static str) -> impl Strategy<Value = Namespace> {
    (labels(), prop::bool::weighted(0.9)).prop_map(move |(labels, name_label)| {
        if name_label {
            Namespace::new(name, labels)
        } else {
            Namespace::without_name_label(name, labels)
        }
    })
}

/// Namespaces.
pub fn namespaces() -> impl Strategy<Value = Namespace> {
    prop_oneof![
        namespace(NAMESPACES[0]),
        namespace(NAMESPACES[1]),
        namespace(NAMESPACES[2]),
        namespace(NAMESPACES[3]),
    ]
}

/// Nodes: of one family or of both.
pub fn nodes() -> impl Strategy<Value = Node> {
    let families =
        prop_oneof![3 => Just((true, true)), 1 => Just((true, false)), 1 => Just((false, true))];
    (names(&NODES), labels(), families).prop_map(|(name, labels, (v4, v6))| {
        let [a4, a6] = node_addresses(name);
        Node::new(name, labels, v4.then_some(a4).into_iter().chain(v6.then_some(a6)))
    })
}

/// Addresses of a pod: of both families, of one, several of one, or none yet. Different pods may draw the same.
fn pod_addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    let number = || 0u8..12;
    let of = |family| move |number| pod_address(family, number);
    prop_oneof![
        6 => (number(), number()).prop_map(move |(a, b)| vec![of(Family::V4)(a), of(Family::V6)(b)]),
        3 => number().prop_map(move |a| vec![of(Family::V4)(a)]),
        2 => number().prop_map(move |a| vec![of(Family::V6)(a)]),
        1 => vec(number().prop_map(of(Family::V4)), 2..=3),
        2 => Just(vec![]),
    ]
}

fn container_ports() -> impl Strategy<Value = Vec<ContainerPort>> {
    let port = (names(&PORT_NAMES[..2]), protocols(), select(&PORTS[..4]))
        .prop_map(|(name, protocol, port)| ContainerPort { name: name.into(), protocol, port });
    vec(port, 0..=4)
}

fn phases() -> impl Strategy<Value = Phase> {
    prop_oneof![12 => Just(Phase::Running), 3 => Just(Phase::Pending), 1 => Just(Phase::Finished)]
}

/// Pods in every state: running, pending, finished, on the host network, with and without addresses, node, named ports.
pub fn pods() -> impl Strategy<Value = Pod> {
    let identity = (namespace_names(), names(&PODS), option::of(0u8..3), option::of(0i64..3));
    // A pod on the host network usually reports its node's addresses.
    let place = (
        option::weighted(0.8, names(&NODES)),
        prop::bool::weighted(0.06),
        prop::bool::weighted(0.7),
    );
    (identity, labels(), pod_addresses(), container_ports(), place, phases()).prop_map(
        |(identity, labels, mut addresses, ports, place, phase)| {
            let (namespace, name, uid, created) = identity;
            let (node, host_network, reports_node) = place;
            if let (Some(node), true, true) = (node, host_network, reports_node) {
                addresses = node_addresses(node).into();
            }
            let mut pod = Pod::new(PodId::new(namespace, name), labels)
                .with_addresses(addresses)
                .with_ports(ports)
                .with_phase(phase)
                .with_host_network(host_network);
            if let Some(node) = node {
                pod = pod.with_node(node);
            }
            if let Some(uid) = uid {
                pod = pod.with_uid(uid.to_string());
            }
            if let Some(created) = created {
                pod = pod.with_created(created);
            }
            pod
        },
    )
}

/// TCP, UDP and SCTP.
pub fn protocols() -> impl Strategy<Value = Protocol> {
    prop_oneof![4 => Just(Protocol::Tcp), 2 => Just(Protocol::Udp), 1 => Just(Protocol::Sctp)]
}

/// Networks of both families and of every size, mostly around the pods. Some have host bits.
pub fn networks() -> impl Strategy<Value = IpNet> {
    let number = || 0u8..12;
    let external = || any::<Index>();
    let address = move |family: Family| {
        prop_oneof![
            5 => number().prop_map(move |n| pod_address(family, n)),
            1 => external().prop_map(move |i| *i.get(&external_addresses(family))),
            1 => names(&NODES).prop_map(move |node| {
                let [v4, v6] = node_addresses(node);
                match family {
                    Family::V4 => v4,
                    Family::V6 => v6,
                }
            }),
        ]
    };
    let v4 = (address(Family::V4), select(&[32u8, 30, 29, 24, 31, 8, 1, 0][..]));
    let v6 = (address(Family::V6), select(&[128u8, 127, 126, 125, 112, 8, 1, 0][..]));
    // The lengths fit their family, so the last resort is never taken.
    prop_oneof![3 => v4, 2 => v6].prop_map(|(address, length)| {
        IpNet::new(address, length).unwrap_or_else(|_| IpNet::from(address))
    })
}

/// Blocks with and without holes: inside, larger than the block, of the other family.
pub fn blocks() -> impl Strategy<Value = IpBlock> {
    (networks(), vec(networks(), 0..=2)).prop_map(|(cidr, except)| IpBlock { cidr, except })
}

/// Peers of a rule.
pub fn peers() -> impl Strategy<Value = Peer> {
    prop_oneof![
        3 => pod_selections().prop_map(Peer::Pods),
        2 => blocks().prop_map(Peer::Network),
        1 => selectors().prop_map(Peer::Nodes),
    ]
}

/// Entries of a rule's port list; ranges may be backwards, names may be nobody's.
pub fn port_entries() -> impl Strategy<Value = PortEntry> {
    let port = || select(&PORTS[..]);
    prop_oneof![
        1 => protocols().prop_map(PortEntry::Protocol),
        2 => (protocols(), port())
            .prop_map(|(protocol, p)| PortEntry::Range { protocol, first: p, last: p }),
        2 => (protocols(), port(), port())
            .prop_map(|(protocol, first, last)| PortEntry::Range { protocol, first, last }),
        3 => (protocols(), prop_oneof![4 => names(&PORT_NAMES[..2]), 1 => names(&PORT_NAMES[2..])])
            .prop_map(|(protocol, name)| PortEntry::Named { protocol, name: name.into() }),
    ]
}

/// What a rule matches, with all three kinds of list: anything, some, nothing.
pub fn traffic_matches() -> impl Strategy<Value = TrafficMatch> {
    let peers = prop_oneof![
        6 => Just(Match::Any),
        12 => vec(peers(), 1..=3).prop_map(Match::OneOf),
        1 => Just(Match::OneOf(vec![])),
    ];
    let ports = prop_oneof![
        8 => Just(Match::Any),
        10 => vec(port_entries(), 1..=3).prop_map(Match::OneOf),
        1 => Just(Match::OneOf(vec![])),
    ];
    (peers, ports).prop_map(|(peers, ports)| TrafficMatch::new(peers, ports))
}

/// NetworkPolicies.
pub fn network_policies() -> impl Strategy<Value = Policy> {
    let rules = || option::weighted(0.7, vec(traffic_matches(), 0..=2));
    (namespace_names(), names(&POLICY_NAMES), selectors(), rules(), rules()).prop_map(
        |(namespace, name, pods, ingress, egress)| {
            Policy::network_policy(namespace, name, pods, ingress, egress)
        },
    )
}

/// Cluster-wide policies of both tiers, with few priorities.
pub fn cluster_policies() -> impl Strategy<Value = Policy> {
    let verdict = || prop_oneof![Just(Verdict::Allow), Just(Verdict::Deny), Just(Verdict::Pass)];
    let rules = || {
        let rule = (traffic_matches(), verdict());
        vec(rule.prop_map(|(matches, verdict)| PolicyRule { matches, verdict }), 0..=4)
    };
    let subject = prop_oneof![2 => Just(PodSelection::everything()), 3 => pod_selections()];
    let priority = prop_oneof![
        4 => Just(0),
        2 => Just(1),
        1 => Just(10),
        1 => Just(i32::MIN),
        1 => Just(i32::MAX),
    ];
    (any::<bool>(), names(&POLICY_NAMES), priority, subject, rules(), rules()).prop_map(
        |(baseline, name, priority, subject, ingress, egress)| {
            let new = if baseline { Policy::baseline } else { Policy::admin };
            new(name, priority, subject, ingress, egress)
        },
    )
}

/// Policies of all three tiers.
pub fn policies() -> impl Strategy<Value = Policy> {
    prop_oneof![2 => network_policies(), 1 => cluster_policies()]
}

/// Every combination of options.
pub fn options() -> impl Strategy<Value = Options> {
    any::<(bool, bool, bool)>().prop_map(|(other, own_node, established)| {
        let mut options = Options::default();
        if other {
            options = options.with_other_protocols(OtherProtocols::Allow);
        }
        if own_node {
            options = options.with_own_node_egress(OwnNodeEgress::Allow);
        }
        if established {
            options = options.with_established(Established::ReEvaluate);
        }
        options
    })
}

/// Clusters: up to four namespaces, some of them without an object, eight pods and ten policies.
pub fn clusters() -> impl Strategy<Value = Cluster> {
    let known = |name| option::weighted(0.85, namespace(name));
    let namespaces = NAMESPACES.map(known);
    let policies = (vec(network_policies(), 0..=6), vec(cluster_policies(), 0..=4));
    (namespaces, vec(nodes(), 0..=2), vec(pods(), 1..=8), policies).prop_map(
        |(namespaces, nodes, pods, (network, cluster_wide))| {
            let mut cluster = Cluster::new();
            for namespace in namespaces.into_iter().flatten() {
                cluster.insert_namespace(namespace);
            }
            for node in nodes {
                cluster.insert_node(node);
            }
            for pod in pods {
                cluster.insert_pod(pod);
            }
            for policy in network.into_iter().chain(cluster_wide) {
                cluster.insert_policy(policy);
            }
            cluster
        },
    )
}

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

/// One thing that happens to a cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "what can be done to a cluster")]
pub enum Edit {
    /// A pod appears, or an existing one becomes this.
    InsertPod(Pod),
    /// A pod goes.
    RemovePod(PodId),
    /// A namespace appears, or an existing one becomes this.
    InsertNamespace(Namespace),
    /// A namespace object goes; its pods and policies stay.
    RemoveNamespace(NamespaceName),
    /// A node appears, or an existing one becomes this.
    InsertNode(Node),
    /// A node goes.
    RemoveNode(NodeName),
    /// A policy appears, or an existing one becomes this.
    InsertPolicy(Policy),
    /// A policy goes.
    RemovePolicy(PolicyId),
}

impl Edit {
    /// Makes it happen.
    pub fn apply(&self, cluster: &mut Cluster) {
        match self {
            Self::InsertPod(pod) => drop(cluster.insert_pod(pod.clone())),
            Self::RemovePod(id) => drop(cluster.remove_pod(id)),
            Self::InsertNamespace(namespace) => {
                drop(cluster.insert_namespace(namespace.clone()));
            }
            Self::RemoveNamespace(name) => drop(cluster.remove_namespace(name)),
            Self::InsertNode(node) => drop(cluster.insert_node(node.clone())),
            Self::RemoveNode(name) => drop(cluster.remove_node(name)),
            Self::InsertPolicy(policy) => drop(cluster.insert_policy(policy.clone())),
            Self::RemovePolicy(id) => drop(cluster.remove_policy(id)),
        }
    }
}

/// An edit that is still to be made to fit a cluster.
#[derive(Clone, Debug)]
pub struct EditSeed(EditKind);

#[derive(Clone, Debug)]
enum EditKind {
    Insert(Edit),
    RemovePod(Index),
    RelabelPod(Index, Labels),
    MovePod(Index, Vec<IpAddr>),
    AgePod(Index, Phase),
    RenamePorts(Index, Vec<ContainerPort>),
    RelabelNamespace(Index, Labels),
    RemoveNamespace(Index),
    RemoveNode(Index),
    RemovePolicy(Index),
}

impl EditSeed {
    /// The edit that this is in `cluster`; none if there is nothing of the kind to edit.
    #[must_use]
    pub fn resolve(&self, cluster: &Cluster) -> Option<Edit> {
        fn pick<'a, T>(index: Index, of: impl ExactSizeIterator<Item = &'a T>) -> Option<&'a T> {
            let all: Vec<&T> = of.collect();
            (!all.is_empty()).then(|| *index.get(&all))
        }
        let pod = |index: &Index| pick(*index, cluster.pods()).cloned();
        let namespace = |index: &Index| pick(*index, cluster.namespaces());
        Some(match &self.0 {
            EditKind::Insert(edit) => edit.clone(),
            EditKind::RemovePod(i) => Edit::RemovePod(pod(i)?.id().clone()),
            EditKind::RelabelPod(i, to) => Edit::InsertPod(pod(i)?.with_labels(to.clone())),
            EditKind::MovePod(i, to) => Edit::InsertPod(pod(i)?.with_addresses(to.iter().copied())),
            EditKind::AgePod(i, phase) => Edit::InsertPod(pod(i)?.with_phase(*phase)),
            EditKind::RenamePorts(i, to) => Edit::InsertPod(pod(i)?.with_ports(to.iter().cloned())),
            EditKind::RelabelNamespace(i, to) => {
                let name = namespace(i)?.name().clone();
                Edit::InsertNamespace(Namespace::new(name.as_str(), to.clone()))
            }
            EditKind::RemoveNamespace(i) => Edit::RemoveNamespace(namespace(i)?.name().clone()),
            EditKind::RemoveNode(i) => Edit::RemoveNode(pick(*i, cluster.nodes())?.name().clone()),
            EditKind::RemovePolicy(i) => {
                Edit::RemovePolicy(pick(*i, cluster.policies())?.id().clone())
            }
        })
    }
}

/// Edits that are still to be made to fit a cluster.
pub fn edit_seeds() -> impl Strategy<Value = EditSeed> {
    let index = any::<Index>;
    prop_oneof![
        3 => pods().prop_map(|pod| EditKind::Insert(Edit::InsertPod(pod))),
        2 => index().prop_map(EditKind::RemovePod),
        3 => (index(), labels()).prop_map(|(i, to)| EditKind::RelabelPod(i, to)),
        2 => (index(), pod_addresses()).prop_map(|(i, to)| EditKind::MovePod(i, to)),
        2 => (index(), phases()).prop_map(|(i, to)| EditKind::AgePod(i, to)),
        1 => (index(), container_ports()).prop_map(|(i, to)| EditKind::RenamePorts(i, to)),
        1 => namespaces().prop_map(|n| EditKind::Insert(Edit::InsertNamespace(n))),
        2 => (index(), labels()).prop_map(|(i, to)| EditKind::RelabelNamespace(i, to)),
        1 => index().prop_map(EditKind::RemoveNamespace),
        1 => nodes().prop_map(|node| EditKind::Insert(Edit::InsertNode(node))),
        1 => index().prop_map(EditKind::RemoveNode),
        3 => policies().prop_map(|policy| EditKind::Insert(Edit::InsertPolicy(policy))),
        2 => index().prop_map(EditKind::RemovePolicy),
    ]
    .prop_map(EditSeed)
}

/// A cluster and edits that are to be made one after the other.
pub fn clusters_with_edits() -> impl Strategy<Value = (Cluster, Vec<Edit>)> {
    (clusters(), vec(edit_seeds(), 1..=8)).prop_map(|(cluster, seeds)| {
        let mut state = cluster.clone();
        let edits = seeds
            .iter()
            .filter_map(|seed| {
                let edit = seed.resolve(&state)?;
                edit.apply(&mut state);
                Some(edit)
            })
            .collect();
        (cluster, edits)
    })
}
