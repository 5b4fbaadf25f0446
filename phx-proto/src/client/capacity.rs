//! The lines of pushes that wait for space in the push queue: one line for each topic.
//!
//! ```text
//!   push_when_ready ─▶ first in its line? ─ yes ─▶ accepted ─▶ the push queue
//!         ▲                  │ no                     │ full
//!         │                  ▼                        ▼
//!         └── woken ◀── the line of its topic: one waiter for each future
//! ```
//!
//! The first waiter of each line is woken when there may be space: when a frame leaves the queue,
//! when a push ends, when a waiter leaves its line because its push was accepted or its future
//! was dropped, and when only one topic remains, which may use the whole queue. So a frame that
//! leaves the queue wakes one future for each topic, however many futures wait. When a channel ends,
//! every waiter in its line is woken.

use core::future::poll_fn;
use core::task::{Poll, Waker, ready};
use std::collections::BTreeSet;

use super::channel::PendingPush;
use super::error::PushFailed;
use super::state::{Shared, State};
use super::waiters::{Wait, Waiter, WaiterId};
use crate::event::cause::{NotSentCause, PushOutcome};
use crate::event::error::{PushError, PushErrorKind};
use crate::id::{InterestId, PushId};
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// Waits until the queue accepts the push, then waits for the outcome. If the queue has not accepted
/// it by `until`, the push was not sent in time. Dropping the future leaves the line or withdraws the
/// push.
pub(super) async fn push_when_ready(
    shared: &Shared,
    of: (&Topic, InterestId),
    (until, is_repeat): (Time, bool),
    payload: Payload,
    mut accept: impl FnMut(&mut State, Time, Payload) -> Result<PushId, PushError>,
) -> Result<PushOutcome, PushFailed> {
    // The core drops its reference to the payload under the lock. This reference lives longer, so
    // memory of the application is not freed under the lock.
    let _kept = payload.shared();
    let mut payload = Some(payload);
    let (topic, interest) = of;
    let mut place = Place { shared, topic, number: None };
    let mut pending = PendingPush { shared, id: None };
    poll_fn(|cx| {
        if let Some(id) = pending.id {
            let outcome = ready!(shared.poll_waiter(cx, |state| state.push_outcome(id)));
            pending.id = None;
            return Poll::Ready(Ok(outcome));
        }
        let offered = payload.take().unwrap_or_else(Payload::empty);
        // A waker that is not stored, and a waiter that leaves its line, are dropped after the lock
        // is released.
        let mut waker = Some(cx.waker().clone());
        let mut left = None;
        let accepted = shared.command(|state, now| {
            if now >= until {
                left = place.number.take().and_then(|number| state.leave_line(topic, number));
                return Err(Refused::Late(offered));
            }
            let goes_on = state.socket.is_interested(interest);
            if goes_on && state.is_behind_others(topic, place.number) {
                state.enter_line(of, &mut place.number, &mut waker, (until, is_repeat));
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
            // A payload that does not fit an empty queue never fits.
            if full && state.socket.stats().queued_pushes > 0 {
                state.enter_line(of, &mut place.number, &mut waker, (until, is_repeat));
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
            Err(Refused::Late(offered)) => {
                drop(offered);
                return Poll::Ready(Err(PushFailed::NotSent(NotSentCause::TimedOut)));
            }
        }
        // The stored waker is woken when there may be space, or when the outcome arrives. An
        // outcome that arrived while the push was accepted has woken it already.
        Poll::Pending
    })
    .await
}

/// The reason why a push was not accepted.
enum Refused {
    /// The push must wait, because the queue is full or other pushes of the topic are ahead of it.
    /// Holds the payload.
    Waits(Payload),
    ForGood(PushError),
    /// The time is over. Holds the payload, to be dropped after the lock is released.
    Late(Payload),
}

/// A place in the line of a topic; dropping it leaves the line.
struct Place<'a> {
    shared: &'a Shared,
    topic: &'a Topic,
    number: Option<u64>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        // A command wakes the futures of a shutdown, which count the pushes in lines.
        drop(self.shared.command(|state, _| state.leave_line(self.topic, number)));
    }
}

impl State {
    fn is_behind_others(&self, topic: &Topic, own: Option<u64>) -> bool {
        let first = self.lines.get(topic).and_then(BTreeSet::first).copied();
        first.is_some() && first != own
    }

    fn enter_line(
        &mut self,
        (topic, interest): (&Topic, InterestId),
        place: &mut Option<u64>,
        waker: &mut Option<Waker>,
        (until, is_repeat): (Time, bool),
    ) {
        let number = *place.get_or_insert_with(|| {
            let number = self.waiters.mint();
            let wait = Wait::Capacity { interest, counts: !is_repeat };
            self.waiters.register(WaiterId::Capacity(number), wait, None);
            self.waiting_for_space += usize::from(!is_repeat);
            self.lines.entry(topic.clone()).or_default().insert(number);
            if until != Time::MAX {
                self.waiters.arm(WaiterId::Capacity(number), until);
            }
            number
        });
        if let Some(waiter) = self.waiters.get_mut(WaiterId::Capacity(number)) {
            waiter.swap_waker(waker);
        }
    }

    /// Removes a waiter from its line and wakes the first waiter of each line. Returns the removed
    /// waiter, which the caller drops after the lock is released.
    #[must_use = "drop a waiter after the lock is released"]
    fn leave_line(&mut self, topic: &Topic, number: u64) -> Option<Waiter> {
        if let Some(line) = self.lines.get_mut(topic) {
            line.remove(&number);
            if line.is_empty() {
                self.lines.remove(topic);
            }
        }
        self.wake_lines();
        let waiter = self.waiters.remove(WaiterId::Capacity(number))?;
        if matches!(waiter.wait, Wait::Capacity { counts: true, .. }) {
            self.waiting_for_space -= 1;
        }
        Some(waiter)
    }

    /// Wakes the first waiter of each line, because there may be space in the queue.
    pub(super) fn wake_lines(&mut self) {
        for number in self.lines.values().filter_map(BTreeSet::first) {
            let waiter = self.waiters.get_mut(WaiterId::Capacity(*number));
            self.wakes.extend(waiter.and_then(Waiter::take_waker));
        }
    }

    /// Wakes the first waiter of each line if at most one topic remains, because the only topic may
    /// use the whole queue. Call this when a topic has ended.
    pub(super) fn wake_lines_of_last_topic(&mut self) {
        // A topic without a handle is not counted here, so this may wake a waiter for nothing.
        if self.topics.len() <= 1 {
            self.wake_lines();
        }
    }

    /// Called when a handle of a topic has ended, and with it the pushes of the handle that have no attempt.
    /// Wakes every waiter in the line of the topic. A shutdown does not wait until the futures of these
    /// pushes are polled.
    pub(super) fn end_waiting_pushes(&mut self, topic: &str) {
        for number in self.lines.get(topic).into_iter().flatten() {
            let Some(waiter) = self.waiters.get_mut(WaiterId::Capacity(*number)) else { continue };
            self.wakes.extend(waiter.take_waker());
            let Wait::Capacity { interest, counts } = &mut waiter.wait else { continue };
            if *counts && !self.socket.is_interested(*interest) {
                *counts = false;
                self.waiting_for_space -= 1;
            }
        }
        self.repeats.waiting.retain(|_, interest| self.socket.is_interested(*interest));
    }
}
