//! Errors of the commands: the caller's to handle, returned at once, with nothing changed.

use core::fmt;

use crate::config::ConfigError;
use crate::topic::Topic;
use crate::wire::EncodeError;
use crate::wire::payload::Payload;

/// `connect_now` had nothing to hurry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no connection being kept: call `connect` first")]
pub struct NotRetrying;

/// `probe` needs an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is not open")]
pub struct NotOpen;

/// Why a join, or new parameters of one, was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The connection is closed or gave up; joins are accepted again after `connect`.
    #[error("the connection is closed: call `connect` first")]
    Closed,
    /// The topic is already wanted with other parameters. Leave it first, or replace them with
    /// `set_join_params` or `JoinOptions::replace_params`.
    #[error(
        "{topic:?} is already wanted with other parameters: leave it first, or replace them with \
         `JoinOptions::replace_params`"
    )]
    ConflictingParams {
        /// The topic.
        topic: Topic,
    },
    /// `phoenix` is the topic of heartbeats and cannot be joined.
    #[error("the topic {topic:?} is reserved")]
    Reserved {
        /// The topic.
        topic: Topic,
    },
    /// The join could never be written.
    #[error("the join cannot be sent: {0}")]
    Encode(EncodeError),
    /// There is no join to have these parameters.
    #[error(transparent)]
    NotWanted(#[from] NotWanted),
    /// The join frame would be larger than [`Config::max_push_bytes`](crate::Config::max_push_bytes).
    #[error("the join would be larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

impl From<EncodeError> for JoinError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

/// The topic is not wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{topic:?} has not been joined, or its channel has ended: call `join` first")]
#[non_exhaustive]
pub struct NotWanted {
    /// The topic.
    pub topic: Topic,
}

impl NotWanted {
    /// The error for this topic.
    #[must_use]
    pub fn new(topic: impl Into<Topic>) -> Self {
        Self { topic: topic.into() }
    }
}

/// A push that was not accepted, with its payload handed back.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{kind}")]
#[non_exhaustive]
pub struct PushError {
    /// Why.
    pub kind: PushErrorKind,
    /// The payload, as it was given.
    pub payload: Payload,
}

/// Why a push was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushErrorKind {
    /// The topic is not wanted: it was never joined, or it was left or has ended. Join it first.
    #[error("the topic was not joined, or it was left: call `join` first")]
    NotWanted,
    /// The topic is wanted and not joined now, and the push is to
    /// [fail fast](crate::PushOptions::fail_fast). A later try may find it joined.
    #[error("the channel is not joined now, and the push is to fail fast")]
    NotJoined,
    /// The push queue is full. The server did not get it, and a later try may find it shorter.
    #[error("the push queue is full: {limit} is {bound}")]
    QueueFull {
        /// Which of its bounds was reached.
        bound: QueueBound,
        /// The bound: a number of pushes, or of bytes.
        limit: usize,
    },
    /// The frame would be larger than [`Config::max_push_bytes`](crate::Config::max_push_bytes).
    #[error("the frame would have {bytes} bytes, {limit} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The push could never be written.
    #[error("the push cannot be sent: {0}")]
    Encode(EncodeError),
    /// `phx_join` and `phx_leave` are commands of the protocol: use `join` and `leave`.
    #[error("the event is reserved for the protocol")]
    ReservedEvent,
}

impl From<EncodeError> for PushErrorKind {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

/// A bound of the push queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueBound {
    /// [`Config::queued_pushes_max`](crate::Config::queued_pushes_max), of all topics together.
    Pushes,
    /// [`Config::queued_bytes_max`](crate::Config::queued_bytes_max), of all topics together.
    Bytes,
    /// The half of [`Config::queued_pushes_max`](crate::Config::queued_pushes_max) that one topic may
    /// hold while there are others.
    PushesOfTopic,
    /// The half of [`Config::queued_bytes_max`](crate::Config::queued_bytes_max) that one topic may
    /// hold while there are others.
    BytesOfTopic,
}

impl fmt::Display for QueueBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pushes => "`queued_pushes_max`",
            Self::Bytes => "`queued_bytes_max`",
            Self::PushesOfTopic => "half of `queued_pushes_max` for one topic of several",
            Self::BytesOfTopic => "half of `queued_bytes_max` for one topic of several",
        })
    }
}

/// Why credentials were not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Their address may not be dialled.
    #[error(transparent)]
    Config(#[from] ConfigError),
}
