//! The receiving half: parses frames from the caller's buffer and assembles messages (RFC 6455
//! sections 5.4 and 6.2).
//!
//! ```text
//!             header is complete              payload is complete
//!   ┌─▶ Header ────────────────▶ Payload ───────────────┬──────────────┐
//!   │     │ it breaks a rule       │ it is not UTF-8    │ control,     │ fragment
//!   │     ▼                        ▼                    │ or a whole   ▼
//!   │   Over: further input is discarded               │ message   added to the message:
//!   │     ▲                                             ▼           the last one completes it
//!   │     └──────────────── a close frame ────────── an event          │
//!   └──────────────────────────────────────────────────┴───────────────┘
//! ```
//!
//! Incomplete input stays in the caller's buffer. The part of a payload that has arrived is
//! unmasked and checked at once. So no byte is processed twice, a text fails at its first invalid
//! byte, and the outcome does not depend on how the stream was cut into reads.
//!
//! A message in one frame is a slice of the buffer. Fragments are copied into a buffer of their own. A
//! compressed message is decompressed and checked when it is complete.

use core::{fmt, str};

use bytes::{Buf, Bytes, BytesMut};

use super::close::{self, Close};
use super::deflate::{Decompressor, Scratch, compressed_max};
use super::endpoint::Limits;
use super::frame::{Expected, Header, Opcode};
use super::mask;
use super::utf8::{Utf8, is_ascii};
use super::violation::Violation;
use crate::wire::Frame;

/// The result of a complete frame.
#[derive(Debug)]
pub(super) enum Received {
    Message(Frame),
    Ping(Bytes),
    Pong(Bytes),
    Close(Close),
}

/// The receiving half of an endpoint.
#[derive(Clone, Debug)]
pub(super) struct Receiver {
    /// Whether the peer is a client, whose frames are masked.
    masked: bool,
    frame_max: usize,
    message_max: usize,
    fragments_max: u32,
    empty_fragments_max: u32,
    /// The frame whose payload is arriving.
    current: Option<Current>,
    /// The message whose last fragment has not arrived.
    message: Option<Assembly>,
    /// The UTF-8 check of the text that is arriving.
    utf8: Utf8,
    /// Set if compression was negotiated.
    pub(super) decompressor: Option<Box<Decompressor>>,
    /// Whether a close frame was received or a violation was found.
    over: bool,
}

#[derive(Clone, Copy, Debug)]
struct Current {
    header: Header,
    /// The length of the payload, which is within the limits.
    length: usize,
    /// How many bytes of the payload in the buffer are already unmasked and checked.
    checked: usize,
}

#[derive(Clone)]
struct Assembly {
    is_text: bool,
    compressed: bool,
    data: Vec<u8>,
    fragments: u32,
    empty_fragments: u32,
}

impl fmt::Debug for Assembly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_text { "Text" } else { "Binary" };
        write!(f, "{kind}({} bytes in {} fragments)", self.data.len(), self.fragments)
    }
}

impl Receiver {
    pub(super) fn new(masked: bool, limits: &Limits) -> Self {
        Self {
            masked,
            frame_max: limits.frame_bytes_max,
            message_max: limits.message_bytes_max,
            fragments_max: limits.fragments_max,
            empty_fragments_max: limits.empty_fragments_max,
            current: None,
            message: None,
            utf8: Utf8::default(),
            decompressor: None,
            over: false,
        }
    }

    /// Fast path: returns a message that is complete in the buffer as one frame of up to 64 KiB, as
    /// most messages of Phoenix are. In all other cases it returns `None` and leaves the buffer to
    /// [`poll`](Self::poll), which gives the same results.
    ///
    /// In the instruction benchmark, a message of 64 bytes costs half as much on this path.
    #[inline]
    pub(super) fn poll_whole(&self, buffer: &mut BytesMut) -> Option<Frame> {
        let (length, size) = match **buffer {
            [_, length @ 0..=125, ..] => (usize::from(length), 2),
            [_, 126, a, b, ..] if a > 0 || b > 125 => (usize::from(u16::from_be_bytes([a, b])), 4),
            _ => return None,
        };
        let is_between = self.current.is_none() && self.message.is_none() && !self.over;
        let is_within = length <= self.frame_max && length <= self.message_max;
        if !is_between || !is_within || self.masked {
            return None;
        }
        let payload = buffer.get(size..size + length)?;
        let is_text = match buffer[0] {
            0x81 if is_ascii(payload) || str::from_utf8(payload).is_ok() => true,
            0x82 => false,
            _ => return None,
        };
        let mut frame = buffer.split_to(size + length).freeze();
        frame.advance(size);
        Some(message(is_text, frame))
    }

    /// Consumes bytes from the front of the buffer until a frame completes a message, or a control
    /// frame is complete.
    pub(super) fn poll(
        &mut self,
        buffer: &mut BytesMut,
        scratch: Option<&mut Scratch>,
    ) -> Result<Option<Received>, Violation> {
        if self.over {
            // RFC 6455 section 1.4: after receiving a close frame, a peer discards any further data;
            // section 7.1.7: nothing is processed after the connection has failed.
            buffer.clear();
            return Ok(None);
        }
        let polled = self.poll_frames(buffer, scratch);
        if matches!(polled, Err(_) | Ok(Some(Received::Close(_)))) {
            self.stop(buffer);
        }
        polled
    }

    /// How many bytes of the arriving frame are not in the buffer yet.
    pub(super) fn missing(&self, buffered: usize) -> usize {
        self.current.map_or(0, |current| current.length.saturating_sub(buffered))
    }

    /// Discards the buffer and all further input.
    fn stop(&mut self, buffer: &mut BytesMut) {
        self.over = true;
        self.current = None;
        self.message = None;
        buffer.clear();
    }

    #[inline]
    fn poll_frames(
        &mut self,
        buffer: &mut BytesMut,
        mut scratch: Option<&mut Scratch>,
    ) -> Result<Option<Received>, Violation> {
        loop {
            let mut current = match self.current.take() {
                Some(current) => current,
                None => match self.header(buffer)? {
                    Some(current) => current,
                    None => return Ok(None),
                },
            };
            let there = buffer.len().min(current.length);
            // If the caller removed bytes that had to stay in the buffer, the slice is empty
            // instead of a panic.
            let next = buffer.get_mut(current.checked..there).unwrap_or_default();
            self.check(&current.header, current.checked, next)?;
            if there < current.length {
                current.checked = there;
                self.current = Some(current);
                return Ok(None);
            }
            let scratch = scratch.as_deref_mut();
            let received = self.complete(&current.header, current.length, buffer, scratch)?;
            if received.is_some() {
                return Ok(received);
            }
        }
    }

    /// Removes a header from the buffer, once it is complete.
    #[inline]
    fn header(&self, buffer: &mut BytesMut) -> Result<Option<Current>, Violation> {
        let expected = Expected {
            masked: self.masked,
            continuation: self.message.is_some(),
            compression: self.decompressor.is_some(),
        };
        let Some((header, size)) = Header::read(buffer, expected)? else { return Ok(None) };
        let length = self.within_limits(&header)?;
        buffer.advance(size);
        Ok(Some(Current { header, length, checked: 0 }))
    }

    /// Checks the length of a frame against the limits, and returns it.
    ///
    /// RFC 6455 section 10.4: implementations that have limitations regarding the frame size or the
    /// message size after reassembly MUST protect themselves against exceeding those limits.
    #[inline]
    fn within_limits(&self, header: &Header) -> Result<usize, Violation> {
        let Header { length, .. } = *header;
        let within = |max| usize::try_from(length).ok().filter(|length| *length <= max);
        if header.opcode.is_control() {
            // A control frame has at most 125 bytes and is not part of the message whose fragments
            // surround it.
            return Ok(length as usize);
        }
        let max = self.frame_max;
        let frame = within(max).ok_or(Violation::FrameTooLong { length, max })?;
        let message = self.message.as_ref();
        let is_compressed = message.map_or(header.compressed, |message| message.compressed);
        // The message itself is measured when it is decompressed.
        let max = if is_compressed { compressed_max(self.message_max) } else { self.message_max };
        let before = message.map_or(0, |message| message.data.len());
        if max.checked_sub(before).is_none_or(|room| frame > room) {
            let length = length.saturating_add(before as u64);
            return Err(Violation::MessageTooLong { length, max: self.message_max });
        }
        if let Some(message) = &self.message {
            if message.fragments >= self.fragments_max {
                return Err(Violation::TooManyFragments { max: self.fragments_max });
            }
        }
        let empty = self.message.as_ref().map_or(0, |message| message.empty_fragments);
        let is_fragment = self.message.is_some() || !header.fin;
        if is_fragment && length == 0 && empty >= self.empty_fragments_max {
            return Err(Violation::TooManyEmptyFragments { max: self.empty_fragments_max });
        }
        Ok(frame)
    }

    /// Unmasks and checks the part of a payload that has arrived, from `offset` on.
    #[inline]
    fn check(&mut self, header: &Header, offset: usize, bytes: &mut [u8]) -> Result<(), Violation> {
        if let Some(key) = header.mask {
            mask::apply(bytes, key, offset);
        }
        let is_text = match header.opcode {
            Opcode::Text => !header.compressed,
            Opcode::Continuation => {
                self.message.as_ref().is_some_and(|message| message.is_text && !message.compressed)
            }
            _ => false,
        };
        // RFC 6455 section 8.1: a byte stream that is not UTF-8 MUST fail the connection. A character
        // may be cut by the end of a fragment (section 5.6), not by the end of the message.
        if is_text {
            self.utf8.push(bytes).map_err(|at| Violation::TextNotUtf8 { at })?;
        }
        Ok(())
    }

    /// Removes a complete payload from the buffer.
    #[inline]
    fn complete(
        &mut self,
        header: &Header,
        length: usize,
        buffer: &mut BytesMut,
        scratch: Option<&mut Scratch>,
    ) -> Result<Option<Received>, Violation> {
        let is_text = match header.opcode {
            Opcode::Text | Opcode::Binary if header.fin => {
                let is_text = header.opcode == Opcode::Text;
                if header.compressed {
                    let compressed = buffer.split_to(length);
                    let frame = self.decompressed(is_text, &compressed, scratch)?;
                    return Ok(Some(Received::Message(frame)));
                }
                if is_text {
                    self.utf8.finish().map_err(|at| Violation::TextNotUtf8 { at })?;
                }
                let frame = message(is_text, buffer.split_to(length).freeze());
                return Ok(Some(Received::Message(frame)));
            }
            Opcode::Text => true,
            Opcode::Binary => false,
            Opcode::Continuation => {
                return self.continued(header.fin, length, buffer, scratch);
            }
            Opcode::Ping => return Ok(Some(Received::Ping(buffer.split_to(length).freeze()))),
            Opcode::Pong => return Ok(Some(Received::Pong(buffer.split_to(length).freeze()))),
            Opcode::Close => return close::read(&buffer[..length]).map(Received::Close).map(Some),
        };
        let data = Vec::with_capacity(length);
        let compressed = header.compressed;
        self.message =
            Some(Assembly { is_text, compressed, data, fragments: 0, empty_fragments: 0 });
        self.continued(false, length, buffer, scratch)
    }

    /// Adds a fragment to the message; the last one completes it.
    fn continued(
        &mut self,
        is_last: bool,
        length: usize,
        buffer: &mut BytesMut,
        scratch: Option<&mut Scratch>,
    ) -> Result<Option<Received>, Violation> {
        let Some(mut whole) = self.message.take() else { return Ok(None) };
        whole.data.extend_from_slice(&buffer[..length]);
        buffer.advance(length);
        if !is_last {
            whole.fragments += 1;
            whole.empty_fragments += u32::from(length == 0);
            self.message = Some(whole);
            return Ok(None);
        }
        if whole.compressed {
            let frame = self.decompressed(whole.is_text, &whole.data, scratch)?;
            return Ok(Some(Received::Message(frame)));
        }
        if whole.is_text {
            self.utf8.finish().map_err(|at| Violation::TextNotUtf8 { at })?;
        }
        Ok(Some(Received::Message(message(whole.is_text, without_spare(whole.data)))))
    }

    /// Decompresses and checks a complete message.
    fn decompressed(
        &mut self,
        is_text: bool,
        compressed: &[u8],
        scratch: Option<&mut Scratch>,
    ) -> Result<Frame, Violation> {
        let max = self.message_max;
        // A header has RSV1 only if there is a decompressor.
        let Some(decompressor) = &mut self.decompressor else {
            return Err(Violation::ReservedBits { bits: 0b100 });
        };
        let data = decompressor.decompress(compressed, is_text, max, scratch)?;
        Ok(message(is_text, without_spare(data)))
    }
}

/// Frees the spare capacity of a long message. Its buffer has grown by doubling.
fn without_spare(mut data: Vec<u8>) -> Bytes {
    /// Below this length the saving is not worth the call.
    const LARGE: usize = 64 << 10;
    if data.len() >= LARGE {
        data.shrink_to_fit();
    }
    data.into()
}

const fn message(is_text: bool, data: Bytes) -> Frame {
    if is_text { Frame::Text(data) } else { Frame::Binary(data) }
}
