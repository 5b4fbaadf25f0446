//! `phx run`: named connections from a file, kept until it is told to end.
//!
//! ```text
//!              ┌─▶ Supervisor ─▶ Bus ──▶ reports ─▶ standard output
//!   the file ──┤       ▲ ▲                 ▲
//!   SIGHUP ────┴ reload ┘ ├─ control ──────┤
//!                         └─ metrics ──────┘
//! ```

mod control;
mod metrics;
mod order;
mod reload;
mod reports;
mod signals;

use core::future::pending;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::path::PathBuf;

use phx_tokio::{Ending, Lifecycle, Router, SupervisedState, Supervisor, TypeScheme, Unfinished};

use crate::connections::read;
use crate::exit::Failed;
use control::Control;
use reload::Reload;
use reports::{Reports, log};
use signals::{Asked, Reloads};

/// What `phx run` is told on the command line.
pub(crate) struct Run {
    pub(crate) file: PathBuf,
    pub(crate) patterns: Vec<String>,
    pub(crate) fixed: bool,
    pub(crate) grace: Duration,
    /// Where to serve metrics.
    pub(crate) metrics: Option<SocketAddr>,
    /// How often to tell them as an event.
    pub(crate) metrics_every: Option<Duration>,
}

/// Keeps the connections of a file until it is told to end, and prints their events.
pub(crate) async fn run(run: Run) -> Result<(), Failed> {
    let local = |error: std::io::Error| Failed::Local(error.to_string());
    let connections = read(&run.file)?;
    let scheme = if run.fixed { TypeScheme::Fixed } else { TypeScheme::Templated };
    let supervisor = phx_tokio::supervisor(Router::new().scheme(scheme));
    let patterns = run.patterns.iter().map(String::as_str);
    let subscription = supervisor.bus().subscribe_any(patterns);
    let subscription = subscription.map_err(|error| Failed::Usage(error.to_string()))?;
    let listener = match run.metrics {
        Some(addr) => Some(metrics::bind(addr).await?),
        None => None,
    };
    let (reports, told) = Reports::new();
    let mut printer = tokio::spawn(reports::print(subscription, told));
    let mut asked = Asked::new().map_err(local)?;
    let reloads = Reloads::new().map_err(local)?;
    log(&format!("keeping {} connections", connections.len()));
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
            Some(every) => metrics::tell(every, supervisor.clone(), reports.clone()).await,
            None => pending().await,
        }
    };
    let ended: Option<Failed> = tokio::select! {
        () = asked.once() => None,
        // Nobody reads any more: `phx run … | head`.
        _ = &mut printer => return Ok(()),
        ended = all_ended(&supervisor, reloading) => Some(ended),
        never = reload.at_each(reloads, reloading) => never,
        () = control.obey() => None,
        never = serve => never,
        never = tell => never,
    };
    log("shutting down; once more ends it at once");
    tokio::select! {
        unfinished = supervisor.shutdown(run.grace) => {
            // Their connections are closed, so each has its outcome.
            control.finish().await;
            for (name, unfinished) in &unfinished {
                log_unfinished(name, unfinished);
            }
        }
        () = asked.once() => {
            log("ended at once");
            return Err(Failed::Local("it was told to end at once".to_owned()));
        }
    }
    // The bus is closed and nobody can report, so the printer ends after what waits.
    drop((control, reports));
    let _ = printer.await;
    ended.map_or(Ok(()), Err)
}

/// Says what a connection could not finish before it ended.
fn log_unfinished(name: &str, unfinished: &Unfinished) {
    if !unfinished.is_empty() {
        let (pushes, leaves) = (unfinished.pushes, unfinished.leaves.len());
        log(&format!("{name}: {pushes} pushes and {leaves} leaves did not finish"));
    }
}

/// Waits until no connection is kept any more, and says what that means.
async fn all_ended(supervisor: &Supervisor, reloading: &AtomicBool) -> Failed {
    // States change a few times an hour, and nothing waits for this but the end of the process.
    let mut look = tokio::time::interval(Duration::from_millis(200));
    loop {
        look.tick().await;
        if reloading.load(Ordering::Relaxed) {
            // What ends now may have a successor.
            continue;
        }
        let health = supervisor.health();
        let ended = |status: &phx_tokio::ConnectionStatus| {
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
