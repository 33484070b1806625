//! Counters and the jump, with real packets and by another reader. Everything that other back ends do, too, is tried in
//! netpol-conformance. Needs root, iptables, ipset and iproute2.
#![expect(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

use iptables::IPTables;
use netpol_core::{Backend, Direction, Policy, Protocol, Ruleset, Scope, compile};
use netpol_host::Host;
use netpol_iptables::{Flavor, Iptables, IptablesOptions};
use netpol_lab::{Lab, Place, Plan, Probe, Traffic};
use netpol_testkit::samples::{is, shop};
use std::net::IpAddr;

const DNS: Traffic = Traffic::Port(Protocol::Udp, 53);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A lab with the shop, and rules that close its pod db.
fn closed_shop() -> (Lab, Ruleset) {
    let mut cluster = shop();
    let deny = Policy::network_policy("shop", "closed", is("db"), Some(vec![]), None);
    cluster.insert_policy(deny);
    let plan = Plan::of(&cluster, None);
    let ruleset = compile(&plan.complete(&cluster), Scope::Cluster).unwrap();
    (Lab::new(&plan).unwrap(), ruleset)
}

fn back_end(flavor: Flavor) -> Iptables {
    Iptables::new(Host::here(), IptablesOptions::default().with_flavor(Some(flavor)))
}

/// Counters name the policy and the pod.
#[test]
fn denied_packets_are_counted() {
    for flavor in Flavor::ALL {
        let (mut lab, ruleset) = closed_shop();
        let mut iptables = back_end(flavor);
        lab.run(&Place::Node, || iptables.replace(&ruleset).unwrap()).unwrap();
        let count = |lab: &Lab| -> u64 {
            let denied = lab.run(&Place::Node, || iptables.denied().unwrap()).unwrap();
            denied["isolated, ingress: NetworkPolicy shop/closed"].packets
        };
        assert_eq!(count(&lab), 0);
        for _ in 0..3 {
            let fates = lab.probe(&[Probe::new(ip("10.0.0.1"), ip("10.0.0.3"), DNS)]).unwrap();
            assert!(!fates[0].delivered);
        }
        // The lab sends what did not arrive twice.
        assert!((3..=6).contains(&count(&lab)), "{}", count(&lab));
        let by_address = lab.run(&Place::Node, || iptables.denied_by_address().unwrap()).unwrap();
        assert_eq!(by_address[&(Direction::Ingress, ip("10.0.0.3"))].packets, count(&lab));
        assert_eq!(by_address[&(Direction::Ingress, ip("fd00::3"))].packets, 0);
        assert_eq!(by_address.len(), 2, "only what is policed");
    }
}

/// As the crate `iptables` reads it, which shares nothing with the back end: our jump is first and there once, whoever puts
/// something before it, and however often rules are applied.
#[test]
fn the_jump_is_first_and_there_once() {
    for (flavor, commands) in [
        (Flavor::Legacy, ["iptables-legacy", "ip6tables-legacy"]),
        (Flavor::Nft, ["iptables-nft", "ip6tables-nft"]),
    ] {
        let (lab, ruleset) = closed_shop();
        lab.run(&Place::Node, || {
            let mut back_end = back_end(flavor);
            for command in commands {
                let reader = IPTables { cmd: command, ..iptables::new(false).unwrap() };
                let jumps = || -> Vec<usize> {
                    let rules = reader.list("filter", "FORWARD").unwrap();
                    let rules = rules.iter().filter(|rule| rule.starts_with("-A"));
                    let ours =
                        rules.enumerate().filter(|(_, rule)| rule.ends_with("-j NP-FORWARD"));
                    ours.map(|(place, _)| place).collect()
                };
                for _ in 0..2 {
                    back_end.replace(&ruleset).unwrap();
                    assert_eq!(jumps(), [0], "{command}");
                }
                reader.insert("filter", "FORWARD", "-m mark --mark 7 -j ACCEPT", 1).unwrap();
                assert_eq!(jumps(), [1], "{command}");
                back_end.replace(&ruleset).unwrap();
                assert_eq!(jumps(), [0], "{command}");
                assert!(reader.exists("filter", "FORWARD", "-m mark --mark 7 -j ACCEPT").unwrap());
                reader.delete("filter", "FORWARD", "-m mark --mark 7 -j ACCEPT").unwrap();
            }
            back_end.remove().unwrap();
        })
        .unwrap();
    }
}
