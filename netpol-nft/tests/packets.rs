//! Real packets through the real kernel: is the fate of each what the specification says? Needs root, nft and iproute2.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, too, fail by panicking")]

use netpol_core::{
    Backend, Cluster, Direction, Established, Family, Match, NodeName, Options, OtherProtocols,
    OwnNodeEgress, PodId, PodSelection, Policy, PolicyRule, Protocol, Scope, Selector,
    TrafficMatch, Verdict, compile,
};
use netpol_lab::{Lab, Place, Plan, Probe, Refusal, ReversePath, Toward, Traffic, is_routable};
use netpol_nft::{Denial, Guard, NftOptions, Nftables, Runner};
use netpol_sim::{Connection, End, reference};
use netpol_testkit::strategies::{clusters, interesting_addresses, interesting_ports};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

fn apply(lab: &Lab, nftables: &mut Nftables, cluster: &Cluster, scope: Scope<'_>) {
    let ruleset = compile(cluster, scope).unwrap();
    lab.run(&Place::Node, || nftables.replace(&ruleset).unwrap()).unwrap();
}

fn nftables(options: NftOptions) -> Nftables {
    Nftables::new(Runner::new(), options)
}

fn sim_traffic(traffic: Traffic) -> netpol_sim::Traffic {
    match traffic {
        Traffic::Port(protocol, port) => netpol_sim::Traffic::Port(protocol, port),
        Traffic::Icmpv6(kind) => netpol_sim::Traffic::Icmpv6(kind),
        Traffic::Other(number) => netpol_sim::Traffic::Other(number),
    }
}

/// What the policies of the pods on the node say of a packet.
fn expected(
    lab: &Lab,
    cluster: &Cluster,
    local: &BTreeSet<PodId>,
    probe: &Probe,
    options: &Options,
) -> bool {
    let (source, destination) = (probe.source(), probe.destination());
    let traffic = sim_traffic(probe.traffic());
    let mut connection = Connection::new(End::Address(source), End::Address(destination), traffic);
    let is_node = |address| *lab.place_of(address).unwrap() == Place::Node;
    if is_node(source) || is_node(destination) {
        connection = connection.with_own_node();
    }
    let owners = cluster.address_owners();
    [(Direction::Egress, source), (Direction::Ingress, destination)].into_iter().all(
        |(direction, address)| {
            let here = owners.get(&address).is_some_and(|&pod| local.contains(pod));
            !here || reference::direction_allowed(cluster, &connection, direction, options)
        },
    )
}

/// Packets between all that is in the lab, every kind of traffic; not more than so many.
fn probes(lab: &Lab, cluster: &Cluster, most: usize) -> Vec<Probe> {
    let ports = interesting_ports(cluster);
    let addresses: Vec<IpAddr> =
        lab.places().flat_map(|place| lab.addresses(place)).copied().collect();
    let mut probes = Vec::new();
    for &source in &addresses {
        for &destination in &addresses {
            let (from, to) = (lab.place_of(source).unwrap(), lab.place_of(destination).unwrap());
            let outside = |place: &Place| !matches!(place, Place::Pod(_));
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

/// A lab for a cluster of the strategies, and the cluster as it is there.
fn build(cluster: &Cluster, node: Option<&NodeName>) -> (Lab, Cluster, BTreeSet<PodId>) {
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
    let plan = plan.with_external(external);
    let complete = plan.complete(cluster);
    let mut lab = Lab::new(&plan).unwrap_or_else(|error| panic!("{error}: {plan:?}"));
    lab.set_patience(Duration::from_millis(100));
    let local = complete.pods().filter(|pod| pod.is_managed());
    let local = local.filter(|pod| node.is_none() || pod.node() == node);
    let local = local.map(|pod| pod.id().clone()).collect();
    (lab, complete, local)
}

fn compare(
    lab: &mut Lab,
    cluster: &Cluster,
    local: &BTreeSet<PodId>,
    options: &Options,
) -> Result<usize, String> {
    lab.forget_connections().unwrap();
    let probes = probes(lab, cluster, 700);
    let fates = lab.probe(&probes).unwrap();
    let mut compared = 0;
    for (probe, fate) in probes.iter().zip(fates) {
        // Without ports, packets there and back are one flow to conntrack.
        let allowed = expected(lab, cluster, local, probe, options);
        let back = Probe::new(probe.destination(), probe.source(), probe.traffic());
        let one_flow = matches!(probe.traffic(), Traffic::Other(_));
        if !fate.sent || one_flow && expected(lab, cluster, local, &back, options) != allowed {
            continue;
        }
        compared += 1;
        if fate.delivered != allowed {
            return Err(format!("{probe}: {fate:?}, expected {allowed}"));
        }
    }
    Ok(compared)
}

fn options() -> impl Strategy<Value = NftOptions> {
    let policy = netpol_testkit::strategies::options();
    let guard = prop_oneof![Just(Guard::Off), Just(Guard::Prerouting), Just(Guard::Ingress)];
    (policy, guard, any::<bool>()).prop_map(|(policy, guard, reject)| {
        let denial = if reject { Denial::Reject } else { Denial::Drop };
        NftOptions::default().with_policy(policy).with_guard(guard).with_denial(denial)
    })
}

#[test]
fn every_packet_meets_the_fate_that_the_specification_says() {
    let config = ProptestConfig {
        cases: 60,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut compared = 0;
    let mut runner = TestRunner::new(config);
    let strategy = (clusters(), options(), any::<bool>());
    let counter = std::cell::RefCell::new(&mut compared);
    let done = runner.run(&strategy, |(cluster, options, one_node)| {
        let node = cluster.nodes().next().map(|node| node.name().clone()).filter(|_| one_node);
        let (mut lab, cluster, local) = build(&cluster, node.as_ref());
        let scope = node.as_ref().map_or(Scope::Cluster, Scope::Node);
        apply(&lab, &mut nftables(options.clone()), &cluster, scope);
        let some = compare(&mut lab, &cluster, &local, &options.policy());
        let some = some.map_err(TestCaseError::fail)?;
        **counter.borrow_mut() += some;
        Ok(())
    });
    println!("{compared} packets compared");
    if let Err(error) = done {
        panic!("{error}");
    }
}
