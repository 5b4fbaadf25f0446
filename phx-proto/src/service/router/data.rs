//! The data of an event: the members of a JSON object, whose values keep their original text.

use core::fmt;
use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::wire::payload::{Payload, PayloadError, unreadable};
use crate::wire::raw::{is_nested_deeper, members, one_line};

/// The maximum nesting of a payload that is a part of an event as JSON. The event adds two levels,
/// and serde_json, like other parsers, reads fewer than 128 levels.
const DEPTH_MAX: usize = 125;

/// The data of a [`CloudEvent`](crate::service::CloudEvent): the members of a JSON object, in
/// order.
///
/// JSON from the server is checked and then kept as text: numbers of any length, the order and
/// repetition of keys, and escapes are written as they were read. Only line breaks and tabs between
/// tokens are replaced by spaces, so that an event is one line.
///
/// ```
/// use phx_proto::service::CloudEvent;
///
/// let text = r#"{"specversion": "1.0", "id": "1", "source": "/a", "type": "b",
///     "time": "2026-08-22T12:00:00.000Z", "datacontenttype": "application/json",
///     "data": {"topic": "room:1", "payload": {"n": 10000000000000000000001, "x": 1.0}}}"#;
/// let event: CloudEvent = serde_json::from_str(text)?;
/// assert_eq!(event.data.get_str("topic").as_deref(), Some("room:1"));
/// let payload = event.data.get("payload").expect("a payload");
/// assert_eq!(payload.get(), r#"{"n": 10000000000000000000001, "x": 1.0}"#);
/// assert_eq!(payload.to_value()?["x"], 1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`Display`](fmt::Display) writes the JSON. `Debug` shows the values that this crate and
/// [`insert`](Self::insert) set, and only the length of values from the server.
///
/// Two values are equal when their JSON texts are equal.
///
/// Serialize and deserialize it with `serde_json`, because it uses [`RawValue`]; for another
/// format, convert it with [`to_value`](Self::to_value). A `RawValue` cannot be read where serde
/// buffers a value: in an untagged enum or behind `#[serde(flatten)]`.
#[derive(Clone, Default)]
pub struct EventData {
    members: Vec<Member>,
}

/// A reference to the value of a member of an [`EventData`].
#[derive(Clone, Copy)]
pub struct EventValue<'a>(&'a Content);

#[derive(Clone)]
struct Member {
    key: Cow<'static, str>,
    content: Content,
}

/// The value of a member. Strings and bytes are escaped only when they are written, because escaped
/// text may be six times as long.
#[derive(Clone)]
enum Content {
    /// A string from this crate or the application.
    Own(Box<str>),
    /// Any other value from this crate or the application.
    OwnJson(Box<RawValue>),
    /// JSON from the server.
    Json(Box<RawValue>),
    /// A payload that is not JSON, or is nested too deep; written as a string under `…_text`.
    Text(Box<[u8]>),
    /// A binary payload; written as base64 under `…_base64`.
    Bytes(Box<[u8]>),
}

impl EventData {
    /// Makes data without members.
    #[must_use]
    pub const fn new() -> Self {
        Self { members: Vec::new() }
    }

    pub(super) fn with_capacity(members: usize) -> Self {
        Self { members: Vec::with_capacity(members) }
    }

    /// The value of a member. If a key occurs several times, the last one counts, as in JavaScript.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<EventValue<'_>> {
        self.position(key).map(|at| EventValue(&self.members[at].content))
    }

    /// The value of a member if it is a string.
    #[must_use]
    pub fn get_str(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key)?.as_str()
    }

    /// Sets a member. A member with this key keeps its place.
    ///
    /// ```
    /// use phx_proto::service::EventData;
    ///
    /// let mut data = EventData::new();
    /// data.insert("count", 7);
    /// data.insert("state", "connected");
    /// assert_eq!(data.to_string(), r#"{"count":7,"state":"connected"}"#);
    /// ```
    pub fn insert(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        let content = match value.into() {
            Value::String(text) => Content::Own(text.into()),
            value => own_json(&value),
        };
        self.set(key.into(), content);
    }

    /// Sets a member to a payload, like a [`Router`](crate::service::Router). JSON is kept as it
    /// is, under `key`. A binary payload becomes base64, under `key` with the suffix `_base64`. A
    /// payload that is not JSON or is nested deeper than 125 levels becomes a string, under `key`
    /// with the suffix `_text`.
    ///
    /// ```
    /// use phx_proto::Payload;
    /// use phx_proto::service::EventData;
    ///
    /// let mut data = EventData::new();
    /// data.insert_payload("response", &Payload::binary([0, 255]));
    /// assert_eq!(data.to_string(), r#"{"response_base64":"AP8="}"#);
    /// ```
    pub fn insert_payload(&mut self, key: impl Into<Cow<'static, str>>, payload: &Payload) {
        let (key, bytes) = (key.into(), payload.as_bytes());
        let (suffix, content) = if payload.is_binary() {
            ("_base64", Content::Bytes(bytes.into()))
        } else if let Some(json) = checked(bytes) {
            ("", Content::Json(json))
        } else {
            ("_text", Content::Text(bytes.into()))
        };
        let key = if suffix.is_empty() { key } else { Cow::Owned(format!("{key}{suffix}")) };
        self.set(key, content);
    }

    pub(super) fn insert_str(&mut self, key: &'static str, text: impl Into<Box<str>>) {
        self.set(key.into(), Content::Own(text.into()));
    }

    /// Removes every member with this key. Returns whether there was one.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.members.len();
        self.members.retain(|member| member.key != key);
        self.members.len() < before
    }

    /// The members in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, EventValue<'_>)> {
        self.members.iter().map(|member| (&*member.key, EventValue(&member.content)))
    }

    /// The number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Parses all members into a tree.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] for a value that is valid JSON and that a [`Value`] cannot hold: a number
    /// out of the range of `f64`, or half of a surrogate pair.
    pub fn to_value(&self) -> Result<Value, PayloadError> {
        let member = |(key, value): (&str, EventValue<'_>)| Ok((key.to_owned(), value.to_value()?));
        self.iter().map(member).collect::<Result<_, _>>().map(Value::Object)
    }

    /// Parses all members as a `T`.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] if the JSON is not a `T`.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        serde_json::from_str(&self.to_string()).map_err(unreadable)
    }

    /// The bytes of memory of the members.
    #[cfg(feature = "driver")]
    pub(super) fn weight(&self) -> usize {
        let of = |member: &Member| {
            let key = if let Cow::Owned(key) = &member.key { key.capacity() } else { 0 };
            key + member.content.len()
        };
        self.members.capacity() * size_of::<Member>() + self.members.iter().map(of).sum::<usize>()
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.members.iter().rposition(|member| member.key == key)
    }

    fn set(&mut self, key: Cow<'static, str>, content: Content) {
        match self.position(&key) {
            Some(at) => self.members[at].content = content,
            None => self.members.push(Member { key, content }),
        }
    }
}

impl<'a> EventValue<'a> {
    /// The JSON text, on one line.
    #[must_use]
    pub fn get(self) -> Cow<'a, str> {
        match self.0 {
            Content::OwnJson(json) | Content::Json(json) => Cow::Borrowed(json.get()),
            Content::Own(text) => quoted(text).into(),
            Content::Text(bytes) => quoted(&String::from_utf8_lossy(bytes)).into(),
            Content::Bytes(bytes) => format!("\"{}\"", STANDARD.encode(bytes)).into(),
        }
    }

    /// The text of the value if it is a string.
    #[must_use]
    pub fn as_str(self) -> Option<Cow<'a, str>> {
        match self.0 {
            Content::Own(text) => Some(Cow::Borrowed(text)),
            Content::Text(bytes) => Some(String::from_utf8_lossy(bytes)),
            Content::Bytes(bytes) => Some(STANDARD.encode(bytes).into()),
            Content::OwnJson(json) | Content::Json(json) => {
                // A string with escapes cannot be borrowed.
                let json = json.get();
                serde_json::from_str::<&str>(json)
                    .map(Cow::Borrowed)
                    .or_else(|_| serde_json::from_str::<String>(json).map(Cow::Owned))
                    .ok()
            }
        }
    }

    /// Parses the value as a `T`.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] if the JSON is not a `T`.
    pub fn deserialize<T: DeserializeOwned>(self) -> Result<T, PayloadError> {
        serde_json::from_str(&self.get()).map_err(unreadable)
    }

    /// Parses the value into a tree.
    ///
    /// # Errors
    ///
    /// The same as [`EventData::to_value`].
    pub fn to_value(self) -> Result<Value, PayloadError> {
        self.deserialize()
    }
}

#[cfg(feature = "driver")]
impl Content {
    fn len(&self) -> usize {
        match self {
            Self::Own(text) => text.len(),
            Self::OwnJson(json) | Self::Json(json) => json.get().len(),
            Self::Text(bytes) | Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// A payload as JSON on one line, if it is JSON and not nested too deep. Does not parse it into a
/// tree.
fn checked(bytes: &[u8]) -> Option<Box<RawValue>> {
    // The parser does not check the bytes of strings, and has no limit of depth.
    let text = core::str::from_utf8(bytes).ok()?;
    if is_nested_deeper(text, DEPTH_MAX) {
        return None;
    }
    Some(one_line(serde_json::from_str(text).ok()?))
}

fn own_json(value: &(impl Serialize + ?Sized)) -> Content {
    // This cannot fail: a `Value` has string keys and finite numbers.
    Content::OwnJson(to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned()))
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

impl PartialEq for EventData {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for EventData {}

impl PartialEq for EventValue<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for EventValue<'_> {}

impl<K: Into<Cow<'static, str>>, V: Into<Value>> Extend<(K, V)> for EventData {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, members: I) {
        members.into_iter().for_each(|(key, value)| self.insert(key, value));
    }
}

impl<K: Into<Cow<'static, str>>, V: Into<Value>> FromIterator<(K, V)> for EventData {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Self {
        let mut data = Self::new();
        data.extend(members);
        data
    }
}

impl fmt::Display for EventData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // This cannot fail: keys are strings and values are JSON.
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Display for EventValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.get())
    }
}

impl fmt::Debug for EventData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl fmt::Debug for EventValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Content::Own(text) => text.fmt(f),
            Content::OwnJson(json) => f.write_str(json.get()),
            Content::Json(json) => write!(f, "Json({} bytes)", json.get().len()),
            Content::Text(bytes) => write!(f, "Text({} bytes)", bytes.len()),
            Content::Bytes(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
        }
    }
}

impl Serialize for EventData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.members.len()))?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, &value)?;
        }
        map.end()
    }
}

impl Serialize for EventValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Content::Own(text) => serializer.serialize_str(text),
            Content::OwnJson(json) | Content::Json(json) => json.serialize(serializer),
            Content::Text(bytes) => serializer.serialize_str(&String::from_utf8_lossy(bytes)),
            Content::Bytes(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
        }
    }
}

impl<'de> Deserialize<'de> for EventData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let data = Box::<RawValue>::deserialize(deserializer)?;
        let members = members(&data).map_err(|_| D::Error::custom("the data is not an object"))?;
        let member = |(key, value): (String, &RawValue)| Member {
            key: key.into(),
            content: Content::Json(one_line(value)),
        };
        Ok(Self { members: members.into_iter().map(member).collect() })
    }
}
