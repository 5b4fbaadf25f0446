//! Redacted payloads and frames.
//!
//! Of a redacted payload the length is kept, because limits and queues count bytes; a replay has a
//! filler of that length in its place. A frame is recorded as its envelope, which is all that the core
//! reads, and written again from it: so nothing else in it (a repeated key, say) is kept.

use core::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer as SerdeSerializer};

use crate::event::words::Shown;
use crate::id::Ref;
use crate::wire::payload::Payload;
use crate::wire::{Body, Codec, Frame, V2, WireRef, check_strict};

/// The reasons of the server's own by which the core tells refusals apart: no secrets.
const KNOWN_REASONS: [&str; 3] = ["join crashed", "unmatched topic", "too many channels joined"];

/// A payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PayloadRecord {
    /// JSON of this many bytes.
    Hidden(Length),
    /// So many bytes.
    HiddenBinary(Length),
    /// What should be JSON and is not, of this many bytes.
    HiddenInvalid(Length),
    /// The JSON text itself.
    Json(String),
    /// The bytes themselves.
    Binary(Hex),
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FrameRecord {
    /// Its envelope, and what its payload is.
    Message(Box<MessageRecord>),
    /// A frame that is not the protocol, or larger than allowed: its length.
    UnreadableText(Length),
    /// The same of a binary frame.
    UnreadableBinary(Length),
    /// The text itself.
    Text(String),
    /// The bytes themselves.
    Binary(Hex),
}

/// The envelope of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    join_ref: Option<u64>,
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    msg_ref: Option<u64>,
    topic: String,
    /// None for a reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    /// Of a reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    payload: PayloadRecord,
}

/// A length in bytes, which a replay makes a filler of: see [`PayloadRecord::claims`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Length(u64);

/// Bytes, as hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hex(Bytes);

impl PayloadRecord {
    /// The payload with what it says.
    pub(super) fn whole(payload: &Payload) -> Self {
        if payload.is_binary() {
            return Self::Binary(Hex(Bytes::copy_from_slice(payload.as_bytes())));
        }
        payload.get().map_or_else(|_| Self::hidden(payload), |text| Self::Json(text.to_owned()))
    }

    /// The payload without what it says. An empty object says nothing.
    pub(super) fn hidden(payload: &Payload) -> Self {
        let length = Length(payload.len() as u64);
        if payload.is_binary() {
            Self::HiddenBinary(length)
        } else if payload.as_bytes() == b"{}" {
            Self::Json("{}".to_owned())
        } else if payload.deserialize::<serde::de::IgnoredAny>().is_ok() {
            Self::Hidden(length)
        } else {
            Self::HiddenInvalid(length)
        }
    }

    /// The response of a reply: the core reads one member of it, the reason.
    fn response(payload: &Payload) -> Self {
        #[derive(Deserialize)]
        struct Reason {
            reason: String,
        }
        let reason = payload.deserialize::<Reason>().map(|response| response.reason);
        match KNOWN_REASONS.iter().find(|known| reason.as_deref() == Ok(**known)) {
            Some(known) => Self::Json(format!(r#"{{"reason":"{known}"}}"#)),
            None => Self::hidden(payload),
        }
    }

    /// A payload like it, with a filler in place of what is hidden.
    pub(super) fn payload(&self) -> Payload {
        self.filled(b'x')
    }

    /// The same with this byte in the filler, so that two of one length can differ.
    pub(super) fn filled(&self, byte: u8) -> Payload {
        match self {
            Self::Hidden(length) => Payload::unparsed(Bytes::from(match length.get() {
                0 => Vec::new(),
                // A string would have no room for the byte.
                1 => vec![b'0' + (byte & 1)],
                2 if byte & 1 == 1 => b"[]".to_vec(),
                length => {
                    let mut text = vec![byte; length];
                    (text[0], text[length - 1]) = (b'"', b'"');
                    text
                }
            })),
            Self::HiddenBinary(length) => Payload::binary(vec![0; length.get()]),
            Self::HiddenInvalid(length) => Payload::unparsed(Bytes::from(vec![byte; length.get()])),
            Self::Json(text) => Payload::unparsed(Bytes::copy_from_slice(text.as_bytes())),
            Self::Binary(Hex(bytes)) => Payload::binary(bytes.clone()),
        }
    }

    /// The bytes of the filler that it asks for, which are not in the recording.
    pub(super) const fn claims(&self) -> u64 {
        match self {
            Self::Hidden(length) | Self::HiddenBinary(length) | Self::HiddenInvalid(length) => {
                length.0
            }
            Self::Json(_) | Self::Binary(_) => 0,
        }
    }

    const fn is_binary(&self) -> bool {
        matches!(self, Self::HiddenBinary(_) | Self::Binary(_))
    }
}

impl fmt::Display for PayloadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hidden(length) => write!(f, "<{} bytes>", length.0),
            Self::HiddenBinary(length) => write!(f, "<binary, {} bytes>", length.0),
            Self::HiddenInvalid(length) => write!(f, "<no JSON, {} bytes>", length.0),
            Self::Json(text) => f.write_str(text),
            Self::Binary(Hex(bytes)) => write!(f, "<binary, {} bytes>", bytes.len()),
        }
    }
}

impl FrameRecord {
    /// A frame that came from the server.
    pub(super) fn received(frame: &Frame, codec: &dyn Codec, whole: bool) -> Self {
        match frame {
            Frame::Text(bytes) if whole => {
                if let Ok(text) = core::str::from_utf8(bytes) {
                    return Self::Text(text.to_owned());
                }
            }
            Frame::Binary(bytes) if whole => return Self::Binary(Hex(bytes.clone())),
            _ => {}
        }
        Self::envelope(frame, codec)
    }

    /// A frame that goes to the server.
    pub(super) fn sent(frame: &Frame, codec: &dyn Codec, whole: bool) -> Self {
        if whole { Self::received(frame, codec, true) } else { Self::written(frame, codec) }
    }

    /// The join of a topic. Its parameters are where tokens travel: they are redacted even where
    /// payloads are not, whatever the frame looks like.
    pub(super) fn join(frame: &Frame, codec: &dyn Codec) -> Self {
        Self::written(frame, codec)
    }

    fn written(frame: &Frame, codec: &dyn Codec) -> Self {
        let Frame::Binary(bytes) = frame else { return Self::envelope(frame, codec) };
        // The server's frames have other headers than the client's, and those of another
        // codec are unknown: what looks like a topic may be a token.
        let message =
            if codec.vsn() == V2.vsn() { MessageRecord::binary_push(bytes) } else { None };
        message.map_or_else(|| Self::unreadable(frame), |message| Self::Message(message.into()))
    }

    fn envelope(frame: &Frame, codec: &dyn Codec) -> Self {
        let Ok(message) = codec.decode(frame) else { return Self::unreadable(frame) };
        let (event, status, payload) = match &message.body {
            Body::Reply { status, response } => {
                (None, Some(status.as_str().to_owned()), PayloadRecord::response(response))
            }
            Body::Event { event, payload } => {
                (Some(event.as_str().to_owned()), None, PayloadRecord::hidden(payload))
            }
        };
        // A look for what a strict configuration would refuse: bytes that are no UTF-8, say.
        let payload = match payload {
            PayloadRecord::Hidden(length) if check_strict(&message).is_err() => {
                PayloadRecord::HiddenInvalid(length)
            }
            payload => payload,
        };
        Self::Message(Box::new(MessageRecord {
            join_ref: number(message.join_ref),
            msg_ref: number(message.msg_ref),
            topic: message.topic.as_str().to_owned(),
            event,
            status,
            payload,
        }))
    }

    /// A frame of which nothing but the length is recorded.
    pub(super) fn unreadable(frame: &Frame) -> Self {
        let length = Length(frame.len() as u64);
        if frame.is_text() { Self::UnreadableText(length) } else { Self::UnreadableBinary(length) }
    }

    /// The bytes of the filler that it asks for, which are not in the recording.
    pub(super) const fn claims(&self) -> u64 {
        match self {
            Self::Message(message) => message.payload.claims(),
            Self::UnreadableText(length) | Self::UnreadableBinary(length) => length.0,
            Self::Text(_) | Self::Binary(_) => 0,
        }
    }

    /// The topic and the payload, if it is a join.
    pub(super) fn joined(&self) -> Option<(&str, &PayloadRecord)> {
        match self {
            Self::Message(message) if message.event.as_deref() == Some("phx_join") => {
                Some((&message.topic, &message.payload))
            }
            _ => None,
        }
    }

    /// A frame from the server that says the same, as far as the core can tell.
    pub(super) fn frame(&self, vsn_1: bool) -> Frame {
        match self {
            Self::Message(message) if message.payload.is_binary() => {
                Frame::Binary(message.to_binary().into())
            }
            Self::Message(message) => Frame::Text(message.to_text(vsn_1).into()),
            Self::UnreadableText(length) => Frame::Text(vec![b'x'; length.get()].into()),
            // No kind of binary frame begins like that.
            Self::UnreadableBinary(length) => Frame::Binary(vec![0xff; length.get()].into()),
            Self::Text(text) => Frame::from(text.as_str()),
            Self::Binary(Hex(bytes)) => Frame::Binary(bytes.clone()),
        }
    }
}

/// The line of a trace, without its arrow.
impl fmt::Display for FrameRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(message) => message.fmt(f),
            Self::UnreadableText(length) => write!(f, "unreadable text, {} bytes", length.0),
            Self::UnreadableBinary(length) => write!(f, "unreadable binary, {} bytes", length.0),
            Self::Text(text) => Shown(&Frame::from(text.as_str())).fmt(f),
            Self::Binary(Hex(bytes)) => write!(f, "binary, {} bytes", bytes.len()),
        }
    }
}

impl MessageRecord {
    /// The header of a client's push: the lengths of join_ref, ref, topic and event, then they.
    fn binary_push(bytes: &[u8]) -> Option<Self> {
        let (&[0, join_ref, msg_ref, topic, event], mut rest) = bytes.split_first_chunk()? else {
            return None;
        };
        let mut take = |length: u8| {
            let (field, behind) = rest.split_at_checked(usize::from(length))?;
            rest = behind;
            core::str::from_utf8(field).ok()
        };
        let (join_ref, msg_ref) = (take(join_ref)?, take(msg_ref)?);
        let (topic, event) = (take(topic)?.to_owned(), take(event)?.to_owned());
        Some(Self {
            join_ref: number(WireRef::parse(join_ref.as_bytes())),
            msg_ref: number(WireRef::parse(msg_ref.as_bytes())),
            topic,
            event: Some(event),
            status: None,
            payload: PayloadRecord::HiddenBinary(Length(rest.len() as u64)),
        })
    }

    fn to_text(&self, vsn_1: bool) -> Vec<u8> {
        let topic = quoted(&self.topic);
        let event = quoted(self.event.as_deref().unwrap_or("phx_reply"));
        let front = if vsn_1 {
            // Nothing that need not be there: what was small enough must stay so.
            let named = |name, number: Option<u64>| {
                number.map_or_else(String::new, |number| format!(r#""{name}":"{number}","#))
            };
            let (join_ref, msg_ref) =
                (named("join_ref", self.join_ref), named("ref", self.msg_ref));
            format!(r#"{{{join_ref}{msg_ref}"topic":{topic},"event":{event},"payload":"#)
        } else {
            let (join_ref, msg_ref) = (member(self.join_ref), member(self.msg_ref));
            format!("[{join_ref},{msg_ref},{topic},{event},")
        };
        let mut text = front.into_bytes();
        let payload = self.payload.payload();
        match &self.status {
            Some(status) => {
                let status = quoted(status);
                text.extend_from_slice(format!(r#"{{"status":{status},"response":"#).as_bytes());
                text.extend_from_slice(payload.as_bytes());
                text.push(b'}');
            }
            None => text.extend_from_slice(payload.as_bytes()),
        }
        text.push(if vsn_1 { b'}' } else { b']' });
        text
    }

    fn to_binary(&self) -> Vec<u8> {
        let digits = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
        let (join_ref, msg_ref) = (digits(self.join_ref), digits(self.msg_ref));
        let (kind, fields) = match (&self.status, &self.event) {
            (Some(status), _) => (1, vec![&*join_ref, &*msg_ref, &*self.topic, status]),
            (None, event) => {
                let event = event.as_deref().unwrap_or_default();
                match self.join_ref {
                    Some(_) => (0, vec![&*join_ref, &*self.topic, event]),
                    None => (2, vec![&*self.topic, event]),
                }
            }
        };
        let mut frame = vec![kind];
        // They were one byte each in the frame that was recorded.
        frame.extend(fields.iter().map(|field| u8::try_from(field.len()).unwrap_or(u8::MAX)));
        fields.iter().for_each(|field| frame.extend_from_slice(field.as_bytes()));
        frame.extend_from_slice(self.payload.payload().as_bytes());
        frame
    }
}

impl fmt::Display for MessageRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{},{},", member(self.join_ref), member(self.msg_ref))?;
        let event = self.event.as_deref().unwrap_or("phx_reply");
        write!(f, "{},{},", quoted(&self.topic), quoted(event))?;
        match &self.status {
            Some(status) => {
                write!(f, r#"{{"status":{},"response":{}}}]"#, quoted(status), self.payload)
            }
            None => write!(f, "{}]", self.payload),
        }
    }
}

impl Length {
    fn get(self) -> usize {
        usize::try_from(self.0).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self)
    }
}

impl Serialize for Hex {
    fn serialize<S: SerdeSerializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&digits)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit =
            |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? * 16 + digit(*low)?),
            _ => None,
        });
        let bytes: Option<Vec<u8>> = pairs.collect();
        let bytes = bytes
            .ok_or_else(|| D::Error::custom("bytes are written as pairs of hexadecimal digits"))?;
        Ok(Self(bytes.into()))
    }
}

/// A ref as a number: 0 is one that no client ever sends.
const fn number(wire: WireRef) -> Option<u64> {
    match wire {
        WireRef::Null => None,
        WireRef::Ref(Ref(number)) => Some(number),
        WireRef::Foreign => Some(0),
    }
}

fn member(number: Option<u64>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| format!("\"{number}\""))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
