//! Rules and what failed in them, in words.

use netpol_core::{Match, Peer, Pod, PortEntry, TrafficMatch};
use netpol_sim::Traffic;

/// What a rule's peers select.
pub(super) fn peers(matches: &TrafficMatch) -> String {
    match &matches.peers {
        Match::Any => "everything".to_owned(),
        Match::OneOf(peers) if peers.is_empty() => "nothing".to_owned(),
        Match::OneOf(peers) => peers.iter().map(peer).collect::<Vec<_>>().join(", or "),
    }
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Pods(selection) => selection.to_string(),
        Peer::Network(block) if block.except.is_empty() => block.cidr.to_string(),
        Peer::Network(block) => {
            let holes: Vec<_> = block.except.iter().map(ToString::to_string).collect();
            format!("{} except {}", block.cidr, holes.join(" and "))
        }
        Peer::Nodes(selector) => format!("nodes {selector}"),
        _ => "another kind of peer".to_owned(),
    }
}

/// What a rule's ports are.
pub(super) fn ports(matches: &TrafficMatch) -> String {
    match &matches.ports {
        Match::Any => "every protocol and port".to_owned(),
        Match::OneOf(entries) if entries.is_empty() => "no port".to_owned(),
        Match::OneOf(entries) => entries.iter().map(port).collect::<Vec<_>>().join(", "),
    }
}

fn port(entry: &PortEntry) -> String {
    match entry {
        PortEntry::Protocol(protocol) => format!("any {protocol} port"),
        PortEntry::Range { protocol, first, last } if first == last => {
            format!("{first}/{protocol}")
        }
        PortEntry::Range { protocol, first, last } => format!("{first}-{last}/{protocol}"),
        PortEntry::Named { protocol, name } => format!("{name}/{protocol}"),
        _ => "another kind of port".to_owned(),
    }
}

/// A pod's labels, or an end without any.
pub(super) fn labels(pod: Option<&Pod>) -> String {
    let Some(pod) = pod else { return "is no pod".to_owned() };
    let labels: Vec<_> = pod.labels().iter().map(|(k, v)| format!("{k}={v}")).collect();
    if labels.is_empty() { "has no labels".to_owned() } else { format!("has {}", labels.join(",")) }
}

/// The numbers that the destination gives to the names in a rule's ports.
pub(super) fn names(matches: &TrafficMatch, destination: Option<&Pod>) -> Option<String> {
    let Match::OneOf(entries) = &matches.ports else { return None };
    let notes: Vec<_> = entries
        .iter()
        .filter_map(|entry| {
            let PortEntry::Named { protocol, name } = entry else { return None };
            let numbers: Vec<_> = destination
                .map(Pod::ports)
                .unwrap_or_default()
                .iter()
                .filter(|port| port.name == *name && port.protocol == *protocol)
                .map(|port| port.port.to_string())
                .collect();
            Some(match (destination, numbers.is_empty()) {
                (None, _) => format!("{name} is a name, and the destination is no pod"),
                (Some(_), true) => {
                    format!("the destination has no {protocol} port called {name}")
                }
                (Some(_), false) => format!("{name} is {} there", numbers.join(" and ")),
            })
        })
        .collect();
    if notes.is_empty() { None } else { Some(notes.join("; ")) }
}

/// What is sent, as a sentence names it.
pub(super) fn traffic(traffic: Traffic) -> String {
    match traffic {
        Traffic::Icmpv6(_) => "ICMPv6".to_owned(),
        traffic => traffic.to_string(),
    }
}
