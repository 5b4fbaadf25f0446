//! vsn 1.0.0: frames are JSON objects, and the server never sends a join_ref.

use std::sync::Arc;
use std::time::Duration;

use crate::hand::{Hand, config, config_v1};
use phx_proto::event::PushErrorKind;
use phx_proto::wire::{Body, Codec, DecodeProblem, EncodeError, Incoming, Outgoing, V1, WireRef};
use phx_proto::{
    Action, ChannelStatus, Config, Frame, Opened, Payload, PushOptions, PushOutcome, Ref, Signal,
    Socket, Time,
};
use serde_json::{Value, json};

fn v1() -> Config {
    config().codec(Arc::new(V1)).expect("no vsn in the address")
}

/// A socket with `room:a` joined, and the frames it wrote.
struct Line {
    socket: Socket,
    sent: Vec<Value>,
    signals: Vec<Signal>,
    id: Option<phx_proto::ConnectionId>,
}

const NOW: Time = Time::from_millis(5);

impl Line {
    fn joined() -> Self {
        let socket = Socket::new(v1(), 3, NOW);
        let mut line = Self { socket, sent: vec![], signals: vec![], id: None };
        line.socket.join(NOW, "room:a", json!({"user": 7})).unwrap();
        line.socket.connect(NOW);
        line.drain();
        line.socket.handle_opened(NOW, line.id.unwrap(), Opened::default());
        line.drain();
        line.receive(&json!({
            "topic": "room:a", "event": "phx_reply", "ref": "1",
            "payload": {"status": "ok", "response": {"hello": 1}}
        }));
        line.signals.clear();
        line
    }

    fn drain(&mut self) {
        while let Some(action) = self.socket.poll_action(NOW) {
            match action {
                Action::Connect { id, .. } => self.id = Some(id),
                Action::Signal(signal) => self.signals.push(signal),
                other => {
                    if let Some(frame) = other.into_frame() {
                        self.sent.push(serde_json::from_slice(frame.as_bytes()).unwrap());
                    }
                }
            }
        }
    }

    fn receive(&mut self, message: &Value) {
        self.socket.handle_frame(NOW, self.id.unwrap(), Frame::from(message.to_string()));
        self.drain();
    }
}

/// The request contains the vsn, and a join contains its ref as join_ref.
/// Protocol: CONN-2, REF-4, V1-1, V1-3.
#[test]
fn vsn_is_requested_and_join_has_join_ref() {
    let line = Line::joined();
    assert!(
        line.socket
            .connect_request()
            .expect("an address that may be dialled")
            .uri
            .target()
            .ends_with("?vsn=1.0.0")
    );
    assert_eq!(
        line.sent,
        [json!({
            "topic": "room:a", "event": "phx_join", "payload": {"user": 7},
            "ref": "1", "join_ref": "1"
        })]
    );
    assert_eq!(line.socket.channel_status("room:a"), ChannelStatus::Joined);
}

/// A push contains the join_ref, and its reply is matched by the ref.
/// Protocol: V1-2, V1-3.
#[test]
fn push_has_join_ref_and_matches_by_ref() {
    let mut line = Line::joined();
    let id = line.socket.push(NOW, "room:a", "echo", json!([1]), PushOptions::call()).unwrap();
    line.drain();
    assert_eq!(line.sent[1]["join_ref"], "1");
    line.receive(&json!({
        "topic": "room:a", "event": "phx_reply", "ref": line.sent[1]["ref"],
        "payload": {"response": [1], "status": "ok"}
    }));
    assert!(matches!(
        line.signals.as_slice(),
        [Signal::PushEnded { id: ended, outcome: PushOutcome::Reply(_), .. }] if *ended == id
    ));
}

/// A `phx_close` or `phx_error` with another ref is stale. With the ref of the join it ends the
/// instance.
/// Protocol: V1-4.
#[test]
fn stale_close_and_error_match_by_ref() {
    for event in ["phx_close", "phx_error"] {
        let mut line = Line::joined();
        let message = |msg_ref: &str| json!({"topic": "room:a", "event": event, "ref": msg_ref, "payload": {}});
        line.receive(&message("99"));
        assert_eq!(line.socket.channel_status("room:a"), ChannelStatus::Joined, "{event}");
        assert_eq!(line.socket.stats().stale_frames, 1);
        line.receive(&message("1"));
        assert_ne!(line.socket.channel_status("room:a"), ChannelStatus::Joined, "{event}");
    }
}

/// Messages are delivered although the server sends no join_ref.
/// Protocol: V1-2.
#[test]
fn messages_without_join_ref_are_delivered() {
    let mut line = Line::joined();
    line.receive(&json!({"topic": "room:a", "event": "tick", "ref": null, "payload": {"n": 1}}));
    let [Signal::Message { event, payload, .. }] = line.signals.as_slice() else {
        panic!("{:?}", line.signals);
    };
    assert_eq!(*event, "tick");
    assert_eq!(payload.to_value().unwrap(), json!({"n": 1}));
}

/// A push with a binary payload fails at the call, because vsn 1 has no binary frames.
/// Protocol: V1-5.
#[test]
fn binary_payloads_are_refused_at_the_call() {
    let mut line = Line::joined();
    let error = line
        .socket
        .push(NOW, "room:a", "e", Payload::binary(vec![1]), PushOptions::call())
        .unwrap_err();
    assert_eq!(error.kind, PushErrorKind::Encode(EncodeError::NoBinary));
    assert_eq!(error.payload, Payload::binary(vec![1]));
}

#[test]
fn invalid_message_is_a_described_error() {
    for text in [
        "",
        "[]",
        "{}",
        "{",
        "null",
        r#"{"topic":"t","event":"e","ref":null}"#,
        r#"{"topic":1,"event":"e","payload":{},"ref":null}"#,
        r#"{"topic":"t","event":"e","payload":{},"ref":null} x"#,
        r#"{"topic":"t","event":"e","payload":{},"ref":null,"other":nonsense}"#,
        r#"{"topic":"t","event":"phx_reply","payload":{"status":"ok"},"ref":null}"#,
        r#"["1","1","room:a","e",{}]"#,
    ] {
        let error = V1.decode(&Frame::from(text)).unwrap_err();
        assert!(matches!(error.problem, DecodeProblem::Expected { .. }), "{text}: {error}");
    }
    assert!(V1.decode(&Frame::Binary("x".into())).is_err());
}

/// The members of an object may have any order, and the payload is not changed.
#[test]
fn members_come_in_any_order() {
    let payload = r#"{ "a" : [ 1 , "}" ] }"#;
    let text = format!(
        r#" {{"ref":"7","payload":{payload} ,"x":{{"y":[]}},"event":"e","topic":"t\u00e9"}} "#
    );
    let message = V1.decode(&Frame::from(text)).unwrap();
    assert_eq!(message.msg_ref, WireRef::Ref(Ref::from_u64(7)));
    assert_eq!((message.join_ref, &*message.topic), (WireRef::Null, "té"));
    let Body::Event { payload: found, .. } = message.body else { panic!("an event") };
    assert_eq!(found.get().unwrap(), payload);
}

#[test]
fn encoding_round_trips_within_announced_length() {
    for (topic, event) in [("room:a", "e"), ("quote\"\n\u{1}", "ünï\\"), ("", "")] {
        let payload = Payload::from(json!({"k": [1, 2]}));
        let (join_ref, msg_ref) = (Some(Ref::from_u64(u64::MAX)), Ref::from_u64(u64::MAX));
        let outgoing = Outgoing { join_ref, msg_ref, topic, event, payload: payload.clone() };
        let frame = V1.encode(outgoing).unwrap();
        assert!(frame.len() <= payload.len() + V1.max_envelope_len(topic, event));
        let Incoming { topic: read, body, .. } = V1.decode(&frame).unwrap();
        assert_eq!(&*read, topic);
        assert_eq!(body, Body::Event { event: event.into(), payload });
    }
}

#[test]
fn recorded_server_messages_are_readable() {
    let mut read = 0;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/wire");
    for name in ["v1_heartbeat", "v1_join_push_leave", "v1_with_join_ref", "v1_malformed"] {
        let text = std::fs::read_to_string(format!("{folder}/{name}.jsonl")).unwrap();
        for line in text.lines().skip(1) {
            let event: Value = serde_json::from_str(line).unwrap();
            if event["dir"] != "s2c" || event["kind"] != "text" {
                continue;
            }
            let frame = event["text"].as_str().unwrap();
            let expected: Value = serde_json::from_str(frame).unwrap();
            let message = V1.decode(&Frame::from(frame)).unwrap();
            assert_eq!(&*message.topic, expected["topic"].as_str().unwrap());
            match message.body {
                Body::Reply { status, response } => {
                    assert_eq!(&*status, expected["payload"]["status"].as_str().unwrap());
                    assert_eq!(response.to_value().unwrap(), expected["payload"]["response"]);
                }
                Body::Event { event, payload } => {
                    assert_eq!(&*event, expected["event"].as_str().unwrap());
                    assert_eq!(payload.to_value().unwrap(), expected["payload"]);
                }
            }
            read += 1;
        }
    }
    assert!(read >= 15, "{read} messages");
}

/// In vsn 1 no reply names a join, so an application may send "unmatched topic" itself. Such replies
/// make the channel rejoin once per `stable_after`, and not for each push.
/// Protocol: V1-7.
#[test]
fn unmatched_topic_rejoins_once_per_stable_after() {
    let unmatched = |hand: &mut Hand| {
        hand.socket.push(hand.now, "room:a", "e", json!({}), PushOptions::call()).unwrap();
        hand.drain();
        let sent = hand.last_sent("room:a", "e");
        let payload = json!({"status": "error", "response": {"reason": "unmatched topic"}});
        hand.receive(&json!([null, sent.msg_ref, "room:a", "phx_reply", payload]));
    };
    for (config, limited) in [(config_v1(), true), (config(), false)] {
        let mut hand = Hand::joined(config.heartbeat_interval(Duration::ZERO));
        unmatched_of(&mut hand, unmatched, true);
        hand.advance(Duration::from_secs(1));
        hand.answer_join("room:a");
        unmatched_of(&mut hand, unmatched, !limited);
        if limited {
            // The limit holds across connections.
            hand.lost();
            hand.until_dial();
            hand.opened();
            hand.answer_join("room:a");
            unmatched_of(&mut hand, unmatched, false);
            hand.advance(Duration::from_secs(9));
            unmatched_of(&mut hand, unmatched, true);
        }
    }
}

fn unmatched_of(hand: &mut Hand, unmatched: impl Fn(&mut Hand), rejoins: bool) {
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
    hand.forget();
    unmatched(hand);
    let errored = matches!(hand.socket.channel_status("room:a"), ChannelStatus::Errored { .. });
    assert_eq!(errored, rejoins, "{:?}", hand.signals);
    // The push gets its outcome in either case.
    let replied = |signal: &Signal| {
        matches!(signal, Signal::PushEnded { outcome: PushOutcome::Reply(_), .. })
    };
    assert!(hand.signals.iter().any(replied));
}
