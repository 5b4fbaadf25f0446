//! A decoder of recorded frames that is independent of the library under test: `serde_json` for text,
//! and the layout in the fixtures' README for binary frames (fact 24).

use std::collections::BTreeMap;

use bytes::Bytes;
use phx_proto::Frame;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::conversation::Vsn;
use crate::recording::Dir;

/// A payload with the exact bytes of its frame.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// JSON text.
    Json(String),
    /// The rest of a binary frame, after its header.
    Bytes(Vec<u8>),
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Json(text) if text.len() > 200 => write!(f, "Json({} bytes)", text.len()),
            Self::Json(text) => write!(f, "Json({text})"),
            Self::Bytes(bytes) => write!(f, "Bytes({bytes:?})"),
        }
    }
}

/// The status and the response of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyReading {
    /// The status of the reply.
    pub status: String,
    /// The response in the reply.
    pub response: Data,
}

/// A decoded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The join_ref member; null if it is missing. Always a string in a binary frame.
    pub join_ref: Value,
    /// The ref member; null if it is missing. Always a string in a binary frame.
    pub msg_ref: Value,
    /// The topic.
    pub topic: String,
    /// The event; `phx_reply` for a binary reply.
    pub event: String,
    /// The payload. For a binary reply, its response.
    pub payload: Data,
    /// The status and the response, if the server replies.
    pub reply: Option<ReplyReading>,
}

impl Reading {
    /// Whether the decoded frame is binary.
    #[must_use]
    pub const fn is_binary(&self) -> bool {
        matches!(self.payload, Data::Bytes(_))
    }

    /// The reason in the response of a reply.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        let Data::Json(response) = &self.reply.as_ref()?.response else { return None };
        let response: Value = serde_json::from_str(response).ok()?;
        Some(response["reason"].as_str()?.to_owned())
    }

    /// Encodes the message as a frame.
    ///
    /// # Panics
    ///
    /// If a field of a binary frame is longer than 255 bytes.
    #[must_use]
    pub fn write(&self, vsn: Vsn, sender: Dir) -> Frame {
        let payload = match &self.payload {
            Data::Bytes(data) => return Frame::Binary(self.write_binary(sender, data)),
            Data::Json(text) => text,
        };
        let (topic, event) = (Value::from(&*self.topic), Value::from(&*self.event));
        let (join_ref, msg_ref) = (&self.join_ref, &self.msg_ref);
        Frame::from(match vsn {
            Vsn::V2 => format!("[{join_ref},{msg_ref},{topic},{event},{payload}]"),
            Vsn::V1 => format!(
                r#"{{"event":{event},"payload":{payload},"ref":{msg_ref},"topic":{topic}}}"#
            ),
        })
    }

    fn write_binary(&self, sender: Dir, data: &[u8]) -> Bytes {
        let join_ref = self.join_ref.as_str();
        let msg_ref = self.msg_ref.as_str();
        let (kind, fields) = match (sender, &self.reply, join_ref) {
            (Dir::ServerToClient, Some(reply), _) => {
                (1, vec![join_ref, msg_ref, Some(&self.topic), Some(&reply.status)])
            }
            (Dir::ServerToClient, None, Some(_)) => {
                (0, vec![join_ref, Some(&self.topic), Some(&self.event)])
            }
            (Dir::ServerToClient, None, None) => (2, vec![Some(&*self.topic), Some(&self.event)]),
            _ => (0, vec![join_ref, msg_ref, Some(&self.topic), Some(&self.event)]),
        };
        let fields: Vec<&str> =
            fields.into_iter().map(|field| field.expect("a binary frame has strings")).collect();
        let mut frame = vec![kind];
        frame.extend(fields.iter().map(|field| u8::try_from(field.len()).expect("a short field")));
        frame.extend(fields.iter().flat_map(|field| field.bytes()));
        frame.extend_from_slice(data);
        Bytes::from(frame)
    }
}

/// Decodes a frame.
///
/// # Errors
///
/// If the frame is not a message of that version.
pub fn read(vsn: Vsn, sender: Dir, frame: &Frame) -> Result<Reading, String> {
    match (vsn, frame) {
        (Vsn::V2, Frame::Text(text)) => {
            let members: Vec<Box<RawValue>> = parse(text)?;
            let [join_ref, msg_ref, topic, event, payload] = &members[..] else {
                return Err(format!("{} members", members.len()));
            };
            let refs = (parse_raw(join_ref)?, parse_raw(msg_ref)?);
            finish(sender, refs, topic, event, payload)
        }
        (Vsn::V1, Frame::Text(text)) => {
            let members: BTreeMap<String, Box<RawValue>> = parse(text)?;
            let known = ["event", "join_ref", "payload", "ref", "topic"];
            if let Some(other) = members.keys().find(|key| !known.contains(&key.as_str())) {
                return Err(format!("a member {other}"));
            }
            let member = |name: &str| members.get(name).ok_or_else(|| format!("no {name}"));
            let join_ref = members.get("join_ref").map_or(Ok(Value::Null), |raw| parse_raw(raw))?;
            let refs = (join_ref, parse_raw(member("ref")?)?);
            finish(sender, refs, member("topic")?, member("event")?, member("payload")?)
        }
        (Vsn::V2, Frame::Binary(bytes)) => read_binary(sender, bytes),
        (Vsn::V1, Frame::Binary(_)) => Err("binary in vsn 1.0.0".to_owned()),
    }
}

fn finish(
    sender: Dir,
    (join_ref, msg_ref): (Value, Value),
    topic: &RawValue,
    event: &RawValue,
    payload: &RawValue,
) -> Result<Reading, String> {
    #[derive(serde::Deserialize)]
    struct Reply {
        status: String,
        response: Box<RawValue>,
    }
    let topic: String = parse_raw(topic)?;
    let event: String = parse_raw(event)?;
    // To the server, `phx_reply` is an event like any other (fact 20).
    let reply = if event == "phx_reply" && sender == Dir::ServerToClient {
        let Reply { status, response } = parse_raw(payload)?;
        Some(ReplyReading { status, response: Data::Json(response.get().to_owned()) })
    } else {
        None
    };
    let payload = Data::Json(payload.get().to_owned());
    Ok(Reading { join_ref, msg_ref, topic, event, payload, reply })
}

fn read_binary(sender: Dir, frame: &[u8]) -> Result<Reading, String> {
    let (&kind, rest) = frame.split_first().ok_or("no kind")?;
    let count = match (sender, kind) {
        (Dir::ClientToServer, 0) | (Dir::ServerToClient, 1) => 4,
        (Dir::ServerToClient, 0) => 3,
        (Dir::ServerToClient, 2) => 2,
        _ => return Err(format!("kind {kind}")),
    };
    let (lengths, mut rest) = rest.split_at_checked(count).ok_or("no lengths")?;
    let mut fields = Vec::new();
    for length in lengths {
        let (field, tail) = rest.split_at_checked(usize::from(*length)).ok_or("a short field")?;
        fields.push(std::str::from_utf8(field).map_err(|error| error.to_string())?.to_owned());
        rest = tail;
    }
    let payload = Data::Bytes(rest.to_vec());
    let (event, topic) = (fields.pop().unwrap_or_default(), fields.pop().unwrap_or_default());
    let mut refs = fields.into_iter().map(Value::from);
    let join_ref = refs.next().unwrap_or(Value::Null);
    let msg_ref = refs.next().unwrap_or(Value::Null);
    Ok(if kind == 1 {
        let reply = ReplyReading { status: event, response: payload.clone() };
        let event = "phx_reply".to_owned();
        Reading { join_ref, msg_ref, topic, event, payload, reply: Some(reply) }
    } else {
        Reading { join_ref, msg_ref, topic, event, payload, reply: None }
    })
}

fn parse<'a, T: serde::Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

fn parse_raw<'a, T: serde::Deserialize<'a>>(raw: &'a RawValue) -> Result<T, String> {
    serde_json::from_str(raw.get()).map_err(|error| error.to_string())
}
