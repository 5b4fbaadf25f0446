//! vsn 2.0.0 as binary frames, for binary payloads.
//!
//! ```text
//!   client push     0, |join_ref|, |ref|, |topic|, |event|,  join_ref, ref, topic, event, data
//!   server push     0, |join_ref|, |topic|, |event|,         join_ref, topic, event, data
//!   server reply    1, |join_ref|, |ref|, |topic|, |status|, join_ref, ref, topic, status, data
//!   broadcast       2, |topic|, |event|,                     topic, event, data
//! ```
//!
//! Lengths are one byte each and count bytes. The two kinds of push differ: the server's has no
//! ref (`wire/binary_echo`, `wire/broadcast_binary`). An empty join_ref is a string to the server
//! and makes it drop the push (`wire/binary_empty_refs`), so a client always sends one.

use bytes::Bytes;

use super::{Body, ByteStr, DecodeError, DecodeProblem, EncodeError, Message, Outgoing, WireRef};
use crate::payload::Payload;

const PUSH: u8 = 0;
const REPLY: u8 = 1;
const BROADCAST: u8 = 2;

pub(super) fn decode(frame: &Bytes) -> Result<Message, DecodeError> {
    let Some(&kind) = frame.first() else {
        return Err(DecodeError::new(DecodeProblem::Truncated { field: "kind" }, 0, frame));
    };
    match kind {
        PUSH => {
            let mut fields = Fields::new(frame, 3)?;
            let join_ref = wire_ref(&fields.next("join_ref")?);
            let topic = fields.text("topic")?;
            let event = fields.text("event")?;
            let body = Body::Event { event, payload: fields.rest() };
            Ok(Message { join_ref, msg_ref: WireRef::Null, topic, body })
        }
        REPLY => {
            let mut fields = Fields::new(frame, 4)?;
            let join_ref = wire_ref(&fields.next("join_ref")?);
            let msg_ref = wire_ref(&fields.next("ref")?);
            let topic = fields.text("topic")?;
            let status = fields.text("status")?;
            let body = Body::Reply { status, response: fields.rest() };
            Ok(Message { join_ref, msg_ref, topic, body })
        }
        BROADCAST => {
            let mut fields = Fields::new(frame, 2)?;
            let topic = fields.text("topic")?;
            let event = fields.text("event")?;
            let body = Body::Event { event, payload: fields.rest() };
            Ok(Message { join_ref: WireRef::Null, msg_ref: WireRef::Null, topic, body })
        }
        _ => Err(DecodeError::new(DecodeProblem::UnknownKind { kind }, 0, frame)),
    }
}

pub(super) fn encode(message: &Outgoing<'_>) -> Result<Bytes, EncodeError> {
    let join_ref = message.join_ref.map(|join_ref| join_ref.to_string()).unwrap_or_default();
    let msg_ref = message.msg_ref.to_string();
    let fields = [
        ("join_ref", join_ref.as_str()),
        ("ref", msg_ref.as_str()),
        ("topic", message.topic),
        ("event", message.event),
    ];
    let header: usize = fields.iter().map(|(_, value)| 1 + value.len()).sum();
    let mut frame = Vec::with_capacity(1 + header + message.payload.len());
    frame.push(PUSH);
    for (field, value) in fields {
        frame.push(field_len(field, value)?);
    }
    for (_, value) in fields {
        frame.extend_from_slice(value.as_bytes());
    }
    frame.extend_from_slice(message.payload.as_bytes());
    Ok(Bytes::from(frame))
}

pub(super) fn check(topic: &str, event: &str) -> Result<(), EncodeError> {
    field_len("topic", topic)?;
    field_len("event", event)?;
    Ok(())
}

fn field_len(field: &'static str, value: &str) -> Result<u8, EncodeError> {
    let len = value.len();
    u8::try_from(len).map_err(|_| EncodeError::FieldTooLong { field, len })
}

fn wire_ref(bytes: &[u8]) -> WireRef {
    if bytes.is_empty() { WireRef::Null } else { WireRef::parse(bytes) }
}

/// The fields behind the lengths, one after another.
struct Fields<'a> {
    frame: &'a Bytes,
    lengths: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn new(frame: &'a Bytes, count: usize) -> Result<Self, DecodeError> {
        let Some(lengths) = frame.get(1..=count) else {
            let problem = DecodeProblem::Truncated { field: "header" };
            return Err(DecodeError::new(problem, frame.len(), frame));
        };
        Ok(Self { frame, lengths, at: 1 + count })
    }

    fn next(&mut self, field: &'static str) -> Result<Bytes, DecodeError> {
        let (len, lengths) = self.lengths.split_first().unwrap_or((&0, &[]));
        let end = self.at + usize::from(*len);
        if end > self.frame.len() {
            let problem = DecodeProblem::Truncated { field };
            return Err(DecodeError::new(problem, self.frame.len(), self.frame));
        }
        let found = self.frame.slice(self.at..end);
        self.lengths = lengths;
        self.at = end;
        Ok(found)
    }

    fn text(&mut self, field: &'static str) -> Result<ByteStr, DecodeError> {
        let at = self.at;
        ByteStr::new(self.next(field)?)
            .map_err(|_| DecodeError::new(DecodeProblem::NotUtf8 { field }, at, self.frame))
    }

    fn rest(&self) -> Payload {
        Payload::binary(self.frame.slice(self.at..))
    }
}
