//! Peers of a rule: pods, blocks of addresses and nodes.

use super::Question;
use super::selectors::{pod_selected, selected};
use ipnet::IpNet;
use netpol_core::{IpBlock, Peer};
use std::net::IpAddr;

impl Question<'_> {
    pub(super) fn peer_matches(&self, peer: &Peer) -> bool {
        match peer {
            // NP-27: never an address that is no pod's.
            Peer::Pods(pods) => {
                self.remote.pod.is_some_and(|pod| pod_selected(self.cluster, pods, pod))
            }
            // NP-32: by address, whoever has it.
            Peer::Network(block) => {
                self.remote.address.is_some_and(|address| block_contains(block, address))
            }
            // CNP-18: the addresses of nodes, whoever has them.
            Peer::Nodes(selector) => self.remote.address.is_some_and(|address| {
                let mut nodes = self.cluster.nodes();
                nodes.any(|node| {
                    selected(selector, node.labels()) && node.addresses().contains(&address)
                })
            }),
            _ => false,
        }
    }
}

/// In the block and in none of its holes (NP-30).
fn block_contains(block: &IpBlock, address: IpAddr) -> bool {
    in_network(&block.cidr, address) && !block.except.iter().any(|hole| in_network(hole, address))
}

/// The same family, and the same first bits; the others mean nothing (NP-31, NP-36).
fn in_network(net: &IpNet, address: IpAddr) -> bool {
    let (difference, width) = match (net.addr(), address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits() ^ b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits(), 128),
        _ => return false,
    };
    // Shifting everything out, for a prefix of length 0, leaves nothing that could differ.
    difference.checked_shr(width - u32::from(net.prefix_len())).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{ask, block, check, egress, ingress, ip, is, peers, tcp, with};
    use super::*;
    use netpol_core::PodSelection;

    #[test]
    fn pod_peers_are_never_other_addresses() {
        let anyone = peers([Peer::Pods(PodSelection::everything())]);
        check(
            &with([ingress(is("a"), vec![anyone.clone()]), egress(is("a"), vec![anyone])]),
            &[
                ("10.0.0.2", "10.0.0.1", tcp(80), true),
                ("n/b", "n/a", tcp(80), true),
                ("203.0.113.1", "10.0.0.1", tcp(80), false),
                ("10.0.0.1", "192.168.0.1", tcp(80), false),
            ],
        );
    }

    #[test]
    fn blocks_and_holes() {
        let net = |text: &str| -> IpNet { text.parse().unwrap() };
        for (cidr, inside, outside) in [
            ("10.1.2.3/24", "10.1.2.255", "10.1.3.0"), // NP-36
            ("10.0.0.1/32", "10.0.0.1", "10.0.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::"), // NP-31
            ("128.0.0.0/1", "128.0.0.0", "127.255.255.255"),
            ("::/0", "ffff::", "0.0.0.0"),
            ("::ffff:0:0/96", "::ffff:1.2.3.4", "1.2.3.4"),
            ("fd00::1/128", "fd00::1", "fd00::"),
        ] {
            assert!(in_network(&net(cidr), ip(inside)), "{inside} in {cidr}");
            assert!(!in_network(&net(cidr), ip(outside)), "{outside} in {cidr}");
        }
        // A hole is no denial: another peer may fill it (NP-30). Holes of the other family take nothing away.
        let holey = || block("10.0.0.0/8", &["10.0.0.2/31", "::/0", "192.168.0.0/16"]);
        let from = |source: &str, peer: Vec<Peer>, expected: bool| {
            let cluster = with([ingress(is("a"), vec![peers(peer)])]);
            assert_eq!(ask(&cluster, source, "10.0.0.1", tcp(80)), expected, "{source}");
        };
        from("10.9.9.9", vec![holey()], true);
        from("10.0.0.2", vec![holey()], false);
        from("10.0.0.2", vec![holey(), block("10.0.0.2/32", &[])], true);
        from("10.9.9.9", vec![block("10.9.9.0/24", &["10.0.0.0/8"])], false);
    }

    #[test]
    fn blocks_match_pods_by_known_address_only() {
        // NP-32.
        let cluster = with([ingress(is("a"), vec![peers([block("10.0.0.2/32", &[])])])]);
        check(
            &cluster,
            &[
                ("10.0.0.2", "10.0.0.1", tcp(80), true),
                ("10.0.0.2", "n/a", tcp(80), true),
                ("::ffff:10.0.0.2", "::ffff:10.0.0.1", tcp(80), true), // NP-101
                ("n/b", "10.0.0.1", tcp(80), false),
                ("fd00::2", "fd00::1", tcp(80), false),
            ],
        );
    }
}
