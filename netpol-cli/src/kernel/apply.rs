//! `netpol apply` and `netpol remove`.

use super::backend::{self, Choice};
use super::record::{self, Record};
use super::verified::{Before, Claim};
use super::{choice, interfaces, node, report_defects, rules};
use crate::args::{
    ApplyArgs, BackendName, DispatchBy, Format, RemoveArgs, RulesetArgs, SourceGuard,
};
use crate::verify::Besides;
use crate::{Answer, Failure, load, terminal, verify};
use netpol_host::Host;
use netpol_iptables::IptablesOptions;
use netpol_nft::NftOptions;
use netpol_verify::Kernel;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;

/// What was done.
#[derive(Serialize)]
struct Applied {
    backend: String,
    pods: usize,
    programs: usize,
    created: usize,
    switched: usize,
    deleted: usize,
    transactions: usize,
    milliseconds: u128,
    guarded_pods: usize,
    defects: Vec<String>,
    /// The back ends whose rules were removed.
    removed: Vec<String>,
    /// The proof, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<serde_json::Value>,
}

pub(crate) fn apply(args: &ApplyArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let manifests = load::read_for_answer(&args.enforce.input)?;
    let node = match &args.enforce.place.node {
        Some(name) => node::named(name, &manifests)?,
        None => node::of_this_machine(&manifests)?,
    };
    let rules = rules(&manifests, &node)?;
    let name = backend::name(&args.enforce.ruleset.backend);
    let guard = args.enforce.source_guard.unwrap_or(match name {
        BackendName::Iptables => SourceGuard::Prerouting,
        BackendName::Auto | BackendName::Nft => SourceGuard::Ingress,
    });
    let by_device = args.enforce.dispatch == DispatchBy::Interface;
    let interfaces = if args.enforce.place.interfaces.is_some() {
        interfaces(&args.enforce.place, &manifests)?
    } else if guard != SourceGuard::Off || by_device {
        let found = Host::here().devices(&rules);
        found.map_err(|error| Failure::Message(error.to_string()))?
    } else {
        BTreeMap::new()
    };
    let guarded_pods = if guard == SourceGuard::Off { 0 } else { interfaces.len() };
    let choice = choice(&args.enforce, name, guard, interfaces.clone())?;
    let is_nft = matches!(choice, Choice::Nft(_));
    let before = if args.verify { Some(Before::of(&args.enforce, &choice)?) } else { None };
    let mut backend = choice.start();
    if args.dry_run {
        match backend.plan(&rules)? {
            None => writeln!(out, "# nothing would change")?,
            Some(script) => out.write_all(script.as_bytes())?,
        }
        return Ok(Answer::Yes);
    }
    backend.replace(&rules)?;
    let report = backend.report();
    report_defects(&report.defects);
    let [created, switched, deleted] = report.commands;
    let mut applied = Applied {
        backend: backend.to_string(),
        pods: rules.endpoints().len(),
        programs: rules.programs().len(),
        created,
        switched,
        deleted,
        transactions: report.runs,
        milliseconds: report.took.as_millis(),
        guarded_pods,
        defects: report.defects,
        removed: Vec::new(),
        proof: None,
    };
    if !args.keep_others {
        // Only now, when the new rules are in force: for a moment a packet must pass both.
        let other = if is_nft { BackendName::Iptables } else { BackendName::Nft };
        match remove_rules(&args.enforce.ruleset, &[other]) {
            Ok(removed) => applied.removed = removed,
            // What was asked for is in force; a listing of others' rules that cannot be read does not change that.
            Err(failure) => {
                let unknown =
                    format!("rules of another back end may be left from before: {failure}");
                report_defects(std::slice::from_ref(&unknown));
                applied.defects.push(unknown);
            }
        }
    }
    let dumps = Kernel::new().dumps().map_err(|e| Failure::Message(format!("{e}; {}", e.hint())));
    let mut proved = String::new();
    if let Some(before) = before {
        let claim = Claim {
            manifests: &manifests,
            node: match &node {
                node::Choice::AllPods => None,
                node::Choice::Node(name) => Some(name),
            },
            interfaces: &interfaces,
            guarded: guard != SourceGuard::Off,
        };
        let report = match dumps.as_ref().map(|dumps| claim.prove(&args.enforce, dumps)) {
            Ok(Ok(report)) => report,
            Ok(Err(failure)) => return Err(rolled_back(before, Some(failure))),
            Err(failure) => {
                return Err(rolled_back(before, Some(Failure::Message(failure.to_string()))));
            }
        };
        if !report.is_proved() {
            return not_proved(args, before, &report, out);
        }
        proved = format!("proved: {} ({} cells)", report.theorem, report.statistics.cells);
        let json = serde_json::to_value(verify::json(&report, &Besides::default()));
        applied.proof = Some(json.map_err(std::io::Error::from)?);
    }
    // Without a record `verify` still proves; it does not tell what changed.
    let recorded = dumps.map_err(|failure| failure.to_string()).and_then(|dumps| {
        let record = Record::new(applied.backend.clone(), &rules, dumps);
        record.write(&args.state, &args.enforce.ruleset)
    });
    if let Err(why) = recorded {
        let unknown = format!("`netpol verify` will not tell what changed since now: {why}");
        report_defects(std::slice::from_ref(&unknown));
        applied.defects.push(unknown);
    }
    match args.output {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &applied).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text if applied.transactions == 0 => {
            writeln!(out, "nothing to change: the rules for {} pods are in force", applied.pods)?;
        }
        Format::Text => {
            let runs = if is_nft { "transactions" } else { "runs of programs" };
            writeln!(
                out,
                "enforced for {} pods by {} programs with {}: {created} commands created, {switched} switched, {deleted} removed, in {} \
                 {runs} and {} ms",
                applied.pods,
                applied.programs,
                applied.backend,
                applied.transactions,
                applied.milliseconds
            )?;
            writeln!(out, "source addresses are checked for {} of the pods", applied.guarded_pods)?;
        }
    }
    if args.output == Format::Text {
        for other in &applied.removed {
            writeln!(out, "the rules that {other} had from before are removed")?;
        }
        if !proved.is_empty() {
            writeln!(out, "{proved}")?;
        }
    }
    Ok(Answer::Yes)
}

/// Puts the rules from before back, because of a failure.
fn rolled_back(before: Before, failure: Option<Failure>) -> Failure {
    let why = failure.map(|failure| format!("{failure}; ")).unwrap_or_default();
    match before.restore() {
        Ok(true) => Failure::Message(format!("{why}the rules from before are in force again")),
        Ok(false) => Failure::Message(format!(
            "{why}there are no rules of netpol, as before: nothing is enforced"
        )),
        Err(error) => Failure::Message(format!(
            "{why}the new rules are in force, and those from before could not be put back: {error}"
        )),
    }
}

/// Answers with what was not proved, after the rules from before are back.
fn not_proved(
    args: &ApplyArgs,
    before: Before,
    report: &netpol_verify::Report,
    out: &mut dyn Write,
) -> Result<Answer, Failure> {
    let back = rolled_back(before, None).to_string();
    match args.output {
        Format::Json => {
            let answer = serde_json::json!({
                "applied": false,
                "rules": back,
                "proof": verify::json(report, &Besides::default()),
            });
            serde_json::to_writer_pretty(&mut *out, &answer).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text => {
            let text =
                format!("NOT APPLIED: {back}\n\n{}", verify::text(report, &Besides::default()));
            out.write_all(terminal::printable(&text).as_bytes())?;
        }
    }
    Ok(verify::answer_of(report))
}

pub(crate) fn remove(args: &RemoveArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let backends = match args.ruleset.backend.backend {
        BackendName::Auto if args.ruleset.backend.iptables.is_none() => {
            vec![BackendName::Nft, BackendName::Iptables]
        }
        BackendName::Auto => vec![BackendName::Iptables],
        // Who names one is told if its tools are missing.
        named => {
            Choice::plain(&args.ruleset.backend).named(&args.ruleset).start().remove()?;
            vec![named]
        }
    };
    remove_rules(&args.ruleset, &backends)?;
    record::forget(&args.state, &args.ruleset);
    writeln!(out, "no rules of netpol are installed")?;
    Ok(Answer::Yes)
}

/// Removes the rules of these back ends, and says which had any.
fn remove_rules(args: &RulesetArgs, backends: &[BackendName]) -> Result<Vec<String>, Failure> {
    let mut removed = Vec::new();
    for backend in backends {
        let choice = match backend {
            BackendName::Iptables => Choice::Iptables(IptablesOptions::default()),
            BackendName::Auto | BackendName::Nft => Choice::Nft(NftOptions::default()),
        };
        let mut backend = choice.named(args).start();
        if backend.remove_if_any()? {
            removed.push(backend.to_string());
        }
    }
    Ok(removed)
}
