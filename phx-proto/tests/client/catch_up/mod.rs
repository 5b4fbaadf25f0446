//! Streams that catch up: a replay after each join, in order with the live messages.

mod hostile;
mod random;
mod scripted;
mod sequences;

#[path = "../../support/in_order.rs"]
mod in_order;

use core::pin::pin;
use core::task::Poll;

use crate::bench::poll;
use phx_proto::catch_up::{Contract, Cursor};
use phx_proto::client::{CatchUp, Channel, ChannelEvent, Client, JoinOptions, Message, Messages};
use phx_proto::testing::{Running, Script, Sent};
use phx_proto::{Config, Payload};
use serde_json::{Value, json};

fn config() -> Config {
    Config::new("ws://localhost:4000/socket/websocket").expect("a good URI")
}

fn position_of(message: &Message) -> Option<u64> {
    message.payload().to_value().ok()?["pos"].as_u64()
}

fn catch_up(cursor: Cursor) -> CatchUp {
    CatchUp::new(position_of).cursor(cursor)
}

fn in_events() -> Contract {
    Contract::in_events("missed", "caught_up")
}

fn options(catch_up: CatchUp) -> JoinOptions {
    JoinOptions::new().catch_up(catch_up)
}

fn want(client: &Client, catch_up: CatchUp) -> Channel {
    client.want_with("orders", json!({"user": 7}), options(catch_up)).expect("it is accepted")
}

fn live(script: &Script, positions: impl IntoIterator<Item = u64>) {
    for pos in positions {
        script.push("orders", "order", json!({ "pos": pos }));
    }
}

/// A replay with these messages.
fn missed(positions: impl IntoIterator<Item = u64>) -> Value {
    let items = positions.into_iter().map(|pos| json!({"event": "order", "payload": {"pos": pos}}));
    json!({"messages": items.collect::<Vec<_>>()})
}

/// The parameter of a join with the position.
fn since(join: &Sent) -> Option<u64> {
    assert_eq!(join.json()["user"], 7, "the parameters of the application stay");
    join.json().get("since").map(|since| since.as_u64().expect("a number"))
}

/// Accepts a connection, and returns the join, to be answered by the test.
fn join_of(script: &Script) -> Sent {
    script.accept_connect();
    script.assert_join("orders")
}

/// Polls every task until none makes progress.
fn settle(script: &Script) {
    script.advance(core::time::Duration::ZERO);
}

/// Spawns a task that reads a number of events.
fn take(script: &Script, mut messages: Messages, count: usize) -> Running<(Messages, Vec<String>)> {
    script.spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..count {
            match messages.next().await {
                Some(event) => seen.push(in_words(&event)),
                None => break,
            }
        }
        (messages, seen)
    })
}

/// Reads a number of events that must all be there.
#[track_caller]
fn taken(script: &Script, messages: Messages, count: usize) -> (Messages, Vec<String>) {
    let running = take(script, messages, count);
    settle(script);
    assert!(running.is_finished(), "fewer than {count} events; what happened:\n{}", script.log());
    script.finish(running)
}

/// Reads every event that is there.
fn drained(mut messages: Messages) -> (Messages, Vec<String>) {
    let mut seen = Vec::new();
    while let Poll::Ready(Some(event)) = poll(pin!(messages.next())) {
        seen.push(in_words(&event));
    }
    (messages, seen)
}

/// Asserts that no event is there.
#[track_caller]
fn idle(script: &Script, messages: Messages) -> Messages {
    let mut messages = messages;
    let polled = poll(pin!(messages.next()));
    assert!(polled.is_pending(), "{polled:?}; what happened:\n{}", script.log());
    messages
}

fn in_words(event: &ChannelEvent) -> String {
    match event {
        ChannelEvent::Message(message) => match position_of(message) {
            Some(pos) => pos.to_string(),
            None => message.event().to_owned(),
        },
        ChannelEvent::Interrupted { .. } => "interrupted".to_owned(),
        ChannelEvent::Resumed { .. } => "resumed".to_owned(),
        ChannelEvent::Lagged(count) => format!("lagged {count}"),
        ChannelEvent::CaughtUp => "caught up".to_owned(),
        ChannelEvent::GapRemains { after, through } => {
            let text =
                |end: &Option<u64>| end.map_or_else(|| "?".to_owned(), |end| end.to_string());
            format!("gap {}..={}", text(after), text(through))
        }
        ChannelEvent::Closed(end) => format!("closed: {end}"),
        other => format!("{other:?}"),
    }
}

fn payload(value: Value) -> Payload {
    Payload::from(value)
}
