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
use std::vec;

use futures_core::Stream;
use futures_core::stream::FusedStream;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::channel::ChannelInner;
use super::messages::{ChannelEvent, StreamEnd};
use super::subscribers::Subscriber;
use crate::event::cause::Interruption;
use crate::presence::{Presence, PresenceChange, PresenceEntry, PresenceError};
use crate::wire::ByteStr;
use crate::wire::payload::Payload;
use crate::wire::weight::weight;

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
    /// What came since the last join and before the mailbox.
    log: vec::IntoIter<Logged>,
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
        log: Vec<Logged>,
    ) -> Self {
        let (presence, ready) = (Presence::new(), VecDeque::new());
        Self { channel, mailbox, log: log.into_iter(), presence, ready, done: false }
    }

    /// How many bytes of memory the list may take, 64 MiB by default; see
    /// [`Presence::bytes_max`]. A list that would take more ends the stream with
    /// [`StreamEnd::PresenceTooLarge`].
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.presence = core::mem::take(&mut self.presence).bytes_max(bytes);
        self
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
            if let Some(logged) = self.log.next() {
                self.apply_message(logged.kind, &logged.payload);
                continue;
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
            if let Some(logged) = self.log.next() {
                self.apply_message(logged.kind, &logged.payload);
                continue;
            }
            let event = ready!(self.mailbox.poll_event(cx));
            self.apply(event);
        }
    }

    fn apply(&mut self, event: ChannelEvent) {
        match event {
            ChannelEvent::Message(message) => {
                // Its mailbox hears of nothing else.
                if let Some(kind) = PresenceKind::of(&message.event) {
                    self.apply_message(kind, &message.payload);
                }
            }
            ChannelEvent::Interrupted { cause, count } => {
                self.presence.joined();
                // Protocol: PRES-9.
                self.ready.push_back(PresenceEvent::Interrupted { cause, count });
            }
            ChannelEvent::Resumed { .. } => self.presence.joined(),
            ChannelEvent::Lagged(dropped) => self.resync(dropped),
            ChannelEvent::Closed(end) => self.end(end),
        }
    }

    fn apply_message(&mut self, kind: PresenceKind, payload: &Payload) {
        let result = match kind {
            PresenceKind::State => self.presence.sync_state(payload),
            PresenceKind::Diff => self.presence.sync_diff(payload),
        };
        match result {
            Ok(changes) => {
                self.ready.extend(changes.into_iter().map(PresenceEvent::Change));
                if kind == PresenceKind::State && self.presence.is_synced() {
                    self.ready.push_back(PresenceEvent::Synced);
                }
            }
            Err(PresenceError::OutOfSync) => self.resync(0),
            Err(PresenceError::TooLarge { .. }) => {
                self.log = Vec::new().into_iter();
                self.channel.shared().peek(|state| {
                    state.drop_mailbox(&self.mailbox);
                    state.clear_mailbox(&self.mailbox);
                });
                self.end(StreamEnd::PresenceTooLarge);
            }
            Err(error) => self.ready.push_back(PresenceEvent::Malformed(error)),
        }
    }

    fn end(&mut self, end: StreamEnd) {
        if !self.done {
            self.ready.push_back(PresenceEvent::Closed(end));
        }
        self.done = true;
    }

    /// Starts over from the server's state. What waits in the mailbox belongs to the old list.
    fn resync(&mut self, dropped: u64) {
        self.presence.lost();
        let logged = core::mem::take(&mut self.log).len() as u64;
        let more = self.channel.shared().command(|state, now| {
            let dropped = state.clear_mailbox(&self.mailbox);
            state.rejoin(now, self.channel.topic());
            dropped
        });
        self.ready.push_back(PresenceEvent::OutOfSync { dropped: dropped + logged + more });
    }
}

impl<M: Clone + DeserializeOwned> Stream for PresenceStream<M> {
    type Item = PresenceEvent<M>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PresenceEvent<M>>> {
        self.get_mut().poll_event(cx)
    }
}

impl<M: Clone + DeserializeOwned> FusedStream for PresenceStream<M> {
    fn is_terminated(&self) -> bool {
        self.done && self.ready.is_empty()
    }
}

impl<M> Drop for PresenceStream<M> {
    fn drop(&mut self) {
        self.channel.shared().peek(|state| state.drop_mailbox(&self.mailbox));
    }
}

/// Which presence message an event names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PresenceKind {
    State,
    Diff,
}

impl PresenceKind {
    pub(super) fn of(event: &ByteStr) -> Option<Self> {
        [Self::State, Self::Diff].into_iter().find(|kind| *event == kind.name())
    }

    const fn name(self) -> &'static str {
        match self {
            Self::State => "presence_state",
            Self::Diff => "presence_diff",
        }
    }
}

/// The presence messages since the last join, for a consumer that comes later than the state.
///
/// Only channels whose server tracks presence have any. What it holds is memory of its own, and
/// bounded; beyond that a consumer has the channel joined again instead.
#[derive(Debug, Default)]
pub(super) struct PresenceLog {
    /// `None` when something is missing.
    messages: Option<Vec<Logged>>,
    weight: usize,
}

/// A message of a log.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    kind: PresenceKind,
    payload: Payload,
}

/// Messages in a log.
const LOG_MESSAGES_MAX: usize = 256;
/// The memory of a log.
const LOG_BYTES_MAX: usize = 1 << 20;
/// The memory of all logs of a connection.
pub(super) const LOGS_BYTES_MAX: usize = 8 << 20;

impl PresenceLog {
    /// The channel was joined: a state follows.
    pub(super) fn restart(&mut self) {
        *self = Self { messages: Some(Vec::new()), weight: 0 };
    }

    /// Something is missing: the channel is not joined any more, or a bound was passed.
    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    /// The memory it takes.
    pub(super) const fn weight(&self) -> usize {
        self.weight
    }

    pub(super) fn record(&mut self, kind: PresenceKind, payload: &Payload) {
        let Some(messages) = &mut self.messages else { return };
        self.weight = self.weight.saturating_add(weight(0, payload));
        if messages.len() < LOG_MESSAGES_MAX && self.weight <= LOG_BYTES_MAX {
            // A log lives long; the read buffer behind the payload should not.
            messages.push(Logged { kind, payload: payload.clone().into_compact() });
        } else {
            self.stop();
        }
    }

    pub(super) fn messages(&self) -> Option<&[Logged]> {
        self.messages.as_deref()
    }
}
