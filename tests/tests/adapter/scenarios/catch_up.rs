//! A consumer that catches up on a topic whose server keeps its messages.

use serde_json::json;

use super::super::stage::{Stage, until};
use super::{json_of, next, ok};
use crate::rt::phx::catch_up::Contract;
use crate::rt::phx::client::CatchUp;
use crate::rt::phx::{Channel, ChannelEvent, JoinOptions, Message, Messages};

fn position_of(message: &Message) -> Option<u64> {
    json_of(message.payload())["pos"].as_u64()
}

/// Adds messages to the ring; the counter numbers them for the check of their order.
async fn append(writer: &Channel, count: u64, last: &mut u64) {
    for _ in 0..count {
        *last += 1;
        ok(writer, "append", json!({"n": *last})).await;
    }
}

/// Takes messages until the consumer has seen `last`. Each must be the next one.
async fn take(messages: &mut Messages, seen: &mut u64, last: u64) {
    while *seen < last {
        match next(messages).await {
            ChannelEvent::Message(message) => {
                *seen += 1;
                assert_eq!(json_of(message.payload())["n"], *seen);
                let cursor = messages.cursor().expect("the stream catches up");
                assert_eq!(cursor.position(), position_of(&message));
            }
            ChannelEvent::Interrupted { .. }
            | ChannelEvent::Resumed { .. }
            | ChannelEvent::CaughtUp => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The consumer sees each message once and in order, for both forms of the replay: across lost
/// connections, with a mailbox that is full most of the time, and after it has stopped reading.
pub(in super::super) async fn catches_up(stage: &mut Stage) {
    let writer = stage.connect().await;
    for in_events in [false, true] {
        let topic = stage.topic("ring", if in_events { "-events" } else { "" });
        let write = writer.join(topic.as_str(), json!({})).await.unwrap();
        let reader = stage.connect_with(stage.config().mailbox(4, 1 << 20).unwrap()).await.unwrap();
        let trouble = reader.join(stage.topic("room", ""), json!({})).await.unwrap();
        let (contract, params) = if in_events {
            (Contract::in_events("missed", "caught_up"), json!({"replay": "events"}))
        } else {
            (Contract::in_response(), json!({}))
        };
        let options = JoinOptions::new().catch_up(CatchUp::new(position_of).contract(contract));
        let ring = reader.join_with(topic.as_str(), params, options).await.unwrap();
        let mut messages = ring.messages();
        assert_eq!(next(&mut messages).await, ChannelEvent::CaughtUp);

        let (mut last, mut seen) = (0, 0);
        for round in 0..5 {
            append(&write, 3, &mut last).await;
            take(&mut messages, &mut seen, last - 1).await;
            let losses = reader.stats().lost_connections;
            trouble.cast("kill_transport", json!({})).await.unwrap();
            append(&write, 2 + round, &mut last).await;
            until("the connection is lost", || reader.stats().lost_connections > losses).await;
            take(&mut messages, &mut seen, last).await;
        }
        append(&write, 40, &mut last).await;
        take(&mut messages, &mut seen, last).await;
        assert_eq!(ring.cursor(), messages.cursor());
    }
}
