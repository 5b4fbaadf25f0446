//! Measurements: the CPU time and the resident memory of this process, and the median of several rounds.
//! The server is another process, so neither its time nor its memory is included.

use core::time::Duration;
use std::fs;

use cpu_time::ProcessTime;

/// User and system time of every thread of this process.
pub(crate) fn cpu() -> Duration {
    ProcessTime::now().as_duration()
}

/// The resident memory of this process, in bytes.
pub(crate) fn resident() -> u64 {
    // The rollup is exact; the counters in `statm` are kept for each processor and lag behind.
    let text = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux");
    let line = text.lines().find(|line| line.starts_with("Rss:")).expect("a line for RSS");
    let number = line.split_ascii_whitespace().nth(1).expect("a number");
    number.parse::<u64>().expect("a number") * 1_024
}

/// The cost of one round of a workload.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    pub(crate) messages: u64,
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
    /// The median time from a push to its reply, in workloads that measure it.
    pub(crate) latency: Duration,
}

impl Round {
    /// CPU time per message, in nanoseconds.
    pub(crate) fn cpu_each(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.messages as f64
    }

    /// Messages per second.
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.wall.as_secs_f64()
    }
}

/// The median.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
