//! The node of a large cluster that the bench and the example measure: its cluster, and what the kernel lists of its rules.

use netpol_core::{Backend as _, Cluster, NodeName, Pod, PodId, Scope, compile};
use netpol_host::{Host, HostOptions};
use netpol_iptables::{Flavor, Iptables, IptablesOptions};
use netpol_k8s::Reader;
use netpol_nft::{Guard, NftOptions, layout, script};
use netpol_verify::{Dump, Kernel, ProofOptions};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// A node with its cluster.
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    pub(crate) name: NodeName,
    /// The devices of its pods.
    pub(crate) interfaces: BTreeMap<PodId, String>,
}

impl Node {
    /// The cluster of `netpol_testkit::scale`, with so many pods on the first node.
    pub(crate) fn new(pods: usize, policies: usize, local: usize) -> Self {
        let name = NodeName::from("node-0");
        let mut reader = Reader::new();
        reader.read_text("scale", &netpol_testkit::scale::manifests(pods, policies));
        let mut cluster = reader.finish().cluster().clone();
        let here = cluster.pods().filter(|pod| pod.node() == Some(&name)).count();
        let elsewhere = cluster.pods().filter(|pod| pod.node() != Some(&name));
        let moved: Vec<Pod> = elsewhere.take(local.saturating_sub(here)).cloned().collect();
        for pod in moved {
            cluster.insert_pod(pod.with_node(name.clone()));
        }
        let here = cluster.pods().filter(|pod| pod.node() == Some(&name));
        let devices = (0..).map(|number| format!("veth{number}"));
        let interfaces = here.map(|pod| pod.id().clone()).zip(devices).collect();
        Self { cluster, name, interfaces }
    }

    /// What is to be proved: everything, with the source guard.
    pub(crate) fn options(&self) -> ProofOptions {
        ProofOptions::default()
            .with_own_table("netpol")
            .with_own_chains("NP")
            .with_interfaces(self.interfaces.clone())
    }

    /// One of its pods.
    pub(crate) fn pod(&self) -> PodId {
        self.interfaces.keys().next().unwrap().clone()
    }

    /// What the kernel lists of what netpol-nft, or netpol-iptables with that implementation, makes for the node. The rules
    /// are loaded into a network namespace, which is gone afterwards.
    pub(crate) fn dumps(&self, flavor: Option<Flavor>) -> Vec<Dump> {
        let devices = self.interfaces.iter();
        let devices = devices.map(|(pod, name)| (pod.clone(), name.as_str().into()));
        let host = HostOptions::default().with_interfaces(devices.collect());
        let ruleset = compile(&self.cluster, Scope::Node(&self.name)).unwrap();
        let namespace = format!("npverify-node-{}", std::process::id());
        let ip = |words: &[&str]| Command::new("ip").args(words).status().unwrap();
        assert!(ip(&["netns", "add", &namespace]).success());
        if let Some(flavor) = flavor {
            let options = IptablesOptions::from(host).with_flavor(Some(flavor));
            Iptables::new(Host::in_namespace(&namespace), options).replace(&ruleset).unwrap();
        } else {
            let options = NftOptions::from(host).with_guard(Guard::Prerouting);
            let mut nft = Command::new("ip")
                .args(["netns", "exec", &namespace, "nft", "-f", "-"])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let text = script(&layout(&ruleset, &options).model);
            nft.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            assert!(nft.wait().unwrap().success());
        }
        let dumps = Kernel::in_namespace(&namespace).dumps().unwrap();
        ip(&["netns", "delete", &namespace]);
        dumps
    }
}
