//! From what is installed to what should be.
//!
//! | step | tool | what |
//! |---|---|---|
//! | create | ipset | new sets with their members; nothing looks them up yet |
//! | create | iptables-nft only | new chains with their rules; nothing leads to them yet |
//! | switch | ipset, **or** | members of sets in use, where that alone is the change |
//! | switch | iptables | entry chains and jumps, one restore for each family |
//! | clean | iptables, ipset | what nothing leads to any more |
//!
//! With iptables-legacy the kernel replaces a table as a whole, and a packet walks the old one or the new one to its end:
//! all changes of rules are one restore. With iptables-nft a packet that is walking the rules while they are committed can meet
//! chains of both generations (dataplane.md finding 11), so what it may go to is created before and deleted after.
//!
//! ipset has no transaction. Members of a set that rules use change in place only where no packet can tell:
//!
//! * all changes make the rules allow more (members join sets of rules that allow, or leave sets of rules that deny), or all make
//!   them allow less; then whatever is done at a moment lies between old and new, for every packet and for both directions of
//!   a connection;
//! * or one set changes and is swapped for another, which is one step.
//!
//! In every other case the changed sets are made anew beside the old ones, under another version in their names, and the rules
//! switch to them. What a packet can meet is then what rules can: the old or the new.
//!
//! Stopping between any two steps leaves the old or the new verdicts, and garbage that the next plan removes. The two families
//! switch one after the other; no packet is of both.

use crate::error::Error;
use crate::installed::{Installed, InstalledSet, InstalledTable, Tables, Words, words};
use crate::layout::{Adjustments, Layout, layout_with};
use crate::model::{Builtin, ChainName, Element, Match, Model, Set, SetName, Table, Target};
use crate::options::{Flavor, IptablesOptions};
use crate::text;
use netpol_core::{Family, ProgramId, Ruleset};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What must be done to make the kernel equal to a ruleset.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// The steps in order; none is empty.
    pub steps: Vec<Step>,
}

/// One run of one program.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// What it is for.
    pub phase: Phase,
    /// Which program.
    pub program: Program,
    /// What it is given on standard input.
    pub text: String,
}

/// What a step is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a step comes before, is, or comes after the change")]
pub enum Phase {
    /// Nothing of it is used yet.
    Create,
    /// Packets see the new verdicts.
    Switch,
    /// Nothing of it is used any more.
    Clean,
}

impl Phase {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Switch => "switch",
            Self::Clean => "clean",
        }
    }
}

/// A program that changes the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "those are all")]
pub enum Program {
    /// `ipset restore`: line after line.
    Ipset,
    /// `iptables-restore --noflush` or `ip6tables-restore --noflush`: table after table.
    Restore(Flavor, Family),
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipset => f.write_str("ipset restore"),
            Self::Restore(flavor, Family::V4) => {
                write!(f, "iptables-{}-restore --noflush", flavor.as_str())
            }
            Self::Restore(flavor, Family::V6) => {
                write!(f, "ip6tables-{}-restore --noflush", flavor.as_str())
            }
        }
    }
}

impl Plan {
    /// Is there nothing to do?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The plan as text for people: one section for each step.
    #[must_use]
    pub fn script(&self) -> String {
        let mut script = String::new();
        for Step { phase, program, text } in &self.steps {
            script.push_str(&format!("# {}: {program}\n{text}", phase.as_str()));
        }
        script
    }

    /// The steps that make what is installed equal to the model of the layout.
    pub(crate) fn new(
        installed: &Installed,
        layout: &Layout,
        flavor: Flavor,
    ) -> Result<Self, Error> {
        let model = &layout.model;
        let mut sets = SetSteps::default();
        sets.plan(installed, model)?;
        let mut plan = Self::default();
        plan.push(Phase::Create, Program::Ipset, &sets.create);
        let mut tables: BTreeMap<(Phase, Family), Vec<String>> = BTreeMap::new();
        let nothing = InstalledTable::default();
        for (&key, table) in &model.tables {
            let installed = installed.tables.get(&key).unwrap_or(&nothing);
            let steps = TableSteps::plan(installed, table);
            for (phase, lines) in steps.phases(flavor) {
                if !lines.is_empty() {
                    let all = tables.entry((phase, key.0)).or_default();
                    all.push(format!("*{}", key.1));
                    all.extend(lines);
                    all.push("COMMIT".to_owned());
                }
            }
        }
        let mut restore = |plan: &mut Self, phase| {
            for family in Family::ALL {
                let lines = tables.remove(&(phase, family)).unwrap_or_default();
                plan.push(phase, Program::Restore(flavor, family), &lines);
            }
        };
        restore(&mut plan, Phase::Create);
        plan.push(Phase::Switch, Program::Ipset, &sets.switch);
        restore(&mut plan, Phase::Switch);
        restore(&mut plan, Phase::Clean);
        plan.remove_tables(&installed.other, flavor.other());
        plan.push(Phase::Clean, Program::Ipset, &sets.clean);
        Ok(plan)
    }

    /// The steps that take everything away.
    pub(crate) fn removal(installed: &Installed, flavor: Flavor) -> Self {
        let mut plan = Self::default();
        plan.remove_tables(&installed.tables, flavor);
        plan.remove_tables(&installed.other, flavor.other());
        let sets = installed.sets.keys().map(|name| format!("destroy {name}"));
        plan.push(Phase::Clean, Program::Ipset, &sets.collect::<Vec<_>>());
        plan
    }

    fn remove_tables(&mut self, tables: &Tables, flavor: Flavor) {
        for family in Family::ALL {
            let mut lines = Vec::new();
            for ((_, name), table) in tables.iter().filter(|((of, _), _)| *of == family) {
                let steps = TableSteps::plan(table, &Table::default());
                lines.push(format!("*{name}"));
                lines.extend(steps.switch.into_iter().chain(steps.clean));
                lines.push("COMMIT".to_owned());
            }
            self.push(Phase::Clean, Program::Restore(flavor, family), &lines);
        }
    }

    fn push(&mut self, phase: Phase, program: Program, lines: &[String]) {
        if !lines.is_empty() {
            let text = lines.join("\n") + "\n";
            self.steps.push(Step { phase, program, text });
        }
    }
}

/// The layout of a ruleset, with those versions of its sets that let it take the place of what is installed, and these
/// programs closed.
pub(crate) fn layout_beside(
    ruleset: &Ruleset,
    options: &IptablesOptions,
    installed: &Installed,
    closed: &BTreeSet<(Family, ProgramId)>,
) -> Layout {
    let live = installed.live_sets();
    let versions = versions_of(installed, &live);
    let mut adjustments = Adjustments { versions, closed: closed.clone() };
    let layout = layout_with(ruleset, options, &adjustments);
    let changed: Vec<&SetName> = changed(installed, &layout.model, &live).collect();
    if changed.is_empty() || in_place(installed, &layout.model, &changed).is_some() {
        return layout;
    }
    for name in changed {
        let free = (0..9).find(|v| !installed.sets.contains_key(&name.with_version(*v)));
        adjustments.versions.insert(name.with_version(0), free.unwrap_or_default());
    }
    layout_with(ruleset, options, &adjustments)
}

/// In which version each set is: that in which packets are looked up, else any that is there.
pub(crate) fn versions_of(
    installed: &Installed,
    live: &BTreeSet<SetName>,
) -> BTreeMap<SetName, u8> {
    let there = installed.sets.keys().rev().filter(|name| !name.is_spare());
    let versioned = there.chain(live).filter(|name| !name.is_single());
    versioned.map(|name| (name.with_version(0), name.version())).collect()
}

/// The sets that packets are looked up in and whose members would change.
fn changed<'a>(
    installed: &'a Installed,
    model: &'a Model,
    live: &'a BTreeSet<SetName>,
) -> impl Iterator<Item = &'a SetName> {
    let differs = |name: &SetName, set: &Set| {
        let before = installed.sets.get(name);
        before.is_some_and(|before| before.odd || before.elements != set.elements)
    };
    let sets = model
        .sets
        .iter()
        .filter(move |(name, set)| !name.is_single() && live.contains(*name) && differs(name, set));
    sets.map(|(name, _)| name)
}

/// How sets that are in use can change without anybody seeing anything but old or new; none if they cannot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum InPlace {
    /// Member by member.
    Members,
    /// One set for another.
    Swap,
}

fn in_place(installed: &Installed, model: &Model, changed: &[&SetName]) -> Option<InPlace> {
    let same_tables = model.tables.iter().all(|(key, table)| {
        let nothing = InstalledTable::default();
        TableSteps::plan(installed.tables.get(key).unwrap_or(&nothing), table).is_empty()
    });
    // While the rules of two implementations look up the same sets, neither's order is everybody's.
    if !same_tables || !installed.other.is_empty() {
        return None;
    }
    let uses = uses(model);
    let mut directions: BTreeSet<Option<bool>> = BTreeSet::new();
    for &name in changed {
        let (Some(before), Some(after)) = (installed.sets.get(name), model.sets.get(name)) else {
            continue;
        };
        let opens = match uses.get(name) {
            Some(Use::Allow) => true,
            Some(Use::Deny) => false,
            Some(Use::Both) => return None,
            None => continue,
        };
        if before.odd {
            directions.insert(None);
        }
        if !after.elements.is_subset(&before.elements) {
            directions.insert(Some(opens));
        }
        if !before.elements.is_subset(&after.elements) {
            directions.insert(Some(!opens));
        }
    }
    match (directions.len(), changed.len()) {
        (0 | 1, _) if !directions.contains(&None) => Some(InPlace::Members),
        (_, 1) => Some(InPlace::Swap),
        _ => None,
    }
}

/// What the rules that look a set up decide.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Use {
    /// All of them allow: one more member allows no less.
    Allow,
    /// All of them deny: one more member allows no more.
    Deny,
    /// Some of each, or the next tier decides.
    Both,
}

fn uses(model: &Model) -> BTreeMap<&SetName, Use> {
    let mut uses: BTreeMap<&SetName, Use> = BTreeMap::new();
    for rule in model.tables.values().flat_map(|table| table.chains.values()).flat_map(|c| &c.rules)
    {
        let this = match &rule.target {
            Some(Target::Return) => Use::Allow,
            Some(Target::Goto(chain)) if chain.is_denial() => Use::Deny,
            _ => Use::Both,
        };
        for condition in &rule.matches {
            if let Match::Set(name, _) = condition {
                let all = uses.entry(name).or_insert(this);
                if *all != this {
                    *all = Use::Both;
                }
            }
        }
    }
    uses
}

/// Commands for ipset.
#[derive(Debug, Default)]
struct SetSteps {
    create: Vec<String>,
    switch: Vec<String>,
    clean: Vec<String>,
}

impl SetSteps {
    fn plan(&mut self, installed: &Installed, model: &Model) -> Result<(), Error> {
        let live = installed.live_sets();
        let changed: Vec<&SetName> = changed(installed, model, &live).collect();
        let way = in_place(installed, model, &changed);
        // What a killed process left where members are gathered.
        let is_spare = |name: &&SetName| model.sets.keys().any(|set| set.spare() == **name);
        let left: BTreeSet<&SetName> = installed.sets.keys().filter(is_spare).collect();
        self.create.extend(left.iter().map(|name| format!("destroy {name}")));
        for (name, set) in &model.sets {
            let Some(before) = installed.sets.get(name) else {
                self.create.push(text::create(name, set));
                add(&mut self.create, name, &set.elements);
                continue;
            };
            if (before.kind, before.family, before.counters) != (set.kind, set.family, set.counters)
            {
                return Err(Error::Foreign { name: format!("set {name}") });
            }
            if name.is_single() {
                self.single(name, before, set);
            } else if !live.contains(name) {
                if before.odd
                    || before.elements != set.elements
                    || before.capacity < set.elements.len()
                {
                    swap(&mut self.create, name, set);
                }
            } else if changed.contains(&name) {
                match way {
                    Some(InPlace::Members) if set.elements.len() <= before.capacity => {
                        change(&mut self.switch, name, &before.elements, &set.elements);
                    }
                    _ => swap(&mut self.switch, name, set),
                }
            }
        }
        let old =
            installed.sets.keys().filter(|n| !model.sets.contains_key(*n) && !left.contains(n));
        self.clean.extend(old.map(|name| format!("destroy {name}")));
        Ok(())
    }

    /// Sets in which too much does no harm for a moment: an address that may come from a device, an address that counts.
    fn single(&mut self, name: &SetName, before: &InstalledSet, set: &Set) {
        let all: BTreeSet<Element> = before.elements.union(&set.elements).cloned().collect();
        let mut added = &set.elements - &before.elements;
        if before.odd || all.len() > before.capacity {
            let all = Set { elements: all, ..set.clone() };
            swap(&mut self.create, name, &all);
            added.clear();
        }
        add(&mut self.create, name, &added);
        delete(&mut self.clean, name, &(&before.elements - &set.elements));
    }
}

fn add(lines: &mut Vec<String>, name: &SetName, elements: &BTreeSet<Element>) {
    lines.extend(elements.iter().map(|element| format!("add {name} {element}")));
}

fn delete(lines: &mut Vec<String>, name: &SetName, elements: &BTreeSet<Element>) {
    lines.extend(elements.iter().map(|element| format!("del {name} {element}")));
}

fn change(
    lines: &mut Vec<String>,
    name: &SetName,
    before: &BTreeSet<Element>,
    after: &BTreeSet<Element>,
) {
    add(lines, name, &(after - before));
    delete(lines, name, &(before - after));
}

/// The members are gathered in another set, which then takes the name.
fn swap(lines: &mut Vec<String>, name: &SetName, set: &Set) {
    let spare = name.spare();
    lines.push(text::create(&spare, set));
    add(lines, &spare, &set.elements);
    lines.push(format!("swap {spare} {name}"));
    lines.push(format!("destroy {spare}"));
}

/// Commands for one table.
#[derive(Debug, Default)]
struct TableSteps {
    /// New chains and their rules.
    create: Vec<String>,
    /// Chains whose rules change, and jumps.
    switch: Vec<String>,
    /// Chains that go.
    clean: Vec<String>,
}

impl TableSteps {
    fn plan(installed: &InstalledTable, table: &Table) -> Self {
        let mut steps = Self::default();
        let written = |name: &ChainName, rules: &[crate::model::Rule]| -> Vec<String> {
            rules.iter().map(|rule| text::append(name.as_str(), rule)).collect()
        };
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        for (name, chain) in &table.chains {
            let lines = written(name, &chain.rules);
            match installed.chains.get(name) {
                None => {
                    steps.create.push(text::declare(name));
                    new.extend(lines);
                }
                Some(before)
                    if before.iter().eq(lines
                        .iter()
                        .map(|l| words(l))
                        .collect::<Vec<_>>()
                        .iter()) => {}
                Some(_) => {
                    // An entry; or somebody else took rules out of a chain, or put some in.
                    steps.switch.push(text::declare(name));
                    changed.extend(lines);
                }
            }
        }
        steps.create.extend(new);
        steps.switch.extend(changed);
        for builtin in Builtin::ALL {
            let wanted = table.jumps.get(&builtin);
            let expected = wanted.map(|rule| (0, words(&text::append(builtin.as_str(), rule))));
            let before = installed.jumps.get(&builtin).map_or(&[][..], Vec::as_slice);
            if expected.iter().eq(before) {
                continue;
            }
            steps.switch.extend(before.iter().map(|(_, words)| deletion(words)));
            steps.switch.extend(wanted.map(|rule| text::insert_first(builtin, rule)));
        }
        let old = || installed.chains.keys().filter(|name| !table.chains.contains_key(*name));
        steps.clean.extend(old().map(|name| format!("-F {name}")));
        steps.clean.extend(old().map(|name| format!("-X {name}")));
        steps
    }

    fn is_empty(&self) -> bool {
        self.create.is_empty() && self.switch.is_empty() && self.clean.is_empty()
    }

    fn phases(self, flavor: Flavor) -> Vec<(Phase, Vec<String>)> {
        match flavor {
            Flavor::Nft => vec![
                (Phase::Create, self.create),
                (Phase::Switch, self.switch),
                (Phase::Clean, self.clean),
            ],
            Flavor::Legacy => {
                // A chain is declared before any rule.
                let declares = |line: &String| line.starts_with(':');
                let all = self.create.into_iter().chain(self.switch);
                let (declared, rest): (Vec<_>, Vec<_>) = all.partition(declares);
                let lines = declared.into_iter().chain(rest).chain(self.clean);
                vec![(Phase::Switch, lines.collect())]
            }
        }
    }
}

/// The command that deletes an installed rule.
fn deletion(words: &Words) -> String {
    let mut line = String::from("-D");
    for word in words.iter().skip(1) {
        line.push(' ');
        if word.is_empty()
            || word.contains(|c: char| !c.is_ascii_alphanumeric() && !"-_.:/,+!".contains(c))
        {
            line.push('"');
            for c in word.chars() {
                if matches!(c, '"' | '\\') {
                    line.push('\\');
                }
                line.push(c);
            }
            line.push('"');
        } else {
            line.push_str(word);
        }
    }
    line
}

/// The chain or the set that a line of a step is about, and the policy in its comment.
pub(crate) fn subject(line: &str) -> (Option<String>, Option<String>) {
    let words = words(line);
    let name = match words.first().map(String::as_str) {
        Some(first) if first.starts_with(':') => first.strip_prefix(':').map(str::to_owned),
        _ => words.get(1).cloned(),
    };
    let comment = words.iter().position(|word| word == "--comment");
    (name, comment.and_then(|at| words.get(at + 1).cloned()))
}
