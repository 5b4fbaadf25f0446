//! WebSocket as pure machines: bytes in, bytes out.
//!
//! [`upgrade`] turns a stream into a WebSocket, through a proxy if need be. [`Endpoint`] (feature
//! `websocket`) is the whole of one side, from the upgrade to the end of the stream (RFC 6455):
//!
//! ```text
//!   bytes read ──▶ poll_event ──▶ Message, Ping, Pong, Acknowledged, Close, or a Fault
//!                     │ pongs, answers to a close, the close code of a violation
//!                     ▼
//!   send, ping, close ──▶ outbox ──▶ poll_transmit ──▶ bytes to write
//! ```
//!
//! The buffers are the caller's: messages are slices of the buffer that was read into, and what is to
//! be written is appended to a buffer of the caller's, masked there. The machine has no clock and
//! draws no entropy: [mask keys](MaskKeys) come from a source that the caller passes in.

#[cfg(feature = "websocket")]
mod close;
#[cfg(feature = "adapter")]
pub(crate) mod control_watch;
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
#[cfg(feature = "websocket")]
pub use self::endpoint::{Endpoint, Event, Limits, State};
#[cfg(feature = "websocket")]
pub use self::mask::MaskKeys;
#[cfg(feature = "websocket")]
pub use self::send::{PingRefused, SendError, Upload};
#[cfg(feature = "websocket")]
pub use self::violation::{Fault, Violation};
