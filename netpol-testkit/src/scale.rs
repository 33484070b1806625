//! Clusters of any size for measuring: equal arguments give equal clusters.
//!
//! The shape of [`manifests`] is that of a cluster with one team per namespace: about 100 pods each, ten workloads of ten pods, a policy for each
//! workload that names peers by pod labels, by namespace labels and by address blocks, named ports, and DNS.

use netpol_core::{
    Cluster, Labels, Match, Namespace, Peer, Phase, Pod, PodId, PodSelection, Policy, PolicyRule,
    PortEntry, Protocol, Selector, TrafficMatch, Verdict,
};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The manifests of `pods` pods and `policies` policies: namespaces, nodes, running pods of ReplicaSets with both families, and
/// NetworkPolicies, as one YAML text of about 1 kB a pod.
#[must_use]
pub fn manifests(pods: usize, policies: usize) -> String {
    let namespaces = pods.div_ceil(100).max(1);
    let mut text = String::with_capacity(pods * 1200 + policies * 1500);
    for number in 0..namespaces {
        let environment = if number % 3 == 0 { "dev" } else { "prod" };
        let _ = write!(
            text,
            "---
apiVersion: v1
kind: Namespace
metadata:
  name: team-{number}
  labels:
    team: t{}
    env: {environment}
",
            number % 10
        );
    }
    for number in 0..pods.div_ceil(110) {
        let _ = write!(
            text,
            "---
apiVersion: v1
kind: Node
metadata:
  name: node-{number}
status:
  addresses:
  - {{type: InternalIP, address: 172.16.{}.{}}}
",
            number / 250,
            number % 250 + 1
        );
    }
    for number in 0..pods {
        pod(&mut text, number, namespaces, pods.div_ceil(110));
    }
    for number in 0..policies {
        policy(&mut text, number, namespaces);
    }
    text
}

fn pod(text: &mut String, number: usize, namespaces: usize, nodes: usize) {
    let namespace = number % namespaces;
    let workload = number / namespaces / 10;
    let tier = ["web", "api", "db"].get(workload % 3).copied().unwrap_or_default();
    let (a, b, c) = (number / 65536, number / 256 % 256, number % 256);
    let _ = write!(
        text,
        "---
apiVersion: v1
kind: Pod
metadata:
  name: app-{workload}-5d4f8c7b9-{number:05}
  namespace: team-{namespace}
  uid: 00000000-0000-4000-8000-{number:012}
  creationTimestamp: \"2026-01-01T00:00:00Z\"
  labels:
    app: app-{workload}
    tier: {tier}
    app.kubernetes.io/name: app-{workload}
    app.kubernetes.io/part-of: team-{namespace}
    app.kubernetes.io/version: \"1.{}\"
    pod-template-hash: 5d4f8c7b9
  ownerReferences:
  - apiVersion: apps/v1
    kind: ReplicaSet
    name: app-{workload}-5d4f8c7b9
    uid: 00000000-0000-4000-9000-{workload:012}
    controller: true
spec:
  nodeName: node-{}
  serviceAccountName: app-{workload}
  containers:
  - name: main
    image: registry.example/team-{namespace}/app-{workload}:1.{}
    env:
    - name: LOG_LEVEL
      value: info
    - name: DATABASE_HOST
      value: db.team-{namespace}.svc
    ports:
    - name: http
      containerPort: 8080
      protocol: TCP
    - name: metrics
      containerPort: 9090
    resources:
      requests: {{cpu: 100m, memory: 128Mi}}
      limits: {{cpu: 500m, memory: 256Mi}}
    livenessProbe:
      httpGet: {{path: /healthz, port: http}}
      periodSeconds: 10
status:
  phase: Running
  podIP: 10.{a}.{b}.{c}
  podIPs:
  - ip: 10.{a}.{b}.{c}
  - ip: fd00:10::{number:x}
",
        number % 7,
        number % nodes,
        number % 7,
    );
}

fn policy(text: &mut String, number: usize, namespaces: usize) {
    let (namespace, workload) = (number % namespaces, number / namespaces);
    let _ = write!(
        text,
        "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: app-{workload}
  namespace: team-{namespace}
spec:
  podSelector:
    matchLabels:
      app: app-{workload}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          tier: web
    - namespaceSelector:
        matchLabels:
          team: t{}
      podSelector:
        matchExpressions:
        - {{key: tier, operator: In, values: [web, api]}}
    ports:
    - port: http
  - from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: team-0
    ports:
    - port: metrics
  egress:
  - to:
    - podSelector:
        matchLabels:
          app.kubernetes.io/part-of: team-{namespace}
    ports:
    - port: 8080
    - port: 9000
      endPort: 9090
  - to:
    - ipBlock:
        cidr: 10.0.0.0/8
        except: [10.{}.0.0/16]
    - ipBlock:
        cidr: 2001:db8:{:x}::/48
    ports:
    - port: 443
  - to:
    - namespaceSelector: {{}}
    ports:
    - protocol: UDP
      port: 53
    - port: 53
",
        number % 10,
        number % 256,
        number % 4096,
    );
}

/// A node for measuring what a packet costs: `local` pods of a cluster of 10,000 with 1,000 policies. The local pods are of ten
/// classes, each under two policies with two rules per direction and a set of 1,000 peers for each rule. The rules of the last
/// kind allow UDP 80, so that a packet to that port walks them all.
///
/// Local pod *n* has the addresses 10.1.0.0 + *n* + 1 and fd00:1:: + *n* + 1, remote pods 10.2.0.0 and fd00:2:: likewise. `device` is
/// the one of the first pod, the others are on `p1`, `p2` and so on; the node is called `node`.
#[must_use]
pub fn busy_node(local: u32, device: &str) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.insert_namespace(Namespace::new("n", Labels::new()));
    for number in 0..local {
        let class = format!("c{}", number % 10);
        let interface = if number == 0 { device.to_owned() } else { format!("p{number}") };
        let pod = Pod::new(
            PodId::new("n", format!("local-{number}")),
            Labels::from_iter([("class", class.as_str())]),
        );
        cluster.insert_pod(
            pod.with_addresses(busy_node_addresses(1, number + 1))
                .with_phase(Phase::Running)
                .with_node("node")
                .with_interface(interface),
        );
    }
    for number in 0..10_000 - local.min(10_000) {
        cluster.insert_pod(busy_node_peer(number));
    }
    for class in 0..500_u32 {
        for policy in 0..2 {
            let rules = || -> Option<Vec<TrafficMatch>> {
                Some(
                    (0..2)
                        .map(|rule| {
                            allow((4 * class + 2 * policy + rule) % 40, (2 * policy + rule) % 3)
                        })
                        .collect(),
                )
            };
            let subject = Selector::match_labels([("class", format!("c{class}").as_str())]);
            cluster.insert_policy(Policy::network_policy(
                "n",
                format!("p{class}-{policy}"),
                subject,
                rules(),
                rules(),
            ));
        }
    }
    cluster
}

/// The last of a class' four rules allows UDP 80, the others something else.
fn allow(set: u32, kind: u32) -> TrafficMatch {
    let (protocol, port) = match (set % 4, kind) {
        (3, _) => (Protocol::Udp, 80),
        (_, 0) => (Protocol::Tcp, 80),
        (_, 1) => (Protocol::Udp, 81),
        _ => (Protocol::Udp, 82),
    };
    let peers = Selector::match_labels([(format!("s{set}").as_str(), "")]);
    let peers = Match::OneOf(vec![Peer::Pods(PodSelection::within("n", peers))]);
    let ports = vec![PortEntry::Range { protocol, first: port, last: port }];
    TrafficMatch::new(peers, Match::OneOf(ports))
}

/// Adds to [`busy_node`] an admin policy with 20 rules for all pods, which deny ports to sets of peers and none of which
/// matches UDP 80, and a baseline policy with 5.
pub fn add_admin_tiers(cluster: &mut Cluster) {
    let rules = |count: u32, verdict| -> Vec<PolicyRule> {
        let rule = |number: u32| {
            let peers = Selector::match_labels([(format!("s{number}").as_str(), "")]);
            let peers = vec![Peer::Pods(PodSelection::within("n", peers))];
            let port = 9000 + u16::try_from(number).unwrap_or_default();
            let ports = vec![PortEntry::Range { protocol: Protocol::Udp, first: port, last: port }];
            let matches = TrafficMatch::new(Match::OneOf(peers), Match::OneOf(ports));
            PolicyRule { matches, verdict }
        };
        (0..count).map(rule).collect()
    };
    let all = PodSelection::everything;
    let deny = |count| rules(count, Verdict::Deny);
    cluster.insert_policy(Policy::admin("guard", 10, all(), deny(20), deny(20)));
    cluster.insert_policy(Policy::baseline("default", 10, all(), deny(5), deny(5)));
}

/// A pod elsewhere, for [`busy_node`], in four of its forty sets.
#[must_use]
pub fn busy_node_peer(number: u32) -> Pod {
    let sets: Vec<String> = (0..4).map(|k| format!("s{}", (number + 10 * k) % 40)).collect();
    let labels = Labels::from_iter(sets.iter().map(|set| (set.as_str(), "")));
    Pod::new(PodId::new("n", format!("remote-{number}")), labels)
        .with_addresses(busy_node_addresses(2, number + 1))
        .with_phase(Phase::Running)
        .with_node("other")
}

/// The addresses of a pod of [`busy_node`]: of net 1 if it is on the node, of net 2 if not.
#[must_use]
pub fn busy_node_addresses(net: u8, number: u32) -> [IpAddr; 2] {
    let v4 = Ipv4Addr::from_bits(u32::from_be_bytes([10, net, 0, 0]) + number);
    let v6 = Ipv6Addr::from_bits(
        u128::from(Ipv6Addr::new(0xfd00, u16::from(net), 0, 0, 0, 0, 0, 0)) + u128::from(number),
    );
    [v4.into(), v6.into()]
}
