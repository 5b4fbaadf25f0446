//! The bytes on their way to tungstenite: how many reads there may be, and which ping is the latest.
//!
//! ```text
//!   stream ──read──▶ adapter's Io ──took──▶ tungstenite ──▶ WebSocket
//!                       │  ▲                                   │
//!              latest ping  may it read? ◀───── one read ──────┘
//! ```
//!
//! tungstenite reads control frames and the pieces of a message in a loop of its own, for as long as
//! there are some, and answers every ping with a write. Both are up to the server. So each call of
//! it may read from the stream once, and a ping is shown to it as a pong, which it ignores; the
//! WebSocket answers the latest one (RFC 6455 section 5.5.3).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::websocket::close_watch::{CloseWatch, SentClose};

/// The reads of a stream, shared by the stream and the WebSocket on it.
#[derive(Clone, Debug, Default)]
pub struct Reads(Arc<Incoming>);

/// Only the task of the driver reads, so nothing here has to be in step with anything else.
#[derive(Debug, Default)]
struct Incoming {
    allowed: AtomicBool,
    /// A read was refused since one was allowed.
    refused: AtomicBool,
    walker: Mutex<Walker>,
}

impl Reads {
    /// Whether the stream may be read now; if not, nothing wakes the reader.
    #[must_use]
    pub fn may_read(&self) -> bool {
        let allowed = self.0.allowed.load(Ordering::Relaxed);
        self.0.refused.store(!allowed, Ordering::Relaxed);
        allowed
    }

    /// These bytes were read from the stream.
    pub fn took(&self, bytes: &mut [u8]) {
        self.0.allowed.store(false, Ordering::Relaxed);
        let mut walker = self.walker();
        walker.close.read(bytes);
        walker.walk(bytes);
    }

    /// Allows one read.
    pub(super) fn allow(&self) {
        self.0.allowed.store(true, Ordering::Relaxed);
        self.0.refused.store(false, Ordering::Relaxed);
    }

    /// Whether there was a read, and another one was refused.
    pub(super) fn refused(&self) -> bool {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Takes the payload of the latest ping, unless it was taken.
    pub(super) fn take_ping(&self) -> Option<Bytes> {
        self.walker().latest.take()
    }

    /// The close frame as the server sent it, once it was read.
    pub(super) fn sent_close(&self) -> Option<SentClose> {
        self.walker().close.sent().cloned()
    }

    /// No code of the application runs under it.
    fn walker(&self) -> MutexGuard<'_, Walker> {
        self.0.walker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first byte of a whole ping, and that of a pong.
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// Walks from frame to frame (RFC 6455 section 5.2), whatever pieces they come in.
#[derive(Debug, Default)]
struct Walker {
    header: [u8; 14],
    /// How much of the header is here.
    have: usize,
    /// How much of the payload is still to come.
    left: u64,
    /// The payload of the ping that is being read.
    ping: Option<Vec<u8>>,
    latest: Option<Bytes>,
    /// Looks for the close frame, in the bytes as they were sent.
    close: CloseWatch,
}

impl Walker {
    fn walk(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            if self.left == 0 {
                if let (0, Some((header, length))) = (self.have, common_header(&bytes[at..])) {
                    (at, self.left) = (at + header, length);
                    continue;
                }
                if self.have == 0 && bytes[at] == PING {
                    bytes[at] = PONG;
                    self.ping = Some(Vec::new());
                }
                self.header[self.have] = bytes[at];
                (self.have, at) = (self.have + 1, at + 1);
                let Some(length) = self.payload_length() else { continue };
                (self.have, self.left) = (0, length);
            } else {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                if let Some(ping) = &mut self.ping {
                    ping.extend_from_slice(&bytes[at..at + here]);
                }
                at += here;
                self.left -= here as u64;
            }
            if self.left == 0 && self.ping.is_some() {
                self.latest = self.ping.take().map(Bytes::from);
            }
        }
    }

    /// The length of the payload, once the whole header is here.
    fn payload_length(&mut self) -> Option<u64> {
        if self.have < 2 {
            return None;
        }
        let (short, masked) = (self.header[1] & 0x7f, self.header[1] & 0x80 != 0);
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        // Masked frames are against the protocol, which tungstenite says.
        if self.have < 2 + extended + if masked { 4 } else { 0 } {
            return None;
        }
        if extended == 0 {
            return Some(u64::from(short));
        }
        // So is a ping of this length.
        self.ping = None;
        let length = self.header[2..2 + extended].iter();
        Some(length.fold(0, |length, byte| length << 8 | u64::from(*byte)))
    }
}

/// The lengths of the header and the payload of a frame that is no ping, in the two common forms.
#[inline]
fn common_header(bytes: &[u8]) -> Option<(usize, u64)> {
    match bytes {
        [PING, ..] => None,
        [_, short @ 0..126, ..] => Some((2, u64::from(*short))),
        [_, 126, high, low, ..] => Some((4, u64::from(u16::from_be_bytes([*high, *low])))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of the server.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len();
        let mut frame = vec![first];
        match u16::try_from(length) {
            Ok(short @ 0..126) => frame.push(u8::try_from(short).unwrap_or_default()),
            Ok(long) => frame.extend([&[126], &long.to_be_bytes()[..]].concat()),
            Err(_) => frame.extend([&[127], &(length as u64).to_be_bytes()[..]].concat()),
        }
        frame.extend_from_slice(payload);
        frame
    }

    /// Walks over bytes in pieces of this size.
    fn walk(bytes: &[u8], piece: usize) -> (Vec<u8>, Option<Bytes>) {
        let (mut walker, mut bytes) = (Walker::default(), bytes.to_vec());
        bytes.chunks_mut(piece).for_each(|piece| walker.walk(piece));
        (bytes, walker.latest)
    }

    #[test]
    fn latest_ping_is_found_whatever_the_pieces() {
        let payload = [PING; 300];
        let bytes = [
            frame(0x81, &payload[..10]),
            frame(PING, b"one"),
            frame(0x82, &payload),
            frame(0x01, b""),
            frame(PING, &payload[..125]),
            frame(0x80, &vec![PING; 70_000]),
            frame(PING, b"last"),
            frame(PONG, b"not this"),
        ];
        let seen: Vec<u8> = bytes
            .iter()
            .map(|bytes| match bytes[0] {
                PING => [&[PONG], &bytes[1..]].concat(),
                _ => bytes.clone(),
            })
            .collect::<Vec<_>>()
            .concat();
        for piece in [1, 2, 3, 5, 7, 64, 1_000, usize::MAX] {
            let (walked, latest) = walk(&bytes.concat(), piece);
            assert!(
                walked == seen,
                "in pieces of {piece}: nothing but the opcode of a ping changes"
            );
            assert_eq!(latest.as_deref(), Some(&b"last"[..]), "in pieces of {piece}");
        }
        assert_eq!(walk(&frame(PING, b""), 1).1.as_deref(), Some(&b""[..]));
    }

    #[test]
    fn pings_against_the_protocol_are_left_to_tungstenite() {
        // Too long, with a reserved bit, in fragments.
        for bytes in [frame(PING, &[0; 126]), frame(0xc9, b"x"), frame(0x09, b"x")] {
            assert_eq!(walk(&bytes, 4).1, None);
        }
    }

    #[test]
    fn one_read_is_allowed_at_a_time() {
        let reads = Reads::default();
        assert!(!reads.may_read(), "none was allowed");
        reads.allow();
        assert!(reads.may_read() && reads.may_read() && !reads.refused(), "nothing was there");
        reads.took(&mut []);
        assert!(!reads.refused());
        assert!(!reads.may_read() && reads.refused());
        reads.allow();
        assert!(reads.may_read() && !reads.refused());
    }
}
