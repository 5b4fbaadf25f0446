//! The state of the connection, and observers that do not keep it open.

use core::pin::pin;
use core::task::{Context, Waker};
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Wake;

use futures_core::stream::FusedStream as _;
use phx_proto::client::{ClientEvent, Setup};
use phx_proto::testing::Script;
use phx_proto::{Cause, Status};
use serde_json::json;

use super::{config, now, settle};
use crate::bench::{Bench, poll, ready};

fn name(status: &Status) -> &'static str {
    match status {
        Status::Idle => "idle",
        Status::Connecting { .. } => "connecting",
        Status::Open => "open",
        Status::Waiting { .. } => "waiting",
        Status::Closing => "closing",
        Status::Closed => "closed",
        Status::GaveUp { .. } => "gave up",
        _ => "other",
    }
}

#[test]
fn fast_reader_sees_every_status() {
    let script = Script::new();
    let client = script.client(config());
    let mut changes = client.status_changes();
    let watching = script.spawn(async move {
        let mut seen = Vec::new();
        while let Some(status) = changes.next().await {
            seen.push(name(&status));
        }
        assert!(changes.is_terminated());
        assert_eq!(changes.next().await, None, "nothing follows");
        seen
    });
    script.accept_connect();
    script.disconnect();
    script.refuse_connect(503);
    script.accept_connect();
    now(&script, {
        let client = client.clone();
        async move { client.disconnect().await }
    });
    drop(client);
    let seen = script.finish(watching);
    let (lost, refused) = (["waiting", "connecting"], ["waiting", "connecting"]);
    // The connection closes at once here, so no watcher sees that it is closing.
    let expected = [&["connecting", "open"][..], &lost, &refused, &["open", "closed"]];
    assert_eq!(seen, expected.concat());
}

/// A slow reader gets the present state once. The states in between use no memory.
#[test]
fn slow_reader_gets_latest_status_only() {
    let mut bench = Bench::new(|config| config);
    let mut changes = bench.client.status_changes();
    assert_eq!(ready(pin!(changes.next())), Some(Status::Open));
    assert!(poll(pin!(changes.next())).is_pending());
    for _ in 0..3 {
        bench.cut();
        bench.advance(Duration::from_secs(10));
    }
    assert_eq!(bench.client.status(), Status::Open);
    assert!(poll(pin!(changes.next())).is_pending(), "the same state as before");
    bench.cut();
    assert_eq!(ready(pin!(changes.next())).as_ref().map(name), Some("waiting"));
    assert!(poll(pin!(changes.next())).is_pending());
    assert!(!changes.is_terminated());
}

/// A task that only observes must not keep a connection open that the program no longer uses.
#[test]
fn observers_do_not_keep_the_connection() {
    let script = Script::new();
    let client = script.client(config());
    let mut changes = client.status_changes();
    let mut signals = client.signals();
    let weak = client.downgrade();
    let watching = script.spawn(async move {
        let mut last = None;
        while let Some(status) = changes.next().await {
            last = Some(status);
        }
        last
    });
    let logging = script.spawn(async move {
        let mut count = 0;
        assert!(!signals.is_terminated());
        while let Some(event) = signals.next().await {
            count += u32::from(matches!(event, ClientEvent::Signal(_)));
        }
        assert!(signals.is_terminated());
        count
    });
    script.accept_connect();
    assert_eq!(weak.upgrade().map(|client| client.status()), Some(Status::Open));
    drop(client);
    script.assert_disconnect();
    assert_eq!(script.finish(watching), Some(Status::Closed));
    assert!(script.finish(logging) >= 2);
    assert!(weak.upgrade().is_none());
    script.refute_connect();
}

#[test]
fn weak_client_is_the_same_client() {
    let script = Script::new();
    let client = script.client(Setup::new(config()).name("backend"));
    assert_eq!(client.name(), Some("backend"));
    let other = client.downgrade().upgrade().expect("it is there");
    drop(client);
    script.accept_connect();
    assert_eq!(other.name(), Some("backend"));
    assert_eq!(other.status(), Status::Open);
    assert_eq!(script.client(config()).name(), None);
}

#[test]
fn retry_in_counts_down_to_next_attempt() {
    let script = Script::new();
    let client = script.client(config());
    assert_eq!(client.retry_in(), None, "it is connecting");
    script.refuse_connect(503);
    let delay = client.retry_in().expect("it waits");
    assert!(delay > Duration::ZERO);
    script.advance(delay / 2);
    assert_eq!(client.retry_in(), Some(delay - delay / 2));
    script.accept_connect();
    assert_eq!(client.retry_in(), None);
}

/// If the driver is late and an attempt is overdue, the result is zero, not negative.
#[test]
fn retry_in_is_zero_when_due() {
    let mut bench = Bench::new(|config| config);
    bench.cut();
    assert!(bench.client.retry_in().is_some());
    bench.memory.world().now += Duration::from_secs(60);
    assert_eq!(bench.client.retry_in(), Some(Duration::ZERO));
}

#[test]
fn dropped_status_stream_keeps_nothing() {
    let bench = Bench::new(|config| config);
    let look = || drop(bench.client.status_changes());
    look();
    let info = allocation_counter::measure(|| (0..100).for_each(|_| look()));
    assert!(info.bytes_current < 200, "{} bytes for streams that are gone", info.bytes_current);
}

struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A wake-up changes the time of the next attempt without a signal. Watchers are notified
/// nevertheless.
#[test]
fn status_change_without_signal_wakes() {
    let mut bench = Bench::new(|config| config);
    let mut changes = bench.client.status_changes();
    let long = Cause::Dial { kind: phx_proto::event::DialKind::Refused, message: String::new() };
    bench.memory.world().failures = vec![long; 40].into();
    bench.cut();
    for _ in 0..12 {
        let wait = bench.client.retry_in().expect("it waits");
        bench.advance(wait);
    }
    // The first wake-up causes a dial at once, which fails. The second one, right after it, moves the
    // next attempt.
    bench.memory.world().slept += Duration::from_secs(10);
    bench.settle();
    let before = bench.client.status();
    let count = Arc::new(Count(AtomicU32::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut cx = Context::from_waker(&waker);
    while changes_poll(&mut changes, &mut cx).is_some() {}
    let woken = count.0.load(Ordering::Relaxed);
    bench.memory.world().slept += Duration::from_secs(10);
    bench.settle();
    assert_ne!(bench.client.status(), before, "the attempt was moved");
    assert!(matches!(bench.client.status(), Status::Waiting { .. }));
    assert!(count.0.load(Ordering::Relaxed) > woken, "the reader is woken");
    assert_eq!(changes_poll(&mut changes, &mut cx), Some(bench.client.status()));
}

/// The state `Closing` has no signal. Watchers are notified nevertheless.
#[test]
fn closing_wakes_status_watchers() {
    let bench = Bench::new(|config| config);
    let mut changes = bench.client.status_changes();
    let count = Arc::new(Count(AtomicU32::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut cx = Context::from_waker(&waker);
    assert_eq!(changes_poll(&mut changes, &mut cx), Some(Status::Open));
    assert_eq!(changes_poll(&mut changes, &mut cx), None);
    let mut disconnecting = pin!(bench.client.disconnect());
    assert!(poll(disconnecting.as_mut()).is_pending());
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert_eq!(changes_poll(&mut changes, &mut cx), Some(Status::Closing));
}

fn changes_poll(
    changes: &mut phx_proto::client::StatusChanges,
    cx: &mut Context<'_>,
) -> Option<Status> {
    match pin!(changes.next()).poll(cx) {
        core::task::Poll::Ready(status) => status,
        core::task::Poll::Pending => None,
    }
}

#[test]
fn give_up_is_a_status_with_its_cause() {
    let script = Script::new();
    let client = script.client(config());
    let mut changes = client.status_changes();
    script.refuse_connect(401);
    settle(&script);
    let status = now(&script, async move { changes.next().await }).expect("a state");
    match status {
        Status::GaveUp { cause: Cause::Refused(refusal) } => assert_eq!(refusal.status(), 401),
        other => panic!("{other:?}"),
    }
    let want = client.want("room:lobby", json!({}));
    assert!(want.is_err(), "it gave up");
}
