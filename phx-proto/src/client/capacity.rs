//! Pushes that wait until the push queue has space for them.
//!
//! ```text
//!   push_when_ready ─▶ first of its line? ─ yes ─▶ accepted ─▶ the push queue
//!         ▲                  │ no                     │ full
//!         │                  ▼                        ▼
//!         └── woken ◀── the line of its topic: one waiter for each future
//! ```
//!
//! The first of each line is woken when a frame leaves the queue, when a push ends, and when the channel
//! ends. One that is accepted, or gives up, wakes the next. So a frame that leaves wakes one future for
//! each topic, however many wait.

use core::future::poll_fn;
use core::task::{Poll, Waker, ready};
use std::collections::BTreeSet;

use super::channel::PendingPush;
use super::error::PushFailed;
use super::state::{Shared, State};
use super::waiters::{Wait, Waiter, WaiterId};
use crate::event::cause::PushOutcome;
use crate::event::error::{PushError, PushErrorKind};
use crate::id::{InterestId, PushId};
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// Pushes once the queue takes it, and waits for the outcome; leaves the line, or withdraws the push, when
/// the future is dropped before that.
pub(super) async fn push_when_ready(
    shared: &Shared,
    topic: &Topic,
    interest: InterestId,
    payload: Payload,
    mut accept: impl FnMut(&mut State, Time, Payload) -> Result<PushId, PushError>,
) -> Result<PushOutcome, PushFailed> {
    // The core drops its payload under the lock, so that must not be the last one of memory
    // that the application owns. This one outlives it.
    let _kept = payload.shared();
    let mut payload = Some(payload);
    let mut place = Place { shared, topic, number: None };
    let mut pending = PendingPush { shared, id: None };
    poll_fn(|cx| {
        if let Some(id) = pending.id {
            let outcome = ready!(shared.poll_waiter(cx, |state| state.push_outcome(id)));
            pending.id = None;
            return Poll::Ready(Ok(outcome));
        }
        let offered = payload.take().unwrap_or_else(Payload::empty);
        // What is left in these is dropped after the lock.
        let mut waker = Some(cx.waker().clone());
        let mut left = None;
        let accepted = shared.command(|state, now| {
            let goes_on = state.socket.is_interested(interest);
            if goes_on && state.others_are_first(topic, place.number) {
                state.stand_in_line(topic, &mut place.number, &mut waker);
                return Err(Refused::Waits(offered));
            }
            let error = match accept(state, now, offered) {
                Ok(id) => {
                    state.await_push(id, waker.take());
                    left = place.number.take().and_then(|number| state.leave_line(topic, number));
                    return Ok(id);
                }
                Err(error) => error,
            };
            let full = matches!(error.kind, PushErrorKind::QueueFull { .. });
            // What does not fit an empty queue never will.
            if full && state.socket.stats().queued_pushes > 0 {
                state.stand_in_line(topic, &mut place.number, &mut waker);
                return Err(Refused::Waits(error.payload));
            }
            left = place.number.take().and_then(|number| state.leave_line(topic, number));
            Err(Refused::ForGood(error))
        });
        drop(left);
        match accepted {
            Ok(id) => pending.id = Some(id),
            Err(Refused::Waits(offered)) => payload = Some(offered),
            Err(Refused::ForGood(error)) => return Poll::Ready(Err(error.into())),
        }
        // Woken when the outcome is there, which may be already, or when there may be space.
        Poll::Pending
    })
    .await
}

/// Why a push was not accepted.
enum Refused {
    /// The queue is full, or others wait before it.
    Waits(Payload),
    ForGood(PushError),
}

/// A place in the line of a topic; left when the future is dropped.
struct Place<'a> {
    shared: &'a Shared,
    topic: &'a Topic,
    number: Option<u64>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        drop(self.shared.peek(|state| state.leave_line(self.topic, number)));
    }
}

impl State {
    fn others_are_first(&self, topic: &Topic, own: Option<u64>) -> bool {
        let first = self.lines.get(topic).and_then(BTreeSet::first).copied();
        first.is_some() && first != own
    }

    fn stand_in_line(&mut self, topic: &Topic, place: &mut Option<u64>, waker: &mut Option<Waker>) {
        let number = *place.get_or_insert_with(|| {
            let number = self.waiters.mint();
            self.waiters.register(WaiterId::Capacity(number), Wait::Capacity, None);
            self.lines.entry(topic.clone()).or_default().insert(number);
            number
        });
        if let Some(waiter) = self.waiters.get_mut(WaiterId::Capacity(number)) {
            waiter.swap_waker(waker);
        }
    }

    /// Takes a waiter out of its line, for the caller to drop after the lock, and wakes the next.
    #[must_use = "a waiter is dropped after the lock"]
    fn leave_line(&mut self, topic: &Topic, number: u64) -> Option<Waiter> {
        if let Some(line) = self.lines.get_mut(topic) {
            line.remove(&number);
            if line.is_empty() {
                self.lines.remove(topic);
            }
        }
        self.wake_lines();
        self.waiters.remove(WaiterId::Capacity(number))
    }

    /// Wakes the first of each line: there may be space in the queue.
    pub(super) fn wake_lines(&mut self) {
        for number in self.lines.values().filter_map(BTreeSet::first) {
            let waiter = self.waiters.get_mut(WaiterId::Capacity(*number));
            self.wakes.extend(waiter.and_then(Waiter::take_waker));
        }
    }

    /// Wakes everyone in the line of a topic: a handle of it is done.
    pub(super) fn wake_line(&mut self, topic: &str) {
        for number in self.lines.get(topic).into_iter().flatten() {
            let waiter = self.waiters.get_mut(WaiterId::Capacity(*number));
            self.wakes.extend(waiter.and_then(Waiter::take_waker));
        }
    }
}
