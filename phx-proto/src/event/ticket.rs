//! The ticket of a join whose parameters a function computes; `socket/ticket` issues and redeems it.

use core::fmt;

use crate::config::join_params::{JoinAttempt, JoinParams, ParamsPanicked};
use crate::id::ConnectionId;
use crate::wire::payload::Payload;

/// A join that is due and whose parameters a function computes.
#[derive(Clone)]
pub struct JoinTicket {
    pub(crate) connection: ConnectionId,
    /// Identifies the channel. It changes when the topic is left and joined again.
    pub(crate) order: u64,
    pub(crate) attempt: JoinAttempt,
    /// Keeps the function alive, so that no other function can have the same address.
    pub(crate) params: JoinParams,
}

impl JoinTicket {
    /// The attempt for which the parameters are computed.
    #[must_use]
    pub const fn attempt(&self) -> &JoinAttempt {
        &self.attempt
    }

    /// Calls the function and returns the parameters.
    ///
    /// # Errors
    ///
    /// [`ParamsPanicked`] if the function panicked. Pass this error to
    /// [`Socket::supply_join`](crate::Socket::supply_join), as you would pass the parameters: it ends only
    /// this channel.
    pub fn evaluate(&self) -> Result<Payload, ParamsPanicked> {
        self.params.payload(&self.attempt)
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.connection, self.order) == (other.connection, other.order)
            && self.params.interchangeable(&other.params)
    }
}

impl fmt::Debug for JoinTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection, order, attempt, .. } = self;
        f.debug_struct("JoinTicket")
            .field("connection", connection)
            .field("order", order)
            .field("attempt", attempt)
            .finish_non_exhaustive()
    }
}
