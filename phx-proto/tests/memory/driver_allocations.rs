//! Between the transport and the consumer, a received message causes no allocation once the queues
//! have their capacity. The cost of a hostile message to a supervised connection is bounded.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use crate::bench::Bench;
use crate::fleet::{Fleet, config, subscribe};
use bytes::Bytes;
use phx_proto::client::{ChannelEvent, Messages, Received};
use phx_proto::service::{BusEvent, Subscription, Supervisor};
use phx_proto::{Frame, JoinParams};
use serde_json::json;

/// The number of frames in a batch. A mailbox holds more.
const BATCH: usize = 64;

fn read(messages: &mut Messages) -> usize {
    let mut count = 0;
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(event) = pin!(messages.next()).poll(&mut cx) {
        let Some(ChannelEvent::Message(message)) = event else { panic!("{event:?}") };
        assert_eq!(message.payload().as_bytes(), b"{\"n\":1}");
        count += 1;
    }
    count
}

#[test]
fn message_reaches_consumer_without_allocation() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let mut messages = room.messages();
    // Shared bytes, like the slices that tungstenite splits off its buffer.
    let frame = Bytes::from(br#"[null,null,"room:lobby","msg",{"n":1}]"#.to_vec());
    let mut batch = || {
        for _ in 0..BATCH {
            let received = Received::Frame(Frame::Text(frame.clone()));
            bench.memory.world().to_client.push_back(received);
        }
        let counted = allocation_counter::measure(|| {
            bench.settle();
            assert_eq!(read(&mut messages), BATCH);
        });
        counted.count_total
    };
    batch(); // the queues get their capacity
    let counts: Vec<u64> = (0..8).map(|_| batch()).collect();
    // The capacity for a batch is released when no more messages come. It grows again by doubling, in far
    // fewer steps than there are messages.
    assert!(counts.iter().all(|count| *count <= 8), "{counts:?} for {BATCH} messages each");
}

/// A connection that has joined `room:a`, under a supervisor.
fn supervised() -> (Fleet, Supervisor) {
    let fleet = Fleet::new();
    let supervisor = fleet.supervisor();
    let config = config("a").auto_join("room:a", JoinParams::from(json!({})));
    supervisor.start_connection("a", config.expect("no reserved topic")).expect("a free name");
    fleet.settle();
    (fleet, supervisor)
}

fn message(event: &str, payload: &str) -> Frame {
    Frame::from(format!(r#"[null,null,"room:a","{event}",{payload}]"#))
}

/// Messages of some MiB whose other forms, such as a parsed tree, would be much larger.
fn hostile() -> Vec<(&'static str, Frame)> {
    const SIZE: usize = 2 << 20;
    let filled = |text: &str| text.repeat(SIZE / text.len());
    let list = |item: &str| format!("[{}1]", filled(item));
    let levels = SIZE / 2;
    let mut binary = vec![2, 6, 1];
    binary.extend_from_slice(b"room:ae");
    binary.resize(SIZE, 255);
    vec![
        ("objects", message("e", &list(r#"{"":0},"#))),
        ("lists", message("e", &list("[],"))),
        ("numbers", message("e", &list("1,"))),
        ("nested lists", message("e", &format!("{}{}", "[".repeat(levels), "]".repeat(levels)))),
        ("an open list", message("e", &filled("["))),
        ("a string", message("e", &format!("\"{}\"", filled("x")))),
        ("escapes", message("e", &format!("\"{}\"", filled("\\u0001")))),
        ("line breaks", message("e", &list("\n1,"))),
        ("bad JSON", message("e", &list("\"\","))),
        ("controls", message("e", &format!("[{}]", filled("\u{1}")))),
        ("quotes", message("e", &format!("[{}]", filled("\"")))),
        ("an event", message(&filled("e"), "{}")),
        ("an escaped event", message(&filled("\\u0001"), "{}")),
        ("a quoted event", message(&filled("\\\""), "{}")),
        ("binary", Frame::Binary(binary.into())),
    ]
}

fn take(events: &mut Subscription) -> Option<BusEvent> {
    match pin!(events.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(event) => event,
        Poll::Pending => None,
    }
}

/// Without a subscriber a message is not parsed. With a subscriber, one more copy is held, as text.
#[test]
fn hostile_message_costs_little() {
    for (shape, frame) in hostile() {
        let (fleet, supervisor) = supervised();
        let len = frame.len() as u64;
        let mut others = subscribe(supervisor.bus(), "jido.protocol.phoenix.b.**");
        let ignored = allocation_counter::measure(|| fleet.sends("a", frame.clone()));
        // An event that consists of escapes is unescaped so that it can be compared with others.
        let event = if shape.contains("event") { len } else { 0 };
        assert!(ignored.bytes_max < 16_384 + event, "{shape}: {ignored:?} without a subscriber");
        assert!(take(&mut others).is_none());

        let mut events = subscribe(supervisor.bus(), "**");
        let routed = allocation_counter::measure(|| fleet.sends("a", frame.clone()));
        // At the peak, there are at most two copies besides the frame itself.
        assert!(routed.bytes_max <= 2 * len, "{shape}: {routed:?} of {len}");
        let kept = u64::try_from(routed.bytes_current).expect("an event is kept");
        assert!(kept < len + 16_384, "{shape}: {kept} of {len}");
        assert!(matches!(take(&mut events), Some(BusEvent::Event(_))), "{shape}");
    }
}
