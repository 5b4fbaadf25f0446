//! The async client: the driver over a transport in memory, and the handles.

mod corners;
mod credentials;
mod driver;
#[cfg(feature = "testing")]
mod handles;
mod locks;
mod pains_channels;
mod pains_credentials;
mod pains_pushes;
mod pains_reconnect;
mod progress;
mod shutdown;
#[cfg(feature = "tracing")]
mod tracing;

#[path = "../support/bench.rs"]
mod bench;
#[path = "../support/cases.rs"]
mod cases;
#[path = "../support/hand.rs"]
mod hand;
