//! Clusters of any size for measuring, as manifests: equal arguments give equal text.
//!
//! The shape is that of a cluster with one team per namespace: about 100 pods each, ten workloads of ten pods, a policy for each
//! workload that names peers by pod labels, by namespace labels and by address blocks, named ports, and DNS.

use std::fmt::Write;

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
