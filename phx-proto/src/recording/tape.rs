//! The queue of recorded lines, and their sink.
//!
//! Lines are queued in order while the core is locked. They are flushed after the lock was released, because
//! the sink is code of the application.

use core::fmt;
use std::collections::VecDeque;
use std::sync::Arc;

use super::line::{FORMAT, Header, Line};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Records the inputs and actions of clients; see [the module](super).
///
/// Clones write to the same sink. Each client of a recorder has its own number in the lines, from 1.
#[derive(Clone)]
pub struct Recorder {
    pub(super) tape: Arc<Tape>,
    pub(super) payloads: bool,
}

/// A sink and the lines queued for it.
pub(crate) struct Tape {
    lines: Mutex<VecDeque<String>>,
    sink: Mutex<Box<Sink>>,
    clients: AtomicU64,
}

type Sink = dyn FnMut(&str) + Send;

impl Recorder {
    /// Creates a recorder that passes every line, without its line break, to `sink`. Lines are passed in
    /// order, and never two at the same time.
    ///
    /// The sink is called on the thread that calls the client or polls its driver. It should be quick, and
    /// it must not call back into a client that it records. When a call of the client or a poll of the
    /// driver returns, the sink has received all lines of that call or poll.
    ///
    /// Of a payload only the length is recorded, unless it is an empty object or a refusal whose reason
    /// comes from Phoenix itself. Credentials, the contents of join parameters, and the values of the
    /// query except `vsn` are never recorded.
    ///
    /// ```
    /// use phx_proto::recording::Recorder;
    /// use std::sync::mpsc;
    ///
    /// let (lines, written) = mpsc::channel();
    /// // The receiver may write the lines to a file on another thread.
    /// let recorder = Recorder::new(move |line| drop(lines.send(line.to_owned())));
    /// # drop((recorder, written));
    /// ```
    #[must_use]
    pub fn new(sink: impl FnMut(&str) + Send + 'static) -> Self {
        let header =
            Header { phx_recording: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned() };
        let lines = serde_json::to_string(&header).into_iter().collect();
        let tape = Tape {
            lines: Mutex::new(lines),
            sink: Mutex::new(Box::new(sink)),
            clients: AtomicU64::new(0),
        };
        Self { tape: Arc::new(tape), payloads: false }
    }

    /// Records the payloads of messages, pushes and replies too. Join parameters are still not recorded, but
    /// a token that the application sends in a push is.
    #[must_use]
    pub const fn with_payloads(mut self) -> Self {
        self.payloads = true;
        self
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("payloads", &self.payloads).finish_non_exhaustive()
    }
}

impl Tape {
    /// Assigns the number of a new client.
    pub(super) fn number(&self) -> u64 {
        self.clients.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Queues a line. A line is plain data, so serialising it cannot fail.
    pub(super) fn push(&self, line: &Line) {
        if let Ok(line) = serde_json::to_string(line) {
            self.lines.lock().push_back(line);
        }
    }

    /// Passes the queued lines to the sink.
    pub(crate) fn flush(&self) {
        let mut sink = self.sink.lock();
        loop {
            let line = self.lines.lock().pop_front();
            let Some(line) = line else { return };
            sink(&line);
        }
    }
}
