//! The rule that would have allowed what is denied, ready to be pasted into a NetworkPolicy.

use netpol_core::{Cluster, Direction, NAMESPACE_NAME_LABEL, Pod, Protocol};
use netpol_sim::{End, Traffic};

/// One entry of `ingress:` or `egress:` that allows exactly this.
///
/// None for what a NetworkPolicy cannot say: a pod on the host network without an address.
pub(super) fn rule(
    direction: Direction,
    subject: &Pod,
    remote: Option<&Pod>,
    remote_end: &End,
    traffic: Traffic,
    cluster: &Cluster,
) -> Option<String> {
    let peer = match (remote.filter(|pod| pod.is_managed()), remote_end) {
        (Some(pod), _) => pod_peer(subject, pod, cluster),
        (None, End::Address(address)) => {
            let length = if address.is_ipv4() { 32 } else { 128 };
            format!("    - ipBlock: {{cidr: {address}/{length}}}\n")
        }
        (None, End::Pod(_)) => return None,
    };
    let list = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let ports = match traffic {
        Traffic::Port(protocol, port) => {
            let protocol = match protocol {
                Protocol::Tcp => String::new(),
                other => format!("protocol: {other}, "),
            };
            format!("    ports:\n    - {{{protocol}port: {port}}}\n")
        }
        // Only a rule without ports allows other protocols (NP-51).
        Traffic::Icmpv6(_) | Traffic::Other(_) => String::new(),
    };
    Some(format!("{direction}:\n  - {list}:\n{peer}{ports}"))
}

/// The remote pod by all its labels, and its namespace by name where that is another.
fn pod_peer(subject: &Pod, remote: &Pod, cluster: &Cluster) -> String {
    let mut peer = String::new();
    let namespace = remote.id().namespace();
    let indent = if namespace == subject.id().namespace() {
        "    - "
    } else {
        // Every namespace of a cluster since 1.21 carries its name; ours fill it in (NP-25).
        let known = cluster.namespace(namespace).is_some();
        let missing = if known { "" } else { "  # the Namespace object was not read" };
        peer.push_str(&format!(
            "    - namespaceSelector: {{matchLabels: {{{NAMESPACE_NAME_LABEL}: {namespace}}}}}{missing}\n"
        ));
        "      "
    };
    let labels: Vec<String> = remote
        .labels()
        .iter()
        .filter(|(key, _)| !VOLATILE.contains(key))
        .map(|(key, value)| format!("{key}: {}", yaml_text(value)))
        .collect();
    let labels = labels.join(", ");
    if labels.is_empty() {
        peer.push_str(&format!("{indent}podSelector: {{}}\n"));
    } else {
        peer.push_str(&format!("{indent}podSelector: {{matchLabels: {{{labels}}}}}\n"));
    }
    peer
}

/// Labels that controllers write anew with every rollout or pod.
const VOLATILE: &[&str] = &[
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
];

/// A label value as YAML: quoted unless it cannot be anything but text.
fn yaml_text(value: &str) -> String {
    let plain = value.starts_with(|c: char| c.is_ascii_alphabetic())
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && !matches!(
            value.to_ascii_lowercase().as_str(),
            "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null"
        );
    if plain { value.to_owned() } else { format!("{value:?}") }
}
