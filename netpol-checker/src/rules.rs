//! The rules of a certificate, run on whole classes of packets.
//!
//! A rule's condition must hold for all packets of a class or for none. Where the kernel has a choice, both are tried.

use crate::class::{Class, Key, NO_CLASSES, SetId, Tests, key};
use crate::format::{Field, Hook, Machine, Rule, Step, Verdict, Way};
use crate::list::device;
use rustc_hash::FxHashMap;

/// How deep chains may call each other, as in the kernel.
const MOST_JUMPS: usize = 16;
/// Classes that need more steps, or choices, are not followed.
const MOST_STEPS: usize = 100_000;
const MOST_RUNS: usize = 256;

const TOO_MANY_PARTS: &str = "a key of too many parts";

/// Connection tracking looks at packets at this priority.
const CONNTRACK: i32 = -200;

/// The bit of the state of packets without a connection, and of those that nobody tracks.
const INVALID: u32 = 1;
const UNTRACKED: u32 = 64;

/// A class of packets: a class of values for each field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packets {
    pub(crate) v6: bool,
    pub(crate) source: Class,
    pub(crate) destination: Class,
    pub(crate) protocol: Class,
    pub(crate) first: Class,
    pub(crate) second: Class,
    pub(crate) in_device: Option<Class>,
    pub(crate) out_device: Option<Class>,
    /// The bit of the state, and whether they go in the reply direction.
    pub(crate) state: (u32, bool),
}

/// A base chain on a way.
#[derive(Clone, Debug)]
pub(crate) struct Stage<'c> {
    chain: usize,
    hook: &'c Hook,
    tracked: bool,
    /// Of built-in chains of iptables, netpol's own rules alone.
    own_only: bool,
}

/// The rules, with their sets where classes can be asked about them.
pub(crate) struct Rules<'c> {
    machine: &'c Machine,
    sets: Vec<SetId>,
    /// Of each map, the boxes that lead to each verdict.
    maps: Vec<Vec<(Verdict, SetId)>>,
    found: FxHashMap<(Key, usize), Option<Verdict>>,
}

/// What ended a chain.
enum End {
    Accepted,
    Dropped,
    Returned,
    NobodyKnows,
}

impl<'c> Rules<'c> {
    pub(crate) fn new(machine: &'c Machine, tests: &mut Tests) -> Self {
        let sets = machine.sets.iter().map(|set| match set.width {
            1 => tests.set(set.values.0.clone()),
            width => {
                let boxes = set.boxes.iter().filter(|one| one.0.len() == width);
                tests.set_of_boxes(boxes.map(|one| one.0.clone()).collect())
            }
        });
        let sets = sets.collect();
        let mut maps = Vec::new();
        for map in &machine.maps {
            let mut by_verdict: Vec<(Verdict, Vec<Vec<_>>)> = Vec::new();
            for (entry, verdict) in &map.entries {
                match by_verdict.iter_mut().find(|(other, _)| other == verdict) {
                    Some((_, entries)) => entries.push(entry.0.clone()),
                    None => by_verdict.push((*verdict, vec![entry.0.clone()])),
                }
            }
            let of_verdict = by_verdict.into_iter().map(|(verdict, entries)| {
                let single = entries.iter().all(|entry| entry.len() == 1);
                let set =
                    if single { tests.set(entries.concat()) } else { tests.set_of_boxes(entries) };
                (verdict, set)
            });
            maps.push(of_verdict.collect());
        }
        Self { machine, sets, maps, found: FxHashMap::default() }
    }

    /// The base chains on a way, in the order in which the kernel calls them; before connection tracking only, for the guard.
    pub(crate) fn stages(&self, way: Way, v6: bool, own_only: bool) -> Vec<Stage<'c>> {
        let points: &[&str] = match way {
            Way::ToPod | Way::FromPod | Way::Past => {
                &["ingress", "prerouting", "forward", "postrouting", "egress"]
            }
            Way::ToNode => &["ingress", "prerouting", "input"],
            Way::FromNode => &["output", "postrouting", "egress"],
            Way::Guard => &["ingress", "prerouting"],
        };
        let mut stages = Vec::new();
        for (number, point) in points.iter().enumerate() {
            for (index, chain) in self.machine.chains.iter().enumerate() {
                let Some(hook) = chain.hook.as_ref().filter(|hook| hook.point == *point) else {
                    continue;
                };
                let sees = match chain.family.as_str() {
                    "ip" => !v6,
                    "ip6" => v6,
                    _ => true,
                };
                let tracked = match *point {
                    "ingress" => false,
                    "prerouting" | "output" => hook.priority > CONNTRACK,
                    _ => true,
                };
                let called = !own_only || chain.own || chain.rules.iter().any(|rule| rule.own);
                if sees && called && !(way == Way::Guard && tracked) {
                    let order = (number, hook.priority, index);
                    let own_only = own_only && !chain.own;
                    stages.push((order, Stage { chain: index, hook, tracked, own_only }));
                }
            }
        }
        stages.sort_by_key(|(order, _)| *order);
        stages.into_iter().map(|(_, stage)| stage).collect()
    }

    /// What becomes of a class of packets: `p` all pass, `d` all are dropped, `?` that is the kernel's choice or not understood.
    ///
    /// An error, with the place, if the rules treat some of them differently.
    pub(crate) fn fate(
        &mut self,
        tests: &mut Tests,
        stages: &[Stage<'_>],
        packets: &Packets,
    ) -> Result<u8, String> {
        let (mut choices, mut fates) = (Vec::new(), Vec::new());
        for _ in 0..MOST_RUNS {
            let mut walk = Walk {
                rules: self,
                tests,
                packets,
                choices,
                chosen: Vec::new(),
                mark: Some(0),
                steps: 0,
            };
            fates.push(walk.stages(stages)?);
            // The next combination of choices: the last that was `false` becomes `true`.
            choices = walk.chosen;
            while choices.last() == Some(&true) {
                choices.pop();
            }
            let Some(choice) = choices.last_mut() else {
                let first = fates.first().copied().unwrap_or(b'?');
                return Ok(if fates.iter().all(|fate| *fate == first) { first } else { b'?' });
            };
            *choice = true;
        }
        Ok(b'?')
    }

    /// The verdict of the entry of a map that a key falls into.
    fn look_up(
        &mut self,
        tests: &mut Tests,
        classes: &[Class],
        map: usize,
    ) -> Result<Option<Verdict>, String> {
        let key = (key(classes).ok_or(TOO_MANY_PARTS)?, map);
        if let Some(found) = self.found.get(&key) {
            return Ok(*found);
        }
        let mut found = None;
        for (verdict, set) in self.maps.get(map).ok_or("a map that is not there")? {
            if tests.ask(classes, *set).ok_or("a map has some of the packets in one entry only")? {
                if found.is_some() {
                    return Err("two entries of a map are for the same packets".to_owned());
                }
                found = Some(*verdict);
            }
        }
        self.found.insert(key, found);
        Ok(found)
    }
}

/// One run of a class of packets.
struct Walk<'w, 'c> {
    rules: &'w mut Rules<'c>,
    tests: &'w mut Tests,
    packets: &'w Packets,
    choices: Vec<bool>,
    chosen: Vec<bool>,
    mark: Option<u32>,
    steps: usize,
}

impl Walk<'_, '_> {
    fn stages(&mut self, stages: &[Stage<'_>]) -> Result<u8, String> {
        for stage in stages {
            let passing = match stage.hook.point.as_str() {
                "ingress" => Some(self.packets.in_device),
                "egress" => Some(self.packets.out_device),
                _ => None,
            };
            let called = match (passing, &stage.hook.devices) {
                (Some(_), None) => self.choose(),
                (Some(class), Some(names)) => {
                    let set = names
                        .iter()
                        .filter_map(|name| device(name))
                        .map(crate::Interval::one)
                        .collect();
                    let set = self.tests.set(set);
                    let here = class.map_or(Some(false), |class| self.tests.ask(&[class], set));
                    here.ok_or("a chain is bound to a device by which only some come")?
                }
                (None, Some(_)) => self.choose(),
                (None, None) => true,
            };
            if !called {
                continue;
            }
            match self.chain(stage.chain, stage, 0)? {
                End::Accepted => {}
                // What a built-in chain drops at its end is not netpol's doing.
                End::Returned if !stage.hook.drops || stage.own_only => {}
                End::Dropped | End::Returned => return Ok(b'd'),
                End::NobodyKnows => return Ok(b'?'),
            }
        }
        Ok(b'p')
    }

    fn choose(&mut self) -> bool {
        let choice = self.choices.get(self.chosen.len()).copied().unwrap_or(false);
        self.chosen.push(choice);
        choice
    }

    /// The class of a field, if the packets have it.
    fn class(&mut self, field: Field, stage: &Stage<'_>) -> Option<Class> {
        let Packets { v6, state: (state, reply), .. } = *self.packets;
        let knows_out =
            matches!(stage.hook.point.as_str(), "forward" | "output" | "postrouting" | "egress");
        let value = match field {
            Field::Source => return Some(self.packets.source),
            Field::Destination => return Some(self.packets.destination),
            Field::Protocol => return Some(self.packets.protocol),
            Field::First => return Some(self.packets.first),
            Field::Second => return Some(self.packets.second),
            // A device that is not known has the empty name.
            Field::InDevice => {
                match self.packets.in_device.filter(|_| stage.hook.point != "output") {
                    Some(class) => return Some(class),
                    None => 0,
                }
            }
            Field::OutDevice => match self.packets.out_device.filter(|_| knows_out) {
                Some(class) => return Some(class),
                None => 0,
            },
            Field::Version => 4 + 2 * u128::from(v6),
            Field::State => u128::from(if stage.tracked { state } else { INVALID }),
            Field::Direction if !stage.tracked || matches!(state, INVALID | UNTRACKED) => {
                return None;
            }
            Field::Direction => u128::from(reply),
            Field::Mark => u128::from(self.mark?),
        };
        Some(self.tests.point(value))
    }

    /// The classes of the fields of a key, as many as a key may have, if the packets have them all.
    fn classes(&mut self, key: &[Field], stage: &Stage<'_>) -> Option<Key> {
        let mut classes = NO_CLASSES;
        for (class, field) in classes.iter_mut().zip(key) {
            *class = self.class(*field, stage)?;
        }
        Some(classes)
    }

    fn chain(&mut self, index: usize, stage: &Stage<'_>, depth: usize) -> Result<End, String> {
        let machine = self.rules.machine;
        let chain = machine.chains.get(index).ok_or("a chain that is not there")?;
        let own_only = stage.own_only && index == stage.chain;
        for rule in chain.rules.iter().filter(|rule| rule.own || !own_only) {
            self.steps += 1;
            if depth > MOST_JUMPS || self.steps > MOST_STEPS {
                return Ok(End::NobodyKnows);
            }
            let named = |what: String| {
                format!("{} {} {} {}: {what}", chain.family, chain.table, chain.name, rule.place)
            };
            let Some(verdict) = self.rule(rule, stage).map_err(named)? else {
                return Ok(End::NobodyKnows);
            };
            let end = match verdict {
                Verdict::Continue => continue,
                Verdict::Accept => End::Accepted,
                Verdict::Drop => End::Dropped,
                Verdict::Return => End::Returned,
                Verdict::Goto(next) => self.chain(next, stage, depth + 1)?,
                Verdict::Jump(next) => match self.chain(next, stage, depth + 1)? {
                    End::Returned => continue,
                    end => end,
                },
            };
            return Ok(end);
        }
        Ok(End::Returned)
    }

    /// Where a rule leads; none if nobody knows.
    fn rule(&mut self, rule: &Rule, stage: &Stage<'_>) -> Result<Option<Verdict>, String> {
        for (number, step) in rule.steps.iter().enumerate() {
            let reads_mark = |key: &[Field]| key.contains(&Field::Mark);
            let goes_on = match step {
                Step::Match { key, .. } if reads_mark(key) && self.mark.is_none() => self.choose(),
                Step::Match { key, mask: Some(_), .. } if key != &[Field::Mark] => {
                    return Err("a mask of what is not the mark".to_owned());
                }
                Step::Match { key, mask, negated, set } => {
                    let set = *self.rules.sets.get(*set).ok_or("a set that is not there")?;
                    let mark = self.mark;
                    self.mark = mark.map(|mark| mark & mask.unwrap_or(u32::MAX));
                    let classes = self.classes(key, stage);
                    self.mark = mark;
                    match classes {
                        None => false,
                        Some(classes) => {
                            let classes = classes.get(..key.len()).ok_or(TOO_MANY_PARTS)?;
                            let holds = self.tests.ask(classes, set);
                            holds.ok_or_else(|| {
                                format!("step {number} holds for some of them only")
                            })? != *negated
                        }
                    }
                }
                // What changes nothing may be or not.
                Step::Choice(_) => !has_effect(rule.steps.get(number..)) || self.choose(),
                Step::Opaque(_) => return Ok(None),
                Step::Mark(change) => {
                    self.mark = match change {
                        Some((0, xor)) => Some(*xor),
                        Some((and, xor)) => self.mark.map(|mark| (mark & and) ^ xor),
                        None => None,
                    };
                    true
                }
                Step::Verdict(verdict) => return Ok(Some(*verdict)),
                Step::Dispatch { key, .. } if reads_mark(key) && self.mark.is_none() => {
                    return Ok(None);
                }
                Step::Dispatch { key, map } => match self.classes(key, stage) {
                    None => true,
                    Some(classes) => {
                        let classes = classes.get(..key.len()).ok_or(TOO_MANY_PARTS)?;
                        match self.rules.look_up(self.tests, classes, *map)? {
                            Some(verdict) => return Ok(Some(verdict)),
                            None => true,
                        }
                    }
                },
            };
            if !goes_on {
                break;
            }
        }
        Ok(Some(Verdict::Continue))
    }
}

fn has_effect(steps: Option<&[Step]>) -> bool {
    let effect = |step: &Step| !matches!(step, Step::Match { .. } | Step::Choice(_));
    steps.into_iter().flatten().any(effect)
}
