//! `netpol stats`: what the kernel denied, by policy and by pod.

use super::Choice;
use crate::args::{BackendArgs, BackendName, Format, Input, RulesetArgs, StatsArgs};
use crate::{Answer, Failure, load};
use netpol_core::Direction;
use netpol_host::Denied;
use netpol_k8s::Manifests;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;

/// Packets and bytes that were denied by a rule, or for a pod.
#[derive(Serialize)]
struct Row {
    what: String,
    packets: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Stats {
    by_rule: Vec<Row>,
    by_pod: Vec<Row>,
}

pub(crate) fn stats(args: &StatsArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let manifests = match args.input.paths.as_slice() {
        [] => None,
        paths => Some(load::read_for_answer(&Input {
            paths: paths.to_vec(),
            reading: args.input.reading.clone(),
        })?),
    };
    let (rules, addresses) = denied(&args.ruleset)?;
    let row = |what, Denied { packets, bytes }| Row { what, packets, bytes };
    let stats = Stats {
        by_rule: rules.into_iter().map(|(rule, count)| row(rule, count)).collect(),
        by_pod: addresses
            .into_iter()
            .map(|((direction, address), count)| {
                row(format!("{direction} of {}", name(address, manifests.as_ref())), count)
            })
            .collect(),
    };
    match args.output {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &stats).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text => {
            writeln!(out, "{:>10} {:>12}  denied by", "packets", "bytes")?;
            for Row { what, packets, bytes } in &stats.by_rule {
                writeln!(out, "{packets:>10} {bytes:>12}  {what}")?;
            }
            writeln!(out, "\n{:>10} {:>12}  pod", "packets", "bytes")?;
            for Row { what, packets, bytes } in &stats.by_pod {
                writeln!(out, "{packets:>10} {bytes:>12}  {what}")?;
            }
        }
    }
    Ok(Answer::Yes)
}

/// What was denied, by rule and by address.
type Counts = (BTreeMap<String, Denied>, BTreeMap<(Direction, IpAddr), Denied>);

/// Of the back end that is named, else of the one that counts anything.
fn denied(args: &RulesetArgs) -> Result<Counts, Failure> {
    let of = |backend| -> Result<Counts, Failure> {
        let named = BackendArgs { backend, iptables: args.backend.iptables };
        let backend = Choice::plain(&named).named(args).start();
        Ok((backend.denied()?, backend.denied_by_address()?))
    };
    let found = of(args.backend.backend)?;
    if args.backend.backend != BackendName::Auto || !found.0.is_empty() {
        return Ok(found);
    }
    // Without the tools of iptables it has counted nothing.
    Ok(of(BackendName::Iptables).unwrap_or(found))
}

fn name(address: IpAddr, manifests: Option<&Manifests>) -> String {
    let owner =
        manifests.and_then(|m| m.cluster().address_owners().get(&address).copied().cloned());
    owner.map_or_else(|| address.to_string(), |pod| format!("{pod} ({address})"))
}
