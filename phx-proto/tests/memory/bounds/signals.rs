//! Streams of signals.

use core::pin::pin;
use core::time::Duration;

use phx_proto::Cause;
use phx_proto::event::Refusal;
use serde_json::{Value, json};

use super::{KIB, MIB, held, large, message, one_buffer, receive, row};
use crate::bench::{Bench, poll, ready};

fn fed(topics: usize, feed: impl FnOnce(&mut Bench)) -> u64 {
    let mut bench = Bench::new(|config| config.mailbox(256, 8 * MIB).expect("not zero"));
    let rooms: Vec<_> = (0..topics).map(|n| bench.joined(&format!("room:{n}"))).collect();
    // The mailboxes of the handles are not read; they have bounds of their own.
    let signals = bench.client.signals();
    drop(rooms.iter().map(|room| room.messages()).collect::<Vec<_>>());
    let bytes = held(|| {
        feed(&mut bench);
        bench.memory.world().to_server.clear();
    });
    drop(signals);
    bytes
}

#[test]
fn tiny_messages_beside_large_ones() {
    let bytes = fed(1, |bench| {
        for _ in 0..200 {
            let tiny = message("room:0", "m", "1");
            receive(bench, one_buffer([&large(MIB), &tiny]));
        }
    });
    row("signals and a mailbox: tiny beside 1 MiB", 2 * 8 * MIB, bytes);
}

#[test]
fn long_event_names() {
    let name = "n".repeat(200 * KIB);
    let bytes = fed(1, |bench| {
        for _ in 0..256 {
            receive(bench, one_buffer([&message("room:0", &name, "1")]));
        }
    });
    row("signals and a mailbox: event names of 200 KiB", 2 * 8 * MIB, bytes);
}

#[test]
fn causes_with_many_headers() {
    let bytes = fed(0, |bench| {
        bench.cut();
        for _ in 0..400 {
            let headers = (0..64).map(|n| (format!("x-{n}"), "v".repeat(2_000))).collect();
            let refused = Cause::Refused(Refusal::new(503, headers, vec![b'b'; 4_000]));
            bench.memory.world().failures.push_back(refused);
            bench.advance(Duration::from_secs(30));
        }
        bench.memory.world().requests.clear();
    });
    row("signals: refusals with 128 KiB of headers", 8 * MIB, bytes);
}

/// The latest state of each topic is kept. Its join response is dropped beyond the bound.
#[test]
fn large_join_responses_of_many_topics() {
    let response = Value::from("r".repeat(MIB));
    let mut bench = Bench::new(|config| config.mailbox(256, 8 * MIB).expect("not zero"));
    let signals = bench.client.signals();
    let bytes = held(|| {
        for n in 0..40 {
            let topic = format!("room:{n}");
            let client = bench.client.clone();
            let mut join = pin!(client.join(topic.as_str(), json!({})));
            assert!(poll(join.as_mut()).is_pending());
            bench.settle();
            bench.reply("ok", response.clone());
            drop(ready(join.as_mut()).expect("joined"));
            bench.settle();
            bench.reply("ok", json!({}));
        }
        bench.memory.world().to_server.clear();
    });
    drop(signals);
    row("signals: join responses of 1 MiB, 40 topics", 8 * MIB, bytes);
}

#[test]
fn bad_frames() {
    let bytes = fed(0, |bench| {
        for _ in 0..400 {
            receive(bench, one_buffer([&"{".repeat(MIB)]));
        }
    });
    row("signals: evidence of bad frames of 1 MiB", 8 * MIB, bytes);
}

#[test]
fn large_refusals_of_joins() {
    let response = Value::from("r".repeat(MIB));
    let bytes = fed(0, |bench| {
        for _ in 0..40 {
            let client = bench.client.clone();
            let mut join = pin!(client.join("room:refused", json!({})));
            assert!(poll(join.as_mut()).is_pending());
            bench.settle();
            bench.reply("error", response.clone());
            assert!(ready(join.as_mut()).is_err());
        }
    });
    row("signals: refusals of joins of 1 MiB", 8 * MIB, bytes);
}
