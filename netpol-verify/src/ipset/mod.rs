//! `ipset save` into sets that rules of iptables look up.
//!
//! A set of which anything is not understood, and one whose members come and go, stays as that: a condition on it may hold
//! or not.

mod element;
mod lookup;

pub(crate) use lookup::Lookup;

use crate::lines::{Line, Quoting, Word, lines, words};
use crate::machine::NotUnderstood;
use element::Element;
use std::collections::{BTreeMap, BTreeSet};

/// A part of a member, which is a part of what is looked up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    /// An address or a network.
    Address,
    /// A protocol and a port, or an ICMP type and code.
    Port,
    /// A port of TCP or UDP, without its protocol (`bitmap:port`).
    BarePort,
    /// A device.
    Device,
}

/// What a set holds.
#[derive(Clone, Debug)]
enum Content {
    /// Members with these parts.
    Members { parts: &'static [Part], netmask: Option<u32>, elements: Vec<Element> },
    /// Whatever is in these sets.
    Union(Vec<String>),
}

#[derive(Clone, Debug)]
struct Set {
    /// The family of its addresses; none if it takes both.
    v6: Option<bool>,
    content: Content,
    /// Why a lookup in it is not understood.
    unknown: Option<String>,
}

/// The sets of a dump, by name.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    sets: BTreeMap<String, Set>,
    /// Those that rules change.
    changing: BTreeSet<String>,
    /// Lines that are about no set that is known.
    not_understood: Vec<NotUnderstood>,
}

/// Does a text look like the output of `ipset save`?
#[must_use]
pub fn is_listing(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| line.starts_with("create ") || line.starts_with("add "))
}

/// The parts of a type of ipset(8); none if it is not understood.
fn parts(kind: &str) -> Option<&'static [Part]> {
    use Part::{Address, BarePort, Device, Port};
    Some(match kind {
        "hash:ip" | "hash:net" | "bitmap:ip" => &[Address],
        "bitmap:port" => &[BarePort],
        "hash:ip,port" | "hash:net,port" => &[Address, Port],
        "hash:ip,port,ip" | "hash:ip,port,net" | "hash:net,port,net" => &[Address, Port, Address],
        "hash:net,net" => &[Address, Address],
        "hash:net,iface" => &[Address, Device],
        _ => return None,
    })
}

impl Sets {
    /// Reads the output of `ipset save`. `source` names the text.
    ///
    /// ```
    /// let mut sets = netpol_verify::ipset::Sets::default();
    /// sets.read("node-1.ipset", "create web hash:ip family inet hashsize 64 maxelem 64\nadd web 10.0.0.7\n");
    /// assert_eq!(sets.names().collect::<Vec<_>>(), ["web"]);
    /// ```
    pub fn read(&mut self, source: &str, text: &str) {
        for line in lines(text, Quoting::Never) {
            if line.text.starts_with('#') {
                continue;
            }
            let words = words(line.text, Quoting::Never).unwrap_or_default();
            let known = match words.as_slice() {
                [command, name, rest @ ..] if command.is("create") => self.create(name, rest),
                [command, name, rest @ ..] if command.is("add") => self.add(name, rest),
                _ => None,
            };
            if known.is_none() || line.doubtful {
                self.misread(source, line, &words);
            }
        }
    }

    /// A line that is not understood makes the sets that it names not understood, or everything if it names none.
    fn misread(&mut self, source: &str, line: Line<'_>, words: &[Word<'_>]) {
        let what = NotUnderstood::new(format!("{source} line {}", line.number), line.text);
        let mut about = false;
        for word in words.iter().skip(1) {
            if let Some(set) = self.sets.get_mut(&*word.text) {
                set.unknown.get_or_insert(what.to_string());
                about = true;
            }
        }
        if !about {
            self.not_understood.push(what);
        }
    }

    /// The names of all sets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sets.keys().map(String::as_str)
    }

    /// Lines that are about no set that is known.
    #[must_use]
    pub fn not_understood(&self) -> &[NotUnderstood] {
        &self.not_understood
    }

    /// Says that rules change the members of a set.
    pub fn changes(&mut self, name: &str) {
        self.changing.insert(name.to_owned());
    }

    fn create(&mut self, name: &Word<'_>, rest: &[Word<'_>]) -> Option<()> {
        let (kind, options) = rest.split_first()?;
        let name = name.text.to_string();
        let mut unknown = None;
        let mut netmask = None;
        let mut v6 = Some(false);
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match &*option.text {
                "family" => v6 = Some(options.next()?.is("inet6")),
                "netmask" => netmask = Some(options.next()?.text.parse().ok()?),
                "hashsize" | "maxelem" | "bucketsize" | "initval" | "range" | "size"
                | "timeout" | "probes" | "resize" => {
                    options.next()?;
                }
                "counters" | "comment" | "skbinfo" | "forceadd" | "-exist" => {}
                other => unknown = Some(format!("the option `{other}` of the set `{name}`")),
            }
        }
        let content = match (&*kind.text, parts(&kind.text)) {
            ("list:set", _) => Content::Union(Vec::new()),
            (_, Some(parts)) => Content::Members { parts, netmask, elements: Vec::new() },
            (other, None) => {
                unknown = Some(format!("the type `{other}` of the set `{name}`"));
                Content::Union(Vec::new())
            }
        };
        if matches!(&*kind.text, "list:set" | "bitmap:port") {
            v6 = None;
        }
        if let Some(twice) = self.sets.get_mut(&name) {
            twice.unknown = Some(format!("the set `{name}` is there twice"));
        } else {
            self.sets.insert(name, Set { v6, content, unknown });
        }
        Some(())
    }

    fn add(&mut self, name: &Word<'_>, rest: &[Word<'_>]) -> Option<()> {
        let set = self.sets.get_mut(&*name.text)?;
        let (member, options) = rest.split_first()?;
        if set.unknown.is_some() {
            return Some(());
        }
        let (mut excludes, mut wildcard) = (false, false);
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match &*option.text {
                "nomatch" => excludes = true,
                "wildcard" => wildcard = true,
                // A member without an end of its time stays.
                "timeout" => {
                    if !options.next()?.is("0") {
                        let name = &name.text;
                        set.unknown = Some(format!("the members of the set `{name}` come and go"));
                        return Some(());
                    }
                }
                "packets" | "bytes" | "comment" | "skbmark" | "skbprio" | "skbqueue" => {
                    options.next()?;
                }
                _ => return None,
            }
        }
        match &mut set.content {
            Content::Union(members) if !excludes => members.push(member.text.to_string()),
            Content::Union(_) => return None,
            Content::Members { parts, netmask, elements } => {
                let v6 = set.v6 == Some(true);
                let mut element = Element::parse(&member.text, parts, *netmask, v6, wildcard)?;
                element.excludes = excludes;
                elements.push(element);
            }
        }
        Some(())
    }
}
