//! Mailboxes of unrouted messages, and the list of topics that ended.

use super::{KIB, MIB, held, large, message, one_buffer, receive, row};
use crate::bench::Bench;

/// The server chooses a new topic for each message.
#[test]
fn long_topics() {
    let mut bench = Bench::new(|config| config);
    let unrouted = bench.client.unrouted();
    let bytes = held(|| {
        for number in 0..256 {
            let topic = format!("{number}{}", "t".repeat(200 * KIB));
            receive(&mut bench, one_buffer([&message(&topic, "m", "1")]));
        }
    });
    drop(unrouted);
    row("unrouted: topics of 200 KiB", 8 * MIB, bytes);
}

#[test]
fn tiny_unrouted_messages_beside_large_ones() {
    let mut bench = Bench::new(|config| config);
    let unrouted = bench.client.unrouted();
    let bytes = held(|| {
        for number in 0..200 {
            let tiny = message(&format!("doc:{number}"), "m", "1");
            receive(&mut bench, one_buffer([&large(MIB), &tiny]));
        }
    });
    drop(unrouted);
    row("unrouted: tiny beside 1 MiB", 8 * MIB, bytes);
}

/// Without a stream nothing is kept, however many topics there are.
#[test]
fn unrouted_without_stream() {
    let mut bench = Bench::new(|config| config);
    let bytes = held(|| {
        for number in 0..10_000 {
            receive(&mut bench, one_buffer([&message(&format!("doc:{number}"), "m", "1")]));
        }
    });
    row("unrouted: no stream", 0, bytes);
}

#[test]
fn topics_that_ended() {
    let mut bench = Bench::new(|config| config);
    let bytes = held(|| {
        for number in 0..1_000 {
            let room = bench.joined(&format!("{number}{}", "t".repeat(KIB)));
            drop(room);
            bench.settle();
            bench.reply("ok", serde_json::json!({}));
            bench.memory.world().to_server = Vec::new();
        }
    });
    row("topics that ended, of 1 KiB", 16 * KIB, bytes);
}
