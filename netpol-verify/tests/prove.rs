//! What netpol-nft makes of any cluster is proved; without a kernel, from the objects that it would load.
mod support;

use netpol_nft::Guard;
use netpol_testkit::strategies::clusters;
use netpol_verify::Conclusion;
use proptest::prelude::*;
use support::{devices, interfaces, listing, machine, nft_options, report};

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_rendered_is_proved(
        cluster in clusters(),
        options in nft_options(),
        one_node in any::<bool>(),
        knows in any::<bool>(),
    ) {
        let node = cluster.nodes().next().map(|node| node.name().clone()).filter(|_| one_node);
        let interfaces = interfaces(&cluster);
        let host = options.host().clone().with_interfaces(devices(&interfaces));
        let options = options.with_host(host);
        let machine = machine(&listing(&cluster, node.as_ref(), &options));
        let known = knows && options.guard() != Guard::Off;
        let interfaces = if known { interfaces } else { Default::default() };
        let report = report(&machine, &cluster, node.as_ref(), options.host().policy(), &interfaces);
        match &report.conclusion {
            Conclusion::Proved => {}
            Conclusion::NotProved { example: None, not_understood }
                if not_understood.iter().all(|what| what.place == "manifests") => {}
            Conclusion::Refuted(all) => prop_assert!(false, "{}", all[0]),
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
