//! The subscribers of a connection: mailboxes of channels and queues of signals.

use core::fmt;
use core::task::{Context, Poll};
use std::collections::VecDeque;
use std::sync::Arc;

use super::mailbox::{Entry, Limits, Mailbox, MailboxOptions};
use super::messages::{ChannelEvent, Message, StreamEnd};
use super::presence::{LOGS_BYTES_MAX, Logged, PresenceKind, PresenceLog};
use super::signals::ClientEvent;
use super::signals::SignalQueue;
use super::state::{Discarded, State, apply};
use super::waiters::{Parked, Task, Wait, WaiterId, poll_parked, poll_parking};
use crate::event::cause::ChannelEnd;
use crate::event::signal::Signal;
use crate::id::InterestId;
use crate::socket::ChannelStatus;
use crate::sync::{Mutex, MutexGuard};
use crate::time::Time;
use crate::topic::Topic;

/// A mailbox, with the topic and the interest that it belongs to.
///
/// It has its own lock, so that a consumer that reads queued messages does not contend for the lock
/// of the state. Code that takes both locks takes the lock of the state first.
pub(super) struct Subscriber {
    topic: Topic,
    interest: InterestId,
    /// The messages that the mailbox takes.
    filter: Filter,
    slot: Mutex<Slot>,
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
            let polled = match prefetched.pop_front() {
                Some(entry) => Poll::Ready(ChannelEvent::Message(entry.into_message())),
                None => slot.poll(task),
            };
            *empty = polled.is_ready() && slot.mailbox.is_empty();
            polled
        };
        let polled = if expects_none { poll_parking(cx, look) } else { poll_parked(cx, look) };
        if polled.is_pending() {
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
        self.add_subscriber(topic, interest, options, Filter::All, None)
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
        self.add_subscriber(topic, interest, options, Filter::Events(events), first)
    }

    fn add_subscriber(
        &mut self,
        topic: &Topic,
        interest: InterestId,
        options: MailboxOptions,
        filter: Filter,
        first: Option<&Subscriber>,
    ) -> Arc<Subscriber> {
        let config = self.socket.config();
        let mut mailbox = Mailbox::new(Limits {
            messages: options.messages.unwrap_or(config.mailbox_messages_max.get()),
            bytes: options.bytes.unwrap_or(config.mailbox_bytes_max),
            policy: options.policy,
        });
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
        let subscriber = Arc::new(Subscriber { topic: topic.clone(), interest, filter, slot });
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
        let subscriber =
            self.add_subscriber(topic, interest, MailboxOptions::new(), Filter::Presence, None);
        subscriber.lock().mailbox.begin();
        let log = self.topics.get(topic).and_then(|audience| audience.presence.messages());
        let log = log.map(<[Logged]>::to_vec);
        if log.is_none() && self.socket.channel_status(topic) == ChannelStatus::Joined {
            self.rejoin(now, topic);
        }
        (subscriber, log.unwrap_or_default())
    }

    /// Marks the mailbox as having a reader, and joins the channel again if its policy requires
    /// that.
    pub(super) fn read_mailbox(&mut self, now: Time, subscriber: &Subscriber) {
        let mut slot = subscriber.lock();
        let may_go_on = slot.mailbox.begin();
        self.mailbox_drops += slot.mailbox.take_dropped();
        if !may_go_on {
            self.discard_messages(slot.mailbox.take_discarded());
            drop(slot);
            self.rejoin(now, &subscriber.topic);
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
        let mut kept = true;
        let (drops, wakes) = (&mut self.mailbox_drops, &mut self.wakes);
        let discarded = &mut self.discarded;
        let mut deliver_to = |subscriber: &Subscriber, message: Message| {
            let mut slot = subscriber.lock();
            kept &= slot.mailbox.message(message, load);
            *drops += slot.mailbox.take_dropped();
            if slot.mailbox.has_discarded() {
                discarded.push(Discarded::Messages(slot.mailbox.take_discarded()));
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
        if !kept {
            self.resyncs.push(last.topic.clone());
        }
        self.bound_logs(logged.as_ref());
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

    /// Drops everything in a mailbox but the end. Returns the number of messages.
    pub(super) fn clear_mailbox(&mut self, subscriber: &Subscriber) -> u64 {
        let mut slot = subscriber.lock();
        let lost = slot.mailbox.clear();
        self.mailbox_drops += slot.mailbox.take_dropped();
        self.discard_messages(slot.mailbox.take_discarded());
        lost
    }

    /// Ends the waiters and the mailboxes of one handle, while other handles keep the topic.
    pub(super) fn detach(&mut self, topic: &Topic, interest: InterestId) {
        self.end_joins_of(topic, interest);
        self.wake_line(topic);
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
