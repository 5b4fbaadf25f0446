//! `phx listen`: joins topics and prints their events until a signal ends it.
//!
//! ```text
//!   Messages of each topic ─▶ follow (a task each) ─▶ Writer ─▶ standard output
//!                                  ▲ stage
//!   signal, --count, --for ────────┘
//! ```
//!
//! While the output is not read, messages wait in the mailbox of their topic. A full mailbox drops
//! the oldest messages, and the event `lagged` contains their number.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use clap::Args;
use phx_tokio::{ChannelEvent, Messages};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::exit::{self, Failed, with_recording};
use crate::output::{Members, Output, json_of};
use crate::signals::{Request, Stop};
use crate::stage::{Stage, reached};
use crate::style::Tone;
use crate::target::{Connected, Target};
use crate::writer::Gone;

/// The timeout for disconnecting and printing after a signal. The whole shutdown may take 2 s; the
/// remaining time is for counting, for the last lines of the log and for the exit of the process.
const END: Duration = Duration::from_millis(1_500);

/// The options of `phx listen`.
#[derive(Debug, Args)]
pub(crate) struct Listen {
    #[command(flatten)]
    target: Target,
    /// A topic to join; may be repeated
    #[arg(short = 'j', long = "join", value_name = "TOPIC", required = true)]
    topics: Vec<String>,
    /// Print only messages with this event; may be repeated
    #[arg(short, long = "event", value_name = "NAME")]
    events: Vec<String>,
    /// End after this many messages
    #[arg(short = 'n', long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time, such as 10s or 5m
    #[arg(long = "for", value_name = "TIME", value_parser = crate::duration::parse)]
    duration: Option<Duration>,
    /// Print only the payloads of messages, one per line
    #[arg(long)]
    raw: bool,
}

/// The state that the listeners share.
struct Printer {
    output: Output,
    events: BTreeSet<String>,
    raw: bool,
    /// With `--count`: messages that are still to be printed.
    left: Option<AtomicU64>,
    /// Signals that the last of these messages was printed.
    enough: Notify,
}

/// Runs until a signal arrives, the reader closes the output, or a channel ends.
pub(crate) async fn run(listen: Listen) -> Result<(), Failed> {
    let mut stop = Stop::new().map_err(|error| Failed::Local(error.to_string()))?;
    let output = Output::start()?;
    let until = listen.duration.map(|duration| Instant::now() + duration);
    let connected = tokio::select! {
        biased;
        _ = stop.request() => return Ok(()),
        gone = output.closed() => return output_gone(gone),
        () = passed(until) => {
            let url = listen.target.url_without_query();
            let late = || Err(Failed::Unreachable(listen.late(url, "connected")));
            return listen.expired(listen.count, late);
        }
        connected = listen.target.connect() => connected?,
    };
    let printer = Arc::new(Printer {
        output: output.clone(),
        events: listen.events.iter().cloned().collect(),
        raw: listen.raw,
        left: listen.count.map(AtomicU64::new),
        enough: Notify::new(),
    });
    let (stage, stages) = watch::channel(Stage::Follow);
    let mut listeners = JoinSet::new();
    // The time may pass before `follow_all` is polled for the first time.
    let joining = Cell::new(listen.topics.first().map(String::as_str));
    let done = tokio::select! {
        biased;
        _ = stop.request() => Ok(()),
        () = printer.enough.notified() => Ok(()),
        gone = output.closed() => output_gone(gone),
        () = passed(until) => listen.expired(printer.missing(), || match joining.get() {
            Some(topic) => Err(Failed::Rejected(listen.late(topic, "joined"))),
            None => Ok(()),
        }),
        done = follow_all(&connected, &listen.topics, &joining, &printer, &stages, &mut listeners) => done,
    };

    // From here on, no further messages are accepted; those that have arrived are printed within
    // the timeout.
    let mut lost = 0;
    let end = async {
        let _ = stage.send(Stage::Drain);
        tokio::join!(connected.client.disconnect(), async {
            while let Some(ended) = listeners.join_next().await {
                lost += ended.map_or(0, |(lost, _)| lost);
            }
        });
        let _ = output.writer().flushed().await;
    };
    let mut at_once = false;
    {
        let mut end = core::pin::pin!(end);
        let mut limit = stop.is_asked().then(|| Instant::now() + END);
        loop {
            tokio::select! {
                biased;
                // This future is polled first, so that the channels are disconnected before the
                // count, even if the timeout has expired.
                () = &mut end => break,
                request = stop.request() => {
                    if request == Request::AtOnce {
                        at_once = true;
                        break;
                    }
                    limit = Some(Instant::now() + END);
                }
                () = passed(limit) => break,
            }
        }
    }
    let _ = stage.send(Stage::Count);
    // The count has no timeout, because on a busy machine a timeout could expire early, and some
    // messages would not be counted. The count ends by itself: it does not wait for the output, and
    // no message is added, because the channels have ended.
    while let Some(ended) = listeners.join_next().await {
        lost += ended.map_or(0, |(lost, _)| lost);
    }
    let lost = lost + output.writer().unwritten();
    let written = match output.writer().gone() {
        // The reader closed the output on purpose, so unwritten lines are not an error.
        Some(gone) => output_gone(gone),
        None => Output::lost(lost),
    };
    let in_time = match at_once {
        true => Err(Failed::Local("a second signal forced the exit".to_owned())),
        false => done,
    };
    with_recording(written.and(in_time), connected.recorded())
}

impl Listen {
    /// The result when the time of `--for` has passed and `missing` messages have not been printed. Without
    /// `--count`, `otherwise` decides.
    fn expired(
        &self,
        missing: Option<u64>,
        otherwise: impl FnOnce() -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        match (missing, self.count) {
            (Some(missing), Some(count)) if missing > 0 => Err(Failed::TooFew(format!(
                "{} of {count} messages arrived in {}",
                count - missing,
                self.shown_duration()
            ))),
            (Some(_), _) => Ok(()),
            (None, _) => otherwise(),
        }
    }

    /// Describes what was not done within the time of `--for`.
    fn late(&self, what: &str, done: &str) -> String {
        format!("{what}: not {done} within {}", self.shown_duration())
    }

    fn shown_duration(&self) -> String {
        crate::duration::shown(self.duration.unwrap_or_default())
    }
}

/// The result when the output can no longer be written.
fn output_gone(gone: Gone) -> Result<(), Failed> {
    match gone {
        // The reader closed the pipe, for example in `phx listen … | head`.
        Gone::Reader => Ok(()),
        Gone::Failed(why) => Err(Failed::Local(format!("standard output: {why}"))),
    }
}

async fn passed(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => core::future::pending().await,
    }
}

/// Joins the topics and prints the events of each. The first channel that fails ends the command.
///
/// `joining` is the topic whose join is next or in progress; `None` after the last.
async fn follow_all<'a>(
    connected: &Connected,
    topics: &'a [String],
    joining: &Cell<Option<&'a str>>,
    printer: &Arc<Printer>,
    stages: &watch::Receiver<Stage>,
    listeners: &mut JoinSet<(u64, Result<(), Failed>)>,
) -> Result<(), Failed> {
    for (index, topic) in topics.iter().enumerate() {
        // A topic that is given twice would print each message twice.
        if topics[..index].contains(topic) {
            continue;
        }
        joining.set(Some(topic));
        let joined = connected.join(topic);
        let mut joined = core::pin::pin!(joined);
        let channel = loop {
            tokio::select! {
                biased;
                Some(ended) = listeners.join_next() => result_of(ended)?,
                channel = &mut joined => break channel?,
            }
        };
        let messages = channel.messages();
        let (printer, topic, stages) = (Arc::clone(printer), topic.clone(), stages.clone());
        listeners.spawn(async move {
            let line = printer.note("joined", &topic, (Tone::Good, "joined", ""), &Members::new());
            let printed = match line {
                Some(line) => printer.print(line, 1, &mut stages.clone()).await,
                None => Printed::Yes,
            };
            let ended = match printed {
                Printed::Yes => printer.follow(&topic, messages, stages).await,
                no => (u64::from(no == Printed::No), Ok(())),
            };
            drop(channel);
            ended
        });
    }
    joining.set(None);
    while let Some(ended) = listeners.join_next().await {
        result_of(ended)?;
    }
    Ok(())
}

/// The result of a channel whose listener has ended.
fn result_of(ended: Result<(u64, Result<(), Failed>), JoinError>) -> Result<(), Failed> {
    let (_, ended) = ended.map_err(|error| Failed::Local(error.to_string()))?;
    ended
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Printed {
    Yes,
    /// The timeout expired before the output accepted the line.
    No,
    /// The output has failed; the writer counts what it did not write.
    Gone,
}

impl Printer {
    /// Prints the events of one channel until the channel ends, or the shutdown reaches a stage that
    /// ends the printing. Returns the number of events that could not be printed, and the result of
    /// the channel.
    async fn follow(
        &self,
        topic: &str,
        mut messages: Messages,
        mut stages: watch::Receiver<Stage>,
    ) -> (u64, Result<(), Failed>) {
        loop {
            let event = tokio::select! {
                biased;
                event = messages.next() => event,
                () = reached(&mut stages, Stage::Drain) => None,
            };
            let Some(event) = event else { return (0, Ok(())) };
            let is_message = matches!(event, ChannelEvent::Message(_));
            if is_message && !self.wants(&event) {
                continue;
            }
            let closed = match &event {
                ChannelEvent::Closed(_) if *stages.borrow() > Stage::Follow => return (0, Ok(())),
                ChannelEvent::Closed(end) => Some(exit::ended(topic, end)),
                _ => None,
            };
            let stands_for = if let ChannelEvent::Lagged(count) = event { count } else { 1 };
            if let Some(line) = self.line(topic, event) {
                match self.print(line, stands_for, &mut stages).await {
                    Printed::Yes => {}
                    Printed::Gone => return (0, Ok(())),
                    Printed::No => {
                        let mut lost = stands_for;
                        while let Some(event) = available(&mut messages).await {
                            lost += match event {
                                ChannelEvent::Lagged(count) => count,
                                ChannelEvent::Message(_) if self.wants(&event) => 1,
                                _ => 0,
                            };
                        }
                        return (lost, Ok(()));
                    }
                }
            }
            if is_message && self.left.as_ref().is_some_and(|left| left.load(Ordering::SeqCst) == 0)
            {
                self.enough.notify_one();
            }
            if let Some(closed) = closed {
                return (0, Err(closed));
            }
        }
    }

    async fn print(
        &self,
        line: String,
        stands_for: u64,
        stages: &mut watch::Receiver<Stage>,
    ) -> Printed {
        tokio::select! {
            biased;
            sent = self.output.writer().send_for(line, stands_for) => match sent {
                Ok(()) => Printed::Yes,
                Err(_) => Printed::Gone,
            },
            () = reached(stages, Stage::Count) => Printed::No,
        }
    }

    /// Whether an event is to be printed.
    fn wants(&self, event: &ChannelEvent) -> bool {
        let ChannelEvent::Message(message) = event else { return true };
        self.events.is_empty() || self.events.contains(message.event())
    }

    /// With `--count`: how many messages have not been printed.
    fn missing(&self) -> Option<u64> {
        self.left.as_ref().map(|left| left.load(Ordering::SeqCst))
    }

    /// The line of an event other than a message.
    fn note(
        &self,
        kind: &str,
        topic: &str,
        words: (Tone, &str, &str),
        members: &Members,
    ) -> Option<String> {
        (!self.raw).then(|| self.output.event(kind, topic, words, members))
    }

    /// The line of an event; `None` for one that is not printed.
    fn line(&self, topic: &str, event: ChannelEvent) -> Option<String> {
        match event {
            ChannelEvent::Message(message) => {
                if let Some(left) = &self.left {
                    // Each message decrements the count; messages after the last are not printed.
                    let one_less = |left: u64| left.checked_sub(1);
                    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).ok()?;
                }
                let (event, payload) = (message.event(), json_of(message.payload()));
                if self.raw {
                    return Some(self.output.payload(&payload));
                }
                let members = Members::new().text("event", event).json("payload", &payload);
                self.note("message", topic, (Tone::Plain, event, &payload), &members)
            }
            ChannelEvent::Interrupted { cause, .. } => {
                let cause = cause.to_string();
                let members = Members::new().text("cause", &cause);
                self.note("interrupted", topic, (Tone::Gap, "interrupted:", &cause), &members)
            }
            ChannelEvent::Resumed { response } => {
                let response = json_of(&response);
                let members = Members::new().json("response", &response);
                self.note("resumed", topic, (Tone::Good, "joined again", &response), &members)
            }
            ChannelEvent::Lagged(missed) => {
                let words = format!("{missed} messages were dropped");
                let members = Members::new().json("missed", &missed.to_string());
                self.note("lagged", topic, (Tone::Gap, "too slow:", &words), &members)
            }
            ChannelEvent::Closed(end) => {
                let cause = exit::ended(topic, &end).to_string();
                let members = Members::new().text("cause", &cause);
                // The words for a terminal omit the cause, because the line on standard error has it.
                self.note("closed", topic, (Tone::Bad, "closed", ""), &members)
            }
            other => {
                let words = format!("{other:?}");
                self.note("other", topic, (Tone::Plain, "event:", &words), &Members::new())
            }
        }
    }
}

/// The next event if it is available at once.
async fn available(messages: &mut Messages) -> Option<ChannelEvent> {
    tokio::select! {
        biased;
        event = messages.next() => event,
        () = core::future::ready(()) => None,
    }
}
