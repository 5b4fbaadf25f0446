//! Compression: the ratio, the time and the memory of each preset, in one run.
//!
//! `cargo bench -p phx-proto --bench deflate --features deflate,testing`
//!
//! The server and the client are endpoints of the same process. Times are in microseconds per message,
//! each message in its fastest round. Memory is what the client's endpoint holds after the traffic.

#![expect(clippy::disallowed_types, reason = "a benchmark reads the clock")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use bytes::BytesMut;
use phx_proto::Frame;
use phx_proto::config::Compression;
use phx_proto::websocket::{Endpoint, Limits, Scratch};
use serde_json::Value;

const ROUNDS: usize = 9;

fn main() {
    let balanced = Compression::balanced();
    let presets = [
        ("smallest", Some(Compression::smallest())),
        ("balanced", Some(balanced)),
        ("balanced, no takeover", Some(balanced.context_takeover(false, false))),
        ("strongest", Some(Compression::strongest())),
        ("none", None),
    ];
    println!("codecs, bytes");
    for bits in [10, 12, 13, 15] {
        println!("compressor, {bits} bits: {}", scratch_memory(bits).0);
    }
    println!("decompressor: {}", scratch_memory(15).1);
    let traffic = [
        ("recorded frames", recorded()),
        ("1 KiB records", records(1_024)),
        ("presence diffs", presence_diffs()),
        ("16 KiB records", records(16 << 10)),
        ("chat messages", chat()),
    ];
    for (name, messages) in &traffic {
        let bytes: usize = messages.iter().map(Frame::len).sum();
        println!("\n{name}: {} messages of {} bytes", messages.len(), bytes / messages.len());
        println!(
            "{:22} {:>8} {:>12} {:>12} {:>14}",
            "preset", "ratio", "receive, µs", "send, µs", "memory, bytes"
        );
        for (preset, compression) in &presets {
            let run = Run::of(messages, *compression);
            let plain = Run::of(messages, None);
            println!(
                "{preset:22} {:>8} {:>12.2} {:>12.2} {:>14}",
                format!("1/{:.2}", plain.received as f64 / run.received as f64),
                run.receive.as_secs_f64() * 1e6 / messages.len() as f64,
                run.send.as_secs_f64() * 1e6 / messages.len() as f64,
                run.memory,
            );
        }
    }
}

/// The cost of messages that a server sends to a client, and of the same messages from a client.
struct Run {
    /// The bytes of all frames that the client received.
    received: usize,
    receive: Duration,
    send: Duration,
    memory: u64,
}

impl Run {
    fn of(messages: &[Frame], compression: Option<Compression>) -> Self {
        // The server compresses every message, as Phoenix does.
        let theirs = compression.map(|ours| ours.reversed().send_bytes_min(0));
        let limits = Limits::default();
        let sides = || {
            let (client, server) = (Endpoint::client(&limits), Endpoint::server(&limits));
            match (compression, theirs) {
                (Some(ours), Some(theirs)) => {
                    (client.compressed(&ours), server.compressed(&theirs))
                }
                _ => (client, server),
            }
        };
        let mut scratch = Scratch::new();
        let (_, mut server) = sides();
        let down: Vec<BytesMut> =
            messages.iter().map(|message| written(&mut server, message, &mut scratch)).collect();
        let mut run = Self {
            received: down.iter().map(BytesMut::len).sum(),
            receive: Duration::ZERO,
            send: Duration::ZERO,
            memory: 0,
        };
        let mut fastest = vec![[Duration::MAX; 2]; messages.len()];
        for _ in 0..ROUNDS {
            let mut client = sides().0;
            for ((frame, message), fastest) in down.iter().zip(messages).zip(&mut fastest) {
                let mut frame = frame.clone();
                let start = Instant::now();
                let event = client.poll_event_with(&mut frame, &mut scratch);
                std::hint::black_box(event.expect("valid").expect("a message"));
                fastest[0] = fastest[0].min(start.elapsed());
                let start = Instant::now();
                std::hint::black_box(written(&mut client, message, &mut scratch));
                fastest[1] = fastest[1].min(start.elapsed());
            }
        }
        run.receive = fastest.iter().map(|[receive, _]| *receive).sum();
        run.send = fastest.iter().map(|[_, send]| *send).sum();
        let mut kept = None;
        let held = measure(|| {
            let mut client = sides().0;
            for (frame, message) in down.iter().zip(messages) {
                let mut frame = frame.clone();
                client.poll_event_with(&mut frame, &mut scratch).expect("valid");
                written(&mut client, message, &mut scratch);
            }
            kept = Some(client);
        });
        run.memory = held.bytes_current.unsigned_abs() + size_of::<Endpoint>() as u64;
        drop(kept);
        run
    }
}

fn written(endpoint: &mut Endpoint, message: &Frame, scratch: &mut Scratch) -> BytesMut {
    let mut out = BytesMut::new();
    endpoint.send(message.clone()).expect("the outbox is empty");
    while endpoint.poll_transmit_with(&mut out, usize::MAX, || [7; 4], scratch) > 0 {}
    out
}

/// The memory of the codecs after one sent and after one received message.
fn scratch_memory(bits: u8) -> (u64, u64) {
    let settings = Compression::balanced().window_bits(bits, bits).expect("valid windows");
    let limits = Limits::default();
    let mut client = Endpoint::client(&limits).compressed(&settings);
    let mut server = Endpoint::server(&limits).compressed(&settings);
    let (mut sends, mut receives) = (Scratch::new(), Scratch::new());
    let message = Frame::from("word after word ".repeat(16));
    let frame = written(&mut server, &message, &mut Scratch::new());
    let send = measure(|| drop(written(&mut client, &message, &mut sends)));
    let mut frame = frame.clone();
    let receive = measure(|| drop(client.poll_event_with(&mut frame, &mut receives)));
    (send.bytes_current.unsigned_abs(), receive.bytes_current.unsigned_abs())
}

/// The text frames of the recorded servers, as the traffic of one connection. Frames over 16 KiB, which
/// consist of one repeated character, are left out.
fn recorded() -> Vec<Frame> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/wire");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .collect();
    paths.sort();
    let mut frames = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "jsonl")) {
        for line in fs::read_to_string(path).expect("a file").lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            if let (Some("s2c"), Some("text"), Some(text)) =
                (line["dir"].as_str(), line["kind"].as_str(), line["text"].as_str())
            {
                frames.push(Frame::from(text));
            }
        }
    }
    frames
}

/// A generator of numbers that are the same in every run.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Broadcasts of lists of sensor readings with different values.
fn records(length: usize) -> Vec<Frame> {
    let mut rng = Rng(1);
    let message = |number| {
        let mut text = String::from(r#"[null,null,"room:0","msg",{"records":["#);
        while text.len() < length - 100 {
            let _ = write!(
                text,
                r#"{{"id":{},"name":"sensor-{:04}","value":{}.{:02},"unit":"{}","ok":{}}},"#,
                rng.below(100_000),
                rng.below(10_000),
                rng.below(1_013),
                rng.below(100),
                rng.pick(&["mbar", "C", "%"]),
                rng.below(10) > 0,
            );
        }
        text.pop();
        let _ = write!(text, r#"],"n":{number}}}]"#);
        Frame::from(text)
    };
    (0..400 * 1_024 / length).map(message).collect()
}

/// The diffs of a room in which 200 people come and go. The ref of a meta is new for each join: a time
/// in nanoseconds and random bits, in base64, as Phoenix makes them.
fn presence_diffs() -> Vec<Frame> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut rng = Rng(2);
    let mut present = Vec::new();
    let mut diff = |number: u64| {
        let mut joins = Vec::new();
        for _ in 0..=rng.below(3) / 2 {
            let mut meta_ref = String::from("GOqI");
            (0..12).for_each(|_| meta_ref.push(LETTERS[rng.below(64) as usize].into()));
            joins.push(format!(
                r#""{}":{{"metas":[{{"phx_ref":"{meta_ref}","device":"{}","online_at":{}}}]}}"#,
                1_000 + rng.below(4_000),
                rng.pick(&["ios", "android", "web"]),
                1_788_100_000 + number * 3 + rng.below(3),
            ));
        }
        let leaves = (200..present.len() + joins.len())
            .map(|_| present.swap_remove(rng.below(present.len() as u64) as usize))
            .collect::<Vec<_>>();
        present.extend(joins.iter().cloned());
        Frame::from(format!(
            r#"[null,null,"room:lobby","presence_diff",{{"joins":{{{}}},"leaves":{{{}}}}}]"#,
            joins.join(","),
            leaves.join(","),
        ))
    };
    // The first ones fill the room.
    (0..1_000).map(&mut diff).skip(400).collect()
}

fn chat() -> Vec<Frame> {
    const WORDS: &[&str] = &[
        "the", "a", "deploy", "is", "up", "down", "hello", "we", "channel", "today", "again",
        "soon", "now", "who", "server", "reviews", "it", "thanks", "looks", "good",
    ];
    let mut rng = Rng(3);
    let message = |number: u64| {
        let words = (0..3 + rng.below(12)).map(|_| rng.pick(WORDS)).collect::<Vec<_>>().join(" ");
        let user = rng.pick(&["ada", "grace", "linus", "barbara", "ken"]);
        Frame::from(format!(
            r#"[null,null,"room:lobby","new_msg",{{"user":"{user}","body":"{words}","at":{}}}]"#,
            1_788_100_000 + number * 7,
        ))
    };
    (0..800).map(message).collect()
}
