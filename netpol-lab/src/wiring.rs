//! The network of a lab as input of `ip -batch`: a layout in, text per namespace out. Pure.
//!
//! Every pod has its addresses as single hosts and a default route through a link-local gateway on the other end of its
//! veth pair, as most CNI plugins wire it: no bridge, no proxy ARP, and all that a pod sends, to its neighbour too, is
//! routed by the node. Names and addresses are checked before they get here ([`Layout::check`]).

use crate::place::Place;
use crate::plan::{Layout, PodLayout, UPLINK};
use std::fmt::Write as _;
use std::net::IpAddr;

/// The gateway of a pod: this address on every router's end of a veth pair.
const GATEWAY: [&str; 2] = ["169.254.1.1", "fe80::1"];
/// The ends of the uplink.
const NODE_SIDE: [&str; 2] = ["169.254.1.2", "fe80::2"];
const WORLD_SIDE: [&str; 2] = ["169.254.1.3", "fe80::3"];
/// Packets with this mark leave a pod through its interface whatever their destination.
pub(crate) const WIRE_MARK: u32 = 0x6e70;
const WIRE_TABLE: u32 = 51;
const LOCAL_RULE: u32 = 100;
/// The kernel's tables of neighbours are those of the whole machine, and hold 1024 entries by default. A lab with more
/// pods leaves them alone: its neighbours are fixed, and no ARP or neighbour discovery takes place.
pub(crate) const MAX_DISCOVERED: usize = 128;
/// The places that are no pods come first.
const WORLD: usize = 1;
const FIRST_POD: usize = 2;

/// Input of `ip -batch` for one namespace: `ip` wants IPv6 addresses, rules and routes apart.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) v4: String,
    pub(crate) v6: String,
}

impl Batch {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.v4, "{line}");
    }

    fn line6(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.v6, "{line}");
    }

    fn address(&mut self, address: IpAddr, device: &str) {
        match address {
            IpAddr::V4(address) => self.line(format_args!("addr add {address}/32 dev {device}")),
            IpAddr::V6(address) => {
                self.line6(format_args!("addr add {address}/128 dev {device} nodad"));
            }
        }
    }

    fn link_local(&mut self, [v4, v6]: [&str; 2], device: &str) {
        self.line(format_args!("addr add {v4}/32 dev {device} scope link"));
        self.line6(format_args!("addr add {v6}/64 dev {device} nodad"));
    }

    /// A route to one address: straight to a device, or through a gateway there.
    fn route(&mut self, address: IpAddr, device: &str, gateway: Option<[&str; 2]>, source: &str) {
        match (address, gateway) {
            (IpAddr::V4(address), None) => {
                self.line(format_args!("route add {address}/32 dev {device}{source}"));
            }
            (IpAddr::V4(address), Some([via, _])) => {
                self.line(format_args!("route add {address}/32 via {via} dev {device} onlink"));
            }
            (IpAddr::V6(address), None) => {
                self.line6(format_args!("route add {address}/128 dev {device}"));
            }
            (IpAddr::V6(address), Some([_, via])) => {
                self.line6(format_args!("route add {address}/128 via {via} dev {device}"));
            }
        }
    }

    fn default_route(&mut self, [v4, v6]: [&str; 2], device: &str, more: &str) {
        self.line(format_args!("route add default via {v4} dev {device} onlink{more}"));
        self.line6(format_args!("route add default via {v6} dev {device}{more}"));
    }

    fn neighbour(&mut self, address: &str, mac: &str, device: &str) {
        let line = format_args!("neigh replace {address} lladdr {mac} dev {device} nud permanent");
        if address.contains(':') { self.line6(line) } else { self.line(line) }
    }

    /// A veth pair to a pod and the routes to its addresses.
    fn pod(&mut self, number: usize, pod: &PodLayout, wiring: &Wiring<'_>, source: &str) {
        let device = pod.interface.as_str();
        let (netns, [here, there]) = ((wiring.netns)(number + FIRST_POD), macs(number));
        self.line(format_args!(
            "link add {device} address {here} type veth peer name eth0 address {there} netns {netns}"
        ));
        self.line(format_args!("link set {device} up"));
        self.link_local(GATEWAY, device);
        if wiring.has_fixed_neighbours() {
            for address in &pod.addresses {
                self.neighbour(&address.to_string(), &there, device);
            }
        }
        for &address in &pod.addresses {
            self.route(address, device, None, source);
        }
    }
}

/// What the batches are made from.
pub(crate) struct Wiring<'a> {
    pub(crate) layout: &'a Layout,
    /// Where the namespace of a place is, by its number in [`Layout::places`].
    pub(crate) netns: &'a dyn Fn(usize) -> String,
}

impl Wiring<'_> {
    fn has_fixed_neighbours(&self) -> bool {
        self.layout.pods.len() > MAX_DISCOVERED
    }
}

/// The hardware addresses of the router's and of the pod's end of a veth pair.
fn macs(number: usize) -> [String; 2] {
    let [.., a, b, c] = number.to_be_bytes();
    ["02:00:01", "02:00:02"].map(|prefix| format!("{prefix}:{a:02x}:{b:02x}:{c:02x}"))
}

/// Of the node.
pub(crate) fn node(wiring: &Wiring<'_>) -> Batch {
    let layout = wiring.layout;
    let mut batch = Batch::default();
    batch.line(format_args!("link set lo up"));
    let world = (wiring.netns)(WORLD);
    batch.line(format_args!("link add {UPLINK} type veth peer name {UPLINK} netns {world}"));
    batch.line(format_args!("link set {UPLINK} up"));
    batch.link_local(NODE_SIDE, UPLINK);
    for &address in &layout.node {
        batch.address(address, UPLINK);
    }
    // What the node itself sends has one of its own addresses, not a link-local one.
    let source = layout.node.iter().find(|address| address.is_ipv4());
    let source = source.map_or_else(String::new, |address| format!(" src {address}"));
    let [v4, v6] = WORLD_SIDE;
    batch.line(format_args!("route add default via {v4} dev {UPLINK} onlink{source}"));
    batch.line6(format_args!("route add default via {v6} dev {UPLINK}"));
    for (number, pod) in layout.pods.iter().enumerate().filter(|(_, pod)| pod.local) {
        batch.pod(number, pod, wiring, &source);
    }
    batch
}

/// One more address for the node or the world, and what the world has to know of it; nothing for a pod.
pub(crate) fn one_more(place: &Place, address: IpAddr) -> Vec<(Place, Batch)> {
    let (mut node, mut world) = (Batch::default(), Batch::default());
    match place {
        Place::Node => {
            node.address(address, UPLINK);
            world.route(address, UPLINK, Some(NODE_SIDE), "");
        }
        Place::World => world.address(address, "lo"),
        Place::Pod(_) => return Vec::new(),
    }
    vec![(Place::Node, node), (Place::World, world)]
}

/// Of the world outside.
pub(crate) fn world(wiring: &Wiring<'_>) -> Batch {
    let layout = wiring.layout;
    let mut batch = Batch::default();
    batch.line(format_args!("link set lo up"));
    batch.line(format_args!("link set {UPLINK} up"));
    batch.link_local(WORLD_SIDE, UPLINK);
    for &address in &layout.external {
        batch.address(address, "lo");
    }
    for &address in &layout.node {
        batch.route(address, UPLINK, Some(NODE_SIDE), "");
    }
    for (number, pod) in layout.pods.iter().enumerate() {
        if pod.local {
            for &address in &pod.addresses {
                batch.route(address, UPLINK, Some(NODE_SIDE), "");
            }
        } else {
            batch.pod(number, pod, wiring, "");
        }
    }
    batch
}

/// Of the pod with this number.
pub(crate) fn pod(wiring: &Wiring<'_>, number: usize, pod: &PodLayout) -> Batch {
    let mut batch = Batch::default();
    batch.line(format_args!("link set lo up"));
    batch.line(format_args!("link set eth0 up"));
    for &address in &pod.addresses {
        batch.address(address, "eth0");
    }
    if wiring.has_fixed_neighbours() {
        let [router, _] = macs(number);
        for gateway in GATEWAY {
            batch.neighbour(gateway, &router, "eth0");
        }
    }
    batch.default_route(GATEWAY, "eth0", "");
    batch.default_route(GATEWAY, "eth0", &format!(" table {WIRE_TABLE}"));
    // Marked packets go before what is local.
    let rules = [
        format!("rule add pref {LOCAL_RULE} lookup local"),
        format!("rule add pref 1 fwmark {WIRE_MARK} lookup {WIRE_TABLE}"),
        "rule del pref 0".to_owned(),
    ];
    for rule in rules {
        batch.line(format_args!("{rule}"));
        batch.line6(format_args!("{rule}"));
    }
    batch
}
