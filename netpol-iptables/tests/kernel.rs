//! The real kernel, in private network namespaces, with both implementations of iptables: is everything accepted, and does
//! applying do what it promises? Needs root, iptables, ipset and iproute2.
#![expect(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

#[path = "../../netpol-nft/tests/support/mod.rs"]
mod support;

use netpol_core::{Backend, Inventory};
use netpol_iptables::{Flavor, Iptables, IptablesOptions};
use support::{Netns, cluster_ruleset, policed_shop, shop};

fn options(flavor: Flavor) -> IptablesOptions {
    IptablesOptions::default().with_flavor(Some(flavor))
}

#[test]
fn there_and_back_again() {
    for flavor in Flavor::ALL {
        let (a, b) = (cluster_ruleset(&shop()), cluster_ruleset(&policed_shop()));
        let netns = Netns::new();
        let mut iptables = Iptables::new(netns.host(), options(flavor));
        iptables.replace(&a).unwrap();
        iptables.replace(&b).unwrap();
        assert_eq!(iptables.plan(&b).unwrap().script(), "");
        assert_eq!(iptables.installed().unwrap(), Some(Inventory::of(&b)));
        iptables.replace(&a).unwrap();
        assert_eq!(iptables.installed().unwrap(), Some(Inventory::of(&a)));
        iptables.remove().unwrap();
    }
}
