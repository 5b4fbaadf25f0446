//! The sending half: cuts messages from a bounded outbox into frames, with control frames between
//! them (RFC 6455 sections 5.4, 5.5 and 6.1).
//!
//! ```text
//!   send ──▶ outbox ──▶ the message under way, cut into fragments ─┐
//!   ping ──▶ at most one ──────────────────────────────────────────┤ first of: reply to a close,
//!   a ping was received ──▶ the pong to the latest one ────────────┤ pong, ping, probe, data, our
//!   many bytes went out ──▶ probe: a ping that counts bytes ───────┤ own close
//!   close ─────────────────────────────────────────────────────────┘        │
//!                                                    masked in the caller's buffer ──▶ bytes
//! ```
//!
//! When the bytes of a whole fragment went out since the last probe, in one message or in many, a ping
//! goes before the next fragment or message. Its payload is the number of message bytes before it, so
//! its pong proves that the peer has read them. These pongs show how much of an upload has reached the
//! peer; a count of written bytes only shows what the buffers on the way have accepted.

use core::{fmt, str};
use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::close::Handshake;
use super::deflate::{Compressor, Scratch};
use super::endpoint::Limits;
use super::frame::{CONTROL_MAX, HEADER_MAX, Header, Opcode};
use super::mask;
use super::utf8::is_ascii;
use crate::wire::Frame;

/// The prefix of a probe's payload; the number of bytes follows, in network byte order.
const PROBE: [u8; 4] = *b"phx+";

/// The cost of a message in the outbox in addition to its bytes.
const OVERHEAD: usize = 64;

/// An outbox with at most this many slots is not shrunk.
const SLOTS_KEPT: usize = 64;

/// The progress of sent messages, in payload bytes since the opening. A compressed message counts with its
/// compressed length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Upload {
    /// Bytes that [`poll_transmit`](super::Endpoint::poll_transmit) has appended.
    pub transmitted: u64,
    /// Bytes before the latest ping that asks for an acknowledgement.
    /// [`poll_transmit`](super::Endpoint::poll_transmit) has appended that ping. If the peer answers it,
    /// `acknowledged` becomes this number.
    pub probed: u64,
    /// Bytes that the peer has read, as proven by its pongs. A pong is requested after every
    /// [`Limits::fragment_bytes`](super::Limits::fragment_bytes) and only if more data follows, so the
    /// count lags behind.
    pub acknowledged: u64,
}

/// The reason why a message was not accepted, with the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The outbox holds [`Limits::outbox_bytes_max`](super::Limits::outbox_bytes_max) bytes or
    /// more. Retry after [`poll_transmit`](super::Endpoint::poll_transmit).
    #[error("the outbox is full")]
    Full(Frame),

    /// The connection is closing or closed.
    #[error("the connection is closing")]
    Closing(Frame),

    /// A text message must be UTF-8 (RFC 6455 section 8.1).
    #[error("a text message is not UTF-8")]
    NotUtf8(Frame),
}

/// The reason why a ping was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PingRefused {
    /// The previous ping is still queued.
    #[error("a ping is already queued")]
    Full,

    /// The payload is longer than 125 bytes (RFC 6455 section 5.5).
    #[error("the payload of a ping has {length} bytes, more than 125")]
    TooLong {
        /// The length.
        length: usize,
    },

    /// The connection is closing or closed.
    #[error("the connection is closing")]
    Closing,
}

/// The sending half of an endpoint.
#[derive(Clone)]
pub(super) struct Sender {
    masks: bool,
    /// The maximum number of payload bytes in a data frame.
    fragment_max: usize,
    outbox_max: usize,
    outbox: VecDeque<Frame>,
    /// The maximum number of messages in the outbox since it was last empty.
    peak: usize,
    /// The cost of the queued messages and of the current one.
    held: usize,
    current: Option<Current>,
    ping: Option<Bytes>,
    /// The payload of the latest unanswered ping.
    pong: Option<Bytes>,
    upload: Upload,
    /// Set if compression was negotiated.
    pub(super) compressor: Option<Box<Compressor>>,
}

/// A message of which at least one fragment was transmitted.
#[derive(Clone)]
struct Current {
    rest: Bytes,
    /// The cost of the message in the outbox.
    weight: usize,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("outbox", &self.outbox.len())
            .field("held", &self.held)
            .field("rest", &self.current.as_ref().map(|current| current.rest.len()))
            .field("ping", &self.ping.as_ref().map(Bytes::len))
            .field("pong", &self.pong.as_ref().map(Bytes::len))
            .field("upload", &self.upload)
            .finish_non_exhaustive()
    }
}

impl Sender {
    pub(super) fn new(masks: bool, limits: &Limits) -> Self {
        Self {
            masks,
            fragment_max: limits.fragment_bytes.max(1),
            outbox_max: limits.outbox_bytes_max,
            outbox: VecDeque::new(),
            peak: 0,
            held: 0,
            current: None,
            ping: None,
            pong: None,
            upload: Upload::default(),
            compressor: None,
        }
    }

    /// Only a client masks.
    #[cfg(feature = "deflate")]
    pub(super) const fn is_client(&self) -> bool {
        self.masks
    }

    pub(super) const fn upload(&self) -> Upload {
        self.upload
    }

    /// The number of queued messages, including the current one.
    pub(super) fn queued(&self) -> usize {
        self.outbox.len() + usize::from(self.current.is_some())
    }

    /// The cost of the queued messages, including the current one.
    pub(super) const fn queued_bytes(&self) -> usize {
        self.held
    }

    pub(super) fn push(&mut self, frame: Frame) -> Result<(), SendError> {
        // While the outbox is not full, it accepts one more message of any size.
        if self.held >= self.outbox_max {
            return Err(SendError::Full(frame));
        }
        // RFC 6455 section 5.6: the payload data of a text message is text encoded as UTF-8.
        if let Frame::Text(text) = &frame {
            if !is_ascii(text) && str::from_utf8(text).is_err() {
                return Err(SendError::NotUtf8(frame));
            }
        }
        self.queue(frame);
        Ok(())
    }

    /// Adds a message to the outbox without checks.
    #[inline]
    pub(super) fn queue(&mut self, frame: Frame) {
        self.held += weight(&frame);
        if self.outbox.capacity() == 0 {
            // An idle connection sends one message at a time.
            self.outbox.reserve_exact(1);
        }
        self.outbox.push_back(frame);
        self.peak = self.peak.max(self.outbox.len());
    }

    pub(super) fn ping(&mut self, payload: Bytes) -> Result<(), PingRefused> {
        // Protocol: LIMIT-3.
        if payload.len() > CONTROL_MAX {
            return Err(PingRefused::TooLong { length: payload.len() });
        }
        if self.ping.is_some() {
            return Err(PingRefused::Full);
        }
        self.ping = Some(payload);
        Ok(())
    }

    /// Schedules a pong.
    ///
    /// RFC 6455 section 5.5.3: an endpoint that has not yet sent pongs in response to earlier pings
    /// MAY answer the most recently processed one only.
    pub(super) fn answer(&mut self, payload: Bytes) {
        self.pong = Some(payload);
    }

    /// Handles a pong: returns the number of bytes that it acknowledges, if it answers a probe and
    /// acknowledges more than before.
    ///
    /// RFC 6455 section 5.5.3: a pong has the same payload as the ping that it answers. Pongs that
    /// answer another ping, or none, are ignored here.
    pub(super) fn acknowledge(&mut self, payload: &[u8]) -> Option<u64> {
        let count = payload.strip_prefix(&PROBE)?.try_into().ok().map(u64::from_be_bytes)?;
        if count <= self.upload.acknowledged || count > self.upload.probed {
            return None;
        }
        self.upload.acknowledged = count;
        Some(count)
    }

    /// Drops the queued messages and the queued ping, which must not be sent any more.
    pub(super) fn abandon(&mut self) {
        self.outbox = VecDeque::new();
        self.held = 0;
        self.current = None;
        self.ping = None;
    }

    /// Appends the next frame; returns false if there is none.
    #[inline]
    pub(super) fn transmit(
        &mut self,
        out: &mut BytesMut,
        close: &mut Handshake,
        keys: &mut impl FnMut() -> [u8; 4],
        scratch: Option<&mut Scratch>,
    ) -> bool {
        if close.may_send_pong() {
            if let Some(payload) = self.pong.take() {
                self.frame(out, (Opcode::Pong, false), true, &payload, keys);
                return true;
            }
        }
        if close.may_send_data() && self.transmit_data(out, keys, scratch) {
            return true;
        }
        // Our close frame follows the data that was accepted before the call of `close`.
        let Some(payload) = close.take() else { return false };
        self.frame(out, (Opcode::Close, false), true, &payload, keys);
        true
    }

    #[inline]
    fn transmit_data(
        &mut self,
        out: &mut BytesMut,
        keys: &mut impl FnMut() -> [u8; 4],
        scratch: Option<&mut Scratch>,
    ) -> bool {
        // RFC 6455 section 5.4: control frames MAY be injected in the middle of a fragmented message.
        if let Some(payload) = self.ping.take() {
            self.frame(out, (Opcode::Ping, false), true, &payload, keys);
            return true;
        }
        if self.current.is_none() && self.outbox.is_empty() {
            return false;
        }
        if self.upload.transmitted - self.upload.probed >= self.fragment_max as u64 {
            self.upload.probed = self.upload.transmitted;
            let mut payload = [0; PROBE.len() + 8];
            payload[..PROBE.len()].copy_from_slice(&PROBE);
            payload[PROBE.len()..].copy_from_slice(&self.upload.probed.to_be_bytes());
            self.frame(out, (Opcode::Ping, false), true, &payload, keys);
            return true;
        }
        if let Some(current) = self.current.take() {
            // RFC 6455 section 5.4: the fragments after the first have opcode 0.
            self.fragment(out, (Opcode::Continuation, false), current, keys);
            return true;
        }
        let Some(frame) = self.outbox.pop_front() else { return false };
        if self.outbox.is_empty() {
            self.shrink();
        }
        let weight = weight(&frame);
        let (mut rest, opcode) = match frame {
            Frame::Text(text) => (text, Opcode::Text),
            Frame::Binary(bytes) => (bytes, Opcode::Binary),
        };
        let compressor = self.compressor.as_mut();
        let compressed = compressor.and_then(|compressor| compressor.compress(&rest, scratch));
        let kind = (opcode, compressed.is_some());
        rest = compressed.unwrap_or(rest);
        if rest.len() > self.fragment_max {
            self.fragment(out, kind, Current { rest, weight }, keys);
        } else {
            self.upload.transmitted += rest.len() as u64;
            self.held -= weight;
            self.frame(out, kind, true, &rest, keys);
        }
        true
    }

    /// Shrinks the empty outbox if a quarter of its capacity was enough since it was last empty.
    /// An outbox that is filled again and again keeps its capacity.
    #[inline]
    fn shrink(&mut self) {
        let peak = core::mem::take(&mut self.peak);
        if self.outbox.capacity() > SLOTS_KEPT && peak <= self.outbox.capacity() / 4 {
            self.outbox.shrink_to(peak);
        }
    }

    /// Appends a fragment.
    fn fragment(
        &mut self,
        out: &mut BytesMut,
        kind: (Opcode, bool),
        mut current: Current,
        keys: &mut impl FnMut() -> [u8; 4],
    ) {
        let is_last = current.rest.len() <= self.fragment_max;
        // Protocol: LIMIT-4.
        let length = current.rest.len().min(self.fragment_max);
        self.upload.transmitted += length as u64;
        self.frame(out, kind, is_last, &current.rest[..length], keys);
        if is_last {
            self.held -= current.weight;
        } else {
            current.rest.advance(length);
            self.current = Some(current);
        }
    }

    /// Appends a frame and masks its payload in place. The frame has an opcode, and RSV1 if it is the
    /// first one of a compressed message.
    #[inline]
    fn frame(
        &self,
        out: &mut BytesMut,
        (opcode, compressed): (Opcode, bool),
        fin: bool,
        payload: &[u8],
        keys: &mut impl FnMut() -> [u8; 4],
    ) {
        // RFC 6455 section 5.1: a client MUST mask all frames that it sends, a server MUST NOT mask any;
        // section 5.3: with a new key for each frame.
        // Protocol: LIMIT-3.
        let mask = if self.masks { Some(keys()) } else { None };
        out.reserve(payload.len() + HEADER_MAX);
        Header { opcode, fin, compressed, mask, length: payload.len() as u64 }.write(out);
        let start = out.len();
        out.extend_from_slice(payload);
        if let Some(key) = mask {
            mask::apply(&mut out[start..], key, 0);
        }
    }
}

fn weight(frame: &Frame) -> usize {
    frame.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory that a burst needed is freed when the traffic is small again, not between bursts.
    #[test]
    fn outbox_shrinks_after_burst() {
        let mut sender = Sender::new(true, &Limits::default());
        let mut handshake = Handshake::default();
        let mut messages = |count| {
            for _ in 0..count {
                sender.push(Frame::from("a")).expect("the outbox has room");
            }
            while sender.transmit(&mut BytesMut::new(), &mut handshake, &mut || [0; 4], None) {}
            sender.outbox.capacity()
        };
        let burst = messages(1_000);
        assert!(burst >= 1_000);
        assert_eq!((messages(500), messages(1_000)), (burst, burst));
        assert!(messages(1) < 8);
        assert!(messages(SLOTS_KEPT) == messages(1), "a small outbox is not shrunk");
    }
}
