//! Phoenix Channels client for smol.
//!
//! ```no_run
//! use phx_smol::{ChannelEvent, Config};
//! use serde_json::json;
//!
//! # async fn first_five_minutes() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::new("ws://127.0.0.1:4000/socket/websocket")?.param("token", "s3cret");
//! let client = phx_smol::connect(config).await?;
//! let room = client.join("room:lobby", json!({"user": 7})).await?; // a refusal is the error
//! let reply = room.push("new_msg", json!({"body": "hi"})).await?.ok()?; // waits for the reply
//! room.cast("typing", json!({})).await?; // does not wait for a reply
//!
//! let mut messages = room.messages();
//! while let Some(event) = messages.next().await {
//!     if let ChannelEvent::Message(message) = event {
//!         println!("{}: {:?}", message.event(), message.payload());
//!     }
//! }
//! client.disconnect().await;
//! # Ok(())
//! # }
//! ```
//!
//! The client stays connected: after a lost connection, it reconnects with increasing delays and
//! joins every channel again. A consumer receives `Interrupted` and then `Resumed`.
//!
//! A program also needs `smol`, whose `block_on` runs it.
//!
//! The protocol, all decisions and the handles come from [`phx_proto`]; this crate adds smol's
//! sockets, timers and tasks, on smol's global executor.
//!
//! # Which type do I need?
//!
//! | to | use |
//! | --- | --- |
//! | connect, and wait until the connection is open | [`connect`], which returns a [`Client`] |
//! | connect in the background | [`start`] |
//! | spawn the driver yourself | [`client`](client()) |
//! | keep many connections by name | [`supervisor`] |
//! | set the address, timeouts, limits and retries | [`Config`] |
//! | send a token that changes | [`Credentials`] for the connection, [`JoinParams`] for a topic |
//! | join a topic | [`Client::join`], which returns a [`Channel`]; [`Client::want`] does not wait |
//! | send an event | [`Channel::push`] waits for the reply, [`Channel::cast`] does not |
//! | receive the messages of a topic | [`Messages`], a stream of [`ChannelEvent`]s, from [`Channel::messages`] or [`Channel::on`] |
//! | know who is on a topic | [`PresenceStream`], from [`Channel::presence`] |
//! | observe losses, retries and refusals | [`Signals`], from [`Client::signals`] |
//! | build or read a payload | [`Payload`] |
//! | trust a private authority, present a certificate, or use another crypto provider | [`Tls`] and [`Config::tls`] |
//! | dial over your own stream, or resolve names yourself | [`SmolRuntime`] |
//! | run connections from a file | [`Connections`] and [`Router`] |
//! | test a program without a network | [`testing::Script`] |
//! | test a program against a server | [`testing::Listener`] |
//!
//! # Further reading
//!
//! * Each async function documents what happens when its future is dropped.
//! * The [`manual`] answers questions: how to [wait for a backend](manual::wait_for_a_backend), to
//!   [refresh tokens](manual::credentials), to [share a topic](manual::share_a_topic), to
//!   [get missed messages](manual::catch_up), to [bound memory](manual::backpressure), to
//!   [test a service](manual::testing_your_client), to [log](manual::log_and_trace), to [shut down](manual::shut_down).
//! * The examples in the repository are short and run without changes: `service` is a complete service; `chat`,
//!   `typed`, `absinthe`, `binary`, `presence`, `catch_up`, `token_refresh`, `supervised` and `custom_tls` show
//!   one feature each.
//!   `bench` compares the adapter with a minimal client on a bare WebSocket.
//!
//! # Features
//!
//! | feature | adds |
//! | --- | --- |
//! | `ring` (default) | `wss://` with the crypto provider ring; includes `tls` |
//! | `tls` | `wss://`, over rustls, with Mozilla's roots unless [`Config::tls`] sets others; without `ring`, the program brings its own crypto provider |
//! | `tls-native-roots` | [`Roots::native`]: the certificate authorities of the operating system |
//! | `service` (default) | module [`service`]: connections from a document, the [supervisor], the router and the bus, metrics |
//! | `schema` | `Connections::json_schema`: the JSON Schema of a document of connections |
//! | `websocket` | phx's own WebSocket as an alternative to tungstenite, selected with [`Config::transport`] |
//! | `deflate` | compression of messages, turned on with [`Config::compression`]; includes `websocket` |
//! | `tracing` | events of the `tracing` crate with the target `phx` |
//! | `recording` | module [`recording`]: files with the inputs and actions of a client, which can be replayed |
//! | `testing` | module [`testing`]: a Phoenix-like server, on a TCP port or in memory |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod net;
mod runtime;
#[cfg(feature = "testing")]
pub mod testing;

pub use phx_proto::Payload;
pub use phx_proto::adapter::WebSocket;
pub use phx_proto::client::{
    Channel, ChannelEvent, Client, JoinOptions, Message, Messages, PresenceEvent, PresenceStream,
    Signals,
};
pub use phx_proto::config::{CloseRule, Config, Credentials, JoinParams, Proxy};
#[cfg(feature = "tls")]
pub use phx_proto::config::{Roots, Tls};
pub use phx_proto::event::{PushOutcome, Signal};
#[cfg(feature = "recording")]
pub use phx_proto::recording;
#[cfg(feature = "tls")]
pub use phx_proto::rustls;
#[cfg(feature = "service")]
pub use phx_proto::service;
#[cfg(feature = "service")]
pub use phx_proto::service::{Connections, Router};
pub use phx_proto::{
    catch_up, client, config, event, id, manual, presence, socket, time, topic, upgrade, wire,
};

pub use crate::runtime::{SmolClock, SmolRuntime, SmolTimer};

/// Connects, and waits until the connection is open.
///
/// After that, the client reconnects automatically. If this first attempt fails, nothing continues
/// in the background.
///
/// # Errors
///
/// The reason why the first attempt failed: the server could not be reached, or refused the upgrade.
///
/// # Cancel safety
///
/// Dropping the future ends the attempt.
pub async fn connect(setup: impl Into<client::Setup>) -> Result<Client, client::ConnectError> {
    phx_proto::client::connect(setup, SmolRuntime::new()).await
}

/// Connects in the background, and retries until it succeeds or the configured limits end it.
#[must_use = "dropping the client closes the connection"]
pub fn start(setup: impl Into<client::Setup>) -> Client {
    phx_proto::client::start(setup, SmolRuntime::new())
}

/// Creates a client and the future that drives it, for a program that spawns the driver itself.
///
/// It does not connect: poll the driver, and call [`Client::connect`].
#[must_use = "the driver does the work"]
pub fn client(setup: impl Into<client::Setup>) -> (Client, client::Driver<SmolRuntime>) {
    phx_proto::client::client(setup, SmolRuntime::new())
}

/// Creates a supervisor for named connections; their events go through `router` to its bus.
#[cfg(feature = "service")]
#[must_use = "dropping the supervisor closes its connections"]
pub fn supervisor(router: Router) -> service::Supervisor {
    service::Supervisor::new(SmolRuntime::new(), router)
}

/// The examples of the readme.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
