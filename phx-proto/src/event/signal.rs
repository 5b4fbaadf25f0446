//! What the application sees.

use core::time::Duration;

use crate::event::cause::{
    Cause, ChannelEnd, Interruption, LeaveOutcome, NextStep, PushOutcome, Rejection,
};
use crate::id::{ConnectionId, PushId};
use crate::topic::Topic;
use crate::wire::payload::Payload;
use crate::wire::{ByteStr, DecodeError};

/// One thing that happened, in the past tense.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Signal {
    /// An attempt to connect began.
    Connecting {
        /// Its id.
        id: ConnectionId,
        /// 0 for the first one, then the number of the retry.
        attempt: u32,
    },
    /// The socket is open. Joins follow.
    Connected {
        /// Its id.
        id: ConnectionId,
    },
    /// An attempt failed or an open connection was lost.
    Disconnected {
        /// Which.
        id: ConnectionId,
        /// Why.
        cause: Cause,
        /// What happens next.
        next: NextStep,
    },
    /// The connection will not be tried again. Every channel has ended.
    GaveUp {
        /// The last cause.
        cause: Cause,
    },
    /// A local `disconnect` is complete. Every channel has ended.
    Closed,

    /// The channel is joined, for the first time since it was asked for.
    Joined {
        /// The topic.
        topic: Topic,
        /// The server's response.
        response: Payload,
    },
    /// The channel is joined again. Messages may have been missed in between.
    Resumed {
        /// The topic.
        topic: Topic,
        /// The server's response.
        response: Payload,
    },
    /// The server refused a join.
    JoinRejected {
        /// The topic.
        topic: Topic,
        /// Its refusal.
        rejection: Rejection,
        /// Whether there will be no further try; `ChannelClosed` follows then.
        last: bool,
    },
    /// The oldest unanswered join took longer than
    /// [`Config::join_timeout`](crate::Config::join_timeout). It is being probed.
    JoinTimedOut {
        /// The topic.
        topic: Topic,
    },
    /// The server's channel crashed (`phx_error`).
    Errored {
        /// The topic.
        topic: Topic,
        /// The payload of the `phx_error`.
        payload: Payload,
    },
    /// A joined channel is not joined any more, though it is still wanted.
    Interrupted {
        /// The topic.
        topic: Topic,
        /// Why.
        cause: Interruption,
    },
    /// A leave ended.
    Left {
        /// The topic.
        topic: Topic,
        /// How.
        outcome: LeaveOutcome,
    },
    /// The channel ended and is not joined again by itself.
    ChannelClosed {
        /// The topic.
        topic: Topic,
        /// Why.
        cause: ChannelEnd,
    },

    /// A push or a broadcast from the server.
    Message {
        /// The topic.
        topic: Topic,
        /// The event.
        event: ByteStr,
        /// The payload, not yet parsed.
        payload: Payload,
    },
    /// A push ended.
    PushEnded {
        /// Which.
        id: PushId,
        /// On which topic.
        topic: Topic,
        /// How.
        outcome: PushOutcome,
    },

    /// A heartbeat was answered.
    HeartbeatAcked {
        /// The time from its writing to its answer.
        rtt: Duration,
    },
    /// The server sent something that is not Phoenix's protocol. The frame is skipped; the
    /// connection goes on.
    ProtocolError {
        /// What was wrong, with evidence.
        error: DecodeError,
    },
    /// Something works less well than was asked for.
    Warning(Warning),
}

/// Something that works less well than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// An `auth_token` was sent and the server chose no subprotocol, as Phoenix 1.7 and every
    /// server without `auth_token: true` do: it did not look at the token.
    AuthTokenNotAcknowledged,
    /// The heartbeat interval leaves no slack before Phoenix's default idle timeout of 60 s.
    HeartbeatIntervalTooLong,
}
