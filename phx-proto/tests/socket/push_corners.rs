//! Pushes with queues, crashes, timeouts and reconnects, and the memory that they leave behind.

use std::sync::Arc;

use crate::hand::{Hand, config, config_v1, ms, secs};
use phx_proto::event::{NotSentCause, PushErrorKind, QueueBound, UnknownCause};
use phx_proto::wire::{Codec, DecodeError, EncodeError, Incoming, Outgoing, V2};
use phx_proto::{Cause, ChannelStatus, Frame, Payload, PushId, PushOptions, PushOutcome, Signal};
use serde_json::{Value, json};

fn push(hand: &mut Hand, event: &str) -> PushId {
    let options = PushOptions::call();
    let id = hand.socket.push(hand.now, "room:a", event, json!({}), options).expect("accepted");
    hand.drain();
    id
}

fn outcomes(hand: &Hand, wanted: PushId) -> Vec<PushOutcome> {
    let outcome = |signal: &Signal| match signal {
        Signal::PushEnded { id, outcome, .. } if *id == wanted => Some(outcome.clone()),
        _ => None,
    };
    hand.signals.iter().filter_map(outcome).collect()
}

/// Each push chooses whether it fails at once or waits for the channel, and how long it waits.
/// Reported in phoenixframework/phoenix#1241 and phoenixframework/phoenix#1295.
#[test]
fn push_chooses_whether_to_wait() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    let push = |hand: &mut Hand, options: PushOptions| {
        let pushed = hand.socket.push(hand.now, "room:a", "e", json!({}), options);
        pushed.map_err(|error| error.kind)
    };
    let eager = push(&mut hand, PushOptions::call().fail_fast());
    assert_eq!(eager, Err(PushErrorKind::NotJoined));
    let short = push(&mut hand, PushOptions::call().timeout(ms(100))).expect("accepted");
    let patient = push(&mut hand, PushOptions::call().timeout(secs(60))).expect("accepted");
    hand.advance(secs(1));
    assert_eq!(outcomes(&hand, short), [PushOutcome::NotSent(NotSentCause::TimedOut)]);
    hand.answer_join("room:a");
    assert_eq!(hand.count_sent("room:a", "e"), 1);
    hand.answer("room:a", "e", "ok", json!({}));
    assert!(matches!(outcomes(&hand, patient).as_slice(), [PushOutcome::Reply(_)]));
}

/// The push that does not fit gets the error, and pushes that were accepted stay. Reported in
/// AndroidPoet/supabase-kmp#54.
#[test]
fn full_queue_refuses_the_newest_push() {
    let mut hand = Hand::new(config().queued_pushes_max(3));
    hand.join("room:a");
    let accepted: Vec<_> = ["one", "two", "three"].map(|event| push(&mut hand, event)).into();
    let payload = Payload::from(json!({"precious": true}));
    let refused = hand
        .socket
        .push(hand.now, "room:a", "four", payload.clone(), PushOptions::call())
        .expect_err("the queue is full");
    let full = PushErrorKind::QueueFull { bound: QueueBound::Pushes, limit: 3 };
    assert_eq!((refused.kind, refused.payload), (full, payload));
    hand.connect();
    hand.opened();
    hand.answer_join("room:a");
    let events: Vec<_> = hand.sent[1..].iter().map(|sent| sent.event.as_str()).collect();
    assert_eq!(events, ["one", "two", "three"]);
    for event in events.into_iter().map(str::to_owned).collect::<Vec<_>>() {
        hand.answer("room:a", &event, "ok", json!({}));
    }
    for id in accepted {
        assert!(matches!(outcomes(&hand, id).as_slice(), [PushOutcome::Reply(_)]));
    }
}

/// The pushes of a lost channel block no other channel, and end when their channel ends. Reported in
/// firezone/firezone#12069 and firezone/firezone#9985.
#[test]
fn lost_channel_blocks_no_other_channel() {
    let mut hand = Hand::joined(config());
    hand.join("room:stuck");
    let options = PushOptions::call();
    let stuck = hand.socket.push(hand.now, "room:stuck", "e", json!({}), options).unwrap();
    for _ in 0..3 {
        hand.lost();
        hand.until_dial();
        hand.opened();
        hand.answer_join("room:a");
        let id = push(&mut hand, "echo");
        hand.answer("room:a", "echo", "ok", json!({}));
        assert!(matches!(outcomes(&hand, id).as_slice(), [PushOutcome::Reply(_)]));
    }
    hand.leave("room:stuck");
    assert_eq!(outcomes(&hand, stuck), [PushOutcome::NotSent(NotSentCause::Left)]);
    assert_eq!(hand.count_sent("room:stuck", "e"), 0);
}

/// A channel that was joined before is not ready until its rejoin is answered. Reported in
/// firezone/firezone#9647 and firezone/firezone#4242.
/// Protocol: END-6, JOIN-15.
#[test]
fn pushes_are_not_pipelined_behind_joins() {
    let mut hand = Hand::joined(config());
    let joins = |hand: &Hand| hand.sent.last().expect("a frame").event.clone();
    hand.lost();
    push(&mut hand, "early");
    hand.until_dial();
    hand.opened();
    assert_eq!(joins(&hand), "phx_join");
    hand.answer_join("room:a");
    assert_eq!(joins(&hand), "early");
    hand.end_channel("room:a", "phx_error");
    push(&mut hand, "again");
    hand.advance(hand.rejoin_after("room:a"));
    assert_eq!(joins(&hand), "phx_join");
    hand.answer_join("room:a");
    let again = hand.last_sent("room:a", "again");
    assert_eq!(again.join_ref, Some(hand.join_ref("room:a")));
}

/// Queued pushes wait for the rejoin, are written once, and keep their order. Reported in
/// firezone/firezone#9647 and firezone/firezone#4242.
#[test]
fn queued_pushes_are_written_after_crash() {
    for resync in [false, true] {
        let mut hand = Hand::joined(config());
        hand.writable(false);
        let queued = push(&mut hand, "queued");
        if resync {
            hand.socket.rejoin(hand.now, "room:a").unwrap();
        } else {
            hand.end_channel("room:a", "phx_error");
        }
        hand.writable(true);
        assert_eq!(hand.count_sent("room:a", "queued"), 0, "nothing is joined");
        push(&mut hand, "later");
        hand.advance(hand.rejoin_after("room:a"));
        hand.answer_join("room:a");
        let events: Vec<_> = hand.sent.iter().map(|sent| sent.event.as_str()).collect();
        assert_eq!(events, ["phx_join", "phx_join", "queued", "later"], "resync: {resync}");
        hand.answer("room:a", "queued", "ok", json!({}));
        assert!(matches!(outcomes(&hand, queued).as_slice(), [PushOutcome::Reply(_)]));
    }
}

/// The handle of a push does not change. Its ref is created when the push is written. Reported in
/// phoenixframework/phoenix#4948 and phoenixframework/phoenix#6788.
/// Protocol: REF-1.
#[test]
fn refs_are_minted_at_write_and_unique() {
    let mut hand = Hand::joined(config());
    hand.writable(false);
    let cancelled = push(&mut hand, "cancelled");
    let waits = push(&mut hand, "waits");
    assert_eq!(hand.socket.sizes().due_frames, 2);
    assert!(hand.socket.cancel_push(hand.now, cancelled));
    assert_eq!(hand.socket.sizes().due_frames, 1);
    hand.lost();
    hand.until_dial();
    hand.opened();
    // This is the join of the second connection: no other frame used a ref in between.
    assert_eq!(hand.join_ref("room:a"), "2");
    hand.answer_join("room:a");
    let sent = hand.last_sent("room:a", "waits");
    assert_eq!((sent.join_ref.as_deref(), sent.msg_ref.as_str()), (Some("2"), "3"));
    hand.answer("room:a", "waits", "ok", json!({}));
    assert!(matches!(outcomes(&hand, waits).as_slice(), [PushOutcome::Reply(_)]));
    let mut refs: Vec<_> = hand.sent.iter().map(|sent| sent.msg_ref.clone()).collect();
    refs.dedup();
    assert_eq!(refs, ["1", "2", "3"]);
}

/// A reply after the timeout of its push is counted, and does not answer the next push. Reported in
/// phoenixframework/phoenix#3827.
#[test]
fn reply_after_timeout_answers_nothing_else() {
    let mut hand = Hand::joined(config().heartbeat_interval(secs(0)));
    let first = push(&mut hand, "echo");
    let late = hand.last_sent("room:a", "echo");
    hand.advance(secs(10));
    assert_eq!(outcomes(&hand, first), [PushOutcome::TimedOut]);
    let second = push(&mut hand, "echo");
    let ok = json!({"status": "ok", "response": {"to": "the first"}});
    hand.receive(&json!([late.join_ref, late.msg_ref, "room:a", "phx_reply", ok]));
    assert_eq!(hand.socket.stats().late_replies, 1);
    assert_eq!(outcomes(&hand, second), []);
    // A reply with the ref of the second push and another topic does not answer it either.
    let other = hand.last_sent("room:a", "echo").msg_ref;
    hand.receive(&json!([null, other, "room:b", "phx_reply", ok]));
    assert_eq!(outcomes(&hand, second), []);
}

/// A push that is too large is refused with its size before it is sent. A received message that is
/// too large is a cause with the limit. Reported in phoenixframework/phoenix#1873.
#[test]
fn too_large_reports_its_size() {
    let mut hand = Hand::joined(config().max_push_bytes(1_000).max_message_bytes(1_000));
    let payload = Payload::binary(vec![7; 1_000]);
    let refused = hand
        .socket
        .push(hand.now, "room:a", "e", payload.clone(), PushOptions::call())
        .expect_err("too large");
    let PushErrorKind::TooLarge { bytes, limit } = refused.kind else { panic!("{refused}") };
    assert!(bytes > 1_000 && limit == 1_000, "{bytes} of {limit}");
    assert_eq!(refused.payload, payload, "handed back");
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);

    let id = push(&mut hand, "report");
    hand.receive_binary(&[2; 1_001]);
    assert_eq!(outcomes(&hand, id), [PushOutcome::Unknown(UnknownCause::Disconnected)]);
    hand.close_frame(1009);
    assert_eq!(hand.reconnect_after().1, Cause::MessageTooLarge { limit: 1_000 });
}

/// A thousand joins that fail in different ways leave every table as it was. Reported in the
/// changelog of CuatroElixir/slipstream 1.0.2.
#[test]
fn failed_joins_leave_nothing_behind() {
    let mut hand = Hand::open(config().heartbeat_interval(secs(0)));
    let before = hand.socket.sizes();
    for round in 0..1_000 {
        let topic = format!("room:{round}");
        hand.join(&topic);
        let options = PushOptions::call();
        hand.socket.push(hand.now, &topic, "e", json!({}), options).expect("accepted");
        match round % 4 {
            0 => hand.answer(&topic, "phx_join", "error", json!({"reason": "no"})),
            1 => hand.end_channel(&topic, "phx_close"),
            2 => {
                hand.leave(&topic);
                hand.answer(&topic, "phx_join", "error", json!({"reason": "no"}));
            }
            _ => {
                hand.end_channel(&topic, "phx_error");
                hand.leave(&topic);
            }
        }
        assert_eq!(hand.socket.sizes(), before, "{round}");
        hand.sent.clear();
        hand.forget();
    }
}

/// A thousand reconnects leave every table as it was. Reported in supabase/supabase-js#1902 and
/// supabase/supabase-js#1907.
#[test]
fn reconnects_leave_nothing_behind() {
    let mut hand = Hand::joined(config());
    for topic in ["room:b", "room:c"] {
        hand.join(topic);
        hand.answer_join(topic);
    }
    let before = hand.socket.sizes();
    assert_eq!((before.channels, before.interests, before.pushes), (3, 3, 0));
    for round in 0..1_000 {
        let written = push(&mut hand, "echo");
        hand.socket.probe(hand.now).unwrap();
        hand.writable(round % 2 == 0);
        let queued = push(&mut hand, "more");
        hand.lost();
        assert!(matches!(outcomes(&hand, written).as_slice(), [PushOutcome::Unknown(_)]));
        hand.until_dial();
        hand.opened();
        for topic in ["room:a", "room:b", "room:c"] {
            hand.answer_join(topic);
        }
        if outcomes(&hand, queued).is_empty() {
            hand.answer("room:a", "more", "ok", json!({}));
        }
        assert_eq!(outcomes(&hand, queued).len(), 1);
        assert_eq!(hand.socket.sizes(), before, "{round}");
        hand.sent.clear();
        hand.forget();
    }
}

#[test]
fn unmatched_topic_of_older_instance_is_ignored() {
    for config in [config(), config_v1()] {
        for cast in [false, true] {
            let mut hand = Hand::joined(config.clone());
            let options = if cast { PushOptions::cast() } else { PushOptions::call() };
            hand.socket.push(hand.now, "room:a", "old", json!({}), options).unwrap();
            hand.drain();
            let old = hand.last_sent("room:a", "old");
            hand.end_channel("room:a", "phx_error");
            hand.advance(hand.rejoin_after("room:a"));
            hand.answer_join("room:a");
            hand.forget();
            let unmatched = json!({"status": "error", "response": {"reason": "unmatched topic"}});
            hand.receive(&json!([null, old.msg_ref, "room:a", "phx_reply", unmatched]));
            assert_eq!(hand.take_signals(), []);
            assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
            assert_eq!(hand.socket.stats().late_replies, 1);
            // A reply to a cast of the present instance makes the channel rejoin, although no caller
            // waits for it.
            hand.socket.push(hand.now, "room:a", "new", json!({}), options).unwrap();
            hand.drain();
            let new = hand.last_sent("room:a", "new");
            hand.receive(&json!([null, new.msg_ref, "room:a", "phx_reply", unmatched]));
            hand.rejoin_after("room:a");
            assert_ne!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
        }
    }
}

/// A codec for vsn 2 that fails to encode a frame although its `check` accepted it.
#[derive(Debug)]
struct Moody;

impl Codec for Moody {
    fn vsn(&self) -> &str {
        "2.0.0"
    }

    fn decode(&self, frame: &Frame) -> Result<Incoming, DecodeError> {
        V2.decode(frame)
    }

    fn encode(&self, message: Outgoing<'_>) -> Result<Frame, EncodeError> {
        if message.event == "unspeakable" || message.topic == "room:unspeakable" {
            return Err(EncodeError::Other { message: "no words".into() });
        }
        V2.encode(message)
    }

    fn max_envelope_len(&self, topic: &str, event: &str) -> usize {
        V2.max_envelope_len(topic, event)
    }
}

/// A push that cannot be encoded blocks no other push.
#[test]
fn unencodable_push_ends_unsent() {
    let mut hand = Hand::joined(config().codec(Arc::new(Moody)).expect("no vsn in the address"));
    for options in [PushOptions::call(), PushOptions::cast()] {
        let bad = hand.socket.push(hand.now, "room:a", "unspeakable", json!({}), options).unwrap();
        let good = hand.socket.push(hand.now, "room:a", "fine", json!({}), options).unwrap();
        hand.drain();
        assert_eq!(outcomes(&hand, bad), [PushOutcome::NotSent(NotSentCause::Encoding)]);
        if options == PushOptions::call() {
            hand.answer("room:a", "fine", "ok", json!({}));
        }
        assert_eq!(outcomes(&hand, good).len(), 1);
    }
    // A join that cannot be encoded ends its channel, and the next join is written.
    hand.join("room:unspeakable");
    assert_eq!(hand.socket.channel_status("room:unspeakable"), ChannelStatus::Closed);
    hand.join("room:b");
    assert_eq!(hand.count_sent("room:b", "phx_join"), 1);
    let sizes = hand.socket.sizes();
    assert_eq!((sizes.pushes, sizes.pushes_of_channels, sizes.due_frames), (0, 0, 0));
}

#[test]
fn bad_frame_evidence_is_256_bytes() {
    for (len, kept) in [(1, 1), (256, 256), (257, 256), (100_000, 256)] {
        let mut hand = Hand::joined(config());
        hand.receive_text(&"x".repeat(len));
        let signals = hand.take_signals();
        let [Signal::ProtocolError { error }] = signals.as_slice() else { panic!("{signals:?}") };
        assert_eq!((error.evidence.as_bytes().len(), error.evidence.frame_len()), (kept, len));
        assert!(error.to_string().len() < 1_000);
    }
}

/// Topics and events with escapes survive in both directions, as in `wire/join_unicode_topic`.
/// Protocol: MSG-2, MSG-3.
#[test]
fn escaped_names_survive_both_ways() {
    let mut hand = Hand::open(config());
    let topic = "room:a \"b\"\\\n\u{1f600}\u{2028}";
    hand.join(topic);
    assert_eq!(hand.last_sent(topic, "phx_join").topic, topic);
    hand.answer_join(topic);
    hand.forget();
    let join_ref = hand.join_ref(topic);
    // Other servers may escape every character that can be escaped.
    hand.receive_text(&format!(
        "[\"{join_ref}\",null,\"room:a \\u0022b\\u0022\\\\\\n\\ud83d\\ude00\\u2028\",\"\\u0073ay\\/\",{{}}]"
    ));
    let signals = hand.take_signals();
    let [Signal::Message { topic: delivered, event, .. }] = signals.as_slice() else {
        panic!("{signals:?}")
    };
    assert_eq!((&**delivered, &**event), (topic, "say/"));
    // An escaped `phx_error` counts as `phx_error`.
    hand.receive_text(&format!(
        "[\"{join_ref}\",\"{join_ref}\",{},\"phx\\u005ferror\",{{}}]",
        Value::from(topic)
    ));
    assert!(matches!(hand.take_signals().as_slice(), [Signal::Errored { .. }, ..]));
}

#[test]
fn payloads_are_checked_only_if_strict() {
    let bad = r#"[null,null,"room:a","e",{"a":nope}]"#;
    let mut lax = Hand::joined(config());
    lax.receive_text(bad);
    let signals = lax.take_signals();
    let [Signal::Message { payload, .. }] = signals.as_slice() else { panic!("{signals:?}") };
    assert!(payload.to_value().is_err(), "the reader gets the error");

    let mut strict = Hand::joined(config().strict_payloads(true));
    strict.receive_text(bad);
    assert!(matches!(strict.take_signals().as_slice(), [Signal::ProtocolError { .. }]));
    strict.receive_text(r#"[null,null,"room:a","e",{"a":1}]"#);
    assert!(matches!(strict.take_signals().as_slice(), [Signal::Message { .. }]));
    // The response of a reply is checked too. An invalid reply does not answer its push.
    let id = push(&mut strict, "echo");
    let msg_ref = strict.last_sent("room:a", "echo").msg_ref;
    strict.receive_text(&format!(
        r#"["1","{msg_ref}","room:a","phx_reply",{{"status":"ok","response":[1,]}}]"#
    ));
    assert!(matches!(strict.take_signals().as_slice(), [Signal::ProtocolError { .. }]));
    assert_eq!(outcomes(&strict, id), []);
}
