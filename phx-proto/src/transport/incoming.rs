//! The filter in front of tungstenite: limits its reads and takes out pings.
//!
//! ```text
//!   stream ──read──▶ Io ──took──▶ tungstenite ──▶ WebSocket
//!                       │  ▲                                   │
//!              latest ping  may it read? ◀───── one read ──────┘
//! ```
//!
//! tungstenite reads control frames and fragments in an internal loop until none is left, and
//! answers every ping with a write. The server decides how long that loop runs. So each call of
//! tungstenite may read from the stream once, and the [watch](crate::websocket::control_watch)
//! takes the pings out; the WebSocket answers the latest one.

use std::sync::Arc;

use bytes::Bytes;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::websocket::control_watch::{ControlWatch, SentClose};

/// The read permission of a stream, shared by the stream and the WebSocket on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads(Arc<ReadState>);

/// Only the driver's task reads, so relaxed ordering is enough.
#[derive(Debug, Default)]
struct ReadState {
    allowed: AtomicBool,
    /// A read was refused since the last one was allowed.
    refused: AtomicBool,
    watch: Mutex<ControlWatch>,
}

impl Reads {
    /// Whether the stream may be read now. A refused read registers no waker.
    pub(super) fn may_read(&self) -> bool {
        let allowed = self.0.allowed.load(Ordering::Relaxed);
        self.0.refused.store(!allowed, Ordering::Relaxed);
        allowed
    }

    /// Records bytes that were read from the stream.
    pub(super) fn took(&self, bytes: &mut [u8]) {
        self.0.allowed.store(false, Ordering::Relaxed);
        self.watch().read(bytes);
    }

    /// Allows one read.
    pub(super) fn allow(&self) {
        self.0.allowed.store(true, Ordering::Relaxed);
        self.0.refused.store(false, Ordering::Relaxed);
    }

    /// Whether the allowed read took place and a further one was refused.
    pub(super) fn refused(&self) -> bool {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Takes the payload of the latest ping, if there is one.
    pub(super) fn take_ping(&self) -> Option<Bytes> {
        self.watch().take_ping()
    }

    /// The close frame as the server sent it, once it has been read.
    pub(super) fn sent_close(&self) -> Option<SentClose> {
        self.watch().sent_close().cloned()
    }

    /// No application code runs under this lock.
    fn watch(&self) -> MutexGuard<'_, ControlWatch> {
        self.0.watch.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_allowance_permits_one_read() {
        let reads = Reads::default();
        assert!(!reads.may_read(), "no read was allowed yet");
        reads.allow();
        assert!(
            reads.may_read() && reads.may_read() && !reads.refused(),
            "a read that finds no bytes may be repeated"
        );
        reads.took(&mut []);
        assert!(!reads.refused());
        assert!(!reads.may_read() && reads.refused());
        reads.allow();
        assert!(reads.may_read() && !reads.refused());
    }
}
