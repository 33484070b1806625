//! `netpol check`: what is wrong with the manifests.

use crate::args::{CheckArgs, Format};
use crate::{Answer, Failure, load, snippet, terminal};
use netpol_core::PolicyKind;
use netpol_k8s::{Diagnostic, Manifests, Severity};
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// The answer for programs.
#[derive(Serialize)]
struct Report<'a> {
    errors: usize,
    warnings: usize,
    diagnostics: Vec<&'a Diagnostic>,
    skipped: std::collections::BTreeMap<&'a str, usize>,
}

pub(crate) fn run(args: &CheckArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let manifests = load::read(&args.input)?;
    let lints = netpol_k8s::lint(&manifests);
    let mut diagnostics: Vec<&Diagnostic> = manifests.diagnostics().iter().chain(&lints).collect();
    diagnostics.sort_by_key(|d| (d.location(), d.severity(), d.field()));
    if diagnostics.iter().any(|d| d.is_unreadable()) {
        let colors = std::io::stderr().is_terminal();
        for diagnostic in &diagnostics {
            eprintln!("{}\n", snippet::render(diagnostic, &manifests, colors));
        }
        return Err(Failure::Unreadable);
    }
    let count = |severity| diagnostics.iter().filter(|d| d.severity() == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    match args.output {
        Format::Json => {
            let skipped =
                manifests.skipped().iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
            let report = Report { errors, warnings, diagnostics, skipped };
            serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text => {
            let colors = terminal::colors();
            for diagnostic in &diagnostics {
                writeln!(out, "{}\n", snippet::render(diagnostic, &manifests, colors))?;
            }
            summary(&manifests, errors, warnings, out)?;
        }
    }
    Ok(if errors > 0 { Answer::No } else { Answer::Yes })
}

fn summary(
    manifests: &Manifests,
    errors: usize,
    warnings: usize,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let cluster = manifests.cluster();
    let inert = manifests.inert().map(netpol_k8s::legacy::Inert::policy);
    // An annotation is a policy to the model, and none to people.
    let policies = cluster.policies().chain(inert);
    let policies = policies.filter(|p| p.id().kind != PolicyKind::NamespaceAnnotation).count();
    let plural = |count: usize, one: &str, many: &str| {
        format!("{count} {}", if count == 1 { one } else { many })
    };
    writeln!(
        out,
        "{}, {} in {} and {}{}",
        plural(errors, "error", "errors"),
        plural(warnings, "warning", "warnings"),
        plural(policies, "policy", "policies"),
        plural(cluster.pods().len(), "pod or workload", "pods and workloads"),
        snippet::skipped(manifests),
    )?;
    Ok(())
}
