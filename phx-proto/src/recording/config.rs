//! The configuration as a recording has it: everything the core decides by, and no secret.

use core::time::Duration;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::hidden::PayloadRecord;
use crate::config::backoff::{Backoff, DelayRange, Schedule};
use crate::config::join_params::JoinParams;
use crate::config::{CloseRule, Config, ConfigError, Credentials, StatusRule, Uri};
use crate::time::nanos;
use crate::wire::{V1, V2};

/// What stands where a secret stood.
pub(super) const HIDDEN: &str = "hidden";

/// A length of time in nanoseconds; the longest is as good as for ever.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Nanos(u64);

/// A [`Config`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigRecord {
    uri: String,
    allow_insecure: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connect_to: Option<String>,
    credentials: CredentialsRecord,
    credentials_refreshed: bool,
    vsn: String,
    pub(super) auto_joins: Vec<(String, ParamsRecord)>,
    connect_timeout: Nanos,
    close_timeout: Nanos,
    first_retry_spread: Range,
    reconnect_after: BackoffRecord,
    refused_after: BackoffRecord,
    retry_after_max: Nanos,
    stable_after: Nanos,
    max_retries: Option<u32>,
    max_elapsed: Option<Nanos>,
    close_rules: Vec<(u16, CloseRecord)>,
    status_rules: Vec<(u16, StatusRecord)>,
    heartbeat_interval: Nanos,
    heartbeat_timeout: Nanos,
    write_stall_timeout: Nanos,
    receive_rate_min: u64,
    send_rate_min: u64,
    progress_max: Nanos,
    join_timeout: Nanos,
    join_block_max: Nanos,
    join_concurrency: usize,
    rejoin_after: BackoffRecord,
    rejected_after: BackoffRecord,
    join_rejections_max: u32,
    leave_timeout: Nanos,
    push_timeout: Nanos,
    queued_pushes_max: usize,
    queued_bytes_max: usize,
    pushes_in_flight_max: usize,
    max_push_bytes: usize,
    max_message_bytes: usize,
    strict_payloads: bool,
}

/// [`Credentials`]: the names of what they hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CredentialsRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    params: Vec<String>,
    headers: Vec<String>,
    auth_token: bool,
}

/// [`JoinParams`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ParamsRecord {
    /// The same every time.
    Fixed(PayloadRecord),
    /// Made for each join; what it made stands where the join was written.
    Function,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Range(Nanos, Nanos);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackoffRecord {
    schedule: ScheduleRecord,
    jitter_ppm: u32,
    floor: Nanos,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ScheduleRecord {
    Steps(Vec<Nanos>),
    Exponential { first: Nanos, factor_ppm: u64, max: Nanos },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CloseRecord {
    Retry,
    RetryWithin(Range),
    Stop,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StatusRecord {
    Backoff,
    Refused,
    Unauthorized,
    Stop,
}

/// Why a configuration in a recording cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadConfig {
    #[error("the configuration: {0}")]
    Config(#[from] ConfigError),
    #[error("a codec of vsn {0} cannot be replayed")]
    Codec(String),
}

impl ConfigRecord {
    pub(super) fn of(config: &Config) -> Self {
        let auto_joins = config.auto_joins.iter();
        let close_rules = config.close_policy.rules.iter();
        let status_rules = config.status_policy.rules.iter();
        Self {
            uri: hidden_uri(&config.uri),
            allow_insecure: config.allow_insecure,
            connect_to: config.connect_to.as_ref().map(ToString::to_string),
            credentials: CredentialsRecord::of(&config.credentials),
            credentials_refreshed: config.credentials_refreshed,
            vsn: config.codec.vsn().to_owned(),
            auto_joins: auto_joins
                .map(|(topic, params)| (topic.to_string(), ParamsRecord::of(params)))
                .collect(),
            connect_timeout: config.connect_timeout.into(),
            close_timeout: config.close_timeout.into(),
            first_retry_spread: config.first_retry_spread.into(),
            reconnect_after: BackoffRecord::of(&config.reconnect_after),
            refused_after: BackoffRecord::of(&config.refused_after),
            retry_after_max: config.retry_after_max.into(),
            stable_after: config.stable_after.into(),
            max_retries: config.max_retries,
            max_elapsed: config.max_elapsed.map(Nanos::from),
            close_rules: close_rules.map(|(code, rule)| (*code, (*rule).into())).collect(),
            status_rules: status_rules.map(|(status, rule)| (*status, (*rule).into())).collect(),
            heartbeat_interval: config.heartbeat_interval.into(),
            heartbeat_timeout: config.heartbeat_timeout.into(),
            write_stall_timeout: config.write_stall_timeout.into(),
            receive_rate_min: config.receive_rate_min,
            send_rate_min: config.send_rate_min,
            progress_max: config.progress_max.into(),
            join_timeout: config.join_timeout.into(),
            join_block_max: config.join_block_max.into(),
            join_concurrency: config.join_concurrency,
            rejoin_after: BackoffRecord::of(&config.rejoin_after),
            rejected_after: BackoffRecord::of(&config.rejected_after),
            join_rejections_max: config.join_rejections_max,
            leave_timeout: config.leave_timeout.into(),
            push_timeout: config.push_timeout.into(),
            queued_pushes_max: config.queued_pushes_max,
            queued_bytes_max: config.queued_bytes_max,
            pushes_in_flight_max: config.pushes_in_flight_max,
            max_push_bytes: config.max_push_bytes,
            max_message_bytes: config.max_message_bytes,
            strict_payloads: config.strict_payloads,
        }
    }

    /// The configuration, without its auto-joins: their parameters are the replay's to make.
    pub(super) fn config(&self) -> Result<Config, BadConfig> {
        let config = Config::insecure(&self.uri)?
            .join_concurrency(self.join_concurrency)?
            .pushes_in_flight_max(self.pushes_in_flight_max)?;
        let config = match &self.connect_to {
            Some(address) => config.connect_to(address)?,
            None => config,
        };
        let mut config = Config { allow_insecure: self.allow_insecure, ..config };
        match &*self.vsn {
            "1.0.0" => config.codec = Arc::new(V1),
            "2.0.0" => config.codec = Arc::new(V2),
            other => return Err(BadConfig::Codec(other.to_owned())),
        }
        config.credentials = self.credentials.credentials()?;
        config.credentials_refreshed = self.credentials_refreshed;
        config.connect_timeout = self.connect_timeout.into();
        config.close_timeout = self.close_timeout.into();
        config.first_retry_spread = self.first_retry_spread.range()?;
        config.reconnect_after = self.reconnect_after.backoff()?;
        config.refused_after = self.refused_after.backoff()?;
        config.retry_after_max = self.retry_after_max.into();
        config.stable_after = self.stable_after.into();
        config.max_retries = self.max_retries;
        config.max_elapsed = self.max_elapsed.map(Duration::from);
        for (code, rule) in &self.close_rules {
            config.close_policy.set(*code, rule.rule()?);
        }
        for (status, rule) in &self.status_rules {
            config.status_policy.set(*status, rule.rule());
        }
        config.heartbeat_interval = self.heartbeat_interval.into();
        config.heartbeat_timeout = self.heartbeat_timeout.into();
        config.write_stall_timeout = self.write_stall_timeout.into();
        config.receive_rate_min = self.receive_rate_min;
        config.send_rate_min = self.send_rate_min;
        config.progress_max = self.progress_max.into();
        config.join_timeout = self.join_timeout.into();
        config.join_block_max = self.join_block_max.into();
        config.rejoin_after = self.rejoin_after.backoff()?;
        config.rejected_after = self.rejected_after.backoff()?;
        config.join_rejections_max = self.join_rejections_max;
        config.leave_timeout = self.leave_timeout.into();
        config.push_timeout = self.push_timeout.into();
        config.queued_pushes_max = self.queued_pushes_max;
        config.queued_bytes_max = self.queued_bytes_max;
        config.max_push_bytes = self.max_push_bytes;
        config.max_message_bytes = self.max_message_bytes;
        config.strict_payloads = self.strict_payloads;
        Ok(config)
    }

    pub(super) fn is_vsn_1(&self) -> bool {
        self.vsn == "1.0.0"
    }
}

impl CredentialsRecord {
    pub(super) fn of(credentials: &Credentials) -> Self {
        let names = |pairs: &[(String, crate::config::Secret)]| {
            pairs.iter().map(|(name, _)| name.clone()).collect()
        };
        Self {
            uri: credentials.uri.as_ref().map(hidden_uri),
            params: names(&credentials.params),
            headers: names(&credentials.headers),
            auth_token: credentials.auth_token.is_some(),
        }
    }

    pub(super) fn credentials(&self) -> Result<Credentials, ConfigError> {
        let mut credentials = Credentials::new();
        if let Some(uri) = &self.uri {
            credentials = credentials.uri(Uri::parse(uri)?);
        }
        for name in &self.params {
            credentials = credentials.param(name, HIDDEN);
        }
        for name in &self.headers {
            credentials = credentials.header(name, HIDDEN)?;
        }
        Ok(if self.auth_token { credentials.auth_token(HIDDEN) } else { credentials })
    }
}

impl ParamsRecord {
    /// Never with what they say: they are where tokens travel.
    pub(super) fn of(params: &JoinParams) -> Self {
        params.fixed().map_or(Self::Function, |payload| Self::Fixed(PayloadRecord::hidden(payload)))
    }
}

impl BackoffRecord {
    fn of(backoff: &Backoff) -> Self {
        let schedule = match &backoff.schedule {
            Schedule::Steps(steps) => {
                ScheduleRecord::Steps(steps.iter().copied().map(Nanos::from).collect())
            }
            Schedule::Exponential { first, factor_ppm, max } => ScheduleRecord::Exponential {
                first: (*first).into(),
                factor_ppm: *factor_ppm,
                max: (*max).into(),
            },
        };
        Self { schedule, jitter_ppm: backoff.jitter_ppm, floor: backoff.floor.into() }
    }

    fn backoff(&self) -> Result<Backoff, ConfigError> {
        let backoff = match &self.schedule {
            ScheduleRecord::Steps(steps) => {
                Backoff::steps(steps.iter().copied().map(Duration::from).collect::<Vec<_>>())?
            }
            ScheduleRecord::Exponential { first, factor_ppm, max } => {
                let factor = *factor_ppm as f64 / 1e6;
                Backoff::exponential((*first).into(), factor, (*max).into())?
            }
        };
        Ok(backoff.jitter(f64::from(self.jitter_ppm) / 1e6)?.floor(self.floor.into()))
    }
}

impl CloseRecord {
    fn rule(self) -> Result<CloseRule, ConfigError> {
        Ok(match self {
            Self::Retry => CloseRule::Retry,
            Self::RetryWithin(range) => CloseRule::RetryWithin(range.range()?),
            Self::Stop => CloseRule::Stop,
        })
    }
}

impl From<CloseRule> for CloseRecord {
    fn from(rule: CloseRule) -> Self {
        match rule {
            CloseRule::Retry => Self::Retry,
            CloseRule::RetryWithin(range) => Self::RetryWithin(range.into()),
            CloseRule::Stop => Self::Stop,
        }
    }
}

impl StatusRecord {
    const fn rule(self) -> StatusRule {
        match self {
            Self::Backoff => StatusRule::Backoff,
            Self::Refused => StatusRule::Refused,
            Self::Unauthorized => StatusRule::Unauthorized,
            Self::Stop => StatusRule::Stop,
        }
    }
}

impl From<StatusRule> for StatusRecord {
    fn from(rule: StatusRule) -> Self {
        match rule {
            StatusRule::Backoff => Self::Backoff,
            StatusRule::Refused => Self::Refused,
            StatusRule::Unauthorized => Self::Unauthorized,
            StatusRule::Stop => Self::Stop,
        }
    }
}

impl Range {
    fn range(self) -> Result<DelayRange, ConfigError> {
        DelayRange::new(self.0.into(), self.1.into())
    }
}

impl From<DelayRange> for Range {
    fn from(range: DelayRange) -> Self {
        Self(range.min().into(), range.max().into())
    }
}

impl From<Duration> for Nanos {
    fn from(duration: Duration) -> Self {
        Self(nanos(duration))
    }
}

impl From<Nanos> for Duration {
    fn from(nanos: Nanos) -> Self {
        Self::from_nanos(nanos.0)
    }
}

/// The address with the names of its query, and nothing of their values.
fn hidden_uri(uri: &Uri) -> String {
    let scheme = if uri.is_secure() { "wss" } else { "ws" };
    let target = uri.target();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs =
        query.split('&').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
            // What chooses the codec is no secret.
            Some(("vsn", vsn)) => format!("vsn={vsn}"),
            Some((name, _)) => format!("{name}={HIDDEN}"),
            // A bare word may be the token itself.
            None => HIDDEN.to_owned(),
        });
    let query = pairs.collect::<Vec<_>>().join("&");
    let separator = if query.is_empty() { "" } else { "?" };
    format!("{scheme}://{}{path}{separator}{query}", uri.authority())
}
