//! Parses a line of standard input as an order.
//!
//! ```json
//! {"id": "7", "push": {"connection": "backend", "topic": "room:a", "event": "buy", "payload": {}}}
//! ```
//!
//! Error messages name keys and types, never values, because payloads are often secret. Payloads
//! keep their text: numbers of any length, order and repetition of keys.

use core::time::Duration;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use phx_tokio::Payload;
use serde_json::value::RawValue;

/// The maximum length of an id, in bytes. The caller chooses the id, and it is kept while the order
/// runs.
const ID_MAX: usize = 256;

/// An order: a command with the id that its caller chose.
#[derive(Debug)]
pub(super) struct Order {
    /// The caller's id; the result contains it.
    pub(super) id: String,
    pub(super) command: Command,
    pub(super) connection: String,
    pub(super) topic: String,
}

#[derive(Debug)]
pub(super) enum Command {
    Push { event: String, payload: Payload, timeout: Option<Duration> },
    Cast { event: String, payload: Payload, timeout: Option<Duration> },
    Join { params: Payload },
    Leave,
}

impl Command {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Push { .. } => "push",
            Self::Cast { .. } => "cast",
            Self::Join { .. } => "join",
            Self::Leave => "leave",
        }
    }
}

/// The members of an object, each with its text.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// Reads the members of an object. Of two equal keys the first one is kept, and the second result is that
/// key.
fn members(value: &RawValue) -> serde_json::Result<(Members<'_>, Option<String>)> {
    let (mut members, mut repeated) = (Members::new(), None);
    for (key, value) in phx_proto::adapter::members(value)? {
        match members.entry(key) {
            Entry::Vacant(entry) => drop(entry.insert(value)),
            Entry::Occupied(entry) => drop(repeated.get_or_insert_with(|| entry.key().clone())),
        }
    }
    Ok((members, repeated))
}

/// The error for an invalid line.
#[derive(Debug)]
pub(super) struct Malformed {
    /// The caller's id, if it could be read.
    pub(super) id: Option<String>,
    pub(super) message: String,
}

impl Order {
    pub(super) fn parse(line: &[u8]) -> Result<Self, Malformed> {
        let bad = |id: Option<&String>, message: String| Malformed { id: id.cloned(), message };
        let no_json = |error| bad(None, format!("the line is not JSON: {error}"));
        let line: &RawValue = serde_json::from_slice(line).map_err(no_json)?;
        if kind(line) != "an object" {
            return Err(bad(None, format!("the line must be an object, not {}", kind(line))));
        }
        let (mut members, repeated) = members(line).map_err(no_json)?;
        let twice = |key: &String| format!("the key {key:?} occurs twice");
        if let Some(key) = repeated.as_ref().filter(|key| *key == "id") {
            return Err(bad(None, twice(key)));
        }
        let id = match members.remove("id").map(text) {
            Some(Some(id)) if !id.is_empty() && id.len() <= ID_MAX => id,
            Some(_) => {
                let message = format!("the key \"id\" must be a string of 1 to {ID_MAX} bytes");
                return Err(bad(None, message));
            }
            None => return Err(bad(None, "the key \"id\" is missing".to_owned())),
        };
        if let Some(key) = &repeated {
            return Err(bad(Some(&id), twice(key)));
        }
        Self::of(&id, members).map_err(|message| bad(Some(&id), message))
    }

    fn of(id: &str, order: Members<'_>) -> Result<Self, String> {
        const WANTED: &str = "apart from \"id\", the line must have exactly one of the keys \
                              \"push\", \"cast\", \"join\" and \"leave\"";
        let mut order = order.into_iter();
        let (Some((name, value)), None) = (order.next(), order.next()) else {
            return Err(WANTED.to_owned());
        };
        if !["push", "cast", "join", "leave"].contains(&name.as_str()) {
            return Err(WANTED.to_owned());
        }
        let Ok((members, repeated)) = members(value) else {
            return Err(format!("the key {name:?} must be an object, not {}", kind(value)));
        };
        if let Some(key) = repeated {
            return Err(format!("{name:?}: {key:?} occurs twice"));
        }
        let mut details = Details { of: &name, members };
        let (connection, topic) = (details.text("connection")?, details.text("topic")?);
        let command = match name.as_str() {
            "join" => Command::Join { params: details.json("params") },
            "leave" => Command::Leave,
            push => {
                let event = details.text("event")?;
                let (payload, timeout) = (details.payload()?, details.msec("timeout_msec")?);
                match push {
                    "push" => Command::Push { event, payload, timeout },
                    _ => Command::Cast { event, payload, timeout },
                }
            }
        };
        details.nothing_else()?;
        Ok(Self { id: id.to_owned(), command, connection, topic })
    }
}

/// The members of a command.
struct Details<'a> {
    of: &'a str,
    members: Members<'a>,
}

impl Details<'_> {
    fn text(&mut self, key: &str) -> Result<String, String> {
        match self.members.remove(key) {
            Some(value) => text(value).ok_or_else(|| {
                format!("{:?}: {key:?} must be a string, not {}", self.of, kind(value))
            }),
            None => Err(format!("{:?}: {key:?} is missing", self.of)),
        }
    }

    fn msec(&mut self, key: &str) -> Result<Option<Duration>, String> {
        match self.members.remove(key) {
            None => Ok(None),
            Some(value) => match serde_json::from_str(value.get()) {
                Ok(msec) => Ok(Some(Duration::from_millis(msec))),
                Err(_) => {
                    Err(format!("{:?}: {key:?} must be a whole number of milliseconds", self.of))
                }
            },
        }
    }

    /// The member as a payload. If it is missing, the payload is `{}`, as Phoenix expects.
    fn json(&mut self, key: &str) -> Payload {
        let payload = self.members.remove(key).and_then(|value| Payload::json(value).ok());
        payload.unwrap_or_else(Payload::empty)
    }

    fn payload(&mut self) -> Result<Payload, String> {
        let Some(value) = self.members.remove("payload_base64") else {
            return Ok(self.json("payload"));
        };
        if self.members.contains_key("payload") {
            return Err(format!(
                "{:?}: \"payload\" and \"payload_base64\" cannot be used together",
                self.of
            ));
        }
        let bytes = text(value).and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes.ok_or_else(|| format!("{:?}: \"payload_base64\" is not base64", self.of));
        bytes.map(Payload::binary)
    }

    fn nothing_else(&self) -> Result<(), String> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(key) => Err(format!("{:?}: unknown key {key:?}", self.of)),
        }
    }
}

/// The text of a JSON string.
fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        Some(b'"') if text(value).is_none() => "a string with an unpaired surrogate",
        Some(b'"') => "a string",
        Some(b'[') => "a list",
        // A key of the object contains an invalid escape.
        Some(b'{') if members(value).is_err() => "an object whose keys have an unpaired surrogate",
        Some(b'{') => "an object",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_parses() {
        let read =
            |line: &str| Order::parse(line.as_bytes()).unwrap_or_else(|bad| panic!("{bad:?}"));
        let push = read(
            r#"{"id": "7", "push": {"connection": "a", "topic": "t", "event": "e",
                "payload": {"x": 1}, "timeout_msec": 5}}"#,
        );
        assert_eq!((&*push.id, &*push.connection, &*push.topic), ("7", "a", "t"));
        let Command::Push { event, payload, timeout } = push.command else { panic!("a push") };
        assert_eq!((&*event, payload.to_value().unwrap()), ("e", serde_json::json!({"x": 1})));
        assert_eq!(timeout, Some(Duration::from_millis(5)));

        // The payload keeps its text.
        let text = r#"{"b":1.0, "a":10000000000000000000001,"b":1e400}"#;
        let push = read(&format!(
            r#"{{"id": "7", "push": {{"connection": "a", "topic": "t", "event": "e",
                "payload": {text}}}}}"#
        ));
        let Command::Push { payload, .. } = push.command else { panic!("a push") };
        assert_eq!(payload.get(), Ok(text));

        let cast = r#"{"id": "7", "cast": {"connection": "a", "topic": "t", "event": "e",
            "payload_base64": "AP8="}}"#;
        let Command::Cast { payload, .. } = read(cast).command else { panic!("a cast") };
        assert_eq!((payload.is_binary(), payload.as_bytes()), (true, &[0, 255][..]));

        let join = r#"{"id": "7", "join": {"connection": "a", "topic": "t", "params": {"n": 1}}}"#;
        assert_eq!(read(join).command.name(), "join");
        let leave = r#"{"id": "7", "leave": {"connection": "a", "topic": "t"}}"#;
        assert_eq!(read(leave).command.name(), "leave");
    }

    #[test]
    fn errors_name_keys_and_hide_values() {
        for (line, id, message) in [
            ("{", None, "not JSON"),
            ("\u{0}", None, "not JSON"),
            ("[\"s3cret\"]", None, "an object, not a list"),
            ("{}", None, "\"id\" is missing"),
            (r#"{"id": 7}"#, None, "\"id\" must be a string"),
            (r#"{"id": ""}"#, None, "\"id\" must be a string"),
            (
                r#"{"id": "x", "leave": {"topic": "\ud800"}}"#,
                Some("x"),
                "\"connection\" is missing",
            ),
            (
                r#"{"id": "x", "leave": {"connection": "\ud800"}}"#,
                Some("x"),
                "must be a string, not a string with an unpaired surrogate",
            ),
            (r#"{"id": "x", "leave": {"\ud800": 1}}"#, Some("x"), "an unpaired surrogate"),
            (r#"{"\ud800": 1}"#, None, "an unpaired surrogate"),
            (r#"{"id": "x"}"#, Some("x"), "one of the keys \"push\""),
            (r#"{"id": "x", "shove": {}}"#, Some("x"), "one of the keys \"push\""),
            (r#"{"id": "x", "push": {}, "join": {}}"#, Some("x"), "one of the keys \"push\""),
            (r#"{"id": "x", "id": "x"}"#, None, "the key \"id\" occurs twice"),
            (r#"{"id": "x", "push": {}, "push": {}}"#, Some("x"), "the key \"push\" occurs twice"),
            (
                r#"{"id": "x", "leave": {"connection": "a", "topic": "t", "topic": "s3cret"}}"#,
                Some("x"),
                "\"leave\": \"topic\" occurs twice",
            ),
            (
                r#"{"id": "x", "push": "s3cret"}"#,
                Some("x"),
                "\"push\" must be an object, not a string",
            ),
            (r#"{"id": "x", "leave": {"topic": "t"}}"#, Some("x"), "\"connection\" is missing"),
            (
                r#"{"id": "x", "leave": {"connection": "a", "topic": 1}}"#,
                Some("x"),
                "\"topic\" must be a string, not a number",
            ),
            (
                r#"{"id": "x", "leave": {"connection": "a", "topic": "t", "event": "s3cret"}}"#,
                Some("x"),
                "unknown key \"event\"",
            ),
            (
                r#"{"id": "x", "push": {"connection": "a", "topic": "t", "event": "e",
                    "payload_base64": "s3cret!"}}"#,
                Some("x"),
                "not base64",
            ),
            (
                r#"{"id": "x", "push": {"connection": "a", "topic": "t", "event": "e",
                    "payload": {}, "payload_base64": ""}}"#,
                Some("x"),
                "cannot be used together",
            ),
            (
                r#"{"id": "x", "push": {"connection": "a", "topic": "t", "event": "e",
                    "timeout_msec": -1}}"#,
                Some("x"),
                "a whole number of milliseconds",
            ),
        ] {
            let bad = Order::parse(line.as_bytes()).expect_err(line);
            assert_eq!(bad.id.as_deref(), id, "{line}");
            assert!(bad.message.contains(message), "{line}: {}", bad.message);
            assert!(!bad.message.contains("s3cret"), "{}", bad.message);
        }
        let long = format!(r#"{{"id": "{}"}}"#, "x".repeat(ID_MAX + 1));
        assert!(Order::parse(long.as_bytes()).unwrap_err().message.contains("1 to 256"));
    }
}
