//! The push machine: from an accepted call to exactly one outcome.
//!
//! ```text
//!             channel joined, frame pulled          reply
//!   Queued ──────────────────────────────▶ Written ───────▶ Reply
//!     │  timeout, leave, close, give-up      │  timeout ───▶ TimedOut
//!     └────────────▶ NotSent                 │  no answer can come any more ──▶ Unknown
//!   either, withdrawn ──▶ Cancelled          └─ (a cast ends here: Written)
//! ```
//!
//! At most `pushes_in_flight_max` calls are Written; at that, further ones stay Queued, and [`held`]
//! keeps the order of their channels.
//!
//! A push keeps its [`PushId`](crate::PushId) for life. Its wire ref is minted when the frame is pulled, so
//! nothing that was waiting carries a ref of another connection, and nothing that may have been
//! written is ever written again. Replies are matched by ref alone (and topic): the join_ref of a
//! reply is null when the server knew no channel (`wire/push_unjoined_topic`). All pushes, and how one
//! is found, are in [`slab`].

pub(crate) mod abandoned;
pub(crate) mod held;
pub(crate) mod slab;
mod transitions;

use crate::event::cause::{NotSentCause, PushOutcome, UnknownCause};
use crate::event::input::PushOptions;
use crate::id::Ref;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// An accepted push without an outcome.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    pub(crate) topic: Topic,
    pub(crate) cast: bool,
    pub(crate) fail_fast: bool,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Queued(Payload),
    Written(Ref),
}

impl Push {
    #[inline(always)]
    pub(crate) fn queued(
        topic: Topic,
        mut payload: Payload,
        PushOptions { cast, fail_fast, .. }: PushOptions,
    ) -> Self {
        payload.make_own();
        Self { topic, cast, fail_fast, state: State::Queued(payload) }
    }

    /// Takes the payload to be written under `msg_ref`; none if it was taken.
    #[inline]
    pub(crate) fn write(&mut self, msg_ref: Ref) -> Option<Payload> {
        if self.is_written() {
            // Never twice.
            return None;
        }
        match core::mem::replace(&mut self.state, State::Written(msg_ref)) {
            State::Queued(payload) => Some(payload),
            State::Written(_) => None,
        }
    }

    #[inline]
    pub(crate) const fn is_written(&self) -> bool {
        self.written().is_some()
    }

    /// The ref it was written under.
    #[inline]
    pub(crate) const fn written(&self) -> Option<Ref> {
        match self.state {
            State::Queued(..) => None,
            State::Written(msg_ref) => Some(msg_ref),
        }
    }

    /// The bytes of its payload while it is queued, which is in [a buffer of our own](Payload::make_own).
    #[inline]
    pub(crate) fn queued_len(&self) -> usize {
        match &self.state {
            State::Queued(payload) => payload.len(),
            State::Written(_) => 0,
        }
    }

    /// The outcome when its channel or connection ends: what can be said depends on whether it
    /// may have reached the server.
    pub(crate) const fn outcome_at_end(
        &self,
        unknown: UnknownCause,
        not_sent: NotSentCause,
    ) -> PushOutcome {
        if self.is_written() {
            PushOutcome::Unknown(unknown)
        } else {
            PushOutcome::NotSent(not_sent)
        }
    }

    /// The outcome when its time is up.
    pub(crate) const fn outcome_at_timeout(&self) -> PushOutcome {
        if self.is_written() {
            PushOutcome::TimedOut
        } else {
            PushOutcome::NotSent(NotSentCause::TimedOut)
        }
    }
}
