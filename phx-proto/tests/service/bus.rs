//! The bus: delivery by pattern, and the losses of slow subscribers.

use core::future::Future as _;
use core::task::{Context, Poll, Waker};
use std::collections::BTreeMap;

use crate::fleet::{subscribe, types};
use phx_proto::service::{Bus, BusEvent};
use phx_proto::service::{Routed, Router};
use phx_proto::{Payload, Signal, Time};
use serde_json::json;

fn event(topic: &str, payload: Payload) -> Routed {
    let signal = Signal::Message { topic: topic.into(), event: "msg".into(), payload };
    Router::new().route("a", &BTreeMap::new(), &signal, "1", Time::ZERO).expect("it is routed")
}

fn small(topic: &str) -> Routed {
    event(topic, Payload::empty())
}

fn next(subscription: &mut phx_proto::service::Subscription) -> Poll<Option<BusEvent>> {
    core::pin::pin!(subscription.next()).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn event_reaches_each_matching_subscription_once() {
    let bus = Bus::new();
    let mut all = subscribe(&bus, "**");
    let mut lobby = subscribe(&bus, "jido.protocol.phoenix.*.room:lobby");
    let mut other = subscribe(&bus, "jido.protocol.phoenix.*.room:other");
    assert_eq!(bus.publish(small("room:lobby")), 2);
    assert_eq!(types(&mut all), ["phoenix.a.room_lobby.msg"], "once, though three topics match");
    assert_eq!(types(&mut lobby).len(), 1);
    assert_eq!(types(&mut other).len(), 0);
}

#[test]
fn several_patterns_deliver_an_event_once() {
    let bus = Bus::new();
    let mut both = bus.subscribe_any(["**", "jido.protocol.**"]).expect("patterns");
    bus.publish(small("t"));
    assert_eq!(types(&mut both).len(), 1);
    assert!(bus.subscribe_any(["**", "a*"]).is_err());
}

#[test]
fn earlier_events_are_not_delivered() {
    let bus = Bus::new();
    assert_eq!(bus.publish(small("t")), 0);
    assert_eq!(types(&mut subscribe(&bus, "**")).len(), 0);
}

/// A subscriber whose queue overflowed gets the number of lost events.
#[test]
fn slow_subscriber_loses_the_oldest() {
    let bus = Bus::new();
    let mut slow = subscribe(&bus, "**");
    (0..1_030).for_each(|n| {
        bus.publish(small(&format!("t{n}")));
    });
    assert_eq!(next(&mut slow), Poll::Ready(Some(BusEvent::Lagged(6))));
    let Poll::Ready(Some(BusEvent::Event(first))) = next(&mut slow) else { panic!("an event") };
    assert_eq!(first.event.subject.as_deref(), Some("t6"));
}

#[test]
fn bytes_are_bounded() {
    let bus = Bus::new();
    let mut slow = subscribe(&bus, "**");
    for _ in 0..12 {
        bus.publish(event("t", Payload::from(json!("x".repeat(1 << 20)))));
    }
    let Poll::Ready(Some(BusEvent::Lagged(lost))) = next(&mut slow) else { panic!("a loss") };
    assert!((4..=6).contains(&lost), "{lost}");
}

/// The memory of an event counts in whole, and not only its payload: the event's name, bytes that are
/// not JSON, attributes.
#[test]
fn event_memory_is_counted() {
    let long = "x".repeat(1 << 20);
    let named =
        Signal::Message { topic: "t".into(), event: (&*long).into(), payload: Payload::empty() };
    let binary = || event("t", Payload::binary(&long));
    let attributes = BTreeMap::from([("a".to_owned(), long.clone())]);
    let routed = |signal: &Signal, attributes: &BTreeMap<_, _>| {
        Router::new().route("a", attributes, signal, "1", Time::ZERO).expect("it is routed")
    };
    let none = BTreeMap::new();
    let shapes: [&dyn Fn() -> Routed; 4] =
        [&|| routed(&named, &none), &binary, &|| routed(&Signal::Closed, &attributes), &|| {
            event(&long, Payload::empty())
        }];
    for (shape, make) in shapes.into_iter().enumerate() {
        let bus = Bus::new();
        let mut slow = subscribe(&bus, "**");
        for _ in 0..12 {
            bus.publish(make());
        }
        let Poll::Ready(Some(BusEvent::Lagged(lost))) = next(&mut slow) else { panic!("{shape}") };
        // Three copies of the topic are held: in the subject, in a bus topic, and in the data.
        let expected = if shape == 3 { 10..=10 } else { 4..=5 };
        assert!(expected.contains(&lost), "{shape}: {lost}");
    }
}

#[test]
fn closed_bus_ends_subscriptions_after_backlog() {
    let bus = Bus::new();
    let mut subscription = subscribe(&bus, "**");
    assert_eq!(next(&mut subscription), Poll::Pending);
    bus.publish(small("t"));
    drop(bus);
    assert!(matches!(next(&mut subscription), Poll::Ready(Some(BusEvent::Event(_)))));
    assert_eq!(next(&mut subscription), Poll::Ready(None));
}

/// A consumer that counts what is left after a close must come to an end, whatever a producer does.
#[test]
fn closed_bus_delivers_no_later_event() {
    let bus = Bus::new();
    let mut subscription = subscribe(&bus, "**");
    assert_eq!(bus.publish(small("before")), 1);
    bus.close();
    assert_eq!(bus.publish(small("after")), 0);
    assert!(matches!(next(&mut subscription), Poll::Ready(Some(BusEvent::Event(_)))));
    assert_eq!(next(&mut subscription), Poll::Ready(None));
    assert_eq!(next(&mut subscribe(&bus, "**")), Poll::Ready(None));
}

#[test]
fn dropped_subscription_costs_nothing() {
    let bus = Bus::new();
    drop(subscribe(&bus, "**"));
    assert_eq!(bus.publish(small("t")), 0);
    assert!(format!("{bus:?}").contains("subscriptions: 0"));
}
