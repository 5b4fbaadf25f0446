//! A serializer of one's own: MessagePack, for a server that configured one under its own vsn.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::config;
use phx_proto::wire::{
    Body, DecodeError, DecodeProblem, EncodeError, Message, Outgoing, Serializer, WireRef,
};
use phx_proto::{
    Action, ChannelStatus, ConnectionId, Frame, Opened, Payload, PushErrorKind, PushOptions,
    PushOutcome, Signal, Socket, Time,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `[join_ref, ref, topic, event, payload]` as MessagePack. It has no use for bytes that are not
/// a value, so it refuses them.
#[derive(Debug)]
struct MessagePack;

#[derive(Debug, Serialize, Deserialize)]
struct Envelope(Option<String>, Option<String>, String, String, Value);

#[derive(Deserialize)]
struct Answer {
    status: String,
    response: Value,
}

impl Serializer for MessagePack {
    fn vsn(&self) -> &str {
        "msgpack-1"
    }

    fn decode(&self, frame: &Frame) -> Result<Message, DecodeError> {
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
        Ok(Message { join_ref, msg_ref, topic: topic.into(), body })
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
        // Two refs, five headers of up to five bytes, the array's own.
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
            config().serializer(Arc::new(MessagePack)).expect("no vsn in the address"),
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

    fn says(&mut self, join_ref: Option<&str>, msg_ref: Option<&str>, event: &str, payload: Value) {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let envelope =
            Envelope(owned(join_ref), owned(msg_ref), "room:a".into(), event.into(), payload);
        let bytes = rmp_serde::to_vec(&envelope).expect("an envelope");
        self.receive(Frame::Binary(Bytes::from(bytes)));
    }
}

#[test]
fn a_serializer_of_ones_own_carries_joins_pushes_replies_and_messages() {
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
    line.says(Some("1"), Some("1"), "phx_reply", json!({"status": "ok", "response": {"n": 1}}));
    assert_eq!(line.socket.channel_status("room:a"), ChannelStatus::Joined);

    let options = PushOptions::call();
    line.socket.push(NOW, "room:a", "ask", json!([1, 2]), options).expect("an accepted push");
    line.drain();
    assert_eq!((line.sent[1].3.as_str(), &line.sent[1].4), ("ask", &json!([1, 2])));
    let answer = json!({"response": {"sum": 3}, "status": "ok"});
    line.says(Some("1"), Some("2"), "phx_reply", answer);
    let reply = line.signals.iter().find_map(|signal| match signal {
        Signal::PushEnded { outcome: PushOutcome::Reply(reply), .. } => Some(reply.clone()),
        _ => None,
    });
    assert_eq!(reply.expect("a reply").response.to_value().unwrap(), json!({"sum": 3}));

    line.says(None, None, "news", json!({"unicode": "żółw 🐢", "deep": [[[null]]]}));
    let Some(Signal::Message { event, payload, .. }) = line.signals.last() else {
        panic!("{:?}", line.signals)
    };
    assert_eq!(&**event, "news");
    assert_eq!(payload.to_value().unwrap()["unicode"], "żółw 🐢");
}

#[test]
fn a_frame_it_cannot_read_is_a_protocol_error_in_its_own_words_and_the_next_one_works() {
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
    line.says(Some("1"), Some("1"), "phx_reply", json!({"status": "ok", "response": {}}));
    assert_eq!(line.socket.channel_status("room:a"), ChannelStatus::Joined);
}

#[test]
fn what_it_refuses_is_the_callers_error_at_once() {
    let mut line = Line::open();
    line.socket.join(NOW, "room:a", json!({})).expect("an accepted join");
    let payload = Payload::binary("bytes");
    let error = line.socket.push(NOW, "room:a", "ask", payload.clone(), PushOptions::call());
    let error = error.expect_err("no binary in here");
    assert_eq!(error.kind, PushErrorKind::Encode(EncodeError::NoBinary));
    assert_eq!(error.payload, payload, "handed back");
}
