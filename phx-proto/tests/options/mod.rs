//! A value of every option.

#![allow(unreachable_pub, reason = "each test file uses its part")]

use std::time::Duration;

use phx_proto::{Backoff, CloseRule, Config, DelayRange, Options, StatusRule};

/// Options that all differ from their defaults. A new option fails here until it is set below, so that
/// the tests which use them are about every option.
pub fn other_options() -> Options {
    let nanos = Duration::from_nanos(1_234_567);
    let range = DelayRange::new(nanos, nanos * 2).expect("a range");
    let growing = Backoff::exponential(nanos, 1.5, nanos * 9).expect("it grows");
    let steps = Backoff::steps([nanos, nanos * 3]).expect("steps").jitter(0.25).expect("a share");
    let config = Config::new("wss://example.com/socket/websocket")
        .expect("a good URI")
        .connect_timeout(nanos)
        .close_timeout(nanos)
        .first_retry_spread(range)
        .reconnect_after(growing)
        .refused_after(steps.clone())
        .retry_after_max(nanos)
        .stable_after(nanos)
        .max_retries(Some(7))
        .max_elapsed(Some(nanos))
        .close_rule(4001, CloseRule::Stop)
        .close_rule(1000, CloseRule::RetryWithin(range))
        .status_rule(404, StatusRule::Backoff)
        .heartbeat_interval(nanos)
        .heartbeat_timeout(nanos)
        .write_stall_timeout(nanos)
        .receive_rate_min(7)
        .send_rate_min(7)
        .progress_max(nanos * 2)
        .join_timeout(nanos)
        .join_block_max(nanos)
        .join_concurrency(7)
        .expect("not zero")
        .rejoin_after(steps.clone().floor(nanos))
        .rejected_after(steps)
        .join_rejections_max(7)
        .leave_timeout(nanos)
        .push_timeout(nanos)
        .queued_pushes_max(7)
        .queued_bytes_max(7)
        .pushes_in_flight_max(7)
        .expect("not zero")
        .max_push_bytes(7)
        .max_message_bytes(7)
        .strict_payloads(true)
        .mailbox(7, 7)
        .expect("not zero")
        .buffers(7, 7)
        .expect("not zero");
    let defaults = serde_json::to_value(Options::default()).expect("plain data");
    let others = serde_json::to_value(&*config).expect("plain data");
    for (key, value) in others.as_object().expect("an object") {
        assert_ne!(*value, defaults[key], "{key} is the default");
    }
    Options::clone(&config)
}
