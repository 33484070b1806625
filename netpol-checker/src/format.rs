//! What is in a certificate. JSON, one object; everything that is used more than once is in a table and named by its index.

use crate::list::List;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a certificate calls itself.
pub const FORMAT: &str = "netpol certificate";

/// The version that this crate writes and reads.
pub const VERSION: u32 = 1;

/// An index into a table.
pub type Index = usize;

/// The states of a connection in which cells are judged, in the order in which [`Question::cells`] has them: the bit by which
/// nf_tables knows the state, and whether the packet goes in the reply direction. The guard, before connection tracking,
/// knows the first alone.
pub const STATES: [(u32, bool); 7] =
    [(8, false), (2, false), (2, true), (4, false), (4, true), (1, false), (64, false)];

/// A proof, written down: the rules, the packets in classes, and what becomes of each class on both sides.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a version of the format has these parts")]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Whose pods it is about; none: all of the cluster.
    pub node: Option<String>,
    /// The choices that Kubernetes leaves open.
    pub options: Choices,
    /// The devices that the prover was told, by pod (`namespace/name`).
    pub interfaces: BTreeMap<String, String>,
    /// The devices of pods that were not told but are those that a source guard in the rules names. An assumption.
    pub inferred: BTreeMap<String, Vec<String>>,
    /// Is no source guard proved, although devices are known?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unguarded: bool,
    /// May rules that are not netpol's own drop more than policies do?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub others_may_drop: bool,
    /// Devices that a source guard in the rules closes to everybody: those of pods that have no address. An assumption, too.
    pub closed: Vec<String>,
    /// All other devices, in classes: indices of [`Certificate::lists`].
    pub outside: Vec<Index>,
    /// The rules.
    pub machine: Machine,
    /// Classes of values.
    pub lists: Vec<List>,
    /// Classes of protocol and first and second 16 bits behind the IP header, as three indices of lists each.
    pub traffic: Vec<Vec<[Index; 3]>>,
    /// For each lane of a question one letter: `p` it passes, `d` it is dropped, `?` neither is certain, and, of what is expected,
    /// `*` anything goes.
    pub rows: Vec<String>,
    /// The questions, in any order.
    pub questions: Vec<Question>,
}

/// [`netpol_core::Options`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a version of the format has these parts")]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Choices {
    /// Are protocols other than TCP, UDP and SCTP always allowed (NP-51)?
    pub other_protocols_pass: bool,
    /// Is what a pod sends to its node exempt from NetworkPolicies (NP-71)?
    pub own_node_egress_passes: bool,
    /// Are packets of open connections judged again (NP-62)?
    pub re_evaluates: bool,
}

impl From<netpol_core::Options> for Choices {
    fn from(options: netpol_core::Options) -> Self {
        Self {
            other_protocols_pass: options.other_protocols() == netpol_core::OtherProtocols::Allow,
            own_node_egress_passes: options.own_node_egress() == netpol_core::OwnNodeEgress::Allow,
            re_evaluates: options.established() == netpol_core::Established::ReEvaluate,
        }
    }
}

/// The packets of a way that have one address in common, cut into classes, and their fates.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a version of the format has these parts")]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Which way.
    pub way: Way,
    /// Is it about IPv6?
    pub v6: bool,
    /// Of what the node itself sends or receives: is it run through all rules together, of which is only expected that they drop
    /// what is denied? Else it is run through netpol's own rules.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub together: bool,
    /// The fixed address, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<std::net::IpAddr>,
    /// The pod that owns it, or whose device is guarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The class of the device at the fixed end, where the packet passes one there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Index>,
    /// Classes of the address that varies, each with a class of the device at that end, where there is one.
    pub lanes: Vec<(Index, Option<Index>)>,
    /// Classes of the other address, if it is not fixed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Index>,
    /// The classes of protocol and ports: an index of [`Certificate::traffic`].
    pub traffic: Index,
    /// Two indices of rows, what is expected and what is met: for each of the other addresses, for each class of traffic, for
    /// each of [`STATES`].
    pub cells: Vec<[u32; 2]>,
}

/// The way of a packet, and what is fixed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "a version of the format has these ways")]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Forwarded to a pod of the node, from anywhere.
    ToPod,
    /// Forwarded from a pod of the node, to what is no pod of the node.
    FromPod,
    /// From a pod of the node to what is no pod, delivered here.
    ToNode,
    /// To a pod of the node from what is no pod, made here.
    FromNode,
    /// Forwarded, and neither end is a pod of the node.
    Past,
    /// In by the device of a pod, before connection tracking.
    Guard,
}

/// The rules as the parsers understood them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a version of the format has these parts")]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Machine {
    /// What may concern any packet and was not understood. A proof has none.
    pub not_understood: Vec<String>,
    /// The sets that rules look up.
    pub sets: Vec<Set>,
    /// The verdict maps.
    pub maps: Vec<Map>,
    /// The chains of all tables.
    pub chains: Vec<Chain>,
}

/// A set of values, or of tuples of values.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a version of the format has these parts")]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// Its name in the ruleset, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of how many parts its key is.
    pub width: usize,
    /// If of one: the values.
    #[serde(default, skip_serializing_if = "List::is_empty")]
    pub values: List,
    /// If of more: boxes, an interval for each part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<List>,
}

impl List {
    /// Is nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A verdict map: boxes, an interval for each part of the key, and where they lead.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a version of the format has these parts")]
#[serde(deny_unknown_fields)]
pub struct Map {
    /// Its name in the ruleset, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The entries.
    pub entries: Vec<(List, Verdict)>,
}

/// The program that a table is of.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "the programs that Linux has for this")]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// nft.
    #[default]
    Nft,
    /// iptables-legacy, or what does not say which iptables it is of.
    IptablesLegacy,
    /// iptables-nft.
    IptablesNft,
}

impl Program {
    fn is_nft(&self) -> bool {
        *self == Self::Nft
    }
}

/// A chain.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a version of the format has these parts")]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// The program that made its table.
    #[serde(default, skip_serializing_if = "Program::is_nft")]
    pub program: Program,
    /// The family of its table: `ip`, `ip6`, `inet` or `netdev`.
    pub family: String,
    /// The name of its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Is it one of netpol's own? What the node itself sends or receives, and what passes by the pods, is judged by these alone,
    /// and by the rules of built-in chains of iptables that lead to them.
    pub own: bool,
    /// Where the kernel calls it, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where the kernel calls a chain.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a version of the format has these parts")]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// `ingress`, `prerouting`, `input`, `forward`, `output`, `postrouting` or `egress`.
    pub point: String,
    /// Of several chains at a point, the one with the least priority comes first.
    pub priority: i32,
    /// Is a packet dropped that comes to the end of the chain?
    pub drops: bool,
    /// The devices that it is bound to; none if the ruleset does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<String>>,
}

/// A rule.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a version of the format has these parts")]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Where it stands in the text that was read.
    pub place: String,
    /// What its author wrote beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Does it stand in a built-in chain of iptables, with everybody's rules, and lead to a chain of netpol's own?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// What it does, in order.
    pub steps: Vec<Step>,
}

/// One step of a rule.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "a version of the format has these steps")]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Go on if the values of the key are in the set, else to the next rule.
    Match {
        /// What is looked up.
        key: Vec<Field>,
        /// Of a mark, the bits that count.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mask: Option<u32>,
        /// Must they not be in the set? A packet without one of the fields goes to the next rule either way.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        negated: bool,
        /// Which set.
        set: Index,
    },
    /// Go on, or to the next rule: the kernel's choice (a rate limit), or a condition that was not understood.
    Choice(String),
    /// A statement that was not understood: anything may happen.
    Opaque(String),
    /// The mark becomes `(mark & and) ^ xor`; without numbers, something that is not known.
    Mark(Option<(u32, u32)>),
    /// The end of the rule.
    Verdict(Verdict),
    /// The verdict of the entry that the values of the key fall into; on to the next step if there is none.
    Dispatch {
        /// What is looked up.
        key: Vec<Field>,
        /// Which map.
        map: Index,
    },
}

/// What ends a rule.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "the verdicts of nf_tables and iptables")]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// This base chain lets it pass; the next one is asked.
    Accept,
    /// It is gone.
    Drop,
    /// Back to where this chain was jumped to from.
    Return,
    /// On to the next rule.
    Continue,
    /// Through a chain, and then on to the next rule.
    Jump(Index),
    /// Through a chain, and then back to where this one was jumped to from.
    Goto(Index),
}

/// What of a packet a rule looks at.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_enums, reason = "a version of the format has these fields")]
#[serde(rename_all = "kebab-case")]
pub enum Field {
    /// 4 or 6.
    Version,
    /// The source address.
    Source,
    /// The destination address.
    Destination,
    /// The protocol behind all extension headers.
    Protocol,
    /// The first 16 bits behind the IP header: the source port, or the type and the code of ICMP.
    First,
    /// The second 16 bits: the destination port.
    Second,
    /// The device that it came in by; 0 where none is known.
    InDevice,
    /// The device that it leaves by; 0 where none is known.
    OutDevice,
    /// The bit of the state of its connection; before connection tracking it is invalid, 1.
    State,
    /// 0 the original, 1 the reply; packets without a connection have none.
    Direction,
    /// The mark, which is 0 when a packet comes.
    Mark,
}
