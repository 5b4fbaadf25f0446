//! Scenarios of one channel on an open connection.

use core::pin::pin;
use core::time::Duration;

use futures_util::future::{Either, join_all, select};
use serde_json::{Map, Value, json};

use super::super::stage::{Stage, driven_until, signal, until};
use super::{HOUR, echoes, interrupted, json_of, next, next_json, next_message, ok, resumed};
use crate::rt::phx::client::{JoinFailed, JoinObstacle, Left, PushFailed, StreamEnd};
use crate::rt::phx::event::{
    ChannelEnd, Interruption, LeaveOutcome, PushOptions, RejectionKind, UnknownCause,
};
use crate::rt::phx::presence::PresenceChange;
use crate::rt::phx::socket::ChannelStatus;
use crate::rt::phx::{
    Channel, ChannelEvent, JoinOptions, Payload, PresenceEvent, PresenceStream, Signal,
};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Joins with each kind of answer: ok, slow, rejected, unmatched, and crashing, which is retried. Two
/// handles share one join (supabase/supabase#12467).
pub(in super::super) async fn joins(stage: &mut Stage) {
    let client = stage.connect().await;
    let topic = stage.topic("room", "");
    let room = client.join(topic.as_str(), json!({"user": 7})).await.unwrap();
    let response = json_of(&room.join_response().expect("it is joined"));
    assert_eq!(response, json!({"topic": topic, "params": {"user": 7}}));
    // A second handle for the same join.
    let again = client.join(topic.as_str(), json!({"user": 7})).await.unwrap();
    echoes(&again, json!({"n": 1})).await;
    assert_eq!(again.leave().await, Left::Detached);
    echoes(&room, json!({"n": 2})).await;

    let plain = client.join(stage.topic("room", "-plain"), json!({"override": "plain"})).await;
    assert_eq!(json_of(&plain.unwrap().join_response().unwrap()), json!({}));

    // Messages that follow the ok at once are received.
    let welcome = client.join(stage.topic("room", "-welcome"), json!({"push_after": 3})).await;
    let mut messages = welcome.unwrap().messages();
    for i in 1..=3 {
        assert_eq!(next_json(&mut messages, "joined_push").await, json!({"i": i}));
    }

    let slow = client.join(stage.topic("slowjoin", ""), json!({"ms": 100})).await.unwrap();
    assert_eq!(json_of(&slow.join_response().unwrap())["slept"], 100);

    for (topic, kind, reason) in [
        (stage.topic("deny", ""), RejectionKind::Application, "unauthorized"),
        (stage.topic("nothing", ""), RejectionKind::UnmatchedTopic, "unmatched topic"),
    ] {
        match client.join(topic.as_str(), json!({})).await {
            Err(JoinFailed::Rejected(rejection)) => {
                assert_eq!(rejection.kind, kind);
                assert_eq!(json_of(&rejection.response), json!({"reason": reason}));
            }
            other => panic!("{topic}: {other:?}"),
        }
    }
    // A join whose handler raises may succeed the next time, so the client retries it until the
    // deadline.
    let mut signals = client.signals();
    let options = JoinOptions::new().deadline(HOUR);
    let boom = client.join_with(stage.topic("boom", ""), json!({}), options);
    let deadline = async {
        for _ in 0..2 {
            let rejected = |signal| matches!(signal, Signal::JoinRejected { .. }).then_some(());
            signal(&mut signals, rejected).await;
        }
        stage.clock().leap(HOUR);
    };
    match futures_util::join!(boom, deadline).0 {
        Err(JoinFailed::Deadline { last: Some(JoinObstacle::Rejected(rejection)) }) => {
            assert_eq!(rejection.kind, RejectionKind::JoinCrashed);
        }
        other => panic!("{other:?}"),
    }
    echoes(&room, json!({"n": 3})).await;
}

/// Topics of `Config::auto_join` are joined when `connect` returns.
pub(in super::super) async fn auto_joins(stage: &mut Stage) {
    let topics = [stage.topic("room", "-a"), stage.topic("room", "-b")];
    let mut config = stage.config();
    for topic in &topics {
        config = config.auto_join(topic.as_str(), json!({"auto": true})).unwrap();
    }
    let client = stage.connect_with(config).await.unwrap();
    for topic in &topics {
        let room = client.channel(topic.as_str()).unwrap();
        echoes(&room, json!({"on": topic})).await;
        let response = json_of(&room.join_response().unwrap());
        assert_eq!(response["params"], json!({"auto": true}));
    }
    assert!(client.channel(stage.topic("room", "-other")).is_err());
}

/// A leave ends every handle of the topic, which can be joined again at once.
pub(in super::super) async fn leaves(stage: &mut Stage) {
    let client = stage.connect().await;
    let topic = stage.topic("room", "");
    for round in 0..3 {
        let room = client.join(topic.as_str(), json!({"round": round})).await.unwrap();
        let mut messages = room.messages();
        let other = client.join(topic.as_str(), json!({"round": round})).await.unwrap();
        echoes(&room, json!({"round": round})).await;
        drop(other);
        let left = client.leave_topic(&topic).await;
        assert_eq!(left, Ok(LeaveOutcome::Acked));
        let end = next(&mut messages).await;
        assert_eq!(end, ChannelEvent::Closed(StreamEnd::Channel(ChannelEnd::Left)));
        let push = room.push("echo", json!({})).await;
        assert!(matches!(push, Err(PushFailed::NotAccepted(_))), "{push:?}");
        assert_eq!(room.leave().await, Left::Gone);
    }
    // Dropping the last handle leaves too, and the topic is free at once.
    drop(client.join(topic.as_str(), json!({"round": 3})).await.unwrap());
    let room = client.join(topic.as_str(), json!({"round": 4})).await.unwrap();
    assert_eq!(json_of(&room.join_response().unwrap())["params"], json!({"round": 4}));
}

/// Replies with every status, a second reply, a missing reply, and slow replies next to quick ones.
pub(in super::super) async fn replies_of_every_status(stage: &mut Stage) {
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let nested = json!({"a": [1, 2.5, null, true, {"b": "ü\u{2028}\"\\\n"}], "": {}});
    echoes(&room, nested.clone()).await;
    for (event, status, response) in [
        ("ack", "ok", json!({})),
        ("nack", "error", json!({})),
        ("fail", "error", json!({"reason": "nope"})),
        ("odd_status", "maybe", json!({"note": "neither ok nor error"})),
        ("reply_twice", "ok", json!({"nr": 1, "p": nested})),
    ] {
        let reply = room.push(event, nested.clone()).await.unwrap();
        assert_eq!((&*reply.status, json_of(&reply.response)), (status, response), "{event}");
        assert_eq!(reply.is_ok(), status == "ok");
    }
    until("the second reply is counted", || client.stats().late_replies == 1).await;

    let options = PushOptions::call().timeout(HOUR);
    let mut silent = pin!(room.push_with("noreply", json!({}), options));
    driven_until(&mut silent, "it is sent", || client.stats().pushes_in_flight == 1).await;
    stage.clock().leap(HOUR);
    assert_eq!(silent.await, Err(PushFailed::TimedOut));
    room.cast("ack", json!({})).await.unwrap();

    // A slow reply does not delay the others, and every push gets its own reply.
    let room = &room;
    let quick = || async {
        let echo = |n: u32| async move {
            assert_eq!(json_of(&ok(room, "echo", json!({"n": n})).await), json!({"n": n}));
        };
        join_all((0..100).map(echo)).await;
        "quick"
    };
    let slow = |ms: u64| async move {
        let push = room.push_with("slow", json!({"ms": ms}), options).await;
        assert_eq!(json_of(&push.unwrap().ok().unwrap()), json!({"ms": ms}));
        "slow"
    };
    match select(pin!(slow(3_600_000)), pin!(quick())).await {
        Either::Left(_) => panic!("the quick ones waited for the slow one"),
        // The drop cancels the slow push.
        Either::Right((quick, _)) => assert_eq!(quick, "quick"),
    }
    futures_util::join!(slow(50), quick());
    echoes(room, json!({})).await;
}

/// Binary pushes, replies, messages and broadcasts.
pub(in super::super) async fn binary_both_ways(stage: &mut Stage) {
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let mut messages = room.messages();
    let every_byte: Vec<u8> = (0..=255).collect();
    for bytes in [every_byte.clone(), Vec::new(), b"{}".to_vec()] {
        let reply = ok(&room, "echo", Payload::binary(bytes.clone())).await;
        assert!(reply.is_binary());
        assert_eq!(reply.as_bytes(), bytes);
    }
    let reply = room.push("fail", Payload::binary(every_byte.clone())).await.unwrap();
    assert_eq!((&*reply.status, reply.response.as_bytes()), ("error", &*every_byte));
    // A binary push may get a JSON reply, and a JSON push binary messages.
    assert_eq!(json_of(&ok(&room, "ack", Payload::binary(every_byte)).await), json!({}));
    ok(&room, "push_me_binary", json!({"n": 3, "size": 1_000})).await;
    for i in 1..=3 {
        let message = next_message(&mut messages).await;
        assert_eq!(message.event(), "pushed_bin");
        assert!(message.payload().is_binary());
        assert_eq!(message.payload().as_bytes(), [i; 1_000]);
    }
    // A broadcast, which has no refs, reaches the sender too: wire/broadcast_binary.
    ok(&room, "shout", Payload::binary(vec![1, 2, 3])).await;
    assert_eq!(next_message(&mut messages).await.payload().as_bytes(), [1, 2, 3]);
}

/// Broadcasts reach all members in order; `broadcast_from` skips the sender.
pub(in super::super) async fn broadcasts(stage: &mut Stage) {
    let (alice, bob) = (stage.connect().await, stage.connect().await);
    let topic = stage.topic("room", "");
    let alice = alice.join(topic.as_str(), json!({})).await.unwrap();
    let bob = bob.join(topic.as_str(), json!({})).await.unwrap();
    let (mut to_alice, mut to_bob) = (alice.messages(), bob.messages());
    for n in 0..50 {
        ok(&alice, "shout", json!({"n": n})).await;
    }
    for n in 0..50 {
        assert_eq!(next_json(&mut to_alice, "shout").await, json!({"n": n}));
        assert_eq!(next_json(&mut to_bob, "shout").await, json!({"n": n}));
    }
    // The sender does not receive this broadcast. The next one arrives, so the first was not merely
    // late.
    bob.cast("shout_from", json!({"from": "bob"})).await.unwrap();
    ok(&bob, "shout", json!({"n": 50})).await;
    assert_eq!(next_json(&mut to_bob, "shout").await, json!({"n": 50}));
    assert_eq!(next_json(&mut to_alice, "shout").await, json!({"from": "bob"}));
    assert_eq!(next_json(&mut to_alice, "shout").await, json!({"n": 50}));
}

/// Reads until the list equals `expected`, and returns the changes until then.
async fn becomes(presence: &mut PresenceStream, expected: Value) -> Vec<PresenceChange> {
    let mut changes = Vec::new();
    while present(presence) != expected || !presence.is_synced() {
        match presence.next().await.expect("the stream is open") {
            PresenceEvent::Change(change) => changes.push(change),
            PresenceEvent::Synced | PresenceEvent::Interrupted { .. } => {}
            other => panic!("expected a change, got {other:?}"),
        }
    }
    changes
}

fn meta(name: &str) -> Value {
    json!({"name": name})
}

/// The list of presences with their metas.
fn present(presence: &PresenceStream) -> Value {
    let entry = |(key, entry): (&str, &crate::rt::phx::presence::PresenceEntry)| {
        let metas = entry.metas.iter().map(|meta| meta.data.clone());
        (key.to_owned(), Value::Array(metas.collect()))
    };
    Value::Object(presence.list().map(entry).collect::<Map<_, _>>())
}

/// Presence: joins, updates, a second device, leaves, and the new state after a crash of the channel.
pub(in super::super) async fn presence(stage: &mut Stage) {
    let topic = stage.topic("presence", "");
    let tracked = |key: &str, name: &str| json!({"key": key, "meta": meta(name)});
    let clients = (stage.connect().await, stage.connect().await, stage.connect().await);
    let alice = clients.0.join(topic.as_str(), tracked("alice", "desk")).await.unwrap();
    let mut seen = alice.presence();
    becomes(&mut seen, json!({"alice": [meta("desk")]})).await;

    let bob = clients.1.join(topic.as_str(), tracked("bob", "phone")).await.unwrap();
    let both = json!({"alice": [meta("desk")], "bob": [meta("phone")]});
    let changes = becomes(&mut seen, both.clone()).await;
    let joined = |change: &PresenceChange| matches!(change, PresenceChange::Join { key, first: true, .. } if key == "bob");
    assert!(changes.iter().any(joined), "{changes:?}");
    // A client that joins later gets the whole list with the state.
    becomes(&mut bob.presence(), both).await;

    ok(&bob, "update", json!({"meta": meta("train")})).await;
    let moved = json!({"alice": [meta("desk")], "bob": [meta("train")]});
    let changes = becomes(&mut seen, moved.clone()).await;
    match changes.last() {
        Some(PresenceChange::Update { key, before, after }) => {
            assert_eq!(
                (&**key, &before.data, &after.data),
                ("bob", &meta("phone"), &meta("train"))
            );
            assert_eq!(after.phx_ref_prev.as_ref(), Some(&before.phx_ref));
        }
        other => panic!("{other:?}"),
    }

    // A second device adds a meta to its key, not a second key.
    let second = clients.2.join(topic.as_str(), tracked("alice", "watch")).await.unwrap();
    let twice = json!({"alice": [meta("desk"), meta("watch")], "bob": [meta("train")]});
    becomes(&mut seen, twice).await;
    assert_eq!(second.leave().await, Left::Left(LeaveOutcome::Acked));
    let changes = becomes(&mut seen, moved).await;
    let left = |change: &PresenceChange| matches!(change, PresenceChange::Leave { key, last: false, .. } if key == "alice");
    assert!(changes.iter().any(left), "{changes:?}");

    ok(&bob, "track_extra", json!({"key": "carol", "meta": meta("guest")})).await;
    ok(&bob, "untrack", json!({})).await;
    let carol = json!({"alice": [meta("desk")], "carol": [meta("guest")]});
    let changes = becomes(&mut seen, carol.clone()).await;
    let left = |change: &PresenceChange| matches!(change, PresenceChange::Leave { key, last: true, .. } if key == "bob");
    assert!(changes.iter().any(left), "{changes:?}");

    // The client's own channel crashes: the state of the next join corrects the list.
    alice.cast("crash", json!({})).await.unwrap();
    loop {
        match seen.next().await.expect("the stream is open") {
            PresenceEvent::Interrupted { cause, .. } => {
                break assert_eq!(cause, Interruption::Crashed);
            }
            PresenceEvent::Change(_) | PresenceEvent::Synced => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(!seen.is_synced());
    becomes(&mut seen, carol).await;
    // A leave removes everything that the client tracked.
    bob.leave().await;
    becomes(&mut seen, json!({"alice": [meta("desk")]})).await;
}

/// A crashed channel ends its pushes as unknown and is joined again (mobileoverlord/phoenix_client#25);
/// the other channel is not affected.
pub(in super::super) async fn crash_and_rejoin(stage: &mut Stage) {
    let client = stage.connect().await;
    let params = json!({"user": 7});
    let room = client.join(stage.topic("room", ""), params.clone()).await.unwrap();
    let other = client.join(stage.topic("room", "-other"), json!({})).await.unwrap();
    let (mut messages, mut others) = (room.messages(), other.messages());
    // Each of these crashes the channel: a handler that raises, an abnormal stop reason, a killed
    // process, an event without a handler.
    for event in ["crash", "stop_error", "kill_me", "no_such_event"] {
        let (push, unanswered) = (room.push(event, json!({})), room.push("noreply", json!({})));
        let (unanswered, push) = futures_util::join!(unanswered, push);
        let unknown = Err(PushFailed::Unknown(UnknownCause::ChannelCrashed));
        assert_eq!(push, unknown, "{event}");
        assert_eq!(unanswered, unknown, "{event}");
        assert_eq!(interrupted(&mut messages).await, Interruption::Crashed, "{event}");
        assert_eq!(resumed(&mut messages).await["params"], params, "{event}");
        echoes(&room, json!({"after": event})).await;
    }
    // The other channel of the socket is not affected.
    ok(&other, "shout", json!({"n": 1})).await;
    assert_eq!(next_json(&mut others, "shout").await, json!({"n": 1}));
    assert_eq!(client.stats().lost_connections, 0);
}

/// A channel that the server closed (`phx_close`) stays closed.
pub(in super::super) async fn server_closes_channel(stage: &mut Stage) {
    let client = stage.connect().await;
    let topic = stage.topic("room", "");
    for event in ["stop", "stop_shutdown", "leave_me", "stop_reply"] {
        let room = client.join(topic.as_str(), json!({})).await.unwrap();
        let mut messages = room.messages();
        let push = room.push(event, json!({})).await;
        if event == "stop_reply" {
            assert_eq!(json_of(&push.unwrap().ok().unwrap()), json!({"bye": true}));
        } else {
            assert_eq!(push, Err(PushFailed::Unknown(UnknownCause::ChannelClosed)), "{event}");
        }
        // The client does not join it again.
        let end = StreamEnd::Channel(ChannelEnd::ClosedByServer);
        assert_eq!(next(&mut messages).await, ChannelEvent::Closed(end), "{event}");
        assert_eq!(room.status(), ChannelStatus::Closed);
    }
}

/// Payloads of one mebibyte, text and binary, in both directions.
pub(in super::super) async fn large_payloads(stage: &mut Stage) {
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let mut messages = room.messages();
    let text = "0123456789 äöü \u{1f980}\n\"".repeat((1 << 20) / 27);
    echoes(&room, json!({"text": text})).await;
    let bytes: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    let reply = ok(&room, "echo", Payload::binary(bytes.clone())).await;
    assert!(reply.as_bytes() == bytes);
    room.cast("big", json!({"bytes": 1 << 20})).await.unwrap();
    let big = next_json(&mut messages, "big").await;
    assert!(big["data"].as_str().is_some_and(|data| data.len() == 1 << 20));
    // Several large payloads at the same time, with a small one between them.
    let (a, b, c) = futures_util::join!(
        ok(&room, "echo", Payload::binary(bytes.clone())),
        ok(&room, "ack", json!({})),
        ok(&room, "echo", Payload::binary(bytes.clone())),
    );
    assert!(a.as_bytes() == bytes && c.as_bytes() == bytes);
    assert_eq!(json_of(&b), json!({}));
}

/// A full mailbox drops messages and counts them; heartbeats continue.
pub(in super::super) async fn slow_consumer(stage: &mut Stage) {
    let config = stage.config().mailbox(4, 1 << 20).unwrap();
    let config = config.heartbeat_interval(MS(20));
    let client = stage.connect_with(config).await.unwrap();
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let mut messages = room.messages();
    // `connect` also reads signals from a mailbox, which may drop signals of heartbeats before
    // `connect` returns.
    let drops = client.stats().mailbox_drops;
    room.cast("push_me", json!({"n": 1_000})).await.unwrap();
    until("everything has arrived", || client.stats().messages == 1_000).await;
    // Heartbeats are sent and answered although the mailbox is not read.
    let before = client.stats();
    until("heartbeats go on", || {
        let stats = client.stats();
        stats.frames_out >= before.frames_out + 3 && stats.frames_in >= before.frames_in + 3
    })
    .await;
    assert_eq!(client.stats().mailbox_drops, drops + 996);
    assert_eq!(next(&mut messages).await, ChannelEvent::Lagged(996));
    for i in 997..=1_000 {
        assert_eq!(next_json(&mut messages, "pushed").await, json!({"i": i}));
    }
    echoes(&room, json!({"still": "there"})).await;
    assert_eq!(client.stats().lost_connections, 0);
}

/// Fifty channels on one connection, which all come back after it was lost.
pub(in super::super) async fn fifty_channels(stage: &mut Stage) {
    let client = stage.connect().await;
    let topics: Vec<String> = (0..50).map(|n| stage.topic("room", &format!("-{n}"))).collect();
    let join = |topic| client.join(topic, json!({"own": topic}));
    let rooms = join_all(topics.iter().map(String::as_str).map(join)).await;
    let rooms: Vec<Channel> = rooms.into_iter().map(Result::unwrap).collect();
    let mut streams: Vec<_> = rooms.iter().map(Channel::messages).collect();
    let speak = |room: &Channel| {
        let (room, own) = (room.clone(), json!({"own": &**room.topic()}));
        async move { assert_eq!(json_of(&ok(&room, "shout", own).await), json!({})) }
    };
    join_all(rooms.iter().map(speak)).await;
    for (messages, topic) in streams.iter_mut().zip(&topics) {
        assert_eq!(next_json(messages, "shout").await, json!({"own": topic}));
    }
    // All are joined again after a lost connection, each with its own parameters.
    rooms[0].cast("kill_transport", json!({})).await.unwrap();
    for (messages, topic) in streams.iter_mut().zip(&topics) {
        let cause = interrupted(messages).await;
        assert!(matches!(cause, Interruption::Disconnected(_)), "{cause:?}");
        assert_eq!(resumed(messages).await["params"], json!({"own": topic}));
    }
    join_all(rooms.iter().map(speak)).await;
    let left = join_all(rooms.into_iter().map(Channel::leave)).await;
    // The streams keep their channels alive, but a leave ends every handle of its channel.
    assert!(left.iter().all(|left| *left == Left::Left(LeaveOutcome::Acked)), "{left:?}");
}

/// Topics, events and payloads with Unicode, quotes and control characters.
pub(in super::super) async fn unicode_topics(stage: &mut Stage) {
    let client = stage.connect().await;
    for suffix in
        ["-ünïcödé", "-日本語 🦀", "-\"quoted\" \\ and\nbroken\u{2028}", "-%2F?a=b#c", "-\u{0}"]
    {
        let topic = stage.topic("room", suffix);
        let room = client.join(topic.as_str(), json!({"ключ": "значение"})).await.unwrap();
        let response = json_of(&room.join_response().unwrap());
        assert_eq!(response, json!({"topic": topic, "params": {"ключ": "значение"}}));
        let mut messages = room.messages();
        echoes(&room, json!({"🦀": "\u{0}\u{7f}\u{ffff}"})).await;
        ok(&room, "shout", json!({"from": topic})).await;
        assert_eq!(next_json(&mut messages, "shout").await, json!({"from": topic}));
        let reply = ok(&room, "echo", Payload::binary(topic.clone().into_bytes())).await;
        assert_eq!(reply.as_bytes(), topic.as_bytes());
        room.cast("push_me", json!({"n": 1, "event": "événement \"1\""})).await.unwrap();
        assert_eq!(next_json(&mut messages, "événement \"1\"").await, json!({"i": 1}));
    }
}
