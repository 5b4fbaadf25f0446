//! Properties of the core, on random sequences of operations.
//!
//! In every property, all checkers of `support/ops/checkers` run after every step.
//!
//! "Catches" names a change of one line of the core that was tried by hand and makes the property fail.
//! No property in this file fails with any of the following changes, which were tried too. The first
//! and the last have no effect that can be observed. The others are caught by the tests named in
//! brackets:
//!
//! * `interrupt_pushes` does not check `!push.is_written()`. At that point all written pushes have
//!   ended.
//! * `push_answered` does not check `join_ref == WireRef::Null`. The world's channels never send the
//!   reply of a server that has no such channel (`socket/push.rs`).
//! * `leave_ended` does not call `live.lane.remove`. The server ignores a superfluous leave
//!   (`channel_corners.rs`).
//! * Timers and pushes expire in a different order. No checker compares their order (`socket/push.rs`).
//! * Every answer restarts the join clock, instead of only the answer to the oldest join. No checker
//!   here bounds how late a timeout may be (`socket/join_clock.rs`).
//! * A wake-up takes effect more than once a second. No checker counts wake-ups
//!   (`socket/connection.rs`).
//! * A refused join whose channel was left does not end the leave at once. The leave then ends with its
//!   own reply or deadline, and no checker bounds how soon (`socket/channel.rs`).
//! * `Ordered::extend` keeps the tombstones when it sorts. Of two equal keys, the binary search finds
//!   the later one.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cases::{cases, regressions};
use crate::ops::peer::Sent;
use crate::ops::settle::Peace;
use crate::ops::strategy;
use crate::ops::world::{Called, Entry, World};
use crate::ops::{Conn, End, Op, Setup, Step};
use phx_proto::{Action, Applied, ChannelStatus, Input, Signal, Status, Time};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::Config;

fn config(count: u32) -> Config {
    cases(count, regressions!("properties"))
}

fn ran(setup: Setup, steps: &[Step]) -> World {
    let mut world = World::new(setup);
    world.steps(steps);
    world
}

/// A time that is longer than any wait: a push of three hours, after a `Retry-After` of 72 minutes.
const LONG: Duration = Duration::from_secs(5 * 3_600);

fn peace() -> impl Strategy<Value = Peace> {
    prop_oneof![Just(Peace::Answered), Just(Peace::Forgotten)]
}

proptest! {
    #![proptest_config(config(400))]

    /// Catches one join too many at once (`<` made `<=` in `has_slot`), a push written before the
    /// join's ok, messages of an earlier instance, a close of an earlier connection that ends this one,
    /// and a cast without its outcome.
    #[test]
    fn random_sequences_hold_invariants((setup, steps) in strategy::run(80)) {
        ran(setup, &steps);
    }
}

proptest! {
    #![proptest_config(config(120))]

    /// Catches one queued push too many (`>=` made `>` in `check_full_queue`), because short runs
    /// rarely fill the queue. Also catches a retry that resets its count but not the time of its first
    /// failure.
    #[test]
    fn long_sequences_hold_invariants((setup, steps) in strategy::run(400)) {
        ran(setup, &steps);
    }

    /// The same seed and inputs give the same actions, and so does a clone. Catches a seed that is
    /// mixed with anything else, such as the number of sockets created.
    #[test]
    fn same_inputs_give_same_actions(
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

    /// Catches a delay that depends on the absolute time (a first heartbeat that is later by
    /// `now.as_nanos() % 7`).
    #[test]
    fn shifted_times_shift_only_deadlines(
        (setup, steps) in strategy::run(60),
        shift in 1_u64..1 << 61,
    ) {
        let here = ran(setup, &steps);
        let there = ran(Setup { origin: setup.origin + shift, ..setup }, &steps);
        // The times of a trace are relative to the start of the run.
        prop_assert_eq!(&here.trace, &there.trace);
        let (mut here, there) = (here.socket.stats(), there.socket.stats());
        here.last_frame_at = here.last_frame_at.map(|at| at + Duration::from_nanos(shift));
        prop_assert_eq!(here, there);
    }

    /// Catches a poll that returns no action but still uses up a ref.
    #[test]
    fn idle_polls_change_nothing((setup, steps) in strategy::run(40)) {
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

    /// A driver that does not poll every action writes no additional frames and no other pushes.
    #[test]
    fn undrained_driver_writes_no_other_frames(
        (setup, steps) in strategy::run(40),
        burst in strategy::steps(20),
        polls in proptest::collection::vec(0_u8..3, 20),
    ) {
        // The steps happen at one instant, and none depends on frames that were written.
        let burst = burst.iter().map(|step| step.op).filter(|op| !matches!(
            op,
            Op::Answer { .. } | Op::AnswerAny { .. } | Op::AnswerAll | Op::ServerMessage { .. }
                | Op::Cancel { .. } | Op::ToTimeout | Op::Advance { .. } | Op::Backwards { .. }
        ));
        // A driver that wrote more is held back by the bound of calls in flight, and its held pushes
        // end with the leave. So the bound is set too high to be reached here.
        let mut eager = ran(Setup { pushes_in_flight_max: 16_384, ..setup }, &steps);
        eager.drain();
        let mut lazy = eager.clone();
        let before = eager.sent.len();
        for (op, polls) in burst.zip(polls) {
            eager.step(Step { op, polls: None });
            lazy.step(Step { op, polls: Some(polls) });
        }
        lazy.drain();
        // The bound of the queue can refuse a push of the undrained driver, so the later effects of
        // that push are missing.
        let accepted = |world: &World| -> BTreeSet<u64> {
            let pushed = world.trace.iter().filter_map(|entry| match entry {
                Entry::Called(Called::Push { number, id: Some(_), .. }) => Some(*number),
                _ => None,
            });
            pushed.collect()
        };
        if !accepted(&lazy).is_subset(&accepted(&eager)) {
            return Ok(());
        }
        let (eager, lazy) = (&eager.sent[before..], &lazy.sent[before..]);
        prop_assert!(lazy.len() <= eager.len(), "{:?} {:?}", lazy, eager);
        let numbers = |sent: &[Sent]| -> BTreeSet<u64> {
            sent.iter().filter_map(|sent| sent.number).collect()
        };
        prop_assert!(numbers(lazy).is_subset(&numbers(eager)), "{:?} {:?}", lazy, eager);
    }

    /// Every push gets its outcome. Catches a leave whose deadline does nothing (`TimerKey::Leave(_) =>
    /// {}`), a leave whose reply is ignored, and an interruption that is not passed to the channels.
    #[test]
    fn wanted_channels_join_once_faults_stop(
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

    /// Catches a deadline that is armed at the last instant, where no later deadline can replace it.
    /// Also catches a write stall of zero that is armed again while a join is unanswered.
    #[test]
    fn documented_loop_always_ends((setup, steps) in strategy::run(60)) {
        let mut world = ran(setup, &steps);
        world.drain();
        for now in [world.now, Time::MAX] {
            world.now = now;
            let mut rounds = 0;
            while let Some(timeout) = world.socket.poll_timeout().filter(|it| it.at <= now) {
                rounds += 1;
                prop_assert!(rounds < 200, "due again and again: {:?}", timeout);
                assert_eq!(world.socket.apply(now, Input::Timeout), Applied::Done);
                while world.socket.poll_action(now).is_some() {}
            }
        }
    }

    /// Catches a leave without a deadline, and the timer of a push that outlives the push.
    #[test]
    fn disconnect_leaves_nothing_behind(
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
            let held = "held: Held { heads: {}, calls: {}, casts: {} }";
            for empty in ["due: {}", "items: {}", held, "interests: {}", "by_ref: {}"] {
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
            "phase: Closed",
            "channels: Channels { table: {}, index: Index { deadlines: {}, due: {} } }",
            "interests: {}",
            "pushes: Pushes { all: {}, by_ref: {}, ",
            "deadlines: Deadlines { in_order: {}, others: {} }, groups: 0, \
             queued: Queued { pushes: 0, bytes: 0 } }",
            "actions: []",
        ] {
            prop_assert!(shown.contains(empty), "{} in {}", empty, shown);
        }
    }
}

/// An entry in two or three words, such as `push NotSent Left`.
fn label(entry: &Entry) -> Option<String> {
    let Entry::Action(_, action) = entry else { return None };
    // The name of a variant, and of the variant inside it.
    let name = |value: &dyn std::fmt::Debug| {
        let shown = format!("{value:?}");
        let mut words = shown.split(|c: char| !c.is_alphanumeric());
        let first = words.next().unwrap_or_default().to_owned();
        match words.next() {
            Some(second)
                if !matches!(second, "" | "Reply" | "Refusal" | "Rejection" | "Payload") =>
            {
                format!("{first} {second}")
            }
            _ => first,
        }
    };
    Some(match action {
        Action::ReconnectAfter { cause, .. } => format!("reconnect {}", name(cause)),
        Action::RejoinAfter { cause, .. } => format!("rejoin {}", name(cause)),
        Action::Signal(Signal::PushEnded { outcome, .. }) => format!("push {}", name(outcome)),
        Action::Signal(Signal::GaveUp { cause }) => format!("gave up {}", name(cause)),
        Action::Signal(Signal::Left { outcome, .. }) => format!("left {}", name(outcome)),
        Action::Signal(Signal::ChannelClosed { cause, .. }) => format!("end {}", name(cause)),
        Action::Signal(Signal::Interrupted { cause, .. }) => format!("gap {}", name(cause)),
        other => name(other),
    })
}

/// The properties would also hold for operations that never reach an interesting state.
#[test]
fn random_operations_reach_every_event() {
    const WANTED: &str = "Abort, Close, Connect, Join, Send, end ClosedByServer, \
        end Disconnected, end GaveUp ConnectTimeout, end InvalidParams, end Left, end Rejected, \
        gap Crashed, gap Disconnected HeartbeatTimeout, gap Disconnected JoinStalled, \
        gap Disconnected MessageTooLarge, gap Disconnected RemoteClose, \
        gap Disconnected TransportLost, gap Disconnected WriteStalled, gap Resync, gap Unmatched, \
        gave up RemoteClose, left Acked, left Local, left Offline, left TimedOut, push Cancelled, \
        push NotSent ChannelClosed, push NotSent Disconnected, push NotSent GaveUp, \
        push NotSent JoinRejected, push NotSent Left, push NotSent TimedOut, push Reply, \
        push TimedOut, push Unknown ChannelClosed, push Unknown ChannelCrashed, \
        push Unknown ChannelReplaced, push Unknown Disconnected, push Unknown Left, push Written, \
        reconnect ConnectTimeout, reconnect CredentialsFailed, reconnect Dial, \
        reconnect HeartbeatTimeout, reconnect JoinStalled, reconnect MessageTooLarge, \
        reconnect Refused, reconnect RemoteClose, reconnect TransportLost, \
        reconnect WriteStalled, rejoin Crashed, rejoin JoinCrashed, rejoin JoinUnanswered, \
        rejoin Rejected, rejoin Resync";
    // Every signal occurs except warnings, which come from the configuration, and unrouted messages, which
    // no operation requests. The soak of random worlds requests them.
    let signals = Signal::NAMES.iter().filter(|name| !["warning", "unrouted"].contains(*name));
    let mut missing: BTreeSet<&str> = WANTED.split(", ").chain(signals.copied()).collect();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = strategy::run(200);
    let mut most_held = 0;
    for run in 0..2_000 {
        let (setup, steps) = strategy.new_tree(&mut runner).expect("a run").current();
        let world = ran(setup, &steps);
        most_held = most_held.max(world.checkers.queues.most_held);
        for entry in &world.trace {
            if let Some(label) = label(entry) {
                missing.remove(label.as_str());
            }
            if let Entry::Action(_, Action::Signal(signal)) = entry {
                missing.remove(signal.name());
            }
        }
        if most_held > 1 && missing.is_empty() {
            println!("all after {run} runs");
            return;
        }
    }
    panic!("never seen: {missing:?}; {most_held} channels held at once");
}
