//! The async client: the driver over a transport in memory, and the handles.

#[cfg(feature = "testing")]
mod catch_up;
mod channels;
mod corners;
mod credentials;
mod driver;
#[cfg(feature = "testing")]
mod handles;
#[cfg(feature = "service")]
mod locks;
mod mailboxes;
mod progress;
mod reconnect;
mod shutdown;
#[cfg(feature = "tracing")]
mod tracing;
mod unrouted;

#[path = "../support/bench.rs"]
mod bench;
#[cfg(feature = "testing")]
#[path = "../support/cases.rs"]
mod cases;
#[path = "../support/hand.rs"]
mod hand;
