//! The join clock: whose turn is it, and is the server still working on it?
//!
//! The server runs the joins of a socket one after another and answers nothing meanwhile
//! (`wire/join_slow_blocks_socket`), so only the *oldest* unanswered join is being worked on and
//! only its clock runs.
//!
//! ```text
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
//! An overdue join is reported and probed with one heartbeat, and no leave is sent: the late ok
//! would otherwise arrive between the leave and the next join (`wire/join_timeout_leave_rejoin`).
//! Refs are minted when a frame is written, so comparing refs tells which was written first.
//!
//! Both times are extended by the bytes that the connection has moved since the clock started, as the
//! [ledger](crate::socket::progress) says: a long reply on a slow link is not a join that stalls.
//!
//! The joins are kept in order of their refs, so a reply finds its join by bisection, whatever the order
//! in which thousands are answered. There are at most `join_concurrency`.
//!
//! The value lives and dies with one connection.

use core::time::Duration;

use crate::collections::ordered::Ordered;
use crate::id::Ref;
use crate::socket::progress::{Baseline, Ledger};
use crate::time::Time;
use crate::topic::Topic;

/// The unanswered joins of one connection, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct JoinClock {
    unanswered: Ordered<Ref, Unanswered>,
    started: Option<(Time, Baseline)>,
    overdue: bool,
    forgiven: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Unanswered {
    pub(crate) join_ref: Ref,
    pub(crate) topic: Topic,
    pub(crate) written: Time,
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

    /// When the oldest join has taken `limit`, with what the bytes since then buy on top.
    pub(crate) fn deadline(&self, limit: Duration, ledger: &Ledger) -> Option<Time> {
        let (started, baseline) = self.started.as_ref()?;
        Some(*started + limit + ledger.bought(baseline))
    }

    /// Everything written is with the operating system, joins included.
    pub(crate) fn flushed(&mut self, ledger: &Ledger) {
        if let Some((_, baseline)) = &mut self.started {
            ledger.flush(baseline);
        }
    }

    /// Whether the oldest join took longer than `join_timeout`.
    pub(crate) const fn is_overdue(&self) -> bool {
        self.overdue
    }

    pub(crate) fn written(&mut self, join_ref: Ref, topic: Topic, now: Time, ledger: &Ledger) {
        self.unanswered.insert(join_ref, Unanswered { join_ref, topic, written: now });
        if self.started.is_none() {
            self.restart(now, ledger);
        }
    }

    /// Takes a join off the list: it was answered, or its answer will never come.
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

    /// Takes the joins that were written before `answered`, a heartbeat that the server answered:
    /// it answers in order, so their replies are lost.
    pub(crate) fn take_lost(
        &mut self,
        answered: Ref,
        now: Time,
        ledger: &Ledger,
    ) -> Vec<Unanswered> {
        let mut lost = Vec::new();
        while self.oldest().is_some_and(|join| join.join_ref < answered) {
            lost.extend(self.unanswered.pop_first().map(|(_, join)| join));
        }
        if !lost.is_empty() {
            self.restart(now, ledger);
        }
        lost
    }

    pub(crate) const fn expire(&mut self) {
        self.overdue = true;
    }

    /// The caller was late: the clock of the oldest join starts over, once.
    pub(crate) fn forgive(&mut self, now: Time, ledger: &Ledger) {
        if !self.forgiven {
            self.restart(now, ledger);
            self.forgiven = true;
        }
    }

    fn restart(&mut self, now: Time, ledger: &Ledger) {
        self.started = (!self.is_empty()).then(|| (now, ledger.baseline()));
        self.overdue = false;
        self.forgiven = false;
    }
}
