//! The ticket of a join whose parameters a function makes; `socket/ticket` issues and redeems it.

use core::fmt;

use crate::config::join_params::{JoinAttempt, JoinParams, ParamsPanicked};
use crate::id::ConnectionId;
use crate::wire::payload::Payload;

/// A join that is next and whose parameters a function makes.
#[derive(Clone)]
pub struct JoinTicket {
    pub(crate) connection: ConnectionId,
    /// Of the topic: another one after it was left and joined again.
    pub(crate) order: u64,
    pub(crate) attempt: JoinAttempt,
    /// Held, so that no other function can have its address.
    pub(crate) params: JoinParams,
}

impl JoinTicket {
    /// The attempt that the parameters are for.
    #[must_use]
    pub const fn attempt(&self) -> &JoinAttempt {
        &self.attempt
    }

    /// Calls the function.
    ///
    /// # Errors
    ///
    /// [`ParamsPanicked`], to be supplied as well: the channel ends then, and no other.
    pub fn evaluate(&self) -> Result<Payload, ParamsPanicked> {
        self.params.payload(&self.attempt)
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.connection, self.order) == (other.connection, other.order)
            && self.params.same(&other.params)
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
