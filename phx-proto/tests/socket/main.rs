//! The socket as a pure machine on virtual time: connection, channels, pushes, heartbeat.

mod channel;
mod channel_corners;
mod config_extremes;
mod connection;
mod credentials;
mod dial_failures;
mod heartbeat;
mod join_clock;
mod join_tickets;
mod liveness;
mod push;
mod push_corners;
mod reconnect;
mod server_facts;
#[cfg(feature = "testing")]
mod slow_links;

#[path = "../support/cases.rs"]
mod cases;
#[path = "../support/hand.rs"]
mod hand;
