//! Why an operation of a handle failed, and whose doing it was.

use crate::event::cause::{Cause, ChannelEnd, NotSentCause, Rejection, UnknownCause};
use crate::event::error::{JoinError, PushError};
use crate::wire::payload::Payload;

/// The first attempt to connect failed; the connection is closed and not retried.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{cause}")]
#[non_exhaustive]
pub struct ConnectError {
    /// Why.
    pub cause: Cause,
}

impl ConnectError {
    pub(super) const fn new(cause: Cause) -> Self {
        Self { cause }
    }
}

/// The connection is not open and is not being made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NotConnected {
    /// It was closed, or never started: call `connect`.
    #[error("the connection is closed")]
    Closed,
    /// It gave up.
    #[error("the connection gave up: {0}")]
    GaveUp(Cause),
    /// Its driver was dropped; nothing can happen any more.
    #[error("the driver of the connection is gone")]
    DriverGone,
}

/// A join did not succeed. The interest in the topic is released.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinFailed {
    /// It was not accepted: nothing was sent.
    #[error(transparent)]
    NotAccepted(#[from] JoinError),
    /// The server refused it; its own words are inside.
    #[error("the server refused the join ({:?}): {:?}", .0.kind, .0.response)]
    Rejected(Rejection),
    /// The channel ended first: left, closed by the server, or with its connection.
    #[error("the channel ended before it was joined: {0:?}")]
    Ended(ChannelEnd),
    /// The deadline passed. The last thing that stood in the way, if anything was seen.
    #[error("the join was not answered in time{}", .last.as_ref().map(|last| format!(": {last:?}")).unwrap_or_default())]
    Deadline {
        /// The last obstacle.
        last: Option<JoinObstacle>,
    },
}

/// Something that kept a join from succeeding so far.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum JoinObstacle {
    /// There was no connection.
    Disconnected(Cause),
    /// The server did not answer in time.
    TimedOut,
    /// The channel crashed, with this payload.
    Crashed(Payload),
    /// The server refused, and the core tries again.
    Rejected(Rejection),
}

/// A push that did not end with a reply, or a cast that was not written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PushFailed {
    /// It was not accepted; the payload is handed back.
    #[error(transparent)]
    NotAccepted(#[from] PushError),
    /// It was written, and no reply came in time. The server may have handled it.
    #[error("no reply came in time")]
    TimedOut,
    /// It was written, and no reply can come any more. The server may have handled it.
    #[error("the push was sent and its fate is unknown: {0:?}")]
    Unknown(UnknownCause),
    /// It was never written: safe to push again.
    #[error("the push was not sent: {0:?}")]
    NotSent(NotSentCause),
    /// It was withdrawn.
    #[error("the push was cancelled")]
    Cancelled,
}
