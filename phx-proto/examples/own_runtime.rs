//! Runs the driver in a runtime that is neither tokio nor smol: a loop that polls every task.
//!
//! A real runtime waits for wakers instead of polling every millisecond, and dials a socket instead
//! of a server in the same process. Otherwise this example implements everything that a runtime
//! needs.
#![allow(clippy::disallowed_methods, reason = "a runtime has a clock; the core has none")]
#![allow(clippy::disallowed_types, reason = "a runtime has a clock; the core has none")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, Ready, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use phx_proto::client::{Clock, Received, Runtime, Spawn, Timer, Transport, WriteFailed, connect};
use phx_proto::event::DialKind;
use phx_proto::testing::{HttpRequest, Output, PeerId, Server, ServerConfig};
use phx_proto::{Cause, Config, ConnectRequest, Ended, Frame, Opened, Time};
use serde_json::json;

type Task = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Clone)]
struct Own {
    clock: OwnClock,
    tasks: Rc<RefCell<Vec<Task>>>,
    server: Rc<RefCell<Server>>,
}

impl Own {
    /// Polls `main` and every spawned task until `main` is done.
    fn block_on<T>(&self, main: impl Future<Output = T>) -> T {
        let (mut main, mut cx) = (pin!(main), Context::from_waker(Waker::noop()));
        loop {
            if let Poll::Ready(output) = main.as_mut().poll(&mut cx) {
                return output;
            }
            let mut tasks = self.tasks.take();
            tasks.retain_mut(|task| task.as_mut().poll(&mut cx).is_pending());
            self.tasks.borrow_mut().append(&mut tasks);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The only type that must be `Send` and `Sync`, because each handle of the client keeps a clock.
#[derive(Clone)]
struct OwnClock(Instant);

impl Clock for OwnClock {
    fn now(&self) -> Time {
        Time::ZERO + self.0.elapsed()
    }

    fn wall(&self) -> Time {
        Time::ZERO + SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
    }
}

impl Runtime for Own {
    type Clock = OwnClock;
    type Transport = Wire;
    type Timer = Alarm;
    type Dial = Ready<Result<(Wire, Opened), Cause>>;

    fn clock(&self) -> OwnClock {
        self.clock.clone()
    }

    fn seed(&self) -> u64 {
        // A real runtime asks the operating system for entropy.
        self.clock.wall().as_nanos()
    }

    fn timer(&self) -> Alarm {
        Alarm { clock: self.clock.clone(), at: None }
    }

    /// A real runtime boxes an `async` block that resolves, connects and upgrades.
    fn connect(&self, request: ConnectRequest, _: &Config) -> Self::Dial {
        let request = HttpRequest { path: request.uri.target(), ..HttpRequest::default() };
        let accepted = self.server.borrow_mut().connect(self.clock.now(), &request);
        let opened = accepted.map(|accepted| {
            let (runtime, received) = (self.clone(), VecDeque::new());
            let wire = Wire { runtime, peer: accepted.peer, received, closed: false };
            (wire, Opened::default())
        });
        ready(opened.map_err(|refusal| Cause::Dial {
            kind: DialKind::Other,
            message: format!("HTTP {}", refusal.status),
        }))
    }
}

/// This runtime does not require `Send`.
impl<F: Future<Output = ()> + 'static> Spawn<F> for Own {
    fn spawn(&self, future: F) {
        self.tasks.borrow_mut().push(Box::pin(future));
    }
}

struct Alarm {
    clock: OwnClock,
    at: Option<Time>,
}

impl Timer for Alarm {
    fn reset(&mut self, at: Option<Time>) {
        self.at = at;
    }

    fn poll_expired(&mut self, _: &mut Context<'_>) -> Poll<()> {
        let expired = self.at.is_some_and(|at| at <= self.clock.now());
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
        while let Some(output) = self.runtime.server.borrow_mut().poll_output() {
            self.received.push_back(match output {
                Output::Send { frame, .. } => Received::Frame(frame),
                _ => Received::Ended(Ended::Lost {
                    message: "the server ended the connection".into(),
                }),
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
        let now = self.runtime.clock.now();
        self.runtime.server.borrow_mut().handle_frame(now, self.peer, &frame);
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        Poll::Ready(Ok(()))
    }

    fn close(&mut self, code: u16, _: &str) {
        let now = self.runtime.clock.now();
        self.runtime.server.borrow_mut().handle_close(now, self.peer, Some(code));
        self.closed = true;
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Rc::new(RefCell::new(Server::new(ServerConfig::default())));
    let runtime = Own { clock: OwnClock(Instant::now()), tasks: Rc::default(), server };
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
fn example_runs_to_completion() {
    main().unwrap();
}
