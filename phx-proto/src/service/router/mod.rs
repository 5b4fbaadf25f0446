//! From signals to CloudEvents: a pure function.
//!
//! ```text
//!   (connection name, signal, id, time) ──▶ Router ──▶ CloudEvent
//!                                                  └─▶ the bus topics it goes to
//! ```
//!
//! A signal is described first, without an allocation, so that one without a subscriber costs no more
//! than a comparison of names: [`Route`] is that description. A payload stays text: it is checked to
//! be JSON once, for the event, and no tree is built of it.
//!
//! The type of a signal in each [`TypeScheme`] follows from what it is about and from its
//! [name](Signal::name); a signal without a type is not routed. The page
//! [`events`](crate::manual::events) of the manual lists all types and topics. The router holds no state
//! and reads no clock.

mod attribute;
mod data;
mod details;
mod event;
mod names;
mod pattern;
mod stamp;

use std::collections::BTreeMap;

#[cfg(feature = "schema")]
pub(crate) use attribute::TAKEN as TAKEN_ATTRIBUTES;
pub use attribute::is_attribute_name;
pub use data::{EventData, EventValue};
pub use event::CloudEvent;
pub use pattern::{PatternError, TopicPattern};
pub use stamp::EventIds;

use details::{Details, Segments};
use names::{Segment, joined};

use crate::event::signal::Signal;
use crate::time::Time;

/// How the types of events are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypeScheme {
    /// A type for each thing that can happen, and one for each event of each topic.
    #[default]
    Templated,
    /// Three types; the details are in the data.
    Fixed,
}

/// Turns signals into events.
///
/// The data has the name of the connection, the topic, and the details of the signal; payloads as
/// [`EventData::insert_payload`] has them. A templated type has the first 256 characters of topic and
/// event.
///
/// ```
/// use phx_proto::{ConnectionId, Signal, Time};
/// use phx_proto::service::Router;
///
/// let router = Router::new();
/// let signal = Signal::Connected { id: ConnectionId::from_u64(1) };
/// let at = Time::from_millis(1_700_000_000_000);
/// let routed = router.route("backend", &Default::default(), &signal, "1", at).unwrap();
/// assert_eq!(routed.event.kind, "phoenix.connection.connected");
/// assert_eq!(routed.event.time, "2023-11-14T22:13:20.000Z");
/// assert_eq!(routed.topics[0], "jido.protocol.phoenix.backend");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    scheme: TypeScheme,
    prefix: String,
    source: Option<String>,
}

/// An event, and where it goes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Routed {
    /// The event.
    pub event: CloudEvent,
    /// The bus topics: of the connection, of the channel if it is about one, and of the type.
    pub topics: Vec<String>,
}

/// An event that is not made yet, and where it would go.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    router: &'a Router,
    name: &'a str,
    details: Details<'a>,
    /// The type, in segments.
    kind: Segments<'a, 4>,
}

impl Router {
    /// Templated types, the prefix `jido`.
    #[must_use]
    pub fn new() -> Self {
        Self { scheme: TypeScheme::default(), prefix: "jido".to_owned(), source: None }
    }

    /// How types are named. Default [`TypeScheme::Templated`].
    ///
    /// ```
    /// use phx_proto::{ConnectionId, Signal, Time};
    /// use phx_proto::service::{Router, TypeScheme};
    ///
    /// let router = Router::new().scheme(TypeScheme::Fixed).prefix("acme");
    /// let signal = Signal::Connected { id: ConnectionId::from_u64(1) };
    /// let routed = router.route("backend", &Default::default(), &signal, "1", Time::ZERO).unwrap();
    /// assert_eq!(routed.event.kind, "jido_coder.phoenix.connection.state");
    /// assert_eq!(routed.topics[0], "acme.protocol.phoenix.backend");
    /// ```
    #[must_use]
    pub const fn scheme(mut self, scheme: TypeScheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// What every bus topic begins with. Default `jido`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The source of every event. Default `/jido_coder/phoenix` for fixed types, and
    /// `/phoenix/<connection>` for templated ones.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The event of a signal of the connection `name`, with the attributes of the connection;
    /// none for a signal that is not routed.
    ///
    /// `id` must be new each time ([`EventIds`] makes such), `at` counts from the Unix epoch.
    #[must_use]
    pub fn route(
        &self,
        name: &str,
        attributes: &BTreeMap<String, String>,
        signal: &Signal,
        id: &str,
        at: Time,
    ) -> Option<Routed> {
        self.plan(name, signal).map(|route| route.event(attributes, id, at))
    }

    /// The event that says that `count` signals of the connection were lost on the way.
    #[must_use]
    pub fn route_lagged(
        &self,
        name: &str,
        attributes: &BTreeMap<String, String>,
        count: u64,
        id: &str,
        at: Time,
    ) -> Option<Routed> {
        self.plan_lagged(name, count).map(|route| route.event(attributes, id, at))
    }

    /// Describes the event of a signal; none for a signal that is not routed.
    pub(crate) fn plan<'a>(&'a self, name: &'a str, signal: &'a Signal) -> Option<Route<'a>> {
        self.plan_of(name, Details::of(signal.describe())?)
    }

    /// Describes the event of [`route_lagged`](Self::route_lagged).
    pub(crate) fn plan_lagged<'a>(&'a self, name: &'a str, count: u64) -> Option<Route<'a>> {
        self.plan_of(name, Details::lagged(count))
    }

    fn plan_of<'a>(&'a self, name: &'a str, details: Details<'a>) -> Option<Route<'a>> {
        let kind = match self.scheme {
            TypeScheme::Templated => details.templated(name),
            TypeScheme::Fixed => details.fixed()?,
        };
        Some(Route { router: self, name, details, kind })
    }
}

impl<'a> Route<'a> {
    /// Whether one of its topics matches.
    #[cfg(feature = "driver")]
    pub(crate) fn matches(&self, pattern: &TopicPattern) -> bool {
        let mut topics = self.topics().into_iter().flatten();
        topics.any(|topic| pattern.matches_segments(self.segments(topic)))
    }

    /// Makes the event.
    pub(crate) fn event(
        &self,
        attributes: &BTreeMap<String, String>,
        id: &str,
        at: Time,
    ) -> Routed {
        let router = self.router;
        let source = router.source.clone().unwrap_or_else(|| match router.scheme {
            TypeScheme::Fixed => "/jido_coder/phoenix".to_owned(),
            TypeScheme::Templated => format!("/phoenix/{}", joined([Segment::Name(self.name)])),
        });
        let kind = joined(self.kind.into_iter().flatten());
        let topics = self.topics().into_iter().flatten();
        let topics = topics.map(|topic| joined(self.segments(topic))).collect();
        let event = CloudEvent {
            subject: self.details.subject().map(str::to_owned),
            data: self.details.data(self.name),
            attributes: attributes.clone(),
            ..CloudEvent::new(source, kind, id, at)
        };
        Routed { event, topics }
    }

    /// What follows the prefix in each of its topics: of the connection, of the channel, of the type.
    fn topics(&self) -> [Option<Segments<'a, 5>>; 3] {
        const PROTOCOL: Option<Segment<'_>> = Some(Segment::Plain("protocol"));
        const PHOENIX: Option<Segment<'_>> = Some(Segment::Plain("phoenix"));
        let name = Some(Segment::Name(self.name));
        let [one, two, three, four] = self.kind;
        let channel = |topic| [PROTOCOL, PHOENIX, name, Some(Segment::Name(topic)), None];
        [
            Some([PROTOCOL, PHOENIX, name, None, None]),
            self.details.subject().map(channel),
            Some([Some(Segment::Plain("signal")), one, two, three, four]),
        ]
    }

    fn segments(&self, topic: Segments<'a, 5>) -> impl Iterator<Item = Segment<'a>> + Clone {
        let prefix = self.router.prefix.split('.').map(Segment::Plain);
        prefix.chain(topic.into_iter().flatten())
    }
}

#[cfg(feature = "driver")]
impl Routed {
    /// The bytes that it keeps in memory: names, topics, attributes and data.
    pub(crate) fn weight(&self) -> usize {
        let CloudEvent {
            specversion,
            id,
            source,
            kind,
            subject,
            time,
            datacontenttype,
            data,
            attributes,
        } = &self.event;
        let text = |text: &String| text.capacity();
        let named = [specversion, id, source, kind, time, datacontenttype];
        let named: usize = named.into_iter().chain(subject).map(text).sum();
        // A tree keeps its entries in nodes that are half empty at worst.
        let entry = |(key, value): (&String, &String)| {
            4 * size_of::<String>() + key.capacity() + value.capacity()
        };
        let attributes: usize = attributes.iter().map(entry).sum();
        let topics = self.topics.capacity() * size_of::<String>();
        let topics = topics + self.topics.iter().map(text).sum::<usize>();
        size_of::<Self>() + named + attributes + topics + data.weight()
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, feature = "driver"))]
mod tests {
    use super::*;
    use crate::wire::payload::Payload;

    /// A signal without a subscriber is described and compared, and nothing is built.
    #[test]
    fn comparison_allocates_nothing() {
        let router = Router::new();
        let signal = Signal::Message {
            topic: "room:lobby".into(),
            event: "news".into(),
            payload: Payload::binary("bytes"),
        };
        let patterns = [
            ("jido.protocol.phoenix.b.**", false),
            ("jido.protocol.phoenix.a.room:lobby", true),
            ("jido.protocol.phoenix.a.room:lobby.*", false),
            ("jido.signal.phoenix.a.room_lobby.news", true),
            ("**.gave_up", false),
            ("**", true),
        ];
        let patterns = patterns.map(|(pattern, is)| (TopicPattern::parse(pattern).unwrap(), is));
        let counted = allocation_counter::measure(|| {
            for (pattern, expected) in &patterns {
                let route = router.plan("a", &signal).expect("messages are routed");
                assert_eq!(route.matches(pattern), *expected, "{pattern:?}");
            }
        });
        assert_eq!(counted.count_total, 0);
    }
}
