//! The diagrams of the two machines are compared with their behaviour.
//!
//! The test carries out the random operations of `random.rs`. After every call and every poll, it
//! observes the status of the connection and of each topic. Each observed change must be in the
//! diagram at the top of the machine's file, and each change in the diagram must be observed.

#![allow(clippy::disallowed_methods, reason = "the tests may read files, the core may not")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;

use crate::cases::{cases, regressions};
use crate::ops::strategy;
use crate::ops::world::{World, name};
use crate::ops::{Answer, Op, Setup, Step};
use phx_proto::{ChannelStatus, Config, Socket, Status, Time};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

/// A change of state: the state before and the state after.
type Transition = (String, String);

/// One of the two machines.
struct Machine {
    /// The source file with the machine's diagram and the enum of its states.
    source: &'static str,
    states: &'static str,
}

const CONNECTION: Machine =
    Machine { source: "src/socket/connection/mod.rs", states: "pub enum Status {" };

const CHANNEL: Machine =
    Machine { source: "src/socket/channel/mod.rs", states: "pub enum ChannelStatus {" };

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads the diagram at the top of a source file: the initial state and the transitions. A line has
/// the form `//!   From → To   why`. If no state is written before an arrow, the arrow starts from
/// the last state above it.
fn drawn(source: &str) -> (String, BTreeSet<Transition>) {
    let mut initial = None;
    let mut from = String::new();
    let mut transitions = BTreeSet::new();
    for line in source.lines().map_while(|line| line.strip_prefix("//!")) {
        let Some((before, after)) = line.split_once(" → ") else { continue };
        if !before.trim().is_empty() {
            before.trim().clone_into(&mut from);
        }
        let (to, why) = after.trim().split_once(' ').unwrap_or_default();
        assert!(!why.trim().is_empty(), "{line}: the transition has no reason");
        initial.get_or_insert_with(|| from.clone());
        transitions.insert((from.clone(), to.to_owned()));
    }
    (initial.expect("a diagram"), transitions)
}

impl Machine {
    fn diagram(&self) -> (String, BTreeSet<Transition>) {
        drawn(&read(self.source))
    }

    /// The variants of the enum.
    fn states(&self) -> BTreeSet<String> {
        let source = read(self.source);
        let body = source.split(self.states).nth(1).expect("the enum");
        let body = body.split("\n}").next().expect("its end");
        let variants = body.lines().filter_map(|line| line.strip_prefix("    "));
        let variants = variants.filter(|line| line.starts_with(char::is_uppercase));
        variants.map(|line| first_word(line).to_owned()).collect()
    }
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()
}

/// The name of a variant.
fn state(status: &impl Debug) -> String {
    first_word(&format!("{status:?}")).to_owned()
}

/// The number of topics that [`strategy`] uses.
const TOPICS: u8 = 6;

/// Observes a socket, and records each change of its states.
#[derive(Default)]
struct Watch {
    connection: String,
    channels: Vec<String>,
    connection_seen: BTreeSet<Transition>,
    channel_seen: BTreeSet<Transition>,
}

impl Watch {
    fn begin(&mut self, socket: &Socket) {
        self.connection = state(&socket.status());
        self.channels = (0..TOPICS).map(|nth| state(&socket.channel_status(&name(nth)))).collect();
    }

    fn look(&mut self, socket: &Socket) {
        let now = state(&socket.status());
        if now != self.connection {
            let before = std::mem::replace(&mut self.connection, now.clone());
            self.connection_seen.insert((before, now));
        }
        for (nth, before) in (0..TOPICS).zip(&mut self.channels) {
            let now = state(&socket.channel_status(&name(nth)));
            if now != *before {
                let before = std::mem::replace(before, now.clone());
                self.channel_seen.insert((before, now));
            }
        }
    }

    /// Carries out a run, and observes the socket after every call and every poll.
    fn run(&mut self, setup: Setup, steps: Vec<Step>) {
        let mut world = World::new(setup);
        self.begin(&world.socket);
        for Step { op, polls } in steps {
            let calls = match op {
                Op::AnswerAll => vec![Op::Answer { nth: 0, how: Answer::Ok }; 8],
                op => vec![op],
            };
            for op in calls {
                world.call(op);
                self.look(&world.socket);
            }
            for _ in 0..polls.map_or(10_000, u32::from) {
                if !world.poll() {
                    break;
                }
                self.look(&world.socket);
            }
            world.after_step();
        }
    }
}

/// Carries out enough runs that rare transitions occur too.
fn watched() -> Watch {
    let mut watch = Watch::default();
    let mut runner = TestRunner::deterministic();
    let strategy = strategy::run(120);
    for nth in 0..cases(1_200, regressions!("diagrams")).cases {
        let (mut setup, steps) = strategy.new_tree(&mut runner).expect("a run").current();
        if nth % 4 == 0 {
            // Without this, the client rarely gives up.
            setup.max_retries = Some(nth / 4 % 2);
        }
        watch.run(setup, steps);
    }
    watch
}

#[track_caller]
fn assert_drawn(machine: &Machine, seen: &BTreeSet<Transition>) {
    let place = machine.source;
    let (_, drawn) = machine.diagram();
    let never: Vec<_> = drawn.difference(seen).collect();
    assert!(never.is_empty(), "{place} draws transitions that never occur: {never:?}");
    let missing: Vec<_> = seen.difference(&drawn).collect();
    assert!(missing.is_empty(), "{place} lacks transitions that occur: {missing:?}");
    let states: BTreeSet<_> = drawn.into_iter().flat_map(|(from, to)| [from, to]).collect();
    assert_eq!(states, machine.states(), "{place}: the states are those of the enum");
}

/// Every transition that occurs is in the diagram, and every transition in the diagram occurs.
#[test]
fn diagrams_draw_exactly_what_happens() {
    let watch = watched();
    assert_drawn(&CONNECTION, &watch.connection_seen);
    assert_drawn(&CHANNEL, &watch.channel_seen);
}

#[test]
fn diagrams_begin_where_machines_do() {
    let config = Config::new("ws://localhost/socket/websocket").expect("an address");
    let socket = Socket::new(config, 1, Time::ZERO);
    assert_eq!(socket.status(), Status::Idle);
    assert_eq!(socket.channel_status("room:lobby"), ChannelStatus::Closed);
    assert_eq!(CONNECTION.diagram().0, "Idle");
    assert_eq!(CHANNEL.diagram().0, "Closed");
}
