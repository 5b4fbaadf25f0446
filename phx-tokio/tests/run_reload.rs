//! SIGHUP to `phx run`: changed connections are restarted, and the others are not touched.

#![cfg(unix)]

mod support;

use std::io::Write as _;

use base64::Engine as _;
use serde_json::json;
use support::running::{Counter, Events, File, Process, free_addr, phx, signal, uri};

/// Added connections are started, removed ones ended, changed ones restarted, and unchanged ones kept.
#[test]
fn reload_touches_only_changed_connections() {
    let (first, second) = (free_addr(), free_addr());
    let _server = Process::serve(first, Some("t0k3n"));
    let mut other = Process::serve(second, None);
    let counter = Counter::before(first);
    let first = counter.addr;
    let kept = json!({"uri": uri(first), "params": {"token": "${PHX_TEST_TOKEN}"},
        "auto_join_channels": ["room:kept"]});
    let file = File::new(
        "reload",
        &json!({"connections": {
            "kept": kept,
            "gone": {"uri": uri(second), "auto_join_channels": ["room:gone"]},
            "other": {"uri": uri(second), "auto_join_channels": ["room:before"]},
        }}),
    );
    let mut command = phx(&["run", file.path()]);
    command.env("PHX_TEST_TOKEN", "t0k3n");
    let mut events = Events::of(Process::start(command));
    for (name, topic) in [("kept", "room:kept"), ("gone", "room:gone"), ("other", "room:before")] {
        events.until(name, "phoenix.channel.joined", Some(topic));
    }
    let before = events.count("kept");

    file.write(&json!({"connections": {
        "new": {"uri": uri(second), "auto_join_channels": ["room:new"]},
        // The same token, written in the file instead of in a variable.
        "kept": {"uri": uri(first), "params": {"token": "t0k3n"}, "vsn": "2.0.0",
            "auto_join_channels": {"room:kept": null}},
        "other": {"uri": uri(second), "auto_join_channels": ["room:after"]},
    }}));
    signal(&events.process.child, "-HUP");
    let done = events.report("phx.reload.done");
    let data = &done["data"];
    assert_eq!(data["file"], file.path());
    assert_eq!((&data["added"], &data["removed"]), (&json!(["new"]), &json!(["gone"])));
    assert_eq!((&data["changed"], &data["unchanged"]), (&json!(["other"]), &json!(["kept"])));

    let left = events.until("gone", "phoenix.channel.left", Some("room:gone"));
    assert_eq!(left["data"]["outcome"], "acked", "a clean leave");
    events.until("gone", "phoenix.connection.closed", None);
    events.until("other", "phoenix.channel.left", Some("room:before"));
    events.until("other", "phoenix.channel.joined", Some("room:after"));
    events.until("new", "phoenix.channel.joined", Some("room:new"));

    // Only the new connection receives the broadcast.
    other.type_line(r#"broadcast room:after news {"n":1}"#);
    events.until("other", "phoenix.other.room_after.news", None);
    assert_eq!(events.count("kept"), before, "it has no new events");
    assert_eq!(counter.accepted(), 1, "it did not reconnect");

    signal(&events.process.child, "-TERM");
    let log = events.process.expect_exit(0);
    let summary = "reloaded: 1 added, 1 removed, 1 changed, 1 unchanged";
    assert!(log.iter().any(|line| line.contains(summary)), "{log:?}");
    assert!(!format!("{:?}{log:?}", events.seen).contains("t0k3n"), "no secret is printed");
}

/// A changed token restarts the connection, and the next upgrade request has it.
#[test]
fn changed_secret_restarts_connection() {
    let addr = free_addr();
    let _server = Process::serve(addr, Some("right"));
    let connection = |token: &str| {
        json!({"connections": {"a": {"uri": uri(addr), "params": {"token": token},
            "auto_join_channels": ["room:a"]}}})
    };
    let file = File::new("secret", &connection("wr0ng"));
    let mut events = Events::of(Process::start(phx(&["run", file.path()])));
    let refused = events.until("a", "phoenix.connection.connect_failed", None);
    assert_eq!(refused["data"]["reason"], "refused");
    file.write(&connection("right"));
    signal(&events.process.child, "-HUP");
    events.until("a", "phoenix.channel.joined", Some("room:a"));
    let log = {
        signal(&events.process.child, "-TERM");
        events.process.expect_exit(0)
    };
    assert!(!format!("{:?}{log:?}", events.seen).contains("wr0ng"), "no secret is printed");
}

#[test]
fn refused_reload_changes_nothing() {
    let addr = free_addr();
    let mut server = Process::serve(addr, None);
    let good = json!({"connections": {"a": {"uri": uri(addr), "auto_join_channels": ["room:a"]}}});
    let file = File::new("bad-reload", &good);
    let mut events = Events::of(Process::start(phx(&["run", file.path()])));
    events.until("a", "phoenix.channel.joined", Some("room:a"));
    let before = events.count("a");

    file.write(&json!({"connections": {
        "a": {"uri": uri(addr), "header": {"x-key": "s3cret"}},
        "b": {"params": {"t": "${PHX_NO_SUCH}"}},
    }}));
    signal(&events.process.child, "-HUP");
    let refused = events.report("phx.reload.refused");
    let problems = refused["data"]["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].as_str().unwrap().contains("did you mean \"headers\"?"), "{problems:?}");

    // A missing file.
    std::fs::remove_file(file.path()).unwrap();
    signal(&events.process.child, "-HUP");
    let refused = events.report("phx.reload.refused");
    assert!(refused["data"]["problems"][0].as_str().unwrap().contains("No such file"));

    server.type_line(r#"broadcast room:a news {"n":1}"#);
    events.until("a", "phoenix.a.room_a.news", None);
    assert_eq!(events.count("a"), before + 1, "only the message");

    // The repaired file equals the first one: nothing changes.
    file.write(&good);
    signal(&events.process.child, "-HUP");
    let done = events.report("phx.reload.done");
    assert_eq!(done["data"]["unchanged"], json!(["a"]));
    assert_eq!(events.count("a"), before + 1);
    signal(&events.process.child, "-TERM");
    let log = events.process.expect_exit(0);
    assert_eq!(log.iter().filter(|line| line.contains("not reloaded: ")).count(), 4, "{log:?}");
    assert!(!format!("{:?}{log:?}", events.seen).contains("s3cret"), "{log:?}");
}

/// A file that cannot be read at once, such as a pipe, does not delay the shutdown.
#[test]
fn signal_ends_run_during_blocked_reload() {
    let good = json!({"connections": {"a": {"uri": uri(free_addr())}}});
    let file = File::new("blocked-reload", &good);
    let mut events = Events::of(Process::start(phx(&["run", file.path()])));
    events.until("a", "phoenix.connection.connect_failed", None);
    std::fs::remove_file(file.path()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(file.path()).status().unwrap();
    assert!(made.success());
    signal(&events.process.child, "-HUP");
    // Opening the pipe for writing returns when the process opens it for reading.
    let mut pipe = std::fs::File::options().write(true).open(file.path()).unwrap();
    pipe.write_all(good.to_string().as_bytes()).unwrap();
    drop(pipe);
    assert_eq!(events.report("phx.reload.done")["data"]["unchanged"], json!(["a"]));

    signal(&events.process.child, "-HUP");
    let pipe = std::fs::File::options().write(true).open(file.path()).unwrap();
    signal(&events.process.child, "-TERM");
    events.process.expect_exit(0);
    drop(pipe);
}

/// While a reload waits for its file, the run still ends when every connection has ended.
#[test]
fn run_ends_during_blocked_reload() {
    let addr = free_addr();
    let server = Process::serve(addr, None);
    let connection = json!({"uri": uri(addr), "max_retries": 0});
    let file = File::new("ended-reload", &json!({"connections": {"a": connection}}));
    let run = phx(&["run", file.path(), "--grace", "1s"]);
    let mut events = Events::of(Process::start(run));
    events.until("a", "phoenix.connection.connected", None);
    std::fs::remove_file(file.path()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(file.path()).status().unwrap();
    assert!(made.success());
    signal(&events.process.child, "-HUP");
    let pipe = std::fs::File::options().write(true).open(file.path()).unwrap();
    drop(server);
    let log = events.process.expect_exit(3);
    assert!(log.iter().any(|line| line.contains("the reload waits for")), "{log:?}");
    drop(pipe);
}

/// A changed connection that had given up is started again by a reload. The run does not end, although
/// it has no other connection.
#[test]
fn reload_restarts_connection_that_gave_up() {
    let addr = free_addr();
    let spent = json!({"uri": uri(addr), "max_retries": 0});
    let file = File::new(
        "spent",
        &json!({"connections": {"spent": spent, "idle": {"uri": uri(free_addr())}}}),
    );
    let mut events = Events::of(Process::start(phx(&["run", file.path()])));
    events.until("spent", "phoenix.connection.gave_up", None);
    let _server = Process::serve(addr, None);
    file.write(&json!({"connections": {"spent": {"uri": uri(addr), "max_retries": 1}}}));
    signal(&events.process.child, "-HUP");
    events.until("spent", "phoenix.connection.connected", None);
    signal(&events.process.child, "-TERM");
    events.process.expect_exit(0);
}

/// A TLS file with new content restarts the connection, even if the document still names the same
/// path.
#[test]
fn renewed_certificate_is_a_change() {
    let pem = || {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let text = base64::engine::general_purpose::STANDARD.encode(own.cert.der());
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    };
    let name = format!("phx-{}-renewed.pem", std::process::id());
    let ca = std::env::temp_dir().join(name);
    std::fs::write(&ca, pem()).unwrap();
    let file = File::new(
        "renewed",
        &json!({"connections": {
            "private": {
                "uri": format!("wss://localhost:{}/socket/websocket", free_addr().port()),
                "tls": {"ca_file": ca.to_str().unwrap()},
            },
            "public": {"uri": uri(free_addr())},
        }}),
    );
    let mut events = Events::of(Process::start(phx(&["run", file.path()])));
    events.until("private", "phoenix.connection.connecting", None);
    signal(&events.process.child, "-HUP");
    let done = events.report("phx.reload.done");
    assert_eq!(done["data"]["unchanged"], json!(["private", "public"]));

    std::fs::write(&ca, pem()).unwrap();
    signal(&events.process.child, "-HUP");
    let done = events.report("phx.reload.done");
    assert_eq!(done["data"]["changed"], json!(["private"]));

    std::fs::remove_file(&ca).unwrap();
    signal(&events.process.child, "-HUP");
    let refused = events.report("phx.reload.refused");
    let problem = refused["data"]["problems"][0].as_str().unwrap();
    assert!(problem.contains("key \"tls\"") && problem.contains("renewed.pem"), "{problem}");
    signal(&events.process.child, "-TERM");
    events.process.expect_exit(0);
}
