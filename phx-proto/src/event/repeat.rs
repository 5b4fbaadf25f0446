//! The options of pushes that may be repeated, and the check of their idempotency key.

use core::fmt;
use core::time::Duration;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::wire::payload::Payload;

/// The options of a push that is pushed again when its outcome is unknown.
///
/// The payload carries an idempotency key of the application: the same for every repeat of one push,
/// and another for every other push. The server must handle a key once, and answer a repeat with the
/// response to the first push. Without such a server a repeat may have its effect twice.
///
/// ```
/// use core::time::Duration;
/// use phx_proto::event::RepeatOptions;
///
/// // The payload is an object with the member `order_id`.
/// let options = RepeatOptions::keyed_by("order_id").repeats(5).deadline(Duration::from_secs(120));
/// # let _ = options;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct RepeatOptions {
    pub(crate) member: String,
    pub(crate) repeats: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Duration,
}

impl RepeatOptions {
    /// Names the member of the payload that is the idempotency key: a member of the outermost object,
    /// whose value is a number or a string that is not empty.
    ///
    /// The defaults are at most 3 repeats, within 60 s, each with
    /// [`Config::push_timeout`](crate::Config::push_timeout).
    pub fn keyed_by(member: impl Into<String>) -> Self {
        Self { member: member.into(), repeats: 3, timeout: None, deadline: Duration::from_secs(60) }
    }

    /// Sets the maximum number of repeats. The push is written at most once more than that. Zero
    /// disables repeats.
    pub const fn repeats(mut self, repeats: u32) -> Self {
        self.repeats = repeats;
        self
    }

    /// Sets the timeout of each attempt, from the time at which the push queue accepts it to its
    /// outcome, instead of [`Config::push_timeout`](crate::Config::push_timeout). It is shortened if
    /// the deadline is nearer.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the time from the call to the outcome, with all repeats and the waits for rejoins between
    /// them. `Duration::MAX` means no deadline.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

/// Why a payload has no idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The payload is binary, or JSON other than an object.
    #[error("the payload is not a JSON object, so it cannot have the member {member:?}")]
    NotAnObject {
        /// The member that should be the key.
        member: String,
    },
    /// The object has no such member.
    #[error("the payload has no member {member:?}")]
    Missing {
        /// The member that should be the key.
        member: String,
    },
    /// The member is neither a number nor a string, or it is an empty string.
    #[error("the member {member:?} of the payload must be a number or a string that is not empty")]
    Invalid {
        /// The member that should be the key.
        member: String,
    },
}

/// Checks that a payload is a JSON object with an idempotency key. If the member occurs several times,
/// each of them must be a key: Phoenix uses the first one (`wire/malformed_duplicate_keys`), and other
/// parsers the last.
pub(crate) fn check_key(payload: &Payload, member: &str) -> Result<(), KeyError> {
    let name = || member.to_owned();
    let text = payload.get().map_err(|_| KeyError::NotAnObject { member: name() })?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = reader.deserialize_map(Member(member));
    match (found, reader.end()) {
        (Ok(Some(true)), Ok(())) => Ok(()),
        (Ok(Some(false)), Ok(())) => Err(KeyError::Invalid { member: name() }),
        (Ok(None), Ok(())) => Err(KeyError::Missing { member: name() }),
        (Err(_), _) | (_, Err(_)) => Err(KeyError::NotAnObject { member: name() }),
    }
}

/// Reads an object. The result is whether all its members of this name are keys; `None` if it has none.
struct Member<'a>(&'a str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<bool>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<bool>, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            if name != self.0 {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let is_key = match map.next_value::<Value>()? {
                Value::String(key) => !key.is_empty(),
                Value::Number(_) => true,
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
            };
            found = Some(is_key && found != Some(false));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_a_number_or_a_string() {
        let check = |text: &'static str| check_key(&Payload::received_json(text), "id");
        let member = || "id".to_owned();
        for text in [
            r#"{"id":"a"}"#,
            r#"{"n":{"id":null},"id":7}"#,
            r#"{"id":0.5}"#,
            r#"{"id":100000000000000000000000}"#,
            r#"{"\u0069d":"a"}"#,
            r#"{"id":1,"id":"a"}"#,
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in ["{}", r#"{"ID":1}"#, r#"{"n":{"id":1}}"#, r#"{"x":"id"}"#] {
            assert_eq!(check(text), Err(KeyError::Missing { member: member() }), "{text}");
        }
        for text in [
            r#"{"id":""}"#,
            r#"{"id":null}"#,
            r#"{"id":true}"#,
            r#"{"id":[1]}"#,
            r#"{"id":{"a":1}}"#,
            r#"{"id":"","id":"the server uses the first"}"#,
            r#"{"id":1,"id":null}"#,
        ] {
            assert_eq!(check(text), Err(KeyError::Invalid { member: member() }), "{text}");
        }
        for text in ["[1]", "7", r#""id""#, "null", "", "{", r#"{"id":1}x"#, r#"{"id":1"#] {
            assert_eq!(check(text), Err(KeyError::NotAnObject { member: member() }), "{text}");
        }
        let binary = Payload::binary(r#"{"id":1}"#);
        assert_eq!(check_key(&binary, "id"), Err(KeyError::NotAnObject { member: member() }));
    }
}
