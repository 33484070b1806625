//! `netpol verify`: the kernel's rules, or dumps of them, against the policies, for every packet.

mod answer;
mod drift;
mod second;
mod source;

pub(crate) use answer::{Besides, Place, Step, fate, json, text};
pub(crate) use source::{Source, is_unguarded, own};

use crate::args::{Format, VerifyArgs};
use crate::{Answer, Failure, certificate, load, terminal};
use netpol_verify::{Conclusion, Report, bdd, prove, prove_with_certificate};
use second::Second;
use std::io::Write;

pub(crate) fn run(args: &VerifyArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let manifests = load::read_for_answer(&args.inspect.input)?;
    let source = Source::new(&args.inspect, &manifests)?;
    let options = source::proof_options(&args.claim, &source.interfaces);
    let specification = source.specification(&manifests);
    let (report, proof) = terminal::waiting("proving", || match &args.certificate {
        Some(path) => {
            let (report, proof) = prove_with_certificate(&source.machine, &specification, &options);
            (report, Some((proof, path)))
        }
        None => (prove(&source.machine, &specification, &options), None),
    });
    let written = match proof {
        Some((_, path)) if matches!(report.conclusion, Conclusion::NotProved { .. }) => {
            let path = path.display();
            Some(format!("no certificate in {path}: there is nothing to certify\n"))
        }
        Some((proof, path)) => {
            certificate::write(&proof, path)?;
            Some(format!("certificate in {}\n", path.display()))
        }
        None => None,
    };
    let second = args.second_engine.then(|| {
        let prove = || bdd::prove(&source.machine, &specification, &options);
        Second::new(&report, terminal::waiting("proving once more", prove))
    });
    let drift = drift::since(args, &source, &manifests, &report, &options)?;
    let besides = Besides { drift, second };
    match args.inspect.output {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &json(&report, &besides))
                .map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text => {
            out.write_all(terminal::printable(&text(&report, &besides)).as_bytes())?;
        }
    }
    if let Some(line) = written {
        let line = terminal::printable(&line);
        match args.inspect.output {
            // What is read by a machine is one document.
            Format::Json => eprint!("{line}"),
            Format::Text => out.write_all(line.as_bytes())?,
        }
    }
    // Of two proofs that contradict each other neither is one.
    let agreed = besides.second.is_none_or(|second| second.agrees);
    Ok(if agreed { answer_of(&report) } else { Answer::Unknown })
}

/// The answer that an exit code tells.
pub(crate) fn answer_of(report: &Report) -> Answer {
    match report.conclusion {
        Conclusion::Proved => Answer::Yes,
        Conclusion::Refuted(_) => Answer::No,
        Conclusion::NotProved { .. } => Answer::Unknown,
    }
}
