//! Payloads: one JSON value or raw bytes, parsed only by whoever reads it.
//!
//! An incoming payload is the untouched rest of its frame: a slice, no copy, no parse. An
//! outgoing one is serialised once, at the call, into a buffer with headroom, so that the
//! envelope can be written in front of it when the frame is pulled.

use core::fmt;
use core::ops::Range;
use std::io::{self, Write};

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::wire::{Detail, first_of_members};

/// [`Payload::HEADROOM`].
const HEADROOM: usize = Payload::HEADROOM;

/// Room for a payload of common length, so that serialising it need not ask for more.
const USUAL: usize = 160;

/// A buffer may have this much unused capacity, or a quarter of what it holds. What grew by doubling
/// can have as much again as it holds, which every bound in bytes would have to count.
const SPARE_MAX: usize = 1 << 10;

/// What [`Payload::empty`] holds: memory that is never freed.
static EMPTY: &[u8] = b"{}";

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
/// # Ok::<(), phx_proto::wire::PayloadError>(())
/// ```
#[derive(Clone)]
pub struct Payload {
    buffer: Bytes,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Serialised here, with headroom in front and one byte behind for the end of the envelope.
    Own,
    /// Bytes copied here, with headroom in front.
    OwnBinary,
    /// A slice that should be one JSON value; nobody has looked yet.
    Found,
    /// A slice that should be one JSON value, and may go on with further members of the reply
    /// that it is the response of. See `wire/scan`.
    Member,
    Binary,
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
        /// What is wrong and where, without what stands there.
        message: String,
        /// What the parser said, which may quote the payload.
        detail: Detail,
    },
    /// A value could not be written as JSON.
    #[error("the value cannot be written as JSON")]
    Unwritable {
        /// What the serializer said, which may quote the value.
        detail: Detail,
    },
}

impl Payload {
    /// The room in front of a payload to be sent, in bytes: enough for two 20-digit refs, their
    /// punctuation, and topic and event of common length. A longer envelope costs one copy.
    pub const HEADROOM: usize = 96;

    /// A JSON payload, serialised now.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Unwritable`], for a map whose keys are not strings or a failing
    /// `Serialize`.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self, PayloadError> {
        let mut room = Room(BytesMut::with_capacity(HEADROOM + USUAL));
        room.0.resize(HEADROOM, 0);
        serde_json::to_writer(&mut room, value)
            .map_err(|error| PayloadError::Unwritable { detail: Detail::new(error.to_string()) })?;
        room.0.extend_from_slice(&[0]);
        let mut buffer = room.0;
        if buffer.capacity() - buffer.len() > SPARE_MAX.max(buffer.len() / 4) {
            let mut exact = BytesMut::with_capacity(buffer.len() + 1);
            exact.extend_from_slice(&buffer);
            buffer = exact;
        }
        // Split off, it is shared memory already: to take it back and to give it away again as
        // the frame then allocates nothing.
        Ok(Self { buffer: buffer.split().freeze(), kind: Kind::Own })
    }

    /// A binary payload, copied once into the buffer that becomes the frame.
    #[must_use]
    pub fn binary(bytes: impl AsRef<[u8]>) -> Self {
        Self { buffer: with_headroom(bytes.as_ref(), false), kind: Kind::OwnBinary }
    }

    /// A binary payload that shares its bytes: taken without a copy, and copied when a frame is
    /// written. For what is received, and for bytes that are held anyway and pushed often.
    #[must_use]
    pub fn binary_shared(bytes: impl Into<Bytes>) -> Self {
        Self { buffer: bytes.into(), kind: Kind::Binary }
    }

    /// The empty JSON object, which Phoenix expects where there is nothing to say.
    #[must_use]
    pub const fn empty() -> Self {
        Self { buffer: Bytes::from_static(EMPTY), kind: Kind::Found }
    }

    /// JSON text that was received, taken as it is: neither copied nor parsed. For a
    /// [`Codec`](crate::wire::Codec) that finds the text of a payload in a frame.
    ///
    /// Nothing is checked here. The caller states that the text is one JSON value, without space around
    /// it; if that is wrong, its reader gets the error: [`deserialize`](Self::deserialize) and
    /// [`to_value`](Self::to_value) return [`PayloadError::Unreadable`], and with
    /// [`Config::strict_payloads`](crate::Config::strict_payloads) the frame is a
    /// [`Signal::ProtocolError`](crate::Signal::ProtocolError). [`get`](Self::get) returns any text that is
    /// UTF-8. A push writes it into a frame as it is; a server that cannot parse the frame ends the whole
    /// connection, as it does for a number such as `1e400` (`wire/malformed_number_overflow`).
    ///
    /// ```
    /// use phx_proto::Payload;
    /// use phx_proto::wire::PayloadError;
    ///
    /// let frame = bytes::Bytes::from_static(br#"news:{"body":"hi"}"#);
    /// let payload = Payload::received_json(frame.slice(5..));
    /// assert_eq!(payload.as_bytes().as_ptr(), frame[5..].as_ptr()); // not copied
    /// assert_eq!(payload.to_value()?["body"], "hi");
    /// // Nothing was looked at before.
    /// assert!(Payload::received_json(frame).to_value().is_err());
    /// # Ok::<(), PayloadError>(())
    /// ```
    #[must_use]
    pub fn received_json(text: impl Into<Bytes>) -> Self {
        Self::unparsed(text.into())
    }

    /// A slice of a frame that should be one JSON value; nobody has looked yet.
    pub(crate) const fn unparsed(buffer: Bytes) -> Self {
        Self { buffer, kind: Kind::Found }
    }

    /// A slice of a frame that begins with what should be one JSON value, the response of a
    /// reply, and may go on with further members of that reply.
    pub(crate) const fn member(buffer: Bytes) -> Self {
        Self { buffer, kind: Kind::Member }
    }

    /// Whether it is bytes rather than JSON.
    #[must_use]
    pub const fn is_binary(&self) -> bool {
        matches!(self.kind, Kind::Binary | Kind::OwnBinary)
    }

    /// The bytes: of the JSON text, or as they are.
    ///
    /// The response of a reply is walked through to find its end; [`deserialize`](Self::deserialize)
    /// does without.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer[self.range()]
    }

    /// Its length in bytes, for which the response of a reply is walked through as by
    /// [`as_bytes`](Self::as_bytes).
    #[must_use]
    #[inline(always)]
    pub fn len(&self) -> usize {
        match self.kind {
            // Every push is one, and its length is asked several times.
            Kind::Own => self.buffer.len() - HEADROOM - 1,
            _ => self.range().len(),
        }
    }

    /// The length of its buffer in bytes, further members of a reply and headroom included: what it
    /// takes in memory, found without a look at the bytes.
    pub(crate) const fn held_len(&self) -> usize {
        self.buffer.len()
    }

    /// The same kind of payload with these bytes, which are a copy of its own.
    pub(super) fn with_bytes(&self, bytes: Bytes) -> Self {
        if self.is_binary() { Self::binary_shared(bytes) } else { Self::unparsed(bytes) }
    }

    /// A clone, if the payload may be a slice of memory that the application owns; `None` for what
    /// [`json`](Self::json) and [`binary`](Self::binary) wrote into a buffer of their own, which becomes
    /// the frame in place only while it is not shared.
    ///
    /// A driver that keeps its [`Socket`](crate::Socket) behind a lock holds such a clone over the call,
    /// so that the last reference to memory of the application, whose drop runs its code, is dropped
    /// after the lock.
    #[must_use]
    pub fn shared(&self) -> Option<Self> {
        match self.kind {
            Kind::Own | Kind::OwnBinary => None,
            Kind::Found | Kind::Member | Kind::Binary => Some(self.clone()),
        }
    }

    /// Whether it has no bytes at all, as a binary payload may.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The JSON text.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] for a binary payload, or text that is not UTF-8.
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
    /// [`PayloadError`], for what is not JSON, not a `T`, or nested deeper than 128 levels.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        let text = match self.kind {
            Kind::Own => self.as_bytes(),
            Kind::Found | Kind::Member => &self.buffer,
            Kind::Binary | Kind::OwnBinary => return Err(PayloadError::Binary),
        };
        match serde_json::from_slice(text) {
            Err(_) if self.is_followed_by_members() => {
                serde_json::from_slice(self.as_bytes()).map_err(unreadable)
            }
            read => read.map_err(unreadable),
        }
    }

    /// The same for JSON that is mostly strings: it is checked to be UTF-8 as a whole, which costs
    /// less than a check of each.
    pub(crate) fn deserialize_text<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        serde_json::from_str(self.get()?).map_err(unreadable)
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
        match self.kind {
            Kind::Own | Kind::OwnBinary => self,
            Kind::Found if self.is_static() => self,
            Kind::Found | Kind::Member => Self::unparsed(Bytes::copy_from_slice(self.as_bytes())),
            Kind::Binary => Self::binary_shared(Bytes::copy_from_slice(&self.buffer)),
        }
    }

    /// Moves it into a buffer that becomes the frame in place. That holds no more memory than
    /// [`len`](Self::len) says, but for the headroom and a quarter: a slice may keep any amount
    /// alive. What is queued is copied here and not when its frame is built, so this costs nothing.
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

    /// Whether it is [`empty`](Self::empty), or a part of it.
    fn is_static(&self) -> bool {
        core::ptr::eq(self.buffer.as_ptr(), EMPTY.as_ptr())
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

    /// The bytes of a frame: `front_len` bytes that `write_front` fills, this payload, and the byte
    /// `end` if the payload is JSON; nothing stands behind bytes. For [`Codec::encode`](crate::wire::Codec::encode).
    ///
    /// They are written around the payload in place, without a copy, when it was made by
    /// [`json`](Self::json) or [`binary`](Self::binary) or has waited in the push queue, no clone of it is
    /// left, and `front_len` is at most [`HEADROOM`](Self::HEADROOM); else the payload is copied once.
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
    pub fn enclose(
        mut self,
        front_len: usize,
        write_front: impl FnOnce(&mut [u8]),
        end: u8,
    ) -> Bytes {
        let is_json = !self.is_binary();
        // One place where the front is written, so that it is inlined.
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
                        self.copied_behind(front_len)
                    }
                }
            } else {
                self.copied_behind(front_len)
            };
        write_front(&mut buffer[front - front_len..front]);
        if let (true, Some(last)) = (is_json, buffer.last_mut()) {
            *last = end;
        }
        let mut frame = buffer.freeze();
        frame.advance(front - front_len);
        frame
    }

    /// A copy behind so many bytes, with one more behind it if it is JSON.
    #[cold]
    fn copied_behind(&self, front_len: usize) -> BytesMut {
        let (payload, end) = (self.as_bytes(), usize::from(!self.is_binary()));
        let mut buffer = BytesMut::with_capacity(front_len + payload.len() + end);
        buffer.resize(front_len, 0);
        buffer.extend_from_slice(payload);
        buffer.resize(front_len + payload.len() + end, 0);
        buffer
    }

    /// Whether it is the response of a reply, with further members behind it, which are good JSON.
    fn is_followed_by_members(&self) -> bool {
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

/// These bytes behind the headroom, and with `end` a byte behind them for the end of the envelope.
fn with_headroom(bytes: &[u8], end: bool) -> Bytes {
    let mut buffer = BytesMut::with_capacity(HEADROOM + bytes.len() + 1 + usize::from(end));
    buffer.resize(HEADROOM, 0);
    buffer.extend_from_slice(bytes);
    if end {
        buffer.extend_from_slice(&[0]);
    }
    // As with JSON; what is left over makes it shared memory.
    buffer.split().freeze()
}

pub(crate) fn unreadable(error: serde_json::Error) -> PayloadError {
    // The words about a value of the wrong type quote it; those about bad JSON do not.
    let words = error.to_string();
    let message = if error.is_data() && !names_a_missing_field(&words) {
        format!("another type is expected at line {} column {}", error.line(), error.column())
    } else {
        words.clone()
    };
    PayloadError::Unreadable { message, detail: Detail::new(words) }
}

/// Whether these are serde's words about a member that is not there: its name is the type's.
fn names_a_missing_field(words: &str) -> bool {
    let words = words.split(" at line ").next().unwrap_or_default();
    let name = words.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

fn not_utf8(error: core::str::Utf8Error) -> PayloadError {
    let message = error.to_string();
    PayloadError::Unreadable { detail: Detail::new(message.clone()), message }
}

/// A buffer to serialise into.
struct Room(BytesMut);

impl Write for Room {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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

    #[test]
    fn the_envelope_is_written_into_the_headroom_without_moving_the_payload() {
        let payload = Payload::from(json!({"a": 1}));
        let before = payload.as_bytes().as_ptr();
        let framed = payload.enclose(3, |front| front.copy_from_slice(b"[1,"), b']');
        assert_eq!(&framed[..], b"[1,{\"a\":1}]");
        assert_eq!(framed[3..].as_ptr(), before, "no copy");
    }

    #[test]
    fn a_shared_payload_or_a_long_envelope_is_copied_and_comes_out_the_same() {
        let payload = Payload::from(json!([1]));
        let kept = payload.clone();
        assert_eq!(&payload.enclose(1, |front| front.fill(b'['), b']')[..], b"[[1]]");
        let front = vec![b'x'; HEADROOM + 1];
        let framed = kept.enclose(front.len(), |into| into.copy_from_slice(&front), b']');
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
    fn further_members_of_a_reply_are_not_part_of_its_response() {
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

    /// A buffer that grew by doubling has up to half of itself unused.
    #[test]
    fn own_buffer_has_little_unused_capacity() {
        for len in [10, 2_000, 5_000, 70_000, 3 << 20] {
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
        // What is our own already, or static, stays where it is.
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
    fn a_compact_payload_does_not_hold_its_frame() {
        let frame = Bytes::from(vec![b'1'; 10_000]);
        let payload = Payload::unparsed(frame.slice(5..6)).into_compact();
        assert_eq!(payload.as_bytes(), b"1");
        assert!(!frame.as_ptr_range().contains(&payload.as_bytes().as_ptr()));
    }
}
