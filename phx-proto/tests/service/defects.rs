//! Defects of a predecessor of the service layer, which must not occur here. Like an application,
//! each test uses a document of connections and a supervisor.

use core::time::Duration;

use crate::fleet::{Fleet, drain, run, subscribe, types};
use phx_proto::service::{CloudEvent, Connections};
use phx_proto::service::{SupervisedState, Supervisor};
use phx_proto::socket::Lifecycle;
use phx_proto::{Cause, ChannelStatus, Status};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

/// A supervisor with the connections of the document, each of them polled once.
fn up(fleet: &Fleet, connections: &Value) -> Supervisor {
    let document = json!({ "connections": connections }).to_string();
    let environment = |name: &str| (name == "TOKEN").then(|| "s3cret".to_owned());
    let connections = Connections::from_json(&document, environment).expect("a good document");
    let supervisor = fleet.supervisor();
    supervisor.start_configured(connections).expect("free names");
    fleet.settle();
    supervisor
}

fn uri(host: &str) -> String {
    format!("wss://{host}/socket/websocket")
}

/// The data of an event.
fn data_of(event: &CloudEvent) -> Value {
    event.data.to_value().expect("JSON")
}

/// Every option of the document takes effect. A predecessor stored options where the new process
/// could not see them.
#[test]
fn every_connection_option_takes_effect() {
    let fleet = Fleet::new();
    fleet.with_host("down", |host| host.down = true);
    let supervisor = up(
        &fleet,
        &json!({
            "a": {
                "uri": uri("up"), "headers": {"X-Key": "k"}, "params": {"p": "1"},
                "auto_join_channels": [["room:a", {"x": 1}]],
            },
            "b": {"uri": uri("down"), "max_retries": 1},
        }),
    );
    let request = fleet.with_host("up", |host| host.requests[0].clone());
    assert_eq!((request.headers[0].0.as_str(), request.headers[0].1.expose()), ("X-Key", "k"));
    let join = fleet.with_host("up", |host| host.received[0].clone());
    assert_eq!((&join[2], &join[4]), (&json!("room:a"), &json!({"x": 1})));
    fleet.advance(60 * SECOND);
    assert_eq!(fleet.dials("down"), 2, "one attempt, one retry");
    drop(supervisor);
}

/// The connect parameters are in the address that is dialled. A predecessor never added them.
#[test]
fn connect_params_are_sent() {
    let fleet = Fleet::new();
    let params = json!({"token": "${TOKEN}", "room": "a b"});
    let _supervisor = up(&fleet, &json!({"a": {"uri": uri("up"), "params": params}}));
    let target = fleet.with_host("up", |host| host.requests[0].uri.target());
    assert!(target.contains("token=s3cret"), "{target}");
    assert!(target.contains("room=a%20b") || target.contains("room=a+b"), "{target}");
    assert!(target.contains("vsn=2.0.0"), "{target}");
}

/// After a reconnect, the connection still has its name and its auto-joins. A predecessor lost both
/// after the first connect.
#[test]
fn reconnect_keeps_name_and_auto_joins() {
    let fleet = Fleet::new();
    let channels = json!(["room:a"]);
    let document = json!({"a": {"uri": uri("up"), "auto_join_channels": channels}});
    let supervisor = up(&fleet, &document);
    let mut events = subscribe(supervisor.bus(), "**");
    for _ in 0..3 {
        fleet.cut("up");
        fleet.advance(15 * SECOND);
    }
    let events = drain(&mut events);
    assert!(events.iter().all(|event| data_of(event)["connection_name"] == "a"));
    let resumed = |event: &&phx_proto::service::CloudEvent| event.kind == "phoenix.channel.resumed";
    assert_eq!(events.iter().filter(resumed).count(), 3);
}

/// Topics that were joined by hand are rejoined after a reconnect. A predecessor forgot them.
#[test]
fn manually_joined_topics_are_rejoined() {
    let fleet = Fleet::new();
    let supervisor = up(&fleet, &json!({"a": {"uri": uri("up")}}));
    let client = supervisor.client("a").expect("it runs");
    let room = run(&fleet, client.join("room:dynamic", json!({}))).expect("joined");
    fleet.cut("up");
    fleet.advance(5 * SECOND);
    assert_eq!(room.status(), ChannelStatus::Joined);
}

/// While the server is down, the client waits for it and the status can be read. In a predecessor, a
/// status request before the first connect, or a server that was down at the start, ended every
/// connection.
#[test]
fn server_down_at_start_is_awaited() {
    let fleet = Fleet::new();
    fleet.with_host("down", |host| host.down = true);
    let document = json!({"a": {"uri": uri("down")}, "b": {"uri": uri("up")}});
    let connections =
        Connections::from_json(&json!({ "connections": document }).to_string(), |_| None)
            .expect("a good document");
    let supervisor = fleet.supervisor();
    supervisor.start_configured(connections).expect("free names");
    let status = supervisor.connection_status("a").expect("before anything was polled");
    assert_eq!(status.lifecycle, Lifecycle::Initializing);
    fleet.advance(120 * SECOND);
    assert_eq!(supervisor.connection_status("b").expect("known").lifecycle, Lifecycle::Ready);
    fleet.with_host("down", |host| host.down = false);
    fleet.advance(10 * SECOND);
    assert!(supervisor.health().is_healthy());
}

/// A push has no side effect. A predecessor crashed the client after every push.
#[test]
fn push_has_no_side_effect() {
    let fleet = Fleet::new();
    let supervisor = up(&fleet, &json!({"a": {"uri": uri("up")}}));
    let client = supervisor.client("a").expect("it runs");
    let room = run(&fleet, client.join("room:a", json!({}))).expect("joined");
    for n in 0..10 {
        run(&fleet, room.cast("note", json!({ "n": n }))).expect("written");
    }
    let notes = fleet.with_host("up", |host| {
        host.received.iter().filter(|message| message[3] == "note").count()
    });
    let status = supervisor.connection_status("a").expect("known");
    assert_eq!((notes, status.lifecycle, status.restarts), (10, Lifecycle::Ready, 0));
}

/// A reply reaches its caller, and a push without a reply is forgotten after its timeout. A
/// predecessor dropped replies, and kept pushes without a reply forever.
#[test]
fn reply_reaches_its_caller() {
    let fleet = Fleet::new();
    let supervisor = up(&fleet, &json!({"a": {"uri": uri("up"), "push_timeout_msec": 1000}}));
    let client = supervisor.client("a").expect("it runs");
    let room = run(&fleet, client.join("room:a", json!({}))).expect("joined");
    let answered = run(&fleet, async {
        let mut push = core::pin::pin!(room.push("ask", json!({})));
        let mut answered = false;
        core::future::poll_fn(|cx| {
            let ask = fleet.with_host("up", |host| {
                host.received.iter().rfind(|message| message[3] == "ask").cloned()
            });
            if let (Some(ask), false) = (ask, answered) {
                answered = true;
                let body = json!({"status": "ok", "response": {"n": 7}});
                fleet.server_sends("up", &json!([ask[0], ask[1], ask[2], "phx_reply", body]));
            }
            push.as_mut().poll(cx)
        })
        .await
    });
    let reply = answered.expect("a reply").ok().expect("ok");
    assert_eq!(reply.to_value().expect("JSON"), json!({"n": 7}));
    assert!(run(&fleet, room.push("unanswered", json!({}))).is_err());
    let stats = client.stats();
    assert_eq!((stats.pushes_in_flight, stats.queued_pushes), (0, 0));
}

/// A connection that has spent its retries is not restarted. A predecessor restarted it at once,
/// forever.
#[test]
fn spent_retries_are_final() {
    let fleet = Fleet::new();
    fleet.with_host("down", |host| host.down = true);
    let supervisor = up(&fleet, &json!({"a": {"uri": uri("down"), "max_retries": 3}}));
    fleet.advance(3_600 * SECOND);
    assert_eq!(fleet.dials("down"), 4);
    let status = supervisor.connection_status("a").expect("known");
    assert!(matches!(status.state, SupervisedState::Ended { .. }));
    assert_eq!((status.lifecycle, status.restarts), (Lifecycle::Terminated, 0));
}

/// The intervals and schedules of the document are used. A predecessor ignored both.
#[test]
fn configured_intervals_are_used() {
    let fleet = Fleet::new();
    let _supervisor = up(
        &fleet,
        &json!({"a": {
            "uri": uri("up"), "heartbeat_interval_msec": 1000, "heartbeat_timeout_msec": 500,
            "first_retry_spread_msec": [7000, 7000], "vsn": "1.0.0",
        }}),
    );
    let target = fleet.with_host("up", |host| host.requests[0].uri.target());
    assert!(target.contains("vsn=1.0.0"), "{target}");
    // The fleet's servers answer only vsn 2. They do not answer vsn 1, so the heartbeat times out.
    fleet.with_host("up", |host| host.silent = true);
    fleet.advance(2 * SECOND);
    let beats = fleet.with_host("up", |host| {
        host.received.iter().filter(|message| message["event"] == "heartbeat").count()
    });
    assert_eq!(beats, 1, "within the first second");
    fleet.advance(4 * SECOND);
    assert_eq!(fleet.dials("up"), 1, "not before seven seconds have passed");
    fleet.advance(5 * SECOND);
    assert_eq!(fleet.dials("up"), 2);
}

/// A crashed channel is joined again, a closed one ends, and events report both. In a predecessor a
/// crashed channel stayed closed, and a closed one stayed listed.
#[test]
fn crashed_channel_rejoins_closed_one_ends() {
    let fleet = Fleet::new();
    let channels = json!(["room:a", "room:b"]);
    let document = json!({"a": {"uri": uri("up"), "auto_join_channels": channels}});
    let supervisor = up(&fleet, &document);
    let mut events = subscribe(supervisor.bus(), "jido.protocol.phoenix.a.*");
    let join_ref = |topic: &str| {
        fleet.with_host("up", |host| {
            let join = |message: &&Value| message[3] == "phx_join";
            let mut joins = host.received.iter().filter(join);
            joins.rfind(|join| join[2] == topic).expect("a join")[0].clone()
        })
    };
    let (a, b) = (join_ref("room:a"), join_ref("room:b"));
    fleet.server_sends("up", &json!([a, a, "room:a", "phx_error", {}]));
    fleet.server_sends("up", &json!([b, b, "room:b", "phx_close", {}]));
    fleet.advance(5 * SECOND);
    assert_eq!(
        types(&mut events),
        [
            "phoenix.channel.errored",
            "phoenix.channel.interrupted",
            "phoenix.channel.closed",
            "phoenix.channel.resumed",
        ]
    );
    let client = supervisor.client("a").expect("it runs");
    assert!(client.channel("room:a").is_ok());
    assert!(client.channel("room:b").is_err(), "it is listed no more");
}

/// A payload may be any JSON value. A predecessor crashed on a payload that was not a map.
#[test]
fn payload_may_be_any_json() {
    let fleet = Fleet::new();
    let channels = json!(["room:a"]);
    let document = json!({"a": {"uri": uri("up"), "auto_join_channels": channels}});
    let supervisor = up(&fleet, &document);
    let mut events = subscribe(supervisor.bus(), "jido.signal.phoenix.a.**");
    for payload in [json!([1]), json!("text"), json!(7), json!(null), json!({})] {
        fleet.server_sends("up", &json!([null, null, "room:a", "msg", payload]));
        let seen = drain(&mut events);
        assert_eq!((seen.len(), &data_of(&seen[0])["payload"]), (1, &payload));
    }
}

/// Payloads are passed on as text, so numbers are not rounded (supabase/supabase-js#1270).
#[test]
fn numbers_pass_through_exactly() {
    let fleet = Fleet::new();
    let channels = json!(["room:a"]);
    let document = json!({"a": {"uri": uri("up"), "auto_join_channels": channels}});
    let supervisor = up(&fleet, &document);
    let mut events = subscribe(supervisor.bus(), "jido.signal.phoenix.a.**");
    let payload = r#"{"n":[1.0,-0,1E5,1e400,0.1000000000000000055511,10000000000000000000001]}"#;
    fleet.sends("up", format!(r#"[null,null,"room:a","msg",{payload}]"#).into());
    let event = drain(&mut events).remove(0);
    assert_eq!(event.data.get("payload").expect("a payload").get(), payload);
    let line = serde_json::to_string(&event).expect("it is JSON");
    assert!(line.contains(&format!(r#""payload":{payload}"#)), "{line}");
}

/// The status contains the join response, like the signal. A predecessor did not store the response
/// in the status, and the two disagreed.
#[test]
fn join_response_is_kept_in_status() {
    let fleet = Fleet::new();
    fleet.with_host("up", |host| host.down = true);
    let channels = json!(["room:a"]);
    let document = json!({"a": {"uri": uri("up"), "auto_join_channels": channels}});
    let supervisor = up(&fleet, &document);
    let mut events = subscribe(supervisor.bus(), "**");
    fleet.advance(SECOND);
    let last = drain(&mut events).pop().expect("an event");
    assert_eq!(data_of(&last)["state"], "connect_failed");
    let status = supervisor.connection_status("a").expect("known");
    assert!(matches!(status.state, SupervisedState::Running(Status::Waiting { .. })));
    assert!(matches!(status.last_cause, Some(Cause::Dial { .. })));
    fleet.with_host("up", |host| host.down = false);
    fleet.advance(10 * SECOND);
    let joined = drain(&mut events).pop().expect("an event");
    assert_eq!(data_of(&joined)["response"], json!({"about": "room:a"}));
    let room = supervisor.client("a").expect("it runs").channel("room:a").expect("wanted");
    let response = room.join_response().expect("joined").to_value().expect("JSON");
    assert_eq!(response, json!({"about": "room:a"}));
}

/// The list contains the names and the actual health. In a predecessor it had no names, and the
/// health was always good.
#[test]
fn list_has_names_and_true_health() {
    let fleet = Fleet::new();
    fleet.with_host("down", |host| host.down = true);
    let supervisor = up(&fleet, &json!({"a": {"uri": uri("up")}, "b": {"uri": uri("down")}}));
    assert_eq!(supervisor.list_connections(), ["a", "b"]);
    let health = supervisor.health();
    assert_eq!((health.ready(), health.is_healthy()), (1, false));
    assert_eq!(health.connections["b"].lifecycle, Lifecycle::Initializing);
}

/// Configured connections start, in every form of the configuration. A predecessor did not start
/// them, and accepted only some forms.
#[test]
fn configured_connections_start_in_every_notation() {
    let fleet = Fleet::new();
    let supervisor = up(
        &fleet,
        &json!({
            "a": {"uri": uri("one"), "auto_join_channels": ["x"], "headers": [["X-A", "1"]]},
            "b": {"uri": uri("two"), "auto_join_channels": {"x": {}}, "headers": {"X-A": "1"}},
            "c": {"uri": uri("three"), "auto_join_channels": [["x", {}]]},
        }),
    );
    assert!(supervisor.health().is_healthy());
    for host in ["one", "two", "three"] {
        assert_eq!(fleet.with_host(host, |host| host.received[0][2].clone()), "x");
    }
}

/// A missing secret is an error, and a secret is never printed. In a predecessor, missing secrets
/// became empty strings, and set ones were printed.
#[test]
fn secret_is_required_and_never_printed() {
    let text = json!({"connections": {"a": {
        "uri": "wss://up/socket/websocket?key=${TOKEN}",
        "headers": {"X-Key": "${TOKEN}"}, "params": {"token": "${TOKEN}"},
        "auth_token": "${TOKEN}", "auto_join_channels": {"room:a": {"token": "${TOKEN}"}},
    }}})
    .to_string();
    assert!(Connections::from_json(&text, |_| None).is_err());
    assert!(Connections::from_json(&text, |_| Some(String::new())).is_err());

    let environment = |_: &str| Some("s3cret".to_owned());
    let connections = Connections::from_json(&text, environment).expect("a good document");
    let mut shown = format!("{connections:?} {connections:#?}");
    let fleet = Fleet::new();
    // The server refuses, closes, crashes and rejects, so that every kind of error occurs.
    fleet.with_host("up", |host| host.status = Some(403));
    let supervisor = fleet.supervisor();
    let mut events = subscribe(supervisor.bus(), "**");
    supervisor.start_configured(connections).expect("free names");
    fleet.advance(10 * SECOND);
    shown += &format!("{:?}", supervisor.connection_status("a"));
    fleet.with_host("up", |host| {
        host.status = None;
        host.rejects.push("room:a".to_owned());
    });
    fleet.advance(60 * SECOND);
    fleet.cut("up");
    fleet.advance(10 * SECOND);
    shown += &format!("{:?} {supervisor:?}", supervisor.health());
    let client = supervisor.client("a").expect("it runs");
    shown += &format!("{client:?} {:?} {:?}", client.status(), client.stats());
    let request = fleet.with_host("up", |host| host.requests.clone());
    shown += &format!("{request:?}");
    for event in drain(&mut events) {
        shown += &format!("{event:?} {}", serde_json::to_string(&event).expect("JSON"));
    }
    assert!(fleet.with_host("up", |host| host.received.len()) > 1, "it did connect");
    assert!(!shown.contains("s3cret"));
    let sent = fleet.with_host("up", |host| host.requests[0].uri.target());
    assert!(sent.contains("token=s3cret"), "and the server does get it");
}
