//! A thread that writes lines to standard output, standard error or a recording, from a bounded queue.
//!
//! ```text
//!   tasks ──send──▶ queue (bounded) ──▶ one thread ──write──▶ pipe, terminal, file
//! ```
//!
//! A pipe that is not read, or a terminal after ctrl-s, can block `write` for any length of time.
//! It blocks only this thread: connections, metrics and signals continue, even on one CPU.

use core::time::Duration;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// The capacity of the queue in lines.
const LINES_MAX: usize = 1_024;
/// The capacity of the queue in bytes; a single line is accepted whatever its length.
const BYTES_MAX: usize = 8 << 20;
/// The maximum size of one write that combines several lines, in bytes. A write of up to `PIPE_BUF`
/// bytes to a pipe is atomic, so the number of unwritten lines is exact.
const BATCH_MAX: usize = 4_096;
/// The maximum additional time that [`Writer::flush`] waits for the thread while the output accepts
/// lines.
const LATE_MAX: Duration = Duration::from_secs(5);

/// A bounded queue in front of an output. Clones share it.
#[derive(Clone)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
}

/// The reason why the output can no longer be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The reader of a pipe closed it.
    Reader,
    /// Another error, such as a full disk.
    Failed(String),
}

struct Shared {
    state: Mutex<State>,
    /// Wakes the thread when there is a line to write.
    filled: Condvar,
    /// Wakes threads that wait for space, or until the queue is empty.
    written: Condvar,
    /// Wakes tasks that wait for space, for an empty queue, or until the output is closed.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The lines, each with the number of events that it stands for.
    lines: VecDeque<(String, u64)>,
    bytes: usize,
    /// The number of events in the queue.
    queued: u64,
    /// The number of events in the current write.
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
        // The thread is not joined, because it may be blocked forever; it ends with the process.
        std::thread::Builder::new().name(name.to_owned()).spawn(move || own.write_all(out))?;
        Ok(Self { shared })
    }

    /// Queues a line if there is space; returns it otherwise.
    pub(crate) fn try_send(&self, line: String) -> Result<(), String> {
        self.try_send_for(line, 1)
    }

    fn try_send_for(&self, line: String, events: u64) -> Result<(), String> {
        let mut state = self.shared.lock();
        if !state.fits(&line) || state.gone.is_some() {
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
    /// Cancel safe: if the future is dropped, the line is not queued.
    pub(crate) async fn send(&self, line: String) -> Result<(), Gone> {
        self.send_for(line, 1).await
    }

    /// Queues a line that stands for several events, such as a count of dropped ones.
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

    /// Queues a line, and blocks while there is no space; returns it after the timeout, or if the output
    /// can no longer be written.
    pub(crate) fn send_within(&self, mut line: String, timeout: Duration) -> Result<(), String> {
        let start = Instant::now();
        loop {
            match self.try_send(line) {
                Ok(()) => return Ok(()),
                Err(back) => line = back,
            }
            let left = timeout.saturating_sub(start.elapsed());
            let state = self.shared.lock();
            if left.is_zero() || state.gone.is_some() {
                return Err(line);
            }
            let is_full = |state: &mut State| !state.fits(&line) && state.gone.is_none();
            drop(self.shared.written.wait_timeout_while(state, left, is_full));
        }
    }

    /// The reason why the output can no longer be written, if that is the case.
    pub(crate) fn gone(&self) -> Option<Gone> {
        self.shared.lock().gone.clone()
    }

    /// The number of queued events that are not written.
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

    /// Blocks until every queued line is written, or until the output accepts nothing when
    /// `timeout` expires.
    ///
    /// If `is_ready` returns true at that time, the output accepts more and only the writing thread
    /// lags, as on a busy machine. Then the wait continues, for up to [`LATE_MAX`].
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

    /// Waits until the output can no longer be written.
    pub(crate) async fn closed(&self) -> Gone {
        loop {
            let changed = self.shared.changed.notified();
            if let Some(gone) = self.gone() {
                return gone;
            }
            changed.await;
        }
    }

    /// Records that the reader has closed the output, although no write has failed.
    #[cfg(unix)]
    pub(crate) fn reader_is_gone(&self) {
        self.shared.end(Gone::Reader);
    }
}

/// A stream whose writes block, even if another process that shares it has made it non-blocking.
pub(crate) struct Blocking<T>(pub(crate) T);

#[cfg(unix)]
impl<T: Write + std::os::fd::AsFd> Write for Blocking<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(),
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        loop {
            match self.0.flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(),
                flushed => return flushed,
            }
        }
    }
}

#[cfg(unix)]
impl<T: std::os::fd::AsFd> Blocking<T> {
    /// Waits until the stream accepts a write. An error of the stream is also one of the next write.
    fn wait(&self) {
        use rustix::event::{PollFd, PollFlags, poll};
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None);
    }
}

#[cfg(not(unix))]
impl<T: Write> Write for Blocking<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether a stream accepts a write without blocking.
#[cfg(unix)]
pub(crate) fn is_ready(stream: &impl std::os::fd::AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(stream, PollFlags::OUT)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Always false, because this platform does not report it.
#[cfg(not(unix))]
pub(crate) const fn is_ready<T>(_: &T) -> bool {
    false
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
                // A long line is written without a copy.
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
            self.written.notify_all();
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
    fn fits(&self, line: &str) -> bool {
        self.lines.len() < LINES_MAX
            && (self.lines.is_empty() || self.bytes + line.len() < BYTES_MAX)
    }

    const fn unwritten(&self) -> u64 {
        self.queued + self.writing
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    /// An output that writes when the test allows it.
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

    /// A blocked output fills the queue up to its capacity; further lines are returned.
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

    /// One line is accepted whatever its length; a second one waits for it.
    #[test]
    fn queue_is_bounded_in_bytes() {
        let (writer, _open, _seen) = gated();
        let huge = "x".repeat(BYTES_MAX + 1);
        // The thread may have taken the first line already.
        let accepted = (0..5).filter(|_| writer.try_send(huge.clone()).is_ok()).count();
        assert!((1..=2).contains(&accepted), "{accepted}");
    }

    /// A line that must be queued waits for space, but not longer than its timeout.
    #[test]
    fn send_within_waits_for_space() {
        let (writer, open, _seen) = gated();
        writer.try_send("x".to_owned()).unwrap();
        while writer.shared.lock().writing == 0 {
            std::thread::yield_now();
        }
        while writer.try_send("x".to_owned()).is_ok() {}
        let late = "late".to_owned();
        assert_eq!(writer.send_within(late.clone(), Duration::from_millis(1)), Err(late.clone()));
        let own = writer.clone();
        let sender = std::thread::spawn(move || own.send_within(late, SOON));
        open.send(()).unwrap();
        assert_eq!(sender.join().unwrap(), Ok(()));
    }

    /// If the reader closes the output, the queued lines are counted and no further line is
    /// accepted.
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

    /// If a line that stands for several dropped events is lost, all these events are counted.
    #[test]
    fn line_counts_its_events() {
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

    /// `flush` stops waiting for a blocked output after the timeout, but waits for a thread that
    /// lags behind an output that is ready.
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
