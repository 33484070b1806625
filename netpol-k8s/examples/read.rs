//! Reads the paths given and says what was found: `cargo run --release -p netpol-k8s --example read -- PATH...`

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), netpol_k8s::ReadError> {
    let start = Instant::now();
    let mut reader = netpol_k8s::Reader::new();
    for path in std::env::args_os().skip(1) {
        reader.read_path(Path::new(&path))?;
    }
    let manifests = reader.finish();
    let read = start.elapsed();
    let lints = netpol_k8s::lint(&manifests);
    let cluster = manifests.cluster();
    println!(
        "{} pods, {} namespaces, {} policies: {} diagnostics in {read:.2?}, {} lints in {:.2?}",
        cluster.pods().len(),
        cluster.namespaces().len(),
        cluster.policies().len(),
        manifests.diagnostics().len(),
        lints.len(),
        start.elapsed() - read
    );
    for diagnostic in manifests.diagnostics().iter().chain(&lints).take(20) {
        println!("{diagnostic}");
    }
    Ok(())
}
