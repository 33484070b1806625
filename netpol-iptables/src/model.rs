//! What a ruleset is in terms of iptables and ipset, before it is syntax: sets, chains, rules, and jumps from built-in chains.
//!
//! The layout makes it ([`layout`](crate::layout())), the encoders of [`text`](crate::text) write it down. A value cannot
//! say anything that would become syntax: names are of a closed alphabet, comments are cleaned when they are made (F98),
//! everything else is a number or an address.
//!
//! The words are those of iptables(8), iptables-extensions(8) and ipset(8).

pub use crate::name::{Builtin, ChainName, SetName};

use crate::name::Prefix;
use ipnet::IpNet;
use netpol_core::{Family, Protocol};
use netpol_host::{Comment, DeviceName};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// One ruleset, of both families.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Model {
    /// The beginning of all names.
    pub prefix: Prefix,
    /// The sets of both families.
    pub sets: BTreeMap<SetName, Set>,
    /// The tables that rules are in.
    pub tables: BTreeMap<(Family, TableName), Table>,
}

/// A table of iptables.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the tables that this back end uses")]
pub enum TableName {
    /// Before conntrack: the source guard.
    Raw,
    /// Policy.
    Filter,
}

impl TableName {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Raw, Self::Filter];

    /// The word of iptables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Filter => "filter",
        }
    }

    /// The built-in chains in it from which packets come to us.
    #[must_use]
    pub fn builtins(self) -> &'static [Builtin] {
        match self {
            Self::Raw => &[Builtin::Prerouting],
            Self::Filter => &[Builtin::Input, Builtin::Forward, Builtin::Output],
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What is ours in a table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Table {
    /// Our chains. All but the entries and the marker are named by their content: equal name, equal rules.
    pub chains: BTreeMap<ChainName, Chain>,
    /// The first rule of a built-in chain, which leads to an entry chain.
    pub jumps: BTreeMap<Builtin, Rule>,
}

/// The type of a set (ipset(8), SET TYPES).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "encoders must handle each")]
pub enum SetType {
    /// `hash:ip`.
    Address,
    /// `hash:ip,port`.
    AddressPort,
    /// `hash:net`.
    Network,
    /// `hash:net,iface`.
    AddressDevice,
}

impl SetType {
    /// The word of ipset.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Address => "hash:ip",
            Self::AddressPort => "hash:ip,port",
            Self::Network => "hash:net",
            Self::AddressDevice => "hash:net,iface",
        }
    }
}

/// A set.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Set {
    /// Its type.
    pub kind: SetType,
    /// The family of its addresses.
    pub family: Family,
    /// Does each member count the packets that match it?
    pub counters: bool,
    /// Its members.
    pub elements: BTreeSet<Element>,
    /// What it is, for people who read the script; also which policies an error in it is about.
    pub title: Comment,
}

impl Set {
    /// How many members it is made for: half as many again as it has, at least 64, in powers of two. It is replaced by a
    /// larger one before it is full (F75).
    #[must_use]
    pub fn capacity(&self) -> usize {
        let members = self.elements.len();
        (members + members / 2).max(64).next_power_of_two()
    }
}

/// A member of a set.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "encoders must handle each")]
pub enum Element {
    /// An address.
    Address(IpAddr),
    /// A network; never of prefix length 0, which `hash:net` refuses.
    Network(IpNet),
    /// An address, a protocol and a port.
    Port(IpAddr, Protocol, u16),
    /// An address and a device.
    Device(IpAddr, DeviceName),
}

/// A rule: if all conditions hold, packets go to the target. A rule without a target counts.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Rule {
    /// The network of the source address.
    pub source: Option<IpNet>,
    /// The network of the destination address.
    pub destination: Option<IpNet>,
    /// The device that the packet came in from.
    pub device: Option<DevicePattern>,
    /// The protocol, behind all IPv6 extension headers (F10).
    pub protocol: Option<IpProtocol>,
    /// Further conditions, tried in this order.
    pub matches: Vec<Match>,
    /// Where packets go.
    pub target: Option<Target>,
    /// Where it comes from.
    pub comment: Comment,
    /// Whose it is, for people who read the script. It is not in the kernel: a comment there makes a rule three times as
    /// long, which a walk along many rules feels.
    pub note: Comment,
}

/// A device, or all whose names begin alike.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "encoders must handle each")]
pub enum DevicePattern {
    /// This one.
    Is(DeviceName),
    /// All whose names begin so.
    StartsWith(DeviceName),
}

/// A protocol that rules can name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "encoders must handle each")]
pub enum IpProtocol {
    /// One with ports.
    WithPorts(Protocol),
    /// ICMPv6.
    Icmpv6,
}

/// A condition.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "encoders must handle each")]
pub enum Match {
    /// The destination port is in one of these closed ranges: at most 15 numbers, a range of several ports is two.
    Ports(Protocol, Vec<(u16, u16)>),
    /// The type of an ICMPv6 message.
    Icmpv6Type(u8),
    /// What is looked at is in the set.
    Set(SetName, Vec<Dimension>),
    /// The state of the connection is this, or is not.
    State {
        /// Is it to be none of these?
        negated: bool,
        /// `ESTABLISHED`, too?
        established: bool,
        /// `RELATED`, too?
        related: bool,
    },
    /// The packet is not of the direction in which the connection was opened.
    Reply,
    /// Not more often than this.
    Limit {
        /// How often a second.
        per_second: u32,
        /// How many at once.
        burst: u32,
    },
}

/// Which end of a packet is looked up in a set: address, port, or device.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "there are two")]
pub enum Dimension {
    /// The source address or port, the device that the packet came in from.
    Source,
    /// The destination address or port.
    Destination,
}

/// What a rule does with a packet.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "encoders must handle each")]
pub enum Target {
    /// The packet is gone.
    Drop,
    /// Back to the rule behind the last [`Target::Jump`].
    Return,
    /// On to another chain, without coming back here.
    Goto(ChainName),
    /// On to another chain, and back.
    Jump(ChainName),
    /// Tells user space (nfnetlink_log).
    Log {
        /// The group that listeners join.
        group: u16,
        /// The text before the packet, at most 63 bytes.
        prefix: Comment,
    },
    /// The sender of a TCP segment gets a reset.
    RejectWithReset,
    /// The sender gets an ICMP or ICMPv6 error: administratively prohibited.
    RejectAsProhibited(Family),
}

/// A chain.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Chain {
    /// Its rules.
    pub rules: Vec<Rule>,
    /// What it is, for people who read the script; also which policies an error in it is about.
    pub title: Comment,
}
