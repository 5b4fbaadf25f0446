//! `Client::shutdown` over a transport in memory.

use core::pin::pin;
use core::time::Duration;

use crate::bench::{Bench, poll, ready};
use phx_proto::Status;
use phx_proto::client::Unfinished;
use serde_json::json;

const GRACE: Duration = Duration::from_secs(5);

/// A shutdown waits for the replies of pushes, then leaves the channels, then closes.
#[test]
fn shutdown_waits_then_leaves_then_closes() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let mut push = pin!(room.push("ask", json!({})));
    assert!(poll(push.as_mut()).is_pending());
    bench.settle();
    let client = bench.client.clone();
    let mut shutdown = pin!(client.shutdown(GRACE));
    assert!(poll(shutdown.as_mut()).is_pending());
    bench.settle();
    assert_eq!(bench.last_sent()[3], "ask", "no leave while a reply is pending");

    bench.reply("ok", json!({}));
    assert!(ready(push.as_mut()).is_ok());
    assert!(poll(shutdown.as_mut()).is_pending());
    bench.settle();
    assert_eq!(bench.last_sent()[3], "phx_leave");
    assert_eq!(bench.client.status(), Status::Open, "no close before the leave is confirmed");

    bench.reply("ok", json!({}));
    assert!(poll(shutdown.as_mut()).is_pending());
    bench.settle();
    assert_eq!(ready(shutdown.as_mut()), Unfinished::default());
    assert_eq!(bench.client.status(), Status::Closed);
}

/// The report lists the work for which the grace period was too short.
#[test]
fn shutdown_reports_unfinished_work() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let mut push = pin!(room.push("ask", json!({})));
    assert!(poll(push.as_mut()).is_pending());
    bench.settle();
    let client = bench.client.clone();
    let mut shutdown = pin!(client.shutdown(GRACE));
    assert!(poll(shutdown.as_mut()).is_pending());
    bench.advance(GRACE - Duration::from_millis(1));
    assert!(poll(shutdown.as_mut()).is_pending());
    bench.advance(Duration::from_millis(1));
    assert!(poll(shutdown.as_mut()).is_pending(), "the close handshake");
    bench.settle();
    let unfinished = ready(shutdown.as_mut());
    assert_eq!((unfinished.pushes, unfinished.leaves.len()), (1, 1));
    assert!(ready(push.as_mut()).is_err(), "it has its outcome all the same");
    assert_eq!(bench.client.status(), Status::Closed);
}

#[test]
fn idle_shutdown_closes_at_once() {
    let mut bench = Bench::new(|config| config);
    let client = bench.client.clone();
    let mut shutdown = pin!(client.shutdown(GRACE));
    assert!(poll(shutdown.as_mut()).is_pending());
    bench.settle();
    assert!(ready(shutdown.as_mut()).is_empty());
}

#[test]
fn offline_shutdown_waits_while_pushes_are_queued() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    bench.cut();
    let mut cast = pin!(room.cast("note", json!({})));
    assert!(poll(cast.as_mut()).is_pending());
    let client = bench.client.clone();
    let mut shutdown = pin!(client.shutdown(GRACE));
    assert!(poll(shutdown.as_mut()).is_pending());
    bench.advance(Duration::from_secs(3));
    bench.reply("ok", json!({}));
    bench.settle();
    assert_eq!(ready(cast.as_mut()), Ok(()));
    assert!(poll(shutdown.as_mut()).is_pending());
    bench.settle();
    assert_eq!(bench.last_sent()[3], "phx_leave");
    bench.reply("ok", json!({}));
    assert!(poll(shutdown.as_mut()).is_pending());
    bench.settle();
    assert!(ready(shutdown.as_mut()).is_empty());
}

/// A push that waits for space in the queue is a push without an outcome. When there is space, the shutdown
/// may be polled before the future of that push.
#[test]
fn shutdown_waits_for_pushes_without_space() {
    let mut bench = Bench::new(|config| config.queued_pushes_max(1));
    let room = bench.joined("room:lobby");
    bench.memory.world().blocked = true;
    bench.settle();
    let mut first = pin!(room.cast("note", json!({"n": 1})));
    let mut second = pin!(room.cast_when_ready("note", json!({"n": 2})));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    let client = bench.client.clone();
    let mut shutdown = pin!(client.shutdown(GRACE));
    assert!(poll(shutdown.as_mut()).is_pending());
    bench.memory.world().blocked = false;
    bench.settle();
    assert_eq!(ready(first.as_mut()), Ok(()));
    assert!(poll(shutdown.as_mut()).is_pending());
    assert!(poll(second.as_mut()).is_pending(), "it is accepted");
    bench.settle();
    assert_eq!(ready(second.as_mut()), Ok(()));
    assert_eq!(bench.last_sent()[4], json!({"n": 2}));
    assert!(poll(shutdown.as_mut()).is_pending());
    bench.settle();
    assert_eq!(bench.last_sent()[3], "phx_leave");
}

/// The channel of a push that waits for space ends, and its future is not polled. There is nothing to wait
/// for.
#[test]
fn shutdown_skips_waiters_of_ended_channels() {
    for shared in [false, true] {
        let mut bench = Bench::new(|config| config.queued_pushes_max(1));
        let room = bench.joined("room:lobby");
        let other = shared.then(|| bench.client.channel("room:lobby").expect("it is wanted"));
        bench.memory.world().blocked = true;
        bench.settle();
        let client = bench.client.clone();
        let mut first = Box::pin(client.cast("room:lobby", "note", json!({"n": 1})));
        let mut second = pin!(room.cast_when_ready("note", json!({"n": 2})));
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        let mut leave = pin!(room.clone().leave());
        assert_eq!(poll(leave.as_mut()).is_ready(), shared);
        drop(first);
        bench.memory.world().blocked = false;
        bench.settle();
        if !shared {
            bench.reply("ok", json!({}));
        }
        let mut shutdown = pin!(client.shutdown(GRACE));
        assert!(poll(shutdown.as_mut()).is_pending());
        bench.settle();
        if shared {
            assert_eq!(bench.last_sent()[3], "phx_leave");
            bench.reply("ok", json!({}));
            assert!(poll(shutdown.as_mut()).is_pending());
            bench.settle();
        }
        assert_eq!(ready(shutdown.as_mut()), Unfinished::default(), "{shared}");
        assert!(ready(second.as_mut()).is_err());
        drop(other);
    }
}

#[test]
fn shutdown_ends_with_dropped_driver() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let mut push = pin!(room.push("ask", json!({})));
    assert!(poll(push.as_mut()).is_pending());
    bench.settle();
    let client = bench.client.clone();
    let mut shutdown = pin!(client.shutdown(GRACE));
    assert!(poll(shutdown.as_mut()).is_pending());
    drop(bench);
    let _ = ready(shutdown.as_mut());
}
