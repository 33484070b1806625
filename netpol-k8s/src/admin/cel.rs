//! The rules that the definitions write in CEL, and that no table of types can say.

use super::{Channel, Kind};
use crate::cidr::{Cidr, CidrError};
use crate::diagnostic::{Diagnostic, quoted};
use crate::tree::{Node, Plain, Value};
use crate::validate::Reason;

/// Every breach, with its field.
pub(super) fn check(
    kind: Kind,
    channel: Channel,
    old_peers: bool,
    object: &Node<'_>,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let spec = object.field("spec");
    for direction in ["ingress", "egress"] {
        for (i, rule) in items(spec.and_then(|spec| spec.field(direction))) {
            let field = format!("spec.{direction}[{i}]");
            if kind == Kind::Cluster {
                ranges(rule, &field, &mut found);
            }
            if !old_peers {
                networks(rule, &field, &mut found);
            }
            if direction == "egress" && channel == Channel::Experimental && !old_peers {
                named_ports(kind, rule, &field, &mut found);
            }
        }
    }
    let name = object.field("metadata").and_then(|metadata| metadata.field("name"));
    if kind == Kind::Baseline && name.and_then(Node::as_str) != Some("default") {
        let message = "the one BaselineAdminNetworkPolicy of a cluster is called `default`";
        found.push(breach("CNP-02", message, "metadata.name"));
    }
    found
}

fn breach(code: &'static str, message: impl Into<String>, field: impl Into<String>) -> Diagnostic {
    Diagnostic::error(code, message).because(Reason::Invalid).in_field(field)
}

fn items<'n, 'a>(list: Option<&'n Node<'a>>) -> impl Iterator<Item = (usize, &'n Node<'a>)> {
    let items = match list.map(|list| &list.value) {
        Some(Value::Sequence(items)) => items.as_slice(),
        _ => &[],
    };
    items.iter().enumerate()
}

/// A range must end after it begins (CNP-15).
fn ranges(rule: &Node<'_>, field: &str, found: &mut Vec<Diagnostic>) {
    for (i, entry) in items(rule.field("protocols")) {
        for protocol in ["tcp", "udp", "sctp"] {
            let port = entry.field(protocol).and_then(|ports| ports.field("destinationPort"));
            let Some(range) = port.and_then(|port| port.field("range")) else { continue };
            let number = |key| match range.field(key).map(|node| &node.value) {
                Some(Value::Plain(Plain::Int(number), _)) => Some(*number),
                _ => None,
            };
            if let (Some(start), Some(end)) = (number("start"), number("end"))
                && start >= end
            {
                let field = format!("{field}.protocols[{i}].{protocol}.destinationPort.range");
                let message = format!("`start` ({start}) must be less than `end` ({end})");
                let breach = breach("CNP-15", message, field);
                found.push(if start == end {
                    breach.with_hint(format!("one port is written `number: {start}`"))
                } else {
                    breach
                });
            }
        }
    }
}

/// Networks are CIDRs; bits beyond the prefix are accepted (CNP-17).
fn networks(rule: &Node<'_>, field: &str, found: &mut Vec<Diagnostic>) {
    for (i, peer) in items(rule.field("to")) {
        for (j, network) in items(peer.field("networks")) {
            let Some(text) = network.as_str() else { continue };
            let what = match Cidr::parse(text) {
                Ok(cidr) => match cidr.objection() {
                    None | Some(CidrError::HostBits) => continue,
                    Some(objection) => objection,
                },
                Err(error) => error,
            };
            let field = format!("{field}.to[{i}].networks[{j}]");
            found.push(breach("CNP-17", format!("{} {what}", quoted(text)), field));
        }
    }
}

/// Only pods have names for ports (CNP-16).
fn named_ports(kind: Kind, rule: &Node<'_>, field: &str, found: &mut Vec<Diagnostic>) {
    let (ports, name) = match kind {
        Kind::Cluster => ("protocols", "destinationNamedPort"),
        Kind::Admin | Kind::Baseline => ("ports", "namedPort"),
    };
    let nameless: &[&str] = match kind {
        Kind::Baseline => &["networks", "nodes"],
        Kind::Cluster | Kind::Admin => &["networks", "nodes", "domainNames"],
    };
    let named = items(rule.field(ports)).any(|(_, entry)| entry.field(name).is_some());
    let of = |peer: &Node<'_>| nameless.iter().find(|key| peer.field(key).is_some()).copied();
    let peer = items(rule.field("to")).find_map(|(_, peer)| of(peer));
    if let (true, Some(peer)) = (named, peer) {
        let message = format!(
            "a `{name}` cannot stand beside a peer of `{peer}`, which have no names for ports"
        );
        found.push(breach("CNP-16", message, field));
    }
}
