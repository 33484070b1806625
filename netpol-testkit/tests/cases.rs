//! The case files say what each rule of the semantics means; the specification and the simulator both agree with them.
#![expect(clippy::panic, reason = "a test ends where something is not as it must be")]

use netpol_sim::Simulator;
use netpol_testkit::{Judge, Reference, cases};
use std::collections::BTreeSet;

fn all() -> Vec<cases::Case> {
    cases::load_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../cases"))
        .unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn check(judge: &mut dyn Judge) {
    let report = cases::run(&all(), judge);
    assert!(report.failures().is_empty(), "{report}");
    assert!(report.probes() > 10_000, "{report}");
}

#[test]
fn the_specification_agrees() {
    check(&mut Reference::new());
}

#[test]
fn the_simulator_agrees() {
    check(&mut Simulator::default());
}

/// Rules of the semantics that a connection can show, and that this project implements, all have a case.
#[test]
fn every_rule_has_a_case() {
    let shown: BTreeSet<String> =
        all().iter().flat_map(|case| case.rules().map(str::to_owned).collect::<Vec<_>>()).collect();
    let numbers = |prefix: &str, ranges: &[std::ops::RangeInclusive<u32>]| -> Vec<String> {
        ranges.iter().cloned().flatten().map(|n| format!("{prefix}-{n:02}")).collect()
    };
    let mut wanted = numbers("NP", &[1..=9, 11..=16, 20..=27, 30..=36, 40..=50, 60..=60, 62..=62]);
    wanted.extend(numbers(
        "NP",
        &[70..=71, 73..=73, 80..=80, 90..=95, 97..=98, 100..=102, 120..=123],
    ));
    wanted.extend(numbers("E2E", &[1..=48]));
    wanted.extend(numbers("RCP", &[0..=12, 14..=14]));
    wanted.extend(numbers("X", &[1..=28, 31..=35, 37..=43, 61..=63, 66..=66]));
    wanted.extend(numbers("X", &[56..=59]));
    wanted.extend(numbers("LEG", &[1..=7, 20..=27]));
    wanted.extend(numbers("CNP", &[1..=5, 10..=22, 30..=41, 43..=44]));
    wanted.extend(numbers("NPA", &[1..=13]));
    wanted.extend(numbers("X", &[44..=54]));
    let missing: Vec<_> = wanted.iter().filter(|rule| !shown.contains(*rule)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}
