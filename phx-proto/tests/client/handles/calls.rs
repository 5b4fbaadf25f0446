//! Typed calls, and pushes that wait until the queue has space.

use core::pin::pin;
use core::time::Duration;
use std::collections::BTreeMap;

use allocation_counter::measure;
use phx_proto::Config;
use phx_proto::client::{CallFailed, Channel, Left, PushFailed};
use phx_proto::event::{PushErrorKind, PushOptions};
use phx_proto::testing::{Running, Script};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{config, joined, now, settle};
use crate::bench::{Bench, poll};

#[derive(Serialize)]
struct Buy {
    id: u32,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Receipt {
    total: u64,
}

fn buy(script: &Script, orders: &Channel) -> Running<Result<Receipt, CallFailed>> {
    let orders = orders.clone();
    script.spawn(async move { orders.call::<Receipt>("buy", &Buy { id: 7 }).await })
}

#[test]
fn call_takes_and_returns_types() {
    let script = Script::new();
    let (_client, orders) = joined(&script, config(), "orders");
    let buying = buy(&script, &orders);
    let push = script.assert_push("orders", "buy");
    assert_eq!(push.json(), json!({"id": 7}));
    script.reply(&push, "ok", json!({"total": 12}));
    assert_eq!(script.finish(buying), Ok(Receipt { total: 12 }));
}

#[test]
fn refused_call_shows_server_reason() {
    let script = Script::new();
    let (_client, orders) = joined(&script, config(), "orders");
    let buying = buy(&script, &orders);
    let push = script.assert_push("orders", "buy");
    script.reply(&push, "error", json!({"reason": "sold\nout"}));
    let failed = script.finish(buying).expect_err("it is refused");
    assert_eq!(failed.to_string(), r#"the server replied "error": sold\nout"#);
    assert!(failed.is_refused() && !failed.is_safe_to_repeat());
}

#[test]
fn call_with_another_response_keeps_it() {
    let script = Script::new();
    let (_client, orders) = joined(&script, config(), "orders");
    let buying = buy(&script, &orders);
    let push = script.assert_push("orders", "buy");
    script.reply(&push, "ok", json!({"sum": 12}));
    match script.finish(buying) {
        Err(failed @ CallFailed::Response { .. }) => {
            assert!(failed.to_string().contains("not of the requested type"), "{failed}");
            let CallFailed::Response { response, .. } = failed else { unreachable!() };
            assert_eq!(response.to_value().expect("JSON"), json!({"sum": 12}));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn unwritable_request_is_not_sent() {
    let script = Script::new();
    let (_client, orders) = joined(&script, config(), "orders");
    let failed =
        now(
            &script,
            async move { orders.call::<Receipt>("buy", &BTreeMap::from([((1, 2), 3)])).await },
        );
    let failed = failed.expect_err("its keys are not strings");
    assert!(matches!(failed, CallFailed::Request(_)) && failed.is_safe_to_repeat(), "{failed}");
    script.refute_push("orders", "buy");
}

/// During an outage, a queued call waits, and a call that was written ends at once with an unknown
/// outcome.
#[test]
fn call_ends_unknown_on_disconnect() {
    let script = Script::new();
    let (_client, orders) = joined(&script, config(), "orders");
    let written = buy(&script, &orders);
    script.assert_push("orders", "buy");
    script.disconnect();
    settle(&script);
    let failed = script.finish(written).expect_err("it was written");
    assert!(matches!(failed, CallFailed::Push(PushFailed::Unknown(_))) && !failed.is_timeout());
    assert!(!failed.is_safe_to_repeat());

    let queued = buy(&script, &orders);
    let fast = now(&script, {
        let orders = orders.clone();
        async move {
            orders
                .call_with::<Receipt>("buy", &Buy { id: 8 }, PushOptions::call().fail_fast())
                .await
        }
    });
    assert!(fast.expect_err("it is not joined").is_safe_to_repeat());
    assert!(!queued.is_finished());
    script.connect_and_assert_join("orders");
    let push = script.assert_push("orders", "buy");
    assert_eq!(push.json(), json!({"id": 7}));
    script.reply(&push, "ok", json!({"total": 1}));
    assert!(script.finish(queued).is_ok());
}

#[test]
fn dropped_call_withdraws_the_push() {
    let script = Script::new();
    let client = script.client(config());
    let orders = client.want("orders", json!({})).expect("it is accepted");
    let mut future = Box::pin({
        let orders = orders.clone();
        async move { orders.call::<Receipt>("buy", &Buy { id: 7 }).await }
    });
    assert!(poll(future.as_mut()).is_pending());
    assert_eq!(client.stats().queued_pushes, 1);
    drop(future);
    assert_eq!(client.stats().queued_pushes, 0);
    script.connect_and_assert_join("orders");
    script.refute_push("orders", "buy");
}

/// Spawns a task with a cast that waits for space in the queue.
fn cast(script: &Script, room: &Channel, event: &'static str) -> Running<Result<(), PushFailed>> {
    let room = room.clone();
    let casting = script.spawn(async move { room.cast_when_ready(event, json!({})).await });
    settle(script);
    casting
}

/// A client that is not connected, whose queue of two pushes is full.
fn full(
    script: &Script,
) -> (phx_proto::client::Client, Channel, [Running<Result<(), PushFailed>>; 2]) {
    let client = script.client(config().queued_pushes_max(2));
    let room = client.want("room:lobby", json!({})).expect("it is accepted");
    let first = ["one", "two"].map(|event| cast(script, &room, event));
    assert_eq!(client.stats().queued_pushes, 2);
    (client, room, first)
}

#[test]
fn waiting_pushes_go_out_in_order() {
    let script = Script::new();
    let (client, room, first) = full(&script);
    let waiting = ["three", "four", "five"].map(|event| cast(&script, &room, event));
    let call = script.spawn({
        let room = room.clone();
        async move { room.push_when_ready("six", json!({})).await }
    });
    assert_eq!(client.stats().queued_pushes, 2, "they are not in the queue");
    let plain = now(&script, {
        let room = room.clone();
        async move { room.cast("plain", json!({})).await }
    });
    match plain {
        Err(PushFailed::NotAccepted(error)) => {
            assert!(matches!(error.kind, PushErrorKind::QueueFull { .. }), "{error}");
        }
        other => panic!("{other:?}"),
    }
    script.connect_and_assert_join("room:lobby");
    for (casting, event) in
        first.into_iter().chain(waiting).zip(["one", "two", "three", "four", "five"])
    {
        assert_eq!(script.finish(casting), Ok(()), "{event}");
    }
    let push = script.assert_push("room:lobby", "six");
    script.reply(&push, "ok", json!({}));
    assert!(script.finish(call).expect("a reply").is_ok());
    let log = script.log();
    let places = ["one", "two", "three", "four", "five", "six"].map(|event| {
        log.find(&format!(",\"{event}\",")).unwrap_or_else(|| panic!("{event} in {log}"))
    });
    assert!(places.is_sorted(), "{log}");
}

/// When one place in the queue becomes free, a waiting push gets it before a new push.
#[test]
fn late_push_queues_behind_waiting_ones() {
    let mut bench = Bench::new(|config| config.queued_pushes_max(1));
    let room = bench.client.want("room:lobby", json!({})).expect("it is accepted");
    let mut first = pin!(room.cast("one", json!({})));
    assert!(poll(first.as_mut()).is_pending());
    let mut second = pin!(room.cast_when_ready("two", json!({})));
    assert!(poll(second.as_mut()).is_pending());
    bench.settle();
    bench.reply("ok", json!({}));
    assert!(poll(first.as_mut()).is_ready());
    assert_eq!(bench.client.stats().queued_pushes, 0, "there is space");
    let mut third = pin!(room.cast_when_ready("three", json!({})));
    assert!(poll(third.as_mut()).is_pending());
    assert!(poll(third.as_mut()).is_pending());
    assert_eq!(bench.client.stats().queued_pushes, 0, "the second is first");
    assert!(poll(second.as_mut()).is_pending());
    assert_eq!(bench.client.stats().queued_pushes, 1);
    bench.settle();
    assert!(poll(second.as_mut()).is_ready());
    assert!(poll(third.as_mut()).is_pending());
    bench.settle();
    assert!(poll(third.as_mut()).is_ready());
}

/// Each topic has its own backlog of waiters, which blocks no other topic.
#[test]
fn topic_backlog_blocks_no_other_topic() {
    let script = Script::new();
    let client = script.client(config().queued_pushes_max(4));
    let [slow, fast] =
        ["slow", "fast"].map(|topic| client.want(topic, json!({})).expect("it is accepted"));
    script.accept_connect();
    script.assert_join("slow");
    let join = script.assert_join("fast");
    script.reply(&join, "ok", json!({}));
    let held = ["a", "b", "c"].map(|event| cast(&script, &slow, event));
    assert_eq!(client.stats().queued_pushes, 2, "half of the queue");
    for event in ["d", "e", "f"] {
        let casting = cast(&script, &fast, event);
        assert_eq!(script.finish(casting), Ok(()));
    }
    assert!(held.iter().all(|casting| !casting.is_finished()));
}

/// Free space in the queue may suit any topic that has waiters, so the first waiter of each topic is
/// woken.
#[test]
fn first_waiter_of_each_topic_is_woken() {
    let script = Script::new();
    let client = script.client(config().queued_pushes_max(2));
    let [slow, fast] =
        ["a:slow", "b:fast"].map(|topic| client.want(topic, json!({})).expect("it is accepted"));
    let _queued = [cast(&script, &slow, "one"), cast(&script, &fast, "two")];
    let waiting = [cast(&script, &slow, "three"), cast(&script, &fast, "four")];
    script.accept_connect();
    script.assert_join("a:slow");
    let join = script.assert_join("b:fast");
    script.reply(&join, "ok", json!({}));
    let [slow, fast] = waiting;
    settle(&script);
    assert!(fast.is_finished() && !slow.is_finished(), "at once");
    assert_eq!(script.finish(fast), Ok(()));
}

#[test]
fn push_larger_than_queue_is_an_error() {
    let script = Script::new();
    let client = script.client(config().queued_bytes_max(100));
    let room = client.want("room:lobby", json!({})).expect("it is accepted");
    let failed =
        now(&script, async move { room.cast_when_ready("blob", json!("x".repeat(1_000))).await });
    assert!(matches!(failed, Err(PushFailed::NotAccepted(_))), "{failed:?}");
}

/// The end of a channel wakes every waiter of its topic, one after the other.
#[test]
fn channel_end_ends_its_waiters() {
    let script = Script::new();
    let (_client, room, first) = full(&script);
    let waiting = ["three", "four", "five"].map(|event| cast(&script, &room, event));
    script.accept_connect();
    let join = script.assert_join("room:lobby");
    script.reply(&join, "error", json!({"reason": "no"}));
    settle(&script);
    for casting in first {
        assert!(script.finish(casting).expect_err("it was refused").is_refused());
    }
    for casting in waiting {
        let failed = script.finish(casting).expect_err("the channel has ended");
        assert!(matches!(failed, PushFailed::NotAccepted(_)), "{failed}");
    }
    assert_eq!(script.now().as_millis(), 0, "at once");
}

/// If the queue is full of pushes of another topic, the end of this topic frees no space. The waiters
/// of this topic end nevertheless.
#[test]
fn topic_without_pushes_ends_its_waiters() {
    let script = Script::new();
    let (client, _room, _first) = full(&script);
    let other = client.want("room:other", json!({})).expect("it is accepted");
    let waiting = cast(&script, &other, "three");
    assert!(!waiting.is_finished());
    let left = now(&script, async move { client.leave_topic("room:other").await });
    assert!(left.is_ok() && waiting.is_finished(), "at once");
    assert!(script.finish(waiting).expect_err("it was left").is_safe_to_repeat());
}

/// The only topic may use the whole queue, one of several only half of it. So a waiter of a topic may
/// go on when the other topic ends. A topic that was never joined ends at once. A joined one ends with the
/// reply to its leave, or when the server closes it.
#[test]
fn end_of_other_topic_wakes_push_waiter() {
    for end in ["not joined", "left", "closed"] {
        let script = Script::new();
        let client = script.client(config().queued_pushes_max(4));
        let other = client.want("b:other", json!({})).expect("it is accepted");
        if end != "not joined" {
            script.connect_and_assert_join("b:other");
        }
        let room = client.want("a:room", json!({})).expect("it is accepted");
        settle(&script);
        let _queued = ["one", "two"].map(|event| cast(&script, &room, event));
        let _waiting = cast(&script, &room, "three");
        assert_eq!(client.stats().queued_pushes, 2, "{end}: half of the queue");
        match end {
            "closed" => script.close_channel("b:other"),
            _ => drop(script.spawn(async move { other.leave().await })),
        }
        settle(&script);
        if end == "left" {
            let leave = script.assert_leave("b:other");
            script.reply(&leave, "ok", json!({}));
            settle(&script);
        }
        assert_eq!(client.stats().queued_pushes, 3, "{end}");
    }
}

#[test]
fn disconnect_ends_push_waiters() {
    let script = Script::new();
    let (client, room, _first) = full(&script);
    let waiting = cast(&script, &room, "three");
    now(&script, async move { client.disconnect().await });
    assert!(waiting.is_finished());
    assert!(script.finish(waiting).expect_err("it is closed").is_safe_to_repeat());
}

/// Leaving a handle ends its waiters, even if other handles keep the topic and the queue stays full.
#[test]
fn left_handle_ends_its_waiters() {
    let script = Script::new();
    let (client, room, _first) = full(&script);
    let other = client.channel("room:lobby").expect("it is wanted");
    let others = cast(&script, &other, "others");
    let waiting = ["three", "four"].map(|event| cast(&script, &room, event));
    assert_eq!(now(&script, async move { room.leave().await }), Left::Detached);
    assert!(waiting.iter().all(Running::is_finished) && !others.is_finished());
}

#[test]
fn dropped_waiter_leaves_the_backlog() {
    let mut bench = Bench::new(|config| config.queued_pushes_max(1));
    let room = bench.client.want("room:lobby", json!({})).expect("it is accepted");
    let mut first = pin!(room.cast("one", json!({})));
    assert!(poll(first.as_mut()).is_pending());
    let look = || assert!(poll(pin!(room.cast_when_ready("gone", json!({})))).is_pending());
    look();
    let info = measure(|| (0..100).for_each(|_| look()));
    assert!(info.bytes_current < 200, "{} bytes for futures that are gone", info.bytes_current);
    let mut last = pin!(room.cast_when_ready("last", json!({})));
    assert!(poll(last.as_mut()).is_pending());
    bench.settle();
    bench.reply("ok", json!({}));
    assert!(poll(last.as_mut()).is_pending());
    bench.settle();
    assert_eq!(bench.last_sent()[3], "last");
    assert!(poll(last.as_mut()).is_ready());
}

/// A call leaves the queue when it is written, and does not wait there for its reply.
#[test]
fn written_call_makes_space() {
    let script = Script::new();
    let client = script.client(config().queued_pushes_max(1));
    let room = client.want("room:lobby", json!({})).expect("it is accepted");
    let call = script.spawn({
        let room = room.clone();
        async move { room.push("unanswered", json!({})).await }
    });
    settle(&script);
    let waiting = cast(&script, &room, "next");
    script.connect_and_assert_join("room:lobby");
    settle(&script);
    assert!(waiting.is_finished() && !call.is_finished(), "{}", script.log());
}

/// A program may join and leave many topics and wait on each of them once. Topics that were left must
/// keep no waiters.
#[test]
fn past_topics_keep_no_waiters() {
    let bench = Bench::new(|config| config.queued_pushes_max(1));
    let first = bench.client.want("room:first", json!({})).expect("it is accepted");
    let mut queued = pin!(first.cast("one", json!({})));
    assert!(poll(queued.as_mut()).is_pending());
    let wait_on = |topics: core::ops::Range<u32>| {
        for topic in topics {
            let room = bench.client.want(format!("room:{topic}"), json!({})).expect("accepted");
            assert!(poll(pin!(room.cast_when_ready("two", json!({})))).is_pending());
        }
    };
    wait_on(0..100);
    let info = measure(|| wait_on(100..200));
    assert!(info.bytes_current < 1_000, "{} bytes for backlogs that are gone", info.bytes_current);
}

/// If the first waiter is dropped after it was woken, the next one is woken in its place.
#[test]
fn dropped_woken_waiter_wakes_the_next() {
    let script = Script::new();
    let (_client, room, _first) = full(&script);
    let mut lost = Box::pin({
        let room = room.clone();
        async move { room.cast_when_ready("lost", json!({})).await }
    });
    assert!(poll(lost.as_mut()).is_pending());
    let next = cast(&script, &room, "next");
    script.connect_and_assert_join("room:lobby");
    assert!(!next.is_finished(), "the first has not moved");
    drop(lost);
    settle(&script);
    assert!(next.is_finished(), "at once");
    assert_eq!(script.finish(next), Ok(()));
    script.refute_push("room:lobby", "lost");
}

/// While there is no connection, only the timeout of a queued push frees space.
#[test]
fn timeout_of_queued_push_makes_space() {
    let script = Script::new();
    let (client, room, first) = full(&script);
    let [waiting, next, last] = ["three", "four", "five"].map(|event| cast(&script, &room, event));
    let timeout = Config::new("ws://localhost/socket/websocket").expect("a URI").push_timeout;
    script.advance(timeout);
    for casting in first {
        assert!(script.finish(casting).expect_err("it is too late").is_timeout());
    }
    assert_eq!(client.stats().queued_pushes, 2, "both places are taken");
    script.advance(timeout - Duration::from_millis(1));
    assert!(!waiting.is_finished(), "its time began when it was accepted");
    script.advance(Duration::from_millis(1));
    for casting in [waiting, next] {
        assert!(script.finish(casting).expect_err("it is too late").is_timeout());
    }
    assert!(!last.is_finished() && client.stats().queued_pushes == 1);
}
