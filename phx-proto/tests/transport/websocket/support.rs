//! Frames that are written and read independently of the code under test, and an endpoint that
//! receives bytes in pieces.

use bytes::{Buf, BytesMut};
use phx_proto::Frame;
use phx_proto::websocket::{Close, Endpoint, Event, Fault, Violation};

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The key of every masked frame in the tests.
pub(crate) const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame to be written, valid or invalid.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub(crate) fin: bool,
    pub(crate) rsv: u8,
    pub(crate) opcode: u8,
    pub(crate) masked: bool,
    pub(crate) payload: Vec<u8>,
    /// The size of the length field in bytes, if it is not the smallest: 2 or 8.
    pub(crate) length_bytes: usize,
}

/// An unfragmented frame of a server.
pub(crate) fn raw(opcode: u8, payload: impl Into<Vec<u8>>) -> Raw {
    Raw { fin: true, rsv: 0, opcode, masked: false, payload: payload.into(), length_bytes: 0 }
}

/// The payload of a close frame.
pub(crate) fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

impl Raw {
    pub(crate) fn not_final(self) -> Self {
        Self { fin: false, ..self }
    }

    pub(crate) fn reserved(self, rsv: u8) -> Self {
        Self { rsv, ..self }
    }

    pub(crate) fn masked(self) -> Self {
        Self { masked: true, ..self }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let bit = if self.masked { 0x80 } else { 0 };
        let length = self.payload.len();
        let first = if self.fin { 0x80 } else { 0 } | self.rsv << 4 | self.opcode;
        let needed = match length {
            0..=125 => 0,
            126..=0xffff => 2,
            _ => 8,
        };
        let mut bytes = match needed.max(self.length_bytes) {
            0 => vec![first, bit | length as u8],
            2 => [&[first, bit | 126][..], &(length as u16).to_be_bytes()].concat(),
            _ => [&[first, bit | 127][..], &(length as u64).to_be_bytes()].concat(),
        };
        if self.masked {
            bytes.extend_from_slice(&KEY);
            let masked = self.payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key);
            bytes.extend(masked);
        } else {
            bytes.extend_from_slice(&self.payload);
        }
        bytes
    }
}

/// The frames of a stream: final or not, opcode, payload.
///
/// # Panics
///
/// If a frame is cut short, or if its masking differs from `masked`.
pub(crate) fn read_frames(mut bytes: &[u8], masked: bool) -> Vec<(bool, u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (first, second) = (bytes.get_u8(), bytes.get_u8());
        assert_eq!(first & 0x70, 0, "reserved bits");
        assert_eq!(second & 0x80 != 0, masked, "masking");
        let length = match second & 0x7f {
            126 => usize::from(bytes.get_u16()),
            127 => usize::try_from(bytes.get_u64()).expect("a length"),
            short => usize::from(short),
        };
        let key = if masked { bytes.get_u32().to_be_bytes() } else { [0; 4] };
        let (payload, rest) = bytes.split_at(length);
        let unmasked = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        frames.push((first & 0x80 != 0, first & 0xf, unmasked.collect()));
        bytes = rest;
    }
    frames
}

/// The result of reading a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) items: Vec<Item>,
    pub(crate) violation: Option<Violation>,
}

/// A received event with its content, which the event's `Debug` does not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Event> for Item {
    fn from(event: Event) -> Self {
        match event {
            Event::Message(Frame::Text(text)) => Self::Text(text.into()),
            Event::Message(Frame::Binary(bytes)) => Self::Binary(bytes.into()),
            Event::Ping(payload) => Self::Ping(payload.into()),
            Event::Pong(payload) => Self::Pong(payload.into()),
            Event::Close(Close { code, reason }) => Self::Close(code, reason),
            event => panic!("{event:?} of a stream without an upgrade and an upload"),
        }
    }
}

/// Feeds an endpoint with pieces, one after the other.
pub(crate) fn receive<'a>(
    endpoint: &mut Endpoint,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Outcome {
    let (mut buffer, mut outcome) = (BytesMut::new(), Outcome::default());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match endpoint.poll_event(&mut buffer) {
                Ok(Some(event)) => outcome.items.push(event.into()),
                Ok(None) => break,
                Err(Fault::Violation(violation)) => {
                    assert_eq!(outcome.violation, None, "a second violation");
                    outcome.violation = Some(violation);
                }
                Err(fault) => panic!("{fault}"),
            }
        }
    }
    outcome
}

/// Cuts a stream into pieces of these sizes, which repeat.
pub(crate) fn pieces<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !bytes.is_empty() {
        let size = sizes.next().map_or(bytes.len(), |size| (*size).clamp(1, bytes.len()));
        let (piece, rest) = bytes.split_at(size);
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Everything that an endpoint has to write.
pub(crate) fn transmitted(endpoint: &mut Endpoint) -> Vec<u8> {
    let mut out = BytesMut::new();
    while endpoint.poll_transmit(&mut out, usize::MAX, || KEY) > 0 {}
    out.into()
}
