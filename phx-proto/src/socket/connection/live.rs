//! The state of one open connection.
//!
//! It is inside [`Phase::Open`](crate::socket::connection::Phase), so the joins, heartbeats, frames
//! and deadlines of a connection are dropped with it and cannot affect the next one.

use core::time::Duration;

use crate::config::Config;
use crate::event::input::Progress;
use crate::id::{ConnectionId, Ref};
use crate::socket::channel::ended::Ended;
use crate::socket::heartbeat::Heartbeat;
use crate::socket::join_clock::{JoinClock, Unanswered};
use crate::socket::progress::Ledger;
use crate::socket::push::abandoned::Abandoned;
use crate::socket::push::lane::Lane;
use crate::socket::timer::TimerKind;
use crate::socket::write_stall::WriteStall;
use crate::time::Time;
use crate::topic::Topic;

/// An open connection.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) id: ConnectionId,
    pub(crate) opened_at: Time,
    pub(crate) ledger: Ledger,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) stall: WriteStall,
    /// The join clock. It is private, and only the methods of `Live` change it, because an
    /// unanswered join suspends the deadlines of the heartbeat and of the write stall.
    joins: JoinClock,
    pub(crate) lane: Lane,
    /// Pushes that have their outcome and may still get a reply.
    pub(crate) abandoned: Abandoned,
    /// Topics whose channel ended on this connection.
    pub(crate) ended: Ended,
}

impl Live {
    /// Creates the state of a connection that has just opened. `first_heartbeat` is the delay of
    /// the first heartbeat.
    pub(crate) fn new(
        id: ConnectionId,
        now: Time,
        config: &Config,
        first_heartbeat: Duration,
    ) -> Self {
        let (interval, timeout) = (config.heartbeat_interval, config.heartbeat_timeout);
        Self {
            id,
            opened_at: now,
            ledger: Ledger::new(config),
            heartbeat: Heartbeat::new(interval, timeout, first_heartbeat, now),
            stall: WriteStall::new(config),
            joins: JoinClock::default(),
            lane: Lane::default(),
            abandoned: Abandoned::default(),
            ended: Ended::default(),
        }
    }

    pub(crate) const fn joins(&self) -> &JoinClock {
        &self.joins
    }

    /// Lists the deadlines of the connection, in the order in which equal ones expire.
    #[inline]
    pub(crate) fn deadlines(
        &self,
        config: &Config,
        list: &mut impl FnMut(TimerKind, Option<Time>),
    ) {
        list(TimerKind::HeartbeatDue, self.heartbeat.next_due());
        list(TimerKind::HeartbeatReply, self.heartbeat.deadline(&self.ledger));
        list(TimerKind::WriteStall, self.stall.deadline(&self.ledger));
        if let Some((kind, at)) = self.joins.deadline(config, &self.ledger) {
            list(kind, Some(at));
        }
    }

    /// Whether a heartbeat or a join is unanswered, or the transport takes no frames.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.heartbeat.is_unanswered() || !self.joins.is_empty() || self.stall.is_blocked()
    }

    /// Takes the transport's totals. `next_ref` is the next ref that will be minted.
    pub(crate) fn progress(&mut self, now: Time, progress: Progress, next_ref: Ref) {
        if self.ledger.report(progress, next_ref) {
            self.heartbeat.acknowledged(now, &self.ledger);
            self.joins.acknowledged(now, &self.ledger);
            self.stall.restart(now, &self.ledger);
        }
        if progress.flushed {
            self.heartbeat.flushed(&self.ledger);
            self.joins.flushed(&self.ledger);
        }
    }

    /// Probes the peer and restarts the deadlines of its answers, each deadline at most once,
    /// because the caller was late or the machine was suspended.
    pub(crate) fn forgive(&mut self, now: Time) {
        self.heartbeat.forgive(now, &self.ledger);
        self.joins.forgive(now, &self.ledger);
        self.stall.restart(now, &self.ledger);
    }

    /// Starts the clock of a join that was written.
    pub(crate) fn join_written(&mut self, join_ref: Ref, topic: Topic, now: Time) {
        self.lane.settle_late_leave(&topic);
        self.joins.written(join_ref, topic, now, &self.ledger);
        self.joins_changed(now);
    }

    /// Removes a join that was answered, or whose answer will never arrive.
    pub(crate) fn join_ended(&mut self, join_ref: Ref, now: Time) -> Option<Unanswered> {
        let ended = self.joins.remove(join_ref, now, &self.ledger);
        self.joins.shrink();
        self.joins_changed(now);
        ended
    }

    /// Marks the oldest join as overdue, probes the server, and returns the join.
    pub(crate) fn join_overdue(&mut self, now: Time) -> Option<Unanswered> {
        let join = self.joins.oldest()?.clone();
        self.joins.expire();
        // Protocol: JOIN-13.
        self.heartbeat.probe_after(join.join_ref, now, &self.ledger);
        Some(join)
    }

    /// Takes an unanswered join that was written before the answered heartbeat `answered`. The
    /// server answers in order, so the reply to the join is lost.
    pub(crate) fn take_lost_join(&mut self, answered: Ref, now: Time) -> Option<Unanswered> {
        let lost = self.joins.take_lost(answered, now, &self.ledger);
        self.joins_changed(now);
        lost
    }

    /// Frees the memory that only a busy connection needs.
    pub(crate) fn shrink(&mut self) {
        self.lane.shrink();
        self.joins.shrink();
        self.abandoned.shrink();
        self.ledger.shrink();
    }

    /// Suspends or resumes the other deadlines. The server neither answers nor reads while it runs
    /// a join.
    fn joins_changed(&mut self, now: Time) {
        if self.joins.is_empty() {
            self.heartbeat.resume(now, &self.ledger);
            self.stall.resume(now, &self.ledger);
        } else {
            self.heartbeat.suspend();
            self.stall.suspend();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Time {
        Time::from_millis(secs * 1_000)
    }

    struct Bench {
        config: Config,
        live: Live,
    }

    /// A connection whose joins are overdue after 10 s and stalled after 60 s, with heartbeats
    /// every 30 s or without heartbeats.
    fn bench(heartbeats: bool) -> Bench {
        let interval = Duration::from_secs(if heartbeats { 30 } else { 0 });
        let config = Config::new("ws://localhost/").unwrap().heartbeat_interval(interval);
        let config = config.heartbeat_timeout(Duration::from_secs(10)).send_rate_min(100);
        let config = config.write_stall_timeout(Duration::from_secs(20));
        let config = config.join_timeout(Duration::from_secs(10));
        let config = config.join_block_max(Duration::from_secs(60));
        let live = Live::new(ConnectionId(1), Time::ZERO, &config, interval);
        Bench { config, live }
    }

    impl Bench {
        fn deadlines(&self) -> Vec<(TimerKind, Time)> {
            let mut found = Vec::new();
            self.live
                .deadlines(&self.config, &mut |kind, at| found.extend(at.map(|at| (kind, at))));
            found
        }
    }

    /// While the server runs a join, it answers nothing, so only the join clock runs.
    #[test]
    fn unanswered_join_suspends_heartbeat() {
        use TimerKind::{HeartbeatDue, HeartbeatReply, JoinClock};
        let mut bench = bench(true);
        bench.live.heartbeat.probe(secs(1), &bench.live.ledger);
        let due = (HeartbeatDue, secs(30));
        assert_eq!(bench.deadlines(), [due, (HeartbeatReply, secs(11))]);
        bench.live.join_written(Ref(2), "room:a".into(), secs(2));
        bench.live.join_written(Ref(3), "room:b".into(), secs(3));
        assert_eq!(bench.deadlines(), [due, (JoinClock, secs(12))]);
        assert!(bench.live.join_ended(Ref(2), secs(5)).is_some());
        assert_eq!(bench.deadlines(), [due, (JoinClock, secs(15))], "one is left");
        assert!(bench.live.join_ended(Ref(3), secs(6)).is_some());
        assert_eq!(bench.deadlines(), [due, (HeartbeatReply, secs(16))], "the timeout starts over");
    }

    #[test]
    fn unanswered_join_suspends_write_stall() {
        use TimerKind::{JoinClock, WriteStall};
        let mut bench = bench(false);
        bench.live.stall.block(secs(1), &bench.live.ledger);
        assert_eq!(bench.deadlines(), [(WriteStall, secs(21))]);
        bench.live.join_written(Ref(2), "room:a".into(), secs(2));
        assert_eq!(bench.deadlines(), [(JoinClock, secs(12))]);
        assert!(
            bench.live.take_lost_join(Ref(1), secs(4)).is_none(),
            "written after that heartbeat"
        );
        assert!(bench.live.take_lost_join(Ref(3), secs(5)).is_some());
        assert_eq!(bench.deadlines(), [(WriteStall, secs(25))], "the timeout starts over");
        bench.live.forgive(secs(9));
        let reply = (TimerKind::HeartbeatReply, secs(19));
        assert_eq!(bench.deadlines(), [reply, (WriteStall, secs(29))], "probed instead");
    }

    #[test]
    fn overdue_join_is_probed_once() {
        use TimerKind::{HeartbeatDue, JoinBlock, JoinClock};
        let mut bench = bench(true);
        assert!(bench.live.join_overdue(secs(1)).is_none());
        bench.live.join_written(Ref(2), "room:a".into(), secs(2));
        let join = bench.live.join_overdue(secs(12)).expect("it is unanswered");
        assert_eq!((join.join_ref, join.topic.as_str()), (Ref(2), "room:a"));
        assert!(bench.live.heartbeat.is_owed() && bench.live.joins().is_overdue());
        assert_eq!(bench.deadlines(), [(HeartbeatDue, secs(30)), (JoinBlock, secs(62))]);
        bench.live.forgive(secs(20));
        assert_eq!(bench.deadlines(), [(HeartbeatDue, secs(30)), (JoinClock, secs(30))]);
    }

    #[test]
    fn flush_ends_extension_by_written_bytes() {
        let mut bench = bench(true);
        bench.live.heartbeat.probe(secs(1), &bench.live.ledger);
        bench.live.heartbeat.written(Ref(1), secs(1));
        bench.live.join_written(Ref(2), "room:a".into(), secs(2));
        for (written, flushed) in [(100, true), (900, false)] {
            let progress = Progress { written, flushed, ..Progress::default() };
            bench.live.progress(secs(2), progress, Ref(3));
        }
        let join = (TimerKind::JoinClock, secs(13));
        assert_eq!(
            bench.deadlines().last(),
            Some(&join),
            "one second for the 100 bytes before the flush"
        );
    }

    #[test]
    fn each_unanswered_kind_awaits_answer() {
        let waits: [fn(&mut Live); 3] = [
            |live| live.heartbeat.probe(secs(1), &live.ledger),
            |live| live.join_written(Ref(2), "room:a".into(), secs(1)),
            |live| live.stall.block(secs(1), &live.ledger),
        ];
        for wait in waits {
            let mut live = bench(true).live;
            assert!(!live.awaits_answer());
            wait(&mut live);
            assert!(live.awaits_answer());
        }
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;
    use crate::socket::push::slab::Pushes;

    impl Live {
        pub(crate) fn canonical(&self, form: &mut Form<'_>, pushes: &Pushes) {
            let Self { id, opened_at, ledger, heartbeat, stall, joins, lane, abandoned, ended } =
                self;
            form.connection(*id);
            let longest = form.longest_open();
            form.time(*opened_at, longest);
            ledger.canonical(form);
            heartbeat.canonical(form, ledger);
            stall.canonical(form, ledger);
            joins.canonical(form, ledger, heartbeat.last_answered());
            lane.canonical(form, pushes);
            abandoned.canonical(form);
            ended.canonical(form);
        }
    }
}
