//! Rulesets for tests: as netpol-nft writes them, in a kernel or without one.
#![allow(dead_code, reason = "each test file uses a part")]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests, too, fail by panicking"
)]

use netpol_core::{Cluster, InterfaceName, NodeName, Options, PodId, Scope, compile};
use netpol_host::{Denial, HostOptions};
use netpol_nft::{Guard, NftOptions, layout, objects};
use netpol_testkit::strategies::options;
use netpol_verify::machine::Machine;
use netpol_verify::{ProofOptions, Report, Specification, nft, prove};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The rules for a cluster as a listing, made without a kernel: the objects that netpol-nft would load.
pub(crate) fn listing(cluster: &Cluster, node: Option<&NodeName>, options: &NftOptions) -> Value {
    let scope = node.map_or(Scope::Cluster, Scope::Node);
    let ruleset = compile(cluster, scope).unwrap();
    let objects = serde_json::to_value(objects(&layout(&ruleset, options).model)).unwrap();
    let commands = objects["nftables"].as_array().unwrap();
    let added = commands.iter().filter_map(|command| command.get("add")).cloned();
    // As nft lists it: elements are in their sets.
    let mut objects: Vec<Value> = Vec::new();
    for object in added {
        let Some(element) = object.get("element") else {
            objects.push(object);
            continue;
        };
        let same = |other: &Value| {
            ["set", "map"].iter().any(|kind| {
                other.get(kind).is_some_and(|set| {
                    ["family", "table", "name"].iter().all(|key| set[key] == element[key])
                })
            })
        };
        let set = objects.iter_mut().find(|other| same(other)).unwrap();
        let set = set.as_object_mut().unwrap().values_mut().next().unwrap();
        let more = element["elem"].as_array().unwrap().clone();
        match set.get_mut("elem").and_then(Value::as_array_mut) {
            Some(elements) => elements.extend(more),
            None => set["elem"] = more.into(),
        }
    }
    for (handle, object) in (1..).zip(&mut objects) {
        if let Some(rule) = object.get_mut("rule") {
            rule["handle"] = json!(handle);
        }
    }
    json!({ "nftables": objects })
}

pub(crate) fn machine(listing: &Value) -> Machine {
    let mut machine = Machine::new();
    nft::read(&mut machine, "listing", &listing.to_string()).unwrap();
    machine
}

pub(crate) fn report(
    machine: &Machine,
    cluster: &Cluster,
    node: Option<&NodeName>,
    policy: Options,
    interfaces: &BTreeMap<PodId, String>,
) -> Report {
    let specification = Specification::new(cluster, node, policy);
    let options = ProofOptions::default().with_own_table("netpol");
    prove(machine, &specification, &options.with_interfaces(interfaces.clone()))
}

/// A device for each managed pod.
pub(crate) fn interfaces(cluster: &Cluster) -> BTreeMap<PodId, String> {
    let pods = cluster.pods().filter(|pod| pod.is_managed());
    (0..).zip(pods).map(|(number, pod)| (pod.id().clone(), format!("pod{number}"))).collect()
}

pub(crate) fn devices(interfaces: &BTreeMap<PodId, String>) -> BTreeMap<PodId, InterfaceName> {
    let named = interfaces.iter();
    named.map(|(pod, name)| (pod.clone(), name.as_str().into())).collect()
}

/// Everything that may be chosen of netpol-nft and changes what is to be proved, or how the rules look.
pub(crate) fn nft_options() -> impl Strategy<Value = NftOptions> {
    let guard = prop_oneof![Just(Guard::Off), Just(Guard::Prerouting)];
    (options(), guard, any::<bool>(), any::<bool>()).prop_map(|(policy, guard, reject, log)| {
        let denial = if reject { Denial::Reject } else { Denial::Drop };
        let host = HostOptions::default().with_policy(policy).with_denial(denial);
        NftOptions::from(host.with_log(log.then_some(7))).with_guard(guard)
    })
}

/// A network namespace that goes when it is dropped.
pub(crate) struct Netns(String);

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Netns {
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("npverify-{}-{number}", std::process::id());
        let output = Command::new("ip").args(["netns", "add", &name]).output();
        let output = output.expect("iproute2 is installed (Debian: apt-get install iproute2)");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "needs root: {stderr}");
        Self(name)
    }

    #[track_caller]
    pub(crate) fn ok(&self, command: &[&str], input: &str) -> String {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.0])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {stderr}\n{input}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the kernel says it has.
    pub(crate) fn machine(&self) -> Machine {
        let mut machine = Machine::new();
        let listing = self.ok(&["nft", "-j", "list", "ruleset"], "");
        nft::read(&mut machine, "kernel", &listing).unwrap();
        nft::read_chain_listing(&mut machine, &self.ok(&["nft", "list", "chains"], ""));
        machine
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}
