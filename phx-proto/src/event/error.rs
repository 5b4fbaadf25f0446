//! Errors of the commands: the caller's to handle, returned at once, with nothing changed.

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
    /// The topic is already wanted with other parameters. Leave it first, or use
    /// `set_join_params`.
    #[error("{topic:?} is already wanted with other parameters")]
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
    Encode(#[from] EncodeError),
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

/// The topic is not wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{topic:?} has not been joined")]
pub struct NotWanted {
    /// The topic.
    pub topic: Topic,
}

/// A push that was not accepted, with its payload handed back.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{kind}")]
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
    /// The topic is not wanted, or (with `FailFast`) not joined at the moment.
    #[error("the channel is not joined")]
    NotJoined,
    /// As many pushes, or as many bytes of them, wait as may wait.
    #[error("too many pushes are waiting")]
    QueueFull,
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
    Encode(#[from] EncodeError),
    /// `phx_join` and `phx_leave` are commands of the protocol: use `join` and `leave`.
    #[error("the event is reserved for the protocol")]
    ReservedEvent,
}

/// Why credentials were not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Their address may not be dialled.
    #[error(transparent)]
    Config(#[from] ConfigError),
}
