//! Every row of the push table, on virtual time: no socket, no sleep.

mod common;

use common::{Hand, config, ms, secs};
use phx_proto::{
    ChannelStatus, NotSentCause, Payload, PushErrorKind, PushId, PushOptions, PushOutcome, Reply,
    Signal, UnknownCause,
};
use serde_json::json;

fn push_with(hand: &mut Hand, event: &str, options: PushOptions) -> PushId {
    let id = hand
        .socket
        .push(hand.now, "room:a", event, json!({"e": event}), options)
        .expect("an accepted push");
    hand.drain();
    id
}

fn push(hand: &mut Hand, event: &str) -> PushId {
    push_with(hand, event, PushOptions::call())
}

/// The outcomes of a push: there must be exactly one in the end.
fn outcomes(hand: &Hand, wanted: PushId) -> Vec<PushOutcome> {
    hand.signals
        .iter()
        .filter_map(|signal| match signal {
            Signal::PushEnded { id, outcome, .. } if *id == wanted => Some(outcome.clone()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_reply_is_the_outcome_whatever_its_status() {
    for status in ["ok", "error", "maybe"] {
        let mut hand = Hand::joined(config());
        let id = push(&mut hand, "echo");
        hand.answer("room:a", "echo", status, json!([1]));
        let reply = Reply { status: status.into(), response: Payload::from(json!([1])) };
        assert_eq!(outcomes(&hand, id), [PushOutcome::Reply(reply)]);
    }
}

/// User pain 45.
#[test]
fn a_push_waits_for_the_join_and_is_written_in_order_after_its_ok() {
    let mut hand = Hand::new(config());
    hand.join("room:a");
    push(&mut hand, "one");
    hand.connect();
    hand.opened();
    push(&mut hand, "two");
    let events = |hand: &Hand| hand.sent.iter().map(|sent| sent.event.clone()).collect::<Vec<_>>();
    assert_eq!(events(&hand), ["phx_join"], "never before the join's ok");
    hand.answer_join("room:a");
    assert_eq!(events(&hand), ["phx_join", "one", "two"]);
    let sent = hand.last_sent("room:a", "two");
    assert_eq!(sent.join_ref, Some(hand.join_ref("room:a")), "every push carries the join_ref");
}

#[test]
fn heartbeat_and_joins_overtake_a_backlog_of_pushes() {
    let mut hand = Hand::joined(config());
    hand.writable(false);
    for _ in 0..100 {
        push(&mut hand, "bulk");
    }
    hand.join("room:b");
    hand.socket.probe(hand.now).unwrap();
    hand.sent.clear();
    hand.writable(true);
    assert_eq!(hand.sent[0].event, "heartbeat");
    assert_eq!(hand.sent[1].event, "phx_join");
    assert_eq!(hand.sent.len(), 102);
}

/// User pain 47.
#[test]
fn a_written_push_times_out_and_its_late_reply_is_counted() {
    let mut hand = Hand::joined(config());
    let id = push(&mut hand, "echo");
    hand.advance(ms(9_999));
    assert_eq!(outcomes(&hand, id), []);
    hand.advance(ms(1));
    assert_eq!(outcomes(&hand, id), [PushOutcome::TimedOut]);
    hand.answer("room:a", "echo", "ok", json!({}));
    assert_eq!(outcomes(&hand, id).len(), 1);
    assert_eq!(hand.socket.stats().late_replies, 1);
}

#[test]
fn a_push_that_was_never_written_says_so_when_its_time_is_up() {
    let mut hand = Hand::new(config());
    hand.join("room:a");
    let options = PushOptions::call().timeout(ms(500));
    let id = push_with(&mut hand, "echo", options);
    hand.advance(ms(500));
    assert_eq!(outcomes(&hand, id), [PushOutcome::NotSent(NotSentCause::TimedOut)]);
    hand.connect();
    hand.opened();
    hand.answer_join("room:a");
    assert_eq!(hand.count_sent("room:a", "echo"), 0);
}

#[test]
fn a_second_reply_to_one_push_changes_nothing() {
    let mut hand = Hand::joined(config());
    let id = push(&mut hand, "echo");
    hand.answer("room:a", "echo", "ok", json!({"nr": 1}));
    hand.answer("room:a", "echo", "ok", json!({"nr": 2}));
    assert_eq!(outcomes(&hand, id).len(), 1);
    assert_eq!(hand.socket.stats().late_replies, 1);
}

/// User pain 44.
#[test]
fn what_was_written_ends_unknown_at_once_and_what_was_not_goes_out_later_once() {
    let mut hand = Hand::joined(config());
    let written = push(&mut hand, "written");
    hand.writable(false);
    let queued = push(&mut hand, "queued");
    hand.lost();
    let unknown = PushOutcome::Unknown(UnknownCause::Disconnected);
    assert_eq!(outcomes(&hand, written), [unknown]);
    assert_eq!(outcomes(&hand, queued), []);
    hand.until_dial();
    hand.opened();
    hand.answer_join("room:a");
    assert_eq!(hand.count_sent("room:a", "written"), 1);
    assert_eq!(hand.count_sent("room:a", "queued"), 1);
    hand.answer("room:a", "queued", "ok", json!({}));
    assert!(matches!(outcomes(&hand, queued).as_slice(), [PushOutcome::Reply(_)]));
}

#[test]
fn the_end_of_a_channel_ends_its_pushes_by_cause() {
    type End = fn(&mut Hand);
    let cases: [(&str, End, UnknownCause, Option<NotSentCause>); 3] = [
        // A crash keeps what is queued: the channel comes back.
        (
            "crash",
            |hand| hand.end_channel("room:a", "phx_error"),
            UnknownCause::ChannelCrashed,
            None,
        ),
        (
            "close",
            |hand| hand.end_channel("room:a", "phx_close"),
            UnknownCause::ChannelClosed,
            Some(NotSentCause::ChannelClosed),
        ),
        (
            "disconnect",
            |hand| {
                hand.socket.disconnect(hand.now);
                hand.drain();
            },
            UnknownCause::Disconnected,
            Some(NotSentCause::Disconnected),
        ),
    ];
    for (name, end, unknown, not_sent) in cases {
        let mut hand = Hand::joined(config());
        let written = push(&mut hand, "written");
        hand.writable(false);
        let queued = push(&mut hand, "queued");
        end(&mut hand);
        assert_eq!(outcomes(&hand, written), [PushOutcome::Unknown(unknown)], "{name}");
        let expected: Vec<_> = not_sent.map(PushOutcome::NotSent).into_iter().collect();
        assert_eq!(outcomes(&hand, queued), expected, "{name}");
    }
}

#[test]
fn queued_pushes_end_with_a_final_rejection_a_leave_and_giving_up() {
    let queued = |config| {
        let mut hand = Hand::open(config);
        hand.join("room:a");
        let id = push(&mut hand, "queued");
        (hand, id)
    };
    let (mut hand, id) = queued(config());
    hand.answer("room:a", "phx_join", "error", json!({"reason": "no"}));
    assert_eq!(outcomes(&hand, id), [PushOutcome::NotSent(NotSentCause::JoinRejected)]);

    let (mut hand, id) = queued(config());
    hand.leave("room:a");
    assert_eq!(outcomes(&hand, id), [PushOutcome::NotSent(NotSentCause::Left)]);

    let (mut hand, id) = queued(config().max_retries(Some(0)));
    hand.lost();
    assert_eq!(outcomes(&hand, id), [PushOutcome::NotSent(NotSentCause::GaveUp)]);
}

/// User pain 42.
#[test]
fn fail_fast_refuses_unless_joined_and_hands_the_payload_back() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    let payload = Payload::from(json!({"precious": true}));
    let options = PushOptions::call().fail_fast();
    let error = hand.socket.push(hand.now, "room:a", "e", payload.clone(), options).unwrap_err();
    assert_eq!((error.kind, error.payload), (PushErrorKind::NotJoined, payload));
    hand.answer_join("room:a");
    push_with(&mut hand, "e", options);
    assert_eq!(hand.count_sent("room:a", "e"), 1);
}

#[test]
fn a_push_to_a_topic_that_is_not_wanted_is_refused() {
    let mut hand = Hand::open(config());
    let error =
        hand.socket.push(hand.now, "room:a", "e", json!({}), PushOptions::call()).unwrap_err();
    assert_eq!(error.kind, PushErrorKind::NotJoined);
}

/// User pain 43.
#[test]
fn the_queue_is_bounded_by_count_and_by_bytes() {
    let mut hand = Hand::new(config().queued_pushes_max(2).queued_bytes_max(100));
    hand.join("room:a");
    let mut try_push = |payload: Payload| {
        hand.socket
            .push(hand.now, "room:a", "e", payload, PushOptions::call())
            .map_err(|error| error.kind)
    };
    assert_eq!(try_push(Payload::binary(vec![0; 101])), Err(PushErrorKind::QueueFull));
    assert!(try_push(Payload::binary(vec![0; 99])).is_ok());
    assert_eq!(try_push(Payload::binary(vec![0; 2])), Err(PushErrorKind::QueueFull));
    assert!(try_push(Payload::binary(vec![0; 1])).is_ok());
    assert_eq!(try_push(Payload::binary(vec![])), Err(PushErrorKind::QueueFull));
    let stats = hand.socket.stats();
    assert_eq!((stats.queued_pushes, stats.queued_bytes), (2, 100));
}

/// User pain 48.
#[test]
fn a_push_over_the_frame_limit_or_the_binary_field_limit_is_refused_at_the_call() {
    let mut hand = Hand::joined(config().max_push_bytes(1_000));
    let mut try_push = |event: &str, payload: Payload| {
        hand.socket
            .push(hand.now, "room:a", event, payload, PushOptions::call())
            .map(|_| ())
            .map_err(|error| error.kind)
    };
    let large = try_push("e", Payload::binary(vec![0; 1_000]));
    assert!(matches!(large, Err(PushErrorKind::TooLarge { limit: 1_000, .. })), "{large:?}");
    let event = "e".repeat(256);
    assert!(matches!(try_push(&event, Payload::binary("x")), Err(PushErrorKind::Encode(_))));
    assert_eq!(try_push(&event, Payload::empty()), Ok(()), "text has no such limit");
    assert_eq!(try_push("phx_leave", Payload::empty()), Err(PushErrorKind::ReservedEvent));
}

#[test]
fn a_cast_ends_when_it_is_written_and_its_reply_is_ignored() {
    let mut hand = Hand::joined(config());
    hand.writable(false);
    let id = push_with(&mut hand, "note", PushOptions::cast());
    assert_eq!(outcomes(&hand, id), []);
    hand.writable(true);
    assert_eq!(outcomes(&hand, id), [PushOutcome::Written]);
    hand.answer("room:a", "note", "ok", json!({}));
    assert_eq!(outcomes(&hand, id).len(), 1);
}

#[test]
fn a_cancelled_push_is_not_written_and_a_written_one_only_forgotten() {
    let mut hand = Hand::joined(config());
    hand.writable(false);
    let queued = push(&mut hand, "queued");
    assert!(hand.socket.cancel_push(hand.now, queued));
    hand.writable(true);
    assert_eq!(hand.count_sent("room:a", "queued"), 0);
    let written = push(&mut hand, "written");
    assert!(hand.socket.cancel_push(hand.now, written));
    assert!(!hand.socket.cancel_push(hand.now, written));
    hand.answer("room:a", "written", "ok", json!({}));
    for id in [queued, written] {
        assert_eq!(outcomes(&hand, id), [PushOutcome::Cancelled]);
    }
}

/// User pain 50.
#[test]
fn nothing_is_left_behind_after_many_pushes() {
    let mut hand = Hand::joined(config().heartbeat_interval(secs(0)));
    for round in 0..1_000 {
        push(&mut hand, "echo");
        if round % 3 == 0 {
            hand.answer("room:a", "echo", "ok", json!({}));
        } else {
            hand.advance(secs(10));
        }
        hand.sent.truncate(1);
        let joined = hand.sent.len();
        assert_eq!(joined, 1);
    }
    hand.advance(secs(10));
    let stats = hand.socket.stats();
    assert_eq!((stats.queued_pushes, stats.queued_bytes, stats.pushes_in_flight), (0, 0, 0));
    assert_eq!(hand.socket.poll_timeout(), None);
}

#[test]
fn what_passed_during_a_sleep_is_told_in_the_order_in_which_it_passed() {
    let mut hand = Hand::open(config().heartbeat_interval(secs(0)));
    hand.join("room:a");
    let early = push_with(&mut hand, "early", PushOptions::call().timeout(secs(9)));
    let late = push_with(&mut hand, "late", PushOptions::call().timeout(secs(11)));
    hand.forget();
    hand.sleep(secs(12));
    let ended = |id: PushId| {
        hand.signals.iter().position(
            |signal| matches!(signal, Signal::PushEnded { id: ended, .. } if *ended == id),
        )
    };
    let overdue = Signal::JoinTimedOut { topic: "room:a".into() };
    let overdue = hand.signals.iter().position(|signal| *signal == overdue);
    assert!(ended(early).is_some() && ended(early) < overdue && overdue < ended(late));
}

#[test]
fn every_frame_that_is_written_is_counted_with_its_bytes() {
    let mut hand = Hand::joined(config());
    let before = hand.socket.stats();
    push_with(&mut hand, "e", PushOptions::cast());
    let stats = hand.socket.stats();
    let frame = r#"["1","2","room:a","e",{"e":"e"}]"#;
    assert_eq!(stats.frames_out, before.frames_out + 1);
    assert_eq!(stats.bytes_out, before.bytes_out + frame.len() as u64);
}

/// Only a reply without a join_ref says that the server has no channel; any other is the channel's own.
#[test]
fn an_answer_of_the_channel_that_reads_like_one_without_it_crashes_nothing() {
    let mut hand = Hand::joined(config());
    let id = push(&mut hand, "e");
    hand.answer("room:a", "e", "error", json!({"reason": "unmatched topic"}));
    assert!(matches!(outcomes(&hand, id)[..], [PushOutcome::Reply(_)]));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
}

#[test]
fn the_escapes_of_a_name_count_against_the_limit_of_a_frame() {
    let mut hand = Hand::joined(config().max_push_bytes(200));
    let event = "\u{1}".repeat(50);
    let options = PushOptions::call();
    let refused = hand.socket.push(hand.now, "room:a", &event, json!({}), options);
    let kind = refused.expect_err("300 bytes of escapes").kind;
    assert!(matches!(kind, PushErrorKind::TooLarge { limit: 200, .. }), "{kind:?}");
}

/// It can be no answer to anything, so it says nothing about the channel either.
#[test]
fn an_unmatched_reply_to_a_ref_of_the_future_crashes_nothing() {
    let mut hand = Hand::joined(config());
    let unmatched = json!({"status": "error", "response": {"reason": "unmatched topic"}});
    hand.receive(&json!([null, "999", "room:a", "phx_reply", unmatched]));
    assert_eq!(hand.socket.stats().late_replies, 1);
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
}
