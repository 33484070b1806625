//! The manifests of a case as they are after each step, as JSON.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Kinds that live in no namespace.
const CLUSTER_SCOPED: [&str; 5] = [
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "ClusterNetworkPolicy",
    "Namespace",
    "Node",
];

/// Kind, namespace (empty for cluster-wide kinds) and name.
type Key = (String, String, String);

/// Objects in the order in which they came; one per key.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects(Vec<(Option<Key>, Value)>);

impl Objects {
    /// Adds an object, or puts it in the place of its earlier version. An object without kind or name is always new.
    pub(super) fn apply(&mut self, object: Value) {
        let key = key_of(&object);
        let earlier = key.is_some().then(|| self.0.iter_mut().find(|(k, _)| *k == key)).flatten();
        match earlier {
            Some((_, value)) => *value = object,
            None => self.0.push((key, object)),
        }
    }

    /// Removes an object that is written `Kind namespace/name` or `Kind name`.
    pub(super) fn delete(&mut self, reference: &str) -> Result<(), String> {
        let at = self.position(reference)?;
        self.0.remove(at);
        Ok(())
    }

    /// Sets labels of an object, or removes those that become `None`.
    pub(super) fn label(
        &mut self,
        reference: &str,
        labels: &BTreeMap<String, Option<String>>,
    ) -> Result<(), String> {
        let at = self.position(reference)?;
        let object = self.0.get_mut(at).map(|(_, object)| object);
        let present = object
            .and_then(|object| object.get_mut("metadata")?.as_object_mut())
            .map(|metadata| metadata.entry("labels").or_insert(Value::Null))
            .ok_or_else(|| format!("`{reference}` has no metadata"))?;
        if present.is_null() {
            *present = json!({});
        }
        let present = present
            .as_object_mut()
            .ok_or_else(|| format!("the labels of `{reference}` are no mapping"))?;
        for (key, value) in labels {
            match value {
                Some(value) => present.insert(key.clone(), json!(value)),
                None => present.remove(key),
            };
        }
        Ok(())
    }

    fn position(&self, reference: &str) -> Result<usize, String> {
        let wanted = parse_key(reference)
            .ok_or_else(|| format!("`{reference}` is not `Kind namespace/name` or `Kind name`"))?;
        self.0
            .iter()
            .position(|(key, _)| key.as_ref() == Some(&wanted))
            .ok_or_else(|| format!("there is no `{reference}`"))
    }

    /// All objects as one text: JSON documents, which are YAML documents too.
    pub(super) fn text(&self) -> String {
        self.0.iter().map(|(_, object)| format!("---\n{object:#}\n")).collect()
    }

    /// The addresses of type InternalIP of each node.
    pub(super) fn internal_addresses(&self) -> BTreeMap<String, Vec<IpAddr>> {
        let nodes = self.0.iter().filter_map(|(key, object)| match key {
            Some((kind, _, name)) if kind == "Node" => Some((name, object)),
            _ => None,
        });
        nodes
            .map(|(name, node)| {
                let addresses = node.pointer("/status/addresses").and_then(Value::as_array);
                let internal = addresses
                    .into_iter()
                    .flatten()
                    .filter(|address| address.get("type") == Some(&json!("InternalIP")))
                    .filter_map(|address| address.get("address")?.as_str()?.parse().ok())
                    .collect();
                (name.clone(), internal)
            })
            .collect()
    }
}

fn key_of(object: &Value) -> Option<Key> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    Some(key(text("/kind")?, text("/metadata/namespace"), text("/metadata/name")?))
}

fn parse_key(reference: &str) -> Option<Key> {
    let (kind, name) = reference.split_once(' ')?;
    Some(match name.split_once('/') {
        Some((namespace, name)) => key(kind, Some(namespace), name),
        None => key(kind, None, name),
    })
}

fn key(kind: &str, namespace: Option<&str>, name: &str) -> Key {
    let namespace = if CLUSTER_SCOPED.contains(&kind) {
        ""
    } else {
        namespace.filter(|namespace| !namespace.is_empty()).unwrap_or("default")
    };
    (kind.to_owned(), namespace.to_owned(), name.to_owned())
}

/// A policy of a case, with the fields that the case leaves out. One without a kind is a NetworkPolicy.
pub(super) fn policy(mut policy: Value) -> Value {
    let Some(fields) = policy.as_object_mut() else { return policy };
    let kind = fields.entry("kind").or_insert_with(|| json!("NetworkPolicy"));
    let version = match kind.as_str() {
        Some("ClusterNetworkPolicy") => "policy.networking.k8s.io/v1alpha2",
        Some("AdminNetworkPolicy" | "BaselineAdminNetworkPolicy") => {
            "policy.networking.k8s.io/v1alpha1"
        }
        _ => "networking.k8s.io/v1",
    };
    fields.entry("apiVersion").or_insert_with(|| json!(version));
    policy
}

/// The cluster of the network-policy-api suite: four houses with two pods each, and one on the host network.
pub(super) fn houses_cluster() -> Objects {
    let mut objects = Objects::default();
    let houses = [
        ("gryffindor", "harry-potter"),
        ("hufflepuff", "cedric-diggory"),
        ("ravenclaw", "luna-lovegood"),
        ("slytherin", "draco-malfoy"),
        ("forbidden-forrest", "centaur"),
    ];
    let ports = [
        ("web", "TCP", 80),
        ("web-alt", "TCP", 8080),
        ("dns", "UDP", 53),
        ("dns-alt", "UDP", 5353),
        ("sctp", "SCTP", 9003),
        ("sctp-alt", "SCTP", 9005),
    ];
    let ports = ports.map(
        |(name, protocol, port)| json!({"name": name, "protocol": protocol, "containerPort": port}),
    );
    for (n, (house, name)) in (1..).zip(houses) {
        let node = format!("node-{n}");
        let labels = json!({"conformance-house": house});
        objects.apply(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": house, "labels": labels},
        }));
        objects.apply(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}},
            "status": {"addresses": [
                {"type": "InternalIP", "address": format!("192.168.0.{n}")},
                {"type": "InternalIP", "address": format!("fd00:192:168::{n}")},
            ]},
        }));
        let host_network = name == "centaur";
        for p in if host_network { 0..1 } else { 0..2 } {
            let [v4, v6] = match host_network {
                true => [format!("192.168.0.{n}"), format!("fd00:192:168::{n}")],
                false => [format!("10.1.{n}.{}", p + 1), format!("fd00:10:1:{n}::{}", p + 1)],
            };
            objects.apply(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "namespace": house, "name": format!("{name}-{p}"), "labels": labels,
                },
                "spec": {
                    "nodeName": node, "hostNetwork": host_network,
                    "containers": [{"name": "serve", "image": "agnhost", "ports": ports}],
                },
                "status": {
                    "phase": "Running", "podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}],
                },
            }));
        }
    }
    objects
}

/// The e2e cluster: namespaces x, y and z with pods a, b and c each, one node per namespace.
pub(super) fn e2e_cluster() -> Objects {
    let mut objects = Objects::default();
    for (n, namespace) in [(1, "x"), (2, "y"), (3, "z")] {
        let node = format!("node-{n}");
        objects.apply(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"ns": namespace}},
        }));
        objects.apply(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": node},
            "status": {"addresses": [
                {"type": "InternalIP", "address": format!("192.168.0.{n}")},
                {"type": "InternalIP", "address": format!("fd00:192:168::{n}")},
                {"type": "Hostname", "address": node},
            ]},
        }));
        for (p, pod) in [(1, "a"), (2, "b"), (3, "c")] {
            let [v4, v6] = [format!("10.1.{n}.{p}"), format!("fd00:10:1:{n}::{p}")];
            let ports = [80, 81].into_iter().flat_map(|port| {
                ["TCP", "UDP", "SCTP"].map(|protocol| {
                    let name = format!("serve-{port}-{}", protocol.to_lowercase());
                    json!({"name": name, "containerPort": port, "protocol": protocol})
                })
            });
            objects.apply(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": namespace, "name": pod, "labels": {"pod": pod}},
                "spec": {
                    "nodeName": node,
                    "containers": [
                        {"name": "serve", "image": "agnhost", "ports": ports.collect::<Vec<_>>()},
                    ],
                },
                "status": {
                    "phase": "Running", "podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}],
                },
            }));
        }
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_replaced_deleted_and_labeled() {
        let mut objects = e2e_cluster();
        let count = objects.0.len();
        assert_eq!(count, 3 + 3 + 9);
        let pod = json!({"kind": "Pod", "metadata": {"namespace": "x", "name": "a"}});
        objects.apply(pod);
        assert_eq!(objects.0.len(), count, "replaced");
        let labels = [("k".to_owned(), Some("v".to_owned())), ("gone".to_owned(), None)];
        objects.label("Pod x/a", &labels.into()).unwrap();
        assert!(objects.text().contains(r#""k": "v""#));
        objects.label("Pod x/a", &[("k".to_owned(), None)].into()).unwrap();
        assert!(!objects.text().contains(r#""k""#));
        objects.delete("Pod x/a").unwrap();
        objects.delete("Namespace y").unwrap();
        assert_eq!(objects.0.len(), count - 2);
        assert_eq!(objects.delete("Pod x/a").unwrap_err(), "there is no `Pod x/a`");
        assert!(objects.delete("x/b").is_err());
    }

    #[test]
    fn broken_objects_are_kept_apart_and_default_is_a_namespace() {
        let mut objects = Objects::default();
        objects.apply(json!({"kind": "Pod", "metadata": null}));
        objects.apply(json!({"kind": "Pod", "metadata": null}));
        objects.apply(json!({"kind": "Pod", "metadata": {"name": "a"}}));
        assert_eq!(objects.0.len(), 3);
        objects.delete("Pod default/a").unwrap();
        assert!(objects.text().contains("\"metadata\": null"), "nulls are kept");
    }
}
