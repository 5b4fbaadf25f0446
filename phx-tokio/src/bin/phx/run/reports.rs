//! What `phx run` prints: the events of its connections, and those of its own.
//!
//! ```text
//!   Bus ──subscription──┐
//!                       ├─▶ printer (one task) ─▶ standard output
//!   reload, control, ───┘
//!   metrics: reports
//! ```
//!
//! One task writes, because standard output may be a pipe that nobody empties: what waits for it
//! then is the reports, not the connections.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use phx_tokio::{BusEvent, CloudEvent, EventIds, Runtime, Subscription, TokioRuntime};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

/// Where the events of `phx run` itself come from.
const SOURCE: &str = "/phx/run";

/// Reports that wait for the printer.
const WAITING_MAX: usize = 64;

/// Tells what `phx run` did, as events beside those of the connections. Printed whatever is
/// subscribed to: whoever asked for something waits for the answer.
#[derive(Clone)]
pub(super) struct Reports {
    sender: mpsc::Sender<CloudEvent>,
    ids: Arc<Mutex<EventIds>>,
    runtime: TokioRuntime,
}

impl Reports {
    pub(super) fn new() -> (Self, mpsc::Receiver<CloudEvent>) {
        let runtime = TokioRuntime::new();
        let ids = Arc::new(Mutex::new(EventIds::new(runtime.seed())));
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self { sender, ids, runtime }, receiver)
    }

    /// Hands an event to the printer, and waits while too many wait for it already.
    pub(super) async fn tell(&self, kind: &str, subject: Option<String>, data: Map<String, Value>) {
        let at = self.runtime.wall();
        let id = self.ids.lock().unwrap_or_else(PoisonError::into_inner).next(at);
        let mut event = CloudEvent::new(SOURCE, kind, id, at);
        (event.subject, event.data) = (subject, data);
        // Nobody reads any more, and the run ends for that reason.
        let _ = self.sender.send(event).await;
    }
}

/// Prints both kinds of events as JSON lines, until the bus is closed and no report can come any
/// more, or until nobody reads.
pub(super) async fn print(mut subscription: Subscription, mut reports: mpsc::Receiver<CloudEvent>) {
    let (mut bus_open, mut reports_open) = (true, true);
    while bus_open || reports_open {
        let line = tokio::select! {
            event = subscription.next(), if bus_open => match event {
                Some(BusEvent::Event(routed)) => serde_json::to_string(&routed.event),
                Some(BusEvent::Lagged(missed)) => {
                    log(&format!("{missed} events were not printed: the output is too slow"));
                    continue;
                }
                None => {
                    bus_open = false;
                    continue;
                }
            },
            report = reports.recv(), if reports_open => match report {
                Some(event) => serde_json::to_string(&event),
                None => {
                    reports_open = false;
                    continue;
                }
            },
        };
        let Ok(line) = line else { continue };
        let mut out = io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

/// One line on standard error.
pub(super) fn log(line: &str) {
    // Nobody listens: then nobody misses it.
    let _ = writeln!(io::stderr().lock(), "phx: {line}");
}
