//! WebSocket as pure machines: bytes in, bytes out.

pub mod upgrade;
