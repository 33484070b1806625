//! `SRC -> DST WHAT[ over IPv4|IPv6]`: from text to connections.

use netpol_core::{Cluster, Family, NamespaceName, Pod, PodId, Protocol};
use netpol_sim::{Connection, End, Traffic};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One entry's probe, which may cover many connections.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Probe {
    source: Pattern,
    destination: Pattern,
    kind: Kind,
    what: What,
    family: Option<Family>,
}

/// What is asked about a connection.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    /// May it be opened?
    New,
    /// May the destination answer on it, once it is open?
    NewReply,
    /// May the source go on with it, if it was opened in the first step?
    Established,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Pattern {
    Address(IpAddr),
    Every,
    Namespace(NamespaceName),
    OwnNode,
    Pod(PodId),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum What {
    Icmp,
    Icmpv6,
    Other(u8),
    Port(Protocol, u16),
}

impl Probe {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not `SRC -> DST WHAT[ over IPv4|IPv6]`");
        let (source, rest) = text.split_once(" -> ").ok_or_else(wrong)?;
        let (destination, rest) = rest.split_once(' ').ok_or_else(wrong)?;
        let (what, family) = match rest.split_once(" over ") {
            None => (rest, None),
            Some((what, "IPv4")) => (what, Some(Family::V4)),
            Some((what, "IPv6")) => (what, Some(Family::V6)),
            Some(_) => return Err(wrong()),
        };
        let (kind, what) = match what.split_once(' ') {
            Some(("new-reply", what)) => (Kind::NewReply, what),
            Some(("established", what)) => (Kind::Established, what),
            _ => (Kind::New, what),
        };
        let what = What::parse(what)?;
        match (what, family) {
            (What::Icmp, Some(Family::V6)) => return Err("there is no ICMP over IPv6".to_owned()),
            (What::Icmpv6, Some(Family::V4)) => {
                return Err("there is no ICMPv6 over IPv4".to_owned());
            }
            _ => {}
        }
        let (source, destination) = (Pattern::parse(source)?, Pattern::parse(destination)?);
        if source == Pattern::OwnNode && destination == Pattern::OwnNode {
            return Err("own-node can be at one end only".to_owned());
        }
        Ok(Self { source, destination, kind, what, family })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Every connection that the probe names or covers, never none.
    pub(super) fn expand(&self, world: &World<'_>) -> Result<Vec<Connection>, String> {
        let connections = match (&self.source, &self.destination) {
            (Pattern::OwnNode, pattern) => self.with_own_node(world, pattern, true)?,
            (pattern, Pattern::OwnNode) => self.with_own_node(world, pattern, false)?,
            _ => {
                let wildcard = self.source.is_wildcard() || self.destination.is_wildcard();
                let sources = world.ends(&self.source)?;
                let destinations = world.ends(&self.destination)?;
                let pairs = sources.iter().flat_map(|s| destinations.iter().map(move |d| (s, d)));
                pairs
                    .filter(|(s, d)| !(wildcard && s.pod.is_some() && s.pod == d.pod))
                    .filter_map(|(s, d)| self.connection(&s.end, &d.end))
                    .collect()
            }
        };
        if connections.is_empty() {
            return Err("the probe covers no pair of ends of one family".to_owned());
        }
        Ok(connections)
    }

    fn with_own_node(
        &self,
        world: &World<'_>,
        pattern: &Pattern,
        node_sends: bool,
    ) -> Result<Vec<Connection>, String> {
        let mut connections = Vec::new();
        for end in world.ends(pattern)? {
            let pod = end.pod.as_ref().and_then(|id| world.cluster.pod(id));
            let pod = pod.ok_or_else(|| format!("{} is no pod and has no own node", end.end))?;
            let node = pod.node().ok_or_else(|| format!("{} is on no node", pod.id()))?;
            for family in Family::ALL {
                let known = world.nodes.get(node.as_str()).into_iter().flatten().copied();
                let mut addresses: Vec<_> = known.filter(|a| Family::of(*a) == family).collect();
                if addresses.is_empty() && node_sends {
                    // What a node sends is told by where it comes from, whatever the address (NP-72).
                    addresses.push(match family {
                        Family::V4 => Ipv4Addr::new(169, 254, 0, 1).into(),
                        Family::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
                    });
                }
                let node_ends = addresses.into_iter().map(End::Address);
                connections.extend(node_ends.filter_map(|node_end| {
                    let connection = if node_sends {
                        self.connection(&node_end, &end.end)
                    } else {
                        self.connection(&end.end, &node_end)
                    };
                    connection.map(Connection::with_own_node)
                }));
            }
        }
        Ok(connections)
    }

    /// The connection between these ends; none if they, or what is sent, are not of one family.
    fn connection(&self, source: &End, destination: &End) -> Option<Connection> {
        let what = match self.what {
            What::Icmp => Some(Family::V4),
            What::Icmpv6 => Some(Family::V6),
            What::Other(_) | What::Port(..) => None,
        };
        let of = |end: &End| match end {
            End::Address(address) => Some(Family::of(*address)),
            End::Pod(_) => None,
        };
        let mut known = [of(source), of(destination), what, self.family].into_iter().flatten();
        let first = known.next();
        if !known.all(|family| Some(family) == first) {
            return None;
        }
        let traffic = match self.what {
            What::Icmp => Traffic::Other(1),
            What::Icmpv6 => Traffic::Icmpv6(128),
            What::Other(number) => Traffic::Other(number),
            What::Port(protocol, port) => Traffic::Port(protocol, port),
        };
        Some(Connection::new(source.clone(), destination.clone(), traffic))
    }
}

impl What {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not `80/TCP` (or UDP, SCTP), `ICMP`, `ICMPv6` or `proto 47`");
        match text {
            "ICMP" => return Ok(Self::Icmp),
            "ICMPv6" => return Ok(Self::Icmpv6),
            _ => {}
        }
        if let Some(number) = text.strip_prefix("proto ") {
            let number = number.parse().map_err(|_| wrong())?;
            return match number {
                1 | 6 | 17 | 58 | 132 => Err(format!("`{text}` has a name of its own")),
                _ => Ok(Self::Other(number)),
            };
        }
        let (port, protocol) = text.split_once('/').ok_or_else(wrong)?;
        let protocol = match protocol {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => return Err(wrong()),
        };
        Ok(Self::Port(protocol, port.parse().map_err(|_| wrong())?))
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            None if text == "*" => Ok(Self::Every),
            None if text == "own-node" => Ok(Self::OwnNode),
            None => match text.parse::<IpAddr>() {
                Ok(address) => Ok(Self::Address(address.to_canonical())),
                Err(_) => Err(format!("`{text}` is no address, `ns/pod`, `ns/*`, `*`, `own-node`")),
            },
            Some((namespace, "*")) => Ok(Self::Namespace(namespace.into())),
            Some((namespace, name)) => Ok(Self::Pod(PodId::new(namespace, name))),
        }
    }

    fn is_wildcard(&self) -> bool {
        matches!(self, Self::Every | Self::Namespace(_))
    }
}

/// What probes are about.
pub(super) struct World<'a> {
    cluster: &'a Cluster,
    owners: BTreeMap<IpAddr, &'a PodId>,
    /// The InternalIPs of nodes.
    nodes: BTreeMap<String, Vec<IpAddr>>,
}

/// An end, and which pod it is or belongs to.
struct KnownEnd {
    pod: Option<PodId>,
    end: End,
}

impl<'a> World<'a> {
    pub(super) fn new(cluster: &'a Cluster, nodes: BTreeMap<String, Vec<IpAddr>>) -> Self {
        Self { cluster, owners: cluster.address_owners(), nodes }
    }

    fn ends(&self, pattern: &Pattern) -> Result<Vec<KnownEnd>, String> {
        let of_pod = |pod: &Pod| -> Vec<KnownEnd> {
            let known = |end| KnownEnd { pod: Some(pod.id().clone()), end };
            if pod.addresses().is_empty() {
                return vec![known(End::Pod(pod.id().clone()))];
            }
            pod.addresses().iter().map(|address| known(End::Address(*address))).collect()
        };
        match pattern {
            Pattern::OwnNode => Ok(Vec::new()),
            Pattern::Address(address) => {
                let pod = self.owners.get(address).map(|id| (*id).clone());
                Ok(vec![KnownEnd { pod, end: End::Address(*address) }])
            }
            Pattern::Pod(id) => {
                Ok(of_pod(self.cluster.pod(id).ok_or_else(|| format!("there is no pod {id}"))?))
            }
            Pattern::Every | Pattern::Namespace(_) => {
                let covered = |pod: &&Pod| match pattern {
                    Pattern::Namespace(namespace) => pod.id().namespace() == namespace,
                    _ => true,
                };
                let mut ends = Vec::new();
                for pod in self.cluster.pods().filter(covered) {
                    let owned = |a: &IpAddr| self.owners.get(a).is_some_and(|id| *id == pod.id());
                    if !pod.is_managed() || !pod.addresses().iter().all(owned) {
                        return Err(format!(
                            "the wildcard covers {}, which is finished, on the host network or \
                             shares its address; name the ends",
                            pod.id()
                        ));
                    }
                    ends.extend(of_pod(pod));
                }
                Ok(ends)
            }
        }
    }

    /// A connection for people: with the names of the pods that own the addresses.
    pub(super) fn describe(&self, connection: &Connection) -> String {
        let name = |end: &End| match end {
            End::Address(address) => match self.owners.get(address) {
                Some(pod) => format!("{pod} ({address})"),
                None => address.to_string(),
            },
            End::Pod(pod) => pod.to_string(),
        };
        let own_node = if connection.own_node() { " (own node)" } else { "" };
        let (source, destination) = (name(connection.source()), name(connection.destination()));
        format!("{source} -> {destination} {}{own_node}", connection.traffic())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netpol_core::{Labels, Phase};

    fn pod(namespace: &str, name: &str, addresses: &[&str]) -> Pod {
        Pod::new(PodId::new(namespace, name), Labels::new())
            .with_addresses(addresses.iter().map(|a| a.parse().unwrap()))
            .with_node("node-1")
            .with_phase(Phase::Running)
    }

    fn cluster() -> Cluster {
        let mut cluster = Cluster::new();
        cluster.insert_pod(pod("x", "a", &["10.0.0.1", "fd00::1"]));
        cluster.insert_pod(pod("x", "b", &["10.0.0.2"]));
        cluster.insert_pod(pod("y", "a", &["fd00::3"]));
        cluster.insert_pod(pod("y", "none", &[]));
        cluster
    }

    fn expand(cluster: &Cluster, probe: &str) -> Result<Vec<String>, String> {
        let nodes = [("node-1".to_owned(), vec!["192.168.0.1".parse().unwrap()])].into();
        let connections = Probe::parse(probe)?.expand(&World::new(cluster, nodes))?;
        Ok(connections.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn check(probe: &str, expected: &[&str]) {
        assert_eq!(expand(&cluster(), probe).unwrap(), expected, "{probe}");
    }

    #[test]
    fn named_ends_in_every_family_that_both_have() {
        check("x/a -> x/b 80/TCP", &["10.0.0.1 -> 10.0.0.2 80/TCP"]);
        check("x/a -> x/a 53/UDP", &["10.0.0.1 -> 10.0.0.1 53/UDP", "fd00::1 -> fd00::1 53/UDP"]);
        check("x/a -> x/a 53/UDP over IPv6", &["fd00::1 -> fd00::1 53/UDP"]);
        check("x/a -> y/a 9/SCTP", &["fd00::1 -> fd00::3 9/SCTP"]);
        check("203.0.113.9 -> x/a 80/TCP", &["203.0.113.9 -> 10.0.0.1 80/TCP"]);
        check("y/none -> x/a ICMPv6", &["y/none -> fd00::1 ICMPv6 type 128"]);
        check("x/a -> y/none ICMP", &["10.0.0.1 -> y/none ICMP"]);
        check("x/a -> 2001:db8::9 proto 47", &["fd00::1 -> 2001:db8::9 IP protocol 47"]);
    }

    #[test]
    fn wildcards_never_pair_a_pod_with_itself() {
        check(
            "* -> x/* 80/TCP over IPv4",
            &[
                "10.0.0.1 -> 10.0.0.2 80/TCP",
                "10.0.0.2 -> 10.0.0.1 80/TCP",
                "y/none -> 10.0.0.1 80/TCP",
                "y/none -> 10.0.0.2 80/TCP",
            ],
        );
        check("x/* -> 10.0.0.1 80/TCP", &["10.0.0.2 -> 10.0.0.1 80/TCP"]);
        check(
            "x/* -> 203.0.113.9 80/TCP",
            &["10.0.0.1 -> 203.0.113.9 80/TCP", "10.0.0.2 -> 203.0.113.9 80/TCP"],
        );
    }

    #[test]
    fn the_own_node() {
        check("x/a -> own-node 80/TCP", &["10.0.0.1 -> 192.168.0.1 80/TCP (own node)"]);
        check(
            "own-node -> x/a 80/TCP",
            &["192.168.0.1 -> 10.0.0.1 80/TCP (own node)", "fe80::1 -> fd00::1 80/TCP (own node)"],
        );
        check("own-node -> 10.0.0.2 80/TCP", &["192.168.0.1 -> 10.0.0.2 80/TCP (own node)"]);
    }

    #[test]
    fn kinds() {
        let kind = |text: &str| Probe::parse(text).unwrap().kind();
        assert_eq!(kind("x/a -> x/b 80/TCP"), Kind::New);
        assert_eq!(kind("x/a -> x/b proto 47"), Kind::New);
        assert_eq!(kind("x/a -> x/b new-reply 80/TCP"), Kind::NewReply);
        assert_eq!(kind("x/a -> x/b established ICMP over IPv4"), Kind::Established);
    }

    #[test]
    fn what_cannot_be_probed_is_an_error() {
        let mut cluster = cluster();
        cluster.insert_pod(pod("z", "done", &["10.0.0.9"]).with_phase(Phase::Finished));
        for (probe, message) in [
            ("x/a x/b 80/TCP", "is not `SRC -> DST"),
            ("x/a -> x/b", "is not `SRC -> DST"),
            ("x/a -> x/b 80/tcp", "is not `80/TCP`"),
            ("x/a -> x/b 65536/TCP", "is not `80/TCP`"),
            ("x/a -> x/b proto 6", "a name of its own"),
            ("x/a -> x/b 80/TCP over IPv5", "is not `SRC -> DST"),
            ("x/a -> x/b ICMP over IPv6", "no ICMP over IPv6"),
            ("own-node -> own-node 80/TCP", "one end only"),
            ("nowhere -> x/b 80/TCP", "`nowhere` is no address"),
            ("x/z -> x/b 80/TCP", "no pod x/z"),
            ("x/b -> y/a 80/TCP", "no pair of ends"),
            ("v/* -> x/b 80/TCP", "no pair of ends"),
            ("own-node -> 203.0.113.9 80/TCP", "is no pod"),
            ("* -> x/b 80/TCP", "covers z/done"),
        ] {
            let error = expand(&cluster, probe).unwrap_err();
            assert!(error.contains(message), "{probe}: {error}");
        }
        assert_eq!(
            expand(&cluster, "z/done -> x/b 80/TCP").unwrap(),
            ["10.0.0.9 -> 10.0.0.2 80/TCP"]
        );
    }
}
