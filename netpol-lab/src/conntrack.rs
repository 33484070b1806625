//! Requests to the kernel's connection tracking: forget something, or everything.

use crate::error::Error;
use crate::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::time::Duration;

const AF_NETLINK: i32 = 16;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const NETLINK_NETFILTER: i32 = 12;
/// `NFNL_SUBSYS_CTNETLINK`, `IPCTNL_MSG_CT_DELETE`.
const CT_DELETE: u16 = 1 << 8 | 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST_ACK: u16 = 1 | 4;
const NLMSG_ERROR: u16 = 2;
const HEADER_BYTES: usize = 16;
const NESTED: u16 = 1 << 15;
const TUPLE_ORIG: u16 = 1;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_PORTS: [u16; 2] = [2, 3];
const ENOENT: i32 = 2;

/// A channel to the connection tracking of one namespace.
#[derive(Debug)]
pub(crate) struct Conntrack(Socket);

impl Conntrack {
    pub(crate) fn new(netns: &Netns) -> Result<Self, Error> {
        let open = || {
            let protocol = Some(Protocol::from(NETLINK_NETFILTER));
            let socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, protocol)?;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            Ok(Self(socket))
        };
        netns.run(open)?.map_err(Error::system("cannot speak to connection tracking"))
    }

    /// Forgets all connections.
    pub(crate) fn forget_all(&self) -> io::Result<()> {
        self.delete(0, &[])
    }

    /// Forgets the connection of a protocol without ports between two ends, whoever opened it. None is fine, and so is a
    /// kernel that tracks nothing.
    pub(crate) fn forget(&self, one: IpAddr, other: IpAddr, protocol: u8) -> io::Result<()> {
        let (family, [source, destination]) = match (one, other) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                let ends = [(1, one), (2, other)];
                (AF_INET, ends.map(|(kind, end)| attribute(kind, &end.octets())))
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                let ends = [(3, one), (4, other)];
                (AF_INET6, ends.map(|(kind, end)| attribute(kind, &end.octets())))
            }
            _ => return Ok(()),
        };
        let ends = attribute(TUPLE_IP | NESTED, &[source, destination].concat());
        // GRE has a key in place of ports, which is none here.
        let ports = PROTO_PORTS.map(|kind| attribute(kind, &[0, 0])).concat();
        let number = [attribute(PROTO_NUM, &[protocol]), ports].concat();
        let number = attribute(TUPLE_PROTO | NESTED, &number);
        let tuple = attribute(TUPLE_ORIG | NESTED, &[ends, number].concat());
        match self.delete(family, &tuple) {
            Err(error) if error.raw_os_error() == Some(ENOENT) => Ok(()),
            result => result,
        }
    }

    fn delete(&self, family: u8, attributes: &[u8]) -> io::Result<()> {
        let length = HEADER_BYTES + 4 + attributes.len();
        let mut message = Vec::with_capacity(length);
        message.extend(u32::try_from(length).unwrap_or(0).to_ne_bytes());
        message.extend(CT_DELETE.to_ne_bytes());
        message.extend(REQUEST_ACK.to_ne_bytes());
        message.extend([0; 8]);
        message.extend([family, 0, 0, 0]);
        message.extend(attributes);
        self.0.send(&message)?;
        let mut reply = [0; 512];
        let length = (&self.0).read(&mut reply)?;
        let reply = reply.get(..length).unwrap_or_default();
        let field = |from: usize, to: usize| reply.get(from..to);
        let kind = field(4, 6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        let error = field(16, 20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
        match (kind, error) {
            (Some(NLMSG_ERROR), Some(0)) => Ok(()),
            (Some(NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// A netlink attribute, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
