//! Real TCP connections that stay open while rules change.

use crate::error::Error;
use crate::lab::Lab;
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Which way something is sent on a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a connection has two ends")]
pub enum Toward {
    /// From the client to the server.
    Server,
    /// From the server to the client.
    Client,
}

/// A TCP connection between two places, both ends of which are here.
#[derive(Debug)]
pub struct TcpConnection {
    client: TcpStream,
    server: TcpStream,
    sent: u64,
}

impl Lab {
    /// Opens a real TCP connection; none if it cannot be opened in this time.
    ///
    /// # Errors
    ///
    /// An address is not in the lab, or somebody listens on the port already.
    pub fn connect(
        &self,
        source: IpAddr,
        destination: IpAddr,
        port: u16,
        patience: Duration,
    ) -> Result<Option<TcpConnection>, Error> {
        let (client, server) = (self.place_of(source)?, self.place_of(destination)?);
        let there = SocketAddr::new(destination, port);
        let listener = self
            .run(server, || listen(there, patience))?
            .map_err(Error::system(format!("cannot listen at {there}")))?;
        let client = self.run(client, || dial(SocketAddr::new(source, 0), there, patience))?;
        let client = match client {
            Ok(client) => client,
            Err(error) if is_denial(&error) => return Ok(None),
            Err(error) => return Err(Error::system(format!("cannot connect to {there}"))(error)),
        };
        match listener.accept() {
            Ok((server, _)) => Ok(Some(TcpConnection { client, server, sent: 0 })),
            // The last packet of the handshake was lost.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(Error::system(format!("cannot accept at {there}"))(error)),
        }
    }
}

impl TcpConnection {
    /// Sends a few bytes one way. Do they arrive in this time? (The kernel sends what is lost again after 200 ms, then
    /// after 400 ms.)
    ///
    /// # Errors
    ///
    /// The connection is broken: reset, say.
    pub fn send(&mut self, toward: Toward, patience: Duration) -> io::Result<bool> {
        self.sent += 1;
        let (from, to) = match toward {
            Toward::Server => (&mut self.client, &mut self.server),
            Toward::Client => (&mut self.server, &mut self.client),
        };
        from.write_all(&self.sent.to_be_bytes())?;
        let deadline = Instant::now() + patience;
        let mut number = [0; 8];
        let mut filled = 0;
        // What was held up earlier may come first.
        while u64::from_be_bytes(number) != self.sent || filled < number.len() {
            if filled == number.len() {
                filled = 0;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            to.set_read_timeout(Some(left))?;
            match to.read(number.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The client's end.
    #[must_use]
    pub fn client(&self) -> &TcpStream {
        &self.client
    }

    /// The server's end.
    #[must_use]
    pub fn server(&self) -> &TcpStream {
        &self.server
    }
}

fn listen(address: SocketAddr, patience: Duration) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)?;
    socket.set_read_timeout(Some(patience))?;
    Ok(socket.into())
}

fn dial(from: SocketAddr, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), patience)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Rules can drop, reset or reject.
fn is_denial(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::TimedOut
            | ErrorKind::WouldBlock
            | ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied
    )
}
