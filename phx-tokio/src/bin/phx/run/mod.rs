//! `phx run`: keeps the named connections of a file until it is stopped.
//!
//! ```text
//!              ┌─▶ Supervisor ─▶ Bus ──▶ reports ─▶ standard output
//!   the file ──┤       ▲ ▲                 ▲
//!   SIGHUP ────┴ reload ┘ ├─ control ──────┤
//!                         └─ metrics ──────┘
//! ```

mod control;
mod lines;
mod metrics;
mod order;
mod reload;
mod reports;

use core::future::pending;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::path::PathBuf;

use phx_tokio::Router;
use phx_tokio::client::Unfinished;
use phx_tokio::service::{
    Bus, BusEvent, Ending, Subscription, SupervisedState, Supervisor, TopicPattern, TypeScheme,
};
use phx_tokio::socket::Lifecycle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::connections::read;
use crate::exit::Failed;
use crate::log::{LAST_LINES, log};
use crate::output::Output;
use crate::signals::{Reloads, Request, Stop};
use crate::stage::Stage;
use crate::writer::{Gone, Writer};
use control::Control;
use reload::Reload;
use reports::Reports;

/// The type of the event for a connection that gave up.
const GAVE_UP: &str = "phoenix.connection.gave_up";
/// The type of that event with `--fixed`.
const FIXED_STATE: &str = "jido_coder.phoenix.connection.state";

/// The timeout for writing the remaining events at the end of the grace period.
const LAST_EVENTS: Duration = Duration::from_millis(100);

/// The options of `phx run`.
pub(crate) struct Run {
    pub(crate) file: PathBuf,
    /// The patterns of `--subscribe`; empty for all events of all connections.
    pub(crate) patterns: Vec<String>,
    /// The prefix of the bus topics.
    pub(crate) prefix: String,
    pub(crate) fixed: bool,
    /// The time limit of the whole shutdown.
    pub(crate) grace: Duration,
    /// The address for metrics.
    pub(crate) metrics: Option<SocketAddr>,
    /// The period of the metrics event.
    pub(crate) metrics_every: Option<Duration>,
}

/// Keeps the connections of a file until it is stopped, and prints their events.
pub(crate) async fn run(run: Run) -> Result<(), Failed> {
    let local = |error: std::io::Error| Failed::Local(error.to_string());
    let connections = read(&run.file)?;
    let scheme = if run.fixed { TypeScheme::Fixed } else { TypeScheme::Templated };
    let router = Router::new().scheme(scheme).prefix(&run.prefix);
    let supervisor = phx_tokio::supervisor(router.clone());
    let patterns = match run.patterns.as_slice() {
        [] => vec![format!("{}.protocol.**", run.prefix)],
        patterns => patterns.to_vec(),
    };
    let subscription = supervisor.bus().subscribe_any(patterns.iter().map(String::as_str));
    let subscription = subscription.map_err(|error| Failed::Usage(error.to_string()))?;
    warn_of_silence(&router, &run.prefix, &patterns);
    let listener = match run.metrics {
        Some(addr) => Some(metrics::bind(addr).await?),
        None => None,
    };
    let state = if run.fixed { FIXED_STATE } else { GAVE_UP };
    let gave_up = supervisor.bus().subscribe(&format!("{}.signal.{state}", run.prefix));
    let gave_up = gave_up.map_err(|error| Failed::Local(error.to_string()))?;
    let output = Output::start()?;
    let (reports, printer) = Reports::new(subscription, output.clone());
    let (stage, stages) = watch::channel(Stage::Follow);
    let mut printer = tokio::spawn(printer.print(stages));
    let mut stop = Stop::new().map_err(local)?;
    let reloads = Reloads::new().map_err(local)?;
    log(&match connections.len() {
        1 => "keeping 1 connection".to_owned(),
        several => format!("keeping {several} connections"),
    });
    let kept = connections.clone();
    supervisor.start_configured(connections).map_err(|error| Failed::Usage(error.to_string()))?;

    let reloading = AtomicBool::new(false);
    let (reloading, reload) = (
        &reloading,
        Reload {
            file: run.file,
            grace: run.grace,
            supervisor: supervisor.clone(),
            reports: reports.clone(),
            kept,
        },
    );
    let mut control = Control::new(supervisor.clone(), reports.clone());
    let serve = async {
        match listener {
            Some(listener) => metrics::serve(listener, supervisor.clone()).await,
            None => pending().await,
        }
    };
    let tell = async {
        match run.metrics_every {
            Some(every) => {
                metrics::print_periodically(every, supervisor.clone(), reports.clone()).await
            }
            None => pending().await,
        }
    };
    let ended: Option<Failed> = tokio::select! {
        biased;
        _ = stop.request() => None,
        // This is a failure, so that a process supervisor restarts the command with an output that
        // is read.
        gone = output.closed() => Some(gone_by(gone)),
        ended = all_ended(&supervisor, reloading) => Some(ended),
        never = reload.at_each(reloads, reloading) => never,
        () = control.obey() => None,
        never = serve => never,
        never = tell => never,
        never = log_gave_up(gave_up) => never,
    };
    // The limit includes the time to write and count the last events and lines of the log.
    let until = Instant::now() + run.grace.saturating_sub(2 * LAST_EVENTS + LAST_LINES);
    if ended.is_none() {
        log("shutting down; another signal exits at once");
    }
    let mut left = None;
    let end = async {
        // Orders get half of the time. The other half is for close frames, which may take 2 s, and
        // for the output.
        let unfinished = supervisor.shutdown(run.grace / 2).await;
        // The connections are closed, so each order has its result.
        control.finish().await;
        for (name, unfinished) in &unfinished {
            log_unfinished(name, unfinished);
        }
        // The bus is closed and no reporter is left, so the printer ends after the queued events.
        drop((control, reports));
        left = Some((&mut printer).await.unwrap_or(0));
        let _ = output.writer().flushed().await;
    };
    let is_over = tokio::select! {
        biased;
        () = at_once(&mut stop) => {
            log("a second signal: exiting at once");
            true
        }
        () = end => false,
        () = sleep_until(until) => {
            log("the grace period has ended");
            true
        }
    };
    let left = match left {
        None if is_over => {
            written_or_counted(printer, &stage, supervisor.bus(), output.writer()).await
        }
        left => left.unwrap_or(0),
    };
    let lost = left + output.writer().unwritten();
    match (ended, output.writer().gone()) {
        (Some(ended), Some(_)) => Err(ended),
        (Some(ended), None) => {
            if let Err(lost) = Output::lost(lost) {
                log(&lost.to_string());
            }
            Err(ended)
        }
        // The reader may have received the same signal, for example by ctrl-c.
        (None, Some(Gone::Reader)) => Ok(()),
        (None, Some(gone)) => Err(gone_by(gone)),
        (None, None) => {
            Output::lost(lost)?;
            if stop.is_asked_twice() {
                return Err(Failed::Local("a second signal forced the exit".into()));
            }
            Ok(())
        }
    }
}

/// Logs each pattern that no event can match.
fn warn_of_silence(router: &Router, prefix: &str, patterns: &[String]) {
    for pattern in patterns {
        let parsed = TopicPattern::parse(pattern);
        if parsed.is_ok_and(|pattern| !router.can_match(&pattern)) {
            log(&format!(
                "warning: no event can match {pattern:?}: bus topics are {prefix}.protocol.phoenix.CONNECTION, \
                 {prefix}.protocol.phoenix.CONNECTION.TOPIC and {prefix}.signal.TYPE"
            ));
        }
    }
}

/// Ends the printer quickly: the remaining events are written if the output accepts them, and
/// counted otherwise. Returns how many could not be printed.
async fn written_or_counted(
    mut printer: JoinHandle<u64>,
    stage: &watch::Sender<Stage>,
    bus: &Bus,
    writer: &Writer,
) -> u64 {
    let _ = stage.send(Stage::Drain);
    if let Ok(printed) = timeout(LAST_EVENTS, &mut printer).await {
        let _ = timeout(LAST_EVENTS, writer.flushed()).await;
        return printed.unwrap_or(0);
    }
    // No further events arrive during the count.
    bus.close();
    let _ = stage.send(Stage::Count);
    // The count has no timeout, because on a busy machine a timeout could expire early, and some
    // events would not be counted. The count does not wait for the output.
    printer.await.unwrap_or(0)
}

/// The error when the output can no longer be written.
fn gone_by(gone: Gone) -> Failed {
    Failed::Local(match gone {
        Gone::Reader => "standard output: the reader has closed it".to_owned(),
        Gone::Failed(why) => format!("standard output: {why}"),
    })
}

/// Waits for a request to exit at once.
async fn at_once(stop: &mut Stop) {
    while stop.request().await != Request::AtOnce {}
}

/// Logs connections that gave up, whatever the subscription is.
async fn log_gave_up(mut events: Subscription) -> ! {
    while let Some(event) = events.next().await {
        let BusEvent::Event(routed) = event else { continue };
        let text = |key: &str| routed.event.data.get_str(key);
        if text("state").as_deref() == Some("gave_up") {
            let name = text("connection_name").unwrap_or_default();
            let why = text("message").unwrap_or("unknown cause".into());
            log(&format!("{name}: gave up: {why}"));
        }
    }
    pending().await
}

/// Logs what a connection could not finish before it ended.
fn log_unfinished(name: &str, unfinished: &Unfinished) {
    if !unfinished.is_empty() {
        let (pushes, leaves) = (unfinished.pushes, unfinished.leaves.len());
        log(&format!("{name}: {pushes} pushes and {leaves} leaves did not finish"));
    }
}

/// Waits until every connection has ended, and then returns an error.
async fn all_ended(supervisor: &Supervisor, reloading: &AtomicBool) -> Failed {
    // The state is polled, because it changes rarely, and only the end of the process depends on
    // it.
    let mut look = tokio::time::interval(Duration::from_millis(200));
    loop {
        look.tick().await;
        if reloading.load(Ordering::Relaxed) {
            // A connection that ends during a reload may have a successor.
            continue;
        }
        let health = supervisor.health();
        let ended = |status: &phx_tokio::service::ConnectionStatus| {
            status.lifecycle == Lifecycle::Terminated
                && matches!(status.state, SupervisedState::Ended { .. })
        };
        if !health.connections.is_empty() && health.connections.values().all(ended) {
            let why = health.connections.iter().map(|(name, status)| {
                let cause = status.last_cause.as_ref().map(ToString::to_string);
                let how = match &status.state {
                    SupervisedState::Ended { ending: Ending::Crashed, .. } => "it crashed",
                    _ => "it gave up",
                };
                format!("{name}: {}", cause.as_deref().unwrap_or(how))
            });
            let why: Vec<String> = why.collect();
            return Failed::Unreachable(format!("every connection has ended: {}", why.join("; ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::reached;

    /// All events are counted even if, as on a busy machine, the count takes longer than the
    /// timeout for writing.
    #[tokio::test]
    async fn slow_counting_counts_every_event() {
        let writer = Writer::start("test", std::io::sink()).unwrap();
        let (stage, mut stages) = watch::channel(Stage::Follow);
        let printer = tokio::spawn(async move {
            reached(&mut stages, Stage::Count).await;
            tokio::time::sleep(3 * LAST_EVENTS).await;
            7
        });
        assert_eq!(written_or_counted(printer, &stage, &Bus::new(), &writer).await, 7);
    }
}
