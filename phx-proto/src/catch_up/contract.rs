//! The part of the contract that differs between servers: names, and where the replay is.

use core::fmt;
use core::time::Duration;
use std::borrow::Cow;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::wire::ByteStr;
use crate::wire::payload::{Payload, PayloadError};

/// The time without a part of the replay after which the replay counts as failed.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// The maximum number of messages that are read from one part of a replay.
const MESSAGES_MAX: usize = 16_384;

/// How a server receives positions and sends its replay. Every method has a default.
///
/// # The replay
///
/// The replay is one JSON object, in the response of the join or in the payload of events:
///
/// ```json
/// {
///     "messages": [{"event": "order", "payload": {"pos": 8, "id": 1}}],
///     "oldest": 7,
///     "newest": 8
/// }
/// ```
///
/// * `messages` are the messages to replay, in order. Other members of an item are ignored.
/// * `oldest` is optional: the oldest position from which the server can replay everything, which is the
///   position of the last message that it has forgotten, or zero. A smaller position of the client means
///   that messages are missing.
/// * `newest` is optional: the position of the newest message, or `oldest` if there is none. A greater
///   position of the client means that the server has started its numbers over; this is reported as a
///   [`Gap`](super::Gap). A consumer without a position continues from `newest`, so that it misses
///   nothing if the next interruption comes before the first message.
///
/// ```
/// use phx_proto::catch_up::Contract;
///
/// // A server that replays in events "missed", and ends the replay with the event "up_to_date".
/// let contract = Contract::in_events("missed", "up_to_date").param("last_seen");
/// # let _ = contract;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Contract {
    pub(crate) param: String,
    messages: String,
    oldest: String,
    newest: String,
    pub(crate) events: Option<ReplayEvents>,
    pub(crate) contiguous: bool,
    pub(crate) end_timeout: Duration,
}

/// The events of a replay that is not in the response of the join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplayEvents {
    pub(crate) part: String,
    pub(crate) end: String,
}

impl Contract {
    /// The replay is in the response of the join. This is the default.
    pub fn in_response() -> Self {
        Self {
            param: "since".to_owned(),
            messages: "messages".to_owned(),
            oldest: "oldest".to_owned(),
            newest: "newest".to_owned(),
            events: None,
            contiguous: false,
            end_timeout: END_TIMEOUT,
        }
    }

    /// The replay comes after the join, in any number of events named `part`. An event named `end` ends
    /// it, and may name `oldest` and `newest` too. Live messages that arrive before the end are held back.
    pub fn in_events(part: impl Into<String>, end: impl Into<String>) -> Self {
        let events = ReplayEvents { part: part.into(), end: end.into() };
        Self { events: Some(events), ..Self::in_response() }
    }

    /// The name of the join parameter with the position of the last message; `since` by default. The
    /// parameter is absent before the first message. It replaces a parameter of the application with the
    /// same name.
    pub fn param(mut self, name: impl Into<String>) -> Self {
        self.param = name.into();
        self
    }

    /// The name of the member with the replayed messages; `messages` by default.
    pub fn messages(mut self, name: impl Into<String>) -> Self {
        self.messages = name.into();
        self
    }

    /// The name of the member with the oldest position from which the server can replay; `oldest` by
    /// default.
    pub fn oldest(mut self, name: impl Into<String>) -> Self {
        self.oldest = name.into();
        self
    }

    /// The name of the member with the newest position; `newest` by default.
    pub fn newest(mut self, name: impl Into<String>) -> Self {
        self.newest = name.into();
        self
    }

    /// Declares that positions have no holes: each message has the position of the previous message of
    /// its topic plus one. A hole in the live messages then causes a rejoin, and what the replay lacks
    /// is a [`Gap`](super::Gap). By default holes have no meaning.
    pub const fn contiguous(mut self) -> Self {
        self.contiguous = true;
        self
    }

    /// The timeout of a replay in events, measured from the join or from the latest part of the replay. If
    /// the event that ends the replay has not arrived by then, the replay counts as failed. That is
    /// reported as a [`Gap`](super::Gap), and the live messages are delivered. The default is 60 s;
    /// `Duration::MAX` means no timeout. The timeout must be longer than the transfer of the largest part
    /// over the slowest link.
    pub const fn end_timeout(mut self, timeout: Duration) -> Self {
        self.end_timeout = timeout;
        self
    }

    /// Reads a replay: the response of a join, or the payload of an event that has a part of the replay.
    ///
    /// # Errors
    ///
    /// [`ReplayError`] if the payload has no array of messages, or if the array has an invalid item.
    pub fn read(&self, payload: &Payload) -> Result<Replay, ReplayError> {
        self.read_members(payload, true)
    }

    /// Reads the payload of the event that ends a replay, in which every member is optional.
    ///
    /// # Errors
    ///
    /// [`ReplayError`] if the payload has an array of messages with an invalid item.
    pub fn read_end(&self, payload: &Payload) -> Result<Replay, ReplayError> {
        self.read_members(payload, false)
    }

    fn read_members(&self, payload: &Payload, required: bool) -> Result<Replay, ReplayError> {
        let invalid = || ReplayError { messages: self.messages.clone() };
        let text = payload.get().map_err(|_: PayloadError| invalid())?;
        if !required && !text.starts_with('{') {
            // Phoenix sends `{}` for a payload without data, but other servers may send another value.
            return Ok(Replay::default());
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let members = Members { contract: self, payload };
        let read = members.deserialize(&mut json).and_then(|replay| json.end().map(|()| replay));
        let (messages, replay) = read.map_err(|_: serde_json::Error| invalid())?;
        if required && !messages { Err(invalid()) } else { Ok(replay) }
    }
}

/// Reads the members of a replay, and whether it has messages. Memory is bounded by
/// [`MESSAGES_MAX`], whatever the payload contains.
struct Members<'a> {
    contract: &'a Contract,
    payload: &'a Payload,
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = (bool, Replay);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = (bool, Replay);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a replay")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut has_messages, mut replay) = (false, Replay::default());
        let number = |value: &RawValue| serde_json::from_str::<u64>(value.get()).ok();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == self.contract.messages {
                let messages = map.next_value_seed(Messages { payload: self.payload })?;
                (replay.messages, replay.truncated) = messages;
                has_messages = true;
            } else if name == self.contract.oldest {
                replay.oldest = number(map.next_value::<&'de RawValue>()?);
            } else if name == self.contract.newest {
                replay.newest = number(map.next_value::<&'de RawValue>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok((has_messages, replay))
    }
}

/// Reads up to [`MESSAGES_MAX`] messages, and whether there were more.
struct Messages<'a> {
    payload: &'a Payload,
}

impl<'de> DeserializeSeed<'de> for Messages<'_> {
    type Value = (Vec<ReplayedMessage>, bool);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Messages<'_> {
    type Value = (Vec<ReplayedMessage>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        #[derive(Deserialize)]
        struct Item<'a> {
            #[serde(borrow)]
            event: Cow<'a, str>,
            #[serde(borrow)]
            payload: &'a RawValue,
        }

        let mut messages = Vec::new();
        while messages.len() < MESSAGES_MAX {
            let Some(Item { event, payload }) = seq.next_element::<Item<'de>>()? else {
                return Ok((messages, false));
            };
            let payload = self.payload.part(payload.get());
            messages.push(ReplayedMessage { event: event.into_owned().into(), payload });
        }
        let mut truncated = false;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            truncated = true;
        }
        Ok((messages, truncated))
    }
}

impl Default for Contract {
    fn default() -> Self {
        Self::in_response()
    }
}

/// A replay, or a part of it, as read by [`Contract::read`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Replay {
    /// The messages, in the server's order, at most 16,384. Their payloads are slices of the payload that
    /// was read.
    pub messages: Vec<ReplayedMessage>,
    /// Whether the payload has further messages, which were not read. Join the channel again to get them,
    /// when these messages have been taken.
    pub truncated: bool,
    /// The oldest position from which the server can replay, if it named one.
    pub oldest: Option<u64>,
    /// The newest position, if the server named one.
    pub newest: Option<u64>,
}

/// A replayed message.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReplayedMessage {
    /// The event name.
    pub event: ByteStr,
    /// The payload, not yet parsed.
    pub payload: Payload,
}

/// A payload that should contain a replay does not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the replay has no array {messages:?} of objects with \"event\" and \"payload\"; compare the server's \
     replay with `Contract`"
)]
#[non_exhaustive]
pub struct ReplayError {
    /// The name of the member that should have the messages.
    pub messages: String,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn read(contract: &Contract, value: serde_json::Value) -> Result<Replay, ReplayError> {
        contract.read(&Payload::from(value))
    }

    #[test]
    fn replay_is_read_without_copy() {
        let text = Bytes::from_static(
            br#"{"topic":"a","oldest":7,"messages":[{"payload":{"pos":8},"event":"o\u0072der"}],"newest":8}"#,
        );
        let replay = Contract::in_response().read(&Payload::received_json(text.clone())).unwrap();
        assert_eq!((replay.oldest, replay.newest), (Some(7), Some(8)));
        let [ReplayedMessage { event, payload }] = &replay.messages[..] else { panic!("one") };
        assert_eq!((&**event, payload.get().unwrap()), ("order", r#"{"pos":8}"#));
        assert!(text.as_ptr_range().contains(&payload.as_bytes().as_ptr()));
    }

    #[test]
    fn replay_members_can_be_renamed() {
        let contract = Contract::in_response().messages("m").oldest("o").newest("n");
        let replay = read(&contract, json!({"m": [], "o": 1, "n": 2})).unwrap();
        assert_eq!((replay.oldest, replay.newest), (Some(1), Some(2)));
        assert!(replay.messages.is_empty());
    }

    /// `oldest` or `newest` counts as absent if it is not a number from 0 to `u64::MAX`.
    #[test]
    fn invalid_replay_is_an_error() {
        let contract = Contract::in_response();
        for invalid in [
            json!({}),
            json!([]),
            json!("messages"),
            json!({"messages": {}}),
            json!({"messages": [{"event": "a"}]}),
            json!({"messages": [{"event": 1, "payload": {}}]}),
            json!({"messages": [null]}),
        ] {
            let error = read(&contract, invalid.clone()).expect_err("invalid");
            assert!(error.to_string().contains("no array \"messages\""), "{invalid}: {error}");
        }
        assert!(contract.read(&Payload::binary("{}")).is_err());
        assert!(contract.read(&Payload::received_json(&b"{\"messages\":[]"[..])).is_err());
        let odd = read(&contract, json!({"messages": [], "oldest": -1, "newest": "x"})).unwrap();
        assert_eq!((odd.oldest, odd.newest), (None, None));
    }

    /// A part with more messages than the bound, and an object with many members.
    #[test]
    fn replay_is_bounded() {
        let item = r#"{"event":"a","payload":0}"#;
        let text = format!(r#"{{"messages":[{}],"newest":9}}"#, vec![item; MESSAGES_MAX].join(","));
        let replay = Contract::in_response().read(&Payload::received_json(text.clone())).unwrap();
        assert_eq!((replay.messages.len(), replay.truncated), (MESSAGES_MAX, false));
        let text = text.replacen('[', &format!("[{item},"), 1);
        let replay = Contract::in_response().read(&Payload::received_json(text)).unwrap();
        assert_eq!((replay.messages.len(), replay.truncated), (MESSAGES_MAX, true));
        assert_eq!(replay.newest, Some(9));
    }

    #[test]
    fn end_event_needs_no_members() {
        let contract = Contract::in_events("missed", "over");
        for payload in [json!({}), json!(null), json!([1]), json!(1.5)] {
            let end = contract.read_end(&Payload::from(payload)).unwrap();
            assert!(end.messages.is_empty() && end.oldest.is_none());
        }
        let end = contract.read_end(&Payload::from(json!({"oldest": 3}))).unwrap();
        assert_eq!(end.oldest, Some(3));
        assert!(contract.read_end(&Payload::from(json!({"messages": [1]}))).is_err());
    }
}
