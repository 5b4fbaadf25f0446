//! Corner cases of the channel machine, where two events coincide: a leave during a rejoin, an end
//! during a join, a transport that accepts no frames.

use crate::hand::{Hand, config, config_v1, ms, secs};
use phx_proto::event::{
    ChannelEnd, Interruption, LeaveOutcome, NextStep, NotSentCause, NotWanted, Refusal,
    RejectionKind, RejoinCause,
};
use phx_proto::socket::PendingReason;
use phx_proto::{
    Cause, ChannelStatus, ConfigError, JoinParams, Payload, PushOptions, PushOutcome, Signal,
};
use serde_json::json;

fn left(hand: &Hand) -> Vec<LeaveOutcome> {
    let outcome = |signal: &Signal| match signal {
        Signal::Left { outcome, .. } => Some(*outcome),
        _ => None,
    };
    hand.signals.iter().filter_map(outcome).collect()
}

/// After a requested rejoin, the server holds the old instance until the new join replaces it
/// (`wire/join_double`). A leave before that must leave the old instance.
#[test]
fn leave_during_requested_rejoin_leaves_old_instance() {
    let mut hand = Hand::joined(config());
    let old = hand.join_ref("room:a");
    hand.socket.rejoin(hand.now, "room:a").unwrap();
    hand.drain();
    hand.leave("room:a");
    let leave = hand.last_sent("room:a", "phx_leave");
    assert_eq!(leave.join_ref, Some(old));
    assert!(left(&hand).is_empty(), "not before the server answers");
    hand.answer("room:a", "phx_leave", "ok", json!({}));
    assert_eq!(left(&hand), [LeaveOutcome::Acked]);
    hand.advance(secs(60));
    assert_eq!(hand.count_sent("room:a", "phx_join"), 1, "the rejoin is cancelled");
}

/// The server closes the old instance before the requested rejoin is written: the channel ends.
#[test]
fn close_before_requested_rejoin_ends_channel() {
    let mut hand = Hand::joined(config());
    hand.socket.rejoin(hand.now, "room:a").unwrap();
    hand.drain();
    hand.end_channel("room:a", "phx_close");
    let ended = |signal: &Signal| {
        matches!(signal, Signal::ChannelClosed { cause: ChannelEnd::ClosedByServer, .. })
    };
    assert!(hand.signals.iter().any(ended));
    hand.advance(secs(60));
    assert_eq!(hand.count_sent("room:a", "phx_join"), 1);
}

/// The old instance has crashed before the requested rejoin is written, so a leave is local.
#[test]
fn crash_before_requested_rejoin_needs_no_leave() {
    let mut hand = Hand::joined(config());
    hand.socket.rejoin(hand.now, "room:a").unwrap();
    hand.drain();
    hand.end_channel("room:a", "phx_error");
    hand.leave("room:a");
    assert_eq!(left(&hand), [LeaveOutcome::Local]);
    assert_eq!(hand.count_sent("room:a", "phx_leave"), 0);
}

#[test]
fn frames_of_replaced_instance_are_stale() {
    let mut hand = Hand::joined(config());
    let old = hand.join_ref("room:a");
    hand.socket.rejoin(hand.now, "room:a").unwrap();
    hand.advance(secs(1));
    assert_eq!(hand.count_sent("room:a", "phx_join"), 2);
    hand.answer_join("room:a");
    hand.receive(&json!([old, old, "room:a", "phx_close", {}]));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
}

/// A channel that was left must not stay on the server, even if its leave timed out before it was
/// written. Reported in supabase/realtime#843 and supabase/supabase#40902.
#[test]
fn overdue_unwritten_leave_is_still_written() {
    let mut hand = Hand::joined(config().heartbeat_interval(secs(0)));
    let join_ref = hand.join_ref("room:a");
    hand.writable(false);
    hand.leave("room:a");
    hand.advance(secs(11));
    assert_eq!(left(&hand), [LeaveOutcome::TimedOut]);
    hand.writable(true);
    assert_eq!(hand.count_sent("room:a", "phx_leave"), 1);
    assert_eq!(hand.last_sent("room:a", "phx_leave").join_ref, Some(join_ref));
    hand.join("room:a");
    // The late reply to the leave matches nothing.
    hand.answer("room:a", "phx_leave", "ok", json!({}));
    hand.answer_join("room:a");
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
    assert_eq!(left(&hand), [LeaveOutcome::TimedOut]);
}

#[test]
fn unwritten_leave_is_dropped_with_connection() {
    let mut hand = Hand::joined(config().heartbeat_interval(secs(0)));
    hand.writable(false);
    hand.leave("room:a");
    hand.advance(secs(11));
    hand.lost();
    hand.until_dial();
    hand.opened();
    assert_eq!(hand.count_sent("room:a", "phx_leave"), 0);
}

#[test]
fn channel_end_while_joining_frees_slot() {
    for event in ["phx_close", "phx_error"] {
        let mut hand = Hand::open(config().join_concurrency(1).unwrap());
        hand.join("room:a");
        hand.join("room:b");
        assert_eq!(hand.count_sent("room:b", "phx_join"), 0);
        let slot = ChannelStatus::Pending(PendingReason::Slot);
        assert_eq!(hand.socket.channel_status("room:b"), slot);
        hand.end_channel("room:a", event);
        assert_eq!(hand.count_sent("room:b", "phx_join"), 1, "{event}");
    }
}

#[test]
fn phoenix_topic_cannot_be_auto_joined() {
    let error = config().auto_join("phoenix", JoinParams::none()).unwrap_err();
    assert_eq!(error, ConfigError::ReservedTopic);
}

/// The reply "unmatched topic" has a null join_ref (`wire/join_unmatched_topic`).
#[test]
fn join_of_unmatched_topic_is_refused() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    let response = json!({"reason": "unmatched topic"});
    let payload = json!({"status": "error", "response": response});
    let msg_ref = hand.join_ref("room:a");
    hand.receive(&json!([null, msg_ref, "room:a", "phx_reply", payload]));
    let rejected = hand.signals.iter().find_map(|signal| match signal {
        Signal::JoinRejected { rejection, last, .. } => Some((rejection.kind, *last)),
        _ => None,
    });
    assert_eq!(rejected, Some((RejectionKind::UnmatchedTopic, true)));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Closed);
}

#[test]
fn crashed_join_is_reported_and_retried() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    hand.answer("room:a", "phx_join", "error", json!({"reason": "join crashed"}));
    let rejected = hand.signals.iter().find_map(|signal| match signal {
        Signal::JoinRejected { rejection, last, .. } => Some((rejection.kind, *last)),
        _ => None,
    });
    assert_eq!(rejected, Some((RejectionKind::JoinCrashed, false)));
    hand.advance(secs(1));
    assert_eq!(hand.count_sent("room:a", "phx_join"), 2);
}

/// A leave affects only the channel of its topic. Channels are keyed by topic. Reported in
/// supabase/supabase-js#1612.
#[test]
fn leave_affects_only_its_channel() {
    let mut hand = Hand::joined(config());
    for topic in ["room:b", "room:ab"] {
        hand.join(topic);
        hand.answer_join(topic);
    }
    hand.leave("room:a");
    hand.answer("room:a", "phx_leave", "ok", json!({}));
    assert_eq!(hand.socket.channel_status("room:b"), ChannelStatus::Joined);
    assert_eq!(hand.socket.channel_status("room:ab"), ChannelStatus::Joined);
    assert_eq!(hand.socket.channels().count(), 2);
}

#[test]
fn join_behind_leave_survives_disconnect() {
    let mut hand = Hand::joined(config());
    hand.leave("room:a");
    hand.join("room:a");
    let ending = ChannelStatus::Pending(PendingReason::LeaveEnding);
    assert_eq!(hand.socket.channel_status("room:a"), ending);
    hand.lost();
    assert_eq!(left(&hand), [LeaveOutcome::Offline]);
    hand.until_dial();
    hand.opened();
    assert_eq!(hand.count_sent("room:a", "phx_join"), 2);
    assert_eq!(hand.count_sent("room:a", "phx_leave"), 1);
}

#[test]
fn fail_fast_push_ends_unsent_on_interruption() {
    for crash in [false, true] {
        let mut hand = Hand::joined(config());
        hand.writable(false);
        let fast = PushOptions::call().fail_fast();
        let fast = hand.socket.push(hand.now, "room:a", "fast", json!({}), fast).unwrap();
        let slow = PushOptions::call();
        let slow = hand.socket.push(hand.now, "room:a", "slow", json!({}), slow).unwrap();
        hand.drain();
        if crash {
            hand.end_channel("room:a", "phx_error");
        } else {
            hand.lost();
        }
        let ended = hand.signals.iter().filter_map(|signal| match signal {
            Signal::PushEnded { id, outcome, .. } => Some((*id, outcome.clone())),
            _ => None,
        });
        let outcome = PushOutcome::NotSent(NotSentCause::Interrupted);
        assert_eq!(ended.collect::<Vec<_>>(), [(fast, outcome)], "crash: {crash}");
        assert_eq!(hand.socket.stats().queued_pushes, 1, "{slow} waits");
    }
}

#[test]
fn requested_rejoin_has_its_own_interruption() {
    let mut hand = Hand::joined(config());
    hand.socket.rejoin(hand.now, "room:a").unwrap();
    hand.drain();
    let cause = Interruption::Resync;
    assert_eq!(hand.take_signals(), [Signal::Interrupted { topic: "room:a".into(), cause }]);
    // A second request for a rejoin changes nothing.
    hand.socket.rejoin(hand.now, "room:a").unwrap();
    hand.drain();
    assert_eq!(hand.take_signals(), []);
}

/// The server may hold the channel although its answer to the join never came.
#[test]
fn leave_after_unanswered_join_is_sent() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    let join_ref = hand.join_ref("room:a");
    // The join is overdue, and the heartbeat that probes it is answered: no reply will come.
    hand.advance(secs(10));
    hand.answer_heartbeat();
    assert!(matches!(hand.socket.channel_status("room:a"), ChannelStatus::Errored { .. }));
    hand.leave("room:a");
    let leave = hand.last_sent("room:a", "phx_leave");
    assert_eq!(leave.join_ref, Some(join_ref), "else the server keeps the channel for ever");
    hand.answer("room:a", "phx_leave", "ok", json!({}));
    assert_eq!(left(&hand), [LeaveOutcome::Acked]);
}

#[test]
fn ended_leave_is_not_written() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    let join_ref = hand.join_ref("room:a");
    hand.writable(false);
    hand.leave("room:a");
    let refused = json!({"status": "error", "response": {}});
    hand.receive(&json!([join_ref, join_ref, "room:a", "phx_reply", refused]));
    let outcome = LeaveOutcome::Acked;
    assert!(hand.signals.contains(&Signal::Left { topic: "room:a".into(), outcome }));
    hand.writable(true);
    assert_eq!(hand.count_sent("room:a", "phx_leave"), 0);
}

/// An "unmatched topic" reply concerns only the channel of the push that it answers. If the reply
/// names another topic, neither channel is affected.
#[test]
fn unmatched_reply_to_another_topic_is_ignored() {
    type Ending = fn(&mut Hand);
    let endings: [(&str, PushOptions, Ending); 4] = [
        ("waiting", PushOptions::call(), |_| {}),
        ("a cast", PushOptions::cast(), |_| {}),
        ("late", PushOptions::call(), |hand| hand.advance(secs(10))),
        ("withdrawn", PushOptions::call(), |hand| {
            let id = hand.socket.push(hand.now, "room:b", "e", json!({}), PushOptions::call());
            hand.drain();
            assert!(hand.socket.cancel_push(hand.now, id.unwrap()));
        }),
    ];
    for (what, options, ending) in endings {
        for named in ["room:b", "room:a"] {
            let mut hand = Hand::joined(config().heartbeat_interval(secs(0)));
            hand.join("room:b");
            hand.answer_join("room:b");
            hand.socket.push(hand.now, "room:b", "e", json!({}), options).unwrap();
            hand.drain();
            ending(&mut hand);
            let sent = hand.last_sent("room:b", "e");
            let unmatched = json!({"status": "error", "response": {"reason": "unmatched topic"}});
            hand.receive(&json!([null, sent.msg_ref, named, "phx_reply", unmatched]));
            let errored =
                |topic| matches!(hand.socket.channel_status(topic), ChannelStatus::Errored { .. });
            assert!(!errored("room:a"), "{what}, {named}");
            assert_eq!(errored("room:b"), named == "room:b", "{what}, {named}");
        }
    }
}

/// An "unmatched topic" reply with the ref of a join, a leave or a heartbeat answers no push.
#[test]
fn unmatched_reply_to_no_push_is_ignored() {
    let mut hand = Hand::joined(config());
    hand.join("room:b");
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    for sent in [hand.last_sent("room:b", "phx_join"), hand.last_sent("phoenix", "heartbeat")] {
        let unmatched = json!({"status": "error", "response": {"reason": "unmatched topic"}});
        hand.receive(&json!([null, sent.msg_ref, "room:a", "phx_reply", unmatched]));
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined, "{sent:?}");
    }
}

/// A repeated "unmatched topic" reply to a push is ignored. Such a reply after the answer to a later
/// heartbeat is ignored too, because the server writes replies in order.
#[test]
fn repeated_or_late_unmatched_reply_is_ignored() {
    let unmatched = json!({"status": "error", "response": {"reason": "unmatched topic"}});
    let mut hand = Hand::joined(config());
    hand.socket.push(hand.now, "room:a", "e", json!({}), PushOptions::call()).unwrap();
    hand.drain();
    hand.answer("room:a", "e", "ok", json!({}));
    let answered = hand.last_sent("room:a", "e").msg_ref;
    hand.receive(&json!([null, answered, "room:a", "phx_reply", unmatched]));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
    hand.socket.push(hand.now, "room:a", "e", json!({}), PushOptions::cast()).unwrap();
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    let cast = hand.last_sent("room:a", "e").msg_ref;
    // The heartbeat overtakes the cast, so the answer to the heartbeat proves nothing about the cast.
    hand.answer_heartbeat();
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    hand.answer_heartbeat();
    hand.receive(&json!([null, cast, "room:a", "phx_reply", unmatched]));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
}

/// The socket remembers a bounded number of casts whose reply may still arrive, the latest ones. The
/// "unmatched topic" replies to many casts cause one rejoin.
#[test]
fn unmatched_replies_to_many_casts_rejoin_once() {
    let mut hand = Hand::joined(config());
    for _ in 0..200 {
        hand.socket.push(hand.now, "room:a", "e", json!({}), PushOptions::cast()).unwrap();
    }
    hand.drain();
    let refs: Vec<_> = hand.sent.iter().filter(|sent| sent.event == "e").cloned().collect();
    assert_eq!(refs.len(), 200);
    for sent in refs {
        let unmatched = json!({"status": "error", "response": {"reason": "unmatched topic"}});
        hand.receive(&json!([null, sent.msg_ref, "room:a", "phx_reply", unmatched]));
    }
    let rejoins = |signal: &&Signal| {
        matches!(signal, Signal::Interrupted { cause: Interruption::Unmatched, .. })
    };
    assert_eq!(hand.signals.iter().filter(rejoins).count(), 1);
    hand.advance(secs(1));
    assert_eq!(hand.count_sent("room:a", "phx_join"), 2);
}

/// A consumer that sees the end of its channel has seen the outcome of every push that ended with it.
#[test]
fn pushes_end_before_their_channel() {
    type Ending = fn(&mut Hand);
    let endings: [(&str, Ending); 4] = [
        ("leave while joined", |hand| hand.leave("room:a")),
        ("leave while joining", |hand| {
            hand.lost();
            hand.until_dial();
            hand.opened();
            hand.leave("room:a");
        }),
        ("leave while offline", |hand| {
            hand.lost();
            hand.leave("room:a");
        }),
        ("close", |hand| hand.end_channel("room:a", "phx_close")),
    ];
    for (what, ending) in endings {
        let mut hand = Hand::joined(config());
        hand.lost();
        hand.until_dial();
        hand.opened();
        for _ in 0..2 {
            hand.socket.push(hand.now, "room:a", "e", json!({}), PushOptions::call()).unwrap();
        }
        if what == "close" || what == "leave while joined" {
            hand.answer_join("room:a");
        }
        hand.forget();
        ending(&mut hand);
        let ended = |signal: &Signal| matches!(signal, Signal::PushEnded { .. });
        let closed = |signal: &Signal| matches!(signal, Signal::ChannelClosed { .. });
        let at = hand.signals.iter().position(closed).expect("the channel ended");
        let last = hand.signals.iter().rposition(ended);
        match last {
            Some(last) => assert!(last < at, "{what}: {:?}", hand.signals),
            // Pushes that were written get a reply, or end with the leave.
            None => assert_eq!(what, "leave while joined"),
        }
    }
}

/// A channel can be left in every state. Reported in phoenixframework/phoenix#1265 and
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
        assert_eq!(left(&hand), at_once.into_iter().collect::<Vec<_>>(), "{name}");
        let written = at_once.is_none();
        assert_eq!(hand.count_sent("room:a", "phx_leave"), usize::from(written), "{name}");
        if written {
            // A second leave while the first is unanswered sends nothing more.
            hand.leave("room:a");
            hand.answer("room:a", "phx_leave", "ok", json!({}));
            assert_eq!(left(&hand), [LeaveOutcome::Acked], "{name}");
        }
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Closed, "{name}");
        let not_wanted = NotWanted::new("room:a");
        assert_eq!(hand.socket.leave(hand.now, "room:a"), Err(not_wanted), "{name}");
        hand.advance(secs(15));
        assert_eq!(hand.count_sent("room:a", "phx_join"), joins, "{name}: no join any more");
    }
}

/// A topic can be joined any number of times, by several handles at once and one after another.
/// Reported in supabase/supabase-js#1440 and braverhealth/phoenix-socket-dart#87.
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
        // The parameters may differ, because the earlier ones are not shared any more.
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

/// A second join with the same function shares the channel. A join with another function is an error.
/// Reported in supabase/supabase#12467 and phoenixframework/phoenix#3171.
#[test]
fn topic_is_shared_with_same_params_function() {
    let make = |n: u64| JoinParams::from_fn(move |_| Payload::from(json!({"n": n})));
    let params = make(1);
    let mut hand = Hand::open(config());
    hand.socket.join(hand.now, "room:a", params.clone()).expect("the first");
    hand.socket.join(hand.now, "room:a", params).expect("the same");
    hand.drain();
    assert_eq!((hand.sent.len(), hand.socket.interests("room:a")), (1, 2));
    // Two functions that do the same are still different, because functions cannot be compared.
    assert!(hand.socket.join(hand.now, "room:a", make(1)).is_err());
    assert!(hand.socket.join(hand.now, "room:a", json!({"n": 1})).is_err());
    assert_eq!(hand.socket.interests("room:a"), 2);
}

/// Every failure names what the client does next. Reported in supabase/supabase-flutter#536.
#[test]
fn failure_names_the_next_step() {
    // A lost connection: the signal names the delay of the next attempt.
    let mut hand = Hand::joined(config());
    hand.lost();
    let next = hand.signals.iter().find_map(|signal| match signal {
        Signal::Disconnected { next, .. } => Some(*next),
        _ => None,
    });
    let (delay, _) = hand.reconnect_after();
    assert_eq!(next, Some(NextStep::Retry { delay, attempt: 1 }));
    // A crash: the action names the delay of the rejoin and its cause.
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
    // A refusal: the signals show whether it was the last attempt, and that the channel has ended.
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
    // Giving up: the signal contains the cause, and the text of the cause names it.
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
        // While the channel waits for its rejoin, there is no instance that the frame could name.
        hand.receive(&null_error);
        assert_eq!(hand.socket.stats().stale_frames, 2);

        let mut hand = Hand::joined(config);
        hand.leave("room:a");
        hand.receive(&null_error);
        assert_eq!(left(&hand), [LeaveOutcome::Acked]);
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Closed);
    }
}

/// A transport that accepts a frame only now and then gets the joins first. Late leaves of a topic
/// that is left and joined again and again must not accumulate behind them. A join replaces the
/// instance on the server (`wire/join_double`), so the leaves before it are not needed.
#[test]
fn late_leave_is_dropped_by_the_next_join() {
    let mut hand = Hand::joined(config());
    let old = hand.join_ref("room:a");
    hand.writable(false);
    hand.leave("room:a");
    hand.advance(secs(10));
    assert_eq!(left(&hand), [LeaveOutcome::TimedOut]);
    assert_eq!(hand.socket.sizes().due_frames, 1, "the server still holds the channel");
    hand.join("room:a");
    hand.writable(true);
    assert_ne!(hand.join_ref("room:a"), old);
    assert_eq!(hand.count_sent("room:a", "phx_leave"), 0);
    assert_eq!(hand.socket.sizes().due_frames, 0);
    hand.answer_join("room:a");
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
}

/// Absinthe sends the results of a subscription on a topic that no client can join.
#[test]
fn unrouted_message_is_reported_on_request() {
    let mut hand = Hand::joined(config());
    let result = json!([null, null, "doc:1", "data", {}]);
    for on in [false, true] {
        hand.socket.report_unrouted(hand.now, on);
        hand.receive(&result);
    }
    let reported = |signal: &&Signal| matches!(signal, Signal::Unrouted { .. });
    assert_eq!(hand.signals.iter().filter(reported).count(), 1);
    let stats = hand.socket.stats();
    assert_eq!((stats.messages, stats.messages_not_joined, stats.messages_unrouted), (1, 1, 1));
}
