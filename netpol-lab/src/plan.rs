//! What a lab consists of: which pods, which addresses, what is on the node and what is not.

use crate::error::Error;
use crate::place::Place;
use netpol_core::{Cluster, Family, InterfaceName, NodeName, PodId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The node's way out.
pub(crate) const UPLINK: &str = "uplink";
/// The kernel's limit for interface names.
const MAX_INTERFACE_BYTES: usize = 15;
/// 198.18.0.0/15 and this part of fd00::/8 are for tests and for oneself: hardly any policy speaks of them.
const MADE_UP_V4: u32 = 0xc612_0000;
const MADE_UP_V6: u128 = 0xfd00_6e65_7470_6f6c << 64;

/// Whether the node checks that a reply to a packet's source would leave where the packet came in (IPv4 only).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the three values of the kernel's setting")]
pub enum ReversePath {
    /// 0: no check.
    #[default]
    Off,
    /// 1: it must.
    Strict,
    /// 2: it must leave somewhere. A common default of distributions.
    Loose,
}

impl ReversePath {
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Self::Off => "0",
            Self::Strict => "1",
            Self::Loose => "2",
        }
    }
}

/// A pod of the lab.
#[derive(Clone, Debug, Eq, PartialEq)]
struct PlannedPod {
    /// None: to be made up, one of each family.
    addresses: Option<Vec<IpAddr>>,
    interface: Option<InterfaceName>,
    local: bool,
}

/// What a lab consists of. Pods without an address get one of each family that nobody else has.
///
/// ```
/// use netpol_core::{Cluster, Labels, Pod, PodId};
/// use netpol_lab::Plan;
/// let mut cluster = Cluster::new();
/// let web = PodId::new("shop", "web-0");
/// cluster.insert_pod(Pod::new(web.clone(), Labels::new()));
/// let plan = Plan::of(&cluster, None).with_external(["203.0.113.9".parse().unwrap()]);
/// // The same cluster, with the addresses that the lab will use: what to compile.
/// let cluster = plan.complete(&cluster);
/// assert_eq!(cluster.pod(&web).unwrap().addresses().len(), 2);
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    pods: BTreeMap<PodId, PlannedPod>,
    node: BTreeSet<IpAddr>,
    external: BTreeSet<IpAddr>,
    reverse_path: ReversePath,
}

impl Plan {
    /// A node without pods.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All managed pods of a cluster: those of `node` on the node, the others behind its uplink; all on the node if no node
    /// is named. A pod has the addresses that it owns ([`Cluster::address_owners`]), and made-up ones if it reports none.
    ///
    /// The node has the addresses of `node`, or of the cluster's only one; the other nodes are external.
    #[must_use]
    pub fn of(cluster: &Cluster, node: Option<&NodeName>) -> Self {
        let owners = cluster.address_owners();
        let pods = cluster.pods().filter(|pod| pod.is_managed()).map(|pod| {
            let owned = pod.addresses().iter().copied();
            let owned =
                owned.filter(|address| owners.get(address).is_some_and(|&id| id == pod.id()));
            let planned = PlannedPod {
                addresses: (!pod.addresses().is_empty()).then(|| owned.collect()),
                interface: pod.interface().cloned(),
                local: node.is_none_or(|node| pod.node() == Some(node)),
            };
            (pod.id().clone(), planned)
        });
        let only = || cluster.nodes().next().filter(|_| cluster.nodes().len() == 1);
        let own = node.map_or_else(only, |name| cluster.node(name));
        let free = |addresses: &[IpAddr]| -> Vec<IpAddr> {
            addresses.iter().copied().filter(|address| !owners.contains_key(address)).collect()
        };
        let node: BTreeSet<_> = own.into_iter().flat_map(|own| free(own.addresses())).collect();
        let others = cluster.nodes().flat_map(|other| free(other.addresses()));
        let external = others.filter(|address| !node.contains(address)).collect();
        Self { pods: pods.collect(), node, external, reverse_path: ReversePath::default() }
    }

    /// With a pod on the node. Without addresses, they are made up.
    #[must_use]
    pub fn with_pod(self, pod: PodId, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.with(pod, addresses, true)
    }

    /// With a pod on another node, behind the uplink.
    #[must_use]
    pub fn with_remote_pod(self, pod: PodId, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.with(pod, addresses, false)
    }

    fn with(
        mut self,
        pod: PodId,
        addresses: impl IntoIterator<Item = IpAddr>,
        local: bool,
    ) -> Self {
        let addresses: BTreeSet<_> = addresses.into_iter().map(|a| a.to_canonical()).collect();
        let addresses = (!addresses.is_empty()).then(|| addresses.into_iter().collect());
        self.pods.insert(pod, PlannedPod { addresses, interface: None, local });
        self
    }

    /// With more addresses of the node itself. Where it has none of a family, one is made up.
    #[must_use]
    pub fn with_node_addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.node.extend(addresses.into_iter().map(|a| a.to_canonical()));
        self
    }

    /// With more addresses outside the cluster. All of them are in one place.
    #[must_use]
    pub fn with_external(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.external.extend(addresses.into_iter().map(|a| a.to_canonical()));
        self
    }

    /// With this check of the node for the sources of packets.
    #[must_use]
    pub fn with_reverse_path(mut self, reverse_path: ReversePath) -> Self {
        self.reverse_path = reverse_path;
        self
    }

    /// The cluster as the lab will be: its pods with the addresses and the interfaces that they will have.
    #[must_use]
    pub fn complete(&self, cluster: &Cluster) -> Cluster {
        let mut complete = cluster.clone();
        let layout = self.layout();
        for host in &layout.pods {
            if let Some(pod) = cluster.pod(&host.pod) {
                let mut pod = pod.clone().with_addresses(host.addresses.iter().copied());
                if host.local {
                    pod = pod.with_interface(host.interface.clone());
                }
                complete.insert_pod(pod);
            }
        }
        complete
    }

    /// All places of the lab with their addresses: the node, the world outside, the pods.
    #[must_use]
    pub fn places(&self) -> Vec<(Place, Vec<IpAddr>)> {
        self.layout().places()
    }

    /// With everything made up that was left open. Always the same for the same plan.
    pub(crate) fn layout(&self) -> Layout {
        let given = self.pods.values().flat_map(|pod| pod.addresses.iter().flatten());
        let mut taken: BTreeSet<_> =
            given.chain(&self.node).chain(&self.external).copied().collect();
        let mut names: BTreeSet<_> =
            self.pods.values().filter_map(|pod| pod.interface.clone()).collect();
        names.insert(UPLINK.into());
        let (mut addresses, mut numbers) = (1_u32.., 0_u32..);
        let mut make_up = |family| {
            let candidates = addresses.by_ref().map(|number| match family {
                Family::V4 => IpAddr::from(Ipv4Addr::from_bits(MADE_UP_V4 + number)),
                Family::V6 => Ipv6Addr::from_bits(MADE_UP_V6 + u128::from(number)).into(),
            });
            let mut free = candidates.filter(|&candidate| taken.insert(candidate));
            free.next()
        };
        let has = |family| self.node.iter().any(|&address| Family::of(address) == family);
        let missing = Family::ALL.into_iter().filter(|&family| !has(family));
        let node = self.node.iter().copied().chain(missing.filter_map(&mut make_up)).collect();
        let mut make_up_all = || Family::ALL.into_iter().filter_map(&mut make_up).collect();
        let mut name = || {
            let mut free =
                numbers.by_ref().map(|number| InterfaceName::from(format!("lab{number}")));
            free.find(|name| names.insert(name.clone())).unwrap_or_else(|| UPLINK.into())
        };
        let pods = self.pods.iter().map(|(id, pod)| PodLayout {
            pod: id.clone(),
            addresses: pod.addresses.clone().unwrap_or_else(&mut make_up_all),
            interface: pod.interface.clone().filter(|_| pod.local).unwrap_or_else(&mut name),
            local: pod.local,
        });
        Layout {
            pods: pods.collect(),
            node,
            external: self.external.iter().copied().collect(),
            reverse_path: self.reverse_path,
        }
    }
}

/// A plan in which nothing is open.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) pods: Vec<PodLayout>,
    pub(crate) node: Vec<IpAddr>,
    pub(crate) external: Vec<IpAddr>,
    pub(crate) reverse_path: ReversePath,
}

#[derive(Clone, Debug)]
pub(crate) struct PodLayout {
    pub(crate) pod: PodId,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) interface: InterfaceName,
    pub(crate) local: bool,
}

impl Layout {
    /// Every place and its addresses.
    pub(crate) fn places(&self) -> Vec<(Place, Vec<IpAddr>)> {
        let pods = self.pods.iter().map(|pod| (Place::Pod(pod.pod.clone()), pod.addresses.clone()));
        [(Place::Node, self.node.clone()), (Place::World, self.external.clone())]
            .into_iter()
            .chain(pods)
            .collect()
    }

    /// Which place each address belongs to, by its number in [`Layout::places`].
    pub(crate) fn check(&self) -> Result<BTreeMap<IpAddr, usize>, Error> {
        let mut interfaces = BTreeSet::from([UPLINK]);
        for pod in self.pods.iter().filter(|pod| pod.local) {
            let name = pod.interface.as_str();
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let reserved = matches!(name, "" | "." | ".." | "lo" | "all" | "default");
            // `ip` would take a leading dash for an option.
            if reserved
                || name.starts_with('-')
                || name.len() > MAX_INTERFACE_BYTES
                || !name.chars().all(legal)
            {
                return Err(Error::Interface(name.to_owned()));
            }
            if !interfaces.insert(name) {
                return Err(Error::AmbiguousInterface(name.to_owned()));
            }
        }
        let places = self.places();
        let mut owners = BTreeMap::new();
        for (number, (place, addresses)) in places.iter().enumerate() {
            for &address in addresses {
                if !is_routable(address) {
                    return Err(Error::Unroutable(address));
                }
                if let Some(first) = owners.insert(address, number)
                    && let Some((first, _)) = places.get(first)
                {
                    let (first, second) = (first.clone(), place.clone());
                    return Err(Error::Ambiguous { address, first, second });
                }
            }
        }
        Ok(owners)
    }
}

/// Can a host of the lab have this address? Not a loopback, multicast, broadcast, unspecified, link-local or reserved one,
/// and none of IPv4 in IPv6 clothes.
///
/// ```
/// assert!(netpol_lab::is_routable("203.0.113.9".parse().unwrap()));
/// assert!(!netpol_lab::is_routable("127.0.0.1".parse().unwrap()));
/// ```
#[must_use]
pub fn is_routable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            first != 0 && first < 224 && !v4.is_loopback() && !v4.is_link_local()
        }
        IpAddr::V6(v6) => {
            !v6.is_loopback()
                && !v6.is_unspecified()
                && !v6.is_multicast()
                && !v6.is_unicast_link_local()
                && v6.to_ipv4_mapped().is_none()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netpol_core::{Labels, Node, Pod};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn made_up_addresses_collide_with_nothing() {
        let taken = address("198.18.0.1");
        let plan = Plan::new()
            .with_pod(PodId::new("n", "a"), [])
            .with_pod(PodId::new("n", "b"), [taken])
            .with_remote_pod(PodId::new("n", "c"), []);
        let layout = plan.layout();
        assert_eq!(layout.check().unwrap().len(), 2 + 2 + 1 + 2, "node, a, b, c");
        assert_eq!(layout.pods[1].addresses, [taken]);
        assert_eq!(format!("{layout:?}"), format!("{:?}", plan.layout()));
    }

    #[test]
    fn a_cluster_is_completed() {
        let mut cluster = Cluster::new();
        let pod = |name| Pod::new(PodId::new("n", name), Labels::new());
        cluster.insert_node(Node::new("one", Labels::new(), [address("192.168.0.1")]));
        cluster.insert_node(Node::new("two", Labels::new(), [address("192.168.0.2")]));
        cluster.insert_pod(pod("a").with_node("one").with_interface("veth-a"));
        cluster.insert_pod(pod("b").with_node("two").with_addresses([address("10.0.0.1")]));
        cluster.insert_pod(pod("host").with_host_network(true));
        let plan = Plan::of(&cluster, Some(&"one".into()));
        let layout = plan.layout();
        assert_eq!((layout.node.len(), layout.node[0]), (2, address("192.168.0.1")));
        assert_eq!(layout.external, [address("192.168.0.2")]);
        let complete = plan.complete(&cluster);
        let a = complete.pod(&PodId::new("n", "a")).unwrap();
        assert_eq!((a.addresses().len(), a.interface().unwrap().as_str()), (2, "veth-a"));
        let b = complete.pod(&PodId::new("n", "b")).unwrap();
        assert_eq!((b.addresses(), b.interface()), ([address("10.0.0.1")].as_slice(), None));
    }

    #[test]
    fn nonsense_is_refused() {
        let pod =
            |name: &str, text: &str| Plan::new().with_pod(PodId::new("n", name), [address(text)]);
        let loopback = pod("a", "127.0.0.1").layout().check().unwrap_err();
        assert!(matches!(loopback, Error::Unroutable(_)), "{loopback}");
        let twice = pod("a", "10.0.0.1").with_external([address("10.0.0.1")]);
        let twice = twice.layout().check().unwrap_err();
        assert_eq!(twice.to_string(), "`10.0.0.1` belongs to the world outside and to pod `n/a`");
        for name in ["", "a b", "x\nlink del lo", "sixteen-bytes-ab", "-all", "ä", "lo"] {
            let mut cluster = Cluster::new();
            let id = PodId::new("n", "a");
            cluster.insert_pod(Pod::new(id, Labels::new()).with_interface(name));
            let refused = Plan::of(&cluster, None).layout().check().unwrap_err();
            assert!(matches!(refused, Error::Interface(_)), "{name:?}: {refused}");
        }
    }
}
