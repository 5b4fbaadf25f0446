//! Pushes that are pushed again with their idempotency key when their outcome is unknown.
//!
//! [`Repeat`] decides; this module carries out. Each step is one of the futures that other calls use:
//! a push, a wait for the join, a push that waits for space in the queue. Dropping the future drops
//! the step, which withdraws the attempt or ends the wait, and there is no further attempt.

use std::sync::Arc;

use super::capacity::push_when_ready;
use super::channel::{ChannelInner, push_and_wait, replied, wait_joined};
use super::error::{PushFailed, RepeatFailed};
use super::state::{Shared, State};
use crate::event::cause::{PushOutcome, Reply};
use crate::event::error::PushErrorKind;
use crate::event::repeat::RepeatOptions;
use crate::id::{InterestId, PushId};
use crate::socket::{AfterAttempt, Repeat};
use crate::time::Time;
use crate::wire::payload::Payload;

/// A reply, and how often its push was repeated.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Repeated {
    /// The reply of the server to the last attempt.
    pub reply: Reply,
    /// The number of times that the push was written again. Zero for a push whose first attempt was
    /// answered.
    pub repeats: u32,
}

/// Pushes until an attempt is answered, or until there is no further attempt.
pub(super) async fn push_repeating(
    inner: &ChannelInner,
    event: &str,
    payload: Payload,
    options: RepeatOptions,
) -> Result<Repeated, RepeatFailed> {
    let shared = inner.shared();
    let now = shared.now();
    // The key is checked outside the lock, because the payload may be large.
    let config = shared.with_state(|state| Arc::clone(&state.socket.config().options));
    let mut repeat = Repeat::new(now, payload, &options, &config)
        .map_err(|error| RepeatFailed::new(error.into(), 0))?;
    let mut attempts = Attempts { shared, interest: inner.interest(), push: None };
    let (first, options) = repeat.attempt(now);
    let ended = push_and_wait(shared, first, |state, now, payload| {
        let id = inner.accept(state, now, event, payload, options)?;
        attempts.accepted(state, id, &repeat);
        Ok(id)
    });
    let mut ended = ended.await.map_err(|failed| RepeatFailed::new(failed, 0))?;
    let outcome = loop {
        match repeat.ended(shared.now(), ended) {
            AfterAttempt::Ended(outcome) => break outcome,
            AfterAttempt::Again => {}
        }
        match next_attempt(inner, event, &repeat, &mut attempts).await {
            Some(next) => ended = next,
            None => break repeat.give_up(),
        }
    };
    let repeats = repeat.repeats();
    match replied(outcome) {
        Ok(reply) => Ok(Repeated { reply, repeats }),
        Err(failed) => Err(RepeatFailed::new(failed, repeats)),
    }
}

/// Waits for the join and pushes the next attempt. Returns its outcome, or `None` if there is no
/// further attempt: the channel or the connection ended, the deadline passed, or the push was not
/// accepted.
async fn next_attempt(
    inner: &ChannelInner,
    event: &str,
    repeat: &Repeat,
    attempts: &mut Attempts<'_>,
) -> Option<PushOutcome> {
    let (shared, until) = (inner.shared(), repeat.until());
    loop {
        wait_joined(inner, until.since(shared.now())).await.ok()?;
        let (payload, _) = repeat.attempt(shared.now());
        let (topic, interest) = (inner.topic(), inner.interest());
        let accept = |state: &mut State, now, payload| {
            let (_, options) = repeat.attempt(now);
            let id = inner.accept(state, now, event, payload, options)?;
            attempts.accepted(state, id, repeat);
            state.pushes_repeated += 1;
            Ok(id)
        };
        match push_when_ready(shared, (topic, interest), (until, true), payload, accept).await {
            Ok(outcome) => return Some(outcome),
            // The channel was interrupted between its join and the push.
            Err(PushFailed::NotAccepted(error)) if error.kind == PushErrorKind::NotJoined => {}
            Err(_) => return None,
        }
    }
}

/// The attempts of one push, for the count of pushes without an outcome.
struct Attempts<'a> {
    shared: &'a Shared,
    interest: InterestId,
    /// The latest attempt.
    push: Option<PushId>,
}

impl Attempts<'_> {
    /// Called when an attempt was accepted.
    fn accepted(&mut self, state: &mut State, id: PushId, repeat: &Repeat) {
        if let Some(earlier) = self.push.replace(id) {
            state.repeats.waiting.remove(&earlier);
        }
        state.repeats.pushes.insert(id, (self.interest, repeat.clone()));
    }
}

impl Drop for Attempts<'_> {
    fn drop(&mut self) {
        let Some(id) = self.push else { return };
        // A command wakes the futures of a shutdown, which count these pushes.
        self.shared.command(|state: &mut State, _: Time| {
            state.repeats.pushes.remove(&id);
            state.repeats.waiting.remove(&id);
        });
    }
}
