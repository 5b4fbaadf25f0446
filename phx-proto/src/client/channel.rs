//! The handle of a channel.

use core::future::poll_fn;
use core::task::{Poll, ready};
use core::time::Duration;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::capacity::push_when_ready;
use super::catch_up::CatchUp;
use super::client::Handle;
use super::error::{CallFailed, JoinFailed, PushFailed, RepeatFailed};
use super::mailbox::MailboxOptions;
use super::messages::{Messages, StreamEnd};
use super::presence::PresenceStream;
use super::repeat::{Repeated, push_repeating};
use super::state::{Shared, State, apply};
use super::subscribers::Subscriber;
use super::waiters::WaiterId;
use crate::catch_up::Cursor;
use crate::config::join_params::JoinParams;
use crate::event::applied::Released;
use crate::event::cause::{ChannelEnd, LeaveOutcome, PushOutcome, Reply};
use crate::event::error::{JoinError, NotWanted, PushError, PushErrorKind};
use crate::event::input::PushOptions;
use crate::event::repeat::RepeatOptions;
use crate::id::{InterestId, PushId};
use crate::socket::ChannelStatus;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// A handle of a channel: one interest in a topic, from [`Client::join`](super::Client::join) or
/// [`Client::want`](super::Client::want).
///
/// Clones share the interest. Handles of one topic that are made by several calls share one join on
/// the server; the topic is left when the last of them is dropped. A channel keeps its client
/// alive.
///
/// ```
/// # use phx_proto::client::Channel;
/// # async fn example(room: Channel) -> Result<(), Box<dyn std::error::Error>> {
/// let reply = room.push("new_msg", serde_json::json!({"body": "hi"})).await?.ok()?;
/// println!("{}", reply.get()?); // the response, as JSON text
/// room.cast("typing", serde_json::json!({})).await?; // no reply
/// room.leave().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Channel {
    inner: Arc<ChannelInner>,
}

/// How [`Channel::leave`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Left {
    /// The topic was left.
    #[error(transparent)]
    Left(LeaveOutcome),
    /// Other handles still want the topic. This handle has ended, and nothing was sent.
    #[error("other handles still want the topic")]
    Detached,
    /// The channel had already ended.
    #[error("the channel had already ended")]
    Gone,
}

#[derive(Debug)]
pub(super) struct ChannelInner {
    handle: Arc<Handle>,
    topic: Topic,
    interest: InterestId,
    mailbox: MailboxOptions,
    /// The mailbox that exists from the call of `join` or `want` until `messages` takes it. `None`
    /// for a handle of `Client::channel`.
    first: Option<Arc<Subscriber>>,
    first_taken: AtomicBool,
}

impl ChannelInner {
    pub(super) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    pub(super) const fn topic(&self) -> &Topic {
        &self.topic
    }

    pub(super) const fn interest(&self) -> InterestId {
        self.interest
    }

    pub(super) fn accept(
        &self,
        state: &mut State,
        now: Time,
        event: &str,
        payload: Payload,
        options: PushOptions,
    ) -> Result<PushId, PushError> {
        if !state.socket.is_interested(self.interest) {
            // This handle has ended, even if others keep the topic joined.
            return Err(PushError { kind: PushErrorKind::NotWanted, payload });
        }
        state.socket.push(now, &self.topic, event, payload, options)
    }

    /// Fails when this handle has ended, even if others keep the topic joined.
    fn check(&self, state: &State) -> Result<(), NotWanted> {
        if state.socket.is_interested(self.interest) {
            Ok(())
        } else {
            Err(NotWanted::new(self.topic.clone()))
        }
    }

    /// How the channel ended, if the handle's first mailbox recorded it.
    fn end(&self) -> JoinFailed {
        match self.first.as_ref().and_then(|first| first.lock().mailbox.end().cloned()) {
            Some(StreamEnd::Channel(ChannelEnd::Rejected(rejection))) => {
                JoinFailed::Rejected(rejection)
            }
            Some(StreamEnd::Channel(end)) => JoinFailed::Ended(end),
            _ => JoinFailed::NotAccepted(NotWanted::new(self.topic.clone()).into()),
        }
    }
}

impl Drop for ChannelInner {
    fn drop(&mut self) {
        let taken = self.first_taken.load(Ordering::Relaxed);
        self.shared().command(|state, now| {
            if let (Some(first), false) = (&self.first, taken) {
                state.end_follower(now, first);
                state.drop_mailbox(first);
            }
            match apply!(state, now, Release { interest: self.interest }) {
                Released::Leaving => state.end_topic(&self.topic, &ChannelEnd::Left),
                // An auto-join may keep the topic.
                Released::Detached | Released::Gone => state.remove_topic_if_unused(&self.topic),
            }
        });
    }
}

impl Channel {
    /// The interest must exist already. If the handle joined the topic, its mailbox must exist too.
    pub(super) fn new(
        handle: Arc<Handle>,
        topic: Topic,
        interest: InterestId,
        mailbox: MailboxOptions,
        first: Option<Arc<Subscriber>>,
    ) -> Self {
        let first_taken = AtomicBool::new(false);
        Self {
            inner: Arc::new(ChannelInner { handle, topic, interest, mailbox, first, first_taken }),
        }
    }

    /// Waits until the channel is joined, without a timeout; returns at once if it is joined.
    ///
    /// Disconnects, join timeouts and crashes do not end the wait. After the connection was lost,
    /// the future waits for the next join. If the server refuses an
    /// [auto-join](crate::Config::auto_join), the client retries it, and the refusal ends the wait
    /// only when no retry is left.
    ///
    /// Cancel safe: the wait changes nothing. Any number of futures may wait at once; each takes a
    /// small entry until it is dropped.
    ///
    /// ```
    /// # use phx_proto::client::{Client, JoinFailed};
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// // The configuration has `auto_join("orders", …)`.
    /// let orders = client.channel("orders")?;
    /// orders.joined().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`JoinFailed`] when the channel ends: the server refuses the join, the application leaves,
    /// or the connection is closed or gives up. [`JoinFailed::NotAccepted`] when the channel had
    /// already ended and the handle does not know the cause, because the handle's first stream was
    /// dropped or had ended before, or never existed.
    pub async fn joined(&self) -> Result<(), JoinFailed> {
        self.joined_within(Duration::MAX).await
    }

    /// [`joined`](Self::joined) with a deadline; `Duration::MAX` means no deadline.
    pub(super) async fn joined_within(&self, deadline: Duration) -> Result<(), JoinFailed> {
        wait_joined(&self.inner, deadline).await
    }

    /// Joins the channel again, to start over from the server's present state.
    ///
    /// No leave is sent: the new join replaces the old one, after the delay of a rejoin
    /// ([`Config::rejoin_after`](crate::Config::rejoin_after)). Every subscriber of the topic sees
    /// `Interrupted` and `Resumed`; pushes that wait for their reply end as
    /// [`Unknown`](PushFailed::Unknown). The call never waits. It does nothing while the channel is
    /// not joined, because a join is already due.
    ///
    /// # Errors
    ///
    /// [`NotWanted`] when the channel has ended.
    pub fn rejoin(&self) -> Result<(), NotWanted> {
        let Self { inner } = self;
        inner.shared().command(|state, now| {
            inner.check(state)?;
            apply!(state, now, Rejoin { topic: inner.topic.clone() })
        })
    }

    /// The topic of the channel.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.inner.topic
    }

    /// The state of the channel.
    #[must_use]
    pub fn status(&self) -> ChannelStatus {
        self.inner.shared().with_state(|state| state.socket.channel_status(&self.inner.topic))
    }

    /// The server's response to the present join; `None` while the channel is not joined.
    #[must_use]
    pub fn join_response(&self) -> Option<Payload> {
        self.inner
            .shared()
            .with_state(|state| state.socket.join_response(&self.inner.topic).cloned())
    }

    /// Replaces the parameters of future joins, for every handle of the topic. The present join is
    /// not affected.
    ///
    /// ```
    /// # use phx_proto::event::JoinError;
    /// # fn example(room: phx_proto::client::Channel) -> Result<(), JoinError> {
    /// room.set_join_params(serde_json::json!({"token": "a fresh one"}))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`JoinError`] when the channel has ended, or when a join with these parameters could not be
    /// sent.
    pub fn set_join_params(&self, params: impl Into<JoinParams>) -> Result<(), JoinError> {
        // The conversion is user code, so it runs before the lock is taken.
        let (topic, params) = (&self.inner.topic, params.into());
        self.inner.shared().command(|state, now| {
            // This handle may have ended by now, while another one wants the topic with other
            // parameters.
            self.inner.check(state)?;
            state.set_params(now, topic, params.clone())
        })
    }

    /// Pushes and waits for the reply, up to [`Config::push_timeout`](crate::Config::push_timeout).
    ///
    /// Disconnects do not end the wait while the push is unwritten. A reply of any status is `Ok`;
    /// [`Reply::ok`] turns every status but `ok` into an error.
    ///
    /// Cancel safe: dropping the future withdraws the push. If it was already written, the server
    /// may still handle it.
    ///
    /// ```
    /// # use phx_proto::client::{Channel, PushFailed};
    /// # async fn example(orders: Channel) {
    /// match orders.push("buy", serde_json::json!({"id": 7})).await {
    ///     Ok(reply) if reply.is_ok() => println!("bought"),
    ///     Ok(reply) => println!("{}: {:?}", reply.status, reply.response.get()),
    ///     Err(PushFailed::NotSent(_) | PushFailed::NotAccepted(_)) => println!("safe to repeat"),
    ///     Err(PushFailed::TimedOut | PushFailed::Unknown(_)) => println!("ask before you repeat"),
    ///     Err(other) => println!("{other}"),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PushFailed`]; after a disconnect, [`PushFailed::Unknown`] if the push had been written.
    pub async fn push(
        &self,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<Reply, PushFailed> {
        self.push_with(event, payload, PushOptions::call()).await
    }

    /// Like [`push`](Self::push), with [`PushOptions`](crate::PushOptions): another timeout, or an
    /// error at once when the channel is not joined.
    ///
    /// Cancel safe, and waits through disconnects, like [`push`](Self::push).
    ///
    /// # Errors
    ///
    /// The same as [`push`](Self::push).
    pub async fn push_with(
        &self,
        event: &str,
        payload: impl Into<Payload>,
        options: PushOptions,
    ) -> Result<Reply, PushFailed> {
        replied(self.run(event, payload.into(), PushOptions { cast: false, ..options }).await?)
    }

    /// Pushes a typed request and waits for a typed response, up to
    /// [`Config::push_timeout`](crate::Config::push_timeout).
    ///
    /// The request is serialized to JSON when the function is called. Otherwise this is a
    /// [`push`](Self::push): disconnects do not end the wait while the push is unwritten.
    ///
    /// Cancel safe: dropping the future withdraws the push. If it was already written, the server
    /// may still handle it.
    ///
    /// ```
    /// # use phx_proto::client::{CallFailed, Channel};
    /// # async fn example(orders: Channel) -> Result<(), CallFailed> {
    /// #[derive(serde::Serialize)]
    /// struct Buy { id: u32 }
    /// #[derive(serde::Deserialize)]
    /// struct Receipt { total: u64 }
    ///
    /// match orders.call::<Receipt>("buy", &Buy { id: 7 }).await {
    ///     Ok(receipt) => println!("bought for {}", receipt.total),
    ///     Err(refused) if refused.is_refused() => println!("{refused}"), // with the server's reason
    ///     Err(lost) if lost.is_safe_to_repeat() => println!("not bought: {lost}"),
    ///     Err(other) => return Err(other),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`CallFailed`]: the push did not end with a reply, the reply is not `ok`, or the request or
    /// the response does not fit its type. After a disconnect, [`PushFailed::Unknown`] if the push
    /// had been written.
    pub async fn call<T: DeserializeOwned>(
        &self,
        event: &str,
        request: &(impl Serialize + ?Sized),
    ) -> Result<T, CallFailed> {
        self.call_with(event, request, PushOptions::call()).await
    }

    /// Like [`call`](Self::call), with [`PushOptions`](crate::PushOptions): another timeout, or an
    /// error at once when the channel is not joined.
    ///
    /// Cancel safe, and waits through disconnects, like [`call`](Self::call).
    ///
    /// # Errors
    ///
    /// The same as [`call`](Self::call).
    pub async fn call_with<T: DeserializeOwned>(
        &self,
        event: &str,
        request: &(impl Serialize + ?Sized),
        options: PushOptions,
    ) -> Result<T, CallFailed> {
        let payload = Payload::json(request).map_err(CallFailed::Request)?;
        let response = self.push_with(event, payload, options).await?.ok()?;
        response.deserialize().map_err(|error| CallFailed::Response { error, response })
    }

    /// Like [`push`](Self::push), but waits while the push queue is full.
    ///
    /// Pushes that wait on one topic are accepted in the order of their calls. A plain `push` does
    /// not queue behind them, and a future that is not polled holds up the futures behind it. The
    /// timeout of the push begins when the queue accepts it. The wait before that has no timeout
    /// and continues through disconnects, during which the queue shrinks only by timeouts. A
    /// payload that does not fit an empty queue is an error. The queue does not count payloads that
    /// are still waiting, so the caller must bound the number of these futures.
    ///
    /// Cancel safe: dropping the future ends its wait, or withdraws the push.
    ///
    /// # Errors
    ///
    /// The same as [`push`](Self::push); [`PushFailed::NotAccepted`] when the channel ends during
    /// the wait.
    pub async fn push_when_ready(
        &self,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<Reply, PushFailed> {
        replied(self.run_when_ready(event, payload.into(), PushOptions::call()).await?)
    }

    /// Like [`cast`](Self::cast), but waits while the push queue is full, like
    /// [`push_when_ready`](Self::push_when_ready). A producer that awaits each cast is slowed to
    /// the speed of the network.
    ///
    /// Cancel safe: dropping the future ends its wait, or withdraws the push if it was not written.
    /// The wait continues through disconnects.
    ///
    /// ```
    /// # use phx_proto::client::{Channel, PushFailed};
    /// # async fn example(metrics: Channel, readings: Vec<u32>) -> Result<(), PushFailed> {
    /// for celsius in readings {
    ///     metrics.cast_when_ready("reading", serde_json::json!({ "celsius": celsius })).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`cast`](Self::cast); [`PushFailed::NotAccepted`] when the channel ends during
    /// the wait.
    pub async fn cast_when_ready(
        &self,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<(), PushFailed> {
        written(self.run_when_ready(event, payload.into(), PushOptions::cast()).await?)
    }

    /// Like [`push`](Self::push), for a payload that carries an idempotency key of the application: if
    /// the outcome is unknown, because the channel or the connection was lost or the reply did not
    /// come in time, the client pushes the same payload again.
    ///
    /// [`RepeatOptions`] names the member of the payload that is the key, and bounds the number of
    /// repeats and the time. A payload without the key is refused, and nothing is sent. The server
    /// must handle each key once; see [`RepeatOptions`].
    ///
    /// * The first attempt is a [`push`](Self::push). If it is not accepted or never written, that is
    ///   the result, and there is no repeat.
    /// * A repeat is pushed once the channel is joined: after the rejoin if it was lost, at once if it
    ///   is still joined. While the push queue is full it waits for space. If the channel is
    ///   interrupted before the repeat is written, it waits for the next join, and does not count.
    /// * There is no further attempt when the channel or the connection ends, the deadline passes, or
    ///   a repeat could not be written within its timeout. The result is then the outcome of the last
    ///   attempt that was written, so [`NotSent`](PushFailed::NotSent) always means that the server
    ///   cannot have received the push.
    /// * The reply to an attempt counts only until the attempt ends; a later one is dropped and counted
    ///   in [`Stats::late_replies`](crate::event::Stats::late_replies).
    /// * Each attempt is a push of its own in signals and events, with its own outcome. A
    ///   [`shutdown`](super::Client::shutdown) waits for the push with its repeats.
    ///
    /// The future repeats the push, so a future that is not polled does not repeat. While it waits for
    /// the join it holds the payload, which the push queue does not count; the caller must bound the
    /// number of these futures.
    ///
    /// Cancel safe: dropping the future withdraws the present attempt, and there is no further one. If
    /// an attempt was already written, the server may still handle it.
    ///
    /// ```
    /// # use phx_proto::client::{Channel, RepeatFailed};
    /// # async fn example(orders: Channel) -> Result<(), RepeatFailed> {
    /// use phx_proto::event::RepeatOptions;
    ///
    /// let order = serde_json::json!({"order_id": "7f3a", "item": "tea"});
    /// let bought = orders.push_repeating("buy", order, RepeatOptions::keyed_by("order_id")).await?;
    /// println!("{} after {} repeats", bought.reply.status, bought.repeats);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RepeatFailed`], with the number of repeats.
    /// [`PushErrorKind::NoKey`](crate::event::PushErrorKind::NoKey) for a payload without the key.
    pub async fn push_repeating(
        &self,
        event: &str,
        payload: impl Into<Payload>,
        options: RepeatOptions,
    ) -> Result<Repeated, RepeatFailed> {
        push_repeating(&self.inner, event, payload.into(), options).await
    }

    async fn run_when_ready(
        &self,
        event: &str,
        payload: Payload,
        options: PushOptions,
    ) -> Result<PushOutcome, PushFailed> {
        let Self { inner } = self;
        let (shared, topic, interest) = (inner.shared(), &inner.topic, inner.interest);
        push_when_ready(
            shared,
            (topic, interest),
            (Time::MAX, false),
            payload,
            |state, now, payload| inner.accept(state, now, event, payload, options),
        )
        .await
    }

    /// Pushes without waiting for a reply; returns when the frame is handed to the transport.
    ///
    /// Cancel safe: dropping the future withdraws the push if it was not written. The wait
    /// continues through disconnects, up to the timeout.
    ///
    /// # Errors
    ///
    /// [`PushFailed::NotAccepted`] and [`PushFailed::NotSent`].
    pub async fn cast(&self, event: &str, payload: impl Into<Payload>) -> Result<(), PushFailed> {
        self.cast_with(event, payload, PushOptions::cast()).await
    }

    /// Like [`cast`](Self::cast), with [`PushOptions`](crate::PushOptions): another timeout, or an
    /// error at once when the channel is not joined.
    ///
    /// Cancel safe, and waits through disconnects, like [`cast`](Self::cast).
    ///
    /// # Errors
    ///
    /// The same as [`cast`](Self::cast).
    pub async fn cast_with(
        &self,
        event: &str,
        payload: impl Into<Payload>,
        options: PushOptions,
    ) -> Result<(), PushFailed> {
        written(self.run(event, payload.into(), PushOptions { cast: true, ..options }).await?)
    }

    async fn run(
        &self,
        event: &str,
        payload: Payload,
        options: PushOptions,
    ) -> Result<PushOutcome, PushFailed> {
        let Self { inner } = self;
        push_and_wait(inner.shared(), payload, |state, now, payload| {
            inner.accept(state, now, event, payload, options)
        })
        .await
    }

    /// A stream of the events of the channel.
    ///
    /// The first stream of a handle from [`Client::join`](super::Client::join) or
    /// [`Client::want`](super::Client::want) contains everything since the call of that function,
    /// such as the `presence_state` that follows right after the join's ok. Later streams, and
    /// every stream of a handle from [`Client::channel`](super::Client::channel), begin when they
    /// are made ([`Messages::starts_now`]). Each stream has its own mailbox, bounded by
    /// [`Config::mailbox`](crate::Config::mailbox).
    ///
    /// ```
    /// # use phx_proto::client::{Channel, ChannelEvent};
    /// # async fn example(room: Channel) {
    /// let mut events = room.messages();
    /// while let Some(event) = events.next().await {
    ///     match event {
    ///         ChannelEvent::Message(message) => println!("{}", message.event()),
    ///         ChannelEvent::Interrupted { cause, .. } => println!("interrupted: {cause}"),
    ///         ChannelEvent::Resumed { .. } => println!("back; something may have been missed"),
    ///         ChannelEvent::Lagged(count) => println!("{count} messages lost"),
    ///         ChannelEvent::Closed(end) => println!("ended: {end}"),
    ///         other => println!("{other:?}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn messages(&self) -> Messages {
        let inner = &self.inner;
        let taken = inner.first_taken.swap(true, Ordering::Relaxed);
        let first = inner.first.as_ref().filter(|_| !taken);
        let mailbox = inner.shared().command(|state, _| {
            let mailbox = match first {
                Some(first) => Arc::clone(first),
                None => state.add_mailbox(&inner.topic, inner.interest, inner.mailbox),
            };
            state.read_mailbox(&mailbox);
            mailbox
        });
        let reader = first.and_then(|first| first.reader());
        Messages::new(Arc::clone(inner), mailbox, first.is_none(), reader)
    }

    /// The position of the last message that the handle's first stream returned, to be stored and passed
    /// to [`CatchUp::cursor`](super::CatchUp::cursor) later. `None` for a handle that does not
    /// [catch up](JoinOptions::catch_up).
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.inner.first.as_ref().and_then(|first| first.cursor())
    }

    /// A stream of the messages of one event and of the channel's lifecycle events; see
    /// [`on_any`](Self::on_any).
    ///
    /// ```
    /// # use phx_proto::client::{Channel, ChannelEvent};
    /// # async fn example(room: Channel) {
    /// let mut shouts = room.on("shout");
    /// while let Some(event) = shouts.next().await {
    ///     if let ChannelEvent::Message(shout) = event {
    ///         println!("{:?}", shout.payload());
    ///     }
    /// }
    /// # }
    /// ```
    pub fn on(&self, event: impl Into<String>) -> Messages {
        self.on_any([event])
    }

    /// A stream of the messages of these events and of the channel's lifecycle events:
    /// interruptions, resumptions, losses and the end. Each lifecycle event has its place between
    /// the messages.
    ///
    /// The stream has its own mailbox, with the bounds and the policy of the handle
    /// ([`JoinOptions::mailbox`]), so a flood of other events cannot fill it. On a handle of
    /// [`Client::join`](super::Client::join) or [`Client::want`](super::Client::want), before the
    /// first call of [`messages`](Self::messages), the stream begins with the messages that the
    /// handle's first mailbox still holds. Messages that this mailbox has dropped are reported as
    /// `Lagged`, even if they were other events. After that call, and on other handles, it begins
    /// when it is made ([`Messages::starts_now`]). The call never waits.
    ///
    /// ```
    /// # use phx_proto::client::{Channel, ChannelEvent};
    /// # async fn example(prices: Channel) {
    /// let mut trades = prices.on_any(["trade", "correction"]);
    /// while let Some(event) = trades.next().await {
    ///     if let ChannelEvent::Message(message) = event {
    ///         println!("{}: {:?}", message.event(), message.payload());
    ///     }
    /// }
    /// # }
    /// ```
    pub fn on_any<E: Into<String>>(&self, events: impl IntoIterator<Item = E>) -> Messages {
        self.on_any_with(events, self.inner.mailbox)
    }

    /// Like [`on_any`](Self::on_any), with other bounds or another policy for the mailbox.
    ///
    /// ```
    /// # use phx_proto::client::{Channel, MailboxOptions, MailboxPolicy};
    /// # fn example(prices: Channel) {
    /// // Every trade counts; of the quotes only the latest does.
    /// let trades = MailboxOptions::new().messages(10_000).policy(MailboxPolicy::Close);
    /// let mut trades = prices.on_any_with(["trade", "correction"], trades);
    /// let mut quotes = prices.on_any_with(["quote"], MailboxOptions::new().messages(1));
    /// # let _ = (trades, quotes);
    /// # }
    /// ```
    pub fn on_any_with<E: Into<String>>(
        &self,
        events: impl IntoIterator<Item = E>,
        options: MailboxOptions,
    ) -> Messages {
        let inner = &self.inner;
        // The iterator is user code, so it runs before the lock is taken.
        let events = events.into_iter().map(Into::into).collect();
        let taken = inner.first_taken.load(Ordering::Relaxed);
        let first = inner.first.as_ref().filter(|_| !taken);
        let mailbox = inner.shared().command(|state, _| {
            let of = (&inner.topic, inner.interest);
            let mailbox = state.add_mailbox_of(of, events, options, first.map(|first| &**first));
            state.read_mailbox(&mailbox);
            mailbox
        });
        Messages::new(Arc::clone(inner), mailbox, first.is_none(), None)
    }

    /// The presences of the channel: a list, and a stream of its changes.
    ///
    /// The list starts from the state that the server sent after the last join. The client keeps
    /// that state and the diffs after it, up to 256 messages and 1 MiB, if the topic had a handle at
    /// that join and has had one since. Otherwise, or if these messages exceeded a bound, the channel is
    /// joined again to get the state, like with [`rejoin`](Self::rejoin).
    ///
    /// ```
    /// # async fn example(room: phx_proto::client::Channel) {
    /// use phx_proto::client::PresenceEvent;
    ///
    /// let mut presence = room.presence();
    /// while let Some(event) = presence.next().await {
    ///     if let PresenceEvent::Change(change) = event {
    ///         println!("{change:?}: {} present", presence.list().count());
    ///     }
    /// }
    /// # }
    /// ```
    pub fn presence(&self) -> PresenceStream {
        self.presence_as()
    }

    /// Like [`presence`](Self::presence), with metas of the application's own type.
    ///
    /// ```
    /// # use phx_proto::client::{Channel, StreamEnd};
    /// # async fn example(room: Channel) -> Result<(), StreamEnd> {
    /// #[derive(Clone, serde::Deserialize)]
    /// struct Meta {
    ///     device: String,
    /// }
    ///
    /// let mut presence = room.presence_as::<Meta>();
    /// presence.synced().await?;
    /// for (user, entry) in presence.list() {
    ///     let devices: Vec<_> = entry.metas.iter().map(|meta| &meta.data.device).collect();
    ///     println!("{user}: {devices:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn presence_as<M: Clone + DeserializeOwned>(&self) -> PresenceStream<M> {
        let inner = &self.inner;
        let (mailbox, log) = inner
            .shared()
            .command(|state, now| state.add_presence(now, &inner.topic, inner.interest));
        PresenceStream::new(Arc::clone(inner), mailbox, log)
    }

    /// Ends this interest, and leaves the topic if it was the last one. Streams and clones of this
    /// handle end too.
    ///
    /// Cancel safe: the topic is still left when the future is dropped. A disconnect ends the leave
    /// with [`LeaveOutcome::Offline`].
    pub async fn leave(self) -> Left {
        let shared = self.inner.shared();
        let leave = shared.command(|state, now| {
            match apply!(state, now, Release { interest: self.inner.interest }) {
                Released::Leaving => {
                    let id = state.await_leave(&self.inner.topic);
                    state.end_topic(&self.inner.topic, &ChannelEnd::Left);
                    Ok(id)
                }
                Released::Detached => {
                    state.detach(now, &self.inner.topic, self.inner.interest);
                    Err(Left::Detached)
                }
                Released::Gone => Err(Left::Gone),
            }
        });
        match leave {
            Ok(id) => Left::Left(PendingLeave { shared, id }.outcome().await),
            Err(left) => left,
        }
    }
}

/// Waits until a channel is joined, up to a deadline; `Duration::MAX` means no deadline.
pub(super) async fn wait_joined(
    inner: &ChannelInner,
    deadline: Duration,
) -> Result<(), JoinFailed> {
    let shared = inner.shared();
    let id = shared.command(|state, now| {
        if !state.socket.is_interested(inner.interest) {
            return Err(inner.end());
        }
        let deadline = (deadline != Duration::MAX).then_some(now + deadline);
        Ok(state.await_join(inner.interest, &inner.topic, deadline))
    })?;
    PendingJoin { shared, id }.result().await
}

/// Pushes and waits for the outcome. Dropping the future before the outcome withdraws the push.
pub(super) async fn push_and_wait(
    shared: &Shared,
    payload: Payload,
    mut accept: impl FnMut(&mut State, Time, Payload) -> Result<PushId, PushError>,
) -> Result<PushOutcome, PushFailed> {
    // The core drops its reference to the payload under the lock. This reference lives longer, so
    // memory of the application is not freed under the lock.
    let _kept = payload.shared();
    let mut payload = Some(payload);
    let mut pending = PendingPush { shared, id: None };
    poll_fn(|cx| {
        if let Some(id) = pending.id {
            let outcome = ready!(shared.poll_waiter(cx, |state| state.push_outcome(id)));
            pending.id = None;
            return Poll::Ready(Ok(outcome));
        }
        let payload = payload.take().unwrap_or_else(Payload::empty);
        let mut waker = Some(cx.waker().clone());
        let accepted = shared.command(|state, now| {
            let id = accept(state, now, payload)?;
            state.await_push(id, waker.take());
            Ok::<_, PushFailed>(id)
        });
        // The stored waker is woken when the outcome arrives. An outcome that arrived while the
        // push was accepted has woken it already.
        pending.id = Some(accepted?);
        Poll::Pending
    })
    .await
}

/// The result of a call, from the outcome of its push.
pub(super) fn replied(outcome: PushOutcome) -> Result<Reply, PushFailed> {
    match outcome {
        PushOutcome::Reply(reply) => Ok(reply),
        outcome => Err(failed(outcome)),
    }
}

/// The result of a cast, from the outcome of its push.
pub(super) fn written(outcome: PushOutcome) -> Result<(), PushFailed> {
    match outcome {
        PushOutcome::Written => Ok(()),
        outcome => Err(failed(outcome)),
    }
}

fn failed(outcome: PushOutcome) -> PushFailed {
    match outcome {
        PushOutcome::TimedOut => PushFailed::TimedOut,
        PushOutcome::Unknown(cause) => PushFailed::Unknown(cause),
        PushOutcome::NotSent(cause) => PushFailed::NotSent(cause),
        // A call cannot end with `Written`, and a cast cannot end with `Reply`.
        PushOutcome::Cancelled | PushOutcome::Written | PushOutcome::Reply(_) => {
            PushFailed::Cancelled
        }
    }
}

/// A push whose outcome is awaited; dropping it withdraws the push.
pub(super) struct PendingPush<'a> {
    pub(super) shared: &'a Shared,
    /// The id is set from the acceptance of the push until its outcome is taken.
    pub(super) id: Option<PushId>,
}

impl Drop for PendingPush<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let waiter = self.shared.with_state(|state| state.remove_push(id));
        if waiter.is_some() {
            self.shared.command(|state, now| apply!(state, now, CancelPush { id }));
        }
    }
}

/// A join that is awaited; dropping it removes its waiter.
struct PendingJoin<'a> {
    shared: &'a Shared,
    id: WaiterId,
}

impl PendingJoin<'_> {
    async fn result(self) -> Result<(), JoinFailed> {
        poll_fn(|cx| self.shared.poll_waiter(cx, |state| state.join_result(self.id))).await
    }
}

impl Drop for PendingJoin<'_> {
    fn drop(&mut self) {
        drop(self.shared.with_state(|state| state.remove_join(self.id)));
    }
}

/// A leave that is awaited; dropping it removes its waiter and does not stop the leave.
pub(super) struct PendingLeave<'a> {
    pub(super) shared: &'a Shared,
    pub(super) id: WaiterId,
}

impl PendingLeave<'_> {
    pub(super) async fn outcome(self) -> LeaveOutcome {
        poll_fn(|cx| self.shared.poll_waiter(cx, |state| state.leave_outcome(self.id))).await
    }
}

impl Drop for PendingLeave<'_> {
    fn drop(&mut self) {
        drop(self.shared.with_state(|state| state.waiters.remove(self.id)));
    }
}

/// Options of a join: deadline, mailbox, what happens to conflicting parameters, and how the
/// consumer catches up after an interruption.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    pub(super) deadline: Duration,
    pub(super) mailbox: MailboxOptions,
    pub(super) replace_params: bool,
    pub(super) catch_up: Option<CatchUp>,
}

impl JoinOptions {
    /// The defaults: a deadline of 30 s, mailboxes with the bounds of
    /// [`Config::mailbox`](crate::Config::mailbox) and the policy
    /// [`DropOldest`](super::MailboxPolicy::DropOldest), and an error for conflicting parameters.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            deadline: super::state::JOIN_DEADLINE,
            mailbox: MailboxOptions::new(),
            replace_params: false,
            catch_up: None,
        }
    }

    /// How long to wait for the server's first ok, from the call. `Duration::MAX` means [no
    /// deadline](Self::no_deadline).
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Waits for the first ok without a deadline. A refusal by the server and the end of the
    /// connection still end the join.
    #[must_use]
    pub const fn no_deadline(self) -> Self {
        self.deadline(Duration::MAX)
    }

    /// If the topic is already wanted with other parameters or another function, replaces them for
    /// every handle of the topic, from the next join on, like [`Channel::set_join_params`]. By
    /// default this case is [`JoinError::ConflictingParams`], so that two parts of a program do not
    /// overwrite each other's parameters.
    #[must_use]
    pub const fn replace_params(mut self) -> Self {
        self.replace_params = true;
        self
    }

    /// The bounds and the policy of the handle's mailboxes: [`MailboxOptions`], or a
    /// [`MailboxPolicy`](super::MailboxPolicy) alone, which keeps the bounds of
    /// [`Config::mailbox`](crate::Config::mailbox). They apply to [`Channel::messages`],
    /// [`Channel::on`] and [`Channel::on_any`].
    ///
    /// ```
    /// use phx_proto::client::{JoinOptions, MailboxOptions, MailboxPolicy};
    ///
    /// // Only the 16 newest readings wait for the consumer.
    /// let few = JoinOptions::new().mailbox(MailboxOptions::new().messages(16));
    /// // The default bounds, with another policy.
    /// let strict = JoinOptions::new().mailbox(MailboxPolicy::Close);
    /// # let _ = (few, strict);
    /// ```
    #[must_use]
    pub fn mailbox(mut self, mailbox: impl Into<MailboxOptions>) -> Self {
        self.mailbox = mailbox.into();
        self
    }

    /// Lets the first stream of this handle catch up: [`messages`](Channel::messages) yields every
    /// message that the server can replay, each once and in order, across interruptions and a full
    /// mailbox. It needs a server that keeps the contract of [`catch_up`](crate::catch_up). By default a
    /// stream shows the messages as they arrive, and an interruption is a gap.
    ///
    /// * The position of the last message that the stream returned is added to the parameters of every
    ///   join, which must be a JSON object. A function of
    ///   [`JoinParams::from_fn`](crate::JoinParams::from_fn) that returns something else ends the channel,
    ///   as if it had panicked. So do fixed parameters that are something else, if the handle is one of
    ///   [`Client::channel_with`](super::Client::channel_with), which does not check them.
    /// * The stream yields [`ChannelEvent::CaughtUp`](super::ChannelEvent::CaughtUp) after each replay,
    ///   and [`ChannelEvent::GapRemains`](super::ChannelEvent::GapRemains) where the server no longer has
    ///   messages and the client can know that.
    /// * A full mailbox keeps what it holds, drops the messages that follow, and has the channel joined
    ///   again when the consumer has taken what it held. A consumer that stops reading therefore causes
    ///   no join. This holds for every policy but [`MailboxPolicy::Close`](super::MailboxPolicy::Close).
    ///   `Lagged` counts only messages without a position.
    /// * During a replay, live messages are held back in addition to those in the mailbox, up to the
    ///   bounds of the mailbox.
    /// * Further streams of the handle show replayed messages as the server sends them.
    ///
    /// Several handles of a topic may catch up, each from its own position. Their joins begin after the
    /// smallest one, and each stream skips what it has seen. A handle that continues from a cursor while
    /// the topic is already joined has it joined again.
    ///
    /// ```
    /// # use phx_proto::client::{Client, JoinFailed};
    /// # async fn example(client: Client, saved: phx_proto::catch_up::Cursor) -> Result<(), JoinFailed> {
    /// use phx_proto::client::{CatchUp, ChannelEvent, JoinOptions, Message};
    /// use serde_json::json;
    ///
    /// let position_of = |order: &Message| order.payload().to_value().ok()?["pos"].as_u64();
    /// let options = JoinOptions::new().catch_up(CatchUp::new(position_of).cursor(saved));
    /// let mut orders = client.join_with("orders", json!({}), options).await?.messages();
    /// while let Some(event) = orders.next().await {
    ///     match event {
    ///         ChannelEvent::Message(order) => println!("{}", order.event()),
    ///         ChannelEvent::GapRemains { after, through } => println!("lost {after:?}..{through:?}"),
    ///         _ => {}
    ///     }
    ///     // Store `orders.cursor()` together with what was processed.
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn catch_up(mut self, catch_up: CatchUp) -> Self {
        self.catch_up = Some(catch_up);
        self
    }
}

impl Default for JoinOptions {
    fn default() -> Self {
        Self::new()
    }
}
