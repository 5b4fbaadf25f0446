//! vsn 2.0.0 as text: `[join_ref, ref, topic, event, payload]`.
//!
//! Only the envelope is scanned. The payload is what stands between the fourth comma and the
//! closing bracket, untouched, so decoding costs the same whatever its size. What is not written
//! as [`compact`] expects it is read by the scanner here, which takes any JSON; of a reply it
//! reads the `status` and the extent of the `response`.

use bytes::Bytes;

use super::front::{Front, digits_len, string_len};
use super::scan::{Scanner, is_space};
use super::{Body, DecodeError, Incoming, Outgoing, compact};
use crate::wire::payload::Payload;

#[inline(always)]
pub(super) fn decode(frame: &Bytes) -> Result<Incoming, DecodeError> {
    match compact::decode(frame) {
        Some(message) => Ok(message),
        None => scan(frame),
    }
}

fn scan(frame: &Bytes) -> Result<Incoming, DecodeError> {
    let mut scanner = Scanner::new(frame, 0, frame.len());
    scanner.take(b'[', "an array of five members")?;
    let join_ref = scanner.wire_ref("a join_ref")?;
    scanner.take(b',', "a comma behind the join_ref")?;
    let msg_ref = scanner.wire_ref("a ref")?;
    scanner.take(b',', "a comma behind the ref")?;
    let topic = scanner.string("a topic")?;
    scanner.take(b',', "a comma behind the topic")?;
    let event = scanner.string("an event")?;
    scanner.take(b',', "a comma behind the event")?;
    scanner.peek();
    let start = scanner.at();
    let Some(end) = payload_end(frame, start) else {
        return scanner.expected("a payload and the end of the array");
    };
    let body = if event.as_bytes() == b"phx_reply" {
        decode_reply(frame, start, end)?
    } else {
        Body::Event { event, payload: Payload::unparsed(frame.slice(start..end)) }
    };
    Ok(Incoming { join_ref, msg_ref, topic, body })
}

/// Where the payload ends: before the last bracket and the space around it.
fn payload_end(frame: &[u8], start: usize) -> Option<usize> {
    let trim = |mut end: usize| {
        while end > start && is_space(frame[end - 1]) {
            end -= 1;
        }
        end
    };
    let end = trim(frame.len());
    if end <= start || frame[end - 1] != b']' {
        return None;
    }
    let end = trim(end - 1);
    (end > start).then_some(end)
}

pub(super) fn decode_reply(frame: &Bytes, start: usize, end: usize) -> Result<Body, DecodeError> {
    let mut scanner = Scanner::new(frame, start, end);
    let (mut status, mut response) = (None, None);
    let (mut is_first, mut status_is_first) = (true, false);
    scanner.take(b'{', "a reply with status and response")?;
    if scanner.peek() == Some(b'}') {
        return scanner.expected("a status in the reply");
    }
    loop {
        match scanner.member(["status", "response"], "a key of the reply")? {
            // Of several statuses the one in front counts, else the last one. No Phoenix writes
            // two; this is the rule that `compact` follows without a look at the response.
            Some("status") if is_first => {
                status = Some(Ok(scanner.status()?));
                status_is_first = true;
            }
            Some("status") if !status_is_first => {
                let read = scanner.status();
                if read.is_err() {
                    // Only the one that counts has to be a string.
                    let ignored = scanner.value("a status")?;
                    scanner.check_json(&ignored, "a status")?;
                }
                status = Some(read);
            }
            // Of several responses the last counts, as it does for JSON.parse.
            Some("response") => {
                if let Some(replaced) = response.replace(scanner.value("a response")?) {
                    scanner.check_json(&replaced, "a response")?;
                }
            }
            _ => {
                let ignored = scanner.value("a value in the reply")?;
                scanner.check_json(&ignored, "a value in the reply")?;
            }
        }
        is_first = false;
        match scanner.peek() {
            Some(b',') => scanner.take(b',', "a comma")?,
            _ => break,
        }
    }
    scanner.take(b'}', "the end of the reply")?;
    if scanner.peek().is_some() {
        return scanner.expected("the end of the array behind the reply");
    }
    match (status, response) {
        (Some(status), Some(response)) => {
            Ok(Body::Reply { status: status?, response: Payload::unparsed(response) })
        }
        (None, _) => scanner.expected("a status in the reply"),
        (_, None) => scanner.expected("a response in the reply"),
    }
}

#[inline(always)]
pub(super) fn encode(message: Outgoing<'_>) -> Bytes {
    let Outgoing { join_ref, msg_ref, topic, event, payload } = message;
    let (topic_len, event_len) = (string_len(topic), string_len(event));
    let (join_len, ref_len) = (join_ref.map_or(0, digits_len), digits_len(msg_ref));
    let open = if join_ref.is_some() { OPEN } else { OPEN_NULL };
    let refs = open.len() + join_len + if join_ref.is_some() { NEXT.len() } else { 0 } + ref_len;
    let len = refs + 2 * NEXT.len() + topic_len + event_len + LAST.len();
    payload.enclose(
        len,
        |room| {
            let mut front = Front(room);
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

/// Two refs of 20 digits, the strings, and the punctuation.
pub(super) fn max_envelope_len(topic: &str, event: &str) -> usize {
    const FIXED: usize = r#"["","","","",]"#.len() + 2 * 20;
    FIXED + string_len(topic) + string_len(event)
}
