//! The conformance scenarios: a client against a server that follows the channel contract of the
//! recordings (`tests/fixtures/wire/README.md`). Each is written once, and `conformance` runs it for
//! every adapter and against every suitable target.

mod catch_up;
mod channels;
mod connections;
mod endings;
mod faults;
mod handles;
mod repeats;

pub(super) use catch_up::*;
pub(super) use channels::*;
pub(super) use connections::*;
pub(super) use endings::*;
pub(super) use faults::*;
pub(super) use handles::*;
pub(super) use repeats::*;

use core::time::Duration;

use serde_json::Value;

use crate::rt::phx::event::Interruption;
use crate::rt::phx::{Channel, ChannelEvent, Message, Messages, Payload};

/// A timeout that passes only when the test advances the clock.
const HOUR: Duration = Duration::from_secs(3_600);

/// The sources of the scenarios, for the check that the table names each of them.
pub(super) const SOURCES: [&str; 7] = [
    include_str!("catch_up.rs"),
    include_str!("channels.rs"),
    include_str!("connections.rs"),
    include_str!("endings.rs"),
    include_str!("faults.rs"),
    include_str!("handles.rs"),
    include_str!("repeats.rs"),
];

fn json_of(payload: &Payload) -> Value {
    payload.to_value().expect("JSON")
}

/// Pushes, and returns the response of an `ok` reply.
async fn ok(room: &Channel, event: &str, payload: impl Into<Payload>) -> Payload {
    let reply = room.push(event, payload).await.unwrap_or_else(|error| panic!("{event}: {error}"));
    reply.ok().unwrap_or_else(|error| panic!("{event}: {error}"))
}

/// Asserts that the channel replies with the same payload.
async fn echoes(room: &Channel, payload: Value) {
    assert_eq!(json_of(&ok(room, "echo", payload.clone()).await), payload);
}

async fn next(messages: &mut Messages) -> ChannelEvent {
    messages.next().await.expect("the stream is open")
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
