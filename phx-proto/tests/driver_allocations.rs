//! What a received message allocates on its way from the transport to the consumer: nothing, once
//! the queues on that way have their room.

mod memory;

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use bytes::Bytes;
use memory::Bench;
use phx_proto::Frame;
use phx_proto::driver::{ChannelEvent, Messages, Received};

/// A number of frames that is one batch, and fewer than a mailbox holds.
const BATCH: usize = 64;

fn read(messages: &mut Messages) -> usize {
    let mut count = 0;
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(event) = pin!(messages.next()).poll(&mut cx) {
        let Some(ChannelEvent::Message(message)) = event else { panic!("{event:?}") };
        assert_eq!(message.payload.as_bytes(), b"{\"n\":1}");
        count += 1;
    }
    count
}

#[test]
fn a_message_goes_from_the_transport_to_the_consumer_without_an_allocation() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let mut messages = room.messages();
    // Bytes that are shared, as those that tungstenite splits off its buffer.
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
    batch(); // the queues get their room
    let counts: Vec<u64> = (0..8).map(|_| batch()).collect();
    // The room for a batch is given back when nothing more comes: it grows anew in a few steps,
    // however many messages there are.
    assert!(counts.iter().all(|count| *count <= 8), "{counts:?} for {BATCH} messages each");
}
