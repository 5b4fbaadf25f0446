//! The test listener, spoken to frame by frame: what a client sees of a server that is killed,
//! restarted, stopped, or that refuses.

use core::future::poll_fn;
use core::time::Duration;

use phx_tests::ports::{Reserved, start_again};

use super::stage::until;
use crate::rt::block_on;
use crate::rt::phx::driver::{Received, Transport};
use crate::rt::phx::testing::{Listener, ServerConfig};
use crate::rt::phx::wire::Frame;
use crate::rt::phx::{Config, Ended, Failure, WebSocket};
use serde_json::json;

async fn listen() -> Listener {
    Listener::bind(([127, 0, 0, 1], 0).into(), ServerConfig::default()).await.unwrap()
}

async fn dial(url: &str) -> Result<WebSocket, Failure> {
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
    match receive(transport).await {
        Received::Frame(Frame::Text(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("expected a text frame, got {other:?}"),
    }
}

async fn join(transport: &mut WebSocket) {
    send(transport, r#"["1","1","room:lobby","phx_join",{}]"#).await;
    let reply = receive_text(transport).await;
    assert!(reply.contains(r#""status":"ok""#), "{reply}");
}

#[test]
fn a_join_is_answered_and_a_broadcast_arrives() {
    block_on(async {
        let listener = listen().await;
        let mut transport = dial(&listener.url()).await.unwrap();
        join(&mut transport).await;
        listener.broadcast("room:lobby", "news", json!({"n": 1}));
        let news = receive_text(&mut transport).await;
        assert!(news.contains(r#""news",{"n":1}"#), "{news}");
    })
}

#[test]
fn a_kill_ends_connections_without_a_close_frame_and_frees_the_port() {
    block_on(async {
        let port = Reserved::new();
        let mut listener = Listener::bind(port.addr(), ServerConfig::default()).await.unwrap();
        let mut transport = dial(&listener.url()).await.unwrap();
        join(&mut transport).await;
        listener.kill().await;
        let end = receive(&mut transport).await;
        assert!(matches!(end, Received::Ended(Ended::Lost { .. })), "{end:?}");
        assert!(matches!(dial(&listener.url()).await, Err(Failure::Dial { .. })));

        let url = listener.url();
        start_again(async || listener.restart().await).await.unwrap();
        assert_eq!(listener.url(), url);
        join(&mut dial(&url).await.unwrap()).await;
    })
}

#[test]
fn a_shutdown_is_a_close_frame() {
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
fn a_close_of_the_client_is_answered() {
    block_on(async {
        let listener = listen().await;
        let mut transport = dial(&listener.url()).await.unwrap();
        transport.close(1000, "");
        let _ = poll_fn(|cx| transport.poll_flush(cx)).await;
        let expected = Ended::CloseFrame { code: Some(1000), reason: String::new() };
        assert_eq!(receive(&mut transport).await, Received::Ended(expected));
    })
}

#[test]
fn a_client_that_does_not_read_is_still_heard() {
    block_on(async {
        let listener = listen().await;
        let mut transport = dial(&listener.url()).await.unwrap();
        join(&mut transport).await;
        // More than the sockets between them hold.
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
            let Err(Failure::Refused(refusal)) = dial(&url).await else {
                panic!("{url} is refused");
            };
            assert_eq!(refusal.status(), status);
            let retry_after = refusal.header("retry-after");
            assert_eq!(retry_after, (status == 429).then_some("1"), "{refusal:?}");
        }
    })
}

#[test]
fn the_servers_timers_fire() {
    block_on(async {
        let config = ServerConfig::default().idle_timeout(Duration::from_millis(50));
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), config).await.unwrap();
        let mut transport = dial(&listener.url()).await.unwrap();
        // Silence: wire/idle_timeout_close.
        let expected = Ended::CloseFrame { code: Some(1002), reason: String::new() };
        assert_eq!(receive(&mut transport).await, Received::Ended(expected));
    })
}
