//! The adapter's clock with an offset that can be increased. A test of a timeout configures a
//! timeout that even a busy machine never reaches, and advances the clock past it once every
//! earlier step of the test is done.

use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::rt::Runtime;
use crate::rt::phx::client;
use crate::rt::phx::time::Time;

pub(super) type RuntimeTimer = <Runtime as client::Runtime>::Timer;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A clock; clones share its offset.
#[derive(Clone, Default)]
pub(crate) struct Clock {
    /// The offset to the adapter's clock, in nanoseconds; changed while `timers` is locked.
    ahead: Arc<AtomicU64>,
    timers: Arc<Mutex<Vec<Weak<Mutex<Set>>>>>,
}

impl Clock {
    /// Advances the time of the clients at once. A driver that is more than 5 s late assumes that
    /// the machine was suspended, and sends one more heartbeat to a silent peer.
    pub(crate) fn leap(&self, by: Duration) {
        let mut all = lock(&self.timers);
        let by = u64::try_from(by.as_nanos()).expect("not centuries");
        let ahead = self.ahead.fetch_add(by, Ordering::SeqCst) + by;
        all.retain(|timer| timer.strong_count() > 0);
        let timers: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
        let mut wakers = Vec::new();
        for timer in timers {
            let mut timer = lock(&timer);
            timer.apply(Duration::from_nanos(ahead));
            wakers.extend(timer.waker.clone());
        }
        drop(all);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(super) fn ahead(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.ahead)
    }

    pub(super) fn timer(&self, inner: RuntimeTimer) -> Timer {
        let set = Arc::new(Mutex::new(Set { inner, at: None, waker: None }));
        lock(&self.timers).push(Arc::downgrade(&set));
        Timer { set, clock: self.clone() }
    }
}

/// A timer of the adapter, set earlier by the clock's offset.
pub(crate) struct Timer {
    set: Arc<Mutex<Set>>,
    clock: Clock,
}

struct Set {
    inner: RuntimeTimer,
    at: Option<Time>,
    waker: Option<Waker>,
}

impl Set {
    fn apply(&mut self, ahead: Duration) {
        client::Timer::reset(&mut self.inner, self.at.map(|at| at - ahead));
    }
}

impl client::Timer for Timer {
    fn reset(&mut self, at: Option<Time>) {
        // Here and in `leap`, the list of timers is locked first, so that `leap` wakes every timer.
        let _all = lock(&self.clock.timers);
        let mut set = lock(&self.set);
        set.at = at;
        set.apply(Duration::from_nanos(self.clock.ahead.load(Ordering::SeqCst)));
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut set = lock(&self.set);
        set.waker = Some(cx.waker().clone());
        client::Timer::poll_expired(&mut set.inner, cx)
    }
}
