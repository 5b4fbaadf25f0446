//! The official client, phoenix.js, against `testing::Server` on a loopback port, which behaves like
//! each Phoenix version in turn. The scenarios are in `tests/peers/client.mjs`; they send requests for
//! server operations, which are performed here.
//!
//! The tests show that the official client accepts this server. So a mistake that this client and
//! this server share is detected.

use core::time::Duration;

use phx_proto::Time;
use phx_tests::peers::{Script, available};
use phx_tests::ports::{Reserved, start_again};
use phx_tests::waiting::DEADLINE;
use phx_tokio::testing::{HttpRefusal, Listener, ServerConfig, Version};
use serde_json::{Value, json};

/// How long a scenario may be silent. Its own deadline is shorter, so that it can report the condition
/// it waited for.
const SILENCE_MAX: Duration = DEADLINE.saturating_mul(2);
/// The maximum number of requests of a scenario.
const ASKED_MAX: usize = 10_000;

const EVERY: [Version; 3] = [Version::V1_7_24, Version::V1_8_9, Version::V1_8_12];

fn play(scenario: &str, versions: &[Version], config: &ServerConfig) {
    if !available(scenario) {
        return;
    }
    for version in versions {
        println!("{scenario}: {version:?}");
        play_one(scenario, config.clone().version(*version));
    }
}

fn play_one(scenario: &str, config: ServerConfig) {
    // The server runs in its own threads while this one waits for the script.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let port = Reserved::new();
    let mut server = runtime.block_on(Listener::bind(port.addr(), config)).expect("a port");
    let url = format!("ws://{}/socket", server.addr());
    let mut node = Script::node("client.mjs", &[scenario, &url]);
    for _ in 0..ASKED_MAX {
        let Some(asked) = node.receive(SILENCE_MAX) else { break };
        if asked["ask"] == "end" {
            break;
        }
        let answer = runtime.block_on(perform(&mut server, &asked));
        node.send(&json!({ "answer": answer }));
    }
    let (status, stderr) = node.end(SILENCE_MAX);
    assert!(status.success(), "{scenario}: {status}\n{stderr}");
}

async fn perform(server: &mut Listener, asked: &Value) -> Value {
    let text = |name: &str| asked[name].as_str().unwrap_or_default();
    match text("ask") {
        "joined" => return server.with(|server, _| server.joined(text("topic"))).into(),
        "peers" => return server.with(|server, _| server.peers().len()).into(),
        "now" => return server.with(|_, now| now.as_millis()).into(),
        "reach" => {
            let at = Time::from_millis(asked["at"].as_u64().unwrap_or_default());
            server.with(|server, _| server.handle_timeout(at));
        }
        "broadcast" => server.broadcast(text("topic"), text("event"), asked["payload"].clone()),
        "crash" => server.crash_channel(text("topic")),
        "kill" => server.kill().await,
        "shutdown" => {
            // While the connections end, the listener refuses new ones.
            let refusal = || HttpRefusal::new(503, "stopping");
            server.with(|server, _| (0..100).for_each(|_| server.refuse_next(refusal())));
            server.shutdown().await;
        }
        "restart" => start_again(async || server.restart().await).await.expect("the same port"),
        _ => panic!("unknown: {asked}"),
    }
    Value::Null
}

macro_rules! scenarios {
    ($($(#[$doc:meta])* $test:ident: $scenario:literal;)+) => {$(
        $(#[$doc])*
        #[test]
        fn $test() {
            play($scenario, &EVERY, &ServerConfig::default());
        }
    )+};
}

scenarios! {
    /// The official client also receives the reason of a rejected join.
    official_client_joins: "joins";
    official_client_gets_every_reply_status: "pushes";
    official_client_receives_broadcasts: "broadcasts";
    official_client_exchanges_binary: "binary";
    official_client_rejoins_crashed_channel: "crash";
    official_client_follows_presence: "presence";
    official_client_leaves_and_rejoins: "leave";
    /// A channel that the server closed normally stays closed.
    official_client_leaves_closed_channel_alone: "closes";
    /// The official client reconnects after cuts, kills and restarts.
    official_client_reconnects_after_faults: "reconnects";
    official_client_disconnects_and_reconnects: "disconnects";
    official_client_sees_refused_upgrade: "refused";
}

/// `wire/idle_timeout_close`: the server closes a silent socket after its timeout. The scenario advances
/// the server's clock by that timeout.
#[test]
fn official_client_heartbeats_keep_its_socket() {
    let config = ServerConfig::default().idle_timeout(Duration::from_secs(3_600));
    play("heartbeat", &EVERY, &config);
}

/// Phoenix 1.7 is left out, because it ignores `auth_token` and selects no subprotocol;
/// JavaScript's WebSocket then ends the connection.
#[test]
fn official_client_sends_auth_token() {
    play("token", &EVERY[1..], &ServerConfig::default());
}
