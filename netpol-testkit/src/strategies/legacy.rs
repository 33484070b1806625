//! Objects of the APIs of before `networking.k8s.io/v1`, good and bad, in the vocabulary of the other strategies: the
//! namespaces, labels and ports are those of [`clusters`](super::clusters).

use super::vocabulary::{
    LABEL_KEYS, NAMESPACES, POLICY_NAMES, PORT_NAMES, PORTS, names, namespace_names,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use netpol_k8s::api::{alpha, v1beta1};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeMap;

/// Values of labels; the last is none that an object can have.
const VALUES: [&str; 4] = ["", "a", "b", "no label"];

/// What the isolating annotations of each namespace are.
#[derive(Clone, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "there were these two")]
pub struct Annotations {
    /// Of the alpha, by namespace.
    pub alpha: BTreeMap<&'static str, &'static str>,
    /// Of `extensions/v1beta1`, by namespace.
    pub beta: BTreeMap<&'static str, &'static str>,
}

impl Annotations {
    /// All of one namespace, by key.
    #[must_use]
    pub fn of(&self, namespace: &str) -> BTreeMap<String, String> {
        let pair = |key: &str, map: &BTreeMap<&str, &'static str>| {
            map.get(namespace).map(|value| (key.to_owned(), (*value).to_owned()))
        };
        let both = [pair(alpha::ANNOTATION, &self.alpha), pair(v1beta1::ANNOTATION, &self.beta)];
        both.into_iter().flatten().collect()
    }
}

/// Annotations of both kinds, often those that isolate.
pub fn annotations() -> impl Strategy<Value = Annotations> {
    const ALPHA: [&str; 6] = ["on", "on", " Yes", "off", "true", "isolated"];
    const BETA: [&str; 6] = [
        r#"{"ingress": {"isolation": "DefaultDeny"}}"#,
        r#"{"ingress":{"isolation":"DefaultDeny"},"egress":{}}"#,
        r#"{"ingress": {"isolation": "Other"}}"#,
        r#"{"ingress": {}}"#,
        r#"{"ingress": {"isolation": "DefaultDeny"}"#,
        r#"{"ingress": {"isolation": "DefaultDeny"}}"#,
    ];
    let some = |values: &'static [&'static str]| {
        NAMESPACES.map(|name| {
            option::weighted(0.8, select(values)).prop_map(move |value| Some((name, value?)))
        })
    };
    (some(&ALPHA), some(&BETA)).prop_map(|(alpha, beta)| Annotations {
        alpha: alpha.into_iter().flatten().collect(),
        beta: beta.into_iter().flatten().collect(),
    })
}

fn metadata() -> impl Strategy<Value = ObjectMeta> {
    let name = prop_oneof![
        8 => names(&POLICY_NAMES),
        1 => Just("default-deny"),
        1 => Just("No Name!"),
    ];
    (namespace_names(), name, prop::bool::weighted(0.1)).prop_map(|(namespace, name, odd)| {
        let odd = odd.then(|| BTreeMap::from([("a key".to_owned(), "of no label".to_owned())]));
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: odd,
            ..ObjectMeta::default()
        }
    })
}

fn label_maps() -> impl Strategy<Value = BTreeMap<String, String>> {
    let key = prop_oneof![20 => names(&LABEL_KEYS), 1 => Just("not/a/key")].prop_map(str::to_owned);
    let value = prop_oneof![12 => names(&VALUES[..3]), 1 => names(&VALUES[3..])];
    btree_map(key, value.prop_map(str::to_owned), 0..=2)
}

fn protocols() -> impl Strategy<Value = Option<String>> {
    option::weighted(0.6, select(&["TCP", "TCP", "UDP", "SCTP", "udp", "GRE"][..]))
        .prop_map(|name| name.map(str::to_owned))
}

fn numbers() -> impl Strategy<Value = i32> {
    prop_oneof![9 => select(&PORTS[..]).prop_map(i32::from), 1 => select(&[0, -1, 65536][..])]
}

/// Absent, empty, or with some entries.
fn lists<T: Clone + std::fmt::Debug>(
    entry: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<Vec<T>>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(Vec::new())),
        6 => vec(entry, 1..=3).prop_map(Some),
    ]
}

/// Policies of the alpha.
pub fn alpha_policies() -> impl Strategy<Value = alpha::NetworkPolicy> {
    let source = option::weighted(0.9, label_maps()).prop_map(|pods| alpha::Source { pods });
    let port = (option::weighted(0.9, numbers()), protocols())
        .prop_map(|(port, protocol)| alpha::ToPort { port, protocol });
    let incoming = (lists(source), lists(port))
        .prop_map(|(from, to_ports)| alpha::AllowIncoming { from, to_ports });
    let spec = (option::weighted(0.9, label_maps()), option::weighted(0.9, incoming)).prop_map(
        |(pod_selector, allow_incoming)| alpha::NetworkPolicySpec { pod_selector, allow_incoming },
    );
    (metadata(), option::weighted(0.97, spec))
        .prop_map(|(metadata, spec)| alpha::NetworkPolicy { metadata, spec })
}

fn selectors() -> impl Strategy<Value = LabelSelector> {
    let values = vec(names(&VALUES).prop_map(str::to_owned), 0..=2);
    let operator = select(&["In", "In", "NotIn", "NotIn", "Exists", "DoesNotExist", "Equals"][..]);
    let expression = (names(&LABEL_KEYS), operator, values).prop_map(|(key, operator, values)| {
        let takes = matches!(operator, "In" | "NotIn");
        LabelSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: (takes || values.len() == 2).then_some(values),
        }
    });
    (option::weighted(0.6, label_maps()), option::weighted(0.3, vec(expression, 0..=2))).prop_map(
        |(match_labels, match_expressions)| LabelSelector { match_labels, match_expressions },
    )
}

/// Policies of `extensions/v1beta1`. Some have what came with later servers.
pub fn v1beta1_policies() -> impl Strategy<Value = v1beta1::NetworkPolicy> {
    let block = (
        select(
            &["10.0.0.0/29", "10.0.0.1/29", "0.0.0.0/0", "fd00::/112", "::/0", "010.0.0.0/8", "no"]
                [..],
        ),
        option::weighted(0.3, vec(select(&["10.0.0.0/30", "fd00::/126", "10.9.9.9"][..]), 0..=1)),
    )
        .prop_map(|(cidr, except)| v1beta1::IPBlock {
            cidr: cidr.to_owned(),
            except: except.map(|holes| holes.into_iter().map(str::to_owned).collect()),
        });
    let peer = (
        option::weighted(0.6, selectors()),
        option::weighted(0.3, selectors()),
        option::weighted(0.1, block),
    )
        .prop_map(|(pod_selector, namespace_selector, ip_block)| v1beta1::NetworkPolicyPeer {
            pod_selector,
            namespace_selector,
            ip_block,
        })
        .boxed();
    let number = prop_oneof![
        3 => numbers().prop_map(IntOrString::Int),
        2 => names(&PORT_NAMES).prop_map(|name| IntOrString::String(name.to_owned())),
        1 => Just(IntOrString::String("80".to_owned())),
    ];
    let port = (option::weighted(0.8, number), protocols())
        .prop_map(|(port, protocol)| v1beta1::NetworkPolicyPort { protocol, port })
        .boxed();
    let ingress = (lists(port.clone()), lists(peer.clone()))
        .prop_map(|(ports, from)| v1beta1::NetworkPolicyIngressRule { ports, from });
    let egress = (lists(port), lists(peer))
        .prop_map(|(ports, to)| v1beta1::NetworkPolicyEgressRule { ports, to });
    let types = select(&["Ingress", "Ingress", "Egress", "Both"][..]).prop_map(str::to_owned);
    let spec =
        (
            option::weighted(0.9, selectors()),
            option::weighted(0.9, vec(ingress, 0..=2)),
            option::weighted(0.15, vec(egress, 0..=2)),
            option::weighted(0.15, vec(types, 0..=2)),
        )
            .prop_map(|(pod_selector, ingress, egress, policy_types)| {
                v1beta1::NetworkPolicySpec { pod_selector, ingress, egress, policy_types }
            });
    (metadata(), option::weighted(0.97, spec))
        .prop_map(|(metadata, spec)| v1beta1::NetworkPolicy { metadata, spec })
}
