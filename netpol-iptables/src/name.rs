//! Names in the kernel: one place that makes them, and knows them again.
//!
//! | name | what |
//! |---|---|
//! | `NP-FORWARD`, `NP-INPUT`, `NP-OUTPUT`, `NP-GUARD` | chains to which the jumps from the built-in chains lead |
//! | `NP-made-by-netpol-1` | empty chain in each table that says whose chains of this prefix are |
//! | `NP-` letter, 22 characters | a chain, named by its rules |
//! | `NP-` letter, 4 or 6, 22 characters, digit | a set, named by its id, with a version |
//! | `NP-` word, 4 or 6 | a set of which there is one |
//!
//! The 22 characters are 128 bits with the digits 0-9, A-Z, a-z (F23): what fits the 28 characters of a chain's name and the 31 of a
//! set's with a prefix of up to four.

use netpol_core::{Direction, Family};
use std::fmt;

/// The beginning of all names: one to four letters and digits, beginning with a letter.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Prefix(String);

impl Prefix {
    /// The longest prefix.
    pub const MAX_LEN: usize = 4;

    /// The prefix, if it is one.
    ///
    /// ```
    /// use netpol_iptables::Prefix;
    /// assert!(Prefix::new("NP2").is_some());
    /// assert!(Prefix::new("netpol").is_none());
    /// ```
    #[must_use]
    pub fn new(prefix: impl Into<String>) -> Option<Self> {
        let prefix = prefix.into();
        let valid = (1..=Self::MAX_LEN).contains(&prefix.len())
            && prefix.starts_with(|c: char| c.is_ascii_alphabetic())
            && prefix.chars().all(|c| c.is_ascii_alphanumeric());
        valid.then_some(Self(prefix))
    }

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Prefix {
    /// `NP`.
    fn default() -> Self {
        Self("NP".to_owned())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The name of a chain of ours, at most 28 characters.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChainName(String);

/// The name of a set of ours, at most 31 characters.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SetName(String);

/// The built-in chains from which packets come to us, in the order of their tables.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the hooks that this back end uses")]
pub enum Builtin {
    /// A packet comes in: table `raw`.
    Prerouting,
    /// A packet is for this host: table `filter`.
    Input,
    /// A packet passes through: table `filter`.
    Forward,
    /// A packet comes from this host: table `filter`.
    Output,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Prerouting, Self::Input, Self::Forward, Self::Output];

    /// The name of the built-in chain.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
        }
    }
}

/// What a chain is for; the first letter of what follows the prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ChainKind {
    /// The first tier of a program.
    Program(Direction),
    /// The same for traffic with the own node.
    OwnNode(Direction),
    /// A later tier, or the rest of a chain.
    Rest,
    /// A denial.
    Denial,
    /// A node of a dispatch tree.
    Dispatch,
    /// A part of the source guard.
    Guard,
    /// What pods get whose rules the kernel refused.
    Closed,
}

impl ChainKind {
    fn letter(self) -> char {
        match self {
            Self::Program(Direction::Egress) => 'e',
            Self::Program(Direction::Ingress) => 'i',
            Self::OwnNode(Direction::Egress) => 'f',
            Self::OwnNode(Direction::Ingress) => 'j',
            Self::Rest => 't',
            Self::Denial => 'x',
            Self::Dispatch => 'd',
            Self::Guard => 'g',
            Self::Closed => 'c',
        }
    }

    const ALL: [Self; 9] = [
        Self::Program(Direction::Egress),
        Self::Program(Direction::Ingress),
        Self::OwnNode(Direction::Egress),
        Self::OwnNode(Direction::Ingress),
        Self::Rest,
        Self::Denial,
        Self::Dispatch,
        Self::Guard,
        Self::Closed,
    ];
}

/// What a set is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SetKind {
    /// Addresses of pods.
    Pods,
    /// Addresses and ports.
    NamedPorts,
    /// Networks.
    Networks,
}

impl SetKind {
    fn letter(self) -> char {
        match self {
            Self::Pods => 'p',
            Self::NamedPorts => 'n',
            Self::Networks => 'c',
        }
    }
}

/// The version of this layout; part of the marker.
const MARKER: &str = "made-by-netpol-1";
/// How many characters 128 bits take.
const DIGITS: usize = 22;

impl ChainName {
    /// The chain that a jump from a built-in chain leads to.
    #[must_use]
    pub fn entry(prefix: &Prefix, builtin: Builtin) -> Self {
        let word = match builtin {
            Builtin::Prerouting => "GUARD",
            other => other.as_str(),
        };
        Self(format!("{prefix}-{word}"))
    }

    /// The chain that says that a table's chains of this prefix are ours.
    #[must_use]
    pub fn marker(prefix: &Prefix) -> Self {
        Self(format!("{prefix}-{MARKER}"))
    }

    pub(crate) fn of(prefix: &Prefix, kind: ChainKind, digest: [u8; 16]) -> Self {
        Self(format!("{prefix}-{}{}", kind.letter(), base62(digest)))
    }

    /// The name, if it is one that is made here.
    pub(crate) fn parse(prefix: &Prefix, name: &str) -> Option<Self> {
        let rest = name.strip_prefix(prefix.as_str())?.strip_prefix('-')?;
        let fixed = ["GUARD", "INPUT", "FORWARD", "OUTPUT", MARKER].contains(&rest);
        let made = || {
            let known = |letter| ChainKind::ALL.into_iter().any(|kind| kind.letter() == letter);
            rest.starts_with(known) && rest.get(1..).is_some_and(is_base62)
        };
        (fixed || made()).then(|| Self(name.to_owned()))
    }

    /// The direction of the program that it begins.
    pub(crate) fn direction(&self) -> Option<Direction> {
        let letter = self.0.split_once('-').and_then(|(_, rest)| rest.chars().next());
        Direction::ALL.into_iter().find(|d| letter == Some(ChainKind::Program(*d).letter()))
    }

    /// Is it named by its rules?
    pub(crate) fn has_digest(&self) -> bool {
        let rest = self.0.split_once('-').and_then(|(_, rest)| rest.get(1..));
        rest.is_some_and(is_base62)
    }

    /// Does every packet that comes here end here, unless no policy may deny it?
    pub(crate) fn is_denial(&self) -> bool {
        let rest = self.0.split_once('-').map(|(_, rest)| rest);
        rest.is_some_and(|rest| rest.starts_with(ChainKind::Denial.letter()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SetName {
    /// A set with an id, in its first version.
    pub(crate) fn of(prefix: &Prefix, kind: SetKind, family: Family, id: &[u8; 16]) -> Self {
        Self(format!("{prefix}-{}{}{}0", kind.letter(), digit(family), base62(*id)))
    }

    /// The set of (address, device) pairs that may be the source of a packet.
    pub(crate) fn guard(prefix: &Prefix, family: Family) -> Self {
        Self(format!("{prefix}-guard{}", digit(family)))
    }

    /// The set of (address, device) pairs of devices with one pod behind them.
    pub(crate) fn own(prefix: &Prefix, family: Family) -> Self {
        Self(format!("{prefix}-own{}", digit(family)))
    }

    /// The set that counts what is denied to addresses of local pods.
    pub(crate) fn denied(prefix: &Prefix, family: Family, direction: Direction) -> Self {
        Self(format!("{prefix}-denied-{direction}{}", digit(family)))
    }

    /// The same set in another version: 0 to 8.
    pub(crate) fn with_version(&self, version: u8) -> Self {
        let mut name = self.0.clone();
        name.pop();
        name.push(char::from(b'0' + version.min(9)));
        Self(name)
    }

    /// Its version.
    pub(crate) fn version(&self) -> u8 {
        self.0.bytes().last().map_or(0, |byte| byte.saturating_sub(b'0'))
    }

    /// Where the members of this set are gathered before the two are swapped.
    pub(crate) fn spare(&self) -> Self {
        if self.is_single() { Self(format!("{}-new", self.0)) } else { self.with_version(9) }
    }

    /// Is it a place where members are gathered?
    pub(crate) fn is_spare(&self) -> bool {
        self.0.ends_with("-new") || !self.is_single() && self.version() == 9
    }

    /// Is there but one set of its kind?
    pub(crate) fn is_single(&self) -> bool {
        let rest = self.0.split_once('-').map_or("", |(_, rest)| rest);
        is_single(rest)
    }

    /// The name, if it is one that is made here.
    pub(crate) fn parse(prefix: &Prefix, name: &str) -> Option<Self> {
        let rest = name.strip_prefix(prefix.as_str())?.strip_prefix('-')?;
        let made = || {
            let digits = rest.get(2..DIGITS + 2).is_some_and(is_base62);
            let kind = rest.starts_with(['p', 'n', 'c']);
            let family = rest.get(1..2).is_some_and(|digit| matches!(digit, "4" | "6"));
            let version = rest.get(DIGITS + 2..).is_some_and(|version| {
                version.len() == 1 && version.chars().all(|c| c.is_ascii_digit())
            });
            kind && family && digits && version
        };
        let spare = || rest.strip_suffix("-new").is_some_and(is_single);
        (is_single(rest) || spare() || made()).then(|| Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_single(rest: &str) -> bool {
    let word = rest.strip_suffix(['4', '6']);
    word.is_some_and(|word| ["guard", "own", "denied-ingress", "denied-egress"].contains(&word))
}

fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

macro_rules! display {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}
display!(ChainName SetName);

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

fn base62(bytes: [u8; 16]) -> String {
    let mut rest = u128::from_be_bytes(bytes);
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        let value = usize::try_from(rest % 62).unwrap_or_default();
        *digit = ALPHABET.get(value).copied().unwrap_or(b'0');
        rest /= 62;
    }
    String::from_utf8_lossy(&digits).into_owned()
}

fn is_base62(text: &str) -> bool {
    text.len() == DIGITS && text.chars().all(|c| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn foreign_names_are_not_ours() {
        let prefix = Prefix::default();
        for name in ["NP-HTTP", "NP", "NP-", "NPX-FORWARD", "NP-forward", "NP-e123", "KUBE-FORWARD"]
        {
            assert_eq!(ChainName::parse(&prefix, name), None, "{name}");
            assert_eq!(SetName::parse(&prefix, name), None, "{name}");
        }
        assert!(ChainName::parse(&prefix, "NP-made-by-netpol-1").is_some());
    }

    proptest! {
        #[test]
        fn names_fit_and_are_known_again(id: [u8; 16], other: [u8; 16], version in 0u8..9) {
            let prefix = Prefix::new("Nopq").expect("a prefix");
            for kind in ChainKind::ALL {
                let name = ChainName::of(&prefix, kind, id);
                prop_assert!(name.as_str().len() <= 28);
                prop_assert_eq!(name == ChainName::of(&prefix, kind, other), id == other);
                prop_assert_eq!(ChainName::parse(&prefix, name.as_str()), Some(name));
            }
            for kind in [SetKind::Pods, SetKind::NamedPorts, SetKind::Networks] {
                let name = SetName::of(&prefix, kind, Family::V6, &id).with_version(version);
                prop_assert!(name.as_str().len() <= 31);
                prop_assert_eq!(name.version(), version);
                prop_assert_eq!(SetName::parse(&prefix, name.as_str()), Some(name.clone()));
                prop_assert_eq!(SetName::parse(&prefix, name.spare().as_str()), Some(name.spare()));
            }
        }

        #[test]
        fn fixed_names_fit(family in prop_oneof![Just(Family::V4), Just(Family::V6)]) {
            let prefix = Prefix::new("Nopq").expect("a prefix");
            for name in [
                SetName::guard(&prefix, family),
                SetName::own(&prefix, family),
                SetName::denied(&prefix, family, Direction::Ingress),
                SetName::denied(&prefix, family, Direction::Egress),
            ] {
                prop_assert!(name.spare().as_str().len() <= 31);
                prop_assert_eq!(SetName::parse(&prefix, name.as_str()), Some(name.clone()));
                prop_assert_eq!(SetName::parse(&prefix, name.spare().as_str()), Some(name.spare()));
            }
            for builtin in Builtin::ALL {
                let name = ChainName::entry(&prefix, builtin);
                prop_assert!(name.as_str().len() <= 28);
                prop_assert_eq!(ChainName::parse(&prefix, name.as_str()), Some(name));
            }
            prop_assert!(ChainName::marker(&prefix).as_str().len() <= 28);
        }
    }
}
