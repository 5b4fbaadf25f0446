//! Phoenix to test against, on virtual time: nothing here opens a socket, reads a clock or sleeps.
//!
//! | to test | use | what it is |
//! | --- | --- | --- |
//! | a program that uses the async handles | `Script` (with feature `driver`) | the test plays the server: `accept_connect`, `assert_join`, `push`, `reply`, `disconnect` |
//! | how clients and a server fare together | [`World`] | any number of cores, a [`Link`] for each, one server, one clock, one seed, one trace |
//! | a client of any make | [`Server`] | a Phoenix-like server, frames in and frames out |
//!
//! # Worlds
//!
//! A [`World`] is deterministic: its seed decides every latency and every client's jitter, and the
//! same calls give the same [`trace`](World::trace), byte for byte. Time is free, so an hour of
//! outage is simulated in about a millisecond. Faults are injected into a [`Link`] (stall, half-open, cut
//! after so many frames, refused and dropped connects, HTTP refusals) or into the server (kill,
//! restart, shut down, crash a channel). The trace is what to read when a test fails, and what to
//! commit as a golden file:
//!
//! ```text
//! t=50ms client#1 Interrupted room:lobby (transport lost)
//! t=50ms client#1 ReconnectAfter 328ms (attempt 1, transport lost)
//! t=378ms client#1 Connect (attempt 1)
//! ```
//!
//! To find bugs rather than to show that there are none, let [`World::draw`] choose what happens
//! next, and check after every [`World::step`] what must always hold; then stop hurting it, and
//! check that what is wanted comes about. A failing seed is the whole bug report.
//!
//! # Scripts
//!
//! A `Script` is the network, the clock, the executor and the server of the program under test.
//! Its verbs let everything go on that can before they look. Those that expect something let
//! virtual time pass until it is there; if it never comes, the panic shows what did happen. What
//! an `assert_` verb found is taken: the next one looks for the next. Heartbeats are answered by
//! the script.
//!
//! No executor is needed: `Script::spawn` runs futures, and the verbs poll them. In a test of
//! tokio or smol, where parts of the program run on that executor, await `Script::settled` before
//! a verb, so that they have their turn.
//!
//! # The server
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
//! What of a real server depends on its configuration or on time is a choice in [`ServerConfig`]. The
//! delays are drawn from its seed:
//!
//! | choice | what it brings about |
//! | --- | --- |
//! | [`version`](ServerConfig::version) | what differs between 1.7.24, 1.8.9 and 1.8.12 |
//! | [`drainer`](ServerConfig::drainer) | without it, joined sockets see close 1000 on a shutdown, and not 1012 |
//! | [`channel_delay`](ServerConfig::channel_delay) | the reply to a heartbeat, or of another channel, overtakes that of a channel; messages come between a join's ok and the `presence_state` |
//! | [`presence_delay`](ServerConfig::presence_delay) | presence joins side by side: a `presence_state` holds metas whose diffs come after it |
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

mod channels;
mod codec;
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
