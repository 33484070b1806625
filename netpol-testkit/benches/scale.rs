//! Reading, compiling and listing clusters of several sizes: `cargo bench -p netpol-testkit`.
//!
//! The figures of one run belong together; `docs/performance.md` says how to read them.
#![expect(clippy::unwrap_used, reason = "a bench ends where something is not as it must be")]

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use netpol_core::{Cluster, Delta, Options, PodId, Scope, compile};
use netpol_k8s::{Manifests, Reader};
use netpol_sim::Connectivity;
use netpol_testkit::scale::manifests;
use std::collections::BTreeMap;

/// Pods and policies.
const SIZES: [(usize, usize); 5] =
    [(100, 10), (1_000, 100), (10_000, 10), (10_000, 100), (10_000, 1_000)];

fn main() {
    divan::main();
}

fn read(text: &str) -> Manifests {
    let mut reader = Reader::new();
    reader.read_text("bench", text);
    reader.finish()
}

fn cluster((pods, policies): (usize, usize)) -> Cluster {
    read(&manifests(pods, policies)).cluster().clone()
}

#[divan::bench(args = SIZES, sample_count = 10)]
fn parse(bencher: Bencher<'_, '_>, (pods, policies): (usize, usize)) {
    let text = manifests(pods, policies);
    bencher.counter(BytesCount::of_str(&text)).bench(|| read(black_box(&text)));
}

#[divan::bench(args = SIZES, sample_count = 20)]
fn compile_node(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    let cluster = cluster(size);
    let node = "node-0".into();
    bencher.bench(|| compile(black_box(&cluster), Scope::Node(&node)).unwrap());
}

#[divan::bench(args = SIZES, sample_count = 20)]
fn compile_cluster(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    let cluster = cluster(size);
    bencher.bench(|| compile(black_box(&cluster), Scope::Cluster).unwrap());
}

/// Every row between workloads, and with the rest of the address space.
#[divan::bench(args = SIZES, sample_count = 10)]
fn list(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    let manifests = read(&manifests(size.0, size.1));
    let rules = compile(manifests.cluster(), Scope::Cluster).unwrap();
    let mut workloads: BTreeMap<String, Vec<PodId>> = BTreeMap::new();
    for pod in manifests.cluster().pods() {
        let name = manifests.workload(pod.id()).to_string();
        workloads.entry(name).or_default().push(pod.id().clone());
    }
    let groups: Vec<_> = workloads.into_values().collect();
    bencher.bench_local(|| {
        let mut connectivity = Connectivity::new(&rules, Options::default(), &groups);
        for group in 0..groups.len() {
            black_box(connectivity.row(group));
        }
    });
}

/// The difference after one pod changed its labels, by comparing two whole rulesets.
#[divan::bench(args = SIZES, sample_count = 20)]
fn delta(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    let mut cluster = cluster(size);
    let before = compile(&cluster, Scope::Cluster).unwrap();
    let pod = cluster.pods().next().unwrap().clone();
    cluster.insert_pod(pod.with_labels(netpol_core::Labels::from_iter([("tier", "web")])));
    let after = compile(&cluster, Scope::Cluster).unwrap();
    bencher.bench(|| Delta::between(black_box(&before), black_box(&after)));
}
