//! The redacted configuration: everything that the core decides by, and no secret.

use core::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::redact::PayloadRecord;
use crate::config::join_params::JoinParams;
use crate::config::{Config, ConfigError, Credentials, Options, Uri, codec_of};
use crate::time::nanos;
use crate::wire::payload::Payload;

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
    #[serde(deserialize_with = "complete")]
    options: Options,
}

/// The options as they are recorded: lengths over 13 days have no fractions of a millisecond. What is
/// recorded decides by these, so that its replay decides the same.
pub(super) fn as_recorded(options: &Options) -> Options {
    let written = serde_json::to_value(options);
    written.and_then(serde_json::from_value).unwrap_or_else(|_| options.clone())
}

/// Reads options that are all there, each in the form in which it is recorded: what a document may
/// leave out, and what it may write shorter, would be completed by the defaults of the version that
/// reads it.
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
            options: Options::clone(config),
        }
    }

    /// The configuration, with fillers in place of what is hidden.
    pub(super) fn config(&self) -> Result<Config, BadConfig> {
        let config = Config::insecure(&self.uri)?.options(self.options.clone());
        let config = match &self.connect_to {
            Some(address) => config.connect_to(address)?,
            None => config,
        };
        let codec = codec_of(&self.vsn);
        let codec = codec.ok_or_else(|| BadConfig::Codec(self.vsn.clone()))?;
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

    /// Parameters like them, with fillers. A function is never called: what it made is supplied.
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
