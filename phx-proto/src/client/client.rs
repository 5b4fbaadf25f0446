//! The handle of a connection.

use core::future::poll_fn;
use core::time::Duration;
use std::sync::{Arc, Weak};

use super::catch_up::{Follower, is_object};
use super::channel::{Channel, JoinOptions, PendingLeave, push_and_wait, replied, written};
use super::error::{JoinFailed, NotConnected, PushFailed};
use super::mailbox::MailboxOptions;
use super::signals::Signals;
use super::state::{Shared, State, apply};
use super::status::StatusChanges;
use super::unrouted::Unrouted;
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

/// A handle of one connection. Clones share the connection; it is closed when the last handle of
/// any kind is dropped.
///
/// `connect` and `start` of an adapter make it. Its methods can be called from any thread, and
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
    /// Returns the client, unless its last handle was dropped.
    #[must_use]
    pub fn upgrade(&self) -> Option<Client> {
        Some(Client { handle: self.handle.upgrade()? })
    }
}

/// The part that all handles of a connection share. Dropping the last handle closes the connection.
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

    /// Starts connecting, and reconnects after every loss from then on. Returns at once; see
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
    /// Every channel and every push ends at once; [`shutdown`](Self::shutdown) finishes them first.
    /// Cancel safe: the connection still closes when the future is dropped.
    pub async fn disconnect(&self) {
        self.close();
        self.watch(|status, gone| (gone || !matches!(status, Status::Closing)).then_some(())).await;
    }

    /// Dials now instead of waiting for the next retry.
    ///
    /// # Errors
    ///
    /// [`NotRetrying`] when the client is not connected and is not going to connect: it was not
    /// started, was closed, or gave up.
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
    /// If an attempt is in progress and the server answers it with a 401, another attempt follows,
    /// because the server may have refused the earlier credentials.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] when the new address is not allowed, or when a parameter is a `vsn` other than
    /// the codec's.
    pub fn set_credentials(&self, credentials: Credentials) -> Result<(), CredentialsError> {
        self.handle
            .shared
            .command(|state, now| apply!(state, now, SetCredentials { 0: credentials }))
    }

    /// Waits until the connection is open. Retries do not end the wait, and it has no timeout.
    ///
    /// Cancel safe: the wait changes nothing.
    ///
    /// ```
    /// # use phx_proto::client::{Client, NotConnected};
    /// # async fn example(client: Client) {
    /// match client.wait_connected().await {
    ///     Ok(()) => println!("open"),
    ///     Err(NotConnected::GaveUp(cause)) => println!("gave up: {cause}"),
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

    /// The [name](crate::client::Setup::name) of the connection, if the application set one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.handle.shared.name()
    }

    /// The state of the connection.
    #[must_use]
    pub fn status(&self) -> Status {
        self.handle.shared.with_state(|state| state.socket.status())
    }

    /// Counters of the connection, including the drops of its mailboxes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle.shared.with_state(|state| Stats {
            mailbox_drops: state.mailbox_drops,
            pushes_repeated: state.pushes_repeated,
            ..state.socket.stats()
        })
    }

    /// A stream of the connection's states: the present one first, then each change. It holds the
    /// latest state only, so a slow reader misses the states in between. The connection never waits
    /// for the reader.
    ///
    /// The stream does not keep the connection open. It ends when the driver ends, soon after the
    /// last handle of the client and its channels is dropped.
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

    /// The time until the next attempt to connect; `None` unless the client is waiting to retry.
    /// Zero when the attempt is due.
    #[must_use]
    pub fn retry_in(&self) -> Option<Duration> {
        match self.status() {
            Status::Waiting { until, .. } => Some(until.since(self.handle.shared.now())),
            _ => None,
        }
    }

    /// Returns a handle that does not keep the connection open, for functions of join parameters
    /// and for tasks that only observe.
    #[must_use]
    pub fn downgrade(&self) -> WeakClient {
        WeakClient { handle: Arc::downgrade(&self.handle) }
    }

    /// A stream of every signal from now on. [`Config::mailbox`](crate::Config::mailbox) bounds its
    /// queue, and a slow consumer sees `Lagged`. The latest state of the connection and of each
    /// wanted topic is kept even when the queue is full, unless its response exceeds the bound in
    /// bytes.
    ///
    /// The stream does not keep the connection open. It ends when the driver ends, soon after the
    /// last handle of the client and its channels is dropped.
    ///
    /// After [`start`](crate::client::start) the first `Connected` may have been emitted before
    /// this call. With [`client`](crate::client::client) nothing is emitted before the driver is
    /// polled.
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
        let id = self.handle.shared.with_state(|state| state.add_signals());
        Signals::new(Arc::clone(&self.handle.shared), id)
    }

    /// A stream of the messages that no channel takes: messages on topics that are neither wanted nor
    /// being left, without a join_ref, whose event does not begin with `phx_`. Some servers push on
    /// topics that cannot be joined; Absinthe sends the data of a GraphQL subscription on a topic
    /// that is the id of the subscription.
    ///
    /// The stream begins when it is made. [`Config::mailbox`](crate::Config::mailbox) bounds its
    /// queue in messages and in bytes, and a slow consumer sees `Lagged`. Any number of streams may
    /// exist; each gets every message. While none exists, or each of them has
    /// [overflowed](super::UnroutedEvent::Overflow), these messages are dropped and counted in
    /// [`Stats::messages_unrouted`].
    ///
    /// A message on a topic whose channel ended on the present connection is never in the stream,
    /// because it may be a late broadcast of that channel. The client remembers the last 256 of
    /// these topics, or fewer if their names have more than 16 KiB.
    ///
    /// The stream does not keep the connection open, and a disconnect does not end it. It ends when
    /// the driver ends, soon after the last handle of the client and its channels is dropped.
    ///
    /// ```
    /// # async fn example(client: phx_proto::client::Client) {
    /// use phx_proto::client::UnroutedEvent;
    ///
    /// let mut unrouted = client.unrouted();
    /// while let Some(event) = unrouted.next().await {
    ///     match event {
    ///         UnroutedEvent::Message(message) => {
    ///             println!("{} on {}", message.event(), message.topic());
    ///         }
    ///         UnroutedEvent::Lagged(count) => println!("{count} messages lost"),
    ///         _ => {}
    ///     }
    /// }
    /// # }
    /// ```
    pub fn unrouted(&self) -> Unrouted {
        self.unrouted_with(MailboxOptions::new())
    }

    /// Like [`unrouted`](Self::unrouted), with other bounds or another policy for the mailbox. There
    /// is no channel to join again, so [`MailboxPolicy::Rejoin`](super::MailboxPolicy::Rejoin) drops
    /// the oldest messages.
    pub fn unrouted_with(&self, options: MailboxOptions) -> Unrouted {
        let inbox = self.handle.shared.command(|state, now| state.add_unrouted(now, options));
        Unrouted::new(Arc::clone(&self.handle.shared), inbox)
    }

    /// Signals for the router. The bounds are large; the queue stays short, because the router
    /// reads the signals as soon as they arrive.
    #[cfg(feature = "service")]
    pub(crate) fn signals_for_routing(&self) -> Signals {
        let id = self.handle.shared.with_state(|state| state.add_signals_up_to(4_096, 64 << 20));
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
    /// Joins a topic and waits up to 30 s for the server's first ok.
    ///
    /// Disconnects, join timeouts and crashes do not end the wait. If the topic is already joined
    /// with equal parameters, this adds one more interest in it and sends nothing.
    ///
    /// Cancel safe: dropping the future releases its interest in the topic.
    ///
    /// ```
    /// # use phx_proto::client::{Client, JoinFailed};
    /// # async fn example(client: Client) {
    /// match client.join("room:lobby", serde_json::json!({"user": 7})).await {
    ///     Ok(room) => println!("joined {}", room.topic()),
    ///     Err(JoinFailed::Rejected(refusal)) => println!("refused: {:?}", refusal.response.get()),
    ///     Err(JoinFailed::Deadline { last }) => println!("not in 30 s; last seen: {last:?}"),
    ///     Err(other) => println!("{other}"),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`JoinFailed`]: the server refused the join, the topic was left, the connection ended, or
    /// the deadline passed.
    pub async fn join(
        &self,
        topic: impl Into<Topic>,
        params: impl Into<JoinParams>,
    ) -> Result<Channel, JoinFailed> {
        self.join_with(topic, params, JoinOptions::new()).await
    }

    /// Like [`join`](Self::join), with another deadline or mailbox.
    ///
    /// Cancel safe, and waits through disconnects, like [`join`](Self::join).
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
    /// The same as [`join`](Self::join).
    pub async fn join_with(
        &self,
        topic: impl Into<Topic>,
        params: impl Into<JoinParams>,
        options: JoinOptions,
    ) -> Result<Channel, JoinFailed> {
        let deadline = options.deadline;
        // Dropping the channel releases the interest.
        let channel = self.want_with(topic, params, options)?;
        channel.joined_within(deadline).await?;
        Ok(channel)
    }

    /// Asks for a topic and returns its handle at once. The topic is joined as soon as there is a
    /// connection, and joined again after every loss, for as long as the handle exists.
    ///
    /// Use it when the program may start before its backend. [`join`](Self::join) is `want`
    /// followed by [`Channel::joined`], with a deadline. Until the first join, pushes wait in the
    /// queue, up to their timeout. [`Channel::messages`] begins with the join, and
    /// [`Channel::status`] returns the state of the topic. If the server refuses the join, the
    /// channel ends: its streams end with the refusal, and `joined` returns it. The channel also
    /// ends when the application disconnects and when the connection gives up.
    ///
    /// This function never waits. From this call on the handle has one mailbox, bounded by
    /// [`Config::mailbox`](crate::Config::mailbox).
    ///
    /// ```
    /// # use phx_proto::client::{Client, JoinFailed};
    /// # async fn example(client: Client) -> Result<(), JoinFailed> {
    /// let orders = client.want("orders", serde_json::json!({}))?; // the backend may be down
    /// // … start the health check, and then wait without a timeout:
    /// orders.joined().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`JoinError`] when the request is not accepted: the connection is closed, or the parameters
    /// conflict with those of an existing handle.
    pub fn want(
        &self,
        topic: impl Into<Topic>,
        params: impl Into<JoinParams>,
    ) -> Result<Channel, JoinError> {
        self.want_with(topic, params, JoinOptions::new())
    }

    /// Like [`want`](Self::want), with another mailbox, with parameters that replace the present
    /// ones, or with a stream that [catches up](JoinOptions::catch_up). The deadline of the options
    /// is ignored; only [`join_with`](Self::join_with) uses it.
    ///
    /// # Errors
    ///
    /// The same as [`want`](Self::want).
    pub fn want_with(
        &self,
        topic: impl Into<Topic>,
        params: impl Into<JoinParams>,
        options: JoinOptions,
    ) -> Result<Channel, JoinError> {
        let (topic, params) = (topic.into(), params.into());
        let JoinOptions { mailbox, replace_params, catch_up, .. } = options;
        if catch_up.is_some() && params.fixed().is_some_and(|params| !is_object(params)) {
            return Err(JoinError::ParamsNotObject { topic });
        }
        let follower = catch_up.map(Follower::new);
        let (interest, first) = self.handle.shared.command(|state, now| {
            let interest = state.want(now, &topic, &params, replace_params)?;
            let first = match &follower {
                Some(follower) => {
                    let follower = Arc::clone(follower);
                    state.add_follower(now, &topic, interest, mailbox, follower)
                }
                None => state.add_mailbox(&topic, interest, mailbox),
            };
            Ok::<_, JoinError>((interest, first))
        })?;
        let handle = Arc::clone(&self.handle);
        Ok(Channel::new(handle, topic, interest, mailbox, Some(first)))
    }

    /// Returns one more handle of a topic that is already wanted, such as an auto-join. The topic
    /// may not be joined yet; [`Channel::joined`] waits for its join. The handle has no mailbox
    /// until [`Channel::messages`] is called, so a handle that only pushes needs no memory for
    /// messages, except those that the client keeps for [`Channel::presence`].
    ///
    /// ```
    /// # use phx_proto::event::NotWanted;
    /// # use phx_proto::client::Client;
    /// # async fn example(client: Client) -> Result<(), NotWanted> {
    /// // The configuration has `auto_join("room:lobby", …)`.
    /// let mut events = client.channel("room:lobby")?.messages();
    /// # let _ = events.next().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotWanted`] when no handle and no auto-join wants the topic.
    pub fn channel(&self, topic: impl Into<Topic>) -> Result<Channel, NotWanted> {
        self.channel_with(topic, JoinOptions::new())
    }

    /// Like [`channel`](Self::channel), with another mailbox, or with a stream that
    /// [catches up](JoinOptions::catch_up), whose mailbox exists from this call on. The deadline of the
    /// options is ignored; only [`join_with`](Self::join_with) uses it.
    ///
    /// # Errors
    ///
    /// The same as [`channel`](Self::channel).
    pub fn channel_with(
        &self,
        topic: impl Into<Topic>,
        options: JoinOptions,
    ) -> Result<Channel, NotWanted> {
        let (topic, mailbox) = (topic.into(), options.mailbox);
        let follower = options.catch_up.map(Follower::new);
        let attach = |state: &mut State, now| {
            let interest = apply!(state, now, Attach { topic: topic.clone() })?;
            let first = follower.as_ref().map(|follower| {
                let follower = Arc::clone(follower);
                state.add_follower(now, &topic, interest, mailbox, follower)
            });
            Ok::<_, NotWanted>((interest, first))
        };
        let (interest, first) = self.handle.shared.command(attach)?;
        Ok(Channel::new(Arc::clone(&self.handle), topic, interest, mailbox, first))
    }

    /// Pushes on a topic that is already wanted and waits for the reply, like [`Channel::push`] but
    /// without a handle of the channel. The call adds no interest in the topic.
    ///
    /// Cancel safe, and waits through disconnects, like [`Channel::push`].
    ///
    /// ```
    /// # use phx_proto::client::{Client, PushFailed};
    /// # async fn example(client: Client) -> Result<(), PushFailed> {
    /// // The configuration has `auto_join("orders", …)`.
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

    /// Like [`push`](Self::push), with [`PushOptions`](crate::PushOptions): another timeout, or an
    /// error at once when the topic is not joined.
    ///
    /// Cancel safe, and waits through disconnects, like [`Channel::push`].
    ///
    /// # Errors
    ///
    /// The same as [`push`](Self::push).
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

    /// Pushes on a topic that is already wanted and waits for no reply, like [`Channel::cast`] but
    /// without a handle of the channel.
    ///
    /// Cancel safe, and waits through disconnects, like [`Channel::cast`].
    ///
    /// # Errors
    ///
    /// The same as [`Channel::cast`]; [`PushFailed::NotAccepted`] for a topic that is not wanted.
    pub async fn cast(
        &self,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<(), PushFailed> {
        self.cast_with(topic, event, payload, PushOptions::cast()).await
    }

    /// Like [`cast`](Self::cast), with [`PushOptions`](crate::PushOptions): another timeout, or an
    /// error at once when the topic is not joined.
    ///
    /// Cancel safe, and waits through disconnects, like [`Channel::cast`].
    ///
    /// # Errors
    ///
    /// The same as [`cast`](Self::cast).
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
    /// Cancel safe: the topic is still left when the future is dropped. A disconnect ends the leave
    /// with [`LeaveOutcome::Offline`].
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

/// A waiter for a change of the connection; its entry is removed when it is dropped.
struct Watcher<'a> {
    shared: &'a Shared,
    id: Option<WaiterId>,
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            drop(self.shared.with_state(|state| state.waiters.remove(id)));
        }
    }
}
