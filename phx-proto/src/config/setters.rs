//! The setters of [`Config`], one for every policy. What they say of zero and of the longest
//! times is held by `tests/socket/config_extremes.rs`; the defaults are those of `Options::default`.

use core::num::NonZeroUsize;
use core::time::Duration;
use std::sync::Arc;

use super::proxy::Environment;
use super::route::Target;
use super::{
    CloseRule, Config, ConfigError, Credentials, Options, Proxy, Secret, StatusRule, TransportKind,
};
use crate::config::backoff::{Backoff, DelayRange};
use crate::config::join_params::JoinParams;
use crate::topic::Topic;
use crate::wire::Codec;

/// # What an attempt presents
impl Config {
    /// Adds a connect parameter; see [`Credentials::param`].
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.credentials = self.credentials.param(name, value);
        self
    }

    /// Adds a header; see [`Credentials::header`].
    ///
    /// # Errors
    ///
    /// As [`Credentials::header`].
    pub fn header(
        mut self,
        name: impl Into<String>,
        value: impl Into<Secret>,
    ) -> Result<Self, ConfigError> {
        self.credentials = self.credentials.header(name, value)?;
        Ok(self)
    }

    /// The token for Phoenix's `auth_token`; see [`Credentials::auth_token`].
    #[must_use]
    pub fn auth_token(mut self, token: impl Into<Secret>) -> Self {
        self.credentials = self.credentials.auth_token(token);
        self
    }

    /// All of parameters, headers, token and address at once, in place of those given so far. An
    /// address that may not be dialled ends the first attempt.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Says that credentials are refreshed before each attempt, so that a first 401 is worth
    /// another try with new ones. By default they are not.
    ///
    /// A driver with a credential provider sets this; when driving by hand, set it if you call
    /// [`Socket::set_credentials`](crate::Socket::set_credentials) on every `Connect`.
    #[must_use]
    pub const fn credentials_refreshed(mut self, refreshed: bool) -> Self {
        self.credentials_refreshed = refreshed;
        self
    }

    /// How messages are written. Default: what a `vsn` in the query of the address asks for, else
    /// [`V2`](crate::wire::V2), Phoenix's own default.
    ///
    /// ```
    /// use phx_proto::{Config, wire::V1};
    /// use std::sync::Arc;
    ///
    /// let old = Config::new("ws://localhost:4000/socket/websocket")?.codec(Arc::new(V1))?;
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::Vsn`] when the address asks for another version.
    pub fn codec(mut self, codec: Arc<dyn Codec>) -> Result<Self, ConfigError> {
        self.codec = codec;
        self.check_uri(&self.uri)?;
        Ok(self)
    }

    /// Adds a topic that is joined in every life of the connection without being asked for.
    ///
    /// A rejected auto-join is tried again up to
    /// [`join_rejections_max`](Self::join_rejections_max) times. Later calls with the same topic
    /// replace its parameters. With the driver, `Client::channel` gives a handle of it.
    ///
    /// ```
    /// use phx_proto::{Config, JoinParams};
    ///
    /// let config = Config::new("ws://localhost:4000/socket/websocket")?
    ///     .auto_join("room:lobby", JoinParams::none())?
    ///     .auto_join("room:jobs", serde_json::json!({"since": 0}))?;
    /// assert_eq!(config.auto_joined().count(), 2);
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::ReservedTopic`] for `phoenix`, the topic of heartbeats.
    pub fn auto_join(
        mut self,
        topic: impl Into<Topic>,
        params: impl Into<JoinParams>,
    ) -> Result<Self, ConfigError> {
        let (topic, params) = (topic.into(), params.into());
        if topic.is_reserved() {
            return Err(ConfigError::ReservedTopic);
        }
        self.auto_joins.retain(|(known, _)| *known != topic);
        self.auto_joins.push((topic, params));
        Ok(self)
    }
}

/// # The way to the server
impl Config {
    /// Dials this address in place of the URI's host and port, for a port-forward, an ingress or a
    /// tunnel: `127.0.0.1:8443`, `[::1]:8443`, or a host alone, which keeps the port. Default: none.
    ///
    /// The header `Host` and the name that the server's certificate must bear stay the URI's. It is
    /// used for every attempt, also when credentials come with another URI; proxies and their
    /// exceptions are matched against this address. A caller's own stream (`dial_with`) is not
    /// affected.
    ///
    /// ```
    /// use phx_proto::Config;
    ///
    /// // kubectl port-forward service/backend 8443:443
    /// let config = Config::new("wss://backend.example.com/socket/websocket")?
    ///     .connect_to("127.0.0.1:8443")?;
    /// assert_eq!(config.dial_target(config.uri()), ("127.0.0.1", 8443));
    /// // The surprising case: clear text may not leave this machine this way either.
    /// assert!(Config::new("ws://localhost/socket/websocket")?.connect_to("10.0.0.1:80").is_err());
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::ConnectTo`] for what is no address, and [`ConfigError::Insecure`] when a
    /// `ws://` URI would leave this machine.
    pub fn connect_to(self, address: &str) -> Result<Self, ConfigError> {
        self.dial(Target::parse(address)?)
    }

    pub(crate) fn dial(mut self, target: Target) -> Result<Self, ConfigError> {
        self.connect_to = Some(Arc::new(target));
        self.check_uri(&self.uri)?;
        Ok(self)
    }

    /// The proxy to go through, for every host that it does not
    /// [except](Proxy::except), this machine included. Default: none, whatever the environment
    /// says.
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(Arc::new(proxy));
        self
    }

    /// The proxy that the environment names, if any: `https_proxy`, `HTTPS_PROXY`, `all_proxy` or
    /// `ALL_PROXY` for `wss://`, `http_proxy` or the last two for `ws://`. Never for this machine,
    /// nor for the hosts in `no_proxy` or `NO_PROXY`; and not when one is set with
    /// [`proxy`](Self::proxy), which comes first.
    ///
    /// The environment is asked now, through `lookup`. What it says is judged when it would be
    /// used: a proxy that cannot be used is no error for an address that is reached without it.
    ///
    /// ```
    /// use phx_proto::Config;
    ///
    /// let config = Config::new("wss://example.com/socket/websocket")?
    ///     .proxy_from_env(|name| std::env::var(name).ok())?;
    /// // The surprising case: nothing is wrong with a proxy that is not used.
    /// let bad = |name: &str| (name == "ALL_PROXY").then(|| "ftp://proxy".to_owned());
    /// assert!(Config::new("wss://localhost/socket/websocket")?.proxy_from_env(bad).is_ok());
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::Proxy`], naming the variable, when the configured address would be reached
    /// through a proxy that cannot be used.
    pub fn proxy_from_env(
        mut self,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        self.environment = Environment::read(lookup).map(Arc::new);
        self.proxy_to(&self.uri)?;
        Ok(self)
    }

    /// Whom `wss://` trusts and what it shows: a [`Tls`](crate::config::Tls), or a caller's own
    /// `Arc<rustls::ClientConfig>`. Default: Mozilla's roots, and no certificate.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: impl Into<crate::config::tls::Tls>) -> Self {
        self.tls = Some(tls.into());
        self
    }
}

/// # Options
///
/// Each sets a field of the [`Options`], which a configuration derefs to. Their defaults are those of
/// [`Options::default`].
impl Config {
    /// All options at once, in place of what was set so far.
    ///
    /// ```
    /// use core::time::Duration;
    /// use phx_proto::{Config, Options};
    ///
    /// let mut options = Options::default();
    /// options.push_timeout = Duration::from_secs(3);
    /// let config = Config::new("wss://example.com/socket/websocket")?.options(options);
    /// assert_eq!(config.push_timeout, Duration::from_secs(3));
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    #[must_use]
    pub fn options(mut self, options: impl Into<Arc<Options>>) -> Self {
        self.options = options.into();
        self
    }

    fn options_mut(&mut self) -> &mut Options {
        Arc::make_mut(&mut self.options)
    }
}

/// # Connection
///
/// Every length of time is allowed. One that is too long for the clock never ends, and with none at
/// all what it bounds has failed by the time it is looked at.
impl Config {
    /// The bound on one attempt, from `Connect` to the open socket: credentials, name
    /// resolution, TCP, TLS and upgrade together. With zero, every attempt fails.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().connect_timeout = timeout;
        self
    }

    /// How long the peer may take to answer our close frame before TCP is dropped. With zero the
    /// frame is written, if it can be at once, and its answer is not awaited.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().close_timeout = timeout;
        self
    }

    /// The range of the first retry after an open connection was lost.
    ///
    /// A deploy often ends connections without any close frame, so even this retry is spread: far
    /// enough that a hundred thousand clients of one server do not dial within a few tenths of a
    /// second (the example `storm`). For the same reason the retries after it leave out the steps of
    /// [`reconnect_after`](Self::reconnect_after) that are shorter than the end of this range. A
    /// client that is alone may choose less.
    ///
    /// ```
    /// use core::time::Duration;
    /// use phx_proto::Config;
    /// use phx_proto::config::DelayRange;
    ///
    /// let range = DelayRange::new(Duration::from_millis(10), Duration::from_millis(100))?;
    /// let alone = Config::new("ws://localhost:4000/socket/websocket")?.first_retry_spread(range);
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    #[must_use]
    pub fn first_retry_spread(mut self, range: DelayRange) -> Self {
        self.options_mut().first_retry_spread = range;
        self
    }

    /// Delays between further attempts; the last repeats.
    ///
    /// A client that starts before its server takes them one by one. Once an open connection was
    /// lost, the steps shorter than the [`first_retry_spread`](Self::first_retry_spread), or than
    /// the range of the close code, are left out until a connection has been stable: by default
    /// the second retry comes 1 to 2 s after the first, the third 2.5 to 5 s after that.
    ///
    /// ```
    /// use core::time::Duration;
    /// use phx_proto::Config;
    /// use phx_proto::config::Backoff;
    ///
    /// let patient = Backoff::exponential(Duration::from_secs(1), 2.0, Duration::from_secs(60))?;
    /// let config = Config::new("wss://example.com/socket/websocket")?.reconnect_after(patient);
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    #[must_use]
    pub fn reconnect_after(mut self, backoff: Backoff) -> Self {
        self.options_mut().reconnect_after = backoff;
        self
    }

    /// Delays after the server refused the upgrade with a status that a retry will hardly
    /// change, such as 403 or 404. They have a counter of their own.
    ///
    /// So it waits when a second connection in a row ended with
    /// [`Cause::MessageTooLarge`](crate::Cause::MessageTooLarge), and after each one that follows, until one
    /// ends otherwise or lasts longer than the longest of these delays.
    ///
    /// A 404 where a connection was open before (same scheme, host, port and path) is what a router
    /// answers during a deploy: for 2 min from the first one it waits as other failures do.
    #[must_use]
    pub fn refused_after(mut self, backoff: Backoff) -> Self {
        self.options_mut().refused_after = backoff;
        self
    }

    /// The most that a `Retry-After` header is obeyed, before the spread of up to a fifth that every
    /// such delay gets. With zero it is not obeyed.
    #[must_use]
    pub fn retry_after_max(mut self, max: Duration) -> Self {
        self.options_mut().retry_after_max = max;
        self
    }

    /// How long a connection, or a joined channel, must have held when it is lost for its
    /// attempt counter to go back to zero.
    ///
    /// Without it, and so with zero, a server that accepts and drops would be asked at the first
    /// step for ever.
    #[must_use]
    pub fn stable_after(mut self, after: Duration) -> Self {
        self.options_mut().stable_after = after;
        self
    }

    /// How many reconnects may be scheduled since the last stable connection. None is no limit,
    /// 0 never reconnects; what comes after the last one is `GaveUp`.
    #[must_use]
    pub fn max_retries(mut self, max: Option<u32>) -> Self {
        self.options_mut().max_retries = max;
        self
    }

    /// How long to go on trying, from the first failure since the last stable connection.
    /// None is no limit. A delay that would pass it gives up at once, so zero does at the first
    /// failure.
    ///
    /// ```
    /// use core::time::Duration;
    /// use phx_proto::Config;
    ///
    /// // A tool: a few tries, and not for long.
    /// let config = Config::new("wss://example.com/socket/websocket")?
    ///     .max_retries(Some(5))
    ///     .max_elapsed(Some(Duration::from_secs(30)));
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    #[must_use]
    pub fn max_elapsed(mut self, max: Option<Duration>) -> Self {
        self.options_mut().max_elapsed = max;
        self
    }

    /// What a close code means. By default every one is followed by a retry, 1000 included (Phoenix
    /// sends it on restarts); those that hit many clients at once have a wider spread.
    ///
    /// ```
    /// use phx_proto::Config;
    /// use phx_proto::config::CloseRule;
    ///
    /// // This server says 4001 when the account was closed.
    /// let config = Config::new("wss://example.com/socket/websocket")?
    ///     .close_rule(4001, CloseRule::Stop);
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    #[must_use]
    pub fn close_rule(mut self, code: u16, rule: CloseRule) -> Self {
        self.options_mut().close_policy.set(code, rule);
        self
    }

    /// What the HTTP status of a refused upgrade means. By default 401 is
    /// [`Unauthorized`](StatusRule::Unauthorized); 408, 425, 429 and 5xx are
    /// [`Backoff`](StatusRule::Backoff); anything else is [`Refused`](StatusRule::Refused).
    ///
    /// ```
    /// use phx_proto::Config;
    /// use phx_proto::config::StatusRule;
    ///
    /// // Behind this gateway a 404 is a deploy, and a 403 is final.
    /// let config = Config::new("wss://example.com/socket/websocket")?
    ///     .status_rule(404, StatusRule::Backoff)
    ///     .status_rule(403, StatusRule::Stop);
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    #[must_use]
    pub fn status_rule(mut self, status: u16, rule: StatusRule) -> Self {
        self.options_mut().status_policy.set(status, rule);
        self
    }
}

/// # Liveness
impl Config {
    /// The time between heartbeats. Zero turns them off.
    ///
    /// Phoenix closes a connection on which it heard nothing for 60 s by default
    /// (`wire/idle_timeout_close`), so keep well below that: from 60 s on there is a
    /// [`Warning::HeartbeatIntervalTooLong`](crate::event::Warning::HeartbeatIntervalTooLong).
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.options_mut().heartbeat_interval = interval;
        self
    }

    /// How long after it fell due a heartbeat may go unanswered.
    ///
    /// It must leave room for the slowest round trip, and for the event loop of a busy server;
    /// less than a second will cut connections that are well.
    #[must_use]
    pub fn heartbeat_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().heartbeat_timeout = timeout;
        self
    }

    /// With heartbeats off: how long the transport may refuse frames before the connection is
    /// given up as dead. Bytes written meanwhile extend it, by
    /// [`send_rate_min`](Self::send_rate_min).
    #[must_use]
    pub fn write_stall_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().write_stall_timeout = timeout;
        self
    }

    /// The slowest link from the server, in bytes per second. With zero, bytes that are read extend
    /// no deadline.
    ///
    /// A heartbeat's reply, and a join's, queue behind what is on its way already. So every byte
    /// read while one of them is awaited extends its deadline by its time at this rate, at most by
    /// [`progress_max`](Self::progress_max). A lower rate finds a dead connection that still
    /// trickles later; a higher one cuts links that are slower.
    #[must_use]
    pub fn receive_rate_min(mut self, bytes_per_second: u64) -> Self {
        self.options_mut().receive_rate_min = bytes_per_second;
        self
    }

    /// The slowest link to the server, in bytes per second. With zero, bytes that are written extend
    /// no deadline.
    ///
    /// A heartbeat, and a join, queue behind what was written before them. So every byte that lies
    /// ahead of one, and that no answer has proven received, extends its deadline by its time at
    /// this rate, at most by [`progress_max`](Self::progress_max). The operating system takes
    /// megabytes before it says that nothing leaves; at a lower rate those hide a dead connection
    /// for longer.
    #[must_use]
    pub fn send_rate_min(mut self, bytes_per_second: u64) -> Self {
        self.options_mut().send_rate_min = bytes_per_second;
        self
    }

    /// By how much bytes may extend the deadline of one answer.
    ///
    /// A dead connection is found at the latest this long, and
    /// [`heartbeat_timeout`](Self::heartbeat_timeout), after a heartbeat fell due. It also bounds the
    /// largest message of a slow link: a message that takes longer than this to transfer never
    /// arrives.
    #[must_use]
    pub fn progress_max(mut self, longest: Duration) -> Self {
        self.options_mut().progress_max = longest;
        self
    }
}

/// # Channels
impl Config {
    /// How long the oldest unanswered join may take before it is reported and probed. It ends
    /// nothing by itself: a late ok still counts.
    #[must_use]
    pub fn join_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().join_timeout = timeout;
        self
    }

    /// How long a join may keep the whole socket silent before the connection is dropped.
    /// It is counted as [`join_timeout`](Self::join_timeout) is: from when the join is the oldest that
    /// is unanswered.
    #[must_use]
    pub fn join_block_max(mut self, max: Duration) -> Self {
        self.options_mut().join_block_max = max;
        self
    }

    /// How many joins may be unanswered at once, from 1.
    ///
    /// When the server closes two connections in a row within 2 s of joins, as servers with a limit
    /// of joins do, they are written at half of the rate that was answered, and faster again when
    /// that works.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] for 0.
    pub fn join_concurrency(mut self, joins: usize) -> Result<Self, ConfigError> {
        self.options_mut().join_concurrency = not_zero("join_concurrency", joins)?;
        Ok(self)
    }

    /// Delays before a crashed channel is joined again; the last repeats.
    #[must_use]
    pub fn rejoin_after(mut self, backoff: Backoff) -> Self {
        self.options_mut().rejoin_after = backoff;
        self
    }

    /// Delays before a rejected rejoin or auto-join is tried again; the last repeats.
    #[must_use]
    pub fn rejected_after(mut self, backoff: Backoff) -> Self {
        self.options_mut().rejected_after = backoff;
        self
    }

    /// How many rejections in a row are followed by another try, for rejoins and auto-joins.
    /// With 0 the first one is final.
    #[must_use]
    pub fn join_rejections_max(mut self, max: u32) -> Self {
        self.options_mut().join_rejections_max = max;
        self
    }

    /// How long a leave may go unanswered. A join of the same topic waits as long.
    #[must_use]
    pub fn leave_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().leave_timeout = timeout;
        self
    }
}

/// # Pushes, limits and buffers
impl Config {
    /// How long a push may take, from the call to its outcome. Each push can have its own
    /// ([`PushOptions::timeout`](crate::PushOptions::timeout)).
    #[must_use]
    pub fn push_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().push_timeout = timeout;
        self
    }

    /// How many pushes may be accepted and not yet written, on all channels together. With 0 no push
    /// is accepted, because each of them waits for the transport first.
    ///
    /// While more than one topic is wanted or being left, none holds more than half of it (rounded up),
    /// so pushes to one that cannot be joined do not make those to the others fail. A push beyond either
    /// is refused with [`PushErrorKind::QueueFull`](crate::event::PushErrorKind::QueueFull).
    #[must_use]
    pub fn queued_pushes_max(mut self, max: usize) -> Self {
        self.options_mut().queued_pushes_max = max;
        self
    }

    /// How many bytes of payloads and event names may be accepted and not yet written;
    /// while more than one topic is wanted or being left, each holds at most half of it, as with
    /// [`queued_pushes_max`](Self::queued_pushes_max). A push that is larger by itself is never taken, so
    /// raise it together with [`max_push_bytes`](Self::max_push_bytes): to twice of that for several
    /// topics.
    ///
    /// It bounds the memory that is held: a payload that is a slice of a larger buffer is copied when it is
    /// accepted, instead of when its frame is built. What is not counted is at most a kilobyte and a half
    /// for each push, or a quarter of its payload.
    #[must_use]
    pub fn queued_bytes_max(mut self, max: usize) -> Self {
        self.options_mut().queued_bytes_max = max;
        self
    }

    /// How many calls may be written and await their replies, on all channels together, from 1.
    ///
    /// At that, further calls wait in the queue, within its bounds and their own timeouts, until one is
    /// answered or ends. So does what is behind such a call on its channel, casts included, as a channel's
    /// frames keep their order. Everything else is written as ever: casts of other channels, heartbeats,
    /// joins and leaves. A leave ends what waits of its channel
    /// [`NotSent`](crate::PushOutcome::NotSent).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] for 0.
    pub fn pushes_in_flight_max(mut self, calls: usize) -> Result<Self, ConfigError> {
        self.options_mut().pushes_in_flight_max = not_zero("pushes_in_flight_max", calls)?;
        Ok(self)
    }

    /// The largest frame that is sent, in bytes. A push or a join beyond it is refused at the call.
    ///
    /// Set it to the server's `max_frame_size` if that is smaller: the server closes the whole
    /// connection otherwise (`wire/frame_too_big`). Bandit 1.11 and later takes 8,000,000 bytes, or
    /// 10,000,000 behind WebSockAdapter 0.6; Cowboy 2.17 and later takes 1,000,000.
    #[must_use]
    pub fn max_push_bytes(mut self, max: usize) -> Self {
        self.options_mut().max_push_bytes = max;
        self
    }

    /// The largest message that is accepted, in bytes; less
    /// [for many connections](Self::for_many_connections). A larger one ends the connection with close
    /// code 1009 and [`Cause::MessageTooLarge`](crate::Cause::MessageTooLarge), and the connection is made
    /// again. When that ends the next one too, further attempts wait by
    /// [`refused_after`](Self::refused_after).
    #[must_use]
    pub fn max_message_bytes(mut self, max: usize) -> Self {
        self.options_mut().max_message_bytes = max;
        self
    }

    /// Whether payloads are checked to be JSON on arrival. By default a payload is parsed once, by
    /// its reader. When it is checked, what is no JSON is a
    /// [`Signal::ProtocolError`](crate::Signal::ProtocolError) and is not delivered.
    #[must_use]
    pub fn strict_payloads(mut self, strict: bool) -> Self {
        self.options_mut().strict_payloads = strict;
        self
    }

    /// How many messages, and how many bytes of them, wait for a slow consumer: for each subscriber.
    /// Used by the `driver` feature.
    ///
    /// A stream takes up to an eighth of either in hand at once. Those count as waiting, and
    /// are not dropped any more. The bytes are of the memory that is held, names and read buffers
    /// included; see [bounds](crate::manual::bounds).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] for no messages.
    pub fn mailbox(mut self, messages: usize, bytes: usize) -> Result<Self, ConfigError> {
        let options = self.options_mut();
        options.mailbox_messages_max = not_zero("mailbox", messages)?;
        options.mailbox_bytes_max = bytes;
        Ok(self)
    }

    /// The buffers of a connection that is one of thousands and idle most of the time: 4 KiB for
    /// reading, 4 KiB for writing, and messages of at most 8 MiB
    /// ([`max_message_bytes`](Self::max_message_bytes)).
    ///
    /// It saves 12 KiB of resident memory a connection. What it costs is a system call for every
    /// 4 KiB that are read in a burst, where the default has one for every 16 KiB.
    #[must_use]
    pub fn for_many_connections(mut self) -> Self {
        const BUFFER: NonZeroUsize = NonZeroUsize::new(4 << 10).expect("it is not zero");
        let options = self.options_mut();
        options.read_buffer_bytes = BUFFER;
        options.write_buffer_bytes = BUFFER.get();
        options.max_message_bytes = 8 << 20;
        self
    }

    /// The socket's read and write buffers in bytes. The defaults are good for one busy connection;
    /// with thousands of idle ones, see
    /// [`for_many_connections`](Self::for_many_connections). Used by the adapters.
    ///
    /// ```
    /// let one_of_many = phx_proto::Config::new("wss://example.com/socket/websocket")?
    ///     .buffers(4 << 10, 4 << 10)?
    ///     .mailbox(16, 64 << 10)?;
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] for a read buffer of 0.
    pub fn buffers(mut self, read: usize, write: usize) -> Result<Self, ConfigError> {
        let options = self.options_mut();
        options.read_buffer_bytes = not_zero("buffers", read)?;
        options.write_buffer_bytes = write;
        Ok(self)
    }

    /// The implementation of WebSocket that the adapters use; see [`TransportKind`] for the differences.
    ///
    /// ```
    /// # #[cfg(feature = "websocket")]
    /// # fn main() -> Result<(), phx_proto::ConfigError> {
    /// use phx_proto::config::TransportKind;
    ///
    /// let config = phx_proto::Config::new("wss://example.com/socket/websocket")?
    ///     .transport(TransportKind::WebSocket);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "websocket"))]
    /// # fn main() {}
    /// ```
    #[must_use]
    pub fn transport(mut self, transport: TransportKind) -> Self {
        self.options_mut().transport = transport;
        self
    }
}

fn not_zero(key: &'static str, number: usize) -> Result<NonZeroUsize, ConfigError> {
    NonZeroUsize::new(number).ok_or(ConfigError::Zero { key })
}

/// # What adapters read
#[cfg(feature = "tls")]
impl Config {
    /// What was given to [`tls`](Self::tls), or its default.
    #[must_use]
    pub fn tls_in_use(&self) -> &crate::config::tls::Tls {
        self.tls.as_ref().unwrap_or_else(|| crate::config::tls::Tls::standard())
    }
}
