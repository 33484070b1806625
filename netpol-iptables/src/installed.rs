//! What the kernel has, as `iptables-save` and `ipset save` list it: only what is ours.

use crate::error::Error;
use crate::model::{Builtin, ChainName, Element, Model, Set, SetName, SetType, Table, TableName};
use crate::name::Prefix;
use crate::text;
use crate::tools::{Tools, ipset_save};
use ipnet::IpNet;
use netpol_core::{Family, Protocol};
use netpol_host::{Denied, DeviceName, Host};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A rule as its words, unquoted; addresses as this program writes them.
pub(crate) type Words = Vec<String>;

/// The tables of one implementation.
pub(crate) type Tables = BTreeMap<(Family, TableName), InstalledTable>;

/// What is ours in the kernel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Installed {
    pub(crate) sets: BTreeMap<SetName, InstalledSet>,
    pub(crate) tables: Tables,
    /// What the other implementation of iptables still has.
    pub(crate) other: Tables,
}

/// A set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct InstalledSet {
    pub(crate) kind: SetType,
    pub(crate) family: Family,
    pub(crate) counters: bool,
    pub(crate) capacity: usize,
    pub(crate) elements: BTreeSet<Element>,
    /// It has members that we did not put in.
    pub(crate) odd: bool,
    pub(crate) counts: Vec<(Element, Denied)>,
}

/// What is ours in a table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct InstalledTable {
    pub(crate) chains: BTreeMap<ChainName, Vec<Words>>,
    /// The rules of built-in chains that lead to our chains, with their places.
    pub(crate) jumps: BTreeMap<Builtin, Vec<(usize, Words)>>,
}

/// How often rules of ours were met.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RuleCount {
    pub(crate) words: Words,
    pub(crate) met: Denied,
}

impl Installed {
    /// Reads what is ours of one implementation, and all sets.
    pub(crate) fn read(host: &Host, tools: &Tools, prefix: &Prefix) -> Result<Self, Error> {
        let sets = parse_sets(prefix, &ipset_save(host)?)?;
        Ok(Self { sets, tables: read_tables(host, tools, prefix)?, other: Tables::new() })
    }

    /// What is installed once `model` is.
    pub(crate) fn of(model: &Model) -> Self {
        let sets = model.sets.iter().map(|(name, set)| (name.clone(), InstalledSet::of(set)));
        let tables = model.tables.iter().filter(|(_, table)| !table.chains.is_empty());
        Self {
            sets: sets.collect(),
            tables: tables.map(|(&key, table)| (key, InstalledTable::of(table))).collect(),
            other: Tables::new(),
        }
    }

    /// Is nothing of ours there?
    pub(crate) fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.tables.is_empty() && self.other.is_empty()
    }

    /// The sets that packets may be looked up in now.
    pub(crate) fn live_sets(&self) -> BTreeSet<SetName> {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for table in self.tables.values().chain(self.other.values()) {
            let live = table.live_chains();
            let rules = table.chains.iter().filter(|(name, _)| live.contains(*name));
            for words in rules.flat_map(|(_, rules)| rules) {
                names.extend(words.windows(2).filter_map(|pair| match pair {
                    [option, name] if option == "--match-set" => Some(name.as_str()),
                    _ => None,
                }));
            }
        }
        self.sets.keys().filter(|name| names.contains(name.as_str())).cloned().collect()
    }
}

/// Reads what is ours of one implementation.
pub(crate) fn read_tables(host: &Host, tools: &Tools, prefix: &Prefix) -> Result<Tables, Error> {
    let mut tables = Tables::new();
    for family in Family::ALL {
        parse_rules(prefix, family, &tools.save(host, family, &[])?, &mut tables, &mut Vec::new())?;
    }
    Ok(tables)
}

impl InstalledSet {
    fn of(set: &Set) -> Self {
        Self {
            kind: set.kind,
            family: set.family,
            counters: set.counters,
            capacity: set.capacity(),
            elements: set.elements.clone(),
            odd: false,
            counts: Vec::new(),
        }
    }
}

impl InstalledTable {
    fn of(table: &Table) -> Self {
        let chains = table.chains.iter().map(|(name, chain)| {
            let rules = chain.rules.iter().map(|rule| words(&text::append(name.as_str(), rule)));
            (name.clone(), rules.collect())
        });
        let jumps = table.jumps.iter().map(|(&builtin, rule)| {
            (builtin, vec![(0, words(&text::append(builtin.as_str(), rule)))])
        });
        Self { chains: chains.collect(), jumps: jumps.collect() }
    }

    /// The chains that packets may be in now.
    pub(crate) fn live_chains(&self) -> BTreeSet<ChainName> {
        let by_name: BTreeMap<&str, &ChainName> =
            self.chains.keys().map(|name| (name.as_str(), name)).collect();
        let target = |words: &Words| words.last().and_then(|t| by_name.get(t.as_str()).copied());
        let mut live: BTreeSet<ChainName> = BTreeSet::new();
        let mut next: Vec<&ChainName> =
            self.jumps.values().flatten().filter_map(|(_, words)| target(words)).collect();
        while let Some(name) = next.pop() {
            if live.insert(name.clone()) {
                let rules = self.chains.get(name);
                next.extend(rules.into_iter().flatten().filter_map(target));
            }
        }
        live
    }
}

/// The words of a line, without quotes.
pub(crate) fn words(line: &str) -> Words {
    let mut words = Words::new();
    let mut word: Option<String> = None;
    let (mut quoted, mut escaped) = (false, false);
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.get_or_insert_default().push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let mut address = false;
    for word in &mut words {
        if address && let Ok(net) = word.parse::<IpNet>() {
            *word = net.to_string();
        }
        address = matches!(word.as_str(), "-s" | "-d");
    }
    words
}

/// Adds what is ours in the listing of a family; and how often each rule was met, if it says so.
pub(crate) fn parse_rules(
    prefix: &Prefix,
    family: Family,
    listing: &str,
    tables: &mut Tables,
    counts: &mut Vec<RuleCount>,
) -> Result<(), Error> {
    let mut table: Option<TableName> = None;
    let mut marked: BTreeSet<TableName> = BTreeSet::new();
    let mut places: BTreeMap<(TableName, Builtin), usize> = BTreeMap::new();
    let marker = ChainName::marker(prefix);
    let entry_of = |target: &str| {
        Builtin::ALL.into_iter().find(|b| ChainName::entry(prefix, *b).as_str() == target)
    };
    for line in listing.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = TableName::ALL.into_iter().find(|table| table.as_str() == name.trim());
            continue;
        }
        let Some(table) = table else { continue };
        if let Some(chain) = line.strip_prefix(':') {
            let name = chain.split_whitespace().next().unwrap_or_default();
            let Some(name) = ChainName::parse(prefix, name) else { continue };
            if name == marker {
                marked.insert(table);
            }
            tables.entry((family, table)).or_default().chains.entry(name).or_default();
            continue;
        }
        let (met, rule) = match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            Some((met, rule)) => (Some(met), rule),
            None => (None, line),
        };
        if !rule.starts_with("-A ") {
            continue;
        }
        let words = words(rule);
        let Some(chain) = words.get(1) else { continue };
        if let Some(builtin) = Builtin::ALL.into_iter().find(|b| b.as_str() == chain) {
            let place = places.entry((table, builtin)).or_default();
            if words.last().is_some_and(|target| entry_of(target).is_some()) {
                let ours = tables.entry((family, table)).or_default();
                ours.jumps.entry(builtin).or_default().push((*place, words));
            }
            *place += 1;
        } else if let Some(name) = ChainName::parse(prefix, chain) {
            if let Some(met) = met.and_then(parse_count) {
                counts.push(RuleCount { words: words.clone(), met });
            }
            let ours = tables.entry((family, table)).or_default();
            ours.chains.entry(name).or_default().push(words);
        }
    }
    for table in TableName::ALL {
        let Some(ours) = tables.get(&(family, table)) else { continue };
        // Nobody else makes names with a digest. The marker alone may be gone: it is empty, as `iptables -X` likes it.
        let digests = ours.chains.keys().any(ChainName::has_digest);
        if let (false, false, Some(name)) =
            (marked.contains(&table), digests, ours.chains.keys().next())
        {
            return Err(Error::Foreign { name: format!("{family} {table} chain {name}") });
        }
    }
    Ok(())
}

/// `12:3456`.
fn parse_count(text: &str) -> Option<Denied> {
    let (packets, bytes) = text.split_once(':')?;
    Some(Denied { packets: packets.parse().ok()?, bytes: bytes.parse().ok()? })
}

/// What is ours in the output of `ipset save`.
pub(crate) fn parse_sets(
    prefix: &Prefix,
    listing: &str,
) -> Result<BTreeMap<SetName, InstalledSet>, Error> {
    let mut sets: BTreeMap<SetName, InstalledSet> = BTreeMap::new();
    for line in listing.lines() {
        let mut words = line.split_whitespace();
        let (Some(command), Some(name)) = (words.next(), words.next()) else { continue };
        let Some(name) = SetName::parse(prefix, name) else { continue };
        let rest: Vec<&str> = words.collect();
        let after = |key: &str| {
            let at = rest.iter().position(|word| *word == key)?;
            rest.get(at + 1).copied()
        };
        match command {
            "create" => {
                let foreign = || Error::Foreign { name: format!("set {name}") };
                let kinds = [
                    SetType::Address,
                    SetType::AddressPort,
                    SetType::Network,
                    SetType::AddressDevice,
                ];
                let kind = kinds.into_iter().find(|kind| rest.first() == Some(&kind.as_str()));
                let family = match after("family") {
                    Some("inet") => Some(Family::V4),
                    Some("inet6") => Some(Family::V6),
                    _ => None,
                };
                let set = InstalledSet {
                    kind: kind.ok_or_else(foreign)?,
                    family: family.ok_or_else(foreign)?,
                    counters: rest.contains(&"counters"),
                    capacity: after("maxelem").and_then(|n| n.parse().ok()).unwrap_or_default(),
                    elements: BTreeSet::new(),
                    odd: false,
                    counts: Vec::new(),
                };
                sets.insert(name, set);
            }
            "add" => {
                let Some(set) = sets.get_mut(&name) else { continue };
                let element = rest.first().and_then(|text| parse_element(set.kind, text));
                let Some(element) = element.filter(|_| !rest.contains(&"nomatch")) else {
                    set.odd = true;
                    continue;
                };
                let number = |key| after(key).and_then(|n| n.parse().ok()).unwrap_or_default();
                if set.counters {
                    let met = Denied { packets: number("packets"), bytes: number("bytes") };
                    set.counts.push((element.clone(), met));
                }
                set.elements.insert(element);
            }
            _ => {}
        }
    }
    Ok(sets)
}

fn parse_element(kind: SetType, text: &str) -> Option<Element> {
    match kind {
        SetType::Address => Some(Element::Address(text.parse().ok()?)),
        SetType::Network => {
            let net = match text.parse::<IpNet>() {
                Ok(net) => net,
                Err(_) => text.parse::<IpAddr>().ok()?.into(),
            };
            Some(Element::Network(net))
        }
        SetType::AddressPort => {
            let (address, port) = text.split_once(',')?;
            let (protocol, port) = port.split_once(':')?;
            let known = |p: &Protocol| text::protocol_word(*p) == protocol;
            let protocol = Protocol::ALL.into_iter().find(known)?;
            Some(Element::Port(address.parse().ok()?, protocol, port.parse().ok()?))
        }
        SetType::AddressDevice => {
            let (address, device) = text.split_once(',')?;
            Some(Element::Device(address.parse().ok()?, DeviceName::new(device)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_addresses() {
        assert_eq!(
            words(r#"-A X -s ::102:304/128 -m comment --comment "it\'s \"a\"" -j DROP"#),
            words(r#"-A X -s ::1.2.3.4/128 -m comment --comment "it's \"a\"" -j DROP"#),
        );
        assert_eq!(words(r#"--comment """#), ["--comment", ""]);
    }
}
