//! Phoenix Channels as a pure, sans-IO state machine.
//!
//! A [`Socket`] is a value that holds the state of one connection to a Phoenix server and of its
//! channels. Frames, transport events and clock readings go in; [`Action`]s come out: dial, write a
//! frame, close or drop the connection, pass a signal to the application. The socket does no I/O,
//! reads no clock, draws no entropy and spawns nothing, so it can be embedded in any runtime,
//! driven by hand in a simulation, and fuzzed.
//!
//! Most programs want the async handles of an adapter, `phx-tokio` or `phx-smol`. Both are built on
//! this crate and re-export its modules.
//!
//! # Which type do I need?
//!
//! | to | use |
//! | --- | --- |
//! | join topics from an async program | `Client` and `Channel` of `phx-tokio` or `phx-smol` |
//! | drive the protocol from your own event loop | [`Socket`], which takes [`Input`]s and returns [`Action`]s |
//! | set the address, timeouts, limits and retries | [`Config`]; the defaults are in [`Options`] |
//! | send a token that changes | [`Credentials`] for the connection, [`JoinParams`] for a topic |
//! | build or read a payload | [`Payload`] |
//! | react to joins, interruptions and replies | [`Signal`]; a push ends with a [`PushOutcome`] |
//! | find out why a connection or a channel ended | [`Cause`] |
//! | know who is on a topic | [`Presence`] |
//! | get the messages that were missed during a disconnect | [`catch_up`] |
//! | talk to a server with another serializer | [`wire::Codec`] |
//! | run the async handles on another runtime | `client::Runtime` and `client::Transport` (feature `driver`) |
//! | run many connections from a document | `service` (feature `service`) |
//! | test a program without a server | `testing` (feature `testing`) |
//! | record what a client did, and replay it | `recording` (feature `recording`) |
//!
//! # The loop
//!
//! 1. Pass the socket a command, such as [`Socket::join`], or an event of the transport, such as
//!    [`Socket::handle_frame`]. Every call takes `now`, a [`Time`] of your own clock. [`Socket::apply`]
//!    takes any of these calls as plain data, an [`Input`], and has the same effect.
//! 2. Call [`Socket::poll_action`] and carry out what it returns, until it returns `None`. An
//!    [`Action`] is an order (dial, write, close) or a [`Signal`] for the application.
//! 3. Sleep until [`Socket::poll_timeout`] or until the next command or event.
//! 4. At the deadline, call [`Socket::handle_timeout`]. Go to 2.
//!
//! The example below is a whole program. Its server is a function and its clock is a number, so it
//! simulates a minute without waiting. The connection is lost after the reply, and the socket
//! reconnects and joins the channel again on its own:
//!
//! ```
//! use phx_proto::{Action, Config, Ended, Frame, Opened, PushOptions, Signal, Socket, Time};
//! use serde_json::{Value, json};
//!
//! /// Replies "ok" to every message and echoes its payload.
//! fn answer(frame: &Frame) -> Frame {
//!     let sent: Value = serde_json::from_slice(frame.as_bytes()).expect("vsn 2 is JSON");
//!     let reply = json!({"status": "ok", "response": sent[4]});
//!     Frame::from(json!([sent[0], sent[1], sent[2], "phx_reply", reply]).to_string())
//! }
//!
//! let mut now = Time::ZERO;
//! let config = Config::new("ws://localhost:4000/socket/websocket")?;
//! let mut socket = Socket::new(config, 42, now); // 42: draw it from entropy
//! socket.connect(now);
//! socket.join(now, "room:lobby", json!({"user": 7}))?;
//! let hello = json!({"body": "hello"});
//! socket.push(now, "room:lobby", "new_msg", hello, PushOptions::call())?; // waits for the join
//!
//! let mut story = Vec::new();
//! while now < Time::from_millis(60_000) {
//!     while let Some(action) = socket.poll_action(now) {
//!         match action {
//!             // A real driver calls `socket.handle_dialled` and dials `socket.connect_request()` here.
//!             // This connection opens at once.
//!             Action::Connect { id, .. } => socket.handle_opened(now, id, Opened::default()),
//!             Action::Send { id, frame } | Action::Join { id, frame, .. } => {
//!                 socket.handle_frame(now, id, answer(&frame));
//!             }
//!             Action::Signal(Signal::Joined { .. }) => story.push("joined"),
//!             Action::Signal(Signal::PushEnded { .. }) => {
//!                 story.push("replied");
//!                 let id = socket.connection_id().expect("the connection is open");
//!                 let cut = Ended::Lost { message: "the cable was cut".into() };
//!                 socket.handle_closed(now, id, cut);
//!             }
//!             Action::Signal(Signal::Interrupted { .. }) => story.push("interrupted"),
//!             Action::Signal(Signal::Resumed { .. }) => story.push("resumed"),
//!             _ => {} // other signals, and information such as `ReconnectAfter`
//!         }
//!     }
//!     // Nothing else will happen before the next retry or heartbeat: jump there.
//!     now = socket.poll_timeout().expect("a deadline").at;
//!     socket.handle_timeout(now);
//! }
//! assert_eq!(story, ["joined", "replied", "interrupted", "resumed"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`manual::run_loop`] describes what else a driver over real sockets has to do.
//!
//! # Guarantees
//!
//! * **Deterministic.** The same configuration, seed and inputs give the same actions, byte for byte.
//! * **No stale state.** The state of a connection is dropped with the connection. Every I/O input
//!   carries a [`ConnectionId`], and every join has a new join_ref.
//! * **Every accepted push has exactly one [`PushOutcome`].** A push that may have been written is
//!   never written again. [`socket::Repeat`] repeats a push with its idempotency key, as a new push.
//! * **Every interruption is visible.** A channel that may have missed messages gets
//!   [`Signal::Interrupted`] and then [`Signal::Resumed`].
//! * **Bounded.** Queues, timeouts and the parts of frames that error reports contain have limits.
//!   [`manual::bounds`] lists the bounds, and the setters of [`Config`] document the timeouts.
//! * **Invalid input is reported**, as [`Signal::ProtocolError`], and the connection stays open. A
//!   panic is a bug in this crate.
//! * **Secrets stay out of logs.** The text forms of [`Secret`](config::Secret), [`Uri`](config::Uri) and
//!   [`Payload`] are redacted.
//!
//! The [`manual`] has pages about the loop, policies, credentials, backpressure, presence, testing
//! and other runtimes. Other pages answer one question each, such as how to wait for a backend or
//! how to shut down. Three more are for users who come from another client. A reference such as
//! `wire/<something>` in a comment names a recording of a real Phoenix server that shows the fact;
//! the recordings are in `tests/fixtures/wire` of the repository.
//!
//! # Features
//!
//! No feature is on by default. Without features the crate depends on serde, serde_json, thiserror,
//! bytes, base64, httpdate, memchr and slab.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `driver` | async handles, and the future that drives them on any runtime |
//! | `recording` | redacted recordings of what a client receives and does, and their replay |
//! | `upgrade` | the HTTP upgrade, and the tunnel through an HTTP or SOCKS5 proxy, as pure state machines |
//! | `websocket` | WebSocket as a pure state machine, from the upgrade to the closing handshake: bytes in, bytes out |
//! | `deflate` | compression of WebSocket messages: permessage-deflate; includes `websocket` |
//! | `service` | connections documents, the router to CloudEvents, restart decisions, metrics; with `driver`, the supervisor and the bus |
//! | `schema` | `Connections::json_schema`: the JSON Schema of a connections document |
//! | `ring` | the crypto provider ring as the default for `tls`; includes `tls` |
//! | `tls` | `Tls`: the certificates that `wss://` trusts, and the crypto provider |
//! | `tls-native-roots` | `Roots::native`: the root certificates of the operating system |
//! | `tracing` | events of the driver for the `tracing` crate |
//! | `testing` | a pure Phoenix-like server and simulated worlds, which your tests can use; with `driver`, a scripted server for programs that use the handles |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod catch_up;
#[cfg(feature = "driver")]
pub mod client;
mod collections;
pub mod config;
pub mod event;
pub mod id;
pub mod manual;
pub mod presence;
#[cfg(feature = "recording")]
pub mod recording;
#[cfg(all(test, shuttle))]
#[path = "../tests/schedules/mod.rs"]
mod schedules;
#[cfg(feature = "service")]
pub mod service;
pub mod socket;
#[cfg(any(feature = "driver", feature = "recording", feature = "tls"))]
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod topic;
#[cfg(feature = "adapter")]
mod transport;
#[cfg(all(feature = "upgrade", not(feature = "websocket")))]
mod websocket;
#[cfg(feature = "websocket")]
pub mod websocket;
pub mod wire;

#[cfg(feature = "tls")]
pub use rustls;

pub use crate::config::{Config, ConfigError, Credentials, JoinParams, Options};
pub use crate::event::{
    Action, Applied, Cause, ConnectRequest, Ended, Input, Opened, PushOptions, PushOutcome, Reply,
    Signal,
};
pub use crate::id::{ConnectionId, InterestId, PushId, Ref};
pub use crate::presence::Presence;
pub use crate::socket::{ChannelStatus, Socket, Status};
pub use crate::time::Time;
pub use crate::topic::Topic;
#[cfg(feature = "upgrade")]
pub use crate::websocket::upgrade;
pub use crate::wire::{Frame, Payload};

#[cfg(feature = "adapter")]
#[doc(hidden)]
pub mod adapter {
    //! Code that the adapters share. It is for authors of adapters, and not part of the stable API.

    #[cfg(feature = "testing")]
    pub use crate::testing::listener::{Hub, Serve};
    pub use crate::transport::*;

    /// The members of a JSON object in their order, including those with repeated keys.
    ///
    /// # Errors
    ///
    /// If the value is not an object, or if a key has an unpaired surrogate.
    #[cfg(feature = "service")]
    pub fn members(
        value: &serde_json::value::RawValue,
    ) -> serde_json::Result<Vec<(String, &serde_json::value::RawValue)>> {
        crate::wire::raw::members(value)
    }
}

/// The examples of the readme.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
