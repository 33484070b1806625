//! Programs run for all ports at once: which ports does a program allow, given which of its peers match?

use super::port_sets::{PortSetId, PortSets};
use netpol_core::{
    PeerMatch, PortSet, Program, ProgramId, Protocol, Ruleset, Tier, TierEnd, Verdict,
};
use std::collections::{BTreeMap, HashMap};

/// The sets of a ruleset by position instead of by id.
pub(super) struct Positions {
    pub(super) pod_sets: HashMap<netpol_core::PodSetId, u32>,
    pub(super) net_sets: HashMap<netpol_core::NetSetId, u32>,
    pub(super) named_port_sets: HashMap<netpol_core::NamedPortSetId, (u32, Protocol)>,
}

impl Positions {
    pub(super) fn new(ruleset: &Ruleset) -> Self {
        Self {
            pod_sets: ruleset.pod_sets().keys().copied().zip(0..).collect(),
            net_sets: ruleset.net_sets().keys().copied().zip(0..).collect(),
            named_port_sets: (0..)
                .zip(ruleset.named_port_sets())
                .map(|(position, (&id, set))| (id, (position, set.protocol)))
                .collect(),
        }
    }
}

/// A program whose distinct peer lists are numbered.
pub(super) struct CompactProgram {
    pub(super) peers: Vec<CompactPeers>,
    blocks: Vec<(Vec<CompactRule>, TierEnd)>,
    /// Does any rule look at networks, so that the answer depends on the remote address?
    pub(super) looks_at_networks: bool,
    /// Does any rule look at named ports, so that the answer depends on the destination pod?
    pub(super) looks_at_names: bool,
    /// What was found before, by the peers that match and the named ports of the destination.
    answers: BTreeMap<(u128, u32), PortSetId>,
}

/// The remote ends that a rule matches.
#[derive(PartialEq)]
pub(super) enum CompactPeers {
    Any,
    OneOf { pods: Vec<u32>, networks: Option<u32> },
}

struct CompactRule {
    peers: usize,
    numbers: PortSet,
    named: Vec<(u32, Protocol)>,
    verdict: Verdict,
}

impl CompactProgram {
    pub(super) fn new(program: &Program, positions: &Positions) -> Self {
        let mut peers: Vec<CompactPeers> = Vec::new();
        let mut compact_rule = |rule: &netpol_core::Rule| {
            let wanted = match &rule.peers {
                PeerMatch::Any => CompactPeers::Any,
                PeerMatch::OneOf { pods, networks } => CompactPeers::OneOf {
                    pods: pods
                        .iter()
                        .filter_map(|id| positions.pod_sets.get(id))
                        .copied()
                        .collect(),
                    networks: networks.and_then(|id| positions.net_sets.get(&id).copied()),
                },
            };
            let known = peers.iter().position(|known| *known == wanted).unwrap_or_else(|| {
                peers.push(wanted);
                peers.len() - 1
            });
            let named = rule.ports.named.iter();
            CompactRule {
                peers: known,
                numbers: rule.ports.numbers.clone(),
                named: named.filter_map(|id| positions.named_port_sets.get(id)).copied().collect(),
                verdict: rule.verdict,
            }
        };
        let blocks: Vec<_> = program
            .blocks
            .iter()
            .map(|block| {
                let mut rules: Vec<_> = block.rules.iter().map(&mut compact_rule).collect();
                if block.tier == Tier::NetworkPolicy {
                    // All allow, so order means nothing; alike rules of many policies need one look.
                    rules.dedup_by(|a, b| {
                        (a.peers, &a.numbers, &a.named) == (b.peers, &b.numbers, &b.named)
                    });
                }
                (rules, block.end)
            })
            .collect();
        let looks_at_networks =
            peers.iter().any(|p| matches!(p, CompactPeers::OneOf { networks: Some(_), .. }));
        let looks_at_names =
            blocks.iter().any(|(rules, _)| rules.iter().any(|rule| !rule.named.is_empty()));
        Self { peers, blocks, looks_at_networks, looks_at_names, answers: BTreeMap::new() }
    }

    /// The positions of the sets of networks that rules look at.
    pub(super) fn networks(&self) -> impl Iterator<Item = u32> {
        self.peers.iter().filter_map(|peers| match peers {
            CompactPeers::OneOf { networks, .. } => *networks,
            CompactPeers::Any => None,
        })
    }

    /// The ports that the program allows when `peer_matches` says which of `peers` match and `named` lists the numbers that
    /// the destination gives to the names in each named-port set; `names` identifies that list.
    pub(super) fn allowed(
        &mut self,
        peer_matches: impl Fn(&CompactPeers) -> bool,
        named: &[(u32, u16)],
        names: u32,
        sets: &mut PortSets,
    ) -> PortSetId {
        let names = if self.looks_at_names { names } else { 0 };
        if self.peers.len() > 128 {
            let matching: Vec<bool> = self.peers.iter().map(peer_matches).collect();
            let matches = |peers: usize| matching.get(peers).copied().unwrap_or(false);
            return sets.intern(self.run(matches, named));
        }
        let mut mask = 0u128;
        for (bit, peers) in self.peers.iter().enumerate() {
            if peer_matches(peers) {
                mask |= 1 << bit;
            }
        }
        if let Some(&answer) = self.answers.get(&(mask, names)) {
            return answer;
        }
        let answer = sets.intern(self.run(|peers| mask >> peers & 1 == 1, named));
        self.answers.insert((mask, names), answer);
        answer
    }

    fn run(&self, peers_match: impl Fn(usize) -> bool, named: &[(u32, u16)]) -> PortSet {
        let mut allowed = PortSet::empty();
        let mut undecided = PortSet::full();
        for (rules, end) in &self.blocks {
            let mut passed = PortSet::empty();
            for rule in rules.iter().filter(|rule| peers_match(rule.peers)) {
                let decided = rule.ports(named).intersection(&undecided);
                undecided = undecided.subtraction(&decided);
                match rule.verdict {
                    Verdict::Allow => allowed = allowed.union(&decided),
                    Verdict::Deny => {}
                    Verdict::Pass => passed = passed.union(&decided),
                }
            }
            undecided = undecided.union(&passed);
            match end {
                TierEnd::Allow => return allowed.union(&undecided),
                TierEnd::Deny => return allowed,
                TierEnd::NextTier => {}
            }
        }
        allowed.union(&undecided)
    }
}

impl CompactRule {
    fn ports(&self, named: &[(u32, u16)]) -> PortSet {
        let mut ports = self.numbers.clone();
        for &(set, protocol) in &self.named {
            for &(_, port) in named.iter().filter(|(position, _)| *position == set) {
                ports = ports.union(&PortSet::range(protocol, port, port));
            }
        }
        ports
    }
}

/// All programs of a ruleset, by position.
pub(super) fn compact_programs(
    ruleset: &Ruleset,
    positions: &Positions,
) -> (HashMap<ProgramId, usize>, Vec<CompactProgram>) {
    let ids = ruleset.programs().keys().copied().zip(0..).collect();
    let programs = ruleset.programs().values();
    (ids, programs.map(|program| CompactProgram::new(program, positions)).collect())
}
