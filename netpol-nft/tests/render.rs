//! The rendered text of an example, and that it depends on nothing but its input.

mod support;

use netpol_core::{Established, Options, OwnNodeEgress};
use netpol_host::{Denial, HostOptions};
use netpol_nft::{Guard, NftOptions, layout, script};
use netpol_testkit::samples::policed_shop;
use support::cluster_ruleset;

#[test]
fn the_shop() {
    let layout = layout(&cluster_ruleset(&policed_shop()), &NftOptions::default());
    assert_eq!(layout.defects, []);
    insta::assert_snapshot!("shop", script(&layout.model));
}

#[test]
fn the_shop_with_other_options() {
    let policy = Options::default()
        .with_established(Established::ReEvaluate)
        .with_own_node_egress(OwnNodeEgress::Allow);
    let host =
        HostOptions::default().with_policy(policy).with_denial(Denial::Reject).with_log(Some(7));
    let options = NftOptions::from(host).with_guard(Guard::Prerouting);
    let layout = layout(&cluster_ruleset(&policed_shop()), &options);
    insta::assert_snapshot!("shop_options", script(&layout.model));
}

#[test]
fn equal_input_gives_equal_text() {
    let text = || script(&layout(&cluster_ruleset(&policed_shop()), &NftOptions::default()).model);
    assert_eq!(text(), text());
}
