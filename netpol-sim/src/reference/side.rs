//! What is known of the two ends of a connection, and which pod owns an address.

use crate::connection::End;
use netpol_core::{Cluster, Phase, Pod};
use std::net::IpAddr;

/// What is known of one end of a connection.
pub(super) struct Side<'a> {
    /// The managed pod at this end, if there is one.
    pub(super) pod: Option<&'a Pod>,
    /// The address that the packet carries, if it is known.
    pub(super) address: Option<IpAddr>,
}

impl<'a> Side<'a> {
    pub(super) fn of(cluster: &'a Cluster, end: &End) -> Self {
        match end {
            End::Address(address) => {
                let address = address.to_canonical(); // NP-101
                Self { pod: owner(cluster, address), address: Some(address) }
            }
            End::Pod(id) => Self {
                pod: cluster.pods().find(|pod| pod.id() == id && managed(pod)),
                address: None,
            },
        }
    }
}

/// Not on the host network (NP-80, CNP-39) and not finished (NP-91).
fn managed(pod: &Pod) -> bool {
    !pod.host_network() && matches!(pod.phase(), Phase::Pending | Phase::Running)
}

/// Of the managed pods that report the address: a running one, then the younger, then any fixed order (NP-93).
fn owner(cluster: &Cluster, address: IpAddr) -> Option<&Pod> {
    cluster
        .pods()
        .filter(|pod| managed(pod) && pod.addresses().contains(&address))
        .max_by_key(|pod| (pod.phase() == Phase::Running, pod.created(), pod.uid(), pod.id()))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{block, check, egress, ingress, ip, peers, pod, tcp, with};
    use super::*;
    use netpol_core::{Peer, PodSelection, Selector, TrafficMatch};

    #[test]
    fn one_owner_per_address() {
        // NP-91..NP-93: the owner's policies apply, and only its labels count.
        let a = || pod("a", &["10.0.0.9"]);
        let b = || pod("b", &["10.0.0.9"]);
        let owner_of = |pods: [Pod; 2]| {
            let mut cluster = Cluster::new();
            for pod in pods {
                cluster.insert_pod(pod);
            }
            owner(&cluster, ip("10.0.0.9")).map(|pod| pod.id().name().to_string())
        };
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(owner_of([a().with_created(2), b().with_created(1)]), named("a"));
        assert_eq!(owner_of([a().with_created(-1), b()]), named("a"), "unknown is oldest");
        assert_eq!(
            owner_of([a().with_created(2).with_phase(Phase::Pending), b().with_created(1)]),
            named("b")
        );
        assert_eq!(owner_of([a().with_uid("2"), b().with_uid("1")]), named("a"));
        assert_eq!(owner_of([a(), b()]), named("b"));
        assert_eq!(owner_of([a(), b().with_phase(Phase::Finished)]), named("a"));
        assert_eq!(owner_of([a().with_host_network(true), b().with_phase(Phase::Finished)]), None);
    }

    #[test]
    fn host_network_and_finished_pods_are_other_addresses() {
        // NP-80, NP-91: no subject and no pod peer; by address a block matches them, by identity nothing does.
        for change in
            [|pod: Pod| pod.with_host_network(true), |pod: Pod| pod.with_phase(Phase::Finished)]
        {
            let anyone = peers([Peer::Pods(PodSelection::everything())]);
            let mut cluster = with([
                ingress(Selector::everything(), vec![anyone]),
                egress(Selector::everything(), vec![TrafficMatch::everything()]),
            ]);
            cluster.insert_pod(change(pod("b", &["10.0.0.2"])));
            check(
                &cluster,
                &[
                    ("10.0.0.1", "10.0.0.2", tcp(80), true),
                    ("n/a", "n/b", tcp(80), true),
                    ("10.0.0.2", "10.0.0.1", tcp(80), false),
                    ("n/b", "10.0.0.1", tcp(80), false),
                    ("n/unknown", "10.0.0.1", tcp(80), false),
                ],
            );
            let by_address = peers([block("10.0.0.2/32", &[])]);
            cluster.insert_policy(ingress(Selector::everything(), vec![by_address]));
            check(
                &cluster,
                &[("10.0.0.2", "10.0.0.1", tcp(80), true), ("n/b", "10.0.0.1", tcp(80), false)],
            );
        }
    }
}
