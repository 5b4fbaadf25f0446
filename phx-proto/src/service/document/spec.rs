//! One named connection: its configuration, and what a supervisor does with it.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::connection::Connection;
use crate::config::{Config, TlsFiles};
use crate::service::supervision::RestartPolicy;

/// What a supervisor needs to keep one named connection.
///
/// # Keys of the document
///
/// Only `uri` must be there. The others are these, and the fields of [`Options`](crate::Options), whose
/// defaults are [`Options::default`](crate::Options::default): a length of time is a key that ends in
/// `_msec`, a number of milliseconds.
///
/// | key | value |
/// | --- | --- |
/// | `uri` | `ws://` or `wss://`, with its path |
/// | `allow_insecure` | lets `ws://` leave this machine |
/// | `connect_to` | `host:port` to dial in place of the URI's; `Host` and the TLS name stay |
/// | `vsn` | `"2.0.0"` or `"1.0.0"`; default: that of the query of `uri`, else `"2.0.0"` |
/// | `headers`, `params` | an object, or a list of pairs |
/// | `auth_token` | the token of Phoenix's `auth_token` |
/// | `auto_join_channels` | topics, pairs of topic and parameters, or an object of them |
/// | `reconnect` | `false` means `max_retries` 0 |
/// | `close_rules` | an object of close codes, in place of the default: `"retry"`, `{"retry_within_msec": [from, to]}` or `"stop"` |
/// | `status_rules` | an object of HTTP statuses: `"backoff"`, `"refused"`, `"unauthorized"` or `"stop"` |
/// | `tls` | `ca_file`, `cert_file`, `key_file`, `server_name` |
/// | `restart` | `"transient"`, `"permanent"` or `"temporary"` |
/// | `max_restarts`, `max_restarts_msec` | how many restarts within how long are too many |
/// | `attributes` | what to add to every event: CloudEvents extension attributes |
#[derive(Clone, Debug)]
pub struct ConnectionSpec {
    pub(crate) config: Config,
    pub(crate) restart: RestartPolicy,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) tls: Option<TlsFiles>,
    pub(super) source: Arc<Source>,
}

/// What a specification was made of, to compare it by.
#[derive(Clone, Default)]
pub(super) struct Source {
    /// None of one that was made in code: functions have nothing to compare.
    document: Option<Connection>,
    #[cfg(feature = "tls")]
    files: Option<crate::config::tls::Contents>,
}

impl Source {
    pub(super) fn document(document: Connection) -> Self {
        Self {
            document: Some(document),
            #[cfg(feature = "tls")]
            files: None,
        }
    }

    /// The same with the files that it names, which count in place of their names.
    #[cfg(feature = "tls")]
    pub(super) fn with_files(&self, files: crate::config::tls::Contents) -> Self {
        let mut source = Self { files: Some(files), ..self.clone() };
        if let Some(tls) = source.document.as_mut().and_then(|document| document.tls.as_mut()) {
            *tls = TlsFiles { server_name: tls.server_name.take(), ..TlsFiles::default() };
        }
        source
    }

    /// Whether both are documents that say the same, and name files that hold the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        #[cfg(feature = "tls")]
        if self.files != other.files {
            return false;
        }
        self.document.is_some() && self.document == other.document
    }
}

/// Without its content, which has secrets.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl ConnectionSpec {
    /// With the default restart policy, no attributes and no files.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let restart = RestartPolicy::default();
        let source = Arc::new(Source::default());
        Self { config, restart, attributes: BTreeMap::new(), tls: None, source }
    }

    /// When it is started again after it ended.
    #[must_use]
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.restart = policy;
        self.source = Arc::new(Source::default());
        self
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// When it is started again.
    #[must_use]
    pub const fn restart_policy(&self) -> &RestartPolicy {
        &self.restart
    }

    /// The extension attributes of its events.
    #[must_use]
    pub const fn attributes(&self) -> &BTreeMap<String, String> {
        &self.attributes
    }

    /// The files that its `tls` key names. Whoever can read files turns them into a configuration,
    /// with `Tls::from_files`; reading the document does not.
    #[must_use]
    pub const fn tls_files(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }
}

impl From<Config> for ConnectionSpec {
    fn from(config: Config) -> Self {
        Self::new(config)
    }
}
