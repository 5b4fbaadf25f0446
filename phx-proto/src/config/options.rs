//! Every number and policy of a connection, as plain data.
//!
//! One more option is a field here, its value in [`Options::default`], a setter in `setters.rs`, its
//! use and its test. Documents, their JSON Schema, recordings and comparisons follow from the field:
//! its name and its type say how it is written, its documentation describes the key.

use core::num::NonZeroUsize;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::backoff::{Backoff, DelayRange};
use super::msec::{Msec, OptionalMsec};
use super::policy::{ClosePolicy, CloseRule, StatusPolicy};
use super::transport::TransportKind;

/// Every number and policy of a connection.
///
/// A [`Config`](crate::Config) has a setter for each of them, which says more, and derefs to its
/// options: `config.push_timeout`. In a document each field is a key; the key of a length of time ends
/// in `_msec`. What a document leaves out is the [default](Options::default).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// How long an attempt to connect may take.
    #[serde(rename = "connect_timeout_msec", with = "Msec")]
    pub connect_timeout: Duration,
    /// How long a close may take.
    #[serde(rename = "close_timeout_msec", with = "Msec")]
    pub close_timeout: Duration,
    /// The shortest and the longest delay of the first retry after a loss.
    #[serde(rename = "first_retry_spread_msec")]
    pub first_retry_spread: DelayRange,
    /// Delays between attempts to connect; the last repeats.
    #[serde(rename = "reconnect_after_msec")]
    pub reconnect_after: Backoff,
    /// Delays after a refused upgrade; the last repeats.
    #[serde(rename = "refused_after_msec")]
    pub refused_after: Backoff,
    /// The longest Retry-After that is obeyed.
    #[serde(rename = "retry_after_max_msec", with = "Msec")]
    pub retry_after_max: Duration,
    /// How long a connection is open before it counts as stable.
    #[serde(rename = "stable_after_msec", with = "Msec")]
    pub stable_after: Duration,
    /// Retries before giving up; null for no limit.
    pub max_retries: Option<u32>,
    /// How long to try before giving up; null for no limit.
    #[serde(rename = "max_elapsed_msec", with = "OptionalMsec")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Msec>"))]
    pub max_elapsed: Option<Duration>,
    /// What close codes mean, in place of the default; any other one is a retry.
    #[serde(rename = "close_rules")]
    pub(crate) close_policy: ClosePolicy,
    /// What HTTP statuses of a refused upgrade mean; any other one means what its class does.
    #[serde(rename = "status_rules")]
    pub(crate) status_policy: StatusPolicy,

    /// How often a heartbeat is sent; 0 for never.
    #[serde(rename = "heartbeat_interval_msec", with = "Msec")]
    pub heartbeat_interval: Duration,
    /// How long the answer to a heartbeat may take.
    #[serde(rename = "heartbeat_timeout_msec", with = "Msec")]
    pub heartbeat_timeout: Duration,
    /// How long a write may be stuck, without heartbeats.
    #[serde(rename = "write_stall_timeout_msec", with = "Msec")]
    pub write_stall_timeout: Duration,
    /// Bytes per second: how much time the bytes read buy an answer.
    pub receive_rate_min: u64,
    /// Bytes per second: how much time the bytes written buy an answer.
    pub send_rate_min: u64,
    /// The longest time that bytes moved may extend the deadline of an answer.
    #[serde(rename = "progress_max_msec", with = "Msec")]
    pub progress_max: Duration,

    /// How long a join may take.
    #[serde(rename = "join_timeout_msec", with = "Msec")]
    pub join_timeout: Duration,
    /// How long a join may block the connection.
    #[serde(rename = "join_block_max_msec", with = "Msec")]
    pub join_block_max: Duration,
    /// Joins that wait for their answer at a time.
    pub join_concurrency: NonZeroUsize,
    /// Delays after a crashed channel; the last repeats.
    #[serde(rename = "rejoin_after_msec")]
    pub rejoin_after: Backoff,
    /// Delays after a rejected join; the last repeats.
    #[serde(rename = "rejected_after_msec")]
    pub rejected_after: Backoff,
    /// Rejections in a row before a topic is given up.
    pub join_rejections_max: u32,
    /// How long a leave may take.
    #[serde(rename = "leave_timeout_msec", with = "Msec")]
    pub leave_timeout: Duration,

    /// How long a push may take, from the call to its outcome.
    #[serde(rename = "push_timeout_msec", with = "Msec")]
    pub push_timeout: Duration,
    /// Pushes that wait to be written.
    pub queued_pushes_max: usize,
    /// Bytes of payloads and event names of pushes that wait to be written.
    pub queued_bytes_max: usize,
    /// Calls that may await their replies.
    pub pushes_in_flight_max: NonZeroUsize,
    /// The largest frame that is sent, in bytes.
    pub max_push_bytes: usize,
    /// The largest message that is received, in bytes.
    pub max_message_bytes: usize,
    /// Whether payloads are checked on arrival.
    pub strict_payloads: bool,

    /// Messages that wait for one consumer.
    pub mailbox_messages_max: NonZeroUsize,
    /// Bytes of messages that wait for one consumer.
    pub mailbox_bytes_max: usize,
    /// The buffer for reading, in bytes.
    pub read_buffer_bytes: NonZeroUsize,
    /// The buffer for writing, in bytes.
    pub write_buffer_bytes: usize,
    /// The implementation of WebSocket: `tungstenite`, or `websocket` for the one of phx itself.
    pub transport: TransportKind,
}

/// Meant for production. As a document writes them:
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
///     "transport": "tungstenite"
/// }"#;
/// let written: serde_json::Value = serde_json::from_str(written)?;
/// let defaults = phx_proto::Options::default();
/// // A list of delays is short for delays with jitter 0.5 and a floor of 10 ms.
/// assert_eq!(serde_json::from_value::<phx_proto::Options>(written.clone())?, defaults);
/// // Every option is in it.
/// let all = serde_json::to_value(defaults)?;
/// assert!(all.as_object().unwrap().keys().eq(written.as_object().unwrap().keys()));
/// # Ok::<(), serde_json::Error>(())
/// ```
impl Default for Options {
    fn default() -> Self {
        /// 1000 and 1012 are what a Phoenix deploy sends (`wire/close_graceful_shutdown`), 1001 what
        /// its `disconnect` broadcast does (`wire/close_disconnect_by_id`), 1013 is "try again
        /// later". All of them hit many clients at once, hence the wider spread.
        const SPREAD: CloseRule = CloseRule::RetryWithin(DelayRange::from_millis(10, 2_000));
        let seconds = Duration::from_secs;
        // Every connection has the schedules and the rules, so they take no memory.
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
            // Bandit closes the whole connection over 8,000,000 bytes, since 1.11.0.
            max_push_bytes: 7 << 20,
            // Protocol: LIMIT-2.
            max_message_bytes: 64 << 20,
            strict_payloads: false,
            mailbox_messages_max: count(256),
            mailbox_bytes_max: 8 << 20,
            read_buffer_bytes: count(16 << 10),
            write_buffer_bytes: 16 << 10,
            transport: TransportKind::Tungstenite,
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
    NonZeroUsize::new(number).expect("no count of the defaults is zero")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bandit 1.11 and later ends the whole connection over 8,000,000 bytes, the header of the frame
    /// included (`websocket/handshake.ex` and `connection.ex` of Bandit 1.12.5).
    #[test]
    fn largest_push_by_default_fits_bandit() {
        const HEADER: usize = 14;
        assert!(Options::default().max_push_bytes + HEADER <= 8_000_000);
    }
}
