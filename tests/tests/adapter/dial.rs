//! Dialling against scripted servers: every failure has a type and a message of one line.

use core::future::poll_fn;
use std::io::Write;

use phx_tests::ports::Reserved;

use super::peer::{accept_upgrade, read_head, serve_once};
use crate::rt::phx::client::{Received, Runtime as _, Transport};
use crate::rt::phx::event::{Cause, Opened};
use crate::rt::phx::socket::Socket;
use crate::rt::phx::time::Time;
use crate::rt::phx::wire::Frame;
use crate::rt::phx::{Config, WebSocket};
use crate::rt::{Runtime, block_on};

pub(crate) type Dialled = Result<(WebSocket, Opened), Cause>;

/// Makes one attempt, without a core that would retry.
pub(crate) async fn dial(config: Config) -> Dialled {
    let request = Socket::new(config.clone(), 1, Time::default())
        .connect_request()
        .expect("an address that may be dialled");
    Runtime::new().connect(request, &config).await
}

async fn dial_url(url: &str) -> Dialled {
    dial(Config::insecure(url).unwrap()).await
}

/// Dials a server that answers with these bytes, then keeps the connection open.
async fn dial_answering(answer: impl Into<Vec<u8>>) -> Dialled {
    let answer = answer.into();
    let (addr, _server) = serve_once(move |stream| {
        read_head(stream);
        stream.write_all(&answer).unwrap();
    });
    dial_url(&format!("ws://{addr}/socket/websocket")).await
}

/// The message of a failure that is not a refusal.
pub(crate) fn line(dialled: Dialled) -> String {
    match dialled {
        Err(Cause::Dial { message, .. }) => {
            assert!(!message.contains('\n'), "one line: {message:?}");
            message
        }
        Err(failure) => panic!("expected a failure to dial, got {failure:?}"),
        Ok(_) => panic!("expected a failure to dial"),
    }
}

#[test]
fn refusal_keeps_status_headers_body() {
    block_on(async {
        for (status, reason) in [(403, "Forbidden"), (404, "Not Found"), (429, "Too Many Requests")]
        {
            let answer = format!(
                "HTTP/1.1 {status} {reason}\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nno!\n"
            );
            let Err(Cause::Refused(refusal)) = dial_answering(answer).await else {
                panic!("{status} is a refusal");
            };
            assert_eq!(refusal.status(), status);
            assert_eq!(refusal.header("retry-after"), Some("7"));
            assert_eq!(refusal.body_text(), "no!\n");
        }
    })
}

#[test]
fn refusal_survives_missing_body() {
    block_on(async {
        let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\nsome";
        let Err(Cause::Refused(refusal)) = dial_answering(answer).await else {
            panic!("503 is a refusal");
        };
        assert_eq!((refusal.status(), &*refusal.body_text()), (503, "some"));
    })
}

#[test]
fn non_http_answer_fails_upgrade() {
    block_on(async {
        let message = line(dial_answering("SSH-2.0-OpenSSH_9.6\r\n\r\n").await);
        assert!(message.starts_with("the upgrade failed"), "{message}");
    })
}

#[test]
fn hang_up_fails_upgrade() {
    block_on(async {
        let (addr, _server) = serve_once(|stream| {
            read_head(stream);
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        });
        let message = line(dial_url(&format!("ws://{addr}/socket/websocket")).await);
        assert!(message.starts_with("the upgrade failed"), "{message}");
    })
}

#[test]
fn refused_port_is_named() {
    block_on(async {
        let unused = Reserved::new();
        let addr = unused.addr();
        let message = line(dial_url(&format!("ws://{addr}/socket/websocket")).await);
        assert!(message.starts_with(&format!("{addr} could not be reached: ")), "{message}");
    })
}

#[test]
fn unresolved_name_is_named() {
    block_on(async {
        let message = line(dial_url("ws://no-such-host.invalid/socket/websocket").await);
        assert!(message.contains("\"no-such-host.invalid\" could not be resolved"), "{message}");
    })
}

/// The answer selects no subprotocol, and a frame follows it in the same write.
#[test]
fn upgrade_keeps_early_frames() {
    block_on(async {
        let (addr, _server) = serve_once(|stream| {
            let head = accept_upgrade(stream, b"\x81\x02[]");
            assert!(head.starts_with("GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\n"), "{head}");
        });
        let dialled = dial_url(&format!("ws://{addr}/socket/websocket")).await;
        let (mut transport, opened) = dialled.unwrap();
        assert_eq!(opened, Opened::default());
        let received = poll_fn(|cx| transport.poll_receive(cx)).await;
        assert_eq!(received, Received::Frame(Frame::Text("[]".into())));
    })
}
