//! The join pace: how fast joins are written to a server that closes when they come too fast.
//!
//! Some servers limit joins by closing the connection (supabase/realtime#1691). A client that joins
//! all its topics at once after every reconnect is then closed again and again.
//!
//! ```text
//!              the peer closed within 2 s of a join, twice in a row
//!   Unpaced ───────────────────────────────────────────────────────▶ Paced: half of the rate
//!      ▲                                                             that was answered
//!      │                                                               │ ▲ │
//!      │                        every join answered, and 2 s passed    │ │ │ closed so once more:
//!      └── faster than one a millisecond ◀── half as fast again ◀──────┘ └─┘ half of that rate
//! ```
//!
//! One such loss is what any killed server looks like, so it changes nothing. A connection without
//! joins proves nothing; one that ended otherwise (by us, without a close frame, or later than 2 s after
//! the last join) breaks the row. Joins that follow each other by less than 2 s are one burst: its rate
//! is the number of its answers by the time from its first join to the end.
//!
//! The value outlives connections, and is reset by each new `connect`; its deadline ends with the
//! connection.

use core::time::Duration;

use crate::time::{Time, nanos};

/// How soon after a join the end of the connection is taken for the answer to it.
const SOON: Duration = Duration::from_secs(2);

/// The bounds of the time between two joins. Below the shorter one pacing ends. The longer one is the
/// most, because a server that crashes again and again looks like one that refuses joins, and a
/// thousand channels should still be back within minutes.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(250);

/// How fast joins are written.
#[derive(Clone, Debug, Default)]
pub(crate) struct JoinPace {
    /// Connections in a row that the peer closed soon after a join.
    cuts: u32,
    /// The time from one join to the next; none without pacing.
    gap: Option<Duration>,
    burst: Option<Burst>,
    /// When to write a further join, until that time has come.
    wait: Option<Time>,
}

/// Joins of one connection that follow each other closely.
#[derive(Clone, Debug)]
struct Burst {
    first: Time,
    last: Time,
    answered: u32,
}

impl JoinPace {
    /// When the next join may be written; none means at once.
    pub(crate) fn next(&self) -> Option<Time> {
        Some(self.burst.as_ref()?.last + self.gap?)
    }

    /// A join is written. With `idle`, none was unanswered before it.
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

    /// When to look for a join to write.
    pub(crate) const fn deadline(&self) -> Option<Time> {
        self.wait
    }

    /// The deadline has passed.
    pub(crate) const fn wait_over(&mut self) {
        self.wait = None;
    }

    /// A join was answered, whatever the answer.
    pub(crate) fn answered(&mut self) {
        if let Some(burst) = &mut self.burst {
            burst.answered = burst.answered.saturating_add(1);
        }
    }

    /// The connection ended. With `idle`, no join was due or unanswered.
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

    /// Whether there was a burst, and it is over.
    fn is_over(&self, now: Time) -> bool {
        self.burst.as_ref().is_some_and(|burst| now.since(burst.last) > SOON)
    }

    /// If the last burst is over: all of it was answered, and the server kept the connection.
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

    /// A connection: joins a millisecond apart from `at` on, all answered, and its end.
    fn cut(pace: &mut JoinPace, at: u64, joins: u32, end: u64) {
        for nth in 0..joins {
            pace.written(ms(at + u64::from(nth)), nth == 0);
            pace.answered();
        }
        pace.ended(ms(end), true, false);
    }

    #[test]
    fn second_cut_in_a_row_paces_at_half_the_rate() {
        let mut pace = JoinPace::default();
        cut(&mut pace, 0, 10, 100);
        assert_eq!(pace.gap, None, "one loss is any loss");
        cut(&mut pace, 1_000, 10, 1_100);
        assert_eq!(pace.gap, Some(Duration::from_millis(20)), "10 in 100 ms, and half of that");
        assert_eq!(pace.next(), None, "the first join of a connection waits for nothing");
        pace.written(ms(5_000), true);
        assert_eq!(pace.next(), Some(ms(5_020)));
        // Not faster than it was, however soon the end came.
        pace.answered();
        pace.ended(ms(5_001), true, false);
        assert_eq!(pace.gap, Some(Duration::from_millis(40)));
    }

    #[test]
    fn deadline_ends_when_it_passes_or_the_connection_ends() {
        let gap = Some(Duration::from_millis(50));
        let mut pace = JoinPace { gap, ..JoinPace::default() };
        assert_eq!(pace.deadline(), None);
        pace.written(ms(0), true);
        assert_eq!(pace.deadline(), Some(ms(50)));
        pace.wait_over();
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
    fn other_ends_break_the_row() {
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
        // A connection without joins proves nothing.
        let mut pace = JoinPace::default();
        cut(&mut pace, 0, 10, 100);
        pace.ended(ms(1_000), true, true);
        cut(&mut pace, 2_000, 10, 2_100);
        assert!(pace.gap.is_some());
    }

    #[test]
    fn success_makes_it_faster_until_it_ends() {
        let mut pace = JoinPace { gap: Some(Duration::from_millis(2)), ..JoinPace::default() };
        pace.written(ms(0), true);
        pace.written(ms(2), false);
        pace.answered();
        pace.ended(ms(2_002), false, true);
        assert_eq!(pace.gap, Some(Duration::from_millis(2)), "too soon to tell");
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

    /// An hour between two bursts proves nothing about how fast the second one was.
    #[test]
    fn burst_ends_when_nothing_follows() {
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
    fn gap_stays_between_its_ends() {
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
        assert_eq!(pace.gap, Some(SHORTEST), "in no time at all");
    }
}
