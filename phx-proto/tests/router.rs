//! The router: every signal to its event, and where it goes.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use phx_proto::wire::{DecodeError, DecodeProblem};
use phx_proto::{
    Cause, ChannelEnd, CloudEvent, ConnectionId, EventIds, Interruption, LeaveOutcome, NextStep,
    NotSentCause, Payload, PushId, PushOutcome, Rejection, RejectionKind, Reply, Routed, Router,
    Signal, Time, TypeScheme, UnknownCause, Warning,
};
use proptest::prelude::*;
use serde_json::json;

const AT: Time = Time::from_millis(1_700_000_000_000);

fn route(router: &Router, signal: &Signal) -> Option<Routed> {
    let attributes = BTreeMap::from([("sessionid".to_owned(), "s1".to_owned())]);
    router.route("backend_service", &attributes, signal, "id-1", AT)
}

fn message(topic: &str, event: &str, payload: Payload) -> Signal {
    Signal::Message { topic: topic.into(), event: event.into(), payload }
}

/// Every signal, with its types in both schemes.
fn table() -> Vec<(Signal, Option<&'static str>, Option<&'static str>)> {
    let id = ConnectionId::from_u64(1);
    let topic = || "room:lobby".into();
    let lost = || Cause::TransportLost { message: "reset".into() };
    let response = || Payload::from(json!({"a": 1}));
    let rejection = |kind| Rejection { kind, response: response() };
    let push = |outcome| Signal::PushEnded { id: PushId::from_u64(3), topic: topic(), outcome };
    let state = Some("jido_coder.phoenix.connection.state");
    let channel = Some("jido_coder.phoenix.channel.state");
    let next = NextStep::Retry { delay: Duration::from_millis(250), attempt: 2 };
    let reply = Reply { status: "ok".into(), response: response() };
    let problem = DecodeProblem::Other { message: "odd".into() };
    let error = DecodeError::new(problem, 0, b"s3cret");
    let rejected =
        |kind| Signal::JoinRejected { topic: topic(), rejection: rejection(kind), last: true };
    vec![
        (Signal::Connecting { id, attempt: 2 }, Some("phoenix.connection.connecting"), state),
        (Signal::Connected { id }, Some("phoenix.connection.connected"), state),
        (
            Signal::Disconnected { id, cause: lost(), next },
            Some("phoenix.connection.disconnected"),
            state,
        ),
        (Signal::GaveUp { cause: lost() }, Some("phoenix.connection.gave_up"), state),
        (Signal::Closed, Some("phoenix.connection.closed"), state),
        (
            Signal::Joined { topic: topic(), response: response() },
            Some("phoenix.channel.joined"),
            channel,
        ),
        (
            Signal::Resumed { topic: topic(), response: response() },
            Some("phoenix.channel.resumed"),
            channel,
        ),
        (rejected(RejectionKind::Application), Some("phoenix.channel.rejected"), channel),
        (Signal::JoinTimedOut { topic: topic() }, Some("phoenix.channel.join_timed_out"), channel),
        (
            Signal::Errored { topic: topic(), payload: response() },
            Some("phoenix.channel.errored"),
            channel,
        ),
        (
            Signal::Interrupted { topic: topic(), cause: Interruption::Crashed },
            Some("phoenix.channel.interrupted"),
            channel,
        ),
        (
            Signal::Left { topic: topic(), outcome: LeaveOutcome::Acked },
            Some("phoenix.channel.left"),
            channel,
        ),
        (
            Signal::ChannelClosed { topic: topic(), cause: ChannelEnd::ClosedByServer },
            Some("phoenix.channel.closed"),
            channel,
        ),
        (
            message("room:lobby", "msg", response()),
            Some("phoenix.backend_service.room_lobby.msg"),
            Some("jido_coder.phoenix.event"),
        ),
        (push(PushOutcome::Reply(reply)), Some("phoenix.push.replied"), None),
        (push(PushOutcome::Written), Some("phoenix.push.written"), None),
        (push(PushOutcome::TimedOut), Some("phoenix.push.timed_out"), None),
        (push(PushOutcome::Unknown(UnknownCause::Left)), Some("phoenix.push.unknown"), None),
        (push(PushOutcome::NotSent(NotSentCause::Left)), Some("phoenix.push.not_sent"), None),
        (push(PushOutcome::Cancelled), Some("phoenix.push.cancelled"), None),
        (Signal::HeartbeatAcked { rtt: Duration::from_millis(1) }, None, None),
        (Signal::ProtocolError { error }, Some("phoenix.connection.protocol_error"), None),
        (
            Signal::Warning(Warning::AuthTokenNotAcknowledged),
            Some("phoenix.connection.warning"),
            None,
        ),
    ]
}

#[test]
fn every_signal_has_its_type_in_both_schemes_or_is_not_routed() {
    let templated = Router::new();
    let fixed = Router::new().scheme(TypeScheme::Fixed);
    for (signal, in_templated, in_fixed) in table() {
        for (router, expected) in [(&templated, in_templated), (&fixed, in_fixed)] {
            let routed = route(router, &signal);
            let kind = routed.as_ref().map(|routed| routed.event.kind.as_str());
            assert_eq!(kind, expected, "{signal:?}");
            let Some(Routed { event, topics, .. }) = routed else { continue };
            assert_eq!(event.data["connection_name"], "backend_service", "defect 3 of the model");
            assert_eq!(event.attributes["sessionid"], "s1");
            assert_eq!((event.id.as_str(), event.specversion.as_str()), ("id-1", "1.0"));
            assert_eq!(topics[0], "jido.protocol.phoenix.backend_service");
            assert_eq!(topics.last().unwrap(), &format!("jido.signal.{}", event.kind));
            assert!(!serde_json::to_string(&event).unwrap().contains("s3cret"));
        }
    }
}

#[test]
fn an_event_of_a_channel_goes_to_connection_channel_and_type() {
    let signal = message("room:lobby", "msg", Payload::from(json!({"body": "hi"})));
    let Routed { event, topics, .. } = route(&Router::new(), &signal).unwrap();
    assert_eq!(
        topics,
        [
            "jido.protocol.phoenix.backend_service",
            "jido.protocol.phoenix.backend_service.room:lobby",
            "jido.signal.phoenix.backend_service.room_lobby.msg",
        ]
    );
    assert_eq!(
        serde_json::to_value(&event).unwrap(),
        json!({
            "specversion": "1.0",
            "id": "id-1",
            "source": "/phoenix/backend_service",
            "type": "phoenix.backend_service.room_lobby.msg",
            "subject": "room:lobby",
            "time": "2023-11-14T22:13:20.000Z",
            "datacontenttype": "application/json",
            "sessionid": "s1",
            "data": {
                "connection_name": "backend_service",
                "topic": "room:lobby",
                "event": "msg",
                "payload": {"body": "hi"},
            },
        })
    );
}

#[test]
fn prefix_and_source_can_be_chosen() {
    let router = Router::new().prefix("acme").source("/acme/phx").scheme(TypeScheme::Fixed);
    let Routed { event, topics, .. } = route(&router, &Signal::Closed).unwrap();
    assert_eq!(event.source, "/acme/phx");
    assert_eq!(
        topics,
        [
            "acme.protocol.phoenix.backend_service",
            "acme.signal.jido_coder.phoenix.connection.state",
        ]
    );
    let fixed = Router::new().scheme(TypeScheme::Fixed);
    assert_eq!(route(&fixed, &Signal::Closed).unwrap().event.source, "/jido_coder/phoenix");
}

/// Defects 11 and 12 of the model: payloads of any kind, and responses, are carried.
#[test]
fn payloads_of_every_kind_become_valid_json() {
    for (payload, key, value) in [
        (Payload::from(json!([1])), "payload", json!([1])),
        (Payload::from(json!("text")), "payload", json!("text")),
        (Payload::from(json!(null)), "payload", json!(null)),
        (Payload::binary(vec![0, 255, 7]), "payload_base64", json!("AP8H")),
        (Payload::binary(""), "payload_base64", json!("")),
    ] {
        let routed = route(&Router::new(), &message("t", "e", payload)).unwrap();
        assert_eq!(routed.event.data[key], value, "{key}");
    }
    // What the server sent is no JSON, and nobody parsed it before.
    let frame = phx_proto::Frame::from(r#"[null,null,"t","e",{"a":nope}]"#);
    let decoded = phx_proto::wire::Serializer::decode(&phx_proto::wire::V2, &frame).unwrap();
    let phx_proto::wire::Body::Event { payload, .. } = decoded.body else { panic!("an event") };
    let routed = route(&Router::new(), &message("t", "e", payload)).unwrap();
    assert_eq!(routed.event.data["payload_text"], r#"{"a":nope}"#);
}

#[test]
fn a_disconnect_says_why_and_what_follows() {
    let cause = Cause::HeartbeatTimeout;
    let next = NextStep::Retry { delay: Duration::from_millis(250), attempt: 3 };
    let signal = Signal::Disconnected { id: ConnectionId::from_u64(1), cause, next };
    let data = route(&Router::new(), &signal).unwrap().event.data;
    assert_eq!(data["state"], "disconnected");
    assert_eq!(data["reason"], "heartbeat_timeout");
    assert_eq!((&data["reconnect_attempts"], &data["retry_after_msec"]), (&json!(3), &json!(250)));
}

#[test]
fn what_was_lost_on_the_way_is_an_event_too() {
    let routed = Router::new().route_lagged("a", &BTreeMap::new(), 7, "i", AT).unwrap();
    assert_eq!(routed.event.kind, "phoenix.connection.lagged");
    assert_eq!(routed.event.data["count"], 7);
}

#[test]
fn an_event_survives_being_written_and_read() {
    let signal = message("room:lobby", "msg", Payload::from(json!({"a": [1, "ü"]})));
    let event = route(&Router::new(), &signal).unwrap().event;
    let text = serde_json::to_string(&event).unwrap();
    assert_eq!(serde_json::from_str::<CloudEvent>(&text).unwrap(), event);
    let other = text.replace(r#""specversion":"1.0""#, r#""specversion":"1.0.2""#);
    assert_eq!(serde_json::from_str::<CloudEvent>(&other).unwrap(), event);
    let wrong = text.replace(r#""specversion":"1.0""#, r#""specversion":"0.3""#);
    assert!(serde_json::from_str::<CloudEvent>(&wrong).is_err());
}

#[test]
fn ids_are_unique_across_events() {
    let mut ids = EventIds::new(1);
    let all: BTreeSet<String> = (0..10_000).map(|_| ids.next(AT)).collect();
    assert_eq!(all.len(), 10_000);
}

proptest! {
    /// Design 5: two different (connection, topic) pairs never share a bus topic.
    #[test]
    fn the_bus_topic_tells_connection_and_topic_apart(
        one in ("[a-z.*% :_\\PC]{0,6}", "[a-z.*% :_\\PC]{0,6}"),
        other in ("[a-z.*% :_\\PC]{0,6}", "[a-z.*% :_\\PC]{0,6}"),
    ) {
        let topics = |(name, topic): &(String, String)| {
            let signal = message(topic, "e", Payload::empty());
            let routed = Router::new().route(name, &BTreeMap::new(), &signal, "i", AT).unwrap();
            let closed = Router::new().route(name, &BTreeMap::new(), &Signal::Closed, "i", AT);
            (routed.topics[1].clone(), closed.unwrap().topics[0].clone())
        };
        let (a, b) = (topics(&one), topics(&other));
        prop_assert_eq!(a.0 == b.0, one == other);
        prop_assert_eq!(a.1 == b.1, one.0 == other.0);
        // The topic of a channel is never that of a connection.
        prop_assert_ne!(&a.0, &b.1);
        // Each name is one segment, whatever is in it.
        prop_assert_eq!(a.0.split('.').count(), 5);
        prop_assert!(!a.0.contains('*') && !a.0.contains(char::is_whitespace));
    }
}
