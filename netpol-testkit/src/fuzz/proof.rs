//! What the prover says is so: of what is rendered for any manifests, and in small worlds packet by packet.

use super::{check, text};
use crate::enumeration::{Enumeration, Trial};
use crate::mutation::{Mutation, mutations};
use crate::rendered::{Layout, unguarded};
use crate::small_world::SmallWorld;
use crate::strategies::options;
use netpol_core::{Cluster, NodeName, Options};
use netpol_host::{Denial, HostOptions};
use netpol_iptables::Flavor;
use netpol_k8s::Reader;
use netpol_verify::machine::{Machine, Own};
use netpol_verify::{Conclusion, ProofOptions, Report, Specification, prove, read_dumps};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;

/// Manifests, any at all: what netpol-nft and netpol-iptables render for them, read back from its text, is never refuted.
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
    let flavor = if flags & 4 == 4 { Flavor::Nft } else { Flavor::Legacy };
    for layout in [Layout::Nft, Layout::Iptables(flavor)] {
        let dumps = unguarded(cluster, node.as_ref(), host.clone(), layout);
        let Ok(machine) = read_dumps(&dumps) else { panic!("what is rendered is read: {text:?}") };
        let report = report(&machine, cluster, node.as_ref(), Options::default());
        let nothing = |what: &netpol_verify::machine::NotUnderstood| what.place == "manifests";
        match &report.conclusion {
            Conclusion::Proved => {}
            Conclusion::NotProved { not_understood, .. } if not_understood.iter().all(nothing) => {}
            other => panic!("what is rendered is proved: {text:?}: {other:?}"),
        }
    }
}

/// Bytes that draw a small world, its policies, a back end, and changes of its rules: the prover says what a trial of all
/// packets says.
pub fn prover(data: &[u8]) {
    let world = SmallWorld::new(1);
    let (first, changes) = data.split_at(data.len().min(16));
    let policies = (world.clusters(), options(), any::<bool>());
    let Some((cluster, policy, one_node)) = drawn(&policies, first) else { return };
    let Some((layout, others_may_drop)) = drawn(&(select(&Layout::ALL[..]), any::<bool>()), first)
    else {
        return;
    };
    // Eight bytes for each, so that a fuzzer can take one out or put one in.
    let changes = changes.chunks(8).take(8);
    let changes: Vec<Mutation> = changes.filter_map(|bytes| drawn(&mutations(), bytes)).collect();
    let node = one_node.then(|| NodeName::from("node-1"));
    let host = HostOptions::default().with_policy(policy);
    let dumps = unguarded(&cluster, node.as_ref(), host, layout);
    let Ok(mut machine) = read_dumps(&dumps) else { panic!("what is rendered is read") };
    for change in &changes {
        change.apply(&mut machine, world);
    }
    let own = Own::default().with_table(TABLE).with_chains(PREFIX);
    let mut options = ProofOptions::default();
    (options.own, options.others_may_drop) = (own.clone(), others_may_drop);
    let specification = Specification::new(&cluster, node.as_ref(), policy);
    let report = prove(&machine, &specification, &options);
    let interfaces = BTreeMap::new();
    let packets = Enumeration::new(&cluster, node.as_ref(), &world.values(), policy, &interfaces);
    let trial = packets.trial(&machine, &own, others_may_drop);
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
const PREFIX: &str = "NP";

fn report(
    machine: &Machine,
    cluster: &Cluster,
    node: Option<&NodeName>,
    policy: Options,
) -> Report {
    let specification = Specification::new(cluster, node, policy);
    prove(
        machine,
        &specification,
        &ProofOptions::default().with_own_table(TABLE).with_own_chains(PREFIX),
    )
}
