//! The supervision machine: when is a connection that ended started again?
//!
//! ```text
//!             ended                    restart after a delay
//!   Running ─────────▶ (policy) ──┬──────────────────────────▶ Running
//!                                 ├─▶ Stopped: it was to end, or the policy lets it be
//!                                 └─▶ Exhausted: too many restarts in too short a time
//!
//!                 │ closed on request │ gave up                │ crashed
//!   ──────────────┼───────────────────┼────────────────────────┼─────────────
//!   Permanent     │ stopped           │ after `refused_after`  │ after `rejoin_after`
//!   Transient     │ stopped           │ stopped                │ after `rejoin_after`
//!   Temporary     │ stopped           │ stopped                │ stopped
//! ```
//!
//! A connection reconnects by itself; this is about what is left when it does not any more. One
//! that spent its `max_retries` has *given up*, and by default that is final: a supervisor that
//! restarted it at once would make the limit mean nothing. A crash is a panic in the
//! application's own code.

use core::time::Duration;
use std::collections::VecDeque;

use crate::config::Options;
use crate::config::backoff::Backoff;
use crate::socket::rng::Rng;
use crate::time::Time;

/// Which ends are followed by a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Restart {
    /// Crashes. The default.
    #[default]
    Transient,
    /// Giving up and crashes.
    Permanent,
    /// None.
    Temporary,
}

/// When a connection is started again after it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    pub(crate) restart: Restart,
    pub(crate) max_restarts: u32,
    pub(crate) within: Duration,
}

impl RestartPolicy {
    /// Restarts after these ends, at most 3 times in 5 s.
    #[must_use]
    pub const fn new(restart: Restart) -> Self {
        Self { restart, max_restarts: 3, within: Duration::from_secs(5) }
    }

    /// How many restarts are allowed within how long. One more, and the connection stays ended.
    /// Default: 3 in 5 s.
    #[must_use]
    pub const fn intensity(mut self, max_restarts: u32, within: Duration) -> Self {
        self.max_restarts = max_restarts;
        self.within = within;
        self
    }

    /// Which ends are followed by a restart.
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
    /// It was closed on request.
    Closed,
    /// It gave up: its retries are spent, or the server's refusal was final.
    GaveUp,
    /// The application's own code panicked in it.
    Crashed,
}

/// What follows the end of a supervised connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It is started again after this delay.
    Restart {
        /// The delay.
        delay: Duration,
    },
    /// It stays ended.
    Stop,
    /// It stays ended, because it was restarted too often in too short a time.
    Exhausted,
}

/// The restarts of one connection.
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
    /// When it was restarted, as far as that counts.
    restarts: VecDeque<Time>,
    /// Restarts since it last was stable.
    attempts: u32,
    total: u64,
}

impl Supervision {
    /// A connection that is being started for the first time. `seed` decides the jitter.
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

    /// The connection was open for long enough to call it stable: delays start over.
    pub const fn stable(&mut self) {
        self.attempts = 0;
    }

    /// How often it was restarted so far.
    #[must_use]
    pub const fn restarts(&self) -> u64 {
        self.total
    }

    /// The connection ended at `now`.
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
