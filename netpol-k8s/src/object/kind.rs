//! What a document is: a list, an object of a kind that is read, or one that is left out.

use super::{ObjectReader, some};
use crate::admin::Kind;
use crate::api::{alpha, v1beta1};
use crate::diagnostic::{Diagnostic, quoted};
use crate::legacy;
use crate::tree::{Node, Value};
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec, StatefulSet,
    StatefulSetSpec,
};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job, JobSpec};
use k8s_openapi::api::core::v1 as api;

impl ObjectReader {
    pub(super) fn item(
        &mut self,
        node: &Node<'_>,
        item_kind: Option<(&str, &str)>,
        list_path: &str,
    ) {
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
        if let Some(kind_meant) = admin_kind(group, kind) {
            return self.admin_policy(node, kind_meant, version, kind);
        }
        match (group, version, kind) {
            ("networking.k8s.io", "networking.k8s.io/v1", "NetworkPolicy") => {
                self.policy(node, true);
            }
            ("extensions", v1beta1::API_VERSION, "NetworkPolicy") => self.v1beta1_policy(node),
            ("net.alpha.kubernetes.io", alpha::API_VERSION, "NetworkPolicy") => {
                self.alpha_policy(node);
            }
            // As the examples of its time have it: the version was in the URL.
            ("", "", "NetworkPolicy") if legacy::looks_alpha(node) => {
                let message =
                    format!("`apiVersion` is missing; read as {}", quoted(alpha::API_VERSION));
                self.report(Diagnostic::warning("LEG-02", message), node.span, "NetworkPolicy");
                self.alpha_policy(node);
            }
            ("", "", "NetworkPolicy") => {
                let message = "`apiVersion` is missing; read as `networking.k8s.io/v1`";
                self.report(Diagnostic::warning("VAL-27", message), node.span, "NetworkPolicy");
                self.policy(node, true);
            }
            // A policy under a name that is not quite right must not be taken for nothing.
            ("networking.k8s.io" | "extensions" | "net.alpha.kubernetes.io" | "", ..)
                if is_nearly_policy(kind) =>
            {
                self.misnamed_policy(node, version, kind);
            }
            ("", _, "Pod") => self.pod(node),
            ("", _, "Namespace") => self.namespace(node),
            ("", _, "Node") => self.node(node),
            ("", _, "ReplicationController") => {
                self.workload(node, "ReplicationController", |o: &api::ReplicationController| {
                    let spec = some::<api::ReplicationControllerSpec>(&o.spec);
                    let template = spec.and_then(|s| some(&s.template));
                    (&o.metadata, template)
                });
            }
            ("apps" | "extensions", _, "Deployment") => {
                self.workload(node, "Deployment", |o: &Deployment| {
                    (&o.metadata, some::<DeploymentSpec>(&o.spec).map(|s| &s.template))
                });
            }
            ("apps" | "extensions", _, "StatefulSet") => {
                self.workload(node, "StatefulSet", |o: &StatefulSet| {
                    (&o.metadata, some::<StatefulSetSpec>(&o.spec).map(|s| &s.template))
                });
            }
            ("apps" | "extensions", _, "DaemonSet") => {
                self.workload(node, "DaemonSet", |o: &DaemonSet| {
                    (&o.metadata, some::<DaemonSetSpec>(&o.spec).map(|s| &s.template))
                });
            }
            ("apps" | "extensions", _, "ReplicaSet") => {
                self.workload(node, "ReplicaSet", |o: &ReplicaSet| {
                    let template = some::<ReplicaSetSpec>(&o.spec).and_then(|s| some(&s.template));
                    (&o.metadata, template)
                });
            }
            ("batch", _, "Job") => self.workload(node, "Job", |o: &Job| {
                (&o.metadata, some::<JobSpec>(&o.spec).map(|s| &s.template))
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
            let defect = Diagnostic::warning("unsupported-policy", message).with_hint(
                "policies that are read: `NetworkPolicy` of `networking.k8s.io` and of the APIs before it, and those of `policy.networking.k8s.io`",
            );
            let object = format!("{kind} {}", name.unwrap_or_default());
            self.report(defect, node.span, object.trim_end());
        }
        self.found.skipped.push(kind.to_owned());
    }
}

/// The kind of cluster-wide policy that is meant. A slip of the pen must not be taken for nothing.
fn admin_kind(group: &str, kind: &str) -> Option<Kind> {
    let named = Kind::ALL.into_iter().find(|known| known.name() == kind);
    match group {
        "" => named,
        crate::api::POLICY_GROUP => named.or_else(|| {
            let lower = kind.to_ascii_lowercase();
            let distance =
                |known: &Kind| strsim::osa_distance(&lower, &known.name().to_ascii_lowercase());
            let nearest = Kind::ALL.into_iter().filter(|_| kind.len() < 40).min_by_key(distance)?;
            (distance(&nearest) <= 3).then_some(nearest)
        }),
        _ => None,
    }
}

fn is_nearly_policy(kind: &str) -> bool {
    kind.starts_with(['N', 'n'])
        && kind.len() < 20
        && strsim::osa_distance(&kind.to_ascii_lowercase(), "networkpolicy") <= 3
}
