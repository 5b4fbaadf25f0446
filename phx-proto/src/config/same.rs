//! Whether two configurations ask for the same.

use std::sync::Arc;

use super::Config;

impl Config {
    /// Whether a connection with the one would be as with the other: every value is equal,
    /// secrets included. A default that is written out is the default.
    ///
    /// What has no value to compare is the same only if it is the very same: a function that
    /// makes join parameters, a rustls configuration of the caller's own. A codec of the
    /// caller's own is told by its `vsn` and its `Debug`.
    ///
    /// ```
    /// use phx_proto::Config;
    ///
    /// let config = |token: &str| Ok::<_, phx_proto::ConfigError>(
    ///     Config::new("wss://example.com/socket/websocket")?.auth_token(token),
    /// );
    /// assert!(config("s3cret")?.is_same(&config("s3cret")?));
    /// assert!(!config("s3cret")?.is_same(&config("another")?));
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        // Every field is named: one that is added does not compile until it is compared.
        let Self {
            uri,
            allow_insecure,
            credentials,
            credentials_refreshed,
            codec,
            proxy,
            environment,
            connect_to,
            #[cfg(feature = "tls")]
            tls,
            auto_joins,
            connect_timeout,
            close_timeout,
            first_retry_spread,
            reconnect_after,
            refused_after,
            retry_after_max,
            stable_after,
            max_retries,
            max_elapsed,
            close_policy,
            status_policy,
            heartbeat_interval,
            heartbeat_timeout,
            write_stall_timeout,
            receive_rate_min,
            send_rate_min,
            progress_max,
            join_timeout,
            join_block_max,
            join_concurrency,
            rejoin_after,
            rejected_after,
            join_rejections_max,
            leave_timeout,
            push_timeout,
            queued_pushes_max,
            queued_bytes_max,
            pushes_in_flight_max,
            max_push_bytes,
            max_message_bytes,
            strict_payloads,
            mailbox_messages_max,
            mailbox_bytes_max,
            read_buffer_bytes,
            write_buffer_bytes,
        } = self;
        let codec = Arc::ptr_eq(codec, &other.codec)
            || codec.vsn() == other.codec.vsn()
                && format!("{codec:?}") == format!("{:?}", other.codec);
        #[cfg(feature = "tls")]
        let tls = match (tls, &other.tls) {
            (Some(one), Some(two)) => one.is_same(two),
            (None, None) => true,
            _ => false,
        };
        #[cfg(not(feature = "tls"))]
        let tls = true;
        let joins = auto_joins.len() == other.auto_joins.len()
            && auto_joins.iter().zip(&other.auto_joins).all(|(one, two)| {
                let ((topic, params), (other_topic, other_params)) = (one, two);
                topic == other_topic && params.same(other_params)
            });
        let identity = *uri == other.uri
            && *allow_insecure == other.allow_insecure
            && *credentials == other.credentials
            && *credentials_refreshed == other.credentials_refreshed
            && *proxy == other.proxy
            && *environment == other.environment
            && *connect_to == other.connect_to;
        let connection = *connect_timeout == other.connect_timeout
            && *close_timeout == other.close_timeout
            && *first_retry_spread == other.first_retry_spread
            && *reconnect_after == other.reconnect_after
            && *refused_after == other.refused_after
            && *retry_after_max == other.retry_after_max
            && *stable_after == other.stable_after
            && *max_retries == other.max_retries
            && *max_elapsed == other.max_elapsed
            && *close_policy == other.close_policy
            && *status_policy == other.status_policy
            && *heartbeat_interval == other.heartbeat_interval
            && *heartbeat_timeout == other.heartbeat_timeout
            && *write_stall_timeout == other.write_stall_timeout
            && *receive_rate_min == other.receive_rate_min
            && *send_rate_min == other.send_rate_min
            && *progress_max == other.progress_max;
        let channels = *join_timeout == other.join_timeout
            && *join_block_max == other.join_block_max
            && *join_concurrency == other.join_concurrency
            && *rejoin_after == other.rejoin_after
            && *rejected_after == other.rejected_after
            && *join_rejections_max == other.join_rejections_max
            && *leave_timeout == other.leave_timeout;
        let bounds = *push_timeout == other.push_timeout
            && *queued_pushes_max == other.queued_pushes_max
            && *queued_bytes_max == other.queued_bytes_max
            && *pushes_in_flight_max == other.pushes_in_flight_max
            && *max_push_bytes == other.max_push_bytes
            && *max_message_bytes == other.max_message_bytes
            && *strict_payloads == other.strict_payloads
            && *mailbox_messages_max == other.mailbox_messages_max
            && *mailbox_bytes_max == other.mailbox_bytes_max
            && *read_buffer_bytes == other.read_buffer_bytes
            && *write_buffer_bytes == other.write_buffer_bytes;
        identity && codec && tls && joins && connection && channels && bounds
    }
}
