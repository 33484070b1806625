//! A packet, as far as rules can look at it, and its way through the kernel.

use super::HookPoint;
use super::field::{ConnState, Field, value_address, value_device};
use std::fmt;
use std::net::IpAddr;

/// A packet. Its addresses are those behind destination and before source translation.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "a value for each field of the model")]
pub struct Packet {
    /// Is it IPv6?
    pub v6: bool,
    /// The source address, as a number.
    pub source: u128,
    /// The destination address, as a number.
    pub destination: u128,
    /// The protocol.
    pub protocol: u8,
    /// The first 16 bits behind the IP header: source port, or ICMP type and code.
    pub first: u16,
    /// The second 16 bits behind the IP header: destination port.
    pub second: u16,
    /// The device that it came in by, as a number; none for what is made here.
    pub in_device: Option<u128>,
    /// The device that it leaves by, as a number; none for what is delivered here.
    pub out_device: Option<u128>,
    /// The state of its connection.
    pub state: ConnState,
    /// Does it go in the reply direction of its connection?
    pub reply: bool,
    /// Its mark when it comes.
    pub mark: u32,
}

impl Packet {
    /// The source address.
    #[must_use]
    pub fn source_address(&self) -> IpAddr {
        value_address(self.source, self.v6)
    }

    /// The destination address.
    #[must_use]
    pub fn destination_address(&self) -> IpAddr {
        value_address(self.destination, self.v6)
    }

    /// The value of a field, if the packet has it.
    #[must_use]
    pub fn value(&self, field: Field) -> Option<u128> {
        Some(match field {
            Field::Version => {
                if self.v6 {
                    6
                } else {
                    4
                }
            }
            Field::Source => self.source,
            Field::Destination => self.destination,
            Field::Protocol => self.protocol.into(),
            Field::First => self.first.into(),
            Field::Second => self.second.into(),
            Field::InDevice => self.in_device?,
            Field::OutDevice => self.out_device?,
            Field::State => self.state.bit(),
            Field::Direction => self.reply.into(),
            Field::Mark => self.mark.into(),
        })
    }
}

impl fmt::Display for Packet {
    /// `TCP 10.0.0.1:40000 -> 10.0.0.2:80, new, in "veth0"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.source_address(), self.destination_address());
        let name = match self.protocol {
            6 => Some("TCP"),
            17 => Some("UDP"),
            132 => Some("SCTP"),
            _ => None,
        };
        match (name, self.protocol) {
            (Some(name), _) if self.v6 => {
                write!(f, "{name} [{from}]:{} -> [{to}]:{}", self.first, self.second)?;
            }
            (Some(name), _) => write!(f, "{name} {from}:{} -> {to}:{}", self.first, self.second)?,
            (None, 1) => write!(f, "ICMP type {} {from} -> {to}", self.first >> 8)?,
            (None, 58) => write!(f, "ICMPv6 type {} {from} -> {to}", self.first >> 8)?,
            (None, number) => write!(f, "IP protocol {number} {from} -> {to}")?,
        }
        write!(f, ", {}", self.state.as_str())?;
        if self.reply {
            f.write_str(", reply")?;
        }
        for (word, device) in [("in", self.in_device), ("out", self.out_device)] {
            if let Some(device) = device {
                write!(f, ", {word} \"{}\"", value_device(device))?;
            }
        }
        Ok(())
    }
}

/// The way of a packet through the kernel.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the ways of netfilter that concern pods")]
pub enum Path {
    /// It comes in and is sent on: between pods, and between pods and the world.
    Forward,
    /// It comes in and is for this node.
    ToNode,
    /// This node made it.
    FromNode,
    /// It comes in, and conntrack has not seen it yet: the place of the source guard.
    Arrival,
}

impl Path {
    pub(super) fn points(self) -> &'static [HookPoint] {
        use HookPoint::{Egress, Forward, Ingress, Input, Output, Postrouting, Prerouting};
        match self {
            Self::Forward => &[Ingress, Prerouting, Forward, Postrouting, Egress],
            Self::ToNode => &[Ingress, Prerouting, Input],
            Self::FromNode => &[Output, Postrouting, Egress],
            Self::Arrival => &[Ingress, Prerouting],
        }
    }

    pub(super) fn is_before_conntrack(self) -> bool {
        self == Self::Arrival
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forwarded",
            Self::ToNode => "to the node itself",
            Self::FromNode => "from the node itself",
            Self::Arrival => "arriving, before connection tracking",
        })
    }
}
