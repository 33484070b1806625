//! Proves a dump of a ruleset against manifests, and writes the proof down.
//!
//! ```sh
//! cargo run -p netpol-verify --example certificate -- DUMP NODE MANIFESTS... > CERTIFICATE
//! cargo run -p netpol-checker --example check -- CERTIFICATE --node NODE MANIFESTS...
//! ```
//!
//! The node `-` is all of them.
#![expect(clippy::print_stderr, reason = "a command")]

use netpol_core::{NodeName, Options};
use netpol_k8s::Reader;
use netpol_verify::{Dump, ProofOptions, Specification, prove_with_certificate, read_dumps};
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dump, node, manifests @ ..] = arguments.as_slice() else {
        return Err("usage: certificate DUMP NODE MANIFESTS...".into());
    };
    let mut reader = Reader::new().assume_namespaces();
    for path in manifests {
        reader.read_path(Path::new(path))?;
    }
    let manifests = reader.finish();
    let machine = read_dumps(&[Dump { name: dump.clone(), text: std::fs::read_to_string(dump)? }])?;
    let node = (node != "-").then(|| NodeName::from(node.as_str()));
    let specification = Specification::new(manifests.cluster(), node.as_ref(), Options::default());
    let options = ProofOptions::default().with_own_table("netpol");
    let (report, certificate) = prove_with_certificate(&machine, &specification, &options);
    eprintln!("proved: {}, {:?}", report.is_proved(), report.statistics);
    serde_json::to_writer(std::io::stdout().lock(), &certificate)?;
    Ok(())
}
