//! `netpol verify --certificate` and `netpol check-certificate`: a proof, written down, and checked by a program that shares nothing with
//! the prover.

use crate::args::{CertificateArgs, Format};
use crate::kernel::{self, node};
use crate::{Answer, Failure, load, terminal, verify};
use netpol_checker::{Certificate, Checked, Compared, Defect, Setting, check, compare_listing};
use netpol_core::PodId;
use netpol_k8s::Manifests;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Writes a certificate into a file.
pub(crate) fn write(certificate: &Certificate, path: &Path) -> Result<(), Failure> {
    let unwritable =
        |error: std::io::Error| Failure::Message(format!("`{}`: {error}", path.display()));
    let text = serde_json::to_vec(certificate).map_err(|error| unwritable(error.into()))?;
    std::fs::write(path, text).map_err(unwritable)
}

#[derive(Serialize)]
struct Json<'a> {
    accepted: bool,
    /// What is wrong, in words.
    defect: Option<String>,
    checked: Option<CheckedJson>,
    /// What the rules were held against, if it was asked for.
    listing: Option<ListingJson<'a>>,
    /// Were the devices of pods taken from the certificate?
    devices_from_certificate: bool,
}

#[derive(Serialize)]
struct CheckedJson {
    questions: usize,
    cells: usize,
    addresses: usize,
    guarded_pods: usize,
    assumed_devices: usize,
}

#[derive(Serialize)]
struct ListingJson<'a> {
    file: &'a str,
    chains: usize,
    rules: usize,
    elements: usize,
    unlisted_chains: usize,
}

pub(crate) fn run(args: &CertificateArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let manifests = load::read_for_answer(&args.input)?;
    let certificate = Certificate::read(&read(&args.certificate)?).map_err(|defect| {
        Failure::Message(format!(
            "`{}` is no certificate as `netpol verify --certificate` writes it: {defect}",
            args.certificate.display()
        ))
    })?;
    let listing = match &args.listing {
        Some(path) => Some((path.display().to_string(), read(path)?)),
        None => None,
    };
    let checked = terminal::waiting("checking", || checked(args, &certificate, &manifests))?;
    let compared = checked.and_then(|checked| {
        let compared = listing.as_ref().map(|(_, text)| compare_listing(&certificate, text));
        Ok((checked, compared.transpose()?))
    });
    let file = listing.as_ref().map(|(name, _)| name.as_str());
    match args.output {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &json(args, file, &compared))
                .map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text => {
            let text = text(args, &certificate, file, &compared);
            out.write_all(terminal::printable(&text).as_bytes())?;
        }
    }
    Ok(match compared {
        Ok(_) => Answer::Yes,
        Err(Defect::Nothing | Defect::NotUnderstood(_) | Defect::Refuted { met: '?', .. }) => {
            Answer::Unknown
        }
        Err(_) => Answer::No,
    })
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::Message(format!("`{}`: {error}", path.display())))
}

fn checked(
    args: &CertificateArgs,
    certificate: &Certificate,
    manifests: &Manifests,
) -> Result<Result<Checked, Defect>, Failure> {
    let node = match &args.place.node {
        Some(name) => node::named(name, manifests)?,
        None => node::Choice::AllPods,
    };
    let node = match &node {
        node::Choice::AllPods => None,
        node::Choice::Node(name) => Some(name),
    };
    let interfaces: BTreeMap<PodId, String> = if args.place.interfaces.is_some() {
        let given = kernel::interfaces(&args.place, manifests)?;
        given.into_iter().map(|(pod, name)| (pod, name.to_string())).collect()
    } else {
        let stated = certificate.interfaces.iter().filter_map(|(pod, name)| {
            let (namespace, pod) = pod.split_once('/')?;
            Some((PodId::new(namespace, pod), name.clone()))
        });
        stated.collect()
    };
    let own = verify::own(&args.claim.ruleset);
    let setting = Setting {
        cluster: manifests.cluster(),
        node,
        options: kernel::policy(&args.policy),
        interfaces: &interfaces,
        own_table: own.table.as_deref(),
        own_chains: own.chains.as_deref(),
        unguarded: verify::is_unguarded(&args.claim),
        others_may_drop: args.claim.others_may_drop,
    };
    Ok(check(certificate, &setting))
}

/// Were the devices of pods taken from the certificate?
fn trusts_devices(args: &CertificateArgs) -> bool {
    args.place.interfaces.is_none()
}

/// What was checked, or the first defect.
type Outcome = Result<(Checked, Option<Compared>), Defect>;

fn json<'a>(args: &CertificateArgs, file: Option<&'a str>, result: &Outcome) -> Json<'a> {
    let found = result.as_ref().ok();
    let compared = found.and_then(|(_, compared)| compared.as_ref());
    Json {
        accepted: found.is_some(),
        defect: result.as_ref().err().map(ToString::to_string),
        checked: found.map(|(checked, _)| CheckedJson {
            questions: checked.questions,
            cells: checked.cells,
            addresses: checked.addresses,
            guarded_pods: checked.guarded,
            assumed_devices: checked.assumed,
        }),
        listing: file.zip(compared).map(|(file, compared)| ListingJson {
            file,
            chains: compared.chains,
            rules: compared.rules,
            elements: compared.elements,
            unlisted_chains: compared.unlisted,
        }),
        devices_from_certificate: trusts_devices(args),
    }
}

fn text(
    args: &CertificateArgs,
    certificate: &Certificate,
    file: Option<&str>,
    result: &Outcome,
) -> String {
    let (checked, compared) = match result {
        Ok(found) => found,
        Err(defect) => return format!("NOT ACCEPTED: {defect}\n"),
    };
    let mut lines = vec![format!(
        "ACCEPTED: for {} addresses of {}, the rules in the certificate let pass what the policies allow, and nothing else",
        checked.addresses,
        certificate
            .node
            .as_ref()
            .map_or("all pods".to_owned(), |node| format!("the pods of {node}")),
    )];
    lines.push(format!(
        "  found again, on classes of packets: what the policies say and what the rules do in {} cells of {} questions",
        checked.cells, checked.questions
    ));
    lines.push(
        "  nothing is missing: the classes cover every packet of every question, and each once"
            .to_owned(),
    );
    lines.push(match checked.guarded {
        0 => "  not part of it: the source guard; source addresses are taken as honest".to_owned(),
        some => format!("  the source guard of {some} pods is part of it"),
    });
    if trusts_devices(args) && !certificate.interfaces.is_empty() {
        lines.push(format!(
            "  not checked: that the devices of {} pods are those that the certificate names (--interfaces)",
            certificate.interfaces.len()
        ));
    }
    if checked.assumed > 0 {
        lines.push(format!(
            "  assumed: {} devices that a source guard in the rules names are those of pods",
            checked.assumed
        ));
    }
    match file.zip(compared.as_ref()) {
        Some((file, Compared { chains, rules, elements, unlisted, .. })) => {
            lines.push(format!(
                "  as in {file}: {chains} chains with their hooks, {rules} rules by their handles, {elements} elements of sets"
            ));
            if *unlisted > 0 {
                lines.push(format!(
                    "  not compared: the rules of {unlisted} chains of iptables, which are not in such a listing"
                ));
            }
        }
        None => lines.push(
            "  not checked: that its rules are those of the kernel (--listing, for those of nftables)".to_owned(),
        ),
    }
    lines.join("\n") + "\n"
}
