//! A scanner of the frame headers in a stream. It hides pings and the close frame from tungstenite, and
//! records both.
//!
//! ```text
//!          2 to 14 bytes                  payload is over
//!   Header ─────────────▶ Payload, skipped ───────────────▶ Header
//!      │ ping ──────────▶ Control, kept ──────────────────▶ Header, with a latest ping
//!      │ close frame ───▶ Control, kept ──────────────────▶ Over, with a close frame
//!      │ fragmented control frame
//!      ▼
//!    Over: further bytes are ignored (RFC 6455 section 5.5.1)
//! ```
//!
//! tungstenite reports 1002 for every close code that it does not know (1014, 1016 to 2999, 5000
//! and above), and loses the code of a close frame whose reason is not UTF-8. But the code
//! determines which close rule of the configuration applies. tungstenite also answers each ping
//! with a write, although one answer to the latest is enough (RFC 6455 section 5.5.3). So this
//! scanner reads the stream before tungstenite does, after TLS. It changes each ping into a pong,
//! which tungstenite ignores. Payloads are skipped by their length, so a read costs a few
//! instructions for each frame in it.
//!
//! A frame before the close frame can break the protocol, for example with text that is not UTF-8,
//! and only tungstenite finds that out. So this scanner clears the FIN bit of the close frame.
//! tungstenite then reports a fragmented control frame if it reaches the close frame, and another
//! error if an earlier frame is at fault. If the server itself sends a fragmented control frame, the
//! scan ends there without a close frame.

use bytes::Bytes;
use tungstenite::protocol::frame::coding::CloseCode;

/// A close frame as the peer sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SentClose {
    /// The code, if there was one.
    pub(crate) code: Option<u16>,
    /// The reason. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub(crate) reason: String,
    /// The code of the reply: the same code, unless the frame is invalid.
    pub(crate) reply: Option<CloseCode>,
}

impl SentClose {
    fn new(payload: &[u8]) -> Self {
        let Some((code, reason)) = payload.split_first_chunk() else {
            let reply = (!payload.is_empty()).then_some(CloseCode::Protocol);
            return Self { code: None, reason: String::new(), reply };
        };
        let code = u16::from_be_bytes(*code);
        let reply = match CloseCode::from(code) {
            code if !code.is_allowed() => CloseCode::Protocol,
            _ if core::str::from_utf8(reason).is_err() => CloseCode::Invalid,
            code => code,
        };
        let reason = String::from_utf8_lossy(reason).into_owned();
        Self { code: Some(code), reason, reply: Some(reply) }
    }
}

/// Scans the bytes of a stream as they are read.
#[derive(Debug, Default)]
pub(crate) struct ControlWatch {
    state: State,
    /// The payload of the latest ping, until it is taken.
    ping: Option<Box<[u8]>>,
    close: Option<Box<SentClose>>,
}

#[derive(Debug)]
enum State {
    Header { bytes: [u8; HEADER_MAX], len: u8 },
    Payload { left: u64 },
    Control(Box<Control>),
    Over,
}

/// A ping or a close frame whose payload has not arrived completely.
#[derive(Debug)]
struct Control {
    is_close: bool,
    payload: Vec<u8>,
    left: u64,
}

impl Default for State {
    fn default() -> Self {
        Self::Header { bytes: [0; HEADER_MAX], len: 0 }
    }
}

/// The longest header: two bytes, an extended length and a mask (RFC 6455 section 5.2).
const HEADER_MAX: usize = 14;

/// The first byte of an unfragmented close frame, ping and pong.
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// The bit in the first byte of a frame that is the last one of its message.
const FIN: u8 = 0x80;

impl ControlWatch {
    /// The close frame, once all of it has been read.
    #[must_use]
    pub(crate) fn sent_close(&self) -> Option<&SentClose> {
        self.close.as_deref()
    }

    /// Takes the payload of the latest ping, if there is one.
    pub(crate) fn take_ping(&mut self) -> Option<Bytes> {
        self.ping.take().map(Bytes::from)
    }

    /// Scans the next bytes of the stream. A ping among them becomes a pong, and a close frame becomes a
    /// fragment.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &mut bytes[at..];
            match &mut self.state {
                State::Header { len: 0, .. } if skipped_header(rest).is_some() => {
                    let (header, left) = skipped_header(rest).unwrap_or_default();
                    at += header;
                    if left > 0 {
                        self.state = State::Payload { left };
                    }
                }
                State::Header { bytes: header, len } => {
                    header[usize::from(*len)] = rest[0];
                    match (*len, rest[0]) {
                        (0, PING) => rest[0] = PONG,
                        (0, CLOSE) => rest[0] = CLOSE & !FIN,
                        _ => {}
                    }
                    *len += 1;
                    at += 1;
                    self.state = after(*header, *len);
                }
                State::Payload { left } => {
                    at += skip(left, rest.len());
                    if *left == 0 {
                        self.state = State::default();
                    }
                }
                State::Control(control) => {
                    let taken = skip(&mut control.left, rest.len());
                    control.payload.extend_from_slice(&rest[..taken]);
                    at += taken;
                }
                State::Over => return,
            }
            self.finish_control();
        }
    }

    fn finish_control(&mut self) {
        let State::Control(control) = &mut self.state else { return };
        let Control { is_close, payload, left: 0 } = &mut **control else { return };
        if *is_close {
            self.close = Some(Box::new(SentClose::new(payload)));
            self.state = State::Over;
        } else {
            self.ping = Some(core::mem::take(payload).into_boxed_slice());
            self.state = State::default();
        }
    }
}

/// The lengths of the header and the payload of a data frame, for the two most common header forms.
#[inline]
fn skipped_header(bytes: &[u8]) -> Option<(usize, u64)> {
    match bytes {
        [first, ..] if first & 0x08 != 0 => None,
        [_, short @ 0..126, ..] => Some((2, u64::from(*short))),
        [_, 126, high, low, ..] => Some((4, u64::from(u16::from_be_bytes([*high, *low])))),
        _ => None,
    }
}

/// Subtracts the smaller of `left` and `there` from `left`, and returns the subtracted number.
fn skip(left: &mut u64, there: usize) -> usize {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(there);
    *left -= taken as u64;
    taken
}

/// The state after `len` bytes of a header (RFC 6455 section 5.2). It stays `Header` until the header
/// is complete.
fn after(header: [u8; HEADER_MAX], len: u8) -> State {
    let (masked, short) = (header[1] & 0x80 != 0, header[1] & 0x7f);
    let length_end = match short {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let end = length_end + if masked { 4 } else { 0 };
    if usize::from(len) < end {
        return State::Header { bytes: header, len };
    }
    let left = match short {
        126 | 127 => {
            header[2..length_end].iter().fold(0, |length, byte| length << 8 | u64::from(*byte))
        }
        short => u64::from(short),
    };
    match header[0] {
        // A ping or a close frame that is masked or too long is not kept, although its first byte has been
        // changed. tungstenite reports it as a violation.
        PING | CLOSE if !masked && short < 126 => {
            let is_close = header[0] == CLOSE;
            State::Control(Box::new(Control { is_close, payload: Vec::new(), left }))
        }
        // tungstenite reports these frames as it reports a close frame without its FIN bit.
        CLOSE | 0x08..=0x0a => State::Over,
        _ if left == 0 => State::default(),
        _ => State::Payload { left },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let bit = if mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match payload.len() {
            len @ 0..126 => bytes.push(bit | len as u8),
            len @ 126..0x1_0000 => {
                bytes.push(bit | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(bit | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        let mask = mask.inspect(|mask| bytes.extend(mask)).unwrap_or_default();
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// Scans the stream in pieces of `cut` bytes.
    fn watched(stream: &[u8], cut: usize) -> (Vec<u8>, ControlWatch) {
        let (mut watch, mut stream) = (ControlWatch::default(), stream.to_vec());
        stream.chunks_mut(cut).for_each(|bytes| watch.read(bytes));
        (stream, watch)
    }

    fn seen(stream: &[u8], cut: usize) -> Option<SentClose> {
        watched(stream, cut).1.sent_close().cloned()
    }

    #[test]
    fn close_frame_is_reported_as_sent() {
        for (payload, code, reason, reply) in [
            (&b""[..], None, "", None),
            (b"\x03", None, "", Some(CloseCode::Protocol)),
            (b"\x03\xe8", Some(1000), "", Some(CloseCode::Normal)),
            (b"\x0f\xa1bye", Some(4001), "bye", Some(CloseCode::Library(4001))),
            (b"\x03\xe8\xffa", Some(1000), "\u{fffd}a", Some(CloseCode::Invalid)),
            (b"\x07\xd0", Some(2000), "", Some(CloseCode::Protocol)),
            (b"\xff\xff\xffa", Some(65_535), "\u{fffd}a", Some(CloseCode::Protocol)),
        ] {
            let expected = Some(SentClose { code, reason: reason.to_owned(), reply });
            assert_eq!(seen(&frame(8, None, payload), 1), expected);
            assert_eq!(seen(&frame(8, None, payload), 99), expected);
        }
    }

    /// A first byte with the opcode 8 does not make a close frame, as in the text `HTTP/1.1`.
    #[test]
    fn invalid_close_frames_are_not_reported() {
        let mut close = frame(8, None, b"\x03\xe8");
        for (first, later) in [(0x48, Some(1001)), (0xc8, Some(1001)), (0x08, None), (0x0a, None)] {
            close[0] = first;
            // tungstenite could not tell a close frame from a fragmented control frame before it.
            let both = [&close[..], &frame(8, None, b"\x03\xe9")].concat();
            assert_eq!(seen(&both, 1).and_then(|close| close.code), later, "{first:#x}");
        }
        let long = [&b"\x03\xe8"[..], &[b'x'; 300]].concat();
        for invalid in [frame(8, None, &long), frame(8, Some([1, 2, 3, 4]), b"\x03\xe8")] {
            assert_eq!(seen(&invalid, 7), None);
        }
    }

    #[test]
    fn first_complete_close_counts() {
        let two = [frame(8, None, b"\x03\xe8"), frame(8, None, b"\x03\xe9")].concat();
        assert_eq!(seen(&two, 99).and_then(|close| close.code), Some(1000));
        let whole = frame(8, None, b"\x03\xe8bye");
        assert_eq!(seen(&whole[..whole.len() - 1], 2), None);
        // A payload is not parsed as a header.
        assert_eq!(seen(&frame(2, None, &whole), 1), None);
    }

    #[test]
    fn latest_ping_found_in_any_pieces() {
        let payload = [PING; 300];
        let frames = [
            frame(1, None, &payload[..10]),
            frame(9, None, b"one"),
            frame(2, None, &payload),
            frame(1, None, b""),
            frame(9, None, &payload[..125]),
            frame(2, None, &vec![PING; 70_000]),
            frame(9, None, b"last"),
            frame(10, None, b"not this"),
        ];
        let expected = frames.each_ref().map(|frame| match frame[0] {
            PING => [&[PONG], &frame[1..]].concat(),
            _ => frame.clone(),
        });
        for cut in [1, 2, 3, 5, 7, 64, 1_000, usize::MAX] {
            let (left, mut watch) = watched(&frames.concat(), cut);
            assert!(left == expected.concat(), "cut {cut}: only the opcode of a ping changes");
            assert_eq!(watch.take_ping().as_deref(), Some(&b"last"[..]), "cut {cut}");
            assert_eq!(watch.take_ping(), None, "the ping was taken before");
        }
        let empty = watched(&frame(9, None, b""), 1).1.take_ping();
        assert_eq!(empty.as_deref(), Some(&b""[..]));
    }

    #[test]
    fn invalid_pings_are_left_to_tungstenite() {
        // These pings are invalid: one is too long, one has a reserved bit, and one is a fragment.
        for (first, payload) in [(PING, &[0; 126][..]), (0xc9, b"x"), (0x09, b"x")] {
            let mut bytes = frame(9, None, payload);
            bytes[0] = first;
            assert_eq!(watched(&bytes, 4).1.take_ping(), None);
        }
    }

    proptest! {
        #[test]
        fn close_found_after_any_frames(
            frames in proptest::collection::vec((0_u8..3, 0_usize..400, any::<bool>()), 0..6),
            large in proptest::option::of(0x1_0000_usize..0x1_0100),
            cut in 1_usize..64,
        ) {
            let mut stream = Vec::new();
            for (opcode, len, masked) in frames {
                stream.extend(frame(opcode, masked.then_some([9; 4]), &vec![0x88; len]));
            }
            stream.extend(large.map(|len| frame(1, None, &vec![0x88; len])).unwrap_or_default());
            prop_assert_eq!(seen(&stream, cut), None);
            stream.extend(frame(9, None, b"ping"));
            stream.extend(frame(8, None, b"\x03\xf4\xff"));
            let close = seen(&stream, cut).map(|close| (close.code, close.reason));
            prop_assert_eq!(close, Some((Some(1012), "\u{fffd}".to_owned())));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), cut in 1_usize..9) {
            let ((one, mut watch), (other, mut whole)) = (watched(&bytes, cut), watched(&bytes, 1_000));
            prop_assert_eq!(one, other);
            prop_assert_eq!(watch.sent_close(), whole.sent_close());
            prop_assert_eq!(watch.take_ping(), whole.take_ping());
        }
    }
}
