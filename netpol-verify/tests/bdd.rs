//! Two engines with nothing in common say the same: of what netpol-nft makes, of its mutants, of rules that nobody would
//! write, and of rulesets that break one expectation each.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

#[path = "support/mutation.rs"]
mod mutation;
#[path = "support/soup.rs"]
mod soup;
mod support;

use mutation::mutants;
use netpol_core::{Cluster, NodeName, Options, PodId};
use netpol_host::{Denial, HostOptions};
use netpol_nft::{Dispatch, Guard, NftOptions};
use netpol_testkit::strategies::{clusters, options};
use netpol_verify::machine::Machine;
use netpol_verify::{Conclusion, ProofOptions, Report, Specification, bdd, prove};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::cell::Cell;
use std::collections::BTreeMap;
use support::{devices, interfaces, listing, machine};

/// What an engine came to, without its reasons.
fn word(conclusion: &Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Proved => "proved",
        Conclusion::Refuted(_) => "refuted",
        Conclusion::NotProved { .. } => "not proved",
    }
}

fn both(
    machine: &Machine,
    cluster: &Cluster,
    node: Option<&NodeName>,
    policy: Options,
    options: &ProofOptions,
) -> (Report, bdd::Proof) {
    let specification = Specification::new(cluster, node, policy);
    (prove(machine, &specification, options), bdd::prove(machine, &specification, options))
}

fn proof_options(interfaces: &BTreeMap<PodId, String>) -> ProofOptions {
    ProofOptions::default().with_own_table("netpol").with_interfaces(interfaces.clone())
}

/// How many cases; more by the environment.
fn cases(usual: u32) -> u32 {
    let times = std::env::var("NETPOL_BDD_TIMES").ok().and_then(|times| times.parse().ok());
    usual * times.unwrap_or(1)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(150), failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn what_is_rendered_is_proved_by_both(
        cluster in clusters(),
        policy in options(),
        guard in prop_oneof![Just(Guard::Off), Just(Guard::Prerouting)],
        by_interface in any::<bool>(),
        reject in any::<bool>(),
        one_node in any::<bool>(),
        knows in any::<bool>(),
    ) {
        let node = cluster.nodes().next().map(|node| node.name().clone()).filter(|_| one_node);
        let interfaces = interfaces(&cluster);
        let host = HostOptions::default()
            .with_policy(policy)
            .with_denial(if reject { Denial::Reject } else { Denial::Drop })
            .with_interfaces(devices(&interfaces));
        let dispatch = if by_interface { Dispatch::Interface } else { Dispatch::Address };
        let nft = NftOptions::from(host).with_guard(guard).with_dispatch(dispatch);
        let machine = machine(&listing(&cluster, node.as_ref(), &nft));
        // Rules by interface mean nothing to who does not know the interfaces.
        let known = by_interface || knows;
        let known = known && guard != Guard::Off;
        let interfaces = if known { interfaces } else { Default::default() };
        let (one, two) =
            both(&machine, &cluster, node.as_ref(), policy, &proof_options(&interfaces));
        prop_assert_eq!(word(&one.conclusion), word(&two.conclusion), "{:#?}\n{:#?}", one, two);
        if !by_interface {
            let nobody = cluster.address_owners().is_empty() || node.is_some();
            prop_assert!(two.is_proved() || nobody, "{:#?}", two);
        }
    }
}

#[test]
fn mutants_are_judged_alike() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[11; 32]);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let mut tally: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..cases(8) {
        let cluster = clusters().new_tree(&mut runner).unwrap().current();
        let policy = options().new_tree(&mut runner).unwrap().current();
        let guarded = round % 2 == 1;
        let interfaces = if guarded { interfaces(&cluster) } else { BTreeMap::new() };
        let host = HostOptions::default().with_policy(policy).with_interfaces(devices(&interfaces));
        let guard = if guarded { Guard::Prerouting } else { Guard::Off };
        let base = listing(&cluster, None, &NftOptions::from(host).with_guard(guard));
        let mut all = mutants(&base, |of| runner.rng().random_range(0..of) == 0);
        while all.len() > 60 {
            let at = runner.rng().random_range(0..all.len());
            all.swap_remove(at);
        }
        // Every other guarded ruleset is read by who does not know the interfaces.
        let known = if round % 4 == 1 { BTreeMap::new() } else { interfaces };
        for (what, mutant) in all {
            let (one, two) =
                both(&machine(&mutant), &cluster, None, policy, &proof_options(&known));
            let (one, two) = (one.conclusion, two.conclusion);
            assert_eq!(word(&one), word(&two), "{what}\n{one:#?}\n{two:#?}\n{cluster:#?}");
            *tally.entry(word(&two)).or_default() += 1;
        }
    }
    println!("{tally:?}");
    assert!(tally["proved"] > 50 && tally["refuted"] > 50, "{tally:?}");
}

#[test]
fn foreign_rules_are_judged_alike() {
    let config = ProptestConfig {
        cases: cases(600),
        failure_persistence: None,
        max_shrink_iters: 3000,
        ..ProptestConfig::default()
    };
    let tally: [Cell<usize>; 3] = Default::default();
    let done = TestRunner::new(config).run(&soup::soups(), |soup| {
        let machine = soup.machine();
        let cluster = soup.cluster();
        let (one, two) = both(&machine, &cluster, None, soup.options(), &soup.proof_options());
        prop_assert_eq!(
            word(&one.conclusion),
            word(&two.conclusion),
            "{:#?}\n{:#?}\n{:#?}",
            one.conclusion,
            two.conclusion,
            machine
        );
        let at =
            ["proved", "refuted", "not proved"].iter().position(|w| *w == word(&two.conclusion));
        let cell = &tally[at.unwrap()];
        cell.set(cell.get() + 1);
        Ok(())
    });
    println!("proved, refuted, not proved: {tally:?}");
    if let Err(error) = done {
        panic!("{error}");
    }
    assert!(tally.iter().all(|count| count.get() > 20), "{tally:?}");
}
