//! Policies of all tiers, and the peers and ports of their rules.

use super::label::{pod_selections, selectors};
use super::vocabulary::{
    NODES, POLICY_NAMES, PORT_NAMES, PORTS, external_addresses, names, namespace_names,
    node_addresses, pod_address,
};
use ipnet::IpNet;
use netpol_core::{
    Family, IpBlock, Match, Peer, PodSelection, Policy, PolicyRule, PortEntry, Protocol,
    TrafficMatch, Verdict,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

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
