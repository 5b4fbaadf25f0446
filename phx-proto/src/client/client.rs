//! The handle of a connection.

use core::future::poll_fn;
use core::time::Duration;
use std::sync::{Arc, Weak};

use super::channel::{Channel, JoinOptions, PendingLeave, push_and_wait, replied, written};
use super::error::{JoinFailed, NotConnected, PushFailed};
use super::signals::Signals;
use super::state::{Shared, State, apply};
use super::status::StatusChanges;
use super::waiters::WaiterId;
use crate::config::Credentials;
use crate::config::join_params::JoinParams;
use crate::event::cause::{ChannelEnd, LeaveOutcome, PushOutcome, Reply};
use crate::event::error::{CredentialsError, JoinError, NotOpen, NotRetrying, NotWanted};
use crate::event::input::{Input, PushOptions};
use crate::event::stats::Stats;
use crate::socket::Status;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// One connection. Clones share it; when the last handle of any kind is dropped, it is closed.
///
/// Made by `connect` or `start` of an adapter. Its methods can be called from any thread, and
/// those that are not async never wait.
///
/// ```
/// # use phx_proto::client::{Client, JoinFailed};
/// # async fn example(client: Client) -> Result<(), JoinFailed> {
/// let room = client.join("room:lobby", serde_json::json!({"user": 7})).await?;
/// println!("{:?}, {} messages so far", client.status(), client.stats().messages);
/// # let _ = room;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    handle: Arc<Handle>,
}

/// A handle that does not keep the connection open, from [`Client::downgrade`].
#[derive(Clone, Debug)]
pub struct WeakClient {
    handle: Weak<Handle>,
}

impl WeakClient {
    /// The client, unless its last handle was dropped.
    #[must_use]
    pub fn upgrade(&self) -> Option<Client> {
        Some(Client { handle: self.handle.upgrade()? })
    }
}

/// What every handle holds: the last one to go closes the connection.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.command(|state, now| {
            state.abandoned = true;
            state.apply(now, Input::Disconnect);
        });
    }
}

/// # The connection
impl Client {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { handle: Arc::new(Handle { shared }) }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Starts connecting, and keeps the connection from then on. Returns at once; see
    /// [`wait_connected`](Self::wait_connected). Does nothing while connected or connecting.
    pub fn connect(&self) {
        self.handle.shared.command(|state, now| {
            if !state.driver_gone {
                state.apply(now, Input::Connect);
            }
        });
    }

    /// Closes the connection and waits until it is closed, for up to
    /// [`Config::close_timeout`](crate::Config::close_timeout).
    ///
    /// Every channel and every push ends at once; [`shutdown`](Self::shutdown) finishes them
    /// first. Cancel safe: the closing goes on when the
    /// future is dropped.
    pub async fn disconnect(&self) {
        self.close();
        self.watch(|status, gone| (gone || !matches!(status, Status::Closing)).then_some(())).await;
    }

    /// Dials now instead of waiting for the next retry.
    ///
    /// # Errors
    ///
    /// [`NotRetrying`] when no connection is being kept.
    pub fn connect_now(&self) -> Result<(), NotRetrying> {
        self.handle.shared.command(|state, now| apply!(state, now, ConnectNow {}))
    }

    /// Sends a heartbeat now, to find out whether the peer still answers.
    ///
    /// # Errors
    ///
    /// [`NotOpen`] without an open connection.
    pub fn probe(&self) -> Result<(), NotOpen> {
        self.handle.shared.command(|state, now| apply!(state, now, Probe {}))
    }

    /// Replaces the credentials from the next attempt on.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] for an address that may not be dialled.
    pub fn set_credentials(&self, credentials: Credentials) -> Result<(), CredentialsError> {
        self.handle
            .shared
            .command(|state, now| apply!(state, now, SetCredentials { 0: credentials }))
    }

    /// Waits until the connection is open, through retries, for as long as that takes.
    ///
    /// Cancel safe: it only looks.
    ///
    /// ```
    /// # use phx_proto::client::{Client, NotConnected};
    /// # async fn example(client: Client) {
    /// match client.wait_connected().await {
    ///     Ok(()) => println!("open"),
    ///     Err(NotConnected::GaveUp(cause)) => println!("no use: {cause}"),
    ///     Err(other) => println!("{other}: call `connect`"),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotConnected`] when the connection is closed, gave up or was not started.
    pub async fn wait_connected(&self) -> Result<(), NotConnected> {
        self.watch(|status, gone| match status {
            _ if gone => Some(Err(NotConnected::DriverGone)),
            Status::Open => Some(Ok(())),
            Status::GaveUp { cause } => Some(Err(NotConnected::GaveUp(cause.clone()))),
            Status::Idle | Status::Closed => Some(Err(NotConnected::Closed)),
            _ => None,
        })
        .await
    }

    /// The [name](crate::client::Setup::name) that the application gave the connection, if any.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.handle.shared.name()
    }

    /// The state of the connection.
    #[must_use]
    pub fn status(&self) -> Status {
        self.handle.shared.peek(|state| state.socket.status())
    }

    /// Counters, those of the mailboxes included.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle
            .shared
            .peek(|state| Stats { mailbox_drops: state.mailbox_drops, ..state.socket.stats() })
    }

    /// The state of the connection whenever it changes, beginning with the present one. Holds the
    /// latest state only: a slow reader misses the ones between, and nothing waits for it.
    ///
    /// Does not keep the connection open: the stream ends when the driver does, soon after the last
    /// handle of the client and its channels was dropped.
    ///
    /// ```
    /// # use phx_proto::client::Client;
    /// # use phx_proto::Status;
    /// # async fn example(client: Client) {
    /// let mut changes = client.status_changes();
    /// while let Some(status) = changes.next().await {
    ///     match status {
    ///         Status::Open => println!("ready"),
    ///         other => println!("not ready: {other:?}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn status_changes(&self) -> StatusChanges {
        StatusChanges::new(Arc::clone(&self.handle.shared))
    }

    /// How long it is until the next attempt to connect; none unless the client waits for it. Zero when
    /// it is due.
    #[must_use]
    pub fn retry_in(&self) -> Option<Duration> {
        match self.status() {
            Status::Waiting { until, .. } => Some(until.since(self.handle.shared.now())),
            _ => None,
        }
    }

    /// A handle that does not keep the connection open: for functions of join parameters and for
    /// tasks that only observe.
    #[must_use]
    pub fn downgrade(&self) -> WeakClient {
        WeakClient { handle: Arc::downgrade(&self.handle) }
    }

    /// Every signal from now on, bounded by [`Config::mailbox`](crate::Config::mailbox): a slow consumer
    /// sees `Lagged`. The latest state of the connection and of each wanted topic is kept beyond the
    /// number, unless its response is too large for the bytes.
    ///
    /// Does not keep the connection open: the stream ends when the driver does, soon after the last
    /// handle of the client and its channels was dropped.
    ///
    /// With [`start`](crate::client::start) the first `Connected` may be over before the call; with
    /// [`client`](crate::client::client) nothing happens before the driver is polled.
    ///
    /// ```
    /// # async fn example(client: phx_proto::client::Client) {
    /// use phx_proto::Signal;
    /// use phx_proto::client::ClientEvent;
    ///
    /// let mut signals = client.signals();
    /// while let Some(event) = signals.next().await {
    ///     match event {
    ///         ClientEvent::Signal(Signal::ConnectFailed { cause, next, .. }) => {
    ///             println!("not connected: {cause}; then: {next:?}");
    ///         }
    ///         ClientEvent::Signal(Signal::Disconnected { cause, next, .. }) => {
    ///             println!("lost: {cause}; then: {next:?}");
    ///         }
    ///         ClientEvent::Signal(Signal::GaveUp { cause }) => println!("gave up: {cause}"),
    ///         _ => {}
    ///     }
    /// }
    /// # }
    /// ```
    pub fn signals(&self) -> Signals {
        let id = self.handle.shared.peek(|state| state.add_signals());
        Signals::new(Arc::clone(&self.handle.shared), id)
    }

    /// Signals for a reader that never sleeps while there are some: bounded, but generously.
    #[cfg(feature = "service")]
    pub(crate) fn signals_for_routing(&self) -> Signals {
        let id = self.handle.shared.peek(|state| state.add_signals_up_to(4_096, 64 << 20));
        Signals::new(Arc::clone(&self.handle.shared), id)
    }

    /// Replaces the seed of the jitter.
    #[cfg(feature = "service")]
    pub(crate) fn reseed(&self, seed: u64) {
        self.handle.shared.command(|state, now| state.apply(now, Input::Reseed { seed }));
    }

    /// [`disconnect`](Self::disconnect) without waiting.
    pub(crate) fn close(&self) {
        self.handle.shared.command(|state, now| state.apply(now, Input::Disconnect));
    }

    async fn watch<T>(&self, done: impl Fn(&Status, bool) -> Option<T>) -> T {
        let shared = &self.handle.shared;
        let mut watcher = Watcher { shared, id: None };
        poll_fn(|cx| {
            shared.poll_waiter(cx, |state| match done(&state.socket.status(), state.driver_gone) {
                Some(answer) => Ok(answer),
                None => Err(*watcher.id.get_or_insert_with(|| state.await_status())),
            })
        })
        .await
    }
}

/// # Channels
impl Client {
    /// Joins a topic and waits for the first ok, for up to 30 s.
    ///
    /// It waits through disconnects, join timeouts and crashes. Joining a topic that is joined
    /// with equal parameters is one more interest in it, and sends nothing.
    ///
    /// Cancel safe: dropping the future releases its interest in the topic.
    ///
    /// ```
    /// # use phx_proto::client::{Client, JoinFailed};
    /// # async fn example(client: Client) {
    /// match client.join("room:lobby", serde_json::json!({"user": 7})).await {
    ///     Ok(room) => println!("joined {}", room.topic()),
    ///     Err(JoinFailed::Rejected(no)) => println!("refused: {:?}", no.response.get()),
    ///     Err(JoinFailed::Deadline { last }) => println!("not in 30 s; last seen: {last:?}"),
    ///     Err(other) => println!("{other}"),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`JoinFailed`]: the server's refusal with its own words, a leave, the end of the
    /// connection, or the deadline with the last cause seen.
    pub async fn join(
        &self,
        topic: impl Into<Topic>,
        params: impl Into<JoinParams>,
    ) -> Result<Channel, JoinFailed> {
        self.join_with(topic, params, JoinOptions::new()).await
    }

    /// [`join`](Self::join) with a deadline and a mailbox policy of its own.
    ///
    /// Cancel safe, and through disconnects, as [`join`](Self::join).
    ///
    /// ```
    /// # use phx_proto::client::{Client, JoinFailed};
    /// # async fn example(client: Client) -> Result<(), JoinFailed> {
    /// use core::time::Duration;
    /// use phx_proto::JoinParams;
    /// use phx_proto::client::{JoinOptions, MailboxPolicy};
    ///
    /// let options = JoinOptions::new()
    ///     .deadline(Duration::from_secs(5))
    ///     .mailbox(MailboxPolicy::DropNewest);
    /// let prices = client.join_with("prices", JoinParams::none(), options).await?;
    /// # let _ = prices;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub async fn join_with(
        &self,
        topic: impl Into<Topic>,
        params: impl Into<JoinParams>,
        options: JoinOptions,
    ) -> Result<Channel, JoinFailed> {
        // Dropping the channel releases the interest.
        let channel = self.want_with(topic, params, options)?;
        channel.joined_within(options.deadline).await?;
        Ok(channel)
    }

    /// Wants a topic from now on, and returns its handle at once: it is joined as soon as there is a
    /// connection, and joined again after every loss, for as long as the handle exists.
    ///
    /// For a program that starts before its backend does. [`join`](Self::join) is this and
    /// [`Channel::joined`], with a deadline. Until the first join, pushes wait in the queue, until their
    /// timeout; [`Channel::messages`] begins with the join; [`Channel::status`] is the state of the
    /// topic. A refusal by the server ends the channel as it ends a `join`: the streams of the handle
    /// end with it, and `joined` returns it. A disconnect and giving up end it too.
    ///
    /// Not async, and never waits. The handle has one mailbox, bounded by
    /// [`Config::mailbox`](crate::Config::mailbox), from this call on.
    ///
    /// ```
    /// # use phx_proto::client::{Client, JoinFailed};
    /// # async fn example(client: Client) -> Result<(), JoinFailed> {
    /// let orders = client.want("orders", serde_json::json!({}))?; // the backend may be down
    /// // … serve the health check, and then, however long it takes:
    /// orders.joined().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`JoinError`], when it is not accepted: the connection is closed, or the parameters conflict
    /// with those that hold.
    pub fn want(
        &self,
        topic: impl Into<Topic>,
        params: impl Into<JoinParams>,
    ) -> Result<Channel, JoinError> {
        self.want_with(topic, params, JoinOptions::new())
    }

    /// [`want`](Self::want) with a mailbox policy of its own, or in place of the parameters that hold.
    /// The deadline of the options is that of [`join_with`](Self::join_with) alone.
    ///
    /// # Errors
    ///
    /// As [`want`](Self::want).
    pub fn want_with(
        &self,
        topic: impl Into<Topic>,
        params: impl Into<JoinParams>,
        options: JoinOptions,
    ) -> Result<Channel, JoinError> {
        let (topic, params) = (topic.into(), params.into());
        let (interest, mailbox) = self.handle.shared.command(|state, now| {
            let interest = state.want(now, &topic, &params, options.replace_params)?;
            Ok::<_, JoinError>((interest, state.add_mailbox(&topic, interest, options.mailbox)))
        })?;
        let handle = Arc::clone(&self.handle);
        Ok(Channel::new(handle, topic, interest, options.mailbox, Some(mailbox)))
    }

    /// One more handle of a topic that is wanted already (an auto-join, say), joined or not:
    /// [`Channel::joined`] waits for its join. It has no mailbox before [`Channel::messages`] is called: a
    /// handle that only pushes costs nothing.
    ///
    /// ```
    /// # use phx_proto::event::NotWanted;
    /// # use phx_proto::client::Client;
    /// # async fn example(client: Client) -> Result<(), NotWanted> {
    /// // The configuration says `auto_join("room:lobby", …)`.
    /// let mut events = client.channel("room:lobby")?.messages();
    /// # let _ = events.next().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotWanted`] for any other topic.
    pub fn channel(&self, topic: impl Into<Topic>) -> Result<Channel, NotWanted> {
        self.channel_with(topic, JoinOptions::new())
    }

    /// [`channel`](Self::channel) with a mailbox policy of its own. The deadline of the options is that
    /// of [`join_with`](Self::join_with) alone.
    ///
    /// # Errors
    ///
    /// As [`channel`](Self::channel).
    pub fn channel_with(
        &self,
        topic: impl Into<Topic>,
        options: JoinOptions,
    ) -> Result<Channel, NotWanted> {
        let (topic, policy) = (topic.into(), options.mailbox);
        let attach = |state: &mut State, now| apply!(state, now, Attach { topic: topic.clone() });
        let interest = self.handle.shared.command(attach)?;
        Ok(Channel::new(Arc::clone(&self.handle), topic, interest, policy, None))
    }

    /// Pushes on a topic that is wanted already and waits for the reply, as
    /// [`Channel::push`] does, without a handle of the channel: nothing is kept for it, and the topic
    /// is not held.
    ///
    /// Cancel safe, and through disconnects, as [`Channel::push`].
    ///
    /// ```
    /// # use phx_proto::client::{Client, PushFailed};
    /// # async fn example(client: Client) -> Result<(), PushFailed> {
    /// // The configuration says `auto_join("orders", …)`.
    /// let reply = client.push("orders", "buy", serde_json::json!({"id": 7})).await?;
    /// println!("{}", reply.status);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PushFailed`]; [`PushFailed::NotAccepted`] for a topic that is not wanted.
    pub async fn push(
        &self,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<Reply, PushFailed> {
        self.push_with(topic, event, payload, PushOptions::call()).await
    }

    /// [`push`](Self::push) with a timeout of its own, or failing fast when not joined.
    ///
    /// Cancel safe, and through disconnects, as [`Channel::push`].
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub async fn push_with(
        &self,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
        options: PushOptions,
    ) -> Result<Reply, PushFailed> {
        let options = PushOptions { cast: false, ..options };
        replied(self.run(topic, event, payload.into(), options).await?)
    }

    /// Pushes on a topic that is wanted already without waiting for a reply, as [`Channel::cast`]
    /// does, without a handle of the channel.
    ///
    /// Cancel safe, and through disconnects, as [`Channel::cast`].
    ///
    /// # Errors
    ///
    /// As [`Channel::cast`]; [`PushFailed::NotAccepted`] for a topic that is not wanted.
    pub async fn cast(
        &self,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<(), PushFailed> {
        self.cast_with(topic, event, payload, PushOptions::cast()).await
    }

    /// [`cast`](Self::cast) with a timeout of its own, or failing fast when not joined.
    ///
    /// Cancel safe, and through disconnects, as [`Channel::cast`].
    ///
    /// # Errors
    ///
    /// As [`cast`](Self::cast).
    pub async fn cast_with(
        &self,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
        options: PushOptions,
    ) -> Result<(), PushFailed> {
        let options = PushOptions { cast: true, ..options };
        written(self.run(topic, event, payload.into(), options).await?)
    }

    async fn run(
        &self,
        topic: &str,
        event: &str,
        payload: Payload,
        options: PushOptions,
    ) -> Result<PushOutcome, PushFailed> {
        push_and_wait(self.shared(), payload, |state, now, payload| {
            state.socket.push(now, topic, event, payload, options)
        })
        .await
    }

    /// Leaves a topic for every handle of it; their streams end.
    ///
    /// Cancel safe: the leave goes on when the future is dropped. A disconnect ends it with
    /// [`LeaveOutcome::Offline`].
    ///
    /// # Errors
    ///
    /// [`NotWanted`] when the topic is neither wanted nor being left.
    pub async fn leave_topic(&self, topic: &str) -> Result<LeaveOutcome, NotWanted> {
        let (shared, topic) = (&self.handle.shared, Topic::from(topic));
        let id = shared.command(|state, now| {
            apply!(state, now, Leave { topic: topic.clone() })?;
            let id = state.await_leave(&topic);
            state.end_topic(&topic, &ChannelEnd::Left);
            Ok(id)
        })?;
        Ok(PendingLeave { shared, id }.outcome().await)
    }
}

/// Forgets its waker when the future that watches is dropped.
struct Watcher<'a> {
    shared: &'a Shared,
    id: Option<WaiterId>,
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            drop(self.shared.peek(|state| state.waiters.remove(id)));
        }
    }
}
