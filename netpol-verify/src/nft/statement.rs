//! The statements of rules.

use super::elements::ranges;
use super::expression::Left;
use super::{NamedSet, Reader};
use crate::machine::{
    Condition, ElementMap, Field, NotUnderstood, Range, Step, TableFamily, Verdict,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Reader<'_> {
    /// Adds the steps of a statement.
    pub(super) fn statement(
        &mut self,
        family: TableFamily,
        table: &str,
        place: &str,
        statement: &Value,
        steps: &mut Vec<Step>,
    ) {
        let unknown = || NotUnderstood::new(place, statement.to_string());
        let single = statement.as_object().filter(|object| object.len() == 1);
        let Some((word, inner)) = single.and_then(|object| object.iter().next()) else {
            steps.push(Step::Opaque(unknown()));
            return;
        };
        match word.as_str() {
            "match" => match self.condition(family, table, inner) {
                Some(more) => steps.extend(more),
                None => steps.push(Step::UnknownMatch(self.why(family, table, inner, unknown()))),
            },
            "vmap" => match self.dispatch(family, table, inner) {
                Some(more) => steps.extend(more),
                None => steps.push(Step::Opaque(unknown())),
            },
            "accept" | "drop" | "return" | "continue" | "jump" | "goto" => {
                steps.push(match self.verdict(family, table, statement) {
                    Some(verdict) => Step::Verdict(verdict),
                    None => Step::Opaque(unknown()),
                });
            }
            "reject" => {
                // nft leaves the condition out that the kind of the answer implies: `meta nfproto ipv4 reject` is listed
                // as `reject with icmp port-unreachable`.
                match inner.get("type").and_then(Value::as_str) {
                    Some("icmp") => of_version(family, 4, steps),
                    Some("icmpv6") => of_version(family, 6, steps),
                    Some("tcp reset") if !steps.iter().any(is_of_protocol) => {
                        steps.push(Step::UnknownMatch(unknown()));
                    }
                    _ => {}
                }
                steps.push(Step::Verdict(Verdict::Drop));
            }
            // The packet goes on under other addresses; the theorem is about the ones that policy sees.
            "dnat" | "snat" | "masquerade" | "redirect" => {
                match inner.get("family").and_then(Value::as_str) {
                    Some("ip") => of_version(family, 4, steps),
                    Some("ip6") => of_version(family, 6, steps),
                    _ => {}
                }
                steps.push(Step::Verdict(Verdict::Accept));
            }
            "limit" => steps.push(Step::Free("limit".to_owned())),
            "quota" | "ct count" => steps.push(Step::Free(word.clone())),
            "counter" | "log" | "comment" | "last" | "notrack" | "set" | "dup" | "ct helper"
            | "ct timeout" | "ct expectation" | "secmark" => {}
            "flow" => {
                let what = "flows that a flowtable takes over do not meet the rules any more";
                self.machine.left_out.insert(what.to_owned());
            }
            "mangle" => mangle(inner, unknown, steps),
            "xt" if inner.get("type").and_then(Value::as_str) == Some("match") => {
                steps.push(Step::UnknownMatch(unknown()));
            }
            _ => steps.push(Step::Opaque(unknown())),
        }
    }

    /// Why a condition was not understood, where a set is the reason.
    fn why(
        &self,
        family: TableFamily,
        table: &str,
        condition: &Value,
        otherwise: NotUnderstood,
    ) -> NotUnderstood {
        let name = condition.get("right").and_then(Value::as_str);
        let name = name.and_then(|text| text.strip_prefix('@'));
        let set = name.and_then(|name| self.sets.get(&(family, table.to_owned(), name.to_owned())));
        match set {
            Some(NamedSet::Unknown(why)) => NotUnderstood::new(otherwise.place, why.clone()),
            _ => otherwise,
        }
    }

    /// The ends of a map that is looked up by a number of the kernel's choice, as a service of kube-proxy chooses its endpoint:
    /// each may be taken, and one is if the map has them all. None if it is something else.
    pub(super) fn choice(
        &self,
        family: TableFamily,
        table: &str,
        statement: &Value,
    ) -> Option<Vec<Vec<Step>>> {
        let map = statement.as_object().filter(|object| object.len() == 1)?.get("vmap")?;
        let (word, key) = map.get("key")?.as_object()?.iter().next()?;
        if !matches!(word.as_str(), "numgen" | "jhash" | "symhash") {
            return None;
        }
        let entries = map.get("data")?.get("set")?.as_array()?;
        let mut numbers = BTreeSet::new();
        let mut verdicts = Vec::with_capacity(entries.len());
        for entry in entries {
            let [number, verdict] = entry.as_array()?.as_slice() else { return None };
            numbers.extend(number.as_u64());
            verdicts.push(self.verdict(family, table, verdict)?);
        }
        let number = |name: &str| key.get(name).and_then(Value::as_u64);
        let (count, offset) = (number("mod")?, number("offset").unwrap_or(0));
        let all = numbers.len() == usize::try_from(count).ok()?
            && numbers.iter().all(|n| (offset..offset.saturating_add(count)).contains(n));
        let last = verdicts.len().checked_sub(1)?;
        let choices = verdicts.into_iter().enumerate().map(|(at, verdict)| {
            let choice = (at < last || !all).then(|| Step::Free(format!("{word} mod {count}")));
            choice.into_iter().chain([Step::Verdict(verdict)]).collect()
        });
        Some(choices.collect())
    }

    fn dispatch(&self, family: TableFamily, table: &str, value: &Value) -> Option<Vec<Step>> {
        let left = Left::parse(value.get("key")?, family)?;
        let data = value.get("data")?;
        let map = if let Some(name) = data.as_str() {
            let name = name.strip_prefix('@')?.to_owned();
            match self.sets.get(&(family, table.to_owned(), name))? {
                NamedSet::VerdictMap { kinds, map } if *kinds == left.kinds => Arc::clone(map),
                _ => return None,
            }
        } else {
            let entries = data.get("set")?.as_array()?.iter().map(|entry| {
                let [key, verdict] = entry.as_array()?.as_slice() else { return None };
                Some((ranges(key, &left.kinds)?, self.verdict(family, table, verdict)?))
            });
            let entries: Option<Vec<_>> = entries.collect();
            Arc::new(ElementMap::new(None, left.kinds.len(), entries?))
        };
        if left.is_masked() {
            return None;
        }
        let requires = left.requires.into_iter().map(Step::Match);
        Some(requires.chain([Step::Dispatch { key: left.fields, map }]).collect())
    }
}

/// A statement that sets a part of the packet, or of what the kernel knows of it.
fn mangle(inner: &Value, unknown: impl Fn() -> NotUnderstood, steps: &mut Vec<Step>) {
    let key = inner.get("key").and_then(Value::as_object).and_then(|key| key.iter().next());
    let (Some((what, of)), Some(value)) = (key, inner.get("value")) else {
        steps.push(Step::Opaque(unknown()));
        return;
    };
    let text = |name: &str| of.get(name).and_then(Value::as_str).unwrap_or_default();
    match (what.as_str(), text("key"), text("field")) {
        ("meta", "mark", _) => steps.push(match mark(value) {
            Some((and, xor)) => Step::Mark { and, xor },
            None => Step::UnknownMark(unknown()),
        }),
        ("meta", "priority" | "nftrace" | "secmark", _) => {}
        // Where it is read it is not understood.
        ("ct", ..) => {}
        ("tcp option", ..) => {}
        ("payload", _, "dscp" | "ecn" | "ttl" | "hoplimit" | "checksum" | "flowlabel") => {}
        _ => steps.push(Step::Opaque(unknown())),
    }
}

/// A value as `(mark & and) ^ xor`.
fn mark(value: &Value) -> Option<(u32, u32)> {
    if let Some(number) = value.as_u64() {
        return Some((0, u32::try_from(number).ok()?));
    }
    let (word, inner) = value.as_object().filter(|object| object.len() == 1)?.iter().next()?;
    if word == "meta" {
        return (inner.get("key")?.as_str()? == "mark").then_some((u32::MAX, 0));
    }
    let [left, right] = inner.as_array()?.as_slice() else { return None };
    let (and, xor) = mark(left)?;
    let bits = u32::try_from(right.as_u64()?).ok()?;
    match word.as_str() {
        "&" => Some((and & bits, xor & bits)),
        "|" => Some((and & !bits, xor & !bits ^ bits)),
        "^" => Some((and, xor ^ bits)),
        _ => None,
    }
}

/// The condition that a packet is of an IP version, where a table sees both.
fn of_version(family: TableFamily, version: u8, steps: &mut Vec<Step>) {
    if !matches!(family, TableFamily::Ip | TableFamily::Ip6) {
        steps.push(Step::Match(Condition::within(Field::Version, Range::one(version))));
    }
}

fn is_of_protocol(step: &Step) -> bool {
    matches!(step, Step::Match(condition) if condition.key.contains(&Field::Protocol))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn marks_are_linear() {
        let old = json!({"meta": {"key": "mark"}});
        for (value, from, to) in [
            (json!(7), 1, 7),
            (json!({"|": [old, 0x10]}), 0x11, 0x11),
            (json!({"|": [old, 0x10]}), 1, 0x11),
            (json!({"&": [old, 0xf0]}), 0x1f, 0x10),
            (json!({"^": [{"&": [old, 0xff]}, 0x20]}), 0x121, 0x01),
            (json!({"|": [{"^": [old, 3]}, 1]}), 1, 3),
        ] {
            let (and, xor) = mark(&value).unwrap();
            assert_eq!((from & and) ^ xor, to, "{value}");
        }
        assert_eq!(mark(&json!({"ct": {"key": "mark"}})), None);
    }

    /// A service of kube-proxy chooses its endpoint so.
    #[test]
    fn what_the_kernel_chooses_may_be_each() {
        let texts = |key: &str, entries: &str, rest: &str| {
            let chain = |name: &str| {
                format!(r#"{{"chain": {{"family": "ip", "table": "t", "name": "{name}"}}}}"#)
            };
            let port = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 80}}"#;
            let rule = format!(
                r#"{{"nftables": [{{"table": {{"family": "ip", "name": "t"}}}}, {}, {}, {}, {{"rule": {{"family": "ip", "table": "t", "chain": "c",
                "handle": 7, "expr": [{port}, {{"vmap": {{"key": {key}, "data": {{"set": [{entries}]}}}}}}{rest}]}}}}]}}"#,
                chain("c"),
                chain("a"),
                chain("b")
            );
            let mut machine = crate::machine::Machine::new();
            crate::nft::read(&mut machine, "listing", &rule).unwrap();
            let rules = machine.chains[0].rules.iter();
            rules
                .map(|rule| format!("{}: {}", rule.place, machine.rule_text(0, rule)))
                .collect::<Vec<_>>()
        };
        let key = r#"{"numgen": {"mode": "random", "mod": 2, "offset": 0}}"#;
        let both = r#"[0, {"goto": {"target": "a"}}], [1, {"goto": {"target": "b"}}]"#;
        let when = "handle 7: l4proto tcp dport 80";
        let [maybe_a, maybe_b, b] = ["numgen mod 2 goto a", "numgen mod 2 goto b", "goto b"]
            .map(|end| format!("{when} {end}"));
        assert_eq!(texts(key, both, ""), [maybe_a.clone(), b]);
        // One number leads nowhere: on to what follows.
        let third = key.replace("\"mod\": 2", "\"mod\": 3");
        let [maybe_a3, maybe_b3] = [&maybe_a, &maybe_b].map(|text| text.replace("mod 2", "mod 3"));
        assert_eq!(texts(&third, both, ""), [maybe_a3.clone(), maybe_b3.clone()]);
        assert_eq!(
            texts(&third, both, r#", {"drop": null}"#),
            [maybe_a3, maybe_b3, format!("{when} drop")]
        );
        // Out of reach.
        let moved = key.replace("\"offset\": 0", "\"offset\": 1");
        assert_eq!(texts(&moved, both, ""), [maybe_a, maybe_b]);
        let hashed = r#"{"jhash": {"mod": 2, "offset": 0, "expr": {"payload": {"protocol": "ip", "field": "saddr"}}}}"#;
        assert_eq!(texts(hashed, both, "").len(), 2);
        // A chain that is not there, and a key that is nothing of the kind.
        let nowhere = r#"[0, {"goto": {"target": "z"}}]"#;
        assert!(texts(key, nowhere, "")[0].contains('<'));
        assert!(texts(r#"{"meta": {"key": "cpu"}}"#, both, "")[0].contains('<'));
    }

    #[test]
    fn answers_imply_what_nft_leaves_out() {
        let text = |family: &str, statement: &str| {
            let rule = format!(
                r#"{{"nftables": [{{"table": {{"family": "{family}", "name": "t"}}}}, {{"chain": {{"family": "{family}", "table": "t", "name": "c"}}}},
                {{"rule": {{"family": "{family}", "table": "t", "chain": "c", "expr": [{statement}]}}}}]}}"#
            );
            let mut machine = crate::machine::Machine::new();
            crate::nft::read(&mut machine, "listing", &rule).unwrap();
            machine.rule_text(0, &machine.chains[0].rules[0])
        };
        let icmp = r#"{"reject": {"type": "icmp", "expr": "port-unreachable"}}"#;
        let icmpv6 = r#"{"reject": {"type": "icmpv6", "expr": "no-route"}}"#;
        let tcp =
            r#"{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}"#;
        let reset = r#"{"reject": {"type": "tcp reset"}}"#;
        for (family, statement, expected) in [
            ("inet", icmp.to_owned(), "nfproto 4 drop"),
            ("inet", icmpv6.to_owned(), "nfproto 6 drop"),
            ("ip", icmp.to_owned(), "drop"),
            (
                "inet",
                r#"{"reject": {"type": "icmpx", "expr": "port-unreachable"}}"#.to_owned(),
                "drop",
            ),
            ("inet", format!("{tcp}, {reset}"), "l4proto tcp drop"),
            (
                "inet",
                r#"{"dnat": {"family": "ip", "addr": "10.0.0.1"}}"#.to_owned(),
                "nfproto 4 accept",
            ),
        ] {
            assert_eq!(text(family, &statement), expected, "{statement}");
        }
        // Where nothing says that it is for TCP alone, that may be left out, too.
        assert!(text("inet", reset).starts_with('<'));
    }
}
