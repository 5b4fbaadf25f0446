//! WebSocket as pure machines: bytes in, bytes out.

#[cfg(feature = "adapter")]
pub(crate) mod control_watch;
pub mod upgrade;
