//! The conformance scenarios: what a client sees of a server that honours the channel contract of
//! the recordings (`tests/fixtures/wire/README.md`), written once and run by `conformance` over
//! both adapters, against every target they make sense for.

mod channels;
mod connections;
mod endings;
mod faults;
mod handles;

pub(super) use channels::*;
pub(super) use connections::*;
pub(super) use endings::*;
pub(super) use faults::*;
pub(super) use handles::*;

use core::time::Duration;

use serde_json::Value;

use crate::rt::phx::event::Interruption;
use crate::rt::phx::{Channel, ChannelEvent, Message, Messages, Payload};

/// A timeout that passes only when the clock is set ahead.
const HOUR: Duration = Duration::from_secs(3_600);

/// What is written here, for the check that all of it is run.
pub(super) const SOURCES: [&str; 5] = [
    include_str!("channels.rs"),
    include_str!("connections.rs"),
    include_str!("endings.rs"),
    include_str!("faults.rs"),
    include_str!("handles.rs"),
];

fn json_of(payload: &Payload) -> Value {
    payload.to_value().expect("JSON")
}

/// Pushes, and takes the response of an ok.
async fn ok(room: &Channel, event: &str, payload: impl Into<Payload>) -> Payload {
    let reply = room.push(event, payload).await.unwrap_or_else(|error| panic!("{event}: {error}"));
    reply.ok().unwrap_or_else(|error| panic!("{event}: {error}"))
}

/// The channel answers, with just what was said.
async fn echoes(room: &Channel, payload: Value) {
    assert_eq!(json_of(&ok(room, "echo", payload.clone()).await), payload);
}

async fn next(messages: &mut Messages) -> ChannelEvent {
    messages.next().await.expect("the stream goes on")
}

async fn next_message(messages: &mut Messages) -> Message {
    match next(messages).await {
        ChannelEvent::Message(message) => message,
        other => panic!("expected a message, got {other:?}"),
    }
}

async fn next_json(messages: &mut Messages, event: &str) -> Value {
    let message = next_message(messages).await;
    assert_eq!(message.event(), event);
    json_of(message.payload())
}

async fn interrupted(messages: &mut Messages) -> Interruption {
    match next(messages).await {
        ChannelEvent::Interrupted { cause, count: 1 } => cause,
        other => panic!("expected one interruption, got {other:?}"),
    }
}

async fn resumed(messages: &mut Messages) -> Value {
    match next(messages).await {
        ChannelEvent::Resumed { response } => json_of(&response),
        other => panic!("expected a resumption, got {other:?}"),
    }
}
