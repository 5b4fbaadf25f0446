//! The driver and its handles over a transport in memory, with a clock that is set by hand.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Waker};
use core::time::Duration;

use crate::bench::{Bench, next, poll, ready};
use phx_proto::Status;
use phx_proto::client::{
    ChannelEvent, JoinFailed, JoinOptions, Left, MailboxPolicy, PushFailed, StreamEnd,
};
use phx_proto::event::Interruption;
use serde_json::json;

#[test]
fn join_and_push_are_answered() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    assert!(room.join_response().is_some());

    let mut push = pin!(room.push("new_msg", json!({"body": "hi"})));
    assert!(poll(push.as_mut()).is_pending());
    bench.settle();
    assert_eq!(bench.last_sent()[3], "new_msg");
    bench.reply("error", json!({"reason": "no"}));
    let reply = ready(push.as_mut()).expect("a reply of any status is a reply");
    assert_eq!(&*reply.ok().expect_err("the status is error").status, "error");
}

#[test]
fn refused_join_carries_server_response() {
    let mut bench = Bench::new(|config| config);
    let client = bench.client.clone();
    let mut join = pin!(client.join("room:secret", json!({})));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    bench.reply("error", json!({"reason": "unauthorized"}));
    assert!(matches!(ready(join.as_mut()), Err(JoinFailed::Rejected(_))));
}

/// A message stream shows the gap between messages before and after a reconnect. Reported in
/// supabase-community/supabase-kt#255.
#[test]
fn gap_is_visible_between_messages() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let mut messages = room.messages();
    bench.server_sends(&json!([null, null, "room:lobby", "msg", {"n": 1}]));
    bench.cut();
    bench.advance(Duration::from_secs(3));
    assert_eq!(bench.memory.world().dials, 2);
    bench.reply("ok", json!({}));
    bench.server_sends(&json!([null, null, "room:lobby", "msg", {"n": 2}]));

    let Some(ChannelEvent::Message(message)) = next(&mut messages) else { panic!("a message") };
    assert_eq!((&**message.topic(), message.event()), ("room:lobby", "msg"));
    assert_eq!(message.payload().to_value().expect("JSON"), json!({"n": 1}));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Interrupted { count: 1, .. })));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Resumed { .. })));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Message(_))));
    assert!(poll(pin!(messages.next())).is_pending());
}

/// A join that is dropped releases its interest in the topic. Reported in
/// phoenixframework/phoenix_live_view#1937 and phoenixframework/phoenix#3827.
#[test]
fn dropped_join_releases_its_interest() {
    let mut bench = Bench::new(|config| config);
    let client = bench.client.clone();
    {
        let mut join = pin!(client.join("room:lobby", json!({})));
        assert!(poll(join.as_mut()).is_pending());
        bench.settle();
        assert_eq!(bench.last_sent()[3], "phx_join");
    }
    bench.settle();
    assert_eq!(bench.last_sent()[3], "phx_leave");
    assert!(client.channel("room:lobby").is_err());
}

#[test]
fn join_ends_at_its_deadline() {
    let mut bench = Bench::new(|config| config);
    let client = bench.client.clone();
    let options = JoinOptions::new().deadline(Duration::from_secs(1));
    let mut join = pin!(client.join_with("room:lobby", json!({}), options));
    assert!(poll(join.as_mut()).is_pending());
    bench.advance(Duration::from_millis(999));
    assert!(poll(join.as_mut()).is_pending());
    bench.advance(Duration::from_millis(1));
    assert!(matches!(ready(join.as_mut()), Err(JoinFailed::Deadline { .. })));
}

#[test]
fn reading_goes_on_while_writing_is_blocked() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let mut messages = room.messages();
    bench.memory.world().blocked = true;
    let mut cast = pin!(room.cast("typing", json!({})));
    assert!(poll(cast.as_mut()).is_pending());
    bench.server_sends(&json!([null, null, "room:lobby", "msg", {"n": 1}]));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Message(_))));
    assert!(poll(cast.as_mut()).is_pending());
    bench.memory.world().blocked = false;
    bench.settle();
    assert_eq!(ready(cast.as_mut()), Ok(()));
    assert_eq!(bench.last_sent()[3], "typing");
}

#[test]
fn slow_consumer_sees_how_much_it_missed() {
    let mut bench = Bench::new(|config| config.mailbox(2, 1 << 20).expect("not zero"));
    let room = bench.joined("room:lobby");
    let mut messages = room.messages();
    for n in 0..5 {
        bench.server_sends(&json!([null, null, "room:lobby", "msg", {"n": n}]));
    }
    assert_eq!(next(&mut messages), Some(ChannelEvent::Lagged(3)));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Message(_))));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Message(_))));
}

/// If a transport refuses frames after a flush, the driver must not poll the transport in a loop.
#[test]
fn refusing_transport_is_not_polled_in_loop() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    bench.memory.world().blocked = true;
    bench.memory.world().flushes_while_blocked = true;
    let mut cast = pin!(room.cast("typing", json!({})));
    assert!(poll(cast.as_mut()).is_pending());
    bench.memory.world().flushes = 0;
    bench.settle();
    let flushes = bench.memory.world().flushes;
    assert!(flushes <= 2, "{flushes} flushes for one refused frame");
    bench.memory.world().blocked = false;
    bench.settle();
    assert_eq!(ready(cast.as_mut()), Ok(()));
}

#[test]
fn overflow_can_rejoin_the_channel() {
    let mut bench = Bench::new(|config| config.mailbox(2, 1 << 20).expect("not zero"));
    let client = bench.client.clone();
    let options = JoinOptions::new().mailbox(MailboxPolicy::Rejoin);
    let mut join = pin!(client.join_with("room:lobby", json!({}), options));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    bench.reply("ok", json!({}));
    let room = ready(join.as_mut()).expect("joined");
    let mut messages = room.messages();
    for n in 0..3 {
        bench.server_sends(&json!([null, null, "room:lobby", "msg", {"n": n}]));
    }
    assert_eq!(next(&mut messages), Some(ChannelEvent::Lagged(3)));
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.last_sent()[3], "phx_join");
    bench.reply("ok", json!({"state": "fresh"}));
    assert!(matches!(
        next(&mut messages),
        Some(ChannelEvent::Interrupted { cause: Interruption::Resync, .. })
    ));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Resumed { .. })));
}

/// A `leave` ends its handle and the clones of it. Other handles of the topic continue.
#[test]
fn detached_handle_ends_alone() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let other = bench.client.channel("room:lobby").expect("it is wanted");
    let (clone, mut first, mut second) = (room.clone(), room.messages(), room.messages());
    let mut others = other.messages();
    assert_eq!(ready(pin!(room.leave())), Left::Detached);
    bench.server_sends(&json!([null, null, "room:lobby", "msg", {}]));
    assert!(matches!(next(&mut first), Some(ChannelEvent::Closed(_))));
    assert!(matches!(next(&mut second), Some(ChannelEvent::Closed(_))));
    assert!(matches!(next(&mut others), Some(ChannelEvent::Message(_))));
    assert!(matches!(ready(pin!(clone.push("late", json!({})))), Err(PushFailed::NotAccepted(_))));
    assert_eq!(next(&mut clone.messages()), Some(ChannelEvent::Closed(StreamEnd::Gone)));
    assert_eq!(bench.last_sent()[3], "phx_join", "no leave was sent");
}

/// After a disconnect the driver continues to run, so that the client can connect again.
#[test]
fn disconnect_ends_streams_but_not_driver() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let mut messages = room.messages();
    let client = bench.client.clone();
    let mut disconnect = pin!(client.disconnect());
    assert!(poll(disconnect.as_mut()).is_pending());
    assert!(!bench.settle());
    ready(disconnect.as_mut());
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Closed(_))));
    assert_eq!(next(&mut messages), None);
    client.connect();
    assert!(!bench.settle());
    assert!(matches!(client.status(), Status::Open));
}

/// When the last handle is dropped, the driver closes the connection and then completes. Reported in
/// liveview-native/phoenix-channels-client#156.
#[test]
fn dropping_last_handle_completes_the_driver() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    assert!(!bench.settle());
    let Bench { client, mut driver, .. } = bench;
    drop(client);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(driver.as_mut().poll(&mut cx).is_pending(), "a channel keeps its client alive");
    drop(room);
    assert!((0..4).any(|_| driver.as_mut().poll(&mut cx).is_ready()));
}

#[test]
fn dropping_driver_ends_every_waiter() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let Bench { client, driver, .. } = bench;
    let mut push = pin!(room.push("new_msg", json!({})));
    assert!(poll(push.as_mut()).is_pending());
    drop(driver);
    assert!(ready(push.as_mut()).is_err());
    assert!(ready(pin!(client.wait_connected())).is_err());
    assert_eq!(client.status(), Status::Closed, "it did not panic");
}

/// A program may poll a driver by hand and keep it after its end. The streams that observe the connection end
/// with the driver all the same.
#[test]
fn completed_driver_ends_observers() {
    let mut bench = Bench::new(|config| config);
    bench.settle();
    let Bench { client, mut driver, .. } = bench;
    let (mut signals, mut changes, mut unrouted) =
        (client.signals(), client.status_changes(), client.unrouted());
    drop(client);
    let mut cx = Context::from_waker(Waker::noop());
    assert!((0..4).any(|_| driver.as_mut().poll(&mut cx).is_ready()));
    assert!((0..9).any(|_| ready(pin!(signals.next())).is_none()));
    assert!((0..9).any(|_| ready(pin!(changes.next())).is_none()));
    assert_eq!(ready(pin!(unrouted.next())), None);
    drop(driver);
}
