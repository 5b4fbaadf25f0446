//! `phx run`, which keeps named connections, and `phx check`.

#![cfg(unix)]

mod support;

use serde_json::{Value, json};
use support::running::{Events, File, Process, free_addr, phx, signal, stop, uri};

/// Three connections, of which one loses its server, one gives up, and one is not affected.
#[test]
fn run_isolates_connections() {
    let (first, second) = (free_addr(), free_addr());
    let file = File::new(
        "three",
        &json!({"connections": {
            "alpha": {
                "uri": uri(first), "params": {"token": "${PHX_TEST_TOKEN}"},
                "auto_join_channels": ["room:a"], "attributes": {"sessionid": "s1"},
            },
            "beta": {
                "uri": uri(first), "params": {"token": "${PHX_TEST_TOKEN}"},
                "auto_join_channels": ["deny:b", "room:b"],
                "rejected_after_msec": [20], "reconnect": false, "restart": "temporary",
            },
            "gamma": {"uri": uri(second), "auto_join_channels": ["room:c"], "transport": "websocket"},
        }}),
    );
    let mut server = Process::serve(first, Some("t0k3n"));
    let mut command = phx(&["run", file.path()]);
    command.env("PHX_TEST_TOKEN", "t0k3n");
    let mut events = Events::of(Process::start(command));

    // The start: one connection with a token, one with a rejected channel, one without a server.
    let joined = events.until("alpha", "phoenix.channel.joined", Some("room:a"));
    assert_eq!((&joined["sessionid"], &joined["source"]), (&json!("s1"), &json!("/phoenix/alpha")));
    let rejected = events.until("beta", "phoenix.channel.closed", Some("deny:b"));
    assert_eq!(rejected["data"]["response"], json!({"reason": "unauthorized"}));
    let down = events.until("gamma", "phoenix.connection.connect_failed", None);
    assert_eq!(down["data"]["reason"], "dial_refused");

    // The server of the third one comes up.
    let _other = Process::serve(second, None);
    events.until("gamma", "phoenix.channel.joined", Some("room:c"));
    let gamma = events.count("gamma");

    // A message, and a crash of one channel.
    server.type_line(r#"broadcast room:a news {"n":1}"#);
    let message = events.until("alpha", "phoenix.alpha.room_a.news", Some("room:a"));
    assert_eq!(message["data"]["payload"], json!({"n": 1}));
    server.type_line("crash room:a");
    events.until("alpha", "phoenix.channel.interrupted", Some("room:a"));
    events.until("alpha", "phoenix.channel.resumed", Some("room:a"));

    // The first server is killed: one of its connections is configured not to reconnect.
    drop(server);
    let gave_up = events.until("beta", "phoenix.connection.gave_up", None);
    assert_eq!(gave_up["data"]["reason"], "transport_lost");
    let mut server = Process::serve(first, Some("t0k3n"));
    events.until("alpha", "phoenix.channel.resumed", Some("room:a"));
    server.type_line(r#"broadcast room:a news {"n":2}"#);
    events.until("alpha", "phoenix.alpha.room_a.news", None);
    assert_eq!(events.count("gamma"), gamma, "the third one is not affected");

    // A clean shutdown.
    let beta = events.count("beta");
    signal(&events.process.child, "-TERM");
    let left = events.until("alpha", "phoenix.channel.left", Some("room:a"));
    assert_eq!(left["data"]["outcome"], "acked");
    let log = events.process.expect_exit(0);
    assert!(log[0].contains("keeping 3 connections"), "{log:?}");
    let rest: Vec<String> = events.process.lines.iter().collect();
    let all = format!("{:?}{rest:?}{log:?}", events.seen);
    let is_closed = |line: &str| line.contains("gamma") && line.contains("connection.closed");
    let seen = events.seen.iter().map(Value::to_string);
    assert!(seen.chain(rest).any(|line| is_closed(&line)), "{all}");
    assert_eq!(events.count("beta"), beta, "an ended connection has no more events");
    assert!(!all.contains("t0k3n"), "no secret is printed");
}

/// `--subscribe` selects events, `--fixed` the fixed event types, and `--prefix` the prefix of the bus
/// topics. A pattern that no event can match causes a warning.
#[test]
fn run_filters_events_by_subscription() {
    let addr = free_addr();
    let _server = Process::serve(addr, None);
    let file = File::new(
        "fixed",
        &json!({"connections": {
            "a": {"uri": uri(addr), "auto_join_channels": ["room:a"]},
        }}),
    );
    let pattern = "acme.signal.jido_coder.phoenix.channel.*";
    let options = ["--fixed", "--prefix", "acme", "--subscribe", pattern, "--subscribe", "jido.**"];
    let process = Process::start(phx(&[&["run", file.path()], options.as_slice()].concat()));
    let mut events = Events::of(process);
    events.until("a", "jido_coder.phoenix.channel.state", Some("room:a"));
    assert_eq!(events.seen.len(), 1);
    assert_eq!(events.seen[0]["source"], "/jido_coder/phoenix");
    signal(&events.process.child, "-INT");
    let log = events.process.expect_exit(0);
    let warnings: Vec<_> = log.iter().filter(|line| line.contains("no event can match")).collect();
    assert!(matches!(warnings.as_slice(), [one] if one.contains("jido.**")), "{log:?}");
}

#[test]
fn run_exits_3_without_connections() {
    let file = File::new(
        "gone",
        &json!({"connections": {
            "a": {"uri": uri(free_addr()), "max_retries": 1, "first_retry_spread_msec": [1, 2]},
        }}),
    );
    let mut process = Process::start(phx(&["run", file.path()]));
    let log = process.expect_exit(3);
    let last = log.last().expect("a reason");
    assert!(last.contains("every connection has ended: a: connecting failed"), "{log:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn second_signal_ends_run() {
    let addr = free_addr();
    let server = Process::serve(addr, None);
    let file = File::new(
        "twice",
        &json!({"connections": {
            "a": {"uri": uri(addr), "auto_join_channels": ["room:a"],
                "leave_timeout_msec": 600_000},
        }}),
    );
    let process = Process::start(phx(&["run", file.path(), "--grace", "600"]));
    let mut events = Events::of(process);
    events.until("a", "phoenix.channel.joined", None);
    // The server does not answer the leave.
    stop(&server.child);
    signal(&events.process.child, "-TERM");
    // The first signal must be handled, or the second might count as part of it.
    events.process.expect_log("shutting down");
    events.until("a", "phoenix.channel.closed", None);
    // A signal right after the first counts as part of it, so the test repeats the signal.
    let log = events.process.signal_until_exit("-TERM", 1);
    assert!(log.iter().any(|line| line.contains("second signal")), "{log:#?}");
    signal(&server.child, "-CONT");
}

#[test]
fn check_lists_connections() {
    let file = File::new(
        "good",
        &json!({"connections": {
            "a": {"uri": "wss://example.com/socket/websocket?key=s3cret", "auto_join_channels": ["x"]},
            "b": {"uri": "ws://localhost/socket/websocket"},
        }}),
    );
    let output = phx(&["check", file.path()]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0]["name"], "a");
    let uri = lines[0]["uri"].as_str().unwrap();
    assert!(uri.starts_with("wss://example.com/socket/websocket"), "{text}");
    assert_eq!((&lines[0]["channels"], &lines[1]["channels"]), (&json!(["x"]), &json!([])));
    assert!(!text.contains("s3cret"), "{text}");
}

/// Every problem of a file is reported at once, on a line of its own.
#[test]
fn check_and_run_report_every_problem() {
    let file = File::new(
        "bad",
        &json!({"connections": {
            "a": {"uri": "wss://example.com/", "header": {}, "params": {"t": "${PHX_NO_SUCH}"}},
            "b": {"tls": {"ca_file": "/nonexistent/ca.pem"}},
        }}),
    );
    for command in ["check", "run"] {
        let output = phx(&[command, file.path()]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("did you mean \"headers\"?"), "{text}");
        assert!(text.contains("PHX_NO_SUCH"), "{text}");
        assert!(text.contains("connection \"b\", key \"uri\": it is missing"), "{text}");
    }
}

#[test]
fn unreadable_tls_file_is_named() {
    let file = File::new(
        "tls",
        &json!({"connections": {
            "a": {"uri": "wss://example.com/", "tls": {"ca_file": "/nonexistent/ca.pem"}},
        }}),
    );
    let output = phx(&["run", file.path()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("key \"tls\"") && text.contains("/nonexistent/ca.pem"), "{text}");
}

#[test]
fn missing_file_is_bad_usage() {
    let output = phx(&["check", "/nonexistent/connections.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
