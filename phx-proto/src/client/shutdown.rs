//! Graceful shutdown: pushes are finished first, within a grace period.
//!
//! ```text
//!   shutdown ─▶ wait for pushes ─▶ leave every channel, wait ─▶ disconnect, wait ─▶ report
//!                     └── grace over ──┴──── grace over ──────────▲
//! ```

use core::future::poll_fn;
use core::time::Duration;

use super::client::Client;
use super::state::{Shared, State, apply};
use super::waiters::{Wait, WaiterId};
use crate::time::Time;
use crate::topic::Topic;

/// What [`Client::shutdown`] could not finish within the grace period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// The number of pushes without an outcome: waiting for space in the push queue, unsent, without a
    /// reply, or about to be repeated. They ended with the disconnect, each with its own outcome.
    pub pushes: usize,
    /// Topics whose leave the server had not confirmed.
    pub leaves: Vec<Topic>,
    /// The task of a supervised connection had not ended, because its executor does not poll it.
    pub running: bool,
}

impl Unfinished {
    /// Whether everything was finished.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pushes == 0 && self.leaves.is_empty() && !self.running
    }
}

impl Client {
    /// Shuts down gracefully. First it waits until every push, with its repeats, has its outcome.
    /// Then it leaves every channel and waits for the server to confirm. Then it
    /// [`disconnect`](Self::disconnect)s. The call takes at most `grace` plus
    /// [`Config::close_timeout`](crate::Config::close_timeout).
    ///
    /// While there is no connection it waits for one, as long as pushes are queued.
    ///
    /// Cancel safe: when the future is dropped, the remaining steps are skipped.
    pub async fn shutdown(&self, grace: Duration) -> Unfinished {
        let mut unfinished = Unfinished::default();
        self.shut_down(grace, &mut unfinished).await;
        unfinished
    }

    /// [`shutdown`](Self::shutdown), with a report that is complete before the connection is closed. The
    /// caller may stop waiting for the close, which needs a driver that is polled.
    pub(crate) async fn shut_down(&self, grace: Duration, unfinished: &mut Unfinished) {
        let shared = self.shared();
        let (until, id) = shared.command(|state, now| {
            let until = now + grace;
            (until, state.await_shutdown(until))
        });
        let mut grace_period = GracePeriod { shared, id, until };
        unfinished.pushes = grace_period
            .wait(|state| {
                let stats = state.socket.stats();
                stats.queued_pushes
                    + stats.pushes_in_flight
                    + state.repeats.waiting.len()
                    + state.waiting_for_space
            })
            .await;
        let topics = shared.command(|state, now| {
            let topics: Vec<Topic> =
                state.socket.channels().map(|(topic, _)| topic.clone()).collect();
            for topic in &topics {
                // This cannot fail: the topic was just listed, so it is wanted or being left.
                let _ = apply!(state, now, Leave { topic: topic.clone() });
                state.end_topic(topic, &crate::event::cause::ChannelEnd::Left);
            }
            topics
        });
        grace_period.wait(|state| state.socket.channels().count()).await;
        unfinished.leaves = shared.with_state(|state| {
            let left = |topic: &Topic| state.socket.channels().any(|(other, _)| other == topic);
            topics.into_iter().filter(left).collect()
        });
        drop(grace_period);
        self.disconnect().await;
    }
}

struct GracePeriod<'a> {
    shared: &'a Shared,
    id: WaiterId,
    until: Time,
}

impl GracePeriod<'_> {
    /// Waits until nothing remains or the grace period has passed. Returns what remains.
    async fn wait(&mut self, remains: impl Fn(&State) -> usize) -> usize {
        poll_fn(|cx| {
            let now = self.shared.now();
            self.shared.poll_waiter(cx, |state| {
                let remains = remains(state);
                let over = remains == 0 || now >= self.until || state.driver_gone;
                if over { Ok(remains) } else { Err(self.id) }
            })
        })
        .await
    }
}

impl Drop for GracePeriod<'_> {
    fn drop(&mut self) {
        drop(self.shared.with_state(|state| state.waiters.remove(self.id)));
    }
}

impl State {
    fn await_shutdown(&mut self, until: Time) -> WaiterId {
        let id = WaiterId::Shutdown(self.waiters.mint());
        self.waiters.register(id, Wait::Shutdown, None);
        self.waiters.arm(id, until);
        id
    }
}
