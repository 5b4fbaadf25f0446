//! Queued pushes, calls in flight, and refusals that many joins wait for.

use core::future::Future;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use phx_proto::event::Refusal;
use phx_proto::{Action, Cause, Config, Frame, Opened, Payload, PushOptions, Socket, Time};
use serde_json::{Value, json};

use super::{KIB, MIB, held, large, one_buffer, receive, row};
use crate::bench::Bench;

const NOW: Time = Time::from_millis(1_000);

fn socket() -> Socket {
    let config = Config::new("ws://localhost:4000/socket/websocket").expect("a valid URI");
    let mut socket = Socket::new(config, 7, NOW);
    socket.connect(NOW);
    socket.join(NOW, "room:a", json!({})).expect("joined once");
    while socket.poll_action(NOW).is_some() {}
    socket
}

fn queued(mut push: impl FnMut(&mut Socket) -> bool) -> u64 {
    let mut socket = socket();
    held(|| {
        for _ in 0..2_000 {
            if !push(&mut socket) {
                break;
            }
        }
    })
}

#[test]
fn long_event_names() {
    let name = "n".repeat(4 * MIB);
    let mut left = 20;
    let bytes = queued(|socket| {
        left -= 1;
        let push = socket.push(NOW, "room:a", &name, json!({}), PushOptions::call());
        push.is_ok() && left > 0
    });
    row("push queue: event names of 4 MiB", 8 * MIB, bytes);
}

/// Payloads are serialised piece by piece into a buffer that doubles its capacity.
#[test]
fn payloads_with_spare_capacity() {
    let payload = Value::from(vec![1; 530 * KIB]);
    let bytes = queued(|socket| {
        socket.push(NOW, "room:a", "msg", payload.clone(), PushOptions::call()).is_ok()
    });
    row("push queue: serialised in pieces", 8 * MIB, bytes);
}

#[test]
fn payloads_beside_large_bytes() {
    let mut left = 64;
    let bytes = queued(|socket| {
        left -= 1;
        let [_, tiny] = one_buffer([&"x".repeat(MIB), "1"]);
        let payload = Payload::binary_shared(tiny);
        socket.push(NOW, "room:a", "msg", payload, PushOptions::call()).is_ok() && left > 0
    });
    row("push queue: slices of the caller's bytes", 8 * MIB, bytes);
}

/// Calls that were written and are not answered.
#[test]
fn calls_in_flight() {
    let mut socket = socket();
    let id = socket.connection_id().expect("it connects");
    socket.handle_opened(NOW, id, Opened::default());
    let join = loop {
        match socket.poll_action(NOW).expect("a join") {
            Action::Join { frame, .. } => break frame,
            _ => continue,
        }
    };
    let join: Value = serde_json::from_slice(join.as_bytes()).expect("JSON");
    let ok = format!(
        r#"[{},{},"room:a","phx_reply",{{"status":"ok","response":{{}}}}]"#,
        join[0], join[1]
    );
    socket.handle_frame(NOW, id, Frame::from(ok));
    while socket.poll_action(NOW).is_some() {}
    let bytes = held(|| {
        for _ in 0..60_000 {
            let push = socket.push(NOW, "room:a", "msg", json!({}), PushOptions::call());
            if push.is_err() {
                break;
            }
            while socket.poll_action(NOW).is_some() {}
        }
    });
    // 16,384 calls in flight, and the calls that wait behind them.
    row("60,000 calls without an answer", 16_384 * 256 + MIB, bytes);
}

/// Replies whose futures are kept and not polled.
#[test]
fn replies_to_unpolled_futures() {
    const CALLS: usize = 60;
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:a");
    let mut calls: Vec<_> = (0..CALLS).map(|_| Box::pin(room.push("msg", json!({})))).collect();
    for call in &mut calls {
        assert!(call.as_mut().poll_once().is_pending());
    }
    bench.settle();
    let sent: Vec<Value> = bench.memory.world().to_server.split_off(1);
    assert_eq!(sent.len(), CALLS);
    let bytes = held(|| {
        for call in &sent {
            let body = json!({"status": "ok", "response": {}});
            let reply = json!([call[0], call[1], call[2], "phx_reply", body]).to_string();
            receive(&mut bench, one_buffer([&large(MIB), &reply]));
        }
    });
    row("60 replies beside 1 MiB, futures not polled", 8 * MIB, bytes);
    let outcomes = calls.into_iter().map(|mut call| call.as_mut().poll_once());
    assert!(outcomes.into_iter().all(|outcome| outcome.is_ready()));
}

/// A reply that is taken or dropped no longer counts, so a reply that arrives alone is never
/// copied.
#[test]
fn taken_replies_free_the_bound() {
    let mut bench = Bench::new(|config| config.mailbox(16, 300 * KIB).expect("a mailbox"));
    let room = bench.joined("room:a");
    for round in 0..20 {
        let mut call = Box::pin(room.push("msg", json!({})));
        assert!(call.as_mut().poll_once().is_pending());
        bench.settle();
        let sent = bench.last_sent();
        let body = json!({"status": "ok", "response": "x".repeat(100 * KIB)});
        let reply = json!([sent[0], sent[1], sent[2], "phx_reply", body]).to_string();
        let [frame] = one_buffer([&reply]);
        let within = frame.as_ptr_range();
        receive(&mut bench, [frame.clone()]);
        if round % 2 == 0 {
            continue;
        }
        let Poll::Ready(Ok(reply)) = call.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("the reply has come");
        };
        assert!(
            within.contains(&reply.response.as_bytes().as_ptr()),
            "round {round}: it was copied"
        );
    }
}

/// All waiters of a refusal share one copy of it.
#[test]
fn refusal_of_many_waiting_joins() {
    let mut bench = Bench::new(|config| config);
    bench.cut();
    let client = bench.client.clone();
    let topics: Vec<String> = (0..200).map(|n| format!("room:{n}")).collect();
    let mut joins: Vec<_> =
        topics.iter().map(|topic| Box::pin(client.join(topic.as_str(), json!({})))).collect();
    for join in &mut joins {
        assert!(join.as_mut().poll_once().is_pending());
    }
    bench.settle();
    let bytes = held(|| {
        let headers = (0..64).map(|n| (format!("x-{n}"), "v".repeat(200))).collect();
        let refused = Cause::Refused(Refusal::new(503, headers, vec![b'b'; 4_000]));
        bench.memory.world().failures.push_back(refused);
        bench.advance(Duration::from_secs(2));
    });
    drop(joins);
    row("refusal that 200 joins wait behind", 32 * KIB, bytes);
}

trait PollOnce {
    fn poll_once(self) -> Poll<()>;
}

impl<F: Future> PollOnce for core::pin::Pin<&mut F> {
    fn poll_once(self) -> Poll<()> {
        self.poll(&mut Context::from_waker(Waker::noop())).map(drop)
    }
}
