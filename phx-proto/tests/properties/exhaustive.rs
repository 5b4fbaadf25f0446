//! Every short sequence of operations in tiny worlds with two topics.
//!
//! A property test samples; this search is complete. Each world has an alphabet of at least twelve
//! operations, the letters. All words of up to `DEPTH` letters are carried out, and every checker of
//! `ops/checkers` runs after every letter. From every state that is reached with at least two letters
//! left, a second run stops the faults: then every wanted topic must be joined and every push must get
//! its outcome.
//!
//! Words with the same beginning share that part of the search, which goes depth first and clones the
//! world at each letter. Words that lead to the same state share the rest: a state is not entered
//! again if its future was already searched to at least the remaining depth. Two states are the same
//! if their [fingerprints](crate::ops::world::World::fingerprint) are equal. A fingerprint covers
//! everything in socket, checkers, server and clock on which the future depends, so equal states have
//! equal futures, and no word is lost.
//!
//! `PHX_DEPTH=8 cargo test -p phx-proto --test properties exhaustive` searches deeper. A failure
//! prints the word and the command that carries out that word alone.

#![allow(clippy::disallowed_types, reason = "the tests may hash, the core may not")]

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::ops::settle::Peace;
use crate::ops::world::World;
use crate::ops::{Answer, Conn, End, Fail, Named, Op, PushKind, ServerMessage, Setup, Start, Step};

/// The length of the words, unless `PHX_DEPTH` is set.
const DEPTH: u32 = 6;

/// A time that is longer than any wait.
const LONG: Duration = Duration::from_secs(5 * 3_600);

/// A setup, and the operations that are carried out in it.
struct Tiny {
    name: &'static str,
    setup: Setup,
    alphabet: &'static [Op],
    /// How many more letters the words have, in worlds with few states.
    deeper: u32,
    /// The minimum number of states at `DEPTH`. Fewer mean that the search is broken.
    states_min: usize,
}

const OK: Op = Op::Answer { nth: 0, how: Answer::Ok };
const NO: Op = Op::Answer { nth: 0, how: Answer::Error(0) };
const OPENED: Op = Op::Opened(Conn::Current);
const FAILED: Op = Op::Failed(Conn::Current, Fail::Dial);
const LOST: Op = Op::Closed(Conn::Current, End::Lost);
const BLOCKED: Op = Op::Writable(Conn::Current, false);
const WRITABLE: Op = Op::Writable(Conn::Current, true);

const fn join(topic: u8) -> Op {
    Op::Join { topic, params: 0 }
}

const fn leave(topic: u8) -> Op {
    Op::Leave { topic }
}

/// A push that asks for a reply and waits for the join.
const fn push(topic: u8) -> Op {
    let kind = PushKind { cast: false, fail_fast: false, binary: false };
    Op::Push { topic, kind, timeout: None, size: 0 }
}

/// A push that ends when it is written.
const fn cast(topic: u8) -> Op {
    let kind = PushKind { cast: true, fail_fast: false, binary: false };
    Op::Push { topic, kind, timeout: None, size: 0 }
}

const fn server_message(topic: u8, what: ServerMessage, named: Named) -> Op {
    Op::ServerMessage { topic, what, named }
}

/// Begins at the start: connecting, joining, and the deadlines of both.
const FROM_IDLE: Tiny = Tiny {
    name: "idle",
    setup: Setup { join_concurrency: 1, ..SETUP },
    alphabet: &[
        Op::Connect,
        Op::Disconnect,
        Op::ConnectNow,
        OPENED,
        FAILED,
        LOST,
        join(0),
        join(1),
        leave(0),
        Op::Release { nth: 0 },
        push(0),
        OK,
        NO,
        Op::ToTimeout,
    ],
    deeper: 0,
    states_min: 10_000,
};

/// Begins with two joined channels, and contains the operations that interrupt them.
const FROM_JOINED: Tiny = Tiny {
    name: "joined",
    setup: Setup { start: Start::Joined, ..SETUP },
    alphabet: &[
        Op::Disconnect,
        OPENED,
        LOST,
        join(0),
        leave(0),
        push(0),
        push(1),
        OK,
        server_message(0, ServerMessage::Error, Named::Current),
        server_message(0, ServerMessage::Close, Named::Current),
        BLOCKED,
        WRITABLE,
        Op::ToTimeout,
    ],
    deeper: 0,
    states_min: 90_000,
};

/// Begins with an open connection in vsn 1, where frames name no instance. Contains late frames, and
/// frames of the previous instance.
const FROM_OPEN: Tiny = Tiny {
    name: "open",
    setup: Setup { start: Start::Open, vsn_1: true, heartbeats: false, ..SETUP },
    alphabet: &[
        OPENED,
        LOST,
        join(0),
        join(1),
        leave(0),
        Op::Release { nth: 0 },
        push(0),
        OK,
        Op::Answer { nth: 1, how: Answer::Ok },
        Op::Answer { nth: 0, how: Answer::Unmatched },
        Op::AnswerAny { nth: 0, how: Answer::Ok },
        server_message(0, ServerMessage::Close, Named::Earlier(0)),
        server_message(0, ServerMessage::Error, Named::Current),
        server_message(0, ServerMessage::Message, Named::Null),
        Op::ToTimeout,
    ],
    deeper: 0,
    states_min: 50_000,
};

/// Begins at the start, without channels: the ends of attempts and connections, and the retries.
const FROM_FAILING: Tiny = Tiny {
    name: "failing",
    setup: Setup { heartbeats: false, credentials_refreshed: true, ..SETUP },
    alphabet: &[
        Op::Connect,
        Op::Disconnect,
        Op::Wake,
        OPENED,
        FAILED,
        Op::Failed(Conn::Current, Fail::Refused(403, None)),
        Op::Failed(Conn::Current, Fail::Refused(401, None)),
        Op::Failed(Conn::Current, Fail::Refused(503, Some(7))),
        Op::CredentialsUnchanged(Conn::Current),
        Op::Dialled(Conn::Current),
        LOST,
        Op::Closed(Conn::Current, End::Frame(Some(1012))),
        Op::Closed(Conn::Current, End::Frame(Some(1008))),
        Op::ToTimeout,
    ],
    deeper: 1,
    states_min: 18_000,
};

/// Begins with two joined channels and allows one call in flight. Pushes wait for that call, wait
/// behind a waiting call, or do not wait.
const FROM_FULL: Tiny = Tiny {
    name: "full",
    setup: Setup { start: Start::Joined, pushes_in_flight_max: 1, heartbeats: false, ..SETUP },
    alphabet: &[
        push(0),
        push(1),
        cast(0),
        cast(1),
        OK,
        leave(0),
        join(0),
        server_message(0, ServerMessage::Error, Named::Current),
        Op::Cancel { nth: 1 },
        BLOCKED,
        WRITABLE,
        Op::ToTimeout,
    ],
    deeper: 0,
    states_min: 50_000,
};

const WORLDS: [&Tiny; 5] = [&FROM_IDLE, &FROM_JOINED, &FROM_OPEN, &FROM_FAILING, &FROM_FULL];

const SETUP: Setup = Setup {
    seed: 7,
    origin: 1_000_000_000_000_000,
    vsn_1: false,
    heartbeats: true,
    strict: false,
    auto_join: false,
    credentials_refreshed: false,
    retry_after_ignored: false,
    join_concurrency: 2,
    pushes_in_flight_max: 16_384,
    max_retries: None,
    max_elapsed: None,
    start: Start::Idle,
};

/// A search, and the states that it has seen.
struct Search {
    tiny: &'static Tiny,
    /// The letters that led to the present world.
    word: Vec<usize>,
    /// The states, by fingerprint, and the number of letters to which the future of each was
    /// searched.
    seen: HashMap<u64, u32>,
    /// Whether states that were seen are skipped.
    pruned: bool,
    steps: u64,
    settled: u64,
}

impl Search {
    fn run(tiny: &'static Tiny) {
        assert!(tiny.alphabet.len() >= 12);
        let depth = setting("PHX_DEPTH").map_or(DEPTH, |text| text.parse().expect("a number"));
        let depth = depth + tiny.deeper;
        let (seen, word) = (HashMap::new(), Vec::new());
        let mut search = Self { tiny, pruned: true, word, seen, steps: 0, settled: 0 };
        search.enter(&World::new(tiny.setup), depth);
        let letters = tiny.alphabet.len() as u64;
        let words: u64 = (1..=depth).map(|length| letters.pow(length)).sum();
        println!(
            "{}: all {words} sequences of up to {depth} operations, out of {letters}, hold: {} steps, {} \
             states, and a run without faults after {} of them",
            tiny.name,
            search.steps,
            search.seen.len(),
            search.settled
        );
        if depth >= DEPTH + tiny.deeper {
            assert!(search.seen.len() >= tiny.states_min, "the search found too few states");
        }
    }

    /// Carries out every word of `left` letters from this world.
    fn enter(&mut self, world: &World, left: u32) {
        let fingerprint = world.fingerprint();
        let before = self.seen.get(&fingerprint).copied();
        if self.pruned && before.is_some_and(|before| before >= left) {
            return;
        }
        self.seen.insert(fingerprint, left);
        if left > 1 && before.is_none_or(|before| before <= 1) {
            let mut world = world.clone();
            let peace = if left % 2 == 0 { Peace::Answered } else { Peace::Forgotten };
            assert!(world.settle(peace, LONG), "no end: {:?}", world.socket);
            self.settled += 1;
        }
        if left == 0 {
            return;
        }
        for letter in 0..self.tiny.alphabet.len() {
            let mut next = world.clone();
            next.trace.clear();
            self.word.push(letter);
            next.step(Step { op: self.tiny.alphabet[letter], polls: None });
            self.steps += 1;
            self.enter(&next, left - 1);
            self.word.pop();
        }
    }
}

/// Prints the word when a check fails.
impl Drop for Search {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let letters: Vec<String> = self.word.iter().map(usize::to_string).collect();
            let ops: Vec<Op> = self.word.iter().map(|at| self.tiny.alphabet[*at]).collect();
            eprintln!(
                "broken by {ops:?}\nreproduce: PHX_WORD='{} {}' cargo test -p phx-proto \
                 --test properties exhaustive::word -- --nocapture",
                self.tiny.name,
                letters.join(" ")
            );
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the tests may look around, the core may not")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Catches these changes, tried by hand: one join too many at once, a `disconnect` that leaves the
/// deadline of the reconnect armed, and a timer that outlives its push.
#[test]
fn short_sequences_from_start_hold() {
    Search::run(&FROM_IDLE);
}

/// Catches these changes, tried by hand: a push written before the rejoin's ok, a leave whose deadline
/// does nothing, a dead connection that is not aborted, and an interruption that is not passed to
/// channels.
#[test]
fn short_sequences_from_two_channels_hold() {
    Search::run(&FROM_JOINED);
}

/// Begins with an open connection. Catches this change, tried by hand: an overdue join is given up
/// although no frame written after it was answered (`JoinClock::take_lost` without its filter).
#[test]
fn short_sequences_in_vsn_1_hold() {
    Search::run(&FROM_OPEN);
}

#[test]
fn short_sequences_of_failures_hold() {
    Search::run(&FROM_FAILING);
}

/// One call may be in flight. Catches these changes, tried by hand: a call that is written although one
/// is in flight, a cast that overtakes the held call of its channel, a leave that waits behind a held
/// call, and a held call that no answer releases.
#[test]
fn short_sequences_with_one_call_hold() {
    Search::run(&FROM_FULL);
}

/// The search that skips known states reaches the same states as the search that does not.
#[test]
fn search_with_sharing_reaches_same_states() {
    for tiny in WORLDS {
        let search = |pruned| {
            let (seen, word) = (HashMap::new(), Vec::new());
            let mut search = Search { tiny, pruned, word, seen, steps: 0, settled: 0 };
            search.enter(&World::new(tiny.setup), 3);
            let seen: BTreeSet<u64> = search.seen.keys().copied().collect();
            (seen, search.steps)
        };
        let ((shared, fewer), (whole, all)) = (search(true), search(false));
        let letters = tiny.alphabet.len() as u64;
        assert_eq!(all, letters + letters.pow(2) + letters.pow(3));
        assert!(shared == whole && fewer < all, "{}", tiny.name);
    }
}

/// Carries out one word alone, with its trace: the word of `PHX_WORD`, or one that leads to a reply.
#[test]
fn word_from_environment_is_run() {
    let word = setting("PHX_WORD").unwrap_or_else(|| "idle 0 3 6 11 10 11".into());
    let mut parts = word.split(' ');
    let name = parts.next().expect("the name of a world");
    let tiny = WORLDS.into_iter().find(|it| it.name == name);
    let tiny = tiny.expect("one of the worlds");
    let mut world = World::new(tiny.setup);
    let mut shown = 0;
    for letter in parts {
        let op = tiny.alphabet[letter.parse::<usize>().expect("a number")];
        println!("{op:?}");
        world.step(Step { op, polls: None });
        world.trace[shown..].iter().for_each(|entry| println!("    {entry:?}"));
        shown = world.trace.len();
    }
    for peace in [Peace::Answered, Peace::Forgotten] {
        assert!(world.clone().settle(peace, LONG), "{:?}", world.socket);
    }
}
