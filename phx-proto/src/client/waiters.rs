//! The registry of waiters: an entry for every future and stream that waits for an event of a
//! connection.
//!
//! ```text
//!   future ──register──▶ Waiters ◀──outcome── what the core reports
//!      ▲                  │  id → waker, kind of wait
//!      └─── woken after the lock is released
//! ```
//!
//! A connection has one registry, sorted by id. The kinds with few entries come first, because all
//! of them are visited when the connection changes. Pushes come last, in the order of their ids,
//! because they are added and removed at the back. A future removes its own entry.
//!
//! Wakers belong to executors, which may run any code when a waker is cloned or dropped, so neither
//! happens under a lock: [`poll_parked`] clones a waker before the lock is taken, and a waker that
//! is replaced or removed is dropped after the lock is released.

use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Weak;

use super::catch_up::Follower;
use super::error::{JoinFailed, JoinObstacle};
use super::signals::SignalQueue;
use super::subscribers::Subscriber;
use crate::collections::ordered::{Numbered, Ordered};
use crate::event::cause::{LeaveOutcome, PushOutcome};
use crate::id::{InterestId, PushId};
use crate::time::Time;
use crate::topic::Topic;

/// A slot behind a lock for the waker of one waiter.
#[derive(Debug, Default)]
pub(crate) struct Parked(Option<Waker>);

impl Parked {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Stores the waker of the polling task and returns `Pending`.
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

    /// Takes the waker, to be woken or dropped after the lock is released.
    #[inline]
    pub(crate) const fn take(&mut self) -> Option<Waker> {
        self.0.take()
    }
}

/// The task that polls a value behind a lock, with a clone of its waker if one was needed.
pub(crate) struct Task<'a> {
    waker: &'a Waker,
    /// The clone, made before the lock is taken. Once the clone is stored, this is the waker that
    /// it replaced, to be dropped after the lock is released.
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

/// Polls a value behind a lock. `look` takes the lock; if the value is not ready, it returns the
/// result of [`Parked::park`]. If `park` needs a clone of the waker, `look` is called again with
/// one.
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

/// Like [`poll_parked`], for a caller that expects `Pending`: it clones the waker first, so that `look`
/// takes the lock only once. A clone that was not stored is dropped after the lock is released.
#[inline(always)]
pub(crate) fn poll_parking<T>(
    cx: &Context<'_>,
    look: impl FnOnce(&mut Task<'_>) -> Poll<T>,
) -> Poll<T> {
    look(&mut Task::new(cx.waker(), Some(cx.waker().clone())))
}

/// The id of a waiter. The order of the variants is the order in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WaiterId {
    /// A stream of signals.
    Signals(u64),
    /// A waiter for a change of the connection's state.
    Status(u64),
    /// A waiter for pushes or leaves to finish, during a shutdown.
    Shutdown(u64),
    /// A waiter for the end of a leave.
    Leave(u64),
    /// A waiter for a join.
    Join(u64),
    /// A consumer that catches up, for the deadline of its replay.
    CatchUp(u64),
    /// A waiter for space in the push queue.
    Capacity(u64),
    /// A waiter for the outcome of a push.
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
            | Self::CatchUp(id)
            | Self::Capacity(id) => id,
            Self::Push(push) => push.as_u64(),
        }
    }
}

/// The kind of a waiter, with its result once there is one.
pub(super) enum Wait {
    Signals(Box<SignalQueue>),
    Status,
    Shutdown,
    Leave {
        topic: Topic,
        outcome: Option<LeaveOutcome>,
    },
    Join(Box<JoinWait>),
    CatchUp(Weak<Subscriber>),
    /// A shutdown waits for the push if `counts` is true. It is false for a repeat, which
    /// `Repeats::waiting` counts, and for a push whose handle has ended.
    Capacity {
        interest: InterestId,
        counts: bool,
    },
    Push(PushWait),
}

/// A waiter for a join.
pub(super) struct JoinWait {
    pub(super) topic: Topic,
    /// The last obstacle so far.
    pub(super) last: Option<JoinObstacle>,
    pub(super) result: Option<Result<(), JoinFailed>>,
}

/// A waiter for the outcome of a push.
#[derive(Default)]
pub(super) struct PushWait {
    pub(super) outcome: Option<PushOutcome>,
    /// The bytes of the read buffer that the outcome keeps alive until it is taken; zero if it was
    /// copied.
    pub(super) kept: usize,
}

/// One waiter. Drop it after the lock is released: its waker belongs to an executor, and its result
/// may be memory that the application owns.
pub(super) struct Waiter {
    parked: Parked,
    /// The time at which the wait ends without a result.
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
    /// A new number for the id of a waiter. Waiters of pushes use the core's id instead.
    pub(super) const fn mint(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Registers a waiter. Its id must not be in use.
    #[inline]
    pub(super) fn register(&mut self, id: WaiterId, wait: Wait, waker: Option<Waker>) {
        let parked = Parked(waker);
        self.entries.insert(id, Waiter { parked, deadline: None, wait });
    }

    /// Sets the deadline of a waiter; [`pop_expired`](Self::pop_expired) returns it.
    pub(super) fn arm(&mut self, id: WaiterId, deadline: Time) {
        if let Some(waiter) = self.entries.get_mut(id) {
            waiter.deadline = Some(deadline);
            self.deadlines.insert((deadline, id));
        }
    }

    /// Sets the deadline of the replay of a consumer that catches up, if the replay has an end.
    pub(super) fn await_replay(&mut self, id: WaiterId, follower: &Follower, now: Time) {
        self.disarm(id);
        let timeout = follower.contract.end_timeout;
        if follower.contract.events.is_some() && timeout != Duration::MAX {
            self.arm(id, now + timeout);
        }
    }

    /// Removes the deadline of a waiter.
    pub(super) fn disarm(&mut self, id: WaiterId) {
        if let Some(deadline) = self.entries.get_mut(id).and_then(|waiter| waiter.deadline.take()) {
            self.remove_deadline(deadline, id);
        }
    }

    fn remove_deadline(&mut self, deadline: Time, id: WaiterId) {
        self.deadlines.remove(&(deadline, id));
        // An empty tree keeps a node allocated, so a new tree replaces it: most connections never
        // join again.
        if self.deadlines.is_empty() {
            self.deadlines = BTreeSet::new();
        }
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Removes an expired deadline and returns its waiter.
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

    /// Removes a waiter, which the caller drops after the lock is released.
    #[inline]
    #[must_use = "drop a waiter after the lock is released"]
    pub(super) fn remove(&mut self, id: WaiterId) -> Option<Waiter> {
        let waiter = self.entries.remove(id)?;
        if let Some(deadline) = waiter.deadline {
            self.remove_deadline(deadline, id);
        }
        if !matches!(id, WaiterId::Push(_)) {
            // Another push is likely to follow, so the memory is kept for it; other waiters are
            // rare.
            self.entries.shrink_if_empty();
        }
        Some(waiter)
    }

    /// Takes the outcome of a push, with the bytes that it keeps alive, and removes the waiter.
    /// Returns the id of the waiter if there is no outcome yet, and `None` if there is no waiter.
    #[inline]
    pub(super) fn take_push(
        &mut self,
        push: PushId,
    ) -> Option<Result<(PushOutcome, usize), WaiterId>> {
        let id = WaiterId::Push(push);
        let Wait::Push(wait) = &mut self.entries.get_mut(id)?.wait else { return None };
        let Some(outcome) = wait.outcome.take() else { return Some(Err(id)) };
        let kept = wait.kept;
        // The waiter may be dropped under the lock: it was woken, so it has no waker, and it has no
        // deadline.
        drop(self.entries.remove(id));
        Some(Ok((outcome, kept)))
    }

    /// The waiters with an id of at most `last`.
    fn up_to(&mut self, last: WaiterId) -> impl Iterator<Item = (WaiterId, &mut Waiter)> {
        self.entries.iter_mut().take_while(move |(id, _)| *id <= last)
    }

    /// The waiters that are streams of signals.
    pub(super) fn signals(&mut self) -> impl Iterator<Item = &mut Waiter> {
        self.up_to(WaiterId::Signals(u64::MAX)).map(|(_, waiter)| waiter)
    }

    /// Whether there is a stream of signals.
    #[inline]
    pub(super) fn has_signals(&self) -> bool {
        self.entries.first().is_some_and(|(id, _)| matches!(id, WaiterId::Signals(_)))
    }

    /// The waiters for a change of the connection's state.
    pub(super) fn watchers(&mut self) -> impl Iterator<Item = &mut Waiter> {
        let status = |(id, waiter)| matches!(id, WaiterId::Status(_)).then_some(waiter);
        self.up_to(WaiterId::Status(u64::MAX)).filter_map(status)
    }

    /// Whether there are waiters of a shutdown, or of a kind that is sorted before it.
    #[inline]
    pub(super) fn has_shutdowns(&self) -> bool {
        // Usually there are only waiters of pushes.
        self.entries.first().is_some_and(|(id, _)| id <= WaiterId::Shutdown(u64::MAX))
    }

    /// The waiters of shutdowns.
    #[inline]
    pub(super) fn shutdowns(&mut self) -> impl Iterator<Item = &mut Waiter> {
        let shutdown = |(id, waiter)| matches!(id, WaiterId::Shutdown(_)).then_some(waiter);
        self.up_to(WaiterId::Shutdown(u64::MAX)).filter_map(shutdown)
    }

    /// The waiters for the end of a leave.
    pub(super) fn leaves(&mut self) -> impl Iterator<Item = &mut Waiter> {
        let leave = |(id, waiter)| matches!(id, WaiterId::Leave(_)).then_some(waiter);
        self.up_to(WaiterId::Leave(u64::MAX)).filter_map(leave)
    }

    /// The waiters for a join.
    pub(super) fn joins(&mut self) -> impl Iterator<Item = &mut JoinWait> {
        self.up_to(WaiterId::Join(u64::MAX)).filter_map(|(_, waiter)| waiter.join())
    }

    /// Shrinks the registry after a busy time.
    pub(super) fn shrink(&mut self) {
        self.entries.shrink();
    }
}

impl Waiter {
    /// Takes the waker, to be woken after the lock is released.
    #[inline]
    pub(super) const fn take_waker(&mut self) -> Option<Waker> {
        self.parked.take()
    }

    /// Swaps the waker, so that the previous one is dropped after the lock is released.
    pub(super) const fn swap_waker(&mut self, waker: &mut Option<Waker>) {
        core::mem::swap(&mut self.parked.0, waker);
    }

    /// See [`Parked::park`].
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
