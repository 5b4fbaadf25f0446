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
//! A push keeps its [`PushId`] for life. Its wire ref is minted when the frame is pulled, so
//! nothing that was waiting carries a ref of another connection, and nothing that may have been
//! written is ever written again. Replies are matched by ref alone (and topic): the join_ref of a
//! reply is null when the server knew no channel (`wire/push_unjoined_topic`).

use core::time::Duration;

use crate::cause::{NotSentCause, PushOutcome, UnknownCause};
use crate::id::{PushId, Ref};
use crate::payload::Payload;
use crate::table::Table;
use crate::topic::Topic;

/// How a push is made.
///
/// ```
/// use core::time::Duration;
/// use phx_proto::PushOptions;
///
/// let patient = PushOptions::call().timeout(Duration::from_secs(60));
/// let eager = PushOptions::cast().fail_fast();
/// assert_ne!(patient, eager);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushOptions {
    pub(crate) cast: bool,
    pub(crate) fail_fast: bool,
    pub(crate) timeout: Option<Duration>,
}

impl PushOptions {
    /// A push that ends with the server's reply.
    #[must_use]
    pub const fn call() -> Self {
        Self { cast: false, fail_fast: false, timeout: None }
    }

    /// A push that ends when it is written; a reply is ignored.
    #[must_use]
    pub const fn cast() -> Self {
        Self { cast: true, fail_fast: false, timeout: None }
    }

    /// How long it may take, from the call to its outcome, in place of
    /// [`Config::push_timeout`](crate::Config::push_timeout).
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Refuses the push at once when the channel is not joined, and ends it unsent when the
    /// channel is interrupted before it was written. By default it waits for the join, through
    /// disconnects too, until its timeout.
    #[must_use]
    pub const fn fail_fast(mut self) -> Self {
        self.fail_fast = true;
        self
    }
}

impl Default for PushOptions {
    fn default() -> Self {
        Self::call()
    }
}

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
    Queued(Box<str>, Payload),
    Written(Ref),
}

/// All pushes without an outcome.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pushes {
    all: Table<PushId, Push>,
    by_ref: Table<Ref, PushId>,
    queued_bytes: usize,
}

impl Pushes {
    pub(crate) fn queued(&self) -> usize {
        self.all.len() - self.by_ref.len()
    }

    pub(crate) const fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.by_ref.len()
    }

    pub(crate) fn insert(
        &mut self,
        id: PushId,
        topic: Topic,
        event: &str,
        payload: Payload,
        options: PushOptions,
    ) {
        self.queued_bytes += payload.len();
        let state = State::Queued(event.into(), payload);
        let PushOptions { cast, fail_fast, .. } = options;
        self.all.insert(id, Push { topic, cast, fail_fast, state });
    }

    pub(crate) fn get(&self, id: PushId) -> Option<&Push> {
        self.all.get(&id)
    }

    pub(crate) fn by_ref(&self, msg_ref: Ref) -> Option<PushId> {
        self.by_ref.get(&msg_ref).copied()
    }

    /// Takes the event and the payload of a queued push to be written under `msg_ref`.
    pub(crate) fn write(&mut self, id: PushId, msg_ref: Ref) -> Option<(Box<str>, Payload)> {
        let push = self.all.get_mut(&id)?;
        match core::mem::replace(&mut push.state, State::Written(msg_ref)) {
            State::Queued(event, payload) => {
                self.queued_bytes -= payload.len();
                self.by_ref.insert(msg_ref, id);
                Some((event, payload))
            }
            written @ State::Written(_) => {
                // Never twice: put back what was there.
                push.state = written;
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, id: PushId) -> Option<Push> {
        let push = self.all.remove(&id)?;
        match &push.state {
            State::Queued(_, payload) => self.queued_bytes -= payload.len(),
            State::Written(msg_ref) => {
                self.by_ref.remove(msg_ref);
            }
        }
        Some(push)
    }
}

impl Push {
    pub(crate) const fn is_written(&self) -> bool {
        matches!(self.state, State::Written(_))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_for_a_push_does_not_grow() {
        let size = size_of::<(PushId, Push)>();
        assert!(size <= 96, "{size} bytes");
    }
}
