//! Compression: the examples of RFC 7692, every pair of settings, and hostile peers.

use bytes::BytesMut;
use phx_proto::Frame;
use phx_proto::config::Compression;
use phx_proto::upgrade::{Upgrade, UpgradeError, UpgradeRequest};
use phx_proto::websocket::{Endpoint, Event, Fault, Limits, Scratch, Violation};
use proptest::collection::vec;
use proptest::prelude::*;
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush};

use super::oracle::sizes;
use super::support::{
    BINARY, CONTINUATION, Item, KEY, Outcome, PING, PONG, Raw, TEXT, pieces, raw, receive,
};
use crate::cases::{cases, regressions};

/// RSV1, which marks a compressed message.
const COMPRESSED: u8 = 0b100;

fn client() -> Endpoint {
    limited(1 << 20)
}

/// A client with the largest windows that receives messages up to a length.
fn limited(message_bytes_max: usize) -> Endpoint {
    let limits = Limits { message_bytes_max, ..Limits::default() };
    Endpoint::client(&limits).compressed(&Compression::strongest())
}

/// The result of reading frames, which is the same if the bytes arrive one by one.
fn received(endpoint: &Endpoint, frames: &[Raw]) -> Outcome {
    let bytes: Vec<u8> = frames.iter().flat_map(Raw::bytes).collect();
    let whole = receive(&mut endpoint.clone(), [&bytes[..]]);
    assert_eq!(receive(&mut endpoint.clone(), bytes.chunks(1)), whole);
    whole
}

fn compressed(opcode: u8, payload: impl Into<Vec<u8>>) -> Raw {
    raw(opcode, payload).reserved(COMPRESSED)
}

fn texts(outcome: &Outcome) -> Vec<String> {
    assert_eq!(outcome.violation, None);
    let text = |item: &Item| match item {
        Item::Text(text) => Some(String::from_utf8(text.clone()).expect("it was checked")),
        _ => None,
    };
    outcome.items.iter().filter_map(text).collect()
}

/// DEFLATE data of another compressor, without the tail. It refers to the text before it.
fn deflate(before: &[u8], message: &[u8]) -> Vec<u8> {
    let mut codec = Deflate::new(9, false, 15);
    if !before.is_empty() {
        codec.set_dictionary(before).expect("a raw stream");
    }
    let mut out = vec![0; message.len() + 1_000];
    codec.compress(message, &mut out, DeflateFlush::SyncFlush).expect("it fits");
    assert_eq!(codec.total_in(), message.len() as u64);
    out.truncate(usize::try_from(codec.total_out()).expect("a length") - 4);
    out
}

/// The buffer of a decompressed message grows by doubling. A long message is in memory of its own size
/// afterwards.
#[test]
fn decompressed_message_has_no_spare_capacity() {
    const LEN: usize = (512 << 10) + 1;
    let frame = compressed(BINARY, deflate(b"", &vec![7; LEN]));
    let mut buffer = BytesMut::from(&frame.bytes()[..]);
    let event = client().poll_event(&mut buffer).expect("no fault");
    let Some(Event::Message(Frame::Binary(message))) = event else { panic!("{event:?}") };
    assert_eq!(message.len(), LEN);
    let capacity = message.try_into_mut().expect("the only reference").capacity();
    assert!(capacity < LEN + LEN / 100, "{capacity} bytes are kept");
}

/// The examples of RFC 7692 section 7.2.3.
#[test]
fn examples_of_rfc_are_received() {
    const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    let hello = |frames: &[Raw]| assert_eq!(texts(&received(&client(), frames)), ["Hello"]);
    // 7.2.3.1: one block, in one frame and in two.
    hello(&[compressed(TEXT, HELLO)]);
    hello(&[compressed(TEXT, &HELLO[..3]).not_final(), raw(CONTINUATION, &HELLO[3..])]);
    // 7.2.3.3: a block without compression.
    hello(&[compressed(TEXT, b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00")]);
    // 7.2.3.4: a final block.
    hello(&[compressed(TEXT, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00")]);
    // 7.2.3.5: two blocks.
    hello(&[compressed(TEXT, b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00")]);
    // 7.2.3.2: the second message refers to the first.
    let twice = [compressed(TEXT, HELLO), compressed(TEXT, b"\xf2\x00\x11\x00\x00")];
    assert_eq!(texts(&received(&client(), &twice)), ["Hello", "Hello"]);
    // 7.2.3.6: an empty message.
    assert_eq!(texts(&received(&client(), &[compressed(TEXT, b"\x00")])), [""]);
}

/// The window continues after a final block, within a message and in the next one, and an
/// uncompressed message is not part of it.
#[test]
fn window_outlives_final_blocks() {
    let first = [&b"\xf3\x48\xcd\xc9\xc9\x07\x00"[..], &deflate(b"Hello", b"Hello")].concat();
    let outcome = received(
        &client(),
        &[
            compressed(TEXT, first),
            raw(TEXT, "no part of the window"),
            compressed(TEXT, deflate(b"HelloHello", b"HelloHello!")),
        ],
    );
    assert_eq!(texts(&outcome), ["HelloHello", "no part of the window", "HelloHello!"]);
}

/// RFC 7692 section 6.1: control frames may come between fragments, and have no RSV1.
#[test]
fn control_frames_interleave() {
    let data = deflate(b"", b"ping and pong");
    let outcome = received(
        &client(),
        &[
            compressed(TEXT, &data[..4]).not_final(),
            raw(PING, "a"),
            raw(CONTINUATION, "").not_final(),
            raw(PONG, "b"),
            raw(CONTINUATION, &data[4..]),
        ],
    );
    let [ping, pong] = [Item::Ping(b"a".into()), Item::Pong(b"b".into())];
    assert_eq!(outcome.items, [ping, pong, Item::Text(b"ping and pong".into())]);
}

/// RSV1 has a meaning on the first frame of a message only; RSV2 and RSV3 never have one.
#[test]
fn other_reserved_bits_are_refused() {
    let begun = compressed(TEXT, deflate(b"", b"text")).not_final();
    let refused = |frames: &[Raw], bits| {
        let violation = received(&client(), frames).violation;
        assert_eq!(violation, Some(Violation::ReservedBits { bits }), "{frames:?}");
    };
    refused(&[begun.clone(), compressed(CONTINUATION, "")], 0b100);
    refused(&[begun, compressed(PING, "")], 0b100);
    for bits in [0b010, 0b001, 0b110, 0b101, 0b111] {
        refused(&[raw(TEXT, "").reserved(bits)], bits);
    }
    let plain = Endpoint::client(&Limits::default());
    let violation = received(&plain, &[compressed(TEXT, "\0")]).violation;
    assert_eq!(violation, Some(Violation::ReservedBits { bits: 0b100 }));
}

/// A message that is cut off or damaged is refused, and never received as a shorter one.
#[test]
fn truncated_message_is_refused() {
    let text = "all of this text, and all of that text: ".repeat(40);
    let data = deflate(b"", text.as_bytes());
    for end in 1..data.len() {
        let violation = received(&client(), &[compressed(BINARY, &data[..end])]).violation;
        assert_eq!(violation, Some(Violation::InvalidDeflate), "{end} of {}", data.len());
    }
    for data in [
        // A block without compression that ends early.
        &b"\x00\x05\x00\xfa\xff"[..],
        // The reserved type of a block; a length that contradicts its complement.
        b"\x06",
        b"\x00\x05\x00\xfa\xfeHello\x00",
        // The tail, which the sender has to remove.
        b"\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff",
        // Bytes after a complete block.
        b"\xf2\x48\xcd\xc9\xc9\x07\x00\xff",
    ] {
        let violation = received(&client(), &[compressed(BINARY, data)]).violation;
        assert_eq!(violation, Some(Violation::InvalidDeflate), "{data:x?}");
    }
}

/// A reference to text that the window does not hold is refused: text before the first message, of an
/// earlier message without context takeover, or farther back than the negotiated window.
#[test]
fn reference_out_of_window_is_refused() {
    let far: Vec<u8> = (0..600_u32).flat_map(|n| n.to_be_bytes()).collect();
    let refers = compressed(BINARY, deflate(&far, &far[..8]));
    let first = compressed(BINARY, deflate(b"", &far));
    let balanced = Compression::balanced();
    for (agreed, is_valid) in [
        (balanced, true),
        (balanced.context_takeover(false, true), false),
        (balanced.window_bits(11, 15).expect("valid windows"), false),
    ] {
        let endpoint = Endpoint::client(&Limits::default()).compressed(&agreed);
        let outcome = received(&endpoint, &[first.clone(), refers.clone()]);
        assert_eq!(outcome.violation.is_none(), is_valid, "{agreed:?}");
        assert_eq!(outcome.items.len(), if is_valid { 2 } else { 1 });
    }
    let outcome = received(&client(), &[refers]);
    assert_eq!(outcome.violation, Some(Violation::InvalidDeflate));
}

/// A message may be as long as the limit, and not a byte longer. The limit counts the bytes after
/// decompression, also if compression made the message longer.
#[test]
fn limit_counts_decompressed_bytes() {
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..100_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    for message in [vec![b'a'; 100_000], noise] {
        let data = deflate(b"", &message);
        let frames = [compressed(BINARY, data)];
        let bytes = frames[0].bytes();
        let outcome = receive(&mut limited(100_000), [&bytes[..]]);
        assert_eq!(outcome.items, [Item::Binary(message)]);
        let outcome = receive(&mut limited(99_999), [&bytes[..]]);
        let violation = Violation::MessageTooLong { length: 100_000, max: 99_999 };
        assert_eq!(outcome, Outcome { items: Vec::new(), violation: Some(violation) });
    }
}

/// Blocks without content cannot keep the client busy: the compressed length is limited, and so is the
/// number of blocks.
#[test]
fn bombs_of_blocks_are_refused() {
    let refused = |block: &[u8], count: usize| {
        let mut data = block.repeat(count);
        // The last empty block without its tail, which the sender has to remove.
        data.extend((block.len() == 5).then_some(0));
        receive(&mut limited(10_000), [&compressed(BINARY, data).bytes()[..]]).violation
    };
    let empty = [0, 0, 0, 0xff, 0xff];
    assert!(matches!(refused(&empty, 7_000), Some(Violation::MessageTooLong { .. })));
    let too_many = Some(Violation::TooManyBlocks { max: 4_096 });
    assert_eq!(refused(&empty, 4_000), None);
    assert_eq!(refused(&empty, 4_200), too_many);
    // Final blocks with fixed codes; each ends its stream.
    assert_eq!(refused(b"\x03\x00", 2_000), None);
    assert_eq!(refused(b"\x03\x00", 2_100), too_many);
    // Four blocks with code tables of their own, of 90 bits each.
    let tables = b"\x04\xc0\x81\x00\x00\x00\x00\x00\x90\xff\x6b\x10\x00\x07\x02\x00\x00\x00\x00\x40\xfe\
        \xaf\x41\x00\x1c\x08\x00\x00\x00\x00\x00\xf9\xbf\x06\x01\x70\x20\x00\x00\x00\x00\x00\xe4\xff\x1a";
    let tables = [&tables.repeat(1_025)[..], b"\0"].concat();
    let outcome = receive(&mut limited(1 << 20), [&compressed(BINARY, tables).bytes()[..]]);
    assert_eq!(outcome.violation, too_many);
}

/// A server may set zlib's `memLevel` to 1, as Bandit's `deflate_options` can. Then a block ends after
/// 127 symbols. In base64 almost every symbol is one byte, and noise gets longer by the header of each
/// block. Both are received up to the limit for messages.
#[test]
fn short_blocks_of_small_memory_are_received() {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut seed = 7_u64;
    let noise = core::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 56) as u8
    });
    let noise: Vec<u8> = noise.take(3_000_000).collect();
    let digits: Vec<u8> = noise.iter().map(|byte| DIGITS[usize::from(byte >> 2)]).collect();
    let window_bits = -15;
    for (message, mem_level) in [(&noise, 1), (&noise, 2), (&digits, 1), (&digits, 2)] {
        let config = DeflateConfig { mem_level, window_bits, ..DeflateConfig::default() };
        let mut codec = Deflate::new_with_config(config);
        let mut data = vec![0; 2 * message.len()];
        codec.compress(message, &mut data, DeflateFlush::SyncFlush).expect("enough space");
        data.truncate(codec.total_out() as usize);
        let data = data.strip_suffix(&[0, 0, 0xff, 0xff]).expect("a tail");
        let longer = data.len() as f64 / message.len() as f64;
        let bytes = compressed(BINARY, data).bytes();
        let outcome = receive(&mut limited(message.len()), [&bytes[..]]);
        assert_eq!(outcome.violation, None, "{mem_level}, {longer}");
        assert!(outcome.items == [Item::Binary(message.clone())], "{mem_level}");
    }
}

/// RFC 7692 section 6.2 and RFC 6455 section 8.1: a text is checked after decompression.
#[test]
fn decompressed_text_must_be_utf8() {
    let long = [&b"a".repeat(20_000)[..], b"\xff", &b"a".repeat(20_000)].concat();
    for (text, at) in [(&b"ab\xc3\x28"[..], 2), (b"cut \xe2\x82", 4), (&long, 20_000)] {
        let outcome = received(&client(), &[compressed(TEXT, deflate(b"", text))]);
        assert_eq!(outcome.violation, Some(Violation::TextNotUtf8 { at }));
        let outcome = received(&client(), &[compressed(BINARY, deflate(b"", text))]);
        assert_eq!(outcome.items, [Item::Binary(text.to_vec())]);
    }
    // A character that two chunks of the decompressor share.
    let text = format!("{}\u{e4}\u{1f600}", "b".repeat((16 << 10) - 1));
    let outcome = received(&client(), &[compressed(TEXT, deflate(b"", text.as_bytes()))]);
    assert_eq!(texts(&outcome), [text]);
}

/// Everything that an endpoint writes.
fn sent(endpoint: &mut Endpoint, scratch: &mut Scratch) -> Vec<u8> {
    let mut out = BytesMut::new();
    while endpoint.poll_transmit_with(&mut out, usize::MAX, || KEY, scratch) > 0 {}
    out.into()
}

/// The first byte of each message that a client sends.
fn first_bytes(agreed: &Compression, messages: &[&str]) -> Vec<u8> {
    let mut endpoint = Endpoint::client(&Limits::default()).compressed(agreed);
    let first = |message: &&str| {
        endpoint.send(Frame::from(message.to_string())).expect("the outbox is empty");
        sent(&mut endpoint, &mut Scratch::new())[0]
    };
    messages.iter().map(first).collect()
}

/// Short messages, messages that compression would make longer, and messages that servers would refuse
/// as bombs are sent as they are.
#[test]
fn messages_are_sent_uncompressed() {
    const PLAIN: u8 = 0x81;
    const SMALLER: u8 = 0xc1;
    let balanced = Compression::balanced();
    let (words, short) = ("word after word ".repeat(5), "x".repeat(63));
    let bomb = "0".repeat(30_000);
    let messages = [&words, &short[..], &bomb, "", &words];
    assert_eq!(first_bytes(&balanced, &messages), [SMALLER, PLAIN, PLAIN, PLAIN, SMALLER]);
    let never = balanced.send_bytes_min(usize::MAX);
    assert_eq!(first_bytes(&never, &messages), [PLAIN; 5]);
    let noise: String = (0..200_u32).map(|n| char::from(33 + (n * n * 7 % 94) as u8)).collect();
    let always = balanced.send_bytes_min(0);
    assert_eq!(first_bytes(&always, &["", "a", &noise[..40]]), [PLAIN; 3]);
}

/// A server may limit the client's window to 256 bytes, for which zlib has no codec. The client then
/// sends uncompressed messages, and still receives compressed ones.
#[test]
fn window_of_256_bytes_sends_uncompressed() {
    let (mut client, answer) = upgraded(
        &Compression::balanced(),
        "permessage-deflate; client_max_window_bits=8; server_max_window_bits=8",
    );
    let Ok(Some(Event::Opened(upgraded))) = answer else { panic!("{answer:?}") };
    assert!(upgraded.compression.is_some());
    client.send(Frame::from("word after word ".repeat(9))).expect("it is open");
    assert_eq!(sent(&mut client, &mut Scratch::new())[0], 0x81);
    let refers = |distance: usize| {
        let text: Vec<u8> = (0..distance).map(|at| (at * at / 7) as u8).collect();
        let first = compressed(BINARY, deflate(b"", &text)).bytes();
        let second = compressed(BINARY, deflate(&text, &text[..32])).bytes();
        receive(&mut client.clone(), [&first[..], &second])
    };
    assert_eq!(refers(256).items.len(), 2);
    assert_eq!(refers(300).violation, Some(Violation::InvalidDeflate));
}

/// The client's endpoint after an upgrade that was answered with these extensions.
fn upgraded(offered: &Compression, extensions: &str) -> (Endpoint, Result<Option<Event>, Fault>) {
    let request = UpgradeRequest {
        host: "localhost",
        target: "/",
        headers: &[],
        subprotocols: &[],
        key: *b"the sample nonce",
    };
    let upgrade = Upgrade::compressed(&request, offered).expect("a valid request");
    let mut endpoint = Endpoint::connecting(upgrade, &Limits::default());
    let mut buffer = BytesMut::from(&*format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{extensions}\r\n\r\n",
        extensions = match extensions {
            "" => "X-None: 1".to_owned(),
            value => format!("Sec-WebSocket-Extensions: {value}"),
        }
    ));
    let answer = endpoint.poll_event(&mut buffer);
    (endpoint, answer)
}

/// The server declines the offer: the connection opens without compression, and RSV1 is a violation.
#[test]
fn declined_offer_opens_uncompressed() {
    let (mut endpoint, answer) = upgraded(&Compression::balanced(), "");
    let Ok(Some(Event::Opened(upgraded))) = answer else { panic!("{answer:?}") };
    assert_eq!(upgraded.compression, None);
    endpoint.send(Frame::from("word after word ".repeat(9))).expect("it is open");
    assert_eq!(sent(&mut endpoint, &mut Scratch::new())[0], 0x81);
    let violation = received(&endpoint, &[compressed(TEXT, "\0")]).violation;
    assert_eq!(violation, Some(Violation::ReservedBits { bits: 0b100 }));
}

/// RFC 7692 section 7.1: the client fails the connection if the response contradicts its offer.
#[test]
fn contradicting_answer_fails_the_upgrade() {
    let error = |extensions| match upgraded(&Compression::balanced(), extensions).1 {
        Err(Fault::Upgrade(error)) => *error,
        other => panic!("{other:?}"),
    };
    let UpgradeError::InvalidExtension { reason, answered } =
        error("permessage-deflate; server_max_window_bits=15")
    else {
        panic!()
    };
    assert_eq!(reason, "server_max_window_bits is larger than offered");
    assert_eq!(answered, "permessage-deflate; server_max_window_bits=15");
    let unexpected = error("permessage-bzip2");
    assert!(matches!(unexpected, UpgradeError::UnexpectedExtension { .. }), "{unexpected}");
}

/// Settings of a side, with every window and context.
fn settings() -> impl Strategy<Value = Compression> {
    (9..=15_u8, 9..=15_u8, any::<bool>(), any::<bool>(), 0..100_usize).prop_map(
        |(receive, send, one, other, min)| {
            let windows =
                Compression::balanced().window_bits(receive, send).expect("valid windows");
            windows.context_takeover(one, other).send_bytes_min(min)
        },
    )
}

/// Messages with repeated words, and some noise.
fn message() -> impl Strategy<Value = Frame> {
    const WORDS: [&str; 6] =
        ["phx_reply", "\"status\":\"ok\"", "room:lobby", "\u{e4}\u{1f600}", ",", "0"];
    let words = || vec(0..WORDS.len(), 0..400);
    let words = words().prop_map(|words| words.into_iter().map(|at| WORDS[at]).collect::<String>());
    prop_oneof![
        4 => words.prop_map(Frame::from),
        1 => "\\PC{0,60}".prop_map(Frame::from),
        1 => vec(any::<u8>(), 0..3_000).prop_map(|bytes| Frame::Binary(bytes.into())),
        1 => (0..40_000_usize).prop_map(|length| Frame::from("a".repeat(length))),
    ]
}

proptest! {
    #![proptest_config(cases(64, regressions!("websocket_deflate")))]

    /// Messages arrive unchanged in both directions, over any settings that the sides agree on, in
    /// fragments with pings between them. Neither the reads nor the codecs of other connections
    /// change what is sent and received.
    #[test]
    fn messages_round_trip(
        offered in settings(), own in settings(), messages in vec((any::<bool>(), message()), 1..12),
        fragment_bytes in 1..2_000_usize, sizes in sizes(), other in message(),
    ) {
        let limits = Limits { fragment_bytes, outbox_bytes_max: usize::MAX, ..Limits::default() };
        let offer = Upgrade::compressed(&UpgradeRequest {
            host: "localhost", target: "/", headers: &[], subprotocols: &[], key: [7; 16],
        }, &offered).expect("a valid request");
        let request = std::str::from_utf8(offer.poll_write()).expect("text").to_owned();
        let offer = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
        let mut headers = vec![("sec-websocket-extensions".to_owned(), offer.expect("an offer").to_owned())];
        headers.push(("x-a".to_owned(), "b".to_owned()));
        let config = phx_proto::testing::ServerConfig::default().compress(own);
        let mut server = phx_proto::testing::Server::new(config);
        let request = phx_proto::testing::HttpRequest {
            path: "/socket/websocket?vsn=2.0.0".to_owned(), headers, ..Default::default()
        };
        let accepted = server.connect(phx_proto::Time::ZERO, &request).expect("an upgrade");
        let (answer, theirs) = accepted.extensions.expect("an extension");
        let (client, opened) = upgraded(&offered, &answer);
        let Ok(Some(Event::Opened(opened))) = opened else { panic!("{opened:?}") };
        let ours = opened.compression.expect("compression");
        drop(client);

        let mut busy = Endpoint::client(&limits).compressed(&Compression::strongest());
        let (mut scratch, mut fresh) = (Scratch::new(), Scratch::new());
        let mut client = Endpoint::client(&limits).compressed(&ours);
        let mut server = Endpoint::server(&limits).compressed(&theirs);
        for (up, message) in messages {
            let (from, to) = if up { (&mut client, &mut server) } else { (&mut server, &mut client) };
            busy.send(other.clone()).expect("it is open");
            sent(&mut busy, &mut scratch);
            from.send(message.clone()).expect("it is open");
            let mut twin = from.clone();
            let bytes = sent(from, &mut scratch);
            prop_assert_eq!(&sent(&mut twin, &mut fresh), &bytes);
            let outcome = receive(&mut to.clone(), [&bytes[..]]);
            prop_assert_eq!(&receive(to, pieces(&bytes, &sizes)), &outcome);
            prop_assert_eq!(outcome.violation, None);
            let received: Vec<_> =
                outcome.items.into_iter().filter(|item| !matches!(item, Item::Ping(_))).collect();
            prop_assert_eq!(received, [Item::from(Event::Message(message))]);
            // The pongs.
            let pongs = sent(to, &mut scratch);
            let mut buffer = BytesMut::from(&pongs[..]);
            while from.poll_event(&mut buffer).expect("valid pongs").is_some() {}
        }
    }

    /// Damaged messages give the same result however they are cut, within the limits.
    #[test]
    fn damaged_messages_split_alike(
        message in message(), noise in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), sizes in sizes(),
        max in 0..4_000_usize, is_text in any::<bool>(),
    ) {
        let mut data = deflate(b"", message.as_bytes());
        for (at, byte) in noise {
            *at.get_mut(&mut data) = byte;
        }
        let bytes = compressed(if is_text { TEXT } else { BINARY }, data).bytes();
        let endpoint = limited(max);
        let whole = receive(&mut endpoint.clone(), [&bytes[..]]);
        prop_assert_eq!(&receive(&mut endpoint.clone(), pieces(&bytes, &sizes)), &whole);
        for item in whole.items {
            let (Item::Text(bytes) | Item::Binary(bytes)) = item else { panic!("{item:?}") };
            prop_assert!(bytes.len() <= max);
        }
    }
}
