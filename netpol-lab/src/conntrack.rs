//! One request to the kernel's connection tracking: forget everything.

use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read as _};
use std::time::Duration;

const AF_NETLINK: i32 = 16;
const NETLINK_NETFILTER: i32 = 12;
/// `NFNL_SUBSYS_CTNETLINK`, `IPCTNL_MSG_CT_DELETE`.
const CT_DELETE: u16 = 1 << 8 | 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST_ACK: u16 = 1 | 4;
const NLMSG_ERROR: u16 = 2;

/// Forgets all connections of the namespace that this thread is in.
pub(crate) fn flush() -> io::Result<()> {
    let protocol = Some(Protocol::from(NETLINK_NETFILTER));
    let socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, protocol)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut message = Vec::new();
    message.extend(20_u32.to_ne_bytes());
    message.extend(CT_DELETE.to_ne_bytes());
    message.extend(REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]);
    // Any family, version 0, no attributes: all of them.
    message.extend([0; 4]);
    socket.send(&message)?;
    let mut reply = [0; 256];
    let length = (&socket).read(&mut reply)?;
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
