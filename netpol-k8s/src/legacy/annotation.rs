//! The annotations of a namespace that isolate its pods.

use crate::api::v1beta1::{MISSPELT_ANNOTATIONS, Meaning};
use crate::decode::decode;
use crate::diagnostic::{Diagnostic, quoted};
use crate::legacy::Gate;
use crate::object::ObjectReader;
use crate::tree::{Node, Segment, Value};
use netpol_core::SourcePosition;
use std::borrow::Cow;
use std::sync::Arc;

/// What the value of an annotation says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "yes, no, or not understood, which is no")]
pub enum Isolation {
    /// All pods of the namespace deny what no policy allows.
    Isolated,
    /// Policies have no effect.
    NotIsolated,
    /// The value is none that was ever used: policies have no effect, and somebody should know.
    NotUnderstood,
}

/// Reads the alpha annotation of a namespace: `on`, `yes` and `true` isolate, in any case (LEG-03).
///
/// ```
/// use netpol_k8s::legacy::{Isolation, alpha_isolation};
/// assert_eq!(alpha_isolation(" On"), Isolation::Isolated);
/// assert_eq!(alpha_isolation("off"), Isolation::NotIsolated);
/// assert_eq!(alpha_isolation("enabled"), Isolation::NotUnderstood);
/// ```
#[must_use]
pub fn alpha_isolation(value: &str) -> Isolation {
    match value.trim().to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" => Isolation::Isolated,
        "off" | "no" | "false" => Isolation::NotIsolated,
        _ => Isolation::NotUnderstood,
    }
}

/// Reads the beta annotation of a namespace: only `DefaultDeny` isolates (LEG-20). Keys are read in any case, as the JSON
/// decoder of the servers did; the value is not.
///
/// ```
/// use netpol_k8s::legacy::{Isolation, beta_isolation};
/// assert_eq!(beta_isolation(r#"{"ingress": {"isolation": "DefaultDeny"}}"#), Isolation::Isolated);
/// assert_eq!(beta_isolation(r#"{"ingress": {}}"#), Isolation::NotIsolated);
/// assert_eq!(beta_isolation(r#"{"ingress": {"isolation": "Deny"}}"#), Isolation::NotUnderstood);
/// assert_eq!(beta_isolation("DefaultDeny"), Isolation::NotUnderstood);
/// ```
#[must_use]
pub fn beta_isolation(value: &str) -> Isolation {
    fn member<'v>(value: &'v serde_json::Value, key: &str) -> Option<&'v serde_json::Value> {
        let members = value.as_object()?;
        members.get(key).or_else(|| {
            members.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
        })
    }
    let Ok(value @ serde_json::Value::Object(_)) = serde_json::from_str(value) else {
        return Isolation::NotUnderstood;
    };
    let absent = |value: Option<&serde_json::Value>| value.is_none_or(serde_json::Value::is_null);
    let ingress = member(&value, "ingress");
    let isolation = ingress.and_then(|ingress| member(ingress, "isolation"));
    match isolation {
        Some(serde_json::Value::String(text)) if text == "DefaultDeny" => Isolation::Isolated,
        isolation if absent(ingress) => {
            // Nothing is said of ingress; that there is something else may be a slip.
            let empty = value.as_object().is_none_or(serde_json::Map::is_empty);
            if empty || ingress.is_some() && isolation.is_none() {
                Isolation::NotIsolated
            } else {
                Isolation::NotUnderstood
            }
        }
        isolation if absent(isolation) && ingress.is_some_and(serde_json::Value::is_object) => {
            Isolation::NotIsolated
        }
        _ => Isolation::NotUnderstood,
    }
}

/// How beta annotations and objects are read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BetaRules {
    pub(crate) meaning: Meaning,
    /// Are the misspelt keys of the annotation honored?
    pub(crate) misspelt: bool,
}

/// The isolating annotations of a namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Annotations {
    pub(crate) alpha: Option<Annotation>,
    pub(crate) beta: Option<Annotation>,
}

/// One annotation that was written.
#[derive(Clone, Debug)]
pub(crate) struct Annotation {
    pub(crate) key: String,
    pub(crate) isolates: bool,
    pub(crate) source: SourcePosition,
}

impl Annotations {
    pub(super) fn get(&self, gate: Gate) -> Option<&Annotation> {
        match gate {
            Gate::Alpha => self.alpha.as_ref(),
            Gate::Beta => self.beta.as_ref(),
        }
    }
}

impl ObjectReader {
    /// The isolating annotations of a namespace, and what is odd about them. Where one is no text, which is what YAML makes
    /// of a bare `on` and of JSON without quotation marks, it becomes that text in `tree`.
    pub(crate) fn annotations(&mut self, tree: &mut Cow<'_, Node<'_>>) -> Annotations {
        let object = self.name_of(tree, "Namespace");
        let mut found = Annotations::default();
        if self.has_annotation(tree, &object, Gate::Alpha.annotation()) {
            found.alpha = self.annotation(tree, &object, Gate::Alpha.annotation(), Gate::Alpha);
        }
        if self.has_annotation(tree, &object, Gate::Beta.annotation()) {
            found.beta = self.annotation(tree, &object, Gate::Beta.annotation(), Gate::Beta);
        }
        for key in MISSPELT_ANNOTATIONS {
            if !self.has_annotation(tree, &object, key) {
                continue;
            }
            let honored = self.beta.misspelt && found.beta.is_none();
            let message = format!("the annotation is called {}", quoted(Gate::Beta.annotation()));
            let message = match honored {
                true => format!("{message}; this one counts all the same"),
                false => format!("{message}; this one says nothing"),
            };
            let hint = match self.beta.meaning {
                Meaning::Before1_7 if !self.beta.misspelt => {
                    Some("`--misspelt-annotations` lets it count".to_owned())
                }
                _ => None,
            };
            self.annotation_warning(tree, &object, key, "LEG-20", message, hint);
            if honored {
                found.beta = self.annotation(tree, &object, key, Gate::Beta);
            }
        }
        found
    }

    /// Is the annotation there? If its value is no text, it is made one.
    fn has_annotation(&mut self, tree: &mut Cow<'_, Node<'_>>, object: &str, key: &str) -> bool {
        let annotations = tree.field("metadata").and_then(|m| m.field("annotations"));
        let Some(entry) = annotations.and_then(|annotations| annotations.entry(key)) else {
            return false;
        };
        let text = match &entry.value.value {
            Value::String(_) | Value::Null => return true,
            Value::Plain(_, text) => text.to_string(),
            Value::Sequence(_) | Value::Mapping(_) => decode::<serde_json::Value>(&entry.value)
                .map(|(value, _)| value.to_string())
                .unwrap_or_default(),
        };
        let code = if key == Gate::Alpha.annotation() { "LEG-03" } else { "LEG-20" };
        let message = format!("{} is no text, which an annotation must be", quoted(&text));
        let hint = Some(format!("put it in quotation marks: `'{text}'`"));
        self.annotation_warning(tree, object, key, code, message, hint);
        let path = ["metadata", "annotations", key].map(|key| Segment::Field(key.to_owned()));
        if let Some(node) = tree.to_mut().find_mut(&path) {
            node.value = Value::String(text.into());
        }
        true
    }

    fn annotation(
        &mut self,
        tree: &Node<'_>,
        object: &str,
        key: &str,
        gate: Gate,
    ) -> Option<Annotation> {
        let annotations = tree.field("metadata").and_then(|m| m.field("annotations"))?;
        let entry = annotations.entry(key)?;
        let value = entry.value.as_str().unwrap_or_default();
        let isolation = match gate {
            Gate::Alpha => alpha_isolation(value),
            Gate::Beta => beta_isolation(value),
        };
        let matters = gate == Gate::Alpha || self.beta.meaning == Meaning::Before1_7;
        if isolation == Isolation::NotUnderstood && matters {
            let message =
                format!("{} does not isolate the namespace: it is no known value", quoted(value));
            let hint = format!("to isolate it, write `{}`", gate.example());
            let code = if gate == Gate::Alpha { "LEG-03" } else { "LEG-20" };
            self.annotation_warning(tree, object, key, code, message, Some(hint));
        }
        let span = entry.key_span;
        Some(Annotation {
            key: key.to_owned(),
            isolates: isolation == Isolation::Isolated,
            source: SourcePosition {
                file: Arc::clone(&self.file),
                line: span.line,
                column: span.column,
            },
        })
    }

    fn annotation_warning(
        &mut self,
        tree: &Node<'_>,
        object: &str,
        key: &str,
        code: &'static str,
        message: String,
        hint: Option<String>,
    ) {
        let field = "metadata.annotations";
        let span = tree.locate(field, Some(key));
        let warning = Diagnostic::warning(code, message).in_field(field).with_hint_if(hint);
        self.report(warning, span, object);
    }
}
