//! Real packets between network namespaces, and what the rule machine says of them.
#![allow(dead_code, reason = "each test file uses a part")]
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

use netpol_core::PodId;
use netpol_lab::{Lab, Place, Plan, Probe, Traffic};
use netpol_verify::machine::{ConnState, Fate, Machine, Packet, Path, address_value, device_value};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a packet may take.
const PATIENCE: Duration = Duration::from_millis(60);

pub(crate) const V4: [&str; 4] = ["10.0.0.1", "10.0.0.2", "203.0.113.9", "198.51.100.7"];
pub(crate) const V6: [&str; 4] = ["fd00::1", "fd00::2", "2001:db8::9", "2001:db8:1::7"];

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

/// Gives a text to a command; is it taken?
pub(crate) fn load(command: &[&str], text: &str) -> bool {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait().unwrap().success()
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
        // The lab takes ports from 61000 on.
        Traffic::Port(protocol, port) => (protocol.number(), 61000, port),
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

/// Loads rulesets of a kind on the node of a lab, sends packets through it, and holds what becomes of them against the machine.
/// `load` loads one, says how many rules it took, and reads it back.
pub(crate) fn compare<R: std::fmt::Debug + Sync>(
    cases: u32,
    rulesets: &impl Strategy<Value = R>,
    load: impl Fn(&R) -> (usize, Machine) + Sync,
    state: impl Fn(&R, &Packet) -> ConnState,
) {
    let lab = RefCell::new(lab());
    let probes = probes();
    let (compared, dropped, loaded) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    };
    let done = TestRunner::new(config).run(rulesets, |ruleset| {
        let mut lab = lab.borrow_mut();
        lab.forget_connections().unwrap();
        let (rules, machine) = lab.run(&Place::Node, || load(&ruleset)).unwrap();
        loaded.set(loaded.get() + rules);
        let fates = lab.probe(&probes).unwrap();
        for (probe, fate) in probes.iter().zip(fates) {
            if !fate.sent {
                continue;
            }
            let mut packet = packet(&lab, probe);
            packet.state = state(&ruleset, &packet);
            let said = machine.fates(&packet, Path::Forward);
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
            let runs = machine.run(&packet, Path::Forward);
            // What is not understood may be either way: states before connection tracking of what a rule untracks.
            if runs.iter().any(|run| !run.not_understood.is_empty()) {
                prop_assert!(said.contains(&kernel), "{}: {:#?}", packet, runs);
                continue;
            }
            prop_assert_eq!(said, BTreeSet::from([kernel]), "{}: {:#?}", packet, runs);
        }
        Ok(())
    });
    println!(
        "{} packets compared, {} dropped, {} rules",
        compared.get(),
        dropped.get(),
        loaded.get()
    );
    if let Err(error) = done {
        panic!("{error}");
    }
    assert!(compared.get() > 1000);
}
