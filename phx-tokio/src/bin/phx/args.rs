//! The command line. Lines of its help are broken by hand: they fit a terminal of 80 columns, and
//! no crate is needed to measure it. A test runs the examples.

use core::fmt;
use core::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use phx_tokio::{Config, Setup, Tls, TlsFiles};

use crate::exit::Failed;
use crate::record::Record;

const PHX: &str = "\
Try it, with `phx serve` in another terminal:
  phx listen ws://127.0.0.1:4000/socket/websocket --join room:lobby
  phx push ws://127.0.0.1:4000/socket/websocket room:lobby shout '{\"body\":\"hi\"}'

People get lines, in colour unless NO_COLOR is set; pipes get JSON.

Exit codes:
  0  it worked
  1  a step of the demo failed, a replay went another way than its recording,
     or this machine failed (a port in use)
  2  bad usage: an unknown option, a URL or a file that cannot be used, JSON
     that is none
  3  the server could not be reached, or the connection was lost for good
  4  the server refused the upgrade with an HTTP status
  5  the server rejected a join, or did not answer it
  6  a push was answered with an error, or not in time";

const DEMO: &str = "\
Everything happens on loopback sockets of a free port, within some seconds.

Examples:
  phx demo

Exit codes: 0 it worked, 1 a step failed.";

const SERVE: &str = "\
Topics that start with room: can be joined by anyone. An event `echo` is
answered with its payload, and `shout` goes to everyone on the topic. What can
be typed while it serves is printed when it starts.

Examples:
  phx serve
  phx serve --addr 127.0.0.1:0 --token s3cret

Exit codes: 0 it was interrupted, 1 this machine failed (a port in use).";

const RUN: &str = "\
Events are printed one JSON object a line, the log goes to standard error.
SIGINT and SIGTERM end it in order, a second one ends it at once. SIGHUP reads
the file again: only what differs is stopped and started. Standard input, when
it is no terminal, takes orders, one JSON object a line:
  {\"id\": \"1\", \"push\": {\"connection\": \"backend\", \"topic\": \"room:lobby\",
    \"event\": \"shout\", \"payload\": {\"body\": \"hi\"}}}   (on one line)
and cast, join (with params) and leave. What became of an order is an event
with its id: phx.control.done, .failed or .malformed.

Examples:
  phx run connections.json
  phx run connections.json --subscribe 'jido.signal.phoenix.channel.*'
  phx run connections.json --metrics 127.0.0.1:9464 --metrics-every 60

Exit codes: 0 it was told to end, 1 it was told twice or a port is in use, 2 a
file or pattern that cannot be used, 3 every connection has ended.";

const CHECK: &str = "\
Values of the query of an address are not printed, nor is any other secret. The
schema is for editors: name it in the file as \"$schema\".

Examples:
  phx check connections.json
  phx check --schema

Exit codes: 0 it can be used, 2 it cannot.";

const LISTEN: &str = "\
It goes on through lost connections and crashed channels, and says so; it ends
when it is interrupted, or when the server closes a channel for good.

Examples, with `phx serve` in another terminal:
  phx listen ws://127.0.0.1:4000/socket/websocket --join room:lobby
  phx listen ws://127.0.0.1:4000/socket/websocket --join room:lobby | head -n 1
  phx listen ws://127.0.0.1:4000/socket/websocket \\
    --join room:lobby --join room:jobs --param token=s3cret --record bug.jsonl

Exit codes: 0 it was interrupted, 2 bad usage, 3 unreachable or closed by the
server, 4 the upgrade was refused, 5 a join was rejected.";

const PUSH: &str = "\
Examples, with `phx serve` in another terminal:
  phx push ws://127.0.0.1:4000/socket/websocket room:lobby echo '{\"body\":\"hi\"}'
  phx push ws://127.0.0.1:4000/socket/websocket room:lobby shout '{\"body\":\"hi\"}'

Exit codes: 0 it was answered with ok, 2 bad usage, 3 unreachable, 4 the upgrade
was refused, 5 the join was rejected, 6 answered with an error or not in time.";

const REPLAY: &str = "\
A line that begins with a small letter or `<-` is what the client was told; `=`
is its answer to a command, and any other line is what it did. The core decides
by what it is told alone, so it does the same again; if it does not, the line
where that begins is named.

Examples:
  phx listen ws://127.0.0.1:4000/socket/websocket \\
    --join room:lobby --record bug.jsonl
  phx replay bug.jsonl

Exit codes: 0 it does the same, 1 it does something else, 2 this is no recording
or it was cut short.";

const COMPLETIONS: &str = "\
Examples:
  phx completions bash
  phx completions zsh
  phx completions fish

Put what is printed where the shell looks for it: for bash
~/.local/share/bash-completion/completions/phx, for fish
~/.config/fish/completions/phx.fish, for zsh a file _phx in a folder of fpath.

Exit codes: 0 it was printed, 1 it could not be, 2 there is no such shell.";

const MAN: &str = "\
Examples:
  phx man
  phx man run

`phx man | man -l -` shows it; share/man/man1/phx.1 and phx-run.1 are the places
to keep them.

Exit codes: 0 it was printed, 1 it could not be, 2 there is no such command.";

#[derive(Debug, Parser)]
#[command(name = "phx", version, about = "Phoenix Channels on the command line")]
#[command(after_help = PHX)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Watch a client hold a channel through a server that is killed
    #[command(after_help = DEMO)]
    Demo,
    /// Run a Phoenix-like server to try things out with
    #[command(after_help = SERVE)]
    Serve {
        /// Where to listen; port 0 is any
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:4000")]
        addr: SocketAddr,
        /// Refuse every socket whose parameter `token` is another
        #[arg(long, value_name = "VALUE", verbatim_doc_comment)]
        token: Option<String>,
    },
    /// Join topics and print what happens on them
    #[command(after_help = LISTEN)]
    Listen {
        #[command(flatten)]
        target: Target,
        /// A topic to join; may be given several times
        #[arg(long = "join", value_name = "TOPIC", required = true)]
        topics: Vec<String>,
    },
    /// Push one event and print the response
    #[command(after_help = PUSH)]
    Push {
        #[command(flatten)]
        target: Target,
        /// The topic to join
        topic: String,
        /// The event
        event: String,
        /// The payload
        #[arg(value_name = "JSON")]
        payload: String,
    },
    /// Keep the named connections of a file and print CloudEvents
    #[command(after_help = RUN)]
    Run {
        /// The connections, such as connections.json
        file: PathBuf,
        /// Only events with a bus topic like this; may be
        /// given several times
        #[arg(long = "subscribe", value_name = "PATTERN", default_value = "jido.protocol.**")]
        #[arg(verbatim_doc_comment)]
        patterns: Vec<String>,
        /// Name events by the three fixed types, in
        /// place of one for each thing that happens
        #[arg(long, verbatim_doc_comment)]
        fixed: bool,
        /// How long replies may take at the
        /// end
        #[arg(long, value_name = "SECONDS", default_value_t = 5, verbatim_doc_comment)]
        grace: u64,
        /// Serve the counters of every connection as
        /// OpenMetrics, at http://IP:PORT/metrics
        #[arg(long, value_name = "IP:PORT", verbatim_doc_comment)]
        metrics: Option<SocketAddr>,
        /// Print them as an event this often
        #[arg(long, value_name = "SECONDS")]
        #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
        metrics_every: Option<u64>,
    },
    /// Say what is in a file of connections, or what is wrong with it
    #[command(after_help = CHECK)]
    Check {
        /// The connections, such as connections.json
        #[arg(required_unless_present = "schema")]
        file: Option<PathBuf>,
        /// Print the JSON Schema of such a file instead
        #[arg(long, conflicts_with = "file")]
        schema: bool,
    },
    /// Print the trace of a recording, by doing it all again
    #[command(after_help = REPLAY)]
    Replay {
        /// What `--record` wrote
        file: PathBuf,
    },
    /// Print a script that completes `phx` in a shell
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page of `phx`, or of a command
    #[command(after_help = MAN)]
    Man {
        /// One of its commands, such as run
        command: Option<String>,
    },
}

/// The socket to connect to and what to present there. The way leads through the proxy that the
/// environment names, if it names one.
#[derive(Args)]
pub(crate) struct Target {
    /// The socket, such as ws://127.0.0.1:4000/socket/websocket
    pub(crate) url: String,
    /// A connect parameter; may be given several times
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = name_and_value)]
    params: Vec<(String, String)>,
    /// A header of the upgrade; may be given several
    /// times. Phoenix shows the socket those with x-
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = name_and_value)]
    #[arg(verbatim_doc_comment)]
    headers: Vec<(String, String)>,
    /// A PEM file with the certificate authorities to
    /// trust, in place of Mozilla's
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    ca: Option<PathBuf>,
    /// A PEM file with the certificate to show, and its
    /// chain
    #[arg(long, value_name = "FILE", requires = "key", verbatim_doc_comment)]
    cert: Option<PathBuf>,
    /// A PEM file with the key of that certificate
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Dial this host:port in place of the URL's; the Host
    /// header and the name to verify stay the URL's
    #[arg(long, value_name = "ADDR", verbatim_doc_comment)]
    connect_to: Option<String>,
    /// Let ws:// leave this machine: tokens and messages
    /// then travel in the clear
    #[arg(long, verbatim_doc_comment)]
    allow_insecure: bool,
    /// Write what the client is told and does to a file,
    /// for `phx replay` and for bug reports; credentials,
    /// join parameters and payloads are left out
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    record: Option<PathBuf>,
    /// Record the payloads of messages, pushes and replies
    #[arg(long, requires = "record")]
    record_payloads: bool,
}

impl Target {
    /// What to connect with, and the recording that was asked for.
    pub(crate) fn setup(&self) -> Result<(Setup, Option<Record>), Failed> {
        let setup = Setup::new(self.config()?);
        let Some(path) = &self.record else { return Ok((setup, None)) };
        let (record, recorder) = Record::create(path, self.record_payloads)?;
        Ok((setup.record(recorder), Some(record)))
    }

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
        if let Some(address) = &self.connect_to {
            config = config.connect_to(address).map_err(bad)?;
        }
        for (name, value) in &self.params {
            config = config.param(name, value.as_str());
        }
        for (name, value) in &self.headers {
            config = config.header(name, value.as_str()).map_err(bad)?;
        }
        if self.ca.is_some() || self.cert.is_some() {
            let path = |file: &PathBuf| file.display().to_string();
            let mut files = TlsFiles::default();
            files.ca_file = self.ca.as_ref().map(path);
            files.cert_file = self.cert.as_ref().map(path);
            files.key_file = self.key.as_ref().map(path);
            let tls = Tls::from_files(&files, |path| std::fs::read(path));
            config = config.tls(tls.map_err(|error| Failed::Usage(error.to_string()))?);
        }
        config.proxy_from_env(|name| std::env::var(name).ok()).map_err(bad)
    }
}

/// Parameters and headers are often secrets, and so is the URL's query.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").finish_non_exhaustive()
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}
