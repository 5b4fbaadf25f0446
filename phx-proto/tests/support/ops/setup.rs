//! The setup of the socket for a run, and the limits and delays that follow from it.

use std::sync::Arc;
use std::time::Duration;

use phx_proto::config::{Backoff, CloseRule, DelayRange};
use phx_proto::event::Refusal;
use phx_proto::wire::V1;
use phx_proto::{Cause, Config, Ended, JoinParams, Options};

use super::world::name;
use super::{End, Fail};

pub const QUEUED_PUSHES_MAX: usize = 6;
pub const QUEUED_BYTES_MAX: usize = 400;
pub const MAX_MESSAGE_BYTES: usize = 2_000;
pub const MAX_PUSH_BYTES: usize = 1_000;

/// Everything that defines a run except its operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub seed: u64,
    /// Nanoseconds between the origin of the clock and the start.
    pub origin: u64,
    pub vsn_1: bool,
    pub heartbeats: bool,
    pub strict: bool,
    pub auto_join: bool,
    pub credentials_refreshed: bool,
    /// Whether the header `Retry-After` is ignored.
    pub retry_after_ignored: bool,
    pub join_concurrency: usize,
    pub pushes_in_flight_max: usize,
    pub max_retries: Option<u32>,
    pub max_elapsed: Option<Duration>,
    pub start: Start,
}

/// The state in which a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Idle,
    Open,
    /// The connection is open, and the first two topics are joined.
    Joined,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 7,
            origin: 1_000_000_000_000_000,
            vsn_1: false,
            heartbeats: true,
            strict: false,
            auto_join: false,
            credentials_refreshed: false,
            retry_after_ignored: false,
            join_concurrency: 2,
            pushes_in_flight_max: 16_384,
            max_retries: None,
            max_elapsed: None,
            start: Start::Idle,
        }
    }
}

/// The delays that the configuration allows.
#[derive(Clone, Debug)]
pub struct Policy {
    pub first_retry: DelayRange,
    pub close_soon: DelayRange,
    pub reconnect: Backoff,
    pub refused: Backoff,
    pub rejoin: Backoff,
    pub rejected: Backoff,
    pub stable_after: Duration,
    pub retry_after_max: Duration,
    pub rejections_max: u32,
}

impl Policy {
    /// The policy of the default configuration.
    pub fn new() -> Self {
        let options = Options::default();
        let soon = (Duration::from_millis(10), Duration::from_millis(2_000));
        Self {
            first_retry: options.first_retry_spread,
            close_soon: DelayRange::new(soon.0, soon.1).expect("a range"),
            reconnect: options.reconnect_after,
            refused: options.refused_after,
            rejoin: options.rejoin_after,
            rejected: options.rejected_after,
            stable_after: options.stable_after,
            retry_after_max: options.retry_after_max,
            rejections_max: options.join_rejections_max,
        }
    }
}

pub fn config(setup: &Setup, policy: &Policy) -> Config {
    let mut config = Config::new("ws://localhost:4000/socket/websocket").expect("a good URI");
    config = config
        .first_retry_spread(policy.first_retry)
        .reconnect_after(policy.reconnect.clone())
        .refused_after(policy.refused.clone())
        .rejoin_after(policy.rejoin.clone())
        .rejected_after(policy.rejected.clone())
        .stable_after(policy.stable_after)
        .retry_after_max(policy.retry_after_max)
        .join_rejections_max(policy.rejections_max)
        .close_rule(1008, CloseRule::Stop)
        .join_concurrency(setup.join_concurrency)
        .expect("not zero")
        .pushes_in_flight_max(setup.pushes_in_flight_max)
        .expect("not zero")
        .max_retries(setup.max_retries)
        .max_elapsed(setup.max_elapsed)
        .credentials_refreshed(setup.credentials_refreshed)
        .strict_payloads(setup.strict)
        .queued_pushes_max(QUEUED_PUSHES_MAX)
        .queued_bytes_max(QUEUED_BYTES_MAX)
        .max_message_bytes(MAX_MESSAGE_BYTES)
        .max_push_bytes(MAX_PUSH_BYTES);
    if setup.retry_after_ignored {
        config = config.retry_after_max(Duration::ZERO);
    }
    if !setup.heartbeats {
        config = config.heartbeat_interval(Duration::ZERO);
    }
    if setup.vsn_1 {
        config = config.codec(Arc::new(V1)).expect("no vsn in the address");
    }
    if setup.auto_join {
        config = config.auto_join(name(1), JoinParams::none()).expect("no reserved topic");
    }
    config
}

pub fn failure(fail: Fail) -> Cause {
    match fail {
        Fail::Dial => {
            Cause::Dial { kind: phx_proto::event::DialKind::Refused, message: "refused".into() }
        }
        Fail::Refused(status, retry_after) => {
            let headers = retry_after
                .map(|seconds| ("Retry-After".to_owned(), seconds.to_string()))
                .into_iter()
                .collect();
            Cause::Refused(Refusal::new(status, headers, ""))
        }
        Fail::Credentials => Cause::CredentialsFailed { message: "vault sealed".into() },
        Fail::CredentialsGaveUp => Cause::CredentialsGaveUp { reason: "expired".into() },
    }
}

pub fn ended(end: End) -> Ended {
    match end {
        End::Frame(code) => Ended::CloseFrame { code, reason: String::new() },
        End::Lost => Ended::Lost { message: "reset".into() },
        End::TooLarge => Ended::MessageTooLarge,
    }
}
