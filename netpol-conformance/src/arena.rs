//! Where a candidate is tried: a lab with real packets, or its own word.

use crate::candidate::{Candidate, Enforcer, Settings};
use netpol_core::{Cluster, Direction, NodeName, Options, PodId, Scope, compile};
use netpol_lab::{Fate, Lab, Place, Plan, Probe, Traffic};
use netpol_sim::{Connection, End, reference};
use netpol_testkit::Judge;
use netpol_verify::{Conclusion, Kernel, ProofOptions, Specification, prove};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// The pods of a plan, and a candidate that enforces policy among them.
pub struct Arena<'a> {
    candidate: &'a dyn Candidate,
    settings: Settings,
    places: BTreeMap<IpAddr, Place>,
    field: Field,
}

enum Field {
    Node { lab: Box<Lab>, enforcer: Box<dyn Enforcer> },
    Word(Box<dyn Judge>),
}

impl std::fmt::Debug for Arena<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an arena for {} with {} addresses", self.candidate.name(), self.places.len())
    }
}

impl<'a> Arena<'a> {
    /// The pods of a plan; nothing is enforced yet.
    #[must_use]
    pub fn new(candidate: &'a dyn Candidate, plan: &Plan, settings: Settings) -> Self {
        let places = plan.places().into_iter().flat_map(|(place, addresses)| {
            addresses.into_iter().map(move |address| (address, place.clone()))
        });
        let field = match candidate.judge() {
            Some(mut judge) => {
                judge.start(&settings.host.policy());
                Field::Word(judge)
            }
            None => {
                let lab = Lab::new(plan);
                let mut lab = lab.unwrap_or_else(|error| panic!("{error}: {plan:?}"));
                lab.set_patience(Duration::from_millis(100));
                let enforcer = lab.run(&Place::Node, || candidate.start(&settings));
                Field::Node { lab: Box::new(lab), enforcer: enforcer.expect("there is a node") }
            }
        };
        Self { candidate, settings, places: places.collect(), field }
    }

    /// Enforces the policies of a cluster, for the pods in `scope`.
    pub fn enforce(&mut self, cluster: &Cluster, scope: Scope<'_>) {
        match &mut self.field {
            Field::Word(judge) => judge.replace(cluster),
            Field::Node { lab, enforcer } => {
                let ruleset = compile(cluster, scope).expect("the cluster can be compiled");
                let done = lab.run(&Place::Node, || enforcer.replace(&ruleset));
                done.expect("there is a node")
                    .unwrap_or_else(|error| panic!("{}: {error}", self.candidate.name()));
            }
        }
    }

    /// Is what the kernel lists proved for these policies, by [`netpol_verify`]? No where nothing is enforced in a kernel or the
    /// candidate's rules cannot be read.
    ///
    /// # Errors
    ///
    /// It is not proved; why.
    pub fn proved(&self, cluster: &Cluster, node: Option<&NodeName>) -> Result<bool, String> {
        let (Field::Node { lab, .. }, Some(own)) = (&self.field, self.candidate.own_rules()) else {
            return Ok(false);
        };
        let machine = lab.run(&Place::Node, || Kernel::new().machine()).expect("there is a node");
        let machine = machine.map_err(|error| error.to_string())?;
        let specification = Specification::new(cluster, node, self.settings.host.policy());
        let mut options = ProofOptions::default();
        options.own = own;
        if self.settings.unguarded || !self.candidate.abilities().guards {
            options = options.without_guard();
        }
        match prove(&machine, &specification, &options).conclusion {
            Conclusion::Proved => Ok(true),
            // Of pods without an address there is nothing to prove.
            Conclusion::NotProved { not_understood, example: None }
                if not_understood.iter().all(|what| what.place == "manifests") =>
            {
                Ok(true)
            }
            Conclusion::Refuted(all) => Err(all.iter().take(1).map(ToString::to_string).collect()),
            other => Err(format!("{other:?}")),
        }
    }

    /// As if the process were started anew, with other settings. Connections stay.
    pub fn restart(&mut self, settings: Settings) {
        match &mut self.field {
            Field::Word(judge) => judge.start(&settings.host.policy()),
            Field::Node { lab, enforcer } => {
                let new = lab.run(&Place::Node, || self.candidate.start(&settings));
                *enforcer = new.expect("there is a node");
            }
        }
        self.settings = settings;
    }

    /// The lab, where packets are real.
    #[must_use]
    pub fn lab(&mut self) -> Option<&mut Lab> {
        match &mut self.field {
            Field::Node { lab, .. } => Some(lab),
            Field::Word(_) => None,
        }
    }

    /// Who has this address.
    #[must_use]
    pub fn place_of(&self, address: IpAddr) -> &Place {
        self.places.get(&address).unwrap_or(&Place::World)
    }

    /// All addresses, with who has them.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &Place)> {
        self.places.iter().map(|(address, place)| (*address, place))
    }

    /// The connection that a probe opens.
    fn connection(&self, probe: &Probe) -> Connection {
        let traffic = match probe.traffic() {
            Traffic::Port(protocol, port) => netpol_sim::Traffic::Port(protocol, port),
            Traffic::Icmpv6(kind) => netpol_sim::Traffic::Icmpv6(kind),
            Traffic::Other(number) => netpol_sim::Traffic::Other(number),
        };
        let (source, destination) = (probe.source(), probe.destination());
        let connection = Connection::new(End::Address(source), End::Address(destination), traffic);
        let own = [source, destination].iter().any(|end| *self.place_of(*end) == Place::Node);
        if own { connection.with_own_node() } else { connection }
    }

    /// Which of these packets reach their destinations; none for one that could not be sent.
    pub fn delivered(&mut self, probes: &[Probe]) -> Vec<Option<bool>> {
        match &mut self.field {
            Field::Node { lab, .. } => {
                let fates = lab.probe(probes).expect("probes can be sent");
                fates.iter().map(|fate| fate.sent.then_some(fate.delivered)).collect()
            }
            Field::Word(_) => {
                let connections: Vec<_> = probes.iter().map(|p| self.connection(p)).collect();
                let Field::Word(judge) = &mut self.field else { return Vec::new() };
                connections.iter().map(|c| Some(judge.connect(c))).collect()
            }
        }
    }

    /// Whether a packet arrived and whether its answer came back.
    pub fn answered(&mut self, probe: &Probe) -> bool {
        let connection = self.connection(probe);
        match &mut self.field {
            Field::Node { lab, .. } => one(lab, probe).answered,
            Field::Word(judge) => judge.connect(&connection) && judge.reply(&connection),
        }
    }

    /// Does one more packet pass on a connection that was opened before?
    pub(crate) fn goes_on(&mut self, probe: &Probe) -> bool {
        let connection = self.connection(probe);
        match &mut self.field {
            Field::Node { lab, .. } => one(lab, probe).delivered,
            Field::Word(judge) => judge.established(&connection),
        }
    }

    /// What the policies of the pods in `local` say of a packet.
    #[must_use]
    pub fn expected(&self, cluster: &Cluster, local: &BTreeSet<PodId>, probe: &Probe) -> bool {
        let connection = self.connection(probe);
        let owners = cluster.address_owners();
        let options: Options = self.settings.host.policy();
        [(Direction::Egress, probe.source()), (Direction::Ingress, probe.destination())].iter().all(
            |(direction, address)| {
                let here = owners.get(address).is_some_and(|&pod| local.contains(pod));
                !here || reference::direction_allowed(cluster, &connection, *direction, &options)
            },
        )
    }

    /// Makes the next packet of every flow its first. Who is asked is asked about first packets anyway.
    pub fn forget_connections(&mut self) {
        if let Field::Node { lab, .. } = &mut self.field {
            lab.forget_connections().expect("conntrack can be emptied");
        }
    }
}

pub(crate) fn one(lab: &mut Lab, probe: &Probe) -> Fate {
    lab.probe(std::slice::from_ref(probe)).expect("it can be sent").pop().expect("one for each")
}
