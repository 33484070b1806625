//! The verdicts of a real kube-apiserver on cluster-wide policies (`validation/admin/`), reproduced object by object: accepted or
//! not, and for what its definitions refuse every field with its reason.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

use netpol_k8s::{Channel, Diagnostic, Reader, Severity};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;

#[derive(Deserialize)]
struct Recording {
    documents: Vec<Document>,
}

#[derive(Deserialize)]
struct Document {
    title: String,
    rules: Vec<String>,
    strict: Verdict,
}

#[derive(Deserialize)]
struct Verdict {
    code: u16,
    accepted: bool,
    causes: Vec<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    field: String,
    reason: String,
    message: String,
}

/// The text of each object by its title.
fn objects() -> BTreeMap<&'static str, &'static str> {
    let text = include_str!("validation/admin/objects.yaml");
    let documents = text.split("\n---\n").skip(1);
    documents
        .map(|document| {
            let heading = document.lines().next().unwrap().trim_start_matches("# ");
            (heading.split_once(' ').unwrap().1, document)
        })
        .collect()
}

/// Peers as they were up to v0.1.1: read by the definitions of that release, whatever the server has.
fn has_old_peers(document: &Document) -> bool {
    document.title.contains(" old ") || document.title.ends_with("mixed shapes")
}

/// Rules in CEL are not asked when something else is wrong.
fn is_cel(diagnostic: &Diagnostic) -> bool {
    matches!(diagnostic.code(), "CNP-02" | "CNP-15" | "CNP-16" | "CNP-17")
}

#[track_caller]
fn replay(json: &str, channel: Channel, wanted: impl Fn(&Document) -> bool) -> usize {
    let recorded = serde_json::from_str::<Recording>(json).unwrap().documents;
    let objects = objects();
    let (mut report, mut compared) = (String::new(), 0);
    for document in recorded.iter().filter(|document| wanted(document)) {
        compared += 1;
        let title = document.title.as_str();
        let mut reader = Reader::new().channel(channel);
        reader.read_text("object", objects.get(title).unwrap());
        let manifests = reader.finish();
        // What nobody can evaluate, but a server stores, has no reason and is no unknown field.
        let is_refusal = |d: &&Diagnostic| {
            let refused = d.reason().is_some() || matches!(d.code(), "VAL-27" | "VAL-28");
            d.severity() == Severity::Error && refused
        };
        let refusals: Vec<_> = manifests.diagnostics().iter().filter(is_refusal).collect();
        let verdict = &document.strict;
        let mut differ = |what: String| {
            let _ = writeln!(report, "{:?} {title}: {what}", document.rules);
            for diagnostic in manifests.diagnostics() {
                let _ = writeln!(report, "    ours: {diagnostic}");
            }
            for cause in &verdict.causes {
                let _ = writeln!(
                    report,
                    "    server: {}: {}: {}",
                    cause.field, cause.reason, cause.message
                );
            }
        };
        if refusals.is_empty() != verdict.accepted {
            differ(format!("accepted: {}, but ours: {}", verdict.accepted, refusals.is_empty()));
            continue;
        }
        if verdict.code != 422 {
            continue;
        }
        let unchecked = verdict.causes.iter().any(|c| c.message.contains("were not checked"));
        let mut theirs: Vec<_> = verdict
            .causes
            .iter()
            .filter(|cause| !cause.message.contains("were not checked"))
            // What is said a second time by a check of formats, without a field.
            .filter(|cause| !cause.message.contains("Checked value must be of type integer"))
            .map(|cause| {
                // The rule about the name of the baseline names no field.
                let baseline = cause.message.contains("Only one baseline");
                let field = if baseline { "metadata.name" } else { &cause.field };
                (field.to_owned(), cause.reason.clone())
            })
            .collect();
        let mut ours: Vec<_> = refusals
            .iter()
            .filter(|d| !(unchecked && is_cel(d)))
            .map(|d| {
                let reason = d.reason().map(|r| r.to_string()).unwrap_or_default();
                (d.field().unwrap_or_default().to_owned(), reason)
            })
            .collect();
        // A value of the wrong type has one cause here; a server may go on to find it none of the words or numbers.
        let mistyped: Vec<_> =
            theirs.iter().filter(|c| c.1 == "FieldValueTypeInvalid").cloned().collect();
        theirs.retain(|c| mistyped.contains(c) || mistyped.iter().all(|m| m.0 != c.0));
        for causes in [&mut theirs, &mut ours] {
            causes.sort();
            causes.dedup();
        }
        if theirs != ours {
            differ(format!("causes {theirs:?}, but ours {ours:?}"));
        }
    }
    assert!(report.is_empty(), "{report}");
    eprintln!("{compared} verdicts compared");
    compared
}

#[test]
fn verdicts_of_the_standard_channel() {
    let json = include_str!("validation/admin/standard.json");
    assert!(replay(json, Channel::Standard, |d| !has_old_peers(d)) > 300);
}

#[test]
fn verdicts_of_the_experimental_channel() {
    let json = include_str!("validation/admin/experimental.json");
    assert!(replay(json, Channel::Experimental, |d| !has_old_peers(d)) > 300);
}

#[test]
fn verdicts_of_the_old_peers() {
    let json = include_str!("validation/admin/old.json");
    assert!(replay(json, Channel::Experimental, has_old_peers) > 10);
}

#[test]
fn every_rule_is_asked_about() {
    let objects = include_str!("validation/admin/objects.yaml");
    for number in [1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 16, 17, 19, 21, 22, 43] {
        assert!(objects.contains(&format!("\n# CNP-{number:02} ")), "CNP-{number:02}");
    }
}
