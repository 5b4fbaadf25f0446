//! A rate limit for repeated reports: the first report of a kind passes at once. Later reports are
//! held back, and at the end of each period the last of them passes, with their number.

use core::time::Duration;
use std::collections::BTreeMap;
use std::time::Instant;

/// The maximum number of kinds that are distinguished; further kinds count as one.
const KINDS_MAX: usize = 64;

/// Limits the rate of reports by their kind.
#[derive(Debug)]
pub(crate) struct Limit<T> {
    period: Duration,
    kinds: BTreeMap<String, Kind<T>>,
}

#[derive(Debug)]
struct Kind<T> {
    since: Instant,
    /// The number of reports held back in this period, and the last of them.
    held: Option<(u64, T)>,
}

impl<T> Limit<T> {
    pub(crate) const fn new(period: Duration) -> Self {
        Self { period, kinds: BTreeMap::new() }
    }

    /// Returns the report if it may pass now; otherwise holds it back.
    pub(crate) fn report(&mut self, now: Instant, kind: &str, report: T) -> Option<T> {
        let kind =
            if self.kinds.len() < KINDS_MAX || self.kinds.contains_key(kind) { kind } else { "" };
        match self.kinds.get_mut(kind) {
            Some(known) => {
                let count = known.held.as_ref().map_or(0, |(count, _)| *count);
                known.held = Some((count + 1, report));
                None
            }
            None => {
                self.kinds.insert(kind.to_owned(), Kind { since: now, held: None });
                Some(report)
            }
        }
    }

    /// Takes a held report whose period has ended, with the number of reports that it stands for.
    /// If a kind had no reports in a period, its next report passes at once again.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(u64, T)> {
        let period = self.period;
        let over = |kind: &Kind<T>| now.saturating_duration_since(kind.since) >= period;
        self.kinds.retain(|_, kind| kind.held.is_some() || !over(kind));
        let kind = self.kinds.values_mut().find(|kind| over(kind))?;
        kind.since = now;
        kind.held.take()
    }

    /// Takes a held report, even before its period has ended.
    pub(crate) fn rest(&mut self) -> Option<(u64, T)> {
        self.kinds.values_mut().find_map(|kind| kind.held.take())
    }

    /// When [`due`](Self::due) should be called next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.kinds.values().map(|kind| kind.since + self.period).min()
    }
}

/// The kind of a bad frame: its problem without the details that vary between frames.
pub(crate) fn kind_of_problem(problem: &str) -> &str {
    problem.split([':', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']).next().unwrap_or(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(10);

    #[test]
    fn repeated_reports_become_a_count() {
        let (mut limit, start) = (Limit::new(PERIOD), Instant::now());
        assert_eq!(limit.report(start, "a", 1), Some(1));
        assert_eq!(limit.report(start, "b", 2), Some(2));
        for n in 3..=9 {
            assert_eq!(limit.report(start + PERIOD / 2, "a", n), None);
        }
        assert_eq!(limit.due(start + PERIOD / 2), None);
        assert_eq!(limit.next(), Some(start + PERIOD));
        assert_eq!(limit.due(start + PERIOD), Some((7, 9)));
        assert_eq!(limit.due(start + PERIOD), None);
        assert_eq!(limit.report(start + PERIOD, "b", 10), Some(10), "no report in a period");
        assert_eq!(limit.report(start + PERIOD, "a", 11), None);
        assert_eq!(limit.rest(), Some((1, 11)));
        assert_eq!(limit.rest(), None);
    }

    #[test]
    fn number_of_kinds_is_bounded() {
        let (mut limit, start) = (Limit::new(PERIOD), Instant::now());
        let made = (0..1_000).filter(|n| limit.report(start, &n.to_string(), ()).is_some());
        assert_eq!(made.count(), KINDS_MAX + 1);
        assert_eq!(limit.kinds.len(), KINDS_MAX + 1);
        assert_eq!(kind_of_problem("unknown kind 7 of binary frame"), "unknown kind ");
        assert_eq!(kind_of_problem("the payload is not JSON: x"), "the payload is not JSON");
    }
}
