//! The heartbeat machine: does the peer still answer?
//!
//! ```text
//!            due / probe             written                reply (topic and ref)
//!   Quiet ───────────────▶ Owed ───────────────▶ InFlight ──────────────────────▶ Quiet
//!                            │  deadline            │  deadline
//!                            └──────────▶ dead ◀────┘
//! ```
//!
//! The deadline runs from when the heartbeat fell *due*, written or not, so a peer that stopped
//! reading is noticed too. Bytes extend it, as the [ledger](crate::socket::progress) says. Traffic
//! neither delays a heartbeat nor stands in for its reply: clients that let it do so were dropped by
//! their servers, or never noticed a half-open connection.
//!
//! While bytes extend the deadline of an unanswered heartbeat, further ones are written on their
//! grid, because Phoenix closes a connection on which it reads nothing for 60 s
//! (`wire/idle_timeout_close`). At most one is unwritten. The deadline is that of the oldest; a reply
//! to any of them answers those before it, too, because the server replies in order.
//!
//! The server answers nothing while it runs a join (`wire/join_slow_blocks_socket`), so the socket
//! suspends the deadline while a join is unanswered: the verdict then belongs to the
//! [join clock](crate::socket::join_clock).
//!
//! The value lives and dies with one connection.

use core::time::Duration;
use std::collections::VecDeque;

use crate::id::Ref;
use crate::socket::progress::{Baseline, Ledger};
use crate::socket::timer::JUMP;
use crate::time::Time;

/// How many heartbeats may be unanswered. One more is written all the same, in place of the second
/// oldest.
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
                // A caller so late that the time to answer is over, or who slept: the peer was not
                // asked yet, so its time begins now. The wake-up itself may have been told, and
                // answered, before.
                let unasked = late > JUMP || due + self.timeout <= now;
                self.owe(if unasked { now } else { due }, ledger);
            }
            // Only while bytes buy time, or a join does: else the verdict is near.
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

    /// Asks for a heartbeat that is written after `after`: one in flight from before it says
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
            // An idle connection keeps no capacity for them.
            self.unanswered = VecDeque::new();
        }
        if core::mem::take(&mut self.probe_after_reply) && !self.is_owed() {
            self.owe(now, ledger);
        }
        written.map(|(_, at)| now.since(at))
    }

    /// Stops the deadline while a join is unanswered.
    pub(crate) fn suspend(&mut self) {
        self.suspended = !self.unanswered.is_empty();
    }

    /// Runs a suspended deadline again: the server is free to answer now.
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
                if !self.suspended {
                    (oldest.due, oldest.baseline) = (now, ledger.baseline());
                }
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
