//! Scenarios with the fault proxy: connections that are half open, stalled, slow, or cut.

use core::time::Duration;

use phx_tests::fault_proxy::{Manner, Way};
use serde_json::json;

use super::super::stage::{Stage, harmless, until};
use super::{echoes, interrupted, json_of, ok, resumed};
use crate::rt::phx::event::{Cause, Interruption, PushOptions};
use crate::rt::phx::socket::ChannelStatus;
use crate::rt::phx::{ChannelEvent, Client, Payload};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// More than the heartbeat interval, and more than the heartbeat timeout.
const LEAP: Duration = Duration::from_secs(61);

/// Advances the clock until the client gives up its connection because of an unanswered heartbeat.
async fn advance_until_lost(stage: &Stage, client: &Client) {
    let before = client.stats().lost_connections;
    until("the dead peer is noticed", || {
        let is_lost = client.stats().lost_connections > before;
        if !is_lost {
            stage.clock().leap(LEAP);
        }
        is_lost
    })
    .await;
}

/// If a direction of the connection discards or stalls bytes, the connection ends with a heartbeat
/// timeout (firezone/firezone#2916).
pub(in super::super) async fn half_open_and_stalled(stage: &mut Stage) {
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let mut messages = room.messages();
    for manner in [Manner::Swallow, Manner::Stall] {
        for way in [Way::Up, Way::Down] {
            stage.proxy().treat_live(way, manner);
            advance_until_lost(stage, &client).await;
            let cause = interrupted(&mut messages).await;
            let expected = Interruption::Disconnected(Cause::HeartbeatTimeout);
            assert_eq!(cause, expected, "{manner:?} {way:?}");
            resumed(&mut messages).await;
            echoes(&room, json!({"after": format!("{manner:?} {way:?}")})).await;
        }
    }
    // The peer stops reading while the client has many bytes to send.
    stage.proxy().treat_live(Way::Up, Manner::Stall);
    let large = Payload::binary(vec![7; 1 << 20]);
    for _ in 0..6 {
        // The queue is bounded, so the last of these pushes may be refused.
        let push = room.cast_with("ack", large.clone(), PushOptions::cast().timeout(MS(50)));
        let _ = push.await;
    }
    advance_until_lost(stage, &client).await;
    let cause = interrupted(&mut messages).await;
    assert_eq!(cause, Interruption::Disconnected(Cause::HeartbeatTimeout));
    resumed(&mut messages).await;
    echoes(&room, json!({})).await;
}

/// Echoes over a slow link, before and after a reset.
pub(in super::super) async fn slow_link(stage: &mut Stage) {
    let slow = Manner::Slow { bytes: 50, every: MS(1) };
    stage.proxy().treat_new(slow, slow);
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let mut messages = room.messages();
    echoes(&room, json!({"text": "x".repeat(5_000)})).await;
    let reply = ok(&room, "echo", Payload::binary(vec![1; 5_000])).await;
    assert_eq!(reply.as_bytes(), [1; 5_000]);
    // After a reset the client reconnects over the slow link.
    stage.proxy().reset();
    interrupted(&mut messages).await;
    resumed(&mut messages).await;
    echoes(&room, json!({})).await;
}

/// The connection is cut after every eleventh byte of the upgrade, the join and a push.
pub(in super::super) async fn cut_anywhere(stage: &mut Stage) {
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    // The cuts cover the answer to the upgrade, the reply to the join and the reply to a push.
    let first = 1 + stage.rng().below(11);
    for bytes in (first..=400).step_by(11) {
        let before = stage.proxy().accepted();
        stage.proxy().cut_next_after(bytes);
        assert_eq!(stage.proxy().cut(), 1);
        let mut pushes = 0;
        // Every reply adds bytes from the server, so the cut is reached.
        while stage.proxy().accepted() < before + 2 {
            let _ = room.push("echo", json!({"bytes": bytes})).await;
            pushes += 1;
            assert!(pushes < 100, "it is never cut after {bytes} bytes");
        }
        echoes(&room, json!({"bytes": bytes})).await;
        until("one connection is left", || stage.proxy().live() == 1).await;
    }
    assert_eq!(stage.drivers(), 1);
}

/// Thirty rounds of random faults, after which everything works again.
pub(in super::super) async fn random_faults(stage: &mut Stage) {
    let client = stage.connect().await;
    let mut rooms = Vec::new();
    for suffix in ["-a", "-b", "-c"] {
        rooms.push(client.join(stage.topic("room", suffix), json!({})).await.unwrap());
    }
    let mut messages = rooms[0].messages();
    for round in 0..30 {
        let rng = stage.rng();
        let way = if rng.below(2) == 0 { Way::Up } else { Way::Down };
        let (fault, (up, down)) = (rng.below(7), harmless(rng));
        let after = 1 + rng.below(600);
        let leaps = rng.below(4);
        println!("{round}: fault {fault} {way:?}, then {up:?} and {down:?}, {leaps} leaps");
        let proxy = stage.proxy();
        proxy.treat_new(up, down);
        match fault {
            0 => drop(proxy.cut()),
            1 => drop(proxy.reset()),
            2 => proxy.treat_live(way, Manner::Swallow),
            3 => proxy.treat_live(way, Manner::Stall),
            4 => proxy.treat_live(way, Manner::Slow { bytes: 20, every: MS(1) }),
            5 => proxy.cut_next_after(after),
            _ => proxy.treat_new(Manner::Stall, Manner::Whole),
        }
        // Every push ends before its timeout.
        let short = PushOptions::call().timeout(MS(60));
        for room in &rooms {
            let _ = room.push_with("echo", json!({"round": round}), short).await;
        }
        // Time for a heartbeat and its timeout, so that a dead connection is noticed, and for the
        // timeout of a stalled attempt.
        for _ in 0..leaps {
            stage.clock().leap(LEAP);
        }
    }
    // Safety: no task has panicked. Liveness: when the faults stop, everything works again.
    let proxy = stage.proxy();
    proxy.treat_new(Manner::Whole, Manner::Whole);
    // The fault of the last `cut_next_after` may still be pending, because no connection was opened
    // since.
    proxy.cut_next_after(usize::MAX);
    proxy.reset();
    for room in &rooms {
        until("it is joined", || room.status() == ChannelStatus::Joined).await;
        // The client may not have noticed the reset yet. Then the first push is lost with the old
        // connection.
        let _ = room.push("echo", json!({})).await;
        echoes(room, json!({"works": "again"})).await;
    }
    let stats = client.stats();
    assert_eq!((stats.queued_pushes, stats.pushes_in_flight, stats.queued_bytes), (0, 0, 0));
    assert_eq!(stats.protocol_errors, 0);
    // The consumer received interruptions and resumptions alternately.
    ok(&rooms[0], "shout", json!({"last": true})).await;
    let mut joined = true;
    loop {
        match messages.next().await.expect("the stream is open") {
            ChannelEvent::Interrupted { .. } => joined = false,
            ChannelEvent::Resumed { .. } => {
                assert!(!joined, "resumed without an interruption");
                joined = true;
            }
            ChannelEvent::Message(message) => {
                assert_eq!(json_of(message.payload()), json!({"last": true}));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(joined);
}
