//! A thread that writes lines to standard output or standard error from a bounded queue.
//!
//! ```text
//!   tasks ──send──▶ queue (bounded) ──▶ one thread ──write──▶ pipe, terminal, file
//! ```
//!
//! A pipe whose reader stopped, or a terminal after ctrl-s, blocks `write` for as long as it likes.
//! Only this thread is blocked then: connections, metrics and signals go on, on one CPU too.

use core::time::Duration;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// Lines in the queue.
const LINES_MAX: usize = 1_024;
/// Bytes in the queue; one line is always accepted, however long.
const BYTES_MAX: usize = 8 << 20;
/// Bytes of several lines that are written at once. A write of up to `PIPE_BUF` bytes to a pipe is
/// atomic, so the number of lines that were not written is exact.
const BATCH_MAX: usize = 4_096;
/// How long the thread may be late with the last lines of an output that takes them.
const LATE_MAX: Duration = Duration::from_secs(5);

/// A bounded queue in front of an output. Clones share it.
#[derive(Clone)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
}

/// Why nothing can be written any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The reader of a pipe closed it.
    Reader,
    /// Anything else, such as a full disk.
    Failed(String),
}

struct Shared {
    state: Mutex<State>,
    /// Wakes the thread: there is a line to write.
    filled: Condvar,
    /// Wakes threads that wait for the end of the queue.
    written: Condvar,
    /// Wakes tasks that wait for space, for the end of the queue, or for the end of the reader.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Each with how many events it stands for.
    lines: VecDeque<(String, u64)>,
    bytes: usize,
    /// Events of the lines in the queue.
    queued: u64,
    /// Events of the write that is in progress.
    writing: u64,
    gone: Option<Gone>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(name: &str, out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            changed: Notify::new(),
        });
        let own = Arc::clone(&shared);
        // Not joined: it may be blocked for ever, and the end of the process takes it along.
        std::thread::Builder::new().name(name.to_owned()).spawn(move || own.write_all(out))?;
        Ok(Self { shared })
    }

    /// Queues a line if there is space; hands it back otherwise.
    pub(crate) fn try_send(&self, line: String) -> Result<(), String> {
        self.try_send_for(line, 1)
    }

    fn try_send_for(&self, line: String, events: u64) -> Result<(), String> {
        let mut state = self.shared.lock();
        let fits = state.lines.len() < LINES_MAX
            && (state.lines.is_empty() || state.bytes + line.len() < BYTES_MAX);
        if !fits || state.gone.is_some() {
            return Err(line);
        }
        state.bytes += line.len() + 1;
        state.queued += events;
        state.lines.push_back((line, events));
        drop(state);
        self.shared.filled.notify_one();
        Ok(())
    }

    /// Queues a line as soon as there is space.
    ///
    /// Cancel safe: a line of a dropped future is not queued.
    pub(crate) async fn send(&self, line: String) -> Result<(), Gone> {
        self.send_for(line, 1).await
    }

    /// Queues a line that stands for several events, such as one that says how many were dropped.
    ///
    /// Cancel safe, as [`send`](Self::send).
    pub(crate) async fn send_for(&self, mut line: String, events: u64) -> Result<(), Gone> {
        loop {
            let changed = self.shared.changed.notified();
            if let Some(gone) = self.gone() {
                return Err(gone);
            }
            match self.try_send_for(line, events) {
                Ok(()) => return Ok(()),
                Err(back) => line = back,
            }
            changed.await;
        }
    }

    /// Why nothing can be written any more, once that is so.
    pub(crate) fn gone(&self) -> Option<Gone> {
        self.shared.lock().gone.clone()
    }

    /// How many events of the queued lines are not written.
    pub(crate) fn unwritten(&self) -> u64 {
        self.shared.lock().unwritten()
    }

    /// Waits until every queued line is written.
    pub(crate) async fn flushed(&self) -> Result<(), Gone> {
        loop {
            let changed = self.shared.changed.notified();
            {
                let state = self.shared.lock();
                if let Some(gone) = &state.gone {
                    return Err(gone.clone());
                }
                if state.unwritten() == 0 {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// Waits until every queued line is written, on a thread, for at most `timeout`.
    ///
    /// While `is_ready` returns true, the output takes more and only the thread that writes is late,
    /// as on a busy machine: the wait goes on for up to [`LATE_MAX`].
    pub(crate) fn flush(&self, timeout: Duration, mut is_ready: impl FnMut() -> bool) {
        let start = Instant::now();
        loop {
            let is_left = |state: &mut State| state.unwritten() > 0 && state.gone.is_none();
            let waited =
                self.shared.written.wait_timeout_while(self.shared.lock(), timeout, is_left);
            let is_over = !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out();
            if is_over || start.elapsed() >= LATE_MAX || !is_ready() {
                return;
            }
        }
    }

    /// Waits until nothing can be written any more.
    pub(crate) async fn closed(&self) -> Gone {
        loop {
            let changed = self.shared.changed.notified();
            if let Some(gone) = self.gone() {
                return gone;
            }
            changed.await;
        }
    }

    /// Marks the reader as gone, found out without a write.
    pub(crate) fn reader_is_gone(&self) {
        self.shared.end(Gone::Reader);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, gone: Gone) {
        self.lock().gone.get_or_insert(gone);
        self.written.notify_all();
        self.changed.notify_waiters();
    }

    fn write_all(&self, mut out: impl Write) {
        loop {
            let mut state = self.lock();
            while state.lines.is_empty() {
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let mut batch = String::new();
            while let Some((line, events)) = state.lines.pop_front() {
                let bytes = line.len() + 1;
                if !batch.is_empty() && batch.len() + bytes > BATCH_MAX {
                    state.lines.push_front((line, events));
                    break;
                }
                // A long line is not copied.
                if batch.is_empty() {
                    batch = line;
                } else {
                    batch.push_str(&line);
                }
                batch.push('\n');
                state.bytes -= bytes;
                state.queued -= events;
                state.writing += events;
            }
            drop(state);
            self.changed.notify_waiters();
            match out.write_all(batch.as_bytes()).and_then(|()| out.flush()) {
                Ok(()) => self.lock().writing = 0,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return self.end(Gone::Reader);
                }
                Err(error) => return self.end(Gone::Failed(error.to_string())),
            }
            self.written.notify_all();
            self.changed.notify_waiters();
        }
    }
}

impl State {
    const fn unwritten(&self) -> u64 {
        self.queued + self.writing
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    /// An output that writes when it is allowed to.
    struct Gate {
        open: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.open.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Writer, Sender<()>, Receiver<Vec<u8>>) {
        let (opener, open) = channel();
        let (written, seen) = channel();
        (Writer::start("test", Gate { open, written }).unwrap(), opener, seen)
    }

    /// A blocked output fills the queue up to its bounds; the rest is handed back.
    #[test]
    fn queue_is_bounded_while_output_blocks() {
        let (writer, open, seen) = gated();
        let accepted = (0..5_000).filter(|n| writer.try_send(n.to_string()).is_ok()).count();
        assert!((LINES_MAX..5_000).contains(&accepted), "{accepted}");
        assert_eq!(writer.unwritten(), accepted as u64);
        let mut lines = 0;
        while lines < accepted {
            open.send(()).unwrap();
            lines += seen.recv_timeout(SOON).unwrap().split(|byte| *byte == b'\n').count() - 1;
        }
        writer.flush(SOON, || false);
        assert_eq!((lines, writer.unwritten()), (accepted, 0));
    }

    /// One line is accepted however long; a second one waits for it.
    #[test]
    fn queue_is_bounded_in_bytes() {
        let (writer, _open, _seen) = gated();
        let huge = "x".repeat(BYTES_MAX + 1);
        // The first may be with the thread already.
        let accepted = (0..5).filter(|_| writer.try_send(huge.clone()).is_ok()).count();
        assert!((1..=2).contains(&accepted), "{accepted}");
    }

    /// Lines in the queue of an output whose reader went away are counted, and none is accepted.
    #[test]
    fn reader_gone_is_reported() {
        let (writer, open, _seen) = gated();
        writer.try_send("one".to_owned()).unwrap();
        drop(open);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(writer.closed()), Gone::Reader);
        assert_eq!(runtime.block_on(writer.flushed()), Err(Gone::Reader));
        assert_eq!(runtime.block_on(writer.send("two".to_owned())), Err(Gone::Reader));
        assert_eq!(writer.unwritten(), 1);
    }

    /// A line that says how many events were dropped stands for them when it is lost, too.
    #[test]
    fn lines_stand_for_events() {
        let (writer, open, _seen) = gated();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(writer.send_for("7 were dropped".to_owned(), 7)).unwrap();
        runtime.block_on(writer.send("one".to_owned())).unwrap();
        assert_eq!(writer.unwritten(), 8);
        open.send(()).unwrap();
        open.send(()).unwrap();
        writer.flush(SOON, || false);
        assert_eq!(writer.unwritten(), 0);
    }

    /// A blocked output is given up after the timeout; a thread that is late with one that is ready
    /// is waited for.
    #[test]
    fn flush_waits_for_a_late_thread() {
        const SHORT: Duration = Duration::from_millis(1);
        let (writer, open, seen) = gated();
        writer.try_send("one".to_owned()).unwrap();
        writer.flush(SHORT, || false);
        assert_eq!(writer.unwritten(), 1);
        let mut asked = 0;
        writer.flush(SHORT, || {
            asked += 1;
            if asked == 3 {
                open.send(()).unwrap();
                seen.recv_timeout(SOON).unwrap();
            }
            true
        });
        assert_eq!(writer.unwritten(), 0);
        assert!(asked >= 3, "{asked}");
    }
}
