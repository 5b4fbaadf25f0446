//! The text frames of vsn 2.0.0: `[join_ref, ref, topic, event, payload]`.
//!
//! Only the envelope is scanned. The payload is the text between the fourth comma and the closing
//! bracket, so the cost of decoding does not depend on its size.

use bytes::Bytes;

use super::front::{Front, digits_len, string_len};
use super::scan;
use super::{Body, DecodeError, Incoming, Outgoing};

#[inline(always)]
pub(super) fn decode(frame: &Bytes) -> Result<Incoming, DecodeError> {
    scan::read(frame, |scanner| {
        scanner.take(b'[', "an array of five members")?;
        let join_ref = scanner.wire_ref("a join_ref")?;
        scanner.take(b',', "a comma after the join_ref")?;
        let msg_ref = scanner.wire_ref("a ref")?;
        scanner.take(b',', "a comma after the ref")?;
        let topic = scanner.text("a topic")?;
        scanner.take(b',', "a comma after the topic")?;
        let event = scanner.event()?;
        scanner.take(b',', "a comma after the event")?;
        scanner.narrow_to_last("a payload and the end of the array")?;
        let body = match event {
            Some(event) => {
                Body::Event { event: scanner.byte_str(event), payload: scanner.payload() }
            }
            None => scanner.reply()?,
        };
        let topic = scanner.byte_str(topic);
        Ok(Incoming { join_ref, msg_ref, topic, body })
    })
}

#[inline(always)]
pub(super) fn encode(message: Outgoing<'_>) -> Bytes {
    let Outgoing { join_ref, msg_ref, topic, event, payload } = message;
    let (topic_len, event_len) = (string_len(topic), string_len(event));
    let (join_len, ref_len) = (join_ref.map_or(0, digits_len), digits_len(msg_ref));
    // Protocol: MSG-1, MSG-4, REF-4.
    let open = if join_ref.is_some() { OPEN } else { OPEN_NULL };
    let refs = open.len() + join_len + if join_ref.is_some() { NEXT.len() } else { 0 } + ref_len;
    let len = refs + 2 * NEXT.len() + topic_len + event_len + LAST.len();
    payload.enclose(
        len,
        |buffer| {
            let mut front = Front(buffer);
            if let Some(join_ref) = join_ref {
                front.put(OPEN);
                front.put_digits(join_ref, join_len);
                front.put(NEXT);
            } else {
                front.put(OPEN_NULL);
            }
            front.put_digits(msg_ref, ref_len);
            front.put(NEXT);
            front.put_string(topic, topic_len);
            front.put(NEXT);
            front.put_string(event, event_len);
            front.put(LAST);
        },
        b']',
    )
}

const OPEN: &[u8] = b"[\"";
const OPEN_NULL: &[u8] = b"[null,\"";
const NEXT: &[u8] = b"\",\"";
const LAST: &[u8] = b"\",";

/// The length of an envelope whose two refs have 20 digits.
pub(super) fn max_envelope_len(topic: &str, event: &str) -> usize {
    const FIXED: usize = r#"["","","","",]"#.len() + 2 * 20;
    FIXED + string_len(topic) + string_len(event)
}
