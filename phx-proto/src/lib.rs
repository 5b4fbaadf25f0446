//! Phoenix Channels as a pure, sans-IO state machine.
//!
//! [`Socket`] is one connection to a Phoenix server and its channels, as a value. Frames, transport
//! events and clock readings go in; [`Action`]s come out: connect, send, join, rejoin-after,
//! reconnect-after, close, signal. It does no I/O, reads no clock, draws no entropy and spawns
//! nothing, so it can be embedded in any runtime, driven by hand in a simulation, and fuzzed.
//!
//! Most programs want the async handles of an adapter, `phx-tokio` or `phx-smol`, which re-export
//! the modules of this crate; it is what they are made of.
//!
//! # The loop
//!
//! 1. Tell the socket something: a command ([`Socket::join`]), or what the world did
//!    ([`Socket::handle_frame`]). Every call takes `now`, a [`Time`] of a clock that is yours.
//!    [`Socket::apply`] takes any of them as data, an [`Input`].
//! 2. Carry out [`Socket::poll_action`] until it answers `None`. An [`Action`] is an order (dial,
//!    write, close) or a [`Signal`] for the application.
//! 3. Sleep until [`Socket::poll_timeout`] or the next thing to tell.
//! 4. When the deadline has come, call [`Socket::handle_timeout`]. Go to 2.
//!
//! A whole program, with a server that is a function and a minute that takes no time. The cable is
//! cut when the reply has come, and the channel is joined again by itself:
//!
//! ```
//! use phx_proto::{Action, Config, Ended, Frame, Opened, PushOptions, Signal, Socket, Time};
//! use serde_json::{Value, json};
//!
//! /// Says ok to everything, with what it was told.
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
//!             // Here a driver dials `socket.connect_request()`; this one is there at once.
//!             Action::Connect { id, .. } => socket.handle_opened(now, id, Opened::default()),
//!             Action::Send { id, frame } | Action::Join { id, frame, .. } => {
//!                 socket.handle_frame(now, id, answer(&frame));
//!             }
//!             Action::Signal(Signal::Joined { .. }) => story.push("joined"),
//!             Action::Signal(Signal::PushEnded { .. }) => {
//!                 story.push("replied");
//!                 let id = socket.connection_id().expect("it is open");
//!                 let cut = Ended::Lost { message: "the cable was cut".into() };
//!                 socket.handle_closed(now, id, cut);
//!             }
//!             Action::Signal(Signal::Interrupted { .. }) => story.push("interrupted"),
//!             Action::Signal(Signal::Resumed { .. }) => story.push("resumed"),
//!             _ => {} // other signals, and facts such as `ReconnectAfter`
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
//! [`manual::run_loop`] says what a driver over real sockets must see to besides.
//!
//! # What it promises
//!
//! * **Deterministic.** Same configuration, seed and inputs: same actions, byte for byte.
//! * **Nothing old touches anything new.** What lives with a connection is dropped with it; every
//!   I/O input carries a [`ConnectionId`], every join has a new join_ref.
//! * **Every accepted push has exactly one [`PushOutcome`]**, and nothing that may have been written
//!   is written again.
//! * **Every gap is visible**: [`Signal::Interrupted`], then [`Signal::Resumed`].
//! * **Bounded.** Queues, waits, evidence: each limit is stated at its setter in [`Config`].
//! * **Bad input is reported, not fatal**: [`Signal::ProtocolError`]. A panic is a bug of this crate.
//! * **Secrets stay out of logs**: [`Secret`](config::Secret), [`Uri`](config::Uri) and [`Payload`] do not print what they hold.
//!
//! The [`manual`] has pages about the loop, the policies, credentials, backpressure, presence,
//! testing, other runtimes, pages by question (how to wait for a backend, to shut down, …), and for those who
//! come from another client. Where a comment
//! names `wire/<something>`, it is the recording of a real Phoenix server that shows the fact; they
//! are in `tests/fixtures/wire` of the repository.
//!
//! # Features
//!
//! None is on by default; the core then needs serde, serde_json, thiserror, bytes, base64, httpdate, memchr
//! and slab.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `driver` | async handles and the future that drives them, over any runtime |
//! | `recording` | recordings of what a client receives and does, without secrets, which can be replayed |
//! | `upgrade` | the HTTP upgrade, and the tunnel through an HTTP or SOCKS5 proxy, as pure machines |
//! | `websocket` | WebSocket as a pure machine, from the upgrade to the closing handshake: bytes in, bytes out |
//! | `service` | documents of connections, the router to CloudEvents, restart decisions, metrics; with `driver`, the supervisor and the bus |
//! | `schema` | `Connections::json_schema`: the JSON Schema of a document of connections |
//! | `tls` | `Tls`: whom `wss://` trusts; `tls-native-roots` adds the roots of the system |
//! | `tracing` | what the driver sees, as events of the `tracing` crate |
//! | `testing` | for your tests too: a pure Phoenix-like server, simulated worlds, and with `driver` a scripted server for programs that use the handles |

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
#[cfg(feature = "service")]
pub mod service;
pub mod socket;
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
    //! What the adapters share. For the authors of adapters; not part of what the crates promise to
    //! keep stable.

    #[cfg(feature = "testing")]
    pub use crate::testing::listener::{Hub, Serve};
    pub use crate::transport::*;
}

/// The examples of the readme.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
