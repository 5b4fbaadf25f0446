//! Reloads the file without a restart of the process: connections that have changed are stopped and
//! started, and all others continue.
//!
//! ```text
//!   SIGHUP ─▶ read the file ──bad──▶ phx.reload.refused, and nothing changes
//!                  │ good
//!                  ▼
//!             differences ─▶ removed and changed ones shut down gracefully, all at once
//!                             changed ones start as soon as their predecessor has ended
//!                             added ones start ─▶ phx.reload.done
//! ```

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::path::PathBuf;

use phx_tokio::Connections;
use phx_tokio::service::{EventData, StartError, Supervisor};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::reports::Reports;
use crate::connections::read;
use crate::exit::Failed;
use crate::log::log;
use crate::signals::Reloads;
use crate::source::shown;

/// After this time, a file that is still being read is logged, and no longer keeps a run without
/// connections from ending.
const LATE: Duration = Duration::from_secs(1);

/// The running connections, and the means to change them.
pub(super) struct Reload {
    pub(super) file: PathBuf,
    /// The time limit for a connection to shut down gracefully.
    pub(super) grace: Duration,
    pub(super) supervisor: Supervisor,
    pub(super) reports: Reports,
    /// The last valid contents of the file.
    pub(super) kept: Connections,
}

impl Reload {
    /// Reloads at every request; `going_on` is true during a reload, except while it waits long for its
    /// file.
    pub(super) async fn at_each(mut self, mut asked: Reloads, going_on: &AtomicBool) -> ! {
        loop {
            asked.next().await;
            going_on.store(true, Ordering::Relaxed);
            let next = self.read(going_on).await;
            self.apply(next).await;
            going_on.store(false, Ordering::Relaxed);
        }
    }

    /// Reads the file on another thread, because reading may block for any length of time. Signals are
    /// handled meanwhile.
    async fn read(&self, going_on: &AtomicBool) -> Result<Connections, Failed> {
        let file = self.file.clone();
        let mut reading = tokio::task::spawn_blocking(move || read(&file));
        let read = match timeout(LATE, &mut reading).await {
            Ok(read) => read,
            Err(_) => {
                log(&format!(
                    "the reload waits for {}, or for a TLS file that it names",
                    shown(&self.file)
                ));
                going_on.store(false, Ordering::Relaxed);
                let read = reading.await;
                going_on.store(true, Ordering::Relaxed);
                read
            }
        };
        read.unwrap_or_else(|error| Err(Failed::Local(error.to_string())))
    }

    /// Changes the connections as the new document requires, or reports the problems of the document.
    async fn apply(&mut self, next: Result<Connections, Failed>) {
        let file = shown(&self.file);
        let next = match next {
            Ok(next) => next,
            Err(failed) => {
                let problems: Vec<String> = failed.to_string().lines().map(str::to_owned).collect();
                for problem in &problems {
                    log(&format!("not reloaded: {problem}"));
                }
                let data = object(json!({"file": file, "problems": problems}));
                return self.reports.offer("phx.reload.refused", data);
            }
        };
        let changes = self.kept.changes(&next);
        let mut steps = JoinSet::new();
        for name in changes.removed.iter().chain(&changes.changed) {
            let (name, grace) = (name.clone(), self.grace);
            let (supervisor, next) = (self.supervisor.clone(), next.get(&name).cloned());
            steps.spawn(async move {
                end(&supervisor, &name, grace).await;
                // A changed connection is started again.
                next.map_or(Ok(()), |next| supervisor.start_connection(name, next))
            });
        }
        for name in &changes.added {
            // `next` contains every added connection.
            let Some(spec) = next.get(name).cloned() else { continue };
            not_started(self.supervisor.start_connection(name, spec));
        }
        while let Some(step) = steps.join_next().await {
            match step {
                Ok(started) => not_started(started),
                Err(error) => log(&format!("reload: {error}")),
            }
        }
        self.kept = next;
        log(&format!(
            "reloaded: {} added, {} removed, {} changed, {} unchanged",
            changes.added.len(),
            changes.removed.len(),
            changes.changed.len(),
            changes.unchanged.len()
        ));
        let data = object(json!({
            "file": file,
            "added": changes.added,
            "removed": changes.removed,
            "changed": changes.changed,
            "unchanged": changes.unchanged,
        }));
        self.reports.offer("phx.reload.done", data);
    }
}

async fn end(supervisor: &Supervisor, name: &str, grace: Duration) {
    // An unknown connection needs no shutdown.
    if let Ok(unfinished) = supervisor.shutdown_connection(name, grace).await {
        super::log_unfinished(name, &unfinished);
    }
}

/// The names are consistent, so an error here is a bug in this program.
fn not_started(started: Result<(), StartError>) {
    if let Err(error) = started {
        log(&format!("reload: {error}"));
    }
}

fn object(value: Value) -> EventData {
    match value {
        Value::Object(object) => object.into_iter().collect(),
        _ => EventData::new(),
    }
}
