//! What netpol-iptables makes of any cluster is proved: from the text that it renders, and as the kernel lists it, on both
//! implementations. Needs root, iptables, ipset and ip.

#[path = "support/iptables.rs"]
mod rendered;
mod support;

use netpol_core::{
    Backend as _, Cluster, Labels, NodeName, Options, Pod, PodId, Policy, Scope, compile,
};
use netpol_host::Host;
use netpol_iptables::{Flavor, Guard, Iptables, IptablesOptions};
use netpol_testkit::samples::is;
use netpol_testkit::strategies::clusters;
use netpol_verify::machine::Machine;
use netpol_verify::{Conclusion, ProofOptions, Report, Specification, prove};
use proptest::prelude::*;
use rendered::{flavors, iptables_options};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use support::{Netns, devices, interfaces};

fn report(
    machine: &Machine,
    cluster: &Cluster,
    node: Option<&NodeName>,
    policy: Options,
    interfaces: &BTreeMap<PodId, String>,
    guard: Guard,
) -> Report {
    let options = ProofOptions::default().with_own_table("netpol").with_own_chains("NP");
    let options = options.with_interfaces(interfaces.clone());
    let options = if guard == Guard::Off { options.without_guard() } else { options };
    prove(machine, &Specification::new(cluster, node, policy), &options)
}

/// Is it proved, or is there nothing to be proved of pods without addresses?
fn is_proved(report: &Report) -> Result<(), String> {
    match &report.conclusion {
        Conclusion::Proved => Ok(()),
        Conclusion::NotProved { example: None, not_understood }
            if not_understood.iter().all(|what| what.place == "manifests") =>
        {
            Ok(())
        }
        Conclusion::Refuted(all) => Err(all.iter().take(1).map(ToString::to_string).collect()),
        other => Err(format!("{other:?}")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_rendered_is_proved(
        cluster in clusters(),
        options in iptables_options(),
        flavor in flavors(),
        one_node in any::<bool>(),
        knows in any::<bool>(),
    ) {
        let node = cluster.nodes().next().map(|node| node.name().clone()).filter(|_| one_node);
        let all = interfaces(&cluster);
        let host = options.host().clone();
        let host = if knows { host.with_interfaces(devices(&all)) } else { host };
        let options = options.with_host(host);
        let machine = rendered::machine(&rendered::dumps(&cluster, node.as_ref(), &options, flavor));
        let known = if knows { all } else { BTreeMap::new() };
        let policy = options.host().policy();
        let report = report(&machine, &cluster, node.as_ref(), policy, &known, options.guard());
        prop_assert_eq!(is_proved(&report), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40, failure_persistence: None, max_shrink_iters: 20, ..Default::default()
    })]

    #[test]
    fn what_the_kernel_lists_is_proved(
        cluster in clusters(),
        options in iptables_options(),
        flavor in flavors(),
        one_node in any::<bool>(),
    ) {
        let node = cluster.nodes().next().map(|node| node.name().clone()).filter(|_| one_node);
        let all = interfaces(&cluster);
        let host = options.host().clone().with_interfaces(devices(&all));
        let options = options.with_host(host).with_flavor(Some(flavor));
        let namespace = Netns::new();
        let scope = node.as_ref().map_or(Scope::Cluster, Scope::Node);
        let ruleset = compile(&cluster, scope).unwrap();
        let guard = options.guard();
        let policy = options.host().policy();
        Iptables::new(Host::in_namespace(namespace.name()), options).replace(&ruleset).unwrap();
        let machine = namespace.kernel().machine().unwrap();
        prop_assert!(machine.not_understood.is_empty(), "{:?}", machine.not_understood);
        let report = report(&machine, &cluster, node.as_ref(), policy, &all, guard);
        prop_assert_eq!(is_proved(&report), Ok(()));
    }
}

/// Chains go deep where there are many addresses: IPv6 addresses have 32 digits.
#[test]
fn a_large_node_is_proved() {
    let mut cluster = Cluster::new();
    for number in 0u32..200 {
        let digits = number.wrapping_mul(0x9e37_79b9);
        let v4 = Ipv4Addr::from_bits(0x0a00_0000 | digits >> 8);
        let v6 = Ipv6Addr::from_bits(
            0xfd00 << 112 | u128::from(digits) << 64 | u128::from(digits.reverse_bits()),
        );
        let labels = Labels::from_iter([("app", if number % 7 == 0 { "db" } else { "web" })]);
        let pod = Pod::new(PodId::new("n", format!("p{number}")), labels);
        cluster.insert_pod(pod.with_addresses([v4.into(), v6.into()]));
    }
    cluster.insert_policy(Policy::network_policy(
        "n",
        "deny",
        is("db"),
        Some(vec![]),
        Some(vec![]),
    ));
    let machine = rendered::machine(&rendered::dumps(
        &cluster,
        None,
        &IptablesOptions::default(),
        Flavor::Legacy,
    ));
    let none = BTreeMap::new();
    let report = report(&machine, &cluster, None, Options::default(), &none, Guard::Off);
    assert_eq!(is_proved(&report), Ok(()));
    assert_eq!(report.statistics.pods, 200);
}
