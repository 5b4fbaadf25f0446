//! Clients and servers in simulated worlds: a story, faults, random soaks, a storm, and scripted servers.

#[cfg(feature = "websocket")]
mod cuts;
mod faults;
#[cfg(feature = "driver")]
mod script;
mod soak;
mod storm;
mod story;
mod stress;

#[path = "../support/hand.rs"]
mod hand;
