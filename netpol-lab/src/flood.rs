//! A stream of packets while rules change, counted by the kernel where it ends.
//!
//! Every flow of a flood ends in a UDP socket of its own with next to no buffer that nobody reads. What does not fit is dropped
//! there, and counted by the kernel: so what arrived is known to the packet, at any rate.

use crate::error::Error;
use crate::lab::Lab;
use crate::netns::Netns;
use crate::packet::Flow;
use crate::probe::{Probe, Traffic};
use crate::prober::{raw_sender, transmit};
use netpol_core::Protocol;
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle, available_parallelism};
use std::time::Duration;

/// Client ports of floods, apart from those of probes.
const FIRST_CLIENT: u16 = 60_000;
/// Packets that are on their way when a flood stops have this long to arrive.
const SETTLING: Duration = Duration::from_millis(50);

/// A flood that goes on until it is stopped, or dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    /// Each sends its part of the flows, in the order of the flows.
    senders: Vec<JoinHandle<Vec<u64>>>,
    ends: Vec<End>,
}

/// What became of a flow of a flood.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct FloodCount {
    /// So many packets were sent.
    pub sent: u64,
    /// So many came out at the other end.
    pub arrived: u64,
}

/// Where a flow ends.
#[derive(Debug)]
struct End {
    netns: Netns,
    family_file: &'static str,
    socket: Socket,
}

impl Lab {
    /// Sends packets of these UDP probes in turn, as many as all processors but one can, until the flood is stopped. No packet is
    /// answered, so to connection tracking each is that of a new connection and is judged by the rules.
    ///
    /// Without rules, every packet that is sent arrives: [`Flood::stop`] shows what rules lost and what they let through.
    ///
    /// # Errors
    ///
    /// A probe is not UDP, names an address that is not in the lab, or cannot be sent.
    pub fn flood(&self, probes: &[Probe]) -> Result<Flood, Error> {
        let (mut ends, mut flows) = (Vec::new(), Vec::new());
        for (probe, spare) in probes.iter().zip(FIRST_CLIENT..) {
            let &Probe { source, destination, traffic, .. } = probe;
            let Traffic::Port(Protocol::Udp, port) = traffic else {
                return Err(Error::Probe(probe.to_string()));
            };
            if source.is_ipv4() != destination.is_ipv4() || probe.too_big.is_some() {
                return Err(Error::Probe(probe.to_string()));
            }
            let client = probe.client_port.unwrap_or(spare);
            let place = self.place_of(destination)?;
            let (here, there) =
                (SocketAddr::new(destination, port), SocketAddr::new(source, client));
            let socket = self
                .run(place, || sink(here, there))?
                .map_err(Error::system(format!("cannot listen at {here}")))?;
            let family_file = if source.is_ipv4() { "udp" } else { "udp6" };
            ends.push(End { netns: self.netns(place)?, family_file, socket });
            let (sender, wire) = match &probe.sender {
                Some(sender) => (sender, true),
                None => (self.place_of(source)?, false),
            };
            let domain = Domain::for_address(there);
            let socket = self
                .run(sender, || raw_sender(domain, wire))?
                .map_err(Error::system(format!("cannot open a raw socket in {sender}")))?;
            let packet = Flow { source, destination, traffic, client, id: 0 }.request();
            flows.push((socket, packet, destination));
        }
        let mut flood = Flood { stop: Arc::default(), senders: Vec::new(), ends };
        // One processor is left to who changes the rules.
        let processors = available_parallelism().map_or(1, NonZero::get);
        let threads = processors.saturating_sub(1).max(1).min(flows.len());
        for _ in 0..threads {
            let rest = flows.len() - flows.len() / (threads - flood.senders.len());
            let (flows, stop) = (flows.split_off(rest), Arc::clone(&flood.stop));
            let sender = Builder::new()
                .name("netpol-flood".to_owned())
                .spawn(move || send_until(&stop, &flows))
                .map_err(Error::system("cannot start a thread"))?;
            // They are taken from the end.
            flood.senders.insert(0, sender);
        }
        Ok(flood)
    }
}

impl Flood {
    /// Stops it and tells what became of its flows, in the order of their probes.
    ///
    /// # Errors
    ///
    /// The kernel's counters cannot be read.
    pub fn stop(mut self) -> Result<Vec<FloodCount>, Error> {
        let sent = self.join();
        std::thread::sleep(SETTLING);
        let mut counts = Vec::with_capacity(sent.len());
        for (end, sent) in self.ends.iter().zip(sent) {
            let arrived = end
                .netns
                .run(|| end.arrived())?
                .map_err(Error::system("cannot read what arrived of a flood"))?;
            counts.push(FloodCount { sent, arrived });
        }
        Ok(counts)
    }

    fn join(&mut self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        // Senders do not panic.
        self.senders.drain(..).flat_map(|sender| sender.join().unwrap_or_default()).collect()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.join();
    }
}

impl End {
    /// What is in the socket, and what did not fit. Runs in the namespace of the socket.
    fn arrived(&self) -> io::Result<u64> {
        let socket = std::fs::read_link(format!("/proc/self/fd/{}", self.socket.as_raw_fd()))?;
        let socket = socket.to_string_lossy().into_owned();
        let inode = socket.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        let table = std::fs::read_to_string(format!("/proc/thread-self/net/{}", self.family_file))?;
        // The inode is the tenth column, the number of drops the last one.
        let row = table.lines().find(|row| row.split_whitespace().nth(9) == inode);
        let drops = row.and_then(|row| row.split_whitespace().last()?.parse::<u64>().ok());
        let mut arrived = drops.ok_or(ErrorKind::NotFound)?;
        let mut buffer = [0; 64];
        loop {
            match (&self.socket).read(&mut buffer) {
                Ok(_) => arrived += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(arrived),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn sink(here: SocketAddr, there: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(here), Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_recv_buffer_size(1)?;
    socket.set_nonblocking(true)?;
    socket.bind(&here.into())?;
    socket.connect(&there.into())?;
    Ok(socket)
}

fn send_until(stop: &AtomicBool, flows: &[(Socket, Vec<u8>, IpAddr)]) -> Vec<u64> {
    let mut sent = vec![0; flows.len()];
    while !stop.load(Ordering::Relaxed) && !flows.is_empty() {
        for ((socket, packet, destination), sent) in flows.iter().zip(&mut sent) {
            if transmit(socket, packet, *destination).is_ok() {
                *sent += 1;
            }
        }
    }
    sent
}
