//! AdminNetworkPolicy and BaselineAdminNetworkPolicy as ClusterNetworkPolicies (CNP-50..CNP-52).
//!
//! | v1alpha1 | v1alpha2 |
//! |---|---|
//! | AdminNetworkPolicy | tier Admin, the same priority |
//! | BaselineAdminNetworkPolicy | tier Baseline, asked last |
//! | Allow | Accept |
//! | more than 25 peers or ports in a rule | several rules, which mean the same together |
//! | a named port beside networks or nodes, which have no names | rules of their own |
//! | more than 25 rules in a direction | several policies, at priorities that nobody else has in between |
//! | a port range of one port; backwards | a number; nothing |
//! | `sameLabels`, `notSameLabels`, whatever is defective | cannot be said: reported, and the policy is left out |

use super::convert::LAST_PRIORITY;
use super::{Channel, Typed};
use crate::api::Spec;
use crate::api::v1alpha1::{
    self as old, AdminNetworkPolicy, BaselineAdminNetworkPolicy, NamespacesPeer,
};
use crate::api::v1alpha2::{self as new, ClusterNetworkPolicy, ClusterNetworkPolicySpec};
use crate::convert::Converter;
use crate::diagnostic::{Diagnostic, Severity};
use crate::reader::Manifests;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use netpol_core::Direction;
use std::collections::BTreeSet;

/// What the definition of ClusterNetworkPolicy allows of rules, of peers and of ports.
const MOST: usize = 25;

/// What came of a conversion.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Upgrade {
    /// The converted policies, in the order in which they are asked.
    pub policies: Vec<ClusterNetworkPolicy>,
    /// What could not be converted (errors: that object is left out) and what is not as it was (warnings).
    pub diagnostics: Vec<Diagnostic>,
}

/// Converts the cluster-wide policies of v1alpha1 of one cluster, all at once: where a policy must be split, its parts are put
/// between the others. `existing` are the ClusterNetworkPolicies that are there already; they are not among the result.
///
/// No verdict changes, as long as the result takes the place of everything that was converted.
///
/// ```
/// use netpol_k8s::api::v1alpha1::AdminNetworkPolicy;
/// let policy: AdminNetworkPolicy = serde_json::from_value(serde_json::json!({
///     "metadata": {"name": "guard"},
///     "spec": {"priority": 7, "subject": {"namespaces": {}}, "ingress": [{"action": "Allow", "from": [{"namespaces": {}}]}]},
/// }))?;
/// let upgrade = netpol_k8s::upgrade(&[policy], &[], &[]);
/// assert!(upgrade.diagnostics.is_empty());
/// let spec = upgrade.policies[0].spec.as_ref().unwrap();
/// assert_eq!((spec.tier.as_str(), spec.priority, spec.ingress[0].action.as_str()), ("Admin", Some(7), "Accept"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[must_use]
pub fn upgrade(
    admin: &[AdminNetworkPolicy],
    baseline: &[BaselineAdminNetworkPolicy],
    existing: &[ClusterNetworkPolicy],
) -> Upgrade {
    let mut upgrade = Upgrade::default();
    let mut admins = Vec::new();
    for policy in admin {
        let (_, found) = Converter::new().admin_network_policy(policy, Channel::Experimental);
        let object = format!("AdminNetworkPolicy {}", name_of(&policy.metadata));
        if upgrade.is_sound(&object, found)
            && let Some(spec) = &policy.spec
            && let Some(priority) = spec.priority
        {
            let rules = upgrade.rules(&object, &spec.ingress, &spec.egress);
            let subject = subject(&spec.subject);
            admins.push(Item::new(object, &policy.metadata, priority, subject, rules));
        }
    }
    let mut baselines = Vec::new();
    for policy in baseline {
        let (_, found) =
            Converter::new().baseline_admin_network_policy(policy, Channel::Experimental);
        let object = format!("BaselineAdminNetworkPolicy {}", name_of(&policy.metadata));
        if upgrade.is_sound(&object, found)
            && let Some(spec) = &policy.spec
        {
            let rules = upgrade.rules(&object, &spec.ingress, &spec.egress);
            let subject = subject(&spec.subject);
            baselines.push(Item::new(object, &policy.metadata, LAST_PRIORITY, subject, rules));
        }
    }
    let mut names: BTreeSet<String> =
        existing.iter().map(|policy| name_of(&policy.metadata).to_owned()).collect();
    for (tier, items) in [("Admin", admins), ("Baseline", baselines)] {
        upgrade.place(tier, items, existing, &mut names);
    }
    upgrade
}

/// Converts the cluster-wide policies of v1alpha1 that were read, as [`upgrade`]. The ClusterNetworkPolicies that were read keep
/// their places and are not among the result.
///
/// ```
/// let mut reader = netpol_k8s::Reader::new();
/// reader.read_text("guard.yaml", "\
/// apiVersion: policy.networking.k8s.io/v1alpha1
/// kind: AdminNetworkPolicy
/// metadata: {name: guard}
/// spec: {priority: 7, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
/// ");
/// let upgrade = netpol_k8s::upgrade_manifests(&reader.finish());
/// assert_eq!(upgrade.policies[0].metadata.name.as_deref(), Some("guard"));
/// ```
#[must_use]
pub fn upgrade_manifests(manifests: &Manifests) -> Upgrade {
    let (mut admin, mut baseline, mut existing) = (Vec::new(), Vec::new(), Vec::new());
    let mut broken = Vec::new();
    for (object, typed) in manifests.cluster_wide() {
        match typed {
            Some(Typed::Admin(policy)) => admin.push(policy.clone()),
            Some(Typed::Baseline(policy)) => baseline.push(policy.clone()),
            Some(Typed::Cluster(policy)) => existing.push(policy.clone()),
            None if object.starts_with(ClusterNetworkPolicySpec::KIND) => {
                let message =
                    "is not looked at, so parts of others may get in its way: mend it first";
                broken.push(Diagnostic::warning("CNP-51", message).about(object));
            }
            None => {
                let message = "is not converted: what is wrong with it must be mended first";
                broken.push(Diagnostic::error("CNP-52", message).about(object));
            }
        }
    }
    let mut upgrade = upgrade(&admin, &baseline, &existing);
    broken.append(&mut upgrade.diagnostics);
    upgrade.diagnostics = broken
        .into_iter()
        .map(|diagnostic| {
            let place = diagnostic.object().and_then(|object| manifests.place(object)).cloned();
            diagnostic.at(place)
        })
        .collect();
    upgrade
}

fn name_of(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// A policy of v1alpha1 on its way, or an existing one that keeps its place.
struct Item {
    object: String,
    name: String,
    priority: i32,
    /// None for an existing one.
    converted: Option<Converted>,
}

struct Converted {
    metadata: ObjectMeta,
    subject: new::Subject,
    ingress: Vec<new::IngressRule>,
    egress: Vec<new::EgressRule>,
}

type Rules = (Vec<new::IngressRule>, Vec<new::EgressRule>);

impl Item {
    fn new(
        object: String,
        metadata: &ObjectMeta,
        priority: i32,
        subject: new::Subject,
        (ingress, egress): Rules,
    ) -> Self {
        // What a server has written there is about the old object.
        let metadata = ObjectMeta {
            name: metadata.name.clone(),
            labels: metadata.labels.clone(),
            annotations: metadata.annotations.clone().map(|mut annotations| {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
                annotations
            }),
            ..ObjectMeta::default()
        };
        let name = name_of(&metadata).to_owned();
        let converted = Some(Converted { metadata, subject, ingress, egress });
        Self { object, name, priority, converted }
    }

    /// How many policies it takes.
    fn parts(&self) -> usize {
        self.converted.as_ref().map_or(1, |converted| {
            let most = converted.ingress.len().max(converted.egress.len());
            most.div_ceil(MOST).max(1)
        })
    }
}

impl Upgrade {
    /// May the policy be converted? What it says must be beyond doubt.
    fn is_sound(&mut self, object: &str, found: Vec<Diagnostic>) -> bool {
        // That a name of a port stands beside a network can be said in other words.
        let defects =
            found.into_iter().filter(|d| d.severity() == Severity::Error && d.code() != "CNP-16");
        let before = self.diagnostics.len();
        self.diagnostics.extend(defects);
        let sound = self.diagnostics.len() == before;
        if !sound {
            let message = "is not converted: what is wrong with it must be mended first";
            self.diagnostics.push(Diagnostic::error("CNP-52", message).about(object));
        }
        sound
    }

    fn rules(
        &mut self,
        object: &str,
        ingress: &[old::IngressRule],
        egress: &[old::EgressRule],
    ) -> Rules {
        let (mut new_ingress, mut new_egress) = (Vec::new(), Vec::new());
        for (i, rule) in ingress.iter().enumerate() {
            let Some(protocols) =
                self.protocols(object, Direction::Ingress, i, rule.ports.as_deref())
            else {
                continue;
            };
            let peers: Vec<_> = rule.from.iter().map(ingress_peer).collect();
            for (peers, protocols) in pieces(&peers, protocols.as_deref()) {
                new_ingress.push(new::IngressRule {
                    name: rule.name.clone(),
                    action: action(&rule.action),
                    from: peers,
                    protocols,
                });
            }
        }
        for (i, rule) in egress.iter().enumerate() {
            let Some(protocols) =
                self.protocols(object, Direction::Egress, i, rule.ports.as_deref())
            else {
                continue;
            };
            let (nameless, named): (Vec<_>, Vec<_>) = rule
                .to
                .iter()
                .map(egress_peer)
                .partition(|peer| peer.namespaces.is_none() && peer.pods.is_none());
            // Only pods have names for their ports (CNP-16).
            let numbers = protocols.as_ref().map(|protocols| {
                let is_number = |p: &&new::Protocol| p.destination_named_port.is_none();
                protocols.iter().filter(is_number).cloned().collect::<Vec<_>>()
            });
            let mut all = pieces(&named, protocols.as_deref());
            if numbers.as_ref().is_none_or(|numbers| !numbers.is_empty()) {
                if numbers == protocols {
                    let together: Vec<_> = named.into_iter().chain(nameless).collect();
                    all = pieces(&together, protocols.as_deref());
                } else {
                    all.extend(pieces(&nameless, numbers.as_deref()));
                }
            }
            for (peers, protocols) in all {
                new_egress.push(new::EgressRule {
                    name: rule.name.clone(),
                    action: action(&rule.action),
                    to: peers,
                    protocols,
                });
            }
        }
        (new_ingress, new_egress)
    }

    /// The protocols of a rule: `Some(None)` for all; none if no port can match, so that the rule says nothing.
    #[expect(clippy::option_option, reason = "no ports to match, and ports that match nothing")]
    fn protocols(
        &mut self,
        object: &str,
        direction: Direction,
        i: usize,
        ports: Option<&[old::Port]>,
    ) -> Option<Option<Vec<new::Protocol>>> {
        let Some(ports) = ports else { return Some(None) };
        let protocols: Vec<_> = ports.iter().filter_map(protocol).collect();
        if protocols.is_empty() {
            let message = "no port can match this rule, so it is left out";
            let diagnostic = Diagnostic::warning("CNP-50", message).about(object);
            self.diagnostics.push(diagnostic.in_field(format!("spec.{direction}[{i}].ports")));
            return None;
        }
        Some(Some(protocols))
    }

    /// Gives every policy of a tier its name and its priority, or its priorities if it takes several.
    fn place(
        &mut self,
        tier: &str,
        items: Vec<Item>,
        existing: &[ClusterNetworkPolicy],
        names: &mut BTreeSet<String>,
    ) {
        let theirs = existing.iter().filter_map(|policy| {
            let spec = policy.spec.as_ref().filter(|spec| spec.tier == tier)?;
            let name = name_of(&policy.metadata).to_owned();
            Some(Item { object: String::new(), name, priority: spec.priority?, converted: None })
        });
        let mut items: Vec<Item> = items.into_iter().chain(theirs).collect();
        // The order in which they are asked: by priority, name, and kind, of which the old ones come first (CNP-32).
        items.sort_by(|a, b| {
            (a.priority, &a.name, a.converted.is_none()).cmp(&(
                b.priority,
                &b.name,
                b.converted.is_none(),
            ))
        });
        let place = |item: &Item| Some((item.priority, item.name.clone()));
        let after: Vec<_> = items.iter().skip(1).map(place).chain([None]).collect();
        let mut last: Option<(i32, String)> = None;
        for (item, next) in items.into_iter().zip(after) {
            let parts = item.parts();
            let Some(converted) = item.converted else {
                last = Some((item.priority, item.name));
                continue;
            };
            let Some(places) =
                places(&item.name, item.priority, parts, last.as_ref(), next.as_ref(), names)
            else {
                let message = format!(
                    "is not converted: it takes {parts} policies, and there is no free priority for each"
                );
                let hint = "leave room between its priority and those of its neighbors";
                let defect = Diagnostic::error("CNP-51", message).about(&item.object);
                self.diagnostics.push(defect.with_hint(hint));
                continue;
            };
            let moved = places
                .iter()
                .any(|(priority, name)| (*priority, name) != (item.priority, &item.name));
            if moved {
                let list: Vec<_> =
                    places.iter().map(|(priority, name)| format!("{name} at {priority}")).collect();
                let message = format!("becomes {}", list.join(", "));
                self.diagnostics.push(Diagnostic::warning("CNP-51", message).about(&item.object));
            }
            last = places.last().cloned();
            let mut ingress = converted.ingress.chunks(MOST);
            let mut egress = converted.egress.chunks(MOST);
            for (priority, name) in places {
                names.insert(name.clone());
                let metadata = ObjectMeta { name: Some(name), ..converted.metadata.clone() };
                let spec = ClusterNetworkPolicySpec {
                    tier: tier.to_owned(),
                    priority: Some(priority),
                    subject: converted.subject.clone(),
                    ingress: ingress.next().unwrap_or_default().to_vec(),
                    egress: egress.next().unwrap_or_default().to_vec(),
                };
                self.policies.push(ClusterNetworkPolicy { metadata, spec: Some(spec) });
            }
        }
    }
}

/// A priority and a name for each part: after `last`, before whatever has the priority `next`, at `priority` if that is
/// possible. None if it is not.
fn places(
    name: &str,
    priority: i32,
    parts: usize,
    last: Option<&(i32, String)>,
    next: Option<&(i32, String)>,
    names: &BTreeSet<String>,
) -> Option<Vec<(i32, String)>> {
    let mut taken = names.clone();
    let mut part_names = Vec::new();
    for part in 1..=parts {
        let wanted = if part == 1 { name.to_owned() } else { format!("{name}-{part}") };
        let more = (2..).map(|n| format!("{wanted}.{n}"));
        let free =
            std::iter::once(wanted.clone()).chain(more).find(|name| !taken.contains(name))?;
        taken.insert(free.clone());
        part_names.push(free);
    }
    // A single one stays where it is, by its name among those of its priority.
    if let [only] = part_names.as_slice() {
        let is_after = |(at, name): &(i32, String)| *at < priority || name < only;
        let is_before = |(at, name): &(i32, String)| *at > priority || only < name;
        let fits = last.is_none_or(is_after) && next.is_none_or(is_before);
        return fits.then(|| vec![(priority, only.clone())]);
    }
    // Several need priorities that nobody else has.
    let least = last.map_or(0, |(priority, _)| priority.saturating_add(1));
    let most = next.map_or(1000, |(next, _)| next.saturating_sub(1)).min(1000);
    let length = i32::try_from(parts).ok()?;
    let first = priority.min(most.saturating_sub(length - 1));
    (first >= least && first + length > priority).then(|| (first..).zip(part_names).collect())
}

fn action(action: &str) -> String {
    if action == "Allow" { "Accept" } else { action }.to_owned()
}

/// Peers and protocols, at most so many of each, which mean the same together.
fn pieces<P: Clone>(
    peers: &[P],
    protocols: Option<&[new::Protocol]>,
) -> Vec<(Vec<P>, Option<Vec<new::Protocol>>)> {
    let mut pieces = Vec::new();
    for peers in peers.chunks(MOST) {
        match protocols {
            None => pieces.push((peers.to_vec(), None)),
            Some(protocols) => pieces
                .extend(protocols.chunks(MOST).map(|some| (peers.to_vec(), Some(some.to_vec())))),
        }
    }
    pieces
}

fn subject(subject: &old::Subject) -> new::Subject {
    let pods = subject.pods.as_ref().map(|pods| new::NamespacedPod {
        namespace_selector: pods.namespace_selector.clone(),
        pod_selector: pods.pod_selector.clone(),
    });
    new::Subject { namespaces: subject.namespaces.clone(), pods }
}

/// The selector of either shape; a sound policy compares no labels.
fn namespaces(peer: &NamespacesPeer) -> LabelSelector {
    peer.namespace_selector.clone().unwrap_or_else(|| LabelSelector {
        match_labels: peer.match_labels.clone(),
        match_expressions: peer.match_expressions.clone(),
    })
}

fn pods(peer: &old::PodsPeer) -> new::NamespacedPod {
    let old = || peer.namespaces.as_ref().map(namespaces);
    new::NamespacedPod {
        namespace_selector: peer.namespace_selector.clone().or_else(old),
        pod_selector: peer.pod_selector.clone(),
    }
}

fn ingress_peer(peer: &old::IngressPeer) -> new::IngressPeer {
    new::IngressPeer {
        namespaces: peer.namespaces.as_ref().map(namespaces),
        pods: peer.pods.as_ref().map(pods),
    }
}

fn egress_peer(peer: &old::EgressPeer) -> new::EgressPeer {
    new::EgressPeer {
        namespaces: peer.namespaces.as_ref().map(namespaces),
        pods: peer.pods.as_ref().map(pods),
        networks: peer.networks.clone(),
        nodes: peer.nodes.clone(),
        domain_names: peer.domain_names.clone(),
    }
}

/// None for a range that is backwards and so matches nothing.
fn protocol(port: &old::Port) -> Option<new::Protocol> {
    if let Some(name) = &port.named_port {
        let destination_named_port = Some(name.clone());
        return Some(new::Protocol { destination_named_port, ..new::Protocol::default() });
    }
    let (protocol, start, end) = match (&port.port_number, &port.port_range) {
        (Some(number), _) => (&number.protocol, number.port, number.port),
        (None, Some(range)) => (&range.protocol, range.start, range.end),
        (None, None) => return None,
    };
    if start > end {
        return None;
    }
    let port = if start == end {
        new::Port { number: Some(start), range: None }
    } else {
        new::Port { number: None, range: Some(new::PortRange { start, end }) }
    };
    let ports = Some(new::ProtocolPorts { destination_port: Some(port) });
    let none = new::Protocol::default();
    Some(match protocol.as_deref() {
        Some("UDP") => new::Protocol { udp: ports, ..none },
        Some("SCTP") => new::Protocol { sctp: ports, ..none },
        _ => new::Protocol { tcp: ports, ..none },
    })
}
