//! What packets see while rules change.

use crate::candidate::{Candidate, Enforcer, Settings};
use crate::worlds::{network, pairs, pod, two_pods};
use netpol_core::{
    Cluster, Delta, Inventory, Labels, Match, Peer, Phase, Pod, PodSelection, Policy, PortEntry,
    Protocol, Ruleset, Scope, Selector, TrafficMatch, compile,
};
use netpol_lab::{FloodCount, Lab, Place, Plan, Probe, Traffic};
use netpol_testkit::samples::{is, pods, port as port_of};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The environment variable that makes a test program apply rulesets until it is killed.
pub const APPLY_UNTIL_KILLED: &str = "NETPOL_CONFORMANCE_APPLY_UNTIL_KILLED";
/// What such a program says when it begins.
const BEGUN: &str = "applying until killed";
/// So many times rules are applied under flood.
const APPLIES: usize = 24;
/// So many times they are removed and applied anew.
const CONTROLS: usize = 6;
/// So many times whoever applies them is killed.
const KILLS: u64 = 12;
/// Who is killed may leave a program that still changes the kernel: the next one tries again so often.
const ATTEMPTS: usize = 5;

/// Two clusters with other rules, sets and networks, in which these flows have the same fate.
fn two_rulesets() -> (Plan, [Cluster; 2], Vec<Probe>, Vec<bool>) {
    let (plan, base) = two_pods();
    let networks = |version: u8| -> Vec<Peer> {
        // Too many lengths for hash sets: an interval set.
        let mut networks: Vec<String> =
            (0..30).map(|n| format!("172.{}.{n}.0/{}", 16 + version, 24 + n % 8)).collect();
        networks.extend((0..30).map(|n| format!("2001:db8:{version}{n}::/{}", 48 + n % 8)));
        networks.extend(["203.0.113.0/28".to_owned(), "2001:db8::/64".to_owned()]);
        networks.iter().map(|cidr| network(cidr)).collect()
    };
    let cluster = |version: u8| {
        let mut cluster = base.clone();
        // A long walk before the rule that decides.
        let mut rules: Vec<TrafficMatch> = (0..200u16)
            .map(|n| {
                let port = 1000 + 7 * n + u16::from(version);
                let other = pods(&format!("v{version}-{n}"));
                TrafficMatch::new(Match::OneOf(vec![other]), port_list(port))
            })
            .collect();
        rules.push(TrafficMatch::new(Match::OneOf(networks(version)), port_list(53)));
        rules.push(TrafficMatch::new(Match::OneOf(vec![pods("a")]), port_list(53)));
        let name = format!("v{version}");
        cluster.insert_policy(Policy::network_policy("shop", name, is("b"), Some(rules), None));
        cluster
    };
    let mut probes = Vec::new();
    let mut allowed = Vec::new();
    for (a, b, world) in pairs() {
        for (source, port, passes) in
            [(a, 53, true), (world, 53, true), (a, 54, false), (world, 54, false)]
        {
            probes.push(Probe::new(source, b, Traffic::Port(Protocol::Udp, port)));
            allowed.push(passes);
        }
    }
    (plan, [cluster(1), cluster(2)], probes, allowed)
}

fn port_list(port: u16) -> Match<PortEntry> {
    Match::OneOf(vec![port_of(Protocol::Udp, port)])
}

/// What became of the packets of a flood whose verdict was always the same.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Seen {
    /// Packets that were allowed and did not arrive.
    pub lost: u64,
    /// Packets that were denied and arrived.
    pub leaked: u64,
    /// All packets.
    pub sent: u64,
}

impl Seen {
    fn of(counts: &[FloodCount], allowed: &[bool]) -> Self {
        let mut seen = Self::default();
        for (count, &allowed) in counts.iter().zip(allowed) {
            if allowed {
                seen.lost += count.sent - count.arrived;
            } else {
                seen.leaked += count.arrived;
            }
            seen.sent += count.sent;
        }
        seen
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} lost, {} leaked of {} packets", self.lost, self.leaked, self.sent)
    }
}

fn rulesets(clusters: &[Cluster; 2]) -> [Ruleset; 2] {
    clusters.each_ref().map(|cluster| compile(cluster, Scope::Cluster).expect("it compiles"))
}

/// Applies on the node, again if that fails.
fn replace(lab: &Lab, candidate: &dyn Candidate, enforcer: &mut dyn Enforcer, ruleset: &Ruleset) {
    let mut failure = String::new();
    for _ in 0..ATTEMPTS {
        match lab.run(&Place::Node, || enforcer.replace(ruleset)).expect("there is a node") {
            Ok(()) => return,
            Err(error) => failure = error,
        }
    }
    panic!("{}: {failure}", candidate.name());
}

/// What packets see while rules are applied back and forth `applies` times, and then while they are removed and applied
/// anew, which must leak.
///
/// # Panics
///
/// The candidate works in no kernel.
#[must_use]
pub fn under_flood(candidate: &dyn Candidate, applies: usize) -> [Seen; 2] {
    let (plan, clusters, probes, allowed) = two_rulesets();
    let rulesets = rulesets(&clusters);
    let lab = Lab::new(&plan).unwrap();
    let enforcer = lab.run(&Place::Node, || candidate.start(&Settings::default()));
    let mut enforcer = enforcer.unwrap();
    replace(&lab, candidate, &mut *enforcer, &rulesets[0]);
    [false, true].map(|remove| {
        let flood = lab.flood(&probes).unwrap();
        let rounds = if remove { CONTROLS } else { applies };
        for round in 1..=rounds {
            if remove {
                lab.run(&Place::Node, || enforcer.remove()).unwrap().unwrap();
            }
            replace(&lab, candidate, &mut *enforcer, &rulesets[round % 2]);
        }
        Seen::of(&flood.stop().unwrap(), &allowed)
    })
}

/// What packets see while the node changes from each of these back ends to the next, and from the last to the first: the next one
/// enforces other rules with the same verdicts before the rules of the one before are removed.
///
/// # Panics
///
/// There is none, or one of them works in no kernel or fails.
#[must_use]
pub fn migrations_under_flood(candidates: &[&dyn Candidate]) -> Seen {
    let (plan, clusters, probes, allowed) = two_rulesets();
    let rulesets = rulesets(&clusters);
    let lab = Lab::new(&plan).unwrap();
    let start = |candidate: &dyn Candidate, ruleset| {
        let enforcer = lab.run(&Place::Node, || candidate.start(&Settings::default()));
        let mut enforcer = enforcer.unwrap();
        replace(&lab, candidate, &mut *enforcer, ruleset);
        enforcer
    };
    let mut current = start(candidates[0], &rulesets[0]);
    let flood = lab.flood(&probes).unwrap();
    for (round, candidate) in
        (1..).zip(candidates.iter().cycle().skip(1).take(3 * candidates.len()))
    {
        let next = start(*candidate, &rulesets[round % 2]);
        lab.run(&Place::Node, || current.remove()).unwrap().unwrap();
        current = next;
    }
    Seen::of(&flood.stop().unwrap(), &allowed)
}

/// Rules are applied back and forth under a flood of packets whose verdict is the same in both: none is lost and none leaks.
/// As a control, so that the detector is known to work, they are removed and applied anew.
///
/// A candidate that is not atomic is not held to it; what it loses and leaks is printed.
pub fn nothing_is_lost_or_leaks_while_rules_change(candidate: &dyn Candidate) {
    if candidate.judge().is_some() {
        return;
    }
    let [seen, control] = under_flood(candidate, APPLIES);
    println!("{}: {seen}; removed and applied anew: {control}", candidate.name());
    assert!(control.leaked > 0, "the detector works");
    if candidate.abilities().atomic {
        assert_eq!((seen.lost, seen.leaked), (0, 0), "{}", candidate.name());
    }
}

/// Pods join sets, leave them and change from one to another under a flood of packets whose verdict is always the same.
pub fn nothing_is_lost_or_leaks_while_pods_come_and_go(candidate: &dyn Candidate) {
    if candidate.judge().is_some() {
        return;
    }
    let (plan, base) = two_pods();
    let ruleset = |step: &str, others: u8| {
        let mut cluster = base.clone();
        let a = base.pod(&pod("a")).unwrap().clone();
        cluster.insert_pod(a.with_labels(Labels::from_iter([("app", "a"), ("step", step)])));
        for number in 0..others {
            let step = if number % 2 == 0 { "one" } else { "other" };
            let labels = Labels::from_iter([("step", step)]);
            let other = Pod::new(pod(&format!("o{number}")), labels).with_phase(Phase::Running);
            cluster.insert_pod(other.with_addresses([IpAddr::from([10, 7, 0, number])]));
        }
        let rule = |step| {
            let pods = PodSelection::within("shop", Selector::match_labels([("step", step)]));
            TrafficMatch::new(Match::OneOf(vec![Peer::Pods(pods)]), port_list(53))
        };
        let rules = vec![rule("one"), rule("two"), rule("other")];
        cluster.insert_policy(Policy::network_policy("shop", "b", is("b"), Some(rules), None));
        compile(&cluster, Scope::Cluster).unwrap()
    };
    let lab = Lab::new(&plan).unwrap();
    let enforcer = lab.run(&Place::Node, || candidate.start(&Settings::default()));
    let mut enforcer = enforcer.unwrap();
    let mut before = ruleset("one", 0);
    replace(&lab, candidate, &mut *enforcer, &before);
    let (mut probes, mut allowed) = (Vec::new(), Vec::new());
    for (a, b, world) in pairs() {
        for (source, port, passes) in [(a, 53, true), (a, 54, false), (world, 53, false)] {
            probes.push(Probe::new(source, b, Traffic::Port(Protocol::Udp, port)));
            allowed.push(passes);
        }
    }
    let flood = lab.flood(&probes).unwrap();
    for round in 0..5 {
        for (step, others) in [("one", 30), ("one", 200), ("two", 200), ("two", 7), ("one", 9)] {
            let after = ruleset(step, others + round);
            let delta = Delta::between(&before, &after);
            lab.run(&Place::Node, || enforcer.apply(&delta)).unwrap().unwrap();
            before = after;
        }
    }
    let seen = Seen::of(&flood.stop().unwrap(), &allowed);
    println!("{}, pods come and go: {seen}", candidate.name());
    if candidate.abilities().atomic {
        assert_eq!((seen.lost, seen.leaked), (0, 0), "{}", candidate.name());
    }
}

/// A process that applies rules back and forth is killed at any moment, under flood; another one goes on.
pub fn nothing_is_lost_or_leaks_when_applying_is_killed(candidate: &dyn Candidate, child: &str) {
    if candidate.judge().is_some() {
        return;
    }
    let (plan, clusters, probes, allowed) = two_rulesets();
    let rulesets = rulesets(&clusters);
    let lab = Lab::new(&plan).unwrap();
    let start = || lab.run(&Place::Node, || candidate.start(&Settings::default())).unwrap();
    let before = lab.run(&Place::Node, || candidate.snapshot()).unwrap();
    replace(&lab, candidate, &mut *start(), &rulesets[0]);
    let program = std::env::current_exe().unwrap();
    let flood = lab.flood(&probes).unwrap();
    for kill in 0..KILLS {
        let running = lab.run(&Place::Node, || {
            Command::new(&program)
                .args(["--exact", child, "--nocapture"])
                .env(APPLY_UNTIL_KILLED, "")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
        });
        let mut running = running.unwrap().unwrap();
        let output = BufReader::new(running.stdout.take().unwrap());
        let begun = output.lines().map_while(Result::ok).any(|line| line.contains(BEGUN));
        assert!(begun, "`{child}` is no test of this program, or it failed");
        // Not to wait for something, but to kill it anywhere.
        std::thread::sleep(Duration::from_millis(kill * 37 % 101));
        running.kill().unwrap();
        running.wait().unwrap();
        if kill % 3 == 2 {
            replace(&lab, candidate, &mut *start(), &rulesets[0]);
        }
    }
    let mut last = start();
    replace(&lab, candidate, &mut *last, &rulesets[1]);
    let seen = Seen::of(&flood.stop().unwrap(), &allowed);
    println!("{}, killed {KILLS} times: {seen}", candidate.name());
    if candidate.abilities().atomic {
        assert_eq!((seen.lost, seen.leaked), (0, 0), "{}", candidate.name());
    }
    if candidate.abilities().reads_back {
        // An nft that the last kill left behind may be at work until the first of these looks.
        let installed = lab.run(&Place::Node, || last.installed()).unwrap().unwrap();
        assert_eq!(installed, Some(Inventory::of(&rulesets[1])), "{}", candidate.name());
    }
    lab.run(&Place::Node, || last.remove()).unwrap().unwrap();
    let after = lab.run(&Place::Node, || candidate.snapshot()).unwrap();
    assert_eq!(after, before, "{}: nothing is left", candidate.name());
}

/// What the process does that is killed.
pub fn apply_until_killed(candidate: &dyn Candidate) {
    let rulesets = rulesets(&two_rulesets().1);
    let mut enforcer = candidate.start(&Settings::default());
    // If whoever is to kill it is gone.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    println!("{BEGUN}");
    for round in 0.. {
        // What the one before left at work may be in the way once.
        let _ = enforcer.replace(&rulesets[round % 2]);
    }
}
