//! The definition of the command line. The help texts have fixed line breaks for a terminal of 80
//! columns, so no crate is needed to measure the terminal. A test runs the examples in the help
//! texts.

use core::net::SocketAddr;
use core::time::Duration;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::duration;
use crate::listen::Listen;
use crate::push::Push;
use crate::serve::Serve;

const PHX: &str = "\
Quick start, with `phx serve` in another terminal:
  phx listen ws://127.0.0.1:4000/socket/websocket --join room:lobby
  phx push ws://127.0.0.1:4000/socket/websocket room:lobby shout '{\"body\":\"hi\"}'

On a terminal, the output is lines of text, in colour unless NO_COLOR is set. In
a pipe, it is JSON.

Exit codes:
  0  success, or stopped by a signal
  1  local failure: a port in use; output that is not read; for `phx run`, a
     reader that closed the output; a failed step of the demo; a replay that
     diverges; a second signal that forced the exit
  2  bad usage: an unknown option, an invalid URL, payload or file
  3  the server could not be reached, or the connection was lost for good
  4  the server refused the upgrade with an HTTP status
  5  the server rejected a join, or did not answer it
  6  a push was answered with an error, or not in time
  7  fewer messages than --count arrived within the time of --for";

const DEMO: &str = "\
The demo uses loopback sockets on a free port and takes about a second.

Examples:
  phx demo

Exit codes: 0 success; 1 a step failed.";

const SERVE: &str = "\
Clients can join topics that start with room:. The event `echo` is answered
with its payload, and `shout` is broadcast to the topic. While the server runs,
type help for a list of commands that act on its clients. On a terminal, it
prints which clients connect and join.

Examples:
  phx serve
  TOKEN=s3cret phx serve --addr 127.0.0.1:0 --token-env TOKEN

Exit codes: 0 stopped by a signal; 1 local failure (a port in use).";

const RUN: &str = "\
Events are printed as lines on a terminal and as one JSON object per line in a
pipe; the log goes to standard error. SIGINT and SIGTERM shut down gracefully
within --grace, even if the output is not read; a second signal exits at once.
SIGHUP reloads the file: only connections that differ are stopped and started.
Standard input, unless it is a terminal, accepts orders, one JSON object per
line:
  {\"id\": \"1\", \"push\": {\"connection\": \"backend\", \"topic\": \"room:lobby\",
    \"event\": \"shout\", \"payload\": {\"body\": \"hi\"}}}   (on one line)
and cast, join (with params) and leave. The result of an order is an event with
its id: phx.control.done, .failed or .malformed.
Bus topics begin with jido, the name of the system that phx was first built for;
--prefix replaces it. A pattern that no event can match causes a warning.

Examples:
  phx run connections.json
  phx run connections.json --subscribe 'jido.signal.phoenix.channel.*'
  phx run connections.json --metrics 127.0.0.1:9464 --metrics-every 60

Exit codes: 0 stopped by a signal; 1 the reader closed the output, output was
lost during the shutdown, a second signal forced the exit, or a port is in use;
2 an invalid file or pattern; 3 every connection has ended.";

const CHECK: &str = "\
The query of a URL is printed without its values, and no other secret is
printed. The schema is for editors: refer to it in the file as \"$schema\".

Examples:
  phx check connections.json
  phx check --schema

Exit codes: 0 the file is valid; 2 it is not.";

const LISTEN: &str = "\
It continues through lost connections and crashed channels, and reports retries
and their causes on standard error. It ends on a signal, when its reader closes
the output, or when the server closes a channel for good. SIGINT and SIGTERM end
it within 2 seconds; a second signal ends it at once.

Examples, with `phx serve` in another terminal:
  phx listen ws://127.0.0.1:4000/socket/websocket --join room:lobby
  phx listen ws://127.0.0.1:4000/socket/websocket --join room:lobby | head -n 1
  phx listen ws://127.0.0.1:4000/socket/websocket \\
    --join room:lobby --join room:jobs --record bug.jsonl
  TOKEN=s3cret phx listen ws://127.0.0.1:4000/socket/websocket \\
    --token-env TOKEN --join room:lobby

To wait for one event and print its payload:
  --event done --count 1 --for 10s --raw

Exit codes: 0 stopped by a signal, --count or --for; 1 output was lost; 2 bad
usage; 3 unreachable or closed by the server; 4 the upgrade was refused; 5 a
join was rejected or not answered; 7 fewer messages than --count arrived in
time.";

const PUSH: &str = "\
Examples, with `phx serve` in another terminal:
  phx push ws://127.0.0.1:4000/socket/websocket room:lobby echo '{\"body\":\"hi\"}'
  phx push ws://127.0.0.1:4000/socket/websocket room:lobby echo - < event.json
  phx push ws://127.0.0.1:4000/socket/websocket room:lobby echo \\
    --repeat 3 --interval 10ms

Exit codes: 0 answered with ok; 2 bad usage; 3 unreachable; 4 the upgrade was
refused; 5 the join was rejected; 6 answered with an error or not in time.";

const CAST: &str = "\
After the event, it leaves the channel and waits until the server has confirmed
the leave. By then, the server has received the event.

Examples, with `phx serve` in another terminal:
  phx cast ws://127.0.0.1:4000/socket/websocket room:lobby shout '{\"body\":\"hi\"}'

Exit codes: 0 sent; 2 bad usage; 3 unreachable; 4 the upgrade was refused; 5 the
join was rejected; 6 not sent in time.";

const REPLAY: &str = "\
In the trace, a line that begins with a lower-case letter or `<-` is an input of
the client, a line that begins with `=` is the result of a command, and any
other line is an action. The actions depend on the inputs alone, so a replay
gives the same actions. If it does not, the first line that differs is reported.

Examples:
  phx listen ws://127.0.0.1:4000/socket/websocket \\
    --join room:lobby --record bug.jsonl
  phx replay bug.jsonl

Exit codes: 0 the replay matches; 1 the replay diverges; 2 the file is not a
recording, or is truncated.";

const COMPLETIONS: &str = "\
Examples:
  phx completions bash
  phx completions zsh
  phx completions fish

Save the output where the shell looks for it:
  bash  ~/.local/share/bash-completion/completions/phx
  fish  ~/.config/fish/completions/phx.fish
  zsh   a file _phx in a folder of fpath

Exit codes: 0 success; 1 the output failed; 2 unknown shell.";

const MAN: &str = "\
Examples:
  phx man
  phx man run

`phx man | man -l -` displays the page. To install the pages, save them as
share/man/man1/phx.1 and phx-run.1.

Exit codes: 0 success; 1 the output failed; 2 unknown command.";

#[derive(Debug, Parser)]
#[command(name = "phx", version, about = "Phoenix Channels on the command line")]
#[command(after_help = PHX)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show how a client recovers when its server is killed
    #[command(after_help = DEMO)]
    Demo,
    /// Run a Phoenix-like server for experiments
    #[command(after_help = SERVE, next_line_help = true)]
    Serve(Serve),
    /// Join topics and print their messages
    #[command(after_help = LISTEN, next_line_help = true)]
    Listen(Box<Listen>),
    /// Push an event and print the response
    #[command(after_help = PUSH, next_line_help = true)]
    Push(Box<Push>),
    /// Push an event without waiting for a response
    #[command(after_help = CAST, next_line_help = true)]
    Cast(Box<Push>),
    /// Run the connections of a file and print CloudEvents
    #[command(after_help = RUN)]
    Run {
        /// The file of connections, such as connections.json
        file: PathBuf,
        /// Print events whose bus topic matches; may
        /// be repeated [default: PREFIX.protocol.**]
        #[arg(long = "subscribe", value_name = "PATTERN", verbatim_doc_comment)]
        patterns: Vec<String>,
        /// The prefix of every bus topic, such as the
        /// name of your system
        #[arg(long, default_value = "jido", value_parser = prefix, verbatim_doc_comment)]
        prefix: String,
        /// Use the three fixed event types instead of
        /// one type for each kind of event
        #[arg(long, verbatim_doc_comment)]
        fixed: bool,
        /// Time limit of the shutdown, output
        /// included, such as 5s
        #[arg(long, value_name = "TIME", default_value = "5s", verbatim_doc_comment)]
        #[arg(value_parser = duration::parse)]
        grace: Duration,
        /// Serve the metrics of every connection as
        /// OpenMetrics, at http://IP:PORT/metrics
        #[arg(long, value_name = "IP:PORT", verbatim_doc_comment)]
        metrics: Option<SocketAddr>,
        /// Print the metrics as an event at this interval
        #[arg(long, value_name = "SECONDS")]
        #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
        metrics_every: Option<u64>,
    },
    /// Check a file of connections and list what it contains
    #[command(after_help = CHECK)]
    Check {
        /// The file of connections, such as connections.json
        #[arg(required_unless_present = "schema")]
        file: Option<PathBuf>,
        /// Print the JSON Schema of such a file instead
        #[arg(long, conflicts_with = "file")]
        schema: bool,
    },
    /// Replay a recording and print its trace
    #[command(after_help = REPLAY)]
    Replay {
        /// A file that `--record` wrote
        file: PathBuf,
    },
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page of `phx` or of a command
    #[command(after_help = MAN)]
    Man {
        /// A command, such as run
        command: Option<String>,
    },
}

/// Parses the prefix of bus topics: one or more names, separated by dots.
fn prefix(text: &str) -> Result<String, String> {
    let is_name = |segment: &str| {
        let is_bad = |letter: char| letter == '*' || letter.is_whitespace() || letter.is_control();
        !segment.is_empty() && !segment.contains(is_bad)
    };
    if text.split('.').all(is_name) {
        Ok(text.to_owned())
    } else {
        Err("expected names separated by dots, such as acme or acme.prod".to_owned())
    }
}
