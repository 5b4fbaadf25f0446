//! A breadth-first search through all states of a world.

#![expect(
    clippy::disallowed_types,
    reason = "the search may hash and look at the clock, the machine may not"
)]

use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::socket::Status;
use crate::socket::fixpoint::form::hash;
use crate::socket::fixpoint::print;
use crate::socket::fixpoint::world::{Op, Settings, World};
use crate::time::nanos;

/// The maximum number of states. A search that finds more fails.
const STATES_MAX: usize = 5_000_000;

/// How often a state whose form is already known is compared with the first state of that form: once for
/// this number of such states.
const PAIRS: u64 = 499;

/// The search tries inputs about an earlier connection in one of every sixteen states.
const STALE: u32 = 16;

/// The two states of a pair are compared after every sequence of up to this number of further
/// operations.
const PAIR_DEPTH: u32 = 2;

/// The result of a search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) edges: u64,
    /// The length of the shortest path to the farthest state, in operations.
    pub(crate) depth: u32,
    /// The maximum number of operations from any state to the goal, once faults have stopped.
    pub(crate) operations: u32,
    /// The maximum time from any state to the goal, once faults have stopped.
    pub(crate) time: Duration,
    /// The maximum time until an open connection ends, if the client receives nothing more from the
    /// server.
    pub(crate) silence: Duration,
    /// The number of pairs of states with the same form that were compared.
    pub(crate) pairs: u64,
    /// The duration of the search.
    pub(crate) took: Duration,
}

impl Found {
    /// A row of a table: world, states, edges, depth, bound in operations and in time, time to notice
    /// silence, pairs, and seconds.
    pub(crate) fn row(&self, name: &str) -> String {
        let Self { states, edges, depth, operations, time, silence, pairs, took } = self;
        format!(
            "| {name} | {states} | {edges} | {depth} | {operations} | {time:?} | {silence:?} | \
             {pairs} | {:.1} |",
            took.as_secs_f64()
        )
    }
}

/// A state, as the operation by which it was first reached, and the state before that operation.
#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    op: Op,
    depth: u32,
}

/// The properties of a state, without its path.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    is_goal: bool,
    is_open: bool,
    /// The range of its peaceful successors in [`Search::peace`].
    peace: (u32, u32),
    /// The state after the next deadline, and the nanoseconds until then.
    tick: Option<(u32, u64)>,
}

pub(crate) struct Search {
    settings: &'static Settings,
    index: HashMap<u128, u32>,
    nodes: Vec<Node>,
    facts: Vec<Facts>,
    /// Peaceful edges: the successor, and the nanoseconds that pass. See [`World::peaceful`].
    peace: Vec<(u32, u64)>,
    found: Found,
    merged: u64,
    /// The state and the operation that are being checked, whose path is printed if a check fails.
    present: Option<(u32, Option<Op>)>,
}

impl Search {
    pub(crate) fn new(settings: &'static Settings) -> Self {
        Self {
            settings,
            index: HashMap::new(),
            nodes: Vec::new(),
            facts: Vec::new(),
            peace: Vec::new(),
            found: Found::default(),
            merged: 0,
            present: None,
        }
    }

    /// Visits every state. Then checks that each reaches the goal, and that the client detects a
    /// silent server.
    pub(crate) fn run(mut self) -> Found {
        let start = Instant::now();
        let world = World::new(self.settings);
        let root = Node { parent: u32::MAX, op: Op::Tick, depth: 0 };
        self.index.insert(hash(&world.form()), 0);
        self.nodes.push(root);
        let mut frontier = VecDeque::from([(0, world)]);
        while let Some((at, world)) = frontier.pop_front() {
            self.visit(at, &world, &mut frontier);
        }
        self.found.states = self.nodes.len();
        self.found.depth = self.nodes.last().map_or(0, |node| node.depth);
        self.check_goal();
        self.check_silence();
        self.present = None;
        self.found.took = start.elapsed();
        self.found
    }

    fn visit(&mut self, at: u32, world: &World, frontier: &mut VecDeque<(u32, World)>) {
        self.present = Some((at, None));
        if at % STALE == 0 {
            world.check_stale_inputs(&world.form());
        }
        let (ops, peaceful) = (world.enabled(), world.peaceful());
        assert!(peaceful.iter().all(|op| ops.contains(op)), "{peaceful:?} of {ops:?}");
        let is_goal = world.is_settled();
        let first = self.peace.len() as u32;
        let mut tick = None;
        for op in ops {
            self.present = Some((at, Some(op)));
            let mut next = world.clone();
            next.step(op);
            self.found.edges += 1;
            let passed = nanos(next.now.since(world.now));
            let to = self.enter(at, op, next, frontier);
            if op == Op::Tick {
                tick = Some((to, passed));
            }
            if peaceful.contains(&op) && !is_goal {
                self.peace.push((to, passed));
            }
        }
        let peace = (first, self.peace.len() as u32);
        assert_eq!(self.facts.len(), at as usize);
        let is_open = world.socket.status() == Status::Open;
        self.facts.push(Facts { is_goal, is_open, peace, tick });
    }

    /// Returns the number of a state. A new state is queued. One in [`PAIRS`] of the other states is
    /// compared with the first state of the same form.
    fn enter(
        &mut self,
        parent: u32,
        op: Op,
        world: World,
        frontier: &mut VecDeque<(u32, World)>,
    ) -> u32 {
        let form = world.form();
        let next = self.nodes.len() as u32;
        let known = *self.index.entry(hash(&form)).or_insert(next);
        if known == next {
            assert!(self.nodes.len() < STATES_MAX, "more than {STATES_MAX} states");
            let depth = self.nodes[parent as usize].depth + 1;
            self.nodes.push(Node { parent, op, depth });
            frontier.push_back((next, world));
            if (next + 1).is_power_of_two() && next > 1 << 16 {
                println!("{}: {} states, depth {depth}", self.settings.name, next + 1);
            }
        } else {
            self.merged += 1;
            if self.merged % PAIRS == 0 {
                self.found.pairs += 1;
                let mut first = self.replay(known);
                assert_eq!(first.form(), form, "two forms have the same hash");
                let mut second = world;
                (first.seen, second.seen) = (Some(Vec::new()), Some(Vec::new()));
                compare(&first, &second, PAIR_DEPTH);
            }
        }
        known
    }

    /// The operations that lead to a state.
    fn path(&self, mut at: u32) -> Vec<Op> {
        let mut path = Vec::new();
        while let Some(node) = self.nodes.get(at as usize).filter(|_| at > 0) {
            path.push(node.op);
            at = node.parent;
        }
        path.reverse();
        path
    }

    fn replay(&self, at: u32) -> World {
        let mut world = World::new(self.settings);
        self.path(at).into_iter().for_each(|op| world.step(op));
        world
    }

    /// Checks that every path reaches the goal once faults have stopped: no path runs in a cycle or
    /// stops before it reaches the goal. The longest path to the goal is the bound.
    fn check_goal(&mut self) {
        #[derive(Clone, Copy, PartialEq, Eq)]
        enum Mark {
            New,
            OnPath,
            Done,
        }
        let count = self.nodes.len();
        let mut marks = vec![Mark::New; count];
        let mut longest = vec![(0u32, 0u64); count];
        for start in 0..count as u32 {
            let mut stack = vec![(start, 0u32)];
            while let Some((at, nth)) = stack.pop() {
                let facts = self.facts[at as usize];
                if nth == 0 {
                    if marks[at as usize] == Mark::Done {
                        continue;
                    }
                    if facts.is_goal {
                        marks[at as usize] = Mark::Done;
                        continue;
                    }
                    marks[at as usize] = Mark::OnPath;
                    if facts.peace.0 == facts.peace.1 {
                        self.present = Some((at, None));
                        panic!("the world stops before it reaches the goal");
                    }
                } else {
                    let (to, passed) = self.peace[(facts.peace.0 + nth - 1) as usize];
                    let (operations, time) = longest[to as usize];
                    let here = &mut longest[at as usize];
                    *here = (here.0.max(operations + 1), here.1.max(time + passed));
                }
                let edge = facts.peace.0 + nth;
                if edge == facts.peace.1 {
                    marks[at as usize] = Mark::Done;
                    continue;
                }
                stack.push((at, nth + 1));
                let to = self.peace[edge as usize].0;
                match marks[to as usize] {
                    Mark::New => stack.push((to, 0)),
                    Mark::OnPath => {
                        self.present = Some((to, None));
                        let from = stack.iter().position(|(it, _)| *it == to).expect("on the path");
                        for (on_cycle, nth) in &stack[from..] {
                            let first = self.facts[*on_cycle as usize].peace.0;
                            let next = self.peace[(first + nth - 1) as usize].0;
                            eprintln!("state {on_cycle} to {next}: {}", self.replay(next).show());
                        }
                        panic!("the world repeats its states and never reaches the goal");
                    }
                    Mark::Done => {}
                }
            }
        }
        self.found.operations = longest.iter().map(|it| it.0).max().unwrap_or_default();
        self.found.time =
            Duration::from_nanos(longest.iter().map(|it| it.1).max().unwrap_or_default());
    }

    /// Checks that every open connection ends after some time, if the client receives nothing from the
    /// server.
    fn check_silence(&mut self) {
        if self.settings.heartbeat.is_none() {
            return;
        }
        let longest = 1_000 * 1_000_000_000;
        for start in 0..self.nodes.len() as u32 {
            let (mut at, mut time) = (start, 0);
            while self.facts[at as usize].is_open {
                self.present = Some((start, None));
                let (to, passed) = self.facts[at as usize].tick.expect("a deadline");
                (at, time) = (to, time + passed);
                assert!(time < longest, "a dead server is not noticed");
            }
            self.found.silence = self.found.silence.max(Duration::from_nanos(time));
        }
    }
}

/// Checks that two states with the same form behave in the same way after every sequence of up to
/// `depth` operations.
fn compare(first: &World, second: &World, depth: u32) {
    let ops = first.enabled();
    assert_eq!(ops, second.enabled(), "of two states with the same form");
    for op in ops {
        let (mut one, mut other) = (first.clone(), second.clone());
        one.step(op);
        other.step(op);
        assert_eq!(
            one.form(),
            other.form(),
            "two states with the same form differ after {op:?}:\n{:?}\n{:?}",
            one.seen,
            other.seen
        );
        if depth > 1 {
            compare(&one, &other, depth - 1);
        }
    }
}

/// Prints the path to a check that failed.
impl Drop for Search {
    fn drop(&mut self) {
        if let Some((at, op)) = self.present.filter(|_| std::thread::panicking()) {
            let mut path = self.path(at);
            path.extend(op);
            eprintln!("{}", print::path(self.settings, &path));
        }
    }
}
