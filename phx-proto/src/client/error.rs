//! Why an operation of a handle failed, and whose doing it was.
//!
//! There is one error for what a caller calls, and its text is whole: one line, with the reason that the
//! server gave, escaped and bounded. Its `source()` is what comes after the text, so a chain of errors
//! (`anyhow`) repeats nothing. What the text was made of is in the variants.

use super::reply::ErrorReply;
use crate::event::cause::{Cause, ChannelEnd, DialKind, NotSentCause, Rejection, UnknownCause};
use crate::event::error::{JoinError, PushError};
use crate::event::excerpt::reason;
use crate::wire::payload::{Payload, PayloadError};

/// The first attempt to connect failed; the connection is closed and not retried.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(transparent)]
#[non_exhaustive]
pub struct ConnectError {
    /// Why.
    pub cause: Cause,
}

impl ConnectError {
    pub(super) const fn new(cause: Cause) -> Self {
        Self { cause }
    }

    /// Whether the time was up: that of the attempt, or of the operating system.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.cause.dial_kind() == Some(DialKind::TimedOut)
    }

    /// Whether the server, or a proxy in its name, answered and refused the connection.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        matches!(self.cause, Cause::Refused(_) | Cause::ProxyRefused(_) | Cause::SocksRefused(_))
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
    GaveUp(Cause),
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
    Rejected(Rejection),
    /// The channel ended first: left, closed by the server, or with its connection.
    #[error("the channel ended before it was joined: {0}")]
    Ended(ChannelEnd),
    /// The deadline passed. The last thing that stood in the way, if anything was seen.
    #[error("the channel was not joined in time{}", .last.as_ref().map(|last| format!("; last of all, {last}")).unwrap_or_default())]
    Deadline {
        /// The last obstacle.
        last: Option<JoinObstacle>,
    },
}

impl JoinFailed {
    /// Whether the deadline passed. The backend may be there later.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Deadline { .. })
    }

    /// Whether the server refused the join: the reason is in the text, and in
    /// [`rejection`](Self::rejection).
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        self.rejection().is_some()
    }

    /// The refusal of the server, if that is why.
    #[must_use]
    pub const fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) | Self::Ended(ChannelEnd::Rejected(rejection)) => {
                Some(rejection)
            }
            _ => None,
        }
    }
}

/// Something that kept a join from succeeding so far.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinObstacle {
    /// There was no connection.
    #[error("there was no connection: {0}")]
    Disconnected(Cause),
    /// The server did not answer in time.
    #[error("the server did not answer the join")]
    TimedOut,
    /// The channel crashed, with this payload.
    #[error("the channel crashed on the server: {}", reason(.0))]
    Crashed(Payload),
    /// The server refused, and the core tries again.
    #[error("the server refused the join: {0}")]
    Rejected(Rejection),
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

impl PushFailed {
    /// Whether the time was up, while it waited to be written or for its reply.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut | Self::NotSent(NotSentCause::TimedOut))
    }

    /// Whether the server refused: here, the join of the channel that the push waited for.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        matches!(self, Self::NotSent(NotSentCause::JoinRejected))
    }

    /// Whether the server cannot have got it, so that pushing it again cannot do something twice. That it
    /// would succeed then is another question.
    #[must_use]
    pub const fn is_safe_to_repeat(&self) -> bool {
        matches!(self, Self::NotAccepted(_) | Self::NotSent(_))
    }
}

/// A [`call`](super::Channel::call) that did not end with a response of its type.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallFailed {
    /// The request cannot be written as JSON: nothing was sent.
    #[error("the request cannot be written: {0}")]
    Request(PayloadError),
    /// The push did not end with a reply.
    #[error(transparent)]
    Push(#[from] PushFailed),
    /// The server handled the request, and replied with another status than `ok`.
    #[error(transparent)]
    Refused(#[from] ErrorReply),
    /// The server handled the request, and its response is not of the type that was asked for.
    #[error("the response of the server is of another type: {error}")]
    Response {
        /// What does not fit.
        error: PayloadError,
        /// The response.
        response: Payload,
    },
}

impl CallFailed {
    /// Whether the time was up, while it waited to be written or for its reply.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Push(failed) if failed.is_timeout())
    }

    /// Whether the server refused: it replied with another status than `ok`, or refused the join of the
    /// channel. The reason is in the text.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Push(failed) => failed.is_refused(),
            Self::Request(_) | Self::Response { .. } => false,
        }
    }

    /// Whether the server cannot have got it, so that calling again cannot do something twice. That it
    /// would succeed then is another question.
    #[must_use]
    pub const fn is_safe_to_repeat(&self) -> bool {
        match self {
            Self::Request(_) => true,
            Self::Push(failed) => failed.is_safe_to_repeat(),
            Self::Refused(_) | Self::Response { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::error::Error;

    use serde_json::json;

    use super::*;
    use crate::client::StreamEnd;
    use crate::event::cause::{PushOutcome, RejectionKind, Reply};
    use crate::event::error::PushErrorKind;
    use crate::event::refusal::{Refusal, SocksRefusal};
    use crate::presence::PresenceError;

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
        assert_eq!(chain(&error), [r"the server refused the join: no\nway"]);
        let error = JoinFailed::Rejected(rejection(RejectionKind::UnmatchedTopic));
        let unmatched = "no channel of the server matches the topic";
        assert!(chain(&error)[0].ends_with(unmatched));
    }

    #[test]
    fn late_join_shows_its_last_obstacle() {
        let refusal = || Refusal::new(503, Vec::new(), "");
        let last = JoinObstacle::Disconnected(Cause::Refused(refusal()));
        let error = JoinFailed::Deadline { last: Some(last) };
        let expected = [
            "the channel was not joined in time; last of all, there was no connection: the server \
             refused the upgrade: HTTP 503",
        ];
        assert_eq!(chain(&error), expected);
        let crashed = JoinObstacle::Crashed(json!({"reason": "boom"}).into());
        assert!(crashed.to_string().ends_with("crashed on the server: boom"), "{crashed}");
        let error = JoinFailed::Deadline { last: None };
        assert_eq!(chain(&error), ["the channel was not joined in time"]);
        let connect = ConnectError::new(Cause::Refused(refusal()));
        assert_eq!(chain(&connect), ["the server refused the upgrade: HTTP 503"]);
        assert!(connect.is_refused() && !connect.is_timeout());
    }

    /// Every text is one line and bounded, and no text of a chain repeats that of its error.
    #[test]
    fn chains_of_errors_repeat_nothing() {
        let response: Payload = json!({"reason": "no\n".repeat(1_000)}).into();
        let rejection =
            || Rejection { kind: RejectionKind::Application, response: response.clone() };
        let reply = ErrorReply { status: "error".into(), response: response.clone() };
        let gone = || ChannelEnd::GaveUp(Cause::Refused(Refusal::new(404, Vec::new(), "")));
        let encode = crate::wire::EncodeError::NoBinary;
        let payload = response.deserialize::<Vec<u8>>().expect_err("an object");
        let errors: [Box<dyn Error>; 18] = [
            Box::new(JoinFailed::Rejected(rejection())),
            Box::new(JoinFailed::Ended(ChannelEnd::Rejected(rejection()))),
            Box::new(JoinFailed::Ended(gone())),
            Box::new(JoinFailed::NotAccepted(encode.clone().into())),
            Box::new(PushErrorKind::from(encode.clone())),
            Box::new(PresenceError::from(payload.clone())),
            Box::new(Cause::Refused(Refusal::new(404, Vec::new(), ""))),
            Box::new(Cause::SocksRefused(SocksRefusal::NotAllowed)),
            Box::new(ConnectError::new(Cause::ConnectTimeout)),
            Box::new(JoinObstacle::Rejected(rejection())),
            Box::new(JoinObstacle::Crashed(response.clone())),
            Box::new(PushFailed::NotAccepted(PushError {
                kind: encode.into(),
                payload: Payload::empty(),
            })),
            Box::new(CallFailed::Refused(reply)),
            Box::new(CallFailed::Response { error: payload.clone(), response: response.clone() }),
            Box::new(CallFailed::Request(payload)),
            Box::new(NotConnected::GaveUp(Cause::SocksRefused(SocksRefusal::NotAllowed))),
            Box::new(PushOutcome::Reply(Reply::new("error", response.clone()))),
            Box::new(StreamEnd::Channel(gone())),
        ];
        for error in errors {
            let chain = chain(&*error);
            assert!(
                chain.iter().all(|text| !text.contains('\n') && text.len() < 1_000),
                "{chain:?}"
            );
            assert!(chain.windows(2).all(|pair| !pair[0].contains(&*pair[1])), "{chain:?}");
        }
        assert!(gone().to_string().contains("/websocket"), "the hint of a 404");
    }

    #[test]
    fn failures_tell_timeout_refusal_and_repeat() {
        let facts = |failed: PushFailed| {
            let push = (failed.is_timeout(), failed.is_refused(), failed.is_safe_to_repeat());
            let call = CallFailed::from(failed);
            assert_eq!(push, (call.is_timeout(), call.is_refused(), call.is_safe_to_repeat()));
            push
        };
        assert_eq!(facts(PushFailed::TimedOut), (true, false, false));
        assert_eq!(facts(PushFailed::NotSent(NotSentCause::TimedOut)), (true, false, true));
        assert_eq!(facts(PushFailed::NotSent(NotSentCause::JoinRejected)), (false, true, true));
        assert_eq!(facts(PushFailed::Unknown(UnknownCause::Disconnected)), (false, false, false));
        assert_eq!(facts(PushFailed::Cancelled), (false, false, false));
        let kind = PushErrorKind::NotWanted;
        let refused = PushError { kind, payload: Payload::empty() };
        assert_eq!(facts(PushFailed::NotAccepted(refused)), (false, false, true));

        let reply = ErrorReply { status: "error".into(), response: Payload::empty() };
        let call = CallFailed::from(reply);
        assert!(call.is_refused() && !call.is_safe_to_repeat() && !call.is_timeout());
        let error = Payload::empty().deserialize::<Vec<u8>>().expect_err("an object");
        let call = CallFailed::Response { error: error.clone(), response: Payload::empty() };
        assert!(!call.is_refused() && !call.is_safe_to_repeat() && !call.is_timeout());
        let call = CallFailed::Request(error);
        assert!(!call.is_refused() && call.is_safe_to_repeat() && !call.is_timeout());

        let join = JoinFailed::Deadline { last: None };
        assert!(join.is_timeout() && !join.is_refused());
        let ended = JoinFailed::Ended(ChannelEnd::Rejected(rejection(RejectionKind::Application)));
        assert!(ended.is_refused() && !ended.is_timeout());
        let slow = ConnectError::new(Cause::ConnectTimeout);
        assert!(slow.is_timeout() && !slow.is_refused());
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
