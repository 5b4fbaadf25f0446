//! Join parameters: the payload of `phx_join`, fixed or computed for each attempt.

use core::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::topic::Topic;
use crate::wire::payload::Payload;

/// The join attempt for which a [`JoinParams`] function computes the payload.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JoinAttempt {
    /// The topic to join.
    pub topic: Topic,
    /// The number of this attempt since the application requested the topic, from 1.
    pub attempt: u32,
    /// Whether the channel was joined before, so that the consumer may have missed messages.
    pub rejoin: bool,
}

/// The join parameters function panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the join parameters function panicked")]
pub struct ParamsPanicked;

type ParamsFn = dyn Fn(&JoinAttempt) -> Payload + Send + Sync;

/// Adds something to a payload; `None` if that is not possible.
pub(crate) type ExtendFn = dyn Fn(Payload) -> Option<Payload> + Send + Sync;

/// The payload of `phx_join`: fixed, or computed for each attempt.
///
/// Use a function for values that change between attempts, such as a fresh token or the id of the last
/// message received. The driver calls the function on its own task, so it should be quick. The driver holds
/// no lock meanwhile, so the function may take locks and call its client. The result is discarded if
/// meanwhile the connection ended, or the topic was left or got other parameters. If the function panics,
/// its channel ends with [`ChannelEnd::InvalidParams`](crate::event::ChannelEnd::InvalidParams). If that
/// channel is still joined on the server, the client leaves it. Other channels are not affected.
#[derive(Clone)]
pub struct JoinParams(Inner);

#[derive(Clone)]
enum Inner {
    Fixed(Payload),
    Function(Arc<ParamsFn>),
    /// Other parameters, to which a function of this crate adds something for each attempt.
    #[cfg_attr(not(feature = "driver"), allow(dead_code, reason = "only the driver extends them"))]
    Extended {
        base: Box<JoinParams>,
        extend: Arc<ExtendFn>,
    },
}

impl JoinParams {
    /// Empty parameters: `{}`.
    #[must_use]
    pub fn none() -> Self {
        Self(Inner::Fixed(Payload::empty()))
    }

    /// Creates parameters from a function, which is called once for each attempt.
    ///
    /// ```
    /// use phx_proto::{JoinParams, Payload};
    /// use serde_json::json;
    ///
    /// let params = JoinParams::from_fn(|attempt| {
    ///     // After a reconnect the server need not send the history again.
    ///     Payload::from(json!({"history": !attempt.rejoin}))
    /// });
    /// # let _ = params;
    /// ```
    ///
    /// If the function owns a handle of its own client, that client does not close when the other
    /// handles are dropped.
    #[must_use]
    pub fn from_fn(function: impl Fn(&JoinAttempt) -> Payload + Send + Sync + 'static) -> Self {
        Self(Inner::Function(Arc::new(function)))
    }

    /// Computes the payload for an attempt.
    pub(crate) fn payload(&self, attempt: &JoinAttempt) -> Result<Payload, ParamsPanicked> {
        match &self.0 {
            Inner::Fixed(payload) => Ok(payload.clone()),
            // A panic in the parameters of one channel must not end the others.
            // Protocol: RETRY-6.
            Inner::Function(function) => {
                catch_unwind(AssertUnwindSafe(|| function(attempt))).map_err(|_| ParamsPanicked)
            }
            Inner::Extended { base, extend } => {
                extend(base.payload(attempt)?).ok_or(ParamsPanicked)
            }
        }
    }

    /// The same parameters, to which `extend` adds something for each attempt. Callers that share a topic
    /// do not see the difference: [`same`](Self::same) ignores the extension.
    #[cfg(feature = "driver")]
    pub(crate) fn extended(self, extend: Arc<ExtendFn>) -> Self {
        Self(Inner::Extended { base: Box::new(self.into_base()), extend })
    }

    /// The parameters without an extension.
    #[cfg(feature = "driver")]
    pub(crate) fn into_base(self) -> Self {
        match self.0 {
            Inner::Extended { base, .. } => *base,
            _ => self,
        }
    }

    /// Whether something is added to the parameters for each attempt.
    #[cfg(feature = "driver")]
    pub(crate) const fn is_extended(&self) -> bool {
        matches!(self.0, Inner::Extended { .. })
    }

    /// Other parameters, with the extension of these.
    #[cfg(feature = "driver")]
    pub(crate) fn rebased(&self, params: Self) -> Self {
        match &self.0 {
            Inner::Extended { extend, .. } => params.extended(Arc::clone(extend)),
            _ => params,
        }
    }

    fn base(&self) -> &Self {
        match &self.0 {
            Inner::Extended { base, .. } => base,
            _ => self,
        }
    }

    /// The payload, if it is fixed.
    pub(crate) fn fixed(&self) -> Option<&Payload> {
        match &self.0 {
            Inner::Fixed(payload) => Some(payload),
            Inner::Function(_) | Inner::Extended { .. } => None,
        }
    }

    /// Whether two parameters are the same: payloads that are equal as JSON, or clones of one function.
    ///
    /// Callers that join one topic share its parameters; see
    /// [`Socket::join_params`](crate::Socket::join_params).
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        match (&self.base().0, &other.base().0) {
            (Inner::Fixed(one), Inner::Fixed(two)) => one.same_json(two),
            (Inner::Function(one), Inner::Function(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }

    /// Whether two parameters are the same and have the same extension, so that one may be sent for the
    /// other.
    pub(crate) fn interchangeable(&self, other: &Self) -> bool {
        let extensions = match (&self.0, &other.0) {
            (Inner::Extended { extend: one, .. }, Inner::Extended { extend: two, .. }) => {
                Arc::ptr_eq(one, two)
            }
            (Inner::Extended { .. }, _) | (_, Inner::Extended { .. }) => false,
            _ => true,
        };
        extensions && self.same(other)
    }
}

impl<T: Into<Payload>> From<T> for JoinParams {
    fn from(payload: T) -> Self {
        // The parameters live as long as the topic is wanted, so they must not keep a read buffer alive.
        Self(Inner::Fixed(payload.into().into_compact()))
    }
}

impl fmt::Debug for JoinParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Fixed(payload) => f.debug_tuple("Fixed").field(payload).finish(),
            Inner::Function(_) => f.write_str("Function"),
            Inner::Extended { base, .. } => fmt::Debug::fmt(base, f),
        }
    }
}
