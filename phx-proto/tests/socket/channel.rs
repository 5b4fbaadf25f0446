//! The channel machine on virtual time, without a transport.

use crate::hand::{Hand, config, config_v1, ms, secs};
use phx_proto::event::{
    ChannelEnd, Interruption, JoinError, LeaveOutcome, NextStep, NotSentCause, RejectionKind,
    Released, UnknownCause,
};
use phx_proto::socket::PendingReason;
use phx_proto::{
    Action, Cause, ChannelStatus, JoinParams, Payload, PushOptions, PushOutcome, Signal, Status,
};
use serde_json::{Value, json};

fn closed(topic: &str, cause: ChannelEnd) -> Signal {
    Signal::ChannelClosed { topic: topic.into(), cause }
}

fn left(topic: &str, outcome: LeaveOutcome) -> Signal {
    Signal::Left { topic: topic.into(), outcome }
}

fn is_message(signal: &Signal) -> bool {
    matches!(signal, Signal::Message { .. })
}

fn reject(hand: &mut Hand, topic: &str, response: Value) {
    hand.answer(topic, "phx_join", "error", response);
}

/// Joins are derived from the wanted topics, in the order in which they were requested. Reported in
/// CuatroElixir/slipstream#18 and mobileoverlord/phoenix_client#26.
/// Protocol: RETRY-1.
#[test]
fn wanted_topics_are_joined_on_every_open() {
    let mut hand = Hand::new(config());
    for topic in ["room:z", "room:a", "room:m"] {
        hand.join(topic);
        let offline = ChannelStatus::Pending(PendingReason::Offline);
        assert_eq!(hand.socket.channel_status(topic), offline);
    }
    for _ in 0..3 {
        hand.sent.clear();
        if matches!(hand.socket.status(), Status::Idle) {
            hand.connect();
        } else {
            hand.lost();
            hand.until_dial();
        }
        hand.opened();
        let topics: Vec<_> = hand.sent.iter().map(|sent| sent.topic.as_str()).collect();
        assert_eq!(topics, ["room:z", "room:a", "room:m"]);
    }
}

/// The ref of a join is also its join_ref, and every join has a new one.
/// Protocol: JOIN-1, JOIN-14, REF-2, REF-3, REF-4.
#[test]
fn join_has_a_new_ref_as_join_ref() {
    let mut hand = Hand::joined(config());
    let first = hand.last_sent("room:a", "phx_join");
    assert_eq!(first.join_ref.as_ref(), Some(&first.msg_ref));
    hand.lost();
    hand.until_dial();
    hand.opened();
    let second = hand.last_sent("room:a", "phx_join");
    assert_eq!(second.join_ref.as_ref(), Some(&second.msg_ref));
    assert_ne!(first.msg_ref, second.msg_ref);
}

/// With a `join_concurrency` of 2, a third join is written only when one of the first two is
/// answered. Reported in phoenixframework/phoenix#1579 and phoenixframework/phoenix#2035.
#[test]
fn join_concurrency_bounds_unanswered_joins() {
    let mut hand = Hand::open(config().join_concurrency(2).unwrap());
    for topic in ["room:a", "room:b", "room:c", "room:d"] {
        hand.join(topic);
    }
    assert_eq!(hand.sent.len(), 2);
    let slot = ChannelStatus::Pending(PendingReason::Slot);
    assert_eq!(hand.socket.channel_status("room:c"), slot);
    hand.answer_join("room:a");
    assert_eq!(hand.sent.len(), 3);
    assert_eq!(hand.sent[2].topic, "room:c");
}

/// A disconnect interrupts the channel. The ok of the rejoin resumes the channel, with the response
/// of that rejoin; it is not reported as a first join. Reported in phoenixframework/phoenix#3379 and
/// supabase-community/supabase-kt#255.
/// Protocol: RETRY-8.
#[test]
fn rejoin_resumes_with_its_response() {
    let mut hand = Hand::joined(config());
    hand.lost();
    let cause = Cause::TransportLost { message: "reset".into() };
    let interrupted =
        Signal::Interrupted { topic: "room:a".into(), cause: Interruption::Disconnected(cause) };
    assert_eq!(hand.take_signals()[0], interrupted);
    hand.until_dial();
    hand.opened();
    hand.answer("room:a", "phx_join", "ok", json!({"seq": 42}));
    let response = Payload::from(json!({"seq": 42}));
    assert_eq!(
        hand.signals.last(),
        Some(&Signal::Resumed { topic: "room:a".into(), response: response.clone() })
    );
    assert_eq!(hand.socket.join_response("room:a"), Some(&response));
}

/// While the channel is not joined, messages are dropped and counted.
/// Protocol: EVENT-1, EVENT-2, EVENT-5, REF-7.
#[test]
fn messages_are_delivered_only_while_joined() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    let join_ref = hand.join_ref("room:a");
    let broadcast = json!([null, null, "room:a", "shout", {}]);
    hand.receive(&broadcast);
    hand.answer_join("room:a");
    hand.receive(&broadcast);
    hand.receive(&json!([join_ref, null, "room:a", "push", {}]));
    hand.receive(&json!(["999", null, "room:a", "stale", {}]));
    hand.receive(&json!([null, null, "room:other", "shout", {}]));
    hand.leave("room:a");
    hand.receive(&broadcast);
    let messages = hand.signals.iter().filter(|signal| is_message(signal)).count();
    assert_eq!(messages, 2);
    let stats = hand.socket.stats();
    assert_eq!((stats.messages, stats.messages_not_joined, stats.stale_frames), (2, 3, 1));
}

/// Each crash in a row lengthens the delay before the rejoin, up to 10 s. Reported in
/// mobileoverlord/phoenix_client#25 and liveview-native/liveview-client-swiftui#1559.
/// Protocol: END-2.
#[test]
fn crashed_channel_rejoins_with_growing_delays() {
    let mut hand = Hand::joined(config());
    for step in [100, 500, 1_000, 2_000, 5_000, 10_000, 10_000] {
        hand.forget();
        hand.end_channel("room:a", "phx_error");
        assert!(matches!(
            hand.signals.as_slice(),
            [Signal::Errored { .. }, Signal::Interrupted { cause: Interruption::Crashed, .. }]
        ));
        let delay = hand.rejoin_after("room:a");
        assert!((ms(step / 2)..=ms(step)).contains(&delay), "{delay:?} of {step}");
        assert!(matches!(hand.socket.channel_status("room:a"), ChannelStatus::Errored { .. }));
        hand.advance(delay);
        hand.answer_join("room:a");
    }
}

/// A channel that was joined for long enough resets the rejoin counter; a reconnect alone does not.
#[test]
fn rejoin_counter_resets_after_stable_channel() {
    let mut hand = Hand::joined(config().heartbeat_interval(secs(0)));
    for _ in 0..4 {
        hand.end_channel("room:a", "phx_error");
        hand.advance(secs(5));
        hand.answer_join("room:a");
    }
    hand.lost();
    hand.until_dial();
    hand.opened();
    hand.answer_join("room:a");
    hand.end_channel("room:a", "phx_error");
    assert!(hand.rejoin_after("room:a") >= ms(2_500), "the fifth");
    hand.advance(secs(5));
    hand.answer_join("room:a");
    hand.advance(secs(10));
    hand.end_channel("room:a", "phx_error");
    assert!(hand.rejoin_after("room:a") <= ms(100), "a first one again");
}

#[test]
fn new_connection_makes_every_topic_due() {
    let mut hand = Hand::joined(config());
    for _ in 0..5 {
        hand.end_channel("room:a", "phx_error");
        hand.advance(secs(10));
        hand.answer_join("room:a");
    }
    hand.end_channel("room:a", "phx_error");
    hand.lost();
    let joins = hand.count_sent("room:a", "phx_join");
    hand.until_dial();
    hand.opened();
    assert_eq!(hand.count_sent("room:a", "phx_join"), joins + 1);
}

/// The reply to a push shows that the server has lost the channel: the push ends, and the client
/// rejoins. Reported in mobileoverlord/phoenix_client#25 and
/// liveview-native/liveview-client-swiftui#1559.
/// Protocol: REPLY-7.
#[test]
fn unmatched_topic_reply_ends_push_and_rejoins() {
    let mut hand = Hand::joined(config());
    let id = hand.socket.push(hand.now, "room:a", "echo", json!({}), PushOptions::call()).unwrap();
    hand.drain();
    let sent = hand.last_sent("room:a", "echo");
    let payload = json!({"status": "error", "response": {"reason": "unmatched topic"}});
    hand.receive(&json!([null, sent.msg_ref, "room:a", "phx_reply", payload]));
    assert!(hand.signals.iter().any(|signal| matches!(
        signal,
        Signal::PushEnded { id: ended, outcome: PushOutcome::Reply(reply), .. }
            if *ended == id && reply.status == "error"
    )));
    assert!(
        hand.signals.contains(&Signal::Interrupted {
            topic: "room:a".into(),
            cause: Interruption::Unmatched
        })
    );
    hand.rejoin_after("room:a");
}

#[test]
fn phx_close_of_current_instance_is_final() {
    let mut hand = Hand::joined(config());
    hand.end_channel("room:a", "phx_close");
    assert_eq!(hand.take_signals(), [closed("room:a", ChannelEnd::ClosedByServer)]);
    hand.advance(secs(12));
    assert_eq!(hand.count_sent("room:a", "phx_join"), 1);
    // A `phx_close` while the channel is joining is final too.
    hand.join("room:a");
    hand.end_channel("room:a", "phx_close");
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Closed);
}

/// `phx_close` and `phx_error` of another instance are counted as stale and change nothing else.
#[test]
fn frames_of_another_instance_are_stale() {
    let mut hand = Hand::joined(config());
    for event in ["phx_close", "phx_error"] {
        hand.receive(&json!(["99", "99", "room:a", event, {}]));
    }
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
    assert_eq!(hand.socket.stats().stale_frames, 2);
}

/// A close with a null ref ends a channel that is joined or leaving. In any other state it is stale.
/// Protocol: END-7.
#[test]
fn close_with_null_ref_needs_joined_or_leaving() {
    let null_close = json!([null, null, "room:a", "phx_close", {}]);
    let mut hand = Hand::open(config());
    hand.join("room:a");
    hand.receive(&null_close);
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joining);
    hand.answer_join("room:a");
    hand.receive(&null_close);
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Closed);
    let mut hand = Hand::joined(config());
    hand.leave("room:a");
    hand.receive(&null_close);
    assert!(hand.signals.contains(&left("room:a", LeaveOutcome::Acked)));
}

#[test]
fn crashed_join_is_retried() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    reject(&mut hand, "room:a", json!({"reason": "join crashed"}));
    let delay = hand.rejoin_after("room:a");
    hand.advance(delay);
    hand.answer_join("room:a");
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
}

/// A rejection of the first join ends the channel and carries the server's response. Reported in
/// supabase/supabase-js#2596.
/// Protocol: JOIN-3, JOIN-7.
#[test]
fn rejection_of_first_join_is_final() {
    for (response, kind) in [
        (json!({"reason": "unauthorized"}), RejectionKind::Application),
        (json!({"reason": "unmatched topic"}), RejectionKind::UnmatchedTopic),
        (json!({"reason": "too many channels joined"}), RejectionKind::TooManyChannels),
        (json!(["any", 1]), RejectionKind::Application),
    ] {
        let mut hand = Hand::open(config());
        hand.join("room:a");
        hand.forget();
        reject(&mut hand, "room:a", response.clone());
        let signals = hand.take_signals();
        let [Signal::JoinRejected { rejection, last: true, .. }, end] = signals.as_slice() else {
            panic!("{signals:#?}");
        };
        assert_eq!((rejection.kind, rejection.response.to_value().unwrap()), (kind, response));
        assert_eq!(*end, closed("room:a", ChannelEnd::Rejected(rejection.clone())));
        hand.advance(secs(1_000));
        assert_eq!(hand.count_sent("room:a", "phx_join"), 1);
    }
}

/// A rejected rejoin is retried only a bounded number of times, and so is a rejected auto-join.
/// Reported in supabase/supabase-js#2596.
#[test]
fn rejected_rejoin_has_bounded_retries() {
    let auto = config()
        .auto_join("room:a", JoinParams::none())
        .expect("no reserved topic")
        .heartbeat_interval(secs(0));
    let mut first = Hand::open(auto);
    let mut again = Hand::joined(config().heartbeat_interval(secs(0)));
    again.lost();
    again.until_dial();
    again.opened();
    for hand in [&mut first, &mut again] {
        for step in [1_000, 5_000, 30_000] {
            reject(hand, "room:a", json!({"reason": "no"}));
            let delay = hand.rejoin_after("room:a");
            assert!((ms(step / 2)..=ms(step)).contains(&delay), "{delay:?} of {step}");
            hand.advance(delay);
        }
        hand.forget();
        reject(hand, "room:a", json!({"reason": "no"}));
        assert!(matches!(
            hand.signals.as_slice(),
            [Signal::JoinRejected { last: true, .. }, Signal::ChannelClosed { .. }]
        ));
    }
}

#[test]
fn ok_resets_rejections() {
    let auto = config()
        .auto_join("room:a", JoinParams::none())
        .expect("no reserved topic")
        .heartbeat_interval(secs(0));
    let mut hand = Hand::open(auto);
    for _ in 0..5 {
        reject(&mut hand, "room:a", json!({"reason": "no"}));
        hand.advance(hand.rejoin_after("room:a"));
        hand.answer_join("room:a");
        hand.lost();
        hand.until_dial();
        hand.opened();
    }
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joining);
}

/// After the rejection "too many channels joined", the first retry already has the longest delay.
#[test]
fn too_many_channels_waits_longest() {
    let auto = config().auto_join("room:a", JoinParams::none()).expect("no reserved topic");
    let mut hand = Hand::open(auto);
    reject(&mut hand, "room:a", json!({"reason": "too many channels joined"}));
    assert!(hand.rejoin_after("room:a") >= secs(15));
}

/// A join of a topic that is already wanted shares its channel. Parameters that differ are an error.
/// Reported in supabase/supabase-js#1440, braverhealth/phoenix-socket-dart#87,
/// supabase/supabase#12467 and phoenixframework/phoenix#3171.
/// Protocol: JOIN-12.
#[test]
fn join_of_wanted_topic_is_shared() {
    let mut hand = Hand::open(config());
    hand.socket.join(hand.now, "room:a", json!({"a": 1, "b": 2})).unwrap();
    hand.drain();
    hand.socket.join(hand.now, "room:a", json!({"b": 2, "a": 1})).unwrap();
    hand.drain();
    assert_eq!((hand.sent.len(), hand.socket.interests("room:a")), (1, 2));
    let error = hand.socket.join(hand.now, "room:a", json!({"a": 2})).unwrap_err();
    assert_eq!(error, JoinError::ConflictingParams { topic: "room:a".into() });
    assert_eq!(hand.socket.interests("room:a"), 2);
}

/// The release of the last interest leaves the channel. The release of any other interest only
/// detaches its handle. Reported in supabase/supabase#12467 and phoenixframework/phoenix#3171.
#[test]
fn last_released_interest_leaves() {
    let mut hand = Hand::open(config());
    let one = hand.socket.join(hand.now, "room:a", json!({})).unwrap();
    let two = hand.socket.attach(hand.now, "room:a").unwrap();
    hand.drain();
    hand.answer_join("room:a");
    assert_eq!(hand.socket.release(hand.now, one), Released::Detached);
    assert_eq!(hand.socket.release(hand.now, one), Released::Gone);
    hand.drain();
    assert_eq!(hand.count_sent("room:a", "phx_leave"), 0);
    assert_eq!(hand.socket.release(hand.now, two), Released::Leaving);
    hand.drain();
    assert_eq!(hand.count_sent("room:a", "phx_leave"), 1);
}

#[test]
fn auto_join_outlives_the_last_interest() {
    let mut hand =
        Hand::open(config().auto_join("room:a", JoinParams::none()).expect("no reserved topic"));
    let interest = hand.socket.join(hand.now, "room:a", JoinParams::none()).unwrap();
    assert_eq!(hand.socket.release(hand.now, interest), Released::Detached);
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joining);
}

/// Join parameters are computed for each attempt, because they may contain, for example, the id of
/// the last event that was seen. Reported in phoenixframework/phoenix#3379 and
/// supabase-community/supabase-kt#255.
#[test]
fn join_params_are_computed_per_attempt() {
    let params = JoinParams::from_fn(|attempt| {
        Payload::from(json!({"attempt": attempt.attempt, "rejoin": attempt.rejoin}))
    });
    let mut hand = Hand::open(config());
    hand.socket.join(hand.now, "room:a", params).unwrap();
    hand.drain();
    hand.answer_join("room:a");
    hand.lost();
    hand.until_dial();
    hand.opened();
    let payloads: Vec<_> = hand.sent.iter().map(|sent| sent.payload.clone()).collect();
    assert_eq!(
        payloads,
        [json!({"attempt": 1, "rejoin": false}), json!({"attempt": 2, "rejoin": true})]
    );
    hand.socket.set_join_params(hand.now, "room:a", json!({"token": "new"})).unwrap();
    hand.lost();
    hand.until_dial();
    hand.opened();
    assert_eq!(hand.last_sent("room:a", "phx_join").payload, json!({"token": "new"}));
}

/// `set_join_params` checks new parameters like `join` does. If they are refused, the old ones stay.
#[test]
fn set_join_params_checks_like_join() {
    let mut hand = Hand::joined(config().max_push_bytes(200));
    let large = json!({"x": "x".repeat(200)});
    let refused = hand.socket.set_join_params(hand.now, "room:a", large.clone());
    assert_eq!(refused, Err(JoinError::TooLarge { limit: 200 }));
    assert_eq!(
        hand.socket.join(hand.now, "room:b", large),
        Err(JoinError::TooLarge { limit: 200 })
    );
    let refused = hand.socket.set_join_params(hand.now, "room:b", json!({}));
    assert!(matches!(refused, Err(JoinError::NotWanted(_))), "{refused:?}");
    hand.lost();
    hand.until_dial();
    hand.opened();
    assert_eq!(hand.last_sent("room:a", "phx_join").payload, json!({}));

    let mut hand = Hand::joined(config_v1());
    let refused = hand.socket.set_join_params(hand.now, "room:a", Payload::binary([1]));
    assert!(matches!(refused, Err(JoinError::Encode(_))), "{refused:?}");
}

/// If the parameters of a rejoin cannot be sent, the pushes that wait for the rejoin end, even though
/// the old instance still has to be left.
#[test]
fn unsendable_rejoin_ends_its_pushes() {
    let mut hand = Hand::joined(config());
    let broken = JoinParams::from_fn(|_| panic!("the application's own bug"));
    hand.socket.set_join_params(hand.now, "room:a", broken).unwrap();
    hand.socket.rejoin(hand.now, "room:a").unwrap();
    let push = hand.socket.push(hand.now, "room:a", "ask", json!({}), PushOptions::call()).unwrap();
    hand.drain();
    hand.advance(secs(1));
    let outcome = hand.signals.iter().find_map(|signal| match signal {
        Signal::PushEnded { id, outcome, .. } if *id == push => Some(outcome.clone()),
        _ => None,
    });
    assert_eq!(outcome, Some(PushOutcome::NotSent(NotSentCause::JoinRejected)));
    assert_eq!(hand.socket.sizes().pushes, 0);
}

#[test]
fn left_topic_has_no_interests() {
    let mut hand = Hand::joined(config());
    let interest = hand.socket.attach(hand.now, "room:a").unwrap();
    hand.socket.leave(hand.now, "room:a").unwrap();
    assert!(!hand.socket.is_interested(interest));
    assert_eq!(hand.socket.sizes().interests, 0);
}

#[test]
fn params_panic_ends_only_its_channel() {
    let mut hand = Hand::open(config());
    let params = JoinParams::from_fn(|_| panic!("the application's own bug"));
    hand.socket.join(hand.now, "room:a", params).unwrap();
    hand.join("room:b");
    let ended = hand.signals.iter().find_map(|signal| match signal {
        Signal::ChannelClosed { topic, cause } => Some((topic.to_string(), cause.clone())),
        _ => None,
    });
    let (topic, cause) = ended.expect("an end");
    assert_eq!(topic, "room:a");
    assert!(matches!(cause, ChannelEnd::InvalidParams { message } if message.contains("panicked")));
    hand.answer_join("room:b");
    assert_eq!(hand.socket.channel_status("room:b"), ChannelStatus::Joined);
}

/// A join with parameters that cannot be sent fails at the call. If a function returns such
/// parameters, the channel ends.
#[test]
fn unsendable_params_are_refused() {
    let mut hand = Hand::open(config().max_push_bytes(100));
    let big = json!("x".repeat(200));
    let error = hand.socket.join(hand.now, "room:a", big.clone()).unwrap_err();
    assert_eq!(error, JoinError::TooLarge { limit: 100 });
    let params = JoinParams::from_fn(move |_| Payload::from(big.clone()));
    hand.socket.join(hand.now, "room:a", params).unwrap();
    hand.drain();
    assert!(matches!(
        hand.signals.last(),
        Some(Signal::ChannelClosed { cause: ChannelEnd::InvalidParams { .. }, .. })
    ));
    hand.join("room:b");
}

/// The topic `phoenix` belongs to heartbeats, so a join of it is refused.
/// Protocol: HB-9.
#[test]
fn heartbeat_topic_cannot_be_joined() {
    let mut hand = Hand::open(config());
    let error = hand.socket.join(hand.now, "phoenix", json!({})).unwrap_err();
    assert_eq!(error, JoinError::Reserved { topic: "phoenix".into() });
}

/// The server answers a leave with a reply and a `phx_close`; the first of them ends the leave.
/// Reported in phoenixframework/phoenix#6792 and phoenixframework/phoenix#2047.
/// Protocol: LEAVE-1, LEAVE-2.
#[test]
fn leave_is_acked_by_first_answer() {
    type End = fn(&mut Hand);
    let ends: [End; 3] = [
        |hand| hand.answer("room:a", "phx_leave", "ok", json!({})),
        |hand| hand.end_channel("room:a", "phx_close"),
        |hand| hand.end_channel("room:a", "phx_error"),
    ];
    for end in ends {
        let mut hand = Hand::joined(config());
        hand.leave("room:a");
        assert_eq!(hand.take_signals(), [closed("room:a", ChannelEnd::Left)]);
        let sent = hand.last_sent("room:a", "phx_leave");
        assert_eq!(sent.join_ref, Some(hand.join_ref("room:a")));
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Leaving);
        end(&mut hand);
        assert_eq!(hand.take_signals(), [left("room:a", LeaveOutcome::Acked)]);
        // The second answer arrives too, and changes nothing.
        hand.receive(&json!([sent.join_ref, sent.join_ref, "room:a", "phx_close", {}]));
        assert_eq!(hand.take_signals(), []);
    }
}

/// The outcome of a leave without an answer is timed out, offline or local. Reported in
/// phoenixframework/phoenix#6792 and phoenixframework/phoenix#2047.
#[test]
fn unanswered_leave_reports_how_it_ended() {
    let mut hand = Hand::joined(config());
    hand.leave("room:a");
    hand.advance(secs(10));
    assert!(hand.signals.contains(&left("room:a", LeaveOutcome::TimedOut)));

    let mut hand = Hand::joined(config());
    hand.leave("room:a");
    hand.lost();
    assert!(hand.signals.contains(&left("room:a", LeaveOutcome::Offline)));

    let mut hand = Hand::new(config());
    hand.join("room:a");
    hand.leave("room:a");
    assert!(hand.signals.contains(&left("room:a", LeaveOutcome::Local)));
    hand.connect();
    hand.opened();
    assert_eq!(hand.sent, []);
}

/// A leave while the channel waits for its rejoin ends locally, and no rejoin is sent. Reported in
/// phoenixframework/phoenix#1265 and phoenixframework/phoenix#1483.
/// Protocol: LEAVE-7.
#[test]
fn leave_cancels_pending_rejoin() {
    let mut hand = Hand::joined(config());
    hand.end_channel("room:a", "phx_error");
    hand.leave("room:a");
    assert!(hand.signals.contains(&left("room:a", LeaveOutcome::Local)));
    hand.advance(secs(20));
    assert_eq!(hand.count_sent("room:a", "phx_join"), 1);
}

/// A leave of a channel that is joining does not wait for the join, and a late ok of the join is
/// ignored. Reported in phoenixframework/phoenix#1265 and phoenixframework/phoenix#1483.
/// Protocol: LEAVE-8.
#[test]
fn leave_while_joining_is_sent_at_once() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    let join_ref = hand.join_ref("room:a");
    hand.leave("room:a");
    assert_eq!(hand.last_sent("room:a", "phx_leave").join_ref, Some(join_ref));
    hand.forget();
    hand.answer_join("room:a");
    assert_eq!(hand.take_signals(), []);
    hand.answer("room:a", "phx_leave", "ok", json!({}));
    assert_eq!(hand.take_signals(), [left("room:a", LeaveOutcome::Acked)]);
}

#[test]
fn refused_join_ends_its_leave() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    hand.leave("room:a");
    hand.forget();
    reject(&mut hand, "room:a", json!({"reason": "no"}));
    assert_eq!(hand.take_signals(), [left("room:a", LeaveOutcome::Acked)]);
}

/// A join of a topic that is leaving waits for the end of the leave, and a second leave cancels that
/// join. Reported in supabase/supabase-js#1440 and braverhealth/phoenix-socket-dart#87.
/// Protocol: LEAVE-5.
#[test]
fn join_while_leaving_waits() {
    let mut hand = Hand::joined(config());
    hand.leave("room:a");
    hand.join("room:a");
    let ending = ChannelStatus::Pending(PendingReason::LeaveEnding);
    assert_eq!(hand.socket.channel_status("room:a"), ending);
    assert_eq!(hand.count_sent("room:a", "phx_join"), 1);
    hand.answer("room:a", "phx_leave", "ok", json!({}));
    assert_eq!(hand.count_sent("room:a", "phx_join"), 2);
    hand.forget();
    hand.answer_join("room:a");
    assert!(matches!(hand.take_signals().as_slice(), [Signal::Joined { .. }]), "a first ok");

    hand.leave("room:a");
    hand.join("room:a");
    hand.leave("room:a");
    hand.answer("room:a", "phx_leave", "ok", json!({}));
    hand.advance(secs(20));
    assert_eq!(hand.count_sent("room:a", "phx_join"), 2);
    assert_eq!(hand.socket.channels().count(), 0);
}

#[test]
fn leave_of_unknown_topic_is_an_error() {
    let mut hand = Hand::open(config());
    assert!(hand.socket.leave(hand.now, "room:a").is_err());
}

/// A push that waits only for the transport is written before a leave that was requested after it.
/// Protocol: LEAVE-6.
#[test]
fn leave_is_last_frame_of_its_channel() {
    let mut hand = Hand::joined(config());
    hand.writable(false);
    let id = hand.socket.push(hand.now, "room:a", "last", json!({}), PushOptions::call()).unwrap();
    hand.leave("room:a");
    assert!(hand.socket.push(hand.now, "room:a", "more", json!({}), PushOptions::call()).is_err());
    hand.sent.clear();
    hand.writable(true);
    let events: Vec<_> = hand.sent.iter().map(|sent| sent.event.as_str()).collect();
    assert_eq!(events, ["last", "phx_leave"]);
    hand.answer("room:a", "phx_leave", "ok", json!({}));
    let outcome = PushOutcome::Unknown(UnknownCause::Left);
    assert!(hand.signals.contains(&Signal::PushEnded { id, topic: "room:a".into(), outcome }));
}

/// After each of a hundred lost connections, the channel is rejoined with exactly one join. Reported
/// in davidstump/SwiftPhoenixClient#176 and supabase/realtime-py#258.
#[test]
fn hundred_drops_in_a_row_recover() {
    let mut hand = Hand::joined(config());
    for round in 0..100 {
        hand.lost();
        hand.until_dial();
        hand.opened();
        assert_eq!(hand.count_sent("room:a", "phx_join"), round + 2, "one join each");
        hand.answer_join("room:a");
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
        hand.advance(secs(1));
    }
}

/// A requested rejoin sends no leave, because the new join replaces the instance on the server.
#[test]
fn requested_rejoin_sends_no_leave() {
    let mut hand = Hand::joined(config());
    let pending =
        hand.socket.push(hand.now, "room:a", "echo", json!({}), PushOptions::call()).unwrap();
    hand.drain();
    let old = hand.join_ref("room:a");
    hand.socket.rejoin(hand.now, "room:a").unwrap();
    hand.drain();
    let outcome = PushOutcome::Unknown(UnknownCause::ChannelReplaced);
    assert_eq!(
        hand.take_signals(),
        [
            Signal::Interrupted { topic: "room:a".into(), cause: Interruption::Resync },
            Signal::PushEnded { id: pending, topic: "room:a".into(), outcome },
        ]
    );
    hand.advance(hand.rejoin_after("room:a"));
    hand.answer_join("room:a");
    // The close of the old instance arrives behind the ok of the new one.
    hand.receive(&json!([old, old, "room:a", "phx_close", {}]));
    assert!(matches!(hand.take_signals().as_slice(), [Signal::Resumed { .. }]));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
    assert_eq!(hand.count_sent("room:a", "phx_leave"), 0);
    assert!(hand.socket.rejoin(hand.now, "room:b").is_err());
}

#[test]
fn disconnect_ends_every_channel_at_once() {
    let mut hand = Hand::joined(config());
    hand.join("room:b");
    hand.forget();
    hand.socket.disconnect(hand.now);
    hand.drain();
    assert_eq!(
        hand.take_signals(),
        [closed("room:a", ChannelEnd::Disconnected), closed("room:b", ChannelEnd::Disconnected)]
    );
    hand.close_frame(1000);
    let id = hand.dialled.unwrap();
    let gone = Signal::Disconnected { id, cause: Cause::LocalDisconnect, next: NextStep::Stop };
    assert_eq!(hand.take_signals(), [gone, Signal::Closed]);
    assert!(hand.actions.iter().any(|action| matches!(action, Action::Close { .. })));
}

/// A `phx_close` or `phx_error` with an unknown ref is stale. It is not delivered as a message.
#[test]
fn end_with_unknown_ref_is_stale() {
    for event in ["phx_error", "phx_close"] {
        let mut hand = Hand::joined(config());
        hand.receive(&json!(["x1", "x1", "room:a", event, {}]));
        // Without a join_ref, as in vsn 1.
        hand.receive(&json!([null, "x1", "room:a", event, {}]));
        assert_eq!(hand.take_signals(), []);
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
        assert_eq!(hand.socket.stats().stale_frames, 2, "{event}");
    }
}
