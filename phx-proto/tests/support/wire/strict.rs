//! An independent, strict parser of whole text frames with `serde_json`: slow, and evidently correct.
//!
//! The decoders scan the envelope and do not parse the payload. After each part of their result is
//! parsed strictly, the result must equal that of this parser, and must be an error if this parser
//! returns one.

use std::fmt;

use phx_proto::wire::{Body, Incoming, WireRef};
use phx_proto::{Payload, Ref};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A message in which the payload is still text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub join_ref: WireRef,
    pub msg_ref: WireRef,
    pub topic: String,
    /// The event, or `phx_reply/` and the status.
    pub what: String,
    pub payload: String,
}

type Five = (Box<RawValue>, Box<RawValue>, String, String, Box<RawValue>);

/// A vsn 2.0.0 text frame: an array of exactly five members.
pub fn read_v2(frame: &[u8]) -> Option<Read> {
    let text = std::str::from_utf8(frame).ok()?;
    let (join_ref, msg_ref, topic, event, payload): Five = serde_json::from_str(text).ok()?;
    let (what, payload) = read_body(event, payload.get())?;
    let (join_ref, msg_ref) = (read_ref(join_ref.get())?, read_ref(msg_ref.get())?);
    Some(Read { join_ref, msg_ref, topic, what, payload })
}

/// A vsn 1.0.0 text frame: an object with topic, event and payload; refs may be missing.
pub fn read_v1(frame: &[u8]) -> Option<Read> {
    let text = std::str::from_utf8(frame).ok()?;
    let (mut join_ref, mut msg_ref) = (WireRef::Null, WireRef::Null);
    let (mut topic, mut event, mut payload) = (None, None, None);
    for (key, value) in serde_json::from_str::<Pairs>(text).ok()?.0 {
        match key.as_str() {
            "join_ref" => join_ref = read_ref(value.get())?,
            "ref" => msg_ref = read_ref(value.get())?,
            "topic" => topic = Some(read_string(value.get())?),
            "event" => event = Some(read_string(value.get())?),
            "payload" => payload = Some(value),
            _ => {}
        }
    }
    let (topic, event, payload) = (topic?, event?, payload?);
    let (what, payload) = read_body(event, payload.get())?;
    Some(Read { join_ref, msg_ref, topic, what, payload })
}

/// The result of a decoder, with its payload parsed strictly; `None` when that fails.
pub fn read_parts(message: &Incoming) -> Option<Read> {
    let (what, payload) = match &message.body {
        Body::Reply { status, response } => (format!("phx_reply/{status}"), response),
        Body::Event { event, payload } => (event.to_string(), payload),
    };
    let payload = strict_text(payload)?;
    let (join_ref, msg_ref) = (message.join_ref, message.msg_ref);
    Some(Read { join_ref, msg_ref, topic: message.topic.to_string(), what, payload })
}

/// The text of a payload that is one JSON value and nothing else.
fn strict_text(payload: &Payload) -> Option<String> {
    let text = payload.get().ok()?;
    let value: &RawValue = serde_json::from_str(text).ok()?;
    assert_eq!(value.get(), text, "no space around a payload");
    Some(text.to_owned())
}

fn read_body(event: String, payload: &str) -> Option<(String, String)> {
    if event != "phx_reply" {
        return Some((event, payload.to_owned()));
    }
    let members = serde_json::from_str::<Pairs>(payload).ok()?.0;
    let last = |name: &str| members.iter().rfind(|(key, _)| key == name);
    // If there are several statuses and the first member is one, it counts. Otherwise the last one
    // counts.
    let status = members.first().filter(|(key, _)| key == "status").or_else(|| last("status"));
    let status = read_string(status?.1.get())?;
    Some((format!("phx_reply/{status}"), last("response")?.1.get().to_owned()))
}

fn read_string(text: &str) -> Option<String> {
    serde_json::from_str(text).ok()
}

/// A ref of the client is a canonical decimal number, as a string or as a number.
fn read_ref(text: &str) -> Option<WireRef> {
    if text == "null" {
        return Some(WireRef::Null);
    }
    let inner = if text.starts_with('"') { read_string(text)? } else { text.to_owned() };
    let number = inner.parse::<u64>().ok();
    let number = number.filter(|number| *number > 0 && number.to_string() == inner);
    Some(number.map_or(WireRef::Foreign, |number| WireRef::Ref(Ref::from_u64(number))))
}

/// The members of an object in their order, with repeated ones.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
