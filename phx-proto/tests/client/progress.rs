//! The progress that the driver reports, on virtual time.

use std::time::Duration;

use crate::bench::Bench;
use phx_proto::{JoinParams, Payload, Status};
use serde_json::json;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A joined client with an unanswered heartbeat.
fn probing() -> Bench {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:a");
    std::mem::forget(room);
    bench.client.probe().unwrap();
    bench.settle();
    assert_eq!(bench.last_sent()[3], "heartbeat");
    bench
}

/// Adds KiB of data that the driver reads when it is polled next.
fn read(bench: &Bench, kib: u64) {
    bench.memory.world().unread += kib << 10;
}

/// The number of seconds until the connection is declared dead, if the driver is polled every half
/// second.
fn dies_after(bench: &mut Bench) -> u64 {
    for half in 1..4_000 {
        bench.advance(Duration::from_millis(500));
        if bench.client.status() != Status::Open {
            return half / 2;
        }
    }
    panic!("it is kept for ever");
}

#[test]
fn bytes_read_extend_heartbeat_deadline() {
    assert_eq!(dies_after(&mut probing()), 10);
    let mut bench = probing();
    read(&bench, 30);
    assert_eq!(dies_after(&mut bench), 10 + 30);
}

#[test]
fn bytes_written_extend_heartbeat_deadline() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:a");
    bench.memory.world().moved.written = 80 << 10;
    bench.client.probe().unwrap();
    bench.settle();
    // Bytes that are written after the flush do not extend the deadline.
    bench.memory.world().moved.written += 8 << 20;
    assert_eq!(dies_after(&mut bench), 10 + 10);
    drop(room);
}

/// If 16 KiB or more were written since the last report, the driver reports them before it writes the
/// next frame, even if no answer was awaited for a long time. So the answer to that frame proves that
/// they have arrived.
#[test]
fn written_bytes_are_reported_before_next_frame() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:a");
    bench.memory.world().moved.written = 1 << 20;
    let mut push = std::pin::pin!(room.push("e", json!({})));
    assert!(crate::bench::poll(push.as_mut()).is_pending());
    bench.settle();
    bench.reply("ok", json!({}));
    crate::bench::ready(push.as_mut()).unwrap();
    bench.client.probe().unwrap();
    bench.settle();
    assert_eq!(dies_after(&mut bench), 10);
}

/// One poll writes many long frames. The answer to the last of them proves that the others have arrived,
/// so only the bytes of the last one extend the deadline of the next heartbeat.
#[test]
fn written_bytes_are_reported_within_poll() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:a");
    bench.memory.world().counts_sent = true;
    let push = || Box::pin(room.push("e", json!("x".repeat(40 << 10))));
    let mut pushes: Vec<_> = (0..10).map(|_| push()).collect();
    for push in &mut pushes {
        assert!(crate::bench::poll(push.as_mut()).is_pending());
    }
    bench.settle();
    bench.reply("ok", json!({}));
    bench.client.probe().unwrap();
    bench.settle();
    assert_eq!(dies_after(&mut bench), 10 + 40 / 8);
}

/// After the answer no report is due, so the timer is set to the next deadline. Otherwise every
/// heartbeat would wake the driver's task once more.
#[test]
fn answer_sets_timer_to_next_deadline() {
    let mut bench = probing();
    let report = bench.memory.world().now + Duration::from_millis(500);
    assert_eq!(bench.memory.world().timer, Some(report));
    bench.reply("ok", json!({}));
    let timer = bench.memory.world().timer.expect("the next heartbeat has a deadline");
    assert!(timer > report + secs(1), "{timer:?}");
}

/// Bytes that were in a buffer while the process was stopped do not prove that the peer is alive
/// now.
#[test]
fn bytes_behind_a_gap_extend_nothing() {
    let mut bench = probing();
    bench.advance(secs(2));
    read(&bench, 1_000);
    // The driver was stopped for 7 s. It then reads these bytes, and finds no more.
    bench.advance(secs(7));
    assert_eq!(dies_after(&mut bench), 10 - 9);
}

/// A function of join parameters blocks the driver's task in the middle of a poll. The bytes that arrive
/// meanwhile may be old, too.
#[test]
fn bytes_behind_a_gap_within_poll_extend_nothing() {
    let mut bench = probing();
    let memory = bench.memory.clone();
    let params = JoinParams::from_fn(move |_| {
        memory.world().now += secs(7);
        memory.world().unread += 1_000 << 10;
        Payload::empty()
    });
    let client = bench.client.clone();
    let mut join = std::pin::pin!(client.join("room:b", params));
    assert!(crate::bench::poll(join.as_mut()).is_pending());
    bench.settle();
    bench.reply("ok", json!({}));
    // The answer to the join gives the heartbeat a whole timeout.
    assert_eq!(dies_after(&mut bench), 10);
}

#[test]
fn bytes_after_gap_count_from_empty_socket() {
    let mut bench = probing();
    bench.advance(secs(7));
    read(&bench, 20);
    assert_eq!(dies_after(&mut bench), 10 - 7 + 20);
}

/// If the socket is never empty, bytes up to the size of a buffer are ignored after a gap, because
/// they may be old. Bytes beyond that extend deadlines.
#[test]
fn bytes_after_gap_count_beyond_full_buffer() {
    const BUFFER: u64 = 32 << 10;
    for (kib, bought) in [(BUFFER - 100, 0), (BUFFER, 0), (BUFFER + 50, 50)] {
        let mut bench = probing();
        bench.memory.world().flood = Some(json!([null, null, "room:z", "e", {}]));
        bench.advance(secs(7));
        // Two reads: one up to the bound, and one beyond it.
        read(&bench, kib.min(BUFFER));
        bench.settle();
        read(&bench, kib.saturating_sub(BUFFER));
        bench.memory.world().flood = None;
        bench.settle();
        assert_eq!(dies_after(&mut bench), 10 - 7 + bought, "{kib}");
    }
}

/// The driver of an idle connection is not polled for a long time. The next poll finds nothing to read, so
/// bytes that are read after that poll extend deadlines.
#[test]
fn quiet_connection_loses_no_evidence() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:a");
    bench.advance(secs(14));
    bench.client.probe().unwrap();
    bench.settle();
    read(&bench, 20);
    assert_eq!(dies_after(&mut bench), 10 + 20);
    drop(room);
}

/// After the process was stopped, or its runtime was blocked, the answer is in the buffer. It is read
/// before any deadline is handled.
#[test]
fn stopped_process_reads_before_it_expires() {
    for stopped in [4, 7, 60, 3_600] {
        let mut bench = probing();
        let beat = bench.last_sent();
        let ok = json!({"status": "ok", "response": {}});
        let reply = json!([null, beat[1], "phoenix", "phx_reply", ok]);
        bench.memory.world().now += secs(stopped);
        bench.server_sends(&reply);
        assert_eq!(bench.client.status(), Status::Open, "{stopped} s");
        assert_eq!(bench.memory.world().dials, 1);
    }
}

/// Without an answer in the buffer, a late driver gives the peer one more timeout.
#[test]
fn late_driver_probes_once_more() {
    let mut bench = probing();
    bench.advance(secs(60));
    assert_eq!(bench.client.status(), Status::Open);
    assert_eq!(dies_after(&mut bench), 10);
}
