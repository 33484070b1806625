//! `netpol apply` and `netpol remove`.

use super::backend::{self, Choice, KernelBackend};
use super::record::{self, Record};
use super::verified::{self, Before, Claim};
use super::{choice, interfaces, node, report_defects, rules};
use crate::args::{
    ApplyArgs, BackendName, DispatchBy, EnforceArgs, Format, RemoveArgs, RulesetArgs, SourceGuard,
};
use crate::verify::Besides;
use crate::{Answer, Failure, load, verify};
use netpol_core::{InterfaceName, PodId, Ruleset};
use netpol_host::Host;
use netpol_iptables::IptablesOptions;
use netpol_k8s::Manifests;
use netpol_nft::NftOptions;
use netpol_verify::{Dump, Kernel};
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
    let plan = Plan::new(&args.enforce, &manifests, &rules)?;
    if args.dry_run {
        match plan.choice.start().plan(&rules)? {
            None => writeln!(out, "# nothing would change")?,
            Some(script) => out.write_all(script.as_bytes())?,
        }
        return Ok(Answer::Yes);
    }
    let before = if args.verify { Some(Before::of(&args.enforce, &plan.choice)?) } else { None };
    let mut backend = plan.choice.clone().start();
    backend.replace(&rules)?;
    let mut applied = Applied::new(&backend, &rules, plan.guarded_pods());
    if !args.keep_others {
        // Only now, when the new rules are in force: for a moment a packet must pass both.
        applied.remove_rules_of(plan.other_backend(), &args.enforce.ruleset);
    }
    let dumps = Kernel::new().dumps().map_err(|e| Failure::Message(format!("{e}; {}", e.hint())));
    let mut proof = None;
    if let Some(before) = before {
        let claim = Claim {
            manifests: &manifests,
            node: match &node {
                node::Choice::AllPods => None,
                node::Choice::Node(name) => Some(name),
            },
            interfaces: &plan.interfaces,
            guarded: plan.guard != SourceGuard::Off,
            others_may_drop: args.others_may_drop,
        };
        let report = match claim.prove(&args.enforce, dumps.as_deref()) {
            Ok(report) if report.is_proved() => report,
            Ok(report) => {
                verified::write_not_proved(&report, &before.restore(), args.output, out)?;
                return Ok(verify::answer_of(&report));
            }
            Err(why) => return Err(Failure::Message(format!("{why}; {}", before.restore()))),
        };
        let json = serde_json::to_value(verify::json(&report, &Besides::default()));
        applied.proof = Some(json.map_err(std::io::Error::from)?);
        proof = Some(format!("proved: {} ({} cells)", report.theorem, report.statistics.cells));
    }
    record_rules(args, &rules, &applied.backend, dumps);
    match args.output {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &applied).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text => {
            applied.write_text(plan.changes_by(), out)?;
            if let Some(proof) = proof {
                writeln!(out, "{proof}")?;
            }
        }
    }
    Ok(Answer::Yes)
}

/// How the rules are to be put into the kernel.
struct Plan {
    choice: Choice,
    guard: SourceGuard,
    interfaces: BTreeMap<PodId, InterfaceName>,
}

impl Plan {
    fn new(args: &EnforceArgs, manifests: &Manifests, rules: &Ruleset) -> Result<Self, Failure> {
        let backend = backend::name(&args.ruleset.backend);
        let guard = args.source_guard.unwrap_or(match backend {
            BackendName::Iptables => SourceGuard::Prerouting,
            BackendName::Auto | BackendName::Nft => SourceGuard::Ingress,
        });
        let by_device = args.dispatch == DispatchBy::Interface;
        let interfaces = if args.place.interfaces.is_some() {
            interfaces(&args.place, manifests)?
        } else if guard != SourceGuard::Off || by_device {
            let found = Host::here().devices(rules);
            found.map_err(|error| Failure::Message(error.to_string()))?
        } else {
            BTreeMap::new()
        };
        let choice = choice(args, backend, guard, interfaces.clone())?;
        Ok(Self { choice, guard, interfaces })
    }

    fn guarded_pods(&self) -> usize {
        if self.guard == SourceGuard::Off { 0 } else { self.interfaces.len() }
    }

    fn other_backend(&self) -> BackendName {
        match self.choice {
            Choice::Nft(_) => BackendName::Iptables,
            Choice::Iptables(_) => BackendName::Nft,
        }
    }

    /// What a change of the kernel is made of.
    fn changes_by(&self) -> &'static str {
        match self.choice {
            Choice::Nft(_) => "transactions",
            Choice::Iptables(_) => "runs of programs",
        }
    }
}

impl Applied {
    fn new(backend: &KernelBackend, rules: &Ruleset, guarded_pods: usize) -> Self {
        let report = backend.report();
        report_defects(&report.defects);
        let [created, switched, deleted] = report.commands;
        Self {
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
        }
    }

    /// Removes what another back end has from before.
    fn remove_rules_of(&mut self, other: BackendName, ruleset: &RulesetArgs) {
        match remove_rules(ruleset, &[other]) {
            Ok(removed) => self.removed = removed,
            // What was asked for is in force; a listing of others' rules that cannot be read does not change that.
            Err(failure) => {
                let unknown =
                    format!("rules of another back end may be left from before: {failure}");
                report_defects(std::slice::from_ref(&unknown));
                self.defects.push(unknown);
            }
        }
    }

    fn write_text(&self, changes_by: &str, out: &mut dyn Write) -> Result<(), Failure> {
        let Self { backend, pods, programs, created, switched, deleted, .. } = self;
        if self.transactions == 0 {
            writeln!(out, "nothing to change: the rules for {pods} pods are in force")?;
        } else {
            writeln!(
                out,
                "enforced for {pods} pods by {programs} programs with {backend}: {created} commands created, {switched} switched, \
                 {deleted} removed, in {} {changes_by} and {} ms",
                self.transactions, self.milliseconds
            )?;
            writeln!(out, "source addresses are checked for {} of the pods", self.guarded_pods)?;
        }
        for other in &self.removed {
            writeln!(out, "the rules that {other} had from before are removed")?;
        }
        Ok(())
    }
}

/// Writes down what the kernel lists. Without that `verify` still proves; it does not tell what changed.
fn record_rules(
    args: &ApplyArgs,
    rules: &Ruleset,
    backend: &str,
    dumps: Result<Vec<Dump>, Failure>,
) {
    let recorded = dumps.map_err(|failure| failure.to_string()).and_then(|dumps| {
        let record = Record::new(backend.to_owned(), rules, dumps);
        record.write(&args.state, &args.enforce.ruleset)
    });
    if let Err(why) = recorded {
        report_defects(&[format!("`netpol verify` will not tell what changed since now: {why}")]);
    }
}

pub(crate) fn remove(args: &RemoveArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let mut removed = Vec::new();
    let (backends, where_) = match args.ruleset.backend.backend {
        BackendName::Auto if args.ruleset.backend.iptables.is_none() => {
            (vec![BackendName::Nft, BackendName::Iptables], "")
        }
        BackendName::Auto => (vec![BackendName::Iptables], " with iptables"),
        // Who names one is told if its tools are missing.
        named => {
            let mut backend = Choice::plain(&args.ruleset.backend).named(&args.ruleset).start();
            if backend.remove()? {
                removed.push(backend.to_string());
            }
            let is_nft = matches!(backend, KernelBackend::Nft(_));
            (vec![named], if is_nft { " with nftables" } else { " with iptables" })
        }
    };
    removed.extend(remove_rules(&args.ruleset, &backends)?);
    if where_.is_empty() {
        record::forget(&args.state, &args.ruleset);
    } else {
        record::forget_of(&removed, &args.state, &args.ruleset);
    }
    writeln!(out, "no rules of netpol are installed{where_}")?;
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
