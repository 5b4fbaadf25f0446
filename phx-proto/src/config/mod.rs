//! Configuration of one connection.
//!
//! A [`Config`] is built in code with consuming setters and is valid at every step: whatever
//! could be impossible is refused where it is given, so nothing downstream checks again. The
//! defaults are meant for production; each setter says what its default is and why one would
//! change it.

pub(crate) mod auth_token;
pub(crate) mod backoff;
#[cfg(feature = "tls")]
mod certificate;
mod credentials;
mod error;
pub(crate) mod http;
pub(crate) mod join_params;
mod policy;
pub(crate) mod proxy;
mod punycode;
mod route;
mod same;
mod secret;
mod setters;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod uri;
#[cfg(feature = "tls")]
mod verifier;

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

pub use credentials::Credentials;
pub use error::ConfigError;
pub(crate) use policy::{ClosePolicy, StatusPolicy};
pub use policy::{CloseRule, StatusRule};
pub use proxy::Proxy;
pub use secret::Secret;
pub use uri::Uri;

use crate::config::backoff::{Backoff, DelayRange, defaults};
use crate::config::join_params::JoinParams;
use crate::topic::Topic;
use crate::wire::payload::Payload;
use crate::wire::{Codec, EncodeError, V1, V2, largest_envelope};

/// Everything a [`Socket`](crate::Socket) needs to know.
///
/// ```
/// use core::time::Duration;
/// use phx_proto::Config;
///
/// let config = Config::new("wss://example.com/socket/websocket")?
///     .param("token", "s3cret")
///     .heartbeat_interval(Duration::from_secs(20));
/// assert_eq!(config.uri().host(), "example.com");
/// // Secrets stay out of logs.
/// assert!(!format!("{config:?}").contains("s3cret"));
/// # Ok::<(), phx_proto::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) uri: Uri,
    pub(crate) allow_insecure: bool,
    pub(crate) credentials: Credentials,
    pub(crate) credentials_refreshed: bool,
    pub(crate) codec: Arc<dyn Codec>,
    pub(crate) proxy: Option<Arc<Proxy>>,
    pub(crate) environment: Option<Arc<proxy::Environment>>,
    pub(crate) connect_to: Option<Arc<route::Target>>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::config::tls::Tls>,
    pub(crate) auto_joins: Vec<(Topic, JoinParams)>,

    pub(crate) connect_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) first_retry_spread: DelayRange,
    pub(crate) reconnect_after: Backoff,
    pub(crate) refused_after: Backoff,
    pub(crate) retry_after_max: Duration,
    pub(crate) stable_after: Duration,
    pub(crate) max_retries: Option<u32>,
    pub(crate) max_elapsed: Option<Duration>,
    pub(crate) close_policy: ClosePolicy,
    pub(crate) status_policy: StatusPolicy,

    pub(crate) heartbeat_interval: Duration,
    pub(crate) heartbeat_timeout: Duration,
    pub(crate) write_stall_timeout: Duration,
    pub(crate) receive_rate_min: u64,
    pub(crate) send_rate_min: u64,
    pub(crate) progress_max: Duration,

    pub(crate) join_timeout: Duration,
    pub(crate) join_block_max: Duration,
    pub(crate) join_concurrency: usize,
    pub(crate) rejoin_after: Backoff,
    pub(crate) rejected_after: Backoff,
    pub(crate) join_rejections_max: u32,
    pub(crate) leave_timeout: Duration,

    pub(crate) push_timeout: Duration,
    pub(crate) queued_pushes_max: usize,
    pub(crate) queued_bytes_max: usize,
    pub(crate) pushes_in_flight_max: usize,
    pub(crate) max_push_bytes: usize,
    pub(crate) max_message_bytes: usize,
    pub(crate) strict_payloads: bool,

    pub(crate) mailbox_messages_max: usize,
    pub(crate) mailbox_bytes_max: usize,
    pub(crate) read_buffer_bytes: usize,
    pub(crate) write_buffer_bytes: usize,
}

impl Config {
    /// A configuration with every default, for the socket at `uri`.
    ///
    /// The path of a Phoenix socket usually ends in `/websocket`:
    /// `wss://example.com/socket/websocket`. A `vsn` in its query chooses the
    /// [`codec`](Self::codec).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Uri`] for what is no `ws://` or `wss://` URI, [`ConfigError::Insecure`] for
    /// `ws://` to a host that is not this machine, and [`ConfigError::UnknownVsn`] for a `vsn` that is
    /// neither 2.0.0 nor 1.0.0.
    pub fn new(uri: &str) -> Result<Self, ConfigError> {
        let config = Self { allow_insecure: false, ..Self::insecure(uri)? };
        config.check_uri(&config.uri)?;
        Ok(config)
    }

    /// Like [`new`](Self::new), but lets `ws://` leave this machine: tokens and messages then
    /// travel in the clear.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), but for [`ConfigError::Insecure`].
    pub fn insecure(uri: &str) -> Result<Self, ConfigError> {
        let seconds = Duration::from_secs;
        let uri = Uri::parse(uri)?;
        let codec = codec_of(&uri)?;
        let config = Self {
            uri,
            allow_insecure: true,
            credentials: Credentials::new(),
            credentials_refreshed: false,
            codec,
            proxy: None,
            environment: None,
            connect_to: None,
            #[cfg(feature = "tls")]
            tls: None,
            auto_joins: Vec::new(),
            connect_timeout: seconds(10),
            close_timeout: seconds(2),
            first_retry_spread: DelayRange::from_millis(10, 1_500),
            reconnect_after: defaults::reconnect_after(),
            refused_after: defaults::refused_after(),
            retry_after_max: seconds(3_600),
            stable_after: seconds(10),
            max_retries: None,
            max_elapsed: None,
            close_policy: ClosePolicy::default(),
            status_policy: StatusPolicy::default(),
            heartbeat_interval: seconds(30),
            heartbeat_timeout: seconds(10),
            write_stall_timeout: seconds(30),
            receive_rate_min: 1_024,
            send_rate_min: 8_192,
            progress_max: seconds(600),
            join_timeout: seconds(10),
            join_block_max: seconds(60),
            join_concurrency: 8,
            rejoin_after: defaults::rejoin_after(),
            rejected_after: defaults::rejected_after(),
            join_rejections_max: 3,
            leave_timeout: seconds(10),
            push_timeout: seconds(10),
            queued_pushes_max: 1_024,
            queued_bytes_max: 8 << 20,
            pushes_in_flight_max: 16_384,
            max_push_bytes: 8 << 20,
            max_message_bytes: 64 << 20,
            strict_payloads: false,
            mailbox_messages_max: 256,
            mailbox_bytes_max: 8 << 20,
            read_buffer_bytes: 16 << 10,
            write_buffer_bytes: 16 << 10,
        };
        config.check_uri(&config.uri)?;
        Ok(config)
    }

    /// The configured address.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The topics that are joined without being asked for.
    pub fn auto_joined(&self) -> impl Iterator<Item = &Topic> {
        self.auto_joins.iter().map(|(topic, _)| topic)
    }

    /// Whether a message can be written, and is not larger than a frame may be.
    #[inline]
    pub(crate) fn check_frame(
        &self,
        topic: &str,
        event: &str,
        payload: &Payload,
    ) -> Result<(), Unfit> {
        self.codec.check(topic, event, payload).map_err(Unfit::Encode)?;
        let (len, limit) = (payload.len(), self.max_push_bytes);
        // To measure an envelope is to walk through the names, which hardly ever decides.
        if len.saturating_add(largest_envelope(topic, event)) <= limit {
            return Ok(());
        }
        let bytes = len.saturating_add(self.codec.max_envelope_len(topic, event));
        if bytes > limit { Err(Unfit::TooLarge { bytes, limit }) } else { Ok(()) }
    }
}

/// The codec that the query of an address asks for.
fn codec_of(uri: &Uri) -> Result<Arc<dyn Codec>, ConfigError> {
    match uri.params("vsn").next().as_deref() {
        None | Some("2.0.0") => Ok(Arc::new(V2)),
        Some("1.0.0") => Ok(Arc::new(V1)),
        Some(_) => Err(ConfigError::UnknownVsn),
    }
}

/// Why a message cannot be written.
#[derive(Debug)]
pub(crate) enum Unfit {
    Encode(EncodeError),
    TooLarge { bytes: usize, limit: usize },
}

/// Names the address without its query values, and no secret.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("uri", &self.uri)
            .field("vsn", &self.codec.vsn())
            .field("credentials", &self.credentials)
            .field("proxy", &self.proxy)
            .field("connect_to", &self.connect_to)
            .field("auto_joins", &self.auto_joins.iter().map(|(t, _)| t).collect::<Vec<_>>())
            .field("max_retries", &self.max_retries)
            .field("max_elapsed", &self.max_elapsed)
            .finish_non_exhaustive()
    }
}
