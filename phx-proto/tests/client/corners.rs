//! The driver under pressure: floods, a busy executor, user code that holds handles.

use core::pin::pin;
use core::time::Duration;
use std::sync::mpsc;

use crate::bench::{Bench, next, poll, ready};
use bytes::Bytes;
use phx_proto::client::{
    ChannelEvent, ClientEvent, JoinFailed, JoinObstacle, JoinOptions, MailboxPolicy, Received,
};
use phx_proto::event::{PushOptions, RejectionKind};
use phx_proto::{Frame, JoinParams, Payload, Signal, Status};
use serde_json::{Value, json};

fn message(n: u64) -> Value {
    json!([null, null, "room:lobby", "msg", { "n": n }])
}

/// Puts a frame into the client's receive buffer without waking a task.
fn arrives(bench: &Bench, message: &Value) {
    let frame = Frame::Text(Bytes::from(message.to_string()));
    bench.memory.world().to_client.push_back(Received::Frame(frame));
}

/// A connection with a flood of messages still writes its pushes and heartbeats. Reported in
/// firezone/firezone#12312 and firezone/firezone#4484.
#[test]
fn flood_of_messages_starves_no_writes() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    bench.memory.world().flood = Some(message(0));
    let mut push = pin!(room.push("ask", json!({})));
    assert!(poll(push.as_mut()).is_pending());
    bench.settle();
    assert_eq!(bench.last_sent()[3], "ask");
    for _ in 0..60 {
        bench.advance(Duration::from_secs(1));
        if bench.last_sent()[3] == "heartbeat" {
            break;
        }
    }
    assert_eq!(bench.last_sent()[3], "heartbeat");
    // A flood delays the handling of deadlines by some polls, but not forever.
    (0..20).for_each(|_| bench.advance(Duration::from_secs(1)));
    assert_eq!(bench.memory.world().dials, 2, "and a heartbeat without an answer still counts");
}

/// One poll reads about 128 KiB of long frames, so that the consumers read them while they are in the
/// processor's cache. Deadlines are handled after a number of frames, whether these are long or short.
#[test]
fn poll_reads_limited_bytes() {
    let mut bench = Bench::new(|config| config);
    let _room = bench.joined("room:lobby");
    let before = bench.client.stats().frames_in;
    let long = json!([null, null, "room:lobby", "long", "x".repeat(30 << 10)]);
    bench.memory.world().flood = Some(long);
    assert!(poll(bench.driver.as_mut()).is_pending());
    assert_eq!(bench.client.stats().frames_in - before, 5);
    bench.memory.world().now += Duration::from_secs(60);
    let polls = (1..).find(|_| {
        assert!(poll(bench.driver.as_mut()).is_pending());
        bench.last_sent()[3] == "heartbeat"
    });
    assert_eq!(polls, Some(1_024 / 5 + 1));
}

/// Deadlines are also handled while every poll ends with frames to read and frames to write.
#[test]
fn floods_both_ways_postpone_deadlines_little() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    // A batch of these spends neither budget of reads.
    bench.memory.world().flood = Some(json!([null, null, "room:lobby", "e", "x".repeat(700)]));
    bench.memory.world().now += Duration::from_secs(60);
    let polls = (1..100).find(|_| {
        bench.memory.world().to_server.clear();
        let mut casts: Vec<_> = (0..128).map(|n| Box::pin(room.cast("e", json!(n)))).collect();
        casts.iter_mut().for_each(|cast| assert!(poll(cast.as_mut()).is_pending()));
        assert!(poll(bench.driver.as_mut()).is_pending());
        bench.memory.world().to_server.iter().any(|frame| frame[3] == "heartbeat")
    });
    assert!(polls.is_some_and(|polls| polls <= 14), "{polls:?}");
}

/// The driver takes frames from the core up to the space of the transport, in order, and asks the
/// transport again after them. Each frame counts 64 bytes more than its length.
#[test]
fn frames_are_pulled_up_to_space() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    // Each frame has about 30 bytes.
    for (space, asked) in [(0, 11), (80, 11), (300, 3), (10_000, 1)] {
        let mut pushes: Vec<_> = (0..10).map(|n| Box::pin(room.push("e", json!(n)))).collect();
        for push in &mut pushes {
            assert!(poll(push.as_mut()).is_pending());
        }
        let mut world = bench.memory.world();
        (world.space, world.asked) = (space, 0);
        world.to_server.clear();
        drop(world);
        assert!(poll(bench.driver.as_mut()).is_pending());
        let world = bench.memory.world();
        let sent: Vec<_> = world.to_server.iter().map(|frame| frame[4].clone()).collect();
        assert_eq!(sent, (0..10).map(|n| json!(n)).collect::<Vec<_>>(), "{space}");
        assert_eq!(world.asked, asked, "{space}");
    }
}

/// A function of join parameters blocks the driver's task for less than a second, and the deadline of a push
/// passes. An answer that arrived meanwhile is read before the deadline is handled.
#[test]
fn answer_within_poll_is_read_before_deadlines() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let options = PushOptions::new().timeout(Duration::from_millis(700));
    let mut push = pin!(room.push_with("ask", json!({}), options));
    assert!(poll(push.as_mut()).is_pending());
    bench.settle();
    let ask = bench.last_sent();
    let memory = bench.memory.clone();
    let params = JoinParams::from_fn(move |_| {
        let ok = json!({"status": "ok", "response": {}});
        let answer = json!([ask[0], ask[1], ask[2], "phx_reply", ok]).to_string();
        let mut world = memory.world();
        world.now += Duration::from_millis(900);
        world.to_client.push_back(Received::Frame(Frame::Text(Bytes::from(answer))));
        Payload::empty()
    });
    let client = bench.client.clone();
    let mut join = pin!(client.join("room:b", params));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    assert!(ready(push.as_mut()).is_ok());
}

/// An answer that arrived while the executor was busy is read before deadlines are handled. Reported
/// in phoenixframework/phoenix#5984 and davidstump/SwiftPhoenixClient#117.
#[test]
fn buffered_answer_is_read_before_deadlines() {
    for backlog in [0, 100] {
        let mut bench = Bench::new(|config| config);
        let room = bench.joined("room:lobby");
        while bench.last_sent()[3] != "heartbeat" {
            bench.advance(Duration::from_millis(500));
        }
        let beat = bench.last_sent();
        let mut push = pin!(room.push("ask", json!({})));
        assert!(poll(push.as_mut()).is_pending());
        bench.settle();
        let ask = bench.last_sent();
        (0..backlog).for_each(|n| arrives(&bench, &message(n)));
        let ok = json!({"status": "ok", "response": {}});
        arrives(&bench, &json!([null, beat[1], "phoenix", "phx_reply", ok]));
        arrives(&bench, &json!([ask[0], ask[1], ask[2], "phx_reply", ok]));
        bench.advance(Duration::from_secs(12));
        assert_eq!(bench.client.status(), Status::Open, "behind {backlog} messages");
        assert!(ready(push.as_mut()).is_ok(), "behind {backlog} messages");
    }
}

/// If the join crashes until its deadline, the error contains the last rejection. Reported in
/// supabase/supabase-flutter#536.
#[test]
fn join_deadline_reports_repeated_crashes() {
    let mut bench = Bench::new(|config| config);
    let client = bench.client.clone();
    let mut join = pin!(client.join("room:lobby", json!({})));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    for _ in 0..40 {
        if bench.last_sent()[3] == "phx_join" {
            bench.reply("error", json!({"reason": "join crashed"}));
        }
        bench.advance(Duration::from_secs(1));
    }
    let Err(JoinFailed::Deadline { last: Some(JoinObstacle::Rejected(rejection)) }) =
        ready(join.as_mut())
    else {
        panic!("no cause")
    };
    assert_eq!(rejection.kind, RejectionKind::JoinCrashed);
}

#[test]
fn unread_handle_causes_no_rejoin() {
    let mut bench = Bench::new(|config| config.mailbox(2, 1_000).expect("not zero"));
    let client = bench.client.clone();
    let options = JoinOptions::new().mailbox(MailboxPolicy::Rejoin);
    let mut join = pin!(client.join_with("room:lobby", json!({}), options));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    bench.reply("ok", json!({}));
    let room = ready(join.as_mut()).expect("joined");
    (0..20).for_each(|n| bench.server_sends(&message(n)));
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.memory.world().to_server.len(), 1, "one join");
    // The first read after the overflow causes one rejoin, so that the reader starts from the
    // server's present state.
    let mut messages = room.messages();
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.memory.world().to_server.len(), 1, "one join");
    assert_eq!(next(&mut messages), Some(ChannelEvent::Lagged(20)));
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.memory.world().to_server.len(), 2, "two joins");
    bench.reply("ok", json!({}));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Interrupted { .. })));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Resumed { .. })));
    assert_eq!(bench.client.stats().mailbox_drops, 20);
}

#[test]
fn slow_signal_reader_gets_connection_state() {
    let mut bench = Bench::new(|config| config.mailbox(4, 1_000).expect("not zero"));
    let _room = bench.joined("room:lobby");
    let mut signals = bench.client.signals();
    bench.cut();
    bench.advance(Duration::from_secs(3));
    bench.reply("ok", json!({}));
    for n in 0..100 {
        bench.server_sends(
            &json!([null, null, "room:lobby", "msg", { "n": n, "x": "x".repeat(900) }]),
        );
    }
    let mut bytes = 0;
    let mut connected = false;
    let mut resumed = false;
    while let core::task::Poll::Ready(Some(event)) = poll(pin!(signals.next())) {
        match event {
            ClientEvent::Signal(Signal::Message { payload, .. }) => bytes += payload.len(),
            ClientEvent::Signal(Signal::Connected { .. }) => connected = true,
            ClientEvent::Signal(Signal::Resumed { .. }) => resumed = true,
            _ => {}
        }
    }
    assert!(connected && resumed);
    assert!(bytes <= 1_000, "{bytes} bytes");
}

/// Runs `scenario` in a separate thread, so that a deadlock makes the test fail instead of hang.
#[allow(clippy::disallowed_methods, reason = "a deadlock can be seen only from another thread")]
fn must_end(scenario: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || {
        scenario();
        let _ = done.send(());
    });
    wait.recv_timeout(Duration::from_secs(20)).expect("neither a deadlock nor a panic");
}

#[test]
fn join_params_may_own_another_handle() {
    must_end(|| {
        let mut bench = Bench::new(|config| config);
        let kept = bench.joined("room:a");
        let params = JoinParams::from_fn(move |_| {
            let _ = kept.topic();
            Payload::empty()
        });
        let client = bench.client.clone();
        let mut join = Box::pin(client.join("room:b", params));
        assert!(poll(join.as_mut()).is_pending());
        bench.settle();
        bench.reply("ok", json!({}));
        let other = ready(join.as_mut()).expect("joined");
        drop(join);
        // The replaced function is dropped outside the lock, and with it the last handle of `room:a`.
        other.set_join_params(json!({})).expect("wanted");
        bench.settle();
        assert_eq!(bench.last_sent()[2], "room:a", "the last handle of it is gone");
        assert_eq!(bench.last_sent()[3], "phx_leave");
        drop(other);
    });
}

#[test]
fn join_params_are_converted_outside_the_lock() {
    struct Curious(phx_proto::client::Client);

    impl From<Curious> for Payload {
        fn from(curious: Curious) -> Self {
            assert_eq!(curious.0.status(), Status::Open);
            Self::empty()
        }
    }

    must_end(|| {
        let mut bench = Bench::new(|config| config);
        let room = bench.joined("room:a");
        room.set_join_params(Curious(bench.client.clone())).expect("wanted");
    });
}

/// Join parameters are dropped when their channel ends, outside the lock.
#[test]
fn join_params_are_dropped_outside_the_lock() {
    must_end(|| {
        let mut bench = Bench::new(|config| config);
        let kept = bench.joined("room:a");
        let client = bench.client.clone();
        let params = JoinParams::from_fn(move |_| {
            let _ = kept.topic();
            Payload::empty()
        });
        let mut join = Box::pin(client.join("room:b", params));
        assert!(poll(join.as_mut()).is_pending());
        bench.settle();
        bench.reply("error", json!({"reason": "no"}));
        assert!(ready(join.as_mut()).is_err());
        drop(join);
        bench.settle();
        assert_eq!(bench.last_sent()[3], "phx_leave", "of room:a");
    });
}
