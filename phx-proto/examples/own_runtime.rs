//! The driver in a runtime that is neither tokio nor smol: a loop that polls everything.
//!
//! A real runtime waits for its wakers instead of looking again every millisecond, and dials a
//! socket where this one talks to a server in the same process. The rest is what it takes.
#![allow(clippy::disallowed_methods, reason = "a runtime has a clock; the core has none")]
#![allow(clippy::disallowed_types, reason = "a runtime has a clock; the core has none")]

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use phx_proto::client::{Received, Runtime, Timer, Transport, WriteFailed, connect};
use phx_proto::testing::{HttpRequest, Output, PeerId, Server, ServerConfig};
use phx_proto::{Cause, Config, ConnectRequest, Ended, Frame, Opened, Time};
use serde_json::json;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Clone)]
struct Own {
    start: Instant,
    tasks: Arc<Mutex<Vec<Task>>>,
    server: Arc<Mutex<Server>>,
}

impl Own {
    /// Polls `main` and every spawned task until `main` is done.
    fn block_on<T>(&self, main: impl Future<Output = T>) -> T {
        let (mut main, mut cx) = (pin!(main), Context::from_waker(Waker::noop()));
        loop {
            if let Poll::Ready(output) = main.as_mut().poll(&mut cx) {
                return output;
            }
            let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
            tasks.retain_mut(|task| task.as_mut().poll(&mut cx).is_pending());
            self.tasks.lock().unwrap().append(&mut tasks);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Runtime for Own {
    type Transport = Wire;
    type Timer = Alarm;

    fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    fn wall(&self) -> Time {
        Time::ZERO + SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
    }

    fn seed(&self) -> u64 {
        // A real one asks the operating system for entropy.
        self.wall().as_nanos()
    }

    fn timer(&self) -> Alarm {
        Alarm { runtime: self.clone(), at: None }
    }

    fn connect(
        &self,
        request: ConnectRequest,
        _: &Config,
    ) -> impl Future<Output = Result<(Wire, Opened), Cause>> + Send + 'static {
        let runtime = self.clone();
        async move {
            let request = HttpRequest { path: request.uri.target(), ..HttpRequest::default() };
            let now = runtime.now();
            let accepted = runtime.server.lock().unwrap().connect(now, &request);
            let refused = |refusal: phx_proto::testing::HttpRefusal| Cause::Dial {
                kind: phx_proto::event::DialKind::Other,
                message: format!("HTTP {}", refusal.status),
            };
            let peer = accepted.map_err(refused)?.peer;
            let received = VecDeque::new();
            Ok((Wire { runtime, peer, received, closed: false }, Opened::default()))
        }
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().unwrap().push(Box::pin(future));
    }
}

struct Alarm {
    runtime: Own,
    at: Option<Time>,
}

impl Timer for Alarm {
    fn reset(&mut self, at: Option<Time>) {
        self.at = at;
    }

    fn poll_expired(&mut self, _: &mut Context<'_>) -> Poll<()> {
        let expired = self.at.is_some_and(|at| at <= self.runtime.now());
        if expired { Poll::Ready(()) } else { Poll::Pending }
    }
}

struct Wire {
    runtime: Own,
    peer: PeerId,
    received: VecDeque<Received>,
    closed: bool,
}

impl Transport for Wire {
    fn poll_receive(&mut self, _: &mut Context<'_>) -> Poll<Received> {
        while let Some(output) = self.runtime.server.lock().unwrap().poll_output() {
            self.received.push_back(match output {
                Output::Send { frame, .. } => Received::Frame(frame),
                _ => Received::Ended(Ended::Lost { message: "the server ended it".into() }),
            });
        }
        if self.closed {
            let ended = Ended::CloseFrame { code: Some(1000), reason: String::new() };
            return Poll::Ready(Received::Ended(ended));
        }
        self.received.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, frame: Frame) -> Result<(), WriteFailed> {
        let now = self.runtime.now();
        self.runtime.server.lock().unwrap().handle_frame(now, self.peer, &frame);
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        Poll::Ready(Ok(()))
    }

    fn close(&mut self, code: u16, _: &str) {
        let now = self.runtime.now();
        self.runtime.server.lock().unwrap().handle_close(now, self.peer, Some(code));
        self.closed = true;
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Arc::new(Mutex::new(Server::new(ServerConfig::default())));
    let runtime = Own { start: Instant::now(), tasks: Arc::default(), server };
    let config = Config::new("ws://localhost/socket/websocket")?;
    runtime.block_on(async {
        let client = connect(config, runtime.clone()).await?;
        let room = client.join("room:lobby", json!({})).await?;
        let reply = room.push("echo", json!({"body": "hi"})).await?.ok()?;
        println!("{}", reply.get()?);
        client.disconnect().await;
        Ok(())
    })
}

#[test]
fn the_example_runs_to_its_end() {
    main().unwrap();
}
