//! A client with the public API against the test listener on loopback TCP.

use phx_tests::ports::{Reserved, start_again};

use super::stage::{signal, until};
use crate::rt::phx::event::{Cause, RejectionKind};
use crate::rt::phx::testing::{HttpRefusal, Listener, ServerConfig};
use crate::rt::phx::wire::Frame;
use crate::rt::phx::{ChannelEvent, Client, Config, Messages, Signal};
use crate::rt::{block_on, phx};
use serde_json::{Value, json};

async fn listen() -> Listener {
    Listener::bind(([127, 0, 0, 1], 0).into(), ServerConfig::default()).await.unwrap()
}

async fn connect(listener: &Listener) -> Client {
    phx::connect(Config::new(&listener.url()).unwrap()).await.unwrap()
}

async fn next(messages: &mut Messages) -> ChannelEvent {
    messages.next().await.expect("the stream is open")
}

async fn next_message(messages: &mut Messages) -> (String, Value) {
    match next(messages).await {
        ChannelEvent::Message(message) => {
            (message.event().to_owned(), message.payload().to_value().unwrap())
        }
        other => panic!("expected a message, got {other:?}"),
    }
}

#[test]
fn push_and_broadcast_are_received() {
    block_on(async {
        let listener = listen().await;
        let client = connect(&listener).await;
        let room = client.join("room:lobby", json!({"user": 7})).await.unwrap();
        let mut messages = room.messages();

        let reply = room.push("echo", json!({"body": "hi"})).await.unwrap();
        assert_eq!(reply.ok().unwrap().to_value().unwrap(), json!({"body": "hi"}));

        listener.broadcast("room:lobby", "news", json!({"n": 1}));
        assert_eq!(next_message(&mut messages).await, ("news".to_owned(), json!({"n": 1})));
        client.disconnect().await;
        until("it is gone", || listener.with(|server, _| server.peers().is_empty())).await;
    })
}

#[test]
fn rejected_join_is_typed() {
    block_on(async {
        let listener = listen().await;
        let client = connect(&listener).await;
        for (topic, kind) in [
            ("deny:all", RejectionKind::Application),
            ("no_such:topic", RejectionKind::UnmatchedTopic),
        ] {
            match client.join(topic, json!({})).await {
                Err(phx::client::JoinFailed::Rejected(rejection)) => {
                    assert_eq!(rejection.kind, kind)
                }
                other => panic!("{topic}: {other:?}"),
            }
        }
    })
}

/// The consumer sees a killed and restarted server as `Interrupted` and `Resumed`.
#[test]
fn restart_interrupts_and_resumes() {
    block_on(async {
        let port = Reserved::new();
        let mut listener = Listener::bind(port.addr(), ServerConfig::default()).await.unwrap();
        let client = connect(&listener).await;
        let room = client.join("room:lobby", json!({})).await.unwrap();
        let mut messages = room.messages();

        listener.kill().await;
        let event = next(&mut messages).await;
        assert!(matches!(event, ChannelEvent::Interrupted { .. }), "{event:?}");
        start_again(async || listener.restart().await).await.unwrap();
        let event = next(&mut messages).await;
        assert!(matches!(event, ChannelEvent::Resumed { .. }), "{event:?}");

        let reply = room.push("echo", json!(2)).await.unwrap();
        assert_eq!(reply.ok().unwrap().to_value().unwrap(), json!(2));
    })
}

/// phoenixframework/phoenix#5155: a refusal must differ from a network fault.
#[test]
fn refused_upgrade_is_typed() {
    block_on(async {
        let listener = listen().await;
        for status in [403, 404, 429] {
            listener.with(|server, _| server.refuse_next(HttpRefusal::new(status, "no")));
            let error = phx::connect(Config::new(&listener.url()).unwrap()).await;
            match error.expect_err("it is refused").cause {
                Cause::Refused(refusal) => {
                    assert_eq!((refusal.status(), &*refusal.body_text()), (status, "no"));
                }
                other => panic!("{other:?}"),
            }
        }
    })
}

/// The cause names the limit (phoenixframework/phoenix#1873), and the next connection works.
#[test]
fn oversized_message_ends_the_connection() {
    block_on(async {
        let listener = listen().await;
        let config = Config::new(&listener.url()).unwrap().max_message_bytes(1_000);
        let client = phx::connect(config).await.unwrap();
        let mut signals = client.signals();
        let room = client.join("room:lobby", json!({})).await.unwrap();
        let mut messages = room.messages();

        listener.broadcast("room:lobby", "news", json!("x".repeat(1_000)));
        let cause = signal(&mut signals, |signal| match signal {
            Signal::Disconnected { cause, .. } => Some(cause),
            _ => None,
        });
        assert_eq!(cause.await, Cause::MessageTooLarge { limit: 1_000 });
        let event = next(&mut messages).await;
        assert!(matches!(event, ChannelEvent::Interrupted { .. }), "{event:?}");
        let event = next(&mut messages).await;
        assert!(matches!(event, ChannelEvent::Resumed { .. }), "{event:?}");

        listener.broadcast("room:lobby", "news", json!("small"));
        assert_eq!(next_message(&mut messages).await, ("news".to_owned(), json!("small")));
    })
}

/// Each malformed frame is a `ProtocolError`, and the next frame works.
#[test]
fn malformed_frame_is_protocol_error() {
    block_on(async {
        let listener = listen().await;
        let client = connect(&listener).await;
        let mut signals = client.signals();
        let room = client.join("room:lobby", json!({})).await.unwrap();
        let mut messages = room.messages();

        let garbage = [
            Frame::Text("no json".into()),
            Frame::Text("[1]".into()),
            Frame::Binary("\u{9}".into()),
        ];
        let count = garbage.len();
        listener.with(|server, _| {
            let peer = server.peers()[0];
            for frame in garbage {
                server.send_raw(peer, frame);
            }
        });
        listener.broadcast("room:lobby", "news", json!({}));
        for _ in 0..count {
            signal(&mut signals, |signal| {
                matches!(signal, Signal::ProtocolError { .. }).then_some(())
            })
            .await;
        }
        assert_eq!(next_message(&mut messages).await, ("news".to_owned(), json!({})));
    })
}
