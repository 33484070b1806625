//! From one rule of a policy to rules of a chain.

use super::{Builder, MOST_INLINE_NETWORKS};
use crate::model::{Dimension, IpProtocol, Match, Rule, SetName, Target};
use crate::name::{ChainKind, SetKind};
use crate::tree::{self, Side};
use netpol_core::{Direction, PeerMatch, PortMatch, PortSet, Protocol, Rule as PolicyRule};
use netpol_host::Comment;

/// How many numbers multiport takes; a range of several ports is two.
const MOST_PORTS: usize = 15;

/// One way in which ports can match: a protocol and ranges, or every protocol without ports.
enum Ports {
    Any,
    Some(IpProtocol, Vec<Match>),
    Named(SetName),
    OtherProtocols,
}

/// A rule, or what needs a chain of its own because iptables cannot say it in one rule.
pub(super) enum Step {
    Rule(Rule),
    /// These rules, for protocols other than TCP, UDP and SCTP.
    OtherProtocols(Vec<Rule>),
}

impl Builder<'_> {
    /// The rules of a chain with these steps and this end.
    pub(super) fn assemble(&mut self, steps: Vec<Step>, end: Target, title: &str) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        if end != Target::Return {
            rules.push(Rule { target: Some(end), ..Rule::default() });
        }
        // From the end: what follows a condition that iptables cannot say is a chain of its own.
        for step in steps.into_iter().rev() {
            match step {
                Step::Rule(rule) => rules.insert(0, rule),
                Step::OtherProtocols(others) => {
                    let rest = std::mem::take(&mut rules);
                    let rest = Target::Goto(self.add_chain(ChainKind::Rest, &[], rest, title));
                    rules = protocols_go_to(&rest);
                    rules.extend(others);
                    rules.push(Rule { target: Some(rest), ..Rule::default() });
                }
            }
        }
        rules
    }

    /// Everything that the peers and the ports of a rule can be, one rule for each.
    pub(super) fn rule(
        &self,
        direction: Direction,
        rule: &PolicyRule,
        verdict: &Target,
        steps: &mut Vec<Step>,
    ) {
        let comment = Comment::new(&self.ruleset.describe(&rule.origin));
        let peers = self.peers(direction, &rule.peers);
        let finish = |peer: &Rule| Rule {
            target: Some(verdict.clone()),
            comment: comment.clone(),
            ..peer.clone()
        };
        for ports in self.ports(&rule.ports) {
            if matches!(ports, Ports::OtherProtocols) {
                steps.push(Step::OtherProtocols(peers.iter().map(finish).collect()));
                continue;
            }
            for peer in &peers {
                let mut rule = finish(peer);
                // Compares before lookups, ports before peers (dataplane.md finding 6).
                match &ports {
                    Ports::Any | Ports::OtherProtocols => {}
                    Ports::Some(protocol, matches) => {
                        rule.protocol = Some(*protocol);
                        rule.matches.splice(0..0, matches.iter().cloned());
                    }
                    Ports::Named(set) => {
                        let lookup = Match::Set(set.clone(), vec![Dimension::Destination; 2]);
                        rule.matches.push(lookup);
                    }
                }
                steps.push(Step::Rule(rule));
            }
        }
    }

    /// A rule for each kind of peer, with nothing but the condition on the peer.
    fn peers(&self, direction: Direction, peers: &PeerMatch) -> Vec<Rule> {
        let (side, dimension) = match direction {
            Direction::Ingress => (Side::Source, Dimension::Source),
            Direction::Egress => (Side::Destination, Dimension::Destination),
        };
        let PeerMatch::OneOf { pods, networks } = peers else { return vec![Rule::default()] };
        let lookup =
            |name| Rule { matches: vec![Match::Set(name, vec![dimension])], ..Rule::default() };
        let mut rules = Vec::new();
        if let Some((id, addresses)) =
            networks.and_then(|id| Some((id, self.ruleset.net_sets().get(&id)?)))
        {
            let networks = self.networks(addresses);
            if networks.len() > MOST_INLINE_NETWORKS {
                rules.push(lookup(self.net_set_name(id)));
            } else {
                rules.extend(networks.into_iter().map(|net| match net.prefix_len() {
                    0 => Rule::default(),
                    _ => tree::of_network(side, net),
                }));
            }
        }
        let pods = pods.iter().map(|id| self.set_name(SetKind::Pods, id.as_bytes()));
        rules.extend(pods.map(lookup));
        rules
    }

    /// The kinds of ports; no entry is no port.
    fn ports(&self, ports: &PortMatch) -> Vec<Ports> {
        let mut all = numbers(&ports.numbers);
        let named = ports.named.iter().filter(|id| self.ruleset.named_port_sets().contains_key(id));
        all.extend(named.map(|id| Ports::Named(self.set_name(SetKind::NamedPorts, id.as_bytes()))));
        all
    }
}

/// Rules that only protocols with ports match.
pub(super) fn protocols_go_to(target: &Target) -> Vec<Rule> {
    let rule = |protocol| Rule {
        protocol: Some(IpProtocol::WithPorts(protocol)),
        target: Some(target.clone()),
        ..Rule::default()
    };
    Protocol::ALL.map(rule).into()
}

/// How many sets are looked up before the rule is known to match. What needs a chain of its own comes last.
pub(super) fn cost(step: &Step) -> usize {
    let is_lookup = |condition: &&Match| matches!(condition, Match::Set(..));
    match step {
        Step::Rule(rule) => rule.matches.iter().filter(is_lookup).count(),
        Step::OtherProtocols(_) => usize::MAX,
    }
}

/// The conditions for ports by number.
fn numbers(ports: &PortSet) -> Vec<Ports> {
    if ports.is_full() {
        return vec![Ports::Any];
    }
    let mut all = Vec::new();
    for protocol in Protocol::ALL {
        let of_protocol = |matches| Ports::Some(IpProtocol::WithPorts(protocol), matches);
        if ports.ports(protocol).is_full() {
            all.push(of_protocol(Vec::new()));
            continue;
        }
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        let slots = |(first, last): &(u16, u16)| if first == last { 1 } else { 2 };
        for range in ports.ports(protocol).intervals().map(|r| (*r.start(), *r.end())) {
            if ranges.iter().chain([&range]).map(slots).sum::<usize>() > MOST_PORTS {
                all.push(of_protocol(vec![Match::Ports(protocol, std::mem::take(&mut ranges))]));
            }
            ranges.push(range);
        }
        if !ranges.is_empty() {
            all.push(of_protocol(vec![Match::Ports(protocol, ranges)]));
        }
    }
    if ports.other() {
        all.push(Ports::OtherProtocols);
    }
    all
}
