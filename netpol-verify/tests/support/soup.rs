//! Rules that nobody would write: any step of the machine, with any key, in any chain.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use super::support::{devices, interfaces, listing};
use netpol_core::{
    Cluster, Established, IpBlock, Labels, Match, Options, OtherProtocols, Peer, Phase, Pod, PodId,
    Policy, PortEntry, Protocol, Selector, TrafficMatch,
};
use netpol_host::HostOptions;
use netpol_nft::{Guard, NftOptions};
use netpol_verify::ProofOptions;
use netpol_verify::machine::{
    Condition, ElementMap, ElementSet, Field, Machine, NotUnderstood, Range, Rule, Step, Verdict,
    address_value, device_prefix, device_value,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use std::sync::Arc;

/// The chains of the foreign table: those with a hook, and those that are called.
const BASE: [(&str, &str, i32); 7] = [
    ("raw", "prerouting", -300),
    ("pre", "prerouting", -100),
    ("in", "input", 0),
    ("early", "forward", -10),
    ("late", "forward", 10),
    ("out", "output", 0),
    ("post", "postrouting", 0),
];
const CALLED: [&str; 3] = ["one", "two", "three"];

/// Rules of one kind for one chain.
type Rules = (&'static str, Vec<Step>);

#[derive(Clone, Debug)]
pub(crate) struct Soup {
    policies: Vec<usize>,
    established: Established,
    others: OtherProtocols,
    /// Are netpol's rules there, too?
    enforced: bool,
    guarded: bool,
    knows_interfaces: bool,
    /// Are netpol's own rules known as such, and may the others drop more?
    others_may_drop: bool,
    drops: Vec<&'static str>,
    /// A chain at a device, and whether it is known at which.
    at_device: Option<bool>,
    rules: Vec<Rules>,
}

impl Soup {
    /// Rules of netpol for two pods that let nothing in but what is near, and the chains of another table, empty.
    pub(crate) fn enforced() -> Self {
        Self {
            policies: vec![1],
            established: Established::Keep,
            others: OtherProtocols::Police,
            enforced: true,
            guarded: true,
            knows_interfaces: true,
            others_may_drop: false,
            drops: Vec::new(),
            at_device: None,
            rules: Vec::new(),
        }
    }

    pub(crate) fn options(&self) -> Options {
        let options = Options::default().with_established(self.established);
        options.with_other_protocols(self.others)
    }

    pub(crate) fn proof_options(&self) -> ProofOptions {
        let mut options = ProofOptions::default();
        if self.others_may_drop {
            options = options.with_own_table("netpol").with_others_dropping();
        }
        if self.knows_interfaces {
            return options.with_interfaces(interfaces(&self.cluster()));
        }
        options
    }

    pub(crate) fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::new();
        for (name, addresses) in [("a", vec!["10.0.0.1", "fd00::1"]), ("b", vec!["10.0.0.2"])] {
            let pod = Pod::new(PodId::new("n", name), Labels::new()).with_phase(Phase::Running);
            cluster.insert_pod(pod.with_addresses(addresses.iter().map(|a| a.parse().unwrap())));
        }
        let block = IpBlock { cidr: "10.0.0.0/30".parse().unwrap(), except: Vec::new() };
        let web = PortEntry::Range { protocol: Protocol::Tcp, first: 80, last: 81 };
        let near = TrafficMatch {
            peers: Match::OneOf(vec![Peer::Network(block)]),
            ports: Match::OneOf(vec![web]),
            source: None,
        };
        for number in &self.policies {
            let (ingress, egress) = match number {
                0 => (Some(vec![]), None),
                1 => (Some(vec![near.clone()]), None),
                _ => (None, Some(vec![near.clone()])),
            };
            let name = format!("p{number}");
            let all = Selector::everything();
            cluster.insert_policy(Policy::network_policy("n", name, all, ingress, egress));
        }
        cluster
    }

    pub(crate) fn machine(&self) -> Machine {
        let mut objects: Vec<Value> = Vec::new();
        let cluster = self.cluster();
        if self.enforced {
            let host = HostOptions::default()
                .with_policy(self.options())
                .with_interfaces(devices(&interfaces(&cluster)));
            let guard = if self.guarded { Guard::Prerouting } else { Guard::Off };
            let listing = listing(&cluster, None, &NftOptions::from(host).with_guard(guard));
            objects.extend(listing.get("nftables").unwrap().as_array().unwrap().clone());
        }
        objects.push(json!({ "table": { "family": "inet", "name": "t" } }));
        let chain = |name: &str| json!({ "family": "inet", "table": "t", "name": name });
        for (name, hook, priority) in BASE {
            let mut chain = chain(name);
            let policy = if self.drops.contains(&name) { "drop" } else { "accept" };
            let more =
                json!({ "type": "filter", "hook": hook, "prio": priority, "policy": policy });
            chain.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            objects.push(json!({ "chain": chain }));
        }
        objects.extend(CALLED.map(|name| json!({ "chain": chain(name) })));
        if let Some(known) = self.at_device {
            objects.push(json!({ "table": { "family": "netdev", "name": "d" } }));
            let mut chain = json!({ "family": "netdev", "table": "d", "name": "dev", "type": "filter",
                "hook": "ingress", "prio": 0, "policy": "accept" });
            if known {
                chain.as_object_mut().unwrap().insert("dev".to_owned(), "pod0".into());
            }
            objects.push(json!({ "chain": chain }));
        }
        let mut machine = super::support::machine(&json!({ "nftables": objects }));
        let first = position(&machine, CALLED.first().unwrap()).unwrap();
        for (number, (name, steps)) in self.rules.iter().enumerate() {
            let Some(chain) = position(&machine, name) else { continue };
            let mut rule = Rule::at(format!("rule {number}"));
            rule.steps = steps.iter().cloned().map(|step| moved(step, first)).collect();
            machine.add_rule(chain, rule);
        }
        machine
    }
}

fn position(machine: &Machine, name: &str) -> Option<usize> {
    machine.chains.iter().position(|chain| {
        let table = machine.tables.get(chain.table).map(|table| table.name.as_str());
        chain.name == name && matches!(table, Some("t" | "d"))
    })
}

/// Steps are made with the called chains numbered from zero.
fn moved(step: Step, first: usize) -> Step {
    let to = |verdict: Verdict| match verdict {
        Verdict::Jump(chain) => Verdict::Jump(first + chain),
        Verdict::Goto(chain) => Verdict::Goto(first + chain),
        other => other,
    };
    match step {
        Step::Verdict(verdict) => Step::Verdict(to(verdict)),
        Step::Dispatch { key, map } => {
            let entries = map.entries().map(|(entry, verdict)| (Box::from(entry), to(*verdict)));
            let entries = entries.collect();
            Step::Dispatch { key, map: Arc::new(ElementMap::new(None, map.width(), entries)) }
        }
        other => other,
    }
}

fn field() -> impl Strategy<Value = Field> {
    use Field::{
        Destination, Direction, First, InDevice, Mark, OutDevice, Protocol, Second, Source, State,
        Version,
    };
    prop_oneof![
        6 => select(vec![Source, Destination]),
        4 => select(vec![Protocol, First, Second, State]),
        3 => select(vec![Version, InDevice, OutDevice, Direction, Mark]),
    ]
}

/// An interval of a field's values.
fn range(field: Field) -> impl Strategy<Value = Range> {
    let device = |name: &str| Range::one(device_value(name).unwrap());
    let address = |text: &str| Range::one(address_value(text.parse().unwrap()));
    let of = |first: u128, last: u128| Range { first, last };
    let values = match field {
        Field::Version => vec![of(4, 4), of(6, 6), of(4, 6)],
        Field::Source | Field::Destination => vec![
            address("10.0.0.1"),
            address("10.0.0.2"),
            address("10.0.0.3"),
            of(0x0a00_0000, 0x0a00_0003),
            of(0x0a00_0002, 0xcb00_7109),
            of(0, 0xffff_ffff),
            address("fd00::1"),
            of(0xfd00 << 112, (0xfd01 << 112) - 1),
            of(0xfe80 << 112, (0xfec0 << 112) - 1),
            Range::ALL,
        ],
        Field::Protocol => vec![of(6, 6), of(17, 17), of(58, 58), of(6, 17), of(0, 255)],
        Field::First => vec![of(40000, 40000), of(34304, 35071), of(0, 1023), of(36608, 36863)],
        Field::Second => vec![of(80, 80), of(80, 81), of(81, 443), of(0, 65535)],
        Field::InDevice | Field::OutDevice => vec![
            device("pod0"),
            device("pod1"),
            device("uplink0"),
            device_prefix("pod").unwrap(),
            device_prefix("up").unwrap(),
            of(0, 0),
        ],
        Field::State => vec![of(1, 1), of(2, 2), of(4, 4), of(8, 8), of(64, 64), of(2, 4)],
        Field::Direction => vec![of(0, 0), of(1, 1)],
        Field::Mark => vec![of(0, 0), of(1, 1), of(2, 3), of(0x10, 0x1f)],
    };
    select(values)
}

fn key() -> impl Strategy<Value = Vec<Field>> {
    prop_oneof![3 => vec(field(), 1..2), 2 => vec(field(), 2..4)]
}

fn ranges(key: &[Field]) -> impl Strategy<Value = Box<[Range]>> + use<> {
    let parts: Vec<_> = key.iter().map(|field| range(*field).boxed()).collect();
    parts.prop_map(Vec::into_boxed_slice)
}

fn condition() -> impl Strategy<Value = Step> {
    let mask = select(vec![None, None, Some(1u32), Some(0xffff_fffe), Some(0x12)]);
    let parts = key().prop_flat_map(|key| (Just(key.clone()), vec(ranges(&key), 0..4)));
    (parts, any::<bool>(), mask).prop_map(|((key, boxes), negated, mask)| {
        let set = ElementSet::of_boxes(key.len(), boxes);
        let set = Arc::new(set);
        let condition = match (mask, key.as_slice()) {
            (Some(mask), [Field::Mark]) => Condition::of_mark(mask, set),
            _ => Condition::new(key, set),
        };
        Step::Match(if negated { condition.negate() } else { condition })
    })
}

/// A verdict in a chain that may call the chains from a number on.
fn verdict(calls: usize) -> impl Strategy<Value = Verdict> {
    let mut all = vec![Verdict::Accept, Verdict::Accept, Verdict::Accept];
    all.extend([Verdict::Drop, Verdict::Return, Verdict::Return, Verdict::Continue]);
    let called = calls..CALLED.len();
    all.extend(called.flat_map(|chain| [Verdict::Jump(chain), Verdict::Goto(chain)]));
    select(all)
}

fn action(calls: usize) -> impl Strategy<Value = Step> {
    let what = |text: &'static str| NotUnderstood::new("soup", text);
    let entries = key().prop_flat_map(move |key| {
        let entry = (ranges(&key), verdict(calls));
        (Just(key), vec(entry, 0..4))
    });
    let map = entries.prop_map(|(key, entries)| {
        let map = Arc::new(ElementMap::new(None, key.len(), entries));
        Step::Dispatch { key, map }
    });
    let bits = || select(vec![0u32, 1, 2, 3, 0x10, u32::MAX]);
    prop_oneof![
        12 => verdict(calls).prop_map(Step::Verdict),
        5 => map,
        4 => (bits(), bits()).prop_map(|(and, xor)| Step::Mark { and, xor }),
        2 => Just(Step::Free("limit".to_owned())),
        2 => Just(Step::UnknownMatch(what("a condition"))),
        1 => Just(Step::UnknownMark(what("a mark"))),
        2 => Just(Step::Opaque(what("a statement"))),
    ]
}

fn rules(chain: &'static str, calls: usize, most: usize) -> impl Strategy<Value = Vec<Rules>> {
    let steps = (vec(condition(), 0..3), vec(action(calls), 1..3));
    let rule = steps.prop_map(move |(conditions, actions)| {
        (chain, conditions.into_iter().chain(actions).collect())
    });
    vec(rule, 0..most)
}

pub(crate) fn soups() -> impl Strategy<Value = Soup> {
    let mut chains: Vec<BoxedStrategy<Vec<Rules>>> = Vec::new();
    for (name, hook, _) in BASE {
        let most = if hook == "forward" { 4 } else { 2 };
        chains.push(rules(name, 0, most).boxed());
    }
    chains.extend((1..).zip(CALLED).map(|(calls, name)| rules(name, calls, 3).boxed()));
    chains.push(rules("dev", CALLED.len(), 2).boxed());
    // Few chains have rules, so that not all is wrong.
    let all = chains.len();
    let some = proptest::bits::usize::between(0, all);
    let rules = (chains, some, some, any::<bool>()).prop_map(|(all, some, more, few)| {
        let some = if few { some & more } else { some };
        let taken = (0u32..).zip(all).filter(|(at, _)| some >> at & 1 == 1);
        taken.flat_map(|(_, rules)| rules).collect::<Vec<Rules>>()
    });
    let drops = prop_oneof![
        5 => Just(Vec::new()),
        1 => vec(select(BASE.map(|(name, ..)| name).to_vec()), 1..3),
    ];
    let policies = prop_oneof![3 => Just(Vec::new()), 2 => vec(0usize..3, 1..3)];
    let states = select(vec![Established::Keep, Established::ReEvaluate]);
    let others = select(vec![OtherProtocols::Allow, OtherProtocols::Police]);
    let maybe = proptest::bool::weighted(0.3);
    let flags = (proptest::bool::weighted(0.8), any::<bool>(), any::<bool>(), maybe);
    let at_device = prop_oneof![4 => Just(None), 1 => Just(Some(true)), 1 => Just(Some(false))];
    (policies, states, others, flags, drops, at_device, rules).prop_map(
        |(policies, established, others, flags, drops, at_device, rules)| Soup {
            policies,
            established,
            others,
            enforced: flags.0,
            guarded: flags.1,
            knows_interfaces: flags.1 && flags.2,
            others_may_drop: flags.3,
            drops,
            at_device,
            rules,
        },
    )
}
