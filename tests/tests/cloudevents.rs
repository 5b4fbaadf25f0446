//! The router's events are CloudEvents that the official SDK can read.

use std::collections::BTreeMap;

use cloudevents::{AttributesReader, Data, Event};
use phx_proto::event::NextStep;
use phx_proto::service::{EventIds, Router, TypeScheme};
use phx_proto::{Cause, ConnectionId, Payload, Signal, Time};
use serde_json::{Value, json};

fn read(router: &Router, signal: &Signal) -> Event {
    let attributes = BTreeMap::from([("sessionid".to_owned(), "s1".to_owned())]);
    let at = Time::from_millis(1_700_000_000_123);
    let id = EventIds::new(1).next(at);
    let routed = router.route("backend", &attributes, signal, &id, at).expect("it is routed");
    let text = serde_json::to_string(&routed.event).expect("an event is JSON");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn official_sdk_reads_every_attribute() {
    let payload = Payload::from(json!({"body": "żółw 🐢", "n": [1, 2.5, null]}));
    let topic = "room:lobby";
    let signal = Signal::Message { topic: topic.into(), event: "new_msg".into(), payload };
    let event = read(&Router::new(), &signal);
    assert_eq!(event.ty(), "phoenix.backend.room_lobby.new_msg");
    assert_eq!(event.source(), "/phoenix/backend");
    assert_eq!(event.subject(), Some(topic));
    assert_eq!(event.datacontenttype(), Some("application/json"));
    let time = event.time().expect("a time");
    assert_eq!(time.timestamp_millis(), 1_700_000_000_123);
    assert_eq!(event.extension("sessionid").map(ToString::to_string).as_deref(), Some("s1"));
    let Some(Data::Json(data)) = event.data() else { panic!("JSON data") };
    assert_eq!(data["payload"]["body"], "żółw 🐢");
}

/// Events of both type schemes, one of them with a binary payload.
#[test]
fn official_sdk_reads_both_type_schemes() {
    let id = ConnectionId::from_u64(1);
    let cause = Cause::TransportLost { message: "reset".into() };
    let signals = [
        Signal::Connected { id },
        Signal::ConnectFailed { id, cause: cause.clone(), next: NextStep::Stop },
        Signal::Disconnected { id, cause, next: NextStep::Stop },
        Signal::Joined { topic: "a:b".into(), response: Payload::empty() },
        Signal::Message {
            topic: "a.b *%".into(),
            event: "e".into(),
            payload: Payload::binary(vec![0, 1, 255]),
        },
    ];
    for scheme in [TypeScheme::Templated, TypeScheme::Fixed] {
        let router = Router::new().scheme(scheme);
        for signal in &signals {
            let event = read(&router, signal);
            let Some(Data::Json(Value::Object(data))) = event.data() else { panic!("an object") };
            assert_eq!(data["connection_name"], "backend");
        }
    }
}
