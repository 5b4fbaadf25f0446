//! Tests with an adversarial scheduler: spurious polls, an exhausted budget for the runtime's
//! resources, and streams that return `Pending` at every second call. No input and no deadline is
//! lost.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use serde_json::json;

use super::scripted::{Flood, Hesitant};
use super::stage::{signal, until};
use crate::rt::phx::event::Cause;
use crate::rt::phx::testing::{Listener, ServerConfig};
use crate::rt::phx::{self, Config, JoinParams, Signal};
use crate::rt::{Runtime, Scripted, block_on, exhaust_budget, sleep, spawn};

/// Polls a future; in the polls for which `starved` is true, its task has used up its budget.
async fn without_budget<F: Future>(future: F, starved: impl Fn(usize) -> bool) -> F::Output {
    let (mut future, mut polls) = (pin!(future), 0);
    poll_fn(|cx| {
        polls += 1;
        if starved(polls) {
            exhaust_budget();
        }
        future.as_mut().poll(cx)
    })
    .await
}

/// Like `without_budget`, with spurious polls.
async fn with_spurious_polls<F: Future>(future: F, starved: impl Fn(usize) -> bool) -> F::Output {
    let (mut future, mut polls) = (pin!(future), 0);
    poll_fn(|cx| {
        polls += 1;
        if starved(polls) {
            exhaust_budget();
        }
        // A spurious poll, with the waker of a task that has ended.
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Poll::Ready(done);
        }
        future.as_mut().poll(cx)
    })
    .await
}

fn config(url: &str) -> Config {
    Config::new(url).expect("an address")
}

/// If the consumer in `futures::join!(consumer, driver)` had used up the task's budget, the connect
/// timeout was lost: tokio's timer then returns `Pending` without registering the waker.
#[test]
fn connect_timeout_survives_an_exhausted_budget() {
    block_on(async {
        // A server that accepts and sends nothing.
        let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let url = format!("ws://{}/socket/websocket", silent.local_addr().expect("an address"));
        let config = config(&url).connect_timeout(Duration::from_millis(200));
        let (client, driver) = phx::client::client(config, Runtime::new());
        let mut signals = client.signals();
        client.connect();
        spawn(without_budget(driver, |polls| polls <= 4));
        let cause = signal(&mut signals, |signal| match signal {
            Signal::ConnectFailed { cause, .. } => Some(cause),
            _ => None,
        });
        assert_eq!(cause.await, Cause::ConnectTimeout);
        drop(client);
    })
}

/// Without a budget, tokio's sockets return `Pending` although the answer has arrived.
#[test]
fn answers_are_read_without_a_budget() {
    block_on(async {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), ServerConfig::default());
        let listener = listener.await.expect("a port");
        let config = config(&listener.url())
            .heartbeat_interval(Duration::from_millis(20))
            .heartbeat_timeout(Duration::from_secs(5));
        let (client, driver) = phx::client::client(config, Runtime::new());
        client.connect();
        spawn(with_spurious_polls(driver, |_| true));
        let room = client.join("room:lobby", json!({})).await.expect("joined");
        for n in 0..20 {
            let reply = room.push("echo", json!({ "n": n })).await.expect("a reply");
            assert_eq!(reply.response.to_value().expect("JSON"), json!({ "n": n }));
        }
        until("heartbeats are answered", || client.stats().last_rtt.is_some()).await;
        assert!(!client.stats().reconnects.contains_key("heartbeat_timeout"));
        client.disconnect().await;
    })
}

/// A heartbeat is sent although every poll of the timer was spurious.
#[test]
fn timers_survive_spurious_polls() {
    block_on(async {
        let flood = Flood::new(b"", b"");
        let config = config("ws://localhost:4000/socket/websocket")
            .heartbeat_interval(Duration::from_millis(40))
            .auto_join("room:a", JoinParams::none())
            .expect("no reserved topic");
        let script = flood.clone();
        let runtime = Runtime::new().dial_with(move |_| {
            let script = Hesitant::new(script.clone());
            async move { Ok(Scripted::new(script)) }
        });
        let (client, driver) = phx::client::client(config, runtime);
        client.connect();
        spawn(with_spurious_polls(driver, |polls| polls % 2 == 0));
        let beats = || {
            let frames = flood.frames();
            let beat = |payload: &[u8]| payload.windows(9).any(|part| part == b"heartbeat");
            frames.iter().filter(|(_, payload)| beat(payload)).count()
        };
        until("it is open", || client.status() == phx::socket::Status::Open).await;
        until("a heartbeat is written", || beats() > 0).await;
        sleep(Duration::from_millis(1)).await;
        drop(client);
    })
}
