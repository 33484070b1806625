//! Every back end of this project meets the suite. A new one is a candidate and a line.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests, too, fail by panicking"
)]

mod iptables;
mod nftables;

use netpol_conformance::{Abilities, Candidate, Enforcer, Settings, suite};
use netpol_sim::Simulator;
use netpol_testkit::Judge;

/// The simulator, which enforces nothing.
struct Simulated;

impl Candidate for Simulated {
    fn name(&self) -> &'static str {
        "simulator"
    }

    fn abilities(&self) -> Abilities {
        Abilities { reads_back: true, keeps: true, atomic: true, ..Abilities::default() }
    }

    fn start(&self, settings: &Settings) -> Box<dyn Enforcer> {
        Box::new(Simulator::with_options(settings.host.policy()))
    }

    fn judge(&self) -> Option<Box<dyn Judge>> {
        Some(Box::new(Simulator::default()))
    }
}

suite!(simulator, super::Simulated);
suite!(nft, super::nftables::Nft::default());
suite!(nft_by_device, super::nftables::Nft::by_device());
suite!(nft_script, super::nftables::Nft::script());
suite!(nft_objects, super::nftables::Nft::objects());
suite!(iptables_legacy, super::iptables::IptablesWith::backend(netpol_iptables::Flavor::Legacy));
suite!(iptables_nft, super::iptables::IptablesWith::backend(netpol_iptables::Flavor::Nft));
suite!(iptables_files, super::iptables::IptablesWith::files(netpol_iptables::Flavor::Legacy));

/// From nftables to either iptables and on, three times around: nothing is open and nothing is cut off in between.
#[test]
fn changing_the_back_end_loses_and_leaks_nothing() {
    let nft = nftables::Nft::default();
    let legacy = iptables::IptablesWith::backend(netpol_iptables::Flavor::Legacy);
    let seen = netpol_conformance::updates::migrations_under_flood(&[&nft, &legacy]);
    println!("nftables and iptables-legacy: {seen}");
    assert_eq!((seen.lost, seen.leaked), (0, 0));
    let iptables_nft = iptables::IptablesWith::backend(netpol_iptables::Flavor::Nft);
    let seen = netpol_conformance::updates::migrations_under_flood(&[&nft, &iptables_nft]);
    println!("nftables and iptables-nft: {seen}");
    assert_eq!((seen.lost, seen.leaked), (0, 0));
}
