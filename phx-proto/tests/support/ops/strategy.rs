//! Random operations. Some topics are used more often than others, and in each run some kinds of
//! operations are switched off, so that long series of the other kinds occur too.

use std::time::Duration;

use proptest::bool::weighted;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;

use super::{
    Answer, Conn, End, Fail, Named, Op, PushKind, ServerMessage, Setup, Span, Start, Step,
};

/// A run: the setup of the socket, and the operations on it.
pub fn run(steps: usize) -> impl Strategy<Value = (Setup, Vec<Step>)> {
    (setup(), self::steps(steps))
}

pub fn setup() -> impl Strategy<Value = Setup> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let ignored = weighted(0.2);
    let start = prop_oneof![
        1 => Just(Start::Idle),
        1 => Just(Start::Open),
        2 => Just(Start::Joined),
    ];
    let in_flight = prop_oneof![1 => 1_usize..4, 1 => Just(16_384)];
    let elapsed = option::weighted(0.2, (1_u64..100).prop_map(Duration::from_secs));
    let limits = (1_usize..4, in_flight);
    (any::<u64>(), flags, ignored, limits, option::weighted(0.2, 0_u32..4), elapsed, start)
        .prop_map(|(seed, flags, retry_after_ignored, limits, max_retries, max_elapsed, start)| {
            Setup {
                seed,
                vsn_1: flags.0 && flags.4,
                heartbeats: flags.0 || flags.1,
                strict: flags.2,
                auto_join: flags.3,
                credentials_refreshed: flags.4,
                retry_after_ignored,
                join_concurrency: limits.0,
                pushes_in_flight_max: limits.1,
                max_retries,
                max_elapsed,
                start,
                ..Setup::default()
            }
        })
}

/// Up to `most` steps.
pub fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    (vec(0_u8..4, kinds().len()), any::<bool>()).prop_flat_map(move |(switches, lazy)| {
        // Some kinds are switched off, except those that keep the connection running. Some kinds are
        // frequent.
        let on = kinds().into_iter().zip(switches).filter_map(|((weight, vital, op), switch)| {
            let factor = match switch {
                0 => u32::from(vital),
                3 => 6,
                _ => 2,
            };
            (factor > 0).then_some((weight * factor, op))
        });
        let op = Union::new_weighted(on.collect());
        let polls = if lazy {
            prop_oneof![3 => Just(None), 1 => (0_u8..4).prop_map(Some)].boxed()
        } else {
            Just(None).boxed()
        };
        vec((op, polls).prop_map(|(op, polls)| Step { op, polls }), 0..most)
    })
}

type Kind = (u32, bool, BoxedStrategy<Op>);

fn kinds() -> Vec<Kind> {
    let at = |weight, vital, op: BoxedStrategy<Op>| (weight, vital, op);
    vec![
        at(10, true, Just(Op::Connect).boxed()),
        at(40, true, Just(Op::Opened(Conn::Current)).boxed()),
        at(20, true, Just(Op::ToTimeout).boxed()),
        at(16, true, Just(Op::AnswerAll).boxed()),
        at(1, false, Just(Op::Disconnect).boxed()),
        at(3, false, Just(Op::ConnectNow).boxed()),
        at(3, false, Just(Op::Wake).boxed()),
        at(3, false, Just(Op::Probe).boxed()),
        at(1, false, Just(Op::SetCredentials).boxed()),
        at(1, false, conn().prop_map(Op::CredentialsUnchanged).boxed()),
        at(2, false, conn().prop_map(Op::Dialled).boxed()),
        at(
            12,
            false,
            (topic(), params()).prop_map(|(topic, params)| Op::Join { topic, params }).boxed(),
        ),
        at(2, false, topic().prop_map(|topic| Op::Attach { topic }).boxed()),
        at(3, false, any::<u8>().prop_map(|nth| Op::Release { nth }).boxed()),
        at(4, false, topic().prop_map(|topic| Op::Leave { topic }).boxed()),
        at(2, false, topic().prop_map(|topic| Op::Rejoin { topic }).boxed()),
        at(
            2,
            false,
            (topic(), params())
                .prop_map(|(topic, params)| Op::SetJoinParams { topic, params })
                .boxed(),
        ),
        at(40, false, push().boxed()),
        at(2, false, any::<u8>().prop_map(|nth| Op::Cancel { nth }).boxed()),
        at(2, false, other_conn().prop_map(Op::Opened).boxed()),
        at(4, false, (conn(), fail()).prop_map(|(conn, fail)| Op::Failed(conn, fail)).boxed()),
        at(3, false, (conn(), end()).prop_map(|(conn, end)| Op::Closed(conn, end)).boxed()),
        at(6, false, (conn(), any::<bool>()).prop_map(|(conn, on)| Op::Writable(conn, on)).boxed()),
        at(6, false, progress().boxed()),
        at(50, true, (nth(), answer()).prop_map(|(nth, how)| Op::Answer { nth, how }).boxed()),
        at(
            4,
            false,
            (any::<u8>(), answer()).prop_map(|(nth, how)| Op::AnswerAny { nth, how }).boxed(),
        ),
        at(
            16,
            false,
            (topic(), server_message(), named())
                .prop_map(|(topic, what, named)| Op::ServerMessage { topic, what, named })
                .boxed(),
        ),
        at(2, false, any::<u8>().prop_map(|nth| Op::Garbage { nth }).boxed()),
        at(2, false, other_conn().prop_map(Op::FrameOn).boxed()),
        at(
            8,
            false,
            (span(), any::<bool>()).prop_map(|(by, handle)| Op::Advance { by, handle }).boxed(),
        ),
        at(1, false, span().prop_map(|by| Op::Backwards { by }).boxed()),
    ]
}

/// One topic is frequent, one less frequent, and some are rare.
fn topic() -> impl Strategy<Value = u8> {
    prop_oneof![6 => Just(0_u8), 3 => Just(1), 1 => 2_u8..6]
}

fn params() -> impl Strategy<Value = u8> {
    prop_oneof![8 => Just(0_u8), 1 => 1_u8..4]
}

/// The oldest unanswered frame, or another one.
fn nth() -> impl Strategy<Value = u8> {
    prop_oneof![2 => Just(0_u8), 1 => any::<u8>()]
}

fn conn() -> impl Strategy<Value = Conn> {
    prop_oneof![3 => Just(Conn::Current), 1 => other_conn()]
}

fn other_conn() -> impl Strategy<Value = Conn> {
    prop_oneof![4 => any::<u8>().prop_map(Conn::Earlier), 1 => Just(Conn::Never)]
}

fn progress() -> impl Strategy<Value = Op> {
    let kib = || prop_oneof![2 => Just(0_u8), 2 => 1_u8..8, 1 => any::<u8>()];
    (conn(), kib(), kib(), any::<bool>(), kib()).prop_map(
        |(conn, read, written, flushed, acknowledged)| Op::Progress {
            conn,
            read,
            written,
            flushed,
            acknowledged,
        },
    )
}

fn push() -> impl Strategy<Value = Op> {
    let flags = (any::<bool>(), 0_u8..4, 0_u8..4);
    let size = prop_oneof![4 => 0_u8..8, 1 => any::<u8>()];
    (topic(), flags, option::weighted(0.4, span()), size).prop_map(
        |(topic, (cast, fail_fast, binary), timeout, size)| {
            let kind = PushKind { cast, fail_fast: fail_fast == 0, binary: binary == 0 };
            Op::Push { topic, kind, timeout, size }
        },
    )
}

fn fail() -> impl Strategy<Value = Fail> {
    let status = select(vec![200, 301, 400, 403, 404, 408, 425, 429, 500, 503, 401]);
    let retry_after = option::weighted(0.4, prop_oneof![0_u16..4, 0_u16..100, Just(u16::MAX)]);
    prop_oneof![
        12 => Just(Fail::Dial),
        16 => (status, retry_after).prop_map(|(status, after)| Fail::Refused(status, after)),
        4 => Just(Fail::Credentials),
        1 => Just(Fail::CredentialsGaveUp),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        2 => Just(End::Lost),
        2 => option::of(select(vec![1000, 1001, 1006, 1008, 1011, 1012, 1013, 4000]))
            .prop_map(End::Frame),
        1 => Just(End::TooLarge),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        8 => Just(Answer::Ok),
        1 => Just(Answer::OkBinary),
        2 => (0_u8..4).prop_map(Answer::Error),
        2 => Just(Answer::Unmatched),
        1 => Just(Answer::Astray),
        1 => Just(Answer::OtherStatus),
    ]
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    prop_oneof![
        Just(ServerMessage::Error),
        Just(ServerMessage::Close),
        Just(ServerMessage::Message),
        Just(ServerMessage::BinaryMessage)
    ]
}

fn named() -> impl Strategy<Value = Named> {
    prop_oneof![
        4 => Just(Named::Current),
        2 => any::<u8>().prop_map(Named::Earlier),
        2 => Just(Named::Null),
        1 => Just(Named::Foreign),
    ]
}

fn span() -> impl Strategy<Value = Span> {
    prop_oneof![
        1 => Just(Span::Nothing),
        1 => Just(Span::Nanosecond),
        6 => (1_u16..3_000).prop_map(Span::Millis),
        4 => (1_u8..90).prop_map(Span::Seconds),
        1 => (1_u8..4).prop_map(Span::Hours),
    ]
}
