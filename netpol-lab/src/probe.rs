//! What is asked, and what became of it.

use crate::place::Place;
use netpol_core::{PodId, Protocol};
use std::fmt;
use std::net::IpAddr;

/// What is sent. The same cases as those that policy tells apart.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "every IP packet is one of these")]
pub enum Traffic {
    /// The first packet to this port: a TCP SYN, a UDP datagram, an SCTP INIT.
    Port(Protocol, u16),
    /// An ICMPv6 message of this type; 128 is an echo request.
    Icmpv6(u8),
    /// Any other IP protocol by number; 1 is an ICMP echo request.
    Other(u8),
}

impl Traffic {
    /// An echo request of either family.
    #[must_use]
    pub fn echo(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Other(1) } else { Self::Icmpv6(128) }
    }

    /// Can such a packet be made for this address? Not ICMPv6 over IPv4, not what would be an extension header of IPv6 and
    /// no protocol of its own, and not TCP, UDP or SCTP without a port.
    #[must_use]
    pub fn can_be_sent_to(self, address: IpAddr) -> bool {
        match self {
            Self::Port(..) => true,
            Self::Icmpv6(_) => address.is_ipv6(),
            Self::Other(6 | 17 | 132) => false,
            Self::Other(number) => {
                address.is_ipv4()
                    || !matches!(number, 0 | 43 | 44 | 51 | 58 | 59 | 60 | 135 | 139 | 140)
            }
        }
    }

    /// Does the far end answer it at all? Everything but ICMP messages other than echo requests.
    #[must_use]
    pub fn is_answered(self) -> bool {
        !matches!(self, Self::Icmpv6(kind) if kind != 128)
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

/// A packet to send, from whom to whom.
///
/// Every probe is a flow of its own, so that no connection that the kernel remembers lets it pass: it comes from a client port
/// that no recent probe of the lab had. Where the protocol has no ports, the node is made to forget the one connection that
/// there can be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Probe {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) traffic: Traffic,
    pub(crate) sender: Option<Place>,
    pub(crate) client_port: Option<u16>,
    pub(crate) too_big: Option<IpAddr>,
}

impl Probe {
    /// A packet from the owner of `source` to the owner of `destination`.
    ///
    /// ```
    /// use netpol_core::Protocol;
    /// use netpol_lab::{Probe, Traffic};
    /// let web = Traffic::Port(Protocol::Tcp, 80);
    /// let probe = Probe::new("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), web);
    /// assert_eq!(probe.to_string(), "10.0.0.1 -> 10.0.0.2 80/TCP");
    /// ```
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, traffic: Traffic) -> Self {
        Self { source, destination, traffic, sender: None, client_port: None, too_big: None }
    }

    /// Sent by this pod, whoever owns the source address. It leaves through the pod's interface even if it is addressed to
    /// the pod itself, like a packet that a pod forges to make its node remember a connection.
    #[must_use]
    pub fn sent_by(mut self, pod: PodId) -> Self {
        self.sender = Some(Place::Pod(pod));
        self
    }

    /// From this client port. The lab otherwise takes one from 61000 to 65000. A probe that is sent twice from the same port belongs
    /// to the connection of the first, if that was answered.
    #[must_use]
    pub fn with_client_port(mut self, port: u16) -> Self {
        self.client_port = Some(port);
        self
    }

    /// Not the packet itself, but the ICMP error which says that it was too big for the next link: to its source, from
    /// `reporter`, an address of anybody in the lab. It is related to a connection if the same probe with the same client
    /// port was sent before.
    #[must_use]
    pub fn too_big_for(mut self, reporter: IpAddr) -> Self {
        self.too_big = Some(reporter);
        self
    }

    /// From where.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// To where.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        self.destination
    }

    /// What.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} {}", self.source, self.destination, self.traffic)?;
        if let Some(port) = self.client_port {
            write!(f, " from port {port}")?;
        }
        if let Some(reporter) = self.too_big {
            write!(f, ", too big says {reporter}")?;
        }
        match &self.sender {
            Some(sender) => write!(f, ", sent by {sender}"),
            None => Ok(()),
        }
    }
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Fate {
    /// Its sender could send it. If not, the lab or the probe is wrong, not the policy: the sender has no route.
    pub sent: bool,
    /// It arrived.
    pub delivered: bool,
    /// The answer came back to the owner of its source address.
    pub answered: bool,
    /// It did not arrive, and its source was told so.
    pub refused: Option<Refusal>,
}

/// How a firewall says no.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the protocols have these two ways")]
pub enum Refusal {
    /// With a TCP reset.
    Reset,
    /// With an ICMP error.
    Unreachable,
}
