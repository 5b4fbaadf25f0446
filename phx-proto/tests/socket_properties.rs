//! Properties of the core, on any sequence of operations there is.
//!
//! Every property watches every checker of `ops/checkers` too, after every step.

mod cases;
mod ops;

use std::time::Duration;

use cases::{cases, regressions};
use ops::settle::Peace;
use ops::strategy;
use ops::world::{Entry, World};
use ops::{Conn, End, Op, Setup, Step};
use phx_proto::{ChannelStatus, Status};
use proptest::prelude::*;
use proptest::test_runner::Config;

fn config(count: u32) -> Config {
    cases(count, regressions!("socket_properties"))
}

fn ran(setup: Setup, steps: &[Step]) -> World {
    let mut world = World::new(setup);
    world.steps(steps);
    world
}

/// More than the longest wait there can be: a `Retry-After` of an hour and a fifth.
const LONG: Duration = Duration::from_secs(2 * 3_600);

fn peace() -> impl Strategy<Value = Peace> {
    prop_oneof![Just(Peace::Answered), Just(Peace::Forgotten)]
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn no_sequence_of_operations_breaks_an_invariant((setup, steps) in strategy::run(80)) {
        ran(setup, &steps);
    }
}

proptest! {
    #![proptest_config(config(120))]

    #[test]
    fn long_sequences_break_no_invariant_either((setup, steps) in strategy::run(400)) {
        ran(setup, &steps);
    }

    #[test]
    fn the_same_seed_and_inputs_give_the_same_actions_and_so_does_a_clone(
        (setup, steps) in strategy::run(60),
        at in any::<proptest::sample::Index>(),
    ) {
        let at = at.index(steps.len() + 1);
        let mut one = ran(setup, &steps[..at]);
        let mut clone = one.clone();
        one.steps(&steps[at..]);
        clone.steps(&steps[at..]);
        let again = ran(setup, &steps);
        prop_assert_eq!(&one.trace, &clone.trace);
        prop_assert_eq!(&one.trace, &again.trace);
        prop_assert_eq!(format!("{:?}", one.socket), format!("{:?}", again.socket));
    }

    #[test]
    fn shifting_all_times_shifts_the_deadlines_and_nothing_else(
        (setup, steps) in strategy::run(60),
        shift in 1_u64..1 << 61,
    ) {
        let here = ran(setup, &steps);
        let there = ran(Setup { origin: setup.origin + shift, ..setup }, &steps);
        // The trace counts from the origin.
        for (here, there) in here.trace.iter().zip(&there.trace) {
            if let (Entry::Action(..), Entry::Action(..)) = (here, there) {
                continue;
            }
            prop_assert_eq!(here, there);
        }
        prop_assert_eq!(here.trace.len(), there.trace.len());
        prop_assert_eq!(here.socket.stats(), there.socket.stats());
    }

    #[test]
    fn polling_when_there_is_nothing_changes_nothing((setup, steps) in strategy::run(40)) {
        let mut world = World::new(setup);
        for step in steps {
            world.step(Step { polls: None, ..step });
            let before = format!("{:?}", world.socket);
            for _ in 0..3 {
                prop_assert_eq!(world.socket.poll_action(world.now), None);
            }
            let _ = (world.socket.poll_timeout(), world.socket.stats(), world.socket.status());
            prop_assert_eq!(format!("{:?}", world.socket), before);
        }
    }

    #[test]
    fn a_driver_that_does_not_drain_sees_no_more_frames_and_none_out_of_order(
        (setup, steps) in strategy::run(40),
    ) {
        // The same inputs, whatever was written: no operation that depends on it.
        let steps: Vec<Step> = steps
            .into_iter()
            .filter(|step| !matches!(step.op, Op::Answer { .. } | Op::AnswerAny { .. } | Op::Say { .. } | Op::ToTimeout))
            .collect();
        let eager: Vec<Step> = steps.iter().map(|step| Step { polls: None, ..*step }).collect();
        let (eager, lazy) = (ran(setup, &eager), ran(setup, &steps));
        let pushes = |world: &World| -> Vec<(String, Option<u64>)> {
            let frames = world.sent.iter().filter(|sent| !sent.is_heartbeat());
            frames.map(|sent| (sent.topic.clone(), sent.number)).collect()
        };
        prop_assert!(lazy.sent.len() <= eager.sent.len());
        let (eager, lazy) = (pushes(&eager), pushes(&lazy));
        prop_assert!(lazy.len() <= eager.len(), "{:?} {:?}", lazy, eager);
    }

    #[test]
    fn once_faults_stop_every_wanted_channel_is_joined_and_every_push_has_its_outcome(
        (setup, steps) in strategy::run(80),
        peace in peace(),
    ) {
        let mut world = ran(setup, &steps);
        prop_assert!(world.settle(peace, LONG), "{:?} {:?}", world.socket.status(), world.socket);
        if world.socket.status() == Status::Open {
            for (topic, status) in world.socket.channels() {
                prop_assert_eq!(status, ChannelStatus::Joined, "{}", topic);
            }
        }
    }

    #[test]
    fn after_leaving_and_disconnecting_nothing_is_left_behind(
        (setup, steps) in strategy::run(80),
        peace in peace(),
    ) {
        let mut world = ran(setup, &steps);
        let topics: Vec<u8> = (0..6).collect();
        for topic in topics {
            world.step(Step { op: Op::Leave { topic }, polls: None });
        }
        prop_assert!(world.settle(peace, LONG));
        if world.socket.status() == Status::Open {
            prop_assert_eq!(world.socket.channels().count(), 0);
            let shown = format!("{:?}", world.socket);
            for empty in ["due_joins: {}", "lane: {}", "interests: {}", "by_ref: {}"] {
                prop_assert!(shown.contains(empty), "{} in {}", empty, shown);
            }
        }
        world.step(Step { op: Op::Disconnect, polls: None });
        world.step(Step { op: Op::Closed(Conn::Current, End::Lost), polls: None });
        prop_assert_eq!(world.socket.status(), Status::Closed);
        prop_assert_eq!(world.socket.poll_timeout(), None);
        prop_assert_eq!(world.socket.poll_action(world.now), None);
        let stats = world.socket.stats();
        let left = (stats.queued_pushes, stats.queued_bytes, stats.pushes_in_flight);
        prop_assert_eq!(left, (0, 0, 0));
        let shown = format!("{:?}", world.socket);
        for empty in [
            "live: None",
            "channels: {}",
            "interests: {}",
            "pushes: Pushes { all: {}, by_ref: {}, queued_bytes: 0 }",
            "timers: Timers { at: {}, order: {} }",
            "actions: []",
        ] {
            prop_assert!(shown.contains(empty), "{} in {}", empty, shown);
        }
    }
}
