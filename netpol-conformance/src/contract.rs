//! What [`netpol_core::Backend`] promises, apart from the fate of packets.

use crate::candidate::{Candidate, Enforcer, Settings};
use netpol_core::{
    Cluster, Delta, Established, Inventory, Options, OtherProtocols, OwnNodeEgress, Ruleset, Scope,
    compile,
};
use netpol_host::{Denial, HostOptions};
use netpol_lab::{Lab, Place, Plan};
use netpol_testkit::samples::{every_shape_of_rule, hostile_names, policed_shop, shop};
use netpol_testkit::strategies::{clusters, clusters_with_edits};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Does this where it can do no harm: in a network namespace of its own, if the candidate works in a kernel.
fn somewhere<T: Send>(candidate: &dyn Candidate, task: impl FnOnce() -> T + Send) -> T {
    if candidate.judge().is_some() {
        return task();
    }
    let lab = Lab::new(&Plan::new()).unwrap_or_else(|error| panic!("{error}"));
    lab.run(&Place::Node, task).expect("there is a node")
}

fn rules(cluster: &Cluster) -> Ruleset {
    compile(cluster, Scope::Cluster).expect("it can be compiled")
}

fn replace(candidate: &dyn Candidate, enforcer: &mut dyn Enforcer, ruleset: &Ruleset) {
    let done = enforcer.replace(ruleset);
    done.unwrap_or_else(|error| panic!("{}: {error}", candidate.name()));
}

/// What is installed is what the ruleset says.
fn assert_installed(candidate: &dyn Candidate, enforcer: &mut dyn Enforcer, ruleset: &Ruleset) {
    if candidate.abilities().reads_back {
        let installed =
            enforcer.installed().unwrap_or_else(|e| panic!("{}: {e}", candidate.name()));
        assert_eq!(installed, Some(Inventory::of(ruleset)), "{}", candidate.name());
    }
}

/// Every choice that an operator has, one at a time.
fn choices(candidate: &dyn Candidate) -> Vec<HostOptions> {
    let base = HostOptions::default;
    let policy = Options::default;
    let mut choices = vec![
        base(),
        base().with_log(Some(10)),
        base().with_counters(false),
        base().with_policy(policy().with_established(Established::ReEvaluate)),
        base().with_policy(policy().with_other_protocols(OtherProtocols::Allow)),
        base().with_policy(policy().with_own_node_egress(OwnNodeEgress::Allow)),
    ];
    if candidate.abilities().rejects {
        choices.push(base().with_denial(Denial::Reject).with_log(Some(10)));
    }
    choices
}

/// F06: every combination of kinds of peers, of ports and verdicts, and every option, is accepted and read back.
pub fn every_shape_of_rule_is_accepted(candidate: &dyn Candidate) {
    let grid = (rules(&every_shape_of_rule()), HostOptions::default());
    let shop = rules(&policed_shop());
    let choices = choices(candidate).into_iter().map(|choice| (shop.clone(), choice));
    for (ruleset, choice) in choices.chain([grid]) {
        somewhere(candidate, || {
            let mut enforcer = candidate.start(&choice.into());
            replace(candidate, &mut *enforcer, &ruleset);
            assert_installed(candidate, &mut *enforcer, &ruleset);
        });
    }
}

/// F23, F74, F98: names stay names, whatever is in them, and different ones stay different.
pub fn hostile_names_stay_names(candidate: &dyn Candidate) {
    let ruleset = rules(&hostile_names());
    somewhere(candidate, || {
        candidate.add_foreign();
        let before = candidate.snapshot();
        let mut enforcer = candidate.start(&HostOptions::default().with_log(Some(1)).into());
        replace(candidate, &mut *enforcer, &ruleset);
        assert_installed(candidate, &mut *enforcer, &ruleset);
        enforcer.remove().unwrap();
        assert_eq!(candidate.snapshot(), before, "{}", candidate.name());
    });
}

/// What is enforced already is not touched, not even by a process that did not install it.
pub fn applying_again_changes_nothing(candidate: &dyn Candidate) {
    if !candidate.abilities().keeps {
        return;
    }
    let ruleset = rules(&policed_shop());
    somewhere(candidate, || {
        replace(candidate, &mut *candidate.start(&Settings::default()), &ruleset);
        let before = candidate.snapshot();
        let mut next = candidate.start(&Settings::default());
        replace(candidate, &mut *next, &ruleset);
        next.apply(&Delta::default()).unwrap();
        assert_eq!(candidate.snapshot(), before, "{}", candidate.name());
    });
}

/// From one ruleset to another and back.
pub fn there_and_back_again(candidate: &dyn Candidate) {
    let (a, b) = (rules(&shop()), rules(&policed_shop()));
    somewhere(candidate, || {
        let mut enforcer = candidate.start(&Settings::default());
        for ruleset in [&a, &b, &a, &b] {
            replace(candidate, &mut *enforcer, ruleset);
            assert_installed(candidate, &mut *enforcer, ruleset);
        }
    });
}

/// Changes, one after the other, lead where replacing everything leads.
pub fn deltas_lead_where_replacing_leads(candidate: &dyn Candidate) {
    let mut runner = TestRunner::new(ProptestConfig { cases: 12, ..ProptestConfig::default() });
    let done = runner.run(&clusters_with_edits(), |(mut cluster, edits)| {
        somewhere(candidate, || {
            let mut enforcer = candidate.start(&Settings::default());
            let mut ruleset = rules(&cluster);
            replace(candidate, &mut *enforcer, &ruleset);
            for edit in edits {
                edit.apply(&mut cluster);
                let next = rules(&cluster);
                enforcer.apply(&Delta::between(&ruleset, &next)).unwrap();
                ruleset = next;
                assert_installed(candidate, &mut *enforcer, &ruleset);
            }
        });
        Ok(())
    });
    done.unwrap();
}

/// Rules of others stay as they are while ours come and go, and nothing of ours stays.
pub fn others_are_untouched_and_removal_leaves_no_trace(candidate: &dyn Candidate) {
    let ruleset = rules(&policed_shop());
    somewhere(candidate, || {
        candidate.add_foreign();
        let before = candidate.snapshot();
        let mut enforcer = candidate.start(&Settings::default());
        enforcer.remove().unwrap();
        assert_eq!(candidate.snapshot(), before, "{}: there was nothing", candidate.name());
        replace(candidate, &mut *enforcer, &ruleset);
        let during = candidate.snapshot();
        for line in before.lines() {
            assert!(during.lines().any(|other| other == line), "{}: {line}", candidate.name());
        }
        enforcer.remove().unwrap();
        assert_eq!(candidate.snapshot(), before, "{}", candidate.name());
        enforcer.remove().unwrap();
        if candidate.abilities().reads_back {
            assert_eq!(enforcer.installed().unwrap(), None, "{}", candidate.name());
        }
    });
}

/// Random clusters are accepted, and what is read back is what was meant.
pub fn random_clusters_are_read_back(candidate: &dyn Candidate) {
    let mut runner = TestRunner::new(ProptestConfig { cases: 20, ..ProptestConfig::default() });
    let done = runner.run(&clusters(), |cluster| {
        let ruleset = rules(&cluster);
        somewhere(candidate, || {
            let mut enforcer = candidate.start(&Settings::default());
            replace(candidate, &mut *enforcer, &ruleset);
            assert_installed(candidate, &mut *enforcer, &ruleset);
        });
        Ok(())
    });
    done.unwrap();
}
