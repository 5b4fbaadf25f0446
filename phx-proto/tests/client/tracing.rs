//! Events and spans of the feature `tracing`.

use core::fmt::Write as _;
use core::time::Duration;
use std::sync::{Arc, Mutex};

use crate::bench::Bench;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// A subscriber that stores every event as a line. It also calls the client, like a subscriber that
/// sends its log over the same connection.
#[derive(Clone, Default)]
struct Lines {
    lines: Arc<Mutex<Vec<(Level, String)>>>,
    client: Arc<Mutex<Option<phx_proto::client::Client>>>,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn core::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

impl Lines {
    fn call_back(&self) {
        if let Some(client) = &*self.client.lock().expect("no panic") {
            let _ = client.status();
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "phx"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.call_back();
        let mut line = Line(String::new());
        event.record(&mut line);
        self.lines.lock().expect("no panic").push((*event.metadata().level(), line.0));
    }

    fn enter(&self, _: &Id) {
        self.call_back();
    }

    fn exit(&self, _: &Id) {
        self.call_back();
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.call_back();
        id.clone()
    }

    fn try_close(&self, _: Id) -> bool {
        self.call_back();
        true
    }
}

/// A subscriber runs on every clone and drop of a span, so neither may happen under a lock.
#[test]
#[allow(clippy::disallowed_methods, reason = "a deadlock can be seen only from another thread")]
fn spans_are_not_touched_under_a_lock() {
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let subscriber = Lines::default();
        let _guard = tracing::subscriber::set_default(subscriber.clone());
        let span = tracing::info_span!(target: "phx", "mine");
        let mut bench = span.in_scope(|| Bench::new(|config| config));
        *subscriber.client.lock().expect("no panic") = Some(bench.client.clone());
        let _room = bench.joined("room:lobby");
        // The clock is code of the runtime, so it may call the client too.
        bench.memory.world().clock_calls = Some(bench.client.clone());
        for _ in 0..2 {
            bench.server_sends(&json!("not the protocol"));
            bench.advance(Duration::from_secs(61));
        }
        bench.memory.world().clock_calls = None;
        *subscriber.client.lock().expect("no panic") = None;
        let _ = done.send(());
    });
    let ended = wait.recv_timeout(Duration::from_secs(10));
    ended.expect("neither a deadlock nor a panic");
}

/// No event is an error, and none contains a payload.
#[test]
fn trace_covers_everything_without_payloads() {
    let subscriber = Lines::default();
    let _guard = tracing::subscriber::set_default(subscriber.clone());
    let mut bench = Bench::new(|config| config);
    *subscriber.client.lock().expect("no panic") = Some(bench.client.clone());
    let room = bench.joined("room:lobby");
    bench.server_sends(&json!([null, null, "room:lobby", "msg", {"token": "s3cret"}]));
    bench.server_sends(
        &json!(["1", "77", "room:lobby", "phx_reply", {"status": "ok", "response": {}}]),
    );
    bench.cut();
    bench.advance(Duration::from_secs(3));
    bench.reply("ok", json!({}));
    drop(room);
    bench.settle();
    let lines = subscriber.lines.lock().expect("no panic").clone();
    let traced = |level: Level, part: &str| {
        assert!(
            lines.iter().any(|(of, line)| *of == level && line.contains(part)),
            "{level} {part} in {lines:#?}"
        );
    };
    traced(Level::DEBUG, "connecting");
    traced(Level::INFO, "connected");
    traced(Level::INFO, "joined topic=room:lobby");
    traced(Level::TRACE, "message topic=room:lobby");
    traced(Level::DEBUG, "late replies total=1");
    traced(Level::WARN, "disconnected cause=the connection was lost: cut");
    traced(Level::INFO, "resumed topic=room:lobby");
    assert!(lines.iter().all(|(level, _)| *level != Level::ERROR));
    assert!(lines.iter().all(|(_, line)| !line.contains("s3cret")));
    *subscriber.client.lock().expect("no panic") = None;
}

/// Events contain the name of their connection, and a close by the server is a warning.
#[test]
fn events_name_their_connection_and_its_end() {
    let subscriber = Lines::default();
    let _guard = tracing::subscriber::set_default(subscriber.clone());
    let mut bench = Bench::new(|config| {
        phx_proto::client::Setup::new(config.param("token", "s3cret")).name("backend")
    });
    let _room = bench.joined("room:lobby");
    let _lost = bench.joined("room:lost");
    bench.server_sends(&json!("not the protocol"));
    bench.server_sends(&json!(["2", null, "room:lost", "phx_error", {}]));
    bench.server_sends(&json!(["1", null, "room:lobby", "phx_close", {}]));
    bench.server_sends(
        &json!(["1", "77", "room:lobby", "phx_reply", {"status": "ok", "response": {}}]),
    );
    let lines = subscriber.lines.lock().expect("no panic").clone();
    let named = r#" connection="backend" address="ws://localhost:4000/socket/websocket"#;
    assert!(lines.iter().all(|(_, line)| line.contains(named)), "{lines:#?}");
    assert!(lines.iter().all(|(_, line)| !line.contains("s3cret")), "{lines:#?}");
    for (level, begin) in [
        (Level::WARN, r#"channel closed topic=room:lobby reason="closed_by_server""#),
        (Level::DEBUG, r#"interrupted topic=room:lost reason="channel_crashed""#),
    ] {
        let is_there = |(of, line): &(Level, String)| *of == level && line.starts_with(begin);
        assert!(lines.iter().any(is_there), "{begin} in {lines:#?}");
    }
    drop(bench.client);
    let unnamed = Bench::new(|config| config);
    let lines = subscriber.lines.lock().expect("no panic").clone();
    assert!(
        lines
            .iter()
            .any(|(_, line)| line.starts_with("connecting") && !line.contains(" connection="))
    );
    drop(unnamed);
}

/// Invalid frames of one kind cause at most one line per minute, with a count of all such frames.
#[test]
fn bad_frames_are_traced_by_kind() {
    let subscriber = Lines::default();
    let _guard = tracing::subscriber::set_default(subscriber.clone());
    let mut bench = Bench::new(|config| config.heartbeat_interval(Duration::from_secs(3_600)));
    let room = bench.joined("room:lobby");
    let bad = || -> Vec<u64> {
        let lines = subscriber.lines.lock().expect("no panic").clone();
        let bad = lines.iter().filter(|(_, line)| line.starts_with("invalid frames"));
        let count = bad.map(|(level, line)| {
            assert_eq!(*level, Level::WARN);
            line.rsplit_once("count=").expect("a count").1.parse().expect("a number")
        });
        count.collect()
    };
    for _ in 0..500 {
        bench.server_sends(&json!({"not": "a list"}));
        bench.server_sends(&json!([null, null, 7, "msg", {}]));
    }
    assert_eq!(bad(), [1, 1], "the first of each kind");
    bench.advance(Duration::from_secs(59));
    bench.server_sends(&json!([null, null, "room:lobby", "msg", {}]));
    assert_eq!(bad(), [1, 1]);
    bench.advance(Duration::from_secs(1));
    bench.server_sends(&json!([null, null, "room:lobby", "msg", {}]));
    assert_eq!(bad(), [1, 1, 499, 499], "a minute later the rest");
    drop(room);
}
