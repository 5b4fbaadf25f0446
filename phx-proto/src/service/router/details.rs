//! What each signal says, as data that is always valid JSON.

use serde_json::{Map, Value, json};

use super::Family;
use crate::event::cause::{
    Cause, ChannelEnd, Interruption, LeaveOutcome, NextStep, NotSentCause, PushOutcome, Rejection,
    RejectionKind, UnknownCause,
};
use crate::event::signal::{Signal, Warning};
use crate::wire::base64_text::padded;
use crate::wire::payload::Payload;

/// A signal, sorted out.
pub(super) struct Details<'a> {
    pub(super) family: Family,
    /// The topic, if it is about a channel.
    pub(super) subject: Option<&'a str>,
    /// The event of a message.
    pub(super) event: Option<&'a str>,
    pub(super) data: Map<String, Value>,
    /// The bytes of its payload.
    pub(super) weight: usize,
}

impl<'a> Details<'a> {
    /// None for a signal that is not routed.
    pub(super) fn of(signal: &'a Signal) -> Option<Self> {
        Some(match signal {
            Signal::Connecting { attempt, .. } => {
                connection("connecting").with("reconnect_attempts", *attempt)
            }
            Signal::Connected { .. } => connection("connected"),
            Signal::Disconnected { cause, next, .. } => {
                let details = connection("disconnected").because(cause);
                match next {
                    NextStep::Retry { delay, attempt } => details
                        .with("reconnect_attempts", *attempt)
                        .with("retry_after_msec", msec(*delay)),
                    NextStep::Reconnect => details.with("retry_after_msec", 0),
                    NextStep::Stop => details,
                }
            }
            Signal::GaveUp { cause } => connection("gave_up").because(cause),
            Signal::Closed => connection("closed"),

            Signal::Joined { topic, response } => {
                channel("joined", topic).payload("response", response)
            }
            Signal::Resumed { topic, response } => {
                channel("resumed", topic).payload("response", response)
            }
            Signal::JoinRejected { topic, rejection, last } => {
                channel("rejected", topic).refused(rejection).with("last", *last)
            }
            Signal::JoinTimedOut { topic } => channel("join_timed_out", topic),
            Signal::Errored { topic, payload } => {
                channel("errored", topic).payload("response", payload)
            }
            Signal::Interrupted { topic, cause } => {
                let details = channel("interrupted", topic);
                match cause {
                    Interruption::Disconnected(cause) => details.because(cause),
                    Interruption::Crashed => details.with("reason", "channel_crashed"),
                    Interruption::Unmatched => details.with("reason", "unmatched_topic"),
                    Interruption::Resync => details.with("reason", "resync"),
                }
            }
            Signal::Left { topic, outcome } => {
                channel("left", topic).with("outcome", left(*outcome))
            }
            Signal::ChannelClosed { topic, cause } => ended(channel("closed", topic), cause),

            Signal::Message { topic, event, payload } => Self {
                event: Some(event),
                ..Self::new(Family::Message, Some(topic))
                    .with("topic", &**topic)
                    .with("event", event.as_str())
                    .payload("payload", payload)
            },
            Signal::PushEnded { id, topic, outcome } => {
                pushed(topic, outcome).with("push", id.as_u64())
            }

            // Every half minute, on every connection: a metric, not an event.
            Signal::HeartbeatAcked { .. } => return None,
            Signal::ProtocolError { error } => {
                // Without the evidence: what a frame held may be nobody's business.
                trouble("protocol_error").with("reason", error.problem.to_string())
            }
            Signal::Warning(Warning::AuthTokenNotAcknowledged) => {
                trouble("warning").with("reason", "auth_token_not_acknowledged")
            }
            Signal::Warning(Warning::HeartbeatIntervalTooLong) => {
                trouble("warning").with("reason", "heartbeat_interval_too_long")
            }
        })
    }

    /// Signals that were lost before they could be routed.
    pub(super) fn lagged(count: u64) -> Self {
        trouble("lagged").with("count", count)
    }

    fn new(family: Family, subject: Option<&'a str>) -> Self {
        Self { family, subject, event: None, data: Map::new(), weight: 0 }
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.data.insert(key.to_owned(), value.into());
        self
    }

    fn because(self, cause: &Cause) -> Self {
        self.with("reason", cause.kind().name()).with("message", cause.to_string())
    }

    fn refused(self, rejection: &Rejection) -> Self {
        let kind = match rejection.kind {
            RejectionKind::Application => "rejected",
            RejectionKind::UnmatchedTopic => "unmatched_topic",
            RejectionKind::JoinCrashed => "join_crashed",
            RejectionKind::TooManyChannels => "too_many_channels",
        };
        self.with("reason", kind).payload("response", &rejection.response)
    }

    /// JSON as it is, bytes as base64 under the key's own `_base64`. What the server sent as JSON
    /// and is none is its text, so that the data stays valid and nothing is lost.
    fn payload(mut self, key: &str, payload: &Payload) -> Self {
        self.weight += payload.len();
        if payload.is_binary() {
            return self.with(&format!("{key}_base64"), padded(payload.as_bytes()));
        }
        match payload.to_value() {
            Ok(value) => self.with(key, value),
            Err(_) => self
                .with(&format!("{key}_text"), String::from_utf8_lossy(payload.as_bytes()).as_ref()),
        }
    }
}

fn connection<'a>(state: &'static str) -> Details<'a> {
    Details::new(Family::Connection(state), None).with("state", state)
}

fn channel<'a>(state: &'static str, topic: &'a str) -> Details<'a> {
    Details::new(Family::Channel(state), Some(topic)).with("topic", topic).with("state", state)
}

fn trouble<'a>(what: &'static str) -> Details<'a> {
    Details::new(Family::Trouble(what), None)
}

fn pushed<'a>(topic: &'a str, outcome: &PushOutcome) -> Details<'a> {
    let push = |what| Details::new(Family::Push(what), Some(topic)).with("topic", topic);
    match outcome {
        PushOutcome::Reply(reply) => {
            push("replied").with("status", &*reply.status).payload("response", &reply.response)
        }
        PushOutcome::Written => push("written"),
        PushOutcome::TimedOut => push("timed_out"),
        PushOutcome::Unknown(cause) => push("unknown").with(
            "reason",
            match cause {
                UnknownCause::Disconnected => "disconnected",
                UnknownCause::ChannelCrashed => "channel_crashed",
                UnknownCause::ChannelClosed => "channel_closed",
                UnknownCause::ChannelReplaced => "channel_replaced",
                UnknownCause::Left => "left",
            },
        ),
        PushOutcome::NotSent(cause) => push("not_sent").with(
            "reason",
            match cause {
                NotSentCause::TimedOut => "timed_out",
                NotSentCause::Interrupted => "interrupted",
                NotSentCause::ChannelClosed => "channel_closed",
                NotSentCause::Left => "left",
                NotSentCause::JoinRejected => "join_rejected",
                NotSentCause::GaveUp => "gave_up",
                NotSentCause::Disconnected => "disconnected",
                NotSentCause::Encoding => "encoding",
            },
        ),
        PushOutcome::Cancelled => push("cancelled"),
    }
}

fn ended<'a>(details: Details<'a>, cause: &ChannelEnd) -> Details<'a> {
    match cause {
        ChannelEnd::ClosedByServer => details.with("reason", "closed_by_server"),
        ChannelEnd::Rejected(rejection) => details.refused(rejection),
        ChannelEnd::Left => details.with("reason", "left"),
        ChannelEnd::InvalidParams { message } => {
            details.with("reason", "invalid_params").with("message", message.as_str())
        }
        ChannelEnd::GaveUp(cause) => details.because(cause),
        ChannelEnd::Disconnected => details.with("reason", "disconnected"),
    }
}

const fn left(outcome: LeaveOutcome) -> &'static str {
    match outcome {
        LeaveOutcome::Acked => "acked",
        LeaveOutcome::TimedOut => "timed_out",
        LeaveOutcome::Offline => "offline",
        LeaveOutcome::Local => "local",
    }
}

fn msec(duration: core::time::Duration) -> Value {
    json!(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
