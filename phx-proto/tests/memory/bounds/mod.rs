//! The memory that is held at each bound, counted by the allocator.
//!
//! Every row feeds one queue adversarially: small messages next to large ones in one read buffer,
//! long names, many headers, deep and small JSON values. Afterwards the queue holds at most 1.25
//! times the stated bound plus [`CONSTANT`]. A hostile message of any shape costs at most three
//! times its size.
//!
//! `cargo test -p phx-proto --all-features --test memory bounds -- --nocapture --test-threads 1 | grep '│'`
//! prints the table.

mod bus;
#[cfg(feature = "deflate")]
mod compression;
mod hostile;
mod leaves;
mod mailbox;
mod presence;
mod pushes;
mod signals;
mod unrouted;
mod upgrade;

use core::time::Duration;

use crate::bench::Bench;
use allocation_counter::measure;
use bytes::Bytes;
use phx_proto::Frame;
use phx_proto::client::Received;
use serde_json::Value;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The memory that a queue and its client may hold in addition to the stated bound.
const CONSTANT: usize = 128 * KIB;

/// Prints a row, and asserts its bound.
fn row(name: &str, stated: usize, held: u64) {
    let allowed = (stated + stated / 4 + CONSTANT) as u64;
    let verdict = if held <= allowed { "" } else { " ✗" };
    let mib = |bytes: u64| format!("{}.{:02}", bytes >> 20, ((bytes & 0xf_ffff) * 100) >> 20);
    println!("│ {name} │ {} MiB │ {} MiB{verdict} │", mib(stated as u64), mib(held));
    assert!(held <= allowed, "{name}: {held} bytes are held, {allowed} are allowed");
}

/// The bytes that are still allocated after `work`, which returns the value that holds them.
fn held<T>(work: impl FnOnce() -> T) -> u64 {
    let mut kept = None;
    let info = measure(|| kept = Some(work()));
    drop(kept);
    u64::try_from(info.bytes_current).unwrap_or_default()
}

/// The peak of the bytes held during `work`, for values that do not outlive it. Most of them are dropped
/// as a whole when they reach their bound.
fn peak<T>(work: impl FnOnce() -> T) -> u64 {
    measure(|| drop(work())).bytes_max
}

/// Slices of one read buffer that holds all of these frames together.
fn one_buffer<const N: usize>(frames: [&str; N]) -> [Bytes; N] {
    let mut buffer = Bytes::from(frames.concat().into_bytes());
    frames.map(|frame| buffer.split_to(frame.len()))
}

fn message(topic: &str, event: &str, payload: &str) -> String {
    format!(r#"[null,null,"{topic}","{event}",{payload}]"#)
}

/// A message without a receiver, so that it only fills the read buffer.
fn large(len: usize) -> String {
    message("room:other", "msg", &format!("\"{}\"", "x".repeat(len)))
}

fn receive(bench: &mut Bench, frames: impl IntoIterator<Item = Bytes>) {
    for frame in frames {
        bench.memory.world().to_client.push_back(Received::Frame(Frame::Text(frame)));
    }
    bench.settle();
}

fn rejoined(bench: &mut Bench, response: &Value) {
    bench.cut();
    bench.advance(Duration::from_secs(5));
    assert_eq!(bench.last_sent()[3], "phx_join");
    bench.reply("ok", response.clone());
}
