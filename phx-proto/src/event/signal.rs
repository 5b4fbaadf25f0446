//! Signals: the events for the application.
//!
//! A new signal needs a variant, a row in the table below, and code in any consumer that handles it
//! specially. The router, `tracing`, bounded queues, traces and recordings use the row.

use core::fmt;
use core::time::Duration;

use crate::event::cause::{
    Cause, ChannelEnd, Interruption, LeaveOutcome, NextStep, PushOutcome, Rejection,
};
use crate::event::description::{Description, Explanation, Level};
use crate::event::names::names;
use crate::id::{ConnectionId, PushId};
use crate::topic::Topic;
use crate::wire::payload::Payload;
#[cfg(feature = "driver")]
use crate::wire::weight::compact;
use crate::wire::{ByteStr, DecodeError};
#[cfg(any(test, feature = "testing"))]
use examples::{CONNECTION, RETRY, bad, name, payload, rejection, replied, topic};

/// An event for the application.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Signal {
    /// An attempt to connect began.
    Connecting {
        /// The id of the connection.
        id: ConnectionId,
        /// 0 for the first attempt, then the number of the retry.
        attempt: u32,
    },
    /// The connection is open. Joins follow.
    Connected {
        /// The id of the connection.
        id: ConnectionId,
    },
    /// An attempt to connect failed or was cancelled.
    ConnectFailed {
        /// The id of the connection.
        id: ConnectionId,
        /// Why the attempt failed.
        cause: Cause,
        /// The next step.
        next: NextStep,
    },
    /// An open connection was lost or closed.
    Disconnected {
        /// The id of the connection.
        id: ConnectionId,
        /// Why the connection ended.
        cause: Cause,
        /// The next step.
        next: NextStep,
    },
    /// The client gave up and will not retry. Every channel has ended.
    GaveUp {
        /// Why the last connection or attempt ended.
        cause: Cause,
    },
    /// A local `disconnect` is complete. Every channel has ended.
    Closed,

    /// The channel is joined, for the first time since the application requested it.
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
        /// The server's refusal.
        rejection: Rejection,
        /// Whether no retry is left. `ChannelClosed` follows in that case.
        last: bool,
    },
    /// The oldest unanswered join took longer than [`Config::join_timeout`](crate::Config::join_timeout).
    /// The server is probed with a heartbeat.
    JoinTimedOut {
        /// The topic.
        topic: Topic,
    },
    /// The channel crashed on the server (`phx_error`).
    Errored {
        /// The topic.
        topic: Topic,
        /// The payload of the `phx_error`.
        payload: Payload,
    },
    /// A joined channel is not joined any more. The channel is still wanted, and the client joins it again.
    Interrupted {
        /// The topic.
        topic: Topic,
        /// Why the channel was interrupted.
        cause: Interruption,
    },
    /// A leave ended.
    Left {
        /// The topic.
        topic: Topic,
        /// How the leave ended.
        outcome: LeaveOutcome,
    },
    /// The channel ended. The client does not join it again.
    ChannelClosed {
        /// The topic.
        topic: Topic,
        /// Why the channel ended.
        cause: ChannelEnd,
    },

    /// A push or a broadcast from the server.
    Message {
        /// The topic.
        topic: Topic,
        /// The event.
        event: ByteStr,
        /// The payload, not parsed yet.
        payload: Payload,
    },
    /// A message on a topic that has no channel. Emitted only while
    /// [`Socket::report_unrouted`](crate::Socket::report_unrouted) is on.
    Unrouted {
        /// The topic.
        topic: Topic,
        /// The event.
        event: ByteStr,
        /// The payload, not parsed yet.
        payload: Payload,
    },
    /// A push ended.
    PushEnded {
        /// The id of the push.
        id: PushId,
        /// The topic of the push.
        topic: Topic,
        /// The outcome of the push.
        outcome: PushOutcome,
    },

    /// The server replied to a heartbeat.
    HeartbeatAcked {
        /// The time from writing the heartbeat to the reply.
        rtt: Duration,
    },
    /// The server sent a frame that violates the protocol. The client skips it and keeps the connection.
    ProtocolError {
        /// The error with its evidence.
        error: DecodeError,
    },
    /// The configuration does not work as intended.
    Warning(Warning),
}

/// Implements the methods that describe a signal, from one row for each variant: its name, the rest of its
/// line in a trace, its [`Description`], and an example. A variant without a row does not compile.
macro_rules! table {
    ($(
        $Variant:ident $({ $($field:tt)* })? $(($($value:tt)*))? => $name:literal,
            ($($text:tt)*), $description:expr, $example:expr;
    )+) => {
        names! { Signal {
            $(
                Self::$Variant $({ $($field)* })? $(($($value)*))? => $name, $example;
            )+
        } }

        impl Signal {
            #[allow(unused_variables)]
            pub(crate) const fn describe(&self) -> Description<'_> {
                match self {
                    $(Self::$Variant $({ $($field)* })? $(($($value)*))? => {
                        $description.named($name)
                    })+
                }
            }
        }

        /// Shows the variant, its topic and its most important detail, without payloads:
        /// `Disconnected (remote close 1012)`, `Message room:lobby new_msg`.
        #[allow(unused_variables)]
        impl fmt::Display for Signal {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$Variant $({ $($field)* })? $(($($value)*))? => {
                        f.write_str(stringify!($Variant))?;
                        write!(f, $($text)*)
                    })+
                }
            }
        }
    };
}

table! {
    Connecting { attempt, .. } => "connecting",
        (" (attempt {attempt})"),
        Description::connection(Level::Debug).attempt(*attempt),
        Self::Connecting { id: CONNECTION, attempt: 1 };
    Connected { .. } => "connected",
        (""),
        Description::connection(Level::Info),
        Self::Connected { id: CONNECTION };
    ConnectFailed { cause, next, .. } => "connect_failed",
        (" ({})", cause.brief()),
        Description::connection(loss_level(*next)).cause(cause).next(*next),
        Self::ConnectFailed { id: CONNECTION, cause: Cause::ConnectTimeout, next: RETRY };
    Disconnected { cause, next, .. } => "disconnected",
        (" ({})", cause.brief()),
        Description::connection(loss_level(*next)).cause(cause).next(*next),
        Self::Disconnected { id: CONNECTION, cause: Cause::HeartbeatTimeout, next: RETRY };
    GaveUp { cause } => "gave_up",
        (" ({})", cause.brief()),
        Description::connection(Level::Warn).cause(cause),
        Self::GaveUp { cause: Cause::CredentialsUnchanged };
    Closed => "closed",
        (""),
        Description::connection(Level::Info),
        Self::Closed;

    Joined { topic, response } => "joined",
        (" {topic}"),
        Description::channel(Level::Info, topic).payload(response),
        Self::Joined { topic: topic(), response: payload() };
    Resumed { topic, response } => "resumed",
        (" {topic}"),
        Description::channel(Level::Info, topic).payload(response),
        Self::Resumed { topic: topic(), response: payload() };
    JoinRejected { topic, rejection, last } => "join_rejected",
        (" {topic} ({:?}{})", rejection.kind, if *last { ", last" } else { "" }),
        Description::channel(Level::Warn, topic).kind("rejected").refused(rejection).last(*last),
        Self::JoinRejected { topic: topic(), rejection: rejection(), last: true };
    JoinTimedOut { topic } => "join_timed_out",
        (" {topic}"),
        Description::channel(Level::Warn, topic),
        Self::JoinTimedOut { topic: topic() };
    Errored { topic, payload } => "errored",
        (" {topic}"),
        Description::channel(Level::Warn, topic).payload(payload),
        Self::Errored { topic: topic(), payload: payload() };
    Interrupted { topic, cause } => "interrupted",
        (" {topic} ({})", cause.brief()),
        interrupted(topic, cause),
        Self::Interrupted { topic: topic(), cause: Interruption::Crashed };
    Left { topic, outcome } => "left",
        (" {topic} ({outcome:?})"),
        Description::channel(Level::Debug, topic).outcome(outcome.name()),
        Self::Left { topic: topic(), outcome: LeaveOutcome::Acked };
    ChannelClosed { topic, cause } => "channel_closed",
        (" {topic} ({})", cause.brief()),
        channel_closed(topic, cause),
        Self::ChannelClosed { topic: topic(), cause: ChannelEnd::Rejected(rejection()) };

    Message { topic, event, payload } => "message",
        (" {topic} {event}"),
        Description::message(topic, event, payload),
        Self::Message { topic: topic(), event: name(), payload: payload() };
    Unrouted { topic, event, payload } => "unrouted",
        (" {topic} {event}"),
        Description::message(topic, event, payload),
        Self::Unrouted { topic: topic(), event: name(), payload: payload() };
    PushEnded { id, topic, outcome } => "push_ended",
        (" {id:?} {topic} ({})", outcome.brief()),
        Description::push(*id, topic, outcome),
        Self::PushEnded { id: PushId::from_u64(1), topic: topic(), outcome: replied() };

    HeartbeatAcked { rtt } => "heartbeat_acked",
        (" {}ms", rtt.as_millis()),
        Description::measure().rtt(*rtt),
        Self::HeartbeatAcked { rtt: Duration::from_millis(12) };
    ProtocolError { error } => "protocol_error",
        (" {error}"),
        Description::trouble().explained(Explanation::Problem(error)),
        Self::ProtocolError { error: DecodeError::new(bad(), 0, b"s3cret") };
    Warning(warning) => "warning",
        (" {warning:?}"),
        Description::trouble().reason(warning.name()),
        Self::Warning(Warning::AuthTokenNotAcknowledged);
}

/// The level of a lost connection: a warning if a retry follows after a delay.
const fn loss_level(next: NextStep) -> Level {
    match next {
        NextStep::Retry { .. } => Level::Warn,
        NextStep::Reconnect | NextStep::Stop => Level::Info,
    }
}

const fn interrupted<'a>(topic: &'a Topic, cause: &'a Interruption) -> Description<'a> {
    let description = Description::channel(Level::Debug, topic).reason(cause.name());
    match cause {
        Interruption::Disconnected(cause) => description.cause(cause),
        Interruption::Crashed | Interruption::Unmatched | Interruption::Resync => description,
    }
}

const fn channel_closed<'a>(topic: &'a Topic, cause: &'a ChannelEnd) -> Description<'a> {
    // The signal `JoinRejected` or `GaveUp` before this one is a warning already.
    let level = match cause {
        ChannelEnd::ClosedByServer | ChannelEnd::InvalidParams { .. } => Level::Warn,
        ChannelEnd::Rejected(_)
        | ChannelEnd::Left
        | ChannelEnd::GaveUp(_)
        | ChannelEnd::Disconnected => Level::Info,
    };
    let description = Description::channel(level, topic).kind("closed").reason(cause.name());
    match cause {
        ChannelEnd::Rejected(rejection) => description.refused(rejection),
        ChannelEnd::InvalidParams { message } => description.explained(Explanation::Text(message)),
        ChannelEnd::GaveUp(cause) => description.cause(cause),
        ChannelEnd::ClosedByServer | ChannelEnd::Left | ChannelEnd::Disconnected => description,
    }
}

impl Signal {
    /// The topic of a signal about a channel, a message or a push.
    #[must_use]
    pub const fn topic(&self) -> Option<&Topic> {
        self.describe().topic
    }

    /// The payload or the response of the signal, if it has one.
    #[must_use]
    pub const fn payload(&self) -> Option<&Payload> {
        self.describe().payload
    }

    /// Copies the signal's slices of a frame into memory of their own. The responses of joins are copies
    /// already.
    #[cfg(feature = "driver")]
    pub(crate) fn into_compact(mut self) -> Self {
        match &mut self {
            Self::Message { event, payload, .. } | Self::Unrouted { event, payload, .. } => {
                (*event, *payload) = compact(event, payload);
            }
            Self::PushEnded { outcome: PushOutcome::Reply(reply), .. } => {
                (reply.status, reply.response) = compact(&reply.status, &reply.response);
            }
            Self::JoinRejected { rejection: Rejection { response: payload, .. }, .. }
            | Self::ChannelClosed {
                cause: ChannelEnd::Rejected(Rejection { response: payload, .. }),
                ..
            }
            | Self::Errored { payload, .. } => *payload = payload.clone().into_compact(),
            _ => {}
        }
        self
    }
}

/// A part of the configuration that does not work as intended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// An `auth_token` was sent, but the server selected no subprotocol, so it ignored the token. Phoenix
    /// 1.7 and every server without `auth_token: true` ignore it.
    AuthTokenNotAcknowledged,
    /// The heartbeat interval is not shorter than Phoenix's default idle timeout of 60 s.
    HeartbeatIntervalTooLong,
}

names! { Warning {
    Self::AuthTokenNotAcknowledged => "auth_token_not_acknowledged";
    Self::HeartbeatIntervalTooLong => "heartbeat_interval_too_long";
} }

#[cfg(any(test, feature = "testing"))]
mod examples {
    //! Parts of the examples of signals.

    use core::time::Duration;

    use bytes::Bytes;

    use crate::event::cause::{NextStep, PushOutcome, Rejection, RejectionKind, Reply};
    use crate::id::ConnectionId;
    use crate::topic::Topic;
    use crate::wire::payload::Payload;
    use crate::wire::{ByteStr, DecodeProblem};

    pub(super) const CONNECTION: ConnectionId = ConnectionId::from_u64(1);
    pub(super) const RETRY: NextStep =
        NextStep::Retry { delay: Duration::from_millis(250), attempt: 2 };

    pub(super) fn topic() -> Topic {
        "room:lobby".into()
    }

    /// A slice of a longer frame, like a received payload.
    pub(super) fn payload() -> Payload {
        let frame = Bytes::from_static(br#"[null,null,"room:lobby","msg",{"token":"s3cret"}]"#);
        Payload::unparsed(frame.slice(30..frame.len() - 1))
    }

    pub(super) fn name() -> ByteStr {
        "new_msg".into()
    }

    pub(super) fn rejection() -> Rejection {
        Rejection { kind: RejectionKind::Application, response: payload() }
    }

    pub(super) fn replied() -> PushOutcome {
        PushOutcome::Reply(Reply { status: "ok".into(), response: payload() })
    }

    pub(super) fn bad() -> DecodeProblem {
        DecodeProblem::Expected { expected: "a list" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_examples_are_complete() {
        let names: Vec<&str> = Signal::examples().iter().map(Signal::name).collect();
        assert_eq!(names, Signal::NAMES);
    }

    /// The description has every field of a variant that `Debug` shows.
    #[test]
    fn signal_description_is_complete() {
        for signal in Signal::examples() {
            let debug = format!("{signal:?}");
            assert_eq!(signal.payload().is_some(), debug.contains("Payload("), "{debug}");
            assert_eq!(signal.topic().is_some(), debug.contains("topic: "), "{debug}");
            let described = signal.describe();
            assert_eq!(described.event.is_some(), debug.contains("event: "), "{debug}");
            assert_eq!(described.last.is_some(), debug.contains("last: "), "{debug}");
            let why =
                described.reason.or(described.outcome).is_some() || described.explanation.is_some();
            let given = ["cause: ", "rejection: ", "outcome: ", "error: ", "Warning("];
            let given = given.iter().any(|part| debug.contains(part));
            assert_eq!(why || described.status.is_some(), given, "{debug}");
        }
    }

    #[test]
    fn signal_display_shows_topic_without_payload() {
        for signal in Signal::examples() {
            let (shown, debug) = (signal.to_string(), format!("{signal:?}"));
            let variant = debug.split(|c: char| !c.is_alphanumeric()).next();
            assert_eq!(shown.split(' ').next(), variant, "{shown}");
            assert_eq!(signal.topic().is_some(), shown.contains("room:lobby"), "{shown}");
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }

    #[test]
    #[cfg(feature = "driver")]
    fn compact_signal_releases_its_frame() {
        for signal in Signal::examples() {
            let compact = signal.clone().into_compact();
            assert_eq!(compact, signal);
            let by_core = matches!(signal, Signal::Joined { .. } | Signal::Resumed { .. });
            let at = |signal: &Signal| signal.payload().map(|payload| payload.as_bytes().as_ptr());
            let stays = by_core || signal.payload().is_none();
            assert_eq!(at(&signal) == at(&compact), stays, "{signal}");
        }
    }

    #[test]
    #[cfg(feature = "driver")]
    fn held_bytes_include_payload_and_text() {
        for signal in Signal::examples() {
            let payload = signal.payload().map_or(0, Payload::len);
            let held = signal.describe().held_bytes();
            assert!(held >= payload, "{signal}: {held}");
        }
        let cause = Cause::TransportLost { message: "x".repeat(100) };
        assert_eq!(Signal::GaveUp { cause }.describe().held_bytes(), 100);
    }
}
