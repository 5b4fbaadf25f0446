//! The manual: how to use what is here, and why it is as it is.
//!
//! | page | about |
//! | --- | --- |
//! | [`protocol`] | what a Phoenix Channels client must do, clause by clause, with the recordings that show it |
//! | [`run_loop`] | the loop of a driver, step by step |
//! | [`time_and_randomness`] | why `now` is an argument and a seed is required |
//! | [`policies`] | every decision and its default, with the argument for it |
//! | [`storm`] | what clients do to a server that comes back, drawn |
//! | [`wait_for_a_backend`] | how to start before the backend does: wanting a topic, and waiting for it |
//! | [`credentials`] | how to refresh tokens, and how they travel |
//! | [`share_a_topic`] | several handles of one topic, streams of some events, streams that are merged |
//! | [`backpressure`] | how to bound memory: what happens when a consumer, the network or the server is too slow |
//! | [`bounds`] | every bound: what it counts, its setter, its default, and what happens at it |
//! | [`presence`] | the list of who is there |
//! | [`testing_your_client`] | your own code against a server that you play |
//! | [`when_it_does_not_connect`] | by what a message says: why, and what to do |
//! | [`log_and_trace`] | how to see what a connection does: logs, signals, states, errors |
//! | [`shut_down`] | how to end a program in order |
//! | [`many_connections`] | how to keep many connections |
//! | [`recording`](crate::recording) | what a client did, in a file: how to report a bug (feature `recording`) |
//! | [`operating`] | `phx run` as a service: reload, control, metrics, more than one process (feature `driver`) |
//! | [`other_runtimes`] | embedding the driver in a runtime of your own |
//! | [`from_phoenix_js`] | names, for those who come from phoenix.js |
//! | [`from_slipstream`] | names, for those who come from Slipstream |
//! | [`from_phoenix_channels_client`] | names, for those who come from `phoenix_channels_client` |
//!
//! The pages are modules without items.

#[doc = include_str!("protocol.md")]
pub mod protocol {}
#[doc = include_str!("run_loop.md")]
pub mod run_loop {}
#[doc = include_str!("time_and_randomness.md")]
pub mod time_and_randomness {}
#[doc = include_str!("policies.md")]
pub mod policies {}
#[doc = include_str!("storm.md")]
#[doc = include_str!("storm.svg")]
///
/// Drawn by `cargo run --release -p phx-proto --features testing --example storm 2000 storm.svg`; without
/// a file the example prints the numbers, by default for 100,000 clients. A test holds the picture to what
/// the code does.
pub mod storm {}
#[doc = include_str!("credentials.md")]
pub mod credentials {}
#[doc = include_str!("when_it_does_not_connect.md")]
pub mod when_it_does_not_connect {}
#[doc = include_str!("backpressure.md")]
pub mod backpressure {}
#[cfg(feature = "driver")]
#[doc = include_str!("wait_for_a_backend.md")]
pub mod wait_for_a_backend {}
#[cfg(feature = "driver")]
#[doc = include_str!("share_a_topic.md")]
pub mod share_a_topic {}
#[cfg(feature = "driver")]
#[doc = include_str!("log_and_trace.md")]
pub mod log_and_trace {}
#[cfg(feature = "driver")]
#[doc = include_str!("shut_down.md")]
pub mod shut_down {}
#[cfg(feature = "driver")]
#[doc = include_str!("many_connections.md")]
pub mod many_connections {}
#[doc = include_str!("bounds.md")]
pub mod bounds {}
#[doc = include_str!("presence.md")]
pub mod presence {}
#[doc = include_str!("testing_your_client.md")]
pub mod testing_your_client {}
#[cfg(feature = "driver")]
#[doc = include_str!("operating.md")]
pub mod operating {}
#[doc = include_str!("other_runtimes.md")]
#[cfg_attr(all(feature = "driver", feature = "testing"), doc = "```no_run")]
#[cfg_attr(not(all(feature = "driver", feature = "testing")), doc = "```ignore")]
#[doc = include_str!("../../examples/own_runtime.rs")]
#[doc = "```"]
pub mod other_runtimes {}
#[doc = include_str!("from_phoenix_js.md")]
pub mod from_phoenix_js {}
#[doc = include_str!("from_slipstream.md")]
pub mod from_slipstream {}
#[cfg(feature = "driver")]
#[doc = include_str!("from_phoenix_channels_client.md")]
pub mod from_phoenix_channels_client {}
