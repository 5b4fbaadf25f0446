//! The router: a pure function from signals to CloudEvents and bus topics.
//!
//! ```text
//!   (connection name, signal, id, time) ──▶ Router ──▶ CloudEvent
//!                                                  └─▶ its bus topics
//! ```
//!
//! A signal is first described without an allocation, as a [`Route`], so that a signal without a
//! subscriber costs only a comparison of names. A payload stays text: it is checked once to be
//! JSON, and not parsed into a tree.
//!
//! The type of a signal in each [`TypeScheme`] follows from its subject and its
//! [name](Signal::name); a signal without a type is not routed. The page
//! [`events`](crate::manual::events) of the manual lists all types and topics. The router holds no
//! state and reads no clock.

mod attribute;
mod data;
mod details;
mod event;
mod names;
mod pattern;
mod shapes;
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

/// The naming scheme of event types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypeScheme {
    /// One type for each kind of signal, and one for each event of each topic.
    #[default]
    Templated,
    /// Three types in all; the details are in the data.
    Fixed,
}

/// A converter from signals to CloudEvents.
///
/// The data of an event contains the name of the connection, the topic and the details of the
/// signal, with payloads in the form of [`EventData::insert_payload`]. A templated type contains
/// the first 256 characters of topic and event.
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

/// An event with its bus topics.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Routed {
    /// The event.
    pub event: CloudEvent,
    /// The bus topics: of the connection, of the channel if the event has one, and of the type.
    pub topics: Vec<String>,
}

/// The description of an event that is not yet built.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    router: &'a Router,
    name: &'a str,
    details: Details<'a>,
    /// The segments of the type.
    kind: Segments<'a, 4>,
}

impl Router {
    /// Makes a router with templated types and the prefix `jido`.
    #[must_use]
    pub fn new() -> Self {
        Self { scheme: TypeScheme::default(), prefix: "jido".to_owned(), source: None }
    }

    /// Sets the naming scheme of types. The default is [`TypeScheme::Templated`].
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

    /// Sets the prefix of every bus topic. It may have several segments, separated by dots.
    ///
    /// The default is `jido`, the name of the system that phx was first built for. Its listeners expect
    /// that prefix; it has no other meaning. The fixed scheme's types begin with `jido_coder` for the same
    /// reason.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the source of every event. The default is `/jido_coder/phoenix` for fixed types and
    /// `/phoenix/<connection>` for templated types.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether any event of this router can have a bus topic that matches the pattern. If not, a
    /// subscription to it stays silent, often because the prefix is missing or a name is misspelled:
    ///
    /// ```
    /// use phx_proto::service::{Router, TopicPattern};
    ///
    /// let router = Router::new().prefix("acme");
    /// let can_match = |pattern| Ok::<_, phx_proto::service::PatternError>(
    ///     router.can_match(&TopicPattern::parse(pattern)?),
    /// );
    /// assert!(can_match("acme.signal.phoenix.channel.joined")?);
    /// assert!(!can_match("acme.signal.phoenix.channel.join")?); // no event has this type
    /// assert!(!can_match("phoenix.channel.joined")?); // the prefix and `signal` are missing
    /// assert!(!can_match("acme.protocol.phoenix.backend.my.room")?); // a dot in a topic is `%2E`
    /// # Ok::<(), phx_proto::service::PatternError>(())
    /// ```
    ///
    /// The answer does not depend on the connections that exist, so any name of a connection, a topic or an
    /// event is possible.
    #[must_use]
    pub fn can_match(&self, pattern: &TopicPattern) -> bool {
        shapes::any_shape(self, |shape| pattern.meets(shape))
    }

    /// The event of a signal of the connection `name`, with the attributes of the connection;
    /// `None` for a signal that is not routed.
    ///
    /// `id` must be unique ([`EventIds`] makes unique ids). `at` is the time since the Unix epoch.
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

    /// The event for `count` signals of the connection that were lost before they could be routed.
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

    /// Describes the event of a signal; `None` for a signal that is not routed.
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
    /// Whether one of the event's topics matches.
    #[cfg(feature = "driver")]
    pub(crate) fn matches(&self, pattern: &TopicPattern) -> bool {
        let mut topics = self.topics().into_iter().flatten();
        topics.any(|topic| pattern.matches_segments(self.segments(topic)))
    }

    /// Builds the event.
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

    /// The segments after the prefix of each topic: of the connection, of the channel, of the type.
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
    /// The bytes of memory of the event: names, topics, attributes and data.
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
        // The nodes of a tree may be half empty.
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

    /// Describing a signal and comparing it with patterns does not allocate.
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
