//! The commands and inputs of the connection, and the effects of its transitions.

use core::time::Duration;

use crate::config::auth_token::{AUTH_TOKEN_PROTOCOL, auth_token_subprotocol};
use crate::config::backoff::DelayRange;
use crate::config::{ConfigError, Credentials, Secret};
use crate::event::action::{Action, ConnectRequest};
use crate::event::cause::{Cause, ChannelEnd, NextStep, NotSentCause, UnknownCause};
use crate::event::error::{CredentialsError, NotOpen, NotRetrying};
use crate::event::input::{Ended, Opened, Progress};
use crate::event::signal::{Signal, Warning};
use crate::id::{ConnectionId, Ref};
use crate::socket::Socket;
use crate::socket::connection::live::Live;
use crate::socket::connection::{AfterClose, Attempt, Connect, Disconnect, Phase, Redial};
use crate::socket::join_pace::JoinPace;
use crate::socket::retry::{Decision, Retry};
use crate::socket::rng::Rng;
use crate::time::Time;

/// # Commands about the connection
impl Socket {
    /// Starts connecting, and reconnects after every loss from then on.
    ///
    /// While the connection is closing, it connects after the close handshake. After `Closed` or
    /// `GaveUp` it starts over: the retry counters are zero, and only the auto-joins are wanted. In
    /// every other state it does nothing.
    pub fn connect(&mut self, now: Time) {
        let now = self.advance(now);
        match self.connection.connect(now, self.config.connect_timeout) {
            Connect::Kept => {}
            Connect::Dial(attempt) => self.dialled(attempt),
            Connect::StartOver(attempt) => {
                self.start_over();
                if let Some(attempt) = attempt {
                    self.dialled(attempt);
                }
            }
        }
    }

    /// Closes the connection, in every state. It cancels every retry and a `connect` that waits for
    /// the close handshake, and ends every push and every channel at once.
    ///
    /// It does not flush: a push that was not written ends as
    /// [`NotSent`](crate::PushOutcome::NotSent). An open connection is closed with code 1000, and
    /// the server has [`Config::close_timeout`](crate::Config::close_timeout) to answer.
    pub fn disconnect(&mut self, now: Time) {
        let now = self.advance(now);
        self.end_channels(
            &ChannelEnd::Disconnected,
            UnknownCause::Disconnected,
            NotSentCause::Disconnected,
        );
        match self.connection.disconnect(now, self.config.close_timeout) {
            // Protocol: CLOSE-9.
            Disconnect::Close(live) => {
                self.pace_ended(now, &live, false);
                self.actions.push_back(Action::Close { id: live.id, code: 1000, reason: "" });
            }
            Disconnect::Abort(id) => {
                self.actions.push_back(Action::Abort { id });
                self.closed(id, false);
            }
            Disconnect::Closed => self.signal(Signal::Closed),
            Disconnect::Nothing => {}
        }
    }

    /// Dials now instead of waiting, with the retry counters at zero. While connecting, it aborts
    /// the attempt and begins another. While open, it does nothing.
    ///
    /// # Errors
    ///
    /// [`NotRetrying`] when the socket is idle, closing, closed or has given up.
    pub fn connect_now(&mut self, now: Time) -> Result<(), NotRetrying> {
        let now = self.advance(now);
        let redial = self.connection.connect_now(now, self.config.connect_timeout)?;
        if let Some(Redial { aborted, attempt }) = redial {
            self.retry = Retry::default();
            if let Some(id) = aborted {
                self.actions.push_back(Action::Abort { id });
                self.signal_end(id, false, Cause::Superseded, NextStep::Reconnect);
            }
            self.dialled(attempt);
        }
        Ok(())
    }

    /// Sends a heartbeat now, to check that the peer still answers. While a heartbeat is
    /// unanswered, it does nothing.
    ///
    /// # Errors
    ///
    /// [`NotOpen`] without an open connection.
    pub fn probe(&mut self, now: Time) -> Result<(), NotOpen> {
        let now = self.advance(now);
        let live = self.connection.live_mut().ok_or(NotOpen)?;
        live.heartbeat.probe(now, &live.ledger);
        Ok(())
    }

    /// Replaces the seed of the jitter, for a connection that is restarted, so that connections
    /// that failed together do not retry together.
    pub fn reseed(&mut self, now: Time, seed: u64) {
        self.advance(now);
        self.rng = Rng::new(seed);
    }

    /// Replaces parameters, headers, token and, if given, the address, from the next attempt on.
    ///
    /// If an attempt is in progress and the server answers it with a 401, another attempt follows,
    /// because the server may have refused the earlier credentials.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] when the new address is not allowed, or when a parameter is a `vsn` other than
    /// the codec's; nothing is replaced.
    pub fn set_credentials(
        &mut self,
        now: Time,
        credentials: Credentials,
    ) -> Result<(), CredentialsError> {
        self.advance(now);
        self.config.request_uri(&credentials)?;
        let replaced = core::mem::replace(&mut self.credentials, credentials);
        let is_dialling = self.connection.replace_credentials(replaced);
        self.retry.replace_credentials(is_dialling);
        Ok(())
    }

    /// Reports that there are no newer credentials for the attempt `id`.
    ///
    /// If the last attempt ended with a 401 or a 403, the connection gives up, because the server
    /// has just refused these credentials. Otherwise the attempt continues with them.
    pub fn credentials_unchanged(&mut self, now: Time, id: ConnectionId) {
        let now = self.advance(now);
        match self.connection.phase() {
            Phase::Connecting { id: current, .. } if *current == id => {
                if self.retry.credentials_refused() {
                    self.actions.push_back(Action::Abort { id });
                    self.attempt_failed(now, id, Cause::CredentialsUnchanged);
                }
            }
            _ => self.stats.stale_inputs += 1,
        }
    }

    /// Whether a connection to the address of the attempt in progress was open before.
    fn is_known_address(&self) -> bool {
        let dialled = self.connection.dialled_with(&self.credentials);
        let address = self.config.address_with(dialled);
        self.opened_at.as_deref().is_some_and(|it| it.is_same_endpoint(address))
    }

    /// The address to dial and the credentials to present there. Call it when you dial, so that
    /// refreshed credentials are used, after [`handle_dialled`](Self::handle_dialled).
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an address that is not allowed: `ws://` to another machine without
    /// [`Config::insecure`](crate::Config::insecure), or a `vsn` other than the codec's. Report it
    /// with [`Cause::Unsupported`], because a retry cannot succeed.
    pub fn connect_request(&self) -> Result<ConnectRequest, ConfigError> {
        let credentials = &self.credentials;
        let uri = self.config.request_uri(credentials)?;
        let subprotocols = credentials.auth_token.as_ref().map(|token| {
            let bearer = auth_token_subprotocol(token.expose());
            // Protocol: CONN-6.
            vec![Secret::from(AUTH_TOKEN_PROTOCOL), Secret::from(bearer)]
        });
        Ok(ConnectRequest {
            uri,
            headers: credentials.sent_headers(),
            subprotocols: subprotocols.unwrap_or_default(),
            timeout: match self.connection.phase() {
                Phase::Connecting { until, .. } => until.since(self.now),
                _ => self.config.connect_timeout,
            },
        })
    }
}

/// # Inputs about the connection
impl Socket {
    /// Reports that the driver dials the attempt `id` now. The socket then judges the result by the
    /// present credentials, even if [`set_credentials`](Self::set_credentials) replaces them before the
    /// result is known. Without this report, the latest credentials count, except that a refusal does
    /// not count against credentials that were set during the attempt.
    pub fn handle_dialled(&mut self, now: Time, id: ConnectionId) {
        self.advance(now);
        if self.connection.handle_dialled(id) {
            self.retry.dialled();
        } else {
            self.stats.stale_inputs += 1;
        }
    }

    /// Reports that the attempt `id` succeeded. The connection is then open and writable.
    pub fn handle_opened(&mut self, now: Time, id: ConnectionId, opened: Opened) {
        let now = self.advance(now);
        let phase = self.connection.phase();
        if !matches!(phase, Phase::Connecting { id: current, .. } if *current == id) {
            self.stats.stale_inputs += 1;
            return;
        }
        self.retry.opened();
        let dialled_with = self.connection.dialled_with(&self.credentials);
        let sent_token = dialled_with.auth_token.is_some();
        if !self.is_known_address() {
            self.opened_at = Some(Box::new(self.config.address_with(dialled_with).clone()));
        }
        self.stats.connections += 1;
        let interval = self.config.heartbeat_interval;
        // The first heartbeat falls in the second half of the interval, so that clients that
        // reconnected together do not send heartbeats together.
        let first =
            DelayRange::new(interval / 2, interval).map_or(interval, |range| self.rng.draw(range));
        // Protocol: CONN-10.
        self.connection.open(Box::new(Live::new(id, now, &self.config, first)));
        self.signal(Signal::Connected { id });
        if sent_token && opened.protocol.is_none() {
            self.signal(Signal::Warning(Warning::AuthTokenNotAcknowledged));
        }
    }

    /// Reports that the attempt `id` failed, with its cause: [`Dial`](Cause::Dial),
    /// [`Tls`](Cause::Tls), [`Refused`](Cause::Refused) and so on. If the attempt was already
    /// reported as opened, the connection ends with this cause.
    pub fn handle_failed(&mut self, now: Time, id: ConnectionId, cause: Cause) {
        self.end(now, id, cause);
    }

    /// Reports that the open connection `id` ended, or that its close handshake is over. If it was
    /// not reported as opened, the attempt fails with this cause.
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

    /// Ends the connection or the attempt `id`, in every state.
    fn end(&mut self, now: Time, id: ConnectionId, cause: Cause) {
        let now = self.advance(now);
        match self.connection.phase() {
            Phase::Connecting { id: current, .. } if *current == id => {
                self.attempt_failed(now, id, cause);
            }
            // Protocol: CLOSE-8.
            Phase::Open(live) if live.id == id => self.connection_lost(now, cause),
            Phase::Closing { id: current, .. } if *current == id => self.close_finished(now),
            _ => self.stats.stale_inputs += 1,
        }
    }

    /// Reports that the driver panicked. No further action is carried out, so the connection and
    /// its channels end for good, with [`Cause::DriverPanicked`].
    pub fn handle_panicked(&mut self, now: Time) {
        let now = self.advance(now);
        let ended = self.connection.id();
        let was_open = !matches!(self.connection.phase(), Phase::Connecting { .. });
        if let Some(live) = self.connection.take_live() {
            self.pace_ended(now, &live, false);
        }
        match (ended, self.connection.phase()) {
            (Some(id), _) => self.give_up(Some((id, was_open)), Cause::DriverPanicked),
            (None, Phase::Waiting { .. } | Phase::Idle) => {
                self.give_up(None, Cause::DriverPanicked);
            }
            (None, _) => {}
        }
    }

    /// Reports whether the transport of `id` takes frames. The socket assumes that a new connection
    /// takes frames: report `false` when the transport refuses a frame, and `true` when it takes
    /// frames again.
    pub fn handle_writable(&mut self, now: Time, id: ConnectionId, writable: bool) {
        let now = self.advance(now);
        match self.connection.live_mut() {
            Some(live) if live.id == id && writable => live.stall.unblock(),
            Some(live) if live.id == id => live.stall.block(now, &live.ledger),
            _ => self.stats.stale_inputs += 1,
        }
    }

    /// Reports how many bytes the transport of `id` has transferred. They extend the deadlines of
    /// unanswered heartbeats and joins: see
    /// [`Config::receive_rate_min`](crate::Config::receive_rate_min). Bytes that the server has
    /// acknowledged start these deadlines over: see [`manual::policies`](crate::manual::policies).
    ///
    /// Report the totals right before a [`handle_timeout`](Self::handle_timeout) that is due, and
    /// about twice a second while the socket [awaits an answer](Self::awaits_answer). Also report
    /// them after about every 16 KiB written, before you poll the next frame. An outdated report
    /// makes deadlines later, never earlier. Without reports, bytes extend no deadline.
    pub fn handle_progress(&mut self, now: Time, id: ConnectionId, progress: Progress) {
        let now = self.advance(now);
        if self.connection.id() != Some(id) {
            self.stats.stale_inputs += 1;
        } else if let Some(live) = self.connection.live_mut() {
            live.progress(now, progress, Ref(self.next_ref));
        }
    }

    /// Whether an open connection has an unanswered heartbeat or join, or a transport that takes no
    /// frames, so that the driver must report [progress](Self::handle_progress).
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        self.connection.live().is_some_and(Live::awaits_answer)
    }
}

/// # Effects of transitions
impl Socket {
    fn start_over(&mut self) {
        self.retry = Retry::default();
        self.pace = JoinPace::default();
        self.add_auto_joins();
    }

    /// Signals an attempt, and asks the driver to dial.
    pub(in crate::socket) fn dialled(&mut self, Attempt { id, number: attempt }: Attempt) {
        self.retry.dialled();
        self.signal(Signal::Connecting { id, attempt });
        self.actions.push_back(Action::Connect { id, attempt });
    }

    /// Called when the wait for the next attempt is over.
    pub(in crate::socket) fn dial_again(&mut self, now: Time) {
        if let Some(attempt) = self.connection.dial_again(now, self.config.connect_timeout) {
            self.dialled(attempt);
        }
    }

    pub(in crate::socket) fn attempt_failed(&mut self, now: Time, id: ConnectionId, cause: Cause) {
        self.stats.failed_attempts += 1;
        self.schedule(now, id, cause, None);
    }

    /// Ends the open connection, which was lost.
    pub(in crate::socket) fn connection_lost(&mut self, now: Time, cause: Cause) {
        // Without a close frame, it is unknown whether the server or a proxy on the path ended the
        // transport.
        let by_peer = matches!(cause, Cause::RemoteClose { .. });
        // Protocol: RETRY-2, RETRY-4.
        let Some(live) = self.connection.take_live() else { return };
        self.pace_ended(now, &live, by_peer);
        self.stats.lost_connections += 1;
        // Protocol: CLOSE-7.
        self.interrupt_channels(now, &cause);
        self.schedule(now, live.id, cause, Some(now.since(live.opened_at)));
    }

    /// Aborts the open connection without a close handshake, because the peer is dead.
    pub(in crate::socket) fn abort_connection(&mut self, now: Time, cause: Cause) {
        if let Some(live) = self.connection.live() {
            self.actions.push_back(Action::Abort { id: live.id });
            self.connection_lost(now, cause);
        }
    }

    /// Closes the open connection because of what the peer sent.
    pub(in crate::socket) fn close_connection(&mut self, now: Time, code: u16, cause: Cause) {
        let Some(live) = self.connection.take_live() else { return };
        self.pace_ended(now, &live, false);
        self.stats.lost_connections += 1;
        self.interrupt_channels(now, &cause);
        let (id, open_for) = (live.id, now.since(live.opened_at));
        let then = AfterClose::Retry { cause, open_for };
        self.connection.close(now, id, then, self.config.close_timeout);
        self.actions.push_back(Action::Close { id, code, reason: "" });
    }

    /// Continues after the close handshake, whether it was completed or timed out.
    pub(in crate::socket) fn close_finished(&mut self, now: Time) {
        let Some((id, then)) = self.connection.finish_close() else { return };
        match then {
            AfterClose::Stay => self.closed(id, true),
            AfterClose::Connect => {
                self.signal_end(id, true, Cause::LocalDisconnect, NextStep::Reconnect);
                let attempt = self.connection.dial(now, 0, self.config.connect_timeout);
                self.dialled(attempt);
            }
            AfterClose::Retry { cause, open_for } => self.schedule(now, id, cause, Some(open_for)),
        }
    }

    fn closed(&mut self, id: ConnectionId, was_open: bool) {
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

    /// Waits for the next attempt or gives up, by the decision of the retry policy.
    fn schedule(&mut self, now: Time, id: ConnectionId, cause: Cause, open_for: Option<Duration>) {
        let known = self.is_known_address();
        match self.retry.decide(&self.config, &mut self.rng, now, &cause, open_for, known) {
            Decision::Retry { delay, attempt, may_skip } => {
                *self.stats.reconnects.entry(cause.name()).or_default() += 1;
                let next = NextStep::Retry { delay, attempt };
                self.signal_end(id, open_for.is_some(), cause.clone(), next);
                self.connection.wait(now + delay, attempt, cause.clone(), may_skip);
                self.actions.push_back(Action::ReconnectAfter { delay, attempt, cause });
                let timeout = self.config.connect_timeout;
                if let Some(attempt) = self.connection.skip_wait_if_woken(now, timeout) {
                    self.dialled(attempt);
                }
            }
            Decision::Stop => self.give_up(Some((id, open_for.is_some())), cause),
        }
    }

    /// Ends every channel and the connection for good. `ended` is the id of the connection or the
    /// attempt that ended, if there is one, and whether it was open.
    fn give_up(&mut self, ended: Option<(ConnectionId, bool)>, cause: Cause) {
        self.connection.give_up(cause.clone());
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

    /// Updates the join pace after the end of a connection. Call it before the channels are
    /// interrupted, because it needs to know whether joins were due.
    fn pace_ended(&mut self, now: Time, live: &Live, by_peer: bool) {
        let idle = live.joins().is_empty() && self.channels.first_due().is_none();
        self.pace.ended(now, by_peer, idle);
    }
}
