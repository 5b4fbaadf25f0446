//! The subscribers of a connection: mailboxes of channels and queues of signals.

use core::fmt;
use core::task::{Context, Poll};
use std::collections::VecDeque;
use std::sync::Arc;

use super::catch_up::{CatchUpReader, Follower, Part, Positions};
use super::mailbox::{Entry, Item, Limits, Mailbox, MailboxOptions};
use super::messages::{ChannelEvent, Message, StreamEnd};
use super::presence::{LOGS_BYTES_MAX, Logged, PresenceKind, PresenceLog};
use super::signals::ClientEvent;
use super::signals::SignalQueue;
use super::state::{Discarded, Missed, State, apply};
use super::waiters::{Parked, Task, Wait, WaiterId, poll_parked, poll_parking};
use crate::catch_up::Cursor;
use crate::config::join_params::JoinParams;
use crate::event::cause::{ChannelEnd, Interruption};
use crate::event::signal::Signal;
use crate::id::InterestId;
use crate::socket::ChannelStatus;
use crate::sync::{Mutex, MutexGuard};
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// A mailbox, with the topic and the interest that it belongs to.
///
/// It has its own lock, so that a consumer that reads queued messages does not contend for the lock
/// of the state. Code that takes both locks takes the lock of the state first.
pub(super) struct Subscriber {
    topic: Topic,
    interest: InterestId,
    /// The messages that the mailbox takes.
    filter: Filter,
    /// The consumer, if it catches up.
    following: Option<Following>,
    slot: Mutex<Slot>,
}

/// A consumer that catches up.
struct Following {
    follower: Arc<Follower>,
    /// Whether the consumer begins on a channel that is already joined, and has no position.
    live: bool,
    /// The waiter whose deadline is that of the replay.
    waiter: WaiterId,
}

/// A filter of messages by event. Lifecycle events always pass.
enum Filter {
    All,
    Presence,
    Events(Box<[String]>),
}

impl Filter {
    /// Whether a message of `event` passes. `is_presence` is true for the events of
    /// Phoenix.Presence.
    #[inline]
    fn accepts(&self, message: &Message, is_presence: bool) -> bool {
        match self {
            Self::All => true,
            Self::Presence => is_presence,
            Self::Events(events) => events.iter().any(|of| message.event == **of),
        }
    }
}

/// A mailbox, with the waker of its reader.
pub(super) struct Slot {
    pub(super) mailbox: Mailbox,
    pub(super) parked: Parked,
}

impl Subscriber {
    /// Takes the lock. No application code runs under it, so a panic cannot
    /// leave the mailbox inconsistent.
    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock()
    }

    /// The position of a consumer that catches up.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        self.following.as_ref().map(|following| following.follower.cursor())
    }

    /// Called when the replay of a consumer that catches up did not end in time.
    pub(super) fn begin(&self) {
        if let Some(following) = &self.following {
            following.follower.begin();
        }
    }

    /// Makes the reader of a consumer that catches up.
    pub(super) fn reader(&self) -> Option<Box<CatchUpReader>> {
        let Following { follower, live, .. } = self.following.as_ref()?;
        let bounds = self.lock().mailbox.bounds();
        let reader = CatchUpReader::new(Arc::clone(follower), self.topic.clone(), bounds, *live);
        Some(Box::new(reader))
    }

    /// Reports those of the dropped messages that no replay brings. Calls code of the application, so no
    /// lock may be held.
    pub(super) fn report_missed(&self, missed: &[Message]) {
        let Some(following) = self.following.as_ref().filter(|_| !missed.is_empty()) else {
            return;
        };
        let lost = following.follower.missed(missed);
        let mut slot = self.lock();
        slot.mailbox.report_missed(lost);
        let waker = slot.parked.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Polls for the next item of a consumer that catches up.
    pub(super) fn poll_item(&self, cx: &Context<'_>) -> Poll<Item> {
        poll_parked(cx, |task| {
            let mut slot = self.lock();
            match slot.mailbox.next_item() {
                Some(item) => Poll::Ready(item),
                None => slot.parked.park(task),
            }
        })
    }

    /// Drops everything that is queued, and the waker of the reader, because the stream has ended or was
    /// dropped. The handle may live on.
    pub(super) fn clear(&self) {
        let mut slot = self.lock();
        let cleared = (slot.mailbox.take_queue(), slot.parked.take());
        drop(slot);
        drop(cleared);
    }

    /// Whether the channel must be joined again; see [`State::rejoin_after_loss`].
    #[cold]
    pub(super) fn needs_join(&self) -> bool {
        self.lock().mailbox.needs_join()
    }

    /// Takes the next event, if there is one, without registering a waker.
    pub(super) fn take_event(&self) -> Option<ChannelEvent> {
        self.lock().mailbox.next()
    }

    /// Polls for the next event. Messages that follow it are moved to [`Ahead::prefetched`], which
    /// must be empty.
    #[inline]
    pub(super) fn poll_events(&self, ahead: &mut Ahead, cx: &Context<'_>) -> Poll<ChannelEvent> {
        let Ahead { prefetched, empty } = ahead;
        let expects_none = *empty;
        let look = |task: &mut Task<'_>| {
            let mut slot = self.lock();
            slot.mailbox.prefetch(prefetched);
            let message = match prefetched.pop_front() {
                Some(entry) => Some(entry.into_message()),
                None => slot.mailbox.next_message(),
            };
            let polled = match message {
                Some(message) => Poll::Ready(ChannelEvent::Message(message)),
                None => slot.poll(task),
            };
            *empty = polled.is_ready() && slot.mailbox.is_empty();
            polled
        };
        let polled = if expects_none { poll_parking(cx, look) } else { poll_parked(cx, look) };
        if polled.is_pending() && prefetched.capacity() > 0 {
            // An idle consumer keeps no capacity.
            *prefetched = VecDeque::new();
        }
        polled
    }

    /// Polls for the next event, without prefetching.
    #[inline]
    pub(super) fn poll_event(&self, cx: &Context<'_>) -> Poll<ChannelEvent> {
        poll_parked(cx, |task| self.lock().poll(task))
    }
}

/// The state of a stream that reads a mailbox.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Messages that were taken out of the mailbox in advance.
    pub(super) prefetched: VecDeque<Entry>,
    /// Whether the last poll took the last message. Then the next poll probably finds none.
    empty: bool,
}

impl Slot {
    #[inline]
    pub(super) fn poll(&mut self, task: &mut Task<'_>) -> Poll<ChannelEvent> {
        if let Some(event) = self.mailbox.next() {
            return Poll::Ready(event);
        }
        self.parked.park(task)
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// # Mailboxes
impl State {
    /// Adds a mailbox that gets every event of the topic from now on. If the handle's interest has
    /// ended, the mailbox is already closed, even if other handles want the topic.
    pub(super) fn add_mailbox(
        &mut self,
        topic: &Topic,
        interest: InterestId,
        options: MailboxOptions,
    ) -> Arc<Subscriber> {
        self.add_subscriber(topic, interest, options, Filter::All, None, None)
    }

    /// Adds a mailbox whose consumer catches up, and adds its position to the parameters of every further
    /// join of the topic. If the topic is joined already and the consumer has a position, the topic is
    /// joined again.
    pub(super) fn add_follower(
        &mut self,
        now: Time,
        topic: &Topic,
        interest: InterestId,
        options: MailboxOptions,
        follower: Arc<Follower>,
    ) -> Arc<Subscriber> {
        let audience = self.topics.get_or_default(topic.clone());
        let positions = Arc::clone(audience.positions.get_or_insert_default());
        if positions.add(Arc::clone(&follower)) {
            self.extend_params(now, topic, positions);
        }
        let joined = self.socket.channel_status(topic) == ChannelStatus::Joined;
        let live = joined && follower.cursor().position().is_none();
        if live {
            follower.begin();
        }
        let waiter = WaiterId::CatchUp(self.waiters.mint());
        let following = Following { follower, live, waiter };
        let subscriber =
            self.add_subscriber(topic, interest, options, Filter::All, None, Some(following));
        let waiting = Wait::CatchUp(Arc::downgrade(&subscriber));
        self.waiters.register(waiter, waiting, None);
        if joined && !live {
            self.rejoin(now, topic);
        }
        subscriber
    }

    /// Adds the positions of consumers that catch up to the parameters of a topic.
    fn extend_params(&mut self, now: Time, topic: &Topic, positions: Arc<Positions>) {
        let Some(params) = self.socket.join_params(topic).cloned() else { return };
        let params = params.extended(Arc::new(move |params| positions.add_to(params)));
        self.replace_params(now, topic, params);
    }

    /// Replaces the parameters of a wanted topic by equivalent ones, which cannot fail.
    fn replace_params(&mut self, now: Time, topic: &Topic, params: JoinParams) {
        let set = apply!(self, now, SetJoinParams { topic: topic.clone(), params: params.clone() });
        if set.is_ok() {
            self.keep_params(topic.clone(), params);
        }
    }

    /// Called when a consumer that catches up ends: joins no longer have its position.
    pub(super) fn end_follower(&mut self, now: Time, subscriber: &Subscriber) {
        let Some(Following { follower, waiter, .. }) = &subscriber.following else { return };
        // This waiter has no waker.
        drop(self.waiters.remove(*waiter));
        let topic = &subscriber.topic;
        let Some(audience) = self.topics.get_mut(topic) else { return };
        if !audience.positions.as_ref().is_some_and(|positions| positions.remove(follower)) {
            return;
        }
        audience.positions = None;
        if let Some(params) = self.socket.join_params(topic).cloned() {
            self.replace_params(now, topic, params.into_base());
        }
    }

    /// Joins the channel again, because a consumer that catches up lacks messages. Does nothing if the
    /// channel was joined since the consumer's last join, because the replay of that join brings them, or if
    /// the mailbox has ended, because it takes no replay.
    pub(super) fn rejoin_to_catch_up(&mut self, now: Time, subscriber: &Subscriber, joins: u64) {
        let helps = {
            let mailbox = &subscriber.lock().mailbox;
            mailbox.joins() == joins && mailbox.end().is_none()
        };
        if helps {
            self.rejoin_for(now, subscriber);
        }
    }

    /// Joins the channel again for a consumer that lacks messages. Does nothing if its handle has ended,
    /// because the topic then belongs to other handles.
    pub(super) fn rejoin_for(&mut self, now: Time, subscriber: &Subscriber) {
        if self.socket.is_interested(subscriber.interest) {
            self.rejoin(now, &subscriber.topic);
        }
    }

    /// Notifies the mailboxes of a topic of a join.
    pub(super) fn notify_joined(&mut self, topic: &Topic, response: &Payload, first: bool) {
        let Some(audience) = self.topics.get(topic) else { return };
        for subscriber in &audience.mailboxes {
            let mut slot = subscriber.lock();
            if let Some(following) = &subscriber.following {
                let follower = &following.follower;
                if follower.contract.events.is_none() {
                    follower.begin();
                }
                slot.mailbox.joined(response.clone(), first, follower.asked());
                self.waiters.await_replay(following.waiter, follower, self.now);
            } else if !first {
                slot.mailbox.resumed(response.clone());
            } else {
                continue;
            }
            self.wakes.extend(slot.parked.take());
        }
    }

    /// Notifies the mailboxes of a topic of the loss of its join.
    pub(super) fn notify_interrupted(&mut self, topic: &Topic, cause: &Interruption) {
        self.notify(topic, |mailbox| mailbox.interrupted(cause.clone()));
        let Some(audience) = self.topics.get(topic) else { return };
        for following in audience.mailboxes.iter().filter_map(|it| it.following.as_ref()) {
            self.waiters.disarm(following.waiter);
        }
    }

    /// Adds a mailbox that gets these events from now on, and a copy of those queued in `first`,
    /// which is not changed.
    pub(super) fn add_mailbox_of(
        &mut self,
        (topic, interest): (&Topic, InterestId),
        events: Box<[String]>,
        options: MailboxOptions,
        first: Option<&Subscriber>,
    ) -> Arc<Subscriber> {
        self.add_subscriber(topic, interest, options, Filter::Events(events), first, None)
    }

    fn add_subscriber(
        &mut self,
        topic: &Topic,
        interest: InterestId,
        options: MailboxOptions,
        filter: Filter,
        first: Option<&Subscriber>,
        following: Option<Following>,
    ) -> Arc<Subscriber> {
        let config = self.socket.config();
        let limits = Limits {
            messages: options.messages.unwrap_or(config.mailbox_messages_max.get()),
            bytes: options.bytes.unwrap_or(config.mailbox_bytes_max),
            policy: options.policy,
        };
        let mut mailbox = match following {
            Some(_) => Mailbox::catching_up(limits),
            None => Mailbox::new(limits),
        };
        if let Some(first) = first {
            let wanted = |message: &Message| filter.accepts(message, false);
            first.lock().mailbox.copy_to(&mut mailbox, wanted);
            self.discard_messages(mailbox.take_discarded());
        }
        let wanted = self.socket.is_interested(interest);
        if !wanted {
            mailbox.close(StreamEnd::Gone);
        }
        let slot = Mutex::new(Slot { mailbox, parked: Parked::new() });
        let topic_of = topic.clone();
        let subscriber = Subscriber { topic: topic_of, interest, filter, following, slot };
        let subscriber = Arc::new(subscriber);
        if wanted {
            let audience = self.topics.get_or_default(topic.clone());
            if audience.mailboxes.is_empty() {
                // A vector begins with a capacity of four, and most topics have one subscriber.
                audience.mailboxes.reserve_exact(1);
            }
            audience.mailboxes.push(Arc::clone(&subscriber));
        }
        subscriber
    }

    /// Adds a mailbox for the presence messages of the topic. Also returns the log of presence
    /// messages since the last join; if it is incomplete, the channel is joined again.
    pub(super) fn add_presence(
        &mut self,
        now: Time,
        topic: &Topic,
        interest: InterestId,
    ) -> (Arc<Subscriber>, Vec<Logged>) {
        let subscriber = self.add_subscriber(
            topic,
            interest,
            MailboxOptions::new(),
            Filter::Presence,
            None,
            None,
        );
        subscriber.lock().mailbox.begin();
        let log = self.topics.get(topic).and_then(|audience| audience.presence.messages());
        let log = log.map(<[Logged]>::to_vec);
        if log.is_none() {
            self.rejoin_for(now, &subscriber);
        }
        (subscriber, log.unwrap_or_default())
    }

    /// Marks the mailbox as having a reader.
    pub(super) fn read_mailbox(&mut self, subscriber: &Subscriber) {
        let mut slot = subscriber.lock();
        slot.mailbox.begin();
        self.mailbox_drops += slot.mailbox.take_dropped();
        self.discard_messages(slot.mailbox.take_discarded());
    }

    /// Joins the channel again for a reader that has seen the loss, if the mailbox still requires that. A
    /// join may have followed in the meantime.
    pub(super) fn rejoin_after_loss(&mut self, now: Time, subscriber: &Subscriber) {
        let needs_join = subscriber.lock().mailbox.needs_join();
        if needs_join {
            self.rejoin_for(now, subscriber);
        }
    }

    /// Joins the channel again. Does nothing for a topic that is not wanted.
    pub(super) fn rejoin(&mut self, now: Time, topic: &str) {
        let _ = apply!(self, now, Rejoin { topic: topic.into() });
    }

    /// Delivers a message to the mailboxes of its topic whose filter it passes.
    pub(super) fn deliver(&mut self, message: Message) {
        let Some(audience) = self.topics.get_mut(&message.topic) else { return };
        let presence = PresenceKind::of(&message.event);
        // Only a presence message can make the logs exceed their bound.
        let logged = presence.map(|_| message.topic.clone());
        if let Some(kind) = presence {
            let before = audience.presence.weight();
            audience.presence.record(kind, &message.payload);
            self.logs_weight = self.logs_weight - before + audience.presence.weight();
        }
        let presence = presence.is_some();
        let load = self.read_buffer.load(message.weight());
        let (drops, wakes) = (&mut self.mailbox_drops, &mut self.wakes);
        let discarded = &mut self.discarded;
        let (waiters, now) = (&mut self.waiters, self.now);
        let mut overflowed = Vec::new();
        let mut deliver_to = |subscriber: &Arc<Subscriber>, message: Message| {
            let mut slot = subscriber.lock();
            if let Some(Following { follower, waiter, .. }) = &subscriber.following {
                match follower.part(message.event()) {
                    // The replay of a join before this consumer, for others.
                    Some(_) if slot.mailbox.joins() == 0 => return,
                    Some(Part::Part) => waiters.await_replay(*waiter, follower, now),
                    Some(Part::End) => {
                        follower.begin();
                        waiters.disarm(*waiter);
                    }
                    None => {}
                }
            }
            slot.mailbox.message(message, load);
            if slot.mailbox.has_losses() {
                *drops += slot.mailbox.take_dropped();
                let messages = slot.mailbox.take_discarded();
                if !messages.is_empty() {
                    discarded.push(Discarded::Messages(messages));
                }
                let messages = slot.mailbox.take_missed();
                if !messages.is_empty() {
                    let subscriber = Arc::clone(subscriber);
                    discarded.push(Discarded::Missed(Missed { subscriber, messages }));
                }
                if subscriber.following.is_some() && slot.mailbox.end().is_some() {
                    overflowed.push(Arc::clone(subscriber));
                }
            }
            wakes.extend(slot.parked.take());
        };
        // The last mailbox gets the message itself instead of a clone.
        let Some((last, others)) = audience.mailboxes.split_last() else {
            self.bound_logs(logged.as_ref());
            return;
        };
        for other in others.iter().filter(|other| other.filter.accepts(&message, presence)) {
            deliver_to(other, message.clone());
        }
        if last.filter.accepts(&message, presence) {
            deliver_to(last, message);
        }
        for subscriber in overflowed {
            // Its stream has ended, even if the program does not read it to its end.
            self.end_follower(now, &subscriber);
        }
        self.bound_logs(logged.as_ref());
    }

    /// Starts the presence log of a topic that was joined, if it has a handle.
    pub(super) fn restart_log(&mut self, topic: &Topic) {
        if self.socket.interests(topic) > 0 {
            self.topics.get_or_default(topic.clone());
        }
        self.change_log(topic, PresenceLog::restart);
    }

    /// Changes the presence log of a topic, and updates the total weight.
    pub(super) fn change_log(&mut self, topic: &str, change: impl FnOnce(&mut PresenceLog)) {
        let Some(audience) = self.topics.get_mut(topic) else { return };
        self.logs_weight -= audience.presence.weight();
        change(&mut audience.presence);
        self.logs_weight += audience.presence.weight();
    }

    /// Keeps the logs within their bound by stopping all but the one that grew last. A stream is
    /// usually made right after a join, so the newest log is the most useful one.
    fn bound_logs(&mut self, grown: Option<&Topic>) {
        let Some(grown) = grown.filter(|_| self.logs_weight > LOGS_BYTES_MAX) else { return };
        self.topics.for_each_mut(|topic, audience| {
            if topic != grown {
                audience.presence.stop();
            }
        });
        self.logs_weight = self.topics.get(grown).map_or(0, |of| of.presence.weight());
    }

    /// Drops every message in a mailbox. The lifecycle events and the end stay. Returns the number of
    /// messages whose loss the consumer has not seen yet.
    pub(super) fn clear_mailbox(&mut self, subscriber: &Subscriber) -> u64 {
        let mut slot = subscriber.lock();
        let lost = slot.mailbox.clear();
        self.mailbox_drops += slot.mailbox.take_dropped();
        self.discard_messages(slot.mailbox.take_discarded());
        lost
    }

    /// Ends the waiters and the mailboxes of one handle, while other handles keep the topic.
    pub(super) fn detach(&mut self, now: Time, topic: &Topic, interest: InterestId) {
        self.end_joins_of(topic, interest);
        self.end_waiting_pushes(topic);
        let of_handle = |it: &&Arc<Subscriber>| it.interest == interest && it.following.is_some();
        let mailboxes = self.topics.get(topic).map(|audience| audience.mailboxes.iter());
        let follower = mailboxes.and_then(|mut mailboxes| mailboxes.find(of_handle).cloned());
        if let Some(follower) = follower {
            self.end_follower(now, &follower);
        }
        let Some(audience) = self.topics.get_mut(topic) else { return };
        audience.mailboxes.retain(|subscriber| {
            let stays = subscriber.interest != interest;
            if !stays {
                let mut slot = subscriber.lock();
                slot.mailbox.close(StreamEnd::Channel(ChannelEnd::Left));
                self.wakes.extend(slot.parked.take());
            }
            stays
        });
        self.remove_topic_if_unused(topic);
    }

    pub(super) fn drop_mailbox(&mut self, subscriber: &Arc<Subscriber>) {
        let topic = &subscriber.topic;
        if let Some(audience) = self.topics.get_mut(topic) {
            audience.mailboxes.retain(|other| !Arc::ptr_eq(other, subscriber));
        }
        self.remove_topic_if_unused(topic);
    }
}

/// # Signals
impl State {
    pub(super) fn add_signals(&mut self) -> WaiterId {
        let config = self.socket.config();
        self.add_signals_up_to(config.mailbox_messages_max.get(), config.mailbox_bytes_max)
    }

    pub(super) fn add_signals_up_to(&mut self, signals: usize, bytes: usize) -> WaiterId {
        let queue = Box::new(SignalQueue::new(signals, bytes));
        let id = WaiterId::Signals(self.waiters.mint());
        self.waiters.register(id, Wait::Signals(queue), None);
        id
    }

    /// The next signal of a stream; `None` at the end.
    pub(super) fn next_signal(&mut self, id: WaiterId) -> Result<Option<ClientEvent>, WaiterId> {
        let waiter = self.waiters.get_mut(id).map(|waiter| &mut waiter.wait);
        let Some(Wait::Signals(queue)) = waiter else { return Ok(None) };
        match queue.next() {
            None if !self.driver_gone => Err(id),
            event => Ok(event),
        }
    }

    /// Whether a stream of signals has ended.
    pub(super) fn signals_ended(&mut self, id: WaiterId) -> bool {
        let waiter = self.waiters.get_mut(id).map(|waiter| &waiter.wait);
        match waiter {
            Some(Wait::Signals(queue)) => self.driver_gone && queue.is_empty(),
            _ => true,
        }
    }

    pub(super) fn record(&mut self, signal: &Signal) {
        for waiter in self.waiters.signals() {
            self.wakes.extend(waiter.take_waker());
            let Wait::Signals(queue) = &mut waiter.wait else { continue };
            let (drops, dropped) = queue.push(signal, &self.read_buffer);
            self.mailbox_drops += drops;
            if !dropped.is_empty() {
                self.discarded.push(Discarded::Signals(dropped));
            }
        }
    }
}
