//! `phx`: Phoenix Channels on the command line.

mod connections;
mod demo;
mod exit;
mod listen;
mod output;
mod push;
mod serve;

use core::fmt::Display;
use core::net::SocketAddr;
use core::time::Duration;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use phx_tokio::{Config, Roots, Tls};

use crate::exit::Failed;

#[derive(Debug, Parser)]
#[command(name = "phx", version, about = "Phoenix Channels on the command line")]
#[command(after_help = exit::CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch a server and a client in one process: a push, a broadcast, a kill and a recovery.
    Demo,
    /// Run a Phoenix-like server for trying things out.
    Serve {
        /// The address to listen on.
        #[arg(long, default_value = "127.0.0.1:4000")]
        addr: SocketAddr,
        /// Refuse every socket that does not present this connect parameter `token`.
        #[arg(long, value_name = "VALUE")]
        token: Option<String>,
    },
    /// Keep the named connections of a file, and print what happens on them as CloudEvents, one
    /// JSON object a line. The log is on standard error. Ends in order on SIGINT and SIGTERM, and
    /// at once on a second one.
    #[command(after_help = exit::CODES)]
    Run {
        /// The connections, such as connections.json
        file: PathBuf,
        /// Print only events with a bus topic like this, such as 'jido.signal.phoenix.channel.*';
        /// may be given several times.
        #[arg(long = "subscribe", value_name = "PATTERN", default_value = "jido.protocol.**")]
        patterns: Vec<String>,
        /// Name events by the three fixed types, in place of one for each thing that happens.
        #[arg(long)]
        fixed: bool,
        /// How long to wait for replies and leaves when shutting down.
        #[arg(long, value_name = "SECONDS", default_value_t = 5)]
        grace: u64,
    },
    /// Say what is in a file of connections, or everything that is wrong with it.
    #[command(after_help = exit::CODES)]
    Check {
        /// The connections, such as connections.json
        file: PathBuf,
    },
    /// Join topics and print what happens: readable lines on a terminal, JSON lines when piped.
    #[command(after_help = exit::CODES)]
    Listen {
        #[command(flatten)]
        target: Target,
        /// A topic to join; may be given several times.
        #[arg(long = "join", value_name = "TOPIC", required = true)]
        topics: Vec<String>,
    },
    /// Push one event and print the reply's response.
    #[command(after_help = exit::CODES)]
    Push {
        #[command(flatten)]
        target: Target,
        /// The topic to join.
        topic: String,
        /// The event.
        event: String,
        /// The payload.
        #[arg(value_name = "JSON")]
        payload: String,
    },
}

/// The socket to connect to and what to present there. The way leads through the proxy that the
/// environment names, if it names one.
#[derive(Args)]
struct Target {
    /// The socket, such as ws://127.0.0.1:4000/socket/websocket
    url: String,
    /// A connect parameter; may be given several times.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = name_and_value)]
    params: Vec<(String, String)>,
    /// A header of the upgrade; may be given several times. Phoenix shows those beginning with x-
    /// to the socket.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = name_and_value)]
    headers: Vec<(String, String)>,
    /// A PEM file with the certificate authorities to trust, in place of Mozilla's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Let ws:// leave this machine: tokens and messages then travel in the clear.
    #[arg(long)]
    allow_insecure: bool,
}

impl Target {
    fn config(&self) -> Result<Config, Failed> {
        let bad = |error: phx_tokio::ConfigError| {
            let hint = match error {
                phx_tokio::ConfigError::Insecure { ref host } => format!(
                    "ws:// to {host} would send everything in the clear: use wss://, or pass \
                     --allow-insecure"
                ),
                ref other => other.to_string(),
            };
            Failed::Usage(hint)
        };
        let new = if self.allow_insecure { Config::insecure } else { Config::new };
        let mut config = new(&self.url).map_err(bad)?;
        for (name, value) in &self.params {
            config = config.param(name, value.as_str());
        }
        for (name, value) in &self.headers {
            config = config.header(name, value.as_str()).map_err(bad)?;
        }
        if let Some(file) = &self.ca {
            let bad = |error: &dyn Display| Failed::Usage(format!("{}: {error}", file.display()));
            let pem = std::fs::read(file).map_err(|error| bad(&error))?;
            config = config.tls(Tls::new(Roots::pem(&pem).map_err(|error| bad(&error))?));
        }
        config.proxy_from_env(|name| std::env::var(name).ok()).map_err(bad)
    }
}

/// Parameters and headers are often secrets, and so is the URL's query.
impl core::fmt::Debug for Target {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Target").finish_non_exhaustive()
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Failed::Local(format!("no runtime: {error}")).report(),
    };
    let done = runtime.block_on(async {
        match command {
            Command::Demo => demo::run().await,
            Command::Serve { addr, token } => serve::run(addr, token).await,
            Command::Run { file, patterns, fixed, grace } => {
                let grace = Duration::from_secs(grace);
                connections::run(connections::Run { file: &file, patterns, fixed, grace }).await
            }
            Command::Check { file } => connections::check(&file),
            Command::Listen { target, topics } => listen::run(&target, topics).await,
            Command::Push { target, topic, event, payload } => {
                push::run(&target, &topic, &event, &payload).await
            }
        }
    });
    // Reading standard input cannot be cancelled, so it must not be waited for.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => failed.report(),
    }
}
