//! In a world so small that every packet can be tried, the prover by classes and the trial of each packet end alike:
//! for what either back end renders, and after any changes to it.
//!
//! `NETPOL_SMALL_WORLDS=2000 cargo test -p netpol-verify --test exhaustion` tries more; `NETPOL_SMALL_WORLD_BITS=6` larger ones.
#![expect(clippy::panic, reason = "a test ends where something is not as it must be")]

use netpol_core::{Cluster, NodeName, Options};
use netpol_host::HostOptions;
use netpol_testkit::enumeration::{Enumeration, Trial};
use netpol_testkit::mutation::{Mutation, mutations};
use netpol_testkit::rendered::{Layout, unguarded};
use netpol_testkit::small_world::SmallWorld;
use netpol_testkit::strategies::options;
use netpol_verify::machine::Machine;
use netpol_verify::{Conclusion, ProofOptions, Specification, prove, read_dumps};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;

fn number(variable: &str, otherwise: u32) -> u32 {
    let set = std::env::var_os(variable);
    set.and_then(|text| text.to_str()?.parse().ok()).unwrap_or(otherwise)
}

fn world() -> SmallWorld {
    SmallWorld::new(u8::try_from(number("NETPOL_SMALL_WORLD_BITS", 3)).unwrap_or(8))
}

/// What a back end makes of a cluster, and what comes of it by changes.
fn ruleset(
    cluster: &Cluster,
    node: Option<&NodeName>,
    policy: Options,
    layout: Layout,
    changes: &[Mutation],
) -> Machine {
    let host = HostOptions::default().with_policy(policy);
    let dumps = unguarded(cluster, node, host, layout);
    let mut machine = read_dumps(&dumps).unwrap_or_else(|error| panic!("{error}"));
    for change in changes {
        change.apply(&mut machine, world());
    }
    machine
}

#[test]
fn proofs_and_trials_of_every_packet_end_alike() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let flags = (any::<bool>(), select(&Layout::ALL[..]), any::<bool>());
    let drawn = (world().clusters(), options(), flags, vec(mutations(), 0..=8));
    let mut tally: BTreeMap<&str, usize> = BTreeMap::new();
    let mut packets = 0;
    for round in 0..number("NETPOL_SMALL_WORLDS", 40) {
        let tree = drawn.new_tree(&mut runner).unwrap_or_else(|error| panic!("{error}"));
        let (cluster, policy, (one_node, layout, others_may_drop), changes) = tree.current();
        let node = one_node.then(|| NodeName::from("node-1"));
        let machine = ruleset(&cluster, node.as_ref(), policy, layout, &changes);
        let specification = Specification::new(&cluster, node.as_ref(), policy);
        let mut options = ProofOptions::default().with_own_table("netpol").with_own_chains("NP");
        options.others_may_drop = others_may_drop;
        let report = prove(&machine, &specification, &options);
        let none = BTreeMap::new();
        let values = world().values();
        let all = Enumeration::new(&cluster, node.as_ref(), &values, policy, &none);
        packets += all.len();
        let trial = all.trial(&machine, &options.own, others_may_drop);
        let word = match (&report.conclusion, &trial) {
            (Conclusion::Proved, Trial::Right) => "proved",
            (Conclusion::Refuted(_), Trial::Wrong(_)) => "refuted",
            (Conclusion::NotProved { .. }, Trial::Unknown(_)) => "not proved",
            // There is nothing to prove of pods without addresses.
            (Conclusion::NotProved { example: None, not_understood }, Trial::Right)
                if not_understood.iter().all(|what| what.place == "manifests") =>
            {
                "nothing to prove"
            }
            (conclusion, trial) => panic!(
                "round {round}: {trial:?}, but {conclusion:?}\n{layout:?} {others_may_drop} {changes:?}\n{cluster:#?}\n{policy:?}"
            ),
        };
        *tally.entry(word).or_default() += 1;
    }
    println!("{tally:?}, {packets} packets, each in seven states");
    for word in ["proved", "refuted", "not proved"] {
        assert!(tally.get(word).is_some_and(|count| *count > 0), "{tally:?}");
    }
}
