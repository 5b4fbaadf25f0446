//! The connection machine.
//!
//! ```text
//!             connect              opened        disconnect           ended
//!   Idle ───────────────▶ Connecting ─────▶ Open ──────────▶ Closing ──────▶ Closed
//!                           ▲  │ failed      │ lost             │ (connect was called)
//!                 due, wake │  ▼             ▼                  └──▶ Connecting
//!                           Waiting ◀────────┘
//! ```
//!
//! Every transition, held to what happens by `tests/properties/diagrams.rs`; beside them, `connect_now` replaces an
//! attempt by another, and a driver that panicked gives up in any state but Closed and `GaveUp`:
//!
//! ```text
//!   Idle       → Connecting  connect
//!              → Closed      disconnect
//!   Connecting → Open        opened
//!              → Waiting     failed, or connect_timeout
//!              → GaveUp      failed, and that was final or the last retry
//!              → Closed      disconnect
//!   Open       → Waiting     lost
//!              → GaveUp      lost, and that was final or the last retry
//!              → Closing     disconnect, or a message that is too large
//!   Waiting    → Connecting  due, wake, connect_now
//!              → Closed      disconnect
//!   Closing    → Closed      ended
//!              → Connecting  ended, and connect was called
//!              → Waiting     ended, and it was closed for what the peer did
//!              → GaveUp      the same, and that was the last retry
//!   Closed     → Connecting  connect
//!   GaveUp     → Connecting  connect
//!              → Closed      disconnect
//! ```
//!
//! A close frame of the server is answered by the transport; every *remote* end leads to a retry
//! unless a table of the configuration rules it out, because servers send 1000 on restarts too
//! (`wire/close_graceful_shutdown`). Only a local `disconnect` is final by itself.
//!
//! The end of a connection is reported in this order: the interruption of each channel, the outcomes of
//! its pushes, `Disconnected`, and then what follows. Every `Connecting` is followed by one of
//! `Connected` and `ConnectFailed`, every `Connected` by a `Disconnected`.
//!
//! [`Connection`] is the machine. When an attempt or a connection ends, the [retry
//! policy](crate::socket::retry) decides between Waiting and `GaveUp`; [`commands`] brings the two together.

mod commands;
pub(crate) mod live;
#[cfg(test)]
mod tests;

use core::time::Duration;

use crate::event::cause::Cause;
use crate::event::error::NotRetrying;
use crate::id::ConnectionId;
use crate::socket::connection::live::Live;
use crate::socket::timer::TimerKind;
use crate::time::Time;

/// How often a wake-up may have an effect.
const WAKE_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the connection, as seen from outside.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Status {
    /// Never connected.
    Idle,
    /// An attempt is being made.
    Connecting {
        /// 0 for the first one, then the number of the retry.
        attempt: u32,
    },
    /// Open.
    Open,
    /// Waiting for the next attempt.
    Waiting {
        /// When it is made.
        until: Time,
        /// Which it will be, from 1.
        attempt: u32,
        /// Why it is needed.
        cause: Cause,
    },
    /// The close handshake is being made.
    Closing,
    /// Closed by `disconnect`.
    Closed,
    /// Not tried any more.
    GaveUp {
        /// The last cause.
        cause: Cause,
    },
}

impl Status {
    /// The same in four words.
    #[must_use]
    pub const fn lifecycle(&self) -> Lifecycle {
        match self {
            Self::Idle | Self::Connecting { .. } | Self::Waiting { .. } => Lifecycle::Initializing,
            Self::Open => Lifecycle::Ready,
            Self::Closing => Lifecycle::Closing,
            Self::Closed | Self::GaveUp { .. } => Lifecycle::Terminated,
        }
    }
}

/// The state of a connection in four words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Lifecycle {
    /// It is not open yet, or not open again.
    Initializing,
    /// It is open.
    Ready,
    /// It is being closed.
    Closing,
    /// It ended.
    Terminated,
}

impl Lifecycle {
    /// A name for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Ready => "ready",
            Self::Closing => "closing",
            Self::Terminated => "terminated",
        }
    }
}

/// The connection: its phase, and when a wake-up may have an effect.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    phase: Phase,
    next_id: u64,
    /// When a wake-up last had an effect, or will have.
    last_wake: Option<Time>,
    /// A wake-up came during the attempt: should it fail, the wait after it is skipped.
    woken: bool,
}

/// The state of the connection, with what belongs to it and its deadline.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Idle,
    Connecting { id: ConnectionId, attempt: u32, until: Time },
    Open(Box<Live>),
    Waiting { until: Time, attempt: u32, cause: Cause, may_skip: bool },
    Closing { id: ConnectionId, then: AfterClose, until: Time },
    Closed,
    GaveUp { cause: Cause },
}

/// What follows the close handshake.
#[derive(Clone, Debug)]
pub(crate) enum AfterClose {
    /// Nothing.
    Stay,
    /// `connect` was called meanwhile.
    Connect,
    /// We closed because of the peer, so this is a lost connection.
    Retry { cause: Cause, open_for: Duration },
}

/// An attempt that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an attempt is to be dialled"]
pub(crate) struct Attempt {
    pub(crate) id: ConnectionId,
    pub(crate) number: u32,
}

/// What follows `connect`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Connect {
    /// Nothing: the connection is being kept already.
    Kept,
    Dial(Attempt),
    /// A new life begins, now or after the close handshake.
    NewLife(Option<Attempt>),
}

/// What follows `connect_now`: an attempt, and the one that it replaces.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Redial {
    pub(crate) aborted: Option<ConnectionId>,
    pub(crate) attempt: Attempt,
}

/// What follows `disconnect`.
#[derive(Debug)]
pub(crate) enum Disconnect {
    /// The open connection gets its close handshake.
    Close(Box<Live>),
    /// The attempt is dropped.
    Abort(ConnectionId),
    /// There was neither.
    Closed,
    /// Nothing: it is closed or being closed.
    Nothing,
}

/// What follows a wake-up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Nothing,
    /// The wait is over.
    Dial(Attempt),
    /// The peer of the open connection is probed.
    Probe,
}

impl Phase {
    fn status(&self) -> Status {
        match self {
            Self::Idle => Status::Idle,
            Self::Connecting { attempt, .. } => Status::Connecting { attempt: *attempt },
            Self::Open(_) => Status::Open,
            Self::Waiting { until, attempt, cause, .. } => {
                Status::Waiting { until: *until, attempt: *attempt, cause: cause.clone() }
            }
            Self::Closing { .. } => Status::Closing,
            Self::Closed => Status::Closed,
            Self::GaveUp { cause } => Status::GaveUp { cause: cause.clone() },
        }
    }
}

/// # Inspection
impl Connection {
    pub(crate) const fn new() -> Self {
        Self { phase: Phase::Idle, next_id: 1, last_wake: None, woken: false }
    }

    #[inline]
    pub(crate) const fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(crate) fn status(&self) -> Status {
        self.phase.status()
    }

    /// The connection that is open, being made or being closed.
    pub(crate) const fn id(&self) -> Option<ConnectionId> {
        match &self.phase {
            Phase::Connecting { id, .. } | Phase::Closing { id, .. } => Some(*id),
            Phase::Open(live) => Some(live.id),
            _ => None,
        }
    }

    #[inline]
    pub(crate) const fn live(&self) -> Option<&Live> {
        match &self.phase {
            Phase::Open(live) => Some(live),
            _ => None,
        }
    }

    #[inline]
    pub(crate) const fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.phase {
            Phase::Open(live) => Some(live),
            _ => None,
        }
    }

    /// Whether topics can be wanted in this state.
    pub(crate) const fn accepts_joins(&self) -> bool {
        !matches!(
            self.phase,
            Phase::Closed | Phase::GaveUp { .. } | Phase::Closing { then: AfterClose::Stay, .. }
        )
    }

    /// The deadline of the phase. Those of an open connection are [its own](Live::deadlines).
    #[inline]
    pub(crate) const fn deadline(&self) -> Option<(TimerKind, Time)> {
        match &self.phase {
            Phase::Connecting { until, .. } => Some((TimerKind::Connect, *until)),
            Phase::Waiting { until, .. } => Some((TimerKind::Reconnect, *until)),
            Phase::Closing { until, .. } => Some((TimerKind::Close, *until)),
            Phase::Idle | Phase::Open(_) | Phase::Closed | Phase::GaveUp { .. } => None,
        }
    }

    /// When a wake-up may have an effect again.
    fn may_wake_at(&self) -> Time {
        self.last_wake.map_or(Time::ZERO, |last| last + WAKE_INTERVAL)
    }
}

/// # Transitions
impl Connection {
    /// The application wants a connection. An attempt has `timeout`, here and below.
    pub(crate) fn connect(&mut self, now: Time, timeout: Duration) -> Connect {
        match &mut self.phase {
            Phase::Idle => Connect::Dial(self.dial(now, 0, timeout)),
            Phase::Closed | Phase::GaveUp { .. } => {
                Connect::NewLife(Some(self.dial(now, 0, timeout)))
            }
            Phase::Closing { then: then @ AfterClose::Stay, .. } => {
                *then = AfterClose::Connect;
                Connect::NewLife(None)
            }
            Phase::Closing { .. }
            | Phase::Connecting { .. }
            | Phase::Open(_)
            | Phase::Waiting { .. } => Connect::Kept,
        }
    }

    /// Begins an attempt, in place of whatever was before it.
    pub(crate) fn dial(&mut self, now: Time, number: u32, timeout: Duration) -> Attempt {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        self.phase = Phase::Connecting { id, attempt: number, until: now + timeout };
        self.woken = false;
        Attempt { id, number }
    }

    /// The application wants an attempt now.
    pub(crate) fn connect_now(
        &mut self,
        now: Time,
        timeout: Duration,
    ) -> Result<Option<Redial>, NotRetrying> {
        let aborted = match self.phase {
            Phase::Open(_) => return Ok(None),
            Phase::Waiting { .. } => None,
            Phase::Connecting { id, .. } => Some(id),
            Phase::Idle | Phase::Closing { .. } | Phase::Closed | Phase::GaveUp { .. } => {
                return Err(NotRetrying);
            }
        };
        Ok(Some(Redial { aborted, attempt: self.dial(now, 0, timeout) }))
    }

    /// The attempt succeeded.
    pub(crate) fn open(&mut self, live: Box<Live>) {
        self.woken = false;
        self.phase = Phase::Open(live);
    }

    /// The application wants no connection. The close handshake has `timeout`.
    pub(crate) fn disconnect(&mut self, now: Time, timeout: Duration) -> Disconnect {
        match core::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Open(live) => {
                self.close(now, live.id, AfterClose::Stay, timeout);
                Disconnect::Close(live)
            }
            Phase::Closing { id, until, .. } => {
                self.phase = Phase::Closing { id, then: AfterClose::Stay, until };
                Disconnect::Nothing
            }
            Phase::Connecting { id, .. } => Disconnect::Abort(id),
            Phase::Waiting { .. } | Phase::Idle | Phase::GaveUp { .. } => Disconnect::Closed,
            Phase::Closed => Disconnect::Nothing,
        }
    }

    /// The open connection is over. It is Closed until the caller has decided what follows.
    pub(crate) fn take_live(&mut self) -> Option<Box<Live>> {
        match core::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Open(live) => Some(live),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Begins the close handshake of a connection that was open.
    pub(crate) fn close(
        &mut self,
        now: Time,
        id: ConnectionId,
        then: AfterClose,
        timeout: Duration,
    ) {
        self.phase = Phase::Closing { id, then, until: now + timeout };
    }

    /// The close handshake is over, or was cut short. The connection is Closed until the caller has
    /// decided what follows.
    pub(crate) fn finish_close(&mut self) -> Option<(ConnectionId, AfterClose)> {
        match core::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Closing { id, then, .. } => Some((id, then)),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// The next attempt is to be made at `until`. With `may_skip`, a wake-up ends the wait.
    pub(crate) fn wait(&mut self, until: Time, attempt: u32, cause: Cause, may_skip: bool) {
        self.phase = Phase::Waiting { until, attempt, cause, may_skip };
    }

    /// The wait is over.
    pub(crate) fn dial_again(&mut self, now: Time, timeout: Duration) -> Option<Attempt> {
        match self.phase {
            Phase::Waiting { attempt, .. } => Some(self.dial(now, attempt, timeout)),
            _ => None,
        }
    }

    /// No attempt will be made any more.
    pub(crate) fn give_up(&mut self, cause: Cause) {
        self.phase = Phase::GaveUp { cause };
    }

    /// The network changed, or the machine woke up.
    pub(crate) fn wake(&mut self, now: Time, timeout: Duration) -> Woken {
        match &self.phase {
            Phase::Connecting { .. } | Phase::Closing { then: AfterClose::Retry { .. }, .. } => {
                self.woken = true;
                Woken::Nothing
            }
            Phase::Waiting { .. } => {
                self.skip_wait(now, timeout).map_or(Woken::Nothing, Woken::Dial)
            }
            Phase::Open(_) if self.may_wake_at() <= now => {
                self.last_wake = Some(now);
                Woken::Probe
            }
            Phase::Idle | Phase::Open(_) | Phase::Closing { .. } | Phase::Closed => Woken::Nothing,
            Phase::GaveUp { .. } => Woken::Nothing,
        }
    }

    /// Skips the wait that has just begun if a wake-up came during the attempt before it.
    pub(crate) fn skip_wait_if_woken(&mut self, now: Time, timeout: Duration) -> Option<Attempt> {
        if core::mem::take(&mut self.woken) { self.skip_wait(now, timeout) } else { None }
    }

    /// Dials now instead of waiting, or when a second has passed since the last wake-up.
    fn skip_wait(&mut self, now: Time, timeout: Duration) -> Option<Attempt> {
        let at = self.may_wake_at().max(now);
        let Phase::Waiting { until, may_skip: true, .. } = &mut self.phase else { return None };
        if *until <= at {
            return None;
        }
        *until = at;
        self.last_wake = Some(at);
        if at > now { None } else { self.dial_again(now, timeout) }
    }
}
