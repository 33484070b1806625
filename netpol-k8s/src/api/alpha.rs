//! `NetworkPolicy` of `net.alpha.kubernetes.io/v1alpha1`: the alpha of 2016, a third-party resource that some network agents
//! read (LEG-01..LEG-07).
//!
//! There never was a schema. A policy selects pods of its namespace by a plain map of labels and lets some pods of that
//! namespace reach them on some ports; there is no egress. It has an effect only in a namespace that the annotation
//! [`ANNOTATION`] isolates (LEG-04). What nobody wrote down is read closed here: a list that is there and empty matches
//! nothing, and so does an entry of `from` without `pods`.

use super::v1beta1::Nothing;
use super::{Object, Spec};
use k8s_openapi::api::networking::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The group and version.
pub const API_VERSION: &str = NetworkPolicySpec::API_VERSION;

/// The annotation that isolates the pods of its namespace: `on` (LEG-03).
pub const ANNOTATION: &str = "net.alpha.kubernetes.io/network-isolation";

/// A policy for pods of its namespace.
///
/// ```
/// use netpol_k8s::api::alpha::NetworkPolicy;
///
/// let policy: NetworkPolicy = serde_json::from_str(r#"{
///     "apiVersion": "net.alpha.kubernetes.io/v1alpha1", "kind": "NetworkPolicy",
///     "metadata": {"name": "pol1"},
///     "spec": {
///         "podSelector": {"segment": "backend"},
///         "allowIncoming": {
///             "from": [{"pods": {"segment": "frontend"}}],
///             "toPorts": [{"port": 80, "protocol": "TCP"}]
///         }
///     }
/// }"#)?;
/// let rules = policy.to_v1().spec.and_then(|spec| spec.ingress);
/// assert_eq!(rules.map(|rules| rules.len()), Some(1));
/// # Ok::<(), serde_json::Error>(())
/// ```
pub type NetworkPolicy = Object<NetworkPolicySpec>;

impl Spec for NetworkPolicySpec {
    const API_VERSION: &'static str = "net.alpha.kubernetes.io/v1alpha1";
    const KIND: &'static str = "NetworkPolicy";
}

/// What a policy asks for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(clippy::exhaustive_structs, reason = "the API will not change any more")]
pub struct NetworkPolicySpec {
    /// The labels of the pods that it is for; absent is all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<BTreeMap<String, String>>,
    /// What may reach them; absent is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_incoming: Option<AllowIncoming>,
}

/// Some sources on some ports.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(clippy::exhaustive_structs, reason = "the API will not change any more")]
pub struct AllowIncoming {
    /// The sources; absent is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Vec<Source>>,
    /// The ports; absent is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_ports: Option<Vec<ToPort>>,
}

/// Pods of the policy's namespace.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
#[expect(clippy::exhaustive_structs, reason = "the API will not change any more")]
pub struct Source {
    /// Their labels; `{}` is all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<BTreeMap<String, String>>,
}

/// A port by number.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
#[expect(clippy::exhaustive_structs, reason = "the API will not change any more")]
pub struct ToPort {
    /// The number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// `TCP`, which is also meant if it is absent, or `UDP`, in any case of letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

impl NetworkPolicy {
    /// The policy of `networking.k8s.io/v1` that means the same in a namespace that is isolated (LEG-07);
    /// [`default_deny`](crate::legacy::default_deny) belongs to it there. In any other namespace it means nothing.
    ///
    /// What is ambiguous becomes what matches nothing: a peer without fields, port 0. No server takes these;
    /// [`expressible`](crate::legacy::expressible) does without them.
    #[must_use]
    pub fn to_v1(&self) -> v1::NetworkPolicy {
        let spec = self.spec.clone().unwrap_or_default();
        let labels = |labels| LabelSelector { match_labels: labels, match_expressions: None };
        let rule = |incoming: AllowIncoming| {
            let from = incoming.from.map(|sources| {
                let peer = |source: Source| match source.pods {
                    Some(pods) => v1::NetworkPolicyPeer {
                        pod_selector: Some(labels(Some(pods))),
                        ..v1::NetworkPolicyPeer::default()
                    },
                    None => Nothing::nothing(),
                };
                or_nothing(sources.into_iter().map(peer).collect())
            });
            let ports = incoming.to_ports.map(|ports| {
                let port = |entry: ToPort| match entry.port {
                    Some(port) => v1::NetworkPolicyPort {
                        protocol: entry.protocol.map(|name| name.to_ascii_uppercase()),
                        port: Some(IntOrString::Int(port)),
                        end_port: None,
                    },
                    None => Nothing::nothing(),
                };
                or_nothing(ports.into_iter().map(port).collect())
            });
            v1::NetworkPolicyIngressRule { from, ports }
        };
        let spec = v1::NetworkPolicySpec {
            egress: None,
            ingress: Some(spec.allow_incoming.map(rule).into_iter().collect()),
            pod_selector: labels(spec.pod_selector).into(),
            policy_types: Some(vec!["Ingress".to_owned()]),
        };
        v1::NetworkPolicy { metadata: self.metadata.clone(), spec: Some(spec) }
    }
}

/// A list that is there and empty is ambiguous: it matches nothing (LEG-07).
fn or_nothing<T: Nothing>(list: Vec<T>) -> Vec<T> {
    if list.is_empty() { vec![T::nothing()] } else { list }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_round_trip() {
        let text = r#"{"apiVersion":"net.alpha.kubernetes.io/v1alpha1","kind":"NetworkPolicy",
            "metadata":{"name":"pol1","namespace":"tenant-a"},
            "spec":{"podSelector":{"segment":"backend"},
                    "allowIncoming":{"from":[{"pods":{"segment":"frontend"}},{"pods":{}},{}],
                                     "toPorts":[{"port":80,"protocol":"TCP"},{"port":53}]}}}"#;
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let object: NetworkPolicy = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&object).unwrap(), value);
    }

    #[test]
    fn what_is_ambiguous_matches_nothing() {
        let rule = |incoming: &str| {
            let text = format!(r#"{{"spec":{{"allowIncoming":{incoming}}}}}"#);
            let object: NetworkPolicy = serde_json::from_str(&text).unwrap();
            object.to_v1().spec.unwrap().ingress.unwrap().remove(0)
        };
        assert_eq!(rule("{}"), v1::NetworkPolicyIngressRule::default());
        assert_eq!(rule(r#"{"from":[]}"#).from, Some(vec![Nothing::nothing()]));
        assert_eq!(rule(r#"{"from":[{}]}"#).from, Some(vec![Nothing::nothing()]));
        assert_eq!(rule(r#"{"toPorts":[]}"#).ports, Some(vec![Nothing::nothing()]));
        assert_eq!(
            rule(r#"{"toPorts":[{"protocol":"UDP"}]}"#).ports,
            Some(vec![Nothing::nothing()])
        );
        let udp = rule(r#"{"toPorts":[{"port":53,"protocol":"udp"}]}"#).ports.unwrap().remove(0);
        assert_eq!(udp.protocol.as_deref(), Some("UDP"));
    }
}
