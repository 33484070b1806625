//! Programs as chains.

use super::dispatch::{ProgramChains, Traffic, counting_set_name};
use super::{Builder, condition};
use crate::model::{Action, Element, Field, IpVersion, Match, Name, Rule, Test, Value};
use ipnet::IpNet;
use netpol_core::{
    AddressSet, Direction, OtherProtocols, OwnNodeEgress, PeerMatch, PortMatch, PortSet, Program,
    Protocol, Rule as PolicyRule, Tier, TierEnd, Verdict,
};
use netpol_host::{Comment, Denial};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Builder<'_> {
    pub(super) fn programs(&mut self) {
        let exempt_egress = self.options.host().policy().own_node_egress() == OwnNodeEgress::Allow;
        let mut chains = ProgramChains::new();
        let mut own_node = ProgramChains::new();
        for (&id, program) in self.ruleset.programs() {
            let letter = match program.direction {
                Direction::Ingress => "i",
                Direction::Egress => "e",
            };
            chains.insert(id, self.program(&format!("{letter}_{id}"), program, false));
            let exempt = program.direction == Direction::Ingress || exempt_egress;
            if exempt && program.denies_before_network_policies() {
                own_node.insert(id, self.program(&format!("o{letter}_{id}"), program, true));
            }
        }
        for direction in Direction::ALL {
            self.dispatch(Traffic::Through, direction, &chains);
            if self.options.host().counters() {
                self.counting_set(direction, &chains);
            }
            if direction == Direction::Ingress || exempt_egress {
                self.dispatch(Traffic::OwnNode, direction, &own_node);
            }
        }
    }

    /// The chains of a program; the first one's name. For traffic with the own node the NetworkPolicy tier allows
    /// everything (NP-70), and the Baseline tier behind it is not asked (CNP-35).
    fn program(&mut self, prefix: &str, program: &Program, own_node: bool) -> Name {
        let blocks = program.blocks.iter();
        let blocks: Vec<_> =
            blocks.take_while(|block| !own_node || block.tier != Tier::NetworkPolicy).collect();
        let mut next: Option<Name> = None;
        for (at, block) in blocks.iter().enumerate().rev() {
            let end = match block.end {
                TierEnd::Allow => Action::Return,
                TierEnd::NextTier => next.take().map_or(Action::Return, Action::Goto),
                TierEnd::Deny => {
                    let policies: Vec<String> =
                        block.policies.iter().map(ToString::to_string).collect();
                    let why = format!("isolated, {}: {}", program.direction, policies.join(", "));
                    Action::Goto(self.denial(program.direction, &why, &policies.join(","), true))
                }
            };
            let mut rules = Vec::new();
            for rule in &block.rules {
                let verdict = match rule.verdict {
                    Verdict::Allow => Action::Return,
                    Verdict::Pass => end.clone(),
                    Verdict::Deny => {
                        let why = self.ruleset.describe(&rule.origin);
                        Action::Goto(self.denial(program.direction, &why, &why, false))
                    }
                };
                self.rule(program.direction, rule, &verdict, &mut rules);
            }
            if block.tier == Tier::NetworkPolicy {
                // All of them allow, so the order is free: what costs least comes first.
                rules.sort_by_key(cost);
            }
            if end != Action::Return {
                rules.push(Rule { actions: vec![end], ..Rule::default() });
            }
            let policies: Vec<String> = block.policies.iter().map(ToString::to_string).collect();
            let title = format!("{} {}: {}", block.tier, program.direction, policies.join(", "));
            let prefix = if at == 0 { prefix } else { "t" };
            next = Some(self.add_chain(prefix, None, rules, &title));
        }
        // A program has at least one block; for the own node, one that denies before the NetworkPolicy tier.
        next.unwrap_or_else(|| self.add_chain(prefix, None, Vec::new(), "everything is allowed"))
    }

    /// Everything that the peers and the ports of a rule can be, one rule for each.
    fn rule(
        &self,
        direction: Direction,
        rule: &PolicyRule,
        verdict: &Action,
        rules: &mut Vec<Rule>,
    ) {
        let comment = Comment::new(&self.ruleset.describe(&rule.origin));
        let peers = self.peers(direction, &rule.peers);
        for ports in self.ports(&rule.ports) {
            for peer in &peers {
                // Compares before lookups, ports before peers (dataplane.md finding 6).
                let mut matches: Vec<Match> = ports.iter().chain(peer).cloned().collect();
                matches.sort_by_key(|condition| matches!(condition.test, Test::In(_)));
                let (actions, comment) = (vec![verdict.clone()], comment.clone());
                rules.push(Rule { matches, actions, comment });
            }
        }
    }

    /// The conditions of each kind of peer; none is no condition, no entry is no peer.
    fn peers(&self, direction: Direction, peers: &PeerMatch) -> Vec<Option<Match>> {
        let field = match direction {
            Direction::Ingress => Field::Source(self.version),
            Direction::Egress => Field::Destination(self.version),
        };
        let test = |test, mask| Some(Match { fields: vec![field], mask, test });
        let PeerMatch::OneOf { pods, networks } = peers else { return vec![None] };
        let mut matches = Vec::new();
        if let Some((id, addresses)) =
            networks.and_then(|id| Some((id, self.ruleset.net_sets().get(&id)?)))
        {
            let sets = self.net_sets(id, addresses);
            if sets.is_empty() {
                matches.extend(self.networks(addresses).into_iter().map(
                    |net| match net.prefix_len() {
                        0 => None,
                        length if length == net.max_prefix_len() => {
                            test(Test::Is(Value::Address(net.addr())), None)
                        }
                        _ => test(Test::Is(Value::Network(net)), None),
                    },
                ));
            }
            for (name, elements) in sets {
                let length = self.prefix_length(&name, addresses, &elements);
                matches.push(test(Test::In(name), length.and_then(|length| self.mask(length))));
            }
        }
        matches
            .extend(pods.iter().map(|id| test(Test::In(Name::made(format_args!("p_{id}"))), None)));
        matches
    }

    /// The prefix length of a set of networks of one length; none for an interval set.
    fn prefix_length(
        &self,
        name: &Name,
        addresses: &AddressSet,
        elements: &BTreeSet<Element>,
    ) -> Option<u8> {
        let interval = elements.iter().flatten().any(|v| matches!(v, Value::Addresses(..)));
        if interval {
            return None;
        }
        let lengths = self.networks(addresses).into_iter().map(|net| net.prefix_len());
        lengths.into_iter().find(|length| name.as_str().ends_with(&format!("_{length}")))
    }

    /// The mask of a prefix length; none if it is the whole address.
    fn mask(&self, length: u8) -> Option<IpAddr> {
        let host: IpAddr = match self.version {
            IpVersion::V4 => Ipv4Addr::UNSPECIFIED.into(),
            IpVersion::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let net = IpNet::new(host, length).ok()?;
        (length < net.max_prefix_len()).then(|| net.netmask())
    }

    /// The conditions of each kind of port; an empty list is no condition, no entry is no port.
    fn ports(&self, ports: &PortMatch) -> Vec<Vec<Match>> {
        let mut matches = number_matches(&ports.numbers);
        for id in &ports.named {
            let Some(set) = self.ruleset.named_port_sets().get(id) else { continue };
            matches.push(vec![Match {
                fields: vec![Field::Destination(self.version), Field::Port(set.protocol)],
                mask: None,
                test: Test::In(Name::made(format_args!("n_{id}"))),
            }]);
        }
        matches
    }

    /// The chain in which a denied packet ends, unless no policy may deny it.
    fn denial(&mut self, direction: Direction, why: &str, policies: &str, isolated: bool) -> Name {
        let mut rules = vec![Rule {
            matches: vec![Match {
                fields: vec![Field::Source(self.version), Field::Destination(self.version)],
                mask: None,
                test: Test::In(Name::made("self")),
            }],
            actions: vec![Action::Return],
            comment: Comment::new("a pod and itself"),
        }];
        let passes = |condition: Match, comment: &str| Rule {
            matches: vec![condition],
            actions: vec![Action::Return],
            comment: Comment::new(comment),
        };
        if self.options.host().policy().other_protocols() == OtherProtocols::Allow {
            let protocols = Protocol::ALL.map(|protocol| vec![Value::Protocol(protocol)]).into();
            let other = condition(Field::Protocol, Test::NoneOf(protocols));
            rules.push(passes(other, "other protocols"));
        } else if self.version == IpVersion::V6 {
            let types = Test::Is(Value::Icmpv6Types(133, 137));
            rules.push(passes(condition(Field::Icmpv6Type, types), "neighbor discovery"));
        }
        if let Some(group) = self.options.host().log_group() {
            // nfnetlink_log takes 127 bytes; the last is a space before the packet.
            let text = format!("netpol deny {direction} {policies}");
            let prefix = Comment::cut(&text, 120);
            let limit = Action::Limit { per_second: 10, burst: 20 };
            let actions = vec![limit, Action::Log { group, prefix }];
            rules.push(Rule { actions, ..Rule::default() });
        }
        let counter = self.options.host().counters().then_some(Action::Counter);
        if self.options.host().counters() {
            let pod = match direction {
                Direction::Ingress => Field::Destination(self.version),
                Direction::Egress => Field::Source(self.version),
            };
            let counts = Test::In(Name::made(counting_set_name(direction)));
            let (matches, actions) = (vec![condition(pod, counts)], Vec::new());
            rules.push(Rule { matches, actions, comment: Comment::new("counts by pod") });
        }
        let comment = Comment::new(why);
        let mut end = |matches, action| {
            let actions = counter.iter().cloned().chain([action]).collect();
            rules.push(Rule { matches, actions, comment: comment.clone() });
        };
        if isolated && self.options.host().denial() == Denial::Reject {
            let tcp = condition(Field::Protocol, Test::Is(Value::Protocol(Protocol::Tcp)));
            end(vec![tcp], Action::RejectWithReset);
            end(Vec::new(), Action::RejectAsProhibited(self.version));
        } else {
            end(Vec::new(), Action::Drop);
        }
        self.add_chain("x", None, rules, why)
    }
}

/// How many sets are looked up before the rule is known to match.
fn cost(rule: &Rule) -> usize {
    let lookup = |condition: &&Match| matches!(condition.test, Test::In(_));
    rule.matches.iter().filter(lookup).count()
}

/// The conditions for ports by number: at most two alternatives, each at most one condition.
fn number_matches(ports: &PortSet) -> Vec<Vec<Match>> {
    if ports.is_full() {
        return vec![Vec::new()];
    }
    let mut matches = Vec::new();
    if ports.other() {
        let protocols = Protocol::ALL.map(|protocol| vec![Value::Protocol(protocol)]).into();
        matches.push(vec![condition(Field::Protocol, Test::NoneOf(protocols))]);
    }
    let used: Vec<Protocol> =
        Protocol::ALL.into_iter().filter(|p| !ports.ports(*p).is_empty()).collect();
    let ranges = |protocol| ports.ports(protocol).intervals();
    let port = |protocol| {
        ranges(protocol).map(|range| Value::Ports(*range.start(), *range.end())).collect::<Vec<_>>()
    };
    let whole = |protocol: &Protocol| ports.ports(*protocol).is_full();
    let number = match used.as_slice() {
        [] => return matches,
        [one] if whole(one) => condition(Field::Protocol, Test::Is(Value::Protocol(*one))),
        [one] => {
            let mut values = port(*one);
            let test = match (values.pop(), values.is_empty()) {
                (Some(single), true) => Test::Is(single),
                (last, _) => Test::OneOf(values.into_iter().chain(last).map(|v| vec![v]).collect()),
            };
            condition(Field::Port(*one), test)
        }
        several if several.iter().all(whole) => {
            let protocols = several.iter().map(|p| vec![Value::Protocol(*p)]).collect();
            condition(Field::Protocol, Test::OneOf(protocols))
        }
        several => {
            let pairs = several.iter().flat_map(|&protocol| {
                port(protocol).into_iter().map(move |port| vec![Value::Protocol(protocol), port])
            });
            let fields = vec![Field::Protocol, Field::AnyPort];
            Match { fields, mask: None, test: Test::OneOf(pairs.collect()) }
        }
    };
    matches.push(vec![number]);
    matches
}
