//! The official client against our server: `testing::Server` on a loopback port, in the manner of
//! each Phoenix version. The scenarios are in `tests/peers/client.mjs`; what they need done to the
//! server they ask for, and it is done here.
//!
//! So our server is one that the official client accepts, and what our own client is tested
//! against is not a mistake that both of ours make.

use core::time::Duration;

use phx_proto::Time;
use phx_tests::peers::{Script, available};
use phx_tests::ports::{Reserved, start_again};
use phx_tests::waiting::DEADLINE;
use phx_tokio::testing::{HttpRefusal, Listener, ServerConfig, Version};
use serde_json::{Value, json};

/// How long a scenario may say nothing. Its own deadline is shorter, so that it says what it
/// waited for.
const SILENCE_MAX: Duration = DEADLINE.saturating_mul(2);
/// How many things a scenario may ask for.
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
    // The server goes on in its own threads while this one waits for the script.
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
        let Some(asked) = node.hear(SILENCE_MAX) else { break };
        if asked["ask"] == "end" {
            break;
        }
        let answer = runtime.block_on(perform(&mut server, &asked));
        node.say(&json!({ "answer": answer }));
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
            // It listens until its connections have ended, and accepts no connection.
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
    the_official_client_joins_and_is_told_why_it_may_not: "joins";
    the_official_client_pushes_and_gets_every_kind_of_reply: "pushes";
    the_official_client_hears_broadcasts: "broadcasts";
    the_official_client_pushes_and_hears_binary: "binary";
    /// A channel that crashes is joined again by the client.
    the_official_client_rejoins_what_crashed: "crash";
    the_official_client_follows_presence: "presence";
    the_official_client_leaves_and_joins_again: "leave";
    /// A channel that the server ended in order stays closed.
    the_official_client_stays_out_of_what_the_server_closed: "closes";
    the_official_client_reconnects_after_cuts_kills_and_restarts: "reconnects";
    the_official_client_disconnects_and_connects_again: "disconnects";
    the_official_client_sees_a_refused_upgrade: "refused";
}

/// `wire/idle_timeout_close`: and the one that is silent is closed. The scenario sets the clock of
/// the server ahead by this timeout.
#[test]
fn the_official_clients_heartbeats_keep_its_socket() {
    let config = ServerConfig::default().idle_timeout(Duration::from_secs(3_600));
    play("heartbeat", &EVERY, &config);
}

/// Phoenix 1.7 has no `auth_token`; it names no subprotocol, and JavaScript's WebSocket ends the
/// connection then.
#[test]
fn the_official_clients_auth_token_arrives() {
    play("token", &EVERY[1..], &ServerConfig::default());
}
