//! The compiler: a [`Cluster`] into a [`Ruleset`], for the pods of one node or for all.
//!
//! It selects each distinct set of pods once, gives pods with the same policies one program, and names sets and programs
//! by what they are. It never fails because of what a policy says: what can match nothing is compiled to match nothing.

mod directory;

use crate::address_set::AddressSet;
use crate::cluster::Cluster;
use crate::content::{NamedPortSetId, PodSetId, ProgramId};
use crate::name::{NodeName, PodId, PortName};
use crate::policy::{
    Direction, IpBlock, Match, Peer, PodSelection, Policy, PolicyRule, PortEntry, Tier,
};
use crate::port_set::{PortSet, Protocol};
use crate::ruleset::{
    Endpoint, NamedPortSet, Origin, PeerMatch, PodSet, PortMatch, Program, Rule, Ruleset,
    TierBlock, TierEnd, net_set_id,
};
use directory::{Directory, PodIndex};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::rc::Rc;

/// Which pods are to be policed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "one node or all")]
pub enum Scope<'a> {
    /// Every managed pod of the cluster.
    Cluster,
    /// The managed pods of one node.
    Node(&'a NodeName),
}

/// Why a cluster could not be compiled.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// Two different things have the same 128-bit id. Nobody has found such a pair for SHA-256; were one to turn up,
    /// enforcing it would police one thing by the rules of the other.
    #[error("two different {kind} have the same id `{id}`")]
    IdCollision {
        /// What collided.
        kind: &'static str,
        /// The id of both.
        id: String,
    },
}

/// The rules that enforce the policies of `cluster` for the pods in `scope`.
///
/// Pods are isolated as subjects from the moment they are known, with or without an address (NP-90, NP-94). Equal
/// clusters give equal rulesets. The time is about that of the endpoints' policies and of the members of the sets that
/// these use, not of all pairs.
///
/// # Errors
///
/// Only [`CompileError::IdCollision`], which is not expected to happen.
///
/// ```
/// use netpol_core::{Cluster, Direction, Labels, Pod, PodId, Policy, Scope, Selector, compile};
/// let mut cluster = Cluster::new();
/// let web = PodId::new("shop", "web-0");
/// cluster.insert_pod(Pod::new(web.clone(), Labels::new()));
/// cluster.insert_policy(Policy::network_policy("shop", "deny", Selector::everything(), Some(vec![]), None));
/// let ruleset = compile(&cluster, Scope::Cluster)?;
/// assert!(ruleset.program(&web, Direction::Ingress).is_some(), "isolated");
/// assert!(ruleset.program(&web, Direction::Egress).is_none(), "open");
/// # Ok::<(), netpol_core::CompileError>(())
/// ```
pub fn compile(cluster: &Cluster, scope: Scope<'_>) -> Result<Ruleset, CompileError> {
    let directory = Directory::new(cluster);
    let mut policies: Vec<&Policy> = cluster.policies().collect();
    // The order of evaluation: tier, priority, and by name between equals (CNP-30..CNP-32).
    policies.sort_by(|a, b| {
        (a.tier(), a.priority(), &a.id().name, a.id()).cmp(&(
            b.tier(),
            b.priority(),
            &b.id().name,
            b.id(),
        ))
    });
    Compiler::new(&directory, &policies, scope).run()
}

/// The state of one compilation.
struct Compiler<'a> {
    directory: &'a Directory<'a>,
    policies: &'a [&'a Policy],
    /// Is the pod at this position policed?
    policed: Vec<bool>,
    ruleset: Ruleset,
    pod_set_ids: HashMap<&'a PodSelection, PodSetId>,
    rules: HashMap<(usize, Direction), Rc<[Rule]>>,
    programs: HashMap<(Direction, Vec<usize>), ProgramId>,
}

impl<'a> Compiler<'a> {
    fn new(directory: &'a Directory<'a>, policies: &'a [&'a Policy], scope: Scope<'_>) -> Self {
        let in_scope = |position| {
            directory.pod(position).is_some_and(|(pod, _)| match scope {
                Scope::Cluster => true,
                Scope::Node(node) => pod.node() == Some(node),
            })
        };
        Self {
            directory,
            policies,
            policed: directory.positions().map(in_scope).collect(),
            ruleset: Ruleset::default(),
            pod_set_ids: HashMap::new(),
            rules: HashMap::new(),
            programs: HashMap::new(),
        }
    }

    fn run(mut self) -> Result<Ruleset, CompileError> {
        let applying = self.applying();
        for position in self.directory.positions() {
            if self.is_policed(position) {
                self.endpoint(position, &applying)?;
            }
        }
        self.complete_pods();
        Ok(self.ruleset)
    }

    fn is_policed(&self, position: PodIndex) -> bool {
        self.policed.get(position as usize).copied().unwrap_or(false)
    }

    /// For each policed pod the policies that select it, as positions in the order of evaluation.
    fn applying(&self) -> HashMap<PodIndex, Vec<usize>> {
        let mut applying: HashMap<PodIndex, Vec<usize>> = HashMap::new();
        for (at, policy) in self.policies.iter().enumerate() {
            for position in self.directory.select(policy.subject()) {
                if self.is_policed(position) {
                    applying.entry(position).or_default().push(at);
                }
            }
        }
        applying
    }

    fn endpoint(
        &mut self,
        position: PodIndex,
        applying: &HashMap<PodIndex, Vec<usize>>,
    ) -> Result<(), CompileError> {
        let Some((pod, _)) = self.directory.pod(position) else { return Ok(()) };
        let policies = applying.get(&position).map_or(&[][..], Vec::as_slice);
        let endpoint = Endpoint {
            ingress: self.program(Direction::Ingress, policies)?,
            egress: self.program(Direction::Egress, policies)?,
            interface: pod.interface().cloned(),
        };
        self.ruleset.endpoints.insert(pod.id().clone(), endpoint);
        Ok(())
    }

    /// The program of the pods to which exactly these policies apply; none if they say nothing about the direction.
    fn program(
        &mut self,
        direction: Direction,
        policies: &[usize],
    ) -> Result<Option<ProgramId>, CompileError> {
        let speaks = |at: &&usize| {
            self.policies.get(**at).is_some_and(|policy| policy.rules(direction).is_some())
        };
        let key = (direction, policies.iter().filter(speaks).copied().collect::<Vec<_>>());
        if key.1.is_empty() {
            return Ok(None);
        }
        if let Some(&id) = self.programs.get(&key) {
            return Ok(Some(id));
        }
        let program = Program { direction, blocks: self.blocks(direction, &key.1)? };
        let id = program.id();
        match self.ruleset.programs.get(&id) {
            Some(other) if *other != program => return Err(collision("programs", &id)),
            Some(_) => {}
            None => {
                self.ruleset.programs.insert(id, program);
            }
        }
        self.programs.insert(key, id);
        Ok(Some(id))
    }

    fn blocks(
        &mut self,
        direction: Direction,
        policies: &[usize],
    ) -> Result<Vec<TierBlock>, CompileError> {
        let mut blocks: Vec<TierBlock> = Vec::new();
        for &at in policies {
            let Some(policy) = self.policies.get(at) else { continue };
            let rules = self.rules(at, policy, direction)?;
            match blocks.last_mut() {
                Some(block) if block.tier == policy.tier() => {
                    block.policies.push(policy.id().clone());
                    block.rules.extend_from_slice(&rules);
                }
                _ => blocks.push(TierBlock {
                    tier: policy.tier(),
                    policies: vec![policy.id().clone()],
                    rules: rules.to_vec(),
                    end: TierEnd::NextTier,
                }),
            }
        }
        // An isolated pod never reaches the Baseline tier: the NetworkPolicy tier is final, per direction (CNP-35).
        if let Some(last) = blocks.iter().position(|block| block.tier == Tier::NetworkPolicy) {
            blocks.truncate(last + 1);
        }
        if let Some(last) = blocks.last_mut() {
            let isolated = last.tier == Tier::NetworkPolicy;
            last.end = if isolated { TierEnd::Deny } else { TierEnd::Allow };
        }
        Ok(blocks)
    }

    /// The rules of one policy in one direction, compiled once.
    fn rules(
        &mut self,
        at: usize,
        policy: &'a Policy,
        direction: Direction,
    ) -> Result<Rc<[Rule]>, CompileError> {
        if let Some(rules) = self.rules.get(&(at, direction)) {
            return Ok(Rc::clone(rules));
        }
        let whole = Origin { policy: policy.id().clone(), rule: None };
        if let Some(source) = policy.source() {
            self.ruleset.sources.insert(whole, source.clone());
        }
        let mut rules = Vec::new();
        for (number, rule) in (0..).zip(policy.rules(direction).unwrap_or_default()) {
            let origin = Origin { policy: policy.id().clone(), rule: Some((direction, number)) };
            if let Some(source) = &rule.matches.source {
                self.ruleset.sources.insert(origin.clone(), source.clone());
            }
            rules.push(self.rule(policy, direction, rule, origin)?);
        }
        let rules: Rc<[Rule]> = rules.into();
        self.rules.insert((at, direction), Rc::clone(&rules));
        Ok(rules)
    }

    fn rule(
        &mut self,
        policy: &Policy,
        direction: Direction,
        rule: &'a PolicyRule,
        origin: Origin,
    ) -> Result<Rule, CompileError> {
        Ok(Rule {
            peers: self.peers(&rule.matches.peers)?,
            ports: self.ports(policy, direction, &rule.matches.peers, &rule.matches.ports)?,
            verdict: rule.verdict,
            origin,
        })
    }

    fn peers(&mut self, peers: &'a Match<Peer>) -> Result<PeerMatch, CompileError> {
        let Match::OneOf(peers) = peers else { return Ok(PeerMatch::Any) };
        let mut pods = BTreeSet::new();
        let mut addresses = AddressSet::empty();
        for peer in peers {
            match peer {
                Peer::Pods(selection) => {
                    pods.insert(self.pod_set(selection)?);
                }
                Peer::Network(block) => addresses = addresses.union(&block_addresses(block)),
                Peer::Nodes(selector) => {
                    addresses = addresses.union(&self.directory.node_addresses(selector));
                }
            }
        }
        let networks = if addresses.is_empty() {
            None
        } else {
            let id = net_set_id(&addresses);
            match self.ruleset.net_sets.get(&id) {
                Some(other) if *other != addresses => return Err(collision("net sets", &id)),
                Some(_) => {}
                None => {
                    self.ruleset.net_sets.insert(id, addresses);
                }
            }
            Some(id)
        };
        Ok(PeerMatch::OneOf { pods: pods.into_iter().collect(), networks })
    }

    fn pod_set(&mut self, selection: &'a PodSelection) -> Result<PodSetId, CompileError> {
        let entry = match self.pod_set_ids.entry(selection) {
            Entry::Occupied(known) => return Ok(*known.get()),
            Entry::Vacant(entry) => entry,
        };
        let id = *entry.insert(PodSet::id(selection));
        let members = ids(self.directory, &self.directory.select(selection));
        let set = PodSet { selection: selection.clone(), members };
        match self.ruleset.pod_sets.insert(id, set) {
            Some(_) => Err(collision("pod sets", &id)),
            None => Ok(id),
        }
    }

    fn ports(
        &mut self,
        policy: &Policy,
        direction: Direction,
        peers: &Match<Peer>,
        ports: &Match<PortEntry>,
    ) -> Result<PortMatch, CompileError> {
        let Match::OneOf(entries) = ports else {
            return Ok(PortMatch { numbers: PortSet::full(), named: Vec::new() });
        };
        let mut numbers = PortSet::empty();
        let mut named = BTreeSet::new();
        for entry in entries {
            match entry {
                PortEntry::Protocol(protocol) => {
                    numbers = numbers.union(&PortSet::protocol(*protocol));
                }
                PortEntry::Range { protocol, first, last } => {
                    numbers = numbers.union(&PortSet::range(*protocol, *first, *last));
                }
                PortEntry::Named { protocol, name } => {
                    for destinations in destinations(policy, direction, peers) {
                        named.insert(self.named_port_set(
                            destinations.as_ref(),
                            direction,
                            *protocol,
                            name,
                        )?);
                    }
                }
            }
        }
        Ok(PortMatch { numbers, named: named.into_iter().collect() })
    }

    fn named_port_set(
        &mut self,
        selection: Option<&PodSelection>,
        direction: Direction,
        protocol: Protocol,
        name: &PortName,
    ) -> Result<NamedPortSetId, CompileError> {
        let id = NamedPortSet::id(selection, direction, protocol, name);
        let of = |set: &NamedPortSet| {
            (set.selection.as_ref(), set.direction, set.protocol, &set.name)
                == (selection, direction, protocol, name)
        };
        match self.ruleset.named_port_sets.get(&id) {
            Some(set) if of(set) => return Ok(id),
            Some(_) => return Err(collision("named port sets", &id)),
            None => {}
        }
        let mut members = Vec::new();
        let destinations = match selection {
            Some(selection) => self.directory.select(selection),
            None => self.directory.positions().collect(),
        };
        for position in destinations {
            // The destination of an ingress rule is the policed pod itself.
            if direction == Direction::Ingress && !self.is_policed(position) {
                continue;
            }
            let Some((pod, _)) = self.directory.pod(position) else { continue };
            let ports = pod.ports().iter();
            let ports = ports.filter(|port| port.protocol == protocol && port.name == *name);
            members.extend(ports.map(|port| (pod.id().clone(), port.port)));
        }
        let (selection, name) = (selection.cloned(), name.clone());
        let set = NamedPortSet { selection, direction, protocol, name, members };
        self.ruleset.named_port_sets.insert(id, set);
        Ok(id)
    }

    /// Enters the addresses of every pod that an endpoint or a set mentions.
    fn complete_pods(&mut self) {
        let mentioned: BTreeSet<&PodId> = self
            .ruleset
            .endpoints
            .keys()
            .chain(self.ruleset.pod_sets.values().flat_map(|set| &set.members))
            .chain(
                self.ruleset
                    .named_port_sets
                    .values()
                    .flat_map(|set| set.members.iter().map(|(pod, _)| pod)),
            )
            .collect();
        let mut pods = BTreeMap::new();
        for position in self.directory.positions() {
            if let Some((pod, addresses)) = self.directory.pod(position)
                && mentioned.contains(pod.id())
            {
                pods.insert(pod.id().clone(), addresses.clone());
            }
        }
        self.ruleset.pods = pods;
    }
}

fn collision(kind: &'static str, id: &dyn Display) -> CompileError {
    CompileError::IdCollision { kind, id: id.to_string() }
}

fn ids(directory: &Directory<'_>, positions: &[PodIndex]) -> Vec<PodId> {
    positions.iter().filter_map(|&at| directory.pod(at)).map(|(pod, _)| pod.id().clone()).collect()
}

/// The addresses that a block matches (NP-30).
fn block_addresses(block: &IpBlock) -> AddressSet {
    let holes: AddressSet = block.except.iter().copied().collect();
    AddressSet::from(block.cidr).subtraction(&holes)
}

/// The pods whose named ports a rule can mean: the subject for ingress (NP-42), the destinations for egress (NP-43).
///
/// The peers of the rule constrain the destination anyway; looking at no more pods than they select keeps the sets
/// small. A block, or no peer list at all, can mean any pod (NP-43, NP-48); in the Admin and Baseline tiers a block has no
/// names (CNP-16).
fn destinations(
    policy: &Policy,
    direction: Direction,
    peers: &Match<Peer>,
) -> BTreeSet<Option<PodSelection>> {
    match (direction, peers) {
        (Direction::Ingress, _) => [Some(policy.subject().clone())].into(),
        (Direction::Egress, Match::Any) => [None].into(),
        (Direction::Egress, Match::OneOf(peers)) => peers
            .iter()
            .filter_map(|peer| match peer {
                Peer::Pods(selection) => Some(Some(selection.clone())),
                Peer::Network(_) | Peer::Nodes(_) => {
                    (policy.tier() == Tier::NetworkPolicy).then_some(None)
                }
            })
            .collect(),
    }
}
