//! What changed between two rulesets: after `apply`, and now.
//!
//! Handles, counters and the order of elements are no change. Whether a change matters is for the proof to say ([`blame`]).

mod blame;

pub use blame::{Blame, blame};

use crate::machine::{Machine, Range, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Something that is not as it was.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct Change {
    /// Family and table.
    pub table: String,
    /// The object: `chain forward`, `set s`, `rule 3 of chain forward`.
    pub object: String,
    /// What happened to it.
    pub kind: ChangeKind,
    /// What it was and what it is, as far as there is something to show.
    pub detail: String,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "there is no fourth")]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It is there no more.
    Removed,
    /// It is another.
    Changed,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.kind {
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Changed => "changed",
        };
        write!(f, "{word}: {} {}", self.table, self.object)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// A set or map: its elements, each with what it is mapped to.
type Elements = BTreeSet<(Vec<Range>, String)>;

/// The objects of a ruleset by table and name, as far as rules use them.
#[derive(Debug, Default)]
struct Objects {
    /// The hook, then the rules, as text.
    chains: BTreeMap<(String, String), Vec<String>>,
    sets: BTreeMap<(String, String), Elements>,
}

impl Objects {
    fn of(machine: &Machine) -> Self {
        let mut objects = Self::default();
        for (at, chain) in machine.chains.iter().enumerate() {
            let Some(table) = machine.tables.get(chain.table) else { continue };
            let table = format!("{} {}", table.program(), table.name);
            let mut lines = vec![match &chain.hook {
                Some(hook) => {
                    let policy = if hook.drops { "drop" } else { "accept" };
                    let (point, priority) = (hook.point.as_str(), hook.priority);
                    format!("hook {point} priority {priority} policy {policy} {:?}", hook.devices)
                }
                None => "no hook".to_owned(),
            }];
            for rule in &chain.rules {
                lines.push(machine.rule_text(at, rule));
                for step in &rule.steps {
                    objects.named(machine, &table, step);
                }
            }
            objects.chains.insert((table, chain.name.clone()), lines);
        }
        objects
    }

    fn named(&mut self, machine: &Machine, table: &str, step: &Step) {
        let (name, elements): (_, Elements) = match step {
            Step::Match(condition) => {
                let single = condition.set.intervals().iter().map(|range| vec![*range]);
                let boxes = condition.set.boxes().iter().map(|one| one.to_vec());
                let all = single.chain(boxes).map(|key| (key, String::new()));
                (condition.set.name(), all.collect())
            }
            Step::Dispatch { map, .. } => {
                let entries = map.entries();
                let all = entries.map(|(key, v)| (key.to_vec(), machine.verdict_text(*v)));
                (map.name(), all.collect())
            }
            _ => return,
        };
        if let Some(name) = name {
            self.sets.insert((table.to_owned(), name.to_owned()), elements);
        }
    }
}

/// What is in `after` otherwise than in `before`.
///
/// ```
/// use netpol_verify::{Dump, changes, read_dumps};
/// let table = r#"{"table": {"family": "ip", "name": "t"}}, {"chain": {"family": "ip", "table": "t", "name": "c"}}"#;
/// let rule = r#"{"rule": {"family": "ip", "table": "t", "chain": "c", "handle": 2, "expr": [{"drop": null}]}}"#;
/// let read = |objects: String| {
///     read_dumps(&[Dump { name: "node-1".to_owned(), text: format!("{{\"nftables\": [{objects}]}}") }])
/// };
/// let (before, after) = (read(table.to_owned())?, read(format!("{table}, {rule}"))?);
/// assert_eq!(changes(&before, &after)[0].to_string(), "changed: ip t chain c: 1 more: drop");
/// assert!(changes(&after, &after).is_empty());
/// # Ok::<(), netpol_verify::DumpError>(())
/// ```
#[must_use]
pub fn changes(before: &Machine, after: &Machine) -> Vec<Change> {
    found(before, after).into_iter().map(|found| found.change).collect()
}

/// What an object is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    Chain,
    Set,
}

/// A change, and what it is a change of.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Found {
    change: Change,
    kind: Kind,
    name: String,
}

fn found(before: &Machine, after: &Machine) -> Vec<Found> {
    let (before, after) = (Objects::of(before), Objects::of(after));
    let mut found = Vec::new();
    compare(Kind::Chain, &before.chains, &after.chains, &mut found, |old, new| {
        let lines = |from: &[String], of: &[String]| {
            let missing = from.iter().filter(|line| !of.contains(line));
            missing.cloned().collect::<Vec<_>>()
        };
        difference(&lines(old, new), &lines(new, old), "the order of its rules")
    });
    compare(Kind::Set, &before.sets, &after.sets, &mut found, |old, new| {
        let (lost, won) = (old.difference(new).count(), new.difference(old).count());
        format!("{lost} elements less, {won} more")
    });
    found.sort_unstable();
    found
}

fn difference(lost: &[String], won: &[String], otherwise: &str) -> String {
    let part = |word: &str, lines: &[String]| match lines {
        [] => None,
        [first, ..] => Some(format!("{} {word}: {first}", lines.len())),
    };
    let parts: Vec<String> =
        [part("less", lost), part("more", won)].into_iter().flatten().collect();
    if parts.is_empty() { otherwise.to_owned() } else { parts.join("; ") }
}

fn compare<T: PartialEq>(
    of: Kind,
    before: &BTreeMap<(String, String), T>,
    after: &BTreeMap<(String, String), T>,
    found: &mut Vec<Found>,
    detail: impl Fn(&T, &T) -> String,
) {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for key in names {
        let (kind, detail) = match (before.get(key), after.get(key)) {
            (None, Some(_)) => (ChangeKind::Added, String::new()),
            (Some(_), None) => (ChangeKind::Removed, String::new()),
            (Some(old), Some(new)) if old != new => (ChangeKind::Changed, detail(old, new)),
            _ => continue,
        };
        let (table, name) = key;
        let what = match of {
            Kind::Chain => "chain",
            Kind::Set => "set or map",
        };
        let object = format!("{what} {name}");
        let change = Change { table: table.clone(), object, kind, detail };
        found.push(Found { change, kind: of, name: name.clone() });
    }
}
