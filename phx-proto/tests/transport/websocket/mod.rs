//! The WebSocket machine: the cases of Autobahn, tungstenite as the oracle, and the behaviour of an
//! endpoint.

mod autobahn;
#[cfg(feature = "deflate")]
mod deflate;
mod endpoint;
mod oracle;
mod splitting;
mod support;
