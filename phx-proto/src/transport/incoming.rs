//! The bytes on their way to tungstenite: how many reads there may be, and which ping is the latest.
//!
//! ```text
//!   stream ──read──▶ Io ──took──▶ tungstenite ──▶ WebSocket
//!                       │  ▲                                   │
//!              latest ping  may it read? ◀───── one read ──────┘
//! ```
//!
//! tungstenite reads control frames and the pieces of a message in a loop of its own, for as long as
//! there are some, and answers every ping with a write. Both are up to the server. So each call of
//! it may read from the stream once, and the [watch](crate::websocket::control_watch) takes the pings
//! out; the WebSocket answers the latest one.

use std::sync::Arc;

use bytes::Bytes;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::websocket::control_watch::{ControlWatch, SentClose};

/// The reads of a stream, shared by the stream and the WebSocket on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads(Arc<ReadState>);

/// Only the task of the driver reads, so nothing here has to be in step with anything else.
#[derive(Debug, Default)]
struct ReadState {
    allowed: AtomicBool,
    /// A read was refused since one was allowed.
    refused: AtomicBool,
    watch: Mutex<ControlWatch>,
}

impl Reads {
    /// Whether the stream may be read now; if not, nothing wakes the reader.
    pub(super) fn may_read(&self) -> bool {
        let allowed = self.0.allowed.load(Ordering::Relaxed);
        self.0.refused.store(!allowed, Ordering::Relaxed);
        allowed
    }

    /// These bytes were read from the stream.
    pub(super) fn took(&self, bytes: &mut [u8]) {
        self.0.allowed.store(false, Ordering::Relaxed);
        self.watch().read(bytes);
    }

    /// Allows one read.
    pub(super) fn allow(&self) {
        self.0.allowed.store(true, Ordering::Relaxed);
        self.0.refused.store(false, Ordering::Relaxed);
    }

    /// Whether there was a read, and another one was refused.
    pub(super) fn refused(&self) -> bool {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Takes the payload of the latest ping, unless it was taken.
    pub(super) fn take_ping(&self) -> Option<Bytes> {
        self.watch().take_ping()
    }

    /// The close frame as the server sent it, once it was read.
    pub(super) fn sent_close(&self) -> Option<SentClose> {
        self.watch().sent_close().cloned()
    }

    /// No code of the application runs under it.
    fn watch(&self) -> MutexGuard<'_, ControlWatch> {
        self.0.watch.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_read_is_allowed_at_a_time() {
        let reads = Reads::default();
        assert!(!reads.may_read(), "none was allowed");
        reads.allow();
        assert!(reads.may_read() && reads.may_read() && !reads.refused(), "nothing was there");
        reads.took(&mut []);
        assert!(!reads.refused());
        assert!(!reads.may_read() && reads.refused());
        reads.allow();
        assert!(reads.may_read() && !reads.refused());
    }
}
