//! A simulated world: clients, links and a server on virtual time.
//!
//! ```text
//!   test ─commands─▶ Socket ─▶ Link ─▶ ┐
//!        ─faults──▶  Socket ─▶ Link ─▶ ├▶ Server      one clock, one seed, one trace
//!                    Socket ─▶ Link ─▶ ┘
//! ```
//!
//! A [`World`] keeps an agenda: the next time at which each client has a deadline or an arrival on
//! its link, and the next deadline of the server. [`step`](World::step) moves the clock to the
//! earliest of these times and runs that one event; consequences at the same instant are further
//! steps. So a test can check every intermediate state, and time without events is skipped. At one
//! instant the order is: a restart of the server, the server, the clients by number. A client reads
//! what has arrived before it checks its deadlines, as the drivers do.
//!
//! All randomness (latencies, the clients' jitter, [`World::draw`]) comes from one seed. So the
//! seed and the calls of the test determine the run, and the [`trace`](World::trace) is the same,
//! byte for byte.
//!
//! Calls of the test happen at [`World::now`]. The world carries out the resulting actions at once.
//! The following steps deliver the frames that these actions put on the links.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::config::ServerConfig;
use super::engine::Next;
use super::link::Link;
use super::server::{PeerId, Server};
use super::trace::{ClientId, TraceEvent, What};
use crate::config::Config;
use crate::config::join_params::JoinParams;
use crate::event::input::PushOptions;
use crate::event::signal::Signal;
use crate::id::{ConnectionId, InterestId, PushId};
use crate::socket::Socket;
use crate::socket::channel::ChannelStatus;
use crate::socket::rng::Rng;
use crate::time::Time;
use crate::topic::Topic;
#[cfg(feature = "websocket")]
use crate::websocket::Limits;
use crate::wire::payload::Payload;

/// The maximum number of steps at one instant. More of them mean an endless loop.
const STEPS_AT_ONCE: u32 = 10_000_000;

/// A simulated world of clients, links and a server; see [worlds](super#worlds).
///
/// ```
/// use core::time::Duration;
/// use phx_proto::testing::World;
/// use phx_proto::{ChannelStatus, Config};
/// use serde_json::json;
///
/// let mut world = World::new(7);
/// let client = world.client(Config::new("ws://localhost:4000/socket/websocket")?);
/// world.link(client).latency(Duration::from_millis(5)..=Duration::from_millis(20));
/// world.join(client, "room:lobby", json!({}));
/// world.run_until(|world| world.is_joined(client, "room:lobby"));
///
/// world.kill_server();
/// world.restart_server_after(Duration::from_secs(30));
/// world.run_for(Duration::from_secs(20));
/// assert!(!world.is_joined(client, "room:lobby"));
/// world.run_for(Duration::from_secs(20));
/// assert!(world.is_joined(client, "room:lobby"));
/// assert!(world.trace().contains("client#1 Resumed room:lobby"));
/// # Ok::<(), phx_proto::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct World {
    pub(super) now: Time,
    rng: Rng,
    time_limit: Duration,
    pub(super) server: Server,
    pub(super) listening: bool,
    pub(super) restart_at: Option<Time>,
    pub(super) clients: Vec<Client>,
    latency: RangeInclusive<Duration>,
    #[cfg(feature = "websocket")]
    machines: Option<Limits>,
    pub(super) peers: BTreeMap<PeerId, (usize, ConnectionId)>,
    pub(super) agenda: BTreeSet<(Time, usize)>,
    /// Clients that the test may have changed since the last step.
    pub(super) touched: BTreeSet<usize>,
    pub(super) events: Vec<TraceEvent>,
    pub(super) keeps: fn(&TraceEvent) -> bool,
    steps_at_once: u32,
    steps: u64,
}

/// A client with its link.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: Socket,
    pub(super) link: Link,
    /// The client's entry in the agenda.
    pub(super) due: Option<Time>,
    /// The connection that the client's transport holds open.
    pub(super) open: Option<ConnectionId>,
    /// Whether the transport refused a frame and has not become writable since.
    pub(super) blocked: bool,
    pub(super) peers: BTreeMap<ConnectionId, PeerId>,
}

/// # Setup
impl World {
    /// A world with a server and no clients, at time zero.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_server(seed, ServerConfig::default())
    }

    /// A world with a custom server, at time zero.
    #[must_use]
    pub fn with_server(seed: u64, config: ServerConfig) -> Self {
        Self {
            now: Time::ZERO,
            rng: Rng::new(seed),
            time_limit: Duration::from_secs(3_600),
            server: Server::new(config),
            listening: true,
            restart_at: None,
            clients: Vec::new(),
            latency: Duration::ZERO..=Duration::ZERO,
            #[cfg(feature = "websocket")]
            machines: None,
            peers: BTreeMap::new(),
            agenda: BTreeSet::new(),
            touched: BTreeSet::new(),
            events: Vec::new(),
            keeps: |_| true,
            steps_at_once: 0,
            steps: 0,
        }
    }

    /// Sets the latency of the links of clients that are added later. By default there is none.
    pub fn latency(&mut self, range: RangeInclusive<Duration>) -> &mut Self {
        self.latency = range;
        self
    }

    /// Lets the links of clients that are added later carry the bytes of WebSocket frames; see
    /// [`Link::carry_bytes`].
    ///
    /// ```
    /// use phx_proto::Config;
    /// use phx_proto::testing::World;
    /// use phx_proto::websocket::Limits;
    /// use serde_json::json;
    ///
    /// let mut world = World::new(7);
    /// world.carry_bytes(&Limits::default());
    /// let client = world.client(Config::new("ws://localhost:4000/socket/websocket")?);
    /// world.join(client, "room:lobby", json!({}));
    /// world.run_until(|world| world.is_joined(client, "room:lobby"));
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    #[cfg(feature = "websocket")]
    pub fn carry_bytes(&mut self, limits: &Limits) -> &mut Self {
        self.machines = Some(*limits);
        self
    }

    /// Sets the limit of virtual time for [`run_until`](Self::run_until). The default is one hour.
    pub fn time_limit(&mut self, limit: Duration) -> &mut Self {
        self.time_limit = limit;
        self
    }

    /// From now on, the world keeps only the events for which `keeps` returns true. Use it for
    /// worlds with too many events to keep all of them.
    ///
    /// ```
    /// use phx_proto::Config;
    /// use phx_proto::testing::World;
    ///
    /// let mut world = World::new(7);
    /// world.keep_only(|event| event.signal().is_some());
    /// let client = world.client(Config::new("ws://localhost:4000/socket/websocket")?);
    /// world.run_until(|world| world.signals(client).next().is_some());
    /// assert!(world.events().iter().all(|event| event.signal().is_some()));
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    pub fn keep_only(&mut self, keeps: fn(&TraceEvent) -> bool) -> &mut Self {
        self.keeps = keeps;
        self
    }

    /// Adds a client that connects at once.
    pub fn client(&mut self, config: Config) -> ClientId {
        let id = self.idle_client(config);
        self.connect(id);
        id
    }

    /// Adds a client that does not connect before [`connect`](Self::connect) is called.
    pub fn idle_client(&mut self, config: Config) -> ClientId {
        let id = ClientId(self.clients.len());
        let socket = Socket::new(config, self.rng.next_u64(), self.now);
        let mut link = Link::new(self.rng.next_u64());
        link.set_now(self.now).latency(self.latency.clone());
        #[cfg(feature = "websocket")]
        if let Some(limits) = &self.machines {
            link.carry_bytes(limits);
        }
        link.take_notes();
        let (peers, due) = (BTreeMap::new(), None);
        self.clients.push(Client { socket, link, due, open: None, blocked: false, peers });
        self.drain(id.0);
        id
    }
}

/// # Commands of clients
impl World {
    /// Calls a method of a client's socket and carries out the resulting actions.
    ///
    /// ```
    /// use phx_proto::Config;
    /// use phx_proto::testing::World;
    ///
    /// let mut world = World::new(7);
    /// let client = world.client(Config::new("ws://localhost:4000/socket/websocket")?);
    /// let left = world.command(client, |socket, now| socket.leave(now, "room:lobby"));
    /// assert!(left.is_err(), "the topic was never joined");
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    pub fn command<R>(&mut self, client: ClientId, call: impl FnOnce(&mut Socket, Time) -> R) -> R {
        self.settle();
        let result = call(&mut self.clients[client.0].socket, self.now);
        self.drain(client.0);
        result
    }

    /// Starts connecting.
    pub fn connect(&mut self, client: ClientId) {
        self.command(client, Socket::connect);
    }

    /// Closes the client's connection for good.
    pub fn disconnect(&mut self, client: ClientId) {
        self.command(client, Socket::disconnect);
    }

    /// Joins a topic.
    ///
    /// # Panics
    ///
    /// If the core does not accept the join; use [`command`](Self::command) to get the error.
    #[track_caller]
    pub fn join(
        &mut self,
        client: ClientId,
        topic: impl Into<Topic>,
        params: impl Into<JoinParams>,
    ) -> InterestId {
        match self.command(client, |socket, now| socket.join(now, topic, params)) {
            Ok(interest) => interest,
            Err(error) => panic!("{client} cannot join: {error}"),
        }
    }

    /// Leaves a topic.
    ///
    /// # Panics
    ///
    /// If the topic is not joined by the client.
    #[track_caller]
    pub fn leave(&mut self, client: ClientId, topic: &str) {
        if let Err(error) = self.command(client, |socket, now| socket.leave(now, topic)) {
            panic!("{client} cannot leave: {error}");
        }
    }

    /// Pushes an event and expects a reply.
    ///
    /// # Panics
    ///
    /// If the core does not accept the push; use [`command`](Self::command) to get the error.
    #[track_caller]
    pub fn push(
        &mut self,
        client: ClientId,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
    ) -> PushId {
        let options = PushOptions::call();
        match self.command(client, |s, now| s.push(now, topic, event, payload, options)) {
            Ok(id) => id,
            Err(error) => panic!("{client} cannot push: {error}"),
        }
    }
}

/// # Faults and the server
impl World {
    /// The link of a client, for injecting faults.
    pub fn link(&mut self, client: ClientId) -> &mut Link {
        self.touched.insert(client.0);
        self.clients[client.0].link.set_now(self.now)
    }

    /// The server. The next step carries out its outputs.
    pub const fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Kills the server: every connection ends without a close frame, and connects are refused.
    pub fn kill_server(&mut self) {
        self.note("the server is killed");
        self.server.kill_all();
        self.listening = false;
        self.flush_server();
    }

    /// Shuts the server down as a deploy does, with close frames; after that, connects are refused.
    pub fn shut_server_down(&mut self) {
        self.note("the server shuts down");
        self.server.shutdown(self.now);
        self.listening = false;
        self.flush_server();
    }

    /// Starts the server again.
    pub fn restart_server(&mut self) {
        self.note("the server is back");
        self.listening = true;
        self.restart_at = None;
    }

    /// Starts the server again after this time.
    pub fn restart_server_after(&mut self, delay: Duration) {
        self.restart_at = Some(self.now + delay);
    }

    /// Crashes every channel on a topic.
    pub fn crash_channel(&mut self, topic: &str) {
        self.note(&format!("{topic} crashes"));
        self.server.crash_channel(self.now, topic);
        self.flush_server();
    }

    /// Ends every channel on a topic.
    pub fn close_channel(&mut self, topic: &str) {
        self.note(&format!("{topic} is closed"));
        self.server.close_channel(self.now, topic);
        self.flush_server();
    }

    /// Broadcasts a message to every client on a topic.
    pub fn broadcast(&mut self, topic: &str, event: &str, payload: Value) {
        self.server.broadcast(self.now, topic, event, payload);
        self.flush_server();
    }

    /// Adds a message to the ring of a topic `ring:*`; see [`Server::append`].
    pub fn append(&mut self, topic: &str, payload: Value) -> u64 {
        let position = self.server.append(self.now, topic, payload);
        self.flush_server();
        position
    }

    /// A number below `bound` from the world's seed, for tests that choose at random.
    pub fn draw(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.rng.next_u64() % bound }
    }

    /// Writes a line into the trace.
    pub fn note(&mut self, note: &str) {
        self.record(None, What::Note(note.to_owned()));
    }
}

/// # Time
impl World {
    /// Runs the next event if it is due by `limit`; returns false if there is none.
    ///
    /// # Panics
    ///
    /// If the time has not advanced for ten million steps.
    pub fn step(&mut self, limit: Time) -> bool {
        self.settle();
        let restart = self.restart_at.map(|at| (at, Next::Restart));
        let server = self.server.poll_timeout().map(|at| (at, Next::Server));
        let client = self.agenda.first().map(|(at, client)| (*at, Next::Client(*client)));
        let Some((at, next)) = [restart, server, client].into_iter().flatten().min() else {
            return false;
        };
        if at > limit {
            return false;
        }
        self.steps_at_once = if at > self.now { 0 } else { self.steps_at_once + 1 };
        assert!(self.steps_at_once < STEPS_AT_ONCE, "time stands still:\n{}", self.trace_tail());
        self.steps += 1;
        self.now = self.now.max(at);
        match next {
            Next::Restart => self.restart_server(),
            Next::Server => {
                self.report_partial_frames();
                self.server.handle_timeout(self.now);
                self.flush_server();
            }
            Next::Client(client) => self.step_client(client),
        }
        true
    }

    /// Lets this much time pass.
    pub fn run_for(&mut self, length: Duration) {
        let end = self.now + length;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `is_true` returns true.
    ///
    /// # Panics
    ///
    /// If the world's [`time_limit`](Self::time_limit) passes first. The message ends with the last
    /// events.
    ///
    /// ```
    /// use phx_proto::Config;
    /// use phx_proto::testing::World;
    ///
    /// let mut world = World::new(7);
    /// let client = world.client(Config::new("ws://localhost:4000/socket/websocket")?);
    /// world.run_until(|world| world.is_writable(client));
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    #[track_caller]
    pub fn run_until(&mut self, is_true: impl FnMut(&Self) -> bool) {
        let limit = self.time_limit;
        if !self.runs_into(limit, is_true) {
            panic!("not true within {}s:\n{}", limit.as_secs_f64(), self.trace_tail());
        }
    }

    /// Runs until `is_true` returns true, for at most `most`. Returns false if the time passed
    /// first.
    ///
    /// ```
    /// use core::time::Duration;
    ///
    /// use phx_proto::Config;
    /// use phx_proto::testing::World;
    ///
    /// let mut world = World::new(7);
    /// let client = world.client(Config::new("ws://localhost:4000/socket/websocket")?);
    /// world.kill_server();
    /// let connected = |world: &World| world.is_writable(client);
    /// assert!(!world.runs_into(Duration::from_secs(5), connected));
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    pub fn runs_into(&mut self, most: Duration, mut is_true: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + most;
        loop {
            self.settle();
            if is_true(self) {
                return true;
            }
            if !self.step(end) {
                self.now = end;
                return is_true(self);
            }
        }
    }
}

/// # Observation
impl World {
    /// The current virtual time.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// The number of steps so far.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// All clients, in the order they were added.
    pub fn clients(&self) -> impl Iterator<Item = ClientId> + use<> {
        (0..self.clients.len()).map(ClientId)
    }

    /// The core of a client.
    #[must_use]
    pub fn socket(&self, client: ClientId) -> &Socket {
        &self.clients[client.0].socket
    }

    /// Whether a client is connected and its transport accepts frames. A full
    /// [`buffer`](Link::buffer) accepts none.
    #[must_use]
    pub fn is_writable(&self, client: ClientId) -> bool {
        let client = &self.clients[client.0];
        client.open.is_some_and(|_| !client.blocked)
    }

    /// Whether both the client and the server regard a topic as joined.
    #[must_use]
    pub fn is_joined(&self, client: ClientId, topic: &str) -> bool {
        let status = self.socket(client).channel_status(topic);
        status == ChannelStatus::Joined && self.server_topics(client).any(|joined| joined == topic)
    }

    /// The topics that are joined on the client's current connection, according to the server.
    pub fn server_topics(&self, client: ClientId) -> impl Iterator<Item = &str> {
        let client = &self.clients[client.0];
        let peer = client.open.and_then(|id| client.peers.get(&id));
        peer.into_iter().flat_map(|peer| self.server.topics(*peer))
    }

    /// The presences on a topic, according to the server.
    #[must_use]
    pub fn server_presence(&self, topic: &str) -> Value {
        self.server.presence(topic)
    }

    /// All events, in order.
    #[must_use]
    pub fn events(&self) -> &[TraceEvent] {
        &self.events
    }

    /// Takes the events since the last call, so that a long run need not keep them all.
    pub fn take_events(&mut self) -> Vec<TraceEvent> {
        core::mem::take(&mut self.events)
    }

    /// The signals of a client, and when they were emitted.
    pub fn signals(&self, client: ClientId) -> impl Iterator<Item = (Time, &Signal)> {
        let events = self.events.iter().filter(move |event| event.client == Some(client));
        events.filter_map(|event| Some((event.at, event.signal()?)))
    }

    /// All events as text, one line for each.
    #[must_use]
    pub fn trace(&self) -> String {
        lines(&self.events)
    }

    /// The end of the trace, for the message of a failing test.
    #[must_use]
    pub fn trace_tail(&self) -> String {
        lines(&self.events[self.events.len().saturating_sub(60)..])
    }
}

fn lines(events: &[TraceEvent]) -> String {
    let shown = events.iter().filter(|event| event.is_shown());
    shown.map(|event| format!("{event}\n")).collect()
}
