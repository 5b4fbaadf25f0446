//! The state that handles and the driver share: the core, the waiters and the subscribers.
//!
//! ```text
//!   handle ──command──▶ ┌──────── State ────────┐ ◀──input── driver
//!                       │ Socket ──▶ drain()    │
//!                       │   signals ─▶ waiters, │ ──todo──▶ driver: Connect, Close, Abort
//!   handle ◀──wake───── │   mailboxes           │
//!                       └───────────────────────┘
//! ```
//!
//! There is no command channel: a handle locks the state, calls the core and returns the result at
//! once. Therefore dropping a handle or a future is a plain synchronous call, and the error of a
//! push that was not accepted contains the payload. After every command and every input the core's
//! actions are drained, so a stale event can never complete a newer waiter. Frames stay in the core
//! until the driver has a transport that takes them.
//!
//! Each mailbox has its own lock. A consumer takes only that lock; the driver takes it while it
//! holds the lock of the state.
//!
//! No code of the application runs under the lock. Wakers are cloned before the lock is taken,
//! collected under it, and woken or dropped after it is released. Values that may own memory or
//! handles of the application are collected and dropped the same way. The one exception is a
//! [`Codec`](crate::wire::Codec), whose contract forbids calls back into the client.

use core::fmt;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::catch_up::{Positions, is_object};
use super::error::{JoinFailed, JoinObstacle};
use super::mailbox::Mailbox;
use super::messages::{Message, StreamEnd};
use super::presence::PresenceLog;
use super::subscribers::Subscriber;
use super::unrouted::Inbox;
use super::waiters::{
    JoinWait, Parked, PushWait, Task, Wait, Waiter, WaiterId, Waiters, poll_parked,
};
use crate::collections::table::Table;
use crate::config::join_params::{JoinParams, ParamsPanicked};
use crate::event::action::Action;
use crate::event::applied::{Applied, Supplied};
use crate::event::cause::{Cause, ChannelEnd, LeaveOutcome, PushOutcome};
use crate::event::error::JoinError;
use crate::event::input::{Ended, Input, Opened};
use crate::event::signal::Signal;
use crate::event::ticket::JoinTicket;
use crate::id::{ConnectionId, InterestId, PushId};
#[cfg(feature = "recording")]
use crate::recording::{RecordedSocket as Core, Tape};
#[cfg(not(feature = "recording"))]
use crate::socket::Socket as Core;
use crate::socket::{AfterAttempt, ChannelStatus, Repeat, Status, Step};
use crate::sync::{Mutex, MutexGuard};
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::Frame;
use crate::wire::payload::Payload;
use crate::wire::weight::{ReadBuffer, compact, weight};

/// Applies an [`Input`](crate::Input) to the socket of a [`State`] and returns the result for that
/// input.
macro_rules! apply {
    ($state:expr, $now:expr, $name:ident $fields:tt) => {
        match $state.socket.apply($now, $crate::event::input::Input::$name $fields) {
            $crate::event::applied::Applied::$name(result) => result,
            other => unreachable!("{other:?} is the result of another input"),
        }
    };
}
pub(super) use apply;

/// The lock around the state, and the clock that gives every command its time.
pub(super) struct Shared {
    clock: Box<dyn Fn() -> Time + Send + Sync>,
    state: Mutex<State>,
    /// The recording, if the client is recorded.
    #[cfg(feature = "recording")]
    tape: Option<Arc<Tape>>,
    /// The span in which the client was made. Cloning it calls the `tracing` subscriber, which is
    /// code of the application, so it is cloned outside the lock.
    #[cfg(feature = "tracing")]
    span: tracing::Span,
    /// The name of the connection, if the application set one.
    name: Option<String>,
    /// The address in the configuration, with possible secrets redacted.
    #[cfg(feature = "tracing")]
    address: String,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// `seed` seeds the hash tables whose keys a remote party may choose.
    pub(super) fn new(
        socket: Core,
        seed: u64,
        name: Option<String>,
        clock: impl Fn() -> Time + Send + Sync + 'static,
    ) -> Arc<Self> {
        #[cfg(feature = "recording")]
        let tape = socket.tape();
        Arc::new(Self {
            clock: Box::new(clock),
            #[cfg(feature = "tracing")]
            address: socket.config().uri.to_string(),
            state: Mutex::new(State::new(socket, seed)),
            name,
            #[cfg(feature = "recording")]
            tape,
            #[cfg(feature = "tracing")]
            span: tracing::Span::current(),
        })
    }

    /// Runs a command of a handle, and wakes the driver to carry out the resulting actions.
    pub(super) fn command<T>(&self, command: impl FnOnce(&mut State, Time) -> T) -> T {
        let now = self.now();
        self.locked(|state| {
            let answer = command(state, now);
            state.drain(now);
            state.wakes.extend(state.driver.take());
            answer
        })
    }

    /// Applies an input from the driver.
    pub(super) fn input<T>(&self, now: Time, input: impl FnOnce(&mut State) -> T) -> T {
        self.locked(|state| {
            let answer = input(state);
            state.drain(now);
            answer
        })
    }

    pub(super) fn now(&self) -> Time {
        (self.clock)()
    }

    /// The name of the connection, if the application set one.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Runs `look` under the lock without draining the core, so `look` must not apply an input.
    pub(super) fn with_state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        self.locked(look)
    }

    /// Applies many inputs from the driver under one lock. `work` drains the core after each of
    /// them, as [`input`](Self::input) does. `wakers` is a buffer that the caller reuses from one
    /// batch to the next.
    pub(super) fn batch(&self, wakers: &mut Vec<Waker>, work: impl FnOnce(&mut State)) {
        self.locked(|state| {
            core::mem::swap(&mut state.wakes.more, wakers);
            work(state);
            core::mem::swap(&mut state.wakes.more, wakers);
        });
        wakers.drain(..).for_each(Waker::wake);
    }

    /// Polls a waiter of the registry. `look` returns the outcome, or the id of the waiter that is
    /// still pending.
    pub(super) fn poll_waiter<T>(
        &self,
        cx: &Context<'_>,
        mut look: impl FnMut(&mut State) -> Result<T, WaiterId>,
    ) -> Poll<T> {
        poll_parked(cx, |task| {
            self.with_state(|state| match look(state) {
                Ok(outcome) => Poll::Ready(outcome),
                Err(id) => {
                    let waiter = state.waiters.get_mut(id);
                    waiter.map_or(Poll::Pending, |waiter| waiter.park(task))
                }
            })
        })
    }

    fn locked<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let answer = work(&mut state);
        let wakes = core::mem::take(&mut state.wakes);
        let discarded = state.take_discarded();
        #[cfg(feature = "tracing")]
        let trace = {
            let (late, now) = (state.socket.late_replies(), state.now);
            state.trace.late_replies(late);
            state.trace.take(now)
        };
        drop(state);
        #[cfg(feature = "recording")]
        if let Some(tape) = &self.tape {
            tape.flush();
        }
        #[cfg(feature = "tracing")]
        trace.emit(&self.span, self.name.as_deref(), &self.address);
        drop(discarded);
        drop(wakes);
        answer
    }

    /// Takes the lock. Codecs are the only application code that runs under it, and the core
    /// changes nothing until a codec has returned, so a panic leaves the state consistent.
    #[inline]
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// The state behind the lock.
pub(super) struct State {
    pub(super) socket: Core,
    /// Actions that the driver has to carry out, in order.
    pub(super) todo: VecDeque<Action>,
    driver: Parked,
    pub(super) driver_gone: bool,
    /// The last handle was dropped.
    pub(super) abandoned: bool,
    pub(super) wakes: Wakes,
    pub(super) waiters: Waiters,
    /// The time of the last command or input.
    pub(super) now: Time,
    /// The cause of the end of the previous connection or attempt.
    pub(super) last_cause: Option<Cause>,
    /// A second reference to the join parameters that are functions, so that the core never drops the
    /// last one under the lock. That drop may run code of the application.
    params: Table<JoinParams>,
    pub(super) discarded: Vec<Discarded>,
    /// The subscribers of each topic. The values are boxed, because vacant entries of a hash map
    /// take memory too.
    pub(super) topics: Table<Box<Audience>>,
    /// The mailboxes of unrouted messages. While there is one, the core reports these messages.
    pub(super) unrouted: Vec<Arc<Inbox>>,
    /// The waiters for space in the push queue, by topic and in the order of their calls.
    pub(super) lines: BTreeMap<Topic, BTreeSet<u64>>,
    /// The number of `Wait::Capacity` waiters whose `counts` is true.
    pub(super) waiting_for_space: usize,
    /// The bytes of memory of all presence logs.
    pub(super) logs_weight: usize,
    /// The bytes that outcomes of pushes keep alive until their futures take them.
    replies_kept: usize,
    /// The pushes that are pushed again if their outcome is unknown.
    pub(super) repeats: Repeats,
    /// The number of pushes that were pushed again.
    pub(super) pushes_repeated: u64,
    #[cfg(feature = "tracing")]
    trace: super::tracing::Trace,
    /// The number of messages and signals that were dropped from full mailboxes.
    pub(super) mailbox_drops: u64,
    /// The read buffer of the present connection, which a message may keep alive.
    pub(super) read_buffer: ReadBuffer,
}

/// Wakers to wake after the lock is released. The first is stored inline, because there is rarely a
/// second.
#[derive(Default)]
pub(super) struct Wakes {
    first: Option<Waker>,
    more: Vec<Waker>,
}

impl Wakes {
    pub(super) fn extend(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        for waker in wakers {
            if self.first.is_none() {
                self.first = Some(waker);
            } else {
                self.more.push(waker);
            }
        }
    }
}

/// Wakes in `drop`, so that no wake-up is lost if code of the application panics before it.
impl Drop for Wakes {
    #[inline]
    fn drop(&mut self) {
        if let Some(first) = self.first.take() {
            first.wake();
            self.more.drain(..).for_each(Waker::wake);
        }
    }
}

/// The next thing for the driver to write.
pub(super) enum Pulled {
    /// A frame, and the connection that it belongs to.
    Frame(ConnectionId, Frame),
    /// A join whose parameters must first be evaluated outside the lock.
    Evaluate(JoinTicket),
}

/// The subscribers and the waiters of one topic.
#[derive(Default)]
pub(super) struct Audience {
    /// The waiters of joins, each with the interest that it belongs to.
    pub(super) joins: BTreeMap<u64, InterestId>,
    pub(super) mailboxes: Vec<Arc<Subscriber>>,
    pub(super) presence: PresenceLog,
    /// The consumers that catch up.
    pub(super) positions: Option<Arc<Positions>>,
}

/// The pushes that are pushed again if their outcome is unknown. A shutdown waits for those that
/// may still be pushed again; the core counts only those with an attempt.
#[derive(Default)]
pub(super) struct Repeats {
    /// The attempts that the core has not ended, each with its handle and the machine of its push. The
    /// future of the push has the machine too, so the payload is not dropped under the lock.
    pub(super) pushes: BTreeMap<PushId, (InterestId, Repeat)>,
    /// The attempts that have ended and may be followed by another one, until it is accepted, or the handle
    /// or the future has ended.
    pub(super) waiting: BTreeMap<PushId, InterestId>,
}

/// Values to drop after the lock is released, because they may own memory of the application.
#[allow(dead_code, reason = "the values are kept only to be dropped later")]
pub(super) enum Discarded {
    Params(JoinParams),
    Messages(Vec<Message>),
    Missed(Missed),
    Signals(Vec<Signal>),
}

/// Messages that were dropped from the mailbox of a consumer that catches up. The drop of this value
/// reports them, so that the report is made even if the drop of another value panics.
pub(super) struct Missed {
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) messages: Vec<Message>,
}

impl Drop for Missed {
    fn drop(&mut self) {
        self.subscriber.report_missed(&self.messages);
    }
}

impl State {
    fn new(socket: Core, seed: u64) -> Self {
        Self {
            read_buffer: ReadBuffer::new(socket.config().read_buffer_bytes.get()),
            socket,
            todo: VecDeque::new(),
            driver: Parked::new(),
            driver_gone: false,
            abandoned: false,
            wakes: Wakes::default(),
            waiters: Waiters::default(),
            now: Time::ZERO,
            last_cause: None,
            params: Table::seeded(seed),
            discarded: Vec::new(),
            topics: Table::seeded(seed),
            unrouted: Vec::new(),
            lines: BTreeMap::new(),
            waiting_for_space: 0,
            logs_weight: 0,
            replies_kept: 0,
            repeats: Repeats::default(),
            pushes_repeated: 0,
            #[cfg(feature = "tracing")]
            trace: super::tracing::Trace::new(),
            mailbox_drops: 0,
        }
    }

    /// Applies an input that has no result.
    pub(super) fn apply(&mut self, now: Time, input: Input) {
        let applied = self.socket.apply(now, input);
        debug_assert_eq!(applied, Applied::Done, "an input without a result");
    }

    /// Takes the next action for the driver. An empty queue, the usual case, keeps no capacity.
    pub(super) fn next_todo(&mut self) -> Option<Action> {
        let action = self.todo.pop_front();
        if self.todo.is_empty() {
            self.todo = VecDeque::new();
        }
        action
    }

    /// Whether the driver may end: the last handle was dropped and the connection is over.
    pub(super) fn is_finished(&self) -> bool {
        self.abandoned
            && self.todo.is_empty()
            && matches!(self.socket.status(), Status::Closed | Status::Idle | Status::GaveUp { .. })
    }

    /// Parks the driver's waker, which the next command wakes; see [`Parked::park`].
    pub(super) fn listen(&mut self, task: &mut Task<'_>) -> Poll<()> {
        self.driver.park(task)
    }
}

/// # Inputs of the driver
impl State {
    /// Called when the machine may have been suspended, which may change the time of the next
    /// attempt.
    pub(super) fn handle_wake(&mut self, now: Time) {
        self.apply(now, Input::Wake);
        self.wake_watchers();
    }

    pub(super) fn handle_opened(&mut self, now: Time, id: ConnectionId, opened: Opened) {
        self.read_buffer = ReadBuffer::new(self.socket.config().read_buffer_bytes.get());
        self.apply(now, Input::Opened { id, opened });
    }

    /// Handles a frame and drains the core.
    #[inline]
    pub(super) fn handle_frame(&mut self, now: Time, id: ConnectionId, frame: &Frame) {
        self.now = self.now.max(now);
        self.read_buffer.received(frame.len());
        if let Some(action) = self.socket.handle_frame_and_poll(now, id, frame) {
            self.handle_action(action);
        }
        self.drain(now);
    }
}

/// # Actions of the core
impl State {
    /// Takes every action out of the core except frames, which are built when they are pulled.
    pub(super) fn drain(&mut self, now: Time) {
        self.now = self.now.max(now);
        while self.socket.has_actions() {
            match self.socket.poll_action(now) {
                Some(action) => self.handle_action(action),
                None => break,
            }
        }
        if self.waiters.has_shutdowns() {
            for waiter in self.waiters.shutdowns() {
                self.wakes.extend(waiter.take_waker());
            }
        }
    }

    /// The next frame, or the join parameters to evaluate for it.
    pub(super) fn pull(&mut self, now: Time) -> Option<Pulled> {
        loop {
            match self.socket.poll_step(now)? {
                Step::Action(Action::Send { id, frame } | Action::Join { id, frame, .. }) => {
                    self.wake_lines();
                    return Some(Pulled::Frame(id, frame));
                }
                Step::Action(other) => self.handle_action(other),
                Step::Evaluate(ticket) => return Some(Pulled::Evaluate(ticket)),
            }
        }
    }

    /// Supplies evaluated join parameters to the core.
    pub(super) fn supply(
        &mut self,
        now: Time,
        ticket: &JoinTicket,
        params: Result<Payload, ParamsPanicked>,
    ) -> Supplied {
        self.drain(now);
        apply!(self, now, SupplyJoin { ticket: ticket.clone(), params })
    }

    /// Dispatches a signal, and queues other actions for the driver.
    #[inline]
    fn handle_action(&mut self, action: Action) {
        match action {
            Action::Signal(signal) => self.dispatch(signal),
            Action::ReconnectAfter { .. } | Action::RejoinAfter { .. } => {}
            Action::Connect { .. }
            | Action::Abort { .. }
            | Action::Send { .. }
            | Action::Join { .. } => self.todo.push_back(action),
            Action::Close { .. } => {
                self.todo.push_back(action);
                // There is no signal for the change to `Closing`.
                self.wake_watchers();
            }
        }
    }

    fn dispatch(&mut self, signal: Signal) {
        if self.waiters.has_signals() {
            self.record(&signal);
        }
        #[cfg(feature = "tracing")]
        self.trace.record(&signal);
        match signal {
            Signal::Connecting { .. } | Signal::Connected { .. } => self.wake_watchers(),
            Signal::ConnectFailed { cause, .. } | Signal::Disconnected { cause, .. } => {
                self.last_cause =
                    Some(cause.clone()).filter(|cause| *cause != Cause::LocalDisconnect);
                for join in self.waiters.joins() {
                    join.last = Some(JoinObstacle::Disconnected(cause.clone()));
                }
                self.wake_watchers();
            }
            Signal::GaveUp { .. } | Signal::Closed => {
                if matches!(signal, Signal::Closed) {
                    // A `disconnect` during the wait for a retry has no other signal.
                    self.last_cause = None;
                }
                self.finish_leaves(None, LeaveOutcome::Offline);
                self.wake_watchers();
            }
            Signal::Joined { topic, response } => {
                self.restart_log(&topic);
                self.resolve_joins(&topic, &Ok(()));
                self.notify_joined(&topic, &response, true);
            }
            Signal::Resumed { topic, response } => {
                self.restart_log(&topic);
                self.resolve_joins(&topic, &Ok(()));
                self.notify_joined(&topic, &response, false);
            }
            Signal::JoinRejected { topic, rejection, last: true } => {
                self.resolve_joins(&topic, &Err(JoinFailed::Rejected(rejection)));
            }
            Signal::JoinRejected { topic, rejection, last: false } => {
                self.set_obstacle(&topic, &JoinObstacle::Rejected(rejection));
            }
            Signal::JoinTimedOut { topic } => self.set_obstacle(&topic, &JoinObstacle::TimedOut),
            Signal::Errored { topic, payload } => {
                // The payload is kept for long, so it must not keep the read buffer alive.
                self.set_obstacle(&topic, &JoinObstacle::Crashed(payload.into_compact()));
            }
            Signal::Interrupted { topic, cause } => {
                self.change_log(&topic, PresenceLog::stop);
                self.notify_interrupted(&topic, &cause);
            }
            Signal::Left { topic, outcome } => {
                self.finish_leaves(Some(&topic), outcome);
                self.wake_lines_of_last_topic();
            }
            // The subscribers were notified when the leave was requested; newer waiters may already
            // wait for the next join.
            Signal::ChannelClosed { topic, cause: ChannelEnd::Left } => {
                self.discard(&topic);
                self.wake_lines_of_last_topic();
            }
            Signal::ChannelClosed { topic, cause } => {
                self.discard(&topic);
                self.end_topic(&topic, &cause);
                self.wake_lines_of_last_topic();
            }
            Signal::Message { topic, event, payload } => {
                self.deliver(Message::new(topic, event, payload));
            }
            Signal::Unrouted { topic, event, payload } => {
                self.deliver_unrouted(Message::new(topic, event, payload));
            }
            Signal::PushEnded { id, outcome, .. } => {
                self.attempt_ended(id, &outcome);
                self.finish_push(id, outcome);
                self.wake_lines();
            }
            // The core shrinks its own tables at the same signal.
            Signal::HeartbeatAcked { .. } => self.waiters.shrink(),
            Signal::ProtocolError { .. } | Signal::Warning(_) => {}
        }
    }

    /// Keeps a reference to the parameters of a topic for as long as the core may use them. Fixed
    /// parameters need none, because they are a copy in memory of this crate.
    pub(super) fn keep_params(&mut self, topic: Topic, params: JoinParams) {
        let replaced = match params.fixed() {
            Some(_) => self.params.remove(&topic),
            None => self.params.insert(topic, params),
        };
        self.discarded.extend(replaced.map(Discarded::Params));
    }

    fn discard(&mut self, topic: &Topic) {
        self.discarded.extend(self.params.remove(topic).map(Discarded::Params));
    }

    /// Takes the values to drop after the lock is released, if there are any.
    #[inline]
    fn take_discarded(&mut self) -> Option<Vec<Discarded>> {
        if self.discarded.is_empty() { None } else { Some(core::mem::take(&mut self.discarded)) }
    }

    /// Queues messages to be dropped after the lock is released.
    pub(super) fn discard_messages(&mut self, messages: Vec<Message>) {
        if !messages.is_empty() {
            self.discarded.push(Discarded::Messages(messages));
        }
    }

    /// Ends every waiter and every stream, because the driver has completed or was dropped. Returns the
    /// driver's waker, to be dropped after the lock is released. A second call does nothing.
    pub(super) fn end(&mut self, now: Time, panicked: bool) -> Option<Waker> {
        if core::mem::replace(&mut self.driver_gone, true) {
            return None;
        }
        if panicked {
            self.apply(now, Input::Panicked);
        } else {
            self.apply(now, Input::Disconnect);
        }
        self.drain(now);
        if let Some(id) = self.socket.connection_id() {
            let message = "the driver was dropped".to_owned();
            self.apply(now, Input::Closed { id, ended: Ended::Lost { message } });
        }
        self.drain(now);
        self.todo.clear();
        self.wake_watchers();
        for waiter in self.waiters.signals() {
            self.wakes.extend(waiter.take_waker());
        }
        self.end_unrouted();
        self.driver.take()
    }

    /// Ends the waiters and the mailboxes of a topic that has ended.
    pub(super) fn end_topic(&mut self, topic: &str, cause: &ChannelEnd) {
        self.end_waiting_pushes(topic);
        let Some(topic) = self.topics.get_key_value(topic).map(|(topic, _)| topic.clone()) else {
            return;
        };
        self.resolve_joins(&topic, &Err(JoinFailed::Ended(cause.clone())));
        self.notify(&topic, |mailbox| mailbox.close(StreamEnd::Channel(cause.clone())));
        self.remove_topic(&topic);
    }

    fn remove_topic(&mut self, topic: &str) {
        self.change_log(topic, PresenceLog::stop);
        self.topics.remove(topic);
    }

    pub(super) fn notify(&mut self, topic: &Topic, mut change: impl FnMut(&mut Mailbox)) {
        let Some(audience) = self.topics.get(topic) else { return };
        for subscriber in &audience.mailboxes {
            let mut slot = subscriber.lock();
            change(&mut slot.mailbox);
            self.wakes.extend(slot.parked.take());
        }
    }

    fn wake_watchers(&mut self) {
        self.wakes.extend(self.waiters.watchers().filter_map(Waiter::take_waker));
    }
}

/// # Joins
impl State {
    /// Adds an interest in a topic. With `replace`, these parameters replace different ones of an
    /// existing interest.
    pub(super) fn want(
        &mut self,
        now: Time,
        topic: &Topic,
        params: &JoinParams,
        replace: bool,
    ) -> Result<InterestId, JoinError> {
        let held = self.socket.join_params(topic);
        if replace && held.is_some_and(|held| !held.same(params)) {
            self.set_params(now, topic, params.clone())?;
            return Ok(apply!(self, now, Attach { topic: topic.clone() })?);
        }
        let shared = self.socket.interests(topic) > 0;
        let interest = apply!(self, now, Join { topic: topic.clone(), params: params.clone() })?;
        if !shared {
            self.keep_params(topic.clone(), params.clone());
        }
        Ok(interest)
    }

    /// Replaces the parameters of a wanted topic. The positions of consumers that catch up stay in them.
    pub(super) fn set_params(
        &mut self,
        now: Time,
        topic: &Topic,
        mut params: JoinParams,
    ) -> Result<(), JoinError> {
        if let Some(held) = self.socket.join_params(topic).filter(|held| held.is_extended()) {
            if let Some(fixed) = params.fixed() {
                if !is_object(fixed) {
                    return Err(JoinError::ParamsNotObject { topic: topic.clone() });
                }
                // The core checks fixed parameters, and those with positions are not fixed. A recording
                // does not contain the parameters to which positions are added, so if the core refused them,
                // `phx replay` could not repeat the refusal.
                self.socket.config().check_join(topic, fixed).map_err(JoinError::unfit)?;
            }
            params = held.rebased(params);
        }
        apply!(self, now, SetJoinParams { topic: topic.clone(), params: params.clone() })?;
        self.keep_params(topic.clone(), params);
        Ok(())
    }

    /// Registers a waiter for a topic's join, with an optional deadline. The waiter is done at once
    /// if the topic is joined.
    pub(super) fn await_join(
        &mut self,
        interest: InterestId,
        topic: &Topic,
        deadline: Option<Time>,
    ) -> WaiterId {
        let joined = self.socket.channel_status(topic) == ChannelStatus::Joined;
        let last = match self.socket.status() {
            Status::Waiting { cause, .. } => Some(JoinObstacle::Disconnected(cause)),
            _ => None,
        };
        let number = self.waiters.mint();
        let (id, topic) = (WaiterId::Join(number), topic.clone());
        let result = joined.then_some(Ok(()));
        let join = JoinWait { topic: topic.clone(), last, result };
        self.waiters.register(id, Wait::Join(Box::new(join)), None);
        if !joined {
            if let Some(deadline) = deadline {
                self.waiters.arm(id, deadline);
            }
            self.topics.get_or_default(topic).joins.insert(number, interest);
        }
        id
    }

    /// Takes the result of a join. The waiter stays registered until
    /// [`remove_join`](Self::remove_join).
    pub(super) fn join_result(&mut self, id: WaiterId) -> Result<Result<(), JoinFailed>, WaiterId> {
        let Some(join) = self.waiters.get_mut(id).and_then(Waiter::join) else {
            return Ok(Err(JoinFailed::Ended(ChannelEnd::Left)));
        };
        join.result.take().ok_or(id)
    }

    /// Removes the waiter of a join, which the caller drops after the lock is released.
    #[must_use = "drop a waiter after the lock is released"]
    pub(super) fn remove_join(&mut self, id: WaiterId) -> Option<Waiter> {
        let mut waiter = self.waiters.remove(id)?;
        if let (Some(join), WaiterId::Join(number)) = (waiter.join(), id) {
            if let Some(audience) = self.topics.get_mut(&join.topic) {
                audience.joins.remove(&number);
            }
            self.remove_topic_if_unused(&join.topic);
        }
        Some(waiter)
    }

    fn resolve_joins(&mut self, topic: &Topic, result: &Result<(), JoinFailed>) {
        let Some(audience) = self.topics.get_mut(topic) else { return };
        for number in core::mem::take(&mut audience.joins).into_keys() {
            self.resolve_join(number, result.clone());
        }
    }

    /// Ends the join waiters of one handle, while other handles keep the topic.
    pub(super) fn end_joins_of(&mut self, topic: &Topic, interest: InterestId) {
        let Some(audience) = self.topics.get_mut(topic) else { return };
        let of_handle = |(number, of): (&u64, &InterestId)| (*of == interest).then_some(*number);
        let numbers: Vec<u64> = audience.joins.iter().filter_map(of_handle).collect();
        for number in numbers {
            if let Some(audience) = self.topics.get_mut(topic) {
                audience.joins.remove(&number);
            }
            self.resolve_join(number, Err(JoinFailed::Ended(ChannelEnd::Left)));
        }
    }

    fn resolve_join(&mut self, number: u64, result: Result<(), JoinFailed>) {
        let id = WaiterId::Join(number);
        self.waiters.disarm(id);
        let Some(waiter) = self.waiters.get_mut(id) else { return };
        self.wakes.extend(waiter.take_waker());
        if let Some(join) = waiter.join() {
            join.result = Some(result);
        }
    }

    fn set_obstacle(&mut self, topic: &Topic, obstacle: &JoinObstacle) {
        let Some(audience) = self.topics.get(topic) else { return };
        for number in audience.joins.keys() {
            let waiter = self.waiters.get_mut(WaiterId::Join(*number));
            if let Some(join) = waiter.and_then(Waiter::join) {
                join.last = Some(obstacle.clone());
            }
        }
    }

    /// Ends every waiter whose deadline has passed. The future of a join then releases its
    /// interest.
    pub(super) fn expire_waiters(&mut self, now: Time) {
        while let Some(id) = self.waiters.pop_expired(now) {
            let Some(waiter) = self.waiters.get_mut(id) else { continue };
            self.wakes.extend(waiter.take_waker());
            if let Wait::CatchUp(subscriber) = &waiter.wait {
                if let Some(subscriber) = subscriber.upgrade() {
                    subscriber.begin();
                    let mut slot = subscriber.lock();
                    slot.mailbox.replay_timed_out();
                    self.wakes.extend(slot.parked.take());
                    drop(slot);
                    let messages = Vec::new();
                    self.discarded.push(Discarded::Missed(Missed { subscriber, messages }));
                }
                continue;
            }
            let (Some(join), WaiterId::Join(number)) = (waiter.join(), id) else { continue };
            join.result = Some(Err(JoinFailed::Deadline { last: join.last.take() }));
            if let Some(audience) = self.topics.get_mut(&join.topic) {
                audience.joins.remove(&number);
            }
        }
    }

    /// Removes the topic's entry if it has no waiters, no subscribers and no handles. A handle may ask for
    /// the presence log at any time.
    pub(super) fn remove_topic_if_unused(&mut self, topic: &Topic) {
        let empty =
            |audience: &Audience| audience.joins.is_empty() && audience.mailboxes.is_empty();
        let is_unused = self.topics.get(topic).is_some_and(|audience| empty(audience));
        if is_unused && self.socket.interests(topic) == 0 {
            self.remove_topic(topic);
        }
    }
}

/// # Pushes, leaves and the state of the connection
impl State {
    pub(super) fn await_push(&mut self, push: PushId, waker: Option<Waker>) {
        self.waiters.register(WaiterId::Push(push), Wait::Push(PushWait::default()), waker);
    }

    /// Called when a push has ended, which may be an attempt of a push that is repeated.
    #[inline]
    fn attempt_ended(&mut self, id: PushId, outcome: &PushOutcome) {
        // Most pushes are not repeated.
        if self.repeats.pushes.is_empty() {
            return;
        }
        let Some((interest, mut repeat)) = self.repeats.pushes.remove(&id) else { return };
        let again = repeat.ended(self.now, outcome.clone()) == AfterAttempt::Again;
        if again && self.socket.is_interested(interest) {
            self.repeats.waiting.insert(id, interest);
        }
    }

    /// Keeps the outcome of a push until its future takes it. A future that is not polled keeps its
    /// reply's read buffer alive. Once the outcomes exceed the bound of a mailbox, further
    /// responses are copied out of their buffers.
    fn finish_push(&mut self, id: PushId, mut outcome: PushOutcome) {
        let Some(waiter) = self.waiters.get_mut(WaiterId::Push(id)) else { return };
        let mut kept = 0;
        if let PushOutcome::Reply(reply) = &mut outcome {
            let names = reply.status.as_bytes().len();
            let load = self.read_buffer.load(weight(names, &reply.response));
            kept = load.kept;
            let full = self.replies_kept + kept > self.socket.config().mailbox_bytes_max;
            // A large response that is the only one is not copied.
            if full && (self.replies_kept > 0 || load.is_small()) {
                (reply.status, reply.response) = compact(&reply.status, &reply.response);
                kept = 0;
            }
            self.replies_kept += kept;
        }
        if let Wait::Push(wait) = &mut waiter.wait {
            wait.outcome = Some(outcome);
            wait.kept = kept;
        }
        self.wakes.extend(waiter.take_waker());
    }

    /// Takes the outcome of a push and removes its waiter.
    pub(super) fn push_outcome(&mut self, push: PushId) -> Result<PushOutcome, WaiterId> {
        match self.waiters.take_push(push) {
            Some(Ok((outcome, kept))) => {
                self.replies_kept -= kept;
                Ok(outcome)
            }
            Some(Err(id)) => Err(id),
            None => Ok(PushOutcome::Cancelled),
        }
    }

    /// Removes the waiter of a push, which the caller drops after the lock is released.
    #[must_use = "drop a waiter after the lock is released"]
    pub(super) fn remove_push(&mut self, push: PushId) -> Option<Waiter> {
        let waiter = self.waiters.remove(WaiterId::Push(push))?;
        if let Wait::Push(wait) = &waiter.wait {
            self.replies_kept -= wait.kept;
        }
        Some(waiter)
    }

    pub(super) fn await_leave(&mut self, topic: &Topic) -> WaiterId {
        let id = WaiterId::Leave(self.waiters.mint());
        let leave = Wait::Leave { topic: topic.clone(), outcome: None };
        self.waiters.register(id, leave, None);
        id
    }

    /// The outcome of a leave. The waiter stays registered until its future is dropped.
    pub(super) fn leave_outcome(&mut self, id: WaiterId) -> Result<LeaveOutcome, WaiterId> {
        match self.waiters.get_mut(id).map(|waiter| &waiter.wait) {
            Some(Wait::Leave { outcome, .. }) => (*outcome).ok_or(id),
            _ => Ok(LeaveOutcome::Local),
        }
    }

    fn finish_leaves(&mut self, topic: Option<&Topic>, ended: LeaveOutcome) {
        for waiter in self.waiters.leaves() {
            let Wait::Leave { topic: of, outcome } = &mut waiter.wait else { continue };
            if topic.is_none_or(|topic| topic == of) && outcome.is_none() {
                *outcome = Some(ended);
                self.wakes.extend(waiter.take_waker());
            }
        }
    }

    /// Registers a waiter for changes of the connection's state.
    pub(super) fn await_status(&mut self) -> WaiterId {
        let id = WaiterId::Status(self.waiters.mint());
        self.waiters.register(id, Wait::Status, None);
        id
    }
}

/// The default time from the call of a join to the server's ok.
pub(super) const JOIN_DEADLINE: Duration = Duration::from_secs(30);
