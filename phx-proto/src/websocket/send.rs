//! Sending: messages out of a bounded outbox into frames, with control frames between them (RFC 6455
//! sections 5.4, 5.5 and 6.1).
//!
//! ```text
//!   send ──▶ outbox ──▶ the message under way, cut into fragments ─┐
//!   ping ──▶ at most one ──────────────────────────────────────────┤ first of: answer to a close,
//!   a ping was received ──▶ the pong to the latest one ────────────┤ pong, ping, probe, data, our
//!   a fragment went out ──▶ probe: a ping that counts bytes ───────┤ own close
//!   close ─────────────────────────────────────────────────────────┘        │
//!                                                    masked in the caller's buffer ──▶ bytes
//! ```
//!
//! A message that is longer than a fragment is followed by a ping after each fragment but the last.
//! Its payload is the number of message bytes before it, so the pong is proof that the peer has read
//! them: progress of an upload from end to end, where a counter of written bytes shows only what the
//! buffers between here and there have taken.

use core::{fmt, str};
use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::close::Handshake;
use super::endpoint::Limits;
use super::frame::{CONTROL_MAX, HEADER_MAX, Header, Opcode};
use super::mask;
use crate::wire::Frame;

/// What the payload of a probe begins with; the number of bytes follows, in network byte order.
const PROBE: [u8; 4] = *b"phx+";

/// What a message takes in the outbox beside its bytes.
const OVERHEAD: usize = 64;

/// An outbox with at most this many slots is not shrunk.
const SLOTS_KEPT: usize = 64;

/// How far the sending of messages has come, in bytes of their payloads since the opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Upload {
    /// Bytes that [`poll_transmit`](super::Endpoint::poll_transmit) has handed over.
    pub transmitted: u64,
    /// Bytes that the peer has read, as its pongs prove. Only messages that are sent in fragments ask
    /// for such pongs, so this may stay behind for as long as messages are short.
    pub acknowledged: u64,
}

/// Why a message was not accepted, with the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// [`Limits::outbox_bytes_max`](super::Limits::outbox_bytes_max) bytes wait to be transmitted. Try
    /// again after [`poll_transmit`](super::Endpoint::poll_transmit).
    #[error("the outbox is full")]
    Full(Frame),

    /// The connection is closing, or closed.
    #[error("the connection is closing")]
    Closing(Frame),

    /// A text message has to be UTF-8 (RFC 6455 section 8.1).
    #[error("a text message is not UTF-8")]
    NotUtf8(Frame),
}

/// Why a ping was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PingRefused {
    /// One waits to be transmitted.
    #[error("a ping waits to be transmitted")]
    Full,

    /// Its payload is longer than 125 bytes (RFC 6455 section 5.5).
    #[error("a payload of {length} bytes is longer than 125")]
    TooLong {
        /// The length.
        length: usize,
    },

    /// The connection is closing, or closed.
    #[error("the connection is closing")]
    Closing,
}

/// The sending half of an endpoint.
#[derive(Clone)]
pub(super) struct Sender {
    masks: bool,
    /// The most bytes of a data frame.
    fragment_max: usize,
    outbox_max: usize,
    outbox: VecDeque<Frame>,
    /// The most messages in the outbox since it was empty.
    peak: usize,
    /// What the outbox and the message under way take.
    held: usize,
    current: Option<Current>,
    ping: Option<Bytes>,
    /// The payload of the latest ping that was not answered.
    pong: Option<Bytes>,
    /// A fragment went out, and there is more of its message.
    probe_due: bool,
    /// The count in the latest probe.
    probed: u64,
    upload: Upload,
}

/// A message of which at least one fragment was transmitted.
#[derive(Clone)]
struct Current {
    rest: Bytes,
    /// What it takes in the outbox.
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
            probe_due: false,
            probed: 0,
            upload: Upload::default(),
        }
    }

    pub(super) const fn upload(&self) -> Upload {
        self.upload
    }

    /// How many messages wait, with the one that is under way.
    pub(super) fn queued(&self) -> usize {
        self.outbox.len() + usize::from(self.current.is_some())
    }

    /// What the messages take that wait, with the one that is under way.
    pub(super) const fn queued_bytes(&self) -> usize {
        self.held
    }

    pub(super) fn push(&mut self, frame: Frame) -> Result<(), SendError> {
        // A message that is longer than the outbox is accepted when nothing else is in it.
        if self.held >= self.outbox_max {
            return Err(SendError::Full(frame));
        }
        // RFC 6455 section 5.6: the payload data of a text message is text encoded as UTF-8.
        if let Frame::Text(text) = &frame {
            if !text.is_ascii() && str::from_utf8(text).is_err() {
                return Err(SendError::NotUtf8(frame));
            }
        }
        self.held += weight(&frame);
        self.outbox.push_back(frame);
        self.peak = self.peak.max(self.outbox.len());
        Ok(())
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

    /// A ping was received.
    ///
    /// RFC 6455 section 5.5.3: an endpoint that has not yet sent pongs in response to earlier pings MAY
    /// answer the most recently processed one only.
    pub(super) fn answer(&mut self, payload: Bytes) {
        self.pong = Some(payload);
    }

    /// A pong was received: how many bytes it proves to be read, if it answers a probe and proves more
    /// than was known.
    ///
    /// RFC 6455 section 5.5.3: a pong has the same payload as the ping that it answers. Others are
    /// unsolicited, and nothing is expected of them.
    pub(super) fn acknowledge(&mut self, payload: &[u8]) -> Option<u64> {
        let count = payload.strip_prefix(&PROBE)?.try_into().ok().map(u64::from_be_bytes)?;
        if count <= self.upload.acknowledged || count > self.probed {
            return None;
        }
        self.upload.acknowledged = count;
        Some(count)
    }

    /// Drops what may not be sent any more.
    pub(super) fn abandon(&mut self) {
        self.outbox = VecDeque::new();
        self.held = 0;
        self.current = None;
        self.ping = None;
    }

    /// Appends the next frame; false if there is none.
    #[inline]
    pub(super) fn transmit(
        &mut self,
        out: &mut BytesMut,
        close: &mut Handshake,
        keys: &mut impl FnMut() -> [u8; 4],
    ) -> bool {
        if close.may_send_pong() {
            if let Some(payload) = self.pong.take() {
                self.frame(out, Opcode::Pong, true, &payload, keys);
                return true;
            }
        }
        if close.may_send_data() && self.transmit_data(out, keys) {
            return true;
        }
        // Our own close frame goes behind the data that was accepted before it.
        let Some(payload) = close.take() else { return false };
        self.frame(out, Opcode::Close, true, &payload, keys);
        true
    }

    #[inline]
    fn transmit_data(&mut self, out: &mut BytesMut, keys: &mut impl FnMut() -> [u8; 4]) -> bool {
        // RFC 6455 section 5.4: control frames MAY be injected in the middle of a fragmented message.
        if let Some(payload) = self.ping.take() {
            self.frame(out, Opcode::Ping, true, &payload, keys);
            return true;
        }
        if core::mem::take(&mut self.probe_due) {
            self.probed = self.upload.transmitted;
            let mut payload = [0; PROBE.len() + 8];
            payload[..PROBE.len()].copy_from_slice(&PROBE);
            payload[PROBE.len()..].copy_from_slice(&self.probed.to_be_bytes());
            self.frame(out, Opcode::Ping, true, &payload, keys);
            return true;
        }
        if let Some(current) = self.current.take() {
            // RFC 6455 section 5.4: the fragments behind the first one have opcode 0.
            self.fragment(out, Opcode::Continuation, current, keys);
            return true;
        }
        let Some(frame) = self.outbox.pop_front() else { return false };
        if self.outbox.is_empty() {
            self.shrink();
        }
        let weight = weight(&frame);
        let (rest, opcode) = match frame {
            Frame::Text(text) => (text, Opcode::Text),
            Frame::Binary(bytes) => (bytes, Opcode::Binary),
        };
        if rest.len() > self.fragment_max {
            self.fragment(out, opcode, Current { rest, weight }, keys);
        } else {
            self.upload.transmitted += rest.len() as u64;
            self.held -= weight;
            self.frame(out, opcode, true, &rest, keys);
        }
        true
    }

    /// The outbox is empty: shrinks it if a quarter of it was enough since it was empty before. While
    /// bursts follow each other it stays as it is.
    #[inline]
    fn shrink(&mut self) {
        let peak = core::mem::take(&mut self.peak);
        if self.outbox.capacity() > SLOTS_KEPT && peak <= self.outbox.capacity() / 4 {
            self.outbox.shrink_to(peak);
        }
    }

    /// Appends a fragment of a message: the last one, or one behind which a probe is due.
    fn fragment(
        &mut self,
        out: &mut BytesMut,
        opcode: Opcode,
        mut current: Current,
        keys: &mut impl FnMut() -> [u8; 4],
    ) {
        let is_last = current.rest.len() <= self.fragment_max;
        // Protocol: LIMIT-4.
        let length = current.rest.len().min(self.fragment_max);
        self.upload.transmitted += length as u64;
        self.frame(out, opcode, is_last, &current.rest[..length], keys);
        if is_last {
            self.held -= current.weight;
        } else {
            current.rest.advance(length);
            self.current = Some(current);
            self.probe_due = true;
        }
    }

    /// Appends a frame, and masks its payload where it stands.
    #[inline]
    fn frame(
        &self,
        out: &mut BytesMut,
        opcode: Opcode,
        fin: bool,
        payload: &[u8],
        keys: &mut impl FnMut() -> [u8; 4],
    ) {
        // RFC 6455 section 5.1: a client MUST mask all frames that it sends, a server MUST NOT mask any;
        // section 5.3: with a new key for each frame.
        // Protocol: LIMIT-3.
        let mask = if self.masks { Some(keys()) } else { None };
        out.reserve(payload.len() + HEADER_MAX);
        Header { opcode, fin, mask, length: payload.len() as u64 }.write(out);
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

    /// Memory of a burst is given back when the traffic is small again, not between bursts.
    #[test]
    fn outbox_shrinks_behind_a_burst() {
        let mut sender = Sender::new(true, &Limits::default());
        let mut handshake = Handshake::default();
        let mut messages = |count| {
            for _ in 0..count {
                sender.push(Frame::from("a")).expect("there is room");
            }
            while sender.transmit(&mut BytesMut::new(), &mut handshake, &mut || [0; 4]) {}
            sender.outbox.capacity()
        };
        let burst = messages(1_000);
        assert!(burst >= 1_000);
        assert_eq!((messages(500), messages(1_000)), (burst, burst));
        assert!(messages(1) < 8);
        assert!(messages(SLOTS_KEPT) == messages(1), "a small one stays");
    }
}
