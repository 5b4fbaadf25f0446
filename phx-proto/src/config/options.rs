//! Every number and policy of a connection, as plain data.
//!
//! A new option needs a field here, its value in [`Options::default`], a setter in `setters.rs`, its use
//! and its test. Documents, their JSON Schema, recordings and comparisons are derived from the field. The
//! documentation of the field is the description in the JSON Schema.

use core::num::NonZeroUsize;
use core::time::Duration;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::backoff::{Backoff, DelayRange};
use super::compression::Compression;
use super::msec::{Msec, OptionalMsec};
use super::policy::{ClosePolicy, CloseRule, StatusPolicy};
use super::transport::TransportKind;

/// The largest limit for a received message: 1 GiB. When a frame begins, tungstenite reserves the length
/// that the peer announces, which for some lengths would panic or abort the process.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// The largest read buffer: 16 MiB. tungstenite allocates it when the connection opens, and fills it with
/// zeros before every read.
const READ_BUFFER_BYTES_MAX: NonZeroUsize = count(16 << 20);

/// Every number and policy of a connection.
///
/// [`Config`](crate::Config) has a setter for each option; the documentation of the setter has the details.
/// A `Config` derefs to its options: `config.push_timeout`. In a document each field is a key; the key of a
/// duration ends in `_msec`. An omitted key has its [default](Options::default).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// Timeout of an attempt to connect.
    #[serde(rename = "connect_timeout_msec", with = "Msec")]
    pub connect_timeout: Duration,
    /// Timeout of the closing handshake.
    #[serde(rename = "close_timeout_msec", with = "Msec")]
    pub close_timeout: Duration,
    /// Range of the delay of the first retry after an open connection was lost.
    #[serde(rename = "first_retry_spread_msec")]
    pub first_retry_spread: DelayRange,
    /// Delays between attempts to connect; the last one repeats.
    #[serde(rename = "reconnect_after_msec")]
    pub reconnect_after: Backoff,
    /// Delays after a refusal by the server or by a proxy; the last one repeats.
    #[serde(rename = "refused_after_msec")]
    pub refused_after: Backoff,
    /// The longest delay that a Retry-After header can request.
    #[serde(rename = "retry_after_max_msec", with = "Msec")]
    pub retry_after_max: Duration,
    /// Time after which an open connection counts as stable.
    #[serde(rename = "stable_after_msec", with = "Msec")]
    pub stable_after: Duration,
    /// The maximum number of retries before giving up; null for no limit.
    pub max_retries: Option<u32>,
    /// The longest time to retry before giving up; null for no limit.
    #[serde(rename = "max_elapsed_msec", with = "OptionalMsec")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Msec>"))]
    pub max_elapsed: Option<Duration>,
    /// Rules for close codes, which replace the default rules. A code without a rule is followed by a
    /// retry.
    #[serde(rename = "close_rules")]
    pub(crate) close_policy: ClosePolicy,
    /// Rules for HTTP statuses of a refused upgrade. A status without a rule has its default rule.
    #[serde(rename = "status_rules")]
    pub(crate) status_policy: StatusPolicy,

    /// Time between heartbeats; 0 disables them.
    #[serde(rename = "heartbeat_interval_msec", with = "Msec")]
    pub heartbeat_interval: Duration,
    /// Timeout of the reply to a heartbeat.
    #[serde(rename = "heartbeat_timeout_msec", with = "Msec")]
    pub heartbeat_timeout: Duration,
    /// Timeout of a blocked write, if heartbeats are disabled.
    #[serde(rename = "write_stall_timeout_msec", with = "Msec")]
    pub write_stall_timeout: Duration,
    /// The slowest link from the server, in bytes per second. Bytes read extend the deadline of a reply
    /// by the time that they take at this rate.
    pub receive_rate_min: u64,
    /// The slowest link to the server, in bytes per second. Bytes written extend the deadline of a reply
    /// by the time that they take at this rate.
    pub send_rate_min: u64,
    /// The maximum time by which bytes read and written can extend the deadline of a reply.
    #[serde(rename = "progress_max_msec", with = "Msec")]
    pub progress_max: Duration,

    /// Time after which an unanswered join is reported.
    #[serde(rename = "join_timeout_msec", with = "Msec")]
    pub join_timeout: Duration,
    /// The longest time that an unanswered join may block the connection.
    #[serde(rename = "join_block_max_msec", with = "Msec")]
    pub join_block_max: Duration,
    /// The maximum number of joins that are unanswered at a time.
    pub join_concurrency: NonZeroUsize,
    /// Delays before a crashed channel is joined again; the last one repeats.
    #[serde(rename = "rejoin_after_msec")]
    pub rejoin_after: Backoff,
    /// Delays before a rejected join is retried; the last one repeats.
    #[serde(rename = "rejected_after_msec")]
    pub rejected_after: Backoff,
    /// The maximum number of rejections in a row that are followed by a retry.
    pub join_rejections_max: u32,
    /// Timeout of a leave.
    #[serde(rename = "leave_timeout_msec", with = "Msec")]
    pub leave_timeout: Duration,

    /// Timeout of a push, from the call to its outcome.
    #[serde(rename = "push_timeout_msec", with = "Msec")]
    pub push_timeout: Duration,
    /// The maximum number of pushes that wait to be written.
    pub queued_pushes_max: usize,
    /// The maximum size, in bytes, of the payloads and event names of pushes that wait to be written.
    pub queued_bytes_max: usize,
    /// The maximum number of calls that wait for their replies.
    pub pushes_in_flight_max: NonZeroUsize,
    /// The largest frame to send, in bytes.
    pub max_push_bytes: usize,
    /// The largest message to receive, in bytes; more than 1 GiB counts as 1 GiB.
    pub max_message_bytes: usize,
    /// Whether received payloads are checked to be JSON.
    pub strict_payloads: bool,

    /// The maximum number of messages that wait for one consumer.
    pub mailbox_messages_max: NonZeroUsize,
    /// The maximum number of bytes of messages that wait for one consumer.
    pub mailbox_bytes_max: usize,
    /// Size of the read buffer in bytes; more than 16 MiB counts as 16 MiB.
    pub read_buffer_bytes: NonZeroUsize,
    /// Size of the write buffer in bytes.
    pub write_buffer_bytes: usize,
    /// The WebSocket implementation: `tungstenite`, or `websocket` for phx's own.
    pub transport: TransportKind,
    /// Compression of messages: `balanced`, `smallest`, `strongest`, or an object; null for none. With
    /// compression, the WebSocket implementation is phx's own.
    pub compression: Option<Compression>,
}

impl Options {
    /// Lowers the limits that could exhaust the memory of the process. Almost always it changes nothing, so
    /// that configurations share their options.
    pub(super) fn bounded(mut shared: Arc<Self>) -> Arc<Self> {
        let message = shared.max_message_bytes.min(MESSAGE_BYTES_MAX);
        let buffer = shared.read_buffer_bytes.min(READ_BUFFER_BYTES_MAX);
        if (shared.max_message_bytes, shared.read_buffer_bytes) != (message, buffer) {
            let options = Arc::make_mut(&mut shared);
            (options.max_message_bytes, options.read_buffer_bytes) = (message, buffer);
        }
        shared
    }
}

/// Defaults for production. This is their form in a document:
///
/// ```
/// let written = r#"{
///     "connect_timeout_msec": 10000,
///     "close_timeout_msec": 2000,
///     "first_retry_spread_msec": [10, 1500],
///     "reconnect_after_msec": [10, 50, 100, 150, 200, 250, 500, 1000, 2000, 5000],
///     "refused_after_msec": [5000, 15000, 60000, 300000],
///     "retry_after_max_msec": 3600000,
///     "stable_after_msec": 10000,
///     "max_retries": null,
///     "max_elapsed_msec": null,
///     "close_rules": {
///         "1000": {"retry_within_msec": [10, 2000]},
///         "1001": {"retry_within_msec": [10, 2000]},
///         "1012": {"retry_within_msec": [10, 2000]},
///         "1013": {"retry_within_msec": [10, 2000]}
///     },
///     "status_rules": {},
///     "heartbeat_interval_msec": 30000,
///     "heartbeat_timeout_msec": 10000,
///     "write_stall_timeout_msec": 30000,
///     "receive_rate_min": 1024,
///     "send_rate_min": 8192,
///     "progress_max_msec": 600000,
///     "join_timeout_msec": 10000,
///     "join_block_max_msec": 60000,
///     "join_concurrency": 8,
///     "rejoin_after_msec": [100, 500, 1000, 2000, 5000, 10000],
///     "rejected_after_msec": [1000, 5000, 30000],
///     "join_rejections_max": 3,
///     "leave_timeout_msec": 10000,
///     "push_timeout_msec": 10000,
///     "queued_pushes_max": 1024,
///     "queued_bytes_max": 8388608,
///     "pushes_in_flight_max": 16384,
///     "max_push_bytes": 7340032,
///     "max_message_bytes": 67108864,
///     "strict_payloads": false,
///     "mailbox_messages_max": 256,
///     "mailbox_bytes_max": 8388608,
///     "read_buffer_bytes": 16384,
///     "write_buffer_bytes": 16384,
///     "transport": "tungstenite",
///     "compression": null
/// }"#;
/// let written: serde_json::Value = serde_json::from_str(written)?;
/// let defaults = phx_proto::Options::default();
/// // A list of delays is short for a backoff with jitter 0.5 and a floor of 10 ms.
/// assert_eq!(serde_json::from_value::<phx_proto::Options>(written.clone())?, defaults);
/// // The document has every option.
/// let all = serde_json::to_value(defaults)?;
/// assert!(all.as_object().unwrap().keys().eq(written.as_object().unwrap().keys()));
/// # Ok::<(), serde_json::Error>(())
/// ```
impl Default for Options {
    fn default() -> Self {
        /// A Phoenix deploy closes with 1000 or 1012 (`wire/close_graceful_shutdown`). A `disconnect`
        /// broadcast of Phoenix closes with 1001 (`wire/close_disconnect_by_id`), and 1013 means "try again
        /// later". Each of these codes may reach many clients at once, so the retries are spread further.
        const SPREAD: CloseRule = CloseRule::RetryWithin(DelayRange::from_millis(10, 2_000));
        let seconds = Duration::from_secs;
        // Every connection has the schedules and the rules, so the default ones are static and need no
        // memory for each connection.
        Self {
            connect_timeout: seconds(10),
            close_timeout: seconds(2),
            // Protocol: RETRY-5.
            first_retry_spread: DelayRange::from_millis(10, 1_500),
            reconnect_after: Backoff::fixed(
                const { &millis([10, 50, 100, 150, 200, 250, 500, 1_000, 2_000, 5_000]) },
            ),
            refused_after: Backoff::fixed(const { &millis([5_000, 15_000, 60_000, 300_000]) }),
            retry_after_max: seconds(3_600),
            stable_after: seconds(10),
            max_retries: None,
            max_elapsed: None,
            close_policy: ClosePolicy::fixed(
                const { &[(1000, SPREAD), (1001, SPREAD), (1012, SPREAD), (1013, SPREAD)] },
            ),
            status_policy: StatusPolicy::default(),
            // Protocol: HB-2.
            heartbeat_interval: seconds(30),
            heartbeat_timeout: seconds(10),
            write_stall_timeout: seconds(30),
            receive_rate_min: 1_024,
            send_rate_min: 8_192,
            progress_max: seconds(600),
            join_timeout: seconds(10),
            join_block_max: seconds(60),
            join_concurrency: count(8),
            rejoin_after: Backoff::fixed(
                const { &millis([100, 500, 1_000, 2_000, 5_000, 10_000]) },
            ),
            rejected_after: Backoff::fixed(const { &millis([1_000, 5_000, 30_000]) }),
            join_rejections_max: 3,
            leave_timeout: seconds(10),
            push_timeout: seconds(10),
            queued_pushes_max: 1_024,
            queued_bytes_max: 8 << 20,
            pushes_in_flight_max: count(16_384),
            // Since 1.11.0, Bandit closes the whole connection for a frame of more than 8,000,000 bytes.
            max_push_bytes: 7 << 20,
            // Protocol: LIMIT-2.
            max_message_bytes: 64 << 20,
            strict_payloads: false,
            mailbox_messages_max: count(256),
            mailbox_bytes_max: 8 << 20,
            read_buffer_bytes: count(16 << 10),
            write_buffer_bytes: 16 << 10,
            transport: TransportKind::Tungstenite,
            compression: None,
        }
    }
}

const fn millis<const N: usize>(steps: [u64; N]) -> [Duration; N] {
    let mut durations = [Duration::ZERO; N];
    let mut at = 0;
    while at < N {
        durations[at] = Duration::from_millis(steps[at]);
        at += 1;
    }
    durations
}

const fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("no default count is zero")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bandit 1.11 and later closes the whole connection for a frame of more than 8,000,000 bytes including
    /// its header (`websocket/handshake.ex` and `connection.ex` of Bandit 1.12.5).
    #[test]
    fn default_max_push_bytes_fits_bandit() {
        const HEADER: usize = 14;
        assert!(Options::default().max_push_bytes + HEADER <= 8_000_000);
    }
}
