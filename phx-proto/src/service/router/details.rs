//! The data and the type of a signal's event, from the signal's description.

use super::data::EventData;
use super::names::Segment;
use crate::event::description::{About, Description, Explanation};

/// Up to `N` segments of a type or a topic.
pub(super) type Segments<'a, const N: usize> = [Option<Segment<'a>>; N];

/// The description of a signal for the router. Creating it allocates nothing.
#[derive(Clone, Copy)]
pub(super) struct Details<'a> {
    description: Description<'a>,
    /// The number of signals that were lost before they could be routed.
    lagged: Option<u64>,
}

impl<'a> Details<'a> {
    /// The details of a signal; `None` if it is not routed.
    pub(super) const fn of(description: Description<'a>) -> Option<Self> {
        match description.about {
            // Heartbeats are not routed: by default each connection sends one every half minute,
            // and the metrics contain the last round trip.
            About::Measure => None,
            About::Connection | About::Channel | About::Message | About::Push | About::Trouble => {
                Some(Self { description, lagged: None })
            }
        }
    }

    /// The details of `count` lost signals.
    pub(super) const fn lagged(count: u64) -> Self {
        Self { description: Description::trouble().kind("lagged"), lagged: Some(count) }
    }

    /// The topic of the signal, if it has one.
    pub(super) fn subject(&self) -> Option<&'a str> {
        self.description.topic.map(|topic| topic.as_str())
    }

    /// The data, including the name of the connection. The payload comes last, so that the
    /// beginning of a long line identifies the event.
    pub(super) fn data(&self, connection: &str) -> EventData {
        let Description {
            about,
            // Events have types instead of levels.
            level: _,
            name: _,
            kind,
            topic,
            event,
            status,
            payload,
            outcome,
            reason,
            explanation,
            attempt,
            delay,
            last,
            push,
            // Heartbeats are not routed.
            rtt: _,
        } = self.description;
        // A message has four members; spare capacity would count against the queues of the bus.
        let members = if about == About::Message { 4 } else { 6 };
        let mut data = EventData::with_capacity(members);
        data.insert_str("connection_name", connection);
        let mut text = |key, text: Option<&str>| {
            if let Some(text) = text {
                data.insert_str(key, text);
            }
        };
        text("topic", topic.map(|topic| topic.as_str()));
        text("state", matches!(about, About::Connection | About::Channel).then_some(kind));
        text("event", event.map(|event| event.as_str()));
        text("status", status.map(|status| status.as_str()));
        text("outcome", outcome);
        text("reason", reason);
        match explanation {
            // The signal of an invalid frame has no cause, so the problem is the reason.
            Some(problem @ Explanation::Problem(_)) => {
                data.insert_str("reason", problem.to_string());
            }
            Some(words) => data.insert_str("message", words.to_string()),
            None => {}
        }
        if let Some(attempt) = attempt {
            data.insert("reconnect_attempts", attempt);
        }
        if let Some(delay) = delay {
            let msec = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            data.insert("retry_after_msec", msec);
        }
        if let Some(last) = last {
            data.insert("last", last);
        }
        if let Some(count) = self.lagged {
            data.insert("count", count);
        }
        if let Some(push) = push {
            data.insert("push", push.as_u64());
        }
        if let Some(payload) = payload {
            let key = if about == About::Message { "payload" } else { "response" };
            data.insert_payload(key, payload);
        }
        data
    }

    /// The type in the templated scheme.
    pub(super) fn templated(&self, name: &'a str) -> Segments<'a, 4> {
        let of = match self.description.about {
            About::Connection | About::Trouble | About::Measure => "connection",
            About::Channel => "channel",
            About::Push => "push",
            About::Message => {
                let event = self.description.event.map(|event| event.as_str());
                let part = |part: Option<&'a str>| Segment::TypePart(part.unwrap_or_default());
                let [topic, event] = [part(self.subject()), part(event)];
                return [Segment::Plain("phoenix"), part(Some(name)), topic, event].map(Some);
            }
        };
        let [of, kind] = [of, self.description.kind].map(|text| Some(Segment::Plain(text)));
        [Some(Segment::Plain("phoenix")), of, kind, None]
    }

    /// The type in the fixed scheme.
    pub(super) const fn fixed(&self) -> Option<Segments<'static, 4>> {
        let (what, state) = match self.description.about {
            About::Connection => ("connection", Some(Segment::Plain("state"))),
            About::Channel => ("channel", Some(Segment::Plain("state"))),
            About::Message => ("event", None),
            About::Push | About::Trouble | About::Measure => return None,
        };
        let [scheme, phoenix] = [Segment::Plain("jido_coder"), Segment::Plain("phoenix")];
        Some([Some(scheme), Some(phoenix), Some(Segment::Plain(what)), state])
    }
}
