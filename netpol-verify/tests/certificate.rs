//! Certificates of proofs are accepted, and nothing else is.
mod support;

use netpol_checker::{Certificate, Checked, Defect, Setting, check};
use netpol_core::{Cluster, NodeName, Options, PodId};
use netpol_host::{Denial, HostOptions};
use netpol_nft::{Guard, NftOptions};
use netpol_testkit::strategies::{clusters, options};
use netpol_verify::machine::Machine;
use netpol_verify::{Conclusion, ProofOptions, Report, Specification, prove_with_certificate};
use proptest::prelude::*;
use std::collections::BTreeMap;
use support::{devices, interfaces, listing, machine};

/// What a proof is about.
#[derive(Debug)]
struct World {
    cluster: Cluster,
    node: Option<NodeName>,
    options: Options,
    interfaces: BTreeMap<PodId, String>,
}

impl World {
    fn check(&self, certificate: &Certificate) -> Result<Checked, Defect> {
        let setting = Setting {
            cluster: &self.cluster,
            node: self.node.as_ref(),
            options: self.options,
            interfaces: &self.interfaces,
            own_table: Some("netpol"),
        };
        check(certificate, &setting)
    }

    fn prove(&self, machine: &Machine) -> (Report, Certificate) {
        let specification = Specification::new(&self.cluster, self.node.as_ref(), self.options);
        let options = ProofOptions::default().with_own_table("netpol");
        prove_with_certificate(machine, &specification, &options.with_interfaces(self.interfaces.clone()))
    }
}

fn nft_options() -> impl Strategy<Value = NftOptions> {
    let guard = prop_oneof![Just(Guard::Off), Just(Guard::Prerouting)];
    (options(), guard, any::<bool>(), any::<bool>()).prop_map(|(policy, guard, reject, log)| {
        let denial = if reject { Denial::Reject } else { Denial::Drop };
        let host = HostOptions::default().with_policy(policy).with_denial(denial);
        NftOptions::from(host.with_log(log.then_some(7))).with_guard(guard)
    })
}

/// A cluster with its rules as netpol-nft writes them, for one node or all, the devices known to the prover or not.
fn worlds() -> impl Strategy<Value = (World, Machine)> {
    (clusters(), nft_options(), any::<bool>(), any::<bool>()).prop_map(
        |(cluster, options, one_node, knows)| {
            let node = cluster.nodes().next().map(|node| node.name().clone()).filter(|_| one_node);
            let all = interfaces(&cluster);
            let host = options.host().clone().with_interfaces(devices(&all));
            let options = options.with_host(host);
            let machine = machine(&listing(&cluster, node.as_ref(), &options));
            let known = knows && options.guard() != Guard::Off;
            let interfaces = if known { all } else { BTreeMap::new() };
            let options = options.host().policy();
            (World { cluster, node, options, interfaces }, machine)
        },
    )
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn proofs_are_accepted((world, machine) in worlds()) {
        let (report, certificate) = world.prove(&machine);
        let text = serde_json::to_string(&certificate).unwrap();
        let read = Certificate::read(&text).unwrap();
        prop_assert!(read == certificate);
        match (world.check(&read), &report.conclusion) {
            (Ok(checked), Conclusion::Proved) => {
                prop_assert_eq!(checked.cells, report.statistics.cells);
            }
            (Err(Defect::Nothing), Conclusion::NotProved { .. }) => {}
            (Err(defect), _) => prop_assert!(false, "{}", defect),
            (_, other) => prop_assert!(false, "{:?}", other),
        }
    }
}
