//! `phx serve`: a Phoenix-like server for experiments.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use phx_tokio::testing::{Listener, Observation, ServerConfig};
use serde_json::Value;

use crate::exit::Failed;
use crate::input::{LINE_MAX, Line, lines};
use crate::limit::Limit;
use crate::log::{log, plain};
use crate::output::{Output, clock};
use crate::signals::Stop;
use crate::style::{Style, Tone, escaped};
use crate::target::secret;

/// The commands on standard input.
const COMMANDS: [&str; 6] = [
    "  broadcast TOPIC EVENT JSON   to every client on the topic",
    "  crash TOPIC                  every channel on the topic",
    "  close TOPIC                  every channel on the topic",
    "  kick USER_ID                 the sockets that connected with this id",
    "  kill                         every connection, without a close frame",
    "  help                         this list",
];

/// The timeout of a graceful end.
const END: Duration = Duration::from_secs(2);
/// The period for reports of failed accepts.
const FAILURES_EVERY: Duration = Duration::from_secs(10);

/// The options of `phx serve`.
#[derive(Args)]
pub(crate) struct Serve {
    /// Where to listen; port 0 selects a free port
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:4000")]
    addr: SocketAddr,
    /// Require the connect parameter `token` to match an environment variable
    #[arg(long, value_name = "VARIABLE")]
    token_env: Option<String>,
    /// Require the connect parameter `token` to match a file
    #[arg(long, value_name = "FILE", conflicts_with = "token_env")]
    token_file: Option<PathBuf>,
    /// Require the connect parameter `token` to match this value
    #[arg(long, value_name = "VALUE", conflicts_with_all = ["token_env", "token_file"])]
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    token: Option<String>,
}

impl core::fmt::Debug for Serve {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Serve").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// Serves until a signal arrives, and then closes every connection, as Phoenix does at a graceful
/// shutdown.
pub(crate) async fn run(serve: Serve) -> Result<(), Failed> {
    let config = ServerConfig::default();
    let token = match serve.token {
        Some(token) => Some(token.into()),
        None => secret("--token-env", serve.token_env.as_deref(), serve.token_file.as_ref())?,
    };
    let config = match token {
        Some(token) => config.token(token.expose()),
        None => config,
    };
    // After the token was read: that may block, and until then a signal ends the process.
    let mut stop = Stop::new().map_err(|error| Failed::Local(error.to_string()))?;
    let output = Output::start()?;
    let mut listener = bind(serve.addr, config).await?;
    let mut failures = Limit::new(FAILURES_EVERY);
    let people = io::stderr().is_terminal();
    listener.with(|server, _| {
        server.observe(move |observation| match observation {
            Observation::AcceptFailed { message } => {
                let now = Instant::now();
                let due = failures.due(now).map(|(_, message)| message);
                if let Some(message) = failures.report(now, "", message.clone()).or(due) {
                    log(&format!("connections cannot be accepted at the moment: {message}"));
                }
            }
            observation if people => print(observation),
            _ => {}
        });
    });
    // The queue accepts this line, because it is the first.
    let _ = output.writer().try_send(listener.url());
    plain("serving until ctrl-c; phx_proto::testing documents the topics and events. Commands:");
    COMMANDS.into_iter().for_each(plain);
    let mut typed = lines();
    loop {
        tokio::select! {
            biased;
            _ = stop.request() => break,
            Some(line) = typed.recv() => {
                if let Err(problem) = obey(&listener, line) {
                    plain(&escaped(&problem));
                }
            }
        }
    }
    tokio::select! {
        biased;
        _ = stop.request() => {}
        () = tokio::time::sleep(END) => {}
        () = listener.shutdown() => {}
    }
    Ok(())
}

/// Prints one line about an event of a client.
fn print(observation: &Observation) {
    let style = Style::stderr();
    let (who, tone, what) = match observation {
        Observation::Connected { peer } => {
            (format!("{peer:?}"), Tone::Good, "connected".to_owned())
        }
        Observation::Refused { status } => {
            ("upgrade".to_owned(), Tone::Bad, format!("refused with HTTP {status}"))
        }
        Observation::Joined { peer, topic } => {
            (format!("{peer:?}"), Tone::Good, format!("joined {topic}"))
        }
        Observation::JoinRefused { peer, topic } => {
            (format!("{peer:?}"), Tone::Bad, format!("was refused {topic}"))
        }
        Observation::ChannelEnded { peer, topic } => {
            (format!("{peer:?}"), Tone::Gap, format!("is no longer on {topic}"))
        }
        Observation::Disconnected { peer } => {
            (format!("{peer:?}"), Tone::Gap, "disconnected".to_owned())
        }
        _ => return,
    };
    let (time, who) = (style.paint(Tone::Quiet, clock()), style.paint(Tone::Name, who));
    plain(&format!("{time} {who} {}", style.paint(tone, what)));
}

/// Starts the server for `phx demo`.
pub(crate) async fn listen(addr: SocketAddr) -> Result<Listener, Failed> {
    bind(addr, ServerConfig::default()).await
}

async fn bind(addr: SocketAddr, config: ServerConfig) -> Result<Listener, Failed> {
    let bound = Listener::bind(addr, config).await;
    bound.map_err(|error| Failed::Local(format!("{addr}: {error}")))
}

/// Carries out the command on a line.
fn obey(listener: &Listener, line: io::Result<Line>) -> Result<(), String> {
    let line = line.map_err(|error| format!("standard input: {error}"))?;
    let text = line.text.ok_or_else(|| format!("the line has more than {LINE_MAX} bytes"))?;
    let text = String::from_utf8(text).map_err(|_| "the line is not UTF-8")?;
    carry_out(listener, &text)
}

/// Carries out one command.
fn carry_out(listener: &Listener, line: &str) -> Result<(), String> {
    let mut words = line.trim().splitn(4, ' ');
    let mut next = || words.next().unwrap_or_default();
    match (next(), next(), next(), next()) {
        ("", ..) => {}
        ("help", "", "", "") => COMMANDS.into_iter().for_each(plain),
        ("broadcast", topic, event, json) if !event.is_empty() => {
            let payload: Value = serde_json::from_str(json)
                .map_err(|error| format!("the payload is not JSON: {error}"))?;
            listener.broadcast(topic, event, payload);
        }
        ("crash", topic, "", "") if !topic.is_empty() => listener.crash_channel(topic),
        ("close", topic, "", "") if !topic.is_empty() => {
            listener.with(|server, now| server.close_channel(now, topic));
        }
        ("kick", id, "", "") if !id.is_empty() => {
            listener.with(|server, now| server.disconnect_id(now, &format!("user:{id}")));
        }
        ("kill", "", "", "") => listener.with(|server, _| server.kill_all()),
        (other, ..) => {
            return Err(format!("invalid command {other:?}: type help"));
        }
    }
    Ok(())
}
