//! A Phoenix server to test against, on virtual time.
//!
//! [`Server`] is a pure state machine: HTTP upgrades, frames and clock readings go in, frames
//! and closes come out. It opens no socket, reads no clock and draws no entropy, so one seed and
//! one list of inputs always give the same outputs. It was written from recordings of real
//! Phoenix servers (1.7.24, 1.8.9 and 1.8.12, cited here as `wire/<name>`) and is checked
//! against every WebSocket recording. Its codec shares no code with the client's, so a mistake
//! on one side does not cancel out on the other.
//!
//! ```text
//!  connect ────► handshake ──► Socket (one per peer) ──► Channel (one per joined topic)
//!  handle_frame ─► codec ────────┘   │ joins run here,       │ events become effects,
//!                                    │ so a slow one blocks  │ a blocked one keeps a mailbox
//!  poll_output ◄─ Send, Close, Drop ◄┴───────────────────────┴──► presence, broadcasts
//! ```
//!
//! The channels are those of the recorded server:
//!
//! | topic | behaviour |
//! | --- | --- |
//! | `room:*` | joins with `{"topic", "params"}`; has `echo`, `shout`, `shout_from`, `ack`, `nack`, `fail`, `odd_status`, `noreply`, `push_me`, `push_me_binary`, `slow`, `block`, `reply_twice`, `big`, `whoami`, `crash`, `stop`, `stop_shutdown`, `leave_me`, `stop_reply`, `stop_error`, `kill_me`, `kill_transport`, `kick`; any other event crashes it |
//! | `presence:*` | tracks the joiner under `key` with `meta`; has `update`, `untrack`, `track_extra`, `list`, `push_state`, `crash` |
//! | `slowjoin:*` | the join takes `ms`, and the whole socket waits for it; has `echo` |
//! | `deny:*` | the join is refused with `{"reason":"unauthorized"}` |
//! | `boom:*` | the join raises |
//!
//! Query parameters of the connect: `reject=yes` (403), `reject=rate` (429 with `retry-after`),
//! `reject=raise` (500), `user_id=X` (the socket gets the id `user:X`), `slowconnect=MS`.
//!
//! What it does not imitate: long-poll; integers wider than 64 bits (they become doubles);
//! JSON nested deeper than 128 levels (closed as undecodable). Where the real server has races
//! it always takes one outcome: a leave is finished before the next frame is looked at, unless
//! both waited behind a slow join and the next one is a rejoin of the topic: then the rejoin
//! kills the channel before it can answer the leave (`wire/join_timeout_leave_rejoin`). A
//! `slowconnect` is accepted at once and then handles nothing until the time is over, because
//! [`Server::connect`] has to answer at once.
//!
//! ```
//! use phx_proto::Time;
//! use phx_proto::testing::{ConnectRequest, Output, Server, ServerConfig};
//! use phx_proto::wire::Frame;
//!
//! let mut server = Server::new(ServerConfig::default());
//! let request = ConnectRequest { path: "/socket/websocket?vsn=2.0.0".into(), headers: vec![] };
//! let peer = server.connect(Time::ZERO, &request).unwrap().peer;
//! let join = br#"["1","1","room:lobby","phx_join",{}]"#;
//! server.handle_frame(Time::ZERO, peer, &Frame::Text(join.as_slice().into()));
//! assert!(matches!(server.poll_output(), Some(Output::Send { .. })));
//! assert_eq!(server.joined("room:lobby"), 1);
//! ```

mod channels;
mod codec;
mod config;
mod effects;
mod engine;
mod handshake;
mod link;
mod presence;
#[cfg(feature = "driver")]
mod script;
mod server;
mod socket;
#[cfg(feature = "driver")]
mod stage;
#[cfg(test)]
mod tests;
mod trace;
mod world;

pub use config::{ServerConfig, Version};
pub use handshake::{Accepted, ConnectRequest, HttpRefusal};
pub use link::{Cut, Delivery, Direction, Link, Parcel};
#[cfg(feature = "driver")]
pub use script::{Running, Script, Sent};
pub use server::{Output, PeerId, Server};
#[cfg(feature = "driver")]
pub use stage::{ScriptRuntime, ScriptTimer, ScriptTransport};
pub use trace::{ClientId, Event, What};
pub use world::World;
