//! Payloads: one JSON value or raw bytes, parsed only by whoever reads it.

use bytes::Bytes;

/// One JSON value or raw bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    buffer: Bytes,
    headroom: usize,
    binary: bool,
}
