//! Errors of commands. A command that returns an error has changed nothing.

use core::fmt;

use crate::config::{ConfigError, Unfit};
use crate::event::repeat::KeyError;
use crate::topic::Topic;
use crate::wire::EncodeError;
use crate::wire::payload::Payload;

/// The error of `connect_now` if the client is neither connected nor connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client is neither connected nor connecting: call `connect` first")]
pub struct NotRetrying;

/// The error of `probe` if the connection is not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is not open")]
pub struct NotOpen;

/// Why a join, or new join parameters, were not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The connection is closed or gave up. Joins are accepted again after `connect`.
    #[error("the connection is closed: call `connect` first")]
    Closed,
    /// The topic was requested before with other parameters. Leave it first, or replace them with
    /// `set_join_params` or `JoinOptions::replace_params`.
    #[error(
        "{topic:?} is already in use with other parameters: leave it first, or replace them with \
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
    /// The join cannot be encoded.
    #[error("the join cannot be sent: {0}")]
    Encode(EncodeError),
    /// New parameters were set for a topic that is not wanted.
    #[error(transparent)]
    NotWanted(#[from] NotWanted),
    /// The parameters are not a JSON object, so the position of a consumer that catches up cannot be added
    /// to them.
    #[error(
        "the join parameters of {topic:?} must be a JSON object, because the position of a consumer that \
         catches up is added to them"
    )]
    ParamsNotObject {
        /// The topic.
        topic: Topic,
    },
    /// The join frame would be larger than [`Config::max_push_bytes`](crate::Config::max_push_bytes).
    #[error("the join would be larger than {limit} bytes (`max_push_bytes`)")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
}

impl JoinError {
    /// The error of a join that cannot be sent.
    pub(crate) fn unfit(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Encode(error) => Self::Encode(error),
            Unfit::TooLarge { limit, .. } => Self::TooLarge { limit },
        }
    }
}

impl From<EncodeError> for JoinError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

/// The topic is not wanted: it was never joined, or its channel has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{topic:?} has not been joined, or its channel has ended: call `join` first")]
#[non_exhaustive]
pub struct NotWanted {
    /// The topic.
    pub topic: Topic,
}

impl NotWanted {
    /// Creates the error for this topic.
    #[must_use]
    pub fn new(topic: impl Into<Topic>) -> Self {
        Self { topic: topic.into() }
    }
}

/// A push that was not accepted. The error returns the payload to the caller.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{kind}")]
#[non_exhaustive]
pub struct PushError {
    /// Why the push was not accepted.
    pub kind: PushErrorKind,
    /// The unchanged payload.
    pub payload: Payload,
}

/// Why a push was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushErrorKind {
    /// The topic is not wanted: it was never joined, or it was left or has ended. Join it first.
    #[error("the topic was not joined, or it was left: call `join` first")]
    NotWanted,
    /// The channel is not joined at the moment, and the push was made with
    /// [`fail_fast`](crate::PushOptions::fail_fast). A later attempt may succeed.
    #[error("the channel is not joined at the moment, and the push was made with `fail_fast`")]
    NotJoined,
    /// The push queue is full. The push was not sent, and a later attempt may succeed.
    #[error("the push queue is full: {bound} is {limit}")]
    QueueFull {
        /// The limit that was reached.
        bound: QueueBound,
        /// The value of the limit: a number of pushes, or of bytes.
        limit: usize,
    },
    /// The frame would be larger than [`Config::max_push_bytes`](crate::Config::max_push_bytes).
    #[error("the frame would have {bytes} bytes, more than {limit} (`max_push_bytes`)")]
    TooLarge {
        /// The size of the frame in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The push cannot be encoded.
    #[error("the push cannot be sent: {0}")]
    Encode(EncodeError),
    /// The push asks for repeats, and its payload has no idempotency key.
    #[error("the push cannot be repeated: {0}")]
    NoKey(KeyError),
    /// The event is `phx_join` or `phx_leave`, which belong to the protocol. Use `join` and `leave`.
    #[error("the event is reserved for the protocol")]
    ReservedEvent,
}

impl From<EncodeError> for PushErrorKind {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

/// A limit of the push queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueBound {
    /// [`Config::queued_pushes_max`](crate::Config::queued_pushes_max), for all topics together.
    Pushes,
    /// [`Config::queued_bytes_max`](crate::Config::queued_bytes_max), for all topics together.
    Bytes,
    /// Half of [`Config::queued_pushes_max`](crate::Config::queued_pushes_max), the limit for one topic
    /// while there are others.
    PushesOfTopic,
    /// Half of [`Config::queued_bytes_max`](crate::Config::queued_bytes_max), the limit for one topic while
    /// there are others.
    BytesOfTopic,
}

impl fmt::Display for QueueBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pushes => "`queued_pushes_max`",
            Self::Bytes => "`queued_bytes_max`",
            Self::PushesOfTopic => "half of `queued_pushes_max` (the limit of one topic)",
            Self::BytesOfTopic => "half of `queued_bytes_max` (the limit of one topic)",
        })
    }
}

/// Why credentials were not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The address in the credentials may not be dialled, or a parameter contradicts the codec.
    #[error(transparent)]
    Config(#[from] ConfigError),
}
