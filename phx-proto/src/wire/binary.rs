//! The binary frames of vsn 2.0.0, which carry binary payloads.
//!
//! ```text
//!   client push     0, |join_ref|, |ref|, |topic|, |event|,  join_ref, ref, topic, event, data
//!   server push     0, |join_ref|, |topic|, |event|,         join_ref, topic, event, data
//!   server reply    1, |join_ref|, |ref|, |topic|, |status|, join_ref, ref, topic, status, data
//!   broadcast       2, |topic|, |event|,                     topic, event, data
//! ```
//!
//! A length, such as `|topic|`, is one byte and counts bytes. A push from the server has no ref, unlike
//! one from the client (`wire/binary_echo`, `wire/broadcast_binary`). The server reads an empty
//! join_ref as an empty string and, since Phoenix 1.8.3, drops the push (`wire/binary_empty_refs`), so a
//! client always sends a join_ref.

use bytes::Bytes;

use super::front::{Front, digits_len};
use super::simple::is_ascii;
use super::{Body, ByteStr, DecodeError, DecodeProblem, EncodeError, Incoming, Outgoing, WireRef};
use crate::wire::payload::Payload;

const PUSH: u8 = 0;
const REPLY: u8 = 1;
const BROADCAST: u8 = 2;

pub(super) fn decode(frame: &Bytes) -> Result<Incoming, DecodeError> {
    match frame[..] {
        // Protocol: BIN-2.
        [PUSH, join_ref, topic, event, ..] => {
            let topic_at = 4 + usize::from(join_ref);
            let event_at = topic_at + usize::from(topic);
            let data_at = event_at + usize::from(event);
            if data_at > frame.len() {
                let ends = [("join_ref", topic_at), ("topic", event_at), ("event", data_at)];
                return truncated(frame, &ends);
            }
            let (topic, event, payload) = named(frame, "event", topic_at, event_at, data_at)?;
            let (join_ref, body) = (wire_ref(&frame[4..topic_at]), Body::Event { event, payload });
            Ok(Incoming { join_ref, msg_ref: WireRef::Null, topic, body })
        }
        // Protocol: BIN-3.
        [REPLY, join_ref, msg_ref, topic, status, ..] => {
            let ref_at = 5 + usize::from(join_ref);
            let topic_at = ref_at + usize::from(msg_ref);
            let status_at = topic_at + usize::from(topic);
            let data_at = status_at + usize::from(status);
            if data_at > frame.len() {
                let refs = [("join_ref", ref_at), ("ref", topic_at)];
                return truncated(
                    frame,
                    &[refs[0], refs[1], ("topic", status_at), ("status", data_at)],
                );
            }
            let (topic, status, response) = named(frame, "status", topic_at, status_at, data_at)?;
            let join_ref = wire_ref(&frame[5..ref_at]);
            let msg_ref = wire_ref(&frame[ref_at..topic_at]);
            Ok(Incoming { join_ref, msg_ref, topic, body: Body::Reply { status, response } })
        }
        // Protocol: BIN-4.
        [BROADCAST, topic, event, ..] => {
            let event_at = 3 + usize::from(topic);
            let data_at = event_at + usize::from(event);
            if data_at > frame.len() {
                return truncated(frame, &[("topic", event_at), ("event", data_at)]);
            }
            let (topic, event, payload) = named(frame, "event", 3, event_at, data_at)?;
            let body = Body::Event { event, payload };
            Ok(Incoming { join_ref: WireRef::Null, msg_ref: WireRef::Null, topic, body })
        }
        [PUSH | REPLY | BROADCAST, ..] => truncated(frame, &[("header", usize::MAX)]),
        [kind, ..] => Err(DecodeError::new(DecodeProblem::UnknownKind { kind }, 0, frame)),
        [] => truncated(frame, &[("kind", 1)]),
    }
}

#[inline]
fn wire_ref(text: &[u8]) -> WireRef {
    // Protocol: BIN-9.
    if text.is_empty() { WireRef::Null } else { WireRef::parse(text) }
}

/// Splits off the topic, the event or status after it, and the data.
#[inline(always)]
fn named(
    frame: &Bytes,
    field: &'static str,
    topic_at: usize,
    name_at: usize,
    data_at: usize,
) -> Result<(ByteStr, ByteStr, Payload), DecodeError> {
    // Protocol: BIN-5.
    let data = Payload::binary_shared(frame.slice(data_at..));
    if !is_ascii(&frame[topic_at..data_at]) {
        for (field, at, end) in [("topic", topic_at, name_at), (field, name_at, data_at)] {
            core::str::from_utf8(&frame[at..end])
                .map_err(|_| DecodeError::new(DecodeProblem::NotUtf8 { field }, at, frame))?;
        }
    }
    let topic = ByteStr::part(frame, topic_at..name_at);
    Ok((topic, ByteStr::part(frame, name_at..data_at), data))
}

/// Returns the error for the field inside which the frame ended. `ends` has the end of each field.
#[cold]
fn truncated<T>(frame: &Bytes, ends: &[(&'static str, usize)]) -> Result<T, DecodeError> {
    let cut = ends.iter().find(|(_, end)| *end > frame.len());
    let problem = DecodeProblem::Truncated { field: cut.map_or("header", |(field, _)| field) };
    Err(DecodeError::new(problem, frame.len(), frame))
}

pub(super) fn encode(message: Outgoing<'_>) -> Result<Bytes, EncodeError> {
    let Outgoing { join_ref, msg_ref, topic, event, payload } = message;
    let (join_len, ref_len) = (join_ref.map_or(0, digits_len), digits_len(msg_ref));
    // Protocol: BIN-1, BIN-7.
    let lengths = [
        PUSH,
        join_len as u8,
        ref_len as u8,
        field_len("topic", topic.len())?,
        field_len("event", event.len())?,
    ];
    let len = lengths.len() + join_len + ref_len + topic.len() + event.len();
    Ok(payload.enclose(
        len,
        |buffer| {
            let mut front = Front(buffer);
            front.put(&lengths);
            if let Some(join_ref) = join_ref {
                front.put_digits(join_ref, join_len);
            }
            front.put_digits(msg_ref, ref_len);
            front.put(topic.as_bytes());
            front.put(event.as_bytes());
        },
        b']',
    ))
}

pub(super) fn check(topic: &str, event: &str) -> Result<(), EncodeError> {
    field_len("topic", topic.len())?;
    field_len("event", event.len())?;
    Ok(())
}

fn field_len(field: &'static str, len: usize) -> Result<u8, EncodeError> {
    // Protocol: BIN-6.
    u8::try_from(len).map_err(|_| EncodeError::FieldTooLong { field, len })
}
