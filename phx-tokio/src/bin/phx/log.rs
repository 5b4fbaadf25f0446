//! Standard error: one line for each thing that an operator should know.
//!
//! Lines go through a [`Writer`], because standard error may be a pipe that is not read, too. When
//! its queue is full, lines are counted, and the count is the next line.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io::{self, Write};
use std::sync::OnceLock;

use crate::style::{Style, Tone, escaped};
use crate::writer::Writer;

/// How long the last lines may take when the process ends and standard error is not read.
pub(crate) const LAST_LINES: Duration = Duration::from_millis(250);

/// None where a thread cannot be had.
static WRITER: OnceLock<Option<Writer>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Writes one line, behind the name of the program.
pub(crate) fn log(line: &str) {
    plain(&format!("phx: {}", escaped(line)));
}

/// Writes one line about a failure: the name of the program is in the colour of one.
pub(crate) fn failure(line: &str) {
    let style = Style::stderr();
    plain(&format!("{} {}", style.paint(Tone::Bad, "phx:"), style.paint(Tone::Plain, line)));
}

/// Writes a line as it is.
pub(crate) fn plain(line: &str) {
    let writer = WRITER.get_or_init(|| Writer::start("standard error", io::stderr()).ok());
    let Some(writer) = writer else {
        let _ = writeln!(io::stderr().lock(), "{line}");
        return;
    };
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    let missed = format!("phx: {dropped} lines of this log were not written: it was not read");
    if dropped > 0 && writer.try_send(missed).is_err() {
        DROPPED.fetch_add(dropped + 1, Ordering::Relaxed);
        return;
    }
    if writer.try_send(line.to_owned()).is_err() {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until the lines are written, for a bounded time.
pub(crate) fn flush() {
    if let Some(Some(writer)) = WRITER.get() {
        writer.flush(LAST_LINES, is_ready);
    }
}

/// Whether standard error takes more without being read first.
#[cfg(unix)]
fn is_ready() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stderr = io::stderr();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// It is not known.
#[cfg(not(unix))]
const fn is_ready() -> bool {
    false
}
