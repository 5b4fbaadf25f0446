//! The write stall clock: for how long has the transport taken no frame?
//!
//! ```text
//!          refuses a frame           write_stall_timeout, later by what was written
//!   Free ──────────────────▶ Blocked ──────────────────────────────────▶ dead (abort, reconnect)
//!    ▲                        │  │ ▲
//!    └── takes frames again ──┘  │ │ the last join was answered: the time starts over
//!                                ▼ │
//!                              suspended: a join is unanswered
//! ```
//!
//! Only with heartbeats off: a heartbeat that cannot be written has a deadline of its own. A server that
//! runs a join does not read, so the clock is suspended while one is unanswered.
//!
//! The value lives and dies with one connection.

use core::time::Duration;

use crate::config::Config;
use crate::socket::progress::Ledger;
use crate::time::Time;

/// The time since the transport refused a frame.
#[derive(Clone, Debug)]
pub(crate) struct WriteStall {
    /// None with heartbeats on.
    timeout: Option<Duration>,
    blocked: Option<Blocked>,
    suspended: bool,
}

#[derive(Clone, Debug)]
struct Blocked {
    /// From when the deadline runs, and how many bytes were written then.
    since: Time,
    written: u64,
}

impl Blocked {
    const fn new(now: Time, ledger: &Ledger) -> Self {
        Self { since: now, written: ledger.written() }
    }
}

impl WriteStall {
    pub(crate) fn new(config: &Config) -> Self {
        let off = config.heartbeat_interval.is_zero();
        Self { timeout: off.then_some(config.write_stall_timeout), blocked: None, suspended: false }
    }

    #[inline]
    pub(crate) const fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// When the transport is taken for dead.
    pub(crate) fn deadline(&self, ledger: &Ledger) -> Option<Time> {
        let blocked = self.blocked.as_ref().filter(|_| !self.suspended)?;
        Some(blocked.since + self.timeout? + ledger.bought_by_writing(blocked.written))
    }

    /// The transport refuses frames.
    pub(crate) const fn block(&mut self, now: Time, ledger: &Ledger) {
        if self.blocked.is_none() {
            self.blocked = Some(Blocked::new(now, ledger));
        }
    }

    /// The transport takes frames again.
    pub(crate) const fn unblock(&mut self) {
        self.blocked = None;
    }

    /// A join is unanswered.
    pub(crate) const fn suspend(&mut self) {
        self.suspended = true;
    }

    /// No join is unanswered any more.
    pub(crate) const fn resume(&mut self, now: Time, ledger: &Ledger) {
        if core::mem::replace(&mut self.suspended, false) {
            self.restart(now, ledger);
        }
    }

    /// The caller was late: the time starts over. The probe that goes with it has a deadline of its
    /// own, so this cannot be put off for ever.
    pub(crate) const fn restart(&mut self, now: Time, ledger: &Ledger) {
        if self.blocked.is_some() {
            self.blocked = Some(Blocked::new(now, ledger));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::input::Progress;
    use crate::id::Ref;

    const fn secs(secs: u64) -> Time {
        Time::from_millis(secs * 1_000)
    }

    fn config() -> Config {
        let config = Config::new("ws://localhost/").unwrap().heartbeat_interval(Duration::ZERO);
        config.write_stall_timeout(Duration::from_secs(30)).send_rate_min(100)
    }

    fn stall() -> (WriteStall, Ledger) {
        (WriteStall::new(&config()), Ledger::new(&config()))
    }

    #[test]
    fn deadline_runs_while_blocked() {
        let (mut stall, mut ledger) = stall();
        assert_eq!(stall.deadline(&ledger), None, "free");
        stall.block(secs(1), &ledger);
        stall.block(secs(9), &ledger);
        assert_eq!(stall.deadline(&ledger), Some(secs(31)), "blocked once");
        ledger.report(Progress { read: 0, written: 200, flushed: false }, Ref(1));
        assert_eq!(stall.deadline(&ledger), Some(secs(33)), "bytes extend it");
        stall.restart(secs(10), &ledger);
        assert_eq!(
            stall.deadline(&ledger),
            Some(secs(40)),
            "what was written before counts no more"
        );
        stall.unblock();
        assert_eq!((stall.deadline(&ledger), stall.is_blocked()), (None, false));
        stall.restart(secs(50), &ledger);
        assert!(!stall.is_blocked(), "free stays free");
    }

    #[test]
    fn unanswered_join_suspends_it() {
        let (mut stall, ledger) = stall();
        stall.suspend();
        stall.block(secs(1), &ledger);
        assert_eq!((stall.deadline(&ledger), stall.is_blocked()), (None, true));
        stall.resume(secs(5), &ledger);
        assert_eq!(stall.deadline(&ledger), Some(secs(35)));
        stall.resume(secs(9), &ledger);
        assert_eq!(stall.deadline(&ledger), Some(secs(35)), "it was running");
    }

    #[test]
    fn heartbeats_switch_it_off() {
        let config = config().heartbeat_interval(Duration::from_secs(30));
        let (mut stall, ledger) = (WriteStall::new(&config), Ledger::new(&config));
        stall.block(secs(1), &ledger);
        assert_eq!((stall.deadline(&ledger), stall.is_blocked()), (None, true));
    }
}
