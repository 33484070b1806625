//! A second engine: the same theorem, by binary decision diagrams.
//!
//! The prover of [`crate::prove()`] divides packets into classes and sends one packet of each through both sides. This one
//! knows no classes: a set of packets is a decision diagram over the bits of their fields. All packets of a question walk
//! through the rules together and are split at each condition, the policies become the set of packets that they allow, and what remains is whether a packet is in one set and not in the other. It shares no code with
//! the other engine but what both speak of: the rule machine, the specification's selections, and the words of the result.
//!
//! ```text
//! fates of all packets     pass, drop, unknown; pass or drop by what was not understood
//! wrong                    must pass and is dropped, or must not pass and does
//! proved                   the set of wrong packets, and the set of those of which nobody knows, are empty
//! refuted                  a member of the first; it is sent through the machine and the specification once more, alone
//! ```
//!
//! It is slower, and there for doubters: two engines that have nothing in common rarely make the same mistake.
//!
//! ```
//! use netpol_core::{Cluster, Labels, Options, Pod, PodId, Policy, Selector};
//! use netpol_verify::{ProofOptions, Specification, bdd, machine::Machine};
//!
//! let mut cluster = Cluster::new();
//! let web = Pod::new(PodId::new("shop", "web"), Labels::new());
//! cluster.insert_pod(web.with_addresses(["10.0.0.7".parse()?]));
//! let specification = Specification::new(&cluster, None, Options::default());
//! let proof = bdd::prove(&Machine::new(), &specification, &ProofOptions::default());
//! assert!(proof.is_proved(), "nothing is denied, nothing is dropped");
//!
//! cluster.insert_policy(Policy::network_policy("shop", "deny", Selector::everything(), Some(vec![]), None));
//! let specification = Specification::new(&cluster, None, Options::default());
//! let proof = bdd::prove(&Machine::new(), &specification, &ProofOptions::default());
//! assert!(proof.is_refuted(), "nothing is enforced");
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

mod answer;
mod devices;
mod diagram;
mod execute;
mod names;
mod packets;
mod policy;
mod question;
mod sets;

use crate::machine::{Machine, NotUnderstood, Path, Step, device_value};
use crate::specification::{PodIndex, Specification};
use crate::{Conclusion, ProofOptions};
use answer::Findings;
use devices::Devices;
use diagram::Diagrams;
use names::Names;
use policy::Policies;
use question::{About, Judge, Judges, Question};
use sets::Sets;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nodes of the first attempt; each is 16 bytes.
const FEWEST_NODES: usize = 1 << 16;
/// Nodes of the last attempt.
const MOST_NODES: usize = 1 << 26;

/// What the second engine found out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Proof {
    /// Proved, refuted or not proved: as [`crate::Report::conclusion`], and of the same theorem under the same assumptions.
    pub conclusion: Conclusion,
    /// How much was looked at.
    pub statistics: Statistics,
}

impl Proof {
    /// Is it proved?
    #[must_use]
    pub fn is_proved(&self) -> bool {
        self.conclusion.is_proved()
    }

    /// Is it refuted?
    #[must_use]
    pub fn is_refuted(&self) -> bool {
        self.conclusion.is_refuted()
    }
}

/// How much the second engine looked at.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// Local pods.
    pub pods: usize,
    /// Questions: a way, and an address or a device of a local pod.
    pub questions: usize,
    /// Nodes of the diagrams at the end.
    pub nodes: usize,
    /// How long it took.
    pub took: Duration,
}

/// Proves that a ruleset does what policies say, or shows a packet for which it does not: the theorem of [`crate::prove()`], by
/// decision diagrams.
#[must_use]
pub fn prove(
    machine: &Machine,
    specification: &Specification<'_>,
    options: &ProofOptions,
) -> Proof {
    let started = Instant::now();
    let mut nodes = room(machine);
    let own = machine.only(&options.own);
    let mut proof = loop {
        let engine = Engine::new(machine, &own, specification, options, nodes);
        match engine.and_then(Engine::answer) {
            Some(proof) => break proof,
            None if nodes < MOST_NODES => nodes *= 8,
            None => {
                let what = NotUnderstood::new("decision diagrams", "there is no room for them");
                let conclusion =
                    Conclusion::NotProved { not_understood: BTreeSet::from([what]), example: None };
                break Proof { conclusion, statistics: Statistics::default() };
            }
        }
    };
    proof.statistics.took = started.elapsed();
    proof
}

/// Nodes of the first attempt: some for each element that rules look up.
fn room(machine: &Machine) -> usize {
    let steps = machine.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.steps);
    let mut seen = BTreeSet::new();
    let elements = steps.map(|step| match step {
        Step::Match(condition) if seen.insert(Arc::as_ptr(&condition.set).addr()) => {
            condition.set.intervals().len() + condition.set.boxes().len()
        }
        Step::Dispatch { map, .. } => map.entries().len(),
        _ => 0,
    });
    let wanted = elements.sum::<usize>().saturating_mul(32);
    wanted.next_power_of_two().clamp(FEWEST_NODES, MOST_NODES)
}

struct Engine<'p, 'a> {
    machine: &'p Machine,
    /// The same with netpol's own rules alone.
    own: &'p Machine,
    /// Do foreign rules stand in the same chains?
    shares_chains: bool,
    specification: &'p Specification<'a>,
    options: &'p ProofOptions,
    diagrams: Diagrams,
    sets: Sets,
    /// The devices of local pods, where they are known.
    given: BTreeMap<PodIndex, u128>,
}

impl<'p, 'a> Engine<'p, 'a> {
    /// None if there is no memory for so many nodes, or if there are more devices than numbers.
    fn new(
        machine: &'p Machine,
        own: &'p Machine,
        specification: &'p Specification<'a>,
        options: &'p ProofOptions,
        nodes: usize,
    ) -> Option<Self> {
        let device = |index: PodIndex| {
            let pod = specification.pod(index)?;
            let manifest = pod.interface().map(|name| name.as_str());
            let name = options.interfaces.get(pod.id()).map(String::as_str).or(manifest)?;
            device_value(name)
        };
        let local = specification.local_pods();
        let given: BTreeMap<PodIndex, u128> =
            local.filter_map(|index| Some((index, device(index)?))).collect();
        let names = Names::new(machine, given.values().copied());
        if names.count() > packets::MOST_DEVICES {
            return None;
        }
        let diagrams = Diagrams::new(nodes, packets::FIRST)?;
        let sets = Sets::new(names);
        let shares_chains = machine.has_own_chains(&options.own);
        Some(Self { machine, own, shares_chains, specification, options, diagrams, sets, given })
    }

    /// The rules that decide a question. Where other parts of the ruleset have a say of their own, netpol's own rules alone
    /// must do what is expected; where both stand in the same chains, a foreign rule that comes first must not let pass what is
    /// denied, either.
    fn judges(&self, question: &Question) -> Judges<'p> {
        let of = |machine: &'p Machine| Judge {
            machine,
            stages: machine.stages(question.path(), question.v6),
        };
        if !question.by_own {
            return Judges { all_of_it: of(self.machine), denials: None };
        }
        let together = match question.path() {
            Path::Forward | Path::Arrival => question.about != About::PastPods,
            Path::ToNode | Path::FromNode => self.shares_chains,
        };
        Judges { all_of_it: of(self.own), denials: together.then(|| of(self.machine)) }
    }

    fn is_asked(&self, pod: PodIndex) -> bool {
        let pod = self.specification.pod(pod);
        let only = self.options.only.as_ref();
        only.is_none_or(|only| pod.is_some_and(|pod| only.contains(pod.id())))
    }

    /// Answers all questions; none if there was no room for the diagrams.
    fn answer(self) -> Option<Proof> {
        let mut statistics = Statistics {
            pods: self.specification.local_pods().filter(|pod| self.is_asked(*pod)).count(),
            ..Statistics::default()
        };
        let mut findings = Findings::default();
        let devices = Devices::new(&self, packets::DEVICE);
        let other_devices = Devices::new(&self, packets::OTHER_DEVICE);
        for v6 in [false, true] {
            let policies = Policies::new(self.specification, &self.diagrams, v6);
            let world = question::World::new(&self, v6, &devices, &other_devices, &policies);
            for question in self.questions(v6) {
                self.sets.forget_fixed();
                statistics.questions += 1;
                world.ask(&question, &mut findings);
                if self.diagrams.is_full() {
                    return None;
                }
            }
        }
        statistics.nodes = self.diagrams.nodes();
        let conclusion = findings.conclusion(self.machine, self.own, self.specification);
        Some(Proof { conclusion, statistics })
    }
}
