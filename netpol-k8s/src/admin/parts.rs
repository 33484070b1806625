//! What the objects of both versions say, in one form: known or not, part by part.

use crate::api::{v1alpha1, v1alpha2};
use crate::cidr::Cidr;
use crate::convert::Converter;
use crate::diagnostic::{Diagnostic, Severity, quoted};
use crate::validate::{nearest, selector_defects};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use netpol_core::{
    Direction, IpBlock, NamespaceSelection, Peer, PodSelection, PortEntry, Protocol, Selector,
};

/// A policy of any kind.
pub(super) struct PolicyParts {
    /// None if the kind has no tier to choose.
    pub(super) tier: Option<String>,
    /// None if there is none.
    pub(super) priority: Option<i32>,
    pub(super) subject: Part<PodSelection>,
    pub(super) rules: Vec<RuleParts>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// What a part means, as far as it is known, and whether that is all of it.
pub(super) struct Part<T> {
    pub(super) field: String,
    pub(super) known: Vec<T>,
    pub(super) broken: bool,
    /// Nothing for a rule that accepts, broken in any other: domain names (CNP-19).
    pub(super) only_to_accept: bool,
}

pub(super) struct RuleParts {
    pub(super) direction: Direction,
    pub(super) index: usize,
    pub(super) action: Action,
    pub(super) peers: Vec<Part<Peer>>,
    /// None means every protocol and port.
    pub(super) ports: Option<Vec<Part<PortEntry>>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Action {
    Accept,
    Deny,
    Pass,
    Unknown,
}

/// Collects what is said about the contents of an object, which no server checks (CNP-21).
struct Reading<'c> {
    converter: &'c mut Converter,
    diagnostics: Vec<Diagnostic>,
}

impl PolicyParts {
    pub(super) fn cluster(
        spec: &v1alpha2::ClusterNetworkPolicySpec,
        converter: &mut Converter,
    ) -> Self {
        let mut reading = Reading { converter, diagnostics: Vec::new() };
        let action = |text: &str| match text {
            "Accept" => Action::Accept,
            "Deny" => Action::Deny,
            "Pass" => Action::Pass,
            _ => Action::Unknown,
        };
        let v1alpha2::Subject { namespaces, pods } = &spec.subject;
        let pods = pods.as_ref().map(NamespacedPods::of_v2);
        let subject = reading.subject(namespaces.as_ref(), pods.as_ref());
        let mut rules = Vec::new();
        for (index, rule) in spec.ingress.iter().enumerate() {
            let field = format!("spec.ingress[{index}]");
            let peers = rule.from.iter().enumerate().map(|(i, peer)| {
                let field = format!("{field}.from[{i}]");
                let pods = peer.pods.as_ref().map(NamespacedPods::of_v2);
                reading.ingress_peer(field, peer.namespaces.as_ref(), pods.as_ref())
            });
            rules.push(RuleParts {
                direction: Direction::Ingress,
                index,
                action: action(&rule.action),
                peers: peers.collect(),
                ports: reading.protocols(rule.protocols.as_deref(), &field),
            });
        }
        for (index, rule) in spec.egress.iter().enumerate() {
            let field = format!("spec.egress[{index}]");
            let peers = rule.to.iter().enumerate().map(|(i, peer)| {
                let pods = peer.pods.as_ref().map(NamespacedPods::of_v2);
                let peer = EgressPeer {
                    namespaces: peer.namespaces.as_ref(),
                    pods: pods.as_ref(),
                    networks: peer.networks.as_deref(),
                    nodes: peer.nodes.as_ref(),
                    domain_names: peer.domain_names.as_deref(),
                };
                reading.egress_peer(format!("{field}.to[{i}]"), &peer)
            });
            rules.push(RuleParts {
                direction: Direction::Egress,
                index,
                action: action(&rule.action),
                peers: peers.collect(),
                ports: reading.protocols(rule.protocols.as_deref(), &field),
            });
        }
        Self {
            tier: Some(spec.tier.clone()),
            priority: spec.priority,
            subject,
            rules,
            diagnostics: reading.diagnostics,
        }
    }

    pub(super) fn admin(
        spec: &v1alpha1::AdminNetworkPolicySpec,
        converter: &mut Converter,
    ) -> Self {
        let mut parts = Self::v1alpha1(&spec.subject, &spec.ingress, &spec.egress, true, converter);
        parts.priority = spec.priority;
        parts
    }

    pub(super) fn baseline(
        spec: &v1alpha1::BaselineAdminNetworkPolicySpec,
        converter: &mut Converter,
    ) -> Self {
        Self::v1alpha1(&spec.subject, &spec.ingress, &spec.egress, false, converter)
    }

    fn v1alpha1(
        subject: &v1alpha1::Subject,
        ingress: &[v1alpha1::IngressRule],
        egress: &[v1alpha1::EgressRule],
        may_pass: bool,
        converter: &mut Converter,
    ) -> Self {
        let mut reading = Reading { converter, diagnostics: Vec::new() };
        let action = |text: &str| match text {
            "Allow" => Action::Accept,
            "Deny" => Action::Deny,
            "Pass" if may_pass => Action::Pass,
            _ => Action::Unknown,
        };
        let pods = subject.pods.as_ref().map(|pods| NamespacedPods {
            namespaces: match &pods.namespace_selector {
                Some(selector) => Namespaces::Selector(selector.clone()),
                None => Namespaces::Missing,
            },
            key: "namespaceSelector",
            pods: pods.pod_selector.as_ref(),
        });
        let subject = reading.subject(subject.namespaces.as_ref(), pods.as_ref());
        let mut rules = Vec::new();
        for (index, rule) in ingress.iter().enumerate() {
            let field = format!("spec.ingress[{index}]");
            let peers = rule.from.iter().enumerate().map(|(i, peer)| {
                let field = format!("{field}.from[{i}]");
                let namespaces = peer.namespaces.as_ref().map(Namespaces::of);
                let pods = peer.pods.as_ref().map(NamespacedPods::of_v1);
                reading.v1_peer(field, namespaces, pods.as_ref(), &EgressPeer::default())
            });
            rules.push(RuleParts {
                direction: Direction::Ingress,
                index,
                action: action(&rule.action),
                peers: peers.collect(),
                ports: reading.ports(rule.ports.as_deref(), &field),
            });
        }
        for (index, rule) in egress.iter().enumerate() {
            let field = format!("spec.egress[{index}]");
            let peers = rule.to.iter().enumerate().map(|(i, peer)| {
                let namespaces = peer.namespaces.as_ref().map(Namespaces::of);
                let pods = peer.pods.as_ref().map(NamespacedPods::of_v1);
                let others = EgressPeer {
                    networks: peer.networks.as_deref(),
                    nodes: peer.nodes.as_ref(),
                    domain_names: peer.domain_names.as_deref(),
                    ..EgressPeer::default()
                };
                reading.v1_peer(format!("{field}.to[{i}]"), namespaces, pods.as_ref(), &others)
            });
            rules.push(RuleParts {
                direction: Direction::Egress,
                index,
                action: action(&rule.action),
                peers: peers.collect(),
                ports: reading.ports(rule.ports.as_deref(), &field),
            });
        }
        Self { tier: None, priority: None, subject, rules, diagnostics: reading.diagnostics }
    }
}

/// Which namespaces a peer or a subject means.
enum Namespaces {
    All,
    Selector(LabelSelector),
    /// By comparison with the subject's namespace (CNP-52).
    SameLabels,
    /// Not said, or said in several ways.
    Missing,
}

impl Namespaces {
    /// Of either shape of v1alpha1.
    fn of(peer: &v1alpha1::NamespacesPeer) -> Self {
        let new = peer.match_labels.is_some() || peer.match_expressions.is_some();
        let same = peer.same_labels.is_some() || peer.not_same_labels.is_some();
        match (&peer.namespace_selector, same, new) {
            (Some(selector), false, false) => Self::Selector(selector.clone()),
            (None, true, false) => Self::SameLabels,
            (None, false, _) => Self::Selector(LabelSelector {
                match_labels: peer.match_labels.clone(),
                match_expressions: peer.match_expressions.clone(),
            }),
            _ => Self::Missing,
        }
    }
}

struct NamespacedPods<'a> {
    namespaces: Namespaces,
    /// The field that says which namespaces.
    key: &'static str,
    pods: Option<&'a LabelSelector>,
}

impl<'a> NamespacedPods<'a> {
    fn of_v2(pods: &'a v1alpha2::NamespacedPod) -> Self {
        let namespaces = match &pods.namespace_selector {
            Some(selector) => Namespaces::Selector(selector.clone()),
            None => Namespaces::All,
        };
        Self { namespaces, key: "namespaceSelector", pods: pods.pod_selector.as_ref() }
    }

    fn of_v1(pods: &'a v1alpha1::PodsPeer) -> Self {
        let namespaces = match (&pods.namespace_selector, &pods.namespaces) {
            (Some(selector), None) => Namespaces::Selector(selector.clone()),
            // In the old shape an empty object selects nothing, and is not accepted.
            (None, Some(old)) if *old != v1alpha1::NamespacesPeer::default() => Namespaces::of(old),
            _ => Namespaces::Missing,
        };
        let key = match pods.namespaces.as_ref().map(|old| &old.namespace_selector) {
            None => "namespaceSelector",
            Some(None) => "namespaces",
            Some(Some(_)) => "namespaces.namespaceSelector",
        };
        Self { namespaces, key, pods: pods.pod_selector.as_ref() }
    }
}

#[derive(Default)]
struct EgressPeer<'a> {
    namespaces: Option<&'a LabelSelector>,
    pods: Option<&'a NamespacedPods<'a>>,
    networks: Option<&'a [String]>,
    nodes: Option<&'a LabelSelector>,
    domain_names: Option<&'a [String]>,
}

fn part<T>(field: impl Into<String>, known: Option<T>) -> Part<T> {
    let broken = known.is_none();
    let known = known.into_iter().collect();
    Part { field: field.into(), known, broken, only_to_accept: false }
}

fn everywhere(pods: Selector) -> PodSelection {
    PodSelection { namespaces: NamespaceSelection::Matching(Selector::everything()), pods }
}

impl Reading<'_> {
    /// The selector; none if nobody can evaluate it, which no server checks.
    fn selector(&mut self, selector: &LabelSelector, field: &str) -> Option<Selector> {
        for defect in selector_defects(selector, field) {
            // A value that no label can have is a value that nothing has (VAL-31).
            let severity = match defect.code() {
                "VAL-21" | "VAL-25" => Severity::Warning,
                _ => Severity::Error,
            };
            let diagnostic = Diagnostic::new(severity, "CNP-21", defect.message())
                .in_field(defect.field())
                .with_key(defect.key())
                .with_hint_if(defect.hint().map(str::to_owned));
            self.diagnostics.push(diagnostic);
        }
        self.converter.selector(selector)
    }

    fn namespaces(&mut self, namespaces: &Namespaces, field: &str) -> Option<Selector> {
        match namespaces {
            Namespaces::All => Some(Selector::everything()),
            Namespaces::Selector(selector) => self.selector(selector, field),
            Namespaces::SameLabels => {
                let message = "namespaces cannot be compared with the subject's, as later versions of the API cannot";
                let hint = "select the namespaces by a label";
                let defect = Diagnostic::error("CNP-52", message).in_field(field);
                self.diagnostics.push(defect.with_hint(hint));
                None
            }
            Namespaces::Missing => None,
        }
    }

    fn pods(&mut self, pods: &NamespacedPods<'_>, field: &str) -> Option<PodSelection> {
        let namespaces = self.namespaces(&pods.namespaces, &format!("{field}.{}", pods.key));
        let pods = self.selector(pods.pods?, &format!("{field}.podSelector"));
        Some(PodSelection { namespaces: NamespaceSelection::Matching(namespaces?), pods: pods? })
    }

    /// A broken subject is known to be among the pods of the namespaces that it names, or else any pod.
    fn subject(
        &mut self,
        namespaces: Option<&LabelSelector>,
        pods: Option<&NamespacedPods<'_>>,
    ) -> Part<PodSelection> {
        let field = "spec.subject";
        let selection = match (namespaces, pods) {
            (Some(namespaces), None) => {
                self.selector(namespaces, "spec.subject.namespaces").map(all_pods)
            }
            (None, Some(pods)) => self.pods(pods, "spec.subject.pods"),
            _ => None,
        };
        let widest = || {
            let known =
                pods.filter(|_| namespaces.is_none()).and_then(|pods| match &pods.namespaces {
                    Namespaces::Selector(selector) => self.converter.selector(selector),
                    _ => None,
                });
            known.map_or_else(|| everywhere(Selector::everything()), all_pods)
        };
        let broken = selection.is_none();
        let known = vec![selection.unwrap_or_else(widest)];
        Part { field: field.to_owned(), known, broken, only_to_accept: false }
    }

    fn ingress_peer(
        &mut self,
        field: String,
        namespaces: Option<&LabelSelector>,
        pods: Option<&NamespacedPods<'_>>,
    ) -> Part<Peer> {
        let peer = EgressPeer { namespaces, pods, ..EgressPeer::default() };
        self.egress_peer(field, &peer)
    }

    /// A peer of v1alpha1, whose namespaces are their own type.
    fn v1_peer(
        &mut self,
        field: String,
        namespaces: Option<Namespaces>,
        pods: Option<&NamespacedPods<'_>>,
        others: &EgressPeer<'_>,
    ) -> Part<Peer> {
        match namespaces {
            None => {
                let EgressPeer { networks, nodes, domain_names, .. } = *others;
                let peer = EgressPeer { namespaces: None, pods, networks, nodes, domain_names };
                self.egress_peer(field, &peer)
            }
            // Two fields in one peer: nobody knows which is meant.
            Some(_)
                if pods.is_some()
                    || others.networks.is_some()
                    || others.nodes.is_some()
                    || others.domain_names.is_some() =>
            {
                part(field, None)
            }
            Some(namespaces) => {
                let selector = self.namespaces(&namespaces, &format!("{field}.namespaces"));
                part(field, selector.map(|selector| Peer::Pods(all_pods(selector))))
            }
        }
    }

    fn egress_peer(&mut self, field: String, peer: &EgressPeer<'_>) -> Part<Peer> {
        let fields = [
            peer.namespaces.is_some(),
            peer.pods.is_some(),
            peer.networks.is_some(),
            peer.nodes.is_some(),
            peer.domain_names.is_some(),
        ];
        if fields.into_iter().filter(|there| *there).count() != 1 {
            return part(field, None);
        }
        if let Some(namespaces) = peer.namespaces {
            let selector = self.selector(namespaces, &format!("{field}.namespaces"));
            return part(field, selector.map(|selector| Peer::Pods(all_pods(selector))));
        }
        if let Some(pods) = peer.pods {
            let selection = self.pods(pods, &format!("{field}.pods"));
            return part(field, selection.map(Peer::Pods));
        }
        if let Some(nodes) = peer.nodes {
            let selector = self.selector(nodes, &format!("{field}.nodes"));
            return part(field, selector.map(Peer::Nodes));
        }
        if let Some(networks) = peer.networks {
            let cidr = |text: &String| Cidr::parse(text).ok().map(|cidr| cidr.net());
            let known: Vec<Peer> = networks
                .iter()
                .filter_map(cidr)
                .map(|cidr| Peer::Network(IpBlock { cidr, except: Vec::new() }))
                .collect();
            let broken = networks.is_empty() || known.len() < networks.len();
            return Part { field, known, broken, only_to_accept: false };
        }
        // Only domain names are left.
        Part { field, known: Vec::new(), broken: false, only_to_accept: true }
    }

    fn protocols(
        &mut self,
        protocols: Option<&[v1alpha2::Protocol]>,
        rule: &str,
    ) -> Option<Vec<Part<PortEntry>>> {
        let entries = protocols?.iter().enumerate().map(|(i, entry)| {
            let field = format!("{rule}.protocols[{i}]");
            let v1alpha2::Protocol { tcp, udp, sctp, destination_named_port } = entry;
            match (tcp, udp, sctp, destination_named_port) {
                (Some(ports), None, None, None) => self.protocol(field, Protocol::Tcp, ports),
                (None, Some(ports), None, None) => self.protocol(field, Protocol::Udp, ports),
                (None, None, Some(ports), None) => self.protocol(field, Protocol::Sctp, ports),
                (None, None, None, Some(name)) => {
                    self.named_port(field, "destinationNamedPort", name)
                }
                _ => part(field, None),
            }
        });
        Some(entries.collect())
    }

    fn protocol(
        &mut self,
        field: String,
        protocol: Protocol,
        ports: &v1alpha2::ProtocolPorts,
    ) -> Part<PortEntry> {
        let Some(port) = &ports.destination_port else {
            return part(field, Some(PortEntry::Protocol(protocol))); // CNP-15
        };
        let entry = match (port.number, &port.range) {
            (Some(number), None) => range(protocol, number, number),
            (None, Some(ports)) => range(protocol, ports.start, ports.end),
            _ => None,
        };
        part(field, entry)
    }

    /// The name, for whatever protocol the destination has it (CNP-16).
    fn named_port(&mut self, field: String, key: &str, name: &str) -> Part<PortEntry> {
        if let Some(what) = crate::syntax::port_name_defect(name) {
            let message = format!("{} {what}: no container has a port of this name", quoted(name));
            let hint = name.parse::<u16>().ok().map(|number| match key {
                "namedPort" => format!("a number is written `portNumber: {{port: {number}}}`"),
                _ => {
                    format!("a number is written `tcp: {{destinationPort: {{number: {number}}}}}`")
                }
            });
            let diagnostic = Diagnostic::warning("CNP-21", message);
            self.diagnostics.push(diagnostic.in_field(format!("{field}.{key}")).with_hint_if(hint));
        }
        let name = self.converter.share(name);
        let known = Protocol::ALL
            .map(|protocol| PortEntry::Named { protocol, name: name.clone().into() })
            .to_vec();
        Part { field, known, broken: false, only_to_accept: false }
    }

    fn ports(
        &mut self,
        ports: Option<&[v1alpha1::Port]>,
        rule: &str,
    ) -> Option<Vec<Part<PortEntry>>> {
        let entries = ports?.iter().enumerate().map(|(i, entry)| {
            let field = format!("{rule}.ports[{i}]");
            match (&entry.port_number, &entry.port_range, &entry.named_port) {
                (Some(port), None, None) => {
                    let at = format!("{field}.portNumber.protocol");
                    let protocol = self.v1_protocol(port.protocol.as_deref(), &at);
                    part(field, protocol.and_then(|protocol| range(protocol, port.port, port.port)))
                }
                (None, Some(ports), None) => {
                    let at = format!("{field}.portRange.protocol");
                    let protocol = self.v1_protocol(ports.protocol.as_deref(), &at);
                    if ports.start > ports.end {
                        let message = format!(
                            "`start` ({}) is greater than `end` ({}), so no port matches",
                            ports.start, ports.end
                        );
                        let warning = Diagnostic::warning("CNP-05", message);
                        self.diagnostics.push(warning.in_field(format!("{field}.portRange")));
                    }
                    let known = protocol.and_then(|p| range(p, ports.start, ports.end));
                    part(field, known)
                }
                (None, None, Some(name)) => self.named_port(field, "namedPort", name),
                _ => part(field, None),
            }
        });
        Some(entries.collect())
    }

    /// No server checks the protocol of v1alpha1 (CNP-05).
    fn v1_protocol(&mut self, protocol: Option<&str>, field: &str) -> Option<Protocol> {
        match protocol {
            None | Some("TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            Some(other) => {
                let message = format!("{} is none of `TCP`, `UDP` and `SCTP`", quoted(other));
                let hint = nearest(other, &["TCP", "UDP", "SCTP"]);
                let defect = Diagnostic::error("CNP-05", message).in_field(field);
                self.diagnostics.push(defect.with_hint_if(hint));
                None
            }
        }
    }
}

fn all_pods(namespaces: Selector) -> PodSelection {
    PodSelection {
        namespaces: NamespaceSelection::Matching(namespaces),
        pods: Selector::everything(),
    }
}

/// A range of ports that exist; backwards it matches nothing.
fn range(protocol: Protocol, first: i32, last: i32) -> Option<PortEntry> {
    let number = |n: i32| u16::try_from(n).ok().filter(|&n| n > 0);
    Some(PortEntry::Range { protocol, first: number(first)?, last: number(last)? })
}
