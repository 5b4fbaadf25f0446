//! The heartbeat machine: whether the peer still answers.
//!
//! ```text
//!            due / probe             written                reply (topic and ref)
//!   Quiet ───────────────▶ Owed ───────────────▶ InFlight ──────────────────────▶ Quiet
//!                            │  deadline            │  deadline
//!                            └──────────▶ dead ◀────┘
//! ```
//!
//! The deadline runs from the time when the heartbeat fell *due*, even if it could not be written,
//! so a peer that stopped reading is detected too. Transferred bytes extend the deadline, and
//! acknowledged ones start the timeout over; see the [ledger](crate::socket::progress). Other
//! traffic does not delay a heartbeat, because servers have dropped clients whose heartbeats were
//! delayed by other traffic. Other traffic does not replace the reply either, because a client that
//! accepts other traffic as a reply never detects a half-open connection.
//!
//! While bytes extend the deadline of an unanswered heartbeat, further heartbeats are written at
//! their interval, because Phoenix closes a connection on which it reads nothing for 60 s
//! (`wire/idle_timeout_close`). At most one of them is unwritten, and the deadline of the oldest
//! counts. A reply to one heartbeat also answers those before it, because the server replies in
//! order.
//!
//! The server answers nothing while it runs a join (`wire/join_slow_blocks_socket`), so the
//! deadline is suspended while a join is unanswered; the [join clock](crate::socket::join_clock)
//! runs instead. After the last join, the timeouts of all unanswered heartbeats start over.
//!
//! The machine belongs to one connection.

use core::time::Duration;
use std::collections::VecDeque;

use crate::id::Ref;
use crate::socket::progress::{Baseline, Ledger};
use crate::socket::timer::JUMP;
use crate::time::Time;

/// The maximum number of unanswered heartbeats. When one more falls due, the second oldest is
/// dropped: the oldest has the deadline, and the newest are the most likely to be answered.
const UNANSWERED_MAX: usize = 64;

/// The heartbeats of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeat {
    interval: Duration,
    timeout: Duration,
    next_due: Option<Time>,
    /// Unanswered heartbeats, oldest first. Only the last may be unwritten.
    unanswered: VecDeque<Beat>,
    /// Whether the deadline is suspended, because a join is unanswered.
    suspended: bool,
    probe_after_reply: bool,
    last_answered: Option<Ref>,
}

#[derive(Clone, Debug)]
struct Beat {
    /// The time at which the heartbeat fell due. Unlike `due`, it does not change when the deadline
    /// is moved.
    asked: Time,
    /// The time from which the deadline of the heartbeat runs.
    due: Time,
    baseline: Baseline,
    written: Option<(Ref, Time)>,
    /// Whether the deadline was already extended because the caller was late.
    forgiven: bool,
}

impl Beat {
    /// Starts the timeout over. Bytes that were written after the heartbeat still extend nothing.
    const fn restart(&mut self, now: Time, ledger: &Ledger) {
        self.due = now;
        ledger.restart(&mut self.baseline);
    }
}

impl Heartbeat {
    /// Creates the machine of a connection. `first` is the delay of the first heartbeat. An
    /// interval of zero disables heartbeats, except probes.
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

    /// The time at which an unanswered heartbeat means a dead connection.
    pub(crate) fn deadline(&self, ledger: &Ledger) -> Option<Time> {
        let oldest = self.unanswered.front().filter(|_| !self.suspended)?;
        Some(oldest.due + self.timeout + ledger.extension(&oldest.baseline))
    }

    pub(crate) const fn last_answered(&self) -> Option<Ref> {
        self.last_answered
    }

    /// Whether a heartbeat must be written.
    pub(crate) fn is_owed(&self) -> bool {
        self.unanswered.back().is_some_and(|beat| beat.written.is_none())
    }

    /// Whether a heartbeat is unanswered.
    pub(crate) fn is_unanswered(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Called when the interval has passed.
    pub(crate) fn fall_due(&mut self, now: Time, ledger: &Ledger) {
        let Some(due) = self.next_due else { return };
        // The due times are multiples of the interval from the first one; those that a late caller
        // missed are skipped.
        let late = now.since(due);
        let missed = late.as_nanos() / self.interval.as_nanos().max(1);
        let missed = u32::try_from(missed).unwrap_or(u32::MAX);
        self.next_due = Some(due + self.interval.saturating_mul(missed.saturating_add(1)));
        match self.unanswered.front() {
            None => {
                // If the caller is so late that the timeout has already passed, or the machine was
                // suspended, the timeout begins now, because the heartbeat was not sent yet. This
                // also applies if a probe after a wake-up was already answered.
                let unasked = late > JUMP || due + self.timeout <= now;
                self.owe(if unasked { now } else { due }, ledger);
            }
            // The oldest has been unanswered for longer than its timeout, because bytes, a join or
            // a late caller moved its deadline. A further heartbeat is sent, so that Phoenix does
            // not close the connection as idle.
            Some(oldest) if !self.is_owed() && oldest.asked + self.timeout <= now => {
                self.owe(now, ledger);
            }
            Some(_) => {}
        }
    }

    /// Requests a heartbeat now, unless one is unanswered.
    pub(crate) fn probe(&mut self, now: Time, ledger: &Ledger) {
        if self.unanswered.is_empty() {
            self.owe(now, ledger);
        }
    }

    /// Requests a heartbeat that is written after `after`, because the reply to an earlier
    /// heartbeat proves nothing about later frames.
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

    /// Called when the transport has flushed everything, heartbeats included.
    pub(crate) fn flushed(&mut self, ledger: &Ledger) {
        for beat in self.unanswered.iter_mut().filter(|beat| beat.written.is_some()) {
            ledger.flush(&mut beat.baseline);
        }
    }

    /// Called when the peer has acknowledged further bytes. The timeouts of the heartbeats after
    /// these bytes start over, because the peer is reading and has not reached the heartbeats.
    pub(crate) fn acknowledged(&mut self, now: Time, ledger: &Ledger) {
        for beat in &mut self.unanswered {
            if ledger.acknowledges_ahead_of(&beat.baseline) {
                beat.restart(now, ledger);
            }
        }
    }

    /// Handles a reply on topic `phoenix`. Returns the round-trip time if it answers a heartbeat.
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
            // Frees the memory of the queue when it is empty, because usually no heartbeat is
            // unanswered.
            self.unanswered = VecDeque::new();
        }
        if core::mem::take(&mut self.probe_after_reply) && !self.is_owed() {
            self.owe(now, ledger);
        }
        written.map(|(_, at)| now.since(at))
    }

    /// Suspends the deadline, because a join is unanswered.
    pub(crate) const fn suspend(&mut self) {
        // Protocol: HB-6.
        self.suspended = true;
    }

    /// Resumes the deadline, because no join is unanswered and the server can answer.
    pub(crate) fn resume(&mut self, now: Time, ledger: &Ledger) {
        if core::mem::take(&mut self.suspended) {
            for beat in &mut self.unanswered {
                beat.restart(now, ledger);
            }
        }
    }

    /// Probes the peer, or restarts the timeouts of the unanswered heartbeats, because after a late
    /// call a passed deadline does not prove that the peer is dead. Each heartbeat is restarted only
    /// once; otherwise a caller that is always late would never detect a dead peer.
    pub(crate) fn forgive(&mut self, now: Time, ledger: &Ledger) {
        if self.unanswered.is_empty() {
            return self.owe(now, ledger);
        }
        for beat in self.unanswered.iter_mut().filter(|beat| !beat.forgiven) {
            beat.forgiven = true;
            beat.restart(now, ledger);
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

    /// A heartbeat every 30 s from 20 s on, with a timeout of 10 s.
    fn heartbeat() -> (Heartbeat, Ledger) {
        let (interval, timeout) = (Duration::from_secs(30), Duration::from_secs(10));
        (Heartbeat::new(interval, timeout, Duration::from_secs(20), Time::ZERO), ledger())
    }

    /// Each row of the diagram: Quiet, Owed, `InFlight`, and back.
    #[test]
    fn heartbeat_is_owed_written_and_answered() {
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
        assert_eq!(beat.unanswered.len(), 1, "no second probe");
    }

    #[test]
    fn zero_interval_disables_heartbeats() {
        let ledger = ledger();
        let timeout = Duration::from_secs(10);
        let mut beat = Heartbeat::new(Duration::ZERO, timeout, Duration::ZERO, secs(1));
        beat.fall_due(secs(1), &ledger);
        assert_eq!((beat.next_due(), beat.is_owed()), (None, false));
    }

    /// After a late call, the missed heartbeats are skipped, and the next one is due at its
    /// original time.
    #[test]
    fn late_heartbeat_stays_on_its_grid() {
        let (mut beat, ledger) = heartbeat();
        beat.fall_due(secs(81), &ledger);
        assert_eq!(beat.next_due(), Some(secs(110)));
        assert_eq!(beat.deadline(&ledger), Some(secs(91)), "the peer had not been asked");
        let (mut beat, _) = heartbeat();
        beat.fall_due(secs(24), &ledger);
        assert_eq!(beat.deadline(&ledger), Some(secs(30)), "a little late counts from the grid");
        let (mut beat, _) = heartbeat();
        beat.fall_due(secs(26), &ledger);
        assert_eq!(beat.deadline(&ledger), Some(secs(36)), "as late as after a suspension");
    }

    #[test]
    fn unanswered_join_suspends_the_deadline() {
        let (mut beat, ledger) = heartbeat();
        beat.suspend();
        beat.fall_due(secs(20), &ledger);
        assert_eq!(beat.deadline(&ledger), None);
        beat.resume(secs(45), &ledger);
        assert_eq!(beat.deadline(&ledger), Some(secs(55)), "the timeout starts over");
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

    /// The reply to a heartbeat that was written before a join proves nothing about the join.
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
        assert_eq!(beat.unanswered.len(), 1, "no further one");
    }

    /// Within the timeout of a heartbeat no further one is sent, even with a short interval.
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
        assert!(beat.is_owed(), "the deadline was moved, so a further one is sent");
    }

    #[test]
    fn bytes_after_flush_extend_nothing() {
        use crate::event::input::Progress;
        let config = Config::new("ws://localhost/").unwrap().send_rate_min(100);
        let (mut beat, mut ledger) = (heartbeat().0, Ledger::new(&config));
        beat.probe(secs(1), &ledger);
        beat.written(Ref(1), secs(1));
        ledger.report(Progress { written: 100, ..Progress::default() }, Ref(2));
        beat.flushed(&ledger);
        ledger.report(Progress { written: 900, ..Progress::default() }, Ref(3));
        assert_eq!(beat.deadline(&ledger), Some(secs(12)));
    }

    /// A restarted timeout is not extended by bytes after the heartbeat either.
    #[test]
    fn restart_keeps_the_flush() {
        use crate::event::input::Progress;
        let config = Config::new("ws://localhost/").unwrap().send_rate_min(100);
        let restarts: [fn(&mut Heartbeat, &Ledger); 2] = [
            |beat, ledger| beat.forgive(secs(5), ledger),
            |beat, ledger| {
                beat.suspend();
                beat.resume(secs(5), ledger);
            },
        ];
        for restart in restarts {
            let (mut beat, mut ledger) = (heartbeat().0, Ledger::new(&config));
            beat.probe(secs(1), &ledger);
            beat.written(Ref(1), secs(1));
            ledger.report(Progress { written: 100, ..Progress::default() }, Ref(2));
            beat.flushed(&ledger);
            restart(&mut beat, &ledger);
            ledger.report(Progress { written: 900, ..Progress::default() }, Ref(3));
            assert_eq!(beat.deadline(&ledger), Some(secs(5 + 10 + 1)));
        }
    }

    /// Acknowledged bytes ahead of a heartbeat start its timeout over. Acknowledged bytes after it do
    /// not, because the peer has then read the heartbeat and should have answered.
    #[test]
    fn acknowledged_bytes_restart_the_timeout() {
        use crate::event::input::Progress;
        let config = Config::new("ws://localhost/").unwrap().send_rate_min(100);
        let (mut beat, mut ledger) = (heartbeat().0, Ledger::new(&config));
        let mut acknowledge = |at, written, acknowledged, beat: &mut Heartbeat| {
            let acknowledged_next = acknowledged + 100;
            let progress =
                Progress { written, acknowledged, acknowledged_next, ..Progress::default() };
            assert!(ledger.report(progress, Ref(1)));
            beat.acknowledged(secs(at), &ledger);
            if written == 900 {
                beat.flushed(&ledger);
            }
            beat.deadline(&ledger)
        };
        beat.fall_due(secs(20), &Ledger::new(&config));
        assert_eq!(acknowledge(25, 800, 100, &mut beat), Some(secs(25 + 10 + 1)));
        beat.written(Ref(1), secs(26));
        assert_eq!(acknowledge(30, 900, 200, &mut beat), Some(secs(30 + 10 + 1)));
        assert_eq!(acknowledge(900, 1_500, 900, &mut beat), Some(secs(900 + 10)));
        assert_eq!(acknowledge(905, 1_500, 1_000, &mut beat), Some(secs(900 + 10)));
    }

    /// While bytes or a join extend the deadline, heartbeats continue; a reply answers all earlier
    /// ones.
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

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;

    impl Heartbeat {
        pub(crate) fn canonical(&self, form: &mut Form<'_>, ledger: &Ledger) {
            let Self {
                interval: _,
                timeout,
                next_due,
                unanswered,
                suspended,
                probe_after_reply,
                // Omitted: the form of the join clock contains what the last answer proves about
                // the joins.
                last_answered: _,
            } = self;
            form.option(*next_due, Form::deadline);
            form.number(unanswered.len() as u64);
            for Beat { asked, due, baseline, written, forgiven } in unanswered {
                form.time(*asked, *timeout);
                let longest = form.longest_answer();
                form.time(*due, longest);
                baseline.canonical(form, ledger);
                // The time of writing is omitted: it only serves to report the round-trip time.
                form.option(*written, |form, (msg_ref, _)| form.msg_ref(msg_ref));
                form.flag(*forgiven);
            }
            form.flag(*suspended);
            form.flag(*probe_after_reply);
        }
    }
}
