//! Every change of a ruleset that changes what it does is refuted; every other one is proved.
//!
//! What a change does is decided packet by packet (`support/universe.rs`), without the prover.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

mod support;
#[path = "support/universe.rs"]
mod universe;

use netpol_core::Cluster;
use netpol_nft::{Guard, NftOptions};
use netpol_testkit::strategies::{clusters, options};
use netpol_verify::Conclusion;
use netpol_verify::machine::Path;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use support::{listing, machine, report};
use universe::Universe;

/// A change, in words, and the ruleset after it.
type Mutant = (String, Value);

fn objects(listing: &Value) -> &Vec<Value> {
    listing["nftables"].as_array().unwrap()
}

fn with(listing: &Value, change: impl FnOnce(&mut Vec<Value>)) -> Value {
    let mut changed = listing.clone();
    change(changed["nftables"].as_array_mut().unwrap());
    changed
}

/// Every single change of some kinds. `pick` thins them out where there are many.
fn mutants(listing: &Value, mut pick: impl FnMut(usize) -> bool) -> Vec<Mutant> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for (at, object) in objects(listing).iter().enumerate() {
        let mut add = |what: &str, change: &dyn Fn(&mut Value)| {
            let before = object.to_string();
            let changed = with(listing, |objects| change(&mut objects[at]));
            if changed != *listing {
                mutants.push((format!("{what}: {:.300}", before), changed));
            }
        };
        for kind in ["set", "map"] {
            let Some(set) = object.get(kind) else { continue };
            let Some(elements) = set.get("elem").and_then(Value::as_array) else { continue };
            for index in 0..elements.len() {
                if elements.len() > 4 && !pick(4) {
                    continue;
                }
                add("drop an element", &|object| {
                    object[kind]["elem"].as_array_mut().unwrap().remove(index);
                });
                if kind == "set" {
                    add("widen or narrow an element", &|object| {
                        shift(&mut object[kind]["elem"][index]);
                    });
                } else {
                    add("another chain for an element", &|object| {
                        let other = object[kind]["elem"][(index + 1) % elements.len()][1].clone();
                        object[kind]["elem"][index][1] = other;
                    });
                    add("no chain for an element", &|object| {
                        object[kind]["elem"][index][1] = json!({ "accept": null });
                    });
                }
            }
            add("turn the elements around", &|object| {
                object[kind]["elem"].as_array_mut().unwrap().reverse();
            });
        }
        if object.get("chain").is_some_and(|chain| chain.get("hook").is_some()) {
            add("another hook", &|object| object["chain"]["hook"] = "postrouting".into());
            add("a later priority", &|object| object["chain"]["prio"] = 7.into());
            add("policy drop", &|object| object["chain"]["policy"] = "drop".into());
        }
        if object.get("rule").is_some() {
            add("flip the verdict", &|object| {
                for statement in object["rule"]["expr"].as_array_mut().unwrap() {
                    let drops =
                        statement.get("drop").is_some() || statement.get("reject").is_some();
                    if drops {
                        *statement = json!({ "accept": null });
                    } else if statement.get("return").is_some() || statement.get("accept").is_some()
                    {
                        *statement = json!({ "drop": null });
                    }
                }
            });
            add("a number by one", &|object| {
                for statement in object["rule"]["expr"].as_array_mut().unwrap() {
                    if let Some(right) = statement.pointer_mut("/match/right") {
                        shift(right);
                    }
                }
            });
            add("turn a condition around", &|object| {
                if let Some(op) = object["rule"]["expr"][0].pointer_mut("/match/op") {
                    *op = if *op == "!=" { "==".into() } else { "!=".into() };
                }
            });
            add("another comment", &|object| object["rule"]["comment"] = "other".into());
            mutants.push((
                format!("drop a rule: {:.300}", object.to_string()),
                with(listing, |objects| drop(objects.remove(at))),
            ));
            mutants.push((
                format!("double a rule: {:.300}", object.to_string()),
                with(listing, |objects| objects.insert(at, object.clone())),
            ));
            let next = objects(listing).get(at + 1);
            if next.is_some_and(|next| next["rule"]["chain"] == object["rule"]["chain"]) {
                mutants.push((
                    format!("swap rules: {:.300}", object.to_string()),
                    with(listing, |objects| objects.swap(at, at + 1)),
                ));
            }
        }
    }
    for family in ["ip", "ip6"] {
        mutants.push((
            format!("lose {family}"),
            with(listing, |objects| {
                objects.retain(|object| {
                    let mut inner = object.as_object().into_iter().flat_map(|o| o.values());
                    inner.all(|inner| inner["family"] != family)
                });
            }),
        ));
    }
    mutants
}

/// Changes an element or the right side of a condition by one.
fn shift(value: &mut Value) {
    match value {
        Value::Number(number) => *value = (number.as_u64().unwrap() ^ 1).into(),
        Value::String(text) => {
            if let Ok(address) = text.parse::<std::net::IpAddr>() {
                let next = match address {
                    std::net::IpAddr::V4(a) => (a.to_bits() ^ 1).to_be_bytes().into(),
                    std::net::IpAddr::V6(a) => {
                        std::net::IpAddr::from((a.to_bits() ^ 1).to_be_bytes())
                    }
                };
                *value = next.to_string().into();
            } else if text == "tcp" {
                *value = "udp".into();
            } else if text == "reply" {
                *value = "original".into();
            }
        }
        Value::Array(list) => {
            if let Some(last) = list.last_mut() {
                shift(last);
            }
        }
        Value::Object(object) => {
            if let Some(length) = object.get_mut("prefix").and_then(|prefix| prefix.get_mut("len"))
            {
                let bits = length.as_u64().unwrap();
                *length = if bits == 0 { 1 } else { bits - 1 }.into();
            } else if let Some(range) = object.get_mut("range") {
                shift(&mut range[1]);
            } else if let Some(parts) = object.get_mut("concat") {
                shift(parts.as_array_mut().unwrap().last_mut().unwrap());
            } else if let Some(value) = object.get_mut("elem") {
                shift(&mut value["val"]);
            } else if let Some(elements) = object.get_mut("set") {
                shift(&mut elements[0]);
            }
        }
        _ => {}
    }
}

#[derive(Debug, Default)]
struct Tally {
    refuted: usize,
    proved: usize,
    by_kind: BTreeMap<String, [usize; 2]>,
}

/// Compares the prover with the enumeration for each mutant.
fn check(
    cluster: &Cluster,
    options: &NftOptions,
    mutants: impl IntoIterator<Item = Mutant>,
    base: &Value,
    tally: &mut Tally,
) -> usize {
    // The guard has its own test: here the addresses are honest.
    let interfaces = BTreeMap::new();
    let universe = Universe::new(cluster, None, base, options.policy(), &interfaces);
    for (what, mutant) in mutants {
        let machine = machine(&mutant);
        let report = report(&machine, cluster, None, options.policy(), &interfaces);
        let difference = universe.difference(&machine);
        let kind = what.split(':').next().unwrap().to_owned();
        let [refuted, proved] = tally.by_kind.entry(kind).or_default();
        match (&report.conclusion, difference) {
            // There is nothing to be proved of pods without addresses.
            (Conclusion::NotProved { example: None, .. }, None)
                if cluster.address_owners().is_empty() => {}
            (Conclusion::Proved, None) => {
                tally.proved += 1;
                *proved += 1;
            }
            (Conclusion::Refuted(all), Some(_)) => {
                tally.refuted += 1;
                *refuted += 1;
                // The packet that is shown goes the wrong way, packet by packet.
                let shown = &all[0];
                let own = shown.path != Path::Forward || shown.reasons[0].starts_with("no pod");
                let own = own.then_some("netpol");
                let fates = machine.fates(&shown.packet, shown.path, own);
                assert_eq!(fates, BTreeSet::from([shown.kernel]), "{what}\n{shown}");
            }
            (Conclusion::Proved, Some(packet)) => {
                panic!("{what}\nis proved, but {packet} goes wrong\n{cluster:#?}");
            }
            (Conclusion::Refuted(all), None) => {
                panic!("{what}\nis refuted without need:\n{}\n{cluster:#?}", all[0]);
            }
            (other, _) => panic!("{what}\n{other:?}"),
        }
    }
    universe.len()
}

#[test]
fn meaningful_mutants_are_refuted_and_others_are_proved() {
    let mut tally = Tally::default();
    let seed = [7; 32];
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let rounds = std::env::var_os("NETPOL_MUTANT_CLUSTERS");
    let rounds = rounds.and_then(|count| count.to_str()?.parse().ok()).unwrap_or(4);
    let mut packets = 0;
    for _ in 0..rounds {
        let cluster = clusters().new_tree(&mut runner).unwrap().current();
        let policy = options().new_tree(&mut runner).unwrap().current();
        let options = NftOptions::default().with_policy(policy).with_guard(Guard::Off);
        let base = listing(&cluster, None, &options);
        let mut all = mutants(&base, |of| runner.rng().random_range(0..of) == 0);
        let most = 60;
        while all.len() > most {
            let at = runner.rng().random_range(0..all.len());
            all.swap_remove(at);
        }
        all.push(("nothing".to_owned(), base.clone()));
        packets += check(&cluster, &options, all, &base, &mut tally);
    }
    println!("{tally:#?}, {packets} packets enumerated");
    assert!(tally.refuted > 20 && tally.proved > 20, "{tally:?}");
}
