//! The command line. Lines of its help are broken by hand: they fit a terminal of 80 columns, and
//! no crate is needed to measure it. A test runs the examples.

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
Try it, with `phx serve` in another terminal:
  phx listen ws://127.0.0.1:4000/socket/websocket --join room:lobby
  phx push ws://127.0.0.1:4000/socket/websocket room:lobby shout '{\"body\":\"hi\"}'

On a terminal there are lines, in colour unless NO_COLOR is set; in a pipe there
is JSON.

Exit codes:
  0  it worked, or ended in order when it was told to
  1  this machine failed: a port in use, an output that is not read or whose
     reader is gone (`phx run`); a step of the demo failed; a replay went
     another way than its recording; it was told to end at once
  2  bad usage: an unknown option, a URL, payload or file that cannot be used
  3  the server could not be reached, or the connection was lost for good
  4  the server refused the upgrade with an HTTP status
  5  the server rejected a join, or did not answer it
  6  a push was answered with an error, or not in time
  7  fewer messages than --count came within the time of --for";

const DEMO: &str = "\
Everything happens on loopback sockets of a free port, within some seconds.

Examples:
  phx demo

Exit codes: 0 it worked, 1 a step failed.";

const SERVE: &str = "\
Topics that start with room: can be joined by anyone. An event `echo` is
answered with its payload, and `shout` goes to everyone on the topic. Type help
while it serves for what can be done to the clients. On a terminal it shows who
connects and joins.

Examples:
  phx serve
  TOKEN=s3cret phx serve --addr 127.0.0.1:0 --token-env TOKEN

Exit codes: 0 it was told to end, 1 this machine failed (a port in use).";

const RUN: &str = "\
Events are printed as lines on a terminal and as one JSON object a line in a
pipe; the log goes to standard error. SIGINT and SIGTERM end it in order within
--grace, whether or not its output is read; another one ends it at once. SIGHUP
reads the file again: only what differs is stopped and started. Standard input,
when it is no terminal, takes orders, one JSON object a line:
  {\"id\": \"1\", \"push\": {\"connection\": \"backend\", \"topic\": \"room:lobby\",
    \"event\": \"shout\", \"payload\": {\"body\": \"hi\"}}}   (on one line)
and cast, join (with params) and leave. What became of an order is an event
with its id: phx.control.done, .failed or .malformed.

Examples:
  phx run connections.json
  phx run connections.json --subscribe 'jido.signal.phoenix.channel.*'
  phx run connections.json --metrics 127.0.0.1:9464 --metrics-every 60

Exit codes: 0 it was told to end, 1 the reader of its output is gone, output was
lost at the end, it was told twice to end, or a port is in use, 2 a file or
pattern that cannot be used, 3 every connection has ended.";

const CHECK: &str = "\
Values of the query of an address are not printed, nor is any other secret. The
schema is for editors: name it in the file as \"$schema\".

Examples:
  phx check connections.json
  phx check --schema

Exit codes: 0 it can be used, 2 it cannot.";

const LISTEN: &str = "\
It goes on through lost connections and crashed channels; attempts and causes
are on standard error. It ends when it is told to, when its reader goes away,
or when the server closes a channel for good. SIGINT and SIGTERM end it within
2 seconds, a second one at once.

Examples, with `phx serve` in another terminal:
  phx listen ws://127.0.0.1:4000/socket/websocket --join room:lobby
  phx listen ws://127.0.0.1:4000/socket/websocket --join room:lobby | head -n 1
  phx listen ws://127.0.0.1:4000/socket/websocket \\
    --join room:lobby --join room:jobs --record bug.jsonl
  TOKEN=s3cret phx listen ws://127.0.0.1:4000/socket/websocket \\
    --token-env TOKEN --join room:lobby

To wait for one event and print its payload:
  --event done --count 1 --for 10s --raw

Exit codes: 0 it was told to end, or has what was asked for, 1 output was lost,
2 bad usage, 3 unreachable or closed by the server, 4 the upgrade was refused,
5 a join was rejected, 7 fewer messages than --count came in time.";

const PUSH: &str = "\
Examples, with `phx serve` in another terminal:
  phx push ws://127.0.0.1:4000/socket/websocket room:lobby echo '{\"body\":\"hi\"}'
  phx push ws://127.0.0.1:4000/socket/websocket room:lobby echo - < event.json
  phx push ws://127.0.0.1:4000/socket/websocket room:lobby echo \\
    --repeat 3 --interval 10ms

Exit codes: 0 it was answered with ok, 2 bad usage, 3 unreachable, 4 the upgrade
was refused, 5 the join was rejected, 6 answered with an error or not in time.";

const CAST: &str = "\
It ends when the server has confirmed that the channel was left, and so has
received the event.

Examples, with `phx serve` in another terminal:
  phx cast ws://127.0.0.1:4000/socket/websocket room:lobby shout '{\"body\":\"hi\"}'

Exit codes: 0 it was sent, 2 bad usage, 3 unreachable, 4 the upgrade was
refused, 5 the join was rejected, 6 it was not sent in time.";

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
    #[command(after_help = SERVE, next_line_help = true)]
    Serve(Serve),
    /// Join topics and print what happens on them
    #[command(after_help = LISTEN, next_line_help = true)]
    Listen(Box<Listen>),
    /// Push one event and print the response
    #[command(after_help = PUSH, next_line_help = true)]
    Push(Box<Push>),
    /// Push one event and wait for no response
    #[command(after_help = CAST, next_line_help = true)]
    Cast(Box<Push>),
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
        /// How long the end may take, output
        /// included, such as 5s
        #[arg(long, value_name = "TIME", default_value = "5s", verbatim_doc_comment)]
        #[arg(value_parser = duration::parse)]
        grace: Duration,
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
