//! What a driver must do next.

use core::time::Duration;

use crate::config::{Secret, Uri};
use crate::event::cause::{Cause, RejoinCause};
use crate::event::signal::Signal;
use crate::id::ConnectionId;
use crate::topic::Topic;
use crate::wire::Frame;

/// One step for the driver, from [`Socket::poll_action`](crate::Socket::poll_action).
///
/// Exhaustive on purpose: the compiler of an embedder reports a new variant.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "an action is decided: the core assumes that it is carried out"]
pub enum Action {
    /// Dial, asking [`Socket::connect_request`](crate::Socket::connect_request) for the address
    /// at that moment, then call `handle_opened` or `handle_failed` with this id.
    Connect {
        /// The id of the new connection.
        id: ConnectionId,
        /// 0 for the first attempt, then the number of the retry.
        attempt: u32,
    },
    /// Write a frame.
    Send {
        /// The connection to write it to.
        id: ConnectionId,
        /// The frame.
        frame: Frame,
    },
    /// Write a frame, which is the join of a channel.
    Join {
        /// The connection to write it to.
        id: ConnectionId,
        /// The topic that is joined.
        topic: Topic,
        /// The frame.
        frame: Frame,
    },
    /// Start the WebSocket close handshake; then call `handle_closed` when the transport ends.
    Close {
        /// The connection to close.
        id: ConnectionId,
        /// The close code.
        code: u16,
        /// The close reason.
        reason: &'static str,
    },
    /// Drop the transport, or the attempt at one, at once. Nothing need be reported back.
    Abort {
        /// The connection to drop.
        id: ConnectionId,
    },
    /// A fact for observers: the next attempt follows after a delay. The deadline itself is in
    /// [`Socket::poll_timeout`](crate::Socket::poll_timeout).
    ReconnectAfter {
        /// The delay that was chosen.
        delay: Duration,
        /// Which attempt it will be, from 1.
        attempt: u32,
        /// Why it is needed.
        cause: Cause,
    },
    /// A fact for observers: a channel is joined again after a delay.
    RejoinAfter {
        /// The topic.
        topic: Topic,
        /// The delay that was chosen.
        delay: Duration,
        /// Which attempt it will be, from 1.
        attempt: u32,
        /// Why it is needed.
        cause: RejoinCause,
    },
    /// Something the application should see.
    Signal(Signal),
}

impl Action {
    /// The frame to write, if this is a `Send` or a `Join`.
    #[must_use]
    pub fn into_frame(self) -> Option<Frame> {
        match self {
            Self::Send { frame, .. } | Self::Join { frame, .. } => Some(frame),
            _ => None,
        }
    }
}

/// Where to dial and what to present there. `Debug` redacts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectRequest {
    /// The address, its query with every parameter and `vsn`.
    pub uri: Uri,
    /// The headers to send beside those of the upgrade.
    pub headers: Vec<(String, Secret)>,
    /// The WebSocket subprotocols to offer: none, or `phoenix` and the one that carries the
    /// `auth_token` (`wire/handshake_auth_token`).
    pub subprotocols: Vec<Secret>,
}
