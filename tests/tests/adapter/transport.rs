//! An open WebSocket as the driver uses it, over the adapter's streams and each transport.

use core::future::poll_fn;
use core::net::SocketAddr;
use core::task::Poll;
use std::io::Write;
use std::net::TcpStream;
use std::thread::JoinHandle;

use bytes::Bytes;
use phx_proto::{Ended, Frame, Socket, Time};

use super::peer::{accept_upgrade, accept_upgrade_with, header, read_masked, serve_once};
use super::scripted::Flood;
use crate::rt::phx::Config;
use crate::rt::phx::client::{Received, Runtime as _, Transport};
use crate::rt::phx::config::{Compression, TransportKind};
use crate::rt::{Runtime, Scripted, block_on, connect_tcp};

type WebSocket = <Runtime as crate::rt::phx::client::Runtime>::Transport;

/// Runs a test over each transport.
fn over_each(test: impl AsyncFn(&Config)) {
    block_on(async {
        for transport in [TransportKind::Tungstenite, TransportKind::WebSocket] {
            println!("{transport:?}");
            let config = Config::new("ws://localhost/socket/websocket").expect("an address");
            let config = config.max_message_bytes(1_024).buffers(1_024, 0).expect("not zero");
            test(&config.transport(transport)).await;
        }
    })
}

/// Dials with this runtime, which has a custom dial function.
async fn open_with(runtime: Runtime, config: &Config) -> WebSocket {
    let socket = Socket::new(config.clone(), 1, Time::ZERO);
    let request = socket.connect_request().expect("it may be dialled");
    runtime.connect(request, config).await.expect("an upgrade").0
}

async fn open(addr: SocketAddr, config: &Config) -> WebSocket {
    open_with(Runtime::new().dial_with(move |_| connect_tcp(addr)), config).await
}

/// A server that accepts the upgrade; `behind` follows its answer in the same write.
fn server(
    behind: &'static [u8],
    script: impl FnOnce(&mut TcpStream) + Send + 'static,
) -> (SocketAddr, JoinHandle<TcpStream>) {
    serve_once(move |stream| {
        accept_upgrade(stream, behind);
        script(stream);
    })
}

async fn receive(transport: &mut WebSocket) -> Received {
    loop {
        let received = poll_fn(|cx| transport.poll_receive(cx)).await;
        if !matches!(received, Received::Control | Received::Part) {
            return received;
        }
    }
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        if core::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn text(text: &'static str) -> Frame {
    Frame::Text(Bytes::from_static(text.as_bytes()))
}

fn close_frame(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x88, 2, high, low]
}

/// Reads the client's close frame and returns its code. Only one of the transports sends a reason.
fn read_close(stream: &mut TcpStream) -> u16 {
    let (opcode, payload) = read_masked(stream);
    assert_eq!(opcode, 8);
    u16::from_be_bytes(*payload.first_chunk().expect("a code"))
}

fn closed(code: u16) -> Received {
    Received::Ended(Ended::CloseFrame { code: Some(code), reason: String::new() })
}

/// Frames that arrived together with the answer to the upgrade come first.
#[test]
fn upgrade_leftover_comes_first() {
    over_each(async |config| {
        let (addr, server) = server(b"\x81\x02hi\x82\x03ab", |stream| {
            assert_eq!(read_masked(stream), (1, b"go on".to_vec()));
            stream.write_all(b"c").unwrap();
        });
        let mut transport = open(addr, config).await;
        assert_eq!(receive(&mut transport).await, Received::Frame(text("hi")));
        transport.send(text("go on")).unwrap();
        poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
        let binary = Frame::Binary(Bytes::from_static(b"abc"));
        assert_eq!(receive(&mut transport).await, Received::Frame(binary));
        server.join().unwrap();
    });
}

/// If tungstenite received the leftover bytes, it would keep their small buffer as its read buffer.
#[test]
fn leftover_does_not_shrink_reads() {
    over_each(async |config| {
        let flood = Flood::new(b"", b"\x81\x02hi");
        flood.lock().behind = b"\x81\x02hi".to_vec();
        let script = flood.clone();
        let dial = move |_| core::future::ready(Ok(Scripted::new(script.clone())));
        let mut transport = open_with(Runtime::new().dial_with(dial), config).await;
        let before = flood.lock().reads;
        for _ in 0..1_001 {
            assert_eq!(receive(&mut transport).await, Received::Frame(text("hi")));
        }
        let reads = flood.lock().reads - before;
        assert!(reads <= 8, "{reads} reads of 1,024 bytes for 4,000");
    });
}

/// The server waits for the pong before it sends more.
#[test]
fn ping_is_answered_without_other_writes() {
    over_each(async |config| {
        let (addr, server) = server(b"\x89\x04ping", |stream| {
            assert_eq!(read_masked(stream), (0xa, b"ping".to_vec()));
            stream.write_all(b"\x81\x02hi").unwrap();
        });
        let mut transport = open(addr, config).await;
        assert_eq!(receive(&mut transport).await, Received::Frame(text("hi")));
        server.join().unwrap();
    });
}

#[test]
fn frames_are_written_in_order() {
    over_each(async |config| {
        let (addr, server) = server(b"", |stream| {
            assert_eq!(read_masked(stream), (1, b"[]".to_vec()));
            assert_eq!(read_masked(stream), (2, Vec::new()));
        });
        let mut transport = open(addr, config).await;
        for frame in [text("[]"), Frame::Binary(Bytes::new())] {
            poll_fn(|cx| transport.poll_ready(cx)).await.unwrap();
            transport.send(frame).unwrap();
        }
        poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
        server.join().unwrap();
    });
}

/// The progress does not include the bytes of the upgrade.
#[test]
fn progress_starts_after_upgrade() {
    over_each(async |config| {
        let (addr, server) = server(b"", |stream| {
            read_masked(stream);
            stream.write_all(b"\x81\x02hi").unwrap();
        });
        let mut transport = open(addr, config).await;
        let progress = transport.progress();
        assert_eq!((progress.read, progress.written), (0, 0));
        transport.send(text("[]")).unwrap();
        poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
        receive(&mut transport).await;
        let progress = transport.progress();
        assert_eq!((progress.read, progress.written), (4, 8));
        server.join().unwrap();
    });
}

/// The transport keeps reading although the pong cannot be written (`wire/close_graceful_shutdown`).
#[test]
fn close_frame_survives_a_reset() {
    over_each(async |config| {
        let (addr, server) = server(b"", |stream| {
            stream.peek(&mut [0]).unwrap();
            stream.write_all(&[b"\x89\0".as_slice(), &close_frame(1012)].concat()).unwrap();
        });
        let mut transport = open(addr, config).await;
        transport.send(text("unread")).unwrap();
        poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
        // The drop sends a reset, because bytes are unread.
        drop(server.join().unwrap());
        while transport.send(text("more")).is_ok() {
            let _ = poll_fn(|cx| transport.poll_flush(cx)).await;
            yield_now().await;
        }
        assert_eq!(receive(&mut transport).await, closed(1012));
    });
}

#[test]
fn close_frame_is_answered() {
    over_each(async |config| {
        let (addr, server) = server(b"", |stream| {
            stream.write_all(&close_frame(1001)).unwrap();
            assert_eq!(read_masked(stream), (8, 1001_u16.to_be_bytes().to_vec()));
        });
        let mut transport = open(addr, config).await;
        assert_eq!(receive(&mut transport).await, closed(1001));
        server.join().unwrap();
    });
}

#[test]
fn oversized_message_closes_with_1009() {
    over_each(async |config| {
        let (addr, server) = server(b"", |stream| {
            stream.write_all(b"\x82\x7e\x04\x01").unwrap();
            assert_eq!(read_close(stream), 1009);
        });
        let mut transport = open(addr, config).await;
        assert_eq!(receive(&mut transport).await, Received::Ended(Ended::MessageTooLarge));
        server.join().unwrap();
    });
}

/// With the largest limits, a frame whose announced length exceeds the memory ends the connection.
#[test]
fn largest_limits_do_not_panic() {
    over_each(async |config| {
        for buffer in [1_024, usize::MAX] {
            let (addr, server) = server(b"", |stream| {
                stream.write_all(b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff").unwrap();
                assert_eq!(read_close(stream), 1009);
            });
            let config = config.clone().max_message_bytes(usize::MAX);
            let config = config.buffers(buffer, buffer).expect("not zero");
            let mut transport = open(addr, &config).await;
            assert_eq!(receive(&mut transport).await, Received::Ended(Ended::MessageTooLarge));
            server.join().unwrap();
        }
    });
}

#[test]
fn vanished_server_is_lost_transport() {
    over_each(async |config| {
        let (addr, server) = server(b"", |_| {});
        let mut transport = open(addr, config).await;
        drop(server.join().unwrap());
        let received = receive(&mut transport).await;
        assert!(matches!(received, Received::Ended(Ended::Lost { .. })), "{received:?}");
    });
}

#[test]
fn invalid_utf8_closes_with_1007() {
    over_each(async |config| {
        let (addr, server) = server(b"", |stream| {
            stream.write_all(b"\x81\x03a\xffb").unwrap();
            assert_eq!(read_close(stream), 1007);
        });
        let mut transport = open(addr, config).await;
        assert!(matches!(receive(&mut transport).await, Received::Ended(Ended::Lost { .. })));
        server.join().unwrap();
    });
}

#[test]
fn broken_frame_closes_with_1002() {
    over_each(async |config| {
        let (addr, server) = server(b"", |stream| {
            stream.write_all(b"\xf1\x00").unwrap();
            assert_eq!(read_close(stream), 1002);
        });
        let mut transport = open(addr, config).await;
        let received = receive(&mut transport).await;
        assert!(matches!(received, Received::Ended(Ended::Lost { .. })), "{received:?}");
        server.join().unwrap();
    });
}

/// A server that breaks the protocol has not closed the connection, whatever looks like a close frame in
/// or behind the frame at fault.
#[test]
fn violation_is_no_close_frame() {
    const CLOSE: [u8; 4] = [0x88, 2, 0x0f, 0xa1];
    over_each(async |config| {
        let violations: [(&str, Vec<u8>); 8] = [
            ("text in place of a frame", [b"HTTP/1.1 400 Bad Request\r\n".as_slice(); 5].concat()),
            ("a fragmented close frame", b"\x08\x02\x0f\xa1".to_vec()),
            ("a masked close frame", b"\x88\x82\0\0\0\0\x0f\xa1".to_vec()),
            ("a close frame that is too long", [&b"\x88\x7e\0\x80"[..], &[b'x'; 0x80]].concat()),
            ("a reserved opcode before a close", [&b"\x8b\0"[..], &CLOSE].concat()),
            ("a fragmented ping before a close", [&b"\x09\0"[..], &CLOSE].concat()),
            ("invalid text before a close", [&b"\x81\x03a\xffb"[..], &CLOSE].concat()),
            ("invalid text and reason", b"\x81\x03a\xffb\x88\x03\x0f\xa1\xff".to_vec()),
        ];
        for (violation, bytes) in violations {
            let (addr, server) = server(b"", move |stream| stream.write_all(&bytes).unwrap());
            let mut transport = open(addr, config).await;
            let received = receive(&mut transport).await;
            let is_lost = matches!(received, Received::Ended(Ended::Lost { .. }));
            assert!(is_lost, "{violation}: {received:?}");
            server.join().unwrap();
        }
    });
}

/// An invalid close frame is reported as it was sent, and answered with the code of the violation.
#[test]
fn invalid_close_frame_is_reported() {
    over_each(async |config| {
        for (payload, code, reason, answer) in [
            (&b"\x03"[..], None, "", 1002),
            (b"\x07\xd0bye", Some(2000), "bye", 1002),
            (b"\x0f\xa1b\xff", Some(4001), "b\u{fffd}", 1007),
        ] {
            let close = [&[0x88, payload.len() as u8], payload].concat();
            let (addr, server) = server(b"", move |stream| {
                stream.write_all(&close).unwrap();
                assert_eq!(read_close(stream), answer);
            });
            let mut transport = open(addr, config).await;
            let ended = Ended::CloseFrame { code, reason: reason.to_owned() };
            assert_eq!(receive(&mut transport).await, Received::Ended(ended));
            server.join().unwrap();
        }
    });
}

#[test]
fn close_sends_its_code_and_waits() {
    over_each(async |config| {
        let (addr, server) = server(b"", |stream| {
            assert_eq!(read_masked(stream), (8, b"\x03\xe8bye".to_vec()));
            stream.write_all(&close_frame(1000)).unwrap();
        });
        let mut transport = open(addr, config).await;
        transport.close(1000, "bye");
        let _ = poll_fn(|cx| transport.poll_flush(cx)).await;
        assert_eq!(receive(&mut transport).await, closed(1000));
        server.join().unwrap();
    });
}

/// A close frame with half a code still reports that the server closed the connection.
#[test]
fn truncated_close_code_still_closes() {
    over_each(async |config| {
        let (addr, server) = server(b"", |stream| {
            stream.write_all(b"\x88\x01\x03").unwrap();
        });
        let mut transport = open(addr, config).await;
        let ended = Ended::CloseFrame { code: None, reason: String::new() };
        assert_eq!(receive(&mut transport).await, Received::Ended(ended));
        server.join().unwrap();
    });
}

/// A server that accepts the upgrade with this extension, and sends `behind`.
fn compressing(
    extension: &'static str,
    behind: &'static [u8],
    script: impl FnOnce(&mut TcpStream) + Send + 'static,
) -> (SocketAddr, JoinHandle<TcpStream>) {
    serve_once(move |stream| {
        let extension = format!("Sec-WebSocket-Extensions: {extension}\r\n");
        let head = accept_upgrade_with(stream, &extension, behind);
        let offer = "permessage-deflate; server_max_window_bits=13; client_max_window_bits=12";
        assert_eq!(header(&head, "sec-websocket-extensions"), Some(offer));
        script(stream);
    })
}

/// A small compressed message that decompresses to 1,024 bytes is received, and one of 1,025 bytes ends
/// the connection with 1009. The next connection works, with other parameters, and refers to nothing of
/// the previous one.
#[test]
fn bomb_ends_one_connection() {
    const WITHIN: &[u8] = b"\xc2\x0b\x4a\x4c\x1c\x05\xa3\x60\x14\x8c\x54\x00\x00";
    const BOMB: &[u8] = b"\xc2\x0b\x4a\x4c\x1c\x05\xa3\x60\x14\x8c\x58\x00\x00";
    block_on(async {
        let config = Config::new("ws://localhost/socket/websocket").expect("an address");
        let config = config.max_message_bytes(1_024).compression(Compression::balanced());
        let (addr, server) =
            compressing("permessage-deflate; server_max_window_bits=13", WITHIN, |stream| {
                stream.write_all(BOMB).unwrap();
                assert_eq!(read_close(stream), 1009);
            });
        let mut transport = open(addr, &config).await;
        let within = Frame::Binary(Bytes::from(vec![b'a'; 1_024]));
        assert_eq!(receive(&mut transport).await, Received::Frame(within));
        assert_eq!(receive(&mut transport).await, Received::Ended(Ended::MessageTooLarge));
        server.join().unwrap();

        // "Hello" twice: the second message refers to the first (RFC 7692 section 7.2.3.2).
        let hello = b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x05\xf2\x00\x11\x00\x00";
        let extension = "permessage-deflate; server_max_window_bits=9; client_no_context_takeover";
        let (addr, server) = compressing(extension, hello, |stream| {
            let (first, second) = (read_masked(stream), read_masked(stream));
            assert!(first.1.len() < 40, "{first:?}");
            assert_eq!(first, second, "without context takeover");
            // The message refers to text before the first one.
            stream.write_all(b"\xc1\x05\xf2\x40\x18\x02\x00").unwrap();
            assert_eq!(read_close(stream), 1007);
        });
        let mut transport = open(addr, &config).await;
        for _ in 0..2 {
            assert_eq!(receive(&mut transport).await, Received::Frame(text("Hello")));
            transport
                .send(text(
                    "word after word after word after word after word after word after word",
                ))
                .unwrap();
        }
        poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
        let received = receive(&mut transport).await;
        assert!(matches!(received, Received::Ended(Ended::Lost { .. })), "{received:?}");
        server.join().unwrap();
    });
}
