//! Reports retries of a connection and their causes on standard error.

use core::time::Duration;
use std::collections::BTreeSet;
use std::time::Instant;

use phx_tokio::client::ClientEvent;
use phx_tokio::event::NextStep;
use phx_tokio::topic::Topic;
use phx_tokio::{Client, Signal};
use tokio::task::JoinHandle;

use crate::exit::refusal;
use crate::limit::{Limit, kind_of_problem};
use crate::log::log;
use crate::output::time_of_day;

/// The period for reports of bad frames of one kind.
const BAD_FRAMES_EVERY: Duration = Duration::from_secs(10);

/// Reports until it is dropped.
#[derive(Debug)]
pub(crate) struct Progress(Option<JoinHandle<()>>);

impl Progress {
    /// Starts reporting, unless `quiet` is set.
    pub(crate) fn start(client: &Client, url: &str, quiet: bool) -> Self {
        if quiet {
            return Self(None);
        }
        let (mut signals, url) = (client.signals(), url.to_owned());
        Self(Some(tokio::spawn(async move {
            let mut report =
                Report { url, joined: BTreeSet::new(), bad: Limit::new(BAD_FRAMES_EVERY) };
            loop {
                let due = report.bad.next();
                let wait = async {
                    match due {
                        Some(due) => tokio::time::sleep_until(due.into()).await,
                        None => core::future::pending().await,
                    }
                };
                tokio::select! {
                    event = signals.next() => match event {
                        Some(ClientEvent::Signal(signal)) => {
                            if let Some(line) = report.line(signal) {
                                log(&line);
                            }
                        }
                        Some(_) => {}
                        None => break,
                    },
                    () = wait => report.due(),
                }
            }
        })))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

struct Report {
    url: String,
    /// The joined topics. A crash of such a channel is printed as an event of the channel, so it is
    /// not reported here.
    joined: BTreeSet<Topic>,
    bad: Limit<String>,
}

impl Report {
    /// The line for a signal; `None` for a signal that users of the command do not need.
    fn line(&mut self, signal: Signal) -> Option<String> {
        let url = &self.url;
        match signal {
            Signal::Connecting { attempt: 0, .. } => None,
            Signal::Connecting { attempt, .. } => {
                Some(format!("{url}: connecting (retry {attempt})"))
            }
            Signal::Connected { .. } => Some(format!("{url}: reconnected")),
            Signal::ConnectFailed { cause, next: NextStep::Retry { delay, .. }, .. }
            | Signal::Disconnected { cause, next: NextStep::Retry { delay, .. }, .. } => {
                Some(format!("{url}: {cause}; next attempt at {}", time_of_day(delay)))
            }
            // No line: the command fails and prints the cause.
            Signal::ConnectFailed { .. }
            | Signal::Disconnected { .. }
            | Signal::GaveUp { .. }
            | Signal::Closed => None,
            Signal::Joined { topic, .. } | Signal::Resumed { topic, .. } => {
                self.joined.insert(topic);
                None
            }
            Signal::Interrupted { topic, .. } | Signal::ChannelClosed { topic, .. } => {
                self.joined.remove(&topic);
                None
            }
            Signal::JoinRejected { topic, rejection, last: false } => {
                Some(format!("{topic}: {}; retrying", refusal(&rejection)))
            }
            Signal::JoinTimedOut { topic } => {
                Some(format!("{topic}: the server has not answered the join yet"))
            }
            Signal::Errored { topic, .. } if !self.joined.contains(&topic) => {
                Some(format!("{topic}: the channel crashed on the server; rejoining"))
            }
            Signal::ProtocolError { error } => {
                let problem = error.problem.to_string();
                let kind = kind_of_problem(&problem).to_owned();
                let problem = self.bad.report(Instant::now(), &kind, problem)?;
                Some(format!("{url}: a frame was skipped: {problem}"))
            }
            Signal::Errored { .. }
            | Signal::JoinRejected { .. }
            | Signal::Left { .. }
            | Signal::Message { .. }
            | Signal::Unrouted { .. }
            | Signal::PushEnded { .. }
            | Signal::HeartbeatAcked { .. }
            | Signal::Warning(_) => None,
            // A signal that this command does not know is printed as the library describes it.
            other => Some(format!("{url}: {other}")),
        }
    }

    fn due(&mut self) {
        while let Some((count, problem)) = self.bad.due(Instant::now()) {
            log(&format!("{}: {count} more frames were skipped: {problem}", self.url));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every signal has a line, except those that are left out on purpose.
    #[test]
    fn every_other_signal_is_reported() {
        const LEFT_OUT: [&str; 13] = [
            "gave_up",
            "closed",
            "joined",
            "resumed",
            "join_rejected",
            "interrupted",
            "left",
            "channel_closed",
            "message",
            "unrouted",
            "push_ended",
            "heartbeat_acked",
            "warning",
        ];
        for signal in Signal::examples() {
            let bad = Limit::new(BAD_FRAMES_EVERY);
            let mut report = Report { url: "ws://a".to_owned(), joined: BTreeSet::new(), bad };
            let name = signal.name();
            let line = report.line(signal);
            assert_eq!(line.is_none(), LEFT_OUT.contains(&name), "{name}: {line:?}");
            assert!(!line.is_some_and(|line| line.contains("s3cret")), "{name}");
        }
    }
}
