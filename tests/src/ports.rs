//! Loopback ports that belong to a test.
//!
//! A port that was taken with port 0 and given back is free for everybody: the kernel may hand it
//! to another test in the same moment. Then a server cannot be started on it again, or a client
//! that is to be refused finds a listener.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

use crate::waiting::{DEADLINE, TICK};

/// A loopback port reserved for as long as this value lives.
///
/// Its socket is bound and does not listen, so connections are refused. With `SO_REUSEADDR`, which
/// the standard library and both runtimes set, Linux lets a listener bind the same port, as often
/// as it likes, and does not choose the port for anyone who asks for port 0.
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
    /// When the system has no socket or no port left.
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

/// Starts a server again on its port, once that is free.
///
/// While a process is forked and its program not yet executed, it holds every socket that was open
/// here, so in a test program that starts processes a port may be in use for a moment longer than
/// its listener. Blocks for as long as that takes.
///
/// # Errors
///
/// Those of binding. That the port is in use is one after [`DEADLINE`].
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

    /// As a server that is stopped and started again on its port.
    #[test]
    fn reserved_port_refuses_until_bound() {
        let port = Reserved::new();
        for _ in 0..3 {
            let refused = TcpStream::connect(port.addr()).expect_err("nobody listens");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let listener = TcpListener::bind(port.addr()).expect("it may be bound again");
            let client = TcpStream::connect(port.addr()).expect("it listens");
            drop((listener.accept().expect("a connection"), client));
        }
    }
}
