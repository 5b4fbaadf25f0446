//! The closing handshake (RFC 6455 section 7) and the payload of close frames (section 5.5.1).
//!
//! ```text
//!            close()                ours is transmitted         the peer's is received
//!   Open ──────────────▶ Draining ─────────────────────▶ Sent ──────────────┐
//!    │                      │ the messages before it go first               ▼
//!    │ the peer's is received                              ours is ───▶  Closed
//!    ├──────────────────────┴──────────────────▶ Answering ─transmitted─────┤
//!    │ a violation                                         ours is          │
//!    └───────────────────────────────────────▶ Failing ────transmitted──────┘
//! ```
//!
//! A violation in the state `Sent` leads to `Closed`, without a second close frame. The end of the
//! stream leads to `Closed` from every state.

use core::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::CONTROL_MAX;
use super::violation::Violation;

/// A close frame as the peer sent it.
///
/// `Debug` prints the length of the reason in place of its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Close {
    /// The code, if there was one.
    pub code: Option<u16>,
    /// The reason. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub reason: String,
}

impl fmt::Debug for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Close")
            .field("code", &self.code)
            .field("reason_bytes", &self.reason.len())
            .finish()
    }
}

/// The error for a code that a close frame must not have (RFC 6455 section 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("close code {0} must not be sent: use 1000, or one of 3000 to 4999")]
pub struct UnsendableCode(pub u16);

/// Whether a close frame may have this code.
///
/// RFC 6455 section 7.4.2: 0 to 999 are not used; 1000 to 2999 belong to the protocol, and of these
/// section 7.4.1 and the IANA registry define 1000 to 1003 and 1007 to 1014; 3000 to 3999 are for
/// libraries and 4000 to 4999 for applications. 1004 is reserved, and 1005, 1006 and 1015 MUST NOT
/// be sent.
const fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Parses the payload of a close frame.
pub(super) fn read(payload: &[u8]) -> Result<Close, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        // RFC 6455 section 5.5.1: if there is a body, the first two bytes of it MUST be the code.
        return match payload.len() {
            0 => Ok(Close { code: None, reason: String::new() }),
            _ => Err(Violation::CloseTooShort),
        };
    };
    let code = u16::from_be_bytes(*code);
    let text = String::from_utf8_lossy(reason);
    // `from_utf8_lossy` borrows its input only if the input is valid UTF-8.
    let is_utf8 = matches!(text, std::borrow::Cow::Borrowed(_));
    let close = Close { code: Some(code), reason: text.into_owned() };
    if !is_sendable(code) {
        return Err(Violation::InvalidCloseCode { close });
    }
    // RFC 6455 section 5.5.1: the reason is UTF-8 encoded data.
    if !is_utf8 {
        return Err(Violation::CloseReasonNotUtf8 { close });
    }
    Ok(close)
}

/// The payload of a close frame. The reason is cut to the space that the code leaves in a control
/// frame (RFC 6455 section 5.5).
fn write(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(CONTROL_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = BytesMut::with_capacity(2 + end);
    payload.put_u16(code);
    payload.put_slice(&reason.as_bytes()[..end]);
    payload.freeze()
}

/// The closing handshake of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Handshake {
    state: State,
    /// Whether a valid close frame was received.
    received: bool,
}

/// The states, with the payload of our close frame while it is to be transmitted.
#[derive(Clone, Default)]
enum State {
    #[default]
    Open,
    /// `close` was called; the messages accepted before the call are sent first.
    Draining(Bytes),
    /// Our close frame was transmitted; the peer's has not been received.
    Sent,
    /// The peer's close frame was received; ours is the next frame that is transmitted.
    Answering(Bytes),
    /// The peer broke the protocol; our close frame is the next one that is transmitted.
    Failing(Bytes),
    Closed,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Draining(_) => "Draining",
            Self::Sent => "Sent",
            Self::Answering(_) => "Answering",
            Self::Failing(_) => "Failing",
            Self::Closed => "Closed",
        })
    }
}

impl Handshake {
    /// Whether the close frame for a violation is still to be transmitted.
    pub(super) const fn is_failing(&self) -> bool {
        matches!(self.state, State::Failing(_))
    }

    /// Whether messages are accepted.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether nothing more is transmitted or received.
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether the peer sent a valid close frame.
    pub(super) const fn was_received(&self) -> bool {
        self.received
    }

    /// Whether data may be transmitted.
    ///
    /// RFC 6455 section 5.5.1: the application MUST NOT send any more data frames after sending a close
    /// frame. When the peer's was received, the answer should be sent as soon as practical.
    // Protocol: CLOSE-10.
    pub(super) const fn may_send_data(&self) -> bool {
        matches!(self.state, State::Open | State::Draining(_))
    }

    /// Whether pongs may be transmitted.
    ///
    /// RFC 6455 section 5.5.2: a ping MUST be answered, unless a close frame was already received.
    /// Our own close frame does not stop pongs, although it stops data.
    // Protocol: HB-8.
    pub(super) const fn may_send_pong(&self) -> bool {
        matches!(self.state, State::Open | State::Draining(_) | State::Sent)
    }

    /// Starts the handshake; a later call has no effect.
    pub(super) fn start(&mut self, code: u16, reason: &str) -> Result<(), UnsendableCode> {
        if !is_sendable(code) {
            return Err(UnsendableCode(code));
        }
        if self.is_open() {
            self.state = State::Draining(write(code, reason));
        }
        Ok(())
    }

    /// Handles the peer's close frame.
    pub(super) fn receive(&mut self, close: &Close) {
        self.received = true;
        self.state = match self.state {
            // RFC 6455 section 5.5.1: an endpoint that receives a close frame and did not previously
            // send one MUST send one in response. It typically echoes the code.
            // Protocol: CLOSE-8.
            State::Open | State::Draining(_) => {
                State::Answering(close.code.map(|code| write(code, "")).unwrap_or_default())
            }
            // RFC 6455 section 5.5.1: after both sending and receiving a close message, an endpoint
            // considers the connection closed.
            State::Sent | State::Answering(_) | State::Failing(_) | State::Closed => State::Closed,
        };
    }

    /// Starts to close after a violation of the peer (RFC 6455 section 7.1.7).
    pub(super) fn fail(&mut self, violation: &Violation) {
        self.state = match self.state {
            State::Open | State::Draining(_) => {
                State::Failing(write(violation.close_code(), &violation.to_string()))
            }
            _ => State::Closed,
        };
    }

    /// Handles the end of the stream.
    pub(super) fn end(&mut self) {
        self.state = State::Closed;
    }

    /// Takes the payload of our close frame, if one is to be sent. The caller sends queued data
    /// first.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let (payload, next) = match &mut self.state {
            State::Draining(payload) => (payload, State::Sent),
            State::Answering(payload) | State::Failing(payload) => (payload, State::Closed),
            _ => return None,
        };
        let payload = core::mem::take(payload);
        self.state = next;
        Some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_cut_between_characters() {
        assert_eq!(write(1000, &"ä".repeat(100)).len(), 2 + 122);
        assert_eq!(write(1000, &"x".repeat(200)).len(), CONTROL_MAX);
        assert_eq!(&write(1000, "bye")[..], b"\x03\xe8bye");
    }

    #[test]
    fn sendable_codes_match_rfc_and_iana() {
        let sendable: Vec<u16> = (0..3000).filter(|code| is_sendable(*code)).collect();
        let expected = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
        assert_eq!(sendable, expected);
        assert!((3000..5000).all(is_sendable) && !is_sendable(5000) && !is_sendable(u16::MAX));
    }

    #[test]
    fn invalid_close_keeps_code_and_reason() {
        let close = |code, reason: &str| Close { code: Some(code), reason: reason.to_owned() };
        assert_eq!(read(b"\x03\xe8bye"), Ok(close(1000, "bye")));
        assert_eq!(read(b""), Ok(Close { code: None, reason: String::new() }));
        assert_eq!(read(b"\x03"), Err(Violation::CloseTooShort));
        let invalid = Violation::InvalidCloseCode { close: close(1005, "a\u{fffd}") };
        assert_eq!(read(b"\x03\xeda\xff"), Err(invalid.clone()));
        assert_eq!(invalid.received_close(), Some(&close(1005, "a\u{fffd}")));
        let not_utf8 = Violation::CloseReasonNotUtf8 { close: close(1012, "\u{fffd}b") };
        assert_eq!(read(b"\x03\xf4\xffb"), Err(not_utf8));
    }

    #[test]
    fn debug_hides_reason() {
        let close = Close { code: Some(1000), reason: "s3cret".to_owned() };
        assert_eq!(format!("{close:?}"), "Close { code: Some(1000), reason_bytes: 6 }");
        let mut handshake = Handshake::default();
        handshake.start(1000, "s3cret").expect("a sendable code");
        assert!(!format!("{handshake:?}").contains("s3cret"));
    }
}
