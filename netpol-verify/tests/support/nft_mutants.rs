//! Changes of a listing of nft, one at a time: some change what it does, some do not.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

use serde_json::{Value, json};
use std::net::IpAddr;

fn objects(listing: &Value) -> &Vec<Value> {
    listing["nftables"].as_array().unwrap()
}

fn with(listing: &Value, change: impl FnOnce(&mut Vec<Value>)) -> Value {
    let mut changed = listing.clone();
    change(changed["nftables"].as_array_mut().unwrap());
    changed
}

/// Every single change of some kinds. `pick` thins them out where there are many.
pub(crate) fn mutants(
    listing: &Value,
    pick: &mut dyn FnMut(usize) -> bool,
) -> Vec<(String, Value)> {
    let mut mutants: Vec<(String, Value)> = Vec::new();
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
            if let Ok(address) = text.parse::<IpAddr>() {
                let next = match address {
                    IpAddr::V4(a) => (a.to_bits() ^ 1).to_be_bytes().into(),
                    IpAddr::V6(a) => IpAddr::from((a.to_bits() ^ 1).to_be_bytes()),
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
