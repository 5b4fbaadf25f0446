//! The trace of a simulated world, which depends only on the seed.

use std::time::Duration;

use phx_proto::Config;
use phx_proto::testing::{Cut, Direction, World};
use serde_json::json;

fn config() -> Config {
    Config::new("ws://localhost:4000/socket/websocket").expect("a good URI")
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A world with a join, a push whose reply is cut off, and a reconnect.
fn story(seed: u64) -> World {
    let mut world = World::new(seed);
    world.latency(ms(10)..=ms(10));
    let client = world.client(config());
    world.join(client, "room:lobby", json!({"user": 7}));
    world.run_until(|world| world.is_joined(client, "room:lobby"));
    world.link(client).cut_after(Direction::Up, 1, Cut::Lost);
    world.push(client, "room:lobby", "echo", json!({"n": 1}));
    world.run_until(|world| !world.is_joined(client, "room:lobby"));
    world.run_until(|world| world.is_joined(client, "room:lobby"));
    world.shut_server_down();
    world.restart_server_after(ms(300));
    world.run_for(ms(2_500));
    world
}

#[test]
fn short_story_has_its_golden_trace() {
    let expected = include_str!("golden/story.txt");
    let trace = story(7).trace();
    let differs = trace.lines().zip(expected.lines()).find(|(is, should)| is != should);
    assert!(trace == expected, "first difference: {differs:#?}; the whole trace:\n{trace}");
}

/// With the same seed the trace is the same, byte for byte. Another seed gives another trace.
#[test]
fn seed_determines_the_trace() {
    assert_eq!(format!("{:?}", story(1).events()), format!("{:?}", story(1).events()));
    assert_eq!(story(1).trace(), story(1).trace());
    assert_ne!(story(1).trace(), story(2).trace());
}
