//! The lock, the atomics and the threads for state that several tasks share.
//!
//! They come from the standard library, except in the unit tests of a build with `--cfg shuttle`. There
//! they come from shuttle, which runs the same code under many schedules (`tests/schedules`). `Arc`,
//! `Weak` and `Waker` always come from the standard library. This hides no schedule: cloning them takes
//! no lock, and code that runs when the last one is dropped takes its locks from this module.

#[cfg(all(test, shuttle))]
use shuttle::sync as imp;
#[cfg(not(all(test, shuttle)))]
use std::sync as imp;
use std::sync::PoisonError;

pub(crate) use imp::MutexGuard;
#[cfg(any(feature = "driver", feature = "recording"))]
pub(crate) use imp::atomic;
#[cfg(all(test, shuttle, feature = "adapter"))]
pub(crate) use shuttle::thread;
#[cfg(all(not(all(test, shuttle)), feature = "adapter"))]
pub(crate) use std::thread;

/// A mutex that ignores poisoning. Only the code of this crate changes the protected value, and it
/// never leaves a change half done.
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
