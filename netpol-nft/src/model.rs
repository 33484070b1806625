//! What a ruleset is in terms of nftables, before it is syntax: tables, sets, verdict maps, chains and rules.
//!
//! The layout makes it ([`layout`](crate::layout())), the encoders read it: script text and the objects of the
//! `nftables` crate. A value cannot say anything that would become syntax: names are of a closed alphabet, comments are
//! cleaned when they are made (F98), everything else is a number or an address.
//!
//! The words are those of nft(8).

use ipnet::IpNet;
use netpol_core::Protocol;
use netpol_host::{Comment, DeviceName};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// The tables of one ruleset: at most one per family, in the order of [`TableFamily`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Model {
    /// The name that all tables have.
    pub name: Name,
    /// The tables.
    pub tables: BTreeMap<TableFamily, Table>,
}

/// The family of a table (nft(8), ADDRESS FAMILIES).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the families that this back end uses")]
pub enum TableFamily {
    /// IPv4 packets.
    Ip,
    /// IPv6 packets.
    Ip6,
    /// Frames as they come in from a device.
    Netdev,
}

impl TableFamily {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ip, Self::Ip6, Self::Netdev];

    /// The word of nft.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Netdev => "netdev",
        }
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A name in the kernel: letters, digits and `_`, beginning with a letter, at most 128 bytes (the kernel takes 255).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(String);

impl Name {
    /// The longest name that is made here.
    pub const MAX_LEN: usize = 128;

    /// The name, if it is one.
    ///
    /// ```
    /// use netpol_nft::model::Name;
    /// assert!(Name::new("netpol").is_some());
    /// assert!(Name::new("x; flush ruleset").is_none());
    /// ```
    #[must_use]
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let valid = name.len() <= Self::MAX_LEN
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        valid.then_some(Self(name))
    }

    /// A name that is made of fixed words and hexadecimal digits. Anything else in it is left out.
    pub(crate) fn made(name: impl fmt::Display) -> Self {
        let name = name.to_string();
        debug_assert!(Self::new(name.clone()).is_some(), "{name}");
        Self(name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Name {
    /// `netpol`, the name of the tables.
    fn default() -> Self {
        Self("netpol".to_owned())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Table {
    /// Its sets.
    pub sets: BTreeMap<Name, Set>,
    /// Its verdict maps.
    pub maps: BTreeMap<Name, VerdictMap>,
    /// Its chains. All but the marker are named by their content: equal name, equal rules.
    pub chains: BTreeMap<Name, Chain>,
}

/// The type of a set's key (nft(8), DATA TYPES).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "encoders must handle each")]
pub enum KeyType {
    /// `ipv4_addr`.
    Ipv4,
    /// `ipv6_addr`.
    Ipv6,
    /// `inet_service`.
    Service,
    /// `ifname`.
    Device,
}

impl KeyType {
    /// The word of nft.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
            Self::Service => "inet_service",
            Self::Device => "ifname",
        }
    }
}

/// A named set.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Set {
    /// The types of its concatenated key.
    pub key: Vec<KeyType>,
    /// Does it hold intervals? Then its members never change: a change is a new set.
    pub interval: bool,
    /// Does each member count the packets that match it?
    pub counters: bool,
    /// Its members.
    pub elements: BTreeSet<Element>,
    /// What it is, for people.
    pub comment: Comment,
}

/// A named map from a key to the chain that goes on.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct VerdictMap {
    /// The type of its key.
    pub key: KeyType,
    /// Where each key goes to.
    pub elements: BTreeMap<Element, Name>,
    /// Whose key it is, for people who read the script.
    pub notes: BTreeMap<Element, Comment>,
}

/// A member of a set: the values of a concatenated key.
pub type Element = Vec<Value>;

/// A constant.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "encoders must handle each")]
pub enum Value {
    /// An address.
    Address(IpAddr),
    /// All addresses of a network.
    Network(IpNet),
    /// The addresses from the first to the second.
    Addresses(IpAddr, IpAddr),
    /// A protocol.
    Protocol(Protocol),
    /// Closed range of ports, or one port.
    Ports(u16, u16),
    /// Closed range of ICMPv6 types, or one type.
    Icmpv6Types(u8, u8),
    /// A network device.
    Device(DeviceName),
    /// A state of conntrack.
    State(State),
    /// Packets of the direction in which the connection was *not* opened.
    Reply,
}

/// A state of conntrack.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the states that rules ask for")]
pub enum State {
    /// Packets have been seen in both directions.
    Established,
    /// A connection, or an ICMP error, that belongs to another (NP-53).
    Related,
}

impl State {
    /// The word of nft.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Related => "related",
        }
    }
}

/// What a match looks at.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "encoders must handle each")]
pub enum Field {
    /// The source address of this IP version.
    Source(IpVersion),
    /// The destination address of this IP version.
    Destination(IpVersion),
    /// `meta l4proto`, behind all IPv6 extension headers (F10).
    Protocol,
    /// The destination port of this protocol; other protocols never match.
    Port(Protocol),
    /// The destination port of whatever protocol it is: only ever concatenated behind [`Field::Protocol`].
    AnyPort,
    /// The type of an ICMPv6 message; other protocols never match.
    Icmpv6Type,
    /// The name of the device that the packet came in from.
    InDevice,
    /// The name of the device that the packet goes out to.
    OutDevice,
    /// The state of the connection.
    State,
    /// The direction of the packet in its connection.
    Direction,
}

/// An IP version, in a table of any family.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "there are two")]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A condition.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct Match {
    /// What is looked at, concatenated.
    pub fields: Vec<Field>,
    /// Only the first bits of an address, as a mask.
    pub mask: Option<IpAddr>,
    /// What it is compared with.
    pub test: Test,
}

/// What the fields of a match are compared with.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "encoders must handle each")]
pub enum Test {
    /// They are in the value.
    Is(Value),
    /// They are among these, an anonymous set.
    OneOf(Vec<Element>),
    /// They are not among these.
    NoneOf(Vec<Element>),
    /// They are in the named set.
    In(Name),
}

/// What a rule does when it matches.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "encoders must handle each")]
pub enum Action {
    /// Counts packets and bytes.
    Counter,
    /// Goes on only this often.
    Limit {
        /// How often a second.
        per_second: u32,
        /// How many at once.
        burst: u32,
    },
    /// Tells user space (nfnetlink_log).
    Log {
        /// The group that listeners join.
        group: u16,
        /// The text before the packet.
        prefix: Comment,
    },
    /// Ends this base chain; those of other tables still run.
    Accept,
    /// The packet is gone.
    Drop,
    /// Back to the chain that jumped, or to the end of the base chain.
    Return,
    /// On to another chain, without coming back here.
    Goto(Name),
    /// On to another chain, and back.
    Jump(Name),
    /// On to the chain that the map has for the field, without coming back here.
    Dispatch(Field, Name),
    /// The sender of a TCP segment gets a reset.
    RejectWithReset,
    /// The sender gets an ICMP or ICMPv6 error: administratively prohibited.
    RejectAsProhibited(IpVersion),
}

/// A rule: if all matches hold, the actions are done.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct Rule {
    /// The conditions, cheapest first.
    pub matches: Vec<Match>,
    /// What is done.
    pub actions: Vec<Action>,
    /// Where it comes from.
    pub comment: Comment,
}

/// A chain.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Chain {
    /// Where packets come in, for a base chain. The policy of all base chains is `accept`.
    pub hook: Option<Hook>,
    /// Its rules.
    pub rules: Vec<Rule>,
    /// What it is, for people who read the script; also which policies an error in it is about.
    pub title: Comment,
}

/// Where a base chain is attached (nft(8), CHAINS).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Hook {
    /// The place.
    pub point: HookPoint,
    /// The order among base chains of the same place; lower is earlier.
    pub priority: i32,
    /// The device, for [`HookPoint::Ingress`] only.
    pub device: Option<DeviceName>,
}

/// A place in the path of a packet.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the hooks that this back end uses")]
pub enum HookPoint {
    /// A frame comes in from a device (family netdev).
    Ingress,
    /// A packet comes in.
    Prerouting,
    /// A packet is for this host.
    Input,
    /// A packet passes through.
    Forward,
    /// A packet comes from this host.
    Output,
}

impl HookPoint {
    /// The word of nft.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
        }
    }
}
