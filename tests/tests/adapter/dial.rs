//! Dialling against servers that say what they are told to: every failure is typed, and one line.

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

/// One attempt, without a core that would make another.
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

/// The line of a failure that is not a refusal.
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
fn a_refusal_keeps_status_headers_and_body() {
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
fn a_refusal_whose_body_never_comes_is_still_a_refusal() {
    block_on(async {
        let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\nsome";
        let Err(Cause::Refused(refusal)) = dial_answering(answer).await else {
            panic!("503 is a refusal");
        };
        assert_eq!((refusal.status(), &*refusal.body_text()), (503, "some"));
    })
}

#[test]
fn an_answer_that_is_not_http_is_a_failed_upgrade() {
    block_on(async {
        let message = line(dial_answering("SSH-2.0-OpenSSH_9.6\r\n\r\n").await);
        assert!(message.starts_with("the upgrade failed"), "{message}");
    })
}

#[test]
fn a_server_that_hangs_up_in_the_upgrade_is_a_failure() {
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
fn a_refused_port_is_named() {
    block_on(async {
        let nobody = Reserved::new();
        let addr = nobody.addr();
        let message = line(dial_url(&format!("ws://{addr}/socket/websocket")).await);
        assert!(message.starts_with(&format!("{addr} could not be reached: ")), "{message}");
    })
}

#[test]
fn a_name_that_does_not_resolve_is_named() {
    block_on(async {
        let message = line(dial_url("ws://no-such-host.invalid/socket/websocket").await);
        assert!(message.contains("\"no-such-host.invalid\" could not be resolved"), "{message}");
    })
}

#[test]
fn an_upgrade_without_a_subprotocol_is_open_and_keeps_the_frames_behind_it() {
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
