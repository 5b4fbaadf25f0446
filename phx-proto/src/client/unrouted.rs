//! A stream of the messages that no channel takes.
//!
//! ```text
//!   first stream made ──▶ the core reports unrouted messages ──▶ the mailbox of every stream
//!   last stream dropped or overflowed ──▶ the core counts them again
//! ```
//!
//! The server chooses the topics of these messages, so a hostile one may send any number of them.
//! The client keeps nothing for a topic; the mailbox counts the memory of the topic of each message.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use futures_core::Stream;
use futures_core::stream::FusedStream;

use super::mailbox::{Limits, Mailbox, MailboxOptions, MailboxPolicy};
use super::messages::{ChannelEvent, Message, StreamEnd};
use super::state::{Discarded, Shared, State};
use super::subscribers::Slot;
use super::waiters::{Parked, poll_parked};
use crate::event::input::Input;
use crate::sync::{Mutex, MutexGuard};
use crate::time::Time;

/// An item of [`Unrouted`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum UnroutedEvent {
    /// A message on a topic that has no channel.
    Message(Message),
    /// The number of messages that were dropped at this place, because the consumer was too slow.
    Lagged(u64),
    /// The mailbox was full, and its policy is [`MailboxPolicy::Close`]. Nothing follows.
    Overflow,
}

/// A stream of the messages that no channel takes, from
/// [`Client::unrouted`](super::Client::unrouted).
///
/// It does not keep the connection open. It ends when the driver ends, and after
/// [`Overflow`](UnroutedEvent::Overflow).
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is read"]
pub struct Unrouted {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    done: bool,
}

impl Unrouted {
    pub(super) const fn new(shared: Arc<Shared>, inbox: Arc<Inbox>) -> Self {
        Self { shared, inbox, done: false }
    }

    /// The next message; `None` once the driver has ended, and after
    /// [`Overflow`](UnroutedEvent::Overflow). A disconnect does not end the stream.
    ///
    /// Cancel safe: a message is taken only when it is returned.
    pub async fn next(&mut self) -> Option<UnroutedEvent> {
        core::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &Context<'_>) -> Poll<Option<UnroutedEvent>> {
        while !self.done {
            match ready!(self.inbox.poll_event(cx)) {
                ChannelEvent::Message(message) => {
                    return Poll::Ready(Some(UnroutedEvent::Message(message)));
                }
                ChannelEvent::Lagged(count) => {
                    return Poll::Ready(Some(UnroutedEvent::Lagged(count)));
                }
                ChannelEvent::Closed(end) => {
                    self.done = true;
                    if end == StreamEnd::Overflow {
                        return Poll::Ready(Some(UnroutedEvent::Overflow));
                    }
                }
                // Lifecycle events belong to channels.
                _ => {}
            }
        }
        Poll::Ready(None)
    }
}

impl Stream for Unrouted {
    type Item = UnroutedEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<UnroutedEvent>> {
        self.get_mut().poll_event(cx)
    }
}

impl FusedStream for Unrouted {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl Drop for Unrouted {
    fn drop(&mut self) {
        self.shared.command(|state, now| state.remove_unrouted(now, &self.inbox));
    }
}

/// The mailbox of one stream. It has its own lock, like the mailbox of a channel.
pub(super) struct Inbox {
    slot: Mutex<Slot>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock()
    }

    fn poll_event(&self, cx: &Context<'_>) -> Poll<ChannelEvent> {
        poll_parked(cx, |task| self.lock().poll(task))
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// # Unrouted messages
impl State {
    /// Adds a mailbox that gets every unrouted message from now on. If the driver has ended, it is
    /// already closed.
    fn add_inbox(&mut self, options: MailboxOptions) -> Arc<Inbox> {
        let config = self.socket.config();
        let mut mailbox = Mailbox::new(Limits {
            messages: options.messages.unwrap_or(config.mailbox_messages_max.get()),
            bytes: options.bytes.unwrap_or(config.mailbox_bytes_max),
            policy: match options.policy {
                // There is no channel to join again.
                MailboxPolicy::Rejoin => MailboxPolicy::DropOldest,
                policy => policy,
            },
        });
        mailbox.begin();
        if self.driver_gone {
            mailbox.close(StreamEnd::Gone);
        }
        Arc::new(Inbox { slot: Mutex::new(Slot { mailbox, parked: Parked::new() }) })
    }

    pub(super) fn add_unrouted(&mut self, now: Time, options: MailboxOptions) -> Arc<Inbox> {
        let inbox = self.add_inbox(options);
        if !self.driver_gone {
            self.unrouted.push(Arc::clone(&inbox));
            if self.unrouted.len() == 1 {
                self.apply(now, Input::ReportUnrouted { on: true });
            }
        }
        inbox
    }

    fn remove_unrouted(&mut self, now: Time, inbox: &Arc<Inbox>) {
        self.retain_unrouted(now, |other| !Arc::ptr_eq(other, inbox));
    }

    fn retain_unrouted(&mut self, now: Time, stays: impl Fn(&Arc<Inbox>) -> bool) {
        let before = self.unrouted.len();
        self.unrouted.retain(stays);
        if before > 0 && self.unrouted.is_empty() {
            self.unrouted = Vec::new();
            self.apply(now, Input::ReportUnrouted { on: false });
        }
    }

    /// Delivers an unrouted message to every stream.
    pub(super) fn deliver_unrouted(&mut self, message: Message) {
        // No channel shares the topic, so the message's memory includes it.
        let load = self.read_buffer.load(message.weight().saturating_add(message.topic.len()));
        let (drops, wakes) = (&mut self.mailbox_drops, &mut self.wakes);
        let (discarded, mut ended) = (&mut self.discarded, false);
        let mut deliver_to = |inbox: &Inbox, message: Message| {
            let mut slot = inbox.lock();
            slot.mailbox.message(message, load);
            *drops += slot.mailbox.take_dropped();
            let dropped = slot.mailbox.take_discarded();
            if !dropped.is_empty() {
                discarded.push(Discarded::Messages(dropped));
            }
            wakes.extend(slot.parked.take());
            ended |= slot.mailbox.end().is_some();
        };
        // The last mailbox gets the message itself instead of a clone.
        let Some((last, others)) = self.unrouted.split_last() else { return };
        for other in others {
            deliver_to(other, message.clone());
        }
        deliver_to(last, message);
        if ended {
            // The program may hold a stream that has overflowed. It takes no message, so it must not keep
            // the core from counting them.
            self.retain_unrouted(self.now, |inbox| inbox.lock().mailbox.end().is_none());
        }
    }

    /// Ends every stream of unrouted messages, because the driver has ended.
    pub(super) fn end_unrouted(&mut self) {
        for inbox in core::mem::take(&mut self.unrouted) {
            let mut slot = inbox.lock();
            slot.mailbox.close(StreamEnd::Gone);
            self.wakes.extend(slot.parked.take());
        }
    }
}
