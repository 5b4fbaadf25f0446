//! The inputs and outputs of the socket as plain data: inputs, actions, signals, causes, errors and
//! counters.

pub(crate) mod action;
pub(crate) mod applied;
pub(crate) mod cause;
pub(crate) mod description;
pub(crate) mod error;
pub(crate) mod excerpt;
mod http_date;
pub(crate) mod input;
pub(crate) mod names;
pub(crate) mod refusal;
pub(crate) mod repeat;
pub(crate) mod signal;
pub(crate) mod sizes;
pub(crate) mod stats;
pub(crate) mod ticket;
#[cfg(any(feature = "recording", feature = "testing"))]
pub(crate) mod words;

pub use action::{Action, ConnectRequest};
pub use applied::{Applied, Released, Supplied};
pub use cause::{
    Cause, ChannelEnd, DialKind, Interruption, LeaveOutcome, NextStep, NotSentCause, PushOutcome,
    Rejection, RejectionKind, RejoinCause, Reply, TlsKind, UnknownCause,
};
pub use error::{
    CredentialsError, JoinError, NotOpen, NotRetrying, NotWanted, PushError, PushErrorKind,
    QueueBound,
};
pub use input::{Ended, Input, Opened, Progress, PushOptions};
pub use refusal::{Refusal, SocksRefusal};
pub use repeat::{KeyError, RepeatOptions};
pub use signal::{Signal, Warning};
pub use sizes::Sizes;
pub use stats::Stats;
pub use ticket::JoinTicket;
