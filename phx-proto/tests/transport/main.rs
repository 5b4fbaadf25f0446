//! The parts that the adapters share: dialling, the HTTP upgrade, proxies, and the WebSocket machine.

#[cfg(feature = "adapter")]
mod dial;
mod upgrade_answers;
mod upgrade_recordings;
mod upgrade_requests;
mod upgrade_socks5;
#[cfg(all(feature = "testing", feature = "websocket"))]
mod websocket;

#[path = "../support/cases.rs"]
mod cases;
