//! The traits that an adapter implements for a driver: clocks, a timer, dialling, a transport, and
//! a place to run.
//!
//! These are [`Runtime`], [`Clock`], [`Timer`], [`Transport`] and [`Spawn`]. They are poll-based,
//! so that one future can read while a write is blocked, and so that no data is lost when a poll
//! returns `Pending` and no further poll follows.
//!
//! Only clocks must be `Send`. A [`Driver`](super::Driver) is `Send` exactly when the runtime, its
//! transport, its timer and its dial future are, so a single-threaded runtime can use types
//! that are not `Send`.

use core::future::Future;
use core::task::{Context, Poll};

use crate::config::Config;
use crate::event::action::ConnectRequest;
use crate::event::cause::Cause;
use crate::event::input::{Ended, Opened, Progress};
use crate::time::Time;
use crate::wire::Frame;

/// The clocks of a runtime. All handles of a client share them, and handles may be used on any
/// thread.
pub trait Clock: Clone + Send + Sync + 'static {
    /// The monotonic clock. Its origin is the same for all clones of this value.
    fn now(&self) -> Time;

    /// The wall clock, from the Unix epoch. The driver compares its progress with
    /// [`now`](Self::now) to notice that the machine was suspended, and a
    /// [`Supervisor`](crate::service::Supervisor) takes the times of its events from it. In a
    /// simulation it may return the same as `now`.
    fn wall(&self) -> Time;
}

/// A runtime: clocks, timers and dialling.
pub trait Runtime: Clone + 'static {
    /// The type of the runtime's clocks.
    type Clock: Clock;
    /// An open WebSocket.
    type Transport: Transport;
    /// A timer that can be set repeatedly.
    type Timer: Timer;
    /// The future of an attempt to connect. Box an `async` block, with or without `Send`.
    type Dial: Future<Output = Result<(Self::Transport, Opened), Cause>> + Unpin + 'static;

    /// The runtime's clocks, which are the same for all clones of this value.
    fn clock(&self) -> Self::Clock;

    /// A seed for jitter, different for every call.
    fn seed(&self) -> u64;

    /// Returns a timer that is not set.
    fn timer(&self) -> Self::Timer;

    /// Dials: resolves, connects, upgrades. The driver drops the future when the core aborts the
    /// attempt. The core enforces the connect timeout, so the future needs none.
    ///
    /// `config` holds the limits and buffer sizes; address and credentials come from `request`.
    fn connect(&self, request: ConnectRequest, config: &Config) -> Self::Dial;
}

/// An executor that runs a future to its end in the background.
///
/// A multi-threaded runtime implements this for futures that are `Send`, a single-threaded one for
/// all futures. [`start`](super::start) requires it for its driver.
pub trait Spawn<F> {
    /// Runs the future. Nothing waits for its end.
    fn spawn(&self, future: F);
}

/// A timer. It only wakes the driver; the clock decides what has expired.
pub trait Timer: Unpin + 'static {
    /// Sets the timer to wake at `at`, or never.
    fn reset(&mut self, at: Option<Time>);

    /// Ready once the set time has come; never ready while the timer is not set.
    ///
    /// A timer that returns `Pending` must wake the task when the set time has come. It may use the
    /// waker of this call, or of an earlier call if that one [wakes the same
    /// task](core::task::Waker::will_wake). The driver relies on this: it polls the timer again
    /// only for another time or another waker. A runtime whose timers return `Pending` for other
    /// reasons, as tokio's do when the cooperative budget of a task is used up, must poll them
    /// outside that budget.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// An open WebSocket that yields messages. It answers pings and close frames by itself.
pub trait Transport: Unpin + 'static {
    /// The next message, or how the connection ended. The driver does not call it again after
    /// `Ended`.
    ///
    /// Reading must continue while writing is blocked. One call does a bounded amount of work: a
    /// read without a message returns [`Control`](Received::Control) or [`Part`](Received::Part),
    /// so that the driver can count it. `Pending` means that there is nothing to read. The
    /// transport must not return it to yield to other tasks; the driver yields.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received>;

    /// Ready when the transport can take one more frame. The error carries no cause, because
    /// `poll_receive` returns it.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>>;

    /// How many bytes of frames the transport takes after `poll_ready` was ready, before `poll_ready`
    /// has to be called again. Each frame counts 64 bytes in addition to its length. The frame that
    /// reaches this number may exceed it. The driver takes as many frames from the core at once, which
    /// costs less than one at a time.
    ///
    /// The default is zero, for one frame.
    fn space(&self) -> usize {
        0
    }

    /// Takes a frame, after `poll_ready` was ready.
    ///
    /// # Errors
    ///
    /// [`WriteFailed`] when the connection is over; `poll_receive` returns the cause.
    fn send(&mut self, frame: Frame) -> Result<(), WriteFailed>;

    /// Ready when the operating system has taken every frame.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>>;

    /// The number of bytes that were read and written since the connection opened, counted below
    /// TLS. The driver sets `flushed` itself.
    ///
    /// Totals never decrease. They let the core distinguish a slow link from a dead one. A
    /// transport that does not count returns zero, which is the default; transferred bytes then
    /// extend no deadline. A transport whose peer acknowledges no bytes leaves `acknowledged` and
    /// `acknowledged_next` at zero.
    fn progress(&mut self) -> Progress {
        Progress::default()
    }

    /// Starts the close handshake: a close frame with this code and reason follows the frames that
    /// were sent. The driver then calls `poll_flush` and `poll_receive` until the latter returns
    /// the end.
    fn close(&mut self, code: u16, reason: &str);
}

/// A result of `poll_receive`. The enum is exhaustive on purpose, because a driver must handle
/// every variant.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// A data frame.
    Frame(Frame),
    /// A control frame, which the transport has handled.
    Control,
    /// Bytes were read and no message is complete; there may be more to read.
    Part,
    /// The end of the connection. If a close frame was read, it is the cause even when a reset
    /// follows at once, as it does when Phoenix stops (`wire/close_graceful_shutdown`).
    Ended(Ended),
}

/// The transport takes no more frames; `poll_receive` returns the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transport takes no more frames")]
pub struct WriteFailed;
