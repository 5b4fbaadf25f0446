//! Runs the driver in a runtime that is neither tokio nor smol: a loop that polls every task, and byte
//! streams under phx's WebSocket.
//!
//! A real runtime waits for wakers instead of polling every millisecond, and its `Stream` is a socket
//! instead of a server in the same process. Otherwise this example implements everything that a
//! runtime needs.
#![allow(clippy::disallowed_methods, reason = "a runtime has a clock; the core has none")]
#![allow(clippy::disallowed_types, reason = "a runtime has a clock; the core has none")]

use std::cell::RefCell;
use std::future::{Future, Ready, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use phx_proto::client::{Clock, Received, Runtime, Spawn, Timer, Transport, WriteFailed, connect};
use phx_proto::event::DialKind;
use phx_proto::testing::{HttpRequest, Output, PeerId, Server, ServerConfig};
use phx_proto::websocket::{Endpoint, Event, Limits, MaskKeys};
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

    /// A real runtime boxes an `async` block that resolves, connects and upgrades. For the upgrade it can
    /// use `Endpoint::connecting`, which reads and writes bytes too.
    fn connect(&self, request: ConnectRequest, _: &Config) -> Self::Dial {
        let request = HttpRequest { path: request.uri.target(), ..HttpRequest::default() };
        let accepted = self.server.borrow_mut().connect(self.clock.now(), &request);
        let opened = accepted.map(|accepted| {
            let endpoint = Endpoint::server(&Limits::default());
            let (runtime, peer) = (self.clone(), accepted.peer);
            let stream = Stream { runtime, peer, endpoint, unread: BytesMut::new() };
            (Wire::new(stream), Opened::default())
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

/// A byte stream. A real runtime has a TCP or TLS stream here.
struct Stream {
    runtime: Own,
    peer: PeerId,
    /// The WebSocket of the server at the other end.
    endpoint: Endpoint,
    unread: BytesMut,
}

impl Stream {
    /// Passes bytes to the server.
    fn write(&mut self, bytes: &[u8]) {
        let (now, mut server) = (self.runtime.clock.now(), self.runtime.server.borrow_mut());
        self.unread.extend_from_slice(bytes);
        while let Ok(Some(event)) = self.endpoint.poll_event(&mut self.unread) {
            match event {
                Event::Message(frame) => server.handle_frame(now, self.peer, &frame),
                Event::Close(close) => server.handle_close(now, self.peer, close.code),
                _ => {}
            }
        }
    }

    /// Appends the bytes that the server has sent.
    fn read(&mut self, into: &mut BytesMut) {
        while let Some(output) = self.runtime.server.borrow_mut().poll_output() {
            match output {
                Output::Send { frame, .. } => drop(self.endpoint.send(frame)),
                Output::Close { code, .. } => drop(self.endpoint.close(code, "")),
                Output::Drop { .. } => {}
            }
        }
        self.endpoint.poll_transmit(into, usize::MAX, || unreachable!("a server does not mask"));
    }
}

/// An open WebSocket over a byte stream.
struct Wire {
    stream: Stream,
    endpoint: Endpoint,
    keys: MaskKeys<fn(&mut [u8])>,
    read: BytesMut,
}

impl Wire {
    fn new(stream: Stream) -> Self {
        // A real runtime fills the block with the operating system's entropy.
        let keys = MaskKeys::new((|block| block.fill(7)) as fn(&mut [u8]));
        Self { stream, endpoint: Endpoint::client(&Limits::default()), keys, read: BytesMut::new() }
    }

    /// Bytes out.
    fn write(&mut self) {
        let mut bytes = BytesMut::new();
        while self.endpoint.poll_transmit(&mut bytes, 16_384, || self.keys.next_key()) > 0 {
            self.stream.write(&bytes);
            bytes.clear();
        }
    }
}

impl Transport for Wire {
    /// Bytes in.
    fn poll_receive(&mut self, _: &mut Context<'_>) -> Poll<Received> {
        loop {
            match self.endpoint.poll_event(&mut self.read) {
                Ok(Some(Event::Message(frame))) => return Poll::Ready(Received::Frame(frame)),
                Ok(Some(Event::Close(close))) => {
                    let ended = Ended::CloseFrame { code: close.code, reason: close.reason };
                    return Poll::Ready(Received::Ended(ended));
                }
                Ok(Some(_)) => {
                    self.write(); // the pong to a ping
                    return Poll::Ready(Received::Control);
                }
                Ok(None) => {}
                Err(fault) => {
                    let ended = Ended::Lost { message: fault.to_string() };
                    return Poll::Ready(Received::Ended(ended));
                }
            }
            let before = self.read.len();
            self.stream.read(&mut self.read);
            if self.read.len() == before {
                return Poll::Pending;
            }
        }
    }

    /// This stream accepts any number of bytes. A real one is ready while the endpoint has queued fewer
    /// than some maximum.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, frame: Frame) -> Result<(), WriteFailed> {
        self.endpoint.send(frame).map_err(|_| WriteFailed)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        self.write();
        Poll::Ready(Ok(()))
    }

    fn close(&mut self, code: u16, reason: &str) {
        // The core passes only codes that may be sent.
        let _ = self.endpoint.close(code, reason);
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
