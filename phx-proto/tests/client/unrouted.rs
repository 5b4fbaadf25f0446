//! The stream of messages that no channel takes.

use core::pin::pin;
use core::time::Duration;

use futures_util::stream::FusedStream as _;
use phx_proto::Signal;
use phx_proto::client::{ClientEvent, MailboxOptions, MailboxPolicy, Unrouted, UnroutedEvent};
use serde_json::{Value, json};

use crate::bench::{Bench, poll, ready};

fn data(topic: &str, n: u64) -> Value {
    json!([null, null, topic, "subscription:data", {"n": n}])
}

fn next(unrouted: &mut Unrouted) -> Option<UnroutedEvent> {
    ready(pin!(unrouted.next()))
}

fn is_empty(unrouted: &mut Unrouted) -> bool {
    poll(pin!(unrouted.next())).is_pending()
}

/// The topic and the number of a message.
fn message(event: Option<UnroutedEvent>) -> (String, u64) {
    let Some(UnroutedEvent::Message(message)) = event else { panic!("{event:?}") };
    let payload = message.payload().to_value().expect("JSON");
    (message.topic().to_string(), payload["n"].as_u64().expect("a number"))
}

/// Absinthe sends the data of a subscription on a topic that no client joins.
/// Protocol: EVENT-6.
#[test]
fn stream_yields_messages_without_channel() {
    let mut bench = Bench::new(|config| config);
    let mut unrouted = bench.client.unrouted();
    bench.server_sends(&data("doc:1", 1));
    bench.server_sends(&data("doc:2", 2));
    assert_eq!(message(next(&mut unrouted)), ("doc:1".to_owned(), 1));
    assert_eq!(message(next(&mut unrouted)), ("doc:2".to_owned(), 2));
    assert!(is_empty(&mut unrouted));
    let stats = bench.client.stats();
    assert_eq!((stats.messages, stats.messages_not_joined, stats.messages_unrouted), (2, 0, 0));
    // The stream continues on the next connection.
    bench.cut();
    bench.advance(Duration::from_secs(60));
    bench.server_sends(&data("doc:3", 3));
    assert_eq!(message(next(&mut unrouted)), ("doc:3".to_owned(), 3));
}

#[test]
fn unrouted_is_counted_without_stream() {
    let mut bench = Bench::new(|config| config);
    bench.server_sends(&data("doc:1", 1));
    let mut unrouted = bench.client.unrouted();
    assert!(is_empty(&mut unrouted), "it begins when it is made");
    bench.server_sends(&data("doc:1", 2));
    assert_eq!(message(next(&mut unrouted)).1, 2);
    drop(unrouted);
    bench.server_sends(&data("doc:1", 3));
    let mut again = bench.client.unrouted();
    assert!(is_empty(&mut again));
    bench.server_sends(&data("doc:1", 4));
    assert_eq!(message(next(&mut again)).1, 4);
    let stats = bench.client.stats();
    assert_eq!((stats.messages, stats.messages_not_joined, stats.messages_unrouted), (2, 2, 2));
}

/// Frames that belong to the protocol or to a channel are never unrouted.
/// Protocol: EVENT-6.
#[test]
fn frames_of_channels_are_not_unrouted() {
    let mut bench = Bench::new(|config| config);
    let mut unrouted = bench.client.unrouted();
    let room = bench.joined("room:lobby");
    for frame in [
        json!([null, null, "room:lobby", "msg", {}]),
        json!(["99", null, "room:lobby", "msg", {}]),
        json!(["7", null, "doc:1", "msg", {}]),
        json!(["not ours", null, "doc:1", "msg", {}]),
        json!([null, null, "doc:1", "phx_close", {}]),
        json!([null, null, "doc:1", "phx_error", {}]),
        json!([null, null, "doc:1", "phx_other", {}]),
        json!([null, "9", "doc:1", "phx_reply", {"status": "ok", "response": {}}]),
    ] {
        bench.server_sends(&frame);
    }
    assert!(is_empty(&mut unrouted));
    // A topic that is wanted, and not joined yet.
    let other = bench.client.want("room:other", json!({})).expect("it is accepted");
    bench.settle();
    bench.server_sends(&data("room:other", 1));
    drop(other);
    bench.settle();
    // A topic that is being left.
    bench.server_sends(&data("room:other", 1));
    drop(room);
    bench.settle();
    bench.server_sends(&data("room:lobby", 1));
    assert!(is_empty(&mut unrouted));
}

/// A broadcast has no join_ref, so a late one of a channel that was left looks like an unrouted
/// message. It may arrive after the reply to the leave, because another process sends it.
#[test]
fn late_broadcast_of_left_topic_is_not_unrouted() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    drop(room);
    bench.settle();
    bench.reply("ok", json!({}));
    // The stream is made after the leave.
    let mut unrouted = bench.client.unrouted();
    bench.server_sends(&data("room:lobby", 1));
    assert!(is_empty(&mut unrouted));
    let stats = bench.client.stats();
    assert_eq!((stats.messages_not_joined, stats.messages_unrouted), (1, 0));
    // The subscriptions of the server end with the connection.
    bench.cut();
    bench.advance(Duration::from_secs(60));
    bench.server_sends(&data("room:lobby", 2));
    assert_eq!(message(next(&mut unrouted)).1, 2);
}

#[test]
fn slow_consumer_sees_lagged() {
    let mut bench = Bench::new(|config| config.mailbox(2, 1 << 20).expect("not zero"));
    let mut unrouted = bench.client.unrouted();
    let newest = MailboxOptions::new().policy(MailboxPolicy::DropNewest);
    let mut first = bench.client.unrouted_with(newest.messages(1));
    let rejoin = MailboxOptions::new().policy(MailboxPolicy::Rejoin).messages(1);
    let mut last = bench.client.unrouted_with(rejoin);
    for n in 0..5 {
        bench.server_sends(&data(&format!("doc:{n}"), n));
    }
    assert_eq!(next(&mut unrouted), Some(UnroutedEvent::Lagged(3)));
    assert_eq!((message(next(&mut unrouted)).1, message(next(&mut unrouted)).1), (3, 4));
    assert_eq!(message(next(&mut first)).1, 0);
    assert_eq!(next(&mut first), Some(UnroutedEvent::Lagged(4)));
    assert_eq!(next(&mut last), Some(UnroutedEvent::Lagged(4)));
    assert_eq!(message(next(&mut last)).1, 4);
    assert_eq!(bench.client.stats().mailbox_drops, 3 + 4 + 4);
    assert!(is_empty(&mut unrouted) && is_empty(&mut first) && is_empty(&mut last));
}

#[test]
fn full_mailbox_can_end_stream() {
    let mut bench = Bench::new(|config| config);
    let close = MailboxOptions::new().policy(MailboxPolicy::Close).messages(2);
    let mut unrouted = bench.client.unrouted_with(close);
    for n in 0..5 {
        bench.server_sends(&data("doc:1", n));
    }
    assert_eq!((message(next(&mut unrouted)).1, message(next(&mut unrouted)).1), (0, 1));
    assert_eq!(next(&mut unrouted), Some(UnroutedEvent::Lagged(1)));
    assert!(!unrouted.is_terminated());
    assert_eq!(next(&mut unrouted), Some(UnroutedEvent::Overflow));
    assert!(unrouted.is_terminated());
    assert_eq!((next(&mut unrouted), next(&mut unrouted)), (None, None));
}

/// A stream that has overflowed takes no message, even if the program still holds it. The messages that
/// follow are counted, unless another stream takes them.
#[test]
fn overflowed_stream_hides_no_message() {
    let mut bench = Bench::new(|config| config);
    let close = MailboxOptions::new().policy(MailboxPolicy::Close).messages(1);
    let mut full = bench.client.unrouted_with(close);
    let mut other = bench.client.unrouted_with(close.messages(3));
    for n in 0..6 {
        bench.server_sends(&data("doc:1", n));
    }
    // One message overflowed each stream, and two came after the end of both.
    let stats = bench.client.stats();
    assert_eq!((stats.mailbox_drops, stats.messages, stats.messages_unrouted), (2, 4, 2));
    assert_eq!(message(next(&mut full)).1, 0);
    assert_eq!(next(&mut full), Some(UnroutedEvent::Lagged(1)));
    assert_eq!(next(&mut full), Some(UnroutedEvent::Overflow));
    assert_eq!(message(next(&mut other)).1, 0);
    // A new stream takes messages again, and the end of the others does not affect it.
    let mut again = bench.client.unrouted();
    drop((full, other));
    bench.server_sends(&data("doc:1", 6));
    assert_eq!(message(next(&mut again)).1, 6);
    assert_eq!(bench.client.stats().messages_unrouted, 2);
}

/// A message is taken only when it is returned, and every stream gets every message.
#[test]
fn dropped_future_loses_no_message() {
    let mut bench = Bench::new(|config| config);
    let (mut one, mut other) = (bench.client.unrouted(), bench.client.unrouted());
    {
        let mut waiting = pin!(one.next());
        assert!(poll(waiting.as_mut()).is_pending());
    }
    bench.server_sends(&data("doc:1", 1));
    drop(one.next());
    assert_eq!(message(next(&mut one)).1, 1);
    drop(one);
    bench.server_sends(&data("doc:1", 2));
    assert_eq!((message(next(&mut other)).1, message(next(&mut other)).1), (1, 2));
}

/// The stream does not keep the connection open. It ends with the driver, after the messages that
/// are queued.
#[test]
fn stream_ends_with_driver() {
    let mut bench = Bench::new(|config| config);
    let mut unrouted = bench.client.unrouted();
    bench.server_sends(&data("doc:1", 1));
    let Bench { client, mut driver, memory } = bench;
    let weak = client.downgrade();
    drop(client);
    assert!(weak.upgrade().is_none(), "the stream is not a handle");
    let over = (0..4).any(|_| poll(driver.as_mut()).is_ready());
    assert!(over, "the connection closes");
    drop(driver);
    assert_eq!(message(next(&mut unrouted)).1, 1);
    assert_eq!(next(&mut unrouted), None);
    assert!(unrouted.is_terminated());
    drop(memory);
}

#[test]
fn stream_made_after_driver_is_over() {
    let Bench { client, driver, .. } = Bench::new(|config| config);
    drop(driver);
    assert_eq!(next(&mut client.unrouted()), None);
}

/// While a stream of unrouted messages exists, streams of signals have them too.
#[test]
fn signals_include_unrouted_messages() {
    let mut bench = Bench::new(|config| config);
    let mut signals = bench.client.signals();
    bench.server_sends(&data("doc:1", 1));
    let unrouted = bench.client.unrouted();
    bench.server_sends(&data("doc:1", 2));
    let event = ready(pin!(signals.next()));
    let Some(ClientEvent::Signal(Signal::Unrouted { topic, event, payload })) = event else {
        panic!("{event:?}")
    };
    assert_eq!((topic.as_str(), &*event), ("doc:1", "subscription:data"));
    assert_eq!(payload.to_value().expect("JSON"), json!({"n": 2}));
    assert!(poll(pin!(signals.next())).is_pending());
    drop(unrouted);
}

/// A hostile server sends messages on very many topics. Only the mailbox grows, up to its bound.
#[test]
fn many_topics_are_bounded() {
    let mut bench = Bench::new(|config| config.mailbox(16, 1 << 20).expect("not zero"));
    let mut unrouted = bench.client.unrouted();
    for n in 0..10_000 {
        bench.server_sends(&data(&format!("doc:{n}"), n));
    }
    assert_eq!(next(&mut unrouted), Some(UnroutedEvent::Lagged(10_000 - 16)));
    assert_eq!(message(next(&mut unrouted)), ("doc:9984".to_owned(), 9_984));
    assert_eq!(bench.client.stats().mailbox_drops, 10_000 - 16);
}

/// However a channel ends, a broadcast that arrives afterwards belongs to it. Without a join, there is no
/// channel that it could belong to.
#[test]
fn broadcast_of_ended_channel_is_not_unrouted() {
    let mut bench = Bench::new(|config| config);
    let mut unrouted = bench.client.unrouted();
    let refused = bench.client.want("room:refused", json!({})).expect("it is accepted");
    bench.settle();
    bench.reply("error", json!({"reason": "forbidden"}));
    bench.server_sends(&data("room:refused", 1));
    let closed = bench.joined("room:closed");
    let join_ref = bench.last_sent()[0].clone();
    bench.server_sends(&json!([join_ref, null, "room:closed", "phx_close", {}]));
    bench.server_sends(&data("room:closed", 2));
    // The handle is gone before the join is answered.
    let joining = bench.client.want("room:joining", json!({})).expect("it is accepted");
    bench.settle();
    drop(joining);
    bench.settle();
    bench.server_sends(&data("room:joining", 3));
    bench.reply("ok", json!({}));
    bench.server_sends(&data("room:joining", 4));
    assert!(is_empty(&mut unrouted));
    assert_eq!(bench.client.stats().messages_unrouted, 0);
    // A channel whose join was never written.
    drop(bench.client.want("room:never", json!({})).expect("it is accepted"));
    bench.settle();
    bench.server_sends(&data("room:never", 5));
    assert_eq!(message(next(&mut unrouted)).1, 5);
    drop((refused, closed));
}
