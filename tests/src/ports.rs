//! Loopback ports that belong to a test.
//!
//! After a port that was bound with port 0 is released, the kernel may give it to another test at
//! once. Then a server cannot be started on it again, or a client that should be refused finds a
//! listener.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

use crate::waiting::{DEADLINE, TICK};

/// A loopback port reserved for as long as this value lives.
///
/// The value contains a socket that is bound and does not listen, so connections are refused. With
/// `SO_REUSEADDR`, which the standard library and both runtimes set, Linux allows any number of
/// further listeners on the port, and never chooses it for a bind to port 0.
#[derive(Debug)]
pub struct Reserved {
    addr: SocketAddr,
    _socket: Socket,
}

impl Reserved {
    /// Reserves a port that is free.
    ///
    /// # Panics
    ///
    /// If the system has no socket or no port left.
    #[must_use]
    pub fn new() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let socket =
            Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_reuse_address(true).expect("the option exists");
        socket.bind(&any.into()).expect("a free port");
        let addr = socket.local_addr().expect("it is bound").as_socket().expect("IPv4");
        Self { addr, _socket: socket }
    }

    /// The address. Only the test can listen on it.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Default for Reserved {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts a server again on its port, as soon as the port is free.
///
/// Between `fork` and `exec`, a child process holds every socket that was open in its parent, so in
/// a test program that starts processes a port may stay in use for a moment after its listener was
/// dropped. This function blocks until the port is free.
///
/// # Errors
///
/// Those of binding; `AddrInUse` only after [`DEADLINE`].
pub async fn start_again(mut start: impl AsyncFnMut() -> io::Result<()>) -> io::Result<()> {
    let end = Instant::now() + DEADLINE;
    loop {
        match start().await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                thread::sleep(TICK);
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A server can be stopped and started again on its port; in between, connections are refused.
    #[test]
    fn reserved_port_refuses_until_bound() {
        let port = Reserved::new();
        for _ in 0..3 {
            let refused = TcpStream::connect(port.addr()).expect_err("no listener");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let listener = TcpListener::bind(port.addr()).expect("it may be bound again");
            let client = TcpStream::connect(port.addr()).expect("it listens");
            drop((listener.accept().expect("a connection"), client));
        }
    }
}
