//! `netpol stats`: what the kernel denied, by policy and by pod.

use super::failure;
use crate::args::{Format, Input, StatsArgs};
use crate::{Answer, Failure, load};
use netpol_k8s::Manifests;
use netpol_nft::{Denied, NftOptions, Nftables, Runner};
use serde::Serialize;
use std::io::Write;

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
    let nftables =
        Nftables::new(Runner::new(), NftOptions::default().with_table(args.table.clone()));
    let row = |what, Denied { packets, bytes, .. }| Row { what, packets, bytes };
    let rules = nftables.denied().map_err(|error| failure(&error))?;
    let addresses = nftables.denied_by_address().map_err(|error| failure(&error))?;
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

fn name(address: std::net::IpAddr, manifests: Option<&Manifests>) -> String {
    let owner =
        manifests.and_then(|m| m.cluster().address_owners().get(&address).copied().cloned());
    owner.map_or_else(|| address.to_string(), |pod| format!("{pod} ({address})"))
}
