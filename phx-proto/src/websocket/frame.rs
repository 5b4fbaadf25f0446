//! Encoding and decoding of frame headers (RFC 6455 section 5.2).
//!
//! ```text
//!   byte 0                byte 1              then              then, if masked
//!   FIN RSV1-3 opcode(4)  MASK length(7)      length(16 or 64)  masking key(32)
//!                              0 to 125: itself; 126: 16 bits follow; 127: 64 bits follow
//! ```
//!
//! The bytes of a header are checked in order, so the reported violation does not depend on how
//! many bytes have arrived.

use bytes::BytesMut;

use super::violation::Violation;

/// The longest payload of a control frame (RFC 6455 section 5.5).
pub(super) const CONTROL_MAX: usize = 125;

/// The longest header.
pub(super) const HEADER_MAX: usize = 14;

/// The opcodes (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    /// The opcode, or `None` for a reserved one (RFC 6455 section 5.2).
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    /// Whether this is a control frame: the highest bit of the opcode is set (RFC 6455 section
    /// 5.5).
    pub(super) const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// A complete and valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) opcode: Opcode,
    pub(super) fin: bool,
    /// Whether the message that begins with this frame is compressed: RSV1 (RFC 7692 section 6).
    pub(super) compressed: bool,
    pub(super) mask: Option<[u8; 4]>,
    /// The length of the payload.
    pub(super) length: u64,
}

/// What the receiver expects of the next frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// Whether the peer is a client.
    pub(super) masked: bool,
    /// Whether a message has begun and its last fragment has not arrived.
    pub(super) continuation: bool,
    /// Whether compression was negotiated.
    pub(super) compression: bool,
}

impl Header {
    /// Parses the header at the start of `bytes`: returns it and its size, or `None` while it is
    /// incomplete.
    #[inline]
    pub(super) fn read(
        bytes: &[u8],
        expected: Expected,
    ) -> Result<Option<(Self, usize)>, Violation> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let fin = first & 0x80 != 0;
        // RFC 6455 section 5.2: MUST be 0 unless an extension is negotiated that defines meanings
        // for non-zero values. RFC 7692 section 6 defines RSV1 of the first frame of a message: not
        // that of control frames, whose opcodes begin at 8, and not that of continuations.
        let compressed = expected.compression && first & 0x40 != 0 && matches!(first & 0xf, 1..=7);
        let defined = if compressed { 0x40 } else { 0 };
        if first & 0x70 != defined {
            return Err(Violation::ReservedBits { bits: first >> 4 & 0x7 });
        }
        // RFC 6455 section 5.2: if an unknown opcode is received, the receiving endpoint MUST fail the
        // connection.
        let bits = first & 0xf;
        let opcode = Opcode::from_bits(bits).ok_or(Violation::UnknownOpcode { opcode: bits })?;
        match opcode {
            // RFC 6455 section 5.5: control frames MUST NOT be fragmented.
            _ if opcode.is_control() && !fin => {
                return Err(Violation::FragmentedControl { opcode: bits });
            }
            // RFC 6455 section 5.4: a fragmented message starts with a frame whose opcode is not 0.
            Opcode::Continuation if !expected.continuation => {
                return Err(Violation::UnexpectedContinuation);
            }
            // RFC 6455 section 5.4: the fragments of one message MUST NOT be interleaved between the
            // fragments of another message.
            Opcode::Text | Opcode::Binary if expected.continuation => {
                return Err(Violation::InterleavedMessage { opcode: bits });
            }
            _ => {}
        }

        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let masked = second & 0x80 != 0;
        // RFC 6455 section 5.1: a client MUST close a connection if it detects a masked frame, and a
        // server upon receiving a frame that is not masked.
        if masked != expected.masked {
            return Err(if masked {
                Violation::MaskedByServer
            } else {
                Violation::UnmaskedByClient
            });
        }
        let short = second & 0x7f;
        // RFC 6455 section 5.5: all control frames MUST have a payload length of 125 bytes or less.
        if opcode.is_control() && usize::from(short) > CONTROL_MAX {
            return Err(Violation::ControlTooLong { opcode: bits });
        }
        let (length, mut size) = match short {
            126 => {
                let Some(Some(length)) = bytes.get(2..).map(<[u8]>::first_chunk) else {
                    return Ok(None);
                };
                (u64::from(u16::from_be_bytes(*length)), 4)
            }
            127 => {
                let Some(Some(length)) = bytes.get(2..).map(<[u8]>::first_chunk) else {
                    return Ok(None);
                };
                (u64::from_be_bytes(*length), 10)
            }
            short => (u64::from(short), 2),
        };
        // RFC 6455 section 5.2: the most significant bit of the 64 MUST be 0.
        if length >> 63 != 0 {
            return Err(Violation::LengthTopBit);
        }
        // RFC 6455 section 5.2: the minimal number of bytes MUST be used to encode the length.
        if size != length_end(length) {
            return Err(Violation::LengthNotMinimal { length });
        }
        let mut mask = None;
        if masked {
            let Some(Some(key)) = bytes.get(size..).map(<[u8]>::first_chunk) else {
                return Ok(None);
            };
            mask = Some(*key);
            size += 4;
        }
        Ok(Some((Self { opcode, fin, compressed, mask, length }, size)))
    }

    /// Appends the encoded header to `out`.
    #[inline]
    pub(super) fn write(&self, out: &mut BytesMut) {
        let bit = if self.mask.is_some() { 0x80 } else { 0 };
        let mut bytes = [0; HEADER_MAX];
        bytes[0] = if self.fin { 0x80 } else { 0 } | self.opcode as u8;
        if self.compressed {
            bytes[0] |= 0x40;
        }
        // RFC 6455 section 5.2: the minimal number of bytes.
        let mut size = length_end(self.length);
        match size {
            2 => bytes[1] = bit | self.length as u8,
            4 => {
                bytes[1] = bit | 126;
                bytes[2..4].copy_from_slice(&(self.length as u16).to_be_bytes());
            }
            _ => {
                bytes[1] = bit | 127;
                bytes[2..10].copy_from_slice(&self.length.to_be_bytes());
            }
        }
        if let Some(key) = self.mask {
            bytes[size..size + 4].copy_from_slice(&key);
            size += 4;
        }
        out.extend_from_slice(&bytes[..size]);
    }
}

/// The offset in a header of the first byte after the length, if the length is encoded in its shortest
/// form.
const fn length_end(length: u64) -> usize {
    match length {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVERS: Expected = Expected { masked: false, continuation: false, compression: false };

    /// Parsing returns every header that can be written, and reports any part of it as incomplete.
    #[test]
    fn written_header_round_trips() {
        let opcodes = [Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong];
        for opcode in opcodes.into_iter().chain([Opcode::Continuation]) {
            for length in [0, 1, 125, 126, 127, 0xffff, 0x1_0000, u64::MAX >> 1] {
                for mask in [None, Some([1, 2, 3, 0x84])] {
                    if opcode.is_control() && length > 125 {
                        continue;
                    }
                    let compressed = matches!(opcode, Opcode::Text | Opcode::Binary);
                    let header = Header { opcode, fin: true, compressed, mask, length };
                    let mut out = BytesMut::new();
                    header.write(&mut out);
                    let continuation = opcode == Opcode::Continuation;
                    let masked = mask.is_some();
                    let expected = Expected { masked, continuation, compression: true };
                    assert_eq!(Header::read(&out, expected), Ok(Some((header, out.len()))));
                    for end in 0..out.len() {
                        assert_eq!(Header::read(&out[..end], expected), Ok(None), "{header:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn first_byte_is_checked_before_second() {
        // This header has a reserved bit, an unknown opcode, a mask, and a length that is too long
        // for a ping.
        let bytes = [0b1101_1011, 0xff];
        for end in 1..=2 {
            let read = Header::read(&bytes[..end], SERVERS);
            assert_eq!(read, Err(Violation::ReservedBits { bits: 0b101 }));
        }
        assert_eq!(Header::read(&[0x89], SERVERS), Ok(None));
        assert_eq!(Header::read(&[0x89, 0xfe], SERVERS), Err(Violation::MaskedByServer));
    }

    /// RFC 7692 section 6: RSV1 marks the first frame of a compressed message, and only if compression was
    /// negotiated. RSV2 and RSV3 are never defined.
    #[test]
    fn reserved_bits_need_compression() {
        for compression in [false, true] {
            for bits in 0..8 {
                for opcode in [0, 1, 2, 8, 9, 10] {
                    let expected = Expected { continuation: opcode == 0, compression, ..SERVERS };
                    let read = Header::read(&[0x80 | bits << 4 | opcode, 0], expected);
                    if bits == 0 || compression && bits == 4 && matches!(opcode, 1 | 2) {
                        let read = read.expect("valid").expect("complete").0;
                        assert_eq!(read.compressed, bits == 4);
                    } else {
                        assert_eq!(read, Err(Violation::ReservedBits { bits }), "{opcode}");
                    }
                }
            }
        }
    }

    #[test]
    fn non_minimal_length_is_refused() {
        let read = |bytes: &[u8]| Header::read(bytes, SERVERS);
        assert_eq!(read(&[0x82, 126, 0, 125]), Err(Violation::LengthNotMinimal { length: 125 }));
        let long = [0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        assert_eq!(read(&long), Err(Violation::LengthNotMinimal { length: 0xffff }));
        let top = [0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read(&top), Err(Violation::LengthTopBit));
    }
}
