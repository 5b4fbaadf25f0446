//! Wanting a topic and waiting for its join.

use core::pin::pin;
use core::time::Duration;

use allocation_counter::measure;
use phx_proto::client::{
    Channel, ChannelEvent, JoinFailed, JoinObstacle, JoinOptions, Left, MailboxPolicy, StreamEnd,
};
use phx_proto::event::{ChannelEnd, Interruption, JoinError};
use phx_proto::testing::Script;
use phx_proto::{JoinParams, Payload, Status};
use serde_json::json;

use super::{config, in_words, joined, now, read, settle};
use crate::bench::{Bench, poll, ready};

/// The error of waiting for the join of a channel that has ended.
fn reason(script: &Script, room: &Channel) -> JoinFailed {
    let room = room.clone();
    now(script, async move { room.joined().await }).expect_err("it has ended")
}

const MINUTE: Duration = Duration::from_secs(60);

/// A wait for a topic lasts while the backend is down, even longer than the default deadline of a
/// join.
#[test]
fn want_waits_for_backend_that_is_down() {
    let script = Script::new().time_limit(10 * MINUTE);
    let client = script.client(config());
    let orders = client.want("orders", json!({"since": 7})).expect("it is accepted");
    let waiting = script.spawn({
        let orders = orders.clone();
        async move { orders.joined().await }
    });
    for _ in 0..20 {
        script.refuse_connect(503);
    }
    assert!(script.now().as_millis() > 30_000, "longer than the default deadline");
    assert!(!waiting.is_finished());
    let join = script.connect_and_assert_join("orders");
    assert_eq!(join.json(), json!({"since": 7}));
    assert_eq!(script.finish(waiting), Ok(()));
    // While the topic is joined, the wait ends at once.
    assert_eq!(now(&script, async move { orders.joined().await }), Ok(()));
}

#[test]
fn wanted_topic_is_left_with_its_handle() {
    let script = Script::new();
    let (client, room) = joined(&script, config(), "room:lobby");
    drop(room);
    script.assert_leave("room:lobby");
    // If the handle is dropped before there is a connection, the topic is not joined at all.
    let script = Script::new();
    drop(script.client(config()).want("room:lobby", json!({})));
    script.refute_join("room:lobby");
    drop(client);
}

/// No message is lost between the join and the first read of the stream.
#[test]
fn messages_of_wanted_topic_begin_with_join() {
    let script = Script::new();
    let (_client, room) = joined(&script, config(), "room:lobby");
    script.push("room:lobby", "welcome", json!({}));
    let messages = room.messages();
    assert!(!messages.starts_now());
    let reading = read(&script, messages);
    script.close_channel("room:lobby");
    let expected = ["welcome {}", "closed: the server closed the channel"];
    assert_eq!(in_words(&script.finish(reading)), expected);
}

/// The server's reason reaches callers that wait before the refusal, and callers that wait after it.
#[test]
fn refusal_ends_want_with_its_reason() {
    let script = Script::new();
    let client = script.client(config());
    let room = client.want("room:secret", json!({})).expect("it is accepted");
    let before = script.spawn({
        let room = room.clone();
        async move { room.joined().await }
    });
    let reading = read(&script, room.messages());
    script.accept_connect();
    let join = script.assert_join("room:secret");
    script.reply(&join, "error", json!({"reason": "not\nyours"}));
    let refused = script.finish(before).expect_err("it is refused");
    assert_eq!(refused.to_string(), r"the server refused the join: not\nyours");
    assert!(refused.is_refused());
    assert_eq!(script.finish(reading).len(), 1, "the end");
    assert!(reason(&script, &room).is_refused());

    // If the first stream was dropped before the end, the reason of the end is not known.
    let room = client.want("room:secret", json!({})).expect("it is accepted");
    drop(room.messages());
    let join = script.assert_join("room:secret");
    script.reply(&join, "error", json!({"reason": "no"}));
    let expected = JoinError::NotWanted(phx_proto::event::NotWanted::new("room:secret"));
    assert_eq!(reason(&script, &room), JoinFailed::NotAccepted(expected));

    let room = client.want("room:secret", json!({})).expect("it is accepted");
    let join = script.assert_join("room:secret");
    script.reply(&join, "error", json!({"reason": "no"}));
    let after = reason(&script, &room);
    assert_eq!(after.to_string(), "the server refused the join: no");
    let push = now(&script, async move { room.push("hello", json!({})).await });
    assert!(push.expect_err("it has ended").is_safe_to_repeat());
}

#[test]
fn joined_waits_after_a_loss() {
    let script = Script::new();
    let (_client, room) = joined(&script, config(), "room:lobby");
    script.disconnect();
    let waiting = script.spawn(async move { room.joined().await });
    settle(&script);
    assert!(!waiting.is_finished());
    script.accept_connect();
    let join = script.assert_join("room:lobby");
    assert!(!waiting.is_finished());
    script.reply(&join, "ok", json!({}));
    assert_eq!(script.finish(waiting), Ok(()));
}

/// The application did not request the join of an auto-join, so a refusal of it is retried.
#[test]
fn joined_of_auto_join_outlasts_refusals() {
    let script = Script::new();
    let config = config().auto_join("orders", json!({})).expect("a topic");
    let client = script.client(config);
    let orders = client.channel("orders").expect("it is wanted");
    let waiting = script.spawn(async move { orders.joined().await });
    script.accept_connect();
    let join = script.assert_join("orders");
    script.reply(&join, "error", json!({"reason": "not yet"}));
    let join = script.assert_join("orders");
    assert!(!waiting.is_finished());
    script.reply(&join, "ok", json!({}));
    assert_eq!(script.finish(waiting), Ok(()));
    drop(client);
}

#[test]
fn join_without_deadline_outlasts_outage() {
    let script = Script::new().time_limit(10 * MINUTE);
    let client = script.client(config());
    let join = |options: JoinOptions| {
        let client = client.clone();
        script.spawn(async move { client.join_with("orders", json!({}), options).await })
    };
    let patient = join(JoinOptions::new().no_deadline());
    let other = join(JoinOptions::new());
    for _ in 0..20 {
        script.refuse_connect(503);
    }
    match script.finish(other) {
        Err(failed @ JoinFailed::Deadline { last: Some(JoinObstacle::Disconnected(_)) }) => {
            assert!(failed.is_timeout());
        }
        other => panic!("{other:?}"),
    }
    assert!(!patient.is_finished());
    script.connect_and_assert_join("orders");
    assert!(script.finish(patient).is_ok());
}

/// A disconnect ends a handle. After the next `connect` another handle can want the same topic, and the
/// ended one can no longer set its parameters.
#[test]
fn ended_handle_sets_no_join_params() {
    let script = Script::new();
    let client = script.client(config());
    let ended = client.want("orders", json!({"v": 1})).expect("it is accepted");
    settle(&script);
    now(&script, {
        let client = client.clone();
        async move { client.disconnect().await }
    });
    client.connect();
    let wanted = client.want("orders", json!({"v": 2})).expect("it is accepted");
    let refused = ended.set_join_params(json!({"v": 3}));
    assert!(matches!(refused, Err(JoinError::NotWanted(_))), "{refused:?}");
    assert_eq!(wanted.set_join_params(json!({"v": 4})), Ok(()));
}

/// A second join of a topic can replace the parameters of the first.
#[test]
fn join_replaces_params_when_asked_to() {
    let script = Script::new();
    let client = script.client(config());
    let made_by =
        |name: &'static str| JoinParams::from_fn(move |_| Payload::from(json!({ "by": name })));
    let first = client.want("orders", made_by("first")).expect("it is accepted");
    let join = script.connect_and_assert_join("orders");
    assert_eq!(join.json(), json!({"by": "first"}));
    let conflict = client.want("orders", made_by("second")).expect_err("another function");
    assert_eq!(conflict, JoinError::ConflictingParams { topic: "orders".into() });
    assert!(conflict.to_string().contains("replace_params"), "{conflict}");

    let replace = JoinOptions::new().replace_params();
    let second =
        client.want_with("orders", made_by("second"), replace.clone()).expect("it is accepted");
    script.refute_join("orders");
    script.disconnect();
    let join = script.connect_and_assert_join("orders");
    assert_eq!(join.json(), json!({"by": "second"}));
    // Both handles count: the topic is left when the last of them is dropped.
    drop(first);
    script.refute_leave("orders");
    drop(second);
    script.assert_leave("orders");
    // Parameters that can never be sent replace nothing.
    let large = json!("x".repeat(9 << 20));
    let third = client.want_with("orders", large, replace);
    assert!(matches!(third, Err(JoinError::TooLarge { .. })), "{third:?}");
}

/// A function of join parameters may own a value that calls the client when it is dropped. The call takes
/// the lock.
#[test]
#[allow(clippy::disallowed_methods, reason = "a deadlock can be seen only from another thread")]
fn replaced_function_is_dropped_outside_the_lock() {
    struct Caller(phx_proto::client::WeakClient);
    impl Drop for Caller {
        fn drop(&mut self) {
            drop(self.0.upgrade().map(|client| client.status()));
        }
    }
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let script = Script::new();
        let client = script.client(config());
        let function = || {
            let caller = Caller(client.downgrade());
            JoinParams::from_fn(move |_| {
                let _ = &caller;
                Payload::empty()
            })
        };
        let room = client.want("orders", function()).expect("it is accepted");
        let replace = JoinOptions::new().replace_params();
        for _ in 0..3 {
            drop(client.want_with("orders", function(), replace.clone()).expect("it is accepted"));
        }
        drop(room);
        let _ = done.send(());
    });
    let ended = wait.recv_timeout(Duration::from_secs(10));
    ended.expect("neither a deadlock nor a panic");
}

#[test]
fn rejoin_starts_over_from_server_state() {
    let script = Script::new();
    let (client, room) = joined(&script, config(), "room:lobby");
    let reading = read(&script, room.messages());
    room.rejoin().expect("it is joined");
    let join = script.assert_join("room:lobby");
    script.refute_leave("room:lobby");
    script.reply(&join, "ok", json!({"fresh": true}));
    script.close_channel("room:lobby");
    match &script.finish(reading)[..] {
        [
            ChannelEvent::Interrupted { cause: Interruption::Resync, count: 1 },
            ChannelEvent::Resumed { response },
            ChannelEvent::Closed(_),
        ] => assert_eq!(response.to_value().expect("JSON"), json!({"fresh": true})),
        other => panic!("{other:?}"),
    }
    assert!(room.rejoin().is_err(), "it has ended");
    // A handle releases a topic that other handles still hold.
    let one = client.want("room:lobby", json!({})).expect("it is accepted");
    let join = script.assert_join("room:lobby");
    script.reply(&join, "ok", json!({}));
    let other = client.channel("room:lobby").expect("it is wanted");
    let clone = one.clone();
    assert_eq!(now(&script, async move { one.leave().await }), Left::Detached);
    assert!(clone.rejoin().is_err());
    script.refute_join("room:lobby");
    drop(other);
}

/// Of two clones of a handle, one waits for the join and the other releases the interest. Another
/// handle keeps the topic.
#[test]
fn joined_ends_with_left_handle() {
    let script = Script::new();
    let client = script.client(config());
    let room = client.want("room:lobby", json!({})).expect("it is accepted");
    let other = client.channel("room:lobby").expect("it is wanted");
    let waiting = script.spawn({
        let room = room.clone();
        async move { room.joined().await }
    });
    let going_on = script.spawn(async move { other.joined().await });
    settle(&script);
    assert_eq!(now(&script, async move { room.leave().await }), Left::Detached);
    assert_eq!(script.finish(waiting), Err(JoinFailed::Ended(ChannelEnd::Left)));
    assert!(!going_on.is_finished());
    script.connect_and_assert_join("room:lobby");
    assert_eq!(script.finish(going_on), Ok(()));
}

#[test]
fn disconnect_ends_wanted_topics() {
    let script = Script::new();
    let client = script.client(config());
    let room = client.want("room:lobby", json!({})).expect("it is accepted");
    let waiting = script.spawn({
        let room = room.clone();
        async move { room.joined().await }
    });
    settle(&script);
    now(&script, {
        let client = client.clone();
        async move { client.disconnect().await }
    });
    assert_eq!(script.finish(waiting), Err(JoinFailed::Ended(ChannelEnd::Disconnected)));
    assert_eq!(reason(&script, &room), JoinFailed::Ended(ChannelEnd::Disconnected));
    assert_eq!(client.status(), Status::Closed);
    let closed = client.want("room:lobby", json!({}));
    assert!(matches!(closed, Err(JoinError::Closed)), "{closed:?}");
}

#[test]
fn attached_handle_has_its_own_policy() {
    let script = Script::new();
    let (client, _room) = joined(&script, config().mailbox(1, 1 << 20).expect("one"), "room:lobby");
    let options = JoinOptions::new().mailbox(MailboxPolicy::Close);
    let strict = client.channel_with("room:lobby", options.clone()).expect("it is wanted");
    let messages = strict.messages();
    assert!(messages.starts_now());
    for n in 0..2 {
        script.push("room:lobby", "tick", super::number(n));
    }
    let events = script.finish(read(&script, messages));
    assert_eq!(events.last(), Some(&ChannelEvent::Closed(StreamEnd::Overflow)), "{events:?}");
    assert!(client.channel_with("room:other", options).is_err());
}

#[test]
fn dropped_joined_keeps_nothing() {
    let bench = Bench::new(|config| config);
    let client = bench.client.clone();
    let room = client.want("room:lobby", json!({})).expect("it is accepted");
    let look = || assert!(poll(pin!(room.joined())).is_pending());
    look();
    let info = measure(|| (0..100).for_each(|_| look()));
    assert!(info.bytes_current < 200, "{} bytes for futures that are gone", info.bytes_current);
}

#[test]
fn joined_ends_with_driver() {
    let bench = Bench::new(|config| config);
    let room = bench.client.want("room:lobby", json!({})).expect("it is accepted");
    let mut waiting = pin!(room.joined());
    assert!(poll(waiting.as_mut()).is_pending());
    drop(bench.driver);
    assert_eq!(ready(waiting), Err(JoinFailed::Ended(ChannelEnd::Disconnected)));
}
