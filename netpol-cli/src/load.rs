//! Reads what the user named and reports what is wrong with it.

use crate::Failure;
use crate::args::{ChannelName, Input, V1beta1As};
use crate::{snippet, terminal};
use netpol_core::{CompileError, Ruleset, Scope, compile};
use netpol_k8s::api::v1beta1::Meaning;
use netpol_k8s::{Channel, Diagnostic, Manifests, Reader, Severity};
use std::path::Path;

/// So many defects stand beside an answer; `check` shows them all.
const MOST_ERRORS: usize = 200;
const MOST_WARNINGS: usize = 20;

/// Reads all of the input; fails only where a path cannot be read at all.
pub(crate) fn read(input: &Input) -> Result<Manifests, Failure> {
    let reading = &input.reading;
    let mut reader = Reader::new()
        .default_namespace(&reading.default_namespace)
        .channel(match reading.channel {
            ChannelName::Standard => Channel::Standard,
            ChannelName::Experimental => Channel::Experimental,
        })
        .v1beta1_as(match reading.v1beta1_as {
            V1beta1As::Before1_7 => Meaning::Before1_7,
            V1beta1As::Since1_7 => Meaning::Since1_7,
        })
        .assume_namespaces();
    if reading.misspelt_annotations {
        reader = reader.misspelt_annotations();
    }
    for path in &input.paths {
        let result =
            if path == Path::new("-") { reader.read_stdin() } else { reader.read_path(path) };
        result.map_err(|error| Failure::Message(error.to_string()))?;
    }
    Ok(reader.finish())
}

/// Reads all of the input. Defects that fail closed are reported in a line each; if a text could not be understood there
/// is no answer.
pub(crate) fn read_and_report(input: &Input) -> Result<Manifests, Failure> {
    let manifests = read(input)?;
    let unreadable = manifests.diagnostics().iter().any(Diagnostic::is_unreadable);
    for (severity, most) in [(Severity::Error, MOST_ERRORS), (Severity::Warning, MOST_WARNINGS)] {
        let mut all = manifests.diagnostics().iter().filter(|d| d.severity() == severity);
        for diagnostic in all.by_ref().take(most) {
            eprintln!("{}", terminal::printable(&diagnostic.to_string()));
        }
        let more = all.count();
        if more > 0 {
            eprintln!("netpol: {more} more {severity}s; `netpol check` shows them all");
        }
    }
    if unreadable { Err(Failure::Unreadable) } else { Ok(manifests) }
}

/// Reads all of the input for an answer about the cluster in it, as [`read_and_report`] does.
pub(crate) fn read_for_answer(input: &Input) -> Result<Manifests, Failure> {
    let manifests = read_and_report(input)?;
    if manifests.cluster().pods().len() == 0 {
        let skipped = snippet::skipped(&manifests);
        return Err(Failure::Message(format!(
            "no pods and no workloads in {}{skipped}",
            input.paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
        )));
    }
    Ok(manifests)
}

/// The rules for all pods.
pub(crate) fn rules(manifests: &Manifests) -> Result<Ruleset, Failure> {
    compile(manifests.cluster(), Scope::Cluster)
        .map_err(|error: CompileError| Failure::Message(error.to_string()))
}
