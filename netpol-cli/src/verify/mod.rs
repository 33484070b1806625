//! `netpol verify`: the kernel's rules, or dumps of them, against the policies, for every packet.

mod source;

pub(crate) use source::Source;

use crate::args::{Format, VerifyArgs};
use crate::{Answer, Failure, load, terminal};
use netpol_verify::machine::{Fate, NotUnderstood, TraceStep};
use netpol_verify::{Conclusion, ProofOptions, Refutation, Report, prove};
use serde::Serialize;
use std::io::Write;

/// How many things that were not understood are listed in text.
const MOST_LISTED: usize = 10;

#[derive(Serialize)]
struct Json<'a> {
    verdict: &'static str,
    theorem: &'a str,
    assumptions: &'a [String],
    statistics: Numbers,
    refutations: Vec<PacketJson<'a>>,
    not_understood: Vec<Place<'a>>,
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

pub(crate) fn run(args: &VerifyArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let manifests = load::read_for_answer(&args.ruleset.input)?;
    let source = Source::new(&args.ruleset, &manifests)?;
    let options = ProofOptions::default()
        .with_interfaces(source.interfaces.clone())
        .with_own_table(args.ruleset.table.to_string());
    let report = prove(&source.machine, &source.specification(&manifests), &options);
    match args.ruleset.output {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &json(&report))
                .map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text => out.write_all(terminal::printable(&text(&report)).as_bytes())?,
    }
    Ok(match report.conclusion {
        Conclusion::Proved => Answer::Yes,
        Conclusion::Refuted(_) => Answer::No,
        Conclusion::NotProved { .. } => Answer::Unknown,
    })
}

/// What becomes of a packet, in a word.
pub(crate) fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::Accepted => "accepted",
        Fate::Dropped => "dropped",
        Fate::Unknown => "unknown",
    }
}

fn json(report: &Report) -> Json<'_> {
    let numbers = &report.statistics;
    let (verdict, refutations, not_understood): (_, &[Refutation], _) = match &report.conclusion {
        Conclusion::Proved => ("proved", &[], Vec::new()),
        Conclusion::Refuted(all) => ("refuted", all, Vec::new()),
        Conclusion::NotProved { not_understood, example } => {
            let example = example.as_deref().map(std::slice::from_ref).unwrap_or_default();
            ("not proved", example, not_understood.iter().map(Place::from).collect())
        }
    };
    Json {
        verdict,
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
    }
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
        cause: &refutation.cause,
    }
}

fn text(report: &Report) -> String {
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
            }
        }
    }
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
