//! Mailboxes of channels.

use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use bytes::Bytes;
use phx_proto::Config;
use phx_proto::catch_up::Contract;
use phx_proto::client::{CatchUp, ChannelEvent, JoinOptions, MailboxPolicy, Message, Messages};
use serde_json::{Value, json};

use super::{KIB, MIB, held, large, message, one_buffer, peak, receive, rejoined, row};
use crate::bench::{Bench, next, poll, ready};

const ROOM: &str = "room:lobby";

fn room(configure: impl FnOnce(Config) -> Config) -> (Bench, phx_proto::client::Channel) {
    let mut bench = Bench::new(configure);
    let room = bench.joined(ROOM);
    (bench, room)
}

fn tiny_beside(large_len: usize, count: usize) -> u64 {
    let (mut bench, room) = room(|config| config);
    let messages = room.messages();
    let bytes = held(|| {
        for number in 0..count {
            let tiny = message(ROOM, "m", &number.to_string());
            receive(&mut bench, one_buffer([&large(large_len), &tiny]));
        }
    });
    drop(messages);
    bytes
}

#[test]
fn tiny_messages_beside_large_ones() {
    row("mailbox: tiny beside 1 MiB", 8 * MIB, tiny_beside(MIB, 200));
}

#[test]
fn tiny_message_beside_a_huge_one() {
    row("mailbox: one tiny beside 32 MiB", 8 * MIB, tiny_beside(32 * MIB, 1));
}

/// The default read buffer has doubled to 32 KiB and is full of small messages. The mailbox keeps one of
/// them.
#[test]
fn tiny_messages_in_read_buffers() {
    let (mut bench, room) = room(|config| config);
    let messages = room.messages();
    let (other, tiny) = (message("room:other", "msg", &"1".repeat(2_000)), message(ROOM, "m", "1"));
    let bytes = held(|| {
        for _ in 0..256 {
            let mut frames = [&*other; 16];
            frames[15] = &tiny;
            receive(&mut bench, one_buffer(frames));
        }
    });
    drop(messages);
    row("mailbox: tiny in read buffers of 32 KiB", 8 * MIB, bytes);
}

#[test]
fn long_event_names() {
    let (mut bench, room) = room(|config| config);
    let messages = room.messages();
    let name = "n".repeat(200 * KIB);
    let bytes = held(|| {
        for _ in 0..256 {
            receive(&mut bench, one_buffer([&message(ROOM, &name, "1")]));
        }
    });
    drop(messages);
    row("mailbox: event names of 200 KiB", 8 * MIB, bytes);
}

/// The parts of a fragmented message are collected in a buffer that doubles its capacity.
#[test]
fn fragmented_messages() {
    let (mut bench, room) = room(|config| config);
    let messages = room.messages();
    let text = message(ROOM, "msg", &format!("\"{}\"", "x".repeat(520 * KIB)));
    let bytes = held(|| {
        for _ in 0..64 {
            let mut buffer = Vec::with_capacity(MIB);
            buffer.extend_from_slice(text.as_bytes());
            receive(&mut bench, [Bytes::from(buffer)]);
        }
    });
    drop(messages);
    row("mailbox: fragmented, 520 KiB in 1 MiB", 8 * MIB, bytes);
}

#[test]
fn very_many_tiny_messages() {
    let (mut bench, room) = room(|config| config.mailbox(1_000_000, MIB).expect("not zero"));
    let messages = room.messages();
    let tiny = message(ROOM, "m", "1");
    let bytes = held(|| {
        for _ in 0..20_000 {
            receive(&mut bench, one_buffer([&tiny]));
        }
    });
    drop(messages);
    row("mailbox of 1 MiB: 20,000 tiny ones", MIB, bytes);
}

/// The bound includes the messages that the reader has taken in advance, and those that arrived since
/// then.
#[test]
fn messages_in_hand() {
    let (mut bench, room) = room(|config| config);
    let mut messages = room.messages();
    let bytes = held(|| {
        for round in 0..2 {
            for _ in 0..200 {
                let tiny = message(ROOM, "m", "1");
                receive(&mut bench, one_buffer([&large(MIB), &tiny]));
            }
            if round == 0 {
                let first = poll(pin!(messages.next()));
                assert!(matches!(first, Poll::Ready(Some(ChannelEvent::Message(_)))), "{first:?}");
            }
        }
    });
    drop(messages);
    row("mailbox: some in the reader's hand", 8 * MIB, bytes);
}

#[test]
fn several_mailboxes_of_one_topic() {
    let (mut bench, room) = room(|config| config);
    let messages = [room.messages(), room.messages(), room.messages()];
    let bytes = held(|| {
        for _ in 0..200 {
            let tiny = message(ROOM, "m", "1");
            receive(&mut bench, one_buffer([&large(MIB), &tiny]));
        }
    });
    drop(messages);
    row("3 mailboxes of one topic", 3 * 8 * MIB, bytes);
}

/// Each interruption in the mailbox holds the response of the join that ended it.
#[test]
fn responses_of_rejoins() {
    let (mut bench, room) = room(|config| config);
    let messages = room.messages();
    let response = Value::from("r".repeat(MIB));
    let bytes = held(|| {
        for number in 0..30 {
            rejoined(&mut bench, &response);
            let join_ref = bench.last_sent()[0].clone();
            let tiny = format!(r#"[{join_ref},null,"{ROOM}","m",{number}]"#);
            receive(&mut bench, one_buffer([&tiny]));
        }
        // The test's end of the wire keeps the frames that were sent.
        bench.memory.world().to_server.clear();
    });
    drop(messages);
    row("mailbox: a response of 1 MiB per gap", 8 * MIB, bytes);
}

/// Messages with long event names beside larger messages in a read buffer, with a policy that ends the
/// mailbox or drops the newest messages.
#[test]
fn other_policies() {
    for policy in [MailboxPolicy::DropNewest, MailboxPolicy::Close] {
        let mut bench = Bench::new(|config| config);
        let client = bench.client.clone();
        let options = JoinOptions::new().mailbox(policy);
        let mut join = pin!(client.join_with(ROOM, json!({}), options));
        assert!(poll(join.as_mut()).is_pending());
        bench.settle();
        bench.reply("ok", json!({}));
        let messages = ready(join.as_mut()).expect("joined").messages();
        let bytes = held(|| {
            for _ in 0..64 {
                let name = "n".repeat(400 * KIB);
                receive(&mut bench, one_buffer([&large(MIB), &message(ROOM, &name, "1")]));
            }
        });
        drop(messages);
        row(&format!("mailbox: {policy:?}"), 8 * MIB, bytes);
    }
}

/// A stream that catches up on the room, and has joined it. The replay comes in events and has not ended.
fn catching_up(bench: &mut Bench) -> Messages {
    let catch_up = CatchUp::new(|message: &Message| message.payload().to_value().ok()?.as_u64());
    let contract = Contract::in_events("part", "end").end_timeout(Duration::MAX);
    let options = JoinOptions::new().catch_up(catch_up.contract(contract));
    let client = bench.client.clone();
    let mut join = pin!(client.join_with(ROOM, json!({}), options));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    bench.reply("ok", json!({}));
    ready(join.as_mut()).expect("joined").messages()
}

/// Live messages that are held back until the end of a replay, and the same number in the mailbox.
#[test]
fn messages_held_during_replay() {
    let mut bench = Bench::new(|config| config);
    let mut messages = catching_up(&mut bench);
    let name = "n".repeat(200 * KIB);
    let mut number = 0;
    let bytes = held(|| {
        for reads in [true, false] {
            for _ in 0..256 {
                number += 1;
                let live = message(ROOM, &name, &number.to_string());
                receive(&mut bench, one_buffer([&large(MIB), &live]));
                if reads {
                    assert!(poll(pin!(messages.next())).is_pending());
                }
            }
        }
    });
    drop(messages);
    row("catching up: held back, and in the mailbox", 16 * MIB, bytes);
}

/// A part of a replay with very many small messages.
#[test]
fn part_of_tiny_messages() {
    let mut bench = Bench::new(|config| config);
    let mut messages = catching_up(&mut bench);
    let item = r#"{"event":"a","payload":0},"#;
    let items = item.repeat(4 * MIB / item.len());
    let part = format!(r#"{{"messages":[{}]}}"#, items.trim_end_matches(','));
    let part = message(ROOM, "part", &part);
    let bytes = peak(|| {
        receive(&mut bench, one_buffer([&part]));
        assert!(poll(pin!(messages.next())).is_ready());
    });
    row("catching up: a part of 4 MiB, tiny messages", 3 * 4 * MIB, bytes);
}

/// Sends small messages in separate read buffers. Returns how many were delivered as slices of
/// these buffers.
fn slices(bench: &mut Bench, messages: &mut Messages, join_ref: &str, at_once: usize) -> usize {
    let mut slices = 0;
    for _ in 0..4 {
        let text = format!(r#"[{join_ref},null,"{ROOM}","m",1]"#);
        let frames: Vec<Bytes> = (0..at_once).map(|_| one_buffer([&*text])[0].clone()).collect();
        receive(bench, frames.clone());
        for frame in &frames {
            let Some(ChannelEvent::Message(message)) = next(messages) else { panic!("a message") };
            slices +=
                usize::from(frame.as_ptr_range().contains(&message.payload().as_bytes().as_ptr()));
        }
    }
    slices
}

/// A consumer that keeps up gets slices of the read buffer. So does a consumer with many queued
/// messages, as long as the messages of its connection are small.
#[test]
fn messages_are_not_copied_needlessly() {
    let (mut bench, room) = room(|config| config);
    let mut messages = room.messages();
    assert_eq!(slices(&mut bench, &mut messages, "null", 200), 800);
    receive(&mut bench, one_buffer([&*large(MIB)]));
    assert_eq!(slices(&mut bench, &mut messages, "null", 3), 12);
    assert!(slices(&mut bench, &mut messages, "null", 20) < 20);
    receive(&mut bench, one_buffer([&*large(9 * MIB)]));
    assert_eq!(slices(&mut bench, &mut messages, "null", 1), 0, "a slice may keep 9 MiB alive");
    rejoined(&mut bench, &json!({}));
    while poll(pin!(messages.next())).is_ready() {}
    assert_eq!(slices(&mut bench, &mut messages, "null", 200), 800, "a new, small read buffer");
}
