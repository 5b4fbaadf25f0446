//! The handle of a channel.

use core::future::poll_fn;
use core::task::{Poll, ready};
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::DeserializeOwned;

use super::client::Handle;
use super::error::PushFailed;
use super::mailbox::MailboxPolicy;
use super::messages::Messages;
use super::presence::PresenceStream;
use super::state::{Shared, State, apply};
use super::subscribers::Subscriber;
use super::waiters::WaiterId;
use crate::config::join_params::JoinParams;
use crate::event::applied::Released;
use crate::event::cause::{ChannelEnd, LeaveOutcome, PushOutcome, Reply};
use crate::event::error::{JoinError, PushError, PushErrorKind};
use crate::event::input::PushOptions;
use crate::id::{InterestId, PushId};
use crate::socket::ChannelStatus;
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// One interest in a topic, from [`Client::join`](super::Client::join).
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Left {
    /// The topic was left.
    Left(LeaveOutcome),
    /// Others still want the topic: this handle is done with it, and nothing was sent.
    Detached,
    /// The channel had ended before.
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
}

impl Drop for ChannelInner {
    fn drop(&mut self) {
        let taken = self.first_taken.load(Ordering::Relaxed);
        let waiter = self.shared().command(|state, now| {
            if let (Some(first), false) = (&self.first, taken) {
                state.drop_mailbox(first);
            }
            let waiter = state.forget_join(self.interest);
            if apply!(state, now, Release { interest: self.interest }) == Released::Leaving {
                state.end_topic(&self.topic, &ChannelEnd::Left);
            }
            waiter
        });
        drop(waiter);
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

    pub(super) async fn joined(&self) -> Result<(), super::JoinFailed> {
        let (shared, interest) = (self.inner.shared(), self.inner.interest);
        let joined =
            poll_fn(|cx| shared.poll_waiter(cx, |state| state.join_result(interest))).await;
        drop(shared.peek(|state| state.forget_join(interest)));
        joined
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
            if !state.socket.is_interested(inner.interest) {
                // This handle is done, even if others keep the topic joined.
                return Err(PushError { kind: PushErrorKind::NotWanted, payload });
            }
            state.socket.push(now, &inner.topic, event, payload, options)
        })
        .await
    }

    /// The events of the channel.
    ///
    /// The first call on a handle of [`Client::join`](super::Client::join) sees everything since the
    /// join was asked for, such as the `presence_state` that comes right behind its ok. Later calls,
    /// and those on a handle of [`Client::channel`](super::Client::channel), begin now. Each stream
    /// has a mailbox of its own, bounded by [`Config::mailbox`](crate::Config::mailbox).
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
        let mailbox = inner.shared().command(|state, now| {
            let mailbox = match &inner.first {
                Some(first) if !taken => Arc::clone(first),
                _ => state.add_mailbox(&inner.topic, inner.interest, inner.policy),
            };
            state.read_mailbox(now, &mailbox);
            mailbox
        });
        Messages::new(Arc::clone(inner), mailbox)
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
struct PendingPush<'a> {
    shared: &'a Shared,
    /// From when it was accepted until its outcome was taken.
    id: Option<PushId>,
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
}

impl JoinOptions {
    /// A deadline of 30 s and [`MailboxPolicy::DropOldest`].
    #[must_use]
    pub const fn new() -> Self {
        Self { deadline: super::state::JOIN_DEADLINE, mailbox: MailboxPolicy::DropOldest }
    }

    /// How long to wait for the first ok, from the call.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
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
