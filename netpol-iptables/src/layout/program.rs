//! From programs to chains, and from addresses to programs.

use super::rules::{cost, protocols_go_to};
use super::{Builder, add_chain, neighbor_discovery};
use crate::model::{
    Builtin, Chain, ChainName, Dimension, Element, IpProtocol, Match, Rule, SetName, SetType,
    Target,
};
use crate::name::ChainKind;
use crate::tree::{self, Side};
use netpol_core::{
    Direction, Established, Family, OtherProtocols, OwnNodeEgress, PodId, Program, ProgramId,
    Protocol, Tier, TierEnd, Verdict,
};
use netpol_host::{Comment, Denial};
use std::collections::BTreeMap;
use std::net::IpAddr;

impl Builder<'_> {
    pub(super) fn programs(&mut self) {
        let police_egress = self.options.host().policy().own_node_egress() == OwnNodeEgress::Police;
        let mut chains: BTreeMap<ProgramId, ChainName> = BTreeMap::new();
        let mut own_node: BTreeMap<ProgramId, ChainName> = BTreeMap::new();
        for (&id, program) in self.ruleset.programs() {
            let exempt = program.direction == Direction::Ingress || !police_egress;
            let own = exempt && program.denies_before_network_policies();
            if self.adjustments.closed.contains(&(self.family, id)) {
                let chain = self.closed();
                chains.insert(id, chain.clone());
                own_node.extend(own.then_some((id, chain)));
                continue;
            }
            let kind = ChainKind::Program(program.direction);
            let chain = self.program(kind, id, program, false);
            self.layout.programs.insert((self.family, chain.clone()), id);
            chains.insert(id, chain);
            if own {
                let kind = ChainKind::OwnNode(program.direction);
                own_node.insert(id, self.program(kind, id, program, true));
            }
        }
        let egress = self.dispatch(Direction::Egress, &chains, true);
        let ingress = self.dispatch(Direction::Ingress, &chains, true);
        let own_egress = if police_egress {
            egress.clone()
        } else {
            self.dispatch(Direction::Egress, &own_node, false)
        };
        let own_ingress = self.dispatch(Direction::Ingress, &own_node, false);
        let as_jump = |rule: &Rule| {
            let target = match &rule.target {
                Some(Target::Goto(chain)) => Some(Target::Jump(chain.clone())),
                other => other.clone(),
            };
            Rule { target, ..rule.clone() }
        };
        let forward = egress.iter().map(as_jump).chain(ingress).collect();
        self.entry(Builtin::Forward, forward, "between pods, and between pods and the world");
        if let Some(rule) = own_egress {
            self.entry(Builtin::Input, vec![rule], "from pods to this node");
        }
        if let Some(rule) = own_ingress {
            self.entry(Builtin::Output, vec![rule], "from this node to pods");
        }
    }

    /// The chain that denies everything but neighbor discovery.
    fn closed(&mut self) -> ChainName {
        let mut rules: Vec<Rule> = match self.family {
            Family::V4 => Vec::new(),
            Family::V6 => (133..=137).map(neighbor_discovery).collect(),
        };
        let why = "closed: the kernel refused the rules";
        let (target, comment) = (Some(Target::Drop), Comment::new(why));
        rules.push(Rule { target, comment, ..Rule::default() });
        self.add_chain(ChainKind::Closed, &[], rules, why)
    }

    /// An entry chain with these rules, and the jump to it.
    fn entry(&mut self, builtin: Builtin, mut rules: Vec<Rule>, title: &str) {
        let comment = Comment::new("netpol");
        // What belongs to a connection that was let through does not even enter (NP-60, NP-62).
        let established = match self.options.host().policy().established() {
            Established::Keep => true,
            Established::ReEvaluate => {
                // The other direction is judged again by each packet (reliability.md L3, case e). The jump cannot say this:
                // iptables-nft lets no packet match a direction that has no connection.
                rules.insert(
                    0,
                    Rule {
                        matches: vec![Match::Reply],
                        target: Some(Target::Return),
                        comment: Comment::new("replies"),
                        ..Rule::default()
                    },
                );
                false
            }
        };
        let name = ChainName::entry(self.options.prefix(), builtin);
        let jump = Rule {
            matches: vec![Match::State { negated: true, established, related: true }],
            target: Some(Target::Jump(name.clone())),
            comment,
            ..Rule::default()
        };
        self.filter.jumps.insert(builtin, jump);
        self.filter.chains.insert(name, Chain { rules, title: Comment::new(title) });
    }

    /// The rule that leads to the tree of local pods in a direction; none if no pod has a program.
    fn dispatch(
        &mut self,
        direction: Direction,
        chains: &BTreeMap<ProgramId, ChainName>,
        counts: bool,
    ) -> Option<Rule> {
        let side = match direction {
            Direction::Egress => Side::Source,
            Direction::Ingress => Side::Destination,
        };
        let mut leaves: BTreeMap<IpAddr, Vec<Rule>> = BTreeMap::new();
        for (pod, endpoint) in self.ruleset.endpoints() {
            let chain = endpoint.program(direction).and_then(|program| chains.get(&program));
            let Some(chain) = chain else { continue };
            let note = Comment::new(&pod.to_string());
            for address in self.addresses(pod) {
                let mut rules = self.pairs(side, pod, address);
                rules.push(tree::leaf(side, address, Target::Goto(chain.clone()), note.clone()));
                leaves.insert(address, rules);
            }
        }
        if counts && self.options.host().counters() {
            let name = SetName::denied(self.options.prefix(), self.family, direction);
            let elements = leaves.keys().copied().map(Element::Address).collect();
            self.add_set(name.clone(), SetType::Address, elements, "denied by pod");
            if let Some(set) = self.layout.model.sets.get_mut(&name) {
                set.counters = true;
            }
        }
        let leaves: Vec<(IpAddr, Vec<Rule>)> = leaves.into_iter().collect();
        let (first, last) = (leaves.first()?.0, leaves.last()?.0);
        let (options, filter) = (self.options, &mut self.filter);
        let mut add =
            |rules, title: &str| add_chain(options, filter, ChainKind::Dispatch, &[], rules, title);
        let root = tree::addresses(side, &leaves, &mut add);
        let title = format!("{direction} of local pods");
        let root = add(root, &title);
        let net = tree::common(first, last);
        let gate =
            if net.prefix_len() == 0 { Rule::default() } else { tree::of_network(side, net) };
        Some(Rule { target: Some(Target::Goto(root)), comment: Comment::new(&title), ..gate })
    }

    /// The rules by which a pod that no device tells apart reaches itself.
    fn pairs(&self, side: Side, pod: &PodId, address: IpAddr) -> Vec<Rule> {
        if self.known.contains(pod) {
            return Vec::new();
        }
        let pair = |other: IpAddr| {
            let comment = Comment::new("a pod and itself");
            let rule = tree::leaf(side, address, Target::Return, comment);
            match side {
                Side::Source => Rule { destination: Some(other.into()), ..rule },
                Side::Destination => Rule { source: Some(other.into()), ..rule },
            }
        };
        self.addresses(pod).map(pair).collect()
    }

    /// The chains of a program; the first one's name. For traffic with the own node the NetworkPolicy tier allows
    /// everything (NP-70), and the Baseline tier behind it is not asked (CNP-35).
    fn program(
        &mut self,
        kind: ChainKind,
        id: ProgramId,
        program: &Program,
        own_node: bool,
    ) -> ChainName {
        let blocks = program.blocks.iter();
        let blocks: Vec<_> =
            blocks.take_while(|block| !own_node || block.tier != Tier::NetworkPolicy).collect();
        let mut next: Option<ChainName> = None;
        for (at, block) in blocks.iter().enumerate().rev() {
            let policies: Vec<String> = block.policies.iter().map(ToString::to_string).collect();
            let end = match block.end {
                TierEnd::Allow => Target::Return,
                TierEnd::NextTier => next.take().map_or(Target::Return, Target::Goto),
                TierEnd::Deny => {
                    let why = format!("isolated, {}: {}", program.direction, policies.join(", "));
                    Target::Goto(self.denial(program.direction, &why, &policies.join(","), true))
                }
            };
            let mut steps = Vec::new();
            for rule in &block.rules {
                let verdict = match rule.verdict {
                    Verdict::Allow => Target::Return,
                    Verdict::Pass => end.clone(),
                    Verdict::Deny => {
                        let why = self.ruleset.describe(&rule.origin);
                        Target::Goto(self.denial(program.direction, &why, &why, false))
                    }
                };
                self.rule(program.direction, rule, &verdict, &mut steps);
            }
            if block.tier == Tier::NetworkPolicy {
                // All of them allow, so the order is free: what costs least comes first.
                steps.sort_by_key(cost);
            }
            let title = format!("{} {}: {}", block.tier, program.direction, policies.join(", "));
            let rules = self.assemble(steps, end, &title);
            let (kind, of) =
                if at == 0 { (kind, &id.as_bytes()[..]) } else { (ChainKind::Rest, &[][..]) };
            next = Some(self.add_chain(kind, of, rules, &title));
        }
        // A program has at least one block; for the own node, one that denies before the NetworkPolicy tier.
        next.unwrap_or_else(|| {
            self.add_chain(kind, id.as_bytes(), Vec::new(), "everything is allowed")
        })
    }

    /// The chain in which a denied packet ends, unless no policy may deny it.
    fn denial(
        &mut self,
        direction: Direction,
        why: &str,
        policies: &str,
        isolated: bool,
    ) -> ChainName {
        let own = SetName::own(self.options.prefix(), self.family);
        // Both ends belong to the device that it came in from.
        let lookup = |end| Match::Set(own.clone(), vec![end, Dimension::Source]);
        let itself = Rule {
            matches: vec![lookup(Dimension::Destination), lookup(Dimension::Source)],
            target: Some(Target::Return),
            comment: Comment::new("a pod and itself"),
            ..Rule::default()
        };
        let mut rules = self.refusal(direction, why, policies, isolated);
        if self.options.host().policy().other_protocols() == OtherProtocols::Allow {
            let refusal = self.add_chain(ChainKind::Denial, &[], rules, why);
            // Other protocols fall off the chain, which allows them.
            rules = protocols_go_to(&Target::Goto(refusal));
        } else if self.family == Family::V6 {
            // Each condition on a protocol walks the extension headers, so all but ICMPv6 meets one.
            let types = (133..=137).map(neighbor_discovery).chain(rules.iter().cloned()).collect();
            let types = self.add_chain(ChainKind::Denial, &[], types, why);
            let (protocol, target) = (Some(IpProtocol::Icmpv6), Some(Target::Goto(types)));
            rules.insert(0, Rule { protocol, target, ..Rule::default() });
        }
        rules.insert(0, itself);
        self.add_chain(ChainKind::Denial, &[], rules, why)
    }

    /// The end of a packet: logged, counted and gone.
    fn refusal(
        &self,
        direction: Direction,
        why: &str,
        policies: &str,
        isolated: bool,
    ) -> Vec<Rule> {
        let mut rules = Vec::new();
        if let Some(group) = self.options.host().log_group() {
            let prefix = Comment::cut(&format!("netpol deny {direction} {policies}"), 63);
            rules.push(Rule {
                matches: vec![Match::Limit { per_second: 10, burst: 20 }],
                target: Some(Target::Log { group, prefix }),
                ..Rule::default()
            });
        }
        if self.options.host().counters() {
            let pod = match direction {
                Direction::Ingress => Dimension::Destination,
                Direction::Egress => Dimension::Source,
            };
            let name = SetName::denied(self.options.prefix(), self.family, direction);
            rules.push(Rule {
                matches: vec![Match::Set(name, vec![pod])],
                comment: Comment::new("counts by pod"),
                ..Rule::default()
            });
        }
        let end = |protocol, target| Rule {
            protocol,
            target: Some(target),
            comment: Comment::new(why),
            ..Rule::default()
        };
        if isolated && self.options.host().denial() == Denial::Reject {
            let tcp = Some(IpProtocol::WithPorts(Protocol::Tcp));
            rules.push(end(tcp, Target::RejectWithReset));
            rules.push(end(None, Target::RejectAsProhibited(self.family)));
        } else {
            rules.push(end(None, Target::Drop));
        }
        rules
    }
}
