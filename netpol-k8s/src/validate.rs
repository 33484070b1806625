//! What kube-apiserver has against a NetworkPolicy (VAL-01..VAL-29): verdict, field path and reason, in our own words.
//!
//! All defects of an object are found at once. Types need no check here: a typed object has them. Nothing here decides what
//! a defective policy means; that is the conversion's business, which reads more leniently than this.

use crate::cidr::{Cidr, CidrError};
use crate::diagnostic::{Severity, quoted};
use crate::syntax::{
    generate_name_defect, label_key_defect, label_value_defect, port_name_defect, subdomain_defect,
};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// Why a value is refused, as kube-apiserver sorts its reasons.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Reason {
    /// It is in the list already.
    Duplicate,
    /// It must not be there.
    Forbidden,
    /// It is not what it should be.
    Invalid,
    /// It is none of the values that exist.
    NotSupported,
    /// It must be there.
    Required,
    /// It is too long.
    TooLong,
    /// There are too many of it.
    TooMany,
    /// It is of another type.
    TypeInvalid,
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Reason {
    /// The reason as kube-apiserver writes it into a `Status`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Required => "FieldValueRequired",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        })
    }
}

/// Which spellings of a CIDR are defects (NP-100).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the feature gate StrictIPCIDRValidation: on or off")]
pub enum CidrRules {
    /// As servers since 1.36 judge a new object.
    #[default]
    Strict,
    /// As older servers do, and as objects may be stored in any cluster: odd spellings are warnings.
    Legacy,
}

/// One defect of a NetworkPolicy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Defect {
    severity: Severity,
    code: &'static str,
    field: String,
    key: Option<String>,
    reason: Reason,
    message: String,
    hint: Option<String>,
}

impl Defect {
    /// An error is refused; a warning is accepted, but the server warns.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The rule that is broken, as in `VAL-16`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The field as kube-apiserver writes it.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The key of the map that `field` names, if one entry of it is meant.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The sort of defect.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What is wrong, in words.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Every defect of a policy, and every warning that a server would add, in the order of its fields.
///
/// ```
/// use k8s_openapi::api::networking::v1::NetworkPolicy;
/// let nameless = netpol_k8s::validate(&NetworkPolicy::default(), netpol_k8s::CidrRules::Strict);
/// assert_eq!(nameless[0].field(), "metadata.name");
/// assert_eq!(nameless[0].reason(), netpol_k8s::Reason::Required);
/// ```
#[must_use]
pub fn validate(policy: &NetworkPolicy, cidrs: CidrRules) -> Vec<Defect> {
    let mut check = Check { defects: Vec::new(), cidrs };
    check.metadata(&policy.metadata);
    if let Some(spec) = Option::<&NetworkPolicySpec>::from(&policy.spec) {
        check.spec(spec);
    }
    check.defects
}

/// The defects of the labels of any object (VAL-29), with `metadata.labels` as their field.
pub(crate) fn label_defects(labels: Option<&BTreeMap<String, String>>) -> Vec<Defect> {
    let mut check = Check { defects: Vec::new(), cidrs: CidrRules::Strict };
    check.labels(labels, "metadata.labels", "VAL-29", "VAL-29");
    check.defects
}

/// The defects of the metadata of any object.
pub(crate) fn metadata_defects(metadata: &ObjectMeta) -> Vec<Defect> {
    let mut check = Check { defects: Vec::new(), cidrs: CidrRules::Strict };
    check.metadata(metadata);
    check.defects
}

/// The defects of a selector that stands at `field`.
pub(crate) fn selector_defects(selector: &LabelSelector, field: &str) -> Vec<Defect> {
    let mut check = Check { defects: Vec::new(), cidrs: CidrRules::Strict };
    check.selector(selector, field);
    check.defects
}

struct Check {
    defects: Vec<Defect>,
    cidrs: CidrRules,
}

impl Check {
    fn add(
        &mut self,
        code: &'static str,
        reason: Reason,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> &mut Defect {
        let defect = Defect {
            severity: Severity::Error,
            code,
            field: field.into(),
            key: None,
            reason,
            message: message.into(),
            hint: None,
        };
        self.defects.push(defect);
        // INVARIANT: one was just pushed.
        #[expect(clippy::expect_used, reason = "one was just pushed")]
        self.defects.last_mut().expect("a defect")
    }

    fn invalid(
        &mut self,
        code: &'static str,
        field: impl Into<String>,
        value: &str,
        what: impl fmt::Display,
    ) -> &mut Defect {
        self.add(code, Reason::Invalid, field, format!("{} {what}", quoted(value)))
    }

    fn metadata(&mut self, metadata: &ObjectMeta) {
        let name = metadata.name.as_deref().unwrap_or_default();
        let prefix = metadata.generate_name.as_deref().unwrap_or_default();
        if !prefix.is_empty()
            && let Some(what) = generate_name_defect(prefix)
        {
            self.invalid("VAL-01", "metadata.generateName", prefix, what);
        }
        if name.is_empty() && prefix.is_empty() {
            self.add("VAL-01", Reason::Required, "metadata.name", "needs a name");
        } else if name.is_empty() {
            // The server cuts the prefix and adds five letters or digits, then checks the name.
            let made: String = prefix.chars().take(58).chain("00000".chars()).collect();
            if let Some(what) = subdomain_defect(&made) {
                self.invalid("VAL-01", "metadata.name", &made, what);
            }
        } else if let Some(what) = subdomain_defect(name) {
            self.invalid("VAL-01", "metadata.name", name, what);
        }
        self.labels(metadata.labels.as_ref(), "metadata.labels", "VAL-29", "VAL-29");
        self.annotations(metadata.annotations.as_ref());
        self.owners(metadata);
        self.finalizers(metadata.finalizers.as_deref().unwrap_or_default());
    }

    fn labels(
        &mut self,
        labels: Option<&BTreeMap<String, String>>,
        field: &str,
        key_code: &'static str,
        value_code: &'static str,
    ) {
        for (key, value) in labels.into_iter().flatten() {
            if let Some(what) = label_key_defect(key) {
                self.invalid(key_code, field, key, what).key = Some(key.clone());
            }
            if let Some(what) = label_value_defect(value) {
                self.invalid(value_code, field, value, what).key = Some(key.clone());
            }
        }
    }

    fn annotations(&mut self, annotations: Option<&BTreeMap<String, String>>) {
        let mut size = 0;
        for (key, value) in annotations.into_iter().flatten() {
            size += key.len() + value.len();
            if let Some(what) = label_key_defect(&key.to_lowercase()) {
                self.invalid("VAL-29", "metadata.annotations", key, what).key = Some(key.clone());
            }
        }
        if size > 256 * 1024 {
            let message = format!("{size} bytes are too long: at most 256 KiB together");
            self.add("VAL-29", Reason::TooLong, "metadata.annotations", message);
        }
    }

    fn owners(&mut self, metadata: &ObjectMeta) {
        let field = "metadata.ownerReferences";
        let owners = metadata.owner_references.as_deref().unwrap_or_default();
        for owner in owners {
            for (name, value) in [
                ("apiVersion", &owner.api_version),
                ("kind", &owner.kind),
                ("name", &owner.name),
                ("uid", &owner.uid),
            ] {
                if value.is_empty() {
                    let field = format!("{field}.{name}");
                    self.add("VAL-29", Reason::Invalid, field, "must not be empty");
                }
            }
            if owner.api_version.matches('/').count() > 1 {
                let message = "must be `group/version`";
                self.invalid("VAL-29", format!("{field}.apiVersion"), &owner.api_version, message);
            }
        }
        if owners.iter().filter(|owner| owner.controller == Some(true)).count() > 1 {
            self.add("VAL-29", Reason::Invalid, field, "only one owner may be the controller");
        }
    }

    fn finalizers(&mut self, finalizers: &[String]) {
        let standard = |name: &str| matches!(name, "kubernetes" | "orphan" | "foregroundDeletion");
        for name in finalizers {
            if let Some(what) = label_key_defect(name) {
                self.invalid("VAL-29", "metadata.finalizers", name, what);
            }
        }
        for (i, name) in finalizers.iter().enumerate() {
            if !name.contains('/') && !standard(name) {
                let field = format!("metadata.finalizers[{i}]");
                self.invalid("VAL-29", field, name, "must have a domain and `/` in front");
            }
        }
        let has = |wanted: &str| finalizers.iter().any(|name| name == wanted);
        if has("orphan") && has("foregroundDeletion") {
            let message = "`orphan` and `foregroundDeletion` exclude each other";
            self.add("VAL-29", Reason::Invalid, "metadata.finalizers", message);
        }
    }

    fn spec(&mut self, spec: &NetworkPolicySpec) {
        if let Some(selector) = Option::<&LabelSelector>::from(&spec.pod_selector) {
            self.selector(selector, "spec.podSelector");
        }
        for (i, rule) in spec.ingress.iter().flatten().enumerate() {
            let field = format!("spec.ingress[{i}]");
            self.ports(rule.ports.as_deref(), &field);
            self.peers(rule.from.as_deref(), &format!("{field}.from"));
        }
        for (i, rule) in spec.egress.iter().flatten().enumerate() {
            let field = format!("spec.egress[{i}]");
            self.ports(rule.ports.as_deref(), &field);
            self.peers(rule.to.as_deref(), &format!("{field}.to"));
        }
        let types = spec.policy_types.as_deref().unwrap_or_default();
        if types.len() > 2 {
            let message = format!("{} entries are more than the two that exist", types.len());
            self.add("VAL-03", Reason::Invalid, "spec.policyTypes", message);
            return;
        }
        for (i, name) in types.iter().enumerate() {
            if !matches!(name.as_str(), "Ingress" | "Egress") {
                let message = format!("{} is neither `Ingress` nor `Egress`", quoted(name));
                let field = format!("spec.policyTypes[{i}]");
                let hint = nearest(name, &["Ingress", "Egress"]);
                self.add("VAL-04", Reason::NotSupported, field, message).hint = hint;
            }
        }
    }

    fn ports(&mut self, ports: Option<&[NetworkPolicyPort]>, rule: &str) {
        for (i, port) in ports.into_iter().flatten().enumerate() {
            self.port(port, &format!("{rule}.ports[{i}]"));
        }
    }

    fn port(&mut self, entry: &NetworkPolicyPort, field: &str) {
        const PORTS: std::ops::RangeInclusive<i32> = 1..=65535;
        if let Some(protocol) = entry.protocol.as_deref()
            && !matches!(protocol, "TCP" | "UDP" | "SCTP")
        {
            let message = format!("{} is none of `TCP`, `UDP` and `SCTP`", quoted(protocol));
            let hint = nearest(protocol, &["TCP", "UDP", "SCTP"]);
            let field = format!("{field}.protocol");
            self.add("VAL-05", Reason::NotSupported, field, message).hint = hint;
        }
        let end_field = || format!("{field}.endPort");
        match (&entry.port, entry.end_port) {
            (None, None) => {}
            (None, Some(end)) => {
                let what = "cannot stand without `port`";
                self.invalid("VAL-08", end_field(), &end.to_string(), what);
            }
            (Some(IntOrString::Int(port)), end) => {
                let range = "must be between 1 and 65535";
                if !PORTS.contains(port) {
                    self.invalid("VAL-06", format!("{field}.port"), &port.to_string(), range);
                }
                if let Some(end) = end {
                    if end < *port {
                        let what = format!("must not be less than `port`, which is {port}");
                        self.invalid("VAL-10", end_field(), &end.to_string(), what);
                    }
                    if !PORTS.contains(&end) {
                        self.invalid("VAL-10", end_field(), &end.to_string(), range);
                    }
                }
            }
            (Some(IntOrString::String(name)), end) => {
                if let Some(end) = end {
                    let what = "cannot stand beside the name of a port";
                    self.invalid("VAL-09", end_field(), &end.to_string(), what);
                }
                if let Some(what) = port_name_defect(name) {
                    let hint = match name.parse::<u16>() {
                        Ok(number) => {
                            Some(format!("write the number without quotation marks: `{number}`"))
                        }
                        Err(_)
                            if name.contains('-')
                                && name.bytes().all(|b| b.is_ascii_digit() || b == b'-') =>
                        {
                            Some("a range of ports is written as `port` and `endPort`".to_owned())
                        }
                        Err(_) => None,
                    };
                    self.invalid("VAL-07", format!("{field}.port"), name, what).hint = hint;
                }
            }
        }
    }

    fn peers(&mut self, peers: Option<&[NetworkPolicyPeer]>, field: &str) {
        for (i, peer) in peers.into_iter().flatten().enumerate() {
            self.peer(peer, &format!("{field}[{i}]"));
        }
    }

    fn peer(&mut self, peer: &NetworkPolicyPeer, field: &str) {
        if let Some(selector) = &peer.pod_selector {
            self.selector(selector, &format!("{field}.podSelector"));
        }
        if let Some(selector) = &peer.namespace_selector {
            self.selector(selector, &format!("{field}.namespaceSelector"));
        }
        if let Some(block) = &peer.ip_block {
            self.ip_block(block, &format!("{field}.ipBlock"));
        }
        let selectors = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match (&peer.ip_block, selectors) {
            (None, false) => {
                let message = "a peer needs a `podSelector`, a `namespaceSelector` or an `ipBlock`";
                self.add("VAL-12", Reason::Required, field, message);
            }
            (Some(_), true) => {
                let message = "an `ipBlock` cannot stand beside a selector in one peer";
                self.add("VAL-11", Reason::Forbidden, field, message).hint =
                    Some("make two entries of the list: one of them must match".to_owned());
            }
            _ => {}
        }
    }

    fn ip_block(&mut self, block: &IPBlock, field: &str) {
        let cidr_field = format!("{field}.cidr");
        if block.cidr.is_empty() {
            self.add("VAL-14", Reason::Required, cidr_field, "needs a CIDR");
            return;
        }
        let Some(cidr) = self.cidr(&block.cidr, cidr_field, "VAL-14") else { return };
        for (i, text) in block.except.iter().flatten().enumerate() {
            let field = format!("{field}.except[{i}]");
            let Some(except) = self.cidr(text, field.clone(), "VAL-15") else { continue };
            if !except.is_except_of(&cidr) {
                let what = format!("must lie inside {} and be smaller", quoted(&block.cidr));
                self.invalid("VAL-16", field, text, what);
            }
        }
    }

    fn cidr(&mut self, text: &str, field: String, code: &'static str) -> Option<Cidr> {
        let cidr = match Cidr::parse(text) {
            Ok(cidr) => cidr,
            Err(error) => {
                let defect = self.invalid(code, field, text, error);
                if crate::cidr::parse_address(text).is_some() {
                    let bits = if text.contains(':') { 128 } else { 32 };
                    defect.hint = Some(format!("one address is `{text}/{bits}`"));
                }
                return None;
            }
        };
        let hint = || Some(format!("write `{}`", cidr.net()));
        if let Some(objection) = cidr.objection() {
            let legacy = self.cidrs == CidrRules::Legacy;
            let defect = self.invalid("NP-100", field, text, objection);
            defect.hint = hint();
            if objection == CidrError::HostBits {
                let address = text.split('/').next().unwrap_or_default();
                let bits = if text.contains(':') { 128 } else { 32 };
                defect.hint =
                    Some(format!("write `{}`, or `{address}/{bits}` for one address", cidr.net()));
            }
            if legacy {
                defect.severity = Severity::Warning;
            }
        } else if !cidr.is_canonical() {
            let defect = self.invalid("NP-100", field, text, "is not in its usual form");
            defect.hint = hint();
            defect.severity = Severity::Warning;
        }
        Some(cidr)
    }

    fn selector(&mut self, selector: &LabelSelector, field: &str) {
        let labels = format!("{field}.matchLabels");
        self.labels(selector.match_labels.as_ref(), &labels, "VAL-20", "VAL-21");
        for (i, requirement) in selector.match_expressions.iter().flatten().enumerate() {
            let field = format!("{field}.matchExpressions[{i}]");
            let operator = requirement.operator.as_str();
            let values = requirement.values.as_deref().unwrap_or_default();
            match operator {
                "In" | "NotIn" if values.is_empty() => {
                    let message = format!("`{operator}` needs at least one value");
                    self.add("VAL-22", Reason::Required, format!("{field}.values"), message);
                }
                "Exists" | "DoesNotExist" if !values.is_empty() => {
                    let message = format!("`{operator}` takes no values");
                    self.add("VAL-23", Reason::Forbidden, format!("{field}.values"), message);
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
                _ => {
                    let known = ["In", "NotIn", "Exists", "DoesNotExist"];
                    let what = "is none of `In`, `NotIn`, `Exists` and `DoesNotExist`";
                    let field = format!("{field}.operator");
                    self.invalid("VAL-24", field, operator, what).hint = nearest(operator, &known);
                }
            }
            if let Some(what) = label_key_defect(&requirement.key) {
                self.invalid("VAL-20", format!("{field}.key"), &requirement.key, what);
            }
            for (i, value) in values.iter().enumerate() {
                if let Some(what) = label_value_defect(value) {
                    self.invalid("VAL-25", format!("{field}.values[{i}]"), value, what);
                }
            }
        }
    }
}

/// "did you mean" for a word that is close to a known one.
pub(crate) fn nearest(word: &str, known: &[&str]) -> Option<String> {
    nearest_word(word, known).map(|word| format!("did you mean `{word}`?"))
}

pub(crate) fn nearest_word<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // A word that is much longer than any known one is no misspelling, and the comparison is not linear.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let distance = |known: &str| strsim::osa_distance(&lower, &known.to_lowercase());
    known
        .iter()
        .map(|&known| (distance(known), known))
        .min()
        .filter(|&(distance, known)| distance * 3 <= known.chars().count())
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        assert_eq!(nearest_word("podSelecter", &["podSelector", "ports"]), Some("podSelector"));
        assert_eq!(nearest_word("PodSelector", &["podSelector"]), Some("podSelector"));
        assert_eq!(nearest_word("tcp", &["TCP", "UDP", "SCTP"]), Some("TCP"));
        assert_eq!(nearest_word("ICMP", &["TCP", "UDP", "SCTP"]), None);
        assert_eq!(nearest_word("serviceAccountSelector", &["podSelector"]), None);
    }
}
