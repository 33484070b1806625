//! How long a proof takes for a node of a large cluster, and how much memory; its certificate; and the same by the second engine.
//!
//! ```sh
//! cargo run --release -p netpol-verify --example proof -- PODS POLICIES [legacy|nft]
//! ```
//!
//! The cluster is that of `netpol_testkit::scale`, the ruleset what netpol-nft makes of it for one node, loaded into a
//! network namespace and listed by nft, so that parsing is of a real listing; with a third word what netpol-iptables makes
//! of it, with that implementation of iptables. Needs root, nft, ip, and iptables and ipset for that.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool")]

use netpol_checker::{Certificate, Setting, check, compare_listing};
use netpol_core::{Backend as _, NodeName, Options, Scope, compile};
use netpol_host::{Host, HostOptions};
use netpol_iptables::{Flavor, Iptables, IptablesOptions};
use netpol_k8s::Reader;
use netpol_nft::{Guard, NftOptions, layout, script};
use netpol_verify::{
    Dump, Kernel, ProofOptions, Specification, bdd, prove, prove_with_certificate, read_dumps,
};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).map(|text| text.parse::<usize>().unwrap());
    let (pods, policies) = (number(0).unwrap_or(10_000), number(1).unwrap_or(1_000));
    let flavor = arguments.get(2).map_or("", String::as_str);
    let mut reader = Reader::new();
    reader.read_text("scale", &netpol_testkit::scale::manifests(pods, policies));
    let manifests = reader.finish();
    let cluster = manifests.cluster();
    let node = NodeName::from("node-0");
    let here = cluster.pods().filter(|pod| pod.node() == Some(&node));
    let interfaces: BTreeMap<_, _> =
        (0..).zip(here).map(|(n, pod)| (pod.id().clone(), format!("veth{n}"))).collect();
    let devices = interfaces.iter().map(|(pod, name)| (pod.clone(), name.as_str().into()));
    let host = HostOptions::default().with_interfaces(devices.collect());
    let options = NftOptions::from(host).with_guard(Guard::Prerouting);
    let started = Instant::now();
    let ruleset = compile(cluster, Scope::Node(&node)).unwrap();
    println!("compile: {:?}, {} local pods", started.elapsed(), interfaces.len());
    let namespace = format!("npverify-example-{}", std::process::id());
    let ip = |words: &[&str]| Command::new("ip").args(words).status().unwrap();
    assert!(ip(&["netns", "add", &namespace]).success());
    if flavor.is_empty() {
        let mut nft = Command::new("ip")
            .args(["netns", "exec", &namespace, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text = script(&layout(&ruleset, &options).model);
        nft.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success());
    } else {
        let flavor = if flavor == "legacy" { Flavor::Legacy } else { Flavor::Nft };
        let options = IptablesOptions::from(options.host().clone()).with_flavor(Some(flavor));
        Iptables::new(Host::in_namespace(&namespace), options).replace(&ruleset).unwrap();
    }
    let dumps: Vec<Dump> = Kernel::in_namespace(&namespace).dumps().unwrap();
    ip(&["netns", "delete", &namespace]);
    println!("listing: {} bytes", dumps.iter().map(|dump| dump.text.len()).sum::<usize>());
    let before = memory("VmRSS");
    let started = Instant::now();
    let machine = read_dumps(&dumps).unwrap();
    println!("parse: {:?}", started.elapsed());
    let specified = Instant::now();
    let specification = Specification::new(cluster, Some(&node), Options::default());
    println!("specification: {:?}", specified.elapsed());
    let proof = ProofOptions::default()
        .with_own_table("netpol")
        .with_own_chains("NP")
        .with_interfaces(interfaces);
    let report = prove(&machine, &specification, &proof);
    println!("all: {:?}, {:#?}", started.elapsed(), report.statistics);
    println!("proved: {}", report.is_proved());
    println!("memory: {} kB before, {} kB more at most", before, memory("VmHWM") - before);
    let second = bdd::prove(&machine, &specification, &proof);
    println!("decision diagrams: {:#?}, proved: {}", second.statistics, second.is_proved());
    let ratio = second.statistics.took.as_secs_f64() / report.statistics.took.as_secs_f64();
    println!("the second engine takes {ratio:.1} times as long as the first");
    println!("memory: {} kB at most", memory("VmHWM"));
    let started = Instant::now();
    let (_, certificate) = prove_with_certificate(&machine, &specification, &proof);
    println!("with a certificate: {:?}", started.elapsed());
    let started = Instant::now();
    let text = serde_json::to_string(&certificate).unwrap();
    println!("written: {:?}, {} bytes", started.elapsed(), text.len());
    drop(certificate);
    let started = Instant::now();
    let certificate = Certificate::read(&text).unwrap();
    println!("read: {:?}", started.elapsed());
    let setting = Setting {
        cluster,
        node: Some(&node),
        options: Options::default(),
        interfaces: &proof.interfaces,
        own_table: Some("netpol"),
        own_chains: None,
        unguarded: false,
    };
    println!("checked: {:?}", check(&certificate, &setting).unwrap());
    println!("read and checked: {:?}", started.elapsed());
    let ruleset = dumps.iter().find(|dump| dump.text.starts_with('{')).unwrap();
    println!("compared: {:?}", compare_listing(&certificate, &ruleset.text).unwrap());
    println!("memory: {} kB more at most, certificate included", memory("VmHWM") - before);
    let one = cluster.pods().find(|pod| pod.node() == Some(&node)).unwrap().id().clone();
    let started = Instant::now();
    let report = prove(&machine, &specification, &proof.with_only([one].into()));
    println!("one pod: {:?}, proved: {}", started.elapsed(), report.is_proved());
}
