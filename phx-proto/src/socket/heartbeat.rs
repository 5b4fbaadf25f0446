//! The heartbeat machine: whether the peer still answers.
//!
//! ```text
//!            due / probe             written                reply (topic and ref)
//!   Quiet ───────────────▶ Owed ───────────────▶ InFlight ──────────────────────▶ Quiet
//!                            │  deadline            │  deadline
//!                            └──────────▶ dead ◀────┘
//! ```
//!
//! The deadline runs from when the heartbeat fell *due*, written or not, so a peer that stopped
//! reading is noticed too. Bytes extend it, by the [ledger](crate::socket::progress). Traffic
//! neither delays a heartbeat nor stands in for its reply: clients that let it do so were dropped by
//! their servers, or never noticed a half-open connection.
//!
//! While bytes extend the deadline of an unanswered heartbeat, further ones are written on their
//! grid, because Phoenix closes a connection on which it reads nothing for 60 s
//! (`wire/idle_timeout_close`). At most one is unwritten. The deadline is that of the oldest; a reply
//! to any of them answers those before it, too, because the server replies in order.
//!
//! The server answers nothing while it runs a join (`wire/join_slow_blocks_socket`), so the deadline
//! is suspended while a join is unanswered: the verdict then belongs to the
//! [join clock](crate::socket::join_clock). After the last join the time of the oldest heartbeat
//! starts over.
//!
//! The value lives and dies with one connection.

use core::time::Duration;
use std::collections::VecDeque;

use crate::id::Ref;
use crate::socket::progress::{Baseline, Ledger};
use crate::socket::timer::JUMP;
use crate::time::Time;

/// How many unanswered heartbeats are remembered. When one more falls due, the second oldest is
/// forgotten: the oldest has the deadline, and the newest the best chance of a reply.
const UNANSWERED_MAX: usize = 64;

/// Heartbeats of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeat {
    interval: Duration,
    timeout: Duration,
    next_due: Option<Time>,
    /// Oldest first. Only the last may be unwritten.
    unanswered: VecDeque<Beat>,
    /// A join is unanswered: no deadline runs.
    suspended: bool,
    probe_after_reply: bool,
    last_answered: Option<Ref>,
}

#[derive(Clone, Debug)]
struct Beat {
    /// When it fell due, whatever has moved its deadline since.
    asked: Time,
    /// From when its deadline runs.
    due: Time,
    baseline: Baseline,
    written: Option<(Ref, Time)>,
    /// A late wake-up was forgiven once already.
    forgiven: bool,
}

impl Heartbeat {
    /// `first` is the delay of the first heartbeat; it is not used with an interval of zero.
    pub(crate) fn new(interval: Duration, timeout: Duration, first: Duration, now: Time) -> Self {
        Self {
            interval,
            timeout,
            next_due: (!interval.is_zero()).then(|| now + first),
            unanswered: VecDeque::new(),
            suspended: false,
            probe_after_reply: false,
            last_answered: None,
        }
    }

    pub(crate) const fn next_due(&self) -> Option<Time> {
        self.next_due
    }

    /// When the oldest unanswered heartbeat means a dead connection.
    pub(crate) fn deadline(&self, ledger: &Ledger) -> Option<Time> {
        let oldest = self.unanswered.front().filter(|_| !self.suspended)?;
        Some(oldest.due + self.timeout + ledger.bought(&oldest.baseline))
    }

    pub(crate) const fn last_answered(&self) -> Option<Ref> {
        self.last_answered
    }

    /// Whether a heartbeat waits to be written.
    pub(crate) fn is_owed(&self) -> bool {
        self.unanswered.back().is_some_and(|beat| beat.written.is_none())
    }

    /// Whether a heartbeat is unanswered.
    pub(crate) fn is_unanswered(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// The interval has passed.
    pub(crate) fn fall_due(&mut self, now: Time, ledger: &Ledger) {
        let Some(due) = self.next_due else { return };
        // Kept on its grid, skipping what a late caller missed.
        let late = now.since(due);
        let missed = late.as_nanos() / self.interval.as_nanos().max(1);
        let missed = u32::try_from(missed).unwrap_or(u32::MAX);
        self.next_due = Some(due + self.interval.saturating_mul(missed.saturating_add(1)));
        match self.unanswered.front() {
            None => {
                // The caller is so late that the time to answer is over, or it slept. The peer has not
                // been asked yet, so its time begins now. (A probe that a wake-up caused may have been
                // answered already: then there is no unanswered heartbeat, as here.)
                let unasked = late > JUMP || due + self.timeout <= now;
                self.owe(if unasked { now } else { due }, ledger);
            }
            // The oldest is unanswered for longer than its timeout, because bytes, a join or a late
            // caller has moved its deadline. Phoenix still has to hear from us.
            Some(oldest) if !self.is_owed() && oldest.asked + self.timeout <= now => {
                self.owe(now, ledger);
            }
            Some(_) => {}
        }
    }

    /// Asks for a heartbeat now, unless one is on its way already.
    pub(crate) fn probe(&mut self, now: Time, ledger: &Ledger) {
        if self.unanswered.is_empty() {
            self.owe(now, ledger);
        }
    }

    /// Asks for a heartbeat that is written after `after`: one in flight from before it proves
    /// nothing about what came later.
    pub(crate) fn probe_after(&mut self, after: Ref, now: Time, ledger: &Ledger) {
        match self.unanswered.back() {
            None => self.owe(now, ledger),
            Some(Beat { written: Some((msg_ref, _)), .. }) if *msg_ref < after => {
                self.probe_after_reply = true;
            }
            Some(_) => {}
        }
    }

    pub(crate) fn written(&mut self, msg_ref: Ref, now: Time) {
        if let Some(beat) = self.unanswered.back_mut() {
            beat.written = Some((msg_ref, now));
        }
    }

    /// Everything written is with the operating system, heartbeats included.
    pub(crate) fn flushed(&mut self, ledger: &Ledger) {
        for beat in self.unanswered.iter_mut().filter(|beat| beat.written.is_some()) {
            ledger.flush(&mut beat.baseline);
        }
    }

    /// A reply on topic `phoenix`: the round-trip time, if it answers a heartbeat.
    pub(crate) fn answered(
        &mut self,
        msg_ref: Ref,
        now: Time,
        ledger: &Ledger,
    ) -> Option<Duration> {
        let mut beats = self.unanswered.iter();
        let answered = beats.position(|beat| beat.written.is_some_and(|(at, _)| at == msg_ref))?;
        let written = self.unanswered.drain(..=answered).next_back()?.written;
        self.last_answered = Some(msg_ref);
        if self.unanswered.is_empty() {
            // Most of the time none is unanswered.
            self.unanswered = VecDeque::new();
        }
        if core::mem::take(&mut self.probe_after_reply) && !self.is_owed() {
            self.owe(now, ledger);
        }
        written.map(|(_, at)| now.since(at))
    }

    /// A join is unanswered: no deadline runs.
    pub(crate) const fn suspend(&mut self) {
        // Protocol: HB-6.
        self.suspended = true;
    }

    /// No join is unanswered any more: the server is free to answer now.
    pub(crate) fn resume(&mut self, now: Time, ledger: &Ledger) {
        if core::mem::take(&mut self.suspended) {
            if let Some(oldest) = self.unanswered.front_mut() {
                (oldest.due, oldest.baseline) = (now, ledger.baseline());
            }
        }
    }

    /// The caller was late, so a passed deadline proves nothing: probe, and give the oldest
    /// heartbeat one more timeout. Only once, or coarse ticks would keep a dead peer alive.
    pub(crate) fn forgive(&mut self, now: Time, ledger: &Ledger) {
        match self.unanswered.front_mut() {
            None => self.owe(now, ledger),
            Some(oldest) if !oldest.forgiven => {
                oldest.forgiven = true;
                (oldest.due, oldest.baseline) = (now, ledger.baseline());
            }
            Some(_) => {}
        }
    }

    fn owe(&mut self, due: Time, ledger: &Ledger) {
        if self.unanswered.len() == UNANSWERED_MAX {
            self.unanswered.remove(1);
        }
        let baseline = ledger.baseline();
        let beat = Beat { asked: due, due, baseline, written: None, forgiven: false };
        self.unanswered.push_back(beat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const fn secs(secs: u64) -> Time {
        Time::from_millis(secs * 1_000)
    }

    fn ledger() -> Ledger {
        Ledger::new(&Config::new("ws://localhost/").unwrap())
    }

    /// Every 30 s from 20 s on, with 10 s for the reply.
    fn heartbeat() -> (Heartbeat, Ledger) {
        let (interval, timeout) = (Duration::from_secs(30), Duration::from_secs(10));
        (Heartbeat::new(interval, timeout, Duration::from_secs(20), Time::ZERO), ledger())
    }

    /// Each row of the diagram: Quiet, Owed, `InFlight`, and back.
    #[test]
    fn heartbeat_goes_around() {
        let (mut beat, ledger) = heartbeat();
        let state = |beat: &Heartbeat| (beat.is_unanswered(), beat.is_owed());
        assert_eq!((state(&beat), beat.next_due()), ((false, false), Some(secs(20))));
        beat.fall_due(secs(20), &ledger);
        assert_eq!((state(&beat), beat.next_due()), ((true, true), Some(secs(50))), "Owed");
        assert_eq!(beat.deadline(&ledger), Some(secs(30)));
        beat.written(Ref(7), secs(21));
        assert_eq!((state(&beat), beat.deadline(&ledger)), ((true, false), Some(secs(30))));
        assert_eq!(beat.answered(Ref(6), secs(22), &ledger), None, "the ref of no heartbeat");
        assert_eq!(beat.answered(Ref(7), secs(23), &ledger), Some(Duration::from_secs(2)));
        assert_eq!((state(&beat), beat.deadline(&ledger)), ((false, false), None), "Quiet");
        assert_eq!(beat.last_answered(), Some(Ref(7)));
        beat.probe(secs(24), &ledger);
        beat.probe(secs(25), &ledger);
        assert_eq!((state(&beat), beat.deadline(&ledger)), ((true, true), Some(secs(34))));
        assert_eq!(beat.unanswered.len(), 1, "the first probe will do");
    }

    #[test]
    fn interval_of_zero_has_no_grid() {
        let ledger = ledger();
        let timeout = Duration::from_secs(10);
        let mut beat = Heartbeat::new(Duration::ZERO, timeout, Duration::ZERO, secs(1));
        beat.fall_due(secs(1), &ledger);
        assert_eq!((beat.next_due(), beat.is_owed()), (None, false));
    }

    /// A late caller skips what it missed and keeps the grid.
    #[test]
    fn late_heartbeat_stays_on_its_grid() {
        let (mut beat, ledger) = heartbeat();
        beat.fall_due(secs(81), &ledger);
        assert_eq!(beat.next_due(), Some(secs(110)));
        assert_eq!(beat.deadline(&ledger), Some(secs(91)), "the peer was not asked before");
        let (mut beat, _) = heartbeat();
        beat.fall_due(secs(24), &ledger);
        assert_eq!(beat.deadline(&ledger), Some(secs(30)), "a little late counts from the grid");
        let (mut beat, _) = heartbeat();
        beat.fall_due(secs(26), &ledger);
        assert_eq!(beat.deadline(&ledger), Some(secs(36)), "as late as after a sleep");
    }

    #[test]
    fn unanswered_join_suspends_the_deadline() {
        let (mut beat, ledger) = heartbeat();
        beat.suspend();
        beat.fall_due(secs(20), &ledger);
        assert_eq!(beat.deadline(&ledger), None);
        beat.resume(secs(45), &ledger);
        assert_eq!(beat.deadline(&ledger), Some(secs(55)), "its time starts over");
        beat.resume(secs(50), &ledger);
        assert_eq!(beat.deadline(&ledger), Some(secs(55)), "it was running");
    }

    #[test]
    fn lateness_is_forgiven_once() {
        let (mut beat, ledger) = heartbeat();
        beat.forgive(secs(5), &ledger);
        assert_eq!((beat.is_owed(), beat.deadline(&ledger)), (true, Some(secs(15))), "a probe");
        beat.forgive(secs(12), &ledger);
        assert_eq!(beat.deadline(&ledger), Some(secs(22)));
        beat.forgive(secs(20), &ledger);
        assert_eq!(beat.deadline(&ledger), Some(secs(22)), "only once");
    }

    /// A heartbeat in flight from before a join proves nothing about the join.
    #[test]
    fn probe_after_waits_for_an_earlier_reply() {
        let (mut beat, ledger) = heartbeat();
        beat.probe(secs(1), &ledger);
        beat.written(Ref(4), secs(1));
        beat.probe_after(Ref(5), secs(2), &ledger);
        assert!(!beat.is_owed());
        assert!(beat.answered(Ref(4), secs(3), &ledger).is_some());
        assert!(beat.is_owed(), "a second one follows");
        beat.written(Ref(6), secs(3));
        beat.probe_after(Ref(5), secs(4), &ledger);
        assert!(beat.answered(Ref(6), secs(5), &ledger).is_some());
        assert!(!beat.is_owed(), "it was written after the join");
        beat.probe(secs(6), &ledger);
        beat.written(Ref(7), secs(6));
        beat.probe_after(Ref(8), secs(7), &ledger);
        beat.fall_due(secs(20), &ledger);
        assert!(beat.answered(Ref(7), secs(21), &ledger).is_some());
        assert_eq!(beat.unanswered.len(), 1, "the one that fell due will do");
    }

    /// Within its timeout a heartbeat is enough, however short the interval.
    #[test]
    fn no_further_heartbeat_within_the_timeout() {
        let ledger = ledger();
        let (interval, timeout) = (Duration::from_secs(6), Duration::from_secs(10));
        let mut beat = Heartbeat::new(interval, timeout, interval, Time::ZERO);
        beat.fall_due(secs(6), &ledger);
        beat.written(Ref(1), secs(6));
        beat.fall_due(secs(12), &ledger);
        assert!(!beat.is_owed());
        beat.fall_due(secs(18), &ledger);
        assert!(beat.is_owed(), "later the verdict is put off, so the peer must hear of us");
    }

    #[test]
    fn bytes_written_after_the_flush_buy_nothing() {
        use crate::event::input::Progress;
        let config = Config::new("ws://localhost/").unwrap().send_rate_min(100);
        let (mut beat, mut ledger) = (heartbeat().0, Ledger::new(&config));
        beat.probe(secs(1), &ledger);
        beat.written(Ref(1), secs(1));
        ledger.report(Progress { read: 0, written: 100, flushed: true }, Ref(2));
        beat.flushed(&ledger);
        ledger.report(Progress { read: 0, written: 900, flushed: false }, Ref(3));
        assert_eq!(beat.deadline(&ledger), Some(secs(12)));
    }

    /// While bytes or a join extend the deadline, the grid goes on; a reply answers all before it.
    #[test]
    fn further_heartbeats_follow_while_one_is_unanswered() {
        let (mut beat, ledger) = heartbeat();
        beat.suspend();
        beat.fall_due(secs(20), &ledger);
        beat.fall_due(secs(50), &ledger);
        assert_eq!(beat.unanswered.len(), 1, "at most one is unwritten");
        beat.written(Ref(1), secs(51));
        beat.fall_due(secs(80), &ledger);
        beat.written(Ref(2), secs(81));
        assert_eq!(beat.unanswered.len(), 2);
        assert_eq!(beat.answered(Ref(2), secs(82), &ledger), Some(Duration::from_secs(1)));
        assert!(!beat.is_unanswered());
        for nth in 0..100 {
            beat.fall_due(secs(110 + nth * 30), &ledger);
            beat.written(Ref(10 + nth), secs(110 + nth * 30));
        }
        assert_eq!(beat.unanswered.len(), UNANSWERED_MAX);
        assert!(beat.answered(Ref(10), secs(9_999), &ledger).is_some(), "the oldest stays");
    }
}
