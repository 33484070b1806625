//! What the policies say about a packet, and why.

use super::{PodIndex, Side, SpecPeer, SpecRule, Specification};
use crate::machine::{Packet, Path};
use netpol_core::{Direction, OtherProtocols, OwnNodeEgress, PortEntry, Protocol, Verdict};
use std::fmt;

/// One direction of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) v6: bool,
    pub(crate) remote: Option<PodIndex>,
    pub(crate) remote_address: u128,
    pub(crate) destination: Option<PodIndex>,
    pub(crate) protocol: u8,
    pub(crate) first: u16,
    pub(crate) second: u16,
    pub(crate) own_node: bool,
}

/// What one side says, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decision<'s, 'a> {
    SamePod,
    NeighborDiscovery,
    OtherProtocol,
    OwnNode,
    Rule(&'s SpecRule<'a>, Direction),
    Isolated(&'s Side<'a>),
    NothingDenies,
}

impl Decision<'_, '_> {
    pub(crate) fn allowed(&self) -> bool {
        match self {
            Self::Rule(rule, _) => rule.verdict == Verdict::Allow,
            Self::Isolated(_) => false,
            _ => true,
        }
    }
}

impl fmt::Display for Decision<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SamePod => f.write_str("a pod always reaches itself (NP-73)"),
            Self::NeighborDiscovery => f.write_str("neighbor discovery is never policed (NP-52)"),
            Self::OtherProtocol => f.write_str("other protocols are not policed (option)"),
            Self::OwnNode => f.write_str("the other end is the pod's own node (NP-70)"),
            Self::NothingDenies => f.write_str("no policy denies it"),
            Self::Rule(rule, direction) => {
                let word = if self.allowed() { "allowed" } else { "denied" };
                write!(f, "{word} by {} {direction}[{}]", rule.policy.id(), rule.number)?;
                match rule.source {
                    Some(source) => write!(f, " ({source})"),
                    None => Ok(()),
                }
            }
            Self::Isolated(side) => {
                let names: Vec<String> =
                    side.isolating.iter().map(|policy| policy.id().to_string()).collect();
                write!(
                    f,
                    "isolated for {} by {}, and no rule of them matches",
                    side.direction,
                    names.join(", ")
                )
            }
        }
    }
}

/// What the policies say about a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Judgement {
    /// May it pass?
    pub allowed: bool,
    /// What each side that is on this node says, in words.
    pub reasons: Vec<String>,
}

impl<'a> Specification<'a> {
    /// May a packet pass that takes this way, and why?
    #[must_use]
    pub fn judge(&self, packet: &Packet, path: Path) -> Judgement {
        let owners = self.owners(packet.v6);
        let source = owners.get(&packet.source).copied();
        let destination = owners.get(&packet.destination).copied();
        let mut judgement = Judgement { allowed: true, reasons: Vec::new() };
        let local = |pod: &PodIndex| self.is_local(*pod);
        let sides = [
            (Direction::Egress, source.filter(local), destination, packet.destination),
            (Direction::Ingress, destination.filter(local), source, packet.source),
        ];
        for (direction, subject, remote, remote_address) in sides {
            let asked = match path {
                Path::Forward => true,
                Path::ToNode => direction == Direction::Egress,
                Path::FromNode => direction == Direction::Ingress,
                Path::Arrival => false,
            };
            let Some(subject) = subject.filter(|_| asked) else { continue };
            let side = self.side(subject, direction);
            let decision = self.decide(
                &side,
                &Question {
                    v6: packet.v6,
                    remote,
                    remote_address,
                    destination,
                    protocol: packet.protocol,
                    first: packet.first,
                    second: packet.second,
                    own_node: path != Path::Forward,
                },
            );
            judgement.allowed &= decision.allowed();
            let name = self.pod(subject).map(|pod| pod.id().to_string()).unwrap_or_default();
            judgement.reasons.push(format!("{direction} of {name}: {decision}"));
        }
        if judgement.reasons.is_empty() {
            judgement.reasons.push("no pod of this node is an end of it".to_owned());
        }
        judgement
    }

    /// What one side says.
    pub(crate) fn decide<'s>(&self, side: &'s Side<'a>, question: &Question) -> Decision<'s, 'a> {
        if question.remote == Some(side.subject) {
            return Decision::SamePod;
        }
        let icmpv6 = question.v6 && question.protocol == 58;
        if icmpv6 && matches!(question.first >> 8, 133..=137) {
            return Decision::NeighborDiscovery;
        }
        let other = port_protocol(question.protocol).is_none();
        if other && self.options.other_protocols() == OtherProtocols::Allow {
            return Decision::OtherProtocol;
        }
        match self.first_match(&side.admin, question) {
            Some(rule) if rule.verdict == Verdict::Pass => {}
            Some(rule) => return Decision::Rule(rule, side.direction),
            None => {}
        }
        if !side.isolating.is_empty() {
            let exempt = question.own_node
                && question.remote.is_none()
                && (side.direction == Direction::Ingress
                    || self.options.own_node_egress() == OwnNodeEgress::Allow);
            if exempt {
                return Decision::OwnNode;
            }
            return match self.first_match(&side.allowing, question) {
                Some(rule) => Decision::Rule(rule, side.direction),
                None => Decision::Isolated(side),
            };
        }
        match self.first_match(&side.baseline, question) {
            Some(rule) if rule.verdict != Verdict::Pass => Decision::Rule(rule, side.direction),
            _ => Decision::NothingDenies,
        }
    }

    fn first_match<'s>(
        &self,
        rules: &'s [SpecRule<'a>],
        question: &Question,
    ) -> Option<&'s SpecRule<'a>> {
        rules.iter().find(|rule| self.matches(rule, question))
    }

    fn matches(&self, rule: &SpecRule<'a>, question: &Question) -> bool {
        let Some(peers) = &rule.peers else { return self.port_matches(rule, true, question) };
        peers.iter().any(|peer| {
            let (remote, is_pods) = match peer {
                SpecPeer::Pods(pods) => {
                    (question.remote.is_some_and(|pod| pods.contains(pod)), true)
                }
                SpecPeer::Network(block) => {
                    (block.contains(question.v6, question.remote_address), false)
                }
            };
            remote && self.port_matches(rule, is_pods || rule.names_for_all, question)
        })
    }

    fn port_matches(&self, rule: &SpecRule<'a>, by_name: bool, question: &Question) -> bool {
        let Some(ports) = rule.ports else { return true };
        let Some(protocol) = port_protocol(question.protocol) else { return false };
        ports.iter().any(|entry| match entry {
            PortEntry::Protocol(wanted) => *wanted == protocol,
            PortEntry::Range { protocol: wanted, first, last } => {
                *wanted == protocol && *first <= question.second && question.second <= *last
            }
            PortEntry::Named { protocol: wanted, name } => {
                let pod = question.destination.and_then(|pod| self.pod(pod));
                by_name
                    && *wanted == protocol
                    && pod.is_some_and(|pod| {
                        pod.ports().iter().any(|port| {
                            port.name == *name
                                && port.protocol == protocol
                                && port.port == question.second
                        })
                    })
            }
            _ => false,
        })
    }
}

/// TCP, UDP and SCTP, by number.
fn port_protocol(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        132 => Some(Protocol::Sctp),
        _ => None,
    }
}
