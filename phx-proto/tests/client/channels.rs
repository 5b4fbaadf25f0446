//! Handles of channels: joins that are shared, leaves, drops, and use from many threads.

use core::pin::pin;
use std::sync::Arc;

use crate::bench::{Bench, next, poll, ready};
use crate::hand::secs;
use phx_proto::client::{ChannelEvent, Client, JoinFailed, Left, StreamEnd};
use phx_proto::event::LeaveOutcome;
use phx_proto::{ChannelStatus, Socket};
use serde_json::json;

/// If the server never answers a leave, the outcome of the leave shows it. Reported in
/// phoenixframework/phoenix#6792 and phoenixframework/phoenix#2047.
#[test]
fn leave_resolves_with_the_server_answer() {
    type End = fn(&mut Bench);
    let answered = |bench: &mut Bench| {
        bench.reply("ok", json!({}));
    };
    let cut = |bench: &mut Bench| bench.cut();
    let late = |bench: &mut Bench| bench.advance(secs(10));
    let ends: [(End, LeaveOutcome); 3] = [
        (answered, LeaveOutcome::Acked),
        (cut, LeaveOutcome::Offline),
        (late, LeaveOutcome::TimedOut),
    ];
    for (end, outcome) in ends {
        let mut bench = Bench::new(|config| config);
        let room = bench.joined("room:lobby");
        let mut leave = pin!(room.leave());
        assert!(poll(leave.as_mut()).is_pending());
        bench.settle();
        assert_eq!(bench.last_sent()[3], "phx_leave");
        assert!(poll(leave.as_mut()).is_pending(), "not before {outcome:?}");
        end(&mut bench);
        assert_eq!(ready(leave.as_mut()), Left::Left(outcome));
    }
}

/// Two parts of an application use one topic: they share its join, and the last handle leaves it.
/// Reported in supabase/supabase#12467 and phoenixframework/phoenix#3171.
#[test]
fn handles_share_a_join_until_last_leaves() {
    let mut bench = Bench::new(|config| config);
    let first = bench.joined("room:lobby");
    let client = bench.client.clone();
    let mut join = pin!(client.join("room:lobby", json!({})));
    let second = ready(join.as_mut()).expect("joined already");
    let mut other = pin!(client.join("room:lobby", json!({"other": 1})));
    assert!(matches!(ready(other.as_mut()), Err(JoinFailed::NotAccepted(_))));
    drop(first);
    bench.settle();
    assert_eq!(bench.memory.world().to_server.len(), 1, "one join, no leave");
    let mut messages = second.messages();
    bench.server_sends(&json!([null, null, "room:lobby", "msg", {}]));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Message(_))));
    drop((second, messages));
    bench.settle();
    assert_eq!(bench.last_sent()[3], "phx_leave");
}

/// Handles can be used from many threads. One owner has the state, and no callback runs in the middle
/// of a change. Reported in davidstump/SwiftPhoenixClient#188 and dsrees/JavaPhoenixClient#22.
#[test]
#[allow(clippy::disallowed_methods, reason = "threads are what this is about")]
fn handles_work_from_many_threads() {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<Socket>();
    is_shared::<Client>();
    is_shared::<phx_proto::client::Channel>();

    let mut bench = Bench::new(|config| config);
    let room = Arc::new(bench.joined("room:lobby"));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (room, client) = (Arc::clone(&room), bench.client.clone());
            std::thread::spawn(move || {
                for _ in 0..200 {
                    let mut cast = pin!(room.cast("note", json!({})));
                    let _ = poll(cast.as_mut());
                    let _ = client.probe();
                    drop(client.channel("room:lobby").expect("it is wanted"));
                    drop(room.messages());
                }
            })
        })
        .collect();
    // The driver runs while the other threads use their handles.
    for _ in 0..10_000_000 {
        bench.settle();
        if threads.iter().all(std::thread::JoinHandle::is_finished) {
            break;
        }
    }
    assert!(threads.iter().all(std::thread::JoinHandle::is_finished), "no deadlock");
    for thread in threads {
        thread.join().expect("no panic");
    }
    bench.settle();
    let stats = bench.client.stats();
    assert_eq!((stats.queued_pushes, stats.pushes_in_flight), (0, 0));
    assert_eq!(room.status(), ChannelStatus::Joined);
}

/// A consumer that panics, or that never reads, does not affect other consumers.
#[test]
fn failed_consumer_blocks_no_other_consumer() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let mut well = room.messages();
    let _silent = room.messages();
    let doomed = room.messages();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _mine = doomed;
        panic!("the consumer's own bug")
    }));
    assert!(panicked.is_err());
    bench.server_sends(&json!([null, null, "room:lobby", "msg", {}]));
    assert!(matches!(next(&mut well), Some(ChannelEvent::Message(_))));
}

/// A dropped push is withdrawn, and a dropped leave continues, as the documentation of each future
/// states. Reported in phoenixframework/phoenix_live_view#1937 and phoenixframework/phoenix#3827.
#[test]
fn dropped_push_withdraws_dropped_leave_continues() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    // A push that was dropped before it was written is never written.
    bench.memory.world().blocked = true;
    {
        let mut push = pin!(room.push("withdrawn", json!({})));
        assert!(poll(push.as_mut()).is_pending());
        bench.settle();
    }
    bench.memory.world().blocked = false;
    bench.settle();
    assert_eq!(bench.last_sent()[3], "phx_join");
    assert_eq!(bench.client.stats().queued_pushes, 0);
    // A push that was dropped after it was written has a reply without a waiter.
    {
        let mut push = pin!(room.push("forgotten", json!({})));
        assert!(poll(push.as_mut()).is_pending());
        bench.settle();
    }
    assert_eq!(bench.last_sent()[3], "forgotten");
    bench.reply("ok", json!({}));
    let stats = bench.client.stats();
    assert_eq!((stats.pushes_in_flight, stats.late_replies), (0, 1));
    // That reply does not answer the next push.
    {
        let mut push = pin!(room.push("kept", json!({})));
        assert!(poll(push.as_mut()).is_pending());
        bench.settle();
        bench.reply("ok", json!({"n": 1}));
        assert!(ready(push.as_mut()).expect("a reply").is_ok());
    }
    // A leave whose future was dropped still leaves the channel.
    {
        let mut leave = pin!(room.leave());
        assert!(poll(leave.as_mut()).is_pending());
    }
    bench.settle();
    assert_eq!(bench.last_sent()[3], "phx_leave");
    bench.reply("ok", json!({}));
    assert!(bench.client.channel("room:lobby").is_err());
}

/// Handles may be dropped in any order, also after the driver. A drop is one command and waits for
/// nothing. Reported in liveview-native/phoenix-channels-client#156.
#[test]
fn handles_may_be_dropped_in_any_order() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let messages = room.messages();
    let presence = room.presence();
    let clone = room.clone();
    let mut push = Box::pin(async move { clone.push("ask", json!({})).await.is_ok() });
    assert!(poll(push.as_mut()).is_pending());
    bench.settle();
    drop(room);
    drop(push);
    drop(presence);
    bench.settle();
    assert_ne!(bench.last_sent()[3], "phx_leave", "the stream keeps it joined");
    drop(messages);
    bench.settle();
    assert_eq!(bench.last_sent()[3], "phx_leave");
    bench.reply("ok", json!({}));

    let room = bench.joined("room:b");
    let mut messages = room.messages();
    let Bench { client, driver, .. } = bench;
    drop(driver);
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Closed(StreamEnd::Channel(_)))));
    drop(room);
    drop(messages);
    drop(client);
}
