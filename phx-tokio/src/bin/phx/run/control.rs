//! The control of `phx run`: it reads orders from standard input and reports their results as
//! events.
//!
//! ```text
//!   standard input ─▶ lines (a thread: reading blocks) ─▶ Order ─▶ begun, in order of the lines
//!                                                           │            │ ends when it ends
//!                                                malformed ─┴────────────┴─▶ reports
//! ```
//!
//! Orders are started one after another, so pushes on a channel keep their order, and then run
//! concurrently. While [`OUTSTANDING_MAX`] are running, no further line is read.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;

use phx_tokio::client::{JoinFailed, PushFailed};
use phx_tokio::event::{LeaveOutcome, PushError, PushErrorKind, PushOptions};
use phx_tokio::service::{EventData, Supervisor};
use phx_tokio::socket::ChannelStatus;
use phx_tokio::{Channel, Payload};
use tokio::task::JoinSet;

use super::order::{Command, Malformed, Order};
use super::reports::Reports;
use crate::input::{LINE_MAX, Line, lines};
use crate::log::log;

/// The maximum number of orders that run at a time.
const OUTSTANDING_MAX: usize = 256;

/// The channels that orders joined, by connection and topic. They are kept because dropping the
/// handle of a channel leaves it.
type Joined = Arc<Mutex<BTreeMap<(String, String), Channel>>>;

/// Carries out the orders on standard input.
pub(super) struct Control {
    supervisor: Supervisor,
    reports: Reports,
    joined: Joined,
    outstanding: JoinSet<()>,
}

impl Control {
    pub(super) fn new(supervisor: Supervisor, reports: Reports) -> Self {
        Self { supervisor, reports, joined: Joined::default(), outstanding: JoinSet::new() }
    }

    /// Carries out orders; waits forever after the end of standard input.
    ///
    /// Dropping the future loses no order that was started.
    pub(super) async fn obey(&mut self) {
        // A terminal is not read, because the system would stop a process in its background that
        // reads from it.
        if io::stdin().is_terminal() {
            return core::future::pending().await;
        }
        let mut lines = lines();
        loop {
            let room = self.outstanding.len() < OUTSTANDING_MAX;
            tokio::select! {
                Some(_) = self.outstanding.join_next(), if !self.outstanding.is_empty() => {}
                line = lines.recv(), if room => match line {
                    Some(Ok(line)) => self.begin(line).await,
                    Some(Err(error)) => log(&format!("standard input: {error}")),
                    None => break,
                },
            }
        }
        log("standard input has ended: no further orders can arrive");
        core::future::pending().await
    }

    /// Waits until every order that was started has its result.
    pub(super) async fn finish(&mut self) {
        while self.outstanding.join_next().await.is_some() {}
    }

    async fn begin(&mut self, line: Line) {
        let (supervisor, reports) = (self.supervisor.clone(), self.reports.clone());
        let joined = Arc::clone(&self.joined);
        let mut work = Box::pin(async move {
            let number = line.number;
            let order = match line.text.as_deref().map(Order::parse) {
                Some(Ok(order)) => order,
                Some(Err(bad)) => return malformed(&reports, number, bad).await,
                None => {
                    let message = format!("the line has more than {LINE_MAX} bytes");
                    return malformed(&reports, number, Malformed { id: None, message }).await;
                }
            };
            drop(line);
            carry_out(order, number, &supervisor, &joined, &reports).await;
        });
        // The order is polled once before the next line is read, so that orders start in their
        // sequence.
        let ended = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_ready())).await;
        if !ended {
            self.outstanding.spawn(work as Pin<Box<dyn Future<Output = ()> + Send>>);
        }
    }
}

async fn malformed(reports: &Reports, line: u64, bad: Malformed) {
    let mut data = EventData::new();
    if let Some(id) = bad.id {
        data.insert("id", id);
    }
    data.insert("line", line);
    data.insert("message", bad.message);
    reports.answer("phx.control.malformed", None, data).await;
}

/// Why an order failed: a word for programs, a sentence for users, and the server's response.
struct Why {
    reason: &'static str,
    message: String,
    response: Option<Payload>,
}

impl Why {
    fn new(reason: &'static str, error: &impl ToString) -> Self {
        Self { reason, message: error.to_string(), response: None }
    }
}

async fn carry_out(
    order: Order,
    line: u64,
    supervisor: &Supervisor,
    joined: &Joined,
    reports: &Reports,
) {
    let Order { id, command, connection, topic } = order;
    let mut data = EventData::new();
    data.insert("id", id);
    data.insert("line", line);
    data.insert("command", command.name());
    data.insert("connection_name", &*connection);
    data.insert("topic", &*topic);
    if let Command::Push { event, .. } | Command::Cast { event, .. } = &command {
        data.insert("event", &**event);
    }
    let done = outcome(command, &connection, &topic, supervisor, joined, &mut data).await;
    let kind = match done {
        Ok(()) => "phx.control.done",
        Err(why) => {
            data.insert("reason", why.reason);
            data.insert("message", why.message);
            if let Some(response) = &why.response {
                data.insert_payload("response", response);
            }
            "phx.control.failed"
        }
    };
    reports.answer(kind, Some(topic), data).await;
}

/// Carries out a command, and adds its result to the data.
async fn outcome(
    command: Command,
    connection: &str,
    topic: &str,
    supervisor: &Supervisor,
    joined: &Joined,
    data: &mut EventData,
) -> Result<(), Why> {
    let client = supervisor.client(connection);
    let client = client.map_err(|error| Why::new("unknown_connection", &error))?;
    match command {
        Command::Push { event, payload, timeout } => {
            let options = PushOptions::call();
            let options = timeout.map_or(options, |timeout| options.timeout(timeout));
            let reply = client.push_with(topic, &event, payload, options).await;
            let reply = reply.map_err(not_pushed)?;
            data.insert("status", &*reply.status);
            data.insert_payload("response", &reply.response);
        }
        Command::Cast { event, payload, timeout } => {
            let options = PushOptions::cast();
            let options = timeout.map_or(options, |timeout| options.timeout(timeout));
            client.cast_with(topic, &event, payload, options).await.map_err(not_pushed)?;
        }
        Command::Join { params } => {
            let channel = client.join(topic, params).await.map_err(|error| not_joined(&error))?;
            if let Some(response) = channel.join_response() {
                data.insert_payload("response", &response);
            }
            let mut joined = joined.lock().unwrap_or_else(PoisonError::into_inner);
            // Removes channels of connections that have ended, and of topics that were left.
            joined.retain(|_, channel| channel.status() != ChannelStatus::Closed);
            joined.insert((connection.to_owned(), topic.to_owned()), channel);
        }
        Command::Leave => {
            let left = client.leave_topic(topic).await;
            let left = left.map_err(|error| Why::new("not_joined", &error))?;
            let outcome = match left {
                LeaveOutcome::Acked => "acked",
                LeaveOutcome::TimedOut => "timed_out",
                LeaveOutcome::Offline => "offline",
                _ => "local",
            };
            data.insert("outcome", outcome);
        }
    }
    Ok(())
}

fn not_joined(error: &JoinFailed) -> Why {
    match error {
        JoinFailed::NotAccepted(error) => Why::new("not_accepted", error),
        JoinFailed::Rejected(rejection) => {
            Why { response: Some(rejection.response.clone()), ..Why::new("rejected", error) }
        }
        JoinFailed::Deadline { .. } => Why::new("timed_out", error),
        _ => Why::new("ended", error),
    }
}

/// Describes why a push failed. The word is the one that the event types use, so that a caller can
/// decide whether to retry.
fn not_pushed(error: PushFailed) -> Why {
    let reason = match &error {
        PushFailed::NotAccepted(PushError {
            kind: PushErrorKind::NotWanted | PushErrorKind::NotJoined,
            ..
        }) => "not_joined",
        PushFailed::NotAccepted(_) => "not_accepted",
        PushFailed::TimedOut => "timed_out",
        PushFailed::Unknown(_) => "unknown",
        PushFailed::NotSent(_) => "not_sent",
        _ => "cancelled",
    };
    Why::new(reason, &error)
}
