//! The rule machine: a small model of netfilter that rulesets are parsed into and that packets are run through.
//!
//! A rule is a list of steps. A condition says that a tuple of fields is in a set of boxes, or is not; everything that the
//! parsers understand is that, a verdict, a change of the mark, or nothing at all (counters, logs). What they do not
//! understand stays in the rule as a step of its own and is never skipped: [`Step::UnknownMatch`] may match or not,
//! after [`Step::Opaque`] anything may happen.

mod element;
mod field;
mod own;
mod packet;
mod run;
mod show;

pub use element::{ElementMap, ElementSet};
pub use field::{
    ConnState, Field, Range, address_value, device_prefix, device_value, value_address,
    value_device,
};
pub use own::Own;
pub use packet::{Packet, Path};
pub(crate) use run::MOST_JUMPS;
pub use run::{Fate, Run, TraceStep};

use std::collections::BTreeSet;
use std::sync::Arc;

/// The tables of a ruleset, as far as they judge packets.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Machine {
    /// The tables.
    pub tables: Vec<Table>,
    /// The chains of all tables.
    pub chains: Vec<Chain>,
    /// What was not understood and cannot be tied to a rule, so that it may concern any packet.
    pub not_understood: Vec<NotUnderstood>,
    /// What is not judged here although it is there, in words: address translation, for example.
    pub left_out: BTreeSet<String>,
}

/// A table.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Table {
    /// Of which program it is.
    pub kind: TableKind,
    /// Which packets it sees.
    pub family: TableFamily,
    /// Its name.
    pub name: String,
}

impl Table {
    /// The family as nft writes it, or the name of the program for tables of iptables.
    #[must_use]
    pub fn program(&self) -> &'static str {
        match (self.kind, self.family) {
            (TableKind::Nft, family) => family.as_str(),
            (TableKind::IptablesLegacy, TableFamily::Ip6) => "ip6tables-legacy",
            (TableKind::IptablesLegacy, _) => "iptables-legacy",
            (TableKind::IptablesNft, TableFamily::Ip6) => "ip6tables-nft",
            (TableKind::IptablesNft, _) => "iptables-nft",
        }
    }

    pub(crate) fn is(&self, kind: TableKind, family: TableFamily, name: &str) -> bool {
        (self.kind, self.family, self.name.as_str()) == (kind, family, name)
    }
}

/// The program that a table is of. Each has tables of its own, and a packet passes all of them.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the programs that Linux has for this")]
pub enum TableKind {
    /// nft.
    Nft,
    /// iptables-legacy, and what does not say which iptables it is of.
    IptablesLegacy,
    /// iptables-nft.
    IptablesNft,
}

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the families that the machine runs")]
pub enum TableFamily {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
    /// What comes in, or goes out, by a device.
    Netdev,
}

impl TableFamily {
    /// As nft writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Netdev => "netdev",
        }
    }

    /// Do packets of this version of IP meet its tables?
    pub(crate) fn sees(self, v6: bool) -> bool {
        match self {
            Self::Ip => !v6,
            Self::Ip6 => v6,
            Self::Inet | Self::Netdev => true,
        }
    }
}

/// Where a chain stands in [`Machine::chains`].
pub type ChainIndex = usize;

/// A chain.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Chain {
    /// Where its table stands in [`Machine::tables`].
    pub table: usize,
    /// Its name.
    pub name: String,
    /// Where the kernel calls it, if it does.
    pub hook: Option<Hook>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where the kernel calls a chain.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Hook {
    /// The point on the way of a packet.
    pub point: HookPoint,
    /// Of several chains at a point, the one with the least priority comes first.
    pub priority: i32,
    /// What becomes of a packet that comes to the end of the chain.
    pub drops: bool,
    /// The devices that it is bound to; none if the ruleset does not tell.
    pub devices: Option<Vec<String>>,
}

/// A point on the way of a packet.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the hooks of netfilter")]
pub enum HookPoint {
    /// At the device that it came in by.
    Ingress,
    /// Before it is routed.
    Prerouting,
    /// Before it is delivered here.
    Input,
    /// Before it is sent on.
    Forward,
    /// When it was made here.
    Output,
    /// After it was routed.
    Postrouting,
    /// At the device that it leaves by.
    Egress,
}

impl HookPoint {
    /// As nft writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
        }
    }

    /// The point of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        use HookPoint::{Egress, Forward, Ingress, Input, Output, Postrouting, Prerouting};
        [Ingress, Prerouting, Input, Forward, Output, Postrouting, Egress]
            .into_iter()
            .find(|point| point.as_str() == text)
    }
}

/// A rule.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Rule {
    /// Where it stands: `handle 7`, or `line 12` of a dump.
    pub place: String,
    /// The comment that its author gave it.
    pub comment: Option<String>,
    /// What it does, in order.
    pub steps: Vec<Step>,
}

impl Rule {
    /// A rule without steps.
    #[must_use]
    pub fn at(place: impl Into<String>) -> Self {
        Self { place: place.into(), ..Self::default() }
    }
}

/// One step of a rule.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "each engine must know each of them")]
pub enum Step {
    /// Go on if this holds, else to the next rule.
    Match(Condition),
    /// The kernel may go on or not, for reasons that are not in the packet (a rate limit).
    Free(String),
    /// A condition that was not understood.
    UnknownMatch(NotUnderstood),
    /// A statement that was not understood: anything may happen.
    Opaque(NotUnderstood),
    /// The mark becomes `(mark & and) ^ xor`.
    Mark {
        /// The bits that stay.
        and: u32,
        /// The bits that change.
        xor: u32,
    },
    /// The mark becomes something that is not known.
    UnknownMark(NotUnderstood),
    /// The end of the rule.
    Verdict(Verdict),
    /// The verdict of the entry that the key falls into; on to the next step if there is none.
    Dispatch {
        /// What is looked up.
        key: Vec<Field>,
        /// The map.
        map: Arc<ElementMap<Verdict>>,
    },
}

/// A test of some fields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Condition {
    /// The fields that are looked up.
    pub key: Vec<Field>,
    /// Of a mark, the bits that count: classes of packets are cut where a set begins and ends, which would be wrong of a
    /// masked port or address, so that no other field has a mask.
    mask: Option<u32>,
    /// Must the tuple not be in the set?
    pub negated: bool,
    /// The set.
    pub set: Arc<ElementSet>,
}

impl Condition {
    /// The fields are in the set.
    #[must_use]
    pub fn new(key: Vec<Field>, set: Arc<ElementSet>) -> Self {
        Self { key, mask: None, negated: false, set }
    }

    /// These bits of the mark are in the set.
    #[must_use]
    pub fn of_mark(mask: u32, set: Arc<ElementSet>) -> Self {
        Self { mask: Some(mask), ..Self::new(vec![Field::Mark], set) }
    }

    /// A field has a value in this interval.
    #[must_use]
    pub fn within(field: Field, range: Range) -> Self {
        Self::new(vec![field], Arc::new(ElementSet::of(vec![range])))
    }

    /// The opposite. A packet without the field fulfils neither.
    #[must_use]
    pub fn negate(mut self) -> Self {
        self.negated = !self.negated;
        self
    }

    /// Of the mark, the bits that count, if not all do.
    #[must_use]
    pub fn mask(&self) -> Option<u32> {
        self.mask
    }

    /// Does it hold for these values of its key?
    #[must_use]
    pub fn holds(&self, values: &[u128]) -> bool {
        match (self.mask, values) {
            (Some(mask), [mark]) => {
                self.set.contains_value(mark & u128::from(mask)) != self.negated
            }
            _ => self.set.contains(values) != self.negated,
        }
    }
}

/// What ends a rule.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the verdicts of nf_tables and iptables")]
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
    Jump(ChainIndex),
    /// Through a chain, and then back to where this one was jumped to from.
    Goto(ChainIndex),
}

/// Something in a ruleset that the machine does not understand.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct NotUnderstood {
    /// Where it stands.
    pub place: String,
    /// What it is, as the ruleset writes it.
    pub what: String,
}

impl NotUnderstood {
    /// Something at a place.
    #[must_use]
    pub fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        let mut what: String = what.into();
        if what.chars().count() > 200 {
            what = what.chars().take(200).chain("...".chars()).collect();
        }
        Self { place: place.into(), what }
    }
}

impl std::fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// A base chain on the way of a packet, and what is known of the packet there.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stage {
    /// The chain.
    pub chain: ChainIndex,
    /// Is it called before conntrack has seen the packet?
    pub before_conntrack: bool,
    /// Is the device known that the packet came in by?
    pub knows_in_device: bool,
    /// Is the device known that it will leave by?
    pub knows_out_device: bool,
}

/// Has conntrack seen the packets of a hook?
fn is_tracked(point: HookPoint, priority: i32) -> bool {
    match point {
        HookPoint::Ingress => false,
        HookPoint::Prerouting | HookPoint::Output => priority > CONNTRACK,
        _ => true,
    }
}

/// The priority at which conntrack looks at packets.
const CONNTRACK: i32 = -200;

impl Machine {
    /// Is it a base chain that conntrack has not seen the packets of yet?
    pub(crate) fn is_before_conntrack(&self, chain: ChainIndex) -> bool {
        let hook = self.chain(chain).and_then(|chain| chain.hook.as_ref());
        hook.is_some_and(|hook| !is_tracked(hook.point, hook.priority))
    }

    /// An empty ruleset.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a table of nft, or finds the one of this name.
    pub fn table(&mut self, family: TableFamily, name: &str) -> usize {
        self.table_of(TableKind::Nft, family, name)
    }

    /// Adds a table of one of the programs, or finds the one of this name.
    pub fn table_of(&mut self, kind: TableKind, family: TableFamily, name: &str) -> usize {
        let known = self.tables.iter().position(|table| table.is(kind, family, name));
        known.unwrap_or_else(|| {
            self.tables.push(Table { kind, family, name: name.to_owned() });
            self.tables.len() - 1
        })
    }

    /// Adds a chain without rules.
    pub fn add_chain(&mut self, table: usize, name: &str, hook: Option<Hook>) -> ChainIndex {
        self.chains.push(Chain { table, name: name.to_owned(), hook, rules: Vec::new() });
        self.chains.len() - 1
    }

    /// Adds a rule to the end of a chain.
    pub fn add_rule(&mut self, chain: ChainIndex, rule: Rule) {
        if let Some(chain) = self.chains.get_mut(chain) {
            chain.rules.push(rule);
        }
    }

    /// The base chains on a way, in the order in which the kernel calls them, for packets of a version. Those that are
    /// bound to devices are all there.
    #[must_use]
    pub fn stages(&self, path: Path, v6: bool) -> Vec<Stage> {
        let mut stages = Vec::new();
        for &point in path.points() {
            let mut here: Vec<(i32, ChainIndex)> = self
                .chains
                .iter()
                .enumerate()
                .filter_map(|(at, chain)| {
                    let hook = chain.hook.as_ref().filter(|hook| hook.point == point)?;
                    let family = self.tables.get(chain.table)?.family;
                    family.sees(v6).then_some((hook.priority, at))
                })
                .collect();
            here.sort_unstable();
            for (priority, chain) in here {
                let tracked = is_tracked(point, priority);
                if path.is_before_conntrack() && tracked {
                    continue;
                }
                stages.push(Stage {
                    chain,
                    before_conntrack: !tracked,
                    knows_in_device: !matches!(point, HookPoint::Output),
                    knows_out_device: !matches!(
                        point,
                        HookPoint::Ingress | HookPoint::Prerouting | HookPoint::Input
                    ),
                });
            }
        }
        stages
    }

    /// The chain at an index.
    #[must_use]
    pub fn chain(&self, index: ChainIndex) -> Option<&Chain> {
        self.chains.get(index)
    }

    /// Family, table and chain as nft writes them, or the program's name, table and chain (`ip6tables-nft filter FORWARD`).
    #[must_use]
    pub fn chain_name(&self, index: ChainIndex) -> String {
        let Some(chain) = self.chain(index) else { return format!("chain {index}") };
        match self.tables.get(chain.table) {
            Some(table) => format!("{} {} {}", table.program(), table.name, chain.name),
            None => chain.name.clone(),
        }
    }
}
