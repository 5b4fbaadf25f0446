//! The write stall clock: whether a transport that takes no frames is dead.
//!
//! ```text
//!          refuses a frame           write_stall_timeout, extended by written bytes
//!   Free ──────────────────▶ Blocked ──────────────────────────────────▶ dead (abort, reconnect)
//!    ▲                        │  │ ▲
//!    └── takes frames again ──┘  │ │ the last join was answered: the timeout starts over
//!                                ▼ │
//!                              suspended: a join is unanswered
//! ```
//!
//! The clock is used only if heartbeats are disabled. With heartbeats it is not needed, because a
//! heartbeat that cannot be written has its own deadline. While the server runs a join, it does not
//! read, so the clock is suspended while a join is unanswered.
//!
//! The clock belongs to one connection.

use core::time::Duration;

use crate::config::Config;
use crate::socket::progress::Ledger;
use crate::time::Time;

/// The clock of a transport that refuses frames.
#[derive(Clone, Debug)]
pub(crate) struct WriteStall {
    /// `None` if heartbeats are enabled.
    timeout: Option<Duration>,
    blocked: Option<Blocked>,
    suspended: bool,
}

#[derive(Clone, Debug)]
struct Blocked {
    /// The time from which the deadline runs, with the bytes written by then.
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

    /// The time at which the transport counts as dead.
    pub(crate) fn deadline(&self, ledger: &Ledger) -> Option<Time> {
        let blocked = self.blocked.as_ref().filter(|_| !self.suspended)?;
        Some(blocked.since + self.timeout? + ledger.extension_by_writing(blocked.written))
    }

    /// Starts the clock, because the transport refuses frames.
    pub(crate) const fn block(&mut self, now: Time, ledger: &Ledger) {
        if self.blocked.is_none() {
            self.blocked = Some(Blocked::new(now, ledger));
        }
    }

    /// Stops the clock, because the transport takes frames again.
    pub(crate) const fn unblock(&mut self) {
        self.blocked = None;
    }

    /// Suspends the clock, because a join is unanswered.
    pub(crate) const fn suspend(&mut self) {
        self.suspended = true;
    }

    /// Resumes the clock, because no join is unanswered.
    pub(crate) const fn resume(&mut self, now: Time, ledger: &Ledger) {
        if core::mem::replace(&mut self.suspended, false) {
            self.restart(now, ledger);
        }
    }

    /// Restarts the timeout, because the caller was late. The probe that is sent at the same time
    /// has its own deadline, so a dead transport is still detected.
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
        ledger.report(Progress { written: 200, ..Progress::default() }, Ref(1));
        assert_eq!(stall.deadline(&ledger), Some(secs(33)), "bytes extend it");
        stall.restart(secs(10), &ledger);
        assert_eq!(stall.deadline(&ledger), Some(secs(40)), "earlier bytes no longer count");
        stall.unblock();
        assert_eq!((stall.deadline(&ledger), stall.is_blocked()), (None, false));
        stall.restart(secs(50), &ledger);
        assert!(!stall.is_blocked(), "free stays free");
    }

    #[test]
    fn unanswered_join_suspends_clock() {
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
    fn heartbeats_disable_clock() {
        let config = config().heartbeat_interval(Duration::from_secs(30));
        let (mut stall, ledger) = (WriteStall::new(&config), Ledger::new(&config));
        stall.block(secs(1), &ledger);
        assert_eq!((stall.deadline(&ledger), stall.is_blocked()), (None, true));
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;

    impl WriteStall {
        pub(crate) fn canonical(&self, form: &mut Form<'_>, ledger: &Ledger) {
            let Self { timeout, blocked, suspended } = self;
            form.flag(blocked.is_some());
            // Without a timeout, `since` and `written` make no difference.
            let running = blocked.as_ref().zip(*timeout);
            form.option(running, |form, (Blocked { since, written }, timeout)| {
                form.time(*since, timeout + form.config.progress_max);
                form.number(ledger.written_since(*written));
            });
            form.flag(*suspended);
        }
    }
}
