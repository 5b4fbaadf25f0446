//! The documented meaning of the smallest and the largest value of each setter.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::hand::{Hand, config, secs};
use phx_proto::config::{Backoff, CloseRule, DelayRange, Options};
use phx_proto::event::{NotSentCause, PushErrorKind, Refusal};
use phx_proto::{Action, Cause, Config, PushOptions, PushOutcome, Signal, Status, Time};
use serde_json::json;

fn refused(status: u16, retry_after: &str) -> Cause {
    let headers = vec![("retry-after".to_owned(), retry_after.to_owned())];
    Cause::Refused(Refusal::new(status, headers, ""))
}

fn dial() -> Cause {
    Cause::Dial { kind: phx_proto::event::DialKind::Refused, message: "connection refused".into() }
}

/// Handles what is due now, with no time passing.
fn due_now(hand: &mut Hand) {
    hand.socket.handle_timeout(hand.now);
    hand.drain();
}

/// A configuration in which every duration has this value.
fn all_lengths(length: Duration) -> Config {
    let range = DelayRange::new(length, length).unwrap();
    let steps = Backoff::steps([length]).unwrap();
    config()
        .connect_timeout(length)
        .close_timeout(length)
        .first_retry_spread(range)
        .close_rule(1000, CloseRule::RetryWithin(range))
        .reconnect_after(steps.clone())
        .refused_after(steps.clone())
        .rejoin_after(steps.clone())
        .rejected_after(steps)
        .retry_after_max(length)
        .stable_after(length)
        .max_elapsed(Some(length))
        .heartbeat_interval(length)
        .heartbeat_timeout(length)
        .write_stall_timeout(length)
        .progress_max(length)
        .join_timeout(length)
        .join_block_max(length)
        .leave_timeout(length)
        .push_timeout(length)
}

/// With `Duration::MAX` for every duration, nothing expires and nothing panics.
#[test]
fn durations_max_never_expire() {
    let mut hand = Hand::joined(all_lengths(Duration::MAX));
    hand.socket.push(hand.now, "room:a", "e", json!({}), PushOptions::call()).unwrap();
    hand.drain();
    hand.now += secs(1 << 30);
    due_now(&mut hand);
    assert_eq!(hand.socket.status(), Status::Open);
    assert_eq!(hand.socket.stats().pushes_in_flight, 1);
    hand.close_frame(1000);
    assert!(matches!(hand.socket.status(), Status::Waiting { .. }));
}

/// With zero for every duration, everything expires at the next poll, and nothing panics.
#[test]
fn durations_zero_expire_at_once() {
    let mut hand = Hand::new(all_lengths(Duration::ZERO));
    hand.connect();
    due_now(&mut hand);
    assert_eq!(hand.socket.status(), Status::GaveUp { cause: Cause::ConnectTimeout });
}

#[test]
fn push_with_zero_timeout_ends_unsent() {
    let mut hand = Hand::joined(config().push_timeout(Duration::ZERO));
    hand.writable(false);
    hand.socket.push(hand.now, "room:a", "e", json!({}), PushOptions::call()).unwrap();
    due_now(&mut hand);
    hand.writable(true);
    let ended = hand.signals.iter().find_map(|signal| match signal {
        Signal::PushEnded { outcome, .. } => Some(outcome.clone()),
        _ => None,
    });
    assert_eq!(ended, Some(PushOutcome::NotSent(NotSentCause::TimedOut)));
    assert_eq!(hand.count_sent("room:a", "e"), 0);
}

/// Sizes for which a transport could exhaust the memory are lowered, however they are set.
#[test]
fn memory_sizes_have_a_maximum() {
    let largest = |message, buffer| {
        let mut options = Options::default();
        options.max_message_bytes = message;
        options.read_buffer_bytes = NonZeroUsize::new(buffer).unwrap();
        let by_setters = config().max_message_bytes(message).buffers(buffer, usize::MAX).unwrap();
        [by_setters, config().options(options)]
            .map(|config| (config.max_message_bytes, config.read_buffer_bytes.get()))
    };
    assert_eq!(largest(usize::MAX, usize::MAX), [(1 << 30, 16 << 20); 2]);
    assert_eq!(largest(1 << 30, 16 << 20), [(1 << 30, 16 << 20); 2]);
    assert_eq!(largest(0, 1), [(0, 1); 2]);
}

/// A queue with a capacity of zero pushes, or of zero bytes, accepts no push.
#[test]
fn queue_of_zero_accepts_no_push() {
    for config in [config().queued_pushes_max(0), config().queued_bytes_max(0)] {
        let mut hand = Hand::joined(config);
        let pushed = hand.socket.push(hand.now, "room:a", "e", json!({}), PushOptions::call());
        assert!(matches!(pushed.unwrap_err().kind, PushErrorKind::QueueFull { limit: 0, .. }));
    }
}

/// Zero retries, or zero time for retries, give up at the first failure.
#[test]
fn zero_retries_give_up_at_first_failure() {
    let no_delay = Backoff::steps([Duration::ZERO]).unwrap().floor(Duration::ZERO);
    let no_time = config().max_elapsed(Some(Duration::ZERO));
    for config in
        [config().max_retries(Some(0)), no_time.clone(), no_time.reconnect_after(no_delay)]
    {
        let mut hand = Hand::new(config);
        hand.connect();
        hand.failed(dial());
        assert!(matches!(hand.socket.status(), Status::GaveUp { .. }));
    }
}

#[test]
fn retry_after_max_zero_ignores_header() {
    let mut hand = Hand::new(config().retry_after_max(Duration::ZERO));
    hand.connect();
    hand.failed(refused(503, "600"));
    let Status::Waiting { until, .. } = hand.socket.status() else { panic!("it waits") };
    assert!(until.since(hand.now) <= secs(1), "{until:?}");
    let dialled = hand.dialled;
    hand.socket.handle_wake(hand.now);
    hand.drain();
    assert_ne!(hand.dialled, dialled, "an ordinary wait");
}

/// The delay is the same as without the header.
#[test]
fn ignored_retry_after_adds_no_spread() {
    let delay = |retry_after: &str| {
        let steps = Backoff::steps([secs(10)]).unwrap();
        let config = config().retry_after_max(Duration::ZERO).reconnect_after(steps);
        let mut hand = Hand::new(config);
        hand.connect();
        hand.failed(refused(503, retry_after));
        hand.reconnect_after().0
    };
    assert_eq!(delay("600"), delay("tomorrow"));
}

#[test]
fn stable_after_zero_resets_on_open() {
    let mut hand = Hand::open(config().stable_after(Duration::ZERO).max_retries(Some(1)));
    for _ in 0..5 {
        hand.lost();
        let Status::Waiting { until, attempt, .. } = hand.socket.status() else {
            panic!("it waits")
        };
        assert_eq!(attempt, 1);
        hand.now = until;
        due_now(&mut hand);
        hand.opened();
    }
}

/// With a close timeout of zero, the transport is dropped at the next poll.
#[test]
fn close_timeout_zero_drops_the_transport() {
    let mut hand = Hand::open(config().close_timeout(Duration::ZERO));
    hand.socket.disconnect(hand.now);
    hand.drain();
    assert_eq!(hand.socket.status(), Status::Closing);
    due_now(&mut hand);
    assert_eq!(hand.socket.status(), Status::Closed);
    assert!(matches!(hand.actions.last(), Some(Action::Abort { .. })), "{:?}", hand.actions);
}

/// Without heartbeats, the write stall clock detects a dead connection. While a join is unanswered,
/// the clock is suspended, so it must not expire again and again.
#[test]
fn write_stall_of_zero_does_not_spin() {
    for timeout in [Duration::ZERO, Duration::from_nanos(1)] {
        let config = config().heartbeat_interval(Duration::ZERO).write_stall_timeout(timeout);
        let mut hand = Hand::open(config.clone());
        hand.join("room:a");
        hand.writable(false);
        // `advance` panics if a deadline is due again and again at one instant.
        hand.advance(secs(5));
        assert_eq!(hand.socket.status(), Status::Open, "the join decides");
        hand.answer_join("room:a");
        assert_eq!(hand.socket.status(), Status::Open);
        hand.advance(timeout);
        assert!(matches!(hand.socket.status(), Status::Waiting { cause: Cause::WriteStalled, .. }));

        let mut hand = Hand::open(config);
        hand.join("room:a");
        hand.writable(false);
        hand.advance(secs(5));
        hand.writable(true);
        hand.answer_join("room:a");
        hand.advance(secs(5));
        assert_eq!(hand.socket.status(), Status::Open, "it takes frames again");
    }
}

/// A deadline at the last instant counts as no deadline. Otherwise a clock at that instant would find
/// a deadline that is due again and again.
#[test]
fn documented_loop_ends_at_the_last_instant() {
    for start in [Time::MAX, Time::from_nanos(u64::MAX - 1)] {
        let mut hand = Hand::new(config().auto_join("room:b", json!({})).expect("fits"));
        hand.now = start;
        hand.connect();
        hand.opened();
        hand.join("room:a");
        hand.socket.push(hand.now, "room:a", "e", json!({}), PushOptions::call()).unwrap();
        hand.drain();
        hand.now = Time::MAX;
        for step in 0.. {
            assert!(step < 100, "never ends: {:?}", hand.socket.poll_timeout());
            match hand.socket.poll_timeout() {
                Some(timeout) if timeout.at <= hand.now => due_now(&mut hand),
                _ => break,
            }
        }
        hand.lost();
        for step in 0.. {
            assert!(step < 100, "never ends: {:?}", hand.socket.poll_timeout());
            match hand.socket.poll_timeout() {
                Some(timeout) if timeout.at <= hand.now => due_now(&mut hand),
                _ => break,
            }
        }
    }
}
