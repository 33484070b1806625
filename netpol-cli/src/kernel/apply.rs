//! `netpol apply` and `netpol remove`.

use super::{failure, node, options, report_defects, rules};
use crate::args::{ApplyArgs, Format, RemoveArgs, SourceGuard};
use crate::{Answer, Failure, load};
use netpol_core::Backend;
use netpol_host::Host;
use netpol_nft::{NftOptions, Nftables};
use serde::Serialize;
use std::io::Write;

/// What was done.
#[derive(Serialize)]
struct Applied {
    pods: usize,
    programs: usize,
    created: usize,
    switched: usize,
    deleted: usize,
    transactions: usize,
    milliseconds: u128,
    guarded_pods: usize,
    defects: Vec<String>,
}

pub(crate) fn apply(args: &ApplyArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let manifests = load::read_for_answer(&args.enforce.input)?;
    let node = match &args.enforce.node {
        Some(name) => node::named(name, &manifests)?,
        None => node::of_this_machine(&manifests)?,
    };
    let rules = rules(&manifests, &node)?;
    let mut options = options(&args.enforce, &manifests)?;
    let mut nftables = Nftables::new(Host::here(), options.clone());
    if args.enforce.interfaces.is_none() && args.enforce.source_guard != SourceGuard::Off {
        let found =
            Host::here().devices(&rules).map_err(|error| Failure::Message(error.to_string()))?;
        let host = options.host().clone().with_interfaces(found);
        options = options.with_host(host);
        nftables.set_options(options.clone());
    }
    if args.dry_run {
        let plan = nftables.plan(&rules).map_err(|error| failure(&error))?;
        if plan.is_empty() {
            writeln!(out, "# nothing would change")?;
        } else {
            out.write_all(plan.script().as_bytes())?;
        }
        return Ok(Answer::Yes);
    }
    nftables.replace(&rules).map_err(|error| failure(&error))?;
    let report = nftables.report();
    report_defects(report.defects());
    let [created, switched, deleted] = report.commands();
    let applied = Applied {
        pods: rules.endpoints().len(),
        programs: rules.programs().len(),
        created,
        switched,
        deleted,
        transactions: report.transactions(),
        milliseconds: report.took().as_millis(),
        guarded_pods: options.host().interfaces().len(),
        defects: report.defects().iter().map(ToString::to_string).collect(),
    };
    match args.output {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &applied).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text if report.transactions() == 0 => {
            writeln!(out, "nothing to change: the rules for {} pods are in force", applied.pods)?;
        }
        Format::Text => {
            writeln!(
                out,
                "enforced for {} pods by {} programs: {created} commands created, {switched} switched, {deleted} removed, in {} \
                 transactions and {} ms",
                applied.pods, applied.programs, applied.transactions, applied.milliseconds
            )?;
            writeln!(out, "source addresses are checked for {} of the pods", applied.guarded_pods)?;
        }
    }
    Ok(Answer::Yes)
}

pub(crate) fn remove(args: &RemoveArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let mut nftables =
        Nftables::new(Host::here(), NftOptions::default().with_table(args.table.clone()));
    nftables.remove().map_err(|error| failure(&error))?;
    writeln!(out, "no rules of netpol are installed")?;
    Ok(Answer::Yes)
}
