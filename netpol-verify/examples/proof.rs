//! How long a proof takes for a node of a large cluster, and how much memory; on demand, its certificate, and the same by the
//! second engine.
//!
//! ```sh
//! cargo run --release -p netpol-verify --example proof -- PODS POLICIES [LOCAL [legacy|nft|-] [bdd] [certificate]]
//! ```
//!
//! The cluster is that of `netpol_testkit::scale` with so many pods on the node (110), the ruleset what netpol-nft makes of
//! it for that node, loaded into a network namespace and listed by nft, so that parsing is of a real listing; with a fourth
//! word what netpol-iptables makes of it, with that implementation of iptables. Needs root, nft, ip, and iptables and ipset
//! for that. Times are of the processor, in the one thread that does all, so that other processes do not count.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool")]

#[path = "../benches/node/mod.rs"]
mod node;

use netpol_checker::{Certificate, Setting, check, compare_listing};
use netpol_core::Options;
use netpol_iptables::Flavor;
use netpol_verify::{Specification, bdd, prove, prove_with_certificate, read_dumps};
use node::Node;
use std::time::{Duration, Instant};

fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How long this thread was on a processor.
fn processor() -> Duration {
    let all = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(all.split_whitespace().next().unwrap().parse().unwrap())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).map(|text| text.parse::<usize>().unwrap());
    let flavor = match arguments.get(3).map(String::as_str) {
        Some("legacy") => Some(Flavor::Legacy),
        Some("nft") => Some(Flavor::Nft),
        _ => None,
    };
    let sizes = [number(0).unwrap_or(10_000), number(1).unwrap_or(1_000), number(2).unwrap_or(110)];
    let started = Instant::now();
    let node = Node::new(sizes[0], sizes[1], sizes[2]);
    println!("manifests, by the clock: {:?}", started.elapsed());
    let dumps = node.dumps(flavor);
    println!("listing: {} bytes", dumps.iter().map(|dump| dump.text.len()).sum::<usize>());
    let before = memory("VmRSS");
    let started = processor();
    let machine = read_dumps(&dumps).unwrap();
    println!("parse: {:?}", processor() - started);
    let specified = processor();
    let specification = Specification::new(&node.cluster, Some(&node.name), Options::default());
    println!("specification: {:?}", processor() - specified);
    let proof = node.options();
    let proved = processor();
    let report = prove(&machine, &specification, &proof);
    let took = processor() - proved;
    println!("proof: {took:?}, {:#?}", report.statistics);
    println!("all: {:?}, proved: {}", processor() - started, report.is_proved());
    println!(
        "memory: {} kB before, {} kB more at most",
        before,
        memory("VmHWM").saturating_sub(before)
    );
    let one = proof.clone().with_only([node.pod()].into());
    let started = processor();
    let report = prove(&machine, &specification, &one);
    println!("one pod: {:?}, proved: {}", processor() - started, report.is_proved());
    let started = processor();
    let specification = Specification::new(&node.cluster, Some(&node.name), Options::default());
    let report = prove(&machine, &specification, &one);
    let took_one = processor() - started;
    println!("one pod, with a new specification: {took_one:?}, proved: {}", report.is_proved());
    if arguments.iter().any(|word| word == "bdd") {
        let started = processor();
        let second = bdd::prove(&machine, &specification, &proof);
        let took_second = processor() - started;
        println!("decision diagrams: {took_second:?}, proved: {}", second.is_proved());
        println!("{:#?}", second.statistics);
        let ratio = took_second.as_secs_f64() / took.as_secs_f64();
        println!("the second engine takes {ratio:.1} times as long as the first");
        println!("memory: {} kB at most", memory("VmHWM"));
    }
    if arguments.iter().any(|word| word == "certificate") {
        let started = processor();
        let (_, certificate) = prove_with_certificate(&machine, &specification, &proof);
        println!("with a certificate: {:?}", processor() - started);
        let started = processor();
        let text = serde_json::to_string(&certificate).unwrap();
        println!("written: {:?}, {} bytes", processor() - started, text.len());
        drop(certificate);
        let started = processor();
        let certificate = Certificate::read(&text).unwrap();
        println!("read: {:?}", processor() - started);
        let setting = Setting {
            cluster: &node.cluster,
            node: Some(&node.name),
            options: Options::default(),
            interfaces: &proof.interfaces,
            own_table: proof.own.table.as_deref(),
            own_chains: proof.own.chains.as_deref(),
            unguarded: false,
            others_may_drop: false,
        };
        println!("checked: {:?}", check(&certificate, &setting).unwrap());
        println!("read and checked: {:?}", processor() - started);
        let ruleset = dumps.iter().find(|dump| dump.text.starts_with('{')).unwrap();
        println!("compared: {:?}", compare_listing(&certificate, &ruleset.text).unwrap());
        println!("memory: {} kB more at most, certificate included", memory("VmHWM") - before);
    }
}
