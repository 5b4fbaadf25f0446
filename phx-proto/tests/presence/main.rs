//! Presence: the merged state, and the client that keeps the state up to date.

#[cfg(feature = "driver")]
mod client;
mod state;

#[cfg(feature = "driver")]
#[path = "../support/bench.rs"]
mod bench;
