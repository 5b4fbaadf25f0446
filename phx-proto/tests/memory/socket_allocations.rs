//! A received message allocates nothing: its payload and its long names are slices of the frame that
//! the transport allocated, and short names are stored in their values.

use crate::hand::{Hand, config};
use bytes::{BufMut, Bytes, BytesMut};
use phx_proto::wire::{Codec, V2};
use phx_proto::{Action, Frame, Signal};

/// Bytes as tungstenite returns them: split off a read buffer.
fn received(bytes: &[u8]) -> Bytes {
    let mut buffer = BytesMut::with_capacity(bytes.len() + 1);
    buffer.put_slice(bytes);
    buffer.put_u8(0);
    buffer.split_to(bytes.len()).freeze()
}

fn text(text: &str) -> Frame {
    Frame::Text(received(text.as_bytes()))
}

fn allocations(run: impl FnOnce()) -> u64 {
    allocation_counter::measure(run).count_total
}

#[test]
fn counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(7)))), 1);
}

/// Decoding allocates nothing for frames of every kind and size.
#[test]
fn decoding_allocates_nothing() {
    let large = "x".repeat(16 * 1024);
    let binary = [&[2, 6, 3], b"room:amsg".as_slice(), large.as_bytes()].concat();
    let frames = [
        text(r#"[null,null,"room:a","msg",{"body":"hi"}]"#),
        text(&format!(r#"["1",null,"room:a","msg",{{"body":"{large}"}}]"#)),
        text(&format!(r#"["1","2","room:a","phx_reply",{{"status":"ok","response":"{large}"}}]"#)),
        text(&format!(r#"["1","2","room:a","phx_reply",{{"response":"{large}","status":"no"}}]"#)),
        Frame::Binary(received(&binary)),
    ];
    for frame in frames {
        let count = allocations(|| drop(V2.decode(&frame).expect("a message")));
        assert_eq!(count, 0, "{}", String::from_utf8_lossy(&frame.as_bytes()[..30]));
    }
}

#[test]
fn message_passes_core_without_allocation() {
    let mut hand = Hand::joined(config());
    let id = hand.dialled.expect("a dial");
    let frame = text(r#"[null,null,"room:a","msg",{"body":"hi"}]"#);
    let mut receive = |times: usize| {
        for _ in 0..times {
            hand.socket.handle_frame(hand.now, id, frame.clone());
            let action = hand.socket.poll_action(hand.now);
            assert!(matches!(action, Some(Action::Signal(Signal::Message { .. }))));
            assert!(hand.socket.poll_action(hand.now).is_none());
        }
    };
    receive(1); // the queue of actions has its capacity from then on
    assert_eq!(allocations(|| receive(1_000)), 0);
}
