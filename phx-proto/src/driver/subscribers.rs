//! Who reads along: the mailboxes of channels and the queues of signals.

use core::task::{Context, Poll};

use super::mailbox::{Limits, Mailbox, MailboxPolicy};
use super::messages::{ChannelEvent, Message, StreamEnd};
use super::presence::is_presence;
use super::shared::{Slot, State};
use super::signals::ClientEvent;
use super::signals::SignalQueue;
use crate::cause::ChannelEnd;
use crate::channel::ChannelStatus;
use crate::id::InterestId;
use crate::signal::Signal;
use crate::time::Time;
use crate::topic::Topic;

/// A mailbox, and the handle it belongs to.
pub(super) struct Subscriber {
    topic: Topic,
    interest: InterestId,
    /// It hears of presence only.
    presence: bool,
    pub(super) slot: Slot<Mailbox>,
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
    ) -> u64 {
        let config = self.socket.config();
        let mut mailbox = Mailbox::new(Limits {
            messages: config.mailbox_messages_max,
            bytes: config.mailbox_bytes_max,
            policy,
        });
        let id = self.mint();
        if self.socket.is_interested(interest) {
            self.topics.entry(topic.clone()).or_default().mailboxes.insert(id);
        } else {
            mailbox.close(StreamEnd::Gone);
        }
        let slot = Slot::new(mailbox);
        let subscriber = Subscriber { topic: topic.clone(), interest, presence: false, slot };
        self.mailboxes.insert(id, subscriber);
        id
    }

    /// A mailbox that hears of the presence of the topic, and what was said about it since the
    /// last join; if that is not known any more, the channel is joined anew.
    pub(super) fn add_presence(
        &mut self,
        now: Time,
        topic: &Topic,
        interest: InterestId,
    ) -> (u64, Vec<Message>) {
        let id = self.add_mailbox(topic, interest, MailboxPolicy::DropOldest);
        if let Some(subscriber) = self.mailboxes.get_mut(&id) {
            subscriber.presence = true;
            subscriber.slot.value.begin();
        }
        let log = self.topics.get(topic).and_then(|audience| audience.presence.messages());
        let log = log.map(<[Message]>::to_vec);
        if log.is_none() && self.socket.channel_status(topic) == ChannelStatus::Joined {
            self.rejoin(now, topic);
        }
        (id, log.unwrap_or_default())
    }

    /// Somebody reads this mailbox from now on.
    pub(super) fn read_mailbox(&mut self, now: Time, id: u64) {
        let Some(subscriber) = self.mailboxes.get_mut(&id) else { return };
        if !subscriber.slot.value.begin() {
            self.mailbox_drops += subscriber.slot.value.take_dropped();
            let topic = subscriber.topic.clone();
            self.rejoin(now, &topic);
        }
    }

    /// Has the channel joined anew. One that is not wanted has nothing to catch up with.
    pub(super) fn rejoin(&mut self, now: Time, topic: &str) {
        let _ = self.socket.rejoin(now, topic);
    }

    /// Hands a message to everyone who wants it.
    pub(super) fn deliver(&mut self, topic: Topic, message: &Message) {
        let Some(audience) = self.topics.get_mut(&topic) else { return };
        let presence = is_presence(&message.event);
        if presence {
            audience.presence.record(message);
        }
        let bytes = message.event.len() + message.payload.len();
        let mut kept = true;
        for id in &audience.mailboxes {
            let Some(subscriber) = self.mailboxes.get_mut(id) else { continue };
            if presence || !subscriber.presence {
                kept &= subscriber.slot.value.message(message.clone(), bytes);
                self.mailbox_drops += subscriber.slot.value.take_dropped();
                self.wakes.extend(subscriber.slot.waker.take());
            }
        }
        if !kept {
            self.resyncs.push(topic);
        }
    }

    pub(super) fn take_event(&mut self, id: u64) -> Option<ChannelEvent> {
        self.mailboxes.get_mut(&id)?.slot.value.next()
    }

    /// Drops everything that waits but the end; how many messages there were.
    pub(super) fn clear_mailbox(&mut self, id: u64) -> u64 {
        let Some(subscriber) = self.mailboxes.get_mut(&id) else { return 0 };
        let lost = subscriber.slot.value.clear();
        self.mailbox_drops += subscriber.slot.value.take_dropped();
        lost
    }

    pub(super) fn poll_mailbox(&mut self, id: u64, cx: &Context<'_>) -> Poll<Option<ChannelEvent>> {
        let Some(subscriber) = self.mailboxes.get_mut(&id) else { return Poll::Ready(None) };
        if let Some(event) = subscriber.slot.value.next() {
            return Poll::Ready(Some(event));
        }
        subscriber.slot.park(cx);
        Poll::Pending
    }

    /// Ends every mailbox of a handle that is done with its topic, while others go on.
    pub(super) fn detach(&mut self, topic: &Topic, interest: InterestId) {
        let Some(audience) = self.topics.get_mut(topic) else { return };
        audience.mailboxes.retain(|id| {
            let Some(subscriber) = self.mailboxes.get_mut(id) else { return false };
            let stays = subscriber.interest != interest;
            if !stays {
                subscriber.slot.value.close(StreamEnd::Channel(ChannelEnd::Left));
                self.wakes.extend(subscriber.slot.waker.take());
            }
            stays
        });
        self.tidy(topic);
    }

    pub(super) fn drop_mailbox(&mut self, id: u64) {
        let Some(subscriber) = self.mailboxes.remove(&id) else { return };
        if let Some(audience) = self.topics.get_mut(&subscriber.topic) {
            audience.mailboxes.remove(&id);
        }
        self.tidy(&subscriber.topic);
    }
}

/// # Signals
impl State {
    pub(super) fn add_signals(&mut self) -> u64 {
        let config = self.socket.config();
        let queue = SignalQueue::new(config.mailbox_messages_max, config.mailbox_bytes_max);
        let id = self.mint();
        self.signals.insert(id, Slot::new(queue));
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
    }

    pub(super) fn record(&mut self, signal: &Signal) {
        for slot in self.signals.values_mut() {
            self.mailbox_drops += slot.value.push(signal);
            self.wakes.extend(slot.waker.take());
        }
    }
}
