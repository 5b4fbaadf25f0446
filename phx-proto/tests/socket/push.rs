//! Pushes on virtual time, without a transport.

use crate::hand::{Hand, config, ms, secs};
use phx_proto::event::{NotSentCause, PushErrorKind, QueueBound, UnknownCause};
use phx_proto::socket::TimerKind;
use phx_proto::{
    ChannelStatus, Config, ConfigError, Payload, PushId, PushOptions, PushOutcome, Reply, Signal,
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

/// A reply ends its push whatever its status is.
/// Protocol: MSG-9, REPLY-2.
#[test]
fn reply_of_any_status_is_the_outcome() {
    for status in ["ok", "error", "maybe"] {
        let mut hand = Hand::joined(config());
        let id = push(&mut hand, "echo");
        hand.answer("room:a", "echo", status, json!([1]));
        let reply = Reply::new(status, json!([1]));
        assert_eq!(outcomes(&hand, id), [PushOutcome::Reply(reply)]);
    }
}

/// Pushes to a channel that is not joined are written after the ok of the join, in order. Reported in
/// firezone/firezone#9647 and firezone/firezone#4242.
/// Protocol: JOIN-15, PUSH-1.
#[test]
fn push_waits_for_join_in_order() {
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
fn heartbeat_and_joins_overtake_pushes() {
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

/// A reply after the timeout of its push is counted, and gives the push no second outcome. Reported
/// in phoenixframework/phoenix#3827.
/// Protocol: REPLY-3, REPLY-4.
#[test]
fn late_reply_of_timed_out_push_is_counted() {
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
fn unwritten_push_times_out_as_unsent() {
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

/// A second reply to a push is counted, and gives the push no second outcome.
/// Protocol: REPLY-4.
#[test]
fn second_reply_changes_nothing() {
    let mut hand = Hand::joined(config());
    let id = push(&mut hand, "echo");
    hand.answer("room:a", "echo", "ok", json!({"nr": 1}));
    hand.answer("room:a", "echo", "ok", json!({"nr": 2}));
    assert_eq!(outcomes(&hand, id).len(), 1);
    assert_eq!(hand.socket.stats().late_replies, 1);
}

/// A disconnect ends a written push with an unknown outcome. A push that was not written is written
/// once, on the next connection. Reported in firezone/firezone#12069 and firezone/firezone#9985.
/// Protocol: PUSH-4, REPLY-5, RETRY-2, RETRY-3.
#[test]
fn push_ends_unknown_on_disconnect_if_written() {
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

/// Written pushes end with the cause of the end of their channel. Queued pushes end too, except after
/// a crash.
/// Protocol: REPLY-5.
#[test]
fn channel_end_ends_pushes_by_cause() {
    type End = fn(&mut Hand);
    let cases: [(&str, End, UnknownCause, Option<NotSentCause>); 3] = [
        // A crash keeps the queued pushes, because the channel is joined again.
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

/// Queued pushes end when their channel ends by a final rejection, by a leave, or by giving up.
#[test]
fn queued_pushes_end_with_their_channel() {
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

/// With `fail_fast`, a push to a channel that is not joined is refused, and the error returns the
/// payload. Reported in phoenixframework/phoenix#1241 and phoenixframework/phoenix#1295.
#[test]
fn fail_fast_refuses_unless_joined() {
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

/// A push is refused if its topic was never joined, is being left, was left or has ended, with and
/// without `fail_fast`.
#[test]
fn push_to_unwanted_topic_is_refused() {
    let mut hand = Hand::open(config());
    let refused = |hand: &mut Hand| {
        for options in [PushOptions::call(), PushOptions::call().fail_fast()] {
            let pushed = hand.socket.push(hand.now, "room:a", "e", json!({}), options);
            assert_eq!(pushed.unwrap_err().kind, PushErrorKind::NotWanted);
        }
    };
    refused(&mut hand);
    hand.join("room:a");
    hand.answer_join("room:a");
    hand.leave("room:a");
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Leaving);
    refused(&mut hand);
    hand.answer("room:a", "phx_leave", "ok", json!({}));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Closed);
    refused(&mut hand);
}

/// A push that exceeds the maximum number of queued pushes, or of their bytes, is refused. Reported
/// in AndroidPoet/supabase-kmp#54.
#[test]
fn queue_is_bounded_by_count_and_bytes() {
    let mut hand = Hand::new(config().queued_pushes_max(2).queued_bytes_max(100));
    hand.join("room:a");
    let mut try_push = |bytes: usize| {
        let payload = Payload::binary(vec![0; bytes]);
        queue(&mut hand, "room:a", "e", payload)
    };
    assert_eq!(try_push(100), Err((QueueBound::Bytes, 100)), "and the event");
    assert_eq!(try_push(98), Ok(()));
    assert_eq!(try_push(1), Err((QueueBound::Bytes, 100)));
    assert_eq!(try_push(0), Ok(()));
    assert_eq!(try_push(0), Err((QueueBound::Pushes, 2)));
    let stats = hand.socket.stats();
    assert_eq!((stats.queued_pushes, stats.queued_bytes), (2, 100));
}

/// Pushes, and returns the bound of the queue that was exceeded.
fn queue(
    hand: &mut Hand,
    topic: &str,
    event: &str,
    payload: Payload,
) -> Result<(), (QueueBound, usize)> {
    let pushed = hand.socket.push(hand.now, topic, event, payload.clone(), PushOptions::call());
    pushed.map(|_| ()).map_err(|error| {
        assert_eq!(error.payload, payload, "handed back");
        let PushErrorKind::QueueFull { bound, limit } = error.kind else { panic!("{error}") };
        (bound, limit)
    })
}

/// The event names count too: twenty pushes with names of 4 MiB would take 80 MiB, although their
/// payloads are forty bytes together.
#[test]
fn event_names_count_in_queued_bytes() {
    let mut hand = Hand::new(config());
    hand.join("room:a");
    let event = "e".repeat(4 << 20);
    let mut accepted = 0;
    for _ in 0..20 {
        match queue(&mut hand, "room:a", &event, Payload::empty()) {
            Ok(()) => accepted += 1,
            Err(bound) => assert_eq!(bound, (QueueBound::Bytes, 8 << 20)),
        }
    }
    assert_eq!((accepted, hand.socket.stats().queued_bytes), (1, (4 << 20) + 2));
}

/// A topic that cannot be joined fills at most half of the queue, so pushes to other topics still
/// succeed.
#[test]
fn topic_takes_half_the_queue() {
    let mut hand = Hand::new(config().queued_pushes_max(5).queued_bytes_max(101));
    hand.join("room:a");
    hand.join("room:b");
    let small = || Payload::binary("");
    for _ in 0..3 {
        assert_eq!(queue(&mut hand, "room:a", "e", small()), Ok(()));
    }
    let refused = queue(&mut hand, "room:a", "e", small());
    assert_eq!(refused, Err((QueueBound::PushesOfTopic, 3)), "half, rounded up");
    let bytes = |bytes: usize| Payload::binary(vec![0; bytes]);
    assert_eq!(queue(&mut hand, "room:b", "e", bytes(51)), Err((QueueBound::BytesOfTopic, 51)));
    assert_eq!(queue(&mut hand, "room:b", "e", bytes(50)), Ok(()));
    assert_eq!(queue(&mut hand, "room:b", "", bytes(1)), Err((QueueBound::BytesOfTopic, 51)));
    assert_eq!(queue(&mut hand, "room:b", "e", bytes(50)), Err((QueueBound::Bytes, 101)));
    // No other topic is wanted any more.
    hand.leave("room:b");
    assert_eq!(queue(&mut hand, "room:a", "e", bytes(90)), Ok(()));
    assert_eq!(queue(&mut hand, "room:a", "e", small()), Ok(()));
    assert_eq!(queue(&mut hand, "room:a", "e", small()), Err((QueueBound::Pushes, 5)));
}

/// An instance that is being left may still have pushes to write. They count for the same topic.
#[test]
fn rejoined_topic_still_takes_half_the_queue() {
    let mut hand = Hand::joined(config().queued_pushes_max(4));
    hand.writable(false);
    assert_eq!(queue(&mut hand, "room:a", "one", Payload::empty()), Ok(()));
    hand.leave("room:a");
    hand.join("room:a");
    hand.join("room:b");
    assert_eq!(queue(&mut hand, "room:a", "two", Payload::empty()), Ok(()));
    let refused = queue(&mut hand, "room:a", "three", Payload::empty());
    assert_eq!(refused, Err((QueueBound::PushesOfTopic, 2)));
    hand.writable(true);
    assert_eq!(queue(&mut hand, "room:a", "four", Payload::empty()), Ok(()), "one was written");
}

#[test]
fn full_queue_names_its_bound() {
    let mut hand = Hand::new(config().queued_pushes_max(2));
    hand.join("room:a");
    hand.join("room:b");
    let mut refused = |topic: &str| {
        let push = hand.socket.push(hand.now, topic, "e", json!({}), PushOptions::call());
        push.map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(refused("room:a"), Ok(()));
    let half = "the push queue is full: half of `queued_pushes_max` (the limit of one topic) is 1";
    assert_eq!(refused("room:a"), Err(half.to_owned()));
    assert_eq!(refused("room:b"), Ok(()));
    let whole = "the push queue is full: `queued_pushes_max` is 2";
    assert_eq!(refused("room:b"), Err(whole.to_owned()));
}

/// A configuration with this maximum number of calls in flight.
fn in_flight(max: usize) -> Config {
    config().pushes_in_flight_max(max).expect("not zero")
}

/// The events of the frames written since the last call.
fn written(hand: &mut Hand) -> Vec<String> {
    let events = hand.sent.iter().map(|sent| sent.event.clone()).collect();
    hand.sent.clear();
    events
}

/// A hand with `room:a` and `room:b` joined.
fn two_rooms(config: Config) -> Hand {
    let mut hand = Hand::joined(config);
    hand.join("room:b");
    hand.answer_join("room:b");
    hand.sent.clear();
    hand
}

fn push_to(hand: &mut Hand, topic: &str, event: &str, options: PushOptions) -> PushId {
    let id = hand.socket.push(hand.now, topic, event, json!({}), options).expect("accepted");
    hand.drain();
    id
}

/// Answers the frame with this ref, and returns the events of the frames written since the last call.
fn answered(hand: &mut Hand, topic: &str, msg_ref: &str) -> Vec<String> {
    let reply = json!({"status": "ok", "response": {}});
    hand.receive(&json!([null, msg_ref, topic, "phx_reply", reply]));
    written(hand)
}

#[test]
fn calls_in_flight_are_bounded() {
    let mut hand = Hand::joined(in_flight(2));
    let refs = |hand: &Hand| -> Vec<String> {
        hand.sent.iter().skip(1).map(|sent| sent.msg_ref.clone()).collect()
    };
    let ids: Vec<PushId> = (0..5).map(|_| push(&mut hand, "call")).collect();
    let stats = hand.socket.stats();
    assert_eq!((stats.pushes_in_flight, stats.queued_pushes), (2, 3));
    let first = refs(&hand);
    assert_eq!(first.len(), 2);
    hand.sent.clear();
    assert_eq!(answered(&mut hand, "room:a", &first[1]), ["call"]);
    // A withdrawn push also frees its place, whether it is queued or in flight.
    assert!(hand.socket.cancel_push(hand.now, ids[3]));
    assert!(hand.socket.cancel_push(hand.now, ids[0]));
    hand.drain();
    assert_eq!(written(&mut hand), ["call"]);
    assert_eq!(hand.socket.stats().pushes_in_flight, 2);
    // A timeout frees the place too.
    hand.advance(ms(100));
    let late = push(&mut hand, "late");
    assert_eq!(written(&mut hand), [""; 0]);
    hand.advance(ms(9_900));
    assert_eq!(written(&mut hand), ["late"]);
    assert_eq!(outcomes(&hand, ids[2]), [PushOutcome::TimedOut]);
    assert_eq!(outcomes(&hand, late), []);
}

#[test]
fn casts_do_not_count_as_in_flight() {
    let mut hand = Hand::joined(in_flight(1));
    hand.sent.clear();
    for _ in 0..10 {
        push_with(&mut hand, "cast", PushOptions::cast());
    }
    assert_eq!(written(&mut hand).len(), 10);
    push(&mut hand, "call");
    assert_eq!(written(&mut hand), ["call"]);
}

/// A held call delays the later pushes of its own channel, and not those of other channels.
#[test]
fn held_call_blocks_only_its_channel() {
    let mut hand = two_rooms(in_flight(1));
    push_to(&mut hand, "room:a", "a1", PushOptions::call());
    push_to(&mut hand, "room:a", "a2", PushOptions::call());
    let a3 = push_to(&mut hand, "room:a", "a3", PushOptions::cast());
    push_to(&mut hand, "room:b", "b1", PushOptions::cast());
    push_to(&mut hand, "room:b", "b2", PushOptions::call());
    push_to(&mut hand, "room:b", "b3", PushOptions::cast());
    let a1 = hand.sent[0].msg_ref.clone();
    assert_eq!(written(&mut hand), ["a1", "b1"]);
    assert_eq!(hand.socket.sizes().held_topics, 2);
    // Heartbeats and joins are written while calls are held.
    hand.socket.probe(hand.now).expect("open");
    hand.join("room:c");
    assert_eq!(written(&mut hand), ["heartbeat", "phx_join"]);
    // The oldest held call is written next, with the pushes after it that expect no reply.
    let a2_and_a3 = answered(&mut hand, "room:a", &a1);
    assert_eq!(a2_and_a3, ["a2", "a3"]);
    assert_eq!(outcomes(&hand, a3), [PushOutcome::Written]);
    assert_eq!(hand.socket.sizes().held_topics, 1);
    hand.advance(secs(10));
    assert_eq!(hand.socket.sizes().held_topics, 0, "their time is up");
}

/// While a call is held, the next deadline is that of a push, so the driver is not called again at
/// once.
#[test]
fn held_call_makes_no_driver_spin() {
    let mut hand = Hand::joined(in_flight(1).heartbeat_interval(secs(0)));
    push(&mut hand, "one");
    hand.advance(ms(1));
    push(&mut hand, "two");
    assert_eq!(hand.socket.poll_action(hand.now), None);
    let next = hand.socket.poll_timeout().expect("a push has a deadline");
    assert_eq!((next.at.since(hand.now), next.kind), (ms(9_999), TimerKind::Push));
    let sizes = hand.socket.sizes();
    assert_eq!((sizes.due_frames, sizes.held_topics), (0, 1));
}

#[test]
fn held_call_ends_with_its_timeout() {
    let mut hand = Hand::joined(in_flight(1));
    push(&mut hand, "one");
    let two = push_with(&mut hand, "two", PushOptions::call().timeout(ms(50)));
    let three = push_with(&mut hand, "three", PushOptions::cast());
    hand.sent.clear();
    hand.advance(ms(50));
    assert_eq!(outcomes(&hand, two), [PushOutcome::NotSent(NotSentCause::TimedOut)]);
    assert_eq!(written(&mut hand), ["three"], "nothing is in front of it");
    assert_eq!(outcomes(&hand, three), [PushOutcome::Written]);
}

/// A leave does not wait for replies, so a push that would have to wait for a reply ends unsent.
#[test]
fn leave_ends_held_pushes_unsent() {
    for blocked in [false, true] {
        let mut hand = two_rooms(in_flight(1));
        push_to(&mut hand, "room:b", "b1", PushOptions::call());
        hand.writable(!blocked);
        push_to(&mut hand, "room:a", "a1", PushOptions::cast());
        let a2 = push_to(&mut hand, "room:a", "a2", PushOptions::call());
        let a3 = push_to(&mut hand, "room:a", "a3", PushOptions::cast());
        hand.leave("room:a");
        hand.writable(true);
        assert_eq!(written(&mut hand), ["b1", "a1", "phx_leave"], "blocked: {blocked}");
        for id in [a2, a3] {
            assert_eq!(outcomes(&hand, id), [PushOutcome::NotSent(NotSentCause::Left)]);
        }
        assert_eq!(hand.socket.sizes().held_topics, 0);
    }
}

/// A channel that is joined again writes its held calls after its join, in order.
#[test]
fn held_calls_survive_crash_and_disconnect() {
    type Fault = fn(&mut Hand);
    let faults: [Fault; 2] = [
        |hand| {
            hand.end_channel("room:a", "phx_error");
            hand.advance(secs(1));
        },
        |hand| {
            hand.lost();
            hand.until_dial();
            hand.opened();
        },
    ];
    for fault in faults {
        let mut hand = Hand::joined(in_flight(1));
        for event in ["one", "two", "three"] {
            push(&mut hand, event);
        }
        let before = hand.sent.len();
        fault(&mut hand);
        assert_eq!(hand.socket.sizes().held_topics, 0);
        hand.answer_join("room:a");
        assert_eq!(written(&mut hand)[before..], ["phx_join", "two"]);
        let stats = hand.socket.stats();
        assert_eq!((stats.pushes_in_flight, stats.queued_pushes), (1, 1));
    }
}

#[test]
fn zero_calls_in_flight_is_refused() {
    let refused = config().pushes_in_flight_max(0).map(|_| ());
    assert_eq!(refused, Err(ConfigError::Zero { key: "pushes_in_flight_max" }));
}

/// A push that exceeds the limit of a frame, or that of a field of a binary frame, is refused.
/// Reported in phoenixframework/phoenix#1873.
/// Protocol: BIN-6, LIMIT-1, MSG-8.
#[test]
fn push_over_frame_limits_is_refused() {
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

/// A cast ends when it is written, and a reply to it is ignored.
#[test]
fn cast_ends_when_written() {
    let mut hand = Hand::joined(config());
    hand.writable(false);
    let id = push_with(&mut hand, "note", PushOptions::cast());
    assert_eq!(outcomes(&hand, id), []);
    hand.writable(true);
    assert_eq!(outcomes(&hand, id), [PushOutcome::Written]);
    hand.answer("room:a", "note", "ok", json!({}));
    assert_eq!(outcomes(&hand, id).len(), 1);
}

/// A cancelled push is not written. If it was written already, its reply is ignored.
#[test]
fn cancelled_push_is_not_written() {
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

/// A thousand pushes that are answered or time out leave nothing in the queues and no deadline.
/// Reported in supabase/supabase-js#1902 and supabase/supabase-js#1907.
#[test]
fn many_pushes_leave_nothing_behind() {
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
fn deadlines_during_sleep_expire_in_order() {
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
fn written_frames_and_bytes_are_counted() {
    let mut hand = Hand::joined(config());
    let before = hand.socket.stats();
    push_with(&mut hand, "e", PushOptions::cast());
    let stats = hand.socket.stats();
    let frame = r#"["1","2","room:a","e",{"e":"e"}]"#;
    assert_eq!(stats.frames_out, before.frames_out + 1);
    assert_eq!(stats.bytes_out, before.bytes_out + frame.len() as u64);
}

#[test]
fn received_frames_and_bytes_are_counted() {
    let mut hand = Hand::joined(config());
    let before = hand.socket.stats();
    assert!(before.bytes_in > 0, "the answer of the join");
    let frame = r#"[null,null,"room:a","e",{}]"#;
    hand.receive_text(frame);
    hand.receive_text("no frame");
    let stats = hand.socket.stats();
    assert_eq!(stats.frames_in, before.frames_in + 2);
    assert_eq!(stats.bytes_in, before.bytes_in + frame.len() as u64 + 8);
}

/// Only a reply without a join_ref shows that the server has no channel. Any other reply comes from
/// the channel itself, even with the reason "unmatched topic".
#[test]
fn unmatched_reason_with_join_ref_is_ordinary() {
    let mut hand = Hand::joined(config());
    let id = push(&mut hand, "e");
    hand.answer("room:a", "e", "error", json!({"reason": "unmatched topic"}));
    assert!(matches!(outcomes(&hand, id)[..], [PushOutcome::Reply(_)]));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
}

#[test]
fn name_escapes_count_against_frame_limit() {
    let mut hand = Hand::joined(config().max_push_bytes(200));
    let event = "\u{1}".repeat(50);
    let options = PushOptions::call();
    let refused = hand.socket.push(hand.now, "room:a", &event, json!({}), options);
    let kind = refused.expect_err("300 bytes of escapes").kind;
    assert!(matches!(kind, PushErrorKind::TooLarge { limit: 200, .. }), "{kind:?}");
}

/// The ref of the reply was not written yet, so the reply is no answer and does not affect the
/// channel.
#[test]
fn unmatched_reply_to_future_ref_is_ignored() {
    let mut hand = Hand::joined(config());
    let unmatched = json!({"status": "error", "response": {"reason": "unmatched topic"}});
    hand.receive(&json!([null, "999", "room:a", "phx_reply", unmatched]));
    assert_eq!(hand.socket.stats().late_replies, 1);
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
}
