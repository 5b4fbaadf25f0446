//! The registry of waiters: every future and stream that waits for something of a connection.
//!
//! ```text
//!   future ──register──▶ Waiters ◀──outcome── what the core reports
//!      ▲                  │  id → waker, what is waited for
//!      └─── woken after the lock is released
//! ```
//!
//! There is one registry for a connection, in one order: the few kinds first, because all of them
//! are visited when the connection changes, and pushes last, in the order of their ids, because
//! they come and go at the back. An entry is removed by its own future.
//!
//! Wakers belong to executors, which may run any code when one is cloned or dropped, so neither
//! happens under a lock: [`poll_parked`] clones a waker before the lock is taken, and what is
//! replaced or removed is handed out of the lock before it is dropped.

use core::task::{Context, Poll, Waker};
use std::collections::BTreeSet;

use super::error::{JoinFailed, JoinObstacle};
use super::signals::SignalQueue;
use crate::collections::ordered::{Numbered, Ordered};
use crate::event::cause::{LeaveOutcome, PushOutcome};
use crate::id::PushId;
use crate::time::Time;
use crate::topic::Topic;

/// The waker of one waiter, behind a lock.
#[derive(Debug, Default)]
pub(crate) struct Parked(Option<Waker>);

impl Parked {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Parks the waker of the task that polls, which is then pending.
    #[inline]
    pub(crate) fn park<T>(&mut self, task: &mut Task<'_>) -> Poll<T> {
        if !self.0.as_ref().is_some_and(|waker| waker.will_wake(task.waker)) {
            if task.spare.is_none() {
                task.wants_spare = true;
            } else {
                core::mem::swap(&mut self.0, &mut task.spare);
            }
        }
        Poll::Pending
    }

    /// Takes the waker, to be woken or dropped after the lock.
    #[inline]
    pub(crate) const fn take(&mut self) -> Option<Waker> {
        self.0.take()
    }
}

/// The task that polls something behind a lock, and a clone of its waker if one was asked for.
pub(crate) struct Task<'a> {
    waker: &'a Waker,
    /// Made before the lock is taken. A waker that it replaces is left here, to be dropped after the
    /// lock.
    spare: Option<Waker>,
    wants_spare: bool,
}

impl<'a> Task<'a> {
    pub(crate) const fn new(waker: &'a Waker, spare: Option<Waker>) -> Self {
        Self { waker, spare, wants_spare: false }
    }

    pub(crate) fn into_spare(self) -> Option<Waker> {
        self.spare
    }
}

/// Polls something that is behind a lock. `look` takes the lock; where it has nothing yet, it ends
/// with [`Parked::park`], and is called again if that asked for a clone of the waker.
#[inline(always)]
pub(crate) fn poll_parked<T>(
    cx: &Context<'_>,
    mut look: impl FnMut(&mut Task<'_>) -> Poll<T>,
) -> Poll<T> {
    let mut task = Task::new(cx.waker(), None);
    loop {
        let polled = look(&mut task);
        if polled.is_ready() || !task.wants_spare {
            return polled;
        }
        task.wants_spare = false;
        task.spare = Some(cx.waker().clone());
    }
}

/// The name of a waiter. The order of the variants is the order in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WaiterId {
    /// A stream of signals.
    Signals(u64),
    /// For a change of the connection.
    Status(u64),
    /// For the core to have finished something.
    Shutdown(u64),
    /// For the end of a leave.
    Leave(u64),
    /// For a join.
    Join(u64),
    /// For space in the push queue.
    Capacity(u64),
    /// For the outcome of a push.
    Push(PushId),
}

impl Numbered for WaiterId {
    fn number(self) -> u64 {
        match self {
            Self::Signals(id)
            | Self::Status(id)
            | Self::Shutdown(id)
            | Self::Leave(id)
            | Self::Join(id)
            | Self::Capacity(id) => id,
            Self::Push(push) => push.as_u64(),
        }
    }
}

/// What is waited for, and what came of it.
pub(super) enum Wait {
    Signals(Box<SignalQueue>),
    Status,
    Shutdown,
    Leave { topic: Topic, outcome: Option<LeaveOutcome> },
    Join(Box<JoinWait>),
    Capacity,
    Push(PushWait),
}

/// A join that is waited for.
pub(super) struct JoinWait {
    pub(super) topic: Topic,
    /// The last obstacle that was seen.
    pub(super) last: Option<JoinObstacle>,
    pub(super) result: Option<Result<(), JoinFailed>>,
}

/// A push whose outcome is waited for.
#[derive(Default)]
pub(super) struct PushWait {
    pub(super) outcome: Option<PushOutcome>,
    /// The bytes that the outcome keeps alive while it is not taken; zero when it is in memory of
    /// its own.
    pub(super) kept: usize,
}

/// One waiter. Dropped after the lock: its waker is an executor's, and what came may be memory that
/// the application owns.
pub(super) struct Waiter {
    parked: Parked,
    /// When it stops waiting.
    deadline: Option<Time>,
    pub(super) wait: Wait,
}

/// Every waiter of a connection.
#[derive(Default)]
pub(super) struct Waiters {
    entries: Ordered<WaiterId, Waiter>,
    deadlines: BTreeSet<(Time, WaiterId)>,
    next_id: u64,
}

impl Waiters {
    /// A number for a waiter that the core has none for.
    pub(super) const fn mint(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Registers a waiter whose id is not in use.
    #[inline]
    pub(super) fn register(&mut self, id: WaiterId, wait: Wait, waker: Option<Waker>) {
        let parked = Parked(waker);
        self.entries.insert(id, Waiter { parked, deadline: None, wait });
    }

    /// Gives a waiter a deadline, which [`pop_expired`](Self::pop_expired) reports.
    pub(super) fn arm(&mut self, id: WaiterId, deadline: Time) {
        if let Some(waiter) = self.entries.get_mut(id) {
            waiter.deadline = Some(deadline);
            self.deadlines.insert((deadline, id));
        }
    }

    /// Takes the deadline back.
    pub(super) fn disarm(&mut self, id: WaiterId) {
        if let Some(deadline) = self.entries.get_mut(id).and_then(|waiter| waiter.deadline.take()) {
            self.remove_deadline(deadline, id);
        }
    }

    fn remove_deadline(&mut self, deadline: Time, id: WaiterId) {
        self.deadlines.remove(&(deadline, id));
        // A search tree keeps its last node, and most connections never join again.
        if self.deadlines.is_empty() {
            self.deadlines = BTreeSet::new();
        }
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Takes the deadline of a waiter whose time has come.
    pub(super) fn pop_expired(&mut self, now: Time) -> Option<WaiterId> {
        let (at, id) = self.deadlines.first().copied().filter(|(at, _)| *at <= now)?;
        if let Some(waiter) = self.entries.get_mut(id) {
            waiter.deadline = None;
        }
        self.remove_deadline(at, id);
        Some(id)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: WaiterId) -> Option<&mut Waiter> {
        self.entries.get_mut(id)
    }

    /// Removes a waiter, for the caller to drop after the lock.
    #[inline]
    #[must_use = "a waiter is dropped after the lock"]
    pub(super) fn remove(&mut self, id: WaiterId) -> Option<Waiter> {
        let waiter = self.entries.remove(id)?;
        if let Some(deadline) = waiter.deadline {
            self.remove_deadline(deadline, id);
        }
        if !matches!(id, WaiterId::Push(_)) {
            // Pushes come again soon; the others may have been the last.
            self.entries.give_back();
        }
        Some(waiter)
    }

    /// Takes the outcome of a push and the bytes that it keeps alive, and its waiter with it; the id of the
    /// waiter if there is no outcome yet, and `None` if there is no waiter.
    #[inline]
    pub(super) fn take_push(
        &mut self,
        push: PushId,
    ) -> Option<Result<(PushOutcome, usize), WaiterId>> {
        let id = WaiterId::Push(push);
        let Wait::Push(wait) = &mut self.entries.get_mut(id)?.wait else { return None };
        let Some(outcome) = wait.outcome.take() else { return Some(Err(id)) };
        let kept = wait.kept;
        // It has no deadline, and was woken, so it has no waker.
        drop(self.entries.remove(id));
        Some(Ok((outcome, kept)))
    }

    /// The waiters before the first one that `last` does not reach.
    fn up_to(&mut self, last: WaiterId) -> impl Iterator<Item = (WaiterId, &mut Waiter)> {
        self.entries.iter_mut().take_while(move |(id, _)| *id <= last)
    }

    /// The streams of signals.
    pub(super) fn signals(&mut self) -> impl Iterator<Item = &mut Waiter> {
        self.up_to(WaiterId::Signals(u64::MAX)).map(|(_, waiter)| waiter)
    }

    /// Whether there is a stream of signals.
    #[inline]
    pub(super) fn has_signals(&self) -> bool {
        self.entries.first().is_some_and(|(id, _)| matches!(id, WaiterId::Signals(_)))
    }

    /// Those that wait for a change of the connection.
    pub(super) fn watchers(&mut self) -> impl Iterator<Item = &mut Waiter> {
        let status = |(id, waiter)| matches!(id, WaiterId::Status(_)).then_some(waiter);
        self.up_to(WaiterId::Status(u64::MAX)).filter_map(status)
    }

    /// Whether some wait for the core to have finished something.
    #[inline]
    pub(super) fn has_shutdowns(&self) -> bool {
        // Most often there are waiters of pushes only.
        self.entries.first().is_some_and(|(id, _)| id <= WaiterId::Shutdown(u64::MAX))
    }

    /// Those that wait for the core to have finished something.
    #[inline]
    pub(super) fn shutdowns(&mut self) -> impl Iterator<Item = &mut Waiter> {
        let shutdown = |(id, waiter)| matches!(id, WaiterId::Shutdown(_)).then_some(waiter);
        self.up_to(WaiterId::Shutdown(u64::MAX)).filter_map(shutdown)
    }

    /// Those that wait for the end of a leave.
    pub(super) fn leaves(&mut self) -> impl Iterator<Item = &mut Waiter> {
        let leave = |(id, waiter)| matches!(id, WaiterId::Leave(_)).then_some(waiter);
        self.up_to(WaiterId::Leave(u64::MAX)).filter_map(leave)
    }

    /// Those that wait for the outcome of a join.
    pub(super) fn joins(&mut self) -> impl Iterator<Item = &mut JoinWait> {
        self.up_to(WaiterId::Join(u64::MAX)).filter_map(|(_, waiter)| waiter.join())
    }

    /// Gives back the room that a busy time needed.
    pub(super) fn give_back(&mut self) {
        self.entries.shrink();
    }
}

impl Waiter {
    /// Takes the waker, to be woken after the lock.
    #[inline]
    pub(super) const fn take_waker(&mut self) -> Option<Waker> {
        self.parked.take()
    }

    /// Swaps the waker, so that the one before is dropped after the lock.
    pub(super) const fn swap_waker(&mut self, waker: &mut Option<Waker>) {
        core::mem::swap(&mut self.parked.0, waker);
    }

    /// As [`Parked::park`].
    #[inline]
    pub(super) fn park<T>(&mut self, task: &mut Task<'_>) -> Poll<T> {
        self.parked.park(task)
    }

    pub(super) fn join(&mut self) -> Option<&mut JoinWait> {
        match &mut self.wait {
            Wait::Join(join) => Some(join),
            _ => None,
        }
    }
}
