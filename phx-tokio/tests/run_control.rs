//! Orders on the standard input of `phx run`, and the events that answer them.

#![cfg(unix)]

mod support;

use std::collections::BTreeSet;
use std::fs::File as StdFile;
use std::process::Stdio;

use serde_json::{Value, json};
use support::running::{Events, File, Process, free_addr, phx, signal, stop, uri};

/// A server, and a run with one connection to it that joins `room:a`.
struct Stage {
    server: Process,
    events: Events,
    _file: File,
}

impl Stage {
    fn new(name: &str) -> Self {
        let addr = free_addr();
        let server = Process::serve(addr, None);
        let file = File::new(
            name,
            &json!({"connections": {
                "a": {"uri": uri(addr), "auto_join_channels": ["room:a"]},
                "down": {"uri": uri(free_addr()), "auto_join_channels": ["room:d"]},
            }}),
        );
        let mut events = Events::of(Process::start(phx(&["run", file.path()])));
        events.until("a", "phoenix.channel.joined", Some("room:a"));
        Self { server, events, _file: file }
    }

    fn order(&mut self, order: &Value) {
        self.events.process.type_line(&order.to_string());
    }

    /// Waits for the answer to the order with this id, and returns its data.
    #[track_caller]
    fn answer(&mut self, kind: &str, id: &str) -> Value {
        let event = self.events.answer(id);
        assert_eq!(event["type"], kind);
        event["data"].clone()
    }

    #[track_caller]
    fn finish(mut self) -> Vec<String> {
        signal(&self.events.process.child, "-TERM");
        self.events.process.expect_exit(0)
    }
}

fn push(id: &str, connection: &str, topic: &str, event: &str, payload: &Value) -> Value {
    json!({"id": id, "push": {
        "connection": connection, "topic": topic, "event": event, "payload": payload,
    }})
}

/// Pushes, joins, casts and leaves, text and binary.
#[test]
fn orders_are_answered_with_their_id() {
    let mut stage = Stage::new("orders");
    stage.order(&push("p1", "a", "room:a", "echo", &json!({"n": 1})));
    let done = stage.answer("phx.control.done", "p1");
    assert_eq!((&done["command"], &done["status"]), (&json!("push"), &json!("ok")));
    assert_eq!((&done["response"], &done["line"]), (&json!({"n": 1}), &json!(1)));
    assert_eq!((&done["connection_name"], &done["topic"]), (&json!("a"), &json!("room:a")));

    stage.order(&json!({"id": "j1", "join": {
        "connection": "a", "topic": "room:b", "params": {"user": 7},
    }}));
    // Sent before the join is answered: the push waits for the join.
    stage.order(&push("p2", "a", "room:b", "echo", &json!({"n": 2})));
    stage.answer("phx.control.done", "j1");
    assert_eq!(stage.answer("phx.control.done", "p2")["response"], json!({"n": 2}));

    // The channel stays joined: its messages are events.
    stage.server.type_line(r#"broadcast room:b news {"n":3}"#);
    stage.events.until("a", "phoenix.a.room_b.news", None);

    stage.order(&json!({"id": "b1", "push": {
        "connection": "a", "topic": "room:b", "event": "echo", "payload_base64": "AP8=",
    }}));
    let done = stage.answer("phx.control.done", "b1");
    assert_eq!(done["response_base64"], "AP8=", "{done}");

    stage.order(&json!({"id": "c1", "cast": {
        "connection": "a", "topic": "room:b", "event": "shout", "payload": {"n": 4},
    }}));
    stage.answer("phx.control.done", "c1");

    stage.order(&json!({"id": "l1", "leave": {"connection": "a", "topic": "room:b"}}));
    assert_eq!(stage.answer("phx.control.done", "l1")["outcome"], "acked");
    stage.order(&push("p3", "a", "room:b", "echo", &json!({})));
    assert_eq!(stage.answer("phx.control.failed", "p3")["reason"], "not_joined");
    stage.finish();
}

#[test]
fn failed_orders_have_a_reason() {
    let mut stage = Stage::new("failures");
    stage.order(&push("1", "z", "room:a", "echo", &json!({})));
    let failed = stage.answer("phx.control.failed", "1");
    assert_eq!(failed["reason"], "unknown_connection");
    assert_eq!(failed["message"], "there is no connection \"z\"");
    stage.order(&json!({"id": "2", "join": {"connection": "a", "topic": "deny:x"}}));
    let failed = stage.answer("phx.control.failed", "2");
    assert_eq!(failed["reason"], "rejected");
    assert_eq!(failed["response"], json!({"reason": "unauthorized"}));
    stage.order(&json!({"id": "3", "push": {
        "connection": "down", "topic": "room:d", "event": "echo", "timeout_msec": 50,
    }}));
    assert_eq!(stage.answer("phx.control.failed", "3")["reason"], "not_sent");
    stage.order(&json!({"id": "4", "leave": {"connection": "a", "topic": "room:z"}}));
    assert_eq!(stage.answer("phx.control.failed", "4")["reason"], "not_joined");
    // If the status of the reply is not ok, the order is still successful.
    stage.order(&push("5", "a", "room:a", "nack", &json!({})));
    assert_eq!(stage.answer("phx.control.done", "5")["status"], "error");
    stage.finish();
}

/// The lines after a malformed or oversized line are still read.
#[test]
fn malformed_line_is_reported_by_number() {
    let mut stage = Stage::new("malformed");
    stage.events.process.type_line("{");
    stage.events.process.type_line("");
    stage.events.process.type_line(r#"{"id": "x", "push": {"topic": "s3cret", "connection": 7}}"#);
    let first = stage.events.report("phx.control.malformed");
    assert_eq!((&first["data"]["line"], &first["data"]["id"]), (&json!(1), &Value::Null));
    assert!(first["data"]["message"].as_str().unwrap().contains("not JSON"), "{first}");
    let second = stage.answer("phx.control.malformed", "x");
    assert_eq!(second["line"], 3);
    assert_eq!(second["message"], "\"push\": \"connection\" must be a string, not a number");

    // An oversized line is skipped, and the next one is read.
    stage.events.process.type_line(&"x".repeat((16 << 20) + 1));
    stage.order(&push("after", "a", "room:a", "echo", &json!({"n": 1})));
    let long = stage.events.report("phx.control.malformed");
    assert_eq!(long["data"]["line"], 4);
    assert_eq!(stage.answer("phx.control.done", "after")["line"], 5);
    let events = format!("{:?}", stage.events.seen);
    let log = stage.finish();
    assert!(!format!("{events}{log:?}").contains("s3cret"), "{log:?}");
}

#[test]
fn channel_orders_keep_their_order() {
    let mut stage = Stage::new("order");
    for n in 0..100 {
        stage.order(&json!({"id": format!("c{n}"), "cast": {
            "connection": "a", "topic": "room:a", "event": "shout", "payload": {"n": n},
        }}));
    }
    for n in 0..100 {
        let message = stage.events.until("a", "phoenix.a.room_a.shout", None);
        assert_eq!(message["data"]["payload"], json!({"n": n}));
    }
    stage.finish();
}

/// More orders than the queue of pushes can hold.
#[test]
fn excess_orders_are_all_answered() {
    let mut stage = Stage::new("many");
    stop(&stage.server.child);
    const COUNT: usize = 300;
    for n in 0..COUNT {
        // The first push is sent long before its timeout expires. At its timeout, the other pushes
        // still wait.
        let timeout_msec = if n == 0 { 5_000 } else { 600_000 };
        stage.order(&json!({"id": format!("m{n}"), "push": {
            "connection": "a", "topic": "room:a", "event": "echo", "payload": {"n": n},
            "timeout_msec": timeout_msec,
        }}));
    }
    assert_eq!(stage.answer("phx.control.failed", "m0")["reason"], "timed_out");
    signal(&stage.server.child, "-CONT");
    let mut answered = BTreeSet::new();
    while answered.len() < COUNT - 1 {
        let done = stage.events.report("phx.control.done");
        let n = done["data"]["response"]["n"].as_u64().unwrap();
        assert_eq!(done["data"]["id"], format!("m{n}"));
        assert!(n != 0 && answered.insert(n), "twice: {done}");
    }
    stage.finish();
}

#[test]
fn stdin_eof_ends_control_only() {
    let mut stage = Stage::new("eof");
    stage.order(&push("last", "a", "room:a", "echo", &json!({})));
    drop(stage.events.process.stdin.take());
    stage.answer("phx.control.done", "last");
    stage.server.type_line(r#"broadcast room:a news {"n":1}"#);
    stage.events.until("a", "phoenix.a.room_a.news", None);
    stage.events.process.expect_log("no further orders");
    stage.finish();
}

/// `phx run … < /dev/null`, and `phx run … &` in a script.
#[test]
fn run_works_without_stdin() {
    let addr = free_addr();
    let _server = Process::serve(addr, None);
    let file = File::new(
        "null",
        &json!({"connections": {"a": {"uri": uri(addr), "auto_join_channels": ["room:a"]}}}),
    );
    for stdin in [Stdio::null(), Stdio::from(StdFile::open("/").unwrap())] {
        let mut command = phx(&["run", file.path()]);
        command.stdin(stdin);
        let mut events = Events::of(Process::start(command));
        events.until("a", "phoenix.channel.joined", Some("room:a"));
        signal(&events.process.child, "-TERM");
        events.process.expect_exit(0);
    }
}

#[test]
fn waiting_order_is_answered_at_end() {
    let mut stage = Stage::new("end");
    stage.order(&json!({"id": "w", "join": {"connection": "down", "topic": "room:e"}}));
    stage.order(&push("known", "a", "room:a", "echo", &json!({})));
    stage.answer("phx.control.done", "known");
    signal(&stage.events.process.child, "-TERM");
    let ended = stage.answer("phx.control.failed", "w");
    assert_eq!(ended["reason"], "ended");
    stage.events.process.expect_exit(0);
}
