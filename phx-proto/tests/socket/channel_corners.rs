//! The channel machine where two things happen at once: a leave during a rejoin, an end during a
//! join, a transport that takes no frames.

use crate::hand::{Hand, config, secs};
use phx_proto::event::{ChannelEnd, Interruption, LeaveOutcome, NotSentCause, RejectionKind};
use phx_proto::socket::PendingReason;
use phx_proto::{ChannelStatus, ConfigError, JoinParams, PushOptions, PushOutcome, Signal};
use serde_json::json;

fn left(hand: &Hand) -> Vec<LeaveOutcome> {
    let outcome = |signal: &Signal| match signal {
        Signal::Left { outcome, .. } => Some(*outcome),
        _ => None,
    };
    hand.signals.iter().filter_map(outcome).collect()
}

/// Until the new join replaces it, the server holds the old instance (`wire/join_double`).
#[test]
fn leave_during_requested_rejoin_leaves_old_instance() {
    let mut hand = Hand::joined(config());
    let old = hand.join_ref("room:a");
    hand.socket.rejoin(hand.now, "room:a").unwrap();
    hand.drain();
    hand.leave("room:a");
    let leave = hand.last_sent("room:a", "phx_leave");
    assert_eq!(leave.join_ref, Some(old));
    assert!(left(&hand).is_empty(), "not before the server says so");
    hand.answer("room:a", "phx_leave", "ok", json!({}));
    assert_eq!(left(&hand), [LeaveOutcome::Acked]);
    hand.advance(secs(60));
    assert_eq!(hand.count_sent("room:a", "phx_join"), 1, "the rejoin is cancelled");
}

/// The server closes the instance that the rejoin was to replace.
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

/// The instance that the rejoin was to replace has crashed, so a leave is local.
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
    hand.join("room:a");
    hand.writable(true);
    assert_eq!(hand.count_sent("room:a", "phx_leave"), 1);
    assert_eq!(hand.last_sent("room:a", "phx_leave").join_ref, Some(join_ref));
    // Its late reply is nobody's.
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

/// Channels are keyed by topic. Reported in supabase/supabase-js#1612.
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
    // Once more changes nothing.
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

/// Only the push that it answers shows which channel the server has lost: a reply to a push on
/// another topic does not concern the topic that it names.
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

/// The ref is that of a join, a leave or a heartbeat.
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

/// A second reply matches nothing, and neither does one behind the answer to a later heartbeat: the
/// server writes both in order.
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
    // The heartbeat overtakes the cast, so its answer says nothing of it yet.
    hand.answer_heartbeat();
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    hand.answer_heartbeat();
    hand.receive(&json!([null, cast, "room:a", "phx_reply", unmatched]));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
}

/// The memory of casts whose reply may still arrive is bounded; beyond the bound only the latest
/// casts count.
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
            // They were written and are answered, or end with the leave.
            None => assert_eq!(what, "leave while joined"),
        }
    }
}
