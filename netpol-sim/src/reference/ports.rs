//! Ports of a rule, by number and by name.

use super::Question;
use crate::connection::Traffic;
use netpol_core::PortEntry;

impl Question<'_> {
    pub(super) fn port_matches(&self, entry: &PortEntry) -> bool {
        let Traffic::Port(protocol, port) = self.traffic else {
            return false; // NP-51
        };
        match entry {
            PortEntry::Protocol(wanted) => *wanted == protocol,
            PortEntry::Range { protocol: wanted, first, last } => {
                *wanted == protocol && *first <= port && port <= *last
            }
            // NP-42..NP-46: the destination pod says what the name means, in either direction.
            PortEntry::Named { protocol: wanted, name } => {
                *wanted == protocol
                    && self.destination.is_some_and(|pod| {
                        pod.ports()
                            .iter()
                            .any(|p| p.name == *name && p.protocol == protocol && p.port == port)
                    })
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{check, egress, ingress, is, pod, ports, tcp, with};
    use super::*;
    use netpol_core::{ContainerPort, Protocol};

    fn named(protocol: Protocol, name: &str) -> PortEntry {
        PortEntry::Named { protocol, name: name.into() }
    }

    #[test]
    fn names_of_ports_belong_to_the_destination() {
        let port = |name: &str, protocol, port| ContainerPort { name: name.into(), protocol, port };
        let mut cluster = with([
            egress(is("a"), vec![ports([named(Protocol::Tcp, "web")])]),
            ingress(is("b"), vec![ports([named(Protocol::Tcp, "web")])]),
        ]);
        cluster.insert_pod(pod("a", &["10.0.0.1"]).with_ports([port("web", Protocol::Tcp, 1)]));
        cluster.insert_pod(pod("b", &["10.0.0.2"]).with_ports([
            port("web", Protocol::Tcp, 80),
            port("web", Protocol::Tcp, 81), // NP-46
            port("web", Protocol::Udp, 53),
        ]));
        check(
            &cluster,
            &[
                ("10.0.0.1", "10.0.0.2", tcp(80), true),
                ("10.0.0.1", "10.0.0.2", tcp(81), true),
                ("n/a", "n/b", tcp(81), true),
                ("10.0.0.1", "10.0.0.2", tcp(1), false),
                ("10.0.0.1", "10.0.0.2", tcp(53), false),
                ("10.0.0.1", "10.0.0.2", Traffic::Port(Protocol::Udp, 53), false), // NP-45
                ("10.0.0.1", "203.0.113.1", tcp(80), false),                       // NP-43
                ("203.0.113.1", "10.0.0.2", tcp(80), true),                        // NP-42
            ],
        );
        cluster.insert_pod(
            pod("b", &["10.0.0.2"])
                .with_ports([port("web", Protocol::Tcp, 80)])
                .with_host_network(true),
        );
        check(&cluster, &[("10.0.0.1", "10.0.0.2", tcp(80), false)]); // NP-80
    }
}
