//! WebSocket as pure state machines: bytes in, bytes out.
//!
//! [`upgrade`] turns a stream into a WebSocket, through a proxy if one is configured. [`Endpoint`]
//! (feature `websocket`) is one whole side of a connection, from the upgrade to the end of the
//! stream (RFC 6455):
//!
//! ```text
//!   bytes read ──▶ poll_event ──▶ Message, Ping, Pong, Acknowledged, Close, or a Fault
//!                     │ pongs, replies to a close, the close code of a violation
//!                     ▼
//!   send, ping, close ──▶ outbox ──▶ poll_transmit ──▶ bytes to write
//! ```
//!
//! The caller owns the buffers. A message that arrives in one frame is a slice of the buffer that was
//! read into, unless it is compressed (feature `deflate`). Frames to send are appended to another
//! buffer and masked there. The machine has no clock and no entropy: the caller passes in a source of
//! [mask keys](MaskKeys).

#[cfg(all(feature = "websocket", any(feature = "adapter", feature = "testing")))]
pub(crate) mod acknowledgements;
#[cfg(feature = "websocket")]
mod close;
#[cfg(all(feature = "websocket", any(feature = "adapter", feature = "testing")))]
pub(crate) mod codecs;
#[cfg(feature = "adapter")]
pub(crate) mod control_watch;
#[cfg(feature = "websocket")]
#[cfg_attr(not(feature = "deflate"), path = "deflate/absent.rs")]
mod deflate;
#[cfg(feature = "websocket")]
mod endpoint;
#[cfg(feature = "websocket")]
mod frame;
#[cfg(feature = "websocket")]
mod mask;
#[cfg(feature = "websocket")]
mod receive;
#[cfg(feature = "websocket")]
mod send;
pub mod upgrade;
#[cfg(feature = "websocket")]
mod utf8;
#[cfg(feature = "websocket")]
mod violation;

#[cfg(feature = "websocket")]
pub use self::close::{Close, UnsendableCode};
#[cfg(feature = "deflate")]
pub use self::deflate::Scratch;
#[cfg(all(feature = "adapter", feature = "deflate"))]
pub(crate) use self::deflate::compressed_max;
#[cfg(feature = "websocket")]
pub use self::endpoint::{Endpoint, Event, Limits, State};
#[cfg(feature = "websocket")]
pub use self::mask::MaskKeys;
#[cfg(feature = "websocket")]
pub use self::send::{PingRefused, SendError, Upload};
#[cfg(feature = "websocket")]
pub use self::violation::{Fault, Violation};
