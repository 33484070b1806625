//! Counterexamples become real packets between network namespaces.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use netpol_core::{PodId, Protocol};
use netpol_lab::{Lab, Place, Probe, TcpConnection, Toward, Traffic};
use netpol_verify::machine::{
    ConnState, Fate, Machine, Packet, Path, address_value, device_value, value_device,
};
use netpol_verify::{Refutation, Specification};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_millis(80);
/// For what should have arrived and did not: a busy machine may have been too slow.
const LONG: Duration = Duration::from_secs(1);
/// The device behind which everything is that is no pod.
const UPLINK: &str = "uplink";

/// What is sent, and what comes first.
#[derive(Debug)]
enum Plan {
    /// A packet of no connection.
    New(Probe),
    /// One more packet of a connection that this one opens.
    Open { opening: Probe, next: Probe },
    /// Data on a TCP connection.
    Tcp { client: IpAddr, server: IpAddr, port: u16, toward: Toward },
}

/// What the parts of a counterexample are judged by.
pub(crate) struct Judges<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) specification: &'a Specification<'a>,
}

/// Sends the packet of a refutation, through the rules that it refutes. `closed` puts these into the kernel of the node, `open` takes
/// everything out that denies. Did it arrive? An error says why such a packet cannot be sent here.
pub(crate) fn send(
    lab: &mut Lab,
    judges: &Judges<'_>,
    refutation: &Refutation,
    open: &(dyn Fn() + Sync),
    closed: &(dyn Fn() + Sync),
) -> Result<bool, &'static str> {
    let mut packet = refutation.packet.clone();
    let plan = plan(lab, judges, refutation, &mut packet)?;
    settle(judges, refutation, &packet)?;
    lab.forget_connections().unwrap();
    lab.set_patience(PATIENCE);
    let on_node = |lab: &Lab, task: &(dyn Fn() + Sync)| lab.run(&Place::Node, task).unwrap();
    let arrives = |lab: &mut Lab, probe: &Probe, expected: bool| {
        for patience in [PATIENCE, LONG] {
            lab.set_patience(patience);
            let fate = lab.probe(std::slice::from_ref(probe)).unwrap().pop().unwrap();
            if !fate.sent {
                return Err("a packet for which its sender has no route");
            }
            if fate.delivered == expected || patience == LONG {
                return Ok(fate.delivered);
            }
        }
        Ok(!expected)
    };
    let expected = refutation.kernel == Fate::Accepted;
    match plan {
        Plan::New(probe) => arrives(lab, &probe, expected),
        Plan::Open { opening, next } => {
            on_node(lab, open);
            let opened = lab.probe(&[opening]).unwrap().pop().unwrap().answered;
            on_node(lab, closed);
            if !opened {
                return Err("a connection that cannot be opened");
            }
            arrives(lab, &next, expected)
        }
        Plan::Tcp { client, server, port, toward } => {
            on_node(lab, open);
            let connection = lab.connect(client, server, port, LONG).unwrap();
            on_node(lab, closed);
            let Some(connection) = connection else {
                return Err("a connection that cannot be opened");
            };
            data_arrives(connection, judges, &packet, refutation, toward)
        }
    }
}

fn data_arrives(
    mut connection: TcpConnection,
    judges: &Judges<'_>,
    packet: &Packet,
    refutation: &Refutation,
    toward: Toward,
) -> Result<bool, &'static str> {
    // The kernel chose the client's port.
    let port = connection.client().local_addr().unwrap().port();
    let mut packet = packet.clone();
    match toward {
        Toward::Server => packet.first = port,
        Toward::Client => packet.second = port,
    }
    settle(judges, refutation, &packet)?;
    let expected = refutation.kernel == Fate::Accepted;
    let patience = if expected { LONG } else { Duration::from_millis(300) };
    // A reset is an end that did not arrive, too.
    Ok(connection.send(toward, patience).unwrap_or(false))
}

/// Is the packet as it can be sent still one of those that the report means?
fn settle(
    judges: &Judges<'_>,
    refutation: &Refutation,
    packet: &Packet,
) -> Result<(), &'static str> {
    let fates = judges.machine.fates(packet, refutation.path);
    let meant = fates == BTreeSet::from([refutation.kernel]);
    let judged = refutation.path == Path::Arrival
        || packet.state != ConnState::New
        || judges.specification.judge(packet, refutation.path).allowed == refutation.allowed;
    if meant && judged { Ok(()) } else { Err("a device or a port that is not there") }
}

fn plan(
    lab: &mut Lab,
    judges: &Judges<'_>,
    refutation: &Refutation,
    packet: &mut Packet,
) -> Result<Plan, &'static str> {
    if refutation.path == Path::Arrival {
        return forged(lab, judges, refutation, packet);
    }
    // Any address that is as good as that of the packet will do for the node.
    let node: Vec<IpAddr> = lab.addresses(&Place::Node).to_vec();
    for address in node.into_iter().filter(|address| address.is_ipv6() == packet.v6) {
        let mut tried = packet.clone();
        match refutation.path {
            Path::FromNode => tried.source = address_value(address),
            Path::ToNode => tried.destination = address_value(address),
            Path::Forward | Path::Arrival => break,
        }
        if settle(judges, refutation, &tried).is_ok() {
            *packet = tried;
            break;
        }
    }
    let (source, destination) = (packet.source_address(), packet.destination_address());
    let mut sender = end(lab, source, &mut packet.in_device, refutation.path == Path::FromNode)?;
    let receiver = end(lab, destination, &mut packet.out_device, refutation.path == Path::ToNode)?;
    if receiver.is_some() {
        return Err("a destination that routing leads elsewhere");
    }
    // What a pod sends to itself does not come to the node by itself.
    if let (Ok(Place::Pod(pod)), Ok(to)) = (lab.place_of(source), lab.place_of(destination))
        && *to == Place::Pod(pod.clone())
    {
        sender = Some(pod.clone());
    }
    let outside = |address| matches!(lab.place_of(address), Ok(Place::World));
    if outside(source) && outside(destination) {
        return Err("a packet past the node");
    }
    let (traffic, client) = traffic(packet)?;
    let probe = |from: IpAddr, to: IpAddr, traffic, client: Option<u16>| {
        let probe = Probe::new(from, to, traffic);
        client.map_or(probe.clone(), |port| probe.with_client_port(port))
    };
    let new = probe(source, destination, traffic, client);
    match (packet.state, packet.protocol) {
        (ConnState::New, _) => Ok(Plan::New(match sender {
            Some(pod) => new.sent_by(pod),
            None => new,
        })),
        (ConnState::Untracked, 58) if matches!(traffic, Traffic::Icmpv6(133..=137)) => {
            Ok(Plan::New(new))
        }
        _ if sender.is_some() => Err("a forged packet of an open connection"),
        (ConnState::Established, 6) if packet.reply => {
            let (client, server) = (destination, source);
            Ok(Plan::Tcp { client, server, port: packet.first, toward: Toward::Client })
        }
        (ConnState::Established, 6) => {
            let (client, server) = (source, destination);
            Ok(Plan::Tcp { client, server, port: packet.second, toward: Toward::Server })
        }
        (ConnState::Established, 17) if packet.reply => {
            let port = Traffic::Port(Protocol::Udp, packet.first);
            let opening = probe(destination, source, port, Some(packet.second));
            Ok(Plan::Open { opening, next: new })
        }
        (ConnState::Established, 132) => Err("SCTP on an open connection"),
        (ConnState::Established, _)
            if packet.reply && matches!(traffic, Traffic::Icmpv6(_) | Traffic::Other(1)) =>
        {
            Err("an echo request as an answer")
        }
        (ConnState::Established, _) => {
            let client = client.or(Some(1));
            let next = probe(source, destination, traffic, client);
            let (from, to) =
                if packet.reply { (destination, source) } else { (source, destination) };
            Ok(Plan::Open { opening: probe(from, to, traffic, client), next })
        }
        (ConnState::Related, _) => Err("a related packet"),
        (ConnState::Invalid, _) => Err("an invalid packet"),
        (ConnState::Untracked, _) => Err("an untracked packet"),
    }
}

/// Makes sure that somebody has this address, and that it is behind this device. The pod that sends in its place, if it is
/// another's.
fn end(
    lab: &mut Lab,
    address: IpAddr,
    device: &mut Option<u128>,
    own: bool,
) -> Result<Option<PodId>, &'static str> {
    if own {
        let added = lab.add_address(&Place::Node, address);
        return added.map(|()| None).map_err(|_| "an address that the node cannot have");
    }
    let behind = pod_behind(lab, *device);
    let owner = lab.place_of(address).ok().cloned();
    match (behind, owner) {
        (Some(pod), Some(Place::Pod(owner))) if pod == owner => Ok(None),
        (Some(pod), _) => Ok(Some(pod)),
        (None, Some(Place::Pod(_))) => Err("an address of a pod behind another device"),
        (None, _) => {
            *device = device_value(UPLINK);
            let added = lab.add_address(&Place::World, address);
            added.map(|()| None).map_err(|_| "an address that no host can have")
        }
    }
}

/// The pod behind a device of the node.
fn pod_behind(lab: &Lab, device: Option<u128>) -> Option<PodId> {
    let name = value_device(device?);
    let pods = lab.places().filter_map(|place| match place {
        Place::Pod(pod) => Some(pod),
        _ => None,
    });
    let is_behind = |pod: &&PodId| lab.interface(pod).is_some_and(|i| i.as_str() == name);
    pods.into_iter().find(is_behind).cloned()
}

/// What carries the packet, and from which port.
fn traffic(packet: &Packet) -> Result<(Traffic, Option<u16>), &'static str> {
    let kind = u8::try_from(packet.first >> 8).unwrap();
    let plain = packet.first & 0xff == 0;
    let ports = |protocol| Ok((Traffic::Port(protocol, packet.second), Some(packet.first)));
    match packet.protocol {
        6 => ports(Protocol::Tcp),
        17 => ports(Protocol::Udp),
        132 => ports(Protocol::Sctp),
        1 if !packet.v6 && plain && kind == 8 => Ok((Traffic::Other(1), None)),
        58 if packet.v6 && plain && matches!(kind, 128 | 133..=137) => {
            Ok((Traffic::Icmpv6(kind), None))
        }
        1 if !packet.v6 => Err("an ICMP message that asks for nothing"),
        58 if packet.v6 => Err("an ICMPv6 message that asks for nothing"),
        number => {
            let traffic = Traffic::Other(number);
            let can = traffic.can_be_sent_to(packet.destination_address());
            if can { Ok((traffic, None)) } else { Err("an extension header") }
        }
    }
}

/// A packet from the device of a pod. It passes, or does not pass, before it is known where it goes; to see it arrive, it must
/// go where policy lets it.
fn forged(
    lab: &mut Lab,
    judges: &Judges<'_>,
    refutation: &Refutation,
    packet: &mut Packet,
) -> Result<Plan, &'static str> {
    let pod = pod_behind(lab, packet.in_device).ok_or("a device that is no pod's")?;
    let source = packet.source_address();
    if !netpol_lab::is_routable(source) {
        return Err("a source that is not routed anyway");
    }
    let family = |address: &IpAddr| address.is_ipv6() == packet.v6;
    let mut ends: Vec<(IpAddr, Place)> = Vec::new();
    for place in lab.places() {
        let own = lab.addresses(place).iter().copied().filter(family);
        ends.extend(own.map(|address| (address, place.clone())));
    }
    for (destination, place) in ends {
        if destination == source || place == Place::Pod(pod.clone()) {
            continue;
        }
        let ports = [(17, packet.second), (6, 80), (17, 53), (6, 443)].map(|(number, port)| {
            let protocol = if number == 6 { Protocol::Tcp } else { Protocol::Udp };
            (Traffic::Port(protocol, port), number, 40000, port)
        });
        // What the guard lets pass by its type is of no connection.
        let kind = u8::try_from(packet.first >> 8).unwrap();
        let typed = (packet.protocol == 58 && packet.v6).then_some((
            Traffic::Icmpv6(kind),
            58,
            packet.first,
            packet.second,
        ));
        for (traffic, protocol, first, second) in typed.into_iter().chain(ports) {
            let mut tried = packet.clone();
            tried.destination = address_value(destination);
            (tried.protocol, tried.first, tried.second) = (protocol, first, second);
            tried.state = if protocol == 58 { ConnState::Untracked } else { ConnState::New };
            let path = if place == Place::Node { Path::ToNode } else { Path::Forward };
            tried.out_device = match &place {
                Place::Node => None,
                Place::Pod(pod) => device_value(lab.interface(pod).map_or(UPLINK, |i| i.as_str())),
                _ => device_value(UPLINK),
            };
            let passes =
                |path| judges.machine.fates(&tried, path) == BTreeSet::from([Fate::Accepted]);
            let guard = judges.machine.fates(&tried, Path::Arrival);
            // What is dropped though it is the pod's own must be what policy lets through.
            let shows = if refutation.kernel == Fate::Accepted {
                passes(path)
            } else {
                judges.specification.judge(&tried, path).allowed
            };
            if guard == BTreeSet::from([refutation.kernel]) && shows {
                let probe = Probe::new(source, destination, traffic);
                *packet = Packet { out_device: None, ..tried };
                return Ok(Plan::New(probe.sent_by(pod).with_client_port(40000)));
            }
        }
    }
    Err("a forged packet that goes nowhere")
}
