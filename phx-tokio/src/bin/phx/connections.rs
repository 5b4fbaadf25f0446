//! `phx check` and `phx run`: named connections from a file.

use core::time::Duration;
use std::io::{self, Write};
use std::path::Path;

use phx_tokio::{
    BusEvent, Connections, Ending, Lifecycle, Router, SupervisedState, Supervisor, TypeScheme,
};
use serde_json::json;

use crate::exit::Failed;
use crate::output::Output;

/// What `phx run` is told on the command line.
pub(crate) struct Run<'a> {
    pub(crate) file: &'a Path,
    pub(crate) patterns: Vec<String>,
    pub(crate) fixed: bool,
    pub(crate) grace: Duration,
}

/// Says what a file holds, or everything that is wrong with it.
pub(crate) fn check(file: &Path) -> Result<(), Failed> {
    let connections = read(file)?;
    let output = Output::new();
    for (name, spec) in connections.iter() {
        let topics: Vec<&str> = spec.config().auto_joined().map(|topic| topic.as_str()).collect();
        let channels = match topics.len() {
            0 => "joins nothing by itself".to_owned(),
            _ => format!("joins {}", topics.join(", ")),
        };
        // Without the values of its query: they may be tokens.
        let uri = spec.config().uri().to_string();
        let object = json!({"name": name, "uri": uri, "channels": topics});
        if output.entry(name, &[&uri, &channels], &object).is_err() {
            break;
        }
    }
    Ok(())
}

/// Keeps the connections of a file until it is told to end, and prints their events.
pub(crate) async fn run(run: Run<'_>) -> Result<(), Failed> {
    let connections = read(run.file)?;
    let scheme = if run.fixed { TypeScheme::Fixed } else { TypeScheme::Templated };
    let supervisor = phx_tokio::supervisor(Router::new().scheme(scheme));
    let patterns = run.patterns.iter().map(String::as_str);
    let subscription = supervisor.bus().subscribe_any(patterns);
    let subscription = subscription.map_err(|error| Failed::Usage(error.to_string()))?;
    let mut printer = tokio::spawn(print(subscription));
    let mut asked = Asked::new().map_err(|error| Failed::Local(error.to_string()))?;
    log(&format!("keeping {} connections", connections.len()));
    supervisor.start_configured(connections).map_err(|error| Failed::Usage(error.to_string()))?;

    let ended = tokio::select! {
        () = asked.once() => None,
        // Nobody reads any more: `phx run … | head`.
        _ = &mut printer => return Ok(()),
        ended = all_ended(&supervisor) => Some(ended),
    };
    log("shutting down; once more ends it at once");
    tokio::select! {
        unfinished = supervisor.shutdown(run.grace) => {
            for (name, unfinished) in unfinished {
                let (pushes, leaves) = (unfinished.pushes, unfinished.leaves.len());
                log(&format!("{name}: {pushes} pushes and {leaves} leaves did not finish"));
            }
        }
        () = asked.once() => {
            log("ended at once");
            return Err(Failed::Local("it was told to end at once".to_owned()));
        }
    }
    // The bus is closed, so the printer ends after what waits.
    let _ = printer.await;
    ended.map_or(Ok(()), Err)
}

fn read(file: &Path) -> Result<Connections, Failed> {
    let bad = |error: &dyn core::fmt::Display| {
        let lines: Vec<String> =
            error.to_string().lines().map(|line| format!("{}: {line}", file.display())).collect();
        Failed::File(lines)
    };
    let text = std::fs::read_to_string(file).map_err(|error| bad(&error))?;
    let connections = Connections::from_json(&text, |name| std::env::var(name).ok());
    let connections = connections.map_err(|error| bad(&error))?;
    connections.load_tls(|path| std::fs::read(path)).map_err(|error| bad(&error))
}

/// Prints events as JSON lines until the bus is closed, or until nobody reads.
async fn print(mut subscription: phx_tokio::Subscription) {
    while let Some(event) = subscription.next().await {
        let line = match event {
            BusEvent::Event(routed) => serde_json::to_string(&routed.event),
            BusEvent::Lagged(missed) => {
                log(&format!("{missed} events were not printed: the output is too slow"));
                continue;
            }
        };
        let Ok(line) = line else { continue };
        let mut out = io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

/// Waits until no connection is kept any more, and says what that means.
async fn all_ended(supervisor: &Supervisor) -> Failed {
    // States change a few times an hour, and nothing waits for this but the end of the process.
    let mut look = tokio::time::interval(Duration::from_millis(200));
    loop {
        look.tick().await;
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

/// Requests to end, from the terminal or the service manager.
struct Asked {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Asked {
    fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?,
        })
    }

    async fn once(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// One line on standard error.
fn log(line: &str) {
    // Nobody listens: then nobody misses it.
    let _ = writeln!(io::stderr().lock(), "phx: {line}");
}
