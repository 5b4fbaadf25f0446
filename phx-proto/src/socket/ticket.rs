//! Join parameters that are made by a function, which the driver evaluates.
//!
//! ```text
//!   poll_step ──▶ Evaluate(ticket) ──▶ ticket.evaluate(), without a lock
//!                                                │
//!        the join is written ◀── current ── supply_join ── stale ──▶ discarded
//! ```
//!
//! A function of the application may take any time and any lock, so a driver that shares its
//! [`Socket`] calls it without holding a lock. Until the result is supplied, the socket does not
//! change: no ref is minted and no slot is used. A change in the meantime (a disconnect, a leave,
//! other parameters, another connection) makes the ticket stale, and its result is discarded.

use crate::config::join_params::{JoinAttempt, ParamsPanicked};
use crate::event::action::Action;
use crate::event::applied::Supplied;
use crate::event::ticket::JoinTicket;
use crate::socket::Socket;
use crate::socket::connection::live::Live;
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// The next step, from [`Socket::poll_step`].
///
/// The enum is exhaustive, like [`Action`], so that a driver cannot overlook a new variant.
#[derive(Clone, Debug)]
#[must_use = "a step must be carried out"]
pub enum Step {
    /// Carry out this action.
    Action(Action),
    /// Evaluate the parameters of the next join, and supply them with [`Socket::supply_join`].
    Evaluate(JoinTicket),
}

/// # Join parameters that are made by a function
impl Socket {
    /// Like [`poll_action`](Self::poll_action), but does not call functions of join parameters. It
    /// returns a ticket instead; the caller evaluates the ticket and [supplies](Self::supply_join)
    /// the result.
    ///
    /// Until the result is supplied, the next poll returns the same ticket, unless another step
    /// comes first.
    #[inline]
    pub fn poll_step(&mut self, now: Time) -> Option<Step> {
        let now = self.advance(now);
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(Step::Action(action));
            }
            if !self.has_frames() {
                return None;
            }
            if let Some(ticket) = self.next_ticket() {
                return Some(Step::Evaluate(ticket));
            }
            if let Some(action) = self.pull(now) {
                return Some(Step::Action(action));
            }
        }
    }

    /// Supplies the parameters of a ticket. They are used if [`poll_step`](Self::poll_step) would
    /// return this ticket now: no other step comes first, and connection, topic and function are
    /// the same.
    pub fn supply_join(
        &mut self,
        now: Time,
        ticket: &JoinTicket,
        params: Result<Payload, ParamsPanicked>,
    ) -> Supplied {
        let now = self.advance(now);
        let is_next = self.actions.is_empty()
            && self.has_frames()
            && self.next_ticket().is_some_and(|next| next.is_same(ticket));
        if !is_next {
            return Supplied::Stale;
        }
        let topic = &ticket.attempt.topic;
        match self.write_join(now, ticket.connection, topic, params) {
            Some(join) => Supplied::Join(join),
            None => Supplied::Ended,
        }
    }

    /// The ticket of the next join, if the join is the next frame and a function makes its
    /// parameters.
    #[inline]
    pub(super) fn next_ticket(&self) -> Option<JoinTicket> {
        let first = self.channels.first_due()?;
        self.ticket_of_first(first, self.connection.live()?)
    }

    fn ticket_of_first(&self, (order, topic): &(u64, Topic), live: &Live) -> Option<JoinTicket> {
        if live.heartbeat.is_owed() || !self.has_slot(live) {
            return None;
        }
        let want = self.wanted(topic).filter(|want| want.params.fixed().is_none())?;
        let attempt = JoinAttempt {
            topic: topic.clone(),
            attempt: want.attempts.saturating_add(1),
            rejoin: want.ever_joined,
        };
        let params = want.params.clone();
        Some(JoinTicket { connection: live.id, order: *order, attempt, params })
    }
}
