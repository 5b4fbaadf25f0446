//! Actions: the orders of the socket to its driver.

use core::time::Duration;

use crate::config::{Secret, Uri};
use crate::event::cause::{Cause, RejoinCause};
use crate::event::signal::Signal;
use crate::id::ConnectionId;
use crate::topic::Topic;
use crate::wire::Frame;

/// One step for the driver, from [`Socket::poll_action`](crate::Socket::poll_action).
///
/// The enum is exhaustive on purpose, so that the compiler reports a new variant to the author of a driver.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "the core assumes that every action is carried out"]
pub enum Action {
    /// Call [`Socket::handle_dialled`](crate::Socket::handle_dialled) and
    /// [`Socket::connect_request`](crate::Socket::connect_request), and dial the address that the latter
    /// returns. Then call `handle_opened` or `handle_failed` with this id.
    Connect {
        /// The id of the new connection.
        id: ConnectionId,
        /// 0 for the first attempt, then the number of the retry.
        attempt: u32,
    },
    /// Write a frame.
    Send {
        /// The connection to write to.
        id: ConnectionId,
        /// The frame.
        frame: Frame,
    },
    /// Write the frame that joins a channel.
    Join {
        /// The connection to write to.
        id: ConnectionId,
        /// The topic to join.
        topic: Topic,
        /// The frame.
        frame: Frame,
    },
    /// Start the WebSocket close handshake. Call `handle_closed` when the transport has ended.
    Close {
        /// The connection to close.
        id: ConnectionId,
        /// The close code.
        code: u16,
        /// The close reason.
        reason: &'static str,
    },
    /// Drop the transport, or the attempt to connect, at once. The driver need not report the end.
    Abort {
        /// The connection to drop.
        id: ConnectionId,
    },
    /// For observers only: the next attempt to connect follows after a delay. The socket keeps the
    /// deadline; see [`Socket::poll_timeout`](crate::Socket::poll_timeout).
    ReconnectAfter {
        /// The delay before the attempt.
        delay: Duration,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// The cause of the retry.
        cause: Cause,
    },
    /// For observers only: a channel is joined again after a delay.
    RejoinAfter {
        /// The topic of the channel.
        topic: Topic,
        /// The delay before the attempt.
        delay: Duration,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// The cause of the rejoin.
        cause: RejoinCause,
    },
    /// A signal for the application.
    Signal(Signal),
}

impl Action {
    /// Returns the frame to write, if this is a `Send` or a `Join`.
    #[must_use]
    pub fn into_frame(self) -> Option<Frame> {
        match self {
            Self::Send { frame, .. } | Self::Join { frame, .. } => Some(frame),
            _ => None,
        }
    }
}

/// The address to dial and the credentials for the upgrade. `Debug` redacts secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectRequest {
    /// The address. Its query has every parameter and `vsn`.
    pub uri: Uri,
    /// The headers to send in addition to those of the upgrade.
    pub headers: Vec<(String, Secret)>,
    /// The WebSocket subprotocols to offer: none, or `phoenix` and the one that carries the
    /// `auth_token` (`wire/handshake_auth_token`).
    pub subprotocols: Vec<Secret>,
    /// The time after which the socket aborts the attempt, counted from the last input: the rest of
    /// [`Config::connect_timeout`](crate::Config::connect_timeout). Report a refusal whose body does not end
    /// before that.
    pub timeout: Duration,
}
