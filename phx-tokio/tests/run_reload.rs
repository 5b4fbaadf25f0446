//! SIGHUP to `phx run`: what differs is stopped and started, all else is not touched.

#![cfg(unix)]

mod running;

use base64::Engine as _;
use running::{Counter, Events, File, Process, free_addr, phx, signal, uri};
use serde_json::json;

#[test]
fn a_reload_starts_what_is_added_ends_what_is_removed_restarts_what_changed_and_touches_nothing_else()
 {
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
        // The same token, written out.
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
    assert_eq!(left["data"]["outcome"], "acked", "in order, not by a cut");
    events.until("gone", "phoenix.connection.closed", None);
    events.until("other", "phoenix.channel.left", Some("room:before"));
    events.until("other", "phoenix.channel.joined", Some("room:after"));
    events.until("new", "phoenix.channel.joined", Some("room:new"));

    // The other server sees who is there: only the successors.
    other.types(r#"broadcast room:after news {"n":1}"#);
    events.until("other", "phoenix.other.room_after.news", None);
    assert_eq!(events.count("kept"), before, "nothing happened on it");
    assert_eq!(counter.accepted(), 1, "its server never saw another connection");

    signal(&events.process.child, "-TERM");
    let log = events.process.ends_with(0);
    let said = "reloaded: 1 added, 1 removed, 1 changed, 1 unchanged";
    assert!(log.iter().any(|line| line.contains(said)), "{log:?}");
    assert!(!format!("{:?}{log:?}", events.seen).contains("t0k3n"), "no secret is printed");
}

#[test]
fn a_secret_that_differs_is_a_change_and_the_next_upgrade_presents_it() {
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
        events.process.ends_with(0)
    };
    assert!(!format!("{:?}{log:?}", events.seen).contains("wr0ng"), "no secret is printed");
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
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

    // One that is gone is no better.
    std::fs::remove_file(file.path()).unwrap();
    signal(&events.process.child, "-HUP");
    let refused = events.report("phx.reload.refused");
    assert!(refused["data"]["problems"][0].as_str().unwrap().contains("No such file"));

    server.types(r#"broadcast room:a news {"n":1}"#);
    events.until("a", "phoenix.a.room_a.news", None);
    assert_eq!(events.count("a"), before + 1, "only the message");

    // Mended, it is as before: nothing differs.
    file.write(&good);
    signal(&events.process.child, "-HUP");
    let done = events.report("phx.reload.done");
    assert_eq!(done["data"]["unchanged"], json!(["a"]));
    assert_eq!(events.count("a"), before + 1);
    signal(&events.process.child, "-TERM");
    let log = events.process.ends_with(0);
    assert_eq!(log.iter().filter(|line| line.contains("not reloaded: ")).count(), 4, "{log:?}");
    assert!(!format!("{:?}{log:?}", events.seen).contains("s3cret"), "{log:?}");
}

#[test]
fn a_connection_that_had_given_up_is_started_by_a_change_and_the_run_outlives_the_gap() {
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
    events.process.ends_with(0);
}

#[test]
fn a_renewed_certificate_is_a_change_though_the_file_says_the_same() {
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
    events.process.ends_with(0);
}
