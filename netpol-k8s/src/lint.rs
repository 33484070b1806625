//! What a cluster accepts but nobody can have meant.
//!
//! | code | what | rule |
//! |---|---|---|
//! | `selects-no-pod` | a policy's subject is no pod that was read | |
//! | `empty-namespace` | nothing was read of a policy's namespace | NP-03 |
//! | `host-network-only` | all subjects are on the host network, where no policy applies | NP-80 |
//! | `egress-isolates-ingress` | egress rules without `policyTypes` deny all ingress as well | NP-05 |
//! | `inert-rules` | rules for a direction that `policyTypes` leaves out | NP-06 |
//! | `split-peer` | two peers that look like one with a dash too many | UX-15 |
//! | `unknown-port-name` | a port name that no pod in question has | NP-44 |
//! | `no-dns` | egress is limited and no policy lets DNS through | UX-15 |
//! | `block-covers-pods` | an `ipBlock` that pods are in as well | NP-32 |
//! | `one-family` | blocks of one IP family only, for pods that have both | NP-31 |
//! | `no-such-namespace` | a `namespaceSelector` that matches no namespace that was read | NP-24 |
//! | `equal-priorities` | two policies of one tier with one priority | CNP-32 |
//! | `contradicting-rules` | two rules of a tier for the same traffic of the same pods that decide otherwise | CNP-31 |
//! | `unreachable-rule` | a rule after one that matches all that it does | CNP-31 |
//! | `pass-in-last-tier` | Pass in Baseline, which allows | CNP-30 |
//! | `unknown-namespace` | pods in a namespace that was not read, so that no `namespaceSelector` finds them | NP-26 |
//!
//! Everything that compares with pods is silent while there are none: policies are often checked on their own.

use crate::convert::isolated_directions;
use crate::diagnostic::{Diagnostic, Location, quoted};
use crate::lint_tiers;
use crate::reader::Manifests;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicySpec};
use netpol_core::{
    AddressSet, Cluster, Direction, Family, IpBlock, Labels, Match, NamespaceName,
    NamespaceSelection, Peer, Pod, PodSelection, Policy, PortEntry, PortName, Protocol,
    SourcePosition, TrafficMatch,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Warnings about what was read, by policy.
///
/// ```
/// let mut reader = netpol_k8s::Reader::new();
/// reader.read_text("all.yaml", "\
/// {apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: web}}}
/// ---
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata: {name: deny}
/// spec: {podSelector: {matchLabels: {app: wbe}}}
/// ");
/// let lints = netpol_k8s::lint(&reader.finish());
/// assert_eq!(lints[0].code(), "selects-no-pod");
/// ```
#[must_use]
pub fn lint(manifests: &Manifests) -> Vec<Diagnostic> {
    let cluster = manifests.cluster();
    let mut lints: Vec<Diagnostic> =
        cluster.policies().flat_map(|policy| manifests.remarks(policy.id())).cloned().collect();
    lints.extend(lint_tiers::tiers(cluster));
    if cluster.pods().len() > 0 {
        let world = World::new(cluster);
        for policy in cluster.policies() {
            lints.extend(PolicyLints { world: &world, policy, lints: Vec::new() }.run());
        }
        lints.extend(world.unknown_namespaces());
    }
    lints
}

/// What a policy says against itself. The field of each remark is set, for its place.
pub(crate) fn policy_remarks(policy: &NetworkPolicy) -> Vec<Diagnostic> {
    let mut remarks = Vec::new();
    let Some(spec) = Option::<&NetworkPolicySpec>::from(&policy.spec) else { return remarks };
    let no_types = spec.policy_types.as_ref().is_none_or(Vec::is_empty);
    let ingress_rules = spec.ingress.as_deref().unwrap_or_default();
    let egress_rules = spec.egress.as_deref().unwrap_or_default();
    if no_types && ingress_rules.is_empty() && !egress_rules.is_empty() {
        remarks.push(
            Diagnostic::warning(
                "egress-isolates-ingress",
                "without `policyTypes` this policy denies all ingress as well",
            )
            .in_field("spec.egress")
            .with_hint("write `policyTypes: [Egress]`, or `[Ingress, Egress]` if it is meant"),
        );
    }
    let (ingress, egress) = isolated_directions(spec);
    for (isolates, count, name, kind) in [
        (ingress, ingress_rules.len(), "ingress", "Ingress"),
        (egress, egress_rules.len(), "egress", "Egress"),
    ] {
        if !isolates && count > 0 {
            let message =
                format!("these rules do nothing, since `policyTypes` leaves `{kind}` out");
            remarks.push(
                Diagnostic::warning("inert-rules", message)
                    .in_field(format!("spec.{name}"))
                    .with_hint(format!("add `{kind}` to `policyTypes`, or take the rules away")),
            );
        }
    }
    let from = ingress_rules.iter().map(|rule| rule.from.as_deref()).enumerate();
    let to = egress_rules.iter().map(|rule| rule.to.as_deref()).enumerate();
    let lists = from
        .map(|(i, peers)| (format!("spec.ingress[{i}].from"), peers))
        .chain(to.map(|(i, peers)| (format!("spec.egress[{i}].to"), peers)));
    for (field, peers) in lists {
        if let Some([first, second]) = peers
            && is_split(first, second)
        {
            let message =
                "these are two peers: all pods of the namespaces, and pods of this namespace";
            remarks.push(
                Diagnostic::warning("split-peer", message)
                    .in_field(format!("{field}[1]"))
                    .with_hint("to mean these pods in these namespaces, take the second `-` away"),
            );
        }
    }
    remarks
}

/// One peer with only a namespace selector, and one with only a pod selector.
fn is_split(first: &NetworkPolicyPeer, second: &NetworkPolicyPeer) -> bool {
    let shape = |peer: &NetworkPolicyPeer| {
        (peer.namespace_selector.is_some(), peer.pod_selector.is_some(), peer.ip_block.is_some())
    };
    shape(first) == (true, false, false) && shape(second) == (false, true, false)
}

/// The cluster, ordered for the questions of lints.
struct World<'c> {
    cluster: &'c Cluster,
    pods: BTreeMap<&'c NamespaceName, Vec<&'c Pod>>,
    addresses: Vec<IpAddr>,
    port_names: BTreeSet<(&'c PortName, Protocol)>,
    // Egress policies of a namespace, and whether they let DNS through.
    egress: BTreeMap<&'c NamespaceName, Vec<(&'c Policy, bool)>>,
}

impl<'c> World<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        let mut pods: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let (mut addresses, mut port_names) = (Vec::new(), BTreeSet::new());
        for pod in cluster.pods() {
            pods.entry(pod.id().namespace()).or_default().push(pod);
            if pod.is_managed() {
                addresses.extend_from_slice(pod.addresses());
                port_names.extend(pod.ports().iter().map(|port| (&port.name, port.protocol)));
            }
        }
        addresses.sort_unstable();
        let mut egress: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for policy in cluster.policies() {
            if let (Some(namespace), Some(rules)) =
                (policy.id().namespace.as_ref(), policy.rules(Direction::Egress))
            {
                let dns = rules.iter().any(|rule| allows_dns(&rule.matches));
                egress.entry(namespace).or_default().push((policy, dns));
            }
        }
        Self { cluster, pods, addresses, port_names, egress }
    }

    fn pods_of(&self, namespace: &NamespaceName) -> &[&'c Pod] {
        self.pods.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// How many known pod addresses are in the block.
    fn pods_in(&self, block: &IpBlock) -> usize {
        let holes: AddressSet = block.except.iter().copied().collect();
        let set = AddressSet::from(block.cidr).subtraction(&holes);
        let below = |address: IpAddr| self.addresses.partition_point(|&a| a < address);
        let up_to = |address: IpAddr| self.addresses.partition_point(|&a| a <= address);
        set.ranges().map(|(first, last)| up_to(last).saturating_sub(below(first))).sum()
    }

    /// Do pods of this selection exist that pass `test`? None if there are no such pods at all.
    fn any_selected(&self, selection: &PodSelection, test: impl Fn(&Pod) -> bool) -> Option<bool> {
        let selected = |namespace: &NamespaceName| match &selection.namespaces {
            NamespaceSelection::Named(name) => name == namespace,
            NamespaceSelection::Matching(selector) => {
                self.cluster.namespace(namespace).is_some_and(|n| selector.matches(n.labels()))
            }
        };
        let mut pods = self
            .pods
            .iter()
            .filter(|(namespace, _)| selected(namespace))
            .flat_map(|(_, pods)| pods)
            .filter(|pod| pod.is_managed() && selection.pods.matches(pod.labels()))
            .peekable();
        pods.peek()?;
        Some(pods.any(|pod| test(pod)))
    }

    fn unknown_namespaces(&self) -> Vec<Diagnostic> {
        let selects = |peer: &Peer| {
            matches!(
                peer,
                Peer::Pods(PodSelection { namespaces: NamespaceSelection::Matching(_), .. })
            )
        };
        let first = self
            .cluster
            .policies()
            .find(|policy| rules(policy).any(|(_, _, rule)| peers(rule).iter().any(selects)));
        let Some(first) = first else { return Vec::new() };
        let unknown: Vec<_> = self
            .pods
            .keys()
            .filter(|name| self.cluster.namespace(name).is_none())
            .map(|name| quoted(name.as_str()))
            .collect();
        if unknown.is_empty() {
            return Vec::new();
        }
        let shown = unknown.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let more = unknown.len().saturating_sub(5);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let message = format!(
            "no Namespace object was read for {shown}{more}: no `namespaceSelector` matches the pods there"
        );
        vec![
            Diagnostic::warning("unknown-namespace", message)
                .about(first.id().to_string())
                .at(first.source().map(location))
                .with_hint("add the Namespace objects, with their labels"),
        ]
    }
}

struct PolicyLints<'w, 'c> {
    world: &'w World<'c>,
    policy: &'c Policy,
    lints: Vec<Diagnostic>,
}

impl PolicyLints<'_, '_> {
    fn run(mut self) -> Vec<Diagnostic> {
        let Some(namespace) = self.policy.id().namespace.as_ref() else {
            return self.cluster_wide();
        };
        let here = self.world.pods_of(namespace);
        if here.is_empty() && self.world.cluster.namespace(namespace).is_none() {
            let message =
                format!("nothing else was read of namespace {}", quoted(namespace.as_str()));
            self.add("empty-namespace", message, None, "is `metadata.namespace` right?");
        }
        let selector = &self.policy.subject().pods;
        let subjects: Vec<&Pod> =
            here.iter().copied().filter(|pod| selector.matches(pod.labels())).collect();
        if subjects.is_empty() {
            if !here.is_empty() {
                let message = format!("selects none of the {} pods of its namespace", here.len());
                self.add(
                    "selects-no-pod",
                    message,
                    None,
                    "compare `podSelector` with the labels of the pods",
                );
            }
        } else if subjects.iter().all(|pod| pod.host_network()) {
            let message =
                "all pods that it selects are on the host network, where no policy applies";
            self.add("host-network-only", message, None, "");
        }
        self.dns(&subjects);
        self.families(&subjects);
        let policy = self.policy;
        for (direction, i, rule) in rules(policy) {
            self.port_names(direction, i, rule, &subjects);
            self.namespaces(direction, i, rule);
            self.blocks(direction, i, rule);
        }
        self.lints
    }

    /// What is true of every policy, for one that is in no namespace.
    fn cluster_wide(mut self) -> Vec<Diagnostic> {
        let policy = self.policy;
        if self.world.any_selected(policy.subject(), |_| true).is_none() {
            let message = "selects none of the pods that policies apply to";
            self.add(
                "selects-no-pod",
                message,
                None,
                "compare `subject` with the labels of namespaces and pods",
            );
        }
        for (direction, i, rule) in rules(policy) {
            self.namespaces(direction, i, rule);
        }
        self.lints
    }

    fn add(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        rule: Option<(Direction, usize, &TrafficMatch)>,
        hint: &str,
    ) {
        let source = rule.and_then(|(_, _, r)| r.source.as_ref()).or(self.policy.source());
        let field = rule.map(|(direction, i, _)| format!("spec.{direction}[{i}]"));
        self.lints.push(
            Diagnostic::warning(code, message)
                .about(self.policy.id().to_string())
                .at(source.map(location))
                .in_field(field.unwrap_or_default())
                .with_hint_if(Some(hint.to_owned()).filter(|hint| !hint.is_empty())),
        );
    }

    /// A policy that lets something out, but not DNS, nor does another one for all of its pods.
    fn dns(&mut self, subjects: &[&Pod]) {
        let Some(rules) = self.policy.rules(Direction::Egress) else { return };
        if rules.is_empty() || rules.iter().any(|rule| allows_dns(&rule.matches)) {
            return;
        }
        let namespace = self.policy.id().namespace.as_ref();
        let others =
            namespace.and_then(|n| self.world.egress.get(n)).map_or(&[][..], Vec::as_slice);
        let helped = |pod: &Pod| {
            others.iter().any(|(policy, dns)| *dns && policy.subject().pods.matches(pod.labels()))
        };
        if subjects.iter().any(|pod| pod.is_managed() && !helped(pod)) {
            let message = "egress is limited, and nothing lets DNS through";
            self.add("no-dns", message, None, "allow port 53 of UDP and TCP to the DNS pods");
        }
    }

    fn families(&mut self, subjects: &[&Pod]) {
        let dual = |pod: &&&Pod| {
            Family::ALL.iter().all(|&f| pod.addresses().iter().any(|&a| Family::of(a) == f))
        };
        if !subjects.iter().any(|pod| pod.is_managed() && dual(&pod)) {
            return;
        }
        for direction in Direction::ALL {
            let rules = self.policy.rules(direction).unwrap_or_default();
            let open = rules.iter().any(|rule| rule.matches.peers == Match::Any);
            let families: BTreeSet<Family> = rules
                .iter()
                .flat_map(|rule| peers(&rule.matches))
                .filter_map(|peer| match peer {
                    Peer::Network(block) => Some(Family::of(block.cidr.addr())),
                    _ => None,
                })
                .collect();
            if let (false, [family]) = (open, families.iter().collect::<Vec<_>>().as_slice()) {
                let other = if **family == Family::V4 { Family::V6 } else { Family::V4 };
                let message = format!(
                    "the blocks for {direction} are all {family}, but the pods have {other} addresses too"
                );
                let hint = format!("add a block for {other}, unless all of it is to be denied");
                self.add("one-family", message, None, &hint);
            }
        }
    }

    fn port_names(
        &mut self,
        direction: Direction,
        i: usize,
        rule: &TrafficMatch,
        subjects: &[&Pod],
    ) {
        let Match::OneOf(entries) = &rule.ports else { return };
        for entry in entries {
            let PortEntry::Named { protocol, name } = entry else { continue };
            let has = |pod: &Pod| {
                pod.ports().iter().any(|port| port.name == *name && port.protocol == *protocol)
            };
            // On whose ports the name is looked up; silent where no such pod was read.
            let known = match (direction, &rule.peers) {
                (Direction::Ingress, _) => {
                    subjects.is_empty() || subjects.iter().any(|pod| has(pod))
                }
                (Direction::Egress, Match::Any) => {
                    self.world.port_names.contains(&(name, *protocol))
                }
                (Direction::Egress, Match::OneOf(peers)) => {
                    let mut answers = peers.iter().map(|peer| match peer {
                        Peer::Pods(selection) => self.world.any_selected(selection, has),
                        _ => Some(self.world.port_names.contains(&(name, *protocol))),
                    });
                    answers.all(|answer| answer != Some(false))
                }
            };
            if !known {
                let whose = match direction {
                    Direction::Ingress => "of the pods that the policy selects",
                    Direction::Egress => "of the pods that it is about",
                };
                let message = format!(
                    "none {whose} has a {protocol} port called {}, so this entry allows nothing",
                    quoted(name.as_str())
                );
                let hint = "name the port in the container's `ports`, or write its number";
                self.add("unknown-port-name", message, Some((direction, i, rule)), hint);
            }
        }
    }

    fn namespaces(&mut self, direction: Direction, i: usize, rule: &TrafficMatch) {
        if self.world.cluster.namespaces().len() == 0 {
            return;
        }
        for peer in peers(rule) {
            let Peer::Pods(PodSelection {
                namespaces: NamespaceSelection::Matching(selector), ..
            }) = peer
            else {
                continue;
            };
            let matches = |labels: &Labels| selector.matches(labels);
            if !self.world.cluster.namespaces().any(|n| matches(n.labels())) {
                let message = format!(
                    "no namespace that was read matches the `namespaceSelector` {}",
                    quoted(&selector.to_string())
                );
                let hint = "compare it with the labels of the namespaces";
                self.add("no-such-namespace", message, Some((direction, i, rule)), hint);
            }
        }
    }

    fn blocks(&mut self, direction: Direction, i: usize, rule: &TrafficMatch) {
        for peer in peers(rule) {
            let Peer::Network(block) = peer else { continue };
            let pods = self.world.pods_in(block);
            if pods > 0 {
                let message = format!(
                    "the block {} holds {pods} pod addresses: it allows these pods whatever their labels",
                    quoted(&block.cidr.to_string())
                );
                let hint = "if only the outside is meant, put the pod network into `except`";
                self.add("block-covers-pods", message, Some((direction, i, rule)), hint);
            }
        }
    }
}

/// The rules of a policy. Their numbers are those of the text, since the conversion keeps every rule.
fn rules(policy: &Policy) -> impl Iterator<Item = (Direction, usize, &TrafficMatch)> {
    Direction::ALL.into_iter().flat_map(move |direction| {
        let rules = policy.rules(direction).unwrap_or_default();
        rules.iter().enumerate().map(move |(i, rule)| (direction, i, &rule.matches))
    })
}

fn peers(rule: &TrafficMatch) -> &[Peer] {
    match &rule.peers {
        Match::Any => &[],
        Match::OneOf(peers) => peers,
    }
}

/// Does the rule let a query through to anybody? DNS pods often listen on 5353, or call the port by name.
fn allows_dns(rule: &TrafficMatch) -> bool {
    let somebody = match &rule.peers {
        Match::Any => true,
        Match::OneOf(peers) => !peers.is_empty(),
    };
    let dns = |entry: &PortEntry| match entry {
        PortEntry::Protocol(protocol) => *protocol == Protocol::Udp,
        PortEntry::Range { protocol, first, last } => {
            *protocol == Protocol::Udp
                && [53, 5353].iter().any(|port| (first..=last).contains(&port))
        }
        PortEntry::Named { name, .. } => name.as_str().contains("dns"),
        _ => true,
    };
    somebody
        && match &rule.ports {
            Match::Any => true,
            Match::OneOf(entries) => entries.iter().any(dns),
        }
}

pub(crate) fn location(source: &SourcePosition) -> Location {
    Location { file: source.file.clone(), line: source.line, column: source.column, length: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::Reader;

    const CLUSTER: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}},
 spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]},
 status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: host, namespace: shop, labels: {app: host}}, spec: {hostNetwork: true, containers: []}}
---
";

    #[track_caller]
    fn check(cluster: &str, spec: &str, expected: &[&str]) {
        let mut reader = Reader::new();
        let policy = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
        );
        reader.read_text("f", &format!("{cluster}{policy}"));
        let manifests = reader.finish();
        assert_eq!(manifests.diagnostics(), [], "{spec}");
        let lints = lint(&manifests);
        let codes: Vec<_> = lints.iter().map(Diagnostic::code).collect();
        assert_eq!(codes, expected, "{spec}: {lints:#?}");
        assert!(lints.iter().all(|lint| lint.location().is_some()));
    }

    #[test]
    fn each_lint() {
        let lint = |spec: &str, expected: &[&str]| check(CLUSTER, spec, expected);
        lint("{podSelector: {matchLabels: {app: wbe}}}", &["selects-no-pod"]);
        lint("{podSelector: {matchLabels: {app: host}}}", &["host-network-only"]);
        lint("{egress: [{}]}", &["egress-isolates-ingress"]);
        lint("{policyTypes: [Egress], ingress: [{}]}", &["inert-rules"]);
        lint("{policyTypes: [Ingress], egress: [{}]}", &["inert-rules"]);
        lint("{ingress: [{from: [{namespaceSelector: {}}, {podSelector: {}}]}]}", &["split-peer"]);
        lint("{ingress: [{ports: [{port: https}]}]}", &["unknown-port-name"]);
        lint("{ingress: [{ports: [{port: http, protocol: UDP}]}]}", &["unknown-port-name"]);
        lint(
            "{policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}, {ports: [{port: dns}]}]}",
            &["unknown-port-name"],
        );
        lint("{policyTypes: [Egress], egress: [{ports: [{port: 443}]}]}", &["no-dns"]);
        lint("{policyTypes: [Egress], egress: [{ports: [{port: 53}]}]}", &["no-dns"]);
        lint(
            "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}",
            &["one-family", "block-covers-pods"],
        );
        lint(
            "{ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}}]}]}",
            &["no-such-namespace"],
        );
    }

    #[test]
    fn what_is_meant_is_left_alone() {
        for spec in [
            "{}",
            "{policyTypes: [Ingress, Egress]}",
            "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}",
            "{ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {}}]}]}",
            "{policyTypes: [Egress], egress: [{ports: [{port: 443}]}, {ports: [{port: 53, protocol: UDP}]}]}",
            "{policyTypes: [Egress], egress: [{}]}",
            "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/16]}}, {ipBlock: {cidr: '2001:db8::/32'}}]}]}",
        ] {
            check(CLUSTER, spec, &[]);
        }
        // Policies on their own say nothing about pods.
        let spec = "{podSelector: {matchLabels: {app: x}}, policyTypes: [Egress], egress: [{ports: [{port: x}]}]}";
        check("", spec, &[]);
    }

    #[test]
    fn namespaces_that_were_not_read() {
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: other}}\n---\n";
        check(pod, "{}", &["empty-namespace"]);
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}}\n---\n";
        check(pod, "{ingress: [{from: [{namespaceSelector: {}}]}]}", &["unknown-namespace"]);
    }
}
