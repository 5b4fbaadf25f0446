//! The operations of the core, one after another, for counting instructions under callgrind.
//!
//! The script `benches/instructions` runs this program and prints a table of the counts and their
//! targets. Each case prints one line (repetitions, target, name). Callgrind collects only inside of
//! [`measured`]: an operation's values are built before it, and its results are dropped after it, so
//! the allocator is in the state of a running program. Without callgrind the program only checks that
//! all cases work.

use std::hint::black_box;
use std::mem;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use phx_proto::websocket::{Endpoint, Event, Limits};
use phx_proto::wire::{Codec, Outgoing, V2};
use phx_proto::{
    Action, Config, ConnectionId, Frame, Opened, Payload, Presence, PushOptions, Ref, Signal,
    Socket, Time,
};
use serde_json::{Value, json};

const NOW: Time = Time::from_millis(1_000);
const REPEAT: usize = 256;

/// Callgrind counts instructions only in this function.
#[inline(never)]
fn measured(operation: &mut dyn FnMut()) {
    operation();
}

/// Marks the end of a case for callgrind.
#[inline(never)]
fn counted() {
    black_box(());
}

/// One case: the preparation, and the operation that is counted. A target of 0 means no target.
fn case<T, R>(
    name: &str,
    target: u32,
    mut ready: impl FnMut(usize) -> T,
    mut operation: impl FnMut(T) -> R,
) {
    println!("{REPEAT} {target} {name}");
    for at in 0..REPEAT {
        let (mut input, mut output) = (Some(ready(at)), None);
        measured(&mut || output = input.take().map(&mut operation));
        drop(output);
    }
    counted();
}

fn main() {
    wire();
    payloads();
    messages();
    pushes();
    joins();
    presence();
    timers();
    websocket();
}

fn wire() {
    for (size, bytes) in [("64 B", 64), ("16 KiB", 16 * 1024)] {
        let message = text(&format!("[null,null,\"room:lobby\",\"new_msg\",{}]", records(bytes)));
        decode(&format!("decode text, {size}"), 470, &message);
        let response = records(bytes);
        let reply =
            |body: &str| text(&format!("[\"4\",\"27\",\"room:lobby\",\"phx_reply\",{body}]"));
        let status_first = format!("{{\"status\":\"ok\",\"response\":{response}}}");
        decode(&format!("decode reply, status first, {size}"), 520, &reply(&status_first));
        let response_first = format!("{{\"response\":{response},\"status\":\"ok\"}}");
        decode(&format!("decode reply, response first, {size}"), 550, &reply(&response_first));
    }
    let mut push = vec![0, 1, 10, 7];
    push.extend_from_slice(b"4room:lobbynew_msg");
    push.extend_from_slice(&[7; 64]);
    decode("decode binary, 64 B", 290, &Frame::Binary(received(&push)));
    let json = value(64);
    encode("payload out and encode text, 64 B", 1_570, || Payload::json(&json).expect("JSON"));
    let bytes = [7; 64];
    encode("payload out and encode binary, 64 B", 580, || Payload::binary(bytes));
}

fn decode(name: &str, target: u32, frame: &Frame) {
    assert!(V2.decode(frame).is_ok());
    let decode = |()| {
        let message = V2.decode(black_box(frame));
        black_box(&message);
        // Moving the message out of here, or dropping it, would be counted.
        mem::forget(message);
    };
    case(name, target, |_| (), decode);
}

fn encode(name: &str, target: u32, payload: impl Fn() -> Payload) {
    case(
        name,
        target,
        |_| (),
        |()| {
            let payload = payload();
            let (join_ref, msg_ref) = (Some(Ref::from_u64(4)), Ref::from_u64(27));
            let (topic, event) = ("room:lobby", "new_msg");
            let message = Outgoing { join_ref, msg_ref, topic, event, payload };
            V2.encode(black_box(message)).expect("a frame")
        },
    );
}

fn payloads() {
    let out = value(64);
    let name = "payload out, 64 B (serde_json and the buffer)";
    case(name, 0, |_| (), |()| Payload::json(black_box(&out)).expect("JSON"));
}

fn messages() {
    for (size, bytes) in [("64 B", 64), ("16 KiB", 16 * 1024)] {
        let mut hand = Hand::joined(1_000);
        case(
            &format!("core: frame in, message out, 1,000 channels, {size}"),
            880,
            |at| {
                let topic = topic(at * 7 % 1_000);
                text(&format!("[null,null,\"{topic}\",\"new_msg\",{}]", records(bytes)))
            },
            |frame| {
                let action = hand.socket.handle_frame_and_poll(NOW, hand.id, frame);
                assert!(matches!(action, Some(Action::Signal(Signal::Message { .. }))));
                assert!(hand.socket.poll_action(NOW).is_none());
                mem::forget(action);
            },
        );
    }
}

fn pushes() {
    let value = value(64);
    for channels in [1, 1_000] {
        let mut hand = Hand::joined(channels);
        case(
            &format!("core: payload out, push written, reply matched, {channels} channels, 64 B"),
            3_900,
            |at| {
                let (topic, join_ref) = (topic(at * 7 % channels), at * 7 % channels + 1);
                // The refs of pushes follow the refs of the joins.
                let msg_ref = channels + 1 + at;
                let body = "{\"status\":\"ok\",\"response\":{}}";
                let reply =
                    format!("[\"{join_ref}\",\"{msg_ref}\",\"{topic}\",\"phx_reply\",{body}]");
                (topic, text(&reply))
            },
            |(topic, reply)| {
                let payload = Payload::json(&value).expect("JSON");
                let pushed = hand.socket.push(NOW, &topic, "new_msg", payload, PushOptions::call());
                pushed.expect("an accepted push");
                let written = hand.socket.poll_action(NOW);
                assert!(matches!(written, Some(Action::Send { .. })));
                assert!(hand.socket.poll_action(NOW).is_none());
                let ended = hand.socket.handle_frame_and_poll(NOW, hand.id, reply);
                assert!(matches!(ended, Some(Action::Signal(Signal::PushEnded { .. }))));
                assert!(hand.socket.poll_action(NOW).is_none());
                // In a program, the transport and the application drop these.
                mem::forget((topic, written, ended));
            },
        );
    }
}

/// A server may answer joins in any order. Newest first is the worst order for a search from the
/// front.
fn joins() {
    for (unanswered, name) in [(1_000, "1,000"), (16_000, "16,000")] {
        let mut hand = Hand::joining(unanswered);
        case(
            &format!("core: join answered in reverse, {name} unanswered"),
            0,
            |at| join_reply(unanswered - 1 - at),
            |reply| {
                hand.receive(reply);
                let action = hand.socket.poll_action(NOW);
                assert!(matches!(action, Some(Action::Signal(Signal::Joined { .. }))));
                mem::forget(action);
            },
        );
    }
}

fn presence() {
    let meta = |at: usize| json!({"metas": [{"phx_ref": format!("r{at}"), "online_at": 1}]});
    let state: Value = (0..100).map(|at| (format!("user{at}"), meta(at))).collect();
    let mut presence = Presence::<Value>::new();
    presence.joined();
    presence.sync_state(&Payload::from(state)).expect("a state");
    case(
        "presence: diff of one, 100 present",
        0,
        |at| {
            let user = json!({format!("guest{}", at / 2): meta(1_000 + at / 2)});
            let (joins, leaves) = if at % 2 == 0 { (user, json!({})) } else { (json!({}), user) };
            Payload::from(json!({"joins": joins, "leaves": leaves}))
        },
        |diff| presence.sync_diff(&diff).expect("a diff"),
    );
}

fn timers() {
    for pending in [1, 1_000, 100_000] {
        let mut hand = Hand::joined(1);
        let id = hand.id;
        hand.socket.handle_writable(NOW, id, false);
        let push = |hand: &mut Hand, at: usize| {
            let timeout = Duration::from_millis(10_000 + (at * 7_919 % 10_007) as u64);
            let options = PushOptions::call().timeout(timeout);
            let pushed = hand.socket.push(NOW, "room:0", "new_msg", Payload::empty(), options);
            pushed.expect("an accepted push")
        };
        for at in 0..pending {
            push(&mut hand, at);
        }
        let mut ids = Vec::with_capacity(REPEAT);
        let accepted = |at| ids.push(push(&mut hand, at));
        case(&format!("timers: push accepted, {pending} pending"), 0, |at| at, accepted);
        let withdrawn = |id| {
            assert!(hand.socket.cancel_push(NOW, id));
            hand.socket.poll_action(NOW).expect("its end")
        };
        case(&format!("timers: push withdrawn, {pending} pending"), 0, |at| ids[at], withdrawn);
        let nothing_due = |()| {
            hand.socket.handle_timeout(NOW);
            hand.socket.poll_timeout()
        };
        case(&format!("timers: nothing due, {pending} pending"), 0, |_| (), nothing_due);
    }
}

/// Many frames in one read, and many frames in one write.
fn websocket() {
    let mut endpoint = Endpoint::client(&Limits::default());
    for (name, target, payload) in [
        ("64 B", 220, vec![b'x'; 64]),
        ("64 B, not all of it ASCII", 930, "\u{e4}".repeat(32).into_bytes()),
        ("1 KiB", 370, vec![b'x'; 1_024]),
    ] {
        let mut stream = vec![0x81];
        match u8::try_from(payload.len()) {
            Ok(length @ 0..=125) => stream.push(length),
            _ => {
                stream.push(126);
                stream.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            }
        }
        stream.extend_from_slice(&payload);
        let mut buffer = BytesMut::from(&stream.repeat(REPEAT + 1)[..]);
        // The first split makes the buffer a shared one.
        mem::forget(endpoint.poll_event(&mut buffer));
        let receive = |()| {
            let event = endpoint.poll_event(black_box(&mut buffer));
            assert!(matches!(event, Ok(Some(Event::Message(_)))));
            mem::forget(event);
        };
        case(&format!("websocket: receive text, {name}"), target, |_| (), receive);
    }

    let mut out = BytesMut::with_capacity(1 << 20);
    case(
        "websocket: send text, 64 B, and the message dropped",
        630,
        |_| text(&"x".repeat(64)),
        |frame| {
            endpoint.send(frame).expect("there is room");
            endpoint.poll_transmit(&mut out, usize::MAX, || [1, 2, 3, 4])
        },
    );
}

/// An open socket with joined channels.
struct Hand {
    socket: Socket,
    id: ConnectionId,
}

impl Hand {
    fn joined(channels: usize) -> Self {
        let mut hand = Self::joining(channels);
        for at in 0..channels {
            hand.receive(join_reply(at));
        }
        hand.drain();
        assert_eq!(hand.socket.sizes().unanswered_joins, 0);
        // A large allocation makes the allocator sort the memory freed so far. Otherwise the first
        // operation with a large allocation would be charged for that.
        drop(black_box(Vec::<u8>::with_capacity(1 << 16)));
        hand
    }

    /// A socket whose joins are written and not answered.
    fn joining(channels: usize) -> Self {
        let config = Config::new("ws://localhost:4000/socket/websocket").expect("a good URI");
        let config =
            config.join_concurrency(channels).expect("not zero").queued_pushes_max(1_000_000);
        let mut socket = Socket::new(config, 1, NOW);
        socket.connect(NOW);
        let id = socket.connection_id().expect("a dial");
        socket.handle_opened(NOW, id, Opened::default());
        let mut hand = Self { socket, id };
        for at in 0..channels {
            hand.socket.join(NOW, topic(at), json!({})).expect("a join");
        }
        hand.drain();
        assert_eq!(hand.socket.sizes().unanswered_joins, channels);
        hand
    }

    fn receive(&mut self, frame: Frame) {
        self.socket.handle_frame(NOW, self.id, frame);
    }

    fn drain(&mut self) {
        while self.socket.poll_action(NOW).is_some() {}
    }
}

/// The ok to the join of a topic. The joins are the first frames.
fn join_reply(at: usize) -> Frame {
    let (join_ref, topic) = (at + 1, topic(at));
    let body = "{\"status\":\"ok\",\"response\":{}}";
    text(&format!("[\"{join_ref}\",\"{join_ref}\",\"{topic}\",\"phx_reply\",{body}]"))
}

fn topic(at: usize) -> String {
    format!("room:{at}")
}

fn text(text: &str) -> Frame {
    Frame::Text(received(text.as_bytes()))
}

/// Bytes as tungstenite returns them: split off a read buffer.
fn received(bytes: &[u8]) -> Bytes {
    let mut buffer = BytesMut::with_capacity(bytes.len() + 1);
    buffer.put_slice(bytes);
    buffer.put_u8(0);
    buffer.split_to(bytes.len()).freeze()
}

/// An object with about this many bytes.
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
