//! What a change of a ruleset does is decided packet by packet; the prover must say the same.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

use crate::support;
use crate::universe::Universe;
use netpol_core::{Cluster, Labels, Options, Phase, Pod, PodId};
use netpol_testkit::strategies::{clusters, options};
use netpol_verify::Conclusion;
use netpol_verify::machine::{
    ConnState, Fate, Machine, Own, Packet, Path, address_value, device_value,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use support::{report, second_engine_agrees};

/// A change, in words, and the ruleset after it.
pub(crate) type Mutant<T> = (String, T);

/// Mutants of the rulesets of random clusters: some of them, and each ruleset itself. `T` is a ruleset as text.
pub(crate) fn check_clusters<T: Clone>(
    rendered: impl Fn(&Cluster, Options, &mut TestRunner) -> T,
    mutants: impl Fn(&T, &mut dyn FnMut(usize) -> bool) -> Vec<Mutant<T>>,
    machine: impl Fn(&T) -> Machine,
    addresses: impl Fn(&T) -> BTreeSet<IpAddr>,
) {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let rounds = std::env::var_os("NETPOL_MUTANT_CLUSTERS");
    let rounds = rounds.and_then(|count| count.to_str()?.parse().ok()).unwrap_or(2);
    let (mut tally, mut packets) = (Tally::default(), 0);
    for _ in 0..rounds {
        let cluster = clusters().new_tree(&mut runner).unwrap().current();
        let policy = options().new_tree(&mut runner).unwrap().current();
        let base = rendered(&cluster, policy, &mut runner);
        let mut all = mutants(&base, &mut |of| runner.rng().random_range(0..of) == 0);
        while all.len() > 60 {
            let at = runner.rng().random_range(0..all.len());
            all.swap_remove(at);
        }
        all.push(("nothing".to_owned(), base.clone()));
        let all = all.into_iter().map(|(what, mutant)| (what, machine(&mutant)));
        packets += check(&cluster, policy, all, addresses(&base), &mut tally);
    }
    println!("{tally:#?}, {packets} packets enumerated");
    assert!(tally.refuted > 20 && tally.proved > 20, "{tally:?}");
}

#[derive(Debug, Default)]
struct Tally {
    refuted: usize,
    proved: usize,
    by_kind: BTreeMap<String, [usize; 2]>,
}

/// Compares the prover with the enumeration for each mutant; how many packets were enumerated. `addresses` are those that
/// the ruleset names.
fn check(
    cluster: &Cluster,
    policy: Options,
    mutants: impl IntoIterator<Item = Mutant<Machine>>,
    addresses: BTreeSet<IpAddr>,
    tally: &mut Tally,
) -> usize {
    // The guard has its own test: here the addresses are honest.
    let interfaces = BTreeMap::new();
    let universe = Universe::new(cluster, None, addresses, policy, &interfaces);
    for (what, machine) in mutants {
        let report = report(&machine, cluster, None, policy, &interfaces);
        second_engine_agrees(&report, &machine, cluster, policy, &interfaces);
        let difference = universe.difference(&machine);
        let kind = what.split(':').next().unwrap().to_owned();
        let [refuted, proved] = tally.by_kind.entry(kind).or_default();
        match (&report.conclusion, difference) {
            // There is nothing to be proved of pods without addresses.
            (Conclusion::NotProved { example: None, .. }, None)
                if cluster.address_owners().is_empty() => {}
            (Conclusion::Proved, None) => {
                tally.proved += 1;
                *proved += 1;
            }
            (Conclusion::Refuted(all), Some(_)) => {
                tally.refuted += 1;
                *refuted += 1;
                // The packet that is shown goes the wrong way, packet by packet.
                let shown = &all[0];
                let own = shown.path != Path::Forward || shown.reasons[0].starts_with("no pod");
                let own = if own {
                    Own::default().with_table("netpol").with_chains("NP")
                } else {
                    Own::default()
                };
                let fates = machine.only(&own).fates(&shown.packet, shown.path);
                assert_eq!(fates, BTreeSet::from([shown.kernel]), "{what}\n{shown}");
            }
            (Conclusion::Proved, Some(packet)) => {
                panic!("{what}\nis proved, but {packet} goes wrong\n{cluster:#?}");
            }
            (Conclusion::Refuted(all), None) => {
                panic!("{what}\nis refuted without need:\n{}\n{cluster:#?}", all[0]);
            }
            (other, _) => panic!("{what}\n{other:?}"),
        }
    }
    universe.len()
}

/// What may come from a device, packet by packet: what the guard must let pass and nothing else.
fn guard_difference(
    machine: &Machine,
    cluster: &Cluster,
    interfaces: &BTreeMap<PodId, String>,
    addresses: &BTreeSet<IpAddr>,
) -> Option<Packet> {
    let owners = cluster.address_owners();
    for (pod, interface) in interfaces {
        for &source in addresses {
            let v6 = source.is_ipv6();
            let mut traffic: Vec<(u8, u16)> = vec![(6, 40000), (17, 53), (1, 8 << 8), (47, 0)];
            if v6 {
                traffic.extend(
                    [127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 142, 143, 144]
                        .map(|t| (58, t << 8)),
                );
            }
            for (protocol, first) in traffic {
                let packet = Packet {
                    v6,
                    source: address_value(source),
                    destination: 1 << 24,
                    protocol,
                    first,
                    second: 80,
                    in_device: device_value(interface),
                    out_device: None,
                    state: ConnState::New,
                    reply: false,
                    mark: 0,
                };
                let own = owners.get(&source) == Some(&pod);
                let discovery = matches!(first >> 8, 130..=133 | 135 | 136 | 143) && protocol == 58;
                let local = match source {
                    IpAddr::V6(a) => a.is_unspecified() || a.segments()[0] & 0xffc0 == 0xfe80,
                    IpAddr::V4(_) => false,
                };
                let expected =
                    if own || local && discovery { Fate::Accepted } else { Fate::Dropped };
                if machine.fates(&packet, Path::Arrival) != BTreeSet::from([expected]) {
                    return Some(packet);
                }
            }
        }
    }
    None
}

/// Pods with one, several and no addresses of a family, and no policies.
pub(crate) fn guarded_cluster() -> Cluster {
    let mut cluster = Cluster::new();
    let pods = [
        ("a", vec!["10.0.0.1", "10.0.1.1", "fd00::1"]),
        ("b", vec!["10.0.0.2"]),
        ("c", vec!["fd00::3"]),
    ];
    for (name, addresses) in pods {
        let pod = Pod::new(PodId::new("n", name), Labels::new()).with_phase(Phase::Running);
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        cluster.insert_pod(pod.with_addresses(addresses));
    }
    cluster
}

/// The same for the source guard of [`guarded_cluster`], whose ruleset names these addresses.
pub(crate) fn check_guard(
    cluster: &Cluster,
    mutants: impl IntoIterator<Item = Mutant<Machine>>,
    named: BTreeSet<IpAddr>,
) {
    let (interfaces, policy) = (support::interfaces(cluster), Options::default());
    // Only the guard: there are no policies.
    let own = [
        "0.0.0.0", "10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.0", "10.0.1.1",
        "10.0.1.2",
    ];
    let six = [
        "::", "::1", "fd00::", "fd00::1", "fd00::2", "fd00::3", "fd00::4", "fe7f::", "fe80::",
        "febf::", "fec0::", "fe00::", "ff02::1",
    ];
    let addresses: BTreeSet<IpAddr> =
        own.iter().chain(&six).map(|address| address.parse().unwrap()).collect();
    let universe = Universe::new(cluster, None, named, policy, &interfaces);
    let (mut refuted, mut proved) = (0, 0);
    for (what, machine) in mutants {
        let report = report(&machine, cluster, None, policy, &interfaces);
        let difference = guard_difference(&machine, cluster, &interfaces, &addresses)
            .or_else(|| universe.difference(&machine));
        match (&report.conclusion, difference) {
            (Conclusion::Proved, None) => proved += 1,
            (Conclusion::Refuted(_), Some(_)) => refuted += 1,
            (Conclusion::Refuted(all), None) => {
                panic!("{what}\nis refuted without need:\n{}", all[0])
            }
            (other, difference) => panic!("{what}\n{other:?}\n{difference:?}"),
        }
    }
    println!("{refuted} refuted, {proved} proved");
    assert!(refuted > 20 && proved > 10);
}
