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
    /// Would a packet that is treated wrongly be treated rightly, were this alone as it was, or does it take this, too?
    pub matters: bool,
}

/// What changed between two rulesets, and which of it is why the later one is refuted.
///
/// Each change is taken back alone, and the packets of the report are run again. Where that heals no packet, as where two foreign
/// rules would drop it, a smallest set of changes is looked for that heals it if all of them are taken back. In a ruleset that is
/// proved nothing matters.
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
    let mut matter = vec![false; found.len()];
    let mut healed = vec![false; wrong.len()];
    let concerned: Vec<Concerned<'_>> =
        wrong.iter().map(|refutation| Concerned::new(before, now, refutation, own)).collect();
    for (one, matters) in found.iter().zip(&mut matter) {
        let is_met = || concerned.iter().any(|concerned| concerned.by(one));
        if wrong.is_empty() || found.len() > MOST_TRIED && !is_met() {
            continue;
        }
        let machine = taken_back(before, now, [one]);
        for (refutation, healed) in wrong.iter().zip(&mut healed) {
            let heals = heals(&machine, now, refutation, own);
            *matters |= heals;
            *healed |= heals;
        }
    }
    for ((refutation, concerned), healed) in wrong.iter().zip(&concerned).zip(healed) {
        if healed {
            continue;
        }
        for at in together(before, now, refutation, own, concerned, &found) {
            matter.get_mut(at).into_iter().for_each(|matters| *matters = true);
        }
    }
    let blamed = found.into_iter().zip(matter);
    blamed.map(|(found, matters)| Blame { change: found.change, matters }).collect()
}

/// How many changes are taken back one by one; of more, those of what the packets met.
const MOST_TRIED: usize = 400;
/// Of how many changes a smallest set is looked for.
const MOST_TOGETHER: usize = 40;

/// Changes that heal a packet if all of them are taken back, and not if one of them is left; none if the packet was treated
/// wrongly before, too.
fn together(
    before: &Machine,
    now: &Machine,
    refutation: &Refutation,
    own: &Own,
    concerned: &Concerned<'_>,
    found: &[Found],
) -> Vec<usize> {
    let heals = |some: &[usize]| {
        let some = some.iter().filter_map(|at| found.get(*at));
        heals(&taken_back(before, now, some), now, refutation, own)
    };
    let all = |some: &dyn Fn(&Found) -> bool| -> Vec<usize> {
        (0..found.len()).filter(|at| found.get(*at).is_some_and(some)).collect()
    };
    // What the packet met is enough as a rule.
    let mut set = all(&|found| concerned.by(found));
    if !heals(&set) {
        set = all(&|_| true);
        if !heals(&set) {
            return Vec::new();
        }
    }
    if set.len() <= MOST_TOGETHER {
        for at in set.clone() {
            let without: Vec<usize> = set.iter().copied().filter(|other| *other != at).collect();
            if heals(&without) {
                set = without;
            }
        }
    }
    set
}

/// The chains that a packet met before and meets now, with all rules together and with netpol's own alone.
struct Concerned<'m>([(&'m Machine, BTreeSet<String>); 2]);

impl<'m> Concerned<'m> {
    fn new(before: &'m Machine, now: &'m Machine, refutation: &Refutation, own: &Own) -> Self {
        let Refutation { packet, path, .. } = refutation;
        Self([before, now].map(|machine| {
            let alone = machine.only(own).run(packet, *path);
            let runs = machine.run(packet, *path).into_iter().chain(alone);
            (machine, runs.flat_map(|run| run.trace).map(|step| step.chain).collect())
        }))
    }

    /// By a change of one of these chains, or of a set that one of them looks up?
    fn by(&self, found: &Found) -> bool {
        let (table, name) = (&found.change.table, &found.name);
        self.0.iter().any(|(machine, met)| match found.kind {
            Kind::Chain => met.contains(&format!("{table} {name}")),
            Kind::Set => machine.chains.iter().enumerate().any(|(at, chain)| {
                let mut steps = chain.rules.iter().flat_map(|rule| &rule.steps);
                table_of(machine, at) == *table
                    && met.contains(&machine.chain_name(at))
                    && steps.any(|step| is_named(step, name))
            }),
        })
    }
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

/// The ruleset of now with some objects as they were.
fn taken_back<'f>(
    before: &Machine,
    now: &Machine,
    some: impl IntoIterator<Item = &'f Found>,
) -> Machine {
    let mut machine = now.clone();
    let some: Vec<&Found> = some.into_iter().collect();
    // A chain may call one that only comes back after it, and set up anew it looks up sets of now: the second time all is there.
    let times = if some.len() > 1 { 2 } else { 1 };
    for found in (0..times).flat_map(|_| &some) {
        let table = &found.change.table;
        match found.kind {
            Kind::Chain => chain_back(before, &mut machine, table, &found.name),
            Kind::Set => set_back(before, &mut machine, table, &found.name),
        }
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
