//! Every reachable state of small worlds.
//!
//! [`search`] visits all states of a [world](world), breadth first, until it finds no new one. A world
//! is a real [`Socket`](crate::Socket) with a driver, an application, a link and a server that follows
//! the protocol. They carry out the operations that the world allows, in any order. Two states with the
//! same [form] count as one. When the search ends, it has visited every state. So an invariant that
//! holds in all of them holds after any number of operations:
//!
//! * **Safety**: the invariants in [`checks`] hold after every operation.
//! * **Deadlines**: the socket asks for a call no later than the earliest deadline of a push, a leave, a
//!   rejoin or a retry, and after each call at a deadline every deadline lies in the future. So time
//!   never stands still.
//! * **Agreement**: whenever every wanted topic is joined and every frame is delivered, the server holds
//!   exactly the channels that the client has joined.
//! * **Liveness**: once the application makes no more calls and faults have stopped, every path leads to
//!   the goal: every wanted topic is joined and every push has its outcome, or the connection is not
//!   started or has ended for good. No path runs in a cycle or stops before it reaches the goal. The
//!   longest path to the goal is the bound.
//! * **Silence**: with heartbeats, the client ends a connection on which it receives nothing, even if
//!   only time passes.
//!
//! What a search leaves out:
//!
//! * Durations are whole seconds from 1 to 4, and time advances only to the next deadline. So no call is
//!   late, and the clock never jumps.
//! * The range of every random draw is a single value, which the search asserts. The exception is the
//!   delay of the first heartbeat of a connection: the search tries both ends of its range.
//! * The link holds at most `link_max` frames in each direction. A full link is not writable.
//! * Except in worlds with `paced`, the server does not close two connections in a row soon after a
//!   join.
//! * The form omits payloads, and counters and times that are only reported.
//!
//! The search also tests that a form omits nothing that matters: it takes some pairs of states with the
//! same form, carries out the same further operations on both, and compares the results.
//!
//! When a check fails, the search prints the shortest path to the failure, as a trace and as a
//! [test](print) to paste. CONTRIBUTING.md has the commands.

mod checks;
pub(crate) mod form;
mod print;
mod search;
mod world;

use world::{Bytes, FINAL, Failure, Kind, Op, RESTART, Settings, Verdict};

use crate::socket::fixpoint::search::{Found, Search};

const WORLD: Settings = Settings {
    name: "",
    application: &[],
    faults: &[],
    interests_max: 1,
    pushes_max: 1,
    link_max: 1,
    vsn_1: false,
    function: false,
    paced: false,
    closes_max: None,
    heartbeat: None,
    push_timeout: 1,
    leave_timeout: 1,
    join_timeout: 1,
    join_block_max: 2,
    stable_after: 1,
    reconnect_after: &[1],
    rejoin_after: &[1],
    rejections_max: 1,
    progress_max: 0,
    max_retries: None,
    max_elapsed: None,
    join_concurrency: 1,
    queued_pushes_max: 4,
    in_flight_max: 16,
};

const REFUSE: Op = Op::Serve(Verdict::Refuse);
const CRASH: Op = Op::Serve(Verdict::Crash);
const SILENT: Op = Op::Serve(Verdict::Silent);
const LOST: Op = Op::Serve(Verdict::Lost);
const DIAL_FAILS: Op = Op::Failed(Failure::Dial);
const CALL: Op = Op::Push(0, Kind::Call);
const CAST: Op = Op::Push(0, Kind::Cast);

/// Everything that ends an attempt or a connection, and the retries that follow.
static CONNECTION: Settings = Settings {
    name: "connection",
    application: &[Op::Connect, Op::Disconnect, Op::ConnectNow, Op::Wake],
    faults: &[
        DIAL_FAILS,
        Op::Failed(Failure::Refused(403)),
        Op::Failed(Failure::Refused(503)),
        Op::Cut,
        Op::TooLarge,
        Op::Close(1011),
        Op::Close(RESTART),
        Op::Close(FINAL),
    ],
    reconnect_after: &[1, 2],
    stable_after: 2,
    ..WORLD
};

/// The world `connection` with a limit to retries.
static LIMITED: Settings =
    Settings { name: "limited", max_retries: Some(3), max_elapsed: Some(4), ..CONNECTION };

/// Heartbeats and probes, without channels.
static BEATS: Settings = Settings {
    name: "heartbeats",
    application: &[Op::Connect, Op::Disconnect, Op::Wake, Op::Probe],
    faults: &[DIAL_FAILS, Op::Cut],
    heartbeat: Some((2, 1)),
    reconnect_after: &[1, 2],
    stable_after: 2,
    ..WORLD
};

/// One topic and one push at a time.
static TOPIC: Settings = Settings {
    name: "topic",
    link_max: 2,
    application: &[Op::Connect, Op::Disconnect, Op::Join(0), Op::Leave(0), Op::Rejoin(0), CALL],
    faults: &[Op::Cut, REFUSE, CRASH, Op::CrashChannel(0), Op::CloseChannel(0)],
    ..WORLD
};

/// Two topics, and one join at a time.
static TWO_TOPICS: Settings = Settings {
    name: "two topics",
    application: &[Op::Connect, Op::Join(0), Op::Join(1), Op::Leave(0)],
    faults: &[Op::Cut, CRASH, Op::CrashChannel(0)],
    ..WORLD
};

/// Two interests in one topic, and rejoins on request.
static TWO_INTERESTS: Settings = Settings {
    name: "two interests",
    link_max: 2,
    leave_timeout: 2,
    application: &[Op::Connect, Op::Disconnect, Op::Join(0), Op::Release(0), Op::Rejoin(0)],
    faults: &[Op::Cut, Op::CloseChannel(0)],
    interests_max: 2,
    ..WORLD
};

/// vsn 1.0.0, in which replies carry no join_ref, and a server that may leave a request unanswered.
static VSN_1: Settings = Settings {
    name: "vsn 1",
    link_max: 2,
    application: &[Op::Connect, Op::Join(0), Op::Leave(0), CALL],
    faults: &[Op::Cut, Op::CrashChannel(0), Op::CloseChannel(0), SILENT],
    vsn_1: true,
    ..WORLD
};

/// A function makes the parameters of joins. It may panic, or return parameters that are too large.
static FUNCTION: Settings = Settings {
    name: "function",
    link_max: 2,
    leave_timeout: 2,
    application: &[
        Op::Connect,
        Op::Disconnect,
        Op::Join(0),
        Op::Leave(0),
        Op::Rejoin(0),
        Op::Replace(0),
    ],
    faults: &[Op::Cut, Op::CrashChannel(0)],
    function: true,
    ..WORLD
};

/// Three pushes at a time, with a queue of two pushes and at most one call in flight.
static FULL: Settings = Settings {
    name: "full",
    application: &[
        Op::Connect,
        Op::Join(0),
        Op::Leave(0),
        CALL,
        CAST,
        Op::Push(0, Kind::FailFast),
        Op::Cancel,
    ],
    faults: &[Op::Cut, Op::CrashChannel(0)],
    pushes_max: 3,
    queued_pushes_max: 2,
    in_flight_max: 1,
    ..WORLD
};

/// Heartbeats, and a server that may never answer a join, whether it accepts it or not.
static LOST_REPLY: Settings = Settings {
    name: "lost reply",
    application: &[Op::Connect, Op::Join(0), Op::Leave(0), Op::Wake],
    faults: &[SILENT, LOST, Op::CrashChannel(0), CRASH, Op::Cut],
    heartbeat: Some((2, 1)),
    ..WORLD
};

/// Joins that take so long that several heartbeats are unanswered.
static SLOW_JOIN: Settings = Settings {
    name: "slow join",
    application: &[Op::Connect, Op::Join(0)],
    faults: &[SILENT, Op::Cut],
    heartbeat: Some((1, 1)),
    join_block_max: 3,
    ..WORLD
};

/// Joins that block the connection for longer than it may be silent, before they are overdue.
static STALLED_JOIN: Settings = Settings {
    name: "stalled join",
    application: &[Op::Connect, Op::Join(0), Op::Join(1), Op::Leave(0)],
    faults: &[SILENT, LOST, Op::Cut],
    heartbeat: Some((2, 1)),
    join_timeout: 2,
    join_block_max: 1,
    join_concurrency: 2,
    ..WORLD
};

/// A server that closes connections because of joins.
static PACED: Settings = Settings {
    name: "paced",
    application: &[Op::Connect, Op::Join(0), Op::Join(1)],
    faults: &[Op::Close(RESTART)],
    paced: true,
    closes_max: Some(2),
    join_concurrency: 2,
    ..WORLD
};

/// Transferred bytes, which extend the deadlines of answers.
static PROGRESS: Settings = Settings {
    name: "progress",
    application: &[Op::Connect, Op::Probe, Op::Join(0)],
    faults: &[Op::Moved(Bytes::Read), Op::Moved(Bytes::Written), Op::Moved(Bytes::Flushed)],
    heartbeat: Some((2, 1)),
    progress_max: 1,
    ..WORLD
};

/// The worlds that are searched in every run of the tests.
static SMALL: [&Settings; 14] = [
    &CONNECTION,
    &LIMITED,
    &BEATS,
    &TOPIC,
    &TWO_TOPICS,
    &TWO_INTERESTS,
    &VSN_1,
    &FUNCTION,
    &FULL,
    &LOST_REPLY,
    &SLOW_JOIN,
    &STALLED_JOIN,
    &PACED,
    &PROGRESS,
];

/// Worlds whose search takes minutes.
static LARGE: [Settings; 6] = [
    Settings {
        name: "large topic",
        application: &[
            Op::Connect,
            Op::Disconnect,
            Op::Join(0),
            Op::Leave(0),
            Op::Rejoin(0),
            CALL,
            Op::Cancel,
        ],
        faults: &[
            DIAL_FAILS,
            Op::Cut,
            REFUSE,
            CRASH,
            SILENT,
            Op::CrashChannel(0),
            Op::CloseChannel(0),
        ],
        push_timeout: 2,
        leave_timeout: 2,
        ..TOPIC
    },
    Settings {
        name: "large two topics",
        application: &[Op::Connect, Op::Join(0), Op::Join(1), Op::Leave(0), Op::Leave(1)],
        join_concurrency: 2,
        ..TWO_TOPICS
    },
    Settings { name: "large full", link_max: 2, ..FULL },
    Settings { name: "large lost reply", link_max: 2, ..LOST_REPLY },
    Settings { name: "large paced", closes_max: Some(3), ..PACED },
    Settings {
        name: "large progress",
        progress_max: 2,
        application: &[Op::Connect, Op::Probe, Op::Join(0), Op::Leave(0)],
        ..PROGRESS
    },
];

fn run(settings: &'static Settings) -> Found {
    let found = Search::new(settings).run();
    println!("{}", found.row(settings.name));
    found
}

#[expect(clippy::disallowed_methods, reason = "the tests may look around, the core may not")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

macro_rules! worlds {
    ($($test:ident: $world:ident,)+) => {
        $(
            #[test]
            fn $test() {
                run(&$world);
            }
        )+
    };
}

worlds! {
    fixpoint_connection: CONNECTION,
    fixpoint_limited_retries: LIMITED,
    fixpoint_heartbeats: BEATS,
    fixpoint_topic_and_push: TOPIC,
    fixpoint_two_topics: TWO_TOPICS,
    fixpoint_two_interests: TWO_INTERESTS,
    fixpoint_vsn_1: VSN_1,
    fixpoint_failing_join_function: FUNCTION,
    fixpoint_full_queue: FULL,
    fixpoint_lost_reply: LOST_REPLY,
    fixpoint_slow_join: SLOW_JOIN,
    fixpoint_stalled_join: STALLED_JOIN,
    fixpoint_paced_joins: PACED,
    fixpoint_progress: PROGRESS,
}

/// Searches the worlds that the environment variable `PHX_FIXPOINT` lists, or all of them for `all`.
#[test]
fn fixpoint_worlds_on_request() {
    let Some(names) = setting("PHX_FIXPOINT") else { return };
    let all = SMALL.into_iter().chain(&LARGE);
    let mut asked = 0;
    for settings in all.filter(|it| names == "all" || names.split(',').any(|name| name == it.name))
    {
        run(settings);
        asked += 1;
    }
    assert!(asked > 0, "no such world: {names}");
}

/// A form does not depend on earlier operations that make no difference: refs and ids are renamed, and
/// times are relative to the clock.
#[test]
fn fixpoint_form_forgets_the_past() {
    let reconnects = |times: u32| {
        let mut world = world::World::new(&CONNECTION);
        world.step(Op::Connect);
        for _ in 0..times {
            world.step(Op::Opened(world::Draw::Lowest));
            world.step(Op::Cut);
            world.step(Op::Tick);
        }
        world.form()
    };
    assert_ne!(reconnects(0), reconnects(2), "it has been open");
    assert_eq!(reconnects(2), reconnects(7));
}
