//! An orderly end: what was accepted is finished first, within a grace period.
//!
//! ```text
//!   shutdown ─▶ wait for pushes ─▶ leave every channel, wait ─▶ disconnect, wait ─▶ report
//!                     └── grace over ──┴──── grace over ──────────▲
//! ```

use core::future::poll_fn;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use super::client::Client;
use super::state::{Shared, State};
use crate::time::Time;
use crate::topic::Topic;

/// What [`Client::shutdown`] could not finish within the grace period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// Pushes that had not ended: unsent, or without their reply. They ended with the
    /// disconnect, each with its own outcome.
    pub pushes: usize,
    /// Topics whose leave the server had not confirmed.
    pub leaves: Vec<Topic>,
}

impl Unfinished {
    /// Whether everything was finished.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pushes == 0 && self.leaves.is_empty()
    }
}

impl Client {
    /// Ends in order: waits until every push has its outcome, leaves every channel and waits for
    /// the server to confirm, then [`disconnect`](Self::disconnect)s. Takes no longer than
    /// `grace` and [`Config::close_timeout`](crate::Config::close_timeout) together.
    ///
    /// While there is no connection it waits for one, as long as pushes are queued for it.
    ///
    /// Cancel safe: dropping the future leaves undone what was not done yet.
    pub async fn shutdown(&self, grace: Duration) -> Unfinished {
        let shared = self.shared();
        let (until, id) = shared.command(|state, now| {
            let until = now + grace;
            (until, state.add_patience(until))
        });
        let mut patience = Patience { shared, id, until };
        let pushes = patience
            .wait(|state| {
                let stats = state.socket.stats();
                stats.queued_pushes + stats.pushes_in_flight
            })
            .await;
        let topics = shared.command(|state, now| {
            let topics: Vec<Topic> =
                state.socket.channels().map(|(topic, _)| topic.clone()).collect();
            for topic in &topics {
                // It is wanted or being left: it was listed a moment ago.
                let _ = state.socket.leave(now, topic);
                state.end_topic(topic, &crate::event::cause::ChannelEnd::Left);
            }
            topics
        });
        patience.wait(|state| state.socket.channels().count()).await;
        let leaves = shared.peek(|state| {
            let left = |topic: &Topic| state.socket.channels().any(|(other, _)| other == topic);
            topics.into_iter().filter(left).collect()
        });
        drop(patience);
        self.disconnect().await;
        Unfinished { pushes, leaves }
    }
}

/// Somebody who waits for the core to have finished something, for so long.
pub(super) struct Patient {
    /// None once it has passed.
    until: Option<Time>,
    waker: Option<Waker>,
}

struct Patience<'a> {
    shared: &'a Shared,
    id: u64,
    until: Time,
}

impl Patience<'_> {
    /// Waits until nothing remains, or the time is up; what remains then.
    async fn wait(&mut self, remains: impl Fn(&State) -> usize) -> usize {
        poll_fn(|cx| {
            let now = self.shared.now();
            self.shared.peek(|state| {
                let remains = remains(state);
                if remains == 0 || now >= self.until || state.driver_gone {
                    return Poll::Ready(remains);
                }
                state.park_patient(self.id, cx);
                Poll::Pending
            })
        })
        .await
    }
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        self.shared.peek(|state| state.patients.remove(&self.id));
    }
}

impl State {
    fn add_patience(&mut self, until: Time) -> u64 {
        let id = self.mint();
        self.patients.insert(id, Patient { until: Some(until), waker: None });
        id
    }

    fn park_patient(&mut self, id: u64, cx: &Context<'_>) {
        if let Some(patient) = self.patients.get_mut(&id) {
            patient.waker = Some(cx.waker().clone());
        }
    }

    /// Something may have been finished.
    pub(super) fn wake_patients(&mut self) {
        for patient in self.patients.values_mut() {
            self.wakes.extend(patient.waker.take());
        }
    }

    /// When the first of them runs out of patience.
    pub(super) fn next_patience(&self) -> Option<Time> {
        self.patients.values().filter_map(|patient| patient.until).min()
    }

    /// Forgets the times that have passed, so that the timer is not set for them again; who
    /// waits is woken.
    pub(super) fn expire_patience(&mut self, now: Time) {
        for patient in self.patients.values_mut() {
            if patient.until.is_some_and(|until| until <= now) {
                patient.until = None;
                self.wakes.extend(patient.waker.take());
            }
        }
    }
}
