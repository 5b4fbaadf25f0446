//! The handle of a channel.

use core::future::poll_fn;
use core::task::{Poll, ready};
use core::time::Duration;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::capacity::push_when_ready;
use super::client::Handle;
use super::error::{CallFailed, JoinFailed, PushFailed};
use super::mailbox::{MailboxOptions, MailboxPolicy};
use super::messages::{Messages, StreamEnd};
use super::presence::PresenceStream;
use super::state::{Shared, State, apply};
use super::subscribers::Subscriber;
use super::waiters::WaiterId;
use crate::config::join_params::JoinParams;
use crate::event::applied::Released;
use crate::event::cause::{ChannelEnd, LeaveOutcome, PushOutcome, Reply};
use crate::event::error::{JoinError, NotWanted, PushError, PushErrorKind};
use crate::event::input::PushOptions;
use crate::id::{InterestId, PushId};
use crate::socket::ChannelStatus;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// One interest in a topic, from [`Client::join`](super::Client::join) and
/// [`Client::want`](super::Client::want).
///
/// Clones share the interest. Several handles of a topic, made by several calls, share one join
/// on the server; when the last of them is dropped, the topic is left. A channel keeps its client
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
    /// Others still want the topic: this handle is done with it, and nothing was sent.
    #[error("other handles still want the topic")]
    Detached,
    /// The channel had ended before.
    #[error("the channel had ended before")]
    Gone,
}

#[derive(Debug)]
pub(super) struct ChannelInner {
    handle: Arc<Handle>,
    topic: Topic,
    interest: InterestId,
    policy: MailboxPolicy,
    /// The mailbox from the join call on, until `messages` takes it. A handle that did not join has
    /// none.
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

    fn accept(
        &self,
        state: &mut State,
        now: Time,
        event: &str,
        payload: Payload,
        options: PushOptions,
    ) -> Result<PushId, PushError> {
        if !state.socket.is_interested(self.interest) {
            // This handle is done, even if others keep the topic joined.
            return Err(PushError { kind: PushErrorKind::NotWanted, payload });
        }
        state.socket.push(now, &self.topic, event, payload, options)
    }

    /// Fails when this handle is done, even if others keep the topic joined.
    fn check(&self, state: &State) -> Result<(), NotWanted> {
        if state.socket.is_interested(self.interest) {
            Ok(())
        } else {
            Err(NotWanted::new(self.topic.clone()))
        }
    }

    /// How the channel ended, as far as the first mailbox of the handle was there to see it.
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
                state.drop_mailbox(first);
            }
            if apply!(state, now, Release { interest: self.interest }) == Released::Leaving {
                state.end_topic(&self.topic, &ChannelEnd::Left);
            }
        });
    }
}

impl Channel {
    /// The interest, and the mailbox of one that joined, must exist already.
    pub(super) fn new(
        handle: Arc<Handle>,
        topic: Topic,
        interest: InterestId,
        policy: MailboxPolicy,
        first: Option<Arc<Subscriber>>,
    ) -> Self {
        let first_taken = AtomicBool::new(false);
        Self {
            inner: Arc::new(ChannelInner { handle, topic, interest, policy, first, first_taken }),
        }
    }

    /// Waits until the channel is joined, for as long as that takes; returns at once while it is.
    ///
    /// It waits through disconnects, join timeouts and crashes, and for the next join after a loss. Of an
    /// [auto-join](crate::Config::auto_join) it waits through refusals too, as they are tried again.
    ///
    /// Cancel safe: it only looks. Any number of futures may wait at once; each costs a small entry
    /// until it is dropped.
    ///
    /// ```
    /// # use phx_proto::client::{Client, JoinFailed};
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// // The configuration says `auto_join("orders", …)`.
    /// let orders = client.channel("orders")?;
    /// orders.joined().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`JoinFailed`] when the channel ends: the server refuses the join, the application leaves, the
    /// connection is closed or gives up. [`JoinFailed::NotAccepted`] when it had ended before, and why is
    /// not known any more: the first stream of the handle was dropped before it, or there was none.
    pub async fn joined(&self) -> Result<(), JoinFailed> {
        self.joined_within(Duration::MAX).await
    }

    /// [`joined`](Self::joined) for at most so long; `Duration::MAX` means without a deadline.
    pub(super) async fn joined_within(&self, deadline: Duration) -> Result<(), JoinFailed> {
        let Self { inner } = self;
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

    /// Has the server join the channel again, to start over from its present state.
    ///
    /// No leave is sent: the new join replaces the old one, after the delay of a rejoin
    /// ([`Config::rejoin_after`](crate::Config::rejoin_after)). Every subscriber of the topic sees
    /// `Interrupted` and `Resumed`; pushes that wait for their reply end
    /// [`Unknown`](PushFailed::Unknown). While the channel is not joined a join is on its way already, and
    /// nothing changes. Not async, and never waits.
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

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.inner.topic
    }

    /// The state of the channel.
    #[must_use]
    pub fn status(&self) -> ChannelStatus {
        self.inner.shared().peek(|state| state.socket.channel_status(&self.inner.topic))
    }

    /// The server's response to the join that holds; none while the channel is not joined.
    #[must_use]
    pub fn join_response(&self) -> Option<Payload> {
        self.inner.shared().peek(|state| state.socket.join_response(&self.inner.topic).cloned())
    }

    /// Replaces the parameters of the joins to come, for every handle of the topic. The channel
    /// stays as it is until it is joined again.
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
    /// [`JoinError`] when the channel has ended, or its join could not be sent with them.
    pub fn set_join_params(&self, params: impl Into<JoinParams>) -> Result<(), JoinError> {
        // Converted before the lock is taken: that is user code.
        let (topic, params) = (&self.inner.topic, params.into());
        self.inner.shared().command(|state, now| {
            // Another handle may want the topic by now, with parameters of its own.
            self.inner.check(state)?;
            apply!(state, now, SetJoinParams { topic: topic.clone(), params: params.clone() })?;
            state.hold(topic.clone(), params.clone());
            Ok(())
        })
    }

    /// Pushes and waits for the reply, for up to
    /// [`Config::push_timeout`](crate::Config::push_timeout).
    ///
    /// It waits through disconnects as long as it has not been written. A reply of any status is
    /// `Ok`; [`Reply::ok`] tells them apart.
    ///
    /// Cancel safe: dropping the future withdraws the push. If it was written already, the
    /// server may handle it all the same.
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
    /// [`PushFailed`]; after a disconnect, [`PushFailed::Unknown`] if it had been written.
    pub async fn push(
        &self,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<Reply, PushFailed> {
        self.push_with(event, payload, PushOptions::call()).await
    }

    /// [`push`](Self::push) with a timeout of its own, or failing fast when not joined.
    ///
    /// Cancel safe, and through disconnects, as [`push`](Self::push).
    ///
    /// # Errors
    ///
    /// [`PushFailed`].
    pub async fn push_with(
        &self,
        event: &str,
        payload: impl Into<Payload>,
        options: PushOptions,
    ) -> Result<Reply, PushFailed> {
        replied(self.run(event, payload.into(), PushOptions { cast: false, ..options }).await?)
    }

    /// Pushes a request of a type of your own, and waits for a response of one, for up to
    /// [`Config::push_timeout`](crate::Config::push_timeout).
    ///
    /// The request is written as JSON at the call. In all else it is a [`push`](Self::push): it waits
    /// through disconnects as long as it has not been written.
    ///
    /// Cancel safe: dropping the future withdraws the push. If it was written already, the server may
    /// handle it all the same.
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
    ///     Err(no) if no.is_refused() => println!("{no}"), // with the server's reason
    ///     Err(lost) if lost.is_safe_to_repeat() => println!("not bought: {lost}"),
    ///     Err(other) => return Err(other),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`CallFailed`]: the push did not end with a reply, the reply is not `ok`, or request or response
    /// do not fit their types. After a disconnect, [`PushFailed::Unknown`] if it had been written.
    pub async fn call<T: DeserializeOwned>(
        &self,
        event: &str,
        request: &(impl Serialize + ?Sized),
    ) -> Result<T, CallFailed> {
        self.call_with(event, request, PushOptions::call()).await
    }

    /// [`call`](Self::call) with a timeout of its own, or failing fast when not joined.
    ///
    /// Cancel safe, and through disconnects, as [`call`](Self::call).
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
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

    /// [`push`](Self::push), but waits for as long as the push queue is full.
    ///
    /// Pushes that wait on a topic are accepted in the order of their calls. A plain `push` does not wait
    /// its turn, and a future that is not polled holds up those behind it. The timeout of the push begins
    /// when it is accepted. The wait before it has no limit of its own, and goes on through disconnects,
    /// during which the queue shrinks by timeouts only. A payload that would not fit an empty queue is an
    /// error. Payloads that wait are not counted by the queue: bound the number of such futures yourself.
    ///
    /// Cancel safe: dropping the future takes it out of the line, or withdraws the push.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push); when the channel ends while it waits, [`PushFailed::NotAccepted`].
    pub async fn push_when_ready(
        &self,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<Reply, PushFailed> {
        replied(self.run_when_ready(event, payload.into(), PushOptions::call()).await?)
    }

    /// [`cast`](Self::cast), but waits for as long as the push queue is full, as
    /// [`push_when_ready`](Self::push_when_ready) does: a producer that awaits each cast goes as fast as
    /// the network.
    ///
    /// Cancel safe: dropping the future takes it out of the line, or withdraws the push if it was not
    /// written. It waits through disconnects.
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
    /// As [`cast`](Self::cast); when the channel ends while it waits, [`PushFailed::NotAccepted`].
    pub async fn cast_when_ready(
        &self,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<(), PushFailed> {
        written(self.run_when_ready(event, payload.into(), PushOptions::cast()).await?)
    }

    async fn run_when_ready(
        &self,
        event: &str,
        payload: Payload,
        options: PushOptions,
    ) -> Result<PushOutcome, PushFailed> {
        let Self { inner } = self;
        let (shared, topic, interest) = (inner.shared(), &inner.topic, inner.interest);
        push_when_ready(shared, topic, interest, payload, |state, now, payload| {
            inner.accept(state, now, event, payload, options)
        })
        .await
    }

    /// Pushes without waiting for a reply: done when the frame is handed to the transport.
    ///
    /// Cancel safe: dropping the future withdraws the push if it was not written. It waits
    /// through disconnects, up to the timeout.
    ///
    /// # Errors
    ///
    /// [`PushFailed::NotAccepted`] and [`PushFailed::NotSent`].
    pub async fn cast(&self, event: &str, payload: impl Into<Payload>) -> Result<(), PushFailed> {
        self.cast_with(event, payload, PushOptions::cast()).await
    }

    /// [`cast`](Self::cast) with a timeout of its own, or failing fast when not joined.
    ///
    /// Cancel safe, and through disconnects, as [`cast`](Self::cast).
    ///
    /// # Errors
    ///
    /// As [`cast`](Self::cast).
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

    /// The events of the channel.
    ///
    /// The first call on a handle of [`Client::join`](super::Client::join) or
    /// [`Client::want`](super::Client::want) sees everything since the join was asked for, such as the
    /// `presence_state` that comes right behind its ok. Later calls, and those on a handle of
    /// [`Client::channel`](super::Client::channel), begin now ([`Messages::starts_now`]). Each
    /// stream has a mailbox of its own, bounded by [`Config::mailbox`](crate::Config::mailbox).
    ///
    /// ```
    /// # use phx_proto::client::{Channel, ChannelEvent};
    /// # async fn example(room: Channel) {
    /// let mut events = room.messages();
    /// while let Some(event) = events.next().await {
    ///     match event {
    ///         ChannelEvent::Message(message) => println!("{}", message.event()),
    ///         ChannelEvent::Interrupted { cause, .. } => println!("gone: {cause:?}"),
    ///         ChannelEvent::Resumed { .. } => println!("back; something may have been missed"),
    ///         ChannelEvent::Lagged(count) => println!("too slow for {count} messages"),
    ///         ChannelEvent::Closed(end) => println!("the end: {end:?}"),
    ///         other => println!("{other:?}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn messages(&self) -> Messages {
        let inner = &self.inner;
        let taken = inner.first_taken.swap(true, Ordering::Relaxed);
        let first = inner.first.as_ref().filter(|_| !taken);
        let mailbox = inner.shared().command(|state, now| {
            let mailbox = match first {
                Some(first) => Arc::clone(first),
                None => state.add_mailbox(&inner.topic, inner.interest, inner.policy),
            };
            state.read_mailbox(now, &mailbox);
            mailbox
        });
        Messages::new(Arc::clone(inner), mailbox, first.is_none())
    }

    /// The messages of one event, and whatever else happens on the channel; see
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

    /// The messages of these events, with whatever else happens on the channel at its place between
    /// them: interruptions, resumptions, losses, the end.
    ///
    /// The stream has a mailbox of its own, bounded by [`Config::mailbox`](crate::Config::mailbox), so a
    /// flood of other events cannot fill it. On a handle of [`Client::join`](super::Client::join) or
    /// [`Client::want`](super::Client::want) it begins with the join, as far as the handle's first mailbox
    /// still holds the messages, until [`messages`](Self::messages) has taken that; after it, and on other
    /// handles, it begins now ([`Messages::starts_now`]). What was lost of the first mailbox is `Lagged`,
    /// whatever its events were. Not async, and never waits.
    pub fn on_any<E: Into<String>>(&self, events: impl IntoIterator<Item = E>) -> Messages {
        self.on_any_with(events, MailboxOptions::new().policy(self.inner.policy))
    }

    /// [`on_any`](Self::on_any) with a mailbox of other bounds or another policy.
    ///
    /// ```
    /// # use phx_proto::client::{Channel, MailboxOptions, MailboxPolicy};
    /// # fn example(prices: Channel) {
    /// // Of trades every one counts, of quotes the latest.
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
        // Before the lock is taken: that is user code.
        let events = events.into_iter().map(Into::into).collect();
        let taken = inner.first_taken.load(Ordering::Relaxed);
        let first = inner.first.as_ref().filter(|_| !taken);
        let mailbox = inner.shared().command(|state, now| {
            let of = (&inner.topic, inner.interest);
            let mailbox = state.add_mailbox_of(of, events, options, first.map(|first| &**first));
            state.read_mailbox(now, &mailbox);
            mailbox
        });
        Messages::new(Arc::clone(inner), mailbox, first.is_none())
    }

    /// Who is present on the channel: a list, and a stream of what changes.
    ///
    /// It starts from the state that the server sent after the last join. When that was too long
    /// ago to be known still (256 diffs, or 1 MiB), or nobody held the channel then, the channel
    /// is joined anew to get it.
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

    /// [`presence`](Self::presence), with metas of the application's own type.
    pub fn presence_as<M: Clone + DeserializeOwned>(&self) -> PresenceStream<M> {
        let inner = &self.inner;
        let (mailbox, log) = inner
            .shared()
            .command(|state, now| state.add_presence(now, &inner.topic, inner.interest));
        PresenceStream::new(Arc::clone(inner), mailbox, log)
    }

    /// Gives this interest up, and leaves the topic if it was the last one. Streams and clones
    /// of this handle are done with it too.
    ///
    /// Cancel safe: the leave goes on when the future is dropped. A disconnect ends it with
    /// [`LeaveOutcome::Offline`].
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
                    state.detach(&self.inner.topic, self.inner.interest);
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

/// Pushes and waits for the outcome; withdraws the push when the future is dropped before that.
pub(super) async fn push_and_wait(
    shared: &Shared,
    payload: Payload,
    mut accept: impl FnMut(&mut State, Time, Payload) -> Result<PushId, PushError>,
) -> Result<PushOutcome, PushFailed> {
    // The core drops its payload under the lock, so that must not be the last one of memory
    // that the application owns. This one outlives it.
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
        // Woken when the outcome is there, which may be already.
        pending.id = Some(accepted?);
        Poll::Pending
    })
    .await
}

/// What the outcome of a call is to its caller.
pub(super) fn replied(outcome: PushOutcome) -> Result<Reply, PushFailed> {
    match outcome {
        PushOutcome::Reply(reply) => Ok(reply),
        outcome => Err(failed(outcome)),
    }
}

/// What the outcome of a cast is to its caller.
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
        // A call cannot end as written, nor a cast with a reply.
        PushOutcome::Cancelled | PushOutcome::Written | PushOutcome::Reply(_) => {
            PushFailed::Cancelled
        }
    }
}

/// Withdraws the push when its future is dropped before the outcome.
pub(super) struct PendingPush<'a> {
    pub(super) shared: &'a Shared,
    /// From when it was accepted until its outcome was taken.
    pub(super) id: Option<PushId>,
}

impl Drop for PendingPush<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let waiter = self.shared.peek(|state| state.forget_push(id));
        if waiter.is_some() {
            self.shared.command(|state, now| apply!(state, now, CancelPush { id }));
        }
    }
}

/// A join that is awaited; forgets its waiter when its future is dropped.
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
        drop(self.shared.peek(|state| state.forget_join(self.id)));
    }
}

/// A leave that is awaited; nobody is told when its future is dropped.
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
        drop(self.shared.peek(|state| state.waiters.remove(self.id)));
    }
}

/// How a join is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinOptions {
    pub(super) deadline: Duration,
    pub(super) mailbox: MailboxPolicy,
    pub(super) replace_params: bool,
}

impl JoinOptions {
    /// A deadline of 30 s, [`MailboxPolicy::DropOldest`], and conflicting parameters are an error.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            deadline: super::state::JOIN_DEADLINE,
            mailbox: MailboxPolicy::DropOldest,
            replace_params: false,
        }
    }

    /// How long to wait for the first ok, from the call. `Duration::MAX` means
    /// [no deadline](Self::no_deadline).
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Waits for the first ok for as long as it takes. A refusal by the server and the end of the
    /// connection still end the join.
    #[must_use]
    pub const fn no_deadline(self) -> Self {
        self.deadline(Duration::MAX)
    }

    /// When the topic is wanted already, with other parameters or another function: these replace
    /// them, for every handle of the topic and from the next join on, as
    /// [`Channel::set_join_params`] does. By default that is
    /// [`JoinError::ConflictingParams`], so that two parts of a program do not undo each other's work.
    #[must_use]
    pub const fn replace_params(mut self) -> Self {
        self.replace_params = true;
        self
    }

    /// What the mailboxes of this handle do when they are full.
    #[must_use]
    pub const fn mailbox(mut self, policy: MailboxPolicy) -> Self {
        self.mailbox = policy;
        self
    }
}

impl Default for JoinOptions {
    fn default() -> Self {
        Self::new()
    }
}
