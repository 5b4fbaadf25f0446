//! The presences of a channel, kept up to date for one consumer.
//!
//! ```text
//!   Shared ─▶ mailbox (presence messages, lifecycle) ─▶ Presence<M> ─▶ events
//!   a message lost ─▶ the channel is joined anew, and the state that follows repairs the list
//! ```

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::collections::VecDeque;
use std::sync::Arc;

use futures_core::Stream;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::channel::ChannelInner;
use super::messages::{ChannelEvent, Message, StreamEnd};
use super::subscribers::Subscriber;
use crate::event::cause::Interruption;
use crate::presence::{Presence, PresenceChange, PresenceEntry, PresenceError};
use crate::wire::ByteStr;

/// Something that happened to the presences of a channel.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PresenceEvent<M = Value> {
    /// The list changed.
    Change(PresenceChange<M>),
    /// The list is complete: the state came, for the first time or after a gap. The changes
    /// that led to it came before.
    Synced,
    /// The channel is not joined at the moment. The list is the last thing known; it is put
    /// right by itself, and `Synced` says when.
    Interrupted {
        /// The latest cause.
        cause: Interruption,
        /// How many interruptions this stands for.
        count: u32,
    },
    /// Messages were lost, because the consumer was too slow or too many diffs came before their
    /// state. The channel is joined anew, and `Synced` says when the list is right again.
    OutOfSync {
        /// How many messages the consumer was too slow for.
        dropped: u64,
    },
    /// The server sent a presence message that makes no sense, or whose metas are no `M`. It was
    /// skipped, so the list may differ from the server's until the next rejoin.
    Malformed(PresenceError),
    /// The end of the stream; nothing follows.
    Closed(StreamEnd),
}

/// Who is present on a channel, and a stream of what changes; from
/// [`Channel::presence`](super::Channel::presence).
///
/// Keeps its channel joined. The list follows the events: it is as of the last one taken. The
/// mailbox behind it is bounded like that of [`Messages`](super::Messages); when it overflows, the
/// channel is joined anew instead of showing a wrong list.
#[derive(Debug)]
#[must_use = "a list is kept up to date only by reading its events"]
pub struct PresenceStream<M = Value> {
    channel: Arc<ChannelInner>,
    mailbox: Arc<Subscriber>,
    presence: Presence<M>,
    ready: VecDeque<PresenceEvent<M>>,
    done: bool,
}

/// The list follows the events, so nothing is pinned in place.
impl<M> Unpin for PresenceStream<M> {}

impl<M> PresenceStream<M> {
    /// Every presence, in order of its key, as of the last event taken.
    pub fn list(&self) -> impl Iterator<Item = (&str, &PresenceEntry<M>)> {
        self.presence.list()
    }

    /// The presence of one key, as of the last event taken.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&PresenceEntry<M>> {
        self.presence.get(key)
    }

    /// Whether the list is complete; not so before the first state, and in a gap.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.presence.is_synced()
    }
}

impl<M: Clone + DeserializeOwned> PresenceStream<M> {
    /// Begins with what was said since the last join.
    pub(super) fn new(
        channel: Arc<ChannelInner>,
        mailbox: Arc<Subscriber>,
        log: &[Message],
    ) -> Self {
        let (presence, ready) = (Presence::new(), VecDeque::new());
        let mut stream = Self { channel, mailbox, presence, ready, done: false };
        for message in log {
            stream.apply_message(message);
        }
        stream
    }

    /// The next event; `None` after `Closed`.
    ///
    /// Cancel safe: an event is taken only when it is returned. A disconnect is an event, not
    /// the end.
    pub async fn next(&mut self) -> Option<PresenceEvent<M>> {
        core::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Waits until the list is complete, through disconnects; for whoever wants the list and not
    /// the events, which are skipped.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`StreamEnd`], when the channel ended first.
    pub async fn synced(&mut self) -> Result<(), StreamEnd> {
        self.catch_up();
        while !self.is_synced() {
            match self.next().await {
                Some(PresenceEvent::Closed(end)) => return Err(end),
                Some(_) => {}
                None => return Err(StreamEnd::Gone),
            }
        }
        Ok(())
    }

    /// Applies everything that has come so far, without its events; for whoever looks at the
    /// list now and then.
    pub fn catch_up(&mut self) {
        let end = loop {
            match self.ready.pop_front() {
                Some(end @ PresenceEvent::Closed(_)) => break Some(end),
                Some(_) => continue,
                None => {}
            }
            match self.mailbox.take_event() {
                Some(event) => self.apply(event),
                None => break None,
            }
        };
        // The end is not skipped: a reader would wait for it.
        self.ready.extend(end);
    }

    fn poll_event(&mut self, cx: &Context<'_>) -> Poll<Option<PresenceEvent<M>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(event));
            }
            if self.done {
                return Poll::Ready(None);
            }
            let event = ready!(self.mailbox.poll_event(cx));
            self.apply(event);
        }
    }

    fn apply(&mut self, event: ChannelEvent) {
        match event {
            ChannelEvent::Message(message) => self.apply_message(&message),
            ChannelEvent::Interrupted { cause, count } => {
                self.presence.joined();
                self.ready.push_back(PresenceEvent::Interrupted { cause, count });
            }
            ChannelEvent::Resumed { .. } => self.presence.joined(),
            ChannelEvent::Lagged(dropped) => self.resync(dropped),
            ChannelEvent::Closed(end) => {
                if !self.done {
                    self.ready.push_back(PresenceEvent::Closed(end));
                }
                self.done = true;
            }
        }
    }

    fn apply_message(&mut self, message: &Message) {
        let result = if &*message.event == STATE {
            self.presence.sync_state(&message.payload)
        } else {
            self.presence.sync_diff(&message.payload)
        };
        match result {
            Ok(changes) => {
                self.ready.extend(changes.into_iter().map(PresenceEvent::Change));
                if &*message.event == STATE && self.presence.is_synced() {
                    self.ready.push_back(PresenceEvent::Synced);
                }
            }
            Err(PresenceError::OutOfSync) => self.resync(0),
            Err(error) => self.ready.push_back(PresenceEvent::Malformed(error)),
        }
    }

    /// Starts over from the server's state. What waits in the mailbox belongs to the old list.
    fn resync(&mut self, dropped: u64) {
        self.presence.lost();
        let more = self.channel.shared().command(|state, now| {
            let dropped = state.clear_mailbox(&self.mailbox);
            state.rejoin(now, self.channel.topic());
            dropped
        });
        self.ready.push_back(PresenceEvent::OutOfSync { dropped: dropped + more });
    }
}

impl<M: Clone + DeserializeOwned> Stream for PresenceStream<M> {
    type Item = PresenceEvent<M>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PresenceEvent<M>>> {
        self.get_mut().poll_event(cx)
    }
}

impl<M> Drop for PresenceStream<M> {
    fn drop(&mut self) {
        self.channel.shared().peek(|state| state.drop_mailbox(&self.mailbox));
    }
}

const STATE: &str = "presence_state";
const DIFF: &str = "presence_diff";

/// Whether an event is about presence.
pub(super) fn is_presence(event: &ByteStr) -> bool {
    *event == STATE || *event == DIFF
}

/// The presence messages since the last join, for a consumer that comes later than the state.
///
/// Only channels whose server tracks presence have any. It is bounded like the diffs that a
/// [`Presence`] holds back; beyond that a consumer has the channel joined anew instead.
#[derive(Debug, Default)]
pub(super) struct PresenceLog {
    /// `None` when something is missing.
    messages: Option<Vec<Message>>,
    bytes: usize,
}

/// Messages in a log.
const LOG_MESSAGES_MAX: usize = 256;
/// Their bytes.
const LOG_BYTES_MAX: usize = 1 << 20;

impl PresenceLog {
    /// The channel was joined: a state follows.
    pub(super) fn restart(&mut self) {
        *self = Self { messages: Some(Vec::new()), bytes: 0 };
    }

    /// The channel is not joined any more.
    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    pub(super) fn record(&mut self, message: &Message) {
        let Some(messages) = &mut self.messages else { return };
        self.bytes = self.bytes.saturating_add(message.payload.len());
        if messages.len() < LOG_MESSAGES_MAX && self.bytes <= LOG_BYTES_MAX {
            let Message { event, payload } = message.clone();
            // A log lives long; the read buffer behind the payload should not.
            messages.push(Message { event, payload: payload.into_compact() });
        } else {
            self.stop();
        }
    }

    pub(super) fn messages(&self) -> Option<&[Message]> {
        self.messages.as_deref()
    }
}
