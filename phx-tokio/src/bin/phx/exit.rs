//! The errors of `phx`: a line on standard error, and an exit code that a script can check.

use core::fmt;
use core::time::Duration;
use std::process::ExitCode;

use phx_tokio::Payload;
use phx_tokio::client::{JoinFailed, JoinObstacle, StreamEnd};
use phx_tokio::event::{Cause, ChannelEnd, Refusal, Rejection, TlsKind};

use crate::output::json_of;
use crate::{duration, log};

/// The error of a command. `Display` prints one line, or for a file one line per problem.
#[derive(Debug)]
pub(crate) enum Failed {
    /// A local failure, a failed step of the demo, or a replay that diverges.
    Local(String),
    /// Bad usage of the command line.
    Usage(String),
    /// A file with problems: one line per problem.
    File(Vec<String>),
    /// The connection could not be opened, or it was lost and is not retried.
    Unreachable(String),
    /// The server refused the upgrade with an HTTP status.
    Refused(String),
    /// A join was rejected, or not answered in time.
    Rejected(String),
    /// A push failed.
    Push(String),
    /// Fewer messages than `--count` arrived in time.
    TooFew(String),
}

impl Failed {
    /// The error for a connection that could not be made, or has ended.
    pub(crate) fn connection(url: &str, cause: &Cause) -> Self {
        // The URL is shown without its query, which may contain a token.
        let url = url.split(['?', '#']).next().unwrap_or(url);
        let text = format!("{url}: {}", in_terms_of_options(cause));
        match cause {
            Cause::Refused(refusal) => Self::Refused(format!("{text}{}", retry_after(refusal))),
            _ => Self::Unreachable(text),
        }
    }

    /// The error for a join that failed; `within` was its timeout.
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

    /// Prints the error to standard error and returns its exit code.
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
        // Line breaks are replaced by spaces: text of a server may contain them, and a script
        // expects one line.
        f.write_str(&line.replace(['\n', '\r'], " "))
    }
}

/// The result of a command that writes a recording. If both failed, the failure of the recording is
/// printed here, and the failure of the command decides the exit code.
pub(crate) fn with_recording<T>(
    done: Result<T, Failed>,
    recorded: Result<(), Failed>,
) -> Result<T, Failed> {
    match (done, recorded) {
        (Ok(value), recorded) => recorded.map(|()| value),
        (Err(failed), recorded) => {
            if let Err(incomplete) = recorded {
                log::failure(&incomplete.to_string());
            }
            Err(failed)
        }
    }
}

/// The error for a channel whose stream of events has ended.
pub(crate) fn ended(topic: &str, end: &StreamEnd) -> Failed {
    match end {
        StreamEnd::Channel(end) => channel_ended(topic, end),
        _ => Failed::Local(format!("{topic}: the consumer is too slow for the server")),
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

/// Describes a cause like the library, but names command-line options instead of functions.
fn in_terms_of_options(cause: &Cause) -> String {
    let Cause::Tls { kind, message } = cause else { return cause.to_string() };
    let advice = match kind {
        TlsKind::UnknownIssuer => "; if you trust the server, pass its authority with --ca FILE",
        TlsKind::CertificateRequired => "; pass one with --cert FILE and --key FILE",
        _ => "",
    };
    format!("TLS failed: {message}{advice}")
}

fn rejected(topic: &str, rejection: &Rejection) -> Failed {
    Failed::Rejected(format!("{topic}: {}", refusal(rejection)))
}

/// The message for a refused join.
pub(crate) fn refusal(rejection: &Rejection) -> String {
    format!("the server refused the join: {rejection}")
}

/// A server's reason as JSON on one line, truncated if it is long.
pub(crate) fn reason(response: &Payload) -> String {
    const LETTERS_MAX: usize = 300;
    let text = json_of(response);
    match text.char_indices().nth(LETTERS_MAX) {
        Some((cut, _)) => format!("{}… ({} bytes)", &text[..cut], text.len()),
        None => text.into_owned(),
    }
}

/// The delay that the server asks for before a retry, if any.
fn retry_after(refusal: &Refusal) -> String {
    match refusal.retry_after() {
        Some(after) => format!("; the server asks to retry after {} s", after.as_secs()),
        None => String::new(),
    }
}
