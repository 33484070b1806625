//! Every input that fuzzing starts from, or once broke something with, is run again.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

use netpol_testkit::fuzz;
use std::path::Path;

#[track_caller]
fn replay(target: &str, entry: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut inputs = 0;
    for file in
        std::fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()))
    {
        entry(&std::fs::read(file.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "no input for {target}");
}

#[test]
fn manifest() {
    replay("manifest", fuzz::manifest);
}

#[test]
fn cluster_policy() {
    replay("cluster_policy", fuzz::cluster_policy);
}

#[test]
fn selector() {
    replay("selector", fuzz::selector);
}

#[test]
fn cidr() {
    replay("cidr", fuzz::cidr);
}

#[test]
fn label_value() {
    replay("label_value", fuzz::label_value);
}

#[test]
fn port() {
    replay("port", fuzz::port);
}

#[test]
fn alpha() {
    replay("alpha", fuzz::alpha);
}

#[test]
fn v1beta1() {
    replay("v1beta1", fuzz::v1beta1);
}

#[test]
fn nft_listing() {
    replay("nft_listing", fuzz::nft_listing);
}

#[test]
fn iptables_save() {
    replay("iptables_save", fuzz::iptables_save);
}

#[test]
fn ipset_save() {
    replay("ipset_save", fuzz::ipset_save);
}

#[test]
fn proved() {
    replay("proved", fuzz::proved);
}

#[test]
fn prover() {
    replay("prover", fuzz::prover);
}
