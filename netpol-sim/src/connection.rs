//! What is judged: who opens a connection to whom, with what.

use netpol_core::{Family, PodId, Protocol};
use std::fmt;
use std::net::IpAddr;

/// One end of a connection.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "known by address, or not yet known by address")]
pub enum End {
    /// An address, and with it the pod that owns it, if one does.
    Address(IpAddr),
    /// A pod whose address is not known, as in plain manifests. No address block matches it (NP-32).
    Pod(PodId),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Pod(pod) => pod.fmt(f),
        }
    }
}

/// What is sent: the protocol, with the destination port or the message type where policy looks at it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "every IP packet is one of these")]
pub enum Traffic {
    /// TCP, UDP or SCTP to a destination port, as the pod sees it after Service translation (NP-40, NP-76).
    Port(Protocol, u16),
    /// An ICMPv6 message of this type.
    Icmpv6(u8),
    /// Any other IP protocol, by number.
    Other(u8),
}

impl Traffic {
    /// Neighbor and router discovery, which no policy may touch or IPv6 dies (NP-52).
    #[must_use]
    pub fn is_neighbor_discovery(self) -> bool {
        matches!(self, Self::Icmpv6(133..=137))
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(protocol, port) => write!(f, "{port}/{protocol}"),
            Self::Icmpv6(kind) => write!(f, "ICMPv6 type {kind}"),
            Self::Other(1) => f.write_str("ICMP"),
            Self::Other(number) => write!(f, "IP protocol {number}"),
        }
    }
}

/// A new connection, or the first packet of one: its addresses are those before source and after destination
/// translation (NP-76).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Connection {
    source: End,
    destination: End,
    traffic: Traffic,
    own_node: bool,
}

impl Connection {
    /// `source` opens a connection to `destination`.
    #[must_use]
    pub fn new(source: End, destination: End, traffic: Traffic) -> Self {
        Self { source, destination, traffic, own_node: false }
    }

    /// The end that is no pod is the node on which the other end's pod runs: traffic that this node itself sends to
    /// its pod (NP-70, NP-72), or that the pod sends to it (NP-71).
    #[must_use]
    pub fn with_own_node(mut self) -> Self {
        self.own_node = true;
        self
    }

    /// Who opens it.
    #[must_use]
    pub fn source(&self) -> &End {
        &self.source
    }

    /// To whom.
    #[must_use]
    pub fn destination(&self) -> &End {
        &self.destination
    }

    /// With what.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Is the end that is no pod the pod's own node?
    #[must_use]
    pub fn own_node(&self) -> bool {
        self.own_node
    }

    /// The family, if an address is known.
    #[must_use]
    pub fn family(&self) -> Option<Family> {
        [&self.source, &self.destination].into_iter().find_map(|end| match end {
            End::Address(address) => Some(Family::of(*address)),
            End::Pod(_) => None,
        })
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own_node = if self.own_node { " (own node)" } else { "" };
        write!(f, "{} -> {} {}{own_node}", self.source, self.destination, self.traffic)
    }
}
