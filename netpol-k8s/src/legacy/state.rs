//! What annotations and policies mean together, whatever the order in which they were read.

use super::annotation::{Annotation, Annotations};
use super::express::default_deny;
use super::{BetaRules, Gate};
use crate::api::v1beta1::Meaning;
use crate::convert::Converter;
use crate::diagnostic::{Diagnostic, quoted};
use crate::lint::location;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netpol_core::{Cluster, NamespaceName, Policy, PolicyId, PolicyKind, SourcePosition};
use std::collections::BTreeMap;

/// A legacy policy in the model, and as an object of `networking.k8s.io/v1`.
#[derive(Debug)]
pub(crate) struct LegacyPolicy {
    pub(crate) policy: Policy,
    /// The annotation that it depends on; none if it is always in force.
    pub(crate) gate: Option<Gate>,
    pub(crate) remarks: Vec<Diagnostic>,
    pub(crate) v1: NetworkPolicy,
}

/// A policy, or an annotation, that was read and has no effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Inert {
    policy: Policy,
    reason: String,
}

impl Inert {
    /// What it would be if it had an effect.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Why it has none, as the end of a sentence about it.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// A namespace that an annotation isolates.
#[derive(Debug)]
pub(super) struct Isolated {
    pub(super) namespace: NamespaceName,
    pub(super) policy: Policy,
}

/// Everything legacy that was read.
#[derive(Debug, Default)]
pub(crate) struct Legacy {
    rules: BetaRules,
    annotations: BTreeMap<NamespaceName, Annotations>,
    pub(super) policies: BTreeMap<PolicyId, LegacyPolicy>,
    pub(super) isolated: Vec<Isolated>,
    pub(super) inert: BTreeMap<PolicyId, Inert>,
}

impl Legacy {
    pub(crate) fn new(rules: BetaRules) -> Self {
        Self { rules, ..Self::default() }
    }

    pub(crate) fn inert(&self) -> impl Iterator<Item = &Inert> {
        self.inert.values()
    }

    /// A namespace was read. Of two with one name the later counts.
    pub(crate) fn namespace(&mut self, name: &NamespaceName, annotations: Annotations) {
        self.annotations.insert(name.clone(), annotations);
    }

    /// Another object of this name was read, and counts.
    pub(crate) fn forget(&mut self, policy: &PolicyId) {
        self.policies.remove(policy);
    }

    /// A legacy policy was read. It takes effect when everything was.
    pub(crate) fn policy(&mut self, policy: LegacyPolicy) {
        self.policies.insert(policy.policy.id().clone(), policy);
    }

    /// Decides what is in force, and adds it to the cluster.
    pub(crate) fn finish(&mut self, cluster: &mut Cluster, diagnostics: &mut Vec<Diagnostic>) {
        let mut gated: BTreeMap<(NamespaceName, Gate), Vec<&Policy>> = BTreeMap::new();
        for LegacyPolicy { policy, gate, .. } in self.policies.values() {
            if let (Some(gate), Some(namespace)) = (gate, &policy.id().namespace) {
                gated.entry((namespace.clone(), *gate)).or_default().push(policy);
            }
        }
        for (name, annotations) in &self.annotations {
            for gate in Gate::ALL.into_iter().filter(|gate| annotations.get(*gate).is_some()) {
                gated.entry((name.clone(), gate)).or_default();
            }
        }
        for policy in self.policies.values().filter(|policy| policy.gate.is_none()) {
            cluster.insert_policy(policy.policy.clone());
        }
        for ((namespace, gate), policies) in &gated {
            let gate = *gate;
            let known = self.annotations.get(namespace);
            let annotation = known.and_then(|annotations| annotations.get(gate));
            if gate == Gate::Beta && self.rules.meaning == Meaning::Since1_7 {
                if let Some(annotation) = annotation {
                    diagnostics.push(ignored(namespace, annotation));
                    let reason = "servers since 1.7 ignore it (`--v1beta1-as 1.7`)".to_owned();
                    if annotation.isolates {
                        let policy = isolation(namespace, &annotation.key, &annotation.source);
                        self.inert.insert(policy.id().clone(), Inert { policy, reason });
                    }
                }
                continue;
            }
            let isolating = match (annotation, policies.first()) {
                (Some(annotation), _) if annotation.isolates => {
                    if policies.is_empty() {
                        diagnostics.extend(lonely(gate, namespace, annotation));
                    }
                    Some(isolation(namespace, &annotation.key, &annotation.source))
                }
                (None, Some(first)) if known.is_none() => {
                    diagnostics.push(unknown(gate, namespace, first));
                    let name = format!("{} (assumed)", gate.annotation());
                    first.source().map(|source| isolation(namespace, &name, source))
                }
                _ => None,
            };
            match isolating {
                Some(isolation) => {
                    for &policy in policies {
                        cluster.insert_policy(policy.clone());
                    }
                    cluster.insert_policy(isolation.clone());
                    let namespace = namespace.clone();
                    self.isolated.push(Isolated { namespace, policy: isolation });
                }
                None => {
                    for &policy in policies {
                        diagnostics.push(inert(gate, namespace, policy));
                        let reason = format!(
                            "its namespace is not isolated by the annotation `{}`",
                            gate.annotation()
                        );
                        let inert = Inert { policy: policy.clone(), reason };
                        self.inert.insert(policy.id().clone(), inert);
                    }
                }
            }
        }
    }
}

/// What an annotation does: all pods of the namespace deny what nothing allows.
fn isolation(namespace: &NamespaceName, annotation: &str, source: &SourcePosition) -> Policy {
    let deny = default_deny(namespace.as_str(), annotation);
    Converter::new()
        .policy(&deny, &|_| Some(source.clone()))
        .with_kind(PolicyKind::NamespaceAnnotation)
}

fn warning(
    code: &'static str,
    message: impl Into<String>,
    object: String,
    source: Option<&SourcePosition>,
    hint: impl Into<String>,
) -> Diagnostic {
    Diagnostic::warning(code, message).about(object).at(source.map(location)).with_hint(hint)
}

/// The default is in force, and the annotation was made for servers that had it otherwise.
fn ignored(namespace: &NamespaceName, annotation: &Annotation) -> Diagnostic {
    let message = format!(
        "the annotation {} is ignored, as servers since 1.7 do: pods are isolated by the policies that select them",
        quoted(&annotation.key)
    );
    let hint = "`--v1beta1-as 1.6` gives it the meaning that it had before";
    let source = Some(&annotation.source);
    warning("LEG-24", message, format!("Namespace {namespace}"), source, hint)
        .in_field("metadata.annotations")
}

/// The alpha annotation may be left over: nothing in the cluster of today reads it.
fn lonely(gate: Gate, namespace: &NamespaceName, annotation: &Annotation) -> Option<Diagnostic> {
    (gate == Gate::Alpha).then(|| {
        let message = format!(
            "the annotation {} isolates the namespace, and no policy of the alpha was read for it",
            quoted(&annotation.key)
        );
        let hint =
            "take the annotation away if it is left over: current servers and agents ignore it";
        let source = Some(&annotation.source);
        warning("LEG-04", message, format!("Namespace {namespace}"), source, hint)
            .in_field("metadata.annotations")
    })
}

fn unknown(gate: Gate, namespace: &NamespaceName, policy: &Policy) -> Diagnostic {
    let message = format!(
        "no Namespace object was read for {}, so whether it is isolated is unknown: taken to be",
        quoted(namespace.as_str())
    );
    let hint = format!(
        "read the Namespace object too; without the annotation `{}` the policies in it have no effect",
        gate.annotation()
    );
    warning(gate.rule(), message, policy.id().to_string(), policy.source(), hint)
}

fn inert(gate: Gate, namespace: &NamespaceName, policy: &Policy) -> Diagnostic {
    let message = format!(
        "has no effect: the namespace {} is not isolated, so all its pods are open",
        quoted(namespace.as_str())
    );
    let hint = format!("isolate the namespace with the annotation `{}`", gate.example());
    warning(gate.rule(), message, policy.id().to_string(), policy.source(), hint)
}
