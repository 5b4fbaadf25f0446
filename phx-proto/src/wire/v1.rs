//! vsn 1.0.0: `{"topic": …, "event": …, "payload": …, "ref": …}`, in any order.
//!
//! The server never sends a join_ref (`wire/v1_join_push_leave`); on `phx_close` and `phx_error` the
//! `ref` member is the join_ref that the client sent with its join, so this client sends one on every
//! frame. As with vsn 2 the payload is found, not parsed.

use std::io::{self, Write};

use bytes::Bytes;

use super::scan::Scanner;
use super::text::{decode_reply, escaped_len, write_ref, write_string};
use super::{Body, DecodeError, Message, Outgoing, WireRef};
use crate::id::Ref;
use crate::payload::Payload;

pub(super) fn decode(frame: &Bytes) -> Result<Message, DecodeError> {
    let mut scanner = Scanner::new(frame, 0, frame.len());
    let (mut join_ref, mut msg_ref) = (WireRef::Null, WireRef::Null);
    let (mut topic, mut event, mut payload) = (None, None, None);
    scanner.take(b'{', "an object with topic, event, payload and ref")?;
    loop {
        let key = scanner.string("a key of the message")?;
        scanner.take(b':', "a colon behind the key")?;
        match key.as_str() {
            "topic" => topic = Some(scanner.string("a topic")?),
            "event" => event = Some(scanner.string("an event")?),
            "ref" => msg_ref = scanner.wire_ref("a ref")?,
            "join_ref" => join_ref = scanner.wire_ref("a join_ref")?,
            "payload" => {
                scanner.peek();
                let start = scanner.at();
                let value = scanner.value("a payload")?;
                if let Some((_, replaced)) = payload.replace((start, value)) {
                    scanner.check_json(&replaced, "a payload")?;
                }
            }
            _ => {
                let ignored = scanner.value("a value in the message")?;
                scanner.check_json(&ignored, "a value in the message")?;
            }
        }
        match scanner.peek() {
            Some(b',') => scanner.take(b',', "a comma")?,
            _ => break,
        }
    }
    scanner.take(b'}', "the end of the message")?;
    if scanner.peek().is_some() {
        return scanner.expected("nothing behind the message");
    }
    let Some(topic) = topic else { return scanner.expected("a topic in the message") };
    let Some(event) = event else { return scanner.expected("an event in the message") };
    let Some((start, payload)) = payload else {
        return scanner.expected("a payload in the message");
    };
    let body = if event == *"phx_reply" {
        decode_reply(frame, start, start + payload.len())?
    } else {
        Body::Event { event, payload: Payload::unparsed(payload) }
    };
    Ok(Message { join_ref, msg_ref, topic, body })
}

pub(super) fn encode(message: Outgoing<'_>) -> Bytes {
    let Outgoing { join_ref, msg_ref, topic, event, payload } = message;
    let mut front = Vec::with_capacity(max_envelope_len(topic, event));
    // Writing to memory that grows does not fail.
    let _ = write_front(&mut front, join_ref, msg_ref, topic, event);
    payload.enclose(&front, b'}')
}

fn write_front(
    out: &mut impl Write,
    join_ref: Option<Ref>,
    msg_ref: Ref,
    topic: &str,
    event: &str,
) -> io::Result<()> {
    out.write_all(b"{")?;
    if let Some(join_ref) = join_ref {
        out.write_all(br#""join_ref":"#)?;
        write_ref(out, join_ref)?;
        out.write_all(b",")?;
    }
    out.write_all(br#""ref":"#)?;
    write_ref(out, msg_ref)?;
    out.write_all(br#","topic":"#)?;
    write_string(out, topic)?;
    out.write_all(br#","event":"#)?;
    write_string(out, event)?;
    out.write_all(br#","payload":"#)
}

/// Two refs of 20 digits, the names of the members, and strings with their escapes.
pub(super) fn max_envelope_len(topic: &str, event: &str) -> usize {
    const FIXED: usize =
        r#"{"join_ref":"","ref":"","topic":"","event":"","payload":}"#.len() + 2 * 20;
    FIXED + escaped_len(topic) + escaped_len(event)
}
