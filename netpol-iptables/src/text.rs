//! The model as text for `ipset restore` and for `iptables-restore --noflush`, in the words in which `iptables-save` lists it.

use crate::model::{
    Builtin, Chain, ChainName, DevicePattern, Dimension, Element, IpProtocol, Match, Model, Rule,
    Set, SetName, SetType, Table, TableName, Target,
};
use netpol_core::{Family, Protocol};
use std::fmt::{self, Write as _};

/// All sets as text for `ipset restore`, version 7 or later. Members are gathered in a set of their own, which then takes
/// the place of the one in use: loading it twice is loading it once, and no packet meets a half-filled set.
#[must_use]
pub fn ipset(model: &Model) -> String {
    let mut text = String::from("# Made by netpol, for `ipset restore`.\n");
    for (name, set) in &model.sets {
        let _ = writeln!(text, "# {}", set.title);
        let spare = name.spare();
        for line in [create(&spare, set) + " -exist", format!("flush {spare}")] {
            text.push_str(&line);
            text.push('\n');
        }
        for element in &set.elements {
            let _ = writeln!(text, "add {spare} {element}");
        }
        let _ = writeln!(text, "{} -exist", create(name, set));
        let _ = writeln!(text, "swap {spare} {name}\ndestroy {spare}");
    }
    text
}

/// The chains of one family as text for `iptables-restore --noflush` or `ip6tables-restore --noflush`. Loading it
/// replaces the chains of these names; nothing leads to them until the jumps of [`load_script`] are made.
#[must_use]
pub fn iptables(model: &Model, family: Family) -> String {
    let mut text = String::from(
        "# Made by netpol, for `iptables-restore --noflush`. A chain that is reached by -g allows its direction with RETURN.\n",
    );
    for (&(of, name), table) in &model.tables {
        if of == family && !table.chains.is_empty() {
            write_table(&mut text, name, table);
        }
    }
    text
}

fn write_table(text: &mut String, name: TableName, table: &Table) {
    let _ = writeln!(text, "*{name}");
    for name in table.chains.keys() {
        let _ = writeln!(text, ":{name} - [0:0]");
    }
    for (name, Chain { rules, title }) in &table.chains {
        if !title.is_empty() {
            let _ = writeln!(text, "# {title}");
        }
        for rule in rules {
            if !rule.note.is_empty() {
                let _ = writeln!(text, "# {}", rule.note);
            }
            let _ = writeln!(text, "-A {name}{}", Line(rule));
        }
    }
    text.push_str("COMMIT\n");
}

/// A shell script that loads `netpol.ipset`, `netpol.v4.iptables` and `netpol.v6.iptables` from its own directory and
/// puts each jump in, first and once: what a file for `iptables-restore --noflush` cannot do by itself. Running it again
/// changes nothing. Chains and sets of another ruleset stay behind unused.
#[must_use]
pub fn load_script(model: &Model) -> String {
    let mut text = String::from(
        "#!/bin/sh\n\
         # Made by netpol: loads the rules beside this script. IPTABLES and IP6TABLES name the commands,\n\
         # such as iptables-legacy and ip6tables-legacy.\n\
         set -eu\n\
         cd \"$(dirname \"$0\")\"\n\
         IPTABLES=${IPTABLES:-iptables}\n\
         IP6TABLES=${IP6TABLES:-ip6tables}\n\
         ipset restore <netpol.ipset\n\
         \"$IPTABLES-restore\" --noflush -w 5 <netpol.v4.iptables\n\
         \"$IP6TABLES-restore\" --noflush -w 5 <netpol.v6.iptables\n\
         first() {\n\
         \tcommand=$1 table=$2 chain=$3\n\
         \tshift 3\n\
         \t\"$command\" -w 5 -t \"$table\" -C \"$chain\" \"$@\" 2>/dev/null ||\n\
         \t\t\"$command\" -w 5 -t \"$table\" -I \"$chain\" 1 \"$@\"\n\
         }\n",
    );
    for (&(family, name), table) in &model.tables {
        let command = match family {
            Family::V4 => "IPTABLES",
            Family::V6 => "IP6TABLES",
        };
        for (builtin, rule) in &table.jumps {
            let _ =
                writeln!(text, "first \"${command}\" {name} {}{}", builtin.as_str(), Line(rule));
        }
    }
    text
}

/// The command that makes an empty set for the members of this one.
pub(crate) fn create(name: &SetName, set: &Set) -> String {
    create_set(name, set.kind, set.family, set.capacity(), set.counters)
}

/// The command that makes an empty set.
pub(crate) fn create_set(
    name: &SetName,
    kind: SetType,
    family: Family,
    capacity: usize,
    counters: bool,
) -> String {
    let family = match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    let buckets = (capacity / 4).max(64);
    let counters = if counters { " counters" } else { "" };
    let kind = kind.as_str();
    format!("create {name} {kind} family {family} hashsize {buckets} maxelem {capacity}{counters}")
}

/// `-A CHAIN ...`, without its newline.
pub(crate) fn append(chain: &str, rule: &Rule) -> String {
    format!("-A {chain}{}", Line(rule))
}

/// The rule as text: a space and then its conditions and its target.
pub(crate) fn rule(rule: &Rule) -> String {
    Line(rule).to_string()
}

/// The command that puts a jump before all other rules of a built-in chain.
pub(crate) fn insert_first(builtin: Builtin, rule: &Rule) -> String {
    format!("-I {} 1{}", builtin.as_str(), Line(rule))
}

/// The command that makes a chain, or empties it.
pub(crate) fn declare(chain: &ChainName) -> String {
    format!(":{chain} - [0:0]")
}

impl fmt::Display for Element {
    /// As ipset lists it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Network(net) if net.prefix_len() == net.max_prefix_len() => {
                write!(f, "{}", net.addr())
            }
            Self::Network(net) => write!(f, "{}/{}", net.network(), net.prefix_len()),
            Self::Port(address, protocol, port) => {
                write!(f, "{address},{}:{port}", protocol_word(*protocol))
            }
            Self::Device(address, device) => write!(f, "{address},{device}"),
        }
    }
}

struct Line<'a>(&'a Rule);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        if let Some(net) = rule.source {
            write!(f, " -s {}/{}", net.network(), net.prefix_len())?;
        }
        if let Some(net) = rule.destination {
            write!(f, " -d {}/{}", net.network(), net.prefix_len())?;
        }
        match &rule.device {
            Some(DevicePattern::Is(device)) => write!(f, " -i {device}")?,
            Some(DevicePattern::StartsWith(device)) => write!(f, " -i {device}+")?,
            None => {}
        }
        match rule.protocol {
            Some(IpProtocol::WithPorts(protocol)) => write!(f, " -p {}", protocol_word(protocol))?,
            Some(IpProtocol::Icmpv6) => f.write_str(" -p ipv6-icmp")?,
            None => {}
        }
        for condition in &rule.matches {
            write_match(f, condition)?;
        }
        if !rule.comment.is_empty() {
            // The last condition: only packets that match pay for it.
            write!(f, " -m comment --comment \"{}\"", rule.comment)?;
        }
        match &rule.target {
            Some(target) => write_target(f, target),
            None => Ok(()),
        }
    }
}

fn write_match(f: &mut fmt::Formatter<'_>, condition: &Match) -> fmt::Result {
    match condition {
        Match::Ports(protocol, ranges) => write_ports(f, *protocol, ranges),
        Match::Icmpv6Type(kind) => write!(f, " -m icmp6 --icmpv6-type {kind}"),
        Match::Set(name, dimensions) => {
            write!(f, " -m set --match-set {name} ")?;
            for (at, dimension) in dimensions.iter().enumerate() {
                let word = match dimension {
                    Dimension::Source => "src",
                    Dimension::Destination => "dst",
                };
                write!(f, "{}{word}", if at > 0 { "," } else { "" })?;
            }
            Ok(())
        }
        Match::State { negated, established, related } => {
            let not = if *negated { "! " } else { "" };
            let states = match (*related, *established) {
                (true, true) => "RELATED,ESTABLISHED",
                (true, false) => "RELATED",
                _ => "ESTABLISHED",
            };
            write!(f, " -m conntrack {not}--ctstate {states}")
        }
        Match::Reply => f.write_str(" -m conntrack --ctstate ESTABLISHED --ctdir REPLY"),
        Match::Limit { per_second, burst } => {
            write!(f, " -m limit --limit {per_second}/sec --limit-burst {burst}")
        }
    }
}

fn write_ports(
    f: &mut fmt::Formatter<'_>,
    protocol: Protocol,
    ranges: &[(u16, u16)],
) -> fmt::Result {
    // multiport knows SCTP where the kernel has no match for it.
    match (protocol, ranges) {
        (Protocol::Tcp | Protocol::Udp, [_]) => {
            write!(f, " -m {} --dport ", protocol_word(protocol))?;
        }
        _ => f.write_str(" -m multiport --dports ")?,
    }
    for (at, (first, last)) in ranges.iter().enumerate() {
        let separator = if at > 0 { "," } else { "" };
        if first == last {
            write!(f, "{separator}{first}")?;
        } else {
            write!(f, "{separator}{first}:{last}")?;
        }
    }
    Ok(())
}

fn write_target(f: &mut fmt::Formatter<'_>, target: &Target) -> fmt::Result {
    match target {
        Target::Drop => f.write_str(" -j DROP"),
        Target::Return => f.write_str(" -j RETURN"),
        Target::Goto(chain) => write!(f, " -g {chain}"),
        Target::Jump(chain) => write!(f, " -j {chain}"),
        Target::Log { group, prefix } => {
            write!(f, " -j NFLOG --nflog-prefix \"{prefix}\" --nflog-group {group}")
        }
        Target::RejectWithReset => f.write_str(" -j REJECT --reject-with tcp-reset"),
        Target::RejectAsProhibited(Family::V4) => {
            f.write_str(" -j REJECT --reject-with icmp-admin-prohibited")
        }
        Target::RejectAsProhibited(Family::V6) => {
            f.write_str(" -j REJECT --reject-with icmp6-adm-prohibited")
        }
    }
}

/// The word of iptables and ipset.
pub(crate) fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}
