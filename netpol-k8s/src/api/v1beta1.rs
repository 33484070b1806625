//! `NetworkPolicy` of `extensions/v1beta1`, which servers from 1.3 to 1.15 had (LEG-20..LEG-27).
//!
//! What an object means depends on the server that holds it:
//!
//! | server | isolation | an empty `from` or `ports` |
//! |---|---|---|
//! | before 1.7 | the annotation [`ANNOTATION`] of the namespace; without it no policy has any effect (LEG-23) | no source, no port (LEG-22) |
//! | 1.7 and later | as `networking.k8s.io/v1`: pods are isolated that a policy selects (LEG-24) | every source, every port (NP-08) |

use super::{Object, Spec};
use k8s_openapi::api::networking::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

/// The group and version.
pub const API_VERSION: &str = NetworkPolicySpec::API_VERSION;

/// The annotation of a namespace that isolated its pods before 1.7: `{"ingress": {"isolation": "DefaultDeny"}}`
/// (LEG-20).
pub const ANNOTATION: &str = "net.beta.kubernetes.io/network-policy";

/// Other spellings of [`ANNOTATION`] that examples of the time had, and no server (LEG-20).
pub const MISSPELT_ANNOTATIONS: [&str; 2] =
    ["net.beta.kubernetes.io/networkpolicy", "net.beta.kubernetes.io/networkPolicy"];

/// Which server's meaning the objects have.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the meaning changed once, and will not again")]
pub enum Meaning {
    /// That of servers before 1.7 (LEG-22, LEG-23).
    Before1_7,
    /// That of servers since 1.7, which is that of `networking.k8s.io/v1` (LEG-24).
    #[default]
    Since1_7,
}

/// A policy for pods of its namespace.
///
/// ```
/// use netpol_k8s::api::v1beta1::{Meaning, NetworkPolicy};
///
/// let policy: NetworkPolicy = serde_json::from_str(r#"{
///     "apiVersion": "extensions/v1beta1", "kind": "NetworkPolicy",
///     "metadata": {"name": "web"},
///     "spec": {"podSelector": {}, "ingress": [{"from": []}]}
/// }"#)?;
/// let peers = |meaning| policy.to_v1(meaning).spec.and_then(|s| s.ingress?.remove(0).from);
/// assert_eq!(peers(Meaning::Since1_7), Some(vec![])); // everything
/// assert_eq!(peers(Meaning::Before1_7), Some(vec![Default::default()])); // a peer that matches nothing
/// # Ok::<(), serde_json::Error>(())
/// ```
pub type NetworkPolicy = Object<NetworkPolicySpec>;

impl Spec for NetworkPolicySpec {
    const API_VERSION: &'static str = "extensions/v1beta1";
    const KIND: &'static str = "NetworkPolicy";
}

/// What a policy asks for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(clippy::exhaustive_structs, reason = "the API will not change any more")]
pub struct NetworkPolicySpec {
    /// The pods that it is for; absent is all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// What may reach them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<NetworkPolicyIngressRule>>,
    /// What they may reach. Since 1.8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<NetworkPolicyEgressRule>>,
    /// Which directions it isolates. Since 1.8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_types: Option<Vec<String>>,
}

/// Some sources on some ports.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
#[expect(clippy::exhaustive_structs, reason = "the API will not change any more")]
pub struct NetworkPolicyIngressRule {
    /// The ports; absent is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<NetworkPolicyPort>>,
    /// The sources; absent is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Vec<NetworkPolicyPeer>>,
}

/// Some destinations on some ports. Since 1.8.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
#[expect(clippy::exhaustive_structs, reason = "the API will not change any more")]
pub struct NetworkPolicyEgressRule {
    /// The ports; absent is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<NetworkPolicyPort>>,
    /// The destinations; absent is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<NetworkPolicyPeer>>,
}

/// A port.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
#[expect(clippy::exhaustive_structs, reason = "the API will not change any more")]
pub struct NetworkPolicyPort {
    /// `TCP`, which is also meant if it is absent, or `UDP`; since 1.12 `SCTP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// A number or the name of a container port; absent is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<IntOrString>,
}

/// The other end of a connection: one of its fields is set; both selectors together since 1.11.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(clippy::exhaustive_structs, reason = "the API will not change any more")]
pub struct NetworkPolicyPeer {
    /// Pods of the policy's namespace, or of those that the other selector selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses. Since 1.8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IPBlock>,
}

/// A block of addresses without some holes. Since 1.8.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
#[expect(clippy::exhaustive_structs, reason = "the API will not change any more")]
pub struct IPBlock {
    /// The block.
    pub cidr: String,
    /// The holes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub except: Option<Vec<String>>,
}

impl NetworkPolicy {
    /// The policy of `networking.k8s.io/v1` that means the same, where this one has a meaning at all: before 1.7 only in
    /// a namespace that its annotation isolates, and there [`default_deny`](crate::legacy::default_deny) belongs to it.
    ///
    /// What had no meaning for the server, such as a block before 1.8, becomes what matches nothing: a peer without
    /// fields, port 0. No server takes these; [`expressible`](crate::legacy::expressible) does without them. Before 1.7
    /// what is said of egress closes it: it can only have been meant for a later server.
    #[must_use]
    pub fn to_v1(&self, meaning: Meaning) -> v1::NetworkPolicy {
        let spec = self.spec.clone().unwrap_or_default();
        let policy_types = match meaning {
            Meaning::Since1_7 => spec.policy_types.clone(),
            Meaning::Before1_7 => {
                let closed =
                    if spec.names_egress() { &["Ingress", "Egress"][..] } else { &["Ingress"] };
                Some(closed.iter().map(|&name| name.to_owned()).collect())
            }
        };
        let ingress = spec.ingress.map(|rules| {
            let rule = |rule: NetworkPolicyIngressRule| v1::NetworkPolicyIngressRule {
                ports: list(rule.ports, meaning, |port| port.to_v1(meaning)),
                from: list(rule.from, meaning, |peer| peer.to_v1(meaning)),
            };
            rules.into_iter().map(rule).collect()
        });
        let egress = spec.egress.filter(|_| meaning == Meaning::Since1_7).map(|rules| {
            let rule = |rule: NetworkPolicyEgressRule| v1::NetworkPolicyEgressRule {
                ports: list(rule.ports, meaning, |port| port.to_v1(meaning)),
                to: list(rule.to, meaning, |peer| peer.to_v1(meaning)),
            };
            rules.into_iter().map(rule).collect()
        });
        let pod_selector = spec.pod_selector.unwrap_or_default().into();
        let spec = v1::NetworkPolicySpec { egress, ingress, pod_selector, policy_types };
        v1::NetworkPolicy { metadata: self.metadata.clone(), spec: Some(spec) }
    }
}

impl NetworkPolicySpec {
    fn names_egress(&self) -> bool {
        let types = self.policy_types.as_deref().unwrap_or_default();
        self.egress.is_some() || types.iter().any(|name| name != "Ingress")
    }
}

/// A list of a rule. One that is empty meant nothing before 1.7 (LEG-22).
fn list<T, V: Nothing>(
    list: Option<Vec<T>>,
    meaning: Meaning,
    convert: impl Fn(T) -> V,
) -> Option<Vec<V>> {
    let list: Vec<V> = list?.into_iter().map(convert).collect();
    let nothing = list.is_empty() && meaning == Meaning::Before1_7;
    Some(if nothing { vec![V::nothing()] } else { list })
}

/// What can be made to match nothing.
pub(crate) trait Nothing {
    /// The entry that does.
    fn nothing() -> Self;
}

impl Nothing for v1::NetworkPolicyPeer {
    fn nothing() -> Self {
        Self::default()
    }
}

impl Nothing for v1::NetworkPolicyPort {
    fn nothing() -> Self {
        Self { port: Some(IntOrString::Int(0)), ..Self::default() }
    }
}

impl NetworkPolicyPort {
    fn to_v1(&self, meaning: Meaning) -> v1::NetworkPolicyPort {
        if meaning == Meaning::Before1_7 && self.protocol.as_deref() == Some("SCTP") {
            return Nothing::nothing();
        }
        let (protocol, port) = (self.protocol.clone(), self.port.clone());
        v1::NetworkPolicyPort { protocol, port, end_port: None }
    }
}

impl NetworkPolicyPeer {
    fn to_v1(&self, meaning: Meaning) -> v1::NetworkPolicyPeer {
        let both = self.pod_selector.is_some() && self.namespace_selector.is_some();
        if meaning == Meaning::Before1_7 && (both || self.ip_block.is_some()) {
            return Nothing::nothing();
        }
        v1::NetworkPolicyPeer {
            ip_block: self
                .ip_block
                .clone()
                .map(|block| v1::IPBlock { cidr: block.cidr, except: block.except }),
            namespace_selector: self.namespace_selector.clone(),
            pod_selector: self.pod_selector.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_round_trip() {
        let text = r#"{"apiVersion":"extensions/v1beta1","kind":"NetworkPolicy","metadata":{"name":"p","namespace":"n"},
            "spec":{"podSelector":{"matchLabels":{"a":"b"}},
                    "ingress":[{"ports":[{"protocol":"UDP","port":53},{"port":"dns"}],"from":[]},{}],
                    "egress":[{"to":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}},
                                     {"podSelector":{},"namespaceSelector":{}}]}],
                    "policyTypes":["Egress"]}}"#;
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let object: NetworkPolicy = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&object).unwrap(), value);
    }

    #[test]
    fn what_a_server_did_not_know_matches_nothing() {
        let text = r#"{"metadata":{"name":"p"},"spec":{"policyTypes":["Ingress"],"ingress":[
            {"ports":[{"protocol":"SCTP","port":1},{"port":2}]}, {"from":[{"ipBlock":{"cidr":"0.0.0.0/0"}}]}, {"ports":[]}]}}"#;
        let object: NetworkPolicy = serde_json::from_str(text).unwrap();
        let spec = object.to_v1(Meaning::Before1_7).spec.unwrap();
        assert_eq!(spec.policy_types.unwrap(), ["Ingress"]);
        let rules = spec.ingress.unwrap();
        assert_eq!(rules[0].ports.as_ref().unwrap()[0], Nothing::nothing());
        assert_eq!(rules[0].ports.as_ref().unwrap()[1].port, Some(IntOrString::Int(2)));
        assert_eq!(rules[1].from, Some(vec![Nothing::nothing()]));
        assert_eq!(rules[2].ports, Some(vec![Nothing::nothing()]));
        let spec = object.to_v1(Meaning::Since1_7).spec.unwrap();
        let rules = spec.ingress.unwrap();
        assert!(rules[1].from.as_ref().unwrap()[0].ip_block.is_some());
        assert_eq!(rules[2].ports, Some(vec![]));
    }
}
