//! Attempts and causes of a connection, on standard error as they happen.

use core::time::Duration;
use std::collections::BTreeSet;
use std::time::Instant;

use phx_tokio::{Client, ClientEvent, NextStep, Signal, Topic};
use tokio::task::JoinHandle;

use crate::exit::refusal;
use crate::limit::{Limit, kind_of_problem};
use crate::log::log;
use crate::output::time_of_day;

/// How often bad frames of one kind are reported.
const BAD_FRAMES_EVERY: Duration = Duration::from_secs(10);

/// Reports until it is dropped.
#[derive(Debug)]
pub(crate) struct Progress(Option<JoinHandle<()>>);

impl Progress {
    /// Starts reporting, unless it is to be quiet.
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
                        Some(ClientEvent::Signal(signal)) => report.signal(signal),
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
    /// A crash of these is an event of the channel.
    joined: BTreeSet<Topic>,
    bad: Limit<String>,
}

impl Report {
    fn signal(&mut self, signal: Signal) {
        let url = &self.url;
        match signal {
            Signal::Connecting { attempt, .. } if attempt > 0 => {
                log(&format!("{url}: connecting (retry {attempt})"));
            }
            Signal::Connected { .. } => log(&format!("{url}: connected again")),
            Signal::Disconnected { cause, next: NextStep::Retry { delay, .. }, .. } => {
                log(&format!("{url}: {cause}; next attempt at {}", time_of_day(delay)));
            }
            Signal::Joined { topic, .. } | Signal::Resumed { topic, .. } => {
                self.joined.insert(topic);
            }
            Signal::Interrupted { topic, .. } | Signal::ChannelClosed { topic, .. } => {
                self.joined.remove(&topic);
            }
            Signal::JoinRejected { topic, rejection, last: false } => {
                log(&format!("{topic}: {}; trying again", refusal(&rejection)));
            }
            Signal::JoinTimedOut { topic } => {
                log(&format!("{topic}: the join is not answered yet"));
            }
            Signal::Errored { topic, .. } if !self.joined.contains(&topic) => {
                log(&format!("{topic}: the channel crashed on the server; joining again"));
            }
            Signal::ProtocolError { error } => {
                let problem = error.problem.to_string();
                let kind = kind_of_problem(&problem).to_owned();
                if let Some(problem) = self.bad.report(Instant::now(), &kind, problem) {
                    log(&format!("{url}: a frame was skipped: {problem}"));
                }
            }
            _ => {}
        }
    }

    fn due(&mut self) {
        while let Some((count, problem)) = self.bad.due(Instant::now()) {
            log(&format!("{}: {count} more frames were skipped: {problem}", self.url));
        }
    }
}
