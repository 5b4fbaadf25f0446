//! The text frames of vsn 1.0.0: `{"topic": …, "event": …, "payload": …, "ref": …}`, in any order.
//!
//! The server never sends a join_ref (`wire/v1_join_push_leave`). In `phx_close` and `phx_error` the
//! `ref` member is the join_ref that the client sent with its join, so this client sends one in every
//! frame of a channel. As with vsn 2, the payload is not parsed.

use bytes::Bytes;

use super::front::{Front, digits_len, string_len};
use super::scan::{self, Expected};
use super::{Body, DecodeError, Incoming, Outgoing, WireRef};

pub(super) fn decode(frame: &Bytes) -> Result<Incoming, DecodeError> {
    scan::read(frame, |scanner| {
        // Protocol: V1-2.
        let (mut join_ref, mut msg_ref) = (WireRef::Null, WireRef::Null);
        let (mut topic, mut event, mut payload) = (None, None, None);
        scanner.take(b'{', "an object with topic, event, payload and ref")?;
        loop {
            match scanner.member(MEMBERS, "a key of the message")? {
                Some("topic") => topic = Some(scanner.string("a topic")?),
                Some("event") => event = Some(scanner.event()?),
                Some("ref") => msg_ref = scanner.wire_ref("a ref")?,
                Some("join_ref") => join_ref = scanner.wire_ref("a join_ref")?,
                Some("payload") => {
                    let value = scanner.value("a payload")?;
                    if let Some(replaced) = payload.replace(value) {
                        scanner.check(replaced, "a payload")?;
                    }
                }
                _ => {
                    scanner.ignored("a value in the message")?;
                }
            }
            if scanner.next_byte() != Some(b',') {
                break;
            }
            scanner.take(b',', "a comma")?;
        }
        scanner.take(b'}', "the end of the message")?;
        scanner.end("nothing after the message")?;
        let topic = topic.ok_or(Expected("a topic in the message"))?;
        let event = event.ok_or(Expected("an event in the message"))?;
        scanner.narrow(payload.ok_or(Expected("a payload in the message"))?);
        let body = match event {
            Some(event) => {
                Body::Event { event: scanner.byte_str(event), payload: scanner.payload() }
            }
            None => scanner.reply()?,
        };
        Ok(Incoming { join_ref, msg_ref, topic, body })
    })
}

const MEMBERS: [&str; 5] = ["topic", "event", "payload", "ref", "join_ref"];

pub(super) fn encode(message: Outgoing<'_>) -> Bytes {
    let Outgoing { join_ref, msg_ref, topic, event, payload } = message;
    let (topic_len, event_len) = (string_len(topic), string_len(event));
    let (join_len, ref_len) = (join_ref.map_or(0, digits_len), digits_len(msg_ref));
    let open = if join_ref.is_some() { OPEN_JOIN.len() + join_len + REF.len() } else { OPEN.len() };
    let len = open + ref_len + TOPIC.len() + topic_len + EVENT.len() + event_len + PAYLOAD.len();
    payload.enclose(
        len,
        |buffer| {
            let mut front = Front(buffer);
            if let Some(join_ref) = join_ref {
                // Protocol: V1-3.
                front.put(OPEN_JOIN);
                front.put_digits(join_ref, join_len);
                front.put(REF);
            } else {
                front.put(OPEN);
            }
            front.put_digits(msg_ref, ref_len);
            // Protocol: V1-1.
            front.put(TOPIC);
            front.put_string(topic, topic_len);
            front.put(EVENT);
            front.put_string(event, event_len);
            front.put(PAYLOAD);
        },
        b'}',
    )
}

const OPEN: &[u8] = br#"{"ref":""#;
const OPEN_JOIN: &[u8] = br#"{"join_ref":""#;
const REF: &[u8] = br#"","ref":""#;
const TOPIC: &[u8] = br#"","topic":""#;
const EVENT: &[u8] = br#"","event":""#;
const PAYLOAD: &[u8] = br#"","payload":"#;

/// The length of an envelope whose two refs have 20 digits.
pub(super) fn max_envelope_len(topic: &str, event: &str) -> usize {
    const FIXED: usize =
        r#"{"join_ref":"","ref":"","topic":"","event":"","payload":}"#.len() + 2 * 20;
    FIXED + string_len(topic) + string_len(event)
}
