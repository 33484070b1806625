//! Every packet meets the fate that the specification says.

use crate::arena::Arena;
use crate::candidate::{Candidate, Settings};
use crate::worlds::{DNS, behind, deny_all, ip, network, pod, two_pods};
use netpol_core::{
    Cluster, Family, Match, NodeName, Options, OwnNodeEgress, PodId, PodSelection, Policy,
    PolicyRule, Protocol, Scope, TrafficMatch, Verdict,
};
use netpol_host::{Denial, HostOptions};
use netpol_lab::{Place, Plan, Probe, Traffic, is_routable};
use netpol_testkit::samples::is;
use netpol_testkit::strategies::{clusters, interesting_addresses, interesting_ports, options};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// So many packets are sent in each.
const PACKETS: usize = 600;

/// Random clusters of all tiers, on one node or on several, with all options: each packet between local, remote and external
/// ends, of every kind, in both families. What the kernel lists meanwhile is proved, for candidates whose rules can be read
/// ([`Candidate::own_rules`]).
pub fn random_clusters(candidate: &dyn Candidate) {
    let config = ProptestConfig {
        cases: candidate.random_clusters(),
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let (compared, proved) = (Cell::new(0), Cell::new(0));
    let strategy = (clusters(), settings(candidate), any::<bool>(), any::<bool>());
    let done = TestRunner::new(config).run(&strategy, |(cluster, settings, one_node, known)| {
        let one_node = one_node && candidate.judge().is_none();
        let node = cluster.nodes().next().map(|node| node.name().clone()).filter(|_| one_node);
        let plan = plan(&cluster, node.as_ref());
        let cluster = plan.complete(&cluster);
        let cluster = if known { cluster } else { behind(&cluster, None) };
        let managed = cluster.pods().filter(|pod| pod.is_managed());
        let local = managed.filter(|pod| node.is_none() || pod.node() == node.as_ref());
        let local = local.map(|pod| pod.id().clone()).collect();
        let mut arena = Arena::new(candidate, &plan, settings);
        arena.enforce(&cluster, node.as_ref().map_or(Scope::Cluster, Scope::Node));
        let some = compare(&mut arena, &cluster, &local).map_err(TestCaseError::fail)?;
        compared.set(compared.get() + some);
        let proof = arena.proved(&cluster, node.as_ref()).map_err(TestCaseError::fail)?;
        proved.set(proved.get() + u32::from(proof));
        Ok(())
    });
    println!(
        "{}: {} packets compared, {} clusters proved",
        candidate.name(),
        compared.get(),
        proved.get()
    );
    if let Err(error) = done {
        panic!("{}: {error}", candidate.name());
    }
    if candidate.own_rules().is_some() {
        assert_eq!(proved.get(), candidate.random_clusters(), "{}", candidate.name());
    }
}

fn settings(candidate: &dyn Candidate) -> impl Strategy<Value = Settings> + use<> {
    let abilities = candidate.abilities();
    (options(), any::<bool>(), any::<bool>()).prop_map(move |(policy, reject, unguarded)| {
        let denial = if reject && abilities.rejects { Denial::Reject } else { Denial::Drop };
        let host = HostOptions::default().with_policy(policy).with_denial(denial);
        Settings { host, unguarded }
    })
}

/// A lab for a cluster of the strategies.
fn plan(cluster: &Cluster, node: Option<&NodeName>) -> Plan {
    let plan = Plan::of(cluster, node);
    let owners = cluster.address_owners();
    let external = Family::ALL.into_iter().flat_map(|family| {
        let mut addresses = interesting_addresses(cluster, family);
        addresses.retain(|address| {
            let of_node = cluster.nodes().any(|node| node.addresses().contains(address));
            is_routable(*address) && !owners.contains_key(address) && !of_node
        });
        let step = addresses.len() / 4 + 1;
        addresses.into_iter().step_by(step)
    });
    let external: Vec<IpAddr> = external.collect();
    plan.with_external(external)
}

/// Packets between all that is in the lab, every kind of traffic; not more than so many.
fn probes(arena: &Arena<'_>, cluster: &Cluster, most: usize) -> Vec<Probe> {
    let ports = interesting_ports(cluster);
    let addresses: Vec<(IpAddr, &Place)> = arena.addresses().collect();
    let outside = |place: &Place| !matches!(place, Place::Pod(_));
    let mut probes = Vec::new();
    for &(source, from) in &addresses {
        for &(destination, to) in &addresses {
            if source.is_ipv4() != destination.is_ipv4()
                || from == to
                || outside(from) && outside(to)
            {
                continue;
            }
            let mut traffic = vec![Traffic::echo(destination), Traffic::Other(47)];
            if destination.is_ipv6() {
                traffic.extend([133, 135, 137, 138].map(Traffic::Icmpv6));
            }
            for protocol in Protocol::ALL {
                traffic.extend(ports.iter().map(|&port| Traffic::Port(protocol, port)));
            }
            traffic.retain(|traffic| traffic.can_be_sent_to(destination));
            probes.extend(traffic.into_iter().map(|t| Probe::new(source, destination, t)));
        }
    }
    // A step without a divisor in common takes some of everything.
    let step = (probes.len() / most.max(1)).max(1) | 1;
    probes.into_iter().step_by(step).collect()
}

fn compare(
    arena: &mut Arena<'_>,
    cluster: &Cluster,
    local: &BTreeSet<PodId>,
) -> Result<usize, String> {
    arena.forget_connections();
    let probes = probes(arena, cluster, PACKETS);
    let delivered = arena.delivered(&probes);
    let mut compared = 0;
    for (probe, delivered) in probes.iter().zip(delivered) {
        // Without ports, packets there and back are one flow to conntrack.
        let allowed = arena.expected(cluster, local, probe);
        let back = Probe::new(probe.destination(), probe.source(), probe.traffic());
        let one_flow = matches!(probe.traffic(), Traffic::Other(_));
        let Some(delivered) = delivered else { continue };
        if one_flow && arena.expected(cluster, local, &back) != allowed {
            continue;
        }
        compared += 1;
        if delivered != allowed {
            return Err(format!("{probe}: delivered {delivered}, expected {allowed}"));
        }
    }
    Ok(compared)
}

/// Few networks, many, of few lengths and of many (back ends lay them out in different ways): the first and the last address
/// of each, and their neighbors, in both directions.
pub fn networks_at_their_edges(candidate: &dyn Candidate) {
    let lists: [(&str, Vec<String>); 4] = [
        (
            "written out",
            ["203.0.113.64/26", "203.0.113.7/32", "2001:db8:7::/48"].map(str::to_owned).into(),
        ),
        ("everything", vec!["0.0.0.0/0".to_owned(), "2001:db8::/32".to_owned()]),
        ("by length", {
            let v4 = (0..16).map(|n| format!("198.51.{}.{}/28", 100 + n / 8, 32 * (n % 8)));
            let hosts = (0..4).map(|n| format!("203.0.113.{}/32", 3 * n + 5));
            let v6 = (0..12).map(|n| format!("2001:db8:{:x}::/48", 2 * n));
            v4.chain(hosts).chain(v6).chain(["2001:db9::7/128".to_owned()]).collect()
        }),
        ("an interval set", {
            let v4 = (0..8).map(|n| format!("198.51.100.{}/{}", 32 * n, 27 + n % 6));
            let v6 = (0..8).map(|n| format!("2001:db8:{:x}::/{}", 16 * n, 44 + n % 6));
            v4.chain(["203.0.113.9/32".to_owned()])
                .chain(v6)
                .chain(["2001:db9::/33".to_owned()])
                .collect()
        }),
    ];
    for (kind, cidrs) in lists {
        let (plan, mut cluster) = two_pods();
        let mut external = BTreeSet::new();
        let mut peers = Vec::new();
        for cidr in &cidrs {
            let net: ipnet::IpNet = cidr.parse().unwrap();
            let range = netpol_core::AddressSet::from(net);
            let (first, last) = range.ranges().next().unwrap();
            external.extend([first, last]);
            external.extend(neighbors(first).into_iter().chain(neighbors(last)));
            peers.push(network(cidr));
        }
        let rules = vec![TrafficMatch::new(Match::OneOf(peers), Match::Any)];
        let policy =
            Policy::network_policy("shop", "nets", is("b"), Some(rules.clone()), Some(rules));
        cluster.insert_policy(policy);
        external.retain(|address| {
            is_routable(*address) && !cluster.address_owners().contains_key(address)
        });
        let plan = plan.with_external(external.iter().copied());
        let mut arena = Arena::new(candidate, &plan, Settings::default());
        arena.enforce(&cluster, Scope::Cluster);
        let local = [pod("a"), pod("b")].into();
        let mut probes = Vec::new();
        for &address in &external {
            let b = ip(if address.is_ipv4() { "10.0.0.2" } else { "fd00::2" });
            probes.extend([Probe::new(address, b, DNS), Probe::new(b, address, DNS)]);
        }
        let delivered = arena.delivered(&probes);
        let mut allowed = 0;
        for (probe, delivered) in probes.iter().zip(delivered) {
            let expected = arena.expected(&cluster, &local, probe);
            assert_eq!(delivered, Some(expected), "{}, {kind}: {probe}", candidate.name());
            allowed += usize::from(expected);
        }
        assert!(allowed > 0 && (allowed < probes.len() || kind == "everything"), "{kind}");
    }
}

/// The addresses beside this one.
fn neighbors(address: IpAddr) -> Vec<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            [address.to_bits().saturating_sub(1), address.to_bits().saturating_add(1)]
                .map(|bits| std::net::Ipv4Addr::from_bits(bits).into())
                .into()
        }
        IpAddr::V6(address) => {
            [address.to_bits().saturating_sub(1), address.to_bits().saturating_add(1)]
                .map(|bits| std::net::Ipv6Addr::from_bits(bits).into())
                .into()
        }
    }
}

/// NP-73, NP-74: a pod reaches itself by way of the node, whatever its policies say, whether its device is known, unknown or
/// that of others, too.
pub fn a_pod_and_itself(candidate: &dyn Candidate) {
    let (plan, mut cluster) = two_pods();
    cluster.insert_policy(deny_all("a"));
    cluster.insert_policy(deny_everything());
    let unguarded = Settings { unguarded: true, ..Settings::default() };
    let device = cluster.pod(&pod("a")).and_then(|pod| pod.interface()).map(ToString::to_string);
    let device = device.expect("the lab names devices");
    let mut arena = Arena::new(candidate, &plan, Settings::default());
    for (cluster, settings) in [
        (cluster.clone(), Settings::default()),
        (cluster.clone(), unguarded.clone()),
        (behind(&cluster, None), Settings::default()),
        (behind(&cluster, Some(&device)), unguarded),
    ] {
        arena.restart(settings);
        arena.enforce(&cluster, Scope::Cluster);
        for (from, to, allowed) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.1.1", true),
            ("fd00::1", "fd00::1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("fd00::1", "fd00::2", false),
        ] {
            let probe = Probe::new(ip(from), ip(to), DNS).sent_by(pod("a"));
            let delivered = arena.delivered(&[probe]);
            assert_eq!(delivered, [Some(allowed)], "{} {from} {to}", candidate.name());
        }
    }
}

fn deny_everything() -> Policy {
    let deny = || vec![PolicyRule { matches: TrafficMatch::everything(), verdict: Verdict::Deny }];
    Policy::admin("x", 1, PodSelection::everything(), deny(), deny())
}

/// NP-70, NP-71, CNP-38.
pub fn the_own_node(candidate: &dyn Candidate) {
    let (plan, mut cluster) = two_pods();
    cluster.insert_policy(deny_all("a"));
    let mut with_admin = cluster.clone();
    with_admin.insert_policy(deny_everything());
    let exempt = Options::default().with_own_node_egress(OwnNodeEgress::Allow);
    let exempt = Settings::from(HostOptions::default().with_policy(exempt));
    let mut arena = Arena::new(candidate, &plan, Settings::default());
    for (settings, cluster, expected) in [
        (Settings::default(), &cluster, [true, false]),
        (exempt.clone(), &cluster, [true, true]),
        (Settings::default(), &with_admin, [false, false]),
        (exempt, &with_admin, [false, false]),
    ] {
        arena.restart(settings);
        arena.enforce(cluster, Scope::Cluster);
        for (node, a) in [("192.168.0.1", "10.0.0.1"), ("fd00:9::1", "fd00::1")] {
            let (node, a) = (ip(node), ip(a));
            arena.forget_connections();
            let got = arena.delivered(&[Probe::new(node, a, DNS), Probe::new(a, node, DNS)]);
            assert_eq!(got, expected.map(Some), "{} {a}", candidate.name());
        }
    }
}
