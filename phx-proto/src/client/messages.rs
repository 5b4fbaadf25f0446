//! The events of a channel, and the streams that yield them.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use futures_core::Stream;
use futures_core::stream::FusedStream;

use super::catch_up::{CatchUpReader, Read};
use super::channel::ChannelInner;
use super::subscribers::{Ahead, Subscriber};
use crate::catch_up::Cursor;
use crate::event::cause::{ChannelEnd, Interruption};
use crate::topic::Topic;
use crate::wire::ByteStr;
use crate::wire::payload::Payload;
use crate::wire::weight::{compact, weight};

/// Something that happened on a channel.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ChannelEvent {
    /// A push or a broadcast from the server.
    Message(Message),
    /// The channel is no longer joined. The client joins it again by itself.
    Interrupted {
        /// The latest cause.
        cause: Interruption,
        /// How many interruptions this event stands for; more than one when the consumer did not
        /// read in between.
        count: u32,
    },
    /// The channel is joined again. Messages may have been missed.
    Resumed {
        /// The server's response to the join.
        response: Payload,
    },
    /// The number of messages that were dropped at this place, because the consumer was too slow. In a
    /// stream that [catches up](super::JoinOptions::catch_up), only messages that are not replayed count.
    Lagged(u64),
    /// The replay after a join is over: the consumer has taken every message up to the server's present.
    /// Only in a stream that [catches up](super::JoinOptions::catch_up).
    CaughtUp,
    /// Messages are missing at this place, because the server no longer has them: those with a position
    /// greater than `after` and not greater than `through`. Only in a stream that
    /// [catches up](super::JoinOptions::catch_up), and only if the server names its oldest position, if
    /// positions are contiguous, or if the replay failed; see [`Contract`](crate::catch_up::Contract).
    GapRemains {
        /// The position of the last message before the gap; `None` if there was none.
        after: Option<u64>,
        /// The greatest position in the gap. `None` if its end is unknown: the server has started its
        /// numbers over, or its replay was invalid or did not end in time.
        through: Option<u64>,
    },
    /// The end of the stream; nothing follows.
    Closed(StreamEnd),
}

/// A push or a broadcast from the server.
///
/// ```
/// use phx_proto::client::Message;
/// use serde_json::json;
///
/// fn report(message: &Message) -> String {
///     format!("{} on {}: {} bytes", message.event(), message.topic(), message.payload().len())
/// }
///
/// let message = Message::new("room:lobby", "shout", json!({"n": 1}));
/// assert_eq!(report(&message), "shout on room:lobby: 7 bytes");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub(super) topic: Topic,
    pub(super) event: ByteStr,
    pub(super) payload: Payload,
}

impl Message {
    /// Makes a message, for tests of code that reads messages. A [`Channel`](super::Channel) makes
    /// its own.
    #[must_use]
    pub fn new(
        topic: impl Into<Topic>,
        event: impl Into<ByteStr>,
        payload: impl Into<Payload>,
    ) -> Self {
        Self { topic: topic.into(), event: event.into(), payload: payload.into() }
    }

    /// The topic of the message's channel.
    #[must_use]
    pub const fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The event name.
    #[must_use]
    pub fn event(&self) -> &str {
        &self.event
    }

    /// The payload, not yet parsed.
    #[must_use]
    pub const fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Returns the payload.
    #[must_use]
    pub fn into_payload(self) -> Payload {
        self.payload
    }

    /// Returns topic, event and payload.
    #[must_use]
    pub fn into_parts(self) -> (Topic, ByteStr, Payload) {
        (self.topic, self.event, self.payload)
    }

    /// The bytes of memory that the message takes without the read buffer behind it.
    #[inline]
    pub(super) fn weight(&self) -> usize {
        weight(self.event.as_bytes().len(), &self.payload)
    }

    /// A copy of the message in one allocation, which does not keep the read buffer alive.
    pub(super) fn compact(&self) -> Self {
        let (event, payload) = compact(&self.event, &self.payload);
        Self { topic: self.topic.clone(), event, payload }
    }
}

/// Why a stream of events ended.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamEnd {
    /// The channel ended.
    #[error(transparent)]
    Channel(ChannelEnd),
    /// The channel had ended before the stream was made.
    #[error("the channel had ended before the stream was made")]
    Gone,
    /// The mailbox was full, and its policy is [`MailboxPolicy::Close`](super::MailboxPolicy).
    #[error("the mailbox was full, and its policy is to close the stream")]
    Overflow,
    /// The presence list would take more memory than
    /// [`PresenceStream::bytes_max`](super::PresenceStream::bytes_max) allows.
    #[error("the presence list is too large: raise `bytes_max`")]
    PresenceTooLarge,
    /// The function of [`CatchUp::new`](super::CatchUp::new) panicked.
    #[error("the function that finds the position of a message panicked")]
    PositionPanicked,
}

/// The events of a channel, from [`Channel::messages`](super::Channel::messages),
/// [`on`](super::Channel::on) and [`on_any`](super::Channel::on_any).
///
/// The stream keeps its channel joined. It ends after [`ChannelEvent::Closed`].
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is read"]
pub struct Messages {
    channel: Arc<ChannelInner>,
    mailbox: Arc<Subscriber>,
    ahead: Ahead,
    starts_now: bool,
    done: bool,
    /// Puts the messages in order, if the consumer catches up.
    reader: Option<Box<CatchUpReader>>,
}

impl Messages {
    pub(super) fn new(
        channel: Arc<ChannelInner>,
        mailbox: Arc<Subscriber>,
        starts_now: bool,
        reader: Option<Box<CatchUpReader>>,
    ) -> Self {
        Self { channel, mailbox, ahead: Ahead::default(), starts_now, done: false, reader }
    }

    /// The topic of the channel.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        self.channel.topic()
    }

    /// Whether the stream began at its creation, not at the join of its handle. Such a stream may
    /// lack messages that followed right after the join, such as a first state.
    /// [`Channel::messages`](super::Channel::messages) and [`on_any`](super::Channel::on_any)
    /// describe which streams these are.
    #[must_use]
    pub const fn starts_now(&self) -> bool {
        self.starts_now
    }

    /// The position of the last message that this stream returned, to be stored and passed to
    /// [`CatchUp::cursor`](super::CatchUp::cursor) later. `None` for a stream that does not
    /// [catch up](super::JoinOptions::catch_up).
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.mailbox.cursor().filter(|_| self.reader.is_some())
    }

    /// The same stream with the topic added to each event, for merging the streams of several
    /// channels.
    ///
    /// ```
    /// # use phx_proto::client::{Channel, ChannelEvent};
    /// # async fn example(bids: Channel, asks: Channel) {
    /// use futures_util::StreamExt as _;
    /// use futures_util::stream::select;
    ///
    /// let mut both = select(bids.messages().with_topic(), asks.messages().with_topic());
    /// while let Some((topic, event)) = both.next().await {
    ///     if let ChannelEvent::Interrupted { cause, .. } = event {
    ///         println!("{topic}: {cause}");
    ///     }
    /// }
    /// # }
    /// ```
    pub const fn with_topic(self) -> TopicMessages {
        TopicMessages { messages: self }
    }

    /// The next event; `None` after `Closed`.
    ///
    /// Cancel safe: an event is taken only when it is returned. A disconnect is an event, not
    /// the end.
    pub async fn next(&mut self) -> Option<ChannelEvent> {
        core::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    #[inline]
    fn poll_event(&mut self, cx: &Context<'_>) -> Poll<Option<ChannelEvent>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Some(entry) = self.ahead.prefetched.pop_front() {
            return Poll::Ready(Some(ChannelEvent::Message(entry.into_message())));
        }
        let event = if self.reader.is_some() {
            ready!(self.poll_in_order(cx))
        } else {
            ready!(self.mailbox.poll_events(&mut self.ahead, cx))
        };
        self.done = matches!(event, ChannelEvent::Closed(_));
        if self.done {
            self.unsubscribe();
        }
        if matches!(event, ChannelEvent::Lagged(_)) {
            self.start_over();
        }
        Poll::Ready(Some(event))
    }

    /// Called when the consumer has seen a loss: joins the channel again if the mailbox requires that.
    #[cold]
    fn start_over(&self) {
        if self.mailbox.needs_join() {
            let shared = self.channel.shared();
            shared.command(|state, now| state.rejoin_after_loss(now, &self.mailbox));
        }
    }

    /// Called when the stream ends, and when it is dropped: the program may hold a stream that has ended.
    #[cold]
    fn unsubscribe(&self) {
        let shared = self.channel.shared();
        if self.reader.is_some() {
            shared.command(|state, now| state.end_follower(now, &self.mailbox));
        }
        shared.with_state(|state| state.drop_mailbox(&self.mailbox));
        self.mailbox.clear();
    }

    /// Polls for the next event of a stream that catches up.
    fn poll_in_order(&mut self, cx: &Context<'_>) -> Poll<ChannelEvent> {
        let Some(reader) = &mut self.reader else { return Poll::Pending };
        loop {
            match reader.next() {
                Some(Read::Event(event)) => return Poll::Ready(event),
                Some(Read::Rejoin) => {
                    let joins = reader.joins();
                    self.channel.shared().command(|state, now| {
                        state.rejoin_to_catch_up(now, &self.mailbox, joins);
                    });
                }
                None => {
                    let item = ready!(self.mailbox.poll_item(cx));
                    if let Some(event) = reader.read(item) {
                        return Poll::Ready(event);
                    }
                }
            }
        }
    }
}

impl Stream for Messages {
    type Item = ChannelEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ChannelEvent>> {
        self.get_mut().poll_event(cx)
    }
}

impl FusedStream for Messages {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

/// The events of a channel, each with its topic, from [`Messages::with_topic`].
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is read"]
pub struct TopicMessages {
    messages: Messages,
}

impl TopicMessages {
    /// The next event and the topic of its channel; `None` after `Closed`.
    ///
    /// Cancel safe, like [`Messages::next`]. A disconnect is an event, not the end.
    pub async fn next(&mut self) -> Option<(Topic, ChannelEvent)> {
        let event = self.messages.next().await?;
        Some((self.messages.topic().clone(), event))
    }
}

impl Stream for TopicMessages {
    type Item = (Topic, ChannelEvent);

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let messages = &mut self.get_mut().messages;
        let event = ready!(messages.poll_event(cx));
        Poll::Ready(event.map(|event| (messages.topic().clone(), event)))
    }
}

impl FusedStream for TopicMessages {
    fn is_terminated(&self) -> bool {
        self.messages.is_terminated()
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.unsubscribe();
    }
}
