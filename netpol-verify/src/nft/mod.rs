//! `nft -j list ruleset` into the rule machine.
//!
//! Each object is decoded by itself, so that one that is not understood never hides the rest. Where it could change a
//! verdict, it becomes a step of the machine that says so.

mod beside;
mod chains;
mod elements;
mod expression;
mod statement;
mod words;

pub use chains::{is_chain_listing, read_chain_listing};
pub(crate) use words::{icmp_type, icmpv6_type, protocol as protocol_number};

use crate::iptables::Outline;
use crate::machine::{
    ElementMap, ElementSet, Hook, HookPoint, Machine, NotUnderstood, Rule, Step, TableFamily,
    Verdict,
};
use elements::{Element, Kind};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Why a text is no listing of nft.
#[derive(Debug, thiserror::Error)]
#[error("no listing of `nft -j list ruleset`: {0}")]
pub struct ListingError(#[from] serde_json::Error);

#[derive(Deserialize)]
struct Listing<'a> {
    #[serde(borrow)]
    nftables: Vec<&'a RawValue>,
}

/// Reads the output of `nft -j list ruleset` into a machine. `source` names the text.
///
/// # Errors
///
/// If the text is not JSON of this form at all. Objects that are not understood are in the machine.
///
/// ```
/// use netpol_verify::machine::Machine;
/// let mut machine = Machine::new();
/// netpol_verify::nft::read(&mut machine, "kernel", r#"{"nftables": [{"table": {"family": "ip", "name": "t"}}]}"#)?;
/// assert_eq!(machine.tables.len(), 1);
/// # Ok::<(), netpol_verify::nft::ListingError>(())
/// ```
pub fn read(machine: &mut Machine, source: &str, text: &str) -> Result<(), ListingError> {
    read_beside(machine, source, text, &Outline::new())
}

/// The same without the tables of iptables-nft that its own listing told of. They must be the same ones.
pub(crate) fn read_beside(
    machine: &mut Machine,
    source: &str,
    text: &str,
    listed: &Outline,
) -> Result<(), ListingError> {
    let listing: Listing<'_> = serde_json::from_str(text)?;
    let mut objects: Vec<Object<'_>> = listing.nftables.into_iter().map(Object::of).collect();
    beside::leave_out(machine, source, &mut objects, listed);
    let mut reader = Reader {
        source,
        machine,
        dormant: Vec::new(),
        chains: HashMap::new(),
        sets: HashMap::new(),
        changing: HashSet::new(),
    };
    for object in objects.iter().filter(|object| object.kind == "table") {
        reader.table(object.body);
    }
    for object in objects.iter().filter(|object| object.kind == "chain") {
        reader.chain(object.body);
    }
    // Rules name sets and change them, so they are decoded before, and understood after, the sets.
    let rules: Vec<_> = objects
        .iter()
        .filter(|object| object.kind == "rule")
        .filter_map(|object| reader.decode_rule(object.body))
        .collect();
    for object in &objects {
        match &*object.kind {
            "table" | "chain" | "rule" => {}
            "set" | "map" => reader.set(object.body),
            // What they hold counts, limits or helps; rules that use it are judged by themselves.
            "metainfo" | "counter" | "quota" | "limit" | "ct helper" | "ct timeout"
            | "ct expectation" | "secmark" | "synproxy" => {}
            "flowtable" => {
                let what = "flows that a flowtable takes over do not meet the rules any more";
                reader.machine.left_out.insert(what.to_owned());
            }
            kind => {
                let what = format!("an object `{kind}`: {}", object.body.get());
                reader.not_understood("listing", what);
            }
        }
    }
    for rule in &rules {
        reader.rule(rule);
    }
    Ok(())
}

/// An object of the listing: `{"rule": {...}}`.
struct Object<'a> {
    kind: Cow<'a, str>,
    body: &'a RawValue,
}

impl<'a> Object<'a> {
    fn of(raw: &'a RawValue) -> Self {
        let fields: Result<HashMap<Cow<'a, str>, &'a RawValue>, _> =
            serde_json::from_str(raw.get());
        let one = fields.ok().filter(|fields| fields.len() == 1);
        match one.and_then(|fields| fields.into_iter().next()) {
            Some((kind, body)) => Self { kind, body },
            None => Self { kind: Cow::Borrowed(""), body: raw },
        }
    }
}

#[derive(Deserialize)]
struct TableObject {
    family: String,
    name: String,
    #[serde(default)]
    flags: Option<Value>,
}

#[derive(Deserialize)]
struct ChainObject {
    family: String,
    table: String,
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    hook: Option<String>,
    prio: Option<i32>,
    policy: Option<String>,
    dev: Option<Value>,
}

#[derive(Deserialize)]
struct SetObject<'a> {
    family: String,
    table: String,
    name: String,
    #[serde(rename = "type")]
    kind: Option<Value>,
    map: Option<Value>,
    flags: Option<Value>,
    timeout: Option<Value>,
    #[serde(borrow, default)]
    elem: Vec<Element<'a>>,
}

#[derive(Deserialize)]
struct RuleObject {
    family: String,
    table: String,
    chain: String,
    handle: Option<u64>,
    comment: Option<String>,
    #[serde(default)]
    expr: Vec<Value>,
}

/// Family, table and name.
type Key = (TableFamily, String, String);

/// What a name in a table stands for.
enum NamedSet {
    Set {
        kinds: Vec<Kind>,
        set: Arc<ElementSet>,
    },
    VerdictMap {
        kinds: Vec<Kind>,
        map: Arc<ElementMap<Verdict>>,
    },
    /// Not understood, or its elements come and go.
    Unknown(String),
}

struct Reader<'a> {
    source: &'a str,
    machine: &'a mut Machine,
    /// Tables that are switched off.
    dormant: Vec<(TableFamily, String)>,
    chains: HashMap<Key, usize>,
    sets: HashMap<Key, NamedSet>,
    /// Sets that packets change.
    changing: HashSet<Key>,
}

/// The families that the machine does not run.
enum OtherFamily {
    /// It judges no IP packets.
    Harmless,
    /// It may.
    NotModeled,
}

fn family(text: &str) -> Result<TableFamily, OtherFamily> {
    match text {
        "ip" => Ok(TableFamily::Ip),
        "ip6" => Ok(TableFamily::Ip6),
        "inet" => Ok(TableFamily::Inet),
        "netdev" => Ok(TableFamily::Netdev),
        "arp" => Err(OtherFamily::Harmless),
        _ => Err(OtherFamily::NotModeled),
    }
}

/// Statements that let a packet go on.
const HARMLESS: [&str; 7] = ["match", "counter", "log", "accept", "continue", "return", "limit"];

impl Reader<'_> {
    fn not_understood(&mut self, place: impl std::fmt::Display, what: impl Into<String>) {
        let place = format!("{} {place}", self.source);
        self.machine.not_understood.push(NotUnderstood::new(place, what));
    }

    fn decode<'a, T: Deserialize<'a>>(&mut self, kind: &str, body: &'a RawValue) -> Option<T> {
        match serde_json::from_str(body.get()) {
            Ok(decoded) => Some(decoded),
            Err(error) => {
                self.not_understood(kind, format!("{error} in {}", body.get()));
                None
            }
        }
    }

    fn table(&mut self, body: &RawValue) {
        let Some(table) = self.decode::<TableObject>("table", body) else { return };
        let Ok(family) = family(&table.family) else { return };
        self.machine.table(family, &table.name);
        if words_of(table.flags.as_ref()).any(|flag| flag == "dormant") {
            self.dormant.push((family, table.name));
        }
    }

    fn chain(&mut self, body: &RawValue) {
        let Some(object) = self.decode::<ChainObject>("chain", body) else { return };
        let place = format!("{} {} {}", object.family, object.table, object.name);
        let family = match family(&object.family) {
            Ok(family) => family,
            Err(OtherFamily::Harmless) => return,
            Err(OtherFamily::NotModeled) => {
                if object.policy.as_deref() == Some("drop") {
                    self.not_understood(place, "a chain of a family that is not modeled drops");
                }
                return;
            }
        };
        let table = self.machine.table(family, &object.table);
        let dormant = self.dormant.contains(&(family, object.table.clone()));
        let point = object.hook.as_deref().map(HookPoint::parse);
        let hook = match point {
            None => None,
            Some(_) if dormant => None,
            Some(None) => {
                self.not_understood(place, format!("hook {}", object.hook.unwrap_or_default()));
                return;
            }
            Some(Some(point)) => {
                if object.kind.as_deref() == Some("nat") {
                    let what = "address translation: addresses are those after destination and before source translation";
                    self.machine.left_out.insert(what.to_owned());
                }
                let devices: Vec<String> =
                    words_of(object.dev.as_ref()).map(str::to_owned).collect();
                Some(Hook {
                    point,
                    priority: object.prio.unwrap_or(0),
                    drops: object.policy.as_deref() == Some("drop"),
                    devices: Some(devices).filter(|devices| !devices.is_empty()),
                })
            }
        };
        let index = self.machine.add_chain(table, &object.name, hook);
        self.chains.insert((family, object.table, object.name), index);
    }

    fn set(&mut self, body: &RawValue) {
        let Some(object) = self.decode::<SetObject<'_>>("set or map", body) else { return };
        let Ok(family) = family(&object.family) else { return };
        let key = (family, object.table.clone(), object.name.clone());
        let known = self.understand_set(family, &object, self.changing.contains(&key));
        let known = known.unwrap_or_else(NamedSet::Unknown);
        self.sets.insert(key, known);
    }

    fn understand_set(
        &mut self,
        family: TableFamily,
        object: &SetObject<'_>,
        changing: bool,
    ) -> Result<NamedSet, String> {
        let name = &object.name;
        let flags: Vec<&str> = words_of(object.flags.as_ref()).collect();
        if changing
            || object.timeout.is_some()
            || flags.contains(&"timeout")
            || flags.contains(&"dynamic")
        {
            return Err(format!("the elements of `{name}` come and go"));
        }
        let kinds: Option<Vec<Kind>> = match &object.kind {
            Some(Value::String(kind)) => Kind::parse(kind).map(|kind| vec![kind]),
            Some(Value::Array(kinds)) => {
                kinds.iter().map(|kind| Kind::parse(kind.as_str()?)).collect()
            }
            _ => None,
        };
        let kinds = kinds.ok_or_else(|| {
            let kind = object.kind.as_ref().map_or_else(String::new, Value::to_string);
            format!("the type {kind} of `{name}`")
        })?;
        let unknown =
            |element: &dyn std::fmt::Debug| format!("the element {element:?} of `{name}`");
        match &object.map {
            None => {
                let mut boxes = Vec::new();
                let mut intervals = Vec::new();
                for element in &object.elem {
                    if let [kind] = kinds.as_slice() {
                        intervals.push(element.range(*kind).ok_or_else(|| unknown(element))?);
                    } else {
                        boxes.push(element.ranges(&kinds).ok_or_else(|| unknown(element))?);
                    }
                }
                let set = match kinds.as_slice() {
                    [_] => ElementSet::of(intervals),
                    kinds => ElementSet::of_boxes(kinds.len(), boxes),
                };
                Ok(NamedSet::Set { kinds, set: Arc::new(set.named(name.clone())) })
            }
            Some(Value::String(data)) if data == "verdict" => {
                let mut entries = Vec::with_capacity(object.elem.len());
                for element in &object.elem {
                    let pair = element.pair().ok_or_else(|| unknown(element))?;
                    let ranges = pair.0.ranges(&kinds).ok_or_else(|| unknown(element))?;
                    let verdict = self.verdict(family, &object.table, pair.1);
                    entries.push((ranges, verdict.ok_or_else(|| unknown(element))?));
                }
                let map = ElementMap::new(Some(name.clone()), kinds.len(), entries);
                Ok(NamedSet::VerdictMap { kinds, map: Arc::new(map) })
            }
            Some(_) => Err(format!("`{name}` maps to what is no verdict")),
        }
    }

    fn decode_rule(&mut self, body: &RawValue) -> Option<RuleObject> {
        let rule = self.decode::<RuleObject>("rule", body)?;
        if let Ok(family) = family(&rule.family) {
            for statement in &rule.expr {
                let name = statement.pointer("/set/set").and_then(Value::as_str);
                if let Some(name) = name.and_then(|name| name.strip_prefix('@')) {
                    self.changing.insert((family, rule.table.clone(), name.to_owned()));
                }
            }
        }
        Some(rule)
    }

    fn rule(&mut self, object: &RuleObject) {
        let place = match object.handle {
            Some(handle) => format!("handle {handle}"),
            None => "without handle".to_owned(),
        };
        let full = format!("{} {} {} {place}", object.family, object.table, object.chain);
        let family = match family(&object.family) {
            Ok(family) => family,
            Err(OtherFamily::Harmless) => return,
            Err(OtherFamily::NotModeled) => {
                let harmless = |statement: &Value| {
                    let mut words = statement.as_object().into_iter().flat_map(|o| o.keys());
                    words.all(|word| HARMLESS.contains(&word.as_str()))
                };
                if !object.expr.iter().all(harmless) {
                    self.not_understood(full, "a rule of a family that is not modeled");
                }
                return;
            }
        };
        let key = (family, object.table.clone(), object.chain.clone());
        let Some(&chain) = self.chains.get(&key) else {
            self.not_understood(full, "a rule of a chain that is not in the listing");
            return;
        };
        let mut rule = Rule::at(place);
        rule.comment.clone_from(&object.comment);
        let mut statements = object.expr.iter().peekable();
        while let Some(statement) = statements.next() {
            match self.choice(family, &object.table, statement) {
                // What comes before it is looked at once for each choice, which for a change of the mark would be too often.
                Some(choice) if !rule.steps.iter().any(|s| matches!(s, Step::Mark { .. })) => {
                    for verdict in choice {
                        let mut chosen = rule.clone();
                        chosen.steps.extend(verdict);
                        self.machine.add_rule(chain, chosen);
                    }
                    if statements.peek().is_none() {
                        return;
                    }
                }
                _ => self.statement(family, &object.table, &full, statement, &mut rule.steps),
            }
        }
        self.machine.add_rule(chain, rule);
    }

    /// The verdict that `{"goto": {"target": "c"}}` stands for, or `{"accept": null}`.
    fn verdict(&self, family: TableFamily, table: &str, value: &Value) -> Option<Verdict> {
        let (word, arguments) = value.as_object()?.iter().next()?;
        let chain = || {
            let target = arguments.get("target")?.as_str()?;
            self.chains.get(&(family, table.to_owned(), target.to_owned())).copied()
        };
        Some(match word.as_str() {
            "accept" => Verdict::Accept,
            "drop" => Verdict::Drop,
            "return" => Verdict::Return,
            "continue" => Verdict::Continue,
            "jump" => Verdict::Jump(chain()?),
            "goto" => Verdict::Goto(chain()?),
            _ => return None,
        })
    }
}

/// A string, or the strings of a list.
fn words_of(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = match value {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    list.iter().filter_map(Value::as_str)
}
