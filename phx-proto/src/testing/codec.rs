//! The serializers of the test server, for the arrays and binary frames of v2 and the objects of
//! v1.
//!
//! The module shares no code with [`crate::wire`], so that a mistake in one is found by the other.
//! It uses [`serde_json::Value`], because the server echoes refs and topics of any JSON type
//! (`wire/malformed_topic_number_join`).

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value, json};

use crate::wire::Frame;
use crate::wire::raw::members;

/// The serializer that a socket selected with `vsn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vsn {
    /// `1.0.0`: objects, no binary.
    V1,
    /// `2.0.0`: arrays and binary frames.
    V2,
}

/// A JSON or a binary payload.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Json(Value),
    Binary(Vec<u8>),
}

/// A message of the client. Members that the server only echoes stay JSON values.
#[derive(Clone, Debug)]
pub(super) struct Inbound {
    pub(super) join_ref: Value,
    pub(super) msg_ref: Value,
    pub(super) topic: Value,
    pub(super) event: Value,
    pub(super) payload: Payload,
}

/// The reason why a frame of the client is invalid. It determines the close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecodeFault {
    /// The serializer raised.
    Serializer,
    /// A text frame that is not UTF-8.
    NotUtf8,
}

/// The serializer cannot encode the message; the channel that sent it crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EncodeFault;

impl DecodeFault {
    pub(super) fn close_code(self) -> u16 {
        match self {
            Self::Serializer => 1011,
            Self::NotUtf8 => 1007,
        }
    }
}

pub(super) fn decode(vsn: Vsn, frame: &Frame) -> Result<Inbound, DecodeFault> {
    match (vsn, frame) {
        (Vsn::V1, Frame::Text(bytes)) => decode_object(parse(bytes)?),
        (Vsn::V2, Frame::Text(bytes)) => decode_array(parse(bytes)?),
        (Vsn::V2, Frame::Binary(bytes)) => decode_binary(bytes),
        // wire/v1_binary
        (Vsn::V1, Frame::Binary(_)) => Err(DecodeFault::Serializer),
    }
}

/// Encodes a `phx_reply`.
pub(super) fn encode_reply(
    vsn: Vsn,
    join_ref: &Value,
    msg_ref: &Value,
    topic: &Value,
    status: &str,
    response: &Payload,
) -> Result<Frame, EncodeFault> {
    match response {
        Payload::Json(response) => {
            let payload = json!({ "response": response, "status": status });
            Ok(text(vsn, join_ref, msg_ref, topic, "phx_reply", &payload))
        }
        Payload::Binary(data) => {
            let (join_ref, msg_ref) = (ref_text(join_ref)?, ref_text(msg_ref)?);
            binary(vsn, 1, &[&join_ref, &msg_ref, topic_text(topic)?, status], data)
        }
    }
}

/// Encodes a message from a channel to its own client.
pub(super) fn encode_push(
    vsn: Vsn,
    join_ref: &Value,
    topic: &str,
    event: &str,
    payload: &Payload,
) -> Result<Frame, EncodeFault> {
    match payload {
        Payload::Json(payload) => {
            Ok(text(vsn, join_ref, &Value::Null, &Value::from(topic), event, payload))
        }
        Payload::Binary(data) => binary(vsn, 0, &[&ref_text(join_ref)?, topic, event], data),
    }
}

/// Encodes a message to every client on a topic.
pub(super) fn encode_broadcast(
    vsn: Vsn,
    topic: &str,
    event: &str,
    payload: &Payload,
) -> Result<Frame, EncodeFault> {
    match payload {
        Payload::Json(payload) => {
            Ok(text(vsn, &Value::Null, &Value::Null, &Value::from(topic), event, payload))
        }
        Payload::Binary(data) => binary(vsn, 2, &[topic, event], data),
    }
}

/// Encodes `phx_close` or `phx_error`. Its ref repeats the join_ref (`wire/leave_ok`).
pub(super) fn encode_end(
    vsn: Vsn,
    join_ref: &Value,
    topic: &str,
    event: &str,
    payload: &Value,
) -> Frame {
    text(vsn, join_ref, join_ref, &Value::from(topic), event, payload)
}

fn text(
    vsn: Vsn,
    join_ref: &Value,
    msg_ref: &Value,
    topic: &Value,
    event: &str,
    payload: &Value,
) -> Frame {
    let mut message = match vsn {
        Vsn::V2 => json!([join_ref, msg_ref, topic, event, payload]),
        Vsn::V1 => json!({ "event": event, "payload": payload, "ref": msg_ref, "topic": topic }),
    };
    // Sorts the keys, because Elixir writes small maps in that order. The result does not depend on
    // the features of serde_json that other crates enable.
    message.sort_all_objects();
    Frame::Text(Bytes::from(message.to_string()))
}

/// Encodes a binary frame: the kind, one length byte for each part, the parts, the data. It fails
/// for a part of more than 255 bytes (`wire/binary_topic_too_long`), and in v1 (`wire/v1_binary`).
fn binary(vsn: Vsn, kind: u8, parts: &[&str], data: &[u8]) -> Result<Frame, EncodeFault> {
    if vsn == Vsn::V1 {
        return Err(EncodeFault);
    }
    let mut out = vec![kind];
    for part in parts {
        out.push(u8::try_from(part.len()).map_err(|_| EncodeFault)?);
    }
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(data);
    Ok(Frame::Binary(Bytes::from(out)))
}

/// The text of a ref in a binary frame: a number in decimal, null as an empty string
/// (`wire/binary_reply_to_text_join_ref_int`).
fn ref_text(value: &Value) -> Result<String, EncodeFault> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Array(_) | Value::Object(_) => Err(EncodeFault),
    }
}

fn topic_text(topic: &Value) -> Result<&str, EncodeFault> {
    topic.as_str().ok_or(EncodeFault)
}

fn decode_array(value: Value) -> Result<Inbound, DecodeFault> {
    let Value::Array(members) = value else { return Err(DecodeFault::Serializer) };
    // An array with more than five members is valid: wire/malformed_array6.
    let mut members = members.into_iter();
    let mut next = || members.next().ok_or(DecodeFault::Serializer);
    Ok(Inbound {
        join_ref: next()?,
        msg_ref: next()?,
        topic: next()?,
        event: next()?,
        payload: Payload::Json(next()?),
    })
}

/// Decodes an object of v1. All members except `join_ref` must be present, even if null
/// (`wire/v1_malformed`).
fn decode_object(value: Value) -> Result<Inbound, DecodeFault> {
    let Value::Object(mut members) = value else { return Err(DecodeFault::Serializer) };
    let join_ref = members.remove("join_ref").unwrap_or(Value::Null);
    let mut take = |name: &str| members.remove(name).ok_or(DecodeFault::Serializer);
    Ok(Inbound {
        join_ref,
        msg_ref: take("ref")?,
        topic: take("topic")?,
        event: take("event")?,
        payload: Payload::Json(take("payload")?),
    })
}

/// Decodes a push, the only kind that a client may send (`wire/malformed_binary_kind1`).
///
/// An event that is not UTF-8 reaches the channel and crashes it there, like any unknown event
/// (`wire/malformed_binary_bad_utf8_event`). The server could not repeat a ref or a topic that
/// is not UTF-8 in a reply, so such a frame counts as undecodable.
fn decode_binary(bytes: &[u8]) -> Result<Inbound, DecodeFault> {
    let [0, join_ref, msg_ref, topic, event, rest @ ..] = bytes else {
        return Err(DecodeFault::Serializer);
    };
    let (join_ref, rest) = split(rest, *join_ref)?;
    let (msg_ref, rest) = split(rest, *msg_ref)?;
    let (topic, rest) = split(rest, *topic)?;
    let (event, data) = split(rest, *event)?;
    let utf8 = |part: &[u8]| match core::str::from_utf8(part) {
        Ok(text) => Ok(Value::from(text)),
        Err(_) => Err(DecodeFault::Serializer),
    };
    Ok(Inbound {
        join_ref: utf8(join_ref)?,
        msg_ref: utf8(msg_ref)?,
        topic: utf8(topic)?,
        event: Value::from(String::from_utf8_lossy(event).into_owned()),
        payload: Payload::Binary(data.to_vec()),
    })
}

fn split(bytes: &[u8], len: u8) -> Result<(&[u8], &[u8]), DecodeFault> {
    bytes.split_at_checked(usize::from(len)).ok_or(DecodeFault::Serializer)
}

fn parse(bytes: &[u8]) -> Result<Value, DecodeFault> {
    let text = core::str::from_utf8(bytes).map_err(|_| DecodeFault::NotUtf8)?;
    // serde_json limits the nesting.
    let read = serde_json::from_str::<Value>(text);
    read.and_then(|_| serde_json::from_str::<&RawValue>(text.trim()))
        .map_err(|_| DecodeFault::Serializer)
        .and_then(json_of)
}

/// Converts a JSON value as the server's parser reads it: the first of several members with one
/// name is used (`wire/malformed_duplicate_keys`), and `-0` becomes `0` (`wire/malformed_numbers`).
fn json_of(raw: &RawValue) -> Result<Value, DecodeFault> {
    if let Ok(members) = members(raw) {
        let mut object = Map::new();
        for (name, raw) in members {
            let value = json_of(raw)?;
            object.entry(name).or_insert(value);
        }
        return Ok(Value::Object(object));
    }
    if let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) {
        return list.into_iter().map(json_of).collect();
    }
    match serde_json::from_str(raw.get()).map_err(|_| DecodeFault::Serializer)? {
        Value::Number(number) => number_of(&number),
        other => Ok(other),
    }
}

/// Converts a number of any length. A number with a fraction becomes a 64-bit float, as on the
/// server.
fn number_of(number: &Number) -> Result<Value, DecodeFault> {
    if let Some(number) = number.as_i64() {
        return Ok(Value::from(number));
    }
    if let Some(number) = number.as_u64() {
        return Ok(Value::from(number));
    }
    match number.as_f64() {
        Some(number) if number == 0.0 && number.is_sign_negative() => Ok(Value::from(0)),
        Some(number) => Number::from_f64(number).map(Value::Number).ok_or(DecodeFault::Serializer),
        None => Err(DecodeFault::Serializer),
    }
}
