//! The model as a script for `nft -f`.
//!
//! Two forms: [`script`] is the whole ruleset in the block form that nft itself lists, for people, files and pipes;
//! [`command`] is one line of a transaction. Both are of the grammar of nft 1.0.6 (nft(8)) and later: no `destroy`, every
//! inner block ends with a newline, elements are many to a line.

use crate::command::Command;
use crate::model::{
    Action, Chain, Element, Field, IpVersion, KeyType, Match, Model, Rule, Set, TableFamily, Test,
    Value, VerdictMap,
};
use crate::model::{Hook, Name};
use netpol_core::Protocol;
use netpol_host::Comment;
use std::fmt::{self, Write as _};

/// The whole ruleset as a script. Loading it replaces the tables of this name, whatever is in them, in one transaction;
/// loading it twice is loading it once.
///
/// One transaction is atomic for the ruleset but not for a packet that is already walking it; the back end
/// ([`Nftables`](crate::Nftables)) therefore takes three.
#[must_use]
pub fn script(model: &Model) -> String {
    let mut text = String::new();
    text.push_str(
        "# Made by netpol. A chain that is reached by `goto` allows its direction with `return`.\n",
    );
    // The script must load where another version of it left tables of families that this one does not need.
    for family in TableFamily::ALL {
        if model.tables.contains_key(&family) || family != TableFamily::Netdev {
            let _ = writeln!(text, "add table {family} {}", model.name);
            let _ = writeln!(text, "delete table {family} {}", model.name);
        }
    }
    for (family, table) in &model.tables {
        let _ = writeln!(text, "table {family} {} {{", model.name);
        for (name, set) in &table.sets {
            write_set(&mut text, name, set);
        }
        for (name, chain) in &table.chains {
            write_chain(&mut text, name, chain);
        }
        for (name, map) in &table.maps {
            write_map(&mut text, name, map);
        }
        text.push_str("}\n");
    }
    text
}

/// One command as one line, without its newline.
#[must_use]
pub fn command(table: &Name, command: &Command) -> String {
    let (family, what) = (command.family(), command);
    let at = format!("{family} {table}");
    match what {
        Command::CreateTable(_) => format!("create table {at}"),
        Command::DeleteTable(_) => format!("delete table {at}"),
        Command::AddSet(_, name, set) => {
            let mut text = format!("add set {at} {name} {{ {}; ", Type(&set.key));
            if set.interval {
                text.push_str("flags interval; ");
            }
            if set.counters {
                text.push_str("counter; ");
            }
            if !set.comment.is_empty() {
                let _ = write!(text, "comment \"{}\"; ", set.comment);
            }
            text + "}"
        }
        Command::DeleteSet(_, name) => format!("delete set {at} {name}"),
        Command::AddMap(_, name, key) => {
            format!("add map {at} {name} {{ type {} : verdict; }}", key.as_str())
        }
        Command::DeleteMap(_, name) => format!("delete map {at} {name}"),
        Command::AddElements(_, name, elements) => {
            format!("add element {at} {name} {{ {} }}", List(elements))
        }
        Command::DeleteElements(_, name, elements) => {
            format!("delete element {at} {name} {{ {} }}", List(elements))
        }
        Command::AddMappings(_, name, mappings) => {
            let mappings: Vec<String> = mappings
                .iter()
                .map(|(element, chain)| format!("{} : goto {chain}", Concat(element)))
                .collect();
            format!("add element {at} {name} {{ {} }}", mappings.join(", "))
        }
        Command::AddChain(_, name, hook) => match hook {
            Some(hook) => format!("add chain {at} {name} {{ {}; }}", Attach(hook)),
            None => format!("add chain {at} {name}"),
        },
        Command::AddRule(_, name, rule) => format!("add rule {at} {name} {}", Line(rule)),
        Command::FlushChain(_, name) => format!("flush chain {at} {name}"),
        Command::DeleteChain(_, name) => format!("delete chain {at} {name}"),
    }
}

/// A rule as text, which is also what its chain's name is a digest of.
pub(crate) fn rule(rule: &Rule) -> String {
    Line(rule).to_string()
}

/// How many elements of a set stand on one line.
const ELEMENTS_PER_LINE: usize = 12;

fn write_set(text: &mut String, name: &Name, set: &Set) {
    let _ = writeln!(text, "\tset {name} {{");
    let _ = writeln!(text, "\t\t{}", Type(&set.key));
    if set.interval {
        text.push_str("\t\tflags interval\n");
    }
    if set.counters {
        text.push_str("\t\tcounter\n");
    }
    if !set.comment.is_empty() {
        let _ = writeln!(text, "\t\tcomment \"{}\"", set.comment);
    }
    if !set.elements.is_empty() {
        let elements: Vec<&Element> = set.elements.iter().collect();
        let lines: Vec<String> = elements
            .chunks(ELEMENTS_PER_LINE)
            .map(|line| {
                line.iter()
                    .map(|element| Concat(element).to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            })
            .collect();
        let _ = writeln!(text, "\t\telements = {{ {} }}", lines.join(",\n\t\t\t     "));
    }
    text.push_str("\t}\n\n");
}

fn write_map(text: &mut String, name: &Name, map: &VerdictMap) {
    let _ = writeln!(text, "\tmap {name} {{");
    let _ = writeln!(text, "\t\ttype {} : verdict", map.key.as_str());
    if !map.elements.is_empty() {
        text.push_str("\t\telements = {\n");
        for (element, chain) in &map.elements {
            let _ = write!(text, "\t\t\t{} : goto {chain},", Concat(element));
            if let Some(note) = map.notes.get(element).filter(|note| !note.is_empty()) {
                let _ = write!(text, " # {note}");
            }
            text.push('\n');
        }
        text.push_str("\t\t}\n");
    }
    text.push_str("\t}\n\n");
}

fn write_chain(text: &mut String, name: &Name, chain: &Chain) {
    if !chain.title.is_empty() {
        let _ = writeln!(text, "\t# {}", chain.title);
    }
    let _ = writeln!(text, "\tchain {name} {{");
    if let Some(hook) = &chain.hook {
        let _ = writeln!(text, "\t\t{};", Attach(hook));
    }
    for rule in &chain.rules {
        let _ = writeln!(text, "\t\t{}", Line(rule));
    }
    text.push_str("\t}\n\n");
}

struct Type<'a>(&'a [KeyType]);

impl fmt::Display for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("type ")?;
        join(f, " . ", self.0, |f, key| f.write_str(key.as_str()))
    }
}

struct Attach<'a>(&'a Hook);

impl fmt::Display for Attach<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type filter hook {}", self.0.point.as_str())?;
        if let Some(device) = &self.0.device {
            write!(f, " device \"{}\"", device.as_str())?;
        }
        write!(f, " priority {}; policy accept", self.0.priority)
    }
}

struct List<'a>(&'a [Element]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, ", ", self.0, |f, element| write!(f, "{}", Concat(element)))
    }
}

struct Concat<'a>(&'a [Value]);

impl fmt::Display for Concat<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, " . ", self.0, write_value)
    }
}

fn write_value(f: &mut fmt::Formatter<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::Address(address) => write!(f, "{address}"),
        Value::Network(net) => write!(f, "{}/{}", net.network(), net.prefix_len()),
        Value::Addresses(first, last) => write!(f, "{first}-{last}"),
        Value::Protocol(protocol) => f.write_str(protocol_word(*protocol)),
        Value::Ports(first, last) if first == last => write!(f, "{first}"),
        Value::Ports(first, last) => write!(f, "{first}-{last}"),
        Value::Icmpv6Types(first, last) if first == last => write!(f, "{first}"),
        Value::Icmpv6Types(first, last) => write!(f, "{first}-{last}"),
        Value::Device(device) => write!(f, "\"{}\"", device.as_str()),
        Value::State(state) => f.write_str(state.as_str()),
        Value::Reply => f.write_str("reply"),
    }
}

struct Line<'a>(&'a Rule);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, " ", &self.0.matches, write_match)?;
        if !self.0.matches.is_empty() && !self.0.actions.is_empty() {
            f.write_char(' ')?;
        }
        join(f, " ", &self.0.actions, write_action)?;
        if self.0.comment.is_empty() {
            return Ok(());
        }
        write!(f, " comment \"{}\"", self.0.comment)
    }
}

fn write_match(f: &mut fmt::Formatter<'_>, condition: &Match) -> fmt::Result {
    join(f, " . ", &condition.fields, |f, field| f.write_str(field_words(*field)))?;
    if let Some(mask) = condition.mask {
        write!(f, " & {mask} ==")?;
    }
    match &condition.test {
        Test::Is(value) => {
            f.write_char(' ')?;
            write_value(f, value)
        }
        // A state is a bit mask: the list is no set, and several bits are one test.
        Test::OneOf(states) if condition.fields == [Field::State] => {
            f.write_char(' ')?;
            join(f, ",", states, |f, element| write!(f, "{}", Concat(element)))
        }
        Test::OneOf(elements) => write!(f, " {{ {} }}", List(elements)),
        Test::NoneOf(elements) => write!(f, " != {{ {} }}", List(elements)),
        Test::In(set) => write!(f, " @{set}"),
    }
}

fn write_action(f: &mut fmt::Formatter<'_>, action: &Action) -> fmt::Result {
    match action {
        Action::Counter => f.write_str("counter"),
        Action::Limit { per_second, burst } => {
            write!(f, "limit rate {per_second}/second burst {burst} packets")
        }
        Action::Log { group, prefix } => write_log(f, *group, prefix),
        Action::Accept => f.write_str("accept"),
        Action::Drop => f.write_str("drop"),
        Action::Return => f.write_str("return"),
        Action::Goto(chain) => write!(f, "goto {chain}"),
        Action::Jump(chain) => write!(f, "jump {chain}"),
        Action::Dispatch(field, map) => write!(f, "{} vmap @{map}", field_words(*field)),
        Action::RejectWithReset => f.write_str("reject with tcp reset"),
        Action::RejectAsProhibited(IpVersion::V4) => {
            f.write_str("reject with icmp admin-prohibited")
        }
        Action::RejectAsProhibited(IpVersion::V6) => {
            f.write_str("reject with icmpv6 admin-prohibited")
        }
    }
}

fn write_log(f: &mut fmt::Formatter<'_>, group: u16, prefix: &Comment) -> fmt::Result {
    write!(f, "log prefix \"{prefix}\" group {group}")
}

pub(crate) fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn field_words(field: Field) -> &'static str {
    match field {
        Field::Source(IpVersion::V4) => "ip saddr",
        Field::Source(IpVersion::V6) => "ip6 saddr",
        Field::Destination(IpVersion::V4) => "ip daddr",
        Field::Destination(IpVersion::V6) => "ip6 daddr",
        Field::Protocol => "meta l4proto",
        Field::Port(Protocol::Tcp) => "tcp dport",
        Field::Port(Protocol::Udp) => "udp dport",
        Field::Port(Protocol::Sctp) => "sctp dport",
        Field::AnyPort => "th dport",
        Field::Icmpv6Type => "icmpv6 type",
        Field::InDevice => "iifname",
        Field::OutDevice => "oifname",
        Field::State => "ct state",
        Field::Direction => "ct direction",
    }
}

fn join<T>(
    f: &mut fmt::Formatter<'_>,
    separator: &str,
    items: &[T],
    mut write: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(separator)?;
        }
        write(f, item)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::State;

    #[test]
    fn states_are_one_test() {
        let state = |state| vec![Value::State(state)];
        let accept = Rule {
            matches: vec![Match {
                fields: vec![Field::State],
                mask: None,
                test: Test::OneOf(vec![state(State::Established), state(State::Related)]),
            }],
            actions: vec![Action::Accept],
            comment: Comment::default(),
        };
        assert_eq!(rule(&accept), "ct state established,related accept");
    }
}
