//! Every change of a listing of iptables or ipset that changes what the rules do is refuted; every other one is proved.
//!
//! What a change does is decided packet by packet (`support/universe.rs`), without the prover.
#[path = "support/iptables_mutants.rs"]
mod iptables_mutants;
#[path = "support/mutation.rs"]
mod mutation;
mod support;
#[path = "support/universe.rs"]
mod universe;

use iptables_mutants::mutants;
use mutation::{check_clusters, check_guard, guarded_cluster};
use netpol_core::Cluster;
use netpol_host::{Denial, HostOptions};
use netpol_iptables::{Flavor, Guard, IptablesOptions};
use netpol_testkit::rendered::iptables_dumps;
use netpol_verify::{Dump, read_dumps};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;
use std::net::IpAddr;
use universe::addresses_in_text;

fn addresses(dumps: &[Dump]) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    dumps.iter().for_each(|dump| addresses_in_text(&dump.text, &mut found));
    found
}

#[test]
fn meaningful_mutants_are_refuted_and_others_are_proved() {
    let rendered = |cluster: &Cluster, policy, runner: &mut TestRunner| {
        let flavor = if runner.rng().random() { Flavor::Nft } else { Flavor::Legacy };
        let denial = if runner.rng().random() { Denial::Drop } else { Denial::Reject };
        let host = HostOptions::default().with_policy(policy).with_denial(denial);
        let options = IptablesOptions::from(host).with_guard(Guard::Off);
        iptables_dumps(cluster, None, &options, flavor)
    };
    check_clusters(
        rendered,
        |base: &Vec<Dump>, pick: &mut dyn FnMut(usize) -> bool| mutants(base, pick),
        |dumps| read_dumps(dumps).unwrap(),
        |dumps| addresses(dumps),
    );
}

#[test]
fn mutants_of_the_source_guard() {
    let cluster = guarded_cluster();
    let devices = support::devices(&support::interfaces(&cluster));
    let options = IptablesOptions::from(HostOptions::default().with_interfaces(devices));
    let base = iptables_dumps(&cluster, None, &options, Flavor::Legacy);
    let all = mutants(&base, &mut |_| true).into_iter();
    check_guard(
        &cluster,
        all.map(|(what, mutant)| (what, read_dumps(&mutant).unwrap())),
        addresses(&base),
    );
}
