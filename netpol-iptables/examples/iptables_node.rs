//! A made-up node, for measuring: `iptables_node LOCAL_PODS off|prerouting DEVICE DIRECTORY` writes its ruleset as the three files and
//! `load.sh`; `iptables_node LOCAL_PODS GUARD DEVICE NETNS legacy|nft` applies it in that network namespace (ip-netns(8)), again, and with
//! one pod more elsewhere, one here, and one policy more.
//!
//! 10,000 pods in the cluster, 1,000 policies; the local pods are of ten classes, each under two policies with two rules per
//! direction and a set of 1,000 peers for each rule. All rules of the last kind allow UDP 80, so that a packet to that port
//! walks them all. DEVICE is the one of the first pod; the others are on `p1`, `p2` and so on.
//!
//! To standard error go sizes and times.

use netpol_core::Delta;
use netpol_core::{
    Backend, Cluster, Family, Labels, Match, Namespace, Peer, Phase, Pod, PodId, PodSelection,
    Policy, PortEntry, Protocol, Ruleset, Scope, Selector, TrafficMatch, compile,
};
use netpol_iptables::{Flavor, Guard, Iptables, IptablesOptions, layout, text};
use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let local: u32 = arguments.next().ok_or("how many local pods?")?.parse()?;
    let guard = match arguments.next().as_deref() {
        Some("prerouting") => Guard::Prerouting,
        _ => Guard::Off,
    };
    let device = arguments.next().unwrap_or_else(|| "p0".to_owned());
    let place = arguments.next().ok_or("which directory or network namespace?")?;
    let flavor = arguments.next();
    let mut cluster = cluster(local, &device);
    let node = "node".into();
    let options = IptablesOptions::default().with_guard(guard);
    let ruleset = compile(&cluster, Scope::Node(&node))?;
    let started = Instant::now();
    let model = layout(&ruleset, &options).model;
    eprintln!("layout: {:?}", started.elapsed());
    let rules = model.tables.values().flat_map(|table| table.chains.values());
    let rules: usize = rules.map(|chain| chain.rules.len()).sum();
    eprintln!("{rules} rules in both families, {} sets", model.sets.len());
    let Some(flavor) = flavor else {
        let directory = PathBuf::from(place);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("netpol.ipset"), text::ipset(&model))?;
        std::fs::write(directory.join("netpol.v4.iptables"), text::iptables(&model, Family::V4))?;
        std::fs::write(directory.join("netpol.v6.iptables"), text::iptables(&model, Family::V6))?;
        std::fs::write(directory.join("load.sh"), text::load_script(&model))?;
        return Ok(());
    };
    let flavor = if flavor == "nft" { Flavor::Nft } else { Flavor::Legacy };
    let options = options.with_flavor(Some(flavor));
    let mut iptables = Iptables::new(netpol_host::Host::in_namespace(place), options);
    timed("first apply", &mut iptables, |iptables| iptables.replace(&ruleset))?;
    timed("again", &mut iptables, |iptables| iptables.replace(&ruleset))?;
    let mut before = ruleset;
    let mut next = |what: &str, cluster: &Cluster, iptables: &mut Iptables| {
        let after: Ruleset = compile(cluster, Scope::Node(&node))?;
        let delta = Delta::between(&before, &after);
        timed(what, iptables, |iptables| iptables.apply(&delta))?;
        before = after;
        Ok::<(), Box<dyn Error>>(())
    };
    cluster.insert_pod(remote(10_000));
    next("one pod more elsewhere", &cluster, &mut iptables)?;
    let class = Labels::from_iter([("class", "c3")]);
    let pod = Pod::new(PodId::new("n", "one-more"), class).with_addresses(addresses(1, local + 1));
    cluster.insert_pod(pod.with_phase(Phase::Running).with_node("node").with_interface("q"));
    next("one pod more here", &cluster, &mut iptables)?;
    let subject = Selector::match_labels([("class", "c3")]);
    cluster.insert_policy(Policy::network_policy("n", "one-more", subject, Some(vec![]), None));
    next("one policy more", &cluster, &mut iptables)?;
    timed("remove", &mut iptables, Backend::remove)?;
    Ok(())
}

fn timed(
    what: &str,
    iptables: &mut Iptables,
    change: impl FnOnce(&mut Iptables) -> Result<(), netpol_iptables::Error>,
) -> Result<(), netpol_iptables::Error> {
    let started = Instant::now();
    change(iptables)?;
    let report = iptables.report();
    eprintln!(
        "{what}: {:?}, of these {:?} in {} runs, {:?} lines",
        started.elapsed(),
        report.took(),
        report.runs(),
        report.lines()
    );
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
