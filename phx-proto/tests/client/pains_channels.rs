//! What users of other clients report about the life of a channel and its handles (user pains 52
//! to 62). Most of it is proven row by row in `socket/channel.rs` and `socket/channel_corners.rs`; the
//! presence lines in `presence.rs`.

use core::pin::pin;
use std::sync::Arc;

use crate::bench::{Bench, next, poll, ready};
use crate::hand::{Hand, config, config_v1, ms, secs};
use phx_proto::client::{ChannelEvent, Client, JoinFailed, Left, StreamEnd};
use phx_proto::event::{
    ChannelEnd, Interruption, LeaveOutcome, NextStep, NotWanted, Refusal, RejoinCause,
};
use phx_proto::socket::PendingReason;
use phx_proto::{Cause, ChannelStatus, JoinParams, Payload, Signal, Socket};
use serde_json::json;

fn lefts(hand: &Hand) -> Vec<LeaveOutcome> {
    let outcome = |signal: &Signal| match signal {
        Signal::Left { outcome, .. } => Some(*outcome),
        _ => None,
    };
    hand.signals.iter().filter_map(outcome).collect()
}

/// Its outcome shows when the server never answered. Reported in phoenixframework/phoenix#6792 and
/// phoenixframework/phoenix#2047.
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

/// Leave is legal whatever the channel is doing. Reported in phoenixframework/phoenix#1265 and
/// phoenixframework/phoenix#1483.
#[test]
fn leave_is_legal_in_every_state() {
    type Prepare = fn(&mut Hand);
    let states: [(&str, Prepare, Option<LeaveOutcome>); 8] = [
        ("offline, idle", |hand| hand.join("room:a"), Some(LeaveOutcome::Local)),
        (
            "connecting",
            |hand| {
                hand.connect();
                hand.join("room:a");
            },
            Some(LeaveOutcome::Local),
        ),
        (
            "waiting",
            |hand| {
                hand.connect();
                hand.opened();
                hand.lost();
                hand.join("room:a");
            },
            Some(LeaveOutcome::Local),
        ),
        (
            "waiting for a slot",
            |hand| {
                hand.connect();
                hand.opened();
                hand.join("room:z");
                hand.join("room:a");
                let slot = ChannelStatus::Pending(PendingReason::Slot);
                assert_eq!(hand.socket.channel_status("room:a"), slot);
            },
            Some(LeaveOutcome::Local),
        ),
        (
            "not writable",
            |hand| {
                hand.connect();
                hand.opened();
                hand.writable(false);
                hand.join("room:a");
            },
            Some(LeaveOutcome::Local),
        ),
        (
            "errored",
            |hand| {
                hand.connect();
                hand.opened();
                hand.join("room:a");
                hand.end_channel("room:a", "phx_error");
            },
            Some(LeaveOutcome::Local),
        ),
        (
            "joining",
            |hand| {
                hand.connect();
                hand.opened();
                hand.join("room:a");
            },
            None,
        ),
        (
            "joined",
            |hand| {
                hand.connect();
                hand.opened();
                hand.join("room:a");
                hand.answer_join("room:a");
            },
            None,
        ),
    ];
    for (name, prepare, at_once) in states {
        let mut hand = Hand::new(config().join_concurrency(1).expect("not zero"));
        prepare(&mut hand);
        let joins = hand.count_sent("room:a", "phx_join");
        hand.leave("room:a");
        assert_eq!(lefts(&hand), at_once.into_iter().collect::<Vec<_>>(), "{name}");
        let written = at_once.is_none();
        assert_eq!(hand.count_sent("room:a", "phx_leave"), usize::from(written), "{name}");
        if written {
            // A second one while the first is on its way sends nothing more.
            hand.leave("room:a");
            hand.answer("room:a", "phx_leave", "ok", json!({}));
            assert_eq!(lefts(&hand), [LeaveOutcome::Acked], "{name}");
        }
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Closed, "{name}");
        let not_wanted = NotWanted::new("room:a");
        assert_eq!(hand.socket.leave(hand.now, "room:a"), Err(not_wanted), "{name}");
        hand.advance(secs(15));
        assert_eq!(hand.count_sent("room:a", "phx_join"), joins, "{name}: no join any more");
    }
}

/// A topic can be joined any number of times, together and one after another. Reported in
/// supabase/supabase-js#1440 and braverhealth/phoenix-socket-dart#87.
#[test]
fn topic_can_be_joined_after_every_end() {
    type End = fn(&mut Hand);
    let ends: [(&str, End); 5] = [
        ("left", |hand| {
            hand.leave("room:a");
            hand.answer("room:a", "phx_leave", "ok", json!({}));
        }),
        ("left unanswered", |hand| hand.leave("room:a")),
        ("closed", |hand| hand.end_channel("room:a", "phx_close")),
        ("refused", |hand| {
            hand.leave("room:a");
            hand.answer("room:a", "phx_leave", "ok", json!({}));
            hand.join("room:a");
            hand.answer("room:a", "phx_join", "error", json!({"reason": "no"}));
        }),
        ("disconnected", |hand| {
            hand.socket.disconnect(hand.now);
            hand.drain();
            hand.close_frame(1000);
            hand.connect();
            hand.opened();
        }),
    ];
    for (name, end) in ends {
        let mut hand = Hand::joined(config().heartbeat_interval(secs(0)));
        end(&mut hand);
        hand.forget();
        // With other parameters, too: nobody shares them any more.
        hand.socket.join(hand.now, "room:a", json!({"other": true})).expect(name);
        hand.drain();
        hand.advance(secs(10));
        hand.answer_join("room:a");
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined, "{name}");
        let first = |signal: &Signal| matches!(signal, Signal::Joined { .. });
        assert!(hand.signals.iter().any(first), "{name}: a first join");
        assert_eq!(hand.last_sent("room:a", "phx_join").payload, json!({"other": true}), "{name}");
    }
}

/// The same function counts as equal parameters, another one does not. Reported in
/// supabase/supabase#12467 and phoenixframework/phoenix#3171.
#[test]
fn topic_is_shared_with_same_params_function() {
    let make = |n: u64| JoinParams::from_fn(move |_| Payload::from(json!({"n": n})));
    let params = make(1);
    let mut hand = Hand::open(config());
    hand.socket.join(hand.now, "room:a", params.clone()).expect("the first");
    hand.socket.join(hand.now, "room:a", params).expect("the same");
    hand.drain();
    assert_eq!((hand.sent.len(), hand.socket.interests("room:a")), (1, 2));
    // Alike is not the same, for what a function does cannot be compared.
    assert!(hand.socket.join(hand.now, "room:a", make(1)).is_err());
    assert!(hand.socket.join(hand.now, "room:a", json!({"n": 1})).is_err());
    assert_eq!(hand.socket.interests("room:a"), 2);
}

/// Two parts of an application use one topic. Reported in supabase/supabase#12467 and
/// phoenixframework/phoenix#3171.
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
    bench.says(&json!([null, null, "room:lobby", "msg", {}]));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Message(_))));
    drop((second, messages));
    bench.settle();
    assert_eq!(bench.last_sent()[3], "phx_leave");
}

/// The state has one owner, commands come from every thread, and no callback runs in the middle of
/// a change. Reported in davidstump/SwiftPhoenixClient#188 and dsrees/JavaPhoenixClient#22.
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
    // The driver runs meanwhile.
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

/// A consumer that panics, or never reads, affects only itself.
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
    bench.says(&json!([null, null, "room:lobby", "msg", {}]));
    assert!(matches!(next(&mut well), Some(ChannelEvent::Message(_))));
}

/// The documentation of each future states whether dropping it withdraws the request. Reported in
/// phoenixframework/phoenix_live_view#1937 and phoenixframework/phoenix#3827.
#[test]
fn dropped_push_withdraws_dropped_leave_continues() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    // Not written: never written.
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
    // Written: the reply is nobody's.
    {
        let mut push = pin!(room.push("forgotten", json!({})));
        assert!(poll(push.as_mut()).is_pending());
        bench.settle();
    }
    assert_eq!(bench.last_sent()[3], "forgotten");
    bench.reply("ok", json!({}));
    let stats = bench.client.stats();
    assert_eq!((stats.pushes_in_flight, stats.late_replies), (0, 1));
    // The next push is not confused by it.
    {
        let mut push = pin!(room.push("kept", json!({})));
        assert!(poll(push.as_mut()).is_pending());
        bench.settle();
        bench.reply("ok", json!({"n": 1}));
        assert!(ready(push.as_mut()).expect("a reply").is_ok());
    }
    // A leave that nobody waits for is a leave.
    {
        let mut leave = pin!(room.leave());
        assert!(poll(leave.as_mut()).is_pending());
    }
    bench.settle();
    assert_eq!(bench.last_sent()[3], "phx_leave");
    bench.reply("ok", json!({}));
    assert!(bench.client.channel("room:lobby").is_err());
}

/// Also after the driver. A drop is one command and waits for nothing. Reported in
/// liveview-native/phoenix-channels-client#156.
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

/// Every failure names what the client does next. Reported in supabase/supabase-flutter#536.
#[test]
fn failure_names_the_next_step() {
    // A lost connection: when the next attempt is.
    let mut hand = Hand::joined(config());
    hand.lost();
    let next = hand.signals.iter().find_map(|signal| match signal {
        Signal::Disconnected { next, .. } => Some(*next),
        _ => None,
    });
    let (delay, _) = hand.reconnect_after();
    assert_eq!(next, Some(NextStep::Retry { delay, attempt: 1 }));
    // A crash: when the channel is joined again, and why.
    hand.until_dial();
    hand.opened();
    hand.answer_join("room:a");
    hand.forget();
    hand.end_channel("room:a", "phx_error");
    let rejoin = hand.actions.iter().find_map(|action| match action {
        phx_proto::Action::RejoinAfter { cause, delay, .. } => Some((cause.clone(), *delay)),
        _ => None,
    });
    let (cause, delay) = rejoin.expect("a rejoin");
    assert_eq!(cause, RejoinCause::Crashed);
    let ChannelStatus::Errored { until } = hand.socket.channel_status("room:a") else {
        panic!("{:?}", hand.socket.channel_status("room:a"))
    };
    assert_eq!(until.since(hand.now), delay);
    // A refusal: whether it was the last try. The end: that it is the end.
    hand.leave("room:a");
    hand.join("room:b");
    hand.forget();
    hand.answer("room:b", "phx_join", "error", json!({"reason": "no"}));
    let signals = hand.take_signals();
    assert!(
        matches!(
            signals.as_slice(),
            [
                Signal::JoinRejected { last: true, .. },
                Signal::ChannelClosed { cause: ChannelEnd::Rejected(_), .. }
            ]
        ),
        "{signals:#?}"
    );
    // Giving up: with the cause that led to it, in words.
    let mut hand = Hand::open(config().max_retries(Some(0)));
    hand.close_frame(1012);
    let cause = Cause::RemoteClose { code: Some(1012), reason: String::new() };
    assert_eq!(hand.signals.last(), Some(&Signal::GaveUp { cause: cause.clone() }));
    let refused = Cause::Refused(Refusal::new(403, Vec::new(), ""));
    for (cause, words) in
        [(cause, "1012"), (refused, "403"), (Cause::HeartbeatTimeout, "heartbeat")]
    {
        assert!(cause.to_string().contains(words), "{cause}");
    }
}

#[test]
fn crash_while_joining_rejoins() {
    for config in [config(), config_v1()] {
        let mut hand = Hand::open(config);
        hand.join("room:a");
        let payload = json!({"reason": "channel_crash"});
        let join_ref = hand.join_ref("room:a");
        hand.receive(&json!([join_ref, join_ref, "room:a", "phx_error", payload]));
        let delay = hand.rejoin_after("room:a");
        assert!((ms(50)..=ms(100)).contains(&delay), "{delay:?}");
        let signals: Vec<_> = hand.signals.iter().rev().take(1).collect();
        assert!(matches!(signals.as_slice(), [Signal::Errored { .. }]), "it was not joined");
        hand.advance(delay);
        hand.answer_join("room:a");
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
        // The ok of the join that crashed would be stale.
        hand.forget();
        let ok = json!({"status": "ok", "response": {}});
        hand.receive(&json!([join_ref, join_ref, "room:a", "phx_reply", ok]));
        assert_eq!(hand.take_signals(), []);
    }
}

/// `wire/v1_join_push_leave`: a channel that was joined without a join_ref ends with a null ref.
#[test]
fn error_with_null_ref_needs_joined_or_leaving() {
    let null_error = json!([null, null, "room:a", "phx_error", {}]);
    for config in [config(), config_v1()] {
        let mut hand = Hand::open(config.clone());
        hand.join("room:a");
        hand.receive(&null_error);
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joining);
        assert_eq!(hand.socket.stats().stale_frames, 1);
        hand.answer_join("room:a");
        hand.forget();
        hand.receive(&null_error);
        let crashed = Interruption::Crashed;
        let interrupted = Signal::Interrupted { topic: "room:a".into(), cause: crashed };
        assert_eq!(hand.signals.last(), Some(&interrupted));
        // Waiting to rejoin: nothing that it could be about.
        hand.receive(&null_error);
        assert_eq!(hand.socket.stats().stale_frames, 2);

        let mut hand = Hand::joined(config);
        hand.leave("room:a");
        hand.receive(&null_error);
        assert_eq!(lefts(&hand), [LeaveOutcome::Acked]);
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Closed);
    }
}
