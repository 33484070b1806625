//! The list for people: ends with equal connections share a block, destinations with equal ports share a line.

use super::{Connections, List};
use crate::{Failure, terminal};
use netpol_core::AddressSet;
use netpol_sim::{ExternalRange, PortSetId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::IpAddr;

/// More lines than this nobody reads; the filters and the other formats say the rest.
const MOST_LINES: usize = 2000;

/// Names that one line shows before it counts.
const MOST_NAMES: usize = 6;

/// The destinations of one block, by ports.
type Lines = BTreeMap<PortSetId, (Vec<usize>, Vec<ExternalRange>)>;

pub(super) fn write(list: &mut List, out: &mut dyn Write) -> Result<(), Failure> {
    let mut page = Page { out, lines: 0, left_out: 0, bold: terminal::colors() };
    let names = Names::new(list);
    for (sources, sample) in blocks(list) {
        let connections = list.connections(sample);
        let alone = sources.len() == 1;
        let mut lines = Lines::new();
        for (to, ports) in connections.to_ends {
            if !(alone && to == sample) {
                lines.entry(ports).or_default().0.push(to);
            }
        }
        for external in connections.to_external {
            lines.entry(external.ports).or_default().1.push(external);
        }
        page.block(&names.ends(&sources), &lines, list, &names)?;
    }
    for (ranges, lines) in external_blocks(list) {
        page.block(&names.ranges(&ranges), &lines, list, &names)?;
    }
    page.finish()
}

/// Ends with equal connections, and one of them to ask.
///
/// Of all connections only digests are kept, so that memory grows with the number of ends and not of pairs.
fn blocks(list: &mut List) -> Vec<(Vec<usize>, usize)> {
    let digests = [RandomState::new(), RandomState::new()];
    let mut block_of_kind: HashMap<(Option<usize>, bool), usize> = HashMap::new();
    let mut block_of_digest: HashMap<[u64; 2], usize> = HashMap::new();
    let mut blocks: Vec<(Vec<usize>, usize)> = Vec::new();
    for end in 0..list.ends.len() {
        if !list.from.end(end) {
            continue;
        }
        let kind = (list.connectivity.kind(end), list.in_namespace(end));
        let block = match block_of_kind.get(&kind) {
            Some(&block) => block,
            None => {
                let Connections { to_ends, to_external, .. } = list.connections(end);
                if to_ends.is_empty() && to_external.is_empty() {
                    continue;
                }
                let row = (to_ends, to_external);
                let digest = [0, 1].map(|i: usize| digests.get(i).map_or(0, |d| d.hash_one(&row)));
                *block_of_digest.entry(digest).or_insert_with(|| {
                    blocks.push((Vec::new(), end));
                    blocks.len() - 1
                })
            }
        };
        block_of_kind.insert(kind, block);
        if let Some((ends, _)) = blocks.get_mut(block) {
            ends.push(end);
        }
    }
    blocks
}

/// External ranges that may open the same, with what they may open.
fn external_blocks(list: &mut List) -> BTreeMap<Vec<(IpAddr, IpAddr)>, Lines> {
    let mut of_kind: HashMap<(Option<usize>, bool), Vec<ExternalRange>> = HashMap::new();
    let mut destinations: BTreeMap<(Vec<(IpAddr, IpAddr)>, PortSetId), BTreeSet<usize>> =
        BTreeMap::new();
    for end in 0..list.ends.len() {
        if !list.to.end(end) {
            continue;
        }
        let kind = (list.connectivity.kind(end), list.in_namespace(end));
        if !of_kind.contains_key(&kind) {
            let connections = list.connections(end);
            of_kind.insert(kind, connections.from_external);
        }
        let mut by_ports: BTreeMap<PortSetId, Vec<(IpAddr, IpAddr)>> = BTreeMap::new();
        for range in of_kind.get(&kind).into_iter().flatten() {
            by_ports.entry(range.ports).or_default().push((range.first, range.last));
        }
        for (ports, ranges) in by_ports {
            destinations.entry((ranges, ports)).or_default().insert(end);
        }
    }
    let mut blocks: BTreeMap<Vec<(IpAddr, IpAddr)>, Lines> = BTreeMap::new();
    for ((ranges, ports), ends) in destinations {
        let lines = blocks.entry(ranges).or_default();
        lines.insert(ports, (ends.into_iter().collect(), Vec::new()));
    }
    blocks
}

/// What is printed, and what is left out when it is too much.
struct Page<'a> {
    out: &'a mut dyn Write,
    lines: usize,
    left_out: usize,
    bold: bool,
}

impl Page<'_> {
    fn block(
        &mut self,
        from: &str,
        lines: &Lines,
        list: &List,
        names: &Names,
    ) -> Result<(), Failure> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut rows: Vec<(String, String)> = Vec::new();
        for (ports, (ends, ranges)) in lines {
            let ports = list.connectivity.ports(*ports).to_string();
            if !ends.is_empty() {
                rows.push((names.ends(ends), ports.clone()));
            }
            if !ranges.is_empty() {
                let ranges: Vec<_> = ranges.iter().map(|r| (r.first, r.last)).collect();
                rows.push((names.ranges(&ranges), ports));
            }
        }
        if self.lines + rows.len() + 1 > MOST_LINES - 1 {
            self.left_out += rows.len() + 1;
            return Ok(());
        }
        let (bold, plain) = if self.bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        writeln!(self.out, "{bold}{from}{plain}")?;
        let width = rows.iter().map(|(to, _)| to.chars().count()).max().unwrap_or(0).min(60);
        for (to, ports) in &rows {
            writeln!(self.out, "  -> {to:width$}  {ports}")?;
        }
        self.lines += rows.len() + 1;
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        if self.left_out > 0 {
            writeln!(
                self.out,
                "... {} more lines; --namespace, --from and --to narrow the question, -o csv has every connection",
                self.left_out
            )?;
        } else if self.lines == 0 {
            writeln!(self.out, "nothing is allowed")?;
        }
        Ok(())
    }
}

/// Short names for many ends.
struct Names {
    names: Vec<(String, String)>,
    of_namespace: BTreeMap<String, usize>,
}

impl Names {
    fn new(list: &List) -> Self {
        let mut of_namespace: BTreeMap<String, usize> = BTreeMap::new();
        for end in &list.ends {
            *of_namespace.entry(end.namespace.clone()).or_default() += 1;
        }
        let names = list.ends.iter().map(|end| (end.namespace.clone(), end.name.clone()));
        Self { names: names.collect(), of_namespace }
    }

    fn ends(&self, ends: &[usize]) -> String {
        if ends.len() == self.names.len() && ends.len() > 3 {
            return format!("everything in the cluster ({})", ends.len());
        }
        let mut by_namespace: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (namespace, name) in ends.iter().filter_map(|&end| self.names.get(end)) {
            by_namespace.entry(namespace).or_default().push(name);
        }
        let mut shown = Vec::new();
        let (mut whole, mut rest) = (Vec::new(), 0);
        for (namespace, names) in by_namespace {
            if names.len() > 2 && self.of_namespace.get(namespace) == Some(&names.len()) {
                whole.push(namespace);
                continue;
            }
            for name in names {
                if shown.len() < MOST_NAMES {
                    shown.push(name.to_owned());
                } else {
                    rest += 1;
                }
            }
        }
        if rest > 0 {
            shown.push(format!("{rest} more"));
        }
        if !whole.is_empty() {
            let more = whole.len().saturating_sub(MOST_NAMES);
            let names = whole.iter().take(MOST_NAMES).copied().collect::<Vec<_>>().join(", ");
            let more = if more > 0 { format!(" and {more} more namespaces") } else { String::new() };
            shown.insert(0, format!("all of {names}{more}"));
        }
        shown.join(", ")
    }

    fn ranges(&self, ranges: &[(IpAddr, IpAddr)]) -> String {
        let mut shown: Vec<String> = Vec::new();
        for &(first, last) in ranges {
            shown.push(range(first, last));
        }
        if shown == ["any IPv4", "any IPv6"] {
            return "any external address".to_owned();
        }
        let more = shown.len().saturating_sub(MOST_NAMES);
        shown.truncate(MOST_NAMES);
        if more > 0 {
            shown.push(format!("{more} more ranges"));
        }
        shown.join(", ")
    }
}

/// A range of addresses: as a CIDR if it is one.
pub(crate) fn range(first: IpAddr, last: IpAddr) -> String {
    let mut cidrs = AddressSet::range(first, last).cidrs();
    match (cidrs.next(), cidrs.next()) {
        (Some(net), None) if net.prefix_len() == 0 => {
            format!("any {}", netpol_core::Family::of(first))
        }
        (Some(net), None) if net.prefix_len() == net.max_prefix_len() => first.to_string(),
        (Some(net), None) => net.to_string(),
        _ => format!("{first}-{last}"),
    }
}
