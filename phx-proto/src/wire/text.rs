//! vsn 2.0.0 as text: `[join_ref, ref, topic, event, payload]`.
//!
//! Only the envelope is scanned. The payload is what stands between the fourth comma and the
//! closing bracket, untouched, so decoding costs the same whatever its size. A reply is looked
//! into as far as its `status` and the extent of its `response`.

use std::io::{self, Write};

use bytes::Bytes;

use super::digits::Digits;
use super::scan::{Scanner, is_space};
use super::{Body, DecodeError, Message, Outgoing};
use crate::id::Ref;
use crate::payload::{HEADROOM, Payload};

pub(super) fn decode(frame: &Bytes) -> Result<Message, DecodeError> {
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
    Ok(Message { join_ref, msg_ref, topic, body })
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
    scanner.take(b'{', "a reply with status and response")?;
    if scanner.peek() == Some(b'}') {
        return scanner.expected("a status in the reply");
    }
    loop {
        // Of several equal keys the last counts, as it does for JSON.parse.
        match scanner.member(["status", "response"], "a key of the reply")? {
            Some("status") => status = Some(scanner.status()?),
            Some(_) => {
                if let Some(replaced) = response.replace(scanner.value("a response")?) {
                    scanner.check_json(&replaced, "a response")?;
                }
            }
            None => {
                let ignored = scanner.value("a value in the reply")?;
                scanner.check_json(&ignored, "a value in the reply")?;
            }
        }
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
            Ok(Body::Reply { status, response: Payload::unparsed(response) })
        }
        (None, _) => scanner.expected("a status in the reply"),
        (_, None) => scanner.expected("a response in the reply"),
    }
}

pub(super) fn encode(message: Outgoing<'_>) -> Bytes {
    let Outgoing { join_ref, msg_ref, topic, event, payload } = message;
    // A common envelope fits where it will be written; a longer one takes an allocation.
    let mut short = [0; HEADROOM];
    let mut rest = &mut short[..];
    if write_front(&mut rest, join_ref, msg_ref, topic, event).is_ok() {
        let len = HEADROOM - rest.len();
        return payload.enclose(&short[..len], b']');
    }
    let mut front = Vec::with_capacity(max_envelope_len(topic, event));
    // Writing to memory that grows does not fail.
    let _ = write_front(&mut front, join_ref, msg_ref, topic, event);
    payload.enclose(&front, b']')
}

fn write_front(
    out: &mut impl Write,
    join_ref: Option<Ref>,
    msg_ref: Ref,
    topic: &str,
    event: &str,
) -> io::Result<()> {
    out.write_all(b"[")?;
    match join_ref {
        Some(join_ref) => write_ref(out, join_ref)?,
        None => out.write_all(b"null")?,
    }
    out.write_all(b",")?;
    write_ref(out, msg_ref)?;
    out.write_all(b",")?;
    write_string(out, topic)?;
    out.write_all(b",")?;
    write_string(out, event)?;
    out.write_all(b",")
}

/// Two refs of 20 digits, the punctuation, and strings in which every byte may need an escape.
pub(super) fn max_envelope_len(topic: &str, event: &str) -> usize {
    const FIXED: usize = 2 * (20 + 2) + 2 * 2 + 4 + 2;
    FIXED + escaped_len(topic) + escaped_len(event)
}

pub(super) fn escaped_len(text: &str) -> usize {
    let plain = text.bytes().take_while(|byte| !needs_escape(*byte)).count();
    let escaped = text.as_bytes()[plain..].iter().map(|byte| match byte {
        b'"' | b'\\' => 2,
        0..=0x1f => 6,
        _ => 1,
    });
    plain + escaped.sum::<usize>()
}

pub(super) fn write_ref(out: &mut impl Write, msg_ref: Ref) -> io::Result<()> {
    let mut digits = [0; Digits::MAX];
    out.write_all(b"\"")?;
    out.write_all(Digits::of(msg_ref.as_u64(), &mut digits))?;
    out.write_all(b"\"")
}

pub(super) fn write_string(out: &mut impl Write, text: &str) -> io::Result<()> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.write_all(b"\"")?;
    let mut rest = text.as_bytes();
    loop {
        let plain = rest.iter().take_while(|byte| !needs_escape(**byte)).count();
        out.write_all(&rest[..plain])?;
        match rest.get(plain) {
            None => break,
            Some(byte @ (b'"' | b'\\')) => out.write_all(&[b'\\', *byte])?,
            Some(byte) => {
                let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                out.write_all(&[b'\\', b'u', b'0', b'0', HEX[high], HEX[low]])?;
            }
        }
        rest = &rest[plain + 1..];
    }
    out.write_all(b"\"")
}

const fn needs_escape(byte: u8) -> bool {
    const ESCAPE: [bool; 256] = {
        let mut escape = [false; 256];
        let mut byte = 0;
        while byte < 0x20 {
            escape[byte] = true;
            byte += 1;
        }
        escape[b'"' as usize] = true;
        escape[b'\\' as usize] = true;
        escape
    };
    ESCAPE[byte as usize]
}
