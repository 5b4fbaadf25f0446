//! [`Socket`]: one Phoenix connection and its channels, as a value.
//!
//! The machines live in files of their own; here is what holds them together.
//!
//! | file | what it decides |
//! | --- | --- |
//! | `connection` | when to dial, close and give up (`retry`: after which delay) |
//! | `channel/` | what happens to a topic: its states and its transitions |
//! | `push/` | which outcome a push has: its states and its transitions |
//! | `heartbeat` | whether the peer still answers |
//! | `join_clock` | whose join the server is working on |
//! | `join_pace` | how fast joins are written to a server that closes for them |
//! | `progress` | how much time the bytes that were moved buy |
//! | `receive` | what an incoming frame is about |
//! | `send` | which frame is next |
//! | `ticket` | whether join parameters that a function made are still wanted |
//! | `apply` | which method an input stands for |
//! | `expire` | which deadline has passed, and what a clock jump means |
//!
//! Everything that belongs to one open connection sits in `Live`, which is dropped whole when
//! the connection is lost: nothing old can touch anything new.

pub(crate) mod apply;
pub(crate) mod channel;
mod connection;
mod expire;
mod heartbeat;
mod join_clock;
mod join_pace;
mod progress;
pub(crate) mod push;
mod receive;
mod retry;
pub(crate) mod rng;
mod send;
mod ticket;
pub(crate) mod timer;

use std::collections::{BTreeSet, VecDeque};

pub use channel::{ChannelStatus, PendingReason};
use connection::Phase;
pub use connection::{Lifecycle, Status};
pub use ticket::Step;
pub use timer::{Timeout, TimerKind};

use crate::collections::ordered::Ordered;
use crate::collections::table::Table;
use crate::config::join_params::JoinParams;
use crate::config::{Config, Credentials, Uri};
use crate::event::action::Action;
use crate::event::signal::{Signal, Warning};
use crate::event::sizes::Sizes;
use crate::event::stats::Stats;
use crate::id::{ConnectionId, InterestId, Ref};
use crate::socket::channel::{Channel, State, Want};
use crate::socket::heartbeat::Heartbeat;
use crate::socket::join_clock::JoinClock;
use crate::socket::join_pace::JoinPace;
use crate::socket::progress::Ledger;
use crate::socket::push::abandoned::Abandoned;
use crate::socket::push::held::Held;
use crate::socket::push::slab::{Group, Place, Pushes};
use crate::socket::retry::Retry;
use crate::socket::rng::Rng;
use crate::socket::timer::Timers;
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// One Phoenix connection and its channels.
///
/// # The four families of methods
///
/// * **Inspect** (`&self`): [`status`](Self::status), [`channel_status`](Self::channel_status),
///   [`channels`](Self::channels), [`stats`](Self::stats), … They never change anything.
/// * **Commands**: what the application wants: [`connect`](Self::connect),
///   [`disconnect`](Self::disconnect), [`join`](Self::join), [`leave`](Self::leave),
///   [`push`](Self::push), … They answer at once; what comes of them is a [`Signal`].
/// * **Inputs** (`handle_*`): what the world did. Those about I/O carry the [`ConnectionId`] they
///   are about; one of an earlier connection is counted and ignored.
///   [`apply`](Self::apply) takes either as data, an [`Input`](crate::Input).
/// * **Outputs**: [`poll_action`](Self::poll_action), what to do next, and
///   [`poll_timeout`](Self::poll_timeout), when to call [`handle_timeout`](Self::handle_timeout).
///
/// # The loop
///
/// 1. Call a command or an input.
/// 2. Call `poll_action` until it answers `None`, carrying out each action.
/// 3. Sleep until `poll_timeout().at`, or until the next command or input.
/// 4. If the deadline has passed, call `handle_timeout`. Go to 2.
///
/// An undrained queue is late, never wrong: actions are facts already decided, and frames are
/// built only when pulled.
///
/// # Time
///
/// `now` must not go backwards; if it does, the latest time seen counts. Only `handle_timeout`
/// expires anything.
///
/// ```
/// use phx_proto::{Action, Config, Frame, Opened, Socket, Time};
/// use serde_json::json;
///
/// let now = Time::ZERO;
/// let config = Config::new("ws://localhost:4000/socket/websocket")?;
/// let mut socket = Socket::new(config, 1, now);
/// socket.join(now, "room:lobby", json!({"user": 7}))?;
/// socket.connect(now);
///
/// let id = loop {
///     match socket.poll_action(now).expect("the dial") {
///         Action::Connect { id, .. } => break id, // dial socket.connect_request() here
///         _ => continue,                          // signals
///     }
/// };
/// socket.handle_opened(now, id, Opened::default());
/// let join = loop {
///     let action = socket.poll_action(now).expect("the join");
///     if let Some(frame) = action.into_frame() {
///         break frame;
///     }
/// };
/// assert_eq!(join, Frame::from(r#"["1","1","room:lobby","phx_join",{"user":7}]"#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Socket {
    config: Config,
    credentials: Credentials,
    rng: Rng,
    now: Time,
    phase: Phase,
    retry: Retry,
    /// The address of the last connection that was open.
    opened_at: Option<Box<Uri>>,
    pace: JoinPace,
    live: Option<Live>,
    /// Boxed, as the table has room for more than there are.
    channels: Table<Box<Channel>>,
    interests: Ordered<InterestId, Topic>,
    pushes: Pushes,
    timers: Timers,
    actions: VecDeque<Action>,
    stats: Stats,
    /// When a wake-up last had an effect, or will have.
    last_wake: Option<Time>,
    /// A wake-up came during the attempt: should it fail, the wait after it is skipped.
    woken: bool,
    next_connection: u64,
    next_ref: u64,
    next_interest: u64,
    /// Pushes, leaves and joins share one sequence: the order in which they were accepted.
    next_order: u64,
}

/// Everything that lives and dies with one open connection.
#[derive(Clone, Debug)]
struct Live {
    id: ConnectionId,
    opened_at: Time,
    writable: bool,
    /// Since when the transport takes no frame, and how many bytes were written then. With
    /// heartbeats off, this has a deadline.
    stalled: Option<(Time, u64)>,
    ledger: Ledger,
    heartbeat: Heartbeat,
    joins: JoinClock,
    /// Topics whose join can be written, in the order they were asked for.
    due_joins: BTreeSet<(u64, Topic)>,
    /// Pushes that the server may still answer though they have their outcome.
    abandoned: Abandoned,
    /// Frames of channels that can be written, in the order they were accepted.
    lane: Ordered<u64, LaneItem>,
    /// Pushes that wait until fewer calls are in flight, or behind one that does.
    held: Held,
}

impl Live {
    /// A join is not due any more: it was written, or its topic is not wanted now.
    fn join_settled(&mut self, order: u64, topic: &Topic) {
        self.due_joins.remove(&(order, topic.clone()));
        if self.due_joins.is_empty() {
            // A search tree keeps its last node, and most connections never join again.
            self.due_joins = BTreeSet::new();
        }
    }
}

/// A frame that could be written now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LaneItem {
    Push(Place),
    /// Of the instance with this join_ref, even if nobody waits for its outcome any more.
    Leave(Topic, Ref),
}

impl Socket {
    /// A socket that is idle: [`connect`](Self::connect) starts it.
    ///
    /// `seed` decides all jitter. It is required, because a default would synchronise every
    /// client in the world; with the same seed, configuration and inputs, two sockets produce
    /// the same bytes. `now` is the caller's clock.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Time) -> Self {
        let mut socket = Self {
            credentials: config.credentials.clone(),
            rng: Rng::new(seed),
            now,
            phase: Phase::Idle,
            retry: Retry::default(),
            opened_at: None,
            pace: JoinPace::default(),
            live: None,
            channels: Table::seeded(seed),
            interests: Ordered::new(),
            pushes: Pushes::default(),
            timers: Timers::default(),
            actions: VecDeque::new(),
            stats: Stats::default(),
            last_wake: None,
            woken: false,
            next_connection: 1,
            next_ref: 1,
            next_interest: 1,
            next_order: 1,
            config,
        };
        // Phoenix closes what it has not heard from for 60 s (`wire/idle_timeout_close`).
        if socket.config.heartbeat_interval.as_secs() >= 60 {
            socket.signal(Signal::Warning(Warning::HeartbeatIntervalTooLong));
        }
        socket.add_auto_joins();
        socket
    }

    /// The configuration it was made with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The connection that is open or being made, if any.
    #[must_use]
    pub const fn connection_id(&self) -> Option<ConnectionId> {
        self.phase.id()
    }

    /// The state of the connection.
    #[must_use]
    pub fn status(&self) -> Status {
        self.phase.status()
    }

    /// The state of a topic; [`ChannelStatus::Closed`] for one that is not wanted.
    #[must_use]
    pub fn channel_status(&self, topic: &str) -> ChannelStatus {
        self.channels.get(topic).map_or(ChannelStatus::Closed, |channel| self.status_of(channel))
    }

    /// Every topic that is wanted or being left, in order of topic.
    pub fn channels(&self) -> impl Iterator<Item = (&Topic, ChannelStatus)> {
        self.channels.sorted().map(|(topic, channel)| (topic, self.status_of(channel)))
    }

    /// The server's response to the join that holds, while the channel is joined.
    #[must_use]
    pub fn join_response(&self, topic: &str) -> Option<&Payload> {
        let want = self.channels.get(topic)?.want.as_ref()?;
        want.joined().map(|instance| &instance.response)
    }

    /// Whether an interest holds: it was neither released nor did its channel end.
    #[must_use]
    pub fn is_interested(&self, interest: InterestId) -> bool {
        self.interests.get(interest).is_some()
    }

    /// How many interests share a topic.
    #[must_use]
    pub fn interests(&self, topic: &str) -> usize {
        self.wanted(topic).map_or(0, |want| want.interests.len())
    }

    /// The parameters that a wanted topic is joined with. A join with others is refused with
    /// [`JoinError::ConflictingParams`](crate::event::JoinError::ConflictingParams); whether they are others is
    /// for [`JoinParams::same`].
    #[must_use]
    pub fn join_params(&self, topic: &str) -> Option<&JoinParams> {
        Some(&self.wanted(topic)?.params)
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            queued_pushes: self.pushes.queued().pushes as usize,
            queued_bytes: self.pushes.queued().bytes,
            pushes_in_flight: self.pushes.in_flight(),
            ..self.stats.clone()
        }
    }

    /// [`Stats::late_replies`] alone, for a driver that looks after every step.
    #[must_use]
    pub const fn late_replies(&self) -> u64 {
        self.stats.late_replies
    }

    /// How many live entries each table has.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let live = self.live.as_ref();
        let channels: Vec<&Channel> =
            self.channels.sorted().map(|(_, channel)| &**channel).collect();
        let groups: Vec<&Group> = channels.iter().flat_map(|channel| channel.groups()).collect();
        debug_assert_eq!(groups.len(), self.pushes.groups(), "every group is held");
        let pushes_of_channels = groups.iter().map(|group| self.pushes.members(group).count());
        Sizes {
            channels: self.channels.len(),
            interests: self.interests.len(),
            pushes: self.pushes.queued().pushes as usize + self.pushes.in_flight(),
            pushes_of_channels: pushes_of_channels.sum(),
            deadlines: self.timers.len() + self.pushes.deadlines(),
            actions: self.actions.len(),
            unanswered_joins: live.map_or(0, |live| live.joins.len()),
            due_joins: live.map_or(0, |live| live.due_joins.len()),
            due_frames: live.map_or(0, |live| live.lane.len()),
            held_topics: live.map_or(0, |live| live.held.len()),
        }
    }

    fn status_of(&self, channel: &Channel) -> ChannelStatus {
        let Some(want) = &channel.want else { return ChannelStatus::Leaving };
        match &want.state {
            State::Joining { .. } => ChannelStatus::Joining,
            State::Joined(_) => ChannelStatus::Joined,
            State::Errored { until } => ChannelStatus::Errored { until: *until },
            State::Pending => ChannelStatus::Pending(match &self.live {
                _ if channel.leaving.is_some() => PendingReason::LeaveEnding,
                None => PendingReason::Offline,
                Some(live) if live.joins.len() >= self.config.join_concurrency.get() => {
                    PendingReason::Slot
                }
                Some(_) if !self.is_paced_in() => PendingReason::Paced,
                Some(_) => PendingReason::NotWritable,
            }),
        }
    }

    fn wanted(&self, topic: &str) -> Option<&Want> {
        self.channels.get(topic)?.want.as_ref()
    }

    fn wanted_mut(&mut self, topic: &str) -> Option<&mut Want> {
        self.channels.get_mut(topic)?.want.as_mut()
    }

    /// Time never goes backwards in here.
    fn advance(&mut self, now: Time) -> Time {
        self.now = self.now.max(now);
        self.now
    }

    fn signal(&mut self, signal: Signal) {
        if self.actions.capacity() == 0 {
            // All that the answer to a heartbeat needs.
            self.actions.reserve_exact(1);
        }
        self.actions.push_back(Action::Signal(signal));
    }

    fn mint_ref(&mut self) -> Ref {
        let minted = Ref(self.next_ref);
        self.next_ref += 1;
        minted
    }

    const fn mint_order(&mut self) -> u64 {
        let minted = self.next_order;
        self.next_order += 1;
        minted
    }
}
