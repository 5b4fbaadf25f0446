//! The specification of one named connection: its configuration, restart policy and attributes.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::connection::Connection;
use crate::config::{Config, TlsFiles};
use crate::service::supervision::RestartPolicy;

/// The specification of one named connection, for a supervisor.
///
/// # Keys of the document
///
/// Only `uri` is required. The other keys are those in the table and the fields of
/// [`Options`](crate::Options), whose defaults are [`Options::default`](crate::Options::default).
/// The key of a duration ends in `_msec`, and its value is a number of milliseconds.
///
/// | key | value |
/// | --- | --- |
/// | `uri` | `ws://` or `wss://`, with its path |
/// | `allow_insecure` | allows `ws://` to another machine |
/// | `connect_to` | `host:port` to dial instead of the URI's; the header `Host` and the TLS name are still those of the URI |
/// | `vsn` | `"2.0.0"` or `"1.0.0"`; default: the `vsn` in the query of `uri`, otherwise `"2.0.0"` |
/// | `headers`, `params` | an object, or a list of pairs |
/// | `auth_token` | the token of Phoenix's `auth_token` |
/// | `auto_join_channels` | a list of topics or of pairs of topic and parameters, or an object with parameters by topic |
/// | `reconnect` | `false` means `max_retries` 0 |
/// | `close_rules` | an object by close code, which replaces the default: `"retry"`, `{"retry_within_msec": [from, to]}` or `"stop"` |
/// | `status_rules` | an object by HTTP status: `"backoff"`, `"refused"`, `"unauthorized"` or `"stop"` |
/// | `tls` | `ca_file`, `cert_file`, `key_file`, `server_name` |
/// | `restart` | `"transient"`, `"permanent"` or `"temporary"` |
/// | `max_restarts`, `max_restarts_msec` | the maximum number of restarts, and the time window in which they count |
/// | `attributes` | CloudEvents extension attributes to add to every event |
#[derive(Clone, Debug)]
pub struct ConnectionSpec {
    pub(crate) config: Config,
    pub(crate) restart: RestartPolicy,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) tls: Option<TlsFiles>,
    pub(super) source: Arc<Source>,
}

/// The source of a specification, for comparisons.
#[derive(Clone, Default)]
pub(super) struct Source {
    /// `None` for a specification that was made in code, because functions cannot be compared.
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

    /// The same source with the contents of the files, which replace their names in comparisons.
    #[cfg(feature = "tls")]
    pub(super) fn with_files(&self, files: crate::config::tls::Contents) -> Self {
        let mut source = Self { files: Some(files), ..self.clone() };
        if let Some(tls) = source.document.as_mut().and_then(|document| document.tls.as_mut()) {
            *tls = TlsFiles { server_name: tls.server_name.take(), ..TlsFiles::default() };
        }
        source
    }

    /// Whether both are equal documents whose files have the same contents.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        #[cfg(feature = "tls")]
        if self.files != other.files {
            return false;
        }
        self.document.is_some() && self.document == other.document
    }
}

/// Omits the content, which has secrets.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl ConnectionSpec {
    /// Makes a specification with the default restart policy, no attributes and no files.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let restart = RestartPolicy::default();
        let source = Arc::new(Source::default());
        Self { config, restart, attributes: BTreeMap::new(), tls: None, source }
    }

    /// Sets the restart policy.
    #[must_use]
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.restart = policy;
        self.source = Arc::new(Source::default());
        self
    }

    /// The configuration of the connection.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The restart policy.
    #[must_use]
    pub const fn restart_policy(&self) -> &RestartPolicy {
        &self.restart
    }

    /// The extension attributes of the connection's events.
    #[must_use]
    pub const fn attributes(&self) -> &BTreeMap<String, String> {
        &self.attributes
    }

    /// The files that the key `tls` names. Reading a document does not read them; a caller that can
    /// read files makes a configuration from them with `Tls::from_files`.
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
