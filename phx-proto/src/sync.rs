//! The lock, the atomics and the threads of state that several tasks share.
//!
//! They are the standard library's, except in the unit tests of a build with `--cfg shuttle`: there
//! they are those of shuttle, which runs the same code under many schedules (`tests/schedules`). `Arc`,
//! `Weak` and `Waker` are the standard library's in both: no lock is taken when they are cloned, and
//! what a drop of the last of them does takes its locks from here.

#[cfg(all(test, shuttle))]
use shuttle::sync as imp;
#[cfg(not(all(test, shuttle)))]
use std::sync as imp;
use std::sync::PoisonError;

pub(crate) use imp::{MutexGuard, atomic};
#[cfg(all(test, shuttle, feature = "adapter"))]
pub(crate) use shuttle::thread;
#[cfg(all(not(all(test, shuttle)), feature = "adapter"))]
pub(crate) use std::thread;

/// A mutex that a panic does not poison: what it protects is changed by our own code, which leaves
/// nothing half changed.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(imp::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    /// Waits for the lock and takes it.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
