//! The push machine: from an accepted push to exactly one outcome.
//!
//! ```text
//!             channel joined, frame pulled          reply
//!   Queued ──────────────────────────────▶ Written ───────▶ Reply
//!     │  timeout, leave, close, give-up      │  timeout ───▶ TimedOut
//!     └────────────▶ NotSent                 │  no reply can arrive any more ─▶ Unknown
//!   either, withdrawn ──▶ Cancelled          └─ (a cast ends here: Written)
//! ```
//!
//! [`Push`] is the machine. At most `pushes_in_flight_max` calls are Written; at the limit further
//! calls stay Queued, and the [`lane`] keeps the order within their channels. A push that may still
//! be answered after its outcome is [`abandoned`]. A push that is pushed again with its idempotency
//! key is a series of such pushes, and [`repeat`] decides about the next one.
//!
//! A push keeps its [`PushId`](crate::PushId) until its outcome. Its wire ref is minted when the
//! frame is pulled, so a queued push never has a ref of another connection, and a push that may
//! have been written is never written again. Replies are matched by ref and topic only: the
//! join_ref of a reply is null when the server found no channel (`wire/push_unjoined_topic`). The
//! table of all pushes and its indexes are in [`slab`].

pub(crate) mod abandoned;
mod commands;
pub(crate) mod held;
pub(crate) mod lane;
pub(crate) mod repeat;
pub(crate) mod slab;

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

    /// Takes the payload to write under `msg_ref`; `None` if the push was already written.
    #[inline]
    pub(crate) fn write(&mut self, msg_ref: Ref) -> Option<Payload> {
        if self.is_written() {
            // Protocol: PUSH-4.
            // A push is never written twice.
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

    /// The ref that the push was written under.
    #[inline]
    pub(crate) const fn written(&self) -> Option<Ref> {
        match self.state {
            State::Queued(..) => None,
            State::Written(msg_ref) => Some(msg_ref),
        }
    }

    /// The bytes of the payload while the push is queued. The payload is in [its own
    /// buffer](Payload::make_own).
    #[inline]
    pub(crate) fn queued_len(&self) -> usize {
        match &self.state {
            State::Queued(payload) => payload.len(),
            State::Written(_) => 0,
        }
    }

    /// The outcome when the channel or the connection ends. It depends on whether the push may have
    /// reached the server.
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

    /// The outcome when the push times out.
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

    fn queued(options: PushOptions) -> Push {
        Push::queued(Topic::from("room:a"), Payload::from(serde_json::json!({"n": 1})), options)
    }

    /// Each row of the diagram: the outcome depends on whether the push was written.
    #[test]
    fn outcome_depends_on_being_written() {
        let mut push = queued(PushOptions::call());
        let end = |push: &Push| {
            push.outcome_at_end(UnknownCause::Disconnected, NotSentCause::Disconnected)
        };
        assert_eq!((push.is_written(), push.queued_len()), (false, 7));
        assert_eq!(push.outcome_at_timeout(), PushOutcome::NotSent(NotSentCause::TimedOut));
        assert_eq!(end(&push), PushOutcome::NotSent(NotSentCause::Disconnected));
        assert_eq!(push.write(Ref(5)).map(|payload| payload.len()), Some(7));
        assert_eq!((push.written(), push.queued_len()), (Some(Ref(5)), 0));
        assert_eq!(push.outcome_at_timeout(), PushOutcome::TimedOut);
        assert_eq!(end(&push), PushOutcome::Unknown(UnknownCause::Disconnected));
    }

    #[test]
    fn push_is_written_once() {
        let mut push = queued(PushOptions::cast());
        assert!(push.cast && !push.fail_fast);
        assert!(push.write(Ref(5)).is_some());
        assert!(push.write(Ref(6)).is_none());
        assert_eq!(push.written(), Some(Ref(5)));
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;

    impl Push {
        pub(crate) fn canonical(&self, form: &mut Form<'_>) {
            let Self { topic, cast, fail_fast, state } = self;
            form.text(topic);
            form.flag(*cast);
            form.flag(*fail_fast);
            match state {
                // The payload is omitted: in a world it is the id of the push, which the form
                // already contains.
                State::Queued(_) => form.number(0),
                State::Written(msg_ref) => {
                    form.number(1);
                    form.msg_ref(*msg_ref);
                }
            }
        }
    }
}
