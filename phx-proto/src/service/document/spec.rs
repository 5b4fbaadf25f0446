//! One named connection: its configuration, and what a supervisor does with it.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::service::supervision::RestartPolicy;

/// What a supervisor needs to keep one named connection.
///
/// # Keys of the document
///
/// Only `uri` must be there. Times are whole milliseconds. The defaults are those of the setters of
/// [`Config`].
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
/// | `max_retries`, `max_elapsed_msec` | when to give up; `null` for never |
/// | `reconnect_after_msec`, `rejoin_after_msec`, `refused_after_msec`, `rejected_after_msec` | the steps; the last one repeats |
/// | `first_retry_spread_msec` | `[from, to]` |
/// | `retry_after_max_msec`, `stable_after_msec`, `connect_timeout_msec`, `close_timeout_msec` | |
/// | `heartbeat_interval_msec` (0 for none), `heartbeat_timeout_msec`, `write_stall_timeout_msec` | |
/// | `receive_rate_min`, `send_rate_min` (bytes per second), `progress_max_msec` | |
/// | `join_timeout_msec`, `join_block_max_msec`, `leave_timeout_msec`, `push_timeout_msec` | |
/// | `join_concurrency`, `join_rejections_max` | |
/// | `queued_pushes_max`, `queued_bytes_max`, `pushes_in_flight_max` | |
/// | `max_push_bytes`, `max_message_bytes` | |
/// | `mailbox_messages_max`, `mailbox_bytes_max`, `read_buffer_bytes`, `write_buffer_bytes` | |
/// | `strict_payloads` | |
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
}

impl ConnectionSpec {
    /// With the default restart policy, no attributes and no files.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let restart = RestartPolicy::default();
        Self { config, restart, attributes: BTreeMap::new(), tls: None }
    }

    /// When it is started again after it ended.
    #[must_use]
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.restart = policy;
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

/// The files of a connection's `tls` key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The certificate authorities to trust, in PEM, in place of the usual ones.
    pub ca_file: Option<String>,
    /// The certificate chain to show, in PEM.
    pub cert_file: Option<String>,
    /// Its key, in PEM.
    pub key_file: Option<String>,
    /// The name to check the server's certificate against, in place of the host of the URI.
    pub server_name: Option<String>,
}
