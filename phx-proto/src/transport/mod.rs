//! Code that the adapters share: the dialler and the WebSocket, which run on the sockets of any
//! runtime.
//!
//! ```text
//!             ┌───────────────── here ───────────────────┐
//!   Net ─────▶│ dial: race ─▶ CONNECT ─▶ TLS ─▶ upgrade  │──▶ Io: upgraded stream
//!  (adapter)  └──────────────────────────────────────────┘         │
//!             ┌──────────────────────────────────────────┐         ▼
//!  driver ◀───│ Socket: frames in and out, endings       │◀── Wrap: tungstenite's wrapper
//!             └──────────────────────────────────────────┘    of that runtime, or Native
//! ```
//!
//! This module is for authors of adapters and is not covered by the stability promise. Nothing here
//! requires `Send`: a type is `Send` if the streams and futures of the adapter are.

mod dial;
mod exchange;
mod incoming;
#[cfg(feature = "websocket")]
mod native;
mod race;
mod resolve;
mod stream;
mod streams;
#[cfg(test)]
mod test_stream;
#[cfg(feature = "tls")]
mod tls;

use core::future::Future;
use core::net::SocketAddr;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;
use std::time::UNIX_EPOCH;

use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};
use futures_sink::Sink;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message};

pub use self::dial::dial;
#[cfg(feature = "websocket")]
pub use self::native::Native;
pub use self::resolve::Resolver;
pub use self::stream::Io;
pub use self::streams::{Meter, Tungstenite, WebSocket};
use crate::client::{Received, Transport, WriteFailed};
use crate::config::{Config, TransportKind};
use crate::event::action::ConnectRequest;
use crate::event::cause::Cause;
use crate::event::input::{Opened, Progress};
use crate::time::Time;
use crate::wire::Frame;

/// The parts of a runtime that dialling needs: sockets and a timer.
pub trait Net: 'static {
    /// A TCP stream, plain or with TLS.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;

    /// Whether [`secure`](Self::secure) is implemented.
    const TLS: bool = false;

    /// Opens a TCP connection.
    fn connect(address: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Completes after `duration`.
    fn sleep(duration: Duration) -> impl Future<Output = ()>;

    /// Performs the client's TLS handshake on a stream.
    #[cfg(feature = "tls")]
    fn secure(
        stream: Io<Self::Stream>,
        name: rustls::pki_types::ServerName<'static>,
        client: std::sync::Arc<rustls::ClientConfig>,
    ) -> impl Future<Output = io::Result<Self::Stream>> {
        drop((stream, name, client));
        core::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// A runtime's wrapper of tungstenite, for either end of a connection.
pub trait Wrap: Net {
    /// The WebSocket type of the wrapper.
    type Socket: Stream<Item = Result<Message, Error>>
        + Sink<Message, Error = Error>
        + Unpin
        + 'static;

    /// Wraps an upgraded stream.
    fn wrap(
        stream: Io<Self::Stream>,
        role: Role,
        config: Option<WebSocketConfig>,
    ) -> impl Future<Output = Self::Socket>;
}

/// Dials once and opens the WebSocket. If the caller passes a `stream`, it is used instead of
/// dialling.
///
/// # Errors
///
/// The [`Cause`] of the step that failed.
pub async fn connect<N: Wrap>(
    stream: Option<impl Future<Output = io::Result<N::Stream>>>,
    request: &ConnectRequest,
    config: &Config,
    resolver: &Resolver,
) -> Result<(Socket<N>, Opened), Cause> {
    let (stream, upgraded) = match stream {
        None => dial::<N>(request, config, resolver).await?,
        Some(stream) => dial::dial_over::<N>(stream, request, config).await?,
    };
    let opened = Opened { protocol: upgraded.protocol.clone() };
    let socket = match config.transport_in_use() {
        TransportKind::Tungstenite => {
            let meter = stream.meter().clone();
            let reads = incoming::Reads::default();
            let stream = stream.with_leftover(upgraded.leftover).with_reads(reads.clone());
            let settings = streams::socket_config(config);
            let socket = N::wrap(stream, Role::Client, Some(settings)).await;
            let socket = Tungstenite::new(socket, meter, reads, config.write_buffer_bytes);
            Socket::Tungstenite(Box::new(socket))
        }
        #[cfg(feature = "websocket")]
        TransportKind::WebSocket => {
            Socket::Native(Box::new(Native::new(stream, &upgraded, config)))
        }
    };
    Ok((socket, opened))
}

/// An open WebSocket over the [transport](Config::transport_in_use) that the configuration selects.
#[derive(Debug)]
pub enum Socket<N: Wrap> {
    /// Uses the runtime's wrapper of tungstenite.
    Tungstenite(Box<Tungstenite<N::Socket>>),
    /// Uses phx's own WebSocket machine.
    #[cfg(feature = "websocket")]
    Native(Box<Native<N::Stream>>),
}

impl<N: Wrap> Socket<N> {
    fn transport(&mut self) -> &mut dyn Transport {
        match self {
            Self::Tungstenite(socket) => &mut **socket,
            #[cfg(feature = "websocket")]
            Self::Native(socket) => &mut **socket,
        }
    }
}

impl<N: Wrap> Transport for Socket<N> {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        self.transport().poll_receive(cx)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        self.transport().poll_ready(cx)
    }

    fn space(&self) -> usize {
        match self {
            Self::Tungstenite(socket) => socket.space(),
            #[cfg(feature = "websocket")]
            Self::Native(socket) => socket.space(),
        }
    }

    fn send(&mut self, frame: Frame) -> Result<(), WriteFailed> {
        self.transport().send(frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        self.transport().poll_flush(cx)
    }

    fn progress(&mut self) -> Progress {
        self.transport().progress()
    }

    fn close(&mut self, code: u16, reason: &str) {
        self.transport().close(code, reason);
    }
}

/// The wall clock, as time since the Unix epoch. While the clock is set to a time before the epoch,
/// the result is zero, so no deadline expires.
#[must_use]
pub fn wall() -> Time {
    Time::ZERO + UNIX_EPOCH.elapsed().unwrap_or_default()
}

/// A random number from the operating system's entropy.
#[must_use]
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    entropy(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// Fills a slice with the operating system's entropy.
fn entropy(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system has entropy");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The year 2000 is long past on a machine whose clock is set.
    #[test]
    fn wall_is_time_since_epoch() {
        assert!(wall() > Time::from_millis(946_684_800_000));
    }
}
