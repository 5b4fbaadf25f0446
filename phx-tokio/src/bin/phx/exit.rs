//! How `phx` ends: one line on standard error, and an exit code that a script can tell apart.

use core::fmt;
use core::time::Duration;
use std::process::ExitCode;

use phx_tokio::Payload;
use phx_tokio::client::{JoinFailed, JoinObstacle, StreamEnd};
use phx_tokio::event::{Cause, ChannelEnd, Refusal, Rejection, TlsKind};

use crate::output::json_of;
use crate::{duration, log};

/// Why a command failed. Its `Display` is one line.
#[derive(Debug)]
pub(crate) enum Failed {
    /// A step of the demo, a replay that went another way, or something of this machine.
    Local(String),
    /// The command line.
    Usage(String),
    /// A file with mistakes in it: one line for each.
    File(Vec<String>),
    /// No connection, or none any more.
    Unreachable(String),
    /// An HTTP status instead of a WebSocket.
    Refused(String),
    /// A join was rejected.
    Rejected(String),
    /// A push went wrong.
    Push(String),
    /// Fewer messages came than were asked for.
    TooFew(String),
}

impl Failed {
    /// What it means for the command that the connection ended, or could not be made.
    pub(crate) fn connection(url: &str, cause: &Cause) -> Self {
        // The query may hold a token.
        let url = url.split(['?', '#']).next().unwrap_or(url);
        let text = format!("{url}: {}", in_terms_of_options(cause));
        match cause {
            Cause::Refused(refusal) => Self::Refused(format!("{text}{}", retry_after(refusal))),
            _ => Self::Unreachable(text),
        }
    }

    /// What it means that a join failed, for which there was this time.
    pub(crate) fn join(topic: &str, error: &JoinFailed, within: Duration) -> Self {
        let late = format!("{topic}: not joined within {}", duration::shown(within));
        match error {
            JoinFailed::Rejected(rejection) => rejected(topic, rejection),
            JoinFailed::Ended(end) => channel_ended(topic, end),
            JoinFailed::Deadline { last: Some(JoinObstacle::Disconnected(cause)) } => {
                Self::Unreachable(format!("{late}: {}", in_terms_of_options(cause)))
            }
            JoinFailed::Deadline { last: Some(JoinObstacle::Rejected(rejection)) } => {
                Self::Rejected(format!("{late}: {}", refusal(rejection)))
            }
            JoinFailed::Deadline { last: Some(JoinObstacle::Crashed(payload)) } => {
                let why = reason(payload);
                Self::Rejected(format!("{late}: the channel crashed on the server: {why}"))
            }
            JoinFailed::Deadline { .. } => {
                Self::Rejected(format!("{late}: the server did not answer"))
            }
            JoinFailed::NotAccepted(error) => Self::Usage(format!("{topic}: {error}")),
            error => Self::Rejected(format!("{topic}: {error}")),
        }
    }

    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Local(_) => 1,
            Self::Usage(_) | Self::File(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Refused(_) => 4,
            Self::Rejected(_) => 5,
            Self::Push(_) => 6,
            Self::TooFew(_) => 7,
        }
    }

    /// Prints it, on standard error, and gives the code.
    pub(crate) fn report(&self) -> ExitCode {
        for line in self.to_string().lines() {
            log::failure(line);
        }
        ExitCode::from(self.code())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::File(lines) = self {
            return f.write_str(&lines.join("\n"));
        }
        let (Self::Local(line)
        | Self::Usage(line)
        | Self::Unreachable(line)
        | Self::Refused(line)
        | Self::Rejected(line)
        | Self::Push(line)
        | Self::TooFew(line)) = self
        else {
            return Ok(());
        };
        // Servers' words may hold line breaks; a script reads one line.
        f.write_str(&line.replace(['\n', '\r'], " "))
    }
}

/// What it means that a channel's events came to an end.
pub(crate) fn ended(topic: &str, end: &StreamEnd) -> Failed {
    match end {
        StreamEnd::Channel(end) => channel_ended(topic, end),
        _ => Failed::Local(format!("{topic}: too slow for what the server sends")),
    }
}

fn channel_ended(topic: &str, end: &ChannelEnd) -> Failed {
    match end {
        ChannelEnd::Rejected(rejection) => rejected(topic, rejection),
        ChannelEnd::GaveUp(Cause::Refused(refusal)) => {
            let retry = retry_after(refusal);
            Failed::Refused(format!("{topic}: the server refused the upgrade: {refusal}{retry}"))
        }
        ChannelEnd::GaveUp(cause) => {
            Failed::Unreachable(format!("{topic}: {}", in_terms_of_options(cause)))
        }
        ChannelEnd::ClosedByServer => {
            Failed::Unreachable(format!("{topic}: the server closed the channel"))
        }
        ChannelEnd::InvalidParams { message } => Failed::Usage(format!("{topic}: {message}")),
        _ => Failed::Unreachable(format!("{topic}: the connection was closed")),
    }
}

/// What went wrong, with the options of this command where the library names its functions.
fn in_terms_of_options(cause: &Cause) -> String {
    let Cause::Tls { kind, message } = cause else { return cause.to_string() };
    let advice = match kind {
        TlsKind::UnknownIssuer => "; if it is the right one, pass its authority with --ca FILE",
        TlsKind::CertificateRequired => "; pass one with --cert FILE and --key FILE",
        _ => "",
    };
    format!("TLS failed: {message}{advice}")
}

fn rejected(topic: &str, rejection: &Rejection) -> Failed {
    Failed::Rejected(format!("{topic}: {}", refusal(rejection)))
}

/// What a server refused a join for.
pub(crate) fn refusal(rejection: &Rejection) -> String {
    format!("the server refused the join: {rejection}")
}

/// A server's reason as JSON on one line, cut where it is long.
pub(crate) fn reason(response: &Payload) -> String {
    const LETTERS_MAX: usize = 300;
    let text = json_of(response);
    match text.char_indices().nth(LETTERS_MAX) {
        Some((cut, _)) => format!("{}… ({} bytes)", &text[..cut], text.len()),
        None => text.into_owned(),
    }
}

/// How long the server asks to be left alone, if it does.
fn retry_after(refusal: &Refusal) -> String {
    match refusal.retry_after() {
        Some(after) => format!("; it asks to retry after {} s", after.as_secs()),
        None => String::new(),
    }
}
