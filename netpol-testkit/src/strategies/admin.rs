//! Cluster-wide policies as typed objects of both versions, good and bad, in the vocabulary of the other strategies: the
//! namespaces, labels, addresses and ports are those of [`clusters`](super::clusters).

use super::networks;
use super::vocabulary::{LABEL_KEYS, LABEL_VALUES, POLICY_NAMES, PORT_NAMES, PORTS, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use netpol_k8s::api::v1alpha1::{
    self as v1, AdminNetworkPolicy, AdminNetworkPolicySpec, BaselineAdminNetworkPolicy,
    BaselineAdminNetworkPolicySpec,
};
use netpol_k8s::api::v1alpha2::{self as v2, ClusterNetworkPolicy, ClusterNetworkPolicySpec};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::fmt::Debug;

/// Are the objects those that a server would store and anybody can evaluate, or also others?
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "sound or not")]
pub enum Quality {
    /// Whatever an object can say that means something.
    Sound,
    /// Also what nobody knows or can evaluate, and what a server refuses.
    Any,
}

/// A value, or now and then another that is broken.
fn or_broken<T: Debug + Clone + 'static>(
    quality: Quality,
    good: impl Strategy<Value = T> + 'static,
    broken: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    match quality {
        Quality::Sound => good.boxed(),
        Quality::Any => prop_oneof![20 => good, 1 => broken].boxed(),
    }
}

fn owned(from: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    names(from).prop_map(str::to_owned)
}

fn requirement(
    operators: &'static [&'static str],
    values: impl Strategy<Value = Vec<String>>,
) -> impl Strategy<Value = LabelSelectorRequirement> {
    (owned(&LABEL_KEYS), owned(operators), values).prop_map(|(key, operator, values)| {
        let values = (!values.is_empty()).then_some(values);
        LabelSelectorRequirement { key, operator, values }
    })
}

fn selectors(quality: Quality) -> impl Strategy<Value = LabelSelector> {
    let values = || vec(owned(&LABEL_VALUES), 1..=2);
    let good = prop_oneof![
        requirement(&["In", "NotIn"], values()),
        requirement(&["Exists", "DoesNotExist"], Just(vec![])),
    ];
    let broken = prop_oneof![
        requirement(&["Gt", "Exists", "in"], values()),
        requirement(&["In", "NotIn"], Just(vec![])),
    ];
    let expressions = vec(or_broken(quality, good, broken), 0..=1);
    let labels = btree_map(owned(&LABEL_KEYS), owned(&LABEL_VALUES), 0..=1);
    (option::weighted(0.5, labels), option::weighted(0.4, expressions)).prop_map(
        |(match_labels, match_expressions)| LabelSelector { match_expressions, match_labels },
    )
}

fn v2_pods(quality: Quality) -> impl Strategy<Value = v2::NamespacedPod> {
    (option::weighted(0.6, selectors(quality)), selectors(quality)).prop_map(
        |(namespace_selector, pods)| v2::NamespacedPod {
            namespace_selector,
            pod_selector: Some(pods),
        },
    )
}

fn v2_subjects(quality: Quality) -> impl Strategy<Value = v2::Subject> {
    let namespaces = |selector| v2::Subject { namespaces: Some(selector), pods: None };
    let good = prop_oneof![
        2 => Just(namespaces(LabelSelector::default())),
        2 => selectors(quality).prop_map(namespaces),
        2 => v2_pods(quality).prop_map(|pods| v2::Subject { namespaces: None, pods: Some(pods) }),
    ];
    let broken = prop_oneof![
        Just(v2::Subject::default()),
        v2_pods(quality).prop_map(|pods| v2::Subject {
            namespaces: Some(LabelSelector::default()),
            pods: Some(pods)
        }),
    ];
    or_broken(quality, good, broken)
}

fn v2_peers(quality: Quality) -> impl Strategy<Value = v2::EgressPeer> {
    let none = v2::EgressPeer::default;
    let set = btree_set(networks().prop_map(|net| net.to_string()), 1..=2);
    let good = prop_oneof![
        3 => selectors(quality).prop_map(move |s| v2::EgressPeer { namespaces: Some(s), ..none() }),
        4 => v2_pods(quality).prop_map(move |pods| v2::EgressPeer { pods: Some(pods), ..none() }),
        3 => set.prop_map(move |set| v2::EgressPeer {
            networks: Some(set.into_iter().collect()),
            ..none()
        }),
        1 => selectors(quality).prop_map(move |s| v2::EgressPeer { nodes: Some(s), ..none() }),
    ];
    let broken = prop_oneof![
        Just(none()),
        Just(v2::EgressPeer { networks: Some(vec!["10.0.0.0/33".to_owned()]), ..none() }),
        Just(v2::EgressPeer { domain_names: Some(vec!["a.b".to_owned()]), ..none() }),
        selectors(quality).prop_map(move |s| v2::EgressPeer {
            namespaces: Some(s.clone()),
            nodes: Some(s),
            ..none()
        }),
    ];
    or_broken(quality, good, broken)
}

fn ports() -> impl Strategy<Value = i32> + Clone {
    select(&PORTS[..]).prop_map(i32::from)
}

/// Two different ports in order.
fn ranges() -> impl Strategy<Value = (i32, i32)> {
    let different = (ports(), ports()).prop_filter("different", |(a, b)| a != b);
    different.prop_map(|(a, b)| (a.min(b), a.max(b)))
}

fn of_protocol(which: u8, destination_port: Option<v2::Port>) -> v2::Protocol {
    let ports = Some(v2::ProtocolPorts { destination_port });
    let none = v2::Protocol::default();
    match which {
        0 => v2::Protocol { udp: ports, ..none },
        1 => v2::Protocol { sctp: ports, ..none },
        _ => v2::Protocol { tcp: ports, ..none },
    }
}

fn number(number: i32) -> Option<v2::Port> {
    Some(v2::Port { number: Some(number), range: None })
}

fn range(start: i32, end: i32) -> Option<v2::Port> {
    Some(v2::Port { number: None, range: Some(v2::PortRange { start, end }) })
}

fn v2_protocols(quality: Quality) -> impl Strategy<Value = v2::Protocol> {
    let which = || 0u8..5;
    let named =
        |name| v2::Protocol { destination_named_port: Some(name), ..v2::Protocol::default() };
    let good = prop_oneof![
        (which(), ports()).prop_map(|(which, port)| of_protocol(which, number(port))),
        (which(), ranges()).prop_map(|(which, (a, b))| of_protocol(which, range(a, b))),
        owned(&PORT_NAMES).prop_map(named),
    ];
    let broken = prop_oneof![
        Just(v2::Protocol::default()),
        which().prop_map(|which| of_protocol(which, None)),
        which().prop_map(|which| of_protocol(which, number(0))),
        (which(), ranges()).prop_map(|(which, (a, b))| of_protocol(which, range(b, a))),
        Just(v2::Protocol { udp: Some(v2::ProtocolPorts::default()), ..of_protocol(2, None) }),
    ];
    or_broken(quality, good, broken)
}

/// A list that has something in it; a broken one is empty.
fn lists<T: Debug + Clone + 'static>(
    quality: Quality,
    most: usize,
    item: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Vec<T>> {
    or_broken(quality, vec(item, 1..=most), Just(vec![]))
}

fn actions(quality: Quality, known: &'static [&'static str]) -> BoxedStrategy<String> {
    or_broken(quality, owned(known), owned(&["", "Reject"]))
}

/// A rule without its direction: action, peers, protocols.
type V2Rule = (String, Vec<v2::EgressPeer>, Option<Vec<v2::Protocol>>);

fn v2_rules(quality: Quality) -> impl Strategy<Value = Vec<V2Rule>> {
    let peers = lists(quality, 3, v2_peers(quality));
    let protocols = option::weighted(0.5, lists(quality, 3, v2_protocols(quality)));
    vec((actions(quality, &["Accept", "Deny", "Pass"]), peers, protocols), 0..=4)
}

/// What is no pod becomes all pods.
fn only_pods(peer: v2::EgressPeer) -> v2::EgressPeer {
    let other = peer.networks.is_some() || peer.nodes.is_some();
    let namespaces = peer.namespaces.or(other.then(LabelSelector::default));
    v2::EgressPeer { namespaces, pods: peer.pods, ..v2::EgressPeer::default() }
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

fn priorities(quality: Quality) -> BoxedStrategy<Option<i32>> {
    let good = select(&[0, 1, 5, 10, 11, 500, 999, 1000][..]).prop_map(Some);
    or_broken(quality, good, select(&[None, Some(-1), Some(2000)][..]))
}

/// ClusterNetworkPolicies of both tiers.
pub fn cluster_network_policies(quality: Quality) -> impl Strategy<Value = ClusterNetworkPolicy> {
    let tier = or_broken(quality, owned(&["Admin", "Baseline"]), owned(&["admin", ""]));
    let rules = || v2_rules(quality);
    (names(&POLICY_NAMES), tier, priorities(quality), v2_subjects(quality), rules(), rules())
        .prop_map(move |(name, tier, priority, subject, ingress, egress)| {
            let ingress = ingress.into_iter().map(|(action, peers, protocols)| {
                let from = peers.into_iter().map(|peer| {
                    let v2::EgressPeer { namespaces, pods, .. } = only_pods(peer);
                    v2::IngressPeer { namespaces, pods }
                });
                v2::IngressRule { name: None, action, from: from.collect(), protocols }
            });
            let egress = egress.into_iter().map(|(action, mut to, protocols)| {
                let named = |p: &v2::Protocol| p.destination_named_port.is_some();
                // A server of the experimental channel refuses names beside what has none.
                if quality == Quality::Sound && protocols.iter().flatten().any(named) {
                    to = to.into_iter().map(only_pods).collect();
                }
                v2::EgressRule { name: None, action, to, protocols }
            });
            let (ingress, egress) = (ingress.collect(), egress.collect());
            let spec = ClusterNetworkPolicySpec { tier, priority, subject, ingress, egress };
            ClusterNetworkPolicy { metadata: metadata(name), spec: Some(spec) }
        })
}

/// The same namespaces in the words of v1alpha1, in the old shape or in the new one.
fn v1_namespaces(selector: LabelSelector, old: bool) -> v1::NamespacesPeer {
    if old {
        v1::NamespacesPeer { namespace_selector: Some(selector), ..v1::NamespacesPeer::default() }
    } else {
        let LabelSelector { match_expressions, match_labels } = selector;
        v1::NamespacesPeer { match_labels, match_expressions, ..v1::NamespacesPeer::default() }
    }
}

fn v1_peer(peer: v2::EgressPeer, old: bool) -> v1::EgressPeer {
    v1::EgressPeer {
        namespaces: peer.namespaces.map(|selector| v1_namespaces(selector, old)),
        pods: peer.pods.map(|pods| {
            let selector = pods.namespace_selector.unwrap_or_default();
            v1::PodsPeer {
                namespaces: old.then(|| v1_namespaces(selector.clone(), true)),
                namespace_selector: (!old).then_some(selector),
                pod_selector: pods.pod_selector,
            }
        }),
        networks: peer.networks,
        nodes: peer.nodes,
        domain_names: peer.domain_names,
    }
}

fn v1_ports(quality: Quality) -> impl Strategy<Value = v1::Port> {
    let protocol = || {
        let unknown = owned(&["tcp", "ICMP"]).prop_map(Some);
        or_broken(quality, option::of(owned(&["TCP", "UDP", "SCTP"])), unknown)
    };
    let number = (protocol(), ports()).prop_map(|(protocol, port)| v1::Port {
        port_number: Some(v1::PortNumber { protocol, port }),
        ..v1::Port::default()
    });
    // Backwards too, which a server stores.
    let range = (protocol(), ports(), ports()).prop_map(|(protocol, start, end)| v1::Port {
        port_range: Some(v1::PortRange { protocol, start, end }),
        ..v1::Port::default()
    });
    let named =
        owned(&PORT_NAMES).prop_map(|n| v1::Port { named_port: Some(n), ..v1::Port::default() });
    or_broken(quality, prop_oneof![number, range, named], Just(v1::Port::default()))
}

type V1Rules = (Vec<v1::IngressRule>, Vec<v1::EgressRule>);

/// Rules of v1alpha1; if `many`, sometimes more rules, peers and ports than v1alpha2 can hold in one place.
fn v1_rules(quality: Quality, pass: bool, many: bool) -> impl Strategy<Value = V1Rules> {
    let known: &[&str] = if pass { &["Allow", "Deny", "Pass"] } else { &["Allow", "Deny"] };
    let most = if many { 30 } else { 3 };
    let peers = lists(quality, most, v2_peers(quality));
    let ports = option::weighted(0.5, lists(quality, most, v1_ports(quality)));
    let rule = (actions(quality, known), peers, ports);
    let count = if many {
        prop_oneof![2 => 0..4usize, 1 => 26..56usize].boxed()
    } else {
        (0..5usize).boxed()
    };
    let rules = count.prop_flat_map(move |count| vec(rule.clone(), count));
    (rules, any::<bool>()).prop_map(move |(rules, old)| {
        let (mut ingress, mut egress) = (Vec::new(), Vec::new());
        for (i, (action, mut peers, ports)) in rules.into_iter().enumerate() {
            // The old shape knows neither networks nor nodes, and no source is one.
            if i % 3 == 0 || old {
                peers = peers.into_iter().map(only_pods).collect();
            }
            let peers = peers.into_iter().map(|peer| v1_peer(peer, old));
            if i % 3 == 0 {
                let from = peers.map(|v1::EgressPeer { namespaces, pods, .. }| v1::IngressPeer {
                    namespaces,
                    pods,
                });
                ingress.push(v1::IngressRule { name: None, action, from: from.collect(), ports });
            } else {
                egress.push(v1::EgressRule { name: None, action, to: peers.collect(), ports });
            }
        }
        (ingress, egress)
    })
}

fn v1_subjects(quality: Quality) -> impl Strategy<Value = v1::Subject> {
    v2_subjects(quality).prop_map(|subject| v1::Subject {
        namespaces: subject.namespaces,
        pods: subject.pods.map(|pods| v1::NamespacedPod {
            namespace_selector: Some(pods.namespace_selector.unwrap_or_default()),
            pod_selector: pods.pod_selector,
        }),
    })
}

/// AdminNetworkPolicies; some, if `many`, with more of everything than a ClusterNetworkPolicy can hold.
pub fn admin_network_policies(
    quality: Quality,
    many: bool,
) -> impl Strategy<Value = AdminNetworkPolicy> {
    let rules = v1_rules(quality, true, many);
    (names(&POLICY_NAMES), priorities(quality), v1_subjects(quality), rules).prop_map(
        |(name, priority, subject, (ingress, egress))| AdminNetworkPolicy {
            metadata: metadata(name),
            spec: Some(AdminNetworkPolicySpec { priority, subject, ingress, egress }),
        },
    )
}

/// The BaselineAdminNetworkPolicy, likewise.
pub fn baseline_admin_network_policies(
    quality: Quality,
    many: bool,
) -> impl Strategy<Value = BaselineAdminNetworkPolicy> {
    (v1_subjects(quality), v1_rules(quality, false, many)).prop_map(
        |(subject, (ingress, egress))| BaselineAdminNetworkPolicy {
            metadata: metadata("default"),
            spec: Some(BaselineAdminNetworkPolicySpec { subject, ingress, egress }),
        },
    )
}
