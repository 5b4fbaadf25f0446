//! The async client, the bus, the supervisor and the resolver under thousands of schedules.
//!
//! ```text
//!   scenario ──▶ search ──▶ random, then PCT ──▶ the scenario, once for each schedule
//!                                                   │ driver, server, tasks: shuttle's
//!                                                   ▼
//!                               a panic, a deadlock, a lost wake-up ──▶ the schedule is printed
//! ```
//!
//! The scenarios are unit tests of a build with `--cfg shuttle`, because the locks of
//! [`sync`](crate::sync) are shuttle's only in that build. `.ci/schedules` makes this build and
//! runs them. Its arguments are names of tests.
//!
//! A failure prints its schedule as some lines of hexadecimal digits. `PHX_SCHEDULE` replays it:
//!
//! ```text
//! PHX_SCHEDULE='91038b04…' .ci/schedules schedule_full_mailbox_is_drained
//! ```
//!
//! `PHX_SCHEDULES=20` searches 20 times as many schedules, and `PHX_SEED` selects other schedules.
//!
//! Time stands still unless a scenario advances it, so no timeout hides a lost wake-up. If no task
//! can run, shuttle reports a deadlock.

mod channels;
mod connection;
mod services;
pub(crate) mod world;

use core::future::Future;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// The number of schedules of a scenario for each of the two schedulers.
const SCHEDULES: usize = 1_000;

/// The number of schedules of a scenario whose runs take more than twice as long as the median.
const FEW: usize = 250;

/// The number of preemptions that PCT places in a schedule.
const PREEMPTIONS: usize = 3;

/// Runs a scenario under many schedules, or under the one of `PHX_SCHEDULE`.
pub(crate) fn search(scenario: fn()) {
    search_schedules(SCHEDULES, scenario);
}

/// Like [`search`], for a slow scenario.
pub(crate) fn search_few(scenario: fn()) {
    search_schedules(FEW, scenario);
}

fn search_schedules(schedules: usize, scenario: fn()) {
    if let Some(schedule) = variable("PHX_SCHEDULE") {
        let schedule: String = schedule.split_whitespace().collect();
        return run(ReplayScheduler::new_from_encoded(&schedule), scenario);
    }
    let number = |name, default| {
        variable(name).map_or(default, |text: String| text.parse().expect("a number"))
    };
    let seed = number("PHX_SEED", 1) as u64;
    let schedules = schedules * number("PHX_SCHEDULES", 1);
    run(RandomScheduler::new_from_seed(seed, schedules), scenario);
    run(PctScheduler::new_from_seed(seed, PREEMPTIONS, schedules), scenario);
}

fn run(scheduler: impl Scheduler + 'static, scenario: fn()) {
    let mut config = Config::new();
    // The driver needs a larger stack in a debug build.
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    config.max_steps = MaxSteps::FailAfter(50_000);
    Runner::new(scheduler, config).run(scenario);
}

#[allow(clippy::disallowed_methods, reason = "which schedules to run is for the command line")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Waits for a future.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    shuttle::future::block_on(future)
}
