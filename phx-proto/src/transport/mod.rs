//! What the adapters have in common, written once: everything between the runtime's sockets and
//! the [`Runtime`](crate::client::Runtime) of the driver that is not the runtime's own.
//!
//! ```text
//!             ┌───────────────── here ───────────────────┐
//!   Net ─────▶│ dial: race ─▶ CONNECT ─▶ TLS ─▶ upgrade  │──▶ upgraded stream
//!  (adapter)  └──────────────────────────────────────────┘         │ tungstenite's wrapper
//!             ┌──────────────────────────────────────────┐         ▼ of that runtime
//!  driver ◀───│ WebSocket: frames in and out, endings     │◀────────┘
//!             └──────────────────────────────────────────┘
//! ```
//!
//! For the authors of adapters. Not part of what the crates promise to keep stable.

mod dial;
mod exchange;
mod incoming;
#[cfg(feature = "websocket")]
mod native;
mod race;
mod resolve;
mod streams;
#[cfg(feature = "tls")]
mod tls;

use core::future::Future;
use core::net::SocketAddr;
use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;

pub use self::dial::{dial, dial_over};
pub use self::incoming::Reads;
pub use self::resolve::Resolver;
pub use self::streams::{Meter, WebSocket, socket_config, take_front};

/// A runtime's sockets and clock, as far as dialling needs them.
pub trait Net: 'static {
    /// A connected stream.
    type Stream: ByteStream;

    /// Whether [`secure`](Self::secure) is there.
    const TLS: bool = false;

    /// Opens a TCP connection.
    fn connect(address: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Ready after a while.
    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send;

    /// Speaks TLS on a stream, as a client.
    #[cfg(feature = "tls")]
    fn secure(
        stream: Self::Stream,
        name: rustls::pki_types::ServerName<'static>,
        client: std::sync::Arc<rustls::ClientConfig>,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        drop((stream, name, client));
        core::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// Bytes in both directions. Every runtime has traits of its own for that.
pub trait ByteStream: Send + Unpin + 'static {
    /// Reads some bytes; 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes some bytes.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Hands to the operating system what is still held back.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends what is written; it can still be read from.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Sixty-four bits of the operating system's entropy, by way of the keys of `RandomState`, which
/// are new for every value of it.
#[must_use]
pub fn random_u64() -> u64 {
    RandomState::new().hash_one(0_u8)
}
