//! Pod sets, named ports and networks as sets.

use super::Builder;
use crate::model::{Element, KeyType, Name, Value};
use ipnet::IpNet;
use netpol_core::{AddressSet, NetSetId};
use std::collections::BTreeSet;

/// Up to this many networks are compared one by one; more become sets (dataplane.md finding 8).
const MOST_INLINE_NETWORKS: usize = 8;
/// Networks of up to this many prefix lengths become a hash set for each; more become an interval set.
const MOST_PREFIX_LENGTHS: usize = 4;

impl Builder<'_> {
    pub(super) fn sets(&mut self) {
        for (id, set) in self.ruleset.pod_sets() {
            let elements = set.members.iter().flat_map(|pod| self.addresses(pod));
            let elements = elements.map(|address| vec![Value::Address(address)]).collect();
            let comment = set.selection.to_string();
            self.add_set(
                Name::made(format_args!("p_{id}")),
                vec![self.key_type()],
                elements,
                &comment,
            );
        }
        for (id, set) in self.ruleset.named_port_sets() {
            let elements = set.members.iter().flat_map(|(pod, port)| {
                self.addresses(pod)
                    .map(|address| vec![Value::Address(address), Value::Ports(*port, *port)])
            });
            let elements = elements.collect();
            let of = match &set.selection {
                Some(selection) => selection.to_string(),
                None => "all pods".to_owned(),
            };
            let comment = format!("{} port {} of {of}", set.protocol, set.name);
            let key = vec![self.key_type(), KeyType::Service];
            self.add_set(Name::made(format_args!("n_{id}")), key, elements, &comment);
        }
        for (id, addresses) in self.ruleset.net_sets() {
            for (name, elements) in self.net_sets(*id, addresses) {
                self.add_set(name, vec![self.key_type()], elements, "networks");
            }
        }
        let pairs = self.ruleset.endpoints().keys().flat_map(|pod| {
            self.addresses(pod).flat_map(|source| {
                self.addresses(pod).map(move |to| vec![Value::Address(source), Value::Address(to)])
            })
        });
        let pairs = pairs.collect();
        let key = vec![self.key_type(); 2];
        self.add_set(
            Name::made("self"),
            key,
            pairs,
            "addresses of one pod: its traffic with itself",
        );
    }

    pub(super) fn networks(&self, addresses: &AddressSet) -> Vec<IpNet> {
        addresses.cidrs().filter(|net| self.is_of(net.addr())).collect()
    }

    /// The sets of a list of networks that is too long to be written out in each rule.
    pub(super) fn net_sets(
        &self,
        id: NetSetId,
        addresses: &AddressSet,
    ) -> Vec<(Name, BTreeSet<Element>)> {
        let networks = self.networks(addresses);
        if networks.len() <= MOST_INLINE_NETWORKS {
            return Vec::new();
        }
        let lengths: BTreeSet<u8> = networks.iter().map(IpNet::prefix_len).collect();
        if lengths.len() > MOST_PREFIX_LENGTHS {
            let ranges = addresses.ranges().filter(|(first, _)| self.is_of(*first));
            let ranges = ranges.map(|(first, last)| vec![Value::Addresses(first, last)]).collect();
            return vec![(Name::made(format_args!("c_{id}")), ranges)];
        }
        let of_length = |length: u8| {
            let networks = networks.iter().filter(|net| net.prefix_len() == length);
            networks.map(|net| vec![Value::Address(net.network())]).collect()
        };
        let name = |length| Name::made(format_args!("c_{id}_{length}"));
        lengths.into_iter().map(|length| (name(length), of_length(length))).collect()
    }
}
