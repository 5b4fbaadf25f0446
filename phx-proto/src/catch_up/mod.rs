//! Catching up after a gap: the messages that a consumer missed, each once and in order.
//!
//! A server that numbers the messages of a topic and keeps the latest of them can send again what a
//! client missed. The client passes the position of the last message that its consumer took with the
//! next join, the server replays every message after that position, and the client puts the replay and
//! the live messages in order. A [`Cursor`] is that position, and a [`Sequencer`] does the ordering. The
//! async client uses both behind `JoinOptions::catch_up`; a program that drives a
//! [`Socket`](crate::Socket) itself uses them directly.
//!
//! ```text
//!   server ── replay ───▶ ┌ Sequencer ───────────────────────┐
//!          ── live ─────▶ │ holds live messages back, drops  │ ──▶ consumer
//!                         │ duplicates, finds gaps           │      │ takes a message
//!          ◀── "since" ── │ Cursor ◀─────────────────────────┼──────┘
//!                         └──────────────────────────────────┘
//! ```
//!
//! # The contract
//!
//! The server must keep this contract. A [`Contract`] holds the parts of it that differ between servers.
//!
//! 1. Every message that can be replayed has a position, a number that is unique on its topic. Positions
//!    increase in the order in which the server sends live messages. After a restart of the server they
//!    continue to increase; a server that keeps its positions only in memory can start them at the system
//!    time in microseconds.
//! 2. Every join is followed by a replay. If the parameters of the join contain a position, the replay
//!    is every message after that position that the server still has, in order. Otherwise the server
//!    chooses the messages; the replay may be empty.
//! 3. No message is lost between the replay and the live messages. To achieve this, the server subscribes
//!    the channel before it reads the messages to replay. A message may then arrive twice. Phoenix calls
//!    `join/3` *before* it subscribes the channel; `tests/phoenix/lib/contract/ring.ex` in the repository
//!    is a channel that does it right.
//! 4. The replay is a [JSON object](Contract#the-replay) in the response of the join, or in the payload of
//!    events. In the second form, another event ends the replay.
//!
//! # What the consumer sees
//!
//! With a server that keeps the contract, the consumer sees each message **exactly once and in order**,
//! whatever happens to the connection, except for messages that the server has forgotten. Forgotten
//! messages are reported as a [`Gap`] if the server names the
//! [oldest position](Contract#the-replay) from which it can replay, or if positions are
//! [contiguous](Contract::contiguous). Otherwise they are lost without a report.
//!
//! If live messages arrive out of order or twice, the consumer sees each of them **at least once**. Two
//! limits remain. A live message whose position is not beyond the end of the last replay counts as a copy
//! of a replayed message, and is dropped. And a server does not replay a message whose position is not
//! beyond that of the client.
//!
//! The cursor advances when the consumer takes a message. A program that stores its cursor after it has
//! processed a message, and later starts from that cursor, processes each message at least once, because
//! it may stop between the two steps.
//!
//! A message without a position, such as a typing indicator, is delivered as it arrives, and is not
//! replayed.

mod contract;
mod sequencer;

use serde::{Deserialize, Serialize};

pub use contract::{Contract, Replay, ReplayError, ReplayedMessage};
pub use sequencer::{Sequencer, SequencerStep};

/// The position of the last message that the consumer of one topic took.
///
/// A cursor is serialized as its position: a number, or `null` before the first message. Store it, and
/// start from it after a restart.
///
/// ```
/// use phx_proto::catch_up::Cursor;
///
/// let cursor = Cursor::at(7);
/// let stored = serde_json::to_string(&cursor)?;
/// assert_eq!(stored, "7");
/// assert_eq!(serde_json::from_str::<Cursor>(&stored)?, cursor);
/// assert_eq!(Cursor::new().position(), None);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor {
    position: Option<u64>,
}

impl Cursor {
    /// A cursor of a consumer that has taken no message. It starts with the messages that the server
    /// chooses.
    #[must_use]
    pub const fn new() -> Self {
        Self { position: None }
    }

    /// A cursor of a consumer whose last message had this position.
    #[must_use]
    pub const fn at(position: u64) -> Self {
        Self { position: Some(position) }
    }

    /// The position of the last message, if there was one.
    #[must_use]
    pub const fn position(self) -> Option<u64> {
        self.position
    }
}

/// Messages that the server can no longer replay: those with a position greater than `after` and not
/// greater than `through`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The position of the last message before the gap; `None` if there was none.
    pub after: Option<u64>,
    /// The greatest position in the gap. `None` if the end of the gap is unknown: the server has started
    /// its numbers over, or its replay was invalid or did not end.
    pub through: Option<u64>,
}
