//! vsn 2.0.0 as text in the one form that Phoenix servers write, read in one pass.
//!
//! ```text
//!   [null,null,"topic","event",PAYLOAD]          refs: null or "27"; names: ASCII, no escapes
//!   {"status":"ok","response":RESPONSE}          a reply, "ok" or "error", in the order of the
//!   {"response":RESPONSE,"status":"ok"}          keys that the server's OTP has
//! ```
//!
//! Anything else, such as a space or an escape, is nothing to this reader, which then answers
//! `None`: the scanner of [`text`](super::text) reads all of JSON and decides.
//!
//! The response of a reply is found by what stands on both sides of it, without a look at it, so
//! the cost does not grow with it. No Phoenix writes further members behind it; should there be
//! any, they are part of what is found here, and [`Payload`] tells them apart when it is read.

use bytes::Bytes;

use super::simple::simple_len;
use super::{Body, ByteStr, Incoming, WireRef};
use crate::id::Ref;
use crate::wire::payload::Payload;

/// Reads a whole message.
#[inline]
pub(super) fn decode(frame: &Bytes) -> Option<Incoming> {
    let bytes = &frame[..];
    let (join_ref, rest) = wire_ref(bytes.strip_prefix(b"[")?)?;
    let (msg_ref, rest) = wire_ref(rest)?;
    let rest = rest.strip_prefix(b"\"")?;
    let topic_at = bytes.len() - rest.len();
    let topic_len = simple_len(rest);
    let rest = rest[topic_len..].strip_prefix(b"\",\"")?;
    let event_at = bytes.len() - rest.len();
    let event_len = simple_len(rest);
    let (event, rest) = rest.split_at(event_len);
    let payload = rest.strip_prefix(b"\",")?.strip_suffix(b"]")?;
    // Without space around it, it begins and ends where it stands.
    let (first, last) = (payload.first()?, payload.last()?);
    if *first <= b' ' || *last <= b' ' {
        return None;
    }
    let start = event_at + event_len + 2;
    let body = if event == b"phx_reply" {
        reply(frame, start, payload)?
    } else {
        let event = ByteStr::ascii(frame.slice(event_at..event_at + event_len));
        Body::Event { event, payload: Payload::unparsed(frame.slice(start..bytes.len() - 1)) }
    };
    let topic = ByteStr::ascii(frame.slice(topic_at..topic_at + topic_len));
    Some(Incoming { join_ref, msg_ref, topic, body })
}

/// Takes a ref and the comma behind it: null, or the decimal digits that this client sends.
#[inline]
fn wire_ref(bytes: &[u8]) -> Option<(WireRef, &[u8])> {
    if let Some(rest) = bytes.strip_prefix(b"null,") {
        return Some((WireRef::Null, rest));
    }
    let [b'"', first @ b'1'..=b'9', rest @ ..] = bytes else { return None };
    let (mut number, mut rest) = (u64::from(first - b'0'), rest);
    while let [digit @ b'0'..=b'9', behind @ ..] = rest {
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        rest = behind;
    }
    // Nineteen digits always fit into 64 bits; longer ones are rare.
    if bytes.len() - rest.len() > 1 + 19 {
        return None;
    }
    Some((WireRef::Ref(Ref(number)), rest.strip_prefix(b"\",")?))
}

/// Reads a reply, which is the payload at `start` of the frame.
///
/// A status at the very end is a member of the reply itself, as the last brace closes the reply
/// and a quote inside of a string has a backslash before it. Of several statuses the one in front
/// counts, else the last one, so the response need not be searched for others; the scanner of
/// [`text`](super::text) follows the same rule.
#[inline]
fn reply(frame: &Bytes, start: usize, payload: &[u8]) -> Option<Body> {
    let (status, rest, end) = if let Some(rest) = payload.strip_prefix(b"{\"response\":") {
        if rest.ends_with(b",\"status\":\"ok\"}") {
            ("ok", rest, b",\"status\":\"ok\"}".len())
        } else if rest.ends_with(b",\"status\":\"error\"}") {
            ("error", rest, b",\"status\":\"error\"}".len())
        } else {
            return None;
        }
    } else {
        let (status, rest) = match payload.strip_prefix(b"{\"status\":\"ok\",\"response\":") {
            Some(rest) => ("ok", rest),
            None => ("error", payload.strip_prefix(b"{\"status\":\"error\",\"response\":")?),
        };
        // The status in front counts, whatever follows.
        if rest.last() != Some(&b'}') {
            return None;
        }
        (status, rest, 1)
    };
    let response = rest.get(..rest.len() - end)?;
    let (first, last) = (response.first()?, response.last()?);
    if *first <= b' ' || *last <= b' ' {
        return None;
    }
    let start = start + payload.len() - rest.len();
    let response = Payload::member(frame.slice(start..start + response.len()));
    Some(Body::Reply { status: ByteStr::from_static(status), response })
}
