//! What a driver needs from the world: clocks, a timer, a way to dial, a place to run.
//!
//! [`Runtime`], [`Clock`], [`Timer`], [`Transport`] and [`Spawn`] are all that an adapter implements.
//! Everything is poll-based, so that one future can read while a write is blocked, and nothing is
//! lost when a poll is not followed by another.
//!
//! Only clocks are `Send`. A [`Driver`](super::Driver) is `Send` exactly when the transport, the timer
//! and the dialling of its runtime are, so runtimes of one thread can use what cannot leave it.

use core::future::Future;
use core::task::{Context, Poll};

use crate::config::Config;
use crate::event::action::ConnectRequest;
use crate::event::cause::Cause;
use crate::event::input::{Ended, Opened, Progress};
use crate::time::Time;
use crate::wire::Frame;

/// The clocks of a runtime. Every handle of a client has one, on whatever thread it is.
pub trait Clock: Clone + Send + Sync + 'static {
    /// The monotonic clock, from an origin that stays the same for all clones of this value.
    fn now(&self) -> Time;

    /// The wall clock, from the Unix epoch. The driver compares its progress with
    /// [`now`](Self::now) to notice that the machine was suspended, and a
    /// [`Supervisor`](crate::service::Supervisor) dates its events by it; a simulation returns the same
    /// as `now`.
    fn wall(&self) -> Time;
}

/// A runtime: clocks, timers and dialling.
pub trait Runtime: Clone + 'static {
    /// Its clocks.
    type Clock: Clock;
    /// An open WebSocket.
    type Transport: Transport;
    /// A timer that can be set again and again.
    type Timer: Timer;
    /// An attempt to connect. An `async` block is boxed, with or without `Send`.
    type Dial: Future<Output = Result<(Self::Transport, Opened), Cause>> + Unpin + 'static;

    /// Its clocks, which are the same for all clones of this value.
    fn clock(&self) -> Self::Clock;

    /// A seed for jitter, different for every call.
    fn seed(&self) -> u64;

    /// A timer that is not set.
    fn timer(&self) -> Self::Timer;

    /// Dials: resolves, connects, upgrades. Dropped when the core aborts the attempt; the
    /// connect timeout is the core's, so none is needed here.
    ///
    /// `config` holds the limits and buffer sizes; address and credentials come from `request`.
    fn connect(&self, request: ConnectRequest, config: &Config) -> Self::Dial;
}

/// A place where a future runs to its end in the background.
///
/// A runtime of many threads implements it for futures that are `Send`, one of a single thread for
/// all. [`start`](super::start) asks for the one that it needs.
pub trait Spawn<F> {
    /// Runs the future. Nothing waits for its end.
    fn spawn(&self, future: F);
}

/// A timer. It only wakes; the clock decides what has expired.
pub trait Timer: Unpin + 'static {
    /// Sets the timer to wake at `at`, or never.
    fn reset(&mut self, at: Option<Time>);

    /// Ready once the set time has come; pending for ever while not set.
    ///
    /// `Pending` is a promise: the waker of this call, or of the last one with a waker that
    /// [wakes the same task](core::task::Waker::will_wake), is woken when the set time has come. The
    /// driver relies on it, and polls the timer again only for another time or another waker. A
    /// runtime that lets its timers answer `Pending` for other reasons, as tokio does when the
    /// cooperative budget of a task is used up, must poll them outside of that.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// An open WebSocket, message by message. Answers pings and close frames by itself.
pub trait Transport: Unpin + 'static {
    /// The next message, or how the connection ended. Not polled again after `Ended`.
    ///
    /// Reading must go on while writing is blocked. One call does a bounded amount of work: what is
    /// no message is [`Control`](Received::Control) or [`Part`](Received::Part), so that the driver
    /// can count it. `Pending` means that nothing is there to be read, not that others should have
    /// their turn, which the driver sees to.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received>;

    /// Ready when one more frame can be taken. An error is reported by `poll_receive` too, so it
    /// carries nothing here.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>>;

    /// Takes one frame, after `poll_ready` was ready.
    ///
    /// # Errors
    ///
    /// [`WriteFailed`] when the connection is over; `poll_receive` says why.
    fn send(&mut self, frame: Frame) -> Result<(), WriteFailed>;

    /// Ready when everything taken is with the operating system.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>>;

    /// How many bytes were read and written since the connection opened, counted below TLS; whether
    /// everything is flushed is the driver's to know.
    ///
    /// Totals never go back. They keep a slow link from being taken for a dead one. A transport that does not count
    /// reports zero, as it does by default: bytes then buy no time.
    fn progress(&mut self) -> Progress {
        Progress::default()
    }

    /// Starts the close handshake: a close frame with this code and reason follows what was
    /// sent. Then polled through `poll_flush` and `poll_receive` until that reports the end.
    fn close(&mut self, code: u16, reason: &str);
}

/// What `poll_receive` yields. Exhaustive on purpose: what drives a transport has to know all of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// A data frame.
    Frame(Frame),
    /// A control frame, with which the transport has dealt.
    Control,
    /// Something was read, and no message is complete; there may be more to read.
    Part,
    /// The end of the connection. A close frame that was read is the cause even when a reset
    /// follows at once, as Phoenix does it (`wire/close_graceful_shutdown`).
    Ended(Ended),
}

/// The transport takes no more frames; `poll_receive` says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transport takes no more frames")]
pub struct WriteFailed;
