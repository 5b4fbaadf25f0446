//! A walker over the frame headers of a stream, which remembers the close frame as it was sent.
//!
//! ```text
//!          2 to 14 bytes                  payload is over
//!   Header ─────────────▶ Payload, skipped ───────────────▶ Header
//!      │ close frame
//!      ▼
//!   Close, kept ──payload is over──▶ Closed: what follows is not looked at (RFC 6455 section 5.5.1)
//! ```
//!
//! tungstenite reports 1002 for every code outside its list (1014, 1016 to 2999, 5000 and above), and
//! loses the code of a close frame whose reason is not UTF-8. Which close rule applies depends on the
//! code, so the stream is read here, too: beneath tungstenite and above TLS. Frames are skipped by their
//! length, so a read costs a few instructions for each frame in it.

/// A close frame as the peer sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SentClose {
    /// Its code, if it had one.
    pub(crate) code: Option<u16>,
    /// Its reason; bytes that are not UTF-8 are U+FFFD.
    pub(crate) reason: String,
}

/// Reads along with the bytes of a stream, and keeps the close frame that it finds.
#[derive(Debug, Default)]
pub(crate) struct CloseWatch {
    sent: Option<SentClose>,
    state: State,
}

#[derive(Debug)]
enum State {
    Header { bytes: [u8; 14], len: usize },
    Payload { left: u64 },
    Close { payload: Vec<u8>, left: u64, mask: [u8; 4] },
    Closed,
}

impl Default for State {
    fn default() -> Self {
        Self::Header { bytes: [0; 14], len: 0 }
    }
}

/// The most that the payload of a control frame has (RFC 6455 section 5.5).
const CONTROL_MAX: usize = 125;

impl CloseWatch {
    /// The close frame, once all of it was read.
    #[must_use]
    pub(crate) const fn sent(&self) -> Option<&SentClose> {
        self.sent.as_ref()
    }

    /// These bytes were read next.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            match &mut self.state {
                State::Header { bytes: header, len } => {
                    header[*len] = *first;
                    *len += 1;
                    bytes = &bytes[1..];
                    self.state = after(*header, *len);
                }
                State::Payload { left } => {
                    bytes = &bytes[skip(left, bytes.len())..];
                    if *left == 0 {
                        self.state = State::default();
                    }
                }
                State::Close { payload, left, .. } => {
                    let (taken, rest) = bytes.split_at(skip(left, bytes.len()));
                    let room = CONTROL_MAX.saturating_sub(payload.len());
                    payload.extend_from_slice(&taken[..taken.len().min(room)]);
                    bytes = rest;
                }
                State::Closed => return,
            }
            self.finish_close();
        }
    }

    fn finish_close(&mut self) {
        let State::Close { payload, left: 0, mask } = &mut self.state else { return };
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        let reason = payload.get(2..).unwrap_or_default();
        let reason = String::from_utf8_lossy(reason).into_owned();
        self.sent = Some(SentClose { code, reason });
        self.state = State::Closed;
    }
}

/// Takes up to `there` bytes off what is left, and returns how many.
fn skip(left: &mut u64, there: usize) -> usize {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(there);
    *left -= taken as u64;
    taken
}

/// What follows these bytes of a header (RFC 6455 section 5.2).
fn after(header: [u8; 14], len: usize) -> State {
    let (masked, short) = (header[1] & 0x80 != 0, header[1] & 0x7f);
    let length_end = match short {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let end = length_end + if masked { 4 } else { 0 };
    if len < 2 || len < end {
        return State::Header { bytes: header, len };
    }
    let left = match short {
        126 | 127 => {
            header[2..length_end].iter().fold(0, |length, byte| length << 8 | u64::from(*byte))
        }
        short => u64::from(short),
    };
    if header[0] & 0x0f == 8 {
        let mut mask = [0; 4];
        if masked {
            mask.copy_from_slice(&header[length_end..end]);
        }
        return State::Close { payload: Vec::new(), left, mask };
    }
    if left == 0 { State::default() } else { State::Payload { left } }
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

    fn seen(stream: &[u8], cut: usize) -> Option<SentClose> {
        let mut watch = CloseWatch::default();
        for bytes in stream.chunks(cut) {
            watch.read(bytes);
        }
        watch.sent().cloned()
    }

    #[test]
    fn close_is_read_as_it_was_sent() {
        for (payload, code, reason) in [
            (&b""[..], None, ""),
            (b"\x03", None, ""),
            (b"\x03\xe8", Some(1000), ""),
            (b"\x03\xf6bye", Some(1014), "bye"),
            (b"\x07\xd0", Some(2000), ""),
            (b"\xff\xff\xffa", Some(65_535), "\u{fffd}a"),
        ] {
            let expected = Some(SentClose { code, reason: reason.to_owned() });
            assert_eq!(seen(&frame(8, None, payload), 1), expected);
            assert_eq!(seen(&frame(8, Some([1, 2, 3, 4]), payload), 3), expected);
        }
        // Longer than a control frame may be: what fits counts.
        let long = [&b"\x03\xe8"[..], &[b'x'; 300]].concat();
        let close = seen(&frame(8, None, &long), 7).expect("a close frame");
        assert_eq!((close.code, close.reason.len()), (Some(1000), 123));
    }

    #[test]
    fn first_close_counts_and_a_cut_one_does_not() {
        let two = [frame(8, None, b"\x03\xe8"), frame(8, None, b"\x03\xe9")].concat();
        assert_eq!(seen(&two, 99).and_then(|close| close.code), Some(1000));
        let whole = frame(8, None, b"\x03\xe8bye");
        assert_eq!(seen(&whole[..whole.len() - 1], 2), None);
        // The bytes of a payload are no header.
        assert_eq!(seen(&frame(2, None, &whole), 1), None);
    }

    proptest! {
        #[test]
        fn close_is_found_behind_any_frames(
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
            let close = SentClose { code: Some(1012), reason: "\u{fffd}".to_owned() };
            prop_assert_eq!(seen(&stream, cut), Some(close));
        }

        #[test]
        fn any_bytes_are_walked(bytes in proptest::collection::vec(any::<u8>(), 0..600), cut in 1_usize..9) {
            prop_assert_eq!(seen(&bytes, cut), seen(&bytes, 1_000));
        }
    }
}
