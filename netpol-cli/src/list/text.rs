//! The list for people: ends with equal connections share a block, destinations with equal ports share a line.

use super::{Connections, List};
use crate::{Failure, terminal};
use netpol_core::AddressSet;
use netpol_sim::{ExternalRange, PortSetId};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::IpAddr;

/// More lines than this nobody reads; the filters and the other formats say the rest.
const MOST_LINES: usize = 2000;

/// Names that one line shows before it counts.
const MOST_NAMES: usize = 6;

/// The destinations of one block, by ports.
type Lines = BTreeMap<PortSetId, (Vec<usize>, Vec<ExternalRange>)>;

/// Ranges of external addresses, each with what it may open in the cluster.
type ExternalBlocks = BTreeMap<Vec<(IpAddr, IpAddr)>, Lines>;

/// External ranges, by what they may open.
type Sources = BTreeMap<PortSetId, Vec<(IpAddr, IpAddr)>>;

pub(super) fn write(list: &mut List, out: &mut dyn Write) -> Result<(), Failure> {
    let mut page = Page { out, lines: 0, left_out: 0, bold: terminal::colors() };
    let names = Names::new(list);
    let (blocks, external) = blocks(list);
    for Block { ends, lines, rows } in blocks {
        match (lines, ends.as_slice()) {
            (_, []) => {}
            (None, _) => page.left_out += rows + 1,
            (Some(lines), &[alone]) => {
                let lines = without(lines, alone);
                page.block(&names.ends(&ends, None), &lines, Some(alone), list, &names)?;
            }
            (Some(lines), _) => page.block(&names.ends(&ends, None), &lines, None, list, &names)?,
        }
    }
    for (ranges, lines) in external {
        page.block(&names.ranges(&ranges), &lines, None, list, &names)?;
    }
    page.finish()
}

/// Ends with equal connections.
struct Block {
    ends: Vec<usize>,
    /// None where there are more blocks than can be shown.
    lines: Option<Lines>,
    /// How many lines they are.
    rows: usize,
}

/// Lines without the connections of an end with itself.
fn without(mut lines: Lines, alone: usize) -> Lines {
    for (ends, _) in lines.values_mut() {
        ends.retain(|&end| end != alone);
    }
    lines.retain(|_, (ends, ranges)| !ends.is_empty() || !ranges.is_empty());
    lines
}

/// All that was asked for: what ends in the cluster may open, and what external ranges may.
///
/// Each kind of end is computed once. Of what cannot be shown only a digest is kept, so that memory does not grow with the
/// number of pairs.
fn blocks(list: &mut List) -> (Vec<Block>, ExternalBlocks) {
    let digests = [RandomState::new(), RandomState::new()];
    let mut kinds: HashMap<_, (Option<usize>, Sources)> = HashMap::new();
    let mut known: HashMap<Vec<u64>, usize> = HashMap::new();
    let mut blocks: Vec<Block> = Vec::new();
    let mut external = ExternalBlocks::new();
    for end in 0..list.ends.len() {
        let asked = (list.from.end(end), list.to.end(end));
        if asked == (false, false) {
            continue;
        }
        let kind = (list.connectivity.kind(end), list.in_namespace(end), asked);
        let (block, sources) = kinds.entry(kind).or_insert_with(|| {
            let (lines, sources) = lines(list.connections(end));
            let block = (!lines.is_empty()).then(|| {
                let digest = digests.iter().map(|digest| digest.hash_one(&lines)).collect();
                *known.entry(digest).or_insert_with(|| {
                    let parts = lines.values().flat_map(|(e, r)| [e.len(), r.len()]);
                    let rows = parts.filter(|&count| count > 0).count();
                    let lines = (blocks.len() < MOST_LINES).then_some(lines);
                    blocks.push(Block { ends: Vec::new(), lines, rows });
                    blocks.len() - 1
                })
            });
            (block, sources)
        });
        if let Some(block) = block.and_then(|block| blocks.get_mut(block)) {
            block.ends.push(end);
        }
        for (ports, ranges) in sources {
            let lines = external.entry(ranges.clone()).or_default();
            lines.entry(*ports).or_default().0.push(end);
        }
    }
    (blocks, external)
}

/// The connections of one end, by ports.
fn lines(connections: Connections) -> (Lines, Sources) {
    let (mut lines, mut sources) = (Lines::new(), Sources::new());
    for (to, ports) in connections.to_ends {
        lines.entry(ports).or_default().0.push(to);
    }
    for external in connections.to_external {
        lines.entry(external.ports).or_default().1.push(external);
    }
    for external in connections.from_external {
        sources.entry(external.ports).or_default().push((external.first, external.last));
    }
    (lines, sources)
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
        alone: Option<usize>,
        list: &List,
        names: &Names,
    ) -> Result<(), Failure> {
        if lines.is_empty() {
            return Ok(());
        }
        // Ends of the cluster by name, then external addresses.
        let mut rows: Vec<(bool, String, String)> = Vec::new();
        for (ports, (ends, ranges)) in lines {
            let ports = list.connectivity.ports(*ports).to_string();
            if !ends.is_empty() {
                rows.push((false, names.ends(ends, alone), ports.clone()));
            }
            if !ranges.is_empty() {
                let ranges: Vec<_> = ranges.iter().map(|r| (r.first, r.last)).collect();
                rows.push((true, names.ranges(&ranges), ports));
            }
        }
        rows.sort();
        if self.lines + rows.len() + 1 > MOST_LINES - 1 {
            self.left_out += rows.len() + 1;
            return Ok(());
        }
        let (bold, plain) = if self.bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        writeln!(self.out, "{bold}{from}{plain}")?;
        let width = rows.iter().map(|(_, to, _)| to.chars().count()).max().unwrap_or(0).min(60);
        for (_, to, ports) in &rows {
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

    /// Names of ends; `alone` is one that is not among them because it is what they are listed for.
    fn ends(&self, ends: &[usize], alone: Option<usize>) -> String {
        let alone = alone.filter(|alone| !ends.contains(alone));
        let all = ends.len() + usize::from(alone.is_some());
        if all == self.names.len() && all > 3 {
            let rest = if alone.is_some() { "everything else" } else { "everything" };
            return format!("{rest} in the cluster ({})", ends.len());
        }
        let alone = alone.and_then(|alone| self.names.get(alone));
        let mut by_namespace: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (namespace, name) in ends.iter().filter_map(|&end| self.names.get(end)) {
            by_namespace.entry(namespace).or_default().push(name);
        }
        let (mut whole, mut rest_of, mut shown, mut more) = (Vec::new(), None, Vec::new(), 0);
        for (namespace, names) in by_namespace {
            let of_namespace = self.of_namespace.get(namespace).copied().unwrap_or_default();
            let has_alone = alone.is_some_and(|(of, _)| of == namespace);
            if names.len() > 2 && names.len() == of_namespace {
                whole.push(namespace);
            } else if names.len() > 1 && has_alone && names.len() + 1 == of_namespace {
                rest_of = Some(namespace);
            } else {
                for name in names {
                    if shown.len() < MOST_NAMES {
                        shown.push(name.to_owned());
                    } else {
                        more += 1;
                    }
                }
            }
        }
        if more > 0 {
            shown.push(format!("{more} more"));
        }
        if !whole.is_empty() {
            let more = whole.len().saturating_sub(MOST_NAMES);
            let names = whole.iter().take(MOST_NAMES).copied().collect::<Vec<_>>().join(", ");
            let more =
                if more > 0 { format!(" and {more} more namespaces") } else { String::new() };
            shown.insert(0, format!("all of {names}{more}"));
        }
        if let Some(namespace) = rest_of {
            shown.insert(0, format!("the rest of {namespace}"));
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
    let set = AddressSet::range(first, last);
    let mut cidrs = set.cidrs();
    match (cidrs.next(), cidrs.next()) {
        (Some(net), None) if net.prefix_len() == 0 => {
            format!("any {}", netpol_core::Family::of(first))
        }
        (Some(net), None) if net.prefix_len() == net.max_prefix_len() => first.to_string(),
        (Some(net), None) => net.to_string(),
        _ => format!("{first}-{last}"),
    }
}
