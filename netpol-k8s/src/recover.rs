//! A policy out of a tree, whatever is wrong with it.
//!
//! A part that cannot be decoded, or that has a key nobody knows, is replaced by one that matches nothing, and decoding goes
//! on: so all defects are found, and none hides or opens anything (NP-97). A key that nobody knows is an error here: a server
//! in strict mode refuses it, one in another mode would drop it and so make `podSelecter` select every pod.
//!
//! | where | what takes its place |
//! |---|---|
//! | in a peer | a peer without fields |
//! | in a port entry | port 0 |
//! | in a rule | a rule whose only peer has no fields |
//! | a whole list of rules | one such rule |
//! | in the subject selector, or a key beside it while there is none | a selector that cannot be read: the namespace is isolated |
//! | in the policy types, or a key beside them while there are none | both directions |
//! | the whole spec, or a key beside it while there is none | all of the last three |
//! | a name that is no text | the text of the number or boolean |
//!
//! That is the table of `NetworkPolicy` in `networking.k8s.io/v1` and in `extensions/v1beta1`, which have the same fields. The alpha
//! of 2016 has fewer, and each of its parts has the same kind of replacement ([`Repair`]).

use crate::api::{alpha, v1beta1};
use crate::decode::{DecodeError, Issue, decode};
use crate::tree::{Entry, Node, PathDisplay, Plain, Segment, Span, Value};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeSet;

/// So many parts of one object are replaced before the rest is given up, and so much work is done for it: each
/// replacement means to decode all of the object again.
const MOST_REPAIRS: usize = 1000;
const MOST_WORK: usize = 2_000_000;

/// A defect that decoding found.
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Finding {
    pub(crate) fn new(error: DecodeError, fallback: Span) -> (Self, Vec<Segment>) {
        let (message, hint, path, span) = error.into_parts();
        let finding = Self {
            path: PathDisplay(&path).to_string(),
            span: span.unwrap_or(fallback),
            message,
            hint,
        };
        (finding, path)
    }
}

/// How the broken parts of a kind of policy are replaced.
pub(crate) trait Repair: DeserializeOwned + Default {
    /// What takes the place of the smallest part around a path into the spec, and how many steps of the path lead to that
    /// part. None if it is the spec itself that has a key nobody knows.
    fn replacement(path: &[Segment]) -> Option<(usize, Value<'static>)>;

    /// The keys of the spec that close the policy where they are missing: a key that nobody knows may have been meant for
    /// one of them. As a whole spec they allow nothing to anybody.
    fn closing() -> Vec<(&'static str, Value<'static>)>;
}

impl Repair for NetworkPolicy {
    fn replacement(path: &[Segment]) -> Option<(usize, Value<'static>)> {
        let field = |at: usize| path.get(at).and_then(Segment::field);
        Some(match (field(1), field(3)) {
            (Some("podSelector"), _) => (2, unreadable_selector()),
            (Some("policyTypes"), _) => (2, both_directions()),
            (Some("ingress" | "egress"), Some("ports")) if path.len() > 4 => (5, dead_port()),
            (Some("ingress"), Some("from")) if path.len() > 4 => (5, object(vec![])),
            (Some("egress"), Some("to")) if path.len() > 4 => (5, object(vec![])),
            (Some(direction @ ("ingress" | "egress")), _) if path.len() > 2 => {
                (3, dead_rule(direction))
            }
            (Some(direction @ ("ingress" | "egress")), _) => {
                (2, Value::Sequence(vec![Node::new(dead_rule(direction), Span::default())]))
            }
            _ => return None,
        })
    }

    fn closing() -> Vec<(&'static str, Value<'static>)> {
        vec![("podSelector", unreadable_selector()), ("policyTypes", both_directions())]
    }
}

impl Repair for v1beta1::NetworkPolicy {
    fn replacement(path: &[Segment]) -> Option<(usize, Value<'static>)> {
        NetworkPolicy::replacement(path)
    }

    fn closing() -> Vec<(&'static str, Value<'static>)> {
        NetworkPolicy::closing()
    }
}

impl Repair for alpha::NetworkPolicy {
    fn replacement(path: &[Segment]) -> Option<(usize, Value<'static>)> {
        let field = |at: usize| path.get(at).and_then(Segment::field);
        Some(match (field(1), field(2)) {
            (Some("podSelector"), _) => (2, unreadable_labels()),
            (Some("allowIncoming"), Some("from")) if path.len() > 3 => (4, object(vec![])),
            (Some("allowIncoming"), Some("toPorts")) if path.len() > 3 => (4, dead_port()),
            (Some("allowIncoming"), _) => (2, object(vec![("from", list(vec![]))])),
            _ => return None,
        })
    }

    fn closing() -> Vec<(&'static str, Value<'static>)> {
        vec![("podSelector", unreadable_labels())]
    }
}

/// What could be decoded of a policy.
#[derive(Default)]
pub(crate) struct Recovered<P> {
    pub(crate) policy: P,
    pub(crate) findings: Vec<Finding>,
    pub(crate) issues: Vec<Issue>,
    replaced: BTreeSet<String>,
    closed: bool,
}

/// Decodes a policy and replaces what is broken.
pub(crate) fn policy<P: Repair>(node: &Node<'_>) -> Recovered<P> {
    let mut tree = Cow::Borrowed(node);
    let mut recovered = Recovered::default();
    // Most policies need no repair, and so no budget for one.
    let most_repairs = OnceCell::new();
    let most_repairs = || *most_repairs.get_or_init(|| repairs_for(node));
    loop {
        match decode::<P>(&tree) {
            Ok((policy, issues)) => {
                recovered.policy = policy;
                // Keys that nobody knows are found once; what is decoded after their repair is the result.
                let first = recovered.issues.is_empty();
                if first {
                    recovered.issues = issues;
                }
                if !first || !recovered.issues.iter().any(is_unknown) {
                    return recovered;
                }
                if !recovered.close_around_unknown(tree.to_mut(), most_repairs()) {
                    break;
                }
            }
            Err(error) => {
                let (finding, path) = Finding::new(error, node.span);
                recovered.findings.push(finding);
                let enough = recovered.findings.len() >= most_repairs();
                if enough || !recovered.repair(tree.to_mut(), &path) {
                    break;
                }
            }
        }
    }
    recovered.give_up(node);
    recovered
}

/// How often an object may be decoded again.
pub(crate) fn repairs_for(node: &Node<'_>) -> usize {
    (MOST_WORK / size(node).max(1)).clamp(3, MOST_REPAIRS)
}

/// Recursion is safe: no tree is deeper than `MAX_DEPTH`.
fn size(node: &Node<'_>) -> usize {
    1 + match &node.value {
        Value::Sequence(items) => items.iter().map(size).sum(),
        Value::Mapping(entries) => entries.iter().map(|entry| size(&entry.value)).sum(),
        _ => 0,
    }
}

fn is_unknown(issue: &Issue) -> bool {
    matches!(issue, Issue::Unknown { .. })
}

impl<P: Repair> Recovered<P> {
    /// Was the field, or something around it, replaced? What validation says of it then means nothing.
    pub(crate) fn is_replaced(&self, field: &str) -> bool {
        let ends = field.match_indices(['.', '[']).map(|(at, _)| at).chain([field.len()]);
        ends.filter_map(|end| field.get(..end)).any(|part| self.replaced.contains(part))
    }

    /// Replaces the parts that have keys nobody knows. False if they are too many.
    fn close_around_unknown(&mut self, tree: &mut Node<'_>, most: usize) -> bool {
        let issues = std::mem::take(&mut self.issues);
        for issue in &issues {
            let Issue::Unknown { path, .. } = issue else { continue };
            match path.first().and_then(Segment::field) {
                Some("spec") => {
                    self.repair(tree, path);
                }
                Some("metadata") | None => {}
                // It may have been meant for the spec.
                Some(_) if self.closed || tree.field("spec").is_some() => self.closed = true,
                Some(_) => {
                    set(tree, "spec", object(P::closing()));
                    self.replaced.insert("spec".to_owned());
                }
            }
        }
        self.issues = issues;
        self.replaced.len() <= most
    }

    /// Replaces the smallest part around `path` that can be made to match nothing. False if there is none.
    fn repair(&mut self, tree: &mut Node<'_>, path: &[Segment]) -> bool {
        let field = |at: usize| path.get(at).and_then(Segment::field);
        let (length, replacement) = match (field(0), field(1)) {
            (Some("spec"), None) => (1, object(P::closing())),
            (Some("spec"), Some(_)) => match P::replacement(path) {
                Some(replacement) => replacement,
                None => return self.close(tree),
            },
            (Some("metadata"), Some("name" | "namespace" | "generateName")) => {
                return as_text(tree, path);
            }
            (Some("metadata"), Some(_)) => return remove(tree, path, 2),
            (Some(_), _) => return remove(tree, path, 1),
            (None, _) => return false,
        };
        let part = path.get(..length).unwrap_or_default();
        let name = PathDisplay(part).to_string();
        if self.replaced.contains(&name) {
            return true;
        }
        let Some(node) = tree.find_mut(part) else { return false };
        node.value = replacement;
        self.replaced.insert(name);
        true
    }

    /// A key of the spec that nobody knows may have been meant for one that is missing.
    fn close(&mut self, tree: &mut Node<'_>) -> bool {
        if self.closed {
            return true;
        }
        self.closed = true;
        let Some(spec) = tree.find_mut(&[Segment::Field("spec".to_owned())]) else { return false };
        let span = spec.span;
        for (key, replacement) in P::closing() {
            if spec.field(key).is_none()
                && let Value::Mapping(entries) = &mut spec.value
            {
                entries.push(entry(key, replacement, span));
                self.replaced.insert(format!("spec.{key}"));
            }
        }
        true
    }

    /// All that is left is whose namespace it is.
    fn give_up(&mut self, node: &Node<'_>) {
        self.findings.push(Finding {
            path: "spec".to_owned(),
            span: node.locate("spec", None),
            message: "too much of this object is broken to go on".to_owned(),
            hint: None,
        });
        self.replaced.insert("spec".to_owned());
        let metadata = node.field("metadata");
        let known = |key: &'static str| {
            let value = match &metadata?.field(key)?.value {
                Value::String(text) | Value::Plain(_, text) => Value::String(text.clone()),
                _ => return None,
            };
            Some((key, value))
        };
        let metadata =
            ["name", "namespace", "generateName"].into_iter().filter_map(known).collect();
        let fields = vec![("metadata", object(metadata)), ("spec", object(P::closing()))];
        if let Ok((policy, _)) = decode(&Node::new(object(fields), node.span)) {
            self.policy = policy;
        }
    }
}

/// A number or a boolean where a name belongs was most likely meant as one; anything else is none.
pub(crate) fn as_text(tree: &mut Node<'_>, path: &[Segment]) -> bool {
    let Some(node) = tree.find_mut(path.get(..2).unwrap_or_default()) else { return false };
    node.value = match &node.value {
        Value::Plain(_, text) => Value::String(text.clone()),
        Value::Null | Value::String(_) => return false,
        _ => Value::Null,
    };
    true
}

pub(crate) fn set<'a>(tree: &mut Node<'a>, key: &'static str, value: Value<'a>) {
    tree.remove_field(key);
    let span = tree.span;
    if let Value::Mapping(entries) = &mut tree.value {
        entries.push(entry(key, value, span));
    }
}

/// Takes out the key that the first `length` steps of a path lead to.
pub(crate) fn remove(tree: &mut Node<'_>, path: &[Segment], length: usize) -> bool {
    let Some((Segment::Field(key), parent)) = path.get(..length).and_then(<[Segment]>::split_last)
    else {
        return false;
    };
    let Some(parent) = tree.find_mut(parent) else { return false };
    let known = parent.field(key).is_some();
    parent.remove_field(key);
    known
}

fn entry<'a>(key: &'static str, value: Value<'a>, span: Span) -> Entry<'a> {
    Entry { key: key.into(), key_span: span, value: Node::new(value, span), shadowed: false }
}

pub(crate) fn object<'a>(fields: Vec<(&'static str, Value<'a>)>) -> Value<'a> {
    let entry = |(key, value)| entry(key, value, Span::default());
    Value::Mapping(fields.into_iter().map(entry).collect())
}

pub(crate) fn list<'a>(items: Vec<Value<'a>>) -> Value<'a> {
    Value::Sequence(items.into_iter().map(|item| Node::new(item, Span::default())).collect())
}

/// A rule that matches nothing: its only peer has no field (NP-98).
fn dead_rule<'a>(direction: &str) -> Value<'a> {
    let peers = if direction == "ingress" { "from" } else { "to" };
    object(vec![(peers, list(vec![object(vec![])]))])
}

/// A selector that conversion cannot read, so that it isolates the namespace and allows nothing.
pub(crate) fn unreadable_selector<'a>() -> Value<'a> {
    object(vec![("matchExpressions", list(vec![object(vec![])]))])
}

fn both_directions<'a>() -> Value<'a> {
    list(["Ingress", "Egress"].map(|name| Value::String(name.into())).to_vec())
}

/// The same, where the selector is a plain map: no label has an empty key.
fn unreadable_labels<'a>() -> Value<'a> {
    object(vec![("", Value::String("".into()))])
}

fn dead_port<'a>() -> Value<'a> {
    object(vec![("port", Value::Plain(Plain::Int(0), "0".into()))])
}
