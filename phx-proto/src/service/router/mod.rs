//! From signals to CloudEvents: a pure function.
//!
//! ```text
//!   (connection name, signal, id, time) ──▶ Router ──▶ CloudEvent
//!                                                  └─▶ the bus topics it goes to
//! ```
//!
//! Every signal has a type in each [`TypeScheme`], or is not routed, by one exhaustive match: a
//! new signal does not compile until somebody has decided. The router holds no state and reads no
//! clock.
//!
//! | | templated (default) | fixed |
//! | --- | --- | --- |
//! | connection | `phoenix.connection.connecting`, `.connected`, `.disconnected`, `.gave_up`, `.closed` | `jido_coder.phoenix.connection.state` |
//! | channel | `phoenix.channel.joined`, `.resumed`, `.rejected`, `.interrupted`, `.errored`, `.join_timed_out`, `.left`, `.closed` | `jido_coder.phoenix.channel.state` |
//! | message | `phoenix.<connection>.<topic>.<event>` | `jido_coder.phoenix.event` |
//! | push | `phoenix.push.replied`, `.written`, `.timed_out`, `.unknown`, `.not_sent`, `.cancelled` | not routed |
//! | trouble | `phoenix.connection.protocol_error`, `.warning`, `.lagged` | not routed |
//! | heartbeat | not routed | not routed |

mod attribute;
mod details;
mod event;
mod names;
mod pattern;
mod stamp;

use std::collections::BTreeMap;

pub(crate) use attribute::TAKEN as TAKEN_ATTRIBUTES;
pub use attribute::is_attribute_name;
pub use event::CloudEvent;
pub use pattern::{PatternError, TopicPattern};
pub use stamp::EventIds;

use details::Details;
use names::{push_segment, push_type_part};

use crate::event::signal::Signal;
use crate::time::Time;

/// How the types of events are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TypeScheme {
    /// A type for each thing that can happen, and one for each event of each topic.
    #[default]
    Templated,
    /// Three types; the details are in the data.
    Fixed,
}

/// Turns signals into events.
///
/// ```
/// use phx_proto::{ConnectionId, Router, Signal, Time};
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
    /// How many bytes of payload it holds, roughly.
    pub(crate) weight: usize,
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
    /// use phx_proto::{ConnectionId, Router, Signal, Time, TypeScheme};
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
        self.finish(name, attributes, Details::of(signal)?, id, at)
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
        self.finish(name, attributes, Details::lagged(count), id, at)
    }

    fn finish(
        &self,
        name: &str,
        attributes: &BTreeMap<String, String>,
        details: Details<'_>,
        id: &str,
        at: Time,
    ) -> Option<Routed> {
        let Details { family, subject, event, mut data, weight } = details;
        let kind = match self.scheme {
            TypeScheme::Templated => family.templated(name, subject, event),
            TypeScheme::Fixed => family.fixed()?.to_owned(),
        };
        data.insert("connection_name".to_owned(), name.into());
        let source = self.source.clone().unwrap_or_else(|| match self.scheme {
            TypeScheme::Fixed => "/jido_coder/phoenix".to_owned(),
            TypeScheme::Templated => {
                let mut source = "/phoenix/".to_owned();
                push_segment(&mut source, name);
                source
            }
        });
        let topics = self.topics(name, subject, &kind);
        let event = CloudEvent {
            subject: subject.map(str::to_owned),
            data,
            attributes: attributes.clone(),
            ..CloudEvent::new(source, kind, id, at)
        };
        Some(Routed { event, topics, weight })
    }

    fn topics(&self, name: &str, topic: Option<&str>, kind: &str) -> Vec<String> {
        let mut connection = format!("{}.protocol.phoenix.", self.prefix);
        push_segment(&mut connection, name);
        let channel = topic.map(|topic| {
            let mut channel = format!("{connection}.");
            push_segment(&mut channel, topic);
            channel
        });
        let by_type = format!("{}.signal.{kind}", self.prefix);
        [Some(connection), channel, Some(by_type)].into_iter().flatten().collect()
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

/// What a signal is about, as far as its type goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Connection(&'static str),
    Channel(&'static str),
    Message,
    Push(&'static str),
    /// Not a state of the connection, but about it.
    Trouble(&'static str),
}

impl Family {
    fn templated(self, name: &str, topic: Option<&str>, event: Option<&str>) -> String {
        match self {
            Self::Connection(what) | Self::Trouble(what) => format!("phoenix.connection.{what}"),
            Self::Channel(what) => format!("phoenix.channel.{what}"),
            Self::Push(what) => format!("phoenix.push.{what}"),
            Self::Message => {
                let mut kind = "phoenix.".to_owned();
                push_type_part(&mut kind, name);
                for part in [topic, event] {
                    kind.push('.');
                    push_type_part(&mut kind, part.unwrap_or_default());
                }
                kind
            }
        }
    }

    const fn fixed(self) -> Option<&'static str> {
        match self {
            Self::Connection(_) => Some("jido_coder.phoenix.connection.state"),
            Self::Channel(_) => Some("jido_coder.phoenix.channel.state"),
            Self::Message => Some("jido_coder.phoenix.event"),
            Self::Push(_) | Self::Trouble(_) => None,
        }
    }
}
