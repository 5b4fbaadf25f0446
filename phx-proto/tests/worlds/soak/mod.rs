//! Random worlds. The invariants hold at every step, whatever fails. Once faults stop, every wanted
//! channel is joined and every push ends within twenty minutes of virtual time.
//!
//! With the feature `websocket`, every fourth world carries the bytes of WebSocket frames instead of
//! whole frames. With the feature `deflate`, most of those negotiate compression, with random windows
//! and contexts on each side. A message refers to the text of earlier messages of its connection, and
//! the server of a new connection has an empty window. So a client that kept a window across a
//! reconnect, or whose window differs from the server's, sends messages that the server cannot
//! decompress, and the link panics.
//!
//! `PHX_WORLDS=100 cargo test …` runs a hundred times as many worlds. `PHX_WORLD_SEED=7` runs only
//! the world of that seed, and prints its trace if it fails.

#![allow(unreachable_pub, reason = "its modules share their items")]

pub mod checks;
mod keyed;
mod run;

use run::{Totals, run};

/// The number of worlds in each of the four tests, which run at the same time.
const WORLDS: u64 = 500;

#[allow(clippy::disallowed_methods, reason = "a test may ask for its size")]
pub fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn soak_part(part: u64) {
    if let Some(seed) = number_from_environment("PHX_WORLD_SEED") {
        if part == 0 {
            println!("{:?}", run_or_tell(seed, true));
        }
        return;
    }
    let worlds = WORLDS * number_from_environment("PHX_WORLDS").unwrap_or(1);
    let mut all = Totals::default();
    for seed in part * worlds..(part + 1) * worlds {
        let totals = run_or_tell(seed, false);
        all.steps += totals.steps;
        all.virtual_seconds += totals.virtual_seconds;
        all.connections += totals.connections;
        all.joins += totals.joins;
        all.pushes += totals.pushes;
        all.replies += totals.replies;
        all.repeats += totals.repeats;
        all.unrouted += totals.unrouted;
        all.compressing += totals.compressing;
    }
    println!("seeds from {}, {worlds} worlds: {all:?}", part * worlds);
    // Without these events the soak would prove nothing.
    assert!(all.connections > worlds && all.joins > worlds && all.replies > worlds, "{all:?}");
    assert!(all.repeats > 0 && all.unrouted > 0, "{all:?}");
    assert!(!cfg!(feature = "deflate") || all.compressing > worlds / 10, "{all:?}");
}

fn run_or_tell(seed: u64, whole_trace: bool) -> Totals {
    run(seed, whole_trace).unwrap_or_else(|wrong| {
        panic!(
            "world {seed}: {wrong}\nto see it again: PHX_WORLD_SEED={seed} \
             cargo test -p phx-proto --all-features --test worlds soak -- --nocapture"
        )
    })
}

#[test]
fn random_worlds_hold_invariants_1() {
    soak_part(0);
}

#[test]
fn random_worlds_hold_invariants_2() {
    soak_part(1);
}

#[test]
fn random_worlds_hold_invariants_3() {
    soak_part(2);
}

#[test]
fn random_worlds_hold_invariants_4() {
    soak_part(3);
}
