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
mod conditions;
mod devices;
mod effect;
mod findings;
mod gather;
mod lanes;
mod mask;
mod options;
mod question;
mod reads;
mod record;
mod report;
mod runner;
mod space;
mod theorem;
mod traffic;
mod wanted;

pub use options::ProofOptions;
pub use report::{Conclusion, Refutation, Report, Statistics};

use crate::machine::{
    Chain, ElementSet, Field, Machine, Own, Path, Range, Step, Table, TableKind, device_value,
};
use crate::specification::{PodIndex, Specification};
use devices::Devices;
use findings::{Found, Rank};
use gather::Cache;
use netpol_core::{PortName, Protocol};
use question::{Domain, Expected, Question, Rules};
use reads::Way;
use rustc_hash::FxHashMap;
use space::{Predicate, Space};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

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
