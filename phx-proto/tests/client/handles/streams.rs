//! Streams that select events, and merged streams.

use core::pin::pin;

use futures_core::stream::FusedStream as _;
use phx_proto::client::{ChannelEvent, MailboxOptions, MailboxPolicy, PresenceEvent, StreamEnd};
use phx_proto::testing::Script;
use serde_json::json;

use super::{config, in_words, joined, now, number, read};
use crate::bench::{Bench, ready};

/// A stream of selected events yields these events, and every event that is not a message.
#[test]
fn on_yields_its_events_and_gaps() {
    let script = Script::new();
    let (_client, room) = joined(&script, config(), "room:lobby");
    let one = read(&script, room.on("a"));
    let any = read(&script, room.on_any(["a", "b"]));
    for event in ["a", "b", "c"] {
        script.push("room:lobby", event, json!({}));
    }
    script.disconnect();
    script.connect_and_assert_join("room:lobby");
    for event in ["c", "b", "a"] {
        script.push("room:lobby", event, json!({}));
    }
    script.close_channel("room:lobby");
    let closed = "closed: the server closed the channel";
    let expected = ["a {}", "interrupted", "resumed", "a {}", closed];
    assert_eq!(in_words(&script.finish(one)), expected);
    let expected = ["a {}", "b {}", "interrupted", "resumed", "b {}", "a {}", closed];
    assert_eq!(in_words(&script.finish(any)), expected);
}

/// Events that a stream does not select take no space in its mailbox, even if there is a flood of
/// them.
#[test]
fn flood_of_other_events_fills_no_mailbox() {
    let script = Script::new();
    let (_client, room) = joined(&script, config().mailbox(2, 1 << 20).expect("two"), "room:lobby");
    let alarms = room.on("alarm");
    let noise = room.on("noise");
    script.push("room:lobby", "alarm", number(1));
    for n in 0..100 {
        script.push("room:lobby", "noise", number(n));
    }
    script.push("room:lobby", "alarm", number(2));
    script.close_channel("room:lobby");
    let closed = "closed: the server closed the channel";
    let alarms = script.finish(read(&script, alarms));
    assert_eq!(in_words(&alarms), [r#"alarm {"n":1}"#, r#"alarm {"n":2}"#, closed]);
    let noise = in_words(&script.finish(read(&script, noise)));
    assert_eq!(noise, ["lagged 98", r#"noise {"n":98}"#, r#"noise {"n":99}"#, closed]);
}

/// A new stream begins with the messages after the join, unless the stream of all events has taken
/// them already.
#[test]
fn on_begins_with_the_join() {
    let script = Script::new();
    let (_client, room) = joined(&script, config(), "room:lobby");
    script.push("room:lobby", "state", json!({}));
    script.disconnect();
    script.connect_and_assert_join("room:lobby");
    script.push("room:lobby", "other", json!({}));
    script.push("room:lobby", "state", json!([]));
    script.disconnect();
    let (one, again, all) = (room.on("state"), room.on("state"), room.messages());
    let late = room.on("state");
    assert_eq!(
        [&one, &again, &all, &late].map(|stream| stream.starts_now()),
        [false, false, false, true]
    );
    assert!(room.messages().starts_now(), "the second begins now");
    script.connect_and_assert_join("room:lobby");
    script.close_channel("room:lobby");
    let end = ["resumed", "closed: the server closed the channel"];
    let both = ["state {}", "interrupted", "resumed", "state []", "interrupted"];
    for stream in [one, again] {
        assert_eq!(in_words(&script.finish(read(&script, stream))), [&both[..], &end].concat());
    }
    let all = in_words(&script.finish(read(&script, all)));
    let every = ["state {}", "interrupted", "resumed", "other {}", "state []", "interrupted"];
    assert_eq!(all, [&every[..], &end].concat());
    assert_eq!(in_words(&script.finish(read(&script, late))), end);
}

/// Two interruptions are merged if only messages that the stream does not select are between them.
#[test]
fn gaps_around_other_events_are_merged() {
    let script = Script::new();
    let (_client, room) = joined(&script, config(), "room:lobby");
    for _ in 0..2 {
        script.disconnect();
        script.connect_and_assert_join("room:lobby");
        script.push("room:lobby", "other", json!({}));
    }
    let late = room.on("state");
    script.close_channel("room:lobby");
    match &script.finish(read(&script, late))[..] {
        [
            ChannelEvent::Interrupted { count: 2, .. },
            ChannelEvent::Resumed { .. },
            ChannelEvent::Closed(_),
        ] => {}
        other => panic!("{other:?}"),
    }
}

/// A presence list has its own mailbox too, so a flood of other events does not affect it.
#[test]
fn flood_of_events_keeps_the_presence() {
    let script = Script::new();
    let (_client, room) = joined(&script, config().mailbox(2, 1 << 20).expect("two"), "room:lobby");
    let mut presence = room.presence();
    script.push("room:lobby", "presence_state", json!({}));
    for n in 0..10 {
        script.push("room:lobby", "noise", number(n));
    }
    script.close_channel("room:lobby");
    let seen = now(&script, async move {
        let mut seen = Vec::new();
        while let Some(event) = presence.next().await {
            seen.push(event);
        }
        seen
    });
    assert!(matches!(&seen[..], [PresenceEvent::Synced, PresenceEvent::Closed(_)]), "{seen:?}");
}

#[test]
fn mailbox_options_bound_one_stream() {
    let script = Script::new();
    let (client, room) = joined(&script, config(), "room:lobby");
    let latest = room.on_any_with(["tick"], MailboxOptions::new().messages(1));
    let first = MailboxOptions::new().messages(1).policy(MailboxPolicy::DropNewest);
    let first = room.on_any_with(["tick"], first);
    let small = room.on_any_with(["tick"], MailboxOptions::new().bytes(1_000));
    let default = room.on_any_with(["tick"], MailboxOptions::default());
    for n in 0..20 {
        script.push("room:lobby", "tick", number(n));
    }
    script.close_channel("room:lobby");
    let mut seen = [latest, first, small, default].map(|stream| {
        let mut words = in_words(&script.finish(read(&script, stream)));
        assert!(words.pop().is_some_and(|end| end.starts_with("closed")));
        words
    });
    assert_eq!(seen[0], ["lagged 19", r#"tick {"n":19}"#]);
    assert_eq!(seen[1], [r#"tick {"n":0}"#, "lagged 19"]);
    assert!(seen[2].len() < 10 && seen[2].remove(0).starts_with("lagged"), "{seen:?}");
    assert_eq!(seen[3].len(), 20);
    assert!(client.stats().mailbox_drops >= 38);
}

/// A handle uses only `on`, so its first mailbox fills and drops the oldest messages. These drops
/// count as a loss only when the first mailbox is read.
#[test]
fn drops_count_only_once_mailbox_is_read() {
    let script = Script::new();
    let (client, room) = joined(&script, config(), "room:lobby");
    let ticks = room.on_any_with(["tick"], MailboxOptions::new().messages(400));
    for n in 0..300 {
        script.push("room:lobby", "tick", number(n));
    }
    assert_eq!(client.stats().mailbox_drops, 0);
    let all = room.messages();
    assert_eq!(client.stats().mailbox_drops, 44);
    script.close_channel("room:lobby");
    assert_eq!(in_words(&script.finish(read(&script, ticks))).len(), 301);
    assert_eq!(in_words(&script.finish(read(&script, all)))[0], "lagged 44");
}

/// A stream whose bounds are smaller than those of the first mailbox begins with a loss, which is
/// counted.
#[test]
fn losses_of_smaller_mailbox_are_counted() {
    let script = Script::new();
    let (client, room) = joined(&script, config(), "room:lobby");
    for n in 0..5 {
        script.push("room:lobby", "tick", number(n));
    }
    let latest = room.on_any_with(["tick"], MailboxOptions::new().messages(1));
    assert_eq!(client.stats().mailbox_drops, 4);
    script.close_channel("room:lobby");
    let words = in_words(&script.finish(read(&script, latest)));
    assert_eq!(words[..2], ["lagged 4", r#"tick {"n":4}"#]);
}

/// A stream may have the policy to rejoin on overflow. Then the channel is rejoined when the stream is
/// read, and no event is lost without notice.
#[test]
fn overflow_of_event_stream_rejoins() {
    let script = Script::new();
    let (_client, room) = joined(&script, config(), "room:lobby");
    let strict = MailboxOptions::new().messages(2).policy(MailboxPolicy::Rejoin);
    let strict = room.on_any_with(["tick"], strict);
    for n in 0..3 {
        script.push("room:lobby", "other", number(n));
    }
    script.refute_join("room:lobby");
    for n in 0..3 {
        script.push("room:lobby", "tick", number(n));
    }
    script.refute_join("room:lobby");
    let strict = read(&script, strict);
    let join = script.assert_join("room:lobby");
    script.reply(&join, "ok", json!({}));
    script.close_channel("room:lobby");
    let words = in_words(&script.finish(strict));
    assert_eq!(words[..3], ["lagged 3", "interrupted", "resumed"]);
}

/// The first mailbox has overflowed and ended. A stream with other bounds reports the loss.
#[test]
fn overflow_of_first_mailbox_is_a_loss() {
    let script = Script::new();
    let client = script.client(config().mailbox(2, 1 << 20).expect("two"));
    let options = phx_proto::client::JoinOptions::new().mailbox(MailboxPolicy::Close);
    let room = client.want_with("room:lobby", json!({}), options).expect("it is accepted");
    script.connect_and_assert_join("room:lobby");
    for n in 0..3 {
        script.push("room:lobby", "tick", number(n));
    }
    let ticks = room.on_any_with(["tick"], MailboxOptions::new().messages(10));
    script.push("room:lobby", "tick", number(3));
    script.close_channel("room:lobby");
    let words = in_words(&script.finish(read(&script, ticks)));
    let ticks = [0, 1, 3].map(|n| format!(r#"tick {{"n":{n}}}"#));
    let closed = "closed: the server closed the channel";
    assert_eq!(words, [&*ticks[0], &*ticks[1], "lagged 1", &*ticks[2], closed]);
}

#[test]
fn on_after_end_yields_the_backlog() {
    let script = Script::new();
    let (_client, room) = joined(&script, config(), "room:lobby");
    script.push("room:lobby", "last", json!({}));
    script.close_channel("room:lobby");
    let words = in_words(&script.finish(read(&script, room.on("last"))));
    assert_eq!(words, ["last {}", "closed: the server closed the channel"]);
    drop(room.messages());
    let events = script.finish(read(&script, room.on("last")));
    assert_eq!(events, [ChannelEvent::Closed(StreamEnd::Gone)]);
}

/// Events that are not messages do not contain their topic, so a merged stream adds it to every
/// event.
#[test]
fn stream_with_topic_names_it_in_every_event() {
    let script = Script::new();
    let (_client, room) = joined(&script, config(), "room:lobby");
    let messages = room.messages();
    assert_eq!(&**messages.topic(), "room:lobby");
    let mut messages = messages.with_topic();
    let reading = script.spawn(async move {
        let mut events = Vec::new();
        while let Some((topic, event)) = messages.next().await {
            assert_eq!(&*topic, "room:lobby");
            events.push(event);
        }
        assert!(messages.is_terminated());
        events
    });
    script.push("room:lobby", "a", json!({}));
    script.disconnect();
    script.connect_and_assert_join("room:lobby");
    script.close_channel("room:lobby");
    let expected = ["a {}", "interrupted", "resumed", "closed: the server closed the channel"];
    assert_eq!(in_words(&script.finish(reading)), expected);
}

/// `select!` calls a stream's `is_terminated`.
#[test]
fn streams_are_fused() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let (mut messages, mut presence) = (room.messages(), room.presence());
    let mut signals = bench.client.signals();
    assert!(!messages.is_terminated() && !presence.is_terminated() && !signals.is_terminated());
    bench.client.connect_now().expect("it is kept");
    drop(bench.driver);
    while ready(pin!(messages.next())).is_some() {
        assert!(!signals.is_terminated());
    }
    presence.catch_up();
    assert!(!presence.is_terminated(), "its end was not read");
    while !presence.is_terminated() {
        assert!(ready(pin!(presence.next())).is_some());
    }
    while ready(pin!(signals.next())).is_some() {}
    assert!(messages.is_terminated() && signals.is_terminated());
    assert_eq!(ready(pin!(presence.next())), None);
}

/// A stream of events that never arrive ends with its channel, so the program can end too.
#[test]
fn on_ends_with_leave() {
    let script = Script::new();
    let (client, room) = joined(&script, config(), "room:lobby");
    let reading = read(&script, room.on("never"));
    drop(room);
    script.refute_leave("room:lobby");
    let leaving = script.spawn(async move { client.leave_topic("room:lobby").await });
    let leave = script.assert_leave("room:lobby");
    script.reply(&leave, "ok", json!({}));
    assert!(script.finish(leaving).is_ok());
    let events = in_words(&script.finish(reading));
    assert_eq!(events, ["closed: the application left the channel"]);
    assert_eq!(now(&script, async {}), ());
}
