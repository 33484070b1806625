//! The in-memory back end: it walks a connection through the rule IR, remembers what it let through, and says why.

use crate::connection::{Connection, End, Traffic};
use crate::decision::{Decision, Mismatch, Miss, Outcome, SideDecision};
use netpol_core::{
    Backend, Delta, Direction, Established, Inventory, Options, OtherProtocols, OwnNodeEgress,
    PeerMatch, PodId, PortMatch, Program, Rule, Ruleset, Tier, TierBlock, TierEnd, Verdict,
};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::IpAddr;

/// A back end in memory: the same contract as the kernel's, for tests, for answers, and for embedders without a kernel.
///
/// ```
/// use netpol_core::{Cluster, Labels, Options, Pod, PodId, Policy, Protocol, Scope, Selector, compile};
/// use netpol_sim::{Connection, End, Simulator, Traffic};
///
/// let (web, db) = (PodId::new("shop", "web"), PodId::new("shop", "db"));
/// let mut cluster = Cluster::new();
/// cluster.insert_pod(Pod::new(web.clone(), Labels::new()));
/// cluster.insert_pod(Pod::new(db.clone(), Labels::new()));
/// cluster.insert_policy(Policy::network_policy("shop", "deny", Selector::everything(), Some(vec![]), None));
///
/// let simulator = Simulator::new(compile(&cluster, Scope::Cluster)?, Options::default());
/// let connection = Connection::new(End::Pod(web), End::Pod(db), Traffic::Port(Protocol::Tcp, 5432));
/// assert!(!simulator.judge(&connection).allowed());
/// # Ok::<(), netpol_core::CompileError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Simulator {
    options: Options,
    ruleset: Option<Ruleset>,
    owners: HashMap<IpAddr, PodId>,
    /// How often the rules changed.
    generation: u64,
    /// The connections that were let through, and under which generation of the rules.
    tracked: BTreeMap<Connection, u64>,
}

impl Simulator {
    /// A simulator that enforces `ruleset`.
    #[must_use]
    pub fn new(ruleset: Ruleset, options: Options) -> Self {
        let mut simulator = Self { options, ..Self::default() };
        simulator.install(Some(ruleset));
        simulator
    }

    /// A simulator that enforces nothing yet: every pod is open.
    #[must_use]
    pub fn with_options(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// The rules that it enforces, if any.
    #[must_use]
    pub fn ruleset(&self) -> Option<&Ruleset> {
        self.ruleset.as_ref()
    }

    /// What the rules say of a new connection, without opening it.
    #[must_use]
    pub fn judge(&self, connection: &Connection) -> Decision {
        let (source, destination) =
            (self.resolve(connection.source()), self.resolve(connection.destination()));
        if connection.traffic().is_neighbor_discovery() {
            return Decision::NeighborDiscovery;
        }
        if let (Some(source), Some(destination)) = (source.pod, destination.pod)
            && source == destination
        {
            return Decision::SamePod;
        }
        let side = |direction| {
            let (subject, remote) = match direction {
                Direction::Ingress => (destination, source),
                Direction::Egress => (source, destination),
            };
            self.judge_side(direction, subject, remote, destination, connection)
        };
        Decision::Judged { egress: side(Direction::Egress), ingress: side(Direction::Ingress) }
    }

    /// A packet in the direction in which the connection is opened: the first, or a later one. A connection that is let
    /// through is remembered; what becomes of it when the rules change is an option (NP-62).
    pub fn packet(&mut self, connection: &Connection) -> Decision {
        match self.tracked.get(connection) {
            Some(&since)
                if since == self.generation || self.options.established() == Established::Keep =>
            {
                return Decision::Established;
            }
            _ => {}
        }
        let decision = self.judge(connection);
        if decision.allowed() {
            self.tracked.insert(connection.clone(), self.generation);
        } else {
            self.tracked.remove(connection);
        }
        decision
    }

    /// Does a packet of the other direction pass, an answer to `connection`? Only if that was let through (NP-60).
    #[must_use]
    pub fn reply(&self, connection: &Connection) -> bool {
        self.tracked.contains_key(connection)
    }

    /// Forgets a connection, as conntrack does when it ends or expires (NP-61).
    pub fn close(&mut self, connection: &Connection) {
        self.tracked.remove(connection);
    }

    fn install(&mut self, ruleset: Option<Ruleset>) {
        if self.ruleset == ruleset {
            return;
        }
        self.generation += 1;
        self.ruleset = ruleset;
        self.owners = self
            .ruleset
            .iter()
            .flat_map(Ruleset::pods)
            .flat_map(|(pod, addresses)| addresses.iter().map(|&address| (address, pod.clone())))
            .collect();
    }

    fn resolve<'a>(&'a self, end: &'a End) -> Resolved<'a> {
        match end {
            End::Address(address) => {
                let address = address.to_canonical();
                Resolved { pod: self.owners.get(&address), address: Some(address) }
            }
            End::Pod(pod) => {
                let known = self.ruleset.as_ref().is_some_and(|r| r.pods().contains_key(pod));
                Resolved { pod: known.then_some(pod), address: None }
            }
        }
    }

    fn judge_side(
        &self,
        direction: Direction,
        subject: Resolved<'_>,
        remote: Resolved<'_>,
        destination: Resolved<'_>,
        connection: &Connection,
    ) -> SideDecision {
        let outcome = |outcome| SideDecision { outcome, passed: Vec::new(), misses: Vec::new() };
        let Some(pod) = subject.pod else { return outcome(Outcome::NoPod) };
        let Some(ruleset) = &self.ruleset else { return outcome(Outcome::Open) };
        let Some(program) = ruleset.program(pod, direction) else { return outcome(Outcome::Open) };
        let other = !matches!(connection.traffic(), Traffic::Port(..));
        if other && self.options.other_protocols() == OtherProtocols::Allow {
            return outcome(Outcome::OtherProtocol);
        }
        let own_node_exempt = connection.own_node()
            && remote.pod.is_none()
            && (direction == Direction::Ingress
                || self.options.own_node_egress() == OwnNodeEgress::Allow);
        let walk =
            Walk { ruleset, remote, destination, traffic: connection.traffic(), own_node_exempt };
        walk.program(program)
    }
}

impl Backend for Simulator {
    type Error = Infallible;

    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), Infallible> {
        self.install(Some(ruleset.clone()));
        Ok(())
    }

    fn apply(&mut self, delta: &Delta) -> Result<(), Infallible> {
        if delta.is_empty() {
            return Ok(());
        }
        let ruleset = self.ruleset.get_or_insert_default();
        // An address may move from one pod to another in one delta: all leave before any arrives.
        for pod in delta.pods.keys() {
            for address in ruleset.addresses(pod) {
                self.owners.remove(address);
            }
        }
        ruleset.apply(delta);
        for pod in delta.pods.keys() {
            let addresses = ruleset.addresses(pod).iter();
            self.owners.extend(addresses.map(|&address| (address, pod.clone())));
        }
        self.generation += 1;
        Ok(())
    }

    fn installed(&mut self) -> Result<Option<Inventory>, Infallible> {
        Ok(self.ruleset.as_ref().map(Inventory::of))
    }

    fn remove(&mut self) -> Result<(), Infallible> {
        self.install(None);
        Ok(())
    }
}

/// An end of a connection, as far as the rules know it.
#[derive(Clone, Copy)]
struct Resolved<'a> {
    pod: Option<&'a PodId>,
    address: Option<IpAddr>,
}

/// One walk through a program.
struct Walk<'a> {
    ruleset: &'a Ruleset,
    remote: Resolved<'a>,
    destination: Resolved<'a>,
    traffic: Traffic,
    own_node_exempt: bool,
}

impl Walk<'_> {
    fn program(&self, program: &Program) -> SideDecision {
        let (mut passed, mut misses) = (Vec::new(), Vec::new());
        for block in &program.blocks {
            if self.own_node_exempt && block.tier == Tier::NetworkPolicy {
                return SideDecision { outcome: Outcome::OwnNode, passed, misses };
            }
            let outcome = match self.block(block, &mut misses) {
                Some(rule) => match rule.verdict {
                    Verdict::Allow => Some(Outcome::AllowedBy(rule.origin.clone())),
                    Verdict::Deny => Some(Outcome::DeniedBy(rule.origin.clone())),
                    Verdict::Pass => {
                        passed.push(rule.origin.clone());
                        None
                    }
                },
                None => None,
            };
            let at_end = match block.end {
                TierEnd::Allow => Some(Outcome::AllowedAtEnd),
                TierEnd::Deny => Some(Outcome::Isolated(block.policies.clone())),
                TierEnd::NextTier => None,
            };
            if let Some(outcome) = outcome.or(at_end) {
                return SideDecision { outcome, passed, misses };
            }
        }
        SideDecision { outcome: Outcome::AllowedAtEnd, passed, misses }
    }

    /// The first rule that matches, and on the way there which rules came close.
    fn block<'b>(&self, block: &'b TierBlock, misses: &mut Vec<Miss>) -> Option<&'b Rule> {
        block.rules.iter().find(|rule| {
            let (peers, ports) = (self.peers_match(&rule.peers), self.ports_match(&rule.ports));
            let mismatch = match (peers, ports) {
                (true, true) => return true,
                (true, false) => Mismatch::Ports,
                (false, true) => Mismatch::Peers,
                (false, false) => Mismatch::PeersAndPorts,
            };
            let miss = Miss { origin: rule.origin.clone(), verdict: rule.verdict, mismatch };
            misses.push(miss);
            false
        })
    }

    fn peers_match(&self, peers: &PeerMatch) -> bool {
        let PeerMatch::OneOf { pods, networks } = peers else { return true };
        let in_set = |pod: &PodId| {
            pods.iter().any(|id| {
                let set = self.ruleset.pod_sets().get(id);
                set.is_some_and(|set| set.members.binary_search(pod).is_ok())
            })
        };
        let in_networks = |address: IpAddr| {
            let networks = networks.and_then(|id| self.ruleset.net_sets().get(&id));
            networks.is_some_and(|networks| networks.contains(address))
        };
        self.remote.pod.is_some_and(in_set) || self.remote.address.is_some_and(in_networks)
    }

    fn ports_match(&self, ports: &PortMatch) -> bool {
        let Traffic::Port(protocol, port) = self.traffic else { return ports.numbers.other() };
        ports.numbers.contains(protocol, port)
            || self.destination.pod.is_some_and(|pod| {
                ports.named.iter().any(|id| {
                    let set = self.ruleset.named_port_sets().get(id);
                    set.is_some_and(|set| {
                        set.protocol == protocol
                            && set.members.binary_search(&(pod.clone(), port)).is_ok()
                    })
                })
            })
    }
}
