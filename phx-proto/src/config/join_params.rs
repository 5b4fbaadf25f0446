//! What a join says to the server, decided per attempt.

use core::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::topic::Topic;
use crate::wire::payload::Payload;

/// One attempt to join, as seen by a [`JoinParams`] function.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JoinAttempt {
    /// The topic.
    pub topic: Topic,
    /// Which attempt this is since the topic was asked for, from 1.
    pub attempt: u32,
    /// Whether the channel has been joined before, so that the consumer may have missed
    /// messages.
    pub rejoin: bool,
}

/// The function of the join parameters panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the function of the join parameters panicked")]
pub struct ParamsPanicked;

type ParamsFn = dyn Fn(&JoinAttempt) -> Payload + Send + Sync;

/// The payload of `phx_join`: fixed, or made anew for each attempt.
///
/// A function serves what changes between attempts: a fresh token, the id of the last message
/// seen. The driver of a client calls it from its own task, so it should be quick; it holds nothing
/// meanwhile, so the function may take locks and call its client. When the topic is left, joined with
/// other parameters or disconnected in between, what it made is discarded. If it panics, its channel
/// ends with [`ChannelEnd::InvalidParams`](crate::event::ChannelEnd::InvalidParams), and is left if the
/// server still holds it; nothing else happens.
#[derive(Clone)]
pub struct JoinParams(Inner);

#[derive(Clone)]
enum Inner {
    Fixed(Payload),
    Function(Arc<ParamsFn>),
}

impl JoinParams {
    /// No parameters: `{}`.
    #[must_use]
    pub fn none() -> Self {
        Self(Inner::Fixed(Payload::empty()))
    }

    /// Parameters made by a function, once per attempt.
    ///
    /// ```
    /// use phx_proto::{JoinParams, Payload};
    /// use serde_json::json;
    ///
    /// let params = JoinParams::from_fn(|attempt| {
    ///     // After a gap the server need not send what was there before.
    ///     Payload::from(json!({"history": !attempt.rejoin}))
    /// });
    /// # let _ = params;
    /// ```
    ///
    /// A function that holds a handle of its own client keeps that client from closing by itself
    /// when the other handles are dropped.
    #[must_use]
    pub fn from_fn(function: impl Fn(&JoinAttempt) -> Payload + Send + Sync + 'static) -> Self {
        Self(Inner::Function(Arc::new(function)))
    }

    /// The payload for this attempt.
    pub(crate) fn payload(&self, attempt: &JoinAttempt) -> Result<Payload, ParamsPanicked> {
        match &self.0 {
            Inner::Fixed(payload) => Ok(payload.clone()),
            // A bug in the parameters of one channel must not take the others down.
            // Protocol: RETRY-6.
            Inner::Function(function) => {
                catch_unwind(AssertUnwindSafe(|| function(attempt))).map_err(|_| ParamsPanicked)
            }
        }
    }

    /// The payload, if it is known without an attempt.
    pub(crate) fn fixed(&self) -> Option<&Payload> {
        match &self.0 {
            Inner::Fixed(payload) => Some(payload),
            Inner::Function(_) => None,
        }
    }

    /// Whether two callers ask for the same: payloads that are equal as JSON, or clones of one function.
    ///
    /// A topic that is wanted with other parameters is not joined with these; see
    /// [`Socket::join_params`](crate::Socket::join_params).
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Inner::Fixed(one), Inner::Fixed(two)) => one.same_json(two),
            (Inner::Function(one), Inner::Function(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }
}

impl<T: Into<Payload>> From<T> for JoinParams {
    fn from(payload: T) -> Self {
        // Kept for as long as the topic is wanted, so it must not pin a read buffer.
        Self(Inner::Fixed(payload.into().into_compact()))
    }
}

impl fmt::Debug for JoinParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Fixed(payload) => f.debug_tuple("Fixed").field(payload).finish(),
            Inner::Function(_) => f.write_str("Function"),
        }
    }
}
