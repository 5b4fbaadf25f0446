//! Test servers that behave like Phoenix, on virtual time: no code in this module opens a socket,
//! reads a clock or sleeps.
//!
//! | to test | use | description |
//! | --- | --- | --- |
//! | a program that uses the async handles | `Script` (with feature `driver`) | the test plays the server: `accept_connect`, `assert_join`, `push`, `reply`, `disconnect` |
//! | clients and a server together | [`World`] | any number of cores, a [`Link`] for each, one server, one clock, one seed, one trace |
//! | any other client | [`Server`] | a Phoenix-like server, frames in and frames out |
//!
//! # Worlds
//!
//! A [`World`] is deterministic: its seed determines every latency and every client's jitter, and
//! with the same seed the same calls give the same [`trace`](World::trace), byte for byte. Virtual
//! time is fast: an outage of an hour is simulated in about a millisecond. Inject faults into a
//! [`Link`] (stall, half-open, cut after a number of frames, refused and dropped connects, HTTP
//! refusals) or into the server (kill, restart, shut down, crash a channel). Read the trace when a
//! test fails, and commit it as a golden file:
//!
//! ```text
//! t=50ms client#1 Interrupted room:lobby (transport lost)
//! t=50ms client#1 ReconnectAfter 328ms (attempt 1, transport lost)
//! t=378ms client#1 Connect (attempt 1)
//! ```
//!
//! To search for bugs, let [`World::draw`] choose what happens next, and check the invariants after
//! every [`World::step`]. Then stop the faults, and check that every client reaches the state that its
//! commands requested. The seed of a failure is enough to reproduce it.
//!
//! # Scripts
//!
//! A `Script` provides the network, the clock, the executor and the server of the program under
//! test. Each method first runs every task that can make progress. A method that expects something
//! lets virtual time pass until it arrives. If it does not arrive within the script's time limit, the
//! panic lists what did happen. An `assert_` method consumes what it found: the next call looks for
//! the next one. The script answers heartbeats.
//!
//! No executor is needed: `Script::spawn` runs futures, and the other methods poll them. In a test
//! with tokio or smol, where parts of the program run on that executor, await `Script::settled`
//! before a method, so that those parts run first.
//!
//! # The server
//!
//! [`Server`] is a pure state machine: HTTP upgrades, frames and clock readings go in, frames and
//! closes come out. It opens no socket, reads no clock and draws no entropy, so the same seed and
//! inputs always give the same outputs. It was written from recordings of real Phoenix servers
//! (1.7.24, 1.8.9 and 1.8.12, cited here as `wire/<name>`) and is checked against every WebSocket
//! recording. Its codec shares no code with the client's, so a mistake on one side is not hidden by
//! the same mistake on the other.
//!
//! ```text
//!  connect ────► handshake ──► Socket (one per peer) ──► Channel (one per joined topic)
//!  handle_frame ─► codec ────────┘   │ joins run here,       │ events become effects,
//!                                    │ so a slow one blocks  │ a blocked one keeps a mailbox
//!  poll_output ◄─ Send, Close, Drop ◄┴───────────────────────┴──► presence, broadcasts
//! ```
//!
//! The channels are those of the recorded server, and one more for GraphQL subscriptions, which
//! follows the source of Absinthe:
//!
//! | topic | behaviour |
//! | --- | --- |
//! | `room:*` | joins with `{"topic", "params"}`; has `echo`, `shout`, `shout_from`, `ack`, `nack`, `fail`, `odd_status`, `noreply`, `push_me`, `push_me_binary`, `slow`, `block`, `reply_twice`, `big`, `whoami`, `crash`, `stop`, `stop_shutdown`, `leave_me`, `stop_reply`, `stop_error`, `kill_me`, `kill_transport`, `kick`; any other event crashes it |
//! | `presence:*` | tracks the joiner under `key` with `meta`; has `update`, `untrack`, `track_extra`, `list`, `push_state`, `crash` |
//! | `slowjoin:*` | the join takes `ms`, and the whole socket waits for it; has `echo` |
//! | `__absinthe__:control` | the control channel of Absinthe: `doc` with a `query` that begins with `subscription` is answered with a `subscriptionId`, and [`Server::publish`] sends data to it; has `unsubscribe` |
//! | `ring:*` | numbers the messages that `append` adds (`pos`) and keeps the newest ones; a join with `since` is followed by a replay, in its response or, with `"replay": "events"`, in events `missed` and then `caught_up`; the form is that of [`Contract`](crate::catch_up::Contract) |
//! | `deny:*` | the join is refused with `{"reason":"unauthorized"}` |
//! | `boom:*` | the join raises |
//!
//! Query parameters of the connect: `reject=yes` (403), `reject=rate` (429 with `retry-after`),
//! `reject=raise` (500), `user_id=X` (the socket gets the id `user:X`), `slowconnect=MS`.
//!
//! Behaviour of a real server that depends on its configuration or on timing is a setting in
//! [`ServerConfig`]. The delays are drawn from its seed:
//!
//! | setting | effect |
//! | --- | --- |
//! | [`version`](ServerConfig::version) | the differences between 1.7.24, 1.8.9 and 1.8.12 |
//! | [`drainer`](ServerConfig::drainer) | without it, joined sockets receive close code 1000 on a shutdown instead of 1012 |
//! | [`channel_delay`](ServerConfig::channel_delay) | the reply to a heartbeat, or of another channel, overtakes the reply of a channel; messages arrive between a join's ok and the `presence_state` |
//! | [`ring_size`](ServerConfig::ring_size) | a topic `ring:*` has forgotten what a client missed |
//! | [`presence_delay`](ServerConfig::presence_delay) | simultaneous presence joins: a `presence_state` contains metas whose diffs arrive after it |
//!
//! Limitations: no long-poll; integers wider than 64 bits become doubles; a frame with JSON nested
//! deeper than 128 levels closes its socket as undecodable. Where the real server has races, this
//! one always takes the same outcome: a leave is finished before the next frame is handled. The
//! exception is a leave that waited behind a slow join and is followed by a rejoin of the topic:
//! the rejoin kills the channel before it can answer the leave (`wire/join_timeout_leave_rejoin`).
//! A connect with `slowconnect` is accepted at once, because [`Server::connect`] has to answer at
//! once. Its socket handles nothing until the time has passed.
//!
//! ```
//! use phx_proto::Time;
//! use phx_proto::testing::{HttpRequest, Output, Server, ServerConfig};
//! use phx_proto::Frame;
//!
//! let mut server = Server::new(ServerConfig::default());
//! let request = HttpRequest { path: "/socket/websocket?vsn=2.0.0".into(), ..Default::default() };
//! let peer = server.connect(Time::ZERO, &request).unwrap().peer;
//! let join = br#"["1","1","room:lobby","phx_join",{}]"#;
//! server.handle_frame(Time::ZERO, peer, &Frame::Text(join.as_slice().into()));
//! assert!(matches!(server.poll_output(), Some(Output::Send { .. })));
//! assert_eq!(server.joined("room:lobby"), 1);
//! ```

#[cfg(feature = "websocket")]
mod bytes;
mod channels;
mod codec;
#[cfg(all(feature = "adapter", feature = "deflate"))]
mod compressed;
mod config;
mod effects;
mod engine;
mod handshake;
#[cfg(feature = "adapter")]
mod http;
mod link;
#[cfg(feature = "adapter")]
pub(crate) mod listener;
mod observer;
mod presence;
mod ring;
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
pub use handshake::{Accepted, HttpRefusal, HttpRequest};
pub use link::{Cut, Delivery, Direction, Link, Parcel};
pub use observer::Observation;
#[cfg(feature = "driver")]
pub use script::{Running, Script, Sent};
pub use server::{Output, PeerId, Server};
#[cfg(feature = "driver")]
pub use stage::{ScriptDial, ScriptRuntime, ScriptTimer, ScriptTransport};
pub use trace::{ClientId, TraceEvent, What};
pub use world::World;
