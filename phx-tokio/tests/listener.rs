//! The test listener, spoken to frame by frame: what a client sees of a server that is killed,
//! restarted, stopped, or that refuses.

use core::future::poll_fn;

use phx_tokio::driver::{Received, Runtime, Transport};
use phx_tokio::testing::{Listener, ServerConfig};
use phx_tokio::wire::Frame;
use phx_tokio::{Config, Ended, Failure, Socket, Time, TokioRuntime, WebSocket};
use serde_json::json;

async fn listen() -> Listener {
    Listener::bind(([127, 0, 0, 1], 0).into(), ServerConfig::default()).await.unwrap()
}

async fn dial(url: &str) -> Result<WebSocket, Failure> {
    let config = Config::new(url).unwrap();
    let request = Socket::new(config.clone(), 1, Time::default()).connect_request();
    TokioRuntime::new().connect(request, &config).await.map(|(transport, _)| transport)
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

#[tokio::test]
async fn a_join_is_answered_and_a_broadcast_arrives() {
    let listener = listen().await;
    let mut transport = dial(&listener.url()).await.unwrap();
    join(&mut transport).await;
    listener.broadcast("room:lobby", "news", json!({"n": 1}));
    let news = receive_text(&mut transport).await;
    assert!(news.contains(r#""news",{"n":1}"#), "{news}");
}

#[tokio::test]
async fn a_kill_ends_connections_without_a_close_frame_and_frees_the_port() {
    let mut listener = listen().await;
    let mut transport = dial(&listener.url()).await.unwrap();
    join(&mut transport).await;
    listener.kill().await;
    let end = receive(&mut transport).await;
    assert!(matches!(end, Received::Ended(Ended::Lost { .. })), "{end:?}");
    assert!(matches!(dial(&listener.url()).await, Err(Failure::Dial { .. })));

    let url = listener.url();
    listener.restart().await.unwrap();
    assert_eq!(listener.url(), url);
    join(&mut dial(&url).await.unwrap()).await;
}

#[tokio::test]
async fn a_shutdown_is_a_close_frame() {
    let mut listener = listen().await;
    let mut transport = dial(&listener.url()).await.unwrap();
    join(&mut transport).await;
    let (end, ()) = tokio::join!(receive(&mut transport), listener.shutdown());
    let expected = Ended::CloseFrame { code: Some(1012), reason: String::new() };
    assert_eq!(end, Received::Ended(expected));
}

#[tokio::test]
async fn a_close_of_the_client_is_answered() {
    let listener = listen().await;
    let mut transport = dial(&listener.url()).await.unwrap();
    transport.close(1000, "");
    let _ = poll_fn(|cx| transport.poll_flush(cx)).await;
    let expected = Ended::CloseFrame { code: Some(1000), reason: String::new() };
    assert_eq!(receive(&mut transport).await, Received::Ended(expected));
}

#[tokio::test]
async fn refusals_are_http() {
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
}

#[tokio::test(start_paused = true)]
async fn the_servers_timers_fire() {
    let listener = listen().await;
    let mut transport = dial(&listener.url()).await.unwrap();
    // Silence for 60 s: wire/idle_timeout_close.
    let expected = Ended::CloseFrame { code: Some(1002), reason: String::new() };
    assert_eq!(receive(&mut transport).await, Received::Ended(expected));
}
