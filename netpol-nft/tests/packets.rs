//! Counters, with real packets. Everything that other back ends do, too, is tried in netpol-conformance. Needs root, nft and
//! iproute2.
#![expect(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

use netpol_core::{Backend, Direction, Policy, Scope, compile};
use netpol_host::Host;
use netpol_lab::{Lab, Place, Plan, Probe, Traffic};
use netpol_nft::{NftOptions, Nftables};
use netpol_testkit::samples::{is, shop};
use std::net::IpAddr;

const DNS: Traffic = Traffic::Port(netpol_core::Protocol::Udp, 53);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Counters name the policy and the pod.
#[test]
fn denied_packets_are_counted() {
    let mut cluster = shop();
    let deny = Policy::network_policy("shop", "closed", is("db"), Some(vec![]), None);
    cluster.insert_policy(deny);
    let plan = Plan::of(&cluster, None);
    let mut lab = Lab::new(&plan).unwrap();
    let ruleset = compile(&plan.complete(&cluster), Scope::Cluster).unwrap();
    let mut nftables = Nftables::new(Host::here(), NftOptions::default());
    lab.run(&Place::Node, || nftables.replace(&ruleset).unwrap()).unwrap();
    let count = |lab: &Lab| -> u64 {
        let denied = lab.run(&Place::Node, || nftables.denied().unwrap()).unwrap();
        denied["isolated, ingress: NetworkPolicy shop/closed"].packets
    };
    assert_eq!(count(&lab), 0);
    for _ in 0..3 {
        let fates = lab.probe(&[Probe::new(ip("10.0.0.1"), ip("10.0.0.3"), DNS)]).unwrap();
        assert!(!fates[0].delivered);
    }
    // The lab sends what did not arrive twice.
    assert!((3..=6).contains(&count(&lab)), "{}", count(&lab));
    let by_address = lab.run(&Place::Node, || nftables.denied_by_address().unwrap()).unwrap();
    assert_eq!(by_address[&(Direction::Ingress, ip("10.0.0.3"))].packets, count(&lab));
    assert_eq!(by_address[&(Direction::Ingress, ip("fd00::3"))].packets, 0);
    assert_eq!(by_address.len(), 2, "only what is policed");
}
