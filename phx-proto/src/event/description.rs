//! A uniform description of signals, for consumers that handle all signals in the same way: the router,
//! `tracing` and bounded queues.

use core::fmt;
use core::time::Duration;

use crate::event::cause::{Cause, NextStep, PushOutcome, Rejection};
use crate::id::PushId;
use crate::topic::Topic;
use crate::wire::payload::Payload;
use crate::wire::{ByteStr, DecodeError};

/// The subject of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// The state of the connection.
    Connection,
    /// The state of a channel.
    Channel,
    /// A message.
    Message,
    /// A push.
    Push,
    /// A problem of the connection that does not change its state.
    Trouble,
    /// A measurement.
    Measure,
}

/// The log level of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// A signal that may be very frequent.
    Trace,
    /// A signal for debugging.
    Debug,
    /// A signal of normal operation.
    Info,
    /// A signal that may need the attention of an operator.
    Warn,
}

/// The description of a signal. Creating it allocates nothing.
///
/// Consumers destructure it without `..`, so a new field does not compile until every consumer uses it or
/// ignores it explicitly.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "some are for logs only"))]
pub(crate) struct Description<'a> {
    pub(crate) about: About,
    pub(crate) level: Level,
    /// The name of the signal.
    pub(crate) name: &'static str,
    /// The short name, for consumers that know the subject: `closed` for `channel_closed`.
    pub(crate) kind: &'static str,
    pub(crate) topic: Option<&'a Topic>,
    /// The event of a message.
    pub(crate) event: Option<&'a ByteStr>,
    /// The status of a reply.
    pub(crate) status: Option<&'a ByteStr>,
    /// The payload or the response.
    pub(crate) payload: Option<&'a Payload>,
    /// The outcome of a leave.
    pub(crate) outcome: Option<&'static str>,
    /// The name of the cause.
    pub(crate) reason: Option<&'static str>,
    /// The text of the cause.
    pub(crate) explanation: Option<Explanation<'a>>,
    /// The number of an attempt to connect.
    pub(crate) attempt: Option<u32>,
    /// The delay before the next attempt.
    pub(crate) delay: Option<Duration>,
    /// Whether a refusal of a join is final.
    pub(crate) last: Option<bool>,
    pub(crate) push: Option<PushId>,
    /// The round trip of a heartbeat.
    pub(crate) rtt: Option<Duration>,
}

/// The text of a cause.
#[derive(Clone, Copy)]
pub(crate) enum Explanation<'a> {
    Cause(&'a Cause),
    Text(&'a String),
    Problem(&'a DecodeError),
}

impl<'a> Description<'a> {
    const fn new(about: About, level: Level) -> Self {
        Self {
            about,
            level,
            name: "",
            kind: "",
            topic: None,
            event: None,
            status: None,
            payload: None,
            outcome: None,
            reason: None,
            explanation: None,
            attempt: None,
            delay: None,
            last: None,
            push: None,
            rtt: None,
        }
    }

    /// Describes a state of the connection.
    pub(crate) const fn connection(level: Level) -> Self {
        Self::new(About::Connection, level)
    }

    /// Describes a state of a channel.
    pub(crate) const fn channel(level: Level, topic: &'a Topic) -> Self {
        Self { topic: Some(topic), ..Self::new(About::Channel, level) }
    }

    /// Describes a problem of the connection that does not change its state.
    pub(crate) const fn trouble() -> Self {
        Self::new(About::Trouble, Level::Warn)
    }

    /// Describes a measurement.
    pub(crate) const fn measure() -> Self {
        Self::new(About::Measure, Level::Trace)
    }

    pub(crate) const fn message(
        topic: &'a Topic,
        event: &'a ByteStr,
        payload: &'a Payload,
    ) -> Self {
        let description = Self::new(About::Message, Level::Trace);
        Self { topic: Some(topic), event: Some(event), payload: Some(payload), ..description }
    }

    pub(crate) const fn push(id: PushId, topic: &'a Topic, outcome: &'a PushOutcome) -> Self {
        let description = Self::new(About::Push, Level::Trace).kind(outcome.name());
        let description = Self { topic: Some(topic), push: Some(id), ..description };
        match outcome {
            PushOutcome::Reply(reply) => {
                Self { status: Some(&reply.status), payload: Some(&reply.response), ..description }
            }
            PushOutcome::Unknown(cause) => description.reason(cause.name()),
            PushOutcome::NotSent(cause) => description.reason(cause.name()),
            PushOutcome::Written | PushOutcome::TimedOut | PushOutcome::Cancelled => description,
        }
    }

    /// Sets the name of the signal. If no kind was set, the name is the kind too.
    pub(crate) const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        if self.kind.is_empty() { self.kind(name) } else { self }
    }

    pub(crate) const fn kind(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    pub(crate) const fn payload(mut self, payload: &'a Payload) -> Self {
        self.payload = Some(payload);
        self
    }

    pub(crate) const fn outcome(mut self, outcome: &'static str) -> Self {
        self.outcome = Some(outcome);
        self
    }

    pub(crate) const fn reason(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    pub(crate) const fn explained(mut self, explanation: Explanation<'a>) -> Self {
        self.explanation = Some(explanation);
        self
    }

    pub(crate) const fn cause(self, cause: &'a Cause) -> Self {
        self.reason(cause.name()).explained(Explanation::Cause(cause))
    }

    pub(crate) const fn refused(self, rejection: &'a Rejection) -> Self {
        self.reason(rejection.kind.name()).payload(&rejection.response)
    }

    pub(crate) const fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = Some(attempt);
        self
    }

    pub(crate) const fn next(mut self, next: NextStep) -> Self {
        (self.attempt, self.delay) = match next {
            NextStep::Retry { delay, attempt } => (Some(attempt), Some(delay)),
            NextStep::Reconnect => (None, Some(Duration::ZERO)),
            NextStep::Stop => (None, None),
        };
        self
    }

    pub(crate) const fn last(mut self, last: bool) -> Self {
        self.last = Some(last);
        self
    }

    pub(crate) const fn rtt(mut self, rtt: Duration) -> Self {
        self.rtt = Some(rtt);
        self
    }

    /// The memory of the signal's payload and explanation, in bytes.
    #[cfg(feature = "driver")]
    pub(crate) fn held_bytes(&self) -> usize {
        let payload = self.payload.map_or(0, Payload::held_len);
        payload.saturating_add(self.explanation.map_or(0, Explanation::held_bytes))
    }
}

#[cfg(feature = "driver")]
impl Explanation<'_> {
    fn held_bytes(self) -> usize {
        match self {
            Self::Cause(cause) => cause.held_bytes(),
            Self::Text(text) => text.len(),
            Self::Problem(error) => error.held_bytes(),
        }
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cause(cause) => cause.fmt(f),
            Self::Text(text) => f.write_str(text),
            // Omits the evidence, because a frame may contain secrets.
            Self::Problem(error) => error.problem.fmt(f),
        }
    }
}
