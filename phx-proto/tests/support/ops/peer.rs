//! The server's end of the wire: the frames written to it, and the frames that it can send.

use bytes::Bytes;
use phx_proto::{ConnectionId, Frame, Time};
use serde_json::{Value, json};

/// A frame that the socket wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub conn: ConnectionId,
    pub at: Time,
    pub join_ref: Option<u64>,
    pub msg_ref: u64,
    pub topic: String,
    pub event: String,
    /// The number of a push, which is in its payload.
    pub number: Option<u64>,
    pub answered: bool,
}

impl Sent {
    pub fn is_join(&self) -> bool {
        self.event == "phx_join"
    }

    pub fn is_leave(&self) -> bool {
        self.event == "phx_leave"
    }

    pub fn is_heartbeat(&self) -> bool {
        self.topic == "phoenix"
    }

    /// Parses a frame as a server does. Panics if a server could not decode it.
    pub fn parse(conn: ConnectionId, at: Time, frame: &Frame, vsn_1: bool) -> Self {
        let (join_ref, msg_ref, topic, event, number) = match frame {
            Frame::Binary(bytes) => parse_binary(bytes),
            Frame::Text(bytes) => {
                let value: Value = serde_json::from_slice(bytes).expect("JSON");
                let part = |index: usize, name: &str| {
                    if vsn_1 { value[name].clone() } else { value[index].clone() }
                };
                let text = |part: &Value| part.as_str().expect("a string").to_owned();
                let join_ref = part(0, "join_ref").as_str().map(str::to_owned);
                let number = part(4, "payload")["n"].as_u64();
                (
                    join_ref,
                    text(&part(1, "ref")),
                    text(&part(2, "topic")),
                    text(&part(3, "event")),
                    number,
                )
            }
        };
        let number_of = |text: &str| {
            let number: u64 = text.parse().expect("a decimal ref");
            assert_eq!(number.to_string(), text, "canonical");
            number
        };
        let join_ref = join_ref.as_deref().map(number_of);
        let msg_ref = number_of(&msg_ref);
        Self { conn, at, join_ref, msg_ref, topic, event, number, answered: false }
    }
}

fn parse_binary(bytes: &[u8]) -> (Option<String>, String, String, String, Option<u64>) {
    assert_eq!(bytes[0], 0, "a push");
    let mut at = 5;
    let mut field = |index: usize| {
        let end = at + usize::from(bytes[index]);
        let text = std::str::from_utf8(&bytes[at..end]).expect("UTF-8").to_owned();
        at = end;
        text
    };
    let fields = (field(1), field(2), field(3), field(4));
    let number = bytes[at..].split(|byte| *byte == b' ').next().expect("a number");
    let number = std::str::from_utf8(number).expect("digits").parse().ok();
    (Some(fields.0), fields.1, fields.2, fields.3, number)
}

/// A message of the server as text.
pub fn message(
    vsn_1: bool,
    join_ref: &Value,
    msg_ref: &Value,
    topic: &str,
    event: &str,
    payload: &Value,
) -> Frame {
    let value = if vsn_1 {
        // In vsn 1 there is no join_ref. phx_close and phx_error have it as their ref.
        json!({"topic": topic, "event": event, "payload": payload, "ref": msg_ref})
    } else {
        json!([join_ref, msg_ref, topic, event, payload])
    };
    Frame::from(value.to_string())
}

/// A binary frame of the server.
pub fn binary(kind: u8, fields: &[&str]) -> Frame {
    let mut bytes = vec![kind];
    bytes.extend(fields.iter().map(|field| u8::try_from(field.len()).expect("a short field")));
    fields.iter().for_each(|field| bytes.extend_from_slice(field.as_bytes()));
    bytes.extend_from_slice(b"data");
    Frame::Binary(Bytes::from(bytes))
}

/// Frames outside the protocol; the last one exceeds the limit.
pub fn garbage(nth: u8, limit: usize) -> Frame {
    match nth % 8 {
        0 => Frame::from(""),
        1 => Frame::from("not json"),
        2 => Frame::from("[null,null,\"room:0\"]"),
        3 => Frame::from("[null,null,\"room:0\",\"phx_reply\",{\"status\":1}]"),
        4 => Frame::Text(Bytes::from_static(b"[null,null,\"\xff\",\"e\",{}]")),
        5 => Frame::Binary(Bytes::new()),
        6 => Frame::Binary(Bytes::from_static(&[1, 200, 3, 4, 5, 6])),
        _ => Frame::Binary(Bytes::from(vec![2; limit + 1])),
    }
}
