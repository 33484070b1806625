//! What the kernel has, as nft lists it: only our own tables, only what a plan must know.

use crate::error::{Error, Failure, run};
use crate::layout::MARKER;
use crate::model::{Element, KeyType, Model, Name, Table, TableFamily, Value};
use ipnet::IpNet;
use netpol_host::Host;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Our tables in the kernel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Installed {
    pub(crate) tables: BTreeMap<TableFamily, InstalledTable>,
}

/// One table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct InstalledTable {
    pub(crate) sets: BTreeMap<Name, BTreeSet<Element>>,
    pub(crate) maps: BTreeMap<Name, BTreeMap<Element, Name>>,
    /// The comments of the rules of each chain: its name says what they are, their comments whether all are there.
    pub(crate) chains: BTreeMap<Name, Vec<String>>,
}

/// A counter of denied packets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Count {
    pub(crate) of: Counted,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// What is counted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Counted {
    /// A rule, by its comment.
    Rule(String),
    /// A member of this set.
    Member(Name, IpAddr),
}

impl Count {
    fn parse(of: Counted, counter: &Json) -> Self {
        let number = |key| counter.get(key).and_then(Json::as_u64).unwrap_or_default();
        Self { of, packets: number("packets"), bytes: number("bytes") }
    }
}

impl Installed {
    /// What is installed once `model` is.
    pub(crate) fn of(model: &Model) -> Self {
        let tables =
            model.tables.iter().map(|(&family, table)| (family, InstalledTable::of(table)));
        Self { tables: tables.collect() }
    }

    /// The families of the tables of this name that are ours. One of somebody else with chains is an error, one without is
    /// not seen: it would be in the way when the table is created.
    pub(crate) fn families(host: &Host, table: &Name) -> Result<Vec<TableFamily>, Error> {
        // `list tables` of nft 1.0.6 reads every element of every table, `list chains` does not.
        let mut chains: BTreeMap<TableFamily, bool> = BTreeMap::new();
        for item in list(host, &["-j", "list", "chains"])? {
            let Some(chain) = item.get("chain") else { continue };
            let text = |key| chain.get(key).and_then(Json::as_str);
            let family = TableFamily::ALL.into_iter().find(|f| text("family") == Some(f.as_str()));
            if let Some(family) = family.filter(|_| text("table") == Some(table.as_str())) {
                *chains.entry(family).or_default() |= text("name") == Some(MARKER);
            }
        }
        if let Some((family, _)) = chains.iter().find(|(_, marked)| !**marked) {
            return Err(Error::Foreign { table: format!("{family} {table}") });
        }
        let families = chains.into_keys().collect();
        Ok(families)
    }

    /// Reads the tables of this name, and the counters in them.
    pub(crate) fn read(host: &Host, table: &Name) -> Result<(Self, Vec<Count>), Error> {
        let (mut installed, mut counts) = (Self::default(), Vec::new());
        for family in Self::families(host, table)? {
            let items = list(host, &["-j", "list", "table", family.as_str(), table.as_str()])?;
            let listed = parse(&items, &mut counts)?;
            installed.tables.insert(family, listed);
        }
        Ok((installed, counts))
    }
}

impl InstalledTable {
    fn of(table: &Table) -> Self {
        let comments = |chain: &crate::model::Chain| {
            chain.rules.iter().map(|rule| rule.comment.as_str().to_owned()).collect()
        };
        Self {
            sets: table.sets.iter().map(|(n, set)| (n.clone(), set.elements.clone())).collect(),
            maps: table.maps.iter().map(|(n, map)| (n.clone(), map.elements.clone())).collect(),
            chains: table.chains.iter().map(|(n, chain)| (n.clone(), comments(chain))).collect(),
        }
    }
}

fn list(host: &Host, arguments: &[&str]) -> Result<Vec<Json>, Error> {
    let text = run(host, arguments, "").map_err(|failure| match failure {
        Failure::Fatal(error) => error,
        Failure::Nft(message)
            if message.contains("not permitted") || message.contains("must be root") =>
        {
            Error::Permission
        }
        Failure::Nft(message) => {
            let message = message.lines().next().unwrap_or_default().to_owned();
            Error::Listing { message }
        }
    })?;
    // Flags of a table that nft 1.0.6 does not know make its listing invalid JSON (dataplane.md A.2).
    let listing: Json = serde_json::from_str(&text)
        .map_err(|error| Error::Listing { message: error.to_string() })?;
    let items = match listing {
        Json::Object(mut listing) => listing.remove("nftables"),
        _ => None,
    };
    match items {
        Some(Json::Array(items)) => Ok(items),
        _ => Err(Error::Listing { message: "no `nftables` list".to_owned() }),
    }
}

fn parse(items: &[Json], counts: &mut Vec<Count>) -> Result<InstalledTable, Error> {
    let mut table = InstalledTable::default();
    for item in items {
        if let Some(set) = item.get("set") {
            let Some(name) = name(set, "name") else { continue };
            let types = types(set)?;
            let elements = set.get("elem").and_then(Json::as_array);
            for element in elements.into_iter().flatten() {
                let Some(inner) = element.get("elem") else { continue };
                if let (Some(counter), Some(address)) =
                    (inner.get("counter"), inner.get("val").and_then(Json::as_str))
                    && let Ok(address) = address.parse()
                {
                    counts.push(Count::parse(Counted::Member(name.clone(), address), counter));
                }
            }
            let elements =
                elements.into_iter().flatten().map(|element| parse_element(element, &types));
            table.sets.insert(name, elements.collect::<Result<_, _>>()?);
        } else if let Some(map) = item.get("map") {
            let Some(name) = name(map, "name") else { continue };
            let types = types(map)?;
            let mut mappings = BTreeMap::new();
            for element in map.get("elem").and_then(Json::as_array).into_iter().flatten() {
                let target = |verdict: &Json| {
                    let target = verdict.get("goto").or_else(|| verdict.get("jump"))?;
                    target.get("target").and_then(Json::as_str).and_then(Name::new)
                };
                let (Some(key), Some(chain)) = (element.get(0), element.get(1).and_then(target))
                else {
                    return Err(unclear("map element", element));
                };
                mappings.insert(parse_element(key, &types)?, chain);
            }
            table.maps.insert(name, mappings);
        } else if let Some(chain) = item.get("chain") {
            if let Some(name) = name(chain, "name") {
                table.chains.entry(name).or_default();
            }
        } else if let Some(rule) = item.get("rule") {
            let Some(chain) = name(rule, "chain") else { continue };
            let comment = rule.get("comment").and_then(Json::as_str).unwrap_or_default();
            for statement in rule.get("expr").and_then(Json::as_array).into_iter().flatten() {
                let Some(counter) = statement.get("counter") else { continue };
                counts.push(Count::parse(Counted::Rule(comment.to_owned()), counter));
            }
            table.chains.entry(chain).or_default().push(comment.to_owned());
        }
    }
    Ok(table)
}

/// A name that we can have given. What has another is not touched.
fn name(item: &Json, key: &str) -> Option<Name> {
    item.get(key).and_then(Json::as_str).and_then(Name::new)
}

fn types(set: &Json) -> Result<Vec<Option<KeyType>>, Error> {
    let one = |text: &Json| {
        let known = [KeyType::Ipv4, KeyType::Ipv6, KeyType::Service, KeyType::Device];
        known.into_iter().find(|key| text.as_str() == Some(key.as_str()))
    };
    match set.get("type") {
        Some(Json::Array(types)) => Ok(types.iter().map(one).collect()),
        Some(text @ Json::String(_)) => Ok(vec![one(text)]),
        _ => Err(unclear("set", set)),
    }
}

fn parse_element(element: &Json, types: &[Option<KeyType>]) -> Result<Element, Error> {
    let element = element.get("elem").and_then(|elem| elem.get("val")).unwrap_or(element);
    let parts = match element.get("concat") {
        Some(Json::Array(parts)) => parts.iter().collect(),
        _ => vec![element],
    };
    let values = parts.iter().zip(types).map(|(part, key)| parse_value(part, *key));
    values.collect::<Option<Element>>().ok_or_else(|| unclear("element", element))
}

fn parse_value(value: &Json, key: Option<KeyType>) -> Option<Value> {
    let address = |value: &Json| value.as_str()?.parse::<IpAddr>().ok();
    match key? {
        KeyType::Ipv4 | KeyType::Ipv6 => {
            if let Some(range) = value.get("range") {
                return Some(Value::Addresses(address(range.get(0)?)?, address(range.get(1)?)?));
            }
            if let Some(prefix) = value.get("prefix") {
                let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
                let net = IpNet::new(address(prefix.get("addr")?)?, length).ok()?;
                return Some(Value::Addresses(net.network(), net.broadcast()));
            }
            Some(Value::Address(address(value)?))
        }
        KeyType::Service => {
            let port = u16::try_from(value.as_u64()?).ok()?;
            Some(Value::Ports(port, port))
        }
        KeyType::Device => Some(Value::Device(netpol_host::DeviceName::new(value.as_str()?)?)),
    }
}

fn unclear(what: &str, item: &Json) -> Error {
    let mut text = item.to_string();
    text.truncate(text.floor_char_boundary_at(200));
    Error::Listing { message: format!("{what} {text}") }
}

trait FloorCharBoundary {
    fn floor_char_boundary_at(&self, at: usize) -> usize;
}

impl FloorCharBoundary for String {
    fn floor_char_boundary_at(&self, at: usize) -> usize {
        (0..=at.min(self.len())).rev().find(|at| self.is_char_boundary(*at)).unwrap_or(0)
    }
}
