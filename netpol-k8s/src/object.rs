//! Documents into objects of the kinds that matter here, each by its `apiVersion` and `kind`.

use crate::admin::{self, Channel, Kind, Typed};
use crate::api::{alpha, v1beta1};
use crate::convert::{Converter, defect_diagnostic};
use crate::decode::{Issue, decode};
use crate::diagnostic::{Diagnostic, Location, Severity, quoted};
use crate::legacy::{self, LegacyPolicy};
use crate::lint;
use crate::recover::{self, Finding, Recovered, Repair};
use crate::tree::{Node, PathDisplay, Segment, Span, Value};
use crate::validate::{CidrRules, validate};
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec, StatefulSet,
    StatefulSetSpec,
};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job, JobSpec};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use netpol_core::{
    Direction, Namespace, NamespaceName, Node as ClusterNode, Pod, Policy, SourcePosition,
};
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::sync::Arc;

/// So many defects of each sort are listed for one object.
const MOST_DIAGNOSTICS: usize = 500;

/// An object that was read.
pub(crate) enum Object {
    Pod {
        pod: Box<Pod>,
        owner: Option<Owner>,
    },
    /// With those of its annotations that isolate its pods.
    Namespace(Namespace, legacy::Annotations),
    Node(ClusterNode),
    /// With what it says against itself, for the lints.
    Policy {
        policy: Box<Policy>,
        remarks: Vec<Diagnostic>,
    },
    /// A policy of an API that no server has any more.
    Legacy(Box<LegacyPolicy>),
    /// A cluster-wide policy: what it means, unless it is left out, and as it was written, unless it has an error.
    ClusterWide {
        name: String,
        policy: Option<Box<Policy>>,
        typed: Option<Box<Typed>>,
    },
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
    pub(crate) beta: legacy::BetaRules,
    pub(crate) channel: Channel,
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

    /// No server knows a policy by this kind and version. Whom it selects is isolated; what its rules mean is anybody's
    /// guess.
    fn misnamed_policy(&mut self, node: &Node<'_>, version: &str, kind: &str) {
        let object = self.name_of(node, "NetworkPolicy");
        if kind != "NetworkPolicy" {
            let message = format!("there is no kind {}", quoted(kind));
            let defect = Diagnostic::error("NP-01", message).in_field("kind");
            let defect = defect.with_hint("did you mean `NetworkPolicy`?");
            self.report(defect, node.locate("kind", None), &object);
        }
        if !["networking.k8s.io/v1", v1beta1::API_VERSION, alpha::API_VERSION].contains(&version) {
            let message = format!("there is no NetworkPolicy in {}", quoted(version));
            let defect = Diagnostic::error("NP-01", message).in_field("apiVersion");
            let defect = defect.with_hint("write `apiVersion: networking.k8s.io/v1`");
            self.report(defect, node.locate("apiVersion", None), &object);
        }
        self.policy(node, false);
    }

    /// A cluster-wide policy, by the kind that is meant.
    fn admin_policy(&mut self, node: &Node<'_>, kind: Kind, version: &str, written: &str) {
        let object = self.name_of(node, kind.name());
        if written != kind.name() {
            let message = format!("there is no kind {}", quoted(written));
            let defect = Diagnostic::error("CNP-43", message).in_field("kind");
            let defect = defect.with_hint(format!("did you mean `{}`?", kind.name()));
            self.report(defect, node.locate("kind", None), &object);
        }
        if version.is_empty() {
            let message = format!("`apiVersion` is missing; read as `{}`", kind.version());
            self.report(Diagnostic::warning("VAL-27", message), node.span, &object);
        } else if version != kind.version() {
            let message =
                format!("{} is not known here; read as `{}`", quoted(version), kind.version());
            let defect = Diagnostic::error("CNP-43", message).in_field("apiVersion");
            self.report(defect, node.locate("apiVersion", None), &object);
        }
        let file = Arc::clone(&self.file);
        let (policy, diagnostics) =
            admin::read(node, kind, self.channel, Some(&file), &mut self.converter);
        let wrong = |d: &Diagnostic| d.severity() == Severity::Error;
        let sound = version == kind.version() && !diagnostics.iter().any(wrong);
        let typed = if sound { admin::typed(node, kind).map(Box::new) } else { None };
        let all = diagnostics.len();
        let listed = diagnostics.into_iter().take(MOST_DIAGNOSTICS).map(|d| d.about(&object));
        self.found.diagnostics.extend(listed);
        if all > MOST_DIAGNOSTICS {
            let message = format!("has {all} defects; not all of them are listed");
            self.report(Diagnostic::error("VAL-28", message), node.span, &object);
        }
        let policy = policy.map(Box::new);
        self.add(node, Object::ClusterWide { name: object, policy, typed });
    }

    fn policy(&mut self, node: &Node<'_>, served: bool) {
        let mut recovered = recover::policy::<NetworkPolicy>(node);
        if !served {
            let spec = some::<NetworkPolicySpec>(&recovered.policy.spec).cloned();
            let both = ["Ingress", "Egress"].map(str::to_owned).to_vec();
            let closed = NetworkPolicySpec {
                ingress: None,
                egress: None,
                policy_types: Some(both),
                ..spec.unwrap_or_default()
            };
            recovered.policy.spec = Some(closed);
        }
        let object = self.name_of(node, "NetworkPolicy");
        let policy = std::mem::take(&mut recovered.policy);
        let converted = self.converter.policy(&policy, &self.positions(node));
        let defects = validate(&policy, self.cidrs).iter().map(defect_diagnostic).collect();
        self.report_policy(node, &object, recovered, defects);
        let remarks = self.remarks(node, &object, lint::policy_remarks(&policy));
        self.add(node, Object::Policy { policy: Box::new(converted), remarks });
    }

    /// Where a policy, or a rule of its lists `ingress` and `egress`, was written.
    pub(crate) fn positions<'n>(
        &self,
        node: &'n Node<'n>,
    ) -> impl Fn(Option<(Direction, usize)>) -> Option<SourcePosition> + use<'n> {
        let file = Arc::clone(&self.file);
        // Looked up once: a policy may have very many rules.
        let spec = node.field("spec");
        let lists = ["ingress", "egress"].map(|key| spec.and_then(|spec| spec.field(key)));
        move |rule| {
            let span = match rule {
                Some((direction, i)) => {
                    let [ingress, egress] = lists;
                    let list = if direction == Direction::Ingress { ingress } else { egress };
                    list.and_then(|list| list.item(i)).or(list).or(spec).unwrap_or(node).span
                }
                None => node.locate("metadata.name", None),
            };
            Some(SourcePosition { file: Arc::clone(&file), line: span.line, column: span.column })
        }
    }

    /// Everything that is wrong with a policy: what decoding found, and what validation has against the parts that were
    /// not replaced.
    pub(crate) fn report_policy<P: Repair>(
        &mut self,
        node: &Node<'_>,
        object: &str,
        recovered: Recovered<P>,
        mut defects: Vec<Diagnostic>,
    ) {
        defects.retain(|defect| !recovered.is_replaced(defect.field().unwrap_or_default()));
        let all = recovered.findings.len() + recovered.issues.len() + defects.len();
        for finding in recovered.findings.into_iter().take(MOST_DIAGNOSTICS) {
            self.finding(finding, Severity::Error, "VAL-28", object);
        }
        for issue in recovered.issues.into_iter().take(MOST_DIAGNOSTICS) {
            self.issue(issue, Severity::Error, object);
        }
        for defect in defects.into_iter().take(MOST_DIAGNOSTICS) {
            let span = node.locate(defect.field().unwrap_or_default(), defect.key());
            self.report(defect, span, object);
        }
        if all > MOST_DIAGNOSTICS {
            let message = format!("has {all} defects; not all of them are listed");
            self.report(Diagnostic::error("VAL-28", message), node.span, object);
        }
    }

    /// What a policy says against itself, with its place.
    pub(crate) fn remarks(
        &self,
        node: &Node<'_>,
        object: &str,
        remarks: Vec<Diagnostic>,
    ) -> Vec<Diagnostic> {
        let remarks = remarks.into_iter().take(MOST_DIAGNOSTICS).map(|remark| {
            let span = node.locate(remark.field().unwrap_or_default(), None);
            remark.at(self.location(span)).about(object)
        });
        remarks.collect()
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
        let mut tree = Cow::Borrowed(node);
        let annotations = self.annotations(&mut tree);
        let Some(namespace) = self.decode::<api::Namespace>(&tree, "Namespace") else { return };
        let (converted, diagnostics) = self.converter.namespace(&namespace);
        self.keep(node, diagnostics);
        if let Some(converted) = converted {
            self.add(node, Object::Namespace(converted, annotations));
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

    pub(crate) fn name_of(&self, node: &Node<'_>, kind: &str) -> String {
        let metadata = node.field("metadata");
        let text = |key| metadata.and_then(|m| m.field(key)).and_then(Node::as_str);
        let name = text("name").or_else(|| text("generateName")).filter(|name| !name.is_empty());
        let Some(name) = name else { return kind.to_owned() };
        let cluster_wide = Kind::ALL.iter().any(|admin| admin.name() == kind);
        if cluster_wide || matches!(kind, "Namespace" | "Node") {
            return format!("{kind} {name}");
        }
        let namespace = text("namespace").filter(|namespace| !namespace.is_empty());
        format!("{kind} {}/{name}", namespace.unwrap_or_else(|| self.converter.default_namespace()))
    }

    pub(crate) fn add(&mut self, node: &Node<'_>, object: Object) {
        let location = self.location(node.locate("metadata.name", None));
        self.found.objects.push((object, location));
    }

    /// Diagnostics of a conversion, which does not know places.
    fn keep(&mut self, node: &Node<'_>, diagnostics: Vec<Diagnostic>) {
        for diagnostic in diagnostics.into_iter().take(MOST_DIAGNOSTICS) {
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
                let hint = field_hint(&path, key, fields);
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

    pub(crate) fn report(&mut self, diagnostic: Diagnostic, span: Span, object: &str) {
        let location = self.location(span);
        self.found.diagnostics.push(diagnostic.at(location).about(object));
    }

    pub(crate) fn location(&self, span: Span) -> Location {
        Location {
            file: Arc::clone(&self.file),
            line: span.line,
            column: span.column,
            length: span.len.max(1),
        }
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

fn field_hint(path: &[Segment], key: &str, fields: &'static [&'static str]) -> Option<String> {
    let has = |field: &str| fields.contains(&field);
    match key {
        "to" if has("from") => Some("an ingress rule says `from`".to_owned()),
        "from" if has("to") => Some("an egress rule says `to`".to_owned()),
        "from" | "to" | "ports" if has("policyTypes") => {
            Some(format!("`{key}` belongs into an entry of `ingress` or `egress`"))
        }
        "cidr" | "except" if has("ipBlock") => Some(format!("`{key}` belongs into an `ipBlock`")),
        "name" if has("endPort") => Some("the name of a port is the value of `port`".to_owned()),
        _ => similar(key, fields).map(|field| format!("did you mean `{field}`?")).or_else(|| {
            let selector = has("matchLabels") && path.len() > 1;
            selector.then(|| "labels belong into `matchLabels`".to_owned())
        }),
    }
}

/// The field that a misspelt one was probably meant to be.
fn similar(key: &str, fields: &'static [&'static str]) -> Option<&'static str> {
    // A key that is much longer than any known one is no misspelling, and the comparison is not linear.
    if key.len() > 64 {
        return None;
    }
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
