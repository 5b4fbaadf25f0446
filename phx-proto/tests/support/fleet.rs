//! A runtime in memory for many connections: a clock that is set by hand, tasks that are polled by
//! hand, and for each host a server that the test controls.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this")]

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use phx_proto::client::{Clock, Received, Runtime, Spawn, Timer, Transport, WriteFailed};
use phx_proto::event::Refusal;
use phx_proto::service::{Bus, BusEvent, Subscription, Supervisor};
use phx_proto::service::{CloudEvent, Router};
use phx_proto::{Cause, Config, ConnectRequest, Ended, Frame, Opened, Time};
use serde_json::{Value, json};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The server of one host.
#[derive(Default)]
pub struct Host {
    /// Whether the host is down. While it is, every attempt fails.
    pub down: bool,
    /// The status with which the host answers attempts.
    pub status: Option<u16>,
    pub dials: usize,
    pub requests: Vec<ConnectRequest>,
    /// Topics whose joins are answered with an error.
    pub rejects: Vec<String>,
    /// Whether the transport panics at its next read.
    pub panics: bool,
    /// Whether the host neither answers nor closes.
    pub silent: bool,
    pub received: Vec<Value>,
    to_client: VecDeque<Received>,
    /// The number of dials so far. Transports of earlier dials are dead.
    generation: u64,
}

pub struct State {
    pub now: Time,
    hosts: BTreeMap<String, Host>,
    tasks: Vec<Task>,
    /// The number of seeds that were drawn. The last seed is the same number.
    pub seeds: u64,
    /// Whether there is no executor. Then a spawn panics, as it does outside of a tokio runtime.
    pub outside: bool,
    /// What happens next at a spawn.
    pub on_spawn: Option<Box<dyn FnOnce() + Send>>,
}

#[derive(Clone)]
pub struct Fleet(Arc<Mutex<State>>);

pub struct FleetTimer(Fleet, Option<Time>);

pub struct Wire {
    fleet: Fleet,
    host: String,
    generation: u64,
}

impl Fleet {
    pub fn new() -> Self {
        let now = Time::from_millis(1_700_000_000_000);
        let (hosts, tasks) = (BTreeMap::new(), Vec::new());
        let state = State { now, hosts, tasks, seeds: 0, outside: false, on_spawn: None };
        Self(Arc::new(Mutex::new(state)))
    }

    pub fn supervisor(&self) -> Supervisor {
        Supervisor::new(self.clone(), Router::new())
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn with_host<T>(&self, host: &str, change: impl FnOnce(&mut Host) -> T) -> T {
        change(self.state().hosts.entry(host.to_owned()).or_default())
    }

    /// Polls every task repeatedly, until no more progress is likely.
    pub fn settle(&self) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..12 {
            let mut tasks = core::mem::take(&mut self.state().tasks);
            tasks.retain_mut(|task| task.as_mut().poll(&mut cx).is_pending());
            self.state().tasks.append(&mut tasks);
        }
    }

    pub fn advance(&self, by: Duration) {
        // In steps, so that a deadline that another one starts can expire too.
        for _ in 0..20 {
            self.state().now += by / 20;
            self.settle();
        }
    }

    /// Drops the executor with its tasks, wherever they are suspended.
    pub fn drop_tasks(&self) {
        let tasks = core::mem::take(&mut self.state().tasks);
        drop(tasks);
    }

    pub fn tasks(&self) -> usize {
        self.state().tasks.len()
    }

    /// Loses the connection to the host without a close frame.
    pub fn cut(&self, host: &str) {
        self.with_host(host, |host| {
            let message = "cut".to_owned();
            host.to_client.push_back(Received::Ended(Ended::Lost { message }));
        });
        self.settle();
    }

    pub fn server_sends(&self, host: &str, message: &Value) {
        self.sends(host, Frame::from(message.to_string()));
    }

    pub fn sends(&self, host: &str, frame: Frame) {
        self.with_host(host, |host| host.to_client.push_back(Received::Frame(frame)));
        self.settle();
    }

    pub fn dials(&self, host: &str) -> usize {
        self.with_host(host, |host| host.dials)
    }
}

impl Host {
    /// Answers joins, leaves and heartbeats like a Phoenix server, and nothing else.
    fn receive(&mut self, message: Value) {
        let topic = message[2].as_str().unwrap_or_default().to_owned();
        let known = ["phx_join", "phx_leave", "heartbeat"];
        if !self.silent && message[3].as_str().is_some_and(|event| known.contains(&event)) {
            let status = if self.rejects.contains(&topic) { "error" } else { "ok" };
            let body = json!({"status": status, "response": {"about": topic}});
            let reply = json!([message[0], message[1], topic, "phx_reply", body]);
            let frame = Frame::Text(Bytes::from(reply.to_string()));
            self.to_client.push_back(Received::Frame(frame));
        }
        self.received.push(message);
    }
}

impl Clock for Fleet {
    fn now(&self) -> Time {
        self.state().now
    }

    fn wall(&self) -> Time {
        self.now()
    }
}

impl Runtime for Fleet {
    type Clock = Self;
    type Transport = Wire;
    type Timer = FleetTimer;
    type Dial = Pin<Box<dyn Future<Output = Result<(Wire, Opened), Cause>> + Send>>;

    fn clock(&self) -> Self {
        self.clone()
    }

    fn seed(&self) -> u64 {
        let mut state = self.state();
        state.seeds += 1;
        state.seeds
    }

    fn timer(&self) -> FleetTimer {
        FleetTimer(self.clone(), None)
    }

    fn connect(&self, request: ConnectRequest, _: &Config) -> Self::Dial {
        let fleet = self.clone();
        Box::pin(async move {
            let name = request.uri.host().to_owned();
            let generation = fleet.with_host(&name, |host| {
                host.dials += 1;
                host.requests.push(request);
                if host.down {
                    return Err(Cause::Dial {
                        kind: phx_proto::event::DialKind::Refused,
                        message: "connection refused".into(),
                    });
                }
                if let Some(status) = host.status {
                    return Err(Cause::Refused(Refusal::new(status, Vec::new(), "")));
                }
                host.generation += 1;
                host.to_client.clear();
                Ok(host.generation)
            })?;
            Ok((Wire { fleet, host: name, generation }, Opened::default()))
        })
    }
}

impl<F: Future<Output = ()> + Send + 'static> Spawn<F> for Fleet {
    fn spawn(&self, future: F) {
        assert!(!self.state().outside, "there is no executor");
        self.state().tasks.push(Box::pin(future));
        let on_spawn = self.state().on_spawn.take();
        on_spawn.into_iter().for_each(|happens| happens());
    }
}

impl Timer for FleetTimer {
    fn reset(&mut self, at: Option<Time>) {
        self.1 = at;
    }

    fn poll_expired(&mut self, _: &mut Context<'_>) -> Poll<()> {
        if self.1.is_some_and(|at| at <= self.0.now()) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Transport for Wire {
    fn poll_receive(&mut self, _: &mut Context<'_>) -> Poll<Received> {
        let generation = self.generation;
        self.fleet.with_host(&self.host, |host| {
            assert!(!core::mem::take(&mut host.panics), "on purpose");
            if host.generation != generation {
                return Poll::Pending;
            }
            host.to_client.pop_front().map_or(Poll::Pending, Poll::Ready)
        })
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, frame: Frame) -> Result<(), WriteFailed> {
        let message = serde_json::from_slice(frame.as_bytes()).expect("what is sent is JSON");
        self.fleet.with_host(&self.host, |host| host.receive(message));
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        Poll::Ready(Ok(()))
    }

    fn close(&mut self, code: u16, reason: &str) {
        let ended = Ended::CloseFrame { code: Some(code), reason: reason.to_owned() };
        self.fleet.with_host(&self.host, |host| {
            if !host.silent {
                host.to_client.push_back(Received::Ended(ended));
            }
        });
    }
}

/// Every event that is ready in a subscription. Panics if some were lost.
pub fn drain(subscription: &mut Subscription) -> Vec<CloudEvent> {
    let mut events = Vec::new();
    loop {
        let mut next = core::pin::pin!(subscription.next());
        match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(BusEvent::Event(routed))) => events.push(routed.event.clone()),
            Poll::Ready(Some(other)) => panic!("events were lost: {other:?}"),
            Poll::Ready(None) | Poll::Pending => return events,
        }
    }
}

/// The types of the events that are ready in a subscription.
pub fn types(subscription: &mut Subscription) -> Vec<String> {
    drain(subscription).into_iter().map(|event| event.kind).collect()
}

pub fn subscribe(bus: &Bus, pattern: &str) -> Subscription {
    bus.subscribe(pattern).expect("a pattern")
}

pub fn config(host: &str) -> Config {
    Config::insecure(&format!("ws://{host}/socket/websocket")).expect("a URI")
}

/// The output of a future that completes within some seconds. The tasks are polled in between.
pub fn run<F: Future>(fleet: &Fleet, future: F) -> F::Output {
    let mut future = core::pin::pin!(future);
    for round in 0..50 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        // No time passes in the first rounds, so that a future that needs none completes at once. The
        // other rounds let timeouts expire.
        fleet.advance(Duration::from_millis(if round < 20 { 0 } else { 200 }));
    }
    panic!("the future should be ready")
}
