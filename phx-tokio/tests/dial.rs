//! Dialling against servers that say what they are told to: every failure is typed, and one line.

use std::net::SocketAddr;

use phx_tokio::driver::{Received, Runtime, Transport};
use phx_tokio::wire::Frame;
use phx_tokio::{Config, Failure, Opened, Socket, Time, TokioRuntime, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Dialled = Result<(WebSocket, Opened), Failure>;

async fn dial(url: &str) -> Dialled {
    let config = Config::insecure(url).unwrap();
    let request = Socket::new(config.clone(), 1, Time::default()).connect_request();
    TokioRuntime::new().connect(request, &config).await
}

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// The request's head, lower-cased, and the stream it came on.
async fn request(listener: TcpListener) -> (String, TcpStream) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (String::from_utf8(head).unwrap(), stream)
}

/// Dials a server that answers with these bytes, then keeps the connection open.
async fn dial_answering(answer: &str) -> Dialled {
    let (listener, addr) = bind().await;
    let url = format!("ws://{addr}/socket/websocket");
    let server = async {
        let (_, mut stream) = request(listener).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream
    };
    let (dialled, _stream) = tokio::join!(dial(&url), server);
    dialled
}

/// The line of a failure that is not a refusal.
fn line(dialled: Dialled) -> String {
    match dialled {
        Err(Failure::Dial { message }) => {
            assert!(!message.contains('\n'), "one line: {message:?}");
            message
        }
        Err(failure) => panic!("expected a failure to dial, got {failure:?}"),
        Ok(_) => panic!("expected a failure to dial"),
    }
}

#[tokio::test]
async fn a_refusal_keeps_status_headers_and_body() {
    for (status, reason) in [(403, "Forbidden"), (404, "Not Found"), (429, "Too Many Requests")] {
        let answer = format!(
            "HTTP/1.1 {status} {reason}\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nno!\n"
        );
        let Err(Failure::Refused(refusal)) = dial_answering(&answer).await else {
            panic!("{status} is a refusal");
        };
        assert_eq!(refusal.status(), status);
        assert_eq!(refusal.header("retry-after"), Some("7"));
        assert_eq!(refusal.body_text(), "no!\n");
    }
}

#[tokio::test]
async fn a_refusal_whose_body_never_comes_is_still_a_refusal() {
    let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\nsome";
    let Err(Failure::Refused(refusal)) = dial_answering(answer).await else {
        panic!("503 is a refusal");
    };
    assert_eq!((refusal.status(), &*refusal.body_text()), (503, "some"));
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_failed_upgrade() {
    let message = line(dial_answering("SSH-2.0-OpenSSH_9.6\r\n\r\n").await);
    assert!(message.starts_with("the upgrade failed"), "{message}");
}

#[tokio::test]
async fn a_server_that_hangs_up_in_the_upgrade_is_a_failure() {
    let (listener, addr) = bind().await;
    let url = format!("ws://{addr}/socket/websocket");
    let (dialled, ()) = tokio::join!(dial(&url), async { drop(request(listener).await) });
    let message = line(dialled);
    assert!(message.starts_with("the upgrade failed"), "{message}");
}

#[tokio::test]
async fn a_refused_port_is_named() {
    let (listener, addr) = bind().await;
    drop(listener);
    let message = line(dial(&format!("ws://{addr}/socket/websocket")).await);
    assert!(message.starts_with(&format!("{addr} could not be reached: ")), "{message}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named() {
    let message = line(dial("ws://no-such-host.invalid/socket/websocket").await);
    assert!(message.contains("\"no-such-host.invalid\" could not be resolved"), "{message}");
}

#[tokio::test]
async fn tls_is_refused_while_it_is_not_built_in() {
    let message = line(dial("wss://127.0.0.1:1/socket/websocket").await);
    assert!(message.contains("TLS"), "{message}");
}

#[tokio::test]
async fn an_upgrade_without_a_subprotocol_is_open_and_keeps_the_frames_behind_it() {
    let (listener, addr) = bind().await;
    let url = format!("ws://{addr}/socket/websocket");
    let server = async {
        let (head, mut stream) = request(listener).await;
        assert!(head.starts_with("GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\n"), "{head}");
        let key = head
            .lines()
            .find_map(|line| {
                line.split_once(": ")
                    .filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
            })
            .expect("a key");
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.1.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        let mut bytes = answer.into_bytes();
        bytes.extend_from_slice(b"\x81\x02[]");
        stream.write_all(&bytes).await.unwrap();
        stream
    };
    let (dialled, _stream) = tokio::join!(dial(&url), server);
    let (mut transport, opened) = dialled.unwrap();
    assert_eq!(opened, Opened::default());
    let received = core::future::poll_fn(|cx| transport.poll_receive(cx)).await;
    assert_eq!(received, Received::Frame(Frame::Text("[]".into())));
}
