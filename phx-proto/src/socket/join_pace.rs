//! The join pace: how fast joins are written to a server that limits them.
//!
//! Some servers limit joins by closing the connection (supabase/realtime#1691). A client that joins
//! all its topics at once after every reconnect is then closed each time.
//!
//! ```text
//!              the peer closed within 2 s of a join, twice in a row
//!   Unpaced ───────────────────────────────────────────────────────▶ Paced: half of the rate
//!      ▲                                                             that was answered
//!      │                                                               │ ▲ │
//!      │                        every join answered, and 2 s passed    │ │ │ closed in the same way:
//!      └── faster than one a millisecond ◀── 1.5 times the rate ◀──────┘ └─┘ half of that rate
//! ```
//!
//! The machine counts the connections in a row that the peer ended within 2 s of a join. The first
//! such connection changes nothing, because the end of a server that restarts looks the same. A connection
//! without joins is ignored. A connection that ended in another way (by the client, without a close
//! frame, or later than 2 s after the last join) resets the count. So does a burst that succeeded: all its
//! joins were answered, and 2 s passed before the next join. After the second counted connection,
//! and after each one while joins are paced, joins are written at half the rate of the last burst, or at
//! half the present rate if that is lower. A burst is a series of joins less than 2 s apart; its rate is
//! the number of answered joins divided by the time from its first join to the end of the connection.
//!
//! The pace is kept across connections. A `connect` that starts over resets it. Its deadline
//! belongs to one connection.

use core::time::Duration;

use crate::time::{Time, nanos};

/// If a connection ends within this time after a join, the join counts as the cause.
const SOON: Duration = Duration::from_secs(2);

/// The bounds of the time between two joins. When the time falls below the lower bound, pacing
/// ends. The upper bound exists because a server that closes connections for another reason may look
/// like one that limits joins, and a thousand channels should still be joined within minutes.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(250);

/// The rate at which joins are written.
#[derive(Clone, Debug, Default)]
pub(crate) struct JoinPace {
    /// The number of connections in a row that the peer closed soon after a join.
    cuts: u32,
    /// The time from one join to the next; `None` without pacing.
    gap: Option<Duration>,
    burst: Option<Burst>,
    /// The time of the next join, until it has passed.
    wait: Option<Time>,
}

/// Joins of one connection that are less than 2 s apart.
#[derive(Clone, Debug)]
struct Burst {
    first: Time,
    last: Time,
    answered: u32,
}

impl JoinPace {
    /// The time at which the next join may be written; `None` means at once.
    pub(crate) fn next(&self) -> Option<Time> {
        Some(self.burst.as_ref()?.last + self.gap?)
    }

    /// Records a join that is written. With `idle`, no join was unanswered before it.
    pub(crate) fn written(&mut self, now: Time, idle: bool) {
        if idle {
            self.succeed(now);
        }
        if self.is_over(now) {
            self.burst = None;
        }
        let burst = self.burst.get_or_insert(Burst { first: now, last: now, answered: 0 });
        burst.last = now;
        self.wait = self.next().or(self.wait);
    }

    /// The deadline after which the next join may be written.
    pub(crate) const fn deadline(&self) -> Option<Time> {
        self.wait
    }

    /// Removes the deadline, which has passed.
    pub(crate) const fn clear_wait(&mut self) {
        self.wait = None;
    }

    /// Counts a join that was answered, with ok or not.
    pub(crate) fn answered(&mut self) {
        if let Some(burst) = &mut self.burst {
            burst.answered = burst.answered.saturating_add(1);
        }
    }

    /// Records the end of the connection. With `idle`, no join was due or unanswered.
    pub(crate) fn ended(&mut self, now: Time, by_peer: bool, idle: bool) {
        self.wait = None;
        if idle {
            self.succeed(now);
        }
        let Some(burst) = self.burst.take() else { return };
        if !by_peer || now.since(burst.last) > SOON {
            self.cuts = 0;
            return;
        }
        self.cuts = self.cuts.saturating_add(1);
        if self.cuts >= 2 || self.gap.is_some() {
            let answered = now.since(burst.first) / burst.answered.max(1);
            let gap = answered.max(self.gap.unwrap_or_default()).saturating_mul(2);
            self.gap = Some(gap.clamp(SHORTEST, LONGEST));
        }
    }

    /// Whether there was a burst that is over.
    fn is_over(&self, now: Time) -> bool {
        self.burst.as_ref().is_some_and(|burst| now.since(burst.last) > SOON)
    }

    /// If the last burst is over, counts it as a success: all its joins were answered, and the
    /// server kept the connection.
    fn succeed(&mut self, now: Time) {
        if !self.is_over(now) {
            return;
        }
        self.burst = None;
        self.cuts = 0;
        let faster = |gap| Duration::from_nanos(nanos(gap) / 3 * 2);
        self.gap = self.gap.map(faster).filter(|gap| *gap >= SHORTEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    /// A connection with joins every millisecond from `at` on. All are answered, and the peer ends
    /// the connection at `end`.
    fn cut(pace: &mut JoinPace, at: u64, joins: u32, end: u64) {
        for nth in 0..joins {
            pace.written(ms(at + u64::from(nth)), nth == 0);
            pace.answered();
        }
        pace.ended(ms(end), true, false);
    }

    #[test]
    fn second_cut_paces_at_half_rate() {
        let mut pace = JoinPace::default();
        cut(&mut pace, 0, 10, 100);
        assert_eq!(pace.gap, None, "a single loss changes nothing");
        cut(&mut pace, 1_000, 10, 1_100);
        assert_eq!(pace.gap, Some(Duration::from_millis(20)), "10 in 100 ms, and half of that");
        assert_eq!(pace.next(), None, "the first join of a connection waits for nothing");
        pace.written(ms(5_000), true);
        assert_eq!(pace.next(), Some(ms(5_020)));
        // The rate never increases after a cut, even if the connection ended after a short time.
        pace.answered();
        pace.ended(ms(5_001), true, false);
        assert_eq!(pace.gap, Some(Duration::from_millis(40)));
    }

    #[test]
    fn deadline_ends_with_time_or_connection() {
        let gap = Some(Duration::from_millis(50));
        let mut pace = JoinPace { gap, ..JoinPace::default() };
        assert_eq!(pace.deadline(), None);
        pace.written(ms(0), true);
        assert_eq!(pace.deadline(), Some(ms(50)));
        pace.clear_wait();
        assert_eq!((pace.deadline(), pace.next()), (None, Some(ms(50))));
        pace.written(ms(60), false);
        assert_eq!(pace.deadline(), Some(ms(110)));
        pace.ended(ms(70), false, false);
        assert_eq!(pace.deadline(), None);
        let mut ends = JoinPace { gap: Some(SHORTEST), ..JoinPace::default() };
        ends.written(ms(0), true);
        ends.written(ms(10_000), true);
        assert_eq!((ends.next(), ends.deadline()), (None, Some(ms(1))), "until it passes");
        let mut unpaced = JoinPace::default();
        unpaced.written(ms(0), true);
        assert_eq!(unpaced.deadline(), None);
    }

    #[test]
    fn other_ends_reset_the_count() {
        type End = fn(&mut JoinPace);
        let ends: [End; 3] = [
            |pace| pace.ended(ms(1_000), false, false),
            |pace| pace.ended(ms(3_010), true, false),
            |pace| pace.ended(ms(3_010), true, true),
        ];
        for end in ends {
            let mut pace = JoinPace::default();
            cut(&mut pace, 0, 10, 100);
            pace.written(ms(1_000), true);
            end(&mut pace);
            cut(&mut pace, 9_000, 10, 9_100);
            assert_eq!(pace.gap, None);
        }
        // A connection without joins is ignored.
        let mut pace = JoinPace::default();
        cut(&mut pace, 0, 10, 100);
        pace.ended(ms(1_000), true, true);
        cut(&mut pace, 2_000, 10, 2_100);
        assert!(pace.gap.is_some());
    }

    #[test]
    fn success_increases_rate_until_unpaced() {
        let mut pace = JoinPace { gap: Some(Duration::from_millis(2)), ..JoinPace::default() };
        pace.written(ms(0), true);
        pace.written(ms(2), false);
        pace.answered();
        pace.ended(ms(2_002), false, true);
        assert_eq!(pace.gap, Some(Duration::from_millis(2)), "the burst is not over");
        pace.written(ms(10_000), true);
        pace.ended(ms(12_001), false, false);
        assert_eq!(pace.gap, Some(Duration::from_millis(2)), "not all were answered");
        pace.written(ms(20_000), true);
        pace.written(ms(22_001), true);
        assert_eq!(pace.gap, Some(Duration::from_nanos(1_333_332)), "on the same connection");
        pace.ended(ms(30_000), true, true);
        assert_eq!(pace.gap, None);
    }

    #[test]
    fn paced_connection_needs_one_cut_only() {
        let gap = Some(Duration::from_millis(50));
        let mut pace = JoinPace { gap, ..JoinPace::default() };
        cut(&mut pace, 0, 10, 100);
        assert_eq!(pace.gap, Some(Duration::from_millis(100)));
    }

    /// The time between two bursts does not affect the rate of the second.
    #[test]
    fn burst_ends_after_a_pause() {
        for idle in [true, false] {
            let mut pace = JoinPace { cuts: 1, ..JoinPace::default() };
            pace.written(ms(0), true);
            pace.written(ms(3_600_000), idle);
            pace.answered();
            pace.cuts = 1;
            pace.ended(ms(3_600_010), true, false);
            assert_eq!(pace.gap, Some(Duration::from_millis(20)), "idle: {idle}");
        }
    }

    #[test]
    fn gap_stays_within_bounds() {
        let mut pace = JoinPace::default();
        for at in [0, 10_000] {
            pace.written(ms(at), true);
            pace.ended(ms(at + 2_000), true, false);
        }
        assert_eq!(pace.gap, Some(LONGEST), "nothing was answered in two seconds");
        let mut pace = JoinPace::default();
        for at in [0, 10_000] {
            pace.written(ms(at), true);
            pace.ended(ms(at), true, false);
        }
        assert_eq!(pace.gap, Some(SHORTEST), "the burst took no time");
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;

    impl JoinPace {
        pub(crate) fn canonical(&self, form: &mut Form<'_>) {
            let Self { cuts, gap, burst, wait } = self;
            form.count(*cuts, 2);
            // The age of the joins makes a difference only with a server that closes connections.
            form.option(burst.as_ref().filter(|_| form.habits.closes), |form, burst| {
                let Burst { first, last, answered } = burst;
                form.time(*last, SOON + Duration::from_nanos(1));
                if form.habits.paces {
                    form.time(*first, Duration::MAX);
                    form.number(u64::from(*answered));
                }
            });
            assert!(form.habits.paces || gap.is_none() && *cuts < 2, "joins are paced: {self:?}");
            form.option(*gap, |form, gap| form.duration(gap, Duration::MAX));
            form.option(*wait, Form::deadline);
        }
    }
}
