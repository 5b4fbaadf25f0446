//! The buffer of the request while it is written.

use core::fmt;

/// Bytes to write, and how many of them were written.
#[derive(Clone)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// At most the length of `bytes`.
    written: usize,
}

impl Outbox {
    pub(super) const fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, written: 0 }
    }

    /// Appends bytes, for a protocol in which another request follows a response.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    pub(super) fn advance(&mut self, n: usize) {
        self.written = self.written.saturating_add(n).min(self.bytes.len());
    }
}

/// Prints counts only, because the bytes may contain secrets.
impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes written", self.written, self.bytes.len())
    }
}
