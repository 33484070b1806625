//! Pods, namespaces, nodes and workloads, and which of their fields matter.

use super::{MOST_DIAGNOSTICS, Object, ObjectReader, Owner};
use crate::decode::decode;
use crate::diagnostic::{Diagnostic, Severity};
use crate::recover::{self, Finding};
use crate::tree::{Node, Segment};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::de::DeserializeOwned;
use std::borrow::Cow;

impl ObjectReader {
    pub(super) fn pod(&mut self, node: &Node<'_>) {
        let Some(pod) = self.decode::<api::Pod>(node, "Pod") else { return };
        let (converted, diagnostics) = self.converter.pod(&pod);
        self.keep(node, diagnostics);
        if let Some(converted) = converted {
            let owner = controller(&pod.metadata);
            self.add(node, Object::Pod { pod: Box::new(converted), owner });
        }
    }

    pub(super) fn namespace(&mut self, node: &Node<'_>) {
        let mut tree = Cow::Borrowed(node);
        let annotations = self.annotations(&mut tree);
        let Some(namespace) = self.decode::<api::Namespace>(&tree, "Namespace") else { return };
        let (converted, diagnostics) = self.converter.namespace(&namespace);
        self.keep(node, diagnostics);
        if let Some(converted) = converted {
            self.add(node, Object::Namespace(converted, annotations));
        }
    }

    pub(super) fn node(&mut self, node: &Node<'_>) {
        let Some(object) = self.decode::<api::Node>(node, "Node") else { return };
        let (converted, diagnostics) = self.converter.node(&object);
        self.keep(node, diagnostics);
        if let Some(converted) = converted {
            self.add(node, Object::Node(converted));
        }
    }

    pub(super) fn workload<T: DeserializeOwned>(
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
        let mut repairs_left = None;
        loop {
            match decode::<T>(&tree) {
                Ok((decoded, issues)) => {
                    for issue in issues.into_iter().take(MOST_DIAGNOSTICS) {
                        self.issue(issue, Severity::Warning, &object);
                    }
                    return Some(decoded);
                }
                Err(error) => {
                    let (finding, path) = Finding::new(error, node.span);
                    let left = repairs_left.get_or_insert_with(|| recover::repairs_for(node));
                    if *left == 0 || matters(&path) || !leave_out(tree.to_mut(), &path) {
                        self.finding(finding, Severity::Error, "VAL-28", &object);
                        return None;
                    }
                    *left -= 1;
                    self.finding(finding, Severity::Warning, "VAL-28", &object);
                }
            }
        }
    }
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

fn controller(metadata: &ObjectMeta) -> Option<Owner> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    let is_controller = |owner: &&OwnerReference| owner.controller == Some(true);
    let owner = owners.iter().find(is_controller)?;
    Some(Owner { kind: owner.kind.clone(), name: owner.name.clone() })
}
