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

#[cfg(test)]
mod fixture;
mod peers;
mod ports;
mod selectors;
mod side;
mod tiers;

use crate::connection::{Connection, Traffic};
use netpol_core::{Cluster, Direction, Options, OtherProtocols, OwnNodeEgress, Pod, Tier};
use side::Side;

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

/// One direction of one connection.
struct Question<'a> {
    cluster: &'a Cluster,
    direction: Direction,
    subject: &'a Pod,
    remote: &'a Side<'a>,
    destination: Option<&'a Pod>,
    traffic: Traffic,
}

#[cfg(test)]
mod tests {
    use super::fixture::{
        address, ask, block, check, cluster, egress, ingress, is, peers, ports, rule, tcp, with,
    };
    use super::*;
    use netpol_core::{PodSelection, Policy, PortEntry, Protocol, TrafficMatch, Verdict};

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
    fn directions_are_judged_apart() {
        let cluster = with([ingress(is("a"), vec![])]);
        let connection = Connection::new(address("10.0.0.2"), address("10.0.0.1"), tcp(80));
        let ask = |d| direction_allowed(&cluster, &connection, d, &Options::default());
        assert!(ask(Direction::Egress));
        assert!(!ask(Direction::Ingress));
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
}
