//! What the kernel lists after netpol-nft loaded it, in a network namespace. Needs root, nft and ip.
mod support;

use netpol_core::{Scope, compile};
use netpol_host::{Denial, HostOptions};
use netpol_nft::{Guard, NftOptions, layout, script};
use netpol_testkit::strategies::{clusters, options};
use netpol_verify::Conclusion;
use proptest::prelude::*;
use std::collections::BTreeMap;
use support::{Netns, devices, interfaces, report};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40, failure_persistence: None, max_shrink_iters: 40, ..Default::default()
    })]

    #[test]
    fn what_the_kernel_lists_is_proved(
        cluster in clusters(),
        policy in options(),
        guard in prop_oneof![Just(Guard::Off), Just(Guard::Prerouting), Just(Guard::Ingress)],
        reject in any::<bool>(),
        one_node in any::<bool>(),
    ) {
        let node = cluster.nodes().next().map(|node| node.name().clone()).filter(|_| one_node);
        let interfaces = interfaces(&cluster);
        let host = HostOptions::default()
            .with_policy(policy)
            .with_denial(if reject { Denial::Reject } else { Denial::Drop })
            .with_interfaces(devices(&interfaces));
        let options = NftOptions::from(host).with_guard(guard);
        let namespace = Netns::new();
        for device in interfaces.values() {
            let peer = format!("peer-{device}");
            namespace.ok(&["ip", "link", "add", device, "type", "veth", "peer", "name", &peer], "");
        }
        let scope = node.as_ref().map_or(Scope::Cluster, Scope::Node);
        let ruleset = compile(&cluster, scope).unwrap();
        namespace.ok(&["nft", "-f", "-"], &script(&layout(&ruleset, &options).model));
        let machine = namespace.machine();
        let known = if guard == Guard::Off { BTreeMap::new() } else { interfaces };
        let report = report(&machine, &cluster, node.as_ref(), policy, &known);
        match &report.conclusion {
            Conclusion::Proved => {}
            Conclusion::NotProved { example: None, not_understood }
                if not_understood.iter().all(|what| what.place == "manifests") => {}
            Conclusion::Refuted(all) => prop_assert!(false, "{:?}", all.first().map(ToString::to_string)),
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
