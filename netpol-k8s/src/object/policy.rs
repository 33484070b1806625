//! Policies that are served, and those that were meant to be.

use super::{MOST_DIAGNOSTICS, Object, ObjectReader, some};
use crate::admin::{self, Kind};
use crate::api::{alpha, v1beta1};
use crate::convert::defect_diagnostic;
use crate::diagnostic::{Diagnostic, Severity, quoted};
use crate::lint;
use crate::recover::{self, Recovered, Repair};
use crate::tree::Node;
use crate::validate::validate;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use netpol_core::{Direction, SourcePosition};
use std::sync::Arc;

impl ObjectReader {
    /// No server knows a policy by this kind and version. Whom it selects is isolated; what its rules mean is anybody's
    /// guess.
    pub(super) fn misnamed_policy(&mut self, node: &Node<'_>, version: &str, kind: &str) {
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
    pub(super) fn admin_policy(
        &mut self,
        node: &Node<'_>,
        kind: Kind,
        version: &str,
        written: &str,
    ) {
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

    pub(super) fn policy(&mut self, node: &Node<'_>, served: bool) {
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
}
