//! Scenarios in which connections end: the server is killed or stopped, a user is kicked, the
//! connection is idle, the client shuts down. Channels are joined again, unless the client itself
//! ended the connection.

use core::pin::pin;
use core::time::Duration;

use futures_util::future::{join_all, select};
use phx_tests::waiting::DEADLINE;
use serde_json::json;

use super::super::stage::{Stage, Target, driven_until, signal, until};
use super::{HOUR, echoes, interrupted, json_of, next, next_json, ok, resumed};
use crate::rt::phx::client::{PushFailed, StreamEnd};
use crate::rt::phx::config::DelayRange;
use crate::rt::phx::event::{
    Cause, ChannelEnd, Interruption, NotSentCause, PushOptions, UnknownCause,
};
use crate::rt::phx::socket::Status;
use crate::rt::phx::testing::ServerConfig;
use crate::rt::phx::{ChannelEvent, CloseRule, Messages, Signal};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Waits for an interruption by a lost connection, and returns its cause.
async fn lost(messages: &mut Messages) -> Cause {
    match interrupted(messages).await {
        Interruption::Disconnected(cause) => cause,
        other => panic!("expected a lost connection, got {other:?}"),
    }
}

/// When the transport is killed, pushes end with an unknown outcome, and the channel is joined
/// again with its parameters (supabase/supabase-swift#196).
pub(in super::super) async fn transport_killed(stage: &mut Stage) {
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({"user": 7})).await.unwrap();
    let mut messages = room.messages();
    let (unanswered, killer) = futures_util::join!(
        room.push("noreply", json!({})),
        room.push("kill_transport", json!({})),
    );
    let unknown = Err(PushFailed::Unknown(UnknownCause::Disconnected));
    assert_eq!((&unanswered, &killer), (&unknown, &unknown));
    let cause = lost(&mut messages).await;
    assert!(matches!(cause, Cause::TransportLost { .. }), "{cause:?}");
    assert_eq!(resumed(&mut messages).await["params"], json!({"user": 7}));
    echoes(&room, json!({})).await;
}

/// `Endpoint.broadcast(id, "disconnect", …)` closes the socket, which reconnects.
pub(in super::super) async fn kicked_by_id(stage: &mut Stage) {
    let id = stage.topic("user", "");
    let config = stage.config().param("user_id", id.as_str());
    // By default the client waits up to 2 s before it retries after such a code, because the server
    // closes many clients at once.
    let config = config.close_rule(1000, CloseRule::Retry).close_rule(1001, CloseRule::Retry);
    let kicked = stage.connect_with(config).await.unwrap();
    let kicked = kicked.join(stage.topic("room", ""), json!({})).await.unwrap();
    let mut messages = kicked.messages();
    let other = stage.connect().await;
    let other = other.join(stage.topic("room", ""), json!({})).await.unwrap();
    other.cast("kick", json!({"user_id": id})).await.unwrap();
    let cause = lost(&mut messages).await;
    let Cause::RemoteClose { code: Some(code), .. } = &cause else { panic!("{cause:?}") };
    // Phoenix 1.7 closes with 1000: wire/README, differences by version.
    assert!(*code == 1001 || (*code == 1000 && stage.target() == Target::Phoenix), "{cause:?}");
    resumed(&mut messages).await;
    echoes(&kicked, json!({})).await;
    echoes(&other, json!({})).await;
}

/// After the server was killed and restarted, all channels are joined again
/// (CuatroElixir/slipstream#18). A push in between waits for the restart.
pub(in super::super) async fn kill_and_restart(stage: &mut Stage) {
    let client = stage.connect().await;
    let rooms = join_all(
        ["-a", "-b", "-c"]
            .map(|suffix| client.join(stage.topic("room", suffix), json!({"suffix": suffix}))),
    );
    let rooms: Vec<_> = rooms.await.into_iter().map(Result::unwrap).collect();
    let mut streams: Vec<_> = rooms.iter().map(|room| room.messages()).collect();
    for round in 0..3 {
        stage.server().kill().await;
        for messages in &mut streams {
            lost(messages).await;
        }
        // A push that is made while the server is down waits for the restart.
        let push = ok(&rooms[0], "echo", json!({"round": round}));
        let restart = async {
            until("it retries", || client.stats().failed_attempts > round).await;
            stage.restart().await;
        };
        let (reply, ()) = futures_util::join!(push, restart);
        assert_eq!(json_of(&reply), json!({"round": round}));
        for messages in &mut streams {
            resumed(messages).await;
        }
    }
    assert_eq!(client.stats().lost_connections, 3);
}

/// A server that shuts down closes connections with 1012, and the client reconnects later
/// (phoenixframework/phoenix#4045).
pub(in super::super) async fn server_shutdown(stage: &mut Stage) {
    // During its shutdown the server still listens, so a client that reconnects at once loses its new
    // connection too.
    let later = DelayRange::new(HOUR, HOUR).unwrap();
    let config = stage.config().close_rule(1012, CloseRule::Retry).first_retry_spread(later);
    let client = stage.connect_with(config).await.unwrap();
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let mut messages = room.messages();
    stage.server().shutdown().await;
    // wire/close_graceful_shutdown
    let expected = Cause::RemoteClose { code: Some(1012), reason: String::new() };
    assert_eq!(lost(&mut messages).await, expected);
    stage.restart().await;
    stage.clock().leap(HOUR);
    resumed(&mut messages).await;
    echoes(&room, json!({})).await;
}

/// A hundred lost connections in a row (davidstump/SwiftPhoenixClient#176).
pub(in super::super) async fn hundred_drops(stage: &mut Stage) {
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let mut messages = room.messages();
    for round in 0..100 {
        match stage.target() {
            Target::Faulty if round % 2 == 0 => assert_eq!(stage.proxy().cut(), 1),
            Target::Faulty => assert_eq!(stage.proxy().reset(), 1),
            _ => room.cast("kill_transport", json!({})).await.unwrap(),
        }
        lost(&mut messages).await;
        resumed(&mut messages).await;
        echoes(&room, json!({"round": round})).await;
    }
    let stats = client.stats();
    assert_eq!((stats.lost_connections, stats.connections), (100, 101));
    // Nothing accumulates: there is one driver and one connection.
    assert_eq!(stage.drivers(), 1);
    if stage.target() != Target::Phoenix {
        let server = stage.server();
        until("one connection is left", || server.with(|s, _| s.peers().len()) == 1).await;
    }
}

/// The server closes a silent socket; heartbeats keep the other one open.
pub(in super::super) async fn idle_timeout(stage: &mut Stage) {
    stage.serve(ServerConfig::default().idle_timeout(HOUR)).await;
    let alive = stage.connect_with(stage.config().heartbeat_interval(MS(20))).await.unwrap();
    let room = alive.join(stage.topic("room", ""), json!({})).await.unwrap();
    let silent = stage.config().heartbeat_interval(Duration::ZERO);
    let (silent, mut signals) = stage.start_watched(silent);
    silent.wait_connected().await.unwrap();
    // From now on the server receives nothing from one client and heartbeats from the other. The second
    // heartbeat whose answer the test awaits is sent after `now`, in a later millisecond.
    let server = stage.server();
    let now = server.with(|_, now| now);
    until("a millisecond has passed", || server.with(|_, later| later) > now).await;
    let mut beats = alive.signals();
    for _ in 0..2 {
        let beat = |signal| matches!(signal, Signal::HeartbeatAcked { .. }).then_some(());
        signal(&mut beats, beat).await;
    }
    // The idle timeout passes for clients that sent nothing after `now`, on the server's clock.
    stage.server().with(|server, _| server.handle_timeout(now + HOUR));
    let cause = signal(&mut signals, |signal| match signal {
        Signal::Disconnected { cause, .. } => Some(cause),
        _ => None,
    });
    // wire/idle_timeout_close
    let expected = Cause::RemoteClose { code: Some(1002), reason: String::new() };
    assert_eq!(cause.await, expected);
    silent.wait_connected().await.unwrap();
    echoes(&room, json!({})).await;
    assert_eq!(alive.stats().lost_connections, 0);
}

/// A shutdown waits for the replies of pushes.
pub(in super::super) async fn shutdown_finishes_pushes(stage: &mut Stage) {
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let mut messages = room.messages();
    let pushes = join_all((0..10).map(|n| ok(&room, "slow", json!({"ms": 50, "n": n}))));
    let (replies, unfinished) = futures_util::join!(pushes, client.shutdown(DEADLINE));
    assert_eq!(replies.len(), 10);
    assert!(unfinished.is_empty(), "{unfinished:?}");
    assert_eq!(client.status(), Status::Closed);
    assert_eq!(
        next(&mut messages).await,
        ChannelEvent::Closed(StreamEnd::Channel(ChannelEnd::Left))
    );
    // The client can be connected again.
    client.connect();
    client.wait_connected().await.unwrap();
    client.disconnect().await;
}

/// A shutdown reports the pushes that are unfinished at its deadline.
pub(in super::super) async fn shutdown_reports_unfinished_pushes(stage: &mut Stage) {
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let options = PushOptions::call().timeout(HOUR);
    let mut push = pin!(room.push_with("noreply", json!({}), options));
    driven_until(&mut push, "it is sent", || client.stats().pushes_in_flight == 1).await;
    let (push, unfinished) = futures_util::join!(push, client.shutdown(MS(100)));
    assert_eq!(unfinished.pushes, 1);
    let failed = push.expect_err("it has no reply");
    assert!(matches!(failed, PushFailed::Unknown(_)), "{failed:?}");
    assert_eq!(client.status(), Status::Closed);
}

/// The duration of a join whose handle is dropped meanwhile.
const SLOW: Duration = Duration::from_secs(5);

/// Handles are dropped while idle, during a push, a join and a dial, and with a stream as the last one.
pub(in super::super) async fn dropped_handles(stage: &mut Stage) {
    // Idle.
    drop(stage.connect().await);
    let other = stage.connect().await;
    let other = other.join(stage.topic("room", ""), json!({})).await.unwrap();
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let mut messages = room.messages();
    {
        let slow = json!({"ms": SLOW.as_millis()});
        let mut both = pin!(async {
            let push = pin!(room.push("noreply", json!({})));
            select(push, pin!(client.join(stage.topic("slowjoin", ""), slow))).await;
        });
        driven_until(&mut both, "both are sent", || client.stats().frames_out >= 3).await;
    }
    drop((client, room));
    if stage.target() != Target::Phoenix {
        // The socket is busy with the join until the server's clock has advanced.
        stage.server().with(|server, now| server.handle_timeout(now + SLOW));
    }
    // A stream keeps its connection: it receives messages after the handles are gone.
    ok(&other, "shout", json!({"still": "there"})).await;
    assert_eq!(next_json(&mut messages, "shout").await, json!({"still": "there"}));
    until("the dropped one has ended", || stage.drivers() == 2).await;
    drop(messages);
    drop(stage.start_watched(stage.config()));
    // The end of every scenario checks that nothing is left.
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    client.disconnect().await;
    let push = room.push("echo", json!({})).await;
    let refused = matches!(
        push,
        Err(PushFailed::NotAccepted(_) | PushFailed::NotSent(NotSentCause::Disconnected))
    );
    assert!(refused, "{push:?}");
}
