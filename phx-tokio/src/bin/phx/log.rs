//! The log on standard error: one line for each event that an operator should know.
//!
//! Lines go through a [`Writer`], because standard error may be a pipe that is not read. While the
//! queue of the writer is full, lines are dropped and counted, and the next line contains the
//! count.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io::{self, Write};
use std::sync::OnceLock;

use crate::style::{Style, Tone, escaped};
use crate::writer::{Blocking, Writer, is_ready};

/// How long the process waits at its end for the last lines to be written, if standard error is not
/// read.
pub(crate) const LAST_LINES: Duration = Duration::from_millis(250);

/// `None` if the thread could not be started.
static WRITER: OnceLock<Option<Writer>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Writes one line, after the name of the program.
pub(crate) fn log(line: &str) {
    plain(&format!("phx: {}", escaped(line)));
}

/// Writes one line about a failure, with the name of the program in the colour of failures.
pub(crate) fn failure(line: &str) {
    let style = Style::stderr();
    plain(&format!("{} {}", style.paint(Tone::Bad, "phx:"), style.paint(Tone::Plain, line)));
}

/// Writes a line without escaping.
pub(crate) fn plain(line: &str) {
    let writer =
        WRITER.get_or_init(|| Writer::start("standard error", Blocking(io::stderr())).ok());
    let Some(writer) = writer else {
        let _ = writeln!(io::stderr().lock(), "{line}");
        return;
    };
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    let missed =
        format!("phx: {dropped} lines of this log were dropped: standard error was not read");
    if dropped > 0 && writer.try_send(missed).is_err() {
        DROPPED.fetch_add(dropped + 1, Ordering::Relaxed);
        return;
    }
    if writer.try_send(line.to_owned()).is_err() {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until the lines are written, within a timeout.
pub(crate) fn flush() {
    if let Some(Some(writer)) = WRITER.get() {
        writer.flush(LAST_LINES, || is_ready(&io::stderr()));
    }
}
