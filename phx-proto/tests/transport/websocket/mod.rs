//! The WebSocket machine: the cases of Autobahn, tungstenite as the oracle, and what an endpoint does
//! of its own accord.

mod autobahn;
mod endpoint;
mod oracle;
mod splitting;
mod support;
