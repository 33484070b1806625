//! Documents into objects of the kinds that matter here, each by its `apiVersion` and `kind`.

use crate::convert::{Converter, defect_diagnostic};
use crate::decode::{Issue, decode};
use crate::diagnostic::{Diagnostic, Location, Severity, quoted};
use crate::recover::{self, Finding};
use crate::tree::{Node, PathDisplay, Segment, Span, Value};
use crate::validate::{CidrRules, validate};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use netpol_core::{
    Direction, Namespace, NamespaceName, Node as ClusterNode, Pod, Policy, SourcePosition,
};
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::sync::Arc;

/// So many fields of one object that nobody reads here may be of the wrong type.
const MOST_REPAIRS: usize = 100;

/// An object that was read.
pub(crate) enum Object {
    Pod {
        pod: Box<Pod>,
        owner: Option<Owner>,
    },
    Namespace(Namespace),
    Node(ClusterNode),
    Policy(Box<Policy>),
    /// With the pod that stands for its replicas.
    Workload {
        namespace: NamespaceName,
        name: Arc<str>,
        kind: &'static str,
        owner: Option<Owner>,
        pod: Box<Pod>,
    },
}

/// The controller of an object, in the object's namespace.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) kind: String,
    pub(crate) name: String,
}

/// What one part of a text held.
#[derive(Default)]
pub(crate) struct Found {
    /// With the place of each object's name.
    pub(crate) objects: Vec<(Object, Location)>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// The kinds that were left out, one entry an object.
    pub(crate) skipped: Vec<String>,
}

/// Reads the objects of one file.
pub(crate) struct ObjectReader {
    pub(crate) file: Arc<str>,
    pub(crate) converter: Converter,
    pub(crate) cidrs: CidrRules,
    pub(crate) found: Found,
}

impl ObjectReader {
    /// One document: an object, or a list of them.
    pub(crate) fn document(&mut self, node: &Node<'_>) {
        self.item(node, None, "");
    }

    fn item(&mut self, node: &Node<'_>, item_kind: Option<(&str, &str)>, list_path: &str) {
        if node.is_null() {
            return;
        }
        let text = |key| node.field(key).and_then(Node::as_str).filter(|text| !text.is_empty());
        let odd = |key| {
            let value = node.field(key).map(|node| &node.value);
            !matches!(value, None | Some(Value::String(_) | Value::Null))
        };
        let (version, kind) = match (text("apiVersion"), text("kind"), item_kind) {
            _ if odd("apiVersion") || odd("kind") => return self.unknown(node, list_path),
            (version, Some(kind), _) => (version.unwrap_or_default(), kind),
            (None, None, Some((version, kind))) => (version, kind),
            _ => return self.unknown(node, list_path),
        };
        let group = version.rsplit_once('/').map_or("", |(group, _)| group);
        if let Some(of) = kind.strip_suffix("List")
            && let Some(items) = node.field("items")
        {
            return self.list(items, (!of.is_empty()).then_some((version, of)), list_path);
        }
        match (group, version, kind) {
            ("networking.k8s.io", "networking.k8s.io/v1", "NetworkPolicy") => self.policy(node),
            ("", "", "NetworkPolicy") => {
                let message = "`apiVersion` is missing; read as `networking.k8s.io/v1`";
                self.report(Diagnostic::warning("VAL-27", message), node.span, "NetworkPolicy");
                self.policy(node);
            }
            ("", _, "Pod") => self.pod(node),
            ("", _, "Namespace") => self.namespace(node),
            ("", _, "Node") => self.node(node),
            ("", _, "ReplicationController") => {
                self.workload(node, "ReplicationController", |o: &api::ReplicationController| {
                    let template = o.spec.as_ref().and_then(|s| s.template.as_ref());
                    (&o.metadata, template)
                });
            }
            ("apps" | "extensions", _, "Deployment") => {
                self.workload(node, "Deployment", |o: &Deployment| {
                    (&o.metadata, o.spec.as_ref().map(|s| &s.template))
                });
            }
            ("apps" | "extensions", _, "StatefulSet") => {
                self.workload(node, "StatefulSet", |o: &StatefulSet| {
                    (&o.metadata, o.spec.as_ref().map(|s| &s.template))
                });
            }
            ("apps" | "extensions", _, "DaemonSet") => {
                self.workload(node, "DaemonSet", |o: &DaemonSet| {
                    (&o.metadata, o.spec.as_ref().map(|s| &s.template))
                });
            }
            ("apps" | "extensions", _, "ReplicaSet") => {
                self.workload(node, "ReplicaSet", |o: &ReplicaSet| {
                    (&o.metadata, o.spec.as_ref().and_then(|s| s.template.as_ref()))
                });
            }
            ("batch", _, "Job") => self.workload(node, "Job", |o: &Job| {
                (&o.metadata, o.spec.as_ref().map(|s| &s.template))
            }),
            ("batch", _, "CronJob") => self.workload(node, "CronJob", |o: &CronJob| {
                let template = some::<CronJobSpec>(&o.spec).map(|s| &s.job_template);
                (&o.metadata, template.and_then(|t| t.spec.as_ref()).map(|s| &s.template))
            }),
            _ => self.skip(node, version, kind),
        }
    }

    /// Something that does not say what it is.
    fn unknown(&mut self, node: &Node<'_>, list_path: &str) {
        if !matches!(node.value, Value::Mapping(_)) {
            let message = format!("expected an object, found {}", node.describe());
            let field = list_path.trim_end_matches('.');
            let defect = Diagnostic::error("VAL-28", message).in_field(field);
            return self.report(defect, node.span, "document");
        }
        for key in ["apiVersion", "kind"] {
            if let Some(entry) = node.entry(key)
                && !matches!(entry.value.value, Value::String(_) | Value::Null)
            {
                let message = format!("expected text, found {}", entry.value.describe());
                let defect = Diagnostic::error("VAL-28", message);
                return self.report(defect.in_field(key), entry.value.span, "document");
            }
        }
        // Values of a chart, a kustomization, settings of some program.
        self.found.skipped.push("object without kind".to_owned());
    }

    fn list(&mut self, items: &Node<'_>, item_kind: Option<(&str, &str)>, list_path: &str) {
        match &items.value {
            Value::Sequence(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.item(item, item_kind, &format!("{list_path}items[{i}]."));
                }
            }
            Value::Null => {}
            _ => {
                let message = format!("expected a list, found {}", items.describe());
                let defect = Diagnostic::unreadable("VAL-28", message);
                self.report(defect.in_field(format!("{list_path}items")), items.span, "List");
            }
        }
    }

    fn skip(&mut self, node: &Node<'_>, version: &str, kind: &str) {
        // A policy that is left out makes everything look more open than it is.
        if kind.to_ascii_lowercase().contains("networkpolicy") {
            let name = node.field("metadata").and_then(|m| m.field("name")).and_then(Node::as_str);
            let message = format!(
                "{} of {} is not taken into account",
                quoted(kind),
                if version.is_empty() { "no `apiVersion`".to_owned() } else { quoted(version) }
            );
            let defect = Diagnostic::warning("unsupported-policy", message)
                .with_hint("policies that are read: `NetworkPolicy` of `networking.k8s.io/v1`");
            let object = format!("{kind} {}", name.unwrap_or_default());
            self.report(defect, node.span, object.trim_end());
        }
        self.found.skipped.push(kind.to_owned());
    }

    fn policy(&mut self, node: &Node<'_>) {
        let recovered = recover::network_policy(node);
        let object = self.name_of(node, "NetworkPolicy");
        for finding in recovered.findings {
            let code = if finding.fatal { "VAL-01" } else { "VAL-28" };
            self.finding(finding, Severity::Error, code, &object);
        }
        for issue in recovered.issues {
            self.issue(issue, Severity::Error, &object);
        }
        let Some(policy) = recovered.policy else { return };
        for defect in validate(&policy, self.cidrs) {
            if recovered.replaced.iter().any(|part| is_within(defect.field(), part)) {
                continue;
            }
            let span = node.locate(defect.field(), defect.key());
            self.report(defect_diagnostic(&defect), span, &object);
        }
        let file = Arc::clone(&self.file);
        let position = |rule: Option<(Direction, usize)>| {
            let span = match rule {
                Some((direction, i)) => node.locate(&format!("spec.{direction}[{i}]"), None),
                None => node.locate("metadata.name", None),
            };
            Some(SourcePosition { file: Arc::clone(&file), line: span.line, column: span.column })
        };
        let converted = self.converter.policy(&policy, &position);
        self.add(node, Object::Policy(Box::new(converted)));
    }

    fn pod(&mut self, node: &Node<'_>) {
        let Some(pod) = self.decode::<api::Pod>(node, "Pod") else { return };
        let (converted, diagnostics) = self.converter.pod(&pod);
        self.keep(node, diagnostics);
        if let Some(converted) = converted {
            let owner = controller(&pod.metadata);
            self.add(node, Object::Pod { pod: Box::new(converted), owner });
        }
    }

    fn namespace(&mut self, node: &Node<'_>) {
        let Some(namespace) = self.decode::<api::Namespace>(node, "Namespace") else { return };
        let (converted, diagnostics) = self.converter.namespace(&namespace);
        self.keep(node, diagnostics);
        if let Some(converted) = converted {
            self.add(node, Object::Namespace(converted));
        }
    }

    fn node(&mut self, node: &Node<'_>) {
        let Some(object) = self.decode::<api::Node>(node, "Node") else { return };
        let (converted, diagnostics) = self.converter.node(&object);
        self.keep(node, diagnostics);
        if let Some(converted) = converted {
            self.add(node, Object::Node(converted));
        }
    }

    fn workload<T: DeserializeOwned>(
        &mut self,
        node: &Node<'_>,
        kind: &'static str,
        parts: impl Fn(&T) -> (&ObjectMeta, Option<&api::PodTemplateSpec>),
    ) {
        let Some(object) = self.decode::<T>(node, kind) else { return };
        let (metadata, template) = parts(&object);
        let (name, namespace) = self.converter.identity(metadata);
        let Some(name) = name else {
            let defect = Diagnostic::error("VAL-01", "needs a name").in_field("metadata.name");
            return self.report(defect, node.span, kind);
        };
        let empty = api::PodTemplateSpec::default();
        let template = template.unwrap_or(&empty);
        let pod = self.converter.template_pod(namespace.clone(), &name, kind, template);
        let owner = controller(metadata);
        self.add(node, Object::Workload { namespace, name, kind, owner, pod: Box::new(pod) });
    }

    /// Decodes an object that is no policy. A field of the wrong type is left out if nothing here reads it; otherwise the
    /// object is: no server holds it.
    fn decode<T: DeserializeOwned>(&mut self, node: &Node<'_>, kind: &str) -> Option<T> {
        let mut tree = Cow::Borrowed(node);
        let object = self.name_of(node, kind);
        for _ in 0..MOST_REPAIRS {
            match decode::<T>(&tree) {
                Ok((decoded, issues)) => {
                    for issue in issues {
                        self.issue(issue, Severity::Warning, &object);
                    }
                    return Some(decoded);
                }
                Err(error) => {
                    let (finding, path) = Finding::new(error, node.span);
                    if matters(&path) || !leave_out(tree.to_mut(), &path) {
                        self.finding(finding, Severity::Error, "VAL-28", &object);
                        return None;
                    }
                    self.finding(finding, Severity::Warning, "VAL-28", &object);
                }
            }
        }
        None
    }

    fn name_of(&self, node: &Node<'_>, kind: &str) -> String {
        let metadata = node.field("metadata");
        let text = |key| metadata.and_then(|m| m.field(key)).and_then(Node::as_str);
        let name = text("name").or_else(|| text("generateName")).filter(|name| !name.is_empty());
        let Some(name) = name else { return kind.to_owned() };
        if matches!(kind, "Namespace" | "Node") {
            return format!("{kind} {name}");
        }
        let namespace = text("namespace").filter(|namespace| !namespace.is_empty());
        format!("{kind} {}/{name}", namespace.unwrap_or_else(|| self.converter.default_namespace()))
    }

    fn add(&mut self, node: &Node<'_>, object: Object) {
        let location = self.location(node.locate("metadata.name", None));
        self.found.objects.push((object, location));
    }

    /// Diagnostics of a conversion, which does not know places.
    fn keep(&mut self, node: &Node<'_>, diagnostics: Vec<Diagnostic>) {
        for diagnostic in diagnostics {
            let span = node.locate(diagnostic.field().unwrap_or_default(), diagnostic.key());
            let location = self.location(span);
            self.found.diagnostics.push(diagnostic.at(location));
        }
    }

    fn finding(&mut self, finding: Finding, severity: Severity, code: &'static str, object: &str) {
        let hint = match severity {
            Severity::Error => finding.hint,
            Severity::Warning => {
                Some(finding.hint.unwrap_or_else(|| "policy does not depend on it".to_owned()))
            }
        };
        let diagnostic = Diagnostic::new(severity, code, finding.message);
        self.report(diagnostic.in_field(finding.path).with_hint_if(hint), finding.span, object);
    }

    fn issue(&mut self, issue: Issue, severity: Severity, object: &str) {
        match issue {
            Issue::Unknown { path, span, fields } => {
                let key = path.last().and_then(Segment::field).unwrap_or_default();
                // Old servers stored a status, which said nothing about traffic (NP-01).
                let status = path.len() == 1 && key == "status";
                let severity = if status { Severity::Warning } else { severity };
                let hint = similar(key, fields).map(|field| format!("did you mean `{field}`?"));
                let message = format!("there is no field {}", quoted(key));
                let diagnostic = Diagnostic::new(severity, "VAL-27", message);
                let diagnostic = diagnostic.in_field(PathDisplay(&path).to_string());
                self.report(diagnostic.with_hint_if(hint), span, object);
            }
            Issue::Duplicate { path, span } => {
                let key = path.last().and_then(Segment::field).unwrap_or_default();
                let message = format!("{} is written twice; the last one counts", quoted(key));
                let diagnostic = Diagnostic::new(severity, "VAL-27", message);
                self.report(diagnostic.in_field(PathDisplay(&path).to_string()), span, object);
            }
            // Only a policy's numbers are ports; a file mode may well be octal.
            Issue::LeadingZero { .. } if severity == Severity::Warning => {}
            Issue::LeadingZero { path, span, text, value } => {
                let message = format!("{} is read as {value} by Kubernetes", quoted(&text));
                let diagnostic = Diagnostic::warning("leading-zero", message)
                    .in_field(PathDisplay(&path).to_string())
                    .with_hint(format!("write `{value}`"));
                self.report(diagnostic, span, object);
            }
        }
    }

    fn report(&mut self, diagnostic: Diagnostic, span: Span, object: &str) {
        let location = self.location(span);
        self.found.diagnostics.push(diagnostic.at(location).about(object));
    }

    fn location(&self, span: Span) -> Location {
        Location {
            file: Arc::clone(&self.file),
            line: span.line,
            column: span.column,
            length: span.len.max(1),
        }
    }
}

/// Is `field` the part, or something in it?
fn is_within(field: &str, part: &str) -> bool {
    field.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Does anything here depend on the field?
fn matters(path: &[Segment]) -> bool {
    // The fields of a pod are the same wherever its template stands.
    let names: Vec<&str> = path.iter().filter_map(Segment::field).collect();
    let metadata = |rest: &[&str]| match rest {
        [] => true,
        [field, ..] => matches!(
            *field,
            "name" | "namespace" | "generateName" | "labels" | "ownerReferences" | "uid"
        ),
    };
    let pod = |rest: &[&str]| match rest {
        ["containers" | "initContainers", rest @ ..] => {
            matches!(rest, [] | ["ports", ..] | ["restartPolicy", ..])
        }
        [field, ..] => matches!(*field, "nodeName" | "hostNetwork"),
        [] => true,
    };
    match names.as_slice() {
        ["metadata", rest @ ..] => metadata(rest),
        ["status", field, ..] => matches!(*field, "phase" | "podIP" | "podIPs" | "addresses"),
        ["spec", rest @ ..] => {
            let rest = rest.strip_prefix(&["jobTemplate", "spec"]).unwrap_or(rest);
            match rest {
                ["template", "metadata", rest @ ..] => metadata(rest),
                ["template", "spec", rest @ ..] => pod(rest),
                ["template"] | ["jobTemplate"] => true,
                rest => pod(rest),
            }
        }
        ["status"] | [] => true,
        _ => false,
    }
}

/// Takes out the innermost key around the place.
fn leave_out(tree: &mut Node<'_>, path: &[Segment]) -> bool {
    let Some(at) = path.iter().rposition(|segment| segment.field().is_some()) else { return false };
    let (Some(Segment::Field(key)), Some(parent)) = (path.get(at), path.get(..at)) else {
        return false;
    };
    let Some(parent) = tree.find_mut(parent) else { return false };
    let known = parent.field(key).is_some();
    parent.remove_field(key);
    known
}

/// The field that a misspelt one was probably meant to be.
fn similar(key: &str, fields: &'static [&'static str]) -> Option<&'static str> {
    let lower = key.to_ascii_lowercase();
    fields
        .iter()
        .map(|field| (strsim::jaro_winkler(&lower, &field.to_ascii_lowercase()), *field))
        .filter(|(closeness, _)| *closeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
        .map(|(_, field)| field)
}

/// A field that is optional in some versions of `k8s-openapi` and not in others.
fn some<'a, T>(field: impl Into<Option<&'a T>>) -> Option<&'a T> {
    field.into()
}

fn controller(metadata: &ObjectMeta) -> Option<Owner> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    let is_controller = |owner: &&OwnerReference| owner.controller == Some(true);
    let owner = owners.iter().find(is_controller)?;
    Some(Owner { kind: owner.kind.clone(), name: owner.name.clone() })
}
