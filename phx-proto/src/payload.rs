//! Payloads: one JSON value or raw bytes, parsed only by whoever reads it.
//!
//! An incoming payload is the untouched rest of its frame: a slice, no copy, no parse. An
//! outgoing one is serialised once, at the call, into a buffer with headroom, so that the
//! envelope can be written in front of it when the frame is pulled.

use core::fmt;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Room in front of a serialised payload: enough for two 20-digit refs, their punctuation, and
/// topic and event of common length. A longer envelope costs one copy.
pub(crate) const HEADROOM: usize = 96;

/// How much of bad input is kept as evidence.
pub(crate) const EVIDENCE_MAX: usize = 256;

/// One JSON value or raw bytes. Cheap to clone.
///
/// `Debug` shows the kind and the length only: payloads hold what users say.
///
/// ```
/// use phx_proto::Payload;
/// use serde_json::json;
///
/// let payload = Payload::from(json!({"body": "hi"}));
/// assert_eq!(payload.get()?, r#"{"body":"hi"}"#);
/// assert_eq!(payload.to_value()?["body"], "hi");
/// // The surprising case: bytes are not JSON, whatever they hold.
/// assert!(Payload::binary("{}").to_value().is_err());
/// # Ok::<(), phx_proto::PayloadError>(())
/// ```
#[derive(Clone)]
pub struct Payload {
    buffer: Bytes,
    headroom: usize,
    binary: bool,
}

/// Why a payload could not be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// JSON was asked of bytes.
    #[error("the payload is binary, not JSON")]
    Binary,
    /// The payload is not JSON, or not of the shape that was asked for.
    #[error("the payload cannot be read as asked: {message}")]
    Unreadable {
        /// What the parser said, with line and column.
        message: String,
    },
    /// A value could not be written as JSON.
    #[error("the value cannot be written as JSON: {message}")]
    Unwritable {
        /// What the serializer said.
        message: String,
    },
}

impl Payload {
    /// A JSON payload, serialised now.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Unwritable`], for a map whose keys are not strings or a failing
    /// `Serialize`.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self, PayloadError> {
        let mut buffer = vec![0; HEADROOM];
        serde_json::to_writer(&mut buffer, value)
            .map_err(|error| PayloadError::Unwritable { message: error.to_string() })?;
        // The closing bracket of the frame.
        buffer.reserve(1);
        // By way of `BytesMut`, which can be taken back without a copy.
        let buffer = BytesMut::from(Bytes::from(buffer)).freeze();
        Ok(Self { buffer, headroom: HEADROOM, binary: false })
    }

    /// A binary payload.
    #[must_use]
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self { buffer: bytes.into(), headroom: 0, binary: true }
    }

    /// The empty JSON object, which Phoenix expects where there is nothing to say.
    #[must_use]
    pub const fn empty() -> Self {
        Self { buffer: Bytes::from_static(b"{}"), headroom: 0, binary: false }
    }

    /// A slice of a frame that should be one JSON value; nobody has looked yet.
    pub(crate) const fn unparsed(buffer: Bytes) -> Self {
        Self { buffer, headroom: 0, binary: false }
    }

    /// Whether it is bytes rather than JSON.
    #[must_use]
    pub const fn is_binary(&self) -> bool {
        self.binary
    }

    /// The bytes: of the JSON text, or as they are.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer[self.headroom..]
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.buffer.len() - self.headroom
    }

    /// Whether it has no bytes at all, as a binary payload may.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The JSON text.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] for a binary payload, or text that is not UTF-8.
    pub fn get(&self) -> Result<&str, PayloadError> {
        core::str::from_utf8(self.json_bytes()?)
            .map_err(|error| PayloadError::Unreadable { message: error.to_string() })
    }

    /// Parses the JSON as a `T`.
    ///
    /// # Errors
    ///
    /// [`PayloadError`], for what is not JSON, not a `T`, or nested deeper than 128 levels.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        serde_json::from_slice(self.json_bytes()?)
            .map_err(|error| PayloadError::Unreadable { message: error.to_string() })
    }

    /// Parses the JSON as a [`Value`].
    ///
    /// # Errors
    ///
    /// As [`deserialize`](Self::deserialize).
    pub fn to_value(&self) -> Result<Value, PayloadError> {
        self.deserialize()
    }

    /// The same payload in memory of its own.
    ///
    /// An incoming payload is a slice of the connection's read buffer and keeps all of it alive;
    /// compact what you store for long.
    #[must_use]
    pub fn into_compact(self) -> Self {
        if self.headroom > 0 {
            return self;
        }
        Self { buffer: Bytes::copy_from_slice(&self.buffer), ..self }
    }

    /// Whether two payloads say the same: equal as JSON values, or equal as bytes.
    #[must_use]
    pub fn same_json(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        match (self.to_value(), other.to_value()) {
            (Ok(one), Ok(two)) => one == two,
            _ => false,
        }
    }

    /// The text frame `front` + this payload + the closing bracket `end`: in place when the buffer is ours alone and
    /// has the room, else with one copy.
    pub(crate) fn enclose(self, front: &[u8], end: u8) -> Bytes {
        let headroom = self.headroom;
        if headroom >= front.len() {
            match self.buffer.try_into_mut() {
                Ok(mut buffer) => {
                    let start = headroom - front.len();
                    buffer[start..headroom].copy_from_slice(front);
                    buffer.extend_from_slice(&[end]);
                    return buffer.freeze().slice(start..);
                }
                Err(shared) => return join(front, &shared[headroom..], end),
            }
        }
        join(front, self.as_bytes(), end)
    }

    fn json_bytes(&self) -> Result<&[u8], PayloadError> {
        if self.binary { Err(PayloadError::Binary) } else { Ok(self.as_bytes()) }
    }
}

fn join(front: &[u8], middle: &[u8], end: u8) -> Bytes {
    let mut joined = Vec::with_capacity(front.len() + middle.len() + 1);
    joined.extend_from_slice(front);
    joined.extend_from_slice(middle);
    joined.push(end);
    Bytes::from(joined)
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        // A `Value` has string keys and finite numbers, so it can always be written.
        Self::json(&value).unwrap_or_else(|_| Self::empty())
    }
}

impl From<&Self> for Payload {
    fn from(payload: &Self) -> Self {
        payload.clone()
    }
}

/// The same kind and the same bytes.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.binary == other.binary && self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.binary { "binary" } else { "json" };
        write!(f, "Payload({kind}, {} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_envelope_is_written_into_the_headroom_without_moving_the_payload() {
        let payload = Payload::from(json!({"a": 1}));
        let before = payload.as_bytes().as_ptr();
        let framed = payload.enclose(b"[1,", b']');
        assert_eq!(&framed[..], b"[1,{\"a\":1}]");
        assert_eq!(framed[3..].as_ptr(), before, "no copy");
    }

    #[test]
    fn a_shared_payload_or_a_long_envelope_is_copied_and_comes_out_the_same() {
        let payload = Payload::from(json!([1]));
        let kept = payload.clone();
        assert_eq!(&payload.enclose(b"[", b']')[..], b"[[1]]");
        let front = vec![b'x'; HEADROOM + 1];
        let framed = kept.enclose(&front, b']');
        assert_eq!(&framed[..front.len()], &front[..]);
        assert_eq!(&framed[front.len()..], b"[1]]");
    }

    #[test]
    fn equality_as_json_ignores_order_and_space() {
        let one = Payload::unparsed(Bytes::from_static(b"{\"a\":1, \"b\":2}"));
        let two = Payload::unparsed(Bytes::from_static(b"{\"b\":2,\"a\":1}"));
        assert!(one != two && one.same_json(&two));
        assert!(!Payload::binary("{}").same_json(&Payload::empty()));
    }

    #[test]
    fn a_compact_payload_does_not_hold_its_frame() {
        let frame = Bytes::from(vec![b'1'; 10_000]);
        let payload = Payload::unparsed(frame.slice(5..6)).into_compact();
        assert_eq!(payload.as_bytes(), b"1");
        assert!(!frame.as_ptr_range().contains(&payload.as_bytes().as_ptr()));
    }
}
