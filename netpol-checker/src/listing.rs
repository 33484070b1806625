//! Are the rules of a certificate those of a listing? As far as that can be said without understanding rules.
//!
//! A second reading of `nft -j list ruleset`, of its bulk: which chains there are and where they are hooked, the handles of their rules, in order,
//! and every element of every named set and map that a rule looks up. What single rules say is not compared: they are
//! few, so that people can.

use crate::defect::Defect;
use crate::format::{Certificate, Chain, Machine, Program, Step, Verdict};
use crate::list::{Interval, address, device, normal};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What was compared.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Compared {
    /// Chains.
    pub chains: usize,
    /// Rules, by their handles.
    pub rules: usize,
    /// Elements of sets and maps.
    pub elements: usize,
    /// Chains of iptables-nft of which such a listing tells no more than how many rules they have, and those of iptables-legacy, of which it
    /// tells nothing.
    pub unlisted: usize,
}

/// Where an object of nft is: family, table, name.
type Place = (String, String, String);

/// Compares the rules of a certificate with what `nft -j list ruleset` printed.
///
/// # Errors
///
/// [`Defect::OtherRules`] with the first difference, and [`Defect::Malformed`] for what is no such listing.
///
/// ```
/// use netpol_checker::{Certificate, Defect, compare_listing};
/// let nothing = Certificate::default();
/// assert!(compare_listing(&nothing, r#"{"nftables": []}"#).is_ok());
/// let more = r#"{"nftables": [{"chain": {"family": "ip", "table": "t", "name": "c"}}]}"#;
/// assert!(matches!(compare_listing(&nothing, more), Err(Defect::OtherRules(_))));
/// ```
pub fn compare_listing(certificate: &Certificate, listing: &str) -> Result<Compared, Defect> {
    let listing: Value =
        serde_json::from_str(listing).map_err(|e| Defect::Malformed(e.to_string()))?;
    let objects = listing.get("nftables").and_then(Value::as_array);
    let objects = objects.ok_or_else(|| Defect::Malformed("no listing of nft".to_owned()))?;
    let mut chains: BTreeMap<Place, &Value> = BTreeMap::new();
    let mut rules: BTreeMap<Place, Vec<u64>> = BTreeMap::new();
    let mut sets: BTreeMap<Place, &Value> = BTreeMap::new();
    for (kind, object) in objects.iter().filter_map(Value::as_object).flatten() {
        match kind.as_str() {
            "chain" => drop(chains.insert(place(object, "name"), object)),
            "rule" => {
                let handle = object.get("handle").and_then(Value::as_u64).unwrap_or(0);
                rules.entry(place(object, "chain")).or_default().push(handle);
            }
            "set" | "map" => drop(sets.insert(place(object, "name"), object)),
            _ => {}
        }
    }
    // Other families see no packets of the model.
    chains.retain(|(family, ..), _| matches!(family.as_str(), "ip" | "ip6" | "inet" | "netdev"));
    let mut compared = Compared::default();
    let mut seen: BTreeSet<(&Place, usize, bool)> = BTreeSet::new();
    let machine = &certificate.machine;
    for chain in &machine.chains {
        let at = (chain.family.clone(), chain.table.clone(), chain.name.clone());
        let differs =
            |what: &str| Defect::OtherRules(format!("chain {} {} {}: {what}", at.0, at.1, at.2));
        let drops = chain.hook.as_ref().is_some_and(|hook| hook.drops);
        // iptables-nft lists built-in chains that nobody has made yet.
        let idle = chain.program == Program::IptablesNft && chain.rules.is_empty() && !drops;
        if chain.program == Program::IptablesLegacy || idle && !chains.contains_key(&at) {
            compared.unlisted += 1;
            continue;
        }
        let listed = chains.remove(&at).ok_or_else(|| differs("not in the listing"))?;
        if hook(listed)
            != chain.hook.as_ref().map(|h| (h.point.as_str(), h.priority.into(), h.drops))
        {
            return Err(differs("another hook, priority or policy"));
        }
        if chain.program == Program::IptablesNft {
            // One line may have become several rules.
            let mut lines: Vec<&str> = chain.rules.iter().map(|rule| rule.place.as_str()).collect();
            lines.dedup();
            if lines.len() != rules.get(&at).map_or(0, Vec::len) {
                return Err(differs("more rules, or less"));
            }
            compared.unlisted += 1;
            continue;
        }
        let handles = rules.get(&at).into_iter().flatten().map(|handle| format!("handle {handle}"));
        // One rule may have become several: what the kernel chooses is a rule for each choice.
        let mut places: Vec<&str> = chain.rules.iter().map(|rule| rule.place.as_str()).collect();
        places.dedup();
        if !handles.eq(places.iter().copied()) {
            return Err(differs("other rules, or in another order"));
        }
        compared.chains += 1;
        compared.rules += places.len();
        for step in chain.rules.iter().flat_map(|rule| &rule.steps) {
            let Some((name, index, is_map)) = looked_up(machine, step) else { continue };
            let at = (chain.family.clone(), chain.table.clone(), name.to_owned());
            let (at, listed) =
                sets.get_key_value(&at).ok_or_else(|| differs(&format!("no set {name}")))?;
            if seen.insert((at, index, is_map)) {
                let listed = read(listed)
                    .ok_or_else(|| differs(&format!("set {name} is not understood")))?;
                let stated = stated(machine, chain, index, is_map);
                if stated != listed {
                    return Err(differs(&format!("set {name} has other elements")));
                }
                compared.elements += stated.len();
            }
        }
    }
    match chains.keys().next() {
        Some((family, table, name)) => Err(Defect::OtherRules(format!(
            "chain {family} {table} {name}: not in the certificate"
        ))),
        None => Ok(compared),
    }
}

fn text<'v>(object: &'v Value, key: &str) -> &'v str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn place(object: &Value, name: &str) -> Place {
    let [family, table, name] = ["family", "table", name].map(|key| text(object, key).to_owned());
    (family, table, name)
}

fn hook(chain: &Value) -> Option<(&str, i64, bool)> {
    let point = chain.get("hook")?.as_str()?;
    Some((point, chain.get("prio")?.as_i64()?, text(chain, "policy") == "drop"))
}

/// The named set or map that a step looks up.
fn looked_up<'m>(machine: &'m Machine, step: &Step) -> Option<(&'m str, usize, bool)> {
    match step {
        Step::Match { set, .. } => Some((machine.sets.get(*set)?.name.as_deref()?, *set, false)),
        Step::Dispatch { map, .. } => Some((machine.maps.get(*map)?.name.as_deref()?, *map, true)),
        _ => None,
    }
}

/// Elements, and where they lead in a map.
type Elements = BTreeSet<(Vec<Interval>, String)>;

/// The elements of a set, with those of one part put together.
fn elements(all: impl Iterator<Item = (Vec<Interval>, String)>) -> Elements {
    let mut single: BTreeMap<String, Vec<Interval>> = BTreeMap::new();
    let mut elements = Elements::new();
    for (key, leads) in all {
        match key.as_slice() {
            [one] => single.entry(leads).or_default().push(*one),
            _ => drop(elements.insert((key, leads))),
        }
    }
    for (leads, list) in single {
        elements.extend(normal(list).into_iter().map(|one| (vec![one], leads.clone())));
    }
    elements
}

fn stated(machine: &Machine, chain: &Chain, index: usize, is_map: bool) -> Elements {
    if is_map {
        let entries = machine.maps.get(index).into_iter().flat_map(|map| &map.entries);
        // A chain of another table is no target.
        let target = |to: &usize| {
            let to = machine
                .chains
                .get(*to)
                .filter(|to| (&to.family, &to.table) == (&chain.family, &chain.table));
            to.map_or("?", |to| to.name.as_str()).to_owned()
        };
        return elements(entries.map(|(key, verdict)| {
            let leads = match verdict {
                Verdict::Jump(to) => format!("jump {}", target(to)),
                Verdict::Goto(to) => format!("goto {}", target(to)),
                other => format!("{other:?}").to_lowercase(),
            };
            (key.0.clone(), leads)
        }));
    }
    let set = machine.sets.get(index);
    let values = set.into_iter().flat_map(|set| &set.values.0).map(|one| vec![*one]);
    let boxes = set.into_iter().flat_map(|set| &set.boxes).map(|one| one.0.clone());
    elements(values.chain(boxes).map(|key| (key, String::new())))
}

/// The elements of a set or map as nft lists it; none if there is something that is not understood.
fn read(set: &Value) -> Option<Elements> {
    let mut all = Vec::new();
    for element in set.get("elem").and_then(Value::as_array).into_iter().flatten() {
        let (key, leads) = match element.as_array().map(Vec::as_slice) {
            Some([key, verdict]) => {
                let (word, inner) = verdict.as_object()?.iter().next()?;
                let target = inner.get("target").and_then(Value::as_str);
                (key, target.map_or_else(|| word.clone(), |target| format!("{word} {target}")))
            }
            _ => (element, String::new()),
        };
        let key = key.pointer("/elem/val").unwrap_or(key);
        let parts = match key.get("concat") {
            Some(parts) => parts.as_array()?.iter().map(interval).collect::<Option<_>>()?,
            None => vec![interval(key)?],
        };
        all.push((parts, leads));
    }
    Some(elements(all.into_iter()))
}

fn interval(value: &Value) -> Option<Interval> {
    if let Some(prefix) = value.get("prefix") {
        let at: std::net::IpAddr = text(prefix, "addr").parse().ok()?;
        let width = if at.is_ipv6() { 128u32 } else { 32 };
        let free = width.checked_sub(u32::try_from(prefix.get("len")?.as_u64()?).ok()?)?;
        let hosts = 1u128.checked_shl(free).map_or(u128::MAX, |count| count - 1);
        return Some(Interval::new(address(at) & !hosts, address(at) | hosts));
    }
    if let Some(range) = value.get("range") {
        return Some(Interval::new(interval(range.get(0)?)?.first, interval(range.get(1)?)?.last));
    }
    let number = match value {
        Value::Number(number) => number.as_u64()?.into(),
        Value::String(text) => match (text.parse().map(address), text.as_str()) {
            (Ok(address), _) => address,
            (_, "tcp") => 6,
            (_, "udp") => 17,
            (_, "sctp") => 132,
            (_, name) if name.contains(['*', '\\']) => return None,
            (_, name) => device(name)?,
        },
        _ => return None,
    };
    Some(Interval::one(number))
}
