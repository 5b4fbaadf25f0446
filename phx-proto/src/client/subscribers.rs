//! Who reads along: the mailboxes of channels and the queues of signals.

use core::fmt;
use core::task::{Context, Poll};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::mailbox::{Limits, Mailbox, MailboxPolicy};
use super::messages::{ChannelEvent, Message, StreamEnd};
use super::presence::is_presence;
use super::signals::ClientEvent;
use super::signals::SignalQueue;
use super::state::{Slot, State};
use crate::event::cause::ChannelEnd;
use crate::event::signal::Signal;
use crate::id::InterestId;
use crate::socket::channel::ChannelStatus;
use crate::time::Time;
use crate::topic::Topic;

/// A mailbox, and the handle it belongs to.
///
/// It has a lock of its own, so that a consumer with messages before it takes no lock that others
/// want. Whoever takes both takes that of the state first.
pub(super) struct Subscriber {
    topic: Topic,
    interest: InterestId,
    /// It hears of presence only.
    presence: bool,
    slot: Mutex<Slot<Mailbox>>,
}

impl Subscriber {
    /// Nothing of anybody else's runs while it is held, so a panic cannot leave it half changed.
    pub(super) fn lock(&self) -> MutexGuard<'_, Slot<Mailbox>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next event, for who looks now and then.
    pub(super) fn take_event(&self) -> Option<ChannelEvent> {
        self.lock().value.next()
    }

    /// The next event, for who waits for it; `hand`, which is empty, gets what may follow.
    #[inline]
    pub(super) fn poll_events(
        &self,
        hand: &mut VecDeque<Message>,
        cx: &Context<'_>,
    ) -> Poll<ChannelEvent> {
        let mut slot = self.lock();
        slot.value.lend(hand);
        if let Some(message) = hand.pop_front() {
            return Poll::Ready(ChannelEvent::Message(message));
        }
        if let Some(event) = slot.value.next() {
            return Poll::Ready(event);
        }
        slot.park(cx);
        drop(slot);
        // An idle consumer keeps no room.
        *hand = VecDeque::new();
        Poll::Pending
    }

    /// The next event, for who waits for it and takes them one by one.
    #[inline]
    pub(super) fn poll_event(&self, cx: &Context<'_>) -> Poll<ChannelEvent> {
        let mut slot = self.lock();
        if let Some(event) = slot.value.next() {
            return Poll::Ready(event);
        }
        slot.park(cx);
        Poll::Pending
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// # Mailboxes
impl State {
    /// A mailbox that hears of the topic from now on; one that is at its end already if the
    /// interest of its handle is over, whatever others want of the topic.
    pub(super) fn add_mailbox(
        &mut self,
        topic: &Topic,
        interest: InterestId,
        policy: MailboxPolicy,
    ) -> Arc<Subscriber> {
        self.add_subscriber(topic, interest, policy, false)
    }

    fn add_subscriber(
        &mut self,
        topic: &Topic,
        interest: InterestId,
        policy: MailboxPolicy,
        presence: bool,
    ) -> Arc<Subscriber> {
        let config = self.socket.config();
        let mut mailbox = Mailbox::new(Limits {
            messages: config.mailbox_messages_max,
            bytes: config.mailbox_bytes_max,
            policy,
        });
        let wanted = self.socket.is_interested(interest);
        if !wanted {
            mailbox.close(StreamEnd::Gone);
        }
        let slot = Mutex::new(Slot::new(mailbox));
        let subscriber = Arc::new(Subscriber { topic: topic.clone(), interest, presence, slot });
        if wanted {
            let audience = self.topics.get_or_default(topic.clone());
            audience.mailboxes.push(Arc::clone(&subscriber));
        }
        subscriber
    }

    /// A mailbox that hears of the presence of the topic, and what was said about it since the
    /// last join; if that is not known any more, the channel is joined anew.
    pub(super) fn add_presence(
        &mut self,
        now: Time,
        topic: &Topic,
        interest: InterestId,
    ) -> (Arc<Subscriber>, Vec<Message>) {
        let subscriber = self.add_subscriber(topic, interest, MailboxPolicy::DropOldest, true);
        subscriber.lock().value.begin();
        let log = self.topics.get(topic).and_then(|audience| audience.presence.messages());
        let log = log.map(<[Message]>::to_vec);
        if log.is_none() && self.socket.channel_status(topic) == ChannelStatus::Joined {
            self.rejoin(now, topic);
        }
        (subscriber, log.unwrap_or_default())
    }

    /// Somebody reads this mailbox from now on.
    pub(super) fn read_mailbox(&mut self, now: Time, subscriber: &Subscriber) {
        let mut slot = subscriber.lock();
        if !slot.value.begin() {
            self.mailbox_drops += slot.value.take_dropped();
            drop(slot);
            self.rejoin(now, &subscriber.topic);
        }
    }

    /// Has the channel joined anew. One that is not wanted has nothing to catch up with.
    pub(super) fn rejoin(&mut self, now: Time, topic: &str) {
        let _ = self.socket.rejoin(now, topic);
    }

    /// Hands a message to everyone who wants it.
    pub(super) fn deliver(&mut self, topic: Topic, message: Message) {
        let Some(audience) = self.topics.get_mut(&topic) else { return };
        let presence = is_presence(&message.event);
        if presence {
            audience.presence.record(&message);
        }
        let bytes = message.event.as_bytes().len() + message.payload.len();
        let mut kept = true;
        let (drops, wakes) = (&mut self.mailbox_drops, &mut self.wakes);
        let mut hand = |subscriber: &Subscriber, message: Message| {
            let mut slot = subscriber.lock();
            kept &= slot.value.message(message, bytes);
            *drops += slot.value.take_dropped();
            wakes.extend(slot.waker.take());
        };
        // The last one gets the message itself.
        let Some((last, others)) = audience.mailboxes.split_last() else { return };
        for other in others.iter().filter(|other| presence || !other.presence) {
            hand(other, message.clone());
        }
        if presence || !last.presence {
            hand(last, message);
        }
        if !kept {
            self.resyncs.push(topic);
        }
    }

    /// Drops everything that waits but the end; how many messages there were.
    pub(super) fn clear_mailbox(&mut self, subscriber: &Subscriber) -> u64 {
        let mut slot = subscriber.lock();
        let lost = slot.value.clear();
        self.mailbox_drops += slot.value.take_dropped();
        lost
    }

    /// Ends every mailbox of a handle that is done with its topic, while others go on.
    pub(super) fn detach(&mut self, topic: &Topic, interest: InterestId) {
        let Some(audience) = self.topics.get_mut(topic) else { return };
        audience.mailboxes.retain(|subscriber| {
            let stays = subscriber.interest != interest;
            if !stays {
                let mut slot = subscriber.lock();
                slot.value.close(StreamEnd::Channel(ChannelEnd::Left));
                self.wakes.extend(slot.waker.take());
            }
            stays
        });
        self.tidy(topic);
    }

    pub(super) fn drop_mailbox(&mut self, subscriber: &Arc<Subscriber>) {
        let topic = &subscriber.topic;
        if let Some(audience) = self.topics.get_mut(topic) {
            audience.mailboxes.retain(|other| !Arc::ptr_eq(other, subscriber));
        }
        self.tidy(topic);
    }
}

/// # Signals
impl State {
    pub(super) fn add_signals(&mut self) -> u64 {
        let config = self.socket.config();
        self.add_signals_up_to(config.mailbox_messages_max, config.mailbox_bytes_max)
    }

    pub(super) fn add_signals_up_to(&mut self, signals: usize, bytes: usize) -> u64 {
        let queue = SignalQueue::new(signals, bytes);
        let id = self.mint();
        self.signals.insert(id, Box::new(Slot::new(queue)));
        id
    }

    pub(super) fn poll_signals(&mut self, id: u64, cx: &Context<'_>) -> Poll<Option<ClientEvent>> {
        let gone = self.driver_gone;
        let Some(slot) = self.signals.get_mut(&id) else { return Poll::Ready(None) };
        if let Some(event) = slot.value.next() {
            return Poll::Ready(Some(event));
        }
        if gone {
            return Poll::Ready(None);
        }
        slot.park(cx);
        Poll::Pending
    }

    pub(super) fn drop_signals(&mut self, id: u64) {
        self.signals.remove(&id);
        // A search tree keeps its last node, and every connection has signals while it is made.
        if self.signals.is_empty() {
            self.signals = BTreeMap::new();
        }
    }

    pub(super) fn record(&mut self, signal: &Signal) {
        for slot in self.signals.values_mut() {
            self.mailbox_drops += slot.value.push(signal);
            self.wakes.extend(slot.waker.take());
        }
    }
}
