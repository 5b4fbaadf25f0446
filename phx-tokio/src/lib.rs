//! Phoenix Channels client for tokio.
//!
//! ```no_run
//! use phx_tokio::{ChannelEvent, Config};
//! use serde_json::json;
//!
//! # async fn first_five_minutes() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::new("ws://127.0.0.1:4000/socket/websocket")?.param("token", "s3cret");
//! let client = phx_tokio::connect(config).await?;
//! let room = client.join("room:lobby", json!({"user": 7})).await?; // a refusal is the error
//! let reply = room.push("new_msg", json!({"body": "hi"})).await?.ok()?; // waits for the reply
//! room.cast("typing", json!({})).await?; // does not
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
//! The connection is kept: after a loss it is dialled again with a delay that grows, every channel
//! is joined again, and a consumer sees the gap as `Interrupted` and `Resumed`.
//!
//! A program also needs `tokio` with the features `macros` and `rt-multi-thread`, or a runtime of its
//! own making with I/O and time enabled.
//!
//! The protocol, all decisions and the handles are those of [`phx_proto`]; this crate adds tokio's
//! sockets, timers and tasks.
//!
//! # Where to read on
//!
//! * [`connect`] waits for the first connection, [`start`] does not, [`client`](client()) spawns nothing, and
//!   [`supervisor`] keeps many under names.
//! * [`Config`] has a setter for each decision; [`Client`], [`Channel`] and [`Messages`] are the
//!   handles. Each async function says what happens when its future is dropped.
//! * The [`manual`] answers questions: how to [wait for a backend](manual::wait_for_a_backend), to
//!   [refresh tokens](manual::credentials), to [share a topic](manual::share_a_topic), to [bound memory](manual::backpressure), to
//!   [test a service](manual::testing_your_client), to [log](manual::log_and_trace), to [shut down](manual::shut_down).
//! * The examples in the repository are short and run as they are: `service` is a whole one; `chat`, `typed`,
//!   `binary`, `presence`, `token_refresh`, `supervised` and `custom_tls` show one thing each.
//!
//! # Features
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `tls` (default) | `wss://`, over rustls with ring; Mozilla's roots unless [`Config::tls`] says otherwise |
//! | `tls-native-roots` | [`Roots::native`]: the certificate authorities of the operating system |
//! | `service` (default) | documents of connections, the [supervisor], the router and the bus, metrics: module [`service`] |
//! | `schema` | `Connections::json_schema`: the JSON Schema of a document of connections |
//! | `websocket` | phx's own WebSocket in place of tungstenite, by [`Config::transport`] |
//! | `tracing` | what happens, as events of the `tracing` crate with the target `phx` |
//! | `recording` | [`recording`]: what a client receives and does, in a file that can be replayed |
//! | `testing` | [`testing::Listener`]: a Phoenix-like server on a TCP port, for your tests too |
//! | `cli` | the command `phx` |

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
    client, config, event, id, manual, presence, socket, time, topic, upgrade, wire,
};

pub use crate::runtime::{TokioClock, TokioRuntime, TokioTimer};

/// Connects, and waits until the connection is open.
///
/// Reconnecting is automatic from then on; when this first attempt fails, nothing goes on in the
/// background.
///
/// # Errors
///
/// Why the first attempt failed: the server could not be reached, or refused the upgrade.
///
/// # Panics
///
/// Outside of a tokio runtime.
///
/// # Cancel safety
///
/// Dropping the future ends the attempt.
pub async fn connect(setup: impl Into<client::Setup>) -> Result<Client, client::ConnectError> {
    phx_proto::client::connect(setup, TokioRuntime::new()).await
}

/// Starts connecting in the background and goes on until it succeeds, or until what the
/// configuration says about giving up.
///
/// # Panics
///
/// Outside of a tokio runtime.
#[must_use = "dropping the client closes the connection"]
pub fn start(setup: impl Into<client::Setup>) -> Client {
    phx_proto::client::start(setup, TokioRuntime::new())
}

/// A client and the future that drives it, for those who spawn it themselves.
///
/// Nothing is dialled: poll the driver, and call [`Client::connect`].
#[must_use = "the driver does the work"]
pub fn client(setup: impl Into<client::Setup>) -> (Client, client::Driver<TokioRuntime>) {
    phx_proto::client::client(setup, TokioRuntime::new())
}

/// A supervisor for named connections, whose events go through `router` to its bus.
///
/// # Panics
///
/// Outside of a tokio runtime.
#[cfg(feature = "service")]
#[must_use = "dropping the supervisor closes its connections"]
pub fn supervisor(router: Router) -> service::Supervisor {
    service::Supervisor::new(TokioRuntime::new(), router)
}

/// The examples of the readme.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
