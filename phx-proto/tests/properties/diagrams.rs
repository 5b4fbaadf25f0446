//! The diagrams of the two machines are held to what the machines do.
//!
//! Random operations (those of `random.rs`) run, and after every call and every poll the
//! status of the connection and of each topic is looked at. Each change that is seen must be drawn,
//! and each that is drawn must be seen: in the README, in ARCHITECTURE.md, and in the list at the
//! top of the machine's own file.

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

/// A change of state, from and to; nothing stands for the beginning.
type Transition = (String, String);

/// One of the two machines, and where it is drawn.
struct Machine {
    /// A state that the other does not have.
    known_by: &'static str,
    /// Its file, with its theory of operation and the enum of its states.
    source: &'static str,
    states: &'static str,
}

const CONNECTION: Machine = Machine {
    known_by: "Idle",
    source: "src/socket/connection/mod.rs",
    states: "pub enum Status {",
};

const CHANNEL: Machine = Machine {
    known_by: "Joining",
    source: "src/socket/channel/mod.rs",
    states: "pub enum ChannelStatus {",
};

const DOCUMENTS: [&str; 2] = ["../README.md", "../ARCHITECTURE.md"];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The transitions of a Mermaid state diagram; several between two states may be drawn apart.
fn drawn(diagram: &str) -> BTreeSet<Transition> {
    let arrows = diagram.lines().filter_map(|line| line.trim().split_once(" --> "));
    let transition = |(from, rest): (&str, &str)| {
        let (to, why) = rest.split_once(": ").unwrap_or((rest, ""));
        assert!(from == "[*]" || !why.is_empty(), "{from} --> {to} does not say why");
        (from.replace("[*]", ""), to.to_owned())
    };
    arrows.map(transition).collect()
}

/// The list in the comment at the top of a source file: `//!   From → To   why`, where an arrow
/// without a state before it goes on with the last one.
fn listed(source: &str) -> BTreeSet<Transition> {
    let mut from = String::new();
    let mut transitions = BTreeSet::new();
    for line in source.lines().map_while(|line| line.strip_prefix("//!")) {
        let Some((before, after)) = line.split_once(" → ") else { continue };
        if !before.trim().is_empty() {
            before.trim().clone_into(&mut from);
        }
        let (to, why) = after.trim().split_once(' ').unwrap_or_default();
        assert!(!why.trim().is_empty(), "{line} does not say why");
        transitions.insert((from.clone(), to.to_owned()));
    }
    transitions
}

impl Machine {
    /// Every place where it is drawn, each with a name.
    fn diagrams(&self) -> Vec<(&'static str, BTreeSet<Transition>)> {
        let mut found = vec![(self.source, listed(&read(self.source)))];
        for document in DOCUMENTS {
            let text = read(document);
            let diagrams = text.split("```mermaid\nstateDiagram-v2\n").skip(1);
            let diagrams = diagrams.map(|rest| rest.split("```").next().unwrap_or_default());
            let mut own = diagrams.filter(|diagram| diagram.contains(self.known_by));
            let diagram = own.next().unwrap_or_else(|| panic!("{document}: {}", self.known_by));
            assert!(own.next().is_none(), "{document} draws it twice");
            let mut transitions = drawn(diagram);
            // The list in the source begins where it begins.
            transitions.retain(|(from, _)| !from.is_empty());
            found.push((document, transitions));
        }
        found
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

/// How many topics [`strategy`] names.
const TOPICS: u8 = 6;

/// Looks at a socket, and remembers how what it sees has changed.
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

    /// A run, watched after every call and every poll.
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

/// Every run is watched, and so long that what is rare is seen too.
fn watched() -> Watch {
    let mut watch = Watch::default();
    let mut runner = TestRunner::deterministic();
    let strategy = strategy::run(120);
    for nth in 0..cases(1_200, regressions!("diagrams")).cases {
        let (mut setup, steps) = strategy.new_tree(&mut runner).expect("a run").current();
        if nth % 4 == 0 {
            // Giving up is rare otherwise.
            setup.max_retries = Some(nth / 4 % 2);
        }
        watch.run(setup, steps);
    }
    watch
}

#[track_caller]
fn assert_drawn(machine: &Machine, seen: &BTreeSet<Transition>) {
    for (place, drawn) in machine.diagrams() {
        let never: Vec<_> = drawn.difference(seen).collect();
        assert!(never.is_empty(), "{place} draws what never happens: {never:?}");
        let missing: Vec<_> = seen.difference(&drawn).collect();
        assert!(missing.is_empty(), "{place} does not draw what happens: {missing:?}");
        let states: BTreeSet<_> = drawn.into_iter().flat_map(|(from, to)| [from, to]).collect();
        assert_eq!(states, machine.states(), "{place}: the states are those of the enum");
    }
}

/// Every transition that occurs is drawn, and every one that is drawn occurs.
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
    for document in DOCUMENTS {
        let text = read(document);
        let beginnings = text.lines().filter_map(|line| line.trim().strip_prefix("[*] --> "));
        assert_eq!(beginnings.collect::<Vec<_>>(), ["Idle", "Closed"], "{document}");
    }
}
