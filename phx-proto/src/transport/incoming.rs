//! A filter between the stream and tungstenite: it limits the reads, and hides pings and the close
//! frame.
//!
//! ```text
//!   stream ──read──▶ Io ──took──▶ tungstenite ──▶ WebSocket
//!                       │  ▲                                   │
//!              latest ping  may it read? ◀───── one read ──────┘
//! ```
//!
//! tungstenite reads control frames and fragments in an internal loop until none is left, and
//! answers every ping with a write. So a server could keep that loop running. To prevent this, each
//! call of tungstenite may read from the stream only once. The
//! [watch](crate::websocket::control_watch) hides the pings, and the WebSocket answers the latest
//! of them. It also hides the close frame.

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
    /// Whether a read was refused since [`Reads::allow`] was last called.
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

    /// Whether a further read was refused after the allowed one.
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

    /// Locks the watch. No application code runs under this lock.
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
