//! tungstenite as the oracle: the same bytes, cut in different ways, have the same result in both
//! implementations.
//!
//! Where the results differ, tungstenite departs from RFC 6455, and [`expected_of_tungstenite`] lists
//! the case with its clause. Messages that both read are also passed to the server and the sender of
//! this crate.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use crate::cases::{cases, regressions};
use phx_proto::Frame;
use phx_proto::websocket::{Endpoint, Limits, Violation};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use super::support::{
    BINARY, CLOSE, CONTINUATION, Item, Outcome, PING, PONG, Raw, TEXT, close_payload, pieces, raw,
    receive, transmitted,
};

/// The maximum size of a message or a frame in bytes.
const MAX: usize = 600;

pub(crate) fn limits() -> Limits {
    Limits { message_bytes_max: MAX, frame_bytes_max: MAX, ..Limits::default() }
}

/// Frames without a violation, and possibly one frame with a violation.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) frames: Vec<Raw>,
    /// The number of bytes cut off the end.
    pub(crate) cut_off: usize,
}

impl Stream {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.frames.iter().flat_map(Raw::bytes).collect();
        bytes.truncate(bytes.len().saturating_sub(self.cut_off));
        bytes
    }

    /// The stream as a client would send it: the masking of every frame is inverted.
    pub(crate) fn of_a_client(mut self) -> Self {
        self.frames.iter_mut().for_each(|frame| frame.masked ^= true);
        self
    }
}

/// A message in fragments with control frames between them, or a single control frame.
fn wish() -> impl Strategy<Value = Vec<Raw>> {
    let control = (select(vec![PING, PONG]), vec(any::<u8>(), 0..126))
        .prop_map(|(opcode, payload)| raw(opcode, payload));
    let text = prop_oneof!["\\PC{0,30}", "[ -~]{0,300}"].prop_map(|text| (TEXT, text.into_bytes()));
    let binary = vec(any::<u8>(), 0..300).prop_map(|bytes| (BINARY, bytes));
    let between = proptest::option::weighted(0.2, control.clone());
    let message = (prop_oneof![text, binary], vec((any::<Index>(), between), 0..4)).prop_map(
        |((opcode, payload), cuts)| {
            let mut at: Vec<(usize, Option<Raw>)> = cuts
                .into_iter()
                .map(|(index, control)| (index.index(payload.len() + 1), control))
                .collect();
            at.sort_by_key(|(at, _)| *at);
            let (mut frames, mut start) = (Vec::new(), 0);
            for (end, control) in at {
                frames.push(raw(opcode, &payload[start..end]).not_final());
                frames.extend(control);
                start = end;
            }
            frames.push(raw(opcode, &payload[start..]));
            // All frames of a message but the first are continuations.
            let data = frames.iter_mut().filter(|frame| frame.opcode == opcode);
            data.skip(1).for_each(|frame| frame.opcode = CONTINUATION);
            frames
        },
    );
    prop_oneof![4 => message, 1 => control.prop_map(|frame| vec![frame])]
}

/// Valid and invalid close frames.
fn close() -> impl Strategy<Value = Raw> {
    let code = prop_oneof![
        select(vec![1000, 1001, 1007, 1012, 1013, 1014, 3000, 4999]),
        select(vec![0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX]),
        any::<u16>(),
    ];
    let reason = prop_oneof![
        // In a received reason, this character stands for bytes that are not UTF-8.
        4 => "\\PC{0,20}".prop_map(|text| text.replace('\u{fffd}', "?").into_bytes()),
        1 => vec(any::<u8>(), 0..20),
    ];
    let payload = prop_oneof![
        8 => (code, reason).prop_map(|(code, reason)| close_payload(code, &reason)),
        1 => vec(any::<u8>(), 0..2),
    ];
    payload.prop_map(|payload| raw(CLOSE, payload))
}

/// A frame that violates the RFC anywhere, or only in some places.
fn bad() -> impl Strategy<Value = Raw> {
    let payload = vec(any::<u8>(), 0..40);
    let any_opcode = select(vec![CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG]);
    prop_oneof![
        (any_opcode, 1..8_u8, payload.clone())
            .prop_map(|(opcode, rsv, payload)| raw(opcode, payload).reserved(rsv)),
        (select(vec![3_u8, 4, 5, 6, 7, 11, 12, 13, 14, 15]), payload.clone())
            .prop_map(|(opcode, payload)| raw(opcode, payload)),
        (select(vec![CLOSE, PING, PONG]), payload.clone())
            .prop_map(|(opcode, payload)| raw(opcode, payload).not_final()),
        (select(vec![CLOSE, PING, PONG]), 126..400_usize)
            .prop_map(|(opcode, length)| raw(opcode, vec![3; length])),
        // These frames violate the RFC only in some places.
        payload.clone().prop_map(|payload| raw(CONTINUATION, payload)),
        payload.clone().prop_map(|payload| raw(BINARY, payload)),
        (select(vec![TEXT, BINARY, PING]), payload.clone())
            .prop_map(|(opcode, payload)| raw(opcode, payload).masked()),
        payload.clone().prop_map(|payload| raw(TEXT, payload)),
        (MAX - 2..MAX + 3).prop_map(|length| raw(BINARY, vec![7; length])),
        (MAX - 310..MAX + 3).prop_map(|length| raw(CONTINUATION, vec![b'x'; length])),
        (select(vec![2, 8]), payload)
            .prop_map(|(length_bytes, payload)| Raw { length_bytes, ..raw(BINARY, payload) }),
    ]
}

/// Streams of which about half break a rule.
pub(crate) fn stream() -> impl Strategy<Value = Stream> {
    let bad = proptest::option::of((any::<Index>(), prop_oneof![3 => bad(), 1 => close()]));
    let cut_off = prop_oneof![3 => Just(0), 1 => 0..20_usize];
    (vec(wish(), 0..5), bad, proptest::option::of(close()), cut_off).prop_map(
        |(wishes, bad, close, cut_off)| {
            let mut frames = wishes.concat();
            if let Some((at, bad)) = bad {
                frames.insert(at.index(frames.len() + 1), bad);
            }
            frames.extend(close);
            Stream { frames, cut_off }
        },
    )
}

/// The sizes of reads.
pub(crate) fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![vec(1..5_usize, 1..4), vec(1..700_usize, 1..4), Just(Vec::new())]
}

/// A stream that returns bytes in pieces, and keeps the bytes that are written.
struct Stage<'a> {
    pieces: VecDeque<&'a [u8]>,
    written: Vec<u8>,
}

impl Read for Stage<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.pieces.front_mut() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let read = piece.read(into)?;
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        Ok(read)
    }
}

impl Write for Stage<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The result of a stream, by the close code that answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    NoFault,
    Fault(u16),
}

/// The events and the result of tungstenite for a stream, up to the first close frame.
fn tungstenite(role: Role, max: usize, pieces: Vec<&[u8]>) -> (Vec<Item>, Verdict) {
    let config = WebSocketConfig::default().max_message_size(Some(max)).max_frame_size(Some(max));
    let mut context = WebSocketContext::new(role, Some(config));
    let mut stage = Stage { pieces: pieces.into(), written: Vec::new() };
    let mut items = Vec::new();
    loop {
        items.push(match context.read(&mut stage) {
            Ok(Message::Text(text)) => Item::Text(text.as_bytes().to_vec()),
            Ok(Message::Binary(bytes)) => Item::Binary(bytes.to_vec()),
            Ok(Message::Ping(payload)) => Item::Ping(payload.to_vec()),
            Ok(Message::Pong(payload)) => Item::Pong(payload.to_vec()),
            Ok(Message::Close(frame)) => {
                let (code, reason) =
                    frame.map(|frame| (u16::from(frame.code), frame.reason.to_string())).unzip();
                items.push(Item::Close(code, reason.unwrap_or_default()));
                return (items, Verdict::NoFault);
            }
            Ok(Message::Frame(_)) => unreachable!("it is never read"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (items, Verdict::NoFault);
            }
            Err(Error::Protocol(_)) => return (items, Verdict::Fault(1002)),
            Err(Error::Utf8(_)) => return (items, Verdict::Fault(1007)),
            Err(Error::Capacity(_)) => return (items, Verdict::Fault(1009)),
            Err(error) => panic!("{error}"),
        });
    }
}

/// The result that tungstenite must have if this crate has `ours`. `None` if tungstenite reads on
/// although the connection has failed according to RFC 6455.
fn expected_of_tungstenite(ours: &Outcome) -> Option<(Vec<Item>, Verdict)> {
    let mut items = ours.items.clone();
    let violation_close = Item::Close(Some(1002), "Protocol violation".to_owned());
    match &ours.violation {
        None => {
            // Section 7.4.2 and the IANA registry: 1014 is defined. tungstenite rewrites it.
            if let Some(close @ Item::Close(Some(1014), _)) = items.last_mut() {
                *close = violation_close;
            }
            Some((items, Verdict::NoFault))
        }
        // Section 5.2: "the minimal number of bytes MUST be used to encode the length". tungstenite
        // does not check it.
        Some(Violation::LengthNotMinimal { .. }) => None,
        // Section 7.4: tungstenite rewrites a code that must not be sent, and loses its reason,
        // unless the reason is not UTF-8.
        Some(Violation::InvalidCloseCode { close }) => {
            if close.reason.contains('\u{fffd}') {
                return Some((items, Verdict::Fault(1007)));
            }
            items.push(violation_close);
            Some((items, Verdict::NoFault))
        }
        Some(violation) => Some((items, Verdict::Fault(violation.close_code()))),
    }
}

fn agrees(
    role: Role,
    stream: &Stream,
    ours: &[usize],
    theirs: &[usize],
) -> Result<(), TestCaseError> {
    let bytes = stream.bytes();
    let mut endpoint = match role {
        Role::Client => Endpoint::client(&limits()),
        Role::Server => Endpoint::server(&limits()),
    };
    let outcome = receive(&mut endpoint, pieces(&bytes, ours));
    let oracle = tungstenite(role, MAX, pieces(&bytes, theirs));
    let Some(expected) = expected_of_tungstenite(&outcome) else {
        prop_assert!(oracle.0.starts_with(&outcome.items));
        return Ok(());
    };
    // Section 7.1.7: a connection has failed at the first invalid byte. tungstenite judges only
    // complete frames.
    let incomplete = stream.cut_off > 0 && oracle.1 == Verdict::NoFault;
    // Two violations in one frame: tungstenite reports a length over the limit before any other
    // violation.
    let too_long = stream.frames.iter().any(|frame| frame.payload.len() > MAX);
    let two_faults = too_long && oracle.1 == Verdict::Fault(1009);
    if oracle != expected && (incomplete || two_faults) && outcome.violation.is_some() {
        prop_assert_eq!(oracle.0, outcome.items);
    } else {
        prop_assert_eq!(oracle, expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(512, regressions!("websocket")))]

    #[test]
    fn client_reads_like_tungstenite(stream in stream(), ours in sizes(), theirs in sizes()) {
        agrees(Role::Client, &stream, &ours, &theirs)?;
    }

    #[test]
    fn server_reads_like_tungstenite(stream in stream(), ours in sizes(), theirs in sizes()) {
        agrees(Role::Server, &stream.of_a_client(), &ours, &theirs)?;
    }

    /// tungstenite's server reads the messages of this crate's client, which are in fragments with
    /// pings between them.
    /// Protocol: LIMIT-3.
    #[test]
    fn tungstenite_reads_what_client_sends(
        messages in vec((any::<bool>(), "\\PC{0,150}"), 0..6),
        fragment_bytes in 1..100_usize,
        theirs in sizes(),
    ) {
        let mut endpoint = Endpoint::client(&Limits { fragment_bytes, ..limits() });
        let mut sent = Vec::new();
        for (is_text, text) in messages {
            let bytes = text.into_bytes();
            let (frame, item) = if is_text {
                (Frame::Text(bytes.clone().into()), Item::Text(bytes))
            } else {
                (Frame::Binary(bytes.clone().into()), Item::Binary(bytes))
            };
            endpoint.send(frame).expect("there is room");
            sent.push(item);
        }
        endpoint.close(1001, "going").expect("a sendable code");
        sent.push(Item::Close(Some(1001), "going".to_owned()));
        let bytes = transmitted(&mut endpoint);
        let (mut read, verdict) = tungstenite(Role::Server, MAX, pieces(&bytes, &theirs));
        read.retain(|item| !matches!(item, Item::Ping(_)));
        prop_assert_eq!((read, verdict), (sent, Verdict::NoFault));
    }
}

/// Every combination of the first and second byte, alone and within a message.
#[test]
fn every_header_is_judged_like_tungstenite() {
    let max = 1 << 17;
    let limits = Limits { message_bytes_max: max, frame_bytes_max: max, ..limits() };
    let filler = vec![1; max];
    for within_message in [false, true] {
        for first in 0..=255_u8 {
            for second in 0..=255_u8 {
                let mut bytes = Vec::new();
                if within_message {
                    bytes.extend(raw(TEXT, "a").not_final().bytes());
                }
                bytes.extend([first, second]);
                // Lengths in their shortest form.
                match second & 0x7f {
                    126 => bytes.extend(257_u16.to_be_bytes()),
                    127 => bytes.extend(65_536_u64.to_be_bytes()),
                    _ => {}
                }
                // The bytes after the frame are first fragments of texts. Within another text they
                // are invalid, so both readers end there.
                let rest = if second & 0x7f == 127 { 65_600 } else { 300 };
                bytes.extend_from_slice(&filler[..rest]);
                let ours = receive(&mut Endpoint::client(&limits), [&bytes[..]]);
                let oracle = tungstenite(Role::Client, max, vec![&bytes]);
                let expected =
                    expected_of_tungstenite(&ours).expect("a length in its shortest form");
                assert_eq!(oracle, expected, "{within_message} {first:#x} {second:#x}");
            }
        }
    }
}
