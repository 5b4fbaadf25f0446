//! Why an operation of a handle failed, and whose doing it was.

use crate::event::cause::{Cause, ChannelEnd, NotSentCause, Rejection, UnknownCause};
use crate::event::error::{JoinError, PushError};
use crate::event::excerpt::reason;
use crate::wire::payload::Payload;

/// The first attempt to connect failed; the connection is closed and not retried.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{cause}")]
#[non_exhaustive]
pub struct ConnectError {
    /// Why.
    #[source]
    pub cause: Cause,
}

impl ConnectError {
    pub(super) const fn new(cause: Cause) -> Self {
        Self { cause }
    }
}

/// The connection is not open and is not being made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NotConnected {
    /// It was closed, or never started: call `connect`.
    #[error("the connection is closed")]
    Closed,
    /// It gave up.
    #[error("the connection gave up: {0}")]
    GaveUp(#[source] Cause),
    /// Its driver was dropped; nothing can happen any more.
    #[error("the driver of the connection is gone")]
    DriverGone,
}

/// A join did not succeed. The interest in the topic is released.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinFailed {
    /// It was not accepted: nothing was sent.
    #[error(transparent)]
    NotAccepted(#[from] JoinError),
    /// The server refused it; its own words are inside.
    #[error("the server refused the join: {0}")]
    Rejected(#[source] Rejection),
    /// The channel ended first: left, closed by the server, or with its connection.
    #[error("the channel ended before it was joined: {0}")]
    Ended(ChannelEnd),
    /// The deadline passed. The last thing that stood in the way, if anything was seen.
    #[error("the channel was not joined in time{}", .last.as_ref().map(|last| format!("; last of all, {last}")).unwrap_or_default())]
    Deadline {
        /// The last obstacle.
        #[source]
        last: Option<JoinObstacle>,
    },
}

/// Something that kept a join from succeeding so far.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinObstacle {
    /// There was no connection.
    #[error("there was no connection: {0}")]
    Disconnected(#[source] Cause),
    /// The server did not answer in time.
    #[error("the server did not answer the join")]
    TimedOut,
    /// The channel crashed, with this payload.
    #[error("the channel crashed on the server: {}", reason(.0))]
    Crashed(Payload),
    /// The server refused, and the core tries again.
    #[error("the server refused the join: {0}")]
    Rejected(#[source] Rejection),
}

/// A push that did not end with a reply, or a cast that was not written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PushFailed {
    /// It was not accepted; the payload is handed back.
    #[error(transparent)]
    NotAccepted(#[from] PushError),
    /// It was written, and no reply came in time. The server may have handled it.
    #[error("no reply came in time")]
    TimedOut,
    /// It was written, and no reply can come any more. The server may have handled it.
    #[error("the push was sent and its fate is unknown: {0}")]
    Unknown(UnknownCause),
    /// It was never written: safe to push again.
    #[error("the push was not sent: {0}")]
    NotSent(NotSentCause),
    /// It was withdrawn.
    #[error("the push was cancelled")]
    Cancelled,
}

#[cfg(test)]
mod tests {
    use core::error::Error;

    use serde_json::json;

    use super::*;
    use crate::event::cause::RejectionKind;
    use crate::event::refusal::Refusal;

    /// The text, and those of its sources.
    fn chain(error: &dyn Error) -> Vec<String> {
        let mut chain = vec![error.to_string()];
        let mut source = error.source();
        while let Some(error) = source {
            chain.push(error.to_string());
            source = error.source();
        }
        chain
    }

    fn rejection(kind: RejectionKind) -> Rejection {
        Rejection { kind, response: json!({"reason": "no\nway"}).into() }
    }

    #[test]
    fn refused_join_shows_the_servers_reason() {
        let error = JoinFailed::Rejected(rejection(RejectionKind::Application));
        assert_eq!(chain(&error), [r"the server refused the join: no\nway", r"no\nway"]);
        let error = JoinFailed::Rejected(rejection(RejectionKind::UnmatchedTopic));
        let unmatched = "no channel of the server matches the topic";
        assert_eq!(chain(&error)[1], unmatched);
    }

    #[test]
    fn late_join_shows_its_last_obstacle() {
        let refusal = || Refusal::new(503, Vec::new(), "");
        let last = JoinObstacle::Disconnected(Cause::Refused(refusal()));
        let error = JoinFailed::Deadline { last: Some(last) };
        let expected = [
            "the channel was not joined in time; last of all, there was no connection: the server \
             refused the upgrade: HTTP 503",
            "there was no connection: the server refused the upgrade: HTTP 503",
            "the server refused the upgrade: HTTP 503",
            "HTTP 503",
        ];
        assert_eq!(chain(&error), expected);
        let crashed = JoinObstacle::Crashed(json!({"reason": "boom"}).into());
        assert!(crashed.to_string().ends_with("crashed on the server: boom"), "{crashed}");
        let error = JoinFailed::Deadline { last: None };
        assert_eq!(chain(&error), ["the channel was not joined in time"]);
        let connect = ConnectError::new(Cause::Refused(refusal()));
        assert_eq!(chain(&connect).len(), 3);
    }

    #[test]
    fn channel_end_and_lost_push_are_sentences() {
        let end = ChannelEnd::GaveUp(Cause::HeartbeatTimeout);
        let expected = "the channel ended before it was joined: the connection gave up: a heartbeat \
                        went unanswered";
        assert_eq!(JoinFailed::Ended(end).to_string(), expected);
        let rejected = ChannelEnd::Rejected(rejection(RejectionKind::Application));
        assert_eq!(rejected.to_string(), r"the server refused the join: no\nway");
        let unknown = PushFailed::Unknown(UnknownCause::ChannelCrashed).to_string();
        assert!(unknown.ends_with(": the channel crashed on the server"), "{unknown}");
        let not_sent = PushFailed::NotSent(NotSentCause::GaveUp).to_string();
        assert_eq!(not_sent, "the push was not sent: the connection gave up");
        let reply = crate::client::ErrorReply {
            status: "error".into(),
            response: json!({"reason": "full"}).into(),
        };
        assert_eq!(reply.to_string(), "the server replied \"error\": full");
    }
}
