//! The server that `phx listen`, `phx push` and `phx cast` connect to, and the credentials for it.

use core::fmt::{self, Display};
use core::time::Duration;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use phx_tokio::client::Setup;
use phx_tokio::config::{Secret, TlsFiles};
use phx_tokio::{Channel, Client, Config, JoinOptions, JoinParams, Payload, Tls};
use serde_json::value::{RawValue, to_raw_value};

use crate::exit::{Failed, with_recording};
use crate::pair::Pair;
use crate::progress::Progress;
use crate::record::Record;
use crate::{duration, source};

/// The socket to connect to, and the credentials for it. The connection uses the proxy of the
/// environment variables, if they name one.
#[derive(Clone, Args)]
pub(crate) struct Target {
    /// The socket URL, such as ws://127.0.0.1:4000/socket/websocket
    pub(crate) url: String,

    /// Send the connect parameter `token`, from an environment variable
    #[arg(long, value_name = "VARIABLE")]
    token_env: Option<String>,
    /// Send the connect parameter `token`, from a file
    #[arg(long, value_name = "FILE", conflicts_with = "token_env")]
    token_file: Option<PathBuf>,
    /// Send the auth token of Phoenix 1.8, from an environment variable
    #[arg(long, value_name = "VARIABLE")]
    auth_token_env: Option<String>,
    /// Send the auth token of Phoenix 1.8, from a file
    #[arg(long, value_name = "FILE", conflicts_with = "auth_token_env")]
    auth_token_file: Option<PathBuf>,
    /// Send a connect parameter, from an environment variable
    #[arg(long, value_name = "NAME=VARIABLE", value_parser = Pair::VALUE)]
    param_env: Vec<(String, String)>,
    /// Send a connect parameter, from a file
    #[arg(long, value_name = "NAME=FILE", value_parser = Pair::FILE)]
    param_file: Vec<(String, PathBuf)>,
    /// Send a header of the upgrade, from an environment variable
    #[arg(long, value_name = "NAME=VARIABLE", value_parser = Pair::VALUE)]
    header_env: Vec<(String, String)>,
    /// Send a header of the upgrade, from a file
    #[arg(long, value_name = "NAME=FILE", value_parser = Pair::FILE)]
    header_file: Vec<(String, PathBuf)>,
    /// Add a string to the join parameters, from an environment variable
    #[arg(long, value_name = "NAME=VARIABLE", value_parser = Pair::VALUE)]
    join_param_env: Vec<(String, String)>,
    /// Add a string to the join parameters, from a file
    #[arg(long, value_name = "NAME=FILE", value_parser = Pair::FILE)]
    join_param_file: Vec<(String, PathBuf)>,

    /// Send a connect parameter; other users of this machine can see it
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = Pair::VALUE)]
    params: Vec<(String, String)>,
    /// Send an upgrade header; channels can read only x-* headers
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = Pair::VALUE)]
    headers: Vec<(String, String)>,
    /// Join with these parameters; @FILE reads a file, - standard input
    #[arg(long, value_name = "JSON")]
    join_params: Option<OsString>,

    /// Trust the authorities in a PEM file instead of Mozilla's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Present a client certificate: a PEM file with its chain
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The private key of the client certificate: a PEM file
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Dial this host:port; the Host header and TLS use the URL's host
    #[arg(long, value_name = "ADDR")]
    connect_to: Option<String>,
    /// Allow ws:// to other machines, which sends everything in the clear
    #[arg(long)]
    allow_insecure: bool,

    /// Time limit to connect, join and push, such as 10s
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
    /// Do not print retries and their causes, only the failure
    #[arg(short, long)]
    quiet: bool,
    /// Record what the client receives and does in a file, for `phx replay`
    /// and bug reports, without secrets, join parameters and payloads
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    record: Option<PathBuf>,
    /// Record the payloads of messages, pushes and replies as well
    #[arg(long, requires = "record")]
    record_payloads: bool,
}

/// The timeout of a join without `--timeout`; the default of [`JoinOptions::new`].
const JOIN_DEADLINE: Duration = Duration::from_secs(30);

/// An open connection, with its recording and its reports.
pub(crate) struct Connected {
    pub(crate) client: Client,
    params: JoinParams,
    timeout: Option<Duration>,
    /// The deadline to connect, join and push.
    until: Option<Instant>,
    record: Option<Record>,
    /// Reports retries until it is dropped.
    _progress: Progress,
}

impl Target {
    /// Connects, or returns the error in one line.
    pub(crate) async fn connect(&self) -> Result<Connected, Failed> {
        // Reading may block for any length of time, because standard input and files can be pipes, and so
        // may opening the file of a recording.
        // Signals are handled meanwhile.
        let target = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let (params, config) = (target.join_params()?, target.config()?);
            let path = target.record.as_deref();
            let record =
                path.map(|path| Record::create(path, target.record_payloads)).transpose()?;
            Ok((params, config, record))
        });
        let read = read.await.map_err(|error| Failed::Local(error.to_string()))?;
        let (params, config, record) = read?;
        let params = params.into();
        let until = self.timeout.map(|timeout| Instant::now() + timeout);
        let setup = Setup::new(config);
        let (setup, record) = match record {
            None => (setup, None),
            Some((record, recorder)) => (setup.record(recorder), Some(record)),
        };
        let url = self.url_without_query();
        let connecting = phx_tokio::connect(setup);
        let connected = match until {
            None => Ok(connecting.await),
            Some(until) => tokio::time::timeout_at(until.into(), connecting).await,
        };
        let failed = match connected {
            Ok(Ok(client)) => {
                let progress = Progress::start(&client, url, self.quiet);
                return Ok(Connected {
                    client,
                    params,
                    timeout: self.timeout,
                    until,
                    record,
                    _progress: progress,
                });
            }
            Ok(Err(error)) => Failed::connection(url, &error.cause),
            Err(_) => {
                let timeout = duration::shown(self.timeout.unwrap_or_default());
                Failed::Unreachable(format!("{url}: not connected within {timeout}"))
            }
        };
        let recorded = record.map_or(Ok(()), |record| record.finish());
        with_recording(Err(failed), recorded)
    }

    /// The query may contain a token.
    pub(crate) fn url_without_query(&self) -> &str {
        self.url.split(['?', '#']).next().unwrap_or(&self.url)
    }

    fn config(&self) -> Result<Config, Failed> {
        let bad = |error: phx_tokio::config::ConfigError| {
            let hint = match error {
                phx_tokio::config::ConfigError::Insecure { ref host } => format!(
                    "ws:// to {host} would send everything in the clear: use wss://, or pass \
                     --allow-insecure"
                ),
                phx_tokio::config::ConfigError::Uri { problem } => {
                    format!("invalid URL: {problem}")
                }
                ref other => other.to_string(),
            };
            Failed::Usage(hint)
        };
        let new = if self.allow_insecure { Config::insecure } else { Config::new };
        let mut config = new(&self.url).map_err(bad)?;
        if let Some(address) = &self.connect_to {
            config = config.connect_to(address).map_err(bad)?;
        }
        for (name, value) in &self.params {
            config = config.param(name, value.as_str());
        }
        for (name, variable) in &self.param_env {
            config = config.param(name, source::variable("--param-env", variable)?);
        }
        for (name, file) in &self.param_file {
            config = config.param(name, source::secret_file(file)?);
        }
        if let Some(token) =
            secret("--token-env", self.token_env.as_deref(), self.token_file.as_ref())?
        {
            config = config.param("token", token);
        }
        for (name, value) in &self.headers {
            config = config.header(name, value.as_str()).map_err(bad)?;
        }
        for (name, variable) in &self.header_env {
            config =
                config.header(name, source::variable("--header-env", variable)?).map_err(bad)?;
        }
        for (name, file) in &self.header_file {
            config = config.header(name, source::secret_file(file)?).map_err(bad)?;
        }
        if let Some(token) = secret(
            "--auth-token-env",
            self.auth_token_env.as_deref(),
            self.auth_token_file.as_ref(),
        )? {
            config = config.auth_token(token);
        }
        if let Some(tls) = self.tls()? {
            config = config.tls(tls);
        }
        // A value that is not UTF-8 is not left out: the error names its variable.
        let lookup = |name: &str| Some(std::env::var_os(name)?.to_string_lossy().into_owned());
        config.proxy_from_env(lookup).map_err(bad)
    }

    fn tls(&self) -> Result<Option<Tls>, Failed> {
        if self.ca.is_none() && self.cert.is_none() {
            return Ok(None);
        }
        // A name that is shown is not always the path, which may have bytes that are not UTF-8.
        let name = |file: &Option<PathBuf>| file.as_deref().map(source::shown);
        let mut files = TlsFiles::default();
        files.ca_file = name(&self.ca);
        files.cert_file = name(&self.cert);
        files.key_file = name(&self.key);
        let tls = Tls::from_files(&files, |name| {
            let mut paths = [&self.ca, &self.cert, &self.key].into_iter().flatten();
            let path = paths.find(|path| source::shown(path) == name);
            source::pem(path.map_or(name.as_ref(), PathBuf::as_path))
        });
        tls.map(Some).map_err(|error| Failed::Usage(error.to_string()))
    }

    /// The parameters of joins. The text of members that are not set by other options is unchanged.
    fn join_params(&self) -> Result<Payload, Failed> {
        let bad = |error: &dyn Display| Failed::Usage(format!("--join-params: {error}"));
        let given = match &self.join_params {
            None => Payload::empty(),
            Some(argument) => {
                source::json(&source::bytes(argument)?).map_err(|error| bad(&error))?
            }
        };
        if self.join_param_env.is_empty() && self.join_param_file.is_empty() {
            return Ok(given);
        }
        let members = given.deserialize::<BTreeMap<String, Box<RawValue>>>();
        let mut members =
            members.map_err(|_| bad(&"it must be an object if other options add parameters"))?;
        let mut add = |name: &String, secret: &Secret| {
            let value = to_raw_value(secret.expose()).map_err(|error| bad(&error))?;
            members.insert(name.clone(), value);
            Ok::<_, Failed>(())
        };
        for (name, variable) in &self.join_param_env {
            add(name, &source::variable("--join-param-env", variable)?)?;
        }
        for (name, file) in &self.join_param_file {
            add(name, &source::secret_file(file)?)?;
        }
        Payload::json(&members).map_err(|error| bad(&error))
    }
}

impl Connected {
    /// Joins a topic, or returns the error in one line.
    pub(crate) async fn join(&self, topic: &str) -> Result<Channel, Failed> {
        let options = JoinOptions::new();
        let options = options.deadline(self.remaining().unwrap_or(JOIN_DEADLINE));
        let joined = self.client.join_with(topic, self.params.clone(), options).await;
        let within = self.timeout.unwrap_or(JOIN_DEADLINE);
        joined.map_err(|error| Failed::join(topic, &error, within))
    }

    /// The time until the deadline.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Waits for the deadline of `--timeout`, and returns the value of the option.
    pub(crate) async fn deadline(&self) -> Duration {
        match (self.until, self.timeout) {
            (Some(until), Some(timeout)) => {
                tokio::time::sleep_until(until.into()).await;
                timeout
            }
            _ => core::future::pending().await,
        }
    }

    /// Returns the error that ended the recording early, if there was one.
    pub(crate) fn recorded(&self) -> Result<(), Failed> {
        self.record.as_ref().map_or(Ok(()), Record::finish)
    }
}

/// Redacts all fields, because parameters, headers and the query of the URL are often secret.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").finish_non_exhaustive()
    }
}

/// Reads the secret from the environment variable or the file that an option names. `option` is the one for
/// the variable.
pub(crate) fn secret(
    option: &str,
    variable: Option<&str>,
    file: Option<&PathBuf>,
) -> Result<Option<Secret>, Failed> {
    match (variable, file) {
        (Some(variable), _) => source::variable(option, variable).map(Some),
        (None, Some(file)) => source::secret_file(file).map(Some),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        target: Target,
    }

    /// A secret is added to the join parameters without a change to the text of the other members.
    #[test]
    fn join_params_are_kept_as_text() {
        let file = std::env::temp_dir().join(format!("phx-{}-secret", std::process::id()));
        std::fs::write(&file, "s3\"cret\n").unwrap();
        let secret = format!("token={}", file.display());
        let written = r#"{"n": [1.0,1E400, 10000000000000000000001],"token":1}"#;
        let args =
            ["phx", "ws://localhost", "--join-params", written, "--join-param-file", &secret];
        let target = Command::try_parse_from(args).unwrap().target;
        let params = target.join_params();
        std::fs::remove_file(&file).unwrap();
        let expected = r#"{"n":[1.0,1E400, 10000000000000000000001],"token":"s3\"cret"}"#;
        assert_eq!(params.unwrap().get(), Ok(expected));
    }
}
