//! A small language of operations on a [`Socket`](phx_proto::Socket), and the invariants that must
//! hold after each of them.
//!
//! * [`Op`] is plain data. Its numbers select one of the present frames or topics (the n-th
//!   unanswered frame, the n-th topic), so every sequence of operations is valid.
//! * [`World`](world::World) converts each operation to an [`Input`](phx_proto::Input) and applies
//!   it: it is the driver, the application and a server that breaks rules. It writes a
//!   [trace](world::Entry) of everything that the socket emitted.
//! * [`checkers`] contains the invariants. Each has a checker, which runs after every step.
//! * [`fingerprint`] is a hash that is equal only for worlds with the same future.
//! * [`settle`] plays a server that follows the rules, for the properties of the final state.
//! * [`strategy`] generates random operations, with some kinds switched off in each run.

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

/// One operation, and the number of actions that are polled after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub op: Op,
    /// How many actions are polled. `None` polls all of them.
    pub polls: Option<u8>,
}

/// An action of the application, of the world or of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Connect,
    Disconnect,
    ConnectNow,
    Wake,
    Probe,
    SetCredentials,
    CredentialsUnchanged(Conn),
    Dialled(Conn),

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
    /// The transport moved this many more KiB in each direction, and has flushed or not. The peer has
    /// acknowledged `acknowledged` more of the written KiB. The next ping, after the same number of
    /// further KiB, is unanswered.
    Progress {
        conn: Conn,
        read: u8,
        written: u8,
        flushed: bool,
        acknowledged: u8,
    },

    /// The server answers the n-th unanswered frame of this connection.
    Answer {
        nth: u8,
        how: Answer,
    },
    /// The server answers every unanswered frame with ok, in order.
    AnswerAll,
    /// The server answers, on this connection, the n-th of all frames that were ever written.
    AnswerAny {
        nth: u8,
        how: Answer,
    },
    /// The server sends a message for a topic.
    ServerMessage {
        topic: u8,
        what: ServerMessage,
        named: Named,
    },
    /// The server sends a frame that is outside the protocol, or too large.
    Garbage {
        nth: u8,
    },
    /// The server sends a frame on another connection.
    FrameOn(Conn),

    /// Time passes. The deadlines on the way may be handled late and together.
    Advance {
        by: Span,
        handle: bool,
    },
    /// Time passes to the next deadline, which is handled.
    ToTimeout,
    /// The clock steps back.
    Backwards {
        by: Span,
    },
}

/// The connection that an input concerns.
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
    /// The "unmatched topic" error, with another topic than that of the frame.
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

/// The instance of a channel that the server names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    Current,
    Earlier(u8),
    Null,
    Foreign,
}

/// A duration, from zero to hours.
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
