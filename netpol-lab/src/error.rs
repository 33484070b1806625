//! Why a lab could not be built or used.

use crate::place::Place;
use std::io;
use std::net::IpAddr;

/// Why a lab could not be built or used. A packet that does not arrive is no error but a [`Fate`](crate::Fate).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refuses to make network namespaces for this process.
    #[error(
        "no permission to make network namespaces: run as root (CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW), or inside \
         `unshare --map-root-user --net`"
    )]
    NotPermitted(#[source] io::Error),
    /// `ip` is not installed.
    #[error("`ip` cannot be run: install iproute2")]
    NoIp(#[source] io::Error),
    /// `ip` refused a part of the network.
    #[error("`ip` failed for {place}: {message}")]
    Ip {
        /// Where.
        place: Place,
        /// What it said.
        message: String,
    },
    /// The system refused something else.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// No packet can be sent to or from this address.
    #[error("`{0}` is not an address of a pod, a node or an external host: it cannot be routed")]
    Unroutable(IpAddr),
    /// Two places claim the same address.
    #[error("`{address}` belongs to {first} and to {second}")]
    Ambiguous {
        /// The address.
        address: IpAddr,
        /// Who claims it first.
        first: Place,
        /// Who claims it as well.
        second: Place,
    },
    /// An interface name that the kernel would not take.
    #[error("`{0}` is not a name for a network interface")]
    Interface(String),
    /// Two pods claim the same interface.
    #[error("interface `{0}` belongs to two pods")]
    AmbiguousInterface(String),
    /// The lab has nobody with this address.
    #[error("nobody in the lab has the address `{0}`")]
    UnknownAddress(IpAddr),
    /// The lab has no such place.
    #[error("{0} is not in the lab")]
    UnknownPlace(Place),
    /// A probe that cannot be sent.
    #[error("this packet cannot be sent, or nobody could receive it: {0}")]
    Probe(String),
}

impl Error {
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing: doing.into(), source }
    }
}
