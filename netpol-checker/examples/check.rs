//! Checks a certificate against manifests.
//!
//! ```sh
//! cargo run -p netpol-checker --example check -- CERTIFICATE [FLAGS] MANIFESTS...
//!
//! --node NODE              whose pods; without it all
//! --interfaces FILE        {"namespace/pod": "device"}: as they were given to the prover
//! --listing FILE           what `nft -j list ruleset` printed: are these its rules?
//! --own-table NAME         netpol's tables, if they are not called `netpol`
//! --allow-own-node         the options that the policies are to be read with
//! --allow-other-protocols
//! --re-evaluate
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

use netpol_checker::{Certificate, Setting, check, compare_listing};
use netpol_core::{Established, NodeName, Options, OtherProtocols, OwnNodeEgress, PodId};
use netpol_k8s::Reader;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

fn interfaces(path: &str) -> Result<BTreeMap<PodId, String>, Box<dyn Error>> {
    let named: BTreeMap<String, String> = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let mut interfaces = BTreeMap::new();
    for (pod, device) in named {
        let (namespace, name) = pod.split_once('/').ok_or("a pod is `namespace/name`")?;
        interfaces.insert(PodId::new(namespace, name), device);
    }
    Ok(interfaces)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(defect) => {
            eprintln!("not accepted: {defect}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let (mut node, mut own, mut devices, mut options) =
        (None, None, BTreeMap::new(), Options::default());
    let mut listing = None;
    let (mut files, mut reader) = (Vec::new(), Reader::new().assume_namespaces());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--node" => node = Some(NodeName::from(value()?.as_str())),
            "--interfaces" => devices = interfaces(&value()?)?,
            "--listing" => listing = Some(value()?),
            "--own-table" => own = Some(value()?),
            "--allow-own-node" => options = options.with_own_node_egress(OwnNodeEgress::Allow),
            "--allow-other-protocols" => {
                options = options.with_other_protocols(OtherProtocols::Allow)
            }
            "--re-evaluate" => options = options.with_established(Established::ReEvaluate),
            _ => files.push(argument),
        }
    }
    let Some((certificate, manifests)) = files.split_first() else {
        return Err("usage: check CERTIFICATE [--node NODE] [--interfaces FILE] [--own-table NAME] MANIFESTS...".into());
    };
    for path in manifests {
        reader.read_path(Path::new(path))?;
    }
    let manifests = reader.finish();
    if manifests.has_errors() {
        return Err("the manifests have errors: `netpol check` shows them".into());
    }
    let setting = Setting {
        cluster: manifests.cluster(),
        node: node.as_ref(),
        options,
        interfaces: &devices,
        own_table: Some(own.as_deref().unwrap_or("netpol")),
        own_chains: None,
        unguarded: false,
        others_may_drop: false,
    };
    let certificate = Certificate::read(&std::fs::read_to_string(certificate)?)?;
    let checked = check(&certificate, &setting)?;
    println!("checked: {checked:?}");
    match listing {
        Some(path) => {
            let compared = compare_listing(&certificate, &std::fs::read_to_string(&path)?)?;
            println!("rules as in {path}: {compared:?}");
        }
        None => println!("not checked: that the rules are the kernel's (--listing)"),
    }
    Ok(())
}
