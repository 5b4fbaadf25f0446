//! Converts bytes to a [`Setup`] and operations, for the same world and checkers as in the
//! properties.

use std::time::Duration;

use super::reader::Reader;
use crate::ops::settle::Peace;
use crate::ops::world::World;
use crate::ops::{
    Answer, Conn, End, Fail, Named, Op, PushKind, ServerMessage, Setup, Span, Start, Step,
};

/// The maximum number of steps. More steps are slow and find nothing new.
const STEPS_MAX: usize = 150;

/// A time that is longer than any wait.
const LONG: Duration = Duration::from_secs(5 * 3_600);

/// Every invariant holds. Once faults stop, every wanted topic is joined and every push has its
/// outcome.
pub fn socket_ops(data: &[u8]) {
    let Some((setup, peace, steps)) = read_run(data) else { return };
    let mut world = World::new(setup);
    world.steps(&steps);
    assert!(world.settle(peace, LONG), "{:?} {:?}", world.socket.status(), world.socket);
}

/// The run that these bytes encode.
pub fn read_run(data: &[u8]) -> Option<(Setup, Peace, Vec<Step>)> {
    let mut reader = Reader(data);
    let (setup, peace) = setup(&mut reader)?;
    let steps = std::iter::from_fn(|| step(&mut reader)).take(STEPS_MAX).collect();
    Some((setup, peace, steps))
}

fn setup(reader: &mut Reader<'_>) -> Option<(Setup, Peace)> {
    let (flags, limits) = (reader.byte()?, reader.byte()?);
    let flag = |bit: u8| flags >> bit & 1 == 1;
    let seed = reader.byte()?;
    let setup = Setup {
        seed: u64::from(seed),
        vsn_1: flag(0),
        heartbeats: !flag(1),
        strict: flag(2),
        auto_join: flag(3),
        credentials_refreshed: flag(4),
        join_concurrency: usize::from(limits & 3) + 1,
        // In about half of the runs, a bound that is reached.
        pushes_in_flight_max: if seed & 1 == 1 { usize::from(seed >> 1 & 3) + 1 } else { 16_384 },
        max_retries: (limits >> 2 & 7).checked_sub(4).map(u32::from),
        max_elapsed: (limits >> 5)
            .checked_sub(6)
            .map(|it| Duration::from_secs(1 + 59 * u64::from(it))),
        start: [Start::Joined, Start::Open, Start::Idle, Start::Joined]
            [usize::from(flags >> 5 & 3)],
        ..Setup::default()
    };
    Some((setup, if flag(7) { Peace::Forgotten } else { Peace::Answered }))
}

fn step(reader: &mut Reader<'_>) -> Option<Step> {
    let kind = reader.byte()?;
    let op = op(kind, reader)?;
    // Most drivers poll until no action is left.
    let polls = if kind < 192 { None } else { Some(kind >> 5 & 1) };
    Some(Step { op, polls })
}

fn op(kind: u8, reader: &mut Reader<'_>) -> Option<Op> {
    Some(match kind % 32 {
        0 => Op::Connect,
        1 => Op::Disconnect,
        2 => Op::ConnectNow,
        3 => Op::Wake,
        4 => Op::Probe,
        5 => Op::SetCredentials,
        6 => {
            let byte = reader.byte()?;
            // Bit 5 of `kind` alone would determine `polls` too. With that of the other byte, each operation
            // occurs with each value of `polls`.
            let op =
                if (kind ^ byte) >> 5 & 1 == 1 { Op::Dialled } else { Op::CredentialsUnchanged };
            op(conn_of(byte))
        }
        7 => Op::Join { topic: topic(reader)?, params: reader.below(4)? },
        8 => Op::Attach { topic: topic(reader)? },
        9 => Op::Release { nth: reader.byte()? },
        10 => Op::Leave { topic: topic(reader)? },
        11 => Op::Rejoin { topic: topic(reader)? },
        12 => Op::SetJoinParams { topic: topic(reader)?, params: reader.below(4)? },
        13 | 14 => push(reader)?,
        15 => {
            let (conn, read, written) = (conn(reader)?, reader.byte()?, reader.byte()?);
            let acknowledged = if read % 2 == 0 { written / 2 } else { 0 };
            Op::Progress { conn, read, written, flushed: reader.flag()?, acknowledged }
        }
        16 => Op::Cancel { nth: reader.byte()? },
        17 => Op::Opened(Conn::Current),
        18 => Op::Opened(conn(reader)?),
        19 => Op::Failed(conn(reader)?, fail(reader)?),
        20 => Op::Closed(conn(reader)?, end(reader)?),
        21 => Op::Writable(conn(reader)?, reader.flag()?),
        22 => Op::Answer { nth: 0, how: Answer::Ok },
        23 => Op::Answer { nth: reader.byte()?, how: answer(reader)? },
        24 => Op::AnswerAll,
        25 => Op::AnswerAny { nth: reader.byte()?, how: answer(reader)? },
        26 => Op::ServerMessage {
            topic: topic(reader)?,
            what: server_message(reader)?,
            named: named(reader)?,
        },
        27 => Op::Garbage { nth: reader.byte()? },
        28 => Op::FrameOn(conn(reader)?),
        29 => Op::Advance { by: span(reader)?, handle: reader.flag()? },
        30 => Op::ToTimeout,
        _ => Op::Backwards { by: span(reader)? },
    })
}

fn topic(reader: &mut Reader<'_>) -> Option<u8> {
    reader.below(4)
}

fn conn(reader: &mut Reader<'_>) -> Option<Conn> {
    reader.byte().map(conn_of)
}

fn conn_of(byte: u8) -> Conn {
    match byte {
        0..=191 => Conn::Current,
        255 => Conn::Never,
        earlier => Conn::Earlier(earlier - 192),
    }
}

fn push(reader: &mut Reader<'_>) -> Option<Op> {
    let flags = reader.byte()?;
    let flag = |bit: u8| flags >> bit & 1 == 1;
    let kind = PushKind { cast: flag(0), fail_fast: flag(1), binary: flag(2) };
    let timeout = if flag(3) { Some(span(reader)?) } else { None };
    let size = if flag(4) { reader.byte()? } else { 0 };
    Some(Op::Push { topic: flags >> 5 & 3, kind, timeout, size })
}

fn fail(reader: &mut Reader<'_>) -> Option<Fail> {
    Some(match reader.below(8)? {
        0..=2 => Fail::Dial,
        3..=5 => {
            let status = [401, 403, 404, 429, 500, 503, 408, 425, 200, 301, 400];
            let status = status[usize::from(reader.below(11)?)];
            let after = if reader.flag()? { Some(reader.number()?) } else { None };
            Fail::Refused(status, after)
        }
        6 => Fail::Credentials,
        _ => Fail::CredentialsGaveUp,
    })
}

fn end(reader: &mut Reader<'_>) -> Option<End> {
    Some(match reader.below(12)? {
        0..=1 => End::Lost,
        2 => End::TooLarge,
        3 => End::Frame(None),
        code => {
            let codes = [1000, 1001, 1006, 1008, 1011, 1012, 1013, 4000];
            End::Frame(Some(codes[usize::from(code - 4)]))
        }
    })
}

fn answer(reader: &mut Reader<'_>) -> Option<Answer> {
    Some(match reader.below(8)? {
        0 | 1 => Answer::Ok,
        2 => Answer::OkBinary,
        3 => Answer::Unmatched,
        4 => Answer::OtherStatus,
        _ => Answer::Error(reader.below(4)?),
    })
}

fn server_message(reader: &mut Reader<'_>) -> Option<ServerMessage> {
    let all = [
        ServerMessage::Error,
        ServerMessage::Close,
        ServerMessage::Message,
        ServerMessage::BinaryMessage,
    ];
    Some(all[usize::from(reader.below(4)?)])
}

fn named(reader: &mut Reader<'_>) -> Option<Named> {
    Some(match reader.byte()? {
        0..=127 => Named::Current,
        128..=159 => Named::Null,
        160..=191 => Named::Foreign,
        earlier => Named::Earlier(earlier - 192),
    })
}

fn span(reader: &mut Reader<'_>) -> Option<Span> {
    Some(match reader.below(8)? {
        0 => Span::Nothing,
        1 => Span::Nanosecond,
        2..=4 => Span::Millis(reader.number()? % 3_000),
        5 | 6 => Span::Seconds(reader.below(90)?),
        _ => Span::Hours(reader.below(4)?),
    })
}
