//! The test listener, frame by frame: kills, restarts, shutdowns and refusals as a client sees them.

use core::future::poll_fn;
use core::time::Duration;
use std::io::{Read, Write};
use std::net::TcpStream;

use phx_tests::ports::{Reserved, start_again};
use phx_tests::waiting::DEADLINE;

use super::stage::until;
use crate::rt::block_on;
use crate::rt::phx::client::{Received, Transport};
use crate::rt::phx::config::Compression;
use crate::rt::phx::event::{Cause, Ended};
use crate::rt::phx::testing::{Listener, ServerConfig};
use crate::rt::phx::wire::Frame;
use crate::rt::phx::{Config, WebSocket};
use serde_json::json;

async fn listen() -> Listener {
    Listener::bind(([127, 0, 0, 1], 0).into(), ServerConfig::default()).await.unwrap()
}

async fn dial(url: &str) -> Result<WebSocket, Cause> {
    super::dial::dial(Config::new(url).unwrap()).await.map(|(transport, _)| transport)
}

async fn send(transport: &mut WebSocket, text: &str) {
    poll_fn(|cx| transport.poll_ready(cx)).await.unwrap();
    transport.send(Frame::Text(text.to_owned().into())).unwrap();
    poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
}

async fn receive(transport: &mut WebSocket) -> Received {
    poll_fn(|cx| transport.poll_receive(cx)).await
}

async fn receive_text(transport: &mut WebSocket) -> String {
    loop {
        match receive(transport).await {
            Received::Frame(Frame::Text(bytes)) => {
                return String::from_utf8(bytes.to_vec()).unwrap();
            }
            Received::Control | Received::Part => {}
            other => panic!("expected a text frame, got {other:?}"),
        }
    }
}

async fn join(transport: &mut WebSocket) {
    send(transport, r#"["1","1","room:lobby","phx_join",{}]"#).await;
    let reply = receive_text(transport).await;
    assert!(reply.contains(r#""status":"ok""#), "{reply}");
}

#[test]
fn listener_answers_joins_and_broadcasts() {
    block_on(async {
        let listener = listen().await;
        let mut transport = dial(&listener.url()).await.unwrap();
        join(&mut transport).await;
        listener.broadcast("room:lobby", "news", json!({"n": 1}));
        let news = receive_text(&mut transport).await;
        assert!(news.contains(r#""news",{"n":1}"#), "{news}");
    })
}

/// A kill ends connections without a close frame and frees the port.
#[test]
fn kill_sends_no_close_frame() {
    block_on(async {
        let port = Reserved::new();
        let mut listener = Listener::bind(port.addr(), ServerConfig::default()).await.unwrap();
        let mut transport = dial(&listener.url()).await.unwrap();
        join(&mut transport).await;
        listener.kill().await;
        listener.with(|server, _| {
            assert_eq!((server.peers(), server.joined("room:lobby")), (Vec::new(), 0));
        });
        let end = receive(&mut transport).await;
        assert!(matches!(end, Received::Ended(Ended::Lost { .. })), "{end:?}");
        assert!(matches!(dial(&listener.url()).await, Err(Cause::Dial { .. })));

        let url = listener.url();
        start_again(async || listener.restart().await).await.unwrap();
        assert_eq!(listener.url(), url);
        join(&mut dial(&url).await.unwrap()).await;
    })
}

#[test]
fn shutdown_sends_close_frame() {
    block_on(async {
        let mut listener = listen().await;
        let mut transport = dial(&listener.url()).await.unwrap();
        join(&mut transport).await;
        let (end, ()) = futures_util::join!(receive(&mut transport), listener.shutdown());
        let expected = Ended::CloseFrame { code: Some(1012), reason: String::new() };
        assert_eq!(end, Received::Ended(expected));
    })
}

#[test]
fn client_close_is_answered() {
    block_on(async {
        let listener = listen().await;
        let mut transport = dial(&listener.url()).await.unwrap();
        transport.close(1000, "");
        let _ = poll_fn(|cx| transport.poll_flush(cx)).await;
        let expected = Ended::CloseFrame { code: Some(1000), reason: String::new() };
        assert_eq!(receive(&mut transport).await, Received::Ended(expected));
    })
}

/// By default a message may be longer than the default limit of tungstenite, which is 16 MiB.
#[test]
fn listener_accepts_long_messages() {
    block_on(async {
        let listener = listen().await;
        let length = 17 << 20;
        let config = Config::new(&listener.url()).unwrap().max_push_bytes(length);
        let (mut transport, _) = super::dial::dial(config).await.unwrap();
        // A push in the binary format: the lengths of join_ref, ref, topic and event, then all of these
        // and the payload.
        let mut push = b"\0\x01\x01\x06\x0111room:ae".to_vec();
        push.resize(length, b'x');
        transport.send(Frame::Binary(push.into())).unwrap();
        poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
        let reply = receive_text(&mut transport).await;
        assert!(reply.contains("unmatched topic"), "{reply}");
    })
}

/// `send_raw` also sends a text frame that is not UTF-8, with and without compression.
#[test]
fn invalid_text_reaches_the_client() {
    block_on(async {
        let compression = Compression::balanced();
        for (server, client) in [
            (ServerConfig::default(), None),
            (ServerConfig::default().compress(compression), Some(compression)),
        ] {
            let listener = Listener::bind(([127, 0, 0, 1], 0).into(), server).await.unwrap();
            let config = Config::new(&listener.url()).unwrap().compression(client);
            let (mut transport, _) = super::dial::dial(config).await.unwrap();
            listener.with(|server, _| {
                let peer = server.peers()[0];
                server.send_raw(peer, Frame::Text(vec![b'a', 0xff].into()));
                server.send_raw(peer, Frame::Text("behind".into()));
            });
            let end = receive(&mut transport).await;
            let Received::Ended(Ended::Lost { message }) = end else { panic!("{end:?}") };
            assert!(message.contains("UTF-8"), "{message}");
        }
    })
}

/// The server still reads from a client that does not read.
#[test]
fn unread_output_does_not_block_input() {
    block_on(async {
        let listener = listen().await;
        let mut transport = dial(&listener.url()).await.unwrap();
        join(&mut transport).await;
        // More bytes than all socket buffers together can hold.
        listener.with(|server, _| {
            let (peer, mebibyte) = (server.peers()[0], Frame::Binary(vec![7; 1 << 20].into()));
            (0..32).for_each(|_| server.send_raw(peer, mebibyte.clone()));
        });
        for topic in ["room:a", "room:b", "room:c"] {
            send(&mut transport, &format!(r#"["1","1","{topic}","phx_join",{{}}]"#)).await;
            until(topic, || listener.with(|server, _| server.joined(topic)) == 1).await;
        }
    })
}

#[test]
fn refusals_are_http() {
    block_on(async {
        let listener = listen().await;
        let elsewhere = format!("ws://{}/elsewhere", listener.addr());
        let rated = format!("{}?reject=rate", listener.url());
        let rejected = format!("{}?reject=yes", listener.url());
        for (url, status) in [(elsewhere, 404), (rated, 429), (rejected, 403)] {
            let Err(Cause::Refused(refusal)) = dial(&url).await else {
                panic!("{url} is refused");
            };
            assert_eq!(refusal.status(), status);
            let retry_after = refusal.header("retry-after");
            assert_eq!(retry_after, (status == 429).then_some("1"), "{refusal:?}");
        }
    })
}

#[test]
fn server_timers_fire() {
    block_on(async {
        let config = ServerConfig::default().idle_timeout(Duration::from_secs(1));
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), config).await.unwrap();
        let mut transport = dial(&listener.url()).await.unwrap();
        // The close code after silence: wire/idle_timeout_close.
        let expected = Ended::CloseFrame { code: Some(1002), reason: String::new() };
        assert_eq!(receive(&mut transport).await, Received::Ended(expected));
    })
}

const UPGRADE: &str = "GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: localhost\r\n\
    Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A raw, blocking TCP connection. The listener runs on other threads.
fn raw(listener: &Listener) -> TcpStream {
    let stream = TcpStream::connect(listener.addr()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Sends a request, and reads the answer until the connection ends.
fn answer(listener: &Listener, request: &[u8]) -> String {
    let mut stream = raw(listener);
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// Asserts that the answer has this status, and the reason as its text.
fn assert_refused(answer: &str, status: &str, reason: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
    assert!(answer.contains("content-type: text/plain; charset=utf-8\r\n"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(body.contains(reason), "{answer}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
}

/// Phoenix answers a malformed upgrade with 400 and the reason as text.
#[test]
fn upgrade_without_key_is_400() {
    block_on(async {
        let listener = listen().await;
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        for instead in ["", "Sec-WebSocket-Key:\r\n"] {
            let answer = answer(&listener, UPGRADE.replace(key, instead).as_bytes());
            assert_refused(&answer, "400 Bad Request", "'sec-websocket-key' header is absent");
        }
    })
}

/// Phoenix answers any method other than GET with 400 and an empty body.
#[test]
fn upgrade_by_post_is_400() {
    block_on(async {
        let listener = listen().await;
        let post = UPGRADE.replacen("GET", "POST", 1);
        // The answer arrives whether the body arrives completely or not at all.
        for (length, body) in [(0, 0), (100_000, 100_000), (10, 0)] {
            let head = post.replacen("\r\n", &format!("\r\nContent-Length: {length}\r\n"), 1);
            let answer = answer(&listener, (head + &"x".repeat(body)).as_bytes());
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
            assert!(answer.contains("content-length: 0\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        }
    })
}

#[test]
fn upgrade_of_bad_version_is_400() {
    block_on(async {
        let listener = listen().await;
        for version in ["8", "14", ""] {
            let request = UPGRADE.replace("Version: 13", &format!("Version: {version}"));
            let reason =
                format!("'sec-websocket-version' header must contain '13', got [{version:?}]");
            assert_refused(&answer(&listener, request.as_bytes()), "400 Bad Request", &reason);
        }
        for (part, reason) in [
            ("Upgrade: websocket\r\n", "'upgrade' header must contain 'websocket'"),
            ("Connection: Upgrade\r\n", "'connection' header must contain 'upgrade'"),
        ] {
            let answer = answer(&listener, UPGRADE.replace(part, "").as_bytes());
            assert_refused(&answer, "400 Bad Request", reason);
        }
        let bare = answer(&listener, b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\n\r\n");
        assert_refused(&bare, "400 Bad Request", "'upgrade' header must contain 'websocket'");
        // For an unknown path, the answer is 404 even if the request has other faults.
        let elsewhere = answer(&listener, b"POST /elsewhere HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(elsewhere.starts_with("HTTP/1.1 404 Not Found\r\n"), "{elsewhere}");
    })
}

/// A frame that comes together with the head, in one write or in two, is not lost.
#[test]
fn frame_after_head_is_read() {
    block_on(async {
        let listener = listen().await;
        let heartbeat = br#"[null,"1","phoenix","heartbeat",{}]"#;
        let mut frame = vec![0x81, 0x80 | u8::try_from(heartbeat.len()).unwrap(), 0, 0, 0, 0];
        frame.extend_from_slice(heartbeat);
        let bytes = [UPGRADE.as_bytes(), &frame].concat();
        for cut in [bytes.len(), UPGRADE.len(), UPGRADE.len() - 1, UPGRADE.len() + 3, 10] {
            let mut stream = raw(&listener);
            stream.set_nodelay(true).unwrap();
            stream.write_all(&bytes[..cut]).unwrap();
            stream.write_all(&bytes[cut..]).unwrap();
            let mut answered = Vec::new();
            let mut buffer = [0; 512];
            while !answered.ends_with(br#""status":"ok"}]"#) {
                let n = stream.read(&mut buffer).unwrap();
                assert_ne!(n, 0, "{}", String::from_utf8_lossy(&answered));
                answered.extend_from_slice(&buffer[..n]);
            }
            let answered = String::from_utf8_lossy(&answered);
            assert!(answered.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answered}");
            // The example of RFC 6455 section 1.3.
            assert!(answered.contains("accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answered}");
        }
    })
}

#[test]
fn oversized_head_is_refused() {
    block_on(async {
        let listener = listen().await;
        let field = format!("\r\nx-a: {}\r\n", "y".repeat(20_000));
        let long = answer(&listener, UPGRADE.replacen("\r\n", &field, 1).as_bytes());
        assert_refused(&long, "431 Request Header Fields Too Large", "too long");
        let many =
            answer(&listener, UPGRADE.replacen("\r\n", &"\r\na: b".repeat(200), 1).as_bytes());
        assert_refused(&many, "431 Request Header Fields Too Large", "too long");
        let line =
            answer(&listener, format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(20_000)).as_bytes());
        assert_refused(&line, "414 URI Too Long", "too long");
        let other = answer(&listener, b"\x16\x03\x01\x02\x00\x01\x00\n\n");
        assert_refused(&other, "400 Bad Request", "not HTTP");
        assert_eq!(listener.with(|server, _| server.peers().len()), 0);
    })
}

#[test]
fn slow_head_times_out() {
    block_on(async {
        let config = ServerConfig::default().idle_timeout(Duration::from_millis(50));
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), config).await.unwrap();
        for start in ["", &UPGRADE[..UPGRADE.len() - 2]] {
            let answer = answer(&listener, start.as_bytes());
            assert_refused(&answer, "408 Request Timeout", "took too long");
        }
    })
}

/// `wire/close_graceful_shutdown`, for a server with `drainer: false`.
#[test]
fn shutdown_without_drainer_closes_1000() {
    block_on(async {
        let config = ServerConfig::default().drainer(false);
        let mut listener = Listener::bind(([127, 0, 0, 1], 0).into(), config).await.unwrap();
        let mut transport = dial(&listener.url()).await.unwrap();
        join(&mut transport).await;
        let (end, ()) = futures_util::join!(receive(&mut transport), listener.shutdown());
        let expected = Ended::CloseFrame { code: Some(1000), reason: String::new() };
        assert_eq!(end, Received::Ended(expected));
    })
}
