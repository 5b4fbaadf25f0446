//! Refused upgrades and ended connections: the server's answer or close frame is the cause, even if a
//! reset follows.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use super::certificates::Authority;
use super::dial::dial;
use super::peer::{accept_upgrade, read_head, serve_once};
use super::stage::signal;
use super::tracked::Tracked;
use crate::rt::block_on;
use crate::rt::phx::config::StatusRule;
use crate::rt::phx::event::{Cause, NextStep, Refusal};
use crate::rt::phx::rustls::{ServerConnection, StreamOwned};
use crate::rt::phx::{CloseRule, Config, Roots, Signal, Tls};

/// A ping and a close frame with code 1012, as Phoenix sends them at a shutdown. The ping can no
/// longer be answered.
const CLOSE_1012: &[u8] = &[0x89, 0, 0x88, 2, 0x03, 0xf4];

/// The cause of the end of a connection with a joined channel.
async fn cause_of_the_end(config: Config) -> Cause {
    let config = config.auto_join("room:lobby", serde_json::json!({})).unwrap();
    let (_client, mut signals) = Tracked::new().start_watched(config);
    let cause = signal(&mut signals, |signal| match signal {
        Signal::Disconnected { cause, .. } => Some(cause),
        _ => None,
    });
    cause.await
}

/// Waits until bytes have arrived and leaves them unread, so that closing the stream sends a reset
/// (RFC 1122 section 4.2.2.13).
fn await_unread(stream: &TcpStream) {
    stream.peek(&mut [0]).unwrap();
}

/// The close frame is the cause although a reset follows at once.
/// Protocol: CLOSE-8.
#[test]
fn close_frame_survives_immediate_reset() {
    block_on(async {
        let (addr, server) = serve_once(|stream| {
            accept_upgrade(stream, b"");
            await_unread(stream);
            stream.write_all(CLOSE_1012).unwrap();
        });
        // The handle would keep the stream open. Without it, the thread drops the stream as soon as
        // the frame is written.
        drop(server);
        let config = Config::new(&format!("ws://{addr}/socket/websocket")).unwrap();
        let cause = cause_of_the_end(config).await;
        assert_eq!(cause, Cause::RemoteClose { code: Some(1012), reason: String::new() });
    })
}

#[test]
fn tls_close_frame_survives_immediate_reset() {
    block_on(async {
        let authority = Authority::new();
        let tls = authority.server("127.0.0.1");
        let (addr, server) = serve_once(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&tls)).unwrap();
            let mut secured = StreamOwned::new(connection, stream.try_clone().unwrap());
            accept_upgrade(&mut secured, b"");
            await_unread(stream);
            secured.write_all(CLOSE_1012).unwrap();
        });
        drop(server);
        let roots = Roots::pem(authority.pem.as_bytes()).unwrap();
        let config = Config::new(&format!("wss://{addr}/socket/websocket")).unwrap();
        let cause = cause_of_the_end(config.tls(Tls::new(roots))).await;
        assert_eq!(cause, Cause::RemoteClose { code: Some(1012), reason: String::new() });
    })
}

/// The code that the server sent determines which close rule applies. tungstenite alone would report
/// 1002 for codes that it does not know, and nothing for a reason that is not UTF-8
/// (snapview/tungstenite-rs#502). The test sends the frame together with the answer to the upgrade,
/// and after it.
#[test]
fn close_frame_is_reported_as_sent() {
    block_on(async {
        for (payload, code, reason) in [
            (&b"\x03\xe8"[..], Some(1000), ""),
            (b"\x03\xf6bye", Some(1014), "bye"),
            (b"\x03\xf8", Some(1016), ""),
            (b"\x0b\xb7", Some(2999), ""),
            (b"\x13\x88late", Some(5000), "late"),
            (b"\x03\xf4\xff\xfe", Some(1012), "\u{fffd}\u{fffd}"),
            (b"", None, ""),
        ] {
            for with_upgrade in [true, false] {
                let frame = [&[0x88, payload.len() as u8][..], payload].concat();
                let (addr, _server) = serve_once(move |stream| {
                    if with_upgrade {
                        accept_upgrade(stream, &frame);
                    } else {
                        accept_upgrade(stream, b"");
                        await_unread(stream);
                        stream.write_all(&frame).unwrap();
                    }
                    // Waits until the client has closed the stream, so that the close frame is the
                    // only cause of the end.
                    let _ = std::io::copy(stream, &mut std::io::sink());
                });
                let config = Config::new(&format!("ws://{addr}/socket/websocket")).unwrap();
                let cause = cause_of_the_end(config).await;
                assert_eq!(cause, Cause::RemoteClose { code, reason: reason.to_owned() });
            }
        }
    })
}

/// The close rule for code 2000, which tungstenite does not know, applies to a close frame over TLS.
#[test]
fn close_rule_of_unusual_code_applies() {
    block_on(async {
        let authority = Authority::new();
        let tls = authority.server("127.0.0.1");
        let (addr, _server) = serve_once(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&tls)).unwrap();
            let mut secured = StreamOwned::new(connection, stream.try_clone().unwrap());
            accept_upgrade(&mut secured, b"");
            await_unread(stream);
            secured.write_all(b"\x88\x02\x07\xd0").unwrap();
            let _ = std::io::copy(&mut secured, &mut std::io::sink());
        });
        let roots = Roots::pem(authority.pem.as_bytes()).unwrap();
        let config = Config::new(&format!("wss://{addr}/socket/websocket")).unwrap();
        let config = config.tls(Tls::new(roots)).close_rule(2000, CloseRule::Stop);
        let config = config.auto_join("room:lobby", serde_json::json!({})).unwrap();
        let (_client, mut signals) = Tracked::new().start_watched(config);
        let cause = signal(&mut signals, |signal| match signal {
            Signal::GaveUp { cause } => Some(cause),
            _ => None,
        });
        let expected = Cause::RemoteClose { code: Some(2000), reason: String::new() };
        assert_eq!(cause.await, expected);
    })
}

#[test]
fn cut_connection_is_lost() {
    block_on(async {
        let (addr, server) = serve_once(|stream| drop(accept_upgrade(stream, b"")));
        drop(server);
        let config = Config::new(&format!("ws://{addr}/socket/websocket")).unwrap();
        let cause = cause_of_the_end(config).await;
        assert!(matches!(cause, Cause::TransportLost { .. }), "{cause:?}");
    })
}

async fn refusal(answer: String) -> Refusal {
    let (addr, _server) = serve_once(move |stream| {
        read_head(stream);
        stream.write_all(answer.as_bytes()).unwrap();
    });
    match dial(Config::new(&format!("ws://{addr}/socket/websocket")).unwrap()).await {
        Err(Cause::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {:?}", other.err()),
    }
}

/// The refusal contains the location of the redirect; the message omits the query of that location.
#[test]
fn redirect_is_not_followed() {
    block_on(async {
        let refusal = refusal(
            "HTTP/1.1 302 Found\r\nLocation: https://login.example/?back=s3cret\r\n\
             Content-Length: 0\r\n\r\n"
                .to_owned(),
        )
        .await;
        assert_eq!(refusal.status(), 302);
        assert_eq!(refusal.location(), Some("https://login.example/?back=s3cret"));
        let cause = Cause::Refused(refusal).to_string();
        assert!(cause.contains("redirects to https://login.example/"), "{cause}");
        assert!(!cause.contains("s3cret"), "{cause}");
    })
}

#[test]
fn refusal_keeps_start_of_body() {
    block_on(async {
        let body = "0123456789abcdef".repeat(1 << 12);
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 500 Oops\r\nX-Request-Id: F1\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let refusal = refusal(answer).await;
        assert_eq!(refusal.header("x-request-id"), Some("F1"));
        assert_eq!(refusal.body_text(), body[..Refusal::MAX_BODY]);
    })
}

#[test]
fn retry_after_is_obeyed() {
    block_on(async {
        let (addr, _server) = serve_once(|stream| {
            read_head(stream);
            let answer = "HTTP/1.1 503 Busy\r\nRetry-After: 100\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let config = Config::new(&format!("ws://{addr}/socket/websocket")).unwrap();
        let config = config.status_rule(503, StatusRule::Backoff);
        let (_client, mut signals) = Tracked::new().start_watched(config);
        let next = signal(&mut signals, |signal| match signal {
            Signal::ConnectFailed { next, .. } => Some(next),
            _ => None,
        });
        let next = next.await;
        let NextStep::Retry { delay, .. } = next else { panic!("{next:?}") };
        assert!((100..=120).contains(&delay.as_secs()), "{delay:?}");
    })
}
