//! Policies as a server of today takes them.

use crate::cidr::Cidr;
use crate::convert::{Converter, defect_diagnostic, isolated_directions};
use crate::diagnostic::{Diagnostic, Severity, quoted};
use crate::syntax::{label_value_defect, subdomain_defect};
use crate::validate::{CidrRules, validate};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use std::collections::BTreeMap;

/// What kubectl writes down of an object of another version.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The policy of `networking.k8s.io/v1` that denies the ingress of all pods of a namespace: what an isolating annotation
/// does.
#[must_use]
pub fn default_deny(namespace: &str, name: &str) -> NetworkPolicy {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    let spec = NetworkPolicySpec {
        pod_selector: LabelSelector::default().into(),
        policy_types: Some(vec!["Ingress".to_owned()]),
        ..NetworkPolicySpec::default()
    };
    NetworkPolicy { metadata, spec: Some(spec) }
}

/// The same policy, as a server since 1.36 takes it, with `policyTypes` written out; and what had to be left out or
/// written differently, each with its field.
///
/// Every verdict stays: what is left out matches nothing, and a rule that loses all its peers or ports goes as a whole.
/// There is no policy if it selects no pod that can exist. The name is the caller's business as far as it must be unique.
///
/// ```
/// use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
/// use netpol_k8s::legacy::expressible;
///
/// let mut policy = NetworkPolicy { spec: Some(NetworkPolicySpec::default()), ..Default::default() };
/// policy.metadata.name = Some("deny".into());
/// let (expressed, notes) = expressible(&policy);
/// assert_eq!(expressed.and_then(|p| p.spec?.policy_types), Some(vec!["Ingress".to_owned()]));
/// assert!(notes.is_empty());
/// ```
#[must_use]
pub fn expressible(policy: &NetworkPolicy) -> (Option<NetworkPolicy>, Vec<Diagnostic>) {
    let mut express = Express { converter: Converter::new(), notes: Vec::new() };
    let metadata = express.metadata(&policy.metadata);
    let empty = NetworkPolicySpec::default();
    let spec = Option::<&NetworkPolicySpec>::from(&policy.spec).unwrap_or(&empty);
    let (ingress, egress) = isolated_directions(spec);
    let types = [("Ingress", ingress), ("Egress", egress)];
    let types = types.into_iter().filter(|(_, isolated)| *isolated);
    let everything = LabelSelector::default();
    let subject = Option::<&LabelSelector>::from(&spec.pod_selector).unwrap_or(&everything);
    let (subject, rules) = match express.selector(subject, "spec.podSelector") {
        Selected::Some(subject) => (subject, spec),
        Selected::Nobody => {
            express.note("spec.podSelector", "it selects no pod, so the policy is left out");
            return (None, express.notes);
        }
        // Nobody can say whom it means: everybody, and nothing is allowed.
        Selected::Unreadable => {
            let message = "it cannot be read: all pods are isolated, and nothing is allowed";
            express.note("spec.podSelector", message);
            (everything, &empty)
        }
    };
    let ingress = express.rules(
        rules.ingress.as_deref(),
        ("ingress", "from"),
        |rule| (rule.from.as_deref(), rule.ports.as_deref()),
        |from, ports| NetworkPolicyIngressRule { from, ports },
    );
    let egress = express.rules(
        rules.egress.as_deref(),
        ("egress", "to"),
        |rule| (rule.to.as_deref(), rule.ports.as_deref()),
        |to, ports| NetworkPolicyEgressRule { ports, to },
    );
    let spec = NetworkPolicySpec {
        ingress: (!ingress.is_empty()).then_some(ingress),
        egress: (!egress.is_empty()).then_some(egress),
        pod_selector: subject.into(),
        policy_types: Some(types.map(|(name, _)| name.to_owned()).collect()),
    };
    (Some(NetworkPolicy { metadata, spec: Some(spec) }), express.notes)
}

enum Selected {
    Some(LabelSelector),
    /// It asks for a label that no object can have.
    Nobody,
    Unreadable,
}

struct Express {
    converter: Converter,
    notes: Vec<Diagnostic>,
}

impl Express {
    fn note(&mut self, field: &str, message: impl Into<String>) {
        self.notes.push(Diagnostic::error("left-out", message).in_field(field));
    }

    /// What belongs to the object rather than to the server that stored it.
    fn metadata(&mut self, metadata: &ObjectMeta) -> ObjectMeta {
        let some = |map: &Option<BTreeMap<String, String>>| {
            map.clone().filter(|map: &BTreeMap<_, _>| !map.is_empty())
        };
        let mut annotations = some(&metadata.annotations);
        if let Some(annotations) = &mut annotations {
            annotations.remove(LAST_APPLIED);
        }
        let mut kept = ObjectMeta {
            name: metadata.name.clone().filter(|name| !name.is_empty()),
            namespace: metadata.namespace.clone().filter(|name| !name.is_empty()),
            labels: some(&metadata.labels),
            annotations: some(&annotations),
            owner_references: metadata.owner_references.clone(),
            finalizers: metadata.finalizers.clone(),
            ..ObjectMeta::default()
        };
        let name = kept.name.clone().unwrap_or_else(|| {
            let prefix = metadata.generate_name.as_deref().unwrap_or_default();
            prefix.trim_end_matches(['-', '.']).to_owned()
        });
        let valid = valid_name(&name);
        if kept.name.as_deref() != Some(&valid) {
            let message =
                format!("{} is no name to apply: it is {} now", quoted(&name), quoted(&valid));
            self.notes.push(Diagnostic::warning("renamed", message).in_field("metadata.name"));
        }
        kept.name = Some(valid);
        let bare = NetworkPolicy { metadata: kept.clone(), spec: None };
        for defect in validate(&bare, CidrRules::Strict) {
            let map = match defect.field() {
                "metadata.labels" => Some(&mut kept.labels),
                "metadata.annotations" => Some(&mut kept.annotations),
                _ => None,
            };
            let known = match (map, defect.key()) {
                (Some(map), Some(key)) => map.as_mut().and_then(|map| map.remove(key)).is_some(),
                (Some(map), None) => map.take().is_some(),
                (None, _) if defect.field().starts_with("metadata.ownerReferences") => {
                    kept.owner_references.take().is_some()
                }
                (None, _) if defect.field().starts_with("metadata.finalizers") => {
                    kept.finalizers.take().is_some()
                }
                _ => false,
            };
            if known {
                let part = defect.field().split('[').next().unwrap_or_default().to_owned();
                let message = format!("left out, since {}", defect.message());
                let note = Diagnostic::warning("left-out", message).in_field(part);
                self.notes.push(note);
            }
        }
        (kept.labels, kept.annotations) = (some(&kept.labels), some(&kept.annotations));
        kept
    }

    /// The rules that match something, with the parts of them that do.
    fn rules<R>(
        &mut self,
        rules: Option<&[R]>,
        (direction, list): (&str, &str),
        parts: impl Fn(&R) -> (Option<&[NetworkPolicyPeer]>, Option<&[NetworkPolicyPort]>),
        rule: impl Fn(Option<Vec<NetworkPolicyPeer>>, Option<Vec<NetworkPolicyPort>>) -> R,
    ) -> Vec<R> {
        let mut kept = Vec::new();
        for (i, written) in rules.unwrap_or_default().iter().enumerate() {
            let field = format!("spec.{direction}[{i}]");
            let (peers, ports) = parts(written);
            let peers = self.peers(peers, &format!("{field}.{list}"));
            let ports = self.ports(ports, &format!("{field}.ports"));
            match (peers, ports) {
                (Some(peers), Some(ports)) => kept.push(rule(peers, ports)),
                _ => self.note(&field, "the rule matches nothing, and is left out"),
            }
        }
        kept
    }

    /// The list, without the entries that match nothing. None if no entry is left of it.
    fn peers(
        &mut self,
        peers: Option<&[NetworkPolicyPeer]>,
        field: &str,
    ) -> Option<Option<Vec<NetworkPolicyPeer>>> {
        self.list(peers, field, Self::peer)
    }

    fn ports(
        &mut self,
        ports: Option<&[NetworkPolicyPort]>,
        field: &str,
    ) -> Option<Option<Vec<NetworkPolicyPort>>> {
        self.list(ports, field, |express, port, _| {
            express.converter.port(port).map(|_| port.clone())
        })
    }

    fn list<T>(
        &mut self,
        list: Option<&[T]>,
        field: &str,
        express: impl Fn(&mut Self, &T, &str) -> Option<T>,
    ) -> Option<Option<Vec<T>>> {
        let Some(list) = list.filter(|list| !list.is_empty()) else { return Some(None) };
        let mut kept = Vec::new();
        for (i, entry) in list.iter().enumerate() {
            let field = format!("{field}[{i}]");
            match express(self, entry, &field) {
                Some(entry) => kept.push(entry),
                None => self.note(&field, "it matches nothing, and is left out"),
            }
        }
        (!kept.is_empty()).then_some(Some(kept))
    }

    fn peer(&mut self, peer: &NetworkPolicyPeer, field: &str) -> Option<NetworkPolicyPeer> {
        self.converter.peer(peer, &"any".into())?;
        let mut select = |selector: &Option<LabelSelector>, name: &str| match selector {
            None => Some(None),
            Some(selector) => match self.selector(selector, &format!("{field}.{name}")) {
                Selected::Some(selector) => Some(Some(selector)),
                Selected::Nobody | Selected::Unreadable => None,
            },
        };
        let pod_selector = select(&peer.pod_selector, "podSelector")?;
        let namespace_selector = select(&peer.namespace_selector, "namespaceSelector")?;
        let ip_block = peer.ip_block.as_ref().map(|block| self.block(block, field));
        Some(NetworkPolicyPeer { ip_block, namespace_selector, pod_selector })
    }

    /// A block that can be read, in the usual spelling.
    fn block(&mut self, block: &IPBlock, field: &str) -> IPBlock {
        let mut spell = |text: &String, part: &str| {
            let spelt = Cidr::parse(text).map_or_else(|_| text.clone(), |c| c.net().to_string());
            if spelt != *text {
                let message = format!("{} is written as {}", quoted(text), quoted(&spelt));
                let field = format!("{field}.ipBlock.{part}");
                self.notes.push(Diagnostic::warning("respelt", message).in_field(field));
            }
            spelt
        };
        let cidr = spell(&block.cidr, "cidr");
        let except = block.except.as_ref().filter(|except| !except.is_empty());
        let except = except.map(|except| {
            let holes = except.iter().enumerate();
            holes.map(|(i, hole)| spell(hole, &format!("except[{i}]"))).collect()
        });
        IPBlock { cidr, except }
    }

    /// The selector, without asking for values that no label can have (VAL-31): what is in such a list is in none, and what
    /// is in none is not in it.
    fn selector(&mut self, selector: &LabelSelector, field: &str) -> Selected {
        if self.converter.selector(selector).is_none() {
            return Selected::Unreadable;
        }
        let possible = |value: &String| label_value_defect(value).is_none();
        if !selector.match_labels.iter().flatten().all(|(_, value)| possible(value)) {
            return Selected::Nobody;
        }
        let mut kept = selector.clone();
        kept.match_labels = kept.match_labels.filter(|labels| !labels.is_empty());
        let mut expressions = Vec::new();
        for mut expression in kept.match_expressions.take().into_iter().flatten() {
            let before = expression.values.as_ref().map_or(0, Vec::len);
            let mut values = expression.values.take().unwrap_or_default();
            values.retain(possible);
            if values.len() < before {
                let message = "values that no label can have are left out";
                let field = format!("{field}.matchExpressions");
                self.notes.push(Diagnostic::warning("respelt", message).in_field(field));
                match expression.operator.as_str() {
                    "In" if values.is_empty() => return Selected::Nobody,
                    // It is true of every object.
                    "NotIn" if values.is_empty() => continue,
                    _ => {}
                }
            }
            expression.values = (!values.is_empty()).then_some(values);
            expressions.push(expression);
        }
        kept.match_expressions = (!expressions.is_empty()).then_some(expressions);
        Selected::Some(kept)
    }
}

/// A name that a server takes, as near to this one as can be.
pub(super) fn valid_name(name: &str) -> String {
    if subdomain_defect(name).is_none() {
        return name.to_owned();
    }
    let letter = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9') => c,
        _ => '-',
    };
    let text: String = name.chars().map(letter).take(200).collect();
    match text.trim_matches('-') {
        "" => "unnamed".to_owned(),
        text => text.to_owned(),
    }
}

/// The notes of a conversion that have to do with what is wrong in an object.
pub(super) fn is_loss(note: &Diagnostic) -> bool {
    note.severity() == Severity::Error
}

/// What a server would still have against a policy; nothing, if [`expressible`] is right.
pub(super) fn objections(policy: &NetworkPolicy) -> Vec<Diagnostic> {
    let defects = validate(policy, CidrRules::Strict);
    defects.iter().filter(|d| d.severity() == Severity::Error).map(defect_diagnostic).collect()
}
