//! The setters of [`Config`]. `tests/socket/config_extremes.rs` tests their documented behaviour for zero and
//! for the longest durations. The defaults are those of `Options::default`.

use core::num::NonZeroUsize;
use core::time::Duration;
use std::sync::Arc;

use super::proxy::Environment;
use super::route::Target;
use super::{
    CloseRule, Compression, Config, ConfigError, Credentials, Options, Proxy, Secret, StatusRule,
    TransportKind,
};
use crate::config::backoff::{Backoff, DelayRange};
use crate::config::join_params::JoinParams;
use crate::topic::Topic;
use crate::wire::Codec;

/// # Credentials and codec
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
    /// The errors of [`Credentials::header`].
    pub fn header(
        mut self,
        name: impl Into<String>,
        value: impl Into<Secret>,
    ) -> Result<Self, ConfigError> {
        self.credentials = self.credentials.header(name, value)?;
        Ok(self)
    }

    /// Sets the token for Phoenix's `auth_token` option; see [`Credentials::auth_token`].
    #[must_use]
    pub fn auth_token(mut self, token: impl Into<Secret>) -> Self {
        self.credentials = self.credentials.auth_token(token);
        self
    }

    /// Sets all credentials at once: parameters, headers, token and address. They replace those set before.
    /// If that address may not be dialled, the connection gives up at its first attempt.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Sets whether credentials are refreshed before each attempt. If they are, a first 401 is followed by
    /// a retry with new credentials. The default is `false`.
    ///
    /// A driver with a credential provider sets this. If you drive the socket yourself, set it if you call
    /// [`Socket::set_credentials`](crate::Socket::set_credentials) on every `Connect`.
    #[must_use]
    pub const fn credentials_refreshed(mut self, refreshed: bool) -> Self {
        self.credentials_refreshed = refreshed;
        self
    }

    /// Sets the codec. The default is the one for the `vsn` in the query of the address, or
    /// [`V2`](crate::wire::V2) if there is none, like Phoenix's own clients.
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
    /// [`ConfigError::Vsn`] if the query of the address has another `vsn`.
    pub fn codec(mut self, codec: Arc<dyn Codec>) -> Result<Self, ConfigError> {
        self.codec = codec;
        self.check_uri(&self.uri)?;
        Ok(self)
    }

    /// Adds a topic that is joined whenever the client connects, without a call of `join`.
    ///
    /// A rejected auto-join is retried up to [`join_rejections_max`](Self::join_rejections_max) times.
    /// Later calls with the same topic replace its parameters. With the driver, `Client::channel` returns
    /// a handle of the topic.
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

/// # Route to the server
impl Config {
    /// Sets an address to dial instead of the URI's host and port, for a port-forward, an ingress or a
    /// tunnel: `127.0.0.1:8443`, `[::1]:8443`, or a host alone, which keeps the port of the URI. By
    /// default there is none.
    ///
    /// The header `Host` and the name in the server's certificate are still those of the URI. The address
    /// is used for every attempt, even if credentials contain another URI. Proxies and their exceptions are
    /// matched against this address. The address does not affect a stream that the caller dials
    /// (`dial_with`).
    ///
    /// ```
    /// use phx_proto::Config;
    ///
    /// // kubectl port-forward service/backend 8443:443
    /// let config = Config::new("wss://backend.example.com/socket/websocket")?
    ///     .connect_to("127.0.0.1:8443")?;
    /// assert_eq!(config.dial_target(config.uri()), ("127.0.0.1", 8443));
    /// // Clear text may not leave this machine this way either.
    /// assert!(Config::new("ws://localhost/socket/websocket")?.connect_to("10.0.0.1:80").is_err());
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::ConnectTo`] if the address is invalid, and [`ConfigError::Insecure`] if a `ws://`
    /// URI would leave this machine.
    pub fn connect_to(self, address: &str) -> Result<Self, ConfigError> {
        self.dial(Target::parse(address)?)
    }

    pub(crate) fn dial(mut self, target: Target) -> Result<Self, ConfigError> {
        self.connect_to = Some(Arc::new(target));
        self.check_uri(&self.uri)?;
        Ok(self)
    }

    /// Sets the proxy for every host that it does not [except](Proxy::except), including this machine. By
    /// default there is none, and environment variables are not read.
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(Arc::new(proxy));
        self
    }

    /// Sets the proxy from environment variables: `https_proxy`, `HTTPS_PROXY`, `all_proxy` or `ALL_PROXY`
    /// for `wss://`, and `http_proxy`, `all_proxy` or `ALL_PROXY` for `ws://`. The proxy is not used for
    /// this machine, for the hosts in `no_proxy` or `NO_PROXY`, or if another proxy is set with
    /// [`proxy`](Self::proxy).
    ///
    /// The variables are read now, through `lookup`. An invalid proxy is an error only for an address that
    /// would be reached through it.
    ///
    /// ```
    /// use phx_proto::Config;
    ///
    /// let config = Config::new("wss://example.com/socket/websocket")?
    ///     .proxy_from_env(|name| std::env::var(name).ok())?;
    /// // An invalid proxy that is not used is not an error.
    /// let bad = |name: &str| (name == "ALL_PROXY").then(|| "ftp://proxy".to_owned());
    /// assert!(Config::new("wss://localhost/socket/websocket")?.proxy_from_env(bad).is_ok());
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::Proxy`] with the name of the variable if the configured address would be reached
    /// through an invalid proxy.
    pub fn proxy_from_env(
        mut self,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        self.environment = Environment::read(lookup).map(Arc::new);
        self.proxy_to(&self.uri)?;
        Ok(self)
    }

    /// Sets the trusted roots and the client certificate for `wss://`: a [`Tls`](crate::config::Tls), or
    /// the caller's own `Arc<rustls::ClientConfig>`. The default is Mozilla's roots, no certificate, and the
    /// cryptography of ring; [`Tls::builder`](crate::config::Tls::builder) takes another crypto provider.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: impl Into<crate::config::tls::Tls>) -> Self {
        self.tls = Some(tls.into());
        self
    }
}

/// # Options
///
/// Each setter below sets a field of the [`Options`], to which a configuration derefs. The defaults are
/// those of [`Options::default`].
impl Config {
    /// Sets all options at once and replaces those set before.
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
        self.options = Options::bounded(options.into());
        self
    }

    fn options_mut(&mut self) -> &mut Options {
        Arc::make_mut(&mut self.options)
    }

    fn bounded(mut self) -> Self {
        self.options = Options::bounded(self.options);
        self
    }
}

/// # Connection
///
/// Every duration is allowed. A timeout that is too long for the clock never expires, and a timeout of
/// zero expires at the next check.
impl Config {
    /// Sets the timeout of one attempt, from `Connect` to the open socket. The timeout includes the
    /// credential provider, name resolution, TCP, TLS and the upgrade. With zero, an attempt fails
    /// unless the connection is open at the next check of the deadlines.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().connect_timeout = timeout;
        self
    }

    /// Sets the time to wait for the peer's close frame before the TCP connection is dropped. With zero,
    /// the client sends its close frame only if it can be written at once, and does not wait for the
    /// peer's.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().close_timeout = timeout;
        self
    }

    /// Sets the range of delays of the first retry after an open connection was lost.
    ///
    /// A deploy often ends connections without a close frame, so even this retry is spread. The default is
    /// wide enough that a hundred thousand clients of one server do not dial within a few tenths of a
    /// second (the example `storm`). For the same reason later retries skip the steps of
    /// [`reconnect_after`](Self::reconnect_after) that are shorter than the end of this range. If few
    /// clients use the server, a shorter range is enough.
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

    /// Sets the delays between further attempts; the last one repeats.
    ///
    /// A client that starts before its server uses all steps. After an open connection was lost, the
    /// client skips the steps that are shorter than the end of the
    /// [`first_retry_spread`](Self::first_retry_spread), or than the end of the range of the close code,
    /// until a connection has been stable. By default the second retry follows the first after 1 to 2 s,
    /// and the third follows after another 2.5 to 5 s.
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

    /// Sets the delays after a refusal that a retry is unlikely to change: the server refused the upgrade
    /// with a status such as 403 or 404, an HTTP proxy refused the tunnel with a status below 500, or a
    /// SOCKS5 proxy refused the credentials or the address. Such attempts have their own counter.
    ///
    /// The same delays apply when two or more connections in a row ended with
    /// [`Cause::MessageTooLarge`](crate::Cause::MessageTooLarge), until a connection ends for another
    /// reason or lasts longer than the last of these delays.
    ///
    /// A router may reply with 404 during a deploy. So if a connection to the same scheme, host, port and
    /// path was open before, a 404 is followed by the delays of [`reconnect_after`](Self::reconnect_after)
    /// instead, until 2 min after the first 404.
    #[must_use]
    pub fn refused_after(mut self, backoff: Backoff) -> Self {
        self.options_mut().refused_after = backoff;
        self
    }

    /// Sets the longest delay that a `Retry-After` header can request. A random spread of up to a fifth is
    /// added to it. With zero, the header is ignored.
    #[must_use]
    pub fn retry_after_max(mut self, max: Duration) -> Self {
        self.options_mut().retry_after_max = max;
        self
    }

    /// Sets the time after which a connection, or a joined channel, counts as stable. The attempt counter
    /// is reset when the connection or the channel is lost after that time.
    ///
    /// With zero, the counter is reset after every connection. If a server accepts connections and drops
    /// them, its clients then always retry with the first delay.
    #[must_use]
    pub fn stable_after(mut self, after: Duration) -> Self {
        self.options_mut().stable_after = after;
        self
    }

    /// Sets the maximum number of retries since the last stable connection; after them the connection ends
    /// as `GaveUp`. `None` means no limit, and 0 disables retries.
    #[must_use]
    pub fn max_retries(mut self, max: Option<u32>) -> Self {
        self.options_mut().max_retries = max;
        self
    }

    /// Sets the longest time to retry, from the first failure since the last stable connection. `None`
    /// means no limit. If the next delay would end later, the client gives up at once; with zero, it gives
    /// up at the first failure.
    ///
    /// ```
    /// use core::time::Duration;
    /// use phx_proto::Config;
    ///
    /// // A command-line tool: a few attempts within half a minute.
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

    /// Sets the rule for a close code. By default every code is followed by a retry, including 1000, which
    /// Phoenix sends when it restarts. Codes that reach many clients at once have a wider spread.
    ///
    /// ```
    /// use phx_proto::Config;
    /// use phx_proto::config::CloseRule;
    ///
    /// // This server closes with 4001 when the account was deleted.
    /// let config = Config::new("wss://example.com/socket/websocket")?
    ///     .close_rule(4001, CloseRule::Stop);
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    #[must_use]
    pub fn close_rule(mut self, code: u16, rule: CloseRule) -> Self {
        self.options_mut().close_policy.set(code, rule);
        self
    }

    /// Sets the rule for an HTTP status of a refused upgrade. By default 401 is
    /// [`Unauthorized`](StatusRule::Unauthorized); 408, 425, 429 and 5xx are
    /// [`Backoff`](StatusRule::Backoff); any other status is [`Refused`](StatusRule::Refused).
    ///
    /// ```
    /// use phx_proto::Config;
    /// use phx_proto::config::StatusRule;
    ///
    /// // This gateway replies with 404 during a deploy, and its 403 is final.
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
    /// Sets the time between heartbeats. Zero disables them.
    ///
    /// By default Phoenix closes a connection on which it received nothing for 60 s
    /// (`wire/idle_timeout_close`), so choose less. An interval of 60 s or more causes
    /// [`Warning::HeartbeatIntervalTooLong`](crate::event::Warning::HeartbeatIntervalTooLong).
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.options_mut().heartbeat_interval = interval;
        self
    }

    /// Sets the timeout of the reply to a heartbeat, measured from when the heartbeat was due.
    ///
    /// Allow for the slowest round trip and for delays of a busy server. With less than a second, healthy
    /// connections will be closed.
    #[must_use]
    pub fn heartbeat_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().heartbeat_timeout = timeout;
        self
    }

    /// Sets how long the transport may refuse frames before the connection counts as dead. This timeout
    /// applies only if heartbeats are disabled. Bytes written meanwhile extend this time, as
    /// [`send_rate_min`](Self::send_rate_min) describes.
    #[must_use]
    pub fn write_stall_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().write_stall_timeout = timeout;
        self
    }

    /// Sets the slowest link from the server to support, in bytes per second. With zero, bytes read extend
    /// no deadline.
    ///
    /// The replies to heartbeats and joins queue behind data that is already on its way. So every byte that
    /// is read while the client waits for a reply extends the deadline of that reply by the time that the
    /// byte takes at this rate, at most by [`progress_max`](Self::progress_max). With a lower rate, a dead
    /// connection that still delivers a few bytes is detected later; with a higher rate, connections over
    /// slower links are closed.
    #[must_use]
    pub fn receive_rate_min(mut self, bytes_per_second: u64) -> Self {
        self.options_mut().receive_rate_min = bytes_per_second;
        self
    }

    /// Sets the slowest link to the server to support, in bytes per second. With zero, bytes written extend
    /// no deadline.
    ///
    /// Heartbeats and joins queue behind data written before them. So each byte ahead of a heartbeat or a
    /// join extends the deadline of the reply, by the time that the byte takes at this rate. A byte no
    /// longer counts once a reply proves that the server has received it. The extension is at most
    /// [`progress_max`](Self::progress_max). The operating system buffers megabytes before it reports that
    /// nothing can be sent. With a lower rate these bytes extend the deadline further, so a dead connection
    /// is detected later.
    #[must_use]
    pub fn send_rate_min(mut self, bytes_per_second: u64) -> Self {
        self.options_mut().send_rate_min = bytes_per_second;
        self
    }

    /// Sets the maximum time by which bytes read and written can extend the deadline of one reply.
    ///
    /// A dead connection is detected at the latest after the sum of
    /// [`heartbeat_timeout`](Self::heartbeat_timeout) and this time, measured from when a heartbeat was due.
    /// This time also limits the messages of a slow link: a message that takes longer to transfer never
    /// arrives. Uploads that the server acknowledges, as over
    /// [`TransportKind::WebSocket`](super::TransportKind), have no such limit: each acknowledgement starts
    /// the deadline over.
    #[must_use]
    pub fn progress_max(mut self, longest: Duration) -> Self {
        self.options_mut().progress_max = longest;
        self
    }
}

/// # Channels
impl Config {
    /// Sets the time after which the oldest unanswered join is reported, and the server is probed with a
    /// heartbeat. The client keeps waiting for the join: a late ok still counts. No join is reported if
    /// [`join_block_max`](Self::join_block_max) is not longer than this timeout.
    #[must_use]
    pub fn join_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().join_timeout = timeout;
        self
    }

    /// Sets how long an unanswered join may keep the whole connection silent before the connection is
    /// dropped. Like [`join_timeout`](Self::join_timeout), it is measured from when the join becomes the
    /// oldest unanswered one. With zero, a join ends the connection unless it is answered at the next check
    /// of the deadlines.
    #[must_use]
    pub fn join_block_max(mut self, max: Duration) -> Self {
        self.options_mut().join_block_max = max;
        self
    }

    /// Sets the maximum number of joins that may be unanswered at once, at least 1.
    ///
    /// A server with a rate limit for joins may close the connection. If two connections in a row are
    /// closed within 2 s of joins, the client sends joins at half the rate at which the server answered
    /// them, and raises the rate again while the server answers every join.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] for 0.
    pub fn join_concurrency(mut self, joins: usize) -> Result<Self, ConfigError> {
        self.options_mut().join_concurrency = not_zero("join_concurrency", joins)?;
        Ok(self)
    }

    /// Sets the delays before a crashed channel is joined again; the last one repeats.
    #[must_use]
    pub fn rejoin_after(mut self, backoff: Backoff) -> Self {
        self.options_mut().rejoin_after = backoff;
        self
    }

    /// Sets the delays before a rejected rejoin or auto-join is retried; the last one repeats.
    #[must_use]
    pub fn rejected_after(mut self, backoff: Backoff) -> Self {
        self.options_mut().rejected_after = backoff;
        self
    }

    /// Sets the maximum number of rejections in a row that are followed by a retry, for rejoins and
    /// auto-joins. With 0 the first rejection is final.
    #[must_use]
    pub fn join_rejections_max(mut self, max: u32) -> Self {
        self.options_mut().join_rejections_max = max;
        self
    }

    /// Sets the timeout of a leave. A new join of the same topic waits until the leave has ended.
    #[must_use]
    pub fn leave_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().leave_timeout = timeout;
        self
    }
}

/// # Pushes, limits and buffers
impl Config {
    /// Sets the timeout of a push, from the call to its outcome. Each push can have its own
    /// ([`PushOptions::timeout`](crate::PushOptions::timeout)).
    #[must_use]
    pub fn push_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().push_timeout = timeout;
        self
    }

    /// Sets the maximum number of pushes that are accepted and not yet written, on all channels together.
    /// With 0 no push is accepted, because each push waits for the transport first.
    ///
    /// While more than one topic is wanted or being left, one topic can use at most half of the queue
    /// (rounded up), so a topic that cannot be joined does not make pushes to other topics fail. A push
    /// beyond either limit is refused with
    /// [`PushErrorKind::QueueFull`](crate::event::PushErrorKind::QueueFull).
    #[must_use]
    pub fn queued_pushes_max(mut self, max: usize) -> Self {
        self.options_mut().queued_pushes_max = max;
        self
    }

    /// Sets the maximum size, in bytes, of the payloads and event names of pushes that are accepted and not
    /// yet written. While more than one topic is wanted or being left, one topic can use at most half, as
    /// with [`queued_pushes_max`](Self::queued_pushes_max). A single push that is larger is never accepted,
    /// so raise this together with [`max_push_bytes`](Self::max_push_bytes): to twice its value if there are
    /// several topics.
    ///
    /// The limit counts memory. A payload that is a slice of a larger buffer is copied when it is accepted,
    /// instead of when its frame is built. The limit leaves out a small part of the memory of each push: up
    /// to a kilobyte and a half, or a quarter of the payload if that is more.
    #[must_use]
    pub fn queued_bytes_max(mut self, max: usize) -> Self {
        self.options_mut().queued_bytes_max = max;
        self
    }

    /// Sets the maximum number of calls that are written and wait for their replies, on all channels
    /// together, at least 1.
    ///
    /// When this number is reached, further calls wait in the queue, within its limits and their own
    /// timeouts, until a call ends. Pushes after such a call on the same channel wait too, including casts,
    /// because the frames of a channel keep their order. Other frames are written as usual: casts of other
    /// channels, heartbeats, joins and leaves. A leave ends the waiting pushes of its channel as
    /// [`NotSent`](crate::PushOutcome::NotSent).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] for 0.
    pub fn pushes_in_flight_max(mut self, calls: usize) -> Result<Self, ConfigError> {
        self.options_mut().pushes_in_flight_max = not_zero("pushes_in_flight_max", calls)?;
        Ok(self)
    }

    /// Sets the largest frame to send, in bytes. A call with a larger push or join returns an error.
    ///
    /// Set it to the server's `max_frame_size` if that is smaller: the server closes the whole connection
    /// for a larger frame (`wire/frame_too_big`). By default, a server with WebSockAdapter 0.6 or later
    /// accepts 10,000,000 bytes. With an older WebSockAdapter, Bandit 1.11 and later accepts 8,000,000, and
    /// Cowboy 2.17 and later accepts 1,000,000.
    #[must_use]
    pub fn max_push_bytes(mut self, max: usize) -> Self {
        self.options_mut().max_push_bytes = max;
        self
    }

    /// Sets the largest message to receive, in bytes. [`for_many_connections`](Self::for_many_connections)
    /// lowers it. A larger message ends the connection with close code 1009 and
    /// [`Cause::MessageTooLarge`](crate::Cause::MessageTooLarge), and the client reconnects. If the next
    /// connection ends the same way, further attempts wait for the delays of
    /// [`refused_after`](Self::refused_after).
    ///
    /// More than 1 GiB counts as 1 GiB: tungstenite reserves the memory for a frame when the server has
    /// announced its length.
    #[must_use]
    pub fn max_message_bytes(mut self, max: usize) -> Self {
        self.options_mut().max_message_bytes = max;
        self.bounded()
    }

    /// Sets whether received payloads are checked to be JSON. By default they are not, and each payload is
    /// parsed once, by its consumer. With the check, a message with an invalid payload is not delivered but
    /// reported as [`Signal::ProtocolError`](crate::Signal::ProtocolError).
    #[must_use]
    pub fn strict_payloads(mut self, strict: bool) -> Self {
        self.options_mut().strict_payloads = strict;
        self
    }

    /// Sets the maximum number of messages, and of their bytes, that wait for one slow consumer. The feature
    /// `driver` uses these limits.
    ///
    /// A stream takes messages from its mailbox in batches of up to an eighth of each limit. Those messages
    /// still count against the limits, but are not dropped any more. The bytes count memory, including names
    /// and read buffers; see [bounds](crate::manual::bounds).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] for 0 messages.
    pub fn mailbox(mut self, messages: usize, bytes: usize) -> Result<Self, ConfigError> {
        let options = self.options_mut();
        options.mailbox_messages_max = not_zero("mailbox", messages)?;
        options.mailbox_bytes_max = bytes;
        Ok(self)
    }

    /// Sets small buffers for a process with thousands of mostly idle connections: 4 KiB for reading,
    /// 4 KiB for writing, and messages of at most 8 MiB ([`max_message_bytes`](Self::max_message_bytes)).
    ///
    /// This saves 12 KiB of resident memory for each connection. In a burst, each system call reads 4 KiB
    /// instead of 16 KiB.
    #[must_use]
    pub fn for_many_connections(mut self) -> Self {
        const BUFFER: NonZeroUsize = NonZeroUsize::new(4 << 10).expect("4 KiB is not zero");
        let options = self.options_mut();
        options.read_buffer_bytes = BUFFER;
        options.write_buffer_bytes = BUFFER.get();
        options.max_message_bytes = 8 << 20;
        self
    }

    /// Sets the sizes of the socket's read and write buffers in bytes. The defaults suit one busy
    /// connection; for thousands of idle ones see [`for_many_connections`](Self::for_many_connections). The
    /// adapters use these sizes. A read buffer of more than 16 MiB counts as 16 MiB.
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
    /// [`ConfigError::Zero`] for a read buffer of 0 bytes.
    pub fn buffers(mut self, read: usize, write: usize) -> Result<Self, ConfigError> {
        let options = self.options_mut();
        options.read_buffer_bytes = not_zero("buffers", read)?;
        options.write_buffer_bytes = write;
        Ok(self.bounded())
    }

    /// Sets the WebSocket implementation that the adapters use; see [`TransportKind`] for the differences.
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

    /// Offers the server to compress messages (permessage-deflate); by default the client does not. If the
    /// server does not support it, the connection opens without compression. If the server's answer
    /// contradicts the offer, the attempt fails.
    ///
    /// tungstenite cannot compress, so with this option the adapters use phx's own WebSocket
    /// implementation, whatever [`transport`](Self::transport) is. A message counts against
    /// [`max_message_bytes`](Self::max_message_bytes) with its length before compression. Used by the
    /// adapters. [`manual::compression`](crate::manual::compression) helps to choose a preset.
    ///
    /// ```
    /// # #[cfg(feature = "deflate")]
    /// # fn main() -> Result<(), phx_proto::ConfigError> {
    /// use phx_proto::config::Compression;
    ///
    /// let config = phx_proto::Config::new("wss://example.com/socket/websocket")?
    ///     .compression(Compression::balanced());
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "deflate"))]
    /// # fn main() {}
    /// ```
    #[must_use]
    pub fn compression(mut self, compression: impl Into<Option<Compression>>) -> Self {
        self.options_mut().compression = compression.into();
        self
    }
}

/// # For adapters
impl Config {
    /// The WebSocket implementation to use: [`transport`](Self::transport), except that
    /// [`compression`](Self::compression) needs phx's own.
    #[must_use]
    pub fn transport_in_use(&self) -> TransportKind {
        #[cfg(feature = "deflate")]
        if self.compression.is_some() {
            return TransportKind::WebSocket;
        }
        self.transport
    }
}

fn not_zero(key: &'static str, number: usize) -> Result<NonZeroUsize, ConfigError> {
    NonZeroUsize::new(number).ok_or(ConfigError::Zero { key })
}

/// # For adapters
#[cfg(feature = "tls")]
impl Config {
    /// The TLS configuration set with [`tls`](Self::tls), or the default.
    ///
    /// # Errors
    ///
    /// [`TlsError::NoProvider`](crate::config::TlsError::NoProvider) if there is no crypto provider for the
    /// default.
    pub fn tls_in_use(&self) -> Result<&crate::config::tls::Tls, crate::config::TlsError> {
        self.tls.as_ref().map_or_else(|| crate::config::tls::Tls::standard(), Ok)
    }
}
