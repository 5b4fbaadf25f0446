//! The number of cases that the properties run, and the files of their failures.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use proptest::test_runner::{Config, FileFailurePersistence};

/// `count` cases, times the environment variable `PHX_CASES` (default 1).
///
/// The counts in the files are chosen so that all property tests together are fast in a debug build.
/// `PHX_CASES=50` is for a long search. A failure prints its minimal input and adds its seed to
/// `file` in `proptest-regressions/`. That file is committed, and every later run starts with its
/// seeds.
pub fn cases(count: u32, file: &'static str) -> Config {
    let mut config = Config::with_cases(count.saturating_mul(multiplier()));
    config.failure_persistence = Some(Box::new(FileFailurePersistence::Direct(file)));
    config.max_shrink_iters = config.max_shrink_iters.min(5_000);
    config
}

#[allow(clippy::disallowed_methods, reason = "the tests may look around, the core may not")]
fn multiplier() -> u32 {
    match std::env::var("PHX_CASES") {
        Ok(text) => text.parse().expect("PHX_CASES is a whole number"),
        Err(_) => 1,
    }
}

/// The path of a file of saved seeds, from the name of its test file.
macro_rules! regressions {
    ($name:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/", $name, ".txt")
    };
}
pub(crate) use regressions;
