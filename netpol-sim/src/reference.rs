//! The specification: which connections a cluster's policies allow, written as plainly as it can be.
//!
//! This is the yardstick for everything else: the compiler, the simulator, the back ends and the proofs are compared
//! with it. So it shares no code with them. It reads the model's data and decides selectors, address blocks, ports,
//! ownership of addresses and order of policies itself. It is slow on purpose: every question walks the whole cluster.
//!
//! It follows the rules NP-11..NP-124 and CNP-30..CNP-41 of the semantics, in their words:
//!
//! ```text
//! allowed(connection)   = egress side allows and ingress side allows           NP-14, CNP-36
//! a side                = no managed pod, the pod itself: allowed              NP-14, NP-73, NP-80
//!                         else Admin -> NetworkPolicy -> Baseline -> allowed   CNP-30
//! Admin, Baseline       = first matching rule of the policies in order         CNP-31, CNP-32
//! NetworkPolicy         = not isolated: next tier; else some rule matches      NP-11, NP-12, CNP-35
//! ```
//!
//! It judges new connections; replies follow the connection (NP-60), and what happens to open ones when policy changes
//! is for the caller to ask again or not (NP-62). Both ends of a connection must be of one family: there is no packet
//! with an IPv4 source and an IPv6 destination, and nothing is promised about one.

use crate::connection::{Connection, End, Traffic};
use ipnet::IpNet;
use netpol_core::{
    Cluster, Direction, IpBlock, Labels, Match, NamespaceSelection, Operator, Options,
    OtherProtocols, OwnNodeEgress, Peer, Phase, Pod, PodSelection, Policy, PolicyRule, PortEntry,
    Requirement, Selector, Tier, TrafficMatch, Verdict,
};
use std::net::IpAddr;

/// Do the policies allow this new connection?
///
/// ```
/// use netpol_core::{Cluster, Labels, Options, Pod, PodId, Policy, Protocol, Selector};
/// use netpol_sim::{Connection, End, Traffic, reference};
///
/// let mut cluster = Cluster::new();
/// cluster.insert_pod(Pod::new(PodId::new("shop", "web"), Labels::new()));
/// let end = |address: &str| End::Address(address.parse().unwrap());
/// let web = End::Pod(PodId::new("shop", "web"));
/// let connection = Connection::new(end("203.0.113.9"), web, Traffic::Port(Protocol::Tcp, 80));
/// assert!(reference::allowed(&cluster, &connection, &Options::default()));
///
/// let deny_ingress = Policy::network_policy("shop", "deny", Selector::everything(), Some(vec![]), None);
/// cluster.insert_policy(deny_ingress);
/// assert!(!reference::allowed(&cluster, &connection, &Options::default()));
/// ```
#[must_use]
pub fn allowed(cluster: &Cluster, connection: &Connection, options: &Options) -> bool {
    direction_allowed(cluster, connection, Direction::Egress, options)
        && direction_allowed(cluster, connection, Direction::Ingress, options)
}

/// Does the side that the direction belongs to allow this new connection: the source for egress, the destination for
/// ingress? A side that is no managed pod allows everything.
#[must_use]
pub fn direction_allowed(
    cluster: &Cluster,
    connection: &Connection,
    direction: Direction,
    options: &Options,
) -> bool {
    let source = Side::of(cluster, connection.source());
    let destination = Side::of(cluster, connection.destination());
    let (local, remote) = match direction {
        Direction::Egress => (&source, &destination),
        Direction::Ingress => (&destination, &source),
    };
    let Some(subject) = local.pod else {
        return true; // NP-14, NP-80
    };
    if remote.pod.is_some_and(|pod| pod.id() == subject.id()) {
        return true; // NP-73, CNP-34
    }
    match connection.traffic() {
        Traffic::Icmpv6(133..=137) => return true, // NP-52
        Traffic::Icmpv6(_) | Traffic::Other(_)
            if options.other_protocols() == OtherProtocols::Allow =>
        {
            return true; // NP-51
        }
        _ => {}
    }
    let question = Question {
        cluster,
        direction,
        subject,
        remote,
        destination: destination.pod,
        traffic: connection.traffic(),
    };
    let exempt = connection.own_node()
        && remote.pod.is_none()
        && match direction {
            Direction::Ingress => true, // NP-70
            Direction::Egress => options.own_node_egress() == OwnNodeEgress::Allow, // NP-71
        };
    for tier in [Tier::Admin, Tier::NetworkPolicy, Tier::Baseline] {
        let decision = match tier {
            Tier::Admin | Tier::Baseline => question.first_match(tier),
            Tier::NetworkPolicy => question.network_policies(exempt), // CNP-38
        };
        if let Some(decision) = decision {
            return decision;
        }
    }
    true
}

/// What is known of one end of a connection.
struct Side<'a> {
    /// The managed pod at this end, if there is one.
    pod: Option<&'a Pod>,
    /// The address that the packet carries, if it is known.
    address: Option<IpAddr>,
}

impl<'a> Side<'a> {
    fn of(cluster: &'a Cluster, end: &End) -> Self {
        match end {
            End::Address(address) => {
                let address = address.to_canonical(); // NP-101
                Self { pod: owner(cluster, address), address: Some(address) }
            }
            End::Pod(id) => Self {
                pod: cluster.pods().find(|pod| pod.id() == id && managed(pod)),
                address: None,
            },
        }
    }
}

/// Not on the host network (NP-80, CNP-39) and not finished (NP-91).
fn managed(pod: &Pod) -> bool {
    !pod.host_network() && matches!(pod.phase(), Phase::Pending | Phase::Running)
}

/// Of the managed pods that report the address: a running one, then the younger, then any fixed order (NP-93).
fn owner(cluster: &Cluster, address: IpAddr) -> Option<&Pod> {
    cluster
        .pods()
        .filter(|pod| managed(pod) && pod.addresses().contains(&address))
        .max_by_key(|pod| (pod.phase() == Phase::Running, pod.created(), pod.uid(), pod.id()))
}

/// One direction of one connection.
struct Question<'a> {
    cluster: &'a Cluster,
    direction: Direction,
    subject: &'a Pod,
    remote: &'a Side<'a>,
    destination: Option<&'a Pod>,
    traffic: Traffic,
}

impl Question<'_> {
    /// Admin or Baseline: the first rule that matches decides; none, or `Pass`, leaves it to the next tier.
    fn first_match(&self, tier: Tier) -> Option<bool> {
        let mut policies: Vec<&Policy> = self.policies(tier).collect();
        policies.sort_by_key(|policy| (policy.priority(), &policy.id().name)); // CNP-31, CNP-32
        for policy in policies {
            for rule in policy.rules(self.direction).unwrap_or_default() {
                if self.matches(&rule.matches, tier) {
                    return match rule.verdict {
                        Verdict::Allow => Some(true),
                        Verdict::Deny => Some(false),
                        Verdict::Pass => None,
                    };
                }
            }
        }
        None
    }

    /// The NetworkPolicy tier: if some policy isolates the subject, what some rule of those policies allows.
    fn network_policies(&self, exempt: bool) -> Option<bool> {
        let isolating: Vec<_> = self
            .policies(Tier::NetworkPolicy)
            .filter_map(|policy| policy.rules(self.direction))
            .collect();
        if isolating.is_empty() {
            return None; // NP-11
        }
        let tier = Tier::NetworkPolicy;
        let allows = |rules: &&[PolicyRule]| rules.iter().any(|r| self.matches(&r.matches, tier));
        Some(exempt || isolating.iter().any(allows))
    }

    fn policies(&self, tier: Tier) -> impl Iterator<Item = &Policy> {
        self.cluster
            .policies()
            .filter(move |policy| policy.tier() == tier)
            .filter(|policy| pod_selected(self.cluster, policy.subject(), self.subject))
    }

    /// Peers and ports (NP-13).
    fn matches(&self, rule: &TrafficMatch, tier: Tier) -> bool {
        let some_port = |may_be_named: bool| match &rule.ports {
            Match::Any => true,
            Match::OneOf(ports) => ports
                .iter()
                .filter(|port| may_be_named || !matches!(port, PortEntry::Named { .. }))
                .any(|port| self.port_matches(port)),
        };
        match &rule.peers {
            Match::Any => some_port(true),
            Match::OneOf(peers) => {
                peers.iter().filter(|peer| self.peer_matches(peer)).any(|peer| {
                    // NP-48 against CNP-16: whether a name can mean what is no pod peer.
                    some_port(
                        tier == Tier::NetworkPolicy
                            || self.direction == Direction::Ingress
                            || matches!(peer, Peer::Pods(_)),
                    )
                })
            }
        }
    }

    fn peer_matches(&self, peer: &Peer) -> bool {
        match peer {
            // NP-27: never an address that is no pod's.
            Peer::Pods(pods) => {
                self.remote.pod.is_some_and(|pod| pod_selected(self.cluster, pods, pod))
            }
            // NP-32: by address, whoever has it.
            Peer::Network(block) => {
                self.remote.address.is_some_and(|address| block_contains(block, address))
            }
            // CNP-18: the addresses of nodes, whoever has them.
            Peer::Nodes(selector) => self.remote.address.is_some_and(|address| {
                let mut nodes = self.cluster.nodes();
                nodes.any(|node| {
                    selected(selector, node.labels()) && node.addresses().contains(&address)
                })
            }),
            _ => false,
        }
    }

    fn port_matches(&self, entry: &PortEntry) -> bool {
        let Traffic::Port(protocol, port) = self.traffic else {
            return false; // NP-51
        };
        match entry {
            PortEntry::Protocol(wanted) => *wanted == protocol,
            PortEntry::Range { protocol: wanted, first, last } => {
                *wanted == protocol && *first <= port && port <= *last
            }
            // NP-42..NP-46: the destination pod says what the name means, in either direction.
            PortEntry::Named { protocol: wanted, name } => {
                *wanted == protocol
                    && self.destination.is_some_and(|pod| {
                        pod.ports()
                            .iter()
                            .any(|p| p.name == *name && p.protocol == protocol && p.port == port)
                    })
            }
            _ => false,
        }
    }
}

fn pod_selected(cluster: &Cluster, selection: &PodSelection, pod: &Pod) -> bool {
    let in_namespace = match &selection.namespaces {
        NamespaceSelection::Named(name) => pod.id().namespace() == name,
        // NP-26: a namespace whose object is not known is never selected by label.
        NamespaceSelection::Matching(selector) => cluster
            .namespaces()
            .find(|namespace| namespace.name() == pod.id().namespace())
            .is_some_and(|namespace| selected(selector, namespace.labels())),
    };
    in_namespace && selected(&selection.pods, pod.labels())
}

/// All requirements hold (NP-20, NP-21).
fn selected(selector: &Selector, labels: &Labels) -> bool {
    selector.requirements().iter().all(|requirement| fulfilled(requirement, labels))
}

fn fulfilled(requirement: &Requirement, labels: &Labels) -> bool {
    let value = labels.iter().find(|(key, _)| *key == requirement.key()).map(|(_, value)| value);
    match (requirement.operator(), value) {
        (Operator::In(values), Some(value)) => values.iter().any(|v| **v == *value),
        (Operator::In(_), None) => false,
        (Operator::NotIn(values), Some(value)) => values.iter().all(|v| **v != *value),
        (Operator::NotIn(_), None) => true,
        (Operator::Exists, value) => value.is_some(),
        (Operator::DoesNotExist, value) => value.is_none(),
    }
}

/// In the block and in none of its holes (NP-30).
fn block_contains(block: &IpBlock, address: IpAddr) -> bool {
    in_network(&block.cidr, address) && !block.except.iter().any(|hole| in_network(hole, address))
}

/// The same family, and the same first bits; the others mean nothing (NP-31, NP-36).
fn in_network(net: &IpNet, address: IpAddr) -> bool {
    let (difference, width) = match (net.addr(), address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits() ^ b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits(), 128),
        _ => return false,
    };
    // Shifting everything out, for a prefix of length 0, leaves nothing that could differ.
    difference.checked_shr(width - u32::from(net.prefix_len())).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use netpol_core::{ContainerPort, Namespace, NamespaceName, Node, PodId, PolicyName, Protocol};
    use std::sync::Arc;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn address(text: &str) -> End {
        End::Address(ip(text))
    }

    fn tcp(port: u16) -> Traffic {
        Traffic::Port(Protocol::Tcp, port)
    }

    fn pod(name: &str, addresses: &[&str]) -> Pod {
        Pod::new(PodId::new("n", name), Labels::from_iter([("pod", name)]))
            .with_addresses(addresses.iter().map(|a| ip(a)))
            .with_phase(Phase::Running)
    }

    /// Namespace n with pods a and b, both dual-stack.
    fn cluster() -> Cluster {
        let mut cluster = Cluster::new();
        cluster.insert_namespace(Namespace::new("n", Labels::from_iter([("team", "")])));
        cluster.insert_pod(pod("a", &["10.0.0.1", "fd00::1"]));
        cluster.insert_pod(pod("b", &["10.0.0.2", "fd00::2"]));
        cluster.insert_node(Node::new("node", Labels::new(), [ip("192.168.0.1")]));
        cluster
    }

    fn is(name: &str) -> Selector {
        Selector::match_labels([("pod", name)])
    }

    fn requirement(key: &str, operator: Operator) -> Selector {
        Selector::new([Requirement::new(key, operator)])
    }

    fn values<const N: usize>(values: [&str; N]) -> std::collections::BTreeSet<Arc<str>> {
        values.into_iter().map(Arc::from).collect()
    }

    fn block(cidr: &str, except: &[&str]) -> Peer {
        let except = except.iter().map(|e| e.parse().unwrap()).collect();
        Peer::Network(IpBlock { cidr: cidr.parse().unwrap(), except })
    }

    fn peers(peers: impl IntoIterator<Item = Peer>) -> TrafficMatch {
        TrafficMatch::new(Match::OneOf(peers.into_iter().collect()), Match::Any)
    }

    fn ports(ports: impl IntoIterator<Item = PortEntry>) -> TrafficMatch {
        TrafficMatch::new(Match::Any, Match::OneOf(ports.into_iter().collect()))
    }

    fn named(protocol: Protocol, name: &str) -> PortEntry {
        PortEntry::Named { protocol, name: name.into() }
    }

    fn rule(verdict: Verdict, matches: TrafficMatch) -> PolicyRule {
        PolicyRule { matches, verdict }
    }

    fn ingress(subject: Selector, rules: Vec<TrafficMatch>) -> Policy {
        Policy::network_policy("n", "ingress", subject, Some(rules), None)
    }

    fn egress(subject: Selector, rules: Vec<TrafficMatch>) -> Policy {
        Policy::network_policy("n", "egress", subject, None, Some(rules))
    }

    fn with(policies: impl IntoIterator<Item = Policy>) -> Cluster {
        let mut cluster = cluster();
        for policy in policies {
            cluster.insert_policy(policy);
        }
        cluster
    }

    fn ask(cluster: &Cluster, source: &str, destination: &str, traffic: Traffic) -> bool {
        let end = |text: &str| match text.split_once('/') {
            Some((namespace, name)) => End::Pod(PodId::new(namespace, name)),
            None => address(text),
        };
        let connection = Connection::new(end(source), end(destination), traffic);
        allowed(cluster, &connection, &Options::default())
    }

    #[track_caller]
    fn check(cluster: &Cluster, cases: &[(&str, &str, Traffic, bool)]) {
        for (source, destination, traffic, expected) in cases {
            let got = ask(cluster, source, destination, *traffic);
            assert_eq!(got, *expected, "{source} -> {destination} {traffic}");
        }
    }

    #[test]
    fn without_policies_everything_is_allowed() {
        check(
            &cluster(),
            &[
                ("10.0.0.1", "10.0.0.2", tcp(80), true),
                ("10.0.0.1", "203.0.113.1", Traffic::Other(47), true),
                ("203.0.113.1", "203.0.113.2", tcp(80), true),
            ],
        );
    }

    #[test]
    fn isolation_is_per_pod_and_direction() {
        // NP-11, NP-14, NP-16: an isolated direction without rules denies; the other one stays open.
        check(
            &with([ingress(is("a"), vec![])]),
            &[
                ("10.0.0.2", "10.0.0.1", tcp(80), false),
                ("fd00::2", "fd00::1", tcp(80), false),
                ("n/b", "n/a", tcp(80), false),
                ("10.0.0.1", "10.0.0.2", tcp(80), true),
            ],
        );
        check(
            &with([egress(is("a"), vec![])]),
            &[
                ("10.0.0.2", "10.0.0.1", tcp(80), true),
                ("10.0.0.1", "10.0.0.2", tcp(80), false),
                ("10.0.0.1", "203.0.113.1", tcp(80), false),
            ],
        );
    }

    #[test]
    fn policies_add_up_and_rules_are_conjunctions() {
        let one = peers([block("10.0.0.2/32", &[])]);
        let other = ports([PortEntry::Range { protocol: Protocol::Tcp, first: 80, last: 81 }]);
        let both = TrafficMatch::new(one.peers.clone(), other.ports.clone());
        check(
            &with([ingress(is("a"), vec![both])]),
            &[
                ("10.0.0.2", "10.0.0.1", tcp(79), false),
                ("10.0.0.2", "10.0.0.1", tcp(80), true),
                ("10.0.0.2", "10.0.0.1", tcp(81), true),
                ("10.0.0.2", "10.0.0.1", tcp(82), false),
                ("10.0.0.2", "10.0.0.1", Traffic::Port(Protocol::Sctp, 80), false),
                ("203.0.113.1", "10.0.0.1", tcp(80), false),
            ],
        );
        let second = Policy::network_policy("n", "2", is("a"), Some(vec![other]), None);
        check(
            &with([ingress(is("a"), vec![one]), second]),
            &[
                ("10.0.0.2", "10.0.0.1", tcp(1), true),
                ("203.0.113.1", "10.0.0.1", tcp(80), true),
                ("203.0.113.1", "10.0.0.1", tcp(1), false),
            ],
        );
    }

    #[test]
    fn empty_lists_match_nothing() {
        let nobody = TrafficMatch::new(Match::OneOf(vec![]), Match::Any);
        let no_port = TrafficMatch::new(Match::Any, Match::OneOf(vec![]));
        let cluster = with([ingress(is("a"), vec![nobody, no_port])]);
        check(&cluster, &[("10.0.0.2", "10.0.0.1", tcp(80), false)]);
        let cluster = with([ingress(is("a"), vec![TrafficMatch::everything()])]);
        check(&cluster, &[("10.0.0.2", "10.0.0.1", tcp(80), true)]);
    }

    #[test]
    fn operators_on_present_empty_and_absent_labels() {
        let labels = Labels::from_iter([("empty", ""), ("k", "v")]);
        for (selector, expected) in [
            (Selector::everything(), true),
            (Selector::match_labels([("empty", "")]), true),
            (Selector::match_labels([("absent", "")]), false),
            (requirement("k", Operator::In(values(["u", "v"]))), true),
            (requirement("k", Operator::In(values(["V"]))), false),
            (requirement("k", Operator::In(values([]))), false),
            (requirement("k", Operator::NotIn(values(["v"]))), false),
            (requirement("k", Operator::NotIn(values(["u"]))), true),
            (requirement("absent", Operator::NotIn(values(["v"]))), true),
            (requirement("absent", Operator::NotIn(values([""]))), true),
            (requirement("empty", Operator::Exists), true),
            (requirement("absent", Operator::Exists), false),
            (requirement("empty", Operator::DoesNotExist), false),
            (requirement("absent", Operator::DoesNotExist), true),
        ] {
            assert_eq!(selected(&selector, &labels), expected, "{selector}");
        }
        let one_of_two = Selector::match_labels([("k", "v"), ("empty", "x")]);
        assert!(!selected(&one_of_two, &labels), "all requirements must hold");
    }

    #[test]
    fn an_unknown_namespace_is_selected_by_name_only() {
        // NP-26: neither {} nor NotIn nor DoesNotExist selects what is not known.
        let everywhere = |pods| {
            let anywhere = requirement("absent", Operator::DoesNotExist);
            PodSelection { namespaces: NamespaceSelection::Matching(anywhere), pods }
        };
        let mut cluster =
            with([ingress(is("a"), vec![peers([Peer::Pods(everywhere(Selector::everything()))])])]);
        check(&cluster, &[("10.0.0.2", "10.0.0.1", tcp(80), true)]);
        cluster.remove_namespace(&NamespaceName::from("n"));
        check(
            &cluster,
            &[
                ("10.0.0.2", "10.0.0.1", tcp(80), false), // still isolated
                ("10.0.0.1", "10.0.0.2", tcp(80), true),
            ],
        );
        let own = PodSelection::within("n", is("b"));
        cluster.insert_policy(ingress(is("a"), vec![peers([Peer::Pods(own)])]));
        check(&cluster, &[("10.0.0.2", "10.0.0.1", tcp(80), true)]);
        let admin = vec![rule(Verdict::Deny, TrafficMatch::everything())];
        cluster.insert_policy(Policy::admin("x", 0, PodSelection::everything(), admin, vec![]));
        check(&cluster, &[("10.0.0.2", "10.0.0.1", tcp(80), true)]);
    }

    #[test]
    fn pod_peers_are_never_other_addresses() {
        let anyone = peers([Peer::Pods(PodSelection::everything())]);
        check(
            &with([ingress(is("a"), vec![anyone.clone()]), egress(is("a"), vec![anyone])]),
            &[
                ("10.0.0.2", "10.0.0.1", tcp(80), true),
                ("n/b", "n/a", tcp(80), true),
                ("203.0.113.1", "10.0.0.1", tcp(80), false),
                ("10.0.0.1", "192.168.0.1", tcp(80), false),
            ],
        );
    }

    #[test]
    fn blocks_and_holes() {
        let net = |text: &str| -> IpNet { text.parse().unwrap() };
        for (cidr, inside, outside) in [
            ("10.1.2.3/24", "10.1.2.255", "10.1.3.0"), // NP-36
            ("10.0.0.1/32", "10.0.0.1", "10.0.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::"), // NP-31
            ("128.0.0.0/1", "128.0.0.0", "127.255.255.255"),
            ("::/0", "ffff::", "0.0.0.0"),
            ("::ffff:0:0/96", "::ffff:1.2.3.4", "1.2.3.4"),
            ("fd00::1/128", "fd00::1", "fd00::"),
        ] {
            assert!(in_network(&net(cidr), ip(inside)), "{inside} in {cidr}");
            assert!(!in_network(&net(cidr), ip(outside)), "{outside} in {cidr}");
        }
        // A hole is no denial: another peer may fill it (NP-30). Holes of the other family take nothing away.
        let holey = || block("10.0.0.0/8", &["10.0.0.2/31", "::/0", "192.168.0.0/16"]);
        let from = |source: &str, peer: Vec<Peer>, expected: bool| {
            let cluster = with([ingress(is("a"), vec![peers(peer)])]);
            assert_eq!(ask(&cluster, source, "10.0.0.1", tcp(80)), expected, "{source}");
        };
        from("10.9.9.9", vec![holey()], true);
        from("10.0.0.2", vec![holey()], false);
        from("10.0.0.2", vec![holey(), block("10.0.0.2/32", &[])], true);
        from("10.9.9.9", vec![block("10.9.9.0/24", &["10.0.0.0/8"])], false);
    }

    #[test]
    fn blocks_match_pods_by_known_address_only() {
        // NP-32.
        let cluster = with([ingress(is("a"), vec![peers([block("10.0.0.2/32", &[])])])]);
        check(
            &cluster,
            &[
                ("10.0.0.2", "10.0.0.1", tcp(80), true),
                ("10.0.0.2", "n/a", tcp(80), true),
                ("::ffff:10.0.0.2", "::ffff:10.0.0.1", tcp(80), true), // NP-101
                ("n/b", "10.0.0.1", tcp(80), false),
                ("fd00::2", "fd00::1", tcp(80), false),
            ],
        );
    }

    #[test]
    fn names_of_ports_belong_to_the_destination() {
        let port = |name: &str, protocol, port| ContainerPort { name: name.into(), protocol, port };
        let mut cluster = with([
            egress(is("a"), vec![ports([named(Protocol::Tcp, "web")])]),
            ingress(is("b"), vec![ports([named(Protocol::Tcp, "web")])]),
        ]);
        cluster.insert_pod(pod("a", &["10.0.0.1"]).with_ports([port("web", Protocol::Tcp, 1)]));
        cluster.insert_pod(pod("b", &["10.0.0.2"]).with_ports([
            port("web", Protocol::Tcp, 80),
            port("web", Protocol::Tcp, 81), // NP-46
            port("web", Protocol::Udp, 53),
        ]));
        check(
            &cluster,
            &[
                ("10.0.0.1", "10.0.0.2", tcp(80), true),
                ("10.0.0.1", "10.0.0.2", tcp(81), true),
                ("n/a", "n/b", tcp(81), true),
                ("10.0.0.1", "10.0.0.2", tcp(1), false),
                ("10.0.0.1", "10.0.0.2", tcp(53), false),
                ("10.0.0.1", "10.0.0.2", Traffic::Port(Protocol::Udp, 53), false), // NP-45
                ("10.0.0.1", "203.0.113.1", tcp(80), false),                       // NP-43
                ("203.0.113.1", "10.0.0.2", tcp(80), true),                        // NP-42
            ],
        );
        cluster.insert_pod(
            pod("b", &["10.0.0.2"])
                .with_ports([port("web", Protocol::Tcp, 80)])
                .with_host_network(true),
        );
        check(&cluster, &[("10.0.0.1", "10.0.0.2", tcp(80), false)]); // NP-80
    }

    #[test]
    fn a_pod_and_itself() {
        // NP-73: by any of its addresses, or by identity.
        let deny = || vec![rule(Verdict::Deny, TrafficMatch::everything())];
        let cluster = with([
            ingress(is("a"), vec![]),
            egress(is("a"), vec![]),
            Policy::admin("x", 0, PodSelection::everything(), deny(), deny()),
        ]);
        check(
            &cluster,
            &[
                ("10.0.0.1", "10.0.0.1", tcp(80), true),
                ("n/a", "10.0.0.1", tcp(80), true),
                ("n/a", "n/a", Traffic::Other(47), true),
                ("n/a", "n/b", tcp(80), false),
            ],
        );
    }

    #[test]
    fn one_owner_per_address() {
        // NP-91..NP-93: the owner's policies apply, and only its labels count.
        let a = || pod("a", &["10.0.0.9"]);
        let b = || pod("b", &["10.0.0.9"]);
        let owner_of = |pods: [Pod; 2]| {
            let mut cluster = Cluster::new();
            for pod in pods {
                cluster.insert_pod(pod);
            }
            owner(&cluster, ip("10.0.0.9")).map(|pod| pod.id().name().to_string())
        };
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(owner_of([a().with_created(2), b().with_created(1)]), named("a"));
        assert_eq!(owner_of([a().with_created(-1), b()]), named("a"), "unknown is oldest");
        assert_eq!(
            owner_of([a().with_created(2).with_phase(Phase::Pending), b().with_created(1)]),
            named("b")
        );
        assert_eq!(owner_of([a().with_uid("2"), b().with_uid("1")]), named("a"));
        assert_eq!(owner_of([a(), b()]), named("b"));
        assert_eq!(owner_of([a(), b().with_phase(Phase::Finished)]), named("a"));
        assert_eq!(owner_of([a().with_host_network(true), b().with_phase(Phase::Finished)]), None);
    }

    #[test]
    fn host_network_and_finished_pods_are_other_addresses() {
        // NP-80, NP-91: no subject and no pod peer; by address a block matches them, by identity nothing does.
        for change in
            [|pod: Pod| pod.with_host_network(true), |pod: Pod| pod.with_phase(Phase::Finished)]
        {
            let anyone = peers([Peer::Pods(PodSelection::everything())]);
            let mut cluster = with([
                ingress(Selector::everything(), vec![anyone]),
                egress(Selector::everything(), vec![TrafficMatch::everything()]),
            ]);
            cluster.insert_pod(change(pod("b", &["10.0.0.2"])));
            check(
                &cluster,
                &[
                    ("10.0.0.1", "10.0.0.2", tcp(80), true),
                    ("n/a", "n/b", tcp(80), true),
                    ("10.0.0.2", "10.0.0.1", tcp(80), false),
                    ("n/b", "10.0.0.1", tcp(80), false),
                    ("n/unknown", "10.0.0.1", tcp(80), false),
                ],
            );
            let by_address = peers([block("10.0.0.2/32", &[])]);
            cluster.insert_policy(ingress(Selector::everything(), vec![by_address]));
            check(
                &cluster,
                &[("10.0.0.2", "10.0.0.1", tcp(80), true), ("n/b", "10.0.0.1", tcp(80), false)],
            );
        }
    }

    #[test]
    fn other_protocols_need_a_rule_without_ports() {
        // NP-51, NP-52.
        let all_ports = Protocol::ALL.map(PortEntry::Protocol);
        let with_ports = with([ingress(is("a"), vec![ports(all_ports)])]);
        let without = with([ingress(is("a"), vec![peers([block("::/0", &[])])])]);
        let other = Options::default().with_other_protocols(OtherProtocols::Allow);
        for (traffic, policed) in [
            (Traffic::Icmpv6(132), true),
            (Traffic::Icmpv6(133), false),
            (Traffic::Icmpv6(137), false),
            (Traffic::Icmpv6(138), true),
            (Traffic::Other(47), true),
        ] {
            assert_eq!(ask(&with_ports, "fd00::2", "fd00::1", traffic), !policed, "{traffic}");
            assert!(ask(&without, "fd00::2", "fd00::1", traffic), "{traffic}");
            let connection = Connection::new(address("fd00::2"), address("fd00::1"), traffic);
            assert!(allowed(&with_ports, &connection, &other), "{traffic}");
        }
    }

    #[test]
    fn the_own_node() {
        // NP-70 is a privilege of ingress and of the NetworkPolicy tier; NP-71 is an option.
        let ask = |cluster: &Cluster, from: &str, to: &str, options: Options| {
            let connection = Connection::new(address(from), address(to), tcp(80)).with_own_node();
            allowed(cluster, &connection, &options)
        };
        let closed = Options::default();
        let open = Options::default().with_own_node_egress(OwnNodeEgress::Allow);
        let mut cluster = with([ingress(is("a"), vec![]), egress(is("a"), vec![])]);
        assert!(ask(&cluster, "192.168.0.1", "10.0.0.1", closed));
        assert!(ask(&cluster, "192.168.0.7", "10.0.0.1", closed), "any of its addresses (NP-72)");
        assert!(!ask(&cluster, "10.0.0.1", "192.168.0.1", closed));
        assert!(ask(&cluster, "10.0.0.1", "192.168.0.1", open));
        assert!(!ask(&cluster, "10.0.0.2", "10.0.0.1", open), "a pod is no node");

        // Isolated and exempt is allowed by the tier: Baseline is not asked (CNP-35).
        let deny = || vec![rule(Verdict::Deny, TrafficMatch::everything())];
        cluster.insert_policy(Policy::baseline(
            "deny",
            0,
            PodSelection::everything(),
            deny(),
            deny(),
        ));
        assert!(ask(&cluster, "192.168.0.1", "10.0.0.1", closed));
        assert!(ask(&cluster, "10.0.0.1", "192.168.0.1", open));
        assert!(!ask(&cluster, "192.168.0.1", "10.0.0.2", open), "not isolated: Baseline");

        // The Admin tier knows no exemption (CNP-38).
        cluster.insert_policy(Policy::admin("deny", 0, PodSelection::everything(), deny(), deny()));
        assert!(!ask(&cluster, "192.168.0.1", "10.0.0.1", open));
        assert!(!ask(&cluster, "10.0.0.1", "192.168.0.1", open));
    }

    #[test]
    fn tiers() {
        // CNP-30, CNP-31, CNP-33, CNP-35.
        let all = TrafficMatch::everything;
        let admin = |rules| Policy::admin("admin", 5, PodSelection::everything(), rules, vec![]);
        let baseline =
            |rules| Policy::baseline("base", 5, PodSelection::everything(), rules, vec![]);
        let np = |rules| ingress(Selector::everything(), rules);
        let verdict = |policies: Vec<Policy>| ask(&with(policies), "10.0.0.2", "10.0.0.1", tcp(80));
        let udp = || ports([PortEntry::Protocol(Protocol::Udp)]);
        assert!(verdict(vec![admin(vec![rule(Verdict::Allow, all())]), np(vec![])]));
        assert!(!verdict(vec![admin(vec![rule(Verdict::Deny, all())]), np(vec![all()])]));
        assert!(!verdict(vec![admin(vec![rule(Verdict::Pass, all())]), np(vec![])]));
        let first = vec![rule(Verdict::Pass, all()), rule(Verdict::Deny, all())];
        assert!(verdict(vec![admin(first)]), "the first rule that matches");
        let second = vec![rule(Verdict::Allow, udp()), rule(Verdict::Deny, all())];
        assert!(!verdict(vec![admin(second)]), "rules that do not match are skipped");
        assert!(!verdict(vec![baseline(vec![rule(Verdict::Deny, all())])]));
        assert!(verdict(vec![baseline(vec![rule(Verdict::Pass, all())])]), "Pass of the last tier");
        let deny = || baseline(vec![rule(Verdict::Deny, all())]);
        assert!(verdict(vec![np(vec![all()]), deny()]), "Baseline is not asked when isolated");
        assert!(
            !verdict(vec![egress(Selector::everything(), vec![all()]), deny()]),
            "per direction"
        );
        let skip = admin(vec![rule(Verdict::Pass, all())]);
        assert!(!verdict(vec![skip, deny()]), "Pass skips one tier only");
        assert!(
            !verdict(vec![admin(vec![rule(Verdict::Allow, all())]), egress(is("b"), vec![]),]),
            "both ends (CNP-36)"
        );
    }

    #[test]
    fn order_within_a_tier() {
        // CNP-31, CNP-32: priority as a number, then the name.
        let policy = |name: &str, priority, verdict| {
            let rules = vec![rule(verdict, TrafficMatch::everything())];
            Policy::admin(
                PolicyName::from(name),
                priority,
                PodSelection::everything(),
                rules,
                vec![],
            )
        };
        for (one, other, expected) in [
            (("a", 2, Verdict::Deny), ("b", 1, Verdict::Allow), true),
            (("a", 10, Verdict::Deny), ("b", 9, Verdict::Allow), true),
            (("a", 1, Verdict::Deny), ("b", 1, Verdict::Allow), false),
            (("a", 0, Verdict::Deny), ("b", -1, Verdict::Allow), true),
        ] {
            let cluster =
                with([one, other].map(|(name, priority, verdict)| policy(name, priority, verdict)));
            assert_eq!(
                ask(&cluster, "10.0.0.2", "10.0.0.1", tcp(80)),
                expected,
                "{one:?} {other:?}"
            );
        }
    }

    #[test]
    fn directions_are_judged_apart() {
        let cluster = with([ingress(is("a"), vec![])]);
        let connection = Connection::new(address("10.0.0.2"), address("10.0.0.1"), tcp(80));
        let ask = |d| direction_allowed(&cluster, &connection, d, &Options::default());
        assert!(ask(Direction::Egress));
        assert!(!ask(Direction::Ingress));
    }
}
