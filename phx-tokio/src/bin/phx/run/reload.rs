//! The file again, without a restart: what differs is stopped and started, all else is not
//! touched.
//!
//! ```text
//!   SIGHUP ─▶ read the file ──bad──▶ phx.reload.refused, and nothing changes
//!                  │ good
//!                  ▼
//!             what differs ─▶ removed and changed ones end in order, all at once
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

use super::reports::Reports;
use crate::connections::read;
use crate::log::log;
use crate::signals::Reloads;

/// What is kept, and what changes it.
pub(super) struct Reload {
    pub(super) file: PathBuf,
    /// How long what is stopped may take to end in order.
    pub(super) grace: Duration,
    pub(super) supervisor: Supervisor,
    pub(super) reports: Reports,
    /// What the file said when it was last good.
    pub(super) kept: Connections,
}

impl Reload {
    /// Reloads whenever that is asked for, and shows while it does.
    pub(super) async fn at_each(mut self, mut asked: Reloads, going_on: &AtomicBool) -> ! {
        loop {
            asked.next().await;
            going_on.store(true, Ordering::Relaxed);
            self.once().await;
            going_on.store(false, Ordering::Relaxed);
        }
    }

    /// Reads the file again and carries out what differs.
    async fn once(&mut self) {
        let file = self.file.display().to_string();
        let next = match read(&self.file) {
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
                // A changed one.
                next.map_or(Ok(()), |next| supervisor.start_connection(name, next))
            });
        }
        for name in &changes.added {
            // Added ones are in the new set.
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
    // One that is not known any more needs no end.
    if let Ok(unfinished) = supervisor.shutdown_connection(name, grace).await {
        super::log_unfinished(name, &unfinished);
    }
}

/// Names are the run's own, so this says that something is wrong with the program.
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
