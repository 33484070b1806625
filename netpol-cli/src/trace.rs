//! `netpol trace`: what the kernel's rules do with one packet, and why.

use crate::args::{Format, TraceArgs};
use crate::party::{self, Party};
use crate::verify::{Place, Source, Step, fate};
use crate::{Answer, Failure, load, terminal};
use netpol_k8s::Manifests;
use netpol_sim::Traffic;
use netpol_verify::Judgement;
use netpol_verify::machine::{ConnState, Fate, Packet, Path, Run, address_value, device_value};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;

/// The source port of packets that are made up.
const SOURCE_PORT: u16 = 40_000;

#[derive(Serialize)]
struct Json<'a> {
    packets: Vec<PacketJson<'a>>,
    /// What the rules have that is not followed.
    not_followed: Vec<&'a str>,
}

#[derive(Serialize)]
struct PacketJson<'a> {
    packet: String,
    way: String,
    policy: &'static str,
    reasons: &'a [String],
    /// One, unless the kernel has a choice or something is not understood.
    runs: Vec<RunJson<'a>>,
}

#[derive(Serialize)]
struct RunJson<'a> {
    kernel: &'static str,
    trace: Vec<Step<'a>>,
    not_understood: Vec<Place<'a>>,
}

/// A packet with what becomes of it.
struct Traced {
    packet: Packet,
    path: Path,
    runs: Vec<Run>,
    judgement: Judgement,
}

pub(crate) fn run(args: &TraceArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let manifests = load::read_for_answer(&args.inspect.input)?;
    let (from, to) = (party::parse(&args.from, &manifests)?, party::parse(&args.to, &manifests)?);
    let source = Source::new(&args.inspect, &manifests)?;
    let specification = source.specification(&manifests);
    let mut traced = Vec::new();
    for (packet, path) in packets(args, &from, &to, &source, &manifests)? {
        let runs = source.machine.run(&packet, path);
        let judgement = specification.judge(&packet, path);
        traced.push(Traced { packet, path, runs, judgement });
    }
    match args.inspect.output {
        Format::Json => {
            let packets = traced.iter().map(json).collect();
            let not_followed = source.machine.left_out.iter().map(String::as_str).collect();
            serde_json::to_writer_pretty(&mut *out, &Json { packets, not_followed })
                .map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text => {
            for one in &traced {
                out.write_all(terminal::printable(&text(one)).as_bytes())?;
            }
            for what in &source.machine.left_out {
                let line = format!("not followed: {what}\n");
                out.write_all(terminal::printable(&line).as_bytes())?;
            }
        }
    }
    let fates: BTreeSet<Fate> = traced.iter().flat_map(|t| &t.runs).map(|run| run.fate).collect();
    Ok(if fates.contains(&Fate::Unknown) {
        Answer::Unknown
    } else if fates.contains(&Fate::Dropped) {
        Answer::No
    } else {
        Answer::Yes
    })
}

/// The first packet of the connection, for each family in which both ends have an address.
fn packets(
    args: &TraceArgs,
    from: &Party,
    to: &Party,
    source: &Source,
    manifests: &Manifests,
) -> Result<Vec<(Packet, Path)>, Failure> {
    let mut packets = Vec::new();
    for v6 in [false, true] {
        let (Some(sender), Some(receiver)) =
            (address(from, v6, manifests), address(to, v6, manifests))
        else {
            continue;
        };
        let traffic = party::traffic(&args.port, to, v6, manifests)?;
        let (protocol, first, second) = match traffic {
            Traffic::Port(protocol, port) => (protocol.number(), SOURCE_PORT, port),
            Traffic::Icmpv6(kind) => (58, u16::from(kind) << 8, 0),
            // An echo request.
            Traffic::Other(1) => (1, 8 << 8, 0),
            Traffic::Other(number) => (number, 0, 0),
        };
        let cluster = manifests.cluster();
        let node = source.node().and_then(|name| cluster.node(name));
        let is_node = |address| node.is_some_and(|node| node.addresses().contains(&address));
        let path = match (is_node(sender), is_node(receiver)) {
            (true, _) => Path::FromNode,
            (false, true) => Path::ToNode,
            (false, false) => Path::Forward,
        };
        let owners = cluster.address_owners();
        let device = |address: &IpAddr| {
            let pod = owners.get(address)?;
            device_value(source.interfaces.get(*pod)?)
        };
        let packet = Packet {
            v6,
            source: address_value(sender),
            destination: address_value(receiver),
            protocol,
            first,
            second,
            in_device: device(&sender),
            out_device: device(&receiver),
            state: ConnState::New,
            reply: false,
            mark: 0,
        };
        packets.push((packet, path));
    }
    if packets.is_empty() {
        return Err(Failure::Message(format!(
            "{from} and {to} have no addresses of one family in these manifests, so there is no packet"
        )));
    }
    Ok(packets)
}

fn address(party: &Party, v6: bool, manifests: &Manifests) -> Option<IpAddr> {
    match party {
        Party::Address(address) => Some(*address).filter(|address| address.is_ipv6() == v6),
        Party::Pods { pods, .. } => {
            let pods = pods.iter().filter_map(|pod| manifests.cluster().pod(pod));
            let mut all = pods.flat_map(netpol_core::Pod::addresses).copied();
            all.find(|address| address.is_ipv6() == v6)
        }
    }
}

fn json(traced: &Traced) -> PacketJson<'_> {
    PacketJson {
        packet: traced.packet.to_string(),
        way: traced.path.to_string(),
        policy: if traced.judgement.allowed { "allowed" } else { "denied" },
        reasons: &traced.judgement.reasons,
        runs: traced
            .runs
            .iter()
            .map(|run| RunJson {
                kernel: fate(run.fate),
                trace: run.trace.iter().map(Step::from).collect(),
                not_understood: run.not_understood.iter().map(Place::from).collect(),
            })
            .collect(),
    }
}

fn text(traced: &Traced) -> String {
    let mut text = format!("{} ({})\n", traced.packet, traced.path);
    for (number, run) in (1..).zip(&traced.runs) {
        if traced.runs.len() > 1 {
            let count = traced.runs.len();
            text.push_str(&format!("way {number} of {count} that it may take:\n"));
        }
        for step in &run.trace {
            text.push_str(&format!("  {step}\n"));
        }
        for what in &run.not_understood {
            text.push_str(&format!("  not understood: {what}\n"));
        }
        text.push_str(&format!("{} by the rules\n", fate(run.fate)));
    }
    let word = if traced.judgement.allowed { "allowed" } else { "denied" };
    text.push_str(&format!("{word} by the policies: {}\n\n", traced.judgement.reasons.join("; ")));
    text
}
