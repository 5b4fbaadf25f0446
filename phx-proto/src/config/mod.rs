//! Configuration of one connection.
//!
//! A [`Config`] is built with consuming setters. Each setter refuses invalid values, except that an address
//! in credentials is checked when it is dialled. The numbers and policies are [`Options`], which define the
//! defaults; the documentation of each setter explains when to change its value.

pub(crate) mod auth_token;
pub(crate) mod backoff;
#[cfg(feature = "tls")]
mod certificate;
mod compression;
mod credentials;
mod error;
pub(crate) mod http;
pub(crate) mod join_params;
pub(crate) mod msec;
mod options;
mod policy;
pub(crate) mod proxy;
mod punycode;
pub(crate) mod route;
mod secret;
mod setters;
#[cfg(feature = "tls")]
pub(crate) mod tls;
mod tls_files;
mod transport;
pub(crate) mod uri;
#[cfg(feature = "tls")]
mod verifier;

use core::fmt;
use core::ops::Deref;
use std::sync::Arc;

pub use auth_token::auth_token_subprotocol;
pub use backoff::{Backoff, DelayRange};
pub use compression::Compression;
pub use credentials::Credentials;
pub use error::ConfigError;
pub use join_params::{JoinAttempt, JoinParams, ParamsPanicked};
#[cfg(all(feature = "adapter", feature = "testing"))]
pub(crate) use options::MESSAGE_BYTES_MAX;
pub use options::Options;
pub use policy::{CloseRule, StatusRule};
pub use proxy::Proxy;
pub use secret::Secret;
#[cfg(feature = "tls")]
pub use tls::{Roots, Tls, TlsBuilder, TlsError};
pub use tls_files::TlsFiles;
pub use transport::TransportKind;
pub use uri::Uri;

use crate::topic::Topic;
use crate::wire::payload::Payload;
use crate::wire::{Codec, EncodeError, V1, V2, largest_envelope};

/// The configuration of a [`Socket`](crate::Socket).
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
    /// The options are shared by all clones of a configuration, such as those of thousands of connections.
    pub(crate) options: Arc<Options>,
}

impl Config {
    /// Creates a configuration for the Phoenix socket at `uri`, with the default of every option.
    ///
    /// The path of a Phoenix socket usually ends in `/websocket`:
    /// `wss://example.com/socket/websocket`. A `vsn` in the query selects the [`codec`](Self::codec).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Uri`] if `uri` is not a `ws://` or `wss://` URI, [`ConfigError::Insecure`] for
    /// `ws://` to a host that is not this machine, and [`ConfigError::UnknownVsn`] for a `vsn` that is
    /// neither 2.0.0 nor 1.0.0.
    pub fn new(uri: &str) -> Result<Self, ConfigError> {
        Self::at(Uri::parse(uri)?, false)
    }

    /// Like [`new`](Self::new), but allows `ws://` to other machines. Tokens and messages are then sent
    /// unencrypted.
    ///
    /// # Errors
    ///
    /// The errors of [`new`](Self::new), except [`ConfigError::Insecure`].
    pub fn insecure(uri: &str) -> Result<Self, ConfigError> {
        Self::at(Uri::parse(uri)?, true)
    }

    pub(crate) fn at(uri: Uri, allow_insecure: bool) -> Result<Self, ConfigError> {
        let codec = match uri.params("vsn").next() {
            None => Arc::new(V2),
            Some(vsn) => codec_of(&vsn).ok_or(ConfigError::UnknownVsn)?,
        };
        let config = Self {
            uri,
            allow_insecure,
            credentials: Credentials::new(),
            credentials_refreshed: false,
            codec,
            proxy: None,
            environment: None,
            connect_to: None,
            #[cfg(feature = "tls")]
            tls: None,
            auto_joins: Vec::new(),
            options: Arc::default(),
        };
        config.check_uri(&config.uri)?;
        Ok(config)
    }

    /// The configured address.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The topics that were added with [`auto_join`](Self::auto_join).
    pub fn auto_joined(&self) -> impl Iterator<Item = &Topic> {
        self.auto_joins.iter().map(|(topic, _)| topic)
    }

    /// Checks that a join with this payload can be encoded and is not too large.
    pub(crate) fn check_join(&self, topic: &str, payload: &Payload) -> Result<(), Unfit> {
        self.check_frame(topic, "phx_join", payload)
    }

    /// Checks that a message can be encoded and does not exceed the largest frame allowed.
    #[inline]
    pub(crate) fn check_frame(
        &self,
        topic: &str,
        event: &str,
        payload: &Payload,
    ) -> Result<(), Unfit> {
        self.codec.check(topic, event, payload).map_err(Unfit::Encode)?;
        let (len, limit) = (payload.len(), self.max_push_bytes);
        // Computing the length of the envelope scans the names, and is rarely needed.
        if len.saturating_add(largest_envelope(topic, event)) <= limit {
            return Ok(());
        }
        let bytes = len.saturating_add(self.codec.max_envelope_len(topic, event));
        // Protocol: LIMIT-1.
        if bytes > limit { Err(Unfit::TooLarge { bytes, limit }) } else { Ok(()) }
    }
}

/// Gives access to the options as fields: `config.push_timeout`.
impl Deref for Config {
    type Target = Options;

    fn deref(&self) -> &Options {
        &self.options
    }
}

/// The codecs of this crate, the default first.
pub(crate) fn codecs() -> [Arc<dyn Codec>; 2] {
    [Arc::new(V2), Arc::new(V1)]
}

/// The codec of this crate for a `vsn`, if there is one.
pub(crate) fn codec_of(vsn: &str) -> Option<Arc<dyn Codec>> {
    codecs().into_iter().find(|codec| codec.vsn() == vsn)
}

/// Why a message cannot be sent.
#[derive(Debug)]
pub(crate) enum Unfit {
    Encode(EncodeError),
    TooLarge { bytes: usize, limit: usize },
}

/// Shows the address without its query values, and no secrets.
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
