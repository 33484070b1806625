//! The words of a rule: iptables(8), iptables-extensions(8).

use super::condition::{Draft, Tracking, port, ports, within};
use super::{Reader, value};
use crate::ipset::Lookup;
use crate::lines::Word;
use crate::machine::{Condition, ConnState, ElementSet, Field, Range};
use crate::nft::{icmp_type, icmpv6_type, protocol_number};
use std::sync::Arc;

/// Words from which on something else begins.
const STARTS: [&str; 26] = [
    "-m",
    "--match",
    "-j",
    "--jump",
    "-g",
    "--goto",
    "-s",
    "--source",
    "--src",
    "-d",
    "--destination",
    "--dst",
    "-i",
    "--in-interface",
    "-o",
    "--out-interface",
    "-p",
    "--protocol",
    "--proto",
    "-f",
    "--fragment",
    "-c",
    "--set-counters",
    "-4",
    "-6",
    "--",
];
/// What begins behind the options of a module that is not known: nothing else can be told from its options.
const MODULE_STARTS: [&str; 6] = ["-m", "--match", "-j", "--jump", "-g", "--goto"];

/// The words that are left of a rule.
pub(super) struct Cursor<'w> {
    words: &'w [Word<'w>],
}

impl<'w> Cursor<'w> {
    pub(super) fn next(&mut self) -> Option<&'w Word<'w>> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    /// The words up to the next of these.
    fn until(&mut self, starts: &[&str]) -> &'w [Word<'w>] {
        let is_start = |word: &Word<'_>| starts.iter().any(|start| word.is(start));
        let end = self.words.iter().position(is_start).unwrap_or(self.words.len());
        let (taken, rest) = self.words.split_at(end);
        self.words = rest;
        taken
    }

    /// The next option of a module, and whether `!` stands before it; none where something else begins.
    fn option(&mut self) -> Option<(&'w str, bool)> {
        let (negated, at) = match self.words {
            [not, option, ..] if not.is("!") => (true, option),
            [option, ..] => (false, option),
            [] => return None,
        };
        if at.quoted || STARTS.iter().any(|start| at.is(start)) {
            return None;
        }
        self.next();
        if negated {
            self.next();
        }
        Some((&at.text, negated))
    }

    pub(super) fn rest(&mut self) -> &'w [Word<'w>] {
        std::mem::take(&mut self.words)
    }
}

pub(super) fn text_of(words: &[Word<'_>]) -> String {
    let words: Vec<&str> = words.iter().map(|word| &*word.text).collect();
    words.join(" ")
}

impl Reader<'_> {
    /// Reads the words of a rule.
    pub(super) fn words(&mut self, words: &[Word<'_>], draft: &mut Draft<'_>) {
        let mut cursor = Cursor { words };
        let mut negated = false;
        while let Some(word) = cursor.next() {
            if word.is("!") && !negated {
                negated = true;
                continue;
            }
            let not = std::mem::take(&mut negated);
            if word.quoted || self.word(&word.text, not, &mut cursor, draft).is_none() {
                // Nothing can be said of the rest of the rule.
                let rest = text_of(cursor.rest());
                draft.opaque(format!("{} {rest}", word.text));
            }
        }
        if negated {
            draft.opaque("a rule that ends with !");
        }
    }

    /// Reads one of the words that every rule can have.
    fn word(
        &mut self,
        word: &str,
        not: bool,
        cursor: &mut Cursor<'_>,
        draft: &mut Draft<'_>,
    ) -> Option<()> {
        let v6 = draft.v6;
        match word {
            "-s" | "--source" | "--src" => {
                addresses(Field::Source, &cursor.next()?.text, not, draft);
            }
            "-d" | "--destination" | "--dst" => {
                addresses(Field::Destination, &cursor.next()?.text, not, draft);
            }
            "-i" | "--in-interface" => device(Field::InDevice, &cursor.next()?.text, not, draft),
            "-o" | "--out-interface" => device(Field::OutDevice, &cursor.next()?.text, not, draft),
            "-p" | "--protocol" | "--proto" => protocol(&cursor.next()?.text, not, draft),
            // Packets are whole.
            "-f" | "--fragment" if !v6 => {
                draft.within(Field::Version, Vec::new(), not);
            }
            "-4" if !v6 && !not => {}
            "-6" if v6 && !not => {}
            "-c" | "--set-counters" if !not => {
                cursor.next()?;
                cursor.next()?;
            }
            "-m" | "--match" if !not => {
                let module = cursor.next()?;
                self.module(&module.text, cursor, draft);
            }
            "-j" | "--jump" if !not => {
                let name = cursor.next()?;
                self.target(name, cursor.rest(), draft);
            }
            "-g" | "--goto" if !not => {
                let name = cursor.next()?;
                match (self.jump(name, true), cursor.rest()) {
                    (Some(verdict), []) => {
                        draft.effect.push(crate::machine::Step::Verdict(verdict));
                    }
                    (_, rest) => draft.opaque(format!("-g {} {}", name.text, text_of(rest))),
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Reads the options of a module.
    fn module(&mut self, module: &str, cursor: &mut Cursor<'_>, draft: &mut Draft<'_>) {
        let before = cursor.words;
        let known = match module {
            "comment" => comment(cursor, draft),
            "conntrack" | "state" => tracking(module, cursor, draft),
            "mark" => mark(cursor, draft),
            "set" => self.set(cursor, draft),
            "tcp" => has_ports(6, cursor, draft),
            "udp" => has_ports(17, cursor, draft),
            "dccp" => has_ports(33, cursor, draft),
            "sctp" => has_ports(132, cursor, draft),
            "udplite" => has_ports(136, cursor, draft),
            "multiport" => multiport(cursor, draft),
            "iprange" => ranges(cursor, draft),
            "icmp" => icmp(1, cursor, draft),
            "icmp6" => icmp(58, cursor, draft),
            "limit" | "hashlimit" | "statistic" | "connlimit" | "quota" => {
                let options = text_of(cursor.until(&MODULE_STARTS));
                draft.free(format!("{module} {options}"));
                Some(())
            }
            // Counts, and is always fulfilled.
            "nfacct" => {
                cursor.until(&MODULE_STARTS);
                Some(())
            }
            _ => None,
        };
        if known.is_none() {
            cursor.words = before;
            cursor.until(&MODULE_STARTS);
            let taken = before.len() - cursor.words.len();
            let options = text_of(before.get(..taken).unwrap_or_default());
            draft.unknown_match(format!("-m {module} {options}"));
        }
    }

    fn set(&mut self, cursor: &mut Cursor<'_>, draft: &mut Draft<'_>) -> Option<()> {
        let mut asked: Option<(String, Vec<bool>, bool)> = None;
        let mut other = Vec::new();
        while let Some((option, not)) = cursor.option() {
            match option {
                "--match-set" | "--set" if asked.is_none() => {
                    let name = cursor.next()?.text.to_string();
                    let directions = cursor.next()?.text.split(',').map(|word| match word {
                        "src" => Some(true),
                        "dst" => Some(false),
                        _ => None,
                    });
                    asked = Some((name, directions.collect::<Option<_>>()?, not));
                }
                "--update-counters" | "--update-subcounters" => {}
                "--packets-eq" | "--packets-lt" | "--packets-gt" | "--bytes-eq" | "--bytes-lt"
                | "--bytes-gt" => {
                    other.push(format!("{option} {}", cursor.next()?.text));
                }
                _ => return None,
            }
        }
        let (name, sources, not) = asked?;
        if !other.is_empty() {
            // How often it was looked up decides, whether or not it is in the set.
            draft.unknown_match(format!("--match-set {name} {}", other.join(" ")));
            return Some(());
        }
        let (sets, v6) = (self.sets, draft.v6);
        let key = (name, sources);
        if !self.lookups.contains_key(&key) {
            let found = match sets.lookup(&key.0, &key.1, v6) {
                Lookup::Any(all) => Ok(all),
                Lookup::Unknown(why) => Err(why),
            };
            self.lookups.insert(key.clone(), found);
        }
        match self.lookups.get(&key)? {
            Ok(all) => {
                let found = all.iter();
                let conditions: Vec<Condition> =
                    found.map(|(key, set)| Condition::new(key.clone(), Arc::clone(set))).collect();
                match (conditions.as_slice(), not) {
                    ([], false) => draft.within(Field::Version, Vec::new(), false),
                    (conditions, not) => draft.any(conditions, not),
                }
            }
            Err(why) => draft.unknown_match(why.clone()),
        }
        Some(())
    }
}

fn addresses(field: Field, text: &str, not: bool, draft: &mut Draft<'_>) {
    let ranges: Option<Vec<Range>> =
        text.split(',').map(|one| value::network(one, draft.v6)).collect();
    match ranges {
        // With several, `!` means each of them.
        Some(ranges) if !not || ranges.len() == 1 => draft.within(field, ranges, not),
        _ => draft.unknown_match(format!("an address {text}")),
    }
}

fn device(field: Field, text: &str, not: bool, draft: &mut Draft<'_>) {
    match value::device(text) {
        Some(range) => draft.within(field, vec![range], not),
        None => draft.unknown_match(format!("a device {text}")),
    }
}

fn protocol(text: &str, not: bool, draft: &mut Draft<'_>) {
    let number = text.parse::<u8>().ok().or_else(|| protocol_number(text));
    match number {
        _ if text == "all" && !not => {}
        // Number 0 stands for all of them.
        Some(0) if !not => {}
        Some(number) if number != 0 => {
            draft.protocol = (!not).then_some(number);
            draft.within(Field::Protocol, vec![Range::one(number)], not);
        }
        _ => draft.unknown_match(format!("-p {text}")),
    }
}

fn comment(cursor: &mut Cursor<'_>, draft: &mut Draft<'_>) -> Option<()> {
    while let Some((option, not)) = cursor.option() {
        if option != "--comment" || not {
            return None;
        }
        draft.comment.push(cursor.next()?.text.to_string());
    }
    Some(())
}

fn tracking(module: &str, cursor: &mut Cursor<'_>, draft: &mut Draft<'_>) -> Option<()> {
    let before = cursor.words;
    let mut tracking = Tracking::default();
    while let Some((option, not)) = cursor.option() {
        match (module, option) {
            ("conntrack", "--ctstate") | ("state", "--state") if tracking.states.is_none() => {
                let mut states = Vec::new();
                for word in cursor.next()?.text.split(',') {
                    match ConnState::parse(word) {
                        Some(state) => states.push(state),
                        None if matches!(word, "SNAT" | "DNAT") => tracking.translated = true,
                        None => return None,
                    }
                }
                tracking.states = Some((states, not));
            }
            ("conntrack", "--ctdir") if !not => {
                tracking.reply = Some(match &*cursor.next()?.text {
                    "ORIGINAL" => false,
                    "REPLY" => true,
                    _ => return None,
                });
            }
            (
                "conntrack",
                "--ctproto" | "--ctorigsrc" | "--ctorigdst" | "--ctreplsrc" | "--ctrepldst"
                | "--ctorigsrcport" | "--ctorigdstport" | "--ctreplsrcport" | "--ctrepldstport"
                | "--ctstatus" | "--ctexpire",
            ) => {
                tracking.other = true;
                cursor.next()?;
            }
            _ => return None,
        }
    }
    let taken = before.len() - cursor.words.len();
    let text = text_of(before.get(..taken).unwrap_or_default());
    tracking.add_to(draft, &format!("-m {module} {text}"));
    Some(())
}

fn mark(cursor: &mut Cursor<'_>, draft: &mut Draft<'_>) -> Option<()> {
    let mut found = Vec::new();
    while let Some((option, not)) = cursor.option() {
        if option != "--mark" {
            return None;
        }
        let (value, mask) = value::masked(&cursor.next()?.text)?;
        let marks = Arc::new(ElementSet::of(vec![Range::one(value)]));
        let condition = Condition::of_mark(mask, marks);
        found.push(if not { condition.negate() } else { condition });
    }
    draft.all(found);
    Some(())
}

/// The options of a protocol with ports.
fn has_ports(number: u8, cursor: &mut Cursor<'_>, draft: &mut Draft<'_>) -> Option<()> {
    let mut found = Vec::new();
    let mut unknown = Vec::new();
    while let Some((option, not)) = cursor.option() {
        let arguments = match option {
            "--sport" | "--source-port" => {
                found.push(port(Field::First, &cursor.next()?.text, not)?);
                continue;
            }
            "--dport" | "--destination-port" => {
                found.push(port(Field::Second, &cursor.next()?.text, not)?);
                continue;
            }
            "--syn" => 0,
            "--tcp-option" | "--dccp-types" | "--dccp-option" => 1,
            "--tcp-flags" | "--chunk-types" => 2,
            _ => return None,
        };
        unknown.push(option);
        for _ in 0..arguments {
            cursor.next()?;
        }
    }
    if draft.protocol != Some(number) {
        return None;
    }
    draft.all(found);
    unknown.into_iter().for_each(|option| draft.unknown_match(option));
    Some(())
}

fn multiport(cursor: &mut Cursor<'_>, draft: &mut Draft<'_>) -> Option<()> {
    let mut found = Vec::new();
    while let Some((option, not)) = cursor.option() {
        let fields = match option {
            "--sports" | "--source-ports" => &[Field::First][..],
            "--dports" | "--destination-ports" => &[Field::Second],
            "--ports" => &[Field::First, Field::Second],
            _ => return None,
        };
        let ranges = ports(&cursor.next()?.text)?;
        let all = fields.iter().map(|field| within(*field, ranges.clone(), false));
        found.push((all.collect::<Vec<_>>(), not));
    }
    if !matches!(draft.protocol, Some(6 | 17 | 33 | 132 | 136)) {
        return None;
    }
    found.into_iter().for_each(|(all, not)| draft.any(&all, not));
    Some(())
}

fn ranges(cursor: &mut Cursor<'_>, draft: &mut Draft<'_>) -> Option<()> {
    let mut found = Vec::new();
    while let Some((option, not)) = cursor.option() {
        let field = match option {
            "--src-range" => Field::Source,
            "--dst-range" => Field::Destination,
            _ => return None,
        };
        let range = value::addresses(&cursor.next()?.text, draft.v6)?;
        found.push(within(field, vec![range], not));
    }
    draft.all(found);
    Some(())
}

fn icmp(number: u8, cursor: &mut Cursor<'_>, draft: &mut Draft<'_>) -> Option<()> {
    let mut found = Vec::new();
    while let Some((option, not)) = cursor.option() {
        let (name, word): (_, fn(&str) -> Option<u8>) = match number {
            1 => ("--icmp-type", icmp_type),
            _ => ("--icmpv6-type", icmpv6_type),
        };
        if option != name {
            return None;
        }
        let text = &*cursor.next()?.text;
        let range = match text {
            // Whatever the code.
            "any" if number == 1 => Range::new(0u16, u16::MAX),
            text if number == 1 && text.split('/').next() == Some("255") => {
                Range::new(0u16, u16::MAX)
            }
            text => value::icmp(text, word)?,
        };
        found.push(Condition::new(vec![Field::First], Arc::new(ElementSet::of(vec![range]))));
        if not {
            found = found.into_iter().map(Condition::negate).collect();
        }
    }
    if draft.protocol != Some(number) || found.len() != 1 {
        return None;
    }
    draft.all(found);
    Some(())
}
