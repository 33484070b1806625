//! A made-up node, for measuring: `node LOCAL_PODS off|prerouting|ingress [DEVICE [address|interface]]` prints its ruleset for
//! `nft -f -`; `node LOCAL_PODS GUARD DEVICE DISPATCH NETNS` applies it in that network namespace (ip-netns(8)), again, and with one pod more.
//!
//! 10,000 pods in the cluster, 1,000 policies; the local pods are of ten classes, each under two policies with two rules per
//! direction and a set of 1,000 peers for each rule. All rules of the last kind allow UDP 80, so that a packet to that port
//! walks them all. DEVICE is the one of the first pod; the others are on `p1`, `p2` and so on.
//!
//! To standard error go sizes and times.
#![expect(clippy::print_stdout, reason = "an example")]

use netpol_core::{
    Backend, Cluster, Delta, Labels, Match, Namespace, Peer, Phase, Pod, PodId, PodSelection,
    Policy, PortEntry, Protocol, Scope, Selector, TrafficMatch, compile,
};
use netpol_nft::{Dispatch, Guard, NftOptions, Nftables, layout, objects, script};
use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let local: u32 = arguments.next().ok_or("how many local pods?")?.parse()?;
    let guard = match arguments.next().as_deref() {
        Some("prerouting") => Guard::Prerouting,
        Some("ingress") => Guard::Ingress,
        _ => Guard::Off,
    };
    let device = arguments.next().unwrap_or_else(|| "p0".to_owned());
    let dispatch = match arguments.next().as_deref() {
        Some("interface") => Dispatch::Interface,
        _ => Dispatch::Address,
    };
    let mut cluster = cluster(local, &device);
    let node = "node".into();
    let time = |what: &str, started: Instant| eprintln!("{what}: {:?}", started.elapsed());

    let started = Instant::now();
    let ruleset = compile(&cluster, Scope::Node(&node))?;
    time("compile", started);
    let options = NftOptions::default().with_guard(guard).with_dispatch(dispatch);
    let started = Instant::now();
    let model = layout(&ruleset, &options).model;
    time("layout", started);
    let started = Instant::now();
    let text = script(&model);
    time("script", started);
    eprintln!("{} bytes of text", text.len());
    let started = Instant::now();
    let json = serde_json::to_string(&objects(&model))?;
    time("objects", started);
    eprintln!("{} bytes of JSON", json.len());
    cluster.insert_pod(remote(10_000));
    let next = compile(&cluster, Scope::Node(&node))?;
    let started = Instant::now();
    let delta = Delta::between(&ruleset, &next);
    time("delta", started);
    assert!(!delta.is_empty(), "one pod more");
    let Some(netns) = arguments.next() else {
        print!("{text}");
        return Ok(());
    };
    let mut nftables = Nftables::new(netpol_host::Host::in_namespace(netns), options);
    let mut timed =
        |what: &str, change: &dyn Fn(&mut Nftables) -> Result<(), netpol_nft::Error>| {
            let started = Instant::now();
            change(&mut nftables)?;
            let report = nftables.report();
            let (all, nft) = (started.elapsed(), report.took());
            eprintln!(
                "{what}: {all:?}, of these {nft:?} in {} transactions",
                report.transactions()
            );
            Ok::<(), netpol_nft::Error>(())
        };
    timed("first apply", &|nftables| nftables.replace(&ruleset))?;
    timed("again", &|nftables| nftables.replace(&ruleset))?;
    timed("one pod more", &|nftables| nftables.apply(&delta))?;
    timed("remove", &|nftables| nftables.remove())?;
    Ok(())
}

fn cluster(local: u32, device: &str) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.insert_namespace(Namespace::new("n", Labels::new()));
    for number in 0..local {
        let class = format!("c{}", number % 10);
        let interface = if number == 0 { device.to_owned() } else { format!("p{number}") };
        let pod = Pod::new(
            PodId::new("n", format!("local-{number}")),
            Labels::from_iter([("class", class.as_str())]),
        );
        cluster.insert_pod(
            pod.with_addresses(addresses(1, number + 1))
                .with_phase(Phase::Running)
                .with_node("node")
                .with_interface(interface),
        );
    }
    for number in 0..10_000 - local.min(10_000) {
        cluster.insert_pod(remote(number));
    }
    for class in 0..500_u32 {
        for policy in 0..2 {
            let rules = || -> Option<Vec<TrafficMatch>> {
                Some(
                    (0..2)
                        .map(|rule| {
                            allow((4 * class + 2 * policy + rule) % 40, (2 * policy + rule) % 3)
                        })
                        .collect(),
                )
            };
            let subject = Selector::match_labels([("class", format!("c{class}").as_str())]);
            cluster.insert_policy(Policy::network_policy(
                "n",
                format!("p{class}-{policy}"),
                subject,
                rules(),
                rules(),
            ));
        }
    }
    cluster
}

/// The last of a class' four rules allows UDP 80, the others something else.
fn allow(set: u32, kind: u32) -> TrafficMatch {
    let (protocol, port) = match (set % 4, kind) {
        (3, _) => (Protocol::Udp, 80),
        (_, 0) => (Protocol::Tcp, 80),
        (_, 1) => (Protocol::Udp, 81),
        _ => (Protocol::Udp, 82),
    };
    let peers = Selector::match_labels([(format!("s{set}").as_str(), "")]);
    let peers = Match::OneOf(vec![Peer::Pods(PodSelection::within("n", peers))]);
    let ports = vec![PortEntry::Range { protocol, first: port, last: port }];
    TrafficMatch::new(peers, Match::OneOf(ports))
}

/// A pod elsewhere, in four of the forty sets.
fn remote(number: u32) -> Pod {
    let sets: Vec<String> = (0..4).map(|k| format!("s{}", (number + 10 * k) % 40)).collect();
    let labels = Labels::from_iter(sets.iter().map(|set| (set.as_str(), "")));
    Pod::new(PodId::new("n", format!("remote-{number}")), labels)
        .with_addresses(addresses(2, number + 1))
        .with_phase(Phase::Running)
        .with_node("other")
}

fn addresses(net: u8, number: u32) -> [std::net::IpAddr; 2] {
    let v4 = Ipv4Addr::from_bits(u32::from_be_bytes([10, net, 0, 0]) + number);
    let v6 = Ipv6Addr::from_bits(
        u128::from(Ipv6Addr::new(0xfd00, u16::from(net), 0, 0, 0, 0, 0, 0)) + u128::from(number),
    );
    [v4.into(), v6.into()]
}
