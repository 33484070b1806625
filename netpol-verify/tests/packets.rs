//! Does the rule machine do what this kernel does? Rules of every kind that it understands, and real packets.
//! Needs root, nft and ip.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking"
)]
mod support;

use netpol_core::PodId;
use netpol_lab::{Lab, Place, Plan, Probe, Traffic};
use netpol_verify::Kernel;
use netpol_verify::machine::{ConnState, Fate, Packet, Path, address_value, device_value};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long a packet may take.
const PATIENCE: Duration = Duration::from_millis(60);

const V4: [&str; 4] = ["10.0.0.1", "10.0.0.2", "203.0.113.9", "198.51.100.7"];
const V6: [&str; 4] = ["fd00::1", "fd00::2", "2001:db8::9", "2001:db8:1::7"];

fn lab() -> Lab {
    let pod = |name: &str| PodId::new("n", name);
    let of = |at: usize| [V4, V6].map(|family| family[at].parse::<IpAddr>().unwrap());
    let plan = Plan::new().with_pod(pod("a"), of(0)).with_pod(pod("b"), of(1));
    let external = of(2).into_iter().chain(of(3));
    let node = ["192.168.0.1", "fd00:9::1"].map(|address| address.parse::<IpAddr>().unwrap());
    let mut lab = Lab::new(&plan.with_external(external).with_node_addresses(node)).unwrap();
    lab.set_patience(PATIENCE);
    lab
}

/// A condition in nft's syntax.
fn condition() -> impl Strategy<Value = String> {
    let v4 = || {
        let one = select(&V4[..]).prop_map(str::to_owned);
        let net = select(&["10.0.0.0/24", "10.0.0.2/31", "0.0.0.0/0", "203.0.113.0/24"][..]);
        let range = Just("10.0.0.2-198.51.100.6".to_owned());
        prop_oneof![3 => one, 2 => net.prop_map(str::to_owned), 1 => range]
    };
    let v6 = || {
        let one = select(&V6[..]).prop_map(str::to_owned);
        let net = select(&["fd00::/64", "::/0", "2001:db8::/48", "fd00::2/127"][..]);
        prop_oneof![3 => one, 2 => net.prop_map(str::to_owned)]
    };
    let end = || select(&["saddr", "daddr"][..]);
    let equal = || select(&["", "!= "][..]);
    let port = || select(&["80", "81", "443", "80-81", "{ 80, 443 }", "{ 53, 80-81 }"][..]);
    let protocol = || select(&["tcp", "udp", "th"][..]);
    let fixed = select(
        &[
            "ip saddr @nets",
            "ip daddr != @nets",
            "ip6 saddr @six",
            "meta nfproto ipv4",
            "ip saddr & 255.255.255.254 == 10.0.0.2",
            "ip daddr & 255.0.0.0 == { 10.0.0.0 }",
            "ip daddr . meta l4proto . th dport @pairs",
            "ip saddr . ip daddr { 10.0.0.1 . 10.0.0.2, 203.0.113.9 . 10.0.0.1 }",
            "ip saddr . tcp dport { 10.0.0.0/31 . 80-81, 203.0.113.9 . 443 }",
            "meta l4proto { tcp, udp }",
            "meta l4proto != { tcp, udp, sctp }",
            "meta l4proto 6-17",
            "ip protocol icmp",
            "icmp type echo-request",
            "icmpv6 type { echo-request, echo-reply }",
            "icmpv6 type 128-130",
            "tcp dport < 81",
            "tcp dport >= 81",
            "udp dport > 53",
            "tcp dport <= 80",
            "ct state new",
            "ct state established,related",
            "ct state != new",
            "ct state { new, invalid }",
            "ct direction original",
            "ct direction reply",
            "meta mark 1",
            "meta mark & 0x3 == 1",
            "meta mark & 0x2 != 0",
            "meta mark != 0",
            "iifname \"uplink\"",
            "iifname != \"up*\"",
            "oifname \"up*\"",
            "oifname { \"uplink\", \"lo\" }",
            "meta protocol ip6",
            "ct state ! new",
        ][..],
    );
    prop_oneof![
        2 => (end(), equal(), v4()).prop_map(|(e, o, v)| format!("ip {e} {o}{v}")),
        2 => (end(), equal(), v6()).prop_map(|(e, o, v)| format!("ip6 {e} {o}{v}")),
        2 => (protocol(), equal(), port()).prop_map(|(p, o, v)| format!("{p} dport {o}{v}")),
        3 => fixed.prop_map(str::to_owned),
    ]
}

/// What a rule of a chain of this depth can do.
fn action(depth: usize) -> impl Strategy<Value = String> {
    let mut ends = vec!["accept", "drop", "return", "continue", "counter", "meta mark set 1"];
    ends.extend(["meta mark set meta mark or 0x2", "meta mark set meta mark xor 0x3"]);
    ends.extend(["ip saddr vmap @verdicts", "meta mark set meta mark and 0x1 counter"]);
    ends.extend(["meta l4proto vmap { tcp : accept, udp : drop, icmp : return }", "reject"]);
    if depth == 0 {
        ends.extend(["jump one", "goto one", "jump two", "goto two"]);
        ends.push("tcp dport vmap { 80 : jump one, 81 : goto two, 443 : accept }");
        ends.push(
            "ip saddr . tcp dport vmap { 10.0.0.1 . 80 : goto one, 203.0.113.9 . 81 : drop }",
        );
    }
    if depth == 1 {
        ends.extend(["jump two", "goto two"]);
    }
    select(ends).prop_map(str::to_owned)
}

/// Rules of the chain of this name.
fn rules(chain: &'static str, depth: usize) -> impl Strategy<Value = Vec<String>> {
    let rule = (vec(condition(), 0..3), action(depth));
    let rule = rule.prop_map(move |(conditions, action)| {
        format!("add rule inet t {chain} {} {action}", conditions.join(" "))
    });
    vec(rule, 0..5)
}

/// What is there before the rules.
const TABLE: &str = "flush ruleset
table inet t {
  set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/30, 198.51.0.0-198.51.100.7 }; }
  set six { type ipv6_addr; elements = { fd00::1, 2001:db8::9 }; }
  set pairs { type ipv4_addr . inet_proto . inet_service; elements = { 10.0.0.2 . tcp . 80, 10.0.0.1 . udp . 53 }; }
  map verdicts { type ipv4_addr : verdict; flags interval; elements = { 10.0.0.1 : accept, 203.0.113.0/24 : drop, 10.0.0.2 : return }; }
  chain two {
  }
  chain one {
  }
  chain first {
    type filter hook forward priority 0; policy EARLY;
  }
  chain second {
    type filter hook forward priority 10; policy LATE;
  }
}
";

/// The commands that make a ruleset.
fn ruleset() -> impl Strategy<Value = Vec<String>> {
    let policy = || select(&["accept", "accept", "drop"][..]);
    let rules = (rules("two", 2), rules("one", 1), rules("first", 0), rules("second", 0));
    (rules, policy(), policy()).prop_map(|((two, one, first, second), early, late)| {
        let table = TABLE.replace("EARLY", early).replace("LATE", late);
        [vec![table], two, one, first, second].concat()
    })
}

/// Gives a command to nft; some rules contradict themselves, and nft refuses them.
fn load(command: &str) -> bool {
    let nft =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut nft = nft.unwrap();
    nft.stdin.take().unwrap().write_all(command.as_bytes()).unwrap();
    nft.wait().unwrap().success()
}

fn probes() -> Vec<Probe> {
    use netpol_core::Protocol::{Sctp, Tcp, Udp};
    let mut probes = Vec::new();
    for family in [V4, V6] {
        let family: Vec<IpAddr> = family.iter().map(|text| text.parse().unwrap()).collect();
        for (from, &source) in family.iter().enumerate() {
            for (to, &destination) in family.iter().enumerate() {
                if from == to || from > 1 && to > 1 {
                    continue;
                }
                let mut traffic: Vec<Traffic> =
                    [80, 81, 443].map(|port| Traffic::Port(Tcp, port)).into();
                traffic.extend([53, 80].map(|port| Traffic::Port(Udp, port)));
                traffic.extend([Traffic::Port(Sctp, 80), Traffic::echo(destination)]);
                // Without ports, packets there and back are one flow to conntrack.
                traffic.extend((from < to).then_some(Traffic::Other(47)));
                probes.extend(traffic.into_iter().map(|t| Probe::new(source, destination, t)));
            }
        }
    }
    probes
}

fn packet(lab: &Lab, probe: &Probe) -> Packet {
    let (source, destination) = (probe.source(), probe.destination());
    let (protocol, first, second) = match probe.traffic() {
        Traffic::Port(protocol, port) => (protocol.number(), 40000, port),
        Traffic::Icmpv6(kind) => (58, u16::from(kind) << 8, 0),
        Traffic::Other(1) => (1, 8 << 8, 0),
        Traffic::Other(number) => (number, 0, 0),
    };
    let device = |address| match lab.place_of(address).unwrap() {
        Place::Pod(pod) => device_value(lab.interface(pod).unwrap().as_str()),
        _ => device_value("uplink"),
    };
    Packet {
        v6: source.is_ipv6(),
        source: address_value(source),
        destination: address_value(destination),
        protocol,
        first,
        second,
        in_device: device(source),
        out_device: device(destination),
        state: ConnState::New,
        reply: false,
        mark: 0,
    }
}

#[test]
fn the_machine_does_what_the_kernel_does() {
    let lab = RefCell::new(lab());
    let probes = probes();
    let (compared, dropped, loaded) = (Cell::new(0), Cell::new(0), AtomicUsize::new(0));
    let config = ProptestConfig {
        cases: 60,
        failure_persistence: None,
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    };
    let done = TestRunner::new(config).run(&ruleset(), |commands| {
        let mut lab = lab.borrow_mut();
        lab.forget_connections().unwrap();
        let machine = lab
            .run(&Place::Node, || {
                let [table, rules @ ..] = commands.as_slice() else {
                    return Kernel::new().nft().unwrap();
                };
                assert!(load(table), "{table}");
                let taken = rules.iter().filter(|rule| load(rule)).count();
                loaded.fetch_add(taken, Ordering::Relaxed);
                Kernel::new().nft().unwrap()
            })
            .unwrap();
        let fates = lab.probe(&probes).unwrap();
        for (probe, fate) in probes.iter().zip(fates) {
            if !fate.sent {
                continue;
            }
            let packet = packet(&lab, probe);
            let said = machine.fates(&packet, Path::Forward, None);
            let mut kernel = if fate.delivered { Fate::Accepted } else { Fate::Dropped };
            if !said.contains(&kernel) {
                // A busy machine may have been too slow.
                lab.forget_connections().unwrap();
                lab.set_patience(Duration::from_secs(2));
                let again = lab.probe(std::slice::from_ref(probe)).unwrap();
                lab.set_patience(PATIENCE);
                let arrived = again.iter().any(|fate| fate.delivered);
                kernel = if arrived { Fate::Accepted } else { Fate::Dropped };
            }
            compared.set(compared.get() + 1);
            dropped.set(dropped.get() + usize::from(!fate.delivered));
            prop_assert_eq!(
                said,
                BTreeSet::from([kernel]),
                "{}: {:#?}",
                packet,
                machine.run(&packet, Path::Forward)
            );
        }
        Ok(())
    });
    println!(
        "{} packets compared, {} dropped, {} rules",
        compared.get(),
        dropped.get(),
        loaded.into_inner()
    );
    if let Err(error) = done {
        panic!("{error}");
    }
    assert!(compared.get() > 1000);
}
