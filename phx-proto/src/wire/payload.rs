//! A message payload: one JSON value or raw bytes.
//!
//! An incoming payload is a slice of its frame; decoding neither copies nor parses it. An outgoing payload
//! is written into a buffer with headroom, by [`Payload::json`], [`Payload::binary`] or the push queue. A
//! codec then writes the envelope into the headroom, if the buffer is not shared and the envelope fits.

use core::fmt;
use core::ops::Range;
use std::io::{self, Write};

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::wire::{Detail, first_of_members};

/// A short name for [`Payload::HEADROOM`].
const HEADROOM: usize = Payload::HEADROOM;

/// A serialized payload of up to this length is collected on the stack, so that its buffer can be allocated
/// with its exact size. Then neither the payload nor its frame needs a second allocation: [`Bytes`]
/// allocates a reference count for such a buffer only when it is cloned.
const USUAL: usize = 160;

/// The maximum unused capacity of a buffer in bytes, or a quarter of its length if that is more. Without
/// this limit, a buffer that grew by doubling could have as much unused capacity as content, and every
/// bound in bytes would have to count it.
const SPARE_MAX: usize = 1 << 10;

/// The static memory of [`Payload::empty`].
static EMPTY: &[u8] = b"{}";

/// The maximum number of bytes of an invalid frame that are kept as evidence.
pub(crate) const EVIDENCE_MAX: usize = 256;

/// One JSON value or raw bytes. It is cheap to clone.
///
/// `Debug` shows only the kind and the length, because payloads hold private data.
///
/// ```
/// use phx_proto::Payload;
/// use serde_json::json;
///
/// let payload = Payload::from(json!({"body": "hi"}));
/// assert_eq!(payload.get()?, r#"{"body":"hi"}"#);
/// assert_eq!(payload.to_value()?["body"], "hi");
/// // A binary payload is never read as JSON, whatever its bytes are.
/// assert!(Payload::binary("{}").to_value().is_err());
/// # Ok::<(), phx_proto::wire::PayloadError>(())
/// ```
#[derive(Clone)]
pub struct Payload {
    buffer: Bytes,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// JSON in a buffer of its own, with headroom in front and one byte after it for the end of the
    /// envelope.
    Own,
    /// Bytes in a buffer of their own, with headroom in front.
    OwnBinary,
    /// Text without headroom that should be one JSON value. It is not checked.
    Found,
    /// A slice that begins with the response of a reply, which should be one JSON value. Further members
    /// of the reply may follow. See `wire/scan`.
    Member,
    /// Bytes without headroom.
    Binary,
}

/// An error of building or reading a payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The caller read a binary payload as JSON.
    #[error("the payload is binary, not JSON")]
    Binary,
    /// The payload is not JSON, does not match the requested type, or is nested too deep.
    #[error("cannot deserialize the payload: {message}")]
    Unreadable {
        /// The error, with its position if that is known, without any text of the payload.
        message: String,
        /// The message of the parser, which may quote the payload.
        detail: Detail,
    },
    /// The value could not be serialized as JSON.
    #[error("cannot serialize the value as JSON")]
    Unwritable {
        /// The message of the serializer, which may quote the value.
        detail: Detail,
    },
}

impl Payload {
    /// The number of unused bytes in front of a payload for the envelope: refs, topic, event and
    /// punctuation. A longer envelope costs one copy.
    pub const HEADROOM: usize = 96;

    /// Serializes a value as a JSON payload.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Unwritable`] if a map has a key that serde_json cannot write as a string, such as a
    /// list, or if `Serialize` fails.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self, PayloadError> {
        let mut writer = Writer { stack: [0; USUAL], len: 0, heap: BytesMut::new() };
        serde_json::to_writer(&mut writer, value)
            .map_err(|error| PayloadError::Unwritable { detail: Detail::new(error.to_string()) })?;
        let buffer = match writer.stack.get(..writer.len) {
            Some(text) => with_headroom(text, true),
            None => writer.into_heap(),
        };
        Ok(Self { buffer, kind: Kind::Own })
    }

    /// Creates a binary payload and copies the bytes into a buffer with headroom for the envelope.
    #[must_use]
    pub fn binary(bytes: impl AsRef<[u8]>) -> Self {
        Self { buffer: with_headroom(bytes.as_ref(), false), kind: Kind::OwnBinary }
    }

    /// Creates a binary payload that shares its bytes, without a copy. Each push of it copies them.
    /// Use it for received bytes, and for bytes that you already have as [`Bytes`].
    #[must_use]
    pub fn binary_shared(bytes: impl Into<Bytes>) -> Self {
        Self { buffer: bytes.into(), kind: Kind::Binary }
    }

    /// The empty JSON object, which Phoenix expects for a message without data.
    #[must_use]
    pub const fn empty() -> Self {
        Self { buffer: Bytes::from_static(EMPTY), kind: Kind::Found }
    }

    /// Creates a payload from received JSON text, without copying or parsing it. A
    /// [`Codec`](crate::wire::Codec) uses it when it finds the text of a payload in a frame.
    ///
    /// Nothing is checked here. The caller guarantees that the text is one JSON value without whitespace
    /// around it. If it is not JSON, [`to_value`](Self::to_value) returns [`PayloadError::Unreadable`], and
    /// with [`Config::strict_payloads`](crate::Config::strict_payloads) the frame causes a
    /// [`Signal::ProtocolError`](crate::Signal::ProtocolError). [`get`](Self::get) returns any text that is
    /// UTF-8. A push writes the text into a frame unchanged. A server that cannot parse that frame closes
    /// the whole connection, as it does for a number such as `1e400` (`wire/malformed_number_overflow`).
    ///
    /// ```
    /// use phx_proto::Payload;
    /// use phx_proto::wire::PayloadError;
    ///
    /// let frame = bytes::Bytes::from_static(br#"news:{"body":"hi"}"#);
    /// let payload = Payload::received_json(frame.slice(5..));
    /// assert_eq!(payload.as_bytes().as_ptr(), frame[5..].as_ptr()); // not copied
    /// assert_eq!(payload.to_value()?["body"], "hi");
    /// // Text that is not JSON is accepted here, and fails when it is read.
    /// assert!(Payload::received_json(frame).to_value().is_err());
    /// # Ok::<(), PayloadError>(())
    /// ```
    #[must_use]
    pub fn received_json(text: impl Into<Bytes>) -> Self {
        Self::unparsed(text.into())
    }

    /// Creates a payload from text that should be one JSON value. The text is not checked.
    pub(crate) const fn unparsed(buffer: Bytes) -> Self {
        Self { buffer, kind: Kind::Found }
    }

    /// Creates a payload from a slice of a frame that begins with the response of a reply, which should
    /// be one JSON value. Further members of the reply may follow.
    pub(crate) const fn member(buffer: Bytes) -> Self {
        Self { buffer, kind: Kind::Member }
    }

    /// Whether the payload is binary, not JSON.
    #[must_use]
    pub const fn is_binary(&self) -> bool {
        matches!(self.kind, Kind::Binary | Kind::OwnBinary)
    }

    /// The bytes of the JSON text, or of the binary payload.
    ///
    /// If the payload is a slice of a reply that may have further members, each call scans the slice to
    /// find the response. [`deserialize`](Self::deserialize) first parses without this scan, and scans only
    /// if that fails.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer[self.range()]
    }

    /// The length of the payload in bytes. It scans whenever [`as_bytes`](Self::as_bytes) does.
    #[must_use]
    #[inline(always)]
    pub fn len(&self) -> usize {
        match self.kind {
            // A push usually has this kind of payload, and its length is read several times.
            Kind::Own => self.buffer.len() - HEADROOM - 1,
            _ => self.range().len(),
        }
    }

    /// The length of the payload's buffer in bytes, including headroom and further members of a reply.
    /// This method does not scan.
    pub(crate) const fn held_len(&self) -> usize {
        self.buffer.len()
    }

    /// Creates a payload from `bytes`, a copy of this payload's bytes: binary if this payload is binary,
    /// otherwise JSON. It has no headroom.
    pub(super) fn with_bytes(&self, bytes: Bytes) -> Self {
        if self.is_binary() { Self::binary_shared(bytes) } else { Self::unparsed(bytes) }
    }

    /// Returns a clone if the payload may be a slice of memory that the application owns. Returns `None`
    /// for a payload made by [`json`](Self::json) or [`binary`](Self::binary), because a clone would make
    /// the codec copy it.
    ///
    /// A driver that keeps its [`Socket`](crate::Socket) behind a lock keeps this clone until it has
    /// released the lock. Dropping the last reference to memory of the application can run code of the
    /// application, which must not happen under the lock.
    #[must_use]
    pub fn shared(&self) -> Option<Self> {
        match self.kind {
            Kind::Own | Kind::OwnBinary => None,
            Kind::Found | Kind::Member | Kind::Binary => Some(self.clone()),
        }
    }

    /// Whether the payload has no bytes. A JSON value has at least one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The JSON text.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] for a binary payload, and for text that is not UTF-8.
    pub fn get(&self) -> Result<&str, PayloadError> {
        if self.is_binary() {
            return Err(PayloadError::Binary);
        }
        core::str::from_utf8(self.as_bytes()).map_err(not_utf8)
    }

    /// Parses the JSON as a `T`.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] if the payload is binary, not JSON, not a `T`, or nested deeper than 127 levels.
    /// Values that `T` ignores or keeps as a [`RawValue`](serde_json::value::RawValue) may be nested deeper.
    /// Strings in values that `T` ignores may be invalid UTF-8.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        let text = match self.kind {
            Kind::Own => self.as_bytes(),
            Kind::Found | Kind::Member => &self.buffer,
            Kind::Binary | Kind::OwnBinary => return Err(PayloadError::Binary),
        };
        match serde_json::from_slice(text) {
            Err(_) if self.has_other_members() => {
                serde_json::from_slice(self.as_bytes()).map_err(unreadable)
            }
            read => read.map_err(unreadable),
        }
    }

    /// Like [`deserialize`](Self::deserialize), for JSON that is mostly strings: the UTF-8 of the whole
    /// text is checked at once. So invalid UTF-8 is an error anywhere in the text.
    pub(crate) fn deserialize_text<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        serde_json::from_str(self.get()?).map_err(unreadable)
    }

    /// Parses the JSON as a [`Value`].
    ///
    /// # Errors
    ///
    /// The errors of [`deserialize`](Self::deserialize).
    pub fn to_value(&self) -> Result<Value, PayloadError> {
        self.deserialize()
    }

    /// Copies the payload into memory of its own. A payload made by [`json`](Self::json),
    /// [`binary`](Self::binary) or [`empty`](Self::empty) is returned without a copy.
    ///
    /// An incoming payload may be a slice of the connection's read buffer, and then keeps the whole buffer
    /// alive. Call this for payloads that you store for long.
    #[must_use]
    pub fn into_compact(self) -> Self {
        match self.kind {
            Kind::Own | Kind::OwnBinary => self,
            Kind::Found if self.is_static() => self,
            Kind::Found | Kind::Member => Self::unparsed(Bytes::copy_from_slice(self.as_bytes())),
            Kind::Binary => Self::binary_shared(Bytes::copy_from_slice(&self.buffer)),
        }
    }

    /// Copies the payload into a buffer with headroom, unless it is in one already or was made by
    /// [`empty`](Self::empty). Without this copy, a slice in the push queue could keep any amount of memory
    /// alive. The new buffer has no unused capacity. If [`enclose`](Self::enclose) can then write the envelope
    /// in place, this is the only copy.
    #[inline]
    pub(crate) fn make_own(&mut self) {
        if !matches!(self.kind, Kind::Own | Kind::OwnBinary) {
            self.copy_into_own();
        }
    }

    #[inline(never)]
    fn copy_into_own(&mut self) {
        if self.is_static() {
            return;
        }
        *self = match self.kind {
            Kind::Binary | Kind::OwnBinary => Self::binary(&self.buffer),
            _ => Self { buffer: with_headroom(self.as_bytes(), true), kind: Kind::Own },
        };
    }

    /// Whether the buffer is the static memory of [`empty`](Self::empty).
    fn is_static(&self) -> bool {
        core::ptr::eq(self.buffer.as_ptr(), EMPTY.as_ptr())
    }

    /// Creates a payload from a part of this payload's JSON text, without a copy. `part` is a slice of
    /// [`get`](Self::get) that is one JSON value.
    pub(crate) fn part(&self, part: &str) -> Self {
        Self::unparsed(self.buffer.slice_ref(part.as_bytes()))
    }

    /// Whether two payloads are equal, or have equal JSON values.
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

    /// Builds a frame: `front_len` bytes that `write_front` fills, this payload, and, if the payload is
    /// JSON, the byte `end`. Use it in [`Codec::encode`](crate::wire::Codec::encode).
    ///
    /// The envelope is written around the payload in place if three conditions hold: the payload was
    /// made by [`json`](Self::json) or [`binary`](Self::binary), or was in the push queue and was not made
    /// by [`empty`](Self::empty); no clone of it exists; and `front_len` is at most
    /// [`HEADROOM`](Self::HEADROOM). Otherwise the payload is copied once.
    ///
    /// ```
    /// use phx_proto::Payload;
    ///
    /// let payload = Payload::json(&[1, 2])?;
    /// let frame = payload.enclose(5, |front| front.copy_from_slice(b"{\"p\":"), b'}');
    /// assert_eq!(&frame[..], br#"{"p":[1,2]}"#);
    /// # Ok::<(), phx_proto::wire::PayloadError>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn enclose(self, front_len: usize, write_front: impl FnOnce(&mut [u8]), end: u8) -> Bytes {
        let is_json = !self.is_binary();
        let is_own = matches!(self.kind, Kind::Own | Kind::OwnBinary) && front_len <= HEADROOM;
        if is_own && self.buffer.len() <= HEADROOM + USUAL + 1 && self.buffer.is_unique() {
            // The usual case. For a short buffer this is cheaper than `try_into_mut`.
            let mut buffer = Vec::from(self.buffer);
            write_front(&mut buffer[HEADROOM - front_len..HEADROOM]);
            if let (true, Some(last)) = (is_json, buffer.last_mut()) {
                *last = end;
            }
            let mut frame = Bytes::from(buffer);
            frame.advance(HEADROOM - front_len);
            return frame;
        }
        self.enclose_long(front_len, write_front, end)
    }

    /// [`enclose`](Self::enclose) for a payload that is long or has to be copied.
    #[inline(never)]
    fn enclose_long(
        mut self,
        front_len: usize,
        write_front: impl FnOnce(&mut [u8]),
        end: u8,
    ) -> Bytes {
        let is_json = !self.is_binary();
        let mut front = front_len;
        let mut buffer =
            if matches!(self.kind, Kind::Own | Kind::OwnBinary) && front_len <= HEADROOM {
                match self.buffer.try_into_mut() {
                    Ok(buffer) => {
                        front = HEADROOM;
                        buffer
                    }
                    Err(shared) => {
                        self.buffer = shared;
                        self.copy_after(front_len)
                    }
                }
            } else {
                self.copy_after(front_len)
            };
        write_front(&mut buffer[front - front_len..front]);
        if let (true, Some(last)) = (is_json, buffer.last_mut()) {
            *last = end;
        }
        let mut frame = buffer.freeze();
        frame.advance(front - front_len);
        frame
    }

    /// Copies the payload into a new buffer after `front_len` bytes, with one byte after it if it is
    /// JSON.
    #[cold]
    fn copy_after(&self, front_len: usize) -> BytesMut {
        let (payload, end) = (self.as_bytes(), usize::from(!self.is_binary()));
        let mut buffer = BytesMut::with_capacity(front_len + payload.len() + end);
        buffer.resize(front_len, 0);
        buffer.extend_from_slice(payload);
        buffer.resize(front_len + payload.len() + end, 0);
        buffer
    }

    /// Whether the payload is a slice of a reply that has valid members besides the response.
    fn has_other_members(&self) -> bool {
        self.kind == Kind::Member && self.len() < self.buffer.len()
    }

    #[inline]
    fn range(&self) -> Range<usize> {
        match self.kind {
            Kind::Own => HEADROOM..self.buffer.len() - 1,
            Kind::OwnBinary => HEADROOM..self.buffer.len(),
            Kind::Found | Kind::Binary => 0..self.buffer.len(),
            Kind::Member => first_of_members(&self.buffer),
        }
    }
}

/// Copies bytes into a buffer with headroom, and with one byte for the end of the envelope if `end`.
#[inline]
fn with_headroom(bytes: &[u8], end: bool) -> Bytes {
    // The exact size, as described at `USUAL`.
    let mut buffer = Vec::with_capacity(HEADROOM + bytes.len() + usize::from(end));
    buffer.resize(HEADROOM, 0);
    buffer.extend_from_slice(bytes);
    if end {
        buffer.push(0);
    }
    Bytes::from(buffer)
}

pub(crate) fn unreadable(error: serde_json::Error) -> PayloadError {
    let detail = error.to_string();
    // The message about a value that does not match the type may quote the value. The message about invalid
    // JSON does not.
    let message = if !error.is_data() || names_a_missing_field(&detail) {
        detail.clone()
    } else if error.line() == 0 {
        // An error that a type reports after the whole text was parsed has no position.
        "the value does not match the requested type".to_owned()
    } else {
        let (line, column) = (error.line(), error.column());
        format!("the value does not match the requested type at line {line} column {column}")
    };
    PayloadError::Unreadable { message, detail: Detail::new(detail) }
}

/// Whether this is serde's message about a missing field whose name has only ASCII letters, digits and
/// underscores. Such a name comes from the type, not from the payload.
fn names_a_missing_field(message: &str) -> bool {
    let message = message.split(" at line ").next().unwrap_or_default();
    let name = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

fn not_utf8(error: core::str::Utf8Error) -> PayloadError {
    let message = error.to_string();
    PayloadError::Unreadable { detail: Detail::new(message.clone()), message }
}

/// A buffer for the serializer.
struct Writer {
    stack: [u8; USUAL],
    /// The length of the text on the stack; greater than [`USUAL`] once the text is on the heap.
    len: usize,
    /// The headroom and the text, once the text is longer than [`USUAL`]; empty before.
    heap: BytesMut,
}

impl Writer {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        match self.stack.get_mut(self.len..self.len + bytes.len()) {
            Some(space) => {
                space.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.put_on_heap(bytes),
        }
    }

    #[inline(never)]
    fn put_on_heap(&mut self, bytes: &[u8]) {
        if let Some(text) = self.stack.get(..self.len) {
            self.heap.reserve(HEADROOM + 4 * USUAL + bytes.len());
            self.heap.resize(HEADROOM, 0);
            self.heap.extend_from_slice(text);
            self.len = USUAL + 1;
        }
        self.heap.extend_from_slice(bytes);
    }

    /// The buffer on the heap, with one byte for the end of the envelope.
    fn into_heap(self) -> Bytes {
        let mut buffer = self.heap;
        buffer.extend_from_slice(&[0]);
        if buffer.capacity() - buffer.len() > SPARE_MAX.max(buffer.len() / 4) {
            return Bytes::from(Vec::from(&buffer[..]));
        }
        // `split` allocates the buffer's reference count now, so that `enclose` can make the buffer mutable
        // again and freeze it as the frame without an allocation.
        buffer.split().freeze()
    }
}

impl Write for Writer {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes);
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        // A `Value` has string keys and finite numbers, so serializing it cannot fail.
        Self::json(&value).unwrap_or_else(|_| Self::empty())
    }
}

impl From<&Self> for Payload {
    fn from(payload: &Self) -> Self {
        payload.clone()
    }
}

/// Payloads are equal if both are binary or both are JSON, and their bytes are the same.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.is_binary() == other.is_binary() && self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_binary() { "binary" } else { "json" };
        write!(f, "Payload({kind}, {} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The message describes the error without a value of the payload.
    #[test]
    fn unreadable_payload_message_omits_values() {
        let message = |text: &'static str| {
            let read = Payload::received_json(text).deserialize::<Vec<u8>>();
            read.expect_err("not a list of bytes").to_string()
        };
        assert!(message("[1,").contains("EOF while parsing"), "{}", message("[1,"));
        let other = message(r#"["s3cret"]"#);
        assert!(other.contains("the requested type at line 1 column 9"), "{other}");
        assert!(!other.contains("s3cret"), "{other}");

        #[derive(Debug, serde::Deserialize)]
        #[serde(try_from = "String")]
        struct Never;
        impl TryFrom<String> for Never {
            type Error = String;
            fn try_from(value: String) -> Result<Self, String> {
                Err(value)
            }
        }
        let read = Payload::received_json(r#""s3cret""#).deserialize::<Never>();
        let other = read.expect_err("never").to_string();
        assert!(other.ends_with("the requested type"), "{other}");

        #[derive(Debug, serde::Deserialize)]
        struct Named {
            #[allow(dead_code, reason = "only its absence matters")]
            topic: String,
        }
        let read = Payload::received_json("{}").deserialize::<Named>();
        let missing = read.expect_err("no topic").to_string();
        assert!(missing.contains("missing field `topic`"), "{missing}");
    }

    #[test]
    fn envelope_is_written_into_headroom() {
        let payload = Payload::from(json!({"a": 1}));
        let before = payload.as_bytes().as_ptr();
        let framed = payload.enclose(3, |front| front.copy_from_slice(b"[1,"), b']');
        assert_eq!(&framed[..], b"[1,{\"a\":1}]");
        assert_eq!(framed[3..].as_ptr(), before, "no copy");
    }

    #[test]
    fn enclose_copies_if_shared_or_envelope_long() {
        let payload = Payload::from(json!([1]));
        let kept = payload.clone();
        assert_eq!(&payload.enclose(1, |front| front.fill(b'['), b']')[..], b"[[1]]");
        let front = vec![b'x'; HEADROOM + 1];
        let framed = kept.enclose(front.len(), |into| into.copy_from_slice(&front), b']');
        assert_eq!(&framed[..front.len()], &front[..]);
        assert_eq!(&framed[front.len()..], b"[1]]");
    }

    #[test]
    fn same_json_ignores_order_and_space() {
        let one = Payload::unparsed(Bytes::from_static(b"{\"a\":1, \"b\":2}"));
        let two = Payload::unparsed(Bytes::from_static(b"{\"b\":2,\"a\":1}"));
        assert!(one != two && one.same_json(&two));
        assert!(!Payload::binary("{}").same_json(&Payload::empty()));
    }

    #[test]
    fn reply_response_excludes_further_members() {
        let member = |text: &'static str| Payload::member(Bytes::from_static(text.as_bytes()));
        for (found, response) in [
            (r#"{"a":"}"}"#, r#"{"a":"}"}"#),
            (r#"[1] , "x":{},"y":"\"""#, "[1]"),
            (r#"1,"response":2,"x":3"#, "2"),
        ] {
            let payload = member(found);
            assert_eq!(payload.get(), Ok(response));
            assert_eq!(payload.to_value(), Ok(serde_json::from_str(response).unwrap()));
            assert_eq!(payload.clone().into_compact().buffer, response.as_bytes());
            assert!(payload.len() == response.len() && payload == payload.clone().into_compact());
        }
        for bad in ["{}{}", r#"1,"x""#, r#"1,"x":"#, r#"1,"x":tru"#, "1,", "\u{7f}", r#"1,"x":[}"#]
        {
            assert!(
                matches!(member(bad).to_value(), Err(PayloadError::Unreadable { .. })),
                "{bad}"
            );
        }
    }

    /// A buffer that grew by doubling could be half unused.
    #[test]
    fn own_buffer_has_little_unused_capacity() {
        for len in [10, USUAL - 2, USUAL - 1, 2_000, 5_000, 70_000, 3 << 20] {
            let payload = Payload::json(&"x".repeat(len)).expect("JSON");
            assert_eq!(payload.len(), len + 2);
            let capacity = payload.buffer.try_into_mut().expect("not shared").capacity();
            let used = HEADROOM + len + 3;
            assert!(capacity >= used && capacity - used <= SPARE_MAX.max(used / 4), "{capacity}");
        }
    }

    #[test]
    fn queued_payload_holds_no_foreign_buffer() {
        let frame = Bytes::from(vec![b'1'; 10_000]);
        let slice = || frame.slice(5..8);
        let member = Payload::member(Bytes::from_static(br#"[1],"x":2"#));
        for (payload, bytes) in [
            (Payload::unparsed(slice()), &b"111"[..]),
            (Payload::binary_shared(slice()), b"111"),
            (member, b"[1]"),
        ] {
            let mut own = payload.clone();
            own.make_own();
            assert_eq!((&own, own.as_bytes()), (&payload, bytes));
            let at = own.as_bytes().as_ptr();
            assert!(!frame.as_ptr_range().contains(&at));
            let framed = own.enclose(1, |front| front.fill(b'['), b']');
            assert_eq!(framed[1..].as_ptr(), at, "not copied again");
        }
        // A payload that has its own buffer or is static is not copied.
        for mut payload in
            [Payload::json(&1).expect("JSON"), Payload::binary("x"), Payload::empty()]
        {
            let at = payload.as_bytes().as_ptr();
            payload.make_own();
            assert_eq!(payload.as_bytes().as_ptr(), at);
            assert_eq!(payload.into_compact().as_bytes().as_ptr(), at);
        }
    }

    #[test]
    fn compact_payload_releases_its_frame() {
        let frame = Bytes::from(vec![b'1'; 10_000]);
        let payload = Payload::unparsed(frame.slice(5..6)).into_compact();
        assert_eq!(payload.as_bytes(), b"1");
        assert!(!frame.as_ptr_range().contains(&payload.as_bytes().as_ptr()));
    }
}
