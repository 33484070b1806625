//! Every change of a ruleset that changes what it does is refuted; every other one is proved.
//!
//! What a change does is decided packet by packet (`support/universe.rs`), without the prover.
#[path = "support/mutation.rs"]
mod mutation;
#[path = "support/nft_mutants.rs"]
mod nft_mutants;
mod support;
#[path = "support/universe.rs"]
mod universe;

use mutation::{check_clusters, check_guard, guarded_cluster};
use netpol_core::Cluster;
use netpol_host::HostOptions;
use netpol_nft::{Guard, NftOptions};
use nft_mutants::mutants;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use support::{listing, machine};
use universe::addresses_in;

fn addresses(listing: &Value) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    addresses_in(listing, &mut found);
    found
}

#[test]
fn meaningful_mutants_are_refuted_and_others_are_proved() {
    let rendered = |cluster: &Cluster, policy, _: &mut TestRunner| {
        let host = HostOptions::default().with_policy(policy);
        listing(cluster, None, &NftOptions::from(host).with_guard(Guard::Off))
    };
    check_clusters(rendered, mutants, machine, addresses);
}

#[test]
fn mutants_of_the_source_guard() {
    let cluster = guarded_cluster();
    let devices = support::devices(&support::interfaces(&cluster));
    let host = HostOptions::default().with_interfaces(devices);
    let base = listing(&cluster, None, &NftOptions::from(host).with_guard(Guard::Prerouting));
    let all = mutants(&base, &mut |_| true).into_iter();
    check_guard(&cluster, all.map(|(what, mutant)| (what, machine(&mutant))), addresses(&base));
}
