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
//! reading is noticed too. Traffic of any other kind neither delays a heartbeat nor stands in for
//! its reply: clients that let it do so were dropped by their servers, or never noticed a
//! half-open connection.
//!
//! The server answers nothing while it runs a join (`wire/join_slow_blocks_socket`), so the socket
//! suspends the deadline while a join is unanswered: the verdict then belongs to the
//! [join clock](crate::socket::join_clock).
//!
//! The value lives and dies with one connection.

use core::time::Duration;

use crate::id::Ref;
use crate::socket::timer::JUMP;
use crate::time::Time;

/// Heartbeats of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeat {
    interval: Duration,
    timeout: Duration,
    next_due: Option<Time>,
    outstanding: Option<Outstanding>,
    probe_after_reply: bool,
    last_answered: Option<Ref>,
}

#[derive(Clone, Debug)]
struct Outstanding {
    /// None while suspended by an unanswered join.
    deadline: Option<Time>,
    written: Option<(Ref, Time)>,
    /// A clock jump was forgiven once already.
    forgiven: bool,
}

impl Heartbeat {
    /// `first` is the delay of the first heartbeat; it is not used with an interval of zero.
    pub(crate) fn new(interval: Duration, timeout: Duration, first: Duration, now: Time) -> Self {
        Self {
            interval,
            timeout,
            next_due: (!interval.is_zero()).then(|| now + first),
            outstanding: None,
            probe_after_reply: false,
            last_answered: None,
        }
    }

    pub(crate) const fn next_due(&self) -> Option<Time> {
        self.next_due
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.outstanding.as_ref().and_then(|outstanding| outstanding.deadline)
    }

    pub(crate) const fn last_answered(&self) -> Option<Ref> {
        self.last_answered
    }

    /// Whether a heartbeat waits to be written.
    pub(crate) fn is_owed(&self) -> bool {
        self.outstanding.as_ref().is_some_and(|outstanding| outstanding.written.is_none())
    }

    /// The interval has passed.
    pub(crate) fn fall_due(&mut self, now: Time) {
        let Some(due) = self.next_due else { return };
        // Kept on its grid, skipping what a late caller missed: at most one is outstanding.
        let late = now.since(due);
        let missed = late.as_nanos() / self.interval.as_nanos().max(1);
        let missed = u32::try_from(missed).unwrap_or(u32::MAX);
        self.next_due = Some(due + self.interval.saturating_mul(missed.saturating_add(1)));
        if self.outstanding.is_none() {
            // A caller so late that the time to answer is over, or who slept: the peer was not
            // asked yet, so its time begins now. The wake-up itself may have been told, and
            // answered, before.
            let unasked = late > JUMP || due + self.timeout <= now;
            self.owe(if unasked { now } else { due });
        }
    }

    /// Asks for a heartbeat now, unless one is on its way already.
    pub(crate) fn probe(&mut self, now: Time) {
        if self.outstanding.is_none() {
            self.owe(now);
        }
    }

    /// Asks for a heartbeat that is written after `after`: one in flight from before it says
    /// nothing about what came later.
    pub(crate) fn probe_after(&mut self, after: Ref, now: Time) {
        match &self.outstanding {
            None => self.owe(now),
            Some(Outstanding { written: Some((msg_ref, _)), .. }) if *msg_ref < after => {
                self.probe_after_reply = true;
            }
            Some(_) => {}
        }
    }

    pub(crate) const fn written(&mut self, msg_ref: Ref, now: Time) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.written = Some((msg_ref, now));
        }
    }

    /// A reply on topic `phoenix`: the round-trip time, if it answers the outstanding heartbeat.
    pub(crate) fn answered(&mut self, msg_ref: Ref, now: Time) -> Option<Duration> {
        let (written, at) = self.outstanding.as_ref()?.written?;
        if written != msg_ref {
            return None;
        }
        self.outstanding = None;
        self.last_answered = Some(msg_ref);
        if core::mem::take(&mut self.probe_after_reply) {
            self.owe(now);
        }
        Some(now.since(at))
    }

    /// Stops the deadline while a join is unanswered.
    pub(crate) const fn suspend(&mut self) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.deadline = None;
        }
    }

    /// Runs a suspended deadline again: the server is free to answer now.
    pub(crate) fn resume(&mut self, now: Time) {
        let fresh = now + self.timeout;
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.deadline.get_or_insert(fresh);
        }
    }

    /// The machine slept, so a passed deadline proves nothing: probe, and give the outstanding
    /// heartbeat one more timeout. Only once, or coarse ticks would keep a dead peer alive.
    pub(crate) fn wake(&mut self, now: Time) {
        let fresh = now + self.timeout;
        match &mut self.outstanding {
            None => self.owe(now),
            Some(outstanding) if !outstanding.forgiven => {
                outstanding.forgiven = true;
                if outstanding.deadline.is_some() {
                    outstanding.deadline = Some(fresh);
                }
            }
            Some(_) => {}
        }
    }

    fn owe(&mut self, due: Time) {
        self.outstanding = Some(Outstanding {
            deadline: Some(due + self.timeout),
            written: None,
            forgiven: false,
        });
    }
}
