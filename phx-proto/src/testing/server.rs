//! The test server: connections, time and scripted events.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use super::channels::Effect;
use super::codec::{self, Payload};
use super::config::{ServerConfig, Version};
use super::handshake::{self, Accepted, HttpRefusal, HttpRequest};
use super::observer::{Observation, Observer};
use super::presence::Presence;
use super::ring::{self, Rings};
use super::socket::{End, Mail, Socket};
use crate::socket::rng::Rng;
use crate::time::Time;
use crate::wire::Frame;

/// The id of a connection; a server never reuses one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(u64);

/// An action of the server on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write this frame.
    Send {
        /// The connection.
        peer: PeerId,
        /// The frame. Phoenix writes every message as one unfragmented frame.
        frame: Frame,
    },
    /// Write a close frame with this code and no reason. A [`Drop`](Self::Drop) of the same
    /// connection follows at once: the server never waits for the client's close frame.
    Close {
        /// The connection.
        peer: PeerId,
        /// The close code.
        code: u16,
    },
    /// End the TCP stream. No output for this connection follows.
    Drop {
        /// The connection.
        peer: PeerId,
    },
}

/// A Phoenix server with the channels of [the module](super).
///
/// Pass in connections, frames and the clock, and carry out outputs from
/// [`poll_output`](Self::poll_output) until there are none. Inputs for an ended connection are
/// ignored. Every input first runs the timers that are due; only [`handle_bytes`](Self::handle_bytes)
/// restarts the idle timeout before that.
#[derive(Debug)]
pub struct Server {
    pub(super) config: ServerConfig,
    pub(super) sockets: BTreeMap<PeerId, Socket>,
    pub(super) outputs: VecDeque<Output>,
    pub(super) presence: Presence,
    pub(super) rings: Rings,
    /// Counts channel instances; their order is the order of subscriptions.
    pub(super) instances: u64,
    pub(super) held: Option<Vec<HeldReply>>,
    /// The GraphQL subscriptions: the id, the connection, and the instance of the control channel.
    pub(super) subscriptions: Vec<(String, PeerId, u64)>,
    /// Counts GraphQL subscriptions.
    pub(super) subscribed: u64,
    /// The last activity of each socket that is not asleep.
    awake: BTreeSet<(Time, PeerId)>,
    timers: BTreeMap<(Time, u64), Timer>,
    armed: u64,
    peers: u64,
    refusals: VecDeque<HttpRefusal>,
    /// The time of the latest input, or of the timer that is firing.
    now: Time,
    /// The source of random delays.
    rng: Rng,
    /// Presence diffs that are not broadcast yet, with their topics.
    diffs: VecDeque<(String, Value)>,
    /// The time at which the last of these diffs is broadcast.
    diffs_until: Time,
    pub(super) observer: Observer,
}

/// A reply that is held because of [`Server::hold_replies`].
#[derive(Debug)]
pub(super) struct HeldReply {
    pub(super) peer: PeerId,
    /// The channel whose end drops the reply; `None` for a reply that does not depend on a channel.
    pub(super) instance: Option<u64>,
    pub(super) frame: Frame,
}

/// A pending event of the server.
#[derive(Debug)]
pub(super) enum Timer {
    /// The sleep of a socket in a join (or a connect) ends.
    SocketWakes { peer: PeerId },
    /// A reply of `slow` is due.
    ReplyDue { peer: PeerId, topic: String, instance: u64, msg_ref: Value, response: Payload },
    /// A channel runs what it does after its join, and handles its messages.
    ChannelRuns { peer: PeerId, topic: String, instance: u64, after: Vec<Effect> },
    /// The oldest presence diff is broadcast.
    DiffDue,
    /// The sleep of a channel in a `block` ends.
    ChannelWakes { peer: PeerId, topic: String, instance: u64, msg_ref: Value, response: Payload },
}

impl Server {
    /// A server without connections.
    #[must_use]
    pub fn new(config: ServerConfig) -> Self {
        Self {
            presence: Presence::new(config.seed),
            rings: Rings::new(config.ring_size),
            now: Time::ZERO,
            rng: Rng::new(config.seed),
            diffs: VecDeque::new(),
            diffs_until: Time::ZERO,
            config,
            sockets: BTreeMap::new(),
            outputs: VecDeque::new(),
            instances: 0,
            held: None,
            subscriptions: Vec::new(),
            subscribed: 0,
            awake: BTreeSet::new(),
            timers: BTreeMap::new(),
            armed: 0,
            peers: 0,
            refusals: VecDeque::new(),
            observer: Observer::default(),
        }
    }

    /// Calls `observe` with every further event of the clients, for example for a log. The
    /// function of an earlier call is replaced. `observe` must not block, because the server waits
    /// for it.
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// use phx_proto::Time;
    /// use phx_proto::testing::{HttpRequest, Observation, Server, ServerConfig};
    ///
    /// let (events, seen) = mpsc::channel();
    /// let mut server = Server::new(ServerConfig::default());
    /// server.observe(move |observation| events.send(observation.clone()).unwrap());
    ///
    /// let request = HttpRequest { path: "/socket/websocket?vsn=2.0.0".into(), ..Default::default() };
    /// server.connect(Time::ZERO, &request).unwrap();
    /// assert!(matches!(seen.try_recv(), Ok(Observation::Connected { .. })));
    /// ```
    pub fn observe(&mut self, observe: impl FnMut(&Observation) + Send + 'static) {
        self.observer = Observer::new(observe);
    }

    /// Reports that a connection could not be accepted.
    #[cfg(feature = "adapter")]
    pub(crate) fn accept_failed(&mut self, error: &std::io::Error) {
        self.observer.observe(|| Observation::AcceptFailed { message: error.to_string() });
    }

    /// The idle timeout for clients.
    #[cfg(feature = "adapter")]
    pub(super) const fn idle_timeout(&self) -> Duration {
        self.config.idle_timeout
    }

    /// Answers an upgrade request.
    ///
    /// # Errors
    ///
    /// The HTTP response of a server that refuses, as recorded in `wire/handshake_rejected`,
    /// `wire/handshake_vsn`, `wire/handshake_wrong_path` and `wire/handshake_auth_token_variants`,
    /// or the one that [`refuse_next`](Self::refuse_next) scripted.
    pub fn connect(&mut self, now: Time, request: &HttpRequest) -> Result<Accepted, HttpRefusal> {
        self.advance(now);
        let admission = match self.refusals.pop_front() {
            Some(refusal) => Err(refusal),
            None => handshake::admit(&self.config, request),
        };
        let admission = match admission {
            Ok(admission) => admission,
            Err(refusal) => {
                self.observer.observe(|| Observation::Refused { status: refusal.status });
                return Err(refusal);
            }
        };
        self.peers += 1;
        let peer = PeerId(self.peers);
        let protocol = admission.protocol.clone();
        let sleep = Duration::from_millis(admission.slow_ms);
        self.sockets.insert(peer, Socket::new(admission, now));
        self.awake.insert((now, peer));
        self.observer.observe(|| Observation::Connected { peer });
        if !sleep.is_zero() {
            self.fall_asleep(peer);
            self.arm(now + sleep, Timer::SocketWakes { peer });
        }
        Ok(Accepted {
            peer,
            protocol,
            #[cfg(feature = "deflate")]
            extensions: handshake::extensions(&self.config, request),
        })
    }

    /// Handles a text or binary message.
    pub fn handle_frame(&mut self, now: Time, peer: PeerId, frame: &Frame) {
        let (Frame::Text(bytes) | Frame::Binary(bytes)) = frame;
        let mail = match self.config.max_frame_bytes {
            Some(most) if bytes.len() > most => Mail::Close(1009),
            _ => Mail::Frame(frame.clone()),
        };
        self.receive(now, peer, mail);
    }

    /// Handles a ping. The caller writes the pong; the ping keeps the socket from being closed as
    /// idle (`wire/idle_timeout_pings`).
    pub fn handle_ping(&mut self, now: Time, peer: PeerId) {
        self.advance(now);
        self.record_activity(now, peer);
    }

    /// Handles the arrival of a part of a message. It keeps the socket from being closed as idle,
    /// because servers count bytes, not messages.
    pub fn handle_bytes(&mut self, now: Time, peer: PeerId) {
        self.record_activity(now, peer);
        self.advance(now);
    }

    /// Handles a close frame. Whatever its code, the reply is 1000 (`wire/close_by_client`).
    pub fn handle_close(&mut self, now: Time, peer: PeerId, _code: Option<u16>) {
        self.receive(now, peer, Mail::Close(1000));
    }

    /// Handles the end of TCP without a close frame. No output for this connection follows.
    pub fn handle_eof(&mut self, now: Time, peer: PeerId) {
        if let Some(socket) = self.sockets.get_mut(&peer) {
            socket.is_cut_off = true;
        }
        self.receive(now, peer, Mail::Eof);
    }

    /// Handles a violation of the WebSocket protocol: an unmasked frame, a reserved opcode, a
    /// control frame over 125 bytes. The socket is closed with 1002
    /// (`wire/malformed_unmasked_frame`).
    pub fn handle_violation(&mut self, now: Time, peer: PeerId) {
        self.receive(now, peer, Mail::Close(1002));
    }

    /// Runs the timers that are due. Call it at [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance(now);
    }

    /// Returns the next output, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next, if at all.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let timer = self.timers.keys().next().map(|(due, _)| *due);
        timer.into_iter().chain(self.next_idle().map(|(due, _)| due)).min()
    }

    /// Answers the next connect with this response. Responses of several calls are queued.
    pub fn refuse_next(&mut self, refusal: HttpRefusal) {
        self.refusals.push_back(refusal);
    }

    /// Kills the process of one connection: TCP ends without a close frame
    /// (`wire/transport_killed`).
    pub fn kill(&mut self, peer: PeerId) {
        if self.sockets.contains_key(&peer) {
            self.emit(Output::Drop { peer });
            self.remove(peer);
        }
    }

    /// Kills the whole server process: every connection ends without a close frame or any
    /// notification, and new connections are accepted as after a restart.
    pub fn kill_all(&mut self) {
        self.end_all(|_| None);
    }

    /// Crashes every channel on a topic: the clients receive `phx_error`, as in `wire/channel_crash`.
    pub fn crash_channel(&mut self, now: Time, topic: &str) {
        self.end_on_topic(now, topic, End::Error);
    }

    /// Stops every channel on a topic: the clients receive `phx_close`, as in
    /// `wire/channel_stop_normal`.
    pub fn close_channel(&mut self, now: Time, topic: &str) {
        self.end_on_topic(now, topic, End::Close);
    }

    /// Broadcasts a message to every channel on a topic. Phoenix accepts only maps; this sends any
    /// JSON value.
    pub fn broadcast(&mut self, now: Time, topic: &str, event: &str, payload: Value) {
        self.advance(now);
        // Every serializer can encode JSON, so this does not fail.
        let _ = self.broadcast_from(topic, event, &Payload::Json(payload), None);
    }

    /// Adds a message to the ring of a topic `ring:*`, and broadcasts it as the event `entry`. The
    /// payload, a JSON object, gets the member `pos`, the message's position, which is returned.
    /// Positions count the messages of all rings, from 1.
    pub fn append(&mut self, now: Time, topic: &str, payload: Value) -> u64 {
        self.advance(now);
        let payload = self.rings.append(topic, payload);
        let position = payload["pos"].as_u64().unwrap_or_default();
        let _ = self.broadcast_from(topic, ring::ENTRY, &Payload::Json(payload), None);
        position
    }

    /// Forgets every message in the ring of a topic but the newest ones, as after a burst on a server
    /// with a small ring. A client that has not seen them cannot catch up.
    pub fn forget_all_but(&mut self, topic: &str, newest: usize) {
        self.rings.forget_all_but(topic, newest);
    }

    /// Broadcasts `disconnect` to the sockets with this id, such as `user:7`. They are closed with
    /// code 1001, or 1000 with version 1.7 (`wire/close_disconnect_by_id`).
    pub fn disconnect_id(&mut self, now: Time, id: &str) {
        self.advance(now);
        self.disconnect(id);
    }

    /// Shuts down gracefully. Sockets with a channel receive close code 1012, and sockets without one
    /// receive 1000 (`wire/close_graceful_shutdown`). Without a [`drainer`](ServerConfig::drainer),
    /// all sockets receive 1000. New connections are accepted as after a restart.
    pub fn shutdown(&mut self, now: Time) {
        self.advance(now);
        let drains = self.config.drainer;
        self.end_all(|socket| {
            Some(if drains && !socket.channels.is_empty() { 1012 } else { 1000 })
        });
    }

    /// With `true`, the server holds its replies to joins, pushes and leaves; it still answers
    /// heartbeats and sends pushes and broadcasts. With `false`, it sends the held replies in
    /// order. A held reply to a push is lost if its channel ends first.
    pub fn hold_replies(&mut self, hold: bool) {
        if hold {
            self.held.get_or_insert_default();
            return;
        }
        for reply in self.held.take().unwrap_or_default() {
            self.send(reply.peer, reply.frame);
        }
    }

    /// Sends a frame as it is, without validation.
    pub fn send_raw(&mut self, peer: PeerId, frame: Frame) {
        self.send(peer, frame);
    }

    /// The open connections, oldest first.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerId> {
        self.sockets.keys().copied().collect()
    }

    /// The number of sockets that have joined this topic.
    #[must_use]
    pub fn joined(&self, topic: &str) -> usize {
        self.sockets.values().filter(|socket| socket.channels.contains_key(topic)).count()
    }

    /// The presences on a topic, in the format of `presence_state`.
    #[must_use]
    pub fn presence(&self, topic: &str) -> Value {
        self.presence.state(topic)
    }

    /// The topics that a connection has joined, in order of topic.
    pub fn topics(&self, peer: PeerId) -> impl Iterator<Item = &str> {
        self.sockets.get(&peer).into_iter().flat_map(|s| s.channels.keys().map(String::as_str))
    }

    /// Adds an event to the mailbox of a socket, which handles it at once unless it sleeps.
    fn receive(&mut self, now: Time, peer: PeerId, mail: Mail) {
        self.advance(now);
        if let Some(socket) = self.sockets.get_mut(&peer) {
            socket.mailbox.push_back(mail);
            self.record_activity(now, peer);
            self.drain(now, peer);
        }
    }

    /// Runs all events that are due by `now`, each at its own time.
    fn advance(&mut self, now: Time) {
        loop {
            let timer = self.timers.keys().next().copied().filter(|(due, _)| *due <= now);
            let idle = self.next_idle().filter(|(due, _)| *due <= now);
            match (timer, idle) {
                (Some(key), idle) if idle.is_none_or(|(due, _)| key.0 <= due) => {
                    if let Some(timer) = self.timers.remove(&key) {
                        self.fire(key.0, timer);
                    }
                }
                (_, Some((due, peer))) => {
                    self.now = due;
                    self.close(peer, 1002);
                }
                (_, None) => break,
            }
        }
        self.now = now;
    }

    fn fire(&mut self, now: Time, timer: Timer) {
        self.now = now;
        match timer {
            Timer::SocketWakes { peer } => self.wake_socket(now, peer),
            Timer::ReplyDue { peer, topic, instance, msg_ref, response } => {
                self.reply_or_crash(peer, &topic, instance, &msg_ref, "ok", &response);
            }
            Timer::ChannelWakes { peer, topic, instance, msg_ref, response } => {
                self.wake_channel(now, peer, &topic, instance, &msg_ref, &response);
            }
            Timer::ChannelRuns { peer, topic, instance, after } => {
                self.run_channel(now, peer, &topic, instance, after);
            }
            Timer::DiffDue => self.broadcast_diff(),
        }
    }

    pub(super) fn arm(&mut self, due: Time, timer: Timer) {
        self.armed += 1;
        self.timers.insert((due, self.armed), timer);
    }

    /// A delay of at most `most`.
    fn draw_delay(&mut self, most: Duration) -> Duration {
        let Some(bound) = u64::try_from(most.as_nanos()).ok().filter(|nanos| *nanos > 0) else {
            return Duration::ZERO;
        };
        Duration::from_nanos(self.rng.next_u64() % bound.saturating_add(1))
    }

    /// The delay before a channel handles its next message.
    pub(super) fn draw_channel_delay(&mut self) -> Duration {
        self.draw_delay(self.config.channel_delay)
    }

    /// Broadcasts a presence diff, after earlier ones.
    pub(super) fn send_diff(&mut self, topic: &str, diff: Option<Value>) {
        let Some(diff) = diff else { return };
        self.diffs.push_back((topic.to_owned(), diff));
        let due = self.now + self.draw_delay(self.config.presence_delay);
        self.diffs_until = self.diffs_until.max(due);
        if self.diffs_until <= self.now {
            self.broadcast_diff();
        } else {
            self.arm(self.diffs_until, Timer::DiffDue);
        }
    }

    fn broadcast_diff(&mut self) {
        let Some((topic, diff)) = self.diffs.pop_front() else { return };
        // Every serializer can encode JSON, so this does not fail.
        let _ = self.broadcast_from(&topic, "presence_diff", &Payload::Json(diff), None);
    }

    /// The socket that reaches the idle timeout first. A sleeping socket has no idle timeout.
    fn next_idle(&self) -> Option<(Time, PeerId)> {
        self.awake.first().map(|(last, peer)| (*last + self.config.idle_timeout, *peer))
    }

    /// Records activity of a socket.
    fn record_activity(&mut self, now: Time, peer: PeerId) {
        let Some(socket) = self.sockets.get_mut(&peer) else { return };
        let before = core::mem::replace(&mut socket.last_activity, now);
        if self.awake.remove(&(before, peer)) {
            self.awake.insert((now, peer));
        }
    }

    /// Puts a socket to sleep: it handles nothing until it is woken.
    pub(super) fn fall_asleep(&mut self, peer: PeerId) {
        let Some(socket) = self.sockets.get_mut(&peer) else { return };
        socket.busy = true;
        self.awake.remove(&(socket.last_activity, peer));
    }

    /// Wakes a socket. Input that arrived during its sleep counts as activity at this moment.
    pub(super) fn wake_up(&mut self, now: Time, peer: PeerId) {
        let Some(socket) = self.sockets.get_mut(&peer) else { return };
        socket.busy = false;
        socket.last_activity = now;
        self.awake.insert((now, peer));
    }

    /// Ends a connection from the server's side.
    pub(super) fn close(&mut self, peer: PeerId, code: u16) {
        if self.sockets.contains_key(&peer) {
            self.emit(Output::Close { peer, code });
            self.emit(Output::Drop { peer });
            self.remove(peer);
        }
    }

    /// Removes a connection. Its channels end with it, and their presences leave.
    pub(super) fn remove(&mut self, peer: PeerId) {
        let Some(socket) = self.sockets.remove(&peer) else { return };
        self.awake.remove(&(socket.last_activity, peer));
        self.observer.observe(|| Observation::Disconnected { peer });
        if let Some(held) = &mut self.held {
            held.retain(|reply| reply.peer != peer);
        }
        self.subscriptions.retain(|(_, of, _)| *of != peer);
        for (topic, channel) in socket.channels {
            self.leave_presence(&topic, channel.instance);
        }
    }

    fn end_all(&mut self, code: impl Fn(&Socket) -> Option<u16>) {
        self.awake.clear();
        self.subscriptions.clear();
        // No client is left to receive the pending diffs.
        self.diffs.clear();
        self.timers.retain(|_, timer| !matches!(timer, Timer::DiffDue));
        for peer in self.peers() {
            let code = self.sockets.get(&peer).and_then(&code);
            code.into_iter().for_each(|code| self.emit(Output::Close { peer, code }));
            self.emit(Output::Drop { peer });
        }
        for (peer, socket) in core::mem::take(&mut self.sockets) {
            self.observer.observe(|| Observation::Disconnected { peer });
            for (topic, channel) in socket.channels {
                // No client is left to receive the diff.
                let _ = self.presence.untrack(&topic, channel.instance, None);
            }
        }
        if let Some(held) = &mut self.held {
            held.clear();
        }
    }

    fn end_on_topic(&mut self, now: Time, topic: &str, end: End) {
        self.advance(now);
        for peer in self.peers() {
            self.end_channel(peer, topic, end);
        }
    }

    pub(super) fn disconnect(&mut self, id: &str) {
        let code = if self.config.version == Version::V1_7_24 { 1000 } else { 1001 };
        for peer in self.peers() {
            let Some(socket) = self.sockets.get_mut(&peer) else { continue };
            if socket.admission.id.as_deref() != Some(id) {
                continue;
            }
            if socket.has_mail() {
                socket.mailbox.push_back(Mail::Close(code));
            } else {
                self.close(peer, code);
            }
        }
    }

    /// Sends a frame of another process, such as a channel. It waits in the mailbox of the socket,
    /// behind the events that already wait there.
    pub(super) fn send(&mut self, peer: PeerId, frame: Frame) {
        match self.sockets.get_mut(&peer) {
            Some(socket) if socket.has_mail() => socket.mailbox.push_back(Mail::Send(frame)),
            _ => self.send_own(peer, frame),
        }
    }

    /// Sends a frame of the socket's own process, which is handling an event. The frame does not wait
    /// behind other events.
    pub(super) fn send_own(&mut self, peer: PeerId, frame: Frame) {
        self.emit(Output::Send { peer, frame });
    }

    /// Adds an output, unless the stream of its connection has ended.
    fn emit(&mut self, output: Output) {
        let (Output::Send { peer, .. } | Output::Close { peer, .. } | Output::Drop { peer }) =
            &output;
        if self.sockets.get(peer).is_some_and(|socket| !socket.is_cut_off) {
            self.outputs.push_back(output);
        }
    }

    /// The frame that notifies a client of the end of its channel.
    pub(super) fn end_frame(
        &self,
        vsn: codec::Vsn,
        join_ref: &Value,
        topic: &str,
        end: End,
    ) -> Frame {
        match end {
            End::Close => codec::encode_end(vsn, join_ref, topic, "phx_close", &json!({})),
            End::Error => {
                let payload = match self.config.version {
                    Version::V1_8_12 => json!({ "reason": "channel_crash" }),
                    Version::V1_8_9 | Version::V1_7_24 => json!({}),
                };
                codec::encode_end(vsn, join_ref, topic, "phx_error", &payload)
            }
        }
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer#{}", self.0)
    }
}
