//! The kernel's own routes. Needs root and iproute2.

use netpol_core::{Cluster, Labels, Namespace, Pod, PodId, Scope, compile};
use netpol_host::Host;
use netpol_lab::{Lab, Place, Plan};

/// On a node, the kernel knows the devices of its pods.
#[test]
fn devices_are_found_by_route() {
    let mut cluster = Cluster::new();
    cluster.insert_namespace(Namespace::new("shop", Labels::new()));
    for name in ["a", "b"] {
        cluster.insert_pod(Pod::new(PodId::new("shop", name), Labels::new()));
    }
    let plan = Plan::of(&cluster, None);
    let lab = Lab::new(&plan).unwrap();
    let mut without = plan.complete(&cluster);
    for (id, addresses) in
        without.pods().map(|pod| (pod.id().clone(), pod.addresses().to_vec())).collect::<Vec<_>>()
    {
        without.insert_pod(Pod::new(id, Labels::new()).with_addresses(addresses));
    }
    let ruleset = compile(&without, Scope::Cluster).unwrap();
    let found = lab.run(&Place::Node, || Host::here().devices(&ruleset));
    let found = found.unwrap().unwrap();
    assert_eq!(found.len(), 2);
    for (pod, device) in found {
        assert_eq!(Some(&device), lab.interface(&pod));
    }
}
