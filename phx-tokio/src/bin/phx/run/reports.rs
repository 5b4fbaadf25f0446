//! The events that `phx run` prints: those of its connections, and its own.
//!
//! ```text
//!   Bus ──subscription──┐
//!                       ├─▶ printer (one task) ─▶ Writer ─▶ standard output
//!   reload, control, ───┘
//!   metrics: reports
//! ```
//!
//! If the output is not read, only the printer and the results of orders wait. The subscription and the
//! queue of reports are bounded: when they are full, other events are dropped and counted, and an event
//! with the count follows as soon as there is space.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use phx_tokio::client::{Clock as _, Runtime as _};
use phx_tokio::service::{BusEvent, CloudEvent, EventData, EventIds, EventValue, Subscription};
use phx_tokio::{TokioClock, TokioRuntime};
use tokio::sync::{mpsc, watch};

use super::lines::line;
use crate::limit::{Limit, kind_of_problem};
use crate::log::log;
use crate::output::Output;
use crate::stage::{Stage, reached};

/// The source of the events of `phx run` itself.
const SOURCE: &str = "/phx/run";

/// The type of the event with the number of dropped events.
const DROPPED: &str = "phx.output.dropped";

/// The maximum number of reports that wait for the printer.
const WAITING_MAX: usize = 64;

/// The period for events about bad frames of one connection and kind.
const BAD_FRAMES_EVERY: Duration = Duration::from_secs(10);

/// Reports the actions of `phx run` as events, in addition to the events of the connections. These
/// reports are printed with every subscription, because the sender of an order waits for its
/// result.
#[derive(Clone)]
pub(super) struct Reports {
    sender: mpsc::Sender<CloudEvent>,
    stamps: Stamps,
    lost: Arc<AtomicU64>,
}

/// Creates events with unique ids.
#[derive(Clone)]
struct Stamps {
    ids: Arc<Mutex<EventIds>>,
    clock: TokioClock,
}

/// Prints both kinds of events.
pub(super) struct Printer {
    subscription: Subscription,
    reports: mpsc::Receiver<CloudEvent>,
    stamps: Stamps,
    /// The number of reports that were dropped because the queue was full.
    lost: Arc<AtomicU64>,
    output: Output,
    bad_frames: Limit<CloudEvent>,
}

impl Stamps {
    fn event(&self, kind: &str, data: EventData) -> CloudEvent {
        let at = self.clock.wall();
        let id = self.ids.lock().unwrap_or_else(PoisonError::into_inner).next(at);
        let mut event = CloudEvent::new(SOURCE, kind, id, at);
        event.data = data;
        event
    }
}

impl Reports {
    /// Creates the reports, and the printer for them and for a subscription.
    pub(super) fn new(subscription: Subscription, output: Output) -> (Self, Printer) {
        let runtime = TokioRuntime::new();
        let ids = Arc::new(Mutex::new(EventIds::new(runtime.seed())));
        let (stamps, lost) = (Stamps { ids, clock: runtime.clock() }, Arc::default());
        let (sender, reports) = mpsc::channel(WAITING_MAX);
        let printer = Printer {
            subscription,
            reports,
            stamps: stamps.clone(),
            lost: Arc::clone(&lost),
            output,
            bad_frames: Limit::new(BAD_FRAMES_EVERY),
        };
        (Self { sender, stamps, lost }, printer)
    }

    /// Passes the result of an order to the printer, and waits while the printer's queue is full.
    /// No further order is read during that time.
    pub(super) async fn answer(&self, kind: &str, subject: Option<String>, data: EventData) {
        let mut event = self.stamps.event(kind, data);
        event.subject = subject;
        // The output is closed, and the run ends for that reason.
        let _ = self.sender.send(event).await;
    }

    /// Passes an event to the printer; drops and counts it if the queue is full.
    pub(super) fn offer(&self, kind: &str, data: EventData) {
        if self.sender.try_send(self.stamps.event(kind, data)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Printer {
    /// Prints until the bus is closed and no reporter is left, or until the output fails. From the
    /// stage `Drain` of the shutdown on, it also ends when nothing is left to print, and from the
    /// stage `Count` on, it ends at once. Returns the number of events that could not be printed.
    pub(super) async fn print(mut self, mut stages: watch::Receiver<Stage>) -> u64 {
        let (mut bus_open, mut reports_open) = (true, true);
        while bus_open || reports_open {
            if *stages.borrow() == Stage::Count {
                return self.rest().await;
            }
            let dropped = self.lost.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                let event = self.dropped(dropped);
                if let Err(left) = self.write(event, &mut stages).await {
                    return left;
                }
            }
            let due = self.bad_frames.next();
            let due = async move {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => core::future::pending().await,
                }
            };
            let event = tokio::select! {
                biased;
                report = self.reports.recv(), if reports_open => {
                    reports_open = report.is_some();
                    report
                }
                event = self.subscription.next(), if bus_open => {
                    bus_open = event.is_some();
                    event.and_then(|event| self.routed(event))
                }
                () = reached(&mut stages, Stage::Drain) => break,
                () = due => self.bad_frames_due(),
            };
            let Some(event) = event else { continue };
            if let Err(left) = self.write(event, &mut stages).await {
                return left;
            }
        }
        while let Some((count, event)) = self.bad_frames.rest() {
            if let Err(left) = self.write(counted(event, count), &mut stages).await {
                return left;
            }
        }
        0
    }

    /// Writes an event, and waits for space in the queue until the shutdown reaches the stage
    /// `Count`. If the event was not written, the error is the number of lost events.
    async fn write(
        &mut self,
        event: CloudEvent,
        stages: &mut watch::Receiver<Stage>,
    ) -> Result<(), u64> {
        let Some(line) = line(&self.output, &event) else { return Ok(()) };
        let stands_for = match count(&event) {
            Some(count) if event.kind == DROPPED => count,
            _ => 1,
        };
        // The event is dropped before the wait, so that a large event is not in memory twice.
        drop(event);
        tokio::select! {
            biased;
            sent = self.output.writer().send_for(line, stands_for) => match sent {
                Ok(()) => return Ok(()),
                // The output is closed, and the run ends for that reason.
                Err(_) => return Err(0),
            },
            () = reached(stages, Stage::Count) => {}
        }
        Err(stands_for + self.rest().await)
    }

    /// The number of remaining events.
    async fn rest(&mut self) -> u64 {
        let mut left = self.lost.swap(0, Ordering::Relaxed);
        while self.reports.try_recv().is_ok() {
            left += 1;
        }
        while self.bad_frames.rest().is_some() {
            left += 1;
        }
        loop {
            let event = tokio::select! {
                biased;
                event = self.subscription.next() => event,
                () = core::future::ready(()) => None,
            };
            left += match event {
                Some(BusEvent::Lagged(count)) => count,
                Some(_) => 1,
                None => return left,
            };
        }
    }

    /// The event to print for an event of the bus; `None` if it is held back.
    fn routed(&mut self, event: BusEvent) -> Option<CloudEvent> {
        let routed = match event {
            BusEvent::Lagged(count) => return Some(self.dropped(count)),
            BusEvent::Event(routed) => routed,
            _ => return None,
        };
        let event = Arc::unwrap_or_clone(routed).event;
        if event.kind != "phoenix.connection.protocol_error" {
            return Some(event);
        }
        let text = |key: &str| event.data.get_str(key).unwrap_or_default();
        let kind = format!("{}\n{}", text("connection_name"), kind_of_problem(&text("reason")));
        self.bad_frames.report(Instant::now(), &kind, event)
    }

    fn bad_frames_due(&mut self) -> Option<CloudEvent> {
        let (count, event) = self.bad_frames.due(Instant::now())?;
        Some(counted(event, count))
    }

    fn dropped(&self, count: u64) -> CloudEvent {
        log(&format!("{count} events were dropped: the output is not read, or read too slowly"));
        let data = [("count", count)].into_iter().collect();
        self.stamps.event(DROPPED, data)
    }
}

/// The event for the last of several bad frames, with the number of them.
fn counted(mut event: CloudEvent, count: u64) -> CloudEvent {
    event.data.insert("count", count);
    event
}

fn count(event: &CloudEvent) -> Option<u64> {
    event.data.get("count").map(EventValue::deserialize)?.ok()
}

#[cfg(test)]
mod tests {
    use phx_tokio::service::Bus;

    use super::*;

    /// The last of several bad frames is held back for a while. If the shutdown counts the remaining events
    /// meanwhile, it is one of them.
    #[tokio::test]
    async fn held_back_event_is_counted() {
        let subscription = Bus::new().subscribe("**").unwrap();
        let (reports, mut printer) = Reports::new(subscription, Output::start().unwrap());
        let mut report = || {
            let event = reports.stamps.event("phoenix.connection.protocol_error", EventData::new());
            printer.bad_frames.report(Instant::now(), "not JSON", event)
        };
        assert!(report().is_some() && report().is_none() && report().is_none());
        assert_eq!(printer.rest().await, 1);
    }
}
