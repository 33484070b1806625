//! Tables of iptables-nft: nft lists them, too, but cannot say what the rules in them look at. `iptables-nft-save` can.

use super::Object;
use crate::iptables::Outline;
use crate::machine::{Machine, NotUnderstood, TableFamily};
use serde::Deserialize;
use std::collections::BTreeSet;

#[derive(Deserialize)]
struct Member {
    family: String,
    name: Option<String>,
    table: Option<String>,
    chain: Option<String>,
    hook: Option<String>,
    policy: Option<String>,
}

/// Leaves out the tables that another listing told of. If they are not as that says, this is not understood: the two were
/// taken at different times, or somebody put rules of nft into a table of iptables. Base chains that iptables-nft does not
/// know, and therefore does not list, stay.
pub(super) fn leave_out(
    machine: &mut Machine,
    source: &str,
    objects: &mut Vec<Object<'_>>,
    listed: &Outline,
) {
    if listed.is_empty() {
        return;
    }
    let mut found = Outline::new();
    let mut other: BTreeSet<(TableFamily, String, String)> = BTreeSet::new();
    // Chains come before their rules in no particular order, so they are looked at first.
    for is_chain in [true, false] {
        objects.retain(|object| {
            if (object.kind == "chain") != is_chain {
                return true;
            }
            let Ok(member) = serde_json::from_str::<Member>(object.body.get()) else { return true };
            let table = if object.kind == "table" { &member.name } else { &member.table };
            let (Some(table), Ok(family)) = (table.clone(), super::family(&member.family)) else {
                return true;
            };
            let key = (family, table.clone());
            let Some(chains) = listed.get(&key) else { return true };
            let drops = member.policy.as_deref() == Some("drop");
            match (&*object.kind, member.name, member.chain) {
                ("chain", Some(name), _) => {
                    if member.hook.is_some() && !chains.contains_key(&name) {
                        other.insert((family, key.1, name));
                        return true;
                    }
                    found.entry(key).or_default().entry(name).or_default().1 = drops;
                    false
                }
                ("rule", _, Some(chain)) => {
                    if other.contains(&(family, table.clone(), chain.clone())) {
                        return true;
                    }
                    found.entry(key).or_default().entry(chain).or_default().0 += 1;
                    false
                }
                // What is left of the table is of nft.
                _ => true,
            }
        });
    }
    for (key, chains) in listed {
        let (family, table) = key;
        let there = found.remove(key).unwrap_or_default();
        // Chains without rules that accept are listed by iptables-nft whether they are there or not.
        let same = chains.iter().all(|(name, of)| there.get(name).unwrap_or(&(0, false)) == of)
            && there.keys().all(|name| chains.contains_key(name));
        if !same {
            let place = format!("{source} {} {table}", family.as_str());
            let what = "it is not what iptables-nft-save lists: take both at the same time";
            machine.not_understood.push(NotUnderstood::new(place, what));
        }
    }
}
