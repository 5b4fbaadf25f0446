//! Pongs, probes, the closing handshake and limits of an endpoint.

use crate::cases::{cases, regressions};
use bytes::{Bytes, BytesMut};
use phx_proto::Frame;
use phx_proto::upgrade::{Upgrade, UpgradeError, UpgradeRequest};
use phx_proto::websocket::{
    Endpoint, Event, Fault, Limits, PingRefused, SendError, State, UnsendableCode, Violation,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::support::{
    BINARY, CLOSE, CONTINUATION, Item, KEY, PING, PONG, Raw, TEXT, close_payload, raw, read_frames,
    receive, transmitted,
};

fn client() -> Endpoint {
    Endpoint::client(&Limits::default())
}

/// The frames that a client has to write.
fn written(endpoint: &mut Endpoint) -> Vec<(bool, u8, Vec<u8>)> {
    read_frames(&transmitted(endpoint), true)
}

fn read(endpoint: &mut Endpoint, frame: &Raw) -> Result<Option<Event>, Fault> {
    let mut buffer = BytesMut::from(&frame.bytes()[..]);
    endpoint.poll_event(&mut buffer)
}

fn failed(endpoint: &mut Endpoint, frames: &[Raw]) -> Violation {
    let bytes: Vec<u8> = frames.iter().flat_map(Raw::bytes).collect();
    receive(endpoint, [&bytes[..]]).violation.expect("a violation")
}

/// Ten frames arrive in one read. Their payloads are slices of the buffer, and nothing is copied.
#[test]
fn messages_are_slices_of_the_buffer() {
    let stream: Vec<u8> = (0..10).flat_map(|at| raw(TEXT, vec![b'a' + at; 64]).bytes()).collect();
    let mut buffer = BytesMut::from(&stream[..]);
    let start = buffer.as_ptr() as usize;
    let mut endpoint = client();
    for at in 0..10_usize {
        let event = endpoint.poll_event(&mut buffer).expect("no fault");
        let Some(Event::Message(Frame::Text(text))) = event else { panic!("{event:?}") };
        assert_eq!(text.as_ptr() as usize, start + 2 + at * 66);
    }
    assert_eq!(endpoint.poll_event(&mut buffer), Ok(None));
}

/// The buffer for fragments grows by doubling. A long message is in memory of its own size afterwards.
#[test]
fn fragmented_message_has_no_spare_capacity() {
    const LEN: usize = 1 << 20;
    for first in [1, LEN / 2 + 1, LEN - 1] {
        let mut endpoint = client();
        let parts =
            [raw(BINARY, vec![7; first]).not_final(), raw(CONTINUATION, vec![7; LEN - first])];
        let bytes: Vec<u8> = parts.iter().flat_map(Raw::bytes).collect();
        let event = endpoint.poll_event(&mut BytesMut::from(&bytes[..])).expect("no fault");
        let Some(Event::Message(Frame::Binary(message))) = event else { panic!("{event:?}") };
        assert_eq!(message.len(), LEN);
        let capacity = message.try_into_mut().expect("the only reference").capacity();
        assert!(capacity < LEN + LEN / 100, "{first}: {capacity} bytes are kept");
    }
}

#[test]
fn missing_counts_down_to_frame_end() {
    let mut endpoint = client();
    let frame = raw(BINARY, vec![0; 1_000]).bytes();
    let mut buffer = BytesMut::new();
    for (end, missing) in [(3, 0), (4, 1_000), (5, 999), (1_003, 1)] {
        buffer.clear();
        let mut endpoint = endpoint.clone();
        buffer.extend_from_slice(&frame[..end]);
        assert_eq!(endpoint.poll_event(&mut buffer), Ok(None));
        assert_eq!(endpoint.missing(buffer.len()), missing);
    }
    buffer.clear();
    buffer.extend_from_slice(&frame);
    assert!(endpoint.poll_event(&mut buffer).is_ok_and(|event| event.is_some()));
    assert_eq!(endpoint.missing(buffer.len()), 0);
}

#[test]
fn latest_ping_is_answered() {
    let mut endpoint = client();
    for payload in ["a", "b", "c"] {
        assert!(matches!(read(&mut endpoint, &raw(PING, payload)), Ok(Some(Event::Ping(_)))));
    }
    assert_eq!(written(&mut endpoint), [(true, PONG, b"c".to_vec())]);
    assert_eq!(written(&mut endpoint), []);
}

/// RFC 6455, section 5.5.2: a ping is answered unless a close frame was received. The endpoint's own
/// close frame does not change that.
/// Protocol: HB-8.
#[test]
fn ping_is_answered_until_close_is_received() {
    let mut endpoint = client();
    endpoint.close(1000, "").expect("a sendable code");
    assert_eq!(written(&mut endpoint).len(), 1);
    read(&mut endpoint, &raw(PING, "a")).expect("no fault");
    assert_eq!(written(&mut endpoint), [(true, PONG, b"a".to_vec())]);

    read(&mut endpoint, &raw(PING, "b")).expect("no fault");
    read(&mut endpoint, &raw(CLOSE, "")).expect("no fault");
    assert_eq!(written(&mut endpoint), []);
}

/// A long message is sent in fragments, with a ping after each fragment but the last. The pong to a
/// ping acknowledges the bytes before it.
/// Protocol: LIMIT-4.
#[test]
fn long_message_is_sent_in_fragments_with_pings() {
    let mut endpoint = Endpoint::client(&Limits { fragment_bytes: 4, ..Limits::default() });
    endpoint.send(Frame::from("0123456789")).expect("there is room");
    endpoint.send(Frame::from("abcd")).expect("there is room");
    let probe = |count: u64| [&b"phx+"[..], &count.to_be_bytes()].concat();
    let expected = [
        (false, TEXT, b"0123".to_vec()),
        (true, PING, probe(4)),
        (false, CONTINUATION, b"4567".to_vec()),
        (true, PING, probe(8)),
        (true, CONTINUATION, b"89".to_vec()),
        (true, TEXT, b"abcd".to_vec()),
    ];
    assert_eq!(written(&mut endpoint), expected);
    assert_eq!((endpoint.upload().transmitted, endpoint.upload().acknowledged), (14, 0));

    // Only the pong to the latest ping acknowledges bytes.
    assert_eq!(read(&mut endpoint, &raw(PONG, probe(8))), Ok(Some(Event::Acknowledged(8))));
    assert_eq!(endpoint.upload().acknowledged, 8);
    // Pongs to older pings, to pings that were never sent, and to pings of another kind acknowledge
    // nothing.
    for payload in [probe(4), probe(8), probe(9), probe(14), b"phx+".to_vec(), b"x".to_vec()] {
        let pong = Ok(Some(Event::Pong(payload.clone().into())));
        assert_eq!(read(&mut endpoint, &raw(PONG, payload)), pong);
    }
    assert_eq!(endpoint.upload().acknowledged, 8);
}

/// Short messages are acknowledged too: when they add up to the size of a fragment, a ping is sent
/// before the next message. No ping follows the last message, so an idle connection sends none.
#[test]
fn short_messages_are_acknowledged() {
    let mut endpoint = Endpoint::client(&Limits { fragment_bytes: 4, ..Limits::default() });
    let probe = |count: u64| (true, PING, [&b"phx+"[..], &count.to_be_bytes()].concat());
    let text = |text: &str| (true, TEXT, text.as_bytes().to_vec());
    for message in ["abc", "d", "ef"] {
        endpoint.send(Frame::from(message)).expect("there is room");
    }
    let expected = [text("abc"), text("d"), probe(4), text("ef")];
    assert_eq!(written(&mut endpoint), expected);
    endpoint.send(Frame::from("ghi")).expect("there is room");
    assert_eq!(written(&mut endpoint), [text("ghi")]);
    assert_eq!(written(&mut endpoint), []);
    endpoint.send(Frame::from("j")).expect("there is room");
    assert_eq!(written(&mut endpoint), [probe(9), text("j")]);
    assert_eq!(endpoint.upload().probed, 9);
}

/// Pongs, pings and messages in one outbox: control frames do not wait for the end of the fragments.
#[test]
fn control_frames_go_between_fragments() {
    let mut endpoint = Endpoint::client(&Limits { fragment_bytes: 2, ..Limits::default() });
    endpoint.send(Frame::from("abcd")).expect("there is room");
    let mut out = BytesMut::new();
    assert_eq!(endpoint.poll_transmit(&mut out, 1, || KEY), 2 + 4 + 2);
    read(&mut endpoint, &raw(PING, "p")).expect("no fault");
    endpoint.ping(Bytes::from_static(b"q")).expect("there is room");
    assert_eq!(endpoint.ping(Bytes::from_static(b"r")), Err(PingRefused::Full));
    let opcodes: Vec<u8> = written(&mut endpoint).iter().map(|(_, opcode, _)| *opcode).collect();
    assert_eq!(opcodes, [PONG, PING, PING, CONTINUATION]);
}

/// A ping that is too long, or after a close, is refused.
/// Protocol: LIMIT-3.
#[test]
fn unsendable_ping_is_refused() {
    let mut endpoint = client();
    let long = endpoint.ping(Bytes::from_static(&[0; 126]));
    assert_eq!(long, Err(PingRefused::TooLong { length: 126 }));
    assert_eq!(endpoint.ping(Bytes::from_static(&[0; 125])), Ok(()));
    endpoint.close(1000, "").expect("a sendable code");
    assert_eq!(endpoint.ping(Bytes::new()), Err(PingRefused::Closing));
}

#[test]
fn outbox_is_bounded() {
    let limits = Limits { outbox_bytes_max: 200, fragment_bytes: 50, ..Limits::default() };
    let mut endpoint = Endpoint::client(&limits);
    let frame = || Frame::Binary(Bytes::from_static(&[7; 60]));
    assert_eq!((endpoint.send(frame()), endpoint.send(frame())), (Ok(()), Ok(())));
    assert_eq!(endpoint.send(frame()), Err(SendError::Full(frame())));
    assert_eq!(endpoint.queued(), 2);
    // A message that is being sent counts until its last fragment is written.
    let mut out = BytesMut::new();
    endpoint.poll_transmit(&mut out, 1, || KEY);
    assert_eq!((endpoint.queued(), endpoint.send(frame())), (2, Err(SendError::Full(frame()))));
    endpoint.poll_transmit(&mut out, 100, || KEY);
    assert_eq!((endpoint.queued(), endpoint.send(frame())), (1, Ok(())));
    // A message that is longer than the outbox is accepted if the outbox is empty.
    transmitted(&mut endpoint);
    let long = Frame::Binary(vec![0; 1_000].into());
    assert_eq!(
        (endpoint.send(long), endpoint.send(frame())),
        (Ok(()), Err(SendError::Full(frame())))
    );
    // At exactly the limit, the outbox is full.
    let mut exact = Endpoint::client(&Limits { outbox_bytes_max: 60 + 64, ..limits });
    assert_eq!((exact.send(frame()), exact.send(frame())), (Ok(()), Err(SendError::Full(frame()))));
    // Empty messages are bounded too.
    transmitted(&mut endpoint);
    let empty = || Frame::Text(Bytes::new());
    let accepted = (0..100).take_while(|_| endpoint.send(empty()).is_ok()).count();
    assert_eq!(accepted, 4);
}

#[test]
fn invalid_utf8_text_is_not_sent() {
    let mut endpoint = client();
    let frame = || Frame::Text(Bytes::from_static(b"\xff"));
    assert_eq!(endpoint.send(frame()), Err(SendError::NotUtf8(frame())));
    assert_eq!(endpoint.send(Frame::Binary(Bytes::from_static(b"\xff"))), Ok(()));
    assert_eq!(endpoint.send(Frame::from("\u{e4}")), Ok(()));
    assert_eq!(endpoint.queued(), 2);
}

/// A close frame is sent after the messages that were accepted before it.
/// Protocol: CLOSE-10.
#[test]
fn close_goes_behind_accepted_messages() {
    let mut endpoint = Endpoint::client(&Limits { fragment_bytes: 2, ..Limits::default() });
    endpoint.send(Frame::from("abc")).expect("there is room");
    endpoint.close(4000, "bye").expect("a sendable code");
    // The first close counts.
    endpoint.close(1000, "").expect("a sendable code");
    assert_eq!(endpoint.state(), State::Closing);
    let refused = endpoint.send(Frame::from("late"));
    assert_eq!(refused, Err(SendError::Closing(Frame::from("late"))));
    let frames = written(&mut endpoint);
    assert_eq!(frames.last(), Some(&(true, CLOSE, close_payload(4000, b"bye"))));
    assert_eq!(frames.len(), 4);
    // Messages are received until the peer's close frame, which ends the handshake.
    let message = read(&mut endpoint, &raw(TEXT, "a"));
    assert_eq!(message, Ok(Some(Event::Message(Frame::from("a")))));
    read(&mut endpoint, &raw(CLOSE, close_payload(4000, b""))).expect("no fault");
    assert_eq!((endpoint.state(), written(&mut endpoint)), (State::Closed, vec![]));
    assert_eq!(endpoint.handle_eof(), Ok(()));
}

#[test]
fn unsendable_code_does_not_close() {
    let mut endpoint = client();
    for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        assert_eq!(endpoint.close(code, ""), Err(UnsendableCode(code)));
    }
    assert_eq!((endpoint.state(), written(&mut endpoint)), (State::Open, vec![]));
}

/// The answer to the peer's close frame echoes the code. It is sent before everything else: before
/// queued messages, and before the rest of a message.
#[test]
fn peer_close_is_answered_at_once() {
    let mut endpoint = Endpoint::client(&Limits { fragment_bytes: 2, ..Limits::default() });
    endpoint.send(Frame::from("abcd")).expect("there is room");
    endpoint.send(Frame::from("e")).expect("there is room");
    endpoint.poll_transmit(&mut BytesMut::new(), 1, || KEY);
    endpoint.ping(Bytes::new()).expect("there is room");
    read(&mut endpoint, &raw(PING, "p")).expect("no fault");
    let close = read(&mut endpoint, &raw(CLOSE, close_payload(1012, b"deploy")));
    let Ok(Some(Event::Close(close))) = close else { panic!("{close:?}") };
    assert_eq!((close.code, &close.reason[..]), (Some(1012), "deploy"));
    assert_eq!((endpoint.state(), endpoint.queued()), (State::Closing, 0));
    assert_eq!(written(&mut endpoint), [(true, CLOSE, close_payload(1012, b""))]);
    assert_eq!(endpoint.state(), State::Closed);
}

/// The endpoint's close frame still waits behind messages when the peer's close frame arrives. The
/// answer is sent instead.
#[test]
fn waiting_close_is_replaced_by_answer() {
    let mut endpoint = client();
    endpoint.send(Frame::from("a")).expect("there is room");
    endpoint.close(4000, "").expect("a sendable code");
    read(&mut endpoint, &raw(CLOSE, close_payload(1001, b""))).expect("no fault");
    assert_eq!(written(&mut endpoint), [(true, CLOSE, close_payload(1001, b""))]);
}

#[test]
fn violation_is_answered_with_its_code() {
    let mut endpoint = client();
    endpoint.send(Frame::from("a")).expect("there is room");
    let mut buffer = BytesMut::from(&b"\x82\x7e\x00\x05hello"[..]);
    let violation = Violation::LengthNotMinimal { length: 5 };
    assert_eq!(endpoint.poll_event(&mut buffer), Err(Fault::Violation(violation)));
    assert_eq!((buffer.len(), endpoint.poll_event(&mut buffer)), (0, Ok(None)));
    // Queued messages are dropped.
    assert_eq!(endpoint.queued(), 0);
    let reason = b"the length 5 is not written in its shortest form";
    assert_eq!(written(&mut endpoint), [(true, CLOSE, close_payload(1002, reason))]);
    assert_eq!((endpoint.state(), endpoint.handle_eof()), (State::Closed, Ok(())));

    // After the endpoint's own close frame, no second one is sent.
    let mut endpoint = client();
    endpoint.close(1000, "").expect("a sendable code");
    transmitted(&mut endpoint);
    failed(&mut endpoint, &[raw(3, "")]);
    assert_eq!((written(&mut endpoint), endpoint.state()), (vec![], State::Closed));
}

/// Each violation has its clause of the RFC, and the code of the close frame that answers it.
#[test]
fn violations_name_their_clause() {
    let text = || raw(TEXT, "a").not_final();
    let more = || raw(CONTINUATION, "a").not_final();
    let empty = || raw(CONTINUATION, "").not_final();
    let utf8 = |payload: &[u8]| raw(TEXT, payload);
    let close = |code, reason: &[u8]| raw(CLOSE, close_payload(code, reason));
    let limits = Limits {
        message_bytes_max: 10,
        frame_bytes_max: 8,
        fragments_max: 3,
        empty_fragments_max: 2,
        ..Limits::default()
    };
    for (frames, clause, code, message) in [
        (vec![raw(TEXT, "a").reserved(4)], "5.2", 1002, "reserved bits 0b100 are set"),
        (vec![raw(11, "")], "5.2", 1002, "opcode 0xb is unknown"),
        (vec![raw(TEXT, "a").masked()], "5.1", 1002, "the server masked a frame"),
        (
            vec![raw(PING, "").not_final()],
            "5.5",
            1002,
            "a control frame (opcode 0x9) is fragmented",
        ),
        (
            vec![raw(PONG, [0; 126])],
            "5.5",
            1002,
            "a control frame (opcode 0xa) is longer than 125 bytes",
        ),
        (vec![more()], "5.4", 1002, "a continuation frame without a message to continue"),
        (vec![text(), text()], "5.4", 1002, "a message (opcode 0x1) begins within another one"),
        (vec![utf8(b"ab\xffc")], "8.1", 1007, "a text message is not UTF-8 at byte 2"),
        (vec![utf8(b"ab\xc3")], "8.1", 1007, "a text message is not UTF-8 at byte 2"),
        (vec![raw(CLOSE, "a")], "5.5.1", 1002, "the payload of a close frame is a single byte"),
        (vec![close(1005, b"")], "7.4", 1002, "close code 1005 must not be sent"),
        (vec![close(1000, b"\xff")], "5.5.1", 1007, "the reason of a close frame is not UTF-8"),
        (vec![raw(BINARY, [0; 9])], "10.4", 1009, "a frame of 9 bytes is longer than 8"),
        (
            vec![raw(TEXT, "abcdef").not_final(), raw(CONTINUATION, "ghijk")],
            "10.4",
            1009,
            "a message of at least 11 bytes is longer than 10",
        ),
        (vec![text(), more(), more(), more()], "10.4", 1009, "a message has more than 3 fragments"),
        (
            vec![raw(TEXT, "").not_final(), empty(), empty()],
            "10.4",
            1009,
            "a message has more than 2 empty fragments",
        ),
    ] {
        let violation = failed(&mut Endpoint::client(&limits), &frames);
        assert_eq!(violation.to_string(), message);
        assert_eq!((violation.clause(), violation.close_code()), (clause, code), "{message}");
        let fault = Fault::from(violation).to_string();
        assert!(fault.ends_with(&format!("(RFC 6455 section {clause})")), "{fault}");
    }
    let unmasked = failed(&mut Endpoint::server(&limits), &[raw(TEXT, "a")]);
    assert_eq!((unmasked.clause(), unmasked), ("5.1", Violation::UnmaskedByClient));
}

/// A length of 125 in 16 bits violates the RFC, and a length of 126 does not. The same holds for
/// 65,535 and 65,536 in 64 bits.
#[test]
fn length_forms_meet_without_a_gap() {
    for (length, length_bytes, is_right) in [
        (125, 0, true),
        (125, 2, false),
        (126, 2, true),
        (65_535, 2, true),
        (65_535, 8, false),
        (65_536, 8, true),
    ] {
        let frame = Raw { length_bytes, ..raw(TEXT, vec![b'x'; length]) };
        let outcome = receive(&mut client(), [&frame.bytes()[..]]);
        assert_eq!(outcome.items.len(), usize::from(is_right), "{length} in {length_bytes}");
        let violation = Violation::LengthNotMinimal { length: length as u64 };
        assert_eq!(outcome.violation, (!is_right).then_some(violation));
    }
}

/// At most the requested number of bytes is returned.
#[test]
fn transmit_stops_at_maximum() {
    let mut endpoint = client();
    for _ in 0..3 {
        endpoint.send(Frame::from("abcd")).expect("there is room");
    }
    let mut out = BytesMut::new();
    assert_eq!((endpoint.poll_transmit(&mut out, 20, || KEY), endpoint.queued()), (20, 1));
    assert_eq!(endpoint.poll_transmit(&mut out, 20, || KEY), 0);
    assert_eq!((endpoint.poll_transmit(&mut out, 21, || KEY), out.len()), (10, 30));
}

/// If a caller loses bytes of an incomplete frame, later bytes are misread, but nothing panics.
#[test]
fn lost_buffer_bytes_do_not_panic() {
    let mut endpoint = client();
    let mut buffer = BytesMut::from(&raw(TEXT, vec![b'x'; 100]).bytes()[..50]);
    assert_eq!(endpoint.poll_event(&mut buffer), Ok(None));
    buffer.clear();
    assert_eq!(endpoint.poll_event(&mut buffer), Ok(None));
    buffer.extend_from_slice(&[b'y'; 100]);
    assert!(matches!(endpoint.poll_event(&mut buffer), Ok(Some(Event::Message(_)))));
}

/// Messages and frames of exactly the maximum sizes are received.
#[test]
fn limits_are_exact() {
    let limits = Limits {
        message_bytes_max: 10,
        frame_bytes_max: 8,
        fragments_max: 3,
        empty_fragments_max: 2,
        ..Limits::default()
    };
    let part = |payload: &str| raw(CONTINUATION, payload).not_final();
    // The first fragment counts too.
    let none = Limits { empty_fragments_max: 0, ..limits };
    let violation = failed(&mut Endpoint::client(&none), &[raw(TEXT, "").not_final()]);
    assert_eq!(violation, Violation::TooManyEmptyFragments { max: 0 });
    for frames in [
        vec![raw(TEXT, "12345678")],
        vec![raw(TEXT, "12345678").not_final(), raw(CONTINUATION, "90")],
        vec![raw(TEXT, "1").not_final(), part("2"), raw(CONTINUATION, "3")],
        vec![raw(TEXT, "").not_final(), part(""), raw(CONTINUATION, "1")],
        // An unfragmented message is not a fragment, and a control frame is not part of a message.
        vec![raw(TEXT, ""), raw(TEXT, ""), raw(TEXT, "")],
        vec![raw(TEXT, "12345678").not_final(), raw(PING, [0; 125]), raw(CONTINUATION, "90")],
    ] {
        let bytes: Vec<u8> = frames.iter().flat_map(Raw::bytes).collect();
        let outcome = receive(&mut Endpoint::client(&limits), [&bytes[..]]);
        assert_eq!(outcome.violation, None, "{frames:?}");
        assert!(matches!(outcome.items.last(), Some(Item::Text(_))), "{frames:?}");
    }
    // The next message has its own limit.
    let frames: Vec<Raw> = (0..3)
        .flat_map(|_| [raw(TEXT, "").not_final(), part(""), raw(CONTINUATION, "12345678")])
        .collect();
    let bytes: Vec<u8> = frames.iter().flat_map(Raw::bytes).collect();
    assert_eq!(receive(&mut Endpoint::client(&limits), [&bytes[..]]).items.len(), 3);
}

#[test]
fn eof_without_close_frame_is_fault() {
    assert_eq!(client().handle_eof(), Err(Fault::Eof));
    let mut endpoint = client();
    endpoint.close(1000, "").expect("a sendable code");
    transmitted(&mut endpoint);
    assert_eq!((endpoint.handle_eof(), endpoint.state()), (Err(Fault::Eof), State::Closed));
    // A second call does not report the fault again.
    assert_eq!(endpoint.handle_eof(), Ok(()));

    // The answer to the peer's close frame need not have been written.
    let mut endpoint = client();
    read(&mut endpoint, &raw(CLOSE, "")).expect("no fault");
    assert_eq!(endpoint.handle_eof(), Ok(()));
    // The answer to a violation need not have been written either; the violation was reported
    // already.
    let mut endpoint = client();
    failed(&mut endpoint, &[raw(3, "")]);
    assert_eq!((endpoint.handle_eof(), written(&mut endpoint)), (Ok(()), vec![]));
}

fn upgrade() -> Upgrade {
    Upgrade::new(&UpgradeRequest {
        host: "localhost:4000",
        target: "/socket/websocket?vsn=2.0.0",
        headers: &[],
        subprotocols: &[],
        key: *b"the sample nonce",
    })
    .expect("a good request")
}

const ANSWER: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// The upgrade and the first message in one stream, cut in any way. Bytes after the server's answer
/// in the same read are frames.
#[test]
fn upgrade_is_the_first_phase() {
    let stream = [ANSWER, &raw(TEXT, "hello").bytes(), &raw(CLOSE, "").bytes()].concat();
    for size in [1, 7, stream.len()] {
        let mut endpoint = Endpoint::connecting(upgrade(), &Limits::default());
        assert_eq!(endpoint.state(), State::Connecting);
        endpoint.send(Frame::from("early")).expect("it is accepted and waits");
        let request = transmitted(&mut endpoint);
        assert!(request.starts_with(b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\n"));
        assert!(request.ends_with(b"\r\n\r\n"), "no frame goes before the answer");
        let (mut buffer, mut events) = (BytesMut::new(), Vec::new());
        for piece in stream.chunks(size) {
            buffer.extend_from_slice(piece);
            while let Some(event) = endpoint.poll_event(&mut buffer).expect("no fault") {
                events.push(event);
                if events.len() == 1 {
                    assert_eq!(written(&mut endpoint), [(true, TEXT, b"early".to_vec())]);
                }
            }
        }
        assert!(endpoint.upgrade().is_none());
        let [Event::Opened(upgraded), message, Event::Close(_)] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!((upgraded.leftover.len(), upgraded.headers.len()), (0, 3));
        assert_eq!(message, &Event::Message(Frame::from("hello")));
    }
}

#[test]
fn refused_upgrade_is_a_fault() {
    let mut endpoint = Endpoint::connecting(upgrade(), &Limits::default());
    let mut copy = endpoint.clone();
    let refusal = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 9\r\n\r\n";
    let mut buffer = BytesMut::from(&refusal[..]);
    assert_eq!(endpoint.poll_event(&mut buffer), Ok(None));
    let pending = endpoint.upgrade().and_then(Upgrade::pending_refusal);
    assert_eq!(pending.map(|refusal| refusal.status()), Some(403));
    buffer.extend_from_slice(b"forbidden");
    let fault = endpoint.poll_event(&mut buffer).expect_err("a refusal");
    let Fault::Upgrade(error) = fault else { panic!("{fault:?}") };
    assert!(matches!(*error, UpgradeError::Refused(_)), "{error}");
    buffer.extend_from_slice(b"more");
    assert_eq!((endpoint.poll_event(&mut buffer), endpoint.state()), (Ok(None), State::Closed));
    assert_eq!((transmitted(&mut endpoint).len(), endpoint.handle_eof()), (0, Ok(())));

    let eof = copy.handle_eof().expect_err("no answer");
    assert!(matches!(&eof, Fault::Upgrade(error) if matches!(**error, UpgradeError::Eof { .. })));
}

/// `Debug` shows only lengths, so payloads, reasons, keys and the request do not appear in logs.
#[test]
fn debug_shows_lengths_only() {
    let secret = "s3cret-payload";
    let mut endpoint = Endpoint::connecting(
        Upgrade::new(&UpgradeRequest {
            host: "localhost",
            target: "/socket/websocket?token=s3cret-payload",
            headers: &[],
            subprotocols: &[],
            key: *b"the sample nonce",
        })
        .expect("a good request"),
        &Limits { fragment_bytes: 4, ..Limits::default() },
    );
    let mut shown = format!("{endpoint:?}");
    let mut buffer = BytesMut::from(ANSWER);
    transmitted(&mut endpoint);
    shown += &format!("{:?}", endpoint.poll_event(&mut buffer));
    endpoint.send(Frame::from(secret)).expect("there is room");
    endpoint.poll_transmit(&mut BytesMut::new(), 1, || *b"s3cr");
    endpoint.ping(Bytes::from(secret)).expect("there is room");
    for frame in [
        raw(PING, secret),
        raw(PONG, secret),
        raw(TEXT, secret).not_final(),
        raw(CLOSE, close_payload(1000, secret.as_bytes())),
    ] {
        shown += &format!("{:?}", read(&mut endpoint, &frame));
        shown += &format!("{endpoint:?}");
    }
    assert!(!shown.contains("s3cret") && shown.contains("14"), "{shown}");
}

/// A step in the exchange between two endpoints.
#[derive(Clone, Debug)]
enum Step {
    Send { from: usize, is_text: bool, text: String },
    Ping { from: usize },
    Close { from: usize },
    Transmit { from: usize, max: usize },
    Carry { from: usize, bytes: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let from = 0..2_usize;
    prop_oneof![
        4 => (from.clone(), any::<bool>(), "\\PC{0,30}")
            .prop_map(|(from, is_text, text)| Step::Send { from, is_text, text }),
        1 => from.clone().prop_map(|from| Step::Ping { from }),
        1 => from.clone().prop_map(|from| Step::Close { from }),
        4 => (from.clone(), 1..60_usize).prop_map(|(from, max)| Step::Transmit { from, max }),
        6 => (from, 1..60_usize).prop_map(|(from, bytes)| Step::Carry { from, bytes }),
    ]
}

/// A client and a server, and the bytes in transit between them.
struct Pair {
    ends: [Endpoint; 2],
    ways: [BytesMut; 2],
    buffers: [BytesMut; 2],
    accepted: [Vec<Frame>; 2],
    received: [Vec<Frame>; 2],
    closes: [usize; 2],
    /// Whether an end has started the closing handshake.
    closing: bool,
    /// Whether an end has sent a ping of its own.
    pinged: [bool; 2],
}

impl Pair {
    fn new(limits: &Limits) -> Self {
        Self {
            ends: [Endpoint::client(limits), Endpoint::server(limits)],
            ways: Default::default(),
            buffers: Default::default(),
            accepted: Default::default(),
            received: Default::default(),
            closes: [0; 2],
            closing: false,
            pinged: [false; 2],
        }
    }

    fn transmit(&mut self, from: usize, max: usize) -> usize {
        let mut key = 0_u32;
        self.ends[from].poll_transmit(&mut self.ways[from], max, || {
            key = key.wrapping_mul(0x9e37_79b9).wrapping_add(0x1234_5677);
            key.to_be_bytes()
        })
    }

    fn carry(&mut self, from: usize, bytes: usize) -> usize {
        let to = 1 - from;
        let bytes = bytes.min(self.ways[from].len());
        let carried = self.ways[from].split_to(bytes);
        self.buffers[to].extend_from_slice(&carried);
        loop {
            match self.ends[to].poll_event(&mut self.buffers[to]).expect("no fault") {
                None => return bytes,
                Some(Event::Message(frame)) => self.received[to].push(frame),
                Some(Event::Close(_)) => self.closes[to] += 1,
                Some(Event::Acknowledged(count)) => {
                    let upload = self.ends[to].upload();
                    assert!(count == upload.acknowledged && count <= upload.transmitted);
                    let read: usize = self.received[from].iter().map(Frame::len).sum();
                    // All earlier messages were read. The message that is being sent was read in
                    // part.
                    assert!(read as u64 <= upload.transmitted);
                }
                Some(_) => {}
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send { from, is_text, text } => {
                let frame =
                    if is_text { Frame::from(text) } else { Frame::Binary(Bytes::from(text)) };
                if self.ends[from].send(frame.clone()).is_ok() {
                    self.accepted[from].push(frame);
                }
            }
            Step::Ping { from } => {
                let _ = self.ends[from].ping(Bytes::from_static(b"ping"));
                self.pinged[from] = true;
            }
            Step::Close { from } => {
                self.closing = true;
                self.ends[from].close(1000, "done").expect("a sendable code");
            }
            Step::Transmit { from, max } => {
                self.transmit(from, max);
            }
            Step::Carry { from, bytes } => {
                self.carry(from, bytes);
            }
        }
    }

    /// Transmits until neither end has anything to write and nothing is in transit.
    fn settle(&mut self) {
        while (0..2).map(|from| self.transmit(from, 1_000) + self.carry(from, 1_000)).sum::<usize>()
            > 0
        {}
    }
}

proptest! {
    #![proptest_config(cases(256, regressions!("websocket")))]

    /// Every accepted message arrives, in order, until an end closes. After that, a prefix of the
    /// accepted messages arrives, and both ends complete the closing handshake.
    #[test]
    fn two_endpoints_interoperate(
        steps in vec(step(), 0..60), fragment_bytes in 1..40_usize, outbox_bytes_max in 1..400_usize,
    ) {
        let limits = Limits { fragment_bytes, outbox_bytes_max, ..Limits::default() };
        let mut pair = Pair::new(&limits);
        for step in steps {
            pair.step(step);
        }
        pair.settle();
        for from in 0..2 {
            let (accepted, received) = (&pair.accepted[from], &pair.received[1 - from]);
            prop_assert!(accepted.starts_with(received));
            if pair.closing {
                prop_assert_eq!(pair.closes[from], 1);
                prop_assert_eq!(pair.ends[from].state(), State::Closed);
                prop_assert_eq!(pair.ends[from].handle_eof(), Ok(()));
            } else {
                prop_assert_eq!(accepted, received);
                let bytes: usize = accepted.iter().map(Frame::len).sum();
                prop_assert_eq!(pair.ends[from].upload().transmitted, bytes as u64);
                // Everything was acknowledged, except for less than a fragment before the last frame,
                // and that frame. If the end also sent a ping of its own, that one may have been
                // answered instead.
                let acknowledged = pair.ends[from].upload().acknowledged as usize;
                prop_assert!(acknowledged <= bytes);
                prop_assert!(pair.pinged[from] || bytes < acknowledged + 2 * fragment_bytes);
            }
        }
    }
}
