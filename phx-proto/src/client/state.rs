//! What handles and driver share: the core, and who waits for what.
//!
//! ```text
//!   handle ──command──▶ ┌──────── State ────────┐ ◀──input── driver
//!                       │ Socket ──▶ drain()    │
//!                       │   signals ─▶ waiters, │ ──todo──▶ driver: Connect, Close, Abort
//!   handle ◀──wake───── │   mailboxes           │
//!                       └───────────────────────┘
//! ```
//!
//! There is no command channel: a handle locks, calls the core, and has its answer, the payload
//! handed back included. So dropping a handle or a future is a plain synchronous call. After
//! every command and input the core's facts are drained, so no fact of the past can meet a waiter
//! of the present. Frames stay in the core until the driver has a transport that takes them.
//!
//! A mailbox has a lock of its own, which a consumer takes alone and the driver takes inside this one.
//!
//! Wakers are collected under the lock and woken after it.

use core::fmt;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::{JoinFailed, JoinObstacle};
use super::mailbox::Mailbox;
use super::messages::{Message, StreamEnd};
use super::presence::PresenceLog;
use super::shutdown::Patient;
use super::signals::SignalQueue;
use super::subscribers::Subscriber;
use crate::collections::ordered::Ordered;
use crate::collections::table::Table;
use crate::config::join_params::JoinParams;
use crate::event::action::Action;
use crate::event::cause::{Cause, ChannelEnd, LeaveOutcome, PushOutcome};
use crate::event::input::Ended;
use crate::event::signal::Signal;
use crate::id::{ConnectionId, InterestId, PushId};
use crate::recording::{RecordedSocket, Tape};
use crate::socket::Status;
use crate::socket::channel::ChannelStatus;
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::Frame;

/// The lock, and the clock that every command is stamped with.
pub(super) struct Shared {
    clock: Box<dyn Fn() -> Time + Send + Sync>,
    state: Mutex<State>,
    /// Where a recording goes, if there is one.
    tape: Option<Arc<Tape>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// `seed` is for the tables whose keys somebody else may choose.
    pub(super) fn new(
        socket: RecordedSocket,
        seed: u64,
        clock: impl Fn() -> Time + Send + Sync + 'static,
    ) -> Arc<Self> {
        let tape = socket.tape();
        Arc::new(Self { clock: Box::new(clock), state: Mutex::new(State::new(socket, seed)), tape })
    }

    /// A command of a handle: the driver is woken to carry out what comes of it.
    pub(super) fn command<T>(&self, command: impl FnOnce(&mut State, Time) -> T) -> T {
        let now = self.now();
        self.locked(|state| {
            let answer = command(state, now);
            state.drain(now);
            state.wakes.extend(state.driver.take());
            answer
        })
    }

    /// An input from the driver.
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

    /// A look that makes the core do nothing.
    pub(super) fn peek<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        self.locked(look)
    }

    /// Many inputs from the driver under one lock. `work` drains after each of them, as
    /// [`input`](Self::input) does. `wakers` is the room for those who are woken, kept by the caller
    /// from one batch to the next.
    pub(super) fn batch(&self, wakers: &mut Vec<Waker>, work: impl FnOnce(&mut State)) {
        self.locked(|state| {
            core::mem::swap(&mut state.wakes.more, wakers);
            work(state);
            core::mem::swap(&mut state.wakes.more, wakers);
        });
        wakers.drain(..).for_each(Waker::wake);
    }

    fn locked<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let answer = work(&mut state);
        let wakes = core::mem::take(&mut state.wakes);
        let discarded = core::mem::take(&mut state.discarded);
        #[cfg(feature = "tracing")]
        let trace = {
            let late = state.socket.late_replies();
            state.trace.late_replies(late);
            state.trace.take(|| self.now())
        };
        drop(state);
        if let Some(tape) = &self.tape {
            tape.flush();
        }
        #[cfg(feature = "tracing")]
        trace.tell();
        // Functions of the application: what they hold may be handles of this very client.
        drop(discarded);
        wakes.wake();
        answer
    }

    /// The core changes nothing before a user's function has returned, so a panic of one leaves
    /// nothing half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything behind the lock.
pub(super) struct State {
    pub(super) socket: RecordedSocket,
    /// What the driver has to carry out, in order.
    pub(super) todo: VecDeque<Action>,
    pub(super) driver: Option<Waker>,
    pub(super) driver_gone: bool,
    /// The last handle is gone.
    pub(super) abandoned: bool,
    pub(super) wakes: Wakes,
    pub(super) next_id: u64,
    /// Why the connection or attempt before the present one ended.
    pub(super) last_cause: Option<Cause>,
    /// The parameters of every topic that was joined here, so that the core's are never the last
    /// ones and no function of the application is dropped under the lock.
    params: Table<JoinParams>,
    discarded: Vec<JoinParams>,
    /// Topics to be joined anew, because a mailbox with that policy overflowed.
    pub(super) resyncs: Vec<Topic>,
    pub(super) topics: Table<Audience>,
    joins: BTreeMap<InterestId, Box<JoinWaiter>>,
    deadlines: BTreeSet<(Time, InterestId)>,
    pushes: Ordered<PushId, Slot<Option<PushOutcome>>>,
    leaves: BTreeMap<u64, (Topic, Slot<Option<LeaveOutcome>>)>,
    pub(super) signals: BTreeMap<u64, Box<Slot<SignalQueue>>>,
    watchers: BTreeMap<u64, Waker>,
    pub(super) patients: BTreeMap<u64, Patient>,
    #[cfg(feature = "tracing")]
    trace: super::trace::Trace,
    /// Messages that some mailbox had no room for.
    pub(super) mailbox_drops: u64,
}

/// Whom to wake once the lock is gone. One needs no memory, as that is what there is nearly always.
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

    fn wake(self) {
        if let Some(first) = self.first {
            first.wake();
            self.more.into_iter().for_each(Waker::wake);
        }
    }
}

/// Who wants to hear of a topic.
#[derive(Default)]
pub(super) struct Audience {
    pub(super) joins: BTreeSet<InterestId>,
    pub(super) mailboxes: Vec<Arc<Subscriber>>,
    pub(super) presence: PresenceLog,
}

/// Something that one consumer waits for.
pub(super) struct Slot<T> {
    pub(super) value: T,
    pub(super) waker: Option<Waker>,
}

struct JoinWaiter {
    topic: Topic,
    deadline: Time,
    last: Option<JoinObstacle>,
    slot: Slot<Option<Result<(), JoinFailed>>>,
}

impl<T> Slot<T> {
    pub(super) const fn new(value: T) -> Self {
        Self { value, waker: None }
    }

    pub(super) fn park(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

impl State {
    fn new(socket: RecordedSocket, seed: u64) -> Self {
        Self {
            socket,
            todo: VecDeque::new(),
            driver: None,
            driver_gone: false,
            abandoned: false,
            wakes: Wakes::default(),
            next_id: 0,
            last_cause: None,
            params: Table::seeded(seed),
            discarded: Vec::new(),
            resyncs: Vec::new(),
            topics: Table::seeded(seed),
            joins: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            pushes: Ordered::new(),
            leaves: BTreeMap::new(),
            signals: BTreeMap::new(),
            watchers: BTreeMap::new(),
            patients: BTreeMap::new(),
            #[cfg(feature = "tracing")]
            trace: super::trace::Trace::new(),
            mailbox_drops: 0,
        }
    }

    /// The next thing for the driver to carry out. There rarely is one, so no room is kept for it.
    pub(super) fn next_todo(&mut self) -> Option<Action> {
        let action = self.todo.pop_front();
        if self.todo.is_empty() {
            self.todo = VecDeque::new();
        }
        action
    }

    /// Nobody can want anything of the connection any more, and it is over.
    pub(super) fn is_finished(&self) -> bool {
        self.abandoned
            && self.todo.is_empty()
            && matches!(self.socket.status(), Status::Closed | Status::Idle | Status::GaveUp { .. })
    }

    /// Has the driver woken by the next command.
    pub(super) fn listen(&mut self, cx: &Context<'_>) {
        if self.driver.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            self.driver = Some(cx.waker().clone());
        }
    }

    pub(super) const fn mint(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// # What the core says
impl State {
    /// Takes every fact out of the core. Frames are left: they are made when pulled.
    pub(super) fn drain(&mut self, now: Time) {
        while self.socket.has_actions() {
            match self.socket.poll_action(now) {
                Some(action) => self.act(action),
                None => break,
            }
            while let Some(topic) = self.resyncs.pop() {
                self.rejoin(now, &topic);
            }
        }
        if !self.patients.is_empty() {
            self.wake_patients();
        }
    }

    /// The next frame, with the connection it belongs to.
    pub(super) fn pull_frame(&mut self, now: Time) -> Option<(ConnectionId, Frame)> {
        loop {
            match self.socket.poll_action(now)? {
                Action::Send { id, frame } | Action::Join { id, frame, .. } => {
                    return Some((id, frame));
                }
                other => self.act(other),
            }
        }
    }

    /// Dispatches a signal, and leaves anything else to the driver.
    fn act(&mut self, action: Action) {
        match action {
            Action::Signal(signal) => self.dispatch(signal),
            Action::ReconnectAfter { .. } | Action::RejoinAfter { .. } => {}
            Action::Connect { .. }
            | Action::Close { .. }
            | Action::Abort { .. }
            | Action::Send { .. }
            | Action::Join { .. } => self.todo.push_back(action),
        }
    }

    fn dispatch(&mut self, signal: Signal) {
        if !self.signals.is_empty() {
            self.record(&signal);
        }
        #[cfg(feature = "tracing")]
        self.trace.record(&signal);
        match signal {
            Signal::Connecting { .. } | Signal::Connected { .. } => self.wake_watchers(),
            Signal::Disconnected { cause, .. } => {
                self.last_cause =
                    Some(cause.clone()).filter(|cause| *cause != Cause::LocalDisconnect);
                for waiter in self.joins.values_mut() {
                    waiter.last = Some(JoinObstacle::Disconnected(cause.clone()));
                }
                self.wake_watchers();
            }
            Signal::GaveUp { .. } | Signal::Closed => {
                self.finish_leaves(None, LeaveOutcome::Offline);
                self.wake_watchers();
            }
            Signal::Joined { topic, .. } => {
                self.restart_presence(&topic);
                self.resolve_joins(&topic, &Ok(()));
            }
            Signal::Resumed { topic, response } => {
                self.restart_presence(&topic);
                self.resolve_joins(&topic, &Ok(()));
                self.tell(&topic, |mailbox| mailbox.resumed(response.clone()));
            }
            Signal::JoinRejected { topic, rejection, last: true } => {
                self.resolve_joins(&topic, &Err(JoinFailed::Rejected(rejection)));
            }
            Signal::JoinRejected { topic, rejection, last: false } => {
                self.note(&topic, &JoinObstacle::Rejected(rejection));
            }
            Signal::JoinTimedOut { topic } => self.note(&topic, &JoinObstacle::TimedOut),
            Signal::Errored { topic, payload } => {
                self.note(&topic, &JoinObstacle::Crashed(payload));
            }
            Signal::Interrupted { topic, cause } => {
                if let Some(audience) = self.topics.get_mut(&topic) {
                    audience.presence.stop();
                }
                self.tell(&topic, |mailbox| mailbox.interrupted(cause.clone()));
            }
            Signal::Left { topic, outcome } => self.finish_leaves(Some(&topic), outcome),
            // Whoever heard of the topic was told when the leave was asked for; by now others
            // may wait to join it again.
            Signal::ChannelClosed { topic, cause: ChannelEnd::Left } => self.discard(&topic),
            Signal::ChannelClosed { topic, cause } => {
                self.discard(&topic);
                self.end_topic(&topic, &cause);
            }
            Signal::Message { topic, event, payload } => {
                self.deliver(topic, Message { event, payload });
            }
            Signal::PushEnded { id, outcome, .. } => {
                if let Some(slot) = self.pushes.get_mut(id) {
                    slot.value = Some(outcome);
                    self.wakes.extend(slot.waker.take());
                }
            }
            // As often as the core does it.
            Signal::HeartbeatAcked { .. } => self.pushes.give_back(),
            Signal::ProtocolError { .. } | Signal::Warning(_) => {}
        }
    }

    /// Holds on to the parameters of a topic for as long as the core may.
    pub(super) fn hold(&mut self, topic: Topic, params: JoinParams) {
        self.discarded.extend(self.params.insert(topic, params));
    }

    fn discard(&mut self, topic: &Topic) {
        self.discarded.extend(self.params.remove(topic));
    }

    /// The driver was dropped: nothing can happen any more, so everything that waits ends now.
    pub(super) fn end(&mut self, now: Time) {
        self.driver_gone = true;
        self.socket.disconnect(now);
        self.drain(now);
        if let Some(id) = self.socket.connection_id() {
            let message = "the driver was dropped".to_owned();
            self.socket.handle_closed(now, id, Ended::Lost { message });
        }
        self.drain(now);
        self.todo.clear();
        self.wake_watchers();
        for slot in self.signals.values_mut() {
            self.wakes.extend(slot.waker.take());
        }
    }

    /// Tells everybody who heard of a topic that it ended.
    pub(super) fn end_topic(&mut self, topic: &str, cause: &ChannelEnd) {
        let Some(topic) = self.topics.get_key_value(topic).map(|(topic, _)| topic.clone()) else {
            return;
        };
        self.resolve_joins(&topic, &Err(JoinFailed::Ended(cause.clone())));
        self.tell(&topic, |mailbox| mailbox.close(StreamEnd::Channel(cause.clone())));
        self.topics.remove(&topic);
    }

    fn restart_presence(&mut self, topic: &Topic) {
        if let Some(audience) = self.topics.get_mut(topic) {
            audience.presence.restart();
        }
    }

    fn tell(&mut self, topic: &Topic, mut tell: impl FnMut(&mut Mailbox)) {
        let Some(audience) = self.topics.get(topic) else { return };
        for subscriber in &audience.mailboxes {
            let mut slot = subscriber.lock();
            tell(&mut slot.value);
            self.wakes.extend(slot.waker.take());
        }
    }

    fn wake_watchers(&mut self) {
        self.wakes.extend(core::mem::take(&mut self.watchers).into_values());
    }
}

/// # Joins
impl State {
    /// Waits for a join that the core accepted, until `deadline`.
    pub(super) fn await_join(&mut self, id: InterestId, topic: &Topic, deadline: Time) {
        let joined = self.socket.channel_status(topic) == ChannelStatus::Joined;
        let slot = Slot::new(joined.then_some(Ok(())));
        let last = match self.socket.status() {
            Status::Waiting { cause, .. } => Some(JoinObstacle::Disconnected(cause)),
            _ => None,
        };
        let waiter = JoinWaiter { topic: topic.clone(), deadline, last, slot };
        self.joins.insert(id, Box::new(waiter));
        if !joined {
            self.deadlines.insert((deadline, id));
            self.topics.get_or_default(topic.clone()).joins.insert(id);
        }
    }

    pub(super) fn poll_join(
        &mut self,
        id: InterestId,
        cx: &Context<'_>,
    ) -> Poll<Result<(), JoinFailed>> {
        let Some(waiter) = self.joins.get_mut(&id) else {
            return Poll::Ready(Err(JoinFailed::Ended(ChannelEnd::Left)));
        };
        if let Some(result) = waiter.slot.value.take() {
            self.forget_join(id);
            return Poll::Ready(result);
        }
        waiter.slot.park(cx);
        Poll::Pending
    }

    pub(super) fn forget_join(&mut self, id: InterestId) {
        if let Some(waiter) = self.joins.remove(&id) {
            self.deadlines.remove(&(waiter.deadline, id));
            // A search tree keeps its last node, and most connections never join again.
            if self.joins.is_empty() {
                (self.joins, self.deadlines) = (BTreeMap::new(), BTreeSet::new());
            }
            if let Some(audience) = self.topics.get_mut(&waiter.topic) {
                audience.joins.remove(&id);
            }
            self.tidy(&waiter.topic);
        }
    }

    fn resolve_joins(&mut self, topic: &Topic, result: &Result<(), JoinFailed>) {
        let Some(audience) = self.topics.get_mut(topic) else { return };
        for id in core::mem::take(&mut audience.joins) {
            self.resolve_join(id, result.clone());
        }
    }

    fn resolve_join(&mut self, id: InterestId, result: Result<(), JoinFailed>) {
        if let Some(waiter) = self.joins.get_mut(&id) {
            self.deadlines.remove(&(waiter.deadline, id));
            waiter.slot.value = Some(result);
            self.wakes.extend(waiter.slot.waker.take());
        }
    }

    fn note(&mut self, topic: &Topic, obstacle: &JoinObstacle) {
        let Some(audience) = self.topics.get(topic) else { return };
        for id in &audience.joins {
            if let Some(waiter) = self.joins.get_mut(id) {
                waiter.last = Some(obstacle.clone());
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let join = self.deadlines.first().map(|(at, _)| *at);
        [join, self.next_patience()].into_iter().flatten().min()
    }

    /// Ends every join whose deadline has passed. Its future releases the interest.
    pub(super) fn expire_joins(&mut self, now: Time) {
        while let Some((at, id)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            self.deadlines.remove(&(at, id));
            if let Some(waiter) = self.joins.get_mut(&id) {
                let last = waiter.last.take();
                if let Some(audience) = self.topics.get_mut(&waiter.topic) {
                    audience.joins.remove(&id);
                }
                self.resolve_join(id, Err(JoinFailed::Deadline { last }));
            }
        }
    }

    /// An audience of nobody is not kept.
    pub(super) fn tidy(&mut self, topic: &Topic) {
        let empty =
            |audience: &Audience| audience.joins.is_empty() && audience.mailboxes.is_empty();
        if self.topics.get(topic).is_some_and(empty) {
            self.topics.remove(topic);
        }
    }
}

/// # Pushes, leaves and the state of the connection
impl State {
    pub(super) fn await_push(&mut self, id: PushId, waker: Waker) {
        self.pushes.insert(id, Slot { value: None, waker: Some(waker) });
    }

    pub(super) fn poll_push(&mut self, id: PushId, cx: &Context<'_>) -> Poll<PushOutcome> {
        let Some(slot) = self.pushes.get_mut(id) else {
            return Poll::Ready(PushOutcome::Cancelled);
        };
        if let Some(outcome) = slot.value.take() {
            self.pushes.remove(id);
            return Poll::Ready(outcome);
        }
        slot.park(cx);
        Poll::Pending
    }

    pub(super) fn forget_push(&mut self, id: PushId) -> bool {
        self.pushes.remove(id).is_some()
    }

    pub(super) fn await_leave(&mut self, topic: &Topic) -> u64 {
        let id = self.mint();
        self.leaves.insert(id, (topic.clone(), Slot::new(None)));
        id
    }

    pub(super) fn poll_leave(&mut self, id: u64, cx: &Context<'_>) -> Poll<LeaveOutcome> {
        let Some((_, slot)) = self.leaves.get_mut(&id) else {
            return Poll::Ready(LeaveOutcome::Local);
        };
        if let Some(outcome) = slot.value {
            self.leaves.remove(&id);
            return Poll::Ready(outcome);
        }
        slot.park(cx);
        Poll::Pending
    }

    pub(super) fn forget_leave(&mut self, id: u64) {
        self.leaves.remove(&id);
    }

    fn finish_leaves(&mut self, topic: Option<&Topic>, outcome: LeaveOutcome) {
        for (of, slot) in self.leaves.values_mut() {
            if topic.is_none_or(|topic| topic == of) && slot.value.is_none() {
                slot.value = Some(outcome);
                self.wakes.extend(slot.waker.take());
            }
        }
    }

    /// Calls `done` with the status now and after every change of the connection.
    pub(super) fn poll_status<T>(
        &mut self,
        watcher: &mut Option<u64>,
        cx: &Context<'_>,
        done: impl FnOnce(&Status, bool) -> Option<T>,
    ) -> Poll<T> {
        if let Some(answer) = done(&self.socket.status(), self.driver_gone) {
            if let Some(id) = watcher.take() {
                self.watchers.remove(&id);
            }
            return Poll::Ready(answer);
        }
        let id = *watcher.get_or_insert_with(|| self.mint());
        self.watchers.insert(id, cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn forget_watcher(&mut self, watcher: Option<u64>) {
        if let Some(id) = watcher {
            self.watchers.remove(&id);
        }
    }
}

/// How long a join may take from call to answer, unless said otherwise.
pub(super) const JOIN_DEADLINE: Duration = Duration::from_secs(30);
