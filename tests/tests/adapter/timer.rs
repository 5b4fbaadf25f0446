//! The timers and seeds of the adapter's runtime.

use core::future::poll_fn;
use core::time::Duration;

use crate::rt::phx::client::{Clock as _, Runtime as _, Timer};
use crate::rt::phx::time::Time;
use crate::rt::{Runtime, block_on};

#[test]
fn seeds_differ() {
    let runtime = Runtime::new();
    assert_ne!(runtime.seed(), runtime.seed());
}

#[test]
fn timer_does_not_wake_early() {
    block_on(async {
        let runtime = Runtime::new();
        let mut timer = runtime.timer();
        let at = runtime.clock().now() + Duration::from_millis(30);
        timer.reset(Some(at));
        poll_fn(|cx| timer.poll_expired(cx)).await;
        assert!(runtime.clock().now() >= at);
    })
}

/// The test covers a timer that was polled before the reset, and one that was not.
#[test]
fn reset_timer_forgets_earlier_time() {
    block_on(async {
        for polled in [false, true] {
            let runtime = Runtime::new();
            let mut timer = runtime.timer();
            let start = runtime.clock().now();
            timer.reset(Some(start + Duration::from_millis(20)));
            if polled {
                poll_fn(|cx| core::task::Poll::Ready(timer.poll_expired(cx))).await.is_pending();
            }
            timer.reset(None);
            timer.reset(Some(start + Duration::from_millis(60)));
            poll_fn(|cx| timer.poll_expired(cx)).await;
            assert!(runtime.clock().now().since(start) >= Duration::from_millis(60));
        }
    })
}

#[test]
fn timer_can_be_set_outside_runtime() {
    let mut timer = Runtime::new().timer();
    timer.reset(Some(Time::from_nanos(u64::MAX)));
    timer.reset(None);
}
