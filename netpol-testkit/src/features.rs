//! Which parts of the semantics a sample exercises.
//!
//! A property that holds for thousands of samples says nothing about a rule that none of them touched. [`features`]
//! names what a cluster and a connection have to do with each other; [`FEATURES`] is everything it can say, so that a
//! test of strategies can demand that each of them is reached.

use ipnet::IpNet;
use netpol_core::{
    AddressSet, Cluster, Direction, Family, IpBlock, Labels, Match, NAMESPACE_NAME_LABEL,
    Namespace, NamespaceSelection, Operator, Options, Peer, Phase, Pod, PodSelection, Policy,
    PortEntry, Protocol, Selector, Tier, TrafficMatch, Verdict,
};
use netpol_sim::{Connection, End, Traffic, reference};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Everything that [`features`] can name.
pub const FEATURES: &[&str] = &[
    "IPv4",
    "IPv6",
    "no address known",
    "TCP",
    "UDP",
    "SCTP",
    "ICMP",
    "ICMPv6",
    "ICMPv6 neighbor discovery",
    "another protocol",
    "port 0",
    "port 65535",
    "from a pod by address",
    "from a pod by identity",
    "from nobody's address",
    "from a finished pod's address",
    "from a host network pod's address",
    "from an unmanaged pod by identity",
    "to a pod by address",
    "to a pod by identity",
    "to nobody's address",
    "to a finished pod's address",
    "to a host network pod's address",
    "to an unmanaged pod by identity",
    "a pod and itself",
    "external to external",
    "own node to pod",
    "own node to pod, saved by the exemption",
    "own node to pod, denied by a cluster-wide tier",
    "pod to own node",
    "address claimed twice, running wins",
    "address claimed twice, younger wins",
    "address claimed twice, tie",
    "subject in an unknown namespace",
    "subject is pending",
    "allowed",
    "denied by the source",
    "denied by the destination",
    "denied by both sides",
    "not isolated",
    "isolated without rules",
    "isolated and allowed",
    "isolated and denied",
    "several policies isolate",
    "Admin Allow decides",
    "Admin Deny decides",
    "Admin Pass decides",
    "Baseline Allow decides",
    "Baseline Deny decides",
    "Baseline Pass decides",
    "Baseline is not asked, isolated",
    "equal priorities, the name decides",
    "a later priority would decide otherwise",
    "peers: any",
    "peers: empty list",
    "pod peer matches",
    "pod peer does not match",
    "pod peer meets nobody's address",
    "pod peer by namespace label, namespace unknown",
    "namespace selected by its name label",
    "block matches a pod",
    "block matches nobody's address",
    "block meets a pod without known address",
    "block of the other family",
    "block of everything",
    "block of one address",
    "block with host bits",
    "address at the edge of a block",
    "hole takes the address away",
    "hole is filled by another peer",
    "hole is as large as the block or larger",
    "hole of the other family",
    "ports: any",
    "ports: empty list",
    "ports against another protocol",
    "whole protocol matches",
    "port at the edge of a range",
    "port just outside a range",
    "range backwards",
    "named port matches",
    "named port, several numbers",
    "named port, other protocol",
    "named port nobody has",
    "named port, egress to nobody's address",
    "named port and block",
    "In with a listed value",
    "In with an absent key",
    "In without values",
    "NotIn with another value",
    "NotIn with an absent key",
    "Exists",
    "DoesNotExist with an absent key",
    "empty value selected",
    "empty selector",
];

/// Which of [`FEATURES`] this cluster and this connection exercise, under the default options.
///
/// Linear in the size of the cluster times the size of the policies.
#[must_use]
pub fn features(cluster: &Cluster, connection: &Connection) -> BTreeSet<&'static str> {
    let mut sample = Sample { cluster, connection, found: BTreeSet::new() };
    sample.traffic();
    let source = sample.end(connection.source(), &SOURCE);
    let destination = sample.end(connection.destination(), &DESTINATION);
    let own_node = connection.own_node();
    match (source, destination) {
        (None, None) => sample.add("external to external", true),
        (Some(s), Some(d)) => sample.add("a pod and itself", s.id() == d.id()),
        (None, Some(_)) => sample.add("own node to pod", own_node),
        (Some(_), None) => sample.add("pod to own node", own_node),
    }
    let itself = source.is_some() && source.map(Pod::id) == destination.map(Pod::id);
    let allows = |d| reference::direction_allowed(cluster, connection, d, &Options::default());
    match (allows(Direction::Egress), allows(Direction::Ingress)) {
        (true, true) => sample.add("allowed", true),
        (true, false) => sample.add("denied by the destination", true),
        (false, true) => sample.add("denied by the source", true),
        (false, false) => sample.add("denied by both sides", true),
    }
    if !itself && !connection.traffic().is_neighbor_discovery() {
        if let Some(subject) = source {
            sample.side(Direction::Egress, subject, destination, destination);
        }
        if let Some(subject) = destination {
            sample.side(Direction::Ingress, subject, source, destination);
        }
    }
    sample.found
}

/// Names for one end: pod by address, by identity, nobody, finished, host network, unmanaged by identity.
type EndNames = [&'static str; 6];

const SOURCE: EndNames = [
    "from a pod by address",
    "from a pod by identity",
    "from nobody's address",
    "from a finished pod's address",
    "from a host network pod's address",
    "from an unmanaged pod by identity",
];

const DESTINATION: EndNames = [
    "to a pod by address",
    "to a pod by identity",
    "to nobody's address",
    "to a finished pod's address",
    "to a host network pod's address",
    "to an unmanaged pod by identity",
];

struct Sample<'a> {
    cluster: &'a Cluster,
    connection: &'a Connection,
    found: BTreeSet<&'static str>,
}

/// One direction of the sample.
struct View<'a> {
    direction: Direction,
    remote: Option<&'a Pod>,
    remote_address: Option<IpAddr>,
    destination: Option<&'a Pod>,
}

impl<'a> Sample<'a> {
    fn add(&mut self, feature: &'static str, present: bool) {
        if present {
            self.found.insert(feature);
        }
    }

    fn traffic(&mut self) {
        self.add(
            match self.connection.family() {
                Some(Family::V4) => "IPv4",
                Some(Family::V6) => "IPv6",
                None => "no address known",
            },
            true,
        );
        let name = match self.connection.traffic() {
            Traffic::Port(Protocol::Tcp, _) => "TCP",
            Traffic::Port(Protocol::Udp, _) => "UDP",
            Traffic::Port(Protocol::Sctp, _) => "SCTP",
            Traffic::Icmpv6(_) if self.connection.traffic().is_neighbor_discovery() => {
                "ICMPv6 neighbor discovery"
            }
            Traffic::Icmpv6(_) => "ICMPv6",
            Traffic::Other(1) => "ICMP",
            Traffic::Other(_) => "another protocol",
        };
        self.add(name, true);
        self.add("port 0", matches!(self.connection.traffic(), Traffic::Port(_, 0)));
        self.add("port 65535", matches!(self.connection.traffic(), Traffic::Port(_, u16::MAX)));
    }

    /// The managed pod at this end.
    fn end(&mut self, end: &End, names: &EndNames) -> Option<&'a Pod> {
        let [by_address, by_identity, nobody, finished, host, unmanaged] = *names;
        let cluster = self.cluster;
        match end {
            End::Pod(id) => {
                let pod = cluster.pod(id).filter(|pod| pod.is_managed());
                self.add(if pod.is_some() { by_identity } else { unmanaged }, true);
                pod
            }
            End::Address(address) => {
                let claim = |pod: &&Pod| pod.addresses().contains(address);
                let claims: Vec<&Pod> = cluster.pods().filter(claim).collect();
                let owner = cluster.address_owners().get(address).and_then(|id| cluster.pod(id));
                let managed = claims.iter().filter(|pod| pod.is_managed());
                let mut others = managed.filter(|pod| Some(pod.id()) != owner.map(Pod::id));
                if let (Some(owner), Some(other)) = (owner, others.next_back()) {
                    let running = |pod: &Pod| pod.phase() == Phase::Running;
                    let why = if running(owner) != running(other) {
                        "address claimed twice, running wins"
                    } else if owner.created() != other.created() {
                        "address claimed twice, younger wins"
                    } else {
                        "address claimed twice, tie"
                    };
                    self.add(why, true);
                }
                self.add(if owner.is_some() { by_address } else { nobody }, true);
                if owner.is_none() {
                    self.add(finished, claims.iter().any(|p| p.phase() == Phase::Finished));
                    self.add(host, claims.iter().any(|p| p.host_network()));
                }
                owner
            }
        }
    }

    fn side(
        &mut self,
        direction: Direction,
        subject: &Pod,
        remote: Option<&'a Pod>,
        destination: Option<&'a Pod>,
    ) {
        let end = match direction {
            Direction::Ingress => self.connection.source(),
            Direction::Egress => self.connection.destination(),
        };
        let remote_address = match end {
            End::Address(address) => Some(*address),
            End::Pod(_) => None,
        };
        let view = View { direction, remote, remote_address, destination };
        self.add("subject in an unknown namespace", self.namespace_of(subject).is_none());
        self.add("subject is pending", subject.phase() == Phase::Pending);

        let own_node_ingress =
            self.connection.own_node() && remote.is_none() && direction == Direction::Ingress;
        let isolating = self.policies(Tier::NetworkPolicy, subject, direction);
        let isolated = !isolating.is_empty();
        let rules = || isolating.iter().filter_map(|policy| policy.rules(direction)).flatten();
        self.add("not isolated", !isolated);
        self.add("several policies isolate", isolating.len() > 1);
        self.add("isolated without rules", isolated && rules().next().is_none());

        let admin = self.cluster_wide(Tier::Admin, subject, &view);
        match admin {
            Some(Verdict::Allow) => self.add("Admin Allow decides", true),
            Some(Verdict::Deny) => {
                self.add("Admin Deny decides", true);
                self.add("own node to pod, denied by a cluster-wide tier", own_node_ingress);
            }
            Some(Verdict::Pass) => self.add("Admin Pass decides", true),
            None => {}
        }
        if matches!(admin, Some(Verdict::Allow | Verdict::Deny)) {
            return;
        }
        if isolated {
            let matched = rules().filter(|rule| self.rule(&rule.matches, &view)).count();
            self.add("isolated and allowed", matched > 0);
            self.add("isolated and denied", matched == 0 && !own_node_ingress);
            self.add("own node to pod, saved by the exemption", matched == 0 && own_node_ingress);
            let mut baseline = Self { found: BTreeSet::new(), ..*self };
            let unasked = baseline.cluster_wide(Tier::Baseline, subject, &view);
            self.add("Baseline is not asked, isolated", unasked.is_some());
            return;
        }
        match self.cluster_wide(Tier::Baseline, subject, &view) {
            Some(Verdict::Allow) => self.add("Baseline Allow decides", true),
            Some(Verdict::Deny) => {
                self.add("Baseline Deny decides", true);
                self.add("own node to pod, denied by a cluster-wide tier", own_node_ingress);
            }
            Some(Verdict::Pass) => self.add("Baseline Pass decides", true),
            None => {}
        }
    }

    fn namespace_of(&self, pod: &Pod) -> Option<&'a Namespace> {
        self.cluster.namespace(pod.id().namespace())
    }

    /// The policies of a tier with rules for this direction that select the subject, in their order.
    fn policies(&mut self, tier: Tier, subject: &Pod, direction: Direction) -> Vec<&'a Policy> {
        let mut policies: Vec<&Policy> = self
            .cluster
            .policies()
            .filter(|policy| policy.tier() == tier && policy.rules(direction).is_some())
            .filter(|policy| self.selects(policy.subject(), subject))
            .collect();
        policies.sort_by_key(|policy| (policy.priority(), policy.id()));
        policies
    }

    /// The verdict of the first matching rule of an Admin or Baseline tier.
    fn cluster_wide(&mut self, tier: Tier, subject: &Pod, view: &View<'_>) -> Option<Verdict> {
        let mut verdicts = Vec::new();
        for policy in self.policies(tier, subject, view.direction) {
            let rules = policy.rules(view.direction).unwrap_or_default();
            let first = rules.iter().find(|rule| self.rule(&rule.matches, view));
            verdicts.extend(first.map(|rule| (policy.priority(), rule.verdict)));
        }
        let (priority, verdict) = *verdicts.first()?;
        for (other, _) in verdicts.into_iter().filter(|(_, v)| *v != verdict) {
            self.add("equal priorities, the name decides", other == priority);
            self.add("a later priority would decide otherwise", other != priority);
        }
        Some(verdict)
    }

    fn rule(&mut self, rule: &TrafficMatch, view: &View<'_>) -> bool {
        let peers = match &rule.peers {
            Match::Any => {
                self.add("peers: any", true);
                true
            }
            Match::OneOf(peers) => {
                self.add("peers: empty list", peers.is_empty());
                let matches: Vec<bool> = peers.iter().map(|peer| self.peer(peer, view)).collect();
                let hole = peers.iter().any(|peer| match (peer, view.remote_address) {
                    (Peer::Network(block), Some(a)) => in_hole(block, a),
                    _ => false,
                });
                let some = matches.contains(&true);
                self.add("hole takes the address away", hole && !some);
                self.add("hole is filled by another peer", hole && some);
                some
            }
        };
        if !peers {
            return false;
        }
        match &rule.ports {
            Match::Any => {
                self.add("ports: any", true);
                true
            }
            Match::OneOf(entries) => {
                self.add("ports: empty list", entries.is_empty());
                let block = matches!(&rule.peers, Match::OneOf(peers)
                    if peers.iter().any(|peer| matches!(peer, Peer::Network(_))));
                let named = entries.iter().any(|e| matches!(e, PortEntry::Named { .. }));
                self.add("named port and block", named && block);
                entries.iter().filter(|entry| self.port(entry, view)).count() > 0
            }
        }
    }

    fn peer(&mut self, peer: &Peer, view: &View<'_>) -> bool {
        match (peer, view.remote, view.remote_address) {
            (Peer::Pods(selection), Some(pod), _) => {
                let selected = self.selects(selection, pod);
                self.add("pod peer matches", selected);
                self.add("pod peer does not match", !selected);
                let by_label = matches!(selection.namespaces, NamespaceSelection::Matching(_));
                let unknown = self.namespace_of(pod).is_none();
                self.add("pod peer by namespace label, namespace unknown", by_label && unknown);
                selected
            }
            (Peer::Pods(_), None, address) => {
                self.add("pod peer meets nobody's address", address.is_some());
                false
            }
            (Peer::Network(_), remote, None) => {
                self.add("block meets a pod without known address", remote.is_some());
                false
            }
            (Peer::Network(block), remote, Some(address)) => {
                self.block(block, address);
                let inside = set(&block.cidr).contains(address) && !in_hole(block, address);
                self.add("block matches a pod", inside && remote.is_some());
                self.add("block matches nobody's address", inside && remote.is_none());
                inside
            }
            _ => false,
        }
    }

    fn block(&mut self, block: &IpBlock, address: IpAddr) {
        let family = |net: &IpNet| Family::of(net.addr());
        let same = Family::of(address) == family(&block.cidr);
        self.add("block of the other family", !same);
        if same {
            self.add("block of everything", block.cidr.prefix_len() == 0);
            self.add(
                "block of one address",
                block.cidr.prefix_len() == block.cidr.max_prefix_len(),
            );
            self.add("block with host bits", block.cidr != block.cidr.trunc());
            let ends = [block.cidr.network(), block.cidr.broadcast()];
            self.add("address at the edge of a block", ends.contains(&address));
        }
        for hole in &block.except {
            self.add("hole of the other family", family(hole) != family(&block.cidr));
            let covers = set(&block.cidr).is_subset(&set(hole));
            self.add("hole is as large as the block or larger", covers);
        }
    }

    fn port(&mut self, entry: &PortEntry, view: &View<'_>) -> bool {
        let Traffic::Port(protocol, port) = self.connection.traffic() else {
            self.add("ports against another protocol", true);
            return false;
        };
        match entry {
            PortEntry::Protocol(wanted) => {
                self.add("whole protocol matches", *wanted == protocol);
                *wanted == protocol
            }
            PortEntry::Range { protocol: wanted, first, last } if *wanted == protocol => {
                self.add("range backwards", first > last);
                let edge = first <= last && (port == *first || port == *last);
                self.add("port at the edge of a range", edge);
                let outside =
                    first.checked_sub(1) == Some(port) || last.checked_add(1) == Some(port);
                self.add("port just outside a range", first <= last && outside);
                (*first..=*last).contains(&port)
            }
            PortEntry::Named { protocol: wanted, name } => {
                let Some(pod) = view.destination else {
                    let egress = view.direction == Direction::Egress;
                    self.add("named port, egress to nobody's address", egress);
                    return false;
                };
                let same_name: Vec<_> = pod.ports().iter().filter(|p| p.name == *name).collect();
                self.add("named port nobody has", same_name.is_empty());
                let other = same_name.iter().any(|p| p.port == port && p.protocol != *wanted);
                self.add("named port, other protocol", other);
                let mut same = same_name.iter().filter(|p| p.protocol == *wanted);
                self.add("named port, several numbers", same.clone().count() > 1);
                let matches = *wanted == protocol && same.any(|p| p.port == port);
                self.add("named port matches", matches);
                matches
            }
            _ => false,
        }
    }

    fn selects(&mut self, selection: &PodSelection, pod: &Pod) -> bool {
        let namespace = match &selection.namespaces {
            NamespaceSelection::Named(name) => pod.id().namespace() == name,
            NamespaceSelection::Matching(selector) => {
                let Some(namespace) = self.namespace_of(pod) else { return false };
                self.selector(selector, namespace.labels())
            }
        };
        namespace && self.selector(&selection.pods, pod.labels())
    }

    fn selector(&mut self, selector: &Selector, labels: &Labels) -> bool {
        self.add("empty selector", selector.is_everything());
        for requirement in selector.requirements() {
            let value = labels.value(requirement.key());
            let feature = match (requirement.operator(), value) {
                (Operator::In(values), _) if values.is_empty() => "In without values",
                (Operator::In(_), None) => "In with an absent key",
                (Operator::In(values), Some(value)) if values.contains(value) => {
                    self.add("empty value selected", value.is_empty());
                    let name = requirement.key() == NAMESPACE_NAME_LABEL;
                    self.add("namespace selected by its name label", name);
                    "In with a listed value"
                }
                (Operator::NotIn(values), Some(value)) if !values.contains(value) => {
                    "NotIn with another value"
                }
                (Operator::NotIn(_), None) => "NotIn with an absent key",
                (Operator::Exists, Some(_)) => "Exists",
                (Operator::DoesNotExist, None) => "DoesNotExist with an absent key",
                _ => continue,
            };
            self.add(feature, true);
        }
        selector.matches(labels)
    }
}

fn set(net: &IpNet) -> AddressSet {
    AddressSet::from(*net)
}

fn in_hole(block: &IpBlock, address: IpAddr) -> bool {
    set(&block.cidr).contains(address) && block.except.iter().any(|e| set(e).contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategies::clusters_with_connections;
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;
    use std::collections::BTreeMap;

    #[test]
    fn the_strategies_reach_every_feature() {
        let mut runner = TestRunner::deterministic();
        let strategy = clusters_with_connections();
        let mut count: BTreeMap<&str, usize> = FEATURES.iter().map(|&f| (f, 0)).collect();
        let mut connections = 0;
        for _ in 0..1000 {
            let (cluster, sample) = strategy.new_tree(&mut runner).unwrap().current();
            for connection in &sample {
                connections += 1;
                for feature in features(&cluster, connection) {
                    *count
                        .get_mut(feature)
                        .unwrap_or_else(|| panic!("`{feature}` is not listed")) += 1;
                }
            }
        }
        let table: String = count.iter().map(|(f, n)| format!("{n:>7}  {f}\n")).collect();
        let rare: Vec<_> = count.iter().filter(|&(_, &n)| n < 10).map(|(f, _)| f).collect();
        assert!(rare.is_empty(), "of {connections} connections too few show {rare:?}:\n{table}");
    }

    #[test]
    fn features_are_listed_once() {
        let unique: BTreeSet<_> = FEATURES.iter().collect();
        assert_eq!(unique.len(), FEATURES.len());
    }
}
