//! Who reads along: the mailboxes of channels and the streams of signals.

use core::task::{Context, Poll};
use std::collections::VecDeque;

use super::mailbox::{Limits, Mailbox, MailboxPolicy};
use super::messages::{ChannelEvent, ClientEvent, StreamEnd};
use super::shared::{Slot, State};
use crate::cause::ChannelEnd;
use crate::id::InterestId;
use crate::signal::Signal;
use crate::topic::Topic;

/// A mailbox, and the handle it belongs to.
pub(super) struct Subscriber {
    topic: Topic,
    interest: InterestId,
    pub(super) slot: Slot<Mailbox>,
}

/// The signals that wait for one consumer.
#[derive(Default)]
pub(super) struct SignalQueue {
    queue: VecDeque<Signal>,
    lagged: u64,
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
        self.mailboxes.insert(id, Subscriber { topic: topic.clone(), interest, slot });
        id
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
        let id = self.mint();
        self.signals.insert(id, Slot::new(SignalQueue::default()));
        id
    }

    pub(super) fn poll_signals(&mut self, id: u64, cx: &Context<'_>) -> Poll<Option<ClientEvent>> {
        let gone = self.driver_gone;
        let Some(slot) = self.signals.get_mut(&id) else { return Poll::Ready(None) };
        if slot.value.lagged > 0 {
            let lagged = core::mem::take(&mut slot.value.lagged);
            return Poll::Ready(Some(ClientEvent::Lagged(lagged)));
        }
        if let Some(signal) = slot.value.queue.pop_front() {
            return Poll::Ready(Some(ClientEvent::Signal(signal)));
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

    /// Signals share their payloads with the mailboxes, so only their number is bounded.
    pub(super) fn record(&mut self, signal: &Signal) {
        let max = self.socket.config().mailbox_messages_max;
        for slot in self.signals.values_mut() {
            if slot.value.queue.len() >= max {
                slot.value.queue.pop_front();
                slot.value.lagged += 1;
            }
            slot.value.queue.push_back(signal.clone());
            self.wakes.extend(slot.waker.take());
        }
    }
}
