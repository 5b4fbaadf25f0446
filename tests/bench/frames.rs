//! Payloads of a given size, and the WebSocket frames of a server.

use core::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The kind of a message's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Body {
    /// 64 bytes of JSON.
    Small,
    /// 1 KiB of JSON: a list of records.
    Records,
    /// 16 KiB of JSON: a list of records.
    ManyRecords,
    /// 16 KiB of JSON that is one string.
    LongString,
    /// 64 bytes that are not JSON.
    Binary,
    /// 1 KiB of JSON: a list of records whose values differ in each message.
    Readings,
}

impl Body {
    /// The payload with this number in the field that the consumer reads.
    pub(crate) fn payload(self, number: u64) -> Vec<u8> {
        match self {
            Self::Small => padded(format!(r#"{{"n":{number},"body":""#), 64).into_bytes(),
            Self::Records => records(number, 1_024).into_bytes(),
            Self::ManyRecords => records(number, 16 * 1_024).into_bytes(),
            Self::LongString => {
                padded(format!(r#"{{"n":{number},"body":""#), 16 * 1_024).into_bytes()
            }
            Self::Binary => {
                let mut bytes = number.to_be_bytes().to_vec();
                bytes.resize(64, b'x');
                bytes
            }
            Self::Readings => readings(number).into_bytes(),
        }
    }
}

fn padded(mut text: String, length: usize) -> String {
    while text.len() < length - 2 {
        text.push('x');
    }
    text.push_str("\"}");
    text
}

fn records(number: u64, length: usize) -> String {
    let mut text = String::from(r#"{"records":["#);
    for id in 0.. {
        if text.len() > length - 150 {
            break;
        }
        let _ = write!(
            text,
            r#"{{"id":{id},"name":"sensor-{id:04}","value":{}.25,"unit":"mbar","ok":true}},"#,
            id * 7 % 1_013
        );
    }
    text.pop();
    let _ = write!(text, r#"],"n":{number},"more":""#);
    padded(text, length)
}

/// 1 KiB of readings of sensors. Compression cannot replace them by a reference to an earlier message.
fn readings(number: u64) -> String {
    let mut state = number;
    let mut below = |limit: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    let mut text = String::from(r#"{"records":["#);
    while text.len() < 1_024 - 110 {
        let (id, sensor) = (below(100_000), below(10_000));
        let (value, unit) = (below(100_000), ["mbar", "C", "%"][below(3) as usize]);
        let _ = write!(
            text,
            r#"{{"id":{id},"name":"sensor-{sensor:04}","value":{value},"unit":"{unit}","ok":true}},"#,
        );
    }
    text.pop();
    let _ = write!(text, r#"],"n":{number}}}"#);
    text
}

/// The field of a JSON payload that a consumer reads.
#[derive(Debug, Deserialize)]
pub(crate) struct Numbered {
    pub(crate) n: u64,
}

/// The payload of a push to be echoed.
#[derive(Debug, Serialize)]
pub(crate) struct Echo<'a> {
    pub(crate) n: u64,
    pub(crate) body: &'a str,
}

/// Fills an echo up to 64 bytes.
pub(crate) const FILLER: &str = "abcdefghijklmnopqrstuvwxyzabcdefghijklmn";

/// A request for `count` messages from the server, in turns over the topics `room:0` and so on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Flood {
    pub(crate) count: u64,
    pub(crate) body: Body,
    pub(crate) topics: u64,
}

/// The topic with a number.
pub(crate) fn topic(number: u64) -> String {
    format!("room:{number}")
}

/// A broadcast, as the payload of a WebSocket message.
pub(crate) fn broadcast(body: Body, topic: &str, number: u64) -> Vec<u8> {
    let payload = body.payload(number);
    if body == Body::Binary {
        let head = [2, length_byte(topic.as_bytes()), 3];
        return [&head, topic.as_bytes(), b"msg", &payload].concat();
    }
    [format!(r#"[null,null,"{topic}","msg","#).as_bytes(), &payload, b"]"].concat()
}

/// A length that fits one byte, as the binary frames of Phoenix have it.
pub(crate) fn length_byte(bytes: &[u8]) -> u8 {
    u8::try_from(bytes.len()).expect("topics and refs of a benchmark are short")
}

/// Appends an unmasked frame, as a server sends it.
pub(crate) fn put_frame(out: &mut Vec<u8>, binary: bool, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(if binary { 0x82 } else { 0x81 });
    match length {
        0..=125 => out.push(length as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}
