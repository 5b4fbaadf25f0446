//! Subscriptions of the bus.

use phx_proto::service::Bus;
use phx_proto::service::Router;
use phx_proto::{Payload, Signal, Time};

use super::{KIB, MIB, held, one_buffer, row};

fn fed(mut signal: impl FnMut(usize) -> Signal, count: usize) -> u64 {
    let (bus, router) = (Bus::new(), Router::new());
    let subscription = bus.subscribe("**").expect("a pattern");
    let bytes = held(|| {
        for number in 0..count {
            let (signal, at) = (signal(number), Time::ZERO);
            let routed = router.route("a", &Default::default(), &signal, "1", at);
            bus.publish(routed.expect("it is routed"));
        }
    });
    drop(subscription);
    bytes
}

#[test]
fn long_event_names() {
    let name = "n".repeat(64 * KIB);
    let bytes = fed(
        |_| Signal::Message {
            topic: "room:a".into(),
            event: name.as_str().into(),
            payload: Payload::empty(),
        },
        1_024,
    );
    row("bus: event names of 64 KiB", 8 * MIB, bytes);
}

#[test]
fn long_topics() {
    let topic = "t".repeat(64 * KIB);
    let topic = |_| Signal::Message {
        topic: topic.as_str().into(),
        event: "msg".into(),
        payload: Payload::empty(),
    };
    row("bus: topics of 64 KiB", 8 * MIB, fed(topic, 1_024));
}

#[test]
fn small_json_objects() {
    let text = format!("[{}0]", r#"{"":0},"#.repeat(1_000));
    let payload: Box<serde_json::value::RawValue> = serde_json::from_str(&text).expect("JSON");
    let payload = |_| Signal::Message {
        topic: "room:a".into(),
        event: "msg".into(),
        payload: Payload::json(&payload).expect("JSON"),
    };
    row("bus: payloads of small objects", 8 * MIB, fed(payload, 1_024));
}

#[test]
fn binary_payloads() {
    let payload = |_| Signal::Message {
        topic: "room:a".into(),
        event: "msg".into(),
        payload: Payload::binary(vec![7; 64 * KIB]),
    };
    row("bus: binary payloads", 8 * MIB, fed(payload, 1_024));
}

#[test]
fn tiny_messages_beside_large_ones() {
    let beside = |_| {
        let [_, tiny] = one_buffer([&"x".repeat(MIB), "1"]);
        let (topic, event) = ("room:a".into(), "msg".into());
        Signal::Message { topic, event, payload: Payload::binary_shared(tiny) }
    };
    row("bus: tiny beside 1 MiB", 8 * MIB, fed(beside, 256));
}
