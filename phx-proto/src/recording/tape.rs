//! The queue of recorded lines, and the sink that takes them.
//!
//! Lines are written while the core is locked, in order, and queued here. The writer flushes them after
//! the lock, because the sink is code of the application.

use core::fmt;
use std::collections::VecDeque;
use std::sync::Arc;

use super::line::{FORMAT, Header, Line};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Records the inputs and actions of clients; see [the module](super).
///
/// Clones write to one sink. Each client that is made with it has a number of its own in the
/// lines, from 1.
#[derive(Clone)]
pub struct Recorder {
    pub(super) tape: Arc<Tape>,
    pub(super) payloads: bool,
}

/// A sink, and the lines that wait for it.
pub(crate) struct Tape {
    lines: Mutex<VecDeque<String>>,
    sink: Mutex<Box<Sink>>,
    clients: AtomicU64,
}

type Sink = dyn FnMut(&str) + Send;

impl Recorder {
    /// Hands every line, without its end, to `sink`: in order, and never two at once.
    ///
    /// The sink is called by whichever thread made the core do something, so it should be quick,
    /// and it may not call back into a client that it records. It has every line of a call by the
    /// time that the call returns.
    ///
    /// Of payloads, the lengths are recorded. Credentials, values of the query and join parameters are
    /// never recorded.
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

    /// Records the payloads of messages, pushes and replies, too. Join parameters are still left out; a
    /// token that the application sends in a push is not.
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
    /// The number of a new client.
    pub(super) fn number(&self) -> u64 {
        self.clients.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Queues a line. It is plain data, so serialising it cannot fail.
    pub(super) fn push(&self, line: &Line) {
        if let Ok(line) = serde_json::to_string(line) {
            self.lines.lock().push_back(line);
        }
    }

    /// Hands the queued lines to the sink.
    pub(crate) fn flush(&self) {
        let mut sink = self.sink.lock();
        loop {
            let line = self.lines.lock().pop_front();
            let Some(line) = line else { return };
            sink(&line);
        }
    }
}
