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

use core::ops::Range;

use bytes::Bytes;

use super::digits::Digits;
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
            let join_ref = fields.wire_ref("join_ref")?;
            let topic = fields.text("topic")?;
            let event = fields.text("event")?;
            let body = Body::Event { event, payload: fields.rest() };
            Ok(Message { join_ref, msg_ref: WireRef::Null, topic, body })
        }
        REPLY => {
            let mut fields = Fields::new(frame, 4)?;
            let join_ref = fields.wire_ref("join_ref")?;
            let msg_ref = fields.wire_ref("ref")?;
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
    let (mut join_digits, mut msg_digits) = ([0; Digits::MAX], [0; Digits::MAX]);
    let join_ref = match message.join_ref {
        Some(join_ref) => Digits::of(join_ref.as_u64(), &mut join_digits),
        None => &[],
    };
    let fields = [
        ("join_ref", join_ref),
        ("ref", Digits::of(message.msg_ref.as_u64(), &mut msg_digits)),
        ("topic", message.topic.as_bytes()),
        ("event", message.event.as_bytes()),
    ];
    let header: usize = fields.iter().map(|(_, value)| 1 + value.len()).sum();
    let mut frame = Vec::with_capacity(1 + header + message.payload.len());
    frame.push(PUSH);
    for (field, value) in fields {
        frame.push(field_len(field, value.len())?);
    }
    for (_, value) in fields {
        frame.extend_from_slice(value);
    }
    frame.extend_from_slice(message.payload.as_bytes());
    Ok(Bytes::from(frame))
}

pub(super) fn check(topic: &str, event: &str) -> Result<(), EncodeError> {
    field_len("topic", topic.len())?;
    field_len("event", event.len())?;
    Ok(())
}

fn field_len(field: &'static str, len: usize) -> Result<u8, EncodeError> {
    u8::try_from(len).map_err(|_| EncodeError::FieldTooLong { field, len })
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

    #[inline]
    fn next(&mut self, field: &'static str) -> Result<Range<usize>, DecodeError> {
        let (len, lengths) = self.lengths.split_first().unwrap_or((&0, &[]));
        let end = self.at + usize::from(*len);
        if end > self.frame.len() {
            let problem = DecodeProblem::Truncated { field };
            return Err(DecodeError::new(problem, self.frame.len(), self.frame));
        }
        let found = self.at..end;
        self.lengths = lengths;
        self.at = end;
        Ok(found)
    }

    #[inline]
    fn wire_ref(&mut self, field: &'static str) -> Result<WireRef, DecodeError> {
        let found = &self.frame[self.next(field)?];
        Ok(if found.is_empty() { WireRef::Null } else { WireRef::parse(found) })
    }

    #[inline]
    fn text(&mut self, field: &'static str) -> Result<ByteStr, DecodeError> {
        let at = self.at;
        let found = self.next(field)?;
        ByteStr::new(self.frame.slice(found))
            .map_err(|_| DecodeError::new(DecodeProblem::NotUtf8 { field }, at, self.frame))
    }

    fn rest(&self) -> Payload {
        Payload::binary(self.frame.slice(self.at..))
    }
}
