//! The supervision machine: whether and when a connection that ended is restarted.
//!
//! ```text
//!             ended                    restart after a delay
//!   Running ─────────▶ (policy) ──┬──────────────────────────▶ Running
//!                                 ├─▶ Stopped: it was closed, or the policy does not restart it
//!                                 └─▶ Exhausted: too many restarts within the window
//!
//!                 │ closed on request │ gave up                │ crashed
//!   ──────────────┼───────────────────┼────────────────────────┼─────────────
//!   Permanent     │ stopped           │ after `refused_after`  │ after `rejoin_after`
//!   Transient     │ stopped           │ stopped                │ after `rejoin_after`
//!   Temporary     │ stopped           │ stopped                │ stopped
//! ```
//!
//! A connection reconnects by itself. This machine decides what follows when the connection has
//! ended. A connection has *given up* if it used up its `max_retries`, or if a failure had a final
//! cause. By default it is then not restarted, because a restart would defeat the limit. A crash is a
//! panic in application code or in a transport.

use core::time::Duration;
use std::collections::VecDeque;

use crate::config::Options;
use crate::config::backoff::Backoff;
use crate::socket::rng::Rng;
use crate::time::Time;

/// The kinds of ends after which a connection is restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Restart {
    /// Restarts after crashes. The default.
    #[default]
    Transient,
    /// Restarts after giving up and after crashes.
    Permanent,
    /// Never restarts.
    Temporary,
}

/// Decides whether a connection is restarted after it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    pub(crate) restart: Restart,
    pub(crate) max_restarts: u32,
    pub(crate) within: Duration,
}

impl RestartPolicy {
    /// Makes a policy that restarts after these ends, at most 3 times in 5 s.
    #[must_use]
    pub const fn new(restart: Restart) -> Self {
        Self { restart, max_restarts: 3, within: Duration::from_secs(5) }
    }

    /// Sets the maximum number of restarts within a time window. If one more is needed, the
    /// connection stays ended. The default is 3 in 5 s.
    #[must_use]
    pub const fn intensity(mut self, max_restarts: u32, within: Duration) -> Self {
        self.max_restarts = max_restarts;
        self.within = within;
        self
    }

    /// The kinds of ends after which the connection is restarted.
    #[must_use]
    pub const fn kind(&self) -> Restart {
        self.restart
    }
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self::new(Restart::default())
    }
}

/// How a supervised connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// The connection was closed on request.
    Closed,
    /// The connection gave up: its retries are used up, or the cause of a failure was final.
    GaveUp,
    /// Application code or a transport panicked in the connection's task.
    Crashed,
}

/// The decision after the end of a supervised connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The connection is restarted after this delay.
    Restart {
        /// The time until the restart.
        delay: Duration,
    },
    /// The connection stays ended.
    Stop,
    /// The connection stays ended, because it was restarted too often within the window.
    Exhausted,
}

/// The supervision state of one connection.
///
/// ```
/// use phx_proto::Time;
/// use phx_proto::service::{Ending, Restart, RestartPolicy, Supervision, Verdict};
///
/// let mut supervision = Supervision::new(RestartPolicy::new(Restart::Transient), 7);
/// let verdict = supervision.ended(Time::ZERO, Ending::Crashed);
/// assert!(matches!(verdict, Verdict::Restart { .. }));
/// // Giving up is final, unless it is `Permanent`.
/// assert_eq!(supervision.ended(Time::from_millis(1_000), Ending::GaveUp), Verdict::Stop);
/// ```
#[derive(Clone, Debug)]
pub struct Supervision {
    policy: RestartPolicy,
    rng: Rng,
    after_giving_up: Backoff,
    after_crash: Backoff,
    /// The times of the restarts within the window.
    restarts: VecDeque<Time>,
    /// The number of restarts since the connection was last stable.
    attempts: u32,
    total: u64,
}

impl Supervision {
    /// Makes the state for a connection that is started for the first time. `seed` determines the
    /// jitter.
    #[must_use]
    pub fn new(policy: RestartPolicy, seed: u64) -> Self {
        let Options { refused_after, rejoin_after, .. } = Options::default();
        Self {
            policy,
            rng: Rng::new(seed),
            after_giving_up: refused_after,
            after_crash: rejoin_after,
            restarts: VecDeque::new(),
            attempts: 0,
            total: 0,
        }
    }

    /// Resets the delays. Call it when the connection was open for long enough to count as stable.
    pub const fn stable(&mut self) {
        self.attempts = 0;
    }

    /// The number of restarts so far.
    #[must_use]
    pub const fn restarts(&self) -> u64 {
        self.total
    }

    /// Decides what follows when the connection has ended at `now`.
    pub fn ended(&mut self, now: Time, ending: Ending) -> Verdict {
        let backoff = match (self.policy.restart, ending) {
            (_, Ending::Closed) | (Restart::Temporary, _) => return Verdict::Stop,
            (Restart::Transient, Ending::GaveUp) => return Verdict::Stop,
            (Restart::Permanent, Ending::GaveUp) => &self.after_giving_up,
            (Restart::Permanent | Restart::Transient, Ending::Crashed) => &self.after_crash,
        };
        let attempt = self.attempts.saturating_add(1);
        let delay = self.rng.draw(backoff.range(attempt));
        let at = now + delay;
        while self.restarts.front().is_some_and(|first| at.since(*first) > self.policy.within) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= usize::try_from(self.policy.max_restarts).unwrap_or(usize::MAX) {
            return Verdict::Exhausted;
        }
        self.attempts = attempt;
        self.total += 1;
        self.restarts.push_back(at);
        Verdict::Restart { delay }
    }
}
