//! A transport in memory, a clock that is set by hand, and a driver over both.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this")]

use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use phx_proto::client::{
    Channel, ChannelEvent, Client, Clock, Driver, Messages, Received, Runtime, Setup, Timer,
    Transport, WriteFailed, client,
};
use phx_proto::event::Progress;
use phx_proto::{Cause, Config, ConnectRequest, Ended, Frame, Opened, Time};
use serde_json::{Value, json};

/// Everything except the driver: the clock and both ends of the only wire.
#[derive(Default)]
pub struct World {
    pub now: Time,
    /// How far the wall clock is ahead of the other clock, which stands still while the machine
    /// sleeps.
    pub slept: Duration,
    pub dials: usize,
    /// The request of each attempt.
    pub requests: Vec<ConnectRequest>,
    /// How the next attempts fail.
    pub failures: VecDeque<Cause>,
    pub to_client: VecDeque<Received>,
    /// A message that is received whenever there is nothing else to receive.
    pub flood: Option<Value>,
    pub to_server: Vec<Value>,
    pub blocked: bool,
    /// The bytes that the wire takes after it was ready; see `Transport::space`.
    pub space: usize,
    /// How often the driver has asked whether the wire is ready.
    pub asked: u32,
    pub flushes: u32,
    pub flushes_while_blocked: bool,
    /// A client that is called at every read of the clock, because a runtime's clock may call its client.
    pub clock_calls: Option<Client>,
    /// The progress that the wire reports.
    pub moved: Progress,
    /// Whether frames that are sent count in `moved`.
    pub counts_sent: bool,
    /// The time that the driver's timer is set to.
    pub timer: Option<Time>,
    /// Bytes that the next read takes from the operating system.
    pub unread: u64,
}

/// A shared [`World`].
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<World>>);

impl Memory {
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A timer of the clock that is set by hand.
pub struct MemoryTimer(Memory, Option<Time>);

/// The client's end of the wire.
pub struct Wire(Memory);

impl Clock for Memory {
    fn now(&self) -> Time {
        let called = self.world().clock_calls.clone();
        drop(called.map(|client| client.status()));
        self.world().now
    }

    fn wall(&self) -> Time {
        let world = self.world();
        world.now + world.slept
    }
}

impl Runtime for Memory {
    type Clock = Self;
    type Transport = Wire;
    type Timer = MemoryTimer;
    type Dial = Pin<Box<dyn Future<Output = Result<(Wire, Opened), Cause>> + Send>>;

    fn clock(&self) -> Self {
        self.clone()
    }

    fn seed(&self) -> u64 {
        7
    }

    fn timer(&self) -> MemoryTimer {
        MemoryTimer(self.clone(), None)
    }

    fn connect(&self, request: ConnectRequest, _: &Config) -> Self::Dial {
        let memory = self.clone();
        Box::pin(async move {
            let mut world = memory.world();
            world.dials += 1;
            world.requests.push(request);
            world.to_client.clear();
            if let Some(failure) = world.failures.pop_front() {
                return Err(failure);
            }
            drop(world);
            Ok((Wire(memory), Opened::default()))
        })
    }
}

impl Timer for MemoryTimer {
    fn reset(&mut self, at: Option<Time>) {
        self.1 = at;
        self.0.world().timer = at;
    }

    fn poll_expired(&mut self, _: &mut Context<'_>) -> Poll<()> {
        if self.1.is_some_and(|at| at <= self.0.now()) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Transport for Wire {
    fn poll_receive(&mut self, _: &mut Context<'_>) -> Poll<Received> {
        let mut world = self.0.world();
        world.moved.read += std::mem::take(&mut world.unread);
        let flood = world
            .flood
            .as_ref()
            .map(|message| Received::Frame(Frame::Text(Bytes::from(message.to_string()))));
        world.to_client.pop_front().or(flood).map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        let mut world = self.0.world();
        world.asked += 1;
        if world.blocked { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn space(&self) -> usize {
        self.0.world().space
    }

    fn send(&mut self, frame: Frame) -> Result<(), WriteFailed> {
        let len = frame.len() as u64;
        let message = match frame {
            Frame::Text(text) => serde_json::from_slice(&text).expect("what is sent is JSON"),
            Frame::Binary(bytes) => json!({"binary": bytes.len()}),
        };
        let mut world = self.0.world();
        world.to_server.push(message);
        if world.counts_sent {
            world.moved.written += len;
        }
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        let mut world = self.0.world();
        world.flushes += 1;
        if world.blocked && !world.flushes_while_blocked {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn progress(&mut self) -> Progress {
        self.0.world().moved
    }

    fn close(&mut self, code: u16, reason: &str) {
        let ended = Ended::CloseFrame { code: Some(code), reason: reason.to_owned() };
        self.0.world().to_client.push_back(Received::Ended(ended));
    }
}

/// A client and its driver, polled by hand.
pub struct Bench {
    pub memory: Memory,
    pub client: Client,
    pub driver: Pin<Box<Driver<Memory>>>,
}

impl Bench {
    pub fn new<S: Into<Setup>>(configure: impl FnOnce(Config) -> S) -> Self {
        let memory = Memory::default();
        let config = Config::new("ws://localhost:4000/socket/websocket").expect("a valid URI");
        let (client, driver) = client(configure(config), memory.clone());
        client.connect();
        let mut bench = Self { memory, client, driver: Box::pin(driver) };
        bench.settle();
        bench
    }

    /// Polls the driver up to four times. Returns whether it has completed.
    pub fn settle(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        (0..4).any(|_| self.driver.as_mut().poll(&mut cx).is_ready())
    }

    pub fn advance(&mut self, by: Duration) {
        self.memory.world().now += by;
        self.settle();
    }

    pub fn server_sends(&mut self, message: &Value) {
        let frame = Frame::Text(Bytes::from(message.to_string()));
        self.memory.world().to_client.push_back(Received::Frame(frame));
        self.settle();
    }

    pub fn cut(&mut self) {
        let message = "cut".to_owned();
        self.memory.world().to_client.push_back(Received::Ended(Ended::Lost { message }));
        self.settle();
    }

    pub fn last_sent(&self) -> Value {
        self.memory.world().to_server.last().cloned().expect("something was sent")
    }

    /// Answers the last frame that was written.
    pub fn reply(&mut self, status: &str, response: Value) {
        let sent = self.last_sent();
        let body = json!({"status": status, "response": response});
        self.server_sends(&json!([sent[0], sent[1], sent[2], "phx_reply", body]));
    }

    pub fn joined(&mut self, topic: &str) -> Channel {
        let client = self.client.clone();
        let mut join = pin!(client.join(topic, json!({})));
        assert!(poll(join.as_mut()).is_pending());
        self.settle();
        assert_eq!(self.last_sent()[3], "phx_join");
        self.reply("ok", json!({"hello": 1}));
        ready(join.as_mut()).expect("the join was answered with ok")
    }
}

pub fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

pub fn ready<F: Future>(future: Pin<&mut F>) -> F::Output {
    match poll(future) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future should be ready"),
    }
}

pub fn next(messages: &mut Messages) -> Option<ChannelEvent> {
    ready(pin!(messages.next()))
}
