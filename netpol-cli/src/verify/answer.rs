//! The answer of `netpol verify`, for people and for programs.

use super::drift::{Drift, Since};
use super::second::Second;
use crate::kernel::record;
use netpol_verify::machine::{Fate, NotUnderstood, TraceStep};
use netpol_verify::{Blame, ChangeKind, Conclusion, Refutation, Report};
use serde::Serialize;

/// How many changes are listed in text.
const MOST_CHANGES: usize = 20;
/// What to do where others drop what policies allow.
const OTHERS_MAY_DROP: &str =
    "if others' rules are meant to drop more than policies do: --others-may-drop";
/// How many things that were not understood are listed in text.
const MOST_LISTED: usize = 10;

/// What is said besides the proof.
#[derive(Default)]
pub(crate) struct Besides {
    pub(super) drift: Option<Drift>,
    pub(super) second: Option<Second>,
}

/// A report as JSON.
#[derive(Serialize)]
pub(crate) struct Json<'a> {
    verdict: &'static str,
    theorem: &'a str,
    assumptions: &'a [String],
    statistics: Numbers,
    refutations: Vec<PacketJson<'a>>,
    not_understood: Vec<Place<'a>>,
    /// What changed since the rules were applied; none if that is not known.
    drift: Option<DriftJson<'a>>,
    /// What the second engine says, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    second_engine: Option<&'a Second>,
}

#[derive(Serialize)]
struct DriftJson<'a> {
    since: &'static str,
    /// Seconds since 1970.
    applied: Option<u64>,
    /// Do the manifests ask for other rules than those that were applied?
    other_rules: bool,
    changes: Vec<ChangeJson<'a>>,
}

#[derive(Serialize)]
struct ChangeJson<'a> {
    kind: &'static str,
    table: &'a str,
    object: &'a str,
    detail: &'a str,
    matters: bool,
}

#[derive(Serialize)]
struct Numbers {
    pods: usize,
    guarded_pods: usize,
    questions: usize,
    address_classes: usize,
    traffic_classes: usize,
    cells: usize,
    refuted_cells: usize,
    unknown_cells: usize,
    milliseconds: u128,
}

#[derive(Serialize)]
struct PacketJson<'a> {
    packet: String,
    source: String,
    destination: String,
    protocol: u8,
    destination_port: Option<u16>,
    state: &'static str,
    way: String,
    kernel: &'static str,
    policy: &'static str,
    reasons: &'a [String],
    trace: Vec<Step<'a>>,
    /// Is it dropped by a rule that is not netpol's own?
    dropped_by_others: bool,
    cause: &'a str,
}

/// A rule that a packet met.
#[derive(Serialize)]
pub(crate) struct Step<'a> {
    chain: &'a str,
    place: &'a str,
    rule: &'a str,
    action: &'a str,
    comment: Option<&'a str>,
}

impl<'a> From<&'a TraceStep> for Step<'a> {
    fn from(step: &'a TraceStep) -> Self {
        Self {
            chain: &step.chain,
            place: &step.place,
            rule: &step.rule,
            action: &step.action,
            comment: step.comment.as_deref(),
        }
    }
}

/// Something that was not understood.
#[derive(Serialize)]
pub(crate) struct Place<'a> {
    place: &'a str,
    what: &'a str,
}

impl<'a> From<&'a NotUnderstood> for Place<'a> {
    fn from(not_understood: &'a NotUnderstood) -> Self {
        Self { place: &not_understood.place, what: &not_understood.what }
    }
}

/// What becomes of a packet, in a word.
pub(crate) fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::Accepted => "accepted",
        Fate::Dropped => "dropped",
        Fate::Unknown => "unknown",
    }
}

/// A report as JSON.
pub(crate) fn json<'a>(report: &'a Report, besides: &'a Besides) -> Json<'a> {
    let numbers = &report.statistics;
    let (refutations, not_understood): (&[Refutation], _) = match &report.conclusion {
        Conclusion::Proved => (&[], Vec::new()),
        Conclusion::Refuted(all) => (all, Vec::new()),
        Conclusion::NotProved { not_understood, example } => {
            let example = example.as_deref().map(std::slice::from_ref).unwrap_or_default();
            (example, not_understood.iter().map(Place::from).collect())
        }
    };
    Json {
        verdict: report.conclusion.as_str(),
        theorem: &report.theorem,
        assumptions: &report.assumptions,
        statistics: Numbers {
            pods: numbers.pods,
            guarded_pods: numbers.guarded_pods,
            questions: numbers.questions,
            address_classes: numbers.address_classes,
            traffic_classes: numbers.traffic_classes,
            cells: numbers.cells,
            refuted_cells: numbers.refuted_cells,
            unknown_cells: numbers.unknown_cells,
            milliseconds: numbers.took.as_millis(),
        },
        refutations: refutations.iter().map(packet_json).collect(),
        not_understood,
        drift: besides.drift.as_ref().map(drift_json),
        second_engine: besides.second.as_ref(),
    }
}

fn drift_json(drift: &Drift) -> DriftJson<'_> {
    let (since, applied) = match drift.since {
        Since::Apply(applied) => ("apply", Some(applied)),
        Since::Dumps => ("dumps", None),
    };
    let change = |blame| {
        let Blame { change, matters, .. }: &Blame = blame;
        let (table, object, detail) = (&change.table, &change.object, &change.detail);
        ChangeJson { kind: kind(change.kind), table, object, detail, matters: *matters }
    };
    let changes = drift.changes.iter().map(change).collect();
    DriftJson { since, applied, other_rules: drift.other_rules, changes }
}

fn packet_json(refutation: &Refutation) -> PacketJson<'_> {
    let packet = &refutation.packet;
    PacketJson {
        packet: packet.to_string(),
        source: packet.source_address().to_string(),
        destination: packet.destination_address().to_string(),
        protocol: packet.protocol,
        destination_port: matches!(packet.protocol, 6 | 17 | 132).then_some(packet.second),
        state: packet.state.as_str(),
        way: refutation.path.to_string(),
        kernel: fate(refutation.kernel),
        policy: if refutation.allowed { "allowed" } else { "denied" },
        reasons: &refutation.reasons,
        trace: refutation.trace.iter().map(Step::from).collect(),
        dropped_by_others: refutation.dropped_by_others,
        cause: &refutation.cause,
    }
}

/// A report as text.
pub(crate) fn text(report: &Report, besides: &Besides) -> String {
    let mut text = conclusion(report);
    if let Some(second) = &besides.second {
        text.push_str(&format!("\n{}\n", second.text()));
    }
    if let Some(drift) = &besides.drift {
        text.push_str(&drift_text(drift, report.is_proved()));
    }
    text.push_str(&grounds(report));
    text
}

fn conclusion(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    match &report.conclusion {
        Conclusion::Proved => line(&format!("PROVED: {}", report.theorem)),
        Conclusion::Refuted(all) => {
            line("REFUTED: the rules do not do what the policies say");
            for (number, refutation) in all.iter().take(3).enumerate() {
                line(&format!("\n{}. {refutation}", number + 1));
            }
            line(&format!(
                "\nwrong in {} of {} classes of packets",
                report.statistics.refuted_cells, report.statistics.cells
            ));
            if all.iter().all(|refutation| refutation.dropped_by_others) {
                line(OTHERS_MAY_DROP);
            }
        }
        Conclusion::NotProved { not_understood, example } => {
            line("NOT PROVED: something that matters was not understood");
            for what in not_understood.iter().take(MOST_LISTED) {
                line(&format!("  {what}"));
            }
            let more = not_understood.len().saturating_sub(MOST_LISTED);
            if more > 0 {
                line(&format!("  and {more} more"));
            }
            if let Some(example) = example {
                line(&format!("\nfor example, {example}"));
                if example.dropped_by_others {
                    line(OTHERS_MAY_DROP);
                }
            }
        }
    }
    text
}

/// What changed, and what of it matters.
fn drift_text(drift: &Drift, proved: bool) -> String {
    let since = match drift.since {
        Since::Apply(applied) => format!("`netpol apply`, {}", ago(applied)),
        Since::Dumps => "the dumps from before".to_owned(),
    };
    let mut text = String::new();
    if drift.changes.is_empty() {
        if !proved {
            let whose = if drift.other_rules {
                "but the manifests ask for other rules now: apply them"
            } else {
                "so either the choices (--re-evaluate, --allow-...) are not those of `apply`, or this is a mistake of netpol"
            };
            text.push_str(&format!("\nnothing changed in the kernel since {since}, {whose}\n"));
        }
        return text;
    }
    let mattering = drift.changes.iter().filter(|one| one.matters).count();
    let of_it = match (mattering, proved) {
        (_, true) | (0, _) => "nothing of it matters".to_owned(),
        (some, false) => format!("{some} of {} matter", drift.changes.len()),
    };
    text.push_str(&format!("\nchanged in the kernel since {since}; {of_it}:\n"));
    let mut ordered: Vec<&Blame> = drift.changes.iter().collect();
    ordered.sort_by_key(|one| (!one.matters, &one.change.table, one.change.kind));
    let mut lines: Vec<String> = Vec::new();
    for alike in ordered.chunk_by(|a, b| are_alike(a, b)) {
        let mark = if alike.iter().any(|one| one.matters) { "matters" } else { "harmless" };
        match alike {
            // Where somebody put a table, its name says more than those of all its chains.
            [one, _, _, ..] if !one.matters => lines.push(format!(
                "{mark}: {}: {} chains, sets and maps in {}",
                kind(one.change.kind),
                alike.len(),
                one.change.table
            )),
            all => lines.extend(all.iter().map(|one| format!("{mark}: {}", one.change))),
        }
    }
    let more = lines.len().saturating_sub(MOST_CHANGES);
    lines.truncate(MOST_CHANGES);
    for line in lines {
        text.push_str(&format!("  {line}\n"));
    }
    if more > 0 {
        text.push_str(&format!("  and {more} more\n"));
    }
    if drift.other_rules && mattering == 0 && !proved {
        text.push_str(
            "the manifests ask for other rules than those that were applied: apply them\n",
        );
    }
    text
}

fn kind(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Added => "added",
        ChangeKind::Removed => "removed",
        ChangeKind::Changed => "changed",
    }
}

/// Did the same happen to two objects of a table, with the same outcome?
fn are_alike(a: &Blame, b: &Blame) -> bool {
    (a.matters, a.change.kind, &a.change.table) == (b.matters, b.change.kind, &b.change.table)
}

/// `12 minutes ago`.
fn ago(seconds: u64) -> String {
    let passed = record::now().saturating_sub(seconds);
    let (number, unit) = match passed {
        0..60 => (passed, "second"),
        60..3600 => (passed / 60, "minute"),
        3600..86_400 => (passed / 3600, "hour"),
        _ => (passed / 86_400, "day"),
    };
    format!("{number} {unit}{} ago", if number == 1 { "" } else { "s" })
}

/// What the conclusion rests on.
fn grounds(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line("\nassuming that");
    for assumption in &report.assumptions {
        line(&format!("  - {assumption}"));
    }
    let numbers = &report.statistics;
    line(&format!(
        "\n{} cells: {} questions, {} classes of addresses, {} of protocols and ports, in {} ms",
        numbers.cells,
        numbers.questions,
        numbers.address_classes,
        numbers.traffic_classes,
        numbers.took.as_millis()
    ));
    text
}
