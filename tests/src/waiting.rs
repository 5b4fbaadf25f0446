//! Waiting for a condition, with one deadline for all tests.

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for one condition. It is far longer than a condition takes on a busy
/// machine, because only a failing test waits until the end.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How long a whole test may take before it counts as hung.
pub const TEST_DEADLINE: Duration = Duration::from_secs(300);

/// How often a condition without a notification is polled.
pub const TICK: Duration = Duration::from_millis(2);

/// Blocks until the condition holds or [`DEADLINE`] has passed. Returns whether it holds.
pub fn wait_until(mut check: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + DEADLINE;
    while !check() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(TICK);
    }
    true
}
