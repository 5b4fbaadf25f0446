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
//! All there is, held to what happens by `tests/diagrams.rs`:
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
//! unless a table says otherwise, because servers send 1000 on restarts too
//! (`wire/close_graceful_shutdown`). Only a local `disconnect` is final by itself.
//!
//! What ends a connection is told in this order: the interruption of each channel, the outcomes of
//! its pushes, `Disconnected`, and then what follows. Every `Connecting` is followed by one of
//! `Connected` and `ConnectFailed`, every `Connected` by a `Disconnected`.

use core::time::Duration;

use super::{Live, Socket};
use crate::collections::ordered::Ordered;
use crate::config::auth_token::auth_token_subprotocol;
use crate::config::{ConfigError, Credentials, Secret, Uri};
use crate::event::action::{Action, ConnectRequest};
use crate::event::cause::{Cause, ChannelEnd, NextStep, NotSentCause, UnknownCause};
use crate::event::error::{CredentialsError, NotOpen, NotRetrying};
use crate::event::input::{Ended, Opened, Progress};
use crate::event::signal::{Signal, Warning};
use crate::id::{ConnectionId, Ref};
use crate::socket::heartbeat::Heartbeat;
use crate::socket::join_clock::JoinClock;
use crate::socket::join_pace::JoinPace;
use crate::socket::progress::Ledger;
use crate::socket::push::abandoned::Abandoned;
use crate::socket::push::held::Held;
use crate::socket::retry::{Decision, Retry};
use crate::socket::rng::Rng;
use crate::socket::timer::TimerKey;
use crate::time::Time;

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

/// The state of the connection.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Idle,
    Connecting { id: ConnectionId, attempt: u32 },
    Open { id: ConnectionId },
    Waiting { until: Time, attempt: u32, cause: Cause, may_skip: bool },
    Closing { id: ConnectionId, then: AfterClose },
    Closed,
    GaveUp { cause: Cause },
}

/// What follows the close handshake.
#[derive(Clone, Debug)]
pub(super) enum AfterClose {
    /// Nothing.
    Stay,
    /// `connect` was called meanwhile.
    Connect,
    /// We closed because of the peer, so this is a lost connection.
    Retry { cause: Cause, open_for: Duration },
}

impl Phase {
    pub(super) const fn id(&self) -> Option<ConnectionId> {
        match self {
            Self::Connecting { id, .. } | Self::Open { id } | Self::Closing { id, .. } => Some(*id),
            _ => None,
        }
    }

    pub(super) fn status(&self) -> Status {
        match self {
            Self::Idle => Status::Idle,
            Self::Connecting { attempt, .. } => Status::Connecting { attempt: *attempt },
            Self::Open { .. } => Status::Open,
            Self::Waiting { until, attempt, cause, .. } => {
                Status::Waiting { until: *until, attempt: *attempt, cause: cause.clone() }
            }
            Self::Closing { .. } => Status::Closing,
            Self::Closed => Status::Closed,
            Self::GaveUp { cause } => Status::GaveUp { cause: cause.clone() },
        }
    }

    /// Whether topics can be wanted in this state.
    pub(super) const fn accepts_joins(&self) -> bool {
        !matches!(
            self,
            Self::Closed | Self::GaveUp { .. } | Self::Closing { then: AfterClose::Stay, .. }
        )
    }
}

/// # Commands about the connection
impl Socket {
    /// Starts connecting and keeps the connection from then on.
    ///
    /// While closing it is remembered. After `Closed` or `GaveUp` it begins a new life: counters
    /// at zero, no topic wanted but the auto-joins. In every other state it changes nothing.
    pub fn connect(&mut self, now: Time) {
        let now = self.advance(now);
        match &mut self.phase {
            Phase::Idle => self.dial(now, 0),
            Phase::Closed | Phase::GaveUp { .. } => {
                self.begin_life();
                self.dial(now, 0);
            }
            Phase::Closing { then: then @ AfterClose::Stay, .. } => {
                *then = AfterClose::Connect;
                self.begin_life();
            }
            Phase::Closing { .. }
            | Phase::Connecting { .. }
            | Phase::Open { .. }
            | Phase::Waiting { .. } => {}
        }
    }

    /// Closes the connection. Wins in every state: cancels every retry, ends every push and every
    /// channel at once, and a remembered `connect` too.
    ///
    /// It does not flush: a push that was not written ends
    /// [`NotSent`](crate::PushOutcome::NotSent). An open connection gets a close frame with code
    /// 1000 and [`Config::close_timeout`](crate::Config::close_timeout) to answer it.
    pub fn disconnect(&mut self, now: Time) {
        let now = self.advance(now);
        self.end_channels(
            &ChannelEnd::Disconnected,
            UnknownCause::Disconnected,
            NotSentCause::Disconnected,
        );
        match &mut self.phase {
            Phase::Open { id } => {
                let id = *id;
                self.drop_live(now, false);
                self.start_close(now, id, 1000, AfterClose::Stay);
            }
            Phase::Closing { then, .. } => *then = AfterClose::Stay,
            Phase::Connecting { id, .. } => {
                let id = *id;
                self.timers.disarm(&TimerKey::Connect);
                self.actions.push_back(Action::Abort { id });
                self.closed(id, false);
            }
            Phase::Waiting { .. } => {
                self.timers.disarm(&TimerKey::Reconnect);
                self.phase = Phase::Closed;
                self.signal(Signal::Closed);
            }
            Phase::Idle | Phase::GaveUp { .. } => {
                self.phase = Phase::Closed;
                self.signal(Signal::Closed);
            }
            Phase::Closed => {}
        }
    }

    /// Dials now instead of waiting, with the attempt counters at zero; while connecting, drops
    /// the attempt and dials anew. Does nothing while open.
    ///
    /// # Errors
    ///
    /// [`NotRetrying`] when no connection is being kept: idle, closing, closed or given up.
    pub fn connect_now(&mut self, now: Time) -> Result<(), NotRetrying> {
        let now = self.advance(now);
        match self.phase {
            Phase::Open { .. } => Ok(()),
            Phase::Waiting { .. } => {
                self.retry = Retry::default();
                self.timers.disarm(&TimerKey::Reconnect);
                self.dial(now, 0);
                Ok(())
            }
            Phase::Connecting { id, .. } => {
                self.retry = Retry::default();
                self.actions.push_back(Action::Abort { id });
                self.signal_end(id, false, Cause::Superseded, NextStep::Reconnect);
                self.dial(now, 0);
                Ok(())
            }
            Phase::Idle | Phase::Closing { .. } | Phase::Closed | Phase::GaveUp { .. } => {
                Err(NotRetrying)
            }
        }
    }

    /// Sends a heartbeat now, to find out whether the peer still answers. One that is on its way
    /// already will do.
    ///
    /// # Errors
    ///
    /// [`NotOpen`] without an open connection.
    pub fn probe(&mut self, now: Time) -> Result<(), NotOpen> {
        let now = self.advance(now);
        let live = self.live.as_mut().ok_or(NotOpen)?;
        live.heartbeat.probe(now, &live.ledger);
        self.rearm_heartbeat();
        Ok(())
    }

    /// Replaces the seed of the jitter, for a connection that is started again: two that failed
    /// together then do not retry together.
    pub fn reseed(&mut self, now: Time, seed: u64) {
        self.advance(now);
        self.rng = Rng::new(seed);
    }

    /// Replaces parameters, headers, token (and address, if given) from the next attempt on, as
    /// a whole.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] for an address that may not be dialled; nothing is replaced then.
    pub fn set_credentials(
        &mut self,
        now: Time,
        credentials: Credentials,
    ) -> Result<(), CredentialsError> {
        self.advance(now);
        if let Some(uri) = &credentials.uri {
            self.config.check_uri(uri)?;
        }
        self.credentials = credentials;
        Ok(())
    }

    /// Says, for the attempt `id`, that there are no newer credentials than the last ones.
    ///
    /// Right after a 401 or a 403 that is final: the server refused these very credentials.
    /// Otherwise the attempt goes on with them.
    pub fn credentials_unchanged(&mut self, now: Time, id: ConnectionId) {
        let now = self.advance(now);
        match self.phase {
            Phase::Connecting { id: current, .. } if current == id => {
                if self.retry.credentials_refused() {
                    self.actions.push_back(Action::Abort { id });
                    self.attempt_failed(now, id, Cause::CredentialsUnchanged);
                }
            }
            _ => self.stats.stale_inputs += 1,
        }
    }

    /// The address of the next attempt, without the parameters.
    fn address(&self) -> &Uri {
        self.credentials.uri.as_ref().unwrap_or(&self.config.uri)
    }

    /// Where to dial and what to present there, as of now. Ask at dial time, so that refreshed
    /// credentials are the ones used.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for what may not be dialled, whichever call it came from: `ws://` that would
    /// leave this machine without [`Config::insecure`](crate::Config::insecure), or a `vsn` other
    /// than the codec's. Report it with [`Cause::Unsupported`], as no retry changes it.
    pub fn connect_request(&self) -> Result<ConnectRequest, ConfigError> {
        let credentials = &self.credentials;
        let mut uri = self.address().clone();
        for (name, value) in &credentials.params {
            uri.push_param(name, value.expose());
        }
        if uri.params("vsn").next().is_none() {
            uri.push_param("vsn", self.config.codec.vsn());
        }
        self.config.check_uri(&uri)?;
        let subprotocols = credentials.auth_token.as_ref().map(|token| {
            let bearer = auth_token_subprotocol(token.expose());
            vec![Secret::from("phoenix"), Secret::from(bearer)]
        });
        Ok(ConnectRequest {
            uri,
            headers: credentials.sent_headers(),
            subprotocols: subprotocols.unwrap_or_default(),
        })
    }
}

/// # Inputs about the connection
impl Socket {
    /// The attempt `id` succeeded: the socket is open and writable.
    pub fn handle_opened(&mut self, now: Time, id: ConnectionId, opened: Opened) {
        let now = self.advance(now);
        if !matches!(self.phase, Phase::Connecting { id: current, .. } if current == id) {
            self.stats.stale_inputs += 1;
            return;
        }
        self.timers.disarm(&TimerKey::Connect);
        self.woken = false;
        self.retry.opened();
        if !self.opened_at.as_deref().is_some_and(|it| it.is_same_endpoint(self.address())) {
            self.opened_at = Some(Box::new(self.address().clone()));
        }
        self.stats.connections += 1;
        let interval = self.config.heartbeat_interval;
        // Somewhere in the second half of the interval, so that clients which reconnected
        // together do not beat together.
        let first = crate::config::backoff::DelayRange::new(interval / 2, interval)
            .map_or(interval, |range| self.rng.draw(range));
        self.live = Some(Live {
            id,
            opened_at: now,
            writable: true,
            stalled: None,
            ledger: Ledger::new(&self.config),
            heartbeat: Heartbeat::new(interval, self.config.heartbeat_timeout, first, now),
            joins: JoinClock::default(),
            due_joins: self
                .channels
                .sorted()
                .filter(|(_, channel)| channel.is_due())
                .filter_map(|(topic, channel)| Some((channel.want.as_ref()?.order, topic.clone())))
                .collect(),
            abandoned: Abandoned::default(),
            lane: Ordered::new(),
            held: Held::default(),
        });
        self.phase = Phase::Open { id };
        self.rearm_heartbeat();
        self.signal(Signal::Connected { id });
        if self.credentials.auth_token.is_some() && opened.protocol.is_none() {
            self.signal(Signal::Warning(Warning::AuthTokenNotAcknowledged));
        }
    }

    /// The attempt `id` failed, for a cause that the driver knows: [`Dial`](Cause::Dial),
    /// [`Tls`](Cause::Tls), [`Refused`](Cause::Refused) and the like. If it was reported as opened
    /// before, the connection ends with this cause.
    pub fn handle_failed(&mut self, now: Time, id: ConnectionId, cause: Cause) {
        self.end(now, id, cause);
    }

    /// The open connection `id` ended, or its close handshake is over. If it was not reported as
    /// opened before, the attempt has failed with this cause.
    pub fn handle_closed(&mut self, now: Time, id: ConnectionId, ended: Ended) {
        let cause = match ended {
            Ended::CloseFrame { code, reason } => Cause::RemoteClose { code, reason },
            Ended::Lost { message } => Cause::TransportLost { message },
            Ended::MessageTooLarge => {
                Cause::MessageTooLarge { limit: self.config.max_message_bytes }
            }
        };
        self.end(now, id, cause);
    }

    /// Ends the connection or the attempt `id`, in whatever state it is.
    fn end(&mut self, now: Time, id: ConnectionId, cause: Cause) {
        let now = self.advance(now);
        match self.phase {
            Phase::Connecting { id: current, .. } if current == id => {
                self.attempt_failed(now, id, cause);
            }
            Phase::Open { id: current } if current == id => self.connection_lost(now, cause),
            Phase::Closing { id: current, .. } if current == id => self.close_finished(now),
            _ => self.stats.stale_inputs += 1,
        }
    }

    /// The driver panicked and goes away: nothing is carried out any more. The connection and its
    /// channels end for good, with [`Cause::DriverPanicked`].
    pub fn handle_panicked(&mut self, now: Time) {
        self.advance(now);
        let id = self.phase.id();
        let was_open = !matches!(self.phase, Phase::Connecting { .. });
        self.drop_live(now, false);
        for key in [TimerKey::Connect, TimerKey::Close, TimerKey::Reconnect] {
            self.timers.disarm(&key);
        }
        match (id, &self.phase) {
            (Some(id), _) => self.give_up(Some((id, was_open)), Cause::DriverPanicked),
            (None, Phase::Waiting { .. } | Phase::Idle) => {
                self.give_up(None, Cause::DriverPanicked);
            }
            (None, _) => {}
        }
    }

    /// Whether the transport of `id` takes a frame. It does from the moment it opened; say no
    /// when it refuses one, and yes when it takes them again.
    pub fn handle_writable(&mut self, now: Time, id: ConnectionId, writable: bool) {
        let now = self.advance(now);
        match &mut self.live {
            Some(live) if live.id == id => {
                if live.writable == writable {
                    return;
                }
                live.writable = writable;
                live.stalled = (!writable).then(|| (now, live.ledger.written()));
                self.rearm_write_stall();
            }
            _ => self.stats.stale_inputs += 1,
        }
    }

    /// How many bytes the transport of `id` has moved. They extend the deadlines of what is
    /// unanswered: see [`Config::receive_rate_min`](crate::Config::receive_rate_min).
    ///
    /// Report the totals right before a [`handle_timeout`](Self::handle_timeout) whose time has
    /// come, and about twice a second while the socket [awaits an answer](Self::awaits_answer); also
    /// once some 16 KiB were written, before the next frame is pulled. A report that is missing or
    /// old makes deadlines later, never earlier, but for the first: without it bytes buy no time.
    pub fn handle_progress(&mut self, now: Time, id: ConnectionId, progress: Progress) {
        self.advance(now);
        match &mut self.live {
            Some(live) if live.id == id => {
                live.ledger.report(progress, Ref(self.next_ref));
                if progress.flushed {
                    live.heartbeat.flushed(&live.ledger);
                    live.joins.flushed(&live.ledger);
                }
                self.rearm_join_clock();
                self.rearm_write_stall();
            }
            // Not open yet, or closing: nothing waits for an answer.
            _ if self.phase.id() == Some(id) => {}
            _ => self.stats.stale_inputs += 1,
        }
    }

    /// Whether the verdict on the open connection depends on an answer or on its taking a frame, so
    /// that [progress](Self::handle_progress) matters.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        self.live.as_ref().is_some_and(|live| {
            live.heartbeat.is_unanswered() || !live.joins.is_empty() || live.stalled.is_some()
        })
    }
}

/// # Transitions
impl Socket {
    fn begin_life(&mut self) {
        self.retry = Retry::default();
        self.pace = JoinPace::default();
        self.add_auto_joins();
    }

    pub(super) fn dial(&mut self, now: Time, attempt: u32) {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.phase = Phase::Connecting { id, attempt };
        self.woken = false;
        self.timers.arm(TimerKey::Connect, now + self.config.connect_timeout);
        self.signal(Signal::Connecting { id, attempt });
        self.actions.push_back(Action::Connect { id, attempt });
    }

    /// The wait is over.
    pub(super) fn dial_again(&mut self, now: Time) {
        if let Phase::Waiting { attempt, .. } = self.phase {
            self.timers.disarm(&TimerKey::Reconnect);
            self.dial(now, attempt);
        }
    }

    pub(super) fn attempt_failed(&mut self, now: Time, id: ConnectionId, cause: Cause) {
        self.timers.disarm(&TimerKey::Connect);
        self.stats.failed_attempts += 1;
        self.schedule(now, id, cause, None);
    }

    /// The open connection is gone.
    pub(super) fn connection_lost(&mut self, now: Time, cause: Cause) {
        // A transport that is lost without a close frame may have been cut by anything on the way.
        let by_peer = matches!(cause, Cause::RemoteClose { .. });
        let Some(live) = self.drop_live(now, by_peer) else { return };
        self.stats.lost_connections += 1;
        self.interrupt_channels(now, &cause);
        self.schedule(now, live.id, cause, Some(now.since(live.opened_at)));
    }

    /// We drop the open connection without a handshake: the peer is dead.
    pub(super) fn abort_connection(&mut self, now: Time, cause: Cause) {
        if let Some(live) = &self.live {
            self.actions.push_back(Action::Abort { id: live.id });
            self.connection_lost(now, cause);
        }
    }

    /// We close the open connection because of what the peer sent.
    pub(super) fn close_connection(&mut self, now: Time, code: u16, cause: Cause) {
        let Some(live) = self.drop_live(now, false) else { return };
        self.stats.lost_connections += 1;
        self.interrupt_channels(now, &cause);
        let open_for = now.since(live.opened_at);
        self.start_close(now, live.id, code, AfterClose::Retry { cause, open_for });
    }

    fn start_close(&mut self, now: Time, id: ConnectionId, code: u16, then: AfterClose) {
        self.phase = Phase::Closing { id, then };
        self.timers.arm(TimerKey::Close, now + self.config.close_timeout);
        self.actions.push_back(Action::Close { id, code, reason: "" });
    }

    /// The close handshake is over, or was cut short.
    pub(super) fn close_finished(&mut self, now: Time) {
        self.timers.disarm(&TimerKey::Close);
        let Phase::Closing { id, then } = core::mem::replace(&mut self.phase, Phase::Closed) else {
            return;
        };
        match then {
            AfterClose::Stay => self.closed(id, true),
            AfterClose::Connect => {
                self.signal_end(id, true, Cause::LocalDisconnect, NextStep::Reconnect);
                self.dial(now, 0);
            }
            AfterClose::Retry { cause, open_for } => self.schedule(now, id, cause, Some(open_for)),
        }
    }

    fn closed(&mut self, id: ConnectionId, was_open: bool) {
        self.phase = Phase::Closed;
        self.signal_end(id, was_open, Cause::LocalDisconnect, NextStep::Stop);
        self.signal(Signal::Closed);
    }

    fn signal_end(&mut self, id: ConnectionId, was_open: bool, cause: Cause, next: NextStep) {
        self.signal(if was_open {
            Signal::Disconnected { id, cause, next }
        } else {
            Signal::ConnectFailed { id, cause, next }
        });
    }

    fn schedule(&mut self, now: Time, id: ConnectionId, cause: Cause, open_for: Option<Duration>) {
        let known = self.opened_at.as_deref().is_some_and(|it| it.is_same_endpoint(self.address()));
        match self.retry.decide(&self.config, &mut self.rng, now, &cause, open_for, known) {
            Decision::Retry { delay, attempt, may_skip } => {
                let until = now + delay;
                *self.stats.reconnects.entry(cause.name()).or_default() += 1;
                self.timers.arm(TimerKey::Reconnect, until);
                let next = NextStep::Retry { delay, attempt };
                self.signal_end(id, open_for.is_some(), cause.clone(), next);
                self.phase = Phase::Waiting { until, attempt, cause: cause.clone(), may_skip };
                self.actions.push_back(Action::ReconnectAfter { delay, attempt, cause });
                if core::mem::take(&mut self.woken) && may_skip {
                    self.skip_wait(now);
                }
            }
            Decision::Stop => self.give_up(Some((id, open_for.is_some())), cause),
        }
    }

    /// Ends every channel for good, and the connection or attempt, if there is one: its id, and
    /// whether it was open.
    fn give_up(&mut self, ended: Option<(ConnectionId, bool)>, cause: Cause) {
        self.phase = Phase::GaveUp { cause: cause.clone() };
        if let Some((id, was_open)) = ended {
            self.signal_end(id, was_open, cause.clone(), NextStep::Stop);
        }
        self.end_channels(
            &ChannelEnd::GaveUp(cause.clone()),
            UnknownCause::Disconnected,
            NotSentCause::GaveUp,
        );
        self.signal(Signal::GaveUp { cause });
    }

    /// Takes everything that belonged to the open connection, deadlines included.
    fn drop_live(&mut self, now: Time, by_peer: bool) -> Option<Live> {
        let live = self.live.take()?;
        self.pace.ended(now, by_peer, live.joins.is_empty() && live.due_joins.is_empty());
        for key in [
            TimerKey::HeartbeatDue,
            TimerKey::HeartbeatReply,
            TimerKey::WriteStall,
            TimerKey::JoinClock,
            TimerKey::JoinBlock,
            TimerKey::JoinPace,
        ] {
            self.timers.disarm(&key);
        }
        Some(live)
    }
}
