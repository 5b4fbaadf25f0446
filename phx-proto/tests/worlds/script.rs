//! A server played by the test, for programs that use the async handles.

use std::time::Duration;

use phx_proto::client::{Client, ClientEvent, JoinFailed};
use phx_proto::testing::{Running, Script};
use phx_proto::wire::V1;
use phx_proto::{Config, Signal};
use serde_json::json;

#[allow(unreachable_pub, reason = "a program of its own")]
#[path = "../../examples/simulate_own_client.rs"]
mod simulate_own_client;

#[test]
fn example_simulate_own_client_runs() {
    simulate_own_client::main();
}

fn config() -> Config {
    Config::new("ws://localhost:4000/socket/websocket").expect("a good URI")
}

/// A program that joins, pushes `hello`, leaves and disconnects. Returns the status of the reply, or
/// the error.
async fn polite(client: Client) -> Result<String, JoinFailed> {
    let room = client.join("room:lobby", json!({"user": 7})).await?;
    let status = match room.push("hello", json!({"n": 1})).await {
        Ok(reply) => reply.status.to_string(),
        Err(failed) => failed.to_string(),
    };
    room.leave().await;
    client.disconnect().await;
    Ok(status)
}

fn polite_on(script: &Script, config: Config) -> Running<Result<String, JoinFailed>> {
    script.spawn(polite(script.client(config)))
}

/// A join, a push, a leave and a disconnect, in both versions of the protocol.
#[test]
fn verbs_observe_an_ordinary_session() {
    for config in
        [config(), config().codec(std::sync::Arc::new(V1)).expect("no vsn in the address")]
    {
        let script = Script::new();
        let running = polite_on(&script, config.param("token", "s3cret"));
        let request = script.accept_connect();
        assert!(request.uri.target().contains("token=s3cret"));
        let join = script.assert_join("room:lobby");
        assert_eq!(join.json(), json!({"user": 7}));
        script.refute_push("room:lobby", "hello");
        script.reply(&join, "ok", json!({}));
        let hello = script.assert_push("room:lobby", "hello");
        script.refute_leave("room:lobby");
        script.reply(&hello, "fine", json!({"n": 1}));
        let leave = script.assert_leave("room:lobby");
        script.reply(&leave, "ok", json!({}));
        script.assert_disconnect();
        assert_eq!(script.finish(running), Ok("fine".to_owned()));
        script.refute_connect();
        assert!(!script.log().contains("s3cret"), "{}", script.log());
    }
}

/// Only the parameter `vsn` selects the version, not one whose name ends in the same way.
#[test]
fn other_parameter_does_not_select_version() {
    let script = Script::new();
    let running = polite_on(&script, config().param("app_vsn", "1.4"));
    let join = script.connect_and_assert_join("room:lobby");
    assert_eq!(join.json(), json!({"user": 7}));
    let hello = script.assert_push("room:lobby", "hello");
    script.reply(&hello, "ok", json!({}));
    let leave = script.assert_leave("room:lobby");
    script.reply(&leave, "ok", json!({}));
    assert_eq!(script.finish(running), Ok("ok".to_owned()));
}

/// The script selects the subprotocol `phoenix`, as Phoenix 1.8 does (`wire/handshake_auth_token`).
#[test]
fn script_acknowledges_auth_token() {
    let script = Script::new();
    let client = script.client(config().auth_token("t0ken"));
    let mut signals = client.signals();
    let seen = script.spawn(async move {
        let mut seen = Vec::new();
        while let Some(ClientEvent::Signal(signal)) = signals.next().await {
            seen.push(signal.name());
            if signal == Signal::Closed {
                break;
            }
        }
        seen
    });
    assert_eq!(script.accept_connect().auth_token().as_deref(), Some("t0ken"));
    let disconnected = script.spawn(async move { client.disconnect().await });
    script.finish(disconnected);
    assert_eq!(script.finish(seen), ["connected", "disconnected", "closed"]);
}

#[test]
fn refusal_crash_and_close_reach_program() {
    let script = Script::new();
    let running = polite_on(&script, config());
    script.accept_connect();
    let join = script.assert_join("room:lobby");
    script.reply(&join, "error", json!({"reason": "full"}));
    let refused = script.finish(running).expect_err("the join was refused");
    assert!(refused.to_string().contains("refused"), "{refused}");

    let script = Script::new();
    let running = polite_on(&script, config());
    script.connect_and_assert_join("room:lobby");
    script.assert_push("room:lobby", "hello");
    script.crash_channel("room:lobby");
    // The program leaves at once. After the crash, no channel is left to rejoin or to leave.
    script.refute_join("room:lobby");
    script.refute_leave("room:lobby");
    assert!(script.finish(running).expect("joined").contains("crashed on the server"));
}

/// A virtual hour with reconnects and heartbeats passes without waiting.
#[test]
fn virtual_hour_passes_at_once() {
    let script = Script::new();
    let client = script.client(config());
    script.accept_connect();
    script.advance(Duration::from_secs(3_600));
    assert_eq!(client.stats().frames_out, 120, "a heartbeat every half minute");
    assert_eq!(script.log().lines().count(), 3, "the log sums up heartbeats:\n{}", script.log());
    for code in [1000, 1012] {
        script.close(code);
        script.accept_connect();
    }
    script.disconnect();
    script.accept_connect();
    assert_eq!(client.stats().connections, 4);
}

/// A program sleeps in virtual time, and then drops its client, which disconnects.
#[test]
fn program_sleeps_in_virtual_time() {
    let script = Script::new();
    let (client, runtime) = (script.client(config()), script.runtime());
    let running = script.spawn(async move {
        runtime.sleep(Duration::from_secs(30)).await;
        drop(client);
    });
    script.accept_connect();
    script.advance(Duration::from_secs(29));
    assert!(!running.is_finished());
    script.finish(running);
    script.assert_disconnect();
}

/// The message of the panic that the test expects.
fn message_of(fails: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let panic = std::panic::catch_unwind(fails).expect_err("it should fail");
    panic.downcast_ref::<String>().cloned().expect("a message")
}

/// The parts of a request have names, so a test of tokens needs no parser.
#[test]
fn connect_request_has_params_headers_and_token() {
    let script = Script::new();
    let config = config()
        .param("device", "7 & ü")
        .header("X-Api-Key", "k3y")
        .expect("a header")
        .auth_token("t0ken/+");
    let client = script.client(config);
    for request in [script.refuse_connect(503), script.accept_connect()] {
        assert_eq!(request.param("device").as_deref(), Some("7 & ü"));
        assert_eq!(request.param("vsn").as_deref(), Some("2.0.0"));
        assert_eq!(request.param("token"), None);
        assert_eq!(request.header("x-api-key"), Some("k3y"));
        assert_eq!(request.header("x-api"), None);
        assert_eq!(request.auth_token().as_deref(), Some("t0ken/+"));
    }
    drop(client);
    let script = Script::new();
    let _client = script.client(self::config());
    assert_eq!(script.accept_connect().auth_token(), None);
}

#[test]
fn failed_assertion_shows_what_happened() {
    let message = message_of(|| {
        let script = Script::new().time_limit(Duration::from_secs(5));
        let _running = polite_on(&script, config());
        script.connect_and_assert_join("room:lobby");
        script.assert_push("room:lobby", "goodbye");
    });
    assert!(message.contains("expected a goodbye of \"room:lobby\" within 5s"), "{message}");
    assert!(message.contains("`script.settled().await`"), "{message}");
    assert!(
        message.contains("client: [\"1\",\"2\",\"room:lobby\",\"hello\",{\"n\":1}]"),
        "{message}"
    );
}

#[test]
fn failed_refutation_shows_what_happened() {
    let message = message_of(|| {
        let script = Script::new();
        let _running = polite_on(&script, config());
        script.accept_connect();
        script.refute_join("room:lobby");
    });
    assert!(message.contains("unexpected: a phx_join of \"room:lobby\""), "{message}");
    assert!(message.contains("client: dials ws://localhost:4000"), "{message}");
}

#[test]
fn script_without_connection_or_channel_panics() {
    let script = Script::new();
    let _client = script.client(config());
    let silent = script.clone();
    let message = message_of(std::panic::AssertUnwindSafe(move || silent.disconnect()));
    assert!(message.contains("there is no connection"), "{message}");
    script.accept_connect();
    let message = message_of(std::panic::AssertUnwindSafe(move || {
        script.push("room:lobby", "hello", json!({}));
    }));
    assert!(message.contains("\"room:lobby\" is not joined"), "{message}");
}
