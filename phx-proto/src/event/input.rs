//! What goes into the machine: its commands and the events of the world around it, as one enum, and
//! their arguments.

use core::time::Duration;

use crate::config::Credentials;
use crate::config::join_params::{JoinParams, ParamsPanicked};
use crate::event::cause::Cause;
use crate::event::ticket::JoinTicket;
use crate::id::{ConnectionId, InterestId, PushId};
use crate::topic::Topic;
use crate::wire::payload::Payload;
use crate::wire::{ByteStr, Frame};

/// What an opened connection agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The subprotocol that the server chose, if any.
    pub protocol: Option<String>,
}

/// How many bytes a connection has moved since it opened, counted below TLS.
///
/// Totals, so a report that is left out loses nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read from the peer. Leave out those that lay in a buffer while the process did not
    /// run: they are no evidence that the peer is alive now.
    pub read: u64,
    /// Bytes that the operating system took to be sent.
    pub written: u64,
    /// Every frame handed to the transport is among them.
    pub flushed: bool,
}

/// How an open connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// A close frame was read. Report this even when a reset follows at once: the close frame is
    /// the cause.
    CloseFrame {
        /// Its code, if it had one.
        code: Option<u16>,
        /// Its reason.
        reason: String,
    },
    /// The transport ended or failed without a close frame.
    Lost {
        /// What the transport said.
        message: String,
    },
    /// The transport gave up on a message over the limit.
    MessageTooLarge,
}

/// How a push is made.
///
/// ```
/// use core::time::Duration;
/// use phx_proto::PushOptions;
///
/// let patient = PushOptions::call().timeout(Duration::from_secs(60));
/// let eager = PushOptions::cast().fail_fast();
/// assert_ne!(patient, eager);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushOptions {
    pub(crate) cast: bool,
    pub(crate) fail_fast: bool,
    pub(crate) timeout: Option<Duration>,
}

impl PushOptions {
    /// A push that ends with the server's reply.
    #[must_use]
    pub const fn call() -> Self {
        Self { cast: false, fail_fast: false, timeout: None }
    }

    /// A push that ends when it is written; a reply is ignored.
    #[must_use]
    pub const fn cast() -> Self {
        Self { cast: true, fail_fast: false, timeout: None }
    }

    /// How long it may take, from the call to its outcome, in place of
    /// [`Config::push_timeout`](crate::Config::push_timeout).
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Refuses the push at once when the channel is not joined, and ends it unsent when the
    /// channel is interrupted before it was written. By default it waits for the join, through
    /// disconnects too, until its timeout.
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

/// Everything that changes a [`Socket`](crate::Socket), as data: the commands of the application and
/// the events of the world around it. [`Socket::apply`](crate::Socket::apply) carries one out.
///
/// Each variant stands for the method that it names, which documents it. What reads inputs from
/// elsewhere (a recording, a fuzzer, a test) needs no dispatch of its own.
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
        /// The parameters of its joins.
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
        /// The parameters from the next join on.
        params: JoinParams,
    },
    /// [`Socket::supply_join`](crate::Socket::supply_join).
    SupplyJoin {
        /// The ticket that asked for the parameters.
        ticket: JoinTicket,
        /// What [`JoinTicket::evaluate`] returned.
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
        /// How it is pushed.
        options: PushOptions,
    },
    /// [`Socket::cancel_push`](crate::Socket::cancel_push).
    CancelPush {
        /// The push.
        id: PushId,
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
    /// [`Socket::handle_opened`](crate::Socket::handle_opened).
    Opened {
        /// The attempt that succeeded.
        id: ConnectionId,
        /// What was agreed on.
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
        /// The connection that it came from.
        id: ConnectionId,
        /// The frame.
        frame: Frame,
    },
    /// [`Socket::handle_writable`](crate::Socket::handle_writable).
    Writable {
        /// The connection.
        id: ConnectionId,
        /// Whether its transport takes frames.
        writable: bool,
    },
    /// [`Socket::handle_progress`](crate::Socket::handle_progress).
    Progress {
        /// The connection.
        id: ConnectionId,
        /// How many bytes it has moved.
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
    /// The connection that it is about; none for commands and for what concerns the whole socket.
    ///
    /// One about an earlier connection is counted in
    /// [`Stats::stale_inputs`](crate::event::Stats::stale_inputs) and changes nothing else.
    #[must_use]
    pub const fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::CredentialsUnchanged { id }
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
            | Self::Reseed { .. }
            | Self::SetCredentials(_)
            | Self::Timeout
            | Self::Wake
            | Self::Panicked => None,
        }
    }
}
