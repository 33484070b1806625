//! What the prover says is so: of any listing, of what is rendered for any manifests, and in small worlds packet by packet.

use super::{check, text};
use crate::enumeration::{Enumeration, Trial};
use crate::mutation::{Mutation, mutations};
use crate::rendered::nft_listing as rendered;
use crate::small_world::SmallWorld;
use crate::strategies::options;
use netpol_core::{
    Cluster, Labels, Match, NodeName, Options, Phase, Pod, PodId, Policy, PortEntry, Protocol,
    Selector, TrafficMatch,
};
use netpol_host::{Denial, HostOptions};
use netpol_k8s::Reader;
use netpol_nft::{Guard, NftOptions};
use netpol_verify::machine::{
    ConnState, Fate, Machine, Own, Packet, Path, address_value, device_value,
};
use netpol_verify::{Conclusion, Dump, ProofOptions, Report, Specification, prove, read_dumps};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Manifests, any at all: what netpol-nft renders for them, read back from its text, is never refuted.
pub fn proved(data: &[u8]) {
    let Some(text) = text(data) else { return };
    // The first line says which options, so that a corpus of manifests serves as it is.
    let flags = text.lines().next().map_or(0, |line| line.len());
    let mut reader = Reader::new();
    reader.read_text("fuzz", text);
    let manifests = reader.finish();
    let cluster = manifests.cluster();
    // A proof about hundreds of pods takes too long here.
    if cluster.pods().len() > 24 || cluster.policies().len() > 24 {
        return;
    }
    let node = cluster.pods().find_map(|pod| pod.node().cloned()).filter(|_| flags & 1 == 1);
    let denial = if flags & 2 == 2 { Denial::Reject } else { Denial::Drop };
    let host = HostOptions::default().with_denial(denial);
    let options = NftOptions::from(host).with_guard(Guard::Off);
    let listing = rendered(cluster, node.as_ref(), &options).to_string();
    let Some(machine) = read(listing) else { panic!("a listing is read: {text:?}") };
    let report = report(&machine, cluster, node.as_ref(), Options::default());
    let nothing = |what: &netpol_verify::machine::NotUnderstood| what.place == "manifests";
    match &report.conclusion {
        Conclusion::Proved => {}
        Conclusion::NotProved { not_understood, .. } if not_understood.iter().all(nothing) => {}
        other => panic!("what is rendered is proved: {text:?}: {other:?}"),
    }
}

/// Bytes that draw a small world, its policies, and changes of its rules: the prover says what a trial of all packets says.
pub fn prover(data: &[u8]) {
    let world = SmallWorld::new(1);
    let (first, changes) = data.split_at(data.len().min(16));
    let policies = (world.clusters(), options(), any::<bool>());
    let Some((cluster, policy, one_node)) = drawn(&policies, first) else { return };
    // Eight bytes for each, so that a fuzzer can take one out or put one in.
    let changes = changes.chunks(8).take(8);
    let changes: Vec<Mutation> = changes.filter_map(|bytes| drawn(&mutations(), bytes)).collect();
    let node = one_node.then(|| NodeName::from("node-1"));
    let host = HostOptions::default().with_policy(policy);
    let listing = rendered(&cluster, node.as_ref(), &NftOptions::from(host).with_guard(Guard::Off));
    let Some(mut machine) = read(listing.to_string()) else { panic!("a listing is read") };
    for change in &changes {
        change.apply(&mut machine, world);
    }
    let report = report(&machine, &cluster, node.as_ref(), policy);
    let interfaces = BTreeMap::new();
    let packets = Enumeration::new(&cluster, node.as_ref(), &world.values(), policy, &interfaces);
    let trial = packets.trial(&machine, &Own::default().with_table(TABLE));
    let nothing = |what: &netpol_verify::machine::NotUnderstood| what.place == "manifests";
    let same = match (&report.conclusion, &trial) {
        (Conclusion::Proved, Trial::Right)
        | (Conclusion::Refuted(_), Trial::Wrong(_))
        | (Conclusion::NotProved { .. }, Trial::Unknown(_)) => true,
        (Conclusion::NotProved { not_understood, .. }, Trial::Right) => {
            not_understood.iter().all(nothing)
        }
        _ => false,
    };
    check(same, "proofs and trials end alike", &(trial, report.conclusion, changes, cluster));
}

/// Draws from a strategy; the same bytes draw the same.
fn drawn<S: Strategy>(strategy: &S, bytes: &[u8]) -> Option<S::Value> {
    // A random generator that is the bytes themselves is of no use: alternatives halve what is left of them.
    let mut seed = [0u8; 32];
    for (at, byte) in bytes.iter().enumerate() {
        if let Some(mixed) = seed.get_mut(at % 32) {
            *mixed = mixed.wrapping_mul(31).wrapping_add(*byte);
        }
    }
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    strategy.new_tree(&mut runner).ok().map(|tree| tree.current())
}

const TABLE: &str = "netpol";

fn read(listing: String) -> Option<Machine> {
    read_dumps(&[Dump { name: "listing".to_owned(), text: listing }]).ok()
}

fn report(
    machine: &Machine,
    cluster: &Cluster,
    node: Option<&NodeName>,
    policy: Options,
) -> Report {
    let specification = Specification::new(cluster, node, policy);
    prove(machine, &specification, &ProofOptions::default().with_own_table(TABLE))
}

/// A listing of nft, any at all, against a pod with one open port: where the prover says that the listing enforces that, packets
/// that are run one by one agree; where it says that it does not, so does its own packet.
pub fn nft_listing(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let dump = Dump { name: "listing".to_owned(), text: text.to_owned() };
    let Ok(machine) = read_dumps(&[dump]) else { return };
    let cluster = one_pod();
    let specification = Specification::new(&cluster, None, Options::default());
    let report = prove(&machine, &specification, &ProofOptions::default());
    let fates = |packet: &Packet, path| machine.fates(packet, path, None);
    match &report.conclusion {
        Conclusion::Proved => {
            for (packet, path) in packets() {
                let allowed = specification.judge(&packet, path).allowed;
                let expected = if allowed { Fate::Accepted } else { Fate::Dropped };
                check(
                    fates(&packet, path) == BTreeSet::from([expected]),
                    "what is proved is so",
                    &packet,
                );
            }
        }
        Conclusion::Refuted(all) => {
            for refutation in all {
                let wrong = if refutation.allowed { Fate::Dropped } else { Fate::Accepted };
                let met = fates(&refutation.packet, refutation.path);
                check(met.contains(&wrong), "what is refuted goes wrong", refutation);
            }
        }
        Conclusion::NotProved { not_understood, .. } => {
            check(!not_understood.is_empty(), "there is a reason", &text);
        }
    }
}

/// The pod 10.0.0.1, whose port 80/TCP alone is open, and which reaches everything.
fn one_pod() -> Cluster {
    let mut cluster = Cluster::new();
    let pod = Pod::new(PodId::new("n", "pod"), Labels::new()).with_phase(Phase::Running);
    cluster.insert_pod(pod.with_addresses([IpAddr::from([10, 0, 0, 1])]));
    let open = PortEntry::Range { protocol: Protocol::Tcp, first: 80, last: 80 };
    let rule = TrafficMatch::new(Match::Any, Match::OneOf(vec![open]));
    let everything = Selector::everything();
    cluster.insert_policy(Policy::network_policy("n", "p", everything, Some(vec![rule]), None));
    cluster
}

/// New packets from and to that pod.
fn packets() -> Vec<(Packet, Path)> {
    let pod = Ipv4Addr::new(10, 0, 0, 1);
    let others =
        [0u32, 1, 0x0a00_0000, 0x0a00_0001, 0x0a00_0002, 0x7f00_0001, 0xc0a8_0001, u32::MAX];
    let mut packets = Vec::new();
    for other in others.map(Ipv4Addr::from_bits) {
        for (source, destination) in [(other, pod), (pod, other)] {
            for (protocol, port) in
                [(6, 79), (6, 80), (6, 81), (17, 80), (132, 80), (1, 0), (47, 80)]
            {
                packets.push((
                    Packet {
                        v6: false,
                        source: address_value(source.into()),
                        destination: address_value(destination.into()),
                        protocol,
                        first: 40000,
                        second: port,
                        in_device: device_value("eth7"),
                        out_device: device_value("eth8"),
                        state: ConnState::New,
                        reply: false,
                        mark: 0,
                    },
                    Path::Forward,
                ));
            }
        }
    }
    packets
}
