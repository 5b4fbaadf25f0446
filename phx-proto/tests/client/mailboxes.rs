//! Mailboxes of handles, and handles that only push.

use core::pin::pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Waker};
use core::time::Duration;
use std::sync::Arc;
use std::task::Wake;

use bytes::Bytes;

use crate::bench::{Bench, next, poll, ready};
use crate::hand::{Hand, config};
use phx_proto::client::{
    CatchUp, ChannelEvent, JoinFailed, JoinOptions, MailboxOptions, MailboxPolicy, Message,
    PushFailed, Received, StreamEnd,
};
use phx_proto::event::{ChannelEnd, Interruption, PushErrorKind, RejectionKind};
use phx_proto::{Frame, JoinParams, Signal};
use serde_json::{Value, json};

fn message(n: u64) -> Value {
    json!([null, null, "room:lobby", "msg", { "n": n }])
}

fn number(event: Option<ChannelEvent>) -> u64 {
    let Some(ChannelEvent::Message(message)) = event else { panic!("{event:?}") };
    message.payload().to_value().expect("JSON")["n"].as_u64().expect("a number")
}

/// The server's limit of channels is a typed error, and dropping a handle leaves its topic. Reported
/// in supabase/realtime#843 and supabase/supabase#40902.
#[test]
fn channel_limit_is_typed() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    hand.answer("room:a", "phx_join", "error", json!({"reason": "too many channels joined"}));
    assert!(hand.signals.iter().any(|signal| matches!(
        signal,
        Signal::JoinRejected { rejection, .. } if rejection.kind == RejectionKind::TooManyChannels
    )));
    assert_eq!(hand.socket.channels().count(), 0);

    let mut bench = Bench::new(|config| config);
    for round in 0..200 {
        let room = bench.joined(&format!("room:{round}"));
        drop(room);
        bench.settle();
        assert_eq!(bench.last_sent()[3], "phx_leave");
        bench.reply("ok", json!({}));
    }
    assert_eq!(bench.memory.world().to_server.len(), 400);
}

/// A bench with a mailbox of two messages and this policy, after five messages have arrived.
fn overflowed(policy: MailboxPolicy) -> (Bench, phx_proto::client::Messages) {
    let mut bench = Bench::new(|config| config.mailbox(2, 1 << 20).expect("not zero"));
    let client = bench.client.clone();
    let options = JoinOptions::new().mailbox(policy);
    let mut join = pin!(client.join_with("room:lobby", JoinParams::none(), options));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    bench.reply("ok", json!({}));
    let messages = ready(join.as_mut()).expect("joined").messages();
    (0..5).for_each(|n| bench.server_sends(&message(n)));
    (bench, messages)
}

#[test]
fn full_mailbox_can_drop_the_newest() {
    let (mut bench, mut messages) = overflowed(MailboxPolicy::DropNewest);
    assert_eq!((number(next(&mut messages)), number(next(&mut messages))), (0, 1));
    assert_eq!(next(&mut messages), Some(ChannelEvent::Lagged(3)));
    bench.server_sends(&message(5));
    assert_eq!(number(next(&mut messages)), 5);
    assert_eq!(bench.client.stats().mailbox_drops, 3);
}

fn joins(bench: &Bench) -> usize {
    bench.memory.world().to_server.iter().filter(|sent| sent[3] == "phx_join").count()
}

/// A program keeps a stream that it never reads. The channel is joined again when the consumer has seen
/// the loss, not after each overflow.
#[test]
fn unread_stream_causes_no_rejoin() {
    let (mut bench, mut messages) = overflowed(MailboxPolicy::Rejoin);
    let mut lost = 5;
    for joined in 1..4 {
        for _ in 0..3 {
            bench.advance(Duration::from_secs(1));
            assert_eq!(joins(&bench), joined);
            (0..5).for_each(|n| bench.server_sends(&message(n)));
            lost += 5;
        }
        assert_eq!(next(&mut messages), Some(ChannelEvent::Lagged(lost)));
        bench.advance(Duration::from_secs(3));
        assert_eq!(joins(&bench), joined + 1);
        bench.reply("ok", json!({}));
        let interruption = next(&mut messages);
        assert!(matches!(
            interruption,
            Some(ChannelEvent::Interrupted { cause: Interruption::Resync, count: 1 })
        ));
        assert!(matches!(next(&mut messages), Some(ChannelEvent::Resumed { .. })));
        bench.server_sends(&message(7));
        assert_eq!(number(next(&mut messages)), 7);
        lost = 0;
    }
}

/// The connection is lost after an overflow, so the channel is joined anyway.
#[test]
fn reconnect_serves_an_overflow() {
    let (mut bench, mut messages) = overflowed(MailboxPolicy::Rejoin);
    bench.cut();
    bench.advance(Duration::from_secs(3));
    assert_eq!(joins(&bench), 2);
    bench.reply("ok", json!({}));
    bench.server_sends(&message(7));
    assert_eq!(next(&mut messages), Some(ChannelEvent::Lagged(5)));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Interrupted { .. })));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Resumed { .. })));
    assert_eq!(number(next(&mut messages)), 7);
    bench.advance(Duration::from_secs(15));
    assert_eq!(joins(&bench), 2);
}

/// The options of a join set the bounds of the handle's mailboxes, and those of a selection of events.
#[test]
fn join_can_bound_its_mailbox() {
    let mut bench = Bench::new(|config| config);
    let client = bench.client.clone();
    let options = JoinOptions::new().mailbox(MailboxOptions::new().messages(2));
    let mut join = pin!(client.join_with("room:lobby", JoinParams::none(), options));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    bench.reply("ok", json!({}));
    let room = ready(join.as_mut()).expect("joined");
    let (mut all, mut selected) = (room.messages(), room.on("msg"));
    (0..5).for_each(|n| bench.server_sends(&message(n)));
    for stream in [&mut all, &mut selected] {
        assert_eq!(next(stream), Some(ChannelEvent::Lagged(3)));
        assert_eq!((number(next(stream)), number(next(stream))), (3, 4));
    }
}

#[test]
fn full_mailbox_can_end_its_stream() {
    let (mut bench, mut messages) = overflowed(MailboxPolicy::Close);
    let other = bench.client.channel("room:lobby").expect("it is wanted");
    let mut others = other.messages();
    assert_eq!((number(next(&mut messages)), number(next(&mut messages))), (0, 1));
    let mut rest = Vec::new();
    for _ in 0..5 {
        rest.extend(next(&mut messages));
        if rest.last().is_some_and(|event| matches!(event, ChannelEvent::Closed(_))) {
            break;
        }
    }
    assert_eq!(rest.last(), Some(&ChannelEvent::Closed(StreamEnd::Overflow)), "{rest:?}");
    assert_eq!(next(&mut messages), None);
    // Only this stream has ended. The channel stays joined.
    bench.server_sends(&message(9));
    assert_eq!(number(next(&mut others)), 9);
}

#[test]
fn message_behind_join_ok_is_first() {
    let mut bench = Bench::new(|config| config);
    let client = bench.client.clone();
    let mut join = pin!(client.join("room:lobby", json!({})));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    // The driver reads both before the application receives the ok.
    bench.reply("ok", json!({}));
    bench.server_sends(&message(1));
    let room = ready(join.as_mut()).expect("joined");
    let mut messages = room.messages();
    assert_eq!(number(next(&mut messages)), 1);
    // A later stream begins at its creation.
    let mut later = room.messages();
    bench.server_sends(&message(2));
    assert_eq!((number(next(&mut messages)), number(next(&mut later))), (2, 2));
}

/// With a mailbox for each handle, 256 outstanding pushes through separate handles made broadcasts
/// seven times slower, and the mailboxes, which had no reader, counted drops.
#[test]
fn push_only_handles_have_no_mailbox() {
    let mut bench = Bench::new(|config| config.mailbox(4, 10_000).expect("not zero"));
    let room = bench.joined("room:lobby");
    let mut messages = room.messages();
    let client = bench.client.clone();
    let handles: Vec<_> =
        (0..256).map(|_| client.channel("room:lobby").expect("it is wanted")).collect();
    let mut pushes: Vec<_> =
        handles.iter().map(|handle| Box::pin(handle.push("ask", json!({})))).collect();
    pushes.iter_mut().for_each(|push| assert!(poll(push.as_mut()).is_pending()));
    for n in 0..20 {
        bench.server_sends(&message(n));
        assert_eq!(number(next(&mut messages)), n);
    }
    assert_eq!(bench.client.stats().mailbox_drops, 0);
    drop(pushes);
    // A stream of a handle that only pushes begins at its creation.
    let mut later = handles[0].messages();
    bench.server_sends(&message(20));
    assert_eq!((number(next(&mut messages)), number(next(&mut later))), (20, 20));
    let mut second = handles[0].messages();
    bench.server_sends(&message(21));
    assert_eq!((number(next(&mut later)), number(next(&mut second))), (21, 21));
}

#[test]
fn client_pushes_without_a_handle() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let client = bench.client.clone();
    let mut push = pin!(client.push("room:lobby", "ask", json!({"n": 1})));
    assert!(poll(push.as_mut()).is_pending());
    bench.settle();
    assert_eq!((&bench.last_sent()[3], &bench.last_sent()[4]), (&json!("ask"), &json!({"n": 1})));
    bench.reply("ok", json!({"n": 2}));
    let reply = ready(push.as_mut()).expect("a reply");
    assert_eq!(reply.response.to_value().expect("JSON"), json!({"n": 2}));

    let mut cast = pin!(client.cast("room:lobby", "note", json!({})));
    assert!(poll(cast.as_mut()).is_pending());
    bench.settle();
    assert_eq!(bench.last_sent()[3], "note");
    ready(cast.as_mut()).expect("written");

    let unwanted = ready(pin!(client.push("room:other", "ask", json!({}))));
    let Err(PushFailed::NotAccepted(error)) = unwanted else { panic!("{unwanted:?}") };
    assert_eq!(error.kind, PushErrorKind::NotWanted);

    // The handle does not keep the topic.
    let mut waiting = Box::pin(client.push("room:lobby", "ask", json!({})));
    assert!(poll(waiting.as_mut()).is_pending());
    drop((room, waiting));
    bench.settle();
    assert_eq!(bench.last_sent()[3], "phx_leave");
}

/// A message that no replay brings is dropped, and the channel ends before the drop is reported.
#[test]
fn drop_before_close_is_reported() {
    let mut bench = Bench::new(|config| config.mailbox(1, 1 << 20).expect("not zero"));
    let catch_up = CatchUp::new(|_: &Message| None);
    let options = JoinOptions::new().catch_up(catch_up);
    let client = bench.client.clone();
    let mut join = pin!(client.join_with("room:lobby", JoinParams::none(), options));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    let join_ref = bench.last_sent()[0].clone();
    bench.reply("ok", json!({"messages": []}));
    let mut messages = ready(join.as_mut()).expect("joined").messages();
    assert_eq!(next(&mut messages), Some(ChannelEvent::CaughtUp));
    let close = json!([join_ref, join_ref, "room:lobby", "phx_close", {}]);
    for frame in [message(0), message(1), message(2), close] {
        let frame = Received::Frame(Frame::Text(frame.to_string().into()));
        bench.memory.world().to_client.push_back(frame);
    }
    bench.settle();
    assert_eq!(number(next(&mut messages)), 0);
    assert_eq!(next(&mut messages), Some(ChannelEvent::Lagged(2)));
    let end = StreamEnd::Channel(ChannelEnd::ClosedByServer);
    assert_eq!(next(&mut messages), Some(ChannelEvent::Closed(end)));
}

/// The mailbox of a handle overflows before it is read, and then the channel ends.
#[test]
fn overflow_does_not_hide_the_end() {
    let mut bench = Bench::new(|config| config.mailbox(1, 1 << 20).expect("not zero"));
    let options = JoinOptions::new().mailbox(MailboxPolicy::Close);
    let client = bench.client.clone();
    let mut join = pin!(client.join_with("room:lobby", JoinParams::none(), options));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    let join_ref = bench.last_sent()[0].clone();
    bench.reply("ok", json!({}));
    let room = ready(join.as_mut()).expect("joined");
    (0..2).for_each(|n| bench.server_sends(&message(n)));
    bench.server_sends(&json!([join_ref, join_ref, "room:lobby", "phx_close", {}]));
    let ended = ready(pin!(room.joined()));
    assert!(matches!(ended, Err(JoinFailed::Ended(ChannelEnd::ClosedByServer))), "{ended:?}");
    let mut messages = room.messages();
    assert_eq!(number(next(&mut messages)), 0);
    assert_eq!(next(&mut messages), Some(ChannelEvent::Lagged(1)));
    assert_eq!(next(&mut messages), Some(ChannelEvent::Closed(StreamEnd::Overflow)));
}

/// The first stream of a handle is dropped before it has read its messages, or it ends before that and is
/// kept. The handle stays.
#[test]
fn ended_stream_frees_its_messages() {
    for kept in [false, true] {
        let mut bench = Bench::new(|config| config);
        let client = bench.client.clone();
        let position = |message: &Message| -> Option<u64> { panic!("{}", message.event()) };
        let options = JoinOptions::new();
        let options = if kept { options.catch_up(CatchUp::new(position)) } else { options };
        let mut join = pin!(client.join_with("room:lobby", json!({}), options));
        assert!(poll(join.as_mut()).is_pending());
        bench.settle();
        bench.reply("ok", json!({"messages": []}));
        let room = ready(join.as_mut()).expect("joined");
        let mut messages = room.messages();
        if kept {
            assert_eq!(next(&mut messages), Some(ChannelEvent::CaughtUp));
        }
        let dropped = Arc::new(AtomicUsize::new(0));
        for n in 0..5 {
            let frame = Bytes::from_owner(Counted(message(n).to_string(), Arc::clone(&dropped)));
            bench.memory.world().to_client.push_back(Received::Frame(Frame::Text(frame)));
        }
        bench.settle();
        assert_eq!(dropped.load(Ordering::Relaxed), 0, "they wait in the mailbox");
        if kept {
            let end = StreamEnd::PositionPanicked;
            assert_eq!(next(&mut messages), Some(ChannelEvent::Closed(end)));
        } else {
            drop(messages);
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 5, "kept: {kept}");
        assert_eq!(bench.client.stats().mailbox_drops, 0, "no mailbox was full");
        drop(room);
    }
}

/// A stream waits, and is dropped while its handle stays. The waker of its task is dropped with it.
#[test]
fn dropped_stream_frees_its_waker() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let mut messages = room.messages();
    let task = Arc::new(Ignored);
    let waker = Waker::from(Arc::clone(&task));
    assert!(pin!(messages.next()).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&task), 2);
    drop(messages);
    assert_eq!(Arc::strong_count(&task), 1);
    drop(room);
}

struct Ignored;

impl Wake for Ignored {
    fn wake(self: Arc<Self>) {}
}

/// The memory of a frame, with a count of those that were dropped.
struct Counted(String, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}
