//! A NetworkPolicy out of a tree, whatever is wrong with it.
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
//! | the whole spec | all of the last three |

use crate::decode::{DecodeError, Issue, decode};
use crate::tree::{Entry, Node, PathDisplay, Plain, Segment, Span, Value};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use std::borrow::Cow;

/// So many parts of one object are replaced before it is given up.
const MOST_REPAIRS: usize = 1000;

/// A defect that decoding found.
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// Neither the name nor the namespace of the object can be known.
    pub(crate) fatal: bool,
}

impl Finding {
    pub(crate) fn new(error: DecodeError, fallback: Span) -> (Self, Vec<Segment>) {
        let (message, hint, path, span) = error.into_parts();
        let finding = Self {
            path: PathDisplay(&path).to_string(),
            span: span.unwrap_or(fallback),
            message,
            hint,
            fatal: false,
        };
        (finding, path)
    }
}

/// What could be decoded of a policy.
pub(crate) struct Recovered {
    /// None if it could not even be said where the policy belongs.
    pub(crate) policy: Option<NetworkPolicy>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) issues: Vec<Issue>,
    /// The parts that were replaced: what validation says of them means nothing.
    pub(crate) replaced: Vec<String>,
}

/// Decodes a policy and replaces what is broken.
pub(crate) fn network_policy(node: &Node<'_>) -> Recovered {
    let mut tree = Cow::Borrowed(node);
    let mut recovered =
        Recovered { policy: None, findings: Vec::new(), issues: Vec::new(), replaced: Vec::new() };
    for _ in 0..MOST_REPAIRS {
        match decode::<NetworkPolicy>(&tree) {
            Ok((policy, issues)) if recovered.issues.is_empty() => {
                let unknown: Vec<_> = issues.iter().filter_map(unknown_path).collect();
                recovered.issues = issues;
                if unknown.is_empty() {
                    recovered.policy = Some(policy);
                    return recovered;
                }
                for path in unknown {
                    recovered.repair(tree.to_mut(), &path);
                }
            }
            Ok((policy, _)) => {
                recovered.policy = Some(policy);
                return recovered;
            }
            Err(error) => {
                let (mut finding, path) = Finding::new(error, node.span);
                let repaired = recovered.repair(tree.to_mut(), &path);
                finding.fatal = !repaired;
                recovered.findings.push(finding);
                if !repaired {
                    return recovered;
                }
            }
        }
    }
    recovered
}

fn unknown_path(issue: &Issue) -> Option<Vec<Segment>> {
    match issue {
        Issue::Unknown { path, .. } => Some(path.clone()),
        Issue::Duplicate { .. } | Issue::LeadingZero { .. } => None,
    }
}

impl Recovered {
    /// Replaces the smallest part around `path` that can be made to match nothing. False if there is none.
    fn repair(&mut self, tree: &mut Node<'_>, path: &[Segment]) -> bool {
        let field = |at: usize| path.get(at).and_then(Segment::field);
        let (length, replacement) = match (field(0), field(1), field(3)) {
            (Some("spec"), Some("podSelector"), _) => (2, unreadable_selector()),
            (Some("spec"), Some("policyTypes"), _) => (2, both_directions()),
            (Some("spec"), Some("ingress" | "egress"), Some("ports")) if path.len() > 4 => {
                (5, object(vec![("port", Value::Plain(Plain::Int(0), "0".into()))]))
            }
            (Some("spec"), Some("ingress"), Some("from")) if path.len() > 4 => (5, object(vec![])),
            (Some("spec"), Some("egress"), Some("to")) if path.len() > 4 => (5, object(vec![])),
            (Some("spec"), Some(direction @ ("ingress" | "egress")), _) if path.len() > 2 => {
                (3, dead_rule(direction))
            }
            (Some("spec"), Some(direction @ ("ingress" | "egress")), _) => {
                (2, Value::Sequence(vec![Node::new(dead_rule(direction), Span::default())]))
            }
            (Some("spec"), Some(_), _) => return self.close(tree),
            (Some("spec"), None, _) => (1, isolated_namespace()),
            (Some("metadata"), Some(name), _)
                if !matches!(name, "name" | "namespace" | "generateName") =>
            {
                return remove(tree, path, 2);
            }
            (Some("metadata"), _, _) | (None, _, _) => return false,
            (Some(_), _, _) => return remove(tree, path, 1),
        };
        let part = path.get(..length).unwrap_or_default();
        let Some(node) = tree.find_mut(part) else { return false };
        node.value = replacement;
        self.replaced.push(PathDisplay(part).to_string());
        true
    }

    /// A key of the spec that nobody knows may have been meant for one that is missing.
    fn close(&mut self, tree: &mut Node<'_>) -> bool {
        let Some(spec) = tree.find_mut(&[Segment::Field("spec".to_owned())]) else { return false };
        let span = spec.span;
        for (key, replacement) in
            [("podSelector", unreadable_selector()), ("policyTypes", both_directions())]
        {
            if spec.field(key).is_none()
                && let Value::Mapping(entries) = &mut spec.value
            {
                entries.push(entry(key, replacement, span));
                self.replaced.push(format!("spec.{key}"));
            }
        }
        true
    }
}

/// Takes out the key that the first `length` steps of a path lead to.
fn remove(tree: &mut Node<'_>, path: &[Segment], length: usize) -> bool {
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

fn object<'a>(fields: Vec<(&'static str, Value<'a>)>) -> Value<'a> {
    let entry = |(key, value)| entry(key, value, Span::default());
    Value::Mapping(fields.into_iter().map(entry).collect())
}

fn list<'a>(items: Vec<Value<'a>>) -> Value<'a> {
    Value::Sequence(items.into_iter().map(|item| Node::new(item, Span::default())).collect())
}

/// A rule that matches nothing: its only peer has no field (NP-98).
fn dead_rule<'a>(direction: &str) -> Value<'a> {
    let peers = if direction == "ingress" { "from" } else { "to" };
    object(vec![(peers, list(vec![object(vec![])]))])
}

/// A selector that conversion cannot read, so that it isolates the namespace and allows nothing.
fn unreadable_selector<'a>() -> Value<'a> {
    object(vec![("matchExpressions", list(vec![object(vec![])]))])
}

fn both_directions<'a>() -> Value<'a> {
    list(["Ingress", "Egress"].map(|name| Value::String(name.into())).to_vec())
}

fn isolated_namespace<'a>() -> Value<'a> {
    object(vec![("podSelector", unreadable_selector()), ("policyTypes", both_directions())])
}
