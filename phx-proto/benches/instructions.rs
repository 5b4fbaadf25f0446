//! What the core costs, one operation after another, for counting instructions under callgrind.
//!
//! Run by the script `benches/instructions`, which turns the counts into a table with the targets
//! beside them. Each case prints one line (repetitions, target, name) and runs its
//! operations inside [`measured`], where alone callgrind collects. Run without callgrind
//! the program only shows that all cases still work.

use std::hint::black_box;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use phx_proto::wire::{Outgoing, Serializer, V2};
use phx_proto::{
    Action, Config, ConnectionId, Frame, Opened, Payload, Presence, PushOptions, Ref, Signal,
    Socket, Time,
};
use serde_json::{Value, json};

const NOW: Time = Time::from_millis(1_000);
const REPEAT: usize = 256;

/// The only place where instructions are counted.
#[inline(never)]
fn measured(repeat: usize, operation: &mut dyn FnMut(usize)) {
    for at in 0..repeat {
        operation(at);
    }
}

/// One case. The target is 0 where there is none.
fn case(name: &str, target: u32, mut operation: impl FnMut(usize)) {
    println!("{REPEAT} {target} {name}");
    measured(REPEAT, &mut operation);
}

fn main() {
    wire();
    payloads();
    messages();
    pushes();
    presence();
    timers();
}

fn wire() {
    for (size, bytes) in [("64 B", 64), ("16 KiB", 16 * 1024)] {
        let message = text(&format!("[null,null,\"room:lobby\",\"new_msg\",{}]", records(bytes)));
        decode(&format!("decode text, {size}"), 600, &message);
        let response = records(bytes);
        let reply =
            |body: &str| text(&format!("[\"4\",\"27\",\"room:lobby\",\"phx_reply\",{body}]"));
        let status_first = format!("{{\"status\":\"ok\",\"response\":{response}}}");
        decode(&format!("decode reply, status first, {size}"), 750, &reply(&status_first));
        let response_first = format!("{{\"response\":{response},\"status\":\"ok\"}}");
        decode(&format!("decode reply, response first, {size}"), 750, &reply(&response_first));
    }
    let mut push = vec![0, 1, 10, 7];
    push.extend_from_slice(b"4room:lobbynew_msg");
    push.extend_from_slice(&[7; 64]);
    decode("decode binary, 64 B", 290, &Frame::Binary(received(&push)));
    encode("encode text, 64 B", 600, || Payload::json(&value(64)).expect("JSON"));
    encode("encode binary, 64 B", 370, || Payload::binary(vec![7; 64]));
}

fn decode(name: &str, target: u32, frame: &Frame) {
    case(name, target, |_| {
        black_box(V2.decode(black_box(frame)).expect("a message"));
    });
}

fn encode(name: &str, target: u32, payload: impl Fn() -> Payload) {
    let mut payloads: Vec<Option<Payload>> = (0..REPEAT).map(|_| Some(payload())).collect();
    // Written frames are the transport's to drop.
    let mut written = Vec::with_capacity(REPEAT);
    case(name, target, |at| {
        let payload = payloads[at].take().expect("one for each");
        let (join_ref, msg_ref) = (Some(Ref::from_u64(4)), Ref::from_u64(27));
        let (topic, event) = ("room:lobby", "new_msg");
        let message = Outgoing { join_ref, msg_ref, topic, event, payload };
        written.push(V2.encode(black_box(message)).expect("a frame"));
    });
}

fn payloads() {
    let out = value(64);
    case("payload out, 64 B (serde_json and the buffer)", 0, |_| {
        black_box(Payload::json(black_box(&out)).expect("JSON"));
    });
}

fn messages() {
    for (size, bytes) in [("64 B", 64), ("16 KiB", 16 * 1024)] {
        let mut hand = Hand::joined(1_000);
        let frames = frames(|at| {
            let topic = topic(at * 7 % 1_000);
            format!("[null,null,\"{topic}\",\"new_msg\",{}]", records(bytes))
        });
        // The transport holds its read buffer.
        let mut frames = frames.clone().into_iter();
        case(&format!("core: frame in, message out, 1,000 channels, {size}"), 1_100, |_| {
            hand.receive(frames.next().expect("one for each"));
            let action = hand.socket.poll_action(NOW);
            assert!(matches!(action, Some(Action::Signal(Signal::Message { .. }))));
            assert!(hand.socket.poll_action(NOW).is_none());
        });
    }
}

fn pushes() {
    for channels in [1, 1_000] {
        let mut hand = Hand::joined(channels);
        let topics: Vec<String> = (0..REPEAT).map(|at| topic(at * 7 % channels)).collect();
        let replies = frames(|at| {
            // Refs follow those of the joins.
            let (topic, msg_ref) = (&topics[at], channels + 1 + at);
            let body = "{\"status\":\"ok\",\"response\":{}}";
            format!(
                "[\"{}\",\"{msg_ref}\",\"{topic}\",\"phx_reply\",{body}]",
                at * 7 % channels + 1
            )
        });
        let mut replies = replies.clone().into_iter();
        let mut payloads = (0..REPEAT).map(|_| Payload::json(&value(64)).expect("JSON"));
        let mut payloads = payloads.by_ref().collect::<Vec<_>>().into_iter();
        let mut written = Vec::with_capacity(REPEAT);
        let name = format!("core: push written, reply matched, {channels} channels, 64 B");
        case(&name, 2_500, |at| {
            let payload = payloads.next().expect("one for each");
            let pushed =
                hand.socket.push(NOW, &topics[at], "new_msg", payload, PushOptions::call());
            pushed.expect("an accepted push");
            written.push(hand.socket.poll_action(NOW).and_then(Action::into_frame).expect("it"));
            assert!(hand.socket.poll_action(NOW).is_none());
            hand.receive(replies.next().expect("one for each"));
            let action = hand.socket.poll_action(NOW);
            assert!(matches!(action, Some(Action::Signal(Signal::PushEnded { .. }))));
            assert!(hand.socket.poll_action(NOW).is_none());
        });
    }
}

fn presence() {
    let meta = |at: usize| json!({"metas": [{"phx_ref": format!("r{at}"), "online_at": 1}]});
    let state: Value = (0..100).map(|at| (format!("user{at}"), meta(at))).collect();
    let mut presence = Presence::<Value>::new();
    presence.joined();
    presence.sync_state(&Payload::from(state)).expect("a state");
    let diffs: Vec<Payload> = (0..REPEAT)
        .map(|at| {
            let user = json!({format!("guest{}", at / 2): meta(1_000 + at / 2)});
            let (joins, leaves) = if at % 2 == 0 { (user, json!({})) } else { (json!({}), user) };
            Payload::from(json!({"joins": joins, "leaves": leaves}))
        })
        .collect();
    case("presence: diff of one, 100 present", 0, |at| {
        black_box(presence.sync_diff(&diffs[at]).expect("a diff"));
    });
}

fn timers() {
    for pending in [1, 1_000, 100_000] {
        let mut hand = Hand::joined(1);
        let id = hand.id;
        hand.socket.handle_writable(NOW, id, false);
        let mut push = |at: usize| {
            let timeout = Duration::from_millis(10_000 + (at * 7_919 % 10_007) as u64);
            let options = PushOptions::call().timeout(timeout);
            let pushed = hand.socket.push(NOW, "room:0", "new_msg", Payload::empty(), options);
            pushed.expect("an accepted push")
        };
        for at in 0..pending {
            push(at);
        }
        let mut ids = Vec::with_capacity(REPEAT);
        case(&format!("timers: push accepted, {pending} pending"), 0, |at| ids.push(push(at)));
        let mut ids = ids.into_iter();
        case(&format!("timers: push withdrawn, {pending} pending"), 0, |_| {
            assert!(hand.socket.cancel_push(NOW, ids.next().expect("one for each")));
            assert!(hand.socket.poll_action(NOW).is_some());
        });
        case(&format!("timers: nothing due, {pending} pending"), 0, |_| {
            hand.socket.handle_timeout(NOW);
            black_box(hand.socket.poll_timeout());
        });
    }
}

/// An open socket with joined channels.
struct Hand {
    socket: Socket,
    id: ConnectionId,
}

impl Hand {
    fn joined(channels: usize) -> Self {
        let config = Config::new("ws://localhost:4000/socket/websocket").expect("a good URI");
        let config =
            config.join_concurrency(channels).expect("more than none").queued_pushes_max(1_000_000);
        let mut socket = Socket::new(config, 1, NOW);
        socket.connect(NOW);
        let id = socket.connection_id().expect("a dial");
        socket.handle_opened(NOW, id, Opened::default());
        let mut hand = Self { socket, id };
        for at in 0..channels {
            hand.socket.join(NOW, topic(at), json!({})).expect("a join");
        }
        hand.drain();
        for at in 0..channels {
            let (join_ref, topic) = (at + 1, topic(at));
            let body = "{\"status\":\"ok\",\"response\":{}}";
            let reply = format!("[\"{join_ref}\",\"{join_ref}\",\"{topic}\",\"phx_reply\",{body}]");
            hand.receive(text(&reply));
        }
        hand.drain();
        assert_eq!(hand.socket.sizes().unanswered_joins, 0);
        hand
    }

    fn receive(&mut self, frame: Frame) {
        self.socket.handle_frame(NOW, self.id, frame);
    }

    fn drain(&mut self) {
        while self.socket.poll_action(NOW).is_some() {}
    }
}

fn topic(at: usize) -> String {
    format!("room:{at}")
}

/// Many frames, made before anything is measured.
fn frames(make: impl Fn(usize) -> String) -> Vec<Frame> {
    (0..REPEAT).map(|at| text(&make(at))).collect()
}

fn text(text: &str) -> Frame {
    Frame::Text(received(text.as_bytes()))
}

/// Bytes as tungstenite hands them over: split off a read buffer.
fn received(bytes: &[u8]) -> Bytes {
    let mut buffer = BytesMut::with_capacity(bytes.len() + 1);
    buffer.put_slice(bytes);
    buffer.put_u8(0);
    buffer.split_to(bytes.len()).freeze()
}

/// An object of about so many bytes.
fn value(bytes: usize) -> Value {
    if bytes < 256 {
        return json!({"id": 4711, "body": "x".repeat(bytes - 22)});
    }
    let record = json!({"id": 4711, "name": "alice", "tags": ["a", "b"], "score": 1.5, "ok": true});
    json!({"records": vec![record; bytes / 64]})
}

fn records(bytes: usize) -> String {
    value(bytes).to_string()
}
