//! The rendered text of an example, and that it depends on nothing but its input.

#[path = "../../netpol-nft/tests/support/mod.rs"]
mod support;

use netpol_core::{Cluster, Established, Family, Options, OtherProtocols, OwnNodeEgress};
use netpol_host::{Denial, HostOptions};
use netpol_iptables::{IptablesOptions, layout, text};
use netpol_testkit::samples::policed_shop;
use support::cluster_ruleset;

fn files(cluster: &Cluster, options: &IptablesOptions) -> String {
    let layout = layout(&cluster_ruleset(cluster), options);
    assert_eq!(layout.defects, []);
    let model = &layout.model;
    [
        text::ipset(model),
        text::iptables(model, Family::V4),
        text::iptables(model, Family::V6),
        text::load_script(model),
    ]
    .join("\n")
}

#[test]
fn the_shop() {
    insta::assert_snapshot!("shop", files(&policed_shop(), &IptablesOptions::default()));
}

#[test]
fn the_shop_with_other_options() {
    let policy = Options::default()
        .with_established(Established::ReEvaluate)
        .with_other_protocols(OtherProtocols::Allow)
        .with_own_node_egress(OwnNodeEgress::Allow);
    let host =
        HostOptions::default().with_policy(policy).with_denial(Denial::Reject).with_log(Some(7));
    insta::assert_snapshot!("shop_options", files(&policed_shop(), &host.into()));
}

#[test]
fn equal_input_gives_equal_text() {
    let text = || files(&policed_shop(), &IptablesOptions::default());
    assert_eq!(text(), text());
}
