//! Compressed messages, and the histories of a connection.

use bytes::BytesMut;
use phx_proto::Frame;
use phx_proto::config::Compression;
use phx_proto::websocket::{Endpoint, Fault, Limits, Scratch, Violation};
use zlib_rs::{Deflate, DeflateFlush};

use super::{MIB, held, peak, row};

/// A compressed message of a server, in fragments of at most this many bytes.
fn frames(compressed: &[u8], fragment: usize) -> BytesMut {
    let mut bytes = BytesMut::new();
    let mut parts = compressed.chunks(fragment).peekable();
    let mut first = 0x42;
    while let Some(part) = parts.next() {
        let last = if parts.peek().is_none() { 0x80 } else { 0 };
        let length = u16::try_from(part.len()).expect("a short fragment");
        assert!(length > 125);
        bytes.extend_from_slice(&[first | last, 126]);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(part);
        first = 0;
    }
    bytes
}

/// 16 MiB of one letter and of a repeated text, which compress to less than 60 KB, against a limit of 1 MiB.
#[test]
fn bombs_stop_at_the_limit() {
    for (name, text) in [("one letter", "a"), ("text", "[null,null,\"room:lobby\",\"msg\",{}]")] {
        let bomb = text.repeat(16 * MIB / text.len());
        let mut codec = Deflate::new(9, false, 15);
        let mut compressed = vec![0; MIB];
        codec.compress(bomb.as_bytes(), &mut compressed, DeflateFlush::SyncFlush).expect("it fits");
        compressed.truncate(usize::try_from(codec.total_out()).expect("a length") - 4);
        drop((bomb, codec));
        for (kind, fragment) in [("one frame", 60_000), ("fragments", 1_000)] {
            let limits = Limits { message_bytes_max: MIB, ..Limits::default() };
            let bytes = peak(|| {
                let client = Endpoint::client(&limits);
                let mut client = client.compressed(&Compression::strongest());
                let mut scratch = Scratch::new();
                let mut buffer = frames(&compressed, fragment);
                let polled = client.poll_event_with(&mut buffer, &mut scratch);
                let violation = Violation::MessageTooLong { length: MIB as u64 + 1, max: MIB };
                assert_eq!(polled, Err(Fault::Violation(violation)));
            });
            // The buffer of the message grows by doubling.
            row(&format!("compressed bomb: {name}, {kind}"), 2 * MIB, bytes);
        }
    }
}

/// After any traffic a connection holds the two windows and nothing else.
#[test]
fn histories_have_the_size_of_their_windows() {
    for (settings, windows) in [
        (Compression::smallest(), 2 << 10),
        (Compression::balanced(), 12 << 10),
        (Compression::strongest(), 64 << 10),
        (Compression::strongest().context_takeover(false, false), 0),
    ] {
        let limits = Limits::default();
        let client = || Endpoint::client(&limits).compressed(&settings);
        let mut server = Endpoint::server(&limits).compressed(&settings.reversed());
        let mut scratch = Scratch::new();
        let mut deliver = |from: &mut Endpoint, to: &mut Endpoint, number: u32| {
            // The words differ, because a client sends a message uncompressed if a server could refuse the
            // compressed one as a bomb.
            let words = (0..number % 60).map(|n| format!("{:x} and words, ", n * number));
            let text: String = words.collect();
            let mut bytes = BytesMut::new();
            from.send(Frame::from(text)).expect("it is open");
            from.poll_transmit_with(&mut bytes, usize::MAX, || [7; 4], &mut scratch);
            let received = to.poll_event_with(&mut bytes, &mut scratch).expect("it is valid");
            assert!(received.is_some());
        };
        // The codecs and the server allocate during the first traffic.
        let mut first = client();
        let traffic = 0..600;
        for number in traffic.clone() {
            deliver(&mut first, &mut server, number);
            deliver(&mut server, &mut first, number);
        }
        let idle = held(client);
        let mut other = Endpoint::server(&limits).compressed(&settings.reversed());
        let used = held(|| {
            let mut client = client();
            for number in traffic.clone() {
                deliver(&mut client, &mut other, number);
                deliver(&mut other, &mut client, number);
            }
            other = Endpoint::server(&limits);
            client
        });
        assert!(used <= idle + windows + 256, "{settings:?}: {used} bytes, {idle} when idle");
        assert!(
            used + 256 >= idle + windows,
            "{settings:?}: {used} bytes, {idle} when idle: the windows are full"
        );
    }
}
