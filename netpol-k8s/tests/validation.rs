//! The verdicts of a real kube-apiserver (`validation/verdicts.json`), reproduced object by object: accepted or not, and for what
//! its validation refuses every field with its reason.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

use netpol_k8s::{CidrRules, Diagnostic, Reader, Severity};
use serde::Deserialize;
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
    warn: Verdict,
}

#[derive(Deserialize)]
struct Verdict {
    code: u16,
    accepted: bool,
    #[serde(default)]
    message: String,
    causes: Vec<Cause>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Cause {
    field: String,
    reason: String,
}

fn recording(json: &str) -> Vec<Document> {
    serde_json::from_str::<Recording>(json).unwrap().documents
}

/// The text of each object by its title, as it was sent.
fn objects() -> Vec<(&'static str, String)> {
    let mut texts = vec![String::new()];
    for line in include_str!("validation/objects.yaml").lines() {
        if line == "---" {
            texts.push(String::new());
        } else {
            texts.last_mut().unwrap().push_str(&format!("{line}\n"));
        }
    }
    let text = include_str!("validation/objects.yaml");
    texts
        .into_iter()
        .skip(1)
        .map(|body| {
            let first = body.lines().next().unwrap();
            let at = text.find(first).unwrap();
            let first = &text[at..at + first.len()];
            let rules = first.trim_start_matches("# ").split(' ');
            let length: usize = rules
                .take_while(|word| word.starts_with("VAL-") || word.starts_with("NP-"))
                .map(|word| word.len() + 1)
                .sum();
            let rest = body.split_once('\n').unwrap().1.to_owned();
            let json = rest.starts_with('{');
            (&first[2 + length..], if json { rest } else { body })
        })
        .collect()
}

/// What is about the request and not about the object, and so has no meaning for a file.
fn is_about_the_request(verdict: &Verdict) -> bool {
    [
        "namespace of the provided object",
        "no kind",
        "unknown conversion",
        "API version in the data",
        "unexpected GroupVersion",
    ]
    .iter()
    .any(|text| verdict.message.contains(text))
}

#[track_caller]
fn replay(recorded: &[Document], cidrs: CidrRules) {
    let objects = objects();
    let mut report = String::new();
    let (mut compared, mut skipped) = (0, 0);
    for document in recorded {
        let title = &document.title;
        let (_, text) = objects.iter().find(|(t, _)| t == title).unwrap();
        let has_kind = text.contains("kind") && text.contains("NetworkPolicy");
        if is_about_the_request(&document.strict) || !has_kind {
            skipped += 1;
            continue;
        }
        compared += 1;
        let mut reader = Reader::new().cidr_rules(cidrs);
        reader.read_text("object", text);
        let manifests = reader.finish();
        let diagnostics = manifests.diagnostics();
        let is_error = |d: &&Diagnostic| {
            // A server refuses even the status that old servers stored.
            d.severity() == Severity::Error || (d.code() == "VAL-27" && d.field() == Some("status"))
        };
        let errors: Vec<_> = diagnostics.iter().filter(is_error).collect();
        let verdict = &document.strict;
        let mut differ = |what: String| {
            let _ = writeln!(report, "{:?} {title}: {what}", document.rules);
            for diagnostic in diagnostics {
                let _ = writeln!(report, "    ours: {diagnostic}");
            }
            let _ = writeln!(report, "    server: {} {}", verdict.code, verdict.message);
        };
        if errors.is_empty() != verdict.accepted {
            differ(format!("accepted: {}, but ours: {}", verdict.accepted, errors.is_empty()));
            continue;
        }
        if verdict.code == 422 {
            let mut theirs: Vec<_> =
                verdict.causes.iter().map(|c| (c.field.clone(), c.reason.clone())).collect();
            let mut ours: Vec<_> = errors
                .iter()
                .map(|d| {
                    let reason = d.reason().map(|r| r.to_string()).unwrap_or_default();
                    (d.field().unwrap_or_default().to_owned(), reason)
                })
                .collect();
            // A server has one cause for each thing that is wrong with a value; here each value has one.
            for causes in [&mut theirs, &mut ours] {
                causes.sort();
                causes.dedup();
            }
            if theirs != ours {
                differ(format!("causes {theirs:?}, but ours {ours:?}"));
            }
        }
        if verdict.accepted {
            // What a server warns of, we warn of too, at the same field.
            for warning in &document.warn.warnings {
                let field = warning.split(": ").next().unwrap();
                if !diagnostics.iter().any(|d| d.field() == Some(field)) {
                    differ(format!("no diagnostic at {field}, where the server warns"));
                }
            }
        }
    }
    assert!(report.is_empty(), "{report}");
    eprintln!("{compared} verdicts compared, {skipped} are about the request");
    assert!(compared > recorded.len() * 9 / 10, "{compared} of {}", recorded.len());
}

#[test]
fn verdicts_of_a_server_of_1_36() {
    let recorded = recording(include_str!("validation/verdicts.json"));
    assert!(recorded.len() >= 700);
    replay(&recorded, CidrRules::Strict);
}

#[test]
fn verdicts_of_a_server_with_lenient_cidrs() {
    replay(&recording(include_str!("validation/verdicts-legacy-cidr.json")), CidrRules::Legacy);
}

#[test]
fn every_rule_is_asked_about() {
    let recorded = recording(include_str!("validation/verdicts.json"));
    for number in (1..=29).filter(|n| *n != 30) {
        let rule = format!("VAL-{number:02}");
        assert!(recorded.iter().any(|d| d.rules.contains(&rule)), "{rule}");
    }
}
