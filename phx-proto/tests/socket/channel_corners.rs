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

/// `wire/join_double`: until the new join replaces it, the server holds the old instance.
#[test]
fn a_leave_while_a_rejoin_on_request_waits_leaves_the_instance_that_the_server_holds() {
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

#[test]
fn the_close_of_the_instance_that_a_rejoin_was_to_replace_ends_the_channel() {
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

#[test]
fn the_crash_of_the_instance_that_a_rejoin_was_to_replace_leaves_nothing_to_leave() {
    let mut hand = Hand::joined(config());
    hand.socket.rejoin(hand.now, "room:a").unwrap();
    hand.drain();
    hand.end_channel("room:a", "phx_error");
    hand.leave("room:a");
    assert_eq!(left(&hand), [LeaveOutcome::Local]);
    assert_eq!(hand.count_sent("room:a", "phx_leave"), 0);
}

#[test]
fn what_comes_from_the_old_instance_after_the_new_join_is_stale() {
    let mut hand = Hand::joined(config());
    let old = hand.join_ref("room:a");
    hand.socket.rejoin(hand.now, "room:a").unwrap();
    hand.advance(secs(1));
    assert_eq!(hand.count_sent("room:a", "phx_join"), 2);
    hand.answer_join("room:a");
    hand.receive(&json!([old, old, "room:a", "phx_close", {}]));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
}

/// User pain 51: a channel that was left must not stay on the server.
#[test]
fn a_leave_that_could_not_be_written_in_time_is_written_later_all_the_same() {
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
fn an_unwritten_leave_goes_with_its_connection() {
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
fn the_end_of_a_channel_while_joining_frees_its_slot_at_once() {
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
fn phoenix_cannot_be_an_auto_join() {
    let error = config().auto_join("phoenix", JoinParams::none()).unwrap_err();
    assert_eq!(error, ConfigError::ReservedTopic);
}

/// S1: "unmatched topic" comes with a null join_ref
/// (`wire/join_unmatched_topic`).
#[test]
fn a_join_of_an_unmatched_topic_is_refused_though_the_reply_names_no_join_ref() {
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
fn a_join_that_crashes_is_told_and_tried_again() {
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

/// User pain 56: keyed by topic.
#[test]
fn leaving_one_channel_leaves_the_others_alone() {
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
fn a_join_that_waits_for_a_leave_survives_the_loss_of_the_connection() {
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
fn a_push_that_fails_fast_ends_unsent_when_the_channel_is_interrupted_first() {
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
fn an_interruption_for_a_rejoin_on_request_names_itself() {
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

#[test]
fn a_leave_after_a_join_whose_answer_is_given_up_leaves_what_the_server_may_hold() {
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
fn a_leave_that_ended_before_it_was_written_is_not_written() {
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

/// Only who pushed to a channel can learn from the reply that the server has none: a reply that
/// answers a push to another topic says nothing about the topic that it names.
#[test]
fn unmatched_reply_to_another_topic_crashes_nothing() {
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

/// Nor does a reply under the ref of what is no push: a join, a leave, a heartbeat.
#[test]
fn unmatched_reply_to_no_push_crashes_nothing() {
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

/// A second reply is nobody's, and so is one behind the answer to a later heartbeat: the server's socket
/// writes both in order.
#[test]
fn unmatched_reply_that_comes_twice_or_too_late_crashes_nothing() {
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

/// What is remembered of pushes whose reply may still come is bounded: of more casts than that the
/// last ones count.
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
