//! The prover: for every packet, do the rules do what the policies say?
//!
//! Packets are divided into classes that neither side can tell apart (verification.md 3.3), and one packet of each
//! combination of classes, a *cell*, goes through both sides. First the packets are divided by local pod, so that for each pod
//! only the predicates count that its packets can meet:
//!
//! ```text
//! to a pod        forward hook, destination fixed, every source, this node's other pods among them
//! from a pod      forward hook, source fixed, every destination that is not on this node
//! pod to node     input hook, source fixed          node to pod    output hook, destination fixed
//! no pod          forward hook, both ends elsewhere: nothing of ours may drop it
//! guard           before conntrack, the device of a pod fixed, every source
//! ```
//!
//! each in both families, for TCP, UDP, SCTP, ICMP and every other protocol, and in each state of a connection.

mod cause;
mod devices;
mod gather;
mod lanes;
mod mask;
mod question;
mod reads;
mod record;
mod report;
mod space;
mod traffic;
mod wanted;

pub use report::{Conclusion, Refutation, Report, Statistics};

use crate::machine::{
    Chain, ElementSet, Fate, Field, Machine, NotUnderstood, Own, Packet, Path, Range, Step, Table,
    TableKind, device_value,
};
use crate::specification::{PodIndex, Specification};
use devices::Devices;
use gather::Cache;
use netpol_core::{Established, PodId, PortName, Protocol};
use question::{Domain, Expected, Finding, Question, Rules};
use reads::Way;
use rustc_hash::FxHashMap;
use space::{Predicate, Space};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

/// After how many runs of packets no more is said of what is not understood.
const MOST_RUNS_SHOWN: usize = 4_000;

/// How many packets a refutation shows.
const MOST_SHOWN: usize = 8;

/// What else a proof needs to know.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ProofOptions {
    /// The devices of pods. With them the source guard is part of what is proved.
    pub interfaces: BTreeMap<PodId, String>,
    /// Which rules are netpol's own. What the node itself sends or receives is judged by these alone, since the rest is the
    /// node's own firewall, which may drop more. In iptables, where both stand in one table, what policy denies must be
    /// dropped by all rules together as well: a foreign rule may come first and accept.
    pub own: Own,
    /// Are source addresses taken as honest although interfaces are given? Then these only say where packets come and go.
    pub unguarded: bool,
    /// May rules that are not netpol's own drop more than policies do, wherever they stand, as those of services without an
    /// endpoint or of a firewall do? Then netpol's own rules alone must do what is expected, and what is to be dropped must be
    /// dropped by all rules together.
    pub others_may_drop: bool,
    /// Only these pods, for a proof after a change; none: all pods of the node.
    pub only: Option<BTreeSet<PodId>>,
}

impl ProofOptions {
    /// With these devices.
    #[must_use]
    pub fn with_interfaces(mut self, interfaces: BTreeMap<PodId, String>) -> Self {
        self.interfaces = interfaces;
        self
    }

    /// With netpol's tables in nft called this.
    #[must_use]
    pub fn with_own_table(mut self, name: impl Into<String>) -> Self {
        self.own = self.own.with_table(name);
        self
    }

    /// With the names of netpol's chains in iptables beginning with this and a `-`.
    #[must_use]
    pub fn with_own_chains(mut self, prefix: impl Into<String>) -> Self {
        self.own = self.own.with_chains(prefix);
        self
    }

    /// Without the source guard, although interfaces are given: somebody else checks addresses, or nobody.
    #[must_use]
    pub fn without_guard(mut self) -> Self {
        self.unguarded = true;
        self
    }

    /// With rules of others that may drop more than policies do.
    #[must_use]
    pub fn with_others_dropping(mut self) -> Self {
        self.others_may_drop = true;
        self
    }

    /// For these pods alone.
    #[must_use]
    pub fn with_only(mut self, pods: BTreeSet<PodId>) -> Self {
        self.only = Some(pods);
        self
    }
}

/// Proves that a ruleset does what policies say, or shows a packet for which it does not.
///
/// ```
/// use netpol_core::{Cluster, Labels, Options, Pod, PodId, Policy, Selector};
/// use netpol_verify::{ProofOptions, Specification, machine::Machine, nft, prove};
///
/// let mut cluster = Cluster::new();
/// let web = Pod::new(PodId::new("shop", "web"), Labels::new());
/// cluster.insert_pod(web.with_addresses(["10.0.0.7".parse().unwrap()]));
/// cluster.insert_policy(Policy::network_policy("shop", "deny", Selector::everything(), Some(vec![]), None));
///
/// // Nothing is enforced.
/// let report = prove(&Machine::new(), &Specification::new(&cluster, None, Options::default()), &ProofOptions::default());
/// assert!(report.is_refuted());
/// ```
#[must_use]
pub fn prove(
    machine: &Machine,
    specification: &Specification<'_>,
    options: &ProofOptions,
) -> Report {
    let started = Instant::now();
    let own = own_rules(machine, &options.own);
    let mut prover = Prover::new(machine, &own, specification, options);
    prover.ask_everything();
    let mut report = prover.report();
    report.statistics.took = started.elapsed();
    report
}

/// The ruleset with netpol's own rules alone. A copy is made only where there are others.
fn own_rules<'m>(machine: &'m Machine, own: &Own) -> Cow<'m, Machine> {
    let foreign = |chain: &Chain| {
        let table = machine.tables.get(chain.table);
        let own = |table: &Table| table.kind == TableKind::Nft && own.has(table, &chain.name);
        chain.hook.is_some() && !table.is_some_and(own)
    };
    if own.is_everything() || !machine.chains.iter().any(foreign) {
        return Cow::Borrowed(machine);
    }
    Cow::Owned(machine.only(own))
}

/// As [`prove`], and writes the proof down, so that [`netpol_checker::check`] can check it.
///
/// The certificate is there whatever the conclusion is; only that of a proof is accepted, and only of all pods
/// ([`ProofOptions::only`] is not followed).
#[must_use]
pub fn prove_with_certificate(
    machine: &Machine,
    specification: &Specification<'_>,
    options: &ProofOptions,
) -> (Report, netpol_checker::Certificate) {
    let started = Instant::now();
    let options = ProofOptions { only: None, ..options.clone() };
    let own = own_rules(machine, &options.own);
    let mut prover = Prover::new(machine, &own, specification, &options);
    prover.start_recording();
    prover.ask_everything();
    let certificate = prover.recorded();
    let mut report = prover.report();
    report.statistics.took = started.elapsed();
    (report, certificate)
}

/// Port numbers, each with the addresses where a name means it.
type Numbers = Rc<Vec<(u16, Rc<Predicate>)>>;

struct Prover<'p, 'a> {
    machine: &'p Machine,
    /// The same with netpol's own rules alone.
    own: &'p Machine,
    /// Do rules of others stand in the same chains, so that one that comes first could let pass what is denied?
    shares_chains: bool,
    specification: &'p Specification<'a>,
    options: &'p ProofOptions,
    given: BTreeMap<PodIndex, u128>,
    devices: Devices,
    v4: (Space, Cache),
    v6: (Space, Cache),
    /// The addresses of selected pods, by where the selection is in memory and the family.
    selections: RefCell<FxHashMap<(usize, bool), Rc<Predicate>>>,
    excluded: RefCell<FxHashMap<(bool, bool), Rc<Predicate>>>,
    /// The destinations that give a port's name a number, by family.
    named: RefCell<FxHashMap<NamedPort<'a>, Numbers>>,
    /// The base chains on a way, by family and whether netpol's own alone.
    ways: RefCell<FxHashMap<(Path, bool, bool), Rc<Way>>>,
    statistics: Statistics,
    refuted: BTreeMap<Rank, Found>,
    unknown: BTreeMap<Rank, Found>,
    record: Option<record::Record>,
}

/// A family, and the protocol and name of a port.
type NamedPort<'a> = (bool, Protocol, &'a PortName);

/// What is most telling comes first: a new connection, forwarded, to a port, the least packet.
type Rank = (usize, Path, usize, Packet);

#[derive(Clone, Debug)]
struct Found {
    allowed: bool,
    expected: Expected,
    /// Was it run through netpol's own rules alone?
    own: bool,
}

impl<'p, 'a> Prover<'p, 'a> {
    fn new(
        machine: &'p Machine,
        own: &'p Machine,
        specification: &'p Specification<'a>,
        options: &'p ProofOptions,
    ) -> Self {
        let given = specification
            .local_pods()
            .filter_map(|index| {
                let pod = specification.pod(index)?;
                let name = options.interfaces.get(pod.id()).map(String::as_str);
                let name = name.or_else(|| pod.interface().map(|name| name.as_str()))?;
                Some((index, device_value(name)?))
            })
            .collect();
        let devices = Devices::new(machine, own, specification, &given);
        let [v4, v6] = [false, true].map(|v6| {
            let last = if v6 { u128::MAX } else { u32::MAX.into() };
            let asked = |pod: &PodIndex| is_asked(specification, options, *pod);
            let pods: Vec<PodIndex> = specification.local_pods().filter(asked).collect();
            (Space::new(last, cuts(machine, specification, &pods, v6)), Cache::default())
        });
        Self {
            machine,
            own,
            shares_chains: machine.has_own_chains(&options.own),
            specification,
            options,
            given,
            devices,
            v4,
            v6,
            selections: RefCell::default(),
            excluded: RefCell::default(),
            named: RefCell::default(),
            ways: RefCell::default(),
            statistics: Statistics::default(),
            refuted: BTreeMap::new(),
            unknown: BTreeMap::new(),
            record: None,
        }
    }

    fn local_addresses(&self) -> usize {
        [false, true].map(|v6| self.specification.local_owners(v6).len()).iter().sum()
    }

    /// The base chains that a question's packets meet.
    fn way(&self, question: &Question) -> Rc<Way> {
        let own = question.rules.is_own();
        let machine = if own { self.own } else { self.machine };
        let mut ways = self.ways.borrow_mut();
        let (path, v6) = (question.path, question.v6);
        let way =
            ways.entry((path, v6, own)).or_insert_with(|| Rc::new(Way::new(machine, path, v6)));
        Rc::clone(way)
    }

    fn is_asked(&self, pod: PodIndex) -> bool {
        is_asked(self.specification, self.options, pod)
    }

    fn ask_everything(&mut self) {
        let pods: Vec<PodIndex> =
            self.specification.local_pods().filter(|pod| self.is_asked(*pod)).collect();
        self.statistics.pods = pods.len();
        for v6 in [false, true] {
            let owners: Vec<(u128, PodIndex)> = self
                .specification
                .local_owners(v6)
                .iter()
                .copied()
                .filter(|(_, pod)| self.is_asked(*pod))
                .collect();
            for fixed in owners {
                for (path, lane, domain) in [
                    (Path::Forward, Field::Source, Domain::Everything),
                    (Path::Forward, Field::Destination, Domain::NotLocal),
                    (Path::ToNode, Field::Destination, Domain::NoPod),
                    (Path::FromNode, Field::Source, Domain::NoPod),
                ] {
                    for &rules in self.judges(path) {
                        let (fixed, expected) = (Some(fixed), Expected::Policies);
                        self.ask(&Question { path, v6, lane, domain, fixed, expected, rules });
                    }
                }
            }
            if self.options.only.is_none() {
                self.ask(&Question {
                    path: Path::Forward,
                    v6,
                    lane: Field::Source,
                    domain: Domain::NotLocal,
                    fixed: None,
                    expected: Expected::Accepted,
                    rules: Rules::Own,
                });
            }
            let guarded = self.given.keys().copied().filter(|pod| self.is_asked(*pod));
            let guarded: Vec<PodIndex> = guarded.filter(|_| !self.options.unguarded).collect();
            self.statistics.guarded_pods = guarded.len();
            for pod in guarded {
                for &rules in self.judges(Path::Arrival) {
                    self.ask(&Question {
                        path: Path::Arrival,
                        v6,
                        lane: Field::Source,
                        domain: Domain::Everything,
                        fixed: None,
                        expected: Expected::Guard(pod),
                        rules,
                    });
                }
            }
        }
    }

    /// Which rules are asked about the packets of a local pod. What the node itself sends and receives is its own firewall's
    /// affair, too.
    fn judges(&self, path: Path) -> &'static [Rules] {
        match path {
            Path::Forward | Path::Arrival if !self.options.others_may_drop => &[Rules::All],
            Path::ToNode | Path::FromNode if !self.shares_chains => &[Rules::Own],
            _ => &[Rules::Own, Rules::Together],
        }
    }

    /// Notes a packet for which the sides differ.
    fn found(&mut self, question: &Question, packet: Packet, allowed: bool, finding: &Finding) {
        let state = match packet.state {
            crate::machine::ConnState::New => 0,
            crate::machine::ConnState::Established => 1,
            crate::machine::ConnState::Untracked => 3,
            _ => 2,
        };
        let found = Found { allowed, expected: question.expected, own: question.rules.is_own() };
        let list = match finding {
            Finding::Refuted => &mut self.refuted,
            Finding::Unknown => &mut self.unknown,
        };
        let traffic = match packet.protocol {
            6 => 0,
            17 | 132 => 1,
            1 | 58 => 2,
            _ => 3,
        };
        list.insert((state, question.path, traffic, packet), found);
        if list.len() > 1000 {
            list.pop_last();
        }
    }

    fn refutation(&self, rank: &Rank, found: &Found) -> Refutation {
        let (_, path, _, packet) = rank;
        let wrong = if found.allowed { Fate::Dropped } else { Fate::Accepted };
        let machine = if found.own { self.own } else { self.machine };
        let runs = machine.run(packet, *path);
        let with = |fate| runs.iter().find(move |run| run.fate == fate);
        let run = with(wrong).or_else(|| with(Fate::Unknown)).or_else(|| runs.first());
        let reasons = match found.expected {
            Expected::Policies => {
                let mut reasons = self.specification.judge(packet, *path);
                if found.allowed && !reasons.allowed {
                    let open = "it belongs to a connection that was let through (NP-60, NP-62)";
                    reasons.reasons = vec![open.to_owned()];
                }
                reasons.reasons
            }
            Expected::Accepted => vec!["no pod of this node is an end of it".to_owned()],
            Expected::Guard(pod) => {
                let name = self.specification.pod(pod).map(|pod| pod.id().to_string());
                let name = name.unwrap_or_default();
                vec![if found.allowed {
                    format!("from the device of {name} with an address that belongs there")
                } else {
                    format!("from the device of {name} with an address that is not one of its own")
                }]
            }
        };
        let mut refutation = Refutation {
            packet: packet.clone(),
            path: *path,
            kernel: run.map_or(Fate::Unknown, |run| run.fate),
            allowed: found.allowed,
            reasons,
            trace: run.map(|run| run.trace.clone()).unwrap_or_default(),
            dropped_by_others: false,
            cause: String::new(),
        };
        let last = refutation.trace.last();
        let is_dropped = run.is_some_and(|run| run.fate == Fate::Dropped);
        refutation.dropped_by_others = is_dropped && last.is_some_and(|s| !self.is_own(&s.chain));
        let depends = runs.iter().any(|other| run.is_some_and(|run| run.fate != other.fate));
        refutation.cause = self.cause(&refutation, found, run, depends);
        refutation
    }

    fn report(self) -> Report {
        let statistics = self.statistics.clone();
        let shown = |list: &BTreeMap<Rank, Found>| -> Vec<Refutation> {
            list.iter().take(MOST_SHOWN).map(|(rank, found)| self.refutation(rank, found)).collect()
        };
        let refuted = shown(&self.refuted);
        let conclusion = if !refuted.is_empty() {
            Conclusion::Refuted(refuted)
        } else if self.local_addresses() == 0 {
            // Nothing would be proved of nothing.
            let what =
                "no pod of this node has an address in the manifests, so no packet is theirs";
            let not_understood = BTreeSet::from([NotUnderstood::new("manifests", what)]);
            Conclusion::NotProved { not_understood, example: None }
        } else if !self.unknown.is_empty() {
            let mut not_understood = BTreeSet::new();
            // A packet can have very many runs; some say enough of what is not understood.
            let mut left = MOST_RUNS_SHOWN;
            for (rank, found) in self.unknown.iter().take(200) {
                if left == 0 {
                    break;
                }
                let (_, path, _, packet) = rank;
                let machine = if found.own { self.own } else { self.machine };
                let runs = machine.run(packet, *path);
                left = left.saturating_sub(runs.len());
                not_understood.extend(runs.into_iter().flat_map(|run| run.not_understood));
            }
            let example = shown(&self.unknown).into_iter().next().map(Box::new);
            Conclusion::NotProved { not_understood, example }
        } else if !self.machine.not_understood.is_empty() {
            let not_understood = self.machine.not_understood.iter().cloned().collect();
            Conclusion::NotProved { not_understood, example: None }
        } else {
            Conclusion::Proved
        };
        Report { conclusion, theorem: self.theorem(), assumptions: self.assumptions(), statistics }
    }

    fn theorem(&self) -> String {
        let pods = self.statistics.pods;
        let established = match self.specification.options().established() {
            Established::Keep => "packets of connections that were let through pass",
            Established::ReEvaluate => {
                "replies pass, other packets of open connections are judged as new ones"
            }
        };
        let guard = match self.statistics.guarded_pods {
            0 => String::new(),
            some => format!(
                ", and from the devices of {some} of them come only packets with their own source addresses"
            ),
        };
        let rules = if self.options.others_may_drop { "netpol's own rules" } else { "the rules" };
        let together = if self.options.others_may_drop {
            ", and no rules of others let pass what these must drop"
        } else {
            ""
        };
        format!(
            "for every packet that enters, leaves or passes between the {pods} pods of this node, IPv4 and IPv6, of any protocol: it \
             passes {rules} if and only if the policies allow it ({established}){guard}{together}"
        )
    }

    fn assumptions(&self) -> Vec<String> {
        let mut all = vec![
            "the kernel does what its listing says, as the rule machine understands it".to_owned(),
            "the manifests are what is to be enforced, with these addresses of pods".to_owned(),
            "packets are whole (connection tracking reassembles fragments) and come without a mark"
                .to_owned(),
        ];
        let local: BTreeSet<PodIndex> = self.specification.local_pods().collect();
        let owning: BTreeSet<PodIndex> = [false, true]
            .into_iter()
            .flat_map(|v6| self.specification.owners(v6).values().copied())
            .collect();
        let silent = local.difference(&owning).count();
        if silent > 0 {
            all.push(format!(
                "{silent} of {} pods own no address, so no packet is theirs",
                local.len()
            ));
        }
        let unguarded = self.options.unguarded;
        let honest = local.iter().filter(|pod| unguarded || !self.given.contains_key(pod)).count();
        if honest > 0 {
            let why = if unguarded { "as asked" } else { "since their interfaces are not given" };
            all.push(format!(
                "the source addresses of {honest} of {} pods are taken as honest, {why}",
                local.len()
            ));
        }
        if !self.devices.inferred.is_empty() {
            all.push(format!(
                "the interfaces of {} pods are those whose source guard lets their addresses pass",
                self.devices.inferred.len()
            ));
        }
        if self.given.len() < local.len() || !self.given.is_empty() {
            all.push("nobody outside of the node forges the addresses of its pods".to_owned());
        }
        if !self.options.own.is_everything() {
            all.push(format!(
                "what the node itself sends and receives is judged by {} alone, not by the node's own firewall",
                self.options.own.describe()
            ));
        }
        if self.options.others_may_drop {
            all.push("what others' rules drop besides is meant to be dropped, as asked".to_owned());
        }
        all.push("a packet that conntrack calls invalid may be dropped".to_owned());
        all.extend(self.machine.left_out.iter().map(|what| format!("not judged: {what}")));
        all
    }
}

fn is_asked(specification: &Specification<'_>, options: &ProofOptions, pod: PodIndex) -> bool {
    let id = specification.pod(pod).map(netpol_core::Pod::id);
    options.only.as_ref().is_none_or(|only| id.is_some_and(|id| only.contains(id)))
}

/// Where either side cuts the addresses of a family for questions about these pods.
fn cuts(
    machine: &Machine,
    specification: &Specification<'_>,
    pods: &[PodIndex],
    v6: bool,
) -> Vec<Range> {
    let mut cuts: Vec<Range> = Vec::new();
    let mut seen: BTreeSet<usize> = BTreeSet::new();
    let is_address = |field: &Field| matches!(field, Field::Source | Field::Destination);
    let sees = |chain: &&Chain| machine.tables.get(chain.table).is_none_or(|t| t.family.sees(v6));
    let rules = machine.chains.iter().filter(sees).flat_map(|chain| &chain.rules);
    for step in rules.flat_map(|rule| &rule.steps) {
        match step {
            Step::Match(condition) if condition.key.iter().any(is_address) => {
                if !seen.insert(std::sync::Arc::as_ptr(&condition.set).addr()) {
                    continue;
                }
                let set: &ElementSet = &condition.set;
                cuts.extend(set.intervals());
                // The same set may be looked up by another key; every part is cut.
                cuts.extend(set.boxes().iter().flat_map(|one| one.iter()));
            }
            Step::Dispatch { key, map } if key.iter().any(is_address) => {
                if !seen.insert(std::sync::Arc::as_ptr(map).addr()) {
                    continue;
                }
                cuts.extend(map.entries().flat_map(|(entry, _)| entry));
            }
            _ => {}
        }
    }
    cuts.extend(specification.cuts(pods, v6));
    if v6 {
        cuts.push(Range { first: 0xfe80 << 112, last: (0xfec0 << 112) - 1 });
        cuts.push(Range::one(0u8));
    }
    cuts
}
