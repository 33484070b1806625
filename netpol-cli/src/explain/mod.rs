//! `netpol explain`: may this connection be opened, and which policy and rule says so?

mod needed;
mod report;
mod tiers;
mod words;

use crate::args::{ExplainArgs, Format};
use crate::party::{self, Party};
use crate::{Answer, Failure, load, terminal};
use netpol_core::{Family, Options, Pod, PodId};
use netpol_k8s::Manifests;
use netpol_sim::{Connection, Decision, End, Simulator, Traffic};
use report::Report;
use std::io::Write;
use std::net::IpAddr;

/// A workload may have many pods; so many pairs of them are asked.
const MOST_PAIRS: usize = 10_000;

pub(crate) fn run(args: &ExplainArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let manifests = load::read_for_answer(&args.input)?;
    let from = party::parse(&args.from, &manifests)?;
    let to = party::parse(&args.to, &manifests)?;
    let simulator = Simulator::new(load::rules(&manifests)?, Options::default());
    let questions = questions(&from, &to, &args.port, &manifests)?;
    let asked: Vec<(Question, Decision)> = questions
        .into_iter()
        .map(|question| {
            let decision = simulator.judge(&question.connection);
            (question, decision)
        })
        .collect();
    let report = Report::new(&from, &to, &args.port, asked, &manifests);
    match args.output {
        Format::Text => {
            let mut text = Vec::new();
            report.write_text(&mut text)?;
            out.write_all(terminal::printable(&String::from_utf8_lossy(&text)).as_bytes())?;
        }
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(if report.is_allowed() { Answer::Yes } else { Answer::No })
}

/// One connection to judge, between one pod or address and another.
struct Question {
    connection: Connection,
    from: Option<PodId>,
    to: Option<PodId>,
    family: Option<Family>,
}

/// Every connection that is meant: of each pod of one end to each of the other, in each family that both have.
fn questions(
    from: &Party,
    to: &Party,
    port: &str,
    manifests: &Manifests,
) -> Result<Vec<Question>, Failure> {
    let v6 = [from, to].iter().any(|party| matches!(party, Party::Address(a) if a.is_ipv6()));
    let traffic = party::traffic(port, to, v6, manifests)?;
    let (sources, destinations) = (ends(from, manifests), ends(to, manifests));
    let several = [&sources, &destinations].iter().any(|ends| {
        ends.iter().any(|(pod, _)| ends.first().is_some_and(|(first, _)| first != pod))
    });
    let mut questions = Vec::new();
    for (source, source_end) in &sources {
        for (destination, destination_end) in &destinations {
            // Pods of one workload reach each other through policy; a pod reaches itself without (NP-73), which says nothing
            // about the workload.
            if source.is_some() && source == destination && several {
                continue;
            }
            let families = [family(source_end), family(destination_end)];
            if let [Some(a), Some(b)] = families
                && a != b
            {
                continue;
            }
            let family = families.into_iter().flatten().next();
            let traffic = of_family(traffic, family);
            let mut connection =
                Connection::new(source_end.clone(), destination_end.clone(), traffic);
            if own_node(source.as_ref(), destination_end, manifests)
                || own_node(destination.as_ref(), source_end, manifests)
            {
                connection = connection.with_own_node();
            }
            let (from, to) = (source.clone(), destination.clone());
            questions.push(Question { connection, from, to, family });
            if questions.len() >= MOST_PAIRS {
                return Ok(questions);
            }
        }
    }
    if questions.is_empty() {
        return Err(Failure::Message(format!(
            "{from} and {to} have no IP family in common, so nothing can be sent"
        )));
    }
    Ok(questions)
}

/// The ends that a party stands for: each pod at each of its addresses, or by identity while it has none.
fn ends(party: &Party, manifests: &Manifests) -> Vec<(Option<PodId>, End)> {
    let owners = manifests.cluster().address_owners();
    match party {
        Party::Address(address) => {
            vec![(owners.get(address).map(|&pod| pod.clone()), End::Address(*address))]
        }
        Party::Pods { pods, .. } => {
            let mut ends = Vec::new();
            for pod in pods.iter().filter_map(|pod| manifests.cluster().pod(pod)) {
                let id = pod.id();
                // A pod on the host network has its node's addresses.
                let owned = |a: &&IpAddr| !pod.is_managed() || owners.get(*a) == Some(&id);
                let before = ends.len();
                let addresses = pod.addresses().iter().filter(owned);
                ends.extend(addresses.map(|&a| (Some(id.clone()), End::Address(a))));
                if ends.len() == before {
                    ends.push((Some(id.clone()), End::Pod(id.clone())));
                }
            }
            ends
        }
    }
}

fn family(end: &End) -> Option<Family> {
    match end {
        End::Address(address) => Some(Family::of(*address)),
        End::Pod(_) => None,
    }
}

/// An echo request is another protocol in each family.
fn of_family(traffic: Traffic, family: Option<Family>) -> Traffic {
    match (traffic, family) {
        (Traffic::Other(1), Some(Family::V6)) => Traffic::Icmpv6(128),
        (Traffic::Icmpv6(128), Some(Family::V4)) => Traffic::Other(1),
        _ => traffic,
    }
}

/// Is `end` an address of the node on which `pod` runs?
fn own_node(pod: Option<&PodId>, end: &End, manifests: &Manifests) -> bool {
    let End::Address(address) = end else { return false };
    let cluster = manifests.cluster();
    let node = pod.and_then(|pod| cluster.pod(pod)).and_then(Pod::node);
    node.and_then(|node| cluster.node(node)).is_some_and(|node| node.addresses().contains(address))
}
