//! Cluster-wide policies as typed objects: what they mean is what was written down of them, and conversion changes no verdict.
//!
//! The evaluator here follows CNP-40 and CNP-41 by itself: it reads the typed objects, and knows nothing of their conversion,
//! of selectors in normal form or of policies in the model.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use netpol_core::{
    Cluster, Direction, Labels, Options, Pod, Policy, PolicyKind, Protocol, Scope, Tier, compile,
};
use netpol_k8s::api::v1alpha1::{self as v1, AdminNetworkPolicy, BaselineAdminNetworkPolicy};
use netpol_k8s::api::v1alpha2::{self as v2, ClusterNetworkPolicy};
use netpol_k8s::{Channel, Converter, Manifests, Reader, Severity, upgrade};
use netpol_sim::{Connection, End, Simulator, Traffic, reference};
use netpol_testkit::strategies::admin::{
    Quality, admin_network_policies, baseline_admin_network_policies, cluster_network_policies,
};
use netpol_testkit::strategies::clusters_with_connections;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Requirements of a selector that hold; none if one of them cannot be evaluated.
fn selected(selector: &LabelSelector, labels: &Labels) -> Option<bool> {
    let mut all = true;
    for (key, value) in selector.match_labels.iter().flatten() {
        all &= labels.value(key) == Some(value);
    }
    for requirement in selector.match_expressions.iter().flatten() {
        let value = labels.value(&requirement.key);
        let listed = requirement.values.as_deref().unwrap_or_default();
        let is_listed = value.is_some_and(|value| listed.iter().any(|l| l == value));
        all &= match (requirement.operator.as_str(), listed.is_empty()) {
            ("In", false) => is_listed,
            ("NotIn", false) => !is_listed,
            ("Exists", true) => value.is_some(),
            ("DoesNotExist", true) => value.is_none(),
            _ => return None,
        };
    }
    Some(all)
}

/// What a part of a rule says about a connection: it matches or not; or nobody knows, beside what is known of it.
#[derive(Clone, Copy)]
enum Says {
    Yes,
    No,
    /// With what is known of it.
    Unknown(bool),
}

fn says(known: Option<bool>) -> Says {
    match known {
        Some(true) => Says::Yes,
        Some(false) => Says::No,
        None => Says::Unknown(false),
    }
}

/// One direction of one connection.
struct Question<'a> {
    cluster: &'a Cluster,
    direction: Direction,
    subject: &'a Pod,
    remote: Option<&'a Pod>,
    address: Option<IpAddr>,
    destination: Option<&'a Pod>,
    traffic: Traffic,
}

/// A rule in either version.
struct Rule {
    action: &'static str,
    /// What each peer says, and whether it is a pod peer.
    peers: Vec<(Says, bool)>,
    /// What each entry says, and whether it is a name. None for all protocols.
    ports: Option<Vec<(Says, bool)>>,
}

/// A policy in either version, as far as it concerns one question.
struct Asked {
    tier: Tier,
    order: (i32, String, PolicyKind),
    /// None if it does not select the subject; else whether only its denials hold.
    applies: Option<bool>,
    rules: Vec<Rule>,
}

impl Question<'_> {
    fn namespace(&self, pod: &Pod) -> Option<&Labels> {
        self.cluster.namespace(pod.id().namespace()).map(netpol_core::Namespace::labels)
    }

    /// Is the pod in these namespaces and of these pods? None for a selector that is broken or missing.
    fn is_pod(
        &self,
        pod: Option<&Pod>,
        namespaces: Option<&LabelSelector>,
        pods: Option<&LabelSelector>,
    ) -> Option<bool> {
        // A selector is broken whatever it is asked about.
        let none = Labels::new();
        let (namespaces, pods) = (namespaces?, pods?);
        let (_, _) = (selected(namespaces, &none)?, selected(pods, &none)?);
        let Some(pod) = pod else { return Some(false) };
        let Some(labels) = self.namespace(pod) else { return Some(false) };
        Some(selected(namespaces, labels)? && selected(pods, pod.labels())?)
    }

    fn v2_pods(&self, pod: Option<&Pod>, pods: &v2::NamespacedPod) -> Option<bool> {
        let everywhere = LabelSelector::default();
        let namespaces = pods.namespace_selector.as_ref().unwrap_or(&everywhere);
        self.is_pod(pod, Some(namespaces), pods.pod_selector.as_ref())
    }

    fn networks(&self, networks: &[String]) -> Says {
        let parsed: Vec<Option<IpNet>> = networks.iter().map(|text| text.parse().ok()).collect();
        let broken = parsed.is_empty() || parsed.contains(&None);
        let matches = self.address.is_some_and(|address| {
            parsed.iter().flatten().any(|net| net.trunc().contains(&address))
        });
        match (broken, matches) {
            (true, known) => Says::Unknown(known),
            (false, true) => Says::Yes,
            (false, false) => Says::No,
        }
    }

    fn nodes(&self, selector: &LabelSelector) -> Says {
        if selected(selector, &Labels::new()).is_none() {
            return Says::Unknown(false);
        }
        let mut nodes = self.cluster.nodes();
        says(Some(self.address.is_some_and(|address| {
            nodes.any(|node| {
                selected(selector, node.labels()) == Some(true)
                    && node.addresses().contains(&address)
            })
        })))
    }

    fn v2_peer(&self, peer: &v2::EgressPeer, accepts: bool) -> (Says, bool) {
        let v2::EgressPeer { namespaces, pods, networks, nodes, domain_names } = peer;
        let all = LabelSelector::default();
        match (namespaces, pods, networks, nodes, domain_names) {
            (Some(namespaces), None, None, None, None) => {
                (says(self.is_pod(self.remote, Some(namespaces), Some(&all))), true)
            }
            (None, Some(pods), None, None, None) => (says(self.v2_pods(self.remote, pods)), true),
            (None, None, Some(networks), None, None) => (self.networks(networks), false),
            (None, None, None, Some(nodes), None) => (self.nodes(nodes), false),
            (None, None, None, None, Some(_)) if accepts => (Says::No, false),
            _ => (Says::Unknown(false), false),
        }
    }

    /// A port by its number, for what has one.
    fn range(&self, protocol: Protocol, first: i32, last: i32) -> Says {
        let exists = |port: i32| (1..=65535).contains(&port);
        if !exists(first) || !exists(last) {
            return Says::Unknown(false);
        }
        says(Some(match self.traffic {
            Traffic::Port(sent, port) => {
                sent == protocol && (first..=last).contains(&i32::from(port))
            }
            _ => false,
        }))
    }

    fn named(&self, name: &str) -> Says {
        let Traffic::Port(protocol, port) = self.traffic else { return Says::No };
        says(Some(self.destination.is_some_and(|pod| {
            pod.ports()
                .iter()
                .any(|p| p.name.as_str() == name && p.protocol == protocol && p.port == port)
        })))
    }

    fn v2_protocol(&self, entry: &v2::Protocol) -> (Says, bool) {
        let v2::Protocol { tcp, udp, sctp, destination_named_port } = entry;
        let (protocol, ports) = match (tcp, udp, sctp, destination_named_port) {
            (Some(ports), None, None, None) => (Protocol::Tcp, ports),
            (None, Some(ports), None, None) => (Protocol::Udp, ports),
            (None, None, Some(ports), None) => (Protocol::Sctp, ports),
            (None, None, None, Some(name)) => return (self.named(name), true),
            _ => return (Says::Unknown(false), false),
        };
        let Some(port) = &ports.destination_port else {
            let sent = matches!(self.traffic, Traffic::Port(sent, _) if sent == protocol);
            return (says(Some(sent)), false);
        };
        let says = match (port.number, &port.range) {
            (Some(number), None) => self.range(protocol, number, number),
            (None, Some(range)) => self.range(protocol, range.start, range.end),
            _ => Says::Unknown(false),
        };
        (says, false)
    }

    fn v1_port(&self, entry: &v1::Port) -> (Says, bool) {
        let protocol = |name: &Option<String>| match name.as_deref() {
            None | Some("TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            _ => None,
        };
        let range = |name: &Option<String>, first, last| match protocol(name) {
            Some(protocol) => self.range(protocol, first, last),
            None => Says::Unknown(false),
        };
        match (&entry.port_number, &entry.port_range, &entry.named_port) {
            (Some(port), None, None) => (range(&port.protocol, port.port, port.port), false),
            (None, Some(ports), None) => (range(&ports.protocol, ports.start, ports.end), false),
            (None, None, Some(name)) => (self.named(name), true),
            _ => (Says::Unknown(false), false),
        }
    }

    fn v1_namespaces(peer: &v1::NamespacesPeer) -> LabelSelector {
        peer.namespace_selector.clone().unwrap_or_else(|| LabelSelector {
            match_labels: peer.match_labels.clone(),
            match_expressions: peer.match_expressions.clone(),
        })
    }

    fn v1_peer(&self, peer: &v1::EgressPeer, accepts: bool, baseline: bool) -> (Says, bool) {
        let pods = peer.pods.as_ref().map(|pods| v2::NamespacedPod {
            namespace_selector: match (&pods.namespace_selector, &pods.namespaces) {
                (Some(selector), _) => Some(selector.clone()),
                (None, old) => old.as_ref().map(Self::v1_namespaces),
            },
            pod_selector: pods.pod_selector.clone(),
        });
        if baseline && peer.domain_names.is_some() {
            return (Says::Unknown(false), false);
        }
        let same = v2::EgressPeer {
            namespaces: peer.namespaces.as_ref().map(Self::v1_namespaces),
            pods,
            networks: peer.networks.clone(),
            nodes: peer.nodes.clone(),
            domain_names: peer.domain_names.clone(),
        };
        self.v2_peer(&same, accepts)
    }

    fn subject(
        &self,
        namespaces: Option<&LabelSelector>,
        pods: Option<&v2::NamespacedPod>,
    ) -> Option<bool> {
        let all = LabelSelector::default();
        let known = match (namespaces, pods) {
            (Some(namespaces), None) => {
                self.is_pod(Some(self.subject), Some(namespaces), Some(&all))
            }
            (None, Some(pods)) => self.v2_pods(Some(self.subject), pods),
            _ => None,
        };
        match known {
            Some(known) => known.then_some(false),
            // Nobody knows: every pod of the namespaces that are known, and only what it denies.
            None => {
                let only = pods.filter(|_| namespaces.is_none());
                let only = only.and_then(|pods| pods.namespace_selector.as_ref());
                let only = only.filter(|only| selected(only, &Labels::new()).is_some());
                let is_one =
                    self.is_pod(Some(self.subject), Some(only.unwrap_or(&all)), Some(&all));
                (is_one == Some(true)).then_some(true)
            }
        }
    }

    fn cluster_policy(&self, policy: &ClusterNetworkPolicy) -> Option<Asked> {
        let spec = policy.spec.as_ref().unwrap();
        let tier = match spec.tier.as_str() {
            "Admin" => Tier::Admin,
            "Baseline" => Tier::Baseline,
            _ => return None,
        };
        let subject = self.subject(spec.subject.namespaces.as_ref(), spec.subject.pods.as_ref());
        let action = |action: &str| match action {
            "Accept" => "Accept",
            "Pass" => "Pass",
            _ => "Deny",
        };
        let ports = |protocols: Option<&Vec<v2::Protocol>>| {
            Some(protocols?.iter().map(|entry| self.v2_protocol(entry)).collect())
        };
        let rules = match self.direction {
            Direction::Ingress => spec
                .ingress
                .iter()
                .map(|rule| {
                    let peers = rule.from.iter().map(|peer| v2::EgressPeer {
                        namespaces: peer.namespaces.clone(),
                        pods: peer.pods.clone(),
                        ..v2::EgressPeer::default()
                    });
                    let peers = peers.map(|peer| self.v2_peer(&peer, true)).collect();
                    let action = action(&rule.action);
                    Rule { action, peers, ports: ports(rule.protocols.as_ref()) }
                })
                .collect(),
            Direction::Egress => spec
                .egress
                .iter()
                .map(|rule| {
                    let action = action(&rule.action);
                    let accepts = action == "Accept";
                    let peers = rule.to.iter().map(|peer| self.v2_peer(peer, accepts)).collect();
                    Rule { action, peers, ports: ports(rule.protocols.as_ref()) }
                })
                .collect(),
        };
        let name = policy.metadata.name.clone().unwrap();
        Some(Asked {
            tier,
            order: (spec.priority.unwrap_or(i32::MIN), name, PolicyKind::ClusterNetworkPolicy),
            applies: subject.map(|denials_only| denials_only || spec.priority.is_none()),
            rules,
        })
    }

    fn old_policy(
        &self,
        name: &str,
        kind: PolicyKind,
        priority: Option<i32>,
        subject: &v1::Subject,
        (ingress, egress): (&[v1::IngressRule], &[v1::EgressRule]),
    ) -> Asked {
        let baseline = kind == PolicyKind::BaselineAdminNetworkPolicy;
        let pods = subject.pods.as_ref().map(|pods| v2::NamespacedPod {
            namespace_selector: pods.namespace_selector.clone(),
            pod_selector: pods.pod_selector.clone(),
        });
        let applies = self.subject(subject.namespaces.as_ref(), pods.as_ref());
        let action = |action: &str| match action {
            "Allow" => "Accept",
            "Pass" if !baseline => "Pass",
            _ => "Deny",
        };
        let ports = |ports: Option<&Vec<v1::Port>>| {
            Some(ports?.iter().map(|entry| self.v1_port(entry)).collect())
        };
        let rules = match self.direction {
            Direction::Ingress => ingress
                .iter()
                .map(|rule| {
                    let peers = rule.from.iter().map(|peer| v1::EgressPeer {
                        namespaces: peer.namespaces.clone(),
                        pods: peer.pods.clone(),
                        ..v1::EgressPeer::default()
                    });
                    let peers = peers.map(|peer| self.v1_peer(&peer, true, baseline)).collect();
                    Rule { action: action(&rule.action), peers, ports: ports(rule.ports.as_ref()) }
                })
                .collect(),
            Direction::Egress => egress
                .iter()
                .map(|rule| {
                    let action = action(&rule.action);
                    let accepts = action == "Accept";
                    let peers = rule.to.iter().map(|peer| self.v1_peer(peer, accepts, baseline));
                    Rule { action, peers: peers.collect(), ports: ports(rule.ports.as_ref()) }
                })
                .collect(),
        };
        Asked {
            tier: if baseline { Tier::Baseline } else { Tier::Admin },
            order: (priority.unwrap_or(i32::MIN), name.to_owned(), kind),
            applies: applies.map(|denials_only| denials_only || priority.is_none()),
            rules,
        }
    }

    /// Does the rule match, and is that because nobody knows what it says?
    fn matches(&self, rule: &Rule) -> bool {
        let unknown = |parts: &[(Says, bool)]| {
            parts.is_empty() || parts.iter().any(|(says, _)| matches!(says, Says::Unknown(_)))
        };
        let broken = unknown(&rule.peers) || rule.ports.as_deref().is_some_and(unknown);
        if broken && rule.action != "Accept" {
            return true;
        }
        let yes = |says: &Says| matches!(says, Says::Yes | Says::Unknown(true));
        rule.peers.iter().filter(|(says, _)| yes(says)).any(|(_, is_pods)| match &rule.ports {
            None => true,
            Some(ports) => ports.iter().any(|(says, is_name)| {
                // A name is for pods only; an ingress rule looks it up on the subject.
                yes(says) && (!is_name || *is_pods || self.direction == Direction::Ingress)
            }),
        })
    }

    /// Whether the rule, though it passes, denies because nobody knows what it says.
    fn is_broken(rule: &Rule) -> bool {
        let unknown = |parts: &[(Says, bool)]| {
            parts.is_empty() || parts.iter().any(|(says, _)| matches!(says, Says::Unknown(_)))
        };
        unknown(&rule.peers) || rule.ports.as_deref().is_some_and(unknown)
    }

    fn tier(&self, tier: Tier, asked: &mut [Asked]) -> Option<bool> {
        asked.sort_by(|a, b| a.order.cmp(&b.order));
        for policy in asked.iter().filter(|policy| policy.tier == tier) {
            let Some(denials_only) = policy.applies else { continue };
            for rule in &policy.rules {
                if !self.matches(rule) {
                    continue;
                }
                match rule.action {
                    "Accept" if denials_only => {}
                    "Accept" => return Some(true),
                    "Pass" if !denials_only && !Self::is_broken(rule) => return None,
                    _ => return Some(false),
                }
            }
        }
        None
    }
}

/// The objects of one cluster. Of two with one name the later counts.
#[derive(Clone, Debug, Default)]
struct Objects {
    cluster: Vec<ClusterNetworkPolicy>,
    admin: Vec<AdminNetworkPolicy>,
    baseline: Option<BaselineAdminNetworkPolicy>,
}

impl Objects {
    fn values(&self) -> Vec<Value> {
        fn values<T: Serialize>(objects: &[T]) -> impl Iterator<Item = Value> {
            objects.iter().map(|object| serde_json::to_value(object).unwrap())
        }
        let baseline: Vec<_> = self.baseline.iter().cloned().collect();
        let rest = values(&self.admin).chain(values(&baseline)).collect::<Vec<_>>();
        values(&self.cluster).chain(rest).collect()
    }

    fn distinct(mut self) -> Self {
        let mut names = BTreeSet::new();
        self.cluster.retain(|policy| names.insert(policy.metadata.name.clone()));
        let mut names = BTreeSet::new();
        self.admin.retain(|policy| names.insert(policy.metadata.name.clone()));
        self
    }

    fn read(&self) -> Manifests {
        let mut reader = Reader::new();
        for (i, object) in self.values().iter().enumerate() {
            reader.read_text(&format!("object-{i}"), &object.to_string());
        }
        reader.finish()
    }

    /// Is the connection allowed, by what the objects say?
    fn allowed(&self, cluster: &Cluster, connection: &Connection) -> bool {
        let owners = cluster.address_owners();
        let pod = |end: &End| match end {
            End::Address(address) => owners.get(address).and_then(|id| cluster.pod(id)),
            End::Pod(id) => cluster.pod(id).filter(|pod| pod.is_managed()),
        };
        let address = |end: &End| match end {
            End::Address(address) => Some(*address),
            End::Pod(_) => None,
        };
        let (source, destination) = (pod(connection.source()), pod(connection.destination()));
        let itself = source.is_some() && source.map(Pod::id) == destination.map(Pod::id);
        if itself || matches!(connection.traffic(), Traffic::Icmpv6(133..=137)) {
            return true;
        }
        Direction::ALL.into_iter().all(|direction| {
            let (subject, remote, end) = match direction {
                Direction::Egress => (source, destination, connection.destination()),
                Direction::Ingress => (destination, source, connection.source()),
            };
            let Some(subject) = subject else { return true };
            let question = Question {
                cluster,
                direction,
                subject,
                remote,
                address: address(end),
                destination,
                traffic: connection.traffic(),
            };
            let mut asked: Vec<Asked> =
                self.cluster.iter().filter_map(|policy| question.cluster_policy(policy)).collect();
            asked.extend(self.admin.iter().map(|policy| {
                let spec = policy.spec.as_ref().unwrap();
                question.old_policy(
                    policy.metadata.name.as_deref().unwrap(),
                    PolicyKind::AdminNetworkPolicy,
                    spec.priority,
                    &spec.subject,
                    (&spec.ingress, &spec.egress),
                )
            }));
            asked.extend(self.baseline.iter().map(|policy| {
                let spec = policy.spec.as_ref().unwrap();
                let kind = PolicyKind::BaselineAdminNetworkPolicy;
                let rules = (spec.ingress.as_slice(), spec.egress.as_slice());
                question.old_policy("default", kind, Some(1000), &spec.subject, rules)
            }));
            if let Some(decided) = question.tier(Tier::Admin, &mut asked) {
                return decided;
            }
            if isolated(cluster, subject, direction) {
                let options = Options::default();
                return reference::direction_allowed(cluster, connection, direction, &options);
            }
            question.tier(Tier::Baseline, &mut asked).unwrap_or(true)
        })
    }
}

fn isolated(cluster: &Cluster, subject: &Pod, direction: Direction) -> bool {
    let namespace = cluster.namespace(subject.id().namespace());
    cluster.policies().any(|policy| {
        policy.tier() == Tier::NetworkPolicy
            && policy.rules(direction).is_some()
            && policy.subject().matches(subject, namespace)
    })
}

/// The cluster with these cluster-wide policies in place of its own.
fn with(cluster: &Cluster, policies: impl IntoIterator<Item = Policy>) -> Cluster {
    let mut both = cluster.clone();
    let own = cluster.policies().filter(|policy| policy.tier() != Tier::NetworkPolicy);
    for policy in own {
        both.remove_policy(policy.id());
    }
    for policy in policies {
        both.insert_policy(policy);
    }
    both
}

fn objects(quality: Quality, many: bool) -> impl Strategy<Value = Objects> {
    let cluster = vec(cluster_network_policies(quality), 0..=3);
    let admin = vec(admin_network_policies(quality, many), 0..=3);
    let baseline = option::of(baseline_admin_network_policies(quality, many));
    (cluster, admin, baseline)
        .prop_map(|(cluster, admin, baseline)| Objects { cluster, admin, baseline }.distinct())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn objects_mean_what_is_written_down(
        (cluster, connections) in clusters_with_connections(),
        objects in objects(Quality::Any, false),
    ) {
        let manifests = objects.read();
        let read: Vec<Policy> = manifests.cluster().policies().cloned().collect();
        let nothing = with(&cluster, []);
        let full = with(&cluster, read);
        let simulator = Simulator::new(compile(&full, Scope::Cluster).unwrap(), Options::default());
        for connection in &connections {
            let expected = objects.allowed(&nothing, connection);
            let specified = reference::allowed(&full, connection, &Options::default());
            prop_assert_eq!(specified, expected, "{}\n{:#?}", connection, manifests.diagnostics());
            prop_assert_eq!(simulator.judge(connection).allowed(), expected, "{}", connection);
        }
    }

    #[test]
    fn text_and_typed_objects_are_one(objects in objects(Quality::Any, false)) {
        let manifests = objects.read();
        let mut converter = Converter::new();
        let mut typed = Vec::new();
        let channel = Channel::Experimental;
        for policy in &objects.cluster {
            typed.push(converter.cluster_network_policy(policy, channel));
        }
        for policy in &objects.admin {
            typed.push(converter.admin_network_policy(policy, channel));
        }
        if let Some(policy) = &objects.baseline {
            typed.push(converter.baseline_admin_network_policy(policy, channel));
        }
        let count: usize = typed.iter().map(|(_, diagnostics)| diagnostics.len()).sum();
        prop_assert_eq!(count, manifests.diagnostics().len());
        for policy in typed.into_iter().filter_map(|(policy, _)| policy) {
            let read = manifests.cluster().policy(policy.id()).unwrap();
            for direction in Direction::ALL {
                let rules = |policy: &Policy| -> Vec<_> {
                    let rules = policy.rules(direction).unwrap_or_default().iter();
                    rules.map(|r| (r.verdict, r.matches.peers.clone(), r.matches.ports.clone())).collect()
                };
                prop_assert_eq!(rules(&policy), rules(read));
            }
            prop_assert_eq!((policy.tier(), policy.priority(), policy.subject()),
                (read.tier(), read.priority(), read.subject()));
        }
    }

    #[test]
    fn objects_are_written_as_they_are_read(objects in objects(Quality::Any, false)) {
        for policy in &objects.cluster {
            let text = serde_json::to_string(policy).unwrap();
            prop_assert_eq!(&serde_json::from_str::<ClusterNetworkPolicy>(&text).unwrap(), policy);
        }
        for policy in &objects.admin {
            let text = serde_json::to_string(policy).unwrap();
            prop_assert_eq!(&serde_json::from_str::<AdminNetworkPolicy>(&text).unwrap(), policy);
        }
        if let Some(policy) = &objects.baseline {
            let text = serde_json::to_string(policy).unwrap();
            prop_assert_eq!(&serde_json::from_str::<BaselineAdminNetworkPolicy>(&text).unwrap(), policy);
        }
    }

    #[test]
    fn baseline_never_touches_an_isolated_direction(
        (cluster, connections) in clusters_with_connections(),
        objects in objects(Quality::Any, false),
    ) {
        let read: Vec<Policy> = objects.read().cluster().policies().cloned().collect();
        let without = read.iter().filter(|policy| policy.tier() != Tier::Baseline).cloned();
        let (without, full) = (with(&cluster, without), with(&cluster, read.iter().cloned()));
        let owners = cluster.address_owners();
        for connection in &connections {
            for direction in Direction::ALL {
                let end = match direction {
                    Direction::Egress => connection.source(),
                    Direction::Ingress => connection.destination(),
                };
                let pod = match end {
                    End::Address(address) => owners.get(address).and_then(|id| cluster.pod(id)),
                    End::Pod(id) => cluster.pod(id),
                };
                if pod.is_some_and(|pod| isolated(&cluster, pod, direction)) {
                    let ask = |cluster| {
                        reference::direction_allowed(cluster, connection, direction, &Options::default())
                    };
                    prop_assert_eq!(ask(&full), ask(&without), "{}", connection);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn x55_conversion_changes_no_verdict(
        (cluster, connections) in clusters_with_connections(),
        objects in objects(Quality::Sound, true),
    ) {
        let baseline: Vec<_> = objects.baseline.iter().cloned().collect();
        let upgrade = upgrade(&objects.admin, &baseline, &objects.cluster);
        // What could not be converted is said, and is not compared.
        let failed: BTreeSet<String> = upgrade
            .diagnostics
            .iter()
            .filter(|d| d.severity() == Severity::Error)
            .map(|d| d.object().unwrap().to_owned())
            .collect();
        let mut old = objects.clone();
        old.admin.retain(|p| {
            !failed.contains(&format!("AdminNetworkPolicy {}", p.metadata.name.as_deref().unwrap()))
        });
        if failed.contains("BaselineAdminNetworkPolicy default") {
            old.baseline = None;
        }
        let converted: Vec<_> = objects.cluster.iter().chain(&upgrade.policies).cloned().collect();
        let new = Objects { cluster: converted, ..Objects::default() };
        let (before, after) = (old.read(), new.read());
        let errors: Vec<_> =
            after.diagnostics().iter().filter(|d| d.severity() == Severity::Error).collect();
        prop_assert!(errors.is_empty(), "{:#?}", errors);
        prop_assert_eq!(after.cluster().policies().len(), new.cluster.len(), "names are distinct");
        let before = with(&cluster, before.cluster().policies().cloned());
        let after = with(&cluster, after.cluster().policies().cloned());
        for connection in &connections {
            let ask = |cluster| reference::allowed(cluster, connection, &Options::default());
            prop_assert_eq!(ask(&after), ask(&before), "{}\n{:#?}", connection, upgrade.diagnostics);
        }
    }
}

/// An AdminNetworkPolicy for all pods with these egress rules.
fn admin(name: &str, priority: i32, egress: &[Value]) -> AdminNetworkPolicy {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": name},
        "spec": {"priority": priority, "subject": {"namespaces": {}}, "egress": egress},
    }))
    .unwrap()
}

fn pods() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.insert_namespace(netpol_core::Namespace::new("x", Labels::new()));
    let pod = Pod::new(netpol_core::PodId::new("x", "a"), Labels::new());
    cluster.insert_pod(pod.with_addresses(["10.0.0.1".parse().unwrap()]));
    cluster
}

fn verdict(cluster: &Cluster, policies: &[ClusterNetworkPolicy], to: &str, port: u16) -> bool {
    let objects = Objects { cluster: policies.to_vec(), ..Objects::default() };
    let manifests = objects.read();
    assert_eq!(manifests.diagnostics(), []);
    let full = with(cluster, manifests.cluster().policies().cloned());
    let end = |text: &str| End::Address(text.parse().unwrap());
    let traffic = Traffic::Port(Protocol::Tcp, port);
    let connection = Connection::new(end("10.0.0.1"), end(to), traffic);
    reference::allowed(&full, &connection, &Options::default())
}

#[test]
fn x55_every_peer_and_every_port_of_a_long_rule_counts() {
    let peers: Vec<_> =
        (0..60).map(|n| serde_json::json!({"networks": [format!("198.51.{n}.0/24")]})).collect();
    let ports: Vec<_> =
        (0..60).map(|n| serde_json::json!({"portNumber": {"port": 1000 + n}})).collect();
    let rule = serde_json::json!({"action": "Deny", "to": peers, "ports": ports});
    let upgrade = upgrade(&[admin("long", 5, &[rule])], &[], &[]);
    assert_eq!(upgrade.diagnostics, []);
    assert_eq!(upgrade.policies.len(), 1, "nine rules fit into one policy");
    let cluster = pods();
    for peer in [0, 24, 25, 49, 50, 59] {
        for port in [1000, 1024, 1025, 1049, 1050, 1059] {
            let to = format!("198.51.{peer}.7");
            assert!(!verdict(&cluster, &upgrade.policies, &to, port), "{to} {port}");
        }
    }
    assert!(verdict(&cluster, &upgrade.policies, "198.51.60.7", 1000));
    assert!(verdict(&cluster, &upgrade.policies, "198.51.0.7", 1060));
}

#[test]
fn x55_rules_stay_in_their_order_between_those_of_others() {
    let rule = |action: &str, net: String| serde_json::json!({"action": action, "to": [{"networks": [net]}]});
    // Sixty rules; the last one denies what the others have not allowed.
    let mut rules: Vec<_> = (0..59).map(|n| rule("Allow", format!("198.51.{n}.0/24"))).collect();
    rules.push(rule("Deny", "198.0.0.0/8".to_owned()));
    let late = admin("late", 10, &[rule("Deny", "198.51.58.0/24".to_owned())]);
    let early = admin("early", 4, &[rule("Deny", "198.51.3.0/24".to_owned())]);
    let upgraded = upgrade(&[late.clone(), admin("long", 5, &rules), early.clone()], &[], &[]);
    let places: Vec<_> = upgraded
        .policies
        .iter()
        .map(|p| (p.metadata.name.as_deref().unwrap(), p.spec.as_ref().unwrap().priority.unwrap()))
        .collect();
    assert_eq!(places, [("early", 4), ("long", 5), ("long-2", 6), ("long-3", 7), ("late", 10)]);
    assert_eq!(upgraded.diagnostics.len(), 1, "where the parts went is said");
    let cluster = pods();
    for (to, allowed) in
        [("198.51.3.1", false), ("198.51.58.1", true), ("198.51.59.1", false), ("8.8.8.8", true)]
    {
        assert_eq!(verdict(&cluster, &upgraded.policies, to, 80), allowed, "{to}");
    }
    // Down where there is no room above; and not at all where there is none.
    let at = |low: i32, high: i32| {
        let neighbors =
            [admin("early", low, &[]), admin("late", high, &[]), admin("long", 5, &rules)];
        let upgrade = upgrade(&neighbors, &[], &[]);
        let long = upgrade
            .policies
            .iter()
            .filter(|p| p.metadata.name.as_deref().unwrap().starts_with("long"));
        let places: Vec<_> = long.map(|p| p.spec.as_ref().unwrap().priority.unwrap()).collect();
        (places, upgrade.diagnostics.iter().filter(|d| d.severity() == Severity::Error).count())
    };
    assert_eq!(at(2, 6), (vec![3, 4, 5], 0));
    assert_eq!(at(0, 7), (vec![4, 5, 6], 0));
    assert_eq!(at(4, 6), (vec![], 1));
    assert_eq!(at(5, 9), (vec![], 1));
}

#[test]
fn what_cannot_be_said_is_not_converted() {
    let rule =
        serde_json::json!({"action": "Deny", "to": [{"namespaces": {"sameLabels": ["team"]}}]});
    let upgraded = upgrade(&[admin("same", 5, &[rule])], &[], &[]);
    assert!(upgraded.policies.is_empty());
    let codes: Vec<_> = upgraded.diagnostics.iter().map(netpol_k8s::Diagnostic::code).collect();
    assert_eq!(codes, ["CNP-52", "CNP-52"]);
    // A name beside networks is said in two rules; a range that is backwards, in none.
    let rule = serde_json::json!({"action": "Deny", "to": [{"networks": ["8.8.8.0/24"]}, {"namespaces": {}}],
        "ports": [{"namedPort": "web"}, {"portNumber": {"port": 80}}]});
    let backwards = serde_json::json!({"action": "Deny", "to": [{"namespaces": {}}], "ports": [{"portRange": {"start": 2, "end": 1}}]});
    let upgraded = upgrade(&[admin("names", 5, &[rule, backwards])], &[], &[]);
    assert_eq!(upgraded.policies[0].spec.as_ref().unwrap().egress.len(), 2);
    assert_eq!(upgraded.diagnostics.len(), 1);
    let cluster = pods();
    assert!(!verdict(&cluster, &upgraded.policies, "8.8.8.8", 80));
    assert!(verdict(&cluster, &upgraded.policies, "8.8.8.8", 81));
}
