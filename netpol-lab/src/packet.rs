//! Probes as bytes and back: crafts the packets of a probe, and recognises what arrives.
//!
//! Pure. Every packet of a probe carries the probe's id where its protocol has room for it, and packets that carry
//! none are nobody's business. Conntrack finds them plausible: checksums are right, a TCP probe opens with a SYN.

use crate::probe::Traffic;
use netpol_core::Protocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// What marks a payload as ours, and as the question or as the answer.
const REQUEST: [u8; 4] = *b"npQ\x01";
const ANSWER: [u8; 4] = *b"npA\x01";

const FIN_SYN_RST_ACK: u8 = 0b1_0111;
const SYN: u8 = 0b0_0010;
const RST: u8 = 0b0_0100;
const ACK: u8 = 0b1_0000;

/// What a packet is to the probe that it belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// What the prober sent.
    Request,
    /// What the far end replies.
    Answer,
    /// A TCP reset, by the far end or by a firewall.
    Reset,
    /// An ICMP error about the request.
    Unreachable,
}

/// A packet of a probe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) role: Role,
    pub(crate) id: u32,
}

/// A packet of a probe behind its IP header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Was it routed at least once since it was made?
    pub(crate) routed: bool,
    pub(crate) seen: Seen,
}

/// How many routers a packet of ours may pass.
const HOPS: u8 = 64;

/// What one probe looks like on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) traffic: Traffic,
    /// The port of the client, or the identifier of an echo.
    pub(crate) client: u16,
    pub(crate) id: u32,
}

impl Flow {
    /// The packet that opens the flow.
    pub(crate) fn request(&self) -> Vec<u8> {
        let id = self.id;
        let body = match self.traffic {
            Traffic::Port(Protocol::Tcp, port) => syn(self.client, port, id),
            Traffic::Port(Protocol::Udp, port) => udp(self.client, port, &tagged(REQUEST, id)),
            Traffic::Port(Protocol::Sctp, port) => sctp(self.client, port, 0, 1, id),
            Traffic::Icmpv6(kind) => self.echo(kind),
            Traffic::Other(ICMP) if self.source.is_ipv4() => self.echo(8),
            Traffic::Other(_) => tagged(REQUEST, id),
        };
        datagram(self.source, self.destination, self.protocol(), body)
    }

    /// The packet with which the far end answers, where its kernel does not do it by itself: it resets TCP connections to
    /// ports on which nobody listens, and returns echoes.
    pub(crate) fn answer(&self) -> Option<Vec<u8>> {
        let id = self.id;
        let body = match self.traffic {
            Traffic::Port(Protocol::Tcp, _) | Traffic::Icmpv6(_) => return None,
            Traffic::Other(ICMP) if self.source.is_ipv4() => return None,
            Traffic::Port(Protocol::Udp, port) => udp(port, self.client, &tagged(ANSWER, id)),
            Traffic::Port(Protocol::Sctp, port) => sctp(port, self.client, id, 2, !id),
            Traffic::Other(_) => tagged(ANSWER, id),
        };
        Some(datagram(self.destination, self.source, self.protocol(), body))
    }

    /// What a router at `reporter` says about the request: it is too big for the next link.
    pub(crate) fn too_big(&self, reporter: IpAddr) -> Vec<u8> {
        let (kind, code) = if reporter.is_ipv4() { (3, 4) } else { (2, 0) };
        let mut body = vec![kind, code, 0, 0];
        body.extend(1280_u32.to_be_bytes());
        let mut request = self.request();
        if let (true, Some(header)) = (reporter.is_ipv4(), request.get_mut(..20)) {
            let sum = internet_checksum(0, header);
            if let Some(field) = header.get_mut(10..12) {
                field.copy_from_slice(&sum.to_be_bytes());
            }
        }
        body.extend(request);
        let protocol = if reporter.is_ipv4() { ICMP } else { ICMPV6 };
        datagram(reporter, self.source, protocol, body)
    }

    /// The protocol number in the IP header of the request.
    pub(crate) fn protocol(&self) -> u8 {
        match self.traffic {
            Traffic::Port(protocol, _) => protocol.number(),
            Traffic::Icmpv6(_) => ICMPV6,
            Traffic::Other(number) => number,
        }
    }

    /// An ICMP message with an identifier and the id of the probe as payload.
    fn echo(&self, kind: u8) -> Vec<u8> {
        let mut body = vec![kind, 0, 0, 0];
        body.extend(self.client.to_be_bytes());
        body.extend([0, 1]);
        body.extend(tagged(REQUEST, self.id));
        body
    }
}

/// `body` behind an IP header; its checksum, which is still zero, filled in.
fn datagram(source: IpAddr, destination: IpAddr, protocol: u8, mut body: Vec<u8>) -> Vec<u8> {
    let length = body.len();
    let pseudo = pseudo_header(source, destination, protocol, length);
    let (place, sum) = match (protocol, source) {
        (TCP, _) => (16..18, internet_checksum(pseudo, &body).to_be_bytes().to_vec()),
        (UDP, _) => (6..8, nonzero(internet_checksum(pseudo, &body)).to_be_bytes().to_vec()),
        (SCTP, _) => (8..12, crc32c(&body).to_le_bytes().to_vec()),
        (ICMP, IpAddr::V4(_)) => (2..4, internet_checksum(0, &body).to_be_bytes().to_vec()),
        (ICMPV6, IpAddr::V6(_)) => (2..4, internet_checksum(pseudo, &body).to_be_bytes().to_vec()),
        _ => (0..0, Vec::new()),
    };
    if let Some(field) = body.get_mut(place) {
        field.copy_from_slice(&sum);
    }
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header_v4(source, destination, protocol, length)
        }
        (source, destination) => header_v6(as_v6(source), as_v6(destination), protocol, length),
    };
    packet.append(&mut body);
    packet
}

/// A UDP checksum of zero would mean that there is none.
fn nonzero(sum: u16) -> u16 {
    if sum == 0 { u16::MAX } else { sum }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn ports(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes()].concat()
}

fn tagged(tag: [u8; 4], id: u32) -> Vec<u8> {
    [tag, id.to_be_bytes()].concat()
}

fn syn(from: u16, to: u16, sequence: u32) -> Vec<u8> {
    let mut body = ports(from, to);
    body.extend(sequence.to_be_bytes());
    body.extend([0, 0, 0, 0, 5 << 4, SYN, 0xfa, 0xf0, 0, 0, 0, 0]);
    body
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = ports(from, to);
    body.extend(bounded(payload.len() + 8).to_be_bytes());
    body.extend([0, 0]);
    body.extend(payload);
    body
}

/// A packet with one chunk: INIT (1) or INIT ACK (2), which carries a state cookie.
fn sctp(from: u16, to: u16, verification: u32, chunk: u8, initiate: u32) -> Vec<u8> {
    let cookie: &[u8] = if chunk == 2 { &[0, 7, 0, 8, 1, 2, 3, 4] } else { &[] };
    let mut body = ports(from, to);
    body.extend(verification.to_be_bytes());
    body.extend([0; 4]);
    body.extend([chunk, 0]);
    body.extend(bounded(20 + cookie.len()).to_be_bytes());
    body.extend(initiate.to_be_bytes());
    body.extend(65_535_u32.to_be_bytes());
    body.extend([0, 1, 0, 1]);
    body.extend(initiate.to_be_bytes());
    body.extend(cookie);
    body
}

/// Lengths here are those of packets of a few dozen bytes.
fn bounded(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn header_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: usize) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(bounded(length + 20).to_be_bytes());
    // Identification and checksum are the kernel's to fill in.
    header.extend([0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

fn header_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, length: usize) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(bounded(length).to_be_bytes());
    header.extend([protocol, HOPS]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u32 {
    let octets = |address| match address {
        IpAddr::V4(address) => Ipv4Addr::octets(&address).to_vec(),
        IpAddr::V6(address) => Ipv6Addr::octets(&address).to_vec(),
    };
    let addresses = [octets(source), octets(destination)].concat();
    words(&addresses) + u32::from(protocol) + u32::from(bounded(length))
}

fn words(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    };
    bytes.chunks(2).map(word).sum()
}

fn internet_checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = start + words(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// The packet of a probe that an IP packet is. One with IPv6 extension headers is nobody's.
pub(crate) fn recognise(packet: &[u8]) -> Option<Packet> {
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet.first()? & 15) * 4;
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Some(Packet {
                source: source.into(),
                destination: destination.into(),
                routed: *packet.get(8)? < HOPS,
                seen: recognise_body(*packet.get(9)?, packet.get(header..)?)?,
            })
        }
        6 => {
            let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let destination: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some(Packet {
                source: source.into(),
                destination: destination.into(),
                routed: *packet.get(7)? < HOPS,
                seen: recognise_body(*packet.get(6)?, packet.get(40..)?)?,
            })
        }
        _ => None,
    }
}

/// The probe that what is behind an IP header belongs to.
pub(crate) fn recognise_body(protocol: u8, body: &[u8]) -> Option<Seen> {
    let number = |at: usize| Some(u32::from_be_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let seen = |role, id| Some(Seen { role, id });
    match protocol {
        // Of an embedded request an error may show just the first eight bytes.
        TCP if body.len() < 14 => seen(Role::Request, number(4)?),
        TCP => match body.get(13)? & FIN_SYN_RST_ACK {
            SYN => seen(Role::Request, number(4)?),
            flags if flags == SYN | ACK => seen(Role::Answer, number(8)?.wrapping_sub(1)),
            flags if flags == RST | ACK => seen(Role::Reset, number(8)?.wrapping_sub(1)),
            _ => None,
        },
        UDP => payload(body.get(8..)?),
        SCTP => match body.get(12)? {
            1 => seen(Role::Request, number(16)?),
            2 => seen(Role::Answer, number(4)?),
            _ => None,
        },
        // The number is not that of ICMP in the other family.
        ICMP | ICMPV6 if payload(body).is_some() => payload(body),
        ICMP | ICMPV6 => {
            let rest = body.get(8..)?;
            match (payload(rest), protocol, body.first()?) {
                (Some(Seen { id, .. }), ICMP, 0) | (Some(Seen { id, .. }), ICMPV6, 129) => {
                    seen(Role::Answer, id)
                }
                (Some(request), _, _) => Some(request),
                (None, ICMP, 3 | 11) | (None, ICMPV6, 1..=4) => {
                    seen(Role::Unreachable, recognise(rest)?.seen.id)
                }
                (None, _, _) => None,
            }
        }
        _ => payload(body),
    }
}

fn payload(bytes: &[u8]) -> Option<Seen> {
    let id = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
    match bytes.get(..4)? {
        tag if tag == REQUEST => Some(Seen { role: Role::Request, id }),
        tag if tag == ANSWER => Some(Seen { role: Role::Answer, id }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows() -> Vec<Flow> {
        let traffic = [
            Traffic::Port(Protocol::Tcp, 80),
            Traffic::Port(Protocol::Udp, 53),
            Traffic::Port(Protocol::Sctp, 7777),
            Traffic::Other(47),
            Traffic::Other(255),
        ];
        let ends = [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")];
        let icmp = [
            [Traffic::Other(ICMP), Traffic::Other(ICMPV6)],
            [Traffic::Icmpv6(128), Traffic::Other(ICMP)],
        ];
        ends.into_iter()
            .zip(icmp)
            .flat_map(|((source, destination), icmp)| {
                traffic.into_iter().chain(icmp).map(move |traffic| Flow {
                    source: source.parse().unwrap(),
                    destination: destination.parse().unwrap(),
                    traffic,
                    client: 61_000,
                    id: 0x0102_0304,
                })
            })
            .collect()
    }

    #[test]
    fn what_is_sent_is_recognised() {
        for flow in flows() {
            let packet = |source, destination, role| {
                let seen = Seen { role, id: flow.id };
                Some(Packet { source, destination, routed: false, seen })
            };
            let request = flow.request();
            let there = packet(flow.source, flow.destination, Role::Request);
            assert_eq!(recognise(&request), there, "{flow:?}");
            if let Some(answer) = flow.answer() {
                let back = packet(flow.destination, flow.source, Role::Answer);
                assert_eq!(recognise(&answer), back, "{flow:?}");
            }
            let reporter = if flow.source.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" };
            let reporter = reporter.parse().unwrap();
            let error = packet(reporter, flow.source, Role::Unreachable);
            assert_eq!(recognise(&flow.too_big(reporter)), error, "{flow:?}");
            for length in 0..request.len() {
                let _ = recognise(&request[..length]);
            }
        }
    }

    #[test]
    fn checksums() {
        // The example of RFC 1071, and the check value of CRC-32C.
        assert_eq!(internet_checksum(0, &[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        for flow in flows() {
            let packet = flow.request();
            let body = if flow.source.is_ipv4() { &packet[20..] } else { &packet[40..] };
            let pseudo = pseudo_header(flow.source, flow.destination, flow.protocol(), body.len());
            match flow.traffic {
                Traffic::Port(Protocol::Tcp | Protocol::Udp, _) | Traffic::Icmpv6(_) => {
                    assert_eq!(internet_checksum(pseudo, body), 0, "{flow:?}");
                }
                Traffic::Other(ICMP) if flow.source.is_ipv4() => {
                    assert_eq!(internet_checksum(0, body), 0, "{flow:?}");
                }
                _ => {}
            }
        }
    }
}
