//! The cases of the Autobahn test suite for clients, by their numbers: the frames of the server, and
//! the answers that the suite's strict reading expects of an echoing client.
//!
//! The client answers each event at once, like the suite's own clients: 2.10 and 2.11 expect a pong
//! for each of ten pings. It sends each message in one frame, because the suite takes a ping between
//! fragments for an unexpected answer.

use std::slice;

use bytes::BytesMut;
use phx_proto::websocket::{Endpoint, Event, Fault, Limits, State};

use super::support::{
    BINARY, CLOSE, CONTINUATION, Item, KEY, PING, PONG, Raw, TEXT, close_payload, pieces, raw,
    read_frames,
};

const HELLO: &[u8] = b"Hello, world!";
/// Valid UTF-8 with more than one byte per character.
const KOSME: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";
const NORMAL: Option<u16> = Some(1000);
const PROTOCOL_ERROR: Option<u16> = Some(1002);
const INVALID_PAYLOAD: Option<u16> = Some(1007);

/// The echoing client of a case.
struct Client {
    endpoint: Endpoint,
    buffer: BytesMut,
    answers: Vec<Item>,
    /// The code of its close frame, if it has sent one.
    closed: Option<Option<u16>>,
}

impl Client {
    fn new() -> Self {
        let limits = Limits {
            fragment_bytes: usize::MAX,
            outbox_bytes_max: usize::MAX,
            ..Limits::default()
        };
        let endpoint = Endpoint::client(&limits);
        Self { endpoint, buffer: BytesMut::new(), answers: Vec::new(), closed: None }
    }

    fn read(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
        loop {
            let event = match self.endpoint.poll_event(&mut self.buffer) {
                Ok(None) => return,
                Ok(Some(event)) => Some(event),
                Err(Fault::Violation(_)) => None,
                Err(fault) => panic!("{fault}"),
            };
            if let Some(Event::Message(frame)) = event {
                self.endpoint.send(frame).expect("it is open");
            }
            self.write();
        }
    }

    fn write(&mut self) {
        let mut out = BytesMut::new();
        self.endpoint.poll_transmit(&mut out, usize::MAX, || KEY);
        for (fin, opcode, payload) in read_frames(&out, true) {
            assert!(fin && self.closed.is_none(), "nothing follows a close frame");
            match opcode {
                TEXT => self.answers.push(Item::Text(payload)),
                BINARY => self.answers.push(Item::Binary(payload)),
                PONG => self.answers.push(Item::Pong(payload)),
                CLOSE => {
                    self.closed = Some(payload.first_chunk().map(|code| u16::from_be_bytes(*code)));
                }
                opcode => panic!("opcode {opcode}"),
            }
        }
    }
}

/// Plays a case: feeds the frames in pieces of this size. If the client has not closed the connection
/// then, it receives a close frame with 1000.
fn play(case: &str, frames: &[Raw], chop: usize, answers: &[Item], code: Option<u16>) {
    let mut client = Client::new();
    let stream: Vec<u8> = frames.iter().flat_map(Raw::bytes).collect();
    for piece in pieces(&stream, &[chop]) {
        client.read(piece);
    }
    if client.closed.is_none() {
        client.read(&raw(CLOSE, close_payload(1000, b"")).bytes());
    }
    // No `assert_eq`, because some answers have megabytes.
    assert!(client.answers == answers, "case {case}: {} answers", client.answers.len());
    assert_eq!(client.closed, Some(code), "case {case}");
    assert_eq!(client.endpoint.state(), State::Closed, "case {case}");
}

/// A case whose frames arrive in one read.
fn case(name: &str, frames: &[Raw], answers: &[Item], code: Option<u16>) {
    play(name, frames, usize::MAX, answers, code);
}

/// Three cases that differ in the cuts: one read, one read per frame, one read per byte.
fn chopped(names: [&str; 3], frames: &[Raw], answers: &[Item], code: Option<u16>) {
    play(names[0], frames, usize::MAX, answers, code);
    for frame in frames.iter().map(|frame| frame.bytes().len()).take(1) {
        play(names[1], frames, frame, answers, code);
    }
    play(names[2], frames, 1, answers, code);
}

fn text(payload: impl Into<Vec<u8>>) -> Item {
    Item::Text(payload.into())
}

fn pong(payload: impl Into<Vec<u8>>) -> Item {
    Item::Pong(payload.into())
}

/// Framing: text and binary messages with every form of the length.
#[test]
fn autobahn_1_framing() {
    for (at, length) in [0, 125, 126, 127, 128, 65_535, 65_536, 65_536].into_iter().enumerate() {
        let chop = if at == 7 { 997 } else { usize::MAX };
        let (stars, bytes) = (vec![b'*'; length], vec![0xfe; length]);
        let name = format!("1.1.{}", at + 1);
        play(&name, &[raw(TEXT, stars.clone())], chop, &[text(stars)], NORMAL);
        let name = format!("1.2.{}", at + 1);
        play(&name, &[raw(BINARY, bytes.clone())], chop, &[Item::Binary(bytes)], NORMAL);
    }
}

#[test]
fn autobahn_2_pings_and_pongs() {
    let binary = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff";
    let most = [0xfe; 125];
    case("2.1", &[raw(PING, "")], &[pong("")], NORMAL);
    case("2.2", &[raw(PING, HELLO)], &[pong(HELLO)], NORMAL);
    case("2.3", &[raw(PING, *binary)], &[pong(*binary)], NORMAL);
    case("2.4", &[raw(PING, most)], &[pong(most)], NORMAL);
    case("2.5", &[raw(PING, [0xfe; 126])], &[], PROTOCOL_ERROR);
    play("2.6", &[raw(PING, most)], 1, &[pong(most)], NORMAL);
    case("2.7", &[raw(PONG, "")], &[], NORMAL);
    case("2.8", &[raw(PONG, "unsolicited pong payload")], &[], NORMAL);
    let frames = [raw(PONG, "unsolicited pong payload"), raw(PING, "ping payload")];
    case("2.9", &frames, &[pong("ping payload")], NORMAL);
    let payloads: Vec<String> = (0..10).map(|at| format!("payload-{at}")).collect();
    let pings: Vec<Raw> = payloads.iter().map(|payload| raw(PING, payload.as_bytes())).collect();
    let pongs: Vec<Item> = payloads.iter().map(|payload| pong(payload.as_bytes())).collect();
    case("2.10", &pings, &pongs, NORMAL);
    play("2.11", &pings, 1, &pongs, NORMAL);
}

#[test]
fn autobahn_3_reserved_bits() {
    let hello = || raw(TEXT, HELLO);
    case("3.1", &[hello().reserved(1)], &[], PROTOCOL_ERROR);
    for (name, rsv, chop) in [("3.2", 2, usize::MAX), ("3.3", 3, 15), ("3.4", 4, 1)] {
        let frames = [hello(), hello().reserved(rsv), raw(PING, "")];
        play(name, &frames, chop, &[text(HELLO)], PROTOCOL_ERROR);
    }
    let binary = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff";
    case("3.5", &[raw(BINARY, *binary).reserved(5)], &[], PROTOCOL_ERROR);
    case("3.6", &[raw(PING, HELLO).reserved(6)], &[], PROTOCOL_ERROR);
    case("3.7", &[raw(CLOSE, "").reserved(7)], &[], PROTOCOL_ERROR);
}

#[test]
fn autobahn_4_opcodes() {
    for (group, first) in [("4.1", 3), ("4.2", 11)] {
        let name = |number| format!("{group}.{number}");
        case(&name(1), &[raw(first, "")], &[], PROTOCOL_ERROR);
        case(&name(2), &[raw(first + 1, "reserved opcode payload")], &[], PROTOCOL_ERROR);
        for (number, payload, chop) in
            [(3, &b""[..], usize::MAX), (4, HELLO, usize::MAX), (5, HELLO, 1)]
        {
            let frames = [raw(TEXT, HELLO), raw(first + number - 1, payload), raw(PING, "")];
            play(&name(number), &frames, chop, &[text(HELLO)], PROTOCOL_ERROR);
        }
    }
}

#[test]
fn autobahn_5_fragmentation() {
    let fragment = |number: u8| format!("fragment{number}");
    let begins = |number| raw(TEXT, fragment(number)).not_final();
    let goes_on = |number| raw(CONTINUATION, fragment(number)).not_final();
    let ends = |number| raw(CONTINUATION, fragment(number));
    let ping = || raw(PING, "ping payload");
    let one_two = text("fragment1fragment2");

    case("5.1", &[raw(PING, fragment(1)).not_final(), ends(2)], &[], PROTOCOL_ERROR);
    case("5.2", &[raw(PONG, fragment(1)).not_final(), ends(2)], &[], PROTOCOL_ERROR);
    chopped(["5.3", "5.4", "5.5"], &[begins(1), ends(2)], slice::from_ref(&one_two), NORMAL);
    let answers = [pong("ping payload"), one_two.clone()];
    chopped(["5.6", "5.7", "5.8"], &[begins(1), ping(), ends(2)], &answers, NORMAL);
    let stray = || raw(CONTINUATION, "non-continuation payload");
    let hello = || raw(TEXT, HELLO);
    chopped(["5.9", "5.10", "5.11"], &[stray(), hello()], &[], PROTOCOL_ERROR);
    let frames = [stray().not_final(), hello()];
    chopped(["5.12", "5.13", "5.14"], &frames, &[], PROTOCOL_ERROR);
    let frames = [begins(1), ends(2), goes_on(3), raw(TEXT, fragment(4))];
    case("5.15", &frames, &[one_two], PROTOCOL_ERROR);
    case("5.16", &[goes_on(1), begins(2), ends(3)], &[], PROTOCOL_ERROR);
    case("5.17", &[ends(1), begins(2), ends(3)], &[], PROTOCOL_ERROR);
    case("5.18", &[begins(1), raw(TEXT, fragment(2))], &[], PROTOCOL_ERROR);
    let frames = [
        begins(1),
        goes_on(2),
        raw(PING, "pongme 1!"),
        goes_on(3),
        goes_on(4),
        raw(PING, "pongme 2!"),
        ends(5),
    ];
    let whole = text("fragment1fragment2fragment3fragment4fragment5");
    let answers = [pong("pongme 1!"), pong("pongme 2!"), whole];
    case("5.19", &frames, &answers, NORMAL);
    play("5.20", &frames, 11, &answers, NORMAL);
}

/// A text in fragments of this size.
fn fragments(opcode: u8, payload: &[u8], size: usize) -> Vec<Raw> {
    let mut frames: Vec<Raw> = payload
        .chunks(size)
        .enumerate()
        .map(|(at, chunk)| raw(if at == 0 { opcode } else { CONTINUATION }, chunk).not_final())
        .collect();
    if let Some(last) = frames.last_mut() {
        last.fin = true;
    }
    frames
}

#[test]
fn autobahn_6_1_to_6_3_texts() {
    let part = |payload: &[u8]| raw(CONTINUATION, payload);
    let empty = || raw(TEXT, "").not_final();
    case("6.1.1", &[raw(TEXT, "")], &[text("")], NORMAL);
    case("6.1.2", &[empty(), part(b"").not_final(), part(b"")], &[text("")], NORMAL);
    let middle = b"middle frame payload";
    case("6.1.3", &[empty(), part(middle).not_final(), part(b"")], &[text(*middle)], NORMAL);

    let umlauts = "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!".as_bytes();
    let boundary = "Hello-\u{b5}@\u{df}\u{f6}\u{e4}".len();
    case("6.2.1", &[raw(TEXT, umlauts)], &[text(umlauts)], NORMAL);
    let frames = [raw(TEXT, &umlauts[..boundary]).not_final(), part(&umlauts[boundary..])];
    case("6.2.2", &frames, &[text(umlauts)], NORMAL);
    case("6.2.3", &fragments(TEXT, umlauts, 1), &[text(umlauts)], NORMAL);
    case("6.2.4", &fragments(TEXT, KOSME, 1), &[text(KOSME)], NORMAL);

    let invalid = [KOSME, b"\xed\xa0\x80edited"].concat();
    case("6.3.1", &[raw(TEXT, invalid.clone())], &[], INVALID_PAYLOAD);
    case("6.3.2", &fragments(TEXT, &invalid, 1), &[], INVALID_PAYLOAD);
}

/// Fail fast: the client closes before the bytes after the invalid one are sent.
#[test]
fn autobahn_6_4_fails_fast() {
    let payload = [KOSME, b"\xf4\x90\x80\x80edited"].concat();
    // In 6.4.1 the second part contains the invalid byte in its middle. In 6.4.2 it ends with that
    // byte.
    for (name, cuts) in [("6.4.1", [11, 15]), ("6.4.2", [12, 13])] {
        let mut client = Client::new();
        client.read(&raw(TEXT, &payload[..cuts[0]]).not_final().bytes());
        assert_eq!(client.closed, None, "case {name}");
        let second = raw(CONTINUATION, &payload[cuts[0]..cuts[1]]).not_final().bytes();
        client.read(&second);
        assert_eq!(client.closed, Some(INVALID_PAYLOAD), "case {name}");
    }
    // The same parts in one frame.
    for (name, cuts) in [("6.4.3", [11, 15]), ("6.4.4", [12, 13])] {
        let mut client = Client::new();
        let frame = raw(TEXT, payload.clone()).bytes();
        client.read(&frame[..2 + cuts[0]]);
        assert_eq!(client.closed, None, "case {name}");
        client.read(&frame[2 + cuts[0]..2 + cuts[1]]);
        assert_eq!(client.closed, Some(INVALID_PAYLOAD), "case {name}");
    }
}

/// Groups 6.5 to 6.23: texts that are UTF-8, and texts that are not.
#[test]
fn autobahn_6_5_to_6_23_sequences() {
    let groups: Vec<Vec<(bool, Vec<u8>)>> = vec![
        valid(&[
            b"hello\x24world",
            b"hello\xc2\xa2world",
            b"hello\xe2\x82\xacworld",
            b"hello\xf0\xa4\xad\xa2world",
            KOSME,
        ]),
        // All prefixes of a text. Those that end within a character are not UTF-8.
        (1..=KOSME.len())
            .map(|end| ([2, 5, 7, 9, 11].contains(&end), KOSME[..end].to_vec()))
            .collect(),
        valid(&[b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]),
        invalid(&[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]),
        valid(&[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]),
        invalid(&[b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]),
        [
            valid(&[b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf"]),
            invalid(&[b"\xf4\x90\x80\x80"]),
        ]
        .concat(),
        [
            invalid(&[b"\x80", b"\xbf", b"\x80\xbf", b"\x80\xbf\x80", b"\x80\xbf\x80\xbf"]),
            invalid(&[b"\x80\xbf\x80\xbf\x80", b"\x80\xbf\x80\xbf\x80\xbf"]),
            vec![(false, (0x80..0xbf).collect())],
        ]
        .concat(),
        // Start bytes without continuation bytes.
        [(0xc0, 0xdf), (0xe0, 0xef), (0xf0, 0xf7), (0xf8, 0xfb), (0xfc, 0xfd)]
            .map(|(from, to)| (false, (from..to).flat_map(|lead| [lead, b' ']).collect()))
            .to_vec(),
        invalid(&TRUNCATED),
        vec![(false, TRUNCATED.concat())],
        invalid(&[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
        // Overlong forms of a slash, of the last character of each length, and of NUL.
        invalid(&[
            b"\xc0\xaf",
            b"\xe0\x80\xaf",
            b"\xf0\x80\x80\xaf",
            b"\xf8\x80\x80\x80\xaf",
            b"\xfc\x80\x80\x80\x80\xaf",
        ]),
        invalid(&[
            b"\xc1\xbf",
            b"\xe0\x9f\xbf",
            b"\xf0\x8f\xbf\xbf",
            b"\xf8\x87\xbf\xbf\xbf",
            b"\xfc\x83\xbf\xbf\xbf\xbf",
        ]),
        invalid(&[
            b"\xc0\x80",
            b"\xe0\x80\x80",
            b"\xf0\x80\x80\x80",
            b"\xf8\x80\x80\x80\x80",
            b"\xfc\x80\x80\x80\x80\x80",
        ]),
        // Surrogates, alone and in pairs.
        invalid(&[
            b"\xed\xa0\x80",
            b"\xed\xad\xbf",
            b"\xed\xae\x80",
            b"\xed\xaf\xbf",
            b"\xed\xb0\x80",
            b"\xed\xbe\x80",
            b"\xed\xbf\xbf",
        ]),
        invalid(&[
            b"\xed\xa0\x80\xed\xb0\x80",
            b"\xed\xa0\x80\xed\xbf\xbf",
            b"\xed\xad\xbf\xed\xb0\x80",
            b"\xed\xad\xbf\xed\xbf\xbf",
            b"\xed\xae\x80\xed\xb0\x80",
            b"\xed\xae\x80\xed\xbf\xbf",
            b"\xed\xaf\xbf\xed\xb0\x80",
            b"\xed\xaf\xbf\xed\xbf\xbf",
        ]),
        non_characters(),
        (0xb9..=0xbf).map(|last| (true, vec![0xef, 0xbf, last])).collect(),
    ];
    assert_eq!(groups.len(), 19);
    for (group, texts) in groups.into_iter().enumerate() {
        for (at, (is_valid, payload)) in texts.into_iter().enumerate() {
            let name = format!("6.{}.{}", group + 5, at + 1);
            let (answers, code) = if is_valid {
                (vec![text(payload.clone())], NORMAL)
            } else {
                (Vec::new(), INVALID_PAYLOAD)
            };
            case(&name, &[raw(TEXT, payload.clone())], &answers, code);
            play(&name, &fragments(TEXT, &payload, 1), 1, &answers, code);
        }
    }
}

/// Sequences whose last continuation byte is missing.
const TRUNCATED: [&[u8]; 10] = [
    b"\xc0",
    b"\xe0\x80",
    b"\xf0\x80\x80",
    b"\xf8\x80\x80\x80",
    b"\xfc\x80\x80\x80\x80",
    b"\xdf",
    b"\xef\xbf",
    b"\xf7\xbf\xbf",
    b"\xfb\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf",
];

fn valid(texts: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
    texts.iter().map(|text| (true, text.to_vec())).collect()
}

fn invalid(texts: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
    texts.iter().map(|text| (false, text.to_vec())).collect()
}

/// The last two code points of every plane. They are not characters, but they are valid UTF-8.
fn non_characters() -> Vec<(bool, Vec<u8>)> {
    let planes = (0..=16_u32).flat_map(|plane| [plane << 16 | 0xfffe, plane << 16 | 0xffff]);
    let texts = planes.map(|code| char::from_u32(code).expect("a scalar value").to_string());
    texts.map(|text| (true, text.into_bytes())).collect()
}

#[test]
fn autobahn_7_1_to_7_5_close_frames() {
    let close = |payload: &[u8]| raw(CLOSE, payload);
    let normal = || close(&close_payload(1000, b""));
    let hello = || raw(TEXT, "Hello World!");
    case("7.1.1", &[hello()], &[text("Hello World!")], NORMAL);
    case("7.1.2", &[normal(), close(b"")], &[], NORMAL);
    case("7.1.3", &[normal(), raw(PING, "")], &[], NORMAL);
    case("7.1.4", &[normal(), hello()], &[], NORMAL);
    let frames = [raw(TEXT, "fragment1").not_final(), normal(), raw(CONTINUATION, "fragment2")];
    case("7.1.5", &frames, &[], NORMAL);
    let long = b"BAsd7&jh23".repeat(26_215)[..256 << 10].to_vec();
    let frames = [raw(TEXT, long.clone()), hello(), normal(), raw(PING, "")];
    case("7.1.6", &frames, &[text(long), text("Hello World!")], NORMAL);

    case("7.3.1", &[close(b"")], &[], None);
    case("7.3.2", &[close(b"a")], &[], PROTOCOL_ERROR);
    case("7.3.3", &[normal()], &[], NORMAL);
    case("7.3.4", &[close(&close_payload(1000, b"Hello World!"))], &[], NORMAL);
    case("7.3.5", &[close(&close_payload(1000, &[b'*'; 123]))], &[], NORMAL);
    case("7.3.6", &[close(&close_payload(1000, &[b'*'; 124]))], &[], PROTOCOL_ERROR);
    let reason = [KOSME, b"\xed\xa0\x80edited"].concat();
    case("7.5.1", &[close(&close_payload(1000, &reason))], &[], INVALID_PAYLOAD);
}

/// 7.7 has the codes that may be sent. 7.9 and 7.13 have those that may not. 7.13 is informational,
/// because the RFC does not define codes from 5000.
#[test]
fn autobahn_7_7_to_7_13_close_codes() {
    let valid = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999, // 7.7
        1012, 1013, 1014, // registered with IANA since; in other versions of the suite
    ];
    for (at, code) in valid.into_iter().enumerate() {
        let frame = raw(CLOSE, close_payload(code, b""));
        case(&format!("7.7.{}", at + 1), &[frame], &[], Some(code));
    }
    for (at, code) in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999].into_iter().enumerate() {
        let frame = raw(CLOSE, close_payload(code, b""));
        case(&format!("7.9.{}", at + 1), &[frame], &[], PROTOCOL_ERROR);
    }
    for (name, code) in [("7.13.1", 5000), ("7.13.2", 65_535), ("1015", 1015)] {
        case(name, &[raw(CLOSE, close_payload(code, b""))], &[], PROTOCOL_ERROR);
    }
}

/// Sizes: large messages in one frame, in fragments, and in small reads.
#[test]
fn autobahn_9_1_to_9_6_sizes() {
    let ascii = |length: usize| b"BAsd7&jh23".iter().copied().cycle().take(length).collect();
    let noise =
        |length: usize| b"\x00\xfe\x23\xfa\xf0".iter().copied().cycle().take(length).collect();
    for (group, opcode) in [("9.1", TEXT), ("9.2", BINARY)] {
        for (at, kib) in [64, 256, 1_024, 4_096, 8_192, 16_384].into_iter().enumerate() {
            let payload = if opcode == TEXT { ascii(kib << 10) } else { noise(kib << 10) };
            size(&format!("{group}.{}", at + 1), opcode, payload, usize::MAX, usize::MAX);
        }
    }
    for (group, opcode) in [("9.3", TEXT), ("9.4", BINARY)] {
        for at in 0..9 {
            let (name, fragment) = (format!("{group}.{}", at + 1), 64 << (2 * at));
            size(&name, opcode, vec![b'*'; 4 << 20], fragment, usize::MAX);
        }
    }
    for (group, opcode) in [("9.5", TEXT), ("9.6", BINARY)] {
        for at in 0..6 {
            let payload = if opcode == TEXT { ascii(1 << 20) } else { noise(1 << 20) };
            size(&format!("{group}.{}", at + 1), opcode, payload, usize::MAX, 64 << at);
        }
    }
}

fn size(name: &str, opcode: u8, payload: Vec<u8>, fragment: usize, chop: usize) {
    let frames = fragments(opcode, &payload, fragment);
    let echo = if opcode == TEXT { Item::Text(payload) } else { Item::Binary(payload) };
    play(name, &frames, chop, &[echo], NORMAL);
}

/// A thousand messages of each size are sent and echoed.
#[test]
fn autobahn_9_7_and_9_8_round_trips() {
    for (group, opcode) in [("9.7", TEXT), ("9.8", BINARY)] {
        for (at, length) in [0, 16, 64, 256, 1_024, 4_096].into_iter().enumerate() {
            let name = format!("{group}.{}", at + 1);
            let mut client = Client::new();
            let payload = vec![if opcode == TEXT { b'*' } else { 0xfe }; length];
            let frame = raw(opcode, payload.clone()).bytes();
            for number in 1..=1_000 {
                client.read(&frame);
                assert_eq!(client.answers.len(), number, "case {name}");
            }
            let echo = if opcode == TEXT { Item::Text(payload) } else { Item::Binary(payload) };
            assert!(client.answers.iter().all(|answer| *answer == echo), "case {name}");
        }
    }
}

/// A server that splits every message at 1,300 bytes.
#[test]
fn autobahn_10_1_1_auto_fragmentation() {
    let payload = vec![b'*'; 65_536];
    case("10.1.1", &fragments(TEXT, &payload, 1_300), &[text(payload)], NORMAL);
}
