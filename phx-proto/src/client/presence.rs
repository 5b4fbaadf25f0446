//! The presence list of a channel, kept up to date for one consumer, and the log that it starts
//! from.
//!
//! ```text
//!   Shared ─▶ mailbox (presence messages, lifecycle) ─▶ Presence<M> ─▶ events
//!   a message lost ─▶ the channel is joined again, and the state that follows repairs the list
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

/// An event of the presence list of a channel.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PresenceEvent<M = Value> {
    /// The list changed.
    Change(PresenceChange<M>),
    /// The list is complete: the server's state arrived, for the first time or after a gap. The
    /// changes that led to it came before this event.
    Synced,
    /// The channel is no longer joined. The list keeps its last known entries. The client joins the
    /// channel again by itself, and `Synced` follows when the list is complete again.
    Interrupted {
        /// The latest cause.
        cause: Interruption,
        /// How many interruptions this event stands for.
        count: u32,
    },
    /// Messages were lost, because the consumer was too slow or too many diffs came before their
    /// state. The channel is joined again, and `Synced` follows when the list is complete again.
    OutOfSync {
        /// The number of messages that were dropped because the consumer was too slow.
        dropped: u64,
    },
    /// The server sent an invalid presence message, or one whose metas are not of type `M`. It was
    /// skipped, so the list may differ from the server's until the next rejoin.
    Malformed(PresenceError),
    /// The end of the stream; nothing follows.
    Closed(StreamEnd),
}

/// The presence list of a channel and a stream of its changes, from
/// [`Channel::presence`](super::Channel::presence).
///
/// The stream keeps its channel joined. The list includes the events up to the last one that was
/// read. The mailbox behind it is bounded like that of [`Messages`](super::Messages); when it
/// overflows, the channel is joined again, so the list is never silently wrong.
#[derive(Debug)]
#[must_use = "a list is kept up to date only by reading its events"]
pub struct PresenceStream<M = Value> {
    channel: Arc<ChannelInner>,
    mailbox: Arc<Subscriber>,
    /// Presence messages since the last join that came before the mailbox was added.
    log: vec::IntoIter<Logged>,
    presence: Presence<M>,
    ready: VecDeque<PresenceEvent<M>>,
    done: bool,
}

/// No field is structurally pinned.
impl<M> Unpin for PresenceStream<M> {}

impl<M> PresenceStream<M> {
    /// Every presence, in order of the keys, as of the last event that was read.
    pub fn list(&self) -> impl Iterator<Item = (&str, &PresenceEntry<M>)> {
        self.presence.list()
    }

    /// The presence of one key, as of the last event that was read.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&PresenceEntry<M>> {
        self.presence.get(key)
    }

    /// Whether the list is complete. The list is incomplete before the first state and during a
    /// gap.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.presence.is_synced()
    }
}

impl<M: Clone + DeserializeOwned> PresenceStream<M> {
    /// Makes a stream that begins with the presence messages since the last join.
    pub(super) fn new(
        channel: Arc<ChannelInner>,
        mailbox: Arc<Subscriber>,
        log: Vec<Logged>,
    ) -> Self {
        let (presence, ready) = (Presence::new(), VecDeque::new());
        Self { channel, mailbox, log: log.into_iter(), presence, ready, done: false }
    }

    /// The maximum bytes of memory of the list, 64 MiB by default; see [`Presence::bytes_max`]. A
    /// larger list ends the stream with [`StreamEnd::PresenceTooLarge`].
    ///
    /// ```
    /// # fn example(room: phx_proto::client::Channel) {
    /// let mut presence = room.presence().bytes_max(1 << 20); // 1 MiB
    /// # let _ = presence.is_synced();
    /// # }
    /// ```
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

    /// Waits until the list is complete, and skips the events, for consumers that need only the
    /// list. Disconnects do not end the wait.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`StreamEnd`] when the channel ended first.
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

    /// Applies everything that has arrived so far and skips its events, for consumers that read the
    /// list only now and then.
    pub fn catch_up(&mut self) {
        let end = loop {
            match self.ready.pop_front() {
                Some(end @ PresenceEvent::Closed(_)) => break Some(end),
                Some(_) => continue,
                // The mailbox would return its end again and again.
                None if self.done => break None,
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
        // The end is not skipped: a later `next` must return it.
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
                // The filter of this mailbox passes no other event.
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
            // A presence stream does not catch up.
            ChannelEvent::CaughtUp | ChannelEvent::GapRemains { .. } => {}
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
                self.channel.shared().with_state(|state| {
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

    /// Starts over from the server's next state. The queued messages belong to the old list, so
    /// they are dropped.
    fn resync(&mut self, dropped: u64) {
        self.presence.lost();
        let logged = core::mem::take(&mut self.log).len() as u64;
        let more = self.channel.shared().command(|state, now| {
            let dropped = state.clear_mailbox(&self.mailbox);
            state.rejoin_for(now, &self.mailbox);
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
        self.channel.shared().with_state(|state| state.drop_mailbox(&self.mailbox));
    }
}

/// The kinds of presence messages.
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

/// A log of the presence messages since the last join, for a consumer that subscribes after the
/// state arrived.
///
/// It is empty unless the server tracks presence on the channel. Its payloads are copies, and it is
/// bounded. Past the bounds it is dropped; for a new consumer the channel is then joined again.
#[derive(Debug, Default)]
pub(super) struct PresenceLog {
    /// `None` when the log is incomplete.
    messages: Option<Vec<Logged>>,
    weight: usize,
}

/// A presence message in a log.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    kind: PresenceKind,
    payload: Payload,
}

/// The maximum number of messages in a log.
const LOG_MESSAGES_MAX: usize = 256;
/// The maximum bytes of memory of a log.
const LOG_BYTES_MAX: usize = 1 << 20;
/// The maximum bytes of memory of all logs of a connection.
pub(super) const LOGS_BYTES_MAX: usize = 8 << 20;

impl PresenceLog {
    /// Starts an empty log, because the channel was joined and a state follows.
    pub(super) fn restart(&mut self) {
        *self = Self { messages: Some(Vec::new()), weight: 0 };
    }

    /// Drops the log, because it would be incomplete: the channel is no longer joined, or a bound
    /// was exceeded.
    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    /// The bytes of memory of the log.
    pub(super) const fn weight(&self) -> usize {
        self.weight
    }

    pub(super) fn record(&mut self, kind: PresenceKind, payload: &Payload) {
        let Some(messages) = &mut self.messages else { return };
        self.weight = self.weight.saturating_add(weight(0, payload));
        if messages.len() < LOG_MESSAGES_MAX && self.weight <= LOG_BYTES_MAX {
            // The copy does not keep the read buffer alive; a log may live long.
            messages.push(Logged { kind, payload: payload.clone().into_compact() });
        } else {
            self.stop();
        }
    }

    pub(super) fn messages(&self) -> Option<&[Logged]> {
        self.messages.as_deref()
    }
}
