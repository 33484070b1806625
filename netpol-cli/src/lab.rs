//! `netpol lab`: the manifests' pods as network namespaces, policy in their kernel, every pair probed with real packets.

use crate::args::{Format, LabArgs};
use crate::kernel::Choice;
use crate::party::{self, Party};
use crate::{Answer, Failure, load, terminal};
use netpol_core::{Cluster, Direction, Match, Options, PortEntry, Protocol, Scope, compile};
use netpol_lab::{Lab, Place, Plan, Probe, Traffic, command};
use netpol_sim::{Connection, End, Simulator};
use netpol_verify::{Conclusion, Kernel, ProofOptions, Specification, prove};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::IpAddr;
use std::time::Instant;

/// Stands for all that is outside of the cluster: addresses for documentation, which no cluster uses.
const EXTERNAL: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 250)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x250)),
];

/// A port that no policy of a manifest is likely to name.
const UNNAMED_PORT: u16 = 61_999;

#[derive(Serialize)]
struct Report {
    backend: String,
    places: Vec<String>,
    probes: usize,
    milliseconds: u128,
    differing: usize,
    cells: Vec<Cell>,
    /// Whether the rules are proved for every packet, not only for those that were sent.
    proof: Proof,
}

#[derive(Serialize)]
struct Proof {
    proved: bool,
    /// Whether all packets from and to this place are as they should be; none for what is no pod.
    places: Vec<Option<bool>>,
    /// So many classes of packets were looked at.
    cells: usize,
    /// Why not.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

/// All probes from one place to another.
#[derive(Default, Serialize)]
struct Cell {
    from: usize,
    to: usize,
    allowed: usize,
    denied: usize,
    /// Probes whose fate was not what the simulator says.
    differing: Vec<String>,
}

pub(crate) fn run(args: &LabArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let manifests = load::read_for_answer(&args.input)?;
    let plan = Plan::of(manifests.cluster(), None).with_external(EXTERNAL);
    let cluster = plan.complete(manifests.cluster());
    let rules = compile(&cluster, Scope::Cluster).map_err(|e| Failure::Message(e.to_string()))?;
    let mut lab = Lab::new(&plan).map_err(|error| Failure::Message(error.to_string()))?;
    let enforced = lab.run(&Place::Node, || {
        let mut backend = Choice::plain(&args.backend).start();
        backend.replace(&rules)?;
        Ok::<_, Failure>((backend.to_string(), backend.report().defects))
    });
    let (backend, defects) = enforced.map_err(|error| message(&error))??;
    for defect in &defects {
        eprintln!("warning: {}", terminal::printable(defect));
    }
    if let Some(pod) = &args.shell {
        return shell(&lab, &party::parse(pod, &manifests)?);
    }
    let simulator = Simulator::new(rules, Options::default());
    let report = probe(&mut lab, &cluster, &simulator, backend)?;
    match args.output {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text => out.write_all(terminal::printable(&report.text()).as_bytes())?,
    }
    Ok(if report.differing == 0 && report.proof.proved { Answer::Yes } else { Answer::No })
}

/// The rules of the node against the policies, for every packet.
fn proof(lab: &Lab, cluster: &Cluster, places: &[Place]) -> Result<Proof, Failure> {
    let machine = lab.run(&Place::Node, || Kernel::new().machine());
    let machine = machine.map_err(|error| message(&error))?;
    let machine = machine.map_err(|e| Failure::Message(format!("{e}; {}", e.hint())))?;
    let interfaces = cluster
        .pods()
        .filter_map(|pod| Some((pod.id().clone(), lab.interface(pod.id())?.as_str().to_owned())));
    let options = ProofOptions::default().with_interfaces(interfaces.collect());
    let specification = Specification::new(cluster, None, Options::default());
    let report = prove(&machine, &specification, &options);
    let why = match &report.conclusion {
        Conclusion::Proved => String::new(),
        Conclusion::Refuted(refutations) => {
            refutations.first().map(ToString::to_string).unwrap_or_default()
        }
        Conclusion::NotProved { not_understood, .. } => {
            let places: Vec<String> = not_understood.iter().map(ToString::to_string).collect();
            format!("not understood: {}", places.join("; "))
        }
    };
    let of_place = |place: &Place| match place {
        Place::Pod(pod) => {
            let only = options.clone().with_only([pod.clone()].into());
            Some(prove(&machine, &specification, &only).is_proved())
        }
        _ => None,
    };
    let places = places.iter().map(of_place).collect();
    Ok(Proof { proved: report.is_proved(), places, cells: report.statistics.cells, why })
}

fn message(error: &netpol_lab::Error) -> Failure {
    Failure::Message(error.to_string())
}

/// A shell in a pod's namespace, until the user leaves it.
fn shell(lab: &Lab, party: &Party) -> Result<Answer, Failure> {
    let pod = match party {
        Party::Pods { pods, .. } => pods.first(),
        Party::Address(_) => None,
    };
    let pod = pod.ok_or_else(|| Failure::Message(format!("{party} is no pod")))?;
    let place = Place::Pod(pod.clone());
    for address in lab.addresses(&place) {
        eprintln!("{pod} has {address}");
    }
    let status = lab.run(&place, || command("bash").status()).map_err(|error| message(&error))?;
    status.map_err(|error| Failure::Message(format!("cannot run bash: {error}")))?;
    Ok(Answer::Yes)
}

fn probe(
    lab: &mut Lab,
    cluster: &Cluster,
    simulator: &Simulator,
    backend: String,
) -> Result<Report, Failure> {
    let places: Vec<Place> =
        lab.places().filter(|place| !matches!(place, Place::Node)).cloned().collect();
    let ports = ports(cluster);
    let mut probes = Vec::new();
    let mut cells: BTreeMap<(usize, usize), Cell> = BTreeMap::new();
    let mut of = Vec::new();
    for (from, source) in places.iter().enumerate() {
        for (to, destination) in places.iter().enumerate() {
            if from == to {
                continue;
            }
            cells.insert((from, to), Cell { from, to, ..Cell::default() });
            for (&source, &destination) in pairs(lab.addresses(source), lab.addresses(destination))
            {
                for &(protocol, port) in &ports {
                    probes.push(Probe::new(source, destination, Traffic::Port(protocol, port)));
                    of.push((from, to));
                }
                probes.push(Probe::new(source, destination, Traffic::echo(destination)));
                of.push((from, to));
            }
        }
    }
    let started = Instant::now();
    let fates = lab.probe(&probes).map_err(|error| message(&error))?;
    let milliseconds = started.elapsed().as_millis();
    let mut differing = 0;
    for ((probe, fate), cell) in probes.iter().zip(&fates).zip(of) {
        let Some(cell) = cells.get_mut(&cell) else { continue };
        let traffic = match probe.traffic() {
            Traffic::Port(protocol, port) => netpol_sim::Traffic::Port(protocol, port),
            Traffic::Icmpv6(kind) => netpol_sim::Traffic::Icmpv6(kind),
            Traffic::Other(number) => netpol_sim::Traffic::Other(number),
        };
        let (source, destination) =
            (End::Address(probe.source()), End::Address(probe.destination()));
        let connection = Connection::new(source, destination, traffic);
        let expected = simulator.judge(&connection).allowed();
        *if fate.delivered { &mut cell.allowed } else { &mut cell.denied } += 1;
        if fate.delivered != expected || !fate.sent {
            let word = |allowed| if allowed { "allowed" } else { "denied" };
            cell.differing.push(format!(
                "{connection}: {} by the simulator, {} by the kernel",
                word(expected),
                word(fate.delivered)
            ));
            differing += 1;
        }
    }
    let name = |place: &Place| match place {
        Place::Pod(pod) => pod.to_string(),
        _ => "external".to_owned(),
    };
    let proof = proof(lab, cluster, &places)?;
    Ok(Report {
        backend,
        places: places.iter().map(name).collect(),
        probes: probes.len(),
        milliseconds,
        differing,
        cells: cells.into_values().collect(),
        proof,
    })
}

/// Addresses of one family.
fn pairs<'a>(
    from: &'a [IpAddr],
    to: &'a [IpAddr],
) -> impl Iterator<Item = (&'a IpAddr, &'a IpAddr)> {
    from.iter().flat_map(move |source| {
        to.iter().filter(|to| to.is_ipv4() == source.is_ipv4()).map(move |to| (source, to))
    })
}

/// What to probe: every port that a policy or a container names, the ends of ranges, and one that nobody names.
fn ports(cluster: &Cluster) -> BTreeSet<(Protocol, u16)> {
    let mut ports: BTreeSet<(Protocol, u16)> =
        Protocol::ALL.into_iter().map(|protocol| (protocol, UNNAMED_PORT)).collect();
    let named = cluster.pods().flat_map(netpol_core::Pod::ports);
    ports.extend(named.map(|port| (port.protocol, port.port)));
    for policy in cluster.policies() {
        let rules = Direction::ALL.into_iter().filter_map(|d| policy.rules(d)).flatten();
        for entry in rules.flat_map(|rule| match &rule.matches.ports {
            Match::OneOf(entries) => entries.as_slice(),
            Match::Any => &[],
        }) {
            if let PortEntry::Range { protocol, first, last } = entry {
                ports.extend([(*protocol, *first), (*protocol, *last)]);
            }
        }
    }
    ports
}

impl Report {
    fn text(&self) -> String {
        let Self { backend, places, probes, milliseconds, differing, cells, proof } = self;
        let width = places.iter().map(|name| name.chars().count()).max().unwrap_or(0) + 4;
        let mut text = format!("{:width$}", "from \\ to");
        for to in 0..places.len() {
            text.push_str(&format!("{:>8}", to + 1));
        }
        text.push_str("  proved\n");
        for (from, name) in places.iter().enumerate() {
            text.push_str(&format!("{:width$}", format!("{:>2} {name}", from + 1)));
            for to in 0..places.len() {
                let cell = cells.iter().find(|cell| (cell.from, cell.to) == (from, to));
                let shown = cell.map_or_else(|| "-".to_owned(), Cell::text);
                text.push_str(&format!("{shown:>8}"));
            }
            let proved = match proof.places.get(from).copied().flatten() {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "-",
            };
            text.push_str(&format!("{proved:>8}\n"));
        }
        for line in cells.iter().flat_map(|cell| &cell.differing).take(20) {
            text.push_str(&format!("differs: {line}\n"));
        }
        text.push_str(&format!(
            "\n{probes} real packets through {backend} in {milliseconds} ms: `all` or `none` of a pair's probes arrived, or so many of them; {differing} \
             differ from the simulator\n"
        ));
        match proof {
            Proof { proved: true, cells, .. } => text.push_str(&format!(
                "proved: the rules do what the policies say for every packet ({cells} classes)\n"
            )),
            Proof { why, .. } => text.push_str(&format!("NOT proved: {why}\n")),
        }
        text
    }
}

impl Cell {
    fn text(&self) -> String {
        let mark = if self.differing.is_empty() { "" } else { "!" };
        match (self.allowed, self.denied) {
            (_, 0) => format!("{mark}all"),
            (0, _) => format!("{mark}none"),
            (allowed, denied) => format!("{mark}{allowed}/{}", allowed + denied),
        }
    }
}
