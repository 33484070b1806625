//! Rulesets of back ends as the kernel would list them, made without a kernel.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a listing that cannot be made ends the test"
)]

use netpol_core::{Cluster, NodeName, Scope, compile};
use netpol_nft::{NftOptions, layout, objects};
use serde_json::{Value, json};

/// What `nft -j list ruleset` would list of netpol-nft's rules for a node, or for all pods.
///
/// # Panics
///
/// If the cluster cannot be compiled, or netpol-nft's objects are not what they are documented to be.
#[must_use]
pub fn nft_listing(cluster: &Cluster, node: Option<&NodeName>, options: &NftOptions) -> Value {
    let scope = node.map_or(Scope::Cluster, Scope::Node);
    let ruleset = compile(cluster, scope).expect("ids do not collide");
    let loaded = objects(&layout(&ruleset, options).model);
    let loaded = serde_json::to_value(loaded).expect("objects are JSON");
    let commands = loaded["nftables"].as_array().expect("a list of commands");
    // As nft lists it: elements are in their sets, rules have handles.
    let mut listed: Vec<Value> = Vec::new();
    for object in commands.iter().filter_map(|command| command.get("add")).cloned() {
        let Some(element) = object.get("element") else {
            listed.push(object);
            continue;
        };
        let is_set = |other: &Value| {
            ["set", "map"]
                .iter()
                .filter_map(|kind| other.get(kind))
                .any(|set| ["family", "table", "name"].iter().all(|key| set[key] == element[key]))
        };
        let set = listed.iter_mut().find(|other| is_set(other)).expect("sets come before elements");
        let set = set.as_object_mut().and_then(|o| o.values_mut().next()).expect("an object");
        let more = element["elem"].as_array().expect("a list of elements").clone();
        match set.get_mut("elem").and_then(Value::as_array_mut) {
            Some(elements) => elements.extend(more),
            None => set["elem"] = more.into(),
        }
    }
    for (handle, object) in (1..).zip(&mut listed) {
        if let Some(rule) = object.get_mut("rule") {
            rule["handle"] = json!(handle);
        }
    }
    json!({ "nftables": listed })
}
