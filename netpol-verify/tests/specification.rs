//! The specification side of the prover says what `netpol_sim::reference` says.

use netpol_core::{Cluster, Options};
use netpol_sim::{Connection, End, Traffic, reference};
use netpol_testkit::strategies::{clusters_with_connections, options};
use netpol_verify::Specification;
use netpol_verify::machine::{ConnState, Packet, Path, address_value};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::Cell;

fn packet(connection: &Connection) -> Option<Packet> {
    let (End::Address(source), End::Address(destination)) =
        (connection.source(), connection.destination())
    else {
        return None;
    };
    let (protocol, first, second) = match connection.traffic() {
        Traffic::Port(protocol, port) => (protocol.number(), 40000, port),
        Traffic::Icmpv6(kind) if source.is_ipv6() => (58, u16::from(kind) << 8, 0),
        Traffic::Icmpv6(_) => return None,
        Traffic::Other(number) => (number, 0, 0),
    };
    Some(Packet {
        v6: source.is_ipv6(),
        source: address_value(*source),
        destination: address_value(*destination),
        protocol,
        first,
        second,
        in_device: None,
        out_device: None,
        state: ConnState::New,
        reply: false,
        mark: 0,
    })
}

fn compare(
    cluster: &Cluster,
    connections: &[Connection],
    options: Options,
) -> Result<usize, TestCaseError> {
    let specification = Specification::new(cluster, None, options);
    let mut compared = 0;
    for connection in connections {
        let Some(packet) = packet(connection) else { continue };
        let owners = cluster.address_owners();
        let (source, destination) = (packet.source_address(), packet.destination_address());
        let path = match (connection.own_node(), owners.contains_key(&source)) {
            (false, _) => Path::Forward,
            (true, true) if owners.contains_key(&destination) => continue,
            (true, true) => Path::ToNode,
            (true, false) => Path::FromNode,
        };
        let judgement = specification.judge(&packet, path);
        let expected = reference::allowed(cluster, connection, &options);
        prop_assert_eq!(judgement.allowed, expected, "{}: {:?}", connection, judgement);
        compared += 1;
    }
    Ok(compared)
}

#[test]
fn it_is_the_reference() {
    let compared = Cell::new(0);
    let config = ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() };
    let strategy = (clusters_with_connections(), options());
    let result = TestRunner::new(config).run(&strategy, |((cluster, connections), options)| {
        compared.set(compared.get() + compare(&cluster, &connections, options)?);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("{} connections compared", compared.get());
    assert!(compared.get() > 1000);
}
