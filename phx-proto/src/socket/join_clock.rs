//! The join clock: which join the server is running, and whether it is overdue.
//!
//! The server runs the joins of a socket one after another and answers nothing while it does
//! (`wire/join_slow_blocks_socket`), so only the *oldest* unanswered join is running, and only its
//! clock runs.
//!
//! ```text
//!                                       ┌── join_block_max, if not longer than join_timeout ──┐
//!                                       │                                                     ▼
//!   written ──▶ waiting its turn ──▶ running ──join_timeout──▶ overdue ──join_block_max──▶ stalled
//!                                      │ reply                    │ reply       (abort, reconnect)
//!                                      ▼                          ▼
//!                                   answered                   answered (a late ok is a join)
//!                                                                 │ a later heartbeat is answered
//!                                                                 ▼
//!                                   lost, with all that were written before that heartbeat
//!                                   (rejoin with backoff)
//! ```
//!
//! When a join is overdue, the clock reports it, and the client probes the server with one
//! heartbeat. It sends no leave, because the late ok could then arrive between the leave and the
//! next join (`wire/join_timeout_leave_rejoin`). A ref is assigned when its frame is written, so of
//! two frames the one with the lower ref was written first.
//!
//! Bytes that were transferred since the clock started extend both deadlines, because a long reply
//! on a slow link is not a stalled join, and acknowledged bytes ahead of the join start the clock
//! over; see the [ledger](crate::socket::progress).
//!
//! The joins are sorted by ref, so the join of a reply is found by binary search, even among
//! thousands that are answered in any order. There are at most `join_concurrency` of them.
//!
//! The clock belongs to one connection.

use crate::collections::ordered::Ordered;
use crate::config::Config;
use crate::id::Ref;
use crate::socket::progress::{Baseline, Ledger};
use crate::socket::timer::TimerKind;
use crate::time::Time;
use crate::topic::Topic;

/// The unanswered joins of one connection, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct JoinClock {
    unanswered: Ordered<Ref, Unanswered>,
    /// The start of the clock of the oldest join.
    started: Option<Time>,
    overdue: bool,
    forgiven: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Unanswered {
    pub(crate) join_ref: Ref,
    pub(crate) topic: Topic,
    pub(crate) written: Time,
    /// The counts from which bytes extend the deadlines of the join.
    baseline: Baseline,
}

impl JoinClock {
    pub(crate) fn len(&self) -> usize {
        self.unanswered.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn oldest(&self) -> Option<&Unanswered> {
        self.unanswered.first().map(|(_, join)| join)
    }

    pub(crate) fn is_unanswered(&self, join_ref: Ref, topic: &str) -> bool {
        self.unanswered.get(join_ref).is_some_and(|join| join.topic == *topic)
    }

    /// The time at which the oldest join becomes overdue or, if it is overdue, the time at which it
    /// becomes stalled. If `join_block_max` is not longer than `join_timeout`, no join becomes overdue.
    pub(crate) fn deadline(&self, config: &Config, ledger: &Ledger) -> Option<(TimerKind, Time)> {
        // Protocol: JOIN-9.
        let (started, join) = (self.started?, self.oldest()?);
        let (timeout, block_max) = (config.join_timeout, config.join_block_max);
        let (kind, limit) = if self.overdue || block_max <= timeout {
            (TimerKind::JoinBlock, block_max)
        } else {
            (TimerKind::JoinClock, timeout)
        };
        Some((kind, started + limit + ledger.extension(&join.baseline)))
    }

    /// Called when the transport has flushed everything, joins included.
    pub(crate) fn flushed(&mut self, ledger: &Ledger) {
        // The joins that were written since the last flush are at the end.
        let mut joins = self.unanswered.iter_mut().rev();
        while let Some((_, join)) = joins.next().filter(|(_, join)| !join.baseline.is_flushed()) {
            ledger.flush(&mut join.baseline);
        }
    }

    /// Called when the peer has acknowledged further bytes. If they are ahead of the oldest join, its
    /// timeout starts over, because the server has not reached the join.
    pub(crate) fn acknowledged(&mut self, now: Time, ledger: &Ledger) {
        if let Some((_, join)) = self.unanswered.iter_mut().next() {
            if ledger.acknowledges_ahead_of(&join.baseline) {
                self.started = Some(now);
                ledger.restart(&mut join.baseline);
            }
        }
    }

    /// Whether the oldest join has taken longer than `join_timeout`.
    pub(crate) const fn is_overdue(&self) -> bool {
        self.overdue
    }

    /// Adds a join that was written.
    pub(crate) fn written(&mut self, join_ref: Ref, topic: Topic, now: Time, ledger: &Ledger) {
        let baseline = ledger.baseline();
        let join = Unanswered { join_ref, topic, written: now, baseline };
        self.unanswered.insert(join_ref, join);
        if self.started.is_none() {
            self.restart(now, ledger);
        }
    }

    /// Removes a join that was answered, or whose answer will never arrive.
    pub(crate) fn remove(
        &mut self,
        join_ref: Ref,
        now: Time,
        ledger: &Ledger,
    ) -> Option<Unanswered> {
        let is_oldest = self.oldest().is_some_and(|join| join.join_ref == join_ref);
        let removed = self.unanswered.remove(join_ref)?;
        if is_oldest {
            self.restart(now, ledger);
        }
        Some(removed)
    }

    /// Takes the oldest join if it was written before the answered heartbeat `answered`. The server
    /// answers in order, so the reply to the join is lost.
    pub(crate) fn take_lost(
        &mut self,
        answered: Ref,
        now: Time,
        ledger: &Ledger,
    ) -> Option<Unanswered> {
        self.oldest().filter(|join| join.join_ref < answered)?;
        let lost = self.unanswered.pop_first().map(|(_, join)| join);
        self.restart(now, ledger);
        lost
    }

    /// Marks the oldest join as overdue.
    pub(crate) const fn expire(&mut self) {
        self.overdue = true;
    }

    /// Restarts the clock of the oldest join, because the caller was late. This happens only once
    /// for each join.
    pub(crate) fn forgive(&mut self, now: Time, ledger: &Ledger) {
        if !self.forgiven {
            self.restart(now, ledger);
            self.forgiven = true;
        }
    }

    /// Frees the memory of an empty list.
    pub(crate) fn shrink(&mut self) {
        self.unanswered.shrink_if_empty();
    }

    fn restart(&mut self, now: Time, ledger: &Ledger) {
        let oldest = self.unanswered.iter_mut().next();
        self.started = oldest.map(|(_, join)| {
            ledger.restart(&mut join.baseline);
            now
        });
        self.overdue = false;
        self.forgiven = false;
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::socket::timer::TimerKind::{JoinBlock, JoinClock as Clock};

    const fn secs(secs: u64) -> Time {
        Time::from_millis(secs * 1_000)
    }

    struct Bench {
        config: Config,
        ledger: Ledger,
        joins: JoinClock,
    }

    /// A clock with these joins written at one second; they are overdue after 10 s and stalled
    /// after 60 s.
    fn bench(refs: impl IntoIterator<Item = u64>) -> Bench {
        let config = Config::new("ws://localhost/").unwrap().join_timeout(Duration::from_secs(10));
        let config = config.join_block_max(Duration::from_secs(60));
        let ledger = Ledger::new(&config);
        let mut bench = Bench { config, ledger, joins: JoinClock::default() };
        for join_ref in refs {
            let topic = Topic::from(format!("room:{join_ref}"));
            bench.joins.written(Ref(join_ref), topic, secs(1), &bench.ledger);
        }
        bench
    }

    impl Bench {
        fn deadline(&self) -> Option<(TimerKind, Time)> {
            self.joins.deadline(&self.config, &self.ledger)
        }

        fn remove(&mut self, join_ref: u64, at: u64) -> bool {
            self.joins.remove(Ref(join_ref), secs(at), &self.ledger).is_some()
        }

        fn take_lost(&mut self, answered: u64, at: u64) -> Option<u64> {
            let lost = self.joins.take_lost(Ref(answered), secs(at), &self.ledger);
            lost.map(|join| join.join_ref.0)
        }
    }

    /// Each row of the diagram: waiting, running, overdue, stalled, answered.
    #[test]
    fn only_clock_of_oldest_runs() {
        let mut bench = bench([1, 2, 3]);
        assert_eq!(bench.deadline(), Some((Clock, secs(11))));
        let (topic, ledger) = (Topic::from("room:4"), bench.ledger.clone());
        bench.joins.written(Ref(4), topic, secs(4), &ledger);
        assert_eq!(bench.deadline(), Some((Clock, secs(11))), "a later join");
        assert!(bench.remove(4, 4));
        assert!(
            bench.remove(2, 5) && bench.deadline() == Some((Clock, secs(11))),
            "not the oldest"
        );
        assert!(
            bench.remove(1, 6) && bench.deadline() == Some((Clock, secs(16))),
            "the next one's"
        );
        assert!(
            !bench.remove(1, 7) && bench.deadline() == Some((Clock, secs(16))),
            "answered once"
        );
        bench.joins.expire();
        assert!(bench.joins.is_overdue());
        assert_eq!(bench.deadline(), Some((JoinBlock, secs(66))), "since it began");
        assert!(bench.remove(3, 20), "a late answer");
        assert_eq!((bench.deadline(), bench.joins.is_overdue()), (None, false));
    }

    #[test]
    fn answered_heartbeat_proves_joins_lost() {
        let mut bench = bench([1, 2, 5]);
        bench.joins.expire();
        assert_eq!([bench.take_lost(4, 20), bench.take_lost(4, 20)], [Some(1), Some(2)]);
        assert_eq!(bench.take_lost(4, 20), None, "written after that heartbeat");
        assert_eq!(bench.deadline(), Some((Clock, secs(30))), "the clock of that join runs now");
        assert_eq!((bench.take_lost(6, 21), bench.take_lost(6, 21)), (Some(5), None));
        assert_eq!((bench.deadline(), bench.joins.len()), (None, 0));
    }

    #[test]
    fn lateness_is_forgiven_once_per_join() {
        let mut bench = bench([1, 2]);
        bench.joins.expire();
        bench.joins.forgive(secs(30), &bench.ledger);
        assert_eq!(bench.deadline(), Some((Clock, secs(40))));
        bench.joins.forgive(secs(39), &bench.ledger);
        assert_eq!(bench.deadline(), Some((Clock, secs(40))), "only once");
        bench.remove(1, 39);
        bench.joins.forgive(secs(45), &bench.ledger);
        assert_eq!(bench.deadline(), Some((Clock, secs(55))));
    }

    #[test]
    fn bytes_after_flush_extend_nothing() {
        use crate::event::input::Progress;
        let mut bench = bench([1]);
        bench.ledger = Ledger::new(&bench.config.clone().send_rate_min(100));
        bench.ledger.report(Progress { written: 100, ..Progress::default() }, Ref(2));
        bench.joins.flushed(&bench.ledger);
        bench.ledger.report(Progress { written: 900, ..Progress::default() }, Ref(3));
        assert_eq!(bench.deadline(), Some((Clock, secs(12))));
    }

    /// When a join becomes the oldest, bytes that were written after it still extend nothing, and if they
    /// are acknowledged, its clock does not start over.
    #[test]
    fn next_join_keeps_its_flush() {
        use crate::event::input::Progress;
        let mut bench = bench([1, 2]);
        bench.ledger = Ledger::new(&bench.config.clone().send_rate_min(100));
        bench.ledger.report(Progress { written: 100, ..Progress::default() }, Ref(3));
        bench.joins.flushed(&bench.ledger);
        assert!(bench.remove(1, 5));
        bench.ledger.report(Progress { written: 900, ..Progress::default() }, Ref(3));
        assert_eq!(bench.deadline(), Some((Clock, secs(5 + 10 + 1))));
        let acknowledged = Progress { written: 900, acknowledged: 500, ..Progress::default() };
        assert!(bench.ledger.report(acknowledged, Ref(3)));
        bench.joins.acknowledged(secs(12), &bench.ledger);
        assert_eq!(bench.deadline(), Some((Clock, secs(5 + 10 + 1))));
    }

    #[test]
    fn join_is_found_by_ref_and_topic() {
        let bench = bench([1]);
        assert!(bench.joins.is_unanswered(Ref(1), "room:1"));
        assert!(!bench.joins.is_unanswered(Ref(1), "room:2"));
        assert!(!bench.joins.is_unanswered(Ref(2), "room:1"));
        assert_eq!(bench.joins.oldest().map(|join| join.written), Some(secs(1)));
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;

    impl JoinClock {
        /// `answered` is the last heartbeat that the server answered.
        pub(crate) fn canonical(
            &self,
            form: &mut Form<'_>,
            ledger: &Ledger,
            answered: Option<Ref>,
        ) {
            let Self { unanswered, started, overdue, forgiven } = self;
            form.number(unanswered.len() as u64);
            for (key, join) in unanswered.entries() {
                let Unanswered { join_ref, topic, written: _, baseline } = join;
                assert_eq!(key, *join_ref);
                // The baseline of another join starts over when it becomes the oldest.
                let mut baseline = *baseline;
                if Some(key) != self.oldest().map(|join| join.join_ref) {
                    ledger.restart(&mut baseline);
                }
                baseline.canonical(form, ledger);
                form.msg_ref(*join_ref);
                form.text(topic);
                form.flag(answered.is_some_and(|answered| *join_ref < answered));
            }
            form.option(*started, |form, at| {
                let longest = form.longest_answer();
                form.time(at, longest);
            });
            form.flag(*overdue);
            form.flag(*forgiven);
        }
    }
}
