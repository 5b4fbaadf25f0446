//! Clients and servers in simulated worlds: a story, faults, random soaks, consumers that catch up, a storm,
//! and scripted servers.

mod catch_up;
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
#[path = "../support/in_order.rs"]
mod in_order;
