//! Custom codecs for servers that have a format under their own vsn: MessagePack, and JSON with
//! another envelope.

use std::sync::Arc;

use crate::hand::config;
use bytes::Bytes;
use phx_proto::event::PushErrorKind;
use phx_proto::wire::PayloadError;
use phx_proto::wire::{
    Body, Codec, DecodeError, DecodeProblem, EncodeError, Incoming, Outgoing, WireRef,
};
use phx_proto::{
    Action, ChannelStatus, ConnectionId, Frame, Opened, Payload, PushOptions, PushOutcome, Ref,
    Signal, Socket, Time,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `[join_ref, ref, topic, event, payload]` as MessagePack. Bytes that are not a MessagePack value
/// are an error.
#[derive(Debug)]
struct MessagePack;

#[derive(Debug, Serialize, Deserialize)]
struct Envelope(Option<String>, Option<String>, String, String, Value);

#[derive(Deserialize)]
struct Answer {
    status: String,
    response: Value,
}

impl Codec for MessagePack {
    fn vsn(&self) -> &str {
        "msgpack-1"
    }

    fn decode(&self, frame: &Frame) -> Result<Incoming, DecodeError> {
        let wrong = |message: String| {
            DecodeError::new(DecodeProblem::Other { message }, 0, frame.as_bytes())
        };
        let Envelope(join_ref, msg_ref, topic, event, payload) =
            rmp_serde::from_slice(frame.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let wire_ref = |text: Option<String>| {
            text.map_or(WireRef::Null, |text| WireRef::parse(text.as_bytes()))
        };
        let body = if event == "phx_reply" {
            let Answer { status, response } =
                serde_json::from_value(payload).map_err(|error| wrong(error.to_string()))?;
            Body::Reply { status: status.into(), response: response.into() }
        } else {
            Body::Event { event: event.into(), payload: payload.into() }
        };
        let (join_ref, msg_ref) = (wire_ref(join_ref), wire_ref(msg_ref));
        Ok(Incoming { join_ref, msg_ref, topic: topic.into(), body })
    }

    fn encode(&self, message: Outgoing<'_>) -> Result<Frame, EncodeError> {
        let payload = message
            .payload
            .to_value()
            .map_err(|error| EncodeError::Other { message: error.to_string() })?;
        let envelope = Envelope(
            message.join_ref.map(|join_ref| join_ref.to_string()),
            Some(message.msg_ref.to_string()),
            message.topic.to_owned(),
            message.event.to_owned(),
            payload,
        );
        rmp_serde::to_vec(&envelope)
            .map(|bytes| Frame::Binary(Bytes::from(bytes)))
            .map_err(|error| EncodeError::Other { message: error.to_string() })
    }

    fn check(&self, _: &str, _: &str, payload: &Payload) -> Result<(), EncodeError> {
        if payload.is_binary() { Err(EncodeError::NoBinary) } else { Ok(()) }
    }

    fn max_envelope_len(&self, topic: &str, event: &str) -> usize {
        // Two refs, five headers of up to five bytes, and the header of the array.
        2 * 20 + 5 * 5 + 1 + topic.len() + event.len()
    }
}

const NOW: Time = Time::from_millis(5);

struct Line {
    socket: Socket,
    id: Option<ConnectionId>,
    sent: Vec<Envelope>,
    signals: Vec<Signal>,
}

impl Line {
    fn open() -> Self {
        let socket = Socket::new(
            config().codec(Arc::new(MessagePack)).expect("no vsn in the address"),
            1,
            NOW,
        );
        let mut line = Self { socket, id: None, sent: vec![], signals: vec![] };
        line.socket.connect(NOW);
        line.drain();
        line.socket.handle_opened(NOW, line.id.expect("a dial"), Opened::default());
        line.drain();
        line
    }

    fn drain(&mut self) {
        while let Some(action) = self.socket.poll_action(NOW) {
            match action {
                Action::Connect { id, .. } => self.id = Some(id),
                Action::Signal(signal) => self.signals.push(signal),
                other => {
                    let frame = other.into_frame().expect("a frame");
                    assert!(!frame.is_text());
                    self.sent.push(rmp_serde::from_slice(frame.as_bytes()).expect("an envelope"));
                }
            }
        }
    }

    fn receive(&mut self, frame: Frame) {
        self.socket.handle_frame(NOW, self.id.expect("a dial"), frame);
        self.drain();
    }

    fn receive_message(
        &mut self,
        join_ref: Option<&str>,
        msg_ref: Option<&str>,
        event: &str,
        payload: Value,
    ) {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let envelope =
            Envelope(owned(join_ref), owned(msg_ref), "room:a".into(), event.into(), payload);
        let bytes = rmp_serde::to_vec(&envelope).expect("an envelope");
        self.receive(Frame::Binary(Bytes::from(bytes)));
    }
}

#[test]
fn custom_codec_carries_every_message() {
    let mut line = Line::open();
    assert!(
        line.socket
            .connect_request()
            .expect("an address that may be dialled")
            .uri
            .target()
            .contains("vsn=msgpack-1")
    );
    line.socket.join(NOW, "room:a", json!({"user": 7})).expect("an accepted join");
    line.drain();
    let join = &line.sent[0];
    assert_eq!((join.0.as_deref(), join.1.as_deref()), (Some("1"), Some("1")));
    assert_eq!((join.3.as_str(), &join.4), ("phx_join", &json!({"user": 7})));
    line.receive_message(
        Some("1"),
        Some("1"),
        "phx_reply",
        json!({"status": "ok", "response": {"n": 1}}),
    );
    assert_eq!(line.socket.channel_status("room:a"), ChannelStatus::Joined);

    let options = PushOptions::call();
    line.socket.push(NOW, "room:a", "ask", json!([1, 2]), options).expect("an accepted push");
    line.drain();
    assert_eq!((line.sent[1].3.as_str(), &line.sent[1].4), ("ask", &json!([1, 2])));
    let answer = json!({"response": {"sum": 3}, "status": "ok"});
    line.receive_message(Some("1"), Some("2"), "phx_reply", answer);
    let reply = line.signals.iter().find_map(|signal| match signal {
        Signal::PushEnded { outcome: PushOutcome::Reply(reply), .. } => Some(reply.clone()),
        _ => None,
    });
    assert_eq!(reply.expect("a reply").response.to_value().unwrap(), json!({"sum": 3}));

    line.receive_message(None, None, "news", json!({"unicode": "żółw 🐢", "deep": [[[null]]]}));
    let Some(Signal::Message { event, payload, .. }) = line.signals.last() else {
        panic!("{:?}", line.signals)
    };
    assert_eq!(&**event, "news");
    assert_eq!(payload.to_value().unwrap()["unicode"], "żółw 🐢");
}

#[test]
fn undecodable_frame_is_a_protocol_error() {
    let mut line = Line::open();
    line.socket.join(NOW, "room:a", json!({})).expect("an accepted join");
    line.drain();
    line.receive(Frame::from("[]"));
    line.receive(Frame::Binary(Bytes::from_static(&[0xc1, 0, 1])));
    let errors = |line: &Line| {
        let is_error = |signal: &&Signal| matches!(signal, Signal::ProtocolError { .. });
        line.signals.iter().filter(is_error).count()
    };
    assert_eq!(errors(&line), 2);
    line.receive_message(
        Some("1"),
        Some("1"),
        "phx_reply",
        json!({"status": "ok", "response": {}}),
    );
    assert_eq!(line.socket.channel_status("room:a"), ChannelStatus::Joined);
}

#[test]
fn refused_payload_is_caller_error() {
    let mut line = Line::open();
    line.socket.join(NOW, "room:a", json!({})).expect("an accepted join");
    let payload = Payload::binary("bytes");
    let error = line.socket.push(NOW, "room:a", "ask", payload.clone(), PushOptions::call());
    let error = error.expect_err("no binary in here");
    assert_eq!(error.kind, PushErrorKind::Encode(EncodeError::NoBinary));
    assert_eq!(error.payload, payload, "handed back");
}

/// JSON text after a header of its own: `topic event join_ref ref` and a line break. The codec
/// returns slices of the received frame, and writes the header in front of the payload.
#[derive(Debug)]
struct Headed;

/// A frame of [`Headed`].
fn headed(front: &str, payload: &str) -> Frame {
    Frame::from(format!("{front}\n{payload};"))
}

impl Codec for Headed {
    fn vsn(&self) -> &str {
        "headed-1"
    }

    fn decode(&self, frame: &Frame) -> Result<Incoming, DecodeError> {
        let Frame::Text(bytes) = frame else { panic!("text alone is sent here") };
        let wrong = |message: &str| {
            let problem = DecodeProblem::Other { message: message.to_owned() };
            DecodeError::new(problem, 0, bytes)
        };
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| wrong("one line"))?;
        let head = core::str::from_utf8(&bytes[..end]).map_err(|_| wrong("no UTF-8"))?;
        let [topic, name, join_ref, msg_ref] = head.split(' ').collect::<Vec<_>>()[..] else {
            return Err(wrong("another number of fields"));
        };
        let wire_ref = |text: &str| match text {
            "-" => WireRef::Null,
            text => WireRef::parse(text.as_bytes()),
        };
        let payload = Payload::received_json(bytes.slice(end + 1..bytes.len() - 1));
        let body = match name {
            "ok" => Body::Reply { status: name.into(), response: payload },
            _ => Body::Event { event: name.into(), payload },
        };
        let (join_ref, msg_ref) = (wire_ref(join_ref), wire_ref(msg_ref));
        Ok(Incoming { join_ref, msg_ref, topic: topic.into(), body })
    }

    fn encode(&self, message: Outgoing<'_>) -> Result<Frame, EncodeError> {
        let Outgoing { join_ref, msg_ref, topic, event, payload } = message;
        let join_ref = join_ref.map_or_else(|| "-".to_owned(), |join_ref| join_ref.to_string());
        let front = format!("{topic} {event} {join_ref} {msg_ref}\n");
        let write = |room: &mut [u8]| room.copy_from_slice(front.as_bytes());
        Ok(Frame::Text(payload.enclose(front.len(), write, b';')))
    }

    fn max_envelope_len(&self, topic: &str, event: &str) -> usize {
        topic.len() + event.len() + 2 * 20 + 5
    }
}

/// A received payload is a slice of its frame. A frame that is sent is the buffer into which the
/// payload was serialised. Neither is copied or parsed.
#[test]
fn json_codec_copies_and_parses_nothing() {
    let text = r#"{"body":"hi"}"#;
    let frame = headed("room:a news - -", text);
    let decoded = Headed.decode(&frame).expect("a message");
    let Body::Event { payload, .. } = decoded.body else { panic!("an event") };
    assert_eq!(payload.get(), Ok(text));
    let at = frame.as_bytes().len() - 1 - text.len();
    assert_eq!(payload.as_bytes().as_ptr(), frame.as_bytes()[at..].as_ptr());

    let payload = Payload::json(&json!({"body": "hi"})).expect("JSON");
    let (at, msg_ref) = (payload.as_bytes().as_ptr(), Ref::from_u64(2));
    let message = Outgoing { join_ref: None, msg_ref, topic: "room:a", event: "say", payload };
    let written = Headed.encode(message).expect("a frame");
    assert_eq!(written, headed("room:a say - 2", text));
    assert_eq!(written.as_bytes()["room:a say - 2\n".len()..].as_ptr(), at);
}

/// The payload in a frame may be any text. The reader of an invalid payload gets the error. A strict
/// configuration reports the frame instead.
#[test]
fn invalid_received_json_is_reader_error() {
    for strict in [false, true] {
        let config = config().strict_payloads(strict).codec(Arc::new(Headed));
        let mut socket = Socket::new(config.expect("no vsn in the address"), 1, NOW);
        socket.connect(NOW);
        socket.join(NOW, "room:a", json!({})).expect("an accepted join");
        let mut signals = drained(&mut socket);
        let id = socket.connection_id().expect("a dial");
        socket.handle_opened(NOW, id, Opened::default());
        signals.extend(drained(&mut socket));
        socket.handle_frame(NOW, id, headed("room:a ok 1 1", "{}"));
        socket.handle_frame(NOW, id, headed("room:a news - -", "{\"body\":"));
        signals.extend(drained(&mut socket));
        assert_eq!(socket.channel_status("room:a"), ChannelStatus::Joined);
        match (strict, signals.last()) {
            (false, Some(Signal::Message { payload, .. })) => {
                assert_eq!(payload.get(), Ok("{\"body\":"));
                let read = payload.to_value();
                assert!(matches!(read, Err(PayloadError::Unreadable { .. })), "{read:?}");
            }
            (true, Some(Signal::ProtocolError { .. })) => {}
            (_, other) => panic!("{other:?}"),
        }
    }
}

fn drained(socket: &mut Socket) -> Vec<Signal> {
    let actions = std::iter::from_fn(|| socket.poll_action(NOW));
    let signal = |action| match action {
        Action::Signal(signal) => Some(signal),
        _ => None,
    };
    actions.filter_map(signal).collect()
}
