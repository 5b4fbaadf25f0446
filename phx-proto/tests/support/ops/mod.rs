//! A small language of operations on a [`Socket`](phx_proto::Socket), and what must hold after
//! each of them.
//!
//! * [`Op`] is plain data. Its numbers select among what there is at the moment (the n-th
//!   unanswered frame, the n-th topic), so every sequence of operations means something.
//! * [`World`](world::World) makes an [`Input`](phx_proto::Input) of each operation and applies it: it
//!   is the driver, the application and a server that breaks rules. It writes
//!   a [trace](world::Entry) of everything that came out.
//! * [`checkers`] watch one invariant each, after every step.
//! * [`fingerprint`] decides whether two worlds have the same future.
//! * [`settle`] plays a server that follows the rules, for what must happen in the end.
//! * [`strategy`] makes operations at random, some kinds switched off per run.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod checkers;
pub mod fingerprint;
pub mod peer;
pub mod server;
pub mod settle;
pub mod setup;
pub mod strategy;
pub mod world;

use std::time::Duration;

pub use setup::{Setup, Start};

/// One operation and how much is polled after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub op: Op,
    /// How many actions are polled; none for all there are.
    pub polls: Option<u8>,
}

/// Something that the application, the world or the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Connect,
    Disconnect,
    ConnectNow,
    Wake,
    Probe,
    SetCredentials,
    CredentialsUnchanged(Conn),

    Join {
        topic: u8,
        params: u8,
    },
    Attach {
        topic: u8,
    },
    Release {
        nth: u8,
    },
    Leave {
        topic: u8,
    },
    Rejoin {
        topic: u8,
    },
    SetJoinParams {
        topic: u8,
        params: u8,
    },

    Push {
        topic: u8,
        kind: PushKind,
        timeout: Option<Span>,
        size: u8,
    },
    Cancel {
        nth: u8,
    },

    Opened(Conn),
    Failed(Conn, Fail),
    Closed(Conn, End),
    Writable(Conn, bool),
    /// The transport moved so many KiB more each way, and has flushed or not.
    Progress {
        conn: Conn,
        read: u8,
        written: u8,
        flushed: bool,
    },

    /// The server answers the n-th unanswered frame of this connection.
    Answer {
        nth: u8,
        how: Answer,
    },
    /// It answers everything that is unanswered with ok, in order.
    AnswerAll,
    /// It answers, on this connection, the n-th frame of all there ever were.
    AnswerAny {
        nth: u8,
        how: Answer,
    },
    /// It sends a message about a topic.
    ServerMessage {
        topic: u8,
        what: ServerMessage,
        named: Named,
    },
    /// It sends what is not the protocol, or too much of it.
    Garbage {
        nth: u8,
    },
    /// The same on another connection.
    FrameOn(Conn),

    /// Time passes; the deadlines on the way may be handled, late and at once.
    Advance {
        by: Span,
        handle: bool,
    },
    /// Time passes to the next deadline and that is handled.
    ToTimeout,
    /// The clock steps back.
    Backwards {
        by: Span,
    },
}

/// Which connection an input is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conn {
    Current,
    Earlier(u8),
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushKind {
    pub cast: bool,
    pub fail_fast: bool,
    pub binary: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    Dial,
    /// An HTTP status, and `Retry-After` in seconds.
    Refused(u16, Option<u16>),
    Credentials,
    CredentialsGaveUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Frame(Option<u16>),
    Lost,
    TooLarge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Ok,
    OkBinary,
    /// An error with the n-th reason that Phoenix or an application gives.
    Error(u8),
    /// The "unmatched topic" error, which names no join.
    Unmatched,
    /// The same, under the name of another topic than the frame was for.
    Astray,
    OtherStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerMessage {
    Error,
    Close,
    Message,
    BinaryMessage,
}

/// Which instance of a channel the server means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    Current,
    Earlier(u8),
    Null,
    Foreign,
}

/// A length of time, from nothing to hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    Nothing,
    Nanosecond,
    Millis(u16),
    Seconds(u8),
    Hours(u8),
}

impl Span {
    pub const fn length(self) -> Duration {
        match self {
            Self::Nothing => Duration::ZERO,
            Self::Nanosecond => Duration::from_nanos(1),
            Self::Millis(millis) => Duration::from_millis(millis as u64),
            Self::Seconds(seconds) => Duration::from_secs(seconds as u64),
            Self::Hours(hours) => Duration::from_secs(hours as u64 * 3_600),
        }
    }
}
