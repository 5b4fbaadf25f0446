//! Clients with compression, against the test server and against hostile ones.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::io::{ErrorKind, Read as _};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use bytes::BytesMut;
use phx_proto::websocket::{Endpoint, Limits};
use phx_tests::waiting::DEADLINE;
use serde_json::json;

use super::peer::accept_upgrade_with;
use super::scenarios;
use super::stage::{Target, play_compressed, signal};
use super::tracked::Tracked;
use crate::rt::phx::config::{Backoff, Compression, DelayRange};
use crate::rt::phx::event::{Cause, DialKind};
use crate::rt::phx::testing::{Listener, ServerConfig};
use crate::rt::phx::wire::Frame;
use crate::rt::phx::{Config, Signal};
use crate::rt::{Runtime, block_on, connect_tcp};

/// Scenarios with every kind of message, over TCP and TLS, and with bytes that are split, delayed and
/// lost.
macro_rules! scenarios {
    ($($scenario:ident)*) => {$(
        #[test]
        fn $scenario() {
            for target in [Target::Loopback, Target::Tls, Target::Faulty] {
                play_compressed(target, Compression::balanced(), scenarios::$scenario);
            }
            let fresh = Compression::smallest().context_takeover(false, false).send_bytes_min(0);
            play_compressed(Target::Faulty, fresh, scenarios::$scenario);
        }
    )*};
}

scenarios! {
    replies_of_every_status
    binary_both_ways
    presence
    transport_killed
    server_shutdown
    large_payloads
    unicode_topics
}

/// Over a real Phoenix with `compress: true`, if there is one.
#[test]
fn phoenix_compresses() {
    play_compressed(Target::Phoenix, Compression::balanced(), scenarios::large_payloads);
}

/// An answer that accepts the offer of the client. It has to name the window of the client's configuration.
const AGREED: &str = "permessage-deflate; server_max_window_bits=13";

/// The compressed messages of a server as frames. RSV1 is set on the first frame of each message.
fn compressed(messages: &[Frame]) -> Vec<u8> {
    let window = Compression::balanced().reversed().send_bytes_min(0);
    let mut server = Endpoint::server(&Limits::default()).compressed(&window);
    let mut out = BytesMut::new();
    for message in messages {
        server.send(message.clone()).expect("it is open");
        while server.poll_transmit(&mut out, usize::MAX, || [0; 4]) > 0 {}
    }
    out.into()
}

/// A server for one connection that answers the offer with these extensions and then sends these bytes. The
/// thread waits until the client ends the connection, and returns the code of its close frame, if it sent
/// one.
fn attack(extensions: String, bytes: Vec<u8>) -> (SocketAddr, JoinHandle<Option<u16>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let addr = listener.local_addr().expect("an address");
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        accept_upgrade_with(&mut stream, &extensions, &bytes);
        let mut received = Vec::new();
        // A reset ends the stream like its end.
        if let Err(error) = stream.read_to_end(&mut received) {
            assert_eq!(
                error.kind(),
                ErrorKind::ConnectionReset,
                "the client closes the connection"
            );
        }
        // Only close frames have this header: FIN, opcode 8, a mask.
        let close = received.windows(8).find(|frame| frame[0] == 0x88 && frame[1] & 0x80 != 0)?;
        Some(u16::from_be_bytes([close[6] ^ close[2], close[7] ^ close[3]]))
    });
    (addr, thread)
}

/// A client meets a hostile server once, and then one that compresses. Returns the cause of the first end.
async fn survive(extensions: &str, bytes: Vec<u8>, code: Option<u16>) -> Cause {
    let header = match extensions {
        "" => String::new(),
        extensions => format!("Sec-WebSocket-Extensions: {extensions}\r\n"),
    };
    let (hostile, thread) = attack(header, bytes);
    let server = ServerConfig::default().compress(Compression::strongest());
    let good = Listener::bind(([127, 0, 0, 1], 0).into(), server).await.expect("a port");
    let (dials, addr) = (AtomicUsize::new(0), good.addr());
    let runtime = Tracked::over(Runtime::new().dial_with(move |_| {
        let first = dials.fetch_add(1, Ordering::SeqCst) == 0;
        connect_tcp(if first { hostile } else { addr })
    }));
    let millis = |ms| Duration::from_millis(ms);
    let config = Config::new("ws://localhost/socket/websocket").expect("an address");
    let config = config
        .compression(Compression::balanced())
        .max_message_bytes(64 << 10)
        .first_retry_spread(DelayRange::new(millis(1), millis(5)).expect("a range"))
        .reconnect_after(Backoff::steps_msec(&[10, 20]).expect("steps"));
    let (client, mut signals) = runtime.start_watched(config);
    let cause = signal(&mut signals, |signal| match signal {
        Signal::Disconnected { cause, .. } | Signal::ConnectFailed { cause, .. } => Some(cause),
        _ => None,
    });
    let cause = cause.await;
    let room = client.join("room:lobby", json!({})).await.expect("the next connection works");
    let words = json!({"words": "word after word ".repeat(40)});
    for _ in 0..2 {
        let reply = room.push("echo", words.clone()).await.expect("a reply").ok().expect("an echo");
        assert_eq!(reply.to_value().expect("JSON")["words"], words["words"]);
    }
    assert_eq!(thread.join().expect("the client ended the connection"), code, "{extensions}");
    client.disconnect().await;
    cause
}

/// The message of a lost transport.
fn lost(cause: &Cause) -> &str {
    match cause {
        Cause::TransportLost { message } => message,
        other => panic!("{other:?}"),
    }
}

/// 1 MiB of zeros in 1 KiB, and blocks without content, which take time instead of memory.
#[test]
fn bombs_end_one_connection() {
    block_on(async {
        let bomb = compressed(&[Frame::Binary(vec![0; 1 << 20].into())]);
        assert!(bomb.len() < 1_100, "{}", bomb.len());
        // Empty blocks with fixed codes, each of which is marked as the final block.
        let blocks = [&[0xc2, 126, 0x27, 0x10][..], &b"\x03\x00".repeat(5_000)].concat();
        for bytes in [bomb, blocks] {
            let cause = survive(AGREED, bytes, Some(1009)).await;
            assert_eq!(cause, Cause::MessageTooLarge { limit: 64 << 10 });
        }
    });
}

/// RSV1 belongs on the first frame of a compressed message, and on no other frame.
#[test]
fn misplaced_rsv1_ends_one_connection() {
    block_on(async {
        let begun = b"\x41\x03\xf2\x48\xcd\xc0\x04\xc9\xc9\x07\x00";
        for (extensions, bytes) in [
            (AGREED, &b"\xc9\x00"[..]),
            (AGREED, b"\xca\x02hi"),
            (AGREED, begun),
            ("", b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"),
        ] {
            let cause = survive(extensions, bytes.to_vec(), Some(1002)).await;
            assert!(lost(&cause).contains("reserved bits 0b100 are set"), "{bytes:x?}: {cause}");
        }
    });
}

/// A message that is cut off, damaged or continued, a reference to text that was never sent, and a text that
/// is not UTF-8.
#[test]
fn invalid_data_ends_one_connection() {
    block_on(async {
        let whole = compressed(&[Frame::from("a text of some words, and of some more words")]);
        let cut = whole.len() / 2;
        let truncated =
            [&[0xc2, u8::try_from(cut - 2).expect("short")][..], &whole[2..cut]].concat();
        for (bytes, problem) in [
            (truncated, "not valid DEFLATE data"),
            // Bytes after the last block, and after a final block.
            (b"\xc2\x08\xf2\x48\xcd\xc9\xc9\x07\x00\xff".to_vec(), "not valid DEFLATE data"),
            (
                b"\xc1\x0a\xf3\x48\xcd\xc9\xc9\x07\x00\xff\xff\xff".to_vec(),
                "not valid DEFLATE data",
            ),
            (b"\xc1\x05\xf2\x00\x11\x00\x00".to_vec(), "not valid DEFLATE data"),
            (b"\xc1\x06\x00\x01\x00\xfe\xff\xff\x00".to_vec(), "not UTF-8"),
        ] {
            let cause = survive(AGREED, bytes.clone(), Some(1007)).await;
            assert!(lost(&cause).contains(problem), "{bytes:x?}: {cause}");
        }
    });
}

/// An answer that does not fit the offer fails the attempt. Nothing is sent on such a connection.
#[test]
fn unoffered_parameters_fail_one_attempt() {
    block_on(async {
        for (extensions, problem) in [
            ("permessage-deflate", "server_max_window_bits is missing"),
            ("permessage-deflate; server_max_window_bits=14", "larger than offered"),
            ("permessage-deflate; server_max_window_bits=13; level=9", "unknown parameter"),
            ("permessage-deflate; server_max_window_bits=7", "not from 8 to 15"),
            ("x-webkit-deflate-frame", "x-webkit-deflate-frame"),
        ] {
            let cause = survive(extensions, Vec::new(), None).await;
            let Cause::Dial { kind: DialKind::Other, message } = &cause else {
                panic!("{cause:?}")
            };
            assert!(message.contains(problem), "{extensions}: {message}");
        }
    });
}
