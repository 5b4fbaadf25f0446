//! Redacted payloads and frames.
//!
//! A redacted payload keeps its length, because limits and queues count bytes; a replay uses a filler of that
//! length instead. A frame is recorded as its envelope, which is all that the core reads, and restored from
//! it. Other parts of the frame, such as duplicate keys, are not kept.

use core::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer as SerdeSerializer};

use crate::event::words::Shown;
use crate::id::Ref;
use crate::wire::payload::Payload;
use crate::wire::{Body, Codec, Frame, V2, WireRef, check_strict};

/// Reasons of Phoenix itself, by which the core distinguishes refusals. They are not secret.
const KNOWN_REASONS: [&str; 3] = ["join crashed", "unmatched topic", "too many channels joined"];

/// The record of a payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PayloadRecord {
    /// The length of redacted JSON.
    Hidden(Length),
    /// The length of redacted bytes.
    HiddenBinary(Length),
    /// The length of a redacted payload that should be JSON and is not.
    HiddenInvalid(Length),
    /// The JSON text itself.
    Json(String),
    /// The bytes themselves.
    Binary(Hex),
}

/// The record of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FrameRecord {
    /// The envelope and the record of the payload.
    Message(Box<MessageRecord>),
    /// The length of a text frame that violates the protocol or exceeds the limit.
    UnreadableText(Length),
    /// The length of a binary frame that violates the protocol or exceeds the limit.
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
    /// The event; `None` for a reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    /// The status of a reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    payload: PayloadRecord,
}

/// A length in bytes, for which a replay creates a filler; see [`PayloadRecord::filler_len`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Length(u64);

/// Bytes that serialize as hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hex(Bytes);

impl PayloadRecord {
    /// Records the content of a payload.
    pub(super) fn full(payload: &Payload) -> Self {
        if payload.is_binary() {
            return Self::Binary(Hex(Bytes::copy_from_slice(payload.as_bytes())));
        }
        payload.get().map_or_else(|_| Self::redacted(payload), |text| Self::Json(text.to_owned()))
    }

    /// Records a payload without its content. An empty object is recorded as it is.
    pub(super) fn redacted(payload: &Payload) -> Self {
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

    /// Records the response of a reply without its content, except a reason that the core reads.
    fn response(payload: &Payload) -> Self {
        #[derive(Deserialize)]
        struct Reason {
            reason: String,
        }
        let reason = payload.deserialize::<Reason>().map(|response| response.reason);
        match KNOWN_REASONS.iter().find(|known| reason.as_deref() == Ok(**known)) {
            Some(known) => Self::Json(format!(r#"{{"reason":"{known}"}}"#)),
            None => Self::redacted(payload),
        }
    }

    /// Restores the payload, with a filler instead of redacted content.
    pub(super) fn payload(&self) -> Payload {
        self.filled(b'x')
    }

    /// Like [`payload`](Self::payload), with this byte in the filler, so that two payloads of the same length
    /// can differ.
    pub(super) fn filled(&self, byte: u8) -> Payload {
        match self {
            Self::Hidden(length) => Payload::unparsed(Bytes::from(match length.get() {
                0 => Vec::new(),
                // No JSON string has one byte, and only `""` has two, so other values serve as fillers.
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

    /// The number of filler bytes that restoring the payload allocates.
    pub(super) const fn filler_len(&self) -> u64 {
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
            Self::HiddenInvalid(length) => write!(f, "<invalid JSON, {} bytes>", length.0),
            Self::Json(text) => f.write_str(text),
            Self::Binary(Hex(bytes)) => write!(f, "<binary, {} bytes>", bytes.len()),
        }
    }
}

impl FrameRecord {
    /// Records a frame from the server. With `payloads`, it is not redacted.
    pub(super) fn received(frame: &Frame, codec: &dyn Codec, payloads: bool) -> Self {
        match frame {
            Frame::Text(bytes) if payloads => {
                if let Ok(text) = core::str::from_utf8(bytes) {
                    return Self::Text(text.to_owned());
                }
            }
            Frame::Binary(bytes) if payloads => return Self::Binary(Hex(bytes.clone())),
            _ => {}
        }
        Self::envelope(frame, codec)
    }

    /// Records a frame to the server. With `payloads`, it is not redacted.
    pub(super) fn sent(frame: &Frame, codec: &dyn Codec, payloads: bool) -> Self {
        if payloads { Self::received(frame, codec, true) } else { Self::written(frame, codec) }
    }

    /// Records the join of a topic. Its parameters may contain tokens, so they are always redacted.
    pub(super) fn join(frame: &Frame, codec: &dyn Codec) -> Self {
        Self::written(frame, codec)
    }

    fn written(frame: &Frame, codec: &dyn Codec) -> Self {
        let Frame::Binary(bytes) = frame else { return Self::envelope(frame, codec) };
        // The codec decodes only binary frames of the server; those of the client have another header.
        // For vsn 2.0.0 that header is read here. For other codecs it is unknown, so only the length of
        // the frame is recorded: a token in the frame could be mistaken for a topic.
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
                (Some(event.as_str().to_owned()), None, PayloadRecord::redacted(payload))
            }
        };
        // Checks for payloads that a strict configuration refuses, such as those that are not UTF-8.
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

    /// Records only the length of a frame.
    pub(super) fn unreadable(frame: &Frame) -> Self {
        let length = Length(frame.len() as u64);
        if frame.is_text() { Self::UnreadableText(length) } else { Self::UnreadableBinary(length) }
    }

    /// The number of filler bytes that restoring the frame allocates.
    pub(super) const fn filler_len(&self) -> u64 {
        match self {
            Self::Message(message) => message.payload.filler_len(),
            Self::UnreadableText(length) | Self::UnreadableBinary(length) => length.0,
            Self::Text(_) | Self::Binary(_) => 0,
        }
    }

    /// The topic, if only the payload of the frame is redacted.
    pub(super) fn topic(&self) -> Option<&str> {
        match self {
            Self::Message(message) => Some(&message.topic),
            _ => None,
        }
    }

    /// The topic and the payload, if the frame is a join.
    pub(super) fn joined(&self) -> Option<(&str, &PayloadRecord)> {
        match self {
            Self::Message(message) if message.event.as_deref() == Some("phx_join") => {
                Some((&message.topic, &message.payload))
            }
            _ => None,
        }
    }

    /// Restores a frame from the server. For the core it is equivalent to the original one.
    pub(super) fn frame(&self, vsn_1: bool) -> Frame {
        match self {
            Self::Message(message) if message.payload.is_binary() => {
                Frame::Binary(message.to_binary().into())
            }
            Self::Message(message) => Frame::Text(message.to_text(vsn_1).into()),
            Self::UnreadableText(length) => Frame::Text(vec![b'x'; length.get()].into()),
            // No valid binary frame starts with this byte.
            Self::UnreadableBinary(length) => Frame::Binary(vec![0xff; length.get()].into()),
            Self::Text(text) => Frame::from(text.as_str()),
            Self::Binary(Hex(bytes)) => Frame::Binary(bytes.clone()),
        }
    }
}

/// The text of the frame in a trace, without its arrow.
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
    /// Reads the header of a binary push of the client: the lengths of join_ref, ref, topic and event, then
    /// these fields.
    fn binary_push(bytes: &[u8]) -> Option<Self> {
        let (&[0, join_ref, msg_ref, topic, event], mut rest) = bytes.split_first_chunk()? else {
            return None;
        };
        let mut take = |length: u8| {
            let (field, after) = rest.split_at_checked(usize::from(length))?;
            rest = after;
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
            // Omits optional members. With them, the frame could exceed a limit that the original frame
            // did not exceed.
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
        // Each length was one byte in the recorded frame.
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
        let bytes =
            bytes.ok_or_else(|| D::Error::custom("bytes must be pairs of hexadecimal digits"))?;
        Ok(Self(bytes.into()))
    }
}

/// A ref as a number. Zero stands for a foreign ref, because this client never sends it.
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

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;
    use crate::wire::Outgoing;

    /// A replay fills in the parameters of a join, and other parameters of the same length for a join that
    /// conflicts with it.
    #[test]
    fn fillers_are_json_and_differ() {
        for length in 1..6 {
            let record = PayloadRecord::Hidden(Length(length));
            let fillers = [record.payload(), record.filled(b'y')];
            for filler in &fillers {
                assert_eq!(filler.len() as u64, length);
                assert!(filler.to_value().is_ok(), "{filler:?}");
            }
            assert_ne!(fillers[0].as_bytes(), fillers[1].as_bytes(), "{length} bytes");
        }
        // Only a recording that was changed has such a record.
        assert!(PayloadRecord::Hidden(Length(0)).payload().is_empty());
    }

    /// The bound for fillers of a recording counts them by length, without creating them.
    #[test]
    fn filler_length_is_that_of_payload() {
        let length = || Length(5);
        for hidden in
            [PayloadRecord::Hidden, PayloadRecord::HiddenBinary, PayloadRecord::HiddenInvalid]
        {
            let record = hidden(length());
            assert_eq!((record.filler_len(), record.payload().len()), (5, 5), "{record}");
        }
        assert_eq!(PayloadRecord::Json("12345".to_owned()).filler_len(), 0);
        assert_eq!(PayloadRecord::Binary(Hex(Bytes::from_static(b"12345"))).filler_len(), 0);
    }

    /// A reply, a message to one channel and a broadcast. The restored frame has the same envelope, and a
    /// payload of the same length.
    #[test]
    fn binary_frame_is_restored_with_filler() {
        for bytes in [
            &b"\x01\x01\x01\x01\x027\x38aok s3cret"[..],
            b"\x00\x01\x01\x017ae s3cret",
            b"\x02\x01\x01ae s3cret",
        ] {
            let frame = Frame::Binary(Bytes::from_static(bytes));
            let restored = FrameRecord::received(&frame, &V2, false).frame(false);
            let (start, end) = bytes.split_at(bytes.len() - 7);
            assert_eq!(end, b" s3cret");
            assert_eq!(restored.as_bytes(), [start, &[0; 7]].concat());
        }
    }

    #[test]
    fn trace_shows_envelope() {
        for (text, shown) in [
            (
                r#"["1","2","a","phx_reply",{"status":"ok","response":{"s":1}}]"#,
                r#"["1","2","a","phx_reply",{"status":"ok","response":<7 bytes>}]"#,
            ),
            (r#"[null,null,"a","e",[1]]"#, r#"[null,null,"a","e",<3 bytes>]"#),
        ] {
            let record = FrameRecord::received(&Frame::from(text), &V2, false);
            assert_eq!(record.to_string(), shown);
        }
    }

    /// With payloads, even the bytes outside the protocol are recorded, except text that is not UTF-8, which
    /// a recording cannot contain.
    #[test]
    fn frame_is_kept_with_payloads() {
        let text = r#"[null,null,"a","e",{"s":1},"extra"]"#;
        for record in [FrameRecord::received, FrameRecord::sent] {
            let kept = record(&Frame::from(text), &V2, true);
            assert_eq!(to_value(&kept).unwrap(), json!({ "text": text }));
            let binary = Frame::Binary(Bytes::from_static(b"\x00\xff"));
            assert_eq!(to_value(record(&binary, &V2, true)).unwrap(), json!({"binary": "00ff"}));
            let invalid = Frame::Text(Bytes::from_static(b"[\xff]"));
            assert_eq!(record(&invalid, &V2, true), FrameRecord::UnreadableText(Length(3)));
        }
    }

    /// The envelope of a binary push is recorded, and nothing else of it. Of a frame that ends inside the
    /// envelope, or that is of another kind, only the length is recorded.
    #[test]
    fn binary_push_is_recorded_as_envelope() {
        let message = Outgoing {
            join_ref: Some(Ref(7)),
            msg_ref: Ref(12),
            topic: "room:a",
            event: "bytes",
            payload: Payload::binary("s3cret"),
        };
        let frame = V2.encode(message).unwrap();
        let envelope = json!({
            "join_ref": 7, "ref": 12, "topic": "room:a", "event": "bytes",
            "payload": {"hidden_binary": 6},
        });
        let written = FrameRecord::sent(&frame, &V2, false);
        assert_eq!(to_value(&written).unwrap(), json!({ "message": envelope }));
        let bytes = frame.as_bytes();
        for end in 0..bytes.len() - 6 {
            let cut = Frame::Binary(Bytes::copy_from_slice(&bytes[..end]));
            let unreadable = FrameRecord::UnreadableBinary(Length(end as u64));
            assert_eq!(FrameRecord::sent(&cut, &V2, false), unreadable);
        }
        let other = Frame::Binary([&[1], &bytes[1..]].concat().into());
        let unreadable = FrameRecord::UnreadableBinary(Length(bytes.len() as u64));
        assert_eq!(FrameRecord::sent(&other, &V2, false), unreadable);
    }
}
