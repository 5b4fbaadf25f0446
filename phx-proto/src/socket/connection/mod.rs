//! The connection machine: when to dial, close and give up.
//!
//! The diagram has all transitions, and `tests/properties/diagrams.rs` compares it with the
//! behaviour. In addition, `connect_now` replaces an attempt by another, and a panic of the driver
//! leads from every state but Closed to `GaveUp`:
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
//! The transport answers a close frame of the server; the machine does not. Servers also send 1000
//! when they restart (`wire/close_graceful_shutdown`), so every *remote* end leads to a retry,
//! unless the close rules or the retry limits of the configuration forbid it. Only a local
//! `disconnect` is always final.
//!
//! The end of a connection is signalled in this order: the interruption of each channel, the
//! outcomes of its pushes, `Disconnected`, and then the signals of the next step. Every
//! `Connecting` is followed by one of `Connected` and `ConnectFailed`, every `Connected` by a
//! `Disconnected`.
//!
//! [`Connection`] is the machine. When an attempt or a connection ends, the [retry
//! policy](crate::socket::retry) decides between Waiting and `GaveUp`; [`commands`] brings the two
//! together.

mod commands;
pub(crate) mod live;
#[cfg(test)]
mod tests;

use core::fmt;
use core::time::Duration;

use crate::config::Credentials;
use crate::event::cause::Cause;
use crate::event::error::NotRetrying;
use crate::id::ConnectionId;
use crate::socket::connection::live::Live;
use crate::socket::timer::TimerKind;
use crate::time::Time;

/// The minimum time between two wake-ups that have an effect.
const WAKE_INTERVAL: Duration = Duration::from_secs(1);

/// The public state of the connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Status {
    /// The connection was never started.
    Idle,
    /// An attempt to connect is in progress.
    Connecting {
        /// Zero for the first attempt, then the number of the retry.
        attempt: u32,
    },
    /// The connection is open.
    Open,
    /// The client waits for the next attempt.
    Waiting {
        /// The time of the next attempt.
        until: Time,
        /// The number of that retry, from 1.
        attempt: u32,
        /// The cause of the retry.
        cause: Cause,
    },
    /// The close handshake is in progress.
    Closing,
    /// The connection was closed by `disconnect`.
    Closed,
    /// The connection ended and is not retried.
    GaveUp {
        /// The cause of the last end.
        cause: Cause,
    },
}

impl Status {
    /// The state reduced to four values.
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

/// Shows the state, the number of the retry, and the cause: `waiting for retry 3: connecting took too long`.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("not started"),
            Self::Connecting { attempt: 0 } => f.write_str("connecting"),
            Self::Connecting { attempt } => write!(f, "connecting (retry {attempt})"),
            Self::Open => f.write_str("open"),
            Self::Waiting { attempt, cause, .. } => {
                write!(f, "waiting for retry {attempt}: {cause}")
            }
            Self::Closing => f.write_str("closing"),
            Self::Closed => f.write_str("closed"),
            Self::GaveUp { cause } => write!(f, "gave up: {cause}"),
        }
    }
}

/// The state of a connection, reduced to four values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Lifecycle {
    /// The connection is not open yet, or not open again.
    Initializing,
    /// The connection is open.
    Ready,
    /// The connection is closing.
    Closing,
    /// The connection ended.
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

/// The connection machine: its phase, and the state of wake-ups.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    phase: Phase,
    next_id: u64,
    /// The time at which a wake-up last had, or will have, an effect.
    last_wake: Option<Time>,
    /// Whether a wake-up came during the present attempt. If the attempt fails, the wait after it
    /// is then skipped.
    woken: bool,
}

/// The state of the connection, with its data and its deadline.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Idle,
    Connecting { id: ConnectionId, attempt: u32, until: Time, dialled: Dialled },
    Open(Box<Live>),
    Waiting { until: Time, attempt: u32, cause: Cause, may_skip: bool },
    Closing { id: ConnectionId, then: AfterClose, until: Time },
    Closed,
    GaveUp { cause: Cause },
}

/// Whether the driver has dialled an attempt, and with which credentials.
#[derive(Clone, Debug)]
pub(crate) enum Dialled {
    /// Not reported yet.
    No,
    /// With the present credentials.
    Present,
    /// With credentials that were replaced since.
    Earlier(Box<Credentials>),
}

/// The next step after the close handshake.
#[derive(Clone, Debug)]
pub(crate) enum AfterClose {
    /// The connection stays closed.
    Stay,
    /// `connect` was called during the close handshake.
    Connect,
    /// The client closed because of the peer, so the connection counts as lost.
    Retry { cause: Cause, open_for: Duration },
}

/// An attempt that has begun and that the driver must dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an attempt must be dialled"]
pub(crate) struct Attempt {
    pub(crate) id: ConnectionId,
    pub(crate) number: u32,
}

/// The effect of `connect`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Connect {
    /// No effect: the connection was already started.
    Kept,
    Dial(Attempt),
    /// The connection starts over, now or after the close handshake.
    StartOver(Option<Attempt>),
}

/// The effect of `connect_now`: a new attempt, and the attempt that it replaces.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Redial {
    pub(crate) aborted: Option<ConnectionId>,
    pub(crate) attempt: Attempt,
}

/// The effect of `disconnect`.
#[derive(Debug)]
pub(crate) enum Disconnect {
    /// The close handshake of the open connection begins.
    Close(Box<Live>),
    /// The attempt is aborted.
    Abort(ConnectionId),
    /// The connection is closed at once, without a handshake.
    Closed,
    /// No effect: the connection is already closed or closing.
    Nothing,
}

/// The effect of a wake-up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Nothing,
    /// The wait ends with an attempt.
    Dial(Attempt),
    /// The peer of the open connection must be probed.
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

    /// The id of the connection that is open, opening or closing.
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

    /// Whether joins are accepted in this state.
    pub(crate) const fn accepts_joins(&self) -> bool {
        !matches!(
            self.phase,
            Phase::Closed | Phase::GaveUp { .. } | Phase::Closing { then: AfterClose::Stay, .. }
        )
    }

    /// The deadline of the phase. An open connection has [its own deadlines](Live::deadlines).
    #[inline]
    pub(crate) const fn deadline(&self) -> Option<(TimerKind, Time)> {
        match &self.phase {
            Phase::Connecting { until, .. } => Some((TimerKind::Connect, *until)),
            Phase::Waiting { until, .. } => Some((TimerKind::Reconnect, *until)),
            Phase::Closing { until, .. } => Some((TimerKind::Close, *until)),
            Phase::Idle | Phase::Open(_) | Phase::Closed | Phase::GaveUp { .. } => None,
        }
    }

    /// The earliest time at which a wake-up may have an effect.
    fn may_wake_at(&self) -> Time {
        self.last_wake.map_or(Time::ZERO, |last| last + WAKE_INTERVAL)
    }
}

/// # Transitions
impl Connection {
    /// Starts the connection, if it is not started. `timeout` is the timeout of an attempt, here
    /// and in the other transitions.
    pub(crate) fn connect(&mut self, now: Time, timeout: Duration) -> Connect {
        match &mut self.phase {
            Phase::Idle => Connect::Dial(self.dial(now, 0, timeout)),
            Phase::Closed | Phase::GaveUp { .. } => {
                Connect::StartOver(Some(self.dial(now, 0, timeout)))
            }
            Phase::Closing { then: then @ AfterClose::Stay, .. } => {
                *then = AfterClose::Connect;
                Connect::StartOver(None)
            }
            Phase::Closing { .. }
            | Phase::Connecting { .. }
            | Phase::Open(_)
            | Phase::Waiting { .. } => Connect::Kept,
        }
    }

    /// Begins an attempt, which replaces the present phase.
    pub(crate) fn dial(&mut self, now: Time, number: u32, timeout: Duration) -> Attempt {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let (until, dialled) = (now + timeout, Dialled::No);
        self.phase = Phase::Connecting { id, attempt: number, until, dialled };
        self.woken = false;
        Attempt { id, number }
    }

    /// Records that the driver dials the attempt `id` with the present credentials. Returns false if
    /// this attempt is not in progress.
    pub(crate) fn handle_dialled(&mut self, id: ConnectionId) -> bool {
        match &mut self.phase {
            Phase::Connecting { id: current, dialled, .. } if *current == id => {
                *dialled = Dialled::Present;
                true
            }
            _ => false,
        }
    }

    /// Keeps the credentials of an attempt that was dialled with them, when they are replaced. Returns
    /// whether an attempt is in progress.
    pub(crate) fn replace_credentials(&mut self, replaced: Credentials) -> bool {
        let Phase::Connecting { dialled, .. } = &mut self.phase else { return false };
        if matches!(dialled, Dialled::Present) {
            *dialled = Dialled::Earlier(Box::new(replaced));
        }
        true
    }

    /// The credentials of the attempt in progress. Without one, or if the driver has not reported that it
    /// dialled, these are the present ones.
    pub(crate) fn dialled_with<'a>(&'a self, present: &'a Credentials) -> &'a Credentials {
        match &self.phase {
            Phase::Connecting { dialled: Dialled::Earlier(earlier), .. } => earlier,
            _ => present,
        }
    }

    /// Begins an attempt now, instead of the wait or of the present attempt.
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

    /// Enters Open, because the attempt succeeded.
    pub(crate) fn open(&mut self, live: Box<Live>) {
        self.woken = false;
        self.phase = Phase::Open(live);
    }

    /// Closes the connection or aborts the attempt. `timeout` is the timeout of the close
    /// handshake.
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

    /// Takes the state of an open connection that has ended. The phase is Closed until the caller
    /// sets the next phase.
    pub(crate) fn take_live(&mut self) -> Option<Box<Live>> {
        match core::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Open(live) => Some(live),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Begins the close handshake of a connection whose state was taken.
    pub(crate) fn close(
        &mut self,
        now: Time,
        id: ConnectionId,
        then: AfterClose,
        timeout: Duration,
    ) {
        self.phase = Phase::Closing { id, then, until: now + timeout };
    }

    /// Ends the close handshake, whether it was completed or timed out. The phase is Closed until
    /// the caller sets the next phase.
    pub(crate) fn finish_close(&mut self) -> Option<(ConnectionId, AfterClose)> {
        match core::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Closing { id, then, .. } => Some((id, then)),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Begins the wait for an attempt at `until`. With `may_skip`, a wake-up ends the wait.
    pub(crate) fn wait(&mut self, until: Time, attempt: u32, cause: Cause, may_skip: bool) {
        self.phase = Phase::Waiting { until, attempt, cause, may_skip };
    }

    /// Ends the wait and begins the attempt.
    pub(crate) fn dial_again(&mut self, now: Time, timeout: Duration) -> Option<Attempt> {
        match self.phase {
            Phase::Waiting { attempt, .. } => Some(self.dial(now, attempt, timeout)),
            _ => None,
        }
    }

    /// Ends the connection for good: no attempt follows.
    pub(crate) fn give_up(&mut self, cause: Cause) {
        self.phase = Phase::GaveUp { cause };
    }

    /// Handles a wake-up: the network changed, or the machine resumed.
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

    /// Skips the wait that has just begun, if a wake-up came during the attempt before it.
    pub(crate) fn skip_wait_if_woken(&mut self, now: Time, timeout: Duration) -> Option<Attempt> {
        if core::mem::take(&mut self.woken) { self.skip_wait(now, timeout) } else { None }
    }

    /// Ends the wait now, or shortens it to one second after the last wake-up.
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

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;
    use crate::socket::push::slab::Pushes;

    impl Connection {
        pub(crate) fn canonical(&self, form: &mut Form<'_>, pushes: &Pushes) {
            let Self { phase, next_id, last_wake, woken } = self;
            form.connection(ConnectionId(*next_id));
            form.option(*last_wake, |form, at| form.time(at, WAKE_INTERVAL));
            form.flag(*woken);
            phase.canonical(form, pushes);
        }
    }

    impl Phase {
        /// The form omits the causes of a wait and of giving up, and the number of an attempt,
        /// because they are only reported. It omits the credentials, which no world replaces.
        fn canonical(&self, form: &mut Form<'_>, pushes: &Pushes) {
            match self {
                Self::Idle => form.number(0),
                Self::Connecting { id, attempt: _, until, dialled: _ } => {
                    form.number(1);
                    form.connection(*id);
                    form.deadline(*until);
                }
                Self::Open(live) => {
                    form.number(2);
                    live.canonical(form, pushes);
                }
                Self::Waiting { until, attempt: _, cause: _, may_skip } => {
                    form.number(3);
                    form.deadline(*until);
                    form.flag(*may_skip);
                }
                Self::Closing { id, then, until } => {
                    form.number(4);
                    form.connection(*id);
                    form.deadline(*until);
                    then.canonical(form);
                }
                Self::Closed => form.number(5),
                Self::GaveUp { cause: _ } => form.number(6),
            }
        }
    }

    impl AfterClose {
        fn canonical(&self, form: &mut Form<'_>) {
            match self {
                Self::Stay => form.number(0),
                Self::Connect => form.number(1),
                Self::Retry { cause, open_for } => {
                    form.number(2);
                    form.text(cause.name());
                    let longest = form.longest_open();
                    form.duration(*open_for, longest);
                }
            }
        }
    }
}
