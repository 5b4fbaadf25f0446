//! WebSocket as pure machines: bytes in, bytes out.

#[cfg(feature = "adapter")]
pub(crate) mod close_watch;
pub mod upgrade;
