//! LEG-27: what legacy policies mean is what was written down of them, and conversion changes no verdict.
//!
//! The evaluators here follow LEG-01..LEG-07 and LEG-20..LEG-23 by themselves: they read the typed objects, and know nothing
//! of the conversion, of selectors in normal form or of policies in the model.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use netpol_core::{Cluster, Direction, Labels, Options, Pod, PolicyKind, Protocol};
use netpol_k8s::api::v1beta1::{self, Meaning};
use netpol_k8s::api::{Object, Spec, alpha};
use netpol_k8s::{CidrRules, Manifests, Reader, Severity, legacy, validate};
use netpol_sim::{Connection, End, Traffic, reference};
use netpol_testkit::strategies::clusters_with_connections;
use netpol_testkit::strategies::legacy::{
    Annotations, alpha_policies, annotations, v1beta1_policies,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Reads these objects, and the namespaces of the cluster with their annotations.
fn read(
    cluster: &Cluster,
    annotations: &Annotations,
    objects: &[Value],
    meaning: Meaning,
) -> Manifests {
    let mut reader = Reader::new().v1beta1_as(meaning);
    for (i, object) in objects.iter().enumerate() {
        reader.read_text(&format!("object-{i}"), &object.to_string());
    }
    for namespace in cluster.namespaces() {
        let name = namespace.name().as_str();
        let metadata = json!({"name": name, "annotations": annotations.of(name)});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        reader.read_text(name, &object.to_string());
    }
    reader.finish()
}

fn values<T: Serialize>(objects: &[T]) -> Vec<Value> {
    objects.iter().map(|object| serde_json::to_value(object).unwrap()).collect()
}

/// The pods and namespaces of one cluster, and the policies of the other.
fn with_policies(cluster: &Cluster, manifests: &Manifests) -> Cluster {
    let mut both = cluster.clone();
    for policy in cluster.policies() {
        both.remove_policy(policy.id());
    }
    for policy in manifests.cluster().policies() {
        both.insert_policy(policy.clone());
    }
    both
}

fn verdicts(cluster: &Cluster, connections: &[Connection]) -> Vec<bool> {
    let options = Options::default();
    connections.iter().map(|c| reference::allowed(cluster, c, &options)).collect()
}

/// What stays after the old objects were taken away and the new ones applied; a server takes each of them.
fn converted(manifests: &Manifests, before: &[Value]) -> Manifests {
    let conversion = legacy::to_v1(manifests);
    for policy in &conversion.policies {
        let defects = validate(policy, CidrRules::Strict);
        let errors: Vec<_> = defects.iter().filter(|d| d.severity() == Severity::Error).collect();
        assert!(errors.is_empty(), "{errors:?} in {policy:?}");
        let types = policy.spec.as_ref().and_then(|spec| spec.policy_types.as_ref());
        assert!(types.is_some_and(|types| !types.is_empty()), "types are written out");
    }
    let mut reader = Reader::new();
    let kept = before.iter().filter(|object| object["apiVersion"] == "networking.k8s.io/v1");
    let new = values(&conversion.policies);
    for (i, object) in kept.chain(&new).enumerate() {
        reader.read_text(&format!("object-{i}"), &object.to_string());
    }
    reader.finish()
}

/// One question about ingress, as the evaluators see it.
struct Asked<'a> {
    cluster: &'a Cluster,
    subject: &'a Pod,
    source: Option<&'a Pod>,
    traffic: Traffic,
}

/// The question whether policy lets a connection in; none if policy is not asked.
fn asked<'a>(cluster: &'a Cluster, connection: &Connection) -> Option<Asked<'a>> {
    let owners = cluster.address_owners();
    let pod = |end: &End| match end {
        End::Address(address) => {
            owners.get(&address.to_canonical()).and_then(|&id| cluster.pod(id))
        }
        End::Pod(id) => cluster.pod(id).filter(|pod| pod.is_managed()),
    };
    let subject = pod(connection.destination())?;
    let source = pod(connection.source());
    let itself = source.is_some_and(|source| source.id() == subject.id());
    let own_node = connection.own_node() && source.is_none();
    let discovery = matches!(connection.traffic(), Traffic::Icmpv6(133..=137));
    let traffic = connection.traffic();
    (!itself && !own_node && !discovery).then_some(Asked { cluster, subject, source, traffic })
}

impl Asked<'_> {
    /// Is the subject's namespace isolated? If nobody knows it, it is as soon as a policy depends on that.
    fn isolated(
        &self,
        isolates: impl Fn(&str) -> bool,
        mut policies: impl Iterator<Item = bool>,
    ) -> bool {
        let namespace = self.subject.id().namespace();
        match self.cluster.namespace(namespace) {
            Some(_) => isolates(namespace.as_str()),
            None => policies.any(|here| here),
        }
    }

    fn here(&self, namespace: Option<&String>) -> bool {
        namespace.is_some_and(|name| name == self.subject.id().namespace().as_str())
    }

    fn source_here(&self) -> Option<&Pod> {
        self.source.filter(|pod| pod.id().namespace() == self.subject.id().namespace())
    }
}

fn is_key(key: &str) -> bool {
    key != "not/a/key"
}

fn has_all(labels: &Labels, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.value(key) == Some(value))
}

fn protocol_is(name: Option<&str>, protocol: Protocol) -> bool {
    name.unwrap_or("TCP") == protocol.to_string()
}

/// LEG-03, LEG-04, LEG-07.
fn alpha_allows(
    annotations: &Annotations,
    policies: &[alpha::NetworkPolicy],
    asked: &Asked<'_>,
) -> bool {
    let on = |namespace: &str| {
        let value = annotations.alpha.get(namespace).map(|value| value.trim().to_lowercase());
        value.is_some_and(|value| ["on", "yes", "true"].contains(&value.as_str()))
    };
    let mut here = policies.iter().map(|policy| asked.here(policy.metadata.namespace.as_ref()));
    if !asked.isolated(on, &mut here) {
        return true;
    }
    policies.iter().filter(|policy| asked.here(policy.metadata.namespace.as_ref())).any(|policy| {
        let Some(spec) = &policy.spec else { return false };
        let Some(incoming) = &spec.allow_incoming else { return false };
        let selected = spec.pod_selector.as_ref().is_none_or(|labels| {
            labels.keys().all(|key| is_key(key)) && has_all(asked.subject.labels(), labels)
        });
        let from = incoming.from.as_ref().is_none_or(|sources| {
            sources.iter().any(|entry| match (&entry.pods, asked.source_here()) {
                (Some(pods), Some(source)) => {
                    pods.keys().all(|key| is_key(key)) && has_all(source.labels(), pods)
                }
                _ => false,
            })
        });
        let to_ports = incoming.to_ports.as_ref().is_none_or(|ports| {
            ports.iter().any(|entry| match asked.traffic {
                Traffic::Port(protocol, port) if port > 0 => {
                    let name = entry.protocol.as_ref().map(|name| name.to_uppercase());
                    entry.port == Some(i32::from(port)) && protocol_is(name.as_deref(), protocol)
                }
                _ => false,
            })
        });
        selected && from && to_ports
    })
}

/// Does a selector select these labels? Nothing if it cannot be understood.
fn selects(selector: &LabelSelector, labels: &Labels) -> Option<bool> {
    let mut all = true;
    for (key, value) in selector.match_labels.iter().flatten() {
        if !is_key(key) {
            return None;
        }
        all &= labels.value(key) == Some(value);
    }
    for expression in selector.match_expressions.iter().flatten() {
        let values = expression.values.clone().unwrap_or_default();
        let value = labels.value(&expression.key).map(str::to_owned);
        let listed = value.as_ref().is_some_and(|value| values.contains(value));
        all &= match (expression.operator.as_str(), values.is_empty()) {
            ("In", false) => listed,
            ("NotIn", false) => !listed,
            ("Exists", true) => value.is_some(),
            ("DoesNotExist", true) => value.is_none(),
            _ => return None,
        };
    }
    Some(all)
}

/// LEG-20..LEG-23. Policies that speak of egress are for other tests.
fn beta_allows(
    annotations: &Annotations,
    policies: &[v1beta1::NetworkPolicy],
    asked: &Asked<'_>,
) -> bool {
    let deny = |namespace: &str| {
        let value = annotations.beta.get(namespace);
        let value = value.and_then(|value| serde_json::from_str::<Value>(value).ok());
        value
            .is_some_and(|value| value.pointer("/ingress/isolation") == Some(&json!("DefaultDeny")))
    };
    let mut here = policies.iter().map(|policy| asked.here(policy.metadata.namespace.as_ref()));
    if !asked.isolated(deny, &mut here) {
        return true;
    }
    policies.iter().filter(|policy| asked.here(policy.metadata.namespace.as_ref())).any(|policy| {
        let Some(spec) = &policy.spec else { return false };
        let selector = spec.pod_selector.clone().unwrap_or_default();
        let selected = selects(&selector, asked.subject.labels()) == Some(true);
        let rules = || spec.ingress.iter().flatten();
        selected
            && rules().any(|rule| {
                let from = rule
                    .from
                    .as_ref()
                    .is_none_or(|peers| peers.iter().any(|peer| beta_peer(peer, asked)));
                let ports = rule
                    .ports
                    .as_ref()
                    .is_none_or(|ports| ports.iter().any(|port| beta_port(port, asked)));
                from && ports
            })
    })
}

fn beta_peer(peer: &v1beta1::NetworkPolicyPeer, asked: &Asked<'_>) -> bool {
    match (&peer.pod_selector, &peer.namespace_selector, &peer.ip_block) {
        (Some(pods), None, None) => {
            asked.source_here().is_some_and(|pod| selects(pods, pod.labels()) == Some(true))
        }
        (None, Some(namespaces), None) => {
            let namespace =
                asked.source.and_then(|pod| asked.cluster.namespace(pod.id().namespace()));
            namespace.is_some_and(|namespace| selects(namespaces, namespace.labels()) == Some(true))
        }
        _ => false,
    }
}

fn beta_port(entry: &v1beta1::NetworkPolicyPort, asked: &Asked<'_>) -> bool {
    let Traffic::Port(protocol, port) = asked.traffic else { return false };
    let matches = match &entry.port {
        None => true,
        Some(IntOrString::Int(number)) => port > 0 && *number == i32::from(port),
        Some(IntOrString::String(name)) => asked
            .subject
            .ports()
            .iter()
            .any(|p| p.name.as_str() == name && p.protocol == protocol && p.port == port),
    };
    matches && protocol != Protocol::Sctp && protocol_is(entry.protocol.as_deref(), protocol)
}

/// What was read of these policies means what the evaluator says, and so does what they are converted to.
fn means<S: Spec + Serialize + Clone>(
    (cluster, connections): (&Cluster, &[Connection]),
    annotations: &Annotations,
    policies: &[Object<S>],
    meaning: Meaning,
    allows: impl Fn(&[Object<S>], &Asked<'_>) -> bool,
) -> Result<(), TestCaseError> {
    // Only the last object of a name counts, as for a server.
    let name = |p: &Object<S>| (p.metadata.namespace.clone(), p.metadata.name.clone());
    let by_name: BTreeMap<_, _> = policies.iter().map(|policy| (name(policy), policy)).collect();
    let policies: Vec<_> = by_name.into_values().cloned().collect();
    let objects = values(&policies);
    let manifests = read(cluster, annotations, &objects, meaning);
    let before = verdicts(&with_policies(cluster, &manifests), connections);
    for (connection, verdict) in connections.iter().zip(&before) {
        let expected = asked(cluster, connection).is_none_or(|asked| allows(&policies, &asked));
        prop_assert_eq!(*verdict, expected, "{}", connection);
    }
    let after = converted(&manifests, &objects);
    prop_assert_eq!(verdicts(&with_policies(cluster, &after), connections), before);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn leg_27_the_alpha(
        (cluster, connections) in clusters_with_connections(),
        annotations in annotations(),
        policies in vec(alpha_policies(), 0..=5),
    ) {
        let annotations = Annotations { beta: BTreeMap::new(), ..annotations };
        let allows = |policies: &[_], asked: &Asked<'_>| alpha_allows(&annotations, policies, asked);
        means((&cluster, &connections), &annotations, &policies, Meaning::default(), allows)?;
    }

    #[test]
    fn leg_27_v1beta1_before_1_7(
        (cluster, connections) in clusters_with_connections(),
        annotations in annotations(),
        mut policies in vec(v1beta1_policies(), 0..=5),
    ) {
        for spec in policies.iter_mut().filter_map(|policy| policy.spec.as_mut()) {
            (spec.egress, spec.policy_types) = (None, None);
        }
        let annotations = Annotations { alpha: BTreeMap::new(), ..annotations };
        let allows = |policies: &[_], asked: &Asked<'_>| beta_allows(&annotations, policies, asked);
        means((&cluster, &connections), &annotations, &policies, Meaning::Before1_7, allows)?;
    }

    #[test]
    fn leg_27_v1beta1_since_1_7(
        (cluster, connections) in clusters_with_connections(),
        annotations in annotations(),
        policies in vec(v1beta1_policies(), 0..=5),
    ) {
        let objects = values(&policies);
        let only_beta = Annotations { alpha: BTreeMap::new(), ..annotations };
        let manifests = read(&cluster, &only_beta, &objects, Meaning::Since1_7);
        let before = verdicts(&with_policies(&cluster, &manifests), &connections);
        // LEG-26: the same objects under another version.
        let mut renamed = objects.clone();
        for object in &mut renamed {
            object["apiVersion"] = json!("networking.k8s.io/v1");
        }
        let as_v1 = read(&cluster, &Annotations::default(), &renamed, Meaning::Since1_7);
        prop_assert_eq!(verdicts(&with_policies(&cluster, &as_v1), &connections), before.clone());
        let after = converted(&manifests, &objects);
        prop_assert_eq!(verdicts(&with_policies(&cluster, &after), &connections), before);
    }

    /// All of them at once, beside policies of today, in any order: names meet, and nothing replaces what it must not.
    #[test]
    fn leg_27_everything_together(
        (cluster, connections) in clusters_with_connections(),
        annotations in annotations(),
        alphas in vec(alpha_policies(), 0..=3),
        betas in vec(v1beta1_policies(), 0..=3),
        others in vec(v1beta1_policies(), 0..=3),
        before_1_7: bool,
        shuffle in vec(any::<u8>(), 9),
    ) {
        let meaning = if before_1_7 { Meaning::Before1_7 } else { Meaning::Since1_7 };
        let mut objects = values(&alphas);
        objects.extend(values(&betas));
        objects.extend(values(&others).into_iter().map(|mut object| {
            object["apiVersion"] = json!("networking.k8s.io/v1");
            // What stays in the cluster while the others are converted has a name that a server takes.
            if object["metadata"]["name"] == "No Name!" {
                object["metadata"]["name"] = json!("no-name");
            }
            object
        }));
        let mut keyed: Vec<_> = shuffle.into_iter().chain(std::iter::repeat(0)).zip(objects).collect();
        keyed.sort_by_key(|(key, _)| *key);
        let objects: Vec<Value> = keyed.into_iter().map(|(_, object)| object).collect();
        let manifests = read(&cluster, &annotations, &objects, meaning);
        let all = with_policies(&cluster, &manifests);
        let before = verdicts(&all, &connections);
        let after = converted(&manifests, &objects);
        prop_assert_eq!(verdicts(&with_policies(&cluster, &after), &connections), before);
        // An annotation only ever takes away: without it no connection is less allowed.
        let mut without = all.clone();
        for policy in all.policies().filter(|p| p.id().kind == PolicyKind::NamespaceAnnotation) {
            prop_assert!(policy.rules(Direction::Ingress).is_some_and(<[_]>::is_empty));
            without.remove_policy(policy.id());
        }
        for (with, without) in verdicts(&all, &connections).into_iter().zip(verdicts(&without, &connections)) {
            prop_assert!(without || !with);
        }
    }
}
