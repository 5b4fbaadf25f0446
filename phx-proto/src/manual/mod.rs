//! The manual: how to use phx, and why it works the way it does.
//!
//! | page | contents |
//! | --- | --- |
//! | [`wait_for_a_backend`] | how to start before the backend does, and wait for a topic |
//! | [`when_it_does_not_connect`] | each error message, its reason, and its remedy |
//! | [`credentials`] | how to refresh tokens, and how they are sent |
//! | [`share_a_topic`] | several handles of one topic, streams of selected events, merged streams |
//! | [`push_again`] | how to push again when the reply was lost, without a second effect |
//! | [`unrouted`] | how to read messages on topics that were not joined, such as GraphQL subscriptions |
//! | [`catch_up`] | how to get the messages that were missed during an interruption, each once and in order |
//! | [`presence`] | the list of present clients |
//! | [`backpressure`] | what happens when a consumer, the network or the server is too slow |
//! | [`bounds`] | every bound: what it counts, its setter, and what happens when it is reached |
//! | [`compression`] | when to compress messages, what it costs, and what it reveals about secrets (feature `deflate`) |
//! | [`policies`] | every decision of the client, and the reason for it |
//! | [`storm`] | a picture of the load on a server that comes back |
//! | [`log_and_trace`] | how to see what a connection does: logs, signals, states, errors |
//! | [`events`] | every CloudEvent type, bus topic and log event |
//! | [`recording`](crate::recording) | a recording of what a client did, for a bug report (feature `recording`) |
//! | [`shut_down`] | how to end a program gracefully |
//! | [`many_connections`] | how to keep many connections |
//! | [`operating`] | `phx run` as a service: the file, shutdown, reload, control, metrics, more than one process |
//! | [`testing_your_client`] | how to test your code against a server that the test controls |
//! | [`run_loop`] | the loop of a driver, step by step |
//! | [`time_and_randomness`] | why `now` is an argument and a seed is required |
//! | [`other_runtimes`] | how to run the driver on another async runtime |
//! | [`threats`] | the threat model: what phx protects, against whom, and what it leaves to the program |
//! | [`protocol`] | what a Phoenix Channels client must do, clause by clause, with recordings as evidence |
//! | [`from_phoenix_js`] | the names of phoenix.js and their counterparts |
//! | [`from_slipstream`] | the names of Slipstream and their counterparts |
//! | [`from_phoenix_channels_client`] | the names of `phoenix_channels_client` and their counterparts |
//!
//! Each page is a module without items. Some pages need the feature `driver` or `service`.
//!
//! # Words
//!
//! | word | meaning |
//! | --- | --- |
//! | client | one connection to a server, with all its reconnects |
//! | topic, channel | a topic is a name such as `room:lobby`; a channel is the conversation on a topic, from a join to its end |
//! | handle | a `Client` or a `Channel` value in your program; the client leaves a topic when the last `Channel` of the topic and the last stream of its messages are dropped |
//! | wanted topic | a topic that the client joins on every connection: the program has a handle of it, or it is an auto-join |
//! | push | an event that the program sends: a *call* waits for a reply, a *cast* does not |
//! | message | an event that the server sends on a topic |
//! | consumer | the code that reads a stream of messages; its *mailbox* is the bounded queue of that stream |
//! | gap | the time between `Interrupted` and `Resumed`, in which a channel was not joined; the server does not repeat messages of that time, unless the program [catches up](catch_up) |
//! | signal | a [`Signal`](crate::Signal): one thing that happened to a client |
//! | core, driver | the core is the [`Socket`](crate::Socket), which decides; the driver is the future that dials, reads and writes for it |

#[doc = include_str!("protocol.md")]
pub mod protocol {}
#[doc = include_str!("run_loop.md")]
pub mod run_loop {}
#[doc = include_str!("time_and_randomness.md")]
pub mod time_and_randomness {}
#[cfg(feature = "deflate")]
#[doc = include_str!("compression.md")]
pub mod compression {}
#[doc = include_str!("policies.md")]
pub mod policies {}
#[doc = include_str!("storm.md")]
#[doc = include_str!("storm.svg")]
///
/// The command `cargo run --release -p phx-proto --features testing --example storm 2000 storm.svg` draws
/// the picture. Without a file name the example prints the numbers, by default for 100,000 clients. A test
/// compares the picture with the behaviour of the code.
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
#[doc = include_str!("catch_up.md")]
pub mod catch_up {}
#[cfg(feature = "driver")]
#[doc = include_str!("log_and_trace.md")]
pub mod log_and_trace {}
#[cfg(feature = "service")]
#[doc = include_str!("events.md")]
pub mod events {}
#[cfg(feature = "driver")]
#[doc = include_str!("shut_down.md")]
pub mod shut_down {}
#[cfg(feature = "driver")]
#[doc = include_str!("many_connections.md")]
pub mod many_connections {}
#[doc = include_str!("threats.md")]
pub mod threats {}
#[doc = include_str!("bounds.md")]
pub mod bounds {}
#[cfg(feature = "driver")]
#[doc = include_str!("push_again.md")]
pub mod push_again {}
#[cfg(feature = "driver")]
#[doc = include_str!("unrouted.md")]
pub mod unrouted {}
#[doc = include_str!("presence.md")]
pub mod presence {}
#[doc = include_str!("testing_your_client.md")]
pub mod testing_your_client {}
#[cfg(feature = "driver")]
#[doc = include_str!("operating.md")]
pub mod operating {}
#[doc = include_str!("other_runtimes.md")]
#[cfg_attr(all(feature = "driver", feature = "testing"), doc = "```no_run")]
#[cfg_attr(
    not(all(feature = "driver", feature = "testing", feature = "websocket")),
    doc = "```ignore"
)]
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
