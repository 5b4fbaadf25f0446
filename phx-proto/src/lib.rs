//! Phoenix Channels as a pure, sans-IO state machine.

mod action;
mod auth_token;
mod backoff;
mod cause;
mod channel;
mod config;
#[cfg(feature = "driver")]
pub mod driver;
mod error;
mod heartbeat;
mod http_date;
mod id;
mod input;
mod join_clock;
mod join_params;
mod payload;
mod push;
mod refusal;
mod retry;
mod rng;
mod signal;
mod socket;
mod stats;
mod time;
mod timer;
mod topic;
#[cfg(feature = "upgrade")]
pub mod upgrade;
pub mod wire;

pub use crate::action::{Action, ConnectRequest};
pub use crate::backoff::{Backoff, DelayRange};
pub use crate::cause::{
    Cause, ChannelEnd, Interruption, LeaveOutcome, NextStep, NotSentCause, PushOutcome,
    Rejection, RejectionKind, RejoinCause, Reply, UnknownCause,
};
pub use crate::channel::{ChannelStatus, PendingReason};
pub use crate::config::{CloseRule, Config, ConfigError, Credentials, Secret, StatusRule, Uri};
pub use crate::error::{
    CredentialsError, JoinError, NotOpen, NotRetrying, NotWanted, PushError, PushErrorKind,
};
pub use crate::id::{ConnectionId, InterestId, PushId, Ref};
pub use crate::input::{Ended, Failure, Opened};
pub use crate::join_params::{JoinAttempt, JoinParams};
pub use crate::payload::Payload;
pub use crate::push::PushOptions;
pub use crate::refusal::Refusal;
pub use crate::signal::{Signal, Warning};
pub use crate::socket::{Released, Socket, Status};
pub use crate::stats::Stats;
pub use crate::time::Time;
pub use crate::timer::{TimerKind, Timeout};
pub use crate::topic::Topic;
pub use crate::wire::Frame;
