//! Which changes make packets go the wrong way: those without which they would not.

use super::{Change, Found, Kind, found};
use crate::machine::{ChainIndex, Fate, Machine, NotUnderstood, Own, Rule, Step, Verdict};
use crate::prove::{Conclusion, Refutation, Report};
use std::collections::{BTreeSet, HashMap};

/// A change, and what it does.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Blame {
    /// The change.
    pub change: Change,
    /// Would a packet that is treated wrongly be treated rightly, were this alone as it was?
    pub matters: bool,
}

/// What changed between two rulesets, and which of it is why the later one is refuted.
///
/// Each change is taken back alone, and the packets of the report are run again. If it takes several changes together to make a
/// packet go the wrong way, all of them matter. In a ruleset that is proved none does.
///
/// ```
/// use netpol_core::{Cluster, Labels, Options, Pod, PodId, Policy, Selector};
/// use netpol_verify::{Dump, ProofOptions, Specification, blame, prove, read_dumps};
///
/// let mut cluster = Cluster::new();
/// let web = Pod::new(PodId::new("shop", "web"), Labels::new());
/// cluster.insert_pod(web.with_addresses(["10.0.0.7".parse()?]));
/// let read = |verdict: &str| {
///     let chain = r#"{"family": "ip", "table": "t", "name": "c", "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}"#;
///     let rule = format!(r#"{{"family": "ip", "table": "t", "chain": "c", "expr": [{{"{verdict}": null}}]}}"#);
///     let text = format!(r#"{{"nftables": [{{"table": {{"family": "ip", "name": "t"}}}}, {{"chain": {chain}}}, {{"rule": {rule}}}]}}"#);
///     read_dumps(&[Dump { name: "node-1".to_owned(), text }])
/// };
/// let (before, now) = (read("accept")?, read("drop")?);
/// let report = prove(&now, &Specification::new(&cluster, None, Options::default()), &ProofOptions::default());
/// let blamed = blame(&before, &now, &report, &ProofOptions::default().own);
/// assert!(blamed[0].matters);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn blame(before: &Machine, now: &Machine, report: &Report, own: &Own) -> Vec<Blame> {
    let found = found(before, now);
    let wrong: Vec<&Refutation> = match &report.conclusion {
        Conclusion::Proved => Vec::new(),
        Conclusion::Refuted(all) => all.iter().collect(),
        Conclusion::NotProved { example, .. } => example.iter().map(AsRef::as_ref).collect(),
    };
    let heals = |machine: &Machine| wrong.iter().any(|r| heals(machine, now, r, own));
    let mut blamed: Vec<Blame> = found
        .iter()
        .map(|found| Blame {
            change: found.change.clone(),
            matters: !wrong.is_empty() && heals(&taken_back(before, now, found)),
        })
        .collect();
    if blamed.iter().all(|one| !one.matters) && heals(before) {
        blamed.iter_mut().for_each(|one| one.matters = true);
    }
    blamed
}

/// Is a packet that is treated wrongly now treated rightly by this machine?
fn heals(machine: &Machine, now: &Machine, refutation: &Refutation, own: &Own) -> bool {
    let Refutation { packet, path, allowed, .. } = refutation;
    let right = BTreeSet::from([if *allowed { Fate::Accepted } else { Fate::Dropped }]);
    if now.fates(packet, *path) != right {
        return machine.fates(packet, *path) == right;
    }
    // What is judged by netpol's own rules alone may meet others too.
    machine.only(own).fates(packet, *path) == right
}

type Names = HashMap<(String, String), ChainIndex>;

fn table_of(machine: &Machine, chain: ChainIndex) -> String {
    let table = machine.chain(chain).and_then(|chain| machine.tables.get(chain.table));
    table.map_or_else(String::new, |table| format!("{} {}", table.program(), table.name))
}

fn names(machine: &Machine) -> Names {
    let chains = machine.chains.iter().enumerate();
    chains.map(|(at, chain)| ((table_of(machine, at), chain.name.clone()), at)).collect()
}

/// The ruleset of now with one object as it was.
fn taken_back(before: &Machine, now: &Machine, found: &Found) -> Machine {
    let mut machine = now.clone();
    let table = &found.change.table;
    match found.kind {
        Kind::Chain => chain_back(before, &mut machine, table, &found.name),
        Kind::Set => set_back(before, &mut machine, table, &found.name),
    }
    machine
}

fn chain_back(before: &Machine, machine: &mut Machine, table: &str, name: &str) {
    let key = (table.to_owned(), name.to_owned());
    let old = names(before).get(&key).and_then(|at| before.chain(*at)).cloned();
    let known = names(machine);
    let here = known.get(&key).copied();
    match (old, here) {
        (Some(old), here) => {
            let rules = old.rules.iter().map(|rule| translated(before, &known, rule)).collect();
            let at = here.or_else(|| {
                let table = before.tables.get(old.table)?;
                let table = machine.table_of(table.kind, table.family, &table.name);
                Some(machine.add_chain(table, name, None))
            });
            if let Some(chain) = at.and_then(|at| machine.chains.get_mut(at)) {
                (chain.hook, chain.rules) = (old.hook, rules);
            }
        }
        (None, Some(here)) => {
            if let Some(chain) = machine.chains.get_mut(here) {
                (chain.hook, chain.rules) = (None, Vec::new());
            }
        }
        (None, None) => {}
    }
}

/// A rule of another machine, with the chains that it calls as they are numbered here.
fn translated(from: &Machine, known: &Names, rule: &Rule) -> Rule {
    let mut rule = rule.clone();
    let lost = NotUnderstood::new(rule.place.clone(), "a chain that is no more");
    for step in &mut rule.steps {
        match step {
            Step::Verdict(verdict) => match verdict_here(from, known, *verdict) {
                Some(here) => *verdict = here,
                None => *step = Step::Opaque(lost.clone()),
            },
            Step::Dispatch { key, map } => {
                let entries = map.entries().map(|(entry, verdict)| {
                    Some((Box::from(entry), verdict_here(from, known, *verdict)?))
                });
                let entries: Option<Vec<_>> = entries.collect();
                match entries {
                    Some(entries) => {
                        let name = map.name().map(str::to_owned);
                        let here = crate::machine::ElementMap::new(name, key.len(), entries);
                        *map = here.into();
                    }
                    None => *step = Step::Opaque(lost.clone()),
                }
            }
            _ => {}
        }
    }
    rule
}

fn verdict_here(from: &Machine, known: &Names, verdict: Verdict) -> Option<Verdict> {
    let here = |chain: ChainIndex| {
        known.get(&(table_of(from, chain), from.chain(chain)?.name.clone())).copied()
    };
    Some(match verdict {
        Verdict::Jump(chain) => Verdict::Jump(here(chain)?),
        Verdict::Goto(chain) => Verdict::Goto(here(chain)?),
        verdict => verdict,
    })
}

fn set_back(before: &Machine, machine: &mut Machine, table: &str, name: &str) {
    let known = names(machine);
    let of_table = |machine: &Machine| -> Vec<ChainIndex> {
        (0..machine.chains.len()).filter(|at| table_of(machine, *at) == table).collect()
    };
    let old = of_table(before).into_iter().filter_map(|at| before.chain(at));
    let old = old.flat_map(|chain| &chain.rules).flat_map(|rule| {
        let rule = translated(before, &known, rule);
        rule.steps.into_iter().filter(|step| is_named(step, name))
    });
    let old: Vec<Step> = old.collect();
    for at in of_table(machine) {
        let rules = machine.chains.get_mut(at).into_iter().flat_map(|chain| &mut chain.rules);
        for step in rules.flat_map(|rule| &mut rule.steps).filter(|step| is_named(step, name)) {
            for other in &old {
                match (&mut *step, other) {
                    (Step::Match(here), Step::Match(was)) if here.key.len() == was.key.len() => {
                        here.set = was.set.clone();
                    }
                    (Step::Dispatch { key, map }, Step::Dispatch { key: old, map: was })
                        if key == old =>
                    {
                        *map = was.clone();
                    }
                    _ => {}
                }
            }
        }
    }
}

fn is_named(step: &Step, name: &str) -> bool {
    match step {
        Step::Match(condition) => condition.set.name() == Some(name),
        Step::Dispatch { map, .. } => map.name() == Some(name),
        _ => false,
    }
}
