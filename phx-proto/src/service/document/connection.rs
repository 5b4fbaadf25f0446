//! The keys of a connection that are not [`Options`], and the specification that results from both.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::error::ProblemKind;
use super::spec::{ConnectionSpec, Source};
use super::values::{Channels, Pairs, Vsn};
use crate::config::msec::Msec;
use crate::config::route::Target;
use crate::config::{Config, ConfigError, Options, Secret, TlsFiles, Uri};
use crate::service::supervision::{Restart, RestartPolicy};
use crate::wire::payload::Payload;

/// The keys of a connection that are not [`Options`], after variables are replaced.
#[derive(Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub(super) struct Connection {
    /// ws:// or wss://, with the path of the socket.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub(super) uri: Option<Uri>,
    /// Allows ws:// to another machine.
    allow_insecure: bool,
    /// host:port to dial instead of the URI's. The header Host and the TLS name are still those of
    /// the URI.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    connect_to: Option<Target>,
    /// The version of the wire format.
    vsn: Option<Vsn>,
    /// Headers of the upgrade request. Phoenix passes those that start with x- to the application,
    /// and few others.
    headers: Pairs,
    /// Parameters of the socket.
    params: Pairs,
    /// The token of Phoenix's auth_token.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    auth_token: Option<Secret>,
    /// A list of topics or of pairs of topic and parameters, or an object with parameters by topic.
    auto_join_channels: Channels,
    /// false means max_retries 0.
    reconnect: bool,
    /// PEM files, which are read after the document, and the server name to verify.
    pub(super) tls: Option<TlsFiles>,
    /// Which ends of the connection are followed by a restart.
    #[cfg_attr(feature = "schema", schemars(transform = super::schema::or_reference))]
    restart: Restart,
    /// The maximum number of restarts within max_restarts_msec.
    max_restarts: u32,
    /// The time window in which max_restarts counts.
    #[serde(rename = "max_restarts_msec", with = "Msec")]
    within: Duration,
    /// CloudEvents extension attributes, added to every event.
    #[cfg_attr(feature = "schema", schemars(schema_with = "super::schema::attributes"))]
    attributes: Pairs,
}

impl Default for Connection {
    fn default() -> Self {
        let RestartPolicy { restart, max_restarts, within } = RestartPolicy::default();
        Self {
            uri: None,
            allow_insecure: false,
            connect_to: None,
            vsn: None,
            headers: Pairs::default(),
            params: Pairs::default(),
            auth_token: None,
            auto_join_channels: Channels::default(),
            reconnect: true,
            tls: None,
            restart,
            max_restarts,
            within,
            attributes: Pairs::default(),
        }
    }
}

impl Connection {
    /// Makes the specification, and calls `report` with each problem and its key. Without an
    /// address, the other keys are checked against a placeholder.
    pub(super) fn spec(
        mut self,
        mut options: Options,
        mut report: impl FnMut(&str, ProblemKind),
    ) -> Option<ConnectionSpec> {
        if !core::mem::replace(&mut self.reconnect, true) {
            options.max_retries = Some(0);
        }
        let config = self.uri.clone().map(|uri| Config::at(uri, self.allow_insecure));
        let config = config
            .and_then(|config| config.map_err(|error| report("uri", with_key_names(error))).ok());
        let mut config = match config {
            Some(config) => config,
            None => Config::insecure("ws://localhost/").ok()?,
        };
        type Change<'a> = &'a dyn Fn(Config) -> Result<Config, ConfigError>;
        let mut set =
            |config: &mut Config, key: &str, change: Change<'_>| match change(config.clone()) {
                Ok(changed) => *config = changed,
                Err(error) => report(key, with_key_names(error)),
            };
        if let Some(codec) = self.vsn.as_ref().and_then(Vsn::codec) {
            set(&mut config, "vsn", &|config| config.codec(codec.clone()));
        }
        if let Some(target) = &self.connect_to {
            set(&mut config, "connect_to", &|config| config.dial(target.clone()));
        }
        set(&mut config, "headers", &|config| {
            let mut headers = self.headers.0.iter();
            headers.try_fold(config, |config, (name, value)| config.header(name, value.as_str()))
        });
        set(&mut config, "auto_join_channels", &|config| {
            self.auto_join_channels.0.iter().try_fold(config, |config, (topic, params)| {
                config.auto_join(topic, Payload::from(params.clone()))
            })
        });
        set(&mut config, "params", &|mut config| {
            for (name, value) in &self.params.0 {
                config = config.param(name, value.as_str());
            }
            config.request_uri(&config.credentials)?;
            Ok(config)
        });
        if let Some(token) = &self.auth_token {
            config = config.auth_token(token.clone());
        }
        if let Some(problem) = self.tls.as_ref().and_then(TlsFiles::problem) {
            report("tls", ProblemKind::Invalid { message: problem.to_owned() });
        }
        let mut attributes: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in core::mem::take(&mut self.attributes.0) {
            if attributes.contains_key(&name) {
                let message = format!("the attribute {name:?} occurs twice in it");
                report("attributes", ProblemKind::Invalid { message });
            }
            attributes.insert(name, value);
        }
        if attributes.keys().any(|name| !crate::service::router::is_attribute_name(name)) {
            report("attributes", ProblemKind::AttributeName);
        }
        // These keys are normalized, so that different spellings of the same value compare as
        // equal.
        self.vsn = Some(Vsn::of(&*config.codec));
        self.attributes = Pairs(attributes.clone().into_iter().collect());
        let restart = RestartPolicy::new(self.restart).intensity(self.max_restarts, self.within);
        Some(ConnectionSpec {
            config: config.options(options),
            restart,
            attributes,
            tls: self.tls.clone(),
            source: Arc::new(Source::document(self)),
        })
    }
}

/// Converts an error so that it names the key to set, where the error of the configuration names a
/// function.
fn with_key_names(error: ConfigError) -> ProblemKind {
    match error {
        ConfigError::Insecure { host } => ProblemKind::Invalid {
            message: format!(
                "ws:// to {host} would send everything in the clear: use wss://, or set \
                 \"allow_insecure\": true"
            ),
        },
        other => other.into(),
    }
}
