//! The lab itself.

use crate::conntrack::Conntrack;
use crate::error::Error;
use crate::netns::{self, Netns};
use crate::packet::{Flow, Role};
use crate::place::Place;
use crate::plan::{Layout, Plan, ReversePath, is_routable};
use crate::probe::{Fate, Probe, Traffic};
use crate::prober::{Job, NODE_PROTOCOLS, Prober};
use crate::wiring::{self, Batch, Wiring};
use netpol_core::{Family, InterfaceName, PodId};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The client ports of probes: behind those that the kernel gives to others.
const CLIENT_PORTS: std::ops::RangeInclusive<u16> = 61_000..=65_000;
/// The node is the first place.
const NODE: usize = 0;
/// How long a new lab may take until all its pods answer the node.
const SETTLING: Duration = Duration::from_secs(10);
/// File descriptors of a place.
const DESCRIPTORS: u64 = 6;
const SPARE_DESCRIPTORS: u64 = 256;

/// The pods of a plan, as network namespaces of this machine around that of a node.
///
/// Everything is inside namespaces that only this process holds. Nothing outside is touched, and nothing is left when the
/// lab is dropped or the process ends, however it ends.
///
/// ```no_run
/// use netpol_core::{PodId, Protocol};
/// use netpol_lab::{Lab, Place, Plan, Probe, Traffic};
/// use std::process::Command;
/// let (a, b) = (PodId::new("shop", "a"), PodId::new("shop", "b"));
/// let mut lab = Lab::new(&Plan::new().with_pod(a.clone(), []).with_pod(b.clone(), []))?;
/// lab.run(&Place::Node, || Command::new("nft").args(["-f", "rules.nft"]).status())?;
/// let (a, b) = (lab.addresses(&Place::Pod(a))[0], lab.addresses(&Place::Pod(b))[0]);
/// let fates = lab.probe(&[Probe::new(a, b, Traffic::Port(Protocol::Tcp, 80))])?;
/// println!("{}", if fates[0].delivered { "allowed" } else { "denied" });
/// # Ok::<(), netpol_lab::Error>(())
/// ```
#[derive(Debug)]
pub struct Lab {
    places: Vec<Host>,
    owners: BTreeMap<IpAddr, usize>,
    interfaces: BTreeMap<PodId, InterfaceName>,
    prober: Prober,
    conntrack: Conntrack,
    patience: Duration,
    next_id: u32,
    next_clients: BTreeMap<(IpAddr, IpAddr, Traffic), u16>,
}

/// A place, built.
#[derive(Debug)]
struct Host {
    place: Place,
    addresses: Vec<IpAddr>,
    netns: Netns,
}

impl Lab {
    /// Builds what was planned, and waits until every pod answers the node.
    ///
    /// In a lab with more than 128 pods, which would fill the kernel's tables of neighbours, neighbours are fixed: there is no ARP
    /// and no IPv6 neighbour discovery.
    ///
    /// # Errors
    ///
    /// The plan makes no sense, or this process may not make network namespaces, or `ip` is missing or refuses.
    pub fn new(plan: &Plan) -> Result<Self, Error> {
        let layout = plan.layout();
        let owners = layout.check()?;
        let places = layout.places();
        allow_descriptors(u64::try_from(places.len()).unwrap_or(u64::MAX));
        let places = places
            .into_iter()
            .map(|(place, addresses)| Ok(Host { place, addresses, netns: Netns::new()? }));
        let places: Vec<Host> = places.collect::<Result<_, Error>>()?;
        let interfaces = layout.pods.iter().filter(|pod| pod.local);
        let interfaces = interfaces.map(|pod| (pod.pod.clone(), pod.interface.clone())).collect();
        let mut prober = Prober::new()?;
        for host in &places {
            prober.add(&host.place, &host.netns)?;
        }
        let Some(node) = places.get(NODE) else { return Err(Error::UnknownPlace(Place::Node)) };
        let conntrack = Conntrack::new(&node.netns)?;
        let mut lab = Self {
            places,
            owners,
            interfaces,
            prober,
            conntrack,
            patience: Duration::from_millis(200),
            next_id: 1,
            next_clients: BTreeMap::new(),
        };
        lab.wire(&layout)?;
        lab.settle()?;
        Ok(lab)
    }

    fn wire(&mut self, layout: &Layout) -> Result<(), Error> {
        let netns = |number| {
            let host: Option<&Host> = self.places.get(number);
            host.map_or_else(String::new, |host| host.netns.path())
        };
        let wiring = &Wiring { layout, netns: &netns };
        let pods = layout.pods.iter().enumerate();
        let pods = pods.map(|(number, pod)| wiring::pod(wiring, number, pod));
        let batches = [wiring::node(wiring), wiring::world(wiring)].into_iter().chain(pods);
        for (host, batch) in self.places.iter().zip(batches) {
            let configure = || configure(&host.place, layout.reverse_path, &batch);
            host.netns.run(configure)??;
        }
        for protocol in NODE_PROTOCOLS {
            self.watch_node(protocol)?;
        }
        Ok(())
    }

    fn watch_node(&mut self, protocol: u8) -> Result<(), Error> {
        match self.places.first() {
            Some(node) => self.prober.watch_node(NODE, &node.netns, protocol),
            None => Ok(()),
        }
    }

    /// Lets the node and every place find each other (ARP, neighbour discovery), so that no probe has to wait for it.
    fn settle(&mut self) -> Result<(), Error> {
        let node = self.addresses(&Place::Node).to_vec();
        let mut open = Vec::new();
        for host in &self.places {
            for family in Family::ALL {
                let of_family = |addresses: &[IpAddr]| {
                    addresses.iter().copied().find(|&address| Family::of(address) == family)
                };
                if let (Some(from), Some(to)) = (of_family(&node), of_family(&host.addresses)) {
                    open.push(Probe::new(from, to, Traffic::echo(to)));
                }
            }
        }
        let patience = std::mem::replace(&mut self.patience, Duration::from_millis(40));
        let deadline = Instant::now() + SETTLING;
        loop {
            let fates = self.probe(&open)?;
            open = open
                .into_iter()
                .zip(fates)
                .filter(|(_, fate)| !fate.answered)
                .map(|(probe, _)| probe)
                .collect();
            let Some(silent) = open.first() else { break };
            if Instant::now() > deadline {
                let owner = self.place_of(silent.destination)?;
                let doing = format!("{owner} does not answer the node at {}", silent.destination);
                return Err(Error::system(doing)(io::ErrorKind::TimedOut.into()));
            }
        }
        self.patience = patience;
        Ok(())
    }

    /// All places: the node, the world outside, the pods.
    pub fn places(&self) -> impl ExactSizeIterator<Item = &Place> {
        self.places.iter().map(|host| &host.place)
    }

    /// The addresses of a place; none if it is not in the lab.
    #[must_use]
    pub fn addresses(&self, place: &Place) -> &[IpAddr] {
        self.host(place).map_or(&[], |host| &host.addresses)
    }

    /// Gives the node or the world outside one more address, if it has not got it. Pods keep those that were planned.
    ///
    /// # Errors
    ///
    /// Somebody else has it, or no host of a lab can have it, or `ip` refuses.
    pub fn add_address(&mut self, place: &Place, address: IpAddr) -> Result<(), Error> {
        if !is_routable(address) {
            return Err(Error::Unroutable(address));
        }
        let (number, owner) = (self.number(place)?, self.owner(address));
        if owner == Some(number) {
            return Ok(());
        }
        if let Some(first) = owner.and_then(|owner| self.places.get(owner)) {
            let (first, second) = (first.place.clone(), place.clone());
            return Err(Error::Ambiguous { address, first, second });
        }
        for (there, batch) in wiring::one_more(place, address) {
            self.run(&there, || {
                ip(&there, "-4", &batch.v4)?;
                ip(&there, "-6", &batch.v6)
            })??;
        }
        if let Some(host) = self.places.get_mut(number) {
            host.addresses.push(address);
            self.owners.insert(address, number);
        }
        Ok(())
    }

    /// The node's interface to a pod; none if the pod is not on the node.
    #[must_use]
    pub fn interface(&self, pod: &PodId) -> Option<&InterfaceName> {
        self.interfaces.get(pod)
    }

    /// The place that has this address.
    ///
    /// # Errors
    ///
    /// Nobody has it.
    pub fn place_of(&self, address: IpAddr) -> Result<&Place, Error> {
        let host = self.owner(address).and_then(|number| self.places.get(number));
        host.map(|host| &host.place).ok_or(Error::UnknownAddress(address))
    }

    fn owner(&self, address: IpAddr) -> Option<usize> {
        self.owners.get(&address).copied()
    }

    fn number(&self, place: &Place) -> Result<usize, Error> {
        let number = self.places.iter().position(|host| &host.place == place);
        number.ok_or_else(|| Error::UnknownPlace(place.clone()))
    }

    fn host(&self, place: &Place) -> Option<&Host> {
        self.places.iter().find(|host| &host.place == place)
    }

    /// Does something in the network of a place, on a thread of its own: applies rules on the node, opens sockets in a pod. A
    /// command that `task` starts is there, too; [`command`] makes one that cannot outlive this process.
    ///
    /// # Errors
    ///
    /// The place is not in the lab.
    pub fn run<T: Send>(&self, place: &Place, task: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let host = self.host(place).ok_or_else(|| Error::UnknownPlace(place.clone()))?;
        host.netns.run(task)
    }

    /// Where the network namespace of a place is found while the lab lives: for `nsenter --net=`, or for `ip`.
    ///
    /// # Errors
    ///
    /// The place is not in the lab.
    pub fn namespace(&self, place: &Place) -> Result<PathBuf, Error> {
        let host = self.host(place).ok_or_else(|| Error::UnknownPlace(place.clone()))?;
        Ok(host.netns.path().into())
    }

    pub(crate) fn netns(&self, place: &Place) -> Result<Netns, Error> {
        let host = self.host(place).ok_or_else(|| Error::UnknownPlace(place.clone()))?;
        host.netns.try_clone()
    }

    /// Changes the node's check of the sources of IPv4 packets.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn set_reverse_path(&self, reverse_path: ReversePath) -> Result<(), Error> {
        let key = "ipv4/conf/all/rp_filter";
        self.run(&Place::Node, || netns::set(key, reverse_path.setting()))?
            .map_err(Error::system("cannot change the reverse path filter"))
    }

    /// How long a round of probes waits after the last packet that it saw, in place of 200 ms, before what did not arrive
    /// counts as lost. (It is sent twice, and the first time half as long is enough.)
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Sends all probes at once and tells what became of each, in their order.
    ///
    /// # Errors
    ///
    /// A probe names an address or a place that is not in the lab, or cannot be made. That a packet is denied is no error.
    pub fn probe(&mut self, probes: &[Probe]) -> Result<Vec<Fate>, Error> {
        let mut fates = vec![Fate::default(); probes.len()];
        for wave in waves(probes) {
            let base = self.next_id;
            let mut jobs = Vec::with_capacity(wave.len());
            for probe in wave.iter().filter_map(|&number| probes.get(number)) {
                if let Some((one, other, protocol)) = portless(probe) {
                    // A node that tracks no connections remembers none.
                    let _ = self.conntrack.forget(one, other, protocol);
                }
                jobs.push(self.job(probe)?);
            }
            self.prober.run(&mut jobs, base, self.patience)?;
            for (number, job) in wave.into_iter().zip(jobs) {
                if let Some(fate) = fates.get_mut(number) {
                    *fate = job.fate;
                }
            }
        }
        Ok(fates)
    }

    fn job(&mut self, probe: &Probe) -> Result<Job, Error> {
        let &Probe { source, destination, traffic, .. } = probe;
        let known = |lab: &Self, address| lab.owner(address).ok_or(Error::UnknownAddress(address));
        let mixed = source.is_ipv4() != destination.is_ipv4()
            || probe.too_big.is_some_and(|reporter| reporter.is_ipv4() != source.is_ipv4());
        if mixed || !traffic.can_be_sent_to(destination) {
            return Err(Error::Probe(probe.to_string()));
        }
        let client = match probe.client_port {
            Some(port) => port,
            None => self.next_client(source, destination, traffic),
        };
        let flow = Flow { source, destination, traffic, client, id: self.next_id };
        self.next_id = self.next_id.wrapping_add(1);
        let chosen = probe.sender.as_ref().map(|place| self.number(place)).transpose()?;
        let job = if let Some(reporter) = probe.too_big {
            let sender = chosen.map_or_else(|| known(self, reporter), Ok)?;
            Job {
                packet: flow.too_big(reporter),
                source: reporter,
                destination: source,
                sender,
                wire: chosen.is_some(),
                target: known(self, source)?,
                role: Role::Unreachable,
                answer: None,
                asker: None,
                fate: Fate::default(),
            }
        } else {
            let owner = self.owner(source);
            let sender = chosen.or(owner).ok_or(Error::UnknownAddress(source))?;
            Job {
                packet: flow.request(),
                source,
                destination,
                sender,
                wire: chosen.is_some(),
                target: known(self, destination)?,
                // An echo reply that nobody asked for is an answer to look at.
                role: match traffic {
                    Traffic::Icmpv6(129) => Role::Answer,
                    _ => Role::Request,
                },
                answer: flow.answer(),
                asker: owner.filter(|_| traffic.is_answered()),
                fate: Fate::default(),
            }
        };
        if flow.protocol() == 0 && [Some(job.target), job.asker].contains(&Some(NODE)) {
            // The node sees packets with sockets for their protocols, and there are none for this one.
            return Err(Error::Probe(probe.to_string()));
        }
        if job.target == NODE || job.asker == Some(NODE) {
            self.watch_node(flow.protocol())?;
        }
        Ok(job)
    }

    /// A client port that no recent probe between the same ends had.
    fn next_client(&mut self, source: IpAddr, destination: IpAddr, traffic: Traffic) -> u16 {
        let (first, last) = (*CLIENT_PORTS.start(), *CLIENT_PORTS.end());
        // An echo reply must not look like that to a request of another probe.
        let kind = match traffic {
            Traffic::Icmpv6(_) => Traffic::Icmpv6(128),
            traffic => traffic,
        };
        let ends = (source.min(destination), source.max(destination), kind);
        let next = self.next_clients.entry(ends).or_insert(first);
        let client = *next;
        *next = if client == last { first } else { client + 1 };
        client
    }

    /// Makes the node forget every connection, as if it had just been started.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or has no connection tracking.
    pub fn forget_connections(&self) -> Result<(), Error> {
        self.conntrack
            .forget_all()
            .map_err(Error::system("cannot make the node forget connections"))
    }
}

/// The two ends and the protocol by which the kernel remembers a connection without ports, the lesser end first; none if the
/// probe has a port, or is meant to belong to what is remembered.
fn portless(probe: &Probe) -> Option<(IpAddr, IpAddr, u8)> {
    let (one, other) = (probe.source, probe.destination);
    match probe.traffic {
        Traffic::Other(number) if probe.client_port.is_none() && probe.too_big.is_none() => {
            Some((one.min(other), one.max(other), number))
        }
        _ => None,
    }
}

/// The numbers of the probes that can be on their way together: no two of a protocol without ports between the same two ends,
/// which to the kernel would be one connection.
fn waves(probes: &[Probe]) -> Vec<Vec<usize>> {
    let mut seen: BTreeMap<_, usize> = BTreeMap::new();
    let mut waves = vec![Vec::new()];
    for (number, probe) in probes.iter().enumerate() {
        let wave = match portless(probe) {
            Some(ends) => {
                let next = seen.entry(ends).or_default();
                *next += 1;
                *next - 1
            }
            None => 0,
        };
        if wave == waves.len() {
            waves.push(Vec::new());
        }
        if let Some(wave) = waves.get_mut(wave) {
            wave.push(number);
        }
    }
    waves
}

/// A command that is killed when the thread that starts it ends, and with it when this process ends, however it ends. Without
/// `setpriv` (util-linux) it is a plain command.
///
/// Meant for what runs in [`Lab::run`]: a process that is still there keeps its namespace.
#[must_use]
pub fn command(program: &str) -> Command {
    let has_setpriv = Command::new("setpriv")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if has_setpriv.is_ok_and(|status| status.success()) {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]);
        command
    } else {
        Command::new(program)
    }
}

/// Sets a place up. Runs in its namespace.
fn configure(place: &Place, reverse_path: ReversePath, batch: &Batch) -> Result<(), Error> {
    let set = |key: &str, value: &str| {
        netns::set(key, value).map_err(Error::system(format!("cannot set net/{key} in {place}")))
    };
    // Settings for all interfaces first, so that those that come now have them from the start.
    let reverse_path = if *place == Place::Node { reverse_path } else { ReversePath::Off };
    set("ipv4/conf/all/rp_filter", reverse_path.setting())?;
    set("ipv4/conf/default/rp_filter", "0")?;
    set("ipv6/conf/default/accept_dad", "0")?;
    set("ipv6/conf/default/router_solicitations", "0")?;
    if !matches!(place, Place::Pod(_)) {
        set("ipv4/ip_forward", "1")?;
        set("ipv6/conf/all/forwarding", "1")?;
        set("ipv4/conf/all/send_redirects", "0")?;
        set("ipv4/conf/default/send_redirects", "0")?;
    }
    // Refusals are counted here, so none may be withheld. Not every kernel has every one of these.
    for (key, value) in [
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv6/icmp/ratelimit", "0"),
        ("ipv4/icmp_msgs_per_sec", "1000000"),
        ("ipv4/icmp_msgs_burst", "1000000"),
    ] {
        let _ = netns::set(key, value);
    }
    for (option, lines) in [("-4", &batch.v4), ("-6", &batch.v6)] {
        ip(place, option, lines)?;
    }
    Ok(())
}

fn ip(place: &Place, option: &str, lines: &str) -> Result<(), Error> {
    let running = Error::system("cannot talk to `ip`");
    let mut child = Command::new("ip")
        .args([option, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::NoIp)?;
    // If `ip` stops reading, it says why.
    let _ = child.stdin.take().map(|mut input| input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().map_err(running)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(Error::Ip { place: place.clone(), message })
}

/// Lets this process open enough files for so many places, as far as it may.
fn allow_descriptors(places: u64) {
    let needed = places.saturating_mul(DESCRIPTORS).saturating_add(SPARE_DESCRIPTORS);
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < needed
    {
        // Where it may not, opening fails and says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard);
    }
}
