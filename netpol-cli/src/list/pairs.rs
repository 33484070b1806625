//! One connection a row: JSON, CSV and Markdown.

use super::List;
use crate::Failure;
use netpol_core::{PortSet, Protocol};
use netpol_sim::ExternalRange;
use serde::Serialize;
use std::io::Write;

/// One allowed connection: two ends and what may be opened between them.
#[derive(Serialize)]
struct Pair<'a> {
    src: &'a str,
    dst: &'a str,
    allow: Allow,
}

/// Closed port ranges by protocol, and whether every other IP protocol is allowed.
#[derive(Serialize)]
struct Allow {
    #[serde(rename = "TCP")]
    tcp: Vec<[u16; 2]>,
    #[serde(rename = "UDP")]
    udp: Vec<[u16; 2]>,
    #[serde(rename = "SCTP")]
    sctp: Vec<[u16; 2]>,
    other: bool,
}

impl Allow {
    fn new(ports: &PortSet) -> Self {
        let ranges = |protocol| {
            let intervals = ports.ports(protocol).intervals();
            intervals.filter(|r| *r.end() > 0).map(|r| [*r.start().max(&1), *r.end()]).collect()
        };
        Self {
            tcp: ranges(Protocol::Tcp),
            udp: ranges(Protocol::Udp),
            sctp: ranges(Protocol::Sctp),
            other: ports.other(),
        }
    }
}

/// Calls `row` for every connection that was asked for, without keeping them.
fn for_each(
    list: &mut List,
    row: &mut dyn FnMut(Pair<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for end in 0..list.ends.len() {
        let connections = list.connections(end);
        let name = |end: usize| list.ends.get(end).map_or("", |end| end.name.as_str());
        let allow = |ports| Allow::new(list.connectivity.ports(ports));
        for (to, ports) in connections.to_ends.into_iter().filter(|(to, _)| *to != end) {
            row(Pair { src: name(end), dst: name(to), allow: allow(ports) })?;
        }
        for external in connections.to_external {
            row(Pair { src: name(end), dst: &range(&external), allow: allow(external.ports) })?;
        }
        for external in connections.from_external {
            row(Pair { src: &range(&external), dst: name(end), allow: allow(external.ports) })?;
        }
    }
    Ok(())
}

fn range(range: &ExternalRange) -> String {
    format!("{}-{}", range.first, range.last)
}

pub(super) fn write_json(list: &mut List, out: &mut dyn Write) -> Result<(), Failure> {
    out.write_all(b"{\"connections\":[")?;
    let mut separator = "\n";
    for_each(list, &mut |pair| {
        out.write_all(separator.as_bytes())?;
        separator = ",\n";
        serde_json::to_writer(&mut *out, &pair).map_err(std::io::Error::from)?;
        Ok(())
    })?;
    out.write_all(b"\n]}\n")?;
    Ok(())
}

pub(super) fn write_csv(list: &mut List, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "src,dst,tcp,udp,sctp,other")?;
    for_each(list, &mut |pair| {
        let Allow { tcp, udp, sctp, other } = &pair.allow;
        let (tcp, udp, sctp) = (ports(tcp), ports(udp), ports(sctp));
        let (src, dst) = (field(pair.src), field(pair.dst));
        Ok(writeln!(out, "{src},{dst},{tcp},{udp},{sctp},{other}")?)
    })
}

/// A name as a CSV field: no manifest can break out of it.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn ports(ranges: &[[u16; 2]]) -> String {
    let text = |[first, last]: &[u16; 2]| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(" ")
}

pub(super) fn write_md(list: &mut List, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "| src | dst | allowed |\n|---|---|---|")?;
    for_each(list, &mut |pair| {
        let Allow { tcp, udp, sctp, other } = &pair.allow;
        let mut allowed = Vec::new();
        for (protocol, ranges) in Protocol::ALL.into_iter().zip([tcp, udp, sctp]) {
            match ranges.as_slice() {
                [] => {}
                [[1, u16::MAX]] => allowed.push(protocol.to_string()),
                ranges => allowed.push(format!("{protocol} {}", ports(ranges))),
            }
        }
        if *other {
            allowed.push("other protocols".to_owned());
        }
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let (src, dst) = (cell(pair.src), cell(pair.dst));
        Ok(writeln!(out, "| {src} | {dst} | {} |", allowed.join("; "))?)
    })
}
