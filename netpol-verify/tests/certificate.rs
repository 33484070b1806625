//! Certificates of proofs are accepted, and nothing else is.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

#[path = "support/iptables.rs"]
mod iptables;
#[allow(dead_code, reason = "shared by test files, each of which uses a part")]
#[path = "support/soup.rs"]
mod soup;
mod support;

use netpol_checker::{
    Certificate, Checked, Defect, Interval, List, Program, STATES, Setting, Way, check,
    compare_listing,
};
use netpol_core::{Cluster, Established, Labels, NodeName, Options, Pod, PodId, Policy, Selector};
use netpol_iptables::Guard as IptablesGuard;
use netpol_nft::{Guard, NftOptions};
use netpol_testkit::rendered::iptables_dumps;
use netpol_testkit::strategies::clusters;
use netpol_verify::machine::{Machine, Range, Step};
use netpol_verify::{
    Conclusion, ProofOptions, Report, Specification, prove_with_certificate, read_dumps,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use support::{devices, interfaces, listing, machine, nft_options};

/// What a proof is about.
#[derive(Debug)]
struct World {
    cluster: Cluster,
    node: Option<NodeName>,
    options: Options,
    interfaces: BTreeMap<PodId, String>,
    unguarded: bool,
    others_may_drop: bool,
}

impl World {
    fn check(&self, certificate: &Certificate) -> Result<Checked, Defect> {
        let setting = Setting {
            cluster: &self.cluster,
            node: self.node.as_ref(),
            options: self.options,
            interfaces: &self.interfaces,
            own_table: Some("netpol"),
            own_chains: Some("NP"),
            unguarded: self.unguarded,
            others_may_drop: self.others_may_drop,
        };
        check(certificate, &setting)
    }

    fn prove(&self, machine: &Machine) -> (Report, Certificate) {
        let specification = Specification::new(&self.cluster, self.node.as_ref(), self.options);
        let options = ProofOptions::default().with_own_table("netpol").with_own_chains("NP");
        let options = options.with_interfaces(self.interfaces.clone());
        let options = if self.unguarded { options.without_guard() } else { options };
        let options = if self.others_may_drop { options.with_others_dropping() } else { options };
        prove_with_certificate(machine, &specification, &options)
    }
}

/// A cluster with its rules as netpol-nft writes them, for one node or all, the devices known to the prover or not.
fn worlds() -> impl Strategy<Value = (World, Value)> {
    let flags = (any::<bool>(), any::<bool>(), proptest::bool::weighted(0.3));
    (clusters(), nft_options(), flags).prop_map(
        |(cluster, options, (one_node, knows, others_may_drop))| {
            let node = cluster.nodes().next().map(|node| node.name().clone()).filter(|_| one_node);
            let all = interfaces(&cluster);
            let host = options.host().clone().with_interfaces(devices(&all));
            let options = options.with_host(host);
            let listing = listing(&cluster, node.as_ref(), &options);
            let interfaces = if knows { all } else { BTreeMap::new() };
            let unguarded = options.guard() == Guard::Off;
            let options = options.host().policy();
            (World { cluster, node, options, interfaces, unguarded, others_may_drop }, listing)
        },
    )
}

/// Places to change, as it comes (xorshift).
#[derive(Clone, Copy, Debug)]
struct Dice(u64);

impl Dice {
    /// A number below a limit.
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below.max(1) as u64).unwrap()
    }
}

fn dice() -> impl Strategy<Value = Dice> {
    (1..u64::MAX).prop_map(Dice)
}

/// A question with lanes and cells, and how many cells go with one class of traffic.
fn some_question(certificate: &Certificate, dice: &mut Dice) -> (usize, usize) {
    let at = dice.roll(certificate.questions.len());
    let states = if certificate.questions[at].way == Way::Guard { 1 } else { STATES.len() };
    (at, states)
}

/// Every row of a question anew.
fn rewrite(certificate: &mut Certificate, question: usize, change: impl Fn(&str) -> String) {
    for cell in 0..certificate.questions[question].cells.len() {
        for side in 0..2 {
            let row = certificate.questions[question].cells[cell][side];
            let changed = change(&certificate.rows[row as usize]);
            let at = new_row(certificate, changed);
            certificate.questions[question].cells[cell][side] = at;
        }
    }
}

/// Everything that is stated of one lane.
fn column(certificate: &Certificate, question: usize, lane: usize) -> Vec<u8> {
    let cells = certificate.questions[question].cells.iter().flatten();
    cells.map(|row| certificate.rows[*row as usize].as_bytes()[lane]).collect()
}

fn new_row(certificate: &mut Certificate, row: String) -> u32 {
    certificate.rows.push(row);
    u32::try_from(certificate.rows.len() - 1).unwrap()
}

fn new_list(certificate: &mut Certificate, list: Vec<Interval>) -> usize {
    certificate.lists.push(List(list));
    certificate.lists.len() - 1
}

/// A forged certificate, and what was done to it; none if that would not be wrong, or cannot be done there.
fn forged(
    certificate: &Certificate,
    kind: usize,
    dice: &mut Dice,
) -> Option<(&'static str, Certificate)> {
    let mut forged = certificate.clone();
    let mut place = || {
        let (at, states) = some_question(certificate, dice);
        let lanes = &certificate.questions[at].lanes;
        (at, states, dice.roll(lanes.len()), dice.roll(lanes.len()))
    };
    // Two classes that are not treated alike, where that is what is to be forged.
    let differ = |&(at, _, lane, other): &(usize, usize, usize, usize)| {
        let lanes = &certificate.questions[at].lanes;
        (lanes[lane].1 == lanes[other].1 || kind == 6)
            && lanes[lane].0 != lanes[other].0
            && column(certificate, at, lane) != column(certificate, at, other)
    };
    let places = (0..200).map(|_| place());
    let (at, states, lane, other) =
        places.into_iter().find(|place| !(6..=7).contains(&kind) || differ(place))?;
    let question = &certificate.questions[at];
    let what = match kind {
        0 | 1 => {
            let cell = dice.roll(question.cells.len());
            let mut row =
                certificate.rows[question.cells[cell][kind] as usize].clone().into_bytes();
            let others: Vec<u8> =
                b"pd*?".iter().copied().filter(|letter| *letter != row[lane]).collect();
            row[lane] = others[dice.roll(others.len())];
            forged.questions[at].cells[cell][kind] =
                new_row(&mut forged, String::from_utf8(row).unwrap());
            if kind == 0 { "an expected verdict changed" } else { "a verdict changed" }
        }
        2 => {
            forged.questions[at].lanes.remove(lane);
            rewrite(&mut forged, at, |row| format!("{}{}", &row[..lane], &row[lane + 1..]));
            "a class of addresses dropped"
        }
        3 => {
            let mut boxes = certificate.traffic[question.traffic].clone();
            let class = dice.roll(boxes.len());
            let count = boxes.len();
            boxes.remove(class);
            forged.traffic.push(boxes);
            forged.questions[at].traffic = forged.traffic.len() - 1;
            let mut number = 0;
            forged.questions[at].cells.retain(|_| {
                number += 1;
                (number - 1) / states % count != class
            });
            "a class of traffic dropped"
        }
        4 | 5 => {
            // A value more, or less, in a list of this question.
            let boxes = &certificate.traffic[question.traffic];
            let mut lists: Vec<usize> = boxes[dice.roll(boxes.len())].to_vec();
            lists.extend([question.lanes[lane].0, question.lanes[other].0]);
            lists.extend(question.lanes[lane].1);
            lists.extend(question.others.first());
            let list = lists[dice.roll(lists.len())];
            let intervals = &mut forged.lists[list].0;
            let interval = dice.roll(intervals.len());
            if kind == 5 {
                if intervals[interval].first == intervals[interval].last {
                    intervals.remove(interval);
                } else {
                    intervals[interval].last -= 1;
                }
                "an interval narrowed"
            } else {
                let after = intervals[interval].last.checked_add(1)?;
                if intervals.iter().any(|i| i.first <= after && after <= i.last) {
                    return None;
                }
                intervals[interval].last = after;
                "an interval widened"
            }
        }
        6 => {
            let [(from, _), (to, _)] = [question.lanes[lane], question.lanes[other]];
            let mut rest = certificate.lists[from].0.clone();
            let part = dice.roll(rest.len());
            let moved = Interval::one(rest[part].last);
            if rest[part].first < moved.first {
                rest[part].last -= 1;
            } else {
                rest.remove(part);
            }
            let mut more = certificate.lists[to].0.clone();
            more.push(moved);
            let (rest, more) = (new_list(&mut forged, rest), new_list(&mut forged, more));
            for one in &mut forged.questions[at].lanes {
                one.0 = [(from, rest), (to, more)]
                    .into_iter()
                    .find(|p| p.0 == one.0)
                    .map_or(one.0, |p| p.1);
            }
            "an interval moved to another class"
        }
        7 => {
            let [(one, _), (two, _)] = [question.lanes[lane], question.lanes[other]];
            let both = [&certificate.lists[one].0[..], &certificate.lists[two].0[..]].concat();
            let both = new_list(&mut forged, both);
            let gone: Vec<usize> =
                (0..question.lanes.len()).filter(|lane| question.lanes[*lane].0 == two).collect();
            for one_lane in &mut forged.questions[at].lanes {
                if one_lane.0 == one {
                    one_lane.0 = both;
                }
            }
            forged.questions[at].lanes.retain(|lane| lane.0 != two);
            rewrite(&mut forged, at, |row| {
                let kept = row.chars().enumerate().filter(|(lane, _)| !gone.contains(lane));
                kept.map(|(_, letter)| letter).collect()
            });
            "two classes merged"
        }
        8 => {
            forged.questions.remove(at);
            "a question dropped"
        }
        9 => {
            let pod = question.pod.clone()?;
            forged.questions.retain(|question| question.pod.as_ref() != Some(&pod));
            "a pod dropped"
        }
        10 => {
            forged.questions.push(question.clone());
            "a question doubled"
        }
        11 => {
            let device = dice.roll(certificate.outside.len());
            forged.outside.remove(device);
            "a class of devices dropped"
        }
        _ => {
            forged.options.re_evaluates ^= true;
            "other options"
        }
    };
    Some((what, forged))
}

/// How many kinds of forgeries there are.
const KINDS: usize = 13;

/// A ruleset changed in one place: a rule dropped or turned around, an element dropped.
fn changed(listing: &Value, dice: &mut Dice) -> Option<Value> {
    let mut changed = listing.clone();
    let objects = changed["nftables"].as_array_mut().unwrap();
    let rules: Vec<usize> =
        (0..objects.len()).filter(|at| objects[*at].get("rule").is_some()).collect();
    let sets: Vec<usize> = (0..objects.len())
        .filter(|at| {
            ["set", "map"].iter().any(|kind| {
                let set = objects[*at].get(kind);
                set.and_then(|set| set["elem"].as_array()).is_some_and(|all| !all.is_empty())
            })
        })
        .collect();
    match dice.roll(3) {
        0 if !rules.is_empty() => {
            objects.remove(rules[dice.roll(rules.len())]);
        }
        1 if !rules.is_empty() => {
            let rule = rules[dice.roll(rules.len())];
            let last = objects[rule]["rule"]["expr"].as_array_mut()?.last_mut()?;
            *last = if last.get("accept").is_some() {
                json!({"drop": null})
            } else {
                json!({"accept": null})
            };
        }
        _ if !sets.is_empty() => {
            let set = sets[dice.roll(sets.len())];
            let kind = if objects[set].get("set").is_some() { "set" } else { "map" };
            let elements = objects[set][kind]["elem"].as_array_mut()?;
            elements.remove(dice.roll(elements.len()));
        }
        _ => return None,
    }
    Some(changed)
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

#[test]
fn forgeries_are_rejected() {
    let mut made: [BTreeMap<&str, usize>; KINDS] = Default::default();
    let counts = RefCell::new(&mut made);
    let result =
        TestRunner::new(config(80)).run(&(worlds(), dice()), |((world, listing), mut dice)| {
            let (_, certificate) = world.prove(&machine(&listing));
            if world.check(&certificate) == Err(Defect::Nothing) {
                return Ok(());
            }
            for kind in 0..KINDS {
                let Some((what, forged)) = forged(&certificate, kind, &mut dice) else { continue };
                prop_assert!(world.check(&forged).is_err(), "{}", what);
                *counts.borrow_mut()[kind].entry(what).or_default() += 1;
            }
            Ok(())
        });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("{made:?}");
    assert!(made.iter().all(|kind| kind.values().sum::<usize>() > 5), "{made:?}");
}

/// The first defect is named.
#[test]
fn defects_are_named() {
    let mut cluster = Cluster::new();
    for (name, address) in [("web", "10.0.0.7"), ("db", "10.0.0.8")] {
        let pod = Pod::new(PodId::new("shop", name), Labels::from_iter([("app", name)]));
        cluster.insert_pod(pod.with_addresses([address.parse().unwrap()]));
    }
    let db = Selector::match_labels([("app", "db")]);
    cluster.insert_policy(Policy::network_policy("shop", "closed", db, Some(vec![]), None));
    let listing = listing(&cluster, None, &NftOptions::default());
    let world = World {
        cluster,
        node: None,
        options: Options::default(),
        interfaces: BTreeMap::new(),
        unguarded: false,
        others_may_drop: false,
    };
    let (_, good) = world.prove(&machine(&listing));
    assert!(world.check(&good).is_ok());
    type Forge = fn(&mut Certificate);
    let table: [(Forge, &str); 12] = [
        (|c| c.version += 1, "malformed: `netpol certificate` of version 2"),
        (|c| c.node = Some("n".to_owned()), "about something else: another node"),
        (|c| c.options.re_evaluates = true, "about something else: other options"),
        (
            |c| c.interfaces = [("shop/db".to_owned(), "x".to_owned())].into(),
            "about something else: other devices",
        ),
        (|c| c.machine.chains[0].own ^= true, "about something else: whether `"),
        (|c| c.unguarded = true, "about something else: whether a source guard"),
        (|c| c.others_may_drop = true, "about something else: whether others may drop more"),
        (|c| c.questions[0].together = true, "missing: ToPod"),
        (|c| c.machine.not_understood.push("x".to_owned()), "not understood: x"),
        (|c| drop(c.questions.pop()), "missing: Past"),
        (
            |c| c.lists.iter_mut().for_each(|list| list.0.retain(|one| one.first == one.last)),
            "the devices that are no pod's: ",
        ),
        (
            |c| c.questions[0].lanes.clear(),
            "ToPod of shop/web at 10.0.0.7, IPv4: 0.0.0.0-255.255.255.255 is in no class",
        ),
    ];
    for (forge, message) in table {
        let mut forged = good.clone();
        forge(&mut forged);
        let defect = world.check(&forged).unwrap_err().to_string();
        assert!(defect.starts_with(message), "{defect}");
    }
    assert!(Certificate::read("{}").is_err());
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn proofs_are_accepted((world, listing) in worlds()) {
        let (report, certificate) = world.prove(&machine(&listing));
        let text = serde_json::to_string(&certificate).unwrap();
        let read = Certificate::read(&text).unwrap();
        let compared = compare_listing(&read, &listing.to_string());
        prop_assert!(compared.is_ok(), "{:?}", compared);
        prop_assert!(read == certificate);
        match (world.check(&read), &report.conclusion) {
            (Ok(checked), Conclusion::Proved) => {
                prop_assert_eq!(checked.cells, report.statistics.cells);
            }
            (Err(Defect::Nothing), Conclusion::NotProved { .. }) => {}
            (Err(defect), _) => prop_assert!(false, "{}", defect),
            (_, other) => prop_assert!(false, "{:?}", other),
        }
    }

    /// Neither the certificate of a wrong ruleset, nor that of the right one with the rules of the wrong one.
    #[test]
    fn wrong_rules_are_not((world, listing) in worlds(), mut dice in dice()) {
        let (_, certificate) = world.prove(&machine(&listing));
        if world.check(&certificate) == Err(Defect::Nothing) {
            return Ok(());
        }
        for _ in 0..4 {
            let Some(changed) = changed(&listing, &mut dice) else { continue };
            let (report, wrong) = world.prove(&machine(&changed));
            // A rule less, or other elements, are seen without understanding rules.
            let rules = |listing: &Value| {
                let objects = listing["nftables"].as_array().unwrap().iter();
                objects.filter(|object| object.get("rule").is_some()).cloned().collect::<Vec<_>>()
            };
            let (before, after) = (rules(&listing), rules(&changed));
            let tables = |c: &Certificate| (c.machine.sets.clone(), c.machine.maps.clone());
            if before.len() != after.len() || before == after && tables(&wrong) != tables(&certificate) {
                prop_assert!(compare_listing(&certificate, &changed.to_string()).is_err());
            }
            let forged = Certificate { machine: wrong.machine.clone(), ..certificate.clone() };
            if report.is_proved() {
                prop_assert!(world.check(&wrong).is_ok());
            } else {
                let defect = world.check(&wrong);
                prop_assert!(matches!(defect, Err(Defect::Refuted { .. })), "{:?}", defect);
                prop_assert!(world.check(&forged).is_err());
            }
        }
    }

    /// A certificate is no proof of anything else.
    #[test]
    fn other_clusters_are_not((world, listing) in worlds(), other in clusters(), mut dice in dice()) {
        let rules = machine(&listing);
        let (_, certificate) = world.prove(&rules);
        let mut cluster = world.cluster.clone();
        let policies: Vec<_> = other.policies().cloned().collect();
        match dice.roll(3) {
            0 => drop(policies.get(dice.roll(policies.len())).map(|policy| cluster.insert_policy(policy.clone()))),
            1 => {
                let ids: Vec<_> = cluster.policies().map(|policy| policy.id().clone()).collect();
                ids.get(dice.roll(ids.len())).map(|id| cluster.remove_policy(id));
            }
            _ => {
                let pods: Vec<_> = other.pods().cloned().collect();
                pods.get(dice.roll(pods.len())).map(|pod| cluster.insert_pod(pod.clone()));
            }
        }
        let changed = World { cluster, ..world };
        let (report, of_changed) = changed.prove(&rules);
        if report.is_proved() {
            prop_assert!(changed.check(&of_changed).is_ok());
        } else {
            prop_assert!(changed.check(&certificate).is_err());
            prop_assert!(changed.check(&of_changed).is_err());
        }
        let flipped = match changed.options.established() {
            Established::Keep => Established::ReEvaluate,
            Established::ReEvaluate => Established::Keep,
        };
        let other = World { options: changed.options.with_established(flipped), ..changed };
        prop_assert!(other.check(&certificate).is_err());
    }
}

/// What no ruleset has and the checker does not follow: a field that stands in a key twice, entries of a map that overlap.
fn is_odd(machine: &Machine) -> bool {
    let steps = machine.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.steps);
    steps.into_iter().any(|step| {
        let (key, entries): (_, Vec<&[Range]>) = match step {
            Step::Match(condition) => (&condition.key, Vec::new()),
            Step::Dispatch { key, map } => (key, map.entries().map(|(entry, _)| entry).collect()),
            _ => return false,
        };
        let meet = |one: &[Range], other: &[Range]| one.iter().zip(other).all(|(a, b)| a.meets(b));
        let overlap = |at: usize| entries[..at].iter().any(|other| meet(entries[at], other));
        if (0..entries.len()).any(overlap) {
            return true;
        }
        key.iter().enumerate().any(|(at, field)| key[..at].contains(field))
    })
}

/// Rules that nobody would write: the checker finds what the prover found, in each cell of each question.
#[test]
fn any_rules_are_checked() {
    let count = Cell::new([0; 3]);
    let result = TestRunner::new(config(300)).run(&soup::soups(), |soup| {
        let (cluster, rules, options) = (soup.cluster(), soup.machine(), soup.proof_options());
        if is_odd(&rules) {
            return Ok(());
        }
        let specification = Specification::new(&cluster, None, soup.options());
        let (report, certificate) = prove_with_certificate(&rules, &specification, &options);
        let interfaces = &options.interfaces;
        let setting = Setting {
            cluster: &cluster,
            node: None,
            options: soup.options(),
            interfaces,
            own_table: options.own.table.as_deref(),
            own_chains: None,
            unguarded: false,
            others_may_drop: options.others_may_drop,
        };
        let mut counts = count.get();
        match (check(&certificate, &setting), &report.conclusion) {
            (Ok(checked), Conclusion::Proved) => {
                prop_assert_eq!(checked.cells, report.statistics.cells);
                counts[0] += 1;
            }
            (Err(Defect::Refuted { .. }), Conclusion::Refuted(_)) => counts[1] += 1,
            (Err(Defect::Refuted { met: '?', .. }), Conclusion::NotProved { .. }) => counts[2] += 1,
            (Err(defect), _) => prop_assert!(false, "{}", defect),
            (_, other) => prop_assert!(false, "{:?}", other),
        }
        count.set(counts);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("proved, refuted, not proved: {:?}", count.get());
    assert!(count.get().iter().all(|some| *some > 2));
}

/// A cluster with its rules as netpol-iptables writes them, beside a node's own firewall, or behind rules that it must not stand behind.
fn iptables_worlds() -> impl Strategy<Value = (World, Machine)> {
    let choices = (any::<bool>(), any::<bool>(), 0..7usize);
    let world = (clusters(), iptables::iptables_options(), iptables::flavors(), choices);
    world.prop_map(|(cluster, options, flavor, (one_node, knows, firewall))| {
        let node = cluster.nodes().next().map(|node| node.name().clone()).filter(|_| one_node);
        let all = interfaces(&cluster);
        let interfaces = if knows { all } else { BTreeMap::new() };
        let host = options.host().clone().with_interfaces(devices(&interfaces));
        let options = options.with_host(host);
        let mut dumps = iptables_dumps(&cluster, node.as_ref(), &options, flavor);
        for dump in &mut dumps {
            dump.text = match firewall {
                0 => continue,
                1 => dump.text.replace(":INPUT ACCEPT", ":INPUT DROP"),
                2 => dump.text.replace("COMMIT", "-A OUTPUT -p tcp -j DROP\nCOMMIT"),
                3 => dump.text.replacen("-A FORWARD", "-A FORWARD -p tcp -j DROP\n-A FORWARD", 1),
                4 => dump.text.replacen(":FORWARD ACCEPT", ":FORWARD DROP", 1),
                5 => dump.text.replacen("-A FORWARD", "-A FORWARD -p udp -j ACCEPT\n-A FORWARD", 1),
                _ => dump.text.replacen("-A INPUT", "-A INPUT -p udp -j ACCEPT\n-A INPUT", 1),
            };
        }
        let unguarded = options.guard() == IptablesGuard::Off;
        let options = options.host().policy();
        // What others drop of what is forwarded is theirs to drop, then.
        let others_may_drop = matches!(firewall, 3..6);
        let world = World { cluster, node, options, interfaces, unguarded, others_may_drop };
        (world, read_dumps(&dumps).unwrap())
    })
}

/// Rules of netpol-iptables stand among those of others, which the node's own traffic is not judged by, but must not be let past netpol's by.
#[test]
fn rules_of_iptables_are_checked() {
    let count = Cell::new([0; 5]);
    let test = |((world, machine), mut dice): ((World, Machine), Dice)| {
        let (report, certificate) = world.prove(&machine);
        let text = serde_json::to_string(&certificate).unwrap();
        prop_assert!(Certificate::read(&text).unwrap() == certificate);
        let mut counts = count.get();
        match (world.check(&certificate), &report.conclusion) {
            (Ok(checked), Conclusion::Proved) => {
                prop_assert_eq!(checked.cells, report.statistics.cells);
                counts[0] += 1;
            }
            (Err(Defect::Refuted { .. }), Conclusion::Refuted(_)) => counts[1] += 1,
            (Err(Defect::Nothing), Conclusion::NotProved { .. }) => return Ok(()),
            (defect, other) => prop_assert!(false, "{:?}: {:?}", defect, other),
        }
        let chains = &certificate.machine.chains;
        let some = |dice: &mut Dice, with: &dyn Fn(usize) -> bool| {
            let all: Vec<usize> = (0..chains.len()).filter(|chain| with(*chain)).collect();
            all.get(dice.roll(all.len())).copied()
        };
        let mut forgeries = Vec::new();
        // A rule that is netpol's, or is not, is said to be the other.
        for own in [true, false] {
            let here = |chain: usize| chains[chain].rules.iter().any(|rule| rule.own == own);
            let Some(chain) = some(&mut dice, &here) else { continue };
            let rules = 0..chains[chain].rules.len();
            let rules: Vec<usize> =
                rules.filter(|at| chains[chain].rules[*at].own == own).collect();
            let mut forged = certificate.clone();
            forged.machine.chains[chain].rules[rules[dice.roll(rules.len())]].own ^= true;
            forgeries.push((2, forged));
        }
        // So is a chain; or it is said to be of another program.
        if let Some(chain) = some(&mut dice, &|_| true) {
            let mut forged = certificate.clone();
            forged.machine.chains[chain].own ^= true;
            forgeries.push((3, forged));
        }
        if let Some(chain) = some(&mut dice, &|chain| chains[chain].own) {
            let mut forged = certificate.clone();
            forged.machine.chains[chain].program = Program::Nft;
            forgeries.push((3, forged));
        }
        // Nobody asks what all rules do together; or what is asked of all is answered for netpol's.
        if certificate.questions.iter().any(|question| question.together) {
            let mut forged = certificate.clone();
            forged.questions.retain(|question| !question.together);
            forgeries.push((4, forged));
            let mut forged = certificate.clone();
            forged.questions.iter_mut().for_each(|question| question.together = false);
            forgeries.push((4, forged));
        }
        for (kind, forged) in forgeries {
            let defect = world.check(&forged);
            let refused = !matches!(defect, Ok(_) | Err(Defect::Refuted { .. }));
            prop_assert!(refused, "{}: {:?}", kind, defect);
            counts[kind] += 1;
        }
        let guarded = World { unguarded: !world.unguarded, ..world };
        prop_assert!(matches!(guarded.check(&certificate), Err(Defect::OtherSetting(_))));
        count.set(counts);
        Ok(())
    };
    if let Err(error) = TestRunner::new(config(120)).run(&(iptables_worlds(), dice()), test) {
        panic!("{error}");
    }
    println!("proved, refuted; own rules, own chains, questions forged: {:?}", count.get());
    assert!(count.get().iter().all(|some| *some > 0), "{:?}", count.get());
}
