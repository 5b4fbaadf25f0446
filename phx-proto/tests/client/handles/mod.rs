//! The handles of the async client, as a program uses them. The test plays the server, in virtual
//! time.
//!
//! Futures are polled only after a wake-up, so a test fails if a wake-up is missing.

mod calls;
mod repeats;
mod status;
mod streams;
mod waiting;

use core::time::Duration;

use phx_proto::Config;
use phx_proto::client::{Channel, ChannelEvent, Client, Messages};
use phx_proto::testing::{Running, Script};
use serde_json::{Value, json};

fn config() -> Config {
    Config::new("ws://localhost:4000/socket/websocket").expect("a good URI")
}

/// Polls every task until none makes progress.
fn settle(script: &Script) {
    script.advance(Duration::ZERO);
}

/// A client with an open connection, and a handle of a joined topic.
fn joined(script: &Script, config: Config, topic: &str) -> (Client, Channel) {
    let client = script.client(config);
    let room = client.want(topic, json!({})).expect("it is accepted");
    script.connect_and_assert_join(topic);
    (client, room)
}

/// Runs a future that must complete without any time passing.
#[track_caller]
fn now<T: Send + 'static>(script: &Script, future: impl Future<Output = T> + Send + 'static) -> T {
    let running = script.spawn(future);
    settle(script);
    assert!(running.is_finished(), "it is not over; what happened:\n{}", script.log());
    script.finish(running)
}

/// Spawns a task that reads a stream to its end and returns its events.
fn read(script: &Script, mut messages: Messages) -> Running<Vec<ChannelEvent>> {
    script.spawn(async move {
        let mut events = Vec::new();
        while let Some(event) = messages.next().await {
            events.push(event);
        }
        events
    })
}

/// A short text for each event.
fn in_words(events: &[ChannelEvent]) -> Vec<String> {
    let in_words = |event: &ChannelEvent| match event {
        ChannelEvent::Message(message) => {
            format!("{} {}", message.event(), message.payload().get().expect("JSON"))
        }
        ChannelEvent::Interrupted { .. } => "interrupted".to_owned(),
        ChannelEvent::Resumed { .. } => "resumed".to_owned(),
        ChannelEvent::Lagged(count) => format!("lagged {count}"),
        ChannelEvent::Closed(end) => format!("closed: {end}"),
        other => format!("{other:?}"),
    };
    events.iter().map(in_words).collect()
}

fn number(n: u64) -> Value {
    json!({ "n": n })
}
