//! Sends the packets of many probes at once, and sees which arrive.
//!
//! One thread holds sockets of all places: a socket stays in the namespace in which it was opened. Packets are crafted and
//! sent through raw sockets. What arrives at a pod or in the world is seen by a packet socket; what arrives at the node, by
//! raw sockets, because they come after the node's own rules. All probes of a round are on their way together and share
//! one deadline; packets cross a veth pair while they are sent, so silence after a moment means that there is nothing to
//! come. What did not arrive is sent once more.

use crate::error::Error;
use crate::netns::Netns;
use crate::packet::{self, ICMP, ICMPV6, Role, Seen};
use crate::place::Place;
use crate::probe::{Fate, Refusal};
use crate::wiring::WIRE_MARK;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// `ETH_P_ALL`, as the kernel wants it.
const ALL_PROTOCOLS: i32 = 0x0003_u16.to_be() as i32;
/// `IPPROTO_RAW`: the sender brings the IP header.
const RAW: i32 = 255;
const BUFFER_BYTES: usize = 8 << 20;
/// So many are sent before what arrived is read.
const BURST: usize = 32;

/// So many packets are read from one place before the others have their turn.
const TURN: usize = 4096;
/// How long a round may take to read what is not its own before it begins.
const CLEARING: Duration = Duration::from_secs(1);

/// What there was to read.
#[derive(Clone, Copy, Debug)]
struct Received {
    /// Any packet at all.
    anything: bool,
    /// A packet that tells something new about the jobs.
    news: bool,
}

/// A packet to send and what is expected of it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) packet: Vec<u8>,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) sender: usize,
    /// Through the sender's interface, whatever its routes say.
    pub(crate) wire: bool,
    pub(crate) target: usize,
    /// As what it is recognised at its target.
    pub(crate) role: Role,
    pub(crate) answer: Option<Vec<u8>>,
    /// Where an answer arrives, if it has to.
    pub(crate) asker: Option<usize>,
    pub(crate) fate: Fate,
}

impl Job {
    fn is_settled(&self) -> bool {
        self.fate.delivered && (self.fate.answered || self.asker.is_none())
    }
}

/// The sockets with which a place sends.
#[derive(Debug)]
struct Senders {
    v4: Socket,
    v6: Socket,
    wire: Option<(Socket, Socket)>,
}

/// A socket that sees what arrives at a place.
#[derive(Debug)]
struct Receiver {
    place: usize,
    socket: Socket,
    /// None: IP packets with their headers. Otherwise the headers are gone, and this was the protocol.
    protocol: Option<u8>,
}

#[derive(Debug)]
pub(crate) struct Prober {
    senders: Vec<Senders>,
    receivers: Vec<Receiver>,
    /// The protocols whose packets to the node are seen.
    node_protocols: BTreeSet<u8>,
    epoll: Epoll,
    buffer: Vec<u8>,
}

impl Prober {
    pub(crate) fn new() -> Result<Self, Error> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| Error::system("cannot make an epoll instance")(errno.into()))?;
        Ok(Self {
            senders: Vec::new(),
            receivers: Vec::new(),
            node_protocols: BTreeSet::new(),
            epoll,
            buffer: vec![0; 1 << 16],
        })
    }

    /// Opens the sockets of the next place.
    pub(crate) fn add(&mut self, place: &Place, netns: &Netns) -> Result<(), Error> {
        let number = self.senders.len();
        let open = || -> io::Result<_> {
            let wire = match place {
                Place::Pod(_) => {
                    Some((raw_sender(Domain::IPV4, true)?, raw_sender(Domain::IPV6, true)?))
                }
                Place::Node | Place::World => None,
            };
            let senders = Senders {
                v4: raw_sender(Domain::IPV4, false)?,
                v6: raw_sender(Domain::IPV6, false)?,
                wire,
            };
            let tap = match place {
                Place::Node => None,
                Place::Pod(_) | Place::World => {
                    Some(socket(Domain::PACKET, Type::DGRAM, ALL_PROTOCOLS)?)
                }
            };
            Ok((senders, tap))
        };
        let (senders, tap) = netns
            .run(open)?
            .map_err(Error::system(format!("cannot open raw sockets in {place}")))?;
        self.senders.push(senders);
        if let Some(socket) = tap {
            self.watch(Receiver { place: number, socket, protocol: None })?;
        }
        Ok(())
    }

    /// Makes sure that packets of this protocol are seen when they get through to the node.
    pub(crate) fn watch_node(
        &mut self,
        place: usize,
        netns: &Netns,
        protocol: u8,
    ) -> Result<(), Error> {
        if !self.node_protocols.insert(protocol) {
            return Ok(());
        }
        let open = || -> io::Result<_> {
            Ok((raw(Domain::IPV4, protocol.into())?, raw(Domain::IPV6, protocol.into())?))
        };
        let doing = format!("cannot open raw sockets for protocol {protocol} on the node");
        let (v4, v6) = netns.run(open)?.map_err(Error::system(doing))?;
        self.watch(Receiver { place, socket: v4, protocol: None })?;
        self.watch(Receiver { place, socket: v6, protocol: Some(protocol) })
    }

    fn watch(&mut self, receiver: Receiver) -> Result<(), Error> {
        let number = self.receivers.len();
        let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::try_from(number).unwrap_or(u64::MAX));
        self.epoll
            .add(&receiver.socket, event)
            .map_err(|errno| Error::system("cannot watch a socket")(errno.into()))?;
        self.receivers.push(receiver);
        Ok(())
    }

    /// Sends all jobs, whose probes have the ids from `base` on, and waits until each is settled or nothing has happened for
    /// a while: `patience` after the last packet, half of it before the second try.
    pub(crate) fn run(
        &mut self,
        jobs: &mut [Job],
        base: u32,
        patience: Duration,
    ) -> Result<(), Error> {
        // Whatever came since the last round only takes the place of what comes now.
        let begun = Instant::now();
        while self.receive(&mut [], 0, Duration::ZERO)?.anything && begun.elapsed() < CLEARING {}
        for quiet in [patience / 2, patience] {
            let mut open: Vec<usize> = Vec::new();
            for (number, job) in jobs.iter().enumerate() {
                if !job.is_settled() && job.fate.refused.is_none() {
                    open.push(number);
                }
            }
            for burst in open.chunks(BURST) {
                for &number in burst {
                    if let Some(job) = jobs.get_mut(number) {
                        self.send(job)?;
                    }
                }
                while self.receive(jobs, base, Duration::ZERO)?.news {}
            }
            let mut deadline = Instant::now() + quiet;
            while !jobs.iter().all(Job::is_settled) {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                if self.receive(jobs, base, left)?.news {
                    deadline = Instant::now() + quiet;
                }
            }
        }
        for job in jobs {
            // A far end that nobody listens at resets, which is an answer; what arrived was not refused.
            if job.fate.delivered {
                let reset = job.fate.refused.take() == Some(Refusal::Reset);
                job.fate.answered |= reset;
            }
        }
        Ok(())
    }

    fn send(&self, job: &mut Job) -> Result<(), Error> {
        let Some(senders) = self.senders.get(job.sender) else { return Ok(()) };
        let (v4, v6) = match &senders.wire {
            Some((v4, v6)) if job.wire => (v4, v6),
            _ => (&senders.v4, &senders.v6),
        };
        let socket = if job.destination.is_ipv4() { v4 } else { v6 };
        match transmit(socket, &job.packet, job.destination) {
            Ok(()) => job.fate.sent = true,
            // The node's own rules for what it sends.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => job.fate.sent = true,
            Err(error) if is_temporary(&error) => {}
            Err(error) if is_no_route(&error) => {}
            Err(error) => {
                let doing = format!("cannot send to {}", job.destination);
                return Err(Error::system(doing)(error));
            }
        }
        Ok(())
    }

    /// Reads what has arrived, waiting at most so long for something to arrive.
    fn receive(&mut self, jobs: &mut [Job], base: u32, wait: Duration) -> Result<Received, Error> {
        let mut events = [EpollEvent::empty(); 64];
        let wait = if wait.is_zero() { 0 } else { wait.as_millis().saturating_add(1) };
        let wait = EpollTimeout::try_from(i32::try_from(wait).unwrap_or(i32::MAX))
            .unwrap_or(EpollTimeout::ZERO);
        let count = match self.epoll.wait(&mut events, wait) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(Error::system("cannot wait for packets")(errno.into())),
        };
        let mut received = Received { anything: count > 0, news: false };
        for event in events.iter().take(count) {
            let receiver = usize::try_from(event.data()).ok();
            let Some(receiver) = receiver.and_then(|number| self.receivers.get(number)) else {
                continue;
            };
            for _ in 0..TURN {
                let length = match (&receiver.socket).read(&mut self.buffer) {
                    Ok(length) => length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    // A raw socket reports ICMP errors about what others sent.
                    Err(_) => break,
                };
                let bytes = self.buffer.get(..length).unwrap_or_default();
                let (ends, seen) = match receiver.protocol {
                    Some(protocol) => (None, packet::recognise_body(protocol, bytes)),
                    None => match packet::recognise(bytes) {
                        Some(packet) => (Some(packet), Some(packet.seen)),
                        None => (None, None),
                    },
                };
                let Some(seen) = seen else { continue };
                let Some(job) = job_of(jobs, base, seen) else { continue };
                received.news |= note(job, receiver.place, ends, seen, &self.senders);
            }
        }
        Ok(received)
    }
}

fn job_of(jobs: &mut [Job], base: u32, seen: Seen) -> Option<&mut Job> {
    jobs.get_mut(usize::try_from(seen.id.wrapping_sub(base)).ok()?)
}

/// Notes that a packet of a job was seen at a place. Is that news?
fn note(
    job: &mut Job,
    place: usize,
    packet: Option<packet::Packet>,
    seen: Seen,
    senders: &[Senders],
) -> bool {
    let before = job.fate;
    if seen.role == job.role {
        // A packet socket sees what its place sends, too.
        let arrived = packet.is_none_or(|packet| {
            packet.source == job.source
                && packet.destination == job.destination
                && (packet.routed || !job.wire || job.sender != place)
        });
        if place == job.target && arrived {
            job.fate.delivered = true;
            if let (Some(answer), Some(senders)) = (&job.answer, senders.get(place)) {
                let socket = if job.source.is_ipv4() { &senders.v4 } else { &senders.v6 };
                // If it does not get out, there is no answer.
                let _ = transmit(socket, answer, job.source);
            }
        }
    } else if job.role == Role::Request
        && job.asker == Some(place)
        && packet.is_none_or(|packet| packet.destination == job.source)
    {
        match seen.role {
            Role::Answer => job.fate.answered = true,
            Role::Reset => job.fate.refused = Some(Refusal::Reset),
            Role::Unreachable if job.fate.refused.is_none() => {
                job.fate.refused = Some(Refusal::Unreachable);
            }
            Role::Request | Role::Unreachable => {}
        }
    }
    if job.fate.delivered && job.fate.refused == Some(Refusal::Reset) {
        job.fate.answered = true;
    }
    job.fate != before
}

pub(crate) fn transmit(socket: &Socket, packet: &[u8], destination: IpAddr) -> io::Result<()> {
    socket.send_to(packet, &SocketAddr::new(destination, 0).into()).map(|_| ())
}

fn is_temporary(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
        || error.raw_os_error() == Some(Errno::ENOBUFS as i32)
        || error.kind() == ErrorKind::Interrupted
}

fn is_no_route(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::AddrNotAvailable
            | ErrorKind::InvalidInput
    )
}

/// A socket for packets with IP headers; `wire` makes them leave through the interface whatever their destination.
pub(crate) fn raw_sender(domain: Domain, wire: bool) -> io::Result<Socket> {
    let socket = raw(domain, RAW)?;
    if wire {
        socket.set_mark(WIRE_MARK)?;
    }
    Ok(socket)
}

fn raw(domain: Domain, protocol: i32) -> io::Result<Socket> {
    socket(domain, Type::RAW, protocol)
}

fn socket(domain: Domain, kind: Type, protocol: i32) -> io::Result<Socket> {
    let socket = Socket::new(domain, kind, Some(Protocol::from(protocol)))?;
    socket.set_nonblocking(true)?;
    // Inside a user namespace the kernel's limits hold. What they make us lose is sent again.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
        socket.set_send_buffer_size(BUFFER_BYTES)?;
    }
    Ok(socket)
}

/// The protocols that carry probes or what is said about them.
pub(crate) const NODE_PROTOCOLS: [u8; 5] = [ICMP, 6, 17, ICMPV6, 132];
