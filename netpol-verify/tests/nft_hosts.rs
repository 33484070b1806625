//! Rules of others beside netpol's, in tables of nft, as the kernel lists them: kube-proxy's, a firewall's, those of container networks.
//! Needs root, nft and ip.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use netpol_core::{Cluster, Options, Policy, Scope, compile};
use netpol_nft::{NftOptions, layout, script};
use netpol_testkit::samples::{is, shop};
use netpol_verify::machine::Machine;
use netpol_verify::{
    Blame, Conclusion, ProofOptions, Refutation, Specification, bdd, blame, prove,
};
use support::Netns;

const KUBE_PROXY: &str = include_str!("hosts/kube-proxy.nft");
const FIREWALLD: &str = include_str!("hosts/firewalld.nft");
const BRIDGES: &str = include_str!("hosts/bridges.nft");

fn cluster() -> Cluster {
    let mut cluster = shop();
    let db = is("db");
    cluster.insert_policy(Policy::network_policy("shop", "closed", db, Some(vec![]), Some(vec![])));
    cluster
}

/// A namespace in which policies are enforced, and what its kernel lists.
fn enforced() -> (Netns, Machine) {
    let namespace = Netns::new();
    let rules = compile(&cluster(), Scope::Cluster).unwrap();
    let rules = script(&layout(&rules, &NftOptions::default()).model);
    namespace.ok(&["nft", "-f", "-"], &rules);
    let machine = namespace.machine();
    (namespace, machine)
}

/// The conclusion of both engines, if others may drop more than policies do, or may not.
#[track_caller]
fn judged(machine: &Machine, others_may_drop: bool) -> Conclusion {
    let cluster = cluster();
    let specification = Specification::new(&cluster, None, Options::default());
    let options = ProofOptions::default().with_own_table("netpol");
    let options = if others_may_drop { options.with_others_dropping() } else { options };
    let one = prove(machine, &specification, &options).conclusion;
    let two = bdd::prove(machine, &specification, &options).conclusion;
    assert_eq!(one.as_str(), two.as_str(), "{one:#?}\n{two:#?}");
    if let (Conclusion::Refuted(one), Conclusion::Refuted(two)) = (&one, &two) {
        let others = |all: &[Refutation]| all.iter().all(|one| one.dropped_by_others);
        assert_eq!(others(one), others(two), "{one:#?}\n{two:#?}");
    }
    one
}

/// Which changes matter.
fn blamed(before: &Machine, now: &Machine) -> Vec<String> {
    let cluster = cluster();
    let specification = Specification::new(&cluster, None, Options::default());
    let options = ProofOptions::default().with_own_table("netpol");
    let report = prove(now, &specification, &options);
    let all = blame(before, now, &report, &options.own);
    let matter = all.iter().filter(|one| one.matters);
    matter.map(|Blame { change, .. }| format!("{} {}", change.table, change.object)).collect()
}

#[test]
fn services_and_their_endpoints_change_no_verdict() {
    let (namespace, _) = enforced();
    // Without what has no endpoint or is closed to some.
    let open =
        KUBE_PROXY.lines().filter(|line| !line.contains("shop/none") && !line.contains("shop/lb"));
    let open: String = open.map(|line| format!("{line}\n")).collect();
    namespace.ok(&["nft", "-f", "-"], &open);
    let machine = namespace.machine();
    assert!(judged(&machine, false).is_proved(), "{:#?}", judged(&machine, false));
    assert!(judged(&machine, true).is_proved());
}

#[test]
fn what_others_drop_is_theirs_if_one_says_so() {
    let (namespace, before) = enforced();
    namespace.ok(&["nft", "-f", "-"], KUBE_PROXY);
    let machine = namespace.machine();
    let Conclusion::Refuted(all) = judged(&machine, false) else { panic!("{machine:#?}") };
    assert!(all.iter().all(|one| one.dropped_by_others), "{all:#?}");
    assert!(all[0].cause.contains("reject-chain") && all[0].cause.contains("is not netpol's"));
    assert!(judged(&machine, true).is_proved(), "{:#?}", judged(&machine, true));
    // One of these alone would not reject it.
    let expected = ["filter-forward", "service-endpoints-check", "reject-chain"];
    let blamed = blamed(&before, &machine);
    assert!(
        expected.iter().any(|one| blamed.contains(&format!("ip kube-proxy chain {one}"))),
        "{blamed:?}"
    );
    assert!(blamed.len() < 12, "{blamed:?}");
    // Netpol's own rules must still drop what policies deny, and nothing else.
    for rule in ["tcp dport 53 drop", "udp dport 53 accept"] {
        let (namespace, own) = enforced();
        namespace.ok(&["nft", "-f", "-"], KUBE_PROXY);
        let mut names = own.chains.iter().map(|chain| chain.name.as_str());
        let forward = names.find(|name| name.starts_with("forward_")).unwrap();
        namespace.ok(&["nft", &format!("insert rule ip netpol {forward} {rule}")], "");
        match judged(&namespace.machine(), true) {
            Conclusion::Refuted(all) => {
                assert!(all.iter().all(|one| !one.dropped_by_others), "{rule}: {all:#?}");
            }
            other => panic!("{rule}: {other:#?}"),
        }
    }
}

#[test]
fn a_firewall_may_drop_more_by_rules_that_nobody_understands() {
    let (namespace, _) = enforced();
    namespace.ok(&["nft", "-f", "-"], FIREWALLD);
    let machine = namespace.machine();
    // It rejects what no zone knows, but not what is translated, which nobody here knows of a packet.
    match judged(&machine, false) {
        Conclusion::NotProved { example: Some(example), .. } => {
            assert!(example.dropped_by_others, "{example:#?}");
            assert!(example.cause.contains("is not netpol's"), "{example:#?}");
        }
        other => panic!("{other:#?}"),
    }
    assert!(judged(&machine, true).is_proved(), "{:#?}", judged(&machine, true));
}

#[test]
fn container_networks_may_close_their_bridges() {
    let (namespace, before) = enforced();
    namespace.ok(&["nft", "-f", "-"], BRIDGES);
    let machine = namespace.machine();
    assert!(judged(&machine, false).is_refuted());
    assert!(judged(&machine, true).is_proved(), "{:#?}", judged(&machine, true));
    // Two chains drop what goes to the bridge: neither matters alone. The other fifteen objects do not.
    let blamed = blamed(&before, &machine);
    assert!(!blamed.is_empty() && blamed.len() < 6, "{blamed:?}");
    assert!(blamed.iter().all(|one| one.starts_with("ip docker-bridges ")), "{blamed:?}");
}
