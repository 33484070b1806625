//! From what is installed to what should be: three transactions.
//!
//! 1. **create**: new sets with their elements, new maps, new chains with their rules. Nothing points at them yet.
//! 2. **switch**: elements of maps and of sets that stay, new base chains. The only step that changes a verdict.
//! 3. **clean**: what nothing points at any more.
//!
//! A packet that is walking the rules while a transaction is committed meets things of both generations; therefore what it
//! may go to must exist, complete, before anything points at it, and must live until nothing does (dataplane.md finding
//! 11). Members of a set that stays change in the same transaction as the dispatch: were they added before it and removed
//! after it, then a pod that moves from one set to another would for milliseconds be in both, and a connection that
//! neither the old nor the new rules allow could be let through by the ingress rules of one and the egress rules of the
//! other. Lookups in a hash set switch with the generation, so there is no moment in which a member is missing.
//!
//! Base chains are new ones beside the old ones, too, until the last step: for that moment a packet must pass both.
//!
//! Stopping between any two steps leaves the old or the new verdicts, and garbage that the next plan removes.

use crate::command::Command;
use crate::installed::{Installed, InstalledTable};
use crate::model::{Chain, Model, Name, Table, TableFamily};
use crate::text;
use std::collections::BTreeMap;

/// What must be done to make the kernel equal to a model.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// The name of the tables.
    pub table: Name,
    /// The first transaction: nothing of it is used yet.
    pub create: Vec<Command>,
    /// The second: packets see the new verdicts.
    pub switch: Vec<Command>,
    /// The third: nothing of it is used any more.
    pub clean: Vec<Command>,
}

/// How many elements stand in one command: the kernel takes about 2700 in one message (dataplane.md A.2).
const ELEMENTS_PER_COMMAND: usize = 1000;

impl Plan {
    /// Is there nothing to do?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps().iter().all(|(_, commands)| commands.is_empty())
    }

    /// The transactions in order, with what they are for.
    #[must_use]
    pub fn steps(&self) -> [(&'static str, &[Command]); 3] {
        [("create", &self.create), ("switch", &self.switch), ("clean", &self.clean)]
    }

    /// The plan as text for people: one section per transaction.
    #[must_use]
    pub fn script(&self) -> String {
        let mut script = String::new();
        for (step, commands) in self.steps().iter().filter(|(_, commands)| !commands.is_empty()) {
            script.push_str(&format!("# {step}\n{}", transaction(&self.table, commands)));
        }
        script
    }

    pub(crate) fn new(installed: &Installed, model: &Model) -> Self {
        let mut plan = Self { table: model.name.clone(), ..Self::default() };
        let nothing = InstalledTable::default();
        for &family in model.tables.keys() {
            if !installed.tables.contains_key(&family) {
                plan.create.push(Command::CreateTable(family));
            }
        }
        for (&family, table) in &model.tables {
            plan.table(family, installed.tables.get(&family).unwrap_or(&nothing), table);
        }
        for &family in installed.tables.keys() {
            if !model.tables.contains_key(&family) {
                plan.clean.push(Command::DeleteTable(family));
            }
        }
        plan
    }

    fn table(&mut self, family: TableFamily, installed: &InstalledTable, table: &Table) {
        self.sets(family, installed, table);
        for (name, map) in &table.maps {
            if !installed.maps.contains_key(name) {
                self.create.push(Command::AddMap(family, name.clone(), map.key));
            }
        }
        let missing = |chain: &(&Name, &Chain)| !installed.chains.contains_key(chain.0);
        let (base, inner): (Vec<_>, Vec<_>) =
            table.chains.iter().filter(missing).partition(|(_, chain)| chain.hook.is_some());
        add_chains(&mut self.create, family, &inner);
        self.maps(family, installed, table);
        add_chains(&mut self.switch, family, &base);
        for (name, chain) in &table.chains {
            let comments = chain.rules.iter().map(|rule| rule.comment.as_str());
            let intact =
                |installed: &Vec<String>| comments.eq(installed.iter().map(String::as_str));
            if installed.chains.get(name).is_some_and(|chain| !intact(chain)) {
                // Somebody else took rules out of it, or put some in.
                self.switch.push(Command::FlushChain(family, name.clone()));
                add_rules(&mut self.switch, family, name, chain);
            }
        }
        let old = |name: &&Name| !table.chains.contains_key(*name);
        let flush = installed.chains.keys().filter(old);
        self.clean.extend(flush.map(|name| Command::FlushChain(family, name.clone())));
        let old_maps = installed.maps.keys().filter(|name| !table.maps.contains_key(*name));
        self.clean.extend(old_maps.map(|name| Command::DeleteMap(family, name.clone())));
        let delete = installed.chains.keys().filter(old);
        self.clean.extend(delete.map(|name| Command::DeleteChain(family, name.clone())));
        let old_sets = installed.sets.keys().filter(|name| !table.sets.contains_key(*name));
        self.clean.extend(old_sets.map(|name| Command::DeleteSet(family, name.clone())));
    }

    fn sets(&mut self, family: TableFamily, installed: &InstalledTable, table: &Table) {
        for (name, set) in &table.sets {
            let Some(before) = installed.sets.get(name) else {
                self.create.push(Command::AddSet(family, name.clone(), set.clone()));
                let elements: Vec<_> = set.elements.iter().cloned().collect();
                for elements in elements.chunks(ELEMENTS_PER_COMMAND) {
                    let elements = elements.to_vec();
                    self.create.push(Command::AddElements(family, name.clone(), elements));
                }
                continue;
            };
            if set.interval {
                continue; // named by its content, and listed in other words than it was written in
            }
            let added: Vec<_> = set.elements.difference(before).cloned().collect();
            let removed: Vec<_> = before.difference(&set.elements).cloned().collect();
            for elements in added.chunks(ELEMENTS_PER_COMMAND) {
                self.switch.push(Command::AddElements(family, name.clone(), elements.to_vec()));
            }
            for elements in removed.chunks(ELEMENTS_PER_COMMAND) {
                self.switch.push(Command::DeleteElements(family, name.clone(), elements.to_vec()));
            }
        }
    }

    fn maps(&mut self, family: TableFamily, installed: &InstalledTable, table: &Table) {
        let nothing = BTreeMap::new();
        for (name, map) in &table.maps {
            let before = installed.maps.get(name).unwrap_or(&nothing);
            let removed: Vec<_> = before
                .iter()
                .filter(|(element, chain)| map.elements.get(*element) != Some(chain))
                .map(|(element, _)| element.clone())
                .collect();
            let added: Vec<_> = map
                .elements
                .iter()
                .filter(|(element, chain)| before.get(*element) != Some(chain))
                .map(|(element, chain)| (element.clone(), chain.clone()))
                .collect();
            for elements in removed.chunks(ELEMENTS_PER_COMMAND) {
                self.switch.push(Command::DeleteElements(family, name.clone(), elements.to_vec()));
            }
            for mappings in added.chunks(ELEMENTS_PER_COMMAND) {
                self.switch.push(Command::AddMappings(family, name.clone(), mappings.to_vec()));
            }
        }
    }
}

/// All chains before any rule, so that rules may name chains in any order.
fn add_chains(commands: &mut Vec<Command>, family: TableFamily, chains: &[(&Name, &Chain)]) {
    for (name, chain) in chains {
        commands.push(Command::AddChain(family, (*name).clone(), chain.hook.clone()));
    }
    for (name, chain) in chains {
        add_rules(commands, family, name, chain);
    }
}

fn add_rules(commands: &mut Vec<Command>, family: TableFamily, name: &Name, chain: &Chain) {
    let rules = chain.rules.iter();
    commands.extend(rules.map(|rule| Command::AddRule(family, name.clone(), rule.clone())));
}

/// One transaction as a script with one command on each line.
pub(crate) fn transaction(table: &Name, commands: &[Command]) -> String {
    commands.iter().map(|command| text::command(table, command) + "\n").collect()
}
