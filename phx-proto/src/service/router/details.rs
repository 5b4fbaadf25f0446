//! The description of a signal, which borrows from it, and the data of its event.

use core::fmt::Display;

use super::Family;
use super::data::EventData;
use crate::event::cause::{
    Cause, ChannelEnd, Interruption, LeaveOutcome, NextStep, NotSentCause, PushOutcome, Rejection,
    RejectionKind, UnknownCause,
};
use crate::event::signal::{Signal, Warning};
use crate::wire::payload::Payload;

/// The most members that a signal has.
const FIELDS_MAX: usize = 6;

/// A signal, described. Nothing is allocated for it.
#[derive(Clone, Copy)]
pub(super) struct Details<'a> {
    pub(super) family: Family,
    /// The topic, if it is about a channel.
    pub(super) subject: Option<&'a str>,
    /// The event of a message.
    pub(super) event: Option<&'a str>,
    fields: [Option<(&'static str, Field<'a>)>; FIELDS_MAX],
}

/// The value of a member of the data.
#[derive(Clone, Copy)]
enum Field<'a> {
    Text(&'a str),
    Shown(&'a dyn Display),
    Number(u64),
    Flag(bool),
    Payload(&'a Payload),
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
                    NextStep::Reconnect => details.with("retry_after_msec", 0_u64),
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

            // The payload last, so that the beginning of a long line identifies it.
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
                trouble("protocol_error").shown("reason", &error.problem)
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

    /// The data, with the name of the connection.
    pub(super) fn data(&self, connection: &str) -> EventData {
        let mut data = EventData::with_capacity(1 + self.fields.iter().flatten().count());
        data.insert_str("connection_name", connection);
        for (key, field) in self.fields.into_iter().flatten() {
            match field {
                Field::Text(text) => data.insert_str(key, text),
                Field::Shown(shown) => data.insert_str(key, shown.to_string()),
                Field::Number(number) => data.insert(key, number),
                Field::Flag(flag) => data.insert(key, flag),
                Field::Payload(payload) => data.insert_payload(key, payload),
            }
        }
        data
    }

    const fn new(family: Family, subject: Option<&'a str>) -> Self {
        Self { family, subject, event: None, fields: [None; FIELDS_MAX] }
    }

    fn with(self, key: &'static str, value: impl Into<Field<'a>>) -> Self {
        self.field(key, value.into())
    }

    fn shown(self, key: &'static str, value: &'a dyn Display) -> Self {
        self.field(key, Field::Shown(value))
    }

    fn payload(self, key: &'static str, payload: &'a Payload) -> Self {
        self.field(key, Field::Payload(payload))
    }

    fn because(self, cause: &'a Cause) -> Self {
        self.with("reason", cause.kind().name()).shown("message", cause)
    }

    fn refused(self, rejection: &'a Rejection) -> Self {
        let kind = match rejection.kind {
            RejectionKind::Application => "rejected",
            RejectionKind::UnmatchedTopic => "unmatched_topic",
            RejectionKind::JoinCrashed => "join_crashed",
            RejectionKind::TooManyChannels => "too_many_channels",
        };
        self.with("reason", kind).payload("response", &rejection.response)
    }

    fn field(mut self, key: &'static str, field: Field<'a>) -> Self {
        let free = self.fields.iter_mut().find(|field| field.is_none());
        debug_assert!(free.is_some(), "no more than FIELDS_MAX members");
        if let Some(free) = free {
            *free = Some((key, field));
        }
        self
    }
}

impl<'a> From<&'a str> for Field<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Field<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Field<'_> {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Field<'_> {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
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

fn pushed<'a>(topic: &'a str, outcome: &'a PushOutcome) -> Details<'a> {
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

fn ended<'a>(details: Details<'a>, cause: &'a ChannelEnd) -> Details<'a> {
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

fn msec(duration: core::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
