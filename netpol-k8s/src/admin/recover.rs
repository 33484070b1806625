//! What takes the place of a part that cannot be decoded, so that the rest can be (CNP-40).
//!
//! | where | what takes its place |
//! |---|---|
//! | in a peer, in an entry of the ports | one without fields, which nobody knows |
//! | `from`, `to`, the list of ports, or a key of a rule that nobody knows | an empty list, which nobody knows |
//! | a rule, or a list of rules | a rule that denies, with peers that nobody knows |
//! | in the subject | a subject without fields; in its pod selector, a selector that cannot be read |
//! | tier, action, priority, the spec | nothing: it is missing |

use crate::recover::{list, object, set, unreadable_selector};
use crate::tree::{Node, Plain, Segment, Value};
use std::collections::BTreeSet;

/// Removes what a server takes for absent, and makes whole numbers of numbers like `80.0` (CNP-22). The fields of labels that
/// were `null` are noted: without them a selector selects more than it seems to.
pub(super) fn normalize(
    node: &mut Node<'_>,
    path: &mut Vec<Segment>,
    labels: &mut Vec<Vec<Segment>>,
) {
    match &mut node.value {
        Value::Plain(plain, _) => {
            if let Plain::Float(number) = *plain
                && number.fract() == 0.0
                && number.abs() < 1e15
            {
                #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
                let whole = number as i64;
                *plain = Plain::Int(whole);
            }
        }
        Value::Sequence(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                path.push(Segment::Index(i));
                normalize(item, path, labels);
                path.pop();
            }
        }
        Value::Mapping(entries) => {
            let absent: BTreeSet<String> = entries
                .iter()
                .filter(|entry| !entry.shadowed && entry.value.is_null())
                .map(|entry| entry.key.to_string())
                .collect();
            if !absent.is_empty() {
                entries.retain(|entry| !absent.contains(&*entry.key));
                if path.last().and_then(Segment::field) == Some("matchLabels") {
                    labels.push(path.clone());
                }
            }
            for entry in entries {
                path.push(Segment::Field(entry.key.to_string()));
                normalize(&mut entry.value, path, labels);
                path.pop();
            }
        }
        Value::Null | Value::String(_) => {}
    }
}

/// Replaces the part around a place that cannot be decoded. True if it is a key of the spec that nobody knows.
pub(super) fn repair(tree: &mut Node<'_>, path: &[Segment], unknown: bool) -> bool {
    let field = |at: usize| path.get(at).and_then(Segment::field);
    let direction = matches!(field(1), Some("ingress" | "egress"));
    let side = if field(1) == Some("ingress") { "from" } else { "to" };
    let (length, replacement) = match (field(0), field(1), field(3)) {
        (Some("spec"), Some("subject"), Some("podSelector")) => (4, Some(unreadable_selector())),
        (Some("spec"), Some("subject"), _) => (2, Some(object(vec![]))),
        (Some("spec"), Some(_), Some("from" | "to" | "protocols" | "ports"))
            if direction && path.len() > 4 =>
        {
            (5, Some(object(vec![])))
        }
        (Some("spec"), Some(_), Some("from" | "to" | "protocols" | "ports"))
            if direction && !unknown =>
        {
            (4, Some(list(vec![])))
        }
        (Some("spec"), Some(_), Some("action" | "name")) if direction => (4, None),
        // A key of a rule that nobody knows: the rule may mean something else than its peers say.
        (Some("spec"), Some(_), Some(_)) if direction => {
            if let Some(rule) = path.get(..3).and_then(|path| tree.find_mut(path)) {
                rule.remove_field(field(3).unwrap_or_default());
                set(rule, side, list(vec![]));
            }
            return false;
        }
        (Some("spec"), Some(_), None) if direction && path.len() == 3 => {
            (3, Some(unreadable_rule(side)))
        }
        (Some("spec"), Some(_), None) if direction => (2, Some(list(vec![unreadable_rule(side)]))),
        (Some("spec"), Some("tier" | "priority"), _) => (2, None),
        (Some("spec"), Some(key), _) => {
            if let Some(spec) = path.get(..1).and_then(|path| tree.find_mut(path)) {
                spec.remove_field(key);
            }
            return true;
        }
        _ => (1, None),
    };
    let Some(part) = path.get(..length) else { return false };
    match replacement {
        Some(value) => {
            if let Some(node) = tree.find_mut(part) {
                node.value = value;
            }
        }
        None => {
            if let Some((Segment::Field(key), parent)) = part.split_last()
                && let Some(parent) = tree.find_mut(parent)
            {
                parent.remove_field(key);
            }
        }
    }
    false
}

fn unreadable_rule<'a>(side: &'static str) -> Value<'a> {
    object(vec![("action", Value::String("Deny".into())), (side, list(vec![]))])
}
