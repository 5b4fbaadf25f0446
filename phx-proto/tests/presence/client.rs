//! `Channel::presence` over a transport in memory.

use core::pin::pin;
use core::time::Duration;

use crate::bench::{Bench, poll, ready};
use phx_proto::ChannelStatus;
use phx_proto::client::{Channel, Left, PresenceEvent, PresenceStream, StreamEnd};
use phx_proto::event::{ChannelEnd, Interruption};
use phx_proto::presence::PresenceChange;
use serde_json::{Value, json};

const TOPIC: &str = "room:lobby";

fn metas(phx_ref: &str) -> Value {
    json!({ "metas": [{ "phx_ref": phx_ref }] })
}

fn state(bench: &mut Bench, state: &Value) {
    let sent = bench.memory.world().to_server.clone();
    let join = sent.iter().rev().find(|sent| sent[3] == "phx_join").expect("a join was sent");
    let join_ref = &join[0];
    bench.server_sends(&json!([join_ref, null, TOPIC, "presence_state", state]));
}

fn joins(bench: &mut Bench, key: &str, phx_ref: &str) {
    let diff = json!({"joins": {key: metas(phx_ref)}, "leaves": {}});
    bench.server_sends(&json!([null, null, TOPIC, "presence_diff", diff]));
}

/// Every event that is ready, as text.
fn events(presence: &mut PresenceStream) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let event = match poll(pin!(presence.next())) {
            core::task::Poll::Ready(Some(event)) => event,
            _ => return found,
        };
        found.push(match event {
            PresenceEvent::Change(PresenceChange::Join { key, .. }) => format!("+{key}"),
            PresenceEvent::Change(PresenceChange::Leave { key, .. }) => format!("-{key}"),
            PresenceEvent::Synced => "synced".into(),
            PresenceEvent::Interrupted { .. } => "interrupted".into(),
            PresenceEvent::OutOfSync { dropped } => format!("out of sync, {dropped} dropped"),
            PresenceEvent::Malformed(_) => "malformed".into(),
            PresenceEvent::Closed(_) => "closed".into(),
            other => format!("{other:?}"),
        });
    }
}

fn keys(presence: &PresenceStream) -> Vec<&str> {
    presence.list().map(|(key, _)| key).collect()
}

/// A joined channel. The server has sent the diff of the client's own join, and then the state.
fn lobby(configure: impl FnOnce(phx_proto::Config) -> phx_proto::Config) -> (Bench, Channel) {
    let mut bench = Bench::new(configure);
    let room = bench.joined(TOPIC);
    joins(&mut bench, "me", "m1");
    state(&mut bench, &json!({"me": metas("m1"), "ann": metas("a1")}));
    (bench, room)
}

#[test]
fn late_list_begins_with_the_state() {
    let (mut bench, room) = lobby(|config| config);
    let _messages = room.messages();
    joins(&mut bench, "bob", "b1");
    let mut presence = room.presence();
    assert_eq!(events(&mut presence), ["+ann", "+me", "+me", "synced", "+bob"]);
    assert_eq!(keys(&presence), ["ann", "bob", "me"]);
    assert_eq!(bench.last_sent()[3], "phx_join", "nothing was sent for it");
}

#[test]
fn list_is_readable_without_its_events() {
    let (mut bench, room) = lobby(|config| config);
    let mut presence = room.presence();
    assert_eq!(ready(pin!(presence.synced())), Ok(()));
    assert_eq!(keys(&presence), ["ann", "me"]);
    joins(&mut bench, "bob", "b1");
    assert_eq!(keys(&presence), ["ann", "me"], "as of the last event taken");
    presence.catch_up();
    assert_eq!(keys(&presence), ["ann", "bob", "me"]);
}

/// The changes that were missed during an interruption are emitted after the rejoin.
#[test]
fn list_is_resynced_after_gap() {
    let (mut bench, room) = lobby(|config| config);
    let mut presence = room.presence();
    events(&mut presence);
    bench.cut();
    assert_eq!(events(&mut presence), ["interrupted"]);
    assert_eq!(keys(&presence), ["ann", "me"], "the last thing known");
    assert!(!presence.is_synced());
    bench.advance(Duration::from_secs(3));
    bench.reply("ok", json!({}));
    joins(&mut bench, "me", "m2");
    state(&mut bench, &json!({"me": metas("m2"), "bob": metas("b1")}));
    assert_eq!(events(&mut presence), ["+bob", "+me", "-ann", "-me", "+me", "synced"]);
    assert_eq!(keys(&presence), ["bob", "me"]);
}

#[test]
fn list_that_missed_messages_rejoins() {
    let (mut bench, room) = lobby(|config| config.mailbox(2, 1 << 20).expect("not zero"));
    let mut presence = room.presence();
    presence.catch_up();
    for n in 0..5 {
        joins(&mut bench, &format!("u{n}"), &format!("u{n}"));
    }
    assert_eq!(events(&mut presence), ["out of sync, 5 dropped", "interrupted"]);
    assert!(!presence.is_synced());
    // Messages of the old instance are ignored.
    joins(&mut bench, "old", "o1");
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.last_sent()[3], "phx_join");
    bench.reply("ok", json!({}));
    state(&mut bench, &json!({"u4": metas("u4")}));
    assert_eq!(events(&mut presence), ["+u4", "-ann", "-me", "synced"]);
    assert_eq!(keys(&presence), ["u4"]);
}

/// The connection is lost before the consumer reads that messages were dropped. The list starts over
/// after the outage, and reports the outage now.
#[test]
fn lagging_list_reports_interruption() {
    let (mut bench, room) = lobby(|config| config.mailbox(2, 1 << 20).expect("not zero"));
    let mut presence = room.presence();
    presence.catch_up();
    for n in 0..5 {
        joins(&mut bench, &format!("u{n}"), &format!("u{n}"));
    }
    bench.cut();
    assert_eq!(events(&mut presence), ["out of sync, 5 dropped", "interrupted"]);
    bench.advance(Duration::from_secs(3));
    bench.reply("ok", json!({}));
    state(&mut bench, &json!({"u4": metas("u4")}));
    assert_eq!(events(&mut presence), ["+u4", "-ann", "-me", "synced"]);
}

#[test]
fn forgotten_state_is_requested_by_join() {
    let (mut bench, room) = lobby(|config| config);
    for n in 0..256 {
        joins(&mut bench, "ann", &format!("a{n}"));
    }
    let mut presence = room.presence();
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.last_sent()[3], "phx_join");
    bench.reply("ok", json!({}));
    state(&mut bench, &json!({"ann": metas("a9")}));
    assert_eq!(ready(pin!(presence.synced())), Ok(()));
    assert_eq!(keys(&presence), ["ann"]);
}

#[test]
fn malformed_message_is_reported_and_skipped() {
    let (mut bench, room) = lobby(|config| config);
    let mut presence = room.presence();
    events(&mut presence);
    bench.server_sends(&json!([null, null, TOPIC, "presence_diff", {"joins": 7}]));
    joins(&mut bench, "bob", "b1");
    assert_eq!(events(&mut presence), ["malformed", "+bob"]);
}

#[test]
fn channel_end_ends_the_list() {
    let (mut bench, room) = lobby(|config| config);
    let mut presence = room.presence();
    presence.catch_up();
    let client = bench.client.clone();
    let mut leave = pin!(client.leave_topic(TOPIC));
    assert!(poll(leave.as_mut()).is_pending());
    bench.settle();
    presence.catch_up();
    let end = PresenceEvent::Closed(StreamEnd::Channel(ChannelEnd::Left));
    assert_eq!(ready(pin!(presence.next())), Some(end));
    assert_eq!(ready(pin!(presence.next())), None);
    assert_eq!(keys(&presence), ["ann", "me"], "the last thing known");
}

/// The end was read, and the program still asks for the list, as at every tick of a timer.
#[test]
fn ended_list_can_still_be_asked() {
    let (bench, room) = lobby(|config| config);
    let mut presence = room.presence();
    assert!(poll(pin!(room.leave())).is_pending());
    assert!(events(&mut presence).ends_with(&["closed".into()]));
    presence.catch_up();
    assert_eq!(ready(pin!(presence.synced())), Ok(()), "the last thing known");
    assert_eq!(ready(pin!(presence.next())), None);
    drop(bench);
}

/// A handle that has ended, with a list that lacks messages, beside a handle that goes on.
#[test]
fn ended_handle_rejoins_nothing() {
    let (mut bench, room) = lobby(|config| config.mailbox(1, 1 << 20).expect("not zero"));
    let (other, ended) = (bench.client.channel(TOPIC).expect("wanted"), room.clone());
    let mut presence = room.presence();
    presence.catch_up();
    // The log of the topic and the mailbox of the list overflow.
    (0..300).for_each(|n| joins(&mut bench, "u", &format!("u{n}")));
    assert_eq!(ready(pin!(room.leave())), Left::Detached);
    assert_eq!(events(&mut presence), ["out of sync, 300 dropped", "closed"]);
    assert_eq!(events(&mut ended.presence()), ["closed"]);
    bench.settle();
    assert_eq!(other.status(), ChannelStatus::Joined);
}

#[test]
fn resync_gap_is_visible_to_other_readers() {
    let (mut bench, room) = lobby(|config| config.mailbox(2, 1 << 20).expect("not zero"));
    let mut messages = room.messages();
    while poll(pin!(messages.next())).is_ready() {}
    let mut presence = room.presence();
    presence.catch_up();
    for n in 0..3 {
        joins(&mut bench, "u", &format!("u{n}"));
        assert!(poll(pin!(messages.next())).is_ready());
    }
    presence.catch_up();
    let event = ready(pin!(messages.next()));
    let cause = Interruption::Resync;
    let interrupted = phx_proto::client::ChannelEvent::Interrupted { cause, count: 1 };
    assert_eq!(event, Some(interrupted));
}

/// A list that is created during an interruption is empty until the state arrives after the rejoin.
/// Protocol: PRES-9.
#[test]
fn list_made_during_gap_awaits_state() {
    let (mut bench, room) = lobby(|config| config.mailbox(1, 1 << 20).expect("not zero"));
    bench.cut();
    let mut presence = room.presence();
    presence.catch_up();
    assert!(keys(&presence).is_empty() && !presence.is_synced());
    bench.advance(Duration::from_secs(3));
    bench.reply("ok", json!({}));
    state(&mut bench, &json!({"ann": metas("a1")}));
    assert_eq!(events(&mut presence), ["+ann", "synced"]);
}

/// How many joins were sent.
fn joins_sent(bench: &Bench) -> usize {
    bench.memory.world().to_server.iter().filter(|sent| sent[3] == "phx_join").count()
}

/// A stream that is created after the join gets the messages that followed the ok. No second join
/// is sent for it, even if more messages are queued than a log may otherwise contain.
#[test]
fn stream_after_join_begins_with_the_state() {
    let mut bench = Bench::new(|config| config);
    let client = bench.client.clone();
    let mut join = pin!(client.join(TOPIC, json!({})));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    bench.reply("ok", json!({}));
    // All messages have arrived before the task that waits for the join continues.
    joins(&mut bench, "me", "m1");
    let users = (0..5_000).map(|at| (format!("user{at}"), metas(&format!("u{at}"))));
    state(&mut bench, &Value::Object(users.collect()));
    let room = ready(join).expect("joined");
    let mut presence = room.presence();
    assert_eq!(ready(pin!(presence.synced())), Ok(()));
    assert_eq!(keys(&presence).len(), 5_001);
    bench.advance(Duration::from_secs(1));
    assert_eq!(joins_sent(&bench), 1);
}

/// The state is kept for a handle that exists at the join, also while no stream reads the channel. The call
/// that waits for its reply is not lost.
#[test]
fn state_is_kept_without_streams() {
    for (has_mailbox, waits) in [(false, false), (false, true), (true, false)] {
        let at = (has_mailbox, waits);
        let mut bench = Bench::new(|config| config.auto_join(TOPIC, json!({})).expect("a topic"));
        let room = if has_mailbox {
            bench.client.want(TOPIC, json!({})).expect("the same parameters")
        } else {
            bench.client.channel(TOPIC).expect("it is wanted")
        };
        let mut joined = pin!(room.joined());
        assert!(!waits || poll(joined.as_mut()).is_pending());
        bench.reply("ok", json!({}));
        assert!(!waits || ready(joined).is_ok());
        if has_mailbox {
            drop(room.messages());
        }
        joins(&mut bench, "me", "m1");
        state(&mut bench, &json!({"ann": metas("a1"), "me": metas("m1")}));
        let mut call = pin!(room.push("ask", json!({})));
        assert!(poll(call.as_mut()).is_pending());
        bench.settle();
        let mut presence = room.presence();
        assert_eq!(ready(pin!(presence.synced())), Ok(()), "{at:?}");
        assert_eq!(keys(&presence), ["ann", "me"]);
        bench.reply("ok", json!({}));
        assert!(ready(call.as_mut()).is_ok());
        // The next stream needs no join either.
        drop(presence);
        assert_eq!(ready(pin!(room.presence().synced())), Ok(()), "{at:?}");
        bench.advance(Duration::from_secs(1));
        assert_eq!(joins_sent(&bench), 1);
    }
}

/// The state of an auto-join is not kept without a handle, and no longer than the handle.
#[test]
fn state_goes_with_last_handle() {
    for with_handle in [false, true] {
        let mut bench = Bench::new(|config| config.auto_join(TOPIC, json!({})).expect("a topic"));
        let room = with_handle.then(|| bench.client.channel(TOPIC).expect("it is wanted"));
        bench.reply("ok", json!({}));
        state(&mut bench, &json!({"ann": metas("a1")}));
        drop(room);
        let mut presence = bench.client.channel(TOPIC).expect("it is wanted").presence();
        presence.catch_up();
        assert!(!presence.is_synced());
        bench.advance(Duration::from_secs(1));
        assert_eq!(joins_sent(&bench), 2, "{with_handle}");
    }
}

/// The memory of the log of each channel is bounded. If the bound was exceeded, a new stream causes
/// one rejoin.
#[test]
fn log_over_its_bound_costs_one_rejoin() {
    for (users, rejoins) in [(900, 0), (1_100, 1)] {
        let mut bench = Bench::new(|config| config);
        let room = bench.joined(TOPIC);
        let meta = json!({"metas": [{"phx_ref": "f", "about": "x".repeat(1_000)}]});
        let users = (0..users).map(|at| (format!("{at}"), meta.clone()));
        state(&mut bench, &Value::Object(users.collect()));
        let _presence = room.presence();
        bench.advance(Duration::from_secs(1));
        assert_eq!(joins_sent(&bench), 1 + rejoins);
    }
}

/// The logs of many channels share one bound, and the latest logs stay.
#[test]
fn logs_of_many_channels_are_bounded_together() {
    let mut bench = Bench::new(|config| config);
    let meta = json!({"metas": [{"phx_ref": "f", "about": "x".repeat(900_000)}]});
    let rooms: Vec<Channel> = (0..12)
        .map(|at| {
            let topic = format!("room:{at}");
            let room = bench.joined(&topic);
            let join_ref = bench.last_sent()[0].clone();
            bench.server_sends(&json!([join_ref, null, topic, "presence_state", {"ann": meta}]));
            room
        })
        .collect();
    // The tenth log exceeded the bound of 8 MiB. It and the logs after it were kept.
    let mut presences = Vec::new();
    for (at, room) in rooms.iter().enumerate().rev() {
        let before = joins_sent(&bench);
        let mut presence = room.presence();
        presence.catch_up();
        bench.advance(Duration::from_secs(1));
        let kept = at >= 9 || presence.is_synced();
        assert_eq!(presence.is_synced(), at >= 9, "{at}");
        assert_eq!(joins_sent(&bench) - before, usize::from(!kept), "{at}");
        if !kept {
            bench.reply("ok", json!({}));
            let sent = bench.last_sent();
            bench.server_sends(&json!([sent[0], null, sent[2], "presence_state", {"bob": meta}]));
            assert_eq!(ready(pin!(presence.synced())), Ok(()));
            assert_eq!(keys(&presence), ["bob"]);
        }
        presences.push(presence);
    }
}

/// A channel that is left releases the memory of its log.
#[test]
fn log_of_left_channel_is_freed() {
    let mut bench = Bench::new(|config| config.heartbeat_interval(Duration::ZERO));
    let kept = bench.joined("room:kept");
    let meta = json!({"metas": [{"phx_ref": "f", "about": "x".repeat(900_000)}]});
    let send_state = |bench: &mut Bench, topic: &str| {
        let join_ref = bench.last_sent()[0].clone();
        bench.server_sends(&json!([join_ref, null, topic, "presence_state", {"ann": meta}]));
    };
    send_state(&mut bench, "room:kept");
    for at in 0..30 {
        let topic = format!("room:{at}");
        let room = bench.joined(&topic);
        send_state(&mut bench, &topic);
        if at % 3 == 0 {
            // The logs are dropped with the connection, which was open for a long time.
            bench.advance(Duration::from_secs(11));
            bench.cut();
            bench.advance(Duration::from_secs(3));
            let mut sent = bench.memory.world().to_server.clone();
            sent.retain(|sent| sent[3] == "phx_join");
            for join in &sent[sent.len() - 2..] {
                let body = json!({"status": "ok", "response": {}});
                bench.server_sends(&json!([join[0], join[1], join[2], "phx_reply", body]));
                bench.server_sends(
                    &json!([join[0], null, join[2], "presence_state", {"ann": meta}]),
                );
            }
        }
        drop(room);
        bench.settle();
        assert_eq!(bench.last_sent()[3], "phx_leave");
        bench.reply("ok", json!({}));
    }
    let mut presence = kept.presence();
    assert_eq!(ready(pin!(presence.synced())), Ok(()));
}

/// A list that exceeds its bound ends its stream and the stream's mailbox.
#[test]
fn list_over_bound_ends_the_stream() {
    let (mut bench, room) = lobby(|config| config);
    let mut presence = room.presence().bytes_max(10_000);
    assert_eq!(events(&mut presence), ["+ann", "+me", "+me", "synced"]);
    let users = (0..100).map(|at| (format!("user{at}"), metas("f")));
    let diff = json!({"joins": Value::Object(users.collect()), "leaves": {}});
    bench.server_sends(&json!([null, null, TOPIC, "presence_diff", diff]));
    joins(&mut bench, "bob", "b1");
    let end = PresenceEvent::Closed(StreamEnd::PresenceTooLarge);
    assert_eq!(ready(pin!(presence.next())), Some(end));
    joins(&mut bench, "cy", "c1");
    assert_eq!(ready(pin!(presence.next())), None);
    presence.catch_up();
    assert!(keys(&presence).is_empty() && !presence.is_synced());
    assert_eq!(ready(pin!(presence.synced())), Err(StreamEnd::Gone));
    // Another stream of the channel is not affected.
    let mut other = room.presence();
    assert_eq!(ready(pin!(other.synced())), Ok(()));
    assert_eq!(keys(&other).len(), 104);
    bench.advance(Duration::from_secs(1));
    assert_eq!(joins_sent(&bench), 1);
}
