//! [`Socket`]: the state of one Phoenix connection and its channels, as a value without I/O.
//!
//! Each state machine is a file or a folder with its states, transitions, diagram and deadlines. A
//! transition is a method of the machine that it changes; it returns the effects. The socket
//! composes the machines: it calls a transition and turns the effects into signals and actions.
//!
//! | machine | decides |
//! | --- | --- |
//! | `connection` | when to dial, close and give up |
//! | `retry` | whether to dial again, and after which delay |
//! | `channel` | when to join, rejoin and leave a topic |
//! | `push` | the outcome of a push, and the order of frames |
//! | `heartbeat` | whether the peer still answers |
//! | `join_clock` | which join the server is running, and whether it is overdue |
//! | `join_pace` | how fast joins are written to a server that limits them |
//! | `write_stall` | whether a transport that takes no frame is dead |
//! | `progress` | by how much transferred bytes extend deadlines |
//!
//! | composition | contains |
//! | --- | --- |
//! | `connection::commands`, `channel::commands`, `push::commands` | the commands, and the effects of transitions |
//! | `receive` | dispatch of incoming frames |
//! | `send` | the next frame to write |
//! | `ticket` | join parameters that are made by a function |
//! | `timer`, `expire` | deadlines and their expiry |
//! | `apply` | inputs as data |
//!
//! All state of an open connection is inside `Phase::Open`, which is dropped as a whole when the
//! connection is lost, so that state of an old connection cannot affect a new one.

pub(crate) mod apply;
pub(crate) mod channel;
mod connection;
mod expire;
#[cfg(test)]
pub(crate) mod fixpoint;
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
mod write_stall;

use std::collections::VecDeque;

pub use channel::{ChannelStatus, PendingReason};
pub use connection::{Lifecycle, Status};
pub use push::repeat::{AfterAttempt, Repeat};
pub use ticket::Step;
pub use timer::{Timeout, TimerKind};

use crate::collections::ordered::Ordered;
use crate::config::join_params::JoinParams;
use crate::config::{Config, Credentials, Uri};
use crate::event::action::Action;
use crate::event::signal::{Signal, Warning};
use crate::event::sizes::Sizes;
use crate::event::stats::Stats;
use crate::id::{ConnectionId, InterestId, Ref};
use crate::socket::channel::channels::Channels;
use crate::socket::channel::{Channel, State, Want};
use crate::socket::connection::Connection;
use crate::socket::join_pace::JoinPace;
use crate::socket::push::slab::{Group, Pushes};
use crate::socket::retry::Retry;
use crate::socket::rng::Rng;
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// The state machine of one Phoenix connection and its channels.
///
/// # The four families of methods
///
/// * **Inspection** (`&self`): [`status`](Self::status), [`channel_status`](Self::channel_status),
///   [`channels`](Self::channels), [`stats`](Self::stats), … They change nothing.
/// * **Commands** from the application: [`connect`](Self::connect),
///   [`disconnect`](Self::disconnect), [`join`](Self::join), [`leave`](Self::leave),
///   [`push`](Self::push), … They return at once; their outcome follows as a [`Signal`].
/// * **Inputs** (`handle_*`) from the driver: events of I/O and time. An input about I/O carries
///   the [`ConnectionId`] that it belongs to; an input of an earlier connection is counted and
///   ignored. [`apply`](Self::apply) takes a command or an input as data, an
///   [`Input`](crate::Input).
/// * **Outputs** to the driver: [`poll_action`](Self::poll_action) returns the next action, and
///   [`poll_timeout`](Self::poll_timeout) the time to call
///   [`handle_timeout`](Self::handle_timeout).
///
/// # The loop
///
/// 1. Call a command or an input.
/// 2. Call `poll_action` until it returns `None`, and carry out each action.
/// 3. Sleep until `poll_timeout().at`, or until the next command or input.
/// 4. If the deadline has passed, call `handle_timeout`. Go to 2.
///
/// A driver may poll actions late: queued actions do not change any more, and frames are built only
/// when they are polled.
///
/// # Time
///
/// `now` must not go backwards; if it does, the latest `now` so far is used. Only `handle_timeout`
/// expires deadlines.
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
///         // Call `handle_dialled` and dial `socket.connect_request()` here.
///         Action::Connect { id, .. } => break id,
///         _ => continue, // signals
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
    connection: Connection,
    retry: Retry,
    /// The address of the last connection that opened.
    opened_at: Option<Box<Uri>>,
    pace: JoinPace,
    channels: Channels,
    interests: Ordered<InterestId, Topic>,
    /// Whether unrouted messages are reported as signals.
    reports_unrouted: bool,
    pushes: Pushes,
    actions: VecDeque<Action>,
    stats: Stats,
    next_ref: u64,
    next_interest: u64,
    /// The next number of the sequence that pushes, leaves and joins share. The numbers give the order
    /// in which they were accepted.
    next_order: u64,
}

impl Socket {
    /// Makes an idle socket; [`connect`](Self::connect) starts it.
    ///
    /// `seed` determines all jitter. It is required, because a default would synchronise all
    /// clients. With the same seed, configuration and inputs, two sockets produce the same bytes.
    /// `now` is the time on the caller's clock.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Time) -> Self {
        let mut socket = Self {
            credentials: config.credentials.clone(),
            rng: Rng::new(seed),
            now,
            connection: Connection::new(),
            retry: Retry::default(),
            opened_at: None,
            pace: JoinPace::default(),
            channels: Channels::seeded(seed),
            interests: Ordered::new(),
            reports_unrouted: false,
            pushes: Pushes::default(),
            actions: VecDeque::new(),
            stats: Stats::default(),
            next_ref: 1,
            next_interest: 1,
            next_order: 1,
            config,
        };
        // Phoenix closes a connection on which it reads nothing for 60 s
        // (`wire/idle_timeout_close`).
        if socket.config.heartbeat_interval.as_secs() >= 60 {
            socket.signal(Signal::Warning(Warning::HeartbeatIntervalTooLong));
        }
        socket.add_auto_joins();
        socket
    }

    /// The configuration that the socket was made with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The id of the connection that is open, opening or closing, if any.
    #[must_use]
    pub const fn connection_id(&self) -> Option<ConnectionId> {
        self.connection.id()
    }

    /// The state of the connection.
    #[must_use]
    pub fn status(&self) -> Status {
        self.connection.status()
    }

    /// The state of a topic; [`ChannelStatus::Closed`] for a topic that is not wanted.
    #[must_use]
    pub fn channel_status(&self, topic: &str) -> ChannelStatus {
        self.channels.get(topic).map_or(ChannelStatus::Closed, |channel| self.status_of(channel))
    }

    /// Every topic that is wanted or being left, sorted by topic.
    pub fn channels(&self) -> impl Iterator<Item = (&Topic, ChannelStatus)> {
        self.channels.sorted().map(|(topic, channel)| (topic, self.status_of(channel)))
    }

    /// The server's response to the join of the present instance; `None` while the channel is not
    /// joined.
    #[must_use]
    pub fn join_response(&self, topic: &str) -> Option<&Payload> {
        let want = self.channels.get(topic)?.want.as_ref()?;
        want.joined().map(|instance| &instance.response)
    }

    /// Whether an interest is active: it was not released, and its channel has not ended.
    #[must_use]
    pub fn is_interested(&self, interest: InterestId) -> bool {
        self.interests.get(interest).is_some()
    }

    /// The number of interests in a topic.
    #[must_use]
    pub fn interests(&self, topic: &str) -> usize {
        self.wanted(topic).map_or(0, |want| want.interests.len())
    }

    /// The join parameters of a wanted topic. [`join`](Self::join) with different parameters is
    /// refused with [`JoinError::ConflictingParams`](crate::event::JoinError::ConflictingParams);
    /// [`JoinParams::same`] compares them.
    #[must_use]
    pub fn join_params(&self, topic: &str) -> Option<&JoinParams> {
        Some(&self.wanted(topic)?.params)
    }

    /// The counters of the socket.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            queued_pushes: self.pushes.queued().pushes as usize,
            queued_bytes: self.pushes.queued().bytes,
            pushes_in_flight: self.pushes.in_flight(),
            ..self.stats.clone()
        }
    }

    /// Only the counter [`Stats::late_replies`], for a driver that reads it after every step.
    #[must_use]
    pub const fn late_replies(&self) -> u64 {
        self.stats.late_replies
    }

    /// The number of live entries of each table.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let live = self.connection.live();
        let channels: Vec<&Channel> = self.channels.sorted().map(|(_, channel)| channel).collect();
        let groups: Vec<&Group> = channels.iter().flat_map(|channel| channel.groups()).collect();
        debug_assert_eq!(groups.len(), self.pushes.groups(), "every group has an owner");
        let pushes_of_channels = groups.iter().map(|group| self.pushes.members(group).count());
        Sizes {
            channels: self.channels.len(),
            interests: self.interests.len(),
            pushes: self.pushes.queued().pushes as usize + self.pushes.in_flight(),
            pushes_of_channels: pushes_of_channels.sum(),
            deadlines: self.deadlines(),
            actions: self.actions.len(),
            unanswered_joins: live.map_or(0, |live| live.joins().len()),
            due_joins: live.map_or(0, |_| self.channels.due()),
            due_frames: live.map_or(0, |live| live.lane.len()),
            held_topics: live.map_or(0, |live| live.lane.held()),
        }
    }

    fn status_of(&self, channel: &Channel) -> ChannelStatus {
        let Some(want) = &channel.want else { return ChannelStatus::Leaving };
        match &want.state {
            State::Joining { .. } => ChannelStatus::Joining,
            State::Joined(_) => ChannelStatus::Joined,
            State::Errored { until } => ChannelStatus::Errored { until: *until },
            State::Pending => ChannelStatus::Pending(match self.connection.live() {
                _ if channel.leaving.is_some() => PendingReason::LeaveEnding,
                None => PendingReason::Offline,
                Some(live) if live.joins().len() >= self.config.join_concurrency.get() => {
                    PendingReason::Slot
                }
                Some(_) if !self.pace_allows_join() => PendingReason::Paced,
                Some(_) => PendingReason::NotWritable,
            }),
        }
    }

    fn wanted(&self, topic: &str) -> Option<&Want> {
        self.channels.get(topic)?.want.as_ref()
    }

    /// Turns the signal [`Signal::Unrouted`] on or off. It is off at first.
    ///
    /// An unrouted message is a message on a topic that has no channel: it is neither wanted nor being
    /// left. It has no join_ref, and its event does not begin with `phx_`. A message on a topic whose channel
    /// ended on the present connection is not unrouted, because it may be a late broadcast of that channel.
    /// The socket remembers the last 256 of these topics, or fewer if their names have more than 16 KiB.
    ///
    /// While the signal is off, these messages are dropped and counted in
    /// [`Stats::messages_unrouted`].
    ///
    /// ```
    /// use phx_proto::{Action, Config, Frame, Opened, Signal, Socket, Time};
    ///
    /// let now = Time::ZERO;
    /// let mut socket = Socket::new(Config::new("ws://localhost/socket/websocket")?, 1, now);
    /// socket.report_unrouted(now, true);
    /// socket.connect(now);
    /// let id = socket.connection_id().expect("an attempt");
    /// socket.handle_opened(now, id, Opened::default());
    /// let data = r#"[null,null,"doc:7","subscription:data",{"result":{}}]"#;
    /// socket.handle_frame(now, id, Frame::from(data));
    /// let mut actions = std::iter::from_fn(|| socket.poll_action(now));
    /// let unrouted = |action| matches!(action, Action::Signal(Signal::Unrouted { .. }));
    /// assert!(actions.any(unrouted));
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    pub fn report_unrouted(&mut self, now: Time, on: bool) {
        self.advance(now);
        self.reports_unrouted = on;
    }

    /// Takes the caller's time, and returns the latest time so far.
    #[inline]
    fn advance(&mut self, now: Time) -> Time {
        self.now = self.now.max(now);
        self.now
    }

    fn signal(&mut self, signal: Signal) {
        if self.actions.capacity() == 0 {
            // An idle connection needs a capacity of one, for the signal of an answered heartbeat;
            // the rest is freed.
            self.actions.reserve_exact(1);
        }
        self.actions.push_back(Action::Signal(signal));
    }

    // Protocol: REF-1.
    fn mint_ref(&mut self) -> Ref {
        Ref(mint(&mut self.next_ref))
    }

    const fn mint_order(&mut self) -> u64 {
        mint(&mut self.next_order)
    }
}

/// The next number of a sequence.
const fn mint(next: &mut u64) -> u64 {
    let minted = *next;
    *next += 1;
    minted
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;

    impl Socket {
        /// The form omits the actions, which have all been polled, and the configuration and the
        /// credentials, which are the same in all states of a world.
        pub(super) fn canonical(&self, form: &mut Form<'_>) {
            let Self {
                config: _,
                credentials: _,
                rng,
                now,
                connection,
                retry,
                opened_at,
                pace,
                channels,
                interests,
                reports_unrouted,
                pushes,
                actions,
                stats,
                next_ref,
                next_interest,
                next_order,
            } = self;
            assert_eq!((*now, actions.len()), (form.now, 0));
            rng.canonical(form);
            connection.canonical(form, pushes);
            retry.canonical(form);
            form.flag(opened_at.is_some());
            pace.canonical(form);
            channels.canonical(form, pushes);
            form.number(interests.len() as u64);
            for (interest, topic) in interests.entries() {
                form.interest(interest);
                form.text(topic);
            }
            assert!(!reports_unrouted, "no world asks for unrouted messages");
            pushes.canonical(form);
            only_reported(stats);
            form.msg_ref(Ref(*next_ref));
            form.interest(InterestId(*next_interest));
            form.order(*next_order);
        }
    }

    /// Lists every counter, to show that none of them affects a decision.
    const fn only_reported(stats: &Stats) {
        let Stats {
            frames_out: _,
            bytes_out: _,
            frames_in: _,
            bytes_in: _,
            connections: _,
            failed_attempts: _,
            lost_connections: _,
            reconnects: _,
            messages: _,
            messages_not_joined: _,
            messages_unrouted: _,
            pushes_repeated: _,
            stale_frames: _,
            stale_inputs: _,
            late_replies: _,
            mailbox_drops: _,
            protocol_errors: _,
            queued_pushes: _,
            queued_bytes: _,
            pushes_in_flight: _,
            last_rtt: _,
            last_join: _,
            last_frame_at: _,
        } = stats;
    }
}
