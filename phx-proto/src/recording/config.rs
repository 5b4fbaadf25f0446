//! The recorded configuration: everything that affects the core, with secrets redacted.

use core::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::redact::PayloadRecord;
use crate::config::join_params::JoinParams;
use crate::config::{Config, ConfigError, Credentials, Options, Uri, codec_of};
use crate::time::nanos;
use crate::wire::payload::Payload;

/// The text that replaces a secret.
pub(super) const REDACTED: &str = "hidden";

/// A duration in nanoseconds. `u64::MAX` means no timeout.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Nanos(u64);

/// The record of a [`Config`].
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
    #[serde(deserialize_with = "complete")]
    options: Options,
}

/// Rounds the options to the precision of a recording, in which durations over 13 days have no fractions of
/// a millisecond. A recorded socket uses the rounded options, so that its replay behaves in the same way.
pub(super) fn rounded(options: &Options) -> Options {
    let written = serde_json::to_value(options);
    written.and_then(serde_json::from_value).unwrap_or_else(|_| options.clone())
}

/// Reads options and checks that every option is present and complete. A document may omit options or parts
/// of them, but in a recording they would get the defaults of the version that reads it.
fn complete<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Options, D::Error> {
    let recorded = Value::deserialize(deserializer)?;
    let options = Options::deserialize(&recorded).map_err(D::Error::custom)?;
    let again = serde_json::to_value(&options).map_err(D::Error::custom)?;
    let Value::Object(again) = again else { return Ok(options) };
    match again.iter().find(|(key, value)| recorded.get(key.as_str()) != Some(*value)) {
        None => Ok(options),
        Some((key, _)) => {
            let problem = if recorded.get(key).is_none() { "is missing" } else { "is incomplete" };
            Err(D::Error::custom(format!("the option `{key}` {problem}")))
        }
    }
}

/// The record of [`Credentials`], with names only.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CredentialsRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    params: Vec<String>,
    headers: Vec<String>,
    auth_token: bool,
}

/// The record of [`JoinParams`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ParamsRecord {
    /// Fixed parameters.
    Fixed(PayloadRecord),
    /// A function. Its results are in the lines of the joins.
    Function,
}

/// Why the configuration of a recording cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidConfig {
    #[error("invalid configuration: {0}")]
    Config(#[from] ConfigError),
    #[error("a codec of vsn {0} cannot be replayed")]
    Codec(String),
}

impl ConfigRecord {
    pub(super) fn of(config: &Config) -> Self {
        let auto_joins = config.auto_joins.iter();
        Self {
            uri: redacted_uri(&config.uri),
            allow_insecure: config.allow_insecure,
            connect_to: config.connect_to.as_ref().map(ToString::to_string),
            credentials: CredentialsRecord::of(&config.credentials),
            credentials_refreshed: config.credentials_refreshed,
            vsn: config.codec.vsn().to_owned(),
            auto_joins: auto_joins
                .map(|(topic, params)| (topic.to_string(), ParamsRecord::of(params)))
                .collect(),
            options: Options::clone(config),
        }
    }

    /// Restores the configuration, with a placeholder for each secret.
    pub(super) fn config(&self) -> Result<Config, InvalidConfig> {
        let config = Config::insecure(&self.uri)?.options(self.options.clone());
        let config = match &self.connect_to {
            Some(address) => config.connect_to(address)?,
            None => config,
        };
        let codec = codec_of(&self.vsn);
        let codec = codec.ok_or_else(|| InvalidConfig::Codec(self.vsn.clone()))?;
        let config = config
            .codec(codec)?
            .credentials(self.credentials.credentials()?)
            .credentials_refreshed(self.credentials_refreshed);
        let mut auto_joins = self.auto_joins.iter();
        let config = auto_joins.try_fold(config, |config, (topic, record)| {
            config.auto_join(&**topic, record.params())
        })?;
        Ok(Config { allow_insecure: self.allow_insecure, ..config })
    }
}

impl CredentialsRecord {
    pub(super) fn of(credentials: &Credentials) -> Self {
        let names = |pairs: &[(String, crate::config::Secret)]| {
            pairs.iter().map(|(name, _)| name.clone()).collect()
        };
        Self {
            uri: credentials.uri.as_ref().map(redacted_uri),
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
            credentials = credentials.param(name, REDACTED);
        }
        for name in &self.headers {
            credentials = credentials.header(name, REDACTED)?;
        }
        Ok(if self.auth_token { credentials.auth_token(REDACTED) } else { credentials })
    }
}

impl ParamsRecord {
    /// Records join parameters. They are always redacted, because they may contain tokens.
    pub(super) fn of(params: &JoinParams) -> Self {
        params
            .fixed()
            .map_or(Self::Function, |payload| Self::Fixed(PayloadRecord::redacted(payload)))
    }

    /// Restores the parameters, with fillers of the recorded lengths. The replay never calls a function; it
    /// supplies the recorded results.
    pub(super) fn params(&self) -> JoinParams {
        match self {
            Self::Fixed(payload) => payload.payload().into(),
            Self::Function => JoinParams::from_fn(|_| Payload::empty()),
        }
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

/// The address with the names of its query. Of the values, only that of `vsn` is kept.
fn redacted_uri(uri: &Uri) -> String {
    let scheme = if uri.is_secure() { "wss" } else { "ws" };
    let target = uri.target();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs =
        query.split('&').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
            // The `vsn` selects the codec and is not secret.
            Some(("vsn", vsn)) => format!("vsn={vsn}"),
            Some((name, _)) => format!("{name}={REDACTED}"),
            // A parameter without a value may be the token itself.
            None => REDACTED.to_owned(),
        });
    let query = pairs.collect::<Vec<_>>().join("&");
    let separator = if query.is_empty() { "" } else { "?" };
    format!("{scheme}://{}{path}{separator}{query}", uri.authority())
}
