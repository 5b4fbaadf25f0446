//! The inputs of the socket, as one enum, and their arguments. An input is a command of the application, or
//! an event of the transport or of the clock.

use core::time::Duration;

use crate::config::Credentials;
use crate::config::join_params::{JoinParams, ParamsPanicked};
use crate::event::cause::Cause;
use crate::event::ticket::JoinTicket;
use crate::id::{ConnectionId, InterestId, PushId};
use crate::topic::Topic;
use crate::wire::payload::Payload;
use crate::wire::{ByteStr, Frame};

/// The result of the upgrade of an opened connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The subprotocol that the server selected, if any.
    pub protocol: Option<String>,
}

/// The number of bytes that a connection has read and written since it opened, counted below TLS.
///
/// The numbers are totals, so the driver may skip a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read from the peer. Do not count bytes that were buffered while the process was suspended:
    /// they do not prove that the peer is alive now.
    pub read: u64,
    /// Bytes that the operating system accepted for sending.
    pub written: u64,
    /// Whether `written` includes every frame that was passed to the transport.
    pub flushed: bool,
    /// The number of written bytes that the peer has certainly read, because it answered a ping that
    /// the transport wrote after them. Zero if the transport sends no such pings, or if the peer has
    /// answered none.
    pub acknowledged: u64,
    /// The value that `acknowledged` will have when the peer answers the oldest unanswered ping.
    /// Without an unanswered ping, it is at most `acknowledged`.
    pub acknowledged_next: u64,
}

/// How an open connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// A close frame was read. Report this even if a reset follows at once, because the close frame is the
    /// cause.
    CloseFrame {
        /// The close code, if the frame had one.
        code: Option<u16>,
        /// The close reason.
        reason: String,
    },
    /// The transport ended or failed without a close frame.
    Lost {
        /// The error of the transport.
        message: String,
    },
    /// The transport stopped at a message that exceeds the limit.
    MessageTooLarge,
}

/// The options of a push.
///
/// ```
/// use core::time::Duration;
/// use phx_proto::PushOptions;
///
/// let slow = PushOptions::call().timeout(Duration::from_secs(60));
/// let now_or_never = PushOptions::cast().fail_fast();
/// assert_ne!(slow, now_or_never);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushOptions {
    pub(crate) cast: bool,
    pub(crate) fail_fast: bool,
    pub(crate) timeout: Option<Duration>,
}

impl PushOptions {
    /// The defaults: a push that ends with the server's reply, like [`call`](Self::call).
    #[must_use]
    pub const fn new() -> Self {
        Self::call()
    }

    /// A push that ends with the server's reply.
    #[must_use]
    pub const fn call() -> Self {
        Self { cast: false, fail_fast: false, timeout: None }
    }

    /// A push that ends when it is written. A reply is ignored.
    #[must_use]
    pub const fn cast() -> Self {
        Self { cast: true, fail_fast: false, timeout: None }
    }

    /// Sets the timeout from the call to the outcome, instead of
    /// [`Config::push_timeout`](crate::Config::push_timeout).
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Refuses the push at once if the channel is not joined, and ends the push as not sent if the channel
    /// is interrupted before the push was written. By default a push waits for the join until its timeout,
    /// even through disconnects.
    #[must_use]
    pub const fn fail_fast(mut self) -> Self {
        self.fail_fast = true;
        self
    }
}

impl Default for PushOptions {
    fn default() -> Self {
        Self::call()
    }
}

/// Everything that changes a [`Socket`](crate::Socket), as data: commands of the application and events of
/// the transport and the clock. [`Socket::apply`](crate::Socket::apply) applies an input.
///
/// Each variant stands for the method that it names, which documents it. A recording, a fuzzer or a test
/// can apply inputs without a dispatch of its own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input {
    /// [`Socket::connect`](crate::Socket::connect).
    Connect,
    /// [`Socket::disconnect`](crate::Socket::disconnect).
    Disconnect,
    /// [`Socket::connect_now`](crate::Socket::connect_now).
    ConnectNow,
    /// [`Socket::probe`](crate::Socket::probe).
    Probe,
    /// [`Socket::join`](crate::Socket::join).
    Join {
        /// The topic.
        topic: Topic,
        /// The join parameters.
        params: JoinParams,
    },
    /// [`Socket::attach`](crate::Socket::attach).
    Attach {
        /// The topic.
        topic: Topic,
    },
    /// [`Socket::release`](crate::Socket::release).
    Release {
        /// The interest.
        interest: InterestId,
    },
    /// [`Socket::leave`](crate::Socket::leave).
    Leave {
        /// The topic.
        topic: Topic,
    },
    /// [`Socket::rejoin`](crate::Socket::rejoin).
    Rejoin {
        /// The topic.
        topic: Topic,
    },
    /// [`Socket::set_join_params`](crate::Socket::set_join_params).
    SetJoinParams {
        /// The topic.
        topic: Topic,
        /// The parameters of the next and later joins.
        params: JoinParams,
    },
    /// [`Socket::supply_join`](crate::Socket::supply_join).
    SupplyJoin {
        /// The ticket for which the parameters were computed.
        ticket: JoinTicket,
        /// The result of [`JoinTicket::evaluate`].
        params: Result<Payload, ParamsPanicked>,
    },
    /// [`Socket::push`](crate::Socket::push).
    Push {
        /// The topic.
        topic: Topic,
        /// The event.
        event: ByteStr,
        /// The payload.
        payload: Payload,
        /// The options of the push.
        options: PushOptions,
    },
    /// [`Socket::cancel_push`](crate::Socket::cancel_push).
    CancelPush {
        /// The push.
        id: PushId,
    },
    /// [`Socket::report_unrouted`](crate::Socket::report_unrouted).
    ReportUnrouted {
        /// Whether the signal is on.
        on: bool,
    },
    /// [`Socket::reseed`](crate::Socket::reseed).
    Reseed {
        /// The seed.
        seed: u64,
    },
    /// [`Socket::set_credentials`](crate::Socket::set_credentials).
    SetCredentials(Credentials),
    /// [`Socket::credentials_unchanged`](crate::Socket::credentials_unchanged).
    CredentialsUnchanged {
        /// The attempt.
        id: ConnectionId,
    },
    /// [`Socket::handle_dialled`](crate::Socket::handle_dialled).
    Dialled {
        /// The attempt.
        id: ConnectionId,
    },
    /// [`Socket::handle_opened`](crate::Socket::handle_opened).
    Opened {
        /// The attempt that succeeded.
        id: ConnectionId,
        /// The result of the upgrade.
        opened: Opened,
    },
    /// [`Socket::handle_failed`](crate::Socket::handle_failed).
    Failed {
        /// The attempt that failed.
        id: ConnectionId,
        /// Why it failed.
        cause: Cause,
    },
    /// [`Socket::handle_closed`](crate::Socket::handle_closed).
    Closed {
        /// The connection that ended.
        id: ConnectionId,
        /// How it ended.
        ended: Ended,
    },
    /// [`Socket::handle_frame`](crate::Socket::handle_frame).
    Frame {
        /// The connection that received the frame.
        id: ConnectionId,
        /// The frame.
        frame: Frame,
    },
    /// [`Socket::handle_writable`](crate::Socket::handle_writable).
    Writable {
        /// The connection.
        id: ConnectionId,
        /// Whether the transport accepts frames.
        writable: bool,
    },
    /// [`Socket::handle_progress`](crate::Socket::handle_progress).
    Progress {
        /// The connection.
        id: ConnectionId,
        /// The bytes read and written so far.
        progress: Progress,
    },
    /// [`Socket::handle_timeout`](crate::Socket::handle_timeout).
    Timeout,
    /// [`Socket::handle_wake`](crate::Socket::handle_wake).
    Wake,
    /// [`Socket::handle_panicked`](crate::Socket::handle_panicked).
    Panicked,
}

impl Input {
    /// The connection of an I/O input; `None` for commands and for inputs that affect the whole socket.
    ///
    /// The socket counts an input of an earlier connection in
    /// [`Stats::stale_inputs`](crate::event::Stats::stale_inputs) and otherwise ignores it.
    #[must_use]
    pub const fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::CredentialsUnchanged { id }
            | Self::Dialled { id }
            | Self::Opened { id, .. }
            | Self::Failed { id, .. }
            | Self::Closed { id, .. }
            | Self::Frame { id, .. }
            | Self::Writable { id, .. }
            | Self::Progress { id, .. } => Some(*id),
            Self::Connect
            | Self::Disconnect
            | Self::ConnectNow
            | Self::Probe
            | Self::Join { .. }
            | Self::Attach { .. }
            | Self::Release { .. }
            | Self::Leave { .. }
            | Self::Rejoin { .. }
            | Self::SetJoinParams { .. }
            | Self::SupplyJoin { .. }
            | Self::Push { .. }
            | Self::CancelPush { .. }
            | Self::ReportUnrouted { .. }
            | Self::Reseed { .. }
            | Self::SetCredentials(_)
            | Self::Timeout
            | Self::Wake
            | Self::Panicked => None,
        }
    }
}
