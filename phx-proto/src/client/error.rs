//! The errors of handles, and why an operation failed.
//!
//! Each operation has one error type. Its text is complete: one line, including the reason that the
//! server gave, escaped and bounded. Its `source()` never repeats a part of the text, so a printed
//! chain of errors (`anyhow`) repeats nothing. The variants hold the values that the text was made
//! of.

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
    /// The cause of the failure.
    pub cause: Cause,
}

impl ConnectError {
    pub(super) const fn new(cause: Cause) -> Self {
        Self { cause }
    }

    /// Whether the attempt timed out, in the client or in the operating system.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.cause.dial_kind() == Some(DialKind::TimedOut)
    }

    /// Whether the server or a proxy answered and refused the connection.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        matches!(self.cause, Cause::Refused(_) | Cause::ProxyRefused(_) | Cause::SocksRefused(_))
    }
}

/// The connection is not open, and the client is not trying to open it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NotConnected {
    /// The connection was closed or never started: call `connect`.
    #[error("the connection is closed: call `connect` first")]
    Closed,
    /// The connection gave up.
    #[error("the connection gave up: {0}")]
    GaveUp(Cause),
    /// The driver of the connection was dropped, so the connection can never open again.
    #[error("the driver of the connection was dropped")]
    DriverGone,
}

/// A join did not succeed. Its interest in the topic was released.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinFailed {
    /// The join was not accepted: nothing was sent.
    #[error(transparent)]
    NotAccepted(#[from] JoinError),
    /// The server refused the join, with this response.
    #[error("the server refused the join: {0}")]
    Rejected(Rejection),
    /// The channel ended first: it was left, the server closed it, or the connection ended.
    #[error("the channel ended before it was joined: {0}")]
    Ended(ChannelEnd),
    /// The deadline passed.
    #[error("the channel was not joined in time{}", .last.as_ref().map(|last| format!("; last obstacle: {last}")).unwrap_or_default())]
    Deadline {
        /// The last obstacle, if there was one.
        last: Option<JoinObstacle>,
    },
}

impl JoinFailed {
    /// Whether the deadline passed. A later join may succeed.
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

    /// The refusal of the server, if that was the cause.
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

/// Something that has kept a join from succeeding so far.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinObstacle {
    /// There was no connection.
    #[error("there was no connection: {0}")]
    Disconnected(Cause),
    /// The server did not answer in time.
    #[error("the server did not answer the join")]
    TimedOut,
    /// The channel crashed on the server, with this payload.
    #[error("the channel crashed on the server: {}", reason(.0))]
    Crashed(Payload),
    /// The server refused the join, and the core retries it.
    #[error("the server refused the join: {0}")]
    Rejected(Rejection),
}

/// A push did not end with a reply, or a cast was not written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PushFailed {
    /// The push was not accepted; the error returns the payload.
    #[error(transparent)]
    NotAccepted(#[from] PushError),
    /// The push was written, and no reply came in time. The server may have handled it.
    #[error("no reply came in time")]
    TimedOut,
    /// The push was written, and no reply can arrive any more. The server may have handled it.
    #[error("the push was sent and its outcome is unknown: {0}")]
    Unknown(UnknownCause),
    /// The push was never written, so it is safe to push again.
    #[error("the push was not sent: {0}")]
    NotSent(NotSentCause),
    /// The push was withdrawn.
    #[error("the push was cancelled")]
    Cancelled,
}

impl PushFailed {
    /// Whether the push timed out, before it was written or before its reply.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut | Self::NotSent(NotSentCause::TimedOut))
    }

    /// Whether the server refused the join that the push waited for.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        matches!(self, Self::NotSent(NotSentCause::JoinRejected))
    }

    /// Whether the server cannot have received the push, so that pushing again cannot repeat an
    /// effect. It does not mean that pushing again would succeed.
    #[must_use]
    pub const fn is_safe_to_repeat(&self) -> bool {
        matches!(self, Self::NotAccepted(_) | Self::NotSent(_))
    }
}

/// A push that may be repeated did not end with a reply, from
/// [`Channel::push_repeating`](super::Channel::push_repeating).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{failed}{}", Repeats(*.repeats))]
#[non_exhaustive]
pub struct RepeatFailed {
    /// How the push failed. [`NotSent`](PushFailed::NotSent) and
    /// [`NotAccepted`](PushFailed::NotAccepted) mean that no attempt was written. Otherwise it is the
    /// outcome of the last attempt that was written.
    pub failed: PushFailed,
    /// The number of times that the push was written again.
    pub repeats: u32,
}

impl RepeatFailed {
    pub(super) const fn new(failed: PushFailed, repeats: u32) -> Self {
        Self { failed, repeats }
    }
}

/// The number of repeats in the text of an error.
struct Repeats(u32);

impl core::fmt::Display for Repeats {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str("; the push was repeated once"),
            repeats => write!(f, "; the push was repeated {repeats} times"),
        }
    }
}

/// A [`call`](super::Channel::call) did not end with a response of its type.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallFailed {
    /// The request cannot be serialized to JSON: nothing was sent.
    #[error("the request cannot be serialized: {0}")]
    Request(PayloadError),
    /// The push did not end with a reply.
    #[error(transparent)]
    Push(#[from] PushFailed),
    /// The server handled the request and replied with a status other than `ok`.
    #[error(transparent)]
    Refused(#[from] ErrorReply),
    /// The server handled the request, and its response is not of the requested type.
    #[error("the response of the server is not of the requested type: {error}")]
    Response {
        /// Why the response does not fit the type.
        error: PayloadError,
        /// The response of the server.
        response: Payload,
    },
}

impl CallFailed {
    /// Whether the push timed out, before it was written or before its reply.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Push(failed) if failed.is_timeout())
    }

    /// Whether the server refused: it replied with a status other than `ok`, or refused the join of
    /// the channel. The error's text has the reason.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Push(failed) => failed.is_refused(),
            Self::Request(_) | Self::Response { .. } => false,
        }
    }

    /// Whether the server cannot have received the request, so that calling again cannot repeat an
    /// effect. It does not mean that calling again would succeed.
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

    /// The text of the error, and the texts of its sources.
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
    fn refused_join_shows_server_reason() {
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
            "the channel was not joined in time; last obstacle: there was no connection: the server \
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

    /// Every text is one bounded line, and no source repeats the text of its error.
    #[test]
    fn error_chains_repeat_nothing() {
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
    fn repeat_error_shows_number_of_repeats() {
        let text = |repeats| RepeatFailed::new(PushFailed::TimedOut, repeats).to_string();
        assert_eq!(text(0), "no reply came in time");
        assert_eq!(text(1), "no reply came in time; the push was repeated once");
        assert_eq!(text(3), "no reply came in time; the push was repeated 3 times");
    }

    #[test]
    fn failures_classify_timeout_refusal_and_repeat() {
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
    fn end_and_lost_push_texts_are_sentences() {
        let end = ChannelEnd::GaveUp(Cause::HeartbeatTimeout);
        let expected = "the channel ended before it was joined: the connection gave up: the server \
                        did not reply to a heartbeat in time";
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
