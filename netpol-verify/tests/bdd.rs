//! Two engines with nothing in common say the same: of what netpol-nft makes, of its mutants, of rules that nobody would
//! write, and of rulesets that break one expectation each.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

#[path = "support/nft_mutants.rs"]
mod nft_mutants;
#[path = "support/soup.rs"]
mod soup;
mod support;

use netpol_core::{Cluster, NodeName, Options, PodId};
use netpol_host::{Denial, HostOptions};
use netpol_nft::{Dispatch, Guard, NftOptions};
use netpol_testkit::strategies::{clusters, options};
use netpol_verify::machine::{
    Condition, ElementSet, Fate, Field, HookPoint, Machine, NotUnderstood, Path, Range, Rule, Step,
    TableFamily, Verdict, address_value,
};
use netpol_verify::{Conclusion, ProofOptions, Report, Specification, bdd, prove};
use nft_mutants::mutants;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::cell::Cell;
use std::collections::BTreeMap;
use support::{devices, interfaces, listing, machine};

fn both(
    machine: &Machine,
    cluster: &Cluster,
    node: Option<&NodeName>,
    policy: Options,
    options: &ProofOptions,
) -> (Report, bdd::Proof) {
    let specification = Specification::new(cluster, node, policy);
    (prove(machine, &specification, options), bdd::prove(machine, &specification, options))
}

fn proof_options(interfaces: &BTreeMap<PodId, String>) -> ProofOptions {
    ProofOptions::default().with_own_table("netpol").with_interfaces(interfaces.clone())
}

/// How many cases; more by the environment.
fn cases(usual: u32) -> u32 {
    let times = std::env::var_os("NETPOL_BDD_TIMES");
    usual * times.and_then(|times| times.to_str()?.parse().ok()).unwrap_or(1)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(80), failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn what_is_rendered_is_proved_by_both(
        cluster in clusters(),
        policy in options(),
        guard in prop_oneof![Just(Guard::Off), Just(Guard::Prerouting)],
        by_interface in any::<bool>(),
        reject in any::<bool>(),
        one_node in any::<bool>(),
        knows in any::<bool>(),
    ) {
        let node = cluster.nodes().next().map(|node| node.name().clone()).filter(|_| one_node);
        let interfaces = interfaces(&cluster);
        let host = HostOptions::default()
            .with_policy(policy)
            .with_denial(if reject { Denial::Reject } else { Denial::Drop })
            .with_interfaces(devices(&interfaces));
        let dispatch = if by_interface { Dispatch::Interface } else { Dispatch::Address };
        let nft = NftOptions::from(host).with_guard(guard).with_dispatch(dispatch);
        let machine = machine(&listing(&cluster, node.as_ref(), &nft));
        // Rules by interface mean nothing to who does not know the interfaces.
        let known = by_interface || knows;
        let known = known && guard != Guard::Off;
        let interfaces = if known { interfaces } else { Default::default() };
        let (one, two) =
            both(&machine, &cluster, node.as_ref(), policy, &proof_options(&interfaces));
        prop_assert_eq!(one.conclusion.as_str(), two.conclusion.as_str(), "{:#?}\n{:#?}", one, two);
        if !by_interface {
            let nobody = cluster.address_owners().is_empty() || node.is_some();
            prop_assert!(two.is_proved() || nobody, "{:#?}", two);
        }
    }
}

#[test]
fn mutants_are_judged_alike() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[11; 32]);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let mut tally: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..cases(6) {
        let cluster = clusters().new_tree(&mut runner).unwrap().current();
        let policy = options().new_tree(&mut runner).unwrap().current();
        let guarded = round % 2 == 1;
        let interfaces = if guarded { interfaces(&cluster) } else { BTreeMap::new() };
        let host = HostOptions::default().with_policy(policy).with_interfaces(devices(&interfaces));
        let guard = if guarded { Guard::Prerouting } else { Guard::Off };
        let base = listing(&cluster, None, &NftOptions::from(host).with_guard(guard));
        let mut all = mutants(&base, &mut |of| runner.rng().random_range(0..of) == 0);
        while all.len() > 60 {
            let at = runner.rng().random_range(0..all.len());
            all.swap_remove(at);
        }
        // Every other guarded ruleset is read by who does not know the interfaces.
        let known = if round % 4 == 1 { BTreeMap::new() } else { interfaces };
        for (what, mutant) in all {
            let (one, two) =
                both(&machine(&mutant), &cluster, None, policy, &proof_options(&known));
            let (one, two) = (one.conclusion, two.conclusion);
            assert_eq!(one.as_str(), two.as_str(), "{what}\n{one:#?}\n{two:#?}\n{cluster:#?}");
            *tally.entry(two.as_str()).or_default() += 1;
        }
    }
    println!("{tally:?}");
    assert!(tally["proved"] > 50 && tally["refuted"] > 50, "{tally:?}");
}

#[test]
fn foreign_rules_are_judged_alike() {
    let config = ProptestConfig {
        cases: cases(300),
        failure_persistence: None,
        max_shrink_iters: 3000,
        ..ProptestConfig::default()
    };
    let tally: [Cell<usize>; 3] = Default::default();
    let done = TestRunner::new(config).run(&soup::soups(), |soup| {
        let machine = soup.machine();
        let cluster = soup.cluster();
        let (one, two) = both(&machine, &cluster, None, soup.options(), &soup.proof_options());
        prop_assert_eq!(
            one.conclusion.as_str(),
            two.conclusion.as_str(),
            "{:#?}\n{:#?}\n{:#?}",
            one.conclusion,
            two.conclusion,
            machine
        );
        let at =
            ["proved", "refuted", "not proved"].iter().position(|w| *w == two.conclusion.as_str());
        let cell = &tally[at.unwrap()];
        cell.set(cell.get() + 1);
        Ok(())
    });
    println!("proved, refuted, not proved: {tally:?}");
    if let Err(error) = done {
        panic!("{error}");
    }
    assert!(tally.iter().all(|count| count.get() > 3), "{tally:?}");
}

/// A base chain of a table.
fn base(machine: &Machine, table: &str, family: TableFamily, point: HookPoint) -> usize {
    let found = machine.chains.iter().position(|chain| {
        let of = &machine.tables[chain.table];
        let hook = chain.hook.as_ref().map(|hook| hook.point);
        of.name == table && of.family == family && hook == Some(point)
    });
    found.unwrap_or_else(|| panic!("{table} has no chain for {point:?}"))
}

fn is(field: Field, value: impl Into<u128>) -> Step {
    Step::Match(Condition::within(field, Range::one(value)))
}

fn is_address(field: Field, text: &str) -> Step {
    is(field, address_value(text.parse().unwrap()))
}

/// One rule before all others of one chain, and what becomes of the proof.
struct Case {
    what: &'static str,
    table: (&'static str, TableFamily),
    point: HookPoint,
    steps: Vec<Step>,
    expected: &'static str,
}

fn unknown() -> NotUnderstood {
    NotUnderstood::new("rule", "something new")
}

/// Each expectation of the theorem, broken alone; and what only looks as if it did.
fn broken() -> Vec<Case> {
    use Field::{Destination, Direction, First, InDevice, Protocol, Second, Source, State};
    use HookPoint::{Forward, Input, Output, Prerouting};
    let own = ("netpol", TableFamily::Ip);
    let own6 = ("netpol", TableFamily::Ip6);
    let other = ("t", TableFamily::Inet);
    let (accept, drop) = (Step::Verdict(Verdict::Accept), Step::Verdict(Verdict::Drop));
    let tcp = |port: u16| vec![is(Protocol, 6u8), is(Second, port)];
    let mut cases = Vec::new();
    let mut case = |what, table, point, conditions: Vec<Step>, end: &Step, expected| {
        let steps = conditions.into_iter().chain([end.clone()]).collect();
        cases.push(Case { what, table, point, steps, expected });
    };
    let (refuted, proved) = ("refuted", "proved");
    case("no rule", other, Forward, vec![], &accept, proved);
    let opened = vec![is(State, 2u8), is(Direction, 0u8)];
    case("open connections are cut", other, Forward, opened, &drop, refuted);
    let replies = vec![is(State, 2u8), is(Direction, 1u8)];
    case("replies are dropped", other, Forward, replies, &drop, refuted);
    case("related packets are dropped", other, Forward, vec![is(State, 4u8)], &drop, refuted);
    case("invalid packets are dropped", other, Forward, vec![is(State, 1u8)], &drop, proved);
    case("invalid packets pass", own, Forward, vec![is(State, 1u8)], &accept, refuted);
    case("untracked packets pass", own, Forward, vec![is(State, 64u8)], &accept, refuted);
    case("new packets pass", own, Forward, vec![is(State, 8u8)], &accept, refuted);
    let before = vec![is(State, 8u8)];
    case("no state is new before conntrack", other, Prerouting, before, &drop, proved);
    let nothing =
        vec![Step::Match(Condition::within(Direction, Range::one(7u8)).negate()), is(State, 1u8)];
    case("an invalid packet has no direction", own, Forward, nothing, &accept, proved);
    let discovery = vec![is(Protocol, 58u8), is(First, 135u16 << 8)];
    case("no neighbors are found", other, Forward, discovery, &drop, refuted);
    let itself = vec![is_address(Source, "10.0.0.1"), is_address(Destination, "10.0.0.1")];
    case("a pod does not reach itself", other, Forward, itself, &drop, refuted);
    case("an allowed port is closed", other, Forward, tcp(81), &drop, refuted);
    let odd = vec![is(Protocol, 47u8), is_address(Destination, "203.0.113.9")];
    case("another protocol is dropped", other, Forward, odd, &drop, refuted);
    case("a denied port is open", own, Forward, tcp(82), &accept, refuted);
    let six = vec![is(Protocol, 17u8), is_address(Destination, "fd00::1")];
    case("it is open by IPv6", own6, Forward, six, &accept, refuted);
    let from_node = vec![is_address(Destination, "10.0.0.2")];
    case("the node does not reach its pod", other, Output, from_node.clone(), &drop, proved);
    let firewall = vec![is_address(Source, "10.0.0.2")];
    case("the node's firewall closes a port", other, Input, firewall, &drop, proved);
    let past = vec![is_address(Source, "203.0.113.9"), is_address(Destination, "203.0.113.10")];
    case("another table drops what passes by", other, Forward, past.clone(), &drop, proved);
    case("netpol drops what passes by", own, Forward, past, &drop, refuted);
    let guard = vec![is_address(Source, "10.0.0.9")];
    case("the guard is passed by", own, Prerouting, guard, &accept, refuted);
    let device = netpol_verify::machine::device_value("pod0").unwrap();
    let own_address = vec![is(InDevice, device), is_address(Source, "10.0.0.1")];
    case("the guard drops a pod's own address", own, Prerouting, own_address, &drop, refuted);
    let free = |more: Vec<Step>| [vec![Step::Free("limit".to_owned())], more].concat();
    case("some of what is denied passes", own, Forward, free(tcp(82)), &accept, refuted);
    case("some of what is allowed is dropped", other, Forward, free(tcp(80)), &drop, refuted);
    let new = |more: Vec<Step>| [vec![Step::UnknownMatch(unknown())], more].concat();
    case("nobody knows what is dropped", other, Forward, new(tcp(80)), &drop, "not proved");
    case("whatever passes there is asked again", other, Forward, new(vec![]), &accept, proved);
    case("anything may happen", other, Forward, vec![], &Step::Opaque(unknown()), "not proved");
    let closed = || [vec![is_address(Destination, "10.0.0.1")], tcp(82)].concat();
    let mark = [closed(), vec![Step::Mark { and: 0, xor: 5 }]].concat();
    case("a mark that nobody looks at", other, Forward, mark, &accept, proved);
    cases
}

#[test]
fn each_expectation_broken_alone() {
    let soup = soup::Soup::enforced();
    let (cluster, policy) = (soup.cluster(), soup.options());
    let options = soup.proof_options().with_own_table("netpol");
    for Case { what, table: (table, family), point, steps, expected } in broken() {
        let mut machine = soup.machine();
        let chain = base(&machine, table, family, point);
        let mut rule = Rule::at("the rule");
        rule.steps = steps;
        machine.chains[chain].rules.insert(0, rule);
        let (one, two) = both(&machine, &cluster, None, policy, &options);
        assert_eq!(two.conclusion.as_str(), expected, "{what}: {:#?}", two.conclusion);
        assert_eq!(one.conclusion.as_str(), expected, "{what}: {:#?}", one.conclusion);
        if let Conclusion::Refuted(all) = &two.conclusion {
            let wrong = if all[0].allowed { Fate::Dropped } else { Fate::Accepted };
            let fates = machine.fates(&all[0].packet, all[0].path);
            assert!(fates.contains(&wrong), "{what}: {}", all[0]);
        }
    }
}

/// A key may name a field twice. The first engine once looked at the first of them alone where it made its classes, and
/// called this proved.
#[test]
fn a_field_that_stands_twice_in_a_key() {
    let soup = soup::Soup::enforced();
    let mut machine = soup.machine();
    let chain = base(&machine, "t", TableFamily::Inet, HookPoint::Forward);
    let [near, to, from] =
        ["10.0.0.0", "10.0.0.1", "10.0.0.3"].map(|text| address_value(text.parse().unwrap()));
    let one = Box::from([Range { first: near, last: from }, Range::one(to), Range::one(from)]);
    let set = ElementSet::of_boxes(3, vec![one]);
    let key = vec![Field::Source, Field::Destination, Field::Source];
    let mut rule = Rule::at("the rule");
    rule.steps.push(Step::Match(Condition::new(key, set.into())));
    rule.steps.push(Step::Verdict(Verdict::Drop));
    machine.add_rule(chain, rule);
    let (cluster, options) = (soup.cluster(), soup.proof_options());
    let (one, two) = both(&machine, &cluster, None, soup.options(), &options);
    for conclusion in [one.conclusion, two.conclusion] {
        let Conclusion::Refuted(all) = &conclusion else { panic!("{conclusion:?}") };
        let packet = &all[0].packet;
        assert_eq!((packet.source, packet.destination, all[0].path), (from, to, Path::Forward));
    }
}
